"""D9: what looks like a defect and is none, and what a rule must not overlook."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from understudy.dataset import Dataset, diagnose
from understudy.dataset.channel_checks import _percentile_of_others
from understudy.episode import Episode
from understudy.spec import Channel, Spec

pytestmark = [pytest.mark.usefixtures("no_fsync"), pytest.mark.filterwarnings("ignore::UserWarning")]


def spec(observations=3, actions=2, limit=np.inf):
    asked = tuple(Channel(f"a{index}", "", -limit, limit) for index in range(actions))
    return Spec("", 0.0, tuple(Channel(f"o{index}", "") for index in range(observations)), asked)


def followed(actions, seed=0):
    """An episode in which the observations follow the actions, with the noise of sensors."""
    rng = np.random.default_rng(seed)
    moved = 0.1 * np.resize(actions.T, (3, len(actions))).T + 1e-3 * rng.normal(size=(len(actions), 3))
    observations = rng.normal(size=3) + np.concatenate([np.zeros((1, 3)), np.cumsum(moved, axis=0)])
    return seen(observations, actions, seed=seed)


def seen(observations, actions, **more):
    return Episode(observations, actions, **{"rewards": np.ones(len(actions)), "success": 1, **more})


def walk(seed, steps=60):
    return followed(0.1 * np.cumsum(np.random.default_rng(seed).normal(size=(steps, 2)), axis=0), seed)


def noise(seed, steps):
    return followed(np.random.default_rng(seed).normal(size=(steps, 2)), seed)


def defects(path, episodes, kept=None):
    with Dataset.create(path, kept or spec(episodes[0].observations.shape[1], episodes[0].actions.shape[1])) as dataset:
        for episode in episodes:
            dataset.append(episode)
    return diagnose(path).defects


def found(path, episodes, kept=None):
    return {(defect.id, defect.severity) for defect in defects(path, episodes, kept)}


def with_channel(episode, values):
    return replace(episode, observations=np.concatenate([episode.observations, values[:, None]], axis=1))


def scaled(episode, channels, factor):
    observations = np.array(episode.observations)
    observations[:, channels] *= factor
    return replace(episode, observations=observations)


# --- duplicate-episode
def test_episodes_that_only_begin_alike_are_no_copies(tmp_path):
    """A deterministic policy drives them alike from one start; at step 50 of 60 somebody takes over."""
    base, episodes = walk(0), []
    for seed in range(10):
        actions, observations = np.array(base.actions), np.array(base.observations)
        actions[50:] = walk(100 + seed).actions[50:]
        observations[51:] += np.cumsum(0.1 * (np.resize(actions.T, (3, 60)).T - base.observations[:60])[50:], axis=0)
        episodes.append(seen(observations, actions))
    assert found(tmp_path / "a", episodes) == set()


def test_a_wait_of_sixteen_steps_makes_no_copies(tmp_path):
    episodes = []
    for seed in range(12):
        episode = walk(seed, 25 + seed % 7)
        actions, observations = np.array(episode.actions), np.array(episode.observations)
        actions[:17], observations[:18] = 0, 0.5
        episodes.append(replace(episode, observations=observations, actions=actions, asked_actions=actions))
    assert "duplicate-episode" not in {name for name, _ in found(tmp_path / "a", episodes)}


@pytest.mark.parametrize("steps", [8, 15, 16, 40])
def test_a_short_copy_with_another_verdict_is_found(tmp_path, steps):
    episodes = [noise(seed, steps) for seed in range(12)]
    copies = defects(tmp_path / "a", [*episodes, replace(episodes[0], success=0, seed=99)])
    assert [(defect.id, defect.episodes) for defect in copies] == [("duplicate-episode", (0, 12))]


def test_a_copy_that_was_cut_anywhere_is_found_and_the_short_one_named(tmp_path):
    episodes = [noise(seed, 70) for seed in range(12)]
    cut = seen(episodes[3].observations[:38], episodes[3].actions[:37])
    (copy,) = defects(tmp_path / "a", [cut, *episodes])
    assert (copy.id, copy.episodes) == ("duplicate-episode", (4, 0))
    assert copy.message.endswith("drop 0")


def test_a_wide_copy_that_was_cut_is_found(tmp_path):
    """The checksums of an episode are made in blocks whose size depends on its length."""
    rng = np.random.default_rng(0)
    episodes = [seen(rng.normal(size=(301, 4000)), rng.normal(size=(300, 3))) for _ in range(3)]
    cut = seen(episodes[1].observations[:101], episodes[1].actions[:100])
    copies = [defect.episodes for defect in defects(tmp_path / "a", [*episodes, cut]) if defect.severity == "error"]
    assert copies == [(1, 3)]


def test_two_walks_through_a_grid_may_be_equal(tmp_path):
    """The same few cells and moves, from starts of other numbers."""
    rng = np.random.default_rng(0)
    episodes = [
        seen(np.arange(7.0)[:, None], np.array([[1.0, 0.0]] * 6), seed=seed, rewards=rng.normal(size=6))
        for seed in range(12)
    ]
    assert "duplicate-episode" not in {name for name, _ in found(tmp_path / "a", episodes)}


# --- unit-mismatch
def test_a_sensor_of_force_that_touches_in_some_episodes_has_no_other_unit(tmp_path):
    rng, episodes = np.random.default_rng(0), []
    for seed in range(12):
        force = 0.02 * rng.uniform(-1, 1, size=101)
        if seed < 3:
            force[40:60] += (3 + rng.uniform(0, 2)) * np.hanning(20)
        episodes.append(with_channel(walk(seed, 100), force))
    assert found(tmp_path / "a", episodes) == set()


def test_a_simulated_sensor_of_force_that_is_0_without_contact_has_no_other_unit(tmp_path):
    rng, episodes = np.random.default_rng(0), []
    for seed in range(12):
        force = np.zeros(101)
        force[40:60] = (0.02 if seed > 6 else 4) * (seed > 4) * (1 + rng.uniform(0, 1)) * np.hanning(20)
        episodes.append(with_channel(walk(seed, 100), force))
    assert "unit-mismatch" not in {name for name, _ in found(tmp_path / "a", episodes)}


@pytest.mark.parametrize("zero", [False, True])
def test_degrees_are_found_where_another_episode_leaves_the_joints_at_0(tmp_path, zero):
    episodes = [scaled(walk(seed), [0, 1], 57.3 if seed < 3 else 1) for seed in range(12)]
    if zero:
        episodes[7] = scaled(episodes[7], [0, 1], 0)
    (error,) = [defect for defect in defects(tmp_path / "a", episodes) if defect.id == "unit-mismatch"]
    assert (error.severity, error.episodes) == ("error", (0, 1, 2))


@pytest.mark.parametrize(
    ("factor", "severity"), [(57.3, "error"), (1000, "error"), (315, "warning"), (2500, "warning")]
)
def test_one_channel_in_no_known_unit_is_a_warning(tmp_path, factor, severity):
    rng, episodes = np.random.default_rng(0), []
    for seed in range(12):
        turn = np.sin(np.linspace(0, 6, 101) + rng.uniform(0, 6)) + 1e-4 * rng.normal(size=101)
        episodes.append(with_channel(walk(seed, 100), turn * (factor if seed < 2 else 1)))
    assert found(tmp_path / "a", episodes) == {("unit-mismatch", severity)}


# --- frozen-sensor
def test_switches_stand_still_by_nature(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [
        seen(np.repeat(rng.integers(0, 3, 7), 10)[:61, None].astype(float), rng.normal(size=(60, 2))) for _ in range(12)
    ]
    assert "frozen-sensor" not in {name for name, _ in found(tmp_path / "a", episodes)}


def car(seed):
    """Pushed against its wall, and away again."""
    rng = np.random.default_rng(seed)
    actions = np.clip(np.where(np.arange(100) < 45, -1, 1) + 0.3 * rng.normal(size=100), -1, 1)[:, None]
    place = speed = 0.0
    observations = [[place, speed]]
    for (push,) in actions:
        speed = 0.9 * speed + 0.01 * push
        place += speed
        if place < -0.4:
            place, speed = -0.4, 0.0
        observations.append([place, speed])
    return seen(np.array(observations), actions)


def test_a_wall_that_most_episodes_touch_is_one_warning(tmp_path):
    (warning,) = [
        defect for defect in defects(tmp_path / "a", [car(seed) for seed in range(12)]) if defect.id == "frozen-sensor"
    ]
    assert warning.severity == "warning"
    assert warning.message.startswith("in 12 of 12 episodes no observation changes for 5 steps or more")


def test_sensors_that_hang_in_some_episodes_are_errors(tmp_path):
    episodes = [walk(seed) for seed in range(12)]
    for place in range(4):
        observations = np.array(episodes[place].observations)
        observations[20:40] = observations[20]
        episodes[place] = replace(episodes[place], observations=observations)
    hung = [defect for defect in defects(tmp_path / "a", episodes) if defect.id == "frozen-sensor"]
    assert [(defect.severity, defect.episodes) for defect in hung] == [("error", (place,)) for place in range(4)]


# --- dead-channel
def test_thousands_of_dead_channels_are_not_all_named(tmp_path):
    episodes = [replace(e, observations=np.pad(e.observations, ((0, 0), (0, 3000)))) for e in map(walk, range(12))]
    dead = [defect for defect in defects(tmp_path / "a", episodes) if defect.id == "dead-channel"]
    assert len(dead) == 101
    assert dead[-1].message.startswith("2900 more channels, from observation channel 103 (o103) on, have one value")


# --- lengths and limits
def test_a_world_of_one_step_stops_nothing_by_accident(tmp_path):
    rng = np.random.default_rng(0)
    assert found(tmp_path / "a", [seen(rng.normal(size=(2, 3)), rng.normal(size=(1, 2))) for _ in range(12)]) == set()


def test_an_episode_of_two_steps_without_limits_is_short_and_not_clipped(tmp_path):
    (short,) = defects(tmp_path / "a", [*(walk(seed) for seed in range(11)), walk(20, 2)])
    assert (short.id, short.episodes) == ("short-episode", (11,))
    assert "has only 2 of the usual 60 steps" in short.message


@pytest.mark.parametrize("limit", [float(np.finfo(np.float32).max), 1e300])
def test_limits_beyond_all_numbers_are_none(tmp_path, limit):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert found(tmp_path / "a", [walk(seed) for seed in range(12)], spec(limit=limit)) == set()


# --- nothing to learn from
@pytest.mark.parametrize("partial", [0, 3])
def test_a_dataset_without_a_whole_episode_is_an_error(tmp_path, partial):
    with Dataset.create(tmp_path / "a", spec()) as dataset:
        for seed in range(partial):
            dataset.append(replace(walk(seed), partial=True))
    diagnosis = diagnose(tmp_path / "a")
    (error,) = diagnosis.errors
    assert error.id == "few-episodes"
    assert error.message.startswith("there is no whole episode" if partial else "there is no episode")
    assert "channels   3 observation, 2 action" in diagnosis.lines()
    assert [channel["name"] for channel in diagnosis.to_json()["channels"]] == ["o0", "o1", "o2", "a0", "a1"]
    json.dumps(diagnosis.to_json(), allow_nan=False)


def test_a_rate_beyond_all_numbers_is_no_rate(tmp_path):
    defects(tmp_path / "a", [replace(walk(seed), time_s=np.arange(60) * 1e-310) for seed in range(12)])
    diagnosis = diagnose(tmp_path / "a")
    assert diagnosis.measured_hz is None
    json.dumps(diagnosis.to_json(), allow_nan=False)


# --- the percentile of the others
@pytest.mark.parametrize("rows", [2, 3, 4, 11, 60])
def test_the_percentile_of_the_others_is_that_without_the_row(rows):
    rng = np.random.default_rng(rows)
    columns = np.round(rng.normal(size=(rows, 9)), 1)  # with equal values
    wanted = [np.percentile(np.delete(columns, row, axis=0), 90, axis=0) for row in range(rows)]
    assert _percentile_of_others(columns, 90) == pytest.approx(np.array(wanted), abs=1e-12)


@pytest.mark.parametrize(("stall_s", "severity"), [(3.1, "warning"), (6.5, "error")])
def test_a_slow_robot_that_was_late_by_a_half_is_only_warned_of(tmp_path, stall_s, severity):
    times = 2.0 * np.arange(60)
    times[30:] += stall_s - 2.0
    episode = replace(walk(0), time_s=times)
    slow = replace(spec(), control_hz=0.5)
    assert ("time-gaps", severity) in found(tmp_path / "a", [episode], slow)
