import pickle

import numpy as np
import pytest

from understudy.agent import Driver
from understudy.episode import SUCCESS, UNKNOWN, Episode
from understudy.errors import DataError


def episode(steps=4, **columns):
    rng = np.random.default_rng(0)
    return Episode(rng.normal(size=(steps + 1, 3)), rng.normal(size=(steps, 2)), **columns)


def test_what_is_absent_means_that_the_expert_drove_unasked():
    bare = episode()
    assert (bare.driver == Driver.EXPERT).all()
    assert not bare.labelled.any()
    assert np.isnan(bare.time_s).all()
    assert bare.success == UNKNOWN
    assert (bare.asked_actions == bare.actions).all()


def test_the_target_is_the_label_else_the_experts_action_else_nothing():
    labels = np.full((4, 2), 9.0, np.float32)
    mixed = episode(
        labels=labels, labelled=np.array([True, False, False, True]), driver=np.array([1, 1, 0, 0], np.int8)
    )
    targets, valid = mixed.targets()
    np.testing.assert_array_equal(valid, [True, True, False, True])
    np.testing.assert_array_equal(targets[0], [9, 9])
    np.testing.assert_array_equal(targets[1], mixed.actions[1])
    np.testing.assert_array_equal(targets[3], [9, 9])


def test_columns_are_float32_and_frozen_copies():
    observations = np.zeros((5, 3))
    one = Episode(observations, np.zeros((4, 2)))
    observations[:] = 7
    assert one.observations.dtype == np.float32
    assert not one.observations.any()
    with pytest.raises(ValueError, match="read-only"):
        one.actions[0, 0] = 1


@pytest.mark.parametrize(
    "columns",
    [
        {"observations": np.zeros((4, 3)), "actions": np.zeros((4, 2))},
        {"observations": np.zeros((5, 0)), "actions": np.zeros((4, 2))},
        {"observations": np.zeros((1, 3)), "actions": np.zeros((0, 2))},
        {"observations": np.zeros((5, 3)), "actions": np.zeros(4)},
        {"observations": np.zeros((5, 3)), "actions": np.zeros((4, 2)), "labels": np.zeros((4, 3))},
        {"observations": np.zeros((5, 3)), "actions": np.zeros((4, 2)), "rewards": np.zeros(5)},
        {"observations": np.zeros((5, 3)), "actions": np.zeros((4, 2)), "success": 2},
    ],
)
def test_columns_that_do_not_fit_are_refused(columns):
    with pytest.raises(DataError):
        Episode(**columns)


@pytest.mark.parametrize(
    "columns", [{"seed": -5}, {"seed": 5.0}, {"seed": 2**63}, {"driver": np.full(4, 7)}, {"driver": np.full(4, 256)}]
)
def test_a_seed_or_a_driver_that_is_none_is_refused(columns):
    with pytest.raises(DataError, match=next(iter(columns))):
        episode(**columns)


def test_what_numpy_calls_a_number_is_a_plain_one():
    made = episode(seed=np.int64(3), success=np.int8(1), partial=np.bool_(True), truncated=1)
    assert [type(value) for value in (made.seed, made.success, made.partial, made.truncated)] == [int, int, bool, bool]


def test_an_episode_travels_between_processes():
    sent = episode(seed=3, initial_state={"qpos": np.arange(3.0)}, success=SUCCESS)
    received = pickle.loads(pickle.dumps(sent))
    np.testing.assert_array_equal(received.observations, sent.observations)
    np.testing.assert_array_equal(received.initial_state["qpos"], np.arange(3.0))
    assert (received.seed, received.success) == (3, SUCCESS)
