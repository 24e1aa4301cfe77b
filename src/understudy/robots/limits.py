"""Limits that a person gives for a robot, in a JSON file, and a robot that is held to them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from understudy.errors import ConfigError
from understudy.robots.protocol import Robot, RobotSpec
from understudy.robots.safety_config import SafetyConfig

_ACCEPTED = ("axes", "workspace")
_LARGEST_FILE = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of axes by name, and the corners of a workspace, as `--limits FILE` gives them.

    Args:
        axes: `{axis: {"low": ..., "high": ..., "velocity": ..., "acceleration": ..., "step": ...}}`, any of them.
        workspace: lowest and highest corner (x, y, z), m.
    """

    axes: dict[str, dict[str, float]] = field(default_factory=dict)
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None

    @classmethod
    def read(cls, path: Path | str) -> Limits:
        """The limits in a JSON file: `{"axes": {...}, "workspace": [[x, y, z], [x, y, z]]}`.

        Raises:
            ConfigError: the file cannot be read, or is not of that form.
        """
        try:
            with open(path, "rb") as file:
                text = file.read(_LARGEST_FILE + 1)
            if len(text) > _LARGEST_FILE:
                raise ConfigError(f"the limits in {path} are longer than {_LARGEST_FILE} bytes; name a file of limits")
            content = json.loads(text, object_pairs_hook=_named_once)
        except OSError as error:
            raise ConfigError(f"the limits in {path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the limits in {path} are not JSON: {error}") from error
        unknown = sorted(set(content) - set(_ACCEPTED)) if isinstance(content, dict) else ["?"]
        if unknown:
            raise ConfigError(f"the limits in {path} are an object with {' and '.join(_ACCEPTED)}; got {unknown[0]!r}")
        axes, corners = content.get("axes", {}), content.get("workspace")
        if not isinstance(axes, dict) or not all(isinstance(limits, dict) for limits in axes.values()):
            raise ConfigError(f"axes in {path} are an object of objects, one for each axis")
        return cls(axes, None if corners is None else _corners(corners, path))

    def hold(self, robot: Robot, safety: SafetyConfig) -> tuple[Robot, SafetyConfig]:
        """The robot and what is tolerated, under these limits. Use what is returned: the robot may be another object.

        Raises:
            ConfigError: an axis or a limit that does not exist, or a value that cannot be one.
        """
        if self.axes:
            robot = _held_to(robot, robot.spec.limited(self.axes))
        return robot, safety if self.workspace is None else replace(safety, workspace=self.workspace)


class _Held:
    """A robot whose driver works out its spec itself, with another spec."""

    def __init__(self, robot: Robot, spec: RobotSpec) -> None:
        self._robot, self.spec = robot, spec

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # nothing of a robot; pickle asks before there is one
            raise AttributeError(name)
        return getattr(self._robot, name)


def _held_to(robot: Robot, spec: RobotSpec) -> Robot:
    try:
        robot.spec = spec  # type: ignore[misc]  # a driver's own attribute
    except AttributeError:  # a property
        return cast("Robot", _Held(robot, spec))
    return robot


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which must not name a limit twice: one of the two would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _corners(value: Any, path: Path | str) -> Any:
    try:
        low, high = (tuple(float(number) for number in corner) for corner in value)
        if len(low) != 3 or len(high) != 3:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"workspace in {path} is two corners, [[x, y, z], [x, y, z]] in metres") from error
    return low, high
