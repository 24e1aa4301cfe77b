"""The guard without its process, on a clock of its own: watchdog, latched stop, lost connections, dry run."""

import math
import threading

import numpy as np
import pytest
from robots.trials.drivers import DirectRobot, guarded

from understudy.errors import ConfigError, RobotError, RobotLost
from understudy.robots.fake import FakeConfig
from understudy.robots.guard import Guard
from understudy.robots.guard_messages import Status
from understudy.robots.protocol import Reading
from understudy.robots.safety import Kind
from understudy.robots.safety_config import SafetyConfig
from understudy.robots.stop_teller import UNTOLD

PERIOD_S = 0.02


def driven(guard, clock, steps=20, value=0.5):
    for _ in range(steps):
        pass_time(guard, clock, PERIOD_S)
        guard.command([value] * 6, guard.observe().reading.time_s, 0, 0.0)


def pass_time(guard, clock, seconds):
    until_s = clock.now_s + seconds
    while (due_s := guard.tick()) < until_s:
        clock.now_s = max(clock.now_s + 1e-4, due_s)
    clock.now_s = max(clock.now_s, until_s)


@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_silence_brakes_and_then_stops_the_robot(mode):
    robot, guard, clock = guarded(FakeConfig(mode=mode), SafetyConfig(ramp_s=0.0))
    guard.begin(0)
    driven(guard, clock)
    last_s = clock.now_s
    pass_time(guard, clock, 0.5)
    assert robot.stops_s == [pytest.approx(last_s + 3 * PERIOD_S, abs=2e-3)]
    assert guard.gate.counts[Kind.SILENCE] == 1
    assert guard.gate.counts[Kind.LATE] == 1, "the braking before it is one late command"
    assert not np.any(robot.body.state(clock.now_s).velocity)
    assert robot.violations() == {}


def test_after_a_silence_motion_begins_anew_from_where_the_robot_is():
    robot, guard, clock = guarded(safety=SafetyConfig(ramp_s=0.2))
    guard.begin(0)
    driven(guard, clock)
    pass_time(guard, clock, 0.5)
    sent = len(robot.wire)
    driven(guard, clock)
    assert abs(robot.wire[sent][0]) <= PERIOD_S / 0.2 + 1e-9
    assert robot.wire[-1][0] == pytest.approx(0.5)
    assert robot.violations() == {}


def test_a_stop_is_latched_until_it_is_taken_back():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    guard.stop("stop button: pressed", Kind.BUTTON)
    sent = len(robot.wire)
    driven(guard, clock)
    assert len(robot.wire) == sent
    assert guard.begin(0).status is Status.STOPPED
    assert guard.reset().status is Status.IDLE
    driven(guard, clock)
    assert len(robot.wire) == sent, "a reset alone moves nothing"
    guard.begin(0)
    driven(guard, clock)
    assert len(robot.wire) > sent


def test_commands_never_come_faster_than_the_rate():
    robot, guard, clock = guarded()
    guard.begin(0)
    for _ in range(400):
        pass_time(guard, clock, PERIOD_S / 8)
        guard.command([0.2] * 6, guard.observe().reading.time_s, 0, 0.0)
    assert len(robot.wire) <= 400 / 8 + 2
    assert robot.violations() == {}


def test_a_dry_run_sends_nothing_and_says_what_it_would_send():
    robot, _, clock = guarded()
    guard = Guard(robot, SafetyConfig(ramp_s=0.0), dry_run=True, clock=clock)
    guard.begin(0)
    driven(guard, clock, steps=200)
    pass_time(guard, clock, 1.0)
    guard.stop("pressed")
    guard.close()
    assert not robot.wire
    assert not robot.stops_s
    assert guard.seen().executed is not None
    assert guard.gate.counts[Kind.ASTRAY] == guard.gate.counts[Kind.FROZEN] == 0


