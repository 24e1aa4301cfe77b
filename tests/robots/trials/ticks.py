"""S7 and what a step costs: deadlines, ages of actions, and the time that gate, env and recording take."""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from robots.trials.drivers import Clock, Sway
from robots.trials.stops import Busy, Timer

from understudy.agent import Command
from understudy.dataset import Dataset, Journal
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.guard import Guard
from understudy.robots.guard_link import LocalLink
from understudy.robots.protocol import Reading
from understudy.robots.safety import SafetyConfig
from understudy.rollout import rollout
from understudy.spec import spec_of


def ticks(count, busy=0):
    """So many ticks at 50 Hz, recorded, with so many processes that only compute: missed deadlines, oldest action."""
    robot = FakeRobot(FakeConfig(homes=False))
    env = RobotEnv(robot, SafetyConfig())
    timer = Timer()
    try:
        with tempfile.TemporaryDirectory() as folder, Busy(busy), Dataset.create(Path(folder) / "data", env) as dataset:
            timer.begin()
            episode = rollout(env, Sway(), seed=0, max_steps=count, observers=[Journal(dataset)])
            dataset.append(episode)
            time_s = np.diff(episode.time_s)
            return {
                "ticks": env.ticks,
                "overruns": env.overruns,
                "worst_lateness_s": env.worst_lateness_s,
                "oldest_action_s": env.seen.oldest_s,
                "interventions": {str(kind): number for kind, number in env.counts.items()},
                "stopped": env.stopped,
                "median_period_s": float(np.median(time_s)),
                "p99_period_s": float(np.percentile(time_s, 99)),
                "worst_timer_s": timer.worst_s(),
                "violations": robot.machine.report()["violations"],
            }
    finally:
        timer.close()
        env.close()
        robot.machine.close()


class Still:
    """A driver that answers at once, from numbers that move a little: no robot is in the measured time."""

    def __init__(self, spec, clock=time.monotonic):
        self.spec, self._clock = spec, clock
        self._position = np.zeros(len(spec.axes))

    def connect(self):
        pass

    def read(self):
        return Reading(self._position.astype(np.float32), self._position.copy(), self._clock())

    def command(self, values):
        self._position = self._position + values * self.spec.period_s

    def home(self, seed):
        return None

    def stop(self):
        pass

    def disconnect(self):
        pass


class _Stopwatch:
    """Time of each turn of the loop, without what the agent takes, and whether the kernel took the core away in it."""

    def __init__(self):
        self.turns_s, self.disturbed = [], []
        self._switches = 0

    def act(self, command):
        began_s = time.perf_counter()
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        if self.turns_s:
            self.turns_s[-1] = began_s - self.turns_s[-1]
            self.disturbed.append(switches > self._switches)
        self._switches = switches
        self.turns_s.append(time.perf_counter())
        return command


class _Measured:
    """An agent that takes no time, and notes when it is asked."""

    def __init__(self, stopwatch):
        self._stopwatch = stopwatch

    def reset(self, seed):
        self._steps = 0

    def act(self, observation):
        self._steps += 1
        return self._stopwatch.act(Command(np.full(6, 0.2 * np.sin(0.01 * self._steps), np.float32)))


def added_latency(steps, processes=False):
    """What gate, env and recording add to a step at 1 kHz of simulated time: p50 and p99 of the whole turn of the loop.

    Steps in which the kernel took the core away from the loop, for another program, are counted apart.

    Args:
        steps: how many.
        processes: with the guard in its process, so in real time; the wait for the deadline is not counted.
    """
    spec = FakeConfig(control_hz=1000.0).spec()
    safety = SafetyConfig(timeout_s=0.06)
    stopwatch = _Stopwatch()
    if processes:

        def sleep(seconds):
            began_s = time.perf_counter()
            time.sleep(seconds)
            if stopwatch.turns_s:  # else the episode has not begun
                stopwatch.turns_s[-1] += time.perf_counter() - began_s  # waiting is no cost

        env = RobotEnv(Still(spec), safety, sleep=sleep)
    else:
        clock = Clock()
        guard = Guard(Still(spec, clock), safety, clock=clock)
        env = RobotEnv(Still(spec, clock), link=LocalLink(guard), clock=clock, sleep=clock.sleep)
    try:
        with tempfile.TemporaryDirectory() as folder, Dataset.create(Path(folder) / "data", spec_of(env)) as dataset:
            journal = Journal(dataset)
            rollout(env, _Measured(stopwatch), seed=0, max_steps=steps, observers=[journal])
            journal.discard()
        turns_us, disturbed = np.array(stopwatch.turns_s[10:-1]) * 1e6, np.array(stopwatch.disturbed[10:])
        p50, p99 = np.percentile(turns_us[~disturbed], [50, 99])
        return {
            "steps": steps,
            "p50_us": float(p50),
            "p99_us": float(p99),
            "disturbed": int(disturbed.sum()),
            "p99_of_all_us": float(np.percentile(turns_us, 99)),
        }
    finally:
        env.close()
