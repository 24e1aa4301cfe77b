"""A dataset folder on disk: reading what is there, one writer at a time, and mending what a crash left.

dataset.json          the manifest: format, version, spec (written once; later only its count of edits)
episodes.jsonl        the index (see index.py); a line is appended for each episode, drop, merge and undo
episodes/000000.npz   one file for each episode; never changed
recording.journal     the episode being recorded (see journal.py)
writer.lock           held with flock by the one process that writes; says which
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import socket
import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.dataset import index as lines
from understudy.dataset.archive import read_bytes
from understudy.dataset.episode_file import content_checksum, decode, encode, require_finite
from understudy.dataset.index import INDEX, MANIFEST, Index, Row
from understudy.dataset.journal_file import JOURNAL, LARGEST_JOURNAL, read_journal
from understudy.durable import (
    TEMPORARY_SUFFIX,
    append_line,
    cut_file,
    is_regular,
    make_folder,
    remove_file,
    storage_errors,
    write_file,
)
from understudy.episode import Episode
from understudy.errors import CorruptEpisode, DataError, DatasetLocked, StorageError
from understudy.spec import Spec

EPISODES, LOCK = "episodes", "writer.lock"
_EPISODE_FILE = re.compile(r"([0-9]{6,12})\.npz")
_OWN_NAMES = {MANIFEST, INDEX, EPISODES, LOCK, JOURNAL}


class DatasetWarning(UserWarning):
    """Something about a dataset that its user should know and that stops nothing."""


class Folder:
    """The writing and reading side of a dataset folder; `Dataset` is its face."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._dirty = False
        self._append_failed = False
        self.recovered: list[str] = []
        self.spec, self.index = self._load()[:2]

    @classmethod
    def create(cls, path: Path, spec: Spec) -> Folder:
        """A new dataset folder.

        Raises:
            DataError: the folder holds something already.
            StorageError: the disk is full or failed.
        """
        spec = Spec.from_json(spec.to_json())  # the same numbers as a later reader will see
        lines.read_manifest(lines.manifest_bytes(spec, 0))
        if path.exists() and not is_unfinished(path):
            raise DataError(f"{path} is not empty; name a new folder")
        existed = path.exists()
        try:
            make_folder(path / EPISODES)
            write_file(path / INDEX, b"")
            # The manifest comes last: a folder without it is no dataset yet, and may be created again.
            write_file(path / MANIFEST, lines.manifest_bytes(spec, 0))
        except BaseException:  # a full disk, Ctrl-C: nothing was asked of it yet, so nothing of it stays
            remove_dataset(path, folder_too=not existed)
            raise
        return cls(path)

    def rows(self) -> tuple[Row, ...]:
        """The rows that count, partial ones included."""
        return self.index.live()

    def read(self, row: Row) -> Episode:
        """The episode of a row, verified against its checksum.

        Raises:
            CorruptEpisode: the file is missing, or not what was saved.
            DataError: it holds no episode of this dataset's sizes, or numbers that are not finite.
        """
        what = f"episode {row.id} ({row.file})"
        data = read_bytes(self.path / row.file)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise CorruptEpisode(f"{what} is not what was saved (its checksum differs); drop it or restore the file")
        episode = decode(data, what=what)
        stated = (row.length, row.success, row.partial, row.seed)
        if stated != (len(episode), episode.success, episode.partial, episode.seed):
            raise CorruptEpisode(f"{what} is not what the index says: the index was changed; restore it from a copy")
        self.check_sizes(episode, what)
        return episode

    def check_sizes(self, episode: Episode, what: str) -> None:
        """Raises DataError where an episode has other channels than the dataset."""
        for kind, column, channels in (
            ("observation", episode.observations, self.spec.observations),
            ("action", episode.actions, self.spec.actions),
        ):
            if column.shape[1] != len(channels):
                raise DataError(f"{what} has {column.shape[1]} {kind} channels; the dataset has {len(channels)}")

    def append(self, episode: Episode, *, merge: int | None = None) -> Row:
        """Saves an episode; see `Dataset.append`. `merge` is the id of the first episode of a merge in progress."""
        self.check_sizes(episode, "the episode")
        data = encode(episode)
        require_finite(episode, what="the episode")
        checksum = content_checksum(episode)
        self._append_failed = True  # until it has not
        self.begin()
        number = self.index.next_id
        row = _row(number, episode, data, checksum)
        self._dirty = True
        try:
            write_file(self.path / row.file, data)
            self._append_line(lines.add_body(row, merge))
        except BaseException:
            self._take_back(row)
            raise
        self._dirty = self._append_failed = False
        with contextlib.suppress(StorageError):  # a journal of an episode that exists is known to be stale
            remove_file(self.path / JOURNAL)
        return row

    def edit(self, body: Mapping[str, Any]) -> None:
        """Appends a drop, undo or end of a merge to the index.

        Raises:
            StorageError: the disk is full or failed; the edit has no effect.
        """
        self._dirty = True
        self._append_line(dict(body))
        self._dirty = False
        with contextlib.suppress(StorageError):  # the count only guards against a cut index; a lower one is valid
            write_file(self.path / MANIFEST, lines.manifest_bytes(self.spec, self.index.edits))

    def begin(self) -> None:
        """Becomes the one writer, and mends what the last one left; does nothing where that is done.

        Raises:
            DatasetLocked: another process writes.
            StorageError: the disk failed.
        """
        if self._lock is None:
            self._lock = self._take_lock()
            try:
                self._mend()
                self.recover_journal(finished_too=True)
            except BaseException:
                self.close()
                raise
        elif self._dirty:
            self._mend()

    def close(self) -> None:
        """Lets another process write."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def recover_journal(self, *, finished_too: bool) -> None:
        """Saves the recording that a journal still holds as a partial episode, and removes the journal.

        Args:
            finished_too: also a recording that came to its end and was not appended. After a crash nobody knows
                whether it was wanted; within a session it was not, unless the last append failed: then the journal
                may be its only copy, and it is saved in any case.
        """
        path = self.path / JOURNAL
        if not path.is_symlink() and not path.exists():
            self._append_failed = False
            return
        try:
            recording = read_journal(read_bytes(path, LARGEST_JOURNAL), self.spec)
        except DataError as error:
            aside = _move_aside(path)
            self._report(f"{path.name} of {self.path} cannot be read ({error}); it was moved to {aside.name}")
            return
        wanted = finished_too or self._append_failed or not recording.finished
        if recording.episode is None or recording.next_id < self.index.next_id or not wanted:
            remove_file(path)
            return
        row = self.append(recording.episode)  # removes the journal
        self._report(
            f"an interrupted recording of {row.length} steps was recovered as partial episode {row.id} of {self.path}; "
            "it is left out of training"
        )

    def _load(self) -> tuple[Spec, Index, bool, list[int]]:
        """Spec, index, whether a torn line ends it, and numbers of episode files that the index does not know."""
        if not is_regular(self.path / MANIFEST):
            raise DataError(f"{self.path} is no dataset: it has no {MANIFEST}")
        spec, edits = lines.read_manifest(read_bytes(self.path / MANIFEST, lines.LARGEST_MANIFEST))
        # The folder is listed before the index is read, so that an episode saved in between is in both.
        try:
            if not stat.S_ISDIR(os.lstat(self.path / EPISODES).st_mode):
                raise CorruptEpisode(f"{EPISODES} in {self.path} is no folder of its own; links are not followed")
            names = os.listdir(self.path / EPISODES)
        except OSError as error:
            raise CorruptEpisode(f"{self.path / EPISODES} cannot be listed: {error.strerror}") from None
        index, torn = Index.read(read_bytes(self.path / INDEX, lines.LARGEST_INDEX), spec)
        numbers = [int(match[1]) for name in names if (match := _EPISODE_FILE.fullmatch(name))]
        strangers = sorted(number for number in numbers if number >= index.next_id)
        if index.edits < edits or strangers not in ([], [index.next_id]):
            missing = (
                f"{len(strangers)} episode files" if strangers else f"{edits - index.edits} drops, merges or undos"
            )
            raise CorruptEpisode(
                f"{self.path / INDEX} has lost its last lines: {missing} are not in it; restore it from a copy "
                f"(the episode files themselves open as a bare folder: {self.path / EPISODES})"
            )
        if strangers and self._lock is None and not self._writer_alive():
            warnings.warn(
                f"{self.path}: the last save was interrupted before it was acknowledged; the next recording or edit "
                "takes its episode up",
                DatasetWarning,
                stacklevel=5,
            )
        return spec, index, torn, strangers

    def _mend(self) -> None:
        """Cuts a torn line, removes temporary files, takes up an episode that was saved and not yet indexed."""
        _, self.index, torn, strangers = self._load()
        if torn:
            cut_file(self.path / INDEX, self.index.size)
        for folder in (self.path, self.path / EPISODES):
            for entry in os.scandir(folder):
                if entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX) and entry.is_file():
                    remove_file(entry.path)
        for number in strangers:
            self._adopt(number)
        self._dirty = False

    def _adopt(self, number: int) -> None:
        path = self.path / lines.file_name(number)
        try:
            data = read_bytes(path)
            episode = decode(data, what=path.name)
            self.check_sizes(episode, path.name)
        except DataError as error:
            aside = _move_aside(path)
            self._report(f"{path} was never acknowledged and cannot be read ({error}); it was moved to {aside.name}")
            return
        row = _row(number, episode, data, content_checksum(episode))
        self._append_line(lines.add_body(row, self.index.group))
        counts = "" if self.index.group is None else " as part of a merge that never ended, so it does not count"
        self._report(f"episode {number} of {self.path}, whose save was interrupted at its end, was taken up{counts}")

    def _append_line(self, body: dict[str, Any]) -> None:
        lines.require_readable(body)
        line = self.index.line(body)
        append_line(self.path / INDEX, line)
        self.index.accept(line)

    def _take_back(self, row: Row) -> None:
        """After a failed save: removes the episode's file, unless its index line made it to the disk after all."""
        with contextlib.suppress(OSError, DataError):
            saved, _ = Index.read(read_bytes(self.path / INDEX, lines.LARGEST_INDEX), self.spec)
            if row.id not in saved.known:
                (self.path / row.file).unlink(missing_ok=True)

    def _take_lock(self) -> int:
        with storage_errors(f"locking {self.path}"):
            descriptor = os.open(
                self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644
            )
            try:
                # The kernel lets go of the lock when its process dies, however it dies; the text only says who.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            except BlockingIOError:
                owner = os.pread(descriptor, 200, 0).decode("ascii", "replace").split()
                os.close(descriptor)
                who = f"process {owner[0]} on {owner[1]}" if len(owner) == 2 else "another process"
                raise DatasetLocked(f"{who} is writing to {self.path}; wait for it, or end it first") from None
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _writer_alive(self) -> bool:
        if not is_regular(self.path / LOCK):
            return False
        owner = read_bytes(self.path / LOCK, 4096).split()
        if len(owner) != 2 or not owner[0].isdigit() or len(owner[0]) > 9:
            return False
        # A writer elsewhere (a shared folder) cannot be looked up from here; it is taken to be alive.
        return owner[1].decode("ascii", "replace") != socket.gethostname() or Path(f"/proc/{int(owner[0])}").exists()

    def _report(self, message: str) -> None:
        self.recovered.append(message)
        warnings.warn(message, DatasetWarning, stacklevel=6)


