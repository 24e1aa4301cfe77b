"""The six gates of the DAgger family. Each answers one question per step: does the expert drive now?

Differences between actions are measured in half-ranges of the action channels, as the root mean square over the
channels (`tick.Measure`), so that one threshold means the same for rad/s, newtons and a gripper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, require_options, require_whole, require_within
from understudy.inference import Predictor
from understudy.interactive.ledger import takeovers
from understudy.interactive.risk import (
    Score,
    labelled_steps,
    learn_deviation,
    learn_success,
    member_proposals,
    require_verdicts,
)
from understudy.interactive.tick import Gate, Measure, Tick, measure_for
from understudy.policies import Policy
from understudy.recipe import LARGEST_SEED

_UNSAFE = 0.3  # share of the labelled steps that SafeDAgger calls unsafe where nobody says
_HASTE = 3.0  # times the takeovers of the running attempt count
_REMEMBERED = 50  # episodes over which novelty and risk are ranked
SCHEDULES = ("indicator", "constant", "linear", "exponential")


@dataclass
class DAggerGate(Gate):
    """DAgger: the expert labels what the policy does, and drives a share beta (Ross et al. 2011, algorithm 3.1).

    The demonstrations are the paper's first iteration, with beta = 1, so round k here is its iteration k + 1:

        indicator    beta = 0 from the first round on (the paper's parameter-free choice)
        constant     beta = b
        linear       beta = max(0, 1 - k / n)
        exponential  beta = b^k

    Args:
        schedule: of beta over the rounds: indicator, constant, linear or exponential.
        beta: b, the share or the base, from 0 to 1.
        fade_rounds: n, the round in which `linear` reaches 0.
        ask: share of the steps of the policy at which the expert is asked; 1 is the paper's. Neighbouring steps are
            nearly copies, so a smaller share buys labels from more episodes.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "dagger"
    schedule: str = "constant"
    beta: float = 0.5
    fade_rounds: int = 5
    ask: float = 1.0

    def __post_init__(self) -> None:
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, ", ".join(SCHEDULES))
        _require(0 <= self.beta <= 1, "beta", self.beta, "0 to 1")
        _require(self.fade_rounds >= 1, "fade_rounds", self.fade_rounds, "1 or more")
        _require(0 <= self.ask <= 1, "ask", self.ask, "0 to 1")
        for name, used_by in (("beta", ("constant", "exponential")), ("fade_rounds", ("linear",))):
            given = getattr(self, name) != getattr(DAggerGate, name)
            if given and self.schedule not in used_by:
                raise ConfigError(f"{name} is of the schedule {' or '.join(used_by)}; {self.schedule} knows none")

    def share(self, round: int) -> float:
        """Beta of a round, counted from 1."""
        match self.schedule:
            case "constant":  # Differs from Ross et al. 2011: their shares go to 0 in the mean.
                return self.beta
            case "linear":
                return max(0.0, 1 - round / self.fade_rounds)
            case "exponential":
                return self.beta**round
            case _:
                return 0.0

    def __call__(self, tick: Tick) -> bool:
        expert_drives, asked = tick.random.random(2) < (self.share(tick.round), self.ask)
        if asked:
            tick.label()
        return bool(expert_drives)


