"""Learning from every step that was ever collected: TD3 with a few critics, on a small residual of a frozen policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from understudy.checkpoint import TrainingState, load_state, save_state
from understudy.durable import make_folder
from understudy.episode import Episode
from understudy.errors import ConfigError, PolicyError, TrainingDiverged, require_whole
from understudy.policies import Policy
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.critics import Critics, follow
from understudy.reinforcement.demos import Term
from understudy.reinforcement.learner import Learner, histories, part_of
from understudy.reinforcement.memory import Memory, adam
from understudy.reinforcement.replay import Replay, Transitions
from understudy.reinforcement.updates import require_above_0
from understudy.runs import Run
from understudy.spec import Spec
from understudy.trainer import generator_for


@dataclass(frozen=True, slots=True)
class TD3:
    """Deterministic policy gradient with pessimistic critics, from a replay memory.

    Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018) with returns of a few steps, and of several
    critics a few that are drawn anew for each update (Chen et al. 2021, "Randomized Ensembled Double Q-Learning").
    Each critic learns

        y = r_0 + gamma r_1 + ... + gamma^n min_(k drawn) Q'_k(o_n, mu'(o_n))

    and the actor climbs min_k Q_k(o, mu(o)) over all of them. Q' and mu' follow critics and actor slowly. The noise
    that the original adds to the target's action is left out.

    Args:
        critics: K, how many.
        drawn: of them, whose smallest answer is believed.
        units: in each of their two hidden layers.
        n_step: rewards in a target before the critics are asked.
        batch: steps in each update.
        updates_per_step: of the critics, for each step of the world.
        actor_every: so many updates of the critics for one of the actor.
        first_steps: of the world before anything is learnt.
        first_updates: of the critics alone, before the actor begins.
        follow: share of the way that Q' goes to Q, and mu' to mu, with each update of theirs.
        critic_learning_rate: of Adam.
        actor_learning_rate: of Adam.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "td3"
    critics: int = 5
    drawn: int = 2
    units: int = 128
    n_step: int = 5
    batch: int = 256
    updates_per_step: float = 0.5
    actor_every: int = 2
    first_steps: int = 4_000
    first_updates: int = 3_000
    follow: float = 0.01
    critic_learning_rate: float = 3e-4
    actor_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("critics", "n_step", "actor_every"):
            require_whole(name, getattr(self, name), 1)
        for name in ("units", "batch"):
            require_whole(name, getattr(self, name), 2)  # one has no deviation
        require_whole("drawn", self.drawn, 1, self.critics)
        for name in ("first_steps", "first_updates"):
            require_whole(name, getattr(self, name), 0)
        for name in ("updates_per_step", "critic_learning_rate", "actor_learning_rate"):
            require_above_0(name, getattr(self, name))
        if not 0 < self.follow <= 1:
            raise ConfigError(f"follow is {self.follow}; accepted: above 0, at most 1")

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        return asdict(self)


# A world that has paid nothing that differs in so many episodes will not: as with NPG and demonstrations.
_PATIENT_EPISODES = 200
_LARGEST_REWARDS = 1e15  # whose squares, and those of their inverses, 32 bits can hold
# Of the value function and its advantages, which critics replace.
_UNUSED = [item.name for item in fields(FinetuneConfig) if item.name.startswith("value_")] + ["gae_lambda"]


def require_limited_residual(config: FinetuneConfig, term: Term | None) -> None:
    """Refuses a recipe that TD3 cannot follow.

    Raises:
        ConfigError: it does not tune a residual with a limit, sets what is not used or known, or has a demonstration
            term.
    """
    if config.tune != "residual" or config.residual_limit is None:
        raise ConfigError(
            "td3 tunes a residual with a limit; take the preset residual-td3, and residual_limit for another limit"
        )
    defaults = FinetuneConfig()
    unused = [name for name in _UNUSED if getattr(config, name) != getattr(defaults, name)]
    if unused:
        raise ConfigError(
            f"td3 has critics in the place of a value function; leave {', '.join(unused)} out, or "
            "take the preset residual-td3, which sets none of them"
        )
    if config.deviation == "residual":
        raise ConfigError("deviation is 'residual', which td3 does not know; take range, spread or own")
    if term is not None and term.weight(0, 1.0):
        raise ConfigError("td3 has no place for a demonstration term; leave lam0 at 0, or take npg or ppo")


