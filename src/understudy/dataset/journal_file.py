r"""The bytes of a journal: a head, then one record for each step, each with its own checksum.

    head      b"UNDERSTUDY JOURNAL 1\n", then records
    record    length (u32), crc32 of the content (u32), content
    content   b"H" + archive of what is known at the start; b"S" + one step; b"E" at the end of the episode

Reading stops at the first record that is torn or damaged; what stands before it is whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.archive import LARGEST_EPISODE, pack, unpack
from understudy.dataset.episode_file import most_steps, require_finite
from understudy.episode import Episode
from understudy.errors import DataError
from understudy.rollout import Step
from understudy.spec import Spec

JOURNAL = "recording.journal"
# What fits into the file of an episode takes less than this in a journal, where each step has a checksum.
LARGEST_JOURNAL = 2 * LARGEST_EPISODE
MAGIC = b"UNDERSTUDY JOURNAL 1\n"
_FRAME = struct.Struct("<LL")


@dataclass(frozen=True, slots=True)
class Recording:
    """What a journal holds.

    Args:
        episode: the steps, marked partial; None where not one step was recorded.
        next_id: the id that the episode would have got; smaller than the dataset's where it was saved after all.
        finished: whether the episode came to its end.
        left_out: why the last steps are not in `episode`, in words; empty where they are.
    """

    episode: Episode | None
    next_id: int
    finished: bool
    left_out: str = ""


def step_type(observation_size: int, action_size: int) -> np.dtype[Any]:
    """The record of one step."""
    return np.dtype(
        [
            ("time_s", "<f8"),
            ("reward", "<f4"),
            ("driver", "i1"),
            ("labelled", "?"),
            ("succeeded", "?"),
            ("actions", "<f4", (action_size,)),
            ("asked_actions", "<f4", (action_size,)),
            ("labels", "<f4", (action_size,)),
            ("next_observation", "<f4", (observation_size,)),
        ]
    )


def head_record(
    observation: NDArray[np.float32], next_id: int, seed: int, initial_state: dict[str, NDArray[Any]]
) -> bytes:
    """The first record, with the first observation (D,)."""
    arrays: dict[str, NDArray[Any]] = {
        "observation": np.asarray(observation, np.float32),
        "next_id": np.array(next_id),
        "seed": np.array(seed),
    }
    arrays |= {f"init_{name}": np.asarray(value) for name, value in initial_state.items()}
    return frame(b"H" + pack(arrays))


def step_record(step: Step, layout: np.dtype[Any]) -> bytes:
    """The record of one step."""
    record = np.zeros((), layout)
    label = step.command.label
    record["time_s"] = step.time_s
    record["reward"] = step.reward
    record["driver"] = step.command.driver
    record["labelled"] = label is not None
    record["succeeded"] = step.succeeded
    record["actions"] = step.executed
    record["asked_actions"] = step.command.action
    if label is not None:
        record["labels"] = label
    record["next_observation"] = step.next_observation
    return frame(b"S" + record.tobytes())


def frame(content: bytes) -> bytes:
    """A record: length, checksum, content."""
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


def read_journal(data: bytes, spec: Spec) -> Recording:
    """The recording that a journal holds, as far as it is whole.

    Raises:
        DataError: it is no journal, or one of other channels.
    """
    if len(data) <= len(MAGIC) and MAGIC.startswith(data):  # killed before the very first record
        return Recording(None, 0, False)
    if not data.startswith(MAGIC):
        raise DataError("it is no journal of this version")
    records = _records(memoryview(data), len(MAGIC))
    head_record = bytes(next(records, b""))
    if not head_record.startswith(b"H"):
        raise DataError("its head is damaged")
    head = unpack(head_record[1:], what="its head")
    first = head.get("observation", np.zeros(0))
    if first.shape != (len(spec.observations),):
        raise DataError(f"it is of {first.size} observation channels; the dataset has {len(spec.observations)}")
    numbers = {name: int(head[name]) if name in head and head[name].shape == () else -1 for name in ("next_id", "seed")}
    initial_state = {name.removeprefix("init_"): head[name] for name in head if name.startswith("init_")}
    most = most_steps(len(spec.observations), len(spec.actions), initial_state)
    steps, finished, more = _steps(records, step_type(len(spec.observations), len(spec.actions)), most)
    left_out = f"one episode holds at most {most} of its steps" if more else ""
    finite = _finite(steps)
    if finite < len(steps):
        left_out = f"its step {finite + 1} holds a number that is not finite"
    steps = steps[:finite]
    if not len(steps):
        return Recording(None, numbers["next_id"], finished, left_out)
    episode = Episode(
        observations=np.concatenate([first[None], steps["next_observation"]]),
        actions=steps["actions"],
        asked_actions=steps["asked_actions"],
        labels=steps["labels"],
        labelled=steps["labelled"],
        driver=steps["driver"],
        rewards=steps["reward"],
        succeeded=steps["succeeded"],
        time_s=steps["time_s"],
        truncated=True,
        partial=True,
        seed=numbers["seed"],
        initial_state=initial_state,
    )
    require_finite(episode, what="its recording")
    return Recording(episode, numbers["next_id"], finished, left_out)


def _steps(records: Iterator[memoryview], layout: np.dtype[Any], most: int) -> tuple[NDArray[Any], bool, bool]:
    """At most `most` steps, whether the episode came to its end with them, and whether there are more of them."""
    content, finished = bytearray(), False
    for record in records:
        kind = bytes(record[:1])
        finished = kind == b"E" and len(record) == 1
        if kind == b"S" and len(record) == 1 + layout.itemsize:
            if len(content) == most * layout.itemsize:
                return np.frombuffer(content, layout), False, True
            content += record[1:]
    return np.frombuffer(content, layout), finished, False


def _finite(steps: NDArray[Any]) -> int:
    """How many steps come before the first one with a number that is not finite; times may all be unknown."""
    whole = np.ones(len(steps), bool)
    timed = not np.isnan(steps["time_s"]).all()
    for name in ("reward", "actions", "asked_actions", "labels", "next_observation", *(["time_s"] if timed else [])):
        column = np.isfinite(steps[name])
        finite = column.all(axis=tuple(range(1, column.ndim)))
        whole &= finite | ~steps["labelled"] if name == "labels" else finite
    return len(steps) if whole.all() else int(np.argmin(whole))


def _records(data: memoryview, offset: int) -> Iterator[memoryview]:
    while offset + _FRAME.size < len(data):
        size, crc = _FRAME.unpack_from(data, offset)
        content = data[offset + _FRAME.size : offset + _FRAME.size + size]
        if not size or len(content) != size or zlib.crc32(content) != crc:
            return
        yield content
        offset += _FRAME.size + size
