"""The fake robot moves exactly as it is told, and keeps its own account."""

import numpy as np
import pytest

import understudy as us
from understudy.errors import ConfigError, RobotLost
from understudy.robots.fake import FakeBody, FakeConfig, FakeRobot


def test_a_velocity_lasts_until_it_is_told_otherwise():
    body = FakeBody(FakeConfig(axes=1))
    body.command(np.array([0.4]), 10.0)
    assert body.state(12.0).position[0] == pytest.approx(0.8)
    assert body.report(12.0)["rest_s"] is None


def test_a_stop_brakes_at_the_acceleration_limit():
    body = FakeBody(FakeConfig(axes=1))
    body.command(np.array([0.4]), 10.0)
    body.stop(11.0)
    assert body.state(11.01).velocity[0] == pytest.approx(0.2)
    assert body.state(11.5).position[0] == pytest.approx(0.4 + 0.4**2 / 40)
    report = body.report(11.5)
    assert report["rest_s"] == pytest.approx(11.02)
    assert report["at_rest"]
    assert report["fastest"] == pytest.approx(0.4)


def test_a_position_is_reached_within_a_period():
    body = FakeBody(FakeConfig(axes=1, mode="position"))
    body.command(np.array([0.01]), 10.0)
    assert body.state(10.01).position[0] == pytest.approx(0.005)
    assert body.state(10.1).position[0] == pytest.approx(0.01)
    assert body.state(10.1).velocity[0] == 0


def test_it_runs_in_a_process_of_its_own_that_whoever_connects_can_use():
    robot = FakeRobot(FakeConfig(homes=False))
    try:
        robot.connect()
        second = FakeRobot.__new__(FakeRobot)
        second.__dict__ = robot.__getstate__()
        second.connect()
        robot.command(np.full(6, 0.1))
        assert second.read().position.shape == (6,)
        second.stop()
        assert robot.machine.report()["stops"]
        robot.disconnect()
        second.disconnect()
        with pytest.raises(RobotLost, match="not connected"):
            robot.read()
    finally:
        robot.machine.close()
    with pytest.raises(RobotLost, match="no robot answers"):
        robot.connect()


def test_a_robot_knows_its_hand():
    robot = FakeRobot.__new__(FakeRobot)
    assert robot.forward([0.0, 0.0]) == pytest.approx((0.2, 0.0, 0.0))
    assert robot.forward([np.pi / 2, 0.0]) == pytest.approx((0.0, 0.2, 0.0))


@pytest.mark.parametrize("options", [{"axes": 0}, {"velocity": 0.0}, {"reach": -1.0}])
def test_a_config_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError):
        FakeConfig(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control_hz": 0.0}, "control_hz of arm is 0"),
        ({"observations": (us.Channel(""),)}, "every observation channel of a robot has a name"),
        ({"axes": (us.Axis("a", "rad"), us.Axis("a", "rad"))}, "two action channels called 'a'"),
        ({"axes": (us.Axis("a", "rad", low=1.0, high=0.0),)}, "low is below high"),
        ({"axes": (us.Axis("a", "rad", velocity=float("nan")),)}, "velocity of the axis a is nan"),
        ({"axes": (us.Axis("a", "rad", acceleration=0.0),)}, "acceleration of the axis a is 0"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(change, message):
    given = {"name": "arm", "control_hz": 50.0, "observations": (us.Channel("x"),), "axes": (us.Axis("a", "rad"),)}
    with pytest.raises(ConfigError, match=message):
        us.RobotSpec(**{**given, **change})
