import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_worlds import TinyWorld

from tests.reinforcement.reach import (
    CLONED,
    FEW,
    QUICK,
    SHAPE,
    UPDATES,
    PaysNaN,
    ReachWorld,
    Unpaid,
    breaking,
    clone,
    demonstrations,
    fresh,
)
from understudy.checkpoint import load
from understudy.dataset import Dataset
from understudy.episode import FAILURE
from understudy.errors import ConfigError, DataError, PolicyError, SpecMismatch, TrainingDiverged, WorldError
from understudy.evaluate import EVALUATION_SEED, evaluate
from understudy.network_shape import FeedForwardConfig
from understudy.policies import Ensemble, FeedForward
from understudy.recipe import FinetuneConfig, TrainConfig
from understudy.reinforcement import NPG, PPO, DemoStarts, DemoTerm, DistanceTerm, finetune
from understudy.reinforcement.actor import Actor
from understudy.reinforcement.demos import DemoRows
from understudy.reinforcement.on_policy import OnPolicyLearner
from understudy.reinforcement.starts import start_seed
from understudy.runs import read_metrics
from understudy.spec import Channel, spec_of
from understudy.statistics import ChannelStatistics
from understudy.trainer import train

TUNING = 500_000


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("demos") / "data")


@pytest.fixture(scope="module")
def start(demos):
    return clone(demos)


def digest(policy):
    return hashlib.sha256(b"".join(array.tobytes() for _, array in sorted(policy.arrays().items()))).hexdigest()


def outcome(run):
    """All that a run promises to be a function of its seeds."""
    rows = [{key: value for key, value in row.items() if not key.endswith("_s")} for row in read_metrics(run)]
    weights = hashlib.sha256((run / "policy" / "weights.safetensors").read_bytes()).hexdigest()
    return {"weights": weights, "rows": rows, "judged": (run / "judged.json").read_text()}


class Seen:
    """A watcher that keeps what it sees, and may end everything at its n-th sight."""

    def __init__(self, interrupt_at=None):
        self.phases, self.episodes, self._left = [], [], interrupt_at

    def _count(self):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt

    def on_phase(self, phase, episodes):
        self._count()
        self.phases.append((phase, episodes))

    def on_episode(self, episode):
        self._count()
        self.episodes.append(episode)


# ---- it learns ----


@pytest.mark.parametrize("name", UPDATES)
def test_it_solves_a_task_from_the_reward_alone(name):
    *_, last = finetune(fresh(), ReachWorld(), UPDATES[name], config=replace(QUICK, steps=11_000))
    assert evaluate(ReachWorld, last.policy, episodes=40, seed=TUNING).success_rate >= 0.9


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("term", [DemoTerm, DistanceTerm])
def test_demonstrations_and_a_reward_solve_what_the_demonstrations_do_not(demos, start, name, term):
    assert evaluate(ReachWorld, start, episodes=40, seed=TUNING).success_rate < 0.5
    config = replace(QUICK, steps=8_000)
    *_, last = finetune(start, ReachWorld(), UPDATES[name], demo_term=term(demos), config=config)
    assert evaluate(ReachWorld, last.policy, episodes=40, seed=TUNING).success_rate >= 0.9


def test_an_ensemble_is_tuned_as_one(demos):
    ensemble = clone(demos, members=3)
    *_, last = finetune(ensemble, ReachWorld(), config=replace(QUICK, steps=8_000))
    assert last.policy.kind == "ensemble"
    assert evaluate(ReachWorld, last.policy, episodes=40, seed=TUNING).success_rate >= 0.9


def test_a_residual_is_tuned_and_the_policy_stays_frozen(demos, start):
    config = replace(QUICK, steps=14_000, tune="residual", deviation_factor=0.5)
    *_, last = finetune(start, ReachWorld(), UPDATES["npg"], config=config)
    assert evaluate(ReachWorld, last.policy, episodes=40, seed=TUNING).success_rate >= 0.9
    kept = last.policy.arrays()
    assert all(np.array_equal(kept[name], array) for name, array in start.arrays().items())
    with pytest.raises(ConfigError, match="tune is 'residual', which needs a trained policy"):
        next(finetune(fresh(), ReachWorld(), config=config))


# ---- what a run is ----


def test_every_step_of_the_world_is_counted_and_the_steps_are_a_limit(start, demos):
    seen = Seen()
    starts = DemoStarts(demos)
    logs = list(finetune(start, ReachWorld(), config=FEW, starts=starts, watcher=seen))
    spent = sum(len(episode) for episode in seen.episodes) + demos.steps
    assert logs[-1].step == spent
    assert spent <= FEW.steps
    assert (
        FEW.steps - spent < FEW.episodes * ReachWorld.MAXIMUM_STEPS + 2 * FEW.judge_episodes * ReachWorld.MAXIMUM_STEPS
    )


