"""The box that the hand of a robot may not leave, and where the hand is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from understudy.errors import RobotError

Corner = tuple[float, float, float]
_POINTS, _POINTS_BRAKING = 6, 3  # of the hand's way that are looked at, while a velocity lasts and while it is braked
_LONGEST_ANSWER = 60  # characters


class Moving(Protocol):
    """What is known of an axis that moves.

    Args:
        p: where it is, or was sent.
        hangs: so far from there is it measured.
        lasts: seconds for which a velocity lasts before braking can begin.
        brake: largest change of the velocity, per second.
    """

    p: float
    hangs: float
    lasts: float
    brake: float


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

    def outside_on_the_way(self, axes: Sequence[Moving], speeds: Sequence[float], period_s: float) -> float:
        """How far outside the hand gets at these speeds, while they last and while they are braked, at once or at last.

        Raises:
            RobotError: as above.
        """
        longest_s = max(axis.lasts for axis in axes)
        points = _POINTS if longest_s > period_s else 1
        worst = self._worst(axes, (_moved(axes, speeds, longest_s * point / points) for point in range(1, points + 1)))
        return max(worst, *(self.outside_while_braking(axes, speeds, after_s) for after_s in {period_s, longest_s}))

    def outside_while_braking(self, axes: Sequence[Moving], speeds: Sequence[float], after_s: float = 0.0) -> float:
        """How far outside the hand gets that brakes from these speeds, which it has had for so long.

        Raises:
            RobotError: as above.
        """
        return self._worst(axes, _braking(axes, speeds, after_s))

    def _worst(self, axes: Sequence[Moving], way: Iterable[list[float]]) -> float:
        """The worst place on a way, where the axes are sent and where they are measured to hang."""
        worst, hang = 0.0, any(axis.hangs for axis in axes)
        for sent in way:
            worst = max(worst, self.outside(sent))
            if hang:
                worst = max(worst, self.outside([p + axis.hangs for p, axis in zip(sent, axes, strict=True)]))
        return worst


def _moved(axes: Sequence[Moving], speeds: Sequence[float], seconds: float) -> list[float]:
    return [axis.p + w * min(seconds, axis.lasts) for axis, w in zip(axes, speeds, strict=True)]


def _braking(axes: Sequence[Moving], speeds: Sequence[float], after_s: float) -> Iterator[list[float]]:
    began = _moved(axes, speeds, after_s)
    slowest_s = max(abs(w) / axis.brake for axis, w in zip(axes, speeds, strict=True))
    for point in range(1, _POINTS_BRAKING + 1):
        places = []
        for axis, p, w in zip(axes, began, speeds, strict=True):
            braked_s = min(slowest_s * point / _POINTS_BRAKING, abs(w) / axis.brake)
            places.append(p + w * braked_s - math.copysign(axis.brake * braked_s * braked_s / 2, w))
        yield places
