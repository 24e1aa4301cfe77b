"""The learner: what a batch of episodes changes, and everything that has to be remembered between two of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.checkpoint import TrainingState
from understudy.episode import Episode
from understudy.errors import ConfigError, PolicyError, TrainingDiverged
from understudy.evaluate import SUSTAINED_STEPS
from understudy.execution import Explorer
from understudy.onpolicy.actor import Actor, own_log_deviation
from understudy.onpolicy.advantage import discounted, generalised_advantages, last_value, whitened
from understudy.onpolicy.demos import DemoRows, Term
from understudy.onpolicy.judging import Candidate, mean_return, success_rate
from understudy.onpolicy.memory import Memory
from understudy.onpolicy.updates import Batch, Update
from understudy.onpolicy.value import ValueFunction
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.recipe import FinetuneConfig
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics, RunningStatistics
from understudy.trainer import generator_for

_FRESH_SHRINK = 0.01


class Learner:
    """Actor, value function, and how both learn from a batch of episodes.

    Args:
        policy: where the actor begins.
        spec: of the world.
        update: changes the actor.
        term: what demonstrations add; None for nothing.
        config: the recipe.

    Raises:
        ConfigError: the deviation cannot be had from what is given.
        DataError: the demonstrations cannot be learnt from.
    """

    def __init__(self, policy: Policy, spec: Spec, update: Update, term: Term | None, config: FinetuneConfig) -> None:
        self.spec, self._update, self._config = spec, update, config
        self._running = RunningStatistics() if policy.statistics is None else None
        if policy.statistics is None and config.tune == "residual":
            raise ConfigError("tune is 'residual', which needs a trained policy to add to; train one, or tune all")
        if policy.statistics is None and config.average:
            raise ConfigError(
                "average needs a trained policy, whose scaling stays the same; train one, or leave it out"
            )
        if policy.statistics is None:
            policy = _fresh(policy, spec)
        least = _in_deviations(policy, spec) + np.float32(np.log(config.least_deviation))
        self.actor = self._actor(policy, np.zeros(len(spec.actions)), least)
        self._rows = DemoRows(term, self.actor) if term is not None else None
        self.actor = self._actor(policy, self._first_log_deviation(policy), least)
        self._value = ValueFunction(len(spec.observations), config, generator_for(config.seed, "value", 0))
        self._memory: Memory = {}
        self.iteration = self.step = self.episodes = 0
        self.rewards_differ = False
        self._recent: list[tuple[float, float]] = []
        self._best_score, self._best_iteration = (-np.inf, -np.inf), 0
        self._best_vector, self._best_scaling = self.actor.vector(), self._scaling()
        self._average = self.actor.vector()

    @property
    def has_term(self) -> bool:
        """Whether demonstrations add something."""
        return self._rows is not None

    def explorer(self) -> Explorer:
        """The agent that collects the next batch; its noise is that of this run and this batch."""
        return self.actor.explorer(seed=(self._config.seed, self.iteration), correlation=self._config.correlation)

    def learn(self, episodes: Sequence[Episode]) -> dict[str, float | None]:
        """Updates actor and value function by a batch; what there is to tell of it (`FinetuneLog.numbers`).

        Raises:
            TrainingDiverged: a value or a gradient became infinite or no number.
        """
        config = self._config
        # An episode that began near a demonstration's end succeeds easily and says little of the policy.
        plain = [episode for episode in episodes if not episode.initial_state]
        judged = plain or episodes
        success, score = success_rate(judged), mean_return(judged)
        if plain:
            self._remember_the_best((success or 0.0, score))
        if self._running is not None:
            self._take_the_scaling(episodes)
        features = self._value.features(episodes, self._scaled_observations)
        steps = torch.cat([rows[:-1] for rows in features])
        if self.iteration == 0 and config.value_first_epochs:
            first = self._targets(episodes, features)[1]
            self._value.fit(steps, first, partial(self._order, "first values"), config.value_first_epochs)
        advantages, targets = self._targets(episodes, features)
        if not (np.isfinite(advantages).all() and np.isfinite(targets).all()):
            raise TrainingDiverged(
                "the value function is no longer finite; try a lower value_learning_rate or look at the rewards"
            )
        batch = Batch(
            self.actor.inputs(self._histories(episodes)),
            self.actor.scaled(torch.from_numpy(np.concatenate([episode.asked_actions for episode in episodes]))),
            torch.from_numpy(whitened(advantages).astype(np.float32)),
            len(advantages),
        )
        weight = 0.0
        if self._rows is not None:
            batch, weight = self._rows.joined(batch, self.iteration)
        log = self._update(self.actor, batch, self._memory, self._order, self.step / max(config.steps, 1))
        value_error = self._value.fit(steps, targets, partial(self._order, "values"))
        decay = config.average if self.iteration else 0.0
        self._average = decay * self._average + (1 - decay) * self.actor.vector()
        self.iteration += 1
        self.step += len(advantages)
        self.episodes += len(episodes)
        sustained = np.mean([episode.succeeded.sum() > SUSTAINED_STEPS for episode in judged])
        return {
            "episodes": len(episodes),
            "success": success,
            "sustained": None if success is None else float(sustained),
            "mean_return": score,
            "kl": log.kl,
            "step_length": log.step,
            "halvings": log.halvings,
            "deviation": float(self.actor.log_deviation.detach().exp().mean()),
            "demo_weight": weight,
            "value_error": value_error,
        }

    def candidates(self) -> list[Candidate]:
        """What may be deployed: the best policy and the last one, as mean and distribution, and the average's mean."""
        best = self._with(self._best_vector, self._best_scaling)
        named = [("best", self._best_iteration, best), ("last", self.iteration, self.actor)]
        if self._best_iteration == self.iteration:
            named = named[:1]
        candidates = [
            Candidate(which, acts, iteration, actor.policy(acts=acts))
            for which, iteration, actor in named
            for acts in ("mean", "sampled")
        ]
        if self._config.average and self.iteration:
            average = self._with(self._average, self._scaling())
            candidates.append(Candidate("average", "mean", self.iteration, average.policy()))
        return candidates

    def _with(self, vector: Tensor, scaling: ChannelStatistics) -> Actor:
        """An actor like this one with other parameters."""
        actor = self._actor(self.actor.policy(), np.zeros(len(self.spec.actions)), self.actor.least.numpy())
        actor.rescale(scaling, keep=False)
        actor.move(vector)
        return actor

    def state(self) -> TrainingState:
        """Everything that a resumed run needs to go on with the same bytes."""
        running = self._running.state() if self._running is not None else np.empty((5, 0))
        tensors = {
            "actor": self.actor.vector(),
            "scaling": _packed(self._scaling()),
            "best": self._best_vector,
            "average": self._average,
            "best.scaling": _packed(self._best_scaling),
            "running": torch.from_numpy(running.copy()),
            "recent": torch.tensor(self._recent, dtype=torch.float64).reshape(-1, 2),
            "score": torch.tensor(self._best_score, dtype=torch.float64),
            "counts": torch.tensor([self.step, self.episodes, self.rewards_differ]),
            **{f"update.{name}": value for name, value in self._memory.items()},
            **{f"value.{name}": value for name, value in self._value.state().items()},
        }
        return TrainingState(self.iteration, self._best_iteration, 0.0, tensors)

    def restore(self, state: TrainingState) -> None:
        """Goes back to where `state` was taken.

        Raises:
            PolicyError: it is of another network.
        """
        tensors = state.tensors
        if "actor" not in tensors or tensors["actor"].shape != self.actor.vector().shape:
            raise PolicyError("the checkpoint is of another network; start the run anew in another folder")
        self.iteration, self._best_iteration = state.step, state.best_step
        self.actor.rescale(_unpacked(tensors["scaling"]), keep=False)
        self.actor.move(tensors["actor"])
        self._average = tensors["average"]
        self._best_vector, self._best_scaling = tensors["best"], _unpacked(tensors["best.scaling"])
        if self._running is not None:
            self._running.restore(tensors["running"].numpy())
        self._recent = [(float(success), float(score)) for success, score in tensors["recent"]]
        self._best_score = (float(tensors["score"][0]), float(tensors["score"][1]))
        self.step, self.episodes = int(tensors["counts"][0]), int(tensors["counts"][1])
        self.rewards_differ = bool(tensors["counts"][2])
        self._memory.clear()
        self._memory.update(_part(tensors, "update."))
        self._value.restore(_part(tensors, "value."))

    def _actor(self, policy: Policy, log_deviation: NDArray[np.float32], least: NDArray[np.float32]) -> Actor:
        config = self._config
        return Actor(policy, log_deviation, least, tune=config.tune, residual_hidden=config.residual_hidden)

    def _first_log_deviation(self, policy: Policy) -> NDArray[np.float32]:
        """Log sigma (A,) to begin with, in deviations of the training actions."""
        config = self._config
        factor = np.log(np.float32(config.deviation_factor))
        if config.deviation == "own":
            return own_log_deviation(policy) + factor
        if config.deviation == "range":
            return _in_deviations(policy, self.spec) + factor
        if config.deviation == "residual":
            if self._rows is None:
                raise ConfigError("deviation is 'residual', which needs demonstrations; give them, or take spread")
            return np.log(np.maximum(self._rows.residual(self.actor).numpy(), 1e-6)) + factor
        return np.full(len(self.spec.actions), factor, np.float32)

    def _targets(
        self, episodes: Sequence[Episode], features: Sequence[Tensor]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Advantages (N,) and what the value function shall learn (N,), of all steps of a batch."""
        config, advantages, targets = self._config, [], []
        for episode, rows in zip(episodes, features, strict=True):
            values = self._value.values(rows)  # (T + 1,)
            values[-1] = last_value(episode, float(values[-1]))
            rewards = episode.rewards.astype(np.float64)
            advantages.append(generalised_advantages(rewards, values, config.gamma, config.gae_lambda))
            targets.append(
                advantages[-1] + values[:-1]
                if config.value_targets == "gae"
                else discounted(rewards, config.gamma, float(values[-1]))
            )
        return np.concatenate(advantages), np.concatenate(targets)

    def _histories(self, episodes: Sequence[Episode]) -> Tensor:
        """(N, history, D) what the actor saw at each step, as `PolicyAgent` keeps it."""
        history, parts = self.actor.history, []
        for episode in episodes:
            past = np.arange(len(episode))[:, None] + np.arange(1 - history, 1)
            parts.append(episode.observations[np.maximum(past, 0)])
        return torch.from_numpy(np.concatenate(parts))

    def _order(self, purpose: str, epoch: int, rows: int) -> Tensor:
        """The order of the rows in an epoch: a function of the seed, the purpose, the batch and the epoch."""
        generator = generator_for(self._config.seed, f"{purpose} {self.iteration}", epoch)
        return torch.randperm(rows, generator=generator)

    def _remember_the_best(self, score: tuple[float, float]) -> None:
        """Keeps the actor that collected the batch where it and the batches before it were the best so far."""
        self._recent = [*self._recent, score][-self._config.best_window :]
        mean = (float(np.mean([row[0] for row in self._recent])), float(np.mean([row[1] for row in self._recent])))
        if mean > self._best_score:
            self._best_score, self._best_iteration = mean, self.iteration
            self._best_vector, self._best_scaling = self.actor.vector(), self._scaling()

    def _take_the_scaling(self, episodes: Sequence[Episode]) -> None:
        """Scales by all observations so far; after the first batch the actor's answers stay what they were."""
        assert self._running is not None
        for episode in episodes:
            self._running.add(episode.observations)
        self.actor.rescale(self._running.statistics(), keep=self.iteration > 0)

    def _scaling(self) -> ChannelStatistics:
        return self.actor.statistics[0]

    def _scaled_observations(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        scaling = self._scaling()
        scaled: NDArray[np.float32] = (observations - scaling.mean) / scaling.scale
        return scaled


def _fresh(policy: Policy, spec: Spec) -> Policy:
    """A copy of an untrained policy that answers with the middle of each action's range, whatever it sees."""
    limited = np.isfinite(spec.action_low) & np.isfinite(spec.action_high)
    low, high = np.where(limited, spec.action_low, -1), np.where(limited, spec.action_high, 1)
    size, result = len(spec.observations), copy.deepcopy(policy)
    zeros, ones = np.zeros(size, np.float32), np.ones(size, np.float32)
    middle, half = ((high + low) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
    result.fit_scaling(
        ChannelStatistics(-ones, ones, zeros, ones),
        ChannelStatistics(low.astype(np.float32), high.astype(np.float32), middle, half),
    )
    members = list(result.members) if isinstance(result, Ensemble) else [result]
    with torch.no_grad():
        for member in members:
            if isinstance(member, FeedForward):
                last = member.layers[-1]
                assert isinstance(last, nn.Linear)
                last.weight.mul_(_FRESH_SHRINK)
                last.bias.mul_(_FRESH_SHRINK)
    return result


def _in_deviations(policy: Policy, spec: Spec) -> NDArray[np.float32]:
    """(A,) logarithm of half of each action's range, in deviations of the training actions; 0 without limits."""
    assert policy.statistics is not None
    scale = policy.statistics[1].scale
    limited = np.isfinite(spec.action_low) & np.isfinite(spec.action_high)
    half = np.where(limited, (spec.action_high - spec.action_low) / 2, scale)
    ratio: NDArray[np.float32] = np.log(half / scale).astype(np.float32)
    return ratio


def _packed(statistics: ChannelStatistics) -> Tensor:
    rows = (statistics.minimum, statistics.maximum, statistics.mean, statistics.deviation)
    return torch.from_numpy(np.stack(rows))


def _unpacked(tensor: Tensor) -> ChannelStatistics:
    return ChannelStatistics(*(row.copy() for row in tensor.numpy()))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