def test_training_and_judging_use_no_start_of_an_evaluation(start):
    seen = Seen()
    list(finetune(start, ReachWorld(), config=FEW, watcher=seen))
    collected = sum(count for phase, count in seen.phases if phase == "collecting")
    judged = [count for phase, count in seen.phases if phase != "collecting"]
    assert len(judged) == 4
    seeds = [episode.seed for episode in seen.episodes]
    assert max(seeds) < EVALUATION_SEED
    assert seeds[:collected] == [start_seed(FEW.seed, index) for index in range(collected)]
    trials = [seeds[collected + 2 * index : collected + 2 * index + 2] for index in range(len(judged))]
    assert all(trial == trials[0] for trial in trials), "all candidates on the same starts"
    assert not set(trials[0]) & set(seeds[:collected]), "that nobody has seen before"


def test_the_deployed_policy_is_the_best_of_those_tried(start, tmp_path):
    *_, last = finetune(start, ReachWorld(), config=replace(FEW, judge_episodes=3), run=tmp_path / "run")
    trials = last.verdict.trials
    assert {row["acts"] for row in trials} == {"mean", "sampled"}
    best = max(trials, key=lambda row: (row["success"], row["mean_return"]))
    assert (last.verdict.acts, last.verdict.which, last.verdict.iteration) == (
        best["acts"],
        best["which"],
        best["iteration"],
    )
    kept = load(tmp_path / "run")
    assert digest(kept) == digest(last.policy)
    assert kept.acts == last.policy.acts == best["acts"]
    assert str(last.verdict) in kept.notes
    assert json.loads((tmp_path / "run" / "judged.json").read_text())["acts"] == best["acts"]


def test_the_best_policy_is_known_by_its_training_batches(start):
    """Of the batches, the one whose mean over the last ones is the highest; its policy had learnt from those before."""
    logs = list(finetune(start, ReachWorld(), UPDATES["npg"], config=replace(FEW, steps=1500, best_window=2)))
    scores = [(log.numbers["success"], log.numbers["mean_return"]) for log in logs[:-1]]
    means = [np.mean(scores[max(0, index - 1) : index + 1], axis=0).tolist() for index in range(len(scores))]
    best = max(range(len(means)), key=lambda index: means[index])
    assert {row["iteration"] for row in logs[-1].verdict.trials if row["which"] == "best"} == {best}


def test_the_average_of_the_iterates_is_a_candidate_that_is_asked_for(start):
    config, seen = replace(FEW, average=0.6), Seen()
    logs = list(finetune(start, ReachWorld(), config=config, watcher=seen))
    trials = logs[-1].verdict.trials
    assert (trials[-1]["which"], trials[-1]["acts"]) == ("average", "mean")
    assert {row["which"] for row in trials[:-1]} <= {"best", "last"}
    literal, learner = None, OnPolicyLearner(start, spec_of(ReachWorld()), NPG(), None, config)
    left = iter(seen.episodes)
    for log in logs[:-1]:
        weights = log.policy.arrays()
        literal = weights if literal is None else {name: 0.6 * literal[name] + 0.4 * weights[name] for name in weights}
        learner.learn([next(left) for _ in range(log.numbers["episodes"])])
    average = learner.candidates()[-1].policy.arrays()
    for name, array in literal.items():
        np.testing.assert_allclose(average[name], array, rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="average needs a trained policy"):
        next(finetune(fresh(), ReachWorld(), config=config))


def test_without_a_trial_the_mean_of_the_best_is_deployed(start):
    *_, last = finetune(start, ReachWorld(), config=replace(FEW, judge_episodes=0))
    assert (last.verdict.which, last.verdict.acts, last.verdict.trials) == ("best", "mean", ())


def test_without_steps_the_policy_is_the_result(demos, start, tmp_path):
    """Cloning alone, in the same command."""
    (log,) = finetune(start, ReachWorld(), demo_term=DemoTerm(demos), steps=0, run=tmp_path / "run")
    assert digest(log.policy) == digest(load(tmp_path / "run")) == digest(start)
    with pytest.raises(ConfigError, match="steps is 0 and the policy was never trained"):
        list(finetune(fresh(), ReachWorld(), steps=0))


def test_the_policy_and_the_demonstrations_stay_as_they_are(demos, start):
    before = digest(start), demos.fingerprint
    list(finetune(start, ReachWorld(), demo_term=DemoTerm(demos), config=FEW))
    assert (digest(start), demos.fingerprint) == before


def test_each_log_has_the_policy_of_its_moment(start):
    logs = list(finetune(start, ReachWorld(), config=FEW))
    assert len({digest(log.policy) for log in logs[:-1]}) == len(logs) - 1
    assert [log.iteration for log in logs[:-1]] == list(range(len(logs) - 1))
    assert all(log.step == 60 * (log.iteration + 1) for log in logs[:-1])
    assert "success" in str(logs[0])
    assert "deployed" in str(logs[-1])


def test_a_fresh_policy_is_scaled_by_what_it_sees():
    *_, last = finetune(fresh(), ReachWorld(), config=FEW)
    observations, actions = last.policy.statistics
    assert 0.3 < observations.deviation.min() < observations.deviation.max() < 1.2
    np.testing.assert_array_equal(actions.scale, [1, 1])
    assert fresh().statistics is None


