"""Films of an evaluation: a few successes and failures, each in a file of its own beside the evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from understudy.agent import Agent
from understudy.evaluate import Evaluation, Trial, chosen_trials
from understudy.playback import Show, film_each
from understudy.report.contents import Clip
from understudy.report.run_files import evaluations_folder
from understudy.worlds import World

FILMED_EACH = 3
# Without a graphics card, drawing takes nearly all of the time of a film, and a report needs no more than this.
_PICTURES_HZ, _AFTER_SUCCESS_S = 10.0, 1.0
_OUTCOMES = {True: "success", False: "failure", None: "episode"}


def film_evaluation(
    run: Path,
    name: str,
    evaluation: Evaluation,
    world: World,
    agent: Agent,
    over: Callable[[Sequence[Trial]], Iterable[Trial]] = iter,
) -> str | None:
    """Films up to three successes and three failures of an evaluation for the report of its run.

    Args:
        run: the run's folder.
        name: of the evaluation in that folder.
        evaluation: says which starts to film.
        world: builds the world with `render_mode="rgb_array"`.
        agent: the one that was evaluated.
        over: gives the starts that are filmed one after the other, and may show how far that is.

    Returns:
        None, or why there is no film.

    Raises:
        ConfigError: the run's evaluations are a link.
        StorageError: the disk is full or failed.
    """
    filmed = over(chosen_trials(evaluation, FILMED_EACH))
    # Where success is that of the last step, an episode that fails may have succeeded on its way: its film goes on.
    steps = evaluation.options.get("max_steps")
    shows = (
        (Show(agent, trial.seed, steps=steps, whole=not trial.success), _path(run, name, trial)) for trial in filmed
    )
    return film_each(world, shows, pictures_hz=_PICTURES_HZ, after_success_s=_AFTER_SUCCESS_S)


def clips(run: Path, evaluations: Mapping[str, Evaluation], labels: Mapping[str, str]) -> Iterator[Clip]:
    """The films that a run holds of its evaluations.

    Args:
        run: the run's folder.
        evaluations: by name.
        labels: of the evaluations, by name.
    """
    for name, evaluation in evaluations.items():
        for trial in chosen_trials(evaluation, FILMED_EACH):
            path = _path(run, name, trial)
            if os.path.lexists(path):
                of = f" ({labels[name]})" if len(evaluations) > 1 else ""
                yield Clip(f"Start with seed {trial.seed}{of}", path, trial.success)


def _path(run: Path, name: str, trial: Trial) -> Path:
    return evaluations_folder(run) / f"{name}-{_OUTCOMES[trial.success]}-{trial.seed}.mp4"
