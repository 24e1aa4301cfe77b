"""S1, S2, S5, S6: nothing outside of the limits reaches the wire, whatever is asked. On a clock of its own."""

import math
from collections import Counter

import numpy as np
from robots.trials.drivers import DirectRobot, RandomChunks, TakesTurns, guarded

from understudy.errors import RobotError
from understudy.execution import PolicyAgent
from understudy.robots.env import RobotEnv
from understudy.robots.fake import FakeConfig
from understudy.robots.guard import Guard
from understudy.robots.guard_link import LocalLink
from understudy.robots.guard_messages import Status
from understudy.robots.safety import SafetyConfig
from understudy.rollout import rollout

_SEGMENT = 200
WILD = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3.5e38)


def adversary(commands, seed, mode):
    """So many adversarial commands against gate and guard; what the robot's monitor says of what came through."""
    random = np.random.default_rng(seed)
    config = FakeConfig(mode=mode, homes=False)
    robot, guard, clock = guarded(config, SafetyConfig(ramp_s=float(random.choice([0.0, 0.1]))))
    period_s = robot.spec.period_s
    given, stops = 0, 0
    guard.begin(0)
    while given < commands:
        for asked in _segment(random, config):
            given += 1
            late_s = random.uniform(0, 0.1) if random.random() < 0.002 else 0.0  # or silent
            _pass(guard, clock, period_s + late_s)
            seen = guard.observe()
            observed_s = seen.reading.time_s - (random.uniform(0, 1) if random.random() < 0.002 else 0.0)
            guard.command(asked, observed_s, int(random.random() < 0.01), 0.0)
            if seen.status is Status.STOPPED:
                stops += 1
                clock.now_s += 0.2
                guard.reset()
                guard.begin(0)
        robot.wire.clear()
        robot.stops_s.clear()
    report = robot.body.report(clock())
    return {"commands": given, "on_the_wire": report["commands"], "stops": stops, "violations": report["violations"]}


def _pass(guard, clock, seconds):
    """Lets time pass, in which the guard wakes when it wants to."""
    until_s = clock.now_s + seconds
    while (due_s := guard.tick()) < until_s:
        clock.now_s = max(clock.now_s + 1e-4, due_s)
    clock.now_s = max(clock.now_s, until_s)


