import math

import numpy as np
import pytest
import torch

from tests.datasets import SPEC
from understudy.errors import ConfigError, PolicyError
from understudy.policies import Batch, Ensemble, FeedForward, FeedForwardConfig
from understudy.policies.heads import HEADS
from understudy.statistics import ChannelStatistics


def statistics(size, seed=0):
    return ChannelStatistics.of([np.random.default_rng(seed).normal(2, 3, (50, size)).astype(np.float32)])


def fitted(policy):
    policy.fit_scaling(statistics(3), statistics(2, 1))
    return policy


def feedforward(**config):
    return fitted(FeedForward(SPEC, FeedForwardConfig(hidden=(16, 8), **config)).initialized(0))


def skipping(policy):
    """The policy with a skip that does something; a new one does nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for member in getattr(policy, "members", [policy]):
            for parameter in member.skip.parameters():
                parameter.normal_(0, 0.1, generator=generator)
    return policy


POLICIES = {
    "plain": lambda: feedforward(),
    "chunks and history": lambda: feedforward(history=3, horizon=4, activation="tanh"),
    "gaussian": lambda: feedforward(head="gaussian"),
    "skip": lambda: skipping(feedforward(skip=True, history=2, horizon=2)),
    "skip with a hidden layer": lambda: skipping(feedforward(skip=True, skip_hidden=(6,), history=2)),
    "ensemble with hidden skips": lambda: skipping(
        fitted(Ensemble.of(feedforward(skip=True, skip_hidden=(5, 4)), 3, seed=1))
    ),
    "ensemble with skips": lambda: skipping(fitted(Ensemble.of(feedforward(skip=True), 3, seed=1))),
    "ensemble": lambda: fitted(Ensemble.of(feedforward(horizon=2), 3, seed=1)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_form_for_execution_says_what_the_policy_says(name):
    policy = POLICIES[name]()
    rng = np.random.default_rng(0)
    for _ in range(20):
        observations = rng.normal(2, 3, (policy.history, 3)).astype(np.float32)
        np.testing.assert_allclose(
            policy.for_execution().predict(observations), policy.predict(observations), atol=2e-5
        )


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_keeps_nothing_between_calls(name):
    policy = POLICIES[name]()
    observations = np.ones((policy.history, 3), np.float32)
    first = policy.predict(observations)
    policy.predict(observations * 7)
    np.testing.assert_array_equal(policy.predict(observations), first)
    assert first.shape == (policy.horizon, 2)


def test_actions_are_limited_by_the_action_space_and_not_squashed_before():
    policy = feedforward()
    far = np.full((1, 3), 1e6, np.float32)
    assert np.abs(policy.predict(far)).max() <= 1
    unlimited = policy.predict_batch(torch.full((1, 1, 3), 30.0))
    assert float(unlimited.detach().abs().max()) > 1


def test_an_ensemble_answers_the_mean_of_its_members():
    ensemble = fitted(Ensemble.of(feedforward(), 3, seed=1))
    observations = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    members = ensemble.predictions(observations)
    assert members.shape == (3, 5, 1, 2)
    assert float(members.std(0).detach().min()) > 0
    torch.testing.assert_close(ensemble.predict_batch(observations), members.mean(0))


def test_an_ensemble_of_one_or_of_two_shapes_is_refused():
    with pytest.raises(ConfigError, match="2 members"):
        Ensemble([feedforward()])
    with pytest.raises(ConfigError, match="one shape"):
        Ensemble([feedforward(), feedforward(horizon=2)])


def test_policies_with_scalings_of_their_own_are_no_ensemble():
    other = FeedForward(SPEC, FeedForwardConfig(hidden=(16, 8))).initialized(1)
    other.fit_scaling(statistics(3, seed=5), statistics(2, seed=6))
    with pytest.raises(ConfigError, match="one scaling"):
        Ensemble([feedforward(), other])


def test_weightless_targets_change_no_gradient():
    policy = feedforward(horizon=2)
    batch = Batch(torch.randn(4, 1, 3), torch.randn(4, 2, 2), torch.tensor([[1.0, 0.0]] * 4))
    other = batch._replace(actions=batch.actions + torch.tensor([[0.0], [9.0]]))
    gradients = []
    for one in (batch, other):
        policy.zero_grad()
        policy.loss(one).backward()
        gradients.append([parameter.grad.clone() for parameter in policy.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_samples_of_a_head_follow_its_likelihood(name):
    head = HEADS[name](1)
    if name == "gaussian":
        head.log_deviation.data.fill_(math.log(0.5))
    deviation = {"absolute": math.sqrt(2), "squared": 1.0, "gaussian": 0.5}[name]
    samples = head.sample(torch.full((200_000, 1), 3.0), torch.Generator().manual_seed(0)).detach()
    assert float(samples.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(samples.std()) == pytest.approx(deviation, rel=0.02)
    # the likelihood is highest at the truth
    losses = [float(head.nll(torch.full_like(samples, mean), samples).detach().mean()) for mean in (2.7, 3.0, 3.3)]
    assert losses[1] == min(losses)


def test_the_gaussian_likelihood_equals_its_textbook_form():
    head = HEADS["gaussian"](2)
    head.log_deviation.data = torch.tensor([0.3, -0.7])
    mean, target = torch.randn(5, 2), torch.randn(5, 2)
    normal = torch.distributions.Normal(mean, head.log_deviation.exp())
    torch.testing.assert_close(head.nll(mean, target), -normal.log_prob(target))


def test_an_untrained_policy_neither_executes_nor_is_saved():
    policy = FeedForward(SPEC)
    with pytest.raises(PolicyError, match="never trained"):
        policy.predict(np.zeros((1, 3), np.float32))
    with pytest.raises(PolicyError, match="never trained"):
        policy.to_file()


def test_the_first_weights_are_a_function_of_the_seed():
    one, two, other = (FeedForward(SPEC).initialized(seed).arrays() for seed in (0, 0, 1))
    assert all((one[name] == two[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden": ()},
        {"hidden": (0,)},
        {"activation": "sine"},
        {"head": "mixture"},
        {"history": 0},
        {"horizon": 0},
        {"input_limit": 0},
    ],
)
def test_a_shape_that_cannot_be_is_refused(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        FeedForwardConfig(**config)
