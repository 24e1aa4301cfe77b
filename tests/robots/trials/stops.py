"""S3, S4: silence and the stop button, in real time and real processes. The robot says when it was at rest."""

import ctypes
import mmap
import multiprocessing
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
from robots.trials.drivers import FullSpeed

from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig, FakeRobot
from understudy.robots.safety import SafetyConfig
from understudy.rollout import rollout

ENDS = ("kill", "stop", "hang")  # of the policy's process: SIGKILL, SIGSTOP, and a C function that holds the GIL
BUTTONS = ("api", "signal", "key")
LATE_TIMER_S = 0.020
_TICK_S = 0.001


class Timer:
    """A bare timer in a process of its own: how late it was at worst since it was last asked."""

    def __init__(self):
        self._shared = multiprocessing.RawArray("d", 1)
        self._process = multiprocessing.get_context("fork").Process(target=self._run, daemon=True)
        self._process.start()

    def _run(self):
        while True:
            due_s = time.monotonic() + _TICK_S
            time.sleep(_TICK_S)
            self._shared[0] = max(self._shared[0], time.monotonic() - due_s)

    def begin(self):
        self._shared[0] = 0.0

    def worst_s(self):
        return self._shared[0]

    def close(self):
        self._process.kill()
        self._process.join()


class Busy:
    """So many processes that do nothing but compute."""

    def __init__(self, count):
        self._processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self._processes:
            process.kill()
            process.wait()


class Noted(FullSpeed):
    """Full speed, and a note of when each command was decided, in memory that outlives its process."""

    def __init__(self, note, hang_after_s=None):
        super().__init__()
        self._note, self._hang_after_s = note, hang_after_s

    def reset(self, seed):
        super().reset(seed)
        self._begun_s = time.monotonic()

    def act(self, observation):
        if self._hang_after_s is not None and time.monotonic() - self._begun_s > self._hang_after_s:
            ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the GIL: no Python of this process runs any more
        command = super().act(observation)
        self._note[:8] = struct.pack("d", time.monotonic())
        return command


def silence(trials, seed, ends=ENDS):
    """So many deaths of the policy's process at full speed: seconds from its last command to a robot at rest."""
    random = np.random.default_rng(seed)
    robot = FakeRobot(FakeConfig(homes=False))
    env = RobotEnv(robot, SafetyConfig(timeout_s=0.06, ramp_s=0.05))
    note = mmap.mmap(-1, 8)
    timer = Timer()
    taken, apart, slowest = [], [], 1.0
    try:
        for index in range(trials):
            end, after_s = ends[index % len(ends)], random.uniform(0.15, 0.35)
            timer.begin()
            pid = os.fork()
            if pid == 0:
                try:
                    rollout(env, Noted(note, after_s if end == "hang" else None), seed=index)
                finally:
                    os._exit(1)
            time.sleep(after_s + (0.1 if end == "hang" else 0.0))
            if end != "hang":
                os.kill(pid, signal.SIGKILL if end == "kill" else signal.SIGSTOP)
            time.sleep(0.12)
            report = _at_rest(robot)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _drain(env)
            last_s = struct.unpack("d", note[:8])[0]
            (apart if timer.worst_s() > LATE_TIMER_S else taken).append(report["rest_s"] - last_s)
            slowest = min(slowest, report["fastest"])  # one that hardly moved would show nothing
        violations = robot.machine.report()["violations"]
    finally:
        timer.close()
        env.close()
        robot.machine.close()
    return {
        "trials": trials,
        "worst_s": max(taken, default=None),
        "median_s": float(np.median(taken)) if taken else None,
        "timer_late": len(apart),
        "worst_with_late_timer_s": max(apart, default=None),
        "slowest_top_speed": slowest,
        "violations": violations,
    }


def _at_rest(robot):
    """The robot's report once it says that it is at rest."""
    until_s = time.monotonic() + 2.0
    while time.monotonic() < until_s:
        report = robot.machine.report()
        if report["at_rest"]:
            return report
        time.sleep(0.005)
    raise AssertionError(f"the robot still moves: {report}")


def _drain(env):
    """Takes what the dead process would have read."""
    wire = env.link._wire
    wire.setblocking(False)
    try:
        while wire.recv(65536):
            pass
    except BlockingIOError:
        pass
    wire.setblocking(True)


def presses(trials, seed, buttons=BUTTONS, busy=2):
    """So many presses of the stop button with busy cores: seconds until the robot gets the stop."""
    random = np.random.default_rng(seed)
    master, slave = pty.openpty()
    robot = FakeRobot(FakeConfig(homes=False))
    env = RobotEnv(robot, SafetyConfig(ramp_s=0.05), keyboard=os.ttyname(slave))
    timer = Timer()
    taken, apart, moved = [], [], 0
    pressed_s = 0.0

    def press(button, after_s):
        nonlocal pressed_s
        time.sleep(after_s)
        pressed_s = time.monotonic()
        if button == "api":
            env.stop("pressed")
        elif button == "signal":
            os.kill(env.link.pid, signal.SIGUSR1)
        else:
            os.write(master, b" ")

    try:
        with Busy(busy):
            for index in range(trials):
                timer.begin()
                args = (buttons[index % len(buttons)], random.uniform(0.1, 0.25))
                presser = threading.Thread(target=press, args=args)
                presser.start()
                episode = rollout(env, FullSpeed(), seed=index, max_steps=250)
                presser.join()
                assert env.stopped, f"{args[0]} did not stop the robot"
                assert episode.truncated
                report = robot.machine.report()
                stop_s = min(stop for stop in report["stops"] if stop >= pressed_s)
                (apart if timer.worst_s() > LATE_TIMER_S else taken).append(stop_s - pressed_s)
                # Latched: commands that come now move nothing.
                env.link.command(np.full(6, 0.1), time.monotonic(), 0, 0.0)
                env.link.observe()
                moved += robot.machine.report()["commands"] - report["commands"]
                env.reset_stop()
    finally:
        timer.close()
        env.close()
        robot.machine.close()
        os.close(master)
        os.close(slave)
    every = taken + apart
    return {
        "presses": trials,
        "taken_s": [round(second, 6) for second in taken],
        "p50_s": float(np.percentile(every, 50)),
        "p99_s": float(np.percentile(taken or every, 99)),
        "worst_s": max(taken, default=None),
        "timer_late": len(apart),
        "worst_with_late_timer_s": max(apart, default=None),
        "commands_after_a_press": moved,
    }
