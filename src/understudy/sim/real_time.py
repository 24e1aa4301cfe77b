"""Pacing: a simulator that keeps wall-clock time, for those who watch it or hold its controls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from understudy.errors import ConfigError
from understudy.spec import spec_of


class RealTime(gym.Wrapper[Any, Any, Any, Any]):
    """Returns from step k of an episode k / control_hz after its reset, never before.

    The deadlines are absolute, so that small delays do not add up. A step that comes late is counted and the deadlines
    move with it: nobody wants to see the world rush afterwards.

    Args:
        env: the world.
        control_hz: steps a second; the world's own rate where not given.
        clock: seconds, monotonic.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: no rate is given and the world has none, or it is not positive.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        control_hz: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(env)
        rate = spec_of(env).control_hz if control_hz is None else control_hz
        if not rate > 0:
            raise ConfigError(f"control_hz is {rate:g}; pacing needs a rate above 0")
        self._period_s, self._clock, self._sleep = 1.0 / rate, clock, sleep
        self._deadline_s = 0.0
        self.late_steps = 0
        self.worst_lateness_s = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the world; time and the count of late steps start anew when it is there."""
        result = self.env.reset(seed=seed, options=options)
        self._deadline_s = self._clock()
        self.late_steps, self.worst_lateness_s = 0, 0.0
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, and a wait for its deadline."""
        result = self.env.step(action)
        self._deadline_s += self._period_s
        early_s = self._deadline_s - self._clock()
        if early_s > 0:
            self._sleep(early_s)
        else:
            self.late_steps += 1
            self.worst_lateness_s = max(self.worst_lateness_s, -early_s)
            self._deadline_s -= early_s
        return result
