"""A GPU beside the CPU: the same training on both, of the door's size, on data that this script makes up.

For the default ensemble of `train bc`, for one network of three wide layers with large batches, and for an ensemble of
such: samples per second on one CPU thread, on eight, on the GPU, and on the GPU where it is asked anew for each kernel
instead of once for the whole gradient; the held-out loss that each ends with; and whether the GPU gives the same bytes
twice, and after a kill. Needs a GPU, no other data and no simulator.

    python benchmarks/gpu_training.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Results

import understudy as us
from understudy.policy_file import weights_fingerprint

EPISODES, LENGTH, OBSERVATIONS, ACTIONS, SEED = 200, 200, 39, 28, 0
WIDE = us.FeedForwardConfig(hidden=(1024, 1024, 1024))
SIZES = {  # network, members, batch of each, steps
    "default of train bc": (us.FeedForwardConfig(), 5, 128, 1200),
    "one network, 256 x 256": (us.FeedForwardConfig(), 1, 128, 1200),
    "3 x 1024, batches of 4,096": (WIDE, 1, 4096, 120),
    "5 members of 3 x 1024, batches of 4,096": (WIDE, 5, 4096, 60),
}
PLACES = {  # device, threads, whether the gradient is recorded
    "cpu, 1 thread": ("cpu", 1, False),
    "cpu, 8 threads": ("cpu", 8, False),
    "gpu": ("cuda", 1, True),
    "gpu, not recorded": ("cuda", 1, False),
}


def made_up(folder: Path) -> us.Dataset:
    """Episodes of the door's size, whose actions are a smooth function of the observations."""
    spec = us.Spec(
        "test/MadeUp-v0",
        100.0,
        tuple(us.Channel(f"o{index}", "1") for index in range(OBSERVATIONS)),
        tuple(us.Channel(f"a{index}", "1", -1, 1) for index in range(ACTIONS)),
    )
    rng = np.random.default_rng(SEED)
    into, out = rng.standard_normal((OBSERVATIONS, 64)), rng.standard_normal((64, ACTIONS))
    with us.Dataset.create(folder, spec) as dataset:
        for _ in range(EPISODES):
            walk = rng.standard_normal((LENGTH + 1, OBSERVATIONS)).cumsum(0) / 10
            actions = np.tanh(np.tanh(walk[:-1] @ into / 6) @ out / 8)
            dataset.append(us.Episode(walk.astype(np.float32), actions.astype(np.float32), success=1))
    return us.Dataset.open(folder)


class Killed(Exception):
    """Ends a training between two checkpoints, as a kill would."""


def trained(size: str, place: str, dataset: us.Dataset, **options: Any) -> tuple[us.Policy, list[us.TrainLog]]:
    shape, members, batch, steps = SIZES[size]
    device, threads, recorded = PLACES[place]
    if device == "cpu" and batch > 1000:
        steps = 12
    recipe = us.TrainConfig(
        steps=steps, batch_size=batch, measure_every=steps // 6, device=device, threads=threads, seed=SEED
    )
    policy = (
        us.Ensemble.for_data(dataset, shape, members=members, seed=SEED)
        if members > 1
        else us.FeedForward.for_data(dataset, shape, seed=SEED)
    )
    logs: list[us.TrainLog] = []
    with mock.patch.object(us.FeedForward, "loss_can_be_recorded", recorded):
        return us.train(policy, dataset, recipe, on_log=logs.append, **options), logs


def speed(size: str, place: str, dataset: us.Dataset) -> dict[str, float]:
    """The median of the measurements after the first, which also warms up."""
    _, logs = trained(size, place, dataset)
    return {
        "samples_per_s": statistics.median(log.samples_per_s for log in logs[1:]),
        "held_out_loss": logs[-1].held_out_loss,
        "steps": logs[-1].step,
    }


def same_bytes(size: str, dataset: us.Dataset) -> dict[str, bool]:
    """Whether the GPU gives the same bytes twice, and when it was interrupted between two checkpoints."""

    def die(step: int) -> None:
        if step == SIZES[size][3] // 2 + 3:
            raise Killed

    with tempfile.TemporaryDirectory() as folder:
        first, second = (trained(size, "gpu", dataset, run=Path(folder) / name)[0] for name in ("one", "two"))
        try:
            trained(size, "gpu", dataset, run=Path(folder) / "killed", on_step=die)
        except Killed:
            third = trained(size, "gpu", dataset, run=Path(folder) / "killed", resume=True)[0]
    prints = [weights_fingerprint(policy.arrays()) for policy in (first, second, third)]
    return {"twice": prints[0] == prints[1], "after a kill": prints[0] == prints[2]}


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU")
    results = Results("gpu_training", seeds=[SEED], gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda)
    with tempfile.TemporaryDirectory() as folder:
        dataset = made_up(Path(folder) / "data")
        for size in SIZES:
            for place in PLACES:
                results.cell(f"{size}, {place}", lambda size=size, place=place: speed(size, place, dataset))
            results.cell(f"{size}, same bytes", lambda size=size: same_bytes(size, dataset))
    cells = results.cells

    def times(size: str, place: str) -> float:
        return float(cells[f"{size}, gpu"]["samples_per_s"] / cells[f"{size}, {place}"]["samples_per_s"])

    results.write(
        times_one_thread={size: times(size, "cpu, 1 thread") for size in SIZES},
        times_eight_threads={size: times(size, "cpu, 8 threads") for size in SIZES},
        times_not_recorded={size: times(size, "gpu, not recorded") for size in SIZES},
        same_bytes=all(all(cells[f"{size}, same bytes"].values()) for size in SIZES),
    )


if __name__ == "__main__":
    main()
