"""PickPlace from 50 clean demonstrations of the scripted expert: the default recipe, 5 seeds x 100 starts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from common import Results

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, record
from understudy.evaluate import evaluate, wilson_interval
from understudy.policies import Ensemble
from understudy.recipe import TrainConfig
from understudy.sim import expert_for
from understudy.trainer import train
from understudy.worlds import make_env

WORLD, DEMONSTRATIONS, STARTS, FIRST_START, SEEDS = "understudy/PickPlace-v0", 50, 100, 10_000, (0, 1, 2, 3, 4)


def measure(dataset: Dataset, seed: int) -> dict[str, object]:
    began = time.perf_counter()
    policy = train(Ensemble.for_data(dataset, seed=seed), dataset, TrainConfig(seed=seed))
    seconds = time.perf_counter() - began
    result = evaluate(WORLD, policy, episodes=STARTS, seed=FIRST_START, workers=2)
    return {"success_rate": result.success_rate, "interval": result.interval, "training_seconds": seconds}


def main() -> None:
    results = Results(
        "pick_place_bc", world=WORLD, demonstrations="seeds 0 to 49", seeds=SEEDS, first_start=FIRST_START
    )
    with tempfile.TemporaryDirectory() as name:
        env = make_env(WORLD)
        with Dataset.create(Path(name) / "data", env) as dataset:
            for _ in record(env, Demonstrator(expert_for(env, "scripted")), dataset, seeds=range(DEMONSTRATIONS)):
                pass
            cells = [results.cell(f"seed {seed}", lambda seed=seed: measure(dataset, seed)) for seed in SEEDS]
        env.close()
    rates = [cell["success_rate"] for cell in cells]
    results.write(
        mean_success=sum(rates) / len(rates),
        lowest_seed=min(rates),
        interval_over_all_starts=wilson_interval(round(sum(rates) * STARTS), STARTS * len(SEEDS)),
        longest_training_seconds=max(cell["training_seconds"] for cell in cells),
    )


if __name__ == "__main__":
    main()
