"""Adroit: door, hammer, pen and relocate (Rajeswaran et al. 2018), with the dense rewards that the authors meant.

The physics, the observations, the starts and the success rules are those of gymnasium-robotics 1.4.2
(`AdroitHand*-v1`). Its dense rewards of door, hammer and relocate reward a hand that stays away: since 1.2.1 they begin
with `0.1 * ||palm - object||`, where the authors' tasks (mj_envs, `hand_manipulation_suite/*_v0.py`) begin with
`-0.1 * ||palm - object||`. The maintainers describe it in Gymnasium-Robotics pull request 220 and mend it in a later
version of the environments, which the pinned release lacks. Nothing else in the four rewards differs from the authors'.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError
from understudy.sim import register_robotics
from understudy.sim.rendering import Camera
from understudy.spec import Channel

_WRONG_SIGN = 0.2  # 0.1 that the release adds, and 0.1 that it should have subtracted
_RELEASE = "gymnasium_robotics.envs.adroit_hand.adroit_"


@dataclass(frozen=True, slots=True)
class _Task:
    """What differs between the four tasks besides their physics.

    Args:
        start: arrays that make a start beside `qpos` and `qvel`.
        reached: kind and name of what the palm has to reach; None where the released reward is right.
    """

    start: tuple[str, ...]
    reached: tuple[str, str] | None


_TASKS = {
    "door": _Task(("door_body_pos",), ("site", "S_handle")),
    "hammer": _Task(("board_pos",), ("body", "Object")),
    "pen": _Task(("desired_orien",), None),
    "relocate": _Task(("obj_pos", "target_pos"), ("body", "Object")),
}


class AdroitEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A 24-joint Shadow hand, on an arm where the task needs one, at 100 Hz for 200 steps (set at registration).

    Actions (A,) are joint targets, scaled so that [-1, 1] spans each actuator's range. `info["success"]` is the
    release's, at each step: door hinge at 1.35 rad or more; nail within 1 cm of its goal; pen within 7.5 cm and cosine
    above 0.95; ball within 10 cm of the target. An episode never terminates. The channels are named in
    `observation_channels` and `action_channels`.

    Args:
        task: `door`, `hammer`, `pen` or `relocate`.
        reward: `dense` (corrected) or `sparse` (10 while successful, else -0.1, as released).
        render_mode: None or `rgb_array`.
        width: of a picture, in pixels.
        height: of a picture, in pixels.
        camera: a camera of the model.

    Raises:
        ConfigError: an argument that is none of these.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012  (Gymnasium declares it so)

    def __init__(
        self,
        task: str,
        reward: str = "dense",
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
        camera: str = "vil_camera",
    ) -> None:
        if task not in _TASKS:
            raise ConfigError(f"task is {task!r}; Adroit has {', '.join(_TASKS)}")
        if reward not in ("dense", "sparse"):
            raise ConfigError(f"reward is {reward!r}; Adroit knows dense and sparse")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode is {render_mode!r}; Adroit knows rgb_array, or None")
        register_robotics()
        released = getattr(importlib.import_module(_RELEASE + task), f"AdroitHand{task.capitalize()}Env")
        self._released: Any = released(reward_type=reward)
        self._task = _TASKS[task]
        self._corrected = reward == "dense" and self._task.reached is not None
        self.render_mode = render_mode
        self._size, self._camera_name = (width, height), camera
        self._camera: Camera | None = None

        self.model: mujoco.MjModel = self._released.model
        self.data: mujoco.MjData = self._released.data
        self.control_hz = 1.0 / float(self._released.dt)
        self.observation_channels = _OBSERVATIONS[task](self.model)
        self.action_channels = tuple(
            Channel(self.model.actuator(index).name, "1", -1.0, 1.0) for index in range(self.model.nu)
        )
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(self.observation_channels),), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)
        # Views into the simulation, which MuJoCo updates in place.
        self._palm = self.data.site("S_grasp").xpos
        kind, name = self._task.reached or ("site", "S_grasp")
        self._reached = getattr(self.data, kind)(name).xpos
        # Where a start leaves its mark in the model. The release restores only what it draws anew, so that a start
        # with another height of the ball, say, would leak into every later episode.
        placements = (self.model.body_pos, self.model.body_quat, self.model.site_pos)
        self._nominal = [(array, array.copy()) for array in placements]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first observation (D,) of a start drawn from `seed`, or of the one in `options["initial_state"]`.

        Args:
            seed: as in Gymnasium.
            options: `initial_state` holds arrays as `state()` gives them, and as demonstrations store them: `qpos`,
                `qvel`, and what the task moves (`door_body_pos`; `board_pos`; `desired_orien`; `obj_pos` and
                `target_pos`).

        Raises:
            ConfigError: an option is none of these, or an array is missing, of another shape, or not finite.
        """
        state = self._checked_start(options or {})
        for array, nominal in self._nominal:
            array[:] = nominal
        observation, info = self._released.reset(
            seed=seed, options=None if state is None else {"initial_state_dict": state}
        )
        return observation.astype(np.float32), info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One control step of 10 ms."""
        observation, reward, terminated, truncated, info = self._released.step(action)
        if self._corrected:
            offset = self._palm - self._reached
            reward -= _WRONG_SIGN * math.sqrt(offset @ offset)
        return observation.astype(np.float32), float(reward), terminated, truncated, info

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The arrays that `reset(options={"initial_state": ...})` takes, as they are now."""
        state = self._released.get_env_state()
        if "obj_pos" in state:
            # The release tells where the ball is, and a start sets where it hangs: its joints come on top of that.
            state["obj_pos"] = self.model.body_pos[self._released.obj_body_id]
            state["target_pos"] = self.model.site_pos[self._released.target_obj_site_id]
        return {key: np.array(state[key]) for key in ("qpos", "qvel", *self._task.start)}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (height, width, 3), or None without a `render_mode`.

        Raises:
            ConfigError: the model has no such camera.
            MissingDependency: this machine has no OpenGL library.
        """
        if self.render_mode is None:
            return None
        if self._camera is None:
            self._camera = Camera(self.model, *self._size, self._camera_name)
        return self._camera.frame(self.data)

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
        self._released.close()

    def _checked_start(self, options: Mapping[str, Any]) -> dict[str, NDArray[np.float64]] | None:
        if unknown := options.keys() - {"initial_state"}:
            raise ConfigError(f"reset has no option {', '.join(map(repr, sorted(unknown)))}; it knows initial_state")
        given = options.get("initial_state")
        if given is None:
            return None
        state = {}
        for key in ("qpos", "qvel", *self._task.start):
            if key not in given:
                raise ConfigError(f"initial_state lacks {key}; it has {', '.join(sorted(given)) or 'nothing'}")
            array = np.asarray(given[key], np.float64)
            wanted = self._released._state_space[key].shape
            if array.shape != wanted or not np.isfinite(array).all():
                raise ConfigError(f"initial_state needs {key} as finite numbers {wanted}; got {array.shape}")
            state[key] = array
        return state


# Channels, in the order of `_get_obs` of gymnasium_robotics/envs/adroit_hand/adroit_<task>.py, release 1.4.2.


def _joints(model: mujoco.MjModel, joints: range, what: str = "position", limit: float = math.inf) -> list[Channel]:
    channels = []
    for index in joints:
        unit = "m" if model.jnt_type[index] == mujoco.mjtJoint.mjJNT_SLIDE else "rad"
        unit += "/s" if what == "velocity" else ""
        channels.append(Channel(f"{model.joint(index).name}.{what}", unit, -limit, limit))
    return channels


def _axes(name: str, unit: str = "m", axes: str = "xyz", limit: float = math.inf) -> list[Channel]:
    return [Channel(f"{name}.{axis}", unit, -limit, limit) for axis in axes]


def _door(model: mujoco.MjModel) -> tuple[Channel, ...]:
    hinge, latch = model.njnt - 2, model.njnt - 1
    return (
        *_joints(model, range(1, hinge)),  # without ARTz, the arm's way towards the door
        *_joints(model, range(latch, latch + 1)),
        *_joints(model, range(hinge, hinge + 1)),
        *_axes("palm"),
        *_axes("handle"),
        *_axes("palm_from_handle"),
        Channel("door_open", "1", -1.0, 1.0),  # 1 beyond 1.0 rad, else -1
    )


def _hammer(model: mujoco.MjModel) -> tuple[Channel, ...]:
    return (
        *_joints(model, range(model.njnt - 6)),  # the hand, and the depth of the nail
        *_joints(model, range(model.njnt - 6, model.njnt), "velocity", 1.0),  # the hammer's, cut to +-1
        *_axes("palm"),
        *_axes("hammer"),
        *(Channel(f"hammer.euler_{axis}", "rad", -math.pi, math.pi) for axis in "xyz"),
        *_axes("nail"),
        Channel("nail_impact", "N", -1.0, 1.0),  # cut to +-1
    )


def _pen(model: mujoco.MjModel) -> tuple[Channel, ...]:
    return (
        *_joints(model, range(model.njnt - 6)),
        *_axes("pen"),
        *_joints(model, range(model.njnt - 6, model.njnt), "velocity"),
        *_axes("pen_direction", "1"),
        *_axes("target_direction", "1"),
        *_axes("pen_from_target"),
        *_axes("pen_direction_from_target", "1"),
    )


def _relocate(model: mujoco.MjModel) -> tuple[Channel, ...]:
    return (
        *_joints(model, range(model.njnt - 6)),
        *_axes("palm_from_ball"),
        *_axes("palm_from_target"),
        *_axes("ball_from_target"),
    )


_OBSERVATIONS = {"door": _door, "hammer": _hammer, "pen": _pen, "relocate": _relocate}
