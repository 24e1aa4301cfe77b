"""The defects that the doctor knows, one function each. docs/defects.md is this list as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.index import Row
from understudy.dataset.lag import lag_outliers
from understudy.dataset.look import WIDEST, Floats, Look
from understudy.episode import SUCCESS, UNKNOWN
from understudy.spec import Spec
from understudy.statistics import DEAD_RELATIVE

Severity = Literal["error", "warning"]

# id -> what is wrong; the test of each id, in all its variants, is a row of docs/defects.md
DEFECTS: dict[str, str] = {
    "unreadable": "the manifest or the index is damaged, or there is no dataset",
    "corrupt-file": "an episode file is missing, or not what was saved",
    "not-finite": "a file holds NaN or infinity",
    "wrong-shape": "a file has other channels than the rest, or arrays that do not fit together",
    "dead-channel": "a channel never changes, in any episode, or as good as never beside its value",
    "frozen-sensor": "readings stand still while the actions go on",
    "action-lag": "actions are shifted in time against the motion that is seen",
    "clipped-actions": "actions beyond the limits, or at a limit most of the time",
    "duplicate-episode": "two episodes are the same recording",
    "time-gaps": "a paced recording stalled",
    "wrong-rate": "the measured rate is not the stated one, or differs between episodes",
    "non-monotonic-time": "time stands still or runs backwards",
    "short-episode": "an episode is far shorter than the rest",
    "long-episode": "an episode is far longer than the rest",
    "reward-missing": "no reward is recorded anywhere",
    "success-unknown": "nobody said whether the episodes succeeded",
    "no-success": "no episode succeeded",
    "jump": "a channel teleports for a step",
    "unit-mismatch": "a channel of some episodes is in another unit",
    "idle-stretch": "the robot does nothing for a long time at the start or end",
    "contradictory-labels": "nearly the same observation carries very different actions",
    "missing-final-observation": "the last observation is only a copy of the one before",
    "few-episodes": "too few episodes to learn and to measure from",
    "partial-present": "recordings that were interrupted are in the folder",
}


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong with a dataset.

    Args:
        id: its class, a key of DEFECTS.
        severity: `error` where training would go wrong, `warning` where a person should look.
        message: one line: what, in which episode and channel, and what to do.
        episodes: ids of the episodes it is in; empty for the dataset as a whole.
        channel: the channel, where it is one.
        steps: the steps, where they are known.
    """

    id: str
    severity: Severity
    message: str
    episodes: tuple[int, ...] = ()
    channel: str = ""
    steps: tuple[int, ...] = ()


@dataclass(slots=True)
class Findings:
    """All that the checks see.

    Args:
        spec: of the dataset.
        looks: one for each episode that could be read.
        driven: (D,) how strongly the actions move each observation channel, see `LagTracker`.
        lag_curves: see `LagTracker.finish`.
        partial: rows of interrupted recordings.
    """

    spec: Spec
    looks: list[Look]
    driven: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    lag_curves: Sequence[NDArray[np.float64]] = ()
    partial: list[Row] = field(default_factory=list)

    def channel(self, index: int) -> str:
        """The name of a channel, observations first, then actions."""
        size = len(self.spec.observations)
        kind, place = ("observation", index) if index < size else ("action", index - size)
        channel = self.spec.observations[index] if index < size else self.spec.actions[place]
        return f"{kind} channel {place}" + (f" ({channel.name})" if channel.name else "")

    def column(self, name: str) -> Floats:
        """One number of each channel of each episode, (episodes, channels)."""
        return np.stack([getattr(look, name) for look in self.looks])

    def period_s(self) -> float | None:
        """The control period of recordings that were paced; None where they ran free, or nobody measured.

        Where no rate is stated, a recording counts as paced that is regular (deviation below a tenth) and not faster
        than 200 Hz.
        """
        steps = np.concatenate([look.dt for look in self.looks]) if self.looks else np.zeros(0)
        if len(steps) < 10:
            return None
        usual = float(np.median(steps))
        if self.spec.control_hz:
            period = 1.0 / self.spec.control_hz
            return period if abs(usual - period) < 0.1 * period else None
        regular = float(np.median(np.abs(steps - usual))) < 0.1 * usual
        return usual if regular and usual >= 0.005 else None


_DISCRETE = 16  # a channel with so few values is a switch
_DRIVEN = 0.2
_MOST_NAMED = 100  # dead channels; a picture has thousands
_UNIT_FACTORS = (25.4, 57.3, 100.0, 1000.0)  # millimetres an inch, degrees a radian, centimetres, millimetres a metre
Check = Callable[[Findings], Iterator[Defect]]


