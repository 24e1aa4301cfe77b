"""The command line as a user types it; one small story, then every mistake in one line."""

import json
import math
import re
import shlex
import shutil
from html import unescape

import numpy as np
import pytest

import understudy as us
from understudy.cli import main
from understudy.cli.arguments import write_json
from understudy.dataset import Dataset

SMALL = ["--hidden", "16", "--steps", "40", "--members", "2", "--batch-size", "32", "--measure-every", "20"]
PICK = ["--env", "understudy/PickPlace-v0"]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder with `data` (3 demonstrations) and `runs/bc` (a run), both made by the command line."""
    folder = tmp_path_factory.mktemp("story")
    assert main(["record", *PICK, "--out", str(folder / "data"), "--episodes", "3"]) == 0
    assert main(["train", "bc", "--data", str(folder / "data"), "--out", str(folder / "runs/bc"), *SMALL]) == 0
    return folder


def test_recording_again_appends_with_new_starts(story, capsys):
    assert main(["record", *PICK, "--out", str(story / "data"), "--episodes", "1"]) == 0
    assert "4 episodes" in capsys.readouterr().out
    assert main(["inspect", str(story / "data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 4


def test_inspect_says_what_is_there(story, capsys):
    assert main(["inspect", str(story / "data")]) == 0
    printed = capsys.readouterr().out
    assert "episodes" in printed
    assert "success" in printed


def test_inspect_exits_with_1_where_training_would_go_wrong(tmp_path, capsys):
    for number in range(3):
        observations = np.random.default_rng(number).normal(size=(30, 4)).astype(np.float32)
        observations[7, 2] = np.nan
        np.savez(tmp_path / f"{number}.npz", observations=observations, actions=observations[:, :2])
    assert main(["inspect", str(tmp_path)]) == 1
    assert "holds nan at step 7" in capsys.readouterr().out


def test_a_run_holds_what_its_report_needs(story):
    run = story / "runs/bc"
    for name in ("config.json", "metrics.jsonl", "health.json", "report.html", "policy/policy.json"):
        assert (run / name).is_file(), name


def test_evaluate_gives_an_interval_and_the_same_rows_for_one_and_two_workers(story, capsys):
    rows = []
    for workers in ("1", "2"):
        out = story / f"eval-{workers}.json"
        arguments = [str(story / "runs/bc/policy"), *PICK, "--episodes", "3", "--seed", "600000"]
        assert main(["evaluate", *arguments, "--workers", workers, "--json", str(out)]) == 0
        rows.append(json.loads(out.read_text()))
    assert rows[0] == rows[1]
    assert 0 <= rows[0]["interval"][0] <= rows[0]["success_rate"] <= rows[0]["interval"][1] <= 1
    assert [row["seed"] for row in rows[0]["episodes"]] == [600000, 600001, 600002]
    assert "success 0." in capsys.readouterr().out


def test_compare_pairs_the_starts(story, capsys):
    policy = str(story / "runs/bc")
    assert main(["compare", policy, policy, *PICK, "--episodes", "3", "--workers", "1"]) == 0
    assert "p = 1 (McNemar" in capsys.readouterr().out


def test_a_replay_of_a_scripted_demonstration_does_not_drift(story, capsys):
    out = story / "drift.json"
    assert main(["replay", str(story / "data"), *PICK, "--episodes", "2", "--json", str(out)]) == 0
    assert "2 of 2 replays succeeded" in capsys.readouterr().out
    assert all(row["final_error"] < 1e-3 for row in json.loads(out.read_text()))


def test_resume_of_a_finished_run_changes_nothing(story):
    run = story / "runs/bc"
    before = (run / "policy/weights.safetensors").read_bytes()
    # The dataset has grown by the time this runs, so the run must refuse, and lose nothing.
    code = main(["train", "bc", "--data", str(story / "data"), "--out", str(run), *SMALL, "--resume"])
    assert code in (0, 2)
    assert (run / "policy/weights.safetensors").read_bytes() == before


def test_an_evaluation_that_no_report_reads_is_not_kept_in_the_run(story, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("understudy.cli.measuring.LARGEST_JSON", 100)
    before = sorted((story / "runs/bc").rglob("*.*"))
    how = ["--episodes", "1", "--workers", "1", "--seed", "650000", "--json", str(tmp_path / "all.json")]
    assert main(["evaluate", str(story / "runs/bc"), *PICK, *how]) == 0
    assert "not kept in" in capsys.readouterr().out
    assert (tmp_path / "all.json").exists()
    assert sorted((story / "runs/bc").rglob("*.*")) == before


def test_an_evaluation_says_how_it_was_executed_and_overwrites_no_other(story, capsys):
    run = story / "runs/bc"
    small = ["--env-arg", "width=64", "--env-arg", "height=48"]
    base = ["evaluate", str(run), *PICK, *small, "--episodes", "1", "--workers", "1", "--seed", "600000"]
    assert main(base) == 0
    assert main([*base, "--execute", "1"]) == 0
    assert main([*base, "--env-arg", "reward=shaped"]) == 0
    written = sorted(path.name for path in (run / "evaluations").glob("*.json"))
    assert len(written) == 3
    told = [json.loads((run / "evaluations" / name).read_text()) for name in written]
    assert [one["execute"] for one in told if "execute" in one] == [1]
    assert ["reward=shaped" in one["env_arguments"] for one in told].count(True) == 1


def test_no_folder_is_made_for_json(story, capsys):
    out = story / "new" / "deep" / "e.json"
    assert main(["evaluate", str(story / "runs/bc/policy"), *PICK, "--episodes", "1", "--json", str(out)]) == 2
    assert "which does not exist; make that folder first" in capsys.readouterr().err
    assert not (story / "new").exists()


def test_an_exported_policy_is_taken_wherever_a_policy_is(story, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out = story / "policy.onnx"
    assert main(["export", str(story / "runs/bc"), "--out", str(out), "--data", str(story / "data")]) == 0
    assert re.search(
        r"differs .* by at most \d\.\de-0\d of the range .* on 1,000 random and \d+ recorded", flat(capsys)
    )
    once = ["--episodes", "2", "--workers", "1", *PICK]
    assert main(["compare", str(story / "runs/bc"), str(out), *once]) == 0
    assert main(["evaluate", str(out), *once]) == 0
    assert main(["record", *PICK, "--expert", str(out), "--episodes", "1", "--out", str(tmp_path / "data")]) == 0
    small = ["--env-arg", "width=64", "--env-arg", "height=48"]
    capsys.readouterr()
    code = main(["view", str(out), *PICK, *small, "--episodes", "1", "--out", str(tmp_path / "film.mp4")])
    assert code == 0 or "install" in capsys.readouterr().err  # a machine without OpenGL films nothing
    assert main(["export", str(story / "runs/bc"), "--out", str(out)]) == 2
    assert "never overwritten" in capsys.readouterr().err


def flat(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_recording_stays_off_the_starts_of_evaluations(story, tmp_path, capsys):
    assert main(["record", *PICK, "--out", str(tmp_path / "d"), "--seed", "9999", "--episodes", "2"]) == 2
    assert "below 10000" in capsys.readouterr().err


ROUNDS = ["--rounds", "1", "--episodes", "2", "--max-steps", "60", "--progress-starts", "1", "--starts", "2"]


def dagger(out, *more):
    """The exit code of a small run. Its report has no films: those of evaluations are tested above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("understudy.cli.measuring.film_evaluation", lambda *_: None)
        return main(["dagger", *PICK, "--out", str(out), "--workers", "1", *ROUNDS, *SMALL, *more])


