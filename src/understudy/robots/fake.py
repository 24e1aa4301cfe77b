"""A fake robot: joints that go exactly where they are told, a judge of what they are told, and faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import require_within
from understudy.robots.faults import FaultScripts
from understudy.robots.machine import Body, Faults, Machine, MachineRobot, State
from understudy.robots.monitor import Bounds, Monitor
from understudy.robots.protocol import Axis, Mode, RobotSpec
from understudy.spec import Channel

_MOST_AXES = 64
_ROW_OF_LINKS_M = 0.1


@dataclass(frozen=True, slots=True)
class FakeConfig:
    """What the fake robot is.

    Args:
        mode: `velocity` (goes on with the last one until it hears something else) or `position`.
        axes: number of joints.
        control_hz: commands a second.
        reach: each joint may be between -reach and +reach, rad.
        velocity: fastest, rad/s.
        acceleration: rad/s^2.
        homes: whether episodes begin at 0 rad; else they begin where the robot is.

    Raises:
        ConfigError: a value is out of range.
    """

    mode: str = "velocity"
    axes: int = 6
    control_hz: float = 50.0
    reach: float = 2.0
    velocity: float = 1.0
    acceleration: float = 20.0
    homes: bool = True

    def __post_init__(self) -> None:
        require_within("axes", self.axes, 1, _MOST_AXES)
        for name in ("reach", "velocity", "acceleration"):
            require_within(name, getattr(self, name), 1e-6, 1e6)

    def spec(self) -> RobotSpec:
        """Its channels: the positions of the joints are observed; positions or velocities are commanded."""
        mode = Mode(self.mode)
        unit = "rad" if mode is Mode.POSITION else "rad/s"
        names = [f"joint_{index + 1}" for index in range(self.axes)]
        return RobotSpec(
            "fake",
            self.control_hz,
            tuple(Channel(f"{name}.position", "rad", -self.reach, self.reach) for name in names),
            tuple(
                Axis(f"{name}.{mode}", unit, mode, -self.reach, self.reach, self.velocity, self.acceleration)
                for name in names
            ),
        )


class FakeRobot(MachineRobot):
    """The driver of a fake robot that runs in a process of its own. It knows a hand: a planar row of short links.

    `robot.machine.report()` is the judgement of its monitor; `robot.machine.fault(name)` breaks it.

    Args:
        config: what it is.
    """

    def __init__(self, config: FakeConfig = FakeConfig()) -> None:
        machine = Machine(partial(build, config))
        super().__init__(config.spec(), machine.address, machine)

    def forward(self, position: list[float]) -> tuple[float, float, float]:
        """The hand (x, y, z) in metres: links of 0.1 m in the plane z = 0, each turned against the one before."""
        x = y = angle = 0.0
        for joint in position:
            angle += joint
            x, y = x + _ROW_OF_LINKS_M * math.cos(angle), y + _ROW_OF_LINKS_M * math.sin(angle)
        return x, y, 0.0


def build(config: FakeConfig) -> tuple[Body, Faults]:
    """Body and faults, in the machine's process."""
    return FakeBody(config), FaultScripts(config.axes)


class FakeBody:
    """Joints whose motion is known exactly at every moment, so that nothing needs to run between two messages.

    A velocity lasts until the next command. A position is reached within one control period, in a straight line. After
    `stop` each joint loses speed at its acceleration limit.
    """

    def __init__(self, config: FakeConfig) -> None:
        self._config = config
        self._moves = Mode(config.mode) is Mode.VELOCITY
        self._period_s = 1.0 / config.control_hz
        # The judge's own words for the limits; it is not handed the gate's.
        step = config.acceleration * self._period_s if self._moves else config.velocity * self._period_s
        bound = Bounds(-config.reach, config.reach, config.velocity, config.acceleration, step, self._moves)
        self.monitor = Monitor([bound] * config.axes, self._period_s)
        self._p = np.zeros(config.axes)
        self._v = np.zeros(config.axes)
        self._time_s = -math.inf
        self._until_s = math.inf  # when the motion towards a position ends
        self._stopping = False
        self._log: dict[str, Any] = {
            "commands": 0,
            "stops": [],
            "last_command_s": None,
            "rest_s": None,
            "fastest": 0.0,
        }

    def command(self, values: NDArray[np.float64], now_s: float) -> None:
        self._advance(now_s)
        self._log["commands"] += 1
        if not self.monitor.judge(values.tolist(), self._p.tolist(), now_s) and len(values) != len(self._p):
            return
        if not np.isfinite(values).all():
            return
        self._log["last_command_s"] = now_s
        self._stopping = False
        if self._moves:
            self._v, self._until_s = values.copy(), math.inf
        else:
            self._v, self._until_s = (values - self._p) / self._period_s, now_s + self._period_s
        still = not self._v.any()
        resting_s = self._log["rest_s"]
        fastest = self._log["fastest"] if resting_s is None or now_s < resting_s else 0.0  # of this motion
        self._log["fastest"] = max(fastest, float(np.abs(self._v).max()))
        self._log["rest_s"] = now_s if still else (None if self._moves else self._until_s)

    def stop(self, now_s: float) -> None:
        self._advance(now_s)
        self._log["stops"] = [*self._log["stops"], now_s][-20:]
        self.monitor.rest()
        if not self._stopping:
            self._stopping, self._until_s = True, math.inf
            self._log["rest_s"] = now_s + float(np.abs(self._v).max()) / self._config.acceleration

    def state(self, now_s: float) -> State:
        self._advance(now_s)
        return State(self._p, self._v, self._p, now_s)

    def home(self, seed: int, now_s: float) -> NDArray[np.float64] | None:
        return np.zeros_like(self._p) if self._config.homes else None

    def wait_s(self, now_s: float) -> float | None:
        return None

    def report(self, now_s: float) -> dict[str, Any]:
        self._advance(now_s)
        rest_s = self._log["rest_s"]
        return {
            **self._log,
            "now_s": now_s,
            "at_rest": rest_s is not None and rest_s <= now_s,
            "position": self._p.tolist(),
            "velocity": self._v.tolist(),
            "violations": dict(self.monitor.violations),
            "first_violation": self.monitor.first,
        }

    def _advance(self, now_s: float) -> None:
        if self._time_s == -math.inf:
            self._time_s = now_s
        left_s = now_s - self._time_s
        self._time_s = now_s
        if self._stopping:
            braking_s = np.minimum(np.abs(self._v) / self._config.acceleration, left_s)
            brake = np.sign(self._v) * self._config.acceleration
            self._p = self._p + self._v * braking_s - brake * braking_s**2 / 2
            self._v = self._v - brake * braking_s
            self.monitor.look(self._p.tolist())
            return
        moving_s = min(left_s, max(0.0, self._until_s - (now_s - left_s)))
        self._p = self._p + self._v * moving_s
        if now_s >= self._until_s:
            self._v = np.zeros_like(self._v)
        self.monitor.look(self._p.tolist())
