"""The judge of what arrives at a robot. It shares no code with the safety gate, and never asks it anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_TOLERANCE = 1e-6
_BURST = 3.0  # commands that may come at once, where a late one meets the next
_PAUSE = 1.5, 3.0  # periods without a command: from here a robot that takes positions may stand, from there it does


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one axis tolerates; the same words as in `Axis`, all given."""

    low: float
    high: float
    velocity: float
    acceleration: float
    step: float
    commands_velocity: bool


@dataclass(slots=True)
class Monitor:
    """Judges commands as they arrive, by finite differences over the control period.

    Velocity and acceleration are counted per command, one command a period. That commands do not come more often than
    that is judged beside it, by a bucket that fills with one command a period. An axis that takes velocities is also
    judged by where it really is.

    Args:
        bounds: of the A axes.
        period_s: of the robot.
    """

    bounds: Sequence[Bounds]
    period_s: float
    violations: Counter[str] = field(default_factory=Counter)
    first: str = ""
    judged: int = 0
    _last: list[float] | None = None
    _speed: list[float] | None = None
    _time_s: float = -math.inf
    _bucket: float = _BURST

    def rest(self) -> None:
        """The robot has stopped: the next command is compared with where it is, and with no motion."""
        self._last = self._speed = None

    def look(self, position: Sequence[float]) -> None:
        """Judges where the axes (A,) really are, whatever was commanded."""
        for index, (bound, p) in enumerate(zip(self.bounds, position, strict=True)):
            slack = _TOLERANCE * (bound.high - bound.low)
            if not bound.low - slack <= p <= bound.high + slack:
                self._violated("position", f"axis {index} is at {p}")

    def judge(self, values: Sequence[float], position: Sequence[float], now_s: float) -> bool:
        """Whether the command (A,) may be obeyed by a robot whose axes are at `position` (A,)."""
        self.judged += 1
        if len(values) != len(self.bounds):
            return self._violated("size", f"{len(values)} numbers")
        if not all(math.isfinite(value) for value in values):
            return self._violated("not finite", f"{list(values)}")
        silent_s = now_s - self._time_s
        if self._time_s > -math.inf:
            self._bucket = min(_BURST, self._bucket + silent_s / self.period_s)
        self._time_s = now_s
        self._bucket -= 1
        good = True
        if self._bucket < 0:
            good = self._violated("rate", f"a command {silent_s * 1e3:.1f} ms after the one before")
            self._bucket = 0.0
        fresh = self._last is None or self._speed is None
        last = self._last if self._last is not None else list(position)
        speed = self._speed if self._speed is not None else [0.0] * len(values)
        speeds = []
        for index, bound in enumerate(self.bounds):
            value = values[index]
            if bound.commands_velocity:
                before = 0.0 if fresh else last[index]
                now_speed, change = value, (value - before) / self.period_s
                stands_at = position[index]
            else:
                before = last[index]
                now_speed = (value - before) / self.period_s
                from_rest, from_motion = now_speed / self.period_s, (now_speed - speed[index]) / self.period_s
                change = from_rest if silent_s > _PAUSE[1] * self.period_s else from_motion
                if silent_s > _PAUSE[0] * self.period_s and abs(from_rest) < abs(change):
                    change = from_rest
                stands_at = value
            speeds.append(now_speed)
            slack = _TOLERANCE * (bound.high - bound.low)
            if not bound.low - slack <= stands_at <= bound.high + slack:
                good = self._violated("position", f"axis {index} to {stands_at}")
            if abs(now_speed) > bound.velocity * (1 + _TOLERANCE) + slack / self.period_s:
                good = self._violated("velocity", f"axis {index} at {now_speed}")
            if abs(change) > bound.acceleration * (1 + _TOLERANCE) + 2 * slack / self.period_s**2:
                good = self._violated("acceleration", f"axis {index} by {change}")
            if abs(value - before) > bound.step * (1 + _TOLERANCE) + slack:
                good = self._violated("step", f"axis {index} by {value - before}")
        self._last, self._speed = list(values), speeds
        return good

    def _violated(self, kind: str, detail: str) -> bool:
        self.violations[kind] += 1
        if not self.first:
            self.first = f"{kind}: {detail} (command {self.judged})"
        return False
