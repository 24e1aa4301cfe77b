"""Why a policy fails: failures grouped by where they started, and by where they left the training range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from understudy.evaluate import Evaluation, Trial, wilson_interval
from understudy.spec import Spec

LEVEL = 0.05
SHUFFLES = 1999
_SHUFFLED_AT_ONCE = 1_000_000  # outcomes, which bounds the memory
_STARTS_FOR_THIRDS = 90
_SAME_CHANNEL = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A start channel along which success was compared.

    Args:
        name: of the channel.
        unit: of the channel.
        values: of all starts, (N,).
        edges: between the bins; bin k holds `edges[k - 1] <= value < edges[k]`.
        p_value: chance of a difference this large where the start does not matter (see `map_failures`); None where
            all starts ended alike.
    """

    name: str
    unit: str
    values: NDArray[np.float64]
    edges: tuple[float, ...]
    p_value: float | None

    @property
    def is_clear(self) -> bool:
        """Whether chance alone would hardly show a difference this large."""
        return self.p_value is not None and self.p_value < LEVEL

    @property
    def bins(self) -> NDArray[np.intp]:
        """Bin of each start, (N,)."""
        return np.searchsorted(self.edges, self.values, side="right")

    def label(self, index: int) -> str:
        """Bin `index` in words."""
        unit = f"\N{NO-BREAK SPACE}{self.unit}" if self.unit not in ("", "1") else ""
        if not self.edges:
            return "all"
        if index == 0:
            return f"below {self._number(self.edges[0])}{unit}"
        if index == len(self.edges):
            return f"{self._number(self.edges[-1])}{unit} and above"
        return f"{self._number(self.edges[index - 1])} to {self._number(self.edges[index])}{unit}"

    def _number(self, value: float) -> str:
        # As many digits as tell a tenth of the narrowest cell, so that neighbouring edges never read alike.
        low, *_, high = np.quantile(self.values, [0.25, 0.75])
        widths = [width for width in (*np.diff(self.edges), high - low, np.ptp(self.values)) if width > 0]
        digits = max(0, 1 - int(np.floor(np.log10(min(widths, default=1.0)))))
        text = f"{value:.{min(digits, 9)}f}" if 1e-6 < abs(value) < 1e6 or not value else f"{value:.3g}"
        return text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Leaving:
    """How a group of trials left the range of the training data.

    Args:
        trials: of the group.
        left: of these, how many left it.
        at_start: of these, how many began outside of it.
        median_step: at which those that left did so first; None where none left.
        channel: that most of them left it by.
        by_channel: how many left it by that channel.
    """

    trials: int
    left: int
    at_start: int
    median_step: float | None
    channel: str | None
    by_channel: int

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Leaving:
        """The summary of these trials."""
        steps = [trial.first_step_outside for trial in trials if trial.first_step_outside is not None]
        # Ties go to the channel that comes first in the alphabet, so that equal data give an equal report.
        channels = Counter(sorted(trial.channel_outside for trial in trials if trial.channel_outside))
        channel, count = channels.most_common(1)[0] if channels else (None, 0)
        median = float(np.median(steps)) if steps else None
        return cls(len(trials), len(steps), steps.count(0), median, channel, count)


