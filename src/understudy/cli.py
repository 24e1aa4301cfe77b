"""The command line. Every command is one function of the API plus printing; nothing else knows tyro or rich."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

import understudy as us
from understudy.dataset.doctor import Diagnosis
from understudy.dataset.folder import DatasetWarning, remove_dataset
from understudy.dataset.journal_file import JOURNAL
from understudy.durable import in_words, prove_writable, write_file
from understudy.episode import SUCCESS
from understudy.errors import ConfigError, MissingDependency, UnderstudyError, require_within
from understudy.evaluate import (
    EVALUATION_SEED,
    SUSTAINED_STEPS,
    Evaluation,
    agent_for,
    chosen_trials,
    wilson_interval,
    world_spec,
    world_with,
)
from understudy.inference import MOST_MEMBERS, FeedForwardConfig, Predictor
from understudy.recipe import DAGGER_RECIPE, LARGEST_SEED, DAggerConfig, TrainConfig
from understudy.report.films import FILMED_EACH, film_evaluation
from understudy.report.run_files import evaluations_folder, read_config
from understudy.runs import Run, read_metrics
from understudy.workers import MOST_WORKERS
from understudy.worlds import World

if TYPE_CHECKING:
    from understudy.interactive.ledger import Entry

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
GateArguments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(name="gate-arg", metavar="NAME=VALUE", help="Option of the gate, like tau=0.1; may be repeated."),
]
_T = TypeVar("_T")
# Names inside a dataset, a policy or a run that no other output may take.
_OWNED = (
    *("dataset.json", "episodes.jsonl", "episodes", "recording.journal", "writer.lock", "data", "rounds"),
    *("policy.json", "weights.safetensors", "config.json", "metrics.jsonl", "health.json", "report.html"),
    *("checkpoints", "policy", "evaluations"),
)
Answer = Literal["yes", "no"]
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

    require_within("workers", workers, 1, MOST_WORKERS)
    require_within("seed", seed, 0, LARGEST_SEED)
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
    require_within("episodes", episodes, 1, EVALUATION_SEED)
    require_within("seed", seed, 0, EVALUATION_SEED)
    require_within("after-success", after_success, 0)
    world = us.make_env(_world(env, env_arguments))
    try:
        teacher = _expert(world, expert)
        with _growing(out, world) as dataset:
            held = {row.seed for row in dataset.rows}
            first = seed if seed is not None else max(held, default=-1) + 1
            seeds = range(first, first + episodes)
            if seeds.stop > EVALUATION_SEED:
                raise ConfigError(
                    f"these are starts {first} to {seeds.stop - 1}; recording uses seeds below {EVALUATION_SEED}, "
                    "so that no evaluation measures on recorded starts; choose a lower --seed or a new dataset"
                )
            if again := held.intersection(seeds):
                _tell(f"{len(again)} of these starts are in {out} already; leave --seed out to record new ones")
            done = wins = 0
            with _progress() as bar:
                bar.start("recording", episodes)
                saved = us.record(world, us.Demonstrator(teacher), dataset, seeds=seeds, after_success=after_success)
                try:
                    for done, (row, episode) in enumerate(saved, 1):
                        wins += episode.success == SUCCESS
                        bar.at(done, f"saved {row.id}, {wins} succeeded")
                except KeyboardInterrupt:
                    rest = f"--episodes {episodes - done}" + ("" if seed is None else f" --seed {first + done}")
                    raise KeyboardInterrupt(
                        f"{done} of {episodes} episodes are saved; the same command with {rest} records the rest"
                    ) from None
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
    spec = world_spec(_world(env)) if env else None
    path = source if source.startswith("minari:") else str(_existing(Path(source)))
    with _progress() as bar:
        bar.start("importing", None)
        dataset = us.import_dataset(path, out, spec, on_row=lambda row: bar.at(row.id + 1))
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
    require_within("members", members, 1, MOST_MEMBERS)
    dataset = _dataset(data, env)
    diagnosis = us.diagnose(dataset)
    for line in _error_lines(diagnosis):
        _tell(line)
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

        notes = {"data": str(data), **({"env": env} if env else {})}
        us.train(policy, dataset, recipe, run=out, resume=resume, on_log=show, on_step=bar.at, notes=notes)
    _write_json(out / "health.json", diagnosis.to_json())
    us.write_run_report(out)
    _say(f"{out / 'policy'}: the policy; measure it with `understudy evaluate {shlex.quote(str(out))} --env ID`")


def dagger(
    env: Env,
    out: Path,
    policy: Annotated[Path | None, tyro.conf.Positional] = None,
    data: Path | None = None,
    expert: str = "scripted",
    gate: str = "dagger",
    gate_arguments: GateArguments = (),
    demonstrations: int = 10,
    members: int = 5,
    starts: int = 100,
    workers: int = _CORES,
    shape: tyro.conf.OmitArgPrefixes[FeedForwardConfig] = FeedForwardConfig(),
    rounds: tyro.conf.OmitArgPrefixes[DAggerConfig] = DAggerConfig(),
    recipe: tyro.conf.OmitArgPrefixes[TrainConfig] = DAGGER_RECIPE,
    env_arguments: EnvArguments = (),
    resume: bool = False,
    dry_run: bool = False,
) -> None:
    """Correct a policy while it tries: rounds of rolling out, asking the expert, and training (the DAgger family).

    Args:
        out: the run's folder; what is collected goes to its data/.
        policy: a policy folder or a run to begin with; the demonstrations are cloned where not given.
        data: demonstrations to begin with; recorded from the expert where not given.
        expert: scripted, a policy folder or run, or an .npz of MLP weights; human:scripted simulates a person who
            watches, takes over and hands back.
        gate: who drives: dagger, safe, lazy, hg, thrifty or ensemble.
        demonstrations: recorded from the expert where no data are given.
        members: networks in an ensemble whose mean acts and whose disagreement some gates measure.
        starts: on which the last policy is evaluated at the end.
        workers: processes that evaluate.
        shape: of the network.
        rounds: how the rounds go.
        recipe: of each training.
        resume: continue an interrupted run; the result is the same bytes.
        dry_run: collect nothing; say what the gate would have asked of the expert during the recorded episodes.
    """
    from understudy.checkpoint import load

    for name, count, most in (
        ("members", members, MOST_MEMBERS),
        ("demonstrations", demonstrations, EVALUATION_SEED),
        ("starts", starts, EVALUATION_SEED),
        ("workers", workers, MOST_WORKERS),
    ):
        require_within(name, count, 1, most)
    factory = _world(env, env_arguments)
    chosen = us.gate_for(gate, _arguments(gate_arguments, "--gate-arg"))
    world = us.make_env(factory)
    try:
        start = load(_existing(policy)) if policy else None
        given = _dataset(data, env, env_arguments) if data else None
        if dry_run:
            if start is None or given is None:
                raise ConfigError("--dry-run applies a gate to a policy and recorded episodes; give POLICY and --data")
            _rehearse(chosen, start, given)
            return
        teacher = _expert(world, expert)
        if gate == "hg" and not hasattr(teacher, "watch"):
            raise ConfigError(
                f"the gate hg waits for a person who takes over and hands back; {expert} never hands back, so give "
                f"human:{expert}"
            )
        if start is None:
            single = us.FeedForward(us.spec_of(world), shape).initialized(recipe.seed)
            start = us.Ensemble.of(single, members, seed=recipe.seed) if members > 1 else single
        chosen.begin(start)
        Run.may_begin(out, resume=resume)  # all refusals come before the first demonstration
        demos = given if given is not None else _demonstrations(world, expert, out, demonstrations, resume)
        notes: dict[str, Any] = {"env": env, "expert": expert, "data": str(data or demos.path)}
        notes |= {"env_arguments": list(env_arguments)} if env_arguments else {}
        notes |= {"start": str(policy)} if policy else {}
        with _progress() as bar:
            told = us.dagger(
                world,
                teacher,
                chosen,
                start,
                demos,
                rounds,
                recipe,
                world=factory,
                workers=workers,
                run=out,
                resume=resume,
                watcher=_Rounds(bar),
                notes=notes,
            )
            for one in told:
                _say(_described(one))
    finally:
        world.close()
    evaluate(out, env, episodes=starts, workers=workers, env_arguments=env_arguments)


def advise(
    data: Source,
    env: str | None = None,
    expert: Answer | None = None,
    reward: Answer | None = None,
    robot: Answer | None = None,
) -> None:
    """Say which method suits the demonstrations and the task, with reasons.

    Args:
        data: a dataset, or a bare folder of .npz files.
        env: the world, where there is a simulator.
        expert: whether somebody or something can be asked while the policy tries; yes where the world has a script.
        reward: whether the world pays a reward that says how well the task goes.
        robot: whether it runs on a real robot; no where a simulator is named.
    """
    diagnosis = us.diagnose(_dataset(_existing(data), env))
    if env is not None:
        robot = robot or "no"
        expert = expert or ("yes" if _has_script(env) else None)
    answers = (None if answer is None else answer == "yes" for answer in (expert, reward, robot))
    for line in us.advise(diagnosis, us.Situation(*answers)).lines():
        _say(line)


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
    world = _world(env, env_arguments)
    predictor = _policy(policy, world)
    run = policy if (policy / "config.json").exists() else None
    if seed < EVALUATION_SEED:
        _say(f"note: demonstrations start from seeds below {EVALUATION_SEED}; an honest figure needs other starts")
    kept = evaluations_folder(run) if run else None
    _require_outputs(json_out, video)
    if kept:
        prove_writable(kept / "evaluation.json")
    result = _evaluate(str(policy), predictor, world, episodes, seed, workers, execute, ensemble_decay)
    if ":" in env:
        result = replace(result, world=env)  # with the module, as whoever repeats it must type it
    if env_arguments:
        result = replace(result, options={**result.options, "env_arguments": list(env_arguments)})
    _describe(result)
    how = [f"{key}-{value}" for key, value in result.options.items() if key != "env_arguments"]
    name = re.sub(
        r"[^\w.-]+", "-", "-".join([result.world.split("/")[-1], str(seed), str(episodes), *how, *env_arguments])
    )
    for place in (json_out, kept and kept / f"{name}.json"):
        if place:
            _write_json(place, result.to_json())
    if video or run:
        camera = _world(env, env_arguments, render_mode="rgb_array")
        agent = agent_for(predictor, execute=execute, ensemble_decay=ensemble_decay)
        if video:
            shows = [us.Show(agent, trial.seed) for trial in chosen_trials(result, FILMED_EACH)]
            why_not = us.film(camera, shows, video)
            _say(f"no video: {why_not}" if why_not else f"{video}: successes first, then failures")
        if run:
            why_not = film_evaluation(run, name, result, camera, agent)
            if why_not:
                _say(f"no videos in the report: {why_not}")
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
    world = _world(env, env_arguments)
    policies = {str(path): _policy(_existing(path), world) for path in (first, second)}
    _require_outputs(json_out)
    ledgers = {str(path): _ledger(_existing(path)) for path in (first, second)}
    one, two = (
        _evaluate(str(path), policies[str(path)], world, episodes, seed, workers, execute, ensemble_decay, judged=True)
        for path in (first, second)
    )
    comparison = us.compare(one, two)
    _say(f"first   {first}: {one}\nsecond  {second}: {two}\n{comparison}")
    if all(ledgers.values()):
        for name, ledger in ledgers.items():
            _say(f"{name}: {ledger}")
    solved_by_one = comparison.only_first + comparison.only_second
    discordant = solved_by_one / episodes
    if not solved_by_one:
        discordant = wilson_interval(0, episodes)[1]
        _say(f"no start tells the two apart; at most {discordant:.0%} of all starts may (95 %), and if so:")
    for difference in (0.02, 0.05, 0.1, 0.2):
        if difference <= discordant:
            needed = us.episodes_needed(difference, discordant)
            _say(f"a true difference of {difference:.0%} would be seen with {needed} starts (power 80 %)")
    if json_out:
        rows = {"first": one.to_json(), "second": two.to_json(), "comparison": comparison.to_json()}
        if all(ledgers.values()):
            rows["ledgers"] = {name: ledger.to_json() for name, ledger in ledgers.items() if ledger}
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
    require_within("episodes", episodes, 1)
    require_within("seed", seed, 0, LARGEST_SEED)
    source = _existing(source)
    plain = _world(env, env_arguments)
    if _is_policy(source):
        agent = agent_for(_policy(source, plain), execute=execute, ensemble_decay=ensemble_decay)
        shows = [us.Show(agent, seed + index) for index in range(episodes)]
    else:
        dataset = _recorded_in(source, plain)
        shows = [us.Show.of(dataset[index]) for index in range(min(episodes, len(dataset)))]
    _require_outputs(out)
    world = _world(env, env_arguments, render_mode="rgb_array" if out else "human")
    with _progress() as bar:
        if out is None:
            us.show_live(world, bar.over("showing", shows))
            return
        why_not = us.film(world, bar.over("filming", shows), out)
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
    require_within("episodes", episodes, 1)
    factory = _world(env, env_arguments)
    dataset = _recorded_in(data, factory)
    _require_outputs(json_out)
    world = us.make_env(factory)
    drifts = []
    try:
        with _progress() as bar:
            for index in bar.over("replaying", range(min(episodes or len(dataset), len(dataset)))):
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
    "dagger": dagger,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "advise": advise,
}
_AFTER_CTRL_C = {
    "demo": "the same command goes on where it stopped",
    "train bc": "the same command with --resume goes on where it stopped",
    "dagger": "the same command with --resume goes on where it stopped",
    "view": "a film holds what it had shown",
}


def _bound(command: Callable[..., Any]) -> Callable[..., Any]:
    """What tyro calls with the parsed options: it keeps them, so that parsing ends before the command begins."""

    @wraps(command)
    def bind(*arguments: Any, **options: Any) -> Any:
        return partial(command, *arguments, **options)

    return bind


for _name, _command in _COMMANDS.items():
    app.command(name=_name)(_bound(_command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 where `inspect` found errors, 2 for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:2] == ["train", "bc"]:
        words[:2] = ["train bc"]  # one command of two words
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        tell_once = cache(_tell)
        warnings.showwarning = lambda message, *place, **where: tell_once(str(message))
        try:
            return int(_parsed(words)() or 0)
        except UnderstudyError as error:
            _tell(str(error))
        except BrokenPipeError:  # whoever reads the output, like `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except OSError as error:  # a file that may not be read, a name that is too long
            _tell(f"{error.filename or 'the operating system'}: {in_words(error)}")
        except KeyboardInterrupt as interrupt:
            how = str(interrupt) or _AFTER_CTRL_C.get(words[0], "what was not finished is not kept; run it again")
            _tell(f"interrupted; {how}")
            return 130
    return 2


def _parsed(words: list[str]) -> Callable[[], Any]:
    """The command that the words ask for, ready to run.

    Raises:
        ConfigError: there is no such command or option; tyro prints a box, of which this is what matters.
    """
    if words[:1] == ["train"]:
        if not {"-h", "--help"} & {*words}:
            raise ConfigError("`train` needs its method: understudy train bc --data DATA --out RUN")
        words = ["train bc", "--help"]
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            command: Callable[[], Any] = app.cli(prog="understudy", args=words, description=_ABOUT)
    except SystemExit as end:
        if not end.code:
            raise
        help_of = " ".join(["understudy", *(word for word in words[:1] if word in _COMMANDS), "--help"])
        raise ConfigError(f"{_sentence(box.getvalue())}; see `{help_of}`") from None
    return command


def _sentence(box: str) -> str:
    """What a box of tyro's says between its first two rules, without the help of each option."""
    between = re.split(r"^.*(?:────|----).*$", box, flags=re.MULTILINE)[1]
    lines = (line[2:].rstrip("│ ") for line in between.splitlines())  # after the side of the box
    return " ".join(line.strip() for line in lines if line and not line.startswith(" " * 8))


