import functools
import math
import time

import gymnasium as gym
import numpy as np
import pytest
from tiny_worlds import Noise, Says, TinyWorld, tiny

from understudy.agent import Demonstrator, Driver
from understudy.collector import rollouts
from understudy.episode import COLUMNS, FAILURE, SUCCESS, UNKNOWN
from understudy.errors import ActionError, ConfigError, ExpertError, WorkerError, WorldError
from understudy.rollout import Observer, rollout

STILL = Says(np.zeros(2, np.float32))


class Script:
    engaged = True

    def __init__(self, answer=(0.5, -0.5)):
        self.answer, self.questions = answer, 0

    def reset(self, seed):
        pass

    def label(self, observation):
        self.questions += 1
        return np.array(self.answer, np.float32)


class Watcher(Observer):
    def __init__(self):
        self.starts, self.steps, self.ends = [], [], []

    def on_start(self, env, observation):
        self.starts.append(observation)

    def on_step(self, env, step):
        self.steps.append(step)

    def on_end(self, env, episode):
        self.ends.append(episode)


def same(one, two):
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in COLUMNS if name != "time_s")


def test_what_is_executed_is_clipped_and_what_was_asked_is_kept():
    env = TinyWorld()
    episode = rollout(env, Says(np.array([3.0, -0.25], np.float32)), seed=0)
    assert (episode.actions == [1.0, -0.25]).all()
    assert (episode.asked_actions == [3.0, -0.25]).all()
    assert np.array_equal(env.actions, episode.actions), "the record is what the world got"
    assert (episode.driver == Driver.POLICY).all()
    assert not episode.labelled.any()


def test_what_the_world_says_it_executed_is_recorded():
    env = TinyWorld(infos=[{"executed_action": [0.5, 0.0]}])
    episode = rollout(env, Says(np.ones(2, np.float32)), seed=0)
    assert (episode.actions[0] == [0.5, 0.0]).all()
    assert (episode.actions[1:] == 1).all()
    assert (episode.asked_actions == 1).all()


def test_a_record_has_one_observation_more_than_actions_whatever_the_world_does_with_its_arrays():
    episode = rollout(TinyWorld(length=4), Says(np.array([0.5, 0.0], np.float32)), seed=3)
    assert episode.observations.shape == (5, 3)
    np.testing.assert_allclose(np.diff(episode.observations[:, 0]), 0.5, atol=1e-6)
    np.testing.assert_allclose(episode.rewards, episode.observations[1:, 0])
    assert (np.diff(episode.time_s) >= 0).all()
    assert 0 <= episode.time_s[0] < 1
    assert episode.seed == 3


def test_one_label_is_one_query():
    script = Script()
    episode = rollout(TinyWorld(length=6), Demonstrator(script), seed=0)
    assert script.questions == 6
    assert episode.labelled.all()
    assert (episode.labels == [0.5, -0.5]).all()
    assert (episode.driver == Driver.EXPERT).all()


def test_a_policy_step_may_carry_a_label():
    label = np.array([0.1, 0.2], np.float32)
    episode = rollout(TinyWorld(), Says(np.zeros(2, np.float32), Driver.POLICY, label), seed=0)
    assert episode.labelled.all()
    assert (episode.driver == Driver.POLICY).all()
    assert (episode.actions == 0).all()
    assert (episode.labels == label).all()


@pytest.mark.parametrize(
    ("driver", "action", "said"),
    [
        (Driver.POLICY, [0.0, math.nan], r"the policy asked for nan in action channel 1 \(action\[1\]\)"),
        (Driver.EXPERT, [math.inf, 0.0], r"the expert asked for inf in action channel 0"),
        (Driver.POLICY, [0.0], r"the policy asked for an action of shape \(1,\); this world takes \(2,\)"),
    ],
)
def test_an_action_that_is_none_never_reaches_the_world(driver, action, said):
    env = TinyWorld()
    with pytest.raises(ActionError, match=said):
        rollout(env, Says(np.array(action, np.float32), driver), seed=0)
    assert not env.actions


def test_a_huge_action_is_an_action():
    assert (rollout(TinyWorld(), Says(np.full(2, 3e38, np.float32)), seed=0).actions == 1).all()


@pytest.mark.parametrize(("label", "said"), [([0.0], "shape"), ([0.0, math.nan], "must be finite")])
def test_a_label_that_is_no_action_is_refused(label, said):
    with pytest.raises(ExpertError, match=said):
        rollout(TinyWorld(), Says(np.zeros(2, np.float32), Driver.POLICY, np.array(label, np.float32)), seed=0)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (TinyWorld(fault="nan observation"), r"nan in observation channel 1 \(observation\[1\]\) at step 2"),
        (TinyWorld(fault="nan reward"), "a reward of nan at step 2"),
        (TinyWorld(infos=[{"executed_action": [0.0, math.nan]}]), "executed nan in action channel 1"),
        (TinyWorld(infos=[{"executed_action": [0.0]}]), r"executed an action of shape \(1,\)"),
    ],
)
def test_a_number_that_is_none_is_refused_from_the_world(world, said):
    with pytest.raises(WorldError, match=said):
        rollout(world, STILL, seed=0)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_the_reason_of_the_end_is_kept(ending):
    episode = rollout(TinyWorld(ending=ending), STILL, seed=0)
    assert (episode.terminated, episode.truncated) == (ending == "terminated", ending == "truncated")


