"""Every error Understudy raises on purpose. Each message says what came, what is accepted, and what to do.

    UnderstudyError
    ├── ConfigError          an option with a value that cannot work
    ├── SpecMismatch         channels, order, units or control rate of two things differ
    ├── DataError            a dataset or an episode that cannot be used
    │   ├── CorruptEpisode   bytes on disk that are not what was saved
    │   ├── DatasetLocked    another process is writing
    │   └── StorageError     the disk is full or failed; nothing that existed was damaged
    ├── TrainingDiverged     a loss that became infinite or no number
    ├── PolicyError          a policy folder that cannot be loaded
    ├── ExpertError          an expert that answered nothing, NaN, or the wrong size
    ├── ActionError          an agent that asked for something that is no action
    ├── WorldError           an environment that raised, or returned what it may not (NaN, wrong size)
    │   └── PictureError     an environment that cannot be drawn, or draws no picture that a film can hold
    ├── RobotError           a robot that was stopped, refuses to move, or answered what it may not
    │   └── RobotLost        a robot that cannot be reached; it may come back
    ├── WorkerError          a worker process that died or hung
    └── MissingDependency    an optional package or system library that is not installed

The command line prints the message of any of these, and of an OSError, on one line and exits with code 2. Anything
else is a bug and keeps its traceback.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from typing import Any


class UnderstudyError(Exception):
    """Root of all errors that a user can cause and mend."""


class ConfigError(UnderstudyError):
    """An option has a value that cannot work."""


def require_within(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Refuses an option whose value lies outside of [low, high], and says what is accepted; None was not given.

    Raises:
        ConfigError: the value is out of range, or no number.
    """
    if value is not None and not (isinstance(value, Real) and low <= value <= high):  # type: ignore[operator]
        accepted = f"{low:.15g} or more" if high == math.inf else f"{low:.15g} to {high:.15g}"
        raise ConfigError(f"{name} is {value!r}; accepted: {accepted}")


def require_whole(name: str, value: Any, low: int, high: float = math.inf) -> None:
    """Refuses an option that is no whole number in [low, high]; None was not given.

    Raises:
        ConfigError: it is another number, or none.
    """
    if value is not None and not (isinstance(value, Integral) and low <= value <= high):  # type: ignore[operator]
        accepted = f"{low} or more" if high == math.inf else f"{low} to {high}"
        raise ConfigError(f"{name} is {value!r}; accepted: whole numbers, {accepted}")


def require_options(what: str, kind: type[Any], options: Mapping[str, Any], empty: Collection[str] = ()) -> None:
    """Refuses an option that the dataclass `kind` has not, or a value of another type than its default.

    Args:
        what: has the options, in words.
        kind: a dataclass; fields without a default are no options.
        options: what was given.
        empty: names of options that may be None though their default is not.

    Raises:
        ConfigError: an option is not known, or its value is of the wrong type.
    """
    known = {item.name: item.default for item in fields(kind) if item.init and item.default is not MISSING}
    for option, value in options.items():
        if option not in known:
            raise ConfigError(f"{what} has no option {option}; it has {', '.join(known) or 'none'}")
        default = known[option]
        if value is None and (default is None or option in empty):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(default, bool):
            fits, called = isinstance(value, bool), "true or false"
        elif isinstance(default, str):
            fits, called = isinstance(value, str), "text"
        elif isinstance(default, int):
            fits, called = number and isinstance(value, int), "a whole number"
        elif _is_endless(value):
            fits, called = False, "a finite number"
        else:
            fits, called = number, "a number"
        if not fits:
            raise ConfigError(f"{option} is {value!r}; accepted: {called}")


def _is_endless(value: object) -> bool:
    """Whether a value, or what its text says, is infinite or NaN."""
    try:
        return not math.isfinite(float(str(value)))
    except ValueError:
        return False


class SpecMismatch(UnderstudyError, ValueError):
    """Channels, their order, their units or the control rate of two things differ."""


class DataError(UnderstudyError, ValueError):
    """A dataset or an episode cannot be used as it is."""


class CorruptEpisode(DataError):
    """The bytes on disk are not the bytes that were saved."""


class DatasetLocked(DataError):
    """Another process is writing to the dataset."""


class StorageError(DataError, OSError):
    """The disk is full or failed. What was saved before is untouched."""


class PolicyError(UnderstudyError, ValueError):
    """A policy folder is missing, malformed or of an unknown format."""


class TrainingDiverged(UnderstudyError, RuntimeError):
    """The loss of a training became infinite or no number; what was saved before is untouched."""


class ExpertError(UnderstudyError, ValueError):
    """An expert answered with nothing, a number that is not finite, or the wrong number of channels."""


class ActionError(UnderstudyError, ValueError):
    """An agent asked for a number that is not finite, or for the wrong number of channels."""


class WorldError(UnderstudyError, ValueError):
    """An environment raised, or returned something that is not an observation or a reward."""


class PictureError(WorldError):
    """An environment cannot be drawn, or draws no picture that a film can hold."""


class RobotError(UnderstudyError, RuntimeError):
    """A robot was stopped, refuses to move, or answered what no robot may."""


class RobotLost(RobotError):
    """A robot cannot be reached. Whoever holds the wire tries again for a while."""


class WorkerError(UnderstudyError, RuntimeError):
    """A worker process died, hung, or raised."""


class MissingDependency(UnderstudyError, ImportError):
    """An optional package or a system library is not installed."""
