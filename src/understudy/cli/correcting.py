"""The command of the DAgger family."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

import understudy as us
from understudy.cli.arguments import (
    CORES,
    Env,
    EnvArguments,
    GateArguments,
    demonstrations_at,
    existing,
    expert_of,
    found_expert,
    named_values,
    world_of,
)
from understudy.cli.console import Bar, progress, say
from understudy.cli.measuring import evaluate, limit_where_none, note_endless_world
from understudy.durable import make_folder, write_file
from understudy.episode import SUCCESS
from understudy.errors import ConfigError, require_within
from understudy.evaluate import EVALUATION_SEED
from understudy.network_shape import MOST_MEMBERS, FeedForwardConfig
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE, DAggerConfig, TrainConfig
from understudy.report.run_files import read_config
from understudy.runs import Run, read_json, require_same
from understudy.sim.experts import expert_fingerprint
from understudy.workers import MOST_WORKERS

_DOUBTING_MEMBERS, _DEMONSTRATIONS = 5, 10


def dagger(
    env: Env,
    out: Path,
    policy: Annotated[Path | None, tyro.conf.Positional] = None,
    data: Path | None = None,
    expert: str = "scripted",
    gate: str = "dagger",
    gate_arguments: GateArguments = (),
    demonstrations: int | None = None,
    members: int | None = None,
    starts: int = 100,
    workers: int = CORES,
    shape: tyro.conf.OmitArgPrefixes[FeedForwardConfig] = DAGGER_SHAPE,
    rounds: tyro.conf.OmitArgPrefixes[DAggerConfig] = DAggerConfig(),
    recipe: tyro.conf.OmitArgPrefixes[TrainConfig] = DAGGER_RECIPE,
    env_arguments: EnvArguments = (),
    resume: bool = False,
    dry_run: bool = False,
) -> None:
    """Correct a policy while it tries: rounds of rolling out, asking the expert, and training (the DAgger family).

    Args:
        out: the run's folder; what is collected goes to its data/.
        policy: a policy folder or a run to begin with; the demonstrations are cloned where not given.
        data: demonstrations to begin with; recorded from the expert where not given.
        expert: scripted, a policy folder, run or .onnx, or an .npz of MLP weights; human:scripted simulates a person
            who watches, takes over and hands back.
        gate: who drives: dagger, safe, lazy, hg, thrifty or ensemble.
        demonstrations: recorded from the expert where no data are given; 10 where not given.
        members: networks in an ensemble whose mean acts; where not given, 5 for a gate that measures their disagreement
            (hg, thrifty, ensemble) and 1 for the others.
        starts: on which the last policy is evaluated at the end.
        workers: processes that evaluate.
        shape: of the network.
        rounds: how the rounds go.
        recipe: of each training.
        resume: continue an interrupted run; the result is the same bytes.
        dry_run: collect nothing; say what the gate would have asked of the expert during the recorded episodes.
    """
    from understudy.checkpoint import load

    for name, given_count, most in (
        ("members", members, MOST_MEMBERS),
        ("demonstrations", demonstrations, EVALUATION_SEED),
        ("starts", starts, EVALUATION_SEED),
        ("workers", workers, MOST_WORKERS),
    ):
        require_within(name, given_count, 1, most)
    if data and demonstrations:
        raise ConfigError("--data are the demonstrations, so none are recorded; leave --demonstrations out, or --data")
    factory = world_of(env, env_arguments)
    chosen = us.gate_for(gate, named_values(gate_arguments, "--gate-arg"))
    world = us.make_env(factory)
    try:
        start = load(existing(policy)) if policy else None
        given = demonstrations_at(data, factory) if data else None
        if start is not None:
            _require_fit(start, us.spec_of(world), members, shape)
        if dry_run:
            if start is None or given is None:
                raise ConfigError("--dry-run applies a gate to a policy and recorded episodes; give POLICY and --data")
            _rehearse(chosen, start.in_world(us.spec_of(world)), given, rounds.cap)
            return
        teacher = expert_of(world, expert)
        if gate == "hg" and teacher.engaged and not hasattr(teacher, "watch"):
            raise ConfigError(
                f"the gate hg waits for a person who takes over and hands back; {expert} is engaged before anything "
                f"has happened, as a script that never hands back, so give human:{expert}"
            )
        if start is None:
            single = us.FeedForward(us.spec_of(world), shape).initialized(recipe.seed)
            count = members or (_DOUBTING_MEMBERS if chosen.measures_doubt else 1)
            start = us.Ensemble.of(single, count, seed=recipe.seed) if count > 1 else single
        chosen.begin(start, given)
        Run.may_begin(out, resume=resume)  # refusals come before the first demonstration, or right after it
        longest = limit_where_none(factory, rounds.max_steps)
        note_endless_world(factory, rounds.max_steps)
        notes: dict[str, Any] = {"env": env, "expert": expert}
        notes |= {"expert_fingerprint": checksum} if (checksum := expert_fingerprint(found_expert(expert))) else {}
        notes |= {"env_arguments": list(env_arguments)} if env_arguments else {}
        demos = given
        if demos is None:
            asked = {**notes, "demonstrations": demonstrations or _DEMONSTRATIONS}
            demos = _demonstrations(world, expert, out, asked, longest, resume, partial(chosen.begin, start))
        notes["data"] = str(data or demos.path)
        notes |= {"start": str(policy)} if policy else {}
        with progress() as bar:
            told = us.dagger(
                world,
                teacher,
                chosen,
                start,
                demos,
                rounds,
                recipe,
                world=factory,
                workers=workers,
                run=out,
                resume=resume,
                watcher=Rounds(bar),
                notes=notes,
            )
            for one in told:
                say(_described(one, policy))
    finally:
        world.close()
    evaluate(out, env, episodes=starts, workers=workers, max_steps=longest, env_arguments=env_arguments)


class Rounds:
    """The phases of each round on the progress bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._done, self._wins = bar, 0, 0

    def on_phase(self, round: int, phase: str, total: int) -> None:
        self._bar.start(f"round {round}: {phase}", total)
        self._done = self._wins = 0

    def on_episode(self, episode: us.Episode) -> None:
        self._done += 1
        self._wins += episode.success == SUCCESS
        self._bar.at(self._done, f"{self._wins} succeeded with help")

    def on_training(self, log: us.TrainLog) -> None:
        self._bar.at(log.step, log.losses)


