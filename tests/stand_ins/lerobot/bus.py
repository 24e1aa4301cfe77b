"""The pretended bus of motors."""

import json
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace

MOTORS = ("shoulder_pan", "elbow_flex", "gripper")


class DeviceNotConnectedError(ConnectionError):
    """As in lerobot.utils.errors."""


class DeviceAlreadyConnectedError(ConnectionError):
    """As in lerobot.utils.errors."""


class MotorNormMode(StrEnum):
    """As in lerobot.motors."""

    RANGE_0_100 = "range_0_100"
    DEGREES = "degrees"


class Bus:
    """Motors on a port."""

    def __init__(self, port, degrees):
        body = MotorNormMode.DEGREES if degrees else MotorNormMode.RANGE_0_100
        self.port, self.is_connected = Path(port), False
        self.motors = {name: SimpleNamespace(norm_mode=body) for name in MOTORS}
        self.motors["gripper"].norm_mode = MotorNormMode.RANGE_0_100

    @property
    def is_calibrated(self):
        return "uncalibrated" not in self.port.name

    def connect(self):
        if self.is_connected:
            raise DeviceAlreadyConnectedError("already connected")
        if not self.port.is_file():
            raise ConnectionError(f"\nCould not connect on port '{self.port}'.\nTry running `lerobot-find-port`\n")
        self.is_connected = True

    def disconnect(self, disable_torque=True):
        self.is_connected = False
        if not self.port.is_file():
            return
        with self.port.open("a") as file:
            file.write(json.dumps({"disconnected": True, "torque": not disable_torque}) + "\n")

    def positions(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        if not self.port.is_file():
            raise ConnectionError("Failed to sync read 'Present_Position': [TxRxResult] There is no status packet!")
        where = dict.fromkeys(MOTORS, 10.0)
        for line in self.port.read_text().splitlines():
            where |= json.loads(line).get("goal", {})
        return where

    def send(self, goal):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        with self.port.open("a") as file:
            file.write(json.dumps({"goal": goal}) + "\n")
