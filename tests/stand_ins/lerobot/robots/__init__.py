"""As lerobot.robots."""

import abc
from dataclasses import dataclass

import draccus


@dataclass(kw_only=True)
class RobotConfig(draccus.ChoiceRegistry, abc.ABC):
    """As lerobot.robots.RobotConfig."""

    id: str | None = None
    calibration_dir: str | None = None

    @property
    def type(self):
        return self.get_choice_name(type(self))


class Robot(abc.ABC):
    """As lerobot.robots.Robot: what every robot must have."""

    name: str

    def __init__(self, config):
        self.robot_type, self.id = self.name, config.id

    def __str__(self):
        return f"{self.id} {type(self).__name__}"

    @property
    @abc.abstractmethod
    def observation_features(self): ...

    @property
    @abc.abstractmethod
    def action_features(self): ...

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
    def get_observation(self): ...

    @abc.abstractmethod
    def send_action(self, action): ...

    @abc.abstractmethod
    def disconnect(self): ...


def make_robot_from_config(config):
    """As lerobot.robots.make_robot_from_config."""
    from lerobot.robots.so_follower import SOFollower, Wheels

    return Wheels(config) if config.type == "wheels" else SOFollower(config)
