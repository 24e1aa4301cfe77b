"""D1, D3, D7: processes are killed at random moments; the judge is the list of what they had acknowledged."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dataset.arms import PacedWorld, Wanderer

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, DatasetWarning, Journal, record
from understudy.dataset.journal_file import JOURNAL
from understudy.errors import DatasetLocked, WorldError
from understudy.rollout import rollout

pytestmark = pytest.mark.usefixtures("quiet")


class Recorder:
    """The forking recorder of recorder.py."""

    def __init__(self):
        script = Path(__file__).with_name("recorder.py")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, mode, folder):
        """Forks a recorder; gives its process id."""
        self._process.stdin.write(f"{mode} {folder}\n")
        self._process.stdin.flush()
        self.said = []
        while True:
            word, *rest = self._process.stdout.readline().split()
            if word == "pid":
                return int(rest[0])
            self.said.append((word, *rest))  # the child may speak first

    def read(self, until="over"):
        """What the recorder says up to a word."""
        while not self.said or self.said[-1][0] != until:
            line = self._process.stdout.readline()
            assert line, "the recorder died"
            self.said.append(tuple(line.split()))
        return self.said

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)


@pytest.fixture(scope="module")
def recorder():
    process = Recorder()
    yield process
    process.close()


def signals(seed):
    """Mostly SIGKILL; now and then SIGTERM, Ctrl-C once, Ctrl-C twice."""
    draw = random.Random(seed)
    while True:
        kind = draw.random()
        if kind < 0.8:
            yield [signal.SIGKILL]
        elif kind < 0.9:
            yield [signal.SIGTERM]
        else:
            yield [signal.SIGINT] * draw.choice([1, 2])


def kill_recorders(recorder, folder, trials, seed=0):
    """Kills so many recorders of one dataset at random moments; gives how many episodes were acknowledged."""
    Dataset.create(folder, PacedWorld())
    draw, kinds, acknowledged, kills = random.Random(seed), signals(seed), {}, 0
    while kills < trials:
        sent = next(kinds)
        pid = recorder.start("save", folder)
        time.sleep(draw.uniform(0, 0.08))
        for number in sent:
            with contextlib.suppress(ProcessLookupError):  # gone after the first of two
                os.kill(pid, number)
            time.sleep(draw.uniform(0, 0.003))
        kills += sent == [signal.SIGKILL]
        for word, *rest in recorder.read():
            if word == "saved":
                assert acknowledged.setdefault(int(rest[0]), rest[1]) == rest[1]
        rows = {row.id: row.content for row in Dataset.open(folder).include_partial().rows}
        assert acknowledged.items() <= rows.items(), f"lost after {kills} kills"
    with Dataset.open(folder) as dataset:
        dataset.writer().begin()  # the last one may have left something to mend
        assert len(list(dataset.include_partial())) == len(dataset.include_partial().rows) >= len(acknowledged)
        assert len({row.content for row in dataset.rows}) == len(dataset), "an episode is there twice"
        assert all(row.length == 12 for row in dataset.rows), "an interrupted episode passes for a whole one"
    return len(acknowledged)


def test_no_acknowledged_episode_is_lost_in_a_hundred_kills(recorder, tmp_path):
    assert kill_recorders(recorder, tmp_path / "data", 100) > 50


@pytest.mark.full
def test_no_acknowledged_episode_is_lost_in_a_thousand_kills(recorder, tmp_path):
    assert kill_recorders(recorder, tmp_path / "data", 1000, seed=1) > 500


def kill_within_episodes(recorder, tmp_path, trials, seed=0):
    draw = random.Random(seed)
    folder = tmp_path / "data"
    Dataset.create(folder, PacedWorld(control_hz=500))
    ids = set()
    for trial in range(trials):
        pid = recorder.start("steps", folder)
        recorder.read("step")
        time.sleep(draw.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        seen = max(int(rest[0]) for word, *rest in recorder.read() if word == "step")
        with Dataset.open(folder) as dataset:
            before = len(dataset.include_partial())
            with pytest.warns(DatasetWarning, match="interrupted recording of .* recovered as partial"):
                dataset.writer().begin()
            whole = dataset.include_partial()
            assert (len(whole), len(dataset)) == (before + 1, 0)
            assert len(dataset.recovered) == 1
            row, episode = whole.rows[-1], whole[-1]
        lost_s = (seen + 1 - len(episode)) / 500
        assert lost_s <= 1.0, f"{lost_s} s lost in trial {trial}"
        assert lost_s <= 0.0, "each step is with the operating system before the next one begins"
        assert row.partial
        assert (row.seed, episode.truncated, episode.success) == (7, True, -1)
        ids.add(row.id)
    assert len(ids) == trials


def test_an_interrupted_episode_loses_no_more_than_a_second_in_fifty_kills(recorder, tmp_path):
    kill_within_episodes(recorder, tmp_path, 50)


@pytest.mark.full
def test_an_interrupted_episode_loses_no_more_than_a_second_in_five_hundred_kills(recorder, tmp_path):
    kill_within_episodes(recorder, tmp_path, 500, seed=1)


def lock_and_kill(recorder, tmp_path, trials):
    folder = tmp_path / "data"
    Dataset.create(folder, PacedWorld())
    for _ in range(trials):
        pid = recorder.start("hold", folder)
        recorder.read("holding")
        with pytest.raises(DatasetLocked, match=f"process {pid} on"):
            Dataset.open(folder).writer().begin()
        os.kill(pid, signal.SIGKILL)
        recorder.read()
        with Dataset.open(folder) as dataset:
            dataset.writer().begin()
            recorder.start("hold", folder)
            assert [word for word, *_ in recorder.read()] == ["locked", "over"]


def test_one_writer_at_a_time_and_a_killed_one_leaves_no_lock(recorder, tmp_path):
    lock_and_kill(recorder, tmp_path, 20)


@pytest.mark.full
def test_one_writer_at_a_time_a_hundred_times(recorder, tmp_path):
    lock_and_kill(recorder, tmp_path, 100)


def test_a_rollout_that_failed_is_kept_as_partial_by_the_next_one(tmp_path):
    class Broken(PacedWorld):
        def step(self, action):
            if len(self.stamps) == 6:
                raise RuntimeError("the arm fell off")
            return super().step(action)

    world = Broken(length=12)
    with Dataset.create(tmp_path / "a", world) as dataset:
        for seed in (1, 2):
            with pytest.raises(WorldError):
                list(record(world, Demonstrator(Wanderer()), dataset, seeds=[seed]))
        assert [(row.seed, row.length, row.partial) for row in dataset.include_partial().rows] == [(1, 5, True)]
    with Dataset.open(tmp_path / "a") as dataset:
        dataset.writer().begin()
        assert [row.seed for row in dataset.include_partial().rows] == [1, 2]
        labels = dataset.include_partial()[1]
        assert labels.labelled.all()
        assert (labels.labels == labels.asked_actions).all()


def test_an_episode_that_was_looked_at_and_not_appended_does_not_come_back(tmp_path):
    world = PacedWorld(length=4)
    with Dataset.create(tmp_path / "a", world) as dataset:
        for seed in (1, 2, 3):
            journal = Journal(dataset, seed=seed)
            rollout(world, Demonstrator(Wanderer()), seed=seed, observers=[journal])
        journal.discard()
        assert len(dataset.include_partial()) == 0
    with Dataset.open(tmp_path / "a") as dataset:
        dataset.writer().begin()
        assert len(dataset.include_partial()) == 0


def test_a_second_unreadable_journal_does_not_replace_the_first(tmp_path):
    Dataset.create(tmp_path / "a", PacedWorld())
    for content in (b"first", b"second", b"third"):
        (tmp_path / "a" / JOURNAL).write_bytes(content)
        with Dataset.open(tmp_path / "a") as dataset:
            dataset.writer().begin()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.unreadable")}
    assert kept == {
        "recording.unreadable": b"first",
        "recording.2.unreadable": b"second",
        "recording.3.unreadable": b"third",
    }


def test_a_damaged_journal_gives_what_is_whole_and_never_stops_a_writer(tmp_path, no_fsync):
    world = PacedWorld(length=30)
    with Dataset.create(tmp_path / "a", world) as dataset:
        rollout(world, Demonstrator(Wanderer()), seed=1, observers=[Journal(dataset, seed=1)])
    data = (tmp_path / "a" / JOURNAL).read_bytes()
    draw, lengths = random.Random(0), []
    for trial in range(60):
        path = tmp_path / f"trial{trial}"
        shutil.copytree(tmp_path / "a", path)
        bad = bytearray(data)
        if trial % 2:
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        else:
            bad = bad[: draw.randrange(len(bad))]
        (path / JOURNAL).write_bytes(bad)
        with Dataset.open(path) as dataset:
            dataset.writer().begin()
            assert not (path / JOURNAL).exists()
            recovered = dataset.include_partial()
            lengths.extend(map(len, recovered))
            assert len(recovered) or (path / "recording.unreadable").exists() or len(bad) < 2000
    assert 20 < len(lengths) < 60
    assert max(lengths) <= 30
    assert len(set(lengths)) > 10
