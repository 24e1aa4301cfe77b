import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interactive.points import (
    RECIPE,
    TRIED,
    Drives,
    Person,
    PointExpert,
    PointWorld,
    demonstrations,
    expert_like,
    expert_of,
    gate_of,
    members_of,
    right,
    shape,
    stays,
)
from understudy.agent import Driver
from understudy.dataset import Dataset
from understudy.episode import UNKNOWN, Episode
from understudy.errors import ConfigError, DataError
from understudy.interactive import GATES, DAggerGate, GatedAgent, LazyGate, SafeGate, ThriftyGate, dagger, gate_for
from understudy.interactive.gates import _HASTE, _Lately
from understudy.interactive.ledger import entry_of
from understudy.interactive.tick import Tick, measure_for
from understudy.recipe import DAggerConfig
from understudy.rollout import rollout
from understudy.spec import spec_of


@pytest.fixture
def demos(tmp_path):
    return demonstrations(tmp_path / "demos", 10)


def patchy(observations):
    """Two members of one mind to the right of the origin; to the left of it they argue, and both are wrong."""
    left = observations[:, :1] < 0
    best = expert_like(observations)[0] * np.where(left, 0.6, 1.0)
    return np.stack([best + 0.3 * left, best - 0.1 * left])


def driven(gate, policy, demos, expert=None, *, episodes=10, round=1, fit=True):
    """Episodes of one round, and the expert."""
    expert = expert or PointExpert()
    if fit:
        gate.begin(policy)
        gate.fit(demos, policy)
    agent, collected = GatedAgent(policy, expert, gate, round=round), []
    for seed in range(100, 100 + episodes):
        collected.append(rollout(PointWorld(), agent, seed=seed))
        gate.adapt(collected[-1])
    return collected, expert


def together(episodes, column):
    return np.concatenate([getattr(episode, column) for episode in episodes])


# ---- what each asks ----


def test_dagger_labels_every_step_whoever_drives(demos):
    for share in (0.0, 0.5, 1.0):
        episodes, expert = driven(DAggerGate("constant", beta=share), Drives(stays), demos)
        assert together(episodes, "labelled").all()
        assert expert.calls == sum(map(len, episodes))


def test_dagger_asks_at_a_share_of_the_policys_steps_and_at_all_that_the_expert_drives(demos):
    episodes, expert = driven(DAggerGate("constant", beta=0.3, ask=0.2), Drives(stays), demos, episodes=60)
    labelled, driver = together(episodes, "labelled"), together(episodes, "driver")
    assert labelled[driver == Driver.EXPERT].all()
    alone = labelled[driver == Driver.POLICY]
    assert abs(alone.mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(alone))
    assert expert.calls == labelled.sum()


def test_hg_labels_exactly_the_steps_that_the_person_drives(demos):
    person = Person()
    episodes, _ = driven(gate_of("hg"), Drives(patchy), demos, person)
    labelled, driver = together(episodes, "labelled"), together(episodes, "driver")
    assert (labelled == (driver == Driver.EXPERT)).all()
    assert person.calls == labelled.sum() > 0
    assert not labelled.all()


@pytest.mark.parametrize("name", ["safe", "lazy"])
def test_a_learned_gate_costs_no_label_where_the_policy_drives(demos, name, short_lessons):
    episodes, expert = driven(gate_of(name), Drives(patchy), demos)
    labelled, driver = together(episodes, "labelled"), together(episodes, "driver")
    drove_before = np.concatenate([np.append(0, episode.driver[:-1]) for episode in episodes]) == Driver.EXPERT
    policy = driver == Driver.POLICY
    # lazy asks once more at the step in which it hands back
    assert not labelled[policy & ~drove_before].any()
    assert name == "lazy" or not labelled[policy].any()
    assert expert.calls == labelled.sum() < len(labelled)
    assert labelled.any()


def test_ensemble_asks_at_every_step(demos):
    episodes, expert = driven(gate_of("ensemble"), Drives(patchy), demos)
    assert together(episodes, "labelled").all()
    assert expert.calls == sum(map(len, episodes))


# ---- when each calls ----

