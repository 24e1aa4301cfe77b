import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from understudy.episode import Episode
from understudy.errors import ConfigError
from understudy.evaluate import Evaluation, Trial, compare, episodes_needed, judge, wilson_interval
from understudy.spec import Channel, Spec
from understudy.statistics import ChannelStatistics

SPEC = Spec("test/World-v0", 20.0, (Channel("x", "m"), Channel("y", "m")), (Channel("v", "m/s"),))


def evaluation(outcomes, seed=0):
    trials = tuple(
        Trial(index, seed + index, bool(won), bool(won), 1.0, 10, 0.5 if won else None, (0.0, 0.0))
        for index, won in enumerate(outcomes)
    )
    return Evaluation("test/World-v0", seed, trials)


def test_the_wilson_interval_solves_its_defining_equation():
    for successes, trials in [(0, 10), (3, 10), (91, 100), (10, 10)]:
        share = successes / trials
        for limit in wilson_interval(successes, trials):
            if 1e-9 < limit < 1 - 1e-9:
                # Wilson's limits are where |share - p| = z sqrt(p (1 - p) / n)
                assert abs(share - limit) == pytest.approx(1.959964 * math.sqrt(limit * (1 - limit) / trials), rel=1e-5)
    assert wilson_interval(91, 100) == pytest.approx((0.8377, 0.9519), abs=1e-4)


def test_mcnemar_is_the_two_sided_binomial_test_of_the_discordant_starts():
    first, second = (
        evaluation([1] * 10 + [1] * 2 + [0] * 9 + [0] * 4),
        evaluation([1] * 10 + [0] * 2 + [1] * 9 + [0] * 4),
    )
    comparison = compare(first, second)
    assert (comparison.both, comparison.only_first, comparison.only_second, comparison.neither) == (10, 2, 9, 4)
    literal = sum(math.comb(11, k) * 0.5**11 for k in range(12) if math.comb(11, k) <= math.comb(11, 2))
    assert comparison.p_value == pytest.approx(literal)
    low, high = comparison.interval
    assert low < comparison.difference < high
    assert comparison.difference == pytest.approx(7 / 25)


def test_equal_policies_have_no_difference():
    same = compare(evaluation([1, 0, 1]), evaluation([1, 0, 1]))
    assert (same.difference, same.p_value) == (0, 1)


def test_newcombes_interval_gives_his_published_example():
    # Newcombe 1998 (Statistics in Medicine 17:2635), table II: 36, 12, 2, 0 of 50 give 0.0569 to 0.3404 by method 10.
    comparison = compare(evaluation([1] * 36 + [0] * 12 + [1] * 2), evaluation([1] * 36 + [1] * 12 + [0] * 2))
    assert comparison.interval == pytest.approx((0.0569, 0.3404), abs=5e-4)


def test_other_starts_cannot_be_compared():
    with pytest.raises(ConfigError, match="starts differ"):
        compare(evaluation([1, 0]), evaluation([1, 0], seed=5))


def test_the_starts_needed_see_the_difference_as_often_as_asked():
    difference, discordant = 0.15, 0.25
    needed = episodes_needed(difference, discordant)
    rng = np.random.default_rng(0)
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    seen = 0
    for _ in range(400):
        two, one, _rest = rng.multinomial(needed, [better, worse, 1 - better - worse])
        tail = sum(math.comb(one + two, k) for k in range(min(one, two) + 1)) / 2 ** (one + two)
        seen += 2 * tail < 0.05
    assert 0.68 < seen / 400 < 0.88  # the exact test is a little conservative


@pytest.mark.parametrize(("difference", "discordant"), [(0, 0.5), (0.5, 0.2), (0.1, 1.5)])
def test_a_difference_that_cannot_be_is_refused(difference, discordant):
    with pytest.raises(ConfigError):
        episodes_needed(difference, discordant)


def test_an_evaluation_survives_json():
    one = evaluation([1, 0, 1, 1])
    assert Evaluation.from_json(one.to_json()) == one
    assert str(one) == "success 0.75 [0.30, 0.95] of 4"


def test_the_first_step_outside_of_the_training_range_is_found():
    observations = np.zeros((5, 2), np.float32)
    observations[3:, 1] = 1.2
    episode = Episode(observations, np.zeros((4, 1)), success=0, seed=7)
    ones = np.ones(2, np.float32)
    training = ChannelStatistics(-ones, ones, 0 * ones, ones)
    assert judge(0, episode, SPEC, training).first_step_outside is None  # within a tenth of the range
    observations[3:, 1] = 1.3
    trial = judge(0, Episode(observations, np.zeros((4, 1)), success=0, seed=7), SPEC, training)
    assert (trial.first_step_outside, trial.channel_outside, trial.seed) == (3, "y", 7)


def test_time_to_success_counts_control_steps():
    succeeded = np.array([False, False, True, True])
    episode = Episode(np.zeros((5, 2)), np.zeros((4, 1)), succeeded=succeeded, success=1)
    assert judge(0, episode, SPEC).time_to_success_s == pytest.approx(3 / 20)


def test_success_is_unknown_where_the_world_has_no_rule():
    trial = judge(0, Episode(np.zeros((5, 2)), np.zeros((4, 1))), SPEC)
    assert trial.success is None
    one = Evaluation("w", 0, (trial,))
    assert "no success" in str(one)
    assert one.to_json()["success_rate"] is None
    with pytest.raises(ConfigError, match="no success"):
        compare(one, one)


@pytest.mark.parametrize("trials", [1, 7, 15, 20, 100, 997])
def test_an_interval_of_none_begins_at_0_and_one_of_all_ends_at_1_exactly(trials):
    assert wilson_interval(0, trials)[0] == 0.0
    assert wilson_interval(trials, trials)[1] == 1.0


def test_starts_that_look_different_cannot_be_compared():
    first = evaluation([True, False])
    moved = Evaluation(first.world, first.seed, tuple(replace(trial, start=(0.1, 0.0)) for trial in first.trials))
    with pytest.raises(ConfigError, match=r"the starts differ.*--env-arg"):
        compare(first, moved)
    rounded = tuple(replace(trial, start=(1e-7, 0.0)) for trial in first.trials)
    assert compare(first, replace(first, trials=rounded)).both == 1  # another processor rounds otherwise


def test_mcnemar_of_many_starts_is_what_the_sum_says():
    """Against the sum of binomial coefficients, and quickly where that sum would take minutes."""
    outcomes = [True] * 480 + [False] * 520
    exact = 2 * sum(math.comb(1000, k) for k in range(481)) / 2**1000
    assert compare(evaluation(outcomes), evaluation([not one for one in outcomes])).p_value == pytest.approx(
        exact, rel=1e-12
    )
    outcomes = [True] * 49_900 + [False] * 50_100
    p_value = compare(evaluation(outcomes), evaluation([not one for one in outcomes])).p_value
    normal = 2 * NormalDist().cdf(-(100 - 0.5) / math.sqrt(100_000 / 4))  # with continuity correction
    assert p_value == pytest.approx(normal, rel=1e-3)


@pytest.mark.parametrize(
    ("successes", "starts", "said"),
    [(90, 100, "success 0.90 [0.83, 0.94] of 100"), (1999, 2000, "success 0.9995 [0.9972, 0.9999] of 2000")],
)
def test_what_is_neither_none_nor_all_does_not_read_so(successes, starts, said):
    assert str(evaluation([True] * successes + [False] * (starts - successes))) == said
