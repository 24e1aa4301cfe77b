"""Recording demonstrations on a robot: an operator who judges, discards, takes back, and rests between episodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import gymnasium as gym

from understudy.agent import Demonstrator, Expert
from understudy.dataset.index import Row
from understudy.dataset.journal import Journal
from understudy.dataset.store import Dataset
from understudy.episode import UNKNOWN, Episode
from understudy.errors import RobotError, UnderstudyError, require_within
from understudy.robots.env import RobotEnv
from understudy.robots.guard_messages import Status
from understudy.robots.operator_keys import (
    BEGIN_KEY,
    DISCARD_KEY,
    POLL_S,
    QUIT_KEY,
    RESET_KEY,
    UNDO_KEY,
    VERDICTS,
    wait_for_key,
)
from understudy.rollout import Observer, Step, rollout
from understudy.spec import spec_of


class Outcome(StrEnum):
    """What became of an episode."""

    SAVED = "saved"
    STOPPED = "stopped"  # the robot was: kept as partial, never trained on unasked
    DISCARDED = "discarded"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Take:
    """One turn of a recording.

    Args:
        outcome: what became of the episode.
        row: of the dataset; None where the episode was discarded.
        episode: what happened; None where it was discarded, or was saved before and taken back.
        why: the robot was stopped, also on its way home, when there is no episode to keep; empty where it was not.
    """

    outcome: Outcome
    row: Row | None = None
    episode: Episode | None = None
    why: str = ""


def record_on(
    env: RobotEnv,
    expert: Expert,
    dataset: Dataset,
    *,
    episodes: int,
    seed: int = 0,
    max_steps: int | None = None,
    after_success: int | None = 10,
    rest_s: float | None = 0.0,
    observers: Iterable[Observer] = (),
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Take]:
    """Records demonstrations until there are `episodes` new ones, or the operator has enough.

    The operator's keys are those of the guard's terminal. While an episode runs, `s` and `f` end it as a success or a
    failure, `d` throws it away, space and escape stop the robot. At rest, Enter begins the next one, `u` takes the last
    one back, `r` takes back a stop, `q` ends. Every episode is journalled and saved as `record` does it: one that has
    been yielded as saved is on the disk, one during which something broke is kept as partial.

    Args:
        env: the robot.
        expert: who demonstrates: a teleoperator, a script, a policy.
        dataset: where the episodes go.
        episodes: to be saved, those that are taken back not counted.
        seed: of the first episode, from which a simulated robot draws its start; the next ones follow.
        max_steps: ends an episode that nobody has ended.
        after_success: as in `rollout`, where the robot itself tells when it has succeeded.
        rest_s: seconds of rest before each episode but the first; None rests until the operator presses Enter, also
            before the first and after the last one, and waits for a verdict on episodes that nobody has judged.
        observers: look at every step, after the journal.
        tell: takes lines for the operator.
        clock: seconds, monotonic.
        sleep: waits for so many seconds.

    Yields:
        What became of each episode, once that is durable.

    Raises:
        ConfigError: `episodes` or `rest_s` is out of range.
        SpecMismatch: the dataset is of another robot.
        RobotError: the robot cannot be reached, or is stopped and nobody is there to take that back.
        ExpertError: the expert gave no action.
        StorageError: the disk is full or failed.
    """
    require_within("episodes", episodes, 1)
    require_within("rest_s", rest_s, 0)
    dataset.require_same_task(spec_of(env), what="the robot")
    session = _Session(env, dataset, tell, clock, sleep, attended=rest_s is None)
    looking = tuple(observers)
    begun = False
    while True:
        if session.attended or begun:
            yield from session.rest(math.inf if rest_s is None else rest_s, episodes)
        if session.over or len(session.saved) >= episodes:
            return
        yield session.take(expert, seed, max_steps, after_success, looking)
        seed, begun = seed + 1, True
        if not session.attended and len(session.saved) >= episodes:
            return  # nobody is there to take the last one back


class _Session:
    """What is known while somebody records: the rows that were saved, and whether the operator has had enough."""

    def __init__(
        self,
        env: RobotEnv,
        dataset: Dataset,
        tell: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        *,
        attended: bool,
    ) -> None:
        self.attended, self.saved, self.over = attended, list[Row](), False
        self._env, self._dataset, self._tell = env, dataset, tell
        self._clock, self._sleep = clock, sleep

    def take(
        self,
        expert: Expert,
        seed: int,
        max_steps: int | None,
        after_success: int | None,
        observers: tuple[Observer, ...],
    ) -> Take:
        """Records one episode."""
        journal, begun = Journal(self._dataset, seed=seed), _Begun()
        try:
            episode = rollout(
                self._env,
                Demonstrator(expert),
                seed=seed,
                max_steps=max_steps,
                after_success=after_success,
                observers=(journal, begun, *observers, _DiscardKey(self._env)),
            )
            if episode.success == UNKNOWN and self.attended and not self._env.stopped:
                episode = replace(episode, success=self._verdict())
        except _Discarded:
            journal.discard()
            return Take(Outcome.DISCARDED)
        except (UnderstudyError, KeyboardInterrupt) as error:
            if begun.seen or not self._waits_for_reset(error):
                journal.keep()  # what happened until then is data, too
                raise
            journal.discard()
            self._tell(f"the robot was stopped before the episode began ({self._env.stopped})")
            return Take(Outcome.DISCARDED, why=self._env.stopped)
        why = self._env.stopped
        row = self._dataset.append(replace(episode, partial=bool(why)))
        if why:
            return Take(Outcome.STOPPED, row, episode, why)
        self.saved.append(row)
        return Take(Outcome.SAVED, row, episode)

    def _waits_for_reset(self, error: BaseException) -> bool:
        """Whether a robot that was stopped on its way home waits for the operator, who is there to see to it."""
        return self.attended and isinstance(error, RobotError) and bool(self._env.stopped) and self._env.link.is_alive

    def rest(self, seconds: float, episodes: int) -> Iterator[Take]:
        """Waits until the operator or the time says to go on; yields what is taken back meanwhile."""
        left = episodes - len(self.saved)
        if self.attended:
            goes_on = _begins_next(left) if left > 0 else "that was the last one: Enter ends"
            self._tell(f"at rest; {goes_on}, u takes the last one back, r takes back a stop, q ends")
        until_s = self._clock() + seconds
        while not self.over and self._clock() < until_s:
            seen = self._env.link.observe()
            if not self._env.link.is_alive:
                raise RobotError(f"nobody reads the keys any more: {seen.reason}; begin the recording again")
            stopped = seen.reason if seen.status is Status.STOPPED and left > 0 else ""
            told_left = left
            for key in seen.keys:
                if key == BEGIN_KEY and told_left <= 0 < left:
                    continue  # it was pressed to end, before anybody was told that it would begin another one
                if key == BEGIN_KEY and stopped:
                    self._tell(f"the robot is stopped ({stopped}); see to the cause, then r takes it back")
                elif key == BEGIN_KEY:
                    return
                if key == QUIT_KEY:
                    self.over = True
                    return
                if key == UNDO_KEY:
                    yield from self._undo()
                    if left <= 0 < episodes - len(self.saved):
                        self._tell(_begins_next(episodes - len(self.saved)))
                    left = episodes - len(self.saved)
                if key == RESET_KEY:
                    self._env.reset_stop()
                    stopped = self._env.stopped if left > 0 else ""
                    self._tell(
                        f"the robot is still stopped ({self._env.stopped})"
                        if self._env.stopped
                        else "nothing holds the robot any more; look around before you press Enter"
                    )
            self._sleep(POLL_S)

    def _undo(self) -> Iterator[Take]:
        if not self.saved:
            self._tell("nothing was saved since this recording began")
            return
        row = self.saved.pop()
        self._dataset.drop(row.id)  # not undo(): an episode in which the robot was stopped may have come after it
        self._tell(f"took back episode {row.id}")
        yield Take(Outcome.UNDONE, row)

    def _verdict(self) -> int:
        """What the operator says of an episode that ended by itself.

        Raises:
            _Discarded: that it is to be thrown away.
        """
        self._tell("did it succeed? s yes, f no, d throws it away, Enter leaves it open")
        key = wait_for_key(self._env.link, "".join((DISCARD_KEY, *VERDICTS)), self._sleep)
        if key == DISCARD_KEY:
            raise _Discarded
        return VERDICTS.get(key, UNKNOWN)


def _begins_next(left: int) -> str:
    return f"Enter begins the next of {left}"


class _Discarded(Exception):
    """The operator threw the episode away."""


class _Begun(Observer):
    """Knows whether the episode has begun, after the way home."""

    seen = False

    def on_start(self, env: gym.Env[Any, Any], observation: Any) -> None:
        self.seen = True


class _DiscardKey(Observer):
    """Ends an episode when the operator presses the key for it."""

    def __init__(self, env: RobotEnv) -> None:
        self._env = env

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        if DISCARD_KEY in self._env.keys:
            raise _Discarded
