import subprocess
import sys

import mujoco
import numpy as np
import pytest

from understudy.agent import Replay
from understudy.errors import ConfigError, MissingDependency
from understudy.rollout import rollout
from understudy.spec import spec_of
from understudy.worlds import make_env

SIZES = {"Door": (39, 28), "Hammer": (46, 26), "Pen": (45, 24), "Relocate": (39, 30)}
TASKS = tuple(SIZES)
WRONG = ("Door", "Hammer", "Relocate")


@pytest.fixture(scope="module")
def worlds():
    """Each task once, as bundled and as released."""
    pairs = {}
    for task in TASKS:
        bundled = make_env(f"understudy/Adroit{task}-v0")
        if task in WRONG:
            with pytest.warns(UserWarning, match=f"understudy/Adroit{task}-v0"):
                released = make_env(f"AdroitHand{task}-v1")
        else:
            released = make_env(f"AdroitHand{task}-v1")
        pairs[task] = bundled, released
    yield pairs
    for pair in pairs.values():
        for env in pair:
            env.close()


def random_steps(env, seed, steps=12):
    """What a world says to random actions: observations, rewards, successes; and the distance of palm and object."""
    random = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows = [(observation, 0.0, False)]
    for _ in range(steps):
        action = random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        assert not truncated
        rows.append((observation, reward, info["success"]))
    return tuple(zip(*rows, strict=True))


def distance(env, task):
    data = env.unwrapped.data
    reached = data.site("S_handle").xpos if task == "Door" else data.body("Object").xpos
    return np.linalg.norm(data.site("S_grasp").xpos - reached)


@pytest.mark.parametrize("task", TASKS)
def test_physics_starts_and_success_are_those_of_the_release(worlds, task):
    (ours, _, our_success), (theirs, _, their_success) = (random_steps(env, 7) for env in worlds[task])
    assert np.array_equal(ours, np.array(theirs, np.float32))
    assert ours[0].dtype == np.float32
    assert our_success == their_success


@pytest.mark.parametrize("task", TASKS)
def test_the_dense_reward_of_the_authors_differs_by_the_sign_of_the_distance_alone(worlds, task):
    ours, theirs = worlds[task]
    random = np.random.default_rng(0)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    for _ in range(12):
        action = random.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        our_reward, their_reward = ours.step(action)[1], theirs.step(action)[1]
        wrong = 0.1 * distance(theirs, task) if task in WRONG else 0.0
        assert our_reward == pytest.approx(their_reward - 2 * wrong, abs=1e-9)
        assert isinstance(our_reward, float)


def door_reward(data):
    """The authors' reward, literally (mj_envs, hand_manipulation_suite/door_v0.py)."""
    palm, handle = data.site("S_grasp").xpos, data.site("S_handle").xpos
    door = data.joint("door_hinge").qpos.item()
    reward = -0.1 * np.linalg.norm(palm - handle)
    reward += -0.1 * (door - 1.57) * (door - 1.57)
    reward += -1e-5 * np.sum(data.qvel**2)
    return reward + 2 * (door > 0.2) + 8 * (door > 1.0) + 10 * (door > 1.35)


def hammer_reward(data):
    """The authors' reward, literally (hammer_v0.py)."""
    palm, hammer = data.site("S_grasp").xpos, data.body("Object").xpos
    tool, target, goal = (data.site(name).xpos for name in ("tool", "S_target", "nail_goal"))
    reward = -0.1 * np.linalg.norm(palm - hammer)
    reward -= np.linalg.norm(tool - target)
    reward -= 10 * np.linalg.norm(target - goal)
    reward -= 1e-2 * np.linalg.norm(data.qvel)
    reward += 2 * (hammer[2] > 0.04 and tool[2] > 0.04)
    gap = np.linalg.norm(target - goal)
    return reward + 25 * (gap < 0.020) + 75 * (gap < 0.010)


def relocate_reward(data):
    """The authors' reward, literally (relocate_v0.py)."""
    palm, ball, target = data.site("S_grasp").xpos, data.body("Object").xpos, data.site("target").xpos
    reward = -0.1 * np.linalg.norm(palm - ball)
    if ball[2] > 0.04:
        reward += 1.0 - 0.5 * np.linalg.norm(palm - target) - 0.5 * np.linalg.norm(ball - target)
    gap = np.linalg.norm(ball - target)
    return reward + 10.0 * (gap < 0.1) + 20.0 * (gap < 0.05)


