"""Defects of channels: sensors, actions, their units and their delays; one function each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.findings import DISCRETE, Defect, Findings
from understudy.dataset.lag import lag_outliers
from understudy.dataset.look import Floats, Look
from understudy.statistics import DEAD_RELATIVE

_DRIVEN = 0.2
_MOST_NAMED = 100  # dead channels; a picture has thousands
_UNIT_FACTORS = (25.4, 57.3, 100.0, 1000.0)  # millimetres an inch, degrees a radian, centimetres, millimetres a metre


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
    alive &= np.median(findings.column("distinct")[:, :size], axis=0) > DISCRETE
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
        odd &= (look.distinct[:size] > DISCRETE) & (look.jump > 1e-6)
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
