"""The report: one page that loads nothing, escapes everything, and whose numbers are those of the trials."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tyro

from tests.hostile_files import Watch, rows
from understudy import cli
from understudy.errors import ConfigError, UnderstudyError
from understudy.evaluate import Evaluation, Trial, compare
from understudy.network_shape import FeedForwardConfig
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.recipe import DAggerConfig, TrainConfig
from understudy.report import Clip, Report, StudyPoint, map_failures, write_report, write_run_report
from understudy.report.charts import interval_bar, loss_chart, start_chart, study_chart
from understudy.report.commands import training_command
from understudy.report.failures import Axis, Leaving
from understudy.report.markup import element
from understudy.report.page import render
from understudy.report.run_files import read_evaluations
from understudy.report.sections import VIDEO_LIMIT_BYTES
from understudy.runs import Run
from understudy.spec import Channel, Spec

HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\x00\ud800\u202e$\\frac{'
CHANNELS = ("cube.x", "cube.y", "hand.x", "gripper")
SPEC = Spec("World-v0", 25.0, tuple(Channel(name, "m") for name in CHANNELS), (Channel("a", "1", -1, 1),))
SECTIONS = {"result", "results", "failures", "study", "videos", "training", "data", "repeat"}


def evaluation(
    seed: int = 0, count: int = 120, *, pattern: bool = True, names: tuple[str, ...] = CHANNELS
) -> Evaluation:
    generator = np.random.default_rng(seed)
    trials = []
    for index in range(count):
        x, y, joint = np.random.default_rng(index).uniform(0, 0.3, 3)  # the same starts whatever the policy
        success = bool(generator.random() < ((0.95 if x < 0.15 else 0.2) if pattern else 0.6))
        outside = None if success or generator.random() < 0.2 else int(generator.integers(0, 60))
        channel = None if outside is None else names[int(generator.integers(4))]
        start = (float(x), float(y), float(joint), 0.0)
        trials.append(
            Trial(index, 10_000 + index, success, False, 1.0, 80, 2.0 if success else None, start, outside, channel)
        )
    return Evaluation("World-v0", 10_000, tuple(trials))


def metrics(note: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "steps": 1000,
            "loss": 100 / step + note,
            "held_out_loss": 120 / step,
            "samples_per_s": 9.0,
            "lr": 0.1,
        }
        for step in range(100, 1001, 100)
    ]


def full_report(folder: Path, text: str = "plain") -> Report:
    film = folder / "film.mp4"
    film.write_bytes(b"not really a film")
    names = tuple(f"{name} {text}" for name in CHANNELS)
    spec = Spec(text, 25.0, tuple(Channel(name, text) for name in names), (Channel(text, text, -1, 1),))
    first, second = evaluation(1, names=names), evaluation(2, pattern=False, names=names)
    first = Evaluation(text, first.seed, first.trials)
    return Report(
        title=f"Title {text}",
        date=text,
        data=text,
        spec=spec,
        evaluations={f"first {text}": first, f"second {text}": second},
        comparisons=[(f"first {text}", f"second {text}", compare(second, evaluation(3)))],
        study=[StudyPoint(count, noise, evaluation(count)) for count in (5, 50) for noise in (0.0, 0.1)],
        metrics=metrics(),
        clips=[Clip(f"film {text}", film, True), Clip(text, folder / "absent.mp4")],
        health={
            f"key {text}": text,
            "episodes": 50,
            "defects": [{"id": text, "severity": "error", "message": text, "episodes": [1, 2], "channel": text}],
            "channels": [{"name": text, "kind": text, "unit": text, "low": 0.0, "high": 1.0, "deviation": 0.5}],
        },
        config={f"key {text}": {"inner": [text, 1]}},
        versions={text: text},
        seeds={text: 1},
        commands=[f"understudy train bc {text}"],
    )


class Page(HTMLParser):
    """Collects what a test asks about a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._cell = True
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[-1][-1][-1] += f"{data}|"

    @property
    def sections(self) -> set[str]:
        return {str(attributes["id"]) for tag, attributes in self.elements if tag == "section"}


def charts_of(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, re.DOTALL)


