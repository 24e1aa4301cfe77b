"""What the doctor keeps of one episode: a few numbers for each channel, whatever the length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.dataset.index import Row
from understudy.episode import Episode
from understudy.spec import Spec

Floats = NDArray[np.float64]
Column = NDArray[np.float32]
WIDEST = 512  # channels, of each kind, in which episodes are compared with each other
PATH_POINTS = 25
_SAMPLE_EVERY, _MOST_SAMPLES = 10, 40
_IDLE = 0.1
_MOST_STEPS = 2**18
_BLOCK = 2**19  # numbers that are worked on at once


@dataclass(frozen=True, slots=True)
class Look:
    """One episode as the doctor sees it. Channels: the D observation channels, then the A action channels.

    Args:
        row: its row.
        name: what a message calls it.
        low, high, deviation: (D + A,) of each channel.
        distinct: (D + A,) number of different values.
        usual_change: (D + A,) median change in one step.
        jump, jump_at, fourth: (D,) largest change in one step, its step, and the fourth largest change.
        frozen, frozen_at: (D,) longest stretch, in steps, without any change while the actions moved; its start.
        all_frozen, all_frozen_at: the same for all channels at once.
        dt: (T - 1,) measured seconds between observations; empty where nobody measured.
        outside: (A,) steps with an action beyond the limits.
        saturated: (A,) steps at a limit, or, where there is none, at the channel's own extremes.
        idle_start, idle_end: steps without motion at the ends; waiting after success is none of them.
        repeated_end: whether the last observation is a copy of the one before, in an episode that moves.
        rewarded: whether a reward is not zero.
        expert_steps, labels, mislabelled: steps that the expert drove; with a label; with a label other than what
            the expert, driving, asked for.
        prefixes: (T,) checksum of the observations and actions of the first 1, 2, ... steps.
        path: (25, D) observations at equal shares of the episode; of at most WIDEST channels.
        samples: (N, D + A) every tenth observation, and the target there; of at most WIDEST channels of each.

    Of an episode of more than 2^18 steps, only the first are looked at for changes and deviations.
    """

    row: Row
    name: str
    low: Floats
    high: Floats
    deviation: Floats
    distinct: NDArray[np.int32]
    usual_change: Floats
    jump: Floats
    jump_at: NDArray[np.int32]
    fourth: Floats
    frozen: NDArray[np.int32]
    frozen_at: NDArray[np.int32]
    all_frozen: int
    all_frozen_at: int
    dt: Floats
    outside: NDArray[np.int64]
    saturated: NDArray[np.int64]
    idle_start: int
    idle_end: int
    repeated_end: bool
    rewarded: bool
    expert_steps: int
    labels: int
    mislabelled: int
    prefixes: NDArray[np.uint64]
    path: Column
    samples: Column

    @property
    def largest(self) -> Floats:
        """(D + A,) largest absolute value."""
        return np.maximum(-self.low, self.high)


def look_at(row: Row, episode: Episode, spec: Spec) -> Look:
    """The summary of one episode."""
    observations, actions = episode.observations[: _MOST_STEPS + 1], episode.actions[:_MOST_STEPS]
    moving = _moving(actions)
    frozen, all_still = _frozen(observations, moving)
    all_frozen, all_frozen_at = longest_run(all_still)
    seen, asked = _measured(observations, len(actions)), _measured(actions, len(actions))
    deviation, distinct, usual_change, _, _, _, _ = np.concatenate([seen, asked], axis=1)
    _, _, _, _, jump, jump_at, fourth = seen
    idle = _idle(observations, actions, seen, asked)
    idle_end = _waiting(_leading(idle[::-1]), episode.succeeded) if len(idle) == len(episode) else 0
    outside, saturated = _at_limits(episode.actions, spec)
    return Look(
        row=row,
        name=f"episode {row.id} ({row.file})",
        low=np.concatenate([episode.observations.min(axis=0), episode.actions.min(axis=0)]).astype(np.float64),
        high=np.concatenate([episode.observations.max(axis=0), episode.actions.max(axis=0)]).astype(np.float64),
        deviation=deviation,
        distinct=distinct.astype(np.int32),
        usual_change=usual_change,
        jump=jump,
        jump_at=jump_at.astype(np.int32),
        fourth=fourth,
        frozen=frozen[0],
        frozen_at=frozen[1],
        all_frozen=all_frozen,
        all_frozen_at=all_frozen_at,
        dt=np.zeros(0) if np.isnan(episode.time_s).all() else np.diff(episode.time_s),
        outside=outside,
        saturated=saturated,
        idle_start=_leading(idle),
        idle_end=idle_end,
        repeated_end=_repeated_end(episode.observations),
        rewarded=bool(episode.rewards.any()),
        expert_steps=int((episode.driver == Driver.EXPERT).sum()),
        labels=int(episode.labelled.sum()),
        mislabelled=_mislabelled(episode),
        prefixes=_prefixes(episode),
        path=_few(observations[np.linspace(0, len(observations) - 1, PATH_POINTS).round().astype(int)]),
        samples=_samples(episode),
    )


def longest_run(flags: NDArray[Any]) -> tuple[int, int]:
    """Length and start of the longest stretch of true values."""
    lengths, starts = _longest_runs(flags[None])
    return int(lengths[0]), int(starts[0])


def _longest_runs(flags: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Length and start of the longest stretch of true values in each row."""
    places = np.arange(1, flags.shape[1] + 1, dtype=np.int32)
    runs = places - np.maximum.accumulate(np.where(flags, np.int32(0), places), axis=1)
    lengths = runs.max(axis=1)
    starts = np.where(lengths > 0, runs.argmax(axis=1) + 1 - lengths, 0)
    return lengths, starts.astype(np.int32)


