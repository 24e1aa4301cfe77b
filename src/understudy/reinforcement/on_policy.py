"""Learning from the batch that the actor has just collected, and from no other: NPG, PPO, and DAPG with either."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.episode import Episode
from understudy.errors import ConfigError, TrainingDiverged
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.actor import Actor
from understudy.reinforcement.advantage import discounted, generalised_advantages, last_value, whitened
from understudy.reinforcement.demos import DemoRows, Term
from understudy.reinforcement.learner import Learner, histories, part_of
from understudy.reinforcement.memory import Memory
from understudy.reinforcement.updates import Batch, Update
from understudy.reinforcement.value import ValueFunction
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics, RunningStatistics
from understudy.trainer import generator_for

_FRESH_SHRINK = 0.01
_PATIENCE, _PATIENCE_WITH_DEMOS = 3, 10
_LARGEST_KL = 1e6  # beyond it the policy is another one altogether


class OnPolicyLearner(Learner):
    """The value function says how good each action of a batch was, and the update changes the actor by that.

    Args:
        policy: where the actor begins; one that was never trained is scaled by what it sees.
        spec: of the world.
        update: changes the actor.
        term: what demonstrations add; None for nothing.
        config: the recipe.

    Raises:
        ConfigError: the deviation cannot be had from what is given.
        DataError: the demonstrations cannot be learnt from.
    """

    def __init__(self, policy: Policy, spec: Spec, update: Update, term: Term | None, config: FinetuneConfig) -> None:
        self._running = RunningStatistics() if policy.statistics is None else None
        if policy.statistics is None and config.tune == "residual":
            raise ConfigError("tune is 'residual', which needs a trained policy to add to; train one, or tune all")
        if policy.statistics is None and config.average:
            raise ConfigError(
                "average needs a trained policy, whose scaling stays the same; train one, or leave it out"
            )
        if policy.statistics is None:
            policy = _fresh(policy, spec)
        unexplained = None
        if term is not None and config.deviation == "residual":
            zeros = np.zeros(len(spec.actions), np.float32)
            given = Actor(policy, zeros, zeros)
            unexplained = DemoRows(term, given).residual(given).numpy()
        super().__init__(policy, spec, config, unexplained)
        self._update = update
        self._rows = DemoRows(term, self.actor) if term is not None and term.weight(0, 1.0) else None
        self.patience = _PATIENCE if term is None else _PATIENCE_WITH_DEMOS
        self._value = ValueFunction(len(spec.observations), config, generator_for(config.seed, "value", 0))
        self._memory: Memory = {}

    def _improve(self, episodes: Sequence[Episode]) -> dict[str, float | None]:
        config = self._config
        if self._running is not None:
            self._take_the_scaling(episodes)
        features = self._value.features(episodes, self._scaled_observations)
        steps = torch.cat([rows[:-1] for rows in features])
        if self.rewards_differ and not self._value.has_learnt:
            # Its first answers are noise of a third of this, which must not outweigh the differences of small returns.
            self._value.first_deviation = min(1.0, 3 * _returns(episodes, config.gamma).std())
            if config.value_first_epochs:
                first = self._targets(episodes, features)[1]
                self._value.fit(steps, first, partial(self._order, "first values"), config.value_first_epochs)
        advantages, targets = self._targets(episodes, features)
        if not self.rewards_differ:
            advantages = np.zeros_like(advantages)  # nothing was paid that tells one action from another
        if not (np.isfinite(advantages).all() and np.isfinite(targets).all()):
            raise TrainingDiverged(
                "the value function is no longer finite; try a lower value_learning_rate or look at the rewards"
            )
        seen = np.concatenate([histories(episode, self.actor.history)[:-1] for episode in episodes])
        batch = Batch(
            self.actor.inputs(torch.from_numpy(seen)),
            self.actor.scaled(torch.from_numpy(np.concatenate([episode.asked_actions for episode in episodes]))),
            torch.from_numpy(whitened(advantages).astype(np.float32)),
            len(advantages),
        )
        weight = 0.0
        if self._rows is not None:
            batch, weight = self._rows.joined(batch, self.iteration)
        log = self._update(self.actor, batch, self._memory, self._order, self.step / max(config.steps, 1))
        if not log.kl < _LARGEST_KL:
            raise TrainingDiverged(
                f"one batch moved the policy by a KL of {log.kl:.3g}; try a smaller step_size (npg) or learning_rate "
                "(ppo), or look at the rewards"
            )
        return {
            "kl": log.kl,
            "step_length": log.step,
            "halvings": log.halvings,
            "demo_weight": weight,
            "value_error": self._value.fit(steps, targets, partial(self._order, "values"))
            if self.rewards_differ
            else None,
        }

    def _tensors(self) -> dict[str, Tensor]:
        running = self._running.state() if self._running is not None else np.empty((5, 0))
        return {
            **super()._tensors(),
            "running": torch.from_numpy(running.copy()),
            **{f"update.{name}": value for name, value in self._memory.items()},
            **{f"value.{name}": value for name, value in self._value.state().items()},
        }

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        super()._take(tensors)
        if self._running is not None:
            self._running.restore(tensors["running"].numpy())
        self._memory.clear()
        self._memory.update(part_of(tensors, "update."))
        self._value.restore(part_of(tensors, "value."))

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

    def _order(self, purpose: str, epoch: int, rows: int) -> Tensor:
        """The order of the rows in an epoch: a function of the seed, the purpose, the batch and the epoch."""
        generator = generator_for(self._config.seed, f"{purpose} {self.iteration}", epoch)
        return torch.randperm(rows, generator=generator)

    def _take_the_scaling(self, episodes: Sequence[Episode]) -> None:
        """Scales by all observations so far; after the first batch the actor's answers stay what they were."""
        assert self._running is not None
        for episode in episodes:
            self._running.add(episode.observations)
        self.actor.rescale(self._running.statistics(), keep=self.iteration > 0)

    def _scaled_observations(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        scaling = self._scaling()
        scaled: NDArray[np.float32] = (observations - scaling.mean) / scaling.scale
        return scaled


def _returns(episodes: Sequence[Episode], gamma: float) -> NDArray[np.float64]:
    """What came after each step of the episodes, (N,), as if nothing came after their ends."""
    return np.concatenate([discounted(episode.rewards.astype(np.float64), gamma, 0.0) for episode in episodes])


def _fresh(policy: Policy, spec: Spec) -> Policy:
    """A copy of an untrained policy that answers with the middle of each action's range, whatever it sees."""
    limited = np.isfinite(spec.action_half_ranges)
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
