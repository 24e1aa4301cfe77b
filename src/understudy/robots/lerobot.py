"""Robots and teleoperators of LeRobot, each through its own class: SO-100/101, Koch, OMX, leader arms, and the rest.

Nothing of LeRobot is imported before one is asked for. Its robots are driven by position, as `name.pos`; those that
take velocities without measuring where they lead (wheels) are refused, since a gate could not keep them anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, ExpertError, MissingDependency, RobotError, RobotLost
from understudy.robots.protocol import Axis, Mode, Reading, RobotSpec
from understudy.spec import Channel, Spec

_USUAL_HZ = 30.0  # LeRobot's own
_POSITION, _VELOCITY = ".pos", ".vel"
_STOP_WAITS_S = 0.05
_CHANGED = 0.001  # of an axis' range: more than rounding
# How LeRobot scales a motor: unit, and the limits that it keeps itself.
_SCALES: dict[str, tuple[str, float | None, float | None]] = {
    "degrees": ("deg", None, None),
    "range_0_100": ("%", 0.0, 100.0),
    "range_m100_100": ("%", -100.0, 100.0),
}


def lerobot_robot(
    kind: str, *, control_hz: float = _USUAL_HZ, home: Sequence[float] | None = None, **arguments: Any
) -> LeRobotRobot:
    """The robot that LeRobot calls `kind` (`so101_follower`), with the arguments of its own configuration.

    Args:
        kind: LeRobot's `--robot.type`.
        control_hz: commands a second.
        home: where episodes begin, one position for each axis; where it stands, if not given.
        arguments: fields of LeRobot's configuration, like `port="/dev/ttyACM0"`, `id="black"`.

    Raises:
        ConfigError: LeRobot has no such robot, an argument is none of its, or the robot cannot be kept within limits.
        MissingDependency: LeRobot is not installed, or lacks what this robot needs.
    """
    return LeRobotRobot(kind, arguments, control_hz, None if home is None else tuple(home))


class LeRobotRobot:
    """Any robot of LeRobot behind the Robot protocol; see `lerobot_robot`.

    Only numbers are observed: cameras that its configuration names are left out. The position limits of an axis that
    LeRobot scales to its calibrated range are those of the scale; all others, and velocities and accelerations, must
    be given. A connection that is closed leaves the motors holding, unless `disable_torque_on_disconnect` is given.
    """

    def __init__(
        self, kind: str, arguments: Mapping[str, Any], control_hz: float, home: tuple[float, ...] | None
    ) -> None:
        if arguments.get("max_relative_target") is not None:
            raise ConfigError(
                "max_relative_target would change commands after they were recorded; leave it out, and give the gate a "
                "step or a velocity in --limits"
            )
        self._made_of = kind, dict(arguments), control_hz, home
        self._device = _made("robots", kind, arguments)
        self.spec = _spec_of(self._device, kind, control_hz)
        if home is not None and len(home) != len(self.spec.axes):
            raise ConfigError(f"home has {len(home)} positions; {kind} has {len(self.spec.axes)} axes")
        self._home = None if home is None else np.array(home, np.float64)
        self._channels = [channel.name for channel in self.spec.observations]
        self._axes = [axis.name for axis in self.spec.axes]
        self._held: NDArray[np.float64] | None = None
        self._wire = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # The guard's process makes its own, and imports LeRobot, which takes seconds, before anything moves.
        return type(self), self._made_of, {"spec": self.spec}  # with the limits that a person has given since

    def connect(self) -> None:
        """Opens the connection, and closes the one that was lost.

        Raises:
            RobotLost: it cannot be reached.
            RobotError: it is not calibrated.
        """
        self._open(lambda: self._device.connect(calibrate=False))  # a calibration asks a person to move the arm

    def reconnect(self) -> None:
        """Opens the connection to motors that were set up since they have power, and leaves them as they are.

        LeRobot's own `connect` sets them up, and lets them go meanwhile: an arm that is held up would fall.

        Raises:
            RobotLost: it cannot be reached.
            RobotError: it is not calibrated.
        """
        ways = [way for part in _parts(self._device).values() for way in (part.bus, *_cameras(part))]
        if not ways:
            self.connect()
            return

        def open_all() -> None:
            for way in ways:
                way.connect()

        self._open(open_all)

    def _open(self, opening: Callable[[], None]) -> None:
        self._held = None
        if self._device.is_connected:
            self.disconnect()
        with _as_lost(self._device):
            opening()
            calibrated = self._device.is_calibrated
        if not calibrated:
            self.disconnect()
            raise RobotError(f"{self._device} is not calibrated; run lerobot-calibrate for it, with the same id")

    @property
    def _spans(self) -> NDArray[np.float64]:
        limits = [(axis.low, axis.high) for axis in self.spec.axes]
        return np.array([1.0 if low is None or high is None else high - low for low, high in limits])

    def read(self) -> Reading:
        """The newest measurement, dated when it was asked for."""
        asked_s = time.monotonic()
        with self._wire:
            observed = self._observed()
        observation = np.array([observed[name] for name in self._channels], np.float32)
        return Reading(observation, self._positions(observed), asked_s)

    def command(self, values: NDArray[np.float64]) -> None:
        """Sends positions (A,).

        Raises:
            RobotLost: it cannot be reached.
            RobotError: LeRobot sent something else, so the recorded commands would be wrong.
        """
        with self._wire:
            self._held = values.copy()  # before it is sent: a stop that comes meanwhile goes back to no earlier one
            sent = self._send(values)
        changed = np.abs(sent - values) / self._spans
        axis = int(np.argmax(changed))
        if not changed[axis] <= _CHANGED:  # also where it is no number
            raise RobotError(
                f"{self._device} sent {sent[axis]:g} instead of {values[axis]:g} to {self._axes[axis]}, by limits of "
                "its own; give the gate the same in --limits"
            )

    def home(self, seed: int) -> NDArray[np.float64] | None:
        return self._home

    def stop(self) -> None:
        """Holds the last command, at which the motors come to rest by their own control, or else where it stands."""
        # Somebody else may hang with the wire in hand; then a stop that is garbled is better than none.
        free = self._wire.acquire(timeout=_STOP_WAITS_S)
        try:
            if self._held is None:
                self._held = self._positions(self._observed())
            self._send(self._held)
        finally:
            if free:
                self._wire.release()

    def disconnect(self) -> None:
        with contextlib.suppress(Exception):  # whatever a library raises when a connection is gone
            self._device.disconnect()

    def _observed(self) -> dict[str, Any]:
        with _as_lost(self._device):
            observed: dict[str, Any] = self._device.get_observation()
        missing = [name for name in self._channels if name not in observed]
        if missing:
            raise RobotError(f"{self._device} gave an observation without {missing[0]}")
        return observed

    def _positions(self, observed: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.array([observed[name] for name in self._axes], np.float64)

    def _send(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        asked = dict(zip(self._axes, values.tolist(), strict=True))
        with _as_lost(self._device):
            sent = self._device.send_action(asked)
        return np.array([sent.get(name, asked[name]) for name in self._axes], np.float64)


class LeRobotExpert:
    """A teleoperator of LeRobot (`so101_leader`) as an expert: its label is where the person holds it.

    Args:
        kind: LeRobot's `--teleop.type`.
        spec: of the robot that it drives; the teleoperator must give each of its action channels by name.
        arguments: fields of LeRobot's configuration, like `port="/dev/ttyACM1"`.

    Raises:
        ConfigError: LeRobot has no such teleoperator, an argument is none of its, or it gives other channels.
        MissingDependency: LeRobot is not installed, or lacks what this teleoperator needs.
    """

    engaged = True

    def __init__(self, kind: str, spec: Spec, **arguments: Any) -> None:
        self._kind, self._names = kind, [channel.name for channel in spec.actions]
        self._device = _made("teleoperators", kind, arguments)
        given = self._device.action_features
        missing = [name for name in self._names if name not in given]
        if missing:
            raise ConfigError(
                f"{kind} gives {', '.join(map(str, list(given)[:8]))}, and not {missing[0]}, which the robot "
                "takes; use the leader arm of the same kind"
            )

    def reset(self, seed: int) -> None:
        """Connects where needed.

        Raises:
            ExpertError: it cannot be reached, or is not calibrated.
        """
        if self._device.is_connected:
            return
        try:
            self._device.connect(calibrate=False)
            calibrated = self._device.is_calibrated
        except Exception as error:  # whatever a library raises
            raise ExpertError(f"{self._kind} cannot be reached: {_line(error)}") from error
        if not calibrated:
            self.close()
            raise ExpertError(f"{self._device} is not calibrated; run lerobot-calibrate for it, with the same id")

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where the person holds it, (A,)."""
        try:
            given = self._device.get_action()
            return np.array([given[name] for name in self._names], np.float32)
        except Exception as error:  # whatever a library raises
            raise ExpertError(f"{self._kind} gave no action: {_line(error)}") from error

    def close(self) -> None:
        """Closes the connection."""
        with contextlib.suppress(Exception):  # whatever a library raises when a connection is gone
            self._device.disconnect()


