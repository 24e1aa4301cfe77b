"""A point that has to reach the origin: a world that a reward teaches in seconds. Importable by workers."""

import math
import os
from functools import partial

import gymnasium as gym
import numpy as np
from tiny_worlds import break_

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, record
from understudy.network_shape import FeedForwardConfig
from understudy.policies import Ensemble, FeedForward
from understudy.recipe import FinetuneConfig, TrainConfig
from understudy.reinforcement import NPG, PPO
from understudy.spec import Channel, spec_of
from understudy.trainer import train

SHAPE = FeedForwardConfig(hidden=(16, 16), activation="tanh", head="squared")
CLONED = TrainConfig(steps=60, batch_size=32, measure_every=30, held_out=0.0, keep="last", ema=0.0, lead=0)
FEW = FinetuneConfig(steps=400, episodes=5, judge_episodes=2, value_hidden=(16,), seed=3)
QUICK = FinetuneConfig(steps=16_000, episodes=20, judge_episodes=10, value_hidden=(32,), value_epochs=4)
UPDATES = {"npg": NPG(step_size=0.1), "ppo": PPO(learning_rate=3e-3, minibatch=64)}


class ReachWorld(gym.Env):
    """Position and velocity commands; success within 0.15 of the origin; the reward is minus the distance."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    observation_channels = (Channel("x", "m", -2, 2), Channel("y", "m", -2, 2))
    action_channels = (Channel("x.velocity", "m/s", -1, 1), Channel("y.velocity", "m/s", -1, 1))
    control_hz = 10.0
    MAXIMUM_STEPS = 12

    def __init__(self, reward="dense", ends=False):
        self.observation_space = gym.spaces.Box(-2, 2, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self._reward, self._ends, self._steps = reward, ends, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        angle = self.np_random.uniform(-math.pi, math.pi)
        self._position = np.array([math.cos(angle), math.sin(angle)])
        if options and options.get("initial_state"):
            self._position = np.array(options["initial_state"]["position"], float)
        self._steps = 0
        return self._position.astype(np.float32), {}

    def step(self, action):
        self._position = np.clip(self._position + 0.15 * action, -2, 2)
        self._steps += 1
        distance = float(np.hypot(*self._position))
        success = distance < 0.15
        reward = {"dense": -distance, "none": 0.0, "sparse": float(success)}[self._reward]
        over = success and self._ends
        seen = self._position.astype(np.float32)
        return seen, reward, over, self._steps >= self.MAXIMUM_STEPS, {"success": success}

    def state(self):
        return {"position": self._position.copy()}


class Unpaid(ReachWorld):
    """Pays nothing."""

    def __init__(self):
        super().__init__("none")


class PaysNaN(gym.Wrapper):
    """Pays what is no number from one of its starts."""

    def __init__(self, at):
        super().__init__(ReachWorld())
        self._at = at

    def reset(self, *, seed=None, options=None):
        self._broken = seed == self._at
        return super().reset(seed=seed, options=options)

    def step(self, action):
        seen, reward, *rest = super().step(action)
        return seen, math.nan if self._broken else reward, *rest


class _Breaker(gym.Wrapper):
    """Breaks its process at the third episode that begins in it, once: then there is a mark."""

    def __init__(self, kind, mark):
        super().__init__(ReachWorld())
        self._kind, self._mark, self._begun = kind, mark, 0

    def reset(self, **arguments):
        self._begun += 1
        if self._begun == 3 and not os.path.exists(self._mark):
            open(self._mark, "w").close()
            break_(self._kind)
        return super().reset(**arguments)


def build_breaking(kind, mark):
    return _Breaker(kind, mark)


def breaking(kind, mark):
    return partial(build_breaking, kind, mark)


class Late:
    """An expert that goes the right way, a quarter too slowly to arrive from everywhere."""

    engaged = False

    def reset(self, seed):
        pass

    def label(self, observation):
        x, y = observation[:2]
        distance = max(math.hypot(x, y), 1e-6)
        return np.array([-x, -y], np.float32) / np.float32(distance) * np.float32(min(0.6, distance * 4))


def demonstrations(folder, episodes=4, world=None):
    world = world or ReachWorld()
    with Dataset.create(folder, world) as dataset:
        list(record(world, Demonstrator(Late()), dataset, seeds=range(episodes)))
    return Dataset.open(folder)


def fresh(members=1, seed=0):
    one = FeedForward(spec_of(ReachWorld()), SHAPE)
    return Ensemble.of(one, members, seed=seed) if members > 1 else one.initialized(seed)


def clone(demos, members=1, recipe=CLONED):
    return train(fresh(members), demos, recipe)