BETAS = {
    ("indicator", 0.5, 5): [0, 0, 0, 0, 0, 0],
    ("constant", 0.3, 5): [0.3] * 6,
    ("linear", 0.5, 4): [0.75, 0.5, 0.25, 0, 0, 0],
    ("linear", 0.5, 1): [0] * 6,
    ("exponential", 0.5, 5): [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625],
    ("exponential", 0.0, 5): [0] * 6,
    ("exponential", 1.0, 5): [1] * 6,
}


@pytest.mark.parametrize("options", BETAS)
def test_beta_follows_its_schedule(options):
    gate = DAggerGate(*options)
    assert [gate.share(round) for round in range(1, 7)] == BETAS[options]


def test_the_expert_of_dagger_drives_a_share_beta_of_the_steps(demos):
    episodes, _ = driven(DAggerGate("exponential", beta=0.5), Drives(stays), demos, episodes=60, round=2)
    driver = together(episodes, "driver")
    assert len(driver) > 800
    assert abs(driver.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(driver))


def test_the_expert_of_ensemble_drives_where_the_policy_is_far_off_or_in_doubt(demos):
    policy, gate = Drives(patchy), gate_for("ensemble", {"tau": 0.3, "chi": 0.25})
    for episode in driven(gate, policy, demos)[0]:
        for observation, driver in zip(episode.observations[:-1], episode.driver, strict=True):
            members = patchy(observation[None])[:, 0]
            mean = members.mean(0).clip(-1, 1)
            far = math.sqrt(np.mean((mean - right(observation)) ** 2)) > 0.3
            torn = math.sqrt(np.mean(members.std(0) ** 2)) > 0.25
            assert driver == (far or torn)


def test_either_rule_of_ensemble_is_enough(demos):
    sure_and_wrong = Drives(lambda observations: np.stack([-expert_like(observations)[0]] * 2))
    torn_and_right = Drives(lambda observations: np.stack([expert_like(observations)[0] * s for s in (0.6, 1.4)]))
    for policy, wanted in ((sure_and_wrong, 1), (torn_and_right, 1)):
        first = driven(gate_of("ensemble"), policy, demos, episodes=1)[0][0]
        assert (first.driver == wanted).all()
    both = Drives(lambda observations: np.stack([expert_like(observations)[0]] * 2))
    assert not driven(gate_of("ensemble"), both, demos, episodes=1)[0][0].driver.any()


def test_the_expert_of_safe_drives_in_the_half_in_which_the_policy_is_wrong(demos, short_lessons):
    episodes, _ = driven(gate_of("safe"), Drives(patchy), demos)
    x = np.concatenate([episode.observations[:-1, 0] for episode in episodes])
    assert np.mean((together(episodes, "driver") == 1) == (x < 0)) > 0.85


def test_more_caution_calls_more_often(demos, short_lessons):
    policy, shares = Drives(patchy), []
    gate = SafeGate(tau=0.2)
    gate.fit(demos, policy)
    for caution in (0.001, 0.5, 0.999):
        gate.caution = caution
        shares.append(together(driven(gate, policy, demos, fit=False)[0], "driver").mean())
    assert shares[0] < shares[1] < shares[2]


def test_without_a_tau_the_share_that_is_asked_for_is_unsafe(demos, short_lessons):
    """However good the policy is on what it has learnt: where it is at its worst counts as unsafe."""
    nearly = Drives(lambda observations: expert_like(observations) * (1 - 1e-3 * np.abs(observations[:, :1])))
    gate, shares = SafeGate(), []
    for share in (0.1, 0.5):
        gate.unsafe = share
        gate.fit(demos, nearly)
        shares.append(together(driven(gate, nearly, demos, fit=False)[0], "driver").mean())
    assert 0 < shares[0] < shares[1] < 1
    lazy = LazyGate(unsafe=0.5)
    lazy.fit(demos, nearly)
    assert lazy(tick_of(0.9)), "far from the expert, who drives: the limit for handing back follows the fitted tau"
    assert not lazy(tick_of(0.0))


def test_safe_asks_a_share_of_the_steps_that_it_finds_safe(demos):
    """The expert still drives the same steps; what it is asked for beside them is the share that was wished."""
    policy, labels = Drives(patchy), {}
    for share in (0.0, 0.3):
        gate = SafeGate(tau=0.2, ask=share)
        gate.fit = lambda dataset, policy: None
        gate._is_unsafe = lambda observation, proposal: float(observation[0] < 0)
        episodes, _ = driven(gate, policy, demos)
        drives, x = together(episodes, "driver") == 1, np.concatenate([e.observations[:-1, 0] for e in episodes])
        assert (drives == (x < 0)).all()
        labels[share] = np.mean(np.concatenate([e.targets()[1] for e in episodes])[~drives])
    assert labels[0.0] == 0
    assert 0.2 < labels[0.3] < 0.4


