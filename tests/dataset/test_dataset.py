import time
from dataclasses import replace

import numpy as np
import pytest
from dataset.arms import SPEC, PacedWorld, Wanderer, human_episode

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, DatasetWarning, record
from understudy.dataset.index import add_body, file_name
from understudy.dataset.journal import Journal
from understudy.episode import COLUMNS
from understudy.errors import ConfigError, DataError, DatasetLocked, SpecMismatch, UnderstudyError
from understudy.rollout import rollout
from understudy.spec import Channel, Spec, spec_of

pytestmark = pytest.mark.usefixtures("no_fsync")


def episodes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [human_episode(rng) for _ in range(count)]


def filled(path, count=10, seed=0):
    with Dataset.create(path, SPEC) as dataset:
        for episode in episodes(count, seed):
            dataset.append(episode)
    return Dataset.open(path)


def assert_equal(one, two):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ("terminated", "truncated", "success", "partial", "seed"):
        assert getattr(one, name) == getattr(two, name)
    assert set(one.initial_state) == set(two.initial_state)
    for name, value in one.initial_state.items():
        np.testing.assert_array_equal(value, two.initial_state[name])


def test_what_is_appended_is_what_is_read(tmp_path):
    made = [replace(episode, initial_state={"qpos": np.arange(3.0)}) for episode in episodes(3)]
    with Dataset.create(tmp_path / "new", SPEC) as dataset:
        rows = [dataset.append(episode) for episode in made]
    again = Dataset.open(tmp_path / "new")
    assert again.spec == SPEC
    assert again.rows == tuple(rows)
    assert again.steps == sum(map(len, made))
    for one, two in zip(made, again, strict=True):
        assert_equal(one, two)
    assert_equal(made[-1], again[-1])


def test_a_file_is_aligned_for_readers_of_two_arrays(tmp_path):
    dataset = filled(tmp_path / "a", 1)
    with np.load(dataset.path / dataset.rows[0].file, allow_pickle=False) as arrays:
        assert arrays["observations"].shape == (len(dataset[0]), len(SPEC.observations))
        assert arrays["actions"].shape == (len(dataset[0]), len(SPEC.actions))
        np.testing.assert_array_equal(arrays["final_observation"], dataset[0].observations[-1])
        assert arrays["observations"].dtype == np.float32


def test_the_same_episode_gives_the_same_bytes(tmp_path):
    one, two = filled(tmp_path / "a", 2), filled(tmp_path / "b", 2)
    assert [row.sha256 for row in one.rows] == [row.sha256 for row in two.rows]


def test_the_fingerprint_does_not_see_time_or_place_and_sees_everything_else(tmp_path):
    first, second = episodes(2)
    kinds = {
        "same": first,
        "later": replace(first, time_s=first.time_s + 1),
        "judged": replace(first, success=0),
        "moved": replace(first, actions=first.actions + np.float32(1e-6)),
    }
    prints = {}
    for name, episode in kinds.items():
        with Dataset.create(tmp_path / name, SPEC) as dataset:
            dataset.append(episode)
            dataset.append(second)
        prints[name] = dataset.fingerprint
    assert prints["same"] == prints["later"]
    assert len(set(prints.values())) == 3
    assert Dataset.open(tmp_path / "same").fingerprint == prints["same"]
    assert dataset.with_spec(replace(SPEC, env_id="other")).fingerprint != dataset.fingerprint


def test_create_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        Dataset.create(tmp_path, SPEC)
    filled(tmp_path / "a", 1)
    with pytest.raises(DataError, match="not empty"):
        Dataset.create(tmp_path / "a", SPEC)
    (tmp_path / "empty").mkdir()
    assert len(Dataset.create(tmp_path / "empty", SPEC)) == 0


@pytest.mark.parametrize("missing", ["nowhere", "file", "empty"])
def test_open_names_what_is_no_dataset(tmp_path, missing):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is no"):
        Dataset.open(tmp_path / missing)