@pytest.mark.parametrize(
    ("task", "literal"), [("Door", door_reward), ("Hammer", hammer_reward), ("Relocate", relocate_reward)]
)
def test_the_dense_reward_is_the_authors_formula(worlds, task, literal):
    env = worlds[task][0]
    random = np.random.default_rng(1)
    env.reset(seed=1)
    if task == "Door":
        state = env.unwrapped.state()
        state["qpos"][-2] = 1.2  # an open door, so that the bonus counts
        env.reset(seed=1, options={"initial_state": state})
    for _ in range(15):
        reward = env.step(random.uniform(-1, 1, env.action_space.shape).astype(np.float32))[1]
        assert reward == pytest.approx(literal(env.unwrapped.data), abs=1e-9)


def test_the_sparse_reward_is_the_released_one():
    env = make_env("understudy/AdroitDoor-v0", reward="sparse")
    assert set(random_steps(env, 0)[1]) == {0.0, -0.1}
    state = env.unwrapped.state()
    state["qpos"][-2] = 1.5
    env.reset(seed=0, options={"initial_state": state})
    _, reward, _, _, info = env.step(np.zeros(28, np.float32))
    assert reward == 10.0
    assert info["success"]


@pytest.mark.parametrize("task", TASKS)
def test_every_channel_has_a_name_and_a_unit(worlds, task):
    spec = spec_of(worlds[task][0])
    assert (len(spec.observations), len(spec.actions)) == SIZES[task]
    assert spec.is_named
    assert all(channel.unit in ("rad", "m", "rad/s", "m/s", "N", "1") for channel in spec.observations)
    assert len({channel.name for channel in spec.observations}) == len(spec.observations)
    assert all((channel.unit, channel.low, channel.high) == ("1", -1, 1) for channel in spec.actions)
    assert spec.control_hz == pytest.approx(100.0)
    assert spec.env_id == f"understudy/Adroit{task}-v0"


@pytest.mark.parametrize("task", TASKS)
def test_the_named_channels_are_what_the_simulation_says(worlds, task):
    env = worlds[task][0]
    observation = random_steps(env, 5)[0][-1]
    data = env.unwrapped.data
    site = {"palm": "S_grasp", "handle": "S_handle", "nail": "S_target"}
    checked = 0
    for channel, value in zip(spec_of(env).observations, observation, strict=True):
        name, _, part = channel.name.partition(".")
        if part == "position":
            wanted = data.joint(name).qpos.item()
        elif part == "velocity":
            wanted = np.clip(data.joint(name).qvel.item(), channel.low, channel.high)
        elif name in site:
            wanted = data.site(site[name]).xpos["xyz".index(part)]
        elif name in ("hammer", "pen") and part in "xyz":
            wanted = data.body("Object").xpos["xyz".index(part)]
        elif name == "palm_from_handle":
            wanted = (data.site("S_grasp").xpos - data.site("S_handle").xpos)["xyz".index(part)]
        elif name == "palm_from_ball":
            wanted = (data.site("S_grasp").xpos - data.body("Object").xpos)["xyz".index(part)]
        elif name == "ball_from_target":
            wanted = (data.body("Object").xpos - data.site("target").xpos)["xyz".index(part)]
        else:
            continue
        checked += 1
        assert value == pytest.approx(wanted, abs=1e-5), channel.name
    assert checked > 30


