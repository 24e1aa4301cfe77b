import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.interactive.points import Drives, PointWorld, demonstrations, expert_like, right, shape
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import DataError, PolicyError
from understudy.interactive.risk import (
    Score,
    _network,
    labelled_steps,
    learn_deviation,
    learn_success,
    member_proposals,
    proposals,
)
from understudy.rollout import rollout
from understudy.spec import spec_of


def half_wrong(observations):
    """Right on the right of the origin; on its left half a half-range off, in both channels."""
    best = expert_like(observations)
    return best - 0.5 * np.sign(best) * (observations[:, :1] < 0)


def fresh_points(count=2000):
    rng = np.random.default_rng(9)
    angle, distance = rng.uniform(-math.pi, math.pi, count), rng.uniform(0.25, 1, count)
    return np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1).astype(np.float32)


def learn_unsafe(dataset, policy, tau, *, seed):
    return learn_deviation(labelled_steps(dataset, policy), policy, tau, seed=seed)


@pytest.fixture
def demos(tmp_path):
    return demonstrations(tmp_path / "demos", 20)


def test_the_classifier_knows_the_half_of_the_space_in_which_the_policy_is_wrong(demos, short_lessons):
    policy = Drives(half_wrong)
    unsafe = learn_unsafe(demos, policy, 0.2, seed=0)
    points = fresh_points()
    judged = unsafe.each(points, half_wrong(points)[0]) > 0.5
    assert np.mean(judged == (points[:, 0] < 0)) > 0.9


def test_the_classifier_does_not_see_the_expert(demos, short_lessons):
    """It judges the place and the proposal: a proposal that is wrong on the safe side is not its business."""
    policy = Drives(lambda observations: half_wrong(observations) * 0)  # always the same proposal
    unsafe = learn_unsafe(demos, policy, 0.9, seed=0)
    assert np.ptp(unsafe.each(fresh_points(), np.zeros((2000, 2), np.float32))) < 0.2


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_rare_unsafe_steps_are_not_drowned_by_the_safe_ones(demos, share, short_lessons):
    """Both classes weigh the same, so also a small unsafe region is found."""
    edge = np.quantile(np.concatenate([episode.observations[:-1, 0] for episode in demos]), share)

    def act(observations):
        best = expert_like(observations)
        return best - 0.5 * np.sign(best) * (observations[:, :1] < edge)

    unsafe = learn_unsafe(demos, Drives(act), 0.2, seed=0)
    inside = np.concatenate([episode.observations[:-1] for episode in demos])
    inside = inside[inside[:, 0] < edge]
    assert np.mean(unsafe.each(inside, act(inside)[0]) > 0.5) > 0.9


def test_a_step_without_a_label_teaches_nothing(tmp_path, demos, short_lessons):
    """Steps that the policy drove unasked are left out, however wrong what was executed there."""
    with Dataset.create(tmp_path / "mixed", demos.spec) as mixed:
        for episode in demos:
            mixed.append(episode)
            drove = np.zeros(len(episode), np.int8)
            mixed.append(replace(episode, actions=-episode.actions, driver=drove, labelled=drove.astype(bool)))
    policy, points = Drives(half_wrong), fresh_points()
    unsafe = learn_unsafe(mixed, policy, 0.2, seed=0)
    assert np.mean((unsafe.each(points, half_wrong(points)[0]) > 0.5) == (points[:, 0] < 0)) > 0.9


@pytest.mark.parametrize("learn", [learn_unsafe, learn_success])
def test_the_same_seed_learns_the_same_bytes_and_draws_nothing_from_others(demos, learn, short_lessons):
    points, policy = fresh_points(50), Drives(half_wrong)
    torch.manual_seed(0)
    one = learn(demos, policy, 0.2, seed=0).each(points, points)
    torch.manual_seed(1)
    two = learn(demos, policy, 0.2, seed=0).each(points, points)
    assert one.tobytes() == two.tobytes()
    assert learn(demos, policy, 0.2, seed=1).each(points, points).tobytes() != one.tobytes()


def test_a_score_in_numpy_is_the_network_in_torch(demos):
    policy, network = Drives(half_wrong), _network(4, seed=3)
    points = fresh_points(20) * 3
    scaled = np.concatenate(
        [
            (values - part.mean) / part.scale
            for values, part in zip((points, points[::-1]), policy.statistics, strict=True)
        ],
        1,
    ).clip(-5, 5)
    wanted = torch.sigmoid(network(torch.from_numpy(scaled.astype(np.float32))))[:, 0].detach().numpy()
    score = Score(network, policy)
    np.testing.assert_allclose(score.each(points, points[::-1]), wanted, atol=1e-5)
    assert score(points[4], points[::-1][4]) == pytest.approx(wanted[4], abs=1e-5)