def crossing(observations):
    """Right, but for narrow stripes in which it stands still."""
    stripes = np.floor(np.hypot(*observations.T) / 0.12) % 2 == 0
    return expert_like(observations) * ~stripes[:, None]


def test_lazy_switches_less_often_than_safe_on_the_same_task(demos):
    switches = {}
    # inside a stripe the classifier calls; the policy is never quite right, so the lazy expert stays
    policy = Drives(lambda observations: 0.85 * crossing(observations))
    for gate in (SafeGate(tau=0.5), LazyGate(tau=0.5, tau_back=0.05)):
        gate.fit = lambda dataset, policy: None
        gate._is_unsafe = lambda observation, proposal: float(np.abs(proposal).max() < 1e-6)
        switches[type(gate)] = entry_of(driven(gate, policy, demos)[0], 10.0).context_switches
    assert switches[LazyGate] < switches[SafeGate] / 2


def tick_of(deviation, driver=Driver.EXPERT, *, risk=None):
    """A step at which the policy's proposal is so many half-ranges from the expert."""
    policy, expert = Drives(stays), PointExpert()
    expert.label = lambda observation: np.full(2, deviation, np.float32)
    return Tick(
        np.zeros(2, np.float32),
        np.zeros(2, np.float32),
        driver=driver,
        engaged=False,
        round=1,
        alone=0,
        takeovers=0,
        random=np.random.default_rng(0),
        expert=expert,
        robot=None,
        measure=measure_for(policy),
    )


@pytest.mark.parametrize(
    ("tau_back", "limit"),
    [(0.05, 0.05), (None, 0.2 / math.sqrt(10)), (0.2, 0.2)],  # a tenth of a squared tau where not given
)
def test_the_lazy_expert_stays_until_the_deviation_is_below_tau_back(tau_back, limit):
    gate = LazyGate(tau=0.2, tau_back=tau_back)
    gate._is_unsafe = lambda observation, proposal: 0.0  # once the expert drives, the classifier has no say
    assert gate(tick_of(limit * 1.01))
    assert not gate(tick_of(limit * 0.99))
    assert not gate(tick_of(0.9, Driver.POLICY))
    gate._is_unsafe = lambda observation, proposal: 1.0
    assert gate(tick_of(0.0, Driver.POLICY))


def test_the_lazy_expert_stays_until_they_agreed_for_so_many_steps():
    gate = LazyGate(tau=0.2, tau_back=0.1, settle=3)
    gate._is_unsafe = lambda observation, proposal: 1.0
    assert gate(tick_of(0.5, Driver.POLICY))
    assert [gate(tick_of(deviation)) for deviation in (0.0, 0.0, 0.5, 0.0, 0.0, 0.0)] == [True] * 5 + [False]
    assert gate(tick_of(0.0, Driver.POLICY))  # another attempt may begin before they agreed long enough
    assert [gate(tick_of(0.0)) for _ in range(3)] == [True, True, False]


def test_the_lazy_expert_never_hands_back_at_a_step_that_is_unsafe():
    gate = LazyGate(tau_back=0.9)
    gate._tau = 0.5  # fitted, and smaller
    assert gate(tick_of(0.6))
    assert not gate(tick_of(0.4))


def test_only_the_lazy_expert_is_shaken():
    assert {name: gate_for(name).expert_noise for name in GATES if gate_for(name).expert_noise} == {"lazy": 0.02}
    assert LazyGate(noise=0.0).expert_noise == 0


# ---- thrifty ----

COLUMN = st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True)


@settings(deadline=None, max_examples=300)
@given(st.data(), COLUMN, st.floats(0.001, 0.5))
def test_the_joint_quantile_is_the_lowest_pair_of_equal_ranks_above_either_of_which_the_share_lies(
    data, novelty, share
):
    risk = data.draw(st.permutations(novelty))
    novelty, risk = np.array(novelty, np.float32), np.array(risk, np.float32)
    count = len(novelty)
    for rank in range(count):
        novel, risky = sorted(novelty)[rank], sorted(risk)[rank]
        above = sum(n > novel or r > risky for n, r in zip(novelty, risk, strict=True))
        if above <= count - max(1, round((1 - share) * count)):
            break
    assert _Lately(novelty, risk, np.zeros(0, np.float32)).above(share) == (novel, risky)


