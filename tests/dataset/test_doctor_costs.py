"""X2: what a small file may cost the doctor, whatever the shape of its arrays."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

from understudy.dataset import Dataset, checks
from understudy.dataset.findings import Findings
from understudy.dataset.index import Row
from understudy.dataset.lag import LagTracker
from understudy.dataset.look import WIDEST, look_at
from understudy.episode import Episode
from understudy.errors import DataError
from understudy.spec import MOST_CHANNELS, Spec

INSPECT = """
import resource, sys, time, warnings
from understudy.dataset import diagnose
warnings.simplefilter("ignore")
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
diagnose(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, time.process_time() - start)
"""
# steps, observation channels, action channels
SHAPES = {
    "wide and wide": (40, 20_000, 20_000),
    "pictures": (100, 64 * 64 * 3, 7),
    "more channels than steps": (60, MOST_CHANNELS, 7),
    "long, deflated": (500_000, 30, 1),
    "as many numbers as are read": (240_000, 60, 8),
    "one channel of each": (8_380_000, 1, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_any_shape_is_inspected_in_bounded_memory_and_time(tmp_path, name):
    steps, observations, actions = SHAPES[name]
    np.savez_compressed(
        tmp_path / "a.npz",
        observations=np.zeros((steps, observations), np.int8),
        actions=np.zeros((steps, actions), np.int8),
    )
    done = subprocess.run([sys.executable, "-c", INSPECT, tmp_path], capture_output=True, text=True, check=True)
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 512
    assert seconds < 4.0, "2 s on a machine that is not busy"


@pytest.mark.parametrize("actions", [False, True])
def test_a_file_of_more_channels_than_there_are_is_refused_at_once(tmp_path, actions):
    sizes = (1, 4_000_000) if actions else (4_000_000, 1)
    np.savez_compressed(
        tmp_path / "a.npz", observations=np.zeros((2, sizes[0]), np.int8), actions=np.zeros((2, sizes[1]), np.int8)
    )
    began_s = time.process_time()
    with pytest.raises(
        DataError, match=rf"{sizes[0]} observation and {sizes[1]} action channels; accepted: up to 131072"
    ):
        Dataset.open(tmp_path)
    assert time.process_time() - began_s < 2.0


def pictures(seed, steps=50, pixels=64 * 64 * 3):
    """Pictures of noise, in which two pixels answer the actions."""
    rng = np.random.default_rng(seed)
    observations, actions = rng.normal(size=(steps + 1, pixels)), rng.normal(size=(steps, 2))
    observations[:, 5000:] = observations[0, 5000:]  # most pixels stand still
    observations[1:, [10, 4000]] = np.cumsum(actions, axis=0)
    return Episode(observations, actions, success=1, rewards=np.ones(steps))


def test_a_lag_in_pictures_is_still_found():
    tracker = tracked([pictures(seed) for seed in range(6)])
    assert tracker.driven.argsort()[-2:].tolist() in ([10, 4000], [4000, 10])
    assert [int(curve.argmax()) for curve in tracker.finish()] == [12] * 6  # lag 0


def tracked(episodes):
    tracker = LagTracker()
    for episode in episodes:
        tracker.add(episode)
    tracker.finish()
    return tracker


def test_what_is_kept_of_pictures_is_small():
    look = looked(pictures(0), 0)
    assert look.path.shape[1] == WIDEST
    assert look.samples.shape[1] == WIDEST + 2


def looked(episode, number):
    row = Row(number, len(episode), 1, False, "0" * 64, f"{number}.npz", number, str(number))
    return look_at(row, episode, Spec.unnamed(episode.observations.shape[1], episode.actions.shape[1]))


def test_the_checks_take_time_in_proportion_to_the_episodes():
    rng = np.random.default_rng(0)
    some = [looked(Episode(rng.normal(size=(61, 39)), rng.normal(size=(60, 28))), number) for number in range(50)]
    looks = [
        dataclasses.replace(
            some[number % 50],
            row=dataclasses.replace(some[number % 50].row, id=number, content=str(number)),
            prefixes=some[number % 50].prefixes + np.uint64(number),
        )
        for number in range(4000)
    ]
    findings = Findings(Spec.unnamed(39, 28), looks, np.ones(39), [])
    for check in (checks.jump, checks.clipped_actions, checks.duplicate_episode, checks.unit_mismatch):
        start = time.process_time()
        list(check(findings))
        assert time.process_time() - start < 3.0, check.__name__


def test_equal_beginnings_of_many_episodes_are_compared_quickly():
    """Every start is the same, and so are the first steps; every length is another."""
    rng = np.random.default_rng(0)
    looks = []
    for number in range(300):
        observations, actions = rng.normal(size=(301 + number, 4)), rng.normal(size=(300 + number, 2))
        observations[:200], actions[:200] = 0.25, 0.5
        looks.append(looked(Episode(observations, actions), number))
    start = time.process_time()
    assert list(checks.duplicate_episode(Findings(Spec.unnamed(4, 2), looks))) == []
    assert time.process_time() - start < 3.0
