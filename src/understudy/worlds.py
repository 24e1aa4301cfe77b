"""Worlds by name: every Gymnasium id, the bundled ones included, through one function."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym

from understudy.errors import ConfigError, MissingDependency, UnderstudyError

World = str | Callable[[], gym.Env[Any, Any]]


_WRONG_REWARD = ("AdroitHandDoor-v1", "AdroitHandHammer-v1", "AdroitHandRelocate-v1")


def make_env(world: World, *, allow_module: bool = False, **arguments: Any) -> gym.Env[Any, Any]:
    """Builds a world.

    Args:
        world: an id (`understudy/PickPlace-v0`, `FetchReach-v4`, ...) or a function that builds it.
        allow_module: accept `module:Id`, which imports `module` and so runs its code. Only a person at a keyboard
            may ask for that; ids read from data never do.
        arguments: passed to the world (`reward="shaped"`, `render_mode="rgb_array"`).

    Raises:
        ConfigError: nobody has registered the id, its module cannot be imported, or the world refuses an argument.
        MissingDependency: the package that has the world is not installed.
    """
    if isinstance(world, str):
        _register(world)
        if ":" in world and not allow_module:
            raise ConfigError(f"{world!r} would import a module; give such an id with --env on the command line only")
        if ":" in world:
            _import(world.partition(":")[0])
    if "render_mode" in arguments:
        from understudy.sim.rendering import choose_backend

        choose_backend()
    try:
        with warnings.catch_warnings():
            if "render_mode" in arguments:  # whoever asks is told in other words, where it comes to nothing
                warnings.filterwarnings("ignore", message=".*possible render_modes")
            make = partial(gym.make, world, disable_env_checker=True) if isinstance(world, str) else world
            env = make(**arguments)
    except gym.error.DependencyNotInstalled as error:
        raise MissingDependency(f"{world} needs a package that is not installed: {error}") from error
    except (AttributeError, RuntimeError) as error:
        if "mujoco" in sys.modules or not os.environ.get("MUJOCO_GL"):
            raise
        raise MissingDependency(
            f"MuJoCo cannot be loaded with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}); unset it, or take egl or glfw"
        ) from error
    except (gym.error.Error, ModuleNotFoundError) as error:
        if not isinstance(world, str):
            raise ConfigError(f"the function that builds the world raised {type(error).__name__}: {error}") from error
        if world in gym.registry:
            raise MissingDependency(f"{world} cannot be built here: {error}") from error
        close = difflib.get_close_matches(str(world), gym.registry, n=3, cutoff=0.4) or ["understudy/PickPlace-v0"]
        raise ConfigError(f"no world is called {world!r}; close to it: {', '.join(close)}") from error
    except (TypeError, ValueError, AssertionError) as error:
        if not arguments or isinstance(error, UnderstudyError):
            raise
        raise ConfigError(f"{world} refuses its arguments {arguments}: {error}") from error
    _warn_of_wrong_sign(env)
    if arguments.get("render_mode") == "rgb_array":
        _speed_up_pictures(env)
    return env


def step_limit(env: gym.Env[Any, Any]) -> int | None:
    """The most steps that an episode takes, where the world says so."""
    limit: int | None = getattr(env.spec, "max_episode_steps", None) or getattr(env.unwrapped, "MAXIMUM_STEPS", None)
    return limit


class KeptOpen(gym.Wrapper[Any, Any, Any, Any]):
    """A world that somebody may borrow: closing it does nothing."""

    def close(self) -> None:
        """Leaves the world open, for its owner."""


def _import(module: str) -> None:
    """Runs the code of a module that registers worlds, which a person has named."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever that code raises is the reason why there is no world
        raise ConfigError(
            f"the module {module!r} cannot be imported ({type(error).__name__}: {error}); it and what it imports must "
            "lie in the current folder or in one of PYTHONPATH, or be installed"
        ) from error


def _register(world: str) -> None:
    """Registers the bundled worlds, and those of gymnasium-robotics unless they are registered already."""
    from understudy.sim import register_robotics

    if not world.startswith("understudy/") and "FetchReach-v4" not in gym.registry:
        register_robotics()


def _warn_of_wrong_sign(env: gym.Env[Any, Any]) -> None:
    world = env.spec.id if env.spec else ""
    if world in _WRONG_REWARD:
        bundled = world.replace("AdroitHand", "understudy/Adroit").replace("-v1", "-v0")
        warnings.warn(
            f"the dense reward of {world} has a wrong sign (Gymnasium-Robotics pull request 220); {bundled} is the "
            "same world with the reward its authors meant",
            stacklevel=3,
        )


def _speed_up_pictures(env: gym.Env[Any, Any]) -> None:
    mujoco = sys.modules.get("mujoco")
    model = getattr(env.unwrapped, "model", None)
    if mujoco is not None and isinstance(model, mujoco.MjModel):
        from understudy.sim.rendering import draw_fast

        draw_fast(model)