class ReplayLearner(Learner):
    """Critics learn from every step so far what actions are worth, and the residual climbs what they say.

    The residual stays within a limit (`residual_limit`), because critics are only right about actions like those that
    were tried. They look at the scaled observation, and at how far the action is from that of the frozen policy, in
    deviations of the exploration, which stay as they are.

    Args:
        policy: where the actor begins, and what it stays near.
        spec: of the world.
        rule: how they learn.
        config: the rest of the recipe.

    Raises:
        ConfigError: the policy was never trained, or cannot be tuned so.
    """

    def __init__(self, policy: Policy, spec: Spec, rule: TD3, config: FinetuneConfig) -> None:
        if policy.statistics is None:
            raise ConfigError("td3 tunes a residual of a trained policy; give one, or demonstrations")
        super().__init__(policy, spec, config)
        assert config.residual_limit is not None, "require_limited_residual comes first"
        self._rule, self._limit, actions = rule, config.residual_limit, len(spec.actions)
        seen = self.actor.history * len(spec.observations)
        hidden = (rule.units, rule.units)
        self._critics = Critics(rule.critics, seen + actions, hidden, generator_for(config.seed, "critics", 0))
        self._slow_critics, self._slow_actor = copy.deepcopy(self._critics), copy.deepcopy(self.actor)
        self._critic_memory: Memory = {}
        self._actor_memory: Memory = {}
        self._replay, self._saved_rows = Replay(seen + actions, actions), 0
        self._updates, self._owed, self._reward_scale = 0, 0.0, 0.0
        self.patience = max(1, _PATIENT_EPISODES // config.episodes)
        self.least_steps = rule.first_steps
        limits = torch.from_numpy(np.stack([spec.action_low, spec.action_high]))
        self._low, self._high = self.actor.scaled(limits)

    def _improve(self, episodes: Sequence[Episode]) -> dict[str, float | None]:
        for episode in episodes:
            self._remember(episode)
        count = self._updates_due(sum(map(len, episodes)))
        if not count:
            return {"value": None, "value_error": None, "residual": None}
        rule = self._rule
        critics = adam(list(self._critics.parameters()), self._critic_memory, rule.critic_learning_rate)
        actor = adam(self.actor.mean_parameters, self._actor_memory, rule.actor_learning_rate)
        generator = generator_for(self._config.seed, "replay", self.iteration)
        value = error = 0.0
        moved = None
        for number in range(self._updates, self._updates + count):
            steps = self._replay.draw(generator, rule.batch, rule.n_step, self._config.gamma)
            believed = torch.randperm(rule.critics, generator=generator)[: rule.drawn]
            value, error = self._teach_the_critics(steps, believed, critics)
            if number >= rule.first_updates and number % rule.actor_every == 0:
                moved = self._teach_the_actor(steps, actor)
            follow(self._slow_critics.parameters(), self._critics.parameters(), rule.follow)
        self._updates += count
        critics.remember()
        actor.remember()
        if not (math.isfinite(value) and math.isfinite(error) and bool(self.actor.vector().isfinite().all())):
            raise TrainingDiverged("critics or residual are no longer finite; try lower learning rates")
        return {"value": value / self._reward_scale, "value_error": error, "residual": moved}

    @property
    def has_learnt(self) -> bool:
        """Whether there was an update."""
        return self._updates > 0

    def _updates_due(self, steps: int) -> int:
        """Updates for so many new steps; none before there is enough to learn from, and a reward in it."""
        rewards = self._replay.rewards
        if not self._reward_scale and (len(self._replay) < self._rule.first_steps or not bool(rewards.any())):
            return 0
        if not self._reward_scale:
            size = float(rewards.double().square().mean().sqrt())
            if not 1 / _LARGEST_REWARDS < size < _LARGEST_REWARDS:
                raise ConfigError(f"the rewards are of the size {size:.3g}, which critics cannot learn; scale them")
            self._reward_scale = 1 / size
            self._owed += self._rule.first_updates
        self._owed += self._rule.updates_per_step * steps
        count = int(self._owed)
        self._owed -= count
        return count

    def _remember(self, episode: Episode) -> None:
        """Takes an episode into the replay memory."""
        with torch.no_grad():
            inputs = self.actor.inputs(torch.from_numpy(histories(episode, self.actor.history)))
            actions = self.actor.scaled(torch.tensor(episode.actions))
        self._replay.add(inputs, actions, torch.tensor(episode.rewards), terminated=episode.terminated)

    def _teach_the_critics(self, drawn: Transitions, believed: Tensor, optimizer: Any) -> tuple[float, float]:
        """One update of all critics; the mean target, and the mean squared error over the targets' variance."""
        with torch.no_grad():
            following = self._slow_actor.mean(drawn.next_inputs)
            future = self._worth(self._slow_critics, drawn.next_inputs, following)[believed].amin(0)
            target = self._reward_scale * drawn.returns + drawn.discounts * future
        errors = (self._worth(self._critics, drawn.inputs, drawn.actions) - target).square()
        optimizer.zero_grad()
        errors.sum(0).mean().backward()
        optimizer.step()
        spread = float(target.var())
        return float(target.mean()), float(errors.detach().mean()) / spread if spread > 0 else 0.0

    def _teach_the_actor(self, drawn: Transitions, optimizer: Any) -> float:
        """One update of the residual; its root mean square, as a share of its limit."""
        mean = self.actor.mean(drawn.inputs)
        loss = -self._worth(self._critics, drawn.inputs, mean).amin(0).mean()
        parameters = self.actor.mean_parameters
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        follow(self._slow_actor.mean_parameters, parameters, self._rule.follow)
        with torch.no_grad():
            moved = (mean - self._of_the_policy(drawn.inputs)) / (self._limit * self._deviation)
        return float(moved.square().mean().sqrt())

    def _worth(self, critics: Critics, inputs: Tensor, actions: Tensor) -> Tensor:
        """What the critics say of actions (B, A) in deviations, which the world cuts to its limits, (K, B)."""
        policy = self._of_the_policy(inputs).clamp(self._low, self._high)
        beside = (actions.clamp(self._low, self._high) - policy) / (2 * self._deviation)
        return critics(torch.cat([inputs[:, : -beside.shape[1]], beside], 1))

    def _of_the_policy(self, inputs: Tensor) -> Tensor:
        return inputs[:, -len(self.spec.actions) :]

    @property
    def _deviation(self) -> Tensor:
        return self.actor.log_deviation.detach().exp()

    def save(self, run: Run) -> None:
        # The rows come first: a resumed run reads those of the batches that its state knows, and writes others anew.
        make_folder(self._rows_of(run, self.iteration).parent)
        rows = TrainingState(self.iteration, 0, 0.0, self._replay.tensors(since=self._saved_rows))
        save_state(self._rows_of(run, self.iteration), rows)
        self._saved_rows = self._replay.rows
        super().save(run)

    def load(self, run: Run) -> None:
        super().load(run)
        for iteration in range(1, self.iteration + 1):
            path = self._rows_of(run, iteration)
            rows = load_state(path)
            if rows.step != iteration or not self._replay.fits(rows.tensors):
                raise PolicyError(f"{path} holds no rows of batch {iteration}; start the run anew in another folder")
            self._replay.extend(rows.tensors)
        self._saved_rows = self._replay.rows

    def _rows_of(self, run: Run, iteration: int) -> Path:
        return run.path / "replay" / f"{iteration:06d}.safetensors"

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **super()._tensors(),
            "learnt": torch.tensor([self._updates, self._owed, self._reward_scale], dtype=torch.float64),
            **{f"critics.{name}": value for name, value in self._critics.state_dict().items()},
            "slow_actor": self._slow_actor.vector(),
            **{f"slow_critics.{name}": value for name, value in self._slow_critics.state_dict().items()},
            **{f"critic_memory.{name}": value for name, value in self._critic_memory.items()},
            **{f"actor_memory.{name}": value for name, value in self._actor_memory.items()},
        }

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        super()._take(tensors)
        updates, self._owed, self._reward_scale = map(float, tensors["learnt"])
        self._updates = int(updates)
        self._critics.load_state_dict(part_of(tensors, "critics."))
        self._slow_critics.load_state_dict(part_of(tensors, "slow_critics."))
        self._slow_actor.move(tensors["slow_actor"])
        for memory, prefix in ((self._critic_memory, "critic_memory."), (self._actor_memory, "actor_memory.")):
            memory.clear()
            memory.update(part_of(tensors, prefix))