def test_a_cloned_policy_keeps_its_scaling(start):
    *_, last = finetune(start, ReachWorld(), config=FEW)
    assert (last.policy.statistics[0].mean == start.statistics[0].mean).all()


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("term", [DemoTerm, DistanceTerm])
def test_with_lam0_of_0_a_run_is_plain_npg_or_ppo_bit_for_bit(demos, start, tmp_path, update, term):
    list(finetune(start, ReachWorld(), update, config=FEW, run=tmp_path / "plain"))
    list(finetune(start, ReachWorld(), update, config=FEW, demo_term=term(demos, lam0=0), run=tmp_path / "with"))
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "with")


def test_the_first_deviation_is_the_one_that_was_chosen(demos, start):
    def first(policy=start, term=None, **options):
        config = replace(FEW, **options)
        log = next(finetune(policy, ReachWorld(), NPG(step_size=1e-12), demo_term=term, config=config))
        return log.numbers["deviation"]

    assert first() == pytest.approx(1, rel=1e-3)
    assert first(deviation_factor=0.3) == pytest.approx(0.3, rel=1e-3)
    shown = np.concatenate([episode.observations[:-1] for episode in demos])
    said = start.predict_batch(torch.from_numpy(shown[:, None]))[:, 0].detach().numpy()
    wanted = np.concatenate([episode.actions for episode in demos])
    residual = np.sqrt((((wanted - said) / start.statistics[1].scale) ** 2).mean(0)).mean()
    assert first(deviation="residual", term=DemoTerm(demos)) == pytest.approx(residual, rel=1e-2)
    assert first(deviation_factor=1e-9, least_deviation=0.05) == pytest.approx(
        (0.05 / start.statistics[1].scale).mean(), rel=1e-3
    )
    shape = replace(SHAPE, head="gaussian")
    gaussian = train(FeedForward(spec_of(ReachWorld()), shape), demos, CLONED)
    own = np.exp(gaussian.arrays()["head.log_deviation"]).mean()
    assert first(gaussian, deviation="own") == pytest.approx(own, rel=1e-3)
    assert first(deviation="range", deviation_factor=0.06) == pytest.approx(
        (0.06 / start.statistics[1].scale).mean(), rel=1e-3
    )
    with pytest.raises(ConfigError, match="deviation is 'residual', which needs demonstrations"):
        first(deviation="residual")


def test_a_caller_who_stops_can_go_on_later(start, tmp_path):
    list(finetune(start, ReachWorld(), config=FEW, run=tmp_path / "whole"))
    for stopped in (0, 2):
        run = tmp_path / f"stopped-{stopped}"
        logs = finetune(start, ReachWorld(), config=FEW, run=run)
        for log in logs:
            if log.iteration == stopped:
                break
        logs.close()
        assert not (run / "policy").exists()
        list(finetune(start, ReachWorld(), config=FEW, run=run, resume=True))
        assert outcome(run) == outcome(tmp_path / "whole")


def test_a_finished_run_is_told_again_and_not_changed(start, tmp_path):
    *_, first = finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run")
    seen = Seen()
    (again,) = finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run", resume=True, watcher=seen)
    assert not seen.episodes
    assert digest(again.policy) == digest(first.policy)
    assert (again.verdict, again.step) == (first.verdict, first.step)


# ---- R1 and R2 ----


@pytest.mark.parametrize("name", UPDATES)
def test_the_same_seeds_give_the_same_bytes(demos, start, tmp_path, name):
    """Promise R1."""
    for run in ("one", "two"):
        torch.manual_seed(len(run) + ord(run[0]))
        np.random.seed(len(run) + ord(run[0]))  # noqa: NPY002
        list(finetune(start, ReachWorld(), UPDATES[name], demo_term=DemoTerm(demos), config=FEW, run=tmp_path / run))
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    other = list(finetune(start, ReachWorld(), UPDATES[name], demo_term=DemoTerm(demos), config=replace(FEW, seed=4)))
    assert digest(other[-1].policy) != digest(load(tmp_path / "one"))


@pytest.mark.parametrize("policy", ["cloned", "fresh"])
@pytest.mark.parametrize("name", UPDATES)
def test_an_interrupted_run_resumes_to_the_same_bytes(demos, start, tmp_path, name, policy):
    options = {"demo_term": DemoTerm(demos), "starts": DemoStarts(demos), "config": FEW}
    options = options if policy == "cloned" else {"config": FEW}
    begin = start if policy == "cloned" else fresh()
    list(finetune(begin, ReachWorld(), UPDATES[name], run=tmp_path / "whole", **options))
    for at in (3, 14, 28):  # in the first batch, in the third, and in the judging or the last one
        run = tmp_path / f"at-{at}"
        with pytest.raises(KeyboardInterrupt):
            list(finetune(begin, ReachWorld(), UPDATES[name], run=run, watcher=Seen(at), **options))
        list(finetune(begin, ReachWorld(), UPDATES[name], run=run, resume=True, **options))
        assert outcome(run) == outcome(tmp_path / "whole")


