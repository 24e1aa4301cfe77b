"""The robot's own judge finds every violation, and none where there is none. It shares no code with the gate."""

import ast
import inspect
import math

import numpy as np
import pytest

from understudy.robots import monitor
from understudy.robots.monitor import Bounds, Monitor

PERIOD_S = 0.02


def judged(commands, *, moves, position=0.0, gap=1.0, rest_before=False):
    bounds = [Bounds(-2.0, 2.0, 1.0, 20.0, 0.4 if moves else 0.02, moves)] * 2
    judge = Monitor(bounds, PERIOD_S)
    now_s = 0.0
    for value in commands:
        now_s += PERIOD_S * gap
        judge.judge([value, 0.0] if np.ndim(value) == 0 else value, [position, 0.0], now_s)
        if rest_before:
            judge.rest()
    return judge.violations


@pytest.mark.parametrize(
    ("kind", "moves", "commands"),
    [
        ("size", True, [[0.0]]),
        ("size", False, [[0.0, 0.0, 0.0]]),
        ("not finite", True, [math.nan]),
        ("not finite", False, [math.inf]),
        ("velocity", True, [0.4, 0.8, 1.001]),
        ("velocity", False, [0.008, 0.024, 0.0441]),
        ("acceleration", True, [0.41]),
        ("acceleration", False, [0.0081]),
        ("acceleration", False, [0.008, 0.024, 0.024]),
        ("step", True, [0.5]),
        ("step", False, [0.03]),
    ],
)
def test_a_violation_is_named(kind, moves, commands):
    assert judged(commands, moves=moves)[kind] > 0


def test_a_position_outside_is_seen_where_it_is_sent_and_where_it_is():
    assert judged([2.1], moves=False, position=2.1)["position"] > 0
    assert judged([0.1], moves=True, position=2.1)["position"] > 0
    watcher = Monitor([Bounds(-2.0, 2.0, 1.0, 20.0, 0.4, True)], PERIOD_S)
    watcher.look([2.1])
    assert watcher.violations["position"] == 1


def test_commands_that_come_too_often_are_seen():
    assert judged([0.0] * 20, moves=True, gap=0.5)["rate"] > 0
    assert not judged([0.0] * 20, moves=True, gap=1.0)


@pytest.mark.parametrize("moves", [True, False])
def test_a_motion_within_the_limits_is_none(moves):
    times_s = np.arange(1, 300) * PERIOD_S
    path = 0.4 * np.sin(times_s) if moves else 0.4 * (1 - np.cos(times_s))
    assert not judged(path.tolist(), moves=moves)


def test_after_a_rest_a_command_is_compared_with_where_the_robot_is():
    assert not judged([0.4, 0.4, 0.4], moves=True, rest_before=True)
    assert judged([0.8], moves=True, rest_before=True)["acceleration"] == 1


def test_it_imports_nothing_of_ours():
    tree = ast.parse(inspect.getsource(monitor))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in modules if module.startswith("understudy")]
