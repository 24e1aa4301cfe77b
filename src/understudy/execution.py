"""Running a policy: the agent that keeps what a policy must not, its history of observations and its open chunk."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Command
from understudy.errors import ConfigError
from understudy.inference import Predictor


class PolicyAgent:
    """Lets a policy act in receding horizon, or averages its overlapping chunks over time.

    A policy answers the last `history` observations with a chunk of H actions. The first `execute` of them are
    executed, then it is asked again. With `ensemble_decay` it is asked at every step instead, and the action is the
    average of what all open chunks say about this step, chunk i (0 the oldest) with weight exp(-ensemble_decay * i)
    (temporal ensembling; Zhao et al. 2023, ACT, section IV-B). Before an episode has `history` observations, the
    first one stands in for those that are missing.

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
        if execute is not None and not 1 <= execute <= policy.horizon:
            raise ConfigError(f"execute is {execute}; the policy predicts {policy.horizon}, so 1 to {policy.horizon}")
        if ensemble_decay is not None and not ensemble_decay >= 0:
            raise ConfigError(f"ensemble_decay is {ensemble_decay}; it is 0 or more")
        self._policy = policy
        self._execute = execute or 1
        self._ensemble_decay = ensemble_decay
        self._history: deque[NDArray[np.float32]] = deque(maxlen=policy.history)
        self._chunks: deque[NDArray[np.float32]] = deque(maxlen=policy.horizon)
        self._plan: deque[NDArray[np.float32]] = deque()

    def reset(self, seed: int) -> None:
        self._history.clear()
        self.replan()

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
        return self._policy.predict(self._seen())  # (H, A)

    def _seen(self) -> NDArray[np.float32]:
        return self._history[0][None] if len(self._history) == 1 else np.stack(self._history)  # (history, D)

    def _average(self, decay: float) -> NDArray[np.float32]:
        self._chunks.append(self._predict())
        # The newest chunk is about this step in row 0, the one before it in row 1, and so on.
        ages = range(len(self._chunks) - 1, -1, -1)
        said = np.stack([chunk[age] for chunk, age in zip(self._chunks, ages, strict=True)])
        weights = np.exp(-decay * np.arange(len(said), dtype=np.float32))
        return np.asarray(weights @ said / weights.sum(), np.float32)
