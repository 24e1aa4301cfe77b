"""The safety gate: the last thing before the wire. Written to be read from top to bottom in ten minutes.

It is no certified safety function; keep the hardware stop within reach. What it promises: a command that leaves it is
finite, and no axis is asked to leave its range, to be faster, to change its speed faster, or to step further than its
limits say, counted per control period. What it cannot vouch for, it refuses, and the robot brakes.

One command is judged axis by axis in plain numbers, since a reader and a NaN both get lost in arrays. For an axis at
position p with velocity v, period dt and limits V (velocity) and A (acceleration), a new velocity w

    1. is at most V, and less while the gate ramps up                               |w| <= V * ramp
    2. leaves room to brake before the end of the range: w r + w^2 / (2 A) <= high - p, so
                                                     w <= A (sqrt(r^2 + 2 (high - p) / A) - r), likewise below;
       r is how long w lasts before braking can begin: dt, or where velocities are commanded, which go on until
       something else is said, what makes a command late, the silence that is tolerated, and what it takes to notice it
    3. differs from v by at most A dt. This one is last: where two rules disagree (a takeover at full speed, a
       range that was left), the robot brakes as fast as it may, and no faster.

Rule 2 can be kept in the next period whenever it was kept in this one: v - A dt satisfies it, and rule 3 allows
v - A dt. A step limit is a velocity (an acceleration, where velocities are commanded) in disguise.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from understudy.errors import ConfigError, RobotError
from understudy.robots.protocol import Axis, Mode, Reading, RobotSpec
from understudy.robots.safety_config import HANGS, LATE_PERIODS, SafetyConfig
from understudy.robots.workspace import Workspace

_ABSURD_COMMAND = 1000.0  # half-ranges of an axis: no working policy asks for more
_ABSURD_READING = 1e9  # no sensor of a robot says more, in any unit in use
_RESTS_OUTSIDE = 0.01  # of its range: so far outside may an axis that takes velocities begin, and only move back
_ROUNDED = 0.001  # of its range: so far outside may an axis that takes positions be measured, and be sent to its end
_EPSILON = 1e-9
_PARTS = (0.5, 0.25, 0.125)  # of a motion that would leave the workspace, which are tried before it is braked
_RESTS_OUTSIDE_M = 0.005  # of its workspace: so far outside may a hand begin, and only move back in
_ROUNDED_32 = 2.0**-23  # by so much, relatively, may a number of 32 bits be beyond the one that was meant


class Kind(StrEnum):
    """Why the gate changed or refused a command, or stopped the robot. Each is counted."""

    POSITION = "position"
    VELOCITY = "velocity"
    ACCELERATION = "acceleration"
    STEP = "step"
    RAMP = "ramp"
    WORKSPACE = "workspace"
    NOT_FINITE = "not finite"
    WRONG_SIZE = "wrong size"
    STALE_OBSERVATION = "stale observation"
    STALE_COMMAND = "stale command"
    FROZEN = "frozen sensor"
    ASTRAY = "astray"
    NOVELTY = "novelty"
    LATE = "late"
    SILENCE = "silence"
    CONNECTION = "connection"
    BUTTON = "stop button"


class Decision(NamedTuple):
    """What may be sent instead of what was asked.

    Args:
        values: (A,) for the wire; None where nothing may be sent and the robot must be stopped.
        kinds: of the interventions; empty where the command passed untouched.
        reason: in words, where the robot must be stopped.
    """

    values: list[float] | None
    kinds: tuple[Kind, ...] = ()
    reason: str = ""


class _Limits:
    """The limits of one axis as plain numbers, and what was last sent to it."""

    def __init__(self, axis: Axis, spec: RobotSpec, config: SafetyConfig) -> None:
        if axis.missing():
            raise ConfigError(
                f"nobody has given {', '.join(axis.missing())} of the axis {axis.name}; without limits nothing moves; "
                "give them with --limits FILE, or in the driver's spec"
            )
        assert axis.low is not None and axis.high is not None  # noqa: PT018  (missing() has said so)
        assert axis.velocity is not None and axis.acceleration is not None  # noqa: PT018
        period_s = spec.period_s
        self.name, self.low, self.high = axis.name, axis.low, axis.high
        self.moves = axis.mode is Mode.VELOCITY
        self.top, self.brake = axis.velocity, axis.acceleration
        self.stepping = False  # whether the step limit is the tighter one
        if axis.step is not None:
            if self.moves:
                self.stepping, self.brake = axis.step / period_s < self.brake, min(self.brake, axis.step / period_s)
            else:
                self.stepping, self.top = axis.step / period_s < self.top, min(self.top, axis.step / period_s)
        half = self.top if self.moves else max((self.high - self.low) / 2, abs(self.low), abs(self.high))
        self.absurd = _ABSURD_COMMAND * half
        self.jolt = min(self.brake * period_s, self.top) * period_s  # how far one command may lead from rest
        self.frozen = config.frozen_s * self.top  # led so far, a sensor that has not changed is frozen
        hangs = 0.0 if self.moves else HANGS * (self.high - self.low)
        self.astray = max(config.astray_s * self.top, hangs)  # from where the commands should have brought it
        if axis.grips:
            self.frozen = self.astray = math.inf  # what it holds keeps it where it is
        # How long a velocity lasts before braking can begin: a driver may begin to wait when a command is late already.
        unheard_s = LATE_PERIODS * period_s + config.silence_s(spec) + config.supervised_s(spec)
        self.lasts = unheard_s if self.moves else period_s
        self.p = self.v = self.want = 0.0  # position and velocity last sent, and position last asked for
        self.seen = math.nan  # position last measured
        self.led = self.furthest = 0.0  # how far commands have led since that changed, and at most
        self.tick = 0.0  # smallest change of it so far
        self.error = 0.0  # of where it is, against its commands
        self.least = self.most = 0.0  # where it may be by now
        self.hangs = 0.0  # so far is it measured from where it was sent
        # Velocities last sent, as many as there can be within the age of a measurement; at once may follow two.
        self.sent: deque[float] = deque([0.0], math.ceil(config.stale_s / period_s) + 3)

    def meant(self, asked: float) -> float:
        """What was asked, where 32 bits have rounded a limit to just beyond it."""
        low, high = (-self.top, self.top) if self.moves else (self.low, self.high)
        nearest = min(max(asked, low), high)
        return nearest if abs(asked - nearest) <= _ROUNDED_32 * max(-low, high, low, -high) else asked

    @property
    def unseen(self) -> float:
        """How far it may have been led from rest without its sensor showing it: little, or not finely enough."""
        return math.inf if math.isinf(self.frozen) else max(self.jolt / 2, 2 * self.tick)


class SafetyGate:
    """Judges readings and commands. It does no input and no output, and knows no clock: the guard tells it the time.

    Args:
        spec: of the robot, with every limit of every axis.
        config: what is tolerated.
        forward: from the axes' positions (A,) to the hand (x, y, z) in metres, where the kinematics are known.

    Raises:
        ConfigError: a limit is missing, or a workspace is given for a robot without kinematics.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: SafetyConfig,
        forward: Callable[[Sequence[float]], Sequence[float]] | None = None,
    ) -> None:
        if config.workspace is not None and forward is None:
            raise ConfigError(
                f"{spec.name} does not tell where its hand is, so a workspace cannot be kept; leave it out"
            )
        self._period_s, self._config = spec.period_s, config
        self._workspace = Workspace(config.workspace, forward) if config.workspace and forward else None
        self._axes = [_Limits(axis, spec, config) for axis in spec.axes]
        self._channels = [channel.name for channel in spec.observations]
        self._ramped_s = 0.0
        self._read_s = -math.inf
        self._begun = False  # whether anything may move
        self._doubts = False  # whether a sensor was called frozen since a person has looked
        self.counts: Counter[Kind] = Counter()

    # ---- readings ----------------------------------------

    def admit(self, reading: Reading, now_s: float) -> Kind | None:
        """Looks at a measurement before anybody believes it.

        Returns:
            None where it is good; STALE_OBSERVATION where it is older than allowed or than the one before.

        Raises:
            RobotError: a number is not finite or absurd, a size is wrong, or a sensor is frozen; the robot must stop.
        """
        if len(reading.observation) != len(self._channels) or len(reading.position) != len(self._axes):
            raise self.stopping(
                Kind.WRONG_SIZE,
                f"the robot measured {len(reading.observation)} channels and {len(reading.position)} positions; it has "
                f"{len(self._channels)} and {len(self._axes)}",
            )
        for name, value in zip(self._channels, reading.observation.tolist(), strict=True):
            if not -_ABSURD_READING <= value <= _ABSURD_READING:  # false for NaN, too
                raise self.stopping(Kind.NOT_FINITE, f"the robot measured {value:g} in {name}")
        for axis, value in zip(self._axes, reading.position.tolist(), strict=True):
            if not -_ABSURD_READING <= value <= _ABSURD_READING:
                raise self.stopping(Kind.NOT_FINITE, f"the robot measured {value:g} as the position of {axis.name}")
        age_s = now_s - reading.time_s
        if not -self._config.stale_s <= age_s <= self._config.stale_s or reading.time_s < self._read_s:
            self.counts[Kind.STALE_OBSERVATION] += 1
            return Kind.STALE_OBSERVATION
        elapsed_s = reading.time_s - self._read_s if math.isfinite(self._read_s) else 0.0
        self._read_s = reading.time_s
        fading = math.exp(-elapsed_s)
        for axis, value in zip(self._axes, reading.position.tolist(), strict=True):
            self._follow(axis, value, elapsed_s, fading)
        return None

    def _follow(self, axis: _Limits, value: float, elapsed_s: float, fading: float) -> None:
        """Whether the axis goes where it is told."""
        moved = 0.0 if math.isnan(axis.seen) else value - axis.seen
        if axis.moves:
            axis.error = axis.error * fading + moved - axis.v * elapsed_s
        else:
            axis.error = value - axis.p
        if value != axis.seen:
            axis.seen, axis.led, axis.furthest = value, 0.0, 0.0
            axis.tick = min(axis.tick or math.inf, abs(moved))
        elif axis.furthest > axis.frozen:
            raise self.stopping(Kind.FROZEN, f"{axis.name} is told to move, and its sensor does not change")
        if abs(axis.error) > axis.astray and self._begun:
            raise self.stopping(Kind.ASTRAY, f"{axis.name} is {axis.error:.3g} from where its commands lead")

    # ---- commands ----------------------------------------

    def begin(self, position: Sequence[float]) -> None:
        """Starts from the measured pose, at rest, with a new ramp: the first command, or the first after a stop.

        Raises:
            RobotError: an axis is outside of its range, or the hand outside of its workspace, or an axis that takes
                positions may be elsewhere than its sensor says, so that its first command would be a jump; nothing may
                move.
        """
        for axis, p in zip(self._axes, position, strict=True):
            span = axis.high - axis.low
            slack = _RESTS_OUTSIDE * span if axis.moves else min(_ROUNDED * span, axis.jolt)
            if not axis.low - slack <= p <= axis.high + slack:
                raise self.stopping(
                    Kind.POSITION,
                    f"{axis.name} is at {p:.4g}, outside of its range {axis.low:g} to {axis.high:g}; bring it back by "
                    "hand",
                )
            if not axis.moves and abs(axis.led) > axis.unseen:
                raise self.stopping(
                    Kind.FROZEN,
                    f"{axis.name} was led away, and its sensor has not changed; move it by hand to see if it does",
                )
        try:
            outside = self._workspace is not None and self._workspace.outside(position) > _RESTS_OUTSIDE_M
        except RobotError as error:
            raise self.stopping(Kind.NOT_FINITE, str(error)) from error
        if outside:
            raise self.stopping(Kind.WORKSPACE, "the hand is outside of its workspace; bring it back by hand")
        for axis, p in zip(self._axes, position, strict=True):
            axis.p = axis.want = p if axis.moves else min(max(p, axis.low), axis.high)
            axis.v = axis.error = 0.0
            axis.sent.clear()
            axis.sent.append(0.0)
        self._begun = True
        self.ramp()

    def rest(self) -> None:
        """The robot was told to stop: nothing is expected to move before the next `begin`."""
        self._begun = False
        for axis in self._axes:
            axis.v = 0.0

    def stand(self) -> None:
        """Commands were missing for so long that axes that take positions stand where they were sent last."""
        for axis in self._axes:
            if not axis.moves:
                axis.v, axis.want = 0.0, axis.p

    def unsent(self) -> None:
        """The last command did not reach the robot, so no sensor has to show it."""
        for axis in self._axes:
            axis.led -= axis.v * self._period_s

    def believe(self) -> None:
        """A person has looked after the robot: sensors that were called frozen are believed again."""
        if self._doubts:
            for axis in self._axes:
                axis.led = axis.furthest = 0.0
        self._doubts = False

    def ramp(self) -> None:
        """Begins a new ramp from the motion that there is: somebody else drives now."""
        self._ramped_s = 0.0

    def decide(
        self,
        asked: Sequence[float],
        measured: Sequence[float],
        age_s: float,
        novelty: float = 0.0,
        *,
        measured_age_s: float | None = None,
    ) -> Decision:
        """What may be sent for what is asked.

        Args:
            asked: (A,) the command.
            measured: (A,) the axes' positions, as last measured.
            age_s: of the observation that the command answers.
            novelty: of that observation; refused above the limit.
            measured_age_s: of `measured`, which may be newer; `age_s` where not given.
        """
        if not self._begun:
            return self._stop(Kind.POSITION, "nobody has said where the robot is; begin() comes first")
        if len(asked) != len(self._axes):
            return self._stop(
                Kind.WRONG_SIZE, f"a command has {len(asked)} numbers; the robot has {len(self._axes)} axes"
            )
        for axis, value in zip(self._axes, asked, strict=True):
            if not -axis.absurd <= value <= axis.absurd:  # false for NaN, too
                return self._stop(Kind.NOT_FINITE, f"{value:g} was asked of {axis.name}")
        if not (abs(age_s) <= _ABSURD_READING and abs(novelty) <= _ABSURD_READING):
            return self._stop(Kind.NOT_FINITE, f"a command came with age {age_s:g} s and novelty {novelty:g}")
        ahead_s = age_s if measured_age_s is None else measured_age_s
        if not abs(age_s) <= self._config.stale_s:
            return self.hold(Kind.STALE_COMMAND, measured, ahead_s)
        if not novelty <= self._config.novelty_limit:
            return self.hold(Kind.NOVELTY, measured, ahead_s)
        return self._move(asked, measured, ahead_s)

    def hold(self, kind: Kind, measured: Sequence[float], ahead_s: float = 0.0, *, again: bool = False) -> Decision:
        """Brakes, and counts why, unless it is the same reason `again`."""
        self.counts[kind] += not again
        if kind is not Kind.LATE:  # what follows a pause begins slowly; one late command is none
            self._ramped_s = 0.0
        decision = self._move(None, measured, ahead_s, count=False)
        return decision if decision.values is None else decision._replace(kinds=(kind,))

    def _move(
        self, asked: Sequence[float] | None, measured: Sequence[float], ahead_s: float, count: bool = True
    ) -> Decision:
        dt = self._period_s
        self._ramped_s += dt
        share = min(1.0, self._ramped_s / self._config.ramp_s) if self._config.ramp_s else 1.0
        kinds: set[Kind] = set()
        speeds: list[float] = []
        since_s = min(max(ahead_s, 0.0), 1.0)
        count_since = math.ceil(since_s / dt) + 2
        for index, axis in enumerate(self._axes):
            if axis.moves:  # it has gone on for as long as the measurement is old, with what was sent since
                recent = [*islice(reversed(axis.sent), count_since)]
                axis.least = measured[index] + min(recent) * since_s
                axis.most = measured[index] + max(recent) * since_s
                axis.p = (axis.least + axis.most) / 2
            else:
                axis.least = axis.most = axis.p
                axis.hangs = measured[index] - axis.p
            value = None if asked is None else axis.meant(asked[index])
            speeds.append(self._speed(axis, value, share, kinds))
        if self._workspace is not None:
            try:
                speeds = self._kept_inside(self._workspace, speeds, share, kinds)
            except RobotError as error:
                return self._stop(Kind.NOT_FINITE, str(error))
        values = []
        for index, (axis, w) in enumerate(zip(self._axes, speeds, strict=True)):
            axis.led += w * dt
            axis.furthest = max(axis.furthest, abs(axis.led))
            axis.v = w
            axis.sent.append(w)
            if axis.moves:
                values.append(w)
                continue
            axis.p = min(max(axis.p + w * dt, axis.low), axis.high)  # the last bit of a rounded sum
            if asked is not None:
                axis.want = axis.meant(asked[index])
                if abs(axis.p - axis.want) <= _EPSILON * (axis.high - axis.low):
                    axis.p = min(max(axis.want, axis.low), axis.high)
            values.append(axis.p)
        if count:
            self.counts.update(kinds)
        return Decision(values, tuple(kinds))

    def _speed(self, axis: _Limits, asked: float | None, share: float, kinds: set[Kind]) -> float:
        """The velocity of one axis during the next period; the three rules of the head of this file."""
        dt, brake = self._period_s, axis.brake
        if asked is None:
            w = 0.0
        elif axis.moves:
            w = asked
        else:
            # The request may move itself: follow its motion, and close the lag as fast as one can still brake to it.
            w = (asked - axis.want) / dt
            if not -axis.top <= w <= axis.top:
                w = 0.0  # it jumped
            lag = asked - w * dt - axis.p
            if lag:
                w += math.copysign(brake * (math.sqrt(dt * dt + 2 * abs(lag) / brake) - dt), lag)
            if not axis.low <= asked <= axis.high:
                kinds.add(Kind.POSITION)
            if abs(asked - axis.p) > axis.top * dt * (1 + _EPSILON):
                kinds.add(Kind.STEP if axis.stepping else Kind.VELOCITY)
        slack = _EPSILON * axis.top
        top = axis.top * share
        if not -top <= w <= top:
            if axis.moves and abs(w) > axis.top + slack:
                kinds.add(Kind.VELOCITY)
            elif share < 1:
                kinds.add(Kind.RAMP)
            w = top if w > 0 else -top
        up = _stoppable(axis.high - axis.most, brake, axis.lasts)
        down = -_stoppable(axis.least - axis.low, brake, axis.lasts)
        if not down - slack <= w <= up + slack:
            kinds.add(Kind.POSITION)
        w = min(max(w, down), up)
        most, least = axis.v + brake * dt, axis.v - brake * dt
        if not least - slack <= w <= most + slack:
            kinds.add(Kind.STEP if axis.stepping and axis.moves else Kind.ACCELERATION)
        return min(max(w, least), most)

    # ---- workspace ----------------------------------------

    def _kept_inside(self, workspace: Workspace, speeds: list[float], share: float, kinds: set[Kind]) -> list[float]:
        """As much of these speeds as keeps the hand inside until it has come to rest again; else that of braking.

        A hand that will be outside in any case may do what brings it further in than braking would.
        """
        outside = workspace.outside_on_the_way(self._axes, speeds, self._period_s)
        if not outside:
            return speeds
        if outside < workspace.outside_while_braking(self._axes, [axis.v for axis in self._axes]):
            return speeds
        kinds.add(Kind.WORKSPACE)
        braking = [self._speed(axis, None, share, set()) for axis in self._axes]
        for part in _PARTS:
            slower = [b + part * (w - b) for b, w in zip(braking, speeds, strict=True)]
            if not workspace.outside_on_the_way(self._axes, slower, self._period_s):
                return slower
        return braking

    def warm_up(self) -> None:
        """Lets kinematics load what they need, which may take seconds, before anything moves. Not to be judged yet."""
        if self._workspace is not None:
            with contextlib.suppress(RobotError):
                self._workspace.outside([(axis.low + axis.high) / 2 for axis in self._axes])

    # ---- stops ----------------------------------------

    def stopping(self, kind: Kind, reason: str) -> RobotError:
        """Counts a stop, and gives the error that says why."""
        self.counts[kind] += 1
        self._doubts |= kind is Kind.FROZEN
        return RobotError(f"{kind}: {reason}")

    def _stop(self, kind: Kind, reason: str) -> Decision:
        self.counts[kind] += 1
        return Decision(None, (kind,), f"{kind}: {reason}")


def _stoppable(room: float, brake: float, lasts: float) -> float:
    """Fastest velocity that may last for so many seconds and then be braked within `room`; 0 outside."""
    return brake * (math.sqrt(lasts * lasts + 2 * room / brake) - lasts) if room > 0 else 0.0
