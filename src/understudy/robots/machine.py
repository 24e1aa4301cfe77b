"""A robot's controller as a process of its own, and the driver that talks to it; for robots to test with.

Like the controller of a real arm it does not die with the program that drives it, it serves whoever connects, and it
goes on as it was told until it is told something else.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError, RobotLost
from understudy.robots.faults import require_script
from understudy.robots.processes import READY, said_ready, start
from understudy.robots.protocol import Reading, RobotSpec
from understudy.robots.wire import LARGEST, SOCKET_TYPE, Message

ANSWER_S = 0.25
_START_S = 20.0
_HOME_S = 2.0
_LINGER_S = 1.0


class Kind(IntEnum):
    """Messages between a driver and a machine."""

    READ = 1
    STATE = 2
    COMMAND = 3
    STOP = 4
    HOME = 5
    POSE = 6
    REPORT = 7
    FAULT = 8
    TEXT = 9


EMERGENCY, JUDGES, SUCCEEDED = 1, 2, 4  # flags of a STATE


class State(NamedTuple):
    """What a machine measures: positions (A,) and velocities (A,) of its axes, its observation (D,), and when."""

    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    observation: NDArray[np.float64]
    time_s: float
    succeeded: bool | None = None


class Body(Protocol):
    """What moves inside of a machine. Times are `time.monotonic()`."""

    def state(self, now_s: float) -> State: ...

    def command(self, values: NDArray[np.float64], now_s: float) -> None: ...

    def stop(self, now_s: float) -> None: ...

    def home(self, seed: int, now_s: float) -> NDArray[np.float64] | None: ...

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until it must be looked at, where it lives by itself."""
        ...

    def report(self, now_s: float) -> dict[str, Any]:
        """What the body has seen and judged, as plain JSON values."""
        ...


