"""A rehearsal: what a gate would have asked of the expert, on episodes that are recorded already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, DataError
from understudy.interactive.gates import HGGate
from understudy.interactive.tick import Gate, GatedAgent
from understudy.policies import Policy


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a gate would have asked during one recorded episode.

    Args:
        episode: its number in the dataset.
        steps: of the episode.
        labels: steps at which the expert would have been asked.
        expert_steps: steps that the expert would have driven.
        interventions: takeovers.
    """

    episode: int
    steps: int
    labels: int
    expert_steps: int
    interventions: int


class _Recorded:
    """An expert that says what was recorded as right at each step."""

    engaged = False

    def __init__(self) -> None:
        self.answer: NDArray[np.float32] = np.zeros(0, np.float32)

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The recorded target (A,) of the present step."""
        return self.answer


def rehearse(gate: Gate, policy: Policy, dataset: Dataset, *, cap: float | None = None) -> Iterator[Rehearsal]:
    """Fits a gate to a dataset and a policy, and lets it decide along the recorded observations.

    The states are those of the recording: what would have followed from another driver is not known.

    Args:
        gate: any but that of HG-DAgger, which only a person at the robot can answer for.
        policy: a trained one.
        dataset: episodes with a label, or the expert driving, at every step.
        cap: as in DAggerConfig.

    Raises:
        ConfigError: the gate waits for a person, or cannot judge this policy.
        SpecMismatch: the policy is for other channels than the dataset's.
        DataError: at some step nobody said what is right.
    """
    if isinstance(gate, HGGate):
        raise ConfigError("the gate hg is a person's decision, so recorded episodes cannot say what it would ask")
    policy.spec.require(dataset.spec, what="the dataset", against="the policy")
    gate.begin(policy, dataset)
    gate.fit(dataset, policy)
    expert = _Recorded()
    agent = GatedAgent(policy.for_execution(), expert, gate, cap=cap)
    for row, episode in zip(dataset.rows, dataset, strict=True):
        if not episode.targets()[1].all():
            raise DataError(
                f"episode {row.id} has steps that the policy drove without a label, so nobody knows what the expert "
                "would have said; rehearse on demonstrations"
            )
        labels, drivers = _decisions(agent, expert, episode)
        yield Rehearsal(
            row.id, len(episode), int(labels.sum()), int(drivers.sum()), int((np.diff(drivers, prepend=0) > 0).sum())
        )


def _decisions(agent: GatedAgent, expert: _Recorded, episode: Episode) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
    targets, _ = episode.targets()
    agent.reset(max(episode.seed, 0))
    labelled, drivers = [], []
    for observation, target in zip(episode.observations[:-1], targets, strict=True):
        expert.answer = target
        command = agent.act(observation)
        labelled.append(command.label is not None)
        drivers.append(command.driver == Driver.EXPERT)
    return np.array(labelled), np.array(drivers, np.int8)
