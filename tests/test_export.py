import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.datasets import SPEC, point_dataset, point_episode
from tests.policies.test_policies import POLICIES, feedforward
from tests.tiny_worlds import tiny
from understudy.checkpoint import load, save
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, MissingDependency, PolicyError, SpecMismatch
from understudy.evaluate import evaluate
from understudy.execution import PolicyAgent
from understudy.export import LARGEST_DIFFERENCE, _recorded, export
from understudy.loading import load_predictor
from understudy.policy_file import weights_of
from understudy.spec import Channel, Spec
from understudy.statistics import ChannelStatistics

pytest.importorskip("onnxruntime")
GOLDEN = Path(__file__).parent / "golden"
NOBODY = 65534


@pytest.fixture
def data(tmp_path):
    with Dataset.create(tmp_path / "data", SPEC) as dataset:
        for seed in range(3):
            dataset.append(point_episode(seed))
        yield dataset


@pytest.mark.parametrize("name", POLICIES)
def test_an_exported_policy_says_what_the_policy_says_on_random_and_on_recorded_observations(tmp_path, name):
    policy = POLICIES[name]()
    data = point_dataset(tmp_path / "data", 3, spec=policy.spec)
    result = export(policy, tmp_path / "policy.onnx", data, draws=200)
    assert result.difference <= LARGEST_DIFFERENCE
    assert (result.random, result.recorded) == (200, 60)
    assert "200 random and 60 recorded" in str(result)
    exported = load_predictor(result.path)
    assert (exported.spec, exported.history, exported.horizon) == (policy.spec, policy.history, policy.horizon)
    drawn = np.random.default_rng(7)
    for _ in range(50):
        observations = drawn.normal(2, 6, (policy.history, 3)).astype(np.float32)
        np.testing.assert_allclose(exported.predict(observations), policy.predict(observations), atol=2e-5)
        np.testing.assert_allclose(
            exported.predictions(observations), policy.for_execution().predictions(observations), atol=2e-5
        )


@pytest.mark.parametrize("name", POLICIES)
def test_an_exported_policy_answers_no_number_with_no_number(tmp_path, name):
    """A limit must not turn a broken sensor into full speed."""
    policy = POLICIES[name]()
    exported = load_predictor(export(policy, tmp_path / "policy.onnx", draws=5).path)
    for channel in range(3):
        observations = np.ones((policy.history, 3), np.float32)
        observations[-1, channel] = np.nan
        assert np.isnan(exported.predict(observations)).all()


def test_a_policy_that_acts_by_sampling_is_not_exported_in_silence(tmp_path):
    policy = feedforward(head="gaussian")
    policy.acts = "sampled"
    with pytest.raises(PolicyError, match="acts by sampling, and an exported file answers with its mean"):
        export(policy, tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_what_differs_is_not_written(tmp_path, data):
    policy = feedforward()
    correct = policy.predict
    policy.predict = lambda observations: correct(observations) + np.float32([0, 1e-4])
    with pytest.raises(PolicyError, match=r"y\.velocity.*nothing was written"):
        export(policy, tmp_path / "policy.onnx", draws=5)
    policy.predict = lambda observations: correct(observations) * np.float32(np.nan)
    with pytest.raises(PolicyError, match="nothing was written"):
        export(policy, tmp_path / "policy.onnx", draws=5)
    only_recorded = {point.tobytes() for episode in data for point in episode.observations}
    policy.predict = lambda observations: correct(observations) + (observations.tobytes() in only_recorded)
    with pytest.raises(PolicyError, match="nothing was written"):
        export(policy, tmp_path / "policy.onnx", data, draws=5)
    assert not (tmp_path / "policy.onnx").exists()


def test_an_exported_policy_is_never_overwritten_and_has_its_own_name(tmp_path):
    (tmp_path / "policy.onnx").write_text("mine")
    with pytest.raises(PolicyError, match="never overwritten"):
        export(feedforward(), tmp_path / "policy.onnx")
    assert (tmp_path / "policy.onnx").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"does not end in \.onnx"):
        export(feedforward(), tmp_path / "policy")


def test_data_of_another_task_are_refused(tmp_path):
    other = Spec("test/Other-v0", 10.0, (Channel("a"),) * 3, SPEC.actions)
    with Dataset.create(tmp_path / "data", other) as dataset, pytest.raises(SpecMismatch, match="'a'"):
        export(feedforward(), tmp_path / "policy.onnx", dataset)


def test_without_onnxruntime_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"pip install onnxruntime"):
        load_predictor(GOLDEN / "ensemble-1" / "policy.onnx")
    with pytest.raises(MissingDependency, match=r"pip install onnxruntime"):
        export(feedforward(), tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_channels_without_limits_are_compared_by_the_range_of_the_training(tmp_path):
    unlimited = Spec("test/Point-v0", 10.0, SPEC.observations, (Channel("x.velocity"), Channel("y.velocity")))
    policy = feedforward()
    policy.spec = unlimited
    result = export(policy, tmp_path / "policy.onnx", draws=50)
    assert result.difference <= LARGEST_DIFFERENCE
    far = np.full((1, 3), 1e6, np.float32)
    np.testing.assert_allclose(load_predictor(result.path).predict(far), policy.predict(far), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 100.0, 300.3, 1e6])
