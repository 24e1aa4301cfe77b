"""The command line. Every command is one function of the API plus printing; nothing else knows tyro or rich."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

import understudy as us
from understudy.durable import make_folder, write_file
from understudy.episode import SUCCESS
from understudy.errors import ConfigError, MissingDependency, UnderstudyError
from understudy.evaluate import (
    EVALUATION_SEED,
    SUSTAINED_STEPS,
    Evaluation,
    agent_for,
    chosen_trials,
    world_spec,
    world_with,
)
from understudy.inference import FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.worlds import World

_console = Console(highlight=False)
_CORES = os.cpu_count() or 1
_ABOUT = "Teach a robot by example: record demonstrations, clone them, measure the policy honestly."

Env = Annotated[str, tyro.conf.arg(help="Id of the world, like understudy/PickPlace-v0 or module:Id.")]
EnvArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        name="env-arg", metavar="NAME=VALUE", help="Argument of the world, like reward=shaped; may be repeated."
    ),
]
Source = Annotated[Path, tyro.conf.Positional]
Json = Annotated[Path | None, tyro.conf.arg(name="json", help="Also write the result here as JSON.")]


def demo(out: Path = Path("runs/demo"), seed: int = 0, workers: int = _CORES) -> None:
    """The whole story on the bundled task: record, inspect, clone, evaluate, and what distribution shift does.

    Args:
        out: folder for data, runs and report.
        seed: of the training.
        workers: processes that evaluate.
    """
    from understudy.demo import tell

    started = time.monotonic()
    with _progress() as bar:
        report = tell(out, seed=seed, workers=workers, say=_say, progress=bar)
    _say(f"\n{report} holds the report ({time.monotonic() - started:.0f} s); open it in a browser")


def record(
    env: Env,
    out: Path,
    expert: str = "scripted",
    episodes: int = 50,
    seed: int | None = None,
    after_success: int | None = 10,
    env_arguments: EnvArguments = (),
) -> None:
    """Record demonstrations into a dataset. An existing dataset grows.

    Args:
        out: the dataset's folder.
        expert: scripted, scripted-human, a policy folder or run, or an .npz of MLP weights.
        episodes: how many to record.
        seed: of the first start; the next after those recorded where not given.
        after_success: steps that a demonstration goes on after its first success; None for the world's own end.
    """
    world = us.make_env(env, allow_module=True, **_arguments(env_arguments))
    try:
        teacher = us.sim.expert_for(world, expert)
        with us.Dataset.open(out) if (out / "dataset.json").exists() else us.Dataset.create(out, world) as dataset:
            first = seed if seed is not None else max((row.seed for row in dataset.rows), default=-1) + 1
            seeds = range(first, first + episodes)
            if seeds.stop > EVALUATION_SEED:
                raise ConfigError(
                    f"these are starts {first} to {seeds.stop - 1}; recording uses seeds below {EVALUATION_SEED}, "
                    "so that no evaluation measures on recorded starts; choose a lower --seed or a new dataset"
                )
            wins = 0
            with _progress() as bar:
                bar.start("recording", episodes)
                saved = us.record(world, us.Demonstrator(teacher), dataset, seeds=seeds, after_success=after_success)
                for done, (row, episode) in enumerate(saved, 1):
                    wins += episode.success == SUCCESS
                    bar.at(done, f"saved {row.id}, {wins} succeeded")
            _say(f"{out}: {len(dataset)} episodes; {wins} of the {episodes} new ones succeeded")
    finally:
        world.close()


def inspect(data: Source, env: str | None = None, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say what is in a dataset and what is wrong with it. Exit code 1 where training would go wrong.

    Args:
        data: a dataset, or a bare folder of .npz files.
        env: names, units and limits of a bare folder's channels come from this world.
        as_json: print JSON instead of text.
    """
    path = _existing(data)
    # As a path, what cannot be opened is a finding; a file, or names from a world, need the dataset.
    diagnosis = us.diagnose(path if path.is_dir() and env is None else _dataset(path, env))
    if as_json:
        print(_to_json(diagnosis.to_json()))
    else:
        for line in diagnosis.lines():
            _say(line)
    return 1 if diagnosis.errors else 0