_CHILD = """
import sys
from tests.reinforcement.reach import FEW, UPDATES, ReachWorld
from understudy.checkpoint import load
from understudy.dataset import Dataset
from understudy.reinforcement import DemoTerm, finetune

class Watcher:
    def on_phase(self, phase, episodes):
        print(phase, flush=True)
    def on_episode(self, episode):
        print("episode", flush=True)

start, demos = load(sys.argv[1]), Dataset.open(sys.argv[2])
print("ready", flush=True)
for log in finetune(start, ReachWorld(), UPDATES["ppo"], demo_term=DemoTerm(demos), config=FEW, run=sys.argv[3],
                    watcher=Watcher()):
    print("batch", flush=True)
"""
_SIGHTS = 5 * (1 + 5 + 1) + 4 * 3


def test_two_jobs_do_not_share_a_run(tmp_path, demos, start):
    first = finetune(start, ReachWorld(), run=tmp_path / "run", config=FEW)
    next(first)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"another job works in .*run; wait for it or end it"):
        next(finetune(start, ReachWorld(), run=tmp_path / "run", config=FEW, resume=True))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    first.close()
    next(finetune(start, ReachWorld(), run=tmp_path / "run", config=FEW, resume=True))


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, demos, start, kills):
    """Promise R2: killed anywhere and resumed, a run ends with the bytes of one that was not."""
    from understudy.checkpoint import save

    save(start, tmp_path / "start")
    options = {"demo_term": DemoTerm(demos), "config": FEW}
    list(finetune(start, ReachWorld(), UPDATES["ppo"], run=tmp_path / "whole", **options))
    generator, unfinished = random.Random(1), 0
    for kill in range(kills):
        run = tmp_path / f"killed-{kill}"
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "start"), str(demos.path), str(run)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        with child:
            assert child.stdout.readline() == "ready\n"
            for _ in range(generator.randrange(_SIGHTS)):
                child.stdout.readline()
            time.sleep(generator.uniform(0, 0.02))
            os.kill(child.pid, signal.SIGKILL)
        unfinished += not (run / "policy").exists()
        list(finetune(start, ReachWorld(), UPDATES["ppo"], run=run, resume=True, **options))
        assert outcome(run) == outcome(tmp_path / "whole")
    assert unfinished > kills * 0.6


class PowerCut(BaseException):
    pass


def test_a_run_cut_off_in_any_write_resumes_to_the_same_bytes(tmp_path, start, monkeypatch):
    """Killed at every durable call of a short run, those of the checkpoint and of the last save included."""
    from understudy import durable

    config = replace(FEW, steps=210, judge_episodes=1)
    list(finetune(start, ReachWorld(), config=config, run=tmp_path / "whole"))
    calls = ("_os_write", "_os_rename")
    originals = {name: getattr(durable, name) for name in calls}
    for survivors in range(200):
        run, left = tmp_path / f"cut-{survivors}", [survivors]

        def calling(original, left=left):
            def call(*arguments):
                if left[0] <= 0:
                    raise PowerCut
                left[0] -= 1
                return original(*arguments)

            return call

        for name in calls:
            monkeypatch.setattr(durable, name, calling(originals[name]))
        cut = False
        try:
            list(finetune(start, ReachWorld(), config=config, run=run))
        except PowerCut:
            cut = True
        for name in calls:
            monkeypatch.setattr(durable, name, originals[name])
        list(finetune(start, ReachWorld(), config=config, run=run, resume=True))
        assert outcome(run) == outcome(tmp_path / "whole"), survivors
        if not cut:
            break
    assert 10 < survivors < 199


# ---- workers ----


def test_the_result_does_not_depend_on_the_number_of_workers(demos, start, tmp_path):
    """Promise R7, of training: 1, 2 and 4 processes collect the same episodes and learn the same bytes."""
    options = {"demo_term": DemoTerm(demos), "starts": DemoStarts(demos), "config": FEW}
    for workers in (1, 2, 4):
        list(finetune(start, ReachWorld, run=tmp_path / str(workers), workers=workers, **options))
    assert outcome(tmp_path / "1") == outcome(tmp_path / "2") == outcome(tmp_path / "4")


@pytest.mark.parametrize("kind", ["kill", "stop"])
def test_a_broken_worker_is_named_and_replaced_and_nothing_is_lost(start, tmp_path, kind):
    world = breaking(kind, str(tmp_path / "mark"))
    list(finetune(start, ReachWorld, config=FEW, run=tmp_path / "whole"))
    said = r"worker \d \(pid \d+, seed \d+\) (died with exit code -9|hung: no sign of life for 4.5 s).*another worker"
    with pytest.warns(UserWarning, match=said):
        list(finetune(start, world, config=FEW, run=tmp_path / "broken", workers=2))
    assert (tmp_path / "mark").exists()
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_one_world_cannot_be_shared(start):
    with pytest.raises(ConfigError, match="one world cannot be shared by 2 workers; give its id"):
        next(finetune(start, ReachWorld(), config=FEW, workers=2))


