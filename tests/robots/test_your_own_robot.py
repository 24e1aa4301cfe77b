"""The driver of docs/your_own_robot.md, as it stands on the page, against a stand-in for ur-rtde."""

import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from understudy.agent import Command
from understudy.errors import RobotError, RobotLost
from understudy.robots import Axis, RobotEnv
from understudy.rollout import rollout

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your_own_robot.md").read_text()
(CODE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAMES = ("my_ur", "rtde_control", "rtde_receive")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """The class UR, imported from a file like that of a reader."""
    (tmp_path / "my_ur.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "stand_ins"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_ur

    yield my_ur.UR
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def arm(tmp_path):
    (tmp_path / "arm").touch()
    return tmp_path / "arm"


def sent(arm):
    return [json.loads(line) for line in arm.read_text().splitlines() if line.startswith("{")]


def test_the_driver_has_less_than_60_lines():
    assert len([line for line in CODE.splitlines() if line.strip()]) < 60


def test_it_reads_commands_and_stops(driver, arm):
    robot = pickle.loads(pickle.dumps(driver(str(arm))))
    robot.connect()
    assert robot.read().observation.shape == (len(robot.spec.observations),) == (12,)
    robot.command(np.arange(6) / 10)
    assert robot.read().position.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    robot.stop()
    robot.disconnect()
    robot.disconnect()
    assert sent(arm)[:2] == [{"servoJ": (np.arange(6) / 10).tolist(), "time": 0.02}, {"servoStop": 5.0}]
    assert robot.home(0) is None
    assert driver(str(arm), home=[0, 0, 1, 0, 0, 0]).home(3).tolist() == [0, 0, 1, 0, 0, 0]


def test_a_measurement_that_does_not_come_anew_looks_old(driver, arm):
    robot = driver(str(arm))
    robot.connect()
    arm.write_text("frozen")
    first = robot.read().time_s
    time.sleep(0.05)
    assert robot.read().time_s == first


def test_it_says_when_the_arm_is_gone_or_has_stopped_itself(driver, arm):
    robot = driver(str(arm))
    robot.connect()
    for said in ("emergency", "protective"):
        arm.write_text(said)
        with pytest.raises(RobotError, match="stopped itself"):
            robot.read()
    arm.write_text("local control")
    with pytest.raises(RobotError, match="remote control"):
        robot.command(np.zeros(6))
    arm.unlink()
    with pytest.raises(RobotLost):
        robot.read()


class Reach:
    """Asks for one pose from the first step on."""

    def reset(self, seed): ...

    def act(self, observation):
        return Command(np.full(6, 0.2, np.float32))


def test_it_runs_behind_the_guard(driver, arm):
    env = RobotEnv(driver(str(arm), home=[0.1] * 6))
    try:
        episode = rollout(env, Reach(), seed=0, max_steps=40)
    finally:
        env.close()
    np.testing.assert_allclose(episode.observations[0, :6], 0.1, atol=0.07)
    np.testing.assert_allclose(episode.observations[-1, :6], 0.2, atol=0.01)
    steps = np.abs(np.diff([line["servoJ"] for line in sent(arm) if "servoJ" in line], axis=0))
    assert steps.max() <= 0.5 / 50 + 1e-6
    assert any("servoStop" in line for line in sent(arm))


def test_the_limits_on_the_page_are_limits():
    (limits,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for name, values in json.loads(limits)["axes"].items():
        Axis(name, "deg", **values)
