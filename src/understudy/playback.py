"""Looking at episodes and policies: replays and how far they drift, films, live windows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from understudy.agent import Agent, Replay
from understudy.episode import Episode
from understudy.errors import ConfigError, MissingDependency, PictureError
from understudy.observers import Video, can_render
from understudy.rollout import rollout
from understudy.sim.real_time import RealTime
from understudy.spec import spec_of
from understudy.worlds import World, make_env

_DRIFTED = 0.05


@dataclass(frozen=True, slots=True)
class Show:
    """One episode to be shown: who acts, and from which start.

    Args:
        agent: who acts.
        seed: of the start.
        options: for the reset.
        steps: after which it ends, if the world does not end it before.
        whole: to the end; a film may otherwise stop some time after the first success.
    """

    agent: Agent
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    whole: bool = True

    @classmethod
    def of(cls, episode: Episode) -> Show:
        """The replay of a recorded episode from its recorded start.

        Raises:
            ConfigError: nobody recorded how the episode started.
        """
        if episode.seed < 0 and not episode.initial_state:
            raise ConfigError(
                "this episode tells neither the seed nor the state of its start, so it cannot be replayed"
            )
        state = {"initial_state": dict(episode.initial_state)} if episode.initial_state else {}
        return cls(Replay(episode.actions), max(episode.seed, 0), state, len(episode))


@dataclass(frozen=True, slots=True)
class Drift:
    """How an open-loop replay differs from what was recorded.

    Args:
        steps: compared.
        success: of the replay: 1, 0, or -1 where the world has no rule.
        first_step: the first at which a channel is off by more than 5 % of its recorded range; None where none is.
        median_error: over steps, of the largest error of any channel, as a share of that channel's recorded range.
        final_error: the same at the last step.
        worst_channel: with the largest final error.
    """

    steps: int
    success: int
    first_step: int | None
    median_error: float
    final_error: float
    worst_channel: str

    def __str__(self) -> str:
        verdict = {1: "success", 0: "no success", -1: "unjudged"}[self.success]
        when = "never drifts" if self.first_step is None else f"drifts from step {self.first_step}"
        return (
            f"{verdict} in {self.steps} steps, {when}; error {self.median_error:.1%} of the range (median), "
            f"{self.final_error:.1%} at the end ({self.worst_channel})"
        )


def replay(env: gym.Env[Any, Any], episode: Episode) -> Drift:
    """Runs the recorded actions open-loop from the recorded start and compares what is observed.

    The world's own time limit is lifted, since a demonstration may be longer than the task allows a policy.

    Raises:
        ConfigError: nobody recorded how the episode started.
    """
    show = Show.of(episode)
    with endless(env):
        seen = rollout(env, show.agent, seed=show.seed, options=show.options, max_steps=show.steps)
    steps = min(len(seen), len(episode))
    # The last observation of a bare recording is unknown, so only what was seen before an action is compared.
    recorded, observed = episode.observations[:steps], seen.observations[:steps]
    span = np.maximum(np.ptp(recorded, axis=0), 1e-6)  # (D,)
    errors = np.abs(observed - recorded) / span  # (steps, D)
    moving = np.ptp(recorded, axis=0) > 1e-6
    if not moving.any():
        return Drift(steps, seen.success, None, 0.0, 0.0, "nothing moved")
    largest = errors[:, moving].max(1)
    drifted = np.flatnonzero(largest > _DRIFTED)
    worst = int(np.flatnonzero(moving)[np.argmax(errors[-1, moving])])
    return Drift(
        steps,
        seen.success,
        int(drifted[0]) if len(drifted) else None,
        float(np.median(largest)),
        float(largest[-1]),
        spec_of(env).observations[worst].name,
    )


def film(world: World, shows: Iterable[Show], path: Path | str) -> str | None:
    """Writes an MP4 of the shows, one after the other.

    Returns:
        None, or why there is no video: a world that cannot be rendered here is no reason to fail.
    """

    def play(env: gym.Env[Any, Any]) -> None:
        with Video(path) as video:
            for show in shows:
                rollout(env, show.agent, seed=show.seed, options=show.options, max_steps=show.steps, observers=[video])

    return _drawn(world, play)


def film_each(
    world: World, shows: Iterable[tuple[Show, Path]], *, pictures_hz: float, after_success_s: float
) -> str | None:
    """Writes an MP4 for each show, in a world that is built once. A film that is interrupted is not kept.

    Args:
        world: builds the world with `render_mode="rgb_array"`.
        shows: each with the path of its film.
        pictures_hz: about so many pictures a second.
        after_success_s: ends the film of a show that need not be whole so many seconds after the first success.

    Returns:
        None, or why there is no film.
    """

    def play(env: gym.Env[Any, Any]) -> None:
        control_hz = spec_of(env).control_hz or pictures_hz
        for show, path in shows:
            video = Video(path, every=max(1, round(control_hz / pictures_hz)))
            rollout(
                env,
                show.agent,
                seed=show.seed,
                options=show.options,
                max_steps=show.steps,
                after_success=None if show.whole else round(control_hz * after_success_s),
                observers=[video],
            )
            video.close()

    return _drawn(world, play)


def show_live(world: World, shows: Iterable[Show]) -> None:
    """Plays the shows in a window at the world's own speed. The world is built with `render_mode="human"`."""
    env = make_env(world)
    try:
        env = RealTime(env, spec_of(env).control_hz)
        for show in shows:
            rollout(env, show.agent, seed=show.seed, options=show.options, max_steps=show.steps)
    finally:
        env.close()


def _drawn(world: World, play: Callable[[gym.Env[Any, Any]], None]) -> str | None:
    """Plays something in a world that draws; None, or why it cannot."""
    try:
        env = make_env(world)
    except ConfigError as error:
        if "render_mode" not in str(error):
            return str(error)
        return "the world takes no render_mode, so it draws no pictures (docs/your_own_task.md says what it needs)"
    try:
        why_not = can_render(env)
        if why_not:
            return why_not
        play(env)
        return None
    except (MissingDependency, PictureError) as error:
        return str(error)
    finally:
        env.close()


@contextmanager
def endless(env: gym.Env[Any, Any]) -> Iterator[None]:
    """Lifts the world's limit of steps, which a demonstration may be longer than, wherever among its wrappers it is."""
    lifted = []
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.TimeLimit):
            lifted.append((layer, layer._max_episode_steps))
            layer._max_episode_steps = sys.maxsize
        layer = layer.env
    try:
        yield
    finally:
        for limit, steps in lifted:
            limit._max_episode_steps = steps
