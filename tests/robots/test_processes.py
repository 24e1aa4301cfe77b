"""The guard, the robot and the policy in processes of their own: whoever dies or hangs, the robot is stopped."""

import errno
import fcntl
import math
import os
import pickle
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from functools import partial

import numpy as np
import pytest
from robots.trials import stops, ticks
from robots.trials.drivers import DirectRobot, FullSpeed, Sway

from understudy.errors import ConfigError, RobotError, RobotLost
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.guard import Guard
from understudy.robots.guard_messages import Seen, Status, one_line, pack_seen, unpack_seen
from understudy.robots.limits import Limits
from understudy.robots.protocol import Reading, RobotSpec
from understudy.robots.safety_config import SafetyConfig
from understudy.robots.stop_button import StopButton
from understudy.robots.wire import Message
from understudy.rollout import Observer, rollout
from understudy.spec import Channel

REST_S = 0.140
BUTTONS = (signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM)
OTHERS = (signal.SIGTTOU, signal.SIGTTIN, signal.SIGCONT)


@pytest.fixture
def robot():
    made = FakeRobot(FakeConfig(homes=False))
    yield made
    made.machine.close()


@pytest.fixture
def env(robot):
    made = RobotEnv(robot, SafetyConfig(ramp_s=0.05))
    yield made
    made.close()


class At(Observer):
    def __init__(self, step, call):
        self._step, self._call = step, call

    def on_step(self, env, step):
        if step.index == self._step:
            self._call()


def test_s3_silence_stops_the_robot_in_time():
    seen = stops.silence(20, 1)
    assert seen["worst_s"] <= REST_S
    assert seen["timer_late"] <= 7, "the machine is too busy to say anything"
    assert seen["slowest_top_speed"] > 0.9, "it was moving"
    assert seen["violations"] == {}


def test_s4_the_stop_button_works_with_busy_cores_and_latches():
    seen = stops.presses(30, 1)
    assert seen["p99_s"] <= 0.050
    assert seen["worst_s"] <= 0.150
    assert seen["commands_after_a_press"] == 0


def test_s7_late_ticks_are_few_and_safe():
    seen = ticks.ticks(200, busy=4)
    assert seen["ticks"] == 200
    assert seen["oldest_action_s"] <= 0.200
    assert seen["violations"] == {}


def test_what_a_step_costs_is_measured():
    seen = ticks.added_latency(1000)
    assert 1 < seen["p50_us"] < 1000


