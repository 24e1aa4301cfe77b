import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.interactive.points import (
    QUICK,
    SHAPE,
    TRIED,
    Person,
    PointExpert,
    PointWorld,
    Script,
    demonstrations,
    expert_of,
    gate_of,
    members_of,
    shape,
)
from understudy.agent import Driver
from understudy.checkpoint import load
from understudy.dataset import Dataset
from understudy.errors import ConfigError, DataError, ExpertError, SpecMismatch
from understudy.evaluate import EVALUATION_SEED
from understudy.interactive import DAggerGate, ThriftyGate, dagger, entry_of
from understudy.interactive.dagger import PROGRESS_SEED
from understudy.policies import FeedForward
from understudy.recipe import DAggerConfig, TrainConfig
from understudy.runs import read_metrics
from understudy.spec import Channel, spec_of
from understudy.trainer import train

FEW = TrainConfig(steps=20, batch_size=16, measure_every=10, lead=0)
TWO = replace(QUICK, episodes=3)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(policy):
    return hashlib.sha256(b"".join(array.tobytes() for _, array in sorted(policy.arrays().items()))).hexdigest()


def outcome(run):
    """All that a run promises to be a function of its seeds."""
    metrics = (run / "metrics.jsonl").read_bytes()
    weights = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("weights.safetensors"))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Dataset.open(run / "data")
    return {"weights": weights, "data": [(row.seed, row.content) for row in data.rows], "metrics": metrics}


@pytest.fixture
def demos(tmp_path):
    return demonstrations(tmp_path / "demos", 3)


def told(demos, name="dagger", config=TWO, recipe=FEW, *, gate=None, policy=None, expert=None, env=None, **options):
    gate, policy = gate or gate_of(name), policy or shape(members_of(name))
    return dagger(env or PointWorld(), expert or expert_of(name), gate, policy, demos, config, recipe, **options)


# ---- what a round is ----


def test_each_round_adds_its_episodes_to_what_was_known(demos):
    rounds = list(told(demos))
    assert [one.number for one in rounds] == [0, 1, 2]
    assert [len(one.dataset) for one in rounds] == [3, 6, 9]
    for before, after in itertools.pairwise(rounds):
        assert after.dataset.rows[: len(before.dataset)] == before.dataset.rows
    assert rounds[0].dataset.fingerprint == demos.fingerprint


def test_a_policy_is_trained_on_everything_collected_up_to_its_round(demos, tmp_path):
    for one in told(demos, run=tmp_path / "run"):
        assert one.policy.data_fingerprint == one.dataset.fingerprint
        alone = train(shape().initialized(FEW.seed), one.dataset, FEW)
        assert digest(one.policy) == digest(alone) == digest(load(tmp_path / f"run/rounds/{one.number:02d}"))
    assert digest(load(tmp_path / "run")) == digest(one.policy)


def test_a_warm_training_goes_on_from_the_last_one(demos):
    last = None
    recipe = replace(FEW, held_out=0.0)
    for one in told(demos, config=replace(TWO, warm=True), recipe=recipe):
        if last is not None:
            assert digest(one.policy) == digest(train(last, one.dataset, recipe))
        last = one.policy


def test_an_entry_is_about_the_episodes_of_its_round_alone(demos, tmp_path):
    rounds = list(told(demos, "ensemble", run=tmp_path / "run"))
    assert rounds[0].entry == entry_of(demos, 10.0)
    for before, after in itertools.pairwise(rounds):
        assert after.entry == entry_of(list(after.dataset)[len(before.dataset) :], 10.0)
        assert after.entry.episodes == 3


def test_the_policy_of_the_round_before_drives(demos, tmp_path):
    rounds = list(told(demos, run=tmp_path / "run"))
    for before, after in itertools.pairwise(rounds):
        for episode in list(after.dataset)[len(before.dataset) :]:
            agent = before.policy.for_execution()
            said = np.array([agent.predict(row[None])[0] for row in episode.observations[:-1]])
            np.testing.assert_array_equal(episode.actions, said)
            assert (episode.driver == Driver.POLICY).all()


def test_a_trained_policy_is_not_cloned_again(demos):
    trained = train(shape(), demos, FEW)
    rounds = list(told(demos, policy=trained))
    assert digest(rounds[0].policy) == digest(trained)
    assert digest(rounds[1].policy) != digest(trained)


