"""The guard's process, and the link to it from the process in which a policy runs."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import selectors
import signal
import socket
import termios
import threading
import time
import tty
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, RobotError
from understudy.robots.guard import Guard, Seen, Status
from understudy.robots.processes import start
from understudy.robots.protocol import Reading, Robot
from understudy.robots.safety import Kind, SafetyConfig
from understudy.robots.wire import LARGEST, SOCKET_TYPE, Message

STOP_KEYS = " \x1b"  # space and escape
_KINDS = tuple(Kind)
_START_S = 60.0
_ANSWER_S = 0.8
_CONNECTING_S = 2.5  # where the guard may be waiting for a robot to come back
_BEGIN_S = 8.0
_RESCUE_S = 2.0
_CLOSE_S = 4.0  # of which the guard may look 3 s for a robot that is lost
_NO_READING, _JUDGES, _SUCCEEDED, _HAS_HOME = 1, 2, 4, 8


class Ask(IntEnum):
    """Messages from the policy's process to the guard."""

    BEGIN = 1
    OBSERVE = 2
    COMMAND = 3
    REST = 4
    RESET = 5
    CLOSE = 6


class Link(Protocol):
    """The way to a guard, wherever it runs."""

    def begin(self, seed: int) -> Seen: ...

    def observe(self) -> Seen: ...

    def command(self, values: NDArray[Any], observed_s: float, driver: int, novelty: float) -> None: ...

    def rest(self) -> Seen: ...

    def reset(self) -> Seen: ...

    def press(self, reason: str) -> None:
        """The stop button."""

    def close(self) -> None: ...


