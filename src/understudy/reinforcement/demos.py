"""Demonstration terms: rows of demonstrations that join a batch, with a weight that fades. They make NPG DAPG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from understudy.dataset import Dataset
from understudy.errors import ConfigError, DataError, require_within
from understudy.recipe import LONGEST_LEAD
from understudy.reinforcement.actor import Actor
from understudy.reinforcement.updates import Batch
from understudy.windows import Windows

SCALES = ("max", "one")

_LARGEST_WEIGHT = 1e6  # of a demonstration, beside 1 for a step of the policy


class Term(Protocol):
    """What demonstrations add to a batch."""

    name: ClassVar[str]

    @property
    def demos(self) -> Dataset:
        """The demonstrations."""
        ...

    def weight(self, iteration: int, largest: float) -> float:
        """Of each demonstration row in batch number `iteration`, whose largest whitened advantage is `largest`."""
        ...

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        ...


@dataclass(frozen=True, slots=True)
class _Fading:
    """lam0 lam1^k, k the number of the batch.

    Raises:
        ConfigError: a value is out of range.
    """

    demos: Dataset
    lam0: float
    lam1: float = 0.95
    scale: str = "max"
    lead: int | None = 0

    def __post_init__(self) -> None:
        if not 0 <= self.lam0 <= _LARGEST_WEIGHT:
            raise ConfigError(f"lam0 is {self.lam0}; accepted: 0 or more, up to {_LARGEST_WEIGHT:g}")
        if not 0 <= self.lam1 <= 1:
            raise ConfigError(f"lam1 is {self.lam1}; accepted: 0 to 1")
        if self.scale not in SCALES:
            raise ConfigError(f"scale is {self.scale!r}; accepted: {', '.join(SCALES)}")
        require_within("lead", self.lead, 0, LONGEST_LEAD)

    def weight(self, iteration: int, largest: float) -> float:
        """Of each demonstration row."""
        return self.lam0 * self.lam1**iteration * (max(largest, 0.0) if self.scale == "max" else 1.0)

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        return {"lam0": self.lam0, "lam1": self.lam1, "scale": self.scale, "lead": self.lead}


@dataclass(frozen=True, slots=True)
class DemoTerm(_Fading):
    """The term of DAPG: the likelihood of the demonstrated actions, with the weight of a good action of one's own.

    The gradient of a batch becomes

        sum_(on-policy rows) A(o, a) grad log pi(a | o) + sum_(demonstrations) w grad log pi(a | o)
        w = lam0 lam1^k max A

    with A the whitened advantages and max over the on-policy rows of batch k (Rajeswaran et al. 2018, the
    augmented gradient). With `scale="one"` the maximum is left out, as in the authors' code (mjrl, `algos/dapg.py`).

    Args:
        demos: what is learnt from.
        lam0: weight at the beginning; 0 adds no rows at all.
        lam1: by which it shrinks from batch to batch.
        scale: `max` or `one`.
        lead: steps from an observation to the demonstrated action that it is paired with; from the pace of the
            demonstrations where None, as in cloning.
    """

    name: ClassVar[str] = "likelihood"
    lam0: float = 0.1


@dataclass(frozen=True, slots=True)
class DistanceTerm(_Fading):
    """A fading penalty on the distance to what was demonstrated: minus w ||mu(o) - a|| for each demonstration row.

    It pulls at the mean alone and with the same force from near and far, where `DemoTerm` pulls with
    (a - mu) / sigma^2 and moves sigma, too. Distances are in deviations of the demonstrated actions.

    Args:
        demos: what is learnt from.
        lam0: weight at the beginning; 0 adds no rows at all.
        lam1: by which it shrinks from batch to batch.
        scale: `max` multiplies it by the largest whitened advantage, as in DemoTerm; `one` does not.
        lead: as in DemoTerm.
    """

    name: ClassVar[str] = "distance"
    lam0: float = 0.1


TERMS: dict[str, type[DemoTerm] | type[DistanceTerm]] = {"likelihood": DemoTerm, "distance": DistanceTerm}


class DemoRows:
    """All steps of a term's demonstrations as rows, gathered once; an attempt known to have failed shows nothing.

    Args:
        term: whose demonstrations.
        actor: for whose history, and in whose deviations.

    Raises:
        DataError: all failed, no step can be learnt from, or a number is not finite.
    """

    def __init__(self, term: Term, actor: Actor) -> None:
        self._term = term
        succeeded = term.demos.without_failures()
        if not len(succeeded):
            raise DataError(
                f"all {len(term.demos)} demonstrations of {term.demos.path} failed; record some that succeed"
            )
        windows = Windows(succeeded.with_spec(actor.spec), actor.history, 1, lead=term.options()["lead"])
        batch = windows.batch(torch.arange(len(windows)))
        self.inputs = actor.inputs(batch.observations)
        self.actions = actor.scaled(batch.actions[:, 0])  # (M, H, A) -> (M, A)

    def joined(self, batch: Batch, iteration: int) -> tuple[Batch, float]:
        """The batch with the demonstration rows behind its own, and their weight; of weight 0, the batch itself."""
        weight = self._term.weight(iteration, float(batch.weight[: batch.on_policy].max()))
        if weight == 0:
            return batch, 0.0
        rows = len(self.actions)
        joined = Batch(
            torch.cat([batch.inputs, self.inputs]),
            torch.cat([batch.actions, self.actions]),
            torch.cat([batch.weight, torch.full((rows,), weight)]),
            batch.on_policy,
            self._term.name == DistanceTerm.name,
        )
        return joined, weight

    def residual(self, actor: Actor) -> Tensor:
        """(A,) root mean square of what the actor leaves unexplained of the demonstrated actions, in deviations."""
        with torch.no_grad():
            return (self.actions - actor.mean(self.inputs)).square().mean(0).sqrt()
