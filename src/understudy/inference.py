"""Policies as plain numpy: all that a robot's computer needs to run one, without torch.

A policy for execution is a pure function `predict(observations (history, D)) -> (H, A)` in physical units, beside its
`spec`, `history` and `horizon`. `loading.load_predictor` reads one; a trained policy gives one with `for_execution()`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, PolicyError, require_within
from understudy.policy_file import PolicyFile, require_array
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


class Predictor(Protocol):
    """What execution asks of a policy, whatever it is made of."""

    @property
    def spec(self) -> Spec:
        """Channels, units and rate it was trained for."""
        ...

    @property
    def history(self) -> int:
        """Observations it looks at."""
        ...

    @property
    def horizon(self) -> int:
        """H, actions it predicts."""
        ...

    def predict(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next actions (H, A) in physical units for the last observations (history, D), newest last."""
        ...


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


def relative_pairs(config: FeedForwardConfig, spec: Spec) -> NDArray[np.intp]:
    """The pairs (P, 2) of observation channels whose differences a network sees, first minus second.

    Raises:
        ConfigError: one of `relative` has no positions among the channels, or none that another one has.
    """
    index = {channel.name: number for number, channel in enumerate(spec.observations)}
    places = {thing: [axis for axis in _AXES if thing + axis in index] for thing in config.relative}
    pairs = []
    for one, other in itertools.combinations(config.relative, 2):
        pairs += [(index[one + axis], index[other + axis]) for axis in places[one] if axis in places[other]]
    paired = {number for pair in pairs for number in pair}
    lonely = [thing for thing, axes in places.items() if not paired & {index[thing + axis] for axis in axes}]
    if lonely:
        known = sorted({name.removesuffix(axis) for name in index for axis in _AXES if name.endswith(axis)})
        raise ConfigError(
            f"relative names {lonely[0]!r}, whose position cannot be compared with another one's; "
            f"positions are those of {', '.join(known)[:200] or 'nothing here'}"
        )
    return np.array(pairs, np.intp).reshape(-1, 2)


def seen_channels(config: FeedForwardConfig, spec: Spec) -> NDArray[np.float32]:
    """(D,) 1 for each observation channel that a network sees for itself, 0 for one that it ignores.

    Raises:
        ConfigError: nothing is called like one of `ignore`, or nothing is left.
    """
    names = [channel.name for channel in spec.observations]
    ignored = np.zeros(len(names), bool)
    for what in config.ignore:
        meant = np.array([name == what or name.startswith((f"{what}.", f"{what}[")) for name in names])
        if not meant.any():
            raise ConfigError(f"ignore names {what!r}; the channels are {', '.join(names)[:200]}")
        ignored |= meant
    if ignored.all():
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


