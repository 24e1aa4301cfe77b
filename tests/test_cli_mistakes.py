"""What a sceptical user typed: each answer is one true line with exit code 2, before the work, and nothing is lost."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest

import understudy_command
from understudy import observers
from understudy.cli import main
from understudy.dataset import Dataset
from understudy.durable import storage_errors
from understudy.errors import StorageError

WORLDS = """
import warnings
import gymnasium as gym
import numpy as np

class Script:
    engaged = True
    def __init__(self, env): ...
    def reset(self, seed): ...
    def label(self, observation):
        return -observation

class Line(gym.Env):
    control_hz, scripted_experts = 20.0, {"scripted": Script}
    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    def __init__(self, judged=True, fails_at=None, warns=False, note=""):
        if warns:
            warnings.warn("this world is old")
        self.judged, self.fails_at = judged, fails_at
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1, 1).astype(np.float32), 0
        return self.position, {}
    def step(self, action):
        self.steps += 1
        if self.steps == self.fails_at:
            raise ZeroDivisionError("the arm fell off")
        self.position = self.position + action / 10
        info = {"success": bool(abs(self.position[0]) < 0.5)} if self.judged else {}
        return self.position, 0.0, False, False, info

for name, limit in (("Line-v0", 20), ("Slide-v0", 20), ("Endless-v0", None)):
    if name not in gym.registry:
        gym.register(name, Line, max_episode_steps=limit)
"""
LINE = ["--env", "lines_of_tests:Line-v0"]
SMALL = ["--hidden", "8", "--steps", "6", "--members", "1", "--batch-size", "8", "--measure-every", "3"]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder with the module, `data` (3 demonstrations) and `run` (a run), made in that folder."""
    folder, before = tmp_path_factory.mktemp("story"), os.getcwd()
    (folder / "lines_of_tests.py").write_text(WORLDS)
    os.chdir(folder)
    assert main(["record", *LINE, "--out", "data", "--episodes", "3", "--after-success", "5"]) == 0
    assert main(["train", "bc", "--data", "data", "--out", "run", *SMALL]) == 0
    yield folder
    os.chdir(before)
    sys.path.remove(str(folder))


