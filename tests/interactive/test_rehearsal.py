import math
from dataclasses import replace

import numpy as np
import pytest

from tests.interactive.points import (
    TRIED,
    Drives,
    PointWorld,
    Script,
    demonstrations,
    expert_like,
    gate_of,
    right,
    shape,
    stays,
)
from understudy.agent import Driver
from understudy.dataset import Dataset
from understudy.errors import ConfigError, DataError, PolicyError, SpecMismatch
from understudy.interactive import DAggerGate, EnsembleGate, GatedAgent, LazyGate, rehearse
from understudy.interactive.rehearsal import Rehearsal
from understudy.spec import Channel


def torn(observations):
    """Two members that disagree to the left of the origin, and both are half as fast as is right."""
    quarrel = 0.3 * (observations[:, :1] < 0)
    return 0.5 * expert_like(observations) + np.stack([quarrel, -quarrel])


@pytest.fixture
def demos(tmp_path):
    return demonstrations(tmp_path / "demos", 6)


class Recorded:
    """The expert of a recording, written once more: says what was right at each step, in order."""

    engaged = False

    def __init__(self, episode):
        self.left = list(episode.targets()[0])

    def reset(self, seed):
        pass

    def label(self, observation):
        return self.answers

    def step(self):
        self.answers = self.left.pop(0)


@pytest.mark.parametrize("name", [name for name in TRIED if name != "hg"])
def test_a_rehearsal_counts_what_the_gate_decides_along_the_recording(demos, name, short_lessons):
    policy, gate = Drives(torn), gate_of(name)
    counted = list(rehearse(gate_of(name), policy, demos))
    gate.begin(policy)
    gate.fit(demos, policy)
    for one, episode in zip(counted, demos, strict=True):
        expert = Recorded(episode)
        agent = GatedAgent(policy, expert, gate)
        agent.reset(episode.seed)
        labels = driven = takeovers = 0
        before = Driver.POLICY
        for observation in episode.observations[:-1]:
            expert.step()
            command = agent.act(observation)
            labels += command.label is not None
            driven += command.driver == Driver.EXPERT
            takeovers += command.driver == Driver.EXPERT != before
            before = command.driver
        assert one == Rehearsal(one.episode, len(episode), labels, driven, takeovers)
    assert [one.episode for one in counted] == [row.id for row in demos.rows]


def test_a_script_is_counted_as_it_is_written(demos):
    total = next(iter(rehearse(Script(".aee.e"), Drives(stays), demos.select([0]))))
    says = [".aee.e"[step % 6] for step in range(total.steps)]
    assert total.labels == sum(word in "ae" for word in says)
    assert total.expert_steps == says.count("e")
    assert total.interventions == sum(now == "e" != before for before, now in zip([".", *says], says, strict=False))


def test_a_gate_is_asked_about_what_was_recorded_and_not_about_what_it_would_have_done(demos):
    gate = EnsembleGate(tau=0.35, chi=0.2)
    for one, episode in zip(rehearse(gate, Drives(torn), demos), demos, strict=True):
        driven = 0
        for observation in episode.observations[:-1]:
            members = torn(observation[None])[:, 0]
            far = math.sqrt(np.mean((members.mean(0) - right(observation)) ** 2)) > 0.35
            driven += far or math.sqrt(np.mean(members.std(0) ** 2)) > 0.2
        assert (one.labels, one.expert_steps) == (len(episode), driven)


def test_a_cap_lets_the_expert_drive_in_a_rehearsal_as_in_a_round(demos):
    for one in rehearse(Script("."), Drives(torn), demos, cap=1e-6):
        assert one.labels == one.expert_steps == one.steps


def test_a_rehearsal_draws_from_the_seed_of_each_episode(demos):
    gate = DAggerGate("constant", beta=0.5)
    for one, row in zip(rehearse(gate, Drives(stays), demos), demos.rows, strict=True):
        random = np.random.default_rng([row.seed, 1])
        assert one.expert_steps == sum(random.random(2)[0] < 0.5 for _ in range(one.steps))


def test_a_rehearsal_goes_by_labels_where_the_policy_drove(demos, tmp_path):
    """What counts as right is what the expert said, not what was executed."""
    with Dataset.create(tmp_path / "asked", demos.spec) as asked:
        for episode in demos:
            driver = np.zeros(len(episode))
            asked.append(replace(episode, actions=-episode.actions, driver=driver, labels=episode.actions))
    one, two = (list(rehearse(gate_of("ensemble"), Drives(torn), dataset)) for dataset in (demos, asked))
    assert one == two


def test_a_rehearsal_changes_no_file(demos):
    before = {path: path.read_bytes() for path in demos.path.rglob("*") if path.is_file()}
    list(rehearse(gate_of("dagger"), Drives(torn), demos))
    assert before == {path: path.read_bytes() for path in demos.path.rglob("*") if path.is_file()}


def test_noise_on_the_expert_is_drawn_for_nobody(demos):
    """The states are those of the recording, however much an expert would shake."""
    quiet, shaken = (LazyGate(tau=0.2, tau_back=0.1, noise=noise) for noise in (0.0, 0.5))
    for gate in (quiet, shaken):
        gate.fit = lambda dataset, policy: None
        gate._is_unsafe = lambda observation, proposal: float(observation[0] > 0.2)
    assert list(rehearse(quiet, Drives(torn), demos)) == list(rehearse(shaken, Drives(torn), demos))


def test_a_person_is_not_rehearsed(demos):
    with pytest.raises(ConfigError, match="the gate hg is a person's decision"):
        list(rehearse(gate_of("hg"), Drives(torn), demos))


@pytest.mark.parametrize("name", ["ensemble", "thrifty"])
def test_a_single_network_is_refused_where_doubt_is_measured(demos, name):
    with pytest.raises(ConfigError, match="needs an ensemble"):
        list(rehearse(gate_of(name), Drives(stays), demos))


def test_a_policy_that_was_never_trained_is_refused(demos):
    with pytest.raises(PolicyError, match="never trained"):
        list(rehearse(gate_of("dagger"), shape(), demos))


def test_an_episode_that_nobody_advised_on_throughout_is_refused_by_its_number(demos, tmp_path):
    with Dataset.create(tmp_path / "mixed", demos.spec) as mixed:
        mixed.append(demos[0])
        driver = np.ones(len(demos[1]))
        driver[2] = 0
        mixed.append(replace(demos[1], driver=driver, labelled=driver.astype(bool)))
    told = rehearse(gate_of("dagger"), Drives(torn), mixed)
    assert next(told).episode == 0
    with pytest.raises(DataError, match="episode 1 has steps that the policy drove without a label"):
        next(told)


def test_episodes_of_another_task_are_refused_by_name(tmp_path):
    class Other(PointWorld):
        observation_channels = (Channel("x", "m", -2, 2), Channel("z", "m", -2, 2))

    with pytest.raises(SpecMismatch, match=r"'z' against 'y'|'y' against 'z'"):
        list(rehearse(gate_of("dagger"), Drives(torn), demonstrations(tmp_path / "other", world=Other())))