def _made(part: str, kind: str, arguments: Mapping[str, Any]) -> Any:
    """The robot or teleoperator that LeRobot makes of a kind and its arguments."""
    try:
        draccus = importlib.import_module("draccus")
        package = importlib.import_module(f"lerobot.{part}")
        plugins = importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins
    except ImportError as error:
        raise MissingDependency(
            f"LeRobot is not installed here ({error}); docs/your_own_robot.md says how to install both, since it needs "
            "an older torch"
        ) from error
    failed = {}
    for module in pkgutil.iter_modules(package.__path__):  # each registers its kinds as it is imported
        if module.ispkg:
            try:
                importlib.import_module(f"{package.__name__}.{module.name}")
            except ImportError as error:
                failed[module.name] = _line(error)
    plugins()
    robots = part == "robots"
    config = package.RobotConfig if robots else package.TeleoperatorConfig
    known = config.get_known_choices()
    if kind not in known:
        also = "".join(f"; {name} cannot be imported ({why})" for name, why in failed.items() if name in kind)
        raise ConfigError(f"LeRobot has no {part[:-1]} {kind!r}; it has {', '.join(sorted(known))}{also}")
    try:
        chosen = draccus.decode(config, {"type": kind, **arguments})
    except Exception as error:  # a tree of draccus' own
        raise ConfigError(f"LeRobot refuses the arguments of {kind}: {_line(error)}") from error
    _hold_on_disconnect(chosen, arguments)
    try:
        return package.make_robot_from_config(chosen) if robots else package.make_teleoperator_from_config(chosen)
    except ImportError as error:
        raise MissingDependency(f"{kind} needs a package that is not installed: {_line(error)}") from error
    except Exception as error:  # whatever the class of a device raises
        raise ConfigError(f"LeRobot cannot make {kind}: {_line(error)}") from error


