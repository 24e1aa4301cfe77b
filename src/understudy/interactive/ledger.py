"""The ledger: what the expert's time cost and what it bought, computed from the recorded episodes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.episode import SUCCESS, UNKNOWN, Episode
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
        attended: steps at which the expert was asked or drove.
        judged: episodes of which it is known whether they succeeded.
    """

    episodes: int
    steps: int
    labels: int
    expert_steps: int
    interventions: int
    context_switches: int
    expert_seconds: float
    successes: int
    attended: int
    judged: int

    @property
    def success_with_help(self) -> float | None:
        """Share of the judged episodes that succeeded; None where nobody judged one."""
        return self.successes / self.judged if self.judged else None

    @property
    def intervention_rate(self) -> float:
        """Interventions for each step that the policy drove."""
        return self.interventions / max(1, self.steps - self.expert_steps)

    def __add__(self, other: Entry) -> Entry:
        return Entry(**{key: value + getattr(other, key) for key, value in asdict(self).items()})

    def __str__(self) -> str:
        unknown = self.attended and not self.expert_seconds
        unjudged = f", {self.episodes - self.judged} are not judged" if self.judged < self.episodes else ""
        succeeded = f"{self.successes} of {self.judged} episodes succeeded with help{unjudged}"
        return (
            f"{self.labels} labels, {self.expert_steps} of {self.steps} steps driven by the expert, "
            f"{self.interventions} takeovers, {'an unknown time' if unknown else f'{self.expert_seconds:.0f} s'} of "
            f"the expert; {succeeded if self.judged else 'nobody knows which episodes succeeded'}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


NOTHING = Entry(0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0)


def total_of(rows: Iterable[Mapping[str, Any]]) -> Entry:
    """What the expert did in all rounds whose rows a run's metrics hold, the demonstrations included.

    In runs that did not count `attended` and `judged` yet, the labels stand for the one and all episodes for the other.

    Raises:
        ConfigError: a row is no entry of a ledger.
    """
    names = [field.name for field in fields(Entry)]
    try:
        whole = ({"attended": row["labels"], "judged": row["episodes"], **row} for row in rows)
        return sum((Entry(**{name: row[name] for name in names}) for row in whole), NOTHING)
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
        attended = int((episode.labelled | expert).sum())
        total += Entry(
            episodes=1,
            steps=len(episode),
            labels=int(episode.labelled.sum()),
            expert_steps=int(expert.sum()),
            interventions=int(takeovers(episode).sum()),
            context_switches=int((np.diff(expert, prepend=False) != 0).sum()),
            expert_seconds=attended / control_hz if control_hz else 0.0,
            successes=int(episode.success == SUCCESS),
            attended=attended,
            judged=int(episode.success != UNKNOWN),
        )
    return total


def takeovers(episode: Episode) -> NDArray[np.bool_]:
    """Where the expert takes over from the policy, (T,); the policy is who drives before the first step."""
    expert = episode.driver == Driver.EXPERT
    before = np.concatenate([[False], expert[:-1]])
    result: NDArray[np.bool_] = expert & ~before
    return result