def test_a_policy_whose_process_is_killed_leaves_a_robot_at_rest_and_no_guard():
    """The whole of it in a process of its own, as a user would have it; only the robot is ours."""
    robot = FakeRobot(FakeConfig(homes=False))
    code = (
        "import os, sys, time\n"
        "from robots.trials.drivers import FullSpeed\n"
        "from understudy.robots import FakeConfig, RobotEnv\n"
        "from understudy.robots.machine import MachineRobot\n"
        "from understudy.rollout import rollout\n"
        "def main():\n"
        f"    env = RobotEnv(MachineRobot(FakeConfig(homes=False).spec(), {robot._address!r}))\n"
        "    print(env.link.pid, flush=True)\n"
        "    rollout(env, FullSpeed(), seed=0)\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    script = os.path.join(os.path.dirname(robot._address), "policy.py")
    with open(script, "w") as file:
        file.write(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    policy = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        guard = int(policy.stdout.readline())
        wait_for(lambda: robot.machine.report()["fastest"] > 0.9)
        policy.kill()
        killed_s = time.monotonic()
        wait_for(lambda: robot.machine.report()["at_rest"])
        assert robot.machine.report()["rest_s"] - killed_s <= REST_S + 0.02
        wait_for(lambda: not is_alive(guard))
    finally:
        policy.kill()
        policy.wait()
        policy.stdout.close()
        robot.machine.close()


def test_a_script_that_defines_no_driver_needs_no_main_and_is_not_run_again(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "import understudy as us\n"
        "print('once')\n"
        "robot = us.FakeRobot()\n"
        "env = us.RobotEnv(robot)\n"
        "env.reset(seed=0)\n"
        "env.close()\n"
        "robot.machine.close()\n"
    )
    told = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout == "once\n"
    assert not told.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_dies_or_hangs_is_replaced_by_whoever_drives(robot, env, how):
    began_s = time.monotonic()
    episode = rollout(env, FullSpeed(), seed=0, max_steps=200, observers=[At(30, lambda: os.kill(env.link.pid, how))])
    assert time.monotonic() - began_s < 5.0
    assert episode.truncated
    assert "the robot was stopped from here" in env.stopped
    wait_for(lambda: robot.machine.report()["at_rest"], 0.3)
    with pytest.raises(RobotError, match="guard"):
        env.reset(seed=0)


def test_a_guard_that_is_killed_while_the_policy_thinks_is_noticed_at_once(robot, env):
    class Thinks(FullSpeed):
        def act(self, observation):
            command = super().act(observation)
            if abs(observation[0]) > 0.3:
                os.kill(env.link.pid, signal.SIGKILL)
                time.sleep(0.3)
                self.report = robot.machine.report()
            return command

    agent = Thinks()
    rollout(env, agent, seed=0, max_steps=100)
    assert agent.report["at_rest"]


@pytest.mark.parametrize(
    ("reason", "told"), [("", "pressed"), ("x" * 300_000, "x" * 500), ("caf\udce9", "caf?"), ("b\0s", "b s")]
)
def test_every_reason_stops_the_robot(env, reason, told):
    rollout(env, FullSpeed(), seed=0, max_steps=3)
    env.stop(reason)
    time.sleep(0.1)
    with pytest.raises(RobotError):
        env.reset(seed=0)
    assert env.stopped == f"stop button: {told}"
    assert not env.keys


class OnePlace(DirectRobot):
    """A robot whose port one process may hold at a time, and which writes down what it is told."""

    def __init__(self, path):
        super().__init__(FakeConfig(axes=1, homes=False, reach=1000.0))
        self.path, self.port = path, None
        self.clock = time.monotonic

    def connect(self):
        self.disconnect()
        port = open(self.path, "w")  # noqa: SIM115
        try:
            fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            port.close()
            raise
        self.port = port

    def reconnect(self):
        with open(f"{self.path}.told", "a") as told:
            told.write("again\n")
        self.connect()

    def disconnect(self):
        if self.port is not None:
            self.port.close()
            self.port = None

    def stop(self):
        with open(f"{self.path}.told", "a") as told:
            told.write(f"{os.getpid()}\n")
        super().stop()


@pytest.mark.parametrize(("how", "by"), [("SIGKILL", "close"), ("SIGKILL", "step"), ("SIGSTOP", "step")])
def test_a_robot_whose_guard_dies_is_stopped_from_here_though_its_port_takes_one_process(tmp_path, how, by):
    robot = OnePlace(str(tmp_path / "port"))
    env = RobotEnv(robot, SafetyConfig(astray_s=1e6, frozen_s=1e6))
    env.reset(seed=0)
    os.kill(env.guard_pid, getattr(signal, how))
    for _ in range(200 * (by == "step")):
        env.step(np.zeros(1))
        if env.stopped:
            break
    env.close()
    assert (tmp_path / "port.told").read_text().split()[-2:] == ["again", str(os.getpid())]
    assert by == "close" or "stopped from here" in env.stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_stop_buttons(env, number):
    rollout(env, Sway(), seed=0, max_steps=200, observers=[At(10, lambda: os.kill(env.link.pid, number))])
    assert signal.Signals(number).name in env.stopped


def test_keys_at_the_terminal_reach_the_robot(robot):
    master, slave = pty.openpty()
    env = RobotEnv(robot, keyboard=os.ttyname(slave))
    try:
        judged = rollout(env, Sway(), seed=0, max_steps=200, observers=[At(10, lambda: os.write(master, b"us"))])
        assert judged.success == 1
        assert env.keys == ["u"]
        stopped = rollout(env, Sway(), seed=0, max_steps=200, observers=[At(10, lambda: os.write(master, b"\x1b"))])
        assert stopped.truncated
        assert "stop key" in env.stopped
    finally:
        env.close()
        os.close(master)
        os.close(slave)


def test_closing_stops_the_robot_and_ends_the_guard(robot, env):
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.full(6, 0.5))
    pid = env.link.pid
    env.close()
    env.close()
    assert not is_alive(pid)
    wait_for(lambda: robot.machine.report()["at_rest"])


def test_who_asks_a_guard_that_was_closed_is_told_so(robot):
    env = RobotEnv(robot)
    env.reset(seed=0)
    env.close()
    env.rest()
    assert env.stopped == "the guard was closed"


@pytest.fixture
def terminal(monkeypatch):
    """A guard's stop button whose thread is the test's, and the two ends of its terminal."""
    master, slave = pty.openpty()
    before = {number: signal.getsignal(number) for number in (*BUTTONS, *OTHERS)}
    monkeypatch.setattr(StopButton, "_run", lambda self: None)  # the test listens
    theirs, ours = socket.socketpair()
    stopper = StopButton(Guard(DirectRobot(), SafetyConfig()), ours, os.ttyname(slave))
    yield stopper, master, slave
    monkeypatch.undo()
    stopper.close()
    for number, handler in before.items():
        signal.signal(number, handler)
    for end in (theirs, ours, stopper._own, stopper._signals):
        end.close()
    for end in (stopper._terminal, master, slave):
        os.close(end)


def test_a_key_that_somebody_else_read_first_keeps_no_button_waiting(terminal, monkeypatch):
    """Both wake up for one key; and a terminal that is gone ends the keys, not the thread of the other buttons."""
    stopper, _, _ = terminal
    sources = [stopper._terminal]
    listening = threading.Thread(target=stopper._listen, args=(stopper._terminal, sources), daemon=True)
    listening.start()
    listening.join(2.0)
    assert not listening.is_alive(), "nothing was there to be read"
    assert sources == [stopper._terminal]
    monkeypatch.setattr(os, "read", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
    stopper._listen(stopper._terminal, sources)
    assert sources == []


def test_after_ctrl_z_the_keys_are_the_shells_until_the_command_is_in_front_again(terminal, monkeypatch):
    stopper, master, slave = terminal
    front = os.getpgrp()
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: front)
    sources = [stopper._own, stopper._terminal]

    def pressed(keys):
        os.write(master, keys)
        for _ in range(len(keys)):
            stopper._turn(sources)
        return stopper.take_keys()

    assert pressed(b"u") == "u"
    front += 1
    settings = termios.tcgetattr(slave)
    settings[3] |= termios.ICANON
    termios.tcsetattr(slave, termios.TCSANOW, settings)  # the shell's
    assert pressed(b"ls \n") == ""
    assert os.read(slave, 9) == b"ls \n", "the shell reads it"
    stopper.close()
    assert termios.tcgetattr(slave)[3] == settings[3], "what it has set stays"
    front -= 1
    stopper._turn(sources)  # taking the terminal throws away what was typed before
    assert pressed(b"r") == "r"
    assert not termios.tcgetattr(slave)[3] & termios.ICANON
    assert pressed(b" ") == ""
    assert stopper._guard.seen().reason.endswith("the stop key was pressed")


def test_a_guard_in_the_background_is_not_halted_for_asking_for_the_terminal(terminal):
    assert {signal.getsignal(number) for number in (signal.SIGTTIN, signal.SIGTTOU)} == {signal.SIG_IGN}


def test_a_dry_run_sends_nothing(robot):
    env = RobotEnv(robot, dry_run=True)
    try:
        episode = rollout(env, Sway(), seed=0, max_steps=60)
    finally:
        env.close()
    report = robot.machine.report()
    assert report["commands"] == 0
    assert report["stops"] == []
    assert np.abs(episode.actions).max() > 0.1, "what would have been sent"


class Unpicklable:
    def __init__(self):
        self.spec = FakeConfig().spec()
        self.wire = open(os.devnull)  # noqa: SIM115

    def close(self):
        self.wire.close()


def test_a_driver_that_is_open_before_it_is_sent_is_refused():
    robot = Unpicklable()
    with pytest.raises(ConfigError, match=r"by pickle.*open its connection in connect"):
        RobotEnv(robot)
    robot.close()


class Hangs:
    """A driver whose read sleeps for a minute from the tenth one on."""

    def __init__(self):
        self.spec = FakeConfig().spec()
        self._reads = 0

    def connect(self):
        pass

    def read(self):
        self._reads += 1
        if self._reads > 10:
            time.sleep(60)
        return Reading(np.zeros(6, np.float32), np.full(6, 0.001 * self._reads), time.monotonic())

    def command(self, values):
        pass

    def home(self, seed):
        return None

    def stop(self):
        pass

    def disconnect(self):
        pass


def test_a_driver_that_hangs_ends_in_a_stop():
    env = RobotEnv(Hangs(), SafetyConfig(astray_s=math.inf))
    began_s = time.monotonic()
    try:
        rollout(env, Sway(), seed=0, max_steps=100)
        assert env.stopped
    finally:
        env.close()
    assert time.monotonic() - began_s < 5.0


class SlowToConnect(FakeRobot):
    """Loses its connection at the 30th measurement, and takes 1.2 s to open another one."""

    reads = 0

    def connect(self):
        if self.reads:
            time.sleep(1.2)
        super().connect()

    def read(self):
        self.reads += 1
        if self.reads == 30:
            self.disconnect()
        return super().read()


def test_a_robot_that_is_slow_to_connect_comes_back():
    robot = SlowToConnect(FakeConfig(homes=False))
    env = RobotEnv(robot)
    try:
        episode = rollout(env, Sway(), seed=0, max_steps=50)
    finally:
        env.close()
        robot.machine.close()
    assert not env.stopped
    assert len(episode) == 50
    assert np.diff(episode.time_s).max() > 1.2


class SteppedClock(FakeRobot):
    """In the guard's process, the clock on the wall jumps by an hour at every measurement."""

    def read(self):
        _step_the_wall_clock()
        return super().read()


def _step_the_wall_clock(real=time.time, jumps=[0]):  # noqa: B006
    jumps[0] += 1
    time.time = partial(lambda offset: real() + offset, 3600 * (-1) ** jumps[0])


def test_s9_a_step_of_the_clock_changes_nothing(monkeypatch):
    monkeypatch.setattr(time, "time", time.time)
    robot = SteppedClock(FakeConfig(homes=False))
    env = RobotEnv(robot)

    class Steps(Observer):
        def on_step(self, env, step):
            _step_the_wall_clock()

    try:
        episode = rollout(env, Sway(), seed=0, max_steps=100, observers=[Steps()])
    finally:
        env.close()
        report = robot.machine.report()
        robot.machine.close()
    assert not env.stopped
    assert len(episode) == 100
    assert report["commands"] >= 80  # a machine that is busy with something else is late at times
    assert np.all(np.diff(episode.time_s) > 0)
    assert 1.9 < episode.time_s[-1] < 3.0


def wait_for(condition, within_s=5.0):
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class MadeOfWords(DirectRobot):
    """A driver that pickles by what it was made of, as one with a handle of a library must."""

    def __init__(self, axes):
        super().__init__(FakeConfig(axes=axes, mode="position", homes=False), time.monotonic)

    def __reduce__(self):
        return type(self), (len(self.spec.axes),)


def test_limits_that_a_person_gave_hold_in_the_guards_process_however_the_driver_pickles():
    limits = Limits({"joint_1.position": {"velocity": 0.1, "high": 0.15}})
    robot, safety = limits.hold(MadeOfWords(2), SafetyConfig(ramp_s=0.0))
    env = RobotEnv(robot, safety)
    try:
        env.reset(seed=0)
        sent = np.array([env.step(np.array([1.0, 1.0]))[-1]["executed_action"] for _ in range(100)])
    finally:
        env.close()
    speeds = np.quantile(np.abs(np.diff(sent, axis=0)), 0.8, axis=0) * 50  # a late step goes as far as two
    assert speeds == pytest.approx([0.1, 1.0], rel=1e-3)
    assert sent[-1] == pytest.approx([0.15, 1.0])


class Derived:
    """A driver that works its spec out whenever somebody asks for it."""

    @property
    def spec(self):
        return FakeConfig(axes=1).spec()

    def home(self, seed):
        return np.zeros(1)


def test_limits_hold_where_a_drivers_spec_cannot_be_set():
    robot, _ = Limits({"joint_1.velocity": {"velocity": 0.2}}).hold(Derived(), SafetyConfig())
    for one in (robot, pickle.loads(pickle.dumps(robot))):
        assert one.spec.axes[0].velocity == 0.2
        assert one.home(0).tolist() == [0.0]


def test_ctrl_c_while_a_guard_that_hangs_is_waited_for_stops_the_robot_all_the_same(robot, env):
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.full(6, 0.3))
    os.kill(env.guard_pid, signal.SIGSTOP)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        env.close()
    wait_for(lambda: robot.machine.report()["at_rest"], 1.0)
    assert not env.link._process.is_alive()


