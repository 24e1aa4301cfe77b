"""The life of a worker process: it takes its runner, then jobs, until the pipe closes. `workers.py` has the pool."""

from __future__ import annotations

import contextlib
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

from understudy.errors import UnderstudyError

Beat = Callable[[], None]
BUILD_PATIENCE_S = 60.0
_POLL_S = 0.1


class Runner(Protocol):
    """What each worker holds; it travels by pickle before `build` and never after."""

    def build(self) -> None:
        """Makes what is needed for the jobs, in the worker."""

    def __call__(self, job: Any, beat: Beat) -> Any:
        """The result of one job; calls `beat` at least every few seconds."""
        ...

    def hear(self, news: Any) -> None:
        """Takes what every worker is told before it does the jobs that follow."""

    def close(self) -> None:
        """Frees what `build` made."""


class Leave:
    """Tells a worker that there are no more jobs."""


class News:
    """What all workers are told, pickled once for all of them."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled


class Failure:
    """An exception that came to an end in a worker, as text: its own class may not exist or not pickle here."""

    def __init__(self, summary: str, details: str) -> None:
        self.summary, self.details = summary, details


def work(connection: Connection, heartbeat: Any) -> None:
    """The life of a worker process: takes its runner, then jobs, until the pipe closes."""
    # Ctrl-C reaches the whole group; the process in front decides, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # for whatever the world starts
    # It built the same world before, so whoever should know of its warnings does.
    warnings.simplefilter("ignore")

    def beat() -> None:
        heartbeat.value = time.monotonic()

    try:
        runner = pickle.loads(connection.recv_bytes())
        try:
            runner.build()
            _say(connection, (None,))
            while True:
                word = _next_word(connection)
                beat()
                if isinstance(word, Leave):
                    return
                if isinstance(word, News):
                    with _beating(beat):  # a policy may bring a large library along
                        runner.hear(pickle.loads(word.pickled))
                else:
                    _say(connection, (runner(word[0], beat),))
        finally:
            runner.close()
    except UnderstudyError as error:
        _say(connection, error)
    except Exception as error:
        _say(connection, Failure(f"raised {type(error).__name__}: {error}", traceback.format_exc()))


@contextlib.contextmanager
def _beating(beat: Beat) -> Iterator[None]:
    """Gives signs of life while something goes on that gives none itself, for as long as building may take."""
    done = threading.Event()

    def go_on() -> None:
        until_s = time.monotonic() + BUILD_PATIENCE_S
        while not done.wait(_POLL_S) and time.monotonic() < until_s:
            beat()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _next_word(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        raise SystemExit from None  # nobody gives jobs any more


def _say(connection: Connection, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        raise SystemExit from None  # nobody listens any more
