"""Where episodes of training begin: seeds below those of every evaluation, and states of the demonstrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.dataset import Dataset
from understudy.errors import ConfigError, require_within
from understudy.evaluate import EVALUATION_SEED
from understudy.playback import Show, endless
from understudy.rollout import Observer, Step, rollout
from understudy.worlds import World, make_env

ORDERS = ("uniform", "backward")
_WINDOW = 0.2


def start_seed(seed: int, index: int) -> int:
    """The seed of training episode number `index`: each below those of evaluations once, then each once again."""
    round_, place = divmod(index, EVALUATION_SEED)
    return int(_order(seed, round_)[place])


@lru_cache(maxsize=8)
def _order(seed: int, round_: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([*b"starts", seed, round_])).permutation(EVALUATION_SEED)


@dataclass(slots=True)
class DemoStarts:
    """Lets a share of the episodes begin from states along the demonstrations, until a share of the steps is spent.

    With the order `uniform` the share of such episodes fades to nothing until then; with `backward` it stays, and the
    states move from the ends of the demonstrations to their starts.

    The states are those of replays: each demonstration's actions from its own start, with the states that the world
    gives with `state()` and takes with `reset(options={"initial_state": ...})`. The steps of the replays count.

    Args:
        demos: with the start of each, as its seed or its `initial_state`; failed ones are left out.
        share: of the episodes that begin so at first, in [0, 1].
        until: share of all steps after which every episode begins where the world says, in (0, 1].
        order: `uniform` along the demonstration; or `backward`, from its end to its start as the steps are spent.
        every: steps of a replay between two states that are kept.

    Raises:
        ConfigError: a value is out of range.
    """

    demos: Dataset
    share: float = 0.5
    until: float = 0.8
    order: str = "backward"
    every: int = 5
    _states: list[list[dict[str, Any]]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        require_within("share", self.share, 0, 1)
        require_within("until", self.until, 1e-6, 1)
        require_within("every", self.every, 1)
        if self.order not in ORDERS:
            raise ConfigError(f"order is {self.order!r}; accepted: {', '.join(ORDERS)}")

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        return {
            "share": self.share,
            "until": self.until,
            "order": self.order,
            "every": self.every,
            "data_fingerprint": self.demos.fingerprint,
        }

    def prepare(self, world: World) -> int:
        """Replays the demonstrations in a world of its own and keeps their states.

        Returns:
            Steps of the world that it took.

        Raises:
            ConfigError: the world cannot give its state, a demonstration does not tell its start, or all failed.
        """
        env = make_env(world)
        try:
            spent = 0
            self._states = []
            for show in self.shows(env):
                keeper = _Keeper(self.every)
                with endless(env):
                    replayed = rollout(
                        env,
                        show.agent,
                        seed=show.seed,
                        options=show.options,
                        max_steps=show.steps,
                        observers=(keeper,),
                    )
                spent += len(replayed)
                self._states.append(keeper.states)
        finally:
            env.close()
        return spent

    def shows(self, env: gym.Env[Any, Any]) -> list[Show]:
        """The replays of the demonstrations that succeeded.

        Raises:
            ConfigError: the world cannot give its state, a demonstration does not tell its start, or all failed.
        """
        bare = env.unwrapped
        if not callable(getattr(bare, "state", None)):
            raise ConfigError(
                f"{type(bare).__name__} has no method state(), so no episode can begin inside a demonstration; "
                "leave the starts out"
            )
        shows = [Show.of(episode) for episode in self.demos.without_failures()]
        if not shows:
            raise ConfigError("all demonstrations failed, so no episode can begin inside one; leave the starts out")
        return shows

    def options_for(self, entropy: tuple[int, ...], progress: float) -> dict[str, Any] | None:
        """The options of an episode's reset; None where it begins as the world says.

        Args:
            entropy: numbers that draw whether and where; the same ones draw the same.
            progress: share of all steps that were spent.
        """
        random = np.random.Generator(np.random.PCG64([*b"demonstrations", *entropy]))
        left = max(0.0, 1 - progress / self.until)
        if random.random() >= (self.share if left > 0 else 0.0) * (1.0 if self.order == "backward" else left):
            return None
        states = self._states[random.integers(len(self._states))]
        low = max(0.0, left - _WINDOW) if self.order == "backward" else 0.0
        high = left if self.order == "backward" else 1.0
        place = min(int(random.uniform(low, high) * len(states)), len(states) - 1)
        return {"initial_state": states[place]}


class _Keeper(Observer):
    """Keeps the state of the world before every so many steps, up to the first success."""

    def __init__(self, every: int) -> None:
        self._every, self._over = every, False
        self.states: list[dict[str, Any]] = []

    def on_start(self, env: gym.Env[Any, Any], observation: NDArray[np.float32]) -> None:
        self._keep(env)

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        self._over = self._over or step.succeeded
        if not self._over and (step.index + 1) % self._every == 0:
            self._keep(env)

    def _keep(self, env: gym.Env[Any, Any]) -> None:
        self.states.append({key: np.array(value) for key, value in env.unwrapped.state().items()})  # type: ignore[attr-defined]
