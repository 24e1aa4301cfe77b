"""The commands that repeat a run: the command line accepts each of them as it stands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError, UnderstudyError
from understudy.evaluate import Evaluation
from understudy.network_shape import FeedForwardConfig
from understudy.presets import preset_called
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE, DAggerConfig, FinetuneConfig, TrainConfig


def training_command(run: Path, config: Mapping[str, Any]) -> str | None:
    """The command that trains the policy of a run again; None where none does, as of a run from Python.

    Args:
        run: the run's folder.
        config: of the run.

    Raises:
        ConfigError: the config is not what a training wrote.
    """
    if config.get("command") == "finetune":
        return _finetune(run, config)
    if config.get("command") not in ("train", "dagger"):
        return None
    policy = dict(config.get("policy", {}))
    kind, members = policy.pop("kind", None), 1
    try:
        if kind == "ensemble":
            members, member = policy["members"], policy["member"]
            kind, policy = member["kind"], member["architecture"]
        if kind != "feedforward":
            return None
        shape, recipe = FeedForwardConfig.from_json(policy), TrainConfig(**config.get("train", {}))
        if not all(
            name in config for name in (("data",) if config["command"] == "train" else ("data", "env", "expert"))
        ):
            return None
        words = ["--data", config["data"], "--out", run, "--members", members]
        words += _options(shape, DAGGER_SHAPE if config["command"] == "dagger" else None)
        if "env" in config:
            words += ["--env", config["env"]]
        for pair in config.get("env_arguments", ()):
            words += ["--env-arg", pair]
        if config["command"] == "train":
            return _line("train", "bc", *words, *_options(recipe))
        gate = dict(config["gate"])
        rounds = DAggerConfig(**config["dagger"])
        words += ["--expert", config["expert"], "--gate", gate.pop("name")]
        for name, value in gate.items():
            words += ["--gate-arg", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        start = [config["start"]] if "start" in config else []
        return _line("dagger", *start, *words, *_options(rounds), *_options(recipe, DAGGER_RECIPE))
    except (AttributeError, KeyError, TypeError, ValueError, UnderstudyError) as error:
        raise ConfigError(f"{str(run / 'config.json')!r} is not what this Understudy's training writes") from error


def _finetune(run: Path, config: Mapping[str, Any]) -> str | None:
    """The command that fine-tunes the policy of a run again; None where none does, as from Python."""
    if "env" not in config or "preset" not in config:
        return None
    try:
        words = ["--env", config["env"], "--out", run, "--preset", config["preset"]]
        if "data" in config:
            words += ["--demos", config["data"]]
        update = dict(config["update"])
        words += ["--update", update.pop("name")]
        for pair in config.get("env_arguments", ()):
            words += ["--env-arg", pair]
        for pair in config.get("clone_arguments", ()):
            words += ["--clone-arg", pair]
        for name, value in update.items():
            words += ["--update-arg", f"{name}={_json(value)}"]
        if config["demo_term"] is not None:
            term = dict(config["demo_term"])
            words += ["--term", term.pop("name")]
            for name, value in term.items():
                words += ["--term-arg", f"{name}={_json(value)}"]
        for name, value in (config["starts"] or {}).items():
            if name != "data_fingerprint":
                words += ["--start-arg", f"{name}={_json(value)}"]
        settings = FinetuneConfig(**_tuples(config["finetune"]))
        start = [config["start"]] if "start" in config else []
        return _line("finetune", *start, *words, *_options(settings, preset_called(config["preset"]).finetune))
    except (AttributeError, KeyError, TypeError, ValueError, UnderstudyError) as error:
        raise ConfigError(f"{str(run / 'config.json')!r} is not what this Understudy's training writes") from error


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def evaluation_command(run: Path, evaluation: Evaluation) -> str:
    """The command that evaluates the policy of a run again."""
    words = ["--env", evaluation.world, "--episodes", len(evaluation.trials), "--seed", evaluation.seed]
    for name in ("execute", "ensemble_decay", "max_steps"):
        if name in evaluation.options:
            words += [_option(name), evaluation.options[name]]
    for pair in evaluation.options.get("env_arguments", ()):
        words += ["--env-arg", pair]
    return _line("evaluate", run, *words)


def _options(
    settings: FeedForwardConfig | TrainConfig | DAggerConfig | FinetuneConfig,
    usual: FeedForwardConfig | TrainConfig | FinetuneConfig | None = None,
) -> Iterator[object]:
    """The words for the settings that are not at their defaults, or not those of `usual`."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value == (field.default if usual is None else getattr(usual, field.name)):
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
