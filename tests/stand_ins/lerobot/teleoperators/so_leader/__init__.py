"""As lerobot.teleoperators.so_leader, with three motors."""

from dataclasses import dataclass

from lerobot.bus import Bus
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig


@TeleoperatorConfig.register_subclass("so101_leader")
@dataclass(kw_only=True)
class SOLeaderTeleopConfig(TeleoperatorConfig):
    """As lerobot.teleoperators.so_leader.SOLeaderTeleopConfig."""

    port: str
    use_degrees: bool = True


class SOLeader(Teleoperator):
    """As lerobot.teleoperators.so_leader.SOLeader."""

    name = "so_leader"
    feedback_features: dict = {}  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.bus = Bus(config.port, config.use_degrees)

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

    @property
    def is_calibrated(self):
        return self.bus.is_calibrated

    def calibrate(self):
        raise AssertionError("a calibration asks a person to move the arm; nobody is there")

    def configure(self): ...

    def get_action(self):
        return {f"{motor}.pos": where for motor, where in self.bus.positions().items()}

    def send_feedback(self, feedback):
        raise NotImplementedError

    def disconnect(self):
        self.bus.disconnect()
