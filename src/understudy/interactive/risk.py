"""What gates learn: where a policy will deviate from the expert, and how likely it is to succeed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.dataset import Dataset
from understudy.episode import SUCCESS, UNKNOWN, Episode
from understudy.errors import DataError
from understudy.execution import PolicyAgent
from understudy.inference import Predictor
from understudy.interactive.tick import measure_for
from understudy.policies import Policy
from understudy.trainer import torch_threads

_HIDDEN = (128, 128)
_STEPS = 1_500
_BATCH = 256
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-3
_INPUT_LIMIT = 5.0  # deviations, as the policies themselves
_TARGET_DECAY = 0.99
_LARGEST_LOGIT = 30.0


class Score:
    """A learned probability of (observation, proposed action), in numpy.

    Args:
        network: trained; from scaled (observation, action) to a logit.
        policy: whose scaling its inputs have.
    """

    def __init__(self, network: nn.Sequential, policy: Policy) -> None:
        self._scale = _scaling(policy)
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linear]

    def __call__(self, observation: NDArray[np.float32], action: NDArray[np.float32]) -> float:
        """The probability for an observation (D,) and a proposed action (A,)."""
        return float(self.each(observation[None], action[None])[0])

    def each(self, observations: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities (T,) for observations (T, D) and proposed actions (T, A)."""
        values = self._scale(observations, actions)
        for weight, bias in self._layers[:-1]:
            values = np.maximum(values @ weight + bias, 0)
        weight, bias = self._layers[-1]
        logits = (values @ weight + bias)[:, 0].clip(-_LARGEST_LOGIT, _LARGEST_LOGIT)  # exp would overflow
        probability: NDArray[np.float32] = 1 / (1 + np.exp(-logits))
        return probability


class LabelledSteps(NamedTuple):
    """The steps at which the expert said what is right, and what a policy would have done there.

    Args:
        observations: (N, D).
        proposals: (N, A) of the policy.
        deviation: (N,) of the proposals from the labels, in half-ranges.
    """

    observations: NDArray[np.float32]
    proposals: NDArray[np.float32]
    deviation: NDArray[np.float32]


def labelled_steps(dataset: Dataset, policy: Policy) -> LabelledSteps:
    """Every step with a label, those included that the policy was not trained on.

    Raises:
        DataError: no step has a label.
    """
    measure, robot = measure_for(policy), policy.for_execution()
    parts = []
    for episode in dataset:
        targets, advised = episode.targets()
        proposed = proposals(robot, episode)
        columns = episode.observations[:-1], proposed, measure.deviation(proposed, targets)
        parts.append([column[advised] for column in columns])
    if not any(len(deviation) for *_, deviation in parts):
        raise DataError("no step has a label to learn from; record or label some episodes first")
    return LabelledSteps(*map(np.concatenate, zip(*parts, strict=True)))


