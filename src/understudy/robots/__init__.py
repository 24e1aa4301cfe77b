"""Robots: the protocol that drivers speak, the safety gate, the guard that holds the wire, and robots to test with."""

from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.faults import SCRIPTS
from understudy.robots.protocol import Axis, Mode, Reading, Robot, RobotSpec
from understudy.robots.safety import Kind, SafetyConfig, SafetyGate

__all__ = [
    "SCRIPTS",
    "Axis",
    "FakeConfig",
    "FakeRobot",
    "Kind",
    "Mode",
    "Reading",
    "Robot",
    "RobotEnv",
    "RobotSpec",
    "SafetyConfig",
    "SafetyGate",
]
