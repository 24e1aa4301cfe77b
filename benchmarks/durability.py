"""What does "saved means saved" cost: an episode appended with and without fsync, and a step written to the journal?

append          `Dataset.append` of a door-sized episode (200 steps, 39 + 28 channels), fsync at every point
append, no sync the same with fsync switched off: what a crash of the process would survive, a power cut not
journal         `Journal.on_step`: what each step of a recording waits for
fsync           one fsync of the same number of bytes to the same disk: what the disk alone costs
open            `Dataset.open` of 10,000 episodes (the index is read, no episode)

python benchmarks/durability.py [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from common import RESULTS, host

from understudy import durable
from understudy.agent import Command
from understudy.dataset import Dataset, Journal
from understudy.dataset.index import add_body, file_name
from understudy.episode import Episode
from understudy.rollout import Step
from understudy.spec import Channel, Spec

STEPS, OBSERVATIONS, ACTIONS, SEED = 200, 39, 28, 0
SPEC = Spec("door-sized", 100.0, (Channel("o"),) * OBSERVATIONS, (Channel("a"),) * ACTIONS)


def episode(random: np.random.Generator) -> Episode:
    return Episode(
        random.normal(size=(STEPS + 1, OBSERVATIONS)),
        random.normal(size=(STEPS, ACTIONS)),
        time_s=np.arange(STEPS) / 100.0,
        initial_state={"qpos": random.normal(size=30)},
    )


def milliseconds(action: Callable[[], Any], times: int, pause_s: float = 0.0) -> dict[str, float]:
    """Median, 95th percentile and largest of so many calls, in ms."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append(1e3 * (time.perf_counter() - start))
        time.sleep(pause_s)
    found.sort()
    return {
        "median_ms": round(statistics.median(found), 4),
        "p95_ms": round(found[int(0.95 * times)], 4),
        "max_ms": round(found[-1], 4),
        "calls": times,
    }


def appends(folder: Path, times: int) -> dict[str, float]:
    random = np.random.default_rng(SEED)
    episodes = iter([episode(random) for _ in range(times)])
    with Dataset.create(folder, SPEC) as dataset:
        return milliseconds(lambda: dataset.append(next(episodes)), times)


def journal(folder: Path, times: int) -> dict[str, float]:
    random = np.random.default_rng(SEED)
    env: gym.Env[Any, Any] = gym.Env()
    made = episode(random)
    with Dataset.create(folder, SPEC) as dataset:
        writer = Journal(dataset, seed=SEED)
        writer.on_start(env, made.observations[0])
        label = made.actions[0]
        step = Step(
            0, made.observations[0], Command(label, label=label), label, 0.0, False, 0.0, made.observations[1], {}
        )
        found = milliseconds(lambda: writer.on_step(env, step), times, pause_s=0.002)
        writer.discard()
    return found


def fsyncs(folder: Path, times: int) -> dict[str, float]:
    data = os.urandom(STEPS * (OBSERVATIONS + 3 * ACTIONS) * 4)
    descriptor = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT)

    def write() -> None:
        os.write(descriptor, data)
        os.fsync(descriptor)

    try:
        return milliseconds(write, times)
    finally:
        os.close(descriptor)


def opening(folder: Path, count: int = 10_000) -> dict[str, float]:
    with Dataset.create(folder, SPEC) as dataset:
        first = dataset.append(episode(np.random.default_rng(SEED)))
        index = dataset.writer().index
        with open(folder / "episodes.jsonl", "ab") as file:
            for number in range(1, count):
                line = index.line(add_body(replace(first, id=number, file=file_name(number)), None))
                index.accept(line)
                file.write(line)
    return {**milliseconds(lambda: Dataset.open(folder).rows, 5), "episodes": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to be measured; the system's temporary one if not given"
    )
    parser.add_argument("--times", type=int, default=100)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        cells: dict[str, Any] = {"append": appends(folder / "a", chosen.times)}
        cells["fsync"] = fsyncs(folder, chosen.times)
        cells["journal"] = journal(folder / "j", 10 * chosen.times)
        kept = durable._os_fsync
        durable._os_fsync = lambda descriptor: None
        cells["append, no sync"] = appends(folder / "b", chosen.times)
        durable._os_fsync = kept
        cells["open"] = opening(folder / "o")
    for cell, values in cells.items():
        print(f"{cell:<16} {values}")
    RESULTS.mkdir(exist_ok=True)
    about = {
        "command": "python benchmarks/durability.py",
        "seed": SEED,
        "steps": STEPS,
        "channels": [OBSERVATIONS, ACTIONS],
    }
    names = {
        "append": "append_ms",
        "append, no sync": "append_without_sync_ms",
        "fsync": "fsync_alone_ms",
        "journal": "journal_step_ms",
    }
    summary = {quoted: cells[name]["median_ms"] for name, quoted in names.items()}
    result = {**about, "host": host(), "summary": summary, "cells": cells}
    (RESULTS / "durability.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