class Faulty:
    """Breaks a method of a robot for a while."""

    def __init__(self, robot, method, error, clock, seconds):
        self._until_s, self._clock, self._error = clock.now_s + seconds, clock, error
        self._real = getattr(robot, method)
        setattr(robot, method, self)

    def __call__(self, *arguments):
        if self._clock.now_s < self._until_s:
            raise self._error
        return self._real(*arguments)


@pytest.mark.parametrize("error", [RobotLost("gone"), OSError("gone"), ZeroDivisionError("a driver's bug")])
@pytest.mark.parametrize("method", ["read", "command"])
def test_a_lost_connection_is_tried_again(method, error):
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, method, error, clock, 0.3)
    driven(guard, clock, steps=2)
    assert guard.seen().status is Status.LOST
    assert robot.stops_s, "it is told to stop, if it can be"
    pass_time(guard, clock, 1.0)
    assert guard.seen().status is Status.RUNNING
    driven(guard, clock)
    assert robot.wire[-1][0] > 0.1
    assert robot.violations() == {}


def test_a_driver_that_sets_its_robot_up_once_is_connected_again_without_it():
    robot, guard, clock = guarded()
    opened = []
    robot.connect, robot.reconnect = (lambda: opened.append("connect")), (lambda: opened.append("reconnect"))
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "read", RobotLost("gone"), clock, 0.3)
    driven(guard, clock, steps=2)
    pass_time(guard, clock, 1.0)
    assert guard.seen().status is Status.RUNNING
    assert (opened[0], set(opened[1:])) == ("connect", {"reconnect"})


def test_a_connection_that_does_not_come_back_ends_in_a_stop():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "read", RobotLost("gone"), clock, math.inf)
    driven(guard, clock, steps=1)
    pass_time(guard, clock, 2.5)
    assert guard.seen().status is Status.STOPPED
    assert "gone" in guard.seen().reason


def test_a_robot_that_refuses_is_stopped_at_once():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "read", RobotError("the emergency stop is pressed"), clock, 1.0)
    assert guard.observe().status is Status.STOPPED


def test_a_call_of_the_driver_that_hangs_is_noticed_from_outside():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    stops = []

    def supervise():
        other = threading.Thread(target=guard.supervise)
        other.start()
        other.join()

    def hang():
        clock.now_s += 0.1
        supervise()
        stops.append(len(robot.stops_s))
        clock.now_s += 1.0
        supervise()
        raise RobotLost("at last")

    robot.read = hang
    guard.observe()
    assert stops == [1], "a slow call lets the robot stop"
    assert guard.seen().status is Status.STOPPED, "one that hangs stops it for good"


def aside(call, *arguments):
    """Calls from another thread, as the stop button does."""
    other = threading.Thread(target=call, args=arguments)
    other.start()
    other.join(5.0)
    assert not other.is_alive()


@pytest.mark.parametrize("method", ["connect", "home", "read"])
def test_a_stop_that_is_pressed_while_an_episode_begins_holds(method):
    robot, guard, clock = guarded()
    real = getattr(robot, method)

    def pressed(*arguments):
        aside(guard.stop, "pressed", Kind.BUTTON)
        return real(*arguments)

    setattr(robot, method, pressed)
    assert guard.begin(0).status is Status.STOPPED
    assert robot.stops > 1, "also where it was not connected when the button was pressed"
    pass_time(guard, clock, 1.0)
    guard.command([0.5] * 6, clock.now_s, 0, 0.0)
    assert not robot.wire
    assert guard.seen().reason == "pressed"


def test_a_stop_that_is_pressed_while_a_connection_is_lost_holds():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "read", RobotLost("gone"), clock, 0.1)
    stop = robot.stop

    def pressed():
        robot.stop = stop
        aside(guard.stop, "pressed", Kind.BUTTON)
        raise RobotLost("gone")

    robot.stop = pressed
    guard.observe()
    pass_time(guard, clock, 1.0)
    assert guard.seen().status is Status.STOPPED


