import math
import pickle

import numpy as np
import pytest

from understudy.agent import Demonstrator, Driver
from understudy.errors import ConfigError, ExpertError
from understudy.rollout import rollout
from understudy.sim.experts import expert_for
from understudy.sim.study_experts import BiasedExpert, DelayedExpert, HumanConfig, NoisyExpert, SimulatedHuman
from understudy.spec import Channel, Spec, spec_of
from understudy.worlds import make_env

HZ = 20.0
SPEC = Spec("test/World-v0", HZ, (Channel("x"),), (Channel("u", "", -1, 1), Channel("v", "", 10, 18)))
HALF_RANGES = np.array([1.0, 4.0])
MIDDLE = np.array([0.0, 14.0], np.float32)
X = np.zeros(1, np.float32)
HABITS = HumanConfig(tolerance=0.3, reaction_s=0.3, recovered=0.15, settle_s=0.5, tires_per_s=1.0)


class Right:
    """Answers with the middle of the range and the number of the answer, and remembers being asked."""

    def __init__(self, step=0.0):
        self.engaged, self.seeds, self.asked, self.step = False, [], 0, step

    def reset(self, seed):
        self.seeds.append(seed)

    def label(self, observation):
        self.asked += 1
        return MIDDLE + np.float32(self.step * self.asked)


def answers(expert, count, seed=0):
    expert.reset(seed)
    return np.array([expert.label(X) for _ in range(count)])


def human(config=HABITS):
    person = SimulatedHuman(Right(), SPEC, config)
    person.reset(0)
    return person


def off(deviation):
    """A proposal whose root mean square over both channels is so many half-ranges away from the right action."""
    return MIDDLE + deviation * HALF_RANGES


def steps_until(person, engaged, deviation, limit=1000):
    """Steps of one deviation until the person drives, or does not drive; None where that never happens."""
    for step in range(1, limit + 1):
        person.watch(X, off(deviation))
        if person.engaged == engaged:
            return step
    return None


@pytest.mark.parametrize(
    "build",
    [
        lambda expert: NoisyExpert(expert, SPEC, 0.1),
        lambda expert: DelayedExpert(expert, 2),
        lambda expert: BiasedExpert(expert, SPEC, 0.1),
    ],
)
def test_a_changed_expert_is_engaged_and_reset_as_the_one_inside(build):
    inside = Right()
    expert = build(inside)
    assert not expert.engaged
    inside.engaged = True
    assert expert.engaged
    expert.reset(7)
    assert inside.seeds[-1] == 7
    assert expert.label(X).dtype == np.float32