class Faults(Protocol):
    """What goes wrong between a machine and its driver; see `faults.py`."""

    def begin(self, name: str, seed: int, after_s: float, now_s: float) -> None: ...

    def reply(self, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        """What is sent instead of a reply, and when."""
        ...

    def obeys(self, now_s: float) -> bool:
        """Whether commands reach the body."""
        ...

    def presses_emergency(self, now_s: float) -> bool: ...

    def is_reachable(self, now_s: float) -> bool: ...

    def wait_s(self, now_s: float) -> float | None: ...


# ---- the process ----------------------------------------


def serve(build: Callable[[], tuple[Body, Faults]], path: str, lifeline: socket.socket) -> None:
    """The life of a machine's process: serves until its owner is gone and nobody is connected."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    body, faults = build()
    _Server(body, faults, path, lifeline).run()


class _Server:
    def __init__(self, body: Body, faults: Faults, path: str, lifeline: socket.socket) -> None:
        self._body, self._faults, self._path, self._lifeline = body, faults, path, lifeline
        self._selector = selectors.DefaultSelector()
        self._selector.register(lifeline, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()
        self._later: list[tuple[float, int, socket.socket, bytes]] = []
        self._sent = 0
        self._owned = True
        self._alone_s: float | None = None
        self._emergency = False

    def run(self) -> None:
        self._listen()
        self._lifeline.send(READY)
        while self._owned or self._clients or not self._was_alone():
            now_s = time.monotonic()
            waits = [self._faults.wait_s(now_s), self._body.wait_s(now_s)]
            waits += [self._later[0][0] - now_s] if self._later else []
            waits += [] if self._owned else [_LINGER_S]
            timeout = min((wait for wait in waits if wait is not None), default=None)
            for key, _ in self._selector.select(None if timeout is None else max(0.0, timeout)):
                self._take(key.fileobj)
            self._after(time.monotonic())
        shutil.rmtree(Path(self._path).parent, ignore_errors=True)  # its owner may have died without tidying up

    def _was_alone(self) -> bool:
        self._alone_s = self._alone_s or time.monotonic()
        return time.monotonic() - self._alone_s > _LINGER_S

    def _after(self, now_s: float) -> None:
        self._body.wait_s(now_s)
        if self._faults.is_reachable(now_s):
            self._listen()
        else:
            self._hide()
        if self._faults.presses_emergency(now_s) and not self._emergency:
            self._emergency = True
            self._body.stop(now_s)
        while self._later and self._later[0][0] <= now_s:
            _, _, client, data = heapq.heappop(self._later)
            self._send(client, data)

    def _listen(self) -> None:
        if self._listener is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._listener = socket.socket(socket.AF_UNIX, SOCKET_TYPE)
            self._listener.bind(self._path)
            self._listener.listen()
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _hide(self) -> None:
        for client in tuple(self._clients):
            self._drop(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            os.unlink(self._path)

    def _drop(self, client: socket.socket) -> None:
        self._clients.discard(client)
        self._selector.unregister(client)
        client.close()

    def _take(self, source: Any) -> None:
        if self._listener is not None and source is self._listener:
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients.add(client)
            self._alone_s = None
            self._selector.register(client, selectors.EVENT_READ)
            return
        if source is self._lifeline:
            if not source.recv(16):
                self._owned = False
                self._selector.unregister(source)
            return
        if source not in self._clients:
            return  # dropped a moment ago
        try:
            data = source.recv(LARGEST)
        except OSError:
            data = b""
        if not data:
            self._drop(source)
            return
        self._answer(source, Message.unpack(data), time.monotonic())

    def _answer(self, client: socket.socket, message: Message, now_s: float) -> None:
        match message.kind:
            case Kind.READ:
                for when_s, data in self._faults.reply(self._state(message.id, now_s).pack(), now_s):
                    if when_s <= now_s:
                        self._send(client, data)
                    else:
                        self._sent += 1
                        heapq.heappush(self._later, (when_s, self._sent, client, data))
            case Kind.COMMAND:
                if self._faults.obeys(now_s) and not self._emergency:
                    self._body.command(message.values, now_s)
            case Kind.STOP:
                self._body.stop(now_s)
            case Kind.HOME:
                pose = self._body.home(message.id, now_s)
                self._send(client, Message(Kind.POSE, values=np.empty(0) if pose is None else pose).pack())
            case Kind.REPORT:
                self._send(client, Message(Kind.TEXT, text=json.dumps(self._body.report(now_s))).pack())
            case Kind.FAULT:
                fault = json.loads(message.text)
                self._faults.begin(fault["name"], fault["seed"], fault["after_s"], now_s)
                self._send(client, Message(Kind.TEXT, text="{}").pack())

    def _state(self, id: int, now_s: float) -> Message:
        state = self._body.state(now_s)
        flags = EMERGENCY * self._emergency
        if state.succeeded is not None:
            flags |= JUDGES | SUCCEEDED * state.succeeded
        values = np.concatenate([state.position, state.velocity, state.observation])
        return Message(Kind.STATE, flags, id, state.time_s, values=values)

    def _send(self, client: socket.socket, data: bytes) -> None:
        if client in self._clients:
            with contextlib.suppress(OSError):  # nobody reads any more, or not fast enough
                client.send(data)


# ---- its owner ----------------------------------------


class Machine:
    """A machine that this process started: its address, its report, its faults, its end.

    Args:
        build: makes body and faults, in the machine's process; it is pickled.

    Raises:
        RobotLost: it did not start.
    """

    def __init__(self, build: Callable[[], tuple[Body, Faults]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="understudy-robot-"))
        self.address = str(self._folder / "socket")
        self._lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process = start(serve, self.address, theirs, carried=build, name="robot")
        theirs.close()
        if not said_ready(self._lifeline, _START_S):
            self.close()
            raise RobotLost("the robot's process did not start")

    def report(self) -> dict[str, Any]:
        """What the body has seen and judged.

        Raises:
            RobotLost: the machine cannot be reached.
        """
        content: dict[str, Any] = json.loads(self._ask(Message(Kind.REPORT)).text)
        return content

    def fault(self, name: str, seed: int = 0, after_s: float = 0.0) -> None:
        """Lets something go wrong, so many seconds from now; the names are those of `faults.py`.

        Raises:
            ConfigError: there is no such fault.
            RobotLost: the machine cannot be reached.
        """
        require_script(name)
        self._ask(Message(Kind.FAULT, text=json.dumps({"name": name, "seed": seed, "after_s": after_s})))

    def close(self) -> None:
        """Ends the process, also one that hangs, and removes its address."""
        self._lifeline.close()
        self.process.kill()
        self.process.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, message: Message) -> Message:
        with _connected(self.address) as wire:
            wire.settimeout(_HOME_S)
            try:
                wire.send(message.pack())
                return Message.unpack(wire.recv(LARGEST))
            except OSError as error:
                raise RobotLost(f"the robot's process does not answer: {error}") from error


# ---- its driver ----------------------------------------


class MachineRobot:
    """The driver of a machine: a Robot.

    Args:
        spec: what the machine is.
        address: where it listens.
        machine: its owner's handle, kept so that it lives as long as this driver; it does not travel by pickle.
    """

    def __init__(self, spec: RobotSpec, address: str, machine: Machine | None = None) -> None:
        self.spec, self._address, self.machine = spec, address, machine
        self._wire: socket.socket | None = None
        self._brake: socket.socket | None = None
        self._asked = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "machine": None, "_wire": None, "_brake": None}

    def connect(self) -> None:
        self.disconnect()
        self._wire = _connected(self._address)
        self._brake = _connected(self._address)  # its own connection: no other call is in its way
        self._brake.setblocking(False)

    def read(self) -> Reading:
        self._asked += 1
        asked = self._asked
        self._send(Message(Kind.READ, id=asked))
        state = self._receive(Kind.STATE, asked, ANSWER_S)
        if state.flags & EMERGENCY:
            raise RobotError(f"the emergency stop of {self.spec.name} is pressed; release it there, then begin anew")
        axes = len(self.spec.axes)
        succeeded = bool(state.flags & SUCCEEDED) if state.flags & JUDGES else None
        observation = state.values[2 * axes :].astype(np.float32)
        return Reading(observation, state.values[:axes].copy(), state.time_s, succeeded)

    def command(self, values: NDArray[np.float64]) -> None:
        self._send(Message(Kind.COMMAND, values=values))

    def home(self, seed: int) -> NDArray[np.float64] | None:
        self._send(Message(Kind.HOME, id=seed))
        pose = self._receive(Kind.POSE, 0, _HOME_S).values
        return pose.copy() if len(pose) else None

    def stop(self) -> None:
        try:
            if self._brake is None:
                raise OSError("not connected")
            self._brake.send(Message(Kind.STOP).pack())
        except OSError:
            with _connected(self._address) as wire:
                wire.send(Message(Kind.STOP).pack())

    def disconnect(self) -> None:
        for wire in (self._wire, self._brake):
            if wire is not None:
                wire.close()
        self._wire = self._brake = None

    def _send(self, message: Message) -> None:
        if self._wire is None:
            raise RobotLost(f"{self.spec.name} is not connected")
        try:
            self._wire.settimeout(ANSWER_S)
            self._wire.send(message.pack())
        except OSError as error:
            raise RobotLost(f"the connection to {self.spec.name} is lost: {error}") from error

    def _receive(self, kind: Kind, id: int, within_s: float) -> Message:
        assert self._wire is not None, "connect() comes first"
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                self._wire.settimeout(left_s)
                data = self._wire.recv(LARGEST)
            except TimeoutError:
                break
            except OSError as error:
                raise RobotLost(f"the connection to {self.spec.name} is lost: {error}") from error
            if not data:
                raise RobotLost(f"{self.spec.name} has closed the connection")
            try:
                message = Message.unpack(data)
            except RobotError as error:
                raise RobotLost(f"{self.spec.name} sends what is no message: {error}") from error
            if message.kind == kind and message.id == id:
                return message  # anything else is a late answer to what nobody waits for any more
        raise RobotLost(f"{self.spec.name} did not answer within {within_s:g} s")


def _connected(address: str) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, SOCKET_TYPE)
    wire.settimeout(ANSWER_S)
    try:
        wire.connect(address)
    except OSError as error:
        wire.close()
        raise RobotLost(f"no robot answers at {address}: {error}") from error
    return wire