def dead_channel(findings: Findings) -> Iterator[Defect]:
    """A channel with one value in all episodes, or one that moves too little beside its value to be learnt from."""
    low, high = findings.column("low").min(axis=0), findings.column("high").max(axis=0)
    width = high - low
    constant = np.flatnonzero(width == 0)
    for index in constant[:_MOST_NAMED]:
        name = findings.channel(int(index))
        yield Defect(
            "dead-channel",
            "warning",
            f"{name} is {low[index]:g} in every step of every episode: check its sensor or driver, or leave the "
            "channel out",
            channel=name,
        )
    if len(constant) > _MOST_NAMED:
        yield Defect(
            "dead-channel",
            "warning",
            f"{len(constant) - _MOST_NAMED} more channels, from {findings.channel(int(constant[_MOST_NAMED]))} on, "
            "have one value in every step of every episode: leave them out",
        )
    # A reading of a sensor at rest may move by its last bits, but not by a whole unit.
    for index in np.flatnonzero((width >= 1) & (width / 2 <= DEAD_RELATIVE * np.minimum(np.abs(low), np.abs(high)))):
        name = findings.channel(int(index))
        yield Defect(
            "dead-channel",
            "warning",
            f"{name} moves by {width[index]:g} around {low[index]:.0f}, so little beside its value that training "
            "takes it for constant: record it less an offset",
            channel=name,
        )


def frozen_sensor(findings: Findings) -> Iterator[Defect]:
    """A sensor, or all of them, without a change for long while the actions move."""
    frozen = findings.column("frozen")  # (episodes, D)
    size = frozen.shape[1]
    alive = findings.column("high")[:, :size].max(axis=0) > findings.column("low")[:, :size].min(axis=0)
    # A gripper that reports open or closed stands still by nature, and so does an object before it is touched: only
    # channels are judged that hardly ever stand still in the other episodes.
    alive &= np.median(findings.column("distinct")[:, :size], axis=0) > _DISCRETE
    judged = alive & (np.median(frozen, axis=0) <= 2) & (np.percentile(frozen, 75, axis=0) <= 4)
    hung = [look for look in findings.looks if look.all_frozen >= 5 and alive.any()]
    if 2 * len(hung) > len(findings.looks):
        yield _stands_still(findings, hung)
        hung = []
    ids = {look.row.id for look in hung}
    for look in findings.looks:
        if look.row.id in ids:
            yield Defect(
                "frozen-sensor",
                "error",
                f"{look.name}: no observation changes from step {look.all_frozen_at} on for {look.all_frozen} steps "
                "while the actions move: the driver hung; drop the episode",
                (look.row.id,),
            )
            continue
        if len(findings.looks) < 4:
            continue
        stuck = np.flatnonzero(judged & (look.frozen >= max(12, 0.1 * look.row.length)))
        if len(stuck):
            first = int(stuck[findings.driven[stuck].argmax()])
            # A channel that answers the actions is the robot's own; another may be an object that came to rest.
            own = findings.driven[first] > _DRIVEN
            yield Defect(
                "frozen-sensor",
                "error" if own else "warning",
                f"{look.name}: {_and_more(findings, stuck, first)} does not change from step {look.frozen_at[first]} "
                f"on for {look.frozen[first]} steps while the actions move: "
                + ("check the sensor and drop the episode" if own else "look whether it should have moved"),
                (look.row.id,),
                findings.channel(first),
            )


def _stands_still(findings: Findings, looks: list[Look]) -> Defect:
    """Most episodes stand still for a while: so may a world, at a wall."""
    worst = max(looks, key=lambda look: look.all_frozen)
    return Defect(
        "frozen-sensor",
        "warning",
        f"in {len(looks)} of {len(findings.looks)} episodes no observation changes for 5 steps or more while the "
        f"actions move, longest in {worst.name} from step {worst.all_frozen_at} on for {worst.all_frozen} steps: look "
        "whether the robot is at a stop there or the driver hangs",
        tuple(look.row.id for look in looks),
    )


def action_lag(findings: Findings) -> Iterator[Defect]:
    """An episode, or all of them, in which motion follows the actions at another distance than it should."""
    usual, outliers = lag_outliers(findings.lag_curves)
    if usual is None:
        return
    if usual < -1 or usual > 6:  # -1: an action that answers what was just seen
        yield Defect(
            "action-lag",
            "error",
            f"in all episodes motion follows the recorded actions by {usual} steps: actions and observations of one "
            "step were not taken together; align them before training",
        )
    for place, lag in outliers.items():
        look = findings.looks[place]
        yield Defect(
            "action-lag",
            "error",
            f"{look.name}: motion follows the actions by {usual + lag} steps, by {usual} in the others: its actions "
            "are shifted; drop the episode or shift them back",
            (look.row.id,),
        )


