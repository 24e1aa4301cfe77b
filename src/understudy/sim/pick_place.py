"""The bundled world: an arm with six joints picks a cube from a random place and puts it on a fixed target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ActionError, ConfigError
from understudy.sim.pick_place_view import Window, add_shades
from understudy.sim.rendering import Camera
from understudy.spec import Channel

ASSET = Path(__file__).parent / "assets" / "pick_place.xml"

JOINTS = 6
# Where things are in the observation (12,).
JOINT_POSITIONS = slice(0, 6)
GRASP_POINT = slice(6, 9)
CUBE = slice(9, 12)
# Where things are in the action (7,).
JOINT_VELOCITIES = slice(0, 6)
GRIPPER = 6

MAXIMUM_JOINT_SPEED = 1.5  # rad/s
FINGER_TRAVEL = 0.055  # m, of each finger; closed at 0
CUBE_REST_HEIGHT = 0.02  # m, of the cube's centre when it lies on the table
TARGET = np.array([0.48, -0.24])  # m, x and y
TARGET_RADIUS = 0.03  # m
CUBE_START_LOW = np.array([0.38, -0.05])  # m, x and y; the cube starts in a field of 0.20 by 0.30 m
CUBE_START_HIGH = np.array([0.58, 0.25])
CUBE_START_YAW = math.radians(12.0)
# Joint positions (rad) with the gripper pointing down, grasp point at (0.42, 0, 0.24).
HOME = np.array([0.0, 0.176, 1.795, 0.0, 1.171, 0.0])
START_NOISE = 0.10  # rad, each joint

_MAXIMUM_PIXELS = 4096  # of a picture's side
_JOINT_LIMIT = 3.2  # rad
_POSITION_LIMIT = 2.0  # m
_STILL_SPEED = 0.02  # m/s
_STILL_TURN_RATE = 0.3  # rad/s
_REST_TOLERANCE = 0.004  # m
_REACH_SCALE = 0.10  # m, over which the shaped reward for reaching falls
_CARRY_SCALE = 0.20  # m, over which the shaped reward for carrying falls
_LIFT_HEIGHT = 0.04  # m, height of the cube that counts as lifted


def load_model() -> mujoco.MjModel:
    """The MuJoCo model of the world, compiled from the bundled file."""
    return mujoco.MjModel.from_xml_path(str(ASSET))


class PickPlaceEnv(gym.Env[NDArray[Any], NDArray[Any]]):
    """A six-joint arm with a gripper, a cube on a table, and a target that never moves.

    Observation (12,): joint positions (rad), grasp point x, y, z (m), cube centre x, y, z (m), both in the frame of the
    arm's base: x to the front, y to the left, z up from the table top. Action (7,): joint velocities (rad/s, limits
    +-`MAXIMUM_JOINT_SPEED`) and gripper (-1 closed, +1 open; the fingers touch the cube at -0.27 and press harder
    below).

    Success is the cube within 3 cm of the target, resting on the table, touched by no finger and still, for
    `STILL_STEPS` steps in a row; each step says so in `info["success"]`. An episode is always `MAXIMUM_STEPS` long: it
    is truncated, never terminated. (qpos, qvel) is the whole physical state: `state()` gives it, and
    `reset(options={"initial_state": state})` starts from it.

    Args:
        reward: `sparse` (1 on steps of success, else 0) or `shaped` (0 to 1: reach, grasp, lift, carry, place).
        render_mode: None, `rgb_array` or `human` (a window; needs a display).
        width: of a picture, in pixels.
        height: of a picture, in pixels.
        camera: `front`, `side` or `top`.

    Raises:
        ConfigError: an argument that is none of these.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 20}  # noqa: RUF012
    MAXIMUM_STEPS: ClassVar[int] = 200
    STILL_STEPS: ClassVar[int] = 5
    REWARDS: ClassVar[tuple[str, ...]] = ("sparse", "shaped")

    control_hz: float = 20.0
    observation_channels: tuple[Channel, ...] = (
        *(Channel(f"joint_{number}.position", "rad", -_JOINT_LIMIT, _JOINT_LIMIT) for number in range(1, 7)),
        *(Channel(f"grasp_point.{axis}", "m", -_POSITION_LIMIT, _POSITION_LIMIT) for axis in "xyz"),
        *(Channel(f"cube.{axis}", "m", -_POSITION_LIMIT, _POSITION_LIMIT) for axis in "xyz"),
    )
    action_channels: tuple[Channel, ...] = (
        *(
            Channel(f"joint_{number}.velocity", "rad/s", -MAXIMUM_JOINT_SPEED, MAXIMUM_JOINT_SPEED)
            for number in range(1, 7)
        ),
        Channel("gripper", "1", -1.0, 1.0),
    )

    def __init__(
        self,
        reward: str = "sparse",
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
        camera: str = "front",
    ) -> None:
        if reward not in self.REWARDS:
            raise ConfigError(f"reward is {reward!r}; PickPlace knows {' and '.join(self.REWARDS)}")
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ConfigError(f"render_mode is {render_mode!r}; PickPlace knows {' and '.join(modes)}, or None")
        if not (1 <= width <= _MAXIMUM_PIXELS and 1 <= height <= _MAXIMUM_PIXELS):
            raise ConfigError(f"a picture of {width} x {height} pixels; each side takes 1 to {_MAXIMUM_PIXELS}")
        self.render_mode = render_mode
        self._reward = reward
        self.model = load_model()
        self.data = mujoco.MjData(self.model)
        cameras = [self.model.camera(index).name for index in range(self.model.ncam)]
        if camera not in cameras:
            raise ConfigError(f"camera is {camera!r}; PickPlace has {', '.join(cameras)}")
        self._size, self._camera = (width, height), camera
        self._view: Camera | None = None
        self._window: Window | None = None

        self.observation_space = _box(self.observation_channels)
        self.action_space = _box(self.action_channels)
        self._substeps = round(1.0 / (self.control_hz * self.model.opt.timestep))
        self._grasp_point = self.data.site("grasp_point").xpos
        self._cube = self.data.body("cube").xpos
        self._cube_velocity = self.data.qvel[self.model.joint("cube").dofadr[0] :][:6]
        self._cube_geom = self.model.geom("cube").id
        self._pad_geoms = [self.model.geom(name).id for name in ("pad_left", "pad_right")]
        self._steps = 0
        self._still_steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: fixes the starts of this and the following episodes; the only source of chance in this world.
            options: `{"initial_state": {"qpos": (15,), "qvel": (14,)}}` starts from that state instead.

        Returns:
            The observation (12,) and `{"success": False}`.

        Raises:
            ConfigError: an option that is none of these, or a state that does not fit.
        """
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"initial_state"})
        if unknown:
            raise ConfigError(f"reset option {unknown[0]!r}; PickPlace knows initial_state")
        mujoco.mj_resetData(self.model, self.data)
        if options and options.get("initial_state"):
            self._set_state(options["initial_state"])
        else:
            self._draw_start()
        # The controls hold the joints and the fingers where they are until the first action.
        self.data.ctrl[:JOINTS] = 0.0
        self.data.ctrl[JOINTS:] = self.data.qpos[JOINTS : JOINTS + 2]
        mujoco.mj_forward(self.model, self.data)
        self._steps = self._still_steps = 0
        if self.render_mode == "human":
            self.render()
        return self._observe(), {"success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Holds one action (7,) for 50 ms; clips it to the action space.

        Raises:
            ActionError: the action has the wrong shape or is not finite.
        """
        asked = np.asarray(action, np.float64)
        if asked.shape != (JOINTS + 1,):
            raise ActionError(f"an action of shape {asked.shape}; PickPlace takes ({JOINTS + 1},)")
        if not np.isfinite(asked).all():
            channel = int(np.flatnonzero(~np.isfinite(asked))[0])
            raise ActionError(f"{asked[channel]} in action channel {self.action_channels[channel].name}")
        self.data.ctrl[:JOINTS] = np.clip(asked[JOINT_VELOCITIES], -MAXIMUM_JOINT_SPEED, MAXIMUM_JOINT_SPEED)
        self.data.ctrl[JOINTS:] = FINGER_TRAVEL * (1.0 + min(max(asked[GRIPPER], -1.0), 1.0)) / 2.0
        mujoco.mj_step(self.model, self.data, self._substeps)
        # mj_step leaves positions of bodies one substep behind the joints.
        mujoco.mj_kinematics(self.model, self.data)

        touching = self._fingers_touching()
        placed = self._is_placed()
        self._still_steps = self._still_steps + 1 if placed and not any(touching) and self._is_still() else 0
        self._steps += 1
        success = self._still_steps >= self.STILL_STEPS
        shaped = self._reward == "shaped"
        reward = self._shaped_reward(touching, placed, success) if shaped else float(success)
        if self.render_mode == "human":
            self.render()
        return self._observe(), reward, False, self._steps >= self.MAXIMUM_STEPS, {"success": success}

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Copies of qpos (15,) and qvel (14,), which fix all that follows but the count of still steps."""
        return {"qpos": self.data.qpos.copy(), "qvel": self.data.qvel.copy()}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (height, width, 3) in the mode `rgb_array`; draws the window in the mode `human`.

        Raises:
            MissingDependency: this machine has no OpenGL library, or no display for a window.
        """
        if self.render_mode == "rgb_array":
            if self._view is None:
                self._view = Camera(self.model, *self._size, self._camera, add_shades)
            return self._view.frame(self.data)
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(self.model, self.data, self.control_hz)
            self._window.draw()
        return None

    def close(self) -> None:
        """Frees the OpenGL context and closes the window, where there are any."""
        for view in (self._view, self._window):
            if view is not None:
                view.close()
        self._view = self._window = None

    def _draw_start(self) -> None:
        qpos = self.data.qpos
        qpos[:JOINTS] = HOME + self.np_random.uniform(-START_NOISE, START_NOISE, JOINTS)
        qpos[JOINTS : JOINTS + 2] = FINGER_TRAVEL
        x, y = self.np_random.uniform(CUBE_START_LOW, CUBE_START_HIGH)
        half_yaw = self.np_random.uniform(-CUBE_START_YAW, CUBE_START_YAW) / 2.0
        qpos[JOINTS + 2 :] = x, y, CUBE_REST_HEIGHT, math.cos(half_yaw), 0.0, 0.0, math.sin(half_yaw)

    def _set_state(self, state: Mapping[str, Any]) -> None:
        for name, column in (("qpos", self.data.qpos), ("qvel", self.data.qvel)):
            if name not in state:
                raise ConfigError(f"initial_state has no {name}; it needs qpos (15,) and qvel (14,)")
            value = np.asarray(state[name], np.float64)
            if value.shape != column.shape or not np.isfinite(value).all():
                raise ConfigError(
                    f"{name} of initial_state must be {column.shape} finite numbers; got shape {value.shape}"
                )
            column[:] = value

    def _observe(self) -> NDArray[np.float32]:
        observation = np.empty(12, np.float32)
        observation[JOINT_POSITIONS] = self.data.qpos[:JOINTS]
        observation[GRASP_POINT] = self._grasp_point
        # A cube knocked far off the table is reported at the limit, so that the space stays finite and true.
        observation[CUBE] = np.clip(self._cube, -_POSITION_LIMIT, _POSITION_LIMIT)
        return observation

    def _fingers_touching(self) -> list[bool]:
        pairs = self.data.contact.geom  # (contacts, 2)
        others = pairs[(pairs == self._cube_geom).any(axis=1)]
        return [bool((others == pad).any()) for pad in self._pad_geoms]

    def _is_placed(self) -> bool:
        x, y, z = self._cube
        near = math.hypot(x - TARGET[0], y - TARGET[1]) <= TARGET_RADIUS
        return near and abs(z - CUBE_REST_HEIGHT) <= _REST_TOLERANCE

    def _is_still(self) -> bool:
        speed, turn_rate = np.linalg.norm(self._cube_velocity.reshape(2, 3), axis=1)
        return bool(speed <= _STILL_SPEED and turn_rate <= _STILL_TURN_RATE)

    def _shaped_reward(self, touching: list[bool], placed: bool, success: bool) -> float:
        """Between 0 and 1, never less for being further on.

        Once the cube is placed, reach and grasp no longer count: they would pay for not letting go.
        """
        if success:
            return 1.0
        if placed:
            return 0.90 if any(touching) else 0.95
        x, y, z = (float(coordinate) for coordinate in self._cube)
        reach = 1.0 - math.tanh(math.dist(self._grasp_point, self._cube) / _REACH_SCALE)
        held = float(all(touching))
        lift = held * min(max((z - CUBE_REST_HEIGHT) / _LIFT_HEIGHT, 0.0), 1.0)
        distance = math.hypot(x - TARGET[0], y - TARGET[1])
        carry = held * (1.0 - math.tanh(distance / _CARRY_SCALE))
        # Over the target the lift is credited in full, so that lowering the cube costs nothing.
        lift = max(lift, held * float(distance <= TARGET_RADIUS))
        return 0.15 * reach + 0.10 * held + 0.15 * lift + 0.45 * lift * carry


def _box(channels: tuple[Channel, ...]) -> gym.spaces.Box:
    low = np.array([channel.low for channel in channels], np.float32)
    high = np.array([channel.high for channel in channels], np.float32)
    return gym.spaces.Box(low, high, dtype=np.float32)