def test_a_score_far_outside_is_a_probability(demos):
    network = _network(4, seed=3)
    with torch.no_grad():
        network[-1].weight *= 1e4
    score = Score(network, Drives(half_wrong))
    probabilities = score.each(fresh_points(200) * 1e6, fresh_points(200) * 1e6)
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_success_is_likelier_near_the_goal_than_far_from_it(demos, monkeypatch):
    from understudy.interactive import risk

    monkeypatch.setattr(risk, "_STEPS", 600)
    success = learn_success(demos, Drives(expert_like), 0.8, seed=0)
    rankings = []
    for seed in range(100, 110):
        episode = rollout(PointWorld(), _Expert(), seed=seed)
        rankings.append(success.each(episode.observations[:-1], episode.actions))
    for ranking in rankings:
        assert ranking[-1] > ranking[len(ranking) // 2] > ranking[0]
    # and it is the discounted probability: one at the last step, then a factor 0.8 for each step before
    length = len(rankings[0])
    np.testing.assert_allclose(rankings[0], 0.8 ** np.arange(length - 1, -1, -1), atol=0.15)


def test_an_attempt_that_the_clock_ended_is_no_success(tmp_path, short_lessons):
    with Dataset.create(tmp_path / "failures", spec_of(PointWorld())) as failures:
        for seed in range(5):
            failures.append(rollout(PointWorld(length=4), _Expert(), seed=seed))
    success = learn_success(failures, Drives(expert_like), 0.99, seed=0)
    episode = failures[0]
    assert success.each(episode.observations[:-1], episode.actions).max() < 0.2


def test_an_imported_success_was_at_the_end_of_its_episode(tmp_path, demos, short_lessons):
    """Many formats say that an episode succeeded, and not when."""
    with Dataset.create(tmp_path / "imported", demos.spec) as imported:
        for episode in demos:
            imported.append(replace(episode, succeeded=None))
    policy, points = Drives(expert_like), fresh_points(50)
    one = learn_success(demos, policy, 0.9, seed=0).each(points, points)
    assert one.tobytes() == learn_success(imported, policy, 0.9, seed=0).each(points, points).tobytes()


def test_proposals_are_what_the_policy_would_do_at_each_step():
    episode = Episode(fresh_points(8), np.zeros((7, 2)))
    one = Drives(lambda seen: np.concatenate([expert_like(seen), -0.5 * expert_like(seen)]))
    best = np.array([right(row) for row in episode.observations])
    np.testing.assert_allclose(proposals(one, episode), 0.25 * best[:-1], atol=1e-6)
    np.testing.assert_allclose(proposals(one, episode, final=True), 0.25 * best, atol=1e-6)
    members = member_proposals(one, episode)
    np.testing.assert_allclose(members, np.stack([best[:-1], -0.5 * best[:-1]]), atol=1e-6)


def test_nothing_is_learnt_from_nothing_in_one_line(tmp_path):
    policy, spec = Drives(half_wrong), spec_of(PointWorld())
    empty = Dataset.create(tmp_path / "empty", spec)
    with pytest.raises(DataError, match="no step has a label"):
        learn_unsafe(empty, policy, 0.2, seed=0)
    with pytest.raises(DataError, match="no episode"):
        learn_success(empty, policy, 0.9, seed=0)
    with Dataset.create(tmp_path / "unasked", spec) as unasked:
        unasked.append(Episode(fresh_points(8), np.zeros((7, 2)), driver=np.zeros(7)))
    with pytest.raises(DataError, match="no step has a label"):
        learn_unsafe(unasked, policy, 0.2, seed=0)
    # Nobody judged that episode, which makes it neither a success nor a failure.
    with pytest.raises(DataError, match="no episode says whether it succeeded"):
        learn_success(unasked, policy, 0.9, seed=0)


def test_a_policy_that_was_never_trained_has_no_risk(demos):
    with pytest.raises(PolicyError, match="never trained"):
        learn_unsafe(demos, shape(), 0.2, seed=0)
    with pytest.raises(PolicyError, match="never trained"):
        learn_success(demos, shape(), 0.9, seed=0)


class _Expert:
    def reset(self, seed):
        pass

    def act(self, observation):
        from understudy.agent import Command, Driver

        label = right(observation)
        return Command(label, Driver.EXPERT, label)


def test_an_attempt_that_passed_through_success_and_failed_is_no_success(tmp_path, short_lessons):
    """Where a world judges by the last step, as goal worlds do."""
    passing = {"is_success": False}

    class Passed(PointWorld):
        def step(self, action):
            seen, reward, _, truncated, _ = super().step(action)
            return seen, reward, False, truncated, {**passing, "is_success": self._steps == 3}

    failures = demonstrations(tmp_path / "failures", 6, Passed())
    assert {row.success for row in failures.rows} == {0}
    assert failures[0].succeeded.any()
    success = learn_success(failures, Drives(expert_like), 0.99, seed=0)
    assert success.each(failures[0].observations[:-1], failures[0].actions).max() < 0.2
