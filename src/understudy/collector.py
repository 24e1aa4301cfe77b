"""Many rollouts: for a list of seeds, in processes, the same episodes whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from understudy.agent import Agent
from understudy.episode import Episode
from understudy.errors import UnderstudyError, WorkerError, require_within
from understudy.rollout import Observer, Step, rollout
from understudy.worker_process import Beat
from understudy.workers import MOST_WORKERS, PATIENCE_S, Pool
from understudy.worlds import World, make_env


def rollouts(
    world: World,
    agent: Agent,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    max_steps: int | None = None,
    options: Sequence[dict[str, Any]] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Episode]:
    """Episodes of `rollout` for each seed, in the order of the seeds, the same whatever the number of workers.

    Args:
        world: an env id, or a picklable function that builds the env; each worker builds its own.
        agent: who acts; with several workers it is pickled, and each worker has its own copy.
        seeds: one for each episode.
        workers: processes; 1 runs here.
        max_steps: as in `rollout`.
        options: as in `rollout`, one for each seed.
        patience_s: a worker that has not stepped for so long is hung.

    Raises:
        ConfigError: `workers` is out of range, or the agent cannot be sent to another process.
        WorkerError: a worker died, hung or raised; it names the worker and the seed it was running.
    """
    require_within("workers", workers, 1, MOST_WORKERS)
    with Collector(
        world, workers=min(workers, max(1, len(seeds))), max_steps=max_steps, patience_s=patience_s
    ) as collector:
        yield from collector.collect(agent, seeds, options)


class Collector:
    """`rollouts` whose worlds and processes stay from one batch of episodes to the next; only agents travel.

    Args:
        world: an env id, or a picklable function that builds the env; each worker builds its own.
        workers: processes; 1 runs here.
        max_steps: as in `rollout`.
        patience_s: a worker that has not stepped for so long is hung.
        on_broken: where given, a worker that dies or hangs is replaced and its episodes are run anew, and this is
            called with the error that names it.

    Raises:
        ConfigError: `workers` is out of range, or the world cannot be sent to another process.
    """

    def __init__(
        self,
        world: World,
        *,
        workers: int = 1,
        max_steps: int | None = None,
        patience_s: float = PATIENCE_S,
        on_broken: Callable[[WorkerError], None] | None = None,
    ) -> None:
        require_within("workers", workers, 1, MOST_WORKERS)
        self._runner = EpisodeRunner(world, max_steps)
        self._pool: Pool | None = None
        if workers == 1:
            self._runner.build()
        else:
            self._pool = Pool(self._runner, workers, patience_s=patience_s, on_broken=on_broken)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers; empty where episodes run here."""
        return self._pool.pids if self._pool is not None else []

    def collect(
        self, agent: Agent, seeds: Sequence[int], options: Sequence[dict[str, Any] | None] | None = None
    ) -> Iterator[Episode]:
        """Episodes of `rollout` for each seed, in the order of the seeds.

        Args:
            agent: who acts; each worker gets a copy.
            seeds: one for each episode.
            options: as in `rollout`, one for each seed.

        Raises:
            ConfigError: the agent cannot be sent to another process.
            WorkerError: a worker died or hung and may not be replaced, or raised.
        """
        starts = [Start(int(seed), options[index] if options else None) for index, seed in enumerate(seeds)]
        if self._pool is not None:
            self._pool.tell(agent)
            yield from self._pool.map(starts, name=lambda start: f"seed {start.seed}")
            return
        self._runner.hear(agent)
        for start in starts:
            try:
                episode = self._runner(start, lambda: None)
            except UnderstudyError as error:
                error.add_note(f"seed {start.seed}")
                raise
            yield episode

    def close(self) -> None:
        """Ends the workers and closes the worlds."""
        if self._pool is not None:
            self._pool.close()
        self._runner.close()


@dataclass(frozen=True, slots=True)
class Start:
    """Where an episode begins: the seed, and options for the reset of the world."""

    seed: int
    options: dict[str, Any] | None = None


class EpisodeRunner:
    """What a worker holds: its own world and its own copy of the agent."""

    def __init__(self, world: World, max_steps: int | None) -> None:
        self._world, self._max_steps = world, max_steps
        self._env: gym.Env[Any, Any] | None = None
        self._agent: Agent | None = None

    def build(self) -> None:
        """Makes the world."""
        self._env = make_env(self._world)
        self._threads = ThreadpoolController()

    def hear(self, news: Agent) -> None:
        """Takes the agent of the episodes that follow."""
        self._agent = news

    def __call__(self, job: Start, beat: Beat) -> Episode:
        """The episode from a start."""
        assert self._env is not None, "build() comes first"
        assert self._agent is not None, "an agent comes first"
        # One BLAS thread: products this small are slower with two, and the number of threads may change the last bit.
        with self._threads.limit(limits=1, user_api="blas"):
            return rollout(
                self._env,
                self._agent,
                seed=job.seed,
                options=job.options,
                max_steps=self._max_steps,
                observers=(_Heartbeat(beat),),
            )

    def close(self) -> None:
        """Closes the world."""
        if self._env is not None:
            self._env.close()
            self._env = None


class _Heartbeat(Observer):
    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def on_start(self, env: gym.Env[Any, Any], observation: NDArray[np.float32]) -> None:
        self._beat()

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        self._beat()