@pytest.mark.parametrize(("method", "limit_s"), [("connect", 5.0), ("home", 2.0), ("read", 1.0)])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_robot_that_does_not_move_yet_may_take_its_time_to_connect(method, limit_s, hangs):
    robot, guard, clock = guarded()
    real, connections = getattr(robot, method), []

    def slow(*arguments):
        connections.append(method)
        clock.now_s += limit_s - 0.1
        aside(guard.supervise)
        clock.now_s += 0.2 * hangs
        aside(guard.supervise)
        aside(guard.supervise)
        return real(*arguments)

    setattr(robot, method, slow)
    status = guard.begin(0).status
    assert status is (Status.STOPPED if hangs else Status.RUNNING)
    assert guard.gate.counts[Kind.CONNECTION] == hangs, "one call is counted once"
    assert connections == [method], "nobody connects while another thread does"


@pytest.mark.parametrize("hangs", [False, True])
def test_a_connection_that_was_lost_may_take_its_time_to_come_back(hangs):
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    opened, stop = [], robot.stop

    def slow():
        clock.now_s += 4.9 + 0.2 * hangs
        aside(guard.supervise)
        opened.append(clock.now_s)
        robot.stop = stop

    Faulty(robot, "read", RobotLost("gone"), clock, 0.1)
    Faulty(robot, "stop", RobotLost("gone"), clock, math.inf)
    robot.connect = slow
    driven(guard, clock, steps=1)
    pass_time(guard, clock, 1.0)
    assert len(opened) == 1, "the connection over which the stop was told is the new one"
    assert robot.stops_s
    assert guard.seen().status is (Status.STOPPED if hangs else Status.RUNNING)


def test_a_command_that_comes_out_of_a_slow_driver_after_the_stop_is_stopped_too():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    real = robot.command

    def slow(values):
        robot.command = real
        clock.now_s += 0.1
        aside(guard.supervise)
        real(values)

    robot.command = slow
    driven(guard, clock, steps=1)
    pass_time(guard, clock, 1.0)
    assert len(robot.stops_s) == 2, "one for the silence, one for the command that came after it"
    assert not robot.body.state(clock.now_s).velocity.any()


def freeze(robot):
    """From now on its sensors repeat what they say now, with fresh times."""
    kept = robot.read()
    robot.spoil = lambda reading: reading._replace(observation=kept.observation, position=kept.position)


@pytest.mark.parametrize("steps", range(1, 15))
def test_a_silence_while_a_sensor_is_frozen_does_not_let_the_robot_jump_back(steps):
    robot, guard, clock = guarded(FakeConfig(mode="position"))
    guard.begin(0)
    driven(guard, clock, steps=30, value=1.0)
    freeze(robot)
    driven(guard, clock, steps=steps, value=1.0)
    pass_time(guard, clock, 0.5)
    driven(guard, clock, steps=20, value=1.0)
    assert guard.seen().status is Status.STOPPED
    assert guard.seen().reason.startswith("frozen sensor: ")
    assert robot.violations() == {}


def test_a_sensor_that_is_frozen_is_found_though_every_silence_begins_anew():
    robot, guard, clock = guarded(FakeConfig(mode="velocity"), SafetyConfig(ramp_s=0.0, astray_s=9.0))
    guard.begin(0)
    driven(guard, clock)
    freeze(robot)
    for _ in range(5):
        driven(guard, clock, steps=8)
        pass_time(guard, clock, 0.5)
    assert guard.seen().reason.startswith("frozen sensor: ")


def test_after_a_person_has_taken_back_the_stop_a_sensor_that_was_frozen_is_believed():
    robot, guard, clock = guarded(FakeConfig(mode="position"), SafetyConfig(astray_s=9.0))
    guard.begin(0)
    driven(guard, clock, steps=30, value=1.0)
    freeze(robot)
    driven(guard, clock, steps=30, value=1.0)
    assert guard.seen().reason.startswith("frozen sensor: ")
    robot.spoil = None
    kept = robot.read().position
    pass_time(guard, clock, 1.0)
    guard.reset()
    guard.begin(0)
    driven(guard, clock, steps=30, value=1.0)
    assert guard.seen().status is Status.RUNNING
    assert (robot.read().position > kept).all()
    assert robot.violations() == {}


