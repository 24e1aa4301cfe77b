"""How fast does fine-tuning collect, and what does learning add?

On `understudy/AdroitDoor-v0`, two processes, in turn within one run:

    env.step   two processes that call `env.step` with the recorded actions of a batch, and nothing else
    collect    a batch of `finetune`, the policy sampling in numpy: from sending the weights to the last episode
    learn      advantages, update, value function and checkpoint of the same batch

once for the recipe of DAPG's authors and once for each other preset that begins with demonstrations. Promised: collect
reaches 90 % of env.step, and learn adds at most 25 % to the wall clock of NPG. Wall-clock times suffer from whatever
else the machine does, so each share is of neighbours in time, and the median of several.

    python benchmarks/collection_speed.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import Results, data
from parallel_rollouts import Stepper

import understudy as us
from understudy.collector import Start
from understudy.policies import Policy
from understudy.presets import Preset
from understudy.reinforcement import Term
from understudy.workers import Pool
from understudy.worlds import make_env

WORLD = "understudy/AdroitDoor-v0"
BATCHES, PROMISED_SHARE, PROMISED_OVERHEAD = 8, 0.9, 0.25
KINDS = {
    "residual": "residual",
    "small batches": "small-batches",
    "DAPG as published": "dapg-paper",
}


class Kept:
    """A watcher that keeps what was asked of the world, to be asked again."""

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.seeds: list[int] = []

    def on_phase(self, phase: str, episodes: int) -> None:
        """A batch begins."""
        self.actions, self.seeds = [], []

    def on_episode(self, episode: us.Episode) -> None:
        """Keeps its actions."""
        self.actions.append(episode.actions)
        self.seeds.append(episode.seed)


class Again(Stepper):
    """Runs the actions that it was told last."""

    def hear(self, news: dict[int, Any]) -> None:
        """Actions (T, A) by seed."""
        self._recording = news


def stepped(pool: Pool, kept: Kept) -> float:
    """Seconds that two processes take for the actions of a batch."""
    pool.tell(dict(zip(kept.seeds, kept.actions, strict=True)))
    jobs = [Start(seed) for seed in kept.seeds]
    list(pool.map(jobs[:2]))  # with the actions in their hands
    began = time.perf_counter()
    list(pool.map(jobs))
    return time.perf_counter() - began


def measure(preset: Preset, demos: us.Dataset, batches: int) -> dict[str, list[float]]:
    """Steps, and seconds to collect and to learn, of each batch; beside each, those of env.step alone."""
    start: Policy = us.clone_for(
        replace(preset, clone=replace(preset.clone, steps=50), clone_epochs=None), demos, seed=0
    )
    update = us.update_for(preset.update, preset.update_options)
    term: Term = us.term_for(
        preset.term, demos, {**preset.term_options, "lam0": max(0.01, preset.term_options["lam0"])}
    )
    steps = batches * preset.finetune.episodes * 200
    config = replace(preset.finetune, steps=steps, judge_episodes=0)
    kept, rows = Kept(), {"steps": [], "collect_s": [], "learn_s": [], "env_step_s": []}
    with tempfile.TemporaryDirectory() as folder, Pool(Again({}), 2, build_patience_s=600) as pool:
        logs = us.finetune(
            start, WORLD, update, demo_term=term, config=config, workers=2, run=Path(folder) / "run", watcher=kept
        )
        done = 0
        for log in logs:
            if log.verdict is None and log.iteration > 0:  # the first batch also starts the processes
                rows["steps"].append(log.step - done)
                rows["collect_s"].append(log.numbers["collect_s"])
                rows["learn_s"].append(log.numbers["learn_s"])
                rows["env_step_s"].append(stepped(pool, kept))
            done = log.step
    return rows


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = Results("collection_speed", world=WORLD, workers=2, batches=BATCHES)
    env = make_env(WORLD)
    demos = us.Dataset.open(data("adroit_door_human/episodes")).with_spec(us.spec_of(env))
    env.close()
    summary: dict[str, Any] = {"promised_share": PROMISED_SHARE, "promised_overhead": PROMISED_OVERHEAD}
    for name, preset in KINDS.items():
        batches = 3 if us.PRESETS[preset].finetune.episodes > 100 else BATCHES
        rows = results.cell(name, lambda preset=preset, batches=batches: measure(us.PRESETS[preset], demos, batches))
        pairs = list(zip(rows["collect_s"], rows["learn_s"], rows["env_step_s"], rows["steps"], strict=True))
        summary[name] = {
            "share_of_env_step": statistics.median(alone / collect for collect, _, alone, _ in pairs),
            "overhead_of_learning": statistics.median(learn / collect for collect, learn, *_ in pairs),
            "steps_per_second": statistics.median(steps / (collect + learn) for collect, learn, _, steps in pairs),
        }
    results.write(**summary)


if __name__ == "__main__":
    main()
