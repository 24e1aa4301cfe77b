"""Demonstrations from elsewhere: bare folders, the DAPG authors' pickles, Minari."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from understudy.dataset import minari_folder
from understudy.dataset.archive import MOST_NUMBERS, read_bytes
from understudy.dataset.bare import BareFolder
from understudy.dataset.episode_file import from_arrays
from understudy.dataset.folder import Folder
from understudy.dataset.index import MANIFEST, Row
from understudy.dataset.pickles import LARGEST_PICKLE, read_pickle
from understudy.dataset.store import Dataset
from understudy.durable import is_regular
from understudy.episode import Episode
from understudy.errors import DataError
from understudy.spec import Spec

_MINARI = "minari:"


def import_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    env_spec: Spec | None = None,
    *,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Dataset:
    """A new dataset with the episodes of `source`, which is left as it is; whole, or not at all.

    What an import that was killed leaves at `out` is no dataset, and is removed by the next one there.

    Args:
        source: a bare folder of `.npz`; a dataset folder; a `.pickle` of the DAPG authors (a list of dicts of arrays,
            read without unpickling); the folder of a Minari dataset; or `minari:ID` to download one.
        out: a new folder.
        env_spec: spec of the world the episodes come from; where not given, what the source states, or sizes only.
        on_row: called after each episode.

    Returns:
        The dataset, with the writer's lock released.

    Raises:
        DataError: the source is none of these, or damaged; or `out` is not empty.
        SpecMismatch: the episodes have other sizes than the spec, or the source states other names, units or another
            rate.
        DatasetLocked: another process imports into `out`.
        MissingDependency: minari or h5py is needed and not installed.
        StorageError: the disk is full or failed.
    """
    episodes, known = _read(source)
    if env_spec is not None and known is not None and known.observations:
        known.require(env_spec, what="the spec of the world", against=str(source))
    first = next(episodes, None)
    if first is None:
        raise DataError(f"{source} has no episode")
    sizes = Spec.unnamed(first.observations.shape[1], first.actions.shape[1])
    spec = env_spec or known or sizes
    if env_spec is None and known is not None and not known.observations:
        spec = Spec(known.env_id, known.control_hz, sizes.observations, sizes.actions)
    spec.require(sizes, what=str(source), against="the spec of the world")
    existed = Path(out).exists()
    folder = Folder.create(Path(out), spec, unfinished=True)
    with Dataset(folder) as dataset:
        try:
            for episode in chain([first], episodes):
                on_row(dataset.append(episode))
            folder.finish()
        except BaseException:  # Ctrl-C included: the first half of a source must not pass for the whole
            folder.give_up(folder_too=not existed)
            raise
    return dataset


def _read(source: str | os.PathLike[str]) -> tuple[Iterator[Episode], Spec | None]:
    """The episodes of a source, and what is known of their spec (without channels where only the world is named)."""
    text = os.fspath(source)
    path = Path(minari_folder.download(text.removeprefix(_MINARI)) if text.startswith(_MINARI) else text)
    if minari_folder.is_minari_folder(path):
        return minari_folder.read_episodes(path), Spec(minari_folder.env_id(path), 0.0, (), ())
    if path.is_dir() and is_regular(path / MANIFEST):
        dataset = Dataset.open(path)
        return iter(dataset), dataset.spec
    if path.is_dir():
        bare = BareFolder(path)
        if bare.problems:
            raise DataError(
                f"{len(bare.problems)} files of {path} cannot be used; the first: {bare.problems[0].message}"
            )
        return (bare.read(row) for row in bare.rows()), None
    if path.suffix in (".pickle", ".pkl"):
        return _dapg(read_pickle(read_bytes(path, LARGEST_PICKLE)), path.name), None
    raise DataError(
        f"{text} is nothing that can be imported; accepted: a folder of .npz, a .pickle of the DAPG authors, the "
        "folder of a Minari dataset, or minari:ID"
    )


def _dapg(value: Any, name: str) -> Iterator[Episode]:
    """The episodes of the DAPG authors' layout: a list of dicts with observations, actions, rewards, initial state.

    Raises:
        DataError: another layout.
    """
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise DataError(f"{name} is no list of dicts of arrays")
    return (_dapg_episode(entry, f"entry {index} of {name}") for index, entry in enumerate(value))


def _dapg_episode(entry: dict[str, Any], what: str) -> Episode:
    arrays: dict[str, Any] = {name: entry[name] for name in ("observations", "actions", "rewards") if name in entry}
    state = entry.get("init_state_dict", {})
    if isinstance(state, dict):
        arrays |= {f"init_{name}": value for name, value in _arrays(state.items())}
    if not all(isinstance(value, np.ndarray) for value in arrays.values()):
        raise DataError(f"{what} holds something else than arrays")
    if (numbers := sum(array.size for array in arrays.values())) > MOST_NUMBERS:
        raise DataError(f"{what} has {numbers} numbers; at most {MOST_NUMBERS} are read in one episode")
    flags = {name: np.array(entry[name]) for name in ("terminated",) if isinstance(entry.get(name), bool)}
    return from_arrays({**arrays, **flags}, what=what)


def _arrays(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in items if isinstance(value, np.ndarray))
