"""FeedForward: the multilayer perceptron policy, for states of a few to a few hundred numbers."""

from __future__ import annotations

import itertools
from typing import Any, Self

import torch
from torch import Tensor, nn

from understudy.dataset import Dataset
from understudy.errors import PolicyError
from understudy.inference import Predictor, feedforward_config, predictor
from understudy.network_shape import (
    FeedForwardConfig,
    input_size,
    last_layer_size,
    relative_pairs,
    seen_channels,
    skip_layers,
)
from understudy.normalize import Normalizer
from understudy.policies.base import Batch, Policy
from understudy.policies.heads import HEADS
from understudy.policy_file import PolicyFile
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics

_ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_}  # in place: their gradients need only their results


class FeedForward(Policy):
    """History of scaled observations -> hidden layers (and a skip past them) -> head -> chunk of actions.

    There is no squashing at the end: a tanh there would put every target beyond one deviation out of reach. What
    leaves the policy is limited by the action space instead.

    Args:
        spec: channels, units and rate of the world.
        config: shape of the network.
    """

    kind = "feedforward"
    _pairs: Tensor  # (P, 2) channels whose difference it sees
    _sees: Tensor  # (D,) 1, and 0 for channels that it ignores

    def __init__(self, spec: Spec, config: FeedForwardConfig | None = None) -> None:
        config = config or FeedForwardConfig()
        super().__init__(spec, config.history, config.horizon)
        self.config = config
        self.head = HEADS[config.head](config.horizon * len(spec.actions))
        self.register_buffer("_pairs", torch.from_numpy(relative_pairs(config, spec)), persistent=False)
        self.register_buffer("_sees", torch.from_numpy(seen_channels(config, spec)), persistent=False)
        sizes = [input_size(config, spec), *config.hidden, last_layer_size(config, self.head.size)]
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes))
        self.skip = _skip(config, sizes[0], sizes[-1])
        self._activate = _ACTIVATIONS[config.activation]
        self._inputs: Normalizer | None = None
        self._outputs: Normalizer | None = None

    @classmethod
    def for_data(cls, dataset: Dataset, config: FeedForwardConfig | None = None, *, seed: int = 0) -> Self:
        """An untrained policy for the channels of a dataset, its weights drawn from `seed`."""
        return cls(dataset.spec, config).initialized(seed)

    def architecture(self) -> dict[str, Any]:
        return self.config.to_json()

    @classmethod
    def from_file(cls, file: PolicyFile) -> Self:
        return cls(file.spec, feedforward_config(file))

    def initialized(self, seed: int) -> Self:
        policy = type(self)(self.spec, self.config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            past = policy.skip_maps()
            for layer in (*policy.layers, *past):
                assert isinstance(layer, nn.Linear)
                # Uniform within +- 1 / sqrt(inputs), weights and biases alike: torch's own start, from our generator.
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            for last in past[-1:]:
                last.weight.zero_()
                last.bias.zero_()
        return policy

    def in_world(self, spec: Spec) -> Self:
        pairs, sees = relative_pairs(self.config, spec), seen_channels(self.config, spec)
        if pairs.tolist() != self._pairs.tolist() or sees.tolist() != self._sees.tolist():
            raise PolicyError("what the policy's relative and ignore name are other channels in this world")
        return super().in_world(spec)

    def skip_maps(self) -> list[nn.Linear]:
        """The linear maps of the skip, in their order; none without a skip."""
        return [] if self.skip is None else [part for part in self.skip.modules() if isinstance(part, nn.Linear)]

    def fit_scaling(self, observations: ChannelStatistics, actions: ChannelStatistics) -> None:
        self.statistics = (observations, actions)
        device = next(self.parameters()).device
        self._inputs, self._outputs = Normalizer(observations).to(device), Normalizer(actions).to(device)

    def predict_batch(self, observations: Tensor) -> Tensor:
        return self._to_chunks(self.head.best(self._forward(observations)))

    def sample_batch(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        return self._to_chunks(self.head.sample(self._forward(observations), generator))

    def loss(self, batch: Batch) -> Tensor:
        _, outputs = self._scaling()
        targets = outputs.normalize(batch.actions).flatten(1)  # (B, H, A) -> (B, H * A)
        weight = batch.weight.repeat_interleave(len(self.spec.actions), 1)  # (B, H) -> (B, H * A)
        loss = self.head.nll(self._forward(batch.observations), targets, weight).unflatten(1, (self.horizon, -1))
        return (loss.mean(2) * batch.weight).sum() / batch.weight.sum().clamp(min=1)

    @property
    def loss_can_be_recorded(self) -> bool:
        return True

    def for_execution(self) -> Predictor:
        return predictor(self.to_file(), self.arrays())

    def scaled_batch(self, observations: Tensor) -> Tensor:
        """The best chunks in deviations of the training actions, (B, history, D) -> (B, H * A); not limited."""
        return self.head.best(self._forward(observations))

    def scaled_inputs(self, observations: Tensor) -> Tensor:
        """What the network sees of (B, history, D): in deviations, cut to the input limit, (B, history * D).

        With things that are `relative`, P differences more of each observation: (B, history * (D + P)).
        """
        inputs, _ = self._scaling()
        limit = self.config.input_limit
        seen = inputs.normalize(observations)
        if self.config.ignore:
            seen = seen * self._sees
        seen = seen.clamp(-limit, limit)
        if len(self._pairs):
            one, other = self._pairs.T
            apart = observations.index_select(-1, one) - observations.index_select(-1, other)
            seen = torch.cat([seen, torch.asinh(apart * (1 / self.config.near)) / 2], -1)
        return seen.flatten(1)

    def _forward(self, observations: Tensor) -> Tensor:
        seen = values = self.scaled_inputs(observations)
        for layer in self.layers[:-1]:
            values = self._activate(layer(values))
        result: Tensor = self.layers[-1](values)
        return result if self.skip is None else result + self.skip(seen)

    def _to_chunks(self, scaled: Tensor) -> Tensor:
        _, outputs = self._scaling()
        return outputs.denormalize(scaled.unflatten(1, (self.horizon, -1)))  # (B, H * A) -> (B, H, A)

    def _scaling(self) -> tuple[Normalizer, Normalizer]:
        if self._inputs is None or self._outputs is None:
            raise PolicyError("this policy was never trained; train it before it is executed")
        return self._inputs, self._outputs


def _skip(config: FeedForwardConfig, inputs: int, outputs: int) -> nn.Module | None:
    """The path past the hidden layers, whose arrays are called as `skip_layers` says."""
    maps = [nn.Linear(before, after) for _, before, after in skip_layers(config, inputs, outputs)]
    if not config.skip_hidden:
        return maps[0] if maps else None
    parts = [part for linear in maps for part in (linear, nn.Tanh())]
    return nn.Sequential(*parts[:-1])