def test_noise_has_the_deviation_asked_for_in_half_ranges_of_each_channel():
    errors = (answers(NoisyExpert(Right(), SPEC, 0.2), 20_000) - MIDDLE) / HALF_RANGES
    np.testing.assert_allclose(errors.std(0), 0.2, rtol=0.03)
    np.testing.assert_allclose(errors.mean(0), 0.0, atol=0.01)
    assert abs(np.corrcoef(errors.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(errors[1:, 0], errors[:-1, 0])[0, 1]) < 0.03


def test_correlated_noise_forgets_itself_with_its_time_constant_and_has_the_same_deviation():
    errors = (answers(NoisyExpert(Right(), SPEC, 0.2, correlation_s=0.25), 50_000) - MIDDLE) / HALF_RANGES
    after_s = 0.25
    lag = round(after_s * HZ)
    assert np.corrcoef(errors[lag:, 0], errors[:-lag, 0])[0, 1] == pytest.approx(math.exp(-1), abs=0.04)
    np.testing.assert_allclose(errors.std(0), 0.2, rtol=0.05)
    first = [answers(NoisyExpert(Right(), SPEC, 0.2, 0.25), 1, seed)[0, 0] for seed in range(500)]
    assert np.std(first) == pytest.approx(0.2, rel=0.15), "the first answer is as noisy as the others"


def test_noise_is_fixed_by_the_seed():
    expert = NoisyExpert(Right(), SPEC, 0.2, correlation_s=0.1)
    assert np.array_equal(answers(expert, 5, seed=1), answers(expert, 5, seed=1))
    assert not np.array_equal(answers(expert, 5, seed=1), answers(expert, 5, seed=2))


def test_what_a_changed_expert_answers_keeps_the_limits():
    for expert in (NoisyExpert(Right(), SPEC, 3.0), BiasedExpert(Right(), SPEC, [5.0, -5.0])):
        labels = answers(expert, 100)
        assert (labels >= SPEC.action_low).all()
        assert (labels <= SPEC.action_high).all()
        assert (np.isin(labels, [-1, 1, 10, 18])).any()


def test_a_delayed_expert_gives_the_answers_of_some_steps_ago():
    inside = Right(step=0.001)
    expert = DelayedExpert(inside, 3)
    labels = answers(expert, 8)[:, 0]
    np.testing.assert_allclose(labels, 0.001 * np.array([1, 1, 1, 1, 2, 3, 4, 5]), rtol=1e-6)
    assert inside.asked == 8
    assert answers(expert, 1)[0, 0] == pytest.approx(0.009), "an episode remembers nothing of the one before"
    assert np.array_equal(answers(DelayedExpert(Right(0.001), 0), 4), answers(Right(0.001), 4))


def test_an_expert_may_write_into_what_it_is_given_and_answer_in_the_same_array_each_time():
    class Careless(Right):
        def label(self, observation):
            observation *= 10
            self.answer = getattr(self, "answer", np.zeros(2, np.float32))
            self.answer[:] = super().label(observation)
            return self.answer

    seen = np.ones(1, np.float32)
    expert = DelayedExpert(Careless(step=0.001), 2)
    expert.reset(0)
    labels = [expert.label(seen)[0] for _ in range(4)]
    assert labels == pytest.approx([0.001, 0.001, 0.001, 0.002])
    assert seen[0] == 1


@pytest.mark.parametrize("numbers", [1, 3])
@pytest.mark.parametrize(
    "build",
    [lambda expert: NoisyExpert(expert, SPEC, 0.1), lambda expert: BiasedExpert(expert, SPEC, 0.1), SimulatedHuman],
)
def test_an_answer_for_other_channels_is_refused_and_not_stretched(build, numbers):
    inside = Right()
    inside.label = lambda observation: np.zeros(numbers)
    expert = build(inside, SPEC) if build is SimulatedHuman else build(inside)
    expert.reset(0)
    with pytest.raises(ExpertError, match=f"Right answered for {numbers} action channels; this world has 2"):
        expert.label(X)
    if build is SimulatedHuman:
        with pytest.raises(ExpertError, match="this world has 2"):
            expert.watch(X, MIDDLE)


def test_slow_motion_gives_the_same_person_more_of_the_worlds_time():
    config = HumanConfig(tires_per_s=1.1, rests_per_s=1.05)
    slow = config.in_slow_motion(4.0)
    assert (slow.tolerance, slow.recovered) == (config.tolerance, config.recovered)
    assert (slow.reaction_s, slow.settle_s) == (config.reaction_s / 4, config.settle_s / 4)
    assert slow.tires_per_s == pytest.approx(1.1**4), "a second of the world lasts four of the person's"
    assert slow.rests_per_s == pytest.approx(1.05**4)
    assert config.in_slow_motion(1.0) == config
    with pytest.raises(ConfigError, match=r"shown 0\.5 times slower; it takes 1 or more"):
        config.in_slow_motion(0.5)


def test_a_bias_is_in_half_ranges_of_each_channel():
    np.testing.assert_allclose(BiasedExpert(Right(), SPEC, 0.25).label(X), [0.25, 15.0])
    np.testing.assert_allclose(BiasedExpert(Right(), SPEC, [-0.5, 0.5]).label(X), [-0.5, 16.0])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: NoisyExpert(Right(), SPEC, -0.1), "deviation is -0.1"),
        (lambda: NoisyExpert(Right(), SPEC, math.nan), "deviation is nan"),
        (lambda: NoisyExpert(Right(), SPEC, math.inf), "deviation is inf"),
        (lambda: NoisyExpert(Right(), SPEC, 0.1, -1.0), "correlation_s is -1.0"),
        (lambda: NoisyExpert(Right(), Spec.unnamed(1, 2), 0.1), "has no limits"),
        (lambda: BiasedExpert(Right(), SPEC, [1.0, 1.0, 1.0]), "one for each of 2 channels"),
        (lambda: BiasedExpert(Right(), SPEC, math.nan), "bias is nan"),
        (lambda: DelayedExpert(Right(), -1), "a whole number from 0 to 10000"),
        (lambda: DelayedExpert(Right(), 2.5), "the delay is 2.5 steps"),
        (lambda: DelayedExpert(Right(), 1e300), "the delay is 1e"),
        (lambda: SimulatedHuman(Right(), Spec("", 0.0, SPEC.observations, SPEC.actions)), "states no control rate"),
        (lambda: SimulatedHuman(Right(), Spec.unnamed(1, 2)), "has no limits"),
        (lambda: HumanConfig(tolerance=0.0, recovered=0.0), "tolerance is 0.0; it takes more than 0"),
        (lambda: HumanConfig(recovered=0.4, tolerance=0.3), "recovered is 0.4; it takes more than 0 and at most"),
        (lambda: HumanConfig(reaction_s=-1.0), "reaction_s is -1.0"),
        (lambda: HumanConfig(settle_s=math.nan), "settle_s is nan"),
        (lambda: HumanConfig(tires_per_s=0.9), "tires_per_s is 0.9; it is a factor of 1 or more"),
        (lambda: HumanConfig(tired_at_most=0.0), "tired_at_most"),
        (lambda: HumanConfig(rests_per_s=math.inf), "rests_per_s"),
    ],
)
def test_a_number_that_cannot_work_is_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()


