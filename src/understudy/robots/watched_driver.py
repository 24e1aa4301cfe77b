"""A driver whose calls are watched: how long each takes, and what it raises."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError, RobotLost
from understudy.robots.protocol import Reading, Robot

CALL_S = 1.0  # a call that takes longer hangs
HOME_S = 2.0  # the same of `home`, while nothing moves
_LONGEST_ANSWER = 60  # characters
CONNECT_S = 5.0  # the same of `connect`: a bus of motors takes 1 to 3 s


def connecting_again(robot: Robot) -> Callable[[], None]:
    """How to connect to a robot that was connected to before: `reconnect` where the driver has it."""
    again: Callable[[], None] = getattr(robot, "reconnect", robot.connect)
    return again


class WatchedDriver:
    """The calls of a driver. One thread makes them and is watched; another one may look on, and may `stop` the robot.

    Every method raises RobotError as the driver does, and RobotLost for whatever else it raises. What a driver answers
    is brought into the form that the protocol says, or refused by name.

    Args:
        robot: not connected yet.
        axes: A, of the robot.
        clock: seconds, monotonic.
    """

    def __init__(self, robot: Robot, axes: int, clock: Callable[[], float]) -> None:
        self._robot, self._axes, self._clock = robot, axes, clock
        self._owner = threading.get_ident()
        self._opening = threading.Lock()  # held while a connection is opened: two at once spoil each other
        self._since_s: float | None = None
        self._limit_s = CALL_S
        self.connected = False
        self.opened = 0  # connections so far

    @property
    def busy_s(self) -> float:
        """How long the call that runs has taken so far; 0 where none does."""
        since_s = self._since_s
        return 0.0 if since_s is None else self._clock() - since_s

    @property
    def hangs(self) -> bool:
        """Whether a call has taken longer than any should."""
        return self.busy_s > self._limit_s

    @property
    def is_taken(self) -> bool:
        """Whether it is for another thread to connect: one that does so now, or the owner, unless it hangs."""
        return self._opening.locked() or (threading.get_ident() != self._owner and not self.hangs)

    def connect(self) -> None:
        with self._opening, self._call(CONNECT_S):
            (connecting_again(self._robot) if self.opened else self._robot.connect)()
        self.connected = True
        self.opened += 1

    def read(self) -> Reading:
        with self._call():
            return _reading(self._robot.read())

    def command(self, values: NDArray[np.float64]) -> None:
        with self._call():
            self._robot.command(values)

    def home(self, seed: int) -> NDArray[np.float64] | None:
        """Where the episode of this seed begins; a robot that is at rest may take longer to say so."""
        with self._call(HOME_S):
            home = self._robot.home(seed)
            return None if home is None else self._pose(home)

    def stop(self) -> None:
        with self._call():
            self._robot.stop()

    def disconnect(self) -> None:
        self.connected = False
        with contextlib.suppress(Exception), self._call():
            self._robot.disconnect()

    def _pose(self, home: Any) -> NDArray[np.float64]:
        pose = _numbers(home)
        if pose is None or pose.shape != (self._axes,) or not all(map(math.isfinite, pose)):
            raise RobotError(
                f"the driver's home() gave {_shown(home)}; it gives {self._axes} finite positions, or None"
            )
        return pose

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around what calls the driver's kinematics: they may wait, too."""
        with self._call():
            yield

    @contextmanager
    def _call(self, limit_s: float = CALL_S) -> Iterator[None]:
        watched = threading.get_ident() == self._owner
        if watched:
            self._limit_s, self._since_s = limit_s, self._clock()
        try:
            yield
        except RobotError:
            raise
        except Exception as error:  # whatever a driver raises, the robot cannot be relied on
            raise RobotLost(f"the driver raised {type(error).__name__}: {error}") from error
        finally:
            if watched:
                self._since_s = None


def _reading(given: Any) -> Reading:
    """A reading in arrays of its own: a driver may use its memory again."""
    parts = [getattr(given, name, None) for name in ("observation", "position")]
    observation, position = (_numbers(part) for part in parts)
    time_s, succeeded = getattr(given, "time_s", None), getattr(given, "succeeded", None)
    if observation is None or position is None or observation.ndim != 1 or position.ndim != 1:
        wrong = f"observation {_shown(parts[0])} and position {_shown(parts[1])}"
    elif isinstance(time_s, bool) or not isinstance(time_s, int | float | np.number):
        wrong = f"time_s {_shown(time_s)}"
    elif succeeded not in (None, False, True):
        wrong = f"succeeded {_shown(succeeded)}"
    else:
        with np.errstate(over="ignore"):  # too large a number becomes an infinite one, which the gate refuses
            narrow = observation.astype(np.float32)
        return Reading(narrow, position, float(time_s), None if succeeded is None else bool(succeeded))
    raise RobotError(
        f"the driver's read() gave a {type(given).__name__} with {wrong}; it gives a Reading: observation (D,) and "
        "position (A,) in numbers, time_s of time.monotonic(), and succeeded True, False or None"
    )


def _numbers(given: Any) -> NDArray[np.float64] | None:
    if given is None:
        return None
    try:
        return np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(given: Any) -> str:
    return " ".join(repr(given).split())[:_LONGEST_ANSWER]
