"""One control step as a gate sees it, and the agent that lets a gate decide who drives."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Command, Driver, Expert, ask
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, ExpertError, PolicyError
from understudy.execution import PolicyAgent
from understudy.inference import Predictor
from understudy.policies import Policy
from understudy.spec import Spec


class Measure:
    """Distances between actions in half-ranges of their channels: 1 is from the middle of a range to its end.

    A channel without limits, or without room between them, is measured in deviations of the training actions.

    Args:
        spec: of the policy.
        scale: (A,) deviations of the training actions.
    """

    def __init__(self, spec: Spec, scale: NDArray[np.float32]) -> None:
        self._low, self._high = spec.action_low, spec.action_high
        half = spec.action_half_ranges
        self._half = np.where(np.isfinite(half), half, scale).astype(np.float32)

    def deviation(self, action: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
        """Root mean square over the channels of the difference, (..., A), (..., A) -> (...).

        Both are cut to the limits first: what asks for more than the world executes is no other action.
        """
        return rms((action.clip(self._low, self._high) - other.clip(self._low, self._high)) / self._half)

    def doubt(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Root mean square over the channels of the members' standard deviation, (M, ..., A) -> (...)."""
        return rms(members.std(0) / self._half)

    def noisy(self, action: NDArray[np.float32], deviation: float, random: np.random.Generator) -> NDArray[np.float32]:
        """The action (A,) with Gaussian noise of so many half-ranges on each channel."""
        if not deviation:
            return action
        return action + random.normal(0, deviation, action.shape).astype(np.float32) * self._half


def measure_for(policy: Predictor) -> Measure:
    """The measure of a policy's actions.

    Raises:
        PolicyError: the policy was never trained.
    """
    statistics = getattr(policy, "statistics", None)
    if statistics is None:
        raise PolicyError("this policy was never trained; clone the demonstrations before it drives")
    return Measure(policy.spec, statistics[1].scale)


