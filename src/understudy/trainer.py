"""The trainer: one loop for every policy that learns from a dataset."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.checkpoint import TrainingState, load_state, save, save_state
from understudy.cuda_graph import Recording
from understudy.dataset import Dataset
from understudy.errors import ConfigError, DataError, PolicyError, TrainingDiverged
from understudy.policies.base import Policy
from understudy.policy_file import weights_fingerprint
from understudy.recipe import TrainConfig
from understudy.runs import working_in
from understudy.windows import Windows

_STATE_PARTS = ("weights", "averaged", "best", "exp_avg", "exp_avg_sq")
_MOST_MEASURED_ROWS, _MOST_MEASURED_NUMBERS = 4096, 2**24  # of the held-out windows at once


@dataclass(frozen=True, slots=True)
class TrainLog:
    """Progress of training.

    Args:
        step, steps: done and to be done.
        loss: mean training loss since the last log.
        held_out_loss: on the held-out episodes, of the averaged weights, without noise; NaN where none are held out.
        samples_per_s: windows trained on in a second since the last log.
        time_left_s: at this speed.
    """

    step: int
    steps: int
    loss: float
    held_out_loss: float
    samples_per_s: float
    time_left_s: float

    @property
    def losses(self) -> str:
        """The losses in words."""
        held_out = "" if math.isnan(self.held_out_loss) else f", held out {self.held_out_loss:.4f}"
        return f"loss {self.loss:.4f}{held_out}"


def train(
    policy: Policy,
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    run: Path | str | None = None,
    resume: bool = False,
    on_log: Callable[[TrainLog], None] = lambda log: None,
    on_step: Callable[[int], None] = lambda step: None,
    notes: Mapping[str, Any] | None = None,
) -> Policy:
    """A new policy, trained on the dataset; `policy` itself stays as it is.

    Each step draws a batch, adds noise to its observations, takes one AdamW step with a clipped gradient, and moves
    the averaged weights. A policy that has no scaling yet gets that of the training episodes; one that was trained
    before keeps its own. Held-out episodes change no weight; with `keep="best"` they choose which step is kept.

    Args:
        policy: shape and first weights.
        dataset: what to learn from.
        config: how.
        run: folder for metrics, checkpoints and the policy; nothing is written without it.
        resume: continue the run in that folder; the result is the same bytes as without the interruption.
        on_log: called after each measurement.
        on_step: called before each step with the number of those done, to show progress between measurements.
        notes: kept in the run's config.

    Raises:
        ConfigError: the run's folder is not empty, or `device` is not there.
        SpecMismatch: the policy is for other channels than the dataset's.
        DataError: the dataset cannot be trained on.
        TrainingDiverged: the loss became infinite or no number.
        PolicyError: the checkpoint to resume from cannot be read.
        StorageError: the disk is full or failed.
    """
    config = config or TrainConfig()
    policy.spec.require(dataset.spec, what="the dataset", against="the policy")
    device = choose_device(config.device)
    config = replace(config, device=str(device))  # a run that goes on elsewhere gives other bytes
    description = {
        "command": "train",
        "policy": {"kind": policy.kind, **policy.architecture()},
        "train": asdict(config),
        "data_fingerprint": dataset.fingerprint,
        "spec": dataset.spec.to_json(),
        # A policy that was trained before keeps its scaling, so a resumed run must go on from the same one.
        **({"start_fingerprint": weights_fingerprint(policy.arrays())} if policy.statistics is not None else {}),
        **(notes or {}),
    }
    learnt_from = dataset if config.failures else dataset.without_failures()
    if len(dataset) and not len(learnt_from):
        raise DataError(f"all {len(dataset)} episodes failed; record some that succeed, or learn from failures, too")
    with working_in(run, description, resume=resume) as folder, torch_threads(config.threads):
        training, held_out = learnt_from.split(config.held_out, seed=config.seed)
        if not any(episode.targets()[1].any() for episode in training):
            training, held_out = learnt_from, learnt_from.select([])  # whatever teaches is needed to learn from
        windows, measured = _windows(policy, training, held_out, config, device)
        network = copy.deepcopy(policy).to(device).train()
        if network.statistics is None:
            network.fit_scaling(*windows.statistics())
        job = _Job(network, windows, measured, config)
        if folder and folder.checkpoint.exists():
            job.restore(load_state(folder.checkpoint))
        if folder and resume:
            folder.rewind(job.step)
        for log in job.run(on_step):
            if folder:
                # Metrics first: a resumed job forgets rows after its checkpoint, and could not write those before it.
                folder.log({**asdict(log), "lr": job.learning_rate(log.step - 1)})
                save_state(folder.checkpoint, job.state())
            on_log(log)
        result = job.result()
        result.acts, result.data_fingerprint = "mean", dataset.fingerprint
        result.notes = f"trained with a lead of {windows.lead} steps"
        if folder and not folder.policy.exists():
            save(result, folder.policy)
    return result


def _windows(
    policy: Policy, training: Dataset, held_out: Dataset, config: TrainConfig, device: torch.device
) -> tuple[Windows, Windows | None]:
    """Windows of the training episodes, and those of the held-out ones cut in the same way."""

    def cut(dataset: Dataset, lead: int | None) -> Windows:
        return Windows(dataset, policy.history, policy.horizon, lead=lead, clip=config.clip_targets, device=device)

    windows = cut(training, config.lead)
    # Held-out episodes that the policy drove unasked, or that end before the lead, have nothing to measure on.
    measurable = any(episode.targets()[1][windows.lead :].any() for episode in held_out)
    return windows, cut(held_out, windows.lead) if measurable else None


class _Job:
    """The state of one training, and how a step changes it."""

    def __init__(self, network: Policy, windows: Windows, measured: Windows | None, config: TrainConfig) -> None:
        self._network, self._windows, self._measured, self._config = network, windows, measured, config
        self._parameters = _learnt(network)
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        # What a loss that may not be recorded writes down beside its parameters, like running means.
        self._written = [] if network.loss_can_be_recorded else list(network.buffers())
        self._averaged = [parameter.detach().clone() for parameter in self._parameters]
        self._best = [parameter.clone() for parameter in self._averaged]
        self._best_loss, self._best_step = math.inf, 0
        self._batches = Batches(len(windows), config.batch_size, config.seed, shares=network.shares)
        # The parts of a batch have gradients of their own, and so have a share each in the norm.
        self._gradient_clip = config.gradient_clip * math.sqrt(network.shares)
        assert network.statistics is not None, "scaling is fitted before"
        noise = config.observation_noise * network.statistics[0].deviation
        self._noise = torch.from_numpy(noise).to(self._parameters[0].device)
        self._noise_shape = (self._batches.batch_size, network.history, len(network.spec.observations))
        self._gradient: Callable[..., Tensor] = self._computed_gradient
        self.step = 0
        if self._noise.is_cuda and network.loss_can_be_recorded:
            self._gradient = Recording(self._computed_gradient, *self._drawn())

    def run(self, on_step: Callable[[int], None]) -> Iterator[TrainLog]:
        """Trains to the end, with a log after each `measure_every` steps."""
        config = self._config
        while self.step < config.steps:
            begun, begun_s, total = self.step, time.perf_counter(), torch.zeros((), device=self._noise.device)
            until = min(config.steps, (self.step // config.measure_every + 1) * config.measure_every)
            while self.step < until:
                on_step(self.step)
                total += self._update()
                self.step += 1
            mean = float(total) / (self.step - begun)  # a GPU has done its work once this is known
            trained_s = time.perf_counter() - begun_s
            if not math.isfinite(mean):
                raise TrainingDiverged(
                    f"the loss is {mean} at step {self.step}; try a lower learning_rate (now "
                    f"{config.learning_rate:g}), or look at the data with `understudy inspect`"
                )
            steps = self.step - begun
            held_out_loss = self._measure()
            yield TrainLog(
                self.step,
                config.steps,
                mean,
                held_out_loss,
                steps * self._batches.batch_size / trained_s,
                (config.steps - self.step) * (time.perf_counter() - begun_s) / steps,
            )

    def learning_rate(self, step: int) -> float:
        """Linear warmup, then half a cosine down to 0."""
        warmup = max(1, round(self._config.warmup * self._config.steps))
        if step < warmup:
            return self._config.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self._config.steps - warmup)
        return self._config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def result(self) -> Policy:
        """The policy that is kept, on the CPU."""
        chosen = self._best if self._config.keep == "best" and self._measured else self._averaged
        result = copy.deepcopy(self._network)
        with torch.no_grad():
            for parameter, value in zip(_learnt(result), chosen, strict=True):
                parameter.copy_(value)
        result.zero_grad(set_to_none=True)
        return result.cpu().eval()

    def state(self) -> TrainingState:
        """Everything that a resumed job needs to go on with the same bytes."""
        tensors: dict[str, Tensor] = {}
        for index, parameter in enumerate(self._parameters):
            moments = self._optimizer.state[parameter]
            tensors |= {
                f"{index}.weights": parameter,
                f"{index}.averaged": self._averaged[index],
                f"{index}.best": self._best[index],
                f"{index}.exp_avg": moments["exp_avg"],
                f"{index}.exp_avg_sq": moments["exp_avg_sq"],
            }
        tensors |= {f"buffer.{index}": buffer for index, buffer in enumerate(self._written)}
        return TrainingState(self.step, self._best_step, self._best_loss, tensors)

    def restore(self, state: TrainingState) -> None:
        """Goes back to where `state` was taken."""
        expected = {f"{index}.{part}" for index in range(len(self._parameters)) for part in _STATE_PARTS}
        expected |= {f"buffer.{index}" for index in range(len(self._written))}
        if state.tensors.keys() != expected:
            raise PolicyError("the checkpoint is of another network; start the run anew in another folder")
        self.step, self._best_step, self._best_loss = state.step, state.best_step, state.best_loss
        device = self._noise.device
        with torch.no_grad():
            for index, buffer in enumerate(self._written):
                buffer.copy_(state.tensors[f"buffer.{index}"])
            for index, parameter in enumerate(self._parameters):
                parameter.copy_(state.tensors[f"{index}.weights"])
                self._averaged[index].copy_(state.tensors[f"{index}.averaged"])
                self._best[index].copy_(state.tensors[f"{index}.best"])
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.step), device=device),
                    "exp_avg": state.tensors[f"{index}.exp_avg"].to(device),
                    "exp_avg_sq": state.tensors[f"{index}.exp_avg_sq"].to(device),
                }

    def _update(self) -> Tensor:
        """One step: batch, noise, gradient, clip, AdamW, average. Returns the loss, ()."""
        config = self._config
        with self._drawing():
            loss = self._gradient(*self._drawn())
        self._optimizer.param_groups[0]["lr"] = self.learning_rate(self.step)
        self._optimizer.step()
        # A young average forgets faster, or it would still hold the random first weights at the end of a short job.
        decay = min(config.ema, (self.step + 1) / (self.step + 10)) if config.ema else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._parameters, 1 - decay)
        return loss / self._network.shares

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """What a network draws itself (dropout) is a function of seed and step, and disturbs nobody else's draws."""
        if self._network.loss_can_be_recorded:
            yield
            return
        device = self._noise.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(generator_for(self._config.seed, "loss", self.step).initial_seed())
            yield

    def _drawn(self) -> tuple[Tensor, ...]:
        """What a step draws: windows (B,), and noise (B, history, D) in deviations where there is any."""
        config, device = self._config, self._noise.device
        indices = self._batches.indices(self.step).to(device)
        if not config.observation_noise:
            return (indices,)
        generator = generator_for(config.seed, "noise", self.step, device=device)
        return indices, torch.randn(self._noise_shape, generator=generator, device=device)

    def _computed_gradient(self, indices: Tensor, noise: Tensor | None = None) -> Tensor:
        """Leaves the clipped gradient of a batch with the parameters. Returns the loss, ()."""
        batch = self._windows.batch(indices)
        if noise is not None:
            batch = batch._replace(observations=torch.addcmul(batch.observations, noise, self._noise))
        loss = self._network.loss(batch)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._gradient_clip, foreach=True)
        return loss.detach()

    @torch.no_grad()
    def _measure(self) -> float:
        """Held-out loss of the averaged weights; keeps them where it is the lowest so far."""
        if self._measured is None:
            return math.nan
        own = [parameter.clone() for parameter in self._parameters]
        torch._foreach_copy_(self._parameters, self._averaged)
        self._network.eval()
        total, count = 0.0, len(self._measured)
        numbers = self._network.shares * math.prod(self._noise_shape[1:])
        rows = max(1, min(_MOST_MEASURED_ROWS, _MOST_MEASURED_NUMBERS // numbers))
        for indices in torch.arange(count, device=self._noise.device).split(rows):
            # Every part of an ensemble's batch is all of the held-out windows.
            batch = self._measured.batch(indices.repeat(self._network.shares))
            total += float(self._network.loss(batch)) / self._network.shares * len(indices)
        self._network.train()
        torch._foreach_copy_(self._parameters, own)
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"the held-out loss is {total} at step {self.step}; look at the data with `understudy inspect`, or "
                f"try a lower learning_rate (now {self._config.learning_rate:g})"
            )
        if total / count < self._best_loss:
            self._best_loss, self._best_step = total / count, self.step
            torch._foreach_copy_(self._best, self._averaged)
        return total / count


def _learnt(network: Policy) -> list[nn.Parameter]:
    """The parameters that a training changes."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class Batches:
    """Which windows make up the batch of a step: a fresh permutation in each epoch, a function of seed and step.

    Each of the `shares` of a batch goes through the windows in an order of its own.
    """

    def __init__(self, size: int, batch_size: int, seed: int, *, shares: int = 1) -> None:
        self.share_size = min(batch_size, size)
        self.batch_size = self.share_size * shares
        self._size, self._seed, self._shares = size, seed, shares
        self._per_epoch = size // self.share_size
        self._epoch = -1
        self._orders = torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """Window numbers (shares * share_size,) of a step."""
        epoch, position = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            generator = generator_for(self._seed, "order", epoch)
            self._orders = torch.stack([torch.randperm(self._size, generator=generator) for _ in range(self._shares)])
        return self._orders[:, position * self.share_size : (position + 1) * self.share_size].flatten()


def generator_for(seed: int, purpose: str, index: int, *, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one draw: a function of the seed, what is drawn, and the number of the step or epoch.

    So a resumed job draws what it would have drawn, without any generator's state in its checkpoint.
    """
    entropy = [seed, *purpose.encode(), index]
    state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state & (2**63 - 1))


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one.

    Raises:
        ConfigError: there is no such device here. It is never replaced by another one in silence.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name!r}, but {torch.cuda.device_count()} GPUs are here; use --device auto or cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:N")
    return device


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within the block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
