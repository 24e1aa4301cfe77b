import pickle

import numpy as np
import pytest

from understudy.agent import Demonstrator
from understudy.cli.arguments import found_expert
from understudy.errors import ConfigError, ExpertError, SpecMismatch
from understudy.rollout import rollout
from understudy.sim.experts import MLPExpert, PolicyExpert, expert_fingerprint, expert_for
from understudy.spec import Channel, Spec, spec_of
from understudy.worlds import make_env

SPEC = Spec("test/World-v0", 10.0, (Channel("x"), Channel("y"), Channel("z")), (Channel("u", "", -1, 1),) * 2)
FETCH = Spec(
    "test/Goal-v0",
    10.0,
    (
        *(Channel(f"achieved_goal[{index}]") for index in range(2)),
        *(Channel(f"desired_goal[{index}]") for index in range(2)),
        *(Channel(f"observation[{index}]") for index in range(3)),
    ),
    (Channel("action[0]", "", -1, 1), Channel("action[1]", "", -1, 1)),
)


def adroit_arrays(seed=0):
    random = np.random.default_rng(seed)
    shapes = {"w0": (4, 3), "b0": (4,), "w1": (5, 4), "b1": (5,), "w2": (2, 5), "b2": (2,)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {
        **arrays,
        "in_shift": random.normal(size=3),
        "in_scale": np.array([0.5, 2.0, 0.0]),
        "out_shift": random.normal(size=2),
        "out_scale": np.array([0.3, 4.0]),
        "log_std": np.zeros(2),
    }


def fetch_arrays(seed=0):
    random = np.random.default_rng(seed)
    sizes = {"fc1": (6, 5), "fc2": (6, 6), "fc3": (6, 6), "action_out": (2, 6)}
    arrays = {"obs_mean": random.normal(size=3), "goal_mean": random.normal(size=2)}
    arrays |= {"obs_std": random.uniform(0.1, 2, 3), "goal_std": random.uniform(0.1, 2, 2)}
    for name, shape in sizes.items():
        arrays[f"actor.{name}.weight"] = random.normal(size=shape)
        arrays[f"actor.{name}.bias"] = random.normal(size=shape[0])
    return arrays


def test_adroit_policies_compute_the_published_formula():
    a, o = adroit_arrays(), np.array([0.3, -2.0, 1.0], np.float32)
    x = (o - a["in_shift"]) / (a["in_scale"] + 1e-8)
    y = a["w2"] @ np.tanh(a["w1"] @ np.tanh(a["w0"] @ x + a["b0"]) + a["b1"]) + a["b2"]
    wanted = np.clip(y * a["out_scale"] + a["out_shift"], -1, 1)
    label = MLPExpert(a, SPEC).label(o)
    assert label.dtype == np.float32
    np.testing.assert_allclose(label, wanted, rtol=1e-6)


def test_fetch_policies_compute_the_published_formula_and_read_by_name():
    a = fetch_arrays()
    for seen in ([9.0, 9.0, 0.1, -0.2, 0.5, 1.5, -0.4], [0.0, 0.0, 1e9, -0.2, 0.5, 300.0, -0.4]):
        o = np.array(seen, np.float32)
        x = np.clip(np.concatenate([o[4:7], o[2:4]]), -200, 200)  # observation, desired goal
        x = np.clip((x - np.r_[a["obs_mean"], a["goal_mean"]]) / np.r_[a["obs_std"], a["goal_std"]], -5, 5)
        for layer in ("fc1", "fc2", "fc3"):
            x = np.maximum(a[f"actor.{layer}.weight"] @ x + a[f"actor.{layer}.bias"], 0)
        wanted = np.tanh(a["actor.action_out.weight"] @ x + a["actor.action_out.bias"])
        np.testing.assert_allclose(MLPExpert(a, FETCH).label(o), wanted, rtol=1e-6)


def test_an_expert_travels_to_a_worker():
    o = np.ones(7, np.float32)
    for arrays, spec in ((adroit_arrays(), SPEC), (fetch_arrays(), FETCH)):
        expert = MLPExpert(arrays, spec)
        seen = o[: len(spec.observations)]
        assert np.array_equal(pickle.loads(pickle.dumps(expert)).label(seen), expert.label(seen))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w2": None}, "lacks 'w2'"),
        ({"in_shift": np.zeros(4)}, r"'in_shift' has shape \(4,\); this world needs \(3\)"),
        ({"w0": np.zeros((4, 9))}, r"'w0' has shape \(4, 9\); this world needs \(4, 3\)"),
        ({"b1": np.zeros(7)}, r"'b1' has shape \(7,\)"),
        ({"w2": np.zeros((3, 5))}, r"'w2' has shape \(3, 5\); this world needs \(2, 5\)"),
        ({"w1": np.full((5, 4), np.nan)}, "'w1' holds something else than finite numbers"),
        ({"w1": np.full((5, 4), "x")}, "'w1' holds something else"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_line(tmp_path, change, said):
    arrays = {name: array for name, array in {**adroit_arrays(), **change}.items() if array is not None}
    np.savez(tmp_path / "expert.npz", **arrays)
    with pytest.raises(ExpertError, match=said) as caught:
        MLPExpert(tmp_path / "expert.npz", SPEC)
    assert "\n" not in str(caught.value)


def test_goal_policies_need_a_goal_world():
    with pytest.raises(ExpertError, match=r"obs_mean' has shape \(3,\); this world needs \(0\)"):
        MLPExpert(fetch_arrays(), SPEC)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "expert.npz").write_bytes(content)
    with pytest.raises(ExpertError, match=r"is no \.npz"):
        MLPExpert(tmp_path / "expert.npz", SPEC)


def test_a_file_of_objects_is_not_executed(tmp_path):
    np.savez(tmp_path / "expert.npz", **{**adroit_arrays(), "w0": np.array([{"a": 1}], object)})
    with pytest.raises(ExpertError):
        MLPExpert(tmp_path / "expert.npz", SPEC)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*gone\.npz"):
        MLPExpert(tmp_path / "gone.npz", SPEC)


class Doubler:
    spec, history, horizon = SPEC, 1, 3

    def predict(self, observations):
        return np.stack([2 * observations[-1, :2], np.zeros(2), np.zeros(2)]).astype(np.float32)


def test_a_policy_as_an_expert_answers_for_the_moment_it_is_asked():
    expert = PolicyExpert(Doubler(), SPEC)
    for value in (1.0, 5.0):
        assert (expert.label(np.full(3, value, np.float32)) == 2 * value).all()


def test_a_policy_of_another_world_or_with_a_memory_is_no_expert():
    with pytest.raises(SpecMismatch, match="the expert policy"):
        PolicyExpert(Doubler(), FETCH)
    remembering = Doubler()
    remembering.history = 2
    with pytest.raises(ConfigError, match="looks at 2 observations"):
        PolicyExpert(remembering, SPEC)


def test_the_bundled_world_has_two_scripted_experts_and_others_say_that_they_have_none():
    env = make_env("understudy/PickPlace-v0")
    env.reset(seed=0)
    for name in ("scripted", "scripted-human"):
        expert = expert_for(env, name)
        expert.reset(0)
        assert expert.engaged
        assert expert.label(env.reset(seed=0)[0]).shape == (7,)
    with pytest.raises(ConfigError, match="has no expert 'scripted-robot'; it has scripted, scripted-human"):
        expert_for(env, "scripted-robot")
    pen = make_env("understudy/AdroitPen-v0")
    with pytest.raises(ConfigError, match="AdroitPen-v0 has no scripted expert, as understudy/PickPlace-v0 has"):
        expert_for(pen, "scripted")
    with pytest.raises(ConfigError, match=r"no expert 'nobody'; accepted: scripted, scripted-human, an \.npz"):
        expert_for(pen, "nobody")


def test_a_world_may_bring_its_own_scripts():
    env = make_env("Pendulum-v1")
    env.unwrapped.scripted_experts = {"scripted": lambda env: MLPExpert(adroit_arrays(), SPEC)}
    assert isinstance(expert_for(env, "scripted"), MLPExpert)


def rate(shared_data, world, file, starts, first_seed=0):
    env = make_env(world)
    expert = expert_for(env, str(shared_data / file))
    assert spec_of(env).is_named
    successes = [rollout(env, Demonstrator(expert), seed=first_seed + start).success for start in range(starts)]
    env.close()
    return np.mean(successes)


EXPERTS = {
    "understudy/AdroitDoor-v0": ("adroit_experts/door.npz", 1.0, 1.0),
    "understudy/AdroitHammer-v0": ("adroit_experts/hammer.npz", 1.0, 1.0),
    "understudy/AdroitRelocate-v0": ("adroit_experts/relocate.npz", 1.0, 1.0),
    "understudy/AdroitPen-v0": ("adroit_experts/pen.npz", 0.6, 0.8),
    "FetchPush-v4": ("fetch_experts/FetchPush.npz", 0.9, 1.0),
    "FetchPickAndPlace-v4": ("fetch_experts/FetchPickAndPlace.npz", 0.8, 1.0),
}


@pytest.mark.parametrize("world", EXPERTS)
def test_the_published_experts_do_their_tasks(shared_data, world):
    file, _, _ = EXPERTS[world]
    assert rate(shared_data, world, file, starts=5) >= (0.2 if "Pen" in world else 0.8)


@pytest.mark.full
@pytest.mark.parametrize("world", EXPERTS)
def test_the_published_experts_reach_their_rates(shared_data, world):
    file, low, high = EXPERTS[world]
    assert low <= rate(shared_data, world, file, starts=30) <= high


def test_a_fingerprint_follows_the_files_of_an_expert_and_a_script_has_none(tmp_path):
    assert expert_fingerprint("scripted") == expert_fingerprint("human=0.2:scripted") == ""
    weights = tmp_path / "expert.npz"
    weights.write_bytes(b"one")
    one = expert_fingerprint(str(weights))
    assert one
    assert expert_fingerprint(f"human:noisy=0.1:{weights}") == one
    weights.write_bytes(b"two")
    assert expert_fingerprint(str(weights)) != one
    folder = tmp_path / "run/policy"
    folder.mkdir(parents=True)
    (folder / "policy.json").write_bytes(b"{}")
    (folder / "weights.safetensors").write_bytes(b"1")
    before = expert_fingerprint(str(tmp_path / "run"))
    (folder / "weights.safetensors").write_bytes(b"2")
    assert before != expert_fingerprint(str(tmp_path / "run")) == expert_fingerprint(str(folder))


def test_a_folder_called_like_a_script_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path / "data"))
    for folder in ("scripted", "data/scripted", "data/teacher"):
        (tmp_path / folder).mkdir(parents=True)
    assert found_expert("human:scripted") == "human:scripted"
    assert found_expert("noisy=0.2:teacher") == f"noisy=0.2:{tmp_path}/data/teacher"
    assert expert_fingerprint("scripted") == ""


