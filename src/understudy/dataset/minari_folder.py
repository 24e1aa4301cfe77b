"""A Minari dataset on disk: `metadata.json` and `data/main_data.hdf5`, one group for each episode."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.dataset import strict_json
from understudy.dataset.archive import LARGEST_EPISODE, read_bytes
from understudy.durable import is_regular
from understudy.episode import FAILURE, SUCCESS, UNKNOWN, Episode
from understudy.errors import CorruptEpisode, DataError, MissingDependency

_METADATA, _DATA = "metadata.json", Path("data") / "main_data.hdf5"
_EPISODE = re.compile(r"episode_(0|[1-9][0-9]{0,8})")
_LARGEST_METADATA = 4 * 2**20
_OPTIONS = ("options/initial_state_dict/", "options/initial_state/")


def is_minari_folder(path: Path) -> bool:
    """Whether a folder has the two files of a Minari dataset."""
    return is_regular(path / _METADATA) and is_regular(path / _DATA)


def download(name: str) -> Path:
    """The folder of a Minari dataset, downloaded where it is not there yet.

    Args:
        name: for example `D4RL/door/human-v2`.

    Raises:
        MissingDependency: minari is not installed.
        DataError: minari cannot get the dataset.
    """
    minari = _import("minari")
    try:
        data: Any = minari.load_dataset(name, download=True).storage.data_path
    except Exception as error:  # minari raises whatever its storage, its network or its parser does
        raise DataError(f"minari cannot load {name!r}: {error}") from error
    return Path(data).parent


def env_id(path: Path) -> str:
    """The id of the world that a Minari dataset comes from; empty where it says none.

    Raises:
        DataError: its metadata are damaged.
    """
    world = _metadata(path).get("env_spec")
    if not isinstance(world, str):
        return ""
    spec = strict_json.loads(world.encode(), what="env_spec", largest=_LARGEST_METADATA)
    name = spec.get("id", "") if isinstance(spec, dict) else ""
    return name if isinstance(name, str) and name.isprintable() and len(name) <= 200 else ""


def read_episodes(path: Path) -> Iterator[Episode]:
    """The episodes of a Minari dataset in their order, with rewards, terminations, truncations and success.

    Observations of dict spaces are flattened in the order of the space that the metadata state. HDF5 files are read
    by the HDF5 library, which is no guard against hostile files: read what you trust. Links to other files are
    refused all the same.

    Raises:
        MissingDependency: h5py is not installed.
        DataError: the folder is not as Minari writes it, or lacks episodes.
    """
    h5py = _import("h5py")
    metadata = _metadata(path)
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise DataError(f"{path} is in Minari's {str(metadata['data_format'])[:20]!r} format; only hdf5 is read")
    spaces = {kind: _space(metadata, f"{kind}_space") for kind in ("observation", "action")}
    try:
        file = h5py.File(path / _DATA, "r")
    except OSError as error:
        raise CorruptEpisode(f"{path / _DATA} is no HDF5 file: {error}") from None
    with file:
        numbers = sorted(int(match[1]) for name in file if (match := _EPISODE.fullmatch(name)))
        _require_whole(numbers, metadata.get("total_episodes"), path)
        for number in numbers:
            what = f"episode_{number} of {path.name}"
            try:
                yield _episode(h5py, _child(h5py, file, f"episode_{number}", what), spaces, what)
            except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
                if isinstance(error, DataError):
                    raise
                raise CorruptEpisode(f"{what} cannot be read: {error}") from None


def _require_whole(numbers: list[int], stated: Any, path: Path) -> None:
    """Refuses a file that lacks episodes between those that are there, or has not as many as the metadata state."""
    total = stated if isinstance(stated, int) and not isinstance(stated, bool) else len(numbers)
    if len(numbers) == total and numbers[-1:] in ([], [total - 1]):
        return
    missing = next((at for at, number in enumerate(numbers) if number != at), len(numbers))
    lacks = f"; the first that is missing is episode_{missing}" if missing < max(total, *numbers, 0) else ""
    raise CorruptEpisode(
        f"{path / _DATA} holds {len(numbers)} episodes, and its {_METADATA} states {total}{lacks}; nothing was read: "
        "get a whole copy"
    )


def _episode(h5py: Any, group: Any, spaces: dict[str, Any], what: str) -> Episode:
    observations = _flat(h5py, group, "observations", spaces["observation"], what)
    actions = _flat(h5py, group, "actions", spaces["action"], what)
    ends = {name: _column(h5py, group, name, what).astype(bool) for name in ("terminations", "truncations")}
    succeeded, success = _success(h5py, group, len(actions), what)
    attributes = dict(group.attrs)
    seed = attributes.get("seed")
    return Episode(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=_column(h5py, group, "rewards", what).astype(np.float32),
        succeeded=succeeded,
        terminated=bool(ends["terminations"][-1]),
        truncated=bool(ends["truncations"][-1]),
        success=success,
        seed=int(seed) if isinstance(seed, (int, np.integer)) and seed >= 0 else -1,
        initial_state={
            name.removeprefix(prefix): np.asarray(value)
            for prefix in _OPTIONS
            for name, value in attributes.items()
            if name.startswith(prefix)
        },
    )


def _success(h5py: Any, group: Any, steps: int, what: str) -> tuple[NDArray[np.bool_], int]:
    """Success at each step (T,), and the verdict; infos carry one row for the reset and one for each step."""
    unknown = np.zeros(steps, bool), UNKNOWN
    if "infos" not in group:
        return unknown
    infos = _child(h5py, group, "infos", what)
    names = [name for name in ("success", "is_success") if isinstance(infos, h5py.Group) and name in infos]
    if not names:
        return unknown
    flags = _column(h5py, infos, names[0], what).reshape(-1).astype(bool)[-steps:]
    if len(flags) != steps:
        return unknown
    good = flags.any() if names[0] == "success" else flags[-1]
    return flags, SUCCESS if good else FAILURE


def _flat(h5py: Any, group: Any, name: str, space: Any, what: str) -> NDArray[Any]:
    """A column of any shape, or a group of columns, as one array (T, channels)."""
    child = _child(h5py, group, name, what)
    if isinstance(child, h5py.Group):
        parts = space.get("subspaces") if isinstance(space, dict) else None
        if isinstance(parts, list):
            parts = {f"_index_{index}": part for index, part in enumerate(parts)}
        inner = parts if isinstance(parts, dict) else {}
        keys = [key for key in inner if key in child] or sorted(child)
        return np.concatenate([_flat(h5py, child, key, inner.get(key), what) for key in keys], axis=1)
    column = _column(h5py, group, name, what)
    return column.reshape(len(column), -1)


def _column(h5py: Any, group: Any, name: str, what: str) -> NDArray[Any]:
    dataset = _child(h5py, group, name, what)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
        raise CorruptEpisode(f"{what}: {name} is no array of numbers")
    if dataset.external or dataset.is_virtual:
        raise CorruptEpisode(f"{what}: {name} lies in another file; it is not read")
    if not dataset.shape or math.prod(dataset.shape) * 8 > LARGEST_EPISODE:
        raise CorruptEpisode(f"{what}: {name} declares the shape {dataset.shape}, which is too large or empty")
    return np.asarray(dataset[()])


def _child(h5py: Any, group: Any, name: str, what: str) -> Any:
    link = group.get(name, getlink=True)
    if link is None:
        raise CorruptEpisode(f"{what} has no {name}")
    if not isinstance(link, h5py.HardLink):
        raise CorruptEpisode(f"{what}: {name} is a link to somewhere else; it is not followed")
    return group[name]


def _metadata(path: Path) -> dict[str, Any]:
    metadata = strict_json.loads(
        read_bytes(path / _METADATA, _LARGEST_METADATA), what=f"{path / _METADATA}", largest=_LARGEST_METADATA
    )
    if not isinstance(metadata, dict):
        raise DataError(f"{path / _METADATA} is no JSON object")
    return metadata


def _space(metadata: dict[str, Any], name: str) -> Any:
    text = metadata.get(name)
    if not isinstance(text, str):
        return None
    # The limits of a box without limits are written as Infinity.
    return strict_json.loads(text.encode(), what=name, largest=_LARGEST_METADATA, infinite=True)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f'{name} is not installed; it is needed for Minari\'s datasets: pip install -e ".[minari]" in a clone'
        ) from error
