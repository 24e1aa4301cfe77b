"""Honest evaluation: seeded starts, success with an interval, paired comparison, the same whatever the workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from understudy.agent import Agent
from understudy.collector import rollouts
from understudy.episode import SUCCESS, UNKNOWN, Episode
from understudy.errors import ConfigError, require_whole
from understudy.execution import PolicyAgent
from understudy.inference import Predictor
from understudy.recipe import LARGEST_SEED
from understudy.spec import Spec, spec_of
from understudy.statistics import ChannelStatistics
from understudy.worlds import World, make_env

EVALUATION_SEED = 10_000
SUSTAINED_STEPS = 25
MOST_EPISODES = 1_000_000
_RANGE_MARGIN = 0.1
_OPTIONS = ("execute", "ensemble_decay", "max_steps", "env_arguments")


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode of an evaluation.

    Args:
        index: number of the start.
        seed: that drew the start.
        success: whether the world's success rule was met; None where no start of the evaluation shows that it has one.
        sustained: whether success was reported on more than 25 steps (the rule of the DAPG authors).
        total_reward: sum of the rewards.
        length: steps.
        time_to_success_s: from the start to the first success at the world's control rate; None where there was none.
        start: first observation (D,).
        first_step_outside: first step whose observation lies outside of the training range, None where none does.
        channel_outside: name of the channel that left it.
    """

    index: int
    seed: int
    success: bool | None
    sustained: bool
    total_reward: float
    length: int
    time_to_success_s: float | None
    start: tuple[float, ...]
    first_step_outside: int | None = None
    channel_outside: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Success of one policy over seeded starts.

    Args:
        world: id of the world.
        seed: S; start i is `reset(seed=S + i)`.
        trials: one for each start, in order.
        options: how it was executed where that was not the default (`execute`, `ensemble_decay`, `max_steps`,
            `env_arguments`).
    """

    world: str
    seed: int
    trials: tuple[Trial, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        """Whether the world says what success is."""
        return any(trial.success is not None for trial in self.trials)

    @property
    def successes(self) -> int:
        """Starts that ended in success."""
        return sum(bool(trial.success) for trial in self.trials)

    @property
    def success_rate(self) -> float:
        """Share of successes, in [0, 1]."""
        return self.successes / len(self.trials)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the success rate (Wilson)."""
        return wilson_interval(self.successes, len(self.trials))

    @property
    def sustained_rate(self) -> float:
        """Share of starts with success on more than 25 steps."""
        return sum(trial.sustained for trial in self.trials) / len(self.trials)

    def __str__(self) -> str:
        if not self.is_judged:
            mean = float(np.mean([trial.total_reward for trial in self.trials]))
            return f"return {mean:.2f} over {len(self.trials)} (this world reports no success)"
        digits = 2
        while 0 < self.success_rate < 1 and round(self.success_rate, digits) in (0, 1):
            digits += 1  # what is neither none nor all never reads as such
        low, high = self.interval
        return f"success {self.success_rate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] of {len(self.trials)}"

    def to_json(self) -> dict[str, Any]:
        """The evaluation as plain JSON: the summary, then a row for each start."""
        returns = [trial.total_reward for trial in self.trials]
        times = [trial.time_to_success_s for trial in self.trials if trial.time_to_success_s is not None]
        judged = self.is_judged
        return {
            "world": self.world,
            "seed": self.seed,
            "success_rate": self.success_rate if judged else None,
            "interval": list(self.interval) if judged else None,
            "successes": self.successes if judged else None,
            "sustained_rate": self.sustained_rate if judged else None,
            **self.options,
            "mean_return": float(np.mean(returns)),
            "median_time_to_success_s": float(np.median(times)) if times else None,
            "episodes": [_row(trial) for trial in self.trials],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Evaluation:
        """The evaluation written by `to_json`.

        Raises:
            ConfigError: the value is not of that form.
        """
        try:
            trials = tuple(
                Trial(
                    total_reward=row["return"],
                    start=tuple(row["start"]),
                    **{key: item for key, item in row.items() if key not in ("return", "start")},
                )
                for row in value["episodes"]
            )
            return cls(value["world"], value["seed"], trials, {key: value[key] for key in _OPTIONS if key in value})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"this is no evaluation: {error}; make one with `understudy evaluate --json`") from error


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies on the same starts.

    Args:
        both, only_first, only_second, neither: starts by who succeeded.
        p_value: of McNemar's exact test (two-sided binomial test of the starts that only one of them solved).
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float

    @property
    def episodes(self) -> int:
        """Starts compared."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Success rate of the second minus that of the first."""
        return (self.only_second - self.only_first) / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference for paired proportions (Newcombe 1998, method 10)."""
        return _newcombe_paired(self.both, self.only_second, self.only_first, self.neither)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"second minus first {self.difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {self.p_value:.3g} (McNemar, "
            f"exact): both {self.both}, only first {self.only_first}, only second {self.only_second}, "
            f"neither {self.neither}"
        )

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        return {**asdict(self), "difference": self.difference, "interval": list(self.interval)}


def evaluate(
    world: World,
    policy: Predictor,
    *,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    workers: int = 1,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    max_steps: int | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Evaluation:
    """Success of a policy over `episodes` seeded starts; start i is `reset(seed=seed + i)`.

    Args:
        world: an env id, or a picklable function that builds the env.
        policy: what to evaluate; it runs in the form that `for_execution()` gives, where it has one.
        episodes: number of starts.
        seed: of the first start.
        workers: processes; the result does not depend on it.
        execute: actions of a chunk that are executed before the next is asked for, see PolicyAgent.
        ensemble_decay: of temporal ensembling instead, see PolicyAgent.
        max_steps: ends episodes earlier than the world does.
        on_trial: called after each episode, in order.

    Raises:
        ConfigError: `episodes`, `seed`, `max_steps` or an option of the execution is out of range.
        SpecMismatch: the policy was trained for other channels, another order, other units or another rate.
        WorkerError: a worker process died or hung.
    """
    require_whole("episodes", episodes, 1, MOST_EPISODES)
    require_whole("seed", seed, 0, LARGEST_SEED)
    require_whole("max_steps", max_steps, 1)
    spec = world_spec(world)
    policy.spec.require(spec, what=spec.env_id, against="the policy")
    statistics = getattr(policy, "statistics", None)
    agent = agent_for(policy, execute=execute, ensemble_decay=ensemble_decay)
    trials = []
    seeds = range(seed, seed + episodes)
    for index, episode in enumerate(rollouts(world, agent, seeds, workers=workers, max_steps=max_steps)):
        trial = judge(index, episode, spec, statistics[0] if statistics else None)
        trials.append(trial)
        on_trial(trial)
    if any(trial.success is not None for trial in trials):  # a world may speak of success only where there is one
        trials = [replace(trial, success=bool(trial.success)) for trial in trials]
    options = {"execute": execute, "ensemble_decay": ensemble_decay, "max_steps": max_steps}
    return Evaluation(
        spec.env_id, seed, tuple(trials), {name: value for name, value in options.items() if value is not None}
    )


def agent_for(policy: Predictor, *, execute: int | None = None, ensemble_decay: float | None = None) -> Agent:
    """The agent that runs a policy, trained or loaded, in the form that executes fastest."""
    prepare = getattr(policy, "for_execution", None)
    return PolicyAgent(prepare() if prepare else policy, execute=execute, ensemble_decay=ensemble_decay)


def world_spec(world: World) -> Spec:
    """The spec of a world, built for a moment to look at it."""
    env = make_env(world)
    try:
        return spec_of(env)
    finally:
        env.close()


def judge(index: int, episode: Episode, spec: Spec, training: ChannelStatistics | None = None) -> Trial:
    """What an evaluation keeps of an episode.

    Args:
        index: number of the start.
        episode: what happened.
        spec: of the world, for its rate and its channels' names.
        training: of the training observations; where given, the first step outside of their range is looked for, a
            tenth of the range allowed on either side.
    """
    succeeded = episode.success == SUCCESS
    first = int(np.argmax(episode.succeeded)) if episode.succeeded.any() else None
    step, channel = _first_outside(episode, training) if training else (None, None)
    return Trial(
        index=index,
        seed=episode.seed,
        success=None if episode.success == UNKNOWN else succeeded,
        sustained=int(episode.succeeded.sum()) > SUSTAINED_STEPS,
        total_reward=float(episode.rewards.sum(dtype=np.float64)),
        length=len(episode),
        time_to_success_s=(first + 1) / spec.control_hz
        if succeeded and first is not None and spec.control_hz
        else None,
        start=tuple(float(value) for value in episode.observations[0]),
        first_step_outside=step,
        channel_outside=None if channel is None else spec.observations[channel].name,
    )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compares two policies that were evaluated on the same starts of one world.

    Raises:
        ConfigError: the starts are not the same, by their seeds or by what was observed first, or the world reports no
            success.
    """
    if first.world != second.world or not _same_starts(first, second):
        asked = [(one.world, one.seed, len(one.trials), one.options.get("env_arguments")) for one in (first, second)]
        if asked[0] == asked[1]:
            raise ConfigError(
                f"the starts differ: {first.world} began differently from the same seeds; compare policies in a world "
                "that draws its start from reset(seed=...) alone, with the same --env-arg"
            )
        raise ConfigError(
            f"the starts differ ({first.world} from {first.seed}, {len(first.trials)} starts; {second.world} from "
            f"{second.seed}, {len(second.trials)} starts); evaluate both with the same --env, --env-arg, --seed and "
            "--episodes"
        )
    if not (first.is_judged or second.is_judged):
        raise ConfigError(f"{first.world} reports no success, so there is nothing to compare; use a world that does")
    outcomes = [(bool(a.success), bool(b.success)) for a, b in zip(first.trials, second.trials, strict=True)]
    only_first, only_second = outcomes.count((True, False)), outcomes.count((False, True))
    # Under "no difference" each start that only one solves is a fair coin; twice the smaller tail is two-sided.
    p_value = min(1.0, 2 * _heads_at_most(min(only_first, only_second), only_first + only_second))
    return Comparison(outcomes.count((True, True)), only_first, only_second, outcomes.count((False, False)), p_value)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927): unlike p +- z s it stays in [0, 1] and does not vanish at 0 and 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    center = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    # At none and all the formula gives 0 and 1, but for rounding.
    return max(0.0, center - half) if successes else 0.0, min(1.0, center + half) if successes < trials else 1.0


