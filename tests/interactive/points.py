"""A point that spirals to the origin: a world that two demonstrations do not teach, and a few rounds do."""

import math
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, record
from understudy.interactive import gate_for
from understudy.interactive.tick import Gate
from understudy.policies import Ensemble, FeedForward, FeedForwardConfig
from understudy.recipe import DAggerConfig, TrainConfig
from understudy.spec import Channel, spec_of
from understudy.statistics import ChannelStatistics

SHAPE = FeedForwardConfig(hidden=(32, 32))
RECIPE = TrainConfig(
    steps=250, batch_size=64, learning_rate=5e-3, measure_every=125, held_out=0.1, keep="last", ema=0.9, lead=0
)


class PointWorld(gym.Env):
    """Position and room to move; success within 0.2 of the origin, which ends the episode, or 20 steps."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    observation_channels = (Channel("x", "m", -2, 2), Channel("y", "m", -2, 2))
    action_channels = (Channel("x.velocity", "m/s", -1, 1), Channel("y.velocity", "m/s", -1, 1))
    control_hz = 10.0

    def __init__(self, length=20):
        self.observation_space = gym.spaces.Box(-2, 2, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self._length, self._steps = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        angle = self.np_random.uniform(-math.pi, math.pi)
        self._position = np.array([math.cos(angle), math.sin(angle)])
        self._steps = 0
        return self._position.astype(np.float32), {}

    def step(self, action):
        self._position = np.clip(self._position + 0.15 * action, -2, 2)
        self._steps += 1
        success = bool(np.hypot(*self._position) < 0.2)
        seen = self._position.astype(np.float32)
        return seen, float(success), success, self._steps >= self._length, {"success": success}


def right(observation):
    """What is right: full speed, 45 degrees beside the way to the origin."""
    x, y = observation[:2]
    distance = max(math.hypot(x, y), 1e-6)
    return np.array([-x - y, -y + x], np.float32) / np.float32(distance * math.sqrt(2))


class PointExpert:
    """Says what is right, and counts how often it was asked."""

    engaged = False

    def __init__(self):
        self.calls = 0

    def reset(self, seed):
        pass

    def label(self, observation):
        self.calls += 1
        return right(observation)


class Person(PointExpert):
    """Watches, and takes over where the robot goes wrong until it would go right again."""

    def __init__(self):
        super().__init__()
        self.watched = []

    def reset(self, seed):
        self.engaged = False

    def watch(self, observation, action):
        self.watched.append((observation.copy(), action.copy()))
        error = np.linalg.norm(action - right(observation))
        self.engaged = bool(error > (0.2 if self.engaged else 0.4))


@dataclass
class Script(Gate):
    """Does as it is told at each step of an episode: `.` the policy drives, `a` and the expert is asked, `e` drives."""

    name = "script"
    says: str = ""
    noise: float = 0.0
    ticks: list = field(default_factory=list, init=False, repr=False)

    @property
    def expert_noise(self):
        return self.noise

    def __call__(self, tick):
        self.ticks.append((tick.driver, tick.engaged, tick.proposal.copy()))
        says = self.says[(len(self.ticks) - 1) % len(self.says)]
        if says == "a":
            tick.label()
        return says == "e"


class Drives:
    """A policy made by hand: `act(observations (T, D)) -> (members, T, A)`."""

    def __init__(self, act, spec=None, *, horizon=1, history=1):
        self.spec = spec or spec_of(PointWorld())
        self.horizon, self.history = horizon, history
        self._act = act
        grid = np.random.default_rng(0)
        self.statistics = (
            ChannelStatistics.of([grid.uniform(-1, 1, (100, len(self.spec.observations))).astype(np.float32)]),
            ChannelStatistics.of([grid.uniform(-1, 1, (100, len(self.spec.actions))).astype(np.float32)]),
        )
        self.data_fingerprint = ""
        self.asked = []

    @property
    def shares(self):
        return len(self._act(np.zeros((1, len(self.spec.observations)), np.float32)))

    def for_execution(self):
        return self

    def predictions(self, observations):
        self.asked.append(observations.copy())
        now = np.asarray(self._act(observations[-1:]), np.float32)  # (M, 1, A)
        return np.repeat(now, self.horizon, 1)

    def predict(self, observations):
        return self.predictions(observations).mean(0).clip(self.spec.action_low, self.spec.action_high)


def stays(observations):
    return np.zeros((1, len(observations), 2), np.float32)


def expert_like(observations):
    return np.array([[right(observation) for observation in observations]], np.float32)


def demonstrations(folder, episodes=2, world=None, first=0):
    """A dataset that the expert drove."""
    world = world or PointWorld()
    with Dataset.create(folder, world) as dataset:
        list(record(world, Demonstrator(PointExpert()), dataset, seeds=range(first, first + episodes)))
    return Dataset.open(folder)


def shape(members=1, spec=None):
    one = FeedForward(spec or spec_of(PointWorld()), SHAPE)
    return Ensemble.of(one, members) if members > 1 else one.initialized(0)


# How each gate is tried here: its options, and the members of its policy.
TRIED = {
    "dagger": ({"schedule": "indicator"}, 1),
    "safe": ({"tau": 0.2}, 1),
    "lazy": ({"tau": 0.2, "tau_back": 0.1}, 1),
    "hg": ({}, 2),
    "thrifty": ({"budget": 0.1}, 2),
    "ensemble": ({}, 2),
}


def gate_of(name):
    return gate_for(name, TRIED[name][0])


def members_of(name):
    return TRIED[name][1]


def expert_of(name):
    return Person() if name == "hg" else PointExpert()


QUICK = DAggerConfig(rounds=2, episodes=6, progress_starts=0)
