"""As lerobot.teleoperators.gamepad: a device that gives other channels than an arm takes."""

from dataclasses import dataclass

from lerobot.teleoperators import TeleoperatorConfig
from lerobot.teleoperators.so_leader import SOLeader


@TeleoperatorConfig.register_subclass("gamepad")
@dataclass(kw_only=True)
class GamepadTeleopConfig(TeleoperatorConfig):
    """As lerobot.teleoperators.gamepad.GamepadTeleopConfig."""

    port: str = "gamepad"
    use_degrees: bool = True


class GamepadTeleop(SOLeader):
    """As lerobot.teleoperators.gamepad.GamepadTeleop."""

    @property
    def action_features(self):
        return {"dtype": "float32", "shape": (3,), "names": {"delta_x": 0, "delta_y": 1, "delta_z": 2}}