def assert_nothing_is_loaded(text: str) -> Page:
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "img", "image", "foreignobject"), tag
        for key, value in attributes.items():
            assert not key.startswith("on"), key
            assert "javascript:" not in (value or "")
            if key in ("src", "srcset", "poster", "data", "action"):
                assert value
                assert value.startswith("data:"), value[:50]
            if key in ("href", "xlink:href"):
                assert value
                assert value.startswith("#"), value
    assert not re.search(r"@import|url\((?!#)", text)
    return page


def test_a_report_loads_nothing_and_forbids_it(tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", full_report(tmp_path)).read_text()
    page = assert_nothing_is_loaded(text)
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"]
    assert page.sections == SECTIONS
    assert len(page.ids) == len(set(page.ids)), "ids are unique"
    targets = {a["href"] for tag, a in page.elements if tag == "a"}
    assert targets <= {f"#{name}" for name in page.ids}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    text = render(full_report(tmp_path, HOSTILE))
    page = assert_nothing_is_loaded(text)
    assert "<script" not in text
    assert not re.search("[\x00\ud800\u202e]", text)
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in Page(render(full_report(tmp_path))).elements}
    for chart in charts_of(text):
        ElementTree.fromstring(chart)


def test_text_is_escaped_wherever_it_is_put() -> None:
    made = element("p", "<b>", ["&", None], title='"<', class_="x", hidden=True, lang=None)
    assert made == '<p title="&quot;&lt;" class="x" hidden>&lt;b&gt;&amp;</p>'


def test_sections_without_material_are_left_out(tmp_path: Path) -> None:
    assert Page(render(Report("Nothing"))).sections == set()
    whole = full_report(tmp_path)
    for section, names in {
        "study": ("study",),
        "videos": ("clips",),
        "training": ("metrics",),
        "data": ("health",),
        "repeat": ("commands", "config", "versions", "seeds"),
    }.items():
        given: Mapping[str, Any] = {name: getattr(whole, name) for name in names}
        assert Page(render(Report("Some", **given))).sections == {section}
    one = Page(render(Report("One", evaluations={"only": evaluation()})))
    assert one.sections == {"result", "failures"}


def test_the_headline_says_number_and_interval() -> None:
    measured = evaluation()
    low, high = measured.interval
    text = render(Report("One", evaluations={"only": measured}))
    assert f"{measured.successes} of 120 starts" in text
    assert f"between {low:.0%} and {high:.0%}" in text


def test_a_world_without_success_shows_its_return() -> None:
    trials = tuple(Trial(i, i, None, False, 12.5, 10, None, (float(i),)) for i in range(3))
    page = render(Report("Return", evaluations={"only": Evaluation("World-v0", 0, trials)}))
    assert "12.5" in page
    assert Page(page).sections == {"result"}


def test_the_cells_hold_what_a_literal_count_finds() -> None:
    measured = evaluation()
    found = map_failures(measured, SPEC)
    assert found is not None
    first, second = found.axes
    assert first.name == "cube.x"
    columns = [CHANNELS.index(axis.name) for axis in found.axes]
    rows = Page(render(Report("One", spec=SPEC, evaluations={"only": measured}))).tables[-1][1:]
    seen = 0
    for cell in found.cells:
        starts = successes = left = 0
        steps, channels = [], []
        for trial in measured.trials:
            inside = True
            for axis, column, place in zip(found.axes, columns, cell.place, strict=True):
                lows, highs = [-np.inf, *axis.edges], [*axis.edges, np.inf]
                inside = inside and lows[place] <= trial.start[column] < highs[place]
            if not inside:
                continue
            starts += 1
            successes += bool(trial.success)
            if not trial.success and trial.first_step_outside is not None:
                left += 1
                steps.append(trial.first_step_outside)
                channels.append(trial.channel_outside)
        seen += starts
        assert (cell.starts, cell.successes, cell.failures.left) == (starts, successes, left)
        if steps:
            assert cell.failures.median_step == statistics.median(steps)
            assert cell.failures.by_channel == max(channels.count(channel) for channel in channels)
            assert channels.count(cell.failures.channel) == cell.failures.by_channel
        if starts > successes:
            place = f"{first.name} {first.label(cell.place[0])}, {second.name} {second.label(cell.place[1])}|"
            row = next(row for row in rows if row[0] == place)
            assert row[1] == f"{starts - successes} of {starts}|"
            assert row[2] == f"{left} of {starts - successes}|"
    assert seen == len(measured.trials)


