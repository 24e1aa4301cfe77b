"""`understudy record --robot`, as a user types it."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from understudy.cli import main, recording
from understudy.dataset import Dataset

STAND_INS = Path(__file__).parents[1] / "stand_ins"
SHORT = ["--episodes", "2", "--max-steps", "15", "--robot-arg", "control_hz=100"]


def test_a_script_records_on_the_fake_robot_and_the_dataset_grows(tmp_path, capsys):
    out = tmp_path / "data"
    assert main(["record", "--robot", "fake", "--out", str(out), *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "saved 0: 15 steps, unjudged; 1 of 2" in printed
    assert "0 of the 2 new ones succeeded" in printed
    assert main(["record", "--robot", "fake", "--out", str(out), *SHORT, "--rest-s", "0.1"]) == 0
    dataset = Dataset.open(out)
    assert [row.seed for row in dataset.rows] == [0, 1, 2, 3]
    assert dataset.spec.env_id == "robot/fake"
    assert dataset.spec.is_named


def test_after_ctrl_c_the_rest_begins_where_the_first_part_ended(tmp_path, capsys, monkeypatch):
    record_on = recording.record_on

    def interrupted(*arguments, **options):
        yield from itertools.islice(record_on(*arguments, **options), 1)
        raise KeyboardInterrupt

    out, words = tmp_path / "data", [*SHORT, "--rest-s", "0", "--seed", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(recording, "record_on", interrupted)
        assert main(["record", "--robot", "fake", "--out", str(out), *words]) == 130
    said = capsys.readouterr().err
    assert "1 of 2 episodes are saved; the same command with --episodes 1 --seed 4 records the rest" in said
    assert main(["record", "--robot", "fake", "--out", str(out), *words]) == 0
    assert f"1 of these starts are in {out} already; leave --seed out" in capsys.readouterr().err
    assert [row.seed for row in Dataset.open(out).rows] == [3, 3, 4]


def test_the_script_of_the_bundled_world_records_a_success_on_the_simulated_robot(tmp_path, capsys):
    out = tmp_path / "data"
    assert main(["record", "--robot", "sim", "--out", str(out), "--episodes", "1"]) == 0
    assert "a success; 1 of 1" in capsys.readouterr().out
    (episode,) = Dataset.open(out)
    assert episode.labelled.all()
    assert episode.success == 1


@pytest.fixture
def library(monkeypatch):
    monkeypatch.syspath_prepend(str(STAND_INS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("lerobot", "draccus")]:
        del sys.modules[name]


def test_a_leader_arm_records_on_a_follower_within_the_limits_of_a_file(tmp_path, capsys, library):
    for name in ("follower", "leader"):
        (tmp_path / name).touch()
    limits = {"low": 0, "high": 100, "velocity": 100, "acceleration": 2000}
    names = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
    (tmp_path / "limits.json").write_text(json.dumps({"axes": dict.fromkeys(names, limits)}))
    words = ["record", "--robot", "lerobot:so101_follower", "--robot-arg", f"port={tmp_path / 'follower'}"]
    words += ["--expert", "lerobot:so101_leader", "--expert-arg", f"port={tmp_path / 'leader'}"]
    words += ["--episodes", "1", "--max-steps", "10", "--out", str(tmp_path / "data")]
    assert main(words) == 2
    assert "velocity" in capsys.readouterr().err, "no limits, no motion"
    assert main([*words, "--limits", str(tmp_path / "limits.json")]) == 0
    assert "saved 0: 10 steps" in capsys.readouterr().out
    assert '"torque": true' in (tmp_path / "follower").read_text()


MISTAKES = {
    "neither a world nor a robot": (["--expert", "scripted"], "--env ID for a world, --robot NAME for a robot"),
    "a robot without a script": (
        ["--robot", "robots_of_a_test:Silent", "--expert", "scripted"],
        "robots_of_a_test:Silent has no script; give a teleoperator",
    ),
    "an option for a script": (["--robot", "fake", "--expert-arg", "port=x"], "scripted takes none"),
    "a script of another robot": (
        ["--robot", "fake", "--env", "understudy/PickPlace-v0"],
        "the robot fake does not fit understudy/PickPlace-v0",
    ),
    "rest that cannot be": (["--robot", "fake", "--rest-s", "-1"], "rest-s is -1"),
    "a leader arm without its library": (["--robot", "fake", "--expert", "lerobot:so101_leader"], "LeRobot is not"),
    "starts of evaluations": (["--robot", "fake", "--seed", "9999"], "seed is 10001"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_no_folder(tmp_path, monkeypatch, capsys, name):
    words, message = MISTAKES[name]
    monkeypatch.setitem(sys.modules, "lerobot.teleoperators", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "robots_of_a_test.py").write_text(
        "from understudy.robots import FakeRobot\nclass Silent(FakeRobot):\n    pass\n"
    )
    episodes = ["--episodes", "2", "--max-steps", "5"]
    assert main(["record", *words, "--out", "data", *episodes]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "data").exists()
