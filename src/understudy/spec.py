"""Specs: what flows across one control step, channel by channel, with names, units and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, DataError, SpecMismatch

MOST_CHANNELS = 131_072  # of an observation or an action: more are pictures, or no episode at all
_LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Channel:
    """One number of an observation or an action.

    Args:
        name: for example `joint_1.position`; empty where nobody said (a bare folder of arrays).
        unit: `rad`, `rad/s`, `m`, `N`, `1` for a pure number; empty where nobody said.
        low, high: limits in that unit; infinite where there are none.
    """

    name: str = ""
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Spec:
    """The contract between a world, its data and a policy: who they are, what flows, and how often.

    Args:
        env_id: id of the world the numbers come from; empty where nobody said.
        control_hz: control steps per second; 0 where nobody said.
        observations: D channels.
        actions: A channels, with the limits the world enforces.
    """

    env_id: str
    control_hz: float
    observations: tuple[Channel, ...]
    actions: tuple[Channel, ...]

    @property
    def is_named(self) -> bool:
        """Whether every channel carries a name (a bare folder of arrays has none)."""
        return all(channel.name for channel in (*self.observations, *self.actions))

    @property
    def action_low(self) -> NDArray[np.float32]:
        """Lower action limits, (A,)."""
        return np.array([channel.low for channel in self.actions], np.float32)

    @property
    def action_high(self) -> NDArray[np.float32]:
        """Upper action limits, (A,)."""
        return np.array([channel.high for channel in self.actions], np.float32)

    @property
    def action_half_ranges(self) -> NDArray[np.float32]:
        """(A,) half of each action's range; infinite where there are no limits, no room, or more than can be told."""
        with np.errstate(over="ignore", invalid="ignore"):  # limits may be the largest numbers there are
            half = (self.action_high - self.action_low) / 2
        return np.where(half > 0, half, np.float32(np.inf))

    def first_difference(self, other: Spec) -> str | None:
        """The first way in which `other` differs in size, order, name, unit or rate; None where it does not.

        Names, units and rates that nobody stated are not compared, and limits never are: a tighter limit is no
        other quantity.
        """
        for kind, ours, theirs in (
            ("observation", self.observations, other.observations),
            ("action", self.actions, other.actions),
        ):
            if len(ours) != len(theirs):
                return f"{len(ours)} {kind} channels against {len(theirs)}"
            for index, (one, two) in enumerate(zip(ours, theirs, strict=True)):
                if one.name and two.name and one.name != two.name:
                    return f"{kind} channel {index} is {one.name!r} against {two.name!r}"
                if one.unit and two.unit and one.unit != two.unit:
                    return f"{kind} channel {index} ({one.name}) is in {one.unit!r} against {two.unit!r}"
        if self.control_hz and other.control_hz and not math.isclose(self.control_hz, other.control_hz, rel_tol=1e-3):
            return f"control rate {self.control_hz:g} Hz against {other.control_hz:g} Hz"
        return None

    def require(self, other: Spec, *, what: str, against: str) -> None:
        """Raises SpecMismatch, naming the first difference, where `other` is not what this spec describes."""
        difference = self.first_difference(other)
        if difference:
            raise SpecMismatch(f"{what} does not fit {against}: {difference}; use data and policies of one task")

    def require_same_task(self, other: Spec, *, what: str, against: str) -> None:
        """Raises SpecMismatch where `other` is not what this spec describes, or is of a world with another id.

        Worlds with equal channels may be different tasks (`FetchPush`, `FetchSlide`). Ids that nobody stated are not
        compared.
        """
        self.require(other, what=what, against=against)
        if self.env_id and other.env_id and self.env_id != other.env_id:
            raise SpecMismatch(
                f"{what} does not fit {against}: it is {other.env_id} against {self.env_id}; keep data and policies of "
                "each world apart (where both are one, give the data the id of the world: Dataset.with_spec)"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; limits that are infinite become null."""
        return {
            "env_id": self.env_id,
            "control_hz": self.control_hz,
            "observations": [_channel_to_json(channel) for channel in self.observations],
            "actions": [_channel_to_json(channel) for channel in self.actions],
        }

    @classmethod
    def from_json(cls, value: object) -> Spec:
        """The spec written by `to_json`.

        Raises:
            DataError: the value is not of that form.
        """
        if not isinstance(value, Mapping):
            raise DataError(f"a spec is a JSON object; got {type(value).__name__}")
        env_id, control_hz = value.get("env_id", ""), value.get("control_hz", 0.0)
        if not isinstance(env_id, str) or not _is_number(control_hz) or not 0 <= control_hz < math.inf:
            raise DataError("a spec needs env_id (text) and control_hz (a number, 0 where unknown)")
        return cls(
            env_id,
            float(control_hz),
            _channels_from_json(value.get("observations"), "observations"),
            _channels_from_json(value.get("actions"), "actions"),
        )

    @classmethod
    def unnamed(cls, observation_size: int, action_size: int) -> Spec:
        """The spec of data about which only the sizes are known."""
        return cls("", 0.0, (Channel(),) * observation_size, (Channel(),) * action_size)


def spec_of(env: gym.Env[Any, Any]) -> Spec:
    """The spec of a world.

    A world, or a wrapper of it, may say more than Gymnasium asks through the attributes `observation_channels`,
    `action_channels` (tuples of Channel) and `control_hz`; the outermost that does is heard. Where none does, channels
    are called `key[i]` after the keys of its dict spaces (`observation[i]`, `action[i]` for plain ones), and the rate
    is 1 / `dt` or `metadata["render_fps"]`.

    Raises:
        ConfigError: a space is not made of numbers in boxes, or the action has no limits.
    """
    base = env.unwrapped
    observations = _declared(env, "observation_channels", env.observation_space, "observation")
    actions = _declared(env, "action_channels", env.action_space, "action")
    rate = next(filter(None, map(_rate, layers(env))), base.metadata.get("render_fps") or 0.0)
    return Spec(env.spec.id if env.spec else type(base).__name__, float(rate), tuple(observations), tuple(actions))


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """A world and what it wraps, the outermost first."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _rate(layer: gym.Env[Any, Any]) -> float:
    """The control rate that a world or a wrapper states itself; 0 where it states none."""
    control_hz, dt = (getattr(layer, name, None) for name in ("control_hz", "dt"))
    if isinstance(control_hz, Real):
        return float(control_hz)
    return 1.0 / float(dt) if isinstance(dt, Real) and dt else 0.0


def box_channels(space: gym.Space[Any], name: str) -> tuple[Channel, ...]:
    """One channel for each number of a Box or a Dict of boxes, in the space's own order.

    Raises:
        ConfigError: the space holds something else than boxes of numbers.
    """
    if isinstance(space, gym.spaces.Dict):
        return tuple(channel for key, part in space.spaces.items() for channel in _part_channels(part, key))
    if not isinstance(space, gym.spaces.Box):
        raise ConfigError(
            f"{name} space is {type(space).__name__}; Understudy reads Box and Dict of Box; wrap the environment so "
            "that it gives numbers"
        )
    lows, highs = space.low.reshape(-1), space.high.reshape(-1)
    if len(lows) > MOST_CHANNELS:
        raise ConfigError(
            f"{name} space has {len(lows)} numbers; accepted: up to {MOST_CHANNELS}; wrap the environment so that it "
            "gives smaller pictures, or numbers"
        )
    return tuple(
        Channel(f"{name}[{index}]", "", _limit(low), _limit(high))
        for index, (low, high) in enumerate(zip(lows, highs, strict=True))
    )


def _limit(value: Any) -> float:
    """A limit of a space: the ends of what 32 bits can say are none."""
    return float(value) if abs(value) < np.finfo(np.float32).max else math.copysign(math.inf, value)


def _part_channels(part: gym.Space[Any], key: str) -> tuple[Channel, ...]:
    channels = box_channels(part, key)
    if isinstance(part, gym.spaces.Dict):  # a dict in a dict: two of them may use the same keys
        return tuple(replace(channel, name=f"{key}.{channel.name}") for channel in channels)
    return channels


def _declared(env: gym.Env[Any, Any], attribute: str, space: gym.Space[Any], name: str) -> tuple[Channel, ...]:
    """The channels that a world or a wrapper names itself, unless another wrapper has changed what they are."""
    counted = box_channels(space, name)
    for layer in layers(env):
        declared = tuple(getattr(layer, attribute, None) or ())
        own = layer.observation_space if name == "observation" else layer.action_space
        if declared and space == own and len(declared) == len(counted):
            return declared
    return counted


def flatten(space: gym.Space[Any], observation: Any) -> NDArray[np.float32]:
    """An observation of `space` as a new float32 vector (D,), dict entries in the space's own key order."""
    # Box first: it is the usual one, and asking whether something is a Dict, a Mapping, is slow.
    if isinstance(space, gym.spaces.Box) or not isinstance(space, gym.spaces.Dict):
        return np.array(observation, np.float32).reshape(-1)
    return np.concatenate([flatten(part, observation[key]) for key, part in space.spaces.items()])


def _channel_to_json(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "unit": channel.unit,
        "low": channel.low if math.isfinite(channel.low) else None,
        "high": channel.high if math.isfinite(channel.high) else None,
    }


def _channels_from_json(value: object, kind: str) -> tuple[Channel, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"a spec needs {kind}: a list with one entry for each channel")
    if len(value) > MOST_CHANNELS:
        raise DataError(f"a spec has {len(value)} {kind}; accepted: up to {MOST_CHANNELS}")
    return tuple(_channel_from_json(entry, f"{kind}[{index}]") for index, entry in enumerate(value))


def _channel_from_json(value: object, where: str) -> Channel:
    if not isinstance(value, Mapping) or not all(isinstance(value.get(key, ""), str) for key in ("name", "unit")):
        raise DataError(f"{where} of a spec needs name and unit as text")
    limits = {"low": -math.inf, "high": math.inf}
    for key in limits:
        limit = value.get(key)
        if limit is not None:
            if not _is_number(limit):
                raise DataError(f"{where}.{key} of a spec is not a number")
            limits[key] = float(limit)
    return Channel(value.get("name", ""), value.get("unit", ""), **limits)


def _is_number(value: object) -> bool:
    # A whole number of JSON may be too large for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST
