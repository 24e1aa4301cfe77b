"""Adroit door from the 25 human demonstrations: the default recipe of `understudy train bc`, 5 seeds x 100 starts.

Nothing is chosen by rollouts on these starts (seeds 700000 and on); the recipe was chosen on starts 500000 to 599999.
No demonstration is filtered, and the data are a bare folder, as a user has them.
"""

from __future__ import annotations

import time
import warnings

from common import Results, data

from understudy.dataset import Dataset
from understudy.evaluate import evaluate, wilson_interval
from understudy.policies import Ensemble
from understudy.recipe import TrainConfig
from understudy.trainer import train

WORLD, STARTS, FIRST_START, SEEDS = "understudy/AdroitDoor-v0", 100, 700_000, (0, 1, 2, 3, 4)


def measure(seed: int) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.open(data("adroit_door_human/episodes"))
    began = time.perf_counter()
    policy = train(Ensemble.for_data(dataset, seed=seed), dataset, TrainConfig(seed=seed))
    seconds = time.perf_counter() - began
    result = evaluate(WORLD, policy, episodes=STARTS, seed=FIRST_START, workers=2)
    return {
        "success_rate": result.success_rate,
        "interval": result.interval,
        "sustained_rate": result.sustained_rate,
        "training_seconds": seconds,
        "successes": [trial.index for trial in result.trials if trial.success],
    }


def main() -> None:
    results = Results("door_bc", world=WORLD, data="adroit_door_human/episodes", seeds=SEEDS, first_start=FIRST_START)
    cells = [results.cell(f"seed {seed}", lambda seed=seed: measure(seed)) for seed in SEEDS]
    rates = [cell["success_rate"] for cell in cells]
    wins = round(sum(rates) * STARTS)
    results.write(
        mean_success=sum(rates) / len(rates),
        lowest_seed=min(rates),
        highest_seed=max(rates),
        interval_over_all_starts=wilson_interval(wins, STARTS * len(SEEDS)),
        mean_sustained=sum(cell["sustained_rate"] for cell in cells) / len(cells),
        mean_training_seconds=sum(cell["training_seconds"] for cell in cells) / len(cells),
    )


if __name__ == "__main__":
    main()
