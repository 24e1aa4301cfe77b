"""Recording on a robot: the operator's keys, and the promises of every recording."""

import os
import pty
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from understudy.agent import Driver
from understudy.dataset import Dataset
from understudy.dataset.folder import DatasetWarning
from understudy.episode import FAILURE, SUCCESS, UNKNOWN
from understudy.errors import ConfigError, ExpertError, RobotError, SpecMismatch
from understudy.robots import FakeConfig, FakeRobot, RobotEnv, RobotSpec
from understudy.robots.guard import Guard
from understudy.robots.guard_link import LocalLink
from understudy.robots.guard_messages import Seen
from understudy.robots.pose_expert import PoseExpert
from understudy.robots.recording import Outcome, record_on
from understudy.robots.safety import SafetyConfig
from understudy.rollout import Observer
from understudy.spec import Spec


class Keyboard(LocalLink):
    """A guard in this process whose keys a test presses."""

    def __init__(self, guard):
        super().__init__(guard)
        self.pressed = ""

    def observe(self) -> Seen:
        seen = super().observe()
        seen.keys, self.pressed = self.pressed, ""
        return seen


class Operator(Observer):
    """Presses keys: some at a step of an episode, some when a line asks for them."""

    def __init__(self, keyboard, steps=(), answers=()):
        self.keyboard, self.steps, self.answers = keyboard, list(steps), list(answers)
        self.lines = []
        self._at = None

    def on_start(self, env, observation):
        self._at = self.steps.pop(0) if self.steps else None

    def on_step(self, env, step):
        if self._at and step.index == self._at[0]:
            if self._at[1] == " ":
                env.unwrapped.stop("the stop key was pressed")
            else:
                self.keyboard.pressed += self._at[1]

    def tell(self, line):
        self.lines.append(line)
        if line.startswith(("at rest", "did it", "Enter begins")):
            self.keyboard.pressed += self.answers.pop(0)


@contextmanager
def fake(tmp_path, steps=(), answers=()):
    robot = FakeRobot(FakeConfig(control_hz=200))
    keyboard = Keyboard(Guard(robot, SafetyConfig()))
    env = RobotEnv(robot, link=keyboard)
    try:
        with Dataset.create(tmp_path / "data", env) as dataset:
            yield env, dataset, Operator(keyboard, steps, answers)
    finally:
        env.close()
        robot.machine.close()


def record(env, dataset, operator, **options):
    given = {"episodes": 1, "rest_s": None, "max_steps": 20, "observers": [operator], "tell": operator.tell}
    return list(record_on(env, PoseExpert(env.robot.spec), dataset, **{**given, **options}))


def outcomes(takes):
    return [str(take.outcome) for take in takes]


@pytest.mark.parametrize(("key", "verdict"), [("s", SUCCESS), ("f", FAILURE)])
def test_the_operators_verdict_ends_the_episode_and_is_its_success(tmp_path, key, verdict):
    with fake(tmp_path, steps=[(5, key)], answers="\n\n") as (env, dataset, operator):
        (take,) = record(env, dataset, operator)
        assert (take.outcome, take.episode.success) == (Outcome.SAVED, verdict)
        assert take.episode.terminated
        (saved,) = Dataset.open(dataset.path)
        assert saved.success == verdict
        assert len(saved) < 20
        assert (saved.driver == Driver.EXPERT).all()
        assert saved.labelled.all()


@pytest.mark.parametrize(("answer", "verdict"), [("s", SUCCESS), ("f", FAILURE), ("x\n", UNKNOWN)])
def test_an_episode_that_ends_by_itself_is_judged_before_it_is_saved(tmp_path, answer, verdict):
    with fake(tmp_path, answers=["\n", answer, "\n"]) as (env, dataset, operator):
        (take,) = record(env, dataset, operator)
        assert (len(take.episode), take.episode.success) == (20, verdict)


