"""The command of reinforcement learning from demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

import understudy as us
from understudy.cli.arguments import CORES, Env, EnvArguments, demonstrations_at, existing, named_values, world_of
from understudy.cli.console import Bar, progress, say
from understudy.cli.measuring import evaluate, limit_where_none
from understudy.episode import SUCCESS, UNKNOWN
from understudy.errors import ConfigError, require_within
from understudy.evaluate import EVALUATION_SEED
from understudy.presets import DEFAULT, FROM_SCRATCH, Preset, preset_called, with_clone
from understudy.recipe import FinetuneConfig
from understudy.report.words import is_number
from understudy.runs import Run, read_metrics
from understudy.workers import MOST_WORKERS
from understudy.worlds import World

if TYPE_CHECKING:
    Given = FinetuneConfig
else:
    # The fields of FinetuneConfig, each None where it is not given: the preset has the rest.
    Given = make_dataclass(
        "Given",
        [(name, kind | None, field(default=None)) for name, kind in get_type_hints(FinetuneConfig).items()],
        frozen=True,
    )
    Given.__doc__ = FinetuneConfig.__doc__

CloneArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="clone-arg",
        metavar="NAME=VALUE",
        help="Option of the cloning, as in train bc, like steps=4000 or members=1; may be repeated.",
    ),
]
UpdateArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="update-arg", metavar="NAME=VALUE", help="Option of the update, like step_size=0.1; may be repeated."
    ),
]
TermArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="term-arg", metavar="NAME=VALUE", help="Option of the demonstration term, like scale=max; may be repeated."
    ),
]
StartArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="start-arg",
        metavar="NAME=VALUE",
        help="Option of episodes that begin inside demonstrations, like share=0.5; may be repeated.",
    ),
]


def finetune(
    env: Env,
    out: Path,
    policy: Annotated[Path | None, tyro.conf.Positional] = None,
    demos: Path | None = None,
    preset: str | None = None,
    clone_arguments: CloneArguments = (),
    update: str | None = None,
    update_arguments: UpdateArguments = (),
    term: str | None = None,
    lam0: float | None = None,
    lam1: float | None = None,
    term_arguments: TermArguments = (),
    start_arguments: StartArguments = (),
    given: tyro.conf.OmitArgPrefixes[Given] = Given(),
    starts: int = 100,
    workers: int = CORES,
    env_arguments: EnvArguments = (),
    tensorboard: bool = False,
    resume: bool = False,
) -> None:
    """Go on learning from a reward: NPG, PPO or TD3, from demonstrations or without (DAPG).

    With POLICY or --demos it begins with that policy, or with a clone of the demonstrations; without both it learns
    from the reward alone. With --lam0 0 demonstrations only give the beginning; with --steps 0 cloning is all. What
    is not given comes from the preset.

    Args:
        out: the run's folder.
        policy: a policy folder or a run to begin with; the demonstrations are cloned where not given.
        demos: demonstrations, a dataset or a bare folder of .npz files.
        preset: a whole recipe by name: residual (where not given, with a policy or demonstrations), residual-td3 (the
            fewest steps, in more time), small-batches, dapg-paper, or scratch (where not given, without).
        update: npg, ppo or td3.
        term: how demonstrations join the batches: likelihood (DAPG) or distance.
        lam0: weight of the demonstrations at first; 0 leaves them out.
        lam1: by which it shrinks from batch to batch.
        given: the rest of the recipe.
        starts: on which the deployed policy is evaluated at the end.
        workers: processes that collect and evaluate; the result does not depend on it.
        tensorboard: also write the numbers of each batch for TensorBoard.
        resume: continue an interrupted run; the result is the same bytes.
    """
    from understudy.checkpoint import load
    from understudy.reinforcement.board import Board
    from understudy.reinforcement.finetune import require_sound

    require_within("starts", starts, 1, EVALUATION_SEED)
    require_within("workers", workers, 1, MOST_WORKERS)
    preset = preset or (DEFAULT if policy or demos else FROM_SCRATCH)
    if clone_arguments and (policy or not demos):
        raise ConfigError("only --demos without POLICY are cloned; leave --clone-arg out")
    chosen = with_clone(preset_called(preset), named_values(clone_arguments, "--clone-arg"))
    settings = {item.name: getattr(given, item.name) for item in fields(given)}
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("tune") == "all":  # what the preset says of its residual goes with it
        settings = {"residual_hidden": (), "residual_limit": None, **settings}
    config = replace(chosen.finetune, **settings)
    rule = _update(chosen, update, named_values(update_arguments, "--update-arg"))
    world = world_of(env, env_arguments)
    given_demos = demonstrations_at(demos, world) if demos else None
    shown = _term(chosen, given_demos, term, lam0, lam1, named_values(term_arguments, "--term-arg"))
    inside = _starts(chosen, given_demos, named_values(start_arguments, "--start-arg"))
    begin = load(existing(policy)) if policy else None
    if given_demos is not None:
        _require_used(chosen, begin, config, used=inside is not None or bool(shown.weight(0, 1.0)))
    Run.may_begin(out, resume=resume)
    # Like the refusals above, before the first demonstration is cloned.
    require_sound(world, rule, shown, config, inside)
    notes: dict[str, Any] = {"env": env, "preset": preset}
    notes |= {"clone_arguments": list(clone_arguments)} if clone_arguments else {}
    notes |= {"data": str(demos)} if demos else {}
    notes |= {"env_arguments": list(env_arguments)} if env_arguments else {}
    notes |= {"start": str(policy)} if policy else {}
    with progress() as bar, _board(out, tensorboard, Board) as board:
        if begin is None:
            begin = _beginning(chosen, given_demos, config, world, out, bar, demos)
        shown_steps = _Steps(bar, config.steps, done=_steps_done(out) if resume else 0)
        told = us.finetune(
            begin,
            world,
            rule,
            demo_term=shown,
            config=config,
            starts=inside,
            workers=workers,
            run=out,
            resume=resume,
            watcher=shown_steps,
            notes=notes,
        )
        for log in told:
            shown_steps.done = log.step
            say(f"{log}{_left(log.time_left_s)}")
            if board is not None:
                board.show(log)
    longest = limit_where_none(world, config.max_steps)
    evaluate(out, env, episodes=starts, workers=workers, max_steps=longest, env_arguments=env_arguments)


class _Steps:
    """The steps of the world on the progress bar."""

    def __init__(self, bar: Bar, steps: int, *, done: int) -> None:
        self._bar, self._steps, self._begun = bar, steps, False
        self.done, self._tried, self._wins = done, 0, 0

    def on_phase(self, phase: str, episodes: int) -> None:
        self._tried = self._wins = 0
        if not self._begun:
            self._bar.start("fine-tuning", self._steps)
            self._begun = True

    def on_episode(self, episode: us.Episode) -> None:
        self.done += len(episode)
        self._tried += 1
        self._wins += episode.success == SUCCESS
        unknown = episode.success == UNKNOWN and not self._wins
        self._bar.at(self.done, None if unknown else f"{self._wins} of {self._tried} succeeded")


def _steps_done(run: Path) -> int:
    """Steps of the world that an interrupted run has behind it."""
    return max((row["step"] for row in read_metrics(run) if is_number(row.get("step"))), default=0)


def _update(preset: Preset, name: str | None, options: dict[str, Any]) -> Any:
    """The update that is asked for; another one than the preset's has options of its own."""
    same = name is None or name == preset.update
    return us.update_for(name or preset.update, {**(preset.update_options if same else {}), **options})


