"""The recipe: how a policy is trained, without torch, so that a command line can read and print it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from understudy.errors import ConfigError, require_whole, require_within
from understudy.network_shape import WIDEST, FeedForwardConfig

LARGEST_SEED = 2**32 - 1  # members of an ensemble draw from multiples of it, and generators take 64 bits
MOST_THREADS = 1024
LONGEST_LEAD = 1000
DEVIATIONS = ("spread", "residual", "own", "range")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a policy is trained.

    Args:
        steps: updates of the weights.
        batch_size: windows in each update; for an ensemble, for each member.
        learning_rate: of AdamW, reached after `warmup` and brought to 0 along a cosine.
        warmup: share of the steps over which the learning rate rises.
        weight_decay: of AdamW.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average of the weights, which is what becomes the policy; 0 turns it off.
        observation_noise: deviation of Gaussian noise on the observations, in deviations of each channel.
        lead: steps from the newest observation to the first action of a chunk; where not given it follows from the pace
            of the demonstrations (`windows.natural_lead`).
        clip_targets: cut recorded actions to the limits of the action channels.
        failures: learn from episodes that failed, too. Leave them out where the expert itself fails at times: what it
            does in a lost attempt is no example.
        held_out: share of the episodes that are kept out of training to measure the loss on.
        keep: `last` weights, or those with the `best` held-out loss.
        measure_every: steps between two measurements of the held-out loss, each with a checkpoint.
        seed: of the split, the order of the data and the noise.
        device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, ...
        threads: torch threads; 1 is the fastest for small networks.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int = 8_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: float = 0.02
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    ema: float = 0.999
    observation_noise: float = 0.02
    lead: int | None = None
    clip_targets: bool = True
    failures: bool = True
    held_out: float = 0.1
    keep: str = "best"
    measure_every: int = 500
    seed: int = 0
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "measure_every"):
            require_whole(name, getattr(self, name), 1)
        require_whole("threads", self.threads, 1, MOST_THREADS)
        for name in ("learning_rate", "gradient_clip"):
            _require(0 < getattr(self, name) < math.inf, self, name, "above 0")
        for name in ("weight_decay", "observation_noise"):
            _require(0 <= getattr(self, name) < math.inf, self, name, "0 or more")
        for name in ("warmup", "ema", "held_out"):
            _require(0 <= getattr(self, name) < 1, self, name, "0 or more and below 1")
        require_whole("lead", self.lead, 0, LONGEST_LEAD)
        _require(self.keep in ("last", "best"), self, "keep", "last or best")
        require_within("seed", self.seed, 0, LARGEST_SEED)


@dataclass(frozen=True, slots=True)
class DAggerConfig:
    """How the rounds go.

    Args:
        rounds: of collecting and training.
        episodes: collected in each round.
        max_steps: ends a collected episode earlier than the world does.
        after_success: steps that a collected episode goes on after its first success; None for the world's own end.
        warm: each training goes on from the weights of the last one, so that no episode can be held out; without it
            each begins anew.
        cap: largest deviation of the policy from the expert, in half-ranges of the actions (root mean square), above
            which the expert drives whatever the gate says. For dangerous early rounds; it asks the expert at every
            step, and those labels count. Off where not given.
        progress_starts: starts on which each round's policy is measured alone; they are no evaluation starts, so a
            person may stop by what they show.

    Raises:
        ConfigError: a value is out of range.
    """

    rounds: int = 5
    episodes: int = 20
    max_steps: int | None = None
    after_success: int | None = 10
    warm: bool = False
    cap: float | None = None
    progress_starts: int = 20

    def __post_init__(self) -> None:
        for name in ("rounds", "episodes", "max_steps"):
            require_whole(name, getattr(self, name), 1)
        for name in ("after_success", "progress_starts"):
            require_whole(name, getattr(self, name), 0)
        _require(self.cap is None or 0 < self.cap < math.inf, self, "cap", "above 0, in half-ranges of the actions")


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """How a policy goes on learning from a reward.

    Args:
        steps: of the world that may be spent before the final policy, all of them: training episodes, replays of
            demonstrations for their states, and the episodes that judge.
        episodes: in each batch.
        max_steps: ends an episode earlier than the world does; needed for a world that names no limit.
        gamma: discount of a step.
        gae_lambda: of generalised advantage estimation; TD3 uses neither it nor any of `value_...`.
        tune: `all` weights of the policy; or its `residual`, a small map of the scaled observation that is added to
            what the policy does, beginning at 0, while the policy stays frozen.
        residual_hidden: sizes of the residual's tanh layers; it is linear without any.
        residual_limit: that no channel of the residual goes beyond, in first deviations of the exploration, so that it
            stays where something was tried; none where not given.
        deviation: the first deviation of the Gaussian: `spread`, that of the demonstrated actions; `residual`, what the
            policy leaves unexplained of them; `own`, the one a Gaussian policy was trained with; `range`, half of the
            range of each action.
        deviation_factor: multiplies it.
        least_deviation: that it never goes below, in half-ranges of the actions; nor below exp(-5) deviations of the
            demonstrated ones.
        correlation: of the exploration from one step to the next, in [0, 1).
        judge_episodes: by which each candidate is judged at the end: the best and the last policy, each as a
            distribution and as its mean, and the mean of the average. 0 deploys the mean of the best without a trial.
        average: decay from batch to batch, in [0, 1), of an average of the weights that is a candidate; 0 for none.
        best_window: batches whose mean success says which policy was the best.
        value_inputs: what the value network sees of an observation: `scaled`, deviations cut to +- 10; or `raw`, its
            own units cut to +- 10 and divided by 10, which leaves little of it beside the time.
        value_hidden: sizes of the value network's hidden layers.
        value_epochs: over each batch.
        value_first_epochs: over the first batch, before its advantages are computed; 0 for none.
        value_batch: steps in each update of the value network.
        value_learning_rate: of Adam.
        value_weight_decay: of Adam.
        value_targets: `returns`, the discounted returns; or `gae`, advantage plus value.
        value_clip: how far the value may move in a batch, in deviations of the returns, before its loss is clipped; off
            where not given.
        seed: of the starts, the noise and the order of the data.
        threads: torch threads; 1 is the fastest for small networks.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int = 200_000
    episodes: int = 20
    max_steps: int | None = None
    gamma: float = 0.995
    gae_lambda: float = 0.97
    tune: str = "all"
    residual_hidden: tuple[int, ...] = ()
    residual_limit: float | None = None
    deviation: str = "spread"
    deviation_factor: float = 1.0
    least_deviation: float = 0.01
    correlation: float = 0.0
    judge_episodes: int = 10
    average: float = 0.0
    best_window: int = 3
    value_inputs: str = "scaled"
    value_hidden: tuple[int, ...] = (128, 128)
    value_epochs: int = 2
    value_first_epochs: int = 20
    value_batch: int = 64
    value_learning_rate: float = 1e-3
    value_weight_decay: float = 1e-3
    value_targets: str = "returns"
    value_clip: float | None = None
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "judge_episodes", "value_epochs", "value_first_epochs"):
            require_whole(name, getattr(self, name), 0)
        for name in ("episodes", "max_steps", "best_window", "value_batch"):
            require_whole(name, getattr(self, name), 1)
        require_whole("seed", self.seed, 0, LARGEST_SEED)
        require_whole("threads", self.threads, 1, MOST_THREADS)
        for name in ("gamma", "gae_lambda"):
            require_within(name, getattr(self, name), 0, 1)
        for name in ("correlation", "average"):
            _require(0 <= getattr(self, name) < 1, self, name, "0 or more and below 1")
        _require(self.tune in ("all", "residual"), self, "tune", "all or residual")
        _require(self.deviation in DEVIATIONS, self, "deviation", ", ".join(DEVIATIONS))
        _require(self.value_inputs in ("scaled", "raw"), self, "value_inputs", "scaled or raw")
        _require(self.value_targets in ("returns", "gae"), self, "value_targets", "returns or gae")
        for name in ("deviation_factor", "least_deviation", "value_learning_rate"):
            _require(0 < getattr(self, name) < math.inf, self, name, "above 0")
        _require(0 <= self.value_weight_decay < math.inf, self, "value_weight_decay", "0 or more")
        _require(self.value_clip is None or 0 < self.value_clip < math.inf, self, "value_clip", "above 0")
        _require(len(self.value_hidden) >= 1, self, "value_hidden", "one or more sizes above 0")
        for name in ("value_hidden", "residual_hidden"):
            fits = all(1 <= size <= WIDEST for size in getattr(self, name))
            _require(fits, self, name, f"sizes from 1 to {WIDEST}")
        _require(
            not self.residual_hidden or self.tune == "residual", self, "residual_hidden", "none where all is tuned"
        )
        limit = self.residual_limit
        _require(limit is None or 0 < limit < math.inf, self, "residual_limit", "above 0")
        _require(limit is None or self.tune == "residual", self, "residual_limit", "none where all is tuned")


def _require(holds: bool, config: TrainConfig | DAggerConfig | FinetuneConfig, name: str, accepted: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {getattr(config, name)!r}; accepted: {accepted}")


DAGGER_SHAPE = FeedForwardConfig(hidden=(128, 128))  # small, since each round trains one
# Labels belong to the observation they were given for: a lead would pair them with another, where the policy drove.
# And they jump from step to step where policy and expert take turns: noise on the observations, or a step chosen by the
# loss on one or two held-out episodes, costs more than it gives.
DAGGER_RECIPE = TrainConfig(
    steps=8_000,
    learning_rate=2e-3,
    lead=0,
    observation_noise=0.0,
    held_out=0.0,
    keep="last",
)
