"""What the checks see, and what they find. docs/defects.md is the list of defects as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.index import Row
from understudy.dataset.look import Floats, Look
from understudy.spec import Spec

Severity = Literal["error", "warning"]
DISCRETE = 16  # a channel with so few values is a switch

# id -> what is wrong; the test of each id, in all its variants, is a row of docs/defects.md
DEFECTS: dict[str, str] = {
    "unreadable": "the manifest or the index is damaged, or there is no dataset",
    "corrupt-file": "an episode file is missing, or not what was saved",
    "not-finite": "a file holds NaN or infinity",
    "wrong-shape": "a file has other channels than the rest, or arrays that do not fit together",
    "dead-channel": "a channel never changes, in any episode, or as good as never beside its value",
    "frozen-sensor": "readings stand still while the actions go on",
    "action-lag": "actions are shifted in time against the motion that is seen",
    "clipped-actions": "actions beyond the limits, or at a limit most of the time",
    "duplicate-episode": "two episodes are the same recording",
    "time-gaps": "a paced recording stalled",
    "wrong-rate": "the measured rate is not the stated one, or differs between episodes",
    "non-monotonic-time": "time stands still or runs backwards",
    "short-episode": "an episode is far shorter than the rest",
    "long-episode": "an episode is far longer than the rest",
    "reward-missing": "no reward is recorded anywhere",
    "success-unknown": "nobody said whether the episodes succeeded",
    "no-success": "no episode succeeded",
    "jump": "a channel teleports for a step",
    "unit-mismatch": "a channel of some episodes is in another unit",
    "idle-stretch": "the robot does nothing for a long time at the start or end",
    "contradictory-labels": "nearly the same observation carries very different actions",
    "missing-final-observation": "the last observation is only a copy of the one before",
    "few-episodes": "too few episodes to learn and to measure from",
    "partial-present": "recordings that were interrupted are in the folder",
}


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong with a dataset.

    Args:
        id: its class, a key of DEFECTS.
        severity: `error` where training would go wrong, `warning` where a person should look.
        message: one line: what, in which episode and channel, and what to do.
        episodes: ids of the episodes it is in; empty for the dataset as a whole.
        channel: the channel, where it is one.
        steps: the steps, where they are known.
    """

    id: str
    severity: Severity
    message: str
    episodes: tuple[int, ...] = ()
    channel: str = ""
    steps: tuple[int, ...] = ()


@dataclass(slots=True)
class Findings:
    """All that the checks see.

    Args:
        spec: of the dataset.
        looks: one for each episode that could be read.
        driven: (D,) how strongly the actions move each observation channel, see `LagTracker`.
        lag_curves: see `LagTracker.finish`.
        partial: rows of interrupted recordings.
    """

    spec: Spec
    looks: list[Look]
    driven: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    lag_curves: Sequence[NDArray[np.float64]] = ()
    partial: list[Row] = field(default_factory=list)

    def channel(self, index: int) -> str:
        """The name of a channel, observations first, then actions."""
        size = len(self.spec.observations)
        kind, place = ("observation", index) if index < size else ("action", index - size)
        channel = self.spec.observations[index] if index < size else self.spec.actions[place]
        return f"{kind} channel {place}" + (f" ({channel.name})" if channel.name else "")

    def column(self, name: str) -> Floats:
        """One number of each channel of each episode, (episodes, channels)."""
        return np.stack([getattr(look, name) for look in self.looks])

    def period_s(self) -> float | None:
        """The control period of recordings that were paced; None where they ran free, or nobody measured.

        Where no rate is stated, a recording counts as paced that is regular (deviation below a tenth) and not faster
        than 200 Hz.
        """
        steps = np.concatenate([look.dt for look in self.looks]) if self.looks else np.zeros(0)
        if len(steps) < 10:
            return None
        usual = float(np.median(steps))
        if self.spec.control_hz:
            period = 1.0 / self.spec.control_hz
            return period if abs(usual - period) < 0.1 * period else None
        regular = float(np.median(np.abs(steps - usual))) < 0.1 * usual
        return usual if regular and usual >= 0.005 else None


Check = Callable[[Findings], Iterator[Defect]]


def listed(values: NDArray[np.int64]) -> str:
    """The first numbers in words, and how many more there are."""
    shown = ", ".join(str(int(value)) for value in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