def _blocks(columns: Column) -> Iterator[Floats]:
    """A few channels at a time, (channels, T), so that the memory needed does not grow with the episode."""
    few = max(1, _BLOCK // len(columns))
    for first in range(0, columns.shape[1], few):
        yield np.ascontiguousarray(columns[:, first : first + few].T, np.float64)


def _changes(block: Floats, steps: int) -> Floats:
    """(channels, steps) absolute changes; 0 before the first action."""
    if block.shape[1] > steps:
        return np.abs(np.diff(block, axis=1))
    return np.abs(np.diff(block, axis=1, prepend=block[:, :1]))


def _measured(columns: Column, steps: int) -> Floats:
    """Seven numbers of each channel, (7, channels).

    They are the deviation, the number of values, the median and the 90th percentile of its changes, the largest change,
    the step of that one, and the fourth largest.
    """
    return np.concatenate([_measured_block(block, steps) for block in _blocks(columns)], axis=1)


def _measured_block(block: Floats, steps: int) -> Floats:
    changes = _changes(block, steps)
    usual, fast = np.percentile(changes, [50, 90], axis=1)
    fourth = max(0, steps - 4)
    ordered = np.sort(block, axis=1)
    return np.stack(
        [
            block.std(axis=1),
            1.0 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1),
            usual,
            fast,
            changes.max(axis=1),
            changes.argmax(axis=1),
            np.partition(changes, fourth, axis=1)[:, fourth],
        ]
    )


def _frozen(
    observations: Column, moving: NDArray[np.bool_]
) -> tuple[tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_]]:
    """Each channel's longest stretch without a change while the actions move; and (T,) where all stand still so."""
    runs, all_still = [], moving
    for block in _blocks(observations):
        still = (np.diff(block, axis=1) == 0) & moving
        all_still = all_still & still.all(axis=0)
        runs.append(_longest_runs(still))
    lengths, starts = zip(*runs, strict=True)
    return (np.concatenate(lengths), np.concatenate(starts)), all_still


def _moving(actions: Column) -> NDArray[np.bool_]:
    """Steps (T,) around which the actions change by more than a hundredth of their usual deviation."""
    change = np.zeros(max(0, len(actions) - 1), bool)
    for block in _blocks(actions):
        change |= (np.abs(np.diff(block, axis=1)) > 0.01 * block.std(axis=1, keepdims=True)).any(axis=0)
    return (
        np.asarray(np.append(change[:1], change) | np.append(change, change[-1:])) if len(change) else np.zeros(1, bool)
    )