def test_demonstrations_and_policy_stay_as_they_are(demos, tmp_path):
    policy = train(shape(2), demos, FEW)
    before = files_of(demos.path), digest(policy)
    list(told(demos, "ensemble", policy=policy, run=tmp_path / "run"))
    assert (files_of(demos.path), digest(policy)) == before


def test_what_is_collected_is_in_the_run_and_starts_follow_those_of_the_demonstrations(demos, tmp_path):
    last = list(told(demos, run=tmp_path / "run"))[-1]
    collected = Dataset.open(tmp_path / "run/data")
    assert [row.seed for row in collected.rows] == [3, 4, 5, 6, 7, 8]
    assert [row.content for row in last.dataset.rows] == [row.content for row in (*demos.rows, *collected.rows)]


def test_no_start_is_one_of_an_evaluation(tmp_path):
    demos = demonstrations(tmp_path / "late", 2, first=EVALUATION_SEED - 3)
    last = list(told(demos))[-1]
    assert all(row.seed < EVALUATION_SEED for row in last.dataset.rows)


def test_no_round_begins_where_a_demonstration_did(tmp_path):
    early, late = demonstrations(tmp_path / "early", 3), demonstrations(tmp_path / "late", 1, first=EVALUATION_SEED - 1)
    last = list(told(early.joined(late)))[-1]
    seeds = [row.seed for row in last.dataset.rows]
    assert seeds[4:7] == [3, 4, 5]
    assert len(set(seeds)) == len(seeds)


def test_progress_is_measured_alone_on_starts_that_serve_no_evaluation(demos):
    expert, labels = PointExpert(), 0
    for one in told(demos, config=replace(TWO, progress_starts=4), expert=expert):
        assert [trial.seed for trial in one.evaluation.trials] == list(range(PROGRESS_SEED, PROGRESS_SEED + 4))
        labels += one.entry.labels if one.number else 0
        assert expert.calls == labels, "progress asks nobody"
    assert [one.evaluation for one in told(demos)] == [None] * 3


def test_measuring_changes_nothing_of_what_is_learnt(demos, tmp_path):
    one = list(told(demos, config=replace(TWO, progress_starts=3)))[-1]
    two = list(told(demos))[-1]
    elsewhere = list(told(demos, config=replace(TWO, progress_starts=3), world=PointWorld))[-1]
    assert digest(one.policy) == digest(two.policy) == digest(elsewhere.policy)
    assert one.evaluation.trials == elsewhere.evaluation.trials


def test_a_run_tells_its_rounds_in_its_metrics(demos, tmp_path):
    rounds = list(told(demos, config=replace(TWO, progress_starts=2), run=tmp_path / "run"))
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row, one in zip(rows, rounds, strict=True):
        assert {key: row[key] for key in one.entry.to_json()} == one.entry.to_json()
        assert row["success_alone"] == one.evaluation.success_rate
        assert row["starts_alone"] == 2