class _Bar:
    """A progress bar with a time left on a terminal; a line now and then where there is none."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._total: int | None = None
        self._next_line = 0.0
        self._begun: tuple[int, float] | None = None
        self._note = ""

    def start(self, what: str, total: int | None) -> None:
        self.stop()
        self._total, self._next_line, self._begun, self._note = total, 0.0, None, ""
        self._task = self._progress.add_task(what, total=total, note="")

    def at(self, done: int, note: str | None = None) -> None:
        """Says how much is done; without a note, the last one stays."""
        assert self._task is not None, "start() comes first"
        self._note = self._note if note is None else note
        self._progress.update(self._task, completed=done, note=self._note)
        self._begun = self._begun or (done, time.monotonic())
        if not self._progress.console.is_terminal and self._total and done >= self._next_line * self._total:
            task = self._progress.tasks[0]
            said = (f"{task.description} {done}/{self._total}", self._left(done), self._note)
            _say(" ".join(filter(None, said)))
            self._next_line = done / self._total + 0.1

    def over(self, what: str, items: Sequence[_T]) -> Iterator[_T]:
        """The items, one after the other, with the number of those done on the bar."""
        self.start(what, len(items))
        for done, item in enumerate(items):
            self.at(done)
            yield item
        self.at(len(items))

    def _left(self, done: int) -> str:
        first, since = self._begun or (done, 0.0)
        if self._total is None or done in (first, self._total):
            return ""
        left_s = (time.monotonic() - since) / (done - first) * (self._total - done)
        return f"({timedelta(seconds=round(left_s))} left)"

    def stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class _Rounds:
    """The phases of each round on the progress bar."""

    def __init__(self, bar: _Bar) -> None:
        self._bar, self._done, self._wins = bar, 0, 0

    def on_phase(self, round: int, phase: str, total: int) -> None:
        self._bar.start(f"round {round}: {phase}", total)
        self._done = self._wins = 0

    def on_episode(self, episode: us.Episode) -> None:
        self._done += 1
        self._wins += episode.success == SUCCESS
        self._bar.at(self._done, f"{self._wins} succeeded with help")

    def on_training(self, log: us.TrainLog) -> None:
        self._bar.at(log.step, f"loss {log.loss:.4f}, held out {log.held_out_loss:.4f}")


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


def _tell(text: str) -> None:
    """One line beside the result: a mistake or a warning."""
    print(f"understudy: {_plain(text)}", file=sys.stderr)


def _plain(text: str) -> str:
    """Without the colours and the level that Gymnasium puts before its warnings."""
    return re.sub(r"\x1b\[[0-9;]*m(?:WARN: )?", "", text)


def _world(env: str, env_arguments: Sequence[str] = (), **more: Any) -> World:
    """The world that --env names, as a function that other processes can call, too."""
    if ":" in env and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # who types module:Id means the module that lies here
    return world_with(env, {**_arguments(env_arguments), **more}, allow_module=True)


def _policy(path: Path, world: World) -> Predictor:
    """The policy at a path, of which it is known that it fits the world."""
    predictor = us.load_predictor(path)
    spec = world_spec(world)
    predictor.spec.require(spec, what=spec.env_id, against="the policy")
    return predictor


def _recorded_in(path: Path, world: World) -> us.Dataset:
    """The dataset at a path, of which it is known that its actions fit the world."""
    dataset = _dataset(path, None)
    spec = world_spec(world)
    dataset.spec.require(spec, what=spec.env_id, against=str(dataset.path))
    return dataset


def _expert(world: Any, name: str) -> us.Expert:
    """The expert of that name; a file or folder, after the kinds before it, may lie below $UNDERSTUDY_DATA."""
    kinds, colon, last = name.rpartition(":")
    expert: us.Expert = us.sim.expert_for(world, f"{kinds}{colon}{_found(Path(last))}" if last else name)
    return expert


@contextmanager
def _growing(out: Path, world: Any) -> Iterator[us.Dataset]:
    """The dataset at `out` to append to; a new one goes again where nothing came into it."""
    existed = out.exists()
    if (out / "dataset.json").exists():
        with us.Dataset.open(out) as dataset:
            yield dataset
        return
    with us.Dataset.create(out, world) as dataset:
        try:
            yield dataset
        finally:
            if not dataset.include_partial().rows and not (out / JOURNAL).exists():
                remove_dataset(out, folder_too=not existed)


def _require_outputs(*paths: Path | None) -> None:
    """Refuses, before the work, files that cannot be written, or that belong to a dataset, a policy or a run."""
    for path in filter(None, paths):
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no plain file; name a file to write")
        for home in path.resolve().parents[:2]:
            owned = path.resolve().relative_to(home).parts[0] in _OWNED
            if owned and any((home / name).exists() for name in ("dataset.json", "config.json", "policy.json")):
                raise ConfigError(f"{path} belongs to the dataset, policy or run in {home}; name another file")
        prove_writable(path)


def _error_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """One line for each class of errors in data that somebody is about to train on."""
    messages: dict[str, list[str]] = {}
    for defect in diagnosis.errors:
        messages.setdefault(defect.id, []).append(defect.message)
    for name, same in messages.items():
        more = f" (and {len(same) - 1} more; see `understudy inspect`)" if len(same) > 1 else ""
        yield f"the data have an error, {name}: {same[0]}{more}"


def _evaluate(
    name: str,
    predictor: Predictor,
    world: World,
    episodes: int,
    seed: int,
    workers: int,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    *,
    judged: bool = False,
) -> Evaluation:
    wins = 0
    with _progress() as bar:
        bar.start(f"evaluating {name}", episodes)

        def show(trial: us.Trial) -> None:
            nonlocal wins
            if judged and trial.success is None:
                raise ConfigError("this world reports no success, so there is nothing to compare; use one that does")
            wins += bool(trial.success)
            bar.at(trial.index + 1, None if trial.success is None else f"{wins} succeeded")

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


def _demonstrations(world: Any, expert: str, out: Path, count: int, resume: bool) -> us.Dataset:
    """Demonstrations of the expert, in a folder beside the run, of which those still missing are recorded."""
    path = out.with_name(f"{out.name}-demonstrations")
    if path.exists() and not resume:
        raise ConfigError(f"{path} exists; give it with --data, or continue with --resume")
    # A person who watches is asked to demonstrate, and then is engaged throughout.
    teacher = _expert(world, expert)
    if (out / "config.json").exists():
        return us.Dataset.open(path)  # the run has begun, so they are complete
    begun = (path / "dataset.json").exists()
    with us.Dataset.open(path) if begun else us.Dataset.create(path, world) as dataset, _progress() as bar:
        dataset.writer().begin()  # an episode whose save was interrupted is taken up before anybody counts them
        bar.start("demonstrating", count)
        for _ in us.record(world, us.Demonstrator(teacher), dataset, seeds=range(len(dataset), count)):
            bar.at(len(dataset))
    return us.Dataset.open(path)


def _rehearse(gate: us.Gate, policy: us.Policy, dataset: us.Dataset) -> None:
    steps = labels = driven = interventions = 0
    for one in us.rehearse(gate, policy, dataset):
        _say(
            f"episode {one.episode}: {one.labels} labels, {one.expert_steps} of {one.steps} steps driven by the "
            f"expert, {one.interventions} takeovers"
        )
        steps, labels = steps + one.steps, labels + one.labels
        driven, interventions = driven + one.expert_steps, interventions + one.interventions
    _say(
        f"the gate {gate.name} would have asked for {labels} labels in {steps} steps ({labels / max(1, steps):.0%}), "
        f"with {driven} steps driven by the expert and {interventions} takeovers"
    )


def _described(one: us.Round) -> str:
    entry = one.entry
    alone = f"; alone {one.evaluation}" if one.evaluation else ""
    if one.number == 0:
        return f"round 0: cloned {entry.episodes} demonstrations of {entry.steps} steps{alone}"
    return f"round {one.number}: {entry}{alone}"


def _ledger(run: Path) -> Entry | None:
    """What the expert did in all rounds of a DAgger run, the demonstrations included; None for any other policy."""
    if not (run / "config.json").exists() or read_config(run).get("command") != "dagger":
        return None
    from understudy.interactive.ledger import total_of

    return total_of(read_metrics(run))


def _has_script(env: str) -> bool:
    world = us.make_env(_world(env))
    try:
        us.sim.expert_for(world, "scripted")
    except ConfigError:
        return False
    finally:
        world.close()
    return True


def _describe(result: Evaluation) -> None:
    summary = result.to_json()
    _say(f"{result} starts of {result.world} from seed {result.seed}")
    if result.is_judged:
        _say(f"success on more than {SUSTAINED_STEPS} steps: {result.sustained_rate:.2f}")
    _say(f"mean return {summary['mean_return']:.2f}")
    if summary["median_time_to_success_s"] is not None:
        _say(f"median time to success {summary['median_time_to_success_s']:.2f} s")


def _dataset(path: Path, env: str | None, env_arguments: Sequence[str] = ()) -> us.Dataset:
    if env is None:
        return us.Dataset.open(_existing(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # the world gives what a bare folder lacks
        dataset = us.Dataset.open(_existing(path))
    return dataset.with_spec(world_spec(_world(env, env_arguments)))


def _found(path: Path) -> Path:
    """The path itself, or the one below $UNDERSTUDY_DATA where only that exists."""
    below = Path(os.environ.get("UNDERSTUDY_DATA", "")) / path
    return below if below.exists() and not path.exists() else path


def _existing(path: Path) -> Path:
    """The same for what must exist."""
    if not _found(path).exists():
        raise ConfigError(
            f"{path} does not exist; give an existing path, or set UNDERSTUDY_DATA to the folder it lies in"
        )
    return _found(path)


def _is_policy(path: Path) -> bool:
    return any((path / name).exists() for name in ("policy.json", "config.json"))


def _arguments(pairs: Sequence[str], option: str = "--env-arg") -> dict[str, Any]:
    """`reward=shaped width=320` as arguments of a world or gate; what reads as JSON is a number, true or false."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{option} {pair!r} is not of the form name=value")
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    return arguments


def _write_json(path: Path, value: Any) -> None:
    write_file(path, _to_json(value).encode())


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
