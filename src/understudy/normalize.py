"""Scaling that a policy owns: buffers beside its weights, fitted on training episodes, saved with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from understudy.statistics import ChannelStatistics


class Normalizer(nn.Module):
    """Centres each of C channels and divides by its deviation; a dead channel is centred, not scaled."""

    center: Tensor
    scale: Tensor

    def __init__(self, statistics: ChannelStatistics) -> None:
        super().__init__()
        self.register_buffer("center", torch.from_numpy(statistics.mean.copy()), persistent=False)
        self.register_buffer("scale", torch.from_numpy(statistics.scale.copy()), persistent=False)

    def normalize(self, values: Tensor) -> Tensor:
        """Physical units to deviations, (..., C)."""
        return (values - self.center) / self.scale

    def denormalize(self, values: Tensor) -> Tensor:
        """Deviations to physical units, (..., C)."""
        return values * self.scale + self.center
