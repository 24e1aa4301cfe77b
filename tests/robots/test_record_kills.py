"""Promises D1 and D3 for recordings on a robot: whoever is killed loses no episode that was said to be saved."""

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from understudy.dataset import Dataset
from understudy.dataset.folder import DatasetWarning

RATE_HZ = 100
WORDS = ["record", "--robot", "fake", "--robot-arg", f"control_hz={RATE_HZ}", "--episodes", "1000", "--max-steps", "40"]
RUN = "import sys; from understudy.cli import main; sys.exit(main(sys.argv[1:]))"


def start(out):
    words = [sys.executable, "-c", RUN, *WORDS, "--out", str(out)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_after(out, wait_s, number):
    """Records until `wait_s` after the first episode was saved, then sends the signal; the ids said to be saved."""
    process = start(out)
    said = [process.stdout.readline()]
    while not said[-1].startswith("saved"):
        assert said[-1], process.stderr.read()
        said.append(process.stdout.readline())
    time.sleep(wait_s)
    os.kill(process.pid, number)
    rest, _ = process.communicate(timeout=20)
    return [int(found) for found in re.findall(r"^saved (\d+):", "".join(said) + rest, re.MULTILINE)]


def check(tmp_path, kills, seed):
    draw, out, acknowledged = random.Random(seed), tmp_path / "data", []
    for _ in range(kills):
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        acknowledged += killed_after(out, draw.uniform(0.0, 0.9), number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DatasetWarning)  # what was interrupted is recovered as partial
            with Dataset.open(out) as dataset:
                dataset.writer().begin()
                rows = dataset.include_partial().rows
                whole = {row.id for row in rows if not row.partial}
                assert whole >= set(acknowledged), "an episode that was said to be saved is not there"
                assert len(whole) <= len(acknowledged) + kills
                for row in rows:
                    episode = dataset.read(row)
                    assert np.isfinite(episode.observations).all()
                    assert row.partial or len(episode) == 40
    assert len(set(acknowledged)) == len(acknowledged)


def test_three_kills_lose_no_episode_that_was_said_to_be_saved(tmp_path):
    check(tmp_path, 3, seed=0)


@pytest.mark.full
def test_fifty_kills_lose_no_episode_that_was_said_to_be_saved(tmp_path):
    check(tmp_path, 50, seed=1)