@pytest.fixture(scope="module")
def corrected(story):
    """A run of DAgger from two demonstrations."""
    assert main(["record", *PICK, "--out", str(story / "few"), "--episodes", "2"]) == 0
    assert dagger(story / "runs/dagger", "--data", str(story / "few"), "--gate", "ensemble") == 0
    return story / "runs/dagger"


def test_dagger_leaves_data_policies_and_a_report(corrected, story):
    for name in ("config.json", "metrics.jsonl", "data/dataset.json", "policy/policy.json", "report.html"):
        assert (corrected / name).is_file(), name
    assert (corrected / "rounds/00/policy/policy.json").is_file()
    assert [json.loads(row)["step"] for row in (corrected / "metrics.jsonl").read_text().splitlines()] == [0, 1]
    assert list((corrected / "evaluations").glob("*.json"))


def test_dagger_does_not_go_on_with_another_expert(corrected, story, tmp_path, capsys):
    expert, words = tmp_path / "expert", ["--data", str(story / "few"), "--gate", "ensemble"]
    shutil.copytree(story / "runs/bc/policy", expert)
    assert dagger(tmp_path / "run", *words, "--expert", str(expert)) == 0
    shutil.copytree(corrected / "policy", expert, dirs_exist_ok=True)
    assert dagger(tmp_path / "run", *words, "--expert", str(expert), "--resume") == 2
    assert "the expert changed since" in capsys.readouterr().err


