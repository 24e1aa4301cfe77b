"""Processes for the guard and for robots to test with: started quickly, and free of their parent's state."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

_PRELOADED = ["understudy.robots.guard_process", "understudy.robots.fake"]
READY = b"ready"
_starting = threading.Lock()


def start(target: Callable[..., None], *arguments: Any, carried: Any, name: str) -> Any:
    """Starts a process that runs `target(carried, *arguments)`.

    It comes from a server that has imported what is needed and runs no thread. Multiprocessing would have every child
    run the parent's script again, with all that it imports. Here that is done only where what is carried was defined
    in that script, which then keeps its own work behind `if __name__ == "__main__":`.

    Args:
        target: a function of a module.
        arguments: more of its arguments; sockets may be among them.
        carried: its first argument; it travels by pickle.
        name: of the process.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_PRELOADED)
    process = server.Process(target=target, args=(carried, *arguments), name=name, daemon=True)
    if b"__main__" in pickle.dumps(carried):
        process.start()
        return process
    with _starting:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = script
    return process


def said_ready(life: socket.socket, within_s: float) -> bool:
    """Whether the process at the other end of a stream socket sends `READY` within so many seconds."""
    life.settimeout(within_s)
    try:
        return life.recv(len(READY)) == READY
    except TimeoutError:
        return False
    finally:
        life.settimeout(None)
