"""How long a newcomer waits: set-up with a warm package cache, `make demo` and `make test`, in a fresh clone.

The clone is of what is committed. Each command is the README's own; the set-up is timed apart by `make setup`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Results

REPOSITORY = Path(__file__).parents[1]


def seconds(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-5000:]}")
    return time.perf_counter() - began


def main() -> None:
    results = Results("demo_time", seeds=[0])
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "understudy"
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
        summary = {}
        for part in ("setup", "demo", "test"):
            took = results.cell(f"make {part}", lambda part=part: seconds(["make", part], clone))
            results.write(**(summary := {**summary, f"{part}_seconds": took}))


if __name__ == "__main__":
    main()
