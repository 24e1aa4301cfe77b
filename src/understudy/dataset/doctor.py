"""The doctor: what is in a dataset, and what is wrong with it, before anybody trains on it."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.bare import BareFolder
from understudy.dataset.checks import CHECKS, numbers
from understudy.dataset.findings import Defect, Findings
from understudy.dataset.folder import DatasetWarning
from understudy.dataset.index import MANIFEST
from understudy.dataset.lag import LagTracker
from understudy.dataset.look import Look, look_at
from understudy.dataset.store import Dataset
from understudy.durable import is_regular
from understudy.episode import FAILURE, SUCCESS, UNKNOWN
from understudy.errors import CorruptEpisode, DataError
from understudy.spec import Spec

_MOST_PATHS = 200
_MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class ChannelRange:
    """The range of one channel over all episodes.

    Args:
        kind: `observation` or `action`.
        name: empty where nobody named it.
        unit: empty where nobody said.
        low, high: smallest and largest value; NaN, like the deviation, where there is no episode.
        deviation: median over the episodes of its standard deviation within one.
    """

    kind: str
    name: str
    unit: str
    low: float
    high: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found.

    Args:
        path: the dataset.
        env_id: its world; empty where unknown.
        episodes, steps: counts, without partial episodes.
        partial: interrupted recordings, not counted.
        lengths: smallest, median and largest number of steps.
        stated_hz: control rate that the dataset states; 0 where unknown.
        measured_hz: median of the measured rate; None where nobody measured.
        paced: whether the recordings kept to a rate, so that gaps can be judged.
        successes, failures, unjudged: episodes.
        expert_steps: steps that the expert drove.
        labelled_steps: steps at which the expert was asked.
        taught: episodes with a step at which the expert drove or was asked; the others teach a clone nothing.
        channels: ranges, observations first.
        coverage: how far apart the starts are: median distance of a start to the nearest other one, as root mean
            square over the channels that move, in standard deviations of all data. 0: every start is the same.
        diversity: how different the ways are: mean distance between two episodes at equal shares of their length, in
            the same measure. 0: all the same; 1.4: as different as two random moments.
        defects: what is wrong, errors first.
    """

    path: str
    env_id: str
    episodes: int
    steps: int
    partial: int
    lengths: tuple[int, float, int]
    stated_hz: float
    measured_hz: float | None
    paced: bool
    successes: int
    failures: int
    unjudged: int
    expert_steps: int
    labelled_steps: int
    taught: int
    channels: tuple[ChannelRange, ...]
    coverage: float
    diversity: float
    defects: tuple[Defect, ...]

    @property
    def errors(self) -> tuple[Defect, ...]:
        """The defects with which training would go wrong."""
        return tuple(defect for defect in self.defects if defect.severity == "error")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite is None."""
        values = asdict(self)
        for channel in values["channels"]:
            channel.update({name: _finite(channel[name]) for name in ("low", "high", "deviation")})
        return values

    def lines(self) -> list[str]:
        """A summary for people, then one line for each defect."""
        least, median, most = self.lengths
        rate = f"stated {self.stated_hz:g} Hz" if self.stated_hz else "no rate stated"
        if self.measured_hz is not None:
            rate += f", measured {self.measured_hz:.1f} Hz" + ("" if self.paced else " (ran free)")
        share = self.expert_steps / self.steps if self.steps else 0.0
        partial = f" and {self.partial} partial" if self.partial else ""
        return [
            f"{self.path}" + (f" ({self.env_id})" if self.env_id else ""),
            f"episodes   {self.episodes}{partial}, {self.steps} steps; length {least} to {most}, median {median:g}",
            f"rate       {rate}",
            f"success    {self.successes} yes, {self.failures} no, {self.unjudged} unjudged",
            f"driver     expert {share:.0%} of the steps; {self.labelled_steps} labels",
            f"channels   {sum(channel.kind == 'observation' for channel in self.channels)} observation, "
            f"{sum(channel.kind == 'action' for channel in self.channels)} action",
            f"starts     {self.coverage:.2f} deviations apart; ways {self.diversity:.2f} apart",
            *self._defect_lines(),
        ]

    def _defect_lines(self) -> list[str]:
        """The first few defects of each class; `defects` has them all."""
        shown: list[str] = []
        for name, many in Counter(defect.id for defect in self.defects).items():
            same = [defect for defect in self.defects if defect.id == name]
            shown += [f"{defect.severity:<10} {name}: {defect.message}" for defect in same[:_MOST_LINES]]
            if many > _MOST_LINES:
                shown.append(f"{same[-1].severity:<10} {name}: in {many - _MOST_LINES} more places (all in the JSON)")
        return shown or ["no defects found"]


def diagnose(source: Dataset | str | os.PathLike[str]) -> Diagnosis:
    """Looks at every episode once and names what is wrong.

    Args:
        source: a dataset or a view of one; or a path, in which case also what cannot be opened is a finding and no
            error.

    Returns:
        The diagnosis; a dataset that cannot be opened has no episodes and one defect.
    """
    if isinstance(source, Dataset):
        return _diagnose(source, [])
    path = Path(source)
    defects: list[Defect] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DatasetWarning)
            if path.is_dir() and not is_regular(path / MANIFEST) and not (path / "episodes.jsonl").exists():
                bare = BareFolder(path)
                defects += [Defect(problem.kind, "error", problem.message, channel="") for problem in bare.problems]
                dataset = Dataset(bare)
            else:
                dataset = Dataset.open(path)
    except DataError as error:
        defects.append(Defect("unreadable", "error", str(error)))
        return _summary(str(path), Spec("", 0.0, (), ()), Findings(Spec("", 0.0, (), ()), []), defects)
    return _diagnose(dataset, defects)


def _diagnose(dataset: Dataset, defects: list[Defect]) -> Diagnosis:
    looks: list[Look] = []
    tracker = LagTracker()
    for row in dataset.rows:
        try:
            episode = dataset.read(row)
        except CorruptEpisode as error:
            defects.append(Defect("corrupt-file", "error", str(error), (row.id,)))
        except DataError as error:
            defects.append(Defect("wrong-shape", "error", str(error), (row.id,)))
        else:
            looks.append(look_at(row, episode, dataset.spec))
            tracker.add(episode)
    whole = dataset.include_partial()
    left_out = [row for row in whole.rows if row.partial]
    curves = tracker.finish()
    findings = Findings(dataset.spec, looks, tracker.driven, curves, left_out)
    if looks:
        for check in CHECKS:
            defects.extend(check(findings))
    defects.extend(numbers(findings))
    return _summary(str(dataset.path), dataset.spec, findings, defects)


def _summary(path: str, spec: Spec, findings: Findings, defects: list[Defect]) -> Diagnosis:
    looks = findings.looks
    lengths = [look.row.length for look in looks] or [0]
    dt = np.concatenate([look.dt for look in looks]) if looks else np.zeros(0)
    usual = float(np.median(dt)) if len(dt) else 0.0
    measured_hz = _finite(1.0 / usual) if usual > 0 else None
    verdicts = [look.row.success for look in looks]
    coverage, diversity = _spread(looks) if looks else (0.0, 0.0)
    return Diagnosis(
        path=path,
        env_id=spec.env_id,
        episodes=len(looks),
        steps=sum(look.row.length for look in looks),
        partial=len(findings.partial),
        lengths=(min(lengths), float(np.median(lengths)), max(lengths)),
        stated_hz=spec.control_hz,
        measured_hz=measured_hz,
        paced=findings.period_s() is not None,
        successes=verdicts.count(SUCCESS),
        failures=verdicts.count(FAILURE),
        unjudged=verdicts.count(UNKNOWN),
        expert_steps=sum(look.expert_steps for look in looks),
        labelled_steps=sum(look.labels for look in looks),
        taught=sum(bool(look.expert_steps or look.labels) for look in looks),
        channels=_ranges(spec, findings),
        coverage=coverage,
        diversity=diversity,
        defects=tuple(sorted(defects, key=lambda defect: defect.severity != "error")),
    )


def _ranges(spec: Spec, findings: Findings) -> tuple[ChannelRange, ...]:
    """What is known of each channel; without episodes only what the spec says."""
    channels = (*spec.observations, *spec.actions)
    kinds = ["observation"] * len(spec.observations) + ["action"] * len(spec.actions)
    low = high = deviation = np.full(len(channels), np.nan)
    if findings.looks:
        low, high = findings.column("low").min(axis=0), findings.column("high").max(axis=0)
        deviation = np.median(findings.column("deviation"), axis=0)
    return tuple(
        ChannelRange(kind, channel.name, channel.unit, *numbers)
        for kind, channel, *numbers in zip(
            kinds, channels, low.tolist(), high.tolist(), deviation.tolist(), strict=True
        )
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _spread(looks: list[Look]) -> tuple[float, float]:
    """Coverage of the starts and diversity of the ways (see `Diagnosis`)."""
    chosen = [looks[place] for place in np.unique(np.linspace(0, len(looks) - 1, _MOST_PATHS).astype(int))]
    paths = np.stack([look.path for look in chosen], dtype=np.float64)  # (N, 25, D)
    scale = paths.reshape(-1, paths.shape[-1]).std(axis=0)
    live = scale > 1e-9
    if len(chosen) < 2 or not live.any():
        return 0.0, 0.0
    starts = paths[:, 0, live] / scale[live]
    ways = (paths[:, :, live] / scale[live]).reshape(len(chosen), -1)
    return float(np.median(_nearest(_distances(starts)))), _mean_of_pairs(_distances(ways))


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square difference of every two rows, (N, N)."""
    return np.stack([np.sqrt(((rows - row) ** 2).mean(axis=1)) for row in rows])


def _nearest(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((distances + np.diag(np.full(len(distances), np.inf))).min(axis=1))


def _mean_of_pairs(distances: NDArray[np.float64]) -> float:
    return float(distances[np.triu_indices(len(distances), 1)].mean())