@dataclass(frozen=True, slots=True)
class Cell:
    """Starts that lie in one bin of each axis.

    Args:
        place: bin on each axis.
        starts: in the cell.
        successes: of these.
        failures: how the others left the training range.
    """

    place: tuple[int, ...]
    starts: int
    successes: int
    failures: Leaving

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the success rate (Wilson)."""
        return wilson_interval(self.successes, self.starts)


@dataclass(frozen=True, slots=True, eq=False)
class FailureMap:
    """Success by start.

    Args:
        axes: up to two start channels, the one along which success differs most first.
        cells: that hold starts, in the order of the axes' bins.
        searched: start channels that vary, all of which were compared.
        success: of each start, (N,).
        failures: how the failures left the training range.
        successes: the same of the successes.
    """

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    searched: int
    success: NDArray[np.bool_]
    failures: Leaving
    successes: Leaving

    @property
    def clear(self) -> tuple[Axis, ...]:
        """The axes along which success differs by more than chance would show."""
        return tuple(axis for axis in self.axes if axis.is_clear)


def map_failures(evaluation: Evaluation, spec: Spec | None = None) -> FailureMap | None:
    """Groups the starts of an evaluation along the start channels that tell failures from successes best.

    Each channel that varies is cut into bins with equal numbers of starts, and success in the bins is compared by
    sum_b (s_b - n_b p)^2 / n_b, which is Pearson's chi-square up to a constant (s_b successes of n_b starts in bin b,
    p the success rate of all). The best of many channels looks good by chance alone, so each is judged against the
    largest value over all channels when the outcomes are shuffled: a permutation test with the max-T correction
    (Westfall and Young 1993), p = (1 + shuffles at least as large) / (1 + shuffles).

    Args:
        evaluation: what happened from each start.
        spec: of the world, for the names of its channels.

    Returns:
        The map, or None where no trial says whether it succeeded.
    """
    trials = [trial for trial in evaluation.trials if trial.success is not None]
    if not trials:
        return None
    success = np.array([bool(trial.success) for trial in trials])  # (N,)
    axes, searched = _axes(trials, success, spec)
    return FailureMap(
        axes,
        _cells(axes, trials),
        searched,
        success,
        Leaving.of([trial for trial in trials if not trial.success]),
        Leaving.of([trial for trial in trials if trial.success]),
    )


def _axes(trials: Sequence[Trial], success: NDArray[np.bool_], spec: Spec | None) -> tuple[tuple[Axis, ...], int]:
    starts = _starts(trials)  # (N, D)
    size = np.abs(starts).max(0, initial=1e-9)
    varying = np.flatnonzero(np.ptp(starts, axis=0) > 1e-6 * size)
    if not len(varying):
        return (), 0
    parts = 3 if len(trials) >= _STARTS_FOR_THIRDS else 2
    edges = [_edges(starts[:, channel], parts) for channel in varying]
    scores, p_values = _compare(
        [np.searchsorted(edge, starts[:, channel], side="right") for edge, channel in zip(edges, varying, strict=True)],
        success,
    )
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        # A second channel that moves with the first (a cube and what it stands on) would show the same picture twice.
        if not chosen or _rank_correlation(starts[:, varying[chosen[0]]], starts[:, varying[index]]) < _SAME_CHANNEL:
            chosen.append(int(index))
        if len(chosen) == 2:
            break
    axes = tuple(
        Axis(
            *_name(spec, int(varying[index]), starts.shape[1]),
            starts[:, varying[index]],
            edges[index],
            None if p_values is None else float(p_values[index]),
        )
        for index in chosen
    )
    return axes, len(varying)


def _starts(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Start of each trial, (N, D); without channels where trials disagree about D or hold what is no number."""
    if len({len(trial.start) for trial in trials}) != 1:
        return np.empty((len(trials), 0))
    starts = np.array([trial.start for trial in trials], np.float64).reshape(len(trials), -1)
    return starts if np.isfinite(starts).all() else np.empty((len(trials), 0))


def _edges(values: NDArray[np.float64], parts: int) -> tuple[float, ...]:
    # Edges are values that occur, and above the smallest, so no bin is empty even where few values are taken.
    quantiles = np.quantile(values, np.arange(1, parts) / parts, method="higher")
    edges = tuple(float(edge) for edge in np.unique(quantiles) if edge > values.min())
    return edges or (float(values[values > values.min()].min()),)


def _compare(
    bins: Sequence[NDArray[np.intp]], success: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Score (C,) of each channel, and its corrected p-value (C,), None where all starts ended alike."""
    belongs = [channel_bins[:, None] == np.arange(channel_bins.max() + 1) for channel_bins in bins]
    membership = np.concatenate(belongs, 1).astype(np.float64)  # (N, bins of all channels)
    first_bins = np.cumsum([0, *(part.shape[1] for part in belongs[:-1])])
    counts = membership.sum(0)

    def scores(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        terms = (outcomes @ membership - counts * success.mean()) ** 2 / counts  # (shuffles, bins)
        return np.add.reduceat(terms, first_bins, axis=1)  # (shuffles, C)

    observed = scores(success[None].astype(np.float64))[0]
    if success.all() or not success.any():
        return observed, None
    generator = np.random.default_rng(0)
    at_once = max(1, _SHUFFLED_AT_ONCE // len(success))
    largest = np.concatenate(  # (shuffles,)
        [
            scores(generator.permuted(np.tile(success.astype(np.float64), (count, 1)), axis=1)).max(1)
            for count in (min(at_once, SHUFFLES - done) for done in range(0, SHUFFLES, at_once))
        ]
    )
    at_least = (largest[:, None] >= observed - 1e-9).sum(0)  # (C,)
    return observed, (1 + at_least) / (1 + SHUFFLES)


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    ranks = [np.unique(values, return_inverse=True)[1].astype(np.float64) for values in (one, other)]
    return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _name(spec: Spec | None, channel: int, size: int) -> tuple[str, str]:
    if spec is None or len(spec.observations) != size or not spec.observations[channel].name:
        return f"observation[{channel}]", ""
    return spec.observations[channel].name, spec.observations[channel].unit


def _cells(axes: Sequence[Axis], trials: Sequence[Trial]) -> tuple[Cell, ...]:
    bins = [axis.bins for axis in axes]
    cells = []
    for place in product(*(range(len(axis.edges) + 1) for axis in axes)):
        inside = np.all([axis_bins == index for axis_bins, index in zip(bins, place, strict=True)], 0)
        group = [
            trial for trial, is_inside in zip(trials, np.broadcast_to(inside, len(trials)), strict=True) if is_inside
        ]
        if group:
            failures = [trial for trial in group if not trial.success]
            cells.append(Cell(place, len(group), len(group) - len(failures), Leaving.of(failures)))
    return tuple(cells)
