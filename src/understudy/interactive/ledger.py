"""The ledger: what the expert's time cost and what it bought, computed from the recorded episodes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.episode import SUCCESS, Episode
from understudy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """One round of a ledger, or several added.

    Args:
        episodes, steps: collected.
        labels: steps at which the expert was asked, whoever drove.
        expert_steps: steps that the expert drove.
        interventions: takeovers, each from a step of the policy (or the start) to a step of the expert.
        context_switches: changes of the driver in either direction; the policy is who drives before the start.
        expert_seconds: time of the steps at which the expert was asked or drove, at the control rate; 0 where nobody
            knows the rate.
        successes: episodes that succeeded, with the expert's help.
    """

    episodes: int
    steps: int
    labels: int
    expert_steps: int
    interventions: int
    context_switches: int
    expert_seconds: float
    successes: int

    @property
    def success_with_help(self) -> float:
        """Share of the collected episodes that succeeded."""
        return self.successes / self.episodes if self.episodes else 0.0

    @property
    def intervention_rate(self) -> float:
        """Interventions for each step that the policy drove."""
        return self.interventions / max(1, self.steps - self.expert_steps)

    def __add__(self, other: Entry) -> Entry:
        return Entry(**{key: value + getattr(other, key) for key, value in asdict(self).items()})

    def __str__(self) -> str:
        unknown = self.labels and not self.expert_seconds
        return (
            f"{self.labels} labels, {self.expert_steps} of {self.steps} steps driven by the expert, "
            f"{self.interventions} takeovers, {'an unknown time' if unknown else f'{self.expert_seconds:.0f} s'} of "
            "the expert; "
            f"{self.successes} of {self.episodes} episodes succeeded with help"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


NOTHING = Entry(0, 0, 0, 0, 0, 0, 0.0, 0)


def total_of(rows: Iterable[Mapping[str, Any]]) -> Entry:
    """What the expert did in all rounds whose rows a run's metrics hold, the demonstrations included.

    Raises:
        ConfigError: a row is no entry of a ledger.
    """
    names = [field.name for field in fields(Entry)]
    try:
        return sum((Entry(**{name: row[name] for name in names}) for row in rows), NOTHING)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"metrics.jsonl holds no ledger ({error}); give a run of `understudy dagger`") from error


def entry_of(episodes: Iterable[Episode], control_hz: float) -> Entry:
    """What the expert did in these episodes.

    Args:
        episodes: of one round, or of several.
        control_hz: control steps per second; 0 where nobody knows, and then the time is 0 too.
    """
    total = NOTHING
    for episode in episodes:
        expert = episode.driver == Driver.EXPERT
        total += Entry(
            episodes=1,
            steps=len(episode),
            labels=int(episode.labelled.sum()),
            expert_steps=int(expert.sum()),
            interventions=int(takeovers(episode).sum()),
            context_switches=int((np.diff(expert, prepend=False) != 0).sum()),
            expert_seconds=float((episode.labelled | expert).sum()) / control_hz if control_hz else 0.0,
            successes=int(episode.success == SUCCESS),
        )
    return total


def takeovers(episode: Episode) -> NDArray[np.bool_]:
    """Where the expert takes over from the policy, (T,); the policy is who drives before the first step."""
    expert = episode.driver == Driver.EXPERT
    before = np.concatenate([[False], expert[:-1]])
    result: NDArray[np.bool_] = expert & ~before
    return result
