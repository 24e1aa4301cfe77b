"""Metaworld's 50 tasks (Yu et al. 2019), release 3.0.0: a Sawyer arm at a table, its goal in the observation.

Physics, rewards and success rules are the library's. Two things differ from what its own classes do:

- A start is a function of the seed. The library draws a start twice for each reset, lets the objects settle where the
  first draw put them, and ignores the seed that `reset` is given. Here one start is drawn from the seed, and the reset
  is the one that the library makes for a task (`set_task`) with those positions.
- The first observation shows the start. The library reads it before the simulation knows about the objects that it
  has just moved, which in `window-close` shows the handle 20 cm from where it is until the first step.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, MissingDependency
from understudy.sim import METAWORLD_TASKS
from understudy.sim.rendering import Camera
from understudy.spec import Channel

FRONT = "front"
_NOW = 18  # numbers of an observation that are about this moment; as many are about the one before it


class MetaWorldExpert:
    """The library's script for a task, a function of the observation, with its action cut to the limits.

    Args:
        env: one of these worlds.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        world: Any = env.unwrapped
        self._policy = _library("metaworld.policies").ENV_POLICY_MAP[f"{world.task}-v3"]()

    @property
    def engaged(self) -> bool:
        """Always: a script holds the controls."""
        return True

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The right action (4,) for an observation (39,)."""
        with warnings.catch_warnings():
            # It warns that worlds cut what it asks for, which is done here.
            warnings.simplefilter("ignore", UserWarning)
            action = self._policy.get_action(np.asarray(observation, np.float64))
        clipped: NDArray[np.float32] = np.clip(action, -1.0, 1.0).astype(np.float32)
        return clipped


class MetaWorldEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A Sawyer hand that is moved in x, y and z, its fingers left and right, at 80 Hz for 500 steps (registration).

    An action (4,) moves the hand's goal by up to 1 cm along each axis, and opens (-1) or closes (1) the fingers. An
    observation (39,) is this moment (18), the one before it (18), and the goal (3). `info["success"]` is the
    library's, at each step. An episode never terminates. The channels are named in `observation_channels` and
    `action_channels`.

    Args:
        task: as the library calls it, without its version: `drawer-open`.
        render_mode: None or `rgb_array`.
        width: of a picture, in pixels.
        height: of a picture, in pixels.
        camera: `front`, or a camera of the model, most of which hang upside down.

    Raises:
        ConfigError: an argument that is none of these.
        MissingDependency: Metaworld is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  (Gymnasium declares it so)
    scripted_experts = {"scripted": MetaWorldExpert}  # noqa: RUF012  (read by `expert_for`)

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
        camera: str = FRONT,
    ) -> None:
        if task not in METAWORLD_TASKS:
            raise ConfigError(f"task is {task!r}; Metaworld has {', '.join(METAWORLD_TASKS)}")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode is {render_mode!r}; Metaworld knows rgb_array, or None")
        self.task = task
        self._released: Any = _library("metaworld.env_dict").ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        self._released._partially_observable = False
        del self._released.sawyer_observation_space  # a cached property, which cuts a hidden goal to zero
        self._released._set_task_called = True
        self._released.seeded_rand_vec = True  # draws from its own generator, not from numpy's global one
        self.render_mode = render_mode
        self._size, self._camera_name = (width, height), camera
        self._camera: Camera | None = None

        self.model: mujoco.MjModel = self._released.model
        self.data: mujoco.MjData = self._released.data
        self.control_hz = 1.0 / float(self._released.dt)
        self.observation_channels = _OBSERVATION
        self.action_channels = _ACTION
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(_OBSERVATION),), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (len(_ACTION),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first observation (39,) of a start drawn from `seed`, or from where the last draw ended.

        Args:
            seed: as in Gymnasium.
            options: none are known.

        Raises:
            ConfigError: an option, such as an initial state, which these worlds cannot be set to.
        """
        if options:
            raise ConfigError(f"options are {', '.join(options)}; Metaworld's starts come from the seed alone")
        super().reset(seed=seed)
        released = self._released
        if seed is not None:
            released.seed(seed)
        released._freeze_rand_vec = False
        released.reset_model()  # draws a start, and again until it is a fair one
        released._freeze_rand_vec = True
        observation, info = released.reset()
        mujoco.mj_forward(self.model, self.data)
        now = released._get_curr_obs_combined_no_goal()
        released._prev_obs = now
        observation[:_NOW] = observation[_NOW : 2 * _NOW] = now
        return observation.astype(np.float32), info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One control step of 12.5 ms."""
        self._released.curr_path_length = 0  # at 500 the library refuses; the registration says how long an episode is
        observation, reward, _, _, info = self._released.step(action)
        return observation.astype(np.float32), float(reward), False, False, {**info, "success": bool(info["success"])}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (height, width, 3), or None without a `render_mode`.

        Raises:
            ConfigError: the model has no such camera.
            MissingDependency: this machine has no OpenGL library.
        """
        if self.render_mode is None:
            return None
        if self._camera is None:
            camera = _front() if self._camera_name == FRONT else self._camera_name
            self._camera = Camera(self.model, *self._size, camera)
        return self._camera.frame(self.data)

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
        self._released.close()


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f'Metaworld is not installed ({error}); it brings these worlds: pip install -e ".[metaworld]" in a clone'
        ) from error


def _front() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat = np.array([0.0, 0.6, 0.15])
    camera.distance, camera.azimuth, camera.elevation = 1.4, 235.0, -25.0
    return camera


def _moment(prefix: str = "") -> list[Channel]:
    """Channels in the order of `_get_curr_obs_combined_no_goal` of metaworld/sawyer_xyz_env.py, release 3.0.0."""
    channels = [Channel(f"{prefix}hand.{axis}", "m") for axis in "xyz"]
    channels.append(Channel(f"{prefix}fingers_apart", "1", 0.0, 1.0))  # in tenths of a metre
    for thing in ("object", "second_object"):  # zeros where a task has no second object, or no attitude
        channels += [Channel(f"{prefix}{thing}.{axis}", "m") for axis in "xyz"]
        # In some tasks the real part comes first, in others last.
        channels += [Channel(f"{prefix}{thing}.quaternion[{index}]", "1", -1.0, 1.0) for index in range(4)]
    return channels


_OBSERVATION = (*_moment(), *_moment("previous."), *(Channel(f"goal.{axis}", "m") for axis in "xyz"))
_ACTION = (*(Channel(f"hand.{axis}", "1", -1.0, 1.0) for axis in "xyz"), Channel("fingers", "1", -1.0, 1.0))