def test_where_values_are_equal_the_joint_quantile_calls_no_more_often():
    rng = np.random.default_rng(0)
    for _ in range(50):
        novelty, risk = rng.integers(0, 4, (2, 200)).astype(np.float32)
        novel, risky = _Lately(novelty, risk, np.zeros(0, np.float32)).above(0.1)
        assert np.mean((novelty > novel) | (risk > risky)) <= 0.1


def restless(observations):
    """Two members whose quarrel changes from place to place."""
    quarrel = 0.2 * np.sin(37 * observations[:, :1]) * np.cos(31 * observations[:, 1:])
    return 0.8 * expert_like(observations) + np.stack([quarrel, -quarrel])


@pytest.mark.parametrize("budget", [0.02, 0.1])
def test_thrifty_keeps_its_budget_on_a_long_run(demos, budget, short_lessons):
    """Takeovers for each step that the policy drives, within 20 %."""
    episodes, _ = driven(ThriftyGate(budget=budget), Drives(restless), demos, episodes=400)
    assert entry_of(episodes, 10.0).intervention_rate == pytest.approx(budget, rel=0.2)


def test_thrifty_calls_where_it_is_novel_or_risky_and_hands_back_where_it_is_neither(demos, short_lessons):
    gate, policy = ThriftyGate(budget=0.1), Drives(restless)
    gate.begin(policy)
    gate.fit(demos, policy)
    visited = np.concatenate([episode.observations[:-1] for episode in demos])
    members = restless(visited)
    proposals = members.mean(0).clip(-1, 1)
    doubt = np.sqrt(np.mean(members.std(0) ** 2, axis=1))
    risk = 1 - gate._success.each(visited, proposals)
    deviation = np.sqrt(np.mean((proposals - np.array([right(row) for row in visited])) ** 2, axis=1))
    lately = _Lately(doubt, risk, deviation)
    agreement, calm = deviation.mean(), np.median(risk)
    steps = 0
    episodes = [rollout(PointWorld(), GatedAgent(policy, PointExpert(), gate), seed=seed) for seed in range(60, 80)]
    for episode in episodes:
        before, alone, taken = Driver.POLICY, 0, 0
        for observation, driver in zip(episode.observations[:-1], episode.driver, strict=True):
            novel, risky = lately.above(min(0.5, 0.1 * 2 ** (_HASTE * (0.1 * alone - taken))))
            members = restless(observation[None])[:, 0]
            proposal = members.mean(0).clip(-1, 1)
            doubt = math.sqrt(np.mean(members.std(0) ** 2))
            risk = 1 - gate._success(observation, proposal)
            deviation = math.sqrt(np.mean((proposal - right(observation)) ** 2))
            if before == Driver.POLICY:
                near = min(abs(doubt - novel), abs(risk - risky))
                wanted = doubt > novel or risk > risky
            else:
                near = min(abs(deviation - agreement), abs(risk - calm))
                wanted = deviation > agreement or risk > calm
            if near > 1e-5:  # float32 and float64 may differ on the edge
                assert driver == wanted
                steps += wanted
            alone, taken = alone + (driver == Driver.POLICY), taken + (driver == Driver.EXPERT != before)
            before = driver
    assert steps > 5


def test_takeovers_beyond_the_budget_make_thrifty_dearer_and_owed_ones_cheaper(demos, short_lessons):
    gate, policy = ThriftyGate(budget=0.1), Drives(restless)
    episode = demos[0]
    switching = np.arange(len(episode)) % 2

    def thresholds(drivers):
        gate.begin(policy)
        gate.fit(demos, policy)
        for _ in range(3):
            gate.adapt(
                Episode(episode.observations, episode.actions, driver=drivers, labelled=drivers.astype(bool), success=1)
            )
        return np.array(gate._limits())

    assert (thresholds(switching) > thresholds(0 * switching)).all()


