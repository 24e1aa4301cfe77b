"""What a name and a few options stand for: an update, a demonstration term, a clone to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from understudy.dataset import Dataset
from understudy.errors import ConfigError, require_options
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.presets import Preset
from understudy.reinforcement.demos import TERMS, Term
from understudy.reinforcement.starts import DemoStarts
from understudy.reinforcement.td3 import TD3
from understudy.reinforcement.updates import NPG, PPO, Update
from understudy.trainer import TrainLog, train

UPDATES: dict[str, type[NPG] | type[PPO] | type[TD3]] = {"npg": NPG, "ppo": PPO, "td3": TD3}
_MAY_BE_NULL = ("kl_limit", "lead")  # though they have a default


def update_for(name: str, options: Mapping[str, Any] | None = None) -> Update | TD3:
    """The update that a user names.

    Args:
        name: npg, ppo or td3.
        options: its fields by name; those left out keep their defaults.

    Raises:
        ConfigError: there is no such update, it has no such option, or a value is out of range.
    """
    if name not in UPDATES:
        raise ConfigError(f"no update is called {name!r}; accepted: {', '.join(UPDATES)}")
    require_options(f"the update {name}", UPDATES[name], options or {}, empty=_MAY_BE_NULL)
    return UPDATES[name](**(options or {}))


def term_for(name: str, demos: Dataset, options: Mapping[str, Any] | None = None) -> Term:
    """The demonstration term that a user names.

    Args:
        name: likelihood (that of DAPG) or distance.
        demos: the demonstrations.
        options: its fields by name; those left out keep their defaults.

    Raises:
        ConfigError: there is no such term, it has no such option, or a value is out of range.
    """
    if name not in TERMS:
        raise ConfigError(f"no demonstration term is called {name!r}; accepted: {', '.join(TERMS)}")
    require_options(f"the term {name}", TERMS[name], options or {}, empty=_MAY_BE_NULL)
    return TERMS[name](demos, **(options or {}))


def starts_for(demos: Dataset, options: Mapping[str, Any]) -> DemoStarts:
    """Starts inside demonstrations, by the options of `DemoStarts`.

    Raises:
        ConfigError: there is no such option, or a value is out of range.
    """
    require_options("a start inside demonstrations", DemoStarts, options, empty=_MAY_BE_NULL)
    return DemoStarts(demos, **options)


def clone_for(
    preset: Preset,
    demos: Dataset,
    *,
    seed: int = 0,
    run: Path | str | None = None,
    resume: bool = False,
    on_log: Callable[[TrainLog], None] = lambda log: None,
    notes: Mapping[str, Any] | None = None,
) -> Policy:
    """The demonstrations cloned as a preset says, to begin a fine-tuning with.

    Args:
        preset: shape and recipe.
        demos: what to clone.
        seed: of the first weights and of the training.
        run: folder of the training; nothing is kept without it.
        resume: continue the training in that folder.
        on_log: called after each measurement.
        notes: kept in the run's config.

    Raises:
        ConfigError: the run's folder is not empty.
        DataError: the demonstrations cannot be trained on.
    """
    shape: Policy = FeedForward.for_data(demos, preset.shape, seed=seed)
    if preset.members > 1:
        shape = Ensemble.of(shape, preset.members, seed=seed)
    recipe = preset.clone_recipe(demos.steps, seed)
    return train(shape, demos, recipe, run=run, resume=resume, on_log=on_log, notes=notes)
