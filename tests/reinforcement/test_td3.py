import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.reinforcement.reach import CLONED, ReachWorld, clone, demonstrations, fresh
from tests.reinforcement.test_finetune import Seen, digest, outcome
from understudy.checkpoint import load
from understudy.errors import ConfigError
from understudy.loading import load_predictor
from understudy.recipe import FinetuneConfig
from understudy.reinforcement import NPG, TD3, DemoTerm, finetune

RULE = TD3(critics=3, units=16, batch=32, first_steps=120, first_updates=60, updates_per_step=0.5, n_step=2)
FEW = FinetuneConfig(
    steps=600,
    episodes=5,
    judge_episodes=2,
    gamma=0.9,
    tune="residual",
    residual_hidden=(8,),
    residual_limit=1.5,
    deviation="range",
    deviation_factor=0.2,
    average=0.5,
    seed=3,
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("demos") / "data")


@pytest.fixture(scope="module")
def start(demos):
    return clone(demos, members=2)


def tuned(policy, config=FEW, rule=RULE, **more):
    return list(finetune(policy, ReachWorld(), rule, config=config, **more))


def mean_distance(policy):
    """Of the last observation from the origin, over starts that serve nothing else."""
    predictor, env, ends = policy.for_execution(), ReachWorld(), []
    for seed in range(900, 930):
        seen, _ = env.reset(seed=seed)
        over = False
        while not over:
            seen, _, _, over, _ = env.step(predictor.predict(seen[None])[0])
        ends.append(np.hypot(*seen))
    return float(np.mean(ends))


def test_it_makes_a_clone_better(demos):
    start = clone(demos, recipe=replace(CLONED, steps=20))
    config = replace(FEW, steps=6_000, residual_limit=3.0, judge_episodes=5)
    *_, last = tuned(start, config, replace(RULE, actor_learning_rate=3e-3, critic_learning_rate=1e-3))
    before, after = mean_distance(start), mean_distance(last.policy)
    assert after < 0.6 * before, (before, after)


def test_the_clone_drives_until_there_is_something_to_learn_from(start):
    logs = tuned(start)
    values = [log.numbers["value"] for log in logs[:-1]]
    assert values[0] is None
    assert values[1] is not None  # after two batches of 60 steps
    seen = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logs[0].policy.predict_batch(seen), start.predict_batch(seen), rtol=0, atol=1e-6)
    assert not torch.allclose(logs[-2].policy.predict_batch(seen), start.predict_batch(seen), atol=1e-4)


def test_the_residual_stays_within_its_limit(start):
    """Of each channel, wherever the policy is asked: 1.5 deviations of 0.2 half-ranges."""
    rule = replace(RULE, actor_learning_rate=0.5)
    policy = tuned(start, replace(FEW, judge_episodes=0, average=0.0), rule)[-2].policy
    seen = torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0)) * 3
    moved = (policy.predict_batch(seen) - start.predict_batch(seen)).abs()
    assert moved.max() < 1.5 * 0.2 + 1e-5
    assert moved.max() > 0.25  # with steps as long as these it is at the limit somewhere


