"""What the training data looked like, channel by channel: the numbers a policy scales with and compares against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError

_FIELDS = ("minimum", "maximum", "mean", "deviation")
_DEAD_RELATIVE = 1e-5
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

        Means and sums of squares are merged block by block in float64 (Chan, Golub, LeVeque 1983, the pairwise
        update), which stays accurate where a plain sum of squares would cancel.

        Raises:
            DataError: there is not one row.
        """
        rows, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
        for block in blocks:
            if not len(block):
                continue
            center = block.mean(0, dtype=np.float64)
            shift, total = center - mean, rows + len(block)
            squares = squares + ((block - center) ** 2).sum(0) + shift**2 * (rows * len(block) / total)
            mean = mean + shift * (len(block) / total)
            low, high, rows = np.minimum(low, block.min(0)), np.maximum(high, block.max(0)), total
        if not rows:
            raise DataError("there is not one step to learn from")
        return cls(*(np.asarray(column, np.float32) for column in (low, high, mean, np.sqrt(squares / rows))))

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) what to divide by after centring: the deviation, or 1 for a dead channel.

        Dividing a constant by its own rounding noise would turn the first small change after training into a huge
        input, so a dead channel is centred and left in its unit.
        """
        dead = self.deviation <= _DEAD_RELATIVE * np.maximum(np.abs(self.mean), 1e-3)
        return np.where(dead, np.float32(1), self.deviation)

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
