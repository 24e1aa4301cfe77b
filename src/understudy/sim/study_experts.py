"""Experts for studies: an expert that trembles, lags or is off by a constant, and a person who watches and takes over.

Each wraps an expert that is right. What they answer is a function of the seed of `reset` and of what they have seen
since. Deviations are in half-ranges: 1 is half of the way from a channel's lower limit to its upper one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Expert, ask
from understudy.errors import ConfigError, ExpertError
from understudy.spec import Spec

_LONGEST_DELAY = 10_000  # steps


class _Wrapper:
    """What experts around another one have in common: they are engaged, and are reset, as it is."""

    def __init__(self, expert: Expert) -> None:
        if isinstance(expert, SimulatedHuman):
            raise ConfigError(f"{type(self).__name__} cannot stand around a SimulatedHuman: the person comes first")
        self._expert = expert

    @property
    def engaged(self) -> bool:
        """Whether the wrapped expert wants to drive now."""
        return self._expert.engaged

    def reset(self, seed: int) -> None:
        """Forgets the last episode."""
        self._expert.reset(seed)

    def _right(self, observation: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
        """The wrapped expert's answer, which must be of so many channels: numpy would stretch a single number."""
        answer = ask(self._expert, observation)
        if len(answer) != channels:
            raise ExpertError(
                f"{type(self._expert).__name__} answered for {len(answer)} action channels; this world has {channels}"
            )
        return answer


class NoisyExpert(_Wrapper):
    r"""An expert whose hand trembles: Gaussian noise on every channel of every answer, cut to the action limits.

    The noise $e$ has the standard deviation $\sigma$ = `deviation` and forgets itself with the time constant $\tau$ =
    `correlation_s`, an Ornstein-Uhlenbeck process looked at once for each answer: $e_t = k e_{t-1} + \sqrt{1 - k^2}
    \sigma \xi_t$, with $k = \exp(-1 / (f \tau))$, $f$ the control rate, and $\xi$ standard normal.

    Args:
        expert: the one that is right.
        spec: of the world; its action limits give the half-ranges.
        deviation: standard deviation in half-ranges.
        correlation_s: time constant of the noise in s; at 0 each answer has noise of its own.

    Raises:
        ConfigError: a number is negative or not finite, an action channel has no limits, or the noise is correlated
            and the world's rate unknown.
    """

    def __init__(self, expert: Expert, spec: Spec, deviation: float, correlation_s: float = 0.0) -> None:
        super().__init__(expert)
        _require(0.0 <= deviation < math.inf, f"deviation is {deviation}; it takes 0 half-ranges or more")
        _require(0.0 <= correlation_s < math.inf, f"correlation_s is {correlation_s}; it takes 0 s or more")
        self._low, self._high = spec.action_low, spec.action_high
        self._scale = deviation * _half_ranges(spec)
        self._keep = math.exp(-1.0 / (_rate(spec) * correlation_s)) if correlation_s else 0.0
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forgets the last episode; `seed` fixes the noise of the next one."""
        super().reset(seed)
        # The second word keeps this stream apart from the world's, which starts from the same seed.
        self._random = np.random.default_rng([seed, 0x4E4F])
        self._noise = self._random.standard_normal(len(self._scale))

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,), with noise."""
        kick = math.sqrt(1.0 - self._keep**2)
        self._noise = self._keep * self._noise + kick * self._random.standard_normal(len(self._scale))
        answer = self._right(observation, len(self._scale)) + self._scale * self._noise
        clipped: NDArray[np.float32] = np.clip(answer, self._low, self._high).astype(np.float32)
        return clipped


