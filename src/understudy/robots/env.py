"""A robot as a world: the same `rollout` drives it, in measured time, behind the guard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.errors import ActionError, ConfigError, RobotError
from understudy.robots.guard_link import GuardLink, Link
from understudy.robots.guard_messages import Seen, Status
from understudy.robots.operator_keys import FAILURE_KEY, SUCCESS_KEY
from understudy.robots.protocol import Mode, Robot
from understudy.robots.safety import Kind
from understudy.robots.safety_config import HANGS, SafetyConfig
from understudy.rollout import OPERATOR_SAYS, PAUSED
from understudy.spec import Channel

_HOMING_S = 30.0
_HOMED = 0.01  # of an axis' range
_SETTLES_S = 1.0  # at home, as far as commands go: after it, an axis that hangs a little off is there
_HOMING_GAIN = 2.0  # 1/s, for axes that take velocities
_WAIT_S = 4.0  # for a robot that is lost or does not measure
_POLL_S = 0.02
_PAUSES = (Kind.SILENCE, Kind.CONNECTION, Kind.STALE_COMMAND, Kind.STALE_OBSERVATION, Kind.NOVELTY)
_NOBODY = len(Driver)  # drives home
_UNDRIVEN = "a stop was taken back while the episode ran"


class RobotEnv(gym.Env[NDArray[Any], NDArray[Any]]):
    """A robot behind the Gymnasium interface.

    `step` hands the action to the guard, waits for the next deadline, and measures. Deadlines are absolute, so that
    small delays do not add up; one that was missed is counted in `overruns`, and the next ones are counted from when
    it was met. `info["executed_action"]` is what left the guard after all limits. An episode ends as truncated when the
    robot was stopped; `info["stopped"]` says why. `info["paused"]` says that it was not driven for a while, so that
    what was planned before is of another moment. Success is what the robot itself reports (a simulated one does) or
    what an operator says with the keys `s` and `f`, which end the episode; else it is unknown.

    The action space has no limits of its own: the gate is the only one to cut an action, so nothing is hidden from it.

    Args:
        robot: not connected yet.
        safety: what gate and guard tolerate.
        dry_run: everything but the wire: measurements are real, and what would have been sent is reported.
        keyboard: path of a terminal whose stop keys (space, escape) the guard obeys, `/dev/tty` for the usual one.
        link: the way to a guard; a process of its own where not given.
        clock: seconds, monotonic.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: a limit is missing, or the driver cannot be sent to the guard's process.
        RobotError: the guard did not start.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        robot: Robot,
        safety: SafetyConfig = SafetyConfig(),
        *,
        dry_run: bool = False,
        keyboard: str = "",
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.robot = robot
        self.dry_run = dry_run
        self._robot_spec = robot.spec
        spec = robot.spec.spec()
        self.spec = EnvSpec(spec.env_id)
        self.control_hz = spec.control_hz
        self.observation_channels: tuple[Channel, ...] = spec.observations
        self.action_channels: tuple[Channel, ...] = spec.actions
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(spec.observations),), np.float32)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (len(spec.actions),), np.float32)
        self.link = link if link is not None else GuardLink(robot, safety, dry_run=dry_run, keyboard=keyboard)
        self._clock, self._sleep = clock, sleep
        self._period_s = robot.spec.period_s
        self._deadline_s = 0.0
        self._driver = Driver.POLICY
        self.novelty: float | None = None  # of the newest observation; None where nobody measures it
        self._refused_novelty = 0.0  # what the gate is told of it
        self.overruns = self.ticks = 0
        self.worst_lateness_s = 0.0
        self.seen = Seen(Status.IDLE, None, np.zeros(len(spec.actions)))
        self._undriven = ""  # why nobody drives the episode any more, where the robot is not stopped
        self.keys: list[str] = []  # pressed at the guard's terminal and not yet used

    # ---- Gymnasium ----------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Connects where needed, drives through the gate to where episodes begin, and measures.

        Raises:
            RobotError: the robot cannot be reached, is stopped (`reset_stop` takes that back), or does not measure.
            ConfigError: an option was given; a robot knows none. Or episodes begin outside of the limits.
        """
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"reset option {sorted(options)[0]!r}; a robot cannot be put into a state")
        self._driver, self.novelty, self._refused_novelty = Driver.POLICY, None, 0.0
        self._undriven = ""
        self.keys.clear()
        self._begin(0 if seed is None else seed)
        home = self.seen.home
        self._require_within(home)
        self._wait_for_reading()
        if home is not None and not self.dry_run:
            self._drive_home(home)
        self._require_running()
        self.keys.clear()  # what was pressed on the way home says nothing of the episode
        self.overruns = self.ticks = 0  # of the episode, not of the way home
        self.worst_lateness_s = 0.0
        self._deadline_s = self._clock()
        assert self.seen.reading is not None, "waited for above"
        return self.seen.reading.observation.copy(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Hands one action (A,) to the guard, and measures when the period is over.

        Raises:
            ActionError: the action has the wrong shape; the robot is brought to rest.
        """
        asked = np.asarray(action, np.float64)
        if asked.shape != self.action_space.shape:
            self.rest()
            raise ActionError(
                f"an action of shape {asked.shape}; {self._robot_spec.name} takes {self.action_space.shape}"
            )
        assert self.seen.reading is not None, "reset() comes first"
        before = self._pauses()
        self.link.command(asked, self.seen.reading.time_s, int(self._driver), self._refused_novelty)
        self._wait()
        self._keep(self.link.observe())
        self._wait_while_lost()
        if self.seen.status is Status.IDLE:
            self._undriven = _UNDRIVEN
        said = self._operator_says()
        reading = self.seen.reading
        assert reading is not None, "a measurement is never forgotten"
        verdict = reading.succeeded if said is None else said
        info = self._info()
        if verdict is not None:
            info["success"] = verdict
        if said is not None:
            info[OPERATOR_SAYS] = said
        if self._pauses() > before:
            info[PAUSED] = True
        ended = self.seen.status is not Status.RUNNING
        return reading.observation.copy(), float(bool(verdict)), said is not None, ended, info

    def close(self) -> None:
        """Brings the robot to rest and ends the guard.

        Raises:
            RobotError: the robot could not be told to stop, and nothing has said so yet.
        """
        self.link.close()

    # ---- what a robot has beside ----------------------------------------

    def rest(self) -> None:
        """Brings the robot to rest: nobody drives any more. `rollout` calls it, however it ends.

        A robot that does not hear it is waited for; `stopped` says where it could not be told.
        """
        self._keep(self.link.rest())
        self._wait_while_lost()

    def driven_by(self, driver: Driver) -> None:
        """Who drives from the next step on; after a change the gate ramps up anew. `rollout` calls it."""
        self._driver = driver

    def novel(self, novelty: float, *, helped: bool = False) -> None:
        """How strange the observation of the next step is; above the limit, the gate lets nothing move.

        Where somebody helps who knows what to do there, the gate does not judge it.
        """
        self.novelty, self._refused_novelty = novelty, 0.0 if helped else novelty

    def stop(self, reason: str = "stop() was called") -> None:
        """The stop button: the robot stops, and nothing moves before `reset_stop`. Any thread may press it."""
        self.link.press(reason)

    def reset_stop(self) -> None:
        """Takes back a latched stop, when a person has seen to its cause. One that the robot has not heard stays."""
        self._keep(self.link.reset())
        self._undriven = ""

    @property
    def guard_pid(self) -> int | None:
        """Process id of the guard, for which SIGUSR1 is a stop button; None where it has no process of its own."""
        return getattr(self.link, "pid", None)

    @property
    def stopped(self) -> str:
        """Why the robot is stopped, or was in the episode; empty where it was not."""
        return self.seen.reason if self.seen.status is Status.STOPPED else self._undriven

    @property
    def counts(self) -> dict[Kind, int]:
        """Interventions of gate and guard by kind, since the guard began."""
        return self.seen.counts

    # ---- inside ----------------------------------------

    def _wait(self) -> None:
        """Until the deadline of this tick, or not at all where it is missed."""
        self.ticks += 1
        self._deadline_s += self._period_s
        early_s = self._deadline_s - self._clock()
        if early_s > 0:
            self._sleep(early_s)
        else:
            self.overruns += 1
            self.worst_lateness_s = max(self.worst_lateness_s, -early_s)
            self._deadline_s -= early_s

    def _keep(self, seen: Seen) -> None:
        if seen.reading is None and self.seen.reading is not None and seen.status is not Status.RUNNING:
            seen.reading = self.seen.reading  # where nothing has begun, the last one is never forgotten
        self.seen = seen
        self.keys.extend(seen.keys)

    def _pauses(self) -> int:
        return sum(self.counts.get(kind, 0) for kind in _PAUSES)

    def _begin(self, seed: int) -> None:
        """Begins an episode, and again where the connection is lost meanwhile: the robot is not set up for it yet."""
        until_s = self._clock() + _WAIT_S
        while True:
            self._keep(self.link.begin(seed))
            self._wait_while_lost()
            if self.seen.status is not Status.IDLE or self._clock() >= until_s:
                return

    def _wait_while_lost(self) -> None:
        """Waits until a connection that was lost is back, or is given up."""
        until_s = self._clock() + _WAIT_S
        while self.seen.status is Status.LOST and self._clock() < until_s:
            self._sleep(_POLL_S)
            self._keep(self.link.observe())
        if self.seen.status is Status.LOST:  # the guard gives up sooner
            self.stop(f"{Kind.CONNECTION}: {self.seen.reason}")
            self._keep(self.link.observe())

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"executed_action": self.seen.executed.astype(np.float32)}
        if self.stopped:
            info["stopped"] = self.stopped
        return info

    def _operator_says(self) -> bool | None:
        """The verdict of whoever pressed a key for it; the last one counts."""
        said = [key for key in self.keys if key in (SUCCESS_KEY, FAILURE_KEY)]
        self.keys = [key for key in self.keys if key not in (SUCCESS_KEY, FAILURE_KEY)]
        return said[-1] == SUCCESS_KEY if said else None

    def _wait_for_reading(self) -> None:
        """Waits until the robot is seen, and seen at rest."""
        until_s = self._clock() + _WAIT_S + self._robot_spec.stop_s
        while self._clock() < until_s and self.seen.status is not Status.STOPPED:
            if self.seen.status is Status.RUNNING and self.seen.reading is not None and not self.seen.brakes:
                return
            self._sleep(_POLL_S)
            self._keep(self.link.observe())
        self._require_running()
        self.rest()
        raise RobotError(f"{self._robot_spec.name} gives no measurement that is new enough")

    def _require_within(self, home: NDArray[np.float64] | None) -> None:
        """Refuses an episode that would begin where the robot may not be."""
        if home is None:
            return
        for axis, place in zip(self._robot_spec.axes, home, strict=True):
            assert axis.low is not None and axis.high is not None, "the gate has refused it"  # noqa: PT018
            slack = _HOMED * (axis.high - axis.low)
            if not axis.low - slack <= place <= axis.high + slack:
                self.rest()
                raise ConfigError(
                    f"episodes of {self._robot_spec.name} begin with {axis.name} at {place:.4g}, and its limits are "
                    f"{axis.low:g} to {axis.high:g}; widen them, or change where the driver's home() is"
                )

    def _require_running(self) -> None:
        if self.seen.status is Status.STOPPED:
            then = "reset_stop()" if self.link.is_alive else "make a new RobotEnv: the guard of this one is gone"
            raise RobotError(f"{self._robot_spec.name} is stopped ({self.seen.reason}); see to the cause, then {then}")
        if self.seen.status is not Status.RUNNING:
            why = self.seen.reason or "its connection is lost whenever an episode begins"
            raise RobotError(f"{self._robot_spec.name} cannot be reached: {why}")

    def _drive_home(self, home: NDArray[np.float64]) -> None:
        axes = self._robot_spec.axes
        moves = np.array([axis.mode is Mode.VELOCITY for axis in axes])
        low, high = np.array([[axis.low, axis.high] for axis in axes], np.float64).T
        home, spans = np.clip(home, low, high), high - low
        near = _HOMED * spans
        hanging = np.where([axis.grips for axis in axes], np.inf, np.where(moves, _HOMED, HANGS) * spans)
        self._deadline_s = told_s = self._clock()
        assert self.seen.reading is not None, "waited for before"
        stood = self.seen.reading.position
        speed = np.array([axis.velocity for axis in axes], np.float64)
        until_s = self._clock() + _HOMING_S + 2 * float(np.max(np.abs(home - stood) / speed))
        while self._clock() < until_s:
            self._require_running()
            assert self.seen.reading is not None, "waited for before"
            away = home - self.seen.reading.position
            if (np.abs(away) <= near).all():
                return  # what comes next is a change of who drives, so a new ramp
            goes = (np.abs(self.seen.reading.position - stood) > near)[moves].any()
            if goes or not np.allclose(self.seen.executed[~moves], home[~moves], atol=1e-9):
                told_s, stood = self._clock(), self.seen.reading.position
            elif self._clock() - told_s > _SETTLES_S and (np.abs(away) <= hanging).all():
                return
            action = np.where(moves, _HOMING_GAIN * away, home)
            self.link.command(action, self.seen.reading.time_s, _NOBODY, 0.0)
            self._wait()
            self._keep(self.link.observe())
            self._wait_while_lost()
        self.rest()
        raise RobotError(
            f"{self._robot_spec.name} did not come home in twice the time that it takes; is something in its way?"
        )
