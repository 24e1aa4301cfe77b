import json
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
from dataset.arms import SPEC, human_episode

from understudy.dataset import Dataset, import_dataset
from understudy.dataset.pickles import read_pickle
from understudy.errors import CorruptEpisode, DataError, MissingDependency, SpecMismatch, UnderstudyError
from understudy.spec import Spec

pytestmark = [pytest.mark.usefixtures("no_fsync", "quiet")]


def paths(count=3):
    rng = np.random.default_rng(0)
    return [
        {
            "observations": rng.normal(size=(steps, 4)),
            "actions": rng.normal(size=(steps, 2)),
            "rewards": rng.normal(size=steps),
            "init_state_dict": {"qpos": rng.normal(size=5), "qvel": rng.normal(size=5)},
        }
        for steps in range(10, 10 + count)
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_arrays_is_read_without_unpickling(tmp_path, protocol, monkeypatch):
    made = paths()
    (tmp_path / "demos.pickle").write_bytes(pickle.dumps(made, protocol))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.delattr(pickle, name)
    dataset = import_dataset(tmp_path / "demos.pickle", tmp_path / "out")
    assert [len(episode) for episode in dataset] == [10, 11, 12]
    for one, episode in zip(made, dataset, strict=True):
        np.testing.assert_array_equal(episode.observations[:-1], one["observations"].astype(np.float32))
        np.testing.assert_array_equal(episode.observations[-1], episode.observations[-2])
        np.testing.assert_array_equal(episode.actions, one["actions"].astype(np.float32))
        np.testing.assert_array_equal(episode.rewards, one["rewards"].astype(np.float32))
        np.testing.assert_array_equal(episode.initial_state["qpos"], one["init_state_dict"]["qpos"])
        assert episode.initial_state["qpos"].dtype == np.float64
    assert dataset.spec == Spec.unnamed(4, 2)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", ">i2", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_every_kind_come_out_as_they_went_in(dtype, order, protocol):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    (read,) = read_pickle(pickle.dumps([array], protocol))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_both_forms_of_the_door_demonstrations_give_the_same_dataset(tmp_path, shared_data):
    folder = shared_data / "adroit_door_human"
    one = import_dataset(folder / "door-v0_demos.pickle", tmp_path / "one")
    two = import_dataset(folder / "episodes", tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert (len(one), one.steps) == (25, 6729)
    assert set(one[0].initial_state) == {"qpos", "qvel", "door_body_pos"}
    assert one.fingerprint == import_dataset(tmp_path / "one", tmp_path / "three").fingerprint


def test_an_import_checks_the_spec_of_the_world(tmp_path):
    (tmp_path / "demos.pkl").write_bytes(pickle.dumps(paths()))
    with pytest.raises(SpecMismatch, match="11 observation channels against 4"):
        import_dataset(tmp_path / "demos.pkl", tmp_path / "out", SPEC)
    spec = Spec("world", 25.0, SPEC.observations[:4], SPEC.actions[:2])
    assert import_dataset(tmp_path / "demos.pkl", tmp_path / "out", spec).spec == spec


def renamed(spec):
    return replace(spec, observations=(replace(spec.observations[0], name="elbow"), *spec.observations[1:]))


def in_degrees(spec):
    return replace(spec, observations=(replace(spec.observations[0], unit="deg"), *spec.observations[1:]))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (renamed(SPEC), r"observation channel 0 is 'joint_0\.position' against 'elbow'"),
        (in_degrees(SPEC), r"observation channel 0 \(joint_0\.position\) is in 'rad' against 'deg'"),
        (replace(SPEC, control_hz=25.0), "control rate 50 Hz against 25 Hz"),
    ],
    ids=["name", "unit", "rate"],
)
def test_an_import_never_relabels_what_the_source_states(tmp_path, other, match):
    with Dataset.create(tmp_path / "a", SPEC) as dataset:
        dataset.append(human_episode(np.random.default_rng(0)))
    with pytest.raises(SpecMismatch, match=match):
        import_dataset(tmp_path / "a", tmp_path / "out", other)
    assert not (tmp_path / "out").exists()
    assert import_dataset(tmp_path / "a", tmp_path / "out", SPEC).fingerprint == dataset.fingerprint


