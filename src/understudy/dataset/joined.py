"""Several datasets of one task, read as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from understudy.dataset.index import Row
from understudy.episode import Episode
from understudy.spec import Spec


class Part(Protocol):
    """A dataset, as far as a join reads it."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its episodes."""
        ...

    def read(self, row: Row) -> Episode:
        """One of them, verified."""
        ...


class Joined:
    """The episodes that `parts` hold now, one part after the other. Nothing is copied, and nothing can be written.

    Args:
        parts: at least one.
        spec: of all of them.
    """

    def __init__(self, parts: Sequence[Part], spec: Spec) -> None:
        self.path, self.spec = parts[0].path, spec
        # Two parts may hold equal rows; then they hold equal episodes, and either may be read.
        self._part_of = {row: part for part in parts for row in part.rows}
        self._rows = tuple(row for part in parts for row in part.rows)

    def rows(self) -> tuple[Row, ...]:
        """The rows of all parts, in their order."""
        return self._rows

    def read(self, row: Row) -> Episode:
        """The episode of a row, verified."""
        return self._part_of[row].read(row)
