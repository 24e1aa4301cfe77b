"""The link from the process in which a policy runs to the guard that holds the robot."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, RobotError
from understudy.robots.guard import Guard
from understudy.robots.guard_messages import ALIVE, Ask, Seen, Status, one_line, unpack_seen
from understudy.robots.guard_process import serve_guard
from understudy.robots.processes import said_ready, start
from understudy.robots.protocol import Robot
from understudy.robots.safety import Kind
from understudy.robots.safety_config import SafetyConfig
from understudy.robots.stop_teller import TELLS_S, UNTOLD
from understudy.robots.terminal import KeptTerminal
from understudy.robots.watched_driver import CALL_S, CONNECT_S, connecting_again
from understudy.robots.wire import LARGEST, SOCKET_TYPE, Message

_START_S = 60.0
_ANSWER_S = 0.8  # without an answer or a sign of life from the guard, after which it is taken to hang
_RESCUE_S = CONNECT_S + 2 * CALL_S
_AGAIN_S = 0.05
_LONGEST_PRESS = 500  # characters
_CLOSE_S = TELLS_S + CALL_S  # the same of a guard that is told to close


class Link(Protocol):
    """The way to a guard, wherever it runs."""

    def begin(self, seed: int) -> Seen: ...

    def observe(self) -> Seen: ...

    def command(self, values: NDArray[Any], observed_s: float, driver: int, novelty: float) -> None: ...

    def rest(self) -> Seen: ...

    def reset(self) -> Seen: ...

    def press(self, reason: str) -> None:
        """The stop button."""

    def close(self) -> None:
        """Brings the robot to rest and lets go of it.

        Raises:
            RobotError: it could not be told to stop, and nobody has said so yet.
        """

    @property
    def is_alive(self) -> bool:
        """Whether there is a guard to answer."""
        ...


class LocalLink:
    """A guard in this process, for tests and simulated clocks. Nothing stops the robot when this process dies."""

    is_alive = True

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
        if not self._guard.close():
            _require_said(self._guard.seen().reason)


class GuardLink:
    """Starts a guard in a process of its own, and talks to it.

    The two watch each other: the guard stops the robot when this process dies or falls silent; where the guard itself
    dies or hangs, this process connects to the robot anew and stops it.

    Args:
        robot: not connected yet; it is pickled, and its spec beside it: a driver that pickles by the arguments it was
            made of would forget the limits that a person gave since.
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
        spec = robot.spec
        self._axes, self._channels = len(spec.axes), len(spec.observations)
        self._asked = 0
        self._closing = False
        self._dead = ""
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._terminal = KeptTerminal(keyboard)
        self._last = Seen(Status.IDLE, None, np.zeros(self._axes))
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        self._button, their_button = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        self._life, their_life = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ends = (theirs, their_button, their_life)
        try:
            self._process = start(serve_guard, spec, config, dry_run, keyboard, *ends, carried=robot, name="guard")
        except Exception as error:  # whatever pickling a driver raises
            self._hang_up()
            raise ConfigError(
                f"the driver is sent to the guard's process by pickle, and this one cannot be ({error}); open its "
                "connection in connect(), not before"
            ) from error
        finally:
            for end in ends:
                end.close()
        if not said_ready(self._life, _START_S):
            self._process.kill()
            self._process.join()
            self._hang_up()
            raise RobotError(
                "the guard did not start; the driver's module must be importable, and a script that defines a driver "
                "keeps its work behind `if __name__ == '__main__':`"
            )
        threading.Thread(target=self._watch, name="guard's life", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the guard; SIGUSR1 is a stop button."""
        assert self._process.pid is not None, "started"
        return int(self._process.pid)

    @property
    def is_alive(self) -> bool:
        return not (self._dead or self._closing)

    def begin(self, seed: int) -> Seen:
        return self._request(Message(Ask.BEGIN, time_s=float(seed)))

    def observe(self) -> Seen:
        return self._request(Message(Ask.OBSERVE))

    def command(self, values: NDArray[Any], observed_s: float, driver: int, novelty: float) -> None:
        self._send(Message(Ask.COMMAND, driver + 1, 0, observed_s, novelty, values))

    def rest(self) -> Seen:
        return self._request(Message(Ask.REST))

    def reset(self) -> Seen:
        return self._request(Message(Ask.RESET))

    def press(self, reason: str) -> None:
        said = one_line(reason, _LONGEST_PRESS) or "pressed"  # nothing at all would be an end
        with contextlib.suppress(OSError):
            self._button.send(said.encode())

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        told = UNTOLD not in self._dead
        try:
            self._send(Message(Ask.CLOSE))
            self._wait_for_its_end()
        finally:  # also where a person does not want to wait: the robot comes first
            self._process.join(_ANSWER_S)
            if not self._dead and self._process.exitcode != 0:  # it hangs, has died or failed, and the robot may move
                self._end_guard()
                told = self._stop_from_here()
            self._process.join()
            self._hang_up()
        if not told:
            _require_said(self._last.reason)

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

    def _end_guard(self) -> None:
        self._process.kill()  # one that hangs may still hold the wire
        self._process.join(CALL_S)
        self._terminal.give_back()

    def _request(self, message: Message) -> Seen:
        with self._asking:  # any thread may take back a stop, and an answer is for whoever asked
            return self._answer_to(message)

    def _answer_to(self, message: Message) -> Seen:
        self._asked += 1
        self._send(message._replace(id=self._asked))
        until_s = time.monotonic() + _ANSWER_S
        while self.is_alive:
            data = self._receive(until_s)
            if data:
                answer = Message.unpack(data)
                if answer.id == self._asked:
                    self._last = unpack_seen(answer, self._channels, self._axes)
                    return self._last
                if answer.id == ALIVE:
                    until_s = time.monotonic() + _ANSWER_S
            elif data is None:
                self._rescue(f"the guard gave no sign of life for {_ANSWER_S:g} s")
            else:
                self._rescue("the guard's process has died")
        self._last.status, self._last.keys = Status.STOPPED, ""
        self._last.reason = self._dead or "the guard was closed"
        return self._last

    def _receive(self, until_s: float) -> bytes | None:
        """The next message of the guard; none (b"") where it is gone, None where it said nothing until then."""
        try:
            self._wire.settimeout(max(1e-3, until_s - time.monotonic()))
            return self._wire.recv(LARGEST)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def _wait_for_its_end(self) -> None:
        """Waits while a guard that was told to close still brings the robot to rest, and lives."""
        until_s = time.monotonic() + _CLOSE_S
        while data := self._receive(until_s):
            if Message.unpack(data).id == ALIVE:
                until_s = max(until_s, time.monotonic() + _ANSWER_S)

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
            self._end_guard()
            told = self._stop_from_here()
            how = "the robot was stopped from here" if told else f"{UNTOLD}: use its own stop"
            self._dead = f"{reason}; {how}"

    def _stop_from_here(self) -> bool:
        """Whether the robot could be told to stop from this process, without waiting long for a driver that hangs."""
        if self._dry_run:
            return True
        told: list[str] = []
        helper = threading.Thread(target=self._stop_it, args=(told,), daemon=True)
        helper.start()
        helper.join(_RESCUE_S)
        return bool(told)

    def _stop_it(self, told: list[str]) -> None:
        until_s = time.monotonic() + CALL_S
        while not told:
            with contextlib.suppress(Exception):  # whatever a driver raises, there is nothing else to try
                connecting_again(self._robot)()
                self._robot.stop()
                told.append("stopped")
                self._robot.disconnect()
            if time.monotonic() > until_s:
                return
            time.sleep(_AGAIN_S)


def _require_said(reason: str) -> None:
    """Raises where a robot may still move, unless the `reason` of its last stop says so."""
    if UNTOLD not in reason:
        raise RobotError(f"{UNTOLD}: use its own stop")