def test_an_import_names_the_channels_of_a_source_that_states_none(tmp_path):
    with Dataset.create(tmp_path / "a", Spec.unnamed(11, 5)) as dataset:
        dataset.append(human_episode(np.random.default_rng(0)))
    assert import_dataset(tmp_path / "a", tmp_path / "out", SPEC).spec == SPEC
    folder = write_minari(tmp_path / "door-v0", minari_episodes(2))
    assert import_dataset(folder, tmp_path / "named", SPEC).spec == SPEC


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "an empty folder"])
def test_an_import_that_fails_half_way_leaves_nothing_and_can_be_repeated(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with Dataset.create(tmp_path / "a", SPEC) as dataset:
        rows = [dataset.append(episode) for episode in minari_episodes(4)]
    damaged = tmp_path / "a" / rows[2].file
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    with pytest.raises(CorruptEpisode, match="episode 2"):
        import_dataset(tmp_path / "a", out)
    assert out.exists() == there
    assert not there or not list(out.iterdir())
    damaged.write_bytes(whole)
    assert import_dataset(tmp_path / "a", out).fingerprint == dataset.fingerprint


def test_an_import_into_a_folder_with_something_in_it_removes_nothing(tmp_path):
    (tmp_path / "demos.pkl").write_bytes(pickle.dumps(paths()))
    there = import_dataset(tmp_path / "demos.pkl", tmp_path / "out")
    with pytest.raises(DataError, match="not empty"):
        import_dataset(tmp_path / "demos.pkl", tmp_path / "out")
    assert len(list(Dataset.open(tmp_path / "out"))) == len(there) == 3


class Opens:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class Imports:
    def __reduce__(self):
        return (__import__, ("antigravity",))


class Subclass(np.ndarray):
    pass


HOSTILE = {
    "a call of open": lambda path: [Opens(path)],
    "a call of import": lambda path: [Imports()],
    "hidden in an array of objects": lambda path: [{"observations": np.array([Opens(path)], object)}],
    "a class of one's own": lambda path: [np.zeros(3).view(Subclass)],
    "a structured array": lambda path: [np.zeros(3, [("a", "f4"), ("b", "f8")])],
    "an array of texts": lambda path: [np.array(["a", "b"])],
    "an array of dates": lambda path: [np.zeros(3, "M8[s]")],
    "complex numbers": lambda path: [np.zeros(3, complex)],
    "a set": lambda path: [{1, 2}],
    "a function of numpy": lambda path: [np.load],
    "numpy's scalar": lambda path: [np.float64(3)],
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_anything_else_is_refused_by_name(tmp_path, name, protocol):
    canary = tmp_path / "canary"
    data = pickle.dumps(HOSTILE[name](canary), protocol)
    (tmp_path / "demos.pickle").write_bytes(data)
    with pytest.raises(DataError):
        import_dataset(tmp_path / "demos.pickle", tmp_path / "out")
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


def test_a_refused_global_is_named():
    with pytest.raises(DataError, match=r"names .*antigravity|names 'builtins __import__'"):
        read_pickle(pickle.dumps(Imports(), 4))


BOMBS = {
    "laughs": b"\x80\x04]\x94(" + b"]\x94(" + b"h\x01" * 9 + b"e" + b"e.",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "a length beyond the file": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a million operations": b"\x80\x04](" + b"N" * 1_000_000 + b"e.",
    "nothing": b"",
    "no end": b"\x80\x04]",
    "an underflow": b"\x80\x04a.",
    "a key that is a list": b"\x80\x04}]]s.",
    "a long number": b"\x80\x04\x8b\x00\x00\x00\x10" + b"\x01" * 1000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_damaged_pickle_is_refused(name):
    with pytest.raises(DataError):
        read_pickle(BOMBS[name])


def test_a_memo_at_four_billion_costs_nothing():
    assert read_pickle(b"\x80\x04]r\xff\xff\xff\xff.") == []


def test_twenty_thousand_mutated_pickles_give_named_errors():
    data = pickle.dumps(paths(1), 4)
    draw = random.Random(0)
    for _ in range(20_000):
        bad = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(min(len(bad), 400))
            bad[place] = draw.randrange(256)
        try:
            read_pickle(bytes(bad))
        except DataError:
            continue


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"observations": np.zeros((3, 2))}, "no list of dicts"),
        ([{"observations": np.zeros((3, 2))}], "no array 'actions'"),
        ([{"observations": np.zeros((3, 2)), "actions": np.zeros((4, 2))}], "same T"),
        ([{"observations": [1, 2], "actions": [3]}], "something else than arrays"),
        ([{"observations": np.full((3, 2), np.nan), "actions": np.zeros((3, 1))}], "holds nan at step 0"),
        ([], "no episode"),
        ([3], "no list of dicts"),
    ],
)
def test_another_layout_is_refused_by_name(tmp_path, value, match):
    (tmp_path / "demos.pickle").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=match):
        import_dataset(tmp_path / "demos.pickle", tmp_path / "out")


