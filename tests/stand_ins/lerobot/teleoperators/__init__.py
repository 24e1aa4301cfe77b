"""As lerobot.teleoperators."""

import abc
from dataclasses import dataclass

import draccus


@dataclass(kw_only=True)
class TeleoperatorConfig(draccus.ChoiceRegistry, abc.ABC):
    """As lerobot.teleoperators.TeleoperatorConfig."""

    id: str | None = None
    calibration_dir: str | None = None

    @property
    def type(self):
        return self.get_choice_name(type(self))


class Teleoperator(abc.ABC):
    """As lerobot.teleoperators.Teleoperator: what every teleoperator must have."""

    name: str

    def __init__(self, config):
        self.id = config.id

    def __str__(self):
        return f"{self.id} {type(self).__name__}"

    @property
    @abc.abstractmethod
    def action_features(self): ...

    @property
    @abc.abstractmethod
    def feedback_features(self): ...

    @property
    @abc.abstractmethod
    def is_connected(self): ...

    @abc.abstractmethod
    def connect(self, calibrate=True): ...

    @property
    @abc.abstractmethod
    def is_calibrated(self): ...

    @abc.abstractmethod
    def calibrate(self): ...

    @abc.abstractmethod
    def configure(self): ...

    @abc.abstractmethod
    def get_action(self): ...

    @abc.abstractmethod
    def send_feedback(self, feedback): ...

    @abc.abstractmethod
    def disconnect(self): ...


def make_teleoperator_from_config(config):
    """As lerobot.teleoperators.make_teleoperator_from_config."""
    from lerobot.teleoperators.gamepad import GamepadTeleop
    from lerobot.teleoperators.so_leader import SOLeader

    return GamepadTeleop(config) if config.type == "gamepad" else SOLeader(config)
