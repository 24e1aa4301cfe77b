import numpy as np
import pytest

from understudy.errors import ConfigError
from understudy.execution import ActionNoise, PolicyAgent
from understudy.spec import Channel, Spec


class Counting:
    """Answers call n with the chunk 100 n, 100 n + 1, ..."""

    spec = Spec.unnamed(2, 1)

    def __init__(self, history=1, horizon=4):
        self.history, self.horizon = history, horizon
        self.seen = []

    def predict(self, observations):
        self.seen.append(observations.copy())
        return (100.0 * len(self.seen) + np.arange(self.horizon, dtype=np.float32))[:, None].astype(np.float32)


def acts(agent, steps, start=0):
    return [float(agent.act(np.full(2, start + step, np.float32)).action[0]) for step in range(steps)]


def test_a_chunk_is_executed_for_the_steps_asked_then_the_policy_is_asked_again():
    agent = PolicyAgent(Counting(), execute=3)
    agent.reset(0)
    assert acts(agent, 7) == [100, 101, 102, 200, 201, 202, 300]


def test_the_policy_is_asked_at_every_step_unless_told():
    agent = PolicyAgent(Counting(horizon=5))
    agent.reset(0)
    assert acts(agent, 3) == [100, 200, 300]


def test_replanning_forgets_the_open_chunk_and_keeps_the_history():
    policy = Counting(history=2)
    agent = PolicyAgent(policy, execute=4)
    agent.reset(0)
    acts(agent, 2)
    agent.replan()
    assert acts(agent, 1, start=2) == [200]
    np.testing.assert_array_equal(policy.seen[-1][:, 0], [1, 2])


def test_the_first_observation_stands_in_for_the_missing_history():
    policy = Counting(history=3, horizon=1)
    agent = PolicyAgent(policy)
    agent.reset(0)
    acts(agent, 2)
    np.testing.assert_array_equal(policy.seen[0][:, 0], [0, 0, 0])
    np.testing.assert_array_equal(policy.seen[1][:, 0], [0, 0, 1])


def test_a_reset_forgets_everything():
    policy = Counting(history=2)
    agent = PolicyAgent(policy)
    agent.reset(0)
    acts(agent, 3)
    agent.reset(1)
    acts(agent, 1, start=50)
    np.testing.assert_array_equal(policy.seen[-1][:, 0], [50, 50])


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_temporal_ensembling_equals_its_literal_form(decay):
    policy = Counting(horizon=3)
    agent = PolicyAgent(policy, ensemble_decay=decay)
    agent.reset(0)
    got = acts(agent, 6)
    for step, action in enumerate(got):
        asked = [call for call in range(step + 1) if step - call < 3]  # oldest first
        said = [100.0 * (call + 1) + (step - call) for call in asked]
        weights = [np.exp(-decay * position) for position in range(len(asked))]
        assert action == pytest.approx(np.average(said, weights=weights), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"execute": 0},
        {"execute": 5},
        {"ensemble_decay": -1.0},
        {"ensemble_decay": 1e39},
        {"execute": 1, "ensemble_decay": 0.1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        PolicyAgent(Counting(), **options)


def test_one_action_at_a_time_leaves_nothing_to_average():
    with pytest.raises(ConfigError, match="the policy predicts 1 action; leave it out"):
        PolicyAgent(Counting(horizon=1), ensemble_decay=0.1)


def test_an_average_of_limited_chunks_is_limited():
    policy = Counting(horizon=3)
    limit = np.float32(0.1)
    policy.spec = Spec("", 0.0, policy.spec.observations, (Channel("x", "1", -float(limit), float(limit)),))
    policy.predict = lambda observations: np.full((3, 1), limit, np.float32)
    for decay in np.linspace(0, 3, 50):
        agent = PolicyAgent(policy, ensemble_decay=decay)
        agent.reset(0)
        assert max(acts(agent, 5)) <= limit


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_noise_has_the_deviation_asked_for_whatever_its_correlation_in_time(correlation):
    noise = ActionNoise(np.array([0.5, 2.0], np.float32), seed=(3,), correlation=correlation)
    noise.reset(7)
    drawn = np.array([noise.draw() for _ in range(20_000)])
    np.testing.assert_allclose(drawn.std(0), [0.5, 2.0], rtol=0.06)
    lagged = [np.corrcoef(column[1:], column[:-1])[0, 1] for column in drawn.T]
    np.testing.assert_allclose(lagged, correlation, atol=0.04)


def test_noise_is_a_function_of_its_seed_and_the_episodes():
    deviation = np.ones(2, np.float32)

    def first(seed, episode):
        noise = ActionNoise(deviation, seed=seed)
        noise.draw()
        noise.reset(episode)
        return noise.draw().tolist()

    assert first((1,), 5) == first((1,), 5)
    assert len({tuple(first(seed, episode)) for seed in ((1,), (2,)) for episode in (5, 6)}) == 4


def test_the_noise_of_a_sampled_policy_is_not_what_its_world_draws_the_start_from():
    sampled = Counting()
    sampled.deviation = np.ones(2, np.float32)
    agent = PolicyAgent(sampled)
    agent.reset(5)
    world = np.random.Generator(np.random.PCG64(5))
    drawn = np.concatenate([agent._noise.draw() for _ in range(8)])
    assert not np.isin(drawn, world.standard_normal(200, np.float32)).any()


@pytest.mark.parametrize("correlation", [-0.1, 1.0])
def test_a_correlation_that_cannot_be_is_refused(correlation):
    with pytest.raises(ConfigError, match=r"correlation is .*; accepted: 0 or more and below 1"):
        ActionNoise(np.ones(1, np.float32), correlation=correlation)
