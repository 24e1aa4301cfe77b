"""Scripted experts of the bundled world: one that answers from the observation alone, one that moves like a person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.sim.pick_place import (
    CUBE,
    CUBE_REST_HEIGHT,
    GRASP_POINT,
    JOINT_POSITIONS,
    JOINTS,
    MAXIMUM_JOINT_SPEED,
    TARGET,
    load_model,
)

OPEN, CLOSED = 1.0, -1.0
REST_POINT = np.array([0.42, 0.0, 0.24])  # m, where the grasp point waits when the work is done

_GAIN = 3.0  # 1/s, of every proportional law
_TURN_GAIN = 3.0  # 1/s, keeps the gripper pointing down
_DAMPING = 0.03  # of the least squares, where the arm comes near to a singular pose
# How the wrist's three joints must follow the first three to keep the gripper's attitude.
_WRIST_FOLLOWS = np.array([[0.0, 0.0, 0.0], [0.0, -1.0, -1.0], [1.0, 0.0, 0.0]])
_LOWEST_GRASP_POINT = 0.011  # m, below which the finger tips would scrape the table

# The cube counts as between the fingers within these distances of the grasp point (m). Wider once it hangs in the
# air: there it can only be held.
_GRASP_RADIUS = 0.026
_GRASP_ABOVE, _GRASP_ABOVE_LIFTED = 0.010, 0.030
_GRASP_BELOW = 0.025
_PLACED_RADIUS = 0.025  # m, from the target; inside it the cube is let go
_PLACED_HEIGHT = 0.010  # m above the table, below it the cube is let go
# On either side of the moment of closing the arm sinks fast and rises slowly (and the other way round when it lets
# go), so a policy that blurs the moment still has the fingers closed where its blurred velocity is zero.
_SINK_SPEED = 0.06  # m/s, least
_RISE_SPEED = 0.02  # m/s, least


@dataclass(frozen=True, slots=True)
class Style:
    """How to go about it.

    Args:
        speed: fastest motion of the grasp point, m/s.
        approach_height: of the grasp point above the cube on the way to it, m.
        carry_height: of the cube above the table on the way to the target, m.
        detour: added to the horizontal goal while far from it, m, x and y.
    """

    speed: float = 0.30
    approach_height: float = 0.08
    carry_height: float = 0.10
    detour: tuple[float, float] = (0.0, 0.0)


def hand_command(
    grasp_point: NDArray[np.float64], cube: NDArray[np.float64], style: Style
) -> tuple[NDArray[np.float64], float]:
    """What the hand should do now, from where it and the cube are; no memory of what was before.

    Whether the fingers are open is not observed. So: the cube away from the target and between the fingers is to be
    gripped and raised, at first so slowly that the fingers close before it leaves them; if it does not follow, the
    distance grows and it is approached anew. The cube low over the target is let go, and the hand rises.

    Args:
        grasp_point: (3,) m, base frame.
        cube: (3,) m, base frame.
        style: speeds and heights.

    Returns:
        Velocity (3,) of the grasp point in m/s, and the gripper command.
    """
    offset = grasp_point - cube
    aside = math.hypot(offset[0], offset[1])
    height = cube[2] - CUBE_REST_HEIGHT
    to_target = TARGET - cube[:2]
    if math.hypot(*to_target) < _PLACED_RADIUS and height < _PLACED_HEIGHT:
        velocity, gripper = _leave(grasp_point, offset, height, style), OPEN
    elif _between_fingers(aside, offset[2], height):
        velocity, gripper = _carry(to_target, height, style), CLOSED
    else:
        velocity, gripper = _approach(offset, aside, style), OPEN
    return _within(velocity, style.speed, grasp_point[2]), gripper


def _between_fingers(aside: float, above: float, height: float) -> bool:
    lifted = _ramp(height, 0.002, 0.015)
    highest = _GRASP_ABOVE + lifted * (_GRASP_ABOVE_LIFTED - _GRASP_ABOVE)
    return aside < _GRASP_RADIUS * (1.0 + lifted) and -_GRASP_BELOW < above < highest


def _approach(offset: NDArray[np.float64], aside: float, style: Style) -> NDArray[np.float64]:
    """Over the cube, then down on it through a funnel that narrows to the cube."""
    wanted = style.approach_height * _ramp(aside, 0.005, 0.080)
    # Sideways motion waits until the fingers are above the cube, unless the funnel allows this height.
    freedom = _ramp(offset[2], 0.4 * wanted, 0.8 * wanted + 0.001)
    sideways = -_GAIN * offset[:2] + _detour(aside, style)
    sinking = _SINK_SPEED * (1.0 - _ramp(aside, 0.010, 0.030)) if offset[2] > wanted else 0.0
    return np.array([*(freedom * sideways), _GAIN * (wanted - offset[2]) - sinking])


def _carry(to_target: NDArray[np.float64], height: float, style: Style) -> NDArray[np.float64]:
    """Up, over to the target, and down through a funnel that narrows to the target."""
    distance = math.hypot(*to_target)
    wanted = style.carry_height * _ramp(distance, 0.015, 0.150)
    freedom = _ramp(height, 0.2 * wanted, 0.7 * wanted + 0.001)
    sideways = _GAIN * to_target + _detour(distance, style)
    upwards = min(_GAIN * (wanted - height), _RISE_SPEED + 4.0 * max(height, 0.0))
    sinking = _SINK_SPEED * (1.0 - _ramp(distance, 0.010, 0.030)) if height > wanted else 0.0
    return np.array([*(freedom * sideways), upwards - sinking])


def _leave(
    grasp_point: NDArray[np.float64], offset: NDArray[np.float64], height: float, style: Style
) -> NDArray[np.float64]:
    """Straight up from the placed cube, then to the rest point."""
    beside = math.hypot(offset[0], offset[1]) > 0.06
    clear = 1.0 if beside else _ramp(offset[2], 0.03, 0.08)
    home = _GAIN * (REST_POINT - grasp_point)
    upwards = min(home[2], _RISE_SPEED + 4.0 * max(offset[2], 0.0))
    # A cube that still falls is not overtaken.
    upwards *= 1.0 - 0.8 * _ramp(height, 0.001, _PLACED_HEIGHT)
    return np.array([*(clear * home[:2]), upwards])


def _detour(distance: float, style: Style) -> NDArray[np.float64]:
    return _GAIN * _ramp(distance, 0.05, 0.20) * np.array(style.detour)


def _within(velocity: NDArray[np.float64], speed: float, height: float) -> NDArray[np.float64]:
    """The velocity, no faster than `speed`, and not down into the table."""
    velocity = velocity * min(1.0, speed / max(float(np.linalg.norm(velocity)), 1e-9))
    velocity[2] = max(velocity[2], _GAIN * (_LOWEST_GRASP_POINT - height))
    return velocity


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, smooth between."""
    fraction = min(max((value - low) / (high - low), 0.0), 1.0)
    return fraction * fraction * (3.0 - 2.0 * fraction)


