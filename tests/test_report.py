"""The report: one page that loads nothing, escapes everything, and whose numbers are those of the trials."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from understudy.errors import ConfigError
from understudy.evaluate import Evaluation, Trial, compare
from understudy.report import Clip, Report, StudyPoint, map_failures, write_report, write_run_report
from understudy.report.charts import interval_bar, loss_chart, start_chart, study_chart
from understudy.report.failures import Leaving
from understudy.report.markup import element
from understudy.report.page import render
from understudy.report.sections import VIDEO_LIMIT_BYTES
from understudy.runs import Run
from understudy.spec import Channel, Spec

HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\x00\ud800\u202e$\\frac{'
CHANNELS = ("cube.x", "cube.y", "joint", "gripper")
SPEC = Spec("World-v0", 25.0, tuple(Channel(name, "m") for name in CHANNELS), (Channel("a", "1", -1, 1),))
SECTIONS = {"result", "results", "failures", "study", "videos", "training", "data", "notes", "repeat"}


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
        notes=[text],
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
    for section, fields in {
        "study": ("study",),
        "videos": ("clips",),
        "training": ("metrics",),
        "data": ("health",),
        "notes": ("notes",),
        "repeat": ("commands", "config", "versions", "seeds"),
    }.items():
        given: Mapping[str, Any] = {field: getattr(whole, field) for field in fields}
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
    assert "gone.mp4 is not there" in page
    assert "data:video" not in page


def test_a_run_s_report_shows_what_its_folder_holds(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    config = {
        "command": "train",
        "policy": {"kind": "feedforward", "hidden": [64, 64], "history": 1},
        "train": {"steps": 1000, "seed": 7, "clip_targets": False, "batch_size": 256},
        "spec": SPEC.to_json(),
    }
    folder = Run(run, config)
    for row in metrics():
        folder.log(row)
    (run / "evaluations").mkdir()
    (run / "evaluations" / "World-v0.json").write_text(json.dumps(evaluation().to_json()))
    (run / "evaluations" / "World-v0-failure-10003.mp4").write_bytes(b"film")
    (run / "health.json").write_text(json.dumps({"episodes": 50, "steps": 6000, "defects": []}))
    path = write_run_report(run, date="today")
    assert path == run / "report.html"
    text = path.read_text()
    assert Page(text).sections == {"result", "failures", "videos", "training", "data", "repeat"}
    assert "50 episodes, 6,000 steps" in text
    assert "--hidden 64 64 --steps 1000 --clip-targets False --seed 7\n" in text
    assert "evaluate &#x27;" in text, "a path with a space is quoted"
    assert "Start with seed 10003" in text
    with pytest.raises(ConfigError, match="holds no config"):
        write_run_report(tmp_path)
    (run / "health.json").write_text("[1]")
    with pytest.raises(ConfigError, match="health"):
        write_run_report(run)


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