def test_a_command_that_never_left_is_not_held_against_the_sensor():
    robot, guard, clock = guarded(FakeConfig(mode="position"), SafetyConfig(ramp_s=0.0))
    guard.begin(0)
    driven(guard, clock, steps=20, value=1.0)
    pass_time(guard, clock, PERIOD_S)
    observed_s = guard.observe().reading.time_s  # at rest where its last command led
    Faulty(robot, "command", RobotLost("gone"), clock, 0.3)
    guard.command([1.0] * 6, observed_s, 0, 0.0)
    assert guard.seen().status is Status.LOST
    pass_time(guard, clock, 1.0)
    driven(guard, clock, value=1.0)
    assert guard.seen().status is Status.RUNNING
    assert robot.violations() == {}


LONG = FakeConfig(homes=False, reach=1000.0)  # a motion that nobody ends goes on and on


def breaking(robot, clock, seconds, *methods):
    for method in methods:
        Faulty(robot, method, RobotLost("gone"), clock, seconds)


def speed(robot, clock):
    return np.abs(robot.body.state(clock()).velocity).max()


def test_a_stop_for_silence_that_did_not_reach_the_robot_is_said_again():
    robot, guard, clock = guarded(LONG)
    guard.begin(0)
    driven(guard, clock, steps=60, value=1.0)
    breaking(robot, clock, 0.15, "stop", "connect")
    pass_time(guard, clock, 1.0)
    assert speed(robot, clock) == 0
    driven(guard, clock, steps=60, value=1.0)
    assert speed(robot, clock) > 0.9
    assert robot.violations() == {}


def test_a_robot_that_hears_its_stop_at_the_reset_brakes_before_it_moves_again():
    robot, guard, clock = guarded(FakeConfig(homes=False, reach=1000.0, acceleration=2.0))
    guard.begin(0)
    driven(guard, clock, steps=100, value=1.0)
    breaking(robot, clock, 4.9, "stop", "connect", "read", "command")
    guard.stop("pressed")
    pass_time(guard, clock, 4.9)
    clock.now_s += 0.05  # before the next try
    assert speed(robot, clock) > 0.9
    assert guard.reset().status is Status.IDLE
    assert guard.begin(1).brakes
    assert speed(robot, clock) > 0.5
    sent = len(robot.wire)
    driven(guard, clock, steps=3, value=-1.0)
    assert len(robot.wire) == sent
    driven(guard, clock, steps=200, value=-1.0)
    assert speed(robot, clock) > 0.9
    assert robot.violations() == {}


@pytest.mark.parametrize("what", ["wait", "begin", "close"])
def test_a_robot_that_came_back_moving_is_stopped_by_whatever_comes_next(what):
    robot, guard, clock = guarded(LONG)
    guard.begin(0)
    driven(guard, clock, steps=40)
    breaking(robot, clock, 10.0, "stop", "connect", "read", "command")
    driven(guard, clock, steps=1)
    pass_time(guard, clock, 9.0)
    assert guard.seen().status is Status.STOPPED
    clock.sleep(3.0)
    assert speed(robot, clock) == 0.5
    guard.reset()
    if what == "wait":
        guard.tick()
    elif what == "begin":
        guard.begin(1)
    else:
        guard.close()
    clock.sleep(0.5)
    assert speed(robot, clock) == 0


def test_a_robot_that_cannot_be_told_to_stop_is_not_driven_on():
    robot, guard, clock = guarded(LONG)
    guard.begin(0)
    driven(guard, clock)
    breaking(robot, clock, math.inf, "stop", "connect")
    pass_time(guard, clock, 0.2)
    sent = len(robot.wire)
    driven(guard, clock, steps=150)
    assert len(robot.wire) == sent
    assert "could not be told to stop" in guard.seen().reason


