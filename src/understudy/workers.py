"""Processes that work through a list of jobs. One that dies or hangs is found, named, and never waited for.

Where a pool may replace its workers, a new process takes the place of a broken one and does its jobs anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from typing import Any

from understudy.errors import ConfigError, UnderstudyError, WorkerError
from understudy.worker_process import BUILD_PATIENCE_S, Failure, Leave, News, Runner, work

PATIENCE_S = 4.5
MOST_WORKERS = 1024
_POLL_S = 0.1
_STOPPED_S = 1.0  # a loop that is so late was not slow, it was stopped
_JOIN_S = 5.0
_LEAVE_S = 2.0  # in which an idle worker closes its world
_DEAD_S = 1.0  # in which the last words of a process that ended arrive
# Each worker holds the next job beside the one it runs, so that it never waits for this process to wake up.
_JOBS_HELD = 2
# A job that broke so many workers breaks the next one, too.
_TRIALS = 3


class _Worker:
    """One process, the pipe to it, and the moment of its last sign of life.

    A thread listens to the pipe and another one speaks, because nobody else may: reading from a process that was
    stopped in the middle of a message takes for ever, and so does writing to one. Both end when the process is killed.
    """

    def __init__(self, context: Any, index: int, runner: bytes, arrivals: SimpleQueue[_Arrival]) -> None:
        self.index = index
        self.heartbeat = context.RawValue("d", time.monotonic())
        self.excused_s = time.monotonic()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.heartbeat), name=f"worker {index}", daemon=True)
        with _no_ctrl_c():
            self.process.start()
        theirs.close()
        self.built = False
        self._ended_s: float | None = None
        self.news: News | None = None
        self.jobs: deque[int] = deque()
        self._words: SimpleQueue[Any] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, args=(arrivals,), daemon=True)
        self._speaker = threading.Thread(target=self._speak, args=(runner,), daemon=True)
        self._listener.start()
        self._speaker.start()

    def give(self, index: int, job: Any, news: News | None) -> None:
        if not self.jobs:
            self.excuse()
        self.jobs.append(index)
        if news is not self.news:
            self.news = news
            self._words.put(news)
        self._words.put((job,))

    def excuse(self) -> None:
        """Counts silence from now on: until now nobody was listening, or there was nothing to do."""
        self.excused_s = time.monotonic()

    def silence_s(self) -> float:
        return time.monotonic() - max(float(self.heartbeat.value), self.excused_s)

    def leave(self) -> None:
        """Asks an idle worker to close its world and end."""
        self._words.put(Leave())

    def is_dead(self) -> bool:
        """Whether the process ended a while ago; a child of it may hold the pipe open, so the listener cannot tell."""
        if self._ended_s is None and self.process.exitcode is not None:
            self._ended_s = time.monotonic()
        return self._ended_s is not None and time.monotonic() - self._ended_s > _DEAD_S

    def end(self) -> None:
        self._words.put(None)
        self.process.join(_JOIN_S)
        self._listener.join(_JOIN_S)
        self._speaker.join(_JOIN_S)
        self.connection.close()

    def _speak(self, runner: bytes) -> None:
        with contextlib.suppress(OSError):  # it died; the listener says so
            self.connection.send_bytes(runner)
            while (word := self._words.get()) is not None:
                self.connection.send(word)

    def _listen(self, arrivals: SimpleQueue[_Arrival]) -> None:
        try:
            while True:
                arrivals.put((self, self.connection.recv()))
        except (EOFError, OSError):
            arrivals.put((self, None))
        except Exception:
            arrivals.put((self, Failure("answered what cannot be read", traceback.format_exc())))


# What a worker says: (result,), an error of Understudy's own, a failure, or None for its death.
_Arrival = tuple[_Worker, tuple[Any] | UnderstudyError | Failure | None]


class Pool:
    """Workers that are started once and work through jobs; results come in the order of the jobs.

    Args:
        runner: pickled to each worker.
        workers: number of processes.
        patience_s: a worker that gave no sign of life for so long while working is hung.
        build_patience_s: the same while it starts and builds.
        on_broken: where given, a worker that was built and then dies or hangs is replaced, and this is called with the
            error that names it. A job that breaks three workers raises all the same, and so does a worker that
            cannot build: the next one could not either.

    Raises:
        ConfigError: the runner cannot be pickled.
    """

    def __init__(
        self,
        runner: Runner,
        workers: int,
        *,
        patience_s: float = PATIENCE_S,
        build_patience_s: float = BUILD_PATIENCE_S,
        on_broken: Callable[[WorkerError], None] | None = None,
    ) -> None:
        self._runner = _pickled(runner)
        # spawn, not fork: a forked copy of a process with threads (torch, GL) can hang for ever.
        self._context = multiprocessing.get_context("spawn")
        self._patience_s, self._build_patience_s, self._on_broken = patience_s, build_patience_s, on_broken
        self._arrivals: SimpleQueue[_Arrival] = SimpleQueue()
        self._news: News | None = None
        self._workers: list[_Worker] = []
        try:
            for index in range(workers):
                self._workers.append(self._worker(index))
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

    def tell(self, news: Any) -> None:
        """Gives `news` to every worker's `Runner.hear` before the jobs that follow; the last news hold.

        Raises:
            ConfigError: they cannot be pickled.
        """
        self._news = News(_pickled(news))

    def map(self, jobs: Sequence[Any], *, name: Callable[[Any], str] = repr) -> Iterator[Any]:
        """The results of `jobs`, in their order; `name` says in an error which job it was.

        Raises:
            WorkerError: a worker died or hung and may not be replaced, or raised what is not one of Understudy's own
                errors.
        """
        round_ = _Round(jobs, name)
        self._forget()
        turned_s = time.monotonic()
        for position in range(len(jobs)):
            while position not in round_.results:
                self._feed(round_)
                try:
                    worker, message = self._arrivals.get(timeout=_POLL_S)
                except Empty:
                    pass
                else:
                    self._receive(worker, message, round_)
                now_s = time.monotonic()
                if now_s - turned_s > _POLL_S + _STOPPED_S:
                    for worker in self._workers:
                        worker.excuse()  # this process was stopped, as by Ctrl-Z, and the workers with it
                turned_s = now_s
                for worker in tuple(self._workers):
                    if self._arrivals.empty() and worker.is_dead():  # what it still said comes first
                        self._receive(worker, None, round_)
                    else:
                        self._check(worker, round_)
            yield round_.results.pop(position)
            for worker in self._workers:
                worker.excuse()  # whoever takes the results may take their time
            turned_s = time.monotonic()

    def close(self) -> None:
        """Ends every worker: one that is idle closes its world first, and what hangs is killed."""
        idle = [worker for worker in self._workers if worker.built and not worker.jobs]
        for worker in idle:
            worker.leave()
        until_s = time.monotonic() + _LEAVE_S
        for worker in idle:
            worker.process.join(max(0.0, until_s - time.monotonic()))
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _forget(self) -> None:
        """Replaces the workers that still have jobs of a list that was left early: their results are nobody's."""
        for worker in tuple(self._workers):
            if worker.jobs:
                worker.process.kill()
                worker.end()
                self._workers[worker.index] = self._worker(worker.index)

    def _worker(self, index: int) -> _Worker:
        return _Worker(self._context, index, self._runner, self._arrivals)

    def _feed(self, round_: _Round) -> None:
        for held in range(_JOBS_HELD):
            for worker in self._workers:
                if round_.waiting and worker.built and len(worker.jobs) <= held:
                    worker.give(*round_.waiting.popleft(), self._news)

    def _receive(self, worker: _Worker, message: tuple[Any] | UnderstudyError | Failure | None, round_: _Round) -> None:
        if worker not in self._workers:
            return  # it was replaced; what it still had to say is done anew
        if message is None:
            worker.process.join(timeout=1.0)
            said = f"{_who(worker, round_)} died with exit code {worker.process.exitcode}"
            if not worker.built:
                said += '; a script that asks for workers needs its own code under `if __name__ == "__main__":`'
            self._broken(worker, WorkerError(said), round_)
        elif isinstance(message, UnderstudyError):
            message.add_note(_who(worker, round_))
            raise message
        elif isinstance(message, Failure):
            error = WorkerError(f"{_who(worker, round_)} {message.summary}")
            error.add_note(message.details)
            raise error
        elif not worker.built:
            worker.built = True
        else:
            round_.results[worker.jobs.popleft()] = message[0]
            worker.excuse()

    def _check(self, worker: _Worker, round_: _Round) -> None:
        busy = worker.jobs or not worker.built
        limit_s = self._patience_s if worker.built else self._build_patience_s
        if busy and worker.silence_s() > limit_s:
            who = _who(worker, round_)
            error = WorkerError(
                f"{who} hung: no sign of life for {limit_s:g} s; it was stopped; if the world takes so long for a "
                "reset or a step, run with one worker"
            )
            self._broken(worker, error, round_)

    def _broken(self, worker: _Worker, error: WorkerError, round_: _Round) -> None:
        """Puts a new worker in the place of a broken one, which did not finish its jobs, or raises."""
        if self._on_broken is None or not worker.built or not round_.may_try_again(worker):
            raise error
        self._on_broken(error)
        worker.process.kill()
        worker.end()
        round_.give_back(worker)
        self._workers[worker.index] = self._worker(worker.index)


