"""How long DAgger takes: a run on PickPlace by the defaults of the command line, and equal work beside `imitation`.

The run on PickPlace is `understudy dagger` as a newcomer types it: demonstrations, five rounds, the evaluation of 100
starts, films and report. Its phases are read from the times of the files that it leaves.

The equal work is one DAgger on Gymnasium's `Pendulum-v1`, whose episodes all have 200 steps: the same scripted expert,
network (256-256 with ReLU), rounds, episodes, gradient batches and batch size, in one process with one thread that
measures nothing in between. The expert drives the first round's episodes, the policy all others, and each training goes
on from the last weights, as `imitation` always does and `--warm` does here. Each keeps its own ways of training and of
saving what it collects; the time is that from building the world to the trained policy. Both policies are then measured
by the same loop on the same starts. For `imitation`, make the environment of `versus_imitation.py` and set
IMITATION_PYTHON; without it, that part is left out.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUN_COMMAND = "understudy dagger --env understudy/PickPlace-v0 --expert scripted --gate dagger --rounds 5 --out RUN"
WORLD, STEPS_OF_EPISODE = "Pendulum-v1", 200
ROUNDS, EPISODES, BATCHES, BATCH = 5, 5, 500, 128
STARTS, FIRST_START, SEEDS = 100, 730_000, (0, 1, 2)


def swing_up(observation: Any) -> Any:
    """The torque (1,) for a pendulum's (cos, sin, speed): gives or takes energy, and near the top holds it there."""
    cosine, sine, speed = (float(value) for value in observation)
    if cosine > 0.88:
        torque = -10 * sine - 3 * speed
    elif abs(speed) < 0.05:
        torque = 2.0
    else:
        torque = -(0.5 * speed**2 + 15 * cosine - 15) * speed  # the energy above that of standing on top
    return np.clip([torque], -2, 2).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns, with its wall clock and the CPU time of this process."""
    began, began_cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}


def imitated(out: str, seed: int) -> dict[str, float]:
    """Runs in imitation's environment: its DAgger, whose mean action is saved to `out`."""
    import gymnasium as gym
    import torch
    from imitation.algorithms import bc, dagger
    from imitation.policies.base import NonTrainablePolicy
    from stable_baselines3.common.vec_env import DummyVecEnv
    from versus_imitation import perceptron, save_mean

    class Teacher(NonTrainablePolicy):
        def _choose_action(self, observation: Any) -> Any:
            return swing_up(observation)

    def work() -> Any:
        world = DummyVecEnv([lambda: gym.make(WORLD)])
        world.seed(seed)
        spaces, rng = (world.observation_space, world.action_space), np.random.default_rng(seed)
        policy = perceptron(*spaces)
        cloning = bc.BC(observation_space=spaces[0], action_space=spaces[1], rng=rng, policy=policy, batch_size=BATCH)
        with tempfile.TemporaryDirectory() as name:
            trainer = dagger.SimpleDAggerTrainer(
                venv=world,
                scratch_dir=name,
                expert_policy=Teacher(*spaces),
                rng=rng,
                beta_schedule=dagger.LinearBetaSchedule(1),  # all in the first round, nothing afterwards
                bc_trainer=cloning,
            )
            trainer.train(
                (ROUNDS + 1) * EPISODES * STEPS_OF_EPISODE,
                rollout_round_min_episodes=EPISODES,
                rollout_round_min_timesteps=EPISODES * STEPS_OF_EPISODE,
                bc_train_kwargs={
                    "n_batches": BATCHES,
                    "progress_bar": False,
                    "log_interval": 10**9,
                    "log_rollouts_venv": None,
                },
            )
            assert trainer.round_num == ROUNDS + 1
        return policy

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    policy, measured = timed(work)
    save_mean(policy, out)
    return measured


def own(out: str, seed: int) -> dict[str, float]:
    """Runs in a process of its own: our DAgger by its own recipe, the policy saved to `out`."""
    from dataclasses import replace

    import torch

    import understudy as us
    from understudy.recipe import DAGGER_RECIPE

    class Teacher:
        engaged = True

        def reset(self, seed: int) -> None:
            pass

        def label(self, observation: Any) -> Any:
            return swing_up(observation)

    def work() -> us.Policy:
        world, teacher = us.make_env(WORLD), Teacher()
        recipe = replace(DAGGER_RECIPE, steps=BATCHES, batch_size=BATCH, seed=seed, device="cpu")
        config = us.DAggerConfig(rounds=ROUNDS, episodes=EPISODES, warm=True, progress_starts=0)
        with tempfile.TemporaryDirectory() as name:
            demos = us.Dataset.create(Path(name) / "demos", world)
            starts = range(1000 * seed, 1000 * seed + EPISODES)
            list(us.record(world, us.Demonstrator(teacher), demos, seeds=starts))
            shape = us.FeedForward(us.spec_of(world), us.FeedForwardConfig(hidden=(256, 256))).initialized(seed)
            *_, last = us.dagger(world, teacher, us.gate_for("dagger"), shape, demos, config, recipe)
            assert last.dataset.steps == (ROUNDS + 1) * EPISODES * STEPS_OF_EPISODE
        return last.policy

    torch.set_num_threads(1)
    policy, measured = timed(work)
    us.save(policy, out)
    return measured