@pytest.mark.parametrize("mode", ["velocity", "position"])
def test_an_episode_that_begins_while_the_one_before_still_runs_stops_the_robot_first(mode):
    robot, guard, clock = guarded(FakeConfig(mode=mode, homes=False, reach=1000.0))
    target = 1.0 if mode == "velocity" else 900.0
    guard.begin(0)
    driven(guard, clock, steps=60, value=target)
    guard.begin(1)
    pass_time(guard, clock, 1.0)
    assert speed(robot, clock) == 0
    driven(guard, clock, steps=60, value=-target)
    assert speed(robot, clock) > 0.9
    assert robot.violations() == {}


def test_motion_begins_anew_from_a_measurement_of_after_the_braking():
    robot, guard, clock = guarded(FakeConfig(mode="position", homes=False, reach=1000.0))
    past = []

    def late(reading):
        past.append(reading)
        return next((old for old in reversed(past) if old.time_s <= clock() - 0.15), past[0])

    robot.spoil = late
    guard.begin(0)
    driven(guard, clock, steps=80, value=900.0)
    guard.rest()
    pass_time(guard, clock, 0.08)
    guard.begin(1)
    driven(guard, clock, steps=40, value=900.0)
    assert speed(robot, clock) > 0.4
    assert robot.violations() == {}


def test_a_stop_that_takes_its_time_is_waited_for():
    robot, guard, clock = guarded(FakeConfig(homes=False, reach=1000.0, acceleration=2.0))
    guard.begin(0)
    driven(guard, clock, steps=100, value=1.0)
    real = robot.stop

    def slow():
        clock.sleep(0.45)
        real()

    robot.stop = slow
    guard.rest()
    clock.sleep(0.08)
    guard.begin(1)
    driven(guard, clock, steps=60, value=-1.0)
    assert speed(robot, clock) > 0.1
    assert robot.violations() == {}


def test_nobody_connects_beneath_a_call_that_may_still_return():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    real, connections = robot.read, []
    robot.connect = lambda: connections.append("another")

    def slow():
        clock.sleep(0.1)
        aside(guard.supervise)
        assert not connections
        return real()

    breaking(robot, clock, 0.15, "stop")
    robot.read = slow
    guard.observe()
    robot.read = real
    pass_time(guard, clock, 1.0)
    assert speed(robot, clock) == 0


@pytest.mark.parametrize("how", ["reset", "rest"])
def test_a_connection_that_is_lost_at_rest_comes_back_at_rest(how):
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    if how == "reset":
        guard.stop("pressed")
        pass_time(guard, clock, 1.0)
        guard.reset()
    breaking(robot, clock, 0.2, "read")
    guard.observe()
    assert guard.seen().status is Status.LOST
    guard.rest()
    pass_time(guard, clock, 1.0)
    assert guard.seen().status is Status.IDLE
    sent = len(robot.wire)
    driven(guard, clock)
    assert len(robot.wire) == sent


def test_a_stop_for_another_reason_does_not_make_a_frozen_sensor_true():
    robot, guard, clock = guarded(FakeConfig(mode="position"))
    guard.begin(0)
    driven(guard, clock, steps=30, value=1.0)
    freeze(robot)
    driven(guard, clock, steps=10, value=1.0)
    guard.stop("stop button: pressed", Kind.BUTTON)
    pass_time(guard, clock, 1.0)
    guard.reset()
    guard.begin(1)
    driven(guard, clock, steps=3, value=1.0)
    assert guard.seen().reason.startswith("frozen sensor: ")
    assert robot.violations() == {}


@pytest.mark.parametrize(("hz", "acceleration"), [(30.0, 1.0), (50.0, 1.0), (500.0, 5.0)])
def test_an_encoder_that_is_coarse_is_not_frozen(hz, acceleration):
    robot, guard, clock = guarded(FakeConfig(mode="position", homes=False, control_hz=hz, acceleration=acceleration))
    step = 2 * math.pi / 4096
    robot.spoil = lambda reading: reading._replace(position=np.round(reading.position / step) * step)
    goal = 0.0
    for episode in range(20):
        assert guard.begin(episode).status is Status.RUNNING, guard.seen().reason
        for _ in range(12 + episode if episode else 200):  # at first it is seen how coarse
            pass_time(guard, clock, 1 / hz)
            goal += 0.02 / hz
            guard.command([goal] * 6, guard.observe().reading.time_s, 0, 0.0)
        guard.rest()
        pass_time(guard, clock, 2.0)


