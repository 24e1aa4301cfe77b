"""Policies as plain numpy: all that a robot's computer needs to run one, without torch.

A policy for execution is a pure function `predict(observations (history, D)) -> (H, A)` in physical units, beside its
`spec`, `history` and `horizon`. `loading.load_predictor` reads one; a trained policy gives one with `for_execution()`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, PolicyError
from understudy.network_shape import (
    MIXTURE_COMPONENTS,
    MOST_MEMBERS,
    SMALLEST_LOG_DEVIATION,
    FeedForwardConfig,
    input_size,
    last_layer_size,
    relative_pairs,
    seen_channels,
    skip_layers,
)
from understudy.policy_file import PolicyFile, require_array
from understudy.spec import Spec


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
