"""Robots by name, as the command line takes them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from understudy.errors import ConfigError
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.protocol import Robot, RobotSpec

_METHODS = ("connect", "read", "command", "home", "stop", "disconnect")


def robot_for(name: str, arguments: Mapping[str, Any] | None = None) -> Robot:
    """The robot of that name, not connected yet.

    Args:
        name: `fake`, `sim`, `lerobot:TYPE`, or `module:Class`, which imports `module` and so runs its code. Only a
            person at a keyboard may ask for that; names read from data never do.
        arguments: of the robot: fields of FakeConfig and SimConfig, or what the class takes.

    Raises:
        ConfigError: there is no such robot, or it refuses its arguments.
        MissingDependency: a package that it needs is not installed.
        RobotLost: the process of a fake or simulated robot did not start.
    """
    given = dict(arguments or {})
    module, colon, rest = name.partition(":")
    try:
        if name == "fake":
            return FakeRobot(FakeConfig(**given))
        if name == "sim":
            from understudy.robots.sim import SimConfig, SimRobot

            return SimRobot(SimConfig(**given))
        if module == "lerobot" and rest:
            driver = importlib.import_module("understudy.robots.lerobot")
            robot: Robot = driver.lerobot_robot(rest, **given)
            return robot
        if colon and rest:
            return _users_own(name, module, rest, given)
    except TypeError as error:
        raise ConfigError(f"the robot {name} refuses its arguments {given}: {error}") from error
    raise ConfigError(f"no robot is called {name!r}; accepted: fake, sim, lerobot:TYPE, or module:Class of your own")


def _users_own(name: str, module: str, rest: str, given: dict[str, Any]) -> Robot:
    try:
        kind = getattr(importlib.import_module(module), rest)
    except Exception as error:  # whatever a person's own code raises is the reason why there is no robot
        raise ConfigError(
            f"the robot {name} cannot be imported ({type(error).__name__}: {error}); the module lies in the current "
            "folder or in one of PYTHONPATH, or is installed"
        ) from error
    robot: Robot = kind(**given)
    missing = [method for method in _METHODS if not callable(getattr(robot, method, None))]
    if missing or not isinstance(getattr(robot, "spec", None), RobotSpec):
        raise ConfigError(f"{name} is no robot: it lacks {', '.join(missing) or 'a spec of type RobotSpec'}")
    return robot