class LocalLink:
    """A guard in this process, for tests and simulated clocks. Nothing stops the robot when this process dies."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def begin(self, seed: int) -> Seen:
        return self._guard.begin(seed)

    def observe(self) -> Seen:
        self._guard.tick()
        return self._guard.observe()

    def command(self, values: NDArray[Any], observed_s: float, driver: int, novelty: float) -> None:
        self._guard.command(values.tolist(), observed_s, driver, novelty)

    def rest(self) -> Seen:
        return self._guard.rest()

    def reset(self) -> Seen:
        return self._guard.reset()

    def press(self, reason: str) -> None:
        self._guard.stop(reason, Kind.BUTTON)

    def close(self) -> None:
        self._guard.close()


# ---- in the policy's process ----------------------------------------


class GuardLink:
    """Starts a guard in a process of its own, and talks to it.

    The two watch each other: the guard stops the robot when this process dies or falls silent; where the guard itself
    dies or hangs, this process connects to the robot anew and stops it.

    Args:
        robot: not connected yet; it is pickled.
        config: what is tolerated.
        dry_run: everything but the wire.
        keyboard: path of a terminal on which the guard listens for the stop keys; none where empty.

    Raises:
        ConfigError: a limit is missing, or the robot cannot be pickled.
        RobotError: the guard did not start.
    """

    def __init__(self, robot: Robot, config: SafetyConfig, *, dry_run: bool = False, keyboard: str = "") -> None:
        Guard(robot, config)  # refuses what it must here, where there is somebody to read it
        self._robot, self._dry_run = robot, dry_run
        self._axes, self._channels = len(robot.spec.axes), len(robot.spec.observations)
        self._asked = 0
        self._closing = False
        self._dead = ""
        self._lock = threading.Lock()
        self._last = Seen(Status.IDLE, None, np.zeros(self._axes))
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        self._button, their_button = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        self._life, their_life = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ends = (theirs, their_button, their_life)
        try:
            self._process = start(serve_guard, config, dry_run, keyboard, *ends, carried=robot, name="guard")
        except Exception as error:  # whatever pickling a driver raises
            self._hang_up()
            raise ConfigError(
                f"the driver is sent to the guard's process by pickle, and this one cannot be ({error}); open its "
                "connection in connect(), not before"
            ) from error
        finally:
            for end in ends:
                end.close()
        self._life.settimeout(_START_S)
        try:
            started = self._life.recv(4096)
        except TimeoutError:
            started = b""
        if started != b"ready":
            self._process.kill()
            self._process.join()
            self._hang_up()
            raise RobotError(
                "the guard did not start; the driver's module must be importable, and a script that defines a driver "
                "keeps its work behind `if __name__ == '__main__':`"
            )
        self._life.settimeout(None)
        threading.Thread(target=self._watch, name="guard's life", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the guard; SIGUSR1 is a stop button."""
        assert self._process.pid is not None, "started"
        return int(self._process.pid)

    def begin(self, seed: int) -> Seen:
        return self._request(Message(Ask.BEGIN, time_s=float(seed)), _BEGIN_S)

    def observe(self) -> Seen:
        return self._request(Message(Ask.OBSERVE), _ANSWER_S)

    def command(self, values: NDArray[Any], observed_s: float, driver: int, novelty: float) -> None:
        self._send(Message(Ask.COMMAND, driver + 1, 0, observed_s, novelty, values))

    def rest(self) -> Seen:
        return self._request(Message(Ask.REST), _ANSWER_S)

    def reset(self) -> Seen:
        return self._request(Message(Ask.RESET), _ANSWER_S)

    def press(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._button.send(reason.encode())

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._send(Message(Ask.CLOSE))
        self._process.join(_CLOSE_S)
        if self._process.is_alive():  # it hangs, and may hold a robot that moves
            self._process.kill()
            self._stop_from_here()
        self._process.join()
        self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._wire, self._button, self._life):
            end.close()

    def _send(self, message: Message) -> None:
        if not self._dead:
            try:
                self._wire.settimeout(_ANSWER_S)
                self._wire.send(message.pack())
            except OSError:
                self._rescue("the guard's process has died")

    def _request(self, message: Message, within_s: float) -> Seen:
        if self._last.status in (Status.LOST, Status.STOPPED):
            within_s = max(within_s, _CONNECTING_S)
        self._asked += 1
        self._send(message._replace(id=self._asked))
        until_s = time.monotonic() + within_s
        while not self._dead:
            try:
                self._wire.settimeout(max(1e-3, until_s - time.monotonic()))
                data = self._wire.recv(LARGEST)
            except TimeoutError:
                data = None
            except OSError:
                data = b""
            if data:
                answer = Message.unpack(data)
                if answer.id == self._asked:
                    self._last = unpack_seen(answer, self._channels, self._axes, self._last)
                    return self._last
            elif data is None:
                self._rescue(f"the guard did not answer within {within_s:g} s")
            else:
                self._rescue("the guard's process has died")
        self._last.status, self._last.reason, self._last.keys = Status.STOPPED, self._dead, ""
        return self._last

    def _watch(self) -> None:
        """Waits for the guard's end, also while the policy computes."""
        with contextlib.suppress(OSError):
            if not self._life.recv(1) and not self._closing:
                self._rescue("the guard's process has died")

    def _rescue(self, reason: str) -> None:
        """Nobody holds the robot any more: stops it from here."""
        with self._lock:
            if self._dead or self._closing:
                return
            self._process.kill()  # one that hangs may still hold the wire
            told = self._stop_from_here()
            how = "the robot was stopped from here" if told else "the robot could not be reached: use its own stop"
            self._dead = f"{reason}; {how}"

    def _stop_from_here(self) -> bool:
        """Whether the robot could be told to stop from this process, without waiting long for a driver that hangs."""
        told: list[str] = []
        if not self._dry_run:
            helper = threading.Thread(target=self._stop_it, args=(told,), daemon=True)
            helper.start()
            helper.join(_RESCUE_S)
        return bool(told)

    def _stop_it(self, told: list[str]) -> None:
        with contextlib.suppress(Exception):  # whatever a driver raises, there is nothing else to try
            self._robot.connect()
            self._robot.stop()
            told.append("stopped")
            self._robot.disconnect()


def pack_seen(seen: Seen, id: int) -> bytes:
    """The answer of a guard as bytes."""
    flags = seen.status << 4
    time_s = 0.0
    parts: list[NDArray[Any]] = []
    if seen.reading is None:
        flags |= _NO_READING
    else:
        reading = seen.reading
        time_s = reading.time_s
        if reading.succeeded is not None:
            flags |= _JUDGES | _SUCCEEDED * reading.succeeded
        parts += [reading.observation, reading.position]
    parts += [seen.executed, np.array([seen.counts.get(kind, 0) for kind in _KINDS])]
    if seen.home is not None:
        flags |= _HAS_HOME
        parts.append(seen.home)
    text = f"{seen.reason}\0{seen.keys}"
    return Message(0, flags, id, time_s, seen.oldest_s, np.concatenate(parts, dtype=np.float64), text).pack()


