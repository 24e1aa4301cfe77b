"""What the doctor keeps of one episode: a few numbers for each channel, whatever the length."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.dataset.index import Row
from understudy.episode import Episode
from understudy.spec import Spec

Floats = NDArray[np.float64]
PATH_POINTS = 25
_SAMPLE_EVERY, _MOST_SAMPLES = 10, 40
_PREFIX = 16
_IDLE = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """One episode as the doctor sees it. Channels: the D observation channels, then the A action channels.

    Args:
        row: its row.
        name: what a message calls it.
        low, high, deviation: (D + A,) of each channel.
        largest: (D + A,) largest absolute value.
        distinct: (D + A,) number of different values.
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
        prefixes: checksums of the first 16, 32, ... steps.
        start: (D,) first observation.
        path: (25, D) observations at equal shares of the episode.
        samples: (N, D + A) every tenth observation, and the target there.
    """

    row: Row
    name: str
    low: Floats
    high: Floats
    deviation: Floats
    largest: Floats
    distinct: NDArray[np.int64]
    jump: Floats
    jump_at: NDArray[np.int64]
    fourth: Floats
    frozen: NDArray[np.int64]
    frozen_at: NDArray[np.int64]
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
    prefixes: tuple[bytes, ...]
    start: Floats
    path: Floats
    samples: Floats


def look_at(row: Row, episode: Episode, spec: Spec) -> Look:
    """The summary of one episode."""
    observations = episode.observations.astype(np.float64)  # (T + 1, D)
    actions = episode.actions.astype(np.float64)  # (T, A)
    changes = np.abs(np.diff(observations, axis=0))  # (T, D)
    moving = _moving(actions)
    still = (changes == 0) & moving[:, None]
    runs = [longest_run(column) for column in still.T]
    all_frozen, all_frozen_at = longest_run(still.all(axis=1))
    ordered = np.sort(changes, axis=0)
    idle = _idle(changes, actions)
    columns = [*observations.T, *actions.T]
    outside, saturated = _at_limits(episode.actions, spec)
    off = np.abs(episode.labels - episode.asked_actions)
    mislabelled = (off > 1e-3 + 0.05 * np.ptp(actions, axis=0)).any(axis=1)
    return Look(
        row=row,
        name=f"episode {row.id} ({row.file})",
        low=np.array([column.min() for column in columns]),
        high=np.array([column.max() for column in columns]),
        deviation=np.array([column.std() for column in columns]),
        largest=np.array([np.abs(column).max() for column in columns]),
        distinct=np.array([len(np.unique(column)) for column in columns]),
        jump=changes.max(axis=0),
        jump_at=changes.argmax(axis=0),
        fourth=ordered[max(0, len(ordered) - 4)],
        frozen=np.array([length for length, _ in runs]),
        frozen_at=np.array([start for _, start in runs]),
        all_frozen=all_frozen,
        all_frozen_at=all_frozen_at,
        dt=np.zeros(0) if np.isnan(episode.time_s).all() else np.diff(episode.time_s),
        outside=outside,
        saturated=saturated,
        idle_start=_leading(idle),
        idle_end=_waiting(_leading(idle[::-1]), episode.succeeded),
        repeated_end=len(changes) > 2 and not changes[-1].any() and bool(changes[-2].any()),
        rewarded=bool(episode.rewards.any()),
        expert_steps=int((episode.driver == Driver.EXPERT).sum()),
        labels=int(episode.labelled.sum()),
        mislabelled=int((mislabelled & episode.labelled & (episode.driver == Driver.EXPERT)).sum()),
        prefixes=_prefixes(episode),
        start=observations[0],
        path=observations[np.linspace(0, len(observations) - 1, PATH_POINTS).round().astype(int)],
        samples=_samples(episode),
    )


def longest_run(flags: NDArray[Any]) -> tuple[int, int]:
    """Length and start of the longest stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(ends[longest] - starts[longest]), int(starts[longest])


def _moving(actions: Floats) -> NDArray[np.bool_]:
    """Steps (T,) around which the actions change by more than a hundredth of their usual deviation."""
    scale = actions.std(axis=0)
    live = scale > 0
    if not live.any() or len(actions) < 2:
        return np.zeros(len(actions), bool)
    change = (np.abs(np.diff(actions[:, live], axis=0)) > 0.01 * scale[live]).any(axis=1)
    return np.asarray(np.concatenate([change[:1], change]) | np.concatenate([change, change[-1:]]))


def _idle(changes: Floats, actions: Floats) -> NDArray[np.bool_]:
    """Steps (T,) in which nothing moves: neither what is seen nor what is asked for.

    Motion is the root mean square of all changes, each in units of its channel's fast steps (90th percentile),
    averaged over five steps so that the noise of a sensor does not end a rest.
    """
    steps = np.concatenate([changes, np.abs(np.diff(actions, axis=0, prepend=actions[:1]))], axis=1)
    scale = np.maximum(np.percentile(steps, 90, axis=0), 0.05 * steps.max(axis=0))  # a switch moves once
    live = scale > 0
    if not live.any():
        return np.zeros(len(changes), bool)
    motion = ((steps[:, live] / scale[live]) ** 2).mean(axis=1)
    padded = np.pad(motion, 2, mode="edge")
    smooth = np.convolve(padded, np.full(5, 0.2), mode="valid")
    return np.asarray(smooth < _IDLE**2)


def _leading(flags: NDArray[np.bool_]) -> int:
    return len(flags) if flags.all() else int(np.argmin(flags))


def _waiting(idle: int, succeeded: NDArray[np.bool_]) -> int:
    """Of so many idle steps at the end, those before the first success was reported."""
    first = int(succeeded.argmax()) if succeeded.any() else len(succeeded)
    return min(idle, max(0, first - (len(succeeded) - idle)))


def _at_limits(actions: NDArray[np.float32], spec: Spec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low, high = spec.action_low, spec.action_high
    tolerance = 1e-5 + 1e-3 * np.where(np.isfinite(high - low), high - low, 0.0)
    outside = np.asarray((actions < low - tolerance) | (actions > high + tolerance))
    # Without limits, a value that comes back exactly as the highest (lowest) of all was clipped by somebody.
    at_high = np.where(np.isfinite(high), actions >= high - tolerance, actions == actions.max(axis=0))
    at_low = np.where(np.isfinite(low), actions <= low + tolerance, actions == actions.min(axis=0))
    return np.asarray(outside.sum(axis=0)), np.asarray((at_high | at_low).sum(axis=0))


def _prefixes(episode: Episode) -> tuple[bytes, ...]:
    digest = hashlib.sha256()
    found = []
    for end in range(_PREFIX, len(episode) + 1, _PREFIX):
        digest.update(np.ascontiguousarray(episode.observations[end - _PREFIX : end]).tobytes())
        digest.update(np.ascontiguousarray(episode.actions[end - _PREFIX : end]).tobytes())
        found.append(digest.digest()[:8])
    return tuple(found)


def _samples(episode: Episode) -> Floats:
    targets, usable = episode.targets()
    chosen = np.flatnonzero(usable[::_SAMPLE_EVERY])[:_MOST_SAMPLES] * _SAMPLE_EVERY
    return np.concatenate([episode.observations[chosen], targets[chosen]], axis=1).astype(np.float64)
