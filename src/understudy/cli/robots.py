"""Commands that move a robot."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym

import understudy as us
from understudy.cli.arguments import (
    Json,
    LimitsFile,
    RobotArguments,
    RobotName,
    Source,
    dataset_at,
    existing,
    expert_of,
    growing,
    named_values,
    require_growing,
    require_outputs,
    world_of,
    write_json,
)
from understudy.cli.console import Bar, progress, say
from understudy.episode import UNKNOWN, Episode
from understudy.errors import ConfigError, require_within
from understudy.evaluate import EVALUATION_SEED, agent_for
from understudy.recipe import LARGEST_SEED
from understudy.robots.deploy import require_fit
from understudy.robots.guard_messages import Status
from understudy.robots.operator_keys import VERDICTS, wait_for_key
from understudy.robots.safety import Kind
from understudy.rollout import Step
from understudy.spec import Spec

_SHOWN_S = 0.2


def deploy(
    policy: Source,
    robot: RobotName,
    out: Path | None = None,
    episodes: int = 1,
    max_steps: int = 200,
    seed: int = EVALUATION_SEED,
    dry_run: bool = False,
    limits: LimitsFile = None,
    timeout_s: float | None = None,
    ramp_s: float = 0.5,
    novelty: float | None = 0.5,
    doubt: float | None = None,
    expert: str | None = None,
    env: str | None = None,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    robot_arguments: RobotArguments = (),
    json_out: Json = None,
) -> int:
    """Run a policy on a robot behind the safety gate. No certified safety function: keep the hardware stop at hand.

    Space, escape and Ctrl-C stop the robot; s and f end a run as a success or a failure.

    Args:
        policy: a policy folder or a run.
        out: dataset in which every run is recorded, failures included; runs/deploy-NAME where not given.
        episodes: runs, one after the other.
        max_steps: of a run.
        seed: of the first run, from which a simulated robot draws its start.
        dry_run: everything but the wire: measure, decide, show what would be sent. Records nothing.
        timeout_s: silence after which the guard stops the robot; three control periods where not given.
        ramp_s: over which the velocity limit rises at the start and after every pause.
        novelty: how far outside of its training range a channel may be, in widths of the range; None measures nothing.
        doubt: how far the members of an ensemble may disagree, in half-ranges of the actions.
        expert: who is asked for help where an observation is too strange: as in `record`, with --env.
        env: id of the world that the expert knows.
        execute: actions of a chunk that are executed before the policy is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
    """
    require_within("episodes", episodes, 1, LARGEST_SEED)
    require_within("max-steps", max_steps, 1)
    require_within("seed", seed, 0, LARGEST_SEED)
    require_outputs(json_out)
    predictor = us.load_predictor(existing(policy))
    watch = None
    if novelty is not None or doubt is not None:
        watch = us.Novelty(predictor, distance=novelty, doubt=doubt)
    helper = _helper(expert, env)
    agent_for(predictor, execute=execute, ensemble_decay=ensemble_decay)  # refuses what cannot be executed so
    safety = us.SafetyConfig(timeout_s=timeout_s, ramp_s=ramp_s)
    place = out or Path("runs") / f"deploy-{robot.replace(':', '-')}"

    def fits(spec: Spec) -> None:
        require_fit(predictor.spec, spec, what=f"the policy in {policy}")
        if not dry_run:
            require_growing(place, spec, what=f"the robot {robot}")

    with robot_env(robot, robot_arguments, limits, safety, dry_run=dry_run, fits=fits) as world:
        say(f"space, escape and Ctrl-C stop the robot; from another terminal: kill -USR1 {world.guard_pid}")
        runs: list[us.Deployed] = []
        with _kept(None if dry_run else place, world) as dataset, progress() as bar, _ctrl_c(world):
            for run in us.deploy(
                world,
                predictor,
                dataset,
                seeds=range(seed, seed + episodes),
                max_steps=max_steps,
                execute=execute,
                ensemble_decay=ensemble_decay,
                novelty=watch,
                expert=helper,
                observers=(_Display(bar, max_steps),),
                verdict=None if dry_run or not sys.stdin.isatty() else partial(_ask_verdict, world),
            ):
                runs.append(run)
                say(f"{len(runs) - 1}: {run}")
        _summarise(runs, world, None if dry_run else place)
        if json_out:
            write_json(json_out, [run.to_json() for run in runs])
        return 1 if world.stopped else 0


def replay_on(
    data: Path,
    robot: str,
    arguments: Sequence[str],
    limits: Path | None,
    safety: us.SafetyConfig,
    *,
    episodes: int | None,
    dry_run: bool,
) -> list[dict[str, Any]]:
    """Plays recorded episodes open-loop through the same gate, and says how far they drift and what the gate did."""
    dataset = dataset_at(data, None)
    told: list[dict[str, Any]] = []
    fits = partial(require_fit, dataset.spec, what=str(dataset.path))
    with (
        robot_env(robot, arguments, limits, safety, dry_run=dry_run, fits=fits) as env,
        progress() as bar,
        _ctrl_c(env),
    ):
        for index in bar.over("replaying", range(min(episodes or len(dataset), len(dataset)))):
            before = dict(env.counts)
            drift = us.replay(env, dataset[index])
            counts = {str(kind): count - before.get(kind, 0) for kind, count in env.counts.items()}
            counts = {kind: count for kind, count in counts.items() if count}
            row = dataset.rows[index].id
            told.append({"episode": row, **asdict(drift), "interventions": counts, "stopped": env.stopped})
            did = ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "nothing to do"
            say(f"{row}: {drift}; {env.overruns} of {env.ticks} deadlines missed; gate: {did}")
            if env.stopped:
                say(f"the robot is stopped: {env.stopped}")
                break
    return told


@contextmanager
def robot_env(
    name: str,
    arguments: Sequence[str] = (),
    limits: Path | None = None,
    safety: us.SafetyConfig = us.SafetyConfig(),
    *,
    dry_run: bool = False,
    fits: Callable[[Spec], None] = lambda spec: None,
) -> Iterator[us.RobotEnv]:
    """The robot of that name as a world, until the block ends; a terminal's stop keys work while it is there.

    `fits` may refuse what the robot is before anything is done with it.
    """
    if ":" in name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # who types module:Class means the module that lies here
    robot = us.robot_for(name, named_values(arguments, "--robot-arg"))
    try:
        if limits is not None:
            robot, safety = us.Limits.read(limits).hold(robot, safety)
        fits(robot.spec.spec())
        safety.silence_s(robot.spec)  # refuses a time limit that does not fit the rate
        terminal = "/dev/tty" if sys.stdin.isatty() else ""
        world = us.RobotEnv(robot, safety, dry_run=dry_run, keyboard=terminal)
        try:
            yield world
        finally:
            world.close()
    finally:
        machine = getattr(robot, "machine", None)
        if machine is not None:
            machine.close()


class _Display(us.Observer):
    """One line while the robot moves: rate, missed deadlines, interventions, novelty."""

    def __init__(self, bar: Bar, steps: int) -> None:
        self._bar, self._steps = bar, steps
        self._shown_s = 0.0

    def on_start(self, env: gym.Env[Any, Any], observation: Any) -> None:
        self._bar.start("running", self._steps)

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < _SHOWN_S and step.index + 1 < self._steps:
            return
        self._shown_s = now_s
        robot = env.unwrapped
        assert isinstance(robot, us.RobotEnv), "deploy runs robots only"
        rate = step.index / step.time_s if step.time_s else 0.0
        counts = ", ".join(f"{kind} {count}" for kind, count in robot.counts.items()) or "none"
        novelty = "-" if robot.novelty is None else f"{robot.novelty:.2f}"
        said = f"{rate:.1f} Hz, {robot.overruns} missed, interventions: {counts}, novelty {novelty}"
        if robot.dry_run:
            said += f", would send {[round(float(value), 3) for value in step.executed]}"
        self._bar.at(step.index + 1, said)


def _helper(expert: str | None, env: str | None) -> us.Expert | None:
    if expert is None:
        return None
    if env is None:
        raise ConfigError("--expert knows a world; name it with --env")
    return expert_of(us.make_env(world_of(env)), expert)


@contextmanager
def _kept(out: Path | None, world: us.RobotEnv) -> Iterator[us.Dataset | None]:
    if out is None:
        yield None
        return
    with growing(out, world) as dataset:
        yield dataset


@contextmanager
def _ctrl_c(world: us.RobotEnv) -> Iterator[None]:
    """The first Ctrl-C stops the robot, and the run is recorded to its end; the second one interrupts.

    Raises:
        KeyboardInterrupt: the second one.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        world.stop("Ctrl-C")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{_how_it_stands(world)}; what was recorded until then is kept") from None
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_stands(world: us.RobotEnv) -> str:
    """What is known of the robot's motion, and no more."""
    if world.stopped:
        return f"the robot is stopped ({world.stopped})"
    if world.seen.status is Status.IDLE:
        return "the robot is at rest"
    return "nobody has heard yet that the robot is at rest: keep its own stop at hand"


