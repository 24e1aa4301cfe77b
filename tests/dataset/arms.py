"""Clean demonstrations of a simulated arm, and a tiny world in which one can be recorded."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from understudy.episode import Episode
from understudy.spec import Channel, Spec

JOINTS = 4
SPEC = Spec(
    "arm",
    50.0,
    (
        *(Channel(f"joint_{index}.position", "rad") for index in range(JOINTS)),
        *(Channel(f"joint_{index}.velocity", "rad/s") for index in range(JOINTS)),
        Channel("object.x", "m"),
        Channel("object.y", "m"),
        Channel("gripper", "1"),
    ),
    (
        *(Channel(f"joint_{index}.target_velocity", "rad/s", -3.0, 3.0) for index in range(JOINTS)),
        Channel("grip", "1", -1, 1),
    ),
)


def human_episode(rng: np.random.Generator, *, paced: bool = True, noise: float = 1e-3) -> Episode:
    """Smooth motion with tremor, sensors with noise; an object that stands still until it is touched."""
    steps = int(rng.integers(100, 220))
    clock = np.arange(steps) / 50
    wanted = sum(
        rng.uniform(0.2, 0.6, JOINTS)
        * np.sin(2 * np.pi * rng.uniform(0.1, 0.8, JOINTS) * clock[:, None] + rng.uniform(0, 6, JOINTS))
        for _ in range(4)
    )
    wanted = wanted + np.cumsum(rng.normal(0, 0.03, (steps, JOINTS)), axis=0) + rng.normal(0, 0.02, (steps, JOINTS))
    return _simulate(rng, wanted, steps, paced, noise)


def script_episode(rng: np.random.Generator, *, paced: bool = False, noise: float = 0.0) -> Episode:
    """A proportional controller without noise that goes through three random waypoints."""
    steps = int(rng.integers(100, 220))
    goals = rng.uniform(-1, 1, (3, JOINTS))
    return _simulate(rng, None, steps, paced, noise, goals=goals)


def _simulate(
    rng: np.random.Generator, wanted: Any, steps: int, paced: bool, noise: float, goals: Any = None
) -> Episode:
    position, velocity = rng.uniform(-1, 1, JOINTS), np.zeros(JOINTS)
    thing = rng.uniform(-0.3, 0.3, 2)
    touched, gripped = int(0.4 * steps), int(0.5 * steps)
    rows, actions = [], []
    for step in range(steps + 1):
        grip = 1.0 if step >= gripped else -1.0
        rows.append(np.concatenate([position, velocity, thing, [grip]]))
        if step == steps:
            break
        if goals is not None:
            action = np.clip(4 * (goals[min(2, 3 * step // steps)] - position), -3, 3)
        else:
            action = np.clip(wanted[step], -3, 3)
        actions.append(np.concatenate([action, [grip]]))
        velocity = velocity + 0.6 * (action - velocity)
        position = position + velocity / 50
        if step > touched:
            thing = thing + 0.01 * velocity[:2]
    observations = np.array(rows)
    observations[:, :-1] += noise * rng.normal(size=observations[:, :-1].shape)
    times = np.arange(steps) / 50 + rng.normal(0, 2e-4, steps) if paced else np.cumsum(rng.gamma(2, 2e-4, steps))
    return Episode(
        observations,
        np.array(actions),
        labels=np.array(actions),
        labelled=np.ones(steps, bool),
        rewards=-np.abs(observations[1:, 0]),
        succeeded=np.arange(steps) == steps - 1,
        time_s=times,
        terminated=True,
        success=1,
        seed=int(rng.integers(0, 2**31)),
    )


class PacedWorld(gym.Env[Any, Any]):
    """A point that follows its action; keeps its rate by the clock, stalls where told, and keeps its own times."""

    def __init__(self, control_hz: float = 0.0, length: int = 20, stalls: dict[int, float] | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.control_hz = control_hz
        self.length, self.stalls = length, stalls or {}
        self.stamps: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._state = self.np_random.normal(size=3)
        self.stamps = [time.monotonic()]
        return self._state, {}

    def step(self, action: Any) -> Any:
        index = len(self.stamps) - 1
        if self.control_hz:
            due = self.stamps[-1] + 1 / self.control_hz + self.stalls.get(index, 0.0)
            time.sleep(max(0.0, due - time.monotonic()))
        self._state = self._state + 0.1 * np.append(action, 0.01) + 1e-4 * self.np_random.normal(size=3)
        self.stamps.append(time.monotonic())
        done = len(self.stamps) > self.length
        return self._state, -float(np.abs(self._state).sum()), False, done, {"success": done}


class Wanderer:
    """An expert that draws its actions."""

    engaged = True

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def label(self, observation: Any) -> Any:
        return self._rng.uniform(-1, 1, 2).astype(np.float32)
