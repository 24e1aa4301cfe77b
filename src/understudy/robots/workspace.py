"""The box that the hand of a robot may not leave, and where the hand is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from understudy.errors import RobotError

Corner = tuple[float, float, float]
_LONGEST_ANSWER = 60  # characters


class Workspace:
    """A box, seen by the kinematics of a robot.

    Args:
        corners: lowest and highest (x, y, z) in metres.
        forward: from the axes' positions (A,) to the hand (x, y, z) in metres: code of a driver, so its answers are
            looked at.
    """

    def __init__(self, corners: tuple[Corner, Corner], forward: Callable[[Sequence[float]], Sequence[float]]) -> None:
        self._corners, self._forward = corners, forward

    def outside(self, position: Sequence[float]) -> float:
        """How far the hand is outside of the box when the axes are at `position` (A,), in metres; 0 inside.

        Raises:
            RobotError: the kinematics raised, or gave anything but three finite numbers.
        """
        try:
            answer = self._forward(position)
            hand = [float(number) for number in answer]
        except Exception as error:  # whatever a driver raises, nobody knows where the hand is
            raise RobotError(
                f"the driver's forward() raised {type(error).__name__}: {error}; it gives the hand (x, y, z) in metres"
            ) from error
        if len(hand) != 3 or not all(math.isfinite(number) for number in hand):
            raise RobotError(
                f"the driver's forward() gave {str(answer)[:_LONGEST_ANSWER]}; it gives the hand (x, y, z) in metres, "
                "three finite numbers"
            )
        low, high = self._corners
        return max(0.0, *(max(a - x, x - b) for a, x, b in zip(low, hand, high, strict=True)))
