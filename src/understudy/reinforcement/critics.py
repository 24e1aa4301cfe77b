"""Critics: an ensemble of small networks that say what an action is worth, and none of which is believed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class Critics(nn.Module):
    """Q_1 ... Q_K, each a multilayer perceptron with a layer normalisation before each activation.

    A layer normalisation keeps the answer to an action that was never tried near those to actions that were (Ball et
    al. 2023, "Efficient Online Reinforcement Learning with Offline Data", section 4.2). The layers of all critics are
    stacked, so that a pass through all costs one batched product a layer.

    Args:
        count: K.
        inputs: numbers in what they look at.
        hidden: sizes of the hidden layers.
        generator: of the first weights.
    """

    def __init__(self, count: int, inputs: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        sizes = (inputs, *hidden, 1)
        self._weights, self._biases = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(sizes):
            bound = before**-0.5
            for into, shape in ((self._weights, (before, after)), (self._biases, (1, after))):
                first = torch.empty(count, *shape).uniform_(-bound, bound, generator=generator)
                into.append(nn.Parameter(first))

    def forward(self, rows: Tensor) -> Tensor:
        """Q of rows (B, inputs), (K, B)."""
        values = rows.expand(len(self._weights[0]), -1, -1)
        for weights, biases in zip(self._weights[:-1], self._biases[:-1], strict=True):
            values = torch.baddbmm(biases, values, weights)
            values = torch.relu(layer_norm(values, values.shape[-1:]))
        result: Tensor = torch.baddbmm(self._biases[-1], values, self._weights[-1])[..., 0]
        return result


def follow(slow: Iterable[Tensor], fast: Iterable[Tensor], share: float) -> None:
    """Moves the `slow` tensors by a share of the way to the others."""
    with torch.no_grad():
        torch._foreach_lerp_([*slow], [*fast], share)
