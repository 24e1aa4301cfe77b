"""The commands that move a robot."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import understudy as us
from understudy.cli import main
from understudy.cli.robots import _ctrl_c
from understudy.robots.fake import FakeConfig
from understudy.robots.guard_messages import Seen, Status
from understudy.statistics import ChannelStatistics


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """An untrained network for the fake robot: slow, and good enough to move."""
    path = tmp_path_factory.mktemp("policy") / "policy"
    spec = FakeConfig().spec().spec()
    network = us.FeedForward(spec, us.FeedForwardConfig(hidden=(8,))).initialized(0)
    rows = np.linspace(-0.3, 0.3, 50, dtype=np.float32)[:, None] * np.ones(6, np.float32)
    network.fit_scaling(ChannelStatistics.of([rows]), ChannelStatistics.of([rows]))
    us.save(network, path)
    return path


def run(*words):
    return main([str(word) for word in words])


def test_deploy_records_every_run_and_sums_up(policy, tmp_path, capfd):
    out, result = tmp_path / "runs", tmp_path / "runs.json"
    words = ["deploy", policy, "--robot", "fake", "--out", out, "--max-steps", 25, "--novelty", "None"]
    assert run(*words, "--episodes", 2, "--json", result) == 0
    said = capfd.readouterr().out
    assert "2 runs, 0 of 0 judged ones succeeded" in said
    assert "of 50 deadlines missed" in said
    assert "Hz" in said
    assert "novelty -" in said, "nobody measured it"
    assert len(us.Dataset.open(out)) == 2
    assert [entry["id"] for entry in json.loads(result.read_text())] == [0, 1]
    assert run(*words) == 0
    assert len(us.Dataset.open(out)) == 3, "an existing dataset grows"


NO_TORCH = """
import sys, importlib.abc
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
from understudy.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_fine_tuned_policy_is_deployed_as_it_acts_and_exported_without_torch(tmp_path, capfd):
    """A residual on each member of an ensemble, drawn from its distribution: what `finetune` may deploy."""
    pytest.importorskip("onnxruntime")
    spec = FakeConfig().spec().spec()
    config = us.FeedForwardConfig(hidden=(8,), head="gaussian", skip=True, skip_hidden=(4,))
    ensemble = us.Ensemble.of(us.FeedForward(spec, config).initialized(0), 2, seed=0)
    rows = np.linspace(-0.3, 0.3, 50, dtype=np.float32)[:, None] * np.ones(6, np.float32)
    ensemble.fit_scaling(ChannelStatistics.of([rows]), ChannelStatistics.of([rows]))
    ensemble.acts = "sampled"
    us.save(ensemble, tmp_path / "policy")
    out, exported = tmp_path / "runs", tmp_path / "policy.onnx"
    words = ["--robot", "fake", "--out", out, "--max-steps", 15, "--novelty", "None"]
    assert run("deploy", tmp_path / "policy", *words) == 0
    assert run("export", tmp_path / "policy", "--out", exported) == 2
    assert "export the mean (--mean" in capfd.readouterr().err
    assert run("export", tmp_path / "policy", "--out", exported, "--mean", "--draws", 5) == 0
    command = [sys.executable, "-c", NO_TORCH, "deploy", exported, *words]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)
    sampled, mean = (np.abs(np.diff(episode.asked_actions, axis=0)).mean() for episode in us.Dataset.open(out))
    assert sampled > 5 * mean, "only the mean is smooth"


def test_ctrl_c_stops_the_robot_and_keeps_the_run(policy, tmp_path):
    out = tmp_path / "runs"
    words = ["deploy", policy, "--robot", "fake", "--out", out, "--max-steps", 300, "--novelty", "None"]
    code = f"import sys; from understudy.cli import main; sys.exit(main({[str(word) for word in words]!r}))"
    deployed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in deployed.stdout:
        if line.startswith("running") and " 0.0 Hz" not in line:
            break
    deployed.send_signal(signal.SIGINT)
    said = deployed.stdout.read()
    assert deployed.wait(timeout=30) == 1  # the robot is stopped, and a script around this may want to know
    deployed.stdout.close()
    assert "STOPPED: stop button: Ctrl-C" in said
    (row,) = us.Dataset.open(out).rows
    assert not row.partial
    assert row.length > 10


