"""S8: every fault script ends as docs/faults.md says, soon, without a jump, and without a lost episode."""

import re
from pathlib import Path

import pytest
from robots.trials import broken
from robots.trials.drivers import FallsAsleep

from understudy.errors import ConfigError
from understudy.robots.faults import SCRIPTS, FaultScripts

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
SEEDS, AT_ONCE = (0, 1), 8


def table():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (\w+) \|", PAGE.read_text(), flags=re.MULTILINE)
    return {name: (what, ended) for name, what, ended in rows}


@pytest.fixture(scope="module")
def outcomes():
    """All at once: they mostly wait."""
    pairs = [(script, seed) for script in SCRIPTS for seed in SEEDS]
    return dict(zip(pairs, broken.all_broken(pairs, AT_ONCE), strict=True))


def test_the_page_lists_the_scripts():
    assert {name: what for name, (what, _) in table().items()} == dict(SCRIPTS)
    assert len(SCRIPTS) >= 20


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bad_robot_ends_in_recovered_or_stopped(script, seed, outcomes):
    outcome = outcomes[script, seed]
    assert not broken.fault_in(outcome)
    assert outcome["ended"] == table()[script][1], outcome["why"]
    if outcome["ended"] == "stopped":
        assert outcome["why"], "it says why"


def test_a_bad_robot_does_not_jump_either_where_its_policy_is_kept_waiting():
    pairs = [
        (script, seed) for script in ("frozen", "half-the-bus", "drop", "stall", "reordered") for seed in (1, 2, 3)
    ]
    for outcome in broken.all_broken(pairs, AT_ONCE, FallsAsleep):
        assert not outcome["violations"], outcome
        assert not outcome["lost"], outcome


def test_a_script_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no fault is called 'fire'"):
        FaultScripts(6).begin("fire", 0, 0.0, 0.0)