class DelayedExpert(_Wrapper):
    """An expert that lags: it answers for what it saw some answers ago, and at first for the first thing it saw.

    Time is counted in answers. Asked at each step, it lags by so many steps.

    Args:
        expert: the one that is right; asked once for each answer.
        steps: of delay, a whole number.

    Raises:
        ConfigError: `steps` is no whole number from 0 to 10000.
    """

    def __init__(self, expert: Expert, steps: float) -> None:
        super().__init__(expert)
        whole = float(steps).is_integer() and 0 <= steps <= _LONGEST_DELAY
        _require(whole, f"the delay is {steps} steps; it takes a whole number from 0 to {_LONGEST_DELAY}")
        self._answers: deque[NDArray[np.float32]] = deque(maxlen=int(steps) + 1)

    def reset(self, seed: int) -> None:
        """Forgets the last episode."""
        super().reset(seed)
        self._answers.clear()

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) that was right for the observation (D,) of some answers ago."""
        self._answers.append(ask(self._expert, observation))
        return self._answers[0]


class BiasedExpert(_Wrapper):
    """An expert that is off by the same amount in every answer, cut to the action limits.

    Args:
        expert: the one that is right.
        spec: of the world; its action limits give the half-ranges.
        bias: in half-ranges, one number for all channels or one for each (A,).

    Raises:
        ConfigError: the bias is not finite or has another size, or an action channel has no limits.
    """

    def __init__(self, expert: Expert, spec: Spec, bias: float | Sequence[float]) -> None:
        super().__init__(expert)
        half_ranges, offset = _half_ranges(spec), np.asarray(bias, np.float64)
        fits = offset.shape in ((), half_ranges.shape) and bool(np.isfinite(offset).all())
        _require(fits, f"bias is {bias}; it takes one finite number, or one for each of {len(half_ranges)} channels")
        self._low, self._high = spec.action_low, spec.action_high
        self._offset = offset * half_ranges  # (A,)

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,), off by the bias."""
        answer = self._right(observation, len(self._offset)) + self._offset
        clipped: NDArray[np.float32] = np.clip(answer, self._low, self._high).astype(np.float32)
        return clipped


@dataclass(frozen=True, slots=True)
class HumanConfig:
    """How a person watches a robot, takes over, hands back, and tires.

    Deviations are root mean squares over the action channels, in half-ranges.

    Args:
        tolerance: above this deviation the person wants to take over.
        reaction_s: for so long it has to stay above it before a rested person does, in s.
        recovered: below this deviation the robot counts as right again.
        settle_s: for so long it has to stay below it before the person hands back, in s.
        tires_per_s: factor by which each second of driving lengthens the reaction; at 1 nobody tires.
        tired_at_most: the reaction never grows beyond so many times `reaction_s`.
        rests_per_s: factor by which each second of watching shortens a tired reaction, down to `reaction_s`.

    Raises:
        ConfigError: a number that cannot work; the message says which are accepted.
    """

    tolerance: float = 0.3
    reaction_s: float = 0.3
    recovered: float = 0.15
    settle_s: float = 0.5
    tires_per_s: float = 1.02
    tired_at_most: float = 3.0
    rests_per_s: float = 1.01

    def __post_init__(self) -> None:
        for name in ("reaction_s", "settle_s"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"{name} is {value}; it takes 0 s or more")
        for name in ("tires_per_s", "tired_at_most", "rests_per_s"):
            value = getattr(self, name)
            _require(1.0 <= value < math.inf, f"{name} is {value}; it is a factor of 1 or more")
        _require(0.0 < self.tolerance < math.inf, f"tolerance is {self.tolerance}; it takes more than 0")
        ordered = 0.0 < self.recovered <= self.tolerance
        _require(
            ordered, f"recovered is {self.recovered}; it takes more than 0 and at most tolerance, {self.tolerance}"
        )

    def in_slow_motion(self, times: float) -> HumanConfig:
        """The same person, to whom the world is shown so many times slower; seconds are those of the world.

        A world that is stepped 100 times a second is over before a person has understood it, so people who work in
        simulation slow it down.

        Raises:
            ConfigError: `times` is below 1.
        """
        _require(1.0 <= times < math.inf, f"the world is shown {times} times slower; it takes 1 or more")
        return replace(
            self,
            reaction_s=self.reaction_s / times,
            settle_s=self.settle_s / times,
            tires_per_s=self.tires_per_s**times,
            rests_per_s=self.rests_per_s**times,
        )


