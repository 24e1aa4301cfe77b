"""The shape of a network: what it sees of an observation, its layers, and what the numbers that leave it are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, PolicyError, require_within
from understudy.spec import Spec

ACTIVATIONS = ("relu", "tanh")
HEADS = ("absolute", "squared", "gaussian", "mixture")
MIXTURE_COMPONENTS = 5
MOST_MEMBERS = 100
WIDEST, _DEEPEST = 65_536, 100
_LONGEST = 1000  # a batch of windows of this length still fits into memory
_SMALLEST_LIMIT, _LARGEST_LIMIT = 1e-3, 1e6
_NEAREST, _FARTHEST, _MOST_THINGS, _MOST_IGNORED = 1e-6, 1e6, 32, 1000
_AXES = (".x", ".y", ".z", "[0]", "[1]", "[2]")
SMALLEST_LOG_DEVIATION = -5.0  # of a Gaussian head, in deviations of the training actions


@dataclass(frozen=True, slots=True)
class FeedForwardConfig:
    """Shape of a multilayer perceptron policy.

    Args:
        hidden: sizes of the hidden layers.
        activation: `relu` or `tanh`.
        head: what the last layer means and how it is trained: `absolute` or `squared` error of the scaled action, or
            `gaussian`, the likelihood under a deviation that is learnt and independent of the state, or `mixture`, that
            under five Gaussians that depend on the state, of which the likeliest answers.
        history: observations it looks at, newest last.
        horizon: H, actions it predicts at once (action chunking).
        input_limit: scaled observations are cut to +- this many deviations, so that a sensor far outside of its
            training range cannot drown the others.
        relative: things of which it also sees how far apart they are, each from each along each axis, by the names of
            their channels: `hand` has `hand.x`, `hand.y`, `hand.z`, or `hand[0]`, `hand[1]`, `hand[2]`.
        near: distance, in the unit of those channels, below which it sees a difference in proportion, and above which
            by its logarithm: a difference d goes in as asinh(d / near) / 2.
        ignore: things or channels that it does not look at: `previous` leaves out all that begins with `previous.`.
        skip: a path leads past the hidden layers, from the scaled observations to the last layer's numbers.
        skip_hidden: sizes of the tanh layers on that path; a linear map where there are none.

    Raises:
        ConfigError: a value is out of range.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    head: str = "absolute"
    history: int = 1
    horizon: int = 1
    input_limit: float = 5.0
    relative: tuple[str, ...] = ()
    near: float = 0.02
    ignore: tuple[str, ...] = ()
    skip: bool = False
    skip_hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= _DEEPEST or not all(map(_is_size, self.hidden)):
            raise ConfigError(
                f"hidden is {str(self.hidden)[:80]}; accepted: 1 to {_DEEPEST} layers of 1 to {WIDEST} units"
            )
        for name, accepted in (("activation", ACTIVATIONS), ("head", HEADS)):
            if getattr(self, name) not in accepted:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted: {', '.join(accepted)}")
        for name in ("history", "horizon"):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted: whole numbers")
            require_within(name, getattr(self, name), 1, _LONGEST)
        require_within("input_limit", self.input_limit, _SMALLEST_LIMIT, _LARGEST_LIMIT)
        things = len(self.relative)
        if (
            things == 1
            or things > _MOST_THINGS
            or len({*self.relative}) < things
            or not all(map(_is_name, self.relative))
        ):
            raise ConfigError(
                f"relative is {str(self.relative)[:80]}; accepted: the names of 2 to {_MOST_THINGS} things, like hand "
                "object goal"
            )
        require_within("near", self.near, _NEAREST, _FARTHEST)
        if len(self.ignore) > _MOST_IGNORED or not all(map(_is_name, self.ignore)):
            raise ConfigError(
                f"ignore is {str(self.ignore)[:80]}; accepted: the names of up to {_MOST_IGNORED} things or channels"
            )
        if type(self.skip) is not bool:
            raise ConfigError(f"skip is {self.skip!r}; accepted: true, false")
        if len(self.skip_hidden) > (_DEEPEST if self.skip else 0) or not all(map(_is_size, self.skip_hidden)):
            raise ConfigError(
                f"skip_hidden is {str(self.skip_hidden)[:80]}; accepted: nothing without a skip, and with one up to "
                f"{_DEEPEST} layers of 1 to {WIDEST} units"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what came later than the first release only where it says something."""
        value = {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(self).items()}
        left_out = {name for name in ("skip", "skip_hidden", "relative", "ignore") if not value[name]}
        if not self.relative:
            left_out.add("near")
        return {name: item for name, item in value.items() if name not in left_out}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeedForwardConfig:
        """The config written by `to_json`.

        Raises:
            PolicyError: a field is missing, unknown or out of range.
        """
        try:
            names = ("hidden", "relative", "ignore", "skip_hidden")
            lists = {name: tuple(value[name]) for name in names if name in value}
            return cls(**{**value, **lists})
        except (KeyError, TypeError, ConfigError) as error:
            raise PolicyError(f"the policy's architecture cannot be built: {error}") from error


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= WIDEST


def _is_name(value: Any) -> bool:
    return type(value) is str and bool(value)


def positions(names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Of each thing among channels called so, the number of its channel along each axis: `hand` has `.x`, or `[0]`."""
    found: dict[str, dict[str, int]] = {}
    for number, name in enumerate(names):
        for axis in _AXES:
            if name.endswith(axis):
                found.setdefault(name.removesuffix(axis), {})[axis] = number
    return found


def relative_pairs(config: FeedForwardConfig, spec: Spec) -> NDArray[np.intp]:
    """The pairs (P, 2) of observation channels whose differences a network sees, first minus second.

    Raises:
        ConfigError: one of `relative` has no positions among the channels, or none that another one has.
    """
    known = positions(channel.name for channel in spec.observations)
    places = {thing: known.get(thing, {}) for thing in config.relative}
    pairs = [
        (number, places[other][axis])
        for one, other in itertools.combinations(config.relative, 2)
        for axis, number in places[one].items()
        if axis in places[other]
    ]
    paired = {number for pair in pairs for number in pair}
    for thing, axes in places.items():
        if not paired & {*axes.values()}:
            raise ConfigError(
                f"relative names {thing!r}, whose position cannot be compared with another one's; "
                f"positions are those of {', '.join(sorted(known))[:200] or 'nothing here'}"
            )
    return np.array(pairs, np.intp).reshape(-1, 2)


def seen_channels(config: FeedForwardConfig, spec: Spec) -> NDArray[np.float32]:
    """(D,) 1 for each observation channel that a network sees for itself, 0 for one that it ignores.

    Raises:
        ConfigError: nothing is called like one of `ignore`, or nothing is left to look at.
    """
    names = [channel.name for channel in spec.observations]
    ignored = np.zeros(len(names), bool)
    for what in config.ignore:
        meant = np.array([name == what or name.startswith((f"{what}.", f"{what}[")) for name in names])
        if not meant.any():
            raise ConfigError(f"ignore names {what!r}; the channels are {', '.join(names)[:200]}")
        ignored |= meant
    if ignored.all() and not config.relative:
        raise ConfigError(f"ignore names all {len(names)} channels; leave some to look at")
    return np.where(ignored, np.float32(0), np.float32(1))


def input_size(config: FeedForwardConfig, spec: Spec) -> int:
    """Numbers that a network sees: for each observation of its history the channels and their differences."""
    return config.history * (len(spec.observations) + len(relative_pairs(config, spec)))


def last_layer_size(config: FeedForwardConfig, numbers: int) -> int:
    """Numbers that leave a network for chunks of `numbers` = H * A; those that say the action come first.

    A mixture has the log weights of its components, then their means, then their log deviations.
    """
    return MIXTURE_COMPONENTS * (1 + 2 * numbers) if config.head == "mixture" else numbers


def skip_layers(config: FeedForwardConfig, inputs: int, outputs: int) -> list[tuple[str, int, int]]:
    """The linear maps of a network's skip: what its arrays begin with, and how many numbers go in and come out."""
    if not config.skip:
        return []
    if not config.skip_hidden:
        return [("skip", inputs, outputs)]
    sizes = itertools.pairwise([inputs, *config.skip_hidden, outputs])
    return [(f"skip.{2 * layer}", before, after) for layer, (before, after) in enumerate(sizes)]  # tanh between
