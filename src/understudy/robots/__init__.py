"""Robots: the protocol that drivers speak, the safety gate, the guard that holds the wire, and robots to test with."""

from understudy.robots.protocol import Axis, Mode, Reading, Robot, RobotSpec

__all__ = ["Axis", "Mode", "Reading", "Robot", "RobotSpec"]
