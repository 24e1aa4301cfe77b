"""What only a GPU can show; elsewhere these are skipped. With one, `--device auto` takes the other trainings there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.datasets import point_dataset
from understudy.policies import Ensemble, FeedForward, FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.trainer import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")

SHAPE = FeedForwardConfig(hidden=(32, 32), history=2, horizon=3)
RECIPE = TrainConfig(steps=200, batch_size=32, measure_every=50, observation_noise=0.0)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("head", ["absolute", "squared", "gaussian", "mixture"])
def test_a_gpu_learns_what_the_cpu_learns(tmp_path, head, members):
    demos = point_dataset(tmp_path / "demos", episodes=20)
    one = FeedForward.for_data(demos, replace(SHAPE, head=head))
    policy = one if members == 1 else Ensemble.of(one, members)
    logs = {"cpu": [], "cuda": []}
    here, there = (train(policy, demos, replace(RECIPE, device=name), on_log=logs[name].append) for name in logs)
    assert {parameter.device.type for parameter in there.parameters()} == {"cpu"}
    for one_log, other in zip(*logs.values(), strict=True):
        assert other.loss == pytest.approx(one_log.loss, abs=0.02)
        assert other.held_out_loss == pytest.approx(one_log.held_out_loss, abs=0.02)
    if head != "mixture":  # which of its Gaussians comes first may turn on a rounding
        seen = np.array([[0.5, -0.5, 5.0], [0.4, -0.4, 5.0]], np.float32)
        np.testing.assert_allclose(here.predict(seen), there.predict(seen), atol=0.05)


class NotRecorded(FeedForward):
    """A policy of somebody's own, that does not say that its loss can be recorded."""

    kind = "not_recorded"

    @property
    def loss_can_be_recorded(self):
        return False


def test_a_loss_that_is_recorded_is_the_one_that_is_not(tmp_path):
    demos = point_dataset(tmp_path / "demos", episodes=20)
    recorded, told = [], []
    train(FeedForward.for_data(demos, SHAPE), demos, RECIPE, on_log=recorded.append)
    train(NotRecorded.for_data(demos, SHAPE), demos, RECIPE, on_log=told.append)
    for one, other in zip(recorded, told, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