@pytest.mark.parametrize("task", TASKS)
def test_a_start_can_be_set_and_leaves_nothing_behind(worlds, task):
    env = worlds[task][0]
    fresh = random_steps(env, 2)
    env.reset(seed=9)
    state = env.unwrapped.state()
    first, _ = env.reset(seed=2, options={"initial_state": state})
    again, _ = env.reset(seed=4, options={"initial_state": {key: list(value) for key, value in state.items()}})
    assert np.array_equal(first, again)
    for key, value in env.unwrapped.state().items():
        np.testing.assert_allclose(value, state[key], atol=1e-12)
    lifted = {key: value + 0.01 if key in ("obj_pos", "board_pos") else value for key, value in state.items()}
    env.reset(seed=2, options={"initial_state": lifted})
    assert all(np.array_equal(one, two) for one, two in zip(fresh, random_steps(env, 2), strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"door_body_pos": None}, "lacks door_body_pos; it has qpos, qvel"),
        ({"qpos": np.zeros(29)}, r"qpos as finite numbers \(30,\); got \(29,\)"),
        ({"qvel": np.full(30, np.nan)}, "qvel as finite numbers"),
    ],
)
def test_a_start_that_is_none_is_refused(worlds, change, said):
    env = worlds["Door"][0]
    state = {key: value for key, value in {**env.unwrapped.state(), **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=said):
        env.reset(seed=0, options={"initial_state": state})


@pytest.mark.parametrize("task", TASKS)
def test_a_state_in_the_middle_of_an_episode_is_one_to_begin_from(worlds, task):
    env = worlds[task][0]
    env.reset(seed=3)
    random = np.random.default_rng(0)
    for _ in range(60):
        env.step(random.uniform(-1, 1, env.action_space.shape).astype(np.float32))
    model, data = env.unwrapped.model, env.unwrapped.data
    if task == "Relocate":
        data.qpos[-3:] = [0.1, -0.05, 0.2]  # as if the hand had carried the ball
        mujoco.mj_forward(model, data)
    state, seen = env.unwrapped.state(), env.unwrapped._released._get_obs()
    again, _ = env.reset(seed=8, options={"initial_state": state})
    np.testing.assert_allclose(again, seen, atol=2e-2)  # solving the contacts anew moves a little
    for key, value in env.unwrapped.state().items():
        np.testing.assert_allclose(value, state[key], atol=1e-12)


def test_an_option_that_is_none_is_refused(worlds):
    with pytest.raises(ConfigError, match=r"reset has no option 'inital_state'; it knows initial_state"):
        worlds["Door"][0].reset(seed=0, options={"inital_state": {}})


@pytest.mark.parametrize("size", [0, -5, 640.5, "abc", 20000])
def test_a_picture_of_an_impossible_size_is_refused(size):
    env = make_env("understudy/AdroitDoor-v0", render_mode="rgb_array", width=size)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"width is .*; a picture has 1 to 4096 whole pixels"):
        env.render()


def test_an_episode_is_200_steps_truncated():
    env = make_env("understudy/AdroitDoor-v0")
    episode = rollout(env, Replay(np.zeros((1, 28), np.float32)), seed=0)
    assert (len(episode), episode.truncated, episode.terminated, episode.success) == (200, True, False, 0)


@pytest.mark.parametrize("arguments", [{"reward": "shaped"}, {"task": "cook"}, {"no_such": 1}])
def test_an_argument_that_is_none_is_refused(arguments):
    with pytest.raises(ConfigError):
        make_env("understudy/AdroitDoor-v0", **arguments)


def test_demonstrations_replay_from_their_starts(shared_data):
    with np.load(shared_data / "adroit_door_human" / "episodes" / "000.npz", allow_pickle=False) as file:
        demonstration = dict(file)
    env = make_env("understudy/AdroitDoor-v0", max_episode_steps=1000)
    start = {key: demonstration[f"init_{key}"] for key in ("qpos", "qvel", "door_body_pos")}
    actions = demonstration["actions"].astype(np.float32)
    episode = rollout(env, Replay(actions), seed=0, options={"initial_state": start}, max_steps=len(actions))
    assert (episode.actions <= 1).all(), "the world clips what reaches 1.37"
    hinge = [channel.name for channel in spec_of(env).observations].index("door_hinge.position")
    assert episode.observations[:, hinge].max() > 1.0, "all 25 of them open the door by 1 rad"


def test_pictures_have_the_size_asked_for():
    env = make_env("understudy/AdroitPen-v0", render_mode="rgb_array", width=160, height=120)
    env.reset(seed=0)
    try:
        picture = env.render()
    except MissingDependency as reason:
        pytest.skip(str(reason))
    assert picture.shape == (120, 160, 3)
    assert picture.std() > 10
    assert env.unwrapped.metadata["render_modes"] == ["rgb_array"]
    env.close()


def test_a_camera_that_is_none_is_refused_with_a_list():
    env = make_env("understudy/AdroitPen-v0", render_mode="rgb_array", camera="sky")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="fixed, vil_camera, view_1"):
        env.render()


def test_without_opengl_the_world_steps_and_only_the_picture_is_refused():
    script = (
        "import sys; sys.modules['mujoco.egl'] = sys.modules['mujoco.glfw'] = sys.modules['mujoco.osmesa'] = None\n"
        "import numpy as np\n"
        "from understudy.errors import MissingDependency\n"
        "from understudy.worlds import make_env\n"
        "env = make_env('understudy/AdroitDoor-v0', render_mode='rgb_array'); env.reset(seed=0)\n"
        "env.step(np.zeros(28, np.float32))\n"
        "try: env.render()\n"
        "except MissingDependency as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "apt-get install libegl1 libgl1-mesa-dri" in result.stdout
    assert result.stderr == "", "no notice, no complaint at exit"


def test_importing_the_worlds_loads_nothing_heavy():
    script = (
        "import sys, understudy.sim\n"
        "print(*{'mujoco', 'torch', 'gymnasium_robotics', 'OpenGL', 'av'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
