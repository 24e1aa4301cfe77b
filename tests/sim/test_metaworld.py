import hashlib
import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from understudy.agent import Demonstrator, Replay
from understudy.errors import ConfigError, MissingDependency
from understudy.rollout import rollout
from understudy.sim import METAWORLD_TASKS
from understudy.sim.experts import expert_for
from understudy.sim.metaworld import MetaWorldEnv
from understudy.spec import spec_of
from understudy.worlds import make_env

needs_metaworld = pytest.mark.skipif(
    find_spec("metaworld") is None,
    reason="Metaworld (190 MB with SciPy) is not installed: pip install -e '.[metaworld]'",
)
# Tasks whose starts the library itself gets wrong, and one of each kind of object.
TASKS = ("disassemble", "drawer-open", "hammer", "pick-place", "window-close")
IDLE = np.zeros(4, np.float32)


def world(task, **arguments):
    return make_env(f"understudy/MetaWorld-{task}-v3", **arguments)


def followed(env, seed, steps=40):
    """What the scripted expert sees and earns from the start of a seed, one row for each step."""
    expert = expert_for(env, "scripted")
    observation, _ = env.reset(seed=seed)
    rows = [np.append(observation, 0.0)]
    for _ in range(steps):
        observation, reward, *_ = env.step(expert.label(observation))
        rows.append(np.append(observation, reward))
    return np.array(rows)


