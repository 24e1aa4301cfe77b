"""The recipe: how a policy is trained, without torch, so that a command line can read and print it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from understudy.errors import ConfigError, require_within

LARGEST_SEED = 2**32 - 1  # members of an ensemble draw from multiples of it, and generators take 64 bits
MOST_THREADS = 1024


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
        failures: learn also from episodes that are known to have failed.
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
    failures: bool = False
    held_out: float = 0.1
    keep: str = "best"
    measure_every: int = 500
    seed: int = 0
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "measure_every"):
            require_within(name, getattr(self, name), 1)
        require_within("threads", self.threads, 1, MOST_THREADS)
        for name in ("learning_rate", "gradient_clip"):
            _require(0 < getattr(self, name) < math.inf, self, name, "above 0")
        for name in ("weight_decay", "observation_noise"):
            _require(0 <= getattr(self, name) < math.inf, self, name, "0 or more")
        for name in ("warmup", "ema", "held_out"):
            _require(0 <= getattr(self, name) < 1, self, name, "0 or more and below 1")
        require_within("lead", self.lead, 0, 1000)
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
        warm: each training goes on from the weights of the last one; without it each begins anew.
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
        for name in ("rounds", "episodes"):
            require_within(name, getattr(self, name), 1)
        require_within("max_steps", self.max_steps, 1)
        require_within("after_success", self.after_success, 0)
        require_within("progress_starts", self.progress_starts, 0)
        _require(self.cap is None or 0 < self.cap < math.inf, self, "cap", "above 0, in half-ranges of the actions")


def _require(holds: bool, config: TrainConfig | DAggerConfig, name: str, accepted: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {getattr(config, name)!r}; accepted: {accepted}")


# Labels belong to the observation they were given for: a lead would pair them with another, where the policy drove.
# Where policy and expert take turns, labels jump from step to step: noise on the observations, or a step chosen by the
# loss on one or two held-out episodes, costs more than it gives.
DAGGER_RECIPE = TrainConfig(
    steps=8_000,
    learning_rate=2e-3,
    lead=0,
    observation_noise=0.0,
    held_out=0.0,
    keep="last",
    failures=True,  # what the expert says of a lost attempt is what the policy does not know yet
)
