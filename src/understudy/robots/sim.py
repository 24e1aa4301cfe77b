"""A simulated robot: the arm of understudy/PickPlace-v0 behind the Robot protocol, in its own process, in real time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import require_within
from understudy.robots.faults import FaultScripts
from understudy.robots.machine import Body, Faults, Machine, MachineRobot, State
from understudy.robots.monitor import Bounds, Monitor
from understudy.robots.protocol import Axis, Mode, RobotSpec
from understudy.sim.pick_place import FINGER_TRAVEL, GRIPPER, JOINTS, MAXIMUM_JOINT_SPEED, PickPlaceEnv, load_model

ACCELERATION = 30.0  # rad/s^2 of each joint: from rest to full speed within one control period
_FINGER_VELOCITY, _FINGER_ACCELERATION = 40.0, 1e5  # of the gripper's command: it has a controller of its own
_LONGEST_GAP_S = 2.0  # that is caught up with; after a longer one, the world has stood still
_AXES = JOINTS + 1


@dataclass(frozen=True, slots=True)
class SimConfig:
    """How the simulated robot differs from a perfect one.

    Args:
        latency_s: age of every measurement when it is given.
        command_latency_s: time from a command to its effect.
        noise: standard deviation of every observed number, in rad and m.
        noise_seed: of that noise.

    Raises:
        ConfigError: a value is out of range.
    """

    latency_s: float = 0.0
    command_latency_s: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        require_within("latency_s", self.latency_s, 0.0, 1.0)
        require_within("command_latency_s", self.command_latency_s, 0.0, 1.0)
        require_within("noise", self.noise, 0.0, 1.0)
        require_within("noise_seed", self.noise_seed, 0)


def sim_spec() -> RobotSpec:
    """The channels and the rate of understudy/PickPlace-v0, with the limits of its arm."""
    joints = load_model().jnt_range[:JOINTS]
    axes = [
        Axis(channel.name, channel.unit, Mode.VELOCITY, float(low), float(high), MAXIMUM_JOINT_SPEED, ACCELERATION)
        for channel, (low, high) in zip(PickPlaceEnv.action_channels, joints, strict=False)
    ]
    hand = PickPlaceEnv.action_channels[GRIPPER]
    gripper = Axis(hand.name, hand.unit, Mode.POSITION, -1.0, 1.0, _FINGER_VELOCITY, _FINGER_ACCELERATION, grips=True)
    return RobotSpec("sim", PickPlaceEnv.control_hz, PickPlaceEnv.observation_channels, (*axes, gripper))


class SimRobot(MachineRobot):
    """The driver of the simulated arm. A policy of understudy/PickPlace-v0 runs on it, and is judged as there.

    Args:
        config: latency and noise.
    """

    def __init__(self, config: SimConfig = SimConfig()) -> None:
        machine = Machine(partial(build, config))
        super().__init__(sim_spec(), machine.address, machine)
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_model": None}

    def forward(self, position: list[float]) -> tuple[float, float, float]:
        """The grasp point (x, y, z) in metres, in the frame of the arm's base."""
        if self._model is None:
            model = load_model()
            self._model = model, mujoco.MjData(model)
        model, data = self._model
        data.qpos[:JOINTS] = position[:JOINTS]
        mujoco.mj_kinematics(model, data)
        x, y, z = data.site("grasp_point").xpos
        return float(x), float(y), float(z)


def build(config: SimConfig) -> tuple[Body, Faults]:
    """Body and faults, in the machine's process."""
    return SimBody(config), FaultScripts(_AXES)