class Cable(DirectRobot):
    """A robot whose cable is a file, and which takes a second and a half to connect once it was out."""

    def __init__(self, path):
        super().__init__(FakeConfig(axes=1, homes=False, control_hz=10.0), time.monotonic)
        self.path, self.was_out, self.open = path, False, False

    def _note(self, what):
        with open(f"{self.path}.told", "a") as told:
            told.write(f"{what} {os.getpid()}\n")

    def _look(self):
        if not os.path.exists(self.path):
            self.was_out, self.open = True, False
        if not self.open:
            raise RobotLost("nobody answers")

    def connect(self):
        self.open = os.path.exists(self.path)
        self._look()
        if self.was_out:
            self.open = False
            self._note("connecting")
            time.sleep(1.5)
            self.open = True

    def read(self):
        self._look()
        return super().read()

    def stop(self):
        self._look()
        self._note("stopped")
        super().stop()


def test_a_stop_that_is_pressed_while_a_slow_driver_connects_is_heard_by_the_guard_itself(tmp_path):
    cable = tmp_path / "cable"
    cable.touch()
    env = RobotEnv(Cable(str(cable)), SafetyConfig(reconnect_s=3.0))
    try:
        env.reset(seed=0)
        for _ in range(3):
            env.step(np.zeros(1))
        guard = env.guard_pid
        cable.unlink()

        def back():
            cable.touch()
            env.stop("pressed")

        threading.Timer(0.5, back).start()
        while not env.stopped:
            env.step(np.zeros(1))
        assert "pressed" in env.stopped
        wait_for(lambda: "stopped" in (tmp_path / "cable.told").read_text())
        assert is_alive(guard)
        told = (tmp_path / "cable.told").read_text().splitlines()
        assert {line.split()[1] for line in told} == {str(guard)}, "nobody else connects beneath it"
    finally:
        env.close()


