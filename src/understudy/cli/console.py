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

from understudy.report.markup import printable


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # which ends a command, instead of an exit that looks like a finding of `inspect`


_console = _Screen(highlight=False, markup=False, emoji=False)  # names of files are what they are
_is_live = _console.is_terminal and not _console.is_dumb_terminal  # whether a bar can move
_T = TypeVar("_T")


class Bar:
    """A progress bar with a time left on a terminal; a line now and then where there is none, or it draws no bars."""

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
        self._task = self._progress.add_task(printable(what), total=total, note="")

    def at(self, done: int, note: str | None = None) -> None:
        """Says how much is done; without a note, the last one stays."""
        assert self._task is not None, "start() comes first"
        self._note = self._note if note is None else note
        self._progress.update(self._task, completed=done, note=self._note)
        self._begun = self._begun or (done, time.monotonic())
        if not _is_live and self._total and (done >= self._next_line * self._total or (note and done == self._total)):
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=_console, transient=True, disable=not _is_live) as progress:
        yield Bar(progress)


def say(text: str) -> None:
    """One line on the screen, not broken where there is no screen; a name out of a file may not steer the terminal."""
    _console.print(printable(text), soft_wrap=True)


def tell(text: str) -> None:
    """One line beside the result: a mistake or a warning."""
    print(f"understudy: {printable(_plain(text))}", file=sys.stderr)


def _plain(text: str) -> str:
    """Without the colours and the level that Gymnasium puts before its warnings."""
    return re.sub(r"\x1b\[[0-9;]*m(?:WARN: )?", "", text)
