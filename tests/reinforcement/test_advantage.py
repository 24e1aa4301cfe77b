import numpy as np
import pytest

from understudy.episode import Episode
from understudy.reinforcement.advantage import discounted, generalised_advantages, last_value, whitened


def episode(**columns):
    return Episode(np.zeros((4, 2)), np.zeros((3, 1)), **columns)


@pytest.mark.parametrize("last", [0.0, 2.5])
def test_discounted_returns_are_the_sum_of_what_comes(last):
    rewards = np.random.default_rng(0).normal(size=7)
    literal = [sum(0.9**k * rewards[t + k] for k in range(7 - t)) + 0.9 ** (7 - t) * last for t in range(7)]
    np.testing.assert_allclose(discounted(rewards, 0.9, last), literal, rtol=1e-12)


def test_generalised_advantages_are_the_double_sum_of_the_paper():
    random = np.random.default_rng(1)
    rewards, values = random.normal(size=6), random.normal(size=7)
    deltas = [rewards[t] + 0.99 * values[t + 1] - values[t] for t in range(6)]
    literal = [sum((0.99 * 0.95) ** k * deltas[t + k] for k in range(6 - t)) for t in range(6)]
    np.testing.assert_allclose(generalised_advantages(rewards, values, 0.99, 0.95), literal, rtol=1e-12)


def test_with_lambda_1_an_advantage_is_the_return_minus_the_value():
    random = np.random.default_rng(2)
    rewards, values = random.normal(size=6), random.normal(size=7)
    returns = discounted(rewards, 0.97, values[-1])
    np.testing.assert_allclose(generalised_advantages(rewards, values, 0.97, 1.0), returns - values[:-1], rtol=1e-12)


def test_a_time_limit_is_not_the_end_of_the_task():
    """What is worth 5 after the last step is worth 5 where only the time ran out, and nothing where the task ended."""
    assert last_value(episode(truncated=True), 5.0) == 5.0
    assert last_value(episode(), 5.0) == 5.0
    assert last_value(episode(terminated=True), 5.0) == 0.0


def test_whitened_advantages_have_mean_0_and_deviation_1():
    values = whitened(np.array([1.0, 2.0, 6.0, 7.0]))
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-12)
    assert (whitened(np.full(4, 3.0)) == 0).all(), "advantages that do not differ teach nothing"
