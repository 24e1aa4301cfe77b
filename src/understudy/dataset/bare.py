"""A bare folder of `.npz` files: two arrays each, no index, nothing named. It can be read, not written."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from understudy.dataset.archive import read_bytes
from understudy.dataset.episode_file import NotFinite, content_checksum, decode
from understudy.dataset.index import Row
from understudy.episode import Episode
from understudy.errors import CorruptEpisode, DataError
from understudy.spec import Spec


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of a bare folder that cannot be used.

    Args:
        file: its name.
        kind: `not-finite`, `wrong-shape` or `corrupt-file`.
        message: what is wrong with it.
    """

    file: str
    kind: str
    message: str


class BareFolder:
    """Every episode of a bare folder, looked at once.

    Args:
        path: a folder with at least one `.npz` file.

    Raises:
        DataError: it is no such folder, or not one file of it can be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        names = sorted(name for name in os.listdir(path) if name.lower().endswith(".npz"))
        if not names:
            raise DataError(f"{path} is no dataset: it has neither a dataset.json nor an .npz file")
        found: list[tuple[Row, tuple[int, int]]] = []
        for number, name in enumerate(names):
            try:
                data = read_bytes(path / name)
                episode = decode(data, what=name)
            except CorruptEpisode as error:
                self.problems.append(Problem(name, "corrupt-file", str(error)))
            except NotFinite as error:
                self.problems.append(Problem(name, "not-finite", str(error)))
            except DataError as error:
                self.problems.append(Problem(name, "wrong-shape", str(error)))
            else:
                found.append(
                    (_row(number, name, data, episode), (episode.observations.shape[1], episode.actions.shape[1]))
                )
        if not found:
            raise DataError(f"{path}: not one of {len(names)} files can be used; the first: {self.problems[0].message}")
        sizes = Counter(size for _, size in found).most_common(1)[0][0]
        for row, size in found:
            if size != sizes:
                message = (
                    f"{row.file} has {size[0]} observation and {size[1]} action channels; most have {sizes[0]} and "
                    f"{sizes[1]}: leave it out"
                )
                self.problems.append(Problem(row.file, "wrong-shape", message))
        self.spec = Spec.unnamed(*sizes)
        self._rows = tuple(row for row, size in found if size == sizes)

    def rows(self) -> tuple[Row, ...]:
        """The rows of all files that can be used, in the order of their names."""
        return self._rows

    def read(self, row: Row) -> Episode:
        """The episode of a row.

        Raises:
            CorruptEpisode: the file was changed since the folder was opened.
        """
        data = read_bytes(self.path / row.file)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise CorruptEpisode(f"{row.file} was changed since the folder was opened; open it again")
        return decode(data, what=row.file)


def _row(number: int, name: str, data: bytes, episode: Episode) -> Row:
    return Row(
        number,
        len(episode),
        episode.success,
        episode.partial,
        hashlib.sha256(data).hexdigest(),
        name,
        episode.seed,
        content_checksum(episode),
    )
