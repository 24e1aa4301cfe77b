"""Running a policy: the agent that keeps what a policy must not, its history of observations and its open chunk."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Command
from understudy.errors import ConfigError, require_whole
from understudy.inference import FeedForwardPredictor, Predictor

_LARGEST_DECAY = 1000  # the newest chunks then weigh nothing


class PolicyAgent:
    """Lets a policy act in receding horizon, or averages its overlapping chunks over time.

    A policy answers the last `history` observations with a chunk of H actions. The first `execute` of them are
    executed, then it is asked again. With `ensemble_decay` it is asked at every step instead, and the action is the
    average of what all open chunks say about this step, chunk i (0 the oldest) with weight exp(-ensemble_decay * i)
    (temporal ensembling; Zhao et al. 2023, ACT, section IV-B). Before an episode has `history` observations, the
    first one stands in for those that are missing. A policy that acts by sampling (it has a `deviation`) gets noise
    drawn from the seed of the episode, as it had when it was judged the better one.

    Args:
        policy: anything with `predict`, `history` and `horizon`.
        execute: actions of a chunk that are executed, 1 to H; 1, a fresh answer at every step, where not given.
        ensemble_decay: m of temporal ensembling, at least 0; no ensembling where not given.

    Raises:
        ConfigError: `execute` or `ensemble_decay` is out of range, or both are given.
    """

    def __init__(self, policy: Predictor, *, execute: int | None = None, ensemble_decay: float | None = None) -> None:
        if execute is not None and ensemble_decay is not None:
            raise ConfigError("give execute or ensemble_decay, not both: an ensemble asks the policy at every step")
        require_whole("execute", execute, 1)
        if execute is not None and execute > policy.horizon:
            raise ConfigError(f"execute is {execute}; the policy predicts {policy.horizon}, so 1 to {policy.horizon}")
        if ensemble_decay is not None and not 0 <= ensemble_decay <= _LARGEST_DECAY:
            raise ConfigError(f"ensemble_decay is {ensemble_decay}; it is a number from 0 to {_LARGEST_DECAY}")
        if ensemble_decay is not None and policy.horizon == 1:
            raise ConfigError(
                "ensemble_decay averages overlapping chunks, and the policy predicts 1 action; leave it out"
            )
        self._policy = policy
        self._execute = execute or 1
        self._ensemble_decay = ensemble_decay
        self._history: deque[NDArray[np.float32]] = deque(maxlen=policy.history)
        self._chunks: deque[NDArray[np.float32]] = deque(maxlen=policy.horizon)
        self._plan: deque[NDArray[np.float32]] = deque()
        deviation = getattr(policy, "deviation", None)
        # With numbers of its own beside the seed: a world draws its start from that seed alone.
        self._noise = None if deviation is None else ActionNoise(deviation, seed=tuple(b"acts"))

    def reset(self, seed: int) -> None:
        self._history.clear()
        self.replan()
        if self._noise is not None:
            self._noise.reset(seed)

    def replan(self) -> None:
        """Forgets the open chunks, as after a takeover, when the world is no longer where they left it."""
        self._chunks.clear()
        self._plan.clear()

    def act(self, observation: NDArray[np.float32]) -> Command:
        """The command for an observation (D,)."""
        self.observe(observation)
        if self._ensemble_decay is not None:
            return Command(self._average(self._ensemble_decay))
        if not self._plan:
            chunk = self._predict()
            if self._execute == 1:
                return Command(chunk[0])
            self._plan.extend(chunk[: self._execute])
        return Command(self._plan.popleft())

    def observe(self, observation: NDArray[np.float32]) -> None:
        """Takes an observation (D,) into the history, also of steps that somebody else drives."""
        if not self._history:
            self._history.extend([observation] * (self._policy.history - 1))
        self._history.append(observation)

    def member_actions(self) -> NDArray[np.float32]:
        """What each member of an ensemble would do now, (members, A), after the observation that was seen last.

        Raises:
            ConfigError: the policy is no ensemble.
        """
        predictions = getattr(self._policy, "predictions", None)
        members: NDArray[np.float32] | None = None if predictions is None else predictions(self._seen())
        if members is None or len(members) < 2:
            raise ConfigError("this policy is a single network and cannot doubt; train an ensemble (--members 5)")
        return members[:, 0]  # (members, H, A) -> (members, A)

    def _predict(self) -> NDArray[np.float32]:
        if self._noise is None:
            return self._policy.predict(self._seen())  # (H, A)
        spec, noise = self._policy.spec, self._noise.draw().reshape(self._policy.horizon, -1)
        limited: NDArray[np.float32] = np.minimum(np.maximum(self._mean() + noise, spec.action_low), spec.action_high)
        return limited

    def _mean(self) -> NDArray[np.float32]:
        """The mean of the policy's distribution, (H, A), not yet limited: noise is added before limits, as learnt."""
        predictions: NDArray[np.float32] = self._policy.predictions(self._seen())  # type: ignore[attr-defined]
        mean: NDArray[np.float32] = predictions[0] if len(predictions) == 1 else predictions.mean(0)
        return mean

    def _seen(self) -> NDArray[np.float32]:
        return self._history[0][None] if len(self._history) == 1 else np.stack(self._history)  # (history, D)

    def _average(self, decay: float) -> NDArray[np.float32]:
        self._chunks.append(self._predict())
        # The newest chunk is about this step in row 0, the one before it in row 1, and so on.
        ages = range(len(self._chunks) - 1, -1, -1)
        said = np.stack([chunk[age] for chunk, age in zip(self._chunks, ages, strict=True)])
        weights = np.exp(-decay * np.arange(len(said), dtype=np.float32))
        average = np.asarray(weights @ said / weights.sum(), np.float32)
        spec = self._policy.spec
        limited: NDArray[np.float32] = np.minimum(np.maximum(average, spec.action_low), spec.action_high)
        return limited


