"""Agents act, experts can be asked. Whatever drives a world, a policy or a person, is an Agent."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ExpertError


class Driver(IntEnum):
    """Who chose the action of a step."""

    POLICY = 0
    EXPERT = 1


class Command(NamedTuple):
    """What an agent asks the world to do for one control step.

    Args:
        action: (A,) in physical units.
        driver: who chose it.
        label: (A,) what the expert said, where the expert was asked; a label is a query, whoever drove.
    """

    action: NDArray[np.float32]
    driver: Driver = Driver.POLICY
    label: NDArray[np.float32] | None = None


class Agent(Protocol):
    """Observation to command, once for each control step."""

    def reset(self, seed: int) -> None:
        """Forgets the last episode; `seed` fixes whatever the agent draws in the next one."""

    def act(self, observation: NDArray[np.float32]) -> Command:
        """The command for an observation (D,)."""
        ...


class Expert(Protocol):
    """One who can be asked for the right action: a script, a trained policy, a person at a device."""

    @property
    def engaged(self) -> bool:
        """Whether the expert wants to drive now (a person holding the device; a script always does)."""
        ...

    def reset(self, seed: int) -> None:
        """Forgets the last episode; `seed` fixes whatever the expert draws in the next one."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The right action (A,) for an observation (D,)."""
        ...


class Demonstrator:
    """An agent that lets the expert drive every step. Each step asks the expert, so each step carries a label."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def reset(self, seed: int) -> None:
        self._expert.reset(seed)

    def act(self, observation: NDArray[np.float32]) -> Command:
        label = ask(self._expert, observation)
        return Command(label, Driver.EXPERT, label)


class Replay:
    """An agent that repeats recorded actions (T, A) and then holds the last one."""

    def __init__(self, actions: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> None:
        self._actions = np.asarray(actions, np.float32)
        self._step = 0

    def reset(self, seed: int) -> None:
        self._step = 0

    def act(self, observation: NDArray[np.float32]) -> Command:
        action = self._actions[min(self._step, len(self._actions) - 1)]
        self._step += 1
        return Command(action, Driver.EXPERT)


def ask(expert: Expert, observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """The expert's label for an observation (D,), checked.

    It is given a copy, and what it answers is copied: it may write into either later.

    Raises:
        ExpertError: the expert answered nothing, something else than numbers, or a number that is not finite.
    """
    answer = expert.label(observation.copy())
    name = type(expert).__name__
    if answer is None:
        raise ExpertError(f"{name} answered nothing; label(observation) must return an action")
    try:
        label = np.array(answer, np.float32).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ExpertError(f"{name} answered {str(answer)[:80]!r}; label(observation) must return numbers") from error
    if not np.isfinite(label).all():
        channel = int(np.flatnonzero(~np.isfinite(label))[0])
        raise ExpertError(f"{name} answered {label[channel]} for action channel {channel}; labels must be finite")
    return label
