"""The loop: `rollout` is the only place where a world is stepped."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.agent import Agent, Command, Driver
from understudy.episode import FAILURE, SUCCESS, UNKNOWN, Episode
from understudy.errors import ActionError, ConfigError, ExpertError, UnderstudyError, WorldError, require_whole
from understudy.spec import flatten, spec_of

OPERATOR_SAYS = "operator_says"  # in the last `info`: the verdict of a person, which outweighs what the world tells
PAUSED = "paused"  # in `info`: nobody drove for a while, and what was planned before it is of another moment
_LARGEST_REWARD = float(np.finfo(np.float32).max)


class Step(NamedTuple):
    """What one turn of the loop saw and did.

    Args:
        index: 0 for the first step of the episode.
        observation: (D,) before the action.
        command: what the agent asked for.
        executed: (A,) what the world really did after limits.
        reward: reward of the step.
        succeeded: whether the world reported success at this step.
        time_s: measured seconds from the first observation to this one.
        next_observation: (D,) after the action.
        info: the world's own remarks.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody needs here
    observation: NDArray[np.float32]
    command: Command
    executed: NDArray[np.float32]
    reward: float
    succeeded: bool
    time_s: float
    next_observation: NDArray[np.float32]
    info: Mapping[str, Any]


class Observer:
    """Looks at a rollout and does not touch it: a journal, a video, a progress bar."""

    def on_start(self, env: gym.Env[Any, Any], observation: NDArray[np.float32]) -> None:
        """Called after the reset, with the first observation (D,)."""

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        """Called after each step of the world."""

    def on_end(self, env: gym.Env[Any, Any], episode: Episode) -> None:
        """Called once with the finished episode; not called when the rollout was interrupted."""


def rollout(
    env: gym.Env[Any, Any],
    agent: Agent,
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    max_steps: int | None = None,
    after_success: int | None = None,
    observers: Iterable[Observer] = (),
) -> Episode:
    """One episode: resets the world with `seed` and lets the agent act until the world ends it.

    The action that is executed is the one asked for, clipped to the action space, unless the world says otherwise in
    `info["executed_action"]` (a robot behind a safety gate does). Success is `info["success"]` at any step, or, where
    a world speaks of `info["is_success"]` (goal environments), that of the last step; unknown where it says neither.
    The arrays that observers see are read-only. A world with `rest()` is told to rest when the rollout ends, however it
    ends, and one with `driven_by(driver)` who drives, before each step: a robot has both. An agent with `replan()` is
    told so after a step whose `info` says `paused`.

    Args:
        env: any Gymnasium environment with boxes of numbers (dicts of boxes are flattened).
        agent: who acts.
        seed: seed of the world's start and of whatever the agent draws.
        options: passed to `env.reset`; an `initial_state` among them is kept in the episode.
        max_steps: ends the episode as truncated after so many steps, where the world has not ended it before.
        after_success: ends it as truncated so many steps after the world first reported success: a demonstration
            that is over needs no waiting, and a clone of it would learn to wait.
        observers: look at every step.

    Returns:
        The episode, in memory.

    Raises:
        ActionError: the agent asked for NaN, infinity or the wrong number of channels.
        ExpertError: the expert's label is not finite or has the wrong number of channels.
        WorldError: the world raised, or returned an observation, a reward or an executed action that is not finite.
        ConfigError: the action space is no box of one row, or `max_steps` is below 1.
    """
    with _resting(env):
        return _run(env, agent, seed, options, max_steps, after_success, tuple(observers))


