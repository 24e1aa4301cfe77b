"""An Episode as the bytes of one file, and back; the checksum of what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.dataset.archive import LARGEST_EPISODE, MOST_NUMBERS, pack, unpack
from understudy.episode import COLUMNS, FAILURE, SUCCESS, UNKNOWN, Episode
from understudy.errors import CorruptEpisode, DataError
from understudy.spec import MOST_CHANNELS

_FLAGS = ("terminated", "truncated", "partial")
_INITIAL = "init_"
_SCALARS = (*_FLAGS, "success", "seed")
_STEP_NUMBERS, _STEP_BYTES = 5, 15  # of a step beside its channels: labelled, driver, reward, succeeded, time_s
_HEADERS = 64 * 1024  # bytes, more than those of all arrays of an archive together


class NotFinite(DataError):
    """An episode holds a number that is not finite."""


def to_arrays(episode: Episode) -> dict[str, NDArray[Any]]:
    """The arrays that are stored for an episode: T rows of observations, and the last one apart."""
    arrays: dict[str, NDArray[Any]] = {
        "observations": episode.observations[:-1],  # (T, D)
        "actions": episode.actions,
        "final_observation": episode.observations[-1],  # (D,)
    }
    arrays |= {name: getattr(episode, name) for name in COLUMNS if name not in ("observations", "actions")}
    arrays |= {name: np.array(getattr(episode, name), np.bool_) for name in _FLAGS}
    arrays |= {"success": np.array(episode.success, np.int8), "seed": np.array(episode.seed, np.int64)}
    arrays |= {_INITIAL + name: np.asarray(value) for name, value in sorted(episode.initial_state.items())}
    return arrays


def encode(episode: Episode) -> bytes:
    """The file of an episode; the same episode gives the same bytes.

    Raises:
        DataError: it is too large, or its initial state is not made of named numeric arrays.
    """
    return pack(to_arrays(episode))


def most_steps(observation_size: int, action_size: int, initial_state: Mapping[str, NDArray[Any]]) -> int:
    """How many steps one file holds, of episodes of these sizes that begin in such a state."""
    channels = observation_size + 3 * action_size  # actions, asked actions and labels
    beside = initial_state.values()
    free_bytes = LARGEST_EPISODE - _HEADERS - 4 * observation_size - sum(array.nbytes for array in beside)
    free_numbers = MOST_NUMBERS - len(_SCALARS) - observation_size - sum(array.size for array in beside)
    return max(0, min(free_bytes // (4 * channels + _STEP_BYTES), free_numbers // (channels + _STEP_NUMBERS)))


def decode(data: bytes, *, what: str) -> Episode:
    """The episode of a file; two arrays, `observations` and `actions`, are enough.

    Where the file has no `final_observation` (two-key files have none), the last observation is repeated, so that no
    recorded action is dropped.

    Args:
        data: the whole file.
        what: named in errors.

    Raises:
        CorruptEpisode: the bytes are no archive of plain numeric arrays.
        NotFinite: a number is not finite.
        DataError: arrays are missing or of the wrong shape.
    """
    arrays = unpack(data, what=what)
    return from_arrays(arrays, what=what)


def from_arrays(arrays: Mapping[str, NDArray[Any]], *, what: str) -> Episode:
    """The episode that a file's arrays describe (see `decode`).

    Raises:
        NotFinite: a number is not finite.
        DataError: arrays are missing or of the wrong shape.
    """
    for name in ("observations", "actions"):
        if name not in arrays:
            raise DataError(f"{what} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    observations, actions = arrays["observations"], arrays["actions"]
    if observations.ndim != 2 or actions.ndim != 2 or len(observations) != len(actions) or not actions.size:
        one_more = observations.ndim == actions.ndim == 2 and len(observations) == len(actions) + 1
        last = "; save the last observation as final_observation (D,) instead" if one_more else ""
        raise DataError(
            f"{what} has observations {observations.shape} and actions {actions.shape}; (T, D) and (T, A) with the "
            f"same T of at least 1 are needed{last}"
        )
    if not observations.shape[1]:
        raise DataError(f"{what} has observations without channels")
    if max(observations.shape[1], actions.shape[1]) > MOST_CHANNELS:
        raise DataError(
            f"{what} has {observations.shape[1]} observation and {actions.shape[1]} action channels; accepted: up to "
            f"{MOST_CHANNELS}"
        )
    final = arrays.get("final_observation", observations[-1])
    if final.shape != observations.shape[1:]:
        raise DataError(f"{what} has a final_observation {final.shape} beside observations {observations.shape}")
    columns: dict[str, Any] = {name: arrays[name] for name in COLUMNS if name in arrays and name != "observations"}
    columns |= {name: bool(_scalar(arrays, name, 0, what)) for name in _FLAGS}
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
        success, seed = _success(_scalar(arrays, "success", UNKNOWN, what), what), _scalar(arrays, "seed", -1, what)
        try:
            episode = Episode(
                observations=np.concatenate([observations, final[None]]).astype(np.float32),
                **columns,
                success=success,
                seed=seed,
                initial_state={
                    name.removeprefix(_INITIAL): value for name, value in arrays.items() if name.startswith(_INITIAL)
                },
            )
        except DataError as error:
            raise DataError(f"{what}: {error}") from None
    require_finite(episode, what=what)
    return episode


def require_finite(episode: Episode, *, what: str) -> None:
    """Raises NotFinite, naming column, step and channel, where a number of the episode is not finite.

    A `time_s` that is NaN throughout was not measured and passes.
    """
    labels = np.where(episode.labelled[:, None], episode.labels, 0.0)
    columns: dict[str, NDArray[Any]] = {
        "observations": episode.observations,
        "actions": episode.actions,
        "asked_actions": episode.asked_actions,
        "labels": labels,
        "rewards": episode.rewards,
    }
    if not np.isnan(episode.time_s).all():
        columns["time_s"] = episode.time_s
    for name, value in episode.initial_state.items():
        columns[f"initial_state {name}"] = np.atleast_1d(value)
    for name, column in columns.items():
        if np.isfinite(column).all():
            continue
        place = np.argwhere(~np.isfinite(column))[0]
        value = column[tuple(place)]
        channel = f", channel {place[1]}" if len(place) > 1 else ""
        raise NotFinite(
            f"{what}: {name} holds {value} at step {place[0]}{channel}; numbers that are not finite are never saved "
            "or trained on: leave the episode out"
        )


def content_checksum(episode: Episode) -> str:
    """Sha256 over every array of an episode but `time_s`: the same for the same attempt on every machine."""
    digest = hashlib.sha256()
    for name, array in to_arrays(episode).items():
        if name != "time_s":
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _scalar(arrays: Mapping[str, NDArray[Any]], name: str, default: int, what: str) -> int:
    value = arrays.get(name)
    if value is None:
        return default
    if value.size != 1 or value.dtype.kind == "f":
        raise DataError(f"{what}: {name} is {value.dtype} of shape {value.shape}; one bool or integer is needed")
    return int(value.reshape(-1)[0])


def _success(value: int, what: str) -> int:
    if value not in (SUCCESS, FAILURE, UNKNOWN):
        raise CorruptEpisode(f"{what}: success is {value}; it is 1, 0 or -1 (unknown)")
    return value