@dataclass
class SafeGate(Gate):
    """SafeDAgger: a learned classifier calls the expert where the policy would deviate (Zhang & Cho 2017).

    A step is unsafe where the deviation of the policy from the expert is above tau. The classifier sees the observation
    and the proposal, not the expert, so a step that it finds safe costs no label.

    Args:
        tau: deviation above which a step is unsafe, in half-ranges; the one that the share `unsafe` of the labelled
            steps exceeds where not given, in each round anew.
        unsafe: that share, between 0 and 1; 0.3 where neither is given.
        caution: the expert drives where the probability of "unsafe" is above 1 - caution; 0.5 is the paper's rule.
        ask: share of the policy's own steps at which the expert is asked all the same, so that the classifier also
            learns where it was wrong to find them safe; 0 is the paper's.
        seed: of the classifier's training.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "safe"
    tau: float | None = None
    unsafe: float | None = None
    caution: float = 0.5
    ask: float = 0.0
    seed: int = 0
    _is_unsafe: Score | None = field(default=None, init=False, repr=False)
    _tau: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        accepted = "above 0, in half-ranges of the actions"
        _require(self.tau is None or 0 < self.tau < np.inf, "tau", self.tau, accepted)
        if self.tau is not None and self.unsafe is not None:
            raise ConfigError("tau is the threshold itself, and unsafe a share that it follows from; give one of them")
        _require(self.unsafe is None or 0 < self.unsafe < 1, "unsafe", self.unsafe, "between 0 and 1")
        _require(0 < self.caution < 1, "caution", self.caution, "between 0 and 1")
        _require(0 <= self.ask <= 1, "ask", self.ask, "0 to 1")
        require_within("seed", self.seed, 0, LARGEST_SEED)
        self._tau = self.tau or 0.0

    def fit(self, dataset: Dataset, policy: Policy) -> None:
        steps = labelled_steps(dataset, policy)
        if self.tau is None:
            share = _UNSAFE if self.unsafe is None else self.unsafe
            self._tau = float(np.quantile(steps.deviation, 1 - share))
        self._is_unsafe = learn_deviation(steps, policy, self._tau, seed=self.seed)

    def __call__(self, tick: Tick) -> bool:
        assert self._is_unsafe is not None, "fit() comes first"
        if self.ask and tick.random.random() < self.ask:
            tick.label()
        return self._is_unsafe(tick.observation, tick.proposal) > 1 - self.caution


@dataclass
class LazyGate(SafeGate):
    """LazyDAgger: SafeDAgger's classifier calls the expert, who stays until the policy agrees (Hoque et al. 2021a).

    The expert hands back when the true deviation is below `tau_back`, which is smaller than tau: this hysteresis makes
    long takeovers of many short ones. While the expert drives, noise is added to what is executed and not to the
    label, so that the data show how to come back.

    Args:
        tau_back: deviation below which the policy drives again, in half-ranges, or tau where that is smaller;
            tau / sqrt(10) where not given, the authors' tenth of a squared deviation.
        settle: steps in a row at which they agree before the policy drives again; 1 is the paper's. An expert who is at
            its limits, as the policy is, agrees for a moment where nothing is over yet.
        noise: deviation of the noise on the expert's executed action, in half-ranges.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "lazy"
    tau_back: float | None = None
    settle: int = 1
    noise: float = 0.02
    _agreed: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = math.inf if self.tau is None else self.tau
        _require(self.tau_back is None or 0 < self.tau_back <= largest, "tau_back", self.tau_back, "above 0, up to tau")
        require_whole("settle", self.settle, 1)
        _require(0 <= self.noise < np.inf, "noise", self.noise, "0 or more")

    @property
    def expert_noise(self) -> float:
        return self.noise

    def __call__(self, tick: Tick) -> bool:
        if tick.driver == Driver.POLICY:
            self._agreed = 0  # each attempt begins here, so nothing is carried over
            return super().__call__(tick)
        # Differs from Hoque et al. 2021a: not squared, and at agreement the policy drives this step, not the next one.
        back = self._tau / math.sqrt(10) if self.tau_back is None else min(self.tau_back, self._tau)
        self._agreed = 0 if tick.deviation() > back else self._agreed + 1
        return self._agreed < self.settle


