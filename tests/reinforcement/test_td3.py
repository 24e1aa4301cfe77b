import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.reinforcement.reach import CLONED, SHAPE, ReachWorld, clone, demonstrations, fresh
from tests.reinforcement.test_finetune import Seen, digest, outcome
from understudy.checkpoint import TrainingState, load, save_state
from understudy.errors import ConfigError, PolicyError
from understudy.loading import load_predictor
from understudy.policies import FeedForward
from understudy.recipe import FinetuneConfig
from understudy.reinforcement import NPG, TD3, DemoStarts, DemoTerm, finetune
from understudy.reinforcement.td3 import ReplayLearner
from understudy.rollout import rollout
from understudy.spec import spec_of
from understudy.trainer import train

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


def learner_of(start, **changes):
    """A learner that has seen four episodes, half of which ended; its slow copies differ from what they follow."""
    learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, replace(FEW, **changes))
    for seed in range(4):
        episode = rollout(ReachWorld(), learner.explorer(), seed=seed)
        learner._remember(replace(episode, terminated=seed > 1, truncated=seed <= 1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*learner._slow_critics.parameters(), *learner._slow_actor.mean_parameters):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    learner._reward_scale = 0.5
    return learner


def drawn_from(learner, count=64, n_step=3):
    return learner._replay.draw(torch.Generator().manual_seed(2), count, n_step, 0.9)


def standing_still(parameters):
    return torch.optim.SGD(list(parameters), lr=0.0)


@pytest.mark.parametrize("believed", [[0, 2], [1]])
def test_the_target_is_the_smallest_of_the_slow_critics_that_are_drawn(start, believed):
    """By hand, row by row; where the task ended there is no future."""
    learner = learner_of(start, deviation_factor=0.6)
    drawn = drawn_from(learner)
    assert (drawn.discounts == 0).any()
    assert (drawn.discounts > 0).any()
    low, high, deviation = learner._low, learner._high, learner.actor.log_deviation.detach().exp()
    targets, answers = [], []
    for inputs, action, reward, discount, following in zip(*drawn, strict=True):
        seen, policy = following[:2], following[2:].clamp(low, high)
        moved = learner._slow_actor.mean(following[None])[0].clamp(low, high) - policy
        future = learner._slow_critics(torch.cat([seen, moved / (2 * deviation)])[None])[:, 0]
        targets.append(0.5 * reward + discount * min(future[number] for number in believed))
        beside = (action.clamp(low, high) - inputs[2:].clamp(low, high)) / (2 * deviation)
        answers.append(learner._critics(torch.cat([inputs[:2], beside])[None])[:, 0])
    targets, answers = torch.stack(targets).detach(), torch.stack(answers).detach()
    value, error = learner._teach_the_critics(
        drawn, torch.tensor(believed), standing_still(learner._critics.parameters())
    )
    assert value == pytest.approx(float(targets.mean()), rel=1e-4)
    expected = (answers - targets[:, None]).square().mean() / targets.var()
    assert error == pytest.approx(float(expected), rel=1e-4)


def test_the_actor_climbs_the_smallest_of_all_critics(start):
    learner, rate = learner_of(start), 1e-4
    drawn = drawn_from(learner)

    def worth():
        return learner._worth(learner._critics, drawn.inputs, learner.actor.mean(drawn.inputs)).amin(0).mean()

    before = worth()
    gradient = torch.autograd.grad(before, learner.actor.mean_parameters)
    learner._teach_the_actor(drawn, torch.optim.SGD(learner.actor.mean_parameters, lr=rate))
    gained = rate * sum(float(part.square().sum()) for part in gradient)
    assert float((worth() - before).detach()) == pytest.approx(gained, rel=0.2)
    assert gained > 0


def test_an_action_beyond_the_limits_is_worth_what_the_world_makes_of_it(start):
    learner = learner_of(start)
    inputs = drawn_from(learner).inputs
    high = learner._high.expand(len(inputs), -1)
    torch.testing.assert_close(
        learner._worth(learner._critics, inputs, high + 1), learner._worth(learner._critics, inputs, high)
    )


def test_what_was_executed_is_remembered_and_not_what_was_asked_for(start):
    learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, replace(FEW, deviation_factor=2.0))
    episode = rollout(ReachWorld(), learner.explorer(), seed=1)
    assert (episode.actions != episode.asked_actions).any()
    learner._remember(episode)
    kept = learner._replay.tensors()["actions"][: len(episode)]
    torch.testing.assert_close(kept, learner.actor.scaled(torch.tensor(episode.actions)))