@pytest.mark.parametrize("how", ["closed", "SIGKILL", "SIGSTOP"])
def test_a_terminal_is_given_back_as_it_was(robot, how):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    env = RobotEnv(robot, keyboard=os.ttyname(slave))
    try:
        env.reset(seed=0)
        wait_for(lambda: termios.tcgetattr(slave) != before)
        if how != "closed":
            os.kill(env.guard_pid, getattr(signal, how))
            time.sleep(0.1)
    finally:
        env.close()
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_any_thread_may_take_back_a_stop_while_an_episode_runs(env):
    env.reset(seed=0)
    others = [threading.Thread(target=lambda: [env.reset_stop() for _ in range(100)]) for _ in range(2)]
    for other in others:
        other.start()
    for _ in range(30):
        env.step(np.zeros(6))
    for other in others:
        other.join()
    assert not env.stopped


class Slow(DirectRobot):
    """One command a second, and more than a second to connect."""

    def __init__(self):
        super().__init__(FakeConfig(axes=1, homes=False, control_hz=1.0), time.monotonic)

    def connect(self):
        time.sleep(1.3)


def test_a_slow_robot_gives_signs_of_life_while_it_connects():
    env = RobotEnv(Slow())
    try:
        env.reset(seed=0)
        assert not env.stopped
    finally:
        env.close()