def _row(number: int, episode: Episode, data: bytes, content: str) -> Row:
    return Row(
        number,
        len(episode),
        episode.success,
        episode.partial,
        hashlib.sha256(data).hexdigest(),
        lines.file_name(number),
        episode.seed,
        content,
    )


def remove_dataset(path: Path, *, folder_too: bool) -> None:
    """Removes the files of a dataset whose making was given up, as far as the disk allows.

    Args:
        path: the dataset; the caller made it and is its writer.
        folder_too: also the folder, where nothing else is in it.
    """
    with contextlib.suppress(OSError):
        for name in (MANIFEST, INDEX, JOURNAL, LOCK):  # the manifest first: without it, this is no dataset
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / EPISODES, ignore_errors=True)
        if folder_too:
            path.rmdir()


def _move_aside(path: Path) -> Path:
    """Renames a damaged file so that it is out of the way and replaces no earlier one; gives the new path."""
    numbers = itertools.count(2)
    aside = path.with_suffix(".unreadable")
    while os.path.lexists(aside):
        aside = path.with_suffix(f".{next(numbers)}.unreadable")
    with storage_errors(f"moving the damaged {path.name} aside"):
        os.rename(path, aside)
    return aside


def is_unfinished(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a `create` that was killed leaves."""
    if not path.is_dir():
        return False
    names = [name for name in os.listdir(path) if not name.endswith(TEMPORARY_SUFFIX)]
    if MANIFEST in names or not set(names) <= _OWN_NAMES:
        return False
    folder = path / EPISODES
    content: Sequence[str] = os.listdir(folder) if folder.is_dir() else ()
    return not content and (not is_regular(path / INDEX) or not (path / INDEX).stat().st_size)
