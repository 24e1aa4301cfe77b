"""The commands that repeat a run: the command line accepts each of them as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError, UnderstudyError
from understudy.evaluate import Evaluation
from understudy.inference import FeedForwardConfig
from understudy.recipe import TrainConfig


def training_command(run: Path, config: Mapping[str, Any]) -> str | None:
    """The command that trains the policy of a run again; None where none does.

    Args:
        run: the run's folder.
        config: of the run.

    Raises:
        ConfigError: the config is not what a training wrote.
    """
    policy = dict(config.get("policy", {}))
    kind, members = policy.pop("kind", None), 1
    try:
        if kind == "ensemble":
            members, member = policy["members"], policy["member"]
            kind, policy = member["kind"], member["architecture"]
        if config.get("command") != "train" or kind != "feedforward":
            return None
        shape, recipe = FeedForwardConfig.from_json(policy), TrainConfig(**config.get("train", {}))
    except (KeyError, TypeError, UnderstudyError) as error:
        raise ConfigError(f"{str(run / 'config.json')!r} is not what this Understudy's training writes") from error
    world = ["--env", config["env"]] if "env" in config else []
    words = ["--data", config.get("data", "DATA"), "--out", run, *world, "--members", members]
    return _line("train", "bc", *words, *_options(shape), *_options(recipe))


def evaluation_command(run: Path, evaluation: Evaluation) -> str:
    """The command that evaluates the policy of a run again."""
    words = ["--env", evaluation.world, "--episodes", len(evaluation.trials), "--seed", evaluation.seed]
    for name in ("execute", "ensemble_decay"):
        if name in evaluation.options:
            words += [_option(name), evaluation.options[name]]
    for pair in evaluation.options.get("env_arguments", ()):
        words += ["--env-arg", pair]
    return _line("evaluate", run, *words)


def _options(settings: FeedForwardConfig | TrainConfig) -> Iterator[object]:
    """The words for the settings that are not at their defaults."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield _option(field.name if value else f"no_{field.name}")
        else:
            yield _option(field.name)
            yield from value if isinstance(value, tuple) else (value,)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _line(*words: object) -> str:
    return shlex.join(["understudy", *map(str, words)])
