"""How often do Metaworld's scripted policies succeed in each of the 50 tasks, and how fast does each world step?

An episode ends 10 steps after its first success, as recorded demonstrations do. Speed is that of `env.step` alone,
through the actions of the last episode and by CPU time, which other programs disturb less than the clock.
"""

from __future__ import annotations

import statistics
import time
from importlib.metadata import version
from typing import Any

from common import Results

from understudy.agent import Demonstrator
from understudy.episode import SUCCESS
from understudy.evaluate import wilson_interval
from understudy.rollout import rollout
from understudy.sim import METAWORLD_TASKS, expert_for
from understudy.worlds import make_env

STARTS, FIRST_START, AFTER_SUCCESS = 50, 500_000, 10


def measure(task: str) -> dict[str, Any]:
    env = make_env(f"understudy/MetaWorld-{task}-v3")
    agent = Demonstrator(expert_for(env, "scripted"))
    seeds = range(FIRST_START, FIRST_START + STARTS)
    episodes = [rollout(env, agent, seed=seed, after_success=AFTER_SUCCESS) for seed in seeds]
    wins = [episode for episode in episodes if episode.success == SUCCESS]
    env.reset(seed=seeds[-1])
    began = time.process_time()
    for action in episodes[-1].actions:
        env.step(action)
    steps_per_s = len(episodes[-1]) / (time.process_time() - began)
    env.close()
    return {
        "success_rate": len(wins) / STARTS,
        "interval": wilson_interval(len(wins), STARTS),
        # The median of the successful ones; None where there is none.
        "steps_to_success": statistics.median(int(win.succeeded.argmax()) + 1 for win in wins) if wins else None,
        "steps_per_s": round(steps_per_s),
    }


def main() -> None:
    results = Results(
        "metaworld_experts",
        metaworld=version("metaworld"),
        starts=STARTS,
        first_start=FIRST_START,
        after_success=AFTER_SUCCESS,
    )
    cells = {task: results.cell(task, lambda task=task: measure(task)) for task in METAWORLD_TASKS}
    rates = [cell["success_rate"] for cell in cells.values()]
    speeds = [cell["steps_per_s"] for cell in cells.values()]
    results.write(
        mean_success=sum(rates) / len(rates),
        interval_over_all_starts=wilson_interval(round(sum(rates) * STARTS), STARTS * len(rates)),
        below_95_percent=[task for task, cell in cells.items() if cell["success_rate"] < 0.95],
        median_steps_per_s=statistics.median(speeds),
        slowest_steps_per_s=min(speeds),
        fastest_steps_per_s=max(speeds),
    )


if __name__ == "__main__":
    main()
