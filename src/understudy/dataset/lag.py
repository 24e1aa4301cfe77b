"""By how many steps the motion that is seen follows the actions that are recorded, episode by episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.episode import Episode

Floats = NDArray[np.float64]
LAGS = np.arange(-12, 17)
_SHIFTS = range(-9, 13)
_CLEAR = 0.1
_PAIRS = 12
_LEARN_FROM = 64
_SHORTEST, _LONGEST = 40, 20_000  # steps
_MOST_PAIRS = 8192
_MOST_NUMBERS = 2**21  # of one episode's observations, or actions
_FEW = 64


class LagTracker:
    """Correlates changes of observations with actions at every lag in LAGS.

    Which action moves which channel is learnt from the first 64 episodes; after that only those pairs are followed.
    Where channels make more than 8192 pairs (pictures do), only those that move most are correlated, so that memory
    does not grow with them.
    """

    def __init__(self) -> None:
        self._learning: list[NDArray[np.float32]] = []
        self._sum = np.zeros(0, np.float32)  # (lags, pairs) of all that is in _learning
        self._curves: list[Floats] = []
        self._seen = np.zeros(0, np.int64)  # the observation channels that are correlated
        self._asked = np.zeros(0, np.int64)
        self._size = 0
        self._pairs: NDArray[np.int64] | None = None
        self._weight = np.zeros(0)
        self.driven = np.zeros(0)  # (D,) the strongest correlation of each observation channel with any action

    def add(self, episode: Episode) -> None:
        """Looks at one more episode."""
        if self._pairs is None and not self._sum.any():  # an episode that is too short chooses nothing
            self._size = episode.observations.shape[1]
            self._seen, self._asked = _liveliest(episode)
        correlations = _correlations(episode.observations[:, self._seen], episode.actions[:, self._asked])
        if self._pairs is not None:
            self._curves.append(self._curve(correlations))
            return
        self._sum = self._sum + correlations if self._learning else correlations
        self._learning.append(correlations)
        if len(self._learning) == _LEARN_FROM:
            self._learn()

    def finish(self) -> list[Floats]:
        """One curve (lags,) for each episode, over LAGS: the weighted mean correlation of the followed pairs."""
        if self._pairs is None and self._learning:
            self._learn()
        return self._curves

    def _learn(self) -> None:
        # (lags, pairs): pairs that are correlated in the same way, at some lag, in most episodes
        mean = self._sum / np.float32(len(self._learning))
        strength = np.abs(mean).max(axis=0)
        self.driven = np.zeros(self._size)
        self.driven[self._seen] = strength.reshape(len(self._seen), -1).max(axis=1)
        self._pairs = np.argsort(-strength)[:_PAIRS]
        best = mean[np.abs(mean[:, self._pairs]).argmax(axis=0), self._pairs]
        # The weights of a matched filter: a pair counts as much as it says.
        self._weight = best * np.abs(best) / max(float((best**2).sum()), 1e-12)
        self._curves = [self._curve(item) for item in self._learning]
        self._learning = []

    def _curve(self, correlations: NDArray[np.float32]) -> Floats:
        assert self._pairs is not None
        return np.asarray(correlations[:, self._pairs] @ self._weight, np.float64)


def lag_outliers(curves: Sequence[Floats]) -> tuple[int | None, dict[int, int]]:
    """The usual lag in steps (None where motion does not follow actions clearly), and episodes that differ from it.

    An episode differs by s steps where the usual curve fits its own clearly better when it is moved by s. Comparing
    whole curves, and not only their peaks, keeps feedback (an action that answers what was just seen) from being
    taken for a shift.

    Returns:
        The usual lag, and for each episode that differs (by its position) by how many steps more motion follows.
    """
    if not curves:
        return None, {}
    table = np.stack(curves)  # (episodes, lags)
    # A clear peak stands far above what the other lags scatter.
    scatter = np.median(np.abs(table - np.median(table, axis=1, keepdims=True)), axis=1)
    clear = table.max(axis=1) > np.maximum(_CLEAR, 8 * scatter)
    if clear.sum() < max(3, 0.5 * len(table)):
        return None, {}
    usual = np.median(table[clear], axis=0)
    outliers = {}
    for place in np.flatnonzero(clear):
        fits = np.array([_fit(table[place], usual, shift) for shift in _SHIFTS])
        best = int(fits.argmax())
        if fits[best] > 0.6 and fits[best] - fits[_SHIFTS.index(0)] > 0.4:
            outliers[int(place)] = _SHIFTS[best]
    return int(LAGS[int(usual.argmax())]), outliers


def _fit(curve: Floats, usual: Floats, shift: int) -> float:
    """Correlation of a curve with the usual one, moved by `shift` lags."""
    size = len(curve) - abs(shift)
    one = curve[max(0, shift) :][:size]
    two = usual[max(0, -shift) :][:size]
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(usual) + 1e-9))


def _liveliest(episode: Episode) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The observation and the action channels that are correlated: all, or those that change in most steps.

    Neither kind leaves the other fewer than 64 channels.
    """
    size, asked = episode.observations.shape[1], episode.actions.shape[1]
    actions = min(asked, max(_FEW, _MOST_PAIRS // size))
    observations = min(size, _MOST_PAIRS // actions)
    return _changing_most(episode.observations, observations), _changing_most(episode.actions, actions)


def _changing_most(columns: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    if count == columns.shape[1]:
        return np.arange(count)
    changes = (columns[1:] != columns[:-1]).sum(axis=0)
    return np.sort(np.argsort(-changes, kind="stable")[:count])


def _correlations(observations: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """(lags, D * A) correlation of what is new in the changes of observations and of actions.

    Both are whitened first (Box, Jenkins: Time Series Analysis, on identifying transfer functions): smooth motion is
    correlated with itself over many steps and would be with the actions, too, at any lag.
    """
    result = np.zeros((len(LAGS), observations.shape[1] * actions.shape[1]), np.float32)
    steps = min(len(actions), _LONGEST, _MOST_NUMBERS // max(observations.shape[1], actions.shape[1]))
    if steps < _SHORTEST:
        return result
    wanted = actions[:steps].astype(np.float64)
    seen = _innovations(np.diff(observations[: steps + 1].astype(np.float64), axis=0))  # (T, D)
    asked = _innovations(np.diff(wanted, axis=0, prepend=wanted[:1]))  # (T, A)
    for place, lag in enumerate(LAGS.tolist()):
        first, last = max(0, -lag), min(steps, steps - lag)
        result[place] = (seen[first + lag : last + lag].T @ asked[first:last]).reshape(-1) / steps
    return result


def _innovations(column: Floats) -> Floats:
    """Standardised residuals (T, channels) of a regression of each channel on its own last two values."""
    column = column - column.mean(axis=0)
    now, one, two = column[2:], column[1:-1], column[:-2]
    oo, tt, ot = (one * one).sum(axis=0), (two * two).sum(axis=0), (one * two).sum(axis=0)
    on, tn = (one * now).sum(axis=0), (two * now).sum(axis=0)
    # The small share keeps a channel whose two last values are proportional from dividing by zero.
    determinant = oo * tt * (1 + 1e-9) - ot**2
    safe = np.where(determinant > 1e-30, determinant, np.inf)
    residual = now - one * (on * tt - tn * ot) / safe - two * (tn * oo - on * ot) / safe
    deviation = residual.std(axis=0)
    # Nothing new in a channel (its motion is constant, or rounding) is no evidence; nor is one huge step.
    floor = 1e-6 * np.abs(column).max(axis=0) + 1e-9
    result = np.zeros_like(column)
    result[2:] = np.clip(residual / np.where(deviation > floor, deviation, np.inf), -4, 4)
    return result