def test_thrifty_calls_sooner_the_longer_an_attempt_takes_and_later_after_a_call(demos, short_lessons):
    gate, policy = ThriftyGate(budget=0.05), Drives(restless)
    gate.begin(policy)
    gate.fit(demos, policy)
    limits = [np.array(gate._limits(alone, 0)) for alone in (0, 20, 40)]
    assert (limits[0] > limits[1]).all()
    assert (limits[1] > limits[2]).all()
    np.testing.assert_array_equal(gate._limits(20, 1), limits[0])  # what was owed is paid


def test_a_policy_that_is_stuck_where_it_is_sure_gets_help_within_the_attempt(demos, short_lessons):
    """It stays where it is, all members agree, and no step looks riskier than another."""
    gate, policy = ThriftyGate(budget=0.05), Drives(lambda rows: np.repeat(stays(rows), 2, 0))
    gate.begin(policy)
    gate.fit(demos, policy)
    gate._success = lambda observation, proposal: 0.5
    gate._lately = _Lately(*(np.linspace(0, 1, 100, dtype=np.float32) for _ in range(3)))
    episode = rollout(PointWorld(length=100), GatedAgent(policy, PointExpert(), gate), seed=0)
    assert (episode.driver == Driver.EXPERT).any()


def test_a_budget_that_was_never_spent_is_no_number_too_large():
    gate = ThriftyGate(budget=1.0)
    gate._lately = _Lately(np.arange(3, dtype=np.float32), np.zeros(3, np.float32), np.zeros(0, np.float32))
    for unspent in (1e6, -1e6):
        gate._unspent = unspent
        gate._limits()


# ---- hg ----


@pytest.mark.parametrize("episodes", [1, 3, 10])
def test_the_doubt_threshold_is_the_mean_of_the_last_quarter_of_the_doubts_at_takeovers(demos, episodes):
    gate, policy = gate_of("hg"), Drives(patchy)
    assert gate.doubt_threshold is None
    doubts = []
    for episode in driven(gate, policy, demos, Person(), episodes=episodes)[0]:
        before = Driver.POLICY
        for observation, driver in zip(episode.observations[:-1], episode.driver, strict=True):
            if driver == Driver.EXPERT != before:
                doubts.append(math.sqrt(np.mean(patchy(observation[None]).std(0) ** 2)))
            before = driver
    last = doubts[len(doubts) - math.ceil(len(doubts) / 4) :]
    assert gate.doubt_threshold == pytest.approx(sum(last) / len(last), rel=1e-5)
    assert len(doubts) > (1 if episodes > 1 else 0)


def test_a_single_network_has_no_doubt_threshold_and_yet_hg_works(demos):
    gate = gate_of("hg")
    driven(gate, Drives(lambda observations: -expert_like(observations)), demos, Person(), episodes=2)
    assert gate.doubt_threshold is None


# ---- all of them ----


@pytest.mark.parametrize("name", TRIED)
def test_every_gate_solves_what_two_demonstrations_do_not_teach(name, tmp_path, short_lessons):
    demos = demonstrations(tmp_path / "demos", 2)
    config = DAggerConfig(rounds=2, episodes=8, progress_starts=40)
    rounds = list(dagger(PointWorld(), expert_of(name), gate_of(name), shape(members_of(name)), demos, config, RECIPE))
    assert rounds[0].evaluation.success_rate < 0.3
    assert rounds[-1].evaluation.success_rate > 0.9
    assert rounds[1].entry.labels > 0


@pytest.mark.parametrize("name", TRIED)
def test_a_gate_begins_anew_with_each_run(name, demos, short_lessons):
    """What a gate has seen in another run changes nothing in this one."""
    policy, used, fresh = Drives(patchy), gate_of(name), gate_of(name)
    driven(used, policy, demos, expert_of(name), episodes=5)
    one, two = (driven(gate, policy, demos, expert_of(name), episodes=5)[0] for gate in (used, fresh))
    for column in ("actions", "driver", "labelled"):
        np.testing.assert_array_equal(together(one, column), together(two, column))
    assert name != "hg" or used.doubt_threshold == fresh.doubt_threshold


@pytest.mark.parametrize("name", ["ensemble", "thrifty"])
def test_a_gate_that_measures_doubt_refuses_a_single_network_at_once(name):
    with pytest.raises(ConfigError, match=f"the gate {name} measures doubt and needs an ensemble"):
        gate_of(name).begin(shape())