def _idle(observations: Column, actions: Column, seen: Floats, asked: Floats) -> NDArray[np.bool_]:
    """Steps (T,) in which nothing moves: neither what is seen nor what is asked for.

    Motion is the root mean square of all changes, each in units of its channel's fast steps (90th percentile),
    averaged over five steps so that the noise of a sensor does not end a rest.

    Args:
        observations: what was seen.
        actions: what was asked for.
        seen: what `_measured` says of the observations.
        asked: what it says of the actions.
    """
    squares, live = np.zeros(len(actions)), 0
    for columns, measured in ((observations, seen), (actions, asked)):
        scales = np.maximum(measured[3], 0.05 * measured[4])  # a switch moves once
        first = 0
        for block in _blocks(columns):
            scale = scales[first : first + len(block)]
            first += len(block)
            moves = scale > 0
            squares += ((_changes(block[moves], len(actions)) / scale[moves, None]) ** 2).sum(axis=0)
        live += int((scales > 0).sum())
    if not live:
        return np.zeros(len(actions), bool)
    padded = np.pad(squares / live, 2, mode="edge")
    smooth = np.convolve(padded, np.full(5, 0.2), mode="valid")
    return np.asarray(smooth < _IDLE**2)


def _repeated_end(observations: Column) -> bool:
    if len(observations) < 4:
        return False
    return bool((observations[-1] == observations[-2]).all() and (observations[-2] != observations[-3]).any())


def _mislabelled(episode: Episode) -> int:
    """Labelled steps in which the expert drove and did something else."""
    usual = np.ptp(episode.actions, axis=0).astype(np.float64)
    off = np.abs(episode.labels - episode.asked_actions) > 1e-3 + 0.05 * usual
    return int((off.any(axis=1) & episode.labelled & (episode.driver == Driver.EXPERT)).sum())


def _leading(flags: NDArray[np.bool_]) -> int:
    return len(flags) if flags.all() else int(np.argmin(flags))


def _waiting(idle: int, succeeded: NDArray[np.bool_]) -> int:
    """Of so many idle steps at the end, those before the first success was reported."""
    first = int(succeeded.argmax()) if succeeded.any() else len(succeeded)
    return min(idle, max(0, first - (len(succeeded) - idle)))


def _at_limits(actions: Column, spec: Spec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    with np.errstate(over="ignore"):  # limits too far apart for float32, or beyond it, are none
        low, high = spec.action_low, spec.action_high
        width = high - low
    tolerance = 1e-5 + 1e-3 * np.where(np.isfinite(width), width, 0.0)
    outside = np.asarray((actions < low - tolerance) | (actions > high + tolerance))
    # Without limits, a value that comes back exactly as the highest (lowest) of all was clipped by somebody.
    at_high = np.where(np.isfinite(high), actions >= high - tolerance, actions == actions.max(axis=0))
    at_low = np.where(np.isfinite(low), actions <= low + tolerance, actions == actions.min(axis=0))
    return np.asarray(outside.sum(axis=0)), np.asarray((at_high | at_low).sum(axis=0))


def _prefixes(episode: Episode) -> NDArray[np.uint64]:
    """Multilinear hashes: each step's words weighed with random numbers, and the steps added up likewise."""
    observations = episode.observations[:-1]
    weights = np.random.PCG64(0)
    steps = np.zeros(len(episode), np.uint64)
    for columns in (observations, episode.actions):
        few = max(1, _BLOCK // len(columns))
        for first in range(0, columns.shape[1], few):
            words = np.ascontiguousarray(columns[:, first : first + few]).view(np.uint32).astype(np.uint64)
            steps += words @ weights.random_raw(words.shape[1])
    return np.cumsum(steps * np.random.PCG64(1).random_raw(len(steps)), dtype=np.uint64)


def _few(columns: Column) -> Column:
    """All channels, or WIDEST of them at equal distances."""
    size = columns.shape[1]
    return columns if size <= WIDEST else columns[:, np.linspace(0, size - 1, WIDEST).round().astype(int)]


def _samples(episode: Episode) -> Column:
    targets, usable = episode.targets()
    chosen = np.flatnonzero(usable[::_SAMPLE_EVERY])[:_MOST_SAMPLES] * _SAMPLE_EVERY
    return np.concatenate([_few(episode.observations[chosen]), _few(targets[chosen])], axis=1)
