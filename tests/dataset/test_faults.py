"""D4: a full disk or an I/O error damages nothing that exists, and is said at once."""

import errno
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from dataset.arms import SPEC, PacedWorld, Wanderer, human_episode

from understudy import durable
from understudy.agent import Demonstrator
from understudy.dataset import Dataset, Journal, record
from understudy.durable import write_file
from understudy.errors import StorageError
from understudy.rollout import rollout

pytestmark = pytest.mark.usefixtures("quiet")
CALLS = ("_os_write", "_os_fsync", "_os_rename")


class Disk:
    """Counts the calls that can fail, and lets the n-th one fail, or that one and all later ones."""

    def __init__(self, monkeypatch, fail_at=None, lasting=False, number=errno.ENOSPC):
        self.count, self.failed = 0, 0
        self._fail_at, self._lasting, self._errno = fail_at, lasting, number
        for name in CALLS:
            monkeypatch.setattr(durable, name, self._wrap(name, getattr(durable, name)))

    def _wrap(self, name, call):
        def failing(*arguments):
            self.count += 1
            if self._fail_at is not None and (
                self.count == self._fail_at or (self._lasting and self.count > self._fail_at)
            ):
                self.failed += 1
                if name == "_os_write":  # a full disk takes a part
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(self._errno, os.strerror(self._errno))
            if name != "_os_fsync":
                return call(*arguments)
            return None

        return failing


EPISODES = [human_episode(np.random.default_rng(seed)) for seed in range(4)]


def made(path):
    with Dataset.create(path, SPEC) as dataset:
        for episode in EPISODES[:2]:
            dataset.append(episode)
    return [row.content for row in dataset.rows]


def one_save(path):
    with Dataset.open(path) as dataset:
        dataset.append(EPISODES[2])


def session(path):
    shutil.rmtree(path)
    with Dataset.create(path, SPEC) as dataset:
        for episode in EPISODES[:3]:
            dataset.append(episode)
        dataset.drop([0])
        dataset.undo()
    other = path.parent / "other"
    with Dataset.open(path) as dataset:
        dataset.merge(Dataset.open(other))
        dataset.append(EPISODES[3])


def failures(monkeypatch, tmp_path, action, lasting, number=errno.ENOSPC):
    """Runs `action` once for each call that can fail, and yields how it ended."""
    template = tmp_path / "template"
    made(template)
    made(tmp_path / "other")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        shutil.copytree(template, tmp_path / "count")
        action(tmp_path / "count")
    for fail_at in range(1, disk.count + 1):
        path = tmp_path / f"fail{fail_at}"
        shutil.copytree(template, path)
        error = None
        with monkeypatch.context() as patch:
            broken = Disk(patch, fail_at, lasting, number)
            start = time.monotonic()
            try:
                action(path)
            except StorageError as raised:
                error = raised
            assert time.monotonic() - start < 1.0
            assert broken.failed
        yield path, error
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["disk full", "I/O error"])
def test_a_failed_save_leaves_what_was_there_and_can_be_repeated(monkeypatch, tmp_path, lasting, number):
    contents = made(tmp_path / "reference")
    kinds = set()
    for path, error in failures(monkeypatch, tmp_path, one_save, lasting, number):
        reader = Dataset.open(path)
        now = [row.content for row in reader.rows]
        assert now[:2] == contents
        if error is not None:
            assert now == contents, "an episode that was not acknowledged is visible"
        assert len(list(reader)) == len(now)  # every file verified
        kinds.add(error is None)
        with monkeypatch.context() as patch:
            Disk(patch)
            with Dataset.open(path) as writer:
                if error is not None:
                    writer.append(EPISODES[2])
                assert len(writer) == 3
                assert not [name for name in os.listdir(path / "episodes") if not name.endswith(".npz")]
    assert False in kinds


def test_a_save_that_failed_is_repeated_on_the_same_open_dataset(monkeypatch, tmp_path):
    made(tmp_path / "a")
    for fail_at in range(1, 30):
        with Dataset.open(tmp_path / "a") as dataset:
            before = len(dataset)
            with monkeypatch.context() as patch:
                broken = Disk(patch, fail_at)
                try:
                    dataset.append(EPISODES[2])
                except StorageError:
                    assert len(dataset) == before
                    dataset.append(EPISODES[2])
            assert len(dataset) == len(Dataset.open(tmp_path / "a")) == before + 1
        if not broken.failed:
            break
    assert len(list(Dataset.open(tmp_path / "a"))) == before + 1