class FeedForwardPredictor:
    """A multilayer perceptron, or an ensemble of them whose answers are averaged, as numpy arrays.

    The members' layers are stacked, so that an ensemble costs one batched product a layer. Where the policy acts by
    sampling, `deviation` (H * A,) is that of its Gaussian in physical units; otherwise it is None.

    Args:
        file: what the policy is.
        config: the shape of each member.
        members: the weights of each, `layers.i.weight (out, in)` and `layers.i.bias (out,)`.

    Raises:
        PolicyError: the weights do not fit the architecture.
    """

    def __init__(
        self, file: PolicyFile, config: FeedForwardConfig, members: list[dict[str, NDArray[np.float32]]]
    ) -> None:
        self.spec, self.history, self.horizon = file.spec, config.history, config.horizon
        self.statistics = file.statistics
        observations, actions = file.statistics
        # What is ignored goes in as 0; what is not finite stays so, and no limit hides it.
        self._center, self._inverse_scale = observations.mean, seen_channels(config, self.spec) / observations.scale
        self._limit = np.float32(config.input_limit)
        self._low, self._high = self.spec.action_low, self.spec.action_high
        self._activate = np.tanh if config.activation == "tanh" else partial(np.maximum, np.float32(0))
        scale, center = np.tile(actions.scale, self.horizon), np.tile(actions.mean, self.horizon)  # (H * A,)
        self._pairs, self._nearness = relative_pairs(config, self.spec), np.float32(1 / config.near)
        inputs, numbers = input_size(config, self.spec), len(scale)
        outputs = last_layer_size(config, numbers)
        sizes = itertools.pairwise([inputs, *config.hidden, outputs])
        layers = [(f"layers.{layer}", before, after) for layer, (before, after) in enumerate(sizes)]
        skip = skip_layers(config, inputs, outputs)
        stacked = [_stacked(members, *layer) for layer in (*layers, *skip)]
        self._components = MIXTURE_COMPONENTS if config.head == "mixture" else 0
        # The way back to physical units is linear too, so it goes into the last layers. Of a mixture it changes the
        # means alone, not the log weights before them, and the log deviations after them are left out.
        scales = np.concatenate([np.ones(self._components, np.float32), *[scale] * max(1, self._components)])
        centers = np.concatenate([np.zeros(self._components, np.float32), *[center] * max(1, self._components)])
        weights, biases = (array[:, : len(scales)] for array in stacked[len(layers) - 1])
        stacked[len(layers) - 1] = weights * scales[:, None], biases * scales + centers
        if skip:
            weights, biases = (array[:, : len(scales)] for array in stacked[-1])
            stacked[-1] = weights * scales[:, None], biases * scales
        if len(members) == 1:
            maps = [(weights[0], biases[0]) for weights, biases in stacked]  # (out, in), (out,)
        else:
            maps = [
                (weights, biases[:, :, None]) for weights, biases in stacked
            ]  # (members, out, in), (members, out, 1)
        self._members = len(members)
        self._layers, self._skip = maps[: len(layers)], maps[len(layers) :]
        self.deviation: NDArray[np.float32] | None = None
        if file.acts == "sampled":
            # All members carry the one deviation of the ensemble.
            log_deviation = require_array(members[0], "head.log_deviation", scale.shape)
            self.deviation = np.exp(np.maximum(log_deviation, np.float32(SMALLEST_LOG_DEVIATION))) * scale
        # One vector for one network is far cheaper than a batch of one: this runs at every control step.
        self._multiply = np.dot if len(members) == 1 else np.matmul
        self._shape = (-1,) if len(members) == 1 else (1, -1, 1)

    def predict(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next actions (H, A) in physical units for the last observations (history, D), newest last."""
        values = self._forward(observations)
        if values.ndim == 3:
            values = values.mean(0)  # (members, H * A, 1) -> (H * A, 1)
        chunk: NDArray[np.float32] = values.reshape(self.horizon, -1)  # (H, A)
        return np.minimum(np.maximum(chunk, self._low), self._high)

    def predictions(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every member's chunk, (members, H, A), for the last observations (history, D); one network is one member.

        Their mean, cut to the action limits, is what `predict` answers.
        """
        values = self._forward(observations)
        return values.reshape(len(values) if values.ndim == 3 else 1, self.horizon, -1)

    def _forward(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answer in physical units: (H * A,), or (members, H * A, 1)."""
        observations = np.asarray(observations, np.float32)
        scaled = (observations - self._center) * self._inverse_scale
        seen = np.minimum(np.maximum(scaled, -self._limit), self._limit)
        if len(self._pairs):
            one, other = self._pairs.T
            apart = observations[:, one] - observations[:, other]
            seen = np.concatenate([seen, np.arcsinh(apart * self._nearness) / 2], 1)
        seen = seen.reshape(self._shape)
        values = self._through(self._layers, seen, self._activate)
        if self._skip:
            values += self._through(self._skip, seen, np.tanh)
        return self._likeliest(values) if self._components else values

    def _likeliest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of all components of a mixture the mean of that with the largest weight."""
        values = values.reshape(self._members, -1)
        chosen = values[:, : self._components].argmax(1)
        means = values[:, self._components :].reshape(self._members, self._components, -1)
        answer: NDArray[np.float32] = means[np.arange(self._members), chosen]  # (members, H * A)
        return answer[0] if self._members == 1 else answer[:, :, None]

    def _through(
        self,
        layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
        values: NDArray[np.float32],
        activate: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """What comes out of the last of some layers, with an activation between them."""
        for weights, biases in layers[:-1]:
            values = self._multiply(weights, values)
            values += biases
            values = activate(values)
        weights, biases = layers[-1]
        result: NDArray[np.float32] = self._multiply(weights, values)
        result += biases
        return result


def _stacked(
    members: Sequence[Mapping[str, NDArray[np.float32]]], name: str, inputs: int, outputs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One layer of all members: weights (members, out, in) and biases (members, out)."""
    weights = np.stack([require_array(member, f"{name}.weight", (outputs, inputs)) for member in members])
    return weights, np.stack([require_array(member, f"{name}.bias", (outputs,)) for member in members])


def predictor(file: PolicyFile, arrays: Mapping[str, NDArray[np.float32]]) -> Predictor:
    """The policy that `file` describes and whose weights are `arrays`.

    Raises:
        PolicyError: its kind is unknown, or the weights do not fit.
    """
    return FeedForwardPredictor(file, *networks(file, arrays))


def networks(
    file: PolicyFile, arrays: Mapping[str, NDArray[np.float32]]
) -> tuple[FeedForwardConfig, list[dict[str, NDArray[np.float32]]]]:
    """The shape of the networks that answer, and the arrays of each: one, or the members of an ensemble.

    Raises:
        PolicyError: the policy is of another kind, or contradicts itself.
    """
    if file.kind == "ensemble":
        count, member = ensemble_member(file)
        members = [member_arrays(arrays, index) for index in range(count)]
    else:
        member, members = file, [dict(arrays)]
    if member.kind != "feedforward":
        raise PolicyError(f"the policy is a {member.kind!r}; without torch only feedforward policies can be executed")
    return feedforward_config(member), members


def feedforward_config(file: PolicyFile) -> FeedForwardConfig:
    """The shape of the feedforward policy that `file` describes.

    Raises:
        PolicyError: the shape is malformed, or contradicts the rest of the file.
    """
    config = FeedForwardConfig.from_json(file.architecture)
    if (config.history, config.horizon) != (file.history, file.horizon):
        raise PolicyError("policy.json contradicts itself about history or horizon; copy the policy anew")
    try:
        relative_pairs(config, file.spec)
        seen_channels(config, file.spec)
    except ConfigError as error:
        raise PolicyError(f"policy.json contradicts itself: {error}") from error
    return config


def ensemble_member(file: PolicyFile) -> tuple[int, PolicyFile]:
    """How many members an ensemble has, and what `file` would say of one of them.

    Raises:
        PolicyError: it does not name its member, has too few or too many, or is an ensemble of ensembles.
    """
    count, member = file.architecture.get("members"), file.architecture.get("member")
    if not isinstance(member, dict) or type(count) is not int or not 2 <= count <= MOST_MEMBERS:
        raise PolicyError(f"an ensemble names its member and how many there are, 2 to {MOST_MEMBERS}")
    kind, architecture = member.get("kind"), member.get("architecture")
    if not isinstance(kind, str) or kind == "ensemble" or not isinstance(architecture, dict):
        raise PolicyError("the member of an ensemble has a kind, other than ensemble, and an architecture")
    return count, replace(file, kind=kind, architecture=architecture)


def member_arrays(arrays: Mapping[str, NDArray[np.float32]], index: int) -> dict[str, NDArray[np.float32]]:
    """The arrays of one member of an ensemble, under the names they have in that member."""
    prefix = f"members.{index}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