class _Round:
    """The jobs of one `map`: those that wait, the results that came, and how often each broke a worker."""

    def __init__(self, jobs: Sequence[Any], name: Callable[[Any], str]) -> None:
        self.jobs, self.name = jobs, name
        self.waiting = deque(enumerate(jobs))
        self.results: dict[int, Any] = {}
        self._breaks: Counter[int | None] = Counter()

    def may_try_again(self, worker: _Worker) -> bool:
        """Counts that a worker broke at its first job, or at none, and says whether another one may try it."""
        job = worker.jobs[0] if worker.jobs else None
        self._breaks[job] += 1
        return self._breaks[job] < _TRIALS

    def give_back(self, worker: _Worker) -> None:
        """The jobs of a worker wait again, before all others."""
        self.waiting.extendleft((index, self.jobs[index]) for index in reversed(worker.jobs))


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """A process that is started within hears no Ctrl-C, which reaches the whole group, while it still imports."""
    resource_tracker.ensure_running()  # else it begins with the first process, and unblocks what was blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"workers are sent their world and agent by pickle, and this one cannot be: {error}; give an id or a "
            "function of a module, or one worker"
        ) from error


def _who(worker: _Worker, round_: _Round) -> str:
    idle = "waiting" if worker.built else "building its world"
    doing = round_.name(round_.jobs[worker.jobs[0]]) if worker.jobs else idle
    return f"worker {worker.index} (pid {worker.process.pid}, {doing})"
