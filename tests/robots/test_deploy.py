"""deploy: every run an episode, with what gate and guard did; novelty; limits from a file; robots by name."""

import json
import math

import numpy as np
import pytest
from robots.trials.drivers import DirectRobot, guarded

import understudy as us
from understudy.dataset import DatasetWarning
from understudy.errors import ActionError, ConfigError, SpecMismatch
from understudy.robots.fake import FakeConfig
from understudy.robots.guard_link import LocalLink
from understudy.robots.novelty import Novelty, WatchedAgent
from understudy.robots.safety import Kind, SafetyConfig
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics

SPEC = FakeConfig(homes=False).spec().spec()


class Policy:
    """Moves every axis at half speed; knows training data between -1 and 1 rad."""

    history, horizon = 1, 1

    def __init__(self, spec=SPEC, value=0.5, members=None):
        self.spec, self.value = spec, value
        rows = np.linspace(-1, 1, 50, dtype=np.float32)[:, None] * np.ones(6, np.float32)
        self.statistics = (ChannelStatistics.of([rows]), ChannelStatistics.of([rows]))
        if members is not None:
            self.predictions = lambda observations: np.array(members)[:, None, None] * np.ones((1, 1, 6), np.float32)

    def predict(self, observations):
        return np.full((1, 6), self.value, np.float32)


@pytest.fixture
def world():
    robot, guard, clock = guarded(FakeConfig(homes=False), SafetyConfig(novelty_limit=1.0))
    return us.RobotEnv(robot, link=LocalLink(guard), clock=clock, sleep=clock.sleep), robot


@pytest.fixture
def dataset(tmp_path):
    with us.Dataset.create(tmp_path / "runs", SPEC) as made:
        yield made


def test_every_run_becomes_an_episode_with_an_account(world, dataset):
    env, _ = world
    runs = list(us.deploy(env, Policy(), dataset, seeds=[1, 2], max_steps=30))
    assert [row.seed for row in dataset.rows] == [1, 2]
    assert [run.row.id for run in runs] == [0, 1]
    assert runs[0].ticks == 30
    assert runs[0].counts[Kind.RAMP] > 0
    assert runs[1].counts != env.counts, "each run counts its own"
    assert "30 steps" in str(runs[0])
    assert json.loads(json.dumps(runs[0].to_json()))["id"] == 0


def test_a_stop_ends_the_runs_and_is_recorded(world, dataset):
    env, _ = world

    class Presses(us.Observer):
        def on_step(self, env, step):
            if step.index == 10:
                env.unwrapped.stop("a cat")

    runs = list(us.deploy(env, Policy(), dataset, seeds=[1, 2], max_steps=30, observers=[Presses()]))
    assert len(runs) == len(dataset) == 1
    assert "a cat" in runs[0].stopped
    assert len(dataset[0]) == 12


def test_a_policy_that_breaks_leaves_what_led_to_it(world, dataset):
    env, robot = world
    policy = Policy()

    class Breaks(us.Observer):
        def on_step(self, env, step):
            if step.index == 10:
                policy.value = math.nan

    with pytest.raises(ActionError), pytest.warns(DatasetWarning, match="11 steps was recovered as partial"):
        list(us.deploy(env, policy, dataset, seeds=[1], max_steps=30, observers=[Breaks()]))
    assert robot.stops_s
    (row,) = dataset.include_partial().rows
    assert row.partial
    assert row.length == 11


def test_whoever_asks_for_a_verdict_is_heard(world, dataset):
    env, _ = world
    runs = list(us.deploy(env, Policy(), dataset, seeds=[1, 2], max_steps=5, verdict=lambda episode: episode.seed - 1))
    assert [run.episode.success for run in runs] == [row.success for row in dataset.rows] == [0, 1]


def test_a_question_that_is_interrupted_keeps_the_run(world, dataset):
    env, _ = world

    def interrupted(episode):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(us.deploy(env, Policy(), dataset, seeds=[1], max_steps=10, verdict=interrupted))
    (row,) = dataset.rows
    assert (row.length, row.success, row.partial) == (10, -1, False)


def test_channels_without_names_are_refused_on_a_robot(world):
    env, robot = world
    with pytest.raises(SpecMismatch, match=r"without names.*--env"):
        list(us.deploy(env, Policy(Spec.unnamed(6, 6)), seeds=[1]))
    assert not robot.wire


