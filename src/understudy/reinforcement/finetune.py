"""The loop of reinforcement learning: collect, estimate, update, account, and judge what is deployed."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from understudy.checkpoint import load, save
from understudy.collector import Collector
from understudy.durable import write_file
from understudy.episode import Episode
from understudy.errors import ActionError, ConfigError, TrainingDiverged, WorkerError, WorldError
from understudy.policies import Policy
from understudy.policy_file import weights_fingerprint
from understudy.recipe import FinetuneConfig
from understudy.reinforcement.demos import Term
from understudy.reinforcement.judging import Verdict, best_of
from understudy.reinforcement.learner import Learner, rewards_differ
from understudy.reinforcement.on_policy import OnPolicyLearner
from understudy.reinforcement.starts import DemoStarts, start_seed
from understudy.reinforcement.td3 import TD3, ReplayLearner, require_limited_residual
from understudy.reinforcement.updates import NPG, Update
from understudy.runs import Run, read_json, read_metrics, working_in
from understudy.spec import Spec, spec_of
from understudy.trainer import torch_threads
from understudy.worlds import KeptOpen, World, make_env, step_limit


@dataclass(frozen=True, slots=True)
class FinetuneLog:
    """What a batch was like, and what was learnt from it.

    Args:
        iteration: number of the batch, from 0; the last log, which tells the verdict, repeats that of the last batch.
        step, steps: of the world, done and to be done at most.
        numbers: of this batch: `episodes`; of those that began where the world says `mean_return`, and `success` and
            `sustained` (the shares that succeeded, and on more than 25 steps; None where the world says nothing of
            it); of the update `kl`, `step_length` and `halvings` (`UpdateLog`), `deviation` (mean sigma, in deviations
            of the actions) and `demo_weight`, or of `TD3` the `residual`'s root mean square as a share of its limit,
            and `value`, what the critics expect; `value_error`, the share of the variance of what it had to learn that
            the value function, or the critics, had left unexplained; and the seconds `collect_s` and `learn_s`.
        time_left_s: at this speed.
        policy: as it is now; in the last log the one that is deployed.
        verdict: how the deployed policy was chosen; None before the last log.
    """

    iteration: int
    step: int
    steps: int
    numbers: Mapping[str, float | None]
    time_left_s: float
    policy: Policy = field(repr=False)
    verdict: Verdict | None = None

    def __str__(self) -> str:
        if self.verdict is not None:
            return f"{self.step:,} steps: {self.verdict}"
        success, kl, value = (self.numbers.get(name) for name in ("success", "kl", "value"))
        told = "" if success is None else f"success {success:.2f}, "
        learnt = "" if value is None else f", value {value:.2f}"
        learnt = learnt if kl is None else f", KL {kl:.4f}"
        score = self.numbers["mean_return"]
        got = "no episode that began as the world says" if score is None else f"{told}return {score:.2f}"
        return f"{self.step:,} of {self.steps:,} steps: {got}{learnt}"


class Watcher(Protocol):
    """Looks at a running `finetune` and does not touch it: progress on a screen."""

    def on_phase(self, phase: str, episodes: int) -> None:
        """Called when a batch begins (`collecting` so many episodes), and when judging does."""
        ...

    def on_episode(self, episode: Episode) -> None:
        """Called after each episode."""
        ...


class _Nobody:
    """A watcher that looks away."""

    def on_phase(self, phase: str, episodes: int) -> None:
        """Not seen."""

    def on_episode(self, episode: Episode) -> None:
        """Not seen."""


def finetune(
    policy: Policy,
    env: gym.Env[Any, Any] | World,
    update: Update | TD3 | None = None,
    *,
    demo_term: Term | None = None,
    steps: int | None = None,
    config: FinetuneConfig | None = None,
    starts: DemoStarts | None = None,
    workers: int = 1,
    run: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Iterator[FinetuneLog]:
    """Reinforcement learning from a policy, one batch of episodes at a time; the caller may stop after any of them.

    Batch k: the sampled policy drives `episodes` episodes, `rollout` being the loop; the value function says how much
    better than usual each action turned out; the demonstration term adds its rows; the update changes policy and
    deviation. With NPG and `DemoTerm` this is DAPG (Rajeswaran et al. 2018), without a term NPG or PPO. With TD3,
    critics that learn from every step so far say instead what an action is worth. At the end the best and the last
    policy are tried, each as a distribution and as its mean, and the best of these is the result.
    `policy` itself stays as it is.

    Args:
        policy: where to begin. One that was never trained learns from the reward alone: its actions are scaled by
            their limits, its observations by what it sees.
        env: the world, its id, or a picklable function that builds it; several workers need one of the latter two.
        update: NPG() where not given.
        demo_term: what the demonstrations add.
        steps: instead of `config.steps`.
        config: the rest of the recipe.
        starts: episodes that begin from states of the demonstrations.
        workers: processes that collect; the result does not depend on it.
        run: folder for metrics, checkpoints and the policy; nothing is kept without it.
        resume: continue the run in that folder; the result is the same bytes as without the interruption. With fewer
            steps than it was begun for it ends earlier.
        watcher: sees the progress.
        notes: kept in the run's config.

    Yields:
        A log for each batch, once its checkpoint is durable, and a last one with the deployed policy.

    Raises:
        ConfigError: the run's folder is not empty, the steps are too few for a batch, the world pays nothing that
            differs, or a setting is out of range or unfit for the policy.
        SpecMismatch: world, demonstrations and policy are not of one task.
        DataError: the demonstrations cannot be learnt from.
        TrainingDiverged: a value or a gradient became infinite or no number.
        WorkerError: a worker broke three times at the same episode.
        StorageError: the disk is full or failed.
    """
    starts = starts if starts is not None and starts.share else None
    config = config or FinetuneConfig()
    config = config if steps is None else replace(config, steps=steps)
    update, watcher = update or NPG(), watcher or _Nobody()
    world = _world(env, workers)
    spec, horizon = _looked_at(world, config)
    policy.spec.require_same_task(spec, what="the world", against="the policy")
    policy = policy.in_world(spec)  # what is deployed has the limits that it practised with
    if demo_term is not None:
        demo_term.demos.require_same_task(spec, what="the world")
    if starts is not None:
        starts.demos.require_same_task(spec, what="the world")
    budget = _budget_of(update, demo_term, config, horizon)
    learner = _learner(policy, spec, update, demo_term, config)
    description = {
        "command": "finetune",
        "update": {"name": update.name, **update.options()},
        "demo_term": None if demo_term is None else {"name": demo_term.name, **demo_term.options()},
        "starts": None if starts is None else starts.options(),
        "finetune": asdict(config),
        "policy": {"kind": policy.kind, **policy.architecture()},
        "data_fingerprint": demo_term.demos.fingerprint if demo_term is not None else "",
        "start_fingerprint": weights_fingerprint(policy.arrays()),
        "spec": spec.to_json(),
        **(notes or {}),
    }
    if resume and run is not None:
        description["finetune"]["steps"] = max(config.steps, _begun_for(Path(run))) if config.steps else 0
    with working_in(run, description, resume=resume) as folder:
        if folder and resume:
            learner.load(folder)
            folder.rewind(learner.step)
        if config.steps == 0:
            yield from _untried(policy, folder)
            return
        with Collector(world, workers=workers, max_steps=horizon, on_broken=_warn) as collector:
            job = _Job(learner, collector, budget, starts, watcher, config)
            job.prepare(world)
            yield from job.batches(folder)
            yield job.judged(folder)


def require_sound(
    world: World, update: Update | TD3, term: Term | None, config: FinetuneConfig, starts: DemoStarts | None = None
) -> None:
    """Refuses, before anything is trained, a plan that `finetune` would refuse.

    Raises:
        ConfigError: the steps are too few for a batch, the world has no limit of steps, the update cannot follow the
            recipe, or no episode can begin inside the demonstrations.
    """
    _, horizon = _looked_at(world, config)
    _budget_of(update, term, config, horizon)
    if starts is not None and starts.share:
        env = make_env(world)
        try:
            starts.shows(env)
        finally:
            env.close()


class _Budget:
    """How many episodes of a batch the steps still allow, those of the judging put aside."""

    def __init__(self, config: FinetuneConfig, horizon: int) -> None:
        self._config, self._horizon = config, horizon
        candidates = 5 if config.average else 4
        self.aside = candidates * config.judge_episodes * horizon
        least = config.episodes * horizon + self.aside
        if 0 < config.steps < least:
            raise ConfigError(
                f"steps is {config.steps}; a batch of {config.episodes} episodes of {horizon} steps and the judging of "
                f"{candidates} candidates on {config.judge_episodes} need {least}; give more steps, or fewer "
                "episodes or judge_episodes"
            )

    def episodes(self, step: int) -> int:
        """Of the next batch; 0 where what is left is less than half a batch."""
        count = min(self._config.episodes, (self._config.steps - self.aside - step) // self._horizon)
        return count if 2 * count >= self._config.episodes else 0


class _Job:
    """The batches of a run, and the trial at its end."""

    def __init__(
        self,
        learner: Learner,
        collector: Collector,
        budget: _Budget,
        starts: DemoStarts | None,
        watcher: Watcher,
        config: FinetuneConfig,
    ) -> None:
        self._learner, self._collector, self._budget = learner, collector, budget
        self._starts, self._watcher, self._config = starts, watcher, config
        self._same_reward: float | None = None
        self._log: FinetuneLog | None = None

    def prepare(self, world: World) -> None:
        """Replays the demonstrations whose states episodes will begin from; that costs steps."""
        if self._starts is None:
            return
        spent = self._starts.prepare(world)
        if self._learner.iteration == 0:
            self._learner.step += spent
            left = self._config.steps - self._budget.aside - spent
            if not self._budget.episodes(self._learner.step) or left < self._learner.least_steps:
                raise ConfigError(
                    f"replaying the demonstrations took {spent} of {self._config.steps} steps, which leaves too few "
                    "to learn from before the judging; give more steps, or leave the starts inside demonstrations out"
                )

    def batches(self, folder: Run | None) -> Iterator[FinetuneLog]:
        """Collects and learns until the steps are spent."""
        begun_s, begun = time.perf_counter(), self._learner.step
        while count := self._budget.episodes(self._learner.step):
            learner, iteration = self._learner, self._learner.iteration
            start_s = time.perf_counter()
            with self._rescuable(folder):
                episodes = self._collect(count)
                collected_s = time.perf_counter()
                self._require_a_reward(episodes)
                with torch_threads(self._config.threads):  # not while the caller has the log
                    numbers = learner.learn(episodes)
            learnt_s = time.perf_counter()
            numbers |= {"collect_s": collected_s - start_s, "learn_s": learnt_s - collected_s}
            if folder:
                # Metrics first: a resumed job forgets rows after its checkpoint, and could not write those before it.
                folder.log({"step": learner.step, "iteration": iteration, **numbers})
                learner.save(folder)
            left = (self._config.steps - learner.step) * (learnt_s - begun_s) / max(learner.step - begun, 1)
            self._log = FinetuneLog(iteration, learner.step, self._config.steps, numbers, left, learner.actor.policy())
            yield self._log
        if isinstance(self._learner, ReplayLearner) and self._learner.iteration and not self._learner.has_learnt:
            warnings.warn(
                "td3 has learnt nothing: no reward came before the steps were spent, so the policy is the one it began "
                "with; give more steps, fewer first_steps, or a reward that says how near the goal is",
                stacklevel=2,
            )

    @contextmanager
    def _rescuable(self, folder: Run | None) -> Iterator[None]:
        """Says of an error that would come again how what was learnt before it can be had."""
        try:
            yield
        except (WorldError, ActionError, TrainingDiverged) as error:
            if folder and self._learner.iteration:
                enough = self._learner.step + self._budget.aside
                error.add_note(
                    f"the {self._learner.step:,} steps before it are kept; resumed with steps {enough}, the run ends "
                    "there, and its policy is judged and deployed"
                )
            raise

    def judged(self, folder: Run | None) -> FinetuneLog:
        """Tries the candidates on starts of their own and keeps the best one."""
        learner, config = self._learner, self._config
        if folder and folder.policy.exists():
            verdict = Verdict.from_json(read_json(folder.path / "judged.json"))
            chosen = load(folder.policy)
        else:
            candidates = learner.candidates()
            seeds = self._seeds(config.judge_episodes)
            trials: list[list[Episode]] = []
            for candidate in candidates if config.judge_episodes else ():
                self._watcher.on_phase(f"judging the {candidate.name}", config.judge_episodes)
                trials.append(self._watched(self._collector.collect(candidate.agent(), seeds)))
            verdict = best_of(candidates, trials)
            chosen = candidates[verdict.chosen].policy
            chosen.notes = f"fine-tuned for {learner.step} steps: {verdict}"
            if folder:
                write_file(folder.path / "judged.json", json.dumps(verdict.to_json(), indent=1).encode())
                save(chosen, folder.policy)
        step = learner.step + verdict.steps
        numbers = self._log.numbers if self._log is not None else {}
        return FinetuneLog(max(learner.iteration - 1, 0), step, config.steps, numbers, 0.0, chosen, verdict)

    def _collect(self, count: int) -> list[Episode]:
        learner = self._learner
        self._watcher.on_phase("collecting", count)
        seeds = self._seeds(count)
        options = None
        if self._starts is not None:
            progress = learner.step / max(1, self._config.steps - self._budget.aside)  # judging comes after it all
            options = [
                self._starts.options_for((self._config.seed, learner.episodes + index), progress)
                for index in range(count)
            ]
        return self._watched(self._collector.collect(learner.explorer(), seeds, options))

    def _seeds(self, count: int) -> list[int]:
        first = self._learner.episodes
        return [start_seed(self._config.seed, first + index) for index in range(count)]

    def _watched(self, episodes: Iterator[Episode]) -> list[Episode]:
        result = []
        for episode in episodes:
            result.append(episode)
            self._watcher.on_episode(episode)
        return result

    def _require_a_reward(self, episodes: Sequence[Episode]) -> None:
        """Refuses a world whose reward has been one and the same number in all of the first batches."""
        learner = self._learner
        if not (learner.rewards_differ or rewards_differ(episodes)) and learner.iteration + 1 >= learner.patience:
            raise ConfigError(
                f"{learner.spec.env_id} paid {episodes[0].rewards[0]:g} at every step of the first {learner.patience} "
                "batches, so there is nothing to learn from; take a reward that says how near the goal is "
                "(--env-arg reward=shaped), a policy that succeeds at times, or a world that pays at all"
            )


def _budget_of(update: Update | TD3, term: Term | None, config: FinetuneConfig, horizon: int) -> _Budget:
    """The budget of a recipe that the update can follow."""
    budget = _Budget(config, horizon)
    if isinstance(update, TD3):
        require_limited_residual(config, term)
        batch = config.episodes * horizon
        if 0 < config.steps < budget.aside + update.first_steps + batch:
            raise ConfigError(
                f"steps is {config.steps}; td3 learns nothing before {update.first_steps} steps (first_steps), a batch "
                f"takes {batch}, and judging the candidates {budget.aside}; give more steps, or fewer first_steps, "
                "episodes or judge_episodes"
            )
    return budget


def _learner(policy: Policy, spec: Spec, update: Update | TD3, term: Term | None, config: FinetuneConfig) -> Learner:
    if isinstance(update, TD3):
        return ReplayLearner(policy, spec, update, config)
    return OnPolicyLearner(policy, spec, update, term, config)


def _begun_for(run: Path) -> int:
    """Steps that the run in a folder was begun for, which may end with fewer; 0 where nothing was learnt there yet."""
    holds = bool(read_metrics(run)) and (run / "config.json").exists()
    begun = read_json(run / "config.json").get("finetune") if holds else None
    steps = begun.get("steps") if isinstance(begun, dict) else None
    return steps if isinstance(steps, int) else 0


def _untried(policy: Policy, folder: Run | None) -> Iterator[FinetuneLog]:
    """The only log of a run without steps: the policy it began with."""
    if policy.statistics is None:
        raise ConfigError("steps is 0 and the policy was never trained; give steps, or demonstrations to clone first")
    verdict = Verdict("start", "mean", 0, (), 0)
    if folder and not folder.policy.exists():
        write_file(folder.path / "judged.json", json.dumps(verdict.to_json(), indent=1).encode())
        save(policy, folder.policy)
    yield FinetuneLog(0, 0, 0, {}, 0.0, policy, verdict)


def _world(env: gym.Env[Any, Any] | World, workers: int) -> World:
    if not isinstance(env, gym.Env):
        return env
    if workers > 1:
        raise ConfigError(
            f"one world cannot be shared by {workers} workers; give its id, or a function of a module that builds it"
        )
    return lambda: KeptOpen(env)


def _looked_at(world: World, config: FinetuneConfig) -> tuple[Spec, int]:
    """The spec of a world, and the most steps that an episode of it takes."""
    env = make_env(world)
    try:
        limits = [limit for limit in (step_limit(env), config.max_steps) if limit is not None]
        spec = spec_of(env)
    finally:
        env.close()
    if not limits:
        raise ConfigError(f"{spec.env_id} names no limit of steps; give max_steps, the longest an episode may take")
    return spec, min(limits)


def _warn(error: WorkerError) -> None:
    warnings.warn(f"{error}; another worker takes its place and runs the episode again", stacklevel=2)