def _ask_verdict(world: us.RobotEnv, episode: Episode) -> int:
    """What the operator says, in keys that the guard reads; Ctrl-C interrupts the question."""
    say(f"{len(episode)} steps: did it succeed? s yes, f no, Enter leaves it open")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return VERDICTS.get(wait_for_key(world.link, "".join(VERDICTS)), UNKNOWN)
    finally:
        signal.signal(signal.SIGINT, before)


def _summarise(runs: Sequence[us.Deployed], world: us.RobotEnv, out: Path | None) -> None:
    wins = sum(run.episode.success == 1 for run in runs)
    judged = sum(run.episode.success != UNKNOWN for run in runs)
    ticks, missed = sum(run.ticks for run in runs), sum(run.overruns for run in runs)
    say(f"{len(runs)} runs, {wins} of {judged} judged ones succeeded; {missed} of {ticks} deadlines missed")
    counts: dict[Kind, int] = {}
    for run in runs:
        for kind, count in run.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    say(
        "the gate and its guard: " + (", ".join(f"{kind} {count}" for kind, count in counts.items()) or "nothing to do")
    )
    if world.stopped:
        say(f"the robot is stopped: {world.stopped}")
    say("nothing was sent and nothing recorded (dry run)" if out is None else f"{out}: every run, as an episode")
