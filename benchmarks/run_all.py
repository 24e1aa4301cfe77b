"""Every benchmark in turn, then the page that quotes them (`make bench`).

Each script keeps what it has measured, so a stopped run continues with the same command. A benchmark whose data or
environment is missing is left out, with the reason; the exit code is 1 where one failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from common import DATA

HERE = Path(__file__).parent
# The short ones first, so that most of the page is there early.
ORDER = (
    "latency",
    "export_latency",
    "elsewhere",
    "durability",
    "parallel_rollouts",
    "collection_speed",
    "growth",
    "safety_timing",
    "safety_limits",
    "pick_place_bc",
    "deploy_success",
    "training_speed",
    "gpu_training",
    "versus_imitation",
    "dagger_speed",
    "door_bc",
    "versus_sb3",
    "metaworld_experts",
    "dapg",
    "dagger_study",
    "dagger_family",
    "demo_time",
)
NOT_BENCHMARKS = ("common", "imperfect_demos", "quote", "run_all", "starting_document")
NEED_DOOR_DATA = ("collection_speed", "dapg", "door_bc", "door_recipe_study", "training_speed", "versus_imitation")


def scripts() -> list[str]:
    """Names of the benchmarks: those in ORDER first, then whatever else lies here."""
    here = {path.stem for path in HERE.glob("*.py")} - set(NOT_BENCHMARKS)
    return [*(name for name in ORDER if name in here), *sorted(here - set(ORDER))]


def why_not(name: str) -> str:
    """Why a benchmark cannot run here; empty where it can."""
    if name in NEED_DOOR_DATA and not (DATA / "adroit_door_human").is_dir():
        return "the door demonstrations are not here; set UNDERSTUDY_DATA to the folder that holds adroit_door_human"
    if name == "versus_imitation" and not os.environ.get("IMITATION_PYTHON"):
        return "set IMITATION_PYTHON; the install lines are at the top of versus_imitation.py"
    if name == "versus_sb3" and not os.environ.get("SB3_PYTHON"):
        return "set SB3_PYTHON; the install lines are at the top of versus_sb3.py"
    if name in ("dapg", "dagger_family", "dagger_study") and not (DATA / "adroit_experts").is_dir():
        return "the published experts are not here; set UNDERSTUDY_DATA to the folder that holds adroit_experts"
    if name in ("metaworld_experts", "dagger_family", "dagger_study") and find_spec("metaworld") is None:
        return "Metaworld is not installed: pip install 'understudy[metaworld]'"
    if name == "gpu_training" and not torch.cuda.is_available():
        return "no GPU is here"
    return ""


def main() -> int:
    failed = []
    for name in scripts():
        reason = why_not(name)
        print(f"== {name}: {'left out, ' + reason if reason else 'running'}", flush=True)
        if not reason and subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            failed.append(name)
            print(f"== {name}: failed", flush=True)
    subprocess.run([sys.executable, str(HERE / "quote.py")], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
