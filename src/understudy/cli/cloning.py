"""The commands of Behavioral Cloning, and the one that says which method to take."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tyro

import understudy as us
from understudy.cli.arguments import Source, dataset_at, demonstrations_at, world_of, write_json
from understudy.cli.console import progress, say, tell
from understudy.dataset.doctor import Diagnosis
from understudy.errors import ConfigError, UnderstudyError, require_within
from understudy.network_shape import MOST_MEMBERS, FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.worlds import World

Answer = Literal["yes", "no"]


def train_bc(
    data: Path,
    out: Path,
    env: str | None = None,
    members: int = 5,
    shape: tyro.conf.OmitArgPrefixes[FeedForwardConfig] = FeedForwardConfig(),
    recipe: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig(),
    resume: bool = False,
) -> None:
    """Clone the demonstrations (Behavioral Cloning).

    Args:
        data: a dataset, or a bare folder of .npz files.
        out: the run's folder.
        env: names, units and limits of a bare folder's channels come from this world.
        members: networks in an ensemble whose mean acts; it counts as one policy.
        shape: of the network.
        recipe: of the training.
        resume: continue an interrupted run; the result is the same bytes.
    """
    require_within("members", members, 1, MOST_MEMBERS)
    dataset = dataset_at(data, env)
    diagnosis = us.diagnose(dataset)
    for line in _error_lines(diagnosis):
        tell(line)
    policy: us.Policy = (
        us.Ensemble.for_data(dataset, shape, members=members, seed=recipe.seed)
        if members > 1
        else us.FeedForward.for_data(dataset, shape, seed=recipe.seed)
    )
    with progress() as bar:
        bar.start("training", recipe.steps)

        def show(log: us.TrainLog) -> None:
            bar.at(log.step, f"{log.losses}, {log.samples_per_s:,.0f} samples/s")

        notes = {"data": str(data), **({"env": env} if env else {})}
        us.train(policy, dataset, recipe, run=out, resume=resume, on_log=show, on_step=bar.at, notes=notes)
    write_json(out / "health.json", diagnosis.to_json())
    us.write_run_report(out)
    say(f"{out / 'policy'}: the policy; measure it with `understudy evaluate {shlex.quote(str(out))} --env ID`")


def advise(
    data: Source,
    env: str | None = None,
    expert: Answer | None = None,
    reward: Answer | None = None,
    robot: Answer | None = None,
) -> None:
    """Say which method suits the demonstrations and the task, with reasons.

    Args:
        data: a dataset, or a bare folder of .npz files.
        env: the world, where there is a simulator.
        expert: whether somebody or something can be asked while the policy tries; yes where --env has a script.
        reward: whether the world pays a reward that says how well the task goes.
        robot: whether it runs on a real robot; no where a simulator is named.
    """
    dataset = dataset_at(data, None) if env is None else demonstrations_at(data, world_of(env))
    diagnosis = us.diagnose(dataset)
    if env is not None:
        robot = robot or "no"
    scripted = _has_script(world_of(env)) if env is not None else _may_have_script(diagnosis.env_id)
    if env is not None and scripted:
        expert = expert or "yes"
    answers = (None if answer is None else answer == "yes" for answer in (expert, reward, robot))
    for line in us.advise(diagnosis, us.Situation(*answers), env, scripted=scripted).lines():
        say(line)


def _error_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """One line for each class of errors in data that somebody is about to train on."""
    messages: dict[str, list[str]] = {}
    for defect in diagnosis.errors:
        messages.setdefault(defect.id, []).append(defect.message)
    for name, same in messages.items():
        more = f" (and {len(same) - 1} more; see `understudy inspect`)" if len(same) > 1 else ""
        yield f"the data have an error, {name}: {same[0]}{more}"


def _may_have_script(env_id: str) -> bool:
    """Whether the world that a dataset names is known here and has a script."""
    try:
        return bool(env_id) and _has_script(env_id)
    except UnderstudyError:
        return False


def _has_script(named: World) -> bool:
    world = us.make_env(named)
    try:
        us.sim.expert_for(world, "scripted")
    except ConfigError:
        return False
    finally:
        world.close()
    return True