def test_max_steps_truncates():
    episode = rollout(TinyWorld(length=9, ending="terminated"), STILL, seed=0, max_steps=4)
    assert len(episode) == 4
    assert (episode.terminated, episode.truncated) == (False, True)
    episode = rollout(TinyWorld(length=4, ending="terminated"), STILL, seed=0, max_steps=4)
    assert (episode.terminated, episode.truncated) == (True, False), "the world ended it by itself"
    with pytest.raises(ConfigError, match="max_steps is 0"):
        rollout(TinyWorld(), STILL, seed=0, max_steps=0)


@pytest.mark.parametrize(
    ("infos", "verdict"),
    [
        ([{}] * 5, UNKNOWN),
        ([{"success": False}, {"success": True}, *[{"success": False}] * 3], SUCCESS),
        ([{"success": False}] * 5, FAILURE),
        ([{"is_success": 1.0}, *[{"is_success": 0.0}] * 4], FAILURE),
        ([*[{"is_success": 0.0}] * 4, {"is_success": 1.0}], SUCCESS),
    ],
)
def test_success_is_any_step_and_in_goal_worlds_the_last(infos, verdict):
    episode = rollout(TinyWorld(infos=infos), STILL, seed=0)
    assert episode.success == verdict
    assert episode.succeeded.tolist() == [bool(info and next(iter(info.values()))) for info in infos]


def test_the_same_seed_is_the_same_episode():
    env = TinyWorld()
    first, other, again = (rollout(env, Noise(), seed=seed) for seed in (1, 2, 1))
    assert same(first, again)
    assert not same(first, other)


def test_the_initial_state_is_passed_on_and_kept():
    env, state = TinyWorld(), {"qpos": np.arange(3.0)}
    episode = rollout(env, STILL, seed=0, options={"initial_state": state})
    assert env.options == {"initial_state": state}
    assert episode.initial_state["qpos"].tolist() == [0, 1, 2]


def test_observers_see_everything_and_change_nothing():
    watcher = Watcher()
    episode = rollout(TinyWorld(), Noise(), seed=0, observers=(item for item in [watcher]))
    assert len(watcher.starts) == len(watcher.ends) == 1
    assert watcher.ends[0] is episode
    assert [step.index for step in watcher.steps] == [0, 1, 2, 3, 4]
    assert np.array_equal([step.observation for step in watcher.steps], episode.observations[:-1])
    assert np.array_equal([step.next_observation for step in watcher.steps], episode.observations[1:])
    assert np.array_equal([step.executed for step in watcher.steps], episode.actions)
    assert np.array_equal([step.command.action for step in watcher.steps], episode.asked_actions)
    for array in (watcher.starts[0], watcher.steps[0].executed, watcher.steps[0].command.action):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_an_agent_may_write_into_what_it_is_given_and_use_its_arrays_again():
    class Untidy(Noise):
        buffer = np.zeros(2, np.float32)

        def act(self, observation):
            observation[:] = 0
            self.buffer[:] = super().act(observation).action
            return type(super().act(observation))(self.buffer)

    class Tidy(Noise):
        def act(self, observation):
            command = super().act(observation)
            super().act(observation)
            return command

    assert same(rollout(TinyWorld(), Untidy(), seed=0), rollout(TinyWorld(), Tidy(), seed=0))


def test_actions_that_are_no_row_of_numbers_are_refused():
    env = TinyWorld()
    env.action_space = gym.spaces.Discrete(3)
    with pytest.raises(ConfigError, match="Discrete"):
        rollout(env, STILL, seed=0)


def test_episodes_are_the_same_whatever_the_number_of_workers():
    seeds = [5, 3, 8, 1, 9]
    alone, *others = (list(rollouts(tiny(), Noise(), seeds, workers=workers)) for workers in (1, 2, 4))
    assert [episode.seed for episode in alone] == seeds
    for episodes in others:
        assert all(same(one, two) for one, two in zip(alone, episodes, strict=True))


def test_rollouts_pass_options_and_limits_on():
    options = [{"initial_state": {"qpos": np.full(1, seed)}} for seed in range(3)]
    for workers in (1, 2):
        episodes = list(rollouts(tiny(), STILL, range(3), options=options, max_steps=2, workers=workers))
        assert [len(episode) for episode in episodes] == [2, 2, 2]
        assert [episode.initial_state["qpos"].item() for episode in episodes] == [0, 1, 2]