def test_the_critics_learn_alone_at_first(start):
    """With more first updates than there are at all, the policy stays what it was."""
    seen = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(0))
    learner = ReplayLearner(start, spec_of(ReachWorld()), replace(RULE, first_updates=30, updates_per_step=0.5), FEW)
    first = [rollout(ReachWorld(), learner.explorer(), seed=seed) for seed in range(10)]
    before = [parameter.detach().clone() for parameter in learner._critics.parameters()]
    learner._owed = -60.0  # so that this batch has the first updates and no others
    assert learner.learn(first)["residual"] is None
    assert learner._updates == 30
    assert all((was != now).any() for was, now in zip(before, learner._critics.parameters(), strict=True))
    torch.testing.assert_close(learner.actor.policy().predict_batch(seen), start.predict_batch(seen), rtol=0, atol=1e-6)
    learner._owed = 0.0
    assert learner.learn(first)["residual"] > 0


@pytest.mark.parametrize("whose", ["critics", "actor"])
def test_slow_copies_follow(start, whose):
    learner = ReplayLearner(start, spec_of(ReachWorld()), replace(RULE, first_updates=0), FEW)
    fast, slow = {
        "critics": (list(learner._critics.parameters()), list(learner._slow_critics.parameters())),
        "actor": (learner.actor.mean_parameters, learner._slow_actor.mean_parameters),
    }[whose]
    first = [parameter.detach().clone() for parameter in fast]

    def distance(others):
        return sum(float((one - two).detach().square().sum()) for one, two in zip(fast, others, strict=True))

    for seed in range(0, 60, 10):
        learner.learn([rollout(ReachWorld(), learner.explorer(), seed=seed + more) for more in range(10)])
    assert 0 < distance(slow) < 0.8 * distance(first)


def test_the_unit_of_the_reward_changes_nothing_but_what_is_told(start):
    values, policies = [], []
    for unit in (1, 128):
        learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, FEW)
        for seed in range(0, 30, 10):
            episodes = [rollout(ReachWorld(), learner.explorer(), seed=seed + more) for more in range(10)]
            numbers = learner.learn([replace(episode, rewards=unit * episode.rewards) for episode in episodes])
        values.append(numbers["value"])
        policies.append(digest(learner.actor.policy()))
    assert policies[0] == policies[1]
    assert values[1] == pytest.approx(128 * values[0])


@pytest.mark.parametrize("unit", [1e30, 1e-30])
def test_rewards_that_critics_cannot_hold_are_refused(start, unit):
    learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, FEW)
    episodes = [rollout(ReachWorld(), learner.explorer(), seed=seed) for seed in range(20)]
    with pytest.raises(ConfigError, match=r"the rewards are of the size .* scale them"):
        learner.learn([replace(episode, rewards=np.float32(unit) * episode.rewards) for episode in episodes])


def test_replays_that_leave_too_few_steps_to_learn_from_are_refused(start, tmp_path):
    aside = 5 * FEW.judge_episodes * ReachWorld.MAXIMUM_STEPS
    config = replace(FEW, steps=aside + RULE.first_steps + FEW.episodes * ReachWorld.MAXIMUM_STEPS)
    tuned(start, config)
    with pytest.raises(ConfigError, match="leaves too few to learn from before the judging"):
        tuned(start, config, starts=DemoStarts(demonstrations(tmp_path / "many", 12)))


def test_a_run_in_which_nothing_was_learnt_says_so(start):
    class PaysLate(ReachWorld):
        """Pays in its last episodes only, which judge."""

        begun = 0

        def reset(self, **arguments):
            type(self).begun += 1
            return super().reset(**arguments)

        def step(self, action):
            seen, reward, *rest = super().step(action)
            return seen, reward if self.begun > 40 else 0.0, *rest

    PaysLate.__name__ = "ReachWorld"
    with pytest.warns(UserWarning, match="td3 has learnt nothing: no reward came before"):
        *_, last = finetune(start, PaysLate(), RULE, config=FEW)
    assert last.verdict is not None


def test_nothing_is_learnt_before_something_was_paid(start):
    learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, FEW)
    silent = [rollout(ReachWorld("none"), learner.explorer(), seed=seed) for seed in range(20)]
    assert learner.learn(silent)["value"] is None
    assert not learner._reward_scale
    assert learner.learn([rollout(ReachWorld(), learner.explorer(), seed=30)])["value"] is not None
    assert 0.1 < learner._reward_scale < 10