def test_a_person_takes_over_after_the_reaction_time_and_hands_back_after_settling():
    person = human()
    assert not person.engaged
    assert steps_until(person, True, 0.31) == 6, "0.3 s at 20 Hz"
    assert steps_until(person, False, 0.14) == 10, "0.5 s at 20 Hz"
    assert steps_until(human(), True, 0.29) is None


def test_times_are_rounded_up_to_steps_and_rounding_errors_cost_none():
    for reaction_s, steps in ((0.26, 6), (1.1, 22)):  # 1.1 * 20 is a little more than 22
        habits = HumanConfig(reaction_s=reaction_s)
        assert steps_until(human(habits), True, 0.5) == steps


def test_the_deviation_is_the_root_mean_square_over_the_channels_in_half_ranges():
    for channel in range(2):
        for deviation, taken in ((0.42, None), (0.43, 6)):  # 0.3 * sqrt(2) = 0.424
            proposal = MIDDLE.copy()
            proposal[channel] -= deviation * HALF_RANGES[channel]
            person = human()
            steps = [step for step in range(1, 20) if (person.watch(X, proposal), person.engaged)[1]]
            assert (steps[0] if steps else None) == taken


def test_between_the_two_thresholds_nothing_changes_hands():
    person = human()
    assert steps_until(person, True, 0.2) is None
    steps_until(person, True, 0.5)
    assert steps_until(person, False, 0.2) is None


def test_a_moment_of_doubt_starts_the_count_anew():
    person = human()
    for _ in range(10):
        assert steps_until(person, True, 0.5, limit=5) is None
        person.watch(X, off(0.2))
    steps_until(person, True, 0.5)
    for _ in range(10):
        assert steps_until(person, False, 0.1, limit=9) is None
        person.watch(X, off(0.2))


def test_a_person_without_reaction_time_answers_at_the_first_step():
    person = human(HumanConfig(reaction_s=0.0, settle_s=0.0))
    assert steps_until(person, True, 0.5) == 1
    assert steps_until(person, False, 0.1) == 1


def test_driving_lengthens_the_reaction_by_its_factor_for_each_second_up_to_a_maximum_and_rest_recovers_it():
    habits = HumanConfig(reaction_s=1.0, settle_s=0.05, tires_per_s=1.5, tired_at_most=2.0, rests_per_s=1.25)

    def reaction_after(driving_s, resting_s=0.0):
        person = human(habits)
        assert steps_until(person, True, 0.5) == HZ, "rested"
        for _ in range(round(driving_s * HZ) - 1):
            person.watch(X, off(0.5))
        assert steps_until(person, False, 0.1) == 1
        for _ in range(round(resting_s * HZ)):
            person.watch(X, off(0.1))
        return steps_until(person, True, 0.5) / HZ

    # While the person reacts, the robot drives, and so the person rests: r = 1.5 / 1.25^r for a second of driving.
    assert reaction_after(1.0) == pytest.approx(1.17, abs=0.05)
    assert reaction_after(30.0) == pytest.approx(1.47, abs=0.05), "r = 2 / 1.25^r, the maximum"
    assert reaction_after(30.0, resting_s=2.0) < reaction_after(30.0)
    assert reaction_after(30.0, resting_s=10.0) == pytest.approx(1.0)


def test_every_episode_begins_with_a_rested_person_who_watches():
    person = human(HumanConfig(tires_per_s=2.0, tired_at_most=5.0))
    rested = steps_until(person, True, 0.5)
    for _ in range(200):
        person.watch(X, off(0.5))
    person.reset(3)
    assert not person.engaged
    assert steps_until(person, True, 0.5) == rested


def test_watching_is_one_thought_a_step_and_a_label_of_the_same_step_costs_none():
    inside = Right(step=0.001)
    person = SimulatedHuman(inside, SPEC, HABITS)
    for step in range(1, 5):  # the world stands still, and yet each step is a new one
        person.watch(X, MIDDLE)
        labels = [person.label(X), person.label(X)]
        assert inside.asked == step
        assert labels[0][0] == labels[1][0] == np.float32(0.001 * step)
    seen = X.copy()
    person.watch(seen, MIDDLE)
    seen += 1
    person.label(seen)
    assert inside.asked == 6, "another observation is another thought, even in the same array"


