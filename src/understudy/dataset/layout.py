"""The files of a dataset folder: which there are, how they are made, and how they go again."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from understudy.dataset import index as lines
from understudy.dataset.index import INDEX, MANIFEST
from understudy.dataset.journal_file import JOURNAL
from understudy.dataset.writer_lock import LOCK
from understudy.durable import TEMPORARY_SUFFIX, is_regular, make_folder, write_file
from understudy.errors import DataError
from understudy.spec import Spec

EPISODES, UNFINISHED = "episodes", "dataset.unfinished"
_EPISODE_FILE = re.compile(r"([0-9]{6,12})\.npz")
_OWN_NAMES = {MANIFEST, UNFINISHED, INDEX, EPISODES, LOCK, JOURNAL}


def is_unfinished(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a `create` or an import that was killed leaves."""
    if not path.is_dir():
        return False
    names = {name for name in os.listdir(path) if not name.endswith(TEMPORARY_SUFFIX)}
    if MANIFEST in names or not names <= _OWN_NAMES or holds_others(path / EPISODES):
        return False
    begun = any(number_of(name) is not None for name in _listed(path / EPISODES)) or (
        is_regular(path / INDEX) and (path / INDEX).stat().st_size > 0
    )
    return UNFINISHED in names or not begun


def require_unused(path: Path) -> None:
    """Refuses a place where a dataset cannot be made.

    Raises:
        DataError: something lies there that no `create` left.
    """
    if os.path.lexists(path) and not is_unfinished(path):
        raise DataError(f"{path} is not empty; name a new folder")


def lay_out(path: Path, spec: Spec, manifest: str) -> None:
    """Makes the files of a new dataset, or leaves none; the caller holds the lock, and what lies there is left over."""
    try:
        remove(path, but_the_lock=True)
        make_folder(path / EPISODES)
        write_file(path / INDEX, b"")
        # The manifest comes last: a folder without it is no dataset yet, and may be created again.
        write_file(path / manifest, lines.manifest_bytes(spec, 0))
    except BaseException:
        remove(path)
        raise


def remove(path: Path, *, folder_too: bool = False, but_the_lock: bool = False) -> None:
    """Removes the files of a dataset that the caller holds the lock of, and no others, as far as the disk allows."""
    with contextlib.suppress(OSError):
        for name in (MANIFEST, UNFINISHED, INDEX):  # the manifest first: without it, this is no dataset
            (path / name).unlink(missing_ok=True)
        for name in _listed(path / EPISODES):
            if number_of(name) is not None or name.endswith(TEMPORARY_SUFFIX):
                (path / EPISODES / name).unlink()
        remove_empty(path / EPISODES)
        if not but_the_lock:
            (path / LOCK).unlink(missing_ok=True)
    if folder_too:
        remove_empty(path)


def remove_empty(folder: Path) -> None:
    """Removes a folder in which nothing is."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() and not folder.is_symlink() else []


def holds_others(folder: Path) -> bool:
    """Whether something lies where the episodes go that no writer of a dataset puts there."""
    return os.path.lexists(folder) and (
        not folder.is_dir()
        or folder.is_symlink()
        or any(number_of(name) is None and not name.endswith(TEMPORARY_SUFFIX) for name in _listed(folder))
    )


def number_of(name: str) -> int | None:
    """The id of the episode whose file has this name; None where no episode's file has."""
    match = _EPISODE_FILE.fullmatch(name)
    return int(match[1]) if match and lines.file_name(int(match[1])) == f"{EPISODES}/{name}" else None
