"""Robots: the protocol that drivers speak, the safety gate, the guard that holds the wire, and robots to test with."""

from understudy.robots.deploy import Deployed, deploy
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.faults import SCRIPTS
from understudy.robots.limits import Limits
from understudy.robots.names import robot_for
from understudy.robots.novelty import Novelty, WatchedAgent
from understudy.robots.protocol import Axis, Mode, Reading, Robot, RobotSpec
from understudy.robots.safety import Kind, SafetyGate
from understudy.robots.safety_config import SafetyConfig

__all__ = [
    "SCRIPTS",
    "Axis",
    "Deployed",
    "FakeConfig",
    "FakeRobot",
    "Kind",
    "Limits",
    "Mode",
    "Novelty",
    "Reading",
    "Robot",
    "RobotEnv",
    "RobotSpec",
    "SafetyConfig",
    "SafetyGate",
    "WatchedAgent",
    "deploy",
    "robot_for",
]