def test_what_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"nothing that can be imported; accepted"):
        import_dataset(tmp_path / "x.csv", tmp_path / "out")
    with pytest.raises(UnderstudyError):
        import_dataset(tmp_path / "nothing.pickle", tmp_path / "out")


def test_minari_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(MissingDependency, match=r"pip install -e .*\[minari\]"):
        import_dataset("minari:D4RL/door/human-v2", tmp_path / "out")


def box(size):
    return {"type": "Box", "dtype": "float64", "shape": [size], "low": [-1.0] * size, "high": [1.0] * size}


def write_minari(path, episodes, spaces=None):
    """A folder as Minari 0.5 writes it: metadata.json and data/main_data.hdf5."""
    h5py = pytest.importorskip("h5py")
    (path / "data").mkdir(parents=True)
    metadata = {
        "total_episodes": len(episodes),
        "total_steps": sum(len(episode) for episode in episodes),
        "data_format": "hdf5",
        "observation_space": json.dumps(spaces or box(11)),
        "action_space": json.dumps(box(5)),
        "env_spec": json.dumps({"id": "AdroitHandDoor-v1", "entry_point": "os:system", "kwargs": {}}),
        "minari_version": "0.5.3",
    }
    (path / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(path / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["seed"] = number + 40
            group.attrs["total_steps"] = len(episode)
            group.attrs["options/initial_state_dict/qpos"] = np.arange(3.0)
            if spaces:
                for key, part in {"b": episode.observations[:, :7], "a": episode.observations[:, 7:]}.items():
                    group.create_dataset(f"observations/{key}", data=part.astype(np.float64))
            else:
                group.create_dataset("observations", data=episode.observations.astype(np.float64))
            group.create_dataset("actions", data=episode.actions, chunks=True, maxshape=(None, 5))
            group.create_dataset("rewards", data=episode.rewards.astype(np.float64))
            steps = np.arange(len(episode)) == len(episode) - 1
            group.create_dataset("terminations", data=steps & episode.terminated)
            group.create_dataset("truncations", data=steps & episode.truncated)
            group.create_dataset("infos/success", data=np.concatenate([[False], episode.succeeded]))
    return path


def minari_episodes(count=12):
    rng = np.random.default_rng(1)
    episodes = [human_episode(rng) for _ in range(count)]
    episodes[1] = replace(episodes[1], terminated=False, truncated=True, succeeded=np.zeros(len(episodes[1]), bool))
    return episodes


@pytest.mark.parametrize("kind", ["box", "dict"])
def test_a_minari_folder_keeps_rewards_endings_success_and_seeds(tmp_path, kind):
    made = minari_episodes()
    spaces = {"type": "Dict", "subspaces": {"b": box(7), "a": box(4)}} if kind == "dict" else None
    dataset = import_dataset(write_minari(tmp_path / "door" / "human-v2", made, spaces), tmp_path / "out")
    assert dataset.spec.env_id == "AdroitHandDoor-v1"
    assert len(dataset) == 12
    for number, (one, two) in enumerate(zip(made, dataset, strict=True)):
        np.testing.assert_array_equal(one.observations, two.observations)
        np.testing.assert_array_equal(one.actions, two.actions)
        np.testing.assert_array_equal(one.rewards, two.rewards)
        np.testing.assert_array_equal(one.succeeded, two.succeeded)
        assert (two.terminated, two.truncated, two.seed) == (one.terminated, one.truncated, number + 40)
        np.testing.assert_array_equal(two.initial_state["qpos"], np.arange(3.0))
    assert [episode.success for episode in dataset] == [1, 0, *[1] * 10]
    assert Dataset.open(tmp_path / "out").fingerprint == dataset.fingerprint


def test_a_minari_folder_whose_spaces_have_no_limits_is_read(tmp_path):
    spaces = {**box(11), "low": [-np.inf] * 11, "high": [np.inf] * 11}
    path = write_minari(tmp_path / "door" / "human-v2", minari_episodes(2), spaces)
    assert "-Infinity" in (path / "metadata.json").read_text()
    assert len(import_dataset(path, tmp_path / "out")) == 2


def test_minari_downloads_what_is_named_and_no_more(tmp_path, monkeypatch):
    folder = write_minari(tmp_path / "cache" / "door" / "human-v2", minari_episodes(2))
    asked = []

    class Minari:
        @staticmethod
        def load_dataset(name, download):
            asked.append((name, download))
            storage = type("Storage", (), {"data_path": folder / "data"})
            return type("MinariDataset", (), {"storage": storage})

    monkeypatch.setitem(__import__("sys").modules, "minari", Minari)
    assert len(import_dataset("minari:D4RL/door/human-v2", tmp_path / "out")) == 2
    assert asked == [("D4RL/door/human-v2", True)]


def link_soft(h5py, file, secret):
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = h5py.SoftLink("/episode_0/rewards")


def link_external(h5py, file, secret):
    del file["episode_1"]
    file["episode_1"] = h5py.ExternalLink(str(secret), "/episode_0")


def store_external(h5py, file, secret):
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", (3,), "f8", external=[(str(secret), 0, 24)])


def virtual(h5py, file, secret):
    del file["episode_1/rewards"]
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "/episode_0/rewards", (3,))
    file.create_virtual_dataset("episode_1/rewards", layout)


def huge(h5py, file, secret):
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", (10**12,), "f8", chunks=(1024,))


def texts(h5py, file, secret):
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", data=["a", "b"])


def missing(h5py, file, secret):
    del file["episode_1/terminations"]


@pytest.mark.parametrize("change", [link_soft, link_external, store_external, virtual, huge, texts, missing])
def test_a_hostile_minari_folder_reads_nothing_from_elsewhere(tmp_path, change):
    h5py = pytest.importorskip("h5py")
    write_minari(tmp_path / "secret", minari_episodes(2))
    folder = write_minari(tmp_path / "door-v0", minari_episodes(2))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(h5py, file, tmp_path / "secret" / "data" / "main_data.hdf5")
    with pytest.raises(DataError, match="episode_1"):
        import_dataset(folder, tmp_path / "out")


def test_a_minari_file_that_is_no_hdf5_is_named(tmp_path):
    folder = write_minari(tmp_path / "door-v0", minari_episodes(2))
    (folder / "data" / "main_data.hdf5").write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match="is no HDF5 file"):
        import_dataset(folder, tmp_path / "out")
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({**metadata, "data_format": "arrow"}))
    with pytest.raises(DataError, match="only hdf5 is read"):
        import_dataset(folder, tmp_path / "out")