@pytest.mark.parametrize("said", ["servo 3 said b'\0s'", "port caf\udce9", "x" * 100_000, "two\nlines\ts"])
def test_what_a_driver_says_is_one_line_and_no_key(said):
    text = f"{said} is broken"
    seen = Seen(Status.STOPPED, None, np.zeros(6), {}, reason=one_line(text))
    back = unpack_seen(Message.unpack(pack_seen(seen, 1)), 6, 6)
    assert (back.reason, back.keys) == (seen.reason, "")
    assert back.reason.isprintable()
    assert len(back.reason) <= 1000


def test_a_fault_that_does_not_exist_is_refused_and_the_machine_lives(robot):
    with pytest.raises(ConfigError, match="no fault is called 'dorp'; there are late-reply"):
        robot.machine.fault("dorp")
    assert robot.machine.report()["violations"] == {}


def test_more_channels_than_a_message_carries_are_refused():
    axes = FakeConfig(axes=1).spec().axes
    many = tuple(Channel(f"skin_{index}", "1") for index in range(5000))
    with pytest.raises(ConfigError, match=r"observes 5000 numbers .*up to 4096"):
        RobotSpec("skin", 50.0, many, axes)


class Buffered(DirectRobot):
    """Its first measurement of an episode lay in a buffer for a second; a person moves it between two episodes."""

    def __init__(self):
        super().__init__(FakeConfig(axes=1, homes=False, mode="position"), time.monotonic)
        self.reads = self.episodes = 0

    def home(self, seed):
        self.reads = 0
        self.body._p[:] = 1.2 * self.episodes
        self.episodes += 1

    def read(self):
        self.reads += 1
        reading = super().read()
        return reading._replace(time_s=reading.time_s - 1.0) if self.reads == 1 else reading


def test_an_episode_begins_with_no_measurement_of_the_one_before():
    env = RobotEnv(Buffered())
    try:
        assert env.reset(seed=0)[0].tolist() == [0.0]
        env.step(np.zeros(1))
        env.rest()
        assert env.reset(seed=1)[0] == pytest.approx([1.2])
    finally:
        env.close()


def test_closing_says_that_a_robot_moves_on_whose_guard_has_died_unseen(robot):
    env = RobotEnv(robot)
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.full(6, 0.3))
    robot.machine.process.kill()
    robot.machine.process.join()  # until then it may still take a connection; now it cannot be told anything
    os.kill(env.guard_pid, signal.SIGKILL)
    wait_for(lambda: not env.link.is_alive, 15.0)
    with pytest.raises(RobotError, match="could not be told to stop: use its own stop"):
        env.close()