def test_a_discarded_episode_leaves_nothing_and_another_one_is_recorded(tmp_path):
    answers = ["\n", "\n", "d", "\n", "s", "\n"]
    with fake(tmp_path, steps=[(5, "d")], answers=answers) as (env, dataset, operator):
        takes = record(env, dataset, operator)
        assert outcomes(takes) == ["discarded", "discarded", "saved"]
        assert len(dataset.include_partial()) == 1
        assert not (dataset.path / "recording.journal").exists()
        assert dataset.rows[0].seed == 2, "starts that were thrown away are not used again"


def test_undo_takes_back_what_this_session_saved_and_nothing_else(tmp_path):
    with fake(tmp_path, answers=["\n", "s", "\n"]) as (env, dataset, operator):
        record(env, dataset, operator)
        operator.answers = ["u\n", "s", "uu\n", "\n", "f", "\n"]
        takes = record(env, dataset, operator, seed=1)
        assert outcomes(takes) == ["saved", "undone", "saved"]
        assert takes[1].row == takes[0].row
        assert [(row.seed, row.success) for row in dataset.rows] == [(0, SUCCESS), (2, FAILURE)]
        assert operator.lines.count("nothing was saved since this recording began") == 2


def test_undo_takes_back_the_last_saved_episode_and_not_a_stopped_one_after_it(tmp_path):
    steps, answers = [None, (5, " ")], ["\n", "s", "\n", "ru\n", "s", "\n", "s", "\n"]
    with fake(tmp_path, steps=steps, answers=answers) as (env, dataset, operator):
        takes = record(env, dataset, operator, episodes=2)
        assert outcomes(takes) == ["saved", "stopped", "undone", "saved", "saved"]
        assert takes[2].row == takes[0].row
        assert [(row.id, row.partial) for row in dataset.include_partial().rows] == [(1, True), (2, False), (3, False)]


def test_a_stop_keeps_the_episode_as_partial_and_nothing_moves_before_it_is_taken_back(tmp_path):
    with fake(tmp_path, steps=[(5, " ")], answers=["\n", "r\n", "s", "\n"]) as (env, dataset, operator):
        takes = record(env, dataset, operator)
        assert outcomes(takes) == ["stopped", "saved"]
        assert "stop key" in takes[0].why
        assert len(dataset) == 1
        assert [row.partial for row in dataset.include_partial().rows] == [True, False]
        operator.steps, operator.answers = [(5, " ")], ["\n", "\nq"]
        assert outcomes(record(env, dataset, operator, seed=9)) == ["stopped"]
        assert any("the robot is stopped" in line for line in operator.lines)
        assert len(dataset) == 1


def test_the_operators_word_outweighs_what_the_robot_tells(tmp_path):
    with fake(tmp_path, steps=[(12, "f")], answers="\n\n") as (env, dataset, operator):
        real = env.link.observe

        def observe():
            seen = real()
            if seen.reading is not None:
                seen.reading = seen.reading._replace(succeeded=env.ticks in (5, 6, 7))
            return seen

        env.link.observe = observe
        (take,) = record(env, dataset, operator, after_success=None)
        assert take.episode.succeeded.any()
        assert take.episode.success == FAILURE


def test_a_key_on_the_way_home_says_nothing_of_the_episode(tmp_path):
    with fake(tmp_path, answers=["\n", "s", "\n", "s", "\n"]) as (env, dataset, operator):
        real, way_home = env.link.command, []

        def command(values, observed_s, driver, novelty):
            if driver not in (Driver.POLICY, Driver.EXPERT):
                way_home.append(values)
                if len(way_home) == 3:
                    operator.keyboard.pressed += "s"
            real(values, observed_s, driver, novelty)

        env.link.command = command
        takes = record(env, dataset, operator, episodes=2, max_steps=150)
        assert len(way_home) > 3
        assert [len(take.episode) for take in takes] == [150, 150]


