"""The guard's process: it answers whoever drives, and looks after the robot whatever becomes of them."""

from __future__ import annotations

import contextlib
import gc
import math
import selectors
import signal
import socket
import sys
import time

from understudy.robots.guard import Guard
from understudy.robots.guard_messages import ALIVE, Ask, pack_seen
from understudy.robots.processes import READY
from understudy.robots.protocol import Robot, RobotSpec
from understudy.robots.safety_config import SafetyConfig
from understudy.robots.stop_button import StopButton
from understudy.robots.wire import LARGEST, Message

_PULSE_S = 0.2
_LOOKS_S = 0.1  # at the latest, after a stop by another thread, which leaves it to this one to connect
STOPPED_NOBODY = 3  # exit code of a guard that could not tell its robot to stop


def serve_guard(
    robot: Robot,
    spec: RobotSpec,
    config: SafetyConfig,
    dry_run: bool,
    keyboard: str,
    wire: socket.socket,
    button: socket.socket,
    life: socket.socket,
) -> None:
    """The life of a guard's process: until it is told to close, or whoever drives is gone."""
    gc.freeze()
    gc.disable()  # a collection is a pause, and nothing here makes cycles
    guard = Guard(robot, config, spec=spec, dry_run=dry_run)
    guard.gate.warm_up()
    stopper = StopButton(guard, button, keyboard, _Pulse(guard, wire))
    try:
        life.send(READY)
        _serve(guard, wire, stopper)
    finally:
        told = guard.close()
        stopper.close()
    if not told:
        sys.exit(STOPPED_NOBODY)


class _Pulse:
    """Tells whoever waits for an answer that the guard lives, while the driver takes its time."""

    def __init__(self, guard: Guard, wire: socket.socket) -> None:
        self._guard, self._wire = guard, wire
        self._next_s = -math.inf

    def __call__(self) -> None:
        now_s = time.monotonic()
        if self._guard.waits and now_s >= self._next_s:
            self._next_s = now_s + _PULSE_S
            with contextlib.suppress(OSError):  # nobody waits
                self._wire.send(Message(0, id=ALIVE).pack(), socket.MSG_DONTWAIT)


def _serve(guard: Guard, wire: socket.socket, stopper: StopButton) -> None:
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(wire, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        due_s = math.inf
        while not stopper.ended:
            wait_s = min(_LOOKS_S, max(0.0, due_s - time.monotonic()))
            for key, _ in selector.select(wait_s):
                if key.fileobj is wake:
                    wake.recv(64)
                elif not _answer(guard, wire, stopper):
                    return
            due_s = guard.tick()


def _answer(guard: Guard, wire: socket.socket, stopper: StopButton) -> bool:
    """Answers one message; False where there are no more."""
    try:
        data = wire.recv(LARGEST)
    except OSError:
        data = b""
    if not data:
        return False
    message = Message.unpack(data)
    match message.kind:
        case Ask.BEGIN:
            seen = guard.begin(int(message.time_s))
        case Ask.OBSERVE:
            seen = guard.observe()
        case Ask.COMMAND:
            guard.command(message.values.tolist(), message.time_s, message.flags - 1, message.extra)
            return True
        case Ask.REST:
            seen = guard.rest()
        case Ask.RESET:
            seen = guard.reset()
        case _:
            return False
    seen.keys = stopper.take_keys()
    with contextlib.suppress(OSError):  # it died; the next recv says so
        wire.send(pack_seen(seen, message.id))
    return True
