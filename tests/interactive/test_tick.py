import numpy as np
import pytest

from tests.interactive.points import (
    TRIED,
    Drives,
    Person,
    PointExpert,
    PointWorld,
    Script,
    demonstrations,
    expert_like,
    expert_of,
    gate_of,
    right,
    shape,
    stays,
)
from understudy.agent import Driver
from understudy.errors import ConfigError, ExpertError, PolicyError
from understudy.execution import PolicyAgent
from understudy.interactive import DAggerGate, GatedAgent
from understudy.interactive.tick import Gate, Measure
from understudy.rollout import rollout
from understudy.spec import Channel, Spec


def unsure(observations):
    """Two members that agree on the right of the origin and not on its left."""
    wrong = np.where(observations[:, :1] > 0, 0.0, -0.6)
    return np.stack([expert_like(observations)[0] + wrong, expert_like(observations)[0] - wrong]) * 0.8


def driven(gate, policy=None, expert=None, *, seed=3, steps=12, **options):
    """An episode of gate and expert, the agent and the expert."""
    expert = expert or PointExpert()
    agent = GatedAgent(policy or Drives(stays), expert, gate, **options)
    return rollout(PointWorld(), agent, seed=seed, max_steps=steps), agent, expert


class Greedy(Gate):
    """Asks as often as it can in one step, and lets the expert drive every other one."""

    name = "greedy"
    calls = 0

    def __call__(self, tick):
        self.calls += 1
        assert tick.label() is tick.label()
        return tick.deviation() + tick.deviation() >= 0 and self.calls % 2 == 0


@pytest.mark.parametrize("cap", [None, 0.1, 10.0])
def test_one_label_is_one_query_however_often_a_step_asks(cap):
    episode, _, expert = driven(Greedy(), cap=cap)
    assert expert.calls == episode.labelled.sum() == len(episode)


@pytest.mark.parametrize("cap", [None, 0.6])
@pytest.mark.parametrize("name", TRIED)
def test_the_labels_of_an_episode_are_the_calls_of_the_expert(name, cap, tmp_path, short_lessons):
    policy, gate, expert = Drives(unsure), gate_of(name), expert_of(name)
    gate.begin(policy)
    gate.fit(demonstrations(tmp_path / "demos", 4), policy)
    agent, world = GatedAgent(policy, expert, gate, cap=cap), PointWorld()
    for seed in range(5):
        expert.calls = 0
        episode = rollout(world, agent, seed=seed)
        assert expert.calls == episode.labelled.sum()
        assert episode.labelled[episode.driver == Driver.EXPERT].all(), "a step that the expert drives has a label"
        for observation, label in zip(
            episode.observations[:-1][episode.labelled], episode.labels[episode.labelled], strict=True
        ):
            np.testing.assert_array_equal(label, right(observation))


def test_a_step_that_nobody_asks_about_costs_nothing():
    episode, _, expert = driven(Script("."))
    assert expert.calls == 0
    assert not episode.labelled.any()
    assert (episode.driver == Driver.POLICY).all()


def test_a_label_that_is_asked_for_leaves_the_wheel_to_the_policy():
    episode, _, _ = driven(Script(".ae"))
    assert episode.labelled.tolist() == [False, True, True] * 4
    assert episode.driver.tolist() == [0, 0, 1] * 4
    np.testing.assert_array_equal(episode.actions[episode.driver == 0], 0)


def test_the_cap_asks_at_every_step_and_the_expert_drives_where_it_is_exceeded():
    policy = Drives(lambda observations: 0.5 * expert_like(observations) * (observations[:, :1] > 0))
    cap = 0.5
    episode, _, expert = driven(Script("."), policy, cap=cap, steps=20, seed=1)
    assert expert.calls == len(episode)
    assert episode.labelled.all()
    proposals = np.array([policy.predict(row[None])[0] for row in episode.observations[:-1]])
    # the actions are limited to +-1: a half-range is 1
    deviation = np.sqrt(np.mean((proposals - episode.labels) ** 2, axis=1))
    assert (episode.driver == 1).tolist() == (deviation > cap).tolist()
    assert 0 < episode.driver.sum() < len(episode)


def test_a_cap_that_is_kept_changes_nobody_at_the_wheel():
    free, _, _ = driven(Script("..e"))
    capped, _, _ = driven(Script("..e"), cap=10.0)
    np.testing.assert_array_equal(free.actions, capped.actions)
    assert capped.labelled.all()


def test_noise_on_the_expert_changes_what_is_executed_and_not_the_label():
    episode, _, _ = driven(Script("e.", noise=0.1))
    drove = episode.driver == Driver.EXPERT
    targets, _ = episode.targets()
    said = np.array([right(row) for row in episode.observations[:-1]])
    np.testing.assert_array_equal(targets[drove], said[drove])
    assert (episode.asked_actions[drove] != said[drove]).all()
    assert 0.02 < np.abs(episode.asked_actions[drove] - said[drove]).mean() < 0.3
    np.testing.assert_array_equal(episode.asked_actions[~drove], 0)


def test_the_policy_makes_a_new_plan_after_a_takeover():
    policy = Drives(stays, horizon=3)
    agent = GatedAgent(policy, PointExpert(), Script("...ee.."))
    agent._robot = PolicyAgent(policy, execute=3)
    agent.reset(0)
    for step in range(7):
        agent.act(np.full(2, step, np.float32))
    # a plan at 0 for three steps; at 3 and 4 the expert drives, so each makes the plan before it worthless; then anew
    assert [int(seen[-1, 0]) for seen in policy.asked] == [0, 3, 4, 5]


