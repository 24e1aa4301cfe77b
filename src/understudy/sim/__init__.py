"""Worlds: the bundled one, Adroit, Metaworld, and what any Gymnasium id needs. Importing this registers them.

Nothing heavy is imported here: an id names its class by text, and MuJoCo is loaded when the first world is built.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import gymnasium as gym

ADROIT_TASKS = ("Door", "Hammer", "Pen", "Relocate")
ADROIT_STEPS = 200
METAWORLD_TASKS = (
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press",
    "button-press-topdown",
    "button-press-topdown-wall",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-open",
    "door-unlock",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "hammer",
    "hand-insert",
    "handle-press",
    "handle-press-side",
    "handle-pull",
    "handle-pull-side",
    "lever-pull",
    "peg-insert-side",
    "peg-unplug-side",
    "pick-out-of-hole",
    "pick-place",
    "pick-place-wall",
    "plate-slide",
    "plate-slide-back",
    "plate-slide-back-side",
    "plate-slide-side",
    "push",
    "push-back",
    "push-wall",
    "reach",
    "reach-wall",
    "shelf-place",
    "soccer",
    "stick-pull",
    "stick-push",
    "sweep",
    "sweep-into",
    "window-close",
    "window-open",
)
METAWORLD_STEPS = 500


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
    for task in METAWORLD_TASKS:
        if f"understudy/MetaWorld-{task}-v3" not in gym.registry:
            gym.register(
                f"understudy/MetaWorld-{task}-v3",
                entry_point="understudy.sim.metaworld:MetaWorldEnv",
                max_episode_steps=METAWORLD_STEPS,
                kwargs={"task": task},
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
    "BiasedExpert": "understudy.sim.study_experts",
    "DelayedExpert": "understudy.sim.study_experts",
    "HumanConfig": "understudy.sim.study_experts",
    "MLPExpert": "understudy.sim.experts",
    "NoisyExpert": "understudy.sim.study_experts",
    "PickPlaceExpert": "understudy.sim.pick_place_expert",
    "PolicyExpert": "understudy.sim.experts",
    "SimulatedHuman": "understudy.sim.study_experts",
    "expert_for": "understudy.sim.experts",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'understudy.sim' has no attribute {name!r}")
