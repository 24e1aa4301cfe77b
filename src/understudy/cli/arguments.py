"""What commands have in common: options that many share, and what the names on a command line stand for."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro

import understudy as us
from understudy.dataset.folder import DatasetWarning
from understudy.dataset.layout import is_unfinished
from understudy.durable import prove_writable, write_file
from understudy.errors import ConfigError, SpecMismatch
from understudy.evaluate import world_spec, world_with
from understudy.inference import Predictor
from understudy.onnx_file import is_onnx
from understudy.sim.experts import is_script
from understudy.spec import Spec
from understudy.worlds import World

CORES = os.cpu_count() or 1

Env = Annotated[str, tyro.conf.arg(help="Id of the world, like understudy/PickPlace-v0 or module:Id.")]
OptionalEnv = Annotated[str | None, tyro.conf.arg(help="Id of the world, like understudy/PickPlace-v0 or module:Id.")]
EnvArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="env-arg", metavar="NAME=VALUE", help="Argument of the world, like reward=shaped; may be repeated."
    ),
]
GateArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(name="gate-arg", metavar="NAME=VALUE", help="Option of the gate, like tau=0.1; may be repeated."),
]
_ROBOT = tyro.conf.arg(help="fake, sim, lerobot:TYPE, or module:Class of your own driver.")
RobotName = Annotated[str, _ROBOT]
OptionalRobot = Annotated[str | None, _ROBOT]
RobotArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(name="robot-arg", metavar="NAME=VALUE", help="Option of the robot; may be repeated."),
]
ExpertArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="expert-arg",
        metavar="NAME=VALUE",
        help="Option of a teleoperator, like port=/dev/ttyACM1; may be repeated.",
    ),
]
LimitsFile = Annotated[
    Path | None, tyro.conf.arg(name="limits", help="JSON file with limits of the axes and the workspace.")
]
Source = Annotated[Path, tyro.conf.Positional]
Json = Annotated[Path | None, tyro.conf.arg(name="json", help="Also write the result here as JSON.")]
# Names inside a dataset, a policy or a run that no other output may take.
_OWNED = (
    *("dataset.json", "dataset.unfinished", "episodes.jsonl", "episodes", "recording.journal", "writer.lock"),
    *("data", "rounds"),
    *("policy.json", "weights.safetensors", "config.json", "metrics.jsonl", "health.json", "report.html"),
    *("checkpoints", "policy", "evaluations"),
)


def world_of(env: str, env_arguments: Sequence[str] = (), **more: Any) -> World:
    """The world that --env names, as a function that other processes can call, too."""
    if ":" in env and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # who types module:Id means the module that lies here
    return world_with(env, {**named_values(env_arguments), **more}, allow_module=True)


def policy_at(path: Path, world: World) -> Predictor:
    """The policy at a path, of which it is known that it fits the world."""
    predictor = us.load_predictor(path)
    spec = world_spec(world)
    predictor.spec.require(spec, what=spec.env_id, against="the policy")
    return predictor


def recorded_in(path: Path, world: World) -> us.Dataset:
    """The dataset at a path, of which it is known that its actions fit the world."""
    dataset = dataset_at(path, None)
    spec = world_spec(world)
    dataset.spec.require(spec, what=spec.env_id, against=str(dataset.path))
    return dataset


def expert_of(world: Any, name: str) -> us.Expert:
    """The expert of that name; a file or folder, after the kinds before it, may lie below $UNDERSTUDY_DATA."""
    expert: us.Expert = us.sim.expert_for(world, found_expert(name))
    return expert


def found_expert(name: str) -> str:
    """The name of an expert with the place of its file or folder, which may lie below $UNDERSTUDY_DATA."""
    kinds, colon, last = name.rpartition(":")
    return name if not last or is_script(last) else f"{kinds}{colon}{found(Path(last))}"


def dataset_at(path: Path, env: str | None, env_arguments: Sequence[str] = ()) -> us.Dataset:
    """The dataset at a path; where a world is named, with its names, units and rate."""
    if env is None:
        return us.Dataset.open(existing(path))
    return _opened(path).with_spec(world_spec(world_of(env, env_arguments)))


def demonstrations_at(path: Path, world: World) -> us.Dataset:
    """The demonstrations at a path, with the names of the world; refused where they are of another one."""
    spec, dataset = world_spec(world), _opened(path)
    dataset.require_same_task(spec, what="the world")
    return dataset.with_spec(spec)


def _opened(path: Path) -> us.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # the world gives what a bare folder lacks
        return us.Dataset.open(existing(path))


def found(path: Path) -> Path:
    """The path itself, or the one below $UNDERSTUDY_DATA where only that exists."""
    below = Path(os.environ.get("UNDERSTUDY_DATA", "")) / path
    return below if below.exists() and not path.exists() else path


def existing(path: Path) -> Path:
    """The same for what must exist."""
    if not found(path).exists():
        raise ConfigError(
            f"{path} does not exist; give an existing path, or set UNDERSTUDY_DATA to the folder it lies in"
        )
    return found(path)


def is_policy(path: Path) -> bool:
    """Whether the path holds a policy or a run, or is an exported policy."""
    return is_onnx(path) or any((path / name).exists() for name in ("policy.json", "config.json"))


def named_values(pairs: Sequence[str], option: str = "--env-arg") -> dict[str, Any]:
    """`reward=shaped width=320` as arguments of a world or gate; what reads as JSON is a number, true or false."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{option} {pair!r} is not of the form name=value")
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    return arguments


def require_outputs(*paths: Path | None) -> None:
    """Refuses, before the work, files that cannot be written, or that belong to a dataset, a policy or a run."""
    for path in filter(None, paths):
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no plain file; name a file to write")
        if not path.parent.exists():
            raise ConfigError(f"{path} would lie in {path.parent}, which does not exist; make that folder first")
        for home in path.resolve().parents[:2]:
            owned = path.resolve().relative_to(home).parts[0] in _OWNED
            if owned and any((home / name).exists() for name in ("dataset.json", "config.json", "policy.json")):
                raise ConfigError(f"{path} belongs to the dataset, policy or run in {home}; name another file")
        prove_writable(path)


def write_json(path: Path, value: Any) -> None:
    """Writes plain values to a file, whole or not at all."""
    write_file(path, to_json_text(value).encode())


def to_json_text(value: Any) -> str:
    """Plain values as indented JSON, in which a number that is not finite is null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_growing(out: Path, spec: Spec, *, what: str) -> None:
    """Refuses, before the work, a place for episodes of `what` that holds something else."""
    if (out / "dataset.json").exists():
        kept = us.Dataset.open(out).spec
        difference = kept.first_difference(spec)
        if difference is None and kept.env_id not in ("", spec.env_id):
            difference = f"{kept.env_id} against {spec.env_id}"
        if difference:
            raise SpecMismatch(f"the episodes in {out} are not of {what}: {difference}; name another folder with --out")
    elif out.exists() and not is_unfinished(out):
        raise ConfigError(f"{out} is not empty and no dataset; name a dataset to append to, or a new folder")


@contextmanager
def growing(out: Path, world: Any) -> Iterator[us.Dataset]:
    """The dataset at `out` to append to; a new one goes again where nothing ever came into it, from nobody."""
    existed = out.exists()
    if (out / "dataset.json").exists():
        with us.Dataset.open(out) as dataset:
            yield dataset
        return
    with us.Dataset.create(out, world) as dataset:
        try:
            yield dataset
        finally:
            dataset.writer().remove_unused(folder_too=not existed)