def _require_fit(policy: us.Policy, spec: us.Spec, members: int | None, shape: FeedForwardConfig) -> None:
    """Refuses a policy of another task, and a shape or a number of members that are not its own."""
    policy.spec.require_same_task(spec, what="the world", against="the policy")
    own = list(policy.members) if isinstance(policy, us.Ensemble) else [policy]
    if members not in (None, len(own)) or shape not in (DAGGER_SHAPE, getattr(own[0], "config", None)):
        raise ConfigError(
            "the shape and the members that are asked for are not those of POLICY; leave the options out, or POLICY"
        )


def _demonstrations(
    world: Any,
    expert: str,
    out: Path,
    asked: dict[str, Any],
    max_steps: int | None,
    resume: bool,
    judge: Callable[[us.Dataset], None],
) -> us.Dataset:
    """Demonstrations of the expert, in a folder beside the run, of which those still missing are recorded.

    The first one shows whether the gate can do with such: `judge` raises where it cannot.

    Beside them is a file with what was asked for, so that a resumed command does not mix those of two experts.
    """
    run, count = out if out.name not in ("", "..") else out.resolve(), asked["demonstrations"]
    if not run.name:
        raise ConfigError(f"{out} has no folder beside it for the demonstrations; choose another --out, or give --data")
    path = run.with_name(f"{run.name}-demonstrations")
    asked_for = path.with_name(f"{path.name}.json")
    if path.exists() and not resume:
        raise ConfigError(f"{path} exists; give it with --data, or continue with --resume")
    if (out / "config.json").exists() and (begun := read_config(out).get("data")) != str(path):
        raise ConfigError(f"{out} was begun with --data {begun}; give it again")
    if path.exists() and asked_for.exists():
        require_same(path, read_json(asked_for), asked)
    else:
        make_folder(path.parent)
        write_file(asked_for, json.dumps(asked, indent=1).encode())
    # A person who watches is asked to demonstrate, and then is engaged throughout.
    teacher = expert_of(world, expert)
    if (out / "config.json").exists():
        return us.Dataset.open(path)  # the run has begun, so they are complete
    exists = (path / "dataset.json").exists()
    with us.Dataset.open(path) if exists else us.Dataset.create(path, world) as dataset, progress() as bar:
        dataset.writer().begin()  # an episode whose save was interrupted is taken up before anybody counts them
        bar.start("demonstrating", count)
        seeds = range(len(dataset), count)
        for _ in us.record(world, us.Demonstrator(teacher), dataset, seeds=seeds, max_steps=max_steps):
            bar.at(len(dataset))
            if len(dataset) == 1:
                judge(dataset)
    return us.Dataset.open(path)


def _rehearse(gate: us.Gate, policy: us.Policy, dataset: us.Dataset, cap: float | None) -> None:
    steps = labels = driven = interventions = 0
    for one in us.rehearse(gate, policy, dataset, cap=cap):
        say(
            f"episode {one.episode}: {one.labels} labels, {one.expert_steps} of {one.steps} steps driven by the "
            f"expert, {one.interventions} takeovers"
        )
        steps, labels = steps + one.steps, labels + one.labels
        driven, interventions = driven + one.expert_steps, interventions + one.interventions
    say(
        f"the gate {gate.name} would have asked for {labels} labels in {steps} steps ({labels / max(1, steps):.0%}), "
        f"with {driven} steps driven by the expert and {interventions} takeovers"
    )


def _described(one: us.Round, policy: Path | None) -> str:
    """A round in one line; the first one takes a trained policy as it is."""
    entry = one.entry
    alone = f"; alone {one.evaluation}" if one.evaluation else ""
    if one.number == 0:
        begun = f"{policy} as it is, beside" if policy else "cloned"
        return f"round 0: {begun} {entry.episodes} demonstrations of {entry.steps} steps{alone}"
    nobody = "" if entry.labels else "; the gate asked nobody, so there was nothing new to learn"
    return f"round {one.number}: {entry}{alone}{nobody}"
