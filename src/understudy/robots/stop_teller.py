"""Telling a robot to stop, again and again until it was heard."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

from understudy.errors import RobotError
from understudy.robots.watched_driver import WatchedDriver

RETRY_S = 0.1
TELLS_S = 3.0  # for which a stop that did not reach the robot is said again and again, then
_TELLS_LATER_S = 1.0  # so often
UNTOLD = "the robot could not be told to stop"


class StopTeller:
    """Tells a robot to stop, in a new connection where the old one is gone, and again until it was heard.

    It has no thread of its own: whoever holds it asks when to tell again. Any thread may tell a stop at any time.

    Args:
        driver: of the robot.
        clock: seconds, monotonic.
    """

    def __init__(self, driver: WatchedDriver, clock: Callable[[], float]) -> None:
        self._driver, self._clock = driver, clock
        self.told, self.stopped_s = True, -math.inf  # whether the last stop reached the robot, and when it was
        self.unreached = False  # whether it was tried in vain to tell it
        self.tried_s = -math.inf  # when it was last tried to reach the robot, for whatever reason

    def tell(self, now_s: float) -> None:
        """A new stop."""
        self.stopped_s = now_s
        self.told = False  # while it is being told, which may take a while
        self.tell_again()

    def tell_again(self) -> None:
        """The last stop, once more."""
        self.told = self._reached()
        self.unreached = not self.told

    def tell_when_due(self, now_s: float, untold_s: float) -> bool:
        """The last stop, once more, where the last try was long enough ago; whether it was.

        Args:
            now_s: seconds of the clock.
            untold_s: for how long the robot has not heard it.
        """
        if now_s - self.tried_s < _pause_s(untold_s):
            return False
        self.tried_s = now_s
        self.tell_again()
        return True

    def due_s(self, untold_s: float) -> float:
        """When the next try is due, in seconds of the clock; infinite where none is needed."""
        return math.inf if self.told else self.tried_s + _pause_s(untold_s)

    def insist(self) -> None:
        """The last stop, for a while or until it is heard. It waits for that."""
        for _ in range(round(TELLS_S / RETRY_S)):
            if self.told:
                return
            time.sleep(RETRY_S)
            self.tell_again()

    def _reached(self) -> bool:
        """Whether the robot could be told to stop."""
        if self._driver.connected:
            with contextlib.suppress(RobotError):
                self._driver.stop()
                return True
        if self._driver.is_taken:
            return False  # by another thread, which tells it when it is done
        self.tried_s = self._clock()
        with contextlib.suppress(RobotError):
            self._driver.connect()
            self._driver.stop()
            return True
        return False


def _pause_s(untold_s: float) -> float:
    return RETRY_S if untold_s <= TELLS_S else _TELLS_LATER_S
