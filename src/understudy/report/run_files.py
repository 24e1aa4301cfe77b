"""Reading the folder of a run: plain files of a bounded size inside of it, checked before anything is made of them."""

from __future__ import annotations

import os
from pathlib import Path
from types import NoneType
from typing import Any

from understudy.dataset import strict_json
from understudy.durable import is_regular
from understudy.errors import ConfigError, DataError
from understudy.evaluate import EVALUATION_SEED, Evaluation

LARGEST_JSON = 64 * 2**20
_NUMBER = int | float
_TRIAL = {
    "index": int,
    "seed": int,
    "success": bool | NoneType,
    "sustained": bool,
    "total_reward": _NUMBER,
    "length": int,
    "time_to_success_s": _NUMBER | NoneType,
    "first_step_outside": int | NoneType,
    "channel_outside": str | NoneType,
}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: it is missing, a link or no plain file, too large, or no JSON object.
    """
    if not is_regular(path):
        raise ConfigError(f"{str(path)!r} is no plain file (links are not followed); put the file there or remove it")
    try:
        with path.open("rb") as file:
            value = strict_json.loads(file.read(LARGEST_JSON + 1), what=repr(str(path)), largest=LARGEST_JSON)
    except DataError as error:
        raise ConfigError(f"{error}; write it anew or remove it") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{str(path)!r} holds no JSON object; write it anew or remove it")
    return value


def read_config(run: Path) -> dict[str, Any]:
    """What a run was asked for.

    Raises:
        ConfigError: the folder holds no run, or its config is not what Understudy wrote.
    """
    path = run / "config.json"
    if not os.path.lexists(path):
        raise ConfigError(f"{run} holds no config.json, so it is no run; give the folder that --out of training named")
    config = read_object(path)
    if "command" not in config or not all(
        isinstance(config.get(part, {}), dict) for part in ("policy", "train", "finetune")
    ):
        raise ConfigError(f"{str(path)!r} is not what a training wrote; train anew")
    return config


def read_health(run: Path) -> dict[str, Any] | None:
    """What was found in the run's data; None where nobody looked.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = run / "health.json"
    return read_object(path) if os.path.lexists(path) else None


def evaluations_folder(run: Path) -> Path:
    """Where the evaluations of a run lie, with their films.

    Raises:
        ConfigError: a link or a file lies there; through a link, one would read and write outside of the run.
    """
    folder = run / "evaluations"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{str(folder)!r} is no plain folder (links are not followed); put the folder there")
    return folder


def read_evaluations(run: Path) -> dict[str, Evaluation]:
    """The evaluations of a run by name, that which tells most about the policy first.

    That is the one of the most starts which no training has seen, in the world as it is, with the fewest options.

    Raises:
        ConfigError: one cannot be read, or is not what `understudy evaluate` wrote.
    """
    found = {path.stem: _evaluation(path) for path in evaluations_folder(run).glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: (*_rank(item[1]), item[0])))


def _rank(evaluation: Evaluation) -> tuple[bool, bool, int, int]:
    of_training, elsewhere = evaluation.seed < EVALUATION_SEED, "env_arguments" in evaluation.options
    return of_training, elsewhere, -len(evaluation.trials), len(evaluation.options)


def _evaluation(path: Path) -> Evaluation:
    try:
        evaluation = Evaluation.from_json(read_object(path))
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error
    options = evaluation.options
    pairs = options.get("env_arguments", [])
    sound = (
        isinstance(evaluation.world, str)
        and isinstance(evaluation.seed, int)
        and all(isinstance(options.get(name, 0), int) for name in ("execute", "max_steps"))
        and isinstance(options.get("ensemble_decay", 0), _NUMBER)
        and isinstance(pairs, list)
        and all(isinstance(pair, str) for pair in pairs)
        and all(isinstance(getattr(trial, name), kind) for trial in evaluation.trials for name, kind in _TRIAL.items())
        and all(isinstance(value, _NUMBER) for trial in evaluation.trials for value in trial.start)
    )
    if not sound:
        raise ConfigError(f"{str(path)!r} is no evaluation; make one with `understudy evaluate`, or remove it")
    return evaluation