def import_(source: Annotated[str, tyro.conf.Positional], out: Path, env: str | None = None) -> None:
    """Bring demonstrations of another format into a dataset, without ever running code from them.

    Args:
        source: a bare folder of .npz files, the DAPG authors' .pickle, a folder in Minari's layout, or
            minari:D4RL/door/human-v2 to download one (extra `minari`).
        out: the new dataset's folder.
        env: names, units and limits come from this world.
    """
    spec = world_spec(env) if env else None
    path = source if source.startswith("minari:") else str(_existing(Path(source)))
    with us.import_dataset(path, out, spec) as dataset:
        _say(f"{out}: {len(dataset)} episodes, {dataset.steps} steps")


def train_bc(
    data: Path,
    out: Path,
    env: str | None = None,
    members: int = 5,
    shape: tyro.conf.OmitArgPrefixes[FeedForwardConfig] = FeedForwardConfig(),
    recipe: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig(),
    resume: bool = False,
) -> None:
    """Clone the demonstrations (Behavioral Cloning).

    Args:
        data: a dataset, or a bare folder of .npz files.
        out: the run's folder.
        env: names, units and limits of a bare folder's channels come from this world.
        members: networks in an ensemble whose mean acts; it counts as one policy.
        shape: of the network.
        recipe: of the training.
        resume: continue an interrupted run; the result is the same bytes.
    """
    dataset = _dataset(data, env)
    if members < 1:
        raise ConfigError(f"members is {members}; accepted: 1 or more")
    policy: us.Policy = (
        us.Ensemble.for_data(dataset, shape, members=members, seed=recipe.seed)
        if members > 1
        else us.FeedForward.for_data(dataset, shape, seed=recipe.seed)
    )
    with _progress() as bar:
        bar.start("training", recipe.steps)

        def show(log: us.TrainLog) -> None:
            losses = f"loss {log.loss:.4f}, held out {log.held_out_loss:.4f}"
            bar.at(log.step, f"{losses}, {log.samples_per_s:,.0f} samples/s")

        us.train(policy, dataset, recipe, run=out, resume=resume, on_log=show, notes={"data": str(data)})
    _write_json(out / "health.json", us.diagnose(dataset).to_json())
    us.write_run_report(out)
    _say(f"{out / 'policy'}: the policy; measure it with `understudy evaluate {out} --env ID`")


def evaluate(
    policy: Source,
    env: Env,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    workers: int = _CORES,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    env_arguments: EnvArguments = (),
    json_out: Json = None,
    video: Path | None = None,
) -> None:
    """Measure a policy over seeded starts: success with a 95 % interval, returns, lengths, time to success.

    Where the policy is a run, its report gains the result.

    Args:
        policy: a policy folder or a run.
        episodes: number of starts; start i is reset(seed + i).
        seed: of the first start.
        workers: processes; the result does not depend on it.
        execute: actions of a chunk that are executed before the policy is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
        video: write an MP4 of up to three successes and three failures.
    """
    policy = _existing(policy)
    run = policy if (policy / "config.json").exists() else None
    if seed < EVALUATION_SEED:
        _say(f"note: demonstrations start from seeds below {EVALUATION_SEED}; an honest figure needs other starts")
    for place in (json_out, video, run and run / "evaluations" / "x"):
        if place:
            make_folder(place.parent)  # before the work, so that nothing is measured for nothing
    world = world_with(env, _arguments(env_arguments), allow_module=True)
    result = _evaluate(policy, world, episodes, seed, workers, execute, ensemble_decay)
    if env_arguments:
        result = replace(result, options={**result.options, "env_arguments": list(env_arguments)})
    _describe(result)
    how = "-".join(f"{key}-{value}" for key, value in result.options.items())
    name = re.sub(r"[^\w.-]+", "-", f"{result.world.split('/')[-1]}-{seed}-{episodes}-{how}").strip("-")
    for place in (json_out, run and run / "evaluations" / f"{name}.json"):
        if place:
            _write_json(place, result.to_json())
    if video or run:
        film = video or policy / "evaluations" / f"{name}.mp4"
        camera = world_with(env, {**_arguments(env_arguments), "render_mode": "rgb_array"}, allow_module=True)
        agent = agent_for(us.load_predictor(policy), execute=execute, ensemble_decay=ensemble_decay)
        why_not = us.film(camera, [us.Show(agent, trial.seed) for trial in chosen_trials(result, 3)], film)
        _say(f"no video: {why_not}" if why_not else f"{film}: successes first, then failures")
        if run:
            _say(f"{us.write_run_report(run)}: the report")