class Impatient(Operator):
    def tell(self, line):
        if line.startswith("did it"):
            raise KeyboardInterrupt
        super().tell(line)


def test_ctrl_c_at_the_question_keeps_the_episode_as_partial(tmp_path):
    with fake(tmp_path) as (env, dataset, _):
        operator = Impatient(env.link, answers=["\n"])
        with pytest.warns(DatasetWarning, match="20 steps was recovered"), pytest.raises(KeyboardInterrupt):
            record(env, dataset, operator)
        (row,) = dataset.include_partial().rows
        assert (row.partial, row.length) == (True, 20)


def test_ctrl_c_while_the_robot_comes_to_rest_keeps_the_episode_as_partial(tmp_path, monkeypatch):
    with fake(tmp_path, answers=["\n"]) as (env, dataset, operator):
        real = env.link.rest

        def interrupted():
            real()
            raise KeyboardInterrupt

        monkeypatch.setattr(env.link, "rest", interrupted)
        with pytest.warns(DatasetWarning, match="20 steps was recovered"), pytest.raises(KeyboardInterrupt):
            record(env, dataset, operator)
        assert len(dataset.include_partial().rows) == 1


def test_q_ends_the_recording(tmp_path):
    with fake(tmp_path, answers=["\n", "s", "q"]) as (env, dataset, operator):
        assert outcomes(record(env, dataset, operator, episodes=5)) == ["saved"]


def test_where_nobody_is_there_it_rests_for_a_time_and_leaves_the_verdict_open(tmp_path):
    with fake(tmp_path) as (env, dataset, operator):
        waited = []
        now = [0.0]

        def sleep(seconds):
            waited.append(seconds)
            now[0] += seconds

        takes = record(env, dataset, operator, episodes=3, rest_s=2.0, clock=lambda: now[0], sleep=sleep)
        assert outcomes(takes) == ["saved"] * 3
        assert sum(waited) == pytest.approx(4.0, abs=0.1)
        assert {take.episode.success for take in takes} == {UNKNOWN}
        assert operator.lines == []


class Unplugged(PoseExpert):
    def __init__(self, spec):
        super().__init__(spec)
        self._left = 10

    def label(self, observation):
        self._left -= 1
        if self._left < 0:
            raise ExpertError("the leader arm gave no action: unplugged")
        return super().label(observation)


def test_what_breaks_costs_the_running_episode_only_and_that_is_kept_as_partial(tmp_path):
    with fake(tmp_path, answers=["\n", "s", "\n"]) as (env, dataset, operator):
        record(env, dataset, operator)
        said = pytest.warns(DatasetWarning, match="10 steps was recovered as partial")
        with pytest.raises(ExpertError, match="unplugged"), said:
            list(record_on(env, Unplugged(env.robot.spec), dataset, episodes=1, max_steps=50))
        opened = Dataset.open(dataset.path)
        assert len(opened) == 1
        assert [(row.partial, row.length) for row in opened.include_partial().rows] == [(False, 20), (True, 10)]
        assert not env.stopped


def test_data_of_another_robot_and_options_that_cannot_be_are_refused(tmp_path):
    with fake(tmp_path) as (env, dataset, operator):
        with Dataset.create(tmp_path / "other", Spec.unnamed(3, 2)) as other, pytest.raises(SpecMismatch):
            record(env, other, operator)
        for wrong in ({"episodes": 0}, {"rest_s": -1.0}):
            with pytest.raises(ConfigError):
                record(env, dataset, operator, **wrong)