def test_thrifty_refuses_demonstrations_without_a_verdict_before_any_training(demos, tmp_path):
    with Dataset.create(tmp_path / "unjudged", demos.spec) as unjudged:
        unjudged.append(replace(demos[0], success=UNKNOWN))
    with pytest.raises(DataError, match="no episode says whether it succeeded"):
        ThriftyGate().begin(Drives(restless), unjudged)
    ThriftyGate().begin(Drives(restless), demos)
    ThriftyGate().begin(Drives(restless))


def test_gates_have_the_names_that_users_type():
    assert list(GATES) == ["dagger", "safe", "lazy", "hg", "thrifty", "ensemble"]
    for name, kind in GATES.items():
        assert type(gate_for(name)) is kind
    assert gate_for("lazy", {"tau": 0.3, "tau_back": 0.1, "noise": 0}) == LazyGate(tau=0.3, tau_back=0.1, noise=0)
    assert gate_for("dagger", {"schedule": "linear", "fade_rounds": 3}).share(1) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("wise", {}, "no gate is called 'wise'; accepted: dagger, safe, lazy, hg, thrifty, ensemble"),
        ("hg", {"tau": 0.1}, "the gate hg has no option tau; it has none"),
        ("safe", {"chi": 0.1}, "the gate safe has no option chi; it has tau, unsafe, caution, ask, seed"),
        ("safe", {"_unsafe": None}, "the gate safe has no option _unsafe"),
        ("dagger", {"schedule": "slow"}, "schedule is slow; accepted: indicator, constant, linear, exponential"),
        ("dagger", {"schedule": 3}, "schedule is 3; accepted: text"),
        ("dagger", {"beta": 1.5}, "beta is 1.5; accepted: 0 to 1"),
        ("dagger", {"beta": "half"}, "beta is 'half'; accepted: a number"),
        ("dagger", {"ask": 1.1}, "ask is 1.1; accepted: 0 to 1"),
        ("dagger", {"fade_rounds": 0}, "fade_rounds is 0; accepted: 1 or more"),
        ("dagger", {"fade_rounds": 2.5}, "fade_rounds is 2.5; accepted: a whole number"),
        (
            "dagger",
            {"schedule": "indicator", "beta": 0.9},
            "beta is of the schedule constant or exponential; indicator",
        ),
        ("dagger", {"fade_rounds": 2}, "fade_rounds is of the schedule linear; constant knows none"),
        ("safe", {"ask": 1.1}, "ask is 1.1; accepted: 0 to 1"),
        ("safe", {"tau": 0}, "tau is 0; accepted: above 0"),
        ("safe", {"tau": math.nan}, "tau is nan; accepted: a finite number"),
        ("safe", {"caution": 1}, "caution is 1; accepted: between 0 and 1"),
        ("safe", {"tau": True}, "tau is True; accepted: a number"),
        ("lazy", {"tau": 0.1, "tau_back": 0.2}, "tau_back is 0.2; accepted: above 0, up to tau"),
        ("lazy", {"tau_back": 0}, "tau_back is 0; accepted: above 0, up to tau"),
        ("lazy", {"seed": 2**32}, "seed is 4294967296; accepted: 0 to 4294967295"),
        ("thrifty", {"seed": -1}, "seed is -1; accepted: 0 to 4294967295"),
        ("lazy", {"noise": -1}, "noise is -1; accepted: 0 or more"),
        ("ensemble", {"chi": -1}, "chi is -1; accepted: above 0"),
        ("thrifty", {"budget": 0}, "budget is 0; accepted: takeovers for each step, above 0 and up to 1"),
        ("thrifty", {"budget": 1.5}, "budget is 1.5; accepted: takeovers for each step, above 0 and up to 1"),
        ("thrifty", {"discount": 1}, "discount is 1; accepted: between 0 and 1"),
        ("safe", {"tau": 0.1, "unsafe": 0.2}, "tau is the threshold itself, and unsafe a share that it follows from"),
    ],
)
def test_a_gate_that_cannot_be_is_refused_in_one_line(name, options, said):
    with pytest.raises(ConfigError) as raised:
        gate_for(name, options)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_gates_judge_numbers_without_warnings(demos, short_lessons):
    far = Drives(lambda observations: 1e6 * restless(observations), spec_of(PointWorld()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in TRIED:
            driven(gate_of(name), far, demos, expert_of(name), episodes=2)
