"""The guard: who holds the robot. It owns the driver, puts every command through the gate, and stops what falls silent.

It runs in a process of its own (`guard_process.py`), so that the robot is stopped whatever happens to the policy's
process. Here is what it does, without sockets: a test can drive it with a clock of its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError, RobotLost
from understudy.robots.guard_messages import Seen, Status, one_line
from understudy.robots.protocol import Mode, Reading, Robot, RobotSpec
from understudy.robots.safety import Kind, SafetyGate
from understudy.robots.safety_config import LATE_PERIODS, SafetyConfig
from understudy.robots.stop_teller import RETRY_S, UNTOLD, StopTeller
from understudy.robots.watched_driver import WatchedDriver

_STANDS_PERIODS = 2.0  # after which a robot that takes positions stands at the last one
_BURST = 1.5  # commands that may follow one another at once
_LOCK_S = 0.05
_WHILE_S = 0.1
NO_REASON = "the driver gave no reason"


class Guard:
    """Holds one robot: gate, watchdog, latched stop, connection.

    Args:
        robot: not connected yet.
        config: what is tolerated.
        spec: with the limits to which the robot is held; the driver's own where not given.
        dry_run: everything but the wire: measurements are real, nothing is sent.
        clock: seconds, monotonic.

    Raises:
        ConfigError: a limit of an axis is missing, a workspace is given for a robot without kinematics, or the time
            limit for silence does not fit the robot's rate.
    """

    def __init__(
        self,
        robot: Robot,
        config: SafetyConfig,
        *,
        spec: RobotSpec | None = None,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if dry_run:  # nothing that is not told to move has to
            config = replace(config, frozen_s=math.inf, astray_s=math.inf)
        self._config, self._dry_run, self._clock = config, dry_run, clock
        spec = robot.spec if spec is None else spec
        self._driver = WatchedDriver(robot, len(spec.axes), clock)
        self._teller = StopTeller(self._driver, clock)
        self.gate = SafetyGate(spec, config, getattr(robot, "forward", None))
        self._period_s = spec.period_s
        self._timeout_s, self.supervised_s = config.silence_s(spec), config.supervised_s(spec)
        # How long a stop takes at most; nothing is sent before the robot is at rest.
        self._settle_s = spec.stop_s + spec.period_s
        self._modes = [axis.mode for axis in spec.axes]
        self._lock = threading.RLock()
        self._latched = ""  # why it is stopped for good; whatever else happens, only `reset` takes that back
        self._phase, self._reason = Status.IDLE, ""  # what it is doing where it is not stopped
        self._reading: Reading | None = None
        self._executed = np.zeros(len(spec.axes))
        self._heard_s = self._emitted_s = -math.inf  # last valid command, and last one on the wire
        self._tokens = _BURST
        self._pending: tuple[Sequence[float], float, float] | None = None
        self._late, self._brake_s = False, math.inf  # whether it brakes for a late command; when it (next) will
        self._refused_s: float | None = None
        self._resume_s: float | None = -math.inf  # when motion may begin again after a stop
        self._lost_s = -math.inf
        self._before = Status.IDLE  # that a connection was lost
        self._drives = -1  # who sent the last command
        self._oldest_s = 0.0

    # ---- what the driver's process asks ----------------------------------------

    def begin(self, seed: int) -> Seen:
        """Connects where needed and looks where the robot is; from here on, commands move it."""
        if self._status is Status.STOPPED:
            return self.seen()
        try:
            anew = not self._driver.connected
            if anew:
                self._driver.connect()
            if anew or not self._teller.told or (self._status is Status.RUNNING and self._resume_s is None):
                self._halt()  # it may move, also for whoever held it before
            if not self._teller.told:
                raise RobotLost(UNTOLD)
            home = self._driver.home(seed)
            now_s = self._clock()
            reading = self._driver.read()
            with self._lock:
                self._start(reading, now_s)
            if self._latched:
                self._halt()  # pressed while the driver was at work, and perhaps not connected yet
        except RobotLost as error:
            self._lose(error)
            self._before = Status.IDLE  # nothing has begun: whoever asked asks again
            return self.seen()
        except RobotError as error:
            self.stop(str(error))
            return self.seen()
        return self.seen(home)

    def observe(self) -> Seen:
        """Measures."""
        if self._status in (Status.RUNNING, Status.IDLE) and self._driver.connected:
            try:
                reading = self._driver.read()
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
        if driver != self._drives:
            if self._drives >= 0:
                self.gate.ramp()
            self._drives = driver
        self._pending = (values, observed_s, novelty)
        self._flush()

    def rest(self) -> Seen:
        """Nobody drives any more: to rest, and no motion before the next `begin`. One that hears nothing is lost."""
        self._before = Status.IDLE
        if self._turn(Status.RUNNING, Status.IDLE):
            self._pending = None
            self._halt()
            if self._teller.unreached:
                self._lose(RobotLost(UNTOLD))
        return self.seen()

    def stop(self, reason: str, kind: Kind | None = None) -> None:
        """Stops the robot for good: latched until `reset`. Any thread may call it, at any time."""
        locked = self._lock.acquire(timeout=_LOCK_S)  # a driver that hangs must not keep the stop waiting
        try:
            if kind is not None:
                self.gate.counts[kind] += 1
            self._latched = self._latched or one_line(reason) or NO_REASON
            self._pending = None
            self._halt()
        finally:
            if locked:
                self._lock.release()

    def reset(self) -> Seen:
        """Takes back the latched stop, once the robot has heard it. Nothing moves before the next `begin`."""
        if self._latched and not self._teller.told:
            self._teller.tell_again()
            self._resume_s = self._clock() + self._settle_s
        if self._latched and self._teller.told:
            self._phase, self._reason, self._latched = Status.IDLE, "", ""
            self.gate.believe()
        return self.seen()

    def close(self) -> bool:
        """To rest, and the connection closed; a robot that is lost is looked for a while. Whether it is at rest."""
        rested = self._teller.told and (self._status is not Status.RUNNING or self._resume_s is not None)
        self._halt()
        self._teller.insist()
        self._driver.disconnect()
        return rested or self._teller.told

    def seen(self, home: NDArray[np.float64] | None = None) -> Seen:
        """The state as others see it."""
        counts, status = dict(self.gate.counts), self._status
        reason = self._latched if status is Status.STOPPED else self._reason
        if status is Status.STOPPED and self._teller.unreached and UNTOLD not in reason:
            reason += f"; {UNTOLD} yet: use its own stop"
        brakes = status is Status.RUNNING and self._brakes
        return Seen(status, self._reading, self._executed, counts, self._oldest_s, reason, home, brakes=brakes)

    # ---- the watchdog ----------------------------------------

    def tick(self) -> float:
        """Does what is due: sends what waited, brakes for what is late, stops what is silent, tries a lost connection.

        Returns:
            When it wants to be called again, in seconds of the clock.
        """
        now_s = self._clock()
        if self._status is Status.LOST:
            if now_s - self._teller.tried_s >= RETRY_S:
                self._retry()
            return self._teller.tried_s + RETRY_S
        due_s = self._tell_again(now_s)
        if self._status is not Status.RUNNING:
            return due_s
        due_s = min(due_s, self._flush())
        if self._resume_s is not None or self._emitted_s == -math.inf:
            return due_s
        silent_at_s = self._heard_s + self._timeout_s
        if now_s >= silent_at_s:
            self.gate.counts[Kind.SILENCE] += 1
            self._halt()
            return min(due_s, self._tell_again(now_s))
        if now_s >= self._brake_s and self._reading is not None:
            self._brake(self._reading, now_s)
        return min(due_s, silent_at_s, self._brake_s)

    def supervise(self) -> None:
        """Looks after a call of the driver that takes long; another thread than the guard's calls it regularly."""
        if self._driver.hangs:
            counted = None if self._status is Status.STOPPED else Kind.CONNECTION
            self.stop(f"{Kind.CONNECTION}: a call of the driver hangs", counted)
        elif self._driver.busy_s > self._timeout_s and self._resume_s is None and self._status is Status.RUNNING:
            self.gate.counts[Kind.SILENCE] += 1
            self._halt()

    @property
    def waits(self) -> bool:
        """Whether a call of the driver takes a while, and may."""
        return self._driver.busy_s > _WHILE_S and not self._driver.hangs

    def _tell_again(self, now_s: float) -> float:
        """A stop that did not reach the robot is said again, until it does; when the next time is."""
        if self._teller.told:
            return math.inf
        untold_s = now_s - self._teller.stopped_s  # of this stop: to give up is another one
        if self._status is Status.RUNNING and untold_s > self._config.reconnect_s:
            self.stop(f"{Kind.CONNECTION}: {UNTOLD}", Kind.CONNECTION)
        if self._teller.tell_when_due(now_s, untold_s):
            self._resume_s = self._clock() + self._settle_s
        return self._teller.due_s(untold_s)

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
            if self._brakes:
                self.gate.counts[Kind.STALE_COMMAND] += 1
                if self._teller.told and now_s >= self._resume_s:
                    self._refuse(Kind.STALE_OBSERVATION, now_s)  # not seen since
                return math.inf
            try:
                with self._driver.watched():
                    self._arm()
            except RobotError as error:
                self.stop(str(error))
                return math.inf
        age_s = now_s - observed_s
        if now_s - self._emitted_s > _STANDS_PERIODS * self._period_s:
            self.gate.stand()
        with self._driver.watched():  # the kinematics are the driver's
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
        self._brake_s = now_s + LATE_PERIODS * self._period_s
        return math.inf

    def _refuse(self, kind: Kind, now_s: float) -> None:
        self._refused_s = now_s if self._refused_s is None else self._refused_s
        if now_s - self._refused_s > self._config.patience_s:
            self.stop(f"{kind}: every command was refused for {self._config.patience_s:g} s")

    def _brake(self, reading: Reading, now_s: float) -> None:
        """A command is missing: the robot slows down, and goes on when the next one comes."""
        if now_s - self._emitted_s > _STANDS_PERIODS * self._period_s:
            self.gate.stand()
        with self._driver.watched():
            decision = self.gate.hold(Kind.LATE, reading.position.tolist(), now_s - reading.time_s, again=self._late)
        self._late = True
        self._brake_s = now_s + self._period_s
        if decision.values is None:
            self.stop(decision.reason)
        else:
            self._emit(decision.values, now_s)

    def _emit(self, values: list[float], now_s: float) -> None:
        self._tokens = min(_BURST, self._tokens + (now_s - self._emitted_s) / self._period_s) - 1
        self._emitted_s = now_s
        wire = np.array(values)
        try:
            with self._lock:
                if self._status is not Status.RUNNING or self._resume_s is not None:
                    self.gate.unsent()
                    return  # stopped by another thread since
                if not self._dry_run:
                    self._driver.command(wire)
                self._executed = wire
        except RobotLost as error:
            self.gate.unsent()
            self._lose(error)
        except RobotError as error:
            self.stop(str(error))
        if self._status is Status.STOPPED or (self._status is Status.RUNNING and self._resume_s is not None):
            self._halt()  # stopped, for good or for silence, while the driver was at work: this command came after it

    def _start(self, reading: Reading, now_s: float) -> None:
        """Lets commands move the robot, which was measured at `now_s` or later."""
        self._reading = None
        self._heard_s = self._emitted_s = -math.inf
        self._drives, self._oldest_s = -1, 0.0
        self._refused_s, self._pending, self._late = None, None, False
        settled_s = -math.inf if self._resume_s is None else self._resume_s
        self._resume_s = max(now_s, settled_s)
        if self.gate.admit(reading, self._clock()) is None:
            self._reading = reading
            if self._teller.told and reading.time_s >= settled_s:  # else it still braked
                with self._driver.watched():
                    self._arm()
        self._phase = Status.RUNNING

    def _arm(self) -> None:
        """The next command begins from where the robot is, at rest, with a ramp."""
        assert self._reading is not None, "looked at before"
        self.gate.begin(self._reading.position.tolist())
        self._resume_s, self._emitted_s, self._tokens = None, -math.inf, _BURST
        moves = np.array([mode is Mode.VELOCITY for mode in self._modes])
        self._executed = np.where(moves, 0.0, self._reading.position)

    def _halt(self) -> None:
        """Has the robot told to stop; nothing moves it before it must be at rest."""
        now_s = self._clock()
        self._resume_s = now_s + self._settle_s
        self.gate.rest()
        if self._reading is not None:
            moves = np.array([mode is Mode.VELOCITY for mode in self._modes])
            self._executed = np.where(moves, 0.0, self._executed)
        if self._has_to_hear:
            self._teller.tell(now_s)
        self._resume_s = self._clock() + self._settle_s

    def _lose(self, error: RobotLost) -> None:
        if self._status is Status.STOPPED:
            return
        self.gate.counts[Kind.CONNECTION] += 1
        if self._status is not Status.LOST:
            self._before = self._status
        opened = self._driver.opened
        self._halt()
        if self._driver.opened == opened:  # else a new connection brought the stop, and it may be slow to open another
            self._driver.disconnect()
        self._lost_s = self._teller.tried_s = self._clock()
        self._phase, self._reason = Status.LOST, one_line(str(error))

    def _retry(self) -> None:
        try:
            if not self._driver.connected:
                self._driver.connect()
            self._halt()  # nobody knows what it did meanwhile
            if not self._teller.told:
                raise RobotLost(UNTOLD)
            reading = self._driver.read()
            self.gate.admit(reading, self._clock())
        except RobotLost as error:
            self._driver.disconnect()
            self._teller.tried_s = self._clock()
            if self._teller.tried_s - self._lost_s > self._config.reconnect_s and self._status is Status.LOST:
                self.stop(f"{Kind.CONNECTION}: {error}")
        except RobotError as error:
            self.stop(str(error))
        else:
            self._turn(Status.LOST, self._before)

    @property
    def _status(self) -> Status:
        return Status.STOPPED if self._latched else self._phase

    @property
    def _brakes(self) -> bool:
        """Whether it was told to stop, and nobody has seen it since it must be at rest."""
        if self._resume_s is None:
            return False
        unseen = self._reading is None or self._reading.time_s < self._resume_s
        return not self._teller.told or self._clock() < self._resume_s or unseen

    @property
    def _has_to_hear(self) -> bool:
        """Whether a stop has to reach the robot: not in a dry run, nor where nobody has ever connected to it."""
        return not self._dry_run and (self._driver.opened > 0 or self._status is not Status.IDLE)

    def _turn(self, before: Status, after: Status) -> bool:
        """From one status to another, and whether it was so: another thread may have stopped the robot meanwhile."""
        with self._lock:
            if self._status is not before:
                return False
            self._phase, self._reason = after, ""
            return True