def clipped_actions(findings: Findings) -> Iterator[Defect]:
    """Actions that the world will not execute as recorded, or that sit at a limit."""
    outside, saturated = findings.column("outside"), findings.column("saturated")  # (episodes, A)
    lengths = np.array([look.row.length for look in findings.looks])
    size = len(findings.spec.observations)
    beyond = np.flatnonzero(outside.sum(axis=0))
    if len(beyond):
        look = findings.looks[int(outside.sum(axis=1).argmax())]
        largest = max(float(findings.column("largest")[:, size + int(index)].max()) for index in beyond)
        yield Defect(
            "clipped-actions",
            "warning",
            f"{_and_more(findings, beyond + size)}: {outside.sum()} recorded values lie beyond the limits (largest "
            f"{largest:.3g}, most in {look.name}): training clips them as targets; check the recorder's scaling",
            tuple(item.row.id for item in findings.looks if item.outside.any()),
        )
    varied = findings.column("distinct")[:, size:].max(axis=0) > 4  # a gripper that is open or closed is no clipping
    share = saturated.sum(axis=0) / lengths.sum()
    for index in np.flatnonzero(varied & (share > 0.5)):
        name = findings.channel(size + int(index))
        yield Defect(
            "clipped-actions",
            "warning",
            f"{name} is at its limit in {share[index]:.0%} of all steps: what was asked for beyond it is lost; widen "
            "the limits or scale the device",
            channel=name,
        )
    shares = saturated / lengths[:, None]
    others = _percentile_of_others(shares, 90) if len(shares) > 1 else shares
    for place, look in enumerate(findings.looks):
        # Of two values, one is the highest and one the lowest.
        odd = np.flatnonzero(varied & (shares[place] > 0.7) & (others[place] < 0.35) & (lengths[place] >= 10))
        if len(odd):
            yield Defect(
                "clipped-actions",
                "warning",
                f"{look.name}: {_and_more(findings, odd + size)} is at its limit in {shares[place][odd[0]]:.0%} of the "
                "steps, unlike in the other episodes: look at it, and drop it where the device was at its stop",
                (look.row.id,),
                findings.channel(size + int(odd[0])),
            )


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
    return bool(look.distinct.max() > min(_DISCRETE, max(8, look.row.length // 2)))


def time_gaps(findings: Findings) -> Iterator[Defect]:
    """Stalls of a paced recording: a step that took 1.5 periods or more."""
    period = findings.period_s()
    if period is None:
        return
    for look in findings.looks:
        gaps = np.flatnonzero(look.dt > 1.5 * period)
        if len(gaps):
            worst = int(look.dt.argmax())
            bad = len(gaps) > 0.05 * look.row.length or look.dt[worst] > 1.0
            yield Defect(
                "time-gaps",
                "error" if bad else "warning",
                f"{look.name}: {len(gaps)} steps took longer than 1.5 control periods ({1e3 * period:.0f} ms), at "
                f"steps {_numbers(gaps)}; the longest {1e3 * look.dt[worst]:.0f} ms: "
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
                f"{look.name}: time does not advance at steps {_numbers(back + 1)}: the recorder used a clock that can "
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


def jump(findings: Findings) -> Iterator[Defect]:
    """A channel that goes somewhere within one or two steps as it never does otherwise."""
    jumps = findings.column("jump")  # (episodes, D)
    size = jumps.shape[1]
    deviation = np.median(findings.column("deviation")[:, :size], axis=0)
    usual = np.median(jumps, axis=0)
    limit, smooth = np.zeros(size), np.ones(jumps.shape, bool)
    if len(findings.looks) >= 4:
        limit = 10 * usual
        # What is hit moves by leaps: only channels are judged that are smooth in the other episodes.
        smooth = _percentile_of_others(jumps / np.maximum(findings.column("fourth"), 1e-9), 90) < 4
    for place, look in enumerate(findings.looks):
        odd = smooth[place] & (look.jump > limit) & (look.jump > 8 * look.fourth) & (look.jump > 0.5 * deviation)
        odd &= (look.distinct[:size] > _DISCRETE) & (look.jump > 1e-6)
        if odd.any():
            index = int(np.argmax(np.where(odd, look.jump / np.maximum(usual, 1e-9), -1)))
            yield Defect(
                "jump",
                "warning",
                f"{look.name}: {_and_more(findings, np.flatnonzero(odd), index)} jumps by {look.jump[index]:.3g} at "
                f"step {look.jump_at[index]}, {look.jump[index] / max(usual[index], 1e-9):.0f} times its usual largest "
                "step: drop the episode; if the channel is an angle, unwrap it",
                (look.row.id,),
                findings.channel(index),
            )


def unit_mismatch(findings: Findings) -> Iterator[Defect]:
    """A channel whose size falls into two groups apart by about 57.3 (degrees a radian), 100 or 1,000 (mm a metre)."""
    if len(findings.looks) < 4:
        return
    sizes, changes = findings.column("largest"), findings.column("usual_change")
    found: dict[tuple[int, ...], list[_Apart]] = defaultdict(list)
    for index in range(sizes.shape[1]):
        apart = _two_sizes(index, sizes[:, index], changes[:, index])
        if apart is not None:
            found[apart.odd].append(apart)
    for odd, many in found.items():
        if len(many) == 1 and not many[0].clear:
            continue
        channels = np.array([apart.channel for apart in many])
        factor = float(np.median([apart.factor for apart in many]))
        # An object that nobody touched moves a hundred times less, too, and so does a joint that a start asks nothing
        # of: only a warning.
        untouched = not many[0].larger and (len(many) == 1 or channels[0] < len(findings.spec.observations))
        names = ", ".join(findings.looks[place].name for place in odd[:3]) + (" and more" if len(odd) > 3 else "")
        yield Defect(
            "unit-mismatch",
            "error" if _is_unit(factor) and not untouched else "warning",
            f"{names}: {_and_more(findings, channels)} is about {factor:.0f} times off against the "
            "other episodes, as with degrees for radians or millimetres for metres: convert or drop",
            tuple(findings.looks[place].row.id for place in odd),
            findings.channel(int(channels[0])),
        )


@dataclass(frozen=True, slots=True)
class _Apart:
    """A channel whose size falls into two groups.

    Args:
        channel: its number.
        odd: places of the episodes in the smaller group.
        factor: how many times the groups are apart, in their sizes and in their changes.
        larger: whether the values of the odd ones are the larger.
        clear: whether one channel is enough to say so.
    """

    channel: int
    odd: tuple[int, ...]
    factor: float
    larger: bool
    clear: bool


def _two_sizes(channel: int, largest: Floats, changes: Floats) -> _Apart | None:
    """The two groups of episodes by the largest value of a channel; None where there are not two."""
    order = np.argsort(largest)
    order = order[largest[order] > 0]  # 0 is 0 in every unit
    if len(order) < 4 or 2 * len(order) < len(largest):
        return None
    sizes = largest[order]
    cut = int((sizes[1:] / sizes[:-1]).argmax()) + 1
    small, big = order[:cut], order[cut:]
    gap = sizes[cut] / sizes[cut - 1]
    spread = max(sizes[cut - 1] / sizes[0], sizes[-1] / sizes[cut])
    factor = float(np.median(sizes[cut:]) / np.median(sizes[:cut]))
    # A unit scales every change, too. A sensor of force that touches in some episodes is as quiet there as ever before.
    slow, fast = float(np.median(changes[small])), float(np.median(changes[big]))
    if gap <= 4 or not factor * slow / 4 <= fast <= factor * slow * 4:
        return None
    if slow > 0:
        factor = float(np.sqrt(factor * fast / slow))
    fewer = small if len(small) < len(big) else big
    if not (19 < factor < 3000 and spread < 12 if fewer is big else _is_unit(factor) and spread < 4):
        return None
    odd = tuple(sorted(int(place) for place in fewer))
    return _Apart(channel, odd, factor, fewer is big, bool(gap > 10 and spread < 4 and slow > 0))


def _is_unit(factor: float) -> bool:
    return any(0.5 < factor / unit < 2 for unit in _UNIT_FACTORS)


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
            f"{len(ids)} interrupted recordings (episode {_numbers(np.array(ids))}) are left out of training: drop "
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


def _percentile_of_others(columns: Floats, percent: float) -> Floats:
    """For each row and column (N, C), the percentile of that column in the N - 1 other rows."""
    order = np.argsort(columns, axis=0)
    ranks = np.argsort(order, axis=0)
    ordered = np.take_along_axis(columns, order, axis=0)
    place = percent / 100 * (len(columns) - 2)
    below = int(place)
    above = min(below + 1, len(columns) - 2)
    least, most = (np.where(number < ranks, ordered[number], ordered[number + 1]) for number in (below, above))
    return np.asarray(least + (most - least) * (place - below))


def _and_more(findings: Findings, channels: NDArray[np.int64], first: int | None = None) -> str:
    """The name of the first channel, and how many others there are."""
    name = findings.channel(int(channels[0]) if first is None else first)
    return name if len(channels) == 1 else f"{name} and {len(channels) - 1} more"


def _numbers(values: NDArray[np.int64]) -> str:
    shown = ", ".join(str(int(value)) for value in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")


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