def mean_return(agent: Any) -> float:
    from understudy.collector import rollouts

    starts = range(FIRST_START, FIRST_START + STARTS)
    return statistics.mean(float(episode.rewards.sum()) for episode in rollouts(WORLD, agent, starts))


def beside(who: str, interpreter: str, seed: int) -> dict[str, float]:
    """One DAgger in a process of its own, and what its policy earns."""
    from versus_imitation import Imitated

    from understudy.evaluate import agent_for
    from understudy.loading import load_predictor

    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        out = f"{name}/weights.npz" if who == "imitation" else f"{name}/policy"
        command = [interpreter, __file__, "--child", who, out, str(seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **one_thread})
        measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        agent = Imitated(out) if who == "imitation" else agent_for(load_predictor(out))
        return {**measured, "mean_return": mean_return(agent), "load": os.getloadavg()[0]}


def expert_alone() -> dict[str, float]:
    from understudy.agent import Command

    class Swinger:
        def reset(self, seed: int) -> None:
            pass

        def act(self, observation: Any) -> Command:
            return Command(swing_up(observation))

    return {"mean_return": mean_return(Swinger())}


def pick_place() -> dict[str, Any]:
    """One run of RUN_COMMAND, and where its time went."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        program = str(Path(sys.executable).with_name("understudy"))
        command = [program, *RUN_COMMAND.split()[1:-1], str(run)]
        load, used = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN)
        began, began_s = time.time(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds, now = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
        config = json.loads((run / "config.json").read_text())
        (evaluation,) = (run / "evaluations").glob("*.json")
        return {
            "seconds": seconds,
            "cpu_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
            "load": load,
            "phases": phases(run, evaluation, began, began + seconds),
            "success_rate": json.loads(evaluation.read_text())["success_rate"],
            **{part: config[part] for part in ("dagger", "policy", "train")},
        }


def phases(run: Path, evaluation: Path, began: float, ended: float) -> dict[str, float]:
    """Seconds of each phase, from when the files were written that end one."""
    episodes = json.loads((run / "config.json").read_text())["dagger"]["episodes"]
    demonstrations = run.with_name(f"{run.name}-demonstrations")
    collected = [written(path) for path in sorted((run / "data" / "episodes").iterdir())]
    ends = [("demonstrating", max(written(path) for path in (demonstrations / "episodes").iterdir()))]
    for number, folder in enumerate(sorted((run / "rounds").iterdir())):
        if number:
            ends.append(("collecting", max(collected[(number - 1) * episodes : number * episodes])))
        ends.append(("training", max(written(path) for path in (folder / "policy").iterdir())))
        if (folder / "progress.json").exists():
            ends.append(("measuring rounds", written(folder / "progress.json")))
    ends += [("evaluating", written(evaluation)), ("films and report", ended)]
    found: dict[str, float] = {}
    for phase, end in ends:
        found[phase] = found.get(phase, 0.0) + end - began
        began = end
    return found


def written(path: Path) -> float:
    return path.stat().st_mtime


def main() -> None:
    from common import Results

    work = {"warm": True, "rounds": ROUNDS, "episodes": EPISODES, "batches_of_a_round": BATCHES, "batch_size": BATCH}
    about = {"run_command": RUN_COMMAND, "equal_work": {"world": WORLD, **work}, "first_start": FIRST_START}
    results = Results("dagger_speed", seeds=SEEDS, **about)
    summary: dict[str, Any] = {}
    interpreter = os.environ.get("IMITATION_PYTHON")
    names = [(who, seed, f"{who}, run {seed}") for seed in SEEDS for who in ("imitation", "understudy")]
    if not interpreter and any(name not in results.cells for _, _, name in names):
        print("IMITATION_PYTHON is not set, so the comparison is left out; see the top of this file")
    else:
        programs = {"imitation": interpreter or "", "understudy": sys.executable}
        for who, seed, name in names:
            results.cell(name, functools.partial(beside, who, programs[who], seed))
        theirs, ours = ([results.cells[f"{who}, run {seed}"] for seed in SEEDS] for who in programs)
        pairs = list(zip(theirs, ours, strict=True))
        summary = {
            "times_faster": statistics.median(them["seconds"] / us["seconds"] for them, us in pairs),
            "times_less_cpu": statistics.median(them["cpu_seconds"] / us["cpu_seconds"] for them, us in pairs),
            "expert_return": results.cell("expert", expert_alone)["mean_return"],
            "imitation_return": statistics.mean(them["mean_return"] for them in theirs),
            "understudy_return": statistics.mean(us["mean_return"] for us in ours),
        }
    results.write(**summary)
    run = results.cell("PickPlace", pick_place)
    summary |= {"run_seconds": run["seconds"], "run_success": run["success_rate"]}
    results.write(**summary)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        who, out, seed = sys.argv[2], sys.argv[3], int(sys.argv[4])
        print(json.dumps((imitated if who == "imitation" else own)(out, seed)))
    else:
        main()
