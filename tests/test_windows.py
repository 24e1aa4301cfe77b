import numpy as np
import pytest
import torch

from tests.datasets import SPEC, point_dataset, point_episode
from understudy.dataset import Dataset
from understudy.errors import DataError
from understudy.windows import Windows, natural_lead


@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (3, 1), (1, 4), (4, 30)])
def test_a_batch_equals_windows_cut_out_by_hand(tmp_path, history, horizon):
    dataset = point_dataset(tmp_path / "data", episodes=3, steps=7)
    windows = Windows(dataset, history, horizon)
    assert len(windows) == 21
    batch = windows.batch(torch.arange(21))
    episodes = list(dataset)
    for number in range(21):
        episode, step = episodes[number // 7], number % 7
        for column, age in enumerate(range(history - 1, -1, -1)):
            expected = episode.observations[max(0, step - age)]
            np.testing.assert_array_equal(batch.observations[number, column], expected)
        for ahead in range(horizon):
            inside = step + ahead < 7
            assert batch.weight[number, ahead] == inside
            if inside:
                np.testing.assert_array_equal(batch.actions[number, ahead], episode.actions[step + ahead])


def test_steps_that_nobody_advised_on_are_history_and_no_target(tmp_path):
    driver = np.array([1, 0, 0, 1], np.int8)
    labelled = np.array([False, False, True, False])
    labels = np.full((4, 2), 0.5, np.float32)
    with Dataset.create(tmp_path / "data", SPEC) as dataset:
        dataset.append(point_episode(0, 4, driver=driver, labelled=labelled, labels=labels))
    windows = Windows(Dataset.open(tmp_path / "data"), 2, 2)
    batch = windows.batch(torch.arange(len(windows)))
    assert len(windows) == 3  # steps 0, 2 and 3
    np.testing.assert_array_equal(batch.weight, [[1, 0], [1, 1], [1, 0]])
    np.testing.assert_array_equal(batch.actions[1, 0], [0.5, 0.5])
    np.testing.assert_array_equal(batch.observations[1, 0], dataset[0].observations[1])


def test_targets_are_cut_to_the_limits_and_the_file_keeps_what_was_recorded(tmp_path):
    wild = point_episode(0, 4, labelled=np.ones(4, bool), labels=np.full((4, 2), 1.37, np.float32))
    with Dataset.create(tmp_path / "data", SPEC) as dataset:
        dataset.append(wild)
    dataset = Dataset.open(tmp_path / "data")
    assert float(Windows(dataset, 1, 1).targets.max()) == 1.0
    assert float(Windows(dataset, 1, 1, clip=False).targets.max()) == np.float32(1.37)
    assert dataset[0].labels.max() == np.float32(1.37)


def test_statistics_are_those_of_what_may_be_trained_on(tmp_path):
    dataset = point_dataset(tmp_path / "data", episodes=4)
    observations, actions = Windows(dataset, 1, 1).statistics()
    rows = np.concatenate([episode.observations[:-1] for episode in dataset]).astype(np.float64)
    np.testing.assert_allclose(observations.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(observations.deviation, rows.std(0), rtol=1e-5, atol=1e-7)
    assert observations.scale[2] == 1  # the dead channel is centred, not scaled
    targets = np.concatenate([episode.actions for episode in dataset])
    np.testing.assert_array_equal(actions.maximum, targets.max(0))


def test_a_dataset_without_a_target_is_refused(tmp_path):
    with Dataset.create(tmp_path / "data", SPEC) as dataset:
        dataset.append(point_episode(0, 4, driver=np.zeros(4, np.int8)))
    with pytest.raises(DataError, match="no step can be trained on"):
        Windows(Dataset.open(tmp_path / "data"), 1, 1)


def test_a_channel_that_never_moves_does_not_slow_the_pace():
    steps = np.arange(3000, dtype=np.float32)
    moving = np.sin(steps / 40)[:, None].astype(np.float32)
    last = np.full(3000, 2999, np.int32)
    alone = natural_lead(moving, np.ones(3000, bool), last)
    still = np.full((3000, 6), 0.1, np.float32)
    assert natural_lead(np.hstack([moving, still]), np.ones(3000, bool), last) == alone > 0
    assert natural_lead(moving + np.float32(1500), np.ones(3000, bool), last) == alone


def test_the_natural_lead_leaves_most_of_a_short_episode():
    slow = (np.arange(40, dtype=np.float32) % 10)[:, None] / 1000
    last = np.repeat(np.arange(9, 40, 10), 10).astype(np.int32)
    assert natural_lead(slow, np.ones(40, bool), last) <= 1
