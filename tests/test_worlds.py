import functools
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
from tiny_worlds import Says, build_tiny, tiny

from understudy.errors import ConfigError, MissingDependency
from understudy.rollout import rollout
from understudy.spec import flatten, spec_of
from understudy.worlds import make_env


@pytest.mark.parametrize(
    ("world", "observations", "actions", "control_hz", "first", "success"),
    [
        ("understudy/PickPlace-v0", 12, 7, 20.0, "joint_1.position", 0),
        ("understudy/AdroitPen-v0", 45, 24, 100.0, "WRJ1.position", None),
        ("AdroitHandPen-v1", 45, 24, 100.0, "observation[0]", None),
        ("Pendulum-v1", 3, 1, 20.0, "observation[0]", -1),
        ("FetchReach-v4", 16, 4, 25.0, "achieved_goal[0]", 0),
        ("FetchPickAndPlace-v4", 31, 4, 25.0, "achieved_goal[0]", 0),
    ],
)
def test_any_gymnasium_id_is_a_world(world, observations, actions, control_hz, first, success):
    env = make_env(world)
    spec = spec_of(env)
    assert (len(spec.observations), len(spec.actions)) == (observations, actions)
    assert spec.control_hz == pytest.approx(control_hz)
    assert spec.observations[0].name == first
    assert spec.env_id == world
    episode = rollout(env, Says(np.zeros(actions, np.float32)), seed=0, max_steps=5)
    assert episode.observations.shape == (6, observations)
    assert success is None or episode.success == success
    env.close()


def test_goal_worlds_flatten_in_the_order_of_their_channel_names():
    env = make_env("FetchReach-v4")
    raw, _ = env.reset(seed=0)
    flat = flatten(env.observation_space, raw)
    for channel, value in zip(spec_of(env).observations, flat, strict=True):
        key, _, index = channel.name.rstrip("]").partition("[")
        assert value == np.float32(raw[key][int(index)])


def test_a_dict_in_a_dict_has_channels_of_different_names():
    box = gym.spaces.Box(0, 1, (2,))
    space = gym.spaces.Dict({key: gym.spaces.Dict({"kettle": box}) for key in ("achieved", "desired")})
    env = build_tiny()
    env.observation_space = space
    names = [channel.name for channel in spec_of(env).observations]
    assert names == ["achieved.kettle[0]", "achieved.kettle[1]", "desired.kettle[0]", "desired.kettle[1]"]


def test_a_world_may_be_a_function_and_travels_by_pickle():
    for world in (tiny(length=3), functools.partial(make_env, "Pendulum-v1"), "Pendulum-v1"):
        assert isinstance(make_env(pickle.loads(pickle.dumps(world))), gym.Env)
    assert make_env(tiny(), length=3).length == 3
    with pytest.raises(ConfigError, match="refuses its arguments"):
        make_env(tiny(), no_such_argument=1)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ("understudy/AdroitDor-v0", "close to it: understudy/AdroitDoor-v0"),
        ("FetchReech-v4", "close to it: FetchReach"),
        ("nowhere/Nothing-v0", "no world is called 'nowhere/Nothing-v0'"),
        ("", "no world is called ''"),
    ],
)
def test_an_unknown_id_is_refused_with_those_close_to_it(world, said):
    with pytest.raises(ConfigError, match=said):
        make_env(world)


def test_an_id_from_data_imports_no_module():
    with pytest.raises(ConfigError, match="would import a module"):
        make_env("antigravity:World-v0")
    assert "antigravity" not in sys.modules


def test_a_module_that_is_not_there_is_a_mistake_on_the_command_line():
    with pytest.raises(ConfigError, match=r"'no_such_module' cannot be imported \(ModuleNotFoundError.*PYTHONPATH"):
        make_env("no_such_module:World-v0", allow_module=True)


def test_a_module_that_raises_says_what(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"'needs_more' cannot be imported .*No module named 'no_such_package'"):
        make_env("needs_more:World-v0", allow_module=True)


def test_an_argument_that_gymnasium_refuses_is_named():
    with pytest.raises(ConfigError, match=r"refuses its arguments .*max_episode_steps"):
        make_env("Pendulum-v1", max_episode_steps=0)


@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed here")
def test_a_world_whose_package_is_missing_says_so():
    with pytest.raises(MissingDependency, match=r"Box2D|box2d"):
        make_env("BipedalWalker-v3")


def test_a_mistake_inside_a_world_keeps_its_traceback():
    def broken():
        raise TypeError("a bug, and nobody's argument")

    with pytest.raises(TypeError, match="a bug"):
        make_env(broken)


@pytest.mark.parametrize("task", ["Door", "Hammer", "Relocate"])
def test_who_names_a_world_with_a_wrong_reward_is_warned(task):
    with pytest.warns(UserWarning, match=f"wrong sign .* understudy/Adroit{task}-v0 is the same world"):
        make_env(f"AdroitHand{task}-v1").close()


def test_worlds_print_nothing_that_nobody_asked_for():
    script = (
        "from understudy.worlds import make_env\n"
        "for world in ('understudy/AdroitDoor-v0', 'FetchReach-v4', 'AdroitHandPen-v1'):\n"
        "    make_env(world).reset(seed=0)\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_function_that_fails_to_build_a_world_says_why():
    @dataclass
    class Factory:
        id: str

        def __call__(self):
            return gym.make(self.id)

    with pytest.raises(ConfigError, match=r"the function that builds the world raised NameNotFound: .*NoSuchWorld"):
        make_env(Factory("NoSuchWorld-v0"))


@pytest.mark.parametrize("name", ["AdroitHandDoor-v1", "AdroitHandDoor"])
def test_the_wrong_sign_is_told_whatever_the_world_is_called(name):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        make_env(name).close()
    assert any("understudy/AdroitDoor-v0 is the same world" in str(one.message) for one in told)


def test_a_backend_that_mujoco_does_not_know_is_one_line():
    code = "from understudy import make_env; make_env('understudy/PickPlace-v0')"
    environment = {**os.environ, "MUJOCO_GL": "bogus"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "MissingDependency: MuJoCo cannot be loaded with MUJOCO_GL=bogus" in done.stderr


@pytest.mark.parametrize("environment", [{"DISPLAY": ":99"}, {"MUJOCO_GL": "glfw"}])
def test_a_display_that_leads_nowhere_takes_no_process_down(environment):
    code = """
from understudy import make_env
for _ in range(2):
    env = make_env("understudy/PickPlace-v0", render_mode="rgb_array")
    env.reset(seed=0)
    try:
        print(env.render().shape)
    except ImportError as error:
        print(error)
"""
    clean = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MUJOCO_GL", "WAYLAND_DISPLAY")}
    done = subprocess.run([sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_replay_is_as_long_as_the_recording_whatever_lies_over_the_limit_of_steps():
    from understudy.playback import replay

    def made(**options):
        return gym.make("understudy/PickPlace-v0", **options)

    recorded = rollout(made(max_episode_steps=30), Says(np.zeros(7, np.float32)), seed=0)
    short = gym.wrappers.RecordEpisodeStatistics(made(max_episode_steps=10))
    assert replay(short, recorded).steps == 30
    assert len(rollout(short, Says(np.zeros(7, np.float32)), seed=0)) == 10  # the limit is back
