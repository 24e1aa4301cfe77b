"""What the safety gate and the guard tolerate."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.errors import ConfigError, require_within
from understudy.robots.protocol import RobotSpec
from understudy.robots.workspace import Corner

LATE_PERIODS = 1.5  # after which a command is late; to be silent is to be later than that
_PERIODS_TO_TIMEOUT = 3.0
_LONGEST_TIMEOUT_S = 1.0  # of a robot that is not slower than three commands a second
_SUPERVISED_S = 0.1
HANGS = 0.03  # of its range: so far from where it was sent may an axis that takes positions hang by its weight


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """What the gate and the guard tolerate.

    Args:
        timeout_s: silence after which the robot is stopped, more than one and a half control periods and at most the
            longer of 1 s and three of them; three control periods where not given.
        stale_s: age of an observation, and of a command counted from the observation that it answers, above which
            nothing moves on its account.
        ramp_s: over which the velocity limit rises from 0 at the first command, after every pause, and after every
            change of who drives.
        frozen_s: how far an axis may be led, as seconds at full speed, while not one bit of its measured position
            changes.
        astray_s: how far an axis may be from where its commands should have brought it, as seconds at full speed; where
            velocities are commanded, a difference is forgotten within a second; where positions are, it may be 3 % of
            the axis' range in any case, since arms hang below where they are sent.
        patience_s: of refusing every command, after which the robot is stopped for good.
        reconnect_s: for which a lost connection is tried again.
        novelty_limit: how strange an observation may be; `Novelty` measures so that 1 is as much as is tolerated.
        workspace: lowest and highest corner (x, y, z) in metres of where the hand may be; for robots that know their
            kinematics.

    Raises:
        ConfigError: a value is out of range.
    """

    timeout_s: float | None = None
    stale_s: float = 0.2
    ramp_s: float = 0.5
    frozen_s: float = 0.3
    astray_s: float = 0.3
    patience_s: float = 1.0
    reconnect_s: float = 2.0
    novelty_limit: float = 1.0
    workspace: tuple[Corner, Corner] | None = None

    def __post_init__(self) -> None:
        require_within("timeout_s", self.timeout_s, 0.002)
        require_within("stale_s", self.stale_s, 0.002, 1.0)
        require_within("ramp_s", self.ramp_s, 0.0, 60.0)
        require_within("frozen_s", self.frozen_s, 0.01)
        require_within("astray_s", self.astray_s, 0.01)
        require_within("patience_s", self.patience_s, 0.0, 4.0)
        require_within("reconnect_s", self.reconnect_s, 0.0, 3.0)
        require_within("novelty_limit", self.novelty_limit, 0.0)
        if self.workspace is not None:
            low, high = self.workspace
            if not len(low) == len(high) == 3 or not all(a < b for a, b in zip(low, high, strict=True)):
                raise ConfigError(
                    f"workspace is {self.workspace}; it is two corners (x, y, z), each low below its high"
                )

    def silence_s(self, spec: RobotSpec) -> float:
        """Silence after which this robot is stopped.

        Raises:
            ConfigError: `timeout_s` is too short or too long for its rate.
        """
        usual_s, least_s = _PERIODS_TO_TIMEOUT * spec.period_s, LATE_PERIODS * spec.period_s
        most_s = max(_LONGEST_TIMEOUT_S, usual_s)
        if self.timeout_s is not None and not least_s < self.timeout_s <= most_s:
            raise ConfigError(
                f"timeout_s is {self.timeout_s:g}; accepted for {spec.name} ({spec.control_hz:g} commands a second): "
                f"above {least_s:.3g}, to {most_s:.3g}"
            )
        return usual_s if self.timeout_s is None else self.timeout_s

    def supervised_s(self, spec: RobotSpec) -> float:
        """How often somebody looks whether a call of the driver takes longer than that."""
        return min(self.silence_s(spec) / 3, _SUPERVISED_S)
