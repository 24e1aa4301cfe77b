import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.datasets import SPEC
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, PolicyError
from understudy.network_shape import relative_pairs, seen_channels
from understudy.policies import Batch, Ensemble, FeedForward, FeedForwardConfig
from understudy.policies.heads import HEADS
from understudy.recipe import TrainConfig
from understudy.spec import Channel
from understudy.statistics import ChannelStatistics
from understudy.trainer import train


def statistics(size, seed=0):
    return ChannelStatistics.of([np.random.default_rng(seed).normal(2, 3, (50, size)).astype(np.float32)])


def fitted(policy):
    policy.fit_scaling(statistics(3), statistics(2, 1))
    return policy


def feedforward(**config):
    return fitted(FeedForward(SPEC, FeedForwardConfig(hidden=(16, 8), **config)).initialized(0))


HANDS = replace(SPEC, observations=(Channel("hand.x", "m"), Channel("goal.x", "m"), Channel("dead", "1")))


def comparing(**config):
    """A policy that sees how far the hand is from the goal."""
    shape = FeedForwardConfig(hidden=(16, 8), relative=("hand", "goal"), **config)
    return fitted(FeedForward(HANDS, shape).initialized(0))


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
    "mixture": lambda: feedforward(head="mixture", horizon=2),
    "ensemble of mixtures with skips": lambda: skipping(
        fitted(Ensemble.of(feedforward(head="mixture", skip=True), 3, seed=1))
    ),
    "skip": lambda: skipping(feedforward(skip=True, history=2, horizon=2)),
    "skip with a hidden layer": lambda: skipping(feedforward(skip=True, skip_hidden=(6,), history=2)),
    "ensemble with hidden skips": lambda: skipping(
        fitted(Ensemble.of(feedforward(skip=True, skip_hidden=(5, 4)), 3, seed=1))
    ),
    "ensemble with skips": lambda: skipping(fitted(Ensemble.of(feedforward(skip=True), 3, seed=1))),
    "ensemble": lambda: fitted(Ensemble.of(feedforward(horizon=2), 3, seed=1)),
    "differences": lambda: comparing(history=2, near=0.5),
    "differences alone": lambda: comparing(ignore=("hand", "goal.x", "dead")),
    "ensemble of mixtures with differences and skips": lambda: skipping(
        fitted(Ensemble.of(comparing(head="mixture", skip=True, skip_hidden=(4,), ignore=("dead",)), 3, seed=1))
    ),
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
    members = torch.stack([member.predict_batch(observations) for member in ensemble.members])
    assert members.shape == (3, 5, 1, 2)
    assert float(members.std(0).detach().min()) > 0
    torch.testing.assert_close(ensemble.predict_batch(observations), members.mean(0))
    # In numpy, as a predictor for execution answers.
    asked = observations[0].numpy()
    said, wanted = (policy.predictions(asked) for policy in (ensemble, ensemble.for_execution()))
    np.testing.assert_allclose(said, wanted, atol=1e-6)
    assert np.abs(said).max() > 1, "limits come after the mean"


def test_an_ensemble_of_one_or_of_two_shapes_or_of_ensembles_is_refused():
    with pytest.raises(ConfigError, match="2 members"):
        Ensemble([feedforward()])
    with pytest.raises(ConfigError, match="here it is an ensemble itself"):
        Ensemble.of(Ensemble.of(feedforward(), 2), 2)
    with pytest.raises(ConfigError, match="one shape"):
        Ensemble([feedforward(), feedforward(horizon=2)])


def test_policies_with_scalings_of_their_own_are_no_ensemble():
    other = FeedForward(SPEC, FeedForwardConfig(hidden=(16, 8))).initialized(1)
    other.fit_scaling(statistics(3, seed=5), statistics(2, seed=6))
    with pytest.raises(ConfigError, match="one scaling"):
        Ensemble([feedforward(), other])


@pytest.mark.parametrize("head", HEADS)
def test_weightless_targets_change_no_gradient(head):
    policy = feedforward(horizon=2, head=head)
    batch = Batch(torch.randn(4, 1, 3), torch.randn(4, 2, 2), torch.tensor([[1.0, 0.0]] * 4))
    other = batch._replace(actions=batch.actions + torch.tensor([[0.0], [9.0]]))
    gradients = []
    for one in (batch, other):
        policy.zero_grad()
        policy.loss(one).backward()
        gradients.append([parameter.grad.clone() for parameter in policy.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"mixture"}))