def episodes_needed(difference: float, discordant: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Starts that a paired comparison needs to see a true difference in success.

    n = (z_{1 - level/2} sqrt(d) + z_power sqrt(d - difference^2))^2 / difference^2 with d the share of starts that
    only one of the two solves (Connor 1987, sample size for McNemar's test).

    Args:
        difference: between the two success rates, in (0, 1].
        discordant: d, at least `difference`.
        power: chance to see it.
        level: of the two-sided test.

    Raises:
        ConfigError: `difference` or `discordant` is out of range.
    """
    difference = abs(difference)
    if not 0 < difference <= discordant <= 1:
        raise ConfigError(f"0 < difference <= discordant <= 1 is needed; got {difference} and {discordant}")
    needed, wanted = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    spread = needed * math.sqrt(discordant) + wanted * math.sqrt(discordant - difference**2)
    return math.ceil((spread / difference) ** 2)


def _same_starts(first: Evaluation, second: Evaluation) -> bool:
    if [trial.seed for trial in first.trials] != [trial.seed for trial in second.trials]:
        return False
    one, two = (np.concatenate([trial.start for trial in each.trials]) for each in (first, second))
    return one.shape == two.shape and np.allclose(one, two, rtol=1e-4, atol=1e-6)  # another processor rounds otherwise


def _heads_at_most(most: int, coins: int) -> float:
    """Chance of at most `most` heads of so many fair coins, added from the likeliest number down."""
    term, total = math.comb(coins, most) / 2**coins, 0.0
    while most >= 0 and term > total * 1e-17:
        total += term
        term *= most / (coins - most + 1)
        most -= 1
    return total


def _newcombe_paired(both: int, only_second: int, only_first: int, neither: int) -> tuple[float, float]:
    total = both + only_second + only_first + neither
    second, first = (both + only_second) / total, (both + only_first) / total
    low_second, high_second = wilson_interval(both + only_second, total)
    low_first, high_first = wilson_interval(both + only_first, total)
    # phi, the correlation of the two outcomes, narrows the interval where both tend to solve the same starts.
    product = (both + only_second) * (only_first + neither) * (both + only_first) * (only_second + neither)
    cross: float = both * neither - only_second * only_first
    if cross > 0:
        cross = max(cross - total / 2, 0)  # continuity correction of method 10
    phi = cross / math.sqrt(product) if product else 0.0
    below, above = second - low_second, high_first - first
    half_low = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    below, above = first - low_first, high_second - second
    half_high = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    difference = second - first
    return max(-1.0, difference - half_low), min(1.0, difference + half_high)


def _first_outside(episode: Episode, training: ChannelStatistics) -> tuple[int | None, int | None]:
    margin = _RANGE_MARGIN * np.maximum(training.maximum - training.minimum, training.scale * 0.1)
    outside = (episode.observations < training.minimum - margin) | (episode.observations > training.maximum + margin)
    steps = np.flatnonzero(outside.any(1))
    if not len(steps):
        return None, None
    return int(steps[0]), int(np.argmax(outside[steps[0]]))


def _row(trial: Trial) -> dict[str, Any]:
    row = asdict(trial)
    row["return"] = row.pop("total_reward")
    return {**row, "start": list(trial.start)}


def world_with(world: str, arguments: dict[str, Any], *, allow_module: bool = False) -> World:
    """A picklable function that builds a world with arguments (`reward="shaped"`)."""
    return partial(make_env, world, allow_module=allow_module, **arguments) if arguments or allow_module else world


def chosen_trials(evaluation: Evaluation, each: int) -> Sequence[Trial]:
    """Up to `each` failures and `each` successes, for a video of both."""
    failures = [trial for trial in evaluation.trials if not trial.success][:each]
    successes = [trial for trial in evaluation.trials if trial.success][:each]
    return successes + failures
