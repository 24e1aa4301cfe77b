import time

import numpy as np
import pytest

from tiny_worlds import TinyWorld  # isort: skip
from understudy.agent import Replay
from understudy.errors import ConfigError
from understudy.rollout import rollout
from understudy.sim.real_time import RealTime

STILL = np.zeros(2, np.float32)


class FakeTime:
    def __init__(self):
        self.now_s, self.slept = 10.0, []

    def clock(self):
        return self.now_s

    def sleep(self, duration_s):
        self.slept.append(duration_s)
        self.now_s += duration_s + 0.003  # a real sleep takes longer than asked

    def world(self, work_s, **options):
        """A world whose steps take the durations in `work_s`."""
        durations = iter(work_s)

        class Working(TinyWorld):
            def step(world, action):  # noqa: N805
                self.now_s += next(durations)
                return super().step(action)

        return RealTime(Working(length=99), clock=self.clock, sleep=self.sleep, **options)


def test_deadlines_are_absolute_so_that_delays_do_not_add_up():
    fake = FakeTime()
    env = fake.world([0.005] * 50)
    env.reset(seed=0)
    for step in range(1, 51):
        env.step(STILL.copy())
        assert fake.now_s == pytest.approx(10.0 + step * 0.02 + 0.003)
    assert env.late_steps == 0


def test_a_late_step_is_counted_and_the_world_does_not_rush_afterwards():
    fake = FakeTime()
    env = fake.world([0.005, 0.070, 0.005], control_hz=50)
    env.reset(seed=0)
    for _ in range(3):
        env.step(STILL.copy())
    assert env.late_steps == 1
    assert env.worst_lateness_s == pytest.approx(0.053)
    assert fake.slept[-1] == pytest.approx(0.015)


def test_a_paced_rollout_takes_the_time_it_shows():
    env = RealTime(TinyWorld(length=10), control_hz=200)
    start_s = time.monotonic()
    episode = rollout(env, Replay(STILL[None]), seed=0)
    assert time.monotonic() - start_s >= 10 / 200
    assert np.median(np.diff(episode.time_s)) > 0.004  # one late step makes the next one short


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(ConfigError, match="needs a rate above 0"):
        RealTime(TinyWorld(), control_hz=rate)
