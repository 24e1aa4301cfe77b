"""Rounds on the command line in worlds of a user's own: without an end, a rate or a verdict, with a device."""

import json
import os
import sys

import numpy as np
import pytest

from understudy.cli import main
from understudy.dataset import Dataset

WORLDS = """
import gymnasium as gym
import numpy as np

class Script:
    engaged = True
    def __init__(self, env): ...
    def reset(self, seed): ...
    def label(self, observation):
        return -observation

class Idle(Script):
    def label(self, observation):
        return np.zeros(2)

class Device(Script):
    '''A person's: in the hand at every other moment.'''
    held = True
    @property
    def engaged(self):
        self.held = not self.held
        return self.held

class Plane(gym.Env):
    '''A point that is to come near the middle. Says of success `always`, `only` where there is some, or `never`.'''
    scripted_experts = {"scripted": Script, "scripted-idle": Idle, "scripted-device": Device}
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    def __init__(self, says="always", near=0.5, heeds=True):
        self.says, self.near, self.heeds = says, near, heeds
        self.free = np.random.default_rng()
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        random = self.np_random if self.heeds else self.free
        self.position = random.uniform(-1, 1, 2).astype(np.float32)
        return self.position, {}
    def step(self, action):
        self.position = self.position + action / 10
        success = bool(np.abs(self.position).max() < self.near)
        told = self.says == "always" or (self.says == "only" and success)
        return self.position, 0.0, False, False, {"success": success} if told else {}

for name, limit in (("Plane-v0", 12), ("OpenPlane-v0", None)):
    if name not in gym.registry:
        gym.register(name, Plane, max_episode_steps=limit)
"""
PLANE = ["--env", "planes_of_tests:Plane-v0"]
SMALL = ["--hidden", "4", "--steps", "4", "--batch-size", "8"]
FEW = ["--rounds", "1", "--starts", "2", "--progress-starts", "2", "--episodes", "2", "--workers", "1", *SMALL]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder with the module, `data` (3 demonstrations) and `run` and `twins` (clones), made in that folder."""
    folder, before = tmp_path_factory.mktemp("story"), os.getcwd()
    (folder / "planes_of_tests.py").write_text(WORLDS)
    os.chdir(folder)
    assert main(["record", *PLANE, "--out", "data", "--episodes", "3"]) == 0
    assert main(["train", "bc", "--data", "data", "--out", "run", "--members", "1", *SMALL]) == 0
    assert main(["train", "bc", "--data", "data", "--out", "twins", "--members", "2", *SMALL]) == 0
    yield folder
    os.chdir(before)
    sys.path.remove(str(folder))


@pytest.fixture
def said(story, capsys, monkeypatch):
    """Runs a command in the story's folder without films; its code, what it printed and what it said beside that."""
    monkeypatch.setattr("understudy.cli.measuring.film_evaluation", lambda *_: None)

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed, beside = capsys.readouterr()
        return code, printed, beside

    return run


def dagger(said, out, *more):
    return said("dagger", *more, "--out", out, *FEW)


def lengths(path):
    return {len(episode) for episode in Dataset.open(path)}


def test_steps_are_limited_in_the_demonstrations_of_a_world_without_an_end_too(said, tmp_path):
    endless = ["--env", "planes_of_tests:OpenPlane-v0", "--expert", "scripted-idle", "--env-arg", "near=0.01"]
    code, printed, beside = dagger(said, tmp_path / "run", *endless, "--demonstrations", "2", "--max-steps", "7")
    assert code == 0, beside
    assert "no limit of steps" not in printed
    assert lengths(tmp_path / "run-demonstrations") == lengths(tmp_path / "run" / "data") == {7}


def test_a_world_without_an_end_is_said_to_be_one_before_the_rounds(said, tmp_path, monkeypatch):
    monkeypatch.setattr("understudy.dagger", lambda *_, **__: iter(()))
    monkeypatch.setattr("understudy.cli.correcting.evaluate", lambda *_, **__: None)
    endless = ["--env", "planes_of_tests:OpenPlane-v0"]
    assert said("record", *endless, "--out", tmp_path / "data", "--episodes", "2", "--max-steps", "5")[0] == 0
    code, printed, beside = dagger(said, tmp_path / "run", *endless, "--data", tmp_path / "data")
    assert code == 0, beside
    assert "this world names no limit of steps" in printed


def test_a_device_that_takes_over_and_hands_back_is_a_person_for_hg(said, tmp_path):
    words = ["twins", *PLANE, "--data", "data", "--gate", "hg"]
    code, _, beside = dagger(said, tmp_path / "run", *words, "--expert", "scripted-device")
    assert code == 0, beside
    for script in ("scripted", "noisy:scripted"):
        code, _, beside = dagger(said, tmp_path / "no", *words, "--expert", script)
        assert code == 2
        assert f"never hands back, so give human:{script}" in beside