@pytest.fixture
def said(story, capsys):
    """Runs a command in the story's folder and gives its code and what it said beside the result."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, capsys.readouterr().err

    return run


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_takes_episodes_of_its_own_world_only(story, said, tmp_path):
    before = contents(story / "data")
    code, line = said("record", "--env", "lines_of_tests:Slide-v0", "--out", "data", "--episodes", "1")
    assert code == 2
    assert "it is Slide-v0 against Line-v0" in line
    assert contents(story / "data").keys() - before.keys() <= {story / "data" / "writer.lock"}
    assert said("record", "--env", "lines_of_tests:Slide-v0", "--out", tmp_path / "slide", "--episodes", "1")[0] == 0
    with pytest.raises(ValueError, match="keep data and policies of each world apart"):
        Dataset.open("data").merge(Dataset.open(tmp_path / "slide"))


def test_every_command_takes_the_id_of_a_module_that_lies_in_the_current_folder(said, tmp_path):
    assert said("import", "data/episodes", *LINE, "--out", tmp_path / "mine")[0] == 0
    assert Dataset.open(tmp_path / "mine").spec.env_id == "Line-v0"


REFUSED = {
    "no episode to record": ("record {line} --out {new} --episodes 0", "episodes is 0; accepted: 1 to 10000"),
    "fewer than none": ("record {line} --out {new} --episodes -1", "accepted: 1 to 10000"),
    "a negative seed": ("record {line} --out {new} --seed -1", "accepted: 0 to 10000"),
    "negative patience": ("record {line} --out {new} --after-success -1", "accepted: 0 or more"),
    "a seed of an evaluation": ("record {line} --out {new} --seed 9999 --episodes 2", "below 10000"),
    "no argument of the world": ("record {line} --out {new} --env-arg max_episode_steps=0", "to be positive"),
    "a name of 300 letters": ("record {line} --out {long}", "give a shorter name"),
    "a broken world": ("record {line} --out {new} --env-arg fails_at=3", "raised ZeroDivisionError: the arm fell off"),
    "a broken world in replay": ("replay data {line} --env-arg fails_at=3", "at step 3 ("),
    "no replay": ("replay data {line} --episodes 0", "accepted: 1 or more"),
    "replay with another world": ("replay data --env Pendulum-v1", "1 observation channels against 3"),
    "advice for another world": ("advise data --env Pendulum-v1", "the world does not fit data: "),
    "nothing to view": ("view data {line} --episodes -1", "accepted: 1 or more"),
    "another world to view": ("view run --env Pendulum-v1 --out {new}.mp4", "1 observation channels against 3"),
    "a negative start": ("evaluate run {line} --seed -1", "seed is -1; accepted: whole numbers, 0 to"),
    "a negative start to compare": ("compare run run {line} --seed -1", "seed is -1; accepted: whole numbers, 0"),
    "a negative start to view": ("view run {line} --seed -1", "seed is -1; accepted: 0 to"),
    "unjudged": ("compare run run {line} --env-arg judged=false --workers 1", "reports no success"),
    "options of a robot in a world": ("record {line} --out {new} --rest-s 3", "about a robot; name it with --robot"),
    "limits of a robot in a world": ("record {line} --out {new} --limits no.json", "about a robot; name it with"),
    "a teleoperator in a world": ("record {line} --out {new} --expert-arg port=x", "about a robot; name it with"),
    "a ramp in a world": ("replay data {line} --ramp-s 3", "--ramp-s and --dry-run are about a robot"),
    "an argument of no world": ("record --robot fake --out {new} --env-arg a=1", "about a world that is recorded in"),
    "a start of recorded actions": ("view data {line} --seed 77", "--execute and --ensemble-decay are about a policy"),
    "chunks of recorded actions": ("view data {line} --execute 3", "data holds recorded actions"),
    "dashes": ("evaluate run {line} --b----c", "Unrecognized options: --b----c; see `understudy evaluate --help`"),
    "a second policy that is none": ("compare run data {line}", "neither a policy"),
    "a huge seed": ("train bc --data data --out {new} --seed 9223372036854775807", "accepted: 0 to 4294967295"),
    "too many threads": ("train bc --data data --out {new} --threads 100000", "accepted: whole numbers, 1 to 1024"),
    "too many members": ("train bc --data data --out {new} --members 1000000", "accepted: 1 to 100"),
    "a long horizon": ("train bc --data data --out {new} --horizon 100000", "accepted: 1 to 1000"),
    "a long history": ("train bc --data data --out {new} --history 10000", "accepted: 1 to 1000"),
    "a wide layer": ("train bc --data data --out {new} --hidden 200000", "layers of 1 to 65536 units"),
    "no limit": ("train bc --data data --out {new} --input-limit inf", "accepted: 0.001 to 1000000"),
    "a lost word": ("record --env", "--env needs a value; see `understudy record --help`"),
    "two lost options": ("dagger", "Missing from understudy dagger: --env STR --out PATH; see `understudy dagger"),
    "demonstrations beside some": (
        "dagger {line} --out {new} --data data --demonstrations 3",
        "--data are the demonstrations, so none are recorded",
    ),
    "a word for a number": ("evaluate run {line} --episodes ten", "--episodes is 'ten'; accepted: a whole number;"),
    "a word for a fraction": ("train bc --data data --out {new} --ema x", "--ema is 'x'; accepted: a number;"),
    "a word for a number or nothing": (
        "record {line} --out {new} --rest-s x",
        "--rest-s is 'x'; accepted: a number;",
    ),
    "a word for a list": (
        "train bc --data data --out {new} --hidden 64,64",
        "--hidden is '64,64'; accepted: whole numbers, as in",
    ),
    "an option of another command": (
        "train bc --data data --out {new} --execute 3",
        "Unrecognized options: --execute, 3;",
    ),
    "a variable that is not set": ("record {line} --out=", "a value is empty ('')"),
    "an unknown command": ("fly", "no command is called 'fly'; close to it: demo, record"),
    "a mistyped command": ("evalute run {line}", "no command is called 'evalute'; close to it: evaluate;"),
    "half a command": ("train --data data", "understudy train bc --data DATA --out RUN"),
    "a folder as JSON": ("evaluate run {line} --json data", "data is no plain file"),
    "JSON in a folder that is not there": (
        "evaluate run {line} --json {new}/eval.json",
        "new, which does not exist; make that folder first",
    ),
    "a device as JSON": ("replay data {line} --json /dev/null", "/dev/null is no plain file"),
    "a video where none can be": ("evaluate run {line} --video /proc/x.mp4", "writing /proc/x.mp4 failed"),
    "a film over a manifest": ("view data {line} --out data/dataset.json", "belongs to the dataset, policy or run in"),
    "JSON over a policy": ("evaluate run {line} --json run/policy/policy.json", "belongs to the dataset, policy or"),
    "JSON among episodes": (
        "replay data {line} --json data/episodes/x.npz",
        "belongs to the dataset, policy or run in",
    ),
    "JSON over a run": ("compare run run {line} --json run/config.json", "belongs to the dataset, policy or run in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_refused_in_one_line_and_leaves_everything_as_it_was(story, said, tmp_path, name):
    command, reason = REFUSED[name]
    before = contents(story)
    places = {"line": " ".join(LINE), "new": tmp_path / "new", "long": tmp_path / ("x" * 300)}
    code, text = said(*command.format(**places).split())
    assert code == 2
    assert reason in text
    assert re.fullmatch(r"understudy: [^\n]+\n", text)
    assert contents(story).keys() - before.keys() <= {story / "data" / "writer.lock"}
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "writer.lock")
    journal = tmp_path / "new" / "recording.journal"  # of an episode that had begun: the next recording takes it up
    assert not (tmp_path / "new").exists() or journal.exists()


def test_help_of_train_is_that_of_train_bc(story, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert not end.value.code
    assert "usage: understudy train bc" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["record", "train bc", "dagger", "finetune", "evaluate", "deploy", "replay"])
def test_help_shows_an_option_that_may_be_left_out_as_what_it_takes(capsys, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert "{None}" not in capsys.readouterr().out


def test_the_word_none_leaves_an_option_out(story, said):
    code, error = said("train", "bc", "--data", "data", "--out", "new", *SMALL, "--lead", "None")
    assert code == 0, error
    assert json.loads((story / "new" / "config.json").read_text())["train"]["lead"] is None
    shutil.rmtree(story / "new")


def test_a_file_that_may_not_be_read_is_a_mistake(story, said, monkeypatch):
    def forbidden(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "run/policy/policy.json")

    monkeypatch.setattr("understudy.load_predictor", forbidden)
    assert said("evaluate", "run", *LINE) == (
        2,
        "understudy: run/policy/policy.json: Permission denied; get the permission for it, or name another place\n",
    )


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "permission"), (errno.EISDIR, "move away what lies there")],
)
def test_the_advice_fits_what_the_system_refused(number, advice):
    with pytest.raises(StorageError, match=advice), storage_errors("saving"):
        raise OSError(number, os.strerror(number))


def test_an_evaluation_asks_for_its_place_before_it_measures(story, said, monkeypatch):
    def read_only(path):
        raise StorageError(f"writing {path} failed: Read-only file system; get the permission for it")

    monkeypatch.setattr("understudy.cli.measuring.prove_writable", read_only)
    monkeypatch.setattr("understudy.evaluate", lambda *a, **o: pytest.fail("it was measured for nothing"))
    code, line = said("evaluate", "run", *LINE)
    assert code == 2
    assert "Read-only file system" in line


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where the tests run in the background of a shell, which turns it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("delay_s", [0, 0.3])
def test_a_ctrl_c_that_comes_inside_of_a_destructor_is_not_lost(said, monkeypatch, delay_s):
    """However long Python takes to leave the place from where it raises nothing, as with a garbage collection there."""

    class Slow(threading.Thread):
        def start(self):
            super().start()
            time.sleep(delay_s)

    monkeypatch.setattr("understudy.cli.threading.Thread", Slow)

    class Dies:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def evaluated(*arguments, **options):
        Dies()
        time.sleep(5)
        pytest.fail("it went on")

    monkeypatch.setattr("understudy.evaluate", evaluated)
    code, line = said("evaluate", "run", *LINE)
    assert code == 130
    assert line.startswith("understudy: interrupted; ")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "interrupted", "reason"),
    [
        (f"evaluate run {' '.join(LINE)}", "understudy.evaluate", "what was not finished is not kept"),
        ("train bc --data data --out RUN", "understudy.train", "with --resume goes on"),
        ("demo --out DEMO", "understudy.demo.tell", "the same command goes on"),
    ],
)
def test_after_ctrl_c_the_command_says_what_is_true_for_it(
    story, said, tmp_path, monkeypatch, words, interrupted, reason
):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, interrupt)
    for name in ("RUN", "DEMO"):
        words = words.replace(name, str(tmp_path / name))
    code, line = said(*words.split())
    assert code == 130
    assert line.startswith("understudy: interrupted; ")
    assert reason in line


def test_an_interrupted_recording_counts_what_is_saved(story, said, tmp_path, monkeypatch):
    recording, calls = sys.modules["understudy.dataset.record"], []
    rollout = recording.rollout

    def interrupted_at_the_second(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rollout(*arguments, **options)

    monkeypatch.setattr(recording, "rollout", interrupted_at_the_second)
    code, line = said("record", *LINE, "--out", tmp_path / "data", "--episodes", "3")
    assert (code, len(Dataset.open(tmp_path / "data"))) == (130, 1)
    assert "1 of 3 episodes are saved; the same command with --episodes 2 records the rest" in line


def test_ctrl_c_is_one_line_while_the_package_is_still_being_imported(monkeypatch, capsys):
    class Slow:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "understudy.cli", Slow())
    assert understudy_command.main() == 130
    assert capsys.readouterr().err == "understudy: interrupted before it began\n"


def test_a_world_without_success_gets_no_share_of_it(story, capsys):
    assert (
        main(["evaluate", "run/policy", *LINE, "--episodes", "2", "--env-arg", "judged=false", "--workers", "1"]) == 0
    )
    printed = capsys.readouterr().out
    assert "this world reports no success" in printed
    assert not re.search(r"succeeded|success on more", printed)


def test_a_comparison_without_a_difference_bounds_what_may_be_there(story, capsys):
    assert main(["compare", "run", "run", *LINE, "--episodes", "4", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "no start tells the two apart; at most 49% of all starts may" in printed  # Wilson's limit of 0 in 4


def test_a_training_that_failed_at_once_may_begin_anew(story, said, tmp_path):
    run = ["train", "bc", "--data", "data", "--out", tmp_path / "run", *SMALL]
    code, line = said(*run, "--learning-rate", "1e30")
    assert code == 2
    assert "the loss is" in line
    assert said(*run) == (0, "")


def test_a_resumed_run_says_that_the_data_changed(story, said, tmp_path):
    few = tmp_path / "few"
    assert said("record", *LINE, "--out", few, "--episodes", "3")[0] == 0
    run = ["train", "bc", "--data", few, "--out", tmp_path / "run", *SMALL]
    assert said(*run)[0] == 0
    assert said("record", *LINE, "--out", few, "--episodes", "1")[0] == 0
    code, line = said(*run, "--resume")
    assert code == 2
    assert "the data changed since" in line


def test_training_says_what_inspect_calls_an_error(story, said, tmp_path):
    assert said("record", *LINE, "--out", tmp_path / "twice", "--episodes", "3")[0] == 0
    code, line = said("record", *LINE, "--out", tmp_path / "twice", "--episodes", "2", "--seed", "0")
    assert (code, line.count("\n")) == (0, 1)
    assert "2 of these starts are in" in line
    code, line = said("train", "bc", "--data", tmp_path / "twice", "--out", tmp_path / "run", *SMALL)
    assert code == 0
    assert "the data have an error, duplicate-episode: " in line


def test_a_warning_is_one_line(story, said, monkeypatch):
    def warn(*arguments, **options):
        warnings.warn("\x1b[33mWARN: the reward is odd\x1b[0m", UserWarning, stacklevel=1)
        return None, []

    monkeypatch.setattr("understudy.write_run_report", warn)
    assert said("report", "run") == (0, "understudy: the reward is odd\n")


def test_a_world_that_warns_is_heard_once_whatever_the_processes(story, capfd):
    words = ["evaluate", "run/policy", *LINE, "--episodes", "4", "--workers", "2", "--env-arg", "warns=true"]
    assert main(words) == 0
    assert capfd.readouterr().err == "understudy: this world is old\n"


def test_an_expert_lies_below_the_folder_of_the_data_too(story, said, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_DATA", str(story))
    monkeypatch.chdir(tmp_path)
    assert said("record", *LINE, "--out", "new", "--episodes", "1", "--expert", "noisy=0.1:run")[0] == 0


def test_lines_without_a_screen_say_the_time_left(story, capsys, tmp_path):
    assert main(["train", "bc", "--data", "data", "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert main(["replay", "data", *LINE]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"training 3/6 \(\d:\d\d:\d\d left\)", printed)
    assert "replaying 2/3" in printed


def test_a_film_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    from tiny_worlds import Noise, TinyWorld

    from understudy.rollout import rollout

    def full(path, data):
        raise StorageError("saving x.mp4 failed: No space left on device")

    monkeypatch.setattr(observers, "write_file", full)
    with pytest.raises(StorageError), observers.Video(tmp_path / "x.mp4") as video:
        rollout(TinyWorld(render_mode="rgb_array"), Noise(), seed=0, observers=[video])
    assert not list(tmp_path.iterdir())


def test_an_import_that_the_disk_refuses_leaves_no_folder(story, tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("understudy.durable._os_write", full)
    assert main(["import", "data", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_one_observation_too_many_is_said_to_be_the_final_one(tmp_path, capsys):
    np.savez(tmp_path / "0.npz", observations=np.ones((6, 2)), actions=np.ones((5, 1)))
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    assert "save the last observation as final_observation" in json.dumps(json.loads(capsys.readouterr().out))


def test_the_demo_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    from understudy import demo

    monkeypatch.setattr(demo, "CLONING", 20)
    monkeypatch.setattr(demo, "DEMONSTRATIONS", (2, 3))
    monkeypatch.setattr(demo, "STARTS", 1)
    quick = demo.TrainConfig(steps=20, measure_every=20, lead=0)
    monkeypatch.setattr(demo, "DAGGER_RECIPE", quick)
    practice = replace(demo.PICK_PLACE.finetune, judge_episodes=1)
    monkeypatch.setattr(demo, "PICK_PLACE", replace(demo.PICK_PLACE, clone=quick, finetune=practice))
    monkeypatch.setattr(demo, "EPISODES", 1)
    monkeypatch.setattr(demo, "IMPERFECT", 2)
    monkeypatch.setattr(demo, "STEPS", 8_000)
    monkeypatch.setattr(demo, "film_evaluation", lambda *arguments: "no pictures in this test")
    measure, calls = demo.evaluate, []

    def second_time_interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(demo, "evaluate", second_time_interrupted)
    out = ["demo", "--workers", "1", "--out", str(tmp_path / "demo")]
    assert main(out) == 130
    assert main(out) == 0
    assert len(calls) == 1 + 1 + 3 + 1 + 2, "what was measured is not measured again"
    assert (tmp_path / "demo" / "report.html").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert main([*out[:-1], str(tmp_path / "mine")]) == 2


@pytest.mark.parametrize("words", [("--workers", "0"), ("--seed", "-1")])
def test_the_demo_refuses_before_it_records(tmp_path, capsys, words):
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    assert "accepted" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_an_episode_ends_in_a_world_where_it_is_told_to(story, said, tmp_path):
    words = ["--out", tmp_path / "short", "--episodes", "1", "--max-steps", "2", "--after-success", "19"]
    assert said("record", *LINE, *words)[0] == 0
    assert len(Dataset.open(tmp_path / "short")[0]) == 2


def test_a_comparison_on_training_starts_says_so(story, capsys):
    assert main(["compare", "run", "run", *LINE, "--seed", "0", "--episodes", "2", "--workers", "1"]) == 0
    assert capsys.readouterr().out.count("an honest figure needs other starts") == 1


@pytest.mark.parametrize("name", ["bc[v2]", "a[/b]", "x:smile:y", "\x1b[2Jz", "\N{CYRILLIC SMALL LETTER ZHE}"])
def test_a_name_is_printed_as_it_is_and_steers_no_terminal(story, capsys, tmp_path, name):
    place = tmp_path / name
    shutil.copytree(story / "run" / "policy", place)
    assert main(["evaluate", str(place), *LINE, "--episodes", "1", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"evaluating {str(place).replace(chr(27), chr(0xFFFD))} 1/1" in printed


def command(folder, words, **options):
    """Runs the command line in a process of its own."""
    line = [sys.executable, "-c", "from understudy_command import main; raise SystemExit(main())", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, **options)


def test_a_name_that_the_output_cannot_spell_is_no_reason_to_fail(story, tmp_path):
    shutil.copytree(story / "run" / "policy", tmp_path / "\N{CYRILLIC SMALL LETTER ZHE}")
    words = ["evaluate", f"{tmp_path}/\N{CYRILLIC SMALL LETTER ZHE}", *LINE, "--episodes", "1", "--workers", "1"]
    done = command(story, words, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert r"/\u0436 1/1" in done.stdout


@pytest.mark.parametrize("words", [["inspect", "data"], ["inspect", "data", "--json"]])
def test_output_that_nobody_reads_ends_a_command_without_a_finding(story, words):
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-c", "from understudy_command import main; raise SystemExit(main())", *words]
    done = subprocess.run(line, cwd=story, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_long_argument_of_the_world_gives_a_short_name(story, said, tmp_path):
    shutil.copytree(story / "run", tmp_path / "run")
    words = ["--episodes", "1", "--workers", "1", "--env-arg", "note=" + "x" * 300]
    assert said("evaluate", tmp_path / "run", *LINE, *words)[0] == 0
    assert said("evaluate", tmp_path / "run", *LINE, *words[:-1], "note=" + "x" * 301)[0] == 0
    assert len(list((tmp_path / "run" / "evaluations").glob("*.json"))) == 2


def test_an_evaluation_is_kept_where_its_films_are_interrupted(story, said, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    shutil.copytree(story / "run", tmp_path / "run")
    monkeypatch.setattr("understudy.cli.measuring.film_evaluation", interrupted)
    code, line = said("evaluate", tmp_path / "run", *LINE, "--episodes", "1", "--workers", "1")
    assert code == 130
    assert "interrupted; the evaluation is kept in" in line
    assert "understudy report" in line
    assert list((tmp_path / "run" / "evaluations").glob("*.json"))


def test_a_world_without_a_limit_of_steps_is_measured_within_the_one_given(story, said, capsys, tmp_path):
    endless = ["--env", "lines_of_tests:Endless-v0"]
    words = ["--episodes", "2", "--workers", "1", "--max-steps", "7", "--json", str(tmp_path / "e.json")]
    assert main(["evaluate", "run", *endless, *words]) == 0
    told = json.loads((tmp_path / "e.json").read_text())
    assert told["max_steps"] == 7
    assert [row["length"] for row in told["episodes"]] == [7, 7]
    assert "no limit of steps" not in capsys.readouterr().out
    assert (
        "understudy: max_steps is 0; accepted: whole numbers, 1 or more"
        in said("evaluate", "run", *LINE, "--max-steps", "0")[1]
    )
    rounds = ["--rounds", "1", "--starts", "2", "--progress-starts", "1", "--max-steps", "9", "--out", tmp_path / "run"]
    few = ["--hidden", "8", "--steps", "6", "--batch-size", "8", "--workers", "1"]
    assert said("dagger", *endless, "--demonstrations", "2", *rounds, *few)[0] == 0
    (kept,) = (tmp_path / "run" / "evaluations").glob("*.json")
    assert {row["length"] for row in json.loads(kept.read_text())["episodes"]} == {9}


def test_what_this_computer_lacks_is_one_line(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where only policies are run
    monkeypatch.delitem(sys.modules, "understudy.checkpoint", raising=False)
    code, line = said("export", "run", "--out", "run.onnx")
    assert (code, line.count("\n")) == (2, 1)
    assert "this needs torch, which is not installed here" in line