def _run(
    env: gym.Env[Any, Any],
    agent: Agent,
    seed: int,
    options: dict[str, Any] | None,
    max_steps: int | None,
    after_success: int | None,
    observers: tuple[Observer, ...],
) -> Episode:
    low, high = _action_limits(env)
    if not hasattr(agent, "act"):
        raise ConfigError(
            f"{type(agent).__name__} is no agent; a policy acts as us.PolicyAgent(policy), an expert as "
            "us.Demonstrator(expert)"
        )
    driven_by, replan = _method(env, "driven_by"), getattr(agent, "replan", None)
    require_whole("max_steps", max_steps, 1)
    require_whole("after_success", after_success, 0)
    space = env.observation_space
    size = gym.spaces.flatdim(space)
    try:
        raw, _ = env.reset(seed=int(seed), options=options)
        start_s, time_s = time.monotonic(), 0.0
    except UnderstudyError:
        raise
    except Exception as error:
        raise _raised(error, "reset") from error
    observation = _observed(env, space, size, raw, 0)
    agent.reset(seed)
    for observer in observers:
        observer.on_start(env, observation)
    steps: list[Step] = []
    terminated = truncated = False
    limit = math.inf if max_steps is None else max_steps
    while not (terminated or truncated):
        # Agent and world get copies: either may write into what it is given, and the record must not change.
        command = _kept(env, agent.act(observation.copy()), low.shape)
        clipped = np.minimum(np.maximum(command.action, low), high)
        if driven_by is not None:
            driven_by(command.driver)
        index = len(steps)
        try:
            raw, reward, terminated, truncated, info = env.step(clipped.copy())
        except UnderstudyError:
            raise
        except Exception as error:
            raise _raised(error, f"step {index + 1}") from error
        next_time_s = time.monotonic() - start_s  # before anybody looks at the step, which takes time too
        next_observation = _observed(env, space, size, raw, index + 1)
        if not isinstance(info, Mapping):
            raise WorldError(f"the world gave {type(info).__name__} for info at step {index + 1}; info is a dict")
        executed = _executed(env, info, clipped)
        if not _is_finite_number(reward):
            raise WorldError(f"the world gave a reward of {reward} at step {index + 1}; a reward is one finite number")
        succeeded = _succeeded(info, index + 1)
        step = Step(index, observation, command, executed, float(reward), succeeded, time_s, next_observation, info)
        steps.append(step)
        observation, time_s = next_observation, next_time_s
        if info.get(PAUSED) and replan is not None:
            replan()
        if succeeded and after_success is not None:
            limit, after_success = min(limit, len(steps) + after_success), None  # only the first success counts
        truncated = bool(truncated) or len(steps) >= limit
        for observer in observers:
            observer.on_step(env, step)
    episode = _episode(steps, bool(terminated), truncated and not terminated, seed, options)
    for observer in observers:
        observer.on_end(env, episode)
    return episode


@contextmanager
def _resting(env: gym.Env[Any, Any]) -> Iterator[None]:
    """A world that moves by itself, as a robot does, is brought to rest when nobody drives it any more."""
    try:
        yield
    finally:
        rest = _method(env, "rest")
        if rest is not None:
            rest()


def _method(env: gym.Env[Any, Any], name: str) -> Callable[..., Any] | None:
    """What a robot's world has beyond Gymnasium; an attribute of that name which cannot be called is something else."""
    method = getattr(env.unwrapped, name, None)
    return method if callable(method) else None


