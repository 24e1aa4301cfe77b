"""The benchmarks keep their form: each says what it measures, its results can be repeated, the page is their echo."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import gymnasium as gym
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


@pytest.fixture(scope="module")
def quote():
    return benchmark("quote")


def benchmark(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_benchmark_says_what_it_measures_and_compiles(script):
    tree = ast.parse(script.read_text())
    compile(tree, script.name, "exec")
    docstring = ast.get_docstring(tree) or ""
    assert len(docstring.split()) >= 8, "its docstring names the figure"


def test_every_benchmark_can_be_imported_without_measuring_anything():
    names = [script.stem for script in SCRIPTS]
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import {', '.join(names)}"
    subprocess.run([sys.executable, "-W", "error::SyntaxWarning", "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.stem)
def test_every_result_can_be_repeated_and_names_nobodys_folders(result):
    content = json.loads(result.read_text())
    assert {"command", "host", "summary"} <= content.keys()
    assert content["command"].split()[:2] == ["python", f"benchmarks/{result.stem}.py"]
    assert (BENCHMARKS / f"{result.stem}.py").is_file()
    assert {"cpu", "cores", "python"} <= content["host"].keys()
    assert not re.search(r'"[^"]*(?:^|[\s"=])/[A-Za-z_][^"]*"', result.read_text()), "an absolute path"


def test_the_page_is_what_the_results_say(quote):
    assert quote.PAGE.read_text() == quote.page(), "docs/benchmarks.md is stale; run python benchmarks/quote.py"


def test_the_table_of_experts_is_what_the_results_say(quote, tmp_path):
    text = quote.WORLDS.read_text()
    assert text == quote.worlds_page(text), "docs/worlds.md is stale; run python benchmarks/quote.py"
    cell = {"success_rate": 0.5, "interval": [0.1, 0.9], "steps_to_success": None, "steps_per_s": 1234}
    (tmp_path / "metaworld_experts.json").write_text(json.dumps({"cells": {"reach": cell}}))
    written = quote.worlds_page(text, tmp_path)
    assert "| `reach` | 0.50 | [10.0, 90.0] | - | 1,234 |" in written
    assert "drawer-open` | " not in written
    assert quote.worlds_page(text, tmp_path / "nothing") == text


def test_a_page_without_results_says_that_nothing_was_measured(quote, tmp_path):
    page = quote.page(tmp_path)
    assert page.count(quote.UNMEASURED) >= len(quote.FIGURES)
    assert "| met |" not in page
    assert "**missed**" not in page


def test_a_result_in_progress_is_not_quoted(quote, tmp_path):
    content = {"command": "python benchmarks/door_bc.py", "host": {"cpu": "x"}, "summary": {}, "cells": {}}
    (tmp_path / "door_bc.json").write_text(json.dumps(content))
    assert f"| {quote.UNMEASURED} |" in quote.page(tmp_path)


def test_a_missed_target_is_called_missed(quote, tmp_path):
    cell = {"sustained_rate": 0.1, "interval": [0.2, 0.4], "training_seconds": 9}
    cells = {f"seed {seed}": {"success_rate": rate, **cell} for seed, rate in enumerate((0.2, 0.4))}
    summary = {
        "mean_success": 0.3,
        "lowest_seed": 0.2,
        "mean_sustained": 0.1,
        "interval_over_all_starts": [0.25, 0.35],
    }
    content = {"command": "python benchmarks/door_bc.py", "seeds": [0, 1], "first_start": 700_000, "host": {"cpu": "x"}}
    (tmp_path / "door_bc.json").write_text(json.dumps({**content, "summary": summary, "cells": cells}))
    rows = [line for line in quote.page(tmp_path).splitlines() if "`door_bc`" in line]
    assert "| 30.0 % | **missed** | [25.0, 35.0]; seeds 20.0 % to 40.0 % |" in rows[0]
    assert "**missed**" in rows[1]
    assert "training 0, 1; starts from 700000" in rows[-1]


def test_the_study_of_dagger_asks_for_what_the_family_measures(monkeypatch):
    study = benchmark("dagger_study")
    asked = create_autospec(study.interactive, return_value={"success": "1"})
    monkeypatch.setattr(study, "interactive", asked)
    assert study.measure("PickPlace, safe-asking, seed 6") == {"success": "1"}
    assert asked.call_args.args == ("PickPlace", "safe-asking", 6)


def test_the_phases_of_a_dagger_run_add_up_to_its_time(tmp_path):
    run, now = tmp_path / "run", 1_000_000.0

    def written(path, after_s):
        nonlocal now
        now += after_s
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"dagger": {"episodes": 2}}))
        os.utime(path, (now, now))
        return path

    began = now
    for number in range(3):
        written(tmp_path / f"run-demonstrations/episodes/{number:06d}.npz", 1)
    written(run / "config.json", 0)
    for number in range(3):
        for index in range(2 * (number - 1), 2 * number):
            if number:
                written(run / f"data/episodes/{index:06d}.npz", 5)
        written(run / f"rounds/{number:02d}/policy/policy.json", 20)
        if number != 1:  # a run without progress starts measures nothing
            written(run / f"rounds/{number:02d}/progress.json", 7)
    evaluation = written(run / "evaluations/PickPlace.json", 30)
    found = benchmark("dagger_speed").phases(run, evaluation, began, now + 4)
    assert found == {
        "demonstrating": 3,
        "training": 60,
        "measuring rounds": 14,
        "collecting": 20,
        "evaluating": 30,
        "films and report": 4,
    }


def test_the_swing_up_expert_stands_the_pendulum_up():
    swing_up, world = benchmark("dagger_speed").swing_up, gym.make("Pendulum-v1")
    for seed in range(5):
        observation, _ = world.reset(seed=seed)
        for _ in range(200):
            observation, *_ = world.step(swing_up(observation))
        assert observation[0] > 0.99
        assert abs(observation[2]) < 0.1
    world.close()
