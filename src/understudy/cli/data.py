"""Commands that make, look at and play datasets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

import understudy as us
from understudy.cli.arguments import (
    Env,
    EnvArguments,
    ExpertArguments,
    Json,
    LimitsFile,
    OptionalEnv,
    OptionalRobot,
    RobotArguments,
    Source,
    dataset_at,
    existing,
    expert_of,
    growing,
    is_policy,
    policy_at,
    recorded_in,
    require_outputs,
    to_json_text,
    world_of,
    write_json,
)
from understudy.cli.console import progress, say, tell
from understudy.cli.recording import record_at
from understudy.cli.robots import replay_on
from understudy.episode import SUCCESS
from understudy.errors import ConfigError, DataError, MissingDependency, require_within
from understudy.evaluate import EVALUATION_SEED, agent_for, world_spec
from understudy.recipe import LARGEST_SEED
from understudy.report.markup import one_line
from understudy.worlds import World

_LONGEST_ON_A_ROBOT = 1000


def record(
    out: Path,
    env: OptionalEnv = None,
    expert: str = "scripted",
    episodes: int = 50,
    seed: int | None = None,
    after_success: int | None = 10,
    env_arguments: EnvArguments = (),
    robot: OptionalRobot = None,
    robot_arguments: RobotArguments = (),
    expert_arguments: ExpertArguments = (),
    limits: LimitsFile = None,
    max_steps: int | None = None,
    rest_s: float | None = None,
) -> None:
    """Record demonstrations into a dataset, in a world or on a robot. An existing dataset grows.

    Args:
        out: the dataset's folder.
        expert: scripted, scripted-human, a policy folder, run or .onnx, or an .npz of MLP weights; on a robot also a
            teleoperator, like lerobot:so101_leader.
        episodes: how many to record.
        seed: of the first start; the next after those recorded where not given.
        after_success: steps that a demonstration goes on after its first success; None for the world's own end.
        max_steps: after which an episode ends by itself: earlier than the world ends it, or on a robot 1000 where not
            given.
        rest_s: on a robot, seconds of rest between two episodes; where not given, until Enter is pressed.
    """
    require_within("episodes", episodes, 1, EVALUATION_SEED)
    require_within("seed", seed, 0, EVALUATION_SEED)
    require_within("after-success", after_success, 0)
    require_within("max-steps", max_steps, 1)
    if robot is None and (robot_arguments or expert_arguments or limits or rest_s is not None):
        raise ConfigError(
            "--robot-arg, --expert-arg, --limits and --rest-s are about a robot; name it with --robot NAME, or leave "
            "them out"
        )
    if robot is not None:
        if env_arguments:
            raise ConfigError("--env-arg is about a world that is recorded in; leave it out, or --robot")
        record_at(
            robot,
            out,
            expert,
            episodes=episodes,
            seed=seed,
            after_success=after_success,
            max_steps=max_steps or _LONGEST_ON_A_ROBOT,
            rest_s=rest_s,
            env=env,
            robot_arguments=robot_arguments,
            expert_arguments=expert_arguments,
            limits=limits,
        )
        return
    if env is None:
        raise ConfigError("say where to record: --env ID for a world, --robot NAME for a robot")
    _record_in(world_of(env, env_arguments), out, expert, episodes, seed, max_steps, after_success)


def _record_in(
    factory: World,
    out: Path,
    expert: str,
    episodes: int,
    seed: int | None,
    max_steps: int | None,
    after_success: int | None,
) -> None:
    """Records in a world that can be reset to the start of a seed."""
    world = us.make_env(factory)
    try:
        teacher = expert_of(world, expert)
        with growing(out, world) as dataset:
            held = {row.seed for row in dataset.rows}
            first = seed if seed is not None else max(held, default=-1) + 1
            seeds = range(first, first + episodes)
            if seeds.stop > EVALUATION_SEED:
                raise ConfigError(
                    f"these are starts {first} to {seeds.stop - 1}; recording uses seeds below {EVALUATION_SEED}, "
                    "so that no evaluation measures on recorded starts; choose a lower --seed or a new dataset"
                )
            if again := held.intersection(seeds):
                tell(f"{len(again)} of these starts are in {out} already; leave --seed out to record new ones")
            done = wins = 0
            with progress() as bar:
                bar.start("recording", episodes)
                saved = us.record(
                    world,
                    us.Demonstrator(teacher),
                    dataset,
                    seeds=seeds,
                    max_steps=max_steps,
                    after_success=after_success,
                )
                try:
                    for done, (row, episode) in enumerate(saved, 1):
                        wins += episode.success == SUCCESS
                        bar.at(done, f"saved {row.id}, {wins} succeeded")
                except KeyboardInterrupt:
                    rest = f"--episodes {episodes - done}" + ("" if seed is None else f" --seed {first + done}")
                    raise KeyboardInterrupt(
                        f"{done} of {episodes} episodes are saved; the same command with {rest} records the rest"
                    ) from None
            say(f"{out}: {len(dataset)} episodes; {wins} of the {episodes} new ones succeeded")
    finally:
        world.close()


def inspect(data: Source, env: str | None = None, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say what is in a dataset and what is wrong with it. Exit code 1 where training would go wrong.

    Args:
        data: a dataset, or a bare folder of .npz files.
        env: names, units and limits of a bare folder's channels come from this world.
        as_json: print JSON instead of text.
    """
    path = existing(data)
    # As a path, what cannot be opened is a finding; a file, or names from a world, need the dataset.
    diagnosis = us.diagnose(path if path.is_dir() and env is None else dataset_at(path, env))
    if as_json:
        print(to_json_text(diagnosis.to_json()))
    else:
        for line in diagnosis.lines():
            say(one_line(line))
    return 1 if diagnosis.errors else 0


