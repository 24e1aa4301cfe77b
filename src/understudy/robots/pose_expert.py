"""A script for the fake robot, which has no task: it goes to a pose and stays there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError
from understudy.robots.protocol import Mode, RobotSpec

_GAIN = 2.0  # 1/s
_SHARE = 0.25  # of the way from the middle of an axis to its end


class PoseExpert:
    """Drives every axis to a quarter of its way from the middle, one up, the next one down.

    Args:
        spec: of the robot; it observes where each axis is, as `joint_1.position` for `joint_1.velocity`.

    Raises:
        ConfigError: an axis has no limits, or its position is not observed.
    """

    engaged = True

    def __init__(self, spec: RobotSpec) -> None:
        places = {channel.name: index for index, channel in enumerate(spec.observations)}
        positions = [f"{axis.name.rpartition('.')[0]}.position" for axis in spec.axes]
        for axis, position in zip(spec.axes, positions, strict=True):
            if position not in places or axis.low is None or axis.high is None:
                raise ConfigError(f"{spec.name} does not say where {axis.name} is or may be; give another expert")
        self._where = np.array([places[position] for position in positions])
        middle = np.array([((axis.low or 0.0) + (axis.high or 0.0)) / 2 for axis in spec.axes])
        reach = np.array([((axis.high or 0.0) - (axis.low or 0.0)) / 2 for axis in spec.axes])
        self._pose = middle + _SHARE * reach * (-1.0) ** np.arange(len(middle))
        self._moves = np.array([axis.mode is Mode.VELOCITY for axis in spec.axes])
        self._fastest = np.array([axis.velocity or 0.0 for axis in spec.axes])

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,)."""
        velocity = np.clip(_GAIN * (self._pose - observation[self._where]), -self._fastest, self._fastest)
        return np.where(self._moves, velocity, self._pose).astype(np.float32)