def _hold_on_disconnect(config: Any, given: Mapping[str, Any]) -> None:
    """Keeps the motors holding when a connection is closed, where nobody has said otherwise: an arm must not fall."""
    for field in fields(config):
        inner = getattr(config, field.name)
        if field.name == "disable_torque_on_disconnect" and field.name not in given:
            config.disable_torque_on_disconnect = False
        elif is_dataclass(inner):
            below = given.get(field.name)
            _hold_on_disconnect(inner, below if isinstance(below, Mapping) else {})


def _spec_of(device: Any, kind: str, control_hz: float) -> RobotSpec:
    """Channels and axes, as LeRobot names them."""
    scales = dict(_scales(device))
    observed = {name: type_ for name, type_ in device.observation_features.items() if type_ in (float, int, bool)}
    axes = []
    for name in device.action_features:
        if name not in observed or name.endswith(_VELOCITY):
            raise ConfigError(
                f"{kind} takes {name}, of which it measures no position, so that no limit can be kept; Understudy "
                "drives LeRobot's arms and hands"
            )
        unit, low, high = scales.get(name, ("", None, None))
        axes.append(Axis(name, unit, Mode.POSITION, low, high, grips="gripper" in name))
    channels = tuple(Channel(name, scales[name][0] if name in scales else "") for name in observed)
    return RobotSpec(f"lerobot:{kind}", control_hz, channels, tuple(axes))


def _scales(device: Any) -> Iterator[tuple[str, tuple[str, float | None, float | None]]]:
    """Unit and limits of each motor, where the motors lie on a bus of LeRobot's, or on those of two arms."""
    for prefix, part in _parts(device).items():
        for motor, about in getattr(part.bus, "motors", {}).items():
            scale = _SCALES.get(str(getattr(about.norm_mode, "value", "")))
            if scale:
                yield f"{prefix}{motor}{_POSITION}", scale


def _parts(device: Any) -> dict[str, Any]:
    """The device, or its arms, by the prefix of their motors: what has a bus of LeRobot's."""
    parts = {"": device, "left_": getattr(device, "left_arm", None), "right_": getattr(device, "right_arm", None)}
    return {prefix: part for prefix, part in parts.items() if getattr(part, "bus", None) is not None}


def _cameras(part: Any) -> Iterable[Any]:
    cameras = getattr(part, "cameras", None)
    return cameras.values() if isinstance(cameras, Mapping) else ()


@contextmanager
def _as_lost(device: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # buses raise what they like, and each means that nobody answered
        raise RobotLost(f"{device}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
