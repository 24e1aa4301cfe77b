"""Heads: what the numbers that leave a network mean as a distribution over actions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from understudy.inference import SMALLEST_LOG_DEVIATION


class Head(nn.Module, ABC):
    """A distribution over scaled action chunks (B, H * A), described by the network's last layer (B, `input_dim`)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @property
    def input_dim(self) -> int:
        """Numbers it needs from the network for H * A action numbers."""
        return self.size

    @abstractmethod
    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training makes small, for each number: (B, input_dim), (B, H * A) -> (B, H * A)."""

    def best(self, outputs: Tensor) -> Tensor:
        """The most likely chunk, (B, H * A)."""
        return outputs

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """A chunk drawn from the distribution, (B, H * A)."""


class AbsoluteError(Head):
    """|a - mu|: the negative log-likelihood of a Laplace distribution of scale 1, up to a constant.

    Its optimum is the median, so a few odd actions of a person do not pull the policy away from what was usual.
    """

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        # Inverse transform: a uniform u in (-1/2, 1/2) gives a Laplace number -sign(u) log(1 - 2 |u|).
        uniform = torch.rand(outputs.shape, generator=generator, device=outputs.device) - 0.5
        return outputs - uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-7))


class SquaredError(Head):
    """(a - mu)^2 / 2: the negative log-likelihood of a Gaussian of deviation 1, up to a constant."""

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - targets).square()

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return outputs + torch.randn(outputs.shape, generator=generator, device=outputs.device)


class Gaussian(Head):
    """A Gaussian whose mean depends on the state and whose deviation is learnt, one for each number.

    nll = (a - mu)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2. The deviation starts at 1, that of the scaled targets.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.log_deviation = nn.Parameter(torch.zeros(size))

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        log_deviation = self._bounded()
        scaled = (targets - outputs) * torch.exp(-log_deviation)
        return 0.5 * scaled.square() + log_deviation + 0.5 * math.log(2 * math.pi)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(outputs.shape, generator=generator, device=outputs.device)
        return outputs + noise * self._bounded().exp()

    def _bounded(self) -> Tensor:
        # A channel that is predicted without error would otherwise drive its deviation to 0 and its loss to infinity.
        return self.log_deviation.clamp(min=SMALLEST_LOG_DEVIATION)


HEADS: dict[str, type[Head]] = {"absolute": AbsoluteError, "squared": SquaredError, "gaussian": Gaussian}
