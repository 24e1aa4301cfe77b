"""As lerobot.robots.so_follower, with three motors."""

from dataclasses import dataclass, field

from lerobot.bus import Bus, DeviceNotConnectedError
from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("so101_follower")
@RobotConfig.register_subclass("so100_follower")
@dataclass(kw_only=True)
class SOFollowerRobotConfig(RobotConfig):
    """As lerobot.robots.so_follower.SOFollowerRobotConfig; `most` stands for limits that some robots have inside."""

    port: str
    disable_torque_on_disconnect: bool = True
    max_relative_target: float | None = None
    cameras: dict = field(default_factory=dict)
    use_degrees: bool = True
    most: float = 1e9


@RobotConfig.register_subclass("wheels")
@dataclass(kw_only=True)
class WheelsConfig(SOFollowerRobotConfig):
    """A robot with an axis that takes a velocity, as lekiwi."""


class SOFollower(Robot):
    """As lerobot.robots.so_follower.SOFollower."""

    name = "so_follower"

    def __init__(self, config):
        super().__init__(config)
        self.config, self.bus = config, Bus(config.port, config.use_degrees)

    @property
    def observation_features(self):
        cameras = dict.fromkeys(self.config.cameras, (480, 640, 3))
        return {**{f"{motor}.pos": float for motor in self.bus.motors}, **cameras}

    @property
    def action_features(self):
        return {f"{motor}.pos": float for motor in self.bus.motors}

    @property
    def is_connected(self):
        return self.bus.is_connected

    def connect(self, calibrate=True):
        self.bus.connect()
        if not self.is_calibrated and calibrate:
            self.calibrate()
        self.configure()

    @property
    def is_calibrated(self):
        return self.bus.is_calibrated

    def calibrate(self):
        raise AssertionError("a calibration asks a person to move the arm; nobody is there")

    def configure(self): ...

    def get_observation(self):
        pictures = dict.fromkeys(self.config.cameras, "a picture")
        return {**{f"{motor}.pos": where for motor, where in self.bus.positions().items()}, **pictures}

    def send_action(self, action):
        goal = {key.removesuffix(".pos"): min(where, self.config.most) for key, where in action.items()}
        self.bus.send(goal)
        return {f"{motor}.pos": where for motor, where in goal.items()}

    def disconnect(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        self.bus.disconnect(self.config.disable_torque_on_disconnect)


class Wheels(SOFollower):
    """A base with wheels, which measures velocities and not where they lead."""

    @property
    def observation_features(self):
        return {**super().observation_features, "x.vel": float}

    @property
    def action_features(self):
        return {**super().action_features, "x.vel": float}
