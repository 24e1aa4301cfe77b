"""docs/deploy.md keeps its word: its code runs, and it says what a person who stands beside a robot has to know."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.robots.safety import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
# A reader runs the commands as they stand; the test makes these sizes smaller.
SIZES = {
    "--episodes 50": "--episodes 3",
    "--episodes 3 --out runs/deployed --max-steps 200": "--episodes 1 --out runs/deployed --max-steps 20",
    "train bc": "train bc --steps 60 --measure-every 30 --hidden 16",
    "--max-steps 100": "--max-steps 10",
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_it_says_first_that_it_is_no_safety_function():
    assert "This is no certified safety function" in PAGE.split("\n\n")[1]
    assert "hardware stop" in PAGE.split("\n\n")[1]


def test_every_intervention_is_on_the_page():
    assert {kind for kind in Kind if f"`{kind}`" not in PAGE} == set()


def test_its_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limits.json").write_text(blocks("json")[0])
    for screen in blocks("sh"):
        for large, small in SIZES.items():
            assert large in PAGE
            screen = screen.replace(large, small)
        for line in screen.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["understudy"]:
                assert main(words[1:]) in (0, 1 if words[1] == "inspect" else 0), line
    assert "every run, as an episode" in capsys.readouterr().out


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    (tmp_path / "screen.py").write_text(code.replace("max_steps=100", "max_steps=10"))
    runpy.run_path(str(tmp_path / "screen.py"), run_name="__main__")
    assert re.search(r"Episode\(10 steps", capsys.readouterr().out)


@pytest.mark.parametrize("block", blocks("python"))
def test_a_script_guards_its_main(block):
    assert 'if __name__ == "__main__":' in block
