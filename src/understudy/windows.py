"""Training windows: every (history of observations, chunk of targets) of a dataset, gathered a batch at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.dataset import Dataset
from understudy.errors import DataError
from understudy.policies.base import Batch
from understudy.statistics import ChannelStatistics

_PACE_STEPS = 8
_PACE_ROWS = 100_000
_LEAD_DEVIATIONS = 0.05
_LARGEST_LEAD, _LARGEST_SHARE = 10, 0.1  # steps, and of an episode


class Windows:
    """The steps of a dataset in one block of memory, and an index that cuts windows out of it.

    A window at step t holds the observations t - history + 1 ... t, the first one of the episode standing in for
    those before it, and the targets t + lead ... t + lead + horizon - 1. Targets beyond the episode's end, and steps
    that nobody advised on, weigh nothing.

    Args:
        dataset: its episodes are read once.
        history, horizon: lengths of the windows.
        lead: steps from the newest observation to the first target; `natural_lead` where not given.
        clip: cut targets to the limits of the action channels, as the world would have done.
        device: where the block lies.

    Raises:
        DataError: no step of the dataset may be trained on, or a number in it is not finite.
    """

    def __init__(
        self,
        dataset: Dataset,
        history: int,
        horizon: int,
        *,
        lead: int | None = 0,
        clip: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        spec, size = dataset.spec, dataset.steps
        observations = np.empty((size, len(spec.observations)), np.float32)
        targets = np.empty((size, len(spec.actions)), np.float32)
        valid = np.empty(size, bool)
        first, last = np.empty(size, np.int32), np.empty(size, np.int32)
        begin = 0
        for episode in dataset:
            rows = slice(begin, begin + len(episode))
            observations[rows] = episode.observations[:-1]
            targets[rows], valid[rows] = episode.targets()
            first[rows], last[rows] = rows.start, rows.stop - 1
            begin = rows.stop
        if clip:
            np.clip(targets, spec.action_low, spec.action_high, out=targets)
        if not valid.any():
            raise DataError(
                "no step can be trained on: the expert neither drove nor labelled any; record or label some"
            )
        if not (np.isfinite(observations).all() and np.isfinite(targets[valid]).all()):
            raise DataError("the dataset holds numbers that are not finite; `understudy inspect` says where")
        self.lead = lead if lead is not None else natural_lead(targets, valid, last)
        self._boundaries = np.flatnonzero(np.arange(size) == first)
        self.observations = torch.from_numpy(observations).to(device)  # (N, D)
        self.targets = torch.from_numpy(targets).to(device)  # (N, A)
        self._valid = torch.from_numpy(valid).to(device)
        self._first, self._last = torch.from_numpy(first).to(device), torch.from_numpy(last).to(device)
        self._past = torch.arange(1 - history, 1, dtype=torch.int32, device=device)
        self._future = torch.arange(self.lead, self.lead + horizon, dtype=torch.int32, device=device)
        # A window starts where its first target lies in the same episode and may be trained on.
        first_target = np.arange(size, dtype=np.int32) + self.lead
        starts = np.flatnonzero((first_target <= last) & valid[np.minimum(first_target, last)])
        if not len(starts):
            raise DataError(f"no episode is longer than the lead of {self.lead} steps; choose a smaller lead")
        self._starts = torch.from_numpy(starts.astype(np.int32)).to(device)

    def __len__(self) -> int:
        """Windows: steps whose first target may be trained on."""
        return len(self._starts)

    def batch(self, indices: Tensor) -> Batch:
        """The windows numbered `indices` (B,), each below `len(self)`."""
        rows = self._starts.index_select(0, indices)[:, None]  # (B, 1)
        first, last = (
            self._first.index_select(0, rows[:, 0])[:, None],
            self._last.index_select(0, rows[:, 0])[:, None],
        )
        past = torch.maximum(rows + self._past, first)  # (B, history)
        future = rows + self._future  # (B, horizon)
        inside = torch.minimum(future, last)
        weight = (future <= last) & self._valid.index_select(0, inside.flatten()).view_as(inside)
        return Batch(
            self.observations.index_select(0, past.flatten()).unflatten(0, past.shape),
            self.targets.index_select(0, inside.flatten()).unflatten(0, inside.shape),
            weight.to(self.targets.dtype),
        )

    def statistics(self) -> tuple[ChannelStatistics, ChannelStatistics]:
        """Of the observations and of the targets that may be trained on, (D,) and (A,) channels."""
        observations, targets, valid = (
            tensor.cpu().numpy() for tensor in (self.observations, self.targets, self._valid)
        )
        episodes = np.split(np.arange(len(valid)), self._boundaries[1:])
        rows = [slice(episode[0], episode[-1] + 1) for episode in episodes]
        return (
            ChannelStatistics.of(observations[part] for part in rows),
            ChannelStatistics.of(targets[part][valid[part]] for part in rows),
        )


def natural_lead(targets: NDArray[np.float32], valid: NDArray[np.bool_], last: NDArray[np.int32]) -> int:
    """Steps in which the demonstrated actions typically move by a twentieth of their deviation.

    A person answers what was seen some time ago, and a clone is later still where it hesitates, so it helps to aim a
    little ahead; but only as far as the action hardly changes, which depends on the pace of the task and on the
    control rate. The pace is taken from the actions alone: with d(k) the mean absolute change over k steps in
    deviations of each channel, it is (d(8) - d(1)) / 7 a step. The difference takes out the jitter of single steps,
    which is in every d(k) alike. The twentieth is our own choice; docs/methods/bc.md has its measurements.

    Args:
        targets: (N, A) all steps, episode after episode.
        valid: (N,) where they may be trained on.
        last: (N,) index of the last step of each step's episode.

    Returns:
        0 to 10 steps, and no more than a tenth of the median episode: where the lead begins nothing is learnt.
    """
    stride = -(-len(targets) // _PACE_ROWS)  # so many rows tell the pace of any dataset
    seen = ChannelStatistics.of([targets[::stride][valid[::stride]]]) if valid[::stride].any() else None
    if seen is None or seen.dead.all():
        return 0
    alive, deviation = ~seen.dead, seen.deviation

    def change(steps: int) -> float:
        rows = np.arange(0, len(targets) - steps, stride)
        rows = rows[(rows + steps <= last[rows]) & valid[rows] & valid[rows + steps]]
        if not len(rows):
            return math.nan
        return float(np.mean(np.abs(targets[rows + steps] - targets[rows])[:, alive] / deviation[alive]))

    pace = (change(_PACE_STEPS) - change(1)) / (_PACE_STEPS - 1)
    lengths = np.unique(last, return_counts=True)[1]
    longest = min(_LARGEST_LEAD, int(np.median(lengths) * _LARGEST_SHARE))
    return min(longest, int(_LEAD_DEVIATIONS / pace)) if pace > 0 else 0
