"""The Behavioral Cloning script of the document this project started from, written anew from its description.

Described there: observations and actions z-scored over all data, a perceptron whose last layer is a tanh, mean squared
error, 200 epochs. Not described, and chosen as such scripts usually are: three hidden layers of 256 with ReLU, Adam at
1e-3, batches of 64 from a shuffled DataLoader over a Dataset that hands out one sample at a time. It splits by episode
here, so that its held-out loss is that of the same episodes as ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Demonstrations(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, observations: np.ndarray, actions: np.ndarray) -> None:
        self.observation_mean, self.observation_std = observations.mean(0), observations.std(0) + 1e-6
        self.action_mean, self.action_std = actions.mean(0), actions.std(0) + 1e-6
        self.observations = (observations - self.observation_mean) / self.observation_std
        self.actions = (actions - self.action_mean) / self.action_std

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (
            torch.tensor(self.observations[index], dtype=torch.float32),
            torch.tensor(self.actions[index], dtype=torch.float32),
        )


def network(observation_size: int, action_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(observation_size, 256), nn.ReLU(),
        nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, action_size), nn.Tanh(),
    )  # fmt: skip


def run(
    training: Sequence[Path],
    held_out: Sequence[Path],
    *,
    epochs: int = 200,
    batch_size: int = 64,
    seed: int = 0,
    on_epoch: Callable[[int, float, float, int], bool] = lambda epoch, seconds, loss, samples: True,
) -> None:
    """Trains as the script does; `on_epoch(epoch, seconds, held_out_mse_in_action_units, samples)` may stop it."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    loaded = [np.load(path) for path in training]
    dataset = Demonstrations(
        np.concatenate([one["observations"] for one in loaded]), np.concatenate([one["actions"] for one in loaded])
    )
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)
    unseen = [np.load(path) for path in held_out]
    observations = np.concatenate([one["observations"] for one in unseen])
    actions = np.concatenate([one["actions"] for one in unseen])
    inputs = torch.tensor((observations - dataset.observation_mean) / dataset.observation_std, dtype=torch.float32)
    policy = network(observations.shape[1], actions.shape[1])
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    samples = 0
    for epoch in range(epochs):
        for batch_observations, batch_actions in loader:
            loss = nn.functional.mse_loss(policy(batch_observations), batch_actions)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            samples += len(batch_observations)
        with torch.no_grad():
            predicted = policy(inputs).numpy() * dataset.action_std + dataset.action_mean
        error = float(np.mean((predicted - actions) ** 2))
        if not on_epoch(epoch, time.perf_counter() - began, error, samples):
            return