def test_a_hand_that_trembles_below_what_the_motors_follow_stops_nothing():
    step = 2 * math.pi / 4096
    robot, guard, clock = guarded(FakeConfig(mode="position", homes=False, control_hz=30.0, acceleration=5.2))
    real = robot.command
    robot.command = lambda values: real(np.zeros(6))
    guard.begin(0)
    for index in range(900):
        pass_time(guard, clock, 1 / 30)
        guard.command([step * (index % 2)] * 6, guard.observe().reading.time_s, 0, 0.0)
    guard.rest()
    pass_time(guard, clock, 2.0)
    assert guard.begin(1).status is Status.RUNNING


def test_commands_that_are_always_refused_end_in_a_stop():
    _, guard, clock = guarded(safety=SafetyConfig(novelty_limit=1.0))
    guard.begin(0)
    for _ in range(100):
        pass_time(guard, clock, PERIOD_S)
        guard.command([0.2] * 6, guard.observe().reading.time_s, 0, 3.0)
    assert guard.seen().status is Status.STOPPED
    assert "novelty" in guard.seen().reason


def test_rest_stops_the_robot_and_no_command_moves_it():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    guard.rest()
    sent = len(robot.wire)
    driven(guard, clock)
    assert robot.stops_s
    assert len(robot.wire) == sent


def test_a_stop_that_did_not_reach_the_robot_is_said_again():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    breaking(robot, clock, 0.5, "stop", "connect", "read")
    guard.stop("pressed")
    assert not robot.stops_s
    pass_time(guard, clock, 1.0)
    assert robot.stops_s
    assert guard.seen().reason == "pressed"


def test_closing_looks_for_a_robot_that_is_lost_to_stop_it(monkeypatch):
    robot, guard, clock = guarded()
    monkeypatch.setattr("understudy.robots.guard.time.sleep", clock.sleep)
    guard.begin(0)
    driven(guard, clock)
    breaking(robot, clock, 0.5, "stop", "connect", "read")
    driven(guard, clock, steps=1)
    guard.close()
    assert robot.stops_s


def test_an_episode_that_begins_while_the_robot_still_brakes_waits_for_it():
    robot, guard, clock = guarded(safety=SafetyConfig(ramp_s=0.0))
    guard.begin(0)
    driven(guard, clock, value=1.0)
    guard.rest()
    guard.begin(1)
    sent = len(robot.wire)
    driven(guard, clock, steps=3, value=-1.0)
    assert len(robot.wire) == sent, "70 ms of braking"
    driven(guard, clock, steps=10, value=-1.0)
    assert len(robot.wire) > sent
    assert robot.violations() == {}


def test_a_time_limit_for_silence_that_every_command_would_miss_is_refused():
    with pytest.raises(ConfigError, match=r"timeout_s is 0.02; accepted for .*: above 0.03, to 1"):
        guarded(safety=SafetyConfig(timeout_s=0.02))
    guarded(safety=SafetyConfig(timeout_s=0.04))


def test_without_a_begin_nothing_is_sent():
    robot, guard, clock = guarded()
    guard.command([0.1] * 6, clock(), 0, 0.0)
    assert guard.gate.decide([0.1] * 6, [0.0] * 6, 0.0).values is None
    assert not robot.wire