@dataclass
class HGGate(Gate):
    """HG-DAgger: the human takes over and hands back (Kelly et al. 2019, algorithm 1). Only driven steps are labelled.

    From the moments of the takeovers it learns how much doubt a person tolerated: with the doubts at all takeovers in
    their order, `doubt_threshold` is the mean of the last quarter (their eq. 4). It decides nothing here; it says
    from which doubt on a policy that runs alone should not be trusted.
    """

    name: ClassVar[str] = "hg"
    measures_doubt: ClassVar[bool] = True
    _doubts: list[float] = field(default_factory=list, init=False, repr=False)
    _robot: Predictor | None = field(default=None, init=False, repr=False)
    _measure: Measure | None = field(default=None, init=False, repr=False)

    @property
    def doubt_threshold(self) -> float | None:
        """In half-ranges; None before the first takeover, and where the policy is no ensemble."""
        last = self._doubts[3 * len(self._doubts) // 4 :]
        return float(np.mean(last)) if last else None

    def begin(self, policy: Policy, demos: Dataset | None = None) -> None:
        self._doubts = []

    def fit(self, dataset: Dataset, policy: Policy) -> None:
        self._measure = measure_for(policy)
        self._robot = policy.for_execution() if policy.shares > 1 else None

    def adapt(self, episode: Episode) -> None:
        if self._robot is not None and self._measure is not None and takeovers(episode).any():
            members = member_proposals(self._robot, episode)[:, takeovers(episode)]
            # Differs from Kelly et al. 2019: doubt from deviations in half-ranges, not from the covariance.
            self._doubts += [float(doubt) for doubt in self._measure.doubt(members)]

    def __call__(self, tick: Tick) -> bool:
        return tick.engaged


@dataclass
class EnsembleGate(Gate):
    """EnsembleDAgger: the policy drives only where it is sure and close to the expert (Menda et al. 2019).

    The expert is asked at every step: one rule is about the expert's own action.

    Args:
        tau: deviation from the expert above which the expert drives, in half-ranges.
        chi: doubt of the ensemble above which the expert drives, in half-ranges.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "ensemble"
    measures_doubt: ClassVar[bool] = True
    tau: float = 0.3
    chi: float = 0.1

    def __post_init__(self) -> None:
        _require(0 < self.tau < np.inf, "tau", self.tau, "above 0, in half-ranges of the actions")
        _require(0 < self.chi < np.inf, "chi", self.chi, "above 0, in half-ranges of the actions")

    def begin(self, policy: Policy, demos: Dataset | None = None) -> None:
        _require_ensemble(policy, self.name)

    def __call__(self, tick: Tick) -> bool:
        # Differs from Menda et al. 2019: doubt is a standard deviation, not a variance, so chi has the unit of tau.
        return tick.deviation() > self.tau or tick.doubt() > self.chi


@dataclass
class ThriftyGate(Gate):
    """ThriftyDAgger: the expert is called where the state is novel or risky, as often as a budget allows.

    Novelty is the doubt of the ensemble; risk is 1 - Q, with Q(o, a) the learned discounted probability of success
    (Hoque et al. 2021b, section 4). Both thresholds come from the budget: the quantiles of novelty and risk over what
    was visited lately at which one step in 1 / budget calls the expert. The expert hands back when the deviation is not
    above its mean, and the risk not above its median, over the same episodes.

    Args:
        budget: takeovers for each step that the policy drives, above 0 and up to 1.
        discount: gamma of Q, between 0 and 1.
        seed: of the training of Q.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "thrifty"
    measures_doubt: ClassVar[bool] = True
    budget: float = 0.01
    discount: float = 0.99
    seed: int = 0
    _success: Score | None = field(default=None, init=False, repr=False)
    _robot: Predictor | None = field(default=None, init=False, repr=False)
    _measure: Measure | None = field(default=None, init=False, repr=False)
    _visited: list[_Visited] = field(default_factory=list, init=False, repr=False)
    _unspent: float = field(default=0.0, init=False, repr=False)
    _lately: _Lately | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _require(0 < self.budget <= 1, "budget", self.budget, "takeovers for each step, above 0 and up to 1")
        _require(0 < self.discount < 1, "discount", self.discount, "between 0 and 1")
        require_within("seed", self.seed, 0, LARGEST_SEED)

    def begin(self, policy: Policy, demos: Dataset | None = None) -> None:
        _require_ensemble(policy, self.name)
        if demos is not None:
            require_verdicts(row.success for row in demos.rows)
        self._unspent = 0.0

    def fit(self, dataset: Dataset, policy: Policy) -> None:
        self._measure, self._robot = measure_for(policy), policy.for_execution()
        self._success = learn_success(dataset, policy, self.discount, seed=self.seed)
        last = range(max(0, len(dataset) - _REMEMBERED), len(dataset))
        self._visited = [self._look(dataset[index]) for index in last]
        self._look_back()

    def adapt(self, episode: Episode) -> None:
        self._visited = [*self._visited, self._look(episode)][-_REMEMBERED:]
        alone = int((episode.driver == Driver.POLICY).sum())
        self._unspent += self.budget * alone - int(takeovers(episode).sum())
        self._look_back()

    def __call__(self, tick: Tick) -> bool:
        assert self._success is not None, "fit() comes first"
        assert self._lately is not None
        risk = 1 - self._success(tick.observation, tick.proposal)
        if tick.driver == Driver.EXPERT:
            return tick.deviation() > self._lately.agreement or risk > self._lately.calm
        novel, risky = self._limits(tick.alone, tick.takeovers)
        return tick.doubt() > novel or risk > risky

    def _limits(self, alone: int = 0, takeovers: int = 0) -> tuple[float, float]:
        """Novelty and risk above either of which the policy calls, after so much of an attempt."""
        assert self._lately is not None, "fit() comes first"
        # Differs from Hoque et al. 2021b: the share follows the takeovers so far, and expert-driven steps count too.
        # Each takeover behind the budget doubles the share of steps that would call. Those of the running attempt count
        # several times: one that takes long is stuck, whatever novelty and risk say of it.
        unspent = self._unspent + _HASTE * (self.budget * alone - takeovers)
        return self._lately.above(min(0.5, self.budget * 2 ** min(unspent, 100)))

    def _look(self, episode: Episode) -> _Visited:
        assert self._robot is not None, "fit() comes first"
        assert self._measure is not None
        assert self._success is not None
        members = member_proposals(self._robot, episode)  # (M, T, A)
        spec = self._robot.spec
        proposals = members.mean(0).clip(spec.action_low, spec.action_high)
        targets, advised = episode.targets()
        return _Visited(
            self._measure.doubt(members),
            1 - self._success.each(episode.observations[:-1], proposals),
            self._measure.deviation(proposals, targets)[advised],
        )

    def _look_back(self) -> None:
        self._lately = _Lately(*(np.concatenate(columns) for columns in zip(*self._visited, strict=True)))


class _Visited(NamedTuple):
    """Novelty (T,), risk (T,), and deviation at the steps that the expert advised on (at most T)."""

    novelty: NDArray[np.float32]
    risk: NDArray[np.float32]
    deviation: NDArray[np.float32]


class _Lately:
    """What was visited lately, in order; the policy drives again where it is above neither `agreement` nor `calm`."""

    def __init__(self, novelty: NDArray[np.float32], risk: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
        self._novelty, self._risk = np.sort(novelty), np.sort(risk)
        ranks = [np.argsort(np.argsort(column, kind="stable"), kind="stable") for column in (novelty, risk)]
        self._worst = np.sort(np.maximum(*ranks))  # a step calls for its higher rank
        self.agreement = float(deviation.mean()) if len(deviation) else 0.0
        self.calm = float(np.median(risk))

    def above(self, share: float) -> tuple[float, float]:
        """Novelty and risk at one and the same quantile of each, above either of which lies `share` of the steps."""
        # Differs from Hoque et al. 2021b: two separate quantiles together call up to twice as often as the budget says.
        steps = len(self._worst)
        rank = self._worst[max(0, min(steps - 1, round((1 - share) * steps) - 1))]
        return float(self._novelty[rank]), float(self._risk[rank])


GATES: dict[str, type[Gate]] = {
    gate.name: gate for gate in (DAggerGate, SafeGate, LazyGate, HGGate, ThriftyGate, EnsembleGate)
}


def gate_for(name: str, options: Mapping[str, Any] | None = None) -> Gate:
    """The gate that a user names.

    Args:
        name: dagger, safe, lazy, hg, thrifty or ensemble.
        options: its fields by name; those left out keep their defaults.

    Raises:
        ConfigError: there is no such gate, it has no such option, or a value is out of range.
    """
    if name not in GATES:
        raise ConfigError(f"no gate is called {name!r}; accepted: {', '.join(GATES)}")
    require_options(f"the gate {name}", GATES[name], options or {})
    return GATES[name](**(options or {}))


def _require_ensemble(policy: Policy, gate: str) -> None:
    if policy.shares < 2:
        raise ConfigError(f"the gate {gate} measures doubt and needs an ensemble; train with 2 members or more")


def _require(holds: bool, name: str, value: object, accepted: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; accepted: {accepted}")