def test_a_run_goes_on_with_the_data_it_was_begun_with(story, said, tmp_path):
    words = [*PLANE, "--gate", "dagger"]
    assert dagger(said, tmp_path / "run", *words, "--data", "data")[0] == 0
    before = sorted(tmp_path.iterdir())
    code, _, beside = dagger(said, tmp_path / "run", *words, "--resume")
    assert code == 2
    assert "was begun with --data data; give it again" in beside
    assert sorted(tmp_path.iterdir()) == before
    assert dagger(said, tmp_path / "run", *words, "--data", "data", "--resume")[0] == 0


def test_thrifty_needs_one_demonstration_to_see_that_nobody_judges(said, tmp_path):
    words = [*PLANE, "--env-arg", "says=never", "--gate", "thrifty", "--members", "2", "--demonstrations", "3"]
    code, _, beside = dagger(said, tmp_path / "run", *words)
    assert code == 2
    assert "no episode says whether it succeeded" in beside
    assert len(Dataset.open(tmp_path / "run-demonstrations")) == 1


def test_a_ledger_of_a_world_without_success_claims_no_failure(said, tmp_path):
    words = [*PLANE, "--env-arg", "says=never", "--demonstrations", "2"]
    code, printed, beside = dagger(said, tmp_path / "run", *words)
    assert code == 0, beside
    assert "an unknown time of the expert; nobody knows which episodes succeeded; alone return" in printed
    report = (tmp_path / "run" / "report.html").read_text()
    assert "0 of 2" not in report
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["judged"] for row in rows] == [0, 0]
    assert f"asked or drove for {sum(row['attended'] for row in rows)} steps in all" in report


def test_a_start_without_a_word_of_success_is_a_failure_where_another_has_one(said, tmp_path):
    only = ["--env-arg", "says=only", "--episodes", "10", "--workers", "1"]
    code, _, _ = said("evaluate", "run", *PLANE, *only, "--json", tmp_path / "only.json")
    told = json.loads((tmp_path / "only.json").read_text())
    assert code == 0
    assert {row["success"] for row in told["episodes"]} == {True, False}
    assert said("compare", "run", "run", *PLANE, *only)[0] == 0


def test_a_comparison_in_a_world_that_heeds_no_seed_says_so(said):
    code, _, beside = said("compare", "run", "run", *PLANE, "--env-arg", "heeds=false", "--episodes", "3")
    assert code == 2
    assert "began differently from the same seeds" in beside


@pytest.mark.parametrize("near", ["0.5", "0.0"])
def test_every_comparison_says_how_many_starts_a_difference_takes(said, near):
    words = ["--episodes", "300", "--workers", "1", "--max-steps", "1", "--env-arg", f"near={near}"]
    code, printed, _ = said("compare", "run", "run", *PLANE, *words)
    assert code == 0
    for difference in (2, 5, 10, 20):
        assert f"a true difference of {difference}% would be seen with" in printed


def test_a_rehearsal_measures_as_the_run_would(story, said, tmp_path):
    """A clone of a bare folder knows no limits, and its rounds would be driven in a world that has some."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for index, episode in enumerate(Dataset.open(story / "data")):
        np.savez(bare / f"{index}.npz", observations=episode.observations[:-1], actions=episode.actions)
    answers = []
    for name, more in (("nameless", []), ("named", PLANE)):
        words = ["--data", bare, "--out", tmp_path / name, "--members", "2", *SMALL, *more]
        code, _, beside = said("train", "bc", *words)
        assert code == 0, beside
        gate = ["--gate", "safe", "--gate-arg", "tau=0.2", "--cap", "0.2", "--dry-run"]
        code, printed, beside = said("dagger", tmp_path / name, *PLANE, "--data", bare, "--out", "no", *gate)
        assert code == 0, beside
        answers.append(printed)
    assert answers[0] == answers[1]


def test_ctrl_c_in_a_rehearsal_promises_no_resume(said, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("understudy.rehearse", interrupted)
    code, _, beside = said("dagger", "run", *PLANE, "--data", "data", "--out", "no", "--dry-run")
    assert code == 130
    assert "--resume" not in beside


def test_advice_is_for_the_task_of_the_data(said):
    code, _, beside = said("advise", "data", "--env", "planes_of_tests:OpenPlane-v0")
    assert code == 2
    assert "OpenPlane-v0 against" in beside