def test_samples_of_a_head_follow_its_likelihood(name):
    head = HEADS[name](1)
    if name == "gaussian":
        head.log_deviation.data.fill_(math.log(0.5))
    deviation = {"absolute": math.sqrt(2), "squared": 1.0, "gaussian": 0.5}[name]
    samples = head.sample(torch.full((200_000, 1), 3.0), torch.Generator().manual_seed(0)).detach()
    assert float(samples.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(samples.std()) == pytest.approx(deviation, rel=0.02)
    # the likelihood is highest at the truth
    losses = [
        float(head.nll(torch.full_like(samples, mean), samples, torch.ones(1)).detach().mean())
        for mean in (2.7, 3.0, 3.3)
    ]
    assert losses[1] == min(losses)


def test_the_gaussian_likelihood_equals_its_textbook_form():
    head = HEADS["gaussian"](2)
    head.log_deviation.data = torch.tensor([0.3, -0.7])
    mean, target = torch.randn(5, 2), torch.randn(5, 2)
    normal = torch.distributions.Normal(mean, head.log_deviation.exp())
    torch.testing.assert_close(head.nll(mean, target, torch.ones(5, 2)), -normal.log_prob(target))


def mixture_outputs():
    """What a network says of two numbers: the second component is the likeliest, the last the narrowest."""
    logits = torch.tensor([0.1, 0.9, -0.5, 0.3, 0.2])
    means = torch.tensor([[1.0, 0.0], [-2.0, 3.0], [0.5, 0.5], [4.0, -4.0], [7.0, 7.0]])
    log_deviations = torch.tensor([[0.1, -0.2], [0.3, -0.7], [0.0, 0.0], [0.5, 0.4], [-9.0, -2.0]])
    return logits, means, log_deviations, torch.cat([logits, means.flatten(), log_deviations.flatten()])[None]


def test_the_likelihood_of_a_mixture_equals_its_textbook_form():
    logits, means, log_deviations, outputs = mixture_outputs()
    target = torch.tensor([[0.7, -0.2]])
    components = torch.distributions.Normal(means, log_deviations.clamp(min=-5).exp())
    expected = -torch.logsumexp(torch.log_softmax(logits, 0) + components.log_prob(target).sum(1), 0)
    found = HEADS["mixture"](2).nll(outputs, target, torch.ones(1, 2))
    torch.testing.assert_close(found, (expected / 2).expand(1, 2))
    # of one number that counts, the other says nothing
    alone = -torch.logsumexp(torch.log_softmax(logits, 0) + components.log_prob(target)[:, 0], 0)
    found = HEADS["mixture"](2).nll(outputs, target, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(found[0, 0], alone)


def test_a_mixture_answers_with_its_likeliest_component_and_samples_all():
    logits, means, log_deviations, outputs = mixture_outputs()
    head = HEADS["mixture"](2)
    assert head.best(outputs).tolist() == [[-2.0, 3.0]]
    samples = head.sample(outputs.expand(200_000, -1), torch.Generator().manual_seed(0))
    weights = logits.softmax(0)
    torch.testing.assert_close(samples.mean(0), (weights[:, None] * means).sum(0), atol=0.03, rtol=0)
    second = (weights[:, None] * (log_deviations.clamp(min=-5).mul(2).exp() + means.square())).sum(0)
    torch.testing.assert_close(samples.square().mean(0), second, atol=0.2, rtol=0.01)


def test_a_mixture_goes_one_way_where_demonstrations_go_two():
    """The median of both ways is a way that nobody went."""
    generator = torch.Generator().manual_seed(0)
    head = HEADS["mixture"](1)
    targets = torch.where(torch.rand(400, 1, generator=generator) < 0.5, -1.0, 1.0)
    outputs = (0.1 * torch.randn(1, 15, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([outputs], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        head.nll(outputs.expand(400, -1), targets, torch.ones(400, 1)).mean().backward()
        optimizer.step()
    assert abs(float(head.best(outputs.detach()))) == pytest.approx(1, abs=0.02)


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
        {"head": "quantile"},
        {"history": 0},
        {"horizon": 0},
        {"input_limit": 0},
        {"relative": ("hand",)},
        {"relative": ("hand", "hand")},
        {"relative": ("hand", 3)},
        {"relative": tuple(f"thing {number}" for number in range(33))},
        {"near": 0},
        {"ignore": ("",)},
        {"ignore": (3,)},
    ],
)
def test_a_shape_that_cannot_be_is_refused(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        FeedForwardConfig(**config)


def test_things_are_compared_along_the_axes_that_they_share():
    names = ("hand.x", "hand.y", "hand.z", "hand.force", "cube.y", "cube.x", "goal[0]", "goal[1]", "pose[0]")
    spec = replace(SPEC, observations=tuple(Channel(name, "m") for name in names))

    def compared(*things):
        pairs = relative_pairs(FeedForwardConfig(relative=things), spec)
        return [f"{names[one]} - {names[other]}" for one, other in pairs]

    assert compared() == []
    assert compared("hand", "cube") == ["hand.x - cube.x", "hand.y - cube.y"]
    assert compared("hand", "cube", "goal", "pose") == ["hand.x - cube.x", "hand.y - cube.y", "goal[0] - pose[0]"]
    for things, lonely in ((("hand", "goal"), "hand"), (("hand", "cube", "pose"), "pose"), (("cube", "rod"), "cube")):
        with pytest.raises(ConfigError, match=f"{lonely}.*positions are those of cube, goal, hand, pose"):
            compared(*things)


def test_what_is_ignored_is_named_by_thing_or_by_channel():
    names = ("hand.x", "hand.y", "handle.x", "previous.hand.x", "pose[0]")
    spec = replace(SPEC, observations=tuple(Channel(name, "m") for name in names))

    def seen(*ignored):
        return [
            name
            for name, sees in zip(names, seen_channels(FeedForwardConfig(ignore=ignored), spec), strict=True)
            if sees
        ]

    assert seen() == [*names]
    assert seen("previous", "pose") == ["hand.x", "hand.y", "handle.x"]
    assert seen("hand.x", "handle") == ["hand.y", "previous.hand.x", "pose[0]"]
    with pytest.raises(ConfigError, match=r"ignore names 'goal'; the channels are hand.x, hand.y"):
        seen("hand", "goal")
    with pytest.raises(ConfigError, match="all 5 channels; leave some"):
        seen("hand", "handle", "previous", "pose")


def test_an_ignored_channel_changes_nothing_unless_it_is_broken():
    policy = fitted(FeedForward(HANDS, FeedForwardConfig(hidden=(16, 8), ignore=("goal",))).initialized(0))
    for form in (policy, policy.for_execution()):
        one, other, broken = (form.predict(np.array([[1.5, goal, 2.0]], np.float32)) for goal in (0.5, -100.0, np.nan))
        np.testing.assert_array_equal(one, other)
        assert np.isnan(broken).all()
    seen = [float(policy.scaled_inputs(torch.tensor([[[value, 0.5, 2.0]]]))[0, 0]) for value in (1.5, 1.6)]
    assert seen[0] != seen[1]


def test_a_difference_is_seen_in_proportion_when_it_is_near_and_by_its_logarithm_when_it_is_far():
    policy = comparing(near=0.1)
    seen = policy.scaled_inputs(torch.tensor([[[1.0, 0.999, 0.0]], [[500.0, 0.0, 0.0]], [[0.0, 500.0, 0.0]]]))
    assert seen.shape == (3, 4)
    torch.testing.assert_close(
        seen[:, 3], torch.tensor([0.005, math.log(1e4) / 2, -math.log(1e4) / 2]), atol=1e-4, rtol=1e-4
    )


def test_with_differences_the_same_few_labels_tell_more(tmp_path):
    """The expert goes to the goal at full speed and slows down a hand's breadth before it, wherever that is."""
    random = np.random.default_rng(0)

    def answer(places):
        return np.clip((places[:, 1:2] - places[:, :1]) / 0.1, -1, 1) * np.ones(2, np.float32)

    places = np.zeros((121, 3), np.float32)
    places[:, :2] = random.uniform(-2, 2, (121, 2))
    with Dataset.create(tmp_path / "data", HANDS) as data:
        data.append(Episode(places, answer(places)[:-1], seed=0))
    fresh = np.zeros((500, 1, 3), np.float32)
    fresh[:, 0, 0] = random.uniform(-2, 2, 500)
    fresh[:, 0, 1] = fresh[:, 0, 0] + random.uniform(-0.3, 0.3, 500)

    def error(policy):
        recipe = TrainConfig(steps=600, lead=0, held_out=0, keep="last", observation_noise=0)
        trained = train(policy.initialized(0), data, recipe)
        said = trained.predict_batch(torch.from_numpy(fresh))[:, 0].detach().numpy()
        return np.abs(said - answer(fresh[:, 0])).mean()

    shape = FeedForwardConfig(hidden=(32, 32))
    without, with_them = (
        error(FeedForward(HANDS, replace(shape, relative=things))) for things in ((), ("hand", "goal"))
    )
    assert with_them < 0.5 * without


def test_a_policy_that_compares_is_for_no_world_of_other_names():
    bare = replace(HANDS, observations=tuple(Channel(f"observation[{number}]", "") for number in range(3)))
    crossed = replace(HANDS, observations=(HANDS.observations[1], HANDS.observations[0], HANDS.observations[2]))
    for policy in (comparing(), fitted(Ensemble.of(comparing(), 2))):
        assert policy.in_world(replace(HANDS, control_hz=20.0)).spec.control_hz == 20
        with pytest.raises(ConfigError, match="relative names 'hand'"):
            policy.in_world(bare)
        with pytest.raises(PolicyError, match="other channels in this world"):
            policy.in_world(crossed)


def test_the_file_of_a_policy_says_nothing_of_differences_where_there_are_none():
    assert not {"relative", "near", "ignore"} & {*FeedForwardConfig().to_json()}
    shape = FeedForwardConfig(relative=("hand", "goal"), near=0.3, ignore=("dead",))
    assert shape.to_json()["relative"] == ["hand", "goal"]
    assert FeedForwardConfig.from_json(shape.to_json()) == shape
