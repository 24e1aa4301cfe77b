"""The Dataset: the episodes of one task on disk, append-only, split by episode."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.dataset.bare import BareFolder
from understudy.dataset.folder import DatasetWarning, Folder
from understudy.dataset.index import MANIFEST, Row, fingerprint
from understudy.dataset.joined import Joined
from understudy.dataset.layout import UNFINISHED
from understudy.durable import is_regular
from understudy.episode import FAILURE, Episode
from understudy.errors import ConfigError, DataError
from understudy.spec import Spec, spec_of

_POSITION = "the position of an episode"


class Dataset:
    """The episodes of one task, or a view of some of them.

    Partial episodes (recordings that were interrupted) are neither counted nor given unless `include_partial` asks
    for them. Made by `create` and `open`; a context manager that lets go of the writer's lock.
    """

    def __init__(
        self,
        store: Folder | BareFolder | Joined,
        *,
        rows: tuple[Row, ...] | None = None,
        spec: Spec | None = None,
        partial: bool = False,
    ) -> None:
        self._store = store
        self._chosen = rows  # None: all rows, those appended later included
        self._spec = spec
        self._partial = partial
        self._cached: tuple[tuple[Row, ...], tuple[Row, ...]] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], env_or_spec: gym.Env[Any, Any] | Spec) -> Dataset:
        """A new dataset in a new or empty folder.

        Args:
            path: the folder.
            env_or_spec: the world that the episodes will come from, or its spec.

        Raises:
            DataError: the folder holds something already.
            DatasetLocked: another process makes a dataset of it just now.
            StorageError: the disk is full or failed.
        """
        spec = env_or_spec if isinstance(env_or_spec, Spec) else spec_of(env_or_spec)
        return cls(Folder.create(Path(path), spec))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """A dataset folder, or a bare folder of `.npz` files with `observations (T, D)` and `actions (T, A)`.

        In a bare folder the expert drove, channels have no names (a DatasetWarning says so), and `init_NAME` arrays
        become the initial state. It can only be read.

        Raises:
            DataError: neither of them, an import that was not finished, or a bare folder with files that cannot be
                used.
            CorruptEpisode: the manifest or the index is damaged.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; a dataset is a folder with a {MANIFEST} or with .npz files")
        if is_regular(folder / MANIFEST):
            return cls(Folder(folder))
        if is_regular(folder / UNFINISHED):
            raise DataError(f"the import into {folder} is not finished, or was interrupted; then import once more")
        if (folder / "episodes.jsonl").exists():
            raise DataError(
                f"{folder} has lost its {MANIFEST}; restore it, or open {folder / 'episodes'} as a bare folder"
            )
        bare = BareFolder(folder)
        if bare.problems:
            raise DataError(
                f"{len(bare.problems)} files of {folder} cannot be used; the first: {bare.problems[0].message} "
                "(`understudy inspect` lists them all)"
            )
        warn_unnamed(bare)
        return cls(bare)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @property
    def spec(self) -> Spec:
        """Channels, units, limits and control rate."""
        return self._spec or self._store.spec

    @property
    def rows(self) -> tuple[Row, ...]:
        """What the index knows of each episode, in order."""
        every = self._all_rows()
        if self._cached is None or self._cached[0] is not every:
            self._cached = every, tuple(row for row in every if self._partial or not row.partial)
        return self._cached[1]

    @property
    def recovered(self) -> tuple[str, ...]:
        """What was mended after a crash since this dataset was opened, one line each."""
        return tuple(self._store.recovered) if isinstance(self._store, Folder) else ()

    @property
    def steps(self) -> int:
        """Sum of the lengths of all episodes."""
        return sum(row.length for row in self.rows)

    @property
    def fingerprint(self) -> str:
        """Sha256 over the spec and every array but `time_s`: equal for equal data, wherever and whenever recorded."""
        return fingerprint(self.spec, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Episode:
        """The episode at a position (not: with an id), verified.

        Raises:
            ConfigError: the position is no whole number.
            CorruptEpisode: its file is missing, or not what was saved.
            DataError: it holds no episode of this dataset's sizes, or numbers that are not finite.
            IndexError: there are fewer episodes.
        """
        return self._store.read(self.rows[_whole(index, _POSITION)])

    def __iter__(self) -> Iterator[Episode]:
        for row in self.rows:
            yield self._store.read(row)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, row: Row) -> Episode:
        """The episode of one of `rows`, verified.

        Raises:
            CorruptEpisode: its file is missing, or not what was saved.
            DataError: it holds no episode of this dataset's sizes, or numbers that are not finite.
        """
        return self._store.read(row)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} episodes)"

    def append(self, episode: Episode) -> Row:
        """Saves an episode, and returns only when a power cut could not undo it.

        Raises:
            DataError: it has numbers that are not finite, other channels than the dataset, or the dataset is a view
                or a bare folder.
            DatasetLocked: another process writes to the dataset.
            StorageError: the disk is full or failed; the episode is not in the dataset, and all others still are.
        """
        return self.writer().append(episode)

    def drop(self, ids: int | Iterable[int]) -> None:
        """Leaves episodes out from now on; their files stay, and `undo` brings them back.

        Args:
            ids: `Row.id` of the episodes, one or several whole numbers.

        Raises:
            ConfigError: something else than whole numbers was given.
            DataError: an id is not there.
            DatasetLocked: another process writes to the dataset.
            StorageError: the disk is full or failed; nothing was dropped.
        """
        wanted = sorted({_whole(number, "the id of an episode") for number in _several(ids)})
        writer = self.writer()
        with writer.writing():
            present = {row.id for row in writer.rows()}
            for number in wanted:
                if number not in present:
                    raise DataError(f"there is no episode {number} in {self.path}; it has {_listed(sorted(present))}")
            if wanted:
                writer.edit({"op": "drop", "ids": wanted})

    def undo(self) -> str:
        """Takes back the last append, drop or merge that counts, and says which it was.

        Raises:
            DataError: there is nothing to take back, or a recording that was interrupted before this was only now
                recovered, and nobody can have meant that.
            DatasetLocked: another process writes to the dataset.
            StorageError: the disk is full or failed; nothing was taken back.
        """
        writer = self.writer()
        before = len(writer.recovered)
        with writer.writing():
            if len(writer.recovered) > before:
                raise DataError(f"{writer.recovered[-1]}; nothing was taken back, so look at it and undo again")
            if not writer.index.stack:
                raise DataError(f"there is nothing to undo in {self.path}")
            last = writer.index.stack[-1]
            writer.edit({"op": "undo"})
        return f"took back the {last.kind} of {_listed(list(last.ids))}"

    def merge(self, other: Dataset) -> tuple[Row, ...]:
        """Copies the episodes of another dataset behind those of this one; `undo` takes all of them back.

        Raises:
            SpecMismatch: the other one is of another world, or has other channels, units or another rate.
            DatasetLocked: another process writes to this dataset.
            StorageError: the disk is full or failed; none of the episodes counts.
        """
        self.require_same_task(other.spec, what=str(other.path))
        rows = other.rows
        return self.writer().append_together(other.read(row) for row in rows)

    def require_same_task(self, spec: Spec, *, what: str) -> None:
        """Refuses what is not of this dataset's task: other channels, units or rate, or the id of another world.

        Raises:
            SpecMismatch: it differs, in the way that is named.
        """
        self.spec.require_same_task(spec, what=what, against=str(self.path))

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two views without a common episode: to train on, and held out.

        Args:
            held_out: share of the episodes in the second view, in [0, 1); at least one where it is above 0 and there
                are two or more, never all.
            seed: of the draw; the same seed and number of episodes give the same split.

        Raises:
            ConfigError: the share is out of range.
        """
        if not 0 <= held_out < 1:
            raise ConfigError(f"held_out is {held_out}; it is a share in [0, 1)")
        count = len(self)
        aside = min(max(round(held_out * count), 1), count - 1) if held_out and count > 1 else 0
        order = np.random.default_rng(seed).permutation(count)
        return self.select(sorted(order[aside:])), self.select(sorted(order[:aside]))

    def select(self, indices: Sequence[int] | Iterable[int] | NDArray[np.bool_]) -> Dataset:
        """A view of the episodes at these positions, in this order.

        Args:
            indices: whole numbers, or an array of bool (N,) that is true for the episodes wanted.

        Raises:
            ConfigError: something else was given, or bool for another number of episodes.
            IndexError: there are fewer episodes.
        """
        rows = self.rows
        if isinstance(indices, np.ndarray) and indices.dtype == np.bool_:
            if indices.shape != (len(rows),):
                raise ConfigError(
                    f"the array of bool has the shape {indices.shape}; {len(rows)} episodes need one each"
                )
            indices = np.flatnonzero(indices)
        chosen = [_whole(index, _POSITION) for index in _several(indices)]
        return self._view(tuple(rows[index] for index in chosen), partial=True)

    def without_failures(self) -> Dataset:
        """A view without the episodes that are known to have failed; those that nobody judged stay."""
        return self._view(tuple(row for row in self.rows if row.success != FAILURE), partial=True)

    def with_spec(self, spec: Spec) -> Dataset:
        """A view with names, units, limits and rate attached.

        Raises:
            SpecMismatch: the sizes, or names that both have, differ.
        """
        self.spec.require(spec, what=spec.env_id or "the spec", against=str(self.path))
        return Dataset(self._store, rows=self._all_rows(), spec=spec, partial=self._partial)

    def joined(self, *others: Dataset) -> Dataset:
        """A view of the episodes that this dataset and the others hold now, one dataset after the other.

        Raises:
            SpecMismatch: another one has other channels, units or another rate.
        """
        for other in others:
            self.spec.require(other.spec, what=str(other.path), against=str(self.path))
        return Dataset(Joined((self, *others), self.spec), partial=True)  # each part has left out its own

    def include_partial(self) -> Dataset:
        """A view that also gives the recordings that were interrupted."""
        return self._view(self._all_rows(), partial=True)

    def close(self) -> None:
        """Lets another process write; reading goes on working."""
        if isinstance(self._store, Folder):
            self._store.close()

    def writer(self) -> Folder:
        """The folder behind this dataset, for whoever writes to it.

        Raises:
            DataError: this is a view, or a bare folder.
        """
        if not isinstance(self._store, Folder):
            kind = "bare folder" if isinstance(self._store, BareFolder) else "join of several datasets"
            raise DataError(f"{self.path} is a {kind} and can only be read; import it into a dataset first")
        if self._chosen is not None or self._spec is not None:
            raise DataError(f"this is a view of {self.path} and can only be read; write to the dataset itself")
        return self._store

    def _all_rows(self) -> tuple[Row, ...]:
        return self._store.rows() if self._chosen is None else self._chosen

    def _view(self, rows: tuple[Row, ...], *, partial: bool) -> Dataset:
        return Dataset(self._store, rows=rows, spec=self._spec, partial=partial)


def warn_unnamed(bare: BareFolder) -> None:
    """The one line that a bare folder is opened with."""
    observations, actions = len(bare.spec.observations), len(bare.spec.actions)
    whole = bare.path.resolve().parent
    inside = f" It lies inside the dataset {whole}, which may have dropped some of its episodes: better name that."
    warnings.warn(
        f"{bare.path} is a bare folder: its {observations} observation and {actions} action channels have no names, "
        f"units or rate; name the world (--env ID) to attach them.{inside if (whole / MANIFEST).exists() else ''}",
        DatasetWarning,
        stacklevel=3,
    )


def _several(given: Any) -> Iterable[Any]:
    """What was given, or the one thing that was given, one after the other; a text is one thing."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | bytearray | dict)
    without_axes = isinstance(given, np.ndarray) and not given.ndim
    return given if several and not without_axes else (given,)


def _whole(value: Any, what: str) -> int:
    """The whole number that a value is.

    Raises:
        ConfigError: it is a fraction, a text, true or false, or no number at all.
    """
    try:
        if not isinstance(value, bool | np.bool_):
            return operator.index(value)
    except TypeError:
        pass
    said = " ".join(repr(value).split())[:80]
    raise ConfigError(f"{what} is {said}; accepted: a whole number, and where several are taken, a list of them")


def _listed(ids: list[int]) -> str:
    """Episode ids in few words."""
    if len(ids) > 8:
        return f"{len(ids)} episodes ({ids[0]} to {ids[-1]})"
    return "episode" + ("s " if len(ids) != 1 else " ") + (", ".join(map(str, ids)) or "none")