def test_rollouts_by_id_and_by_function_are_the_same():
    by_id, by_function = (
        next(iter(rollouts(world, Says(np.zeros(1, np.float32)), [0], max_steps=3)))
        for world in ("Pendulum-v1", functools.partial(gym.make, "Pendulum-v1"))
    )
    assert same(by_id, by_function)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_world_that_raises_is_named_with_the_line_of_its_code(workers):
    with pytest.raises(WorldError, match=r"raised ZeroDivisionError: the arm fell off at step 2 \(.*tiny_worlds.py, "):
        list(rollouts(tiny(fault="raise"), STILL, [10, 11], workers=workers))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("kill", r"seed 1[01]\) died"),
        ("stop", r"seed 1[01]\) hung"),
    ],
)
def test_a_broken_world_names_its_worker_and_its_seed(fault, said):
    world = tiny(fault=fault)
    with pytest.raises(WorkerError, match=rf"^worker [01] \(pid \d+, {said}"):
        list(rollouts(world, STILL, [10, 11], workers=2, patience_s=1.0))


def test_an_error_of_ours_keeps_its_type_and_says_where():
    with pytest.raises(WorldError, match="nan in observation channel 1") as caught:
        list(rollouts(tiny(fault="nan observation"), STILL, [10, 11], workers=2))
    assert "seed 1" in caught.value.__notes__[0]


def test_no_worker_is_a_mistake():
    with pytest.raises(ConfigError, match="workers is 0"):
        list(rollouts(tiny(), STILL, [0], workers=0))


def test_what_is_executed_lies_inside_limits_that_float32_cannot_hold():
    class Strict(TinyWorld):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Box(-0.1, 0.1, (2,), np.float64)

        def step(self, action):
            assert self.action_space.contains(action.astype(np.float64))
            return super().step(action)

    episode = rollout(Strict(), Says(np.array([5, -5], np.float32)), seed=0)
    np.testing.assert_allclose(episode.actions, [[0.1, -0.1]] * 5, rtol=1e-6)


def test_a_world_that_counts_its_actions_is_refused():
    class Gears(TinyWorld):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Box(0, 2, (2,), np.int64)

    with pytest.raises(ConfigError, match=r"actions must be real numbers; this world has Box\(0, 2"):
        rollout(Gears(), Says(np.zeros(2, np.float32)), seed=0)


class Returns(TinyWorld):
    """Gives something odd at its second step."""

    def __init__(self, **odd):
        super().__init__()
        self.odd = odd

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if len(self.actions) == 2:
            observation, info = self.odd.get("observation", observation), self.odd.get("info", info)
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"observation": np.zeros(5, np.float32)}, "the world gave 5 numbers at step 2; its observation space has 3"),
        ({"observation": "far"}, "the world gave an observation that is none at step 2: could not convert"),
        ({"info": None}, "the world gave NoneType for info at step 2; info is a dict"),
        ({"info": {"success": np.array([True, False])}}, "for success at step 2; success is true or false"),
    ],
)
def test_what_a_world_may_not_return_is_named(odd, said):
    with pytest.raises(WorldError, match=said):
        rollout(Returns(**odd), Noise(), seed=0)


def test_a_key_that_a_world_leaves_out_is_named():
    class Forgets(TinyWorld):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Dict({"a": self.observation_space, "b": self.observation_space})

        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            return {"a": observation}, info

    with pytest.raises(WorldError, match="at step 0: 'b'"):
        rollout(Forgets(), Noise(), seed=0)


def test_a_pose_called_rest_is_no_method_of_a_robot():
    world = TinyWorld()
    world.rest = world.driven_by = np.zeros(3)
    assert len(rollout(world, Noise(), seed=0)) == 5


@pytest.mark.parametrize("options", [{"max_steps": 1.5}, {"max_steps": math.nan}, {"after_success": -5}])
def test_a_number_of_steps_is_whole(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"{name} is .*; accepted: whole numbers"):
        rollout(TinyWorld(), Noise(), seed=0, **options)


def test_a_seed_may_be_one_of_numpy():
    assert rollout(TinyWorld(), Noise(), seed=np.int64(3)).seed == 3


def test_time_begins_with_the_first_observation():
    class Slow(Noise):
        def reset(self, seed):
            super().reset(seed)
            time.sleep(0.2)

    times = rollout(TinyWorld(), Slow(), seed=0).time_s
    assert times[0] == 0.0
    assert times[1] >= 0.2


def test_a_policy_that_is_no_agent_yet_is_told_how_to_become_one():
    class Policy:
        def predict(self, observations):
            return np.zeros((1, 2), np.float32)

    with pytest.raises(ConfigError, match=r"Policy is no agent; a policy acts as us\.PolicyAgent\(policy\)"):
        rollout(TinyWorld(), Policy(), seed=0)
