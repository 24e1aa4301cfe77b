from dataclasses import replace

import numpy as np
import torch

from understudy.episode import Episode
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.value import ValueFunction

CONFIG = FinetuneConfig(value_hidden=(16,), value_epochs=30, value_batch=32, value_learning_rate=3e-3)


def made(config=CONFIG, seed=0):
    return ValueFunction(2, config, torch.Generator().manual_seed(seed))


def order(epoch, rows):
    return torch.randperm(rows, generator=torch.Generator().manual_seed(epoch))


def some(rows=200, seed=0):
    random = np.random.default_rng(seed)
    features = torch.from_numpy(random.uniform(-1, 1, (rows, 6)).astype(np.float32))
    return features, 300 + 50 * features[:, 0].numpy().astype(np.float64) ** 2


def test_it_learns_returns_of_any_size():
    value, (features, targets) = made(), some()
    assert value.fit(features, targets, order) > 1, "at first it explains nothing"
    for _ in range(5):
        value.fit(features, targets, order)
    assert ((value.values(features) - targets) ** 2).mean() < 0.1 * targets.var()


def test_larger_returns_change_no_value_until_they_are_learnt():
    value, (features, targets) = made(), some()
    value.fit(features, targets, order)
    before = value.values(features)
    value._adapt(targets * 100 - 7)
    np.testing.assert_allclose(value.values(features), before, rtol=1e-3, atol=0.2)


def test_mean_and_deviation_are_those_of_all_targets():
    value, blocks = made(), [some(seed=seed)[1] * seed for seed in (1, 2, 3)]
    for block in blocks:
        value._adapt(block)
    everything = np.concatenate(blocks)
    np.testing.assert_allclose([value._mean, value._deviation], [everything.mean(), everything.std()], rtol=1e-9)


def test_the_error_is_the_unexplained_share_of_the_variance_before():
    value, (features, targets) = made(), some()
    value.fit(features, targets, order)
    literal = ((targets - value.values(features)) ** 2).mean() / targets.var()
    np.testing.assert_allclose(value.fit(features, targets, order), literal, rtol=1e-6)


def test_time_is_seen_so_that_the_same_state_may_be_worth_less_later():
    episode = Episode(np.zeros((31, 2)), np.zeros((30, 1)))
    value = made(replace(CONFIG, value_epochs=300))
    (features,) = value.features([episode], lambda observations: observations)
    time = np.arange(31) / 1000
    np.testing.assert_allclose(features[:, 2:], np.stack([time, time**2, time**3, time**4], 1), rtol=1e-5)
    targets = np.arange(30, 0, -1.0)
    for _ in range(4):
        value.fit(features[:-1], targets, order)
    values = value.values(features)
    assert values[0] > values[15] > values[29]


def test_a_state_far_outside_is_cut_before_it_drowns_the_others():
    episode = Episode(np.full((3, 2), 1e6), np.zeros((2, 1)))
    (features,) = made().features([episode], lambda observations: observations)
    assert features.abs().max() == 10


def test_raw_inputs_are_a_tenth_of_their_own_units():
    seen = np.array([[3.0, -400.0]] * 3)
    (features,) = made(replace(CONFIG, value_inputs="raw")).features([Episode(seen, np.zeros((2, 1)))], None)
    np.testing.assert_allclose(features[:, :2], [[0.3, -1.0]] * 3, rtol=1e-6)


def test_numbers_that_are_nearly_nothing_cost_no_time_and_stay_what_they_were_for_others():
    """Denormal numbers slow a processor down; they are zeros while the value function learns, and only then."""
    features, targets = some()
    tiny, seen = torch.tensor(1e-40), []

    def looking(epoch, rows):
        seen.append(float(tiny * 1))
        return order(epoch, rows)

    made().fit(features, targets, looking)
    assert set(seen) == {0.0}
    assert float(tiny * 1) > 0


def test_clipping_the_value_limits_how_far_a_batch_moves_it():
    features, targets = some()
    moved = {}
    for clip in (None, 0.01):
        value = made(replace(CONFIG, value_clip=clip, value_epochs=100))
        value._adapt(targets)
        before = value.values(features)
        value.fit(features, targets, order)
        moved[clip] = np.abs(value.values(features) - before).mean() / value._deviation
    assert moved[0.01] < 0.3 * moved[None]


def test_it_goes_on_from_its_state_to_the_same_bytes():
    features, targets = some()
    one, two = made(), made(seed=5)
    one.fit(features, targets, order)
    two.restore({name: tensor.detach().clone() for name, tensor in one.state().items()})
    for value in (one, two):
        value.fit(features, targets * 2, order)
    assert all(torch.equal(tensor, two.state()[name]) for name, tensor in one.state().items())