def test_keys_are_heard_at_a_real_terminal(tmp_path):
    """Enter begins, s judges, u takes back, q ends: typed into a terminal that the guard's process listens to."""
    master, slave = pty.openpty()
    robot = FakeRobot(FakeConfig(control_hz=100))
    env = RobotEnv(robot, keyboard=os.ttyname(slave))
    asked = threading.Event()
    script = iter(["\n", "s", "u", "q"])

    def type_next(line):
        if line.startswith(("at rest", "took back")):
            asked.set()

    def typist():
        for key in script:
            if key != "s":
                assert asked.wait(20)
                asked.clear()
            else:
                time.sleep(0.5)
            os.write(master, key.encode())

    threading.Thread(target=typist, daemon=True).start()
    try:
        with Dataset.create(tmp_path / "data", env) as dataset:
            takes = list(
                record_on(env, PoseExpert(robot.spec), dataset, episodes=2, max_steps=2000, rest_s=None, tell=type_next)
            )
            assert outcomes(takes) == ["saved", "undone"]
            assert takes[0].episode.success == SUCCESS
            assert len(dataset) == 0
    finally:
        env.close()
        robot.machine.close()
        os.close(master)
        os.close(slave)


def test_the_script_of_the_fake_robot_goes_to_its_pose():
    fast, there = PoseExpert(FakeConfig().spec()), PoseExpert(FakeConfig(mode="position").spec())
    start, pose = np.zeros(6, np.float32), np.array([0.5, -0.5] * 3, np.float32)
    assert fast.label(start).tolist() == [1.0, -1.0] * 3
    assert fast.label(pose).tolist() == [0.0] * 6
    assert there.label(start).tolist() == pose.tolist()
    spec = FakeConfig().spec()
    with pytest.raises(ConfigError, match="does not say where"):
        PoseExpert(RobotSpec("blind", 10, spec.observations[:1], spec.axes))


def test_a_stop_on_the_way_home_ends_no_session(tmp_path):
    answers = ["\n", "s", "\n", "r\n", "s", "\n"]
    with fake(tmp_path, answers=answers) as (env, dataset, operator):
        real, way_home = env.link.command, []

        def command(values, observed_s, driver, novelty):
            way_home.extend([driver] * (driver not in (Driver.POLICY, Driver.EXPERT)))
            if len(way_home) == 3:
                env.stop("the stop key was pressed")
                way_home.append(None)
            real(values, observed_s, driver, novelty)

        env.link.command = command
        takes = record(env, dataset, operator, episodes=2, max_steps=150)
        assert outcomes(takes) == ["saved", "discarded", "saved"]
        assert "stop key" in takes[1].why
        assert any(line.startswith("the robot was stopped before the episode began") for line in operator.lines)
        assert [row.partial for row in dataset.include_partial().rows] == [False, False]
        assert not (dataset.path / "recording.journal").exists()


def test_after_the_last_episode_was_taken_back_enter_is_told_before_it_begins_another_one(tmp_path):
    with fake(tmp_path, answers=["\n", "s", "u\n", "q"]) as (env, dataset, operator):
        assert outcomes(record(env, dataset, operator)) == ["saved", "undone"]
        assert operator.lines[-1] == "Enter begins the next of 1"
        assert len(dataset) == 0


def test_a_session_whose_guard_is_gone_ends_with_a_word(tmp_path):
    with fake(tmp_path, answers=["\n", "s", ""]) as (env, dataset, operator):
        record_all = record_on(
            env, PoseExpert(env.robot.spec), dataset, episodes=2, max_steps=20, rest_s=None,
            observers=[operator], tell=operator.tell,
        )  # fmt: skip
        assert next(record_all).outcome is Outcome.SAVED
        env.link.is_alive = False
        with pytest.raises(RobotError, match="nobody reads the keys any more"):
            next(record_all)
        assert len(dataset) == 1


def test_a_stop_that_cannot_be_taken_back_is_told(tmp_path):
    with fake(tmp_path, steps=[(5, " ")], answers=["\n", "rq"]) as (env, dataset, operator):
        env.link.reset = lambda: env.link._guard.seen()
        assert outcomes(record(env, dataset, operator)) == ["stopped"]
        assert any(line.startswith("the robot is still stopped (") for line in operator.lines)