def test_a_channel_that_decides_is_found_and_chance_is_not() -> None:
    clear = map_failures(evaluation(), SPEC)
    assert clear is not None
    assert clear.clear[0].name == "cube.x"
    assert clear.searched == 3, "the gripper never varies"
    found = [map_failures(evaluation(seed, pattern=False), SPEC) for seed in range(40)]
    wrong = sum(bool(one.clear) for one in found if one)
    assert wrong <= 6, "about 5 % of 40 reports may see a pattern where there is none, however many channels vary"
    assert "does not visibly tell" in render(Report("Chance", evaluations={"only": evaluation(0, pattern=False)}))


def test_a_channel_that_moves_with_the_first_is_not_shown_beside_it() -> None:
    doubled = [
        Trial(t.index, t.seed, t.success, False, 0.0, 9, None, (t.start[0], 2 * t.start[0], t.start[1]))
        for t in evaluation().trials
    ]
    found = map_failures(Evaluation("World-v0", 0, tuple(doubled)))
    assert found is not None
    assert {axis.name for axis in found.axes} in (
        {"observation[0]", "observation[2]"},
        {"observation[1]", "observation[2]"},
    )


@pytest.mark.parametrize("outcome", [True, False])
@pytest.mark.parametrize("start", [(), (1.0,), (1.0, 2.0)])
def test_trials_that_all_end_alike_or_start_alike_make_a_page(outcome: bool, start: tuple[float, ...]) -> None:
    trials = tuple(Trial(i, i, outcome, False, 0.0, 10, None, tuple(value * i for value in start)) for i in range(4))
    page = Page(render(Report("Alike", evaluations={"only": Evaluation("World-v0", 0, trials)})))
    assert page.sections == {"result", "failures"}


def test_channels_with_few_values_have_no_empty_bins() -> None:
    trials = tuple(
        Trial(i, i, i % 7 > 2, False, 0.0, 10, None, (float(i % 2), float(i > 98), float(i % 3))) for i in range(100)
    )
    found = map_failures(Evaluation("World-v0", 0, trials))
    assert found is not None
    for axis in found.axes:
        assert set(axis.bins) == set(range(len(axis.edges) + 1))
        assert len({axis.label(index) for index in range(len(axis.edges) + 1)}) == len(axis.edges) + 1


def test_ties_between_channels_do_not_depend_on_the_order() -> None:
    trials = [Trial(i, i, False, False, 0.0, 9, None, (), 3, name) for i, name in enumerate(("b", "a"))]
    assert Leaving.of(trials) == Leaving.of(trials[::-1])
    assert Leaving.of(trials).channel == "a"


def test_charts_are_valid_xml_in_the_colours_of_the_page() -> None:
    found = map_failures(evaluation(), SPEC)
    assert found is not None
    points = [StudyPoint(count, noise, evaluation(count)) for count in (5, 15, 50) for noise in (0.0, 0.1)]
    for chart in (interval_bar(evaluation()), study_chart(points), loss_chart(metrics()), start_chart(found)):
        assert chart is not None
        ElementTree.fromstring(chart)
        assert not re.search(r"#0[0-9]{5}|<metadata|<!DOCTYPE|Date", chart)


def test_losses_below_zero_or_not_finite_are_drawn_as_they_can_be() -> None:
    assert "log scale" in str(loss_chart(metrics()))
    assert "log scale" not in str(loss_chart(metrics(note=-1.0)))
    rows = [{**row, "held_out_loss": float("nan")} for row in metrics()]
    assert "held-out" not in str(loss_chart(rows))
    assert loss_chart([{"step": 1}]) is None


def test_the_same_report_is_the_same_bytes(tmp_path: Path) -> None:
    one = write_report(tmp_path / "one.html", full_report(tmp_path)).read_bytes()
    two = write_report(tmp_path / "two.html", full_report(tmp_path)).read_bytes()
    assert one == two