def _segment(random, config):
    """Commands of one attack, as lists of plain numbers."""
    axes, reach = config.axes, config.reach if config.mode == "position" else config.velocity
    shape = (_SEGMENT, axes)
    match random.integers(10):
        case 0:
            asked = random.uniform(-3 * reach, 3 * reach, shape)
        case 1:
            asked = random.choice([-reach, reach], shape)
        case 2:
            asked = np.full(shape, random.choice([-1, 1]) * reach * random.uniform(0.9, 5))
        case 3:
            asked = np.cumsum(random.normal(0, reach / 20, shape), axis=0)
        case 4:
            pace = random.uniform(0.01, 3, axes)
            asked = reach * random.uniform(0.5, 2) * np.sin(pace * np.arange(_SEGMENT)[:, None])
        case 5:
            asked = np.repeat(random.uniform(-2 * reach, 2 * reach, (_SEGMENT // 10, axes)), 10, axis=0)
        case 6:
            asked = random.uniform(-1, 1, shape) * 10.0 ** random.uniform(-320, 2, shape)
        case 7:
            asked = random.uniform(-reach, reach, shape)
            asked[random.random(shape) < 0.01] = random.choice(WILD)
        case 8:
            asked = np.where(random.random(shape) < 0.5, 999 * reach, -999 * reach)
        case _:
            asked = np.linspace(-1.2 * reach, 1.2 * reach, _SEGMENT)[:, None] * random.choice([-1, 1], axes)
    rows = asked.tolist()
    if random.random() < 0.05:
        rows[-1] = rows[-1][: random.integers(axes)] if random.random() < 0.5 else [*rows[-1], 0.0]
    return rows


def starts(count, seed, mode):
    """So many starts from anywhere, with takeovers, asked for things far away."""
    random = np.random.default_rng(seed)
    config = FakeConfig(mode=mode, homes=False)
    reach = config.reach if mode == "position" else 2 * config.velocity
    agent = TakesTurns(config.axes, reach, seed)
    worst, violations = 0.0, Counter()
    for index in range(count):
        robot, guard, clock = guarded(config)
        robot.body._p[:] = random.uniform(-config.reach, config.reach, config.axes)
        start = robot.body._p.copy()
        env = RobotEnv(robot, link=LocalLink(guard), clock=clock, sleep=clock.sleep)
        rollout(env, agent, seed=index, max_steps=20)
        first = robot.wire[0] - (start if mode == "position" else 0.0)
        worst = max(worst, float(np.abs(first).max()))
        violations.update(robot.violations())
    return {"starts": count, "takeovers": agent.takeovers, "largest_first_step": worst, "violations": dict(violations)}


def seams(count, seed, mode):
    """So many seams between chunks that have nothing to do with one another."""
    config = FakeConfig(mode=mode, homes=False)
    reach = config.reach if mode == "position" else config.velocity
    robot, guard, clock = guarded(config)
    env = RobotEnv(robot, link=LocalLink(guard), clock=clock, sleep=clock.sleep)
    agent = PolicyAgent(RandomChunks(robot.spec.spec(), reach, seed), execute=RandomChunks.horizon)
    rollout(env, agent, seed=seed, max_steps=(count + 1) * RandomChunks.horizon)
    return {"seams": count, "violations": robot.violations()}


STAGES = ("measured position", "observation", "command", "age of the observation", "novelty")


def not_finite(stage, channel, value, mode):
    """One wild number in one place: what reached the wire, and how long the robot went on, in periods."""
    robot, guard, clock = guarded(FakeConfig(mode=mode, homes=False), SafetyConfig(novelty_limit=1.0, ramp_s=0.0))
    period_s = robot.spec.period_s
    guard.begin(0)
    asked = [0.5] * robot.spec.spec().action_low.size
    for _ in range(5):
        clock.now_s += period_s
        guard.command(asked, guard.observe().reading.time_s, 0, 0.0)
    clock.now_s += period_s
    observed_s, novelty, wild = clock(), 0.0, list(asked)
    if stage == "measured position":
        robot.spoil = lambda reading: reading._replace(position=_with(reading.position, channel, value))
    elif stage == "observation":
        robot.spoil = lambda reading: reading._replace(observation=_with(reading.observation, channel, value))
    elif stage == "command":
        wild[channel] = value
    elif stage == "novelty":
        novelty = value
    else:
        observed_s = value
    before, since_s = len(robot.wire), clock()
    guard.observe()
    guard.command(wild, observed_s, 0, novelty)
    stopped_s = robot.stops_s[-1] if robot.stops_s else math.inf
    sent = robot.wire[before:]
    slower = all(np.abs(values).max() < np.abs(robot.wire[before - 1]).max() for values in sent)
    return {
        "finite": all(np.isfinite(values).all() for values in robot.wire),
        "stopped_after_periods": (stopped_s - since_s) / period_s,
        "braked": bool(sent) and slower,
    }


def _with(values, channel, value):
    values = values.copy()
    with np.errstate(over="ignore"):
        values[channel % len(values)] = value
    return values


def no_limits(**missing):
    """Whether a robot with a limit missing is refused."""
    from dataclasses import replace

    robot = DirectRobot()
    axes = (replace(robot.spec.axes[0], **missing), *robot.spec.axes[1:])
    robot.spec = replace(robot.spec, axes=axes)
    try:
        Guard(robot, SafetyConfig())
    except RobotError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


WALLS = ((-0.2, -0.1, -1.0), (0.7, 0.75, 1.0))
_LINK_M = 0.3


def walls(runs, first_seed, mode):
    """How far outside of its workspace the hand of three links gets, in metres, that begins inside: the worst of all.

    It is driven anywhere, at 10 to 50 Hz, with strong and weak brakes, time limits of three periods to 1 s, and
    commands that are missing.
    """
    worst, judged = 0.0, 0
    for seed in range(first_seed, first_seed + runs):
        random = np.random.default_rng(seed)
        hz, brake = float(random.choice([10.0, 20.0, 30.0, 50.0])), float(random.choice([2.0, 5.0, 20.0]))
        robot = DirectRobot(FakeConfig(mode=mode, axes=3, homes=False, control_hz=hz, acceleration=brake))
        robot.forward = _hand
        robot.body._p[:] = random.uniform(-1.5, 1.5, 3)
        timeout_s = None if random.random() < 0.5 else min(1.0, 10 / hz)
        safety = SafetyConfig(ramp_s=float(random.choice([0.0, 0.5])), workspace=WALLS, timeout_s=timeout_s)
        if _outside(robot.body._p):
            continue
        guard, reach = Guard(robot, safety, clock=robot.clock), 2.0 if mode == "position" else 1.0
        guard.begin(0)
        asked = random.uniform(-reach, reach, 3)
        for _ in range(300):
            seen = guard.observe()
            if seen.status is Status.STOPPED:
                raise AssertionError(f"seed {seed}: {seen.reason}")
            if random.random() < 0.07:
                asked = random.uniform(-reach, reach, 3)
            if seen.reading is not None and random.random() > 0.03:
                guard.command(asked.tolist(), seen.reading.time_s, 0, 0.0)
            for _ in range(4):
                robot.clock.sleep(0.25 / hz)
                guard.tick()
                worst = max(worst, _outside(robot.body.state(robot.clock()).position))
        judged += 1
    return {"runs": judged, "worst_outside_m": worst}


def _hand(position):
    x = y = angle = 0.0
    for joint in position:
        angle += joint
        x, y = x + _LINK_M * math.cos(angle), y + _LINK_M * math.sin(angle)
    return x, y, 0.0


def _outside(position):
    return max(0.0, *(max(low - x, x - high) for low, x, high in zip(WALLS[0], _hand(position), WALLS[1], strict=True)))