class SimulatedHuman(_Wrapper):
    r"""A person who watches the robot, for measuring methods in which a person decides who drives.

    The loop calls `watch` once for each step, then reads `engaged`. The person compares what the robot is about to do
    with what the wrapped expert would do: $d = \mathrm{rms}((a_{robot} - a_{expert}) / r)$, with the half-ranges $r$.
    Once $d$ has exceeded `tolerance` at every step of the reaction time, the person takes over; once it has stayed
    below `recovered` for `settle_s`, the robot drives again. Times are rounded up to steps, at least one. Each reset
    finds the person rested.

    What the person thinks while watching is no label: labels are what `label` returns when it is asked.

    Args:
        expert: what the person would do; asked once for each step.
        spec: of the world; its action limits give the half-ranges, its rate the steps of a second.
        config: the person's habits.

    Raises:
        ConfigError: an action channel has no limits, or the world's rate is unknown.
    """

    def __init__(self, expert: Expert, spec: Spec, config: HumanConfig | None = None) -> None:
        super().__init__(expert)
        self._config = config or HumanConfig()
        self._half_ranges, self._control_hz = _half_ranges(spec), _rate(spec)
        self._low, self._high = spec.action_low, spec.action_high
        self.reset(0)

    @property
    def engaged(self) -> bool:
        """Whether the person drives now."""
        return self._driving

    def reset(self, seed: int) -> None:
        """Forgets the last episode: the person is rested, and the robot drives."""
        super().reset(seed)
        self._driving, self._convinced_steps, self._tiredness = False, 0, 1.0
        self._thought: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def watch(self, observation: NDArray[np.float32], action: NDArray[np.float32]) -> None:
        """Looks at one step, and takes over or hands back.

        Args:
            observation: (D,) what both see.
            action: (A,) what the robot proposes, whether or not it drives.
        """
        answer = self._right(observation, len(self._half_ranges))
        self._thought = observation.copy(), answer
        # What asks for more than the world executes is no other action.
        apart = action.clip(self._low, self._high) - answer.clip(self._low, self._high)
        deviation = math.sqrt(np.mean(np.square(apart / self._half_ranges)))
        config, step_s = self._config, 1.0 / self._control_hz
        if self._driving:
            self._tiredness = min(self._tiredness * config.tires_per_s**step_s, config.tired_at_most)
            convinced, needed_s = deviation < config.recovered, config.settle_s
        else:
            self._tiredness = max(self._tiredness / config.rests_per_s**step_s, 1.0)
            convinced, needed_s = deviation > config.tolerance, config.reaction_s * self._tiredness
        self._convinced_steps = self._convinced_steps + 1 if convinced else 0
        # The last bits of a product like 0.3 s * 20 Hz must not cost a step.
        if self._convinced_steps >= max(1, math.ceil(needed_s * self._control_hz - 1e-6)):
            self._driving, self._convinced_steps = not self._driving, 0

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The right action (A,) for an observation (D,); one that was just watched is not thought about twice."""
        if self._thought is not None and np.array_equal(self._thought[0], observation):
            return self._thought[1]
        return self._right(observation, len(self._half_ranges))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ConfigError(otherwise)


def _half_ranges(spec: Spec) -> NDArray[np.float64]:
    """Half of each action channel's range, (A,), in the channel's unit."""
    half_ranges = spec.action_half_ranges.astype(np.float64)
    for channel, half in zip(spec.actions, half_ranges, strict=True):
        _require(
            math.isfinite(half), f"deviations are in half-ranges, and action channel {channel.name!r} has no limits"
        )
    return half_ranges


def _rate(spec: Spec) -> float:
    _require(spec.control_hz > 0.0, f"{spec.env_id or 'this world'} states no control rate; seconds need one")
    return spec.control_hz


def _human(expert: Expert, spec: Spec, tolerance: float) -> Expert:
    return SimulatedHuman(expert, spec, HumanConfig(tolerance=tolerance, recovered=tolerance / 2))


def _delayed(expert: Expert, spec: Spec, steps: float) -> Expert:
    return DelayedExpert(expert, steps)


# What a name like `noisy=0.2:scripted` builds, of the expert, the spec and the number; and the number without one.
STUDY_EXPERTS: Mapping[str, tuple[Callable[[Expert, Spec, float], Expert], float]] = {
    "human": (_human, HumanConfig().tolerance),
    "noisy": (NoisyExpert, 0.1),
    "delayed": (_delayed, 3),
    "biased": (BiasedExpert, 0.1),
}
