"""LeRobot's robots and teleoperators, against a stand-in that speaks the library's own interface."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from understudy.agent import Demonstrator, Driver
from understudy.errors import ConfigError, ExpertError, MissingDependency, RobotError, RobotLost
from understudy.robots import Limits, RobotEnv, SafetyConfig
from understudy.robots.lerobot import LeRobotExpert, lerobot_robot
from understudy.rollout import rollout

STAND_INS = Path(__file__).parents[1] / "stand_ins"
LIMITS = {"velocity": 100.0, "acceleration": 2000.0}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.syspath_prepend(str(STAND_INS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("lerobot", "draccus"):
            del sys.modules[name]


@pytest.fixture
def port(tmp_path):
    (tmp_path / "follower").touch()
    return str(tmp_path / "follower")


@pytest.fixture
def leader_port(tmp_path):
    (tmp_path / "leader").touch()
    return tmp_path / "leader"


def sent(port):
    return [json.loads(line) for line in Path(port).read_text().splitlines()]


def test_channels_and_units_are_those_of_the_library(port):
    spec = lerobot_robot("so101_follower", port=port, control_hz=20).spec
    assert (spec.name, spec.control_hz) == ("lerobot:so101_follower", 20)
    assert [(axis.name, axis.unit, axis.low, axis.high) for axis in spec.axes] == [
        ("shoulder_pan.pos", "deg", None, None),
        ("elbow_flex.pos", "deg", None, None),
        ("gripper.pos", "%", 0.0, 100.0),
    ]
    assert [(channel.name, channel.unit) for channel in spec.observations][:1] == [("shoulder_pan.pos", "deg")]
    scaled = lerobot_robot("so100_follower", port=port, use_degrees=False).spec
    assert {(axis.unit, axis.low, axis.high) for axis in scaled.axes} == {("%", 0.0, 100.0)}


def test_it_reads_commands_holds_and_lets_go_without_falling(port):
    robot = pickle.loads(pickle.dumps(lerobot_robot("so101_follower", port=port, id="black")))
    robot.connect()
    reading = robot.read()
    assert reading.observation.tolist() == reading.position.tolist() == [10, 10, 10]
    robot.command(np.array([1.0, 2.0, 3.0]))
    assert robot.read().position.tolist() == [1, 2, 3]
    robot.stop()
    robot.stop()
    robot.disconnect()
    robot.disconnect()
    goal = {"shoulder_pan": 1.0, "elbow_flex": 2.0, "gripper": 3.0}
    assert sent(port) == [{"goal": goal}] * 3 + [{"disconnected": True, "torque": True}]


def test_motors_that_hold_an_arm_are_not_set_up_anew_where_a_connection_comes_back(port, monkeypatch):
    robot = lerobot_robot("so101_follower", port=port)
    set_up = []
    monkeypatch.setattr(type(robot._device), "configure", lambda device: set_up.append(device))
    robot.connect()
    robot.command(np.array([1.0, 2.0, 3.0]))
    robot.reconnect()
    assert robot.read().position.tolist() == [1, 2, 3]
    robot.stop()
    assert len(set_up) == 1
    assert sent(port)[1:] == [
        {"disconnected": True, "torque": True},
        {"goal": {"shoulder_pan": 1.0, "elbow_flex": 2.0, "gripper": 3.0}},
    ]


def test_a_change_of_a_small_axis_is_seen_beside_a_large_one(port):
    robot = lerobot_robot("so101_follower", port=port)
    limits = {"shoulder_pan.pos": {"low": -1e6, "high": 1e6}}
    robot.spec = robot.spec.limited(limits)
    robot.connect()
    robot._device.send_action = lambda asked: {"shoulder_pan.pos": asked["shoulder_pan.pos"] + 5, "gripper.pos": 51.0}
    with pytest.raises(RobotError, match="51 instead of 50 to gripper"):
        robot.command(np.array([0.0, 0.0, 50.0]))


def test_a_stop_before_the_first_command_holds_where_it_stands(port):
    robot = lerobot_robot("so101_follower", port=port)
    robot.connect()
    robot.stop()
    assert sent(port) == [{"goal": {"shoulder_pan": 10.0, "elbow_flex": 10.0, "gripper": 10.0}}]


def test_a_stop_does_not_wait_for_a_call_that_hangs(port):
    robot = lerobot_robot("so101_follower", port=port)
    robot.connect()
    robot.command(np.zeros(3))
    with robot._wire:
        robot.stop()
    assert len(sent(port)) == 2


def test_the_motors_let_go_where_a_person_says_so(port):
    robot = lerobot_robot("so101_follower", port=port, disable_torque_on_disconnect=True)
    robot.connect()
    robot.disconnect()
    assert sent(port) == [{"disconnected": True, "torque": False}]


def test_episodes_begin_where_a_person_says(port):
    assert lerobot_robot("so101_follower", port=port).home(0) is None
    assert lerobot_robot("so101_follower", port=port, home=[0, 5, 50]).home(0).tolist() == [0, 5, 50]
    with pytest.raises(ConfigError, match="1 positions; so101_follower has 3 axes"):
        lerobot_robot("so101_follower", port=port, home=[0])


def test_cameras_are_left_out(port):
    robot = lerobot_robot("so101_follower", port=port, cameras={"wrist": {}})
    robot.connect()
    assert robot.read().observation.shape == (3,)


def test_a_connection_that_is_lost_is_said_and_taken_up_again(port):
    robot = lerobot_robot("so101_follower", port=port)
    with pytest.raises(RobotLost, match="not connected"):
        robot.read()
    robot.connect()
    Path(port).rename(port + "-away")
    with pytest.raises(RobotLost, match="no status packet"):
        robot.read()
    with pytest.raises(RobotLost, match="Could not connect on port"):
        robot.connect()
    Path(port + "-away").rename(port)
    robot.connect()
    assert robot.read().position.tolist() == [10, 10, 10]


def test_an_arm_that_is_not_calibrated_is_refused_and_nobody_is_asked_to_move_it(tmp_path):
    (tmp_path / "uncalibrated").touch()
    robot = lerobot_robot("so101_follower", port=str(tmp_path / "uncalibrated"))
    with pytest.raises(RobotError, match="lerobot-calibrate"):
        robot.connect()
    expert = LeRobotExpert("so101_leader", robot.spec.spec(), port=str(tmp_path / "uncalibrated"))
    with pytest.raises(ExpertError, match="lerobot-calibrate"):
        expert.reset(0)


def test_what_the_library_changes_is_noticed(port):
    """The episode records what the gate let through, so nothing behind it may cut commands."""
    robot = lerobot_robot("so101_follower", port=port, most=5.0)
    robot.connect()
    robot.command(np.array([1.0, 2.0, 3.0]))
    with pytest.raises(RobotError, match=r"sent 5 instead of 8 to elbow_flex\.pos"):
        robot.command(np.array([1.0, 8.0, 3.0]))
    with pytest.raises(ConfigError, match="max_relative_target"):
        lerobot_robot("so101_follower", port=port, max_relative_target=5)


MISTAKES = {
    "a kind that it does not have": (("so102",), "has no robot 'so102'; it has so100_follower, so101_follower"),
    "a kind whose package is missing": (("reachy2",), "reachy2 cannot be imported.*reachy2_sdk"),
    "no port": (("so101_follower",), "refuses the arguments of so101_follower.*Missing required"),
    "wheels": (("wheels", "port"), r"takes x\.vel, of which it measures no position"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_what_is_accepted(port, name):
    (kind, *more), message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message) as error:
        lerobot_robot(kind, **({"port": port} if more else {}))
    assert "\n" not in str(error.value)


def test_without_the_library_one_line_says_so(port, monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot.robots", None)
    with pytest.raises(MissingDependency, match=r"your_own_robot\.md"):
        lerobot_robot("so101_follower", port=port)


def test_a_leader_arm_says_where_the_person_holds_it(port, leader_port):
    spec = lerobot_robot("so101_follower", port=port).spec.spec()
    expert = LeRobotExpert("so101_leader", spec, port=str(leader_port))
    assert expert.engaged
    with pytest.raises(ExpertError, match="gave no action"):
        expert.label(np.zeros(3, np.float32))
    expert.reset(0)
    expert.reset(1)
    leader_port.write_text('{"goal": {"gripper": 70.0}}\n')
    assert expert.label(np.zeros(3, np.float32)).tolist() == [10, 10, 70]
    expert.close()
    leader_port.unlink()
    with pytest.raises(ExpertError, match="cannot be reached"):
        expert.reset(2)


def test_a_device_of_other_channels_is_refused(port):
    spec = lerobot_robot("so101_follower", port=port).spec.spec()
    with pytest.raises(ConfigError, match=r"gives dtype, shape, names, and not shoulder_pan\.pos"):
        LeRobotExpert("gamepad", spec)


def test_a_leader_arm_drives_the_follower_through_the_guard_and_the_episode_says_so(port, leader_port):
    robot = lerobot_robot("so101_follower", port=port, control_hz=50)
    with pytest.raises(ConfigError, match="without limits nothing moves"):
        RobotEnv(robot)
    Limits(
        {
            axis.name: {"low": -50.0 if axis.low is None else axis.low, "high": 100.0, **LIMITS}
            for axis in robot.spec.axes
        }
    ).hold(robot, SafetyConfig())
    env = RobotEnv(robot)
    expert = LeRobotExpert("so101_leader", robot.spec.spec(), port=str(leader_port))
    leader_port.write_text('{"goal": {"elbow_flex": 30.0, "gripper": 20.0}}\n')
    try:
        episode = rollout(env, Demonstrator(expert), seed=0, max_steps=50)
    finally:
        env.close()
        expert.close()
    assert len(episode) == 50
    assert (episode.driver == Driver.EXPERT).all()
    np.testing.assert_allclose(episode.labels, np.tile([10, 30, 20], (50, 1)))
    assert np.abs(np.diff(episode.actions, axis=0)).max() <= LIMITS["velocity"] / 50 + 1e-3
    np.testing.assert_allclose(episode.actions[-1], [10, 30, 20], atol=0.1)
    np.testing.assert_allclose(episode.observations[-1], [10, 30, 20], atol=0.1)
    goals = [line["goal"] for line in sent(port) if "goal" in line]
    np.testing.assert_allclose(list(goals[-1].values()), [10, 30, 20], atol=0.1)


def test_the_gripper_of_an_arm_may_close_on_things(port):
    robot = lerobot_robot("so101_follower", port=port)
    assert {axis.name: axis.grips for axis in robot.spec.axes} == {
        "shoulder_pan.pos": False,
        "elbow_flex.pos": False,
        "gripper.pos": True,
    }


def test_a_stop_while_a_command_is_sent_goes_back_to_no_earlier_one(port):
    robot = lerobot_robot("so101_follower", port=port)
    robot.connect()
    robot.command(np.array([1.0, 1.0, 1.0]))
    real = robot._device.send_action

    def send(asked):
        robot._device.send_action = real
        answer = real(asked)
        robot.stop()  # of another thread
        return answer

    robot._device.send_action = send
    robot.command(np.array([2.0, 2.0, 2.0]))
    assert [line["goal"]["elbow_flex"] for line in sent(port)] == [1.0, 2.0, 2.0]


def test_no_number_for_what_was_sent_is_noticed(port):
    robot = lerobot_robot("so101_follower", port=port)
    robot.connect()
    robot._device.send_action = lambda asked: {**asked, "gripper.pos": float("nan")}
    with pytest.raises(RobotError, match="sent nan instead of 50 to gripper"):
        robot.command(np.array([0.0, 0.0, 50.0]))