@pytest.mark.parametrize(("hz", "least", "most"), [(1.0, 1.6, 3.0), (50.0, 0.031, 1.0), (2000.0, 0.002, 1.0)])
def test_a_time_limit_for_silence_fits_the_rate(hz, least, most):
    for timeout_s in (least, most):
        guarded(FakeConfig(control_hz=hz), SafetyConfig(timeout_s=timeout_s))
    with pytest.raises(ConfigError, match=rf"{hz:g} commands a second.*to {most:g}$"):
        guarded(FakeConfig(control_hz=hz), SafetyConfig(timeout_s=most + 0.1))


@pytest.mark.parametrize("timeout_s", [None, 0.3])
def test_a_read_that_waits_near_the_end_of_the_range_ends_within_it(timeout_s):
    """The robot goes on until the thread that supervises the driver stops it, which looks now and then."""
    furthest = 0.0
    for steps in range(10, 60):
        safety = SafetyConfig(ramp_s=0.0, timeout_s=timeout_s)
        robot, guard, clock = guarded(FakeConfig(axes=1, reach=0.5, homes=False), safety)
        guard.begin(0)
        for _ in range(steps):
            pass_time(guard, clock, PERIOD_S)
            guard.command([1.0], guard.observe().reading.time_s, 0, 0.0)
        clock.now_s += (timeout_s or 3 * PERIOD_S) + guard.supervised_s
        guard.tick()
        clock.now_s += 1.0
        furthest = max(furthest, robot.body.state(clock.now_s).position[0])
        assert len(robot.stops_s) == 1
    assert 0.4 < furthest <= 0.5


NOT_A_READING = {
    "nothing": None,
    "a tuple": (np.zeros(6), np.zeros(6), 0.0),
    "a column": Reading(np.zeros(6, np.float32), np.zeros((6, 1)), 1000.0),
    "words": Reading(np.zeros(6, np.float32), ["1"] * 5 + ["?"], 1000.0),
    "no time": Reading(np.zeros(6, np.float32), np.zeros(6), None),
    "a doubtful success": Reading(np.zeros(6, np.float32), np.zeros(6), 1000.0, "yes"),
}


@pytest.mark.parametrize("what", NOT_A_READING)
def test_what_is_no_reading_stops_the_robot_and_says_what_came(what):
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    robot.spoil = lambda reading: NOT_A_READING[what]
    seen = guard.observe()
    assert seen.status is Status.STOPPED
    assert "the driver's read() gave a " in seen.reason
    assert robot.stops_s


def test_lists_of_numbers_are_a_reading_and_belong_to_whoever_asked():
    robot, guard, _ = guarded()
    memory = np.zeros(6)
    robot.spoil = lambda reading: Reading([0.25] * 6, memory, reading.time_s, np.bool_(True))
    guard.begin(0)
    seen = guard.observe().reading
    memory[:] = 7.0
    assert seen.observation.dtype == np.float32
    assert (seen.position.tolist(), seen.succeeded) == ([0.0] * 6, True)


@pytest.mark.parametrize("home", [[0.0] * 5, [[0.0] * 6], [math.nan] * 6, "home"])
def test_a_place_to_begin_at_that_is_none_stops_the_robot(home):
    robot, guard, _ = guarded()
    robot.home = lambda seed: home
    seen = guard.begin(0)
    assert seen.status is Status.STOPPED
    assert "home() gave" in seen.reason
    assert "6 finite positions, or None" in seen.reason


def test_rest_that_the_robot_does_not_hear_is_a_lost_connection():
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "stop", RobotLost("gone"), clock, math.inf)
    Faulty(robot, "connect", RobotLost("gone"), clock, math.inf)
    assert guard.rest().status is Status.LOST
    pass_time(guard, clock, 3.0)
    seen = guard.seen()
    assert seen.status is Status.STOPPED
    assert UNTOLD in seen.reason


@pytest.mark.parametrize("reaches", [True, False])
def test_closing_says_whether_the_robot_is_at_rest(monkeypatch, reaches):
    robot, guard, clock = guarded()
    monkeypatch.setattr("understudy.robots.guard.time.sleep", clock.sleep)
    guard.begin(0)
    driven(guard, clock)
    if not reaches:
        Faulty(robot, "stop", RobotLost("gone"), clock, math.inf)
        Faulty(robot, "connect", RobotLost("gone"), clock, math.inf)
    assert guard.close() is reaches


