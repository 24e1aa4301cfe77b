"""A dataset folder on disk: reading what is there, one writer at a time, and mending what a crash left.

dataset.json          the manifest: format, version, spec (written once; later only its count of edits)
dataset.unfinished    the manifest of an import that goes on, or was killed; it becomes dataset.json at the end
episodes.jsonl        the index (see index.py); a line is appended for each episode, drop, merge and undo
episodes/000000.npz   one file for each episode; never changed
recording.journal     the episode being recorded (see journal.py)
writer.lock           held with flock by the one process that writes; says which
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.dataset import index as lines
from understudy.dataset.archive import read_bytes
from understudy.dataset.episode_file import content_checksum, decode, encode, require_finite
from understudy.dataset.index import INDEX, MANIFEST, Index, Row
from understudy.dataset.journal_file import JOURNAL, LARGEST_JOURNAL, Recording, read_journal
from understudy.dataset.layout import (
    EPISODES,
    UNFINISHED,
    holds_others,
    lay_out,
    number_of,
    remove,
    remove_empty,
    require_unused,
)
from understudy.dataset.writer_lock import WriterLock
from understudy.durable import (
    TEMPORARY_SUFFIX,
    append_line,
    cut_file,
    is_regular,
    make_folder,
    remove_file,
    rename_file,
    storage_errors,
    write_file,
)
from understudy.episode import Episode
from understudy.errors import CorruptEpisode, DataError, StorageError
from understudy.spec import Spec


class DatasetWarning(UserWarning):
    """Something about a dataset that its user should know and that stops nothing."""


class Folder:
    """The writing and reading side of a dataset folder; `Dataset` is its face."""

    def __init__(self, path: Path, *, lock: WriterLock | None = None, manifest: str = MANIFEST) -> None:
        self.path = path
        self._manifest = path / manifest
        self._lock = lock or WriterLock(path)
        self._turn = threading.RLock()
        self._dirty = False
        self._append_failed = False
        self.recovered: list[str] = []
        self.spec, self.index = self._load()[:2]

    @classmethod
    def create(cls, path: Path, spec: Spec, *, unfinished: bool = False) -> Folder:
        """A new dataset folder.

        Args:
            path: a new or empty folder, or one that a killed `create` left.
            spec: of the episodes to come.
            unfinished: it is no dataset before `finish`; until then this process is its writer.

        Raises:
            DataError: the folder holds something already.
            DatasetLocked: another process makes a dataset of it just now.
            StorageError: the disk is full or failed.
        """
        spec = Spec.from_json(spec.to_json())  # the same numbers as a later reader will see
        lines.read_manifest(lines.manifest_bytes(spec, 0))
        require_unused(path)
        existed = path.exists()
        lock, manifest = WriterLock(path), UNFINISHED if unfinished else MANIFEST
        try:
            make_folder(path)
            lock.take()
            require_unused(path)  # again: another process may have been faster
            lay_out(path, spec, manifest)
            folder = cls(path, lock=lock, manifest=manifest)
        except BaseException:  # a full disk, Ctrl-C: nothing was asked of it yet, so nothing of it stays
            lock.release()
            if not existed:
                remove_empty(path)
            raise
        if not unfinished:
            lock.release()
        return folder

    def finish(self) -> None:
        """Makes a dataset of what was created as unfinished, at once and durably.

        Raises:
            StorageError: the disk failed; it is no dataset yet.
        """
        with self._turn:
            rename_file(self._manifest, self.path / MANIFEST)
            self._manifest = self.path / MANIFEST

    def give_up(self, *, folder_too: bool) -> None:
        """Removes what was created as unfinished, as far as the disk allows.

        Args:
            folder_too: also the folder, where nothing else is in it.
        """
        with self._turn:
            if self._lock.is_held and self._manifest.name == UNFINISHED:
                remove(self.path, folder_too=folder_too)

    def remove_unused(self, *, folder_too: bool) -> None:
        """Removes a dataset into which nothing ever came; leaves it where anything did, or another process writes.

        Args:
            folder_too: also the folder, where nothing else is in it.
        """
        with self._turn, contextlib.suppress(DataError):
            self._lock.take()
            try:
                _, index, torn, strangers = self._load()
                used = index.known or index.edits or torn or strangers or os.path.lexists(self.path / JOURNAL)
                if not used and not holds_others(self.path / EPISODES):
                    remove(self.path, folder_too=folder_too)
            finally:
                self._lock.release()

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

    def append(self, episode: Episode) -> Row:
        """Saves an episode; see `Dataset.append`."""
        with self._turn:
            self._append_failed = True  # until it has not
            packed = self._packed(episode)
            self.begin()
            row = self._save(episode, packed)
            self._append_failed = False
            with contextlib.suppress(StorageError):  # a journal of an episode that exists is known to be stale
                remove_file(self.path / JOURNAL)
        return row

    def append_together(self, episodes: Iterable[Episode]) -> tuple[Row, ...]:
        """Saves episodes that count from when the last of them is durable, all or none; see `Dataset.merge`."""
        rows: list[Row] = []
        with self.writing():
            group = self.index.next_id
            for episode in episodes:
                data, content = self._packed(episode)
                row = _row(self.index.next_id, episode, data, content)
                self._require_new(row)
                self._dirty = True
                # The line comes first: before the group ends it counts for nothing, and so a file that the index does
                # not know is always that of an episode which was saved by itself.
                self._append_line(lines.add_body(row, group))
                write_file(self.path / row.file, data)
                self._dirty = False
                rows.append(row)
            if rows:
                self.edit({"op": "merged", "group": group})
        return tuple(rows)

    def edit(self, body: Mapping[str, Any]) -> None:
        """Appends a drop, undo or end of a merge to the index; the caller is `writing`.

        Raises:
            DataError: no reader would take it.
            StorageError: the disk is full or failed; the edit has no effect.
        """
        self._dirty = True
        self._append_line(dict(body))
        self._dirty = False
        with contextlib.suppress(StorageError):  # the count only guards against a cut index; a lower one is valid
            write_file(self._manifest, lines.manifest_bytes(self.spec, self.index.edits))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """This thread alone writes, as the one writer of the dataset, for as long as the block runs; see `begin`."""
        with self._turn:
            self.begin()
            yield

    def begin(self) -> None:
        """Becomes the one writer, and mends what the last one left; does nothing where that is done.

        Raises:
            DatasetLocked: another process writes.
            StorageError: the disk failed.
        """
        with self._turn:
            if not self._lock.is_held:
                self._lock.take()
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
        with self._turn:
            self._lock.release()

    def recover_journal(self, *, finished_too: bool) -> None:
        """Saves the recording that a journal still holds as a partial episode, and removes the journal.

        Args:
            finished_too: also a recording that came to its end and was not appended. After a crash nobody knows
                whether it was wanted; within a session it was not, unless the last append failed: then the journal
                may be its only copy, and it is saved in any case.
        """
        with self._turn:
            path = self.path / JOURNAL
            if os.path.lexists(path):
                self._recover(path, finished_too or self._append_failed)
            self._append_failed = False

    def _recover(self, path: Path, finished_too: bool) -> None:
        try:
            recording = read_journal(read_bytes(path, LARGEST_JOURNAL, cut=True), self.spec)
            packed = self._packed(recording.episode) if recording.episode else None
        except DataError as error:
            aside = _move_aside(path, ".unreadable")
            self._report(f"{path.name} of {self.path} cannot be read ({error}); it was moved to {aside.name}")
            return
        if recording.finished and not finished_too:
            remove_file(path)
            return
        # Only an episode that was saved by itself can be the one of the journal; a merge in between is not.
        saved = recording.next_id <= self.index.last_alone
        row = self._save(recording.episode, packed) if recording.episode and packed and not saved else None
        rest = self._put_away(path, recording)
        if row is not None:
            self._report(
                f"an interrupted recording of {row.length} steps was recovered as partial episode {row.id} of "
                f"{self.path}; it is left out of training{rest}"
            )
        elif rest and not saved:
            self._report(f"an interrupted recording in {self.path} has no step that can be saved{rest}")

    def _put_away(self, path: Path, recording: Recording) -> str:
        """Removes a journal that was saved; keeps one with more in it, and says so."""
        if not recording.left_out:
            remove_file(path)
            return ""
        return f"; {recording.left_out}, so the whole journal is kept as {_move_aside(path, '.rest').name}"

    def _load(self) -> tuple[Spec, Index, bool, list[int]]:
        """Spec, index, whether a torn line ends it, and numbers of episode files that the index does not know."""
        if not is_regular(self._manifest):
            raise DataError(f"{self.path} is no dataset: it has no {MANIFEST}")
        spec, edits = lines.read_manifest(read_bytes(self._manifest, lines.LARGEST_MANIFEST))
        # The folder is listed before the index is read, so that an episode saved in between is in both.
        try:
            if not stat.S_ISDIR(os.lstat(self.path / EPISODES).st_mode):
                raise CorruptEpisode(f"{EPISODES} in {self.path} is no folder of its own; links are not followed")
            names = os.listdir(self.path / EPISODES)
        except OSError as error:
            raise CorruptEpisode(f"{self.path / EPISODES} cannot be listed: {error.strerror}") from None
        index, torn = Index.read(read_bytes(self.path / INDEX, lines.LARGEST_INDEX), spec)
        numbers = (number for name in names if (number := number_of(name)) is not None)
        strangers = sorted(number for number in numbers if number >= index.next_id)
        if index.edits < edits or strangers not in ([], [index.next_id]):
            missing = (
                f"{len(strangers)} episode files" if strangers else f"{edits - index.edits} drops, merges or undos"
            )
            raise CorruptEpisode(
                f"{self.path / INDEX} has lost its last lines: {missing} are not in it; restore it from a copy "
                f"(the episode files themselves open as a bare folder: {self.path / EPISODES})"
            )
        if strangers and not self._lock.is_held and not self._lock.owner_is_alive():
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
            aside = _move_aside(path, ".unreadable")
            self._report(f"{path} was never acknowledged and cannot be read ({error}); it was moved to {aside.name}")
            return
        row = _row(number, episode, data, content_checksum(episode))
        self._append_line(lines.add_body(row, None))
        self._report(f"episode {number} of {self.path}, whose save was interrupted at its end, was taken up")

    def _packed(self, episode: Episode) -> tuple[bytes, str]:
        """The file of an episode, and the checksum of its content.

        Raises:
            DataError: it cannot be saved here.
        """
        self.check_sizes(episode, "the episode")
        data = encode(episode)
        require_finite(episode, what="the episode")
        return data, content_checksum(episode)

    def _save(self, episode: Episode, packed: tuple[bytes, str]) -> Row:
        row = _row(self.index.next_id, episode, *packed)
        self._require_new(row)
        self._dirty = True
        try:
            write_file(self.path / row.file, packed[0])
            self._append_line(lines.add_body(row, None))
        except BaseException:
            self._take_back(row)
            raise
        self._dirty = False
        return row

    def _require_new(self, row: Row) -> None:
        """Refuses to replace an episode file, which only something else than this writer can have put there."""
        self._require_known_index()
        if os.path.lexists(self.path / row.file):
            raise CorruptEpisode(
                f"{self.path / row.file} is there already, and the index does not know it: something else wrote to the "
                "dataset; nothing was replaced; close the dataset and open it again"
            )

    def _require_known_index(self) -> None:
        with storage_errors(f"reading {INDEX}"):
            size = os.stat(self.path / INDEX, follow_symlinks=False).st_size
        if size != self.index.size:
            raise CorruptEpisode(
                f"{self.path / INDEX} has {size} bytes where {self.index.size} were written: something else wrote to "
                "the dataset; nothing was added; close the dataset and open it again"
            )

    def _append_line(self, body: dict[str, Any]) -> None:
        line = self.index.require(body)  # what no reader would take is refused before it is durable
        self._require_known_index()
        append_line(self.path / INDEX, line)
        self.index.accept(line)

    def _take_back(self, row: Row) -> None:
        """After a failed save: removes the episode's file, unless its index line made it to the disk after all."""
        with contextlib.suppress(OSError, DataError):
            saved, _ = Index.read(read_bytes(self.path / INDEX, lines.LARGEST_INDEX), self.spec)
            if row.id not in saved.known:
                (self.path / row.file).unlink(missing_ok=True)

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


def _move_aside(path: Path, suffix: str) -> Path:
    """Renames a file so that it is out of the way and replaces no earlier one; gives the new path."""
    numbers = itertools.count(2)
    aside = path.with_suffix(suffix)
    while os.path.lexists(aside):
        aside = path.with_suffix(f".{next(numbers)}{suffix}")
    with storage_errors(f"moving {path.name} aside"):
        os.rename(path, aside)
    return aside
