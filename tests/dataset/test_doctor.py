"""D9: each kind of bad data is found by name, in all its variants; clean data are left alone.

The ids of DEFECTS are the rows of docs/defects.md.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset.arms import SPEC, human_episode, script_episode

from understudy.agent import Demonstrator
from understudy.dataset import DEFECTS, Dataset, diagnose, record
from understudy.sim.experts import expert_for
from understudy.spec import Spec
from understudy.worlds import make_env

pytestmark = [pytest.mark.usefixtures("no_fsync"), pytest.mark.filterwarnings("ignore::UserWarning")]

VARIANTS = {}
BARE = {}
ODD = 5  # the episode that a variant spoils


def variant(defect, name, table=VARIANTS):
    def register(function):
        table[f"{defect}: {name}"] = function
        return function

    return register


def clean(count=12, seed=0, make=human_episode, **options):
    rng = np.random.default_rng(seed)
    return [make(rng, **options) for _ in range(count)]


def saved(path, episodes, spec=SPEC):
    with Dataset.create(path, spec) as dataset:
        for episode in episodes:
            dataset.append(episode)
    return Dataset.open(path)


def changed(episode, **arrays):
    return replace(episode, **arrays)


def spoil(episodes, change, place=ODD):
    return [change(episode) if index == place else episode for index, episode in enumerate(episodes)]


def column(episode, name, index, values):
    array = np.array(getattr(episode, name))
    array[:, index] = values
    extra = {"asked_actions": array, "labels": array} if name == "actions" else {}
    return replace(episode, **{name: array}, **extra)


def cut(episode, start, end):
    """Steps start to end of an episode."""
    names = ("actions", "asked_actions", "labels", "labelled", "driver", "rewards", "succeeded", "time_s")
    return replace(
        episode,
        observations=episode.observations[start : end + 1],
        **{name: getattr(episode, name)[start:end] for name in names},
    )


def padded(episode, steps, at_end):
    """An episode with so many steps of standing still."""
    names = ("actions", "asked_actions", "labels", "labelled", "driver", "rewards", "succeeded")
    place = -1 if at_end else 0

    def pad(array):
        still = np.repeat(array[place][None], steps, axis=0)
        return np.concatenate([array, still] if at_end else [still, array])

    times = np.arange(len(episode) + steps) / 50.0
    return replace(
        episode,
        observations=pad(episode.observations),
        time_s=times,
        **{name: pad(getattr(episode, name)) for name in names},
    )


def noisy(episodes, seed=3):
    """The same with the noise of real sensors on the padded rows."""
    rng = np.random.default_rng(seed)
    return [
        replace(
            episode,
            observations=episode.observations + 1e-4 * rng.normal(size=episode.observations.shape).astype(np.float32),
        )
        for episode in episodes
    ]


# --- dead-channel
@variant("dead-channel", "observation")
def _(episodes):
    return [column(episode, "observations", 2, 0.25) for episode in episodes]


@variant("dead-channel", "an encoder that counts far from 0")
def _(episodes):
    def counted(episode):
        observations = np.array(episode.observations)
        observations[:, 2] = np.rint(3e6 + 20 * observations[:, 2] / np.abs(observations[:, 2]).max())
        return replace(episode, observations=observations)

    return [counted(episode) for episode in episodes]


@variant("dead-channel", "action")
def _(episodes):
    return [column(episode, "actions", 1, 0.0) for episode in episodes]


# --- frozen-sensor
def freeze(episode, channels, start, length):
    observations = np.array(episode.observations)
    observations[start : start + length, channels] = observations[start, channels]
    return replace(episode, observations=observations)


@variant("frozen-sensor", "all sensors for half a second")
def _(episodes):
    return spoil(episodes, lambda episode: freeze(episode, np.arange(11), 40, 25))


@variant("frozen-sensor", "all sensors to the end")
def _(episodes):
    return spoil(episodes, lambda episode: freeze(episode, np.arange(11), 60, 500))


@variant("frozen-sensor", "one joint's position")
def _(episodes):
    return spoil(episodes, lambda episode: freeze(episode, [1], 30, 50))


@variant("frozen-sensor", "one joint, position and velocity, from the start")
def _(episodes):
    return spoil(episodes, lambda episode: freeze(episode, [2, 6], 0, 60))


# --- action-lag
def shifted(episode, steps):
    """Actions recorded `steps` later (or earlier) than they were executed."""
    arrays = {name: np.roll(getattr(episode, name), steps, axis=0) for name in ("actions", "asked_actions", "labels")}
    return replace(episode, **arrays)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, -1, -2, -4])
def test_a_shift_of_actions_is_found_in_its_episode(tmp_path, steps):
    defects = diagnose(saved(tmp_path / "a", spoil(clean(), lambda episode: shifted(episode, steps)))).defects
    assert [(defect.id, defect.episodes) for defect in defects] == [("action-lag", (ODD,))]
    assert f"by {-steps} steps, by 0 in the others" in defects[0].message


@variant("action-lag", "one episode, actions late")
def _(episodes):
    return spoil(episodes, lambda episode: shifted(episode, 3))


@variant("action-lag", "one episode, actions early")
def _(episodes):
    return spoil(episodes, lambda episode: shifted(episode, -3))


@variant("action-lag", "all episodes, actions late")
def _(episodes):
    return [shifted(episode, 3) for episode in episodes]


@variant("action-lag", "all episodes, actions 8 steps early")
def _(episodes):
    return [shifted(episode, -8) for episode in episodes]


# --- clipped-actions
@variant("clipped-actions", "beyond the limits")
def _(episodes):
    return spoil(episodes, lambda episode: column(episode, "actions", 0, 4.0 * episode.actions[:, 0]))


@variant("clipped-actions", "one channel at its limit most of the time")
def _(episodes):
    return [column(episode, "actions", 0, np.clip(40 * episode.actions[:, 0], -3, 3)) for episode in episodes]


@variant("clipped-actions", "one episode at its limit")
def _(episodes):
    return spoil(episodes, lambda episode: column(episode, "actions", 0, np.clip(100 * episode.actions[:, 0], -3, 3)))


# --- duplicate-episode
@variant("duplicate-episode", "byte for byte")
def _(episodes):
    return [*episodes, episodes[ODD]]


@variant("duplicate-episode", "with another seed, verdict and clock")
def _(episodes):
    return [*episodes, replace(episodes[ODD], seed=1, success=0, time_s=episodes[ODD].time_s + 5)]


@variant("duplicate-episode", "cut short")
def _(episodes):
    return [*episodes, cut(episodes[ODD], 0, 70)]


# --- time
@variant("time-gaps", "one stall of 60 ms")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, time_s=e.time_s + 0.06 * (np.arange(len(e)) > 30)))


@variant("time-gaps", "a stall of 3 s")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, time_s=e.time_s + 3.0 * (np.arange(len(e)) > 30)))


@variant("time-gaps", "a tenth of the steps dropped")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, time_s=e.time_s + 0.02 * (np.arange(len(e)) // 10)))


@variant("wrong-rate", "all at 40 Hz instead of 50")
def _(episodes):
    return [replace(e, time_s=e.time_s * 1.25) for e in episodes]


@variant("wrong-rate", "all at 100 Hz instead of 50")
def _(episodes):
    return [replace(e, time_s=e.time_s * 0.5) for e in episodes]


@variant("wrong-rate", "one episode at 25 Hz")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, time_s=e.time_s * 2))


@variant("non-monotonic-time", "the clock was set back")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, time_s=e.time_s - 0.5 * (np.arange(len(e)) > 30)))


@variant("non-monotonic-time", "two steps with one time")
def _(episodes):
    def stand(e):
        times = np.array(e.time_s)
        times[31] = times[30]
        return replace(e, time_s=times)

    return spoil(episodes, stand)


# --- lengths, verdicts, numbers
@variant("short-episode", "three steps")
def _(episodes):
    return spoil(episodes, lambda e: cut(e, 0, 3))


@variant("short-episode", "a tenth of the rest")
def _(episodes):
    return spoil(episodes, lambda e: cut(e, 0, 14))


@variant("long-episode", "six times the rest")
def _(episodes):
    short = [cut(e, 0, 25) for e in episodes]
    return spoil(short, lambda e: cut(clean(1, seed=77)[0], 0, 140))


@variant("reward-missing", "all zero")
def _(episodes):
    return [replace(e, rewards=np.zeros(len(e))) for e in episodes]


@variant("success-unknown", "nobody judged")
def _(episodes):
    return [replace(e, success=-1) for e in episodes]


@variant("no-success", "all failed")
def _(episodes):
    return [replace(e, success=0) for e in episodes]


@variant("no-success", "those that were judged failed")
def _(episodes):
    return [replace(e, success=-1 if index % 2 else 0) for index, e in enumerate(episodes)]


@variant("few-episodes", "four")
def _(episodes):
    return episodes[:4]


@variant("partial-present", "one of them")
def _(episodes):
    return [*episodes, replace(cut(episodes[0], 5, 50), partial=True)]


# --- jump
def teleport(episode, channel, start, length, distance):
    observations = np.array(episode.observations)
    observations[start : start + length, channel] += distance
    return replace(episode, observations=observations)


@variant("jump", "one reading far off")
def _(episodes):
    return spoil(episodes, lambda e: teleport(e, 0, 50, 1, 3.0))


@variant("jump", "a lasting step")
def _(episodes):
    return spoil(episodes, lambda e: teleport(e, 1, 50, 1000, 2.0))


@variant("jump", "an angle that wraps")
def _(episodes):
    return spoil(episodes, lambda e: teleport(e, 2, 50, 1000, 2 * np.pi))


# --- unit-mismatch
def scaled(episode, channels, factor):
    observations = np.array(episode.observations)
    observations[:, channels] *= factor
    return replace(episode, observations=observations)


@variant("unit-mismatch", "joint angles in degrees")
def _(episodes):
    return spoil(episodes, lambda e: scaled(e, np.arange(4), 180 / np.pi))


@variant("unit-mismatch", "the object in millimetres")
def _(episodes):
    return spoil(episodes, lambda e: scaled(e, [8, 9], 1000))


@variant("unit-mismatch", "actions a hundredth")
def _(episodes):
    return spoil(episodes, lambda e: column(e, "actions", 1, e.actions[:, 1] / 100))


@variant("unit-mismatch", "half of the episodes in degrees")
def _(episodes):
    return [scaled(e, np.arange(4), 180 / np.pi) if index % 2 else e for index, e in enumerate(episodes)]


# --- idle-stretch
@variant("idle-stretch", "at the start")
def _(episodes):
    return spoil(episodes, lambda e: padded(e, 60, at_end=False))


@variant("idle-stretch", "at the end")
def _(episodes):
    return spoil(episodes, lambda e: padded(replace(e, succeeded=np.zeros(len(e), bool)), 120, at_end=True))


@variant("idle-stretch", "before a late success")
def _(episodes):
    def late(e):
        still = padded(replace(e, succeeded=np.zeros(len(e), bool)), 120, at_end=True)
        return replace(still, succeeded=np.arange(len(still)) == len(still) - 1)

    return spoil(episodes, late)


@variant("idle-stretch", "at the start, with the noise of sensors")
def _(episodes):
    return noisy(spoil(episodes, lambda e: padded(e, 60, at_end=False)))


# --- contradictory-labels
@variant("contradictory-labels", "the same motion with its actions reversed")
def _(episodes):
    mirrored = {name: -getattr(episodes[ODD], name) for name in ("actions", "asked_actions", "labels")}
    return [*episodes, replace(episodes[ODD], **mirrored)]


@variant("contradictory-labels", "labels that are not what the expert did")
def _(episodes):
    return spoil(episodes, lambda e: replace(e, labels=-e.labels))


@variant("contradictory-labels", "labels of one small channel that are not what the expert did")
def _(episodes):
    small = np.where(np.arange(episodes[0].actions.shape[1]) == 1, 0.01, 1.0)

    def shrunk(e, sign=1.0):
        labels = e.labels * np.where(small < 1, sign * small, 1.0)
        return replace(e, actions=e.actions * small, asked_actions=e.asked_actions * small, labels=labels)

    return [shrunk(e, -1.0 if index == ODD else 1.0) for index, e in enumerate(episodes)]


# --- missing-final-observation
@variant("missing-final-observation", "in all episodes")
def _(episodes):
    return [replace(e, observations=np.concatenate([e.observations[:-1], e.observations[-2:-1]])) for e in episodes]


# --- bare folders: what a Dataset would never have taken in
def write_bare(path, episodes):
    path.mkdir()
    for index, episode in enumerate(episodes):
        np.savez(path / f"{index:03d}.npz", observations=episode.observations[:-1], actions=episode.actions)


def rewrite(path, **change):
    with np.load(path / f"{ODD:03d}.npz") as file:
        arrays = {**file, **change}
    np.savez(path / f"{ODD:03d}.npz", **{name: value for name, value in arrays.items() if value is not None})


@variant("not-finite", "NaN in an observation", BARE)
def _(path):
    rewrite(path, observations=np.where(np.arange(11) == 3, np.nan, np.ones((50, 11))), actions=np.zeros((50, 5)))


@variant("not-finite", "infinity in an action", BARE)
def _(path):
    rewrite(path, observations=np.ones((50, 11)), actions=np.full((50, 5), np.inf))


@variant("not-finite", "a float64 that float32 cannot hold", BARE)
def _(path):
    rewrite(path, observations=np.full((50, 11), 1e300), actions=np.zeros((50, 5)))


@variant("wrong-shape", "fewer observation channels", BARE)
def _(path):
    rewrite(path, observations=np.ones((50, 10)), actions=np.zeros((50, 5)))


@variant("wrong-shape", "more action channels", BARE)
def _(path):
    rewrite(path, observations=np.ones((50, 11)), actions=np.zeros((50, 6)))


@variant("wrong-shape", "more observations than actions", BARE)
def _(path):
    rewrite(path, observations=np.ones((51, 11)), actions=np.zeros((50, 5)))


@variant("wrong-shape", "no actions", BARE)
def _(path):
    rewrite(path, actions=None)


@variant("wrong-shape", "no steps", BARE)
def _(path):
    rewrite(path, observations=np.ones((0, 11)), actions=np.zeros((0, 5)))


@variant("corrupt-file", "cut", BARE)
def _(path):
    file = path / f"{ODD:03d}.npz"
    file.write_bytes(file.read_bytes()[:3000])


@variant("corrupt-file", "text", BARE)
def _(path):
    (path / f"{ODD:03d}.npz").write_text("not an archive")


def test_the_clean_base_of_all_variants_has_no_defect(tmp_path):
    assert diagnose(saved(tmp_path / "a", clean())).defects == ()


@pytest.mark.parametrize("name", VARIANTS)
def test_each_defect_is_found_by_name(tmp_path, name):
    kind = name.split(":")[0]
    defects = diagnose(saved(tmp_path / "a", VARIANTS[name](clean()))).defects
    assert kind in {defect.id for defect in defects}, [defect.message for defect in defects]
    others = {defect.id for defect in defects} - {kind}
    related = {"clipped-actions: beyond the limits": {"unit-mismatch"}}
    assert others <= related.get(name, set()) | FOLLOWS.get(kind, set()), [defect.message for defect in defects]
    for defect in defects:
        assert "\n" not in defect.message
        if kind in ("frozen-sensor", "action-lag", "duplicate-episode", "unit-mismatch", "wrong-rate"):
            # One joint that stayed small may have been asked for nothing.
            wanted = "warning" if name == "unit-mismatch: actions a hundredth" else "error"
            assert wanted in {defect.severity for defect in defects}
        if len(defect.episodes) == 1:
            assert f"episode {defect.episodes[0]}" in defect.message
        if defect.channel:
            assert "channel" in defect.message


# What a defect brings with it, rightly.
FOLLOWS = {
    "dead-channel": {"contradictory-labels"},
    "clipped-actions": {"action-lag"},
    "wrong-rate": {"time-gaps"},
    "time-gaps": {"wrong-rate"},
    "non-monotonic-time": {"time-gaps"},
    "frozen-sensor": {"missing-final-observation", "action-lag", "jump"},
    "duplicate-episode": {"contradictory-labels"},
    "short-episode": set(),
    "unit-mismatch": {"jump"},
    "contradictory-labels": {"action-lag"},
}


@pytest.mark.parametrize("name", BARE)
def test_each_defect_of_a_bare_folder_is_found_by_name(tmp_path, name):
    write_bare(tmp_path / "a", clean())
    BARE[name](tmp_path / "a")
    diagnosis = diagnose(tmp_path / "a")
    errors = [defect for defect in diagnosis.defects if defect.severity == "error"]
    assert [defect.id for defect in errors] == [name.split(":")[0]]
    assert f"{ODD:03d}.npz" in errors[0].message
    assert diagnosis.episodes == 11


@pytest.mark.parametrize("name", ["remove", "flip"])
def test_a_corrupt_file_of_a_dataset_is_found_by_name(tmp_path, name):
    dataset = saved(tmp_path / "a", clean())
    file = dataset.path / dataset.rows[ODD].file
    data = bytearray(file.read_bytes())
    file.unlink()
    if name == "flip":
        data[999] ^= 4
        file.write_bytes(data)
    (error,) = diagnose(dataset).errors
    assert (error.id, error.episodes) == ("corrupt-file", (ODD,))


@pytest.mark.parametrize("name", ["dataset.json", "episodes.jsonl", "everything"])
def test_what_cannot_be_opened_is_a_finding_and_no_error(tmp_path, name):
    dataset = saved(tmp_path / "a", clean())
    if name == "everything":
        path = tmp_path / "nothing"
    else:
        path = dataset.path
        (path / name).write_bytes(b"x" + (path / name).read_bytes())
    diagnosis = diagnose(path)
    assert [defect.id for defect in diagnosis.errors] == ["unreadable"]
    assert diagnosis.episodes == 0
    json.dumps(diagnosis.to_json())


def clean_sets():
    """1,000 episodes of ten kinds, as a person or a script records them."""
    kinds = [
        (human_episode, {"paced": True, "noise": 1e-3}),
        (human_episode, {"paced": True, "noise": 1e-2}),
        (human_episode, {"paced": True, "noise": 0.0}),
        (human_episode, {"paced": False, "noise": 1e-3}),
        (human_episode, {"paced": False, "noise": 1e-4}),
        (script_episode, {"paced": False, "noise": 0.0}),
        (script_episode, {"paced": True, "noise": 0.0}),
        (script_episode, {"paced": True, "noise": 1e-3}),
        (script_episode, {"paced": False, "noise": 1e-2}),
        (script_episode, {"paced": False, "noise": 1e-5}),
    ]
    for number, (make, options) in enumerate(kinds):
        yield f"{make.__name__} {options}", clean(100, seed=100 + number, make=make, **options)


def test_a_thousand_clean_episodes_raise_at_most_ten_false_alarms(tmp_path):
    alarms, total = [], 0
    for number, (name, episodes) in enumerate(clean_sets()):
        diagnosis = diagnose(saved(tmp_path / str(number), episodes))
        total += diagnosis.episodes
        alarms += [f"{name}: {defect.id}: {defect.message}" for defect in diagnosis.defects]
    assert total == 1000
    assert len(alarms) <= 10, "\n".join(alarms)


def test_the_table_of_the_docs_is_the_registry_and_every_row_has_a_test():
    text = (Path(__file__).parents[2] / "docs" / "defects.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert {name: what.strip() for name, what in rows.items()} == DEFECTS
    tested = {name.split(":")[0] for name in (*VARIANTS, *BARE)} | {"unreadable", "corrupt-file"}
    assert tested == set(DEFECTS)
    for name in (*VARIANTS, *BARE):
        kind, what = name.split(": ", 1)
        row = re.search(rf"^\| `{kind}` \|.*$", text, re.MULTILINE)
        assert row is not None
        assert what in row[0], f"docs/defects.md does not tell the variant {name!r}"


def test_a_diagnosis_says_what_is_there(tmp_path):
    dataset = saved(tmp_path / "a", clean())
    diagnosis = diagnose(dataset)
    lengths = [len(episode) for episode in dataset]
    assert (diagnosis.episodes, diagnosis.steps) == (12, sum(lengths))
    assert diagnosis.lengths == (min(lengths), float(np.median(lengths)), max(lengths))
    assert (diagnosis.successes, diagnosis.failures, diagnosis.unjudged) == (12, 0, 0)
    assert diagnosis.expert_steps == diagnosis.labelled_steps == sum(lengths)
    assert diagnosis.measured_hz == pytest.approx(50, rel=0.01)
    assert [channel.name for channel in diagnosis.channels[:2]] == ["joint_0.position", "joint_1.position"]
    assert diagnosis.channels[0].low == pytest.approx(min(e.observations[:, 0].min() for e in dataset))
    assert 0.1 < diagnosis.coverage < 2
    assert 0.5 < diagnosis.diversity < 2
    assert json.loads(json.dumps(diagnosis.to_json()))["episodes"] == 12
    assert any("12, " in line for line in diagnosis.lines())


def test_waiting_after_success_is_no_defect(tmp_path):
    assert diagnose(saved(tmp_path / "a", [padded(e, 120, at_end=True) for e in clean()])).defects == ()


def test_a_defect_in_many_episodes_takes_six_lines(tmp_path):
    lines = diagnose(saved(tmp_path / "a", [padded(e, 100, at_end=False) for e in clean(20)])).lines()
    assert sum("idle-stretch" in line for line in lines) == 6
    assert lines[-1] == "warning    idle-stretch: in 15 more places (all in the JSON)"


def test_copies_of_one_episode_have_no_coverage_and_no_diversity(tmp_path):
    diagnosis = diagnose(saved(tmp_path / "a", clean(1) * 5))
    assert (diagnosis.coverage, diagnosis.diversity) == (0.0, 0.0)


def test_an_empty_dataset_and_one_of_a_single_episode_can_be_diagnosed(tmp_path):
    Dataset.create(tmp_path / "none", Spec.unnamed(2, 1))
    assert [defect.id for defect in diagnose(tmp_path / "none").defects] == ["few-episodes"]
    one = diagnose(saved(tmp_path / "one", clean(1)))
    assert [defect.id for defect in one.defects] == ["few-episodes"]


def test_a_scripted_expert_in_simulation_raises_nothing(tmp_path):
    env = make_env("understudy/PickPlace-v0")
    with Dataset.create(tmp_path / "a", env) as dataset:
        list(record(env, Demonstrator(expert_for(env, "scripted")), dataset, seeds=range(12)))
    env.close()
    assert diagnose(dataset).defects == ()


def test_the_door_demonstrations_raise_no_error(shared_data):
    diagnosis = diagnose(shared_data / "adroit_door_human" / "episodes")
    assert diagnosis.errors == ()
    assert {defect.id for defect in diagnosis.defects} == {"success-unknown", "missing-final-observation"}