def test_a_policy_that_acts_by_sampling_answers_as_it_acts(tmp_path):
    from understudy.execution import PolicyAgent
    from understudy.policies import FeedForward, FeedForwardConfig
    from understudy.statistics import ChannelStatistics

    policy = FeedForward(SPEC, FeedForwardConfig(hidden=(8,), head="gaussian")).initialized(0)
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    policy.fit_scaling(ChannelStatistics.of([rows]), ChannelStatistics.of([rows[:, :2]]))
    seen = np.zeros(3, np.float32)
    answers = {}
    for acts in ("mean", "sampled"):
        policy.acts = acts
        expert, agent = PolicyExpert(policy.for_execution(), SPEC), PolicyAgent(policy.for_execution())
        expert.reset(4)
        agent.reset(4)
        answers[acts] = [expert.label(seen) for _ in range(3)]
        np.testing.assert_array_equal(answers[acts], [agent.act(seen).action for _ in range(3)])
    assert np.ptp(answers["mean"], axis=0).max() == 0 < np.ptp(answers["sampled"], axis=0).max()


def test_a_script_does_not_answer_behind_a_wrapper_that_changes_what_it_knows():
    import gymnasium as gym

    inner = make_env("understudy/PickPlace-v0")
    wrapped = gym.wrappers.RescaleAction(inner, np.float32(-100), np.float32(100))
    with pytest.raises(ConfigError, match="changes its action_space, which its script knows as it was"):
        expert_for(wrapped, "scripted")
    assert expert_for(gym.wrappers.RecordEpisodeStatistics(inner), "scripted")
