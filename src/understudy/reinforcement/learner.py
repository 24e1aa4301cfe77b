"""What every learner is: an actor, the best one so far, and everything to be remembered between two batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.checkpoint import TrainingState, load_state, save_state
from understudy.episode import Episode
from understudy.errors import ConfigError, PolicyError
from understudy.evaluate import SUSTAINED_STEPS
from understudy.execution import Explorer
from understudy.network_shape import SMALLEST_LOG_DEVIATION
from understudy.policies import Policy
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.actor import Actor, own_log_deviation
from understudy.reinforcement.judging import Candidate, mean_return, success_rate
from understudy.runs import Run
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics

# A mean of fewer episodes than these is not compared with one of more: it is the highest by luck.
_TELLING_EPISODES = 20


class Learner(ABC):
    """Drives with the actor, and changes it by what came of a batch of episodes: a subclass says how.

    `patience` is the number of first batches in which a reward that never differs is borne, and `least_steps` what it
    takes before anything is learnt.

    Args:
        policy: where the actor begins, with a scaling.
        spec: of the world.
        config: the recipe.
        unexplained: (A,) what the policy leaves unexplained of demonstrations, in deviations; None without any.

    Raises:
        ConfigError: the deviation cannot be had from what is given, or the policy cannot be tuned so.
    """

    patience: int
    least_steps: int = 0

    def __init__(
        self, policy: Policy, spec: Spec, config: FinetuneConfig, unexplained: NDArray[np.float32] | None = None
    ) -> None:
        self.spec, self._config = spec, config
        self._least = in_deviations(policy, spec) + np.float32(np.log(config.least_deviation))
        self._first_deviation = self._first_log_deviation(policy, unexplained)
        self.actor = self._actor(policy)
        self.iteration = self.step = self.episodes = 0
        self.rewards_differ = False
        self._recent: list[tuple[int, float, float]] = []
        self._best_score, self._best_iteration = (False, -np.inf, -np.inf), 0
        self._best_vector, self._best_scaling = self.actor.vector(), self._scaling()
        self._average = self.actor.vector()

    def explorer(self) -> Explorer:
        """The agent that collects the next batch; its noise is that of this run and this batch."""
        return self.actor.explorer(seed=(self._config.seed, self.iteration), correlation=self._config.correlation)

    def learn(self, episodes: Sequence[Episode]) -> dict[str, float | None]:
        """Changes the actor by a batch; what there is to tell of it (`FinetuneLog.numbers`).

        Raises:
            TrainingDiverged: a value or a gradient became infinite or no number.
        """
        self.rewards_differ = self.rewards_differ or rewards_differ(episodes)
        # An episode that began near a demonstration's end succeeds easily and says little of the policy.
        plain = [episode for episode in episodes if not episode.initial_state]
        success = sustained = score = None
        if plain:
            success, score = success_rate(plain), mean_return(plain)
            sustained = float(np.mean([episode.succeeded.sum() > SUSTAINED_STEPS for episode in plain]))
            self._remember_the_best((len(plain), success or 0.0, score))
        numbers = self._improve(episodes)
        decay = self._config.average if self.iteration else 0.0
        self._average = decay * self._average + (1 - decay) * self.actor.vector()
        self.iteration += 1
        self.step += sum(map(len, episodes))
        self.episodes += len(episodes)
        return {
            "episodes": len(episodes),
            "success": success,
            "sustained": None if success is None else sustained,
            "mean_return": score,
            "deviation": float(self.actor.log_deviation.detach().exp().mean()),
            **numbers,
        }

    @abstractmethod
    def _improve(self, episodes: Sequence[Episode]) -> dict[str, float | None]:
        """Changes the actor by a batch; what there is to tell of that."""

    def candidates(self) -> list[Candidate]:
        """What may be deployed: the best policy and the last one, as mean and distribution, and the average's mean."""
        best = self._with(self._best_vector, self._best_scaling)
        named = [("best", self._best_iteration, best), ("last", self.iteration, self.actor)]
        candidates = [
            Candidate(which, acts, iteration, actor.policy(acts=acts))
            for which, iteration, actor in named
            for acts in ("mean", "sampled")
        ]
        if self._config.average and self.iteration:
            average = self._with(self._average, self._scaling())
            candidates.append(Candidate("average", "mean", self.iteration, average.policy()))
        return candidates

    def save(self, run: Run) -> None:
        """Leaves in the run's folder all that a resumed one needs to go on with the same bytes."""
        save_state(run.checkpoint, TrainingState(self.iteration, self._best_iteration, 0.0, self._tensors()))

    def load(self, run: Run) -> None:
        """Goes back to where `save` was called last; stays as it is where it never was.

        Raises:
            PolicyError: what lies there is of another network.
        """
        if not run.checkpoint.exists():
            return
        state = load_state(run.checkpoint)
        actor = state.tensors.get("actor")
        if actor is None or actor.shape != self.actor.vector().shape:
            raise PolicyError("the checkpoint is of another network; start the run anew in another folder")
        self.iteration, self._best_iteration = state.step, state.best_step
        self._take(state.tensors)

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that is to be remembered, beside the two numbers of batches."""
        return {
            "actor": self.actor.vector(),
            "scaling": _packed(self._scaling()),
            "best": self._best_vector,
            "average": self._average,
            "best.scaling": _packed(self._best_scaling),
            "recent": torch.tensor(self._recent, dtype=torch.float64).reshape(-1, 3),
            "score": torch.tensor(self._best_score, dtype=torch.float64),
            "counts": torch.tensor([self.step, self.episodes, self.rewards_differ]),
        }

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what `_tensors` gave."""
        self.actor.rescale(_unpacked(tensors["scaling"]), keep=False)
        self.actor.move(tensors["actor"])
        self._average = tensors["average"]
        self._best_vector, self._best_scaling = tensors["best"], _unpacked(tensors["best.scaling"])
        self._recent = [(int(count), float(success), float(score)) for count, success, score in tensors["recent"]]
        telling, success, score = tensors["score"]
        self._best_score = (bool(telling), float(success), float(score))
        self.step, self.episodes = int(tensors["counts"][0]), int(tensors["counts"][1])
        self.rewards_differ = bool(tensors["counts"][2])

    def _actor(self, policy: Policy) -> Actor:
        """An actor like this learner's that begins with another policy."""
        config, limit = self._config, None
        if config.residual_limit is not None:
            explored = np.maximum(self._first_deviation, np.maximum(self._least, SMALLEST_LOG_DEVIATION))
            limit = np.exp(explored) * np.float32(config.residual_limit)
        return Actor(
            policy,
            self._first_deviation,
            self._least,
            tune=config.tune,
            residual_hidden=config.residual_hidden,
            residual_limit=limit,
        )

    def _with(self, vector: Tensor, scaling: ChannelStatistics) -> Actor:
        """An actor like this one with other parameters."""
        actor = self._actor(self.actor.policy())
        actor.rescale(scaling, keep=False)
        actor.move(vector)
        return actor

    def _first_log_deviation(self, policy: Policy, unexplained: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Log sigma (A,) to begin with, in deviations of the training actions."""
        config = self._config
        factor = np.log(np.float32(config.deviation_factor))
        if config.deviation == "own":
            return own_log_deviation(policy) + factor
        if config.deviation == "range":
            return in_deviations(policy, self.spec) + factor
        if config.deviation == "residual":
            if unexplained is None:
                raise ConfigError("deviation is 'residual', which needs demonstrations; give them, or take spread")
            return np.log(np.maximum(unexplained, 1e-6)) + factor
        assert policy.statistics is not None, "a learner's policy has a scaling"
        actions = policy.statistics[1]
        with np.errstate(divide="ignore"):  # what never moved is explored as little as allowed
            return np.log(actions.deviation / actions.scale) + factor

    def _remember_the_best(self, batch: tuple[int, float, float]) -> None:
        """Keeps the actor that collected the batch where it and the batches before it were the best so far.

        Args:
            batch: its plain episodes, their success rate and their mean return.
        """
        window, episodes = self._config.best_window, self._config.episodes
        self._recent = [*self._recent, batch][-window:]
        counts, successes, returns = zip(*self._recent, strict=True)
        telling = sum(counts) >= min(_TELLING_EPISODES, window * episodes)
        score = (telling, float(np.average(successes, weights=counts)), float(np.average(returns, weights=counts)))
        if score > self._best_score:
            self._best_score, self._best_iteration = score, self.iteration
            self._best_vector, self._best_scaling = self.actor.vector(), self._scaling()

    def _scaling(self) -> ChannelStatistics:
        return self.actor.statistics[0]


def rewards_differ(episodes: Sequence[Episode]) -> bool:
    """Whether what was paid tells one action from another.

    A price for each step does where the task can end: being quick then pays.
    """
    rewards = np.concatenate([episode.rewards for episode in episodes])
    priced = rewards[0] != 0 and any(episode.terminated for episode in episodes)
    return bool(priced or (rewards != rewards[0]).any())


def in_deviations(policy: Policy, spec: Spec) -> NDArray[np.float32]:
    """(A,) logarithm of half of each action's range, in deviations of the training actions; 0 without limits."""
    assert policy.statistics is not None, "a learner's policy has a scaling"
    scale = policy.statistics[1].scale
    half = spec.action_half_ranges
    ratio: NDArray[np.float32] = np.log(np.where(np.isfinite(half), half, scale) / scale).astype(np.float32)
    return ratio


def histories(episode: Episode, history: int) -> NDArray[np.float32]:
    """(T + 1, history, D) what a policy sees before each step and at the end, as `PolicyAgent` keeps it."""
    past = np.arange(len(episode) + 1)[:, None] + np.arange(1 - history, 1)
    seen: NDArray[np.float32] = episode.observations[np.maximum(past, 0)]
    return seen


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _packed(statistics: ChannelStatistics) -> Tensor:
    rows = (statistics.minimum, statistics.maximum, statistics.mean, statistics.deviation)
    return torch.from_numpy(np.stack(rows))


def _unpacked(tensor: Tensor) -> ChannelStatistics:
    return ChannelStatistics(*(row.copy() for row in tensor.numpy()))