def test_a_policy_of_another_robot_is_refused(world):
    env, _ = world
    other = FakeConfig(mode="position").spec().spec()
    with pytest.raises(SpecMismatch, match=r"'joint_1.velocity' against 'joint_1.position'|joint_1"):
        list(us.deploy(env, Policy(other), seeds=[1]))


def test_too_strange_an_observation_brakes_and_then_stops(world):
    env, robot = world
    robot.body._p[:] = 1.2
    (run,) = us.deploy(env, Policy(), seeds=[1], max_steps=200, novelty=Novelty(Policy(), distance=0.2))
    assert run.novelty > 1
    assert run.counts[Kind.NOVELTY] > 10
    assert "novelty" in run.stopped
    assert robot.body._p[0] < 1.7, "0.4 rad outside of the training data, and no further"


class Back:
    engaged = True

    def reset(self, seed):
        pass

    def label(self, observation):
        return np.full(6, -0.5, np.float32)


def test_an_expert_who_is_there_is_asked_for_help(world, dataset):
    env, robot = world
    robot.body._p[:] = 1.2
    novelty = Novelty(Policy(), distance=0.2)
    (run,) = us.deploy(env, Policy(), dataset, seeds=[1], max_steps=200, novelty=novelty, expert=Back())
    assert not run.stopped
    assert run.helped > 0
    assert run.novelty > 1
    assert 0 < env.novelty < 1, "measured also while the gate is not told"
    assert dataset[0].labelled.any()
    assert robot.body._p[0] < 1.6


@pytest.mark.parametrize(("value", "strange"), [(0.9, 0.0), (1.5, 0.5), (2.0, 1.0), (-3.0, 2.0)])
def test_distance_is_measured_in_widths_of_the_training_range(value, strange):
    observation = np.zeros(6, np.float32)
    observation[3] = value
    assert Novelty(Policy(), distance=0.5)(observation, None) == pytest.approx(strange)


def test_doubt_is_the_spread_of_an_ensemble():
    policy = Policy(members=(-0.3, 0.3))
    agent = us.PolicyAgent(policy)
    agent.reset(0)
    agent.act(np.zeros(6, np.float32))
    assert Novelty(policy, distance=None, doubt=0.2)(np.zeros(6, np.float32), agent) == pytest.approx(0.3 / 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": None}, "give one of them"),
        ({"distance": 0.0}, "novelty is 0.0"),
        ({"doubt": 0.1}, "no ensemble"),
    ],
)
def test_a_novelty_that_measures_nothing_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Novelty(Policy(), **options)


def test_a_watched_agent_without_an_expert_tells_the_gate():
    told = []

    class Robot:
        def novel(self, value, *, helped):
            assert not helped
            told.append(value)

    agent = WatchedAgent(us.PolicyAgent(Policy()), Novelty(Policy(), distance=0.5), Robot())
    agent.reset(0)
    agent.act(np.full(6, 2.0, np.float32))
    assert told == [1.0]


def limits_file(tmp_path, content):
    path = tmp_path / "limits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("limit", "value"), [("velocity", 500.0), ("acceleration", 21.0), ("low", -3.0), ("high", 3.0)]
)
def test_a_limit_that_the_driver_states_is_made_tighter_and_not_wider(limit, value):
    limits = us.Limits({"joint_1.velocity": {limit: value}})
    with pytest.raises(ConfigError, match="tighter, not wider"):
        limits.hold(DirectRobot(), SafetyConfig())
    us.Limits({"joint_1.velocity": {limit: value / 1000}}).hold(DirectRobot(), SafetyConfig())