@pytest.mark.parametrize("limit", [np.inf, 2e6])
def test_an_action_that_was_always_the_same_is_exported_however_large(tmp_path, value, limit):
    """Only the last digits of such numbers differ."""
    actions = tuple(Channel(name, "1", -limit, limit) for name in "xy")
    policy = feedforward()
    policy.spec = Spec("test/Point-v0", 10.0, SPEC.observations, actions)
    columns = [np.full(2, number, np.float32) for number in (value, value, value, 0)]
    policy.fit_scaling(policy.statistics[0], ChannelStatistics(*columns))
    assert export(policy, tmp_path / "policy.onnx", draws=300).path.exists()


@pytest.mark.parametrize("lengths", [[1] * 10_000, [3] * 4_000, [4_000, 4_000], [7]])
def test_recorded_steps_are_compared_evenly_and_no_more_of_them_than_promised(lengths):
    class Recorded(list):
        steps = sum(lengths)

    episodes = Recorded(Episode(np.zeros((length + 1, 3)), np.zeros((length, 2))) for length in lengths)
    compared = len(list(_recorded(feedforward(), episodes)))
    assert min(sum(lengths), 2_500) <= compared <= 5_000


def test_an_exported_policy_runs_in_worker_processes_and_succeeds_where_the_policy_does(tmp_path):
    policy = feedforward()
    policy.spec = Spec.unnamed(3, 2)
    exported = load_predictor(export(policy, tmp_path / "policy.onnx", draws=5).path)
    twin = pickle.loads(pickle.dumps(PolicyAgent(exported)))
    twin.reset(0)
    observation = np.ones(3, np.float32)
    np.testing.assert_array_equal(twin.act(observation).action, exported.predict(observation[None])[0])
    alone = evaluate(tiny(), policy, episodes=4)
    together = evaluate(tiny(), exported, episodes=4, workers=2)
    np.testing.assert_allclose(
        [trial.total_reward for trial in alone.trials], [trial.total_reward for trial in together.trials], atol=1e-4
    )


# --- promise R4: a policy loads elsewhere
def expected(name):
    with np.load(GOLDEN / name / "expected.npz", allow_pickle=False) as stored:
        return list(zip(stored["observations"], stored["actions"], strict=True))


@pytest.mark.parametrize("name", sorted(os.listdir(GOLDEN)))
def test_exported_policies_of_every_released_format_run_for_ever(name):
    """The golden files were written by the release they are named after and are never written again."""
    path = GOLDEN / name / "policy.onnx"
    trained, exported = load(path), load_predictor(path)
    assert weights_of(trained.arrays()) == weights_of(load(GOLDEN / name).arrays())
    reach = trained.spec.action_high - trained.spec.action_low
    for observations, actions in expected(name):
        assert (np.abs(exported.predict(observations) - actions) / reach).max() <= 1e-5
        np.testing.assert_allclose(trained.predict(observations), actions, atol=2e-5)


ELSEWHERE = """
import hashlib, os, sys
import numpy as np
import understudy as us
folder, torch, user = sys.argv[1], sys.argv[2] == "torch", int(sys.argv[3])
with np.load(folder + "/expected.npz", allow_pickle=False) as stored:
    pairs = list(zip(stored["observations"], stored["actions"]))
if user:
    for path in (folder, folder + "/policy.onnx"):  # an interpreter that only root may read imports all it needs now
        us.load(path) if torch else us.load_predictor(path)
    os.setgroups([]); os.setgid(user); os.setuid(user)
    assert os.geteuid() == user
for path in (folder, folder + "/policy.onnx"):
    policy = us.load(path) if torch else us.load_predictor(path)
    reach = policy.spec.action_high - policy.spec.action_low
    for observations, actions in pairs:
        assert (np.abs(policy.predict(observations) - actions) / reach).max() <= 1e-5
    if torch:
        print(hashlib.sha256(b"".join(policy.predict(observations).tobytes() for observations, _ in pairs)).hexdigest())
assert torch or "torch" not in sys.modules
print("done")
"""


@pytest.fixture
def elsewhere():
    """A folder at another place that everybody may read."""
    folder = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def answers(policy, name):
    import hashlib

    said = b"".join(policy.predict(observations).tobytes() for observations, _ in expected(name))
    return hashlib.sha256(said).hexdigest()


@pytest.mark.parametrize("half", ["torch", "numpy and onnxruntime"])
@pytest.mark.parametrize("name", sorted(os.listdir(GOLDEN)))
def test_a_policy_loads_at_another_path_and_says_the_same_bytes_in_torch(elsewhere, name, half):
    shutil.copytree(GOLDEN / name, elsewhere / "copy of it")
    done = run_elsewhere(elsewhere / "copy of it", half)
    if half == "torch":
        assert done == [answers(load(GOLDEN / name), name)] * 2 + ["done"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("half", ["torch", "numpy and onnxruntime"])
def test_a_policy_that_one_user_saved_loads_for_another(elsewhere, half):
    save(feedforward(), elsewhere / "policy")
    export(load(elsewhere / "policy"), elsewhere / "policy" / "policy.onnx", draws=5)
    observations = np.ones((3, 1, 3), np.float32)
    actions = np.array([load(elsewhere / "policy").predict(one) for one in observations])
    np.savez(elsewhere / "policy" / "expected.npz", observations=observations, actions=actions)
    assert run_elsewhere(elsewhere / "policy", half, user=NOBODY)[-1] == "done"


def run_elsewhere(folder, half, user=0):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), half, str(user)],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
