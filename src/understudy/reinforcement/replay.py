"""The replay memory: every step that was collected, to be learnt from again and again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_FIRST_ROWS = 4096


class Transitions(NamedTuple):
    """Steps drawn from the memory, and where each leads after the next few.

    Args:
        inputs: (B, I) what the actor needs of the observation (`Actor.inputs`).
        actions: (B, A) that were executed, in deviations.
        returns: (B,) discounted rewards of the next few steps.
        discounts: (B,) of what follows then; 0 where the task ended before.
        next_inputs: (B, I) of the observation that it follows from.
    """

    inputs: Tensor
    actions: Tensor
    returns: Tensor
    discounts: Tensor
    next_inputs: Tensor


class Replay:
    """The steps of all episodes as rows of one table, an episode's last observation being a row of its own.

    Args:
        inputs: I, numbers in what the actor needs of an observation.
        actions: A, numbers in an action.
    """

    def __init__(self, inputs: int, actions: int) -> None:
        self._table = {
            "inputs": torch.zeros(_FIRST_ROWS, inputs),
            "actions": torch.zeros(_FIRST_ROWS, actions),
            "rewards": torch.zeros(_FIRST_ROWS),
            "last": torch.zeros(_FIRST_ROWS, dtype=torch.int64),  # the row of the episode's last observation
            "goes_on": torch.zeros(_FIRST_ROWS),  # 0 where the task ended with the episode
        }
        self._rows = 0
        self._steps = torch.zeros(0, dtype=torch.int64)  # the rows that are steps

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, inputs: Tensor, actions: Tensor, rewards: Tensor, *, terminated: bool) -> None:
        """One episode: inputs (T + 1, I), actions (T, A), rewards (T,)."""
        first, count = self._rows, len(inputs)
        self._make_room(first + count)
        at = slice(first, first + count)
        self._table["inputs"][at] = inputs
        self._table["actions"][first : first + count - 1] = actions
        self._table["rewards"][first : first + count - 1] = rewards
        self._table["last"][at] = first + count - 1
        self._table["goes_on"][at] = float(not terminated)
        self._rows += count
        self._steps = torch.cat([self._steps, torch.arange(first, first + count - 1)])

    def draw(self, generator: torch.Generator, count: int, steps: int, gamma: float) -> Transitions:
        """So many steps, drawn with replacement, each followed for up to `steps` steps of its episode."""
        rows = self._steps[torch.randint(len(self._steps), (count,), generator=generator)]
        last, at = self._table["last"][rows], rows
        returns, discounts = torch.zeros(count), torch.ones(count)
        for _ in range(steps):
            goes = at < last
            returns = returns + goes * discounts * self._table["rewards"][at]
            discounts = torch.where(goes, gamma * discounts, discounts)
            at = at + goes.long()
        discounts = torch.where(at == last, discounts * self._table["goes_on"][rows], discounts)
        inputs = self._table["inputs"]
        return Transitions(inputs[rows], self._table["actions"][rows], returns, discounts, inputs[at])

    def tensors(self, since: int = 0) -> dict[str, Tensor]:
        """The rows from number `since` on, for a file."""
        return {name: column[since : self._rows] for name, column in self._table.items()}

    @property
    def rewards(self) -> Tensor:
        """Of all rows, (rows,); that of an episode's last observation is 0."""
        return self._table["rewards"][: self._rows]

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether these are rows that `tensors` of a memory like this one could have given, to be added next."""
        if set(tensors) != set(self._table) or not len(tensors["rewards"]):
            return False
        same = all(
            tensors[name].dtype == column.dtype and tensors[name].shape == (len(tensors["rewards"]), *column.shape[1:])
            for name, column in self._table.items()
        )
        return same and int(tensors["last"][-1]) == self._rows + len(tensors["rewards"]) - 1

    @property
    def rows(self) -> int:
        """Of the table: the steps, and the last observation of each episode."""
        return self._rows

    def extend(self, tensors: dict[str, Tensor]) -> None:
        """Takes back rows that `tensors` gave."""
        first, count = self._rows, len(tensors["rewards"])
        self._make_room(first + count)
        for name, column in self._table.items():
            column[first : first + count] = tensors[name]
        self._rows += count
        rows = torch.arange(first, first + count)
        self._steps = torch.cat([self._steps, rows[rows < tensors["last"]]])

    def _make_room(self, rows: int) -> None:
        have = len(self._table["rewards"])
        if rows <= have:
            return
        more = max(rows, 2 * have) - have
        self._table = {
            name: torch.cat([column, column.new_zeros(more, *column.shape[1:])]) for name, column in self._table.items()
        }
