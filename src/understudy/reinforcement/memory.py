"""Adam whose moments are plain tensors between the batches, so that a checkpoint can hold them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Memory = dict[str, Tensor]
_PARTS = ("step", "exp_avg", "exp_avg_sq")


class _Adam(torch.optim.Adam):
    def __init__(
        self, parameters: Sequence[nn.Parameter], memory: Memory, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self._parameters, self._memory = parameters, memory
        if memory:
            for index, parameter in enumerate(parameters):
                self.state[parameter] = {part: memory[f"{index}.{part}"].clone() for part in _PARTS}

    def remember(self) -> None:
        """Leaves the moments in the memory that it was made with."""
        for index, parameter in enumerate(self._parameters):
            for part in _PARTS:
                if parameter in self.state:  # nothing was learnt where a batch gave no gradient
                    self._memory[f"{index}.{part}"] = self.state[parameter][part].clone()


def adam(
    parameters: Sequence[nn.Parameter], memory: Memory, learning_rate: float, *, weight_decay: float = 0.0
) -> _Adam:
    """Adam (Kingma and Ba 2015) that goes on from the moments in `memory`, which is empty at first."""
    return _Adam(parameters, memory, learning_rate, weight_decay)