def test_without_a_folder_the_result_is_the_same_and_nothing_is_kept(demos, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    kept = [digest(one.policy) for one in told(demos, run=tmp_path / "run")]
    assert [digest(one.policy) for one in told(demos)] == kept
    assert not any((tmp_path / "temporary").iterdir())


def test_a_watcher_sees_each_episode_once_it_is_durable(demos, tmp_path):
    seen = []

    class Watcher:
        def on_phase(self, round, phase, total):
            seen.append((round, phase, total))

        def on_episode(self, episode):
            last = Dataset.open(tmp_path / "run/data")[-1]
            assert (last.seed, len(last)) == (episode.seed, len(episode))
            seen.append(episode.seed)

        def on_training(self, log):
            seen.append(log.step)

    list(told(demos, config=replace(TWO, rounds=1, progress_starts=2), run=tmp_path / "run", watcher=Watcher()))
    training, measuring = [(0, "training", 20), 10, 20], [(0, "measuring", 2)]
    collecting = [(1, "fitting the gate", 1), (1, "collecting", 3), 3, 4, 5]
    assert seen == [*training, *measuring, *collecting, (1, "training", 20), 10, 20, (1, "measuring", 2)]


def test_the_world_is_left_open_for_its_owner(demos, monkeypatch):
    env, closed = PointWorld(), []
    monkeypatch.setattr(env, "close", lambda: closed.append(True))
    list(told(demos, config=replace(TWO, progress_starts=2), env=env))
    assert not closed


def test_the_cap_of_the_config_lets_the_expert_drive(demos):
    last = list(told(demos, config=replace(TWO, cap=1e-6), gate=Script(".")))[-1]
    assert (last.entry.labels, last.entry.expert_steps) == (last.entry.steps, last.entry.steps)


def test_episodes_end_where_the_config_says(demos):
    last = list(told(demos, config=replace(TWO, max_steps=4)))[-1]
    assert last.entry.steps == 12


def test_a_round_in_which_nobody_was_asked_is_trained_all_the_same(demos):
    """Held out or not, an episode without a label is history and no obstacle."""
    for seed in range(4):
        last = list(told(demos, gate=Script("."), recipe=replace(FEW, seed=seed)))[-1]
        assert last.entry.labels == 0


# ---- R1 and R2 ----


@pytest.mark.parametrize("name", TRIED)
def test_the_same_seeds_give_the_same_bytes(demos, tmp_path, name, short_lessons):
    """Promise R1."""
    for run in ("one", "two"):
        torch.manual_seed(hash(run))
        np.random.seed(len(run) + ord(run[0]))  # noqa: NPY002
        list(told(demos, name, run=tmp_path / run))
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")


def test_another_seed_gives_other_bytes(demos):
    one, two = (list(told(demos, recipe=replace(FEW, seed=seed)))[-1] for seed in (0, 1))
    assert digest(one.policy) != digest(two.policy)
    assert one.dataset.fingerprint != two.dataset.fingerprint


class Interrupts:
    """A watcher that ends everything at its n-th sight."""

    def __init__(self, at):
        self.left = at

    def _count(self, *_):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    on_phase = on_episode = on_training = _count


@pytest.mark.parametrize("name", TRIED)
def test_an_interrupted_run_resumes_to_the_same_bytes(demos, tmp_path, name, short_lessons):
    """Whatever a gate has learnt within its round is learnt again from what is on the disk."""
    config = replace(TWO, progress_starts=2)
    list(told(demos, name, config, run=tmp_path / "whole"))
    for at in (8, 16):  # in the collecting of each round
        run = tmp_path / f"at-{at}"
        with pytest.raises(KeyboardInterrupt):
            list(told(demos, name, config, run=run, watcher=Interrupts(at)))
        rounds = list(told(demos, name, config, run=run, resume=True))
        assert outcome(run) == outcome(tmp_path / "whole")
        assert [one.number for one in rounds] == [0, 1, 2]
        assert [row["step"] for row in read_metrics(run)] == [0, 1, 2]


_CHILD = """
import sys
from tests.interactive.points import PointExpert, PointWorld, shape
from tests.interactive.test_dagger import FEW, KILLED
from understudy.dataset import Dataset
from understudy.interactive import ThriftyGate, dagger, risk
risk._STEPS = 50

class Watcher:
    def on_phase(self, round, phase, total):
        print(phase, flush=True)
    def on_episode(self, episode):
        print("episode", flush=True)
    def on_training(self, log):
        print("step", flush=True)

demos = Dataset.open(sys.argv[1])
print("ready", flush=True)
for one in dagger(PointWorld(), PointExpert(), ThriftyGate(budget=0.1), shape(2), demos, KILLED, FEW, run=sys.argv[2],
                  watcher=Watcher()):
    pass
"""
KILLED = DAggerConfig(rounds=2, episodes=4, progress_starts=3)
_SIGHTS = 1 + 2 * (1 + 2 + 1) + 2 * (2 + 4) + 4  # lines of the child: phases, episodes and measurements


def _killed(demos, run, generator):
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(demos.path), str(run)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        for _ in range(generator.randrange(_SIGHTS)):
            child.stdout.readline()
        time.sleep(generator.uniform(0, 0.02))
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, demos, kills, monkeypatch):
    """Promise R2: killed anywhere and resumed, a run ends with the weights and data of one that was not."""
    monkeypatch.setattr("understudy.interactive.risk._STEPS", 50)
    options = {"gate": ThriftyGate(budget=0.1), "policy": shape(2), "config": KILLED}
    list(told(demos, run=tmp_path / "whole", **options))
    generator, unfinished = random.Random(1), 0
    for kill in range(kills):
        run = tmp_path / f"killed-{kill}"
        _killed(demos, run, generator)
        unfinished += not (run / "policy").exists()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a crash left is told
            list(told(demos, run=run, resume=True, **options))
        assert outcome(run) == outcome(tmp_path / "whole")
    assert unfinished > kills * 0.6