def test_limits_come_from_a_file(tmp_path):
    robot, _, _ = guarded()
    path = limits_file(tmp_path, {"axes": {"joint_2.velocity": {"velocity": 0.2}}, "workspace": [[0, 0, 0], [1, 1, 1]]})
    robot, safety = us.Limits.read(path).hold(robot, SafetyConfig())
    assert [axis.velocity for axis in robot.spec.axes] == [1.0, 0.2, 1.0, 1.0, 1.0, 1.0]
    assert safety.workspace == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ([], "are an object with axes and workspace"),
        ({"joints": {}}, "got 'joints'"),
        ({"axes": {"elbow": {"low": 0}}}, "fake has no axis 'elbow'"),
        ({"axes": {"joint_1.velocity": {"speed": 0}}}, "'speed' is no limit"),
        ({"axes": {"joint_1.velocity": {"low": "0"}}}, "it is a number"),
        ({"axes": {"joint_1.velocity": {"low": 3}}}, "low is below high"),
        ('{"axes": {"joint_1.velocity": {"high": NaN}}}', "finite"),
        ({"axes": {"joint_1.velocity": {"velocity": -1}}}, "above 0"),
        ({"axes": 3}, "an object of objects"),
        ({"workspace": [[0, 0], [1, 1]]}, "two corners"),
    ],
)
def test_limits_that_cannot_be_are_refused(tmp_path, content, message):
    robot, _, _ = guarded()
    with pytest.raises(ConfigError, match=message):
        us.Limits.read(limits_file(tmp_path, content)).hold(robot, SafetyConfig())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("toaster", {}, "accepted: fake, sim, lerobot:TYPE, or module:Class"),
        ("fake", {"legs": 2}, "has no option legs; it has mode, axes, control_hz"),
        ("fake", {"axes": 0}, "axes is 0"),
        ("fake", {"axes": 2.5}, "axes is 2.5; accepted: a whole number"),
        ("fake", {"mode": "nowhere"}, "mode is 'nowhere'; accepted: position, velocity"),
        ("fake", {"control_hz": "fast"}, "control_hz is 'fast'; accepted: a number"),
        ("fake", {"control_hz": 0}, "accepted: above 0"),
        ("fake", {"homes": 1}, "homes is 1; accepted: true or false"),
        ("sim", {"latency": 0.1}, "has no option latency; it has latency_s"),
        ("sim", {"latency_s": "long"}, "latency_s is 'long'; accepted: a number"),
        ("no_such_module:Arm", {}, "cannot be imported"),
        ("json:loads", {"s": "1"}, "is no robot: it lacks connect"),
        ("json:loads", {"s": "{"}, "could not be made .JSONDecodeError: "),
    ],
)
def test_a_robot_that_does_not_exist_is_refused(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        us.robot_for(name, arguments)


def test_what_is_too_strange_is_refused_by_default():
    robot, guard, clock = guarded(FakeConfig(homes=False))
    env = us.RobotEnv(robot, link=LocalLink(guard), clock=clock, sleep=clock.sleep)
    robot.body._p[:] = 1.9
    (run,) = us.deploy(env, Policy(), seeds=[1], max_steps=200, novelty=Novelty(Policy(), distance=0.2))
    assert run.counts[Kind.NOVELTY] > 10
    assert "novelty" in run.stopped


def test_a_stop_that_is_pressed_between_two_runs_ends_them(world, dataset):
    env, _ = world
    runs = []
    for run in us.deploy(env, Policy(), dataset, seeds=range(3), max_steps=10):
        runs.append(run)
        env.link.press("a cat")
    assert len(runs) == 1
    assert not runs[0].stopped
    assert "a cat" in env.stopped


def test_limits_say_which_axis_grips(tmp_path):
    robot, _, _ = guarded()
    path = limits_file(tmp_path, {"axes": {"joint_2.velocity": {"grips": True, "velocity": 0.5}}})
    robot, _ = us.Limits.read(path).hold(robot, SafetyConfig())
    assert [axis.grips for axis in robot.spec.axes] == [False, True, False, False, False, False]
    assert robot.spec.axes[1].velocity == 0.5


HOSTILE = {
    "a limit twice": ('{"axes": {"joint_1.velocity": {"high": 1, "high": 2}}}', "'high' is there twice"),
    "an axis twice": (
        '{"axes": {"joint_1.velocity": {}, "joint_1.velocity": {}}}',
        "'joint_1.velocity' is there twice",
    ),
    "too deep": ("[" * 100_000, "not JSON"),
    "too long": (" " * 1_000_001, "longer than 1000000 bytes"),
    "a number of 400 digits": ('{"axes": {"joint_1.velocity": {"high": 1' + "0" * 400 + "}}}", "it is a number"),
    "a corner of 400 digits": ('{"workspace": [[0, 0, 0], [1, 1, 1' + "0" * 400 + "]]}", "two corners"),
    "a word that grips": ('{"axes": {"joint_1.velocity": {"grips": "yes"}}}', "it is true or false"),
    "a number that grips": ('{"axes": {"joint_1.velocity": {"grips": 1}}}', "it is true or false"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_limits_are_refused_in_one_line(tmp_path, what):
    content, message = HOSTILE[what]
    robot, _, _ = guarded()
    with pytest.raises(ConfigError, match=message) as refused:
        us.Limits.read(limits_file(tmp_path, content)).hold(robot, SafetyConfig())
    assert len(str(refused.value)) < 400