def test_dagger_tells_each_round_in_one_line(story, tmp_path, capsys, corrected):
    policy = str(story / "runs/bc")
    words = [policy, "--data", str(story / "few"), "--gate", "safe", "--gate-arg", "tau=0.5", "--cap", "0.9"]
    assert dagger(tmp_path / "run", *words) == 0
    assert dagger(tmp_path / "other", *words, "--hidden", "17") == 2
    assert "are not those of POLICY" in capsys.readouterr().err
    assert dagger(tmp_path / "run", *words, "--resume") == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round ")]
    zero, one = (line for line in printed if "labels" in line or "as it is" in line)
    assert zero.startswith(f"round 0: {policy} as it is, beside 2 demonstrations of ")
    assert one.startswith("round 1: 120 labels")  # the cap asks at every step
    assert "of 120 steps driven by the expert" in one
    assert not (tmp_path / "run/rounds/00/policy").exists(), "the clone that was given is not cloned again"


def test_a_gate_that_asks_nobody_says_so(story, tmp_path, capsys, corrected):
    policy, words = str(story / "runs/bc"), ["--data", str(story / "few"), "--gate", "safe"]
    assert dagger(tmp_path / "run", policy, *words, "--gate-arg", "tau=1000") == 0
    assert "; the gate asked nobody, so there was nothing new to learn" in capsys.readouterr().out


def test_dagger_resumes_from_what_the_folder_holds(story, corrected, capsys):
    weights = corrected / "policy/weights.safetensors"
    before = weights.read_bytes()
    # What was lost with its last training and its rows is made again.
    for path in (*(corrected / "rounds/01/policy").iterdir(), *(corrected / "policy").iterdir()):
        path.unlink()
    (corrected / "rounds/01/policy").rmdir()
    (corrected / "policy").rmdir()
    words = ["--data", str(story / "few"), "--gate", "ensemble", "--resume"]
    assert dagger(corrected, *words) == 0
    assert weights.read_bytes() == before
    assert dagger(corrected, *words, "--gate-arg", "tau=0.4") == 2
    assert "was begun with gate.tau = 0.3, now it is 0.4; resume with the same" in capsys.readouterr().err
    assert weights.read_bytes() == before


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_demonstrations_of_two_experts_are_not_mixed(tmp_path, capsys, monkeypatch):
    begin = ["dagger", *PICK, "--out", str(tmp_path / "run"), "--demonstrations", "2", *ROUNDS, *SMALL]

    with monkeypatch.context() as patch:
        patch.setattr(us, "dagger", interrupted)
        assert main([*begin, "--expert", "biased=0.1:scripted"]) != 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*begin, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "was begun with expert = 'biased=0.1:scripted', now it is 'scripted'" in said
    assert main([*begin, "--expert", "biased=0.1:scripted", "--demonstrations", "3", "--resume"]) == 2
    assert "was begun with demonstrations = 2, now it is 3" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_folder_without_a_place_beside_it_is_refused(tmp_path, capsys, monkeypatch):
    assert main(["dagger", *PICK, "--out", "/", *ROUNDS, *SMALL]) == 2
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")

    monkeypatch.setattr(us, "dagger", interrupted)
    main(["dagger", *PICK, "--out", ".", "--demonstrations", "1", *ROUNDS, *SMALL])
    assert (tmp_path / "run-demonstrations" / "dataset.json").exists()


def test_the_report_of_a_dagger_run_prints_the_command_that_was_typed(corrected, capsys):
    (printed,) = re.findall(r"understudy (dagger [^<\n]*)", unescape((corrected / "report.html").read_text()))
    # A resumed run refuses any option that differs from those it was begun with.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("understudy.cli.measuring.film_evaluation", lambda *_: None)
        assert main([*shlex.split(printed), "--starts", "1", "--workers", "1", "--resume"]) == 0