def test_a_person_whom_nobody_lets_watch_still_answers():
    inside = Right(step=0.001)
    person = SimulatedHuman(inside, SPEC)
    assert [person.label(X)[0] for _ in range(2)] == [np.float32(0.001), np.float32(0.002)]
    assert inside.asked == 2


def test_a_thought_that_is_no_number_is_refused():
    inside = Right(step=math.nan)
    with pytest.raises(ExpertError, match="Right answered nan"):
        SimulatedHuman(inside, SPEC).watch(X, MIDDLE)


def test_what_a_person_compares_while_watching_is_no_label(bundled):
    """The script inside is asked at every step, and the episode has labels only where the person drove."""
    from tests.interactive.points import Drives
    from understudy.interactive import GatedAgent, HGGate

    right = expert_for(bundled, "scripted")
    person = SimulatedHuman(right, spec_of(bundled), HumanConfig(reaction_s=0.5))
    still = Drives(lambda seen: np.zeros((1, len(seen), bundled.action_space.shape[0])), spec_of(bundled))
    episode = rollout(bundled, GatedAgent(still, person, HGGate()), seed=0, max_steps=60)
    assert (episode.labelled == (episode.driver == Driver.EXPERT)).all()
    assert 0 < episode.labelled.sum() < len(episode)
    reaction = round(0.5 * spec_of(bundled).control_hz)
    assert not episode.labelled[: reaction - 1].any(), "nobody takes over before the reaction time is over"


@pytest.fixture(scope="module")
def bundled():
    env = make_env("understudy/PickPlace-v0")
    yield env
    env.close()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("human:scripted", [SimulatedHuman]),
        ("human=0.2:noisy=0.2:scripted-human", [SimulatedHuman, NoisyExpert]),
        ("delayed=3:noisy:biased=-0.1:scripted", [DelayedExpert, NoisyExpert, BiasedExpert]),
    ],
)
def test_experts_are_nested_by_name(bundled, name, kinds):
    expert = expert_for(bundled, name)
    episode = rollout(bundled, Demonstrator(expert), seed=0, max_steps=5)
    assert (episode.driver == Driver.EXPERT).all()
    seen = episode.observations[-1]
    assert np.array_equal(pickle.loads(pickle.dumps(expert)).label(seen), expert.label(seen)), "it travels to a worker"
    for kind in kinds:
        assert type(expert) is kind
        expert = expert._expert


def test_the_number_in_a_name_is_the_one_that_counts(bundled):
    observation, _ = bundled.reset(seed=0)
    right = expert_for(bundled, "scripted").label(observation)
    half_ranges = np.ptp([bundled.action_space.low, bundled.action_space.high], axis=0) / 2
    limits = bundled.action_space.low, bundled.action_space.high
    for name, bias in (("biased=0.3:scripted", 0.3), ("biased:scripted", 0.1)):
        label = expert_for(bundled, name).label(observation)
        np.testing.assert_allclose(label, np.clip(right + bias * half_ranges, *limits), rtol=1e-5)
    assert expert_for(bundled, "delayed=7:scripted")._answers.maxlen == 8
    assert expert_for(bundled, "human=0.2:scripted")._config == HumanConfig(tolerance=0.2, recovered=0.1)
    assert expert_for(bundled, "human:scripted")._config == HumanConfig()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "shaky=0.2:scripted",
            r"accepted: scripted, scripted-human, an \.npz .* human:, noisy:, delayed:, biased:.*noisy=0.2:scripted",
        ),
        ("noisy:nobody", "no expert 'nobody'; accepted"),
        ("noisy:", "no expert ''; accepted"),
        ("noisy", "no expert 'noisy'; accepted"),
        ("noisy=loud:scripted", "noisy=loud needs a number, as in noisy=0.1:scripted"),
        ("delayed=:scripted", "delayed= needs a number, as in delayed=3:scripted"),
        ("delayed=0.5:scripted", "a whole number"),
        ("noisy:human:scripted", "NoisyExpert cannot stand around a SimulatedHuman: the person comes first"),
    ],
)
def test_a_name_that_is_none_is_refused(bundled, name, said):
    with pytest.raises(ConfigError, match=said):
        expert_for(bundled, name)


def test_a_person_does_not_take_over_from_a_robot_that_does_what_the_limits_leave():
    class Eager(Right):
        def label(self, observation):
            return np.array([30.0, -30.0], np.float32)

    person = SimulatedHuman(Eager(), SPEC, HABITS)
    person.reset(0)
    for _ in range(50):
        person.watch(X, np.array([1.0, 10.0], np.float32))  # the same, cut to the limits
        assert not person.engaged
