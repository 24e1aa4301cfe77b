"""The stop button in the guard's process: keys at the terminal, signals, and the API."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any

from understudy.robots.guard import Guard
from understudy.robots.safety import Kind
from understudy.robots.wire import SOCKET_TYPE

STOP_KEYS = " \x1b"  # space and escape


class StopButton:
    """The stop button in the guard's process: a thread that nothing else keeps waiting.

    It listens to the button's socket, to signals, and to the terminal, and looks after calls of the driver that hang.

    Args:
        guard: who is told to stop.
        button: each message on it is a press, and its reason.
        keyboard: path of a terminal; no keys where empty.
        beside: what else is done regularly, whatever the guard's own thread waits for.
    """

    def __init__(
        self, guard: Guard, button: socket.socket, keyboard: str, beside: Callable[[], None] = lambda: None
    ) -> None:
        self._guard, self._button, self._beside = guard, button, beside
        self._keys: list[str] = []
        self.ended = False
        self._terminal: int | None = None
        self._is_ours = False  # the terminal, with the settings that single keys need
        self._settings: list[Any] = []  # before that
        self._cbreak: list[Any] = []  # of single keys
        if keyboard:
            with contextlib.suppress(OSError):  # no terminal, no keys; the other buttons remain
                # Somebody else may read the key first, and then nothing must wait for the next one.
                self._terminal = os.open(keyboard, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._own, self._signals = socket.socketpair(socket.AF_UNIX, SOCKET_TYPE)
        stopping = (signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM)
        for number in stopping:
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGCONT, self._continued)
        for number in (signal.SIGTTOU, signal.SIGTTIN):  # a guard that asks for the terminal is not to be halted for it
            signal.signal(number, signal.SIG_IGN)
        self._take_terminal()
        threading.Thread(target=self._run, name="stop button", daemon=True).start()

    def take_keys(self) -> str:
        keys, self._keys = self._keys, []
        return "".join(keys)

    def close(self) -> None:
        """Gives the terminal back as it was; one that somebody else has set otherwise stays so."""
        if self._terminal is not None and self._settings:
            with contextlib.suppress(OSError, termios.error):
                if termios.tcgetattr(self._terminal) == self._cbreak:
                    termios.tcsetattr(self._terminal, termios.TCSANOW, self._settings)

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            self.ended = True
        self._signals.send(f"{signal.Signals(number).name}".encode())

    def _continued(self, number: int, frame: object) -> None:
        self._is_ours = False  # a shell that was in front meanwhile has settings of its own

    def _take_terminal(self) -> bool:
        """Whether keys are meant for us. After Ctrl-Z they are the shell's, until this command is in front again."""
        if self._terminal is None:
            return False
        try:
            if os.tcgetpgrp(self._terminal) != os.getpgrp():
                self._is_ours = False
                return False
        except OSError:
            pass  # not the terminal of this session: no shell hands it to one command and then another
        if not self._is_ours:
            with contextlib.suppress(OSError, termios.error):
                self._settings = self._settings or termios.tcgetattr(self._terminal)
                tty.setcbreak(self._terminal)
                self._cbreak = termios.tcgetattr(self._terminal)
            self._is_ours = True
        return True

    def _run(self) -> None:
        sources: list[Any] = [self._button, self._own]
        if self._terminal is not None:
            sources.append(self._terminal)
        while True:
            self._turn(sources)

    def _turn(self, sources: list[Any]) -> None:
        hidden = None if self._take_terminal() else self._terminal
        heard = [source for source in sources if source is not hidden]
        ready, _, _ = select.select(heard, [], [], self._guard.supervised_s)
        for source in ready:
            self._listen(source, sources)
        self._guard.supervise()
        self._beside()

    def _listen(self, source: Any, sources: list[Any]) -> None:
        if source is self._terminal and self._terminal is not None:
            try:
                key = os.read(self._terminal, 1).decode(errors="replace")
            except BlockingIOError:
                return
            except OSError:
                key = ""
            if not key:  # it is gone; the other buttons remain
                sources.remove(source)
            elif key in STOP_KEYS:
                self._press("the stop key was pressed")
            else:
                self._keys.append(key)
            return
        data = source.recv(4096)
        if not data:
            sources.remove(source)
        elif source is self._own:
            self._press(f"{data.decode()} came")
        else:
            self._press(data.decode(errors="replace"))

    def _press(self, reason: str) -> None:
        self._guard.stop(f"{Kind.BUTTON}: {reason}", Kind.BUTTON)
