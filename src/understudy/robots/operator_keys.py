"""The keys of whoever stands beside a robot: the guard reads them, and tells them to whoever asks it to measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from understudy.episode import FAILURE, SUCCESS, UNKNOWN
from understudy.robots.guard_link import Link

SUCCESS_KEY, FAILURE_KEY = "s", "f"
DISCARD_KEY, UNDO_KEY, BEGIN_KEY, RESET_KEY, QUIT_KEY = "d", "u", "\n", "r", "q"
VERDICTS: Mapping[str, int] = MappingProxyType({SUCCESS_KEY: SUCCESS, FAILURE_KEY: FAILURE, BEGIN_KEY: UNKNOWN})
POLL_S = 0.02


def wait_for_key(link: Link, keys: str, sleep: Callable[[float], None] = time.sleep) -> str:
    """The first of these keys that is pressed; none ("") where the guard is gone, and with it the terminal."""
    while link.is_alive:
        for key in link.observe().keys:
            if key in keys:
                return key
        sleep(POLL_S)
    return ""
