"""Commands that measure policies and tell what was measured."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import understudy as us
from understudy.cli.arguments import (
    CORES,
    Env,
    EnvArguments,
    Json,
    Source,
    existing,
    policy_at,
    require_outputs,
    to_json_text,
    world_of,
    write_json,
)
from understudy.cli.console import progress, say
from understudy.durable import prove_writable
from understudy.evaluate import EVALUATION_SEED, SUSTAINED_STEPS, Evaluation, agent_for, chosen_trials, wilson_interval
from understudy.inference import Predictor
from understudy.report.films import FILMED_EACH, film_evaluation
from understudy.report.run_files import LARGEST_JSON, evaluations_folder, read_config
from understudy.runs import read_metrics
from understudy.worlds import World, step_limit

if TYPE_CHECKING:
    from understudy.interactive.ledger import Entry

_LONGEST_NAME = 100


def evaluate(
    policy: Source,
    env: Env,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    workers: int = CORES,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    max_steps: int | None = None,
    env_arguments: EnvArguments = (),
    json_out: Json = None,
    video: Path | None = None,
) -> None:
    """Measure a policy over seeded starts: success with a 95 % interval, returns, lengths, time to success.

    Where the policy is a run, its report gains the result.

    Args:
        policy: a policy folder, a run or an .onnx.
        episodes: number of starts; start i is reset(seed + i).
        seed: of the first start.
        workers: processes; the result does not depend on it.
        execute: actions of a chunk that are executed before the policy is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
        max_steps: after which an episode ends, where the world does not end it before.
        video: write an MP4 of up to three successes and three failures.
    """
    policy = existing(policy)
    world = world_of(env, env_arguments)
    predictor = policy_at(policy, world)
    run = policy if (policy / "config.json").exists() else None
    _note_training_starts(seed)
    kept = evaluations_folder(run) if run else None
    require_outputs(json_out, video)
    if kept:
        prove_writable(kept / "evaluation.json")
    note_endless_world(world, max_steps)
    result = _evaluate(str(policy), predictor, world, episodes, seed, workers, execute, ensemble_decay, max_steps)
    if ":" in env:
        result = replace(result, world=env)  # with the module, as whoever repeats it must type it
    if env_arguments:
        result = replace(result, options={**result.options, "env_arguments": list(env_arguments)})
    _describe(result)
    if json_out:
        write_json(json_out, result.to_json())
    if kept and (size := len(to_json_text(result.to_json()))) > LARGEST_JSON:
        say(f"not kept in {run}: {size} bytes, and its report reads {LARGEST_JSON} at most; fewer episodes, or --json")
        run = kept = None
    name = _file_name(result)
    if kept:
        write_json(kept / f"{name}.json", result.to_json())
    if not video and not run:
        return
    camera = world_of(env, env_arguments, render_mode="rgb_array")
    agent = agent_for(predictor, execute=execute, ensemble_decay=ensemble_decay)
    if video:
        shows = [us.Show(agent, trial.seed, steps=max_steps) for trial in chosen_trials(result, FILMED_EACH)]
        with progress() as bar:
            why_not = us.film(camera, bar.over("filming", shows), video)
        say(f"no video: {why_not}" if why_not else f"{video}: successes first, then failures")
    if run:
        try:
            with progress() as bar:
                why_not = film_evaluation(run, name, result, camera, agent, partial(bar.over, "filming for the report"))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"the evaluation is kept in {run}, not all of its films; `understudy report {run}` writes the report"
            ) from None
        if why_not:
            say(f"no videos in the report: {why_not}")
        say(f"{us.write_run_report(run)}: the report")


def compare(
    first: Source,
    second: Source,
    env: Env,
    episodes: int = 200,
    seed: int = EVALUATION_SEED,
    workers: int = CORES,
    execute: int | None = None,
    ensemble_decay: float | None = None,
    max_steps: int | None = None,
    env_arguments: EnvArguments = (),
    json_out: Json = None,
) -> None:
    """Compare two policies on the same starts (McNemar's exact test), and say how many starts would be needed.

    Args:
        first: a policy folder, a run or an .onnx.
        second: another.
        episodes: number of starts.
        seed: of the first start.
        workers: processes; the result does not depend on it.
        execute: actions of a chunk that are executed before the policy is asked again.
        ensemble_decay: ask at every step and average the open chunks with this decay instead.
        max_steps: after which an episode ends, where the world does not end it before.
    """
    world = world_of(env, env_arguments)
    policies = {str(path): policy_at(existing(path), world) for path in (first, second)}
    _note_training_starts(seed)
    require_outputs(json_out)
    note_endless_world(world, max_steps)
    ledgers = {str(path): _ledger(existing(path)) for path in (first, second)}
    how = (episodes, seed, workers, execute, ensemble_decay, max_steps)
    one, two = (_evaluate(str(path), policies[str(path)], world, *how) for path in (first, second))
    comparison = us.compare(one, two)
    say(f"first   {first}: {one}\nsecond  {second}: {two}\n{comparison}")
    if all(ledgers.values()):
        for name, ledger in ledgers.items():
            say(f"{name}: {ledger}")
    solved_by_one = comparison.only_first + comparison.only_second
    discordant = solved_by_one / episodes
    if not solved_by_one:
        discordant = wilson_interval(0, episodes)[1]
        say(f"no start tells the two apart; at most {discordant:.0%} of all starts may (95 %), and if so:")
    for difference in (0.02, 0.05, 0.1, 0.2):  # of which as many starts at least tell the two apart
        needed = us.episodes_needed(difference, max(difference, discordant))
        say(f"a true difference of {difference:.0%} would be seen with {needed} starts (power 80 %)")
    if json_out:
        rows = {"first": one.to_json(), "second": two.to_json(), "comparison": comparison.to_json()}
        if all(ledgers.values()):
            rows["ledgers"] = {name: ledger.to_json() for name, ledger in ledgers.items() if ledger}
        write_json(json_out, rows)


def report(run: Source) -> None:
    """Write the report of a run anew from what its folder holds."""
    say(f"{us.write_run_report(existing(run))}: the report")


def _file_name(evaluation: Evaluation) -> str:
    """What tells an evaluation from others of its run, short enough for any disk."""
    options = [f"{key}-{value}" for key, value in evaluation.options.items() if key != "env_arguments"]
    about = [evaluation.world.removeprefix("understudy/"), str(evaluation.seed), str(len(evaluation.trials)), *options]
    whole = "-".join([*about, *evaluation.options.get("env_arguments", ())])
    name = re.sub(r"[^\w.-]+", "-", whole, flags=re.ASCII)
    if len(name) <= _LONGEST_NAME and whole.isascii():
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _note_training_starts(seed: int) -> None:
    if seed < EVALUATION_SEED:
        say(f"note: demonstrations start from seeds below {EVALUATION_SEED}; an honest figure needs other starts")


def limit_where_none(world: World, given: int | None) -> int | None:
    """The given limit of steps, where the world names none itself."""
    env = us.make_env(world)
    try:
        return None if step_limit(env) else given
    finally:
        env.close()


def note_endless_world(world: World, max_steps: int | None) -> None:
    """Says that an episode may go on for ever, where neither the world nor anybody limits its steps."""
    if max_steps is None and limit_where_none(world, 1):
        say("note: this world names no limit of steps, so an episode may go on for ever; --max-steps ends it")


def _evaluate(
    name: str,
    predictor: Predictor,
    world: World,
    episodes: int,
    seed: int,
    workers: int,
    execute: int | None,
    ensemble_decay: float | None,
    max_steps: int | None,
) -> Evaluation:
    wins = 0
    with progress() as bar:
        bar.start(f"evaluating {name}", episodes)

        def show(trial: us.Trial) -> None:
            nonlocal wins
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
            max_steps=max_steps,
            on_trial=show,
        )


def _ledger(run: Path) -> Entry | None:
    """What the expert did in all rounds of a DAgger run, the demonstrations included; None for any other policy."""
    if not (run / "config.json").exists() or read_config(run).get("command") != "dagger":
        return None
    from understudy.interactive.ledger import total_of

    return total_of(read_metrics(run))


def _describe(result: Evaluation) -> None:
    summary = result.to_json()
    say(f"{result} starts of {result.world} from seed {result.seed}")
    if result.is_judged:
        say(f"success on more than {SUSTAINED_STEPS} steps (the rule of DAPG's authors): {result.sustained_rate:.2f}")
    say(f"mean return {summary['mean_return']:.2f}")
    if summary["median_time_to_success_s"] is not None:
        say(f"median time to success {summary['median_time_to_success_s']:.2f} s")
