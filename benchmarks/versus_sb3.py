"""NPG and PPO beside TRPO of sb3-contrib and PPO of Stable-Baselines3: return and wall clock after the same steps.

Stable-Baselines3 wants an older Gymnasium than ours, but runs with it, so it is installed without its dependencies:

    python -m venv sb3-env
    sb3-env/bin/pip install torch==2.13.0
    sb3-env/bin/pip install -c constraints.txt -e . cloudpickle pandas
    sb3-env/bin/pip install --no-deps stable-baselines3==2.7.0 sb3-contrib==2.7.0
    SB3_PYTHON=sb3-env/bin/python python benchmarks/versus_sb3.py

All four learn from the reward alone, on the door (corrected dense reward) and on PickPlace with the shaped reward: 64 x
64 tanh networks, two processes that step the world, one torch thread, batches of 4,000 steps, gamma 0.995 and lambda
0.95. Theirs have `VecNormalize` for observations and rewards, and their own defaults for the rest. NPG has the damping
of TRPO, 0.1: without demonstrations most of a gradient is noise, which a small damping amplifies (a trial on the door
with seed 0, which is not among those here). What they learnt is brought back as arrays, and the mean action of each is
run by the same loop on the same starts as what we deploy. The four take turns, so that whatever else the machine does
falls on all of them. (What ours return on PickPlace was measured anew, the times were not, after the first answers of
the value function had been made as small as small returns.)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np

STEPS, STARTS, FIRST_START, SEEDS = 200_000, 50, 720_000, (1, 2, 3)
BATCH, GAMMA, LAMBDA = 4_000, 0.995, 0.95
METHODS = {"trpo": ("TRPO", "NPG"), "ppo": ("PPO", "PPO")}  # theirs, ours
WORLDS = {"door": ("understudy/AdroitDoor-v0", {}), "pick and place": ("understudy/PickPlace-v0", {"reward": "shaped"})}


def child(world: str, method: str, out: str, seed: int) -> None:
    """Runs in Stable-Baselines3's environment: trains, and saves the weights of the mean action and its scaling."""
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

    torch.set_num_threads(1)
    name, arguments = WORLDS[world]
    began = time.perf_counter()
    envs = SubprocVecEnv([partial(_built, name, arguments)] * 2, start_method="spawn")
    envs = VecNormalize(envs, gamma=GAMMA)
    options = {"n_steps": BATCH // 2, "gamma": GAMMA, "gae_lambda": LAMBDA, "seed": seed, "device": "cpu"}
    shape = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}
    model = (PPO if method == "ppo" else TRPO)("MlpPolicy", envs, policy_kwargs=shape, **options)
    built = time.perf_counter()
    model.learn(STEPS, progress_bar=False)
    done = time.perf_counter()
    policy, scaling = model.policy, envs.obs_rms
    layers = [*(layer for layer in policy.mlp_extractor.policy_net if hasattr(layer, "weight")), policy.action_net]
    arrays = {f"w{index}": layer.weight.detach().numpy() for index, layer in enumerate(layers)}
    arrays |= {f"b{index}": layer.bias.detach().numpy() for index, layer in enumerate(layers)}
    np.savez(out, mean=scaling.mean, deviation=np.sqrt(scaling.var + envs.epsilon), **arrays)
    print(json.dumps({"seconds": done - built, "start_up_s": built - began, "steps": int(model.num_timesteps)}))
    envs.close()


def _built(name: str, arguments: dict[str, str]):
    from understudy.worlds import make_env

    return make_env(name, **arguments)


class Theirs:
    """The mean action of a policy of Stable-Baselines3, as an agent."""

    def __init__(self, path: str) -> None:
        self._arrays = {name: array.astype(np.float32) for name, array in np.load(path).items()}
        self._last = max(int(name[1:]) for name in self._arrays if name.startswith("w"))

    def reset(self, seed: int) -> None:
        """Nothing is kept."""

    def act(self, observation):
        """Scales as VecNormalize does, and runs the layers."""
        from understudy.agent import Command

        values = np.clip((observation - self._arrays["mean"]) / self._arrays["deviation"], -10, 10)
        for layer in range(self._last + 1):
            values = self._arrays[f"w{layer}"] @ values + self._arrays[f"b{layer}"]
            values = np.tanh(values) if layer < self._last else values
        return Command(values.astype(np.float32))


def measured(world: str, agent) -> dict[str, float]:
    from understudy.collector import rollouts
    from understudy.evaluate import world_with

    name, arguments = WORLDS[world]
    starts = range(FIRST_START, FIRST_START + STARTS)
    episodes = list(rollouts(world_with(name, arguments), agent, starts, workers=2))
    return {
        "mean_return": statistics.mean(float(episode.rewards.sum()) for episode in episodes),
        "success_rate": sum(episode.success == 1 for episode in episodes) / STARTS,
    }


def theirs(interpreter: str, world: str, method: str, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/weights.npz"
        command = [interpreter, __file__, "--child", world, method, out, str(seed)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {**json.loads(output.splitlines()[-1]), **measured(world, Theirs(out))}


def ours(world: str, method: str, seed: int) -> dict[str, float]:
    import understudy as us
    from understudy.evaluate import agent_for, world_spec, world_with

    name, arguments = WORLDS[world]
    built = world_with(name, arguments)
    shape = us.FeedForwardConfig(hidden=(64, 64), activation="tanh", head="gaussian")
    policy = us.FeedForward(world_spec(built), shape).initialized(seed)
    update = us.NPG(damping=0.1) if method == "trpo" else us.PPO(minibatch=64, kl_limit=None)
    config = us.FinetuneConfig(
        steps=STEPS,
        episodes=BATCH // 200,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        value_targets="gae",
        judge_episodes=0,
        seed=seed,
    )
    began = time.perf_counter()
    *_, log = us.finetune(policy, built, update, config=config, workers=2)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "steps": log.step, **measured(world, agent_for(log.policy))}


def main() -> None:
    import torch
    from common import Results

    torch.set_num_threads(1)
    interpreter = os.environ.get("SB3_PYTHON")
    if not interpreter:
        sys.exit("set SB3_PYTHON to the interpreter of an environment with sb3-contrib; see the top of this file")
    results = Results("versus_sb3", steps=STEPS, seeds=SEEDS, first_start=FIRST_START, starts=STARTS)
    for seed in SEEDS:
        for world in WORLDS:
            for method, (one, two) in METHODS.items():
                results.cell(_theirs(world, one, seed), partial(theirs, interpreter, world, method, seed))
                results.cell(_ours(world, two, seed), partial(ours, world, method, seed))
                results.write(**summary(results.cells))


def _theirs(world: str, method: str, seed: int) -> str:
    return f"{world}, {method} of Stable-Baselines3, seed {seed}"


def _ours(world: str, method: str, seed: int) -> str:
    return f"{world}, {method} of Understudy, seed {seed}"


def summary(cells: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return and speed of both, over the seeds that are measured."""
    told = {}
    for world in WORLDS:
        for one, two in METHODS.values():
            named = [(_theirs(world, one, seed), _ours(world, two, seed)) for seed in SEEDS]
            pairs = [(cells[them], cells[us]) for them, us in named if us in cells]
            if pairs:
                told[f"{world}, {two}"] = {
                    "seeds": len(pairs),
                    "their_return": statistics.mean(them["mean_return"] for them, _ in pairs),
                    "our_return": statistics.mean(us["mean_return"] for _, us in pairs),
                    "times_as_fast": statistics.median(them["seconds"] / us["seconds"] for them, us in pairs),
                }
    return told


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5], int(sys.argv[5]))
    else:
        main()
