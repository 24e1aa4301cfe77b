"""Success of PickPlace policies deployed on the simulated robot at the real rate, beside that in the simulator.

    python benchmarks/deploy_success.py [--anew]

The policies are trained here: BC with the default recipe (three seeds), and DAgger and DAPG from the first of them (the
preset `residual` with a demonstration term that fades, 60,000 steps with the shaped reward). The same
starts are run in the world and, through gate and guard, on robots that keep wall-clock time, several at once; one row
has measurements 30 ms old, commands 20 ms late, and noise of 1 mrad and 1 mm.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common import Results

import understudy as us
from understudy.dataset import Dataset
from understudy.evaluate import wilson_interval
from understudy.interactive import DAggerGate, dagger
from understudy.policies import Ensemble
from understudy.recipe import DAGGER_RECIPE, DAggerConfig, TrainConfig
from understudy.robots.sim import SimConfig, SimRobot

WORLD, DEMONSTRATIONS, STARTS, FIRST_START, STEPS = "understudy/PickPlace-v0", 50, 100, 10_000, 200
SEEDS, ROUNDS = (0, 1, 2), 3
ROBOTS = 8
WORSE = SimConfig(latency_s=0.03, command_latency_s=0.02, noise=0.001)


def deployed(policy: us.Policy, config: SimConfig) -> dict[str, Any]:
    """Every start on one of several robots, each in its own processes."""

    def some(robot: int) -> list[us.Deployed]:
        arm = SimRobot(config)
        env = us.RobotEnv(arm)
        seeds = range(FIRST_START + robot, FIRST_START + STARTS, ROBOTS)
        try:
            return list(us.deploy(env, policy, seeds=seeds, max_steps=STEPS))
        finally:
            env.close()
            arm.machine.close()

    with ThreadPoolExecutor(ROBOTS) as pool:
        runs = [run for share in pool.map(some, range(ROBOTS)) for run in share]
    wins = sum(run.episode.success == 1 for run in runs)
    interventions: dict[str, int] = {}
    for run in runs:
        for kind, count in run.counts.items():
            interventions[str(kind)] = interventions.get(str(kind), 0) + count
    return {
        "runs": len(runs),
        "success_rate": wins / len(runs),
        "interval": wilson_interval(wins, len(runs)),
        "stopped": sum(bool(run.stopped) for run in runs),
        "overruns": sum(run.overruns for run in runs),
        "ticks": sum(run.ticks for run in runs),
        "oldest_action_s": max(run.oldest_s for run in runs),
        "interventions": interventions,
    }


def simulated(policy: us.Policy) -> dict[str, Any]:
    result = us.evaluate(WORLD, policy, episodes=STARTS, seed=FIRST_START, workers=2)
    return {"success_rate": result.success_rate, "interval": result.interval}


def bc(dataset: Dataset, seed: int) -> us.Policy:
    return us.train(Ensemble.for_data(dataset, seed=seed), dataset, TrainConfig(seed=seed))


def corrected(dataset: Dataset, folder: Path, start: us.Policy) -> us.Policy:
    env = us.make_env(WORLD)
    rounds = DAggerConfig(rounds=ROUNDS)
    told = dagger(
        env,
        us.sim.expert_for(env, "scripted"),
        DAggerGate(),
        start,
        dataset,
        rounds,
        DAGGER_RECIPE,
        run=folder / "dagger",
    )
    policy = list(told)[-1].policy
    env.close()
    return policy


def reinforced(dataset: Dataset, start: us.Policy) -> us.Policy:
    preset = us.PRESETS["residual"]
    world = partial(us.make_env, WORLD, reward="shaped")
    update = us.update_for(preset.update, preset.update_options)
    told = us.finetune(
        start, world, update, demo_term=us.DemoTerm(dataset, lam0=0.1), steps=60_000, config=preset.finetune, workers=2
    )
    return list(told)[-1].policy


def main() -> None:
    results = Results("deploy_success", world=WORLD, seeds=SEEDS, starts=STARTS, first_start=FIRST_START, robots=ROBOTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("DEPLOY_POLICIES", name))
        with _demonstrations(folder) as dataset:
            for seed in SEEDS:
                _measure(results, f"bc seed {seed}", folder, lambda seed=seed: bc(dataset, seed))

            def start() -> us.Policy:
                made = folder / "bc seed 0"
                return us.load(made) if made.exists() else bc(dataset, 0)

            _measure(results, "dagger", folder, lambda: corrected(dataset, folder, start()))
            _measure(results, "dapg", folder, lambda: reinforced(dataset, start()))
    policies = [f"bc seed {seed}" for seed in SEEDS] + ["dagger", "dapg"]
    summary: dict[str, Any] = {}
    for policy in policies:
        world, robot = results.cells[f"{policy}, world"], results.cells[f"{policy}, robot"]
        low, high = world["interval"]
        summary[policy] = {
            "world": world["success_rate"],
            "world_interval": [low, high],
            "robot": robot["success_rate"],
            "robot_interval": robot["interval"],
            "within": low <= robot["success_rate"] <= high,
        }
    worse = results.cells[f"{policies[0]}, worse robot"]
    summary["worse_robot"] = {"robot": worse["success_rate"], "robot_interval": worse["interval"]}
    results.write(**summary)


def _measure(results: Results, name: str, folder: Path, make: Any) -> None:
    """World and robot for one policy, which is trained only where a cell is missing."""
    kinds = {"world": simulated, "robot": lambda policy: deployed(policy, SimConfig())}
    if name == "bc seed 0":
        kinds["worse robot"] = lambda policy: deployed(policy, WORSE)
    made: list[us.Policy] = []

    def policy() -> us.Policy:
        if not made:
            made.append(us.load(folder / name) if (folder / name).exists() else make())
            if not (folder / name).exists():
                us.save(made[0], folder / name)
        return made[0]

    for kind, measure in kinds.items():
        results.cell(f"{name}, {kind}", lambda measure=measure: measure(policy()))


def _demonstrations(folder: Path) -> Dataset:
    if (folder / "data" / "dataset.json").exists():
        return Dataset.open(folder / "data")
    env = us.make_env(WORLD)
    dataset = Dataset.create(folder / "data", env)
    expert = us.Demonstrator(us.sim.expert_for(env, "scripted"))
    for _ in us.record(env, expert, dataset, seeds=range(DEMONSTRATIONS)):
        pass
    env.close()
    return dataset


if __name__ == "__main__":
    main()
