"""The terminal as it was before a guard read single keys from it."""

from __future__ import annotations

import contextlib
import os
import termios
from collections.abc import Callable
from typing import Any

_LOCAL_FLAGS = 3  # their place in the settings
_LINES = termios.ICANON | termios.ECHO  # that are typed and shown


class KeptTerminal:
    """Gives a terminal back as it was, where the guard that has set it was killed and cannot.

    Args:
        path: of the terminal; none where empty.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._settings: list[Any] = []
        self._do(self._look)

    def give_back(self) -> None:
        """Sets it as it was, unless somebody else has set it or has it in front."""
        self._do(self._set)

    def _look(self, terminal: int) -> None:
        self._settings = termios.tcgetattr(terminal)

    def _set(self, terminal: int) -> None:
        if self._settings and _is_ours(terminal) and not termios.tcgetattr(terminal)[_LOCAL_FLAGS] & _LINES:
            termios.tcsetattr(terminal, termios.TCSANOW, self._settings)

    def _do(self, what: Callable[[int], None]) -> None:
        with contextlib.suppress(OSError, termios.error):  # no terminal, nothing to give back
            terminal = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                what(terminal)
            finally:
                os.close(terminal)


def _is_ours(terminal: int) -> bool:
    """Whether this command is in front: another one that sets the terminal is halted for it."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True  # not the terminal of this session: no shell hands it on
