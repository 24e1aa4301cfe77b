"""Processes that work through a list of jobs. One that dies or hangs is found, named, and never waited for."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from understudy.errors import ConfigError, UnderstudyError, WorkerError

Beat = Callable[[], None]
PATIENCE_S = 4.5
MOST_WORKERS = 1024
_BUILD_PATIENCE_S = 60.0
_POLL_S = 0.1
_JOIN_S = 5.0
# Each worker holds the next job beside the one it runs, so that it never waits for this process to wake up.
_JOBS_HELD = 2


class Runner(Protocol):
    """What each worker holds; it travels by pickle before `build` and never after."""

    def build(self) -> None:
        """Makes what is needed for the jobs, in the worker."""

    def __call__(self, job: Any, beat: Beat) -> Any:
        """The result of one job; calls `beat` at least every few seconds."""
        ...

    def close(self) -> None:
        """Frees what `build` made."""


class _Worker:
    """One process, the pipe to it, and the moment of its last sign of life.

    A thread listens to the pipe, because nobody else may: reading from a process that was stopped in the middle of
    a message takes for ever. The thread ends when the process is killed.
    """

    def __init__(self, context: Any, index: int, runner: bytes, arrivals: SimpleQueue[_Arrival]) -> None:
        self.index = index
        self.heartbeat = context.RawValue("d", time.monotonic())
        self.excused_s = time.monotonic()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.heartbeat), name=f"worker {index}", daemon=True)
        self.process.start()
        theirs.close()
        self.built = False
        self.jobs: deque[int] = deque()
        self._listener = threading.Thread(target=self._listen, args=(runner, arrivals), daemon=True)
        self._listener.start()

    def give(self, index: int, job: Any) -> None:
        if not self.jobs:
            self.excuse()
        self.jobs.append(index)
        with contextlib.suppress(OSError):  # it died; the listener says so
            self.connection.send(job)

    def excuse(self) -> None:
        """Counts silence from now on: until now nobody was listening, or there was nothing to do."""
        self.excused_s = time.monotonic()

    def silence_s(self) -> float:
        return time.monotonic() - max(float(self.heartbeat.value), self.excused_s)

    def end(self) -> None:
        self.process.join(_JOIN_S)
        self._listener.join(_JOIN_S)
        self.connection.close()

    def _listen(self, runner: bytes, arrivals: SimpleQueue[_Arrival]) -> None:
        try:
            self.connection.send_bytes(runner)
            while True:
                arrivals.put((self, self.connection.recv()))
        except (EOFError, OSError):
            arrivals.put((self, None))
        except Exception:
            arrivals.put((self, _Failure("answered what cannot be read", traceback.format_exc())))


class _Failure:
    """An exception that came to an end in a worker, as text: its own class may not exist or not pickle here."""

    def __init__(self, summary: str, details: str) -> None:
        self.summary, self.details = summary, details


# What a worker says: (result,), an error of Understudy's own, a failure, or None for its death.
_Arrival = tuple[_Worker, tuple[Any] | UnderstudyError | _Failure | None]


class Pool:
    """Workers that are started once and work through jobs; results come in the order of the jobs.

    Args:
        runner: pickled to each worker.
        workers: number of processes.
        patience_s: a worker that gave no sign of life for so long while working is hung.
        build_patience_s: the same while it starts and builds.

    Raises:
        ConfigError: the runner cannot be pickled.
    """

    def __init__(
        self,
        runner: Runner,
        workers: int,
        *,
        patience_s: float = PATIENCE_S,
        build_patience_s: float = _BUILD_PATIENCE_S,
    ) -> None:
        try:
            pickled = pickle.dumps(runner)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"workers are sent their world and agent by pickle, and this one cannot be: {error}; give an id or a "
                "function of a module, or one worker"
            ) from error
        # spawn, not fork: a forked copy of a process with threads (torch, GL) can hang for ever.
        context = multiprocessing.get_context("spawn")
        self._patience_s, self._build_patience_s = patience_s, build_patience_s
        self._arrivals: SimpleQueue[_Arrival] = SimpleQueue()
        self._workers: list[_Worker] = []
        try:
            for index in range(workers):
                self._workers.append(_Worker(context, index, pickled, self._arrivals))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, in order."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def map(self, jobs: Sequence[Any], *, name: Callable[[Any], str] = repr) -> Iterator[Any]:
        """The results of `jobs`, in their order; `name` says in an error which job it was.

        Raises:
            WorkerError: a worker died, hung, or raised what is not one of Understudy's own errors.
        """
        results: dict[int, Any] = {}
        waiting = deque(enumerate(jobs))
        for position in range(len(jobs)):
            while position not in results:
                self._feed(waiting)
                try:
                    worker, message = self._arrivals.get(timeout=_POLL_S)
                except Empty:
                    pass
                else:
                    self._receive(worker, message, jobs, results, name)
                for worker in self._workers:
                    self._check(worker, jobs, name)
            yield results.pop(position)
            for worker in self._workers:
                worker.excuse()  # whoever takes the results may take their time

    def close(self) -> None:
        """Ends every worker, also one that hangs."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _feed(self, waiting: deque[tuple[int, Any]]) -> None:
        for held in range(_JOBS_HELD):
            for worker in self._workers:
                if waiting and worker.built and len(worker.jobs) <= held:
                    worker.give(*waiting.popleft())

    def _receive(
        self,
        worker: _Worker,
        message: tuple[Any] | UnderstudyError | _Failure | None,
        jobs: Sequence[Any],
        results: dict[int, Any],
        name: Callable[[Any], str],
    ) -> None:
        if message is None:
            worker.process.join(timeout=1.0)
            raise WorkerError(f"{_who(worker, jobs, name)} died with exit code {worker.process.exitcode}")
        if isinstance(message, UnderstudyError):
            message.add_note(_who(worker, jobs, name))
            raise message
        if isinstance(message, _Failure):
            error = WorkerError(f"{_who(worker, jobs, name)} {message.summary}")
            error.add_note(message.details)
            raise error
        if not worker.built:
            worker.built = True
        else:
            results[worker.jobs.popleft()] = message[0]
            worker.excuse()

    def _check(self, worker: _Worker, jobs: Sequence[Any], name: Callable[[Any], str]) -> None:
        busy = worker.jobs or not worker.built
        limit_s = self._patience_s if worker.built else self._build_patience_s
        if busy and worker.silence_s() > limit_s:
            raise WorkerError(f"{_who(worker, jobs, name)} hung: no sign of life for {limit_s:g} s; it was stopped")


def _who(worker: _Worker, jobs: Sequence[Any], name: Callable[[Any], str]) -> str:
    idle = "waiting" if worker.built else "building its world"
    doing = name(jobs[worker.jobs[0]]) if worker.jobs else idle
    return f"worker {worker.index} (pid {worker.process.pid}, {doing})"


def _work(connection: Connection, heartbeat: Any) -> None:
    """The life of a worker process: takes its runner, then jobs, until the pipe closes."""
    # Ctrl-C reaches the whole group; the process in front decides, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
                job = _next_job(connection)
                beat()
                _say(connection, (runner(job, beat),))
        finally:
            runner.close()
    except UnderstudyError as error:
        _say(connection, error)
    except Exception as error:
        _say(connection, _Failure(f"raised {type(error).__name__}: {error}", traceback.format_exc()))


def _next_job(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        raise SystemExit from None  # nobody gives jobs any more


def _say(connection: Connection, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        raise SystemExit from None  # nobody listens any more