@pytest.mark.parametrize("column", ["observations", "actions", "asked_actions", "labels", "rewards", "time_s"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_append_refuses_numbers_that_are_not_finite_by_name(tmp_path, column, value):
    (episode,) = episodes(1)
    bad = np.array(getattr(episode, column))
    bad[(7, *(0,) * (bad.ndim - 1))] = value
    with Dataset.create(tmp_path / "a", SPEC) as dataset:
        with pytest.raises(DataError, match=f"{column} holds .* at step 7"):
            dataset.append(replace(episode, **{column: bad}))
        assert len(dataset) == 0


def test_append_refuses_other_sizes_by_number(tmp_path):
    (episode,) = episodes(1)
    dataset = Dataset.create(tmp_path / "a", SPEC)
    with pytest.raises(DataError, match="10 observation channels; the dataset has 11"):
        dataset.append(replace(episode, observations=episode.observations[:, 1:]))
    four = {name: getattr(episode, name)[:, 1:] for name in ("actions", "asked_actions", "labels")}
    with pytest.raises(DataError, match="4 action channels; the dataset has 5"):
        dataset.append(replace(episode, **four))


def test_append_refuses_an_initial_state_that_is_no_numbers(tmp_path):
    (episode,) = episodes(1)
    dataset = Dataset.create(tmp_path / "a", SPEC)
    for state in ({"qpos": np.array(["a"])}, {"../qpos": np.zeros(2)}, {"q": np.array([object()])}):
        with pytest.raises(UnderstudyError):
            dataset.append(replace(episode, initial_state=state))
    dataset.close()


@pytest.mark.parametrize(
    "state",
    [
        {f"body{number}": np.zeros(3) for number in range(60)},
        {"grid": np.zeros(17_000_000, np.uint8)},
        {"deep": np.zeros((1,) * 9)},
    ],
)
def test_append_refuses_what_no_reader_would_take(tmp_path, state):
    (episode,) = episodes(1)
    with Dataset.create(tmp_path / "new", SPEC) as dataset:
        dataset.append(episode)
        with pytest.raises(DataError, match=r"at most .* are saved in one episode"):
            dataset.append(replace(episode, initial_state=state))
    assert len(list(Dataset.open(tmp_path / "new"))) == 1


def test_an_entry_that_no_reader_would_take_is_never_written(tmp_path, monkeypatch):
    with Dataset.create(tmp_path / "new", SPEC) as dataset:
        one, two = episodes(2)
        dataset.append(one)
        object.__setattr__(two, "seed", -5)
        with pytest.raises(UnderstudyError, match="does not describe an episode"):
            dataset.append(two)
    again = Dataset.open(tmp_path / "new")
    assert [row.id for row in again.rows] == [0]
    assert sorted(path.name for path in (again.path / "episodes").iterdir()) == ["000000.npz"]


def test_undo_does_not_take_back_what_it_has_only_just_recovered(tmp_path):
    world = PacedWorld()
    with Dataset.create(tmp_path / "new", world) as dataset:
        list(record(world, Demonstrator(Wanderer()), dataset, seeds=[0, 1], max_steps=5))
        rollout(world, Demonstrator(Wanderer()), seed=7, max_steps=5, observers=[Journal(dataset, seed=7)])
        # and its process dies before the episode is appended
    with Dataset.open(tmp_path / "new") as dataset:
        with pytest.warns(DatasetWarning, match="recovered"), pytest.raises(DataError, match="nothing was taken back"):
            dataset.undo()
        assert [row.partial for row in dataset.include_partial().rows] == [False, False, True]
        assert dataset.undo() == "took back the add of episode 2"


def test_split_is_by_episode_deterministic_and_complete(tmp_path):
    dataset = filled(tmp_path / "a", 10)
    train, held_out = dataset.split(0.2, seed=3)
    ids = [row.id for row in train.rows], [row.id for row in held_out.rows]
    assert len(ids[1]) == 2
    assert sorted(ids[0] + ids[1]) == list(range(10))
    assert [row.id for row in Dataset.open(dataset.path).split(0.2, seed=3)[1].rows] == ids[1]
    assert any([row.id for row in dataset.split(0.2, seed=seed)[1].rows] != ids[1] for seed in range(5))
    assert len(dataset.split(0.0)[1]) == 0
    assert len(dataset.split(0.01)[1]) == 1
    assert [len(part) for part in dataset.select([0]).split(0.5)] == [1, 0]
    assert [len(part) for part in dataset.select([0, 1]).split(0.99)] == [1, 1]
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError):
            dataset.split(share)


def test_a_view_shares_files_and_cannot_be_written(tmp_path):
    dataset = filled(tmp_path / "a", 4)
    view = dataset.select([3, 1])
    assert [row.id for row in view.rows] == [3, 1]
    assert_equal(view[0], dataset[3])
    for write in (lambda: view.append(dataset[0]), lambda: view.drop([1]), view.undo):
        with pytest.raises(DataError, match="view"):
            write()
    assert len(dataset.select([]).include_partial()) == 0
    assert len(dataset.select([]).with_spec(SPEC)) == 0


def test_drop_and_undo_change_no_episode_file(tmp_path):
    dataset = filled(tmp_path / "a", 4)
    before = {path.name: path.read_bytes() for path in (dataset.path / "episodes").iterdir()}
    with dataset:
        dataset.drop([1, 2])
        assert [row.id for row in dataset.rows] == [0, 3]
        dataset.drop(0)
        assert [row.id for row in Dataset.open(dataset.path).rows] == [3]
        assert "drop of episode 0" in dataset.undo()
        assert "drop of episodes 1, 2" in dataset.undo()
        assert len(dataset) == 4
        assert "add of episode 3" in dataset.undo()
        assert [row.id for row in dataset.rows] == [0, 1, 2]
        assert dataset.append(dataset[0]).id == 4  # an id is never used again
    assert {path.name: path.read_bytes() for path in (dataset.path / "episodes").iterdir()}.items() >= before.items()
    with dataset, pytest.raises(DataError, match="no episode 3"):
        dataset.drop([3])


def test_undo_stops_at_the_beginning(tmp_path):
    with Dataset.create(tmp_path / "a", SPEC) as dataset, pytest.raises(DataError, match="nothing to undo"):
        dataset.undo()


def test_merge_copies_all_and_one_undo_takes_all_back(tmp_path):
    one, two = filled(tmp_path / "a", 3), filled(tmp_path / "b", 4, seed=1)
    with one:
        assert len(one.merge(two.select([0, 2]))) == 2
        assert [row.content for row in one.rows[3:]] == [two.rows[0].content, two.rows[2].content]
        assert [row.id for row in Dataset.open(one.path).rows] == [0, 1, 2, 3, 4]
        one.drop([4])
        one.undo()
        assert "merge of episodes 3, 4" in one.undo()
        assert len(one) == 3
        one.merge(two.select([]))
    other = Dataset.create(tmp_path / "c", replace(SPEC, control_hz=10))
    with pytest.raises(SpecMismatch, match="rate"):
        other.merge(two)


def test_a_merge_that_was_cut_short_has_no_effect(tmp_path, monkeypatch):
    one, two = filled(tmp_path / "a", 3), filled(tmp_path / "b", 4, seed=1)
    monkeypatch.setattr(one.writer(), "edit", lambda body: (_ for _ in ()).throw(KeyboardInterrupt))
    with one, pytest.raises(KeyboardInterrupt):
        one.merge(two)
    with Dataset.open(tmp_path / "a") as again:
        assert len(again) == 3
        assert again.append(two[0]).id == 7
        assert [row.id for row in again.rows] == [0, 1, 2, 7]
    assert [row.id for row in Dataset.open(tmp_path / "a").rows] == [0, 1, 2, 7]


def test_partial_episodes_are_left_out_unless_asked_for(tmp_path):
    first, second = episodes(2)
    with Dataset.create(tmp_path / "a", SPEC) as dataset:
        dataset.append(replace(first, partial=True))
        dataset.append(second)
    dataset = Dataset.open(tmp_path / "a")
    assert (len(dataset), dataset.steps) == (1, len(second))
    assert [episode.partial for episode in dataset] == [False]
    assert sum(map(len, dataset.split(0.5))) == 1
    whole = dataset.include_partial()
    assert [episode.partial for episode in whole] == [True, False]
    assert whole.fingerprint != dataset.fingerprint


def test_with_spec_attaches_names_and_checks_sizes(tmp_path):
    unnamed = Spec.unnamed(11, 5)
    with Dataset.create(tmp_path / "a", unnamed) as dataset:
        dataset.append(episodes(1)[0])
    named = dataset.with_spec(SPEC)
    assert named.spec == SPEC
    assert_equal(named[0], dataset[0])
    with pytest.raises(SpecMismatch, match="11 observation channels against 3"):
        dataset.with_spec(Spec.unnamed(3, 5))


def test_a_bare_folder_opens_with_one_line_and_cannot_be_written(tmp_path):
    (episode,) = episodes(1)
    for name in ("b", "a"):
        np.savez(
            tmp_path / f"{name}.npz",
            observations=episode.observations[:-1].astype(np.float64),
            actions=episode.actions,
            init_qpos=np.arange(4.0),
        )
    np.savez_compressed(tmp_path / "c.npz", observations=episode.observations[:-1], actions=episode.actions)
    with pytest.warns(DatasetWarning, match="11 observation and 5 action channels have no names") as caught:
        dataset = Dataset.open(tmp_path)
    assert len(caught) == 1
    assert [row.file for row in dataset.rows] == ["a.npz", "b.npz", "c.npz"]
    assert dataset.spec == Spec.unnamed(11, 5)
    read = dataset[0]
    np.testing.assert_array_equal(read.observations[:-1], episode.observations[:-1])
    np.testing.assert_array_equal(read.observations[-1], read.observations[-2])
    np.testing.assert_array_equal(read.initial_state["qpos"], np.arange(4.0))
    assert (read.success, read.driver.all(), np.isnan(read.time_s).all()) == (-1, True, True)
    assert dataset.with_spec(SPEC).spec.is_named
    with pytest.raises(DataError, match="can only be read"):
        dataset.append(episode)
    (tmp_path / "b.npz").write_bytes((tmp_path / "c.npz").read_bytes())
    with pytest.raises(DataError, match="changed since"):
        dataset[1]


def test_a_bare_folder_with_a_bad_file_is_refused_by_name(tmp_path):
    (episode,) = episodes(1)
    np.savez(tmp_path / "a.npz", observations=episode.observations[:-1], actions=episode.actions)
    np.savez(tmp_path / "b.npz", observations=episode.observations[:-1, :3], actions=episode.actions)
    with pytest.raises(DataError, match=r"3 observation and 5 action channels|11 observation and 5 action"):
        Dataset.open(tmp_path)
    np.savez(tmp_path / "b.npz", observations=np.full((4, 11), np.nan), actions=np.zeros((4, 5)))
    with pytest.raises(DataError, match=r"b.npz: observations holds nan at step 0, channel 0"):
        Dataset.open(tmp_path)


def test_the_episodes_of_a_dataset_open_as_a_bare_folder(tmp_path):
    dataset = filled(tmp_path / "a", 2)
    with pytest.warns(DatasetWarning):
        bare = Dataset.open(dataset.path / "episodes")
    assert [row.content for row in bare.rows] == [row.content for row in dataset.rows]


def test_ten_thousand_episodes_open_in_well_under_two_seconds(tmp_path):
    dataset = filled(tmp_path / "a", 1)
    folder, first = dataset.writer(), dataset.rows[0]
    lines = []
    for number in range(1, 10_000):
        line = folder.index.line(add_body(replace(first, id=number, file=file_name(number)), None))
        folder.index.accept(line)
        lines.append(line)
    with open(dataset.path / "episodes.jsonl", "ab") as file:
        file.writelines(lines)
    start = time.process_time()
    again = Dataset.open(dataset.path)
    assert len(again) == 10_000
    assert again.steps == 10_000 * len(dataset[0])
    assert time.process_time() - start < 1.5


def test_a_second_writer_is_refused_and_names_the_first(tmp_path):
    dataset = filled(tmp_path / "a", 2)
    dataset.drop([0])
    second = Dataset.open(tmp_path / "a")
    with pytest.raises(DatasetLocked, match=r"process .* is writing"):
        second.undo()
    assert len(second) == 1  # reading goes on
    dataset.close()
    second.undo()  # and it sees what the first one wrote
    assert len(second) == 2
    second.close()


def test_a_reader_and_the_next_writer_see_what_was_written_since(tmp_path):
    one, two = filled(tmp_path / "a", 2), Dataset.open(tmp_path / "a")
    with one:
        one.append(one[0])
    with two:
        assert two.append(two[0]).id == 3
    assert len(two) == 4


def test_record_saves_before_it_tells(tmp_path):
    world = PacedWorld(length=8)
    with Dataset.create(tmp_path / "a", world) as dataset:
        seen = []
        for row, episode in record(world, Demonstrator(Wanderer()), dataset, seeds=range(3), max_steps=6):
            again = Dataset.open(tmp_path / "a")
            assert_equal(again[-1], episode)
            assert again.rows[-1] == row
            assert not (tmp_path / "a" / "recording.journal").exists()
            seen.append((row.seed, row.length))
    assert seen == [(0, 6), (1, 6), (2, 6)]
    assert dataset.spec == spec_of(world)


def test_record_refuses_another_world(tmp_path):
    with Dataset.create(tmp_path / "a", SPEC) as dataset, pytest.raises(SpecMismatch, match="11 observation"):
        next(record(PacedWorld(), Demonstrator(Wanderer()), dataset, seeds=[0]))


def test_record_keeps_the_initial_state(tmp_path):
    world = PacedWorld(length=3)
    options = [{"initial_state": {"qpos": np.arange(2.0)}}]
    with Dataset.create(tmp_path / "a", world) as dataset:
        list(record(world, Demonstrator(Wanderer()), dataset, seeds=[5], options=options))
    np.testing.assert_array_equal(Dataset.open(tmp_path / "a")[0].initial_state["qpos"], [0, 1])


def test_a_control_character_in_a_name_is_refused(tmp_path):
    spec = Spec("x", 0.0, (Channel("\x1b[31m"),), (Channel("a"),))
    with pytest.raises(DataError, match="control characters"):
        Dataset.create(tmp_path / "a", spec)
