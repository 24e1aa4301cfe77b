"""Exporting a policy to ONNX: written only after it has said the same as the policy, on random and recorded inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from understudy.dataset import Dataset
from understudy.durable import write_file
from understudy.errors import ConfigError, PolicyError, require_within
from understudy.inference import Predictor
from understudy.onnx_file import SUFFIX, to_onnx
from understudy.onnx_predictor import OnnxPredictor
from understudy.policy_file import PolicyFile
from understudy.statistics import ChannelStatistics

LARGEST_DIFFERENCE = 1e-5
_MARGIN = 0.1
_MOST_RECORDED = 5_000
_LAST_DIGITS = 4


class Exportable(Predictor, Protocol):
    """A trained policy, as `train` and `load` give it."""

    def to_file(self) -> PolicyFile:
        """What a policy folder says of it."""
        ...

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its weights by name."""
        ...


@dataclass(frozen=True, slots=True)
class Export:
    """An exported policy, and how well it repeats the one that it was made of.

    Args:
        path: the file.
        difference: the largest between the two, of any action, as a share of the channel's range.
        channel: where that is.
        random: observations drawn for the comparison.
        recorded: observations of recorded episodes.
    """

    path: Path
    difference: float
    channel: str
    random: int
    recorded: int

    def __str__(self) -> str:
        recorded = f" and {self.recorded:,} recorded" if self.recorded else ""
        return (
            f"{self.path}: differs from the policy by at most {self.difference:.1e} of the range of an action "
            f"({self.channel or 'unnamed'}), on {self.random:,} random{recorded} observations"
        )


def export(policy: Exportable, path: Path | str, data: Dataset | None = None, *, draws: int = 1000) -> Export:
    """Writes a policy to one ONNX file that needs neither torch nor the policy's folder.

    Both are asked about random observations, uniform over the training range and a tenth of it on either side, and
    about those of `data`. The range of an action is that of its limits, or what it had in training where it has none.

    Args:
        policy: trained or loaded.
        path: the new file, called `.onnx`.
        data: recorded episodes, of which at most 5,000 steps, evenly spread, are compared.
        draws: random observations.

    Raises:
        ConfigError: the name does not end in `.onnx`, or `draws` is below 1.
        PolicyError: the file exists, the policy has no graph, or the exported one says something else; then nothing
            is written.
        SpecMismatch: the data are of another task.
        MissingDependency: onnxruntime is not installed.
        StorageError: the disk is full or failed.
    """
    path = Path(path)
    require_within("draws", draws, 1)
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path} does not end in {SUFFIX}, by which an exported policy is known; name it so")
    if path.exists():
        raise PolicyError(f"{path} exists; an exported policy is never overwritten; name another file")
    if data is not None:
        policy.spec.require(data.spec, what=str(data.path), against="the policy")
    file = policy.to_file()
    model = to_onnx(file, policy.arrays())
    exported = OnnxPredictor(file, model)
    ranges = _ranges(policy, file.statistics[1])
    worst = np.zeros(len(ranges))
    recorded = 0
    with ThreadpoolController().limit(limits=1):  # for one observation, threads cost far more than they save
        for observations in _drawn(policy, file.statistics[0], draws):
            worst = np.maximum(worst, _difference(policy, exported, observations) / ranges)
        for observations in _recorded(policy, data) if data is not None else ():
            worst = np.maximum(worst, _difference(policy, exported, observations) / ranges)
            recorded += 1
    channel = int(np.argmax(worst))
    if not worst[channel] <= LARGEST_DIFFERENCE:
        raise PolicyError(
            f"the exported policy differs by {worst[channel]:.1e} of the range of action channel {channel} "
            f"({policy.spec.actions[channel].name}), more than {LARGEST_DIFFERENCE:g}; nothing was written"
        )
    write_file(path, model)
    return Export(path, float(worst[channel]), policy.spec.actions[channel].name, draws, recorded)


def _difference(policy: Predictor, exported: Predictor, observations: NDArray[np.float32]) -> NDArray[np.float64]:
    """(A,) the largest of each action channel in a chunk; infinite where one of the two is no number."""
    difference = np.abs(policy.predict(observations).astype(np.float64) - exported.predict(observations)).max(0)
    return np.where(np.isnan(difference), np.inf, difference)


def _ranges(policy: Predictor, trained: ChannelStatistics) -> NDArray[np.float64]:
    """(A,) what a difference is measured by."""
    limits = policy.spec.action_high.astype(np.float64) - policy.spec.action_low
    seen = trained.maximum.astype(np.float64) - trained.minimum
    ranges = np.where(np.isfinite(limits), limits, seen)
    # Two ways to add up differ by the last digits of the numbers, however little a channel moves.
    digits = np.finfo(np.float32).eps * np.maximum(np.abs(trained.maximum), np.abs(trained.minimum)).astype(np.float64)
    ranges = np.maximum(ranges, _LAST_DIGITS * digits / LARGEST_DIFFERENCE)
    return np.where(ranges > 0, ranges, 1.0)


def _drawn(policy: Predictor, trained: ChannelStatistics, draws: int) -> Iterator[NDArray[np.float32]]:
    random = np.random.default_rng(0)
    low, high = trained.minimum.astype(np.float64), trained.maximum.astype(np.float64)
    margin = _MARGIN * (high - low)
    for _ in range(draws):
        yield random.uniform(low - margin, high + margin, (policy.history, len(low))).astype(np.float32)


def _recorded(policy: Predictor, data: Dataset) -> Iterator[NDArray[np.float32]]:
    """The last `history` observations (history, D) of recorded steps, as an agent would have seen them."""
    every = max(1, -(-data.steps // _MOST_RECORDED))
    before, next_step = np.arange(1 - policy.history, 1), 0
    for episode in data:
        for step in range(next_step, len(episode), every):
            yield episode.observations[np.maximum(step + before, 0)]
            next_step = step + every
        next_step = max(0, next_step - len(episode))
