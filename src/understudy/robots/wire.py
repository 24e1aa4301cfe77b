"""Messages between the processes of a robot: one datagram each, a fixed head and plain numbers, checked by size.

The sockets keep message boundaries, so a process that is killed while it writes leaves no half of a message.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from understudy.errors import RobotError

# Local sockets that keep boundaries and tell when the other end is gone; where there are none, plain datagrams.
SOCKET_TYPE = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
LARGEST = 65_536
_HEAD = struct.Struct("<BBqdd")


class Message(NamedTuple):
    """One message.

    Args:
        kind: what it is; the two ends agree on the numbers.
        flags: small facts, a bit each.
        id: of the request that a reply answers.
        time_s: `time.monotonic()` that the message speaks of.
        extra: one more number that most messages need.
        values: whatever numbers follow, float64.
        text: whatever words follow.
    """

    kind: int
    flags: int = 0
    id: int = 0
    time_s: float = 0.0
    extra: float = 0.0
    values: NDArray[np.float64] = np.empty(0)
    text: str = ""

    def pack(self) -> bytes:
        """The bytes of the message."""
        head = _HEAD.pack(self.kind, self.flags, self.id, self.time_s, self.extra)
        count = struct.pack("<I", len(self.values))
        return head + count + np.asarray(self.values, np.float64).tobytes() + self.text.encode()

    @classmethod
    def unpack(cls, data: bytes) -> Message:
        """The message in these bytes.

        Raises:
            RobotError: they are no message.
        """
        start = _HEAD.size + 4
        if len(data) < start:
            raise RobotError(f"a message of {len(data)} bytes arrived; the shortest has {start}")
        (count,) = struct.unpack_from("<I", data, _HEAD.size)
        end = start + 8 * count
        if end > len(data):
            raise RobotError(f"a message of {len(data)} bytes arrived that announces {count} numbers")
        values = np.frombuffer(data, np.float64, count, start)
        kind, flags, id, time_s, extra = _HEAD.unpack_from(data)
        return cls(kind, flags, id, time_s, extra, values, data[end:].decode(errors="replace"))
