"""Growth: 10,000 episodes, 2 million steps of the door's size, warm file cache.

How long it takes to open, what a training sample costs beside the 25-episode set, and how much memory stays resident
beside the float32 arrays that training needs (observations and targets).
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Results

EPISODES, STEPS, OBSERVATIONS, ACTIONS = 10_000, 200, 39, 28
SMALL = 25


def make(folder: Path) -> dict[str, float]:
    from understudy.dataset import Dataset
    from understudy.episode import Episode
    from understudy.spec import Channel, Spec

    spec = Spec(
        "test/Growth-v0",
        100.0,
        tuple(Channel(f"o{i}", "1") for i in range(OBSERVATIONS)),
        tuple(Channel(f"a{i}", "1", -1, 1) for i in range(ACTIONS)),
    )
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    with Dataset.create(folder, spec) as dataset:
        for _ in range(EPISODES):
            observations = rng.standard_normal((STEPS + 1, OBSERVATIONS), np.float32)
            dataset.append(Episode(observations, observations[:-1, :ACTIONS] * 0.3, success=1))
    return {"seconds": time.perf_counter() - began}


def measure(folder: Path, episodes: int) -> dict[str, float]:
    """In its own process: opening, loading, 400 training steps, and the resident memory after loading."""
    import torch

    from understudy.dataset import Dataset
    from understudy.policies import FeedForward, FeedForwardConfig
    from understudy.recipe import TrainConfig
    from understudy.trainer import train

    torch.set_num_threads(1)
    began = time.perf_counter()
    dataset = Dataset.open(folder)
    opened = time.perf_counter() - began
    dataset = dataset.select(range(episodes))
    before = _resident()
    speeds: list[float] = []
    shape = FeedForwardConfig(hidden=(256, 256, 256))
    config = TrainConfig(steps=1600, measure_every=400, held_out=0.0, batch_size=256)
    grown: list[float] = []

    def look(log: object) -> None:
        speeds.append(log.samples_per_s)  # type: ignore[attr-defined]
        grown.append(_resident() - before)

    train(FeedForward.for_data(dataset, shape), dataset, config, on_log=look)
    arrays = 4 * episodes * STEPS * (OBSERVATIONS + ACTIONS)
    return {
        "open_seconds": opened,
        "samples_per_s": statistics.median(speeds),
        "resident_bytes": grown[-1],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "array_bytes": arrays,
    }


def _resident() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def child(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    results = Results("growth", episodes=EPISODES, steps=STEPS, seeds=[0])
    if len(results.cells) < 7:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            results.cell("making it", lambda: make(folder))
            for turn in range(3):
                results.cell(f"large, {turn}", lambda: child(folder, EPISODES))
                results.cell(f"small, {turn}", lambda: child(folder, SMALL))
    large = [results.cells[f"large, {turn}"] for turn in range(3)]
    small = [results.cells[f"small, {turn}"] for turn in range(3)]
    results.write(
        open_seconds=statistics.median(cell["open_seconds"] for cell in large),
        cost_per_sample_large_over_small=statistics.median(
            one["samples_per_s"] / two["samples_per_s"] for one, two in zip(small, large, strict=True)
        ),
        resident_over_arrays=statistics.median(cell["resident_bytes"] / cell["array_bytes"] for cell in large),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
