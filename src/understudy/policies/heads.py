"""Heads: what the numbers that leave a network mean as a distribution over actions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from understudy.network_shape import MIXTURE_COMPONENTS, SMALLEST_LOG_DEVIATION


class Head(nn.Module, ABC):
    """A distribution over scaled action chunks (B, H * A), described by the `last_layer_size` numbers of a network."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def nll(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """What training makes small, for each number of a chunk: (B, H * A) of targets (B, H * A).

        The caller multiplies it by `weight` (B, H * A), which is 0 past the end of an episode; a head whose numbers
        depend on each other leaves those out itself.
        """

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

    def nll(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        return (outputs - targets).abs()

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        # Inverse transform: a uniform u in (-1/2, 1/2) gives a Laplace number -sign(u) log(1 - 2 |u|).
        uniform = torch.rand(outputs.shape, generator=generator, device=outputs.device) - 0.5
        return outputs - uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-7))


class SquaredError(Head):
    """(a - mu)^2 / 2: the negative log-likelihood of a Gaussian of deviation 1, up to a constant."""

    def nll(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
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

    def nll(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        log_deviation = self._bounded()
        scaled = (targets - outputs) * torch.exp(-log_deviation)
        return 0.5 * scaled.square() + log_deviation + 0.5 * math.log(2 * math.pi)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(outputs.shape, generator=generator, device=outputs.device)
        return outputs + noise * self._bounded().exp()

    def _bounded(self) -> Tensor:
        # A channel that is predicted without error would otherwise drive its deviation to 0 and its loss to infinity.
        return self.log_deviation.clamp(min=SMALLEST_LOG_DEVIATION)


class GaussianMixture(Head):
    """Several Gaussians over the whole chunk, whose weights, means and deviations all depend on the state.

    nll = -log sum_k w_k prod_i N(a_i; mu_ki, sigma_ki), shared equally by the numbers of the chunk (Bishop 1994,
    "Mixture Density Networks"). The best chunk is the mean of the component of the largest weight: where
    demonstrations go left or right, it goes one way and not between.
    """

    def nll(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        logits, means, log_deviations = self._components(outputs)
        scaled = (targets[:, None] - means) * torch.exp(-log_deviations)
        each = 0.5 * scaled.square() + log_deviations + 0.5 * math.log(2 * math.pi)  # (B, K, H * A)
        of_component = torch.log_softmax(logits, 1) - (each * weight[:, None]).sum(2)
        share = -torch.logsumexp(of_component, 1) / weight.sum(1).clamp(min=1)
        return share[:, None].expand(-1, self.size)

    def best(self, outputs: Tensor) -> Tensor:
        logits, means, _ = self._components(outputs)
        return _of_component(means, logits.argmax(1))

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        logits, means, log_deviations = self._components(outputs)
        component = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        mean, log_deviation = _of_component(means, component), _of_component(log_deviations, component)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + noise * log_deviation.exp()

    def _components(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (B, K) up to a constant, means and log deviations (B, K, H * A)."""
        numbers = MIXTURE_COMPONENTS * self.size
        logits, means, log_deviations = outputs.split([MIXTURE_COMPONENTS, numbers, numbers], 1)
        shape = (MIXTURE_COMPONENTS, self.size)
        return logits, means.unflatten(1, shape), log_deviations.unflatten(1, shape).clamp(min=SMALLEST_LOG_DEVIATION)


def _of_component(parts: Tensor, component: Tensor) -> Tensor:
    """Of (B, K, H * A) what belongs to component (B,)."""
    return parts[torch.arange(len(parts), device=parts.device), component]


HEADS: dict[str, type[Head]] = {
    "absolute": AbsoluteError,
    "squared": SquaredError,
    "gaussian": Gaussian,
    "mixture": GaussianMixture,
}
