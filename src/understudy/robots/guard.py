"""The guard: who holds the robot. It owns the driver, puts every command through the gate, and stops what falls silent.

It runs in a process of its own (`guard_process.py`), so that the robot is stopped whatever happens to the policy's
process. Here is what it does, without sockets: a test can drive it with a clock of its own.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError, RobotLost
from understudy.robots.protocol import Axis, Mode, Reading, Robot
from understudy.robots.safety import Kind, SafetyConfig, SafetyGate

PERIODS_TO_TIMEOUT = 3.0
CALL_S = 1.0  # a driver's call that takes longer hangs
_LATE_PERIODS = 1.5  # after which a missing command is replaced by braking
_STANDS_PERIODS = 2.0  # after which a robot that takes positions stands at the last one
_BURST = 1.5  # commands that may follow one another at once
_RETRY_S = 0.1
_TELLS_S = 3.0
_LOCK_S = 0.05


class Status(IntEnum):
    """What the guard is doing."""

    IDLE = 0
    RUNNING = 1
    LOST = 2
    STOPPED = 3


@dataclass(slots=True)
class Seen:
    """What the guard answers to whoever drives.

    Args:
        status: what it is doing.
        reading: the last good measurement; None before the first.
        executed: (A,) what was last sent to the robot.
        counts: interventions by kind, since the guard began.
        oldest_s: age of the oldest observation that a command was sent for, since the episode began.
        reason: in words, why the robot is stopped or lost.
        home: (A,) where the axes should be when the episode begins, in the answer to `begin`.
        keys: pressed at the terminal since the last answer, but for the stop key.
    """

    status: Status
    reading: Reading | None
    executed: NDArray[np.float64]
    counts: dict[Kind, int] = field(default_factory=dict)
    oldest_s: float = 0.0
    reason: str = ""
    home: NDArray[np.float64] | None = None
    keys: str = ""


class Guard:
    """Holds one robot: gate, watchdog, latched stop, connection.

    Args:
        robot: not connected yet.
        config: what is tolerated.
        dry_run: everything but the wire: measurements are real, nothing is sent.
        clock: seconds, monotonic.

    Raises:
        ConfigError: a limit of an axis is missing, or a workspace is given for a robot without kinematics.
    """

    def __init__(
        self,
        robot: Robot,
        config: SafetyConfig,
        *,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if dry_run:  # nothing that is not told to move has to
            config = replace(config, frozen_s=math.inf, astray_s=math.inf)
        self._robot, self._config, self._dry_run, self._clock = robot, config, dry_run, clock
        spec = robot.spec
        self.gate = SafetyGate(spec, config, getattr(robot, "forward", None))
        self._period_s = spec.period_s
        self._timeout_s = config.timeout_s if config.timeout_s is not None else PERIODS_TO_TIMEOUT * spec.period_s
        # How long a stop takes at most; nothing is sent before the robot is at rest.
        self._settle_s = max(_stop_s(axis) for axis in spec.axes) + spec.period_s
        self._modes = [axis.mode for axis in spec.axes]
        self._lock = threading.RLock()
        self._connected = False
        self._status, self._reason = Status.IDLE, ""
        self._reading: Reading | None = None
        self._executed = np.zeros(len(spec.axes))
        self._heard_s = self._emitted_s = -math.inf  # last valid command, and last one on the wire
        self._tokens = _BURST
        self._pending: tuple[Sequence[float], float, float] | None = None
        self._late, self._brake_s = False, math.inf  # whether it brakes for a late command; when it (next) will
        self._refused_s: float | None = None
        self._resume_s: float | None = -math.inf  # when motion may begin again after a stop
        self._lost_s = self._tried_s = -math.inf
        self._told, self._stopped_s = True, -math.inf  # whether the last stop reached the robot, and when it was
        self._driver = -1
        self._oldest_s = 0.0
        self._owner = threading.get_ident()
        self.calling_since_s: float | None = None

    # ---- what the driver's process asks ----------------------------------------

    def begin(self, seed: int) -> Seen:
        """Connects where needed and looks where the robot is; from here on, commands move it."""
        if self._status is Status.STOPPED:
            return self.seen()
        try:
            if not self._connected:
                with self._call():
                    self._robot.connect()
                self._connected = True
            with self._call():
                home = self._robot.home(seed)
            now_s = self._clock()
            with self._call():
                reading = self._robot.read()
            self._reading = None
            self._heard_s = self._emitted_s = -math.inf
            self._driver, self._oldest_s = -1, 0.0
            self._refused_s, self._pending, self._late = None, None, False
            settled_s = -math.inf if self._resume_s is None else self._resume_s
            self._resume_s = max(now_s, settled_s)
            if self.gate.admit(reading, self._clock()) is None:
                self._reading = reading
                if now_s >= settled_s:  # else it still brakes
                    self._arm()
            self._status = Status.RUNNING
        except RobotLost as error:
            self._lose(error)
            return self.seen()
        except RobotError as error:
            self.stop(str(error))
            return self.seen()
        return self.seen(home)

    def observe(self) -> Seen:
        """Measures."""
        if self._status in (Status.RUNNING, Status.IDLE) and self._connected:
            try:
                with self._call():
                    reading = self._robot.read()
                if self.gate.admit(reading, self._clock()) is None:
                    self._reading = reading
            except RobotLost as error:
                self._lose(error)
            except RobotError as error:
                self.stop(str(error))
        return self.seen()

    def command(self, values: Sequence[float], observed_s: float, driver: int, novelty: float) -> None:
        """Judges a command that answers what was measured at `observed_s`, and sends what may be sent of it."""
        if self._status is not Status.RUNNING:
            return
        if driver != self._driver:
            if self._driver >= 0:
                self.gate.ramp()
            self._driver = driver
        self._pending = (values, observed_s, novelty)
        self._flush()

    def rest(self) -> Seen:
        """Nobody drives any more: to rest, and no motion before the next `begin`."""
        if self._status is Status.RUNNING:
            self._status = Status.IDLE
            self._pending = None
            self._halt()
        return self.seen()

    def stop(self, reason: str, kind: Kind | None = None) -> None:
        """Stops the robot for good: latched until `reset`. Any thread may call it, at any time."""
        locked = self._lock.acquire(timeout=_LOCK_S)  # a driver that hangs must not keep the stop waiting
        try:
            if kind is not None:
                self.gate.counts[kind] += 1
            if self._status is not Status.STOPPED:
                self._status, self._reason = Status.STOPPED, reason
            self._pending = None
            self._halt()
        finally:
            if locked:
                self._lock.release()

    def reset(self) -> Seen:
        """Takes back the latched stop. Nothing moves before the next `begin`."""
        if self._status is Status.STOPPED:
            self._status, self._reason = Status.IDLE, ""
        return self.seen()

    def close(self) -> None:
        """To rest, and the connection closed; a robot that is lost is looked for a while."""
        self._halt()
        while not self._told and self._clock() - self._stopped_s < _TELLS_S:
            time.sleep(_RETRY_S)
            self._told = self._tell()
        self._disconnect()

    def seen(self, home: NDArray[np.float64] | None = None) -> Seen:
        """The state as others see it."""
        counts = dict(self.gate.counts)
        return Seen(self._status, self._reading, self._executed, counts, self._oldest_s, self._reason, home)

    # ---- the watchdog ----------------------------------------

    def tick(self) -> float:
        """Does what is due: sends what waited, brakes for what is late, stops what is silent, tries a lost connection.

        Returns:
            When it wants to be called again, in seconds of the clock.
        """
        now_s = self._clock()
        if self._status is Status.LOST:
            if now_s - self._tried_s >= _RETRY_S:
                self._retry(now_s)
            return self._tried_s + _RETRY_S
        if self._status is not Status.RUNNING:
            return self._tell_again(now_s)
        due_s = self._flush()
        if self._resume_s is not None or self._emitted_s == -math.inf:
            return due_s
        silent_at_s = self._heard_s + self._timeout_s
        if now_s >= silent_at_s:
            self.gate.counts[Kind.SILENCE] += 1
            self._halt()
            return due_s
        if now_s >= self._brake_s and self._reading is not None:
            self._brake(self._reading, now_s)
        return min(due_s, silent_at_s, self._brake_s)

    def supervise(self) -> None:
        """Looks after a call of the driver that takes long; another thread than the guard's calls it regularly."""
        since_s, now_s = self.calling_since_s, self._clock()
        if since_s is None:
            return
        if now_s - since_s > CALL_S:
            self.stop(f"{Kind.CONNECTION}: a call of the driver hangs", Kind.CONNECTION)
        elif now_s - since_s > self._timeout_s and self._resume_s is None and self._status is Status.RUNNING:
            self.gate.counts[Kind.SILENCE] += 1
            self._halt()

    @property
    def supervised_s(self) -> float:
        """How often `supervise` wants to be called."""
        return self._timeout_s / 3

    def _tell_again(self, now_s: float) -> float:
        """A stop that did not reach the robot is said again, for some seconds."""
        if self._told or now_s - self._stopped_s > _TELLS_S:
            return math.inf
        if now_s - self._tried_s >= _RETRY_S:
            self._told = self._tell()
        return math.inf if self._told else self._tried_s + _RETRY_S

    # ---- inside ----------------------------------------

    def _flush(self) -> float:
        """Sends the newest command as soon as the rate allows it; when that is."""
        if self._pending is None:
            return math.inf
        now_s = self._clock()
        tokens = min(_BURST, self._tokens + (now_s - self._emitted_s) / self._period_s)
        if tokens < 1 and self._resume_s is None:
            return now_s + (1 - tokens) * self._period_s
        (values, observed_s, novelty), self._pending = self._pending, None
        reading = self._reading
        if reading is None:
            return math.inf
        if self._resume_s is not None:
            if now_s < self._resume_s:
                return math.inf  # still braking
            if reading.time_s < self._resume_s:
                self._refuse(Kind.STALE_OBSERVATION, now_s)  # not seen since
                return math.inf
            try:
                self._arm()
            except RobotError as error:
                self.stop(str(error))
                return math.inf
        age_s = now_s - observed_s
        if now_s - self._emitted_s > _STANDS_PERIODS * self._period_s:
            self.gate.stand()
        decision = self.gate.decide(
            values, reading.position.tolist(), age_s, novelty, measured_age_s=now_s - reading.time_s
        )
        if decision.values is None:
            self.stop(decision.reason)
            return math.inf
        refused = next((kind for kind in decision.kinds if kind in (Kind.STALE_COMMAND, Kind.NOVELTY)), None)
        if refused is None:
            self._heard_s, self._refused_s = now_s, None
            self._oldest_s = max(self._oldest_s, age_s)
        else:
            self._refuse(refused, now_s)
            if refused is Kind.NOVELTY:  # whoever drives is alive
                self._heard_s = now_s
        self._late = False
        self._emit(decision.values, now_s)
        self._brake_s = now_s + _LATE_PERIODS * self._period_s
        return math.inf

    def _refuse(self, kind: Kind, now_s: float) -> None:
        self._refused_s = now_s if self._refused_s is None else self._refused_s
        if now_s - self._refused_s > self._config.patience_s:
            self.stop(f"{kind}: every command was refused for {self._config.patience_s:g} s")

    def _brake(self, reading: Reading, now_s: float) -> None:
        """A command is missing: the robot slows down, and goes on when the next one comes."""
        if now_s - self._emitted_s > _STANDS_PERIODS * self._period_s:
            self.gate.stand()
        decision = self.gate.hold(Kind.LATE, reading.position.tolist(), now_s - reading.time_s, again=self._late)
        self._late = True
        self._brake_s = now_s + self._period_s
        if decision.values is not None:
            self._emit(decision.values, now_s)

    def _emit(self, values: list[float], now_s: float) -> None:
        self._tokens = min(_BURST, self._tokens + (now_s - self._emitted_s) / self._period_s) - 1
        self._emitted_s = now_s
        wire = np.array(values)
        try:
            with self._lock, self._call():
                if self._status is not Status.RUNNING:
                    return  # stopped by another thread since
                if not self._dry_run:
                    self._robot.command(wire)
                self._executed = wire
        except RobotLost as error:
            self._lose(error)
        except RobotError as error:
            self.stop(str(error))
        if self._status is Status.STOPPED:
            self._halt()  # pressed while the driver was at work

    def _arm(self) -> None:
        """The next command begins from where the robot is, at rest, with a ramp."""
        assert self._reading is not None, "looked at before"
        self.gate.begin(self._reading.position.tolist())
        self._resume_s, self._emitted_s, self._tokens = None, -math.inf, _BURST
        moves = np.array([mode is Mode.VELOCITY for mode in self._modes])
        self._executed = np.where(moves, 0.0, self._reading.position)

    def _halt(self) -> None:
        """Tells the robot to stop, in a new connection where the old one is gone."""
        self._stopped_s = self._clock()
        self._resume_s = self._stopped_s + self._settle_s
        self.gate.rest()
        if self._reading is not None:
            moves = np.array([mode is Mode.VELOCITY for mode in self._modes])
            self._executed = np.where(moves, 0.0, self._executed)
        self._told = self._dry_run or self._tell()

    def _tell(self) -> bool:
        """Whether the robot could be told to stop; one that nobody has ever connected to needs not be."""
        if not self._connected and self._status is Status.IDLE:
            return True
        if self._connected:
            with contextlib.suppress(RobotError), self._call():
                self._robot.stop()
                return True
        self._tried_s = self._clock()
        with contextlib.suppress(RobotError), self._call():
            self._robot.connect()
            self._connected = True
            self._robot.stop()
            return True
        return False

    def _lose(self, error: RobotLost) -> None:
        if self._status is Status.STOPPED:
            return
        self.gate.counts[Kind.CONNECTION] += 1
        self._halt()
        self._disconnect()
        self._status, self._reason = Status.LOST, str(error)
        self._lost_s = self._tried_s = self._clock()

    def _retry(self, now_s: float) -> None:
        try:
            with self._call():
                self._robot.connect()
            self._connected = True
            self._halt()  # nobody knows what it did meanwhile
            with self._call():
                reading = self._robot.read()
            self.gate.admit(reading, self._clock())
        except RobotLost as error:
            self._disconnect()
            self._tried_s = self._clock()
            if self._tried_s - self._lost_s > self._config.reconnect_s and self._status is Status.LOST:
                self.stop(f"{Kind.CONNECTION}: {error}")
        except RobotError as error:
            self.stop(str(error))
        else:
            if self._status is Status.LOST:
                self._status, self._reason = Status.RUNNING, ""

    def _disconnect(self) -> None:
        self._connected = False
        with contextlib.suppress(Exception), self._call():
            self._robot.disconnect()

    @contextmanager
    def _call(self) -> Iterator[None]:
        """A call of the driver: how long it takes is watched, and what it raises becomes a RobotError."""
        watched = threading.get_ident() == self._owner
        if watched:
            self.calling_since_s = self._clock()
        try:
            yield
        except RobotError:
            raise
        except Exception as error:  # whatever a driver raises, the robot cannot be relied on
            raise RobotLost(f"the driver raised {type(error).__name__}: {error}") from error
        finally:
            if watched:
                self.calling_since_s = None


def _stop_s(axis: Axis) -> float:
    return (axis.velocity or 0.0) / (axis.acceleration or 1.0)
