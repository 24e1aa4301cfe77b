"""The report of a run, from what its folder holds."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date as calendar_date
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError
from understudy.evaluate import Comparison, Evaluation, compare
from understudy.report.charts import StudyPoint
from understudy.report.commands import evaluation_command, training_command
from understudy.report.contents import Report
from understudy.report.films import clips
from understudy.report.page import write_report
from understudy.report.run_files import read_config, read_evaluations, read_health
from understudy.report.sections import execution_of
from understudy.runs import read_metrics
from understudy.spec import Spec

_PACKAGES = ("understudy", "torch", "numpy", "gymnasium", "mujoco")


def write_run_report(
    run: Path | str, *, to: Path | str | None = None, study: Sequence[StudyPoint] = (), date: str | None = None
) -> Path:
    """Writes the report of a run from what its folder holds.

    Read are `config.json`, `metrics.jsonl`, `health.json`, `evaluations/*.json` and the films beside them; what is
    absent leaves out its section. Links are not followed, so nothing outside of the folder is read.

    Args:
        run: the run's folder.
        to: where the report goes; `report.html` in the run where not given.
        study: of distribution shift, where the run is part of one.
        date: as it is to be read; today's where not given.

    Returns:
        The report's path.

    Raises:
        ConfigError: the folder holds no run, or a file in it is not what Understudy wrote.
        DataError: the config holds no spec where it should.
        StorageError: the disk is full or failed.
    """
    run = Path(run)
    config, health, named = read_config(run), read_health(run), read_evaluations(run)
    labels = _labels(named)
    evaluations = {labels[name]: evaluation for name, evaluation in named.items()}
    settings = {**config.get("train", {}), **config.get("finetune", {})}
    training = training_command(run, config)
    report = Report(
        title=f"{config.get('policy', {}).get('kind', 'Policy')} policy {run.resolve().name}",
        date=date if date is not None else f"{calendar_date.today():%-d %B %Y}",
        data=_data(config, health or {}),
        spec=Spec.from_json(config["spec"]) if "spec" in config else None,
        evaluations=evaluations,
        comparisons=list(_comparisons(evaluations)),
        study=study,
        metrics=read_metrics(run),
        clips=list(clips(run, named, labels)),
        health=health,
        config={key: value for key, value in config.items() if key != "spec"},
        versions=dict(_versions()),
        seeds={
            **({"training": settings["seed"]} if "seed" in settings else {}),
            **{f"starts ({label})": f"from {evaluation.seed}" for label, evaluation in evaluations.items()},
        },
        commands=[
            *([training] if training else []),
            *(evaluation_command(run, evaluation) for evaluation in evaluations.values()),
        ],
    )
    try:
        return write_report(to if to is not None else run / "report.html", report)
    except RecursionError as error:
        raise ConfigError(f"a file in {run} is nested too deeply to be shown; write it anew or remove it") from error


def _data(config: Mapping[str, Any], health: Mapping[str, Any]) -> str:
    counts = [f"{health[key]:,} {key}" for key in ("episodes", "steps") if isinstance(health.get(key), int)]
    return ", ".join([*counts, *([str(config["data"])] if "data" in config else [])])


def _labels(evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """What each evaluation, by name, does not share with all others; the names where that does not tell them apart."""
    said = {name: _said(evaluation) for name, evaluation in evaluations.items()}
    shared = set.intersection(*map(set, said.values())) if len(said) > 1 else set()
    short = {name: ", ".join(word for word in words if word not in shared) or "default" for name, words in said.items()}
    return short if len(set(short.values())) == len(short) else {name: name for name in said}


def _said(evaluation: Evaluation) -> list[str]:
    starts = f"{len(evaluation.trials)} starts from {evaluation.seed}"
    arguments = evaluation.options.get("env_arguments", ())
    return [evaluation.world, starts, *execution_of(evaluation), *arguments]


def _comparisons(evaluations: Mapping[str, Evaluation]) -> Iterator[tuple[str, str, Comparison]]:
    """The first evaluation against each other one of the same starts: the policy executed in another way."""
    first = next(iter(evaluations), "")
    for label in list(evaluations)[1:]:
        with suppress(ConfigError):  # of other starts, or of a world that reports no success
            yield first, label, compare(evaluations[first], evaluations[label])


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)
