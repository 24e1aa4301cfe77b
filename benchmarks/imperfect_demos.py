"""25 imperfect demonstrations of hammer and relocate, from the published experts: where the human ones cannot be had.

A person who teleoperates a hand is slower than a trained network, hesitates, and trembles. So is the expert here:

- slow: each channel of the command follows the expert's answer at a limited speed, drawn anew for each attempt;
- pauses: now and then the command stays where it is for a while;
- noise correlated in time (Ornstein-Uhlenbeck) on every channel.

Starts are the task's own. An attempt that fails is not kept, as nobody hands in a failed demonstration; one that
succeeds goes on for some steps. The same seed gives the same bytes.

    python benchmarks/imperfect_demos.py hammer FOLDER
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import data
from numpy.typing import NDArray

from understudy.agent import Demonstrator, Expert, ask
from understudy.dataset import Dataset
from understudy.rollout import rollout
from understudy.sim.experts import MLPExpert
from understudy.spec import spec_of
from understudy.worlds import make_env

DEMONSTRATIONS = 25


@dataclass(frozen=True, slots=True)
class Imperfection:
    """How far from the expert an imperfect demonstrator is.

    Args:
        slowest, fastest: share of the action range that the command moves in a second, drawn for each attempt.
        pauses_per_s: how often a pause begins.
        pause_s: the longest pause; lengths are uniform from a third of it.
        noise: deviation of the noise in half-ranges of the actions.
        noise_s: time constant of the noise.
        limit_steps: an attempt ends after so many steps.
        after_success: steps that a successful attempt goes on.
        first_seed: of the first attempt; the others follow.
    """

    slowest: float
    fastest: float
    pauses_per_s: float
    pause_s: float
    noise: float
    noise_s: float
    limit_steps: int = 300
    after_success: int = 30
    first_seed: int = 2000


class ImperfectExpert:
    """An expert as a person would be: slow, hesitating, trembling. See `Imperfection`.

    Args:
        expert: the one that is right.
        how: the imperfection.
        channels: of the action; its range is [-1, 1].
        control_hz: of the world.
    """

    engaged = True

    def __init__(self, expert: Expert, how: Imperfection, channels: int, control_hz: float) -> None:
        self._expert, self._how, self._channels, self._step_s = expert, how, channels, 1.0 / control_hz
        self._keep = math.exp(-self._step_s / how.noise_s)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._expert.reset(seed)
        self._random = np.random.default_rng([seed, 0x494D])
        self._speed = self._random.uniform(self._how.slowest, self._how.fastest)
        self._noise = self._random.standard_normal(self._channels)
        self._command: NDArray[np.float64] | None = None
        self._pause_steps = 0

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = ask(self._expert, observation).astype(np.float64)
        random, how = self._random, self._how
        self._noise = self._keep * self._noise + math.sqrt(1 - self._keep**2) * random.standard_normal(self._channels)
        begins, length_s = (
            random.random() < how.pauses_per_s * self._step_s,
            random.uniform(how.pause_s / 3, how.pause_s),
        )
        if self._command is None:
            self._command = answer
        elif self._pause_steps:
            self._pause_steps -= 1
        elif begins:
            self._pause_steps = round(length_s / self._step_s)
        else:
            reach = 2 * self._speed * self._step_s  # the range [-1, 1] is 2 wide
            self._command = self._command + np.clip(answer - self._command, -reach, reach)
        return np.clip(self._command + how.noise * self._noise, -1, 1).astype(np.float32)


IMPERFECTIONS = {
    "hammer": Imperfection(2.0, 4.0, 1.0, 0.6, 0.25, 0.5),
    "relocate": Imperfection(0.7, 1.5, 1.0, 0.6, 0.1, 0.2),
}


def make(task: str, folder: Path, how: Imperfection | None = None) -> tuple[Dataset, int]:
    """The dataset, made in `folder` unless it is there, and how many attempts it took (0 where it was there)."""
    how = how or IMPERFECTIONS[task]
    if (folder / "dataset.json").exists() and len(existing := Dataset.open(folder)) == DEMONSTRATIONS:
        return existing, 0
    env = make_env(f"understudy/Adroit{task.capitalize()}-v0", max_episode_steps=how.limit_steps)
    spec = spec_of(env)
    expert = MLPExpert(data("adroit_experts") / f"{task}.npz", spec)
    agent = Demonstrator(ImperfectExpert(expert, how, len(spec.actions), spec.control_hz))
    dataset = Dataset.create(folder, env)
    attempts = 0
    while len(dataset) < DEMONSTRATIONS:
        episode = rollout(env, agent, seed=how.first_seed + attempts, after_success=how.after_success)
        attempts += 1
        if episode.success == 1:
            dataset.append(episode)
    return dataset, attempts


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in IMPERFECTIONS:
        sys.exit(__doc__)
    dataset, attempts = make(sys.argv[1], Path(sys.argv[2]))
    print(f"{len(dataset)} demonstrations from {attempts} attempts in {sys.argv[2]}")