def test_naming_the_worlds_does_not_import_the_library():
    script = (
        "import sys, understudy\n"
        "from understudy.sim import METAWORLD_TASKS\n"
        "import gymnasium\n"
        "assert all(f'understudy/MetaWorld-{task}-v3' in gymnasium.registry for task in METAWORLD_TASKS)\n"
        "print(*{'metaworld', 'scipy', 'mujoco'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(MissingDependency, match=r'pip install -e "\.\[metaworld\]"') as caught:
        world("reach")
    assert "\n" not in str(caught.value)


@needs_metaworld
def test_there_is_a_world_for_each_task_of_the_library():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{task}-v3" for task in METAWORLD_TASKS} == set(ALL_V3_ENVIRONMENTS)
    assert list(METAWORLD_TASKS) == sorted(METAWORLD_TASKS)


@needs_metaworld
def test_every_channel_has_a_name_and_a_unit():
    spec = spec_of(world("reach"))
    assert (len(spec.observations), len(spec.actions)) == (39, 4)
    assert len({channel.name for channel in spec.observations}) == 39
    assert {channel.unit for channel in spec.observations} == {"m", "1"}
    assert all((channel.unit, channel.low, channel.high) == ("1", -1, 1) for channel in spec.actions)
    assert spec.control_hz == pytest.approx(80.0)
    assert spec.env_id == "understudy/MetaWorld-reach-v3"


@needs_metaworld
def test_the_named_channels_are_what_the_simulation_says():
    env = world("hammer")
    names = [channel.name for channel in spec_of(env).observations]
    before = followed(env, 3, steps=30)[-1, :39]
    observation = env.step(np.array([0.3, -0.2, 0.1, 1.0], np.float32))[0]
    data, released = env.unwrapped.data, env.unwrapped._released
    claws = data.body("rightclaw").xpos - data.body("leftclaw").xpos
    wanted = {
        "hand": data.body("hand").xpos,
        "object": data.body("hammer").xpos,
        "second_object": data.body("nail_link").xpos,
        "goal": released._target_pos,
    }
    for thing, place in wanted.items():
        seen = observation[[names.index(f"{thing}.{axis}") for axis in "xyz"]]
        np.testing.assert_allclose(seen, place, atol=1e-6, err_msg=thing)
    assert observation[names.index("fingers_apart")] == pytest.approx(np.linalg.norm(claws) / 0.1, abs=1e-6)
    for thing in ("object", "second_object"):
        attitude = observation[[names.index(f"{thing}.quaternion[{index}]") for index in range(4)]]
        assert np.linalg.norm(attitude) == pytest.approx(1.0, abs=1e-6)
    previous = [names.index(f"previous.{name}") for name in names[:18]]
    assert np.array_equal(observation[previous], before[:18].astype(np.float32))


@needs_metaworld
@pytest.mark.parametrize("task", TASKS)
def test_a_start_is_a_function_of_the_seed_whatever_was_before(task):
    env = world(task)
    fresh = followed(env, 1)
    np.random.seed(8)  # noqa: NPY002  (numpy's global generator, from which the library draws unless told otherwise)
    followed(env, 2, steps=120)
    assert np.array_equal(followed(env, 1), fresh)
    assert not np.array_equal(followed(env, 2), fresh)


@needs_metaworld
@pytest.mark.full
@pytest.mark.parametrize("task", METAWORLD_TASKS)
def test_a_start_of_every_task_is_a_function_of_the_seed(task):
    test_a_start_is_a_function_of_the_seed_whatever_was_before(task)


@needs_metaworld
def test_a_start_is_the_same_in_any_process():
    script = (
        "import hashlib, understudy\n"
        "env = understudy.make_env('understudy/MetaWorld-pick-place-v3')\n"
        "env.reset(seed=7)\n"
        "print(hashlib.sha256(env.reset(seed=3)[0].tobytes()).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here, _ = world("pick-place").reset(seed=3)
    assert result.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()
    assert result.stderr == ""


@needs_metaworld
@pytest.mark.parametrize("task", TASKS)
def test_a_start_is_that_of_the_librarys_own_task_with_the_same_positions(task):
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    env = world(task)
    env.reset(seed=11)
    environment = ALL_V3_ENVIRONMENTS[f"{task}-v3"]
    theirs = environment()
    positions = env.unwrapped._released._last_rand_vec
    data = {"env_cls": environment, "rand_vec": positions, "partially_observable": False}
    theirs.set_task(Task(f"{task}-v3", pickle.dumps(data)))
    theirs.reset()
    for now in (slice(18), slice(39)):  # at the first step, the library remembers the start as it wrongly saw it
        assert np.array_equal(env.step(IDLE)[0][now], theirs.step(IDLE)[0].astype(np.float32)[now])


@needs_metaworld
@pytest.mark.parametrize("task", TASKS)
def test_the_first_observation_shows_the_start(task):
    env = world(task)
    for seed in (0, 1):
        observation, _ = env.reset(seed=seed)
        assert np.array_equal(observation[:18], observation[18:36])
        after = env.step(IDLE)[0]
        assert np.array_equal(after[18:36], observation[:18])
        for place in (slice(0, 3), slice(4, 7), slice(11, 14)):  # the hand and both objects, in m
            np.testing.assert_allclose(after[place], observation[place], atol=0.02)


@needs_metaworld
def test_the_goal_is_observed_and_drawn():
    env = world("reach")
    goals = [env.reset(seed=seed)[0][-3:] for seed in range(3)]
    assert len({tuple(goal) for goal in goals}) == 3
    env.reset(seed=0)
    assert np.array_equal(env.step(IDLE)[0][-3:], goals[0])


@needs_metaworld
def test_an_episode_is_500_steps_truncated_and_may_be_longer():
    still = Replay(np.zeros((1, 4), np.float32))
    episode = rollout(world("reach"), still, seed=0)
    assert (len(episode), episode.truncated, episode.terminated, episode.success) == (500, True, False, 0)
    assert len(rollout(world("reach", max_episode_steps=510), still, seed=0)) == 510


@needs_metaworld
@pytest.mark.parametrize("task", ["door-open", "drawer-open", "pick-place", "reach", "window-close"])
def test_the_scripted_expert_does_its_task(task):
    env = world(task)
    agent = Demonstrator(expert_for(env, "scripted"))
    episodes = [rollout(env, agent, seed=seed, after_success=10) for seed in range(500_000, 500_003)]
    assert all(episode.success == 1 for episode in episodes)
    assert all((np.abs(episode.labels) <= 1.0).all() for episode in episodes)


@needs_metaworld
def test_the_scripted_expert_travels_to_a_worker():
    env = world("reach")
    expert = expert_for(env, "scripted")
    observation, _ = env.reset(seed=0)
    assert np.array_equal(pickle.loads(pickle.dumps(expert)).label(observation), expert.label(observation))


@needs_metaworld
def test_success_is_a_truth_value_at_each_step():
    env = world("reach")
    env.reset(seed=0)
    assert env.step(IDLE)[-1]["success"] is False


@needs_metaworld
def test_what_is_none_is_refused():
    with pytest.raises(ConfigError, match="Metaworld has assembly, basketball"):
        make_env("understudy/MetaWorld-reach-v3", task="cook")
    with pytest.raises(ConfigError, match="knows rgb_array"):
        MetaWorldEnv("reach", render_mode="human")
    with pytest.raises(ConfigError, match="options are initial_state; Metaworld's starts come from the seed alone"):
        world("reach").reset(seed=0, options={"initial_state": {}})


@needs_metaworld
def test_pictures_have_the_size_asked_for_and_every_camera_of_the_model():
    pictures = []
    for camera in ("front", "topview"):
        env = world("drawer-open", render_mode="rgb_array", width=160, height=120, camera=camera)
        env.reset(seed=0)
        try:
            pictures.append(env.render())
        except MissingDependency as reason:
            pytest.skip(str(reason))
        env.close()
    assert all(picture.shape == (120, 160, 3) and picture.std() > 10 for picture in pictures)
    assert not np.array_equal(*pictures)
    env = world("reach", render_mode="rgb_array", camera="sky")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="topview, corner, corner2"):
        env.render()
