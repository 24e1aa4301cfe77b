import copy
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import numpy as safetensors

from tests.reinforcement.reach import CLONED, SHAPE, ReachWorld, clone, demonstrations, fresh
from understudy.checkpoint import load, save
from understudy.errors import ConfigError, PolicyError
from understudy.execution import PolicyAgent
from understudy.loading import load_predictor
from understudy.network_shape import FeedForwardConfig
from understudy.policies import Ensemble, FeedForward
from understudy.recipe import TrainConfig
from understudy.reinforcement.actor import Actor, own_log_deviation
from understudy.rollout import rollout
from understudy.spec import Channel, spec_of
from understudy.statistics import ChannelStatistics
from understudy.trainer import train

LEAST = np.full(2, -4.0, np.float32)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("demos") / "data")


def actor_of(policy, log_deviation=(-1.0, -0.5)):
    return Actor(policy, np.array(log_deviation, np.float32), LEAST)


def observations(count=5, history=1, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, history, 2)).astype(np.float32))


@pytest.mark.parametrize("members", [1, 3])
def test_an_actor_begins_with_what_its_policy_does(demos, members):
    policy = clone(demos, members)
    actor = actor_of(policy)
    seen = observations()
    physical = actor.policy().predict_batch(seen)
    torch.testing.assert_close(physical, policy.predict_batch(seen), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(actor.scaled(physical[:, 0]), actor.mean(seen), rtol=1e-4, atol=1e-5)


def test_a_limited_residual_begins_at_0_with_larger_weights_before(demos):
    policy, seen, zeros = clone(demos), observations(), np.zeros(2, np.float32)
    hidden = {"tune": "residual", "residual_hidden": (6,)}
    limited = Actor(policy, zeros, LEAST, **hidden, residual_limit=np.array([0.5, 2.0], np.float32))
    torch.testing.assert_close(limited.mean(limited.inputs(seen)), Actor(policy, zeros, LEAST).mean(seen))
    first, before, last = limited._networks[0].skip_maps()
    plain = Actor(policy, zeros, LEAST, **hidden)._networks[0].skip_maps()[0]
    torch.testing.assert_close(first.weight, 3 * plain.weight)
    assert not before.weight.any()
    assert not before.bias.any()
    torch.testing.assert_close(last.weight, torch.diag(torch.tensor([0.5, 2.0])))
    assert not any(parameter is last.weight or parameter is last.bias for parameter in limited.parameters)


def test_the_likelihood_is_that_of_a_gaussian(demos):
    actor = actor_of(clone(demos))
    mean, actions = actor.mean(observations()), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    reference = torch.distributions.Normal(mean, actor.log_deviation.exp()).log_prob(actions).sum(1)
    torch.testing.assert_close(actor.log_likelihood(mean, actions), reference)


def test_what_explores_draws_from_the_actors_gaussian(demos):
    actor = actor_of(clone(demos))
    explorer = actor.explorer(seed=(1, 2))
    seen = np.array([0.3, -0.4], np.float32)
    asked = []
    for seed in range(2000):
        explorer.reset(seed)
        asked.append(explorer.act(seen).action)
    scaled = actor.scaled(torch.from_numpy(np.array(asked))).detach()
    mean = actor.mean(torch.from_numpy(seen)[None, None]).detach()[0]
    deviation = actor.log_deviation.detach().exp()
    assert ((scaled.mean(0) - mean).abs() < 4 * deviation / 2000**0.5).all()
    assert ((scaled.std(0) / deviation - 1).abs() < 0.06).all()


def test_what_explores_is_a_function_of_the_run_the_batch_and_the_episode(demos):
    actor, seen = actor_of(clone(demos)), np.array([0.3, -0.4], np.float32)

    def asked(seed, episode):
        explorer = actor.explorer(seed=seed)
        explorer.reset(episode)
        return explorer.act(seen).action.tolist()

    assert asked((1, 2), 3) == asked((1, 2), 3)
    assert len({tuple(asked(*key)) for key in [((1, 2), 3), ((1, 2), 4), ((1, 3), 3), ((2, 2), 3)]}) == 4


def test_exploration_asks_beyond_the_limits_and_the_world_keeps_them(demos):
    """The likelihood is that of what was asked for, not of what the limits made of it."""
    actor = actor_of(clone(demos), (2.0, 2.0))
    episode = rollout(ReachWorld(), actor.explorer(seed=(0,)), seed=0)
    assert (np.abs(episode.asked_actions) > 1).any()
    assert (np.abs(episode.actions) <= 1).all()


@pytest.mark.parametrize("members", [1, 2])
def test_a_sampled_policy_is_saved_as_one_and_acts_as_one(demos, tmp_path, members):
    policy = actor_of(clone(demos, members)).policy(acts="sampled")
    save(policy, tmp_path / "policy")
    loaded = load(tmp_path / "policy")
    assert loaded.acts == "sampled"
    one, two = (rollout(ReachWorld(), PolicyAgent(source.for_execution()), seed=4) for source in (policy, loaded))
    again = rollout(ReachWorld(), PolicyAgent(loaded.for_execution()), seed=5)
    np.testing.assert_array_equal(one.asked_actions, two.asked_actions)
    assert (one.asked_actions[0] != again.asked_actions[0]).any()
    deviation = loaded.for_execution().deviation
    np.testing.assert_allclose(deviation, np.exp([-1.0, -0.5]) * policy.statistics[1].scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.update(acts="loudly"), "acts must be mean or sampled"),
        (lambda document: document["architecture"].update(skip="yes"), "skip is 'yes'; accepted: true, false"),
        (lambda document: document["architecture"].update(skip=True), "lack skip.weight"),
        (lambda document: document["architecture"].update(head="squared"), "lack head.log_deviation|hold head.log"),
    ],
)
def test_a_policy_that_says_what_it_cannot_do_is_refused(demos, tmp_path, change, said):
    save(actor_of(clone(demos)).policy(acts="sampled"), tmp_path / "policy")
    path = tmp_path / "policy" / "policy.json"
    document = json.loads(path.read_text())
    change(document)
    if "head" in said:
        weights = tmp_path / "policy" / "weights.safetensors"
        arrays = {key: array for key, array in safetensors.load(weights.read_bytes()).items() if "head" not in key}
        weights.write_bytes(safetensors.save(arrays))
        document["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(PolicyError, match=said):
        load_predictor(tmp_path / "policy")


def test_a_policy_that_acts_by_its_mean_is_as_before(demos, tmp_path):
    save(actor_of(clone(demos)).policy(), tmp_path / "policy")
    assert "acts" not in (tmp_path / "policy" / "policy.json").read_text()
    assert load(tmp_path / "policy").for_execution().deviation is None


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_a_residual_is_a_linear_map_of_what_is_seen_added_to_a_frozen_policy(demos, members, skip):
    shape = FeedForward(spec_of(ReachWorld()), replace(SHAPE, skip=skip))
    policy = train(Ensemble.of(shape, members) if members > 1 else shape.initialized(0), demos, CLONED)
    actor = Actor(policy, np.array([-1.0, -0.5], np.float32), LEAST, tune="residual")
    seen = observations()
    scaled = actor.scaled(policy.predict_batch(seen)[:, 0])
    torch.testing.assert_close(actor.mean(actor.inputs(seen)), scaled, rtol=1e-4, atol=1e-5)
    assert len(actor.vector()) == 2 * 2 + 2 + 2
    inputs, moved = actor.inputs(seen), torch.linspace(-0.3, 0.4, 8)
    actor.move(actor.vector() + moved)
    weights, bias = moved[:4].reshape(2, 2), moved[4:6]
    x = (seen[:, 0] - torch.from_numpy(policy.statistics[0].mean)) / torch.from_numpy(policy.statistics[0].scale)
    literal = scaled + x @ weights.T + bias
    torch.testing.assert_close(actor.mean(inputs), literal, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actor.mean(actor.inputs(seen)), literal, rtol=1e-4, atol=1e-5)
    deployed = actor.policy()
    torch.testing.assert_close(actor.scaled(deployed.predict_batch(seen)[:, 0]), literal, rtol=1e-4, atol=1e-5)
    executed = np.array([deployed.for_execution().predictions(row.numpy()).mean(0)[0] for row in seen])
    np.testing.assert_allclose(executed, deployed.predict_batch(seen)[:, 0].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("members", [1, 3])
def test_a_residual_may_have_a_hidden_layer(demos, members):
    policy, seen = clone(demos, members), observations()
    actor = Actor(policy, np.zeros(2), LEAST, tune="residual", residual_hidden=(4,))
    scaled = actor.scaled(policy.predict_batch(seen)[:, 0])
    torch.testing.assert_close(actor.mean(actor.inputs(seen)), scaled, rtol=1e-4, atol=1e-5)
    assert len(actor.vector()) == (2 * 4 + 4) + (4 * 2 + 2) + 2
    vector = torch.linspace(-0.5, 0.6, 24)
    actor.move(vector)
    first, bias, second, shift = vector[:8].reshape(4, 2), vector[8:12], vector[12:20].reshape(2, 4), vector[20:22]
    x = (seen[:, 0] - torch.from_numpy(policy.statistics[0].mean)) / torch.from_numpy(policy.statistics[0].scale)
    literal = scaled + torch.tanh(x @ first.T + bias) @ second.T + shift
    torch.testing.assert_close(actor.mean(actor.inputs(seen)), literal, rtol=1e-4, atol=1e-5)
    deployed = actor.policy()
    executed = np.array([deployed.for_execution().predictions(row.numpy()).mean(0)[0] for row in seen])
    torch.testing.assert_close(actor.scaled(torch.from_numpy(executed)), literal, rtol=1e-4, atol=1e-5)


def test_a_residual_of_another_shape_than_the_policys_is_refused(demos):
    carried = Actor(clone(demos, 1), np.zeros(2), LEAST, tune="residual", residual_hidden=(4,)).policy()
    Actor(carried, np.zeros(2), LEAST, tune="residual", residual_hidden=(4,))
    with pytest.raises(ConfigError, match=r"carries a residual with tanh layers of 4, .* asks for no hidden layer"):
        Actor(carried, np.zeros(2), LEAST, tune="residual")


def test_members_with_hidden_residuals_that_differ_are_refused(demos):
    policy = Actor(clone(demos, 2), np.zeros(2), LEAST, tune="residual", residual_hidden=(4,)).policy()
    apart = Ensemble([policy.members[0], copy.deepcopy(policy.members[1])])
    with torch.no_grad():
        apart.members[1].skip[0].bias += 1
    with pytest.raises(ConfigError, match="residuals that differ"):
        Actor(apart, np.zeros(2), LEAST, tune="residual", residual_hidden=(4,))


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_a_residual_is_saved_with_its_policy(demos, tmp_path, hidden):
    actor = Actor(clone(demos, 2), np.zeros(2), LEAST, tune="residual", residual_hidden=hidden)
    actor.move(actor.vector() + 0.1)
    save(actor.policy(), tmp_path / "policy")
    loaded = load(tmp_path / "policy")
    torch.testing.assert_close(loaded.predict_batch(observations()), actor.policy().predict_batch(observations()))
    assert not torch.equal(loaded.predict_batch(observations()), clone(demos, 2).predict_batch(observations()))
    again = Actor(loaded, np.zeros(2), LEAST, tune="residual", residual_hidden=hidden)
    torch.testing.assert_close(
        again.vector()[:-2], actor.vector()[:-2], msg="a second fine-tuning goes on from the first"
    )


def test_of_a_chunk_the_first_action_is_learnt(demos):
    config = FeedForwardConfig(hidden=(8,), activation="tanh", head="squared", history=2, horizon=3)
    policy = train(FeedForward(spec_of(ReachWorld()), config), demos, TrainConfig(steps=5, lead=0))
    actor, seen = actor_of(policy), observations(history=2)
    torch.testing.assert_close(actor.policy().predict_batch(seen)[:, 0], policy.predict_batch(seen)[:, 0])
    assert actor.policy().horizon == 1


def test_the_deviation_never_goes_below_its_least(demos):
    actor = actor_of(clone(demos), (-9.0, 0.0))
    assert actor.log_deviation.tolist() == [-4.0, 0.0]
    vector = actor.vector()
    vector[-2:] = -50
    actor.move(vector)
    assert actor.log_deviation.tolist() == [-4.0, -4.0]


def test_another_scaling_of_the_observations_keeps_the_answers(demos):
    actor = actor_of(clone(demos))
    seen = observations() * 0.5
    before = actor.mean(seen).detach()
    moved = ChannelStatistics(*(np.array(row, np.float32) for row in ([-1, -1], [1, 1], [0.2, -0.1], [0.7, 1.5])))
    actor.rescale(moved, keep=True)
    torch.testing.assert_close(actor.mean(seen), before, rtol=1e-4, atol=1e-5)
    assert (actor.policy().statistics[0].mean == moved.mean).all()
    actor.rescale(
        ChannelStatistics(*(row + 1 for row in (moved.minimum, moved.maximum, moved.mean, moved.deviation))), keep=False
    )
    assert (actor.mean(seen) != before).any()


@pytest.mark.parametrize("ignored", [(), ("goal",)])
def test_differences_have_no_scale_that_another_one_could_change(ignored):
    spec = replace(spec_of(ReachWorld()), observations=(Channel("hand.x", "m"), Channel("goal.x", "m")))
    policy = FeedForward(
        spec, FeedForwardConfig(hidden=(8,), history=2, relative=("hand", "goal"), ignore=ignored)
    ).initialized(0)
    policy.fit_scaling(statistics(0.1, 2.0), statistics(0.0, 1.0))
    actor, seen = actor_of(policy), observations(history=2)
    before = actor.mean(seen).detach()
    actor.rescale(statistics(0.3, 1.5), keep=True)
    torch.testing.assert_close(actor.mean(seen), before, rtol=1e-4, atol=1e-5)


def statistics(mean, deviation):
    return ChannelStatistics(*(np.full(2, value, np.float32) for value in (mean - 1, mean + 1, mean, deviation)))


def test_a_policy_without_a_deviation_of_its_own_says_so(demos):
    with pytest.raises(ConfigError, match="the policy has none"):
        own_log_deviation(clone(demos))
    gaussian = FeedForward(spec_of(ReachWorld()), FeedForwardConfig(hidden=(8,), head="gaussian"))
    trained = train(gaussian, demos, TrainConfig(steps=20, lead=0))
    np.testing.assert_array_equal(own_log_deviation(trained), trained.arrays()["head.log_deviation"])


def test_a_mixture_is_not_tuned_as_one_gaussian(demos):
    shape = FeedForwardConfig(hidden=(8,), head="mixture")
    mixture = train(FeedForward(spec_of(ReachWorld()), shape), demos, TrainConfig(steps=20, lead=0))
    for policy in (mixture, Ensemble([mixture, mixture])):
        with pytest.raises(ConfigError, match=r"mixture head, .* clone with --head absolute, squared or gaussian"):
            actor_of(policy)


def test_the_policy_that_is_given_stays_as_it_is(demos):
    policy = clone(demos)
    before = {name: array.copy() for name, array in policy.arrays().items()}
    actor = actor_of(policy)
    actor.move(actor.vector() + 1)
    assert all((policy.arrays()[name] == array).all() for name, array in before.items())
    assert fresh().statistics is None
