"""Small datasets that tests learn from, made on the spot."""

import numpy as np

from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.spec import Channel, Spec

SPEC = Spec(
    "test/Point-v0",
    10.0,
    (Channel("x", "m", -2, 2), Channel("y", "m", -2, 2), Channel("dead", "1")),
    (Channel("x.velocity", "m/s", -1, 1), Channel("y.velocity", "m/s", -1, 1)),
)


def point_episode(seed: int, steps: int = 20, **columns) -> Episode:
    """A point that moves to the origin: action = -observation, the third channel never moves."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-1, 1, 2)
    observations, actions = [], []
    for _ in range(steps):
        action = -position
        observations.append([*position, 5.0])
        actions.append(action)
        position = position + 0.1 * action
    observations.append([*position, 5.0])
    return Episode(np.array(observations), np.array(actions), seed=seed, success=1, **columns)


def point_dataset(folder, episodes: int = 10, steps: int = 20, spec: Spec = SPEC) -> Dataset:
    """A dataset of `episodes` point episodes."""
    with Dataset.create(folder, spec) as dataset:
        for seed in range(episodes):
            dataset.append(point_episode(seed, steps))
    return Dataset.open(folder)
