"""The report of a run, from what its folder holds."""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import date as calendar_date
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError
from understudy.evaluate import Evaluation, agent_for, chosen_trials
from understudy.inference import FeedForwardConfig, load_predictor
from understudy.recipe import TrainConfig
from understudy.report.charts import StudyPoint
from understudy.report.contents import Clip, Report
from understudy.report.page import write_report
from understudy.runs import read_metrics
from understudy.spec import Spec
from understudy.worlds import make_env

_FILMED_EACH = 3
_FILMED = re.compile(r"-(success|failure)-(\d+)$")
_PACKAGES = ("understudy", "torch", "numpy", "gymnasium", "mujoco")


def write_run_report(
    run: Path | str,
    *,
    to: Path | str | None = None,
    study: Sequence[StudyPoint] = (),
    film_with: str | None = None,
    date: str | None = None,
) -> Path:
    """Writes the report of a run from what its folder holds.

    Read are `config.json`, `metrics.jsonl`, `health.json`, `evaluations/*.json` and `evaluations/*.mp4`; what is
    absent leaves out its section.

    Args:
        run: the run's folder.
        to: where the report goes; `report.html` in the run where not given.
        study: of distribution shift, where the run is part of one.
        film_with: id of a world to film some successes and failures of the policy in, where there are no videos yet.
        date: as it is to be read; today's where not given.

    Returns:
        The report's path.

    Raises:
        ConfigError: the folder holds no run, or a file in it is not what Understudy wrote.
        StorageError: the disk is full or failed.
    """
    run = Path(run)
    if not (run / "config.json").exists():
        raise ConfigError(f"{run} holds no config.json, so it is no run; give the folder that --out of training named")
    config = _read(run / "config.json")
    found = {path.stem: Evaluation.from_json(_read(path)) for path in sorted((run / "evaluations").glob("*.json"))}
    # The largest evaluation says most; equal ones stay in the order of their names.
    evaluations = dict(sorted(found.items(), key=lambda item: -len(item[1].trials)))
    if film_with and evaluations and not list((run / "evaluations").glob("*.mp4")):
        _film(run, film_with, *next(iter(evaluations.items())))
    settings = config.get("train", {})
    report = Report(
        title=f"{config.get('policy', {}).get('kind', 'Policy')} policy {run.resolve().name}",
        date=date if date is not None else f"{calendar_date.today():%-d %B %Y}",
        data=_data(run, config),
        spec=Spec.from_json(config["spec"]) if "spec" in config else None,
        evaluations=evaluations,
        study=study,
        metrics=read_metrics(run),
        clips=list(_clips(run)),
        health=_read(run / "health.json") if (run / "health.json").exists() else None,
        config={key: value for key, value in config.items() if key != "spec"},
        versions=dict(_versions()),
        seeds={
            **({"training": settings["seed"]} if "seed" in settings else {}),
            **{f"starts of {label}": f"from {evaluation.seed}" for label, evaluation in evaluations.items()},
        },
        commands=list(_commands(run, config, evaluations)),
    )
    return write_report(to if to is not None else run / "report.html", report)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}); write it anew or remove it") from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path} holds {type(value).__name__} where a JSON object is needed; write it anew or remove it"
        )
    return value


def _data(run: Path, config: Mapping[str, Any]) -> str:
    health = _read(run / "health.json") if (run / "health.json").exists() else {}
    said = [
        f"{health[key]:,} {key}" for key in ("episodes", "steps") if type(health.get(key)) is int and health[key] >= 0
    ]
    return ", ".join([*said, *([str(config["data"])] if "data" in config else [])])


def _film(run: Path, world: str, name: str, evaluation: Evaluation) -> None:
    from understudy.playback import Show, film

    agent = agent_for(load_predictor(run))
    for trial in chosen_trials(evaluation, _FILMED_EACH):
        path = run / "evaluations" / f"{name}-{'success' if trial.success else 'failure'}-{trial.seed}.mp4"
        if film(partial(make_env, world, render_mode="rgb_array"), [Show(agent, trial.seed)], path):
            return


def _clips(run: Path) -> Iterator[Clip]:
    paths = sorted((run / "evaluations").glob("*.mp4"), key=lambda path: ("-failure-" in path.stem, path.name))
    for path in paths:
        one = _FILMED.search(path.stem)
        if one:
            yield Clip(f"Start with seed {one.group(2)}", path, one.group(1) == "success")
        else:
            yield Clip(f"{path.stem}: successes first, then failures", path)


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _commands(run: Path, config: Mapping[str, Any], evaluations: Mapping[str, Evaluation]) -> Iterator[str]:
    if config.get("command") == "train":
        given = [f"--data {shlex.quote(str(config.get('data', 'DATA')))}", f"--out {shlex.quote(str(run))}"]
        given += _options(FeedForwardConfig, config.get("policy", {})) + _options(TrainConfig, config.get("train", {}))
        yield f"understudy train bc {' '.join(given)}"
    for evaluation in evaluations.values():
        yield (
            f"understudy evaluate {shlex.quote(str(run))} --env {shlex.quote(evaluation.world)} "
            f"--episodes {len(evaluation.trials)} --seed {evaluation.seed}"
        )


def _options(kind: type[FeedForwardConfig] | type[TrainConfig], settings: Mapping[str, Any]) -> list[str]:
    """Command-line options of the settings that are not at their defaults."""
    options = []
    for field in fields(kind):
        value = settings.get(field.name, MISSING)
        value = tuple(value) if isinstance(value, list) else value
        if value is not MISSING and value != field.default:
            words = [str(item) for item in (value if isinstance(value, tuple) else (value,))]
            options.append(f"--{field.name.replace('_', '-')} {shlex.join(words)}")
    return options