def test_one_array_that_many_dicts_share_is_counted_as_often():
    array = np.zeros(2**20)
    with pytest.raises(DataError, match="each counted wherever it appears"):
        read_pickle(pickle.dumps([{"observations": array} for _ in range(65)]))
    assert len(read_pickle(pickle.dumps([{"observations": array} for _ in range(3)]))) == 3


@pytest.mark.parametrize(
    ("lost", "stated", "match"),
    [
        ([1], 3, "holds 2 episodes, and its metadata.json states 3; the first that is missing is episode_1"),
        ([2], 3, "the first that is missing is episode_2"),
        ([0], None, "the first that is missing is episode_0"),
        ([], 2, "holds 3 episodes, and its metadata.json states 2"),
    ],
)
def test_a_minari_folder_that_lacks_episodes_is_refused_by_name(tmp_path, lost, stated, match):
    h5py = pytest.importorskip("h5py")
    write_minari(tmp_path / "minari", minari_episodes(3))
    with h5py.File(tmp_path / "minari" / "data" / "main_data.hdf5", "a") as file:
        for number in lost:
            del file[f"episode_{number}"]
    metadata = json.loads((tmp_path / "minari" / "metadata.json").read_text())
    metadata["total_episodes"] = stated
    (tmp_path / "minari" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(CorruptEpisode, match=match):
        import_dataset(tmp_path / "minari", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bare_folder_takes_its_files_whatever_the_case_of_their_ending(tmp_path):
    for name in ("a.npz", "b.NPZ"):
        with open(tmp_path / name, "wb") as file:
            np.savez(file, observations=np.zeros((3, 2)), actions=np.zeros((3, 1)))
    assert [row.file for row in Dataset.open(tmp_path).rows] == ["a.npz", "b.NPZ"]
