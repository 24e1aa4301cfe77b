"""S8: a robot that breaks. Each fault script ends in "recovered" or "stopped", soon; nothing saved is lost."""

import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from robots.trials.drivers import FullSpeed

from understudy.dataset import Dataset, DatasetWarning, record
from understudy.errors import RobotLost, UnderstudyError
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.safety import SafetyConfig

STEPS = 90
_HANGS_S = 5.0


def broken(script, seed, steps=STEPS, agent=None):
    """One run on a robot that breaks: how it ended, how long that took, and what is left of the dataset."""
    mode, agent = ("velocity", "position")[seed % 2], agent or FullSpeed()
    robot = FakeRobot(FakeConfig(mode=mode, homes=False))
    env = RobotEnv(robot, SafetyConfig())
    ended, why, saved = "", "", []
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", DatasetWarning)
            with Dataset.create(Path(folder) / "data", env) as dataset:
                for row, _ in record(env, agent, dataset, seeds=[seed], max_steps=3, after_success=None):
                    saved.append(row.id)
                robot.machine.fault(script, seed, 0.1 + 0.05 * (seed % 7))
                began_s = time.monotonic()
                try:
                    for row, _ in record(env, agent, dataset, seeds=[seed], max_steps=steps, after_success=None):
                        saved.append(row.id)
                    ended, why = ("stopped", env.stopped) if env.stopped else ("recovered", "")
                except UnderstudyError as error:
                    ended, why = "raised", f"{type(error).__name__}: {error}"
                wall_s = time.monotonic() - began_s
            kept = [row.id for row in Dataset.open(Path(folder) / "data").rows]
        try:
            violations = robot.machine.report()["violations"]
        except RobotLost:
            violations = {}  # a robot that died judges nobody
    finally:
        closing_s = time.monotonic()
        env.close()
        closing_s = time.monotonic() - closing_s
        robot.machine.close()
    return {
        "script": script,
        "seed": seed,
        "ended": ended,
        "why": why,
        # The run itself takes its steps; what goes beyond is waiting for the robot.
        "waited_s": max(0.0, wall_s - steps / env.control_hz, closing_s),
        "lost": sorted(set(saved) - set(kept)),
        "saved": len(saved),
        "violations": violations,
    }


def all_broken(pairs, at_once, agent=lambda seed: FullSpeed()):
    """The outcome for each (script, seed), several robots at a time, for they mostly wait."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda pair: broken(*pair, agent=agent(pair[1])), pairs)


def fault_in(outcome):
    """What breaks the promise in an outcome; empty where it is kept."""
    if outcome["ended"] not in ("recovered", "stopped"):
        return f"ended in {outcome['ended']}: {outcome['why']}"
    if outcome["waited_s"] > _HANGS_S:
        return f"hung for {outcome['waited_s']:.1f} s"
    if outcome["lost"] or outcome["saved"] != 2:
        return f"lost {outcome['lost']} of {outcome['saved']} episodes"
    if outcome["violations"]:
        return f"the robot saw {outcome['violations']}"
    return ""
