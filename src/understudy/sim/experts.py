"""Experts that can be asked in simulation: scripts, published policies as plain arrays, and trained policies."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.agent import Expert
from understudy.errors import ConfigError, ExpertError
from understudy.execution import PolicyAgent
from understudy.sim.study_experts import STUDY_EXPERTS
from understudy.spec import Spec, layers, spec_of

if TYPE_CHECKING:
    from understudy.inference import Predictor

# Worlds that come with scripts; other worlds may offer an attribute `scripted_experts`, a dict from name to class.
_SCRIPTED = {
    "understudy/PickPlace-v0": {
        "scripted": "understudy.sim.pick_place_expert:PickPlaceExpert",
        "scripted-human": "understudy.sim.pick_place_expert:HumanLikeExpert",
    }
}
_FETCH_RAW_LIMIT, _FETCH_SCALED_LIMIT = 200.0, 5.0  # as those policies were trained

_Array = NDArray[np.float64]


class MLPExpert:
    """A published multilayer perceptron, read from arrays, as an expert. Two layouts are known, by their names.

    The policies of the DAPG authors for Adroit (Rajeswaran et al. 2018), on all D channels:

        x = (o - in_shift) / (in_scale + 1e-8)
        a = (w2 tanh(w1 tanh(w0 x + b0) + b1) + b2) * out_scale + out_shift

    Actors of DDPG with hindsight replay for the Fetch tasks, on the channels `observation[i]`, then
    `desired_goal[i]`, wherever these stand in the flattened observation:

        x = clip((clip(o, -200, 200) - mean) / std, -5, 5)
        a = tanh(action_out(relu(fc3(relu(fc2(relu(fc1(x))))))))

    Both actions are clipped to the limits of the world.

    Args:
        weights: an `.npz`, or the arrays by name.
        spec: of the world that it acts in.

    Raises:
        ConfigError: there is no such file.
        ExpertError: the file or an array cannot be used, or the policy is for a world of other channels.
    """

    engaged = True

    def __init__(self, weights: Path | str | Mapping[str, NDArray[Any]], spec: Spec) -> None:
        arrays = _Arrays("the weights", weights) if isinstance(weights, Mapping) else _load(Path(weights))
        self._network = _fetch(arrays, spec) if "actor.fc1.weight" in arrays.values else _adroit(arrays, spec)
        self._low, self._high = spec.action_low, spec.action_high

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,)."""
        action = self._network(np.asarray(observation)).astype(np.float32)
        clipped: NDArray[np.float32] = np.minimum(np.maximum(action, self._low), self._high)
        return clipped