def test_a_dry_run_shows_what_would_be_sent_and_records_nothing(policy, tmp_path, capfd):
    out = tmp_path / "runs"
    words = ["deploy", policy, "--robot", "fake", "--out", out, "--max-steps", 10]
    assert run(*words, "--dry-run") == 0
    said = capfd.readouterr().out
    assert "would send [" in said
    assert "nothing was sent and nothing recorded" in said
    assert not out.exists()


def test_replay_plays_an_episode_through_the_gate(policy, tmp_path, capfd):
    out, result = tmp_path / "runs", tmp_path / "replay.json"
    run("deploy", policy, "--robot", "fake", "--out", out, "--max-steps", 25, "--novelty", "None")
    assert run("replay", out, "--robot", "fake", "--json", result) == 0
    assert "gate:" in capfd.readouterr().out
    assert json.loads(result.read_text())[0]["steps"] == 25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--robot", "toaster"], "no robot is called 'toaster'"),
        (["--robot", "fake", "--robot-arg", "mode=position"], "does not fit"),
        (["--robot", "fake", "--limits", "nowhere.json"], "cannot be read"),
        (["--robot", "fake", "--expert", "scripted"], "name it with --env"),
        (["--robot", "fake", "--episodes", "0"], "episodes is 0"),
        (["--robot", "fake", "--doubt", "0.1"], "no ensemble"),
        (["--robot", "fake", "--timeout-s", "5"], "timeout_s is 5"),
        (["--robot", "fake", "--execute", "0"], "execute is 0"),
        (["--robot", "fake", "--ensemble-decay", "-1"], "ensemble_decay is -1"),
    ],
)
def test_mistakes_are_one_line_before_a_guard_is_started(policy, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(us, "RobotEnv", None)
    assert run("deploy", policy, *words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["deploy", "record"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("other_channels", "'joint_1.position' against 'joint_1.velocity'; name another folder with --out"),
        ("other_robot", "robot/arm against robot/fake; name another folder with --out"),
        ("no_dataset", "no_dataset is not empty and no dataset; name a dataset to append to, or a new folder"),
    ],
)
def test_a_place_that_takes_no_episodes_is_refused_before_a_guard_is_started(
    policy, command, place, message, capsys, tmp_path, monkeypatch
):
    spec = FakeConfig().spec().spec()
    us.Dataset.create(tmp_path / "other_channels", FakeConfig(mode="position").spec().spec())
    us.Dataset.create(tmp_path / "other_robot", replace(spec, env_id="robot/arm"))
    (tmp_path / "no_dataset").mkdir()
    (tmp_path / "no_dataset" / "mine.txt").touch()
    monkeypatch.setattr(us, "RobotEnv", None)
    words = [policy] if command == "deploy" else []
    assert run(command, *words, "--robot", "fake", "--out", tmp_path / place) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--robot", "sim", "--env", "understudy/PickPlace-v0"], "give one of the two"),
        (["--robot", "sim", "--env-arg", "reward=shaped"], "give one of the two"),
        (["--env", "understudy/PickPlace-v0", "--limits", "limits.json"], "name it with --robot NAME"),
        (["--env", "understudy/PickPlace-v0", "--robot-arg", "noise=0.1"], "name it with --robot NAME"),
        (["--env", "understudy/PickPlace-v0", "--dry-run"], "name it with --robot NAME"),
    ],
)
def test_replay_ignores_no_option_of_the_other_place(words, message, tmp_path, capsys):
    assert run("replay", tmp_path, *words) == 2
    assert message in capsys.readouterr().err


def test_replay_wants_a_world_or_a_robot(tmp_path, capsys):
    assert run("replay", tmp_path) == 2
    assert "--env ID for a world, --robot NAME for a robot" in capsys.readouterr().err


class Stands:
    """A robot as the command sees it."""

    def __init__(self, stopped, status):
        self.stopped, self.seen = stopped, Seen(status, None, np.zeros(1))


@pytest.mark.parametrize(
    ("stopped", "status", "said"),
    [
        ("", Status.IDLE, "the robot is at rest; what"),
        ("stop button: Ctrl-C", Status.STOPPED, "the robot is stopped (stop button: Ctrl-C); what"),
        ("", Status.LOST, "nobody has heard yet that the robot is at rest: keep its own stop at hand; what"),
        ("", Status.RUNNING, "nobody has heard yet"),
    ],
)
def test_a_second_ctrl_c_says_what_is_known_of_the_robot_and_no_more(stopped, status, said):
    with pytest.raises(KeyboardInterrupt) as interrupted, _ctrl_c(Stands(stopped, status)):
        raise KeyboardInterrupt
    assert str(interrupted.value).startswith(said)