def compare(
    first: Source,
    second: Source,
    env: Env,
    episodes: int = 200,
    seed: int = EVALUATION_SEED,
    workers: int = _CORES,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    env_arguments: EnvArguments = (),
    json_out: Json = None,
) -> None:
    """Compare two policies on the same starts (McNemar's exact test), and say how many starts would be needed.

    Args:
        first: a policy folder or a run.
        second: another.
        episodes: number of starts.
        seed: of the first start.
        workers: processes; the result does not depend on it.
        execute: actions of a chunk that are executed before the policy is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
    """
    if json_out:
        make_folder(json_out.parent)
    world = world_with(env, _arguments(env_arguments), allow_module=True)
    one = _evaluate(_existing(first), world, episodes, seed, workers, execute, ensemble_decay)
    two = _evaluate(_existing(second), world, episodes, seed, workers, execute, ensemble_decay)
    comparison = us.compare(one, two)
    _say(f"first   {first}: {one}\nsecond  {second}: {two}\n{comparison}")
    discordant = max((comparison.only_first + comparison.only_second) / episodes, 0.02)
    for difference in (0.02, 0.05, 0.1, 0.2):
        if difference <= discordant:
            needed = us.episodes_needed(difference, discordant)
            _say(f"a true difference of {difference:.0%} would be seen with {needed} starts (power 80 %)")
    if json_out:
        rows = {"first": one.to_json(), "second": two.to_json(), "comparison": comparison.to_json()}
        _write_json(json_out, rows)


def view(
    source: Source,
    env: Env,
    episodes: int = 3,
    seed: int = EVALUATION_SEED,
    out: Path | None = None,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    env_arguments: EnvArguments = (),
) -> None:
    """Show a dataset's episodes or a policy at work, live in a window or as an MP4.

    Args:
        source: a dataset or a bare folder (its actions are replayed), a policy folder or a run.
        episodes: how many to show.
        seed: of a policy's first start.
        out: MP4 to write; a window opens where not given.
        execute: actions of a policy's chunk that are executed before it is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
    """
    source = _existing(source)
    mode = "rgb_array" if out else "human"
    world = world_with(env, {**_arguments(env_arguments), "render_mode": mode}, allow_module=True)
    if _is_policy(source):
        agent = agent_for(us.load_predictor(source), execute=execute, ensemble_decay=ensemble_decay)
        shows = [us.Show(agent, seed + index) for index in range(episodes)]
    else:
        dataset = _dataset(source, None)
        shows = [us.Show.of(dataset[index]) for index in range(min(episodes, len(dataset)))]
    if out is None:
        us.show_live(world, shows)
    else:
        why_not = us.film(world, shows, out)
        if why_not:
            raise MissingDependency(why_not)
        _say(f"{out}: {len(shows)} episodes")


def replay(
    data: Source, env: Env, episodes: int | None = None, env_arguments: EnvArguments = (), json_out: Json = None
) -> None:
    """Run recorded actions open-loop from the recorded starts, and say how far the states drift.

    Args:
        data: a dataset, or a bare folder of .npz files.
        episodes: only so many.
    """
    if json_out:
        make_folder(json_out.parent)
    dataset = _dataset(data, None)
    world = us.make_env(env, allow_module=True, **_arguments(env_arguments))
    drifts = []
    try:
        for index in range(min(episodes or len(dataset), len(dataset))):
            drift = us.replay(world, dataset[index])
            drifts.append({"episode": dataset.rows[index].id, **asdict(drift)})
            _say(f"{dataset.rows[index].id}: {drift}")
    finally:
        world.close()
    wins = sum(drift["success"] == 1 for drift in drifts)
    _say(f"{wins} of {len(drifts)} replays succeeded")
    if json_out:
        _write_json(json_out, drifts)