class PickPlaceExpert:
    """The clean expert: a pure function of the observation, so it can be asked in any state and corrects itself.

    Args:
        env: not needed; taken so that every scripted expert is built alike.
    """

    def __init__(self, env: gym.Env[Any, Any] | None = None) -> None:
        self._arm = _Arm()

    @property
    def engaged(self) -> bool:
        """Always: a script holds the controls."""
        return True

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The right action (7,) for an observation (12,): joint velocities in rad/s and the gripper command."""
        seen = np.asarray(observation, np.float64)
        velocity, gripper = hand_command(seen[GRASP_POINT], seen[CUBE], Style())
        return self._arm.action(seen[JOINT_POSITIONS], velocity, gripper)


class HumanLikeExpert:
    """An expert with a person's habits: its own speed, heights and detours each episode, a hand that wavers, pauses.

    The wavering is an Ornstein-Uhlenbeck process on the velocity of the hand, weaker close to the cube and the target
    where a person takes care. Unlike the clean expert it remembers within an episode.

    Args:
        env: not needed; taken so that every scripted expert is built alike.
    """

    _CONTROL_HZ = 20.0
    _WAVER = 0.05  # m/s, standing deviation of the wavering
    _WAVER_TIME_S = 0.4
    _PAUSES_PER_S = 0.25
    _PAUSE_STEPS = (4, 14)

    def __init__(self, env: gym.Env[Any, Any] | None = None) -> None:
        self._arm = _Arm()
        self.reset(0)

    @property
    def engaged(self) -> bool:
        """Always: a script holds the controls."""
        return True

    def reset(self, seed: int) -> None:
        """Draws the habits of one episode."""
        # The second word keeps this stream apart from the world's, which starts from the same seed.
        self._random = np.random.default_rng([seed, 0x4855])
        angle = self._random.uniform(0.0, 2.0 * math.pi)
        reach = self._random.uniform(0.0, 0.06)
        self._style = Style(
            speed=self._random.uniform(0.20, 0.40),
            approach_height=self._random.uniform(0.06, 0.12),
            carry_height=self._random.uniform(0.06, 0.14),
            detour=(reach * math.cos(angle), reach * math.sin(angle)),
        )
        self._waver = np.zeros(3)
        self._pause_left = 0
        self._gripper = OPEN

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (7,) such a person takes for an observation (12,): rad/s and the gripper command."""
        seen = np.asarray(observation, np.float64)
        grasp_point, cube = seen[GRASP_POINT], seen[CUBE]
        velocity, gripper = hand_command(grasp_point, cube, self._style)
        keep = math.exp(-1.0 / (self._CONTROL_HZ * self._WAVER_TIME_S))
        kick = self._WAVER * math.sqrt(1.0 - keep * keep)
        self._waver = keep * self._waver + kick * self._random.standard_normal(3)
        if self._pause_left == 0 and self._random.random() < self._PAUSES_PER_S / self._CONTROL_HZ:
            self._pause_left = int(self._random.integers(*self._PAUSE_STEPS))
        if self._pause_left > 0:
            # The hand stops where it is and the fingers stay as they were.
            self._pause_left -= 1
            return self._arm.action(seen[JOINT_POSITIONS], 0.2 * self._waver, self._gripper)
        self._gripper = gripper
        care = _ramp(float(np.linalg.norm(grasp_point - cube)), 0.02, 0.10)
        if gripper == CLOSED:
            care = _ramp(cube[2] - CUBE_REST_HEIGHT, 0.02, 0.06)
        velocity = _within(velocity + care * self._waver, math.inf, grasp_point[2])
        return self._arm.action(seen[JOINT_POSITIONS], velocity, gripper)


