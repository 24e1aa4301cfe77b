"""The story of `understudy demo`: record, inspect, clone, measure, see what distribution shift does; mend it twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from understudy.agent import Demonstrator
from understudy.dataset import Dataset, diagnose, record
from understudy.dataset.index import MANIFEST
from understudy.durable import make_folder, write_file
from understudy.episode import SUCCESS
from understudy.errors import ConfigError
from understudy.evaluate import Evaluation, agent_for, compare, evaluate
from understudy.loading import load_predictor
from understudy.network_shape import FeedForwardConfig
from understudy.presets import PICK_PLACE, with_clone
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE, DAggerConfig, TrainConfig
from understudy.report import StudyPoint, write_run_report
from understudy.report.films import film_evaluation
from understudy.report.run_files import evaluations_folder, read_evaluations
from understudy.sim import expert_for
from understudy.worlds import make_env

if TYPE_CHECKING:
    from understudy.interactive.dagger import Watcher

WORLD = "understudy/PickPlace-v0"
DEMONSTRATIONS = (5, 15, 50)
NOISES = (0.0, TrainConfig().observation_noise)
STARTS = 100
CLONING = 4_000  # updates of each clone: enough here, and a story has to end
ROUNDS, EPISODES, ASKED, LONGEST = 4, 12, 0.2, 120  # of DAgger, from DEMONSTRATIONS[1]
TREMBLING, IMPERFECT = "noisy=0.1:scripted", 25  # whose hand trembles, and how often it demonstrates
STEPS = 100_000  # of the world, for reinforcement learning
_EVALUATION = "PickPlace-v0"
_MARK = "demo.txt"

_T = TypeVar("_T")


class Bar(Protocol):
    """Shows how far one part of the story is."""

    def start(self, what: str, total: int) -> None:
        """Begins a part of `total` units."""

    def at(self, done: int, note: str | None = None) -> None:
        """Says how many units are done; without a note, the last one stays."""

    def over(self, what: str, items: Sequence[_T]) -> Iterator[_T]:
        """A part whose units are the items, one after the other."""
        ...


@dataclass(frozen=True, slots=True)
class _Chapter:
    """One cell of the study: a policy from so many demonstrations, with or without observation noise."""

    demonstrations: int
    noise: float

    @property
    def title(self) -> str:
        return f"{self.demonstrations} demonstrations, {'observation noise' if self.noise else 'no noise'}"

    @property
    def folder(self) -> str:
        return f"bc-{self.demonstrations}-{'noise' if self.noise else 'plain'}"


def tell(out: Path, *, seed: int, workers: int, say: Callable[[str], None], progress: Bar, watcher: Watcher) -> Path:
    """Runs the story in a new folder, or goes on with one that was interrupted, and returns its report.

    Args:
        out: folder for the data, a run for each policy, and the report.
        seed: of the trainings.
        workers: processes that evaluate.
        say: prints a line.
        progress: shows how far a part is.
        watcher: sees the rounds of DAgger.

    Raises:
        ConfigError: the folder holds something else, or was begun with another seed.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise ConfigError(f"{out} is not empty; choose another folder with --out, or remove it")
    make_folder(out)
    write_file(out / _MARK, b"`understudy demo` goes on in this folder where it was interrupted.\n")
    say(f"1. A scripted expert demonstrates {max(DEMONSTRATIONS)} times how to put the cube on the target ({WORLD}).")
    demonstrations = _record(out / "data", "scripted", max(DEMONSTRATIONS), progress)
    say("\n2. What is in the data?")
    for line in diagnose(demonstrations).lines():
        say(line)
    say(f"\n3. Clone it, and count successes over {STARTS} starts that no training has seen.")
    results: dict[_Chapter, Evaluation] = {}
    chapters = [_Chapter(count, noise) for count in reversed(DEMONSTRATIONS) for noise in reversed(NOISES)]
    for chapter in chapters:
        results[chapter] = _clone_and_measure(out, chapter, demonstrations, seed, workers, progress)
        say(f"   {chapter.title}: {results[chapter]}")
        if chapter == chapters[0]:
            say("\n4. Fewer demonstrations, and no noise: small errors lead to states that no demonstration shows.")
    few = [chapter for chapter in chapters if chapter.demonstrations == min(DEMONSTRATIONS)]
    noisy, plain = few
    say(f"   noise against none with {min(DEMONSTRATIONS)} demonstrations: {compare(results[plain], results[noisy])}")
    say(
        f"\n5. Let the clone of {DEMONSTRATIONS[1]} demonstrations try, ask the expert at one step in "
        f"{1 / ASKED:.0f} what would have been right, and train on the answers, too (DAgger)."
    )
    corrected = _correct(out / "dagger", demonstrations, seed, workers, say, progress, watcher)
    clone = results[_Chapter(DEMONSTRATIONS[1], NOISES[1])]
    say(f"   corrected: {corrected}; against the clone: {compare(clone, corrected)}")
    say(f"   {write_run_report(out / 'dagger')} shows what the expert's time bought")
    say(
        f"\n6. A hand that trembles demonstrates {IMPERFECT} times. Clone that, and let the clone practise for "
        f"{STEPS:,} steps where the world pays for getting nearer (natural policy gradient)."
    )
    imperfect, practised = _practise(out, seed, workers, say, progress)
    say(f"   practised: {practised}; against its clone: {compare(imperfect, practised)}")
    best = out / chapters[0].folder
    camera = partial(make_env, WORLD, render_mode="rgb_array")
    agent, over = agent_for(load_predictor(best)), partial(progress.over, "filming")
    why_not = film_evaluation(best, _EVALUATION, results[chapters[0]], camera, agent, over)
    if why_not:
        say(f"   no video: {why_not}")
    return write_run_report(
        best,
        to=out / "report.html",
        study=[StudyPoint(chapter.demonstrations, chapter.noise, results[chapter]) for chapter in reversed(chapters)],
    )