def test_what_is_deployed_is_an_ordinary_policy(start, tmp_path):
    tuned(start, run=tmp_path / "run")
    policy, predictor = load(tmp_path / "run"), load_predictor(tmp_path / "run")
    seen = np.random.default_rng(0).uniform(-1, 1, (1, 2)).astype(np.float32)
    torch_answer = policy.predict_batch(torch.from_numpy(seen)[None])[0].clamp(-1, 1)
    np.testing.assert_allclose(predictor.predict(seen), torch_answer.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["update"]["name"] == "td3"


def test_the_number_of_workers_changes_nothing(start, tmp_path):
    for workers in (1, 2):
        list(finetune(start, ReachWorld, RULE, config=FEW, workers=workers, run=tmp_path / str(workers)))
    assert outcome(tmp_path / "1") == outcome(tmp_path / "2")


def test_an_interrupted_run_resumes_to_the_same_bytes(start, tmp_path):
    whole = tuned(start, run=tmp_path / "whole")
    for at in (3, 15, 40, 62):  # while the clone drives, later, and in the judging
        run = tmp_path / f"at-{at}"
        with pytest.raises(KeyboardInterrupt):
            tuned(start, run=run, watcher=Seen(at))
        again = tuned(start, run=run, resume=True)
        assert outcome(run) == outcome(tmp_path / "whole")
        assert digest(again[-1].policy) == digest(whole[-1].policy)


def test_a_crash_between_the_rows_and_the_state_costs_nothing(start, tmp_path, monkeypatch):
    """The rows of a batch lie there already, and its state does not."""
    from understudy.reinforcement import td3

    tuned(start, run=tmp_path / "whole")
    saved = td3.Learner.save

    def breaks(learner, run):
        if learner.iteration == 4:
            raise KeyboardInterrupt
        saved(learner, run)

    with monkeypatch.context() as patch:
        patch.setattr(td3.Learner, "save", breaks)
        with pytest.raises(KeyboardInterrupt):
            tuned(start, run=tmp_path / "run")
    assert (tmp_path / "run" / "replay" / "000004.safetensors").exists()
    tuned(start, run=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_tuned_policy_can_be_tuned_further(start):
    once = tuned(start, replace(FEW, judge_episodes=0))[-2].policy
    further = tuned(once, replace(FEW, judge_episodes=0, seed=9))
    seen = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(further[0].policy.predict_batch(seen), once.predict_batch(seen))
    with pytest.raises(ConfigError, match="carries a residual with another limit"):
        tuned(once, replace(FEW, residual_limit=0.5))


@pytest.mark.parametrize(
    "change", [{"residual_limit": None}, {"tune": "all", "residual_limit": None, "residual_hidden": ()}]
)
def test_only_a_limited_residual_is_tuned(start, change):
    with pytest.raises(ConfigError, match="td3 tunes a residual with a limit; take the preset residual-td3"):
        tuned(start, replace(FEW, **change))


def test_a_policy_that_was_never_trained_is_refused():
    with pytest.raises(ConfigError, match="td3 tunes a residual of a trained policy"):
        tuned(fresh())


def test_options_of_the_value_function_are_refused(start):
    with pytest.raises(ConfigError, match="leave value_epochs, gae_lambda out"):
        tuned(start, replace(FEW, value_epochs=7, gae_lambda=0.5))


def test_a_demonstration_term_is_refused_unless_it_weighs_nothing(demos, start):
    with pytest.raises(ConfigError, match="no place for a demonstration term"):
        tuned(start, demo_term=DemoTerm(demos, lam0=0.1))
    assert digest(tuned(start, demo_term=DemoTerm(demos, lam0=0.0))[-1].policy) == digest(tuned(start)[-1].policy)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"critics": 0}, "critics is 0"),
        ({"n_step": 0}, "n_step is 0"),
        ({"follow": 0.0}, "follow is 0.0; accepted: above 0, at most 1"),
        ({"updates_per_step": 0.0}, "updates_per_step is 0.0; accepted: numbers above 0"),
        ({"actor_learning_rate": float("nan")}, "actor_learning_rate is nan"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        TD3(**options)


def test_a_limit_serves_the_other_updates_too(start):
    """It is the actor's, whoever tunes it."""
    config = FinetuneConfig(
        steps=400,
        episodes=5,
        judge_episodes=0,
        value_hidden=(16,),
        tune="residual",
        residual_hidden=(8,),
        residual_limit=0.5,
        deviation="range",
        deviation_factor=0.2,
    )
    policy = tuned(start, config, NPG(step_size=5.0))[-2].policy
    seen = torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0))
    moved = (policy.predict_batch(seen) - start.predict_batch(seen)).abs().max()
    assert 0.01 < moved < 0.5 * 0.2 + 1e-5
