"""D6, D7: several who make, write and give up one dataset, in processes, forks and threads; what is cut short."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from dataset.arms import SPEC, PacedWorld, Wanderer, human_episode

from understudy.agent import Demonstrator
from understudy.cli.arguments import growing
from understudy.dataset import Dataset, Journal, diagnose, import_dataset
from understudy.dataset import folder as folder_module
from understudy.dataset.journal_file import JOURNAL, frame, step_type
from understudy.episode import Episode
from understudy.errors import ConfigError, CorruptEpisode, DataError, DatasetLocked
from understudy.rollout import rollout
from understudy.spec import Spec

pytestmark = pytest.mark.usefixtures("no_fsync", "quiet")
EPISODES = [human_episode(np.random.default_rng(seed)) for seed in range(6)]
_FORK = multiprocessing.get_context("fork")


def in_a_fork(action, *arguments):
    """Runs an action in a fork of this process, which may die in it."""
    process = _FORK.Process(target=action, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None


def save(path, numbers):
    with Dataset.open(path) as dataset:
        for number in numbers:
            dataset.append(EPISODES[number])


def filled(path, count=3, first=0):
    Dataset.create(path, SPEC)
    save(path, range(first, first + count))
    return path


def die(*arguments):
    os._exit(9)


# --- who gives up a dataset removes nothing of others ---


def test_who_made_a_dataset_and_saved_nothing_keeps_what_others_saved_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), growing(tmp_path / "a", SPEC):  # noqa: PT012
        in_a_fork(save, tmp_path / "a", range(3))
        raise KeyboardInterrupt
    assert len(list(Dataset.open(tmp_path / "a"))) == 3


def test_who_is_refused_as_a_second_writer_removes_nothing(tmp_path):
    with pytest.raises(DatasetLocked), growing(tmp_path / "a", SPEC) as mine:  # noqa: PT012
        other = Dataset.open(tmp_path / "a")
        other.writer().begin()
        mine.append(EPISODES[0])
    assert other.append(EPISODES[1]).id == 0
    other.close()


def test_a_new_dataset_goes_again_only_where_nothing_ever_came_into_it(tmp_path):
    with growing(tmp_path / "unused", SPEC):
        pass
    assert not (tmp_path / "unused").exists()
    (tmp_path / "there").mkdir()
    with growing(tmp_path / "there", SPEC):
        pass
    assert list((tmp_path / "there").iterdir()) == []
    with growing(tmp_path / "undone", SPEC) as dataset:
        dataset.append(EPISODES[0])
        dataset.undo()
    assert (tmp_path / "undone" / "episodes" / "000000.npz").exists()
    assert len(Dataset.open(tmp_path / "undone")) == 0
    with growing(tmp_path / "noted", SPEC):
        (tmp_path / "noted" / "episodes" / "notes.txt").write_text("mine")
    assert (tmp_path / "noted" / "episodes" / "notes.txt").exists()


# --- an import is whole, or none ---


def source_of(path, count=40):
    path.mkdir()
    for number in range(count):
        np.savez(path / f"{number:03d}.npz", observations=np.ones((9, 3)) * number, actions=np.ones((9, 2)))
    return path


def import_and_die(source, out, after):
    def on_row(row):
        if row.id == after:
            os.kill(os.getpid(), signal.SIGKILL)

    import_dataset(source, out, on_row=on_row)


@pytest.mark.parametrize("after", [0, 17, 39])
def test_an_import_that_is_killed_leaves_no_dataset_and_can_be_repeated(tmp_path, after):
    source = source_of(tmp_path / "source")
    in_a_fork(import_and_die, source, tmp_path / "out", after)
    with pytest.raises(DataError, match=r"import .* is not finished"):
        Dataset.open(tmp_path / "out")
    assert len(list(import_dataset(source, tmp_path / "out"))) == 40
    assert not (tmp_path / "out" / "dataset.unfinished").exists()


def test_an_import_that_is_refused_at_its_first_episode_removes_nothing_of_others(tmp_path):
    state = {"bad name!": np.zeros(3)}
    entry = {"observations": np.zeros((5, 3)), "actions": np.zeros((5, 2)), "init_state_dict": state}
    (tmp_path / "bad.pickle").write_bytes(pickle.dumps([entry]))
    with pytest.raises(DataError, match=r"cannot name an array"):
        import_dataset(tmp_path / "bad.pickle", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    filled(tmp_path / "out")
    with pytest.raises(DataError, match=r"not empty"):
        import_dataset(tmp_path / "bad.pickle", tmp_path / "out")
    assert len(list(Dataset.open(tmp_path / "out"))) == 3


def test_nobody_makes_a_dataset_where_an_import_goes_on(tmp_path):
    def on_row(row):
        with pytest.raises(DatasetLocked):
            Dataset.create(tmp_path / "out", SPEC)

    assert len(import_dataset(source_of(tmp_path / "source", 3), tmp_path / "out", on_row=on_row)) == 3


# --- one creator, one writer ---


def create_and_save(path, start, told, first):
    saved = []
    start.wait()
    try:
        with Dataset.create(path, SPEC) as dataset:
            saved = [dataset.append(EPISODES[first + number]).content for number in range(2)]
    except DataError as error:
        told.put((saved, str(error)))
    else:
        told.put((saved, ""))


def test_two_who_create_one_dataset_at_once_lose_nothing(tmp_path):
    for trial in range(20):
        start, told = _FORK.Barrier(2), _FORK.Queue()
        path = tmp_path / str(trial)
        makers = [_FORK.Process(target=create_and_save, args=(path, start, told, 2 * k)) for k in range(2)]
        for maker in makers:
            maker.start()
        said = [told.get(timeout=60) for _ in makers]
        for maker in makers:
            maker.join()
        there = {row.content for row in Dataset.open(path).rows}
        assert {content for saved, _ in said for content in saved} <= there
        assert all(not why or "not empty" in why or "is writing" in why for _, why in said), said


def test_a_fork_of_the_writer_is_another_process(tmp_path):
    dataset = Dataset.open(filled(tmp_path / "a", 1))
    dataset.append(EPISODES[1])
    told = _FORK.Queue()

    def in_the_fork():
        try:
            dataset.append(EPISODES[2])
        except DatasetLocked as error:
            told.put(str(error))
        else:
            told.put("it was saved")
        dataset.close()

    in_a_fork(in_the_fork)
    assert f"process {os.getpid()} on" in told.get(timeout=10)
    with pytest.raises(DatasetLocked):  # nor did the fork let go of the lock
        Dataset.open(tmp_path / "a").writer().begin()
    dataset.append(EPISODES[3])
    dataset.close()
    assert len(list(Dataset.open(tmp_path / "a"))) == 3


@pytest.mark.parametrize("what", ["index", "file"])
def test_what_something_else_wrote_is_neither_replaced_nor_overrun(tmp_path, what):
    dataset = Dataset.open(filled(tmp_path / "a", 1))
    dataset.append(EPISODES[1])
    if what == "index":
        with open(tmp_path / "a" / "episodes.jsonl", "ab") as file:
            file.write(b"{}\n")
    else:
        (tmp_path / "a" / "episodes" / "000002.npz").write_bytes(b"mine")
    with pytest.raises(CorruptEpisode, match=r"something else wrote to the dataset"):
        dataset.append(EPISODES[2])
    dataset.close()
    kept = (tmp_path / "a" / "episodes" / "000002.npz").exists()
    assert kept == (what == "file")


# --- edits that no reader would take ---


@pytest.mark.parametrize(
    "ids", ["12", b"12", True, [True], [2.9], 2.0, np.array([1.5]), [np.True_], None, [None], {1: 2}]
)
def test_drop_takes_whole_numbers_alone(tmp_path, ids):
    with Dataset.open(filled(tmp_path / "a")) as dataset:
        before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
        with pytest.raises(ConfigError, match=r"the id of an episode is .*; accepted: a whole number"):
            dataset.drop(ids)
    assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before


@pytest.mark.parametrize("ids", [1, np.int64(1), np.array(1), [1, 1], np.array([1]), {1}, (n for n in [1])])
def test_drop_takes_the_whole_numbers_of_numpy(tmp_path, ids):
    with Dataset.open(filled(tmp_path / "a")) as dataset:
        dataset.drop(ids)
    assert [row.id for row in Dataset.open(tmp_path / "a").rows] == [0, 2]


def test_select_takes_positions_or_an_array_of_bool(tmp_path):
    dataset = Dataset.open(filled(tmp_path / "a"))
    assert [row.id for row in dataset.select(np.array([True, False, True])).rows] == [0, 2]
    assert [row.id for row in dataset.select(np.array([2, 0])).rows] == [2, 0]
    assert len(dataset.select([])) == len(dataset.select(np.array([]).astype(int))) == 0
    assert len(dataset[np.int64(1)]) == len(EPISODES[1])
    for wrong in ("01", [0.5], [True], np.array([0.0]), np.array([True])):
        with pytest.raises(ConfigError):
            dataset.select(wrong)
    for wrong in (slice(0, 2), "0", 1.0, True):
        with pytest.raises(ConfigError, match=r"the position of an episode"):
            dataset[wrong]


def test_a_line_that_no_reader_takes_is_never_written(tmp_path):
    with Dataset.open(filled(tmp_path / "a")) as dataset:
        before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
        for body in (
            {"op": "drop", "ids": [True]},
            {"op": "drop", "ids": [0, 0]},
            {"op": "merged", "group": 0},
            {"op": "x"},
        ):
            with pytest.raises(CorruptEpisode), dataset.writer().writing():
                dataset.writer().edit(body)
        assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before
        dataset.append(EPISODES[4])
    assert len(list(Dataset.open(tmp_path / "a"))) == 4


def test_the_number_of_ids_in_a_line_of_the_index_is_bounded(tmp_path):
    folder = folder_module.Folder(filled(tmp_path / "a", 1))
    line = folder.index.line({"op": "drop", "ids": [0] * 1_000_000})
    with open(tmp_path / "a" / "episodes.jsonl", "ab") as file:
        file.write(line)
    with pytest.raises(CorruptEpisode, match=r"line 2 of episodes.jsonl has 20000[0-9]+ bytes"):
        Dataset.open(tmp_path / "a")


def test_a_file_that_only_looks_like_an_episode_stops_no_writer(tmp_path):
    filled(tmp_path / "a", 1)
    (tmp_path / "a" / "episodes" / "0000001.npz").write_bytes(b"x")
    with Dataset.open(tmp_path / "a") as dataset:
        assert dataset.append(EPISODES[1]).id == 1
    assert (tmp_path / "a" / "episodes" / "0000001.npz").read_bytes() == b"x"


# --- merges that are cut short ---


def merge_and_die(path, other, call, at, monkeypatch):
    count, real = 0, getattr(folder_module, call)

    def dying(*arguments):
        nonlocal count
        count += 1
        if count == at:
            die()
        return real(*arguments)

    monkeypatch.setattr(folder_module, call, dying)
    Dataset.open(path).merge(Dataset.open(other))


@pytest.mark.parametrize("call", ["append_line", "write_file"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_merge_that_is_killed_counts_for_nothing_and_can_be_repeated(tmp_path, monkeypatch, call, at):
    path, other = filled(tmp_path / "a", 1), filled(tmp_path / "b", 3, 1)
    in_a_fork(merge_and_die, path, other, call, at, monkeypatch)
    assert len(Dataset.open(path)) == 1
    with Dataset.open(path) as dataset:
        assert len(dataset.merge(Dataset.open(other))) == 3
        assert [row.content for row in dataset.rows[1:]] == [row.content for row in Dataset.open(other).rows]
        assert "merge" in dataset.undo()
        assert len(dataset) == 1
    assert not diagnose(Dataset.open(path)).errors


def record_and_die(path, world, monkeypatch):
    dataset = Dataset.open(path)
    episode = rollout(world, Demonstrator(Wanderer()), seed=77, observers=[Journal(dataset, seed=77)])
    monkeypatch.setattr(folder_module, "append_line", die)  # after the file of the episode, before its line
    dataset.append(episode)


def test_a_merge_that_was_killed_swallows_no_later_recording(tmp_path, monkeypatch):
    world, path, other = PacedWorld(length=5), tmp_path / "a", tmp_path / "b"
    for place in (path, other):
        with Dataset.create(place, world) as dataset:
            for seed in range(3):
                dataset.append(rollout(world, Demonstrator(Wanderer()), seed=seed))
    in_a_fork(merge_and_die, path, other, "write_file", 2, monkeypatch)
    in_a_fork(record_and_die, path, world, monkeypatch)
    with Dataset.open(path) as dataset:
        dataset.writer().begin()
        assert [row.seed for row in dataset.rows] == [0, 1, 2, 77]
        assert not (path / JOURNAL).exists()
        assert "add of episode" in dataset.undo()


def test_a_merge_keeps_the_journal_of_a_recording_that_was_not_saved(tmp_path):
    world, path, other = PacedWorld(length=5), tmp_path / "a", tmp_path / "b"
    with Dataset.create(other, world) as dataset:
        dataset.append(rollout(world, Demonstrator(Wanderer()), seed=1))
    with Dataset.create(path, world) as dataset:
        rollout(world, Demonstrator(Wanderer()), seed=77, observers=[Journal(dataset, seed=77)])
        dataset.merge(Dataset.open(other))
    with Dataset.open(path) as dataset:
        dataset.writer().begin()
        assert [(row.seed, row.partial) for row in dataset.include_partial().rows] == [(1, False), (77, True)]


# --- journals that hold more than an episode ---


def journalled(path, rewards):
    """A dataset with the journal of a recording that was cut short."""
    dataset = Dataset.create(path, Spec.unnamed(1, 1))
    journal = Journal(dataset, seed=5)
    journal.on_start(None, np.zeros(1, np.float32))
    record = np.zeros((), step_type(1, 1))
    for reward, times in rewards:
        record["reward"] = reward
        journal._write(frame(b"S" + record.tobytes()) * times)
    journal._stop()
    dataset.close()
    return Dataset.open(path)


@pytest.mark.parametrize(("steps", "kept"), [(1_700_000, 1_700_000), (2_300_000, None)])
def test_a_journal_over_64_mib_is_recovered_as_far_as_an_episode_goes(tmp_path, steps, kept):
    with journalled(tmp_path / "a", [(0, steps)]) as dataset:
        dataset.writer().begin()
        (row,) = dataset.include_partial().rows
        assert row.partial
        assert (tmp_path / "a" / "recording.rest").exists() == (kept is None)
        assert row.length == kept if kept else 1_800_000 < row.length < steps
        assert len(dataset.include_partial()[0]) == row.length


@pytest.mark.parametrize("before", [0, 1, 49])
def test_steps_before_a_number_that_is_not_finite_are_recovered(tmp_path, before):
    with journalled(tmp_path / "a", [(1.0, before), (np.inf, 1), (1.0, 3)]) as dataset:
        dataset.writer().begin()
        assert [row.length for row in dataset.include_partial().rows] == [before][: bool(before)]
        assert f"its step {before + 1} holds a number that is not finite" in dataset.recovered[0]
        assert (tmp_path / "a" / "recording.rest").exists()
        assert dataset.append(Episode(np.zeros((2, 1)), np.zeros((1, 1)))).id == bool(before)


def test_the_name_of_a_journal_is_durable_before_the_first_step(tmp_path, monkeypatch):
    synced = []
    dataset = Dataset.create(tmp_path / "a", Spec.unnamed(1, 1))
    dataset.writer().begin()
    monkeypatch.setattr("understudy.dataset.journal.sync_folder", synced.append)
    journal = Journal(dataset)
    journal.on_start(None, np.zeros(1, np.float32))
    journal.discard()
    assert synced == [tmp_path / "a"]
    dataset.close()


# --- names out of files ---


def test_no_name_of_a_file_forges_a_line_of_the_terminal(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.zeros((3, 2)), actions=np.zeros((3, 1)))
    (tmp_path / "x\nerror all is well\r\t\u2028.npz").write_bytes(b"bad")
    command = [str(Path(sys.executable).with_name("understudy"))]
    for words in (["inspect", str(tmp_path)], ["import", str(tmp_path), "--out", str(tmp_path / "out")]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60)
        assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error all is well")]
        assert "x\ufffderror all is well" in done.stdout + done.stderr


def test_threads_append_and_drop_one_after_the_other(tmp_path):
    dataset, errors = Dataset.create(tmp_path / "a", SPEC), []

    def work(number):
        try:
            for _ in range(5):
                dataset.append(EPISODES[number])
                dataset.drop(dataset.append(EPISODES[number]).id)
        except DataError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dataset.close()
    assert not errors
    assert len(list(Dataset.open(tmp_path / "a"))) == 20