def test_dagger_records_its_own_demonstrations_where_none_are_given(tmp_path, capsys):
    words = [tmp_path / "run", "--demonstrations", "2", "--expert", "noisy=0.05:scripted"]
    assert dagger(*words) == 0
    assert len(Dataset.open(tmp_path / "run-demonstrations")) == 2
    capsys.readouterr()
    assert dagger(tmp_path / "other", *words[1:]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "other")
    assert dagger(tmp_path / "other", *words[1:]) == 2
    assert "other-demonstrations exists; give it with --data, or continue with --resume" in capsys.readouterr().err


def test_dagger_refuses_before_it_records_demonstrations(tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for out, more in (
        (full, ()),
        (tmp_path / "a", ("--gate", "thrifty", "--members", "1")),
        (tmp_path / "b", ("--gate", "hg")),
    ):
        assert dagger(out, *more) == 2
        assert not out.with_name(f"{out.name}-demonstrations").exists(), capsys.readouterr().err


def test_a_resumed_dagger_refuses_another_env_arg(corrected, story, capsys):
    words = ["--data", str(story / "few"), "--gate", "ensemble", "--resume", "--env-arg", "reward=shaped"]
    assert dagger(corrected, *words) == 2
    assert "was begun with env_arguments = None" in capsys.readouterr().err


def test_compare_shows_what_the_expert_did_for_either_of_two_dagger_runs(story, corrected, capsys):
    out = story / "compared.json"
    words = ["compare", str(corrected), str(corrected), *PICK, "--episodes", "1", "--workers", "1", "--json", str(out)]
    assert main(words) == 0
    rows = [json.loads(line) for line in (corrected / "metrics.jsonl").read_text().splitlines()]
    labels = sum(row["labels"] for row in rows)
    assert f"{corrected}: {labels} labels, " in capsys.readouterr().out
    assert json.loads(out.read_text())["ledgers"][str(corrected)]["labels"] == labels


def test_hg_refuses_an_expert_who_never_hands_back(story, tmp_path, capsys):
    assert dagger(tmp_path / "run", "--data", str(story / "few"), "--gate", "hg") == 2
    assert "give human:scripted" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_a_gate_would_ask_and_collects_nothing(story, corrected, capsys):
    before = {path: path.stat().st_mtime_ns for path in story.rglob("*")}
    arguments = ["dagger", str(story / "runs/bc"), "--data", str(story / "few"), *PICK, "--out", str(story / "no")]
    assert main([*arguments, "--gate", "ensemble", "--dry-run"]) == 0
    *each, total = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in each] == ["episode 0", "episode 1"]
    steps = sum(int(line.split(" of ")[1].split()[0]) for line in each)
    assert total.startswith(f"the gate ensemble would have asked for {steps} labels in {steps} steps (100%)")
    assert main([*arguments, "--gate", "hg", "--dry-run"]) == 2
    assert "the gate hg is a person's decision" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in story.rglob("*")} == before


def test_advice_follows_what_is_said_and_what_the_world_has(story, capsys):
    def first(*words):
        assert main(["advise", str(story / "data"), *words]) == 0
        return capsys.readouterr().out.splitlines()[0]

    assert first() == "recommended: Behavioral Cloning"
    assert first(*PICK) == "recommended: DAgger with the gate dagger", "this world has a script, and is no robot"
    said = "recommended: reinforcement learning from the demonstrations (DAPG, or the residual that needs fewer steps)"
    assert first(*PICK, "--expert", "no", "--reward", "yes") == said
    assert first("--expert", "yes", "--robot", "yes") == "recommended: DAgger with the gate hg"
    assert first("--expert", "yes") == "recommended: DAgger with the gate thrifty"


