"""Policy: a network from a history of observations to a chunk of actions, in physical units on both sides."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.errors import PolicyError
from understudy.inference import Predictor
from understudy.policy_file import PolicyFile
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics


class Batch(NamedTuple):
    """Training windows in physical units.

    Args:
        observations: (B, history, D), newest last.
        actions: (B, H, A) targets.
        weight: (B, H) 1 where the target is to be learnt, 0 where it lies beyond the episode or is nobody's advice.
    """

    observations: Tensor
    actions: Tensor
    weight: Tensor


class Policy(nn.Module, ABC):
    """What training and execution ask of every policy.

    A policy is a function with weights: it keeps nothing between calls, and it owns its specs and its scaling. A new
    policy has no scaling; training fits it to the training episodes, once (`fit_scaling`).
    """

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Policy]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Policy._kinds[cls.kind] = cls

    def __init__(self, spec: Spec, history: int, horizon: int) -> None:
        super().__init__()
        self.spec, self.history, self.horizon = spec, history, horizon
        self.statistics: tuple[ChannelStatistics, ChannelStatistics] | None = None
        self.data_fingerprint = ""
        self.notes = ""
        self.acts = "mean"

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """What `from_file` needs to build the same network, as plain JSON."""

    @classmethod
    @abstractmethod
    def from_file(cls, file: PolicyFile) -> Self:
        """The network that a policy folder describes, without its weights and its scaling."""

    @abstractmethod
    def initialized(self, seed: int) -> Self:
        """A new policy of this shape whose weights are drawn from `seed`."""

    @abstractmethod
    def fit_scaling(self, observations: ChannelStatistics, actions: ChannelStatistics) -> None:
        """Takes the scaling from the statistics of the training episodes."""

    @abstractmethod
    def predict_batch(self, observations: Tensor) -> Tensor:
        """The best chunks (B, H, A) for histories (B, history, D), both in physical units; not yet limited."""

    @abstractmethod
    def sample_batch(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        """Chunks (B, H, A) drawn from the policy's distribution, in physical units; not yet limited."""

    @property
    def shares(self) -> int:
        """Parts that a batch is cut into, each learnt from on its own: the members of an ensemble, else 1."""
        return 1

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch of `shares` equal parts, added over the parts; training makes it small."""

    @property
    def loss_can_be_recorded(self) -> bool:
        """Whether a GPU may record the loss and repeat it: it draws nothing, keeps nothing, reads no number back."""
        return False

    def predict(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next actions (H, A) within the action limits for the last observations (history, D), newest last."""
        parameter = next(self.parameters())
        with torch.no_grad():
            history = torch.as_tensor(np.asarray(observations, np.float32), device=parameter.device)
            chunk: NDArray[np.float32] = self.predict_batch(history[None])[0].cpu().numpy()
        return np.minimum(np.maximum(chunk, self.spec.action_low), self.spec.action_high)

    def in_world(self, spec: Spec) -> Self:
        """A copy for that world, of the same channels: with its names, units, limits and rate."""
        result = copy.deepcopy(self)
        result.spec = spec
        return result

    def for_execution(self) -> Predictor:
        """This policy in the form that executes fastest, without torch where there is one."""
        return self

    def to_file(self) -> PolicyFile:
        """What a policy folder says of this policy.

        Raises:
            PolicyError: the policy was never trained, so it has no scaling.
        """
        if self.statistics is None:
            raise PolicyError("this policy was never trained; train it before it is saved or executed")
        return PolicyFile(
            self.kind,
            self.architecture(),
            self.spec,
            self.history,
            self.horizon,
            self.statistics,
            self.data_fingerprint,
            self.notes,
            self.acts,
        )

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The weights by name, as float32 arrays on the CPU."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}


def policy_from_file(file: PolicyFile) -> Policy:
    """The network that a policy folder describes, without its weights and its scaling.

    Raises:
        PolicyError: its kind is unknown, or its architecture cannot be built.
    """
    if file.kind not in Policy._kinds:
        raise PolicyError(f"the policy is a {file.kind!r}; this Understudy knows {', '.join(Policy._kinds)}")
    return Policy._kinds[file.kind].from_file(file)
