"""How much of two processes' stepping rate do parallel rollouts of a policy reach?

Three pools of two processes work through the same episodes of `understudy/AdroitDoor-v0`, in turn within one run:

    rollouts   `rollouts(..., workers=2)` with a random 32 x 32 tanh policy in numpy: policy, loop, episode, transport
    env.step   the actions that the policy executed, recorded before, through `env.step`, and nothing else
    mj_step    the same controls through MuJoCo's `mj_step`, five to a control step: what no Python can beat

Process start-up is outside of all three clocks. The promise: rollouts >= 90 % of env.step.

    python benchmarks/parallel_rollouts.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.collector import EpisodeRunner, Start
from understudy.execution import PolicyAgent
from understudy.inference import FeedForwardPredictor
from understudy.network_shape import FeedForwardConfig
from understudy.policy_file import PolicyFile
from understudy.rollout import rollout
from understudy.spec import Spec, spec_of
from understudy.statistics import ChannelStatistics
from understudy.worker_process import Beat
from understudy.workers import Pool
from understudy.worlds import make_env

WORLD = "understudy/AdroitDoor-v0"
PROMISE = 0.9
RESULT = Path(__file__).parent / "results" / "parallel_rollouts.json"

Recording = dict[int, NDArray[np.float32]]
Rates = dict[str, list[float]]


class Stepper:
    """Runs recorded actions (T, A), by seed, through `env.step`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def build(self) -> None:
        """Makes the world."""
        self._env = make_env(WORLD)

    def __call__(self, job: Start, beat: Beat) -> None:
        """Steps through one episode."""
        self._env.reset(seed=job.seed)
        step: Callable[[Any], Any] = self._env.step
        for action in self._recording[job.seed]:
            step(action)

    def hear(self, news: Any) -> None:
        """Is told nothing."""

    def close(self) -> None:
        """Closes the world."""
        self._env.close()


class Physics(Stepper):
    """Runs the same controls through `mj_step` alone."""

    def __call__(self, job: Start, beat: Beat) -> None:
        """Steps through one episode."""
        self._env.reset(seed=job.seed)
        world: Any = self._env.unwrapped
        middle, reach = world.model.actuator_ctrlrange.mean(1), np.ptp(world.model.actuator_ctrlrange, axis=1) / 2
        controls = middle + self._recording[job.seed] * reach
        model, data = world.model, world.data
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, 5)


def random_policy(spec: Spec, seed: int) -> FeedForwardPredictor:
    """A 32 x 32 tanh policy with random weights."""
    random = np.random.default_rng(seed)
    sizes = [len(spec.observations), 32, 32, len(spec.actions)]
    weights = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weights[f"layers.{layer}.weight"] = random.normal(0, 1 / np.sqrt(inputs), (outputs, inputs)).astype(np.float32)
        weights[f"layers.{layer}.bias"] = np.zeros(outputs, np.float32)
    plain = tuple(
        ChannelStatistics(*(np.full(size, value, np.float32) for value in (-1, 1, 0, 1)))
        for size in (sizes[0], sizes[-1])
    )
    config = FeedForwardConfig(hidden=(32, 32), activation="tanh")
    file = PolicyFile("feedforward", config.to_json(), spec, 1, 1, (plain[0], plain[1]))
    return FeedForwardPredictor(file, config, [weights])


def cpu_time_s(pids: Sequence[int]) -> float:
    """Seconds that this process and the workers spent on a CPU; NaN where the system does not say (not Linux)."""
    try:
        spent_ns = [int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids]
    except OSError:
        return math.nan
    return sum(spent_ns) / 1e9 + time.process_time()


def measure(episodes: int, repetitions: int, seed: int, workers: int) -> tuple[Rates, Rates]:
    """Steps in a second, and in a second on a CPU, of each of the three ways, once for each repetition."""
    seeds = range(seed, seed + episodes)
    env = make_env(WORLD)
    agent = PolicyAgent(random_policy(spec_of(env), seed))
    recording = {start: rollout(env, agent, seed=start).actions for start in seeds}
    steps = sum(map(len, recording.values()))
    env.close()
    runners: dict[str, Any] = {
        "rollouts": EpisodeRunner(WORLD, None),
        "env.step": Stepper(recording),
        "mj_step": Physics(recording),
    }
    jobs = [Start(start) for start in seeds]
    pools = {name: Pool(runner, workers) for name, runner in runners.items()}
    pools["rollouts"].tell(agent)
    try:
        for pool in pools.values():
            list(pool.map(jobs[: 2 * workers]))
        rates: Rates = {name: [] for name in pools}
        cpu_rates: Rates = {name: [] for name in pools}
        for _ in range(repetitions):
            for name, pool in pools.items():
                start_s, start_cpu_s = time.perf_counter(), cpu_time_s(pool.pids)
                list(pool.map(jobs))
                rates[name].append(steps / (time.perf_counter() - start_s))
                cpu_rates[name].append(steps / (cpu_time_s(pool.pids) - start_cpu_s))
    finally:
        for pool in pools.values():
            pool.close()
    return rates, cpu_rates


def median_share(of: Sequence[float], among: Sequence[float]) -> float:
    """Median over the repetitions of one rate as a share of another, measured next to each other."""
    return statistics.median(one / other for one, other in zip(of, among, strict=True))


def host() -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "mujoco", "gymnasium", "gymnasium-robotics")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    before = host()
    rates, cpu_rates = measure(arguments.episodes, arguments.repetitions, arguments.seed, arguments.workers)
    share = median_share(rates["rollouts"], rates["env.step"])
    cpu_share = median_share(cpu_rates["rollouts"], cpu_rates["env.step"])
    of_physics = median_share(rates["rollouts"], rates["mj_step"])
    result = {
        "command": "python benchmarks/parallel_rollouts.py "
        f"--episodes {arguments.episodes} --repetitions {arguments.repetitions} "
        f"--workers {arguments.workers} --seed {arguments.seed}",
        "world": WORLD,
        "summary": {
            "share_of_env_step": share,
            "share_of_env_step_by_cpu_time": cpu_share,
            "promise": PROMISE,
            "kept": share >= PROMISE,
            "share_of_mj_step": of_physics,
            "env_step_share_of_mj_step": median_share(rates["env.step"], rates["mj_step"]),
            "median_steps_per_second": {name: statistics.median(values) for name, values in rates.items()},
        },
        "share_of_env_step_each": [a / b for a, b in zip(rates["rollouts"], rates["env.step"], strict=True)],
        "steps_per_second": rates,
        "host": before,
    }
    for name, values in rates.items():
        print(f"{name:9} {statistics.median(values):8.0f} steps/s")
    print(f"rollouts reach {share:.1%} of env.step (promised: {PROMISE:.0%}), {of_physics:.1%} of mj_step")
    print(f"by CPU time, which other programs disturb less: {cpu_share:.1%} of env.step")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