def report(run: Source) -> None:
    """Write the report of a run anew from what its folder holds."""
    _say(f"{us.write_run_report(_existing(run))}: the report")


app = tyro.extras.SubcommandApp()
_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "record": record,
    "inspect": inspect,
    "import": import_,
    "view": view,
    "replay": replay,
    "train bc": train_bc,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
}
for _name, _command in _COMMANDS.items():
    app.command(name=_name)(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 where `inspect` found errors, 2 for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"] and len(words) > 1:
        words[:2] = [" ".join(words[:2])]  # one command of two words
    try:
        code = app.cli(prog="understudy", args=words, description=_ABOUT)
    except UnderstudyError as error:
        print(f"understudy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("understudy: interrupted; what was saved is safe, and a run continues with --resume", file=sys.stderr)
        return 130
    return int(code or 0)


class _Bar:
    """A progress bar with a time left on a terminal; a line now and then where there is none."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._total, self._next_line = 1, 0.0

    def start(self, what: str, total: int) -> None:
        self.stop()
        self._total, self._next_line = total, 0.0
        self._task = self._progress.add_task(what, total=total, note="")

    def at(self, done: int, note: str = "") -> None:
        assert self._task is not None, "start() comes first"
        self._progress.update(self._task, completed=done, note=note)
        if not self._progress.console.is_terminal and done >= self._next_line * self._total:
            task = self._progress.tasks[0]
            _say(f"{task.description} {done}/{self._total} {note}".rstrip())
            self._next_line = done / self._total + 0.1

    def stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextmanager
def _progress() -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal) as progress:
        yield _Bar(progress)


def _say(text: str) -> None:
    """One line on the screen, not broken where there is no screen and not read as markup."""
    _console.print(text, markup=False, soft_wrap=True)


def _evaluate(
    policy: Path,
    world: World,
    episodes: int,
    seed: int,
    workers: int,
    execute: int | None = None,
    ensemble_decay: float | None = None,
) -> Evaluation:
    predictor = us.load_predictor(policy)
    wins = 0
    with _progress() as bar:
        bar.start(f"evaluating {policy}", episodes)

        def show(trial: us.Trial) -> None:
            nonlocal wins
            wins += bool(trial.success)
            bar.at(trial.index + 1, f"{wins} succeeded")

        return us.evaluate(
            world,
            predictor,
            episodes=episodes,
            seed=seed,
            workers=workers,
            execute=execute,
            ensemble_decay=ensemble_decay,
            on_trial=show,
        )


def _describe(result: Evaluation) -> None:
    summary = result.to_json()
    _say(f"{result} starts of {result.world} from seed {result.seed}")
    _say(f"success on more than {SUSTAINED_STEPS} steps: {result.sustained_rate:.2f}")
    _say(f"mean return {summary['mean_return']:.2f}")
    if summary["median_time_to_success_s"] is not None:
        _say(f"median time to success {summary['median_time_to_success_s']:.2f} s")


def _dataset(path: Path, env: str | None) -> us.Dataset:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = us.Dataset.open(_existing(path))
    if env:
        return dataset.with_spec(world_spec(world_with(env, {}, allow_module=True)))
    for warning in caught:
        print(f"understudy: {warning.message}", file=sys.stderr)
    return dataset


def _existing(path: Path) -> Path:
    """The path itself, or the one below $UNDERSTUDY_DATA."""
    root = os.environ.get("UNDERSTUDY_DATA")
    for candidate in (path, *([Path(root) / path] if root else [])):
        if candidate.exists():
            return candidate
    raise ConfigError(f"{path} does not exist; give an existing path, or set UNDERSTUDY_DATA to the folder it lies in")


def _is_policy(path: Path) -> bool:
    return any((path / name).exists() for name in ("policy.json", "config.json"))


def _arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """`reward=shaped width=320` as arguments of a world; what reads as JSON is a number, true or false."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env-arg {pair!r} is not of the form name=value")
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    return arguments


def _write_json(path: Path, value: Any) -> None:
    write_file(path, _to_json(value).encode())


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
