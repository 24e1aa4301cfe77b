"""A driver whose calls are watched: how long each takes, and what it raises."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError, RobotLost
from understudy.robots.protocol import Reading, Robot

CALL_S = 1.0  # a call that takes longer hangs
HOME_S = 2.0  # the same of `home`, while nothing moves
CONNECT_S = 5.0  # the same of `connect`: a bus of motors takes 1 to 3 s


def connecting_again(robot: Robot) -> Callable[[], None]:
    """How to connect to a robot that was connected to before: `reconnect` where the driver has it."""
    again: Callable[[], None] = getattr(robot, "reconnect", robot.connect)
    return again


class WatchedDriver:
    """The calls of a driver. One thread makes them and is watched; another one may look on, and may `stop` the robot.

    Every method raises RobotError as the driver does, and RobotLost for whatever else it raises.

    Args:
        robot: not connected yet.
        clock: seconds, monotonic.
    """

    def __init__(self, robot: Robot, clock: Callable[[], float]) -> None:
        self._robot, self._clock = robot, clock
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
        """Whether another thread has a call under way that may still return: nobody connects beneath it."""
        calls = threading.get_ident() != self._owner and self._since_s is not None
        return self._opening.locked() or (calls and not self.hangs)

    def connect(self) -> None:
        with self._opening, self._call(CONNECT_S):
            (connecting_again(self._robot) if self.opened else self._robot.connect)()
        self.connected = True
        self.opened += 1

    def read(self) -> Reading:
        with self._call():
            return self._robot.read()

    def command(self, values: NDArray[np.float64]) -> None:
        with self._call():
            self._robot.command(values)

    def home(self, seed: int) -> NDArray[np.float64] | None:
        """Where the episode of this seed begins; a robot that is at rest may take longer to say so."""
        with self._call(HOME_S):
            return self._robot.home(seed)

    def stop(self) -> None:
        with self._call():
            self._robot.stop()

    def disconnect(self) -> None:
        self.connected = False
        with contextlib.suppress(Exception), self._call():
            self._robot.disconnect()

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
