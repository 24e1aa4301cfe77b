"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from understudy.evaluate import Comparison, Evaluation
from understudy.report.charts import StudyPoint
from understudy.spec import Spec


class Diagnosed(Protocol):
    """What is known about a dataset's health; `understudy.diagnose` gives it."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON, with a list `defects`."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video of the policy at work.

    Args:
        title: what it shows.
        path: of the MP4.
        success: whether the episode ended in success; None where the world does not say.
    """

    title: str
    path: Path
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The material of a report. What is absent leaves out its section.

    Args:
        title: of the page.
        date: as it is to be read.
        data: what the policy was trained on, in words.
        spec: of the world, for the names of its channels and its rate.
        evaluations: by label; the report is about the first.
        comparisons: of evaluations on the same starts: (label of the first, label of the second, their comparison).
        study: of distribution shift: policies from more and fewer demonstrations, with and without noise.
        metrics: rows of the run's metrics.
        clips: videos.
        health: of the dataset.
        config: recipe of the run, as plain JSON.
        versions: of the software, by name.
        seeds: by what they were for.
        commands: that repeat it.
    """

    title: str
    date: str = ""
    data: str = ""
    spec: Spec | None = None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    comparisons: Sequence[tuple[str, str, Comparison]] = ()
    study: Sequence[StudyPoint] = ()
    metrics: Sequence[Mapping[str, Any]] = ()
    clips: Sequence[Clip] = ()
    health: Diagnosed | Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int | str] = field(default_factory=dict)
    commands: Sequence[str] = ()

    @property
    def main(self) -> Evaluation | None:
        """The evaluation that the report is about."""
        return next((evaluation for evaluation in self.evaluations.values() if evaluation.trials), None)

    @property
    def judged(self) -> dict[str, Evaluation]:
        """The evaluations, by label, of worlds that report success."""
        return {label: evaluation for label, evaluation in self.evaluations.items() if is_judged(evaluation)}


def is_judged(evaluation: Evaluation) -> bool:
    """Whether the world said of some trial whether it succeeded."""
    return any(trial.success is not None for trial in evaluation.trials)
