"""RobotEnv: one loop drives a robot like any world, in measured time, and says what was really done."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robots.trials.drivers import DirectRobot, FullSpeed, Sway, TakesTurns, guarded

import understudy
from understudy.agent import Command
from understudy.errors import ActionError, ConfigError, RobotError, RobotLost
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig
from understudy.robots.guard_link import LocalLink
from understudy.robots.guard_messages import Status
from understudy.robots.novelty import WatchedAgent
from understudy.robots.safety import Kind
from understudy.robots.safety_config import SafetyConfig
from understudy.rollout import Observer, rollout
from understudy.spec import spec_of


def world(config=None, safety=None, spec=None):
    robot, guard, clock = guarded(config or FakeConfig(homes=False), safety, spec)
    return robot, guard, clock, RobotEnv(robot, link=LocalLink(guard), clock=clock, sleep=clock.sleep)


class Calls(Observer):
    """Does something at a step."""

    def __init__(self, at, call):
        self._at, self._call = at, call

    def on_step(self, env, step):
        if step.index == self._at:
            self._call()


def test_what_was_asked_and_what_left_the_gate_are_both_in_the_episode():
    robot, _, _, env = world()
    episode = rollout(env, FullSpeed(speed=5.0), seed=0, max_steps=30)
    assert np.abs(episode.asked_actions).min() == 5.0
    assert np.allclose(episode.actions, np.array(robot.wire)[: len(episode)], atol=1e-6)
    assert np.abs(episode.actions).max() <= 1.0


def test_a_robot_names_its_channels_units_limits_and_rate():
    _, _, _, env = world()
    spec = spec_of(env)
    assert spec.is_named
    assert spec.env_id == "robot/fake"
    assert spec.control_hz == 50.0
    assert {channel.unit for channel in spec.actions} == {"rad/s"}
    assert spec.action_high.tolist() == [1.0] * 6


def test_deadlines_are_absolute_and_missed_ones_are_counted():
    _, _, clock, env = world()

    class Slow(Sway):
        def act(self, observation):
            clock.sleep(0.05 if self.steps % 10 == 5 else 0.015)
            return super().act(observation)

    class Began(Observer):
        def on_start(self, env, observation):
            self.at_s = clock.now_s

    began = Began()
    rollout(env, Slow(), seed=0, max_steps=100, observers=[began])
    assert env.overruns == 10
    assert env.worst_lateness_s == pytest.approx(0.03)
    assert clock.now_s - began.at_s == pytest.approx(100 * 0.02 + 10 * 0.03, abs=0.005)


def test_a_rollout_that_ends_leaves_the_robot_at_rest():
    robot, _, clock, env = world()
    rollout(env, Sway(), seed=0, max_steps=30)
    assert robot.stops_s == [clock.now_s]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_policy_that_answers_no_number_stops_the_robot_at_once(value):
    robot, _, clock, env = world()

    class Breaks(Sway):
        def act(self, observation):
            command = super().act(observation)
            return Command(np.full(6, value, np.float32)) if self.steps == 10 else command

    with pytest.raises(ActionError, match="the world was not stepped"):
        rollout(env, Breaks(), seed=0, max_steps=30)
    assert robot.stops_s == [clock.now_s]
    assert np.isfinite(robot.wire).all()


def test_an_absurd_action_is_not_turned_into_full_speed():
    robot, _, _, env = world()
    episode = rollout(env, FullSpeed(speed=1e30), seed=0, max_steps=30)
    assert episode.truncated
    assert "not finite" in env.stopped
    assert not robot.wire


def test_an_action_of_the_wrong_size_is_refused_and_the_robot_rests():
    robot, _, _, env = world()
    env.reset(seed=0)
    env.step(np.zeros(6))
    with pytest.raises(ActionError, match=r"shape \(5,\)"):
        env.step(np.zeros(5))
    assert robot.stops_s


def test_a_stop_ends_the_episode_with_its_reason_and_the_next_one_waits_for_a_reset():
    _, _, _, env = world()
    episode = rollout(env, Sway(), seed=0, max_steps=100, observers=[Calls(20, lambda: env.stop("a cat"))])
    assert len(episode) == 22
    assert episode.truncated
    assert "a cat" in env.stopped
    with pytest.raises(RobotError, match=r"a cat.*reset_stop"):
        env.reset(seed=0)
    env.reset_stop()
    assert len(rollout(env, Sway(), seed=0, max_steps=10)) == 10


@pytest.mark.parametrize(("key", "success"), [("s", 1), ("f", 0)])
def test_an_operator_judges_with_a_key(key, success):
    _, _, _, env = world()
    episode = rollout(env, Sway(), seed=0, max_steps=100, observers=[Calls(20, lambda: env.keys.extend(["x", key]))])
    assert episode.success == success
    assert episode.terminated
    assert len(episode) == 22
    assert env.keys == ["x"], "other keys are left to whoever wants them"


def test_without_a_judge_success_is_unknown():
    _, _, _, env = world()
    assert rollout(env, Sway(), seed=0, max_steps=5).success == -1


@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_an_episode_begins_at_home(mode):
    robot, _, _, env = world(FakeConfig(mode=mode))
    robot.body._p[:] = [1.5, -1.0, 0.2, 0.0, 1.0, -0.5]
    observation, _ = env.reset(seed=0)
    assert np.abs(observation).max() <= 0.05
    assert robot.violations() == {}


def test_a_change_of_driver_ramps_up_anew():
    robot, _, _, env = world(FakeConfig(homes=False, mode="velocity"), SafetyConfig(ramp_s=0.5))
    agent = TakesTurns(6, 1.0, 0)
    rollout(env, agent, seed=0, max_steps=200)
    assert agent.takeovers > 20
    assert env.counts[Kind.RAMP] > 100
    assert robot.violations() == {}


def test_a_robot_knows_no_options():
    _, _, _, env = world()
    with pytest.raises(ConfigError, match="initial_state"):
        env.reset(seed=0, options={"initial_state": {}})


def test_s9_nothing_about_motion_reads_a_clock_that_can_be_set():
    source = Path(understudy.__file__).parent
    for path in (*(source / "robots").glob("*.py"), source / "rollout.py", source / "sim" / "real_time.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = f"{node.value.id}.{node.attr}" if _is_plain(node) else ""
            assert name not in ("time.time", "time.time_ns", "datetime.now", "time.localtime"), f"{path.name}: {name}"


def _is_plain(node):
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def test_a_robot_without_a_process_is_what_the_fake_robot_is():
    assert DirectRobot(FakeConfig()).spec == FakeConfig().spec()


class Breaks:
    """Breaks a method of a robot for a while, from its n-th call on."""

    def __init__(self, robot, method, clock, seconds, calls=0):
        self._real, self._clock, self._seconds, self._left = getattr(robot, method), clock, seconds, calls
        self._until_s = None
        setattr(robot, method, self)

    def __call__(self, *arguments):
        self._left -= 1
        if self._left < 0:
            self._until_s = self._clock() + self._seconds if self._until_s is None else self._until_s
            if self._clock() < self._until_s:
                raise RobotLost("gone")
        return self._real(*arguments)


@pytest.mark.parametrize("method", ["home", "read"])
@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_a_connection_that_is_lost_as_an_episode_begins_lets_it_begin_again_at_home(mode, method):
    robot, _, clock, env = world(FakeConfig(mode=mode))
    rollout(env, Sway(), seed=0, max_steps=60)
    robot.body._p[:] = 0.8
    Breaks(robot, method, clock, 0.8)
    observation, _ = env.reset(seed=1)
    assert env.counts[Kind.CONNECTION] >= 1
    assert env.seen.status is Status.RUNNING
    assert np.abs(observation).max() <= 0.05


def test_a_connection_that_is_lost_whenever_an_episode_begins_is_said():
    robot, _, _, env = world()
    robot.home = lambda seed: (_ for _ in ()).throw(RobotLost("gone"))
    with pytest.raises(RobotError, match="cannot be reached: its connection is lost whenever an episode begins"):
        env.reset(seed=0)


@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_a_connection_that_is_lost_on_the_way_home_comes_back_and_the_robot_goes_on(mode):
    robot, _, clock, env = world(FakeConfig(mode=mode))
    robot.body._p[:] = 1.0
    Breaks(robot, "read", clock, 0.4, calls=20)
    observation, _ = env.reset(seed=0)
    assert env.counts[Kind.CONNECTION] == 1
    assert np.abs(observation).max() <= 0.05


def test_an_episode_begins_with_a_measurement_of_its_own():
    robot, _, clock, env = world()
    rollout(env, Sway(), seed=0, max_steps=30)
    robot.body._p[:] = 1.2  # somebody moved it by hand
    clock.now_s += 5.0
    old = [clock.now_s + 0.5]
    robot.spoil = lambda reading: reading._replace(time_s=reading.time_s - 1.0) if clock.now_s < old[0] else reading
    observation, _ = env.reset(seed=1)
    assert observation.tolist() == pytest.approx([1.2] * 6, abs=1e-3)
    assert clock.now_s - env.seen.reading.time_s < 0.1


def test_episodes_that_begin_outside_of_the_limits_are_refused():
    robot, _, _, env = world()
    robot.home = lambda seed: np.array([0.0, 2.5, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(ConfigError, match=r"begin with joint_2.velocity at 2.5, and its limits are -2 to 2"):
        env.reset(seed=0)
    assert not robot.wire


def test_an_arm_that_hangs_a_little_below_home_is_there():
    robot, _, clock, env = world(FakeConfig(mode="position"))
    robot.body._p[:] = -1.0
    robot.spoil = lambda reading: reading._replace(
        position=reading.position - 0.08, observation=reading.observation - np.float32(0.08)
    )
    began_s = clock.now_s
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == pytest.approx([-0.08] * 6, abs=0.01)
    assert clock.now_s - began_s < 6.0


class Pauses(Sway):
    """Thinks for half a second at one step, and keeps count of what it is told to forget."""

    forgotten = 0

    def act(self, observation):
        command = super().act(observation)
        if self.steps == 20:
            self.clock.sleep(0.5)
        return command

    def replan(self):
        self.forgotten += 1


@pytest.mark.parametrize("watched", [False, True])
def test_after_a_pause_what_was_planned_before_it_is_forgotten(watched):
    _, _, clock, env = world()
    agent = Pauses()
    agent.clock, infos = clock, []
    seen = Calls(10**6, None)
    seen.on_step = lambda env, step: infos.append(step.info)
    acting = WatchedAgent(agent, lambda observation, action: 0.0, env) if watched else agent
    rollout(env, acting, seed=0, max_steps=40, observers=[seen])
    assert env.counts[Kind.SILENCE] == 1
    paused = [index for index, info in enumerate(infos) if info.get("paused")]
    assert paused
    assert agent.forgotten == len(paused)
    assert 19 <= min(paused) <= max(paused) <= 24, "and not without one"


def test_a_stop_that_does_not_reach_the_robot_at_the_end_of_an_episode_is_said():
    robot, _, _, env = world()

    class Cut(Observer):
        def on_end(self, env, episode):
            robot.stop = robot.connect = lambda: (_ for _ in ()).throw(RobotLost("gone"))

    rollout(env, Sway(), seed=0, max_steps=10, observers=[Cut()])
    assert "could not be told to stop" in env.stopped


def test_a_robot_that_cannot_be_told_to_stop_at_the_very_end_is_said(monkeypatch):
    robot, _, clock, env = world()
    monkeypatch.setattr("understudy.robots.guard.time.sleep", clock.sleep)
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.full(6, 0.5))
    robot.stop = robot.connect = lambda: (_ for _ in ()).throw(RobotLost("gone"))
    with pytest.raises(RobotError, match="could not be told to stop: use its own stop"):
        env.close()


def test_a_stop_that_is_taken_back_while_the_episode_runs_ends_it():
    _, _, _, env = world()

    def press_and_take_back():
        env.link.press("a cat")
        env.link.reset()

    episode = rollout(env, Sway(), seed=0, max_steps=100, observers=[Calls(20, press_and_take_back)])
    assert len(episode) == 22
    assert episode.truncated
    assert "taken back while the episode ran" in env.stopped
    assert len(rollout(env, Sway(), seed=0, max_steps=10)) == 10
    assert not env.stopped


@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_an_axis_that_grips_is_waited_for_on_the_way_home(mode):
    config = FakeConfig(mode=mode, axes=2, velocity=0.2)
    robot, _, clock, env = world(config, spec=grips(config))
    robot.body._p[:] = [0.0, 1.2]
    env.reset(seed=0)
    assert abs(robot.body.state(clock()).position[1]) < 0.05


def grips(config):
    spec = config.spec()
    return replace(spec, axes=(spec.axes[0], replace(spec.axes[1], grips=True)))


def test_an_axis_that_something_keeps_from_home_is_not_waited_for_where_it_grips():
    config = FakeConfig(mode="position", axes=2)
    robot, _, _, env = world(config, spec=grips(config))
    robot.body._p[:] = [0.0, 1.2]

    def held(reading):
        return reading._replace(position=np.maximum(reading.position, [-2.0, 1.0]))

    robot.spoil = held
    env.reset(seed=0)
    assert not env.stopped


def test_the_way_home_may_take_as_long_as_it_is_slow():
    robot, _, clock, env = world(FakeConfig(axes=1, velocity=0.02))
    robot.body._p[:] = 1.0
    began_s = clock.now_s
    observation, _ = env.reset(seed=0)
    assert abs(observation[0]) <= 0.05
    assert clock.now_s - began_s > 40


def test_an_episode_begins_once_the_robot_is_seen_at_rest():
    robot, _, _, env = world()
    robot.body.command(np.full(6, 0.4), robot.clock())  # whoever held it before has died
    env.reset(seed=0)
    assert robot.stops == 1
    assert not np.any(robot.body.state(robot.clock()).velocity)
    *_, info = env.step(np.full(6, 0.1))
    assert info["executed_action"].any(), "and its first action is executed"
    assert "paused" not in info


def test_a_robot_that_takes_long_to_stop_is_waited_for_as_an_episode_begins():
    robot, _, _, env = world(FakeConfig(acceleration=0.1, homes=False))
    robot.body._p[:] = -1.0
    robot.body._v[:] = 0.5  # whoever held it before has died
    env.reset(seed=0)
    assert not np.any(robot.body.state(robot.clock()).velocity)