def _record(folder: Path, expert: str, count: int, progress: Bar) -> Dataset:
    env = make_env(WORLD)
    progress.start("recording", count)
    with Dataset.open(folder) if (folder / MANIFEST).exists() else Dataset.create(folder, env) as dataset:
        dataset.writer().begin()  # an episode whose save was interrupted is taken up before anybody counts them
        seeds = range(len(dataset), count)
        for row, _ in record(env, Demonstrator(expert_for(env, expert)), dataset, seeds=seeds):
            wins = sum(each.success == SUCCESS for each in dataset.rows)
            progress.at(row.seed + 1, f"{wins} succeeded")
    env.close()
    return Dataset.open(folder)


def _clone_and_measure(
    out: Path, chapter: _Chapter, demonstrations: Dataset, seed: int, workers: int, progress: Bar
) -> Evaluation:
    from understudy.policies import FeedForward
    from understudy.trainer import TrainLog, train

    run = out / chapter.folder
    dataset = demonstrations.select(range(chapter.demonstrations))
    config = TrainConfig(steps=CLONING, observation_noise=chapter.noise, seed=seed)
    progress.start(f"training on {chapter.title}", config.steps)

    def show(log: TrainLog) -> None:
        progress.at(log.step, log.losses)

    policy = FeedForward.for_data(dataset, FeedForwardConfig(), seed=seed)
    train(policy, dataset, config, run=run, resume=True, on_log=show, on_step=progress.at)
    write_file(run / "health.json", json.dumps(diagnose(dataset).to_json()).encode())
    return _measure(run, workers, progress)


def _correct(
    run: Path,
    demonstrations: Dataset,
    seed: int,
    workers: int,
    say: Callable[[str], None],
    progress: Bar,
    watcher: Watcher,
) -> Evaluation:
    from understudy.interactive import dagger, gate_for
    from understudy.policies import FeedForward

    env, dataset = make_env(WORLD), demonstrations.select(range(DEMONSTRATIONS[1]))
    rounds = dagger(
        env,
        expert_for(env, "scripted"),
        gate_for("dagger", {"schedule": "indicator", "ask": ASKED}),
        FeedForward.for_data(dataset, DAGGER_SHAPE, seed=seed),
        dataset,
        DAggerConfig(rounds=ROUNDS, episodes=EPISODES, max_steps=LONGEST, progress_starts=0),
        replace(DAGGER_RECIPE, seed=seed),
        run=run,
        resume=True,
        watcher=watcher,
    )
    for one in rounds:
        if one.number:
            say(f"   round {one.number}: {one.entry}")
    env.close()
    return _measure(run, workers, progress)


def _practise(
    out: Path, seed: int, workers: int, say: Callable[[str], None], progress: Bar
) -> tuple[Evaluation, Evaluation]:
    """The clone of imperfect demonstrations, and what reinforcement learning makes of it."""
    from understudy.reinforcement import clone_for, finetune, update_for

    preset, before, after = with_clone(PICK_PLACE, {"steps": CLONING}), out / "bc-trembling", out / "practised"
    demonstrations = _record(out / "data-trembling", TREMBLING, IMPERFECT, progress)
    progress.start("training on what trembles", preset.clone.steps)
    clone = clone_for(
        preset, demonstrations, seed=seed, run=before, resume=True, on_log=lambda log: progress.at(log.step)
    )
    imperfect = _measure(before, workers, progress)
    say(f"   the clone: {imperfect}")
    progress.start("practising", STEPS)
    for log in finetune(
        clone,
        partial(make_env, WORLD, reward="shaped"),
        update_for(preset.update, preset.update_options),
        config=replace(preset.finetune, steps=STEPS, seed=seed),
        workers=workers,
        run=after,
        resume=True,
    ):
        progress.at(log.step)
    say(f"   {log}")
    return imperfect, _measure(after, workers, progress)


def _measure(run: Path, workers: int, progress: Bar) -> Evaluation:
    earlier = read_evaluations(run)
    if _EVALUATION in earlier:
        return earlier[_EVALUATION]
    progress.start("evaluating", STARTS)
    result = evaluate(
        WORLD,
        load_predictor(run),
        episodes=STARTS,
        workers=workers,
        on_trial=lambda trial: progress.at(trial.index + 1),
    )
    make_folder(evaluations_folder(run))
    write_file(evaluations_folder(run) / f"{_EVALUATION}.json", json.dumps(result.to_json()).encode())
    return result