def rms(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square over the last axis, (..., A) -> (...)."""
    result: NDArray[np.float32] = np.sqrt(np.mean(np.square(values), axis=-1))
    return result


class Tick:
    """One control step, before anybody has acted.

    Args:
        observation: (D,).
        proposal: (A,) what the policy would do.
        driver: who drove the step before; the policy at the first step.
        engaged: whether the expert wants to drive.
        round: number of the round, from 1.
        alone: steps of this episode that the policy has driven.
        takeovers: of this episode so far.
        random: where a gate draws from; the same for the same seed of the episode.
        expert: who is asked by `label`.
        robot: whose members are asked by `doubt`.
        measure: of differences between actions.
    """

    def __init__(
        self,
        observation: NDArray[np.float32],
        proposal: NDArray[np.float32],
        *,
        driver: Driver,
        engaged: bool,
        round: int,
        alone: int,
        takeovers: int,
        random: np.random.Generator,
        expert: Expert,
        robot: PolicyAgent,
        measure: Measure,
    ) -> None:
        self.observation, self.proposal = observation, proposal
        self.driver, self.engaged, self.round, self.random = driver, engaged, round, random
        self.alone, self.takeovers = alone, takeovers
        self._expert, self._robot, self._measure = expert, robot, measure
        self.asked: NDArray[np.float32] | None = None

    def label(self) -> NDArray[np.float32]:
        """What the expert would do, (A,). The first call asks, and leaves a label in the episode; others repeat it.

        Raises:
            ExpertError: the expert answered nothing, a number that is not finite, or for other channels.
        """
        if self.asked is None:
            label = ask(self._expert, self.observation)
            if label.shape != self.proposal.shape:
                name, wanted = type(self._expert).__name__, len(self.proposal)
                raise ExpertError(f"{name} answered {len(label)} numbers; an action of this world has {wanted}")
            self.asked = label
        return self.asked

    def deviation(self) -> float:
        """How far the proposal is from the expert's label, in half-ranges (root mean square). It asks the expert."""
        return float(self._measure.deviation(self.proposal, self.label()))

    def doubt(self) -> float:
        """How far the members of the policy's ensemble are apart, in half-ranges (root mean square)."""
        return float(self._measure.doubt(self._robot.member_actions()))


class Gate(Protocol):
    """Who drives this step, policy or expert?

    Its public attributes are its options: plain JSON values, which a run keeps in its config.

    A gate is a function of what it was fitted to: within a round it keeps nothing but what `adapt` tells it, so that a
    resumed round decides as the interrupted one would have.
    """

    name: ClassVar[str]
    measures_doubt: ClassVar[bool] = False  # and so has something of an ensemble

    @abstractmethod
    def __call__(self, tick: Tick) -> bool:
        """Whether the expert drives this step. Where it does, the step carries a label."""

    # These a gate may leave out. They return, for type checkers take an empty method of a protocol for an abstract one.

    def begin(self, policy: Policy, demos: Dataset | None = None) -> None:
        """Forgets other runs, and refuses what it cannot judge; called before the first round.

        Args:
            policy: the first one.
            demos: what is known before the first round; None where nothing was recorded yet.
        """
        return

    def fit(self, dataset: Dataset, policy: Policy) -> None:
        """Learns from everything collected so far and from the policy that will drive; called before each round."""
        return

    def adapt(self, episode: Episode) -> None:
        """Looks at an episode of the running round, in the order of the recording."""
        return

    @property
    def expert_noise(self) -> float:
        """Deviation of the noise on the expert's action where the expert drives, in half-ranges; the label has none."""
        return 0.0


class GatedAgent:
    """Policy and expert on one robot: an agent like any other, so the loop does not know that a gate exists.

    Args:
        policy: what drives unless the gate calls the expert.
        expert: whom the gate may call. One with a method `watch(observation, action)` is shown each step before it is
            asked whether it is engaged, as a person would see the robot.
        gate: who decides.
        round: number of the round, from 1.
        cap: largest deviation of the policy from the expert, in half-ranges, above which the expert drives whatever
            the gate says. It asks the expert at every step, and those labels are counted.

    Raises:
        ConfigError: the cap is not above 0.
    """

    def __init__(
        self, policy: Predictor, expert: Expert, gate: Gate, *, round: int = 1, cap: float | None = None
    ) -> None:
        if cap is not None and not cap > 0:
            raise ConfigError(f"cap is {cap}; it is above 0, in half-ranges of the actions")
        self._robot, self._expert, self._gate, self._round, self._cap = PolicyAgent(policy), expert, gate, round, cap
        self._measure = measure_for(policy)
        self._watch = getattr(expert, "watch", None)
        self._driver = Driver.POLICY
        self._alone = self._takeovers = 0
        self._random = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)
        self._expert.reset(seed)
        self._driver = Driver.POLICY
        self._alone = self._takeovers = 0
        self._random = np.random.default_rng([seed, self._round])

    def act(self, observation: NDArray[np.float32]) -> Command:
        """The command for an observation (D,): the policy's, or the expert's with a label."""
        proposal = self._robot.act(observation).action
        if self._watch is not None:
            self._watch(observation.copy(), proposal.copy())
        tick = Tick(
            observation,
            proposal,
            driver=self._driver,
            engaged=self._expert.engaged,
            round=self._round,
            alone=self._alone,
            takeovers=self._takeovers,
            random=self._random,
            expert=self._expert,
            robot=self._robot,
            measure=self._measure,
        )
        expert_drives = self._gate(tick)
        if self._cap is not None:
            expert_drives = tick.deviation() > self._cap or expert_drives
        self._takeovers += expert_drives and self._driver == Driver.POLICY
        self._driver = Driver.EXPERT if expert_drives else Driver.POLICY
        if not expert_drives:
            self._alone += 1
            return Command(proposal, Driver.POLICY, tick.asked)
        self._robot.replan()  # what the policy had planned was for another course
        label = tick.label()
        return Command(self._measure.noisy(label, self._gate.expert_noise, self._random), Driver.EXPERT, label)
