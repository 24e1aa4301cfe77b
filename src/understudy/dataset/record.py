"""Recording: rollouts that are journalled while they run and saved before anybody is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium as gym

from understudy.agent import Agent
from understudy.dataset.index import Row
from understudy.dataset.journal import Journal
from understudy.dataset.store import Dataset
from understudy.episode import Episode
from understudy.rollout import Observer, rollout
from understudy.spec import spec_of


def record(
    env: gym.Env[Any, Any],
    agent: Agent,
    dataset: Dataset,
    *,
    seeds: Iterable[int],
    max_steps: int | None = None,
    after_success: int | None = 10,
    observers: Iterable[Observer] = (),
    options: Sequence[dict[str, Any]] | None = None,
) -> Iterator[tuple[Row, Episode]]:
    """Runs and saves one episode for each seed.

    Args:
        env: the world; its spec must be that of the dataset.
        agent: who acts.
        dataset: where the episodes go.
        seeds: one for each episode.
        max_steps: as in `rollout`.
        after_success: as in `rollout`; None records on to the world's own end.
        observers: as in `rollout`, after the journal.
        options: as in `rollout`, one for each seed.

    Yields:
        The row and the episode, once it is durable.

    Raises:
        SpecMismatch: the dataset is of another world.
        DatasetLocked: another process writes to the dataset.
        StorageError: the disk is full or failed.
    """
    dataset.require_same_task(spec_of(env), what="the world")
    looking = tuple(observers)
    for index, seed in enumerate(seeds):
        chosen = options[index] if options else None
        journal = Journal(dataset, seed=seed, initial_state=(chosen or {}).get("initial_state"))
        episode = rollout(
            env,
            agent,
            seed=seed,
            options=chosen,
            max_steps=max_steps,
            after_success=after_success,
            observers=(journal, *looking),
        )
        yield dataset.append(episode), episode
