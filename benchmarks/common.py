"""What every benchmark needs: the host in words, the data's place, and results that can be stopped and continued."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("UNDERSTUDY_DATA", Path(__file__).parents[2] / "shared" / "data"))


def host() -> dict[str, Any]:
    """The machine and the versions that a figure was measured with."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("understudy", "torch", "numpy", "mujoco", "gymnasium", "gymnasium-robotics")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def data(name: str) -> Path:
    """A folder of the shared data; says how to give it where it is missing."""
    path = DATA / name
    if not path.exists():
        sys.exit(f"{name} is not in the data folder; set UNDERSTUDY_DATA to the folder that holds it")
    return path


class Results:
    """A JSON file under `results/`: cells by name, each computed once, so that a stopped benchmark continues.

    Args:
        name: of the file.
        choosable: the command line may choose cells by how their names begin (`asks_for`).
        about: what is measured and how, kept at the top of the file.
    """

    def __init__(self, name: str, *, choosable: bool = False, **about: Any) -> None:
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("--anew", action="store_true", help="forget the cells that were measured before")
        if choosable:
            parser.add_argument(
                "begins", nargs="*", help="measure only cells whose names begin so, and keep the others"
            )
        given = parser.parse_args()
        anew, self._begins = given.anew, tuple(getattr(given, "begins", ()))
        self._path = RESULTS / f"{name}.json"
        self._about = {"command": f"python benchmarks/{Path(sys.argv[0]).name}", **about, "host": host()}
        before = json.loads(self._path.read_text()) if self._path.exists() and not anew else {}
        self.cells: dict[str, Any] = before.get("cells", {})

    def asks_for(self, name: str) -> bool:
        """Whether a cell is to be measured: it was not before, and the command line leaves it in."""
        return name not in self.cells and (not self._begins or name.startswith(self._begins))

    def cell(self, name: str, measure: Callable[[], Any]) -> Any:
        """The cell called `name`, measured now unless it was before."""
        if name not in self.cells:
            self.cells[name] = measure()
            self.write()
        print(f"{name}: {json.dumps(self.cells[name])[:200]}", flush=True)
        return self.cells[name]

    def write(self, **summary: Any) -> None:
        """Writes the file, with a summary of the figures the docs quote."""
        RESULTS.mkdir(exist_ok=True)
        content = {**self._about, "summary": summary, "cells": self.cells}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self._path)
        for key, value in summary.items():
            print(f"{key}: {value}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