def test_a_share_of_an_update_is_owed_and_not_forgotten(start):
    learner = ReplayLearner(start, spec_of(ReachWorld()), replace(RULE, updates_per_step=0.02, first_updates=0), FEW)
    learner.learn([rollout(ReachWorld(), learner.explorer(), seed=seed) for seed in range(10)])
    for seed in range(10, 20):
        learner.learn([rollout(ReachWorld(), learner.explorer(), seed=seed)])
    assert learner._updates == int(0.02 * 20 * 12)


def test_it_takes_starts_inside_demonstrations_and_goes_on_with_them(demos, start, tmp_path):
    options = {"starts": DemoStarts(demos), "config": replace(FEW, steps=900)}
    list(finetune(start, ReachWorld(), RULE, run=tmp_path / "whole", **options))
    with pytest.raises(KeyboardInterrupt):
        list(finetune(start, ReachWorld(), RULE, run=tmp_path / "run", watcher=Seen(30), **options))
    list(finetune(start, ReachWorld(), RULE, run=tmp_path / "run", resume=True, **options))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_policy_with_a_history_and_chunks_is_tuned(demos):
    shape = replace(SHAPE, history=2, horizon=3)
    start = train(FeedForward(spec_of(ReachWorld()), shape).initialized(0), demos, CLONED)
    policy = tuned(start)[-1].policy
    assert (policy.history, policy.horizon) == (2, 1)


def test_demonstrations_of_no_weight_may_stand_beside_a_limited_residual(demos, start):
    """As the command line has them, with a policy that TD3 has tuned before."""
    once = tuned(start, replace(FEW, judge_episodes=0))[-2].policy
    config = FinetuneConfig(
        steps=400,
        episodes=5,
        judge_episodes=0,
        value_hidden=(16,),
        **{
            name: getattr(FEW, name)
            for name in ("tune", "residual_hidden", "residual_limit", "deviation", "deviation_factor")
        },
    )
    list(finetune(once, ReachWorld(), NPG(), config=config, demo_term=DemoTerm(demos, lam0=0.0)))


@pytest.mark.parametrize(
    ("carried", "told"),
    [
        ((), "carries a residual without a limit"),
        ((8,), "carries a residual without a limit"),
        ((4, 2), "carries a residual with tanh layers of 4, and residual_hidden asks for tanh layers of 8; ask"),
    ],
)
def test_a_policy_that_carries_another_residual_is_refused(demos, carried, told):
    shape = replace(SHAPE, skip=True, skip_hidden=carried)
    start = train(FeedForward(spec_of(ReachWorld()), shape).initialized(0), demos, CLONED)
    with pytest.raises(ConfigError, match=told):
        tuned(start)


@pytest.mark.parametrize("damage", ["missing", "empty", "of another batch", "of something else", "cut"])
def test_a_damaged_memory_is_named(start, tmp_path, damage):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tuned(start, run=run, watcher=Seen(40))
    second = run / "replay" / "000002.safetensors"
    if damage == "missing":
        second.unlink()
    elif damage == "of another batch":
        second.write_bytes((run / "replay" / "000003.safetensors").read_bytes())
    elif damage == "of something else":
        save_state(second, TrainingState(2, 0, 0.0, {"rows": torch.zeros(3)}))
    else:
        second.write_bytes(second.read_bytes()[: 0 if damage == "empty" else -40])
    with pytest.raises(PolicyError, match=r"000002\.safetensors"):
        tuned(start, run=run, resume=True)


def test_steps_that_end_before_anything_is_learnt_are_refused(start):
    with pytest.raises(ConfigError, match=r"td3 learns nothing before 600 steps \(first_steps\), a batch takes"):
        tuned(start, rule=replace(RULE, first_steps=600))


def test_a_deviation_that_demonstrations_would_have_to_say_is_refused(start):
    with pytest.raises(ConfigError, match="'residual', which td3 does not know; take range, spread or own"):
        tuned(start, replace(FEW, deviation="residual"))


def test_a_limit_is_that_of_the_noise_that_is_really_made(start):
    """The deviation never falls below its least, and neither does the residual's room."""
    learner = ReplayLearner(start, spec_of(ReachWorld()), RULE, replace(FEW, deviation_factor=0.001))
    limits = torch.diag(learner.actor._networks[0].skip_maps()[-1].weight)
    torch.testing.assert_close(limits.detach(), 1.5 * learner.actor.log_deviation.detach().exp())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"critics": 0}, "critics is 0"),
        ({"n_step": 0}, "n_step is 0"),
        ({"follow": 0.0}, "follow is 0.0; accepted: above 0, at most 1"),
        ({"updates_per_step": 0.0}, "updates_per_step is 0.0; accepted: above 0"),
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
