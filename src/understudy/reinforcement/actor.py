"""The actor: a policy as a Gaussian over actions, whose mean is the policy and whose deviation is learnt."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.errors import ConfigError
from understudy.execution import ActionNoise, Explorer
from understudy.inference import FeedForwardPredictor
from understudy.network_shape import SMALLEST_LOG_DEVIATION, relative_pairs, seen_channels
from understudy.normalize import Normalizer
from understudy.policies import Ensemble, FeedForward, Policy
from understudy.statistics import ChannelStatistics

_LARGER = 3.0


class Actor:
    """pi(a | o) = N(mu(o), diag(sigma^2)) in deviations of the training actions.

    mu is a feedforward network, or the mean of an ensemble of them: all members learn, so the actor begins with just
    what the ensemble does. log sigma is one parameter for each channel, the same in every state. Of a chunk only the
    first action is learnt, the one that is executed by default.

    With `tune="residual"` the policy is frozen, and what learns is a small map f of mu(o) = policy(o) + f(x), x being
    the scaled observation: linear, or with tanh layers of the sizes `residual_hidden`. It answers 0 at first, and the
    gradient of its few numbers is estimated from the same few episodes far better than that of all weights.

    Args:
        policy: trained or not, with a scaling; it stays as it is.
        log_deviation: (A,) first log sigma.
        least: (A,) log sigma never goes below it.
        tune: `all` or `residual`.
        residual_hidden: sizes of the residual's tanh layers; a linear one has none.
        residual_limit: (A,) that the residual never goes beyond, in deviations. Its last tanh layer then has a unit for
            each channel, and its last map is fixed: each unit times the limit of its channel.

    Raises:
        ConfigError: the policy is of a kind that cannot be fine-tuned, or carries a residual of another shape.
    """

    def __init__(
        self,
        policy: Policy,
        log_deviation: NDArray[np.float32],
        least: NDArray[np.float32],
        *,
        tune: str = "all",
        residual_hidden: tuple[int, ...] = (),
        residual_limit: NDArray[np.float32] | None = None,
    ) -> None:
        self._residual, self._limit = tune == "residual", residual_limit
        hidden = residual_hidden if self._residual else None
        self._policy = _gaussian(policy, hidden, limited=residual_limit is not None)
        self.least = torch.from_numpy(np.maximum(least, SMALLEST_LOG_DEVIATION).astype(np.float32))
        start = torch.from_numpy(np.asarray(log_deviation, np.float32))
        self._log_deviation = nn.Parameter(torch.maximum(start, self.least))
        members = [self._policy] if isinstance(self._policy, FeedForward) else list(self._policy.members)
        self._networks: list[FeedForward] = members  # type: ignore[assignment]
        if self._residual:
            self._share_the_map()
            self._limit_the_map()
        self.mean_parameters: list[nn.Parameter] = list(self._tuned())
        self.parameters: list[nn.Parameter] = [*self.mean_parameters, self._log_deviation]
        self.spec, self.history = policy.spec, policy.history

    def inputs(self, observations: Tensor) -> Tensor:
        """What `mean` needs of histories (N, history, D) in physical units, computed once for a batch.

        Where all is tuned these are the histories themselves. Where the policy is frozen: the scaled observation and
        what the policy does without the residual, (N, history * D + A).
        """
        if not self._residual:
            return observations
        with torch.no_grad():
            seen = self._networks[0].scaled_inputs(observations)
            return torch.cat([seen, self._policy.scaled_batch(observations) - self._map(seen)], 1)

    def mean(self, inputs: Tensor) -> Tensor:
        """mu, (N, A) in deviations, for what `inputs` gives."""
        if not self._residual:
            return self._policy.scaled_batch(inputs)
        size = len(self.spec.actions)
        return inputs[:, -size:] + self._map(inputs[:, :-size])

    @property
    def log_deviation(self) -> Tensor:
        """Log sigma, (A,)."""
        return self._log_deviation

    def scaled(self, actions: Tensor) -> Tensor:
        """Actions (N, A) in physical units as deviations."""
        _, statistics = self.statistics
        return Normalizer(statistics).normalize(actions)

    def log_likelihood(self, mean: Tensor, actions: Tensor) -> Tensor:
        """Log pi(a | o), (N,), of scaled actions (N, A) where the mean is (N, A)."""
        scaled = (actions - mean) * torch.exp(-self._log_deviation)
        constant = 0.5 * math.log(2 * math.pi) * actions.shape[1]
        return -0.5 * scaled.square().sum(1) - self._log_deviation.sum() - constant

    def vector(self) -> Tensor:
        """All parameters as one vector (P,), a copy."""
        return nn.utils.parameters_to_vector(self.parameters).detach().clone()

    def move(self, vector: Tensor) -> None:
        """Takes the parameters of a vector (P,), log sigma not below its least."""
        with torch.no_grad():
            nn.utils.vector_to_parameters(vector.clone(), self.parameters)
            self._log_deviation.clamp_(min=self.least)

    def policy(self, *, acts: str = "mean") -> Policy:
        """A policy with the parameters as they are now, which acts by its `mean` or is `sampled`."""
        result = copy.deepcopy(self._policy)
        members = [result] if isinstance(result, FeedForward) else list(result.members)
        with torch.no_grad():
            for member in members:
                member.head.log_deviation.copy_(self._log_deviation)  # type: ignore[union-attr, operator]
        result.zero_grad(set_to_none=True)
        result.acts = acts
        return result.eval()

    def explorer(self, *, seed: tuple[int, ...], correlation: float = 0.0) -> Explorer:
        """The agent that samples from it, in numpy; `seed` is mixed with that of each episode."""
        predictor = self.policy(acts="sampled").for_execution()
        assert isinstance(predictor, FeedForwardPredictor), "a feedforward policy executes as one"
        assert predictor.deviation is not None, "it acts by sampling"
        return Explorer(predictor, ActionNoise(predictor.deviation, seed=seed, correlation=correlation))

    def rescale(self, observations: ChannelStatistics, *, keep: bool) -> None:
        """Takes another scaling of the observations.

        With `keep` the first layers follow, W' = W s' / s and b' = b + W (m' - m) / s, so that the actor answers as
        before wherever no scaled observation is cut to the input limit.
        """
        before, actions = self.statistics
        if keep:
            config = self._networks[0].config
            differences = np.zeros(len(relative_pairs(config, self.spec)), np.float32)  # they have no scale to change
            moved = seen_channels(config, self.spec) * (observations.mean - before.mean) / before.scale
            ratio = np.tile(np.append(observations.scale / before.scale, differences + 1), self.history)
            shift = np.tile(np.append(moved, differences), self.history)
            with torch.no_grad():
                for network in self._networks:
                    for first in (network.layers[0], *network.skip_maps()[:1]):
                        assert isinstance(first, nn.Linear)
                        first.bias.add_(first.weight @ torch.from_numpy(shift))
                        first.weight.mul_(torch.from_numpy(ratio))
        self._policy.fit_scaling(observations, actions)

    def _tuned(self) -> Iterator[nn.Parameter]:
        """The parameters of the mean that learn."""
        if self._residual:
            maps = self._networks[0].skip_maps()
            for linear in maps if self._limit is None else maps[:-1]:
                yield from linear.parameters()
        else:
            for network in self._networks:
                yield from network.layers.parameters()
                if network.skip is not None:
                    yield from network.skip.parameters()

    def _share_the_map(self) -> None:
        """Gives all members one residual; linear ones that differ become their mean, so the mean answer stays."""
        shared = self._map
        for parts in zip(*(self._map_of(network).parameters() for network in self._networks), strict=True):
            if all(torch.equal(parts[0], part) for part in parts):
                continue
            if not isinstance(shared, nn.Linear):
                raise ConfigError(
                    "the members of the ensemble carry residuals that differ; fine-tune one whose members share theirs"
                )
            with torch.no_grad():
                parts[0].copy_(torch.stack(parts).mean(0))
        for network in self._networks:
            network.skip = shared

    def _limit_the_map(self) -> None:
        """Makes the last map the limits, behind a layer that answers 0 at first.

        The layers before it begin with larger weights than elsewhere: small ones leave tanh units nearly linear, and
        what has to be corrected is not.
        """
        if self._limit is None:
            return
        *first, before, last = self._networks[0].skip_maps()
        limits = torch.diag(torch.from_numpy(self._limit))
        if bool(last.weight.any()):  # the policy brought its residual
            if not torch.allclose(last.weight, limits) or bool(last.bias.any()):
                raise ConfigError(
                    "the policy carries a residual with another limit; ask for the deviation and the residual_limit "
                    "that it was tuned with, or tune all"
                )
            return
        with torch.no_grad():
            for linear in first:
                linear.weight.mul_(_LARGER)
            last.weight.copy_(limits)
            before.weight.zero_()
            before.bias.zero_()

    @property
    def _map(self) -> nn.Module:
        """The residual that all members share."""
        return self._map_of(self._networks[0])

    def _map_of(self, network: FeedForward) -> nn.Module:
        assert network.skip is not None, "an actor that tunes its residual has one"
        return network.skip

    @property
    def statistics(self) -> tuple[ChannelStatistics, ChannelStatistics]:
        """Of the observations and of the actions, that it scales with."""
        assert self._policy.statistics is not None, "an actor has a scaling"
        return self._policy.statistics


def _gaussian(policy: Policy, residual: tuple[int, ...] | None, *, limited: bool) -> FeedForward | Ensemble:
    """A copy of the policy that answers its first action with a Gaussian head.

    With a `residual`, the sizes of its hidden layers, it has one: that of the policy, or a new one, which answers 0.
    One that is `limited` has one layer more, with a unit for each channel.
    """
    if isinstance(policy, Ensemble):
        ensemble = Ensemble([_gaussian(member, residual, limited=limited) for member in policy.members])
        ensemble.data_fingerprint, ensemble.notes = policy.data_fingerprint, policy.notes
        return ensemble
    if not isinstance(policy, FeedForward):
        raise ConfigError(
            f"the policy is a {policy.kind}; feedforward policies and ensembles of them can be fine-tuned"
        )
    if policy.config.head == "mixture":
        raise ConfigError(
            "the policy has a mixture head, and what is fine-tuned is one Gaussian; clone with --head absolute, "
            "squared or gaussian"
        )
    config, channels = replace(policy.config, head="gaussian", horizon=1), len(policy.spec.actions)
    if residual is not None and not config.skip:
        config = replace(config, skip=True, skip_hidden=(*residual, channels) if limited else residual)
    elif residual is not None:
        carried = config.skip_hidden
        if limited and carried[-1:] != (channels,):
            raise ConfigError(
                "the policy carries a residual without a limit, and one with a limit is asked for; begin with a "
                "policy that carries none"
            )
        carried = carried[:-1] if limited else carried
        if carried != residual:
            raise ConfigError(
                f"the policy carries a residual with {_sizes(carried)}, and residual_hidden asks for "
                f"{_sizes(residual)}; ask for what it carries, or tune all"
            )
    result = FeedForward(policy.spec, config).initialized(0)
    mine, given = [*result.layers, *result.skip_maps()], [*policy.layers, *policy.skip_maps()]
    with torch.no_grad():
        for ours, theirs in zip(mine, given, strict=False):  # a new residual has nothing to take
            for into, values in zip(ours.parameters(), theirs.parameters(), strict=True):
                into.copy_(values[: len(into)])  # of a chunk (H * A) the first action
    if policy.statistics is not None:
        result.fit_scaling(*policy.statistics)
    result.data_fingerprint, result.notes = policy.data_fingerprint, policy.notes
    return result


def _sizes(hidden: tuple[int, ...]) -> str:
    return f"tanh layers of {', '.join(map(str, hidden))}" if hidden else "no hidden layer"


def own_log_deviation(policy: Policy) -> NDArray[np.float32]:
    """Log sigma (A,) that a Gaussian policy was trained with, of its first action; for an ensemble their mean.

    Raises:
        ConfigError: the policy has none.
    """
    members: list[Policy] = list(policy.members) if isinstance(policy, Ensemble) else [policy]
    arrays = [member.arrays().get("head.log_deviation") for member in members]
    if any(array is None for array in arrays):
        raise ConfigError("deviation is 'own', but the policy has none; train it with --head gaussian, or take spread")
    mean: NDArray[np.float32] = np.mean(arrays, 0)[: len(policy.spec.actions)]
    return mean
