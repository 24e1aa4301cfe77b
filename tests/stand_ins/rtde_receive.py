"""Stand-in for ur-rtde: the names and signatures of `rtde_receive` that a driver uses. The controller is a file."""

import json
import time
from pathlib import Path


class RTDEReceiveInterface:
    """As rtde_receive.RTDEReceiveInterface; the arm is where the last command of the file `hostname` put it."""

    def __init__(
        self, hostname, frequency=-1.0, variables=(), verbose=False, use_upper_range_registers=False, rt_priority=0
    ):
        self._file = Path(hostname)
        if not self._file.is_file():
            raise RuntimeError(f"Error: Could not connect to: {hostname} at 30004, verify the IP")
        self._last = "", 0.0

    def getActualQ(self):  # noqa: N802
        lines = [json.loads(line) for line in self._text().splitlines() if line.startswith('{"servoJ"')]
        return lines[-1]["servoJ"] if lines else [0.0] * 6

    def getActualQd(self):  # noqa: N802
        return [0.0] * 6

    def getTimestamp(self):  # noqa: N802
        return 7.0 if "frozen" in self._text() else time.monotonic()

    def isConnected(self):  # noqa: N802
        return self._file.is_file()

    def isEmergencyStopped(self):  # noqa: N802
        return "emergency" in self._text()

    def isProtectiveStopped(self):  # noqa: N802
        return "protective" in self._text()

    def disconnect(self): ...

    def _text(self):
        return self._file.read_text() if self._file.is_file() else ""
