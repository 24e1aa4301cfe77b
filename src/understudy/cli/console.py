"""What the terminal shows: lines, and one progress bar. Nothing but this package knows tyro or rich."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_console = Console(highlight=False)
_T = TypeVar("_T")


class Bar:
    """A progress bar with a time left on a terminal; a line now and then where there is none."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._total: int | None = None
        self._next_line = 0.0
        self._begun: tuple[int, float] | None = None
        self._note = ""

    def start(self, what: str, total: int | None) -> None:
        self.stop()
        self._total, self._next_line, self._begun, self._note = total, 0.0, None, ""
        self._task = self._progress.add_task(what, total=total, note="")

    def at(self, done: int, note: str | None = None) -> None:
        """Says how much is done; without a note, the last one stays."""
        assert self._task is not None, "start() comes first"
        self._note = self._note if note is None else note
        self._progress.update(self._task, completed=done, note=self._note)
        self._begun = self._begun or (done, time.monotonic())
        if not self._progress.console.is_terminal and self._total and done >= self._next_line * self._total:
            task = self._progress.tasks[0]
            said = (f"{task.description} {done}/{self._total}", self._left(done), self._note)
            say(" ".join(filter(None, said)))
            self._next_line = done / self._total + 0.1

    def over(self, what: str, items: Sequence[_T]) -> Iterator[_T]:
        """The items, one after the other, with the number of those done on the bar."""
        self.start(what, len(items))
        for done, item in enumerate(items):
            self.at(done)
            yield item
        self.at(len(items))

    def _left(self, done: int) -> str:
        first, since = self._begun or (done, 0.0)
        if self._total is None or done in (first, self._total):
            return ""
        left_s = (time.monotonic() - since) / (done - first) * (self._total - done)
        return f"({timedelta(seconds=round(left_s))} left)"

    def stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextmanager
def progress() -> Iterator[Bar]:
    """A progress bar, for as long as the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal) as progress:
        yield Bar(progress)


def say(text: str) -> None:
    """One line on the screen, not broken where there is no screen and not read as markup."""
    _console.print(text, markup=False, soft_wrap=True)


def tell(text: str) -> None:
    """One line beside the result: a mistake or a warning."""
    print(f"understudy: {_plain(text)}", file=sys.stderr)


def _plain(text: str) -> str:
    """Without the colours and the level that Gymnasium puts before its warnings."""
    return re.sub(r"\x1b\[[0-9;]*m(?:WARN: )?", "", text)