def test_a_user_s_matplotlib_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl

    plain = render(full_report(tmp_path))
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert render(full_report(tmp_path)) == plain
        assert dict(mpl.rcParams) == before


def test_a_large_video_is_named_instead(tmp_path: Path) -> None:
    film = tmp_path / "large.mp4"
    film.write_bytes(bytes(VIDEO_LIMIT_BYTES + 1))
    page = render(Report("Large", clips=[Clip("film", film), Clip("gone", tmp_path / "gone.mp4")]))
    assert "large.mp4 is too large" in page
    assert "gone.mp4 is not there, or no plain file" in page
    assert "data:video" not in page


SHAPE = FeedForwardConfig(
    hidden=(64, 32),
    activation="tanh",
    head="squared",
    history=2,
    horizon=4,
    input_limit=3.5,
    relative=("hand", "cube"),
    near=0.05,
    ignore=("gripper",),
    skip=True,
    skip_hidden=(16,),
)
RECIPE = TrainConfig(
    steps=1000,
    batch_size=64,
    learning_rate=1e-05,
    warmup=0.1,
    weight_decay=0.0,
    gradient_clip=0.5,
    ema=0.0,
    observation_noise=0.0,
    lead=3,
    clip_targets=False,
    failures=False,
    held_out=0.2,
    keep="last",
    measure_every=100,
    seed=7,
    device="cpu",
    threads=2,
)


def config_of(policy: Policy, recipe: TrainConfig, **notes: Any) -> dict[str, Any]:
    """What a training writes into config.json."""
    return {
        "command": "train",
        "policy": {"kind": policy.kind, **policy.architecture()},
        "train": asdict(recipe),
        "spec": SPEC.to_json(),
        **notes,
    }


def made_run(path: Path) -> Path:
    """A run that holds everything of which a report is made."""
    folder = Run(path, config_of(FeedForward(SPEC, SHAPE), RECIPE))
    for row in metrics():
        folder.log(row)
    (path / "evaluations").mkdir()
    (path / "evaluations" / "World-v0.json").write_text(json.dumps(evaluation().to_json()))
    (path / "evaluations" / "World-v0-failure-10004.mp4").write_bytes(b"film")
    (path / "health.json").write_text(json.dumps({"episodes": 50, "steps": 6000, "defects": []}))
    return path


def commands_of(path: Path) -> list[list[str]]:
    """The words of the commands that a report prints, without the program's name."""
    (screen,) = re.findall(r"<pre[^>]*><code>(.*?)</code>", path.read_text(), re.DOTALL)
    lines = [shlex.split(line) for line in unescape(screen).split("\n\n")]
    assert all(words[0] == "understudy" for words in lines)
    return [words[1:] for words in lines]


def test_a_run_s_report_shows_what_its_folder_holds(tmp_path: Path) -> None:
    run = made_run(tmp_path / "my run")
    path = write_run_report(run, date="today")
    assert path == run / "report.html"
    text = path.read_text()
    assert Page(text).sections == {"result", "failures", "videos", "training", "data", "repeat"}
    assert "50 episodes, 6,000 steps" in text
    assert "Start with seed 10004" in text
    with pytest.raises(ConfigError, match="holds no config"):
        write_run_report(tmp_path)
    (run / "health.json").write_text("[1]")
    with pytest.raises(ConfigError, match="health"):
        write_run_report(run)


