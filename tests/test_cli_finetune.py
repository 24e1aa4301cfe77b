"""`understudy finetune` as a user types it: four ways in one command, and every mistake in one line."""

import json
import re
import shlex
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from datasets import point_episode

from understudy import presets
from understudy.checkpoint import load
from understudy.cli import main, tuning
from understudy.dataset import Dataset
from understudy.errors import ConfigError
from understudy.recipe import FinetuneConfig
from understudy.runs import read_metrics
from understudy.trainer import torch_threads

PICK = [
    "--env",
    "understudy/PickPlace-v0",
    "--env-arg",
    "reward=shaped",
    "--env-arg",
    "width=64",
    "--env-arg",
    "height=48",
]
CLONED = ["--clone-arg", "steps=20", "--clone-arg", "measure_every=10", "--clone-arg", "members=2"]
TINY = ["--steps", "1600", "--episodes", "4", "--judge-episodes", "0", "--value-first-epochs", "1"]
MEASURED = ["--starts", "2", "--workers", "1"]


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch, story):
    """The evaluation at the end, with its films and its report, is that of the story; elsewhere it only takes time."""
    monkeypatch.setattr(tuning, "evaluate", lambda *_, **__: None)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder with `data` (3 demonstrations) and `run` (fine-tuned from a clone of them)."""
    folder = tmp_path_factory.mktemp("story")
    assert main(["record", *PICK[:2], "--out", str(folder / "data"), "--episodes", "3"]) == 0
    assert finetune(folder, "run", "--demos", str(folder / "data"), "--lam0", "0.1") == 0
    return folder


def finetune(folder, name, *more, small=(*TINY, *CLONED)):
    return main(["finetune", *PICK, "--out", str(folder / name), *small, *MEASURED, *more])


def config_of(run):
    return json.loads((run / "config.json").read_text())


def test_demonstrations_are_cloned_first_and_kept_apart(story):
    run = story / "run"
    for name in ("clone/policy", "clone/metrics.jsonl", "policy/policy.json", "judged.json", "report.html"):
        assert (run / name).exists(), name
    assert config_of(run)["demo_term"]["lam0"] == 0.1
    assert [row["step"] for row in read_metrics(run)] == [800, 1600]
    assert load(run).kind == "ensemble"


def test_it_tells_each_batch_and_what_is_deployed(story, tmp_path, capsys):
    assert finetune(tmp_path, "run", "--demos", str(story / "data")) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^800 of 1,600 steps: success \d\.\d\d, return -?\d+\.\d\d, KL \d\.\d{4} \(\d+ s left\)$", printed, re.M
    )
    assert re.search(r"^1,600 steps: deployed the mean of the best policy after batch \d \(not tried\)$", printed, re.M)


def test_reinforcement_learning_alone_needs_neither_policy_nor_demonstrations(tmp_path):
    assert finetune(tmp_path, "run", small=TINY) == 0
    config = config_of(tmp_path / "run")
    assert (config["preset"], config["demo_term"], config["policy"]["hidden"]) == ("scratch", None, [64, 64])
    assert not (tmp_path / "run/clone").exists()


def test_cloning_alone_is_a_run_without_steps(story, tmp_path):
    words = ["--demos", str(story / "data"), "--steps", "0"]
    assert finetune(tmp_path, "run", *words, small=CLONED) == 0
    weights = "policy/weights.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "run/clone" / weights).read_bytes()
    assert read_metrics(tmp_path / "run") == []


def test_a_policy_is_where_it_begins_and_ppo_another_way_to_go_on(story, tmp_path):
    words = [str(story / "run/clone"), "--update", "ppo", "--update-arg", "minibatch=128", "--preset", "small-batches"]
    assert finetune(tmp_path, "run", *words, small=TINY) == 0
    config = config_of(tmp_path / "run")
    assert (config["update"]["name"], config["update"]["minibatch"]) == ("ppo", 128)
    assert config["start"] == str(story / "run/clone")
    assert not (tmp_path / "run/clone").exists()


def test_starts_inside_demonstrations_and_the_distance_are_options(story, tmp_path):
    words = ["--demos", str(story / "data"), "--start-arg", "share=0.9", "--term", "distance", "--lam0", "0.2"]
    assert finetune(tmp_path, "run", *words, "--term-arg", "scale=one", "--steps", "2600") == 0
    config = config_of(tmp_path / "run")
    assert config["starts"]["share"] == 0.9
    assert {**config["demo_term"]} == {"name": "distance", "lam0": 0.2, "lam1": 0.95, "scale": "one", "lead": 0}


def test_an_interrupted_command_goes_on_with_resume(story, tmp_path, capsys, monkeypatch):
    words = ["--demos", str(story / "data"), "--lam0", "0.1"]

    class Stops(tuning._Steps):
        def on_episode(self, episode):
            super().on_episode(episode)
            if self.done > 1000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "_Steps", Stops)
        assert finetune(tmp_path, "run", *words) == 130
    assert "with --resume goes on" in capsys.readouterr().err
    assert finetune(tmp_path, "run", *words) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert finetune(tmp_path, "run", *words, "--lam1", "0.9", "--resume") == 2
    assert "was begun with demo_term.lam1 = 0.95" in capsys.readouterr().err
    behind = read_metrics(tmp_path / "run")[-1]["step"]
    capsys.readouterr()
    assert finetune(tmp_path, "run", *words, "--resume") == 0
    done = re.findall(r"^fine-tuning (\d+)/", capsys.readouterr().out, re.MULTILINE)
    assert int(done[0]) > behind > 0, "progress goes on where it was"
    weights = "policy/weights.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (story / "run" / weights).read_bytes()


def test_the_report_of_a_run_prints_the_command_that_was_typed(story, capsys):
    html = (story / "run/report.html").read_text()
    (printed,) = re.findall(r"understudy (finetune [^<\n]*)", unescape(html))
    assert "steps of the world" in html
    assert main([*shlex.split(printed), *MEASURED, "--resume"]) == 0, "it is the same run"
    assert "deployed" in capsys.readouterr().out


def test_tensorboard_gets_a_copy_or_says_what_is_missing(story, tmp_path, capsys, monkeypatch):
    words = [str(story / "run/clone"), "--tensorboard"]
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    assert finetune(tmp_path, "without", *words, small=TINY) == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    assert finetune(tmp_path, "with", *words, small=TINY) == 0
    assert list((tmp_path / "with/tensorboard").iterdir())


def test_each_field_of_the_recipe_is_an_option_that_the_preset_answers():
    assert dict(vars(tuning.Given())) == dict.fromkeys(FinetuneConfig.__slots__)


MISTAKES = {
    "another preset": (["--preset", "fast"], "no preset is called 'fast'; accepted: residual"),
    "another update": (["--update", "trpo"], "no update is called 'trpo'; accepted: npg, ppo"),
    "an option of another update": (
        ["--update-arg", "clip=0.1"],
        "the update npg has no option clip; it has step_size",
    ),
    "text for a number": (["--update-arg", "step_size=large"], "step_size is 'large'; accepted: a number"),
    "a fraction for a count": (["--update-arg", "cg_iterations=2.5"], "cg_iterations is 2.5; accepted: a whole number"),
    "a step of nothing": (["--update-arg", "step_size=0"], "step_size is 0; accepted: above 0"),
    "another term": (["--term", "reward"], "no demonstration term is called 'reward'; accepted: likelihood, distance"),
    "an option no term has": (["--term-arg", "decay=1"], "the term likelihood has no option decay; it has lam0"),
    "an option no start has": (
        ["--start-arg", "where=1"],
        "a start inside demonstrations has no option where; it has share",
    ),
    "an option no cloning has": (["--clone-arg", "epochs=1"], "cloning has no option epochs; it has members, steps"),
    "text for the members": (["--clone-arg", "members=abc"], "members of the cloning is 'abc'; accepted: int, like 5"),
    "half a step of lead": (["--clone-arg", "lead=2.5"], "lead of the cloning is 2.5; accepted: int, like 0"),
    "a lead into the past": (["--term-arg", "lead=-1"], "lead is -1; accepted: 0 to 1000"),
    "text for a cloning": (["--clone-arg", "steps=many"], "steps of the cloning is 'many'; accepted: int, like 8000"),
    "too few steps": (["--steps", "100"], "steps is 100; a batch of 4 episodes of 200 steps"),
    "a share beyond 1": (["--gamma", "2"], "gamma is 2.0; accepted: 0 to 1"),
    "no worker": (["--workers", "0"], "workers is 0; accepted: 1 to 1024"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(story, tmp_path, capsys, mistake):
    words, said = MISTAKES[mistake]
    assert finetune(tmp_path, "run", "--demos", str(story / "data"), *words) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert said in printed[0]
    assert not (tmp_path / "run/policy").exists()


def test_what_needs_demonstrations_says_so(story, tmp_path, capsys):
    for words in (["--lam0", "0.1"], ["--term", "distance"], ["--start-arg", "share=0.5"]):
        assert finetune(tmp_path, "run", str(story / "run/clone"), *words, small=TINY) == 2
        said = capsys.readouterr().err
        assert "give --demos" in said
        assert words[0] in said


def test_demonstrations_that_change_nothing_are_said_to(story, tmp_path, capsys):
    begun, shown = str(story / "run/clone"), ["--demos", str(story / "data")]
    for words in (["--term", "distance"], ["--lam1", "0.5"], ["--term-arg", "scale=one"]):
        assert finetune(tmp_path, "run", begun, *shown, *words, small=TINY) == 2
        assert "--lam0, their weight, is 0; give --lam0 0.1" in capsys.readouterr().err
    assert finetune(tmp_path, "run", begun, *shown, small=TINY) == 0
    assert "--demos changes nothing; DAPG's term is --lam0 0.1" in capsys.readouterr().out


def test_a_clone_without_a_deviation_of_its_own_is_refused_before_it_is_made(story, tmp_path, capsys):
    assert finetune(tmp_path, "run", "--demos", str(story / "data"), "--deviation", "own") == 2
    assert "a clone with the head absolute has none; give a policy of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_progress_claims_no_failure_in_a_world_that_judges_nothing():
    told = []

    class Bar:
        def start(self, *_): ...

        def at(self, step, about):
            told.append(about)

    steps = tuning._Steps(Bar(), 10, done=0)
    steps.on_phase("collecting", 2)
    for success in (-1, 1, 0):
        steps.on_episode(replace(point_episode(0, 1), success=success))
    assert told == [None, "1 of 2 succeeded", "1 of 3 succeeded"]


def test_what_only_a_cloning_can_use_is_refused_where_nothing_is_cloned(story, tmp_path, capsys):
    for begun in ([str(story / "run/clone")], []):
        assert finetune(tmp_path, "run", *begun, "--clone-arg", "steps=20", small=TINY) == 2
        assert "only --demos without POLICY are cloned; leave --clone-arg out" in capsys.readouterr().err


def test_starts_that_cannot_be_replayed_are_refused_before_anything_is_cloned(story, tmp_path, capsys):
    for number, episode in enumerate(Dataset.open(story / "data")):
        *seen, last = episode.observations
        np.savez(tmp_path / f"{number}.npz", observations=seen, final_observation=last, actions=episode.actions)
    assert finetune(tmp_path, "run", "--demos", str(tmp_path), "--start-arg", "share=0.5") == 2
    assert "tells neither the seed nor the state of its start" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tuning_all_leaves_out_what_the_preset_says_of_its_residual(story, tmp_path):
    begin = str(story / "run/clone")
    assert finetune(tmp_path, "run", begin, "--tune", "all", small=TINY) == 0
    asked = config_of(tmp_path / "run")["finetune"]
    assert (asked["tune"], asked["residual_hidden"], asked["residual_limit"]) == ("all", [], None)
    assert (
        finetune(tmp_path, "td3", begin, "--preset", "residual-td3", "--update", "npg", "--tune", "all", small=TINY)
        == 0
    )


def test_demonstrations_and_policies_of_another_world_are_refused(story, tmp_path, capsys):
    other = ["--env", "understudy/AdroitDoor-v0", "--out", str(tmp_path / "run"), *TINY, *MEASURED]
    assert main(["finetune", *other, "--demos", str(story / "data")]) == 2
    assert "observation channels against" in capsys.readouterr().err
    assert main(["finetune", *other, str(story / "run/clone")]) == 2
    assert "observation channels against" in capsys.readouterr().err
    np.savez(tmp_path / "0.npz", observations=np.zeros((5, 3)), actions=np.zeros((5, 2)))
    assert finetune(tmp_path, "run", "--demos", str(tmp_path)) == 2
    assert "3 observation channels" in capsys.readouterr().err


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_a_recipe_that_can_be_built(name):
    from understudy.reinforcement import update_for

    preset = presets.preset_called(name)
    assert update_for(preset.update, preset.update_options).name == preset.update
    assert preset.about
    recipe = preset.clone_recipe(6_729, seed=3)
    assert recipe.seed == 3
    if preset.clone_epochs:
        assert recipe.steps == -(-preset.clone_epochs * 6_729 // recipe.batch_size)


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no preset is called 'x'"):
        presets.preset_called("x")


# ---- TD3 ----

QUICK_TD3 = [
    *("--preset", "residual-td3", "--steps", "1600", "--episodes", "2", "--judge-episodes", "0"),
    *(
        word
        for option in ("first_steps=400", "first_updates=5", "batch=16", "units=8")
        for word in ("--update-arg", option)
    ),
]


def test_td3_by_its_preset(story, tmp_path, capsys):
    data = ["--demos", str(story / "data")]
    assert finetune(tmp_path, "run", *data, small=[*QUICK_TD3, *CLONED]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^400 of 1,600 steps: success \d\.\d\d, return -?\d+\.\d\d, value -?\d+\.\d\d \(", printed, re.M)
    config = config_of(tmp_path / "run")
    assert (config["update"]["name"], config["update"]["units"], config["finetune"]["residual_limit"]) == (
        "td3",
        8,
        1.0,
    )
    assert len(list((tmp_path / "run" / "replay").iterdir())) == 4
    assert load(tmp_path / "run").kind == "ensemble"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--lam0", "0.1"], "td3 has no place for a demonstration term; leave lam0 at 0, or take npg or ppo"),
        (["--value-epochs", "9"], "td3 has critics in the place of a value function; leave value_epochs out"),
        (
            ["--preset", "residual", "--update", "td3"],
            "td3 tunes a residual with a limit; take the preset residual-td3",
        ),
        (["--update-arg", "critics=0"], "critics is 0"),
        (["--update-arg", "momentum=1"], "the update td3 has no option momentum; it has critics, drawn"),
    ],
)
def test_what_td3_cannot_do_is_refused_before_anything_is_cloned(story, tmp_path, capsys, more, told):
    small = [*QUICK_TD3, *CLONED] if "residual" not in more else CLONED
    assert finetune(tmp_path, "run", "--demos", str(story / "data"), *more, small=small) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
