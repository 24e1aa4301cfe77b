"""Stand-in for ur-rtde: the names and signatures of `rtde_control` that a driver uses. The controller is a file."""

import json
from pathlib import Path


class RTDEControlInterface:
    """As rtde_control.RTDEControlInterface; `hostname` is a file to which commands are appended."""

    def __init__(self, hostname, frequency=-1.0, flags=1, ur_cap_port=50002, rt_priority=0):
        self._file = Path(hostname)
        if not self._file.is_file():
            raise RuntimeError(f"Error: Could not connect to: {hostname} at 30004, verify the IP")

    def servoJ(self, q, speed, acceleration, time, lookahead_time, gain):  # noqa: N802
        assert len(q) == 6
        assert 0.03 <= lookahead_time <= 0.2
        assert 100 <= gain <= 2000
        return self._write({"servoJ": q, "time": time})

    def servoStop(self, a=10.0):  # noqa: N802
        return self._write({"servoStop": a})

    def disconnect(self):
        self._write({"disconnect": True})

    def _write(self, line):
        if "local control" in self._file.read_text():
            return False
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return True