START = ["dagger", *PICK, "--out", "{new}", "--data", "{data}"]
MISTAKES = {
    "unknown gate": ([*START, "--gate", "wise"], "accepted: dagger, safe, lazy, hg, thrifty, ensemble"),
    "unknown option of a gate": ([*START, "--gate-arg", "tau=1"], "the gate dagger has no option tau"),
    "option without a value": ([*START, "--gate", "safe", "--gate-arg", "tau"], "--gate-arg 'tau' is not of the form"),
    "option that is no number": ([*START, "--gate", "safe", "--gate-arg", "tau=much"], "tau is 'much'"),
    "option that is not finite": ([*START, "--gate-arg", "ask=nan"], "ask is 'nan'; accepted: a finite number"),
    "no budget": ([*START, "--gate", "thrifty", "--gate-arg", "budget=0"], "budget is 0"),
    "a budget of more than all": ([*START, "--gate", "thrifty", "--gate-arg", "budget=1.5"], "budget is 1.5"),
    "no doubt": ([*START, "--gate", "ensemble", "--members", "1"], "measures doubt and needs an ensemble"),
    "no rounds": ([*START, "--rounds", "0"], "rounds is 0"),
    "no cap": ([*START, "--cap", "0"], "cap is 0"),
    "no members": ([*START, "--members", "0"], "members is 0"),
    "nobody to ask": ([*START, "--expert", "noisy:oracle"], "no expert 'oracle'"),
    "nothing to begin with": (["dagger", *PICK, "--out", "{new}", "--demonstrations", "0"], "demonstrations is 0"),
    "another task": (["dagger", "--env", "understudy/AdroitDoor-v0", "--out", "{new}", "--data", "{data}"], "channels"),
    "a rehearsal of nothing": (["dagger", *PICK, "--out", "{new}", "--dry-run"], "give POLICY and --data"),
    "advice on nothing": (["advise", "nowhere"], "nowhere does not exist"),
    "no such dataset": (["inspect", "nowhere"], "does not exist"),
    "no such world": (["evaluate", "{run}", "--env", "understudy/PickPlce-v0"], "understudy/PickPlace-v0"),
    "another world": (["evaluate", "{run}", "--env", "Pendulum-v1"], "12 observation channels against 3"),
    "run exists": (["train", "bc", "--data", "{data}", "--out", "{run}"], "--resume"),
    "a file as dataset": (["inspect", "{file}"], "no folder"),
    "bad argument of the world": (["record", *PICK, "--out", "{new}", "--env-arg", "reward"], "name=value"),
    "unknown reward": (["record", *PICK, "--out", "{new}", "--env-arg", "reward=best"], "best"),
    "unknown expert": (["record", *PICK, "--out", "{new}", "--expert", "oracle"], "oracle"),
    "no policy there": (["evaluate", "{data}", *PICK], "neither a policy"),
    "no episodes": (["evaluate", "{run}", *PICK, "--episodes", "0"], "accepted: whole numbers, 1 to 1000000"),
    "no workers": (["evaluate", "{run}", *PICK, "--workers", "0"], "accepted: 1 to 1024"),
    "bad recipe": (["train", "bc", "--data", "{data}", "--out", "{new}", "--ema", "2"], "ema"),
    "bad shape": (["train", "bc", "--data", "{data}", "--out", "{new}", "--head", "quantile"], "head"),
    "absent device": (["train", "bc", "--data", "{data}", "--out", "{new}", "--device", "cuda:7"], "device"),
    "one member too few": (["train", "bc", "--data", "{data}", "--out", "{new}", "--members", "0"], "members"),
    "bare data without a start": (["replay", "{bare}", *PICK], "replayed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(story, tmp_path, capsys, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "bare").mkdir()
    np.savez(tmp_path / "bare" / "0.npz", observations=np.ones((5, 12)), actions=np.ones((5, 7)))
    places = {
        "run": story / "runs/bc",
        "data": story / "data",
        "file": tmp_path / "file",
        "new": tmp_path / "new",
        "bare": tmp_path / "bare",
    }
    arguments, said = MISTAKES[name]
    capsys.readouterr()
    assert main([argument.format(**places) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("understudy:")]
    assert len(lines) in (1, 2)  # a bare folder warns first
    assert said in lines[-1]
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())


def test_a_module_is_imported_only_where_a_person_asked_for_it(story, tmp_path, monkeypatch):
    from understudy.errors import ConfigError
    from understudy.worlds import make_env

    (tmp_path / "evil_world.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="would import a module"):
        make_env("evil_world:Evil-v0")
    with pytest.raises(SystemExit, match="imported"):
        make_env("evil_world:Evil-v0", allow_module=True)


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [math.nan, 1.5, (math.inf, "NaN")], "b": -math.inf, "c": 3})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None, "NaN"]],
        "b": None,
        "c": 3,
    }
