"""A run: one folder with its config, its metrics, its checkpoints and, at the end, its policy."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.durable import TEMPORARY_SUFFIX, append_line, is_regular, make_folder, storage_errors, write_file
from understudy.errors import ConfigError

_LARGEST_METRICS = 2**27
_LARGEST_JSON = 2**26
# What has to be the same in a resumed run, and how to make it so.
_FINGERPRINTS = {
    "data_fingerprint": (
        "the data",
        "a resumed run needs the same episodes, so undo the change (`Dataset.undo`)",
    ),
    "start_fingerprint": ("the policy to begin with", "put the one back that was there"),
    "expert_fingerprint": ("the expert", "put the one back that was there"),
}


@contextmanager
def working_in(path: Path | str | None, config: Mapping[str, Any], *, resume: bool = False) -> Iterator[Run | None]:
    """A `Run` that no other job works in meanwhile; None where there is no folder.

    Raises:
        ConfigError: as `Run`; or another job works in the folder.
        StorageError: the disk is full or failed.
    """
    if path is None:
        yield None
        return
    Run.may_begin(Path(path), resume=resume)
    make_folder(Path(path))
    with _locked(Path(path)):
        yield Run(path, config, resume=resume)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The folder itself is locked, so nothing is left in it; the kernel lets go when the process dies, however it dies.
    with storage_errors(f"locking {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with storage_errors(f"locking {path}"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another job works in {path}; wait for it or end it, or choose another folder"
                ) from None
        yield
    finally:
        os.close(descriptor)


class Run:
    """The folder of a long job.

    `config.json` says what was asked for, `metrics.jsonl` what happened (one JSON object a line, in the order of the
    steps), `checkpoints/latest.safetensors` lets it continue, `policy/` is its result.

    Args:
        path: the folder; made where it does not exist.
        config: what was asked for, as plain JSON.
        resume: continue the run that the folder holds.

    Raises:
        ConfigError: the folder is not empty and `resume` is off, or the run in it was asked for something else.
    """

    def __init__(self, path: Path | str, config: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        if self.may_begin(self.path, resume=resume):
            make_folder(self.path)
            write_file(self.path / "config.json", json.dumps(config, indent=1, allow_nan=False).encode())
            write_file(self.path / "metrics.jsonl", b"")
        else:
            require_same(self.path, read_json(self.path / "config.json"), config)
        (self.path / "checkpoints").mkdir(exist_ok=True)

    @staticmethod
    def may_begin(path: Path, *, resume: bool) -> bool:
        """Whether a run would begin in this folder; otherwise it would continue the one that the folder holds.

        Raises:
            ConfigError: neither; something else is in the way, or `resume` is off.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; --out names a folder")
        if _holds_nothing(path):
            return True
        begun = (path / "config.json").exists()
        if not (begun and resume):
            hint = "continue it with --resume or choose another folder" if begun else "choose another folder"
            raise ConfigError(f"{path} is not empty; {hint}")
        return False

    @property
    def checkpoint(self) -> Path:
        """Where the state of the job is kept for an exact resume."""
        return self.path / "checkpoints" / "latest.safetensors"

    @property
    def policy(self) -> Path:
        """Where the result goes."""
        return self.path / "policy"

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends one row to the metrics; it is durable when this returns.

        Raises:
            StorageError: the disk is full or failed.
        """
        append_line(self.path / "metrics.jsonl", _line(row).encode())

    def rewind(self, step: int) -> None:
        """Forgets the metrics after `step`, which a resumed job will write again."""
        rows = [row for row in read_metrics(self.path) if row.get("step", 0) <= step]
        write_file(self.path / "metrics.jsonl", "".join(map(_line, rows)).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that a run keeps in a file.

    Raises:
        ConfigError: the file is missing, or holds no JSON object.
    """
    try:
        if (os.path.lexists(path) and not is_regular(path)) or path.stat().st_size > _LARGEST_JSON:
            raise ConfigError(
                f"{path} is no plain file of up to {_LARGEST_JSON} bytes; copy it back, or begin the run anew elsewhere"
            )
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; copy it back, or begin the run anew elsewhere") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no JSON object; copy it back, or begin the run anew elsewhere")
    return value


def require_same(path: Path, asked_before: Mapping[str, Any], asked_now: Mapping[str, Any]) -> None:
    """Refuses to go on with what is in a folder where something else is asked for than when it was begun.

    Raises:
        ConfigError: an option differs; it is named.
    """
    before, now = _leaves(asked_before), _leaves(json.loads(json.dumps(asked_now)))
    for key in sorted(before.keys() | now.keys()):
        # How the data and the policy to begin with were named does not matter; what is in them does, and has a
        # fingerprint of its own.
        if key in _FINGERPRINTS and before.get(key) != now.get(key):
            what, mend = _FINGERPRINTS[key]
            raise ConfigError(f"{what} changed since {path} was begun ({key}); {mend}, or choose another folder")
        if key not in ("data", "start") and before.get(key) != now.get(key):
            raise ConfigError(
                f"{path} was begun with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                "resume with the same options or choose another folder"
            )


def _holds_nothing(path: Path) -> bool:
    """Whether the folder is new or empty, or has only what a job leaves that failed before its first checkpoint.

    A fine-tuning clones into `clone/` before it begins.
    """
    if not path.exists():
        return True
    names = {item.name for item in path.iterdir() if not item.name.endswith(TEMPORARY_SUFFIX)}
    checkpoints = path / "checkpoints"
    return (
        names <= {"config.json", "metrics.jsonl", "checkpoints", "clone"}
        and not read_metrics(path)
        and not (checkpoints.exists() and any(checkpoints.iterdir()))
    )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a nested config under its dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _line(row: Mapping[str, Any]) -> str:
    """One line of the metrics; what is no number becomes null, since JSON has no NaN."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"


def read_metrics(run: Path | str) -> list[dict[str, Any]]:
    """The metrics of a run, in order, up to the first line that is no JSON object: a crash may tear the last one.

    Raises:
        ConfigError: the file is a link or no plain file, or too large.
    """
    path = Path(run) / "metrics.jsonl"
    if not os.path.lexists(path):
        return []
    if not is_regular(path):
        raise ConfigError(f"{path} is no plain file (links are not followed); put the file there")
    if path.stat().st_size > _LARGEST_METRICS:
        raise ConfigError(f"{path} has more than {_LARGEST_METRICS} bytes; give the run another folder")
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows
