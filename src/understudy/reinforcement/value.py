"""The value function: what is still to come from a state, learnt from what came."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.episode import Episode
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.memory import Memory, adam

_TIME_POWERS = 4
_TIME_SCALE = 1000.0
_INPUT_LIMIT = 10.0
_SMALLEST = 1e-30


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0: weight decay makes such of units that died, and they slow it down fivefold."""
    were = not float(torch.tensor(1e-40) * 1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(were)


class ValueFunction:
    """A multilayer perceptron from an observation and the time to the discounted return.

    The time enters as t / 1000 and its second to fourth power, since in an episode that ends at a fixed step the same
    state is worth less later (the features of the DAPG authors' `mlp_baseline.py`). Returns are learnt in deviations:
    mean and deviation of all targets so far, and the last layer follows each change of them, so that the values stay
    what they were (van Hasselt et al. 2016, "Learning values across many orders of magnitude").

    Args:
        inputs: D.
        config: its shape and how it is fitted.
        generator: draws the first weights.
    """

    def __init__(self, inputs: int, config: FinetuneConfig, generator: torch.Generator) -> None:
        self._config = config
        sizes = [inputs + _TIME_POWERS, *config.value_hidden, 1]
        self._layers = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
        with torch.no_grad():
            for layer in self._layers:
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
        self.parameters = [parameter for layer in self._layers for parameter in layer.parameters()]
        self._memory: Memory = {}
        # Count, mean and sum of squares of all targets so far.
        self._seen = np.zeros(3)
        self.first_deviation = 1.0  # what its first weights answer in, before it has learnt anything

    def features(
        self, episodes: Sequence[Episode], scale: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> list[Tensor]:
        """What the network sees of each episode, (T + 1, D + 4); `scale` brings observations to deviations."""
        raw, features = self._config.value_inputs == "raw", []
        for episode in episodes:
            time = np.arange(len(episode) + 1, dtype=np.float32) / np.float32(_TIME_SCALE)
            powers = np.stack([time**power for power in range(1, _TIME_POWERS + 1)], 1)
            seen = (episode.observations if raw else scale(episode.observations)).clip(-_INPUT_LIMIT, _INPUT_LIMIT)
            if raw:
                seen = seen / np.float32(_INPUT_LIMIT)
            features.append(torch.from_numpy(np.concatenate([seen, powers], 1)))
        return features

    def values(self, features: Tensor) -> NDArray[np.float64]:
        """V (N,) of features (N, D + 4)."""
        with torch.no_grad():
            values: NDArray[np.float64] = (
                self._forward(features).numpy().astype(np.float64) * self._deviation + self._mean
            )
        return values

    def fit(
        self,
        features: Tensor,
        targets: NDArray[np.float64],
        orders: Callable[[int, int], Tensor],
        epochs: int | None = None,
    ) -> float:
        """Learns the targets (N,) of features (N, D + 4) in a few epochs of mean squared error.

        With `value_clip` c the loss of a step is the larger one of those of V and of V_old + clip(V - V_old, -c, c),
        as in the PPO implementation of OpenAI's baselines.

        Args:
            features: of all steps.
            targets: of all steps.
            orders: the order (N,) of an epoch, by its number and N.
            epochs: instead of those of the config.

        Returns:
            The share of the targets' variance that it did not explain before.
        """
        config = self._config
        spread = targets.var()
        error = float(((targets - self.values(features)) ** 2).mean() / spread) if spread > 0 else 0.0
        self._adapt(targets)
        scaled = torch.from_numpy(((targets - self._mean) / self._deviation).astype(np.float32))
        with torch.no_grad():
            before = self._forward(features)
        optimizer = adam(
            self.parameters, self._memory, config.value_learning_rate, weight_decay=config.value_weight_decay
        )
        with _denormals_as_zero():
            for epoch in range(config.value_epochs if epochs is None else epochs):
                for rows in orders(epoch, len(targets)).split(config.value_batch):
                    value = self._forward(features[rows])
                    loss = (value - scaled[rows]).square()
                    if config.value_clip is not None:
                        old = before[rows]
                        moved = old + (value - old).clamp(-config.value_clip, config.value_clip)
                        loss = torch.maximum(loss, (moved - scaled[rows]).square())
                    optimizer.zero_grad()
                    loss.mean().backward()
                    optimizer.step()
        optimizer.remember()
        return error

    def state(self) -> dict[str, Tensor]:
        """All it needs to go on with the same bytes."""
        weights = {f"{index}.weights": parameter for index, parameter in enumerate(self.parameters)}
        return {**weights, **self._memory, "seen": torch.from_numpy(self._seen.copy())}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes back to where `state` was taken."""
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                parameter.copy_(state[f"{index}.weights"])
        self._seen = state["seen"].numpy().copy()
        own = {f"{index}.weights" for index in range(len(self.parameters))} | {"seen"}
        self._memory.clear()
        self._memory.update({name: value for name, value in state.items() if name not in own})

    @property
    def has_learnt(self) -> bool:
        """Whether it was fitted before."""
        return bool(self._seen[0])

    @property
    def _mean(self) -> float:
        return float(self._seen[1])

    @property
    def _deviation(self) -> float:
        count, mean, squares = self._seen
        return max(float(np.sqrt(squares / count)), 1e-7 * abs(mean), _SMALLEST) if count else self.first_deviation

    def _adapt(self, targets: NDArray[np.float64]) -> None:
        """Takes the targets into mean and deviation; the last layer follows, so that the values stay the same."""
        mean, deviation = self._mean, self._deviation
        count, _, squares = self._seen
        total, shift = count + len(targets), targets.mean() - mean
        squares = squares + ((targets - targets.mean()) ** 2).sum() + shift**2 * count * len(targets) / total
        first = not count
        self._seen = np.array([total, mean + shift * len(targets) / total, squares])
        if first:
            return  # nothing was learnt yet that should stay
        last = self._layers[-1]
        with torch.no_grad():
            last.weight *= deviation / self._deviation
            last.bias.copy_((last.bias * deviation + mean - self._mean) / self._deviation)

    def _forward(self, features: Tensor) -> Tensor:
        """V in deviations, (N,)."""
        values = features
        for layer in self._layers[:-1]:
            values = torch.relu(layer(values))
        result: Tensor = self._layers[-1](values)[:, 0]
        return result
