"""What a robot is to Understudy: six methods, and a spec that names every channel with its unit and its limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError
from understudy.spec import Channel, Spec

_HIGHEST_HZ = 2000.0
_MOST_CHANNELS, _MOST_AXES = 4096, 256  # a message between the processes carries no more
_GRIPS = "grips"
_NOT_IN_AN_ID = re.compile(r"[^\w.-]")


class Mode(StrEnum):
    """What the number that is sent to an axis means."""

    POSITION = "position"
    VELOCITY = "velocity"


@dataclass(frozen=True, slots=True)
class Axis:
    """One action channel of a robot, and the limits within which it may be moved.

    All limits speak of the axis itself, whatever is commanded: an axis that takes velocities in rad/s has `low` and
    `high` in rad. A limit that is None was not given, and the safety gate lets nothing move before all are.

    Args:
        name: of the action channel, for example `joint_1.position` or `joint_1.velocity`.
        unit: of the command: `rad`, `rad/s`, `m`, `deg`, `1`.
        mode: whether commands are positions or velocities.
        low, high: where the axis may be.
        velocity: fastest motion, per second.
        acceleration: largest change of the velocity, per second squared.
        step: largest change from one command to the next, in the command's unit; where not given, what velocity
            (acceleration, for velocities) allows within one control period.
        grips: whether it closes on things, so that it rightly stays where it is not told to be.
    """

    name: str
    unit: str
    mode: Mode = Mode.POSITION
    low: float | None = None
    high: float | None = None
    velocity: float | None = None
    acceleration: float | None = None
    step: float | None = None
    grips: bool = False

    def missing(self) -> tuple[str, ...]:
        """The limits that nobody has given."""
        return tuple(name for name in ("low", "high", "velocity", "acceleration") if getattr(self, name) is None)

    def channel(self) -> Channel:
        """The action channel as data and policies know it."""
        if self.mode is Mode.POSITION:
            low, high = self.low, self.high
        else:
            low, high = (None, None) if self.velocity is None else (-self.velocity, self.velocity)
        return Channel(self.name, self.unit, -math.inf if low is None else low, math.inf if high is None else high)


@dataclass(frozen=True, slots=True)
class RobotSpec:
    """What flows to and from a robot, and how often.

    Args:
        name: of the robot, for people and for the recorded episodes.
        control_hz: commands a second.
        observations: D channels, all named.
        axes: A action channels with their limits, all named.

    Raises:
        ConfigError: a channel has no name or shares one, the rate cannot be, or a limit contradicts itself.
    """

    name: str
    control_hz: float
    observations: tuple[Channel, ...]
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not 0 < self.control_hz <= _HIGHEST_HZ:
            raise ConfigError(f"control_hz of {self.name} is {self.control_hz}; accepted: above 0, to {_HIGHEST_HZ:g}")
        for kind, names in (
            ("observation", [channel.name for channel in self.observations]),
            ("action", [axis.name for axis in self.axes]),
        ):
            if not names or not all(names):
                raise ConfigError(f"every {kind} channel of a robot has a name; {self.name} leaves one without")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(f"{self.name} has two {kind} channels called {twice[0]!r}; names differ")
        if len(self.observations) > _MOST_CHANNELS or len(self.axes) > _MOST_AXES:
            raise ConfigError(
                f"{self.name} observes {len(self.observations)} numbers and has {len(self.axes)} axes; accepted: up to "
                f"{_MOST_CHANNELS} and {_MOST_AXES}; images are not observed"
            )
        for axis in self.axes:
            _require_sense(axis)

    @property
    def period_s(self) -> float:
        """Seconds from one command to the next."""
        return 1.0 / self.control_hz

    @property
    def stop_s(self) -> float:
        """Seconds that a stop takes at most."""
        return max((axis.velocity or 0.0) / (axis.acceleration or 1.0) for axis in self.axes)

    def spec(self) -> Spec:
        """The contract with data and policies."""
        actions = tuple(axis.channel() for axis in self.axes)
        return Spec(f"robot/{_NOT_IN_AN_ID.sub('-', self.name)}", self.control_hz, self.observations, actions)

    def limited(self, limits: Mapping[str, Mapping[str, float | bool]]) -> RobotSpec:
        """The same robot with the limits that a person gives for its axes: `{axis: {"low": ..., "velocity": ...}}`.

        Beside limits, `{"grips": True}` says that an axis closes on things.

        Raises:
            ConfigError: an axis or a limit that does not exist, or a value that cannot be one.
        """
        known = {axis.name: axis for axis in self.axes}
        accepted = [field.name for field in fields(Axis) if field.name not in ("name", "unit", "mode")]
        for name, values in limits.items():
            if name not in known:
                raise ConfigError(f"{self.name} has no axis {name!r}; it has {', '.join(known)}")
            for key, value in values.items():
                if key not in accepted:
                    raise ConfigError(f"{key!r} is no limit of the axis {name}; accepted: {', '.join(accepted)}")
                if key == _GRIPS:
                    if not isinstance(value, bool):
                        raise ConfigError(f"{key} of the axis {name} is {str(value)[:60]!r}; it is true or false")
                    continue
                if not _is_number(value):
                    raise ConfigError(f"{key} of the axis {name} is {str(value)[:60]!r}; it is a number")
                _require_tighter(known[name], key, float(value))
            given: dict[str, Any] = {k: value if k == _GRIPS else float(value) for k, value in values.items()}
            known[name] = replace(known[name], **given)
        return replace(self, axes=tuple(known.values()))


class Reading(NamedTuple):
    """What a robot measured.

    Args:
        observation: (D,), the spec's observation channels.
        position: (A,), where each axis is, in the unit of its `low` and `high`; also for an axis that takes velocities.
        time_s: `time.monotonic()` of the moment it was measured, as well as the driver knows.
        succeeded: whether the task is done, where the robot itself can tell (a simulated one); None where it cannot.
    """

    observation: NDArray[np.float32]
    position: NDArray[np.float64]
    time_s: float
    succeeded: bool | None = None


class Robot(Protocol):
    """A robot, or the driver of one. It lives in the guard's process, so it must pickle before it is connected.

    Nothing but `command` moves it, and nobody but the guard calls `command`, with values that have passed the gate.
    Every method returns or raises within half a second; `connect` may take five, also to come back, and `home` two
    while nothing moves. While one runs, the guard does nothing else, so `read` had better not wait. A robot that cannot
    be reached raises RobotLost (an OSError counts as one), and the guard connects anew for a while; one that refuses to
    move, since somebody pressed its emergency stop, raises RobotError, and the guard stops for good.

    A driver whose `connect` sets the robot up, so that it is not held meanwhile, may have a method `reconnect` beside
    the six: it opens the connection to a robot that this run has set up already, and moves nothing.
    """

    @property
    def spec(self) -> RobotSpec:
        """Channels, units, limits and rate; known before it is connected."""
        ...

    def connect(self) -> None:
        """Opens the connection; also again, after one was lost. Moves nothing."""

    def read(self) -> Reading:
        """The newest measurement."""
        ...

    def command(self, values: NDArray[np.float64]) -> None:
        """Sends one command (A,), which holds until the next one."""

    def home(self, seed: int) -> NDArray[np.float64] | None:
        """Where the axes should be when an episode begins, (A,); the guard drives there through the gate.

        None where the robot is to start from where it is (a person puts it there). A simulated robot draws the start
        of its world from `seed`.
        """
        ...

    def stop(self) -> None:
        """Brings every axis to rest as fast as its acceleration limit allows, and holds it there.

        It may be called at any time, any number of times, and from another thread while `read` or `command` hangs. The
        next command moves the robot again; that it does not come is the guard's part.
        """

    def disconnect(self) -> None:
        """Closes the connection. Never raises, and moves nothing."""


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, which not every whole number in a file is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _require_tighter(axis: Axis, key: str, value: float) -> None:
    stated = getattr(axis, key)
    if stated is not None and (value < stated if key == "low" else value > stated):
        raise ConfigError(
            f"{key} of the axis {axis.name} is {value:g}, and its driver states {stated:g}; a limit may be made "
            "tighter, not wider"
        )


def _require_sense(axis: Axis) -> None:
    values: dict[str, Any] = {field.name: getattr(axis, field.name) for field in fields(Axis)}
    for name in ("low", "high", "velocity", "acceleration", "step"):
        value = values[name]
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} of the axis {axis.name} is {value}; a limit is a finite number")
        if value is not None and name not in ("low", "high") and value <= 0:
            raise ConfigError(f"{name} of the axis {axis.name} is {value}; it is above 0")
    if axis.low is not None and axis.high is not None and not axis.low < axis.high:
        raise ConfigError(f"the axis {axis.name} may be between {axis.low} and {axis.high}; low is below high")
