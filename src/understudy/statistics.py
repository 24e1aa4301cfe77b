"""What the training data looked like, channel by channel: the numbers a policy scales with and compares against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError

_FIELDS = ("minimum", "maximum", "mean", "deviation")
DEAD_RELATIVE = 1e-5
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """Range, mean and standard deviation of C channels, each (C,) float32 in the channel's own unit."""

    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: Iterable[NDArray[Any]]) -> ChannelStatistics:
        """Statistics of all rows of `blocks`, each (rows, C), read once and one after the other.

        Raises:
            DataError: there is not one row.
        """
        running = RunningStatistics()
        for block in blocks:
            running.add(block)
        return running.statistics()

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) what to divide by after centring: the deviation, or 1 for a dead channel.

        Dividing a constant by its own rounding noise would turn the first small change after training into a huge
        input, so a dead channel is centred and left in its unit.
        """
        return np.where(self.dead, np.float32(1), self.deviation)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """(C,) channels that do not move: by no more than rounding, a hundred-thousandth of their mean."""
        still: NDArray[np.bool_] = self.deviation <= DEAD_RELATIVE * np.maximum(np.abs(self.mean), 1e-3)
        return still

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists of numbers; a float32 survives the round trip exactly."""
        return {name: [float(value) for value in getattr(self, name)] for name in _FIELDS}

    @classmethod
    def from_json(cls, value: object, size: int) -> ChannelStatistics:
        """The statistics written by `to_json`, of `size` channels.

        Raises:
            DataError: a list is missing, of another size, or holds something else than finite numbers.
        """
        if not isinstance(value, Mapping):
            raise DataError(f"statistics are a JSON object; got {type(value).__name__}")
        columns = []
        for name in _FIELDS:
            numbers = value.get(name)
            if not isinstance(numbers, list) or len(numbers) != size:
                raise DataError(f"statistics need {name}: a list of {size} numbers")
            if not all(type(number) in (int, float) and abs(number) <= _LARGEST for number in numbers):
                raise DataError(f"statistics.{name} holds something else than finite numbers")
            columns.append(np.array(numbers, np.float32))
        return cls(*columns)


class RunningStatistics:
    """Statistics of all rows seen so far.

    Means and sums of squares are merged block by block in float64 (Chan, Golub, LeVeque 1983, the pairwise update),
    which stays accurate where a plain sum of squares would cancel.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._mean: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0
        self._low: NDArray[Any] | float = np.inf
        self._high: NDArray[Any] | float = -np.inf

    def add(self, block: NDArray[Any]) -> None:
        """Takes a block (rows, C) into account."""
        if not len(block):
            return
        center = block.mean(0, dtype=np.float64)
        shift, total = center - self._mean, self._rows + len(block)
        self._squares = self._squares + ((block - center) ** 2).sum(0) + shift**2 * (self._rows * len(block) / total)
        self._mean = self._mean + shift * (len(block) / total)
        self._low, self._high = np.minimum(self._low, block.min(0)), np.maximum(self._high, block.max(0))
        self._rows = total

    def statistics(self) -> ChannelStatistics:
        """Of what was seen.

        Raises:
            DataError: there is not one row.
        """
        if not self._rows:
            raise DataError("there is not one step to learn from")
        columns = (self._low, self._high, self._mean, np.sqrt(self._squares / self._rows))
        return ChannelStatistics(*(np.asarray(column, np.float32) for column in columns))

    def state(self) -> NDArray[np.float64]:
        """All it holds, (5, C); of nothing, (5, 0)."""
        if not self._rows:
            return np.empty((5, 0))
        mean = np.asarray(self._mean)
        return np.stack([np.full(len(mean), float(self._rows)), mean, self._squares, self._low, self._high])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Goes back to where `state` was taken."""
        if state.shape[1]:
            self._rows = int(state[0, 0])
            _, self._mean, self._squares, self._low, self._high = state