def test_the_world_is_left_open_for_its_owner(start):
    class Closing(ReachWorld):
        closed = False

        def close(self):
            self.closed = True

    env = Closing()
    env.action_channels = ReachWorld.action_channels
    list(finetune(fresh_for(env), env, config=FEW))
    assert not env.closed


def fresh_for(env):
    return FeedForward(spec_of(env), SHAPE).initialized(0)


# ---- what is refused ----


def test_a_world_that_pays_nothing_is_refused_in_one_line(start, tmp_path):
    """After three batches, since a reward may come late; with demonstrations after ten."""
    world = Unpaid()
    with pytest.raises(ConfigError, match="Unpaid paid 0 at every step of the first 3 batches") as raised:
        list(finetune(fresh_for(world), world, config=replace(FEW, steps=2000)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("update", [NPG(step_size=0.2), PPO()])
def test_batches_that_paid_nothing_leave_a_policy_as_it_is(start, demos, update):
    """A value function that has learnt nothing says nothing, however its first weights answer."""
    term = DemoTerm(demos, lam0=0.0)  # with demonstrations ten batches are borne
    told = finetune(start, ReachWorld("none"), update, config=replace(FEW, steps=2000), demo_term=term)
    logs = list(itertools.islice(told, 9))
    with pytest.raises(ConfigError, match="paid 0 at every step of the first 10 batches"):
        next(told)
    assert {log.numbers["kl"] for log in logs} == {0.0}
    assert len({digest(log.policy) for log in logs}) == 1


class InUnits(ReachWorld):
    """Whose reward is in another unit."""

    def __init__(self, unit=1.0):
        super().__init__()
        self._unit = unit

    def step(self, action):
        seen, reward, *rest = super().step(action)
        return seen, self._unit * reward, *rest


@pytest.mark.parametrize(("targets", "unit"), [("returns", 1e-6), ("gae", 1e-3), ("gae", 1e-6)])
def test_the_unit_of_the_reward_decides_nothing(targets, unit):
    config = replace(QUICK, steps=6_000, value_targets=targets, judge_episodes=0)
    *_, last = finetune(fresh_for(InUnits()), InUnits(unit), NPG(step_size=0.1), config=config)
    assert evaluate(InUnits, last.policy, episodes=40, seed=TUNING).success_rate > 0.8


def test_a_price_for_each_step_is_a_reward_where_the_task_can_end():
    class Priced(ReachWorld):
        """Every step costs the same, to the right of the origin it may be over."""

        over = True

        def step(self, action):
            seen, _, _, *rest = super().step(action)
            return seen, -1.0, self.over and seen[0] > 0, *rest

    world, config = Priced(), replace(FEW, steps=1200, episodes=10)
    *_, last = finetune(fresh_for(world), world, config=config)
    assert last.verdict is not None
    world.over = False
    with pytest.raises(ConfigError, match="paid -1 at every step of the first 3 batches"):
        list(finetune(fresh_for(world), world, config=config))


def test_a_value_function_that_is_no_longer_finite_stops_the_run(start):
    config = replace(FEW, steps=1200, value_learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="the value function is no longer finite"):
        list(finetune(start, ReachWorld, config=config))


@pytest.mark.parametrize(
    ("update", "option"), [(NPG(step_size=1e30), "step_size"), (PPO(learning_rate=1e9), "learning")]
)
def test_a_step_that_leaves_nothing_of_the_policy_is_said_to_diverge(start, update, option):
    with pytest.raises(
        TrainingDiverged, match=rf"(?s)one batch moved the policy by a KL of .*{option}|no longer finite"
    ):
        list(finetune(start, ReachWorld, update, config=FEW))


def test_episodes_that_begin_inside_a_demonstration_do_not_say_how_good_the_policy_is(start, demos):
    class Scored(ReachWorld):
        """Pays 1 a step where it was told where to begin, and 0 elsewhere."""

        def reset(self, *, seed=None, options=None):
            self._told = bool(options and options.get("initial_state"))
            return super().reset(seed=seed, options=options)

        def step(self, action):
            seen, reward, *rest = super().step(action)
            return seen, float(self._told) + 1e-6 * reward, *rest

    Scored.__name__ = "ReachWorld"  # its demonstrations are these
    logs = finetune(start, Scored, config=replace(FEW, steps=1200, episodes=20), starts=DemoStarts(demos, share=0.5))
    seen = [log for log in logs if log.verdict is None]
    assert seen
    assert all(abs(log.numbers["mean_return"]) < 0.01 for log in seen)


def test_a_reward_that_is_no_number_stops_with_its_step(start):
    class Broken(ReachWorld):
        def step(self, action):
            seen, _, *rest = super().step(action)
            return seen, self.pays, *rest

    for pays in (float("nan"), float("inf"), 1e39, None, "much"):
        world = Broken()
        world.pays = pays
        with pytest.raises(WorldError, match=rf"the world gave a reward of {re.escape(str(pays))} at step 1") as raised:
            next(finetune(fresh_for(world), world, config=FEW))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_learnt_before_an_error_that_comes_again_can_be_deployed(start, tmp_path, workers):
    world = partial(PaysNaN, start_seed(FEW.seed, 12))
    options = {"config": replace(FEW, steps=900), "run": tmp_path / "run", "workers": workers}
    for resume in (False, True):
        with pytest.raises(WorldError, match="a reward of nan") as raised:
            list(finetune(start, world, resume=resume, **options))
        seed, rescue = raised.value.__notes__
        assert re.search(rf"seed {start_seed(FEW.seed, 12)}\b", seed)
    steps = int(re.search(r"resumed with steps (\d+)", rescue)[1])
    *_, last = finetune(start, world, resume=True, steps=steps, **options)
    assert last.verdict is not None
    assert digest(load(tmp_path / "run")) == digest(last.policy)
    with pytest.raises(ConfigError, match=r"finetune\.steps"):
        list(finetune(start, world, resume=True, steps=0, **options))


def test_a_run_that_failed_at_once_is_begun_with_the_steps_that_are_asked_for_now(start, tmp_path):
    world = partial(PaysNaN, start_seed(FEW.seed, 0))
    with pytest.raises(WorldError):
        list(finetune(start, world, config=replace(FEW, steps=900), run=tmp_path / "run"))
    list(finetune(start, ReachWorld, config=FEW, run=tmp_path / "run", resume=True))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["finetune"]["steps"] == FEW.steps


def test_starts_of_no_share_cost_nothing(start, demos):
    given, left_out = (
        list(finetune(start, ReachWorld(), config=FEW, starts=starts))
        for starts in (DemoStarts(demos, share=0.0), None)
    )
    assert [log.step for log in given] == [log.step for log in left_out]
    assert digest(given[-1].policy) == digest(left_out[-1].policy)


def test_of_episodes_that_all_began_inside_a_demonstration_no_success_is_told(start, demos):
    config = replace(FEW, steps=900)
    *logs, _ = finetune(start, ReachWorld(), config=config, starts=DemoStarts(demos, share=1.0, until=1.0))
    assert logs[0].numbers["success"] is logs[0].numbers["mean_return"] is logs[0].numbers["sustained"] is None
    assert "no episode that began as the world says" in str(logs[0])


def test_the_last_batches_begin_as_the_world_says_however_much_is_put_aside_to_judge(start, demos):
    config = replace(FEW, steps=1600, judge_episodes=20)
    *logs, _ = finetune(start, ReachWorld(), config=config, starts=DemoStarts(demos, share=1.0, until=0.6))
    assert logs[0].numbers["success"] is None
    assert logs[-1].numbers["success"] is not None


def test_demonstrations_and_policies_of_another_task_are_refused_by_name(start, demos, tmp_path):
    class Other(ReachWorld):
        observation_channels = (Channel("x", "m", -2, 2), Channel("z", "m", -2, 2))

    class Twin(ReachWorld):
        """Another task with the same channels."""

    other = Other()
    with pytest.raises(SpecMismatch, match=r"'z' against 'y'|'y' against 'z'"):
        next(finetune(start, other, config=FEW))
    with pytest.raises(SpecMismatch, match=r"'z' against 'y'|'y' against 'z'"):
        next(finetune(fresh_for(other), other, demo_term=DemoTerm(demos), config=FEW))
    with pytest.raises(SpecMismatch, match="does not fit the policy: it is Twin against ReachWorld"):
        next(finetune(start, Twin(), config=FEW))
    with pytest.raises(SpecMismatch, match=r"does not fit .*data: it is Twin against ReachWorld"):
        next(finetune(fresh_for(Twin()), Twin(), demo_term=DemoTerm(demos), config=FEW))
    with pytest.raises(SpecMismatch, match=r"does not fit .*data: it is Twin against ReachWorld"):
        next(finetune(fresh_for(Twin()), Twin(), starts=DemoStarts(demos), config=FEW))


def test_too_few_steps_for_a_batch_are_refused_before_the_first(start, tmp_path):
    with pytest.raises(ConfigError, match=r"steps is 100; a batch of 5 episodes of 12 steps and .* need 156"):
        next(finetune(start, ReachWorld(), config=FEW, steps=100, run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert len(list(finetune(start, ReachWorld(), config=FEW, steps=156))) == 2


def test_a_limit_that_the_world_names_and_does_not_keep_is_kept(start):
    class Endless(gym.Wrapper):
        def step(self, action):
            seen, reward, over, _, info = self.env.step(action)
            return seen, reward, over, False, info

    seen = Seen()
    list(finetune(start, Endless(ReachWorld()), config=FEW, watcher=seen))
    assert {len(episode) for episode in seen.episodes} == {ReachWorld.MAXIMUM_STEPS}


def test_demonstrations_that_weigh_nothing_are_not_looked_at(start, demos, tmp_path):
    with Dataset.create(tmp_path / "failed", demos.spec) as failed:
        for episode in demos:
            failed.append(replace(episode, success=FAILURE))
    plain = digest(list(finetune(start, ReachWorld(), config=FEW))[-1].policy)
    for given in (demos, failed):
        logs = list(finetune(start, ReachWorld(), demo_term=DemoTerm(given, lam0=0.0), config=FEW))
        assert digest(logs[-1].policy) == plain
    with pytest.raises(DataError, match="demonstrations"):
        list(finetune(start, ReachWorld(), demo_term=DemoTerm(failed), config=FEW))


def test_the_threads_of_the_caller_are_not_those_of_the_run(start):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in finetune(start, ReachWorld(), config=FEW):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_fine_tuned_ensemble_says_which_data_it_comes_from(demos):
    recipe = replace(CLONED, steps=20, measure_every=20)
    ensemble = train(Ensemble.of(FeedForward.for_data(demos, SHAPE), 2), demos, recipe)
    *_, last = finetune(ensemble, ReachWorld(), config=FEW)
    assert last.policy.data_fingerprint == demos.fingerprint


def test_a_run_goes_on_whatever_the_path_to_its_policy(start, tmp_path):
    list(finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run", notes={"start": "bc"}))
    list(finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run", resume=True, notes={"start": "/there/bc"}))


def test_replays_that_leave_no_steps_for_a_batch_are_refused(start, demos):
    with pytest.raises(ConfigError, match=rf"replaying the demonstrations took {demos.steps} of 160 steps"):
        next(finetune(start, ReachWorld(), config=replace(FEW, steps=160), starts=DemoStarts(demos)))


def test_a_world_without_a_limit_of_steps_asks_for_one():
    world = TinyWorld()
    policy = FeedForward(spec_of(world), SHAPE).initialized(0)
    with pytest.raises(ConfigError, match="TinyWorld names no limit of steps; give max_steps"):
        next(finetune(policy, world, config=FEW))
    assert next(finetune(policy, world, config=replace(FEW, max_steps=4, judge_episodes=0))).step == 20


CHANGES = {
    "another update": (lambda demos: {"update": NPG(step_size=0.2)}, "update.step_size"),
    "a term": (lambda demos: {"demo_term": DemoTerm(demos)}, "demo_term"),
    "starts": (lambda demos: {"starts": DemoStarts(demos)}, "starts"),
    "more steps": (lambda demos: {"steps": 500}, "finetune.steps"),
    "another seed": (lambda demos: {"config": replace(FEW, seed=9)}, "finetune.seed"),
    "another policy": (lambda demos: {"policy": clone(demos, recipe=replace(CLONED, seed=1))}, "start_fingerprint"),
    "other notes": (lambda demos: {"notes": {"world": "another"}}, "world"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_resumes_only_as_it_was_begun(demos, start, tmp_path, change):
    options = {"policy": start, "env": ReachWorld(), "config": FEW, "run": tmp_path / "run"}
    next(finetune(**options))
    changed, said = CHANGES[change]
    with pytest.raises(
        ConfigError, match=rf"was begun with {said}[\w.]* = |the data changed|was begun \({said}\); put"
    ) as raised:
        next(finetune(**{**options, **changed(demos)}, resume=True))
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="continue it with --resume"):
        next(finetune(**options))


def test_a_checkpoint_of_another_network_is_refused(start, demos, tmp_path):
    next(finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run"))
    larger = train(
        FeedForward(spec_of(ReachWorld()), FeedForwardConfig(hidden=(8,))), demos, TrainConfig(steps=1, lead=0)
    )
    next(finetune(larger, ReachWorld(), config=FEW, run=tmp_path / "larger"))
    (tmp_path / "larger/checkpoints/latest.safetensors").write_bytes(
        (tmp_path / "run/checkpoints/latest.safetensors").read_bytes()
    )
    with pytest.raises(PolicyError, match="the checkpoint is of another network"):
        next(finetune(larger, ReachWorld(), config=FEW, run=tmp_path / "larger", resume=True))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"steps": 2e5}, "steps is 200000.0; accepted: whole numbers, 0 or more"),
        ({"value_hidden": (10**9,)}, "value_hidden is (1000000000,); accepted: sizes from 1 to 65536"),
        ({"steps": -1}, "steps is -1; accepted: whole numbers, 0 or more"),
        ({"episodes": 0}, "episodes is 0; accepted: whole numbers, 1 or more"),
        ({"gamma": 1.5}, "gamma is 1.5; accepted: 0 to 1"),
        ({"gae_lambda": -0.1}, "gae_lambda is -0.1; accepted: 0 to 1"),
        ({"deviation": "large"}, "deviation is 'large'; accepted: spread, residual, own, range"),
        ({"deviation_factor": 0}, "deviation_factor is 0; accepted: above 0"),
        ({"average": 1.0}, "average is 1.0; accepted: 0 or more and below 1"),
        ({"tune": "bias"}, "tune is 'bias'; accepted: all or residual"),
        ({"correlation": 1}, "correlation is 1; accepted: 0 or more and below 1"),
        ({"value_inputs": "none"}, "value_inputs is 'none'; accepted: scaled or raw"),
        ({"value_targets": "td"}, "value_targets is 'td'; accepted: returns or gae"),
        ({"value_hidden": ()}, "value_hidden is (); accepted: one or more sizes above 0"),
        ({"value_clip": 0.0}, "value_clip is 0.0; accepted: above 0"),
        ({"max_steps": 0}, "max_steps is 0; accepted: whole numbers, 1 or more"),
        ({"seed": -1}, "seed is -1; accepted: whole numbers, 0 to 4294967295"),
    ],
)
def test_values_that_cannot_work_are_refused(bad, said):
    with pytest.raises(ConfigError) as raised:
        FinetuneConfig(**bad)
    assert str(raised.value) == said


def test_nothing_happens_before_the_first_batch_is_asked_for(start, tmp_path):
    finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_run_keeps(start, tmp_path):
    logs = list(finetune(start, ReachWorld(), config=FEW, run=tmp_path / "run", notes={"env": "here"}))
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["command"], config["update"]["name"], config["env"]) == ("finetune", "npg", "here")
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [log.step for log in logs[:-1]]
    for row, log in zip(rows, logs, strict=False):
        assert {key: row[key] for key in log.numbers} == pytest.approx(dict(log.numbers))


def test_a_world_whose_task_ends_is_learnt_too(start):
    """Episodes of different lengths, the task ending with its success."""
    env = ReachWorld(ends=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs = list(finetune(fresh(), env, UPDATES["ppo"], config=replace(QUICK, steps=5000)))
    assert logs[-1].step < 5000
    assert logs[-2].numbers["success"] > logs[0].numbers["success"]


# ---- the world decides ----


def test_what_is_deployed_has_the_limits_that_it_practised_with(demos):
    """Data that was recorded under tighter limits leaves them in the clone."""
    tight = replace(demos.spec, actions=tuple(replace(channel, low=-0.2, high=0.2) for channel in demos.spec.actions))
    start = train(FeedForward(tight, SHAPE), demos.with_spec(tight), CLONED)
    *_, last = finetune(start, ReachWorld(), config=FEW)
    assert last.policy.spec == spec_of(ReachWorld())
    assert start.spec == tight


def test_demonstrations_that_say_nothing_are_cut_to_the_limits_of_the_world(start, tmp_path):
    for number in range(3):
        np.savez(tmp_path / f"{number}.npz", observations=np.ones((6, 2)) * number, actions=np.full((6, 2), 8.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = Dataset.open(tmp_path)
    actor = Actor(start, np.zeros(2, np.float32), np.zeros(2, np.float32))
    rows = DemoRows(DemoTerm(bare, lead=0), actor)
    _, actions = start.statistics
    assert (rows.actions.numpy() * actions.scale + actions.mean).max() == pytest.approx(1.0)


def test_the_best_is_not_that_of_a_few_lucky_episodes(start):
    """The second number counts: episodes that began inside demonstrations say nothing."""
    learner = OnPolicyLearner(start, spec_of(ReachWorld()), NPG(), None, replace(FEW, episodes=20, best_window=1))
    for learner.iteration, batch in enumerate([(1, 1.0, 0.0), (20, 0.9, 0.0), (5, 1.0, 0.0)]):
        learner._remember_the_best(batch)
    assert learner._best_iteration == 1
    learner = OnPolicyLearner(start, spec_of(ReachWorld()), NPG(), None, replace(FEW, episodes=5, best_window=3))
    for learner.iteration, batch in enumerate([(5, 1.0, 0.0), (5, 0.8, 0.0), (5, 0.8, 0.0), (5, 1.0, 0.0)]):
        learner._remember_the_best(batch)
    assert learner._best_iteration == 2  # 13 of 15 twice: the first of them


def test_a_channel_that_the_demonstrations_never_moved_is_explored_as_little_as_allowed(demos):
    still = FeedForward(demos.spec, SHAPE).initialized(0)
    seen = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    shown = seen * np.float32([1, 0])
    still.fit_scaling(ChannelStatistics.of([seen]), ChannelStatistics.of([shown]))
    config = replace(FEW, deviation="spread", deviation_factor=0.5, least_deviation=0.01)
    learner = OnPolicyLearner(still, spec_of(ReachWorld()), NPG(), None, config)
    deviation = learner.actor.log_deviation.exp().detach().numpy() * still.statistics[1].scale
    np.testing.assert_allclose(deviation, [0.5 * shown[:, 0].std(), 0.01], rtol=1e-4)


@pytest.mark.parametrize("name", UPDATES)
def test_the_largest_numbers_there_are_are_no_limits(name):
    largest = float(np.finfo(np.float32).max)

    class Wide(ReachWorld):
        action_channels = (Channel("x.velocity", "m/s"), Channel("y.velocity", "m/s"))

        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Box(-largest, largest, (2,), np.float32)

    policy = FeedForward(spec_of(Wide()), SHAPE).initialized(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, last = finetune(policy, Wide(), UPDATES[name], config=replace(FEW, deviation="range"))
    assert np.isfinite(last.numbers["mean_return"] or 0.0)
