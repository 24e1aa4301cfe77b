"""Training speed: against the starting document's script, and against the arithmetic the machine can do.

1. Wall clock, loading included, until the script reaches its best held-out loss (mean squared error in action units)
   at its defaults, all threads; against a whole short training of ours that ends with a lower loss on the same
   held-out episodes. Starting Python and importing torch, its optimizers included, are outside of both clocks.
2. Samples per second, one thread each, the same network and batch size, everything else of each training left on;
   and as a share of the floor: 6 multiply-adds x the linear layers' size / the rate of a float32 256x256x256 product
   on one thread.
Runs that are compared alternate.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import starting_document
import torch
from common import Results, data

from understudy.dataset import Dataset
from understudy.policies import FeedForward, FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.trainer import train

SHAPE = FeedForwardConfig(hidden=(256, 256, 256), head="squared")
CONFIG = TrainConfig(held_out=0.2, clip_targets=False, measure_every=50)
STEPS = 80
ROUNDS = 3


def split() -> tuple[Dataset, list[Path], list[Path]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.open(data("adroit_door_human/episodes"))
    files = sorted(data("adroit_door_human/episodes").glob("*.npz"))
    held_out = {row.file for row in dataset.split(CONFIG.held_out, seed=CONFIG.seed)[1].rows}
    chosen = [path for path in files if path.name in {Path(name).name for name in held_out}]
    return dataset, [path for path in files if path not in chosen], chosen


def script(epochs: int, batch_size: int = 64) -> dict[str, float]:
    """The script's best held-out loss, when it reached it, and its speed."""
    _, training, held_out = split()
    curve: list[tuple[float, float, int]] = []

    def keep(epoch: int, seconds: float, loss: float, samples: int) -> bool:
        curve.append((seconds, loss, samples))
        return True

    starting_document.run(training, held_out, epochs=epochs, batch_size=batch_size, on_epoch=keep)
    seconds, loss, _ = min(curve, key=lambda row: row[1])
    speed = (curve[-1][2] - curve[0][2]) / (curve[-1][0] - curve[0][0]) if epochs > 1 else 0.0
    return {"best_loss": loss, "seconds_to_best": seconds, "seconds": curve[-1][0], "samples_per_s": speed}


def ours() -> dict[str, float]:
    """Seconds of a whole training of ours, loading included, and the held-out loss it ends with."""
    began = time.perf_counter()
    dataset, _, _ = split()
    policy = train(FeedForward.for_data(dataset, SHAPE), dataset, replace(CONFIG, steps=STEPS))
    seconds = time.perf_counter() - began
    unseen = dataset.split(CONFIG.held_out, seed=CONFIG.seed)[1]
    observations = torch.from_numpy(np.concatenate([one.observations[:-1] for one in unseen]))[:, None]
    actions = np.concatenate([one.actions for one in unseen])
    with torch.no_grad():
        predicted = policy.predict_batch(observations)[:, 0].numpy()
    return {"seconds": seconds, "held_out_loss": float(np.mean((predicted - actions) ** 2))}


def our_speed() -> dict[str, float]:
    """Samples per second of our training, all of it on, as the median over its measurements."""
    dataset, _, _ = split()
    speeds: list[float] = []
    config = replace(CONFIG, steps=3000, measure_every=500)
    train(FeedForward.for_data(dataset, SHAPE), dataset, config, on_log=lambda log: speeds.append(log.samples_per_s))
    return {"samples_per_s": statistics.median(speeds)}


def floor() -> dict[str, float]:
    """Samples per second if a step were nothing but its matrix products, at this machine's rate for them."""
    torch.set_num_threads(1)
    matrix = torch.randn(256, 256)
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            matrix @ matrix
        rates.append(200 * 256**3 / (time.perf_counter() - began))
    sizes = [39, *SHAPE.hidden, 28]
    multiply_adds = sum(one * two for one, two in itertools.pairwise(sizes))
    # Forward, and backward to inputs and to weights: 3 products, each of so many multiply-adds a sample.
    return {
        "gflop_per_s": 2e-9 * statistics.median(rates),
        "samples_per_s": statistics.median(rates) / (3 * multiply_adds),
    }


def warm() -> None:
    """One optimizer step on nothing: torch imports half of itself there, which is no part of either training."""
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()


def child(what: str, threads: int | None, *arguments: float) -> dict[str, float]:
    """Runs one measurement in its own process, so that threads and caches are its own."""
    command = [sys.executable, __file__, "--child", what, str(threads or 0), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    results = Results("training_speed", data="adroit_door_human/episodes", seeds=[0], network="39-256-256-256-28")
    default = [results.cell("script, default threads, 200 epochs", lambda: child("script", None, 200))]
    short = [results.cell(f"ours, {STEPS} steps, {i}", lambda: child("ours", 1)) for i in range(ROUNDS)]
    slow, fast, bound = [], [], []
    for i in range(ROUNDS):
        slow.append(results.cell(f"script, one thread, {i}", lambda: child("script", 1, 12, CONFIG.batch_size)))
        fast.append(results.cell(f"ours, one thread, {i}", lambda: child("our_speed", 1)))
        bound.append(results.cell(f"floor, one thread, {i}", lambda: child("floor", 1)))

    def middle(cells: list[dict[str, float]], key: str = "samples_per_s") -> float:
        return statistics.median(cell[key] for cell in cells)

    results.write(
        script_best_held_out_loss=default[0]["best_loss"],
        our_held_out_loss=middle(short, "held_out_loss"),
        times_faster_to_the_scripts_best_loss=default[0]["seconds_to_best"] / middle(short, "seconds"),
        script_samples_per_s=middle(slow),
        our_samples_per_s=middle(fast),
        times_the_scripts_speed=statistics.median(
            f["samples_per_s"] / s["samples_per_s"] for f, s in zip(fast, slow, strict=True)
        ),
        share_of_the_floor=statistics.median(
            f["samples_per_s"] / b["samples_per_s"] for f, b in zip(fast, bound, strict=True)
        ),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        what, threads, arguments = sys.argv[2], int(sys.argv[3]), [float(one) for one in sys.argv[4:]]
        if threads:
            torch.set_num_threads(threads)
        measure = {"script": lambda: script(*map(int, arguments)), "ours": ours, "our_speed": our_speed, "floor": floor}
        warm()
        print(json.dumps(measure[what]()))
    else:
        main()