class _LiveArm(PickPlaceEnv):
    """The bundled world, moved on by one step of its physics at a time."""

    def advance(self, command: NDArray[np.float64]) -> None:
        """One physics step under a command (7,)."""
        self.data.ctrl[:JOINTS] = command[:JOINTS]
        self.data.ctrl[JOINTS:] = FINGER_TRAVEL * (1.0 + command[GRIPPER]) / 2.0
        mujoco.mj_step(self.model, self.data, 1)

    def look(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Positions (7,), velocities (7,) and the observation (12,)."""
        mujoco.mj_kinematics(self.model, self.data)
        fingers = slice(JOINTS, JOINTS + 2)
        opening = np.clip(2.0 * self.data.qpos[fingers].mean() / FINGER_TRAVEL - 1.0, -1.0, 1.0)
        speed = 2.0 * self.data.qvel[fingers].mean() / FINGER_TRAVEL
        return np.append(self.data.qpos[:JOINTS], opening), np.append(self.data.qvel[:JOINTS], speed), self._observe()

    def judge(self) -> bool:
        """Success by the world's rule; to be asked once for each control period."""
        mujoco.mj_kinematics(self.model, self.data)
        still = self._is_placed() and not any(self._fingers_touching()) and self._is_still()
        self._still_steps = self._still_steps + 1 if still else 0
        return self._still_steps >= self.STILL_STEPS


class SimBody:
    """The arm and its cube, kept up with the clock whenever somebody asks.

    Nothing runs between two messages: the physics of the time since the last one is computed when the next one comes,
    which takes under a millisecond for a control period.
    """

    def __init__(self, config: SimConfig) -> None:
        self._config = config
        self._arm = _LiveArm()
        self._step_s = float(self._arm.model.opt.timestep)
        self._period = round(1.0 / (self._arm.control_hz * self._step_s))  # physics steps of a control period
        joints = self._arm.model.jnt_range[:JOINTS]
        period_s = 1.0 / self._arm.control_hz
        speed, step = MAXIMUM_JOINT_SPEED, ACCELERATION * period_s
        bounds = [Bounds(float(low), float(high), speed, ACCELERATION, step, True) for low, high in joints]
        fingers = Bounds(-1.0, 1.0, _FINGER_VELOCITY, _FINGER_ACCELERATION, _FINGER_VELOCITY * period_s, False)
        self.monitor = Monitor([*bounds, fingers], period_s)
        self._random = np.random.default_rng(config.noise_seed)
        self._log: dict[str, Any] = {"commands": 0, "stops": [], "last_command_s": None}
        self._time_s = 0.0
        self._begin(0)

    def home(self, seed: int, now_s: float) -> NDArray[np.float64] | None:
        self._begin(seed)
        self._time_s = now_s
        return None  # the world begins where it begins

    def command(self, values: NDArray[np.float64], now_s: float) -> None:
        self._advance(now_s)
        self._log["commands"] += 1
        self.monitor.judge(values.tolist(), self._positions().tolist(), now_s)
        if len(values) == _AXES and np.isfinite(values).all():
            self._log["last_command_s"] = now_s
            self._due.append((now_s + self._config.command_latency_s, values.copy()))

    def stop(self, now_s: float) -> None:
        self._advance(now_s)
        self._log["stops"] = [*self._log["stops"], now_s][-20:]
        self.monitor.rest()
        self._due.clear()
        self._stopping = True

    def state(self, now_s: float) -> State:
        self._advance(now_s)
        wanted_s = self._time_s - self._config.latency_s
        while len(self._past) > 1 and self._past[1].time_s <= wanted_s:
            self._past.popleft()
        state = self._past[0]
        if self._config.noise:
            position, velocity, observation = (
                values + self._random.normal(0.0, self._config.noise, values.shape)
                for values in (state.position, state.velocity, state.observation)
            )
            position[GRIPPER] = np.clip(position[GRIPPER], -1.0, 1.0)  # its sensor has ends
            return state._replace(position=position, velocity=velocity, observation=observation)
        return state

    def wait_s(self, now_s: float) -> float | None:
        return None

    def report(self, now_s: float) -> dict[str, Any]:
        self._advance(now_s)
        position, velocity, observation = self._arm.look()
        return {
            **self._log,
            "now_s": now_s,
            "at_rest": bool(np.abs(velocity[:JOINTS]).max() < 0.01),
            "position": position.tolist(),
            "velocity": velocity.tolist(),
            "observation": observation.tolist(),
            "violations": dict(self.monitor.violations),
            "first_violation": self.monitor.first,
        }

    def _begin(self, seed: int) -> None:
        self._arm.reset(seed=seed)
        self._held = np.append(np.zeros(JOINTS), self._positions()[GRIPPER])
        self._due: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._stopping = False
        self._steps = 0
        self._succeeded = False
        self.monitor.rest()
        self._past: deque[State] = deque()
        self._remember()

    def _positions(self) -> NDArray[np.float64]:
        return self._arm.look()[0]

    def _advance(self, now_s: float) -> None:
        if now_s - self._time_s > _LONGEST_GAP_S:
            self._time_s = now_s - self._step_s
        while self._time_s + self._step_s <= now_s:
            self._time_s += self._step_s
            while self._due and self._due[0][0] <= self._time_s:
                _, self._held = self._due.popleft()
                self._stopping = False
            if self._stopping:
                brake = ACCELERATION * self._step_s
                joints = self._held[:JOINTS]
                self._held[:JOINTS] = np.sign(joints) * np.maximum(np.abs(joints) - brake, 0.0)
            self._arm.advance(self._held)
            self._steps += 1
            if self._steps % self._period == 0:
                self._succeeded = self._arm.judge()
            if self._config.latency_s:
                self._remember()
        if not self._config.latency_s:
            self._past.clear()
        self._remember()

    def _remember(self) -> None:
        position, velocity, observation = self._arm.look()
        self._past.append(State(position, velocity, observation.astype(np.float64), self._time_s, self._succeeded))