class _Arm:
    """The arm's kinematics, from the same file as the world's."""

    def __init__(self) -> None:
        self._model = load_model()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("grasp_point").id
        self._jacobian = np.zeros((3, self._model.nv))

    def action(self, joints: NDArray[np.float64], velocity: NDArray[np.float64], gripper: float) -> NDArray[np.float32]:
        r"""Joint velocities that move the grasp point as asked while the gripper turns to point down.

        The wrist has one attitude in which the gripper points down with its fingers left and right, whatever the
        first three joints do: $w^* = (0, \pi - q_2 - q_3, q_1)$. It goes there by $\dot w = k (w^* - w) + F \dot a$,
        where $F \dot a$ follows the first three joints $a$, and these carry the hand: $(J_a + J_w F) \dot a = v - k J_w
        (w^* - w)$, solved by damped least squares (Nakamura and Hanafusa 1986). An inverse of the whole six-joint
        Jacobian would flip the wrist over when it is asked for from an odd pose. All is scaled as one into the limits,
        so that the direction is kept.

        Args:
            joints: (6,) rad.
            velocity: (3,) m/s of the grasp point.
            gripper: -1 to 1.

        Returns:
            Action (7,).
        """
        self._data.qpos[:JOINTS] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian, None, self._site)
        shoulder, wrist = self._jacobian[:, :3], self._jacobian[:, 3:JOINTS]
        wrist_goal = np.array([0.0, math.pi - joints[1] - joints[2], joints[0]])
        turning = _TURN_GAIN * (wrist_goal - joints[3:])
        combined = shoulder + wrist @ _WRIST_FOLLOWS
        square = combined @ combined.T + _DAMPING**2 * np.eye(3)
        carrying = combined.T @ np.linalg.solve(square, velocity - wrist @ turning)
        speeds = np.concatenate([carrying, turning + _WRIST_FOLLOWS @ carrying])
        speeds *= min(1.0, MAXIMUM_JOINT_SPEED / max(float(np.abs(speeds).max()), 1e-9))
        return np.append(speeds, gripper).astype(np.float32)