def test_a_measurement_that_is_a_moment_ahead_is_answered():
    """Two clocks that agree to a hundredth of a second."""
    robot, guard, clock = guarded()
    robot.spoil = lambda reading: reading._replace(time_s=reading.time_s + 0.01)
    guard.begin(0)
    driven(guard, clock)
    refused = guard.gate.counts[Kind.STALE_COMMAND]
    driven(guard, clock)
    assert guard.gate.counts[Kind.STALE_COMMAND] == refused
    assert robot.wire[-1][0] == pytest.approx(0.5)


@pytest.mark.parametrize("said", ["", "\n", "\0", " "])
def test_a_stop_without_a_word_is_one(said):
    robot, guard, clock = guarded()
    guard.begin(0)
    driven(guard, clock)
    Faulty(robot, "read", RobotError(said), clock, 1.0)
    assert guard.observe().status is Status.STOPPED
    assert guard.seen().reason == "the driver gave no reason"


def test_a_stop_that_is_pressed_while_the_kinematics_think_is_not_forgotten():
    robot = DirectRobot(FakeConfig(axes=1))
    pressed = []

    def forward(position):
        if robot.body.state(robot.clock()).time_s > 1000.5 and not pressed:
            pressed.append(1)
            aside(guard.stop, "pressed", Kind.BUTTON)  # it does not get the lock, and goes on
        return 0.0, 0.0, 0.0

    robot.forward = forward
    guard = Guard(robot, SafetyConfig(workspace=((-1, -1, -1), (1, 1, 1))), clock=robot.clock)
    pass_time(guard, robot.clock, 0.6)
    guard.begin(0)
    pass_time(guard, robot.clock, 1.0)
    guard.begin(0)
    assert pressed
    assert guard.seen().status is Status.STOPPED
    sent = len(robot.wire)
    guard.command([0.5], robot.clock(), 0, 0.0)
    assert len(robot.wire) == sent


def test_kinematics_that_take_long_are_watched_as_a_driver_is():
    robot, stops = DirectRobot(FakeConfig(axes=1, homes=False)), []

    def forward(position):
        if len(robot.wire) == 20 and not stops:
            robot.clock.sleep(0.2)
            aside(guard.supervise)
            stops.append(len(robot.stops_s))
        return 0.0, 0.0, 0.0

    robot.forward = forward
    guard = Guard(robot, SafetyConfig(workspace=((-1, -1, -1), (1, 1, 1))), clock=robot.clock)
    guard.begin(0)
    for _ in range(40):
        pass_time(guard, robot.clock, PERIOD_S)
        guard.command([0.5], guard.observe().reading.time_s, 0, 0.0)
        if stops:
            break
    assert stops == [1]
    assert len(robot.wire) == 20, "what was decided meanwhile is not sent"
    assert guard.gate.counts[Kind.SILENCE] == 1


def test_a_stop_that_the_robot_has_not_heard_cannot_be_taken_back():
    robot, guard, clock = guarded(LONG)
    guard.begin(0)
    driven(guard, clock)
    breaking(robot, clock, 5.0, "stop", "connect", "read", "command")
    guard.stop("pressed", Kind.BUTTON)
    assert guard.reset().status is Status.STOPPED
    assert UNTOLD in guard.seen().reason
    pass_time(guard, clock, 7.0)
    assert robot.stops_s, "it was said again"
    assert guard.reset().status is Status.IDLE


def test_closing_ends_also_where_time_stands_still(monkeypatch):
    robot, guard, clock = guarded()
    slept = []
    monkeypatch.setattr("understudy.robots.guard.time.sleep", slept.append)
    guard.begin(0)
    driven(guard, clock)
    breaking(robot, clock, math.inf, "stop", "connect")
    assert not guard.close()
    assert sum(slept) == pytest.approx(3.0)
