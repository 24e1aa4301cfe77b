"""The simulated robot is the bundled world behind the Robot protocol, in real time."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import understudy as us
from understudy.errors import ConfigError
from understudy.robots.machine import State
from understudy.robots.protocol import Mode
from understudy.robots.sim import SimBody, SimConfig, SimRobot, sim_spec
from understudy.sim.pick_place import GRASP_POINT, JOINT_POSITIONS
from understudy.spec import spec_of


def arm(config=SimConfig()):  # noqa: B008
    robot = SimRobot(config)
    return robot, us.RobotEnv(robot)


def test_its_channels_and_rate_are_those_of_the_world():
    world = spec_of(us.make_env("understudy/PickPlace-v0"))
    robot = sim_spec().spec()
    world.require(robot, what="robot", against="world")
    assert [channel.name for channel in robot.actions] == [channel.name for channel in world.actions]
    assert robot.action_high.tolist() == world.action_high.tolist()
    assert [axis.mode for axis in sim_spec().axes] == [Mode.VELOCITY] * 6 + [Mode.POSITION]


def test_an_expert_succeeds_on_several_robots_at_once_from_the_worlds_own_starts():
    world = us.make_env("understudy/PickPlace-v0")
    starts = {seed: world.reset(seed=seed)[0] for seed in (500_000, 500_001, 500_002)}

    def run(seed):
        robot, env = arm()
        try:
            expert = us.sim.expert_for(us.make_env("understudy/PickPlace-v0"), "scripted")
            episode = us.rollout(env, us.Demonstrator(expert), seed=seed, max_steps=120, after_success=1)
            return episode, env.stopped, robot.machine.report()
        finally:
            env.close()
            robot.machine.close()

    with ThreadPoolExecutor(3) as pool:
        for seed, (episode, stopped, report) in zip(starts, pool.map(run, starts), strict=True):
            assert np.allclose(episode.observations[0], starts[seed], atol=2e-3)
            assert episode.success == 1
            assert not stopped
            assert report["violations"] == {}


def test_physics_keeps_up_with_the_clock():
    body = SimBody(SimConfig())
    body.home(500_000, 100.0)
    body.command(np.array([0.5, 0, 0, 0, 0, 0, 1.0]), 100.0)
    start = body.state(100.0).position[0]
    assert body.state(101.0).position[0] - start == pytest.approx(0.5, abs=0.03)
    body.stop(101.0)
    stood = body.state(101.2)
    assert body.state(102.0).position[0] == pytest.approx(stood.position[0], abs=5e-3)


def test_latency_is_in_the_time_of_a_measurement_and_noise_in_its_numbers():
    body = SimBody(SimConfig(latency_s=0.1, noise=0.01))
    body.home(500_000, 100.0)
    states = [body.state(100.0 + 0.05 * step) for step in range(40)]
    ages = [100.0 + 0.05 * step - state.time_s for step, state in enumerate(states)]
    assert ages[-1] == pytest.approx(0.1, abs=0.006)
    assert isinstance(states[-1], State)
    spread = np.std([state.observation for state in states[10:]], axis=0)
    assert 0.005 < spread.mean() < 0.02


def test_a_late_command_takes_effect_late():
    body = SimBody(SimConfig(command_latency_s=0.2))
    body.home(500_000, 100.0)
    body.command(np.array([0.5, 0, 0, 0, 0, 0, 1.0]), 100.0)
    start = body.state(100.0).position[0]
    assert body.state(100.15).position[0] == pytest.approx(start, abs=1e-3)
    assert body.state(101.2).position[0] - start == pytest.approx(0.5, abs=0.03)


def test_it_knows_where_its_hand_is():
    robot = SimRobot()
    try:
        observation, _ = us.make_env("understudy/PickPlace-v0").reset(seed=500_000)
        hand = robot.forward([*observation[JOINT_POSITIONS], 1.0])
        assert np.allclose(hand, observation[GRASP_POINT], atol=1e-5)
    finally:
        robot.machine.close()


def test_the_hand_stays_in_a_workspace():
    robot = SimRobot()
    env = us.RobotEnv(robot, us.SafetyConfig(workspace=((0.1, -0.6, 0.12), (0.8, 0.6, 0.8)), ramp_s=0.1))

    class Down:
        def reset(self, seed):
            pass

        def act(self, observation):
            return us.Command(np.array([0, 0.6, 0, 0, 0, 0, 1.0], np.float32))

    try:
        episode = us.rollout(env, Down(), seed=500_000, max_steps=50)
    finally:
        env.close()
        robot.machine.close()
    heights = episode.observations[:, GRASP_POINT][:, 2]
    assert heights[0] > 0.15
    assert 0.115 < heights.min() < 0.16
    assert env.counts[us.robots.Kind.WORKSPACE] > 0


def test_a_machine_outlives_nobody():
    robot = SimRobot()
    process = robot.machine.process
    robot.machine.close()
    until_s = time.monotonic() + 5.0
    while process.is_alive() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not process.is_alive()


def test_a_config_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="latency_s is -1"):
        SimConfig(latency_s=-1)
