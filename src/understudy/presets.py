"""Presets of `finetune`: whole recipes by name, without torch, so that a command line can read and print them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from understudy.errors import ConfigError, require_within
from understudy.network_shape import MOST_MEMBERS, FeedForwardConfig
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE, FinetuneConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe from the demonstrations to the deployed policy.

    Args:
        about: what it is, in one line.
        shape: of the network that is cloned, where no policy is given.
        members: of the ensemble that is cloned; 1 for a single network.
        clone: how it is cloned.
        clone_epochs: over the demonstrations; where given, `clone.steps` follows from their number.
        update: `npg`, `ppo` or `td3`.
        update_options: its fields by name; those left out keep their defaults.
        term: of the demonstrations, `likelihood` (DAPG) or `distance`.
        term_options: its fields by name.
        starts: fields of `DemoStarts` by name; None where every episode begins as the world says.
        finetune: the rest.
    """

    about: str
    shape: FeedForwardConfig
    members: int
    clone: TrainConfig
    clone_epochs: int | None
    update: str
    update_options: Mapping[str, Any] = field(default_factory=dict)
    term: str = "likelihood"
    term_options: Mapping[str, Any] = field(default_factory=dict)
    starts: Mapping[str, Any] | None = None
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def clone_recipe(self, windows: int, seed: int) -> TrainConfig:
        """How to clone demonstrations of so many steps."""
        recipe = replace(self.clone, seed=seed)
        if self.clone_epochs is None:
            return recipe
        return replace(recipe, steps=max(1, math.ceil(self.clone_epochs * windows / recipe.batch_size)))


# Differs from Rajeswaran et al. 2018: see "Departures" of docs/methods/dapg.md, which lists every one.
_PAPER = Preset(
    about="DAPG with the hyperparameters that its authors published: batches of 200 episodes, for millions of steps",
    shape=FeedForwardConfig(hidden=(32, 32), activation="tanh", head="squared", input_limit=1e6),
    members=1,
    clone=TrainConfig(
        batch_size=32,
        learning_rate=1e-3,
        warmup=0.0,
        weight_decay=0.0,
        gradient_clip=1e6,
        ema=0.0,
        observation_noise=0.0,
        lead=0,
        clip_targets=False,
        held_out=0.0,
        keep="last",
    ),
    clone_epochs=5,
    update="npg",
    update_options={"step_size": 0.05, "cg_iterations": 10, "damping": 1e-4},
    term_options={"lam0": 1e-2, "lam1": 0.95, "scale": "one"},
    finetune=FinetuneConfig(
        steps=4_000_000,
        episodes=200,
        gamma=0.995,
        gae_lambda=0.97,
        deviation="spread",
        least_deviation=math.exp(-3),
        judge_episodes=25,
        best_window=1,
        value_inputs="raw",
        value_hidden=(128, 128),
        value_epochs=2,
        value_batch=64,
        value_learning_rate=1e-3,
        value_weight_decay=1e-3,
        value_targets="returns",
        value_first_epochs=0,
    ),
)

# The small batches and the noise-robust clone of docs/methods/dapg.md, "A sample-efficient path".
_SMALL = Preset(
    about="small batches from a clone that bears noise: for a few hundred thousand steps",
    shape=FeedForwardConfig(hidden=(64, 64), activation="tanh", head="squared"),
    members=1,
    clone=TrainConfig(batch_size=64, observation_noise=0.2, lead=0, held_out=0.0, keep="last"),
    clone_epochs=60,
    update="npg",
    update_options={"step_size": 0.2},
    term_options={"lam0": 0.3, "lam1": 0.95, "scale": "one"},
    finetune=FinetuneConfig(),
)

# The frozen ensemble with a small residual of the same section.
_RESIDUAL = Preset(
    about="a small residual on a frozen ensemble: for one or two hundred thousand steps",
    shape=FeedForwardConfig(),
    members=5,
    clone=TrainConfig(),
    clone_epochs=None,
    update="npg",
    update_options={"step_size": 0.2, "last_step_size": 0.1, "damping": 1e-2},
    term_options={"lam0": 0.0},
    finetune=FinetuneConfig(
        tune="residual",
        residual_hidden=(32,),
        deviation="range",
        deviation_factor=0.05,
        gae_lambda=0.95,
        average=0.8,
        value_hidden=(64, 64),
        value_epochs=4,
        value_first_epochs=20,
        value_batch=256,
        value_weight_decay=0.0,
        value_targets="gae",
    ),
)

_TD3 = replace(
    _RESIDUAL,
    about="critics that learn from every step so far, and a residual within what was tried: the fewest steps",
    update="td3",
    update_options={},
    finetune=FinetuneConfig(
        episodes=5,
        gamma=0.98,
        tune="residual",
        residual_hidden=(128, 128),
        residual_limit=1.0,
        deviation="range",
        deviation_factor=0.05,
        average=0.8,
        best_window=12,
    ),
)

# Of `understudy demo` and its benchmark: larger steps from a clone that is good already are a random walk, and fewer
# episodes than these say little of which of two good policies is better. In trials ten members did a point better than
# five.
PICK_PLACE = replace(
    _RESIDUAL,
    about="the residual with small steps, for a clone that is good already",
    shape=DAGGER_SHAPE,
    members=10,
    clone=DAGGER_RECIPE,
    update_options={**_RESIDUAL.update_options, "step_size": 0.01, "last_step_size": 0.003},
    finetune=replace(_RESIDUAL.finetune, best_window=8, judge_episodes=25),
)

_SCRATCH = Preset(
    about="a fresh network and the reward alone",
    shape=FeedForwardConfig(hidden=(64, 64), activation="tanh", head="gaussian"),
    members=1,
    clone=TrainConfig(),
    clone_epochs=None,
    update="npg",
    update_options={"step_size": 0.05},
    term_options={"lam0": 0.0},
    finetune=FinetuneConfig(steps=1_000_000),
)

PRESETS: dict[str, Preset] = {
    "residual": _RESIDUAL,
    "residual-td3": _TD3,
    "small-batches": _SMALL,
    "dapg-paper": _PAPER,
    "scratch": _SCRATCH,
}
DEFAULT, FROM_SCRATCH = "residual", "scratch"


def preset_called(name: str) -> Preset:
    """The preset that a user names.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}; accepted: {', '.join(PRESETS)}")
    return PRESETS[name]


def with_clone(preset: Preset, options: Mapping[str, Any]) -> Preset:
    """The preset with other options of its cloning: fields of TrainConfig, and `members`.

    Raises:
        ConfigError: there is no such option, or a value cannot work.
    """
    known = {"members": preset.members, **{item.name: item.default for item in fields(TrainConfig)}, "lead": 0}
    del known["seed"]
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"cloning has no option {name}; it has {', '.join(known)}")
        if name == "lead" and value is None:
            continue  # it is taken from the pace of the demonstrations
        wanted = type(known[name])
        kind = (int, float) if wanted is float else wanted
        if not isinstance(value, kind) or (wanted is not bool and isinstance(value, bool)):
            raise ConfigError(
                f"{name} of the cloning is {value!r}; accepted: {wanted.__name__}, like {str(known[name]).lower()}"
            )
    rest = {name: value for name, value in options.items() if name != "members"}
    members = options.get("members", preset.members)
    require_within("members", members, 1, MOST_MEMBERS)
    epochs = None if "steps" in rest else preset.clone_epochs
    return replace(preset, members=members, clone=replace(preset.clone, **rest), clone_epochs=epochs)
