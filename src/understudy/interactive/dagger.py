"""The round loop of the DAgger family: roll out, gate, label, aggregate, train, evaluate, account."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from understudy.agent import Expert
from understudy.checkpoint import load, save
from understudy.dataset import Dataset, record
from understudy.durable import write_file
from understudy.episode import Episode
from understudy.errors import ConfigError, DataError
from understudy.evaluate import EVALUATION_SEED, Evaluation, evaluate
from understudy.interactive.ledger import Entry, entry_of
from understudy.interactive.tick import Gate, GatedAgent
from understudy.policies import Policy
from understudy.policy_file import weights_fingerprint
from understudy.recipe import DAGGER_RECIPE, DAggerConfig, TrainConfig
from understudy.runs import read_json, read_metrics, working_in
from understudy.spec import Spec, spec_of
from understudy.trainer import TrainLog, choose_device, train
from understudy.worlds import KeptOpen, World, step_limit

PROGRESS_SEED = 500_000


@dataclass(frozen=True, slots=True)
class Round:
    """What a round left behind.

    Args:
        number: 0 for the cloned demonstrations, then 1, 2, ...
        policy: trained on everything collected up to here.
        entry: of the ledger, this round's episodes alone; in round 0 that of the demonstrations.
        evaluation: of the policy alone on the progress starts; None where there are none.
        dataset: the demonstrations and everything collected up to here; what no run keeps can be read until the rounds
            end.
    """

    number: int
    policy: Policy
    entry: Entry
    evaluation: Evaluation | None
    dataset: Dataset


class Watcher(Protocol):
    """Looks at a running `dagger` and does not touch it: progress on a screen."""

    def on_phase(self, round: int, phase: str, total: int) -> None:
        """Called when a phase of a round begins: `collecting` so many episodes, `training` so many steps, ..."""
        ...

    def on_episode(self, episode: Episode) -> None:
        """Called after each collected episode, once it is durable."""
        ...

    def on_training(self, log: TrainLog) -> None:
        """Called after each measurement of a training."""
        ...


class _Nobody:
    """A watcher that looks away."""

    def on_phase(self, round: int, phase: str, total: int) -> None:
        """Not seen."""

    def on_episode(self, episode: Episode) -> None:
        """Not seen."""

    def on_training(self, log: TrainLog) -> None:
        """Not seen."""


def dagger(
    env: gym.Env[Any, Any],
    expert: Expert,
    gate: Gate,
    policy: Policy,
    demos: Dataset,
    config: DAggerConfig | None = None,
    recipe: TrainConfig | None = None,
    *,
    world: World | None = None,
    workers: int = 1,
    run: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Iterator[Round]:
    """Rounds of interactive imitation; the caller may stop after any of them.

    Round 0 clones the demonstrations, unless the policy is trained already. Round k fits the gate to what has been
    collected and to the policy of round k - 1, lets both drive (`GatedAgent`), and trains the policy of round k on
    D_k = D_(k-1) + what round k collected (Ross et al. 2011, algorithm 3.1). Neither `demos` nor `policy` changes.

    Args:
        env: the world in which is collected.
        expert: whom the gate may call.
        gate: who drives.
        policy: the shape of what is trained, its first weights drawn anew; or a trained policy to begin with.
        demos: what is known before.
        config: of the rounds.
        recipe: of each training; its seed draws the first weights, and the starts follow those of `demos`.
        world: where the progress is measured, in `workers` processes; in `env` itself where not given.
        workers: processes that measure.
        run: folder for collected episodes, trainings and the policy; nothing is kept without it.
        resume: continue the run in that folder, in whatever phase it was interrupted; the result is the same bytes.
        watcher: sees the progress.
        notes: kept in the run's config.

    Yields:
        Each round, once all of it is durable.

    Raises:
        ConfigError: the run's folder is not empty, or a setting is out of range or unfit for the policy.
        SpecMismatch: world, demonstrations and policy are not of one task.
        ExpertError: the expert answered nothing, something that is not finite, or for another world.
        DataError: the demonstrations cannot be trained on.
        StorageError: the disk is full or failed.
    """
    config, recipe, watcher = config or DAggerConfig(), recipe or DAGGER_RECIPE, watcher or _Nobody()
    spec = spec_of(env)
    demos.require_same_task(spec, what="the world")
    demos = demos.with_spec(spec)
    policy.spec.require_same_task(spec, what="the world", against="the policy")
    policy = policy.in_world(spec)
    choose_device(recipe.device)
    if config.warm and recipe.held_out:
        raise ConfigError(
            f"held_out is {recipe.held_out:g}, but warm weights have learnt from all episodes of the rounds before, so "
            "none is held out; give held_out 0, or leave warm out"
        )
    if policy.statistics is None and not any(episode.targets()[1].any() for episode in demos):
        raise DataError("no step can be trained on in the demonstrations; record some, or begin with a policy")
    gate.begin(policy, demos)
    with ExitStack() as stack:
        description = {
            "command": "dagger",
            "gate": {"name": gate.name, **_options(gate)},
            "dagger": asdict(config),
            "policy": {"kind": policy.kind, **policy.architecture()},
            "train": asdict(recipe),
            "data_fingerprint": demos.fingerprint,
            "start_fingerprint": _start_fingerprint(policy),
            "spec": spec.to_json(),
            **(notes or {}),
        }
        folder = stack.enter_context(working_in(run, description, resume=resume))
        home = folder.path if folder is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collected = stack.enter_context(_collected(home / "data", spec))
        if folder is not None:
            folder.rewind(config.rounds)  # without a row that a crash has torn
        told = {row["step"] for row in read_metrics(home)}
        rounds = _Rounds(env, expert, gate, policy, demos, collected, config, recipe, home, watcher)
        for number in range(config.rounds + 1):
            entry = rounds.collect(number)
            trained = rounds.train(number)
            evaluation = rounds.measure(number, trained, world, workers)
            if folder is not None:
                if number not in told:
                    folder.log(_row(number, entry, evaluation))
                # Differs from Ross et al. 2011: the last policy is the result, not the best one on validation.
                if number == config.rounds and not folder.policy.exists():
                    save(trained, folder.policy)
            yield Round(number, trained, entry, evaluation, rounds.dataset)


class _Rounds:
    """The phases of a round. Each finds what an interrupted run has left, and does only the rest."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        expert: Expert,
        gate: Gate,
        policy: Policy,
        demos: Dataset,
        collected: Dataset,
        config: DAggerConfig,
        recipe: TrainConfig,
        home: Path,
        watcher: Watcher,
    ) -> None:
        self._env, self._expert, self._gate, self._shape = env, expert, gate, policy
        self._demos, self._collected = demos, collected
        self._config, self._recipe, self._home, self._watcher = config, recipe, home, watcher
        # Demonstrations and collection draw seeds below those of every evaluation: first those that follow.
        shown = {row.seed for row in demos.rows}
        following = [(max(shown, default=-1) + 1 + index) % EVALUATION_SEED for index in range(EVALUATION_SEED)]
        self._seeds = [seed for seed in following if seed not in shown] or following
        self._policy = policy
        self.dataset = demos

    def collect(self, number: int) -> Entry:
        """Fits the gate and records what is missing of a round's episodes; in round 0 there are the demonstrations."""
        hz = self._demos.spec.control_hz
        if number == 0:
            return entry_of(self._demos, hz)
        self._watcher.on_phase(number, "fitting the gate", 1)
        self._gate.fit(self.dataset, self._policy)
        config = self._config
        self._watcher.on_phase(number, "collecting", config.episodes)
        first = (number - 1) * config.episodes
        episodes = []
        for index in range(first, min(first + config.episodes, len(self._collected))):
            episodes.append(self._collected[index])
            self._gate.adapt(episodes[-1])
            self._watcher.on_episode(episodes[-1])
        agent = GatedAgent(self._policy.for_execution(), self._expert, self._gate, round=number, cap=config.cap)
        seeds = [
            self._seeds[index % len(self._seeds)] for index in range(first + len(episodes), first + config.episodes)
        ]
        recorded = record(
            self._env,
            agent,
            self._collected,
            seeds=seeds,
            max_steps=config.max_steps,
            after_success=config.after_success,
        )
        for _, episode in recorded:
            episodes.append(episode)
            self._gate.adapt(episode)
            self._watcher.on_episode(episode)
        self.dataset = self._demos.joined(self._collected.select(range(first + config.episodes)))
        return entry_of(episodes, hz)

    def train(self, number: int) -> Policy:
        """The policy of a round: loaded where its training has ended, trained or trained to its end where not."""
        if number == 0 and self._shape.statistics is not None:
            return self._policy
        place = self._home / "rounds" / f"{number:02d}"
        if not (place / "policy").exists():
            self._watcher.on_phase(number, "training", self._recipe.steps)
            train(
                self._policy if self._config.warm and number else self._shape.initialized(self._recipe.seed),
                self.dataset,
                self._recipe,
                run=place,
                resume=(place / "config.json").exists(),
                on_log=self._watcher.on_training,
            )
        self._policy = load(place)  # what a resumed run would go on with, to the byte
        return self._policy

    def measure(self, number: int, policy: Policy, world: World | None, workers: int) -> Evaluation | None:
        """How well a round's policy does alone, on starts that serve no evaluation."""
        starts = self._config.progress_starts
        if not starts:
            return None
        path = self._home / "rounds" / f"{number:02d}" / "progress.json"
        if path.exists():
            return Evaluation.from_json(read_json(path))
        self._watcher.on_phase(number, "measuring", starts)
        result = evaluate(
            world if world is not None else lambda: KeptOpen(self._env),
            policy,
            episodes=starts,
            seed=PROGRESS_SEED,
            workers=workers if world is not None else 1,
            max_steps=None if step_limit(self._env) else self._config.max_steps,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(result.to_json(), indent=1).encode())
        return result


def _collected(path: Path, spec: Spec) -> Dataset:
    dataset = Dataset.open(path) if (path / "dataset.json").exists() else Dataset.create(path, spec)
    dataset.writer().begin()  # an episode whose save was interrupted is taken up before anybody counts them
    return dataset


def _start_fingerprint(policy: Policy) -> str:
    """Of the weights of a trained policy; empty for a new one, whose first weights are drawn anew."""
    return "" if policy.statistics is None else weights_fingerprint(policy.arrays())


def _options(gate: Gate) -> dict[str, Any]:
    return {key: value for key, value in vars(gate).items() if not key.startswith("_")}


def _row(number: int, entry: Entry, evaluation: Evaluation | None) -> dict[str, Any]:
    row = {"step": number, **entry.to_json()}
    if evaluation is not None and evaluation.is_judged:
        row |= {"success_alone": evaluation.success_rate, "starts_alone": len(evaluation.trials)}
    return row