class PowerCut(BaseException):
    pass


def test_an_episode_whose_save_was_cut_anywhere_is_collected_once(tmp_path, demos, monkeypatch):
    """Killed at every durable call of a round's collecting: the run resumes to the same bytes."""
    from understudy import durable

    config = replace(TWO, rounds=1, episodes=2)
    list(told(demos, config=config, run=tmp_path / "whole"))
    calls = ("_os_write", "_os_rename")
    originals = {name: getattr(durable, name) for name in calls}

    class Begins:
        """Counts the calls once the collecting has begun, and then cuts the power at one of them."""

        def __init__(self, left):
            self.left, self.on = left, False

        def on_phase(self, round, phase, total):
            self.on = phase == "collecting"

        def on_episode(self, episode):
            pass

        on_training = on_episode

        def calling(self, original):
            def call(*arguments):
                if self.on:
                    if self.left <= 0:
                        raise PowerCut
                    self.left -= 1
                return original(*arguments)

            return call

    for survivors in range(100):
        run = tmp_path / f"cut-{survivors}"
        watcher = Begins(survivors)
        for name in calls:
            monkeypatch.setattr(durable, name, watcher.calling(originals[name]))
        # After a cut nothing is tidied up: a process that is gone takes nothing back.
        monkeypatch.setattr("understudy.dataset.folder.Folder._take_back", lambda *_: None)
        cut = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                list(told(demos, config=config, run=run, watcher=watcher))
            except PowerCut:
                cut = True
            monkeypatch.undo()
            monkeypatch.setattr(durable, "_os_fsync", lambda descriptor: None)
            list(told(demos, config=config, run=run, resume=True))
        assert outcome(run) == outcome(tmp_path / "whole"), survivors
        if not cut:
            break
    assert 5 < survivors < 99


def test_a_caller_who_stops_after_a_round_can_go_on_later(demos, tmp_path):
    list(told(demos, run=tmp_path / "whole"))
    for stopped in (0, 1):
        run = tmp_path / f"stopped-{stopped}"
        rounds = told(demos, run=run)
        for one in rounds:
            if one.number == stopped:
                break
        rounds.close()
        assert not (run / "policy").exists()
        assert digest(load(run / f"rounds/{stopped:02d}")) == digest(one.policy)
        assert len(Dataset.open(run / "data")) == 3 * stopped
        list(told(demos, run=run, resume=True))
        assert outcome(run) == outcome(tmp_path / "whole")


def test_a_finished_run_is_told_again_and_not_changed(demos, tmp_path):
    first = list(told(demos, config=replace(TWO, progress_starts=2), run=tmp_path / "run"))
    before = files_of(tmp_path / "run")
    expert = PointExpert()
    again = list(told(demos, config=replace(TWO, progress_starts=2), run=tmp_path / "run", resume=True, expert=expert))
    assert expert.calls == 0
    for one, two in zip(first, again, strict=True):
        assert digest(one.policy) == digest(two.policy)
        assert (one.entry, one.evaluation) == (two.entry, two.evaluation)
    assert {path: data for path, data in files_of(tmp_path / "run").items() if path.name != ".lock"} == {
        path: data for path, data in before.items() if path.name != ".lock"
    }


# ---- what is refused ----