class ActionNoise:
    """Gaussian noise, a function of the seed of the episode alone.

    With a correlation r the noise n of step t is r n(t - 1) + sqrt(1 - r^2) e, e drawn anew: each n still has the
    deviation that is asked for, and a direction lasts for about 1 / (1 - r) steps.

    Args:
        deviation: (A,) in the unit of the actions.
        seed: mixed with the seed of each episode.
        correlation: r, in [0, 1).

    Raises:
        ConfigError: `correlation` is out of range.
    """

    def __init__(self, deviation: NDArray[np.float32], *, seed: tuple[int, ...] = (), correlation: float = 0.0) -> None:
        if not 0 <= correlation < 1:
            raise ConfigError(f"correlation is {correlation}; accepted: 0 or more and below 1")
        self._deviation, self._seed = np.asarray(deviation, np.float32), seed
        self._kept, self._fresh = np.float32(correlation), np.float32((1 - correlation**2) ** 0.5)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64([*self._seed, seed]))
        self._last: NDArray[np.float32] | None = None

    def draw(self) -> NDArray[np.float32]:
        """The noise of the next step, (A,)."""
        drawn = self._random.standard_normal(len(self._deviation), np.float32)
        if self._kept and self._last is not None:
            drawn = self._kept * self._last + self._fresh * drawn
        self._last = drawn
        return drawn * self._deviation


class Explorer(PolicyAgent):
    """Samples from a Gaussian around a policy, to learn from what comes of it.

    What it asks for is not limited, so that its likelihood is that of the Gaussian; the world limits what it executes.

    Args:
        policy: its first action at each step is the mean.
        noise: what is added.
    """

    def __init__(self, policy: FeedForwardPredictor, noise: ActionNoise) -> None:
        super().__init__(policy)
        self._noise = noise

    def act(self, observation: NDArray[np.float32]) -> Command:
        """The command for an observation (D,)."""
        assert self._noise is not None
        self.observe(observation)
        return Command(self._mean()[0] + self._noise.draw())
