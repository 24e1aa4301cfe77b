"""Ensemble: several policies of one shape that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.dataset import Dataset
from understudy.errors import ConfigError, PolicyError, require_within
from understudy.inference import Predictor, ensemble_member, predictor
from understudy.network_shape import MOST_MEMBERS, FeedForwardConfig
from understudy.policies.base import Batch, Policy, policy_from_file
from understudy.policies.feedforward import FeedForward
from understudy.policy_file import PolicyFile
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics

MEMBERS = 5


class Ensemble(Policy):
    """The mean of its members' actions.

    The members differ by their first weights and by what they see: a batch is cut into one share for each. Their
    losses are added, so that each learns as if it were alone, but for a limit on the norm of all their gradients. Their
    disagreement is what several gates measure.

    Args:
        members: at least two policies of one kind, shape and spec; none is an ensemble itself.

    Raises:
        ConfigError: they are no such policies.
    """

    kind = "ensemble"

    def __init__(self, members: Sequence[Policy]) -> None:
        if len(members) < 2:
            raise ConfigError(f"an ensemble has 2 members or more; got {len(members)}")
        first = members[0]
        if isinstance(first, Ensemble):
            raise ConfigError("the member of an ensemble is a single policy, and here it is an ensemble itself")
        if any(member.kind != first.kind or member.architecture() != first.architecture() for member in members):
            raise ConfigError("the members of an ensemble have one kind and one shape")
        if any(member.spec != first.spec or not _same_scaling(member, first) for member in members):
            raise ConfigError("the members of an ensemble have one spec and one scaling; train them as one ensemble")
        super().__init__(first.spec, first.history, first.horizon)
        self.members = nn.ModuleList(members)
        self.statistics = first.statistics

    @classmethod
    def of(cls, policy: Policy, members: int, *, seed: int = 0) -> Self:
        """An untrained ensemble of `members` policies of the shape of `policy`."""
        require_within("members", members, 2, MOST_MEMBERS)
        return cls([policy] * members).initialized(seed)

    @classmethod
    def for_data(
        cls, dataset: Dataset, config: FeedForwardConfig | None = None, *, members: int = MEMBERS, seed: int = 0
    ) -> Self:
        """An untrained ensemble of feedforward policies for the channels of a dataset, weights drawn from `seed`."""
        return cls.of(FeedForward(dataset.spec, config), members, seed=seed)

    def architecture(self) -> dict[str, Any]:
        first = self._members()[0]
        return {
            "members": len(self.members),
            "member": {"kind": first.kind, "architecture": first.architecture()},
        }

    @classmethod
    def from_file(cls, file: PolicyFile) -> Self:
        count, member = ensemble_member(file)
        return cls([policy_from_file(member) for _ in range(count)])

    def initialized(self, seed: int) -> Self:
        # Seeds of members are far apart, so that the members of ensembles 0 and 1 are not the same networks.
        return type(self)([member.initialized(seed * 1000 + index) for index, member in enumerate(self._members())])

    def fit_scaling(self, observations: ChannelStatistics, actions: ChannelStatistics) -> None:
        self.statistics = (observations, actions)
        for member in self._members():
            member.fit_scaling(observations, actions)

    def predict_batch(self, observations: Tensor) -> Tensor:
        return torch.stack([member.predict_batch(observations) for member in self._members()]).mean(0)

    def predictions(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every member's chunk, (members, H, A), not limited, for the last observations (history, D)."""
        with torch.no_grad():
            history = torch.from_numpy(np.asarray(observations, np.float32))[None]
            return np.stack([member.predict_batch(history)[0].numpy() for member in self._members()])

    def sample_batch(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        members = self._members()
        chosen = int(torch.randint(len(members), (), generator=generator, device=generator.device))
        return members[chosen].sample_batch(observations, generator)

    def scaled_batch(self, observations: Tensor) -> Tensor:
        """The mean of the members' best chunks in deviations of the training actions, (B, H * A); not limited.

        Raises:
            PolicyError: the members are no networks of one scale.
        """
        members = [member for member in self._members() if isinstance(member, FeedForward)]
        if len(members) < len(self.members):
            raise PolicyError(f"an ensemble of {self._members()[0].kind} policies has no common scale")
        return torch.stack([member.scaled_batch(observations) for member in members]).mean(0)

    @property
    def shares(self) -> int:
        return len(self.members)

    def loss(self, batch: Batch) -> Tensor:
        parts = zip(*(column.chunk(self.shares) for column in batch), strict=True)
        losses = [member.loss(Batch(*part)) for member, part in zip(self._members(), parts, strict=True)]
        return torch.stack(losses).sum()

    @property
    def loss_can_be_recorded(self) -> bool:
        return all(member.loss_can_be_recorded for member in self._members())

    def for_execution(self) -> Predictor:
        if self._members()[0].kind != "feedforward":
            return self
        return predictor(self.to_file(), self.arrays())

    def in_world(self, spec: Spec) -> Self:
        result = super().in_world(spec)
        result.members = nn.ModuleList(member.in_world(spec) for member in self._members())
        return result

    def _members(self) -> list[Policy]:
        return list(self.members)


def _same_scaling(one: Policy, other: Policy) -> bool:
    if one.statistics is None or other.statistics is None:
        return one.statistics is other.statistics
    return all(a.to_json() == b.to_json() for a, b in zip(one.statistics, other.statistics, strict=True))