def _raised(error: Exception, when: str) -> WorldError:
    """What a world raised, with when and where in its code."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return WorldError(
        f"the world raised {type(error).__name__}: {error} at {when} ({place.filename}, line {place.lineno})"
    )


def _action_limits(env: gym.Env[Any, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    space = env.action_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"actions must be a Box of one row (A,); this world has {space}")
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigError(
            f"actions must be real numbers; this world has {space}; wrap it so that it rounds them itself"
        )
    with np.errstate(over="ignore"):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    # float32(0.1) is above 0.1, which a world that checks its limits would refuse.
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    return low, high


def _kept(env: gym.Env[Any, Any], command: Command, shape: tuple[int, ...]) -> Command:
    """The command as the record keeps it: checked, in arrays that nobody else holds and nobody can change."""
    action = np.array(command.action, np.float32)
    if action.shape != shape:
        raise ActionError(f"{_who(command)} asked for an action of shape {action.shape}; this world takes {shape}")
    if not _all_finite(action):
        raise ActionError(f"{_who(command)} asked for {_first_bad(env, action, 'action')}; the world was not stepped")
    action.setflags(write=False)
    label = command.label
    if label is not None:
        label = np.array(label, np.float32)
        if label.shape != shape:
            raise ExpertError(f"the expert's label has shape {label.shape}; this world takes {shape}")
        if not _all_finite(label):
            raise ExpertError(f"the expert's label is {_first_bad(env, label, 'action')}; labels must be finite")
        label.setflags(write=False)
    return Command(action, command.driver, label)


def _who(command: Command) -> str:
    return f"the {Driver(command.driver).name.lower()}"


def _executed(env: gym.Env[Any, Any], info: Mapping[str, Any], clipped: NDArray[np.float32]) -> NDArray[np.float32]:
    executed = clipped
    if "executed_action" in info:
        executed = np.array(info["executed_action"], np.float32)
        if executed.shape != clipped.shape:
            raise WorldError(f"the world executed an action of shape {executed.shape}; it takes {clipped.shape}")
        if not _all_finite(executed):
            raise WorldError(f"the world executed {_first_bad(env, executed, 'action')}")
    executed.setflags(write=False)
    return executed


def _observed(env: gym.Env[Any, Any], space: gym.Space[Any], size: int, raw: Any, index: int) -> NDArray[np.float32]:
    try:
        observation = flatten(space, raw)
    except (TypeError, ValueError, KeyError) as error:
        raise WorldError(f"the world gave an observation that is none at step {index}: {error}") from error
    if len(observation) != size:
        raise WorldError(f"the world gave {len(observation)} numbers at step {index}; its observation space has {size}")
    if not _all_finite(observation):
        raise WorldError(f"the world gave {_first_bad(env, observation, 'observation')} at step {index}")
    observation.setflags(write=False)
    return observation


def _succeeded(info: Mapping[str, Any], step: int) -> bool:
    told = info.get("success", info.get("is_success", False))
    try:
        return bool(told)
    except ValueError as error:
        raise WorldError(f"the world gave {told!r} for success at step {step}; success is true or false") from error


def _is_finite_number(reward: Any) -> bool:
    try:
        return math.isfinite(reward) and abs(float(reward)) <= _LARGEST_REWARD  # the record has 32 bits
    except (TypeError, ValueError, OverflowError):
        return False


def _all_finite(values: NDArray[np.float32]) -> bool:
    # The sum of squares is finite exactly where all values are: in float64 it cannot overflow. It takes a third of
    # the time of np.isfinite(values).all().
    wide = values.astype(np.float64)
    return math.isfinite(wide.dot(wide))


def _first_bad(env: gym.Env[Any, Any], values: NDArray[np.float32], kind: str) -> str:
    channel = int(np.flatnonzero(~np.isfinite(values))[0])
    spec = spec_of(env)
    name = (spec.actions if kind == "action" else spec.observations)[channel].name
    return f"{values[channel]} in {kind} channel {channel} ({name})"


def _episode(
    steps: list[Step], terminated: bool, truncated: bool, seed: int, options: dict[str, Any] | None
) -> Episode:
    succeeded = np.array([step.succeeded for step in steps])
    verdict = UNKNOWN
    if OPERATOR_SAYS in steps[-1].info:
        verdict = SUCCESS if steps[-1].info[OPERATOR_SAYS] else FAILURE
    elif any("success" in step.info for step in steps):
        verdict = SUCCESS if succeeded.any() else FAILURE
    elif any("is_success" in step.info for step in steps):
        verdict = SUCCESS if succeeded[-1] else FAILURE
    labelled = np.array([step.command.label is not None for step in steps])
    labels = None
    if labelled.any():
        nothing = np.zeros_like(steps[0].executed)
        labels = np.array([nothing if step.command.label is None else step.command.label for step in steps])
    return Episode(
        observations=np.array([step.observation for step in steps] + [steps[-1].next_observation]),
        actions=np.array([step.executed for step in steps]),
        asked_actions=np.array([step.command.action for step in steps]),
        labels=labels,  # type: ignore[arg-type]
        labelled=labelled,
        driver=np.array([step.command.driver for step in steps], np.int8),
        rewards=np.array([step.reward for step in steps], np.float32),
        succeeded=succeeded,
        time_s=np.array([step.time_s for step in steps]),
        terminated=terminated,
        truncated=truncated,
        success=verdict,
        seed=seed,
        initial_state=(options or {}).get("initial_state", {}),
    )
