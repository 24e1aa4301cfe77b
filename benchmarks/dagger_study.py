"""Tries budgets for `dagger_family.py`: on starts, seeds and demonstrations of their own.

For each task: cloning from a few numbers of demonstrations, and DAgger beside cloning at equal labels, as the table has
them. Cells run in two processes, and a stopped study continues.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Results
from dagger_family import MAX_STEPS, PROCESSES, ROUNDS, TASKS, bits, expert_of, interactive, seeded

import understudy as us

SEEDS, TUNED = (5, 6, 7), range(540_000, 540_100)
CURVE = (1, 2, 3)  # times the demonstrations that the task begins with


def clones(task: str, seed: int) -> dict[str, Any]:
    """Success of cloning from one, two and three times as many demonstrations."""
    spec = TASKS[task]
    env = us.make_env(spec.world)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        expert = us.sim.expert_for(env, expert_of(spec))
        demos = seeded(env, expert, Path(name) / "demos", CURVE[-1] * spec.demonstrations, 0, seed)
        for times in CURVE:
            few = demos.select(range(times * spec.demonstrations))
            clone = us.train(us.FeedForward.for_data(few, spec.shape, seed=seed), few, spec.recipe(seed))
            found[str(len(few))] = {"labels": few.steps, "success": bits(spec.world, clone, TUNED)}
    env.close()
    return found


def measure(name: str) -> Any:
    """The cell called `name`: "TASK, clones, seed N" or "TASK, dagger, seed N"."""
    task, what, seed = name.split(", ")
    number = int(seed.removeprefix("seed "))
    if what == "clones":
        return clones(task, number)
    return interactive(task, what, number, starts=TUNED, progress_starts=0)


def rate(bits_of_starts: str) -> float:
    return bits_of_starts.count("1") / len(bits_of_starts)


def main() -> None:
    results = Results(
        "dagger_study",
        choosable=True,
        tasks={name: asdict(task) for name, task in TASKS.items()},
        rounds=ROUNDS,
        seeds=SEEDS,
        first_start=TUNED.start,
        starts=len(TUNED),
        max_steps=MAX_STEPS,
    )
    wanted = [f"{name}, dagger, seed {seed}" for seed in SEEDS for name in TASKS]
    wanted += [f"{name}, clones, seed {seed}" for seed in SEEDS for name in TASKS]
    with ProcessPoolExecutor(PROCESSES) as pool:
        running = {pool.submit(measure, name): name for name in wanted if results.asks_for(name)}
        for done in as_completed(running):
            results.cells[running[done]] = done.result()
            print(running[done], str(done.result())[:100], flush=True)
            results.write()
    table: dict[str, Any] = {}
    for name, cell in results.cells.items():
        task, what, seed = name.split(", ")
        if what != "clones":
            row = {"dagger": rate(cell["success"]), "bc": rate(cell["bc"]["success"]), "labels": cell["labels"]}
            table.setdefault(task, {})[seed] = row
    results.write(tasks=table)


if __name__ == "__main__":
    main()
