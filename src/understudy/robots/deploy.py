"""Running a policy on a robot: every run an episode in a dataset, and an account of what gate and guard did."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from understudy.agent import Agent, Expert
from understudy.dataset.index import Row
from understudy.dataset.journal import Journal
from understudy.dataset.store import Dataset
from understudy.episode import UNKNOWN, Episode
from understudy.errors import SpecMismatch, UnderstudyError
from understudy.evaluate import agent_for
from understudy.inference import Predictor
from understudy.robots.env import RobotEnv
from understudy.robots.novelty import Novelty, WatchedAgent
from understudy.robots.safety import Kind
from understudy.rollout import Observer, rollout
from understudy.spec import Spec, spec_of


@dataclass(frozen=True, slots=True)
class Deployed:
    """One run on a robot.

    Args:
        episode: what happened.
        row: of the dataset; None where nothing was recorded.
        stopped: why the robot was stopped; empty where it was not.
        ticks: control steps.
        overruns: deadlines that were missed.
        worst_lateness_s: of them.
        rate_hz: steps a second, measured.
        counts: interventions of gate and guard in this run.
        oldest_s: age of the oldest observation that a command was sent for.
        novelty: largest of the run, 1 is the limit; None where it was not measured.
        helped: how often the expert was called.
    """

    episode: Episode
    row: Row | None
    stopped: str
    ticks: int
    overruns: int
    worst_lateness_s: float
    rate_hz: float
    counts: dict[Kind, int]
    oldest_s: float
    novelty: float | None
    helped: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the episode's columns."""
        return {
            "id": None if self.row is None else self.row.id,
            "seed": self.episode.seed,
            "success": self.episode.success,
            "stopped": self.stopped,
            "ticks": self.ticks,
            "overruns": self.overruns,
            "worst_lateness_s": self.worst_lateness_s,
            "rate_hz": None if math.isnan(self.rate_hz) else self.rate_hz,
            "interventions": {str(kind): count for kind, count in self.counts.items()},
            "oldest_action_s": self.oldest_s,
            "novelty": self.novelty,
            "helped": self.helped,
        }

    def __str__(self) -> str:
        verdict = {1: "success", 0: "no success", UNKNOWN: "unjudged"}[self.episode.success]
        parts = [
            f"{verdict} in {self.ticks} steps at {self.rate_hz:.1f} Hz",
            f"{self.overruns} deadlines missed (worst by {self.worst_lateness_s * 1e3:.0f} ms)",
            f"oldest action {self.oldest_s * 1e3:.0f} ms",
            "gate: " + (", ".join(f"{kind} {count}" for kind, count in self.counts.items()) or "nothing to do"),
        ]
        if self.novelty is not None:
            parts.append(f"novelty up to {self.novelty:.2f}")
        if self.helped:
            parts.append(f"the expert helped {self.helped} times")
        if self.stopped:
            parts.append(f"STOPPED: {self.stopped}")
        return "; ".join(parts)


def deploy(
    env: RobotEnv,
    policy: Predictor,
    dataset: Dataset | None = None,
    *,
    seeds: Iterable[int],
    max_steps: int | None = None,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    novelty: Novelty | None = None,
    expert: Expert | None = None,
    observers: Iterable[Observer] = (),
    verdict: Callable[[Episode], int] | None = None,
) -> Iterator[Deployed]:
    """Runs a policy on a robot, once for each seed, and ends when the robot was stopped, in a run or after it.

    Args:
        env: the robot.
        policy: what acts; its channels are named, and they are the robot's.
        dataset: where every run goes, failures included; nothing is recorded where None.
        seeds: one for each run; a simulated robot draws its start from it.
        max_steps: of a run.
        execute: as in `PolicyAgent`.
        ensemble_decay: as in `PolicyAgent`.
        novelty: how strange observations are; not measured where None.
        expert: who is asked for help where an observation is too strange.
        observers: look at every step, after the journal.
        verdict: says of a run that nobody has judged whether it succeeded (1, 0, or -1 for unknown).

    Yields:
        Each run, once its episode is durable.

    Raises:
        SpecMismatch: channels without names, or others than the robot's.
        RobotError: the robot cannot be reached, or is stopped before a run begins.
    """
    require_fit(policy.spec, spec_of(env), what="the policy")
    if dataset is not None:
        dataset.require_same_task(spec_of(env), what="the robot")
    agent: Agent = agent_for(policy, execute=execute, ensemble_decay=ensemble_decay)
    watched = None if novelty is None else WatchedAgent(agent, novelty, env, expert)
    looking = tuple(observers)
    for seed in seeds:
        before = dict(env.counts)
        helped = watched.asked_for_help if watched else 0
        episode, row = _recorded(env, watched or agent, dataset, seed, max_steps, looking, verdict)
        steps_s = episode.time_s[-1] - episode.time_s[0]
        counts = {kind: count - before.get(kind, 0) for kind, count in env.counts.items()}
        yield Deployed(
            episode,
            row,
            env.stopped,
            env.ticks,
            env.overruns,
            env.worst_lateness_s,
            (len(episode) - 1) / steps_s if steps_s > 0 else math.nan,
            {kind: count for kind, count in counts.items() if count},
            env.seen.oldest_s,
            watched.largest if watched else None,
            (watched.asked_for_help if watched else 0) - helped,
        )
        env.rest()  # hears of a stop that was pressed since
        if env.stopped:
            return


def require_fit(spec: Spec, robot: Spec, *, what: str) -> None:
    """Refuses, on a robot, channels without names and channels of something else.

    Raises:
        SpecMismatch: either of them.
    """
    if not spec.is_named:
        raise SpecMismatch(
            f"{what} has channels without names, and a robot must not guess which joint is meant; train with --env ID, "
            "or import the data with --env ID"
        )
    spec.require(robot, what=robot.env_id, against=what)


def _recorded(
    env: RobotEnv,
    agent: Agent,
    dataset: Dataset | None,
    seed: int,
    max_steps: int | None,
    looking: tuple[Observer, ...],
    verdict: Callable[[Episode], int] | None,
) -> tuple[Episode, Row | None]:
    journal = None if dataset is None else Journal(dataset, seed=seed)
    observers = looking if journal is None else (journal, *looking)
    try:
        episode = rollout(env, agent, seed=seed, max_steps=max_steps, observers=observers)
    except (UnderstudyError, KeyboardInterrupt):
        if journal is not None:
            journal.keep()  # what happened until then is data, too
        raise
    try:
        if episode.success == UNKNOWN and verdict is not None:
            episode = replace(episode, success=verdict(episode))
    finally:  # also where the question was interrupted
        row = None if dataset is None else dataset.append(episode)
    return episode, row
