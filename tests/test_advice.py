import itertools
import shlex
from dataclasses import replace

import pytest

from tests.datasets import point_dataset
from understudy.advice import Situation, advise
from understudy.cli import main
from understudy.dataset import Dataset, Defect, diagnose
from understudy.dataset.doctor import ChannelRange
from understudy.interactive import GATES


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Thirty short demonstrations that all succeeded and have no defect."""
    folder = tmp_path_factory.mktemp("advice") / "demos"
    found = diagnose(point_dataset(folder, episodes=2))
    return replace(found, episodes=30, taught=30, successes=30, failures=0, defects=())


ANSWERS = (None, True, False)
EVERY = [Situation(*answers) for answers in itertools.product(ANSWERS, ANSWERS, ANSWERS)]


def test_a_gate_that_learns_from_verdicts_is_not_advised_where_there_are_none(usual):
    unjudged = replace(usual, successes=0, unjudged=30)
    assert advise(unjudged, Situation(expert=True)).gate == "safe"


def test_data_without_names_are_cloned_with_those_of_the_world(usual):
    (clone, _) = advise(replace(usual, env_id=""), Situation(), "test/Point-v0").commands
    assert "--env test/Point-v0" in clone


@pytest.mark.parametrize(
    ("situation", "method", "gate"),
    [
        (Situation(), "bc", None),
        (Situation(expert=True), "dagger", "thrifty"),
        (Situation(expert=True, robot=False), "dagger", "dagger"),
        (Situation(expert=True, robot=True), "dagger", "hg"),
        (Situation(expert=True, reward=True, robot=False), "dagger", "dagger"),
        (Situation(expert=False, reward=True), "dapg", None),
        (Situation(reward=True, robot=False), "dapg", None),
        (Situation(expert=False, reward=True, robot=True), "bc", None),
        (Situation(expert=False, reward=False), "bc", None),
        (Situation(expert=False, robot=True), "bc", None),
    ],
)
def test_what_can_be_asked_decides(usual, situation, method, gate):
    advice = advise(usual, situation)
    assert (advice.method, advice.gate) == (method, gate)


@pytest.mark.parametrize(
    ("situation", "said"),
    [
        (Situation(), "unknown whether an expert can be asked (--expert yes|no)"),
        (Situation(expert=False, reward=True, robot=True), "a reward alone does not help on a robot"),
        (Situation(expert=False), "unknown whether a reward is paid (--reward yes|no)"),
        (Situation(expert=False, reward=False), "nobody can be asked and nothing pays a reward"),
        (Situation(reward=True), "unknown whether an expert can be asked (--expert yes|no), but a reward"),
        (Situation(expert=False, reward=True), "it clones them first"),
        (Situation(expert=True), "unknown whether a person must be there"),
        (Situation(expert=True, robot=True), "leaves the decision and the safety to them"),
        (Situation(expert=True, robot=False), "the expert can act at a few steps of many attempts"),
    ],
)
def test_an_advice_says_why(usual, situation, said):
    assert any(said in reason for reason in advise(usual, situation).reasons)


def ranges(*names, unit="m", high=1.0):
    return tuple(ChannelRange("observation", name, unit, 0.0, high, 0.1) for name in names)


HAND, CUBE = ranges("hand.x", "hand.y"), ranges("cube.x", "cube.y", "cube.z")
BEFORE = ranges("previous.hand.x", "previous.hand.y")
NOT_FINITE = Defect("not-finite", "error", "episode 3 holds nan")
FACTS = [
    ({"lengths": (90, 99.0, 120)}, "the task is short (99 steps)"),
    ({"lengths": (90, 100.0, 120)}, "the task is long (100 steps)"),
    ({"episodes": 19, "taught": 19}, "19 demonstrations are few for any method"),
    ({"episodes": 50, "taught": 50}, "50 demonstrations are enough to see"),
    ({"taught": 7}, "in 23 of the 30 episodes no expert drove or answered: they teach nothing"),
    ({"taught": 7}, "7 demonstrations are few for any method"),
    ({"failures": 4}, "4 of the 30 episodes failed"),
    ({"channels": HAND + CUBE + BEFORE}, "places are known, of hand, cube, but not"),
    ({"channels": HAND + CUBE + BEFORE}, "try --relative hand cube; and"),
    ({"channels": HAND + CUBE}, "leave out where they are with --ignore hand cube (docs"),
    ({"channels": HAND + CUBE + BEFORE}, "with --ignore previous hand cube (docs"),
    ({"channels": HAND + BEFORE}, "try --ignore previous"),
    ({"defects": (NOT_FINITE,)}, "first mend the data: 1 defects would spoil training (not-finite)"),
]


@pytest.mark.parametrize(("found", "said"), FACTS)
@pytest.mark.parametrize("situation", [Situation(), Situation(expert=True), Situation(reward=True)])
def test_an_advice_begins_with_what_the_data_say(usual, found, said, situation):
    reasons = advise(replace(usual, **found), situation).reasons
    assert any(said in reason for reason in reasons)
    assert not any(said in reason for reason in advise(usual, situation).reasons)


def test_few_demonstrations_are_enough_to_begin_with_where_an_expert_answers_in_simulation(usual):
    advice = advise(replace(usual, taught=3, episodes=3), Situation(expert=True, robot=False))
    assert not any("few for any method" in reason for reason in advice.reasons)
    assert advice.demonstrations == (1, 10)
    assert "demonstrations: 1 to 10 to begin with (docs/benchmarks.md says what came of so few)" in advice.lines()
    assert "--gate-arg beta=0.05 --gate-arg ask=0 --rounds 8" in advice.commands[0]


@pytest.mark.parametrize(
    "channels",
    [
        HAND,
        HAND + BEFORE,
        HAND + ranges("cube.x", "cube.y", unit="1"),
        HAND + ranges("slot.x", "slot.y", high=0.0),
        HAND + ranges("cube.x"),
        HAND + CUBE + ranges("hand_from_cube.x"),
    ],
)
def test_differences_are_advised_only_between_positions_that_no_channel_compares(usual, channels):
    reasons = advise(replace(usual, channels=channels), Situation()).reasons
    assert not any("--relative" in reason for reason in reasons)


@pytest.mark.parametrize("situation", EVERY)
def test_where_nobody_demonstrated_the_advice_is_to_record(usual, situation):
    advice = advise(replace(usual, taught=0), situation)
    assert advice.commands[0].startswith("understudy record ")
    assert "in none of the 30 episodes did an expert drive or answer" in advice.reasons[0]


def test_nothing_is_said_of_what_is_as_usual(usual):
    said = " ".join(advise(usual, Situation()).reasons)
    for word in ("mend", "failed", "few for", "enough to see"):
        assert word not in said
    warned = replace(usual, defects=(Defect("jump", "warning", "a jump"),))
    assert advise(warned, Situation()).reasons == advise(usual, Situation()).reasons


@pytest.mark.parametrize("situation", EVERY)
def test_every_advice_can_be_followed(usual, situation, tmp_path, monkeypatch, capsys):
    """The method and gate exist, and the commands are understood by the command line."""
    monkeypatch.chdir(tmp_path)  # where there is nothing, so that nothing is done
    advice = advise(replace(usual, path="nowhere"), situation)
    assert advice.gate in GATES if advice.method == "dagger" else advice.gate is None
    lines = advice.lines()
    assert lines[0].startswith("recommended: ")
    assert advice.gate is None or advice.gate in lines[0]
    assert advice.reasons
    assert all(f"- {reason}" in lines for reason in advice.reasons)
    least, most = advice.demonstrations
    assert 0 < least < most
    assert lines[-len(advice.commands) :] == list(advice.commands)
    for command in advice.commands:
        program, *words = shlex.split(command)
        assert program == "understudy"
        # A wrong option would leave through tyro; a name that is none is one line.
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "does not exist" in said or "no world is called 'test/Point-v0'" in said
    assert not any(tmp_path.iterdir())


def test_what_a_dataset_calls_its_world_cannot_become_a_command(usual):
    command = advise(replace(usual, env_id="X-v0; touch pwned"), Situation(expert=True)).commands[0]
    assert shlex.split(command)[3] == "X-v0; touch pwned"


def test_the_world_is_named_as_the_person_named_it(usual):
    command = advise(usual, Situation(expert=True), "module:Id-v0").commands[0]
    assert shlex.split(command)[3] == "module:Id-v0"


def test_a_script_is_named_where_the_world_has_one_and_nobody_is_on_a_robot(usual):
    (command,) = advise(usual, Situation(expert=True), scripted=True).commands
    assert "--expert scripted --gate" in command
    on_a_robot = Situation(expert=True, robot=True)
    for situation, scripted, named in ((on_a_robot, True, "human:EXPERT"), (Situation(expert=True), False, "EXPERT")):
        advice = advise(usual, situation, scripted=scripted)
        assert f"--expert {named} --gate" in advice.commands[0]
        assert any(reason.startswith("EXPERT is") for reason in advice.reasons)


@pytest.mark.parametrize(("named", "asked"), [("", "EXPERT"), ("os:system-v0", "EXPERT"), ("Gone-v7", "EXPERT")])
def test_a_world_that_a_dataset_names_is_asked_for_its_script_and_imports_nothing(tmp_path, capsys, named, asked):
    spec = replace(point_dataset(tmp_path / "point").spec, env_id=named)
    with Dataset.create(tmp_path / "data", spec) as dataset:
        for episode in point_dataset(tmp_path / "more", episodes=2):
            dataset.append(episode)
    assert main(["advise", str(tmp_path / "data"), "--expert", "yes"]) == 0
    assert f"--expert {asked} --gate" in capsys.readouterr().out
