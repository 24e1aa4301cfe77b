import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import understudy  # noqa: F401  (registers the worlds)
from understudy.errors import ConfigError, DataError, SpecMismatch
from understudy.spec import MOST_CHANNELS, Channel, Spec, box_channels, flatten, spec_of

SPEC = Spec(
    "test/World-v0",
    20.0,
    (Channel("joint.position", "rad", -math.pi, math.pi), Channel("cube.x", "m")),
    (Channel("joint.velocity", "rad/s", -1.0, 1.0),),
)


def changed(**what):
    return Spec(
        **{name: what.get(name, getattr(SPEC, name)) for name in ("env_id", "control_hz", "observations", "actions")}
    )


def test_a_spec_survives_json():
    assert Spec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(observations=SPEC.observations[:1]), "2 observation channels against 1"),
        (changed(observations=SPEC.observations[::-1]), "observation channel 0 is 'joint.position' against 'cube.x'"),
        (changed(actions=(Channel("joint.velocity", "deg/s"),)), "'rad/s' against 'deg/s'"),
        (changed(control_hz=50.0), "20 Hz against 50 Hz"),
    ],
)
def test_the_first_difference_is_named(other, said):
    with pytest.raises(SpecMismatch, match=said):
        SPEC.require(other, what="the dataset", against="the policy")


def test_what_nobody_stated_is_not_compared_and_limits_never_are():
    assert SPEC.first_difference(Spec.unnamed(2, 1)) is None
    assert SPEC.first_difference(changed(actions=(Channel("joint.velocity", "rad/s", -9, 9),))) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"observations": [], "actions": [{}]},
        {"observations": [{"name": 3}], "actions": [{}]},
        {"observations": [{"low": "0"}], "actions": [{}]},
        {"control_hz": math.nan, "observations": [{}], "actions": [{}]},
        {"control_hz": -1, "observations": [{}], "actions": [{}]},
        {"control_hz": True, "observations": [{}], "actions": [{}]},
        {"observations": [{}] * (MOST_CHANNELS + 1), "actions": [{}]},
    ],
)
def test_a_malformed_spec_is_refused(value):
    with pytest.raises(DataError):
        Spec.from_json(value)


def test_dict_spaces_flatten_in_their_own_order():
    space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (1,)), "b": gym.spaces.Box(0, 2, (2,))})
    np.testing.assert_array_equal(flatten(space, {"b": [1, 2], "a": [0]}), np.array([0, 1, 2], np.float32))


def test_a_world_without_names_gets_its_keys_and_its_rate():
    env = gym.make("Pendulum-v1", disable_env_checker=True)
    spec = spec_of(env)
    assert [channel.name for channel in spec.observations] == ["observation[0]", "observation[1]", "observation[2]"]
    assert spec.actions == (Channel("action[0]", "", -2.0, 2.0),)
    assert spec.control_hz == 20.0


def test_a_space_that_is_no_box_is_refused():
    with pytest.raises(ConfigError, match="Discrete"):
        spec_of(gym.make("CartPole-v1", disable_env_checker=True))


def test_a_space_of_more_numbers_than_any_policy_looks_at_is_refused():
    space = gym.spaces.Box(-1, 1, (MOST_CHANNELS + 1,), np.float32)
    with pytest.raises(ConfigError, match=r"observation space has 131073 numbers; accepted: up to 131072"):
        box_channels(space, "observation")


def test_a_wrapper_that_changes_the_numbers_takes_their_names_away():
    env = gym.make("understudy/PickPlace-v0", disable_env_checker=True)
    assert spec_of(env).actions[0].unit == "rad/s"
    scaled = spec_of(gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1)))
    assert scaled.actions[0].unit == ""
    assert scaled.actions[0].high == 1
    assert scaled.observations == spec_of(env).observations


def test_worlds_with_equal_channels_are_told_apart_by_their_ids():
    reach, push = (Spec(name, 50.0, (Channel("x"),), (Channel("v"),)) for name in ("Reach-v0", "Push-v0"))
    reach.require(push, what="push", against="reach")
    with pytest.raises(SpecMismatch, match="the world does not fit the policy: it is Push-v0 against Reach-v0"):
        reach.require_same_task(push, what="the world", against="the policy")
    reach.require_same_task(replace(push, env_id=""), what="the world", against="the policy")
    reach.require_same_task(reach, what="the world", against="the policy")
    with pytest.raises(SpecMismatch, match="1 observation channels against 2"):
        reach.require_same_task(replace(reach, observations=(Channel("x"),) * 2), what="the world", against="it")


def test_half_ranges_are_infinite_where_there_is_no_limit_and_no_room():
    largest = float(np.finfo(np.float32).max)
    limits = [(-1, 3), (-math.inf, math.inf), (0, math.inf), (2, 2), (-largest, largest)]
    spec = Spec("", 0.0, (Channel("x"),), tuple(Channel(str(index), "", *pair) for index, pair in enumerate(limits)))
    assert spec.action_half_ranges.tolist() == [2.0, *[math.inf] * 4]
    assert spec.action_half_ranges.dtype == np.float32


def test_what_a_wrapper_says_of_itself_is_heard():
    class Only(gym.ObservationWrapper):
        observation_channels = (Channel("cube.x", "m"), Channel("cube.y", "m"))

        def __init__(self, env):
            super().__init__(env)
            self.observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)

        def observation(self, observation):
            return observation[:2]

    class Slower(gym.Wrapper):
        control_hz = 5.0

    inner = gym.make("understudy/PickPlace-v0")
    spec = spec_of(Slower(Only(inner)))
    assert [channel.name for channel in spec.observations] == ["cube.x", "cube.y"]
    assert spec.actions == spec_of(inner).actions
    assert (spec.control_hz, spec_of(inner).control_hz) == (5.0, 20.0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_ends_of_what_numbers_can_say_are_no_limits(kind):
    most = np.finfo(kind).max
    (channel,) = box_channels(gym.spaces.Box(-most, most, (1,), kind), "observation")
    assert (channel.low, channel.high) == (-np.inf, np.inf)
