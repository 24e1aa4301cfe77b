"""S1, S2, S5, S6: adversarial commands, wild numbers, starts, takeovers and seams, judged by the robot itself.

    python benchmarks/safety_limits.py [--anew]

10,000,000 commands on a clock of their own, half of them to a robot that takes velocities, half to one that takes
positions. The hand of three links is driven anywhere in its workspace, too. The exit code is 1 where anything got
through.
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import Results

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from robots.trials import limits

COMMANDS, SHARES = 10_000_000, 20
STARTS, SEAMS, WALKS, WALL_M = 1_000, 10_000, 1_000, 0.005
MODES = ("velocity", "position")


def share(index: int) -> dict[str, Any]:
    return limits.adversary(COMMANDS // SHARES, index, MODES[index % 2])


def wild() -> dict[str, Any]:
    """Every stage, channel and number of S2."""
    tried, worst, not_finite = 0, 0.0, 0
    for mode in MODES:
        for stage in limits.STAGES:
            for channel in range(6):
                for value in limits.WILD:
                    tried += 1
                    seen = limits.not_finite(stage, channel, value, mode)
                    not_finite += not seen["finite"]
                    worst = max(worst, seen["stopped_after_periods"])
    return {"tried": tried, "not_finite_on_the_wire": not_finite, "worst_periods_to_the_stop": worst}


def main() -> int:
    results = Results("safety_limits", commands=COMMANDS, starts=STARTS, seams=SEAMS, attack_seeds=list(range(SHARES)))
    todo = [index for index in range(SHARES) if f"S1, share {index}" not in results.cells]
    with ProcessPoolExecutor(2) as pool:
        for index, measured in zip(todo, pool.map(share, todo), strict=True):
            results.cell(f"S1, share {index}", lambda measured=measured: measured)
    shares = [results.cells[f"S1, share {index}"] for index in range(SHARES)]
    violations: Counter[str] = Counter()
    for cell in shares:
        violations.update(cell["violations"])
    finite = results.cell("S2", wild)
    jumps = 0
    takeovers = 0
    for mode in MODES:
        cell = results.cell(f"S5, {mode}", lambda mode=mode: limits.starts(STARTS // 2, 0, mode))
        jumps += sum(cell["violations"].values())
        takeovers += cell["takeovers"]
        cell = results.cell(f"S6, {mode}", lambda mode=mode: limits.seams(SEAMS // 2, 0, mode))
        jumps += sum(cell["violations"].values())
    walks = [results.cell(f"workspace, {mode}", lambda mode=mode: limits.walls(WALKS // 2, 0, mode)) for mode in MODES]
    summary = {
        "commands": sum(cell["commands"] for cell in shares),
        "on_the_wire": sum(cell["on_the_wire"] for cell in shares),
        "violations": sum(violations.values()),
        "not_finite_tried": finite["tried"],
        "not_finite_on_the_wire": finite["not_finite_on_the_wire"],
        "worst_periods_to_the_stop": finite["worst_periods_to_the_stop"],
        "starts": STARTS,
        "takeovers": takeovers,
        "seams": SEAMS,
        "jumps": jumps,
        "walks": sum(cell["runs"] for cell in walks),
        "worst_outside_m": max(cell["worst_outside_m"] for cell in walks),
    }
    results.write(**summary)
    failed = summary["violations"] or summary["not_finite_on_the_wire"] or jumps or summary["worst_outside_m"] > WALL_M
    return int(bool(failed) or summary["worst_periods_to_the_stop"] > 1)


if __name__ == "__main__":
    sys.exit(main())
