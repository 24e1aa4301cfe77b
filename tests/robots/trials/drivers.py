"""Agents to move robots with, a robot without a process, and a clock that is moved by hand."""

import time

import numpy as np

from understudy.agent import Command, Driver
from understudy.robots.fake import FakeBody, FakeConfig
from understudy.robots.guard import Guard
from understudy.robots.protocol import Reading
from understudy.robots.safety import SafetyConfig


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self, now_s=1000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class DirectRobot:
    """The fake robot's body without its process, on a clock of one's own."""

    def __init__(self, config=None, clock=None):
        config = config or FakeConfig()
        self.clock = clock or Clock()
        self.body = FakeBody(config)
        self.spec = config.spec()
        self.wire, self.stops_s = [], []  # what was commanded, and when it was stopped after the first command
        self.stops = 0  # in all: a guard says it to whatever it connects to
        self.spoil = None  # changes what is read

    def connect(self):
        pass

    def read(self):
        state = self.body.state(self.clock())
        reading = Reading(state.observation.astype(np.float32), state.position.copy(), state.time_s)
        return reading if self.spoil is None else self.spoil(reading)

    def command(self, values):
        self.wire.append(values.copy())
        self.body.command(values, self.clock())

    def home(self, seed):
        return self.body.home(seed, self.clock())

    def stop(self):
        self.stops += 1
        if self.wire:
            self.stops_s.append(self.clock())
        self.body.stop(self.clock())

    def disconnect(self):
        pass

    def violations(self):
        return self.body.report(self.clock())["violations"]


def guarded(config=None, safety=None, spec=None):
    """A robot without a process, its guard in this one, and their clock."""
    robot = DirectRobot(config)
    robot.spec = spec or robot.spec
    return robot, Guard(robot, safety or SafetyConfig(), clock=robot.clock), robot.clock


class Sway:
    """An agent that lets every axis swing."""

    def __init__(self, axes=6, reach=0.8, pace=0.1):
        self._axes, self._reach, self._pace = axes, reach, pace

    def reset(self, seed):
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        return Command(np.full(self._axes, self._reach * np.sin(self._pace * self.steps), np.float32))


class FullSpeed:
    """An agent that moves every axis as fast as it may, first towards the middle of its range."""

    def __init__(self, axes=6, speed=1.0):
        self._axes, self._speed = axes, speed
        self._sign = 0.0

    def reset(self, seed):
        self._sign = 0.0

    def act(self, observation):
        if not self._sign or abs(observation[0]) > 1.2:
            self._sign = -1.0 if observation[0] > 0 else 1.0
        return Command(np.full(self._axes, self._sign * self._speed, np.float32))


class FallsAsleep(FullSpeed):
    """The same, but every dozen steps or so its process is kept waiting, for up to 0.3 s."""

    def __init__(self, seed):
        super().__init__()
        self._random, self._acted = np.random.default_rng(seed), 0

    def act(self, observation):
        self._acted += 1
        if self._acted > 3 and self._random.random() < 0.08:
            time.sleep(self._random.choice([0.03, 0.06, 0.15, 0.3]))
        return super().act(observation)


class TakesTurns:
    """Two drivers who want opposite things, and change places at random moments."""

    def __init__(self, axes, reach, seed):
        self._axes, self._reach, self._random = axes, reach, np.random.default_rng(seed)
        self.takeovers = 0

    def reset(self, seed):
        self._driver = Driver.POLICY

    def act(self, observation):
        if self._random.random() < 0.2:
            self._driver = Driver(1 - self._driver)
            self.takeovers += 1
        sign = 1.0 if self._driver is Driver.EXPERT else -1.0
        return Command((sign * self._random.uniform(0, self._reach, self._axes)).astype(np.float32), self._driver)


class RandomChunks:
    """A policy whose chunks have nothing to do with one another: the worst seams there are."""

    history, horizon = 1, 8

    def __init__(self, spec, reach, seed):
        self.spec, self._reach, self._random = spec, reach, np.random.default_rng(seed)

    def predict(self, observations):
        axes = len(self.spec.actions)
        start, end = self._random.uniform(-self._reach, self._reach, (2, axes))
        return np.linspace(start, end, self.horizon).astype(np.float32)