def unpack_seen(message: Message, channels: int, axes: int, before: Seen) -> Seen:
    """The answer that `pack_seen` packed; where it has no reading, the one `before` is the last."""
    reading, start = before.reading, 0
    if not message.flags & _NO_READING:
        succeeded = bool(message.flags & _SUCCEEDED) if message.flags & _JUDGES else None
        observation = message.values[:channels].astype(np.float32)
        start = channels + axes
        reading = Reading(observation, message.values[channels:start], message.time_s, succeeded)
    executed = message.values[start : start + axes]
    start += axes
    counted = message.values[start : start + len(_KINDS)]
    counts = {kind: int(count) for kind, count in zip(_KINDS, counted, strict=True) if count}
    home = message.values[start + len(_KINDS) :] if message.flags & _HAS_HOME else None
    reason, _, keys = message.text.partition("\0")
    return Seen(Status(message.flags >> 4), reading, executed, counts, message.extra, reason, home, keys)


# ---- in the guard's process ----------------------------------------


def serve_guard(
    robot: Robot,
    config: SafetyConfig,
    dry_run: bool,
    keyboard: str,
    wire: socket.socket,
    button: socket.socket,
    life: socket.socket,
) -> None:
    """The life of a guard's process: until it is told to close, or whoever drives is gone."""
    gc.freeze()
    gc.disable()  # a collection is a pause, and nothing here makes cycles
    guard = Guard(robot, config, dry_run=dry_run)
    stopper = _Stopper(guard, button, keyboard)
    try:
        life.send(b"ready")
        _serve(guard, wire, stopper)
    finally:
        guard.close()
        stopper.close()


def _serve(guard: Guard, wire: socket.socket, stopper: _Stopper) -> None:
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(wire, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        due_s = math.inf
        while not stopper.ended:
            wait_s = None if due_s == math.inf else max(0.0, due_s - time.monotonic())
            for key, _ in selector.select(wait_s):
                if key.fileobj is wake:
                    wake.recv(64)
                elif not _answer(guard, wire, stopper):
                    return
            due_s = guard.tick()


def _answer(guard: Guard, wire: socket.socket, stopper: _Stopper) -> bool:
    """Answers one message; False where there are no more."""
    try:
        data = wire.recv(LARGEST)
    except OSError:
        data = b""
    if not data:
        return False
    message = Message.unpack(data)
    match message.kind:
        case Ask.BEGIN:
            seen = guard.begin(int(message.time_s))
        case Ask.OBSERVE:
            seen = guard.observe()
        case Ask.COMMAND:
            guard.command(message.values.tolist(), message.time_s, message.flags - 1, message.extra)
            return True
        case Ask.REST:
            seen = guard.rest()
        case Ask.RESET:
            seen = guard.reset()
        case _:
            return False
    seen.keys = stopper.take_keys()
    with contextlib.suppress(OSError):  # it died; the next recv says so
        wire.send(pack_seen(seen, message.id))
    return True


class _Stopper:
    """The stop button in the guard's process: a thread that nothing else keeps waiting.

    It listens to the button's socket, to signals, and to the terminal, and looks after calls of the driver that hang.
    """

    def __init__(self, guard: Guard, button: socket.socket, keyboard: str) -> None:
        self._guard, self._button = guard, button
        self._keys: list[str] = []
        self.ended = False
        self._terminal: int | None = None
        self._settings: list[Any] = []
        if keyboard:
            with contextlib.suppress(OSError, termios.error):  # no terminal, no keys; the other buttons remain
                self._terminal = os.open(keyboard, os.O_RDWR | os.O_NOCTTY)
                self._settings = termios.tcgetattr(self._terminal)
                tty.setcbreak(self._terminal)
        self._own, self._signals = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        threading.Thread(target=self._run, name="stop button", daemon=True).start()

    def take_keys(self) -> str:
        keys, self._keys = self._keys, []
        return "".join(keys)

    def close(self) -> None:
        if self._terminal is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._settings)

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            self.ended = True
        self._signals.send(f"{signal.Signals(number).name}".encode())

    def _run(self) -> None:
        sources: list[Any] = [self._button, self._own]
        if self._terminal is not None:
            sources.append(self._terminal)
        while True:
            ready, _, _ = select.select(sources, [], [], self._guard.supervised_s)
            for source in ready:
                self._listen(source, sources)
            self._guard.supervise()

    def _listen(self, source: Any, sources: list[Any]) -> None:
        if source is self._terminal and self._terminal is not None:
            key = os.read(self._terminal, 1).decode(errors="replace")
            if not key:
                sources.remove(source)
            elif key in STOP_KEYS:
                self._press("the stop key was pressed")
            else:
                self._keys.append(key)
            return
        data = source.recv(4096)
        if not data:
            sources.remove(source)
        elif source is self._own:
            self._press(f"{data.decode()} came")
        else:
            self._press(data.decode(errors="replace"))

    def _press(self, reason: str) -> None:
        self._guard.stop(f"{Kind.BUTTON}: {reason}", Kind.BUTTON)
