"""Worlds: the bundled one, Adroit with corrected rewards, and what any Gymnasium id needs. Importing registers them.

Nothing heavy is imported here: an id names its class by text, and MuJoCo is loaded when the first world is built.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import gymnasium as gym

ADROIT_TASKS = ("Door", "Hammer", "Pen", "Relocate")
ADROIT_STEPS = 200


def register_worlds() -> None:
    """Registers the bundled worlds with Gymnasium; calling it again changes nothing."""
    if "understudy/PickPlace-v0" not in gym.registry:
        # No max_episode_steps: this world ends its own episodes, so an unwrapped one behaves like a made one.
        gym.register("understudy/PickPlace-v0", entry_point="understudy.sim.pick_place:PickPlaceEnv")
    for task in ADROIT_TASKS:
        if f"understudy/Adroit{task}-v0" not in gym.registry:
            gym.register(
                f"understudy/Adroit{task}-v0",
                entry_point="understudy.sim.adroit:AdroitEnv",
                max_episode_steps=ADROIT_STEPS,
                kwargs={"task": task.lower()},
            )


def register_robotics() -> None:
    """Registers the worlds of gymnasium-robotics, where it is installed.

    The package prints a notice about Adroit's rewards whenever it is imported, in each process, whatever world is
    wanted. It is taken away here; `make_env` warns those whom it concerns.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("farama_notifications").notifications.pop("gymnasium_robotics", None)
    with contextlib.suppress(ImportError):
        importlib.import_module("gymnasium_robotics")  # registers as it is imported


register_worlds()


_LAZY = {
    "MLPExpert": "understudy.sim.experts",
    "PickPlaceExpert": "understudy.sim.pick_place_expert",
    "PolicyExpert": "understudy.sim.experts",
    "expert_for": "understudy.sim.experts",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'understudy.sim' has no attribute {name!r}")
