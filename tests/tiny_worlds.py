"""A world and agents small enough to break in every way. A module of its own, so that workers can import it."""

import os
import signal
from functools import partial

import gymnasium as gym
import numpy as np

from understudy.agent import Command, Driver


class TinyWorld(gym.Env):
    """A point that moves by its action; the reward is where it is."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, length=5, ending="truncated", infos=None, fault=None, at=2, render_mode=None):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.length, self.ending, self.infos, self.fault, self.at = length, ending, infos or [], fault, at
        self.render_mode = render_mode
        self.actions, self.options = [], None
        self._state = np.zeros(3, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options = options
        self._state[:] = self.np_random.uniform(-1, 1, 3)
        self.actions = []
        return self._state, {}

    def step(self, action):
        self.actions.append(action.copy())
        self._state[:2] += action  # the same array each time, as some worlds return
        action[:] = 7  # as some worlds treat what they are given
        step = len(self.actions)
        if self.fault is not None and step == self.at:
            break_(self.fault)
        observation, reward = self._state, float(self._state[0])
        if self.fault == "nan observation" and step == self.at:
            observation = np.array([0, np.nan, 0], np.float32)
        if self.fault == "nan reward" and step == self.at:
            reward = np.nan
        over = step >= self.length
        info = self.infos[step - 1] if step <= len(self.infos) else {}
        return observation, reward, over and self.ending == "terminated", over and self.ending == "truncated", info

    def render(self):
        shade = np.uint8(50 * len(self.actions) % 256)
        return np.full((47, 63, 3), shade, np.uint8) if self.render_mode == "rgb_array" else None


class Noise:
    """An agent that draws its actions from the seed of the episode."""

    def reset(self, seed):
        self._random = np.random.default_rng(seed)

    def act(self, observation):
        return Command(self._random.uniform(-2, 2, 2).astype(np.float32))


class Says:
    """An agent that always says the same."""

    def __init__(self, action, driver=Driver.POLICY, label=None):
        self._command = Command(action, driver, label)

    def reset(self, seed):
        pass

    def act(self, observation):
        return self._command


class Fault:
    """A runner that answers the square of its job, and breaks at the job `at`."""

    def __init__(self, kind=None, at=2):
        self.kind, self.at = kind, at

    def build(self):
        if self.kind is not None and self.at == "build":
            break_(self.kind)

    def __call__(self, job, beat):
        beat()
        if self.kind is not None and job == self.at:
            break_(self.kind)
        return job * job

    def hear(self, news):
        self.kind = news

    def close(self):
        pass


def break_(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "stop in the middle of a message":
        _send_half_messages()
    elif kind == "exit":
        raise SystemExit(3)
    elif kind == "raise":
        raise ZeroDivisionError("the arm fell off")


def _send_half_messages():
    from multiprocessing.connection import Connection

    def send_half(self, message):
        os.write(self._handle, message[: len(message) // 2])
        os.kill(os.getpid(), signal.SIGSTOP)

    Connection._send = send_half


def build_tiny(**arguments):
    return TinyWorld(**arguments)


def tiny(**arguments):
    return partial(build_tiny, **arguments)
