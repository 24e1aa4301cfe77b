"""How strange an observation is to a policy, and the agent that asks for help, or lets the gate stop, where it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Agent, Command, Driver, Expert, ask
from understudy.errors import ConfigError, require_within
from understudy.execution import PolicyAgent
from understudy.inference import Predictor

_CALM_STEPS = 5


class Novelty:
    """Strangeness of an observation: 1 is as strange as is tolerated.

    The distance to the training data is the furthest that any channel lies outside of its range in training, in widths
    of that range (a channel that never moved in training: in its unit). The doubt of an ensemble is the root mean
    square over the action channels of its members' standard deviation, in half-ranges. Each is divided by its limit,
    and the larger one counts.

    Args:
        policy: with the statistics of its training data.
        distance: tolerated, in widths; not measured where None.
        doubt: tolerated, in half-ranges; not measured where None.

    Raises:
        ConfigError: nothing is measured, a limit is not above 0, or the policy cannot tell.
    """

    def __init__(self, policy: Predictor, *, distance: float | None = 0.5, doubt: float | None = None) -> None:
        if distance is None and doubt is None:
            raise ConfigError("novelty is measured by distance, by doubt, or by both; give one of them")
        require_within("novelty", distance, 1e-6)
        require_within("doubt", doubt, 1e-6)
        statistics = getattr(policy, "statistics", None)
        if statistics is None:
            raise ConfigError("this policy does not know its training data, so no novelty can be measured")
        if doubt is not None and _members(policy) < 2:
            raise ConfigError("this policy is no ensemble and cannot doubt; leave --doubt out")
        observations, actions = statistics
        width = observations.maximum - observations.minimum
        self._low, self._high = observations.minimum, observations.maximum
        self._width = np.where(observations.deviation == observations.scale, np.maximum(width, 1e-6), 1.0)  # (D,)
        half = policy.spec.action_half_ranges
        self._half = np.where(np.isfinite(half), half, actions.scale)  # (A,)
        self._distance, self._doubt = distance, doubt

    def __call__(self, observation: NDArray[np.float32], agent: Agent) -> float:
        """Strangeness of an observation (D,), which the agent has just seen."""
        value = 0.0
        if self._distance is not None:
            outside = np.maximum(self._low - observation, observation - self._high) / self._width
            value = max(value, float(outside.max()) / self._distance)
        if self._doubt is not None and isinstance(agent, PolicyAgent):
            spread = agent.member_actions().std(0) / self._half
            value = max(value, float(np.sqrt(np.mean(np.square(spread)))) / self._doubt)
        return value


class Told(Protocol):
    """Who wants to know how strange the observation of the next step is: a RobotEnv."""

    def novel(self, novelty: float, *, helped: bool = False) -> None: ...


class WatchedAgent:
    """A policy whose every observation is looked at.

    Where it is too strange, the expert drives until it has been familiar for some steps; without an expert, the gate is
    told, and lets nothing move.

    Args:
        agent: who acts.
        novelty: the measure.
        robot: who is told.
        expert: who helps; nobody where None.
    """

    def __init__(self, agent: Agent, novelty: Novelty, robot: Told, expert: Expert | None = None) -> None:
        self._agent, self._novelty, self._robot, self._expert = agent, novelty, robot, expert
        self._helped = 0  # steps for which the expert still drives
        self.value = self.largest = 0.0
        self.asked_for_help = 0

    def reset(self, seed: int) -> None:
        self._agent.reset(seed)
        if self._expert is not None:
            self._expert.reset(seed)
        self._helped = 0
        self.value = self.largest = 0.0

    def replan(self) -> None:
        """Lets the agent forget its open chunks, where it has any."""
        replan = getattr(self._agent, "replan", None)
        if replan is not None:
            replan()

    def act(self, observation: NDArray[np.float32]) -> Command:
        """The command for an observation (D,): the agent's, or the expert's with a label."""
        command = self._agent.act(observation)
        self.value = self._novelty(observation, self._agent)
        self.largest = max(self.largest, self.value)
        self._robot.novel(self.value, helped=self._expert is not None)
        if self._expert is None:
            return command
        if self.value > 1:
            self.asked_for_help += self._helped == 0
            self._helped = _CALM_STEPS
        if not self._helped:
            return command
        self._helped -= 1
        self.replan()  # what the policy had planned was for another course
        label = ask(self._expert, observation)
        return Command(label, Driver.EXPERT, label)


def _members(policy: Predictor) -> int:
    predictions = getattr(policy, "predictions", None)
    if predictions is None:
        return 1
    return len(predictions(np.zeros((policy.history, len(policy.spec.observations)), np.float32)))
