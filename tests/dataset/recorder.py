"""A process that imports once and forks a recorder for each trial, so that a hundred kills take seconds.

It reads one line for each trial, `MODE FOLDER`, answers `pid N`, then whatever the recorder says (`saved ID CONTENT`,
`step N`, ...), and `over STATUS` when the recorder is gone.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import warnings

from dataset.arms import PacedWorld, Wanderer

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, record
from understudy.errors import DatasetLocked
from understudy.rollout import Observer


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


class Announcer(Observer):
    def on_step(self, env, step):
        say(f"step {step.index}")


def save(folder: str) -> None:
    """Records short episodes for ever."""
    world = PacedWorld(length=12)
    with Dataset.open(folder) as dataset:
        for row, _ in record(world, Demonstrator(Wanderer()), dataset, seeds=itertools.count(1000 * os.getpid())):
            say(f"saved {row.id} {row.content}")


def steps(folder: str) -> None:
    """Records one long episode at 500 Hz and says each step."""
    world = PacedWorld(control_hz=500, length=10_000)
    with Dataset.open(folder) as dataset:
        list(record(world, Demonstrator(Wanderer()), dataset, seeds=[7], observers=[Announcer()]))


def hold(folder: str) -> None:
    """Becomes the writer and stays it."""
    with Dataset.open(folder) as dataset:
        try:
            dataset.writer().begin()
        except DatasetLocked as error:
            say(f"locked {error}")
            return
        say("holding")
        time.sleep(60)


def trial(mode: str, folder: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # one that came before waits for this
        {"save": save, "steps": steps, "hold": hold}[mode](folder)
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        mode, folder = line.split()
        pid = os.fork()
        if not pid:
            trial(mode, folder)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"over {status}")


if __name__ == "__main__":
    main()
