from dataclasses import replace

import numpy as np
import pytest

from tests.datasets import SPEC, point_dataset, point_episode
from understudy.dataset import Dataset
from understudy.episode import COLUMNS
from understudy.errors import CorruptEpisode, DataError, SpecMismatch

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def first(tmp_path):
    return point_dataset(tmp_path / "first", episodes=3)


@pytest.fixture
def second(tmp_path):
    with Dataset.create(tmp_path / "second", SPEC) as dataset:
        for seed in range(10, 14):
            dataset.append(point_episode(seed, steps=seed))
    return Dataset.open(tmp_path / "second")


def assert_same(one, two):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert (one.seed, one.success) == (two.seed, two.success)


def test_a_join_is_its_parts_one_after_the_other(first, second):
    joined = first.joined(second)
    assert len(joined) == 7
    assert joined.steps == first.steps + second.steps
    assert joined.rows == (*first.rows, *second.rows)
    assert [row.seed for row in joined.rows] == [0, 1, 2, 10, 11, 12, 13]
    for got, wanted in zip(joined, [*first, *second], strict=True):
        assert_same(got, wanted)
    assert_same(joined[3], second[0])
    assert_same(joined[-1], second[-1])
    assert_same(joined.read(joined.rows[4]), second[1])
    assert second.joined(first)[0].seed == 10


def test_a_join_of_views_holds_what_the_views_hold(first, second):
    joined = first.select([2, 0]).joined(second.select([1]), first.select([1]))
    assert [episode.seed for episode in joined] == [2, 0, 11, 1]
    assert [episode.seed for episode in joined.joined(second.select([3]))] == [2, 0, 11, 1, 13]


def test_a_join_with_nothing_is_the_dataset_itself(first, tmp_path):
    empty = Dataset.create(tmp_path / "empty", SPEC)
    for joined in (first.joined(), first.joined(empty), empty.joined(first)):
        assert joined.fingerprint == first.fingerprint
        assert len(joined) == 3
    assert len(empty.joined(empty)) == 0


def test_equal_episodes_of_two_parts_count_twice(first, tmp_path):
    again = point_dataset(tmp_path / "again", episodes=3)
    joined = first.joined(again)
    assert [episode.seed for episode in joined] == [0, 1, 2, 0, 1, 2]


def test_a_join_has_the_fingerprint_of_a_merged_dataset(first, second, tmp_path):
    with Dataset.create(tmp_path / "merged", SPEC) as merged:
        merged.merge(first)
        merged.merge(second)
    assert first.joined(second).fingerprint == Dataset.open(tmp_path / "merged").fingerprint
    assert second.joined(first).fingerprint != first.joined(second).fingerprint


def test_a_join_holds_what_was_there_when_it_was_made(first, second):
    joined = first.joined(second)
    before = joined.fingerprint
    second.append(point_episode(20))
    assert len(joined) == 7
    assert joined.fingerprint == before
    assert len(first.joined(second)) == 8


def test_nothing_can_be_written_through_a_join(first, second):
    joined = first.joined(second)
    files = {path: path.read_bytes() for part in (first, second) for path in part.path.rglob("*") if path.is_file()}
    for write in (
        lambda: joined.append(point_episode(5)),
        lambda: joined.drop(0),
        joined.undo,
        lambda: joined.merge(first),
        lambda: joined.select([0]).append(point_episode(5)),
    ):
        with pytest.raises(DataError, match="can only be read"):
            write()
    joined.close()
    assert files == {
        path: path.read_bytes() for part in (first, second) for path in part.path.rglob("*") if path.is_file()
    }


def test_a_part_of_another_task_is_refused_by_name(first, tmp_path):
    channels = (replace(SPEC.observations[0], name="z"), *SPEC.observations[1:])
    other = point_dataset(tmp_path / "other", spec=replace(SPEC, observations=channels))
    with pytest.raises(SpecMismatch, match=r"'x' against 'z'|'z' against 'x'"):
        first.joined(other)
    slow = point_dataset(tmp_path / "slow", spec=replace(SPEC, control_hz=5.0))
    with pytest.raises(SpecMismatch, match="rate"):
        first.joined(slow)


def test_a_join_has_the_spec_of_its_first_part(first, second):
    named = replace(SPEC, env_id="test/Named-v0")
    assert first.with_spec(named).joined(second).spec == named


def test_a_join_splits_by_episode_without_a_common_one(first, second):
    joined = first.joined(second)
    training, held_out = joined.split(0.3, seed=0)
    assert len(training) == 5
    assert len(held_out) == 2
    assert sorted(row.seed for row in (*training.rows, *held_out.rows)) == [0, 1, 2, 10, 11, 12, 13]
    assert [row.seed for row in joined.split(0.3, seed=0)[1].rows] == [row.seed for row in held_out.rows]
    for row, episode in zip(held_out.rows, held_out, strict=True):
        assert_same(episode, point_episode(row.seed, steps=20 if row.seed < 3 else row.seed))


def test_a_damaged_part_is_noticed_in_the_join(first, second):
    joined = first.joined(second)
    path = second.path / second.rows[1].file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert_same(joined[3], second[0])
    with pytest.raises(CorruptEpisode, match="not what was saved"):
        joined[4]


def test_an_interrupted_recording_stays_out_of_a_join(first, tmp_path):
    with Dataset.create(tmp_path / "partial", SPEC) as dataset:
        dataset.append(point_episode(7, partial=True))
        dataset.append(point_episode(8))
    joined = first.joined(Dataset.open(tmp_path / "partial"))
    assert [row.seed for row in joined.rows] == [0, 1, 2, 8]
    assert [row.seed for row in joined.include_partial().rows] == [0, 1, 2, 8]
    asked_for = first.joined(Dataset.open(tmp_path / "partial").include_partial())
    assert [row.seed for row in asked_for.rows] == [0, 1, 2, 7, 8]
