"""What a guard and whoever drives say to each other: what is asked, and what the guard has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.robots.protocol import Reading
from understudy.robots.safety import Kind
from understudy.robots.wire import Message

LONGEST_REASON = 1000  # characters
ALIVE = 0  # id of a message that answers nothing: the guard lives, and waits for the driver
_KINDS = tuple(Kind)
_NO_READING, _JUDGES, _SUCCEEDED, _HAS_HOME, _BRAKES = 1, 2, 4, 8, 64


def one_line(text: str, longest: int = LONGEST_REASON) -> str:
    """What a driver or a person says, as a message can carry it: printable, on one line, and not too long."""
    printable = "".join(
        sign if sign.isprintable() else " " for sign in text[: 2 * longest].encode(errors="replace").decode()
    )
    return " ".join(printable.split())[:longest]


class Ask(IntEnum):
    """Messages from the policy's process to the guard."""

    BEGIN = 1
    OBSERVE = 2
    COMMAND = 3
    REST = 4
    RESET = 5
    CLOSE = 6


class Status(IntEnum):
    """What the guard is doing."""

    IDLE = 0
    RUNNING = 1
    LOST = 2
    STOPPED = 3


@dataclass(slots=True)
class Seen:
    """What the guard answers to whoever drives.

    Args:
        status: what it is doing.
        reading: the last good measurement; None before the first one since the episode began.
        executed: (A,) what was last sent to the robot.
        counts: interventions by kind, since the guard began.
        oldest_s: age of the oldest observation that a command was sent for, since the episode began.
        reason: in words, why the robot is stopped or lost.
        home: (A,) where the axes should be when the episode begins, in the answer to `begin`.
        keys: pressed at the terminal since the last answer, but for the stop key.
        brakes: it was told to stop and is not seen at rest yet, so a command would not be sent.
    """

    status: Status
    reading: Reading | None
    executed: NDArray[np.float64]
    counts: dict[Kind, int] = field(default_factory=dict)
    oldest_s: float = 0.0
    reason: str = ""
    home: NDArray[np.float64] | None = None
    keys: str = ""
    brakes: bool = False


def pack_seen(seen: Seen, id: int) -> bytes:
    """The answer of a guard as bytes."""
    flags = seen.status << 4 | _BRAKES * seen.brakes
    time_s = 0.0
    parts: list[NDArray[Any]] = []
    if seen.reading is None:
        flags |= _NO_READING
    else:
        reading = seen.reading
        time_s = reading.time_s
        if reading.succeeded is not None:
            flags |= _JUDGES | _SUCCEEDED * reading.succeeded
        parts += [reading.observation, reading.position]
    parts += [seen.executed, np.array([seen.counts.get(kind, 0) for kind in _KINDS])]
    if seen.home is not None:
        flags |= _HAS_HOME
        parts.append(seen.home)
    text = f"{seen.reason}\0{seen.keys}"
    return Message(0, flags, id, time_s, seen.oldest_s, np.concatenate(parts, dtype=np.float64), text).pack()


def unpack_seen(message: Message, channels: int, axes: int) -> Seen:
    """The answer that `pack_seen` packed."""
    reading, start = None, 0
    if not message.flags & _NO_READING:
        succeeded = bool(message.flags & _SUCCEEDED) if message.flags & _JUDGES else None
        observation = message.values[:channels].astype(np.float32)
        start = channels + axes
        reading = Reading(observation, message.values[channels:start], message.time_s, succeeded)
    executed = message.values[start : start + axes]
    start += axes
    counted = message.values[start : start + len(_KINDS)]
    counts = {kind: int(count) for kind, count in zip(_KINDS, counted, strict=True) if count}
    home = message.values[start + len(_KINDS) :] if message.flags & _HAS_HOME else None
    reason, _, keys = message.text.partition("\0")
    status, brakes = Status(message.flags >> 4 & 3), bool(message.flags & _BRAKES)
    return Seen(status, reading, executed, counts, message.extra, reason, home, keys, brakes)