def test_the_policy_sees_the_steps_that_the_expert_drives():
    policy = Drives(stays, history=2)
    agent = GatedAgent(policy, PointExpert(), Script("e"))
    agent.reset(0)
    for step in range(3):
        agent.act(np.full(2, step, np.float32))
    assert [seen[:, 0].tolist() for seen in policy.asked] == [[0, 0], [0, 1], [1, 2]]


def test_an_expert_watches_each_step_once_and_that_is_no_label():
    gate = Script(".")
    episode, _, person = driven(gate, expert=Person())
    assert len(person.watched) == len(episode)
    assert person.calls == 0
    assert not episode.labelled.any()
    for index, (observation, action) in enumerate(person.watched):
        np.testing.assert_array_equal(observation, episode.observations[index])
        np.testing.assert_array_equal(action, episode.actions[index])
    # it is shown a step before it is asked whether it wants to drive it
    assert [engaged for _, engaged, _ in gate.ticks] == [True] * len(episode)


def test_an_expert_that_writes_into_what_it_is_shown_changes_nothing():
    class Writes(Person):
        def watch(self, observation, action):
            super().watch(observation, action)
            observation *= 10
            action[:] = 9

        def label(self, observation):
            answer = super().label(observation)
            observation -= 5
            return answer

    episodes = [driven(Script("aea."), Drives(stays, history=2), expert())[0] for expert in (Person, Writes)]
    np.testing.assert_array_equal(*(episode.actions for episode in episodes))
    np.testing.assert_array_equal(*(episode.labels for episode in episodes))


def test_a_gate_sees_who_drove_before_and_at_the_start_that_is_the_policy():
    gate = Script("ee..")
    _, agent, _ = driven(gate, steps=5)
    assert [driver for driver, _, _ in gate.ticks] == [0, 1, 1, 0, 0]
    rollout(PointWorld(), agent, seed=0, max_steps=1)
    assert gate.ticks[-1][0] == Driver.POLICY


def test_the_draws_of_a_gate_depend_only_on_seed_and_round():
    gate = DAggerGate("constant", beta=0.5)

    def drivers(policy, seed=3, round=1):
        return driven(gate, policy, seed=seed, round=round, steps=10)[0].driver.tolist()

    usual = drivers(Drives(stays))
    assert drivers(Drives(expert_like))[:5] == usual[:5]
    assert drivers(Drives(stays)) == usual
    assert drivers(Drives(stays), seed=4) != usual
    assert drivers(Drives(stays), round=2) != usual


SPEC = Spec("x", 10.0, (Channel("x"),), (Channel("a", "m/s", -1, 3), Channel("b", "N"), Channel("c", "1", 2, 2)))


def test_a_deviation_is_measured_in_half_ranges():
    measure = Measure(SPEC, np.array([9.0, 4.0, 5.0], np.float32))
    one, two = np.array([1, 8, 2], np.float32), np.array([2, 0, 2], np.float32)
    # half a half-range; two deviations of a channel without limits; nothing
    assert measure.deviation(one, two) == pytest.approx(np.sqrt((0.25 + 4 + 0) / 3))
    np.testing.assert_allclose(
        measure.deviation(np.stack([one, two]), two), [measure.deviation(one, two), 0.0], rtol=1e-6
    )


def test_an_action_beyond_the_limits_is_no_other_action():
    measure = Measure(SPEC, np.ones(3, np.float32))
    assert measure.deviation(np.array([3, 0, 2], np.float32), np.array([30, 0, 2], np.float32)) == 0


def test_doubt_is_the_deviation_of_the_members():
    measure = Measure(SPEC, np.array([9.0, 4.0, 1.0], np.float32))
    members = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    for step in range(7):
        parts = [np.std([member[step, channel] for member in members]) for channel in range(3)]
        wanted = np.sqrt(((parts[0] / 2) ** 2 + (parts[1] / 4) ** 2 + parts[2] ** 2) / 3)
        assert measure.doubt(members)[step] == pytest.approx(wanted, rel=1e-5)


def test_a_tick_doubts_as_its_members_do():
    doubts = []

    class Doubting(Script):
        def __call__(self, tick):
            doubts.append(tick.doubt())
            return super().__call__(tick)

    policy = Drives(unsure)
    episode, _, expert = driven(Doubting("."), policy)
    wanted = [np.sqrt(np.mean(unsure(row[None]).std(0) ** 2)) for row in episode.observations[:-1]]
    np.testing.assert_allclose(doubts, wanted, rtol=1e-5)
    assert expert.calls == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "nothing"),
        ([0.0, np.nan], "nan for action channel 1"),
        ([0.0, 0.0, 0.0], "answered 3 numbers"),
        ([0.5], "answered 1 numbers"),  # it could be taken for both channels
        ("left", "answered 'left'; label\\(observation\\) must return numbers"),
        ({"x": 1.0}, "must return numbers"),
    ],
)
@pytest.mark.parametrize("gate", [Script("a"), Script("e"), Greedy()])
def test_an_answer_that_is_no_action_is_refused_in_one_line(answer, says, gate):
    expert = PointExpert()
    expert.label = lambda observation: answer
    with pytest.raises(ExpertError, match=says) as raised:
        driven(gate, expert=expert)
    assert "\n" not in str(raised.value)


def test_a_policy_that_was_never_trained_does_not_drive():
    with pytest.raises(PolicyError, match="never trained"):
        GatedAgent(shape(), PointExpert(), Script("."))


@pytest.mark.parametrize("cap", [0, -1.0, np.nan])
def test_a_cap_is_above_0(cap):
    with pytest.raises(ConfigError, match="cap"):
        GatedAgent(Drives(stays), PointExpert(), Script("."), cap=cap)