def import_(source: Annotated[str, tyro.conf.Positional], out: Path, env: str | None = None) -> None:
    """Bring demonstrations of another format into a dataset, without ever running code from them.

    Args:
        source: a bare folder of .npz files, the DAPG authors' .pickle, a folder in Minari's layout, or
            minari:D4RL/door/human-v2 to download one (extra `minari`).
        out: the new dataset's folder.
        env: names, units and limits come from this world.
    """
    spec = world_spec(world_of(env)) if env else None
    path = source if source.startswith("minari:") else str(existing(Path(source)))
    with progress() as bar:
        bar.start("importing", None)
        dataset = us.import_dataset(path, out, spec, on_row=lambda row: bar.at(row.id + 1))
    say(f"{out}: {len(dataset)} episodes, {dataset.steps} steps")


def view(
    source: Source,
    env: Env,
    episodes: int = 3,
    seed: int | None = None,
    out: Path | None = None,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    env_arguments: EnvArguments = (),
) -> None:
    """Show a dataset's episodes or a policy at work, live in a window or as an MP4.

    Args:
        source: a dataset or a bare folder (its actions are replayed), a policy folder, a run or an .onnx.
        episodes: how many to show.
        seed: of a policy's first start; 10000 where not given.
        out: MP4 to write; a window opens where not given.
        execute: actions of a policy's chunk that are executed before it is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
    """
    require_within("episodes", episodes, 1)
    require_within("seed", seed, 0, LARGEST_SEED)
    source = existing(source)
    plain = world_of(env, env_arguments)
    if is_policy(source):
        agent = agent_for(policy_at(source, plain), execute=execute, ensemble_decay=ensemble_decay)
        first = EVALUATION_SEED if seed is None else seed
        shows = [us.Show(agent, first + index) for index in range(episodes)]
    else:
        if any(option is not None for option in (seed, execute, ensemble_decay)):
            raise ConfigError(
                f"{source} holds recorded actions: --seed, --execute and --ensemble-decay are about a policy; leave "
                "them out"
            )
        dataset = recorded_in(source, plain)
        shows = [us.Show.of(dataset[index]) for index in range(min(episodes, len(dataset)))]
    if not shows:
        raise DataError(f"{source} has no episodes to show; record some, or give a policy")
    require_outputs(out)
    world = world_of(env, env_arguments, render_mode="rgb_array" if out else "human")
    with progress() as bar:
        if out is None:
            us.show_live(world, bar.over("showing", shows))
            return
        why_not = us.film(world, bar.over("filming", shows), out)
    if why_not:
        raise MissingDependency(why_not)
    say(f"{out}: {len(shows)} episodes")


def replay(
    data: Source,
    env: OptionalEnv = None,
    episodes: int | None = None,
    env_arguments: EnvArguments = (),
    robot: OptionalRobot = None,
    robot_arguments: RobotArguments = (),
    limits: LimitsFile = None,
    ramp_s: float | None = None,
    dry_run: bool = False,
    json_out: Json = None,
) -> None:
    """Run recorded actions open-loop from the recorded starts, and say how far the states drift.

    Args:
        data: a dataset, or a bare folder of .npz files.
        episodes: only so many.
        ramp_s: on a robot, over which its velocity limit rises at the start, 0.5 where not given; what an axis that
            takes velocities loses by it, an open-loop replay does not make up.
        dry_run: on a robot, everything but the wire.
    """
    require_within("episodes", episodes, 1)
    if robot is not None and (env is not None or env_arguments):
        raise ConfigError(
            "the actions are run on a robot (--robot) or in a world (--env, --env-arg); give one of the two"
        )
    if robot is None and (robot_arguments or limits or dry_run or ramp_s is not None):
        raise ConfigError("--robot-arg, --limits, --ramp-s and --dry-run are about a robot; name it with --robot NAME")
    if robot is not None:
        require_outputs(json_out)
        safety = us.SafetyConfig() if ramp_s is None else us.SafetyConfig(ramp_s=ramp_s)
        told = replay_on(data, robot, robot_arguments, limits, safety, episodes=episodes, dry_run=dry_run)
        if json_out:
            write_json(json_out, told)
        return
    if env is None:
        raise ConfigError("say where the actions are to be run: --env ID for a world, --robot NAME for a robot")
    factory = world_of(env, env_arguments)
    dataset = recorded_in(data, factory)
    require_outputs(json_out)
    world = us.make_env(factory)
    drifts = []
    try:
        with progress() as bar:
            for index in bar.over("replaying", range(min(episodes or len(dataset), len(dataset)))):
                drift = us.replay(world, dataset[index])
                drifts.append({"episode": dataset.rows[index].id, **asdict(drift)})
                say(f"{dataset.rows[index].id}: {drift}")
    finally:
        world.close()
    wins = sum(drift["success"] == 1 for drift in drifts)
    say(f"{wins} of {len(drifts)} replays succeeded")
    if json_out:
        write_json(json_out, drifts)