@pytest.mark.full
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_failure_anywhere_in_a_session_leaves_a_dataset_that_opens(monkeypatch, tmp_path, lasting):
    for path, error in failures(monkeypatch, tmp_path, session, lasting):
        if (path / "dataset.json").exists():
            assert len(list(Dataset.open(path))) <= 6
        if error is not None:
            with monkeypatch.context() as patch:
                Disk(patch)
                dataset = Dataset.open(path) if (path / "dataset.json").exists() else Dataset.create(path, SPEC)
                before = len(dataset)
                with dataset:
                    dataset.append(EPISODES[0])
                assert len(Dataset.open(path)) == before + 1


def test_a_file_size_limit_of_the_system_is_a_storage_error(tmp_path):
    contents = made(tmp_path / "a")
    script = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from dataset.arms import human_episode
from understudy.dataset import Dataset
from understudy.errors import StorageError
dataset = Dataset.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for _ in range(2):
    try:
        dataset.append(human_episode(np.random.default_rng(9)))
    except StorageError as error:
        print(type(error).__name__, error)
"""
    folder = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a"), folder], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("StorageError saving 000002.npz failed: File too large; free some space") == 2
    again = Dataset.open(tmp_path / "a")
    assert [row.content for row in again.rows] == contents
    assert sorted(os.listdir(tmp_path / "a" / "episodes")) == ["000000.npz", "000001.npz"]


def test_a_disk_that_fills_up_while_recording_stops_the_rollout_and_keeps_what_was_seen(monkeypatch, tmp_path):
    world = PacedWorld(length=30)
    Dataset.create(tmp_path / "template", world)
    lengths = []
    for fail_at in range(1, 33):
        path = tmp_path / str(fail_at)
        shutil.copytree(tmp_path / "template", path)
        with Dataset.open(path) as dataset, monkeypatch.context() as patch:
            Disk(patch, fail_at, lasting=True)
            with pytest.raises(StorageError, match="free some space"):
                next(record(world, Demonstrator(Wanderer()), dataset, seeds=[3]))
        with Dataset.open(path) as dataset:
            dataset.writer().begin()
            assert len(dataset) == 0
            lengths.extend(map(len, dataset.include_partial()))
    assert lengths == [*range(1, 31), 30][: len(lengths)]
    assert len(lengths) >= 29


def test_a_recording_whose_save_failed_is_kept_when_the_session_records_on(monkeypatch, tmp_path):
    world = PacedWorld(length=12)
    with Dataset.create(tmp_path / "a", world) as dataset:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "_os_rename", lambda *paths: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            with pytest.raises(StorageError, match="free some space"):
                next(record(world, Demonstrator(Wanderer()), dataset, seeds=[1]))
            with pytest.raises(StorageError, match="free some space"):  # nor is it given up for the next one
                next(record(world, Demonstrator(Wanderer()), dataset, seeds=[2]))
        list(record(world, Demonstrator(Wanderer()), dataset, seeds=[3]))
        rows = dataset.include_partial().rows
        assert [(row.seed, row.length, row.partial) for row in rows] == [(1, 12, True), (3, 12, False)]
        # What was recorded and not appended is forgotten again from here on.
        for seed in (4, 5):
            rollout(world, Demonstrator(Wanderer()), seed=seed, observers=[Journal(dataset, seed=seed)])
        assert dataset.include_partial().rows == rows


def test_a_save_that_failed_and_was_repeated_leaves_no_second_copy(monkeypatch, tmp_path):
    world = PacedWorld(length=12)
    with Dataset.create(tmp_path / "a", world) as dataset:
        episode = rollout(world, Demonstrator(Wanderer()), seed=1, observers=[Journal(dataset, seed=1)])
        with monkeypatch.context() as patch:
            Disk(patch, 2)
            with pytest.raises(StorageError):
                dataset.append(episode)
        dataset.append(episode)
        list(record(world, Demonstrator(Wanderer()), dataset, seeds=[2]))
        assert [(row.seed, row.partial) for row in dataset.include_partial().rows] == [(1, False), (2, False)]


def test_a_journal_that_cannot_be_made_durable_says_so(monkeypatch, tmp_path):
    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("understudy.dataset.journal.os.fdatasync", broken)
    world = PacedWorld(control_hz=100, length=200)
    with Dataset.create(tmp_path / "a", world) as dataset:
        start = time.monotonic()
        with pytest.raises(StorageError, match="making the journal durable failed"):
            next(record(world, Demonstrator(Wanderer()), dataset, seeds=[3]))
        assert time.monotonic() - start < 1.0
    with Dataset.open(tmp_path / "a") as dataset:
        dataset.writer().begin()
        assert len(dataset.include_partial()[0]) > 10


def test_a_private_file_stays_private_when_it_is_written_again(tmp_path):
    path = tmp_path / "secret.json"
    write_file(path, b"1")
    path.chmod(0o600)
    write_file(path, b"2")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"2", 0o600)
