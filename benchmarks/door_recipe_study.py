"""What matters in the door's recipe: the default of `understudy train bc`, and one ingredient changed at a time.

2 training seeds x 100 tuning starts (580000 and on) for each; these starts are not those of the door's figure.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from common import Results, data

from understudy.dataset import Dataset
from understudy.evaluate import evaluate
from understudy.network_shape import FeedForwardConfig
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.recipe import TrainConfig
from understudy.trainer import train

WORLD, STARTS, FIRST_START, SEEDS = "understudy/AdroitDoor-v0", 100, 580_000, (0, 1)
SHAPE, RECIPE = FeedForwardConfig(), TrainConfig()
VARIANTS = {
    "default": (SHAPE, RECIPE, True),
    "lead 0": (SHAPE, replace(RECIPE, lead=0), True),
    "one network": (SHAPE, RECIPE, False),
    "squared error": (replace(SHAPE, head="squared"), RECIPE, True),
    "noise 0.1": (SHAPE, replace(RECIPE, observation_noise=0.1), True),
    "no noise": (SHAPE, replace(RECIPE, observation_noise=0.0), True),
    "last step kept": (SHAPE, replace(RECIPE, keep="last"), True),
    "chunk of 8": (replace(SHAPE, horizon=8), RECIPE, True),
}


def measure(shape: FeedForwardConfig, recipe: TrainConfig, ensemble: bool, seed: int) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.open(data("adroit_door_human/episodes"))
    policy: Policy = (
        Ensemble.for_data(dataset, shape, seed=seed) if ensemble else FeedForward.for_data(dataset, shape, seed=seed)
    )
    policy = train(policy, dataset, replace(recipe, seed=seed))
    result = evaluate(WORLD, policy, episodes=STARTS, seed=FIRST_START)
    return {"success_rate": result.success_rate, "sustained_rate": result.sustained_rate}


def main() -> None:
    results = Results("door_recipe_study", world=WORLD, seeds=SEEDS, first_start=FIRST_START, starts=STARTS)
    summary = {}
    for name, variant in VARIANTS.items():
        rates = [
            results.cell(f"{name}, seed {seed}", lambda v=variant, seed=seed: measure(*v, seed))["success_rate"]
            for seed in SEEDS
        ]
        summary[name.replace(" ", "_")] = sum(rates) / len(rates)
    results.write(**summary)


if __name__ == "__main__":
    main()
