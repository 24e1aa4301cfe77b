"""What `understudy record` does where it is told of a robot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import understudy as us
from understudy.cli.arguments import expert_of, growing, named_values, require_growing, world_of
from understudy.cli.console import say, tell
from understudy.cli.robots import robot_env
from understudy.episode import FAILURE, SUCCESS, UNKNOWN
from understudy.errors import ConfigError, require_within
from understudy.evaluate import EVALUATION_SEED
from understudy.robots.recording import Outcome, Take, record_on

_LEROBOT = "lerobot:"
_VERDICTS = {SUCCESS: "a success", FAILURE: "a failure", UNKNOWN: "unjudged"}
# A world whose script knows the robot.
_WORLDS = {"sim": "understudy/PickPlace-v0"}


def record_at(
    robot: str,
    out: Path,
    expert: str,
    *,
    episodes: int,
    seed: int | None,
    after_success: int | None,
    max_steps: int,
    rest_s: float | None,
    env: str | None,
    robot_arguments: Sequence[str],
    expert_arguments: Sequence[str],
    limits: Path | None,
) -> None:
    """Records demonstrations on the robot of that name; the operator's keys are those of the terminal."""
    require_within("rest-s", rest_s, 0)
    attended = rest_s is None and sys.stdin.isatty()
    fits = partial(require_growing, out, what=f"the robot {robot}")
    with robot_env(robot, robot_arguments, limits, fits=fits) as world:
        teacher = _teacher(expert, world, robot, env, expert_arguments)
        try:
            with growing(out, world) as dataset:
                held = {row.seed for row in dataset.rows}
                first = seed if seed is not None else max(held, default=-1) + 1
                require_within("seed", first + episodes, 0, EVALUATION_SEED)
                if again := held.intersection(range(first, first + episodes)):
                    tell(f"{len(again)} of these starts are in {out} already; leave --seed out to record new ones")
                if attended:
                    say("while it runs: s success, f failure, d throws it away, space stops the robot")
                takes = record_on(
                    world,
                    teacher,
                    dataset,
                    episodes=episodes,
                    seed=first,
                    max_steps=max_steps,
                    after_success=after_success,
                    rest_s=None if attended else rest_s or 0.0,
                    tell=say,
                )
                saved: list[Take] = []
                following = first
                try:
                    for take in takes:
                        following += take.outcome is not Outcome.UNDONE
                        _count(take, saved)
                        say(_told(take, len(saved), episodes))
                except KeyboardInterrupt:
                    rest = f"--episodes {episodes - len(saved)}"
                    rest += "" if seed is None else f" --seed {following}"
                    raise KeyboardInterrupt(
                        f"{len(saved)} of {episodes} episodes are saved; the same command with {rest} records the rest"
                    ) from None
                wins = sum(take.episode.success == SUCCESS for take in saved if take.episode)
                say(f"{out}: {len(dataset)} episodes; {wins} of the {len(saved)} new ones succeeded")
        finally:
            close: Callable[[], None] = getattr(teacher, "close", lambda: None)
            close()


def _teacher(name: str, world: us.RobotEnv, robot: str, env: str | None, arguments: Sequence[str]) -> us.Expert:
    """A teleoperator of LeRobot, the script of the robot or of a world that knows it, or a policy."""
    given = named_values(arguments, "--expert-arg")
    if name.startswith(_LEROBOT):
        from understudy.robots.lerobot import LeRobotExpert

        return LeRobotExpert(name.removeprefix(_LEROBOT), us.spec_of(world), **given)
    if given:
        raise ConfigError(f"--expert-arg is for teleoperators like lerobot:so101_leader; {name} takes none")
    env = env or _WORLDS.get(robot)
    if env is not None:
        known = us.make_env(world_of(env))
        us.spec_of(known).require(us.spec_of(world), what=f"the robot {robot}", against=env)
        return expert_of(known, name)
    if robot == "fake" and name == "scripted":
        from understudy.robots.pose_expert import PoseExpert

        return PoseExpert(world.robot.spec)
    if name == "scripted" or name.startswith("scripted-"):
        raise ConfigError(
            f"{robot} has no script; give a teleoperator (--expert lerobot:so101_leader), a policy, or the world whose "
            "script knows it (--env ID)"
        )
    return expert_of(world, name)


def _count(take: Take, saved: list[Take]) -> None:
    if take.outcome is Outcome.SAVED:
        saved.append(take)
    elif take.outcome is Outcome.UNDONE:
        saved.pop()


def _told(take: Take, saved: int, episodes: int) -> str:
    """One line about what became of an episode."""
    if take.outcome is Outcome.DISCARDED:
        return "thrown away"
    assert take.row is not None, "only what is thrown away has no row"
    if take.outcome is Outcome.UNDONE:
        return f"{take.row.id} does not count any more: {saved} of {episodes}"
    if take.outcome is Outcome.STOPPED:
        return f"the robot is stopped ({take.why}); {take.row.id} is kept as partial"
    assert take.episode is not None, "it was recorded just now"
    return f"saved {take.row.id}: {len(take.episode)} steps, {_VERDICTS[take.episode.success]}; {saved} of {episodes}"