def _term(
    preset: Preset,
    demos: us.Dataset | None,
    name: str | None,
    lam0: float | None,
    lam1: float | None,
    options: dict[str, Any],
) -> Any:
    """The demonstration term that is asked for; None without demonstrations."""
    if demos is None:
        given = {"--term": name, "--lam0": lam0 or None, "--lam1": lam1, "--term-arg": options or None}
        named = " and ".join(option for option, value in given.items() if value is not None)
        if named:
            raise ConfigError(f"without demonstrations there is nothing to weigh; give --demos, or leave out {named}")
        return None
    weights = {key: value for key, value in (("lam0", lam0), ("lam1", lam1)) if value is not None}
    result = us.term_for(name or preset.term, demos, {**preset.term_options, **weights, **options})
    if (name or lam1 is not None or options.keys() - {"lam0", "lead"}) and not result.weight(0, 1.0):
        raise ConfigError(
            "--term, --lam1 and --term-arg say how the demonstrations weigh, and --lam0, their weight, is 0; give "
            "--lam0 0.1, or leave them out"
        )
    return result


def _require_used(preset: Preset, begin: us.Policy | None, config: FinetuneConfig, *, used: bool) -> None:
    """Refuses a clone that has not what is asked of it, and says where the demonstrations change nothing."""
    if begin is None and config.deviation == "own" and preset.shape.head != "gaussian":
        raise ConfigError(
            f"deviation is 'own', and a clone with the head {preset.shape.head} has none; give a policy of `train bc "
            "--head gaussian`, or take spread"
        )
    if begin is not None and not used and config.deviation != "residual":
        say("note: POLICY is the beginning and --lam0 is 0, so --demos changes nothing; DAPG's term is --lam0 0.1")


def _starts(preset: Preset, demos: us.Dataset | None, options: dict[str, Any]) -> us.DemoStarts | None:
    """Starts inside demonstrations, where there are demonstrations and they are asked for."""
    if demos is None and options:
        raise ConfigError("episodes that begin inside demonstrations need some; give --demos, or leave --start-arg out")
    if demos is None or (preset.starts is None and not options):
        return None
    return us.starts_for(demos, {**(preset.starts or {}), **options})


def _beginning(
    preset: Preset,
    demos: us.Dataset | None,
    config: FinetuneConfig,
    world: World,
    out: Path,
    bar: Bar,
    source: Path | None,
) -> us.Policy:
    """A clone of the demonstrations, in a run below `out`; without demonstrations a network that knows nothing."""
    if demos is None:
        env = us.make_env(world)
        try:
            return us.FeedForward(us.spec_of(env), preset.shape).initialized(config.seed)
        finally:
            env.close()
    place = out / "clone"
    bar.start("cloning", preset.clone_recipe(demos.steps, config.seed).steps)
    return us.clone_for(
        preset,
        demos,
        seed=config.seed,
        run=place,
        resume=(place / "config.json").exists(),
        on_log=lambda log: bar.at(log.step, f"loss {log.loss:.4f}"),
        notes={"data": str(source)},
    )


@contextmanager
def _board(out: Path, wanted: bool, board: Any) -> Iterator[Any]:
    """The run's TensorBoard, where one is wanted."""
    if not wanted:
        yield None
        return
    shown = board(out / "tensorboard")
    try:
        yield shown
    finally:
        shown.close()


def _left(seconds: float) -> str:
    return f" ({seconds:.0f} s left)" if seconds else ""