def learn_deviation(steps: LabelledSteps, policy: Policy, tau: float, *, seed: int) -> Score:
    """The probability that the policy deviates from the expert by more than `tau`, in half-ranges.

    Logistic regression with both classes of equal weight.

    Args:
        steps: to learn from.
        policy: whose deviation it is.
        tau: deviation above which a step is unsafe.
        seed: of first weights and batches.
    """
    inputs = torch.from_numpy(_scaling(policy)(steps.observations, steps.proposals))
    target = torch.from_numpy((steps.deviation > tau).astype(np.float32))
    # Differs from Zhang & Cho 2017: no data are set aside for the classifier, and the classes weigh the same.
    # Unsafe steps are rare; without weights the classifier would call everything safe.
    share = float(target.mean())
    weight = torch.where(target > 0, 0.5 / max(share, 1e-3), 0.5 / max(1 - share, 1e-3))

    network = _network(inputs.shape[1], seed)

    def loss(rows: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(network(inputs[rows])[:, 0], target[rows], weight[rows])

    _minimize(loss, network, len(inputs), seed)
    return Score(network, policy)


def learn_success(dataset: Dataset, policy: Policy, discount: float, *, seed: int) -> Score:
    """Q(o, a): the discounted probability that the policy succeeds from here (Hoque et al. 2021b, section 4).

    Temporal differences on every recorded transition, whoever drove: the target is 1 where the step succeeded, else
    discount * Q'(o', pi(o')), with Q' a slow copy of Q that follows it at each update. The last step of an attempt has
    the target 0 unless it succeeded itself, also where the clock ended it: what is too late is no success.

    Args:
        dataset: everything collected so far.
        policy: pi.
        discount: gamma.
        seed: of first weights and batches.

    Raises:
        DataError: no episode says whether it succeeded.
    """
    require_verdicts(row.success for row in dataset.rows)
    robot, scale = policy.for_execution(), _scaling(policy)
    inputs, following, succeeded, ended = [], [], [], []
    for episode in dataset:
        if episode.success == UNKNOWN:
            continue  # nobody said how it ended, so it shows neither success nor failure
        proposed = proposals(robot, episode, final=True)  # (T + 1, A)
        inputs.append(scale(episode.observations[:-1], episode.actions))
        following.append(scale(episode.observations[1:], proposed[1:]))
        last = np.zeros(len(episode), bool)
        last[-1] = True
        ended.append(last)  # Differs from Hoque et al. 2021b: whatever ends an attempt is an end, also the clock
        # An imported episode may say that it succeeded, and not when: then it was at its end. One that failed may have
        # passed through success, where the world judges by the last step.
        won = episode.success == SUCCESS
        succeeded.append(episode.succeeded if won and episode.succeeded.any() else last & won)
    now, later = torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(following))
    reached = torch.from_numpy(np.concatenate(succeeded).astype(np.float32))
    over = torch.from_numpy(np.concatenate(ended).astype(np.float32))
    # Differs from Hoque et al. 2021b: one network with cross-entropy, and no rollouts of the policy alone for it.
    network, slow = _network(now.shape[1], seed), _network(now.shape[1], seed)

    def loss(rows: Tensor) -> Tensor:
        with torch.no_grad():
            torch._foreach_lerp_(list(slow.parameters()), list(network.parameters()), 1 - _TARGET_DECAY)
            future = discount * torch.sigmoid(slow(later[rows])[:, 0]) * (1 - over[rows])
            target = torch.where(reached[rows] > 0, 1.0, future)
        return nn.functional.binary_cross_entropy_with_logits(network(now[rows])[:, 0], target)

    _minimize(loss, network, len(now), seed)
    return Score(network, policy)


def require_verdicts(successes: Iterable[int]) -> None:
    """Refuses episodes of which none says whether it succeeded.

    Raises:
        DataError: none does.
    """
    if all(success == UNKNOWN for success in successes):
        raise DataError("no episode says whether it succeeded, and risk is learnt from that; use another gate")


def proposals(policy: Predictor, episode: Episode, *, final: bool = False) -> NDArray[np.float32]:
    """What a policy would do at each step of an episode, (T, A); (T + 1, A) with the last observation where `final`."""
    robot = PolicyAgent(policy)
    robot.reset(0)
    seen = episode.observations if final else episode.observations[:-1]
    return np.stack([robot.act(observation).action for observation in seen])


def member_proposals(policy: Predictor, episode: Episode) -> NDArray[np.float32]:
    """What each member of an ensemble would do at each step of an episode, (M, T, A)."""
    robot = PolicyAgent(policy)
    robot.reset(0)
    members = []
    for observation in episode.observations[:-1]:
        robot.observe(observation)
        members.append(robot.member_actions())
    return np.stack(members, 1)


def _scaling(policy: Policy) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    assert policy.statistics is not None, "measure_for() refuses an untrained policy"
    centre = np.concatenate([part.mean for part in policy.statistics])
    inverse = np.concatenate([1 / part.scale for part in policy.statistics])

    def scale(observations: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        values = (np.concatenate([observations, actions], -1) - centre) * inverse
        limited: NDArray[np.float32] = values.clip(-_INPUT_LIMIT, _INPUT_LIMIT).astype(np.float32)
        return limited

    return scale


def _network(inputs: int, seed: int) -> nn.Sequential:
    """From `inputs` numbers to a logit, with first weights drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (inputs, *_HIDDEN, 1)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        linear = nn.utils.skip_init(nn.Linear, before, after)
        with torch.no_grad():
            linear.weight.normal_(0, math.sqrt(2 / before), generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _minimize(loss: Callable[[Tensor], Tensor], network: nn.Sequential, rows: int, seed: int) -> None:
    """Makes `loss`, a function of the numbers of some of the `rows`, small over the weights of the network."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch_threads(1):
        for _ in range(_STEPS):
            value = loss(torch.randint(rows, (_BATCH,), generator=generator))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