CHANGES = {
    "another gate": (lambda demos: {"name": "ensemble"}, r"gate\.\w+"),
    "another option": (lambda demos: {"gate": DAggerGate("constant", beta=0.1)}, "gate.schedule|gate.beta"),
    "more rounds": (lambda demos: {"config": replace(TWO, rounds=3)}, "dagger.rounds"),
    "more episodes": (lambda demos: {"config": replace(TWO, episodes=4)}, "dagger.episodes"),
    "a cap": (lambda demos: {"config": replace(TWO, cap=0.5)}, "dagger.cap"),
    "another recipe": (lambda demos: {"recipe": replace(FEW, steps=30)}, "train.steps"),
    "another shape": (
        lambda demos: {"policy": FeedForward(demos.spec, replace(SHAPE, hidden=(16,)))},
        "policy.config.hidden|policy.hidden",
    ),
    "a trained policy": (lambda demos: {"policy": train(shape(), demos, FEW)}, "start_fingerprint"),
    "other notes": (lambda demos: {"notes": {"expert": "another"}}, "expert"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_resumes_only_as_it_was_begun(demos, tmp_path, change):
    next(told(demos, run=tmp_path / "run"))
    options, said = CHANGES[change]
    before = files_of(tmp_path / "run")
    with pytest.raises(
        ConfigError, match=rf"begun with ({said}) = .*; resume with the same|was begun \({said}\); put"
    ) as raised:
        next(told(demos, run=tmp_path / "run", resume=True, **options(demos)))
    assert "\n" not in str(raised.value)
    assert files_of(tmp_path / "run") == before


def test_a_run_resumes_only_with_its_demonstrations_and_its_first_policy(demos, tmp_path):
    policy = train(shape(), demos, FEW)
    next(told(demos, policy=policy, run=tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"the data changed since|data_fingerprint"):
        next(told(demonstrations(tmp_path / "others", 4), policy=policy, run=tmp_path / "run", resume=True))
    other = train(shape(), demos, replace(FEW, seed=1))  # of the same shape and on the same data
    with pytest.raises(ConfigError, match="start_fingerprint"):
        next(told(demos, policy=other, run=tmp_path / "run", resume=True))


def test_a_device_that_is_not_here_is_refused_before_the_expert_is_asked(demos, tmp_path):
    with pytest.raises(ConfigError, match="device is 'foo'; accepted: auto, cpu"):
        next(told(demos, recipe=replace(FEW, device="foo"), run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_damaged_config_is_named_and_nothing_is_written(demos, tmp_path):
    next(told(demos, run=tmp_path / "run"))
    for damage, said in (("{", "cannot be read"), ("[1]", "holds no JSON object")):
        (tmp_path / "run/config.json").write_text(damage)
        before = files_of(tmp_path / "run")
        with pytest.raises(ConfigError, match=rf"config\.json {said}"):
            next(told(demos, run=tmp_path / "run", resume=True))
        assert files_of(tmp_path / "run") == before


def test_a_run_is_never_overwritten(demos, tmp_path):
    next(told(demos, run=tmp_path / "run"))
    before = files_of(tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume"):
        next(told(demos, run=tmp_path / "run"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        next(told(demos, run=tmp_path / "mine", resume=True))
    assert files_of(tmp_path / "run") == before
    assert files_of(tmp_path / "mine") == {Path("thesis.txt"): b"precious"}


def test_two_processes_do_not_share_a_run(demos, tmp_path):
    rounds = told(demos, run=tmp_path / "run")
    next(rounds)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"another job works in .*run; wait for it or end it"):
        next(told(demos, run=tmp_path / "run", resume=True))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    rounds.close()
    next(told(demos, run=tmp_path / "run", resume=True))


class Answers(PointExpert):
    """Answers something else from its n-th episode on."""

    def __init__(self, answer, after):
        super().__init__()
        self.answer, self.left = answer, after

    def reset(self, seed):
        self.left -= 1

    def label(self, observation):
        return super().label(observation) if self.left >= 0 else self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "Answers answered nothing; label"),
        ([0.0, np.nan], "Answers answered nan for action channel 1"),
        ([np.inf, 0.0], "Answers answered inf for action channel 0"),
        ([0.0, 0.0, 0.0], "Answers answered 3 numbers; an action of this world has 2"),
        ([], "Answers answered 0 numbers"),
    ],
)
def test_an_expert_who_fails_costs_no_episode_that_was_collected(demos, tmp_path, answer, said):
    with pytest.raises(ExpertError, match=said) as raised:
        list(told(demos, run=tmp_path / "run", expert=Answers(answer, after=4)))
    assert "\n" not in str(raised.value)
    collected = Dataset.open(tmp_path / "run/data")
    assert [row.seed for row in collected.rows] == [3, 4, 5, 6]
    assert all(episode.labelled.all() for episode in collected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interrupted episode is told
        list(told(demos, run=tmp_path / "run", resume=True))
    list(told(demos, run=tmp_path / "whole"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("name", ["ensemble", "thrifty"])
def test_a_gate_without_its_ensemble_is_refused_before_anything_is_done(demos, tmp_path, name):
    with pytest.raises(ConfigError, match="needs an ensemble"):
        next(told(demos, name, policy=shape(), run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_demonstrations_of_another_task_are_refused_by_name(tmp_path):
    class Other(PointWorld):
        observation_channels = (Channel("x", "m", -2, 2), Channel("z", "m", -2, 2))

    demos = demonstrations(tmp_path / "others", world=Other())
    with pytest.raises(SpecMismatch, match=r"'z' against 'y'|'y' against 'z'"):
        next(told(demos, run=tmp_path / "run"))
    with pytest.raises(SpecMismatch, match=r"'z' against 'y'|'y' against 'z'"):
        next(told(demos, env=Other(), policy=shape(), run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_twin_of_the_task_is_another_task(demos, tmp_path):
    class Twin(PointWorld):
        """The same channels."""

    with pytest.raises(SpecMismatch, match=r"does not fit .*demos: it is Twin against PointWorld"):
        next(told(demos, env=Twin(), run=tmp_path / "run"))
    with pytest.raises(SpecMismatch, match="does not fit the policy: it is Twin against PointWorld"):
        next(told(demos.with_spec(spec_of(Twin())), env=Twin(), run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_no_demonstrations_are_refused_in_one_line(tmp_path):
    empty = Dataset.create(tmp_path / "empty", spec_of(PointWorld()))
    with pytest.raises(DataError, match=r"no step can be trained on|no episode"):
        next(told(empty))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"rounds": 0}, "rounds is 0; accepted: whole numbers, 1 or more"),
        ({"rounds": 1.5}, "rounds is 1.5; accepted: whole numbers"),
        ({"episodes": 0}, "episodes is 0; accepted: whole numbers, 1 or more"),
        ({"cap": 0}, "cap is 0; accepted: above 0"),
        ({"cap": float("nan")}, "cap is nan; accepted: above 0"),
        ({"max_steps": 0}, "max_steps is 0; accepted: whole numbers, 1 or more"),
        ({"after_success": -1}, "after_success is -1; accepted: whole numbers, 0 or more"),
        ({"progress_starts": -1}, "progress_starts is -1; accepted: whole numbers, 0 or more"),
    ],
)
def test_rounds_that_cannot_be_are_refused(bad, said):
    with pytest.raises(ConfigError) as raised:
        DAggerConfig(**bad)
    assert str(raised.value).startswith(said)


def test_nothing_happens_before_the_first_round_is_asked_for(demos, tmp_path):
    told(demos, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_person_thinks_while_watching_is_in_no_ledger(demos):
    person, labels, steps = Person(), 0, 0
    for one in told(demos, "hg", expert=person):
        if one.number:
            labels, steps = labels + one.entry.labels, steps + one.entry.steps
    assert len(person.watched) == steps
    assert person.calls == labels > 0


# ---- the world decides ----


class Endless(PointWorld):
    """Never ends, and names no limit of steps; whoever measures in it for ever is stopped."""

    def __init__(self):
        super().__init__(length=10**9)
        self.longest = 0

    def step(self, action):
        seen, reward, _, _, info = super().step(action)
        self.longest = max(self.longest, self._steps)
        assert self.longest < 1000, "an episode goes on for ever"
        return seen, reward, False, False, info


def test_a_world_without_a_limit_is_measured_within_that_of_the_rounds(demos):
    world = Endless()
    spec = spec_of(world)
    config = replace(TWO, max_steps=30, progress_starts=2)
    list(told(demos.with_spec(spec), policy=shape(spec=spec), env=world, config=config))
    assert world.longest == 30


def test_policies_of_the_rounds_are_of_their_world_though_the_demonstrations_say_nothing(demos, tmp_path):
    for number, episode in enumerate(demos):
        np.savez(tmp_path / f"{number}.npz", observations=episode.observations[:-1], actions=episode.actions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = Dataset.open(tmp_path)
    assert not bare.spec.is_named
    for one in told(bare, "safe", policy=FeedForward.for_data(bare, SHAPE)):
        assert one.policy.spec == spec_of(PointWorld())


def test_warm_weights_have_no_episode_that_is_held_out(demos):
    with pytest.raises(ConfigError, match=r"held_out is 0\.2, but warm weights"):
        next(told(demos, config=replace(TWO, warm=True), recipe=replace(FEW, held_out=0.2)))
