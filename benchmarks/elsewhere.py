"""Policies saved here and loaded elsewhere: another folder, another user, other Pythons, with torch and without it.

Name the other interpreters in UNDERSTUDY_PYTHONS, separated by colons. Each needs Understudy's dependencies; one that
has no torch runs the exported file, and the policy in numpy. Another user is tried where this runs as root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results

SOURCE = Path(__file__).parents[1] / "src"
OBSERVATIONS = 500
NOBODY = 65534


def policies() -> dict[str, Any]:
    """One policy of every kind, with random weights."""
    from latency import new_policy

    from understudy import FeedForward, FeedForwardConfig

    def of(**shape: Any) -> Any:
        like = new_policy("one")
        policy = FeedForward(like.spec, FeedForwardConfig(hidden=(64, 64), **shape)).initialized(1)
        policy.fit_scaling(*like.statistics)
        return policy

    return {
        "one": new_policy("one"),
        "default": new_policy("default"),
        "chunks-and-history": of(history=3, horizon=8, activation="tanh"),
        "gaussian": of(head="gaussian"),
    }


def save_here(folder: Path) -> None:
    """Each policy as a folder and as an .onnx, beside observations and the answers that torch gives here."""
    import torch

    from understudy import export, save

    torch.set_num_threads(1)
    for name, policy in policies().items():
        save(policy, folder / name)
        export(policy, folder / f"{name}.onnx", draws=50)
        shape = (OBSERVATIONS, policy.history, len(policy.spec.observations))
        observations = np.random.default_rng(2).normal(0, 1.5, shape).astype(np.float32)
        actions = np.array([policy.predict(one) for one in observations])
        np.savez(folder / f"{name}.npz", observations=observations, actions=actions)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def look(folder: Path, user: int) -> dict[str, Any]:
    """Loads everything in `folder` as another user would; run in the other interpreter."""
    from importlib.util import find_spec

    import understudy as us

    with_torch = find_spec("torch") is not None
    names = sorted(path.stem for path in folder.glob("*.npz"))
    answers = {name: dict(np.load(folder / f"{name}.npz", allow_pickle=False)) for name in names}
    readers = {"numpy": ("", us.load_predictor), "onnxruntime": (".onnx", us.load_predictor)}
    if with_torch:
        import torch

        torch.set_num_threads(1)
        readers |= {"torch": ("", us.load), "torch from .onnx": (".onnx", us.load)}
    for suffix, read in readers.values():
        read(folder / f"{names[0]}{suffix}")  # whatever is imported on first use is imported while root may read it
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    found: dict[str, Any] = {"python": sys.version.split()[0], "user": "another" if user else "the same"}
    for reader, (suffix, read) in readers.items():
        largest, same = 0.0, True
        for name in names:
            policy = read(folder / f"{name}{suffix}")
            said = np.array([policy.predict(one) for one in answers[name]["observations"]])
            limits = policy.spec.action_high - policy.spec.action_low
            trained = policy.statistics[1].maximum - policy.statistics[1].minimum
            reach = np.where(np.isfinite(limits), limits, trained)
            largest = max(largest, float((np.abs(said - answers[name]["actions"]) / reach).max()))
            same = same and said.tobytes() == answers[name]["actions"].tobytes()
        found[reader] = {"largest_difference": largest, "same_bytes": same}
    return found


def elsewhere(python: str, folder: Path, user: int) -> dict[str, Any]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "HOME": "/nonexistent",
        "OMP_NUM_THREADS": "1",
    }
    command = [python, __file__, "--look", str(folder), str(user)]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    pythons = [sys.executable, *filter(None, os.environ.get("UNDERSTUDY_PYTHONS", "").split(":"))]
    results = Results("elsewhere", observations=OBSERVATIONS, seeds=[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "at another place"
        folder.mkdir()
        Path(name).chmod(0o755)
        subprocess.run([sys.executable, __file__, "--save", str(folder)], check=True)
        users = (0, NOBODY) if os.geteuid() == 0 else (0,)
        cells = [
            results.cell(
                f"interpreter {index}, {'another user' if user else 'the same user'}",
                lambda python=python, user=user: elsewhere(python, folder, user),
            )
            for index, python in enumerate(pythons)
            for user in users
        ]
    torch = [cell[reader] for cell in cells for reader in ("torch", "torch from .onnx") if reader in cell]
    results.write(
        pythons=sorted({cell["python"] for cell in cells}),
        without_torch=sorted({cell["python"] for cell in cells if "torch" not in cell}),
        another_user=any(cell["user"] == "another" for cell in cells),
        same_bytes_in_torch=all(one["same_bytes"] for one in torch),
        largest_difference_onnx=max(cell["onnxruntime"]["largest_difference"] for cell in cells),
        largest_difference_numpy=max(cell["numpy"]["largest_difference"] for cell in cells),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--save"]:
        save_here(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--look"]:
        print(json.dumps(look(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