def test_evaluations_of_the_same_starts_are_compared(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    executed = replace(evaluation(2), options={"execute": 2})
    for name, other in (("a", executed), ("b", replace(evaluation(3), world="Other-v0"))):
        (run / "evaluations" / f"{name}.json").write_text(json.dumps(other.to_json()))
    text = write_run_report(run).read_text()
    assert re.findall("<h3>([^<]* against [^<]*)</h3>", text) == ["World-v0, execute 2 against World-v0"]
    found = compare(evaluation(), executed)
    counts = [found.both, found.only_first, found.only_second, found.neither]
    assert ["Starts|", *(f"{count}|" for count in counts)] in [row for rows in Page(text).tables for row in rows]


def test_an_evaluation_is_called_by_what_others_do_not_share(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    executed = replace(evaluation(2), options={"execute": 2, "env_arguments": ["light=dim"]})
    (run / "evaluations" / "0.json").write_text(json.dumps(executed.to_json()))

    def called() -> list[str]:
        (table,) = (table for table in Page(write_run_report(run).read_text()).tables if table[0][0] == "Evaluation|")
        return [row[0] for row in table[1:]]

    assert called() == ["default|", "execute 2, light=dim|"]
    (run / "evaluations" / "copy.json").write_text(json.dumps(executed.to_json()))
    assert called() == ["World-v0|", "0|", "copy|"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line understands: every command notes its arguments instead of running."""
    noted: list[dict[str, Any]] = []
    app = tyro.extras.SubcommandApp()
    for name, command in cli._COMMANDS.items():
        noting = functools.wraps(command)(lambda *_, **arguments: noted.append(arguments))
        app.command(name=name)(cli._bound(noting))
    monkeypatch.setattr(cli, "app", app)
    return noted


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("shape", "recipe"), [(SHAPE, RECIPE), (FeedForwardConfig(), TrainConfig())])
@pytest.mark.parametrize("notes", [{"data": "my data"}, {"data": "my data", "env": "my_world:World-v0"}])
def test_the_command_line_reads_the_printed_training_as_it_was(
    tmp_path: Path,
    parsed: list[dict[str, Any]],
    members: int,
    shape: FeedForwardConfig,
    recipe: TrainConfig,
    notes: dict[str, str],
) -> None:
    policy = FeedForward(SPEC, shape)
    run = tmp_path / "my run"
    Run(run, config_of(policy if members == 1 else Ensemble.of(policy, members), recipe, **notes))
    (command,) = commands_of(write_run_report(run))
    assert cli.main(command) == 0
    assert parsed == [
        {
            "data": Path(notes["data"]),
            "out": run,
            "env": notes.get("env"),
            "members": members,
            "shape": shape,
            "recipe": recipe,
            "resume": False,
        }
    ]


@pytest.mark.parametrize("command", ["train", "dagger"])
def test_a_run_from_python_has_no_command_that_would_repeat_it(tmp_path: Path, command: str) -> None:
    config = config_of(FeedForward(SPEC, SHAPE), RECIPE)
    rounds = {"gate": {"name": "dagger"}, "dagger": asdict(DAggerConfig())}
    assert training_command(tmp_path, {**config, "command": command, **rounds}) is None


@pytest.mark.parametrize("hidden", [(128, 128), (256, 256)])
def test_the_printed_rounds_name_the_network_that_is_not_the_default_of_rounds(
    tmp_path: Path, hidden: tuple[int, ...]
) -> None:
    shape = FeedForwardConfig(hidden=hidden)
    config = config_of(FeedForward(SPEC, shape), RECIPE, env="World-v0", data="data", expert="scripted")
    rounds = {"command": "dagger", "gate": {"name": "dagger"}, "dagger": asdict(DAggerConfig())}
    command = str(training_command(tmp_path, {**config, **rounds}))
    assert ("--hidden 256 256" in command) == (hidden == (256, 256))
    assert "--hidden 128" not in command


def test_the_printed_training_is_tried_with_every_option_away_from_its_default() -> None:
    for settings in (SHAPE, RECIPE):
        assert all(getattr(settings, field.name) != field.default for field in fields(settings))


@pytest.mark.parametrize(
    "options", [{}, {"execute": 2, "env_arguments": ["reward=shaped", "name=two words"]}, {"ensemble_decay": 0.1}]
)
def test_the_command_line_reads_the_printed_evaluation_as_it_was(
    tmp_path: Path, parsed: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    run = made_run(tmp_path / "my run")
    done = replace(evaluation(), world="my_world:World-v0", options=options)
    (run / "evaluations" / "World-v0.json").write_text(json.dumps(done.to_json()))
    assert cli.main(commands_of(write_run_report(run))[-1]) == 0
    (given,) = parsed
    assert given["policy"] == run
    assert (given["env"], given["episodes"], given["seed"]) == ("my_world:World-v0", 120, 10_000)
    assert given["execute"] == options.get("execute")
    assert given["ensemble_decay"] == options.get("ensemble_decay")
    assert list(given["env_arguments"]) == options.get("env_arguments", [])


def test_the_commands_of_a_report_repeat_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repeated_world.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('Mine-v0', 'understudy.sim.pick_place:PickPlaceEnv', max_episode_steps=30)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("understudy.cli.measuring.film_evaluation", lambda *_: "not here")
    assert cli.main(["record", "--env", "understudy/PickPlace-v0", "--out", "data", "--episodes", "3"]) == 0
    small = "--members 2 --hidden 16 --steps 20 --batch-size 8 --measure-every 20 --horizon 4 --no-clip-targets"
    assert cli.main(["train", "bc", "--data", "data", "--out", "run", *small.split()]) == 0
    how = "--env repeated_world:Mine-v0 --episodes 2 --execute 2 --env-arg reward=shaped --workers 1"
    assert cli.main(["evaluate", "run", *how.split()]) == 0
    commands = commands_of(tmp_path / "run" / "report.html")
    (tmp_path / "run").rename("first")
    for command in commands:
        assert cli.main(command) == 0
    for pattern in ("policy/weights.safetensors", "evaluations/*.json"):
        (one,), (two,) = (list(Path(folder).glob(pattern)) for folder in ("first", "run"))
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()


Tamper = Callable[[Path, Path], object]
SECRET = "nobody may read this"


def linked(name: str) -> Tamper:
    """Moves what a run holds outside and puts a link in its place."""

    def tamper(run: Path, outside: Path) -> None:
        target = outside / Path(name).name
        if (run / name).exists():
            (run / name).rename(target)
        else:
            target.write_text(SECRET)
        (run / name).symlink_to(target)

    return tamper


def piped(name: str) -> Tamper:
    def tamper(run: Path, outside: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return tamper


def sized(name: str, size: int) -> Tamper:
    return lambda run, outside: os.truncate(run / name, size)


def holding(name: str, content: str) -> Tamper:
    return lambda run, outside: (run / name).write_text(content)


def edited(name: str, change: Callable[[Any], object]) -> Tamper:
    def tamper(run: Path, outside: Path) -> None:
        document = json.loads((run / name).read_text())
        change(document)
        (run / name).write_text(json.dumps(document))

    return tamper


def of_trial(**values: Any) -> Tamper:
    return edited(EVALUATION, lambda document: document["episodes"][3].update(values))


def a_folder_in_the_place_of_metrics(run: Path, outside: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


def a_file_in_the_place_of_evaluations(run: Path, outside: Path) -> None:
    shutil.rmtree(run / "evaluations")
    (run / "evaluations").touch()


EVALUATION, FILM = "evaluations/World-v0.json", "evaluations/World-v0-failure-10004.mp4"
REFUSED: dict[str, Tamper] = {
    "a config.json that is a link outside": linked("config.json"),
    "a metrics.jsonl that is a link outside": linked("metrics.jsonl"),
    "a health.json that is a link outside": linked("health.json"),
    "an evaluations folder that is a link outside": linked("evaluations"),
    "an evaluation that is a link outside": linked(EVALUATION),
    "a pipe in the place of config.json": piped("config.json"),
    "a pipe in the place of metrics.jsonl": piped("metrics.jsonl"),
    "a pipe in the place of health.json": piped("health.json"),
    "a pipe in the place of an evaluation": piped(EVALUATION),
    "a folder in the place of metrics.jsonl": a_folder_in_the_place_of_metrics,
    "a file in the place of the evaluations folder": a_file_in_the_place_of_evaluations,
    "a config.json of a terabyte": sized("config.json", 2**40),
    "a metrics.jsonl of a terabyte": sized("metrics.jsonl", 2**40),
    "an evaluation of a terabyte": sized(EVALUATION, 2**40),
    "a config.json nested a hundred thousand deep": holding("config.json", "[" * 100_000),
    "a config.json that is a list": holding("config.json", "[]"),
    "a config.json that says nothing": holding("config.json", "{}"),
    "a config.json whose policy is text": edited("config.json", lambda document: document.update(policy="os.system")),
    "a config.json with an unknown option": edited("config.json", lambda document: document["train"].update({"\n": 1})),
    "a config.json with an ensemble of nothing": edited(
        "config.json", lambda document: document.update(policy={"kind": "ensemble", "members": 2, "member": None})
    ),
    "a config.json whose spec is text": edited("config.json", lambda document: document.update(spec="os.system")),
    "an evaluation with NaN": of_trial(total_reward=float("nan")),
    "an evaluation whose seed is a path": of_trial(seed="/../../../outside/secret"),
    "an evaluation whose start is text": of_trial(start="here"),
    "an evaluation with an unknown field": of_trial(callback="os.system"),
    "an evaluation with a number of a million digits": holding(EVALUATION, f'{{"seed": {"9" * 1_000_000}}}'),
    "an evaluation whose world is a list": edited(EVALUATION, lambda document: document.update(world=["World-v0"])),
    "an evaluation whose arguments are a number": edited(EVALUATION, lambda document: document.update(env_arguments=1)),
}
READ: dict[str, Tamper] = {
    "a film that is a link outside": linked(FILM),
    "a pipe in the place of a film": piped(FILM),
    "a film of a terabyte": sized(FILM, 2**40),
    "a policy folder that is a link outside": linked("policy"),
    "a report.html that is a link outside": linked("report.html"),
    "a film of a start that was never evaluated": linked("evaluations/World-v0-failure-7.mp4"),
    "metrics with a line nested a hundred thousand deep": holding("metrics.jsonl", "[" * 100_000),
    "metrics with a line that is no object": holding("metrics.jsonl", '{"step": 1, "loss": 1}\n[1]\n'),
    "metrics with text and endless numbers": holding(
        "metrics.jsonl", f'{{"step": "x", "loss": {"9" * 400}, "lr": 1e999, "held_out_loss": []}}\n'
    ),
    "a health.json whose defects are numbers": holding(
        "health.json", '{"defects": 1, "channels": 2, "episodes": "many"}'
    ),
}


@pytest.mark.parametrize("name", [*REFUSED, *READ])
def test_a_report_of_a_hostile_run_runs_nothing_and_reaches_nothing(tmp_path: Path, name: str) -> None:
    """Promise X1 for runs: the rows of docs/hostile_files.md."""
    write_run_report(made_run(tmp_path / "warm"))  # what is imported and opened on first use is so now
    run, outside = made_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    (REFUSED | READ)[name](run, outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    refused = pytest.raises(UnderstudyError) if name in REFUSED else contextlib.nullcontext()
    with Watch(run) as watch, refused as error:
        write_run_report(run)
    assert watch.trespasses == []
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    if error:
        assert "\n" not in str(error.value)
    else:
        assert not (run / "report.html").is_symlink()
        assert SECRET not in (run / "report.html").read_text()


def test_a_config_of_any_depth_is_shown_or_refused(tmp_path: Path) -> None:
    for depth in (3, *range(900, 1000)):
        run = Run(tmp_path / str(depth), {}).path
        (run / "config.json").write_text('{"command":' * depth + "{}" + "}" * depth)
        with contextlib.suppress(ConfigError):
            write_run_report(run)
        assert (run / "report.html").exists() or depth > 3


def test_the_runs_of_the_page_on_hostile_files_are_these() -> None:
    assert {name for name, what in rows("Runs").items() if what == "refused"} == REFUSED.keys()
    assert {name for name, what in rows("Runs").items() if what.startswith("read: ")} == READ.keys()


def test_an_evaluation_is_not_written_through_a_link(tmp_path: Path) -> None:
    run, outside = made_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    linked("evaluations")(run, outside)
    before = sorted(outside.rglob("*"))
    assert cli.main(["evaluate", str(run), "--env", "understudy/PickPlace-v0"]) == 2
    assert sorted(outside.rglob("*")) == before


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_chromium_opens_a_report_without_complaint(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", full_report(tmp_path, HOSTILE))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --dump-dom"
    )
    command = ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<section") == len(SECTIONS)


LEDGER = {
    "episodes": 4, "steps": 200, "labels": 50, "expert_steps": 40, "interventions": 3, "context_switches": 6,
    "expert_seconds": 2.5, "successes": 3, "success_alone": 0.5, "starts_alone": 20,
}  # fmt: skip


def test_the_expert_s_time_is_shown_round_by_round():
    rows = [{"step": 0, **LEDGER}, {"step": 1, **LEDGER, "success_alone": 0.9}]
    text = render(Report("DAgger", metrics=rows))
    assert Page(text).sections == {"expert"}
    assert "asked or drove for 5 s in all" in text
    assert "90% (70% to 97%)" in text
    assert "40 of 200 steps" in text


def test_a_ledger_that_nobody_measured_alone_and_odd_rows_still_make_a_page():
    rows = [{"step": 0, **LEDGER, "success_alone": None}, {"step": 1, "labels": "many"}, {"step": 2, **LEDGER}]
    assert Page(render(Report("DAgger", metrics=rows))).sections == {"expert"}


def test_a_ledger_without_a_rate_counts_steps():
    rows = [{"step": step, **LEDGER, "expert_seconds": 0.0} for step in (0, 1)]
    text = render(Report("DAgger", metrics=rows))
    assert "asked or drove for 100 steps in all" in text
    assert "after 100 steps: 50%" in text


def test_a_ledger_counts_what_the_expert_drove_unasked_and_claims_no_failure_that_nobody_saw():
    rows = [{"step": step, **LEDGER, "expert_seconds": 0.0, "attended": 73, "judged": 0} for step in (0, 1)]
    text = render(Report("DAgger", metrics=rows))
    assert "asked or drove for 146 steps in all" in text
    assert "3 of" not in text


def test_the_headline_is_of_starts_that_no_training_has_seen(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    trained = replace(evaluation(2, 200), seed=0)
    elsewhere = replace(evaluation(3, 150), options={"env_arguments": ["light=dim"]})
    for name, other in (("trained", trained), ("elsewhere", elsewhere)):
        (run / "evaluations" / f"{name}.json").write_text(json.dumps(other.to_json()))
    assert list(read_evaluations(run)) == ["World-v0", "elsewhere", "trained"]
    assert "an honest figure needs other starts" not in write_run_report(run).read_text()
    (run / "evaluations" / "World-v0.json").unlink()
    assert "<dd>World-v0, light=dim</dd>" in write_run_report(run).read_text()
    (run / "evaluations" / "elsewhere.json").unlink()
    assert "an honest figure needs other starts" in write_run_report(run).read_text()


def test_evaluations_of_starts_that_look_different_are_not_compared(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    moved = [replace(trial, start=(trial.start[0] + 2, *trial.start[1:])) for trial in evaluation(2).trials]
    far = replace(evaluation(), trials=tuple(moved), options={"env_arguments": ["far=2.0"]})
    (run / "evaluations" / "far.json").write_text(json.dumps(far.to_json()))
    assert "On the same" not in write_run_report(run).read_text()


def test_a_small_difference_of_many_starts_is_not_said_to_be_0(tmp_path: Path) -> None:
    first = evaluation(pattern=False, count=2000)
    fails = next(trial for trial in first.trials if not trial.success)
    second = replace(
        first, trials=tuple(replace(trial, success=trial.success or trial == fails) for trial in first.trials)
    )
    text = render(Report("R", evaluations={"a": first, "b": second}, comparisons=[("a", "b", compare(first, second))]))
    assert "0.05 percentage points above" in text


def test_what_a_fine_tuning_from_nothing_is_told_speaks_of_no_demonstrations_and_no_loss(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 100, "success": 0.5, "mean_return": 1.0}\n')
    config = json.loads((run / "config.json").read_text())
    del config["train"]
    (run / "config.json").write_text(json.dumps({**config, "command": "finetune", "finetune": {"seed": 7}}))
    text = write_run_report(run).read_text()
    assert "demonstrations that start" not in text
    assert "no demonstration shows" not in text
    assert "low loss" not in text
    assert "Practise for more steps" in text
    assert ["training|", "7|"] in [row for rows in Page(text).tables for row in rows]


def test_edges_of_the_failure_map_never_read_alike() -> None:
    values = np.array([*np.linspace(0, 0.01, 119), 500.0])
    axis = Axis("x", "m", values, tuple(np.quantile(values, [1 / 3, 2 / 3])), None)
    assert len({axis.label(index) for index in range(3)}) == 3
    assert "to 0\N{NO-BREAK SPACE}" not in axis.label(1)