class PolicyExpert:
    """A trained policy as an expert: anything with `predict`. It is asked anew each time, so no label is an old plan.

    Args:
        policy: the policy; one that looks at a single observation, because an expert sees only the moments at which
            it is asked.
        spec: of the world that it acts in.

    Raises:
        ConfigError: the policy looks at more than one observation.
        SpecMismatch: the policy was trained for other channels or another rate.
    """

    engaged = True

    def __init__(self, policy: Predictor, spec: Spec) -> None:
        if policy.history != 1:
            raise ConfigError(
                f"this policy looks at {policy.history} observations; an expert sees one at a time, so give a policy "
                "with history 1"
            )
        policy.spec.require(spec, what="the expert policy", against=spec.env_id or "this world")
        self._agent = PolicyAgent(policy, execute=1)  # so that one which acts by sampling answers as it acts

    def reset(self, seed: int) -> None:
        """Draws what a policy that acts by sampling draws, anew."""
        self._agent.reset(seed)

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,)."""
        return self._agent.act(observation).action


def expert_for(env: gym.Env[Any, Any], name: str) -> Expert:
    """The expert that a user names.

    Args:
        env: the world.
        name: `scripted`, or a variant like `scripted-human`, where the world comes with it; an `.npz` of MLP weights;
            the folder of a policy or run, or an `.onnx`. Before any of them, and before each other, may stand `noisy:`,
            `delayed:` and `biased:`, and first of all `human:`, each with a number where the usual one does not do:
            `human:noisy=0.2:scripted`.

    Raises:
        ConfigError: the name is none of these, the world has no such script, or the number is none.
        ExpertError: the weights cannot be used here.
        PolicyError: the folder holds no policy.
        SpecMismatch: the policy was trained for another world.
    """
    kind, equals, number = name.partition(":")[0].partition("=")
    if ":" in name and kind in STUDY_EXPERTS:
        build, usual = STUDY_EXPERTS[kind]
        value = _number(kind, number) if equals else usual
        return build(expert_for(env, name.partition(":")[2]), spec_of(env), value)
    if is_script(name):
        return _scripted(env, name)
    if name.endswith(".npz"):
        return MLPExpert(name, spec_of(env))
    if name and (Path(name).is_dir() or name.endswith(".onnx")):
        from understudy.loading import load_predictor

        return PolicyExpert(load_predictor(name), spec_of(env))
    raise ConfigError(
        f"no expert {name!r}; accepted: scripted, scripted-human, an .npz of MLP weights, the folder of a policy, or "
        f"an .onnx; before it, if you like, {', '.join(f'{kind}:' for kind in STUDY_EXPERTS)} with or without a "
        "number, as in noisy=0.2:scripted"
    )


def is_script(name: str) -> bool:
    """Whether a name is that of an expert that comes with a world, whatever lies in a folder of that name."""
    return name == "scripted" or name.startswith("scripted-")


def expert_fingerprint(name: str) -> str:
    """A checksum of the files of the expert that a user names, as `expert_for` takes it; empty for a script."""
    last = name.rpartition(":")[2]
    path = Path(last)
    if is_script(last):
        return ""
    if path.is_dir():
        from understudy.policy_file import policy_folder

        folder = policy_folder(path)
        files = [folder / "policy.json", folder / "weights.safetensors"]
    else:
        files = [path] if path.is_file() else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""


def _number(kind: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{kind}={text} needs a number, as in {kind}={STUDY_EXPERTS[kind][1]}:scripted") from None


def _scripted(env: gym.Env[Any, Any], name: str) -> Expert:
    world = spec_of(env).env_id
    knows = next((layer for layer in layers(env) if getattr(layer, "scripted_experts", None)), env.unwrapped)
    experts: Mapping[str, Any] = getattr(knows, "scripted_experts", None) or _SCRIPTED.get(world, {})
    if not experts:
        raise ConfigError(
            f"{world} has no scripted expert, as {', '.join(_SCRIPTED)} has; give an .npz of MLP weights or the folder "
            "of a policy"
        )
    if name not in experts:
        raise ConfigError(f"{world} has no expert {name!r}; it has {', '.join(experts)}")
    for what in ("observation_space", "action_space"):
        if getattr(env, what) != getattr(knows, what):
            raise ConfigError(
                f"a wrapper of {world} changes its {what}, which its script knows as it was; give the wrapper a script "
                "of its own (scripted_experts), or leave the wrapper out"
            )
    build = experts[name]
    if isinstance(build, str):
        module, _, attribute = build.partition(":")
        build = getattr(importlib.import_module(module), attribute)
    expert: Expert = build(env)
    return expert


@dataclass(frozen=True, slots=True)
class _Network:
    """An MLP with its scaling, of the channels `columns` (I,) of an observation (D,)."""

    columns: NDArray[np.intp]
    shift: _Array  # (I,)
    scale: _Array  # (I,)
    raw_limit: float
    scaled_limit: float
    layers: tuple[tuple[_Array, _Array], ...]  # (out, in), (out,)
    activation: Callable[[_Array], _Array]
    last: Callable[[_Array], _Array]
    out_scale: _Array  # (A,)
    out_shift: _Array  # (A,)

    def __call__(self, observation: NDArray[np.float32]) -> _Array:
        values = observation[self.columns].clip(-self.raw_limit, self.raw_limit)
        values = ((values - self.shift) / self.scale).clip(-self.scaled_limit, self.scaled_limit)
        for weight, bias in self.layers[:-1]:
            values = self.activation(weight @ values + bias)
        weight, bias = self.layers[-1]
        return self.last(weight @ values + bias) * self.out_scale + self.out_shift


class _Arrays:
    """Arrays by name, checked as they are taken."""

    def __init__(self, source: str, values: Mapping[str, NDArray[Any]]) -> None:
        self.source, self.values = source, values

    def take(self, name: str, *shape: int | None) -> _Array:
        """The array of that name and shape; None stands for any size."""
        if name not in self.values:
            raise ExpertError(
                f"{self.source} lacks {name!r}; known are the layouts of adroit_experts and fetch_experts"
            )
        array = np.asarray(self.values[name])
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ExpertError(f"{self.source}: {name!r} has shape {array.shape}; this world needs ({wanted})")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ExpertError(f"{self.source}: {name!r} holds something else than finite numbers")
        return array.astype(np.float64)

    def layers(self, names: list[tuple[str, str]], inputs: int, outputs: int) -> tuple[tuple[_Array, _Array], ...]:
        """Weights and biases that fit each other, from `inputs` to `outputs` numbers."""
        sizes = [inputs, *(len(self.take(weight, None, None)) for weight, _ in names[:-1]), outputs]
        return tuple(
            (self.take(weight, after, before), self.take(bias, after))
            for (weight, bias), (before, after) in zip(names, itertools.pairwise(sizes), strict=True)
        )


def _load(path: Path) -> _Arrays:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _Arrays(str(path), dict(arrays))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ExpertError(f"{path} is no .npz of plain numbers: {error}") from error


def _adroit(arrays: _Arrays, spec: Spec) -> _Network:
    inputs, outputs = len(spec.observations), len(spec.actions)
    return _Network(
        columns=np.arange(inputs),
        shift=arrays.take("in_shift", inputs),
        scale=arrays.take("in_scale", inputs) + 1e-8,
        raw_limit=np.inf,
        scaled_limit=np.inf,
        layers=arrays.layers([(f"w{layer}", f"b{layer}") for layer in range(3)], inputs, outputs),
        activation=np.tanh,
        last=np.positive,
        out_scale=arrays.take("out_scale", outputs),
        out_shift=arrays.take("out_shift", outputs),
    )


def _fetch(arrays: _Arrays, spec: Spec) -> _Network:
    places = {channel.name: index for index, channel in enumerate(spec.observations)}
    columns = [place for key in ("observation", "desired_goal") for place in _places(places, key)]
    observations, goals = len(_places(places, "observation")), len(_places(places, "desired_goal"))
    actions = len(spec.actions)
    names = [f"actor.{layer}" for layer in ("fc1", "fc2", "fc3", "action_out")]
    return _Network(
        columns=np.array(columns, np.intp),
        shift=np.concatenate([arrays.take("obs_mean", observations), arrays.take("goal_mean", goals)]),
        scale=np.concatenate([arrays.take("obs_std", observations), arrays.take("goal_std", goals)]),
        raw_limit=_FETCH_RAW_LIMIT,
        scaled_limit=_FETCH_SCALED_LIMIT,
        layers=arrays.layers([(f"{name}.weight", f"{name}.bias") for name in names], observations + goals, actions),
        activation=_relu,
        last=np.tanh,
        out_scale=np.ones(actions),
        out_shift=np.zeros(actions),
    )


def _relu(values: _Array) -> _Array:
    return np.maximum(values, 0)


def _places(places: Mapping[str, int], key: str) -> list[int]:
    """Where `key[0]`, `key[1]`, ... stand in an observation."""
    found = itertools.takewhile(lambda name: name in places, (f"{key}[{index}]" for index in itertools.count()))
    return [places[name] for name in found]
