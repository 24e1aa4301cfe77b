"""The documents keep their word: their code runs, their links lead somewhere, their numbers come from the code."""

import re
import runpy
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import understudy
from understudy import demo
from understudy.cli import main
from understudy.dataset import DEFECTS, DatasetWarning

ROOT = Path(__file__).parents[1]
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")})
METHODS = [str(page.relative_to(ROOT)) for page in PAGES if page.parent.name == "methods"]

# A reader runs the code as it stands; the test makes these sizes smaller and changes nothing else.
IN_PYTHON = {
    "range(50)": "range(3)",
    "us.TrainConfig()": "us.TrainConfig(steps=60, measure_every=30)",
    "episodes=100": "episodes=4",
}
ON_THE_COMMAND_LINE = {
    "--episodes 50": "--episodes 3",
    "--episodes 100": "--episodes 4 --workers 1 --env-arg width=64 --env-arg height=48",
    "--episodes 200": "--episodes 4 --workers 1",
    "train bc": "train bc --steps 60 --measure-every 30 --hidden 16",
    "--out data.mp4": "--out data.mp4 --env-arg width=64 --env-arg height=48",
    "--rounds 3": "--rounds 1 --episodes 1 --steps 20 --measure-every 20 --progress-starts 1 --workers 1 "
    "--env-arg width=64 --env-arg height=48",
    "--starts 100": "--starts 2",
    "--steps 200000": "--steps 800 --episodes 2 --judge-episodes 0 --value-first-epochs 1 --starts 2 --workers 1 "
    "--env-arg width=64 --env-arg height=48",
    "--max-steps 100": "--max-steps 10",
    "--max-steps 200": "--max-steps 20",
}
_PLAIN_WORLD = {"--env-arg width=64 --env-arg height=48": ""}  # for a world that draws nothing


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def smaller(text, sizes):
    for large, small in sizes.items():
        text = text.replace(large, small)
    return text


def run_python(code, path):
    path.write_text(smaller(code, IN_PYTHON))
    return runpy.run_path(str(path))


def run_commands(screen, *, plain_world=False):
    for line in smaller(screen, ON_THE_COMMAND_LINE).replace("\\\n", " ").splitlines():
        words = shlex.split(smaller(line, _PLAIN_WORLD) if plain_world else line, comments=True)
        if words and words[0] == "understudy":
            assert main(words[1:]) == 0, line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_python_screen_of_the_readme_runs(folder, capsys):
    (code,) = blocks("README.md", "python")
    assert all(size in code for size in IN_PYTHON), "a size that the test should make smaller is written in another way"
    policy = run_python(code, folder / "screen.py")["policy"]
    assert isinstance(policy, understudy.Policy)
    assert re.search(r"success [\d.]+ \[[\d.]+, [\d.]+\] of 4", capsys.readouterr().out)


def test_the_command_line_screen_of_the_readme_runs(folder, monkeypatch, capsys):
    (screen,) = (block for block in blocks("README.md", "sh") if "understudy" in block)
    assert all(size in screen for size in ON_THE_COMMAND_LINE), "a size that the test should make smaller has changed"
    # The demo is the same functions at full size; a short form of it is the next test.
    screen = "\n".join(line for line in screen.splitlines() if not line.startswith("understudy demo"))
    run_commands(screen)
    printed = capsys.readouterr().out
    assert "McNemar" in printed
    assert (folder / "eval.json").is_file()
    assert (folder / "runs/bc/report.html").is_file()
    assert "recommended: " in printed
    assert "takeovers" in printed
    assert len(understudy.Dataset.open("data/imported")) == 3


def test_the_demo_tells_its_story(folder, monkeypatch, capsys):
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
    assert main(["demo", "--workers", "1"]) == 0
    assert (folder / "runs/demo/report.html").is_file()
    assert "What the expert&#x27;s time bought" in (folder / "runs/demo/dagger/report.html").read_text()
    printed = capsys.readouterr().out
    assert "round 2: " in printed
    assert "against the clone: " in printed
    assert "deployed the " in printed
    assert "against its clone: " in printed


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array' that is not in the possible render_modes")
def test_your_own_task_goes_from_a_world_and_from_files_to_an_interval(folder, capsys):
    world, teach, files = blocks("docs/your_own_task.md", "python")
    lines = [line for line in f"{world}{teach}".splitlines() if line.strip()]
    assert len(lines) <= 30, f"{len(lines)} lines; the page promises 30"
    (folder / "my_world.py").write_text(world)
    run_python(teach, folder / "teach.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # the files have no names; the page says so
        run_python(files, folder / "files.py")
    for screen in blocks("docs/your_own_task.md", "sh"):
        run_commands(screen, plain_world=True)
    printed = capsys.readouterr().out
    assert len(re.findall(r"success [\d.]+ \[[\d.]+, [\d.]+\] of 4", printed)) == 4


def test_the_screens_of_export_run(folder, capsys):
    pytest.importorskip("onnxruntime")
    run_commands(
        """understudy record --env understudy/PickPlace-v0 --episodes 50 --out data/pick
        understudy train bc --data data/pick --out runs/bc"""
    )
    for screen in blocks("docs/export.md", "sh"):
        run_commands(screen)
    (code,) = blocks("docs/export.md", "python")
    run_python(code, folder / "export.py")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("random and") == 2
    assert re.search(r"success [\d.]+ \[[\d.]+, [\d.]+\] of 4", printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", *METHODS])
def test_every_file_that_a_page_names_exists(page):
    folders = (ROOT, ROOT / "src", ROOT / "src/understudy")
    for name in re.findall(r"`([\w/]+\.py)[`:]", (ROOT / page).read_text()):
        assert any((folder / name).exists() for folder in folders), f"{page} names {name}, which is not there"


@pytest.mark.parametrize("page", ["docs/architecture.md", *METHODS])
def test_every_function_that_a_page_places_in_a_file_is_there(page):
    # Written like `windows.py: Windows.batch`.
    placed = re.findall(r"`([\w/]+\.py): ([\w.]+)`", (ROOT / page).read_text())
    assert placed
    for file, name in placed:
        text = (ROOT / "src/understudy" / file).read_text()
        for part in name.split("."):
            assert re.search(rf"\b(def|class) {part}\b|\b{part}\b\s*[:=]", text), f"{file} has no {name}"


def test_every_answer_of_choose_says_where_it_comes_from():
    rows = [line for line in (ROOT / "docs/choose.md").read_text().splitlines() if line.startswith("|")]
    answers = [cell for row in rows for cell in row.split("|")[2:-1] if not re.fullmatch(r"-+", cell.strip())]
    headings = {"Behavioral Cloning", "DAgger family", "DAPG", "starts"}
    headings |= {"cost", "quality", "speed"}
    headings |= {"the expert is asked", "who decides who drives", "needs", "take it when"}
    for answer in answers:
        marked = re.search(r"\[measured here\]\(|\(received opinion\)|\(computed", answer)
        assert marked or answer.strip() in headings, answer


def test_the_readme_counts_the_defects_as_the_doctor_does():
    assert f"a doctor for {len(DEFECTS)} kinds of defects" in (ROOT / "README.md").read_text()


def test_the_changelog_names_the_version_of_the_package():
    assert understudy.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_no_page_names_a_place_on_somebodys_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(home|work|root|tmp|Users)/", page.read_text()), page
