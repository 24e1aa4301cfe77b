"""Defects of episodes: copies, times, lengths, verdicts and labels, one function each; and the list of all checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.channel_checks import (
    action_lag,
    clipped_actions,
    dead_channel,
    frozen_sensor,
    jump,
    unit_mismatch,
)
from understudy.dataset.findings import DISCRETE, Check, Defect, Findings, listed
from understudy.dataset.look import WIDEST, Floats, Look
from understudy.episode import SUCCESS, UNKNOWN


def duplicate_episode(findings: Findings) -> Iterator[Defect]:
    """The same recording twice, or a recording and the beginning of it."""
    first: dict[str, Look] = {}
    begun = _beginnings(findings.looks)
    for look in findings.looks:
        twin = first.setdefault(look.row.content, look)
        twin = begun.get(look.row.id, look) if twin is look else twin
        if twin is not look:
            yield Defect(
                "duplicate-episode",
                "error",
                f"{look.name} is the same recording as {twin.name}: it would count twice, and be trained on and held "
                f"out at once; drop {look.row.id}",
                (twin.row.id, look.row.id),
            )


def _beginnings(looks: Sequence[Look]) -> dict[int, Look]:
    """For the id of each episode that is the whole or the beginning of another one, that other one."""
    alike: dict[int, list[Look]] = defaultdict(list)
    for look in sorted(looks, key=lambda look: -look.row.length):
        alike[int(look.prefixes[0])].append(look)
    found: dict[int, Look] = {}
    for group in alike.values():
        longer: list[Look] = []
        for length, same in groupby(group, key=lambda look: look.row.length):
            ends: dict[int, Look] = {}
            for look in longer:
                ends.setdefault(int(look.prefixes[length - 1]), look)
            for look in same:
                twin = ends.setdefault(int(look.prefixes[-1]), look)
                if twin is look:
                    longer.append(look)
                elif _unlikely_twice(look):
                    found[look.row.id] = twin
    return found


def _unlikely_twice(look: Look) -> bool:
    """Whether an episode has a channel of many values; one that has none may come about twice without a copy."""
    return bool(look.distinct.max() > min(DISCRETE, max(8, look.row.length // 2)))


def time_gaps(findings: Findings) -> Iterator[Defect]:
    """Stalls of a paced recording: a step that took 1.5 periods or more."""
    period = findings.period_s()
    if period is None:
        return
    for look in findings.looks:
        gaps = np.flatnonzero(look.dt > 1.5 * period)
        if len(gaps):
            worst = int(look.dt.argmax())
            bad = len(gaps) > 0.05 * look.row.length or look.dt[worst] > max(1.0, 3 * period)
            yield Defect(
                "time-gaps",
                "error" if bad else "warning",
                f"{look.name}: {len(gaps)} steps took longer than 1.5 control periods ({1e3 * period:.0f} ms), at "
                f"steps {listed(gaps)}; the longest {1e3 * look.dt[worst]:.0f} ms: "
                + ("drop the episode" if bad else "drop it if the task is fast; close what else runs while recording"),
                (look.row.id,),
                steps=tuple(gaps.tolist()),
            )


def wrong_rate(findings: Findings) -> Iterator[Defect]:
    """A regular recording at another rate than stated, or an episode at another rate than the rest."""
    medians = {place: float(np.median(look.dt)) for place, look in enumerate(findings.looks) if len(look.dt) >= 10}
    if not medians:
        return
    usual = float(np.median(list(medians.values())))
    stated = 1.0 / findings.spec.control_hz if findings.spec.control_hz else 0.0
    spread = float(np.median([np.abs(findings.looks[place].dt - medians[place]).mean() for place in medians]))
    # A simulation that runs free has no rate; it is irregular, or far faster than any robot.
    regular = spread < 0.05 * usual and usual >= 0.002
    if not regular:
        return
    if stated and not 0.95 < usual / stated < 1.05 and 0.25 < usual / stated < 4:
        yield Defect(
            "wrong-rate",
            "error",
            f"the recordings ran at {1 / usual:.1f} Hz, the dataset states {1 / stated:.1f} Hz: a policy would run too "
            "fast or too slow; record again, or correct control_hz",
        )
    for place, median in medians.items():
        if not 0.9 < median / usual < 1.1:
            look = findings.looks[place]
            yield Defect(
                "wrong-rate",
                "error",
                f"{look.name} ran at {1 / max(median, 1e-6):.1f} Hz, the others at {1 / usual:.1f} Hz: drop the "
                "episode",
                (look.row.id,),
            )


def non_monotonic_time(findings: Findings) -> Iterator[Defect]:
    """Measured times that do not grow."""
    for look in findings.looks:
        back = np.flatnonzero(look.dt <= 0)
        if len(back):
            yield Defect(
                "non-monotonic-time",
                "error",
                f"{look.name}: time does not advance at steps {listed(back + 1)}: the recorder used a clock that can "
                "be set; use a monotonic one, and drop the episode",
                (look.row.id,),
                steps=tuple((back + 1).tolist()),
            )


def odd_length(findings: Findings) -> Iterator[Defect]:
    """Episodes that are far shorter or longer than the rest."""
    lengths = np.array([look.row.length for look in findings.looks])
    median = float(np.median(lengths))
    for look in findings.looks:
        length = look.row.length
        if (length < 5 and length < 0.5 * median) or (len(lengths) >= 4 and length < 0.15 * median):
            yield Defect(
                "short-episode",
                "warning",
                f"{look.name} has only {length} of the usual {median:.0f} steps: probably stopped by accident; drop it",
                (look.row.id,),
            )
        elif len(lengths) >= 4 and length > 4 * median:
            yield Defect(
                "long-episode",
                "warning",
                f"{look.name} has {length} steps, the median is {median:.0f}: it outweighs the others; drop or cut it",
                (look.row.id,),
            )


def verdicts(findings: Findings) -> Iterator[Defect]:
    """What the episodes say about reward and success."""
    if not any(look.rewarded for look in findings.looks):
        yield Defect(
            "reward-missing",
            "warning",
            "no step has a reward: good enough for cloning and DAgger; reinforcement learning from these data needs "
            "them",
        )
    judged = [look.row.success for look in findings.looks if look.row.success != UNKNOWN]
    if not judged:
        yield Defect(
            "success-unknown",
            "warning",
            "no episode says whether it succeeded: failures among them would be imitated; judge them when recording",
        )
    elif SUCCESS not in judged:
        yield Defect(
            "no-success",
            "error",
            f"not one of {len(judged)} judged episodes succeeded: a policy would learn to fail; record successes first",
        )


def idle_stretch(findings: Findings) -> Iterator[Defect]:
    """Steps without motion at the start or end, of which a policy learns to stand still."""
    for look in findings.looks:
        length = look.row.length
        for where, steps, limit in (("start", look.idle_start, 0.15), ("end", look.idle_end, 0.3)):
            if steps > limit * length and steps >= 10:
                yield Defect(
                    "idle-stretch",
                    "warning",
                    f"{look.name}: nothing moves for {steps} of {length} steps at its {where}: a policy learns to "
                    "wait; record again, or cut them off",
                    (look.row.id,),
                )


def contradictory_labels(findings: Findings) -> Iterator[Defect]:
    """Nearly the same observation with very different targets, or a label that is not what the expert did."""
    wrong = [look for look in findings.looks if look.mislabelled > max(1, 0.02 * look.labels)]
    for look in wrong:
        yield Defect(
            "contradictory-labels",
            "warning",
            f"{look.name}: in {look.mislabelled} of {look.labels} labelled steps the expert drove and did something "
            "else than the label says: check how labels are made, or drop the episode (noise that a gate adds to the "
            "expert's motion looks so, too, and is meant)",
            (look.row.id,),
        )
    counts = [len(look.samples) for look in findings.looks]
    samples = np.concatenate([look.samples for look in findings.looks])
    owner = np.repeat(np.arange(len(counts)), counts)
    if len(samples) > 3000:
        chosen = np.linspace(0, len(samples) - 1, 3000).astype(int)
        samples, owner = samples[chosen], owner[chosen]
    size = min(len(findings.spec.observations), WIDEST)
    seen, asked = _standardise(samples[:, :size]), _standardise(samples[:, size:])
    close = (_squares(seen) < 0.02**2) & (owner[:, None] < owner[None, :])
    apart = _squares(asked) > 1.0
    pairs: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for one, two in np.argwhere(close):
        pairs[int(owner[one]), int(owner[two])].append(bool(apart[one, two]))
    for (one, two), against in pairs.items():
        if sum(against) >= 3 and sum(against) > 0.5 * len(against):
            first, second = findings.looks[one], findings.looks[two]
            yield Defect(
                "contradictory-labels",
                "warning",
                f"{first.name} and {second.name} show the same {sum(against)} of {len(against)} compared situations "
                "with very different actions: look at both, and drop the wrong one",
                (first.row.id, second.row.id),
            )


def missing_final_observation(findings: Findings) -> Iterator[Defect]:
    """Episodes that end with a copy of the observation before."""
    copied = [look for look in findings.looks if look.repeated_end]
    if len(copied) >= max(1, 0.5 * len(findings.looks)):
        yield Defect(
            "missing-final-observation",
            "warning",
            f"{len(copied)} of {len(findings.looks)} episodes end with a copy of the observation before: what the last "
            "action did was not recorded; harmless for cloning, not for values after a time limit",
            tuple(look.row.id for look in copied),
        )


def numbers(findings: Findings) -> Iterator[Defect]:
    """How many there are, and how many are not whole."""
    if not findings.looks:
        yield Defect(
            "few-episodes",
            "error",
            "there is no whole episode to learn from: record some, or look at those that were interrupted with "
            "include_partial()"
            if findings.partial
            else "there is no episode to learn from: record some",
        )
    elif len(findings.looks) < 10:
        yield Defect(
            "few-episodes",
            "warning",
            f"{len(findings.looks)} episodes: a held-out tenth of them measures nothing; record at least 10",
        )
    if findings.partial:
        ids = tuple(row.id for row in findings.partial)
        yield Defect(
            "partial-present",
            "warning",
            f"{len(ids)} interrupted recordings (episode {listed(np.array(ids))}) are left out of training: drop "
            "them, or look at them with include_partial()",
            ids,
        )


CHECKS: tuple[Check, ...] = (
    dead_channel,
    frozen_sensor,
    action_lag,
    clipped_actions,
    duplicate_episode,
    time_gaps,
    wrong_rate,
    non_monotonic_time,
    odd_length,
    verdicts,
    jump,
    unit_mismatch,
    idle_stretch,
    contradictory_labels,
    missing_final_observation,
)


def _standardise(columns: Floats) -> Floats:
    deviation = columns.std(axis=0) if len(columns) else np.zeros(columns.shape[1])
    live = deviation > 1e-9
    if not live.any():
        return np.zeros((len(columns), 1))
    return np.asarray((columns[:, live] - columns[:, live].mean(axis=0)) / deviation[live])


def _squares(columns: Floats) -> NDArray[np.float32]:
    """Mean squared difference of every two rows, (N, N)."""
    rows = columns.astype(np.float32)
    norms = (rows**2).sum(axis=1)
    squares = norms[:, None] + norms[None, :] - 2 * rows @ rows.T
    return np.asarray(np.maximum(squares, 0) / rows.shape[1], np.float32)
