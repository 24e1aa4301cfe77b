"""Processes for the guard and for robots to test with: started quickly, and free of their parent's state."""

from __future__ import annotations

import multiprocessing
from typing import Any

_PRELOADED = ["understudy.robots.guard", "understudy.robots.fake"]


def context() -> Any:
    """Where new processes come from: a server that has imported what they need and runs no thread.

    As always with multiprocessing, a script that starts one keeps its own work behind `if __name__ == "__main__":`.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_PRELOADED)
    return server
