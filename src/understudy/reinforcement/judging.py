"""Judging: which of the candidates is deployed, by episodes that serve nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from understudy.agent import Agent
from understudy.episode import SUCCESS, UNKNOWN, Episode
from understudy.errors import ConfigError
from understudy.evaluate import agent_for
from understudy.policies import Policy


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that may be deployed.

    Args:
        which: `best` by its training batches, `last`, or the `average` of all.
        acts: `mean` or `sampled`.
        iteration: batches that it had learnt from.
        policy: itself.
    """

    which: str
    acts: str
    iteration: int
    policy: Policy

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.acts} of the {self.which} policy after batch {self.iteration}"

    def agent(self) -> Agent:
        """The agent that it will be deployed as."""
        return agent_for(self.policy)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which candidate is deployed, and what each did on the same starts.

    Args:
        which: `best`, `last`, `average`, or `start` where nothing was learnt.
        acts: `mean` or `sampled`.
        iteration: batches that it had learnt from.
        trials: of each candidate: `which`, `acts`, `iteration`, `success` (None where the world says nothing of it),
            `mean_return`, `episodes`.
        steps: of the world that the trials took.
        chosen: its place among the trials.
    """

    which: str
    acts: str
    iteration: int
    trials: tuple[Mapping[str, Any], ...]
    steps: int
    chosen: int = 0

    def __str__(self) -> str:
        if self.which == "start":
            return "the policy as it was given"
        of = {"best": "the best policy", "last": "the last policy", "average": "the averaged policies"}[self.which]
        kind = f"{of}, sampled," if self.acts == "sampled" else f"the mean of {of}"
        order = [self.chosen, *(place for place in range(len(self.trials)) if place != self.chosen)]
        told = [_told(self.trials[place]) for place in order] if self.trials else ["not tried"]
        return f"deployed {kind} after batch {self.iteration} ({'; '.join(told)})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """The verdict written by `to_json`.

        Raises:
            ConfigError: the value is not of that form.
        """
        try:
            return cls(**{**value, "trials": tuple(value["trials"])})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"this is no verdict of a fine-tuning: {error}") from error


def best_of(candidates: Sequence[Candidate], trials: Sequence[Sequence[Episode]]) -> Verdict:
    """The candidate with the most successes on the same starts, then the largest mean return, then the first.

    Args:
        candidates: at least one; the mean of the best policy is the first.
        trials: the episodes of each; nothing where none were run, and the first candidate is taken.
    """
    rows = [
        {
            "which": candidate.which,
            "acts": candidate.acts,
            "iteration": candidate.iteration,
            "success": success_rate(episodes),
            "mean_return": mean_return(episodes),
            "episodes": len(episodes),
        }
        for candidate, episodes in zip(candidates, trials, strict=False)
    ]
    scores = [(row["success"] or 0.0, row["mean_return"]) for row in rows]
    place = max(range(len(scores)), key=lambda index: (scores[index], -index)) if scores else 0
    chosen, steps = candidates[place], sum(len(episode) for episodes in trials for episode in episodes)
    return Verdict(chosen.which, chosen.acts, chosen.iteration, tuple(rows), steps, place)


def success_rate(episodes: Sequence[Episode]) -> float | None:
    """Share of the episodes that succeeded; None where the world says nothing of it."""
    if all(episode.success == UNKNOWN for episode in episodes):
        return None
    return sum(episode.success == SUCCESS for episode in episodes) / len(episodes)


def mean_return(episodes: Sequence[Episode]) -> float:
    """Mean sum of the rewards."""
    return float(np.mean([episode.rewards.sum(dtype=np.float64) for episode in episodes]))


def _told(row: Mapping[str, Any]) -> str:
    success = "" if row["success"] is None else f"success {row['success']:.2f}, "
    who = f"{row['acts']} of the {row['which']}, batch {row['iteration']}"
    return f"{who}: {success}return {row['mean_return']:.2f} of {row['episodes']}"
