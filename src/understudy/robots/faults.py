"""What can go wrong between a robot and its driver, as scripts that a fake or simulated robot plays.

`SCRIPTS` says what each does; docs/faults.md says what becomes of it, and a test holds that table against this one.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from understudy.errors import ConfigError
from understudy.robots.wire import Message

SCRIPTS: Mapping[str, str] = MappingProxyType(
    {
        "late-reply": "every measurement comes 5 to 60 ms late, for 1 s",
        "very-late-reply": "every measurement is 0.3 s old when it comes, for good",
        "stall": "no measurement for 0.3 to 0.8 s, then all is well",
        "stall-for-ever": "no measurement ever again, while commands still arrive",
        "skipped-replies": "every second measurement is lost, for 1 s",
        "slow-drip": "one measurement every 0.4 s, for good",
        "drop": "the connection closes once; a new one is accepted at once",
        "drop-again": "the connection closes every 0.2 s, four times",
        "reconnect": "the connection closes, and nobody answers for 0.6 s",
        "gone": "the connection closes, and nobody ever answers again",
        "killed": "the robot's process is killed",
        "hung": "the robot's process is stopped (SIGSTOP) and keeps its connections",
        "nan-observation": "one observed channel is NaN, once",
        "nan-position": "the position of one axis is NaN, for good",
        "infinite": "one number is infinite, once",
        "absurd": "one number is 1e30, once",
        "too-short": "measurements miss their last number",
        "too-long": "measurements have one number too many",
        "empty": "measurements have no numbers at all",
        "garbage": "100 random bytes come instead of one measurement",
        "cut": "one measurement is cut in the middle",
        "frozen": "the sensors repeat their last values, with fresh times",
        "frozen-axis": "the sensor of one axis repeats its last value",
        "half-the-bus": "the sensors of one half of the axes repeat their last values",
        "old-times": "the last measurement comes again and again, with its old time",
        "reordered": "every two measurements come in the wrong order, for 1 s",
        "repeated": "every measurement comes three times",
        "flood": "a thousand messages that nobody asked for come with each measurement, for 0.5 s",
        "clock-ahead": "the robot's clock jumps one hour ahead",
        "clock-behind": "the robot's clock jumps one hour back",
        "emergency-stop": "somebody presses the emergency stop at the robot",
        "deaf": "commands no longer arrive, measurements do",
    }
)

_LASTS_S = 1.0
_CLOCK_STEP_S = 3600.0


def require_script(name: str) -> None:
    """Refuses the name of a script that does not exist.

    Raises:
        ConfigError: there is no such script.
    """
    if name not in SCRIPTS:
        raise ConfigError(f"no fault is called {name!r}; there are {', '.join(SCRIPTS)}")


class FaultScripts:
    """Plays one of the scripts to the replies of a machine.

    Args:
        axes: of the robot.
    """

    def __init__(self, axes: int) -> None:
        self._axes = axes
        self._name, self._start_s = "", math.inf
        self._random = np.random.default_rng(0)
        self._count = 0
        self._kept: Message | None = None
        self._lasts_s = 0.0
        self._chosen = 0
        self._turns: set[int] = set()

    def begin(self, name: str, seed: int, after_s: float, now_s: float) -> None:
        """Starts a script `after_s` from now; `seed` draws what it leaves to chance.

        Raises:
            ConfigError: there is no such script.
        """
        require_script(name)
        self.__init__(self._axes)  # type: ignore[misc]  # as new
        self._name, self._start_s = name, now_s + after_s
        self._random = np.random.default_rng(seed)
        self._lasts_s = float(self._random.uniform(0.3, 0.8))

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until something happens by itself."""
        if not self._name:
            return None
        since_s = now_s - self._start_s
        if since_s < 0:
            return -since_s
        if self._name in ("drop", "drop-again", "reconnect"):
            return 0.02
        return None

    def is_reachable(self, now_s: float) -> bool:
        """Whether the robot listens; where it does not, its connections close too."""
        since_s = now_s - self._start_s
        if since_s < 0:
            return True
        match self._name:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hung":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "drop":
                return self._once(0) is False
            case "drop-again":
                turn = int(since_s / 0.2)
                return turn > 3 or self._once(turn) is False
            case "reconnect":
                return since_s > 0.6
            case "gone":
                return False
        return True

    def presses_emergency(self, now_s: float) -> bool:
        """Whether the emergency stop at the robot is pressed."""
        return self._name == "emergency-stop" and now_s >= self._start_s

    def obeys(self, now_s: float) -> bool:
        """Whether commands reach the robot."""
        return not (self._name == "deaf" and now_s >= self._start_s)

    def reply(self, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        """What is sent instead of a measurement, and when."""
        since_s = now_s - self._start_s
        message = Message.unpack(data)
        if since_s < 0 or not self._name:
            self._kept = message
            return [(now_s, data)]
        for play in (self._delayed, self._repeated, self._damaged, self._untrue):
            sent = play(message, data, since_s, now_s)
            if sent is not None:
                return sent
        return [(now_s, data)]

    def _delayed(self, message: Message, data: bytes, since_s: float, now_s: float) -> list[tuple[float, bytes]] | None:
        self._count += 1
        match self._name:
            case "late-reply" if since_s < _LASTS_S:
                return [(now_s + self._random.uniform(0.005, 0.06), data)]
            case "very-late-reply":
                return [(now_s, message._replace(time_s=message.time_s - 0.3).pack())]
            case "stall" if since_s < self._lasts_s:
                return []
            case "stall-for-ever":
                return []
            case "skipped-replies" if since_s < _LASTS_S:
                return [] if self._count % 2 else [(now_s, data)]
            case "slow-drip":
                return [(now_s + 0.4, data)]
        return None

    def _repeated(
        self, message: Message, data: bytes, since_s: float, now_s: float
    ) -> list[tuple[float, bytes]] | None:
        match self._name:
            case "old-times" if self._kept is not None:
                return [(now_s, self._kept._replace(id=message.id).pack())]
            case "reordered" if since_s < _LASTS_S and self._kept is not None:
                # The newest keeps back its numbers for the next request, which gets those of the one before.
                older, self._kept = self._kept, message
                chosen = older if self._count % 2 else message
                return [(now_s, chosen._replace(id=message.id).pack())]
            case "repeated":
                return [(now_s, data)] * 3
            case "flood" if since_s < 0.5:
                return [(now_s, message._replace(id=0).pack())] * 1000 + [(now_s, data)]
        return None

    def _damaged(self, message: Message, data: bytes, since_s: float, now_s: float) -> list[tuple[float, bytes]] | None:
        values = message.values
        match self._name:
            case "too-short":
                return [(now_s, message._replace(values=values[:-1]).pack())]
            case "too-long":
                return [(now_s, message._replace(values=np.append(values, 0.0)).pack())]
            case "empty":
                return [(now_s, message._replace(values=values[:0]).pack())]
            case "garbage" if self._once(0):
                return [(now_s, self._random.bytes(100))]
            case "cut" if self._once(0):
                return [(now_s, data[: len(data) // 2])]
        return None

    def _untrue(self, message: Message, data: bytes, since_s: float, now_s: float) -> list[tuple[float, bytes]] | None:
        values, axes = message.values.copy(), self._axes
        kept = values if self._kept is None else self._kept.values
        chosen = int(self._random.integers(axes)) if self._count == 1 else self._chosen
        self._chosen = chosen
        observed = 2 * axes + chosen % max(1, len(values) - 2 * axes)
        match self._name:
            case "nan-observation" if self._once(0):
                values[observed] = np.nan
            case "nan-position":
                values[chosen] = np.nan
            case "infinite" if self._once(0):
                values[chosen] = np.inf
            case "absurd" if self._once(0):
                values[observed] = 1e30
            case "frozen":
                values = kept
            case "frozen-axis":
                values[chosen] = kept[chosen]
            case "half-the-bus":
                values[: (axes + 1) // 2] = kept[: (axes + 1) // 2]
            case "clock-ahead":
                return [(now_s, message._replace(time_s=message.time_s + _CLOCK_STEP_S).pack())]
            case "clock-behind":
                return [(now_s, message._replace(time_s=message.time_s - _CLOCK_STEP_S).pack())]
            case _:
                return None
        return [(now_s, message._replace(values=values).pack())]

    def _once(self, turn: int) -> bool:
        """True the first time it is asked for this turn."""
        if turn in self._turns:
            return False
        self._turns.add(turn)
        return True
