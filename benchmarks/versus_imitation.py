"""Behavioral Cloning beside `imitation` 1.0.1: same data, network, batch size and number of samples, one thread each.

`imitation` needs its own environment (it pins Gymnasium 0.29):

    python -m venv imitation-env
    imitation-env/bin/pip install torch==2.13.0
    imitation-env/bin/pip install imitation==1.0.1 "setuptools<81"
    IMITATION_PYTHON=imitation-env/bin/python python benchmarks/versus_imitation.py

The data are the 25 human door demonstrations. Both train one perceptron of 256-256 with ReLU, ours in the default
recipe but for the number of steps and the ensemble; what `imitation` trains is brought back as arrays and evaluated by
the same loop, on the same starts, as ours.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS, BATCH, STARTS, FIRST_START, SEEDS = 8000, 128, 100, 710_000, (0, 1, 2)


def perceptron(observations: Any, actions: Any) -> Any:
    """Runs in imitation's environment: a policy of Stable-Baselines3 for two spaces, 256-256 with ReLU."""
    import torch
    from stable_baselines3.common.policies import ActorCriticPolicy

    shape = {"pi": [256, 256], "vf": [256, 256]}
    return ActorCriticPolicy(observations, actions, lambda _: 1e-3, net_arch=shape, activation_fn=torch.nn.ReLU)


def save_mean(policy: Any, out: str) -> None:
    """Saves the layers of such a policy's mean action as arrays, for `Imitated`."""
    layers = [*(m for m in policy.mlp_extractor.policy_net if hasattr(m, "weight")), policy.action_net]
    arrays = {f"w{i}": layer.weight.detach().numpy() for i, layer in enumerate(layers)}
    arrays |= {f"b{i}": layer.bias.detach().numpy() for i, layer in enumerate(layers)}
    np.savez(out, **arrays)


def child(folder: str, out: str, seed: int) -> None:
    """Runs in imitation's environment: trains with its BC and saves the weights of the mean action."""
    import gymnasium as gym
    import torch
    from imitation.algorithms import bc
    from imitation.data.types import Transitions

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    began = time.perf_counter()
    files = [np.load(path) for path in sorted(Path(folder).glob("*.npz"))]
    observations = np.concatenate([file["observations"] for file in files]).astype(np.float32)
    actions = np.clip(np.concatenate([file["actions"] for file in files]), -1, 1).astype(np.float32)
    data = Transitions(
        obs=observations,
        acts=actions,
        infos=np.array([{}] * len(actions)),
        next_obs=observations,
        dones=np.zeros(len(actions), bool),
    )
    spaces = [gym.spaces.Box(-np.inf, np.inf, (39,), np.float32), gym.spaces.Box(-1, 1, (28,), np.float32)]
    policy = perceptron(*spaces)
    trainer = bc.BC(
        observation_space=spaces[0],
        action_space=spaces[1],
        rng=np.random.default_rng(seed),
        policy=policy,
        demonstrations=data,
        batch_size=BATCH,
    )
    loaded = time.perf_counter()
    trainer.train(n_batches=STEPS, progress_bar=False, log_interval=10**9)
    done = time.perf_counter()
    save_mean(policy, out)
    print(json.dumps({"samples_per_s": STEPS * BATCH / (done - loaded), "seconds": done - began}))


class Imitated:
    """The policy that `imitation` trained, as an agent."""

    def __init__(self, path: str) -> None:
        self._arrays = dict(np.load(path))

    def reset(self, seed: int) -> None:
        """Nothing is kept."""

    def act(self, observation):
        """Runs the layers without scaling, as Stable-Baselines3 builds them."""
        from understudy.agent import Command

        values, last = observation, len(self._arrays) // 2 - 1
        for layer in range(last + 1):
            values = self._arrays[f"w{layer}"] @ values + self._arrays[f"b{layer}"]
            values = np.maximum(values, 0) if layer < last else values
        return Command(values.astype(np.float32))


def theirs(interpreter: str, seed: int) -> dict[str, float]:
    from common import data

    from understudy.collector import rollouts

    with tempfile.TemporaryDirectory() as name:
        out = f"{name}/weights.npz"
        command = [interpreter, __file__, "--child", str(data("adroit_door_human/episodes")), out, str(seed)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        measured = json.loads(output.splitlines()[-1])
        starts = range(FIRST_START, FIRST_START + STARTS)
        episodes = rollouts("understudy/AdroitDoor-v0", Imitated(out), starts, workers=2)
        measured["success_rate"] = sum(episode.success == 1 for episode in episodes) / STARTS
    return measured


def ours(seed: int) -> dict[str, float]:
    import warnings

    from common import data

    from understudy.dataset import Dataset
    from understudy.evaluate import evaluate
    from understudy.network_shape import FeedForwardConfig
    from understudy.policies import FeedForward
    from understudy.recipe import TrainConfig
    from understudy.trainer import train

    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.open(data("adroit_door_human/episodes"))
    shape = FeedForwardConfig(hidden=(256, 256))
    config = TrainConfig(steps=STEPS, batch_size=BATCH, seed=seed)
    speeds: list[float] = []
    policy = train(
        FeedForward.for_data(dataset, shape, seed=seed),
        dataset,
        config,
        on_log=lambda log: speeds.append(log.samples_per_s),
    )
    seconds = time.perf_counter() - began
    result = evaluate("understudy/AdroitDoor-v0", policy, episodes=STARTS, seed=FIRST_START, workers=2)
    return {"samples_per_s": statistics.median(speeds), "seconds": seconds, "success_rate": result.success_rate}


def main() -> None:
    from common import Results

    interpreter = os.environ.get("IMITATION_PYTHON")
    if not interpreter:
        sys.exit("set IMITATION_PYTHON to the interpreter of an environment with imitation; see the top of this file")
    results = Results("versus_imitation", data="adroit_door_human/episodes", seeds=SEEDS, first_start=FIRST_START)
    pairs = [
        (
            results.cell(f"imitation, seed {seed}", lambda seed=seed: theirs(interpreter, seed)),
            results.cell(f"understudy, seed {seed}", lambda seed=seed: ours(seed)),
        )
        for seed in SEEDS
    ]
    results.write(
        times_the_samples_per_s=statistics.median(us["samples_per_s"] / them["samples_per_s"] for them, us in pairs),
        imitation_success=statistics.mean(them["success_rate"] for them, _ in pairs),
        understudy_success=statistics.mean(us["success_rate"] for _, us in pairs),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
