"""Writes docs/benchmarks.md from benchmarks/results/*.json: every figure beside its target, with command and spread.

    python benchmarks/quote.py            writes the page, and the table of Metaworld's experts in docs/worlds.md
    python benchmarks/quote.py --check    exits with 1 where either is not what the results say

Nothing on the page is typed by hand. A result that is not there reads "not measured yet".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.evaluate import wilson_interval

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
WORLDS = PAGE.with_name("worlds.md")
UNMEASURED = "not measured yet"
DAGGER_TASKS = 12

TABLE_BEGINS = "<!-- written by python benchmarks/quote.py, from benchmarks/results/metaworld_experts.json -->"
TABLE_ENDS = "<!-- end of what it writes -->"

HEAD = """\
# Benchmarks

This page is written by `python benchmarks/quote.py` from the files in `benchmarks/results`. Do not edit it: a test
compares the two. `make bench` measures everything again; a benchmark that was stopped continues where it was.

Success is `info["success"]` at any step of an episode. Its interval is Wilson's at 95 %, over all starts of all
training seeds together. It treats the starts as independent and knows nothing of the spread between training seeds, so
the lowest and the highest seed stand beside it. Where a figure is a median of repeated runs, the range of the runs is
given. Starts are counted as `reset(seed=first + i)`.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value.

    Args:
        text: as the page shows it.
        met: whether the target is met; None where there is none.
        spread: an interval or a range, in words.
    """

    text: str
    met: bool | None = None
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the page.

    Args:
        title: what is measured.
        target: what it should be, in words.
        result: name of the file in `benchmarks/results`, without its suffix.
        read: the value, from the whole content of that file; a missing key means that it was not measured.
    """

    title: str
    target: str
    result: str
    read: Callable[[dict[str, Any]], Reading]


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """The figures that a result is quoted by."""
    return content["summary"]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(pair: Iterable[float]) -> str:
    low, high = pair
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def over_runs(values: Iterable[float], form: str = "{:.2f}") -> str:
    values = list(values)
    return f"{form.format(min(values))} to {form.format(max(values))} in {len(values)} runs"


def cells(content: dict[str, Any], prefix: str) -> list[Any]:
    """The cells whose names begin with `prefix`, in the order of their measurement."""
    return [cell for name, cell in content["cells"].items() if name.startswith(prefix)]


def seed_rates(content: dict[str, Any]) -> list[float]:
    return [cell["success_rate"] for cell in cells(content, "seed ")]


def door_mean(content: dict[str, Any]) -> Reading:
    found = summary(content)
    rates = seed_rates(content)
    spread = f"{interval(found['interval_over_all_starts'])}; seeds {percent(min(rates))} to {percent(max(rates))}"
    return Reading(percent(found["mean_success"]), found["mean_success"] >= 0.45, spread)


def door_sustained(content: dict[str, Any]) -> Reading:
    rates = [cell["sustained_rate"] for cell in cells(content, "seed ")]
    spread = f"seeds {percent(min(rates))} to {percent(max(rates))}"
    return Reading(percent(summary(content)["mean_sustained"]), None, spread)


def pick_place_mean(content: dict[str, Any]) -> Reading:
    found = summary(content)
    rates = seed_rates(content)
    spread = f"{interval(found['interval_over_all_starts'])}; seeds {percent(min(rates))} to {percent(max(rates))}"
    return Reading(percent(found["mean_success"]), found["mean_success"] >= 0.9, spread)


def pick_place_seconds(content: dict[str, Any]) -> Reading:
    times = [cell["training_seconds"] for cell in cells(content, "seed ")]
    longest = summary(content)["longest_training_seconds"]
    return Reading(f"{longest:.0f} s (the longest)", longest <= 60, over_runs(times, "{:.0f} s"))


def faster_to_loss(content: dict[str, Any]) -> Reading:
    found = summary(content)
    losses = f"held-out loss {found['our_held_out_loss']:.4f} against {found['script_best_held_out_loss']:.4f}"
    reached = found["our_held_out_loss"] <= found["script_best_held_out_loss"]
    times = found["times_faster_to_the_scripts_best_loss"]
    ours = [cell["seconds"] for cell in cells(content, "ours, ") if "seconds" in cell]
    return Reading(f"{times:.1f} times; {losses}", reached and times >= 10, f"ours {over_runs(ours, '{:.1f} s')}")


def ratios(content: dict[str, Any], one: str, other: str) -> list[float]:
    pairs = zip(cells(content, one), cells(content, other), strict=True)
    return [first["samples_per_s"] / second["samples_per_s"] for first, second in pairs]


def samples_against_script(content: dict[str, Any]) -> Reading:
    found = summary(content)
    times = found["times_the_scripts_speed"]
    text = f"{times:.1f} times ({found['our_samples_per_s']:,.0f} against {found['script_samples_per_s']:,.0f})"
    return Reading(text, times >= 3, over_runs(ratios(content, "ours, one thread", "script, one thread"), "{:.1f}"))


def share_of_floor(content: dict[str, Any]) -> Reading:
    share = summary(content)["share_of_the_floor"]
    runs = ratios(content, "ours, one thread", "floor, one thread")
    return Reading(percent(share), share >= 0.5, over_runs([100 * run for run in runs], "{:.0f} %"))


def gpu(size: str) -> Callable[[dict[str, Any]], Reading]:
    """Beside one CPU thread of the same machine; how much of it is that the gradient is asked for at once."""

    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)
        one, eight = found["times_one_thread"][size], found["times_eight_threads"][size]
        rate = content["cells"][f"{size}, gpu"]["samples_per_s"]
        text = f"{one:,.1f} times ({rate:,.0f}); {eight:,.1f} times eight threads"
        alone = found["times_not_recorded"][size]
        return Reading(text, None, f"{alone:.1f} times the GPU without CUDA graphs; {content['gpu']}")

    return read


def gpu_bytes(content: dict[str, Any]) -> Reading:
    same = summary(content)["same_bytes"]
    sizes = len([name for name in content["cells"] if name.endswith("same bytes")])
    return Reading(f"{'yes' if same else 'no'}, {sizes} sizes", same)


def imitation_speed(content: dict[str, Any]) -> Reading:
    times = summary(content)["times_the_samples_per_s"]
    return Reading(f"{times:.1f} times", times > 1, over_runs(ratios(content, "understudy", "imitation"), "{:.1f}"))


def imitation_success(content: dict[str, Any]) -> Reading:
    found = summary(content)
    ours, theirs = ([cell["success_rate"] for cell in cells(content, name)] for name in ("understudy", "imitation"))
    mine, other = (f"{percent(min(rates))} to {percent(max(rates))}" for rates in (ours, theirs))
    text = f"{percent(found['understudy_success'])} against {percent(found['imitation_success'])}"
    return Reading(text, found["understudy_success"] >= found["imitation_success"], f"seeds {mine} against {other}")


def latency(policy: str, load: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)[f"{policy}_{load}"]
        text = f"p50 {found['p50_us']:.0f} us, p99 {found['p99_us']:.0f} us"
        promised = policy == "one" and load == "idle"
        return Reading(text, found["p50_us"] <= 60 if promised else None, f"{content['calls']:,} calls")

    return read


def parallel(content: dict[str, Any]) -> Reading:
    found = summary(content)
    share = found["share_of_env_step"]
    runs = content["share_of_env_step_each"]
    return Reading(percent(share), share >= 0.9, over_runs([100 * run for run in runs], "{:.0f} %"))


def parallel_cpu(content: dict[str, Any]) -> Reading:
    return Reading(percent(summary(content)["share_of_env_step_by_cpu_time"]))


def parallel_physics(content: dict[str, Any]) -> Reading:
    found = summary(content)
    return Reading(f"{percent(found['share_of_mj_step'])}; `env.step` {percent(found['env_step_share_of_mj_step'])}")


def growth_open(content: dict[str, Any]) -> Reading:
    seconds = summary(content)["open_seconds"]
    runs = [cell["open_seconds"] for cell in cells(content, "large")]
    return Reading(f"{seconds:.2f} s", seconds <= 2, over_runs(runs, "{:.2f} s"))


def growth_cost(content: dict[str, Any]) -> Reading:
    times = summary(content)["cost_per_sample_large_over_small"]
    return Reading(f"{times:.2f} times", times <= 1.1, over_runs(ratios(content, "small", "large")))


def growth_memory(content: dict[str, Any]) -> Reading:
    times = summary(content)["resident_over_arrays"]
    runs = [cell["resident_bytes"] / cell["array_bytes"] for cell in cells(content, "large")]
    return Reading(f"{times:.2f} times", times <= 1.5, over_runs(runs))


def durability(content: dict[str, Any]) -> Reading:
    found, append = summary(content), content["cells"]["append"]
    text = (
        f"{found['append_ms']:.2f} ms an episode, {found['append_without_sync_ms']:.2f} ms without any fsync; "
        f"{found['journal_step_ms']:.3f} ms a step for the journal"
    )
    return Reading(text, None, f"medians; 95 % of {append['calls']} episodes within {append['p95_ms']:.2f} ms")


def minutes(key: str, most: float) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        seconds = summary(content)[key]
        return Reading(f"{seconds / 60:.1f} min", seconds < 60 * most)

    return read


def experts_success(content: dict[str, Any]) -> Reading:
    found = summary(content)
    rates = [cell["success_rate"] for cell in content["cells"].values()]
    spread = f"{interval(found['interval_over_all_starts'])}; tasks {percent(min(rates))} to {percent(max(rates))}"
    few = ", ".join(f"{task} {percent(content['cells'][task]['success_rate'])}" for task in found["below_95_percent"])
    return Reading(f"{percent(found['mean_success'])}; below 95 %: {few}", None, spread)


def world_speed(content: dict[str, Any]) -> Reading:
    found = summary(content)
    spread = f"tasks {found['slowest_steps_per_s']:,} to {found['fastest_steps_per_s']:,}"
    return Reading(f"{found['median_steps_per_s']:,.0f}, the median of the tasks", None, spread)


def dapg_success(task: str, mean: float, lowest: float) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)[f"ours {task}"]
        met = found["mean_success"] >= mean and found["lowest_seed"] >= lowest
        clone = percent(summary(content)[f"clone {task}"]["mean_success"])
        return Reading(f"{percent(found['mean_success'])}; the clone it began with {clone}", met, _over_seeds(found))

    return read


def dapg_minutes(task: str, most_s: float) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)
        pairs = zip(found[f"clone {task}"]["seconds"], found[f"ours {task}"]["seconds"], strict=True)
        whole = [cloning + learning for cloning, learning in pairs]
        each = ", ".join(f"{seconds:.0f} s" for seconds in whole)
        return Reading(each, max(whole) <= most_s, f"{len(whole)} seeds")

    return read


def dapg_half(task: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found, beside = (summary(content)[f"{name} {task}"] for name in ("half", "npg half"))
        text = f"{percent(found['mean_success'])}; NPG's residual {percent(beside['mean_success'])}"
        return Reading(text, found["mean_success"] >= 0.9, _over_seeds(found))

    return read


def _over_seeds(found: dict[str, Any]) -> str:
    lowest, highest = percent(found["lowest_seed"]), percent(found["highest_seed"])
    return f"{interval(found['interval'])}; {found['seeds']} seeds, {lowest} to {highest}"


def _count(seeds: list[Any]) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def dapg_published(task: str, most: float) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        steps = summary(content)[f"published {task}"]["steps_to_90"]
        reached = [f"{count:,}" if count else "never" for count in steps]
        return Reading("; ".join(reached), all(count and count <= most for count in steps), _count(steps))

    return read


def dagger_better(content: dict[str, Any]) -> Reading:
    found = summary(content)
    better, tasks, worse = found["better_than_bc"], found["tasks"], found["worse_by_more_than_3_points"]
    text = f"{better} of {tasks}; worse by more than 3 points on {worse}"
    return Reading(text, tasks == DAGGER_TASKS and better >= 10 and not worse)


def dagger_expert(content: dict[str, Any]) -> Reading:
    found = summary(content)
    reached, tasks = found["at_95_percent_of_expert"], found["tasks"]
    return Reading(f"{reached} of {tasks}", tasks == DAGGER_TASKS and reached >= 10)


def gates_as_good(content: dict[str, Any]) -> Reading:
    found = {
        f"{name} on {task}": row
        for task, gates in summary(content)["gates"].items()
        for name, row in gates.items()
        if name != "lazy"
    }
    good = [row for row in found.values() if row["lower_bound"] >= -0.05 and row["share_of_daggers_labels"] <= 0.3]
    return _of_tasks([f"{len(good)} of the {len(found)} measured"] if found else [], len(good) == 12)


def lazy_beside_safe(content: dict[str, Any]) -> Reading:
    rows = {
        task: gates["lazy"]["beside_safe"]
        for task, gates in summary(content)["gates"].items()
        if "beside_safe" in gates.get("lazy", {})
    }
    told = [
        f"{task}: neither called the expert"
        if row["switches"] is None
        else f"{task}: {percent(1 - row['switches'])} fewer, success {100 * row['difference']:+.1f} points "
        f"(lower bound {100 * row['lower_bound']:+.0f})"
        for task, row in rows.items()
    ]
    met = len(rows) == 4 and all(
        row["switches"] is not None and row["switches"] <= 0.4 and row["lower_bound"] >= -0.05 for row in rows.values()
    )
    return _of_tasks(told, met)


def thrifty_budget(rate: str, *, at_the_end: bool = False) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        rows = _of_gate(content, "thrifty")
        times = content["times_the_budget_at_the_end"] if at_the_end else 1
        pairs = {task: (row[rate], times * content["gated"][task]["budget"]) for task, row in rows.items()}
        told = [f"{task}: {100 * measured:.2f} % of {100 * budget:g} %" for task, (measured, budget) in pairs.items()]
        met = len(rows) == 4 and all(abs(measured / budget - 1) <= 0.2 for measured, budget in pairs.values())
        return _of_tasks(told, met)

    return read


def thrifty_help(content: dict[str, Any]) -> Reading:
    rows = _of_gate(content, "thrifty")
    own = summary(content)["against_bc"]
    told = [
        f"{task}: {percent(row['helped_at_the_end'])} of {percent(own[task]['expert'])}" for task, row in rows.items()
    ]
    met = len(rows) == 4 and all(row["helped_at_the_end"] >= own[task]["expert"] - 0.01 for task, row in rows.items())
    return _of_tasks(told, met)


def _of_tasks(told: list[str], met: bool, spread: str = "") -> Reading:
    """What is told of some tasks, or that none was measured."""
    return Reading("; ".join(told), met, spread) if told else Reading(UNMEASURED)


def _of_gate(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The rows of one gate, task by task."""
    return {task: gates[name] for task, gates in summary(content)["gates"].items() if name in gates}


def export_ratio(policy: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        ratio = summary(content)[f"{policy}_over_bare"]
        text = f"{ratio['p50_us']:.2f} times at p50, {ratio['p99_us']:.2f} at p99"
        each = over_runs(summary(content)[f"{policy}_over_bare_p99_each"])
        spread = f"p99 {each}; by CPU time {ratio['cpu_p50_us']:.2f} and {ratio['cpu_p99_us']:.2f}"
        return Reading(text, ratio["p50_us"] <= 1.2 and ratio["p99_us"] <= 1.2, spread)

    return read


def loads_elsewhere(content: dict[str, Any]) -> Reading:
    found = summary(content)
    same = "same bytes in torch" if found["same_bytes_in_torch"] else "other bytes in torch"
    where = f"Python {' and '.join(found['pythons'])}{', another user' if found['another_user'] else ''}"
    largest = found["largest_difference_onnx"]
    met = found["same_bytes_in_torch"] and largest <= 1e-5 and bool(found["without_torch"]) and found["another_user"]
    without = f"without torch on {' and '.join(found['without_torch']) or 'none'}"
    return Reading(f"{same}; {largest:.1e} of the action range in ONNX", met, f"{where}; {without}")


def safety_commands(content: dict[str, Any]) -> Reading:
    found = summary(content)
    text = f"{found['violations']} of {found['commands']:,} ({found['on_the_wire']:,} reached the wire)"
    return Reading(text, found["violations"] == 0, f"below {3 / found['commands']:.0e} at 95 %")


def safety_not_finite(content: dict[str, Any]) -> Reading:
    found = summary(content)
    periods = found["worst_periods_to_the_stop"]
    text = f"{found['not_finite_on_the_wire']} of {found['not_finite_tried']}, stopped after {periods:.0f} periods"
    return Reading(text, found["not_finite_on_the_wire"] == 0 and periods <= 1)


def safety_jumps(content: dict[str, Any]) -> Reading:
    found = summary(content)
    tried = f"{found['starts']:,} starts, {found['takeovers']:,} takeovers, {found['seams']:,} seams"
    return Reading(f"{found['jumps']} in {tried}", found["jumps"] == 0)


def safety_workspace(content: dict[str, Any]) -> Reading:
    found = summary(content)
    text = f"{1e3 * found['worst_outside_m']:.1f} mm in {found['walks']:,} walks"
    return Reading(text, found["worst_outside_m"] <= 0.005)


def safety_silence(content: dict[str, Any]) -> Reading:
    found = summary(content)
    text = f"{1e3 * found['rest_worst_s']:.0f} ms (median {1e3 * found['rest_median_s']:.0f} ms)"
    late = f"timer late in {found['rest_timer_late']} of {content['silences']:,}"
    with_late = found["rest_worst_with_late_timer_s"]
    late += f", worst there {1e3 * with_late:.0f} ms" if with_late else ""
    return Reading(text, found["rest_worst_s"] <= 0.140, late)


def safety_button(content: dict[str, Any]) -> Reading:
    found = summary(content)
    p99_ms, worst_ms = 1e3 * found["press_p99_s"], 1e3 * found["press_worst_s"]
    late = f"timer late in {found['press_timer_late']} of {content['presses']:,}"
    with_late = found["press_worst_with_late_timer_s"]
    late += f", worst there {1e3 * with_late:.0f} ms" if with_late else ""
    latched = found["commands_after_a_press"] == 0
    return Reading(f"p99 {p99_ms:.1f} ms, max {worst_ms:.1f} ms", p99_ms <= 50 and worst_ms <= 150 and latched, late)


def safety_ticks(content: dict[str, Any]) -> Reading:
    found = summary(content)
    return Reading(
        f"{found['idle_overruns']} of {content['ticks']:,}", found["idle_overruns"] * 1000 <= content["ticks"]
    )


def safety_loaded_ticks(content: dict[str, Any]) -> Reading:
    found = summary(content)
    oldest_ms = 1e3 * found["loaded_oldest_action_s"]
    text = f"{oldest_ms:.0f} ms; {found['loaded_overruns']} of {content['ticks']:,} deadlines missed"
    return Reading(text, oldest_ms <= 200)


def safety_faults(content: dict[str, Any]) -> Reading:
    found = summary(content)
    text = f"{found['fault_broken_promises']} of {found['fault_trials']:,}"
    return Reading(text, found["fault_broken_promises"] == 0, f"longest wait {found['fault_longest_wait_s']:.1f} s")


def safety_added(content: dict[str, Any]) -> Reading:
    found = summary(content)
    text = f"p50 {found['added_p50_us']:.0f} us, p99 {found['added_p99_us']:.0f} us"
    apart = f"{found['added_disturbed_steps']:,} of {content['steps']:,} steps disturbed by other programs, apart"
    own = f"guard in its process: {found['added_in_process_p50_us']:.0f} and {found['added_in_process_p99_us']:.0f} us"
    return Reading(text, found["added_p99_us"] <= 200, f"{apart}; {own}")


def deployed(policy: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)[policy]
        text = f"{percent(found['robot'])}, in the simulator {percent(found['world'])}"
        return Reading(text, found["within"], f"simulator {interval(found['world_interval'])}")

    return read


def deployed_worse(content: dict[str, Any]) -> Reading:
    found = summary(content)["worse_robot"]
    return Reading(percent(found["robot"]), None, interval(found["robot_interval"]))


def collected_share(preset: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        cell, share = content["cells"][preset], summary(content)[preset]["share_of_env_step"]
        each = [alone / own for alone, own in zip(cell["env_step_s"], cell["collect_s"], strict=True)]
        return Reading(percent(share), share >= summary(content)["promised_share"], over_runs(each))

    return read


def learning_overhead(preset: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        cell, overhead = content["cells"][preset], summary(content)[preset]["overhead_of_learning"]
        each = [learn / own for learn, own in zip(cell["learn_s"], cell["collect_s"], strict=True)]
        return Reading(percent(overhead), overhead <= summary(content)["promised_overhead"], over_runs(each))

    return read


def return_beside(name: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        found = summary(content)[name]
        text = f"{found['our_return']:.1f} against {found['their_return']:.1f}"
        if found["seeds"] == 1:
            return Reading(text, None, "1 seed, which decides nothing")
        return Reading(text, found["our_return"] >= found["their_return"], f"{found['seeds']} seeds")

    return read


def speed_beside(name: str) -> Callable[[dict[str, Any]], Reading]:
    def read(content: dict[str, Any]) -> Reading:
        times = summary(content)[name]["times_as_fast"]
        return Reading(f"{times:.2f} times", times > 1)

    return read


def dagger_run(content: dict[str, Any]) -> Reading:
    found, run = summary(content), content["cells"]["PickPlace"]
    text = f"{found['run_seconds']:.0f} s; {percent(found['run_success'])} of the starts succeed"
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in run["phases"].items())
    spread = f"{phases}; CPU time {run['cpu_seconds']:.0f} s, load at the start {run['load']:.1f}"
    return Reading(text, found["run_seconds"] <= 180, spread)


def dagger_beside_imitation(content: dict[str, Any]) -> Reading:
    found = summary(content)
    pairs = zip(cells(content, "imitation, "), cells(content, "understudy, "), strict=True)
    returns = ", ".join(
        f"{who} {found[key]:.0f}"
        for who, key in (("ours", "understudy_return"), ("theirs", "imitation_return"), ("the expert", "expert_return"))
    )
    text = f"{found['times_faster']:.1f} times, {found['times_less_cpu']:.1f} by CPU time; mean return {returns}"
    spread = over_runs((them["seconds"] / us["seconds"] for them, us in pairs), "{:.1f}")
    return Reading(text, found["times_faster"] > 1, spread)


FIGURES = (
    Figure(
        "Door, 25 human demonstrations, default recipe of `train bc`: mean success of 5 training seeds x 100 starts",
        ">= 45 %, aim 60 %",
        "door_bc",
        door_mean,
    ),
    Figure(
        "Door: success of the lowest training seed",
        ">= 30 %",
        "door_bc",
        lambda content: Reading(percent(summary(content)["lowest_seed"]), summary(content)["lowest_seed"] >= 0.3),
    ),
    Figure("Door: success on more than 25 steps, the authors' own rule", "beside it", "door_bc", door_sustained),
    Figure(
        "PickPlace, 50 clean demonstrations, default recipe: mean success of 5 training seeds x 100 starts",
        ">= 90 %",
        "pick_place_bc",
        pick_place_mean,
    ),
    Figure("PickPlace: seconds of a training", "<= 60 s", "pick_place_bc", pick_place_seconds),
    Figure(
        "Wall clock to the best held-out loss of the starting document's script at its defaults",
        ">= 10 times faster",
        "training_speed",
        faster_to_loss,
    ),
    Figure(
        "Training samples per second against that script, one thread each",
        ">= 3 times",
        "training_speed",
        samples_against_script,
    ),
    Figure(
        "Training samples per second as a share of what the matrix products alone allow",
        ">= 50 %",
        "training_speed",
        share_of_floor,
    ),
    Figure(
        "Training samples per second against `imitation` 1.0.1, one thread each",
        "> 1 time",
        "versus_imitation",
        imitation_speed,
    ),
    Figure(
        "Training samples per second on a GPU, default of `train bc`, door's size, over one CPU thread",
        "-",
        "gpu_training",
        gpu("default of train bc"),
    ),
    Figure(
        "The same, five members of 3 x 1,024, batches of 4,096",
        "-",
        "gpu_training",
        gpu("5 members of 3 x 1024, batches of 4,096"),
    ),
    Figure("A GPU gives the same bytes twice, and after a kill", "yes", "gpu_training", gpu_bytes),
    Figure(
        "Success on the door against `imitation` 1.0.1, same data and network",
        ">= theirs",
        "versus_imitation",
        imitation_success,
    ),
    Figure(
        "One action, 39 -> 3 x 256 -> 28, no torch, idle machine", "p50 <= 60 us", "latency", latency("one", "idle")
    ),
    Figure("The same with both cores busy", "-", "latency", latency("one", "both_cores_busy")),
    Figure("One action of the default policy, idle machine", "-", "latency", latency("default", "idle")),
    Figure("The same with both cores busy", "-", "latency", latency("default", "both_cores_busy")),
    Figure(
        "One action of an exported policy, 39 -> 3 x 256 -> 28, over bare onnxruntime on the same file",
        "<= 1.2 times at p50 and p99",
        "export_latency",
        export_ratio("one"),
    ),
    Figure("The same for the default policy", "<= 1.2 times", "export_latency", export_ratio("default")),
    Figure(
        "A policy saved here and loaded elsewhere",
        "same bytes in torch; <= 1e-5 of the action range in ONNX, without torch",
        "elsewhere",
        loads_elsewhere,
    ),
    Figure(
        "Fine-tuning, `dapg-paper`: collection in 2 processes, door, as a share of 2 that only call `env.step`",
        ">= 90 %",
        "collection_speed",
        collected_share("DAPG as published"),
    ),
    Figure(
        "The same: what learning adds to the time of collection",
        "<= 25 %",
        "collection_speed",
        learning_overhead("DAPG as published"),
    ),
    Figure(
        "Fine-tuning, `small-batches`: collection in 2 processes, door, as a share of 2 that only call `env.step`",
        ">= 90 %",
        "collection_speed",
        collected_share("small batches"),
    ),
    Figure(
        "The same: what learning adds to the time of collection",
        "<= 25 %",
        "collection_speed",
        learning_overhead("small batches"),
    ),
    Figure(
        "Fine-tuning, `residual`: collection in 2 processes, door, as a share of 2 that only call `env.step`",
        ">= 90 %",
        "collection_speed",
        collected_share("residual"),
    ),
    Figure(
        "The same: what learning adds to the time of collection",
        "<= 25 %",
        "collection_speed",
        learning_overhead("residual"),
    ),
    Figure(
        "NPG against TRPO of sb3-contrib, door, the reward alone: mean return after the same steps",
        ">= theirs",
        "versus_sb3",
        return_beside("door, NPG"),
    ),
    Figure("The same: steps in a second", "> 1 time", "versus_sb3", speed_beside("door, NPG")),
    Figure(
        "PPO against PPO of Stable-Baselines3, door, the reward alone: mean return after the same steps",
        ">= theirs",
        "versus_sb3",
        return_beside("door, PPO"),
    ),
    Figure("The same: steps in a second", "> 1 time", "versus_sb3", speed_beside("door, PPO")),
    Figure(
        "NPG against TRPO of sb3-contrib, pick and place, the reward alone: mean return after the same steps",
        ">= theirs",
        "versus_sb3",
        return_beside("pick and place, NPG"),
    ),
    Figure("The same: steps in a second", "> 1 time", "versus_sb3", speed_beside("pick and place, NPG")),
    Figure(
        "PPO against PPO of Stable-Baselines3, pick and place, the reward alone: mean return after the same steps",
        ">= theirs",
        "versus_sb3",
        return_beside("pick and place, PPO"),
    ),
    Figure("The same: steps in a second", "> 1 time", "versus_sb3", speed_beside("pick and place, PPO")),
    Figure(
        "Rollouts of a 32 x 32 policy in 2 processes, door, as a share of 2 processes that only call `env.step`",
        ">= 90 %",
        "parallel_rollouts",
        parallel,
    ),
    Figure("The same by CPU time, which other programs disturb less", "-", "parallel_rollouts", parallel_cpu),
    Figure("The same as a share of bare `mj_step`", "-", "parallel_rollouts", parallel_physics),
    Figure("Opening 10,000 episodes (2 million steps), warm file cache", "<= 2 s", "growth", growth_open),
    Figure(
        "Cost of a training sample from them against the same from 25 episodes",
        "<= 1.1 times",
        "growth",
        growth_cost,
    ),
    Figure("Resident memory over the float32 arrays that training needs", "<= 1.5 times", "growth", growth_memory),
    Figure("What it costs to save an episode of the door's size durably", "-", "durability", durability),
    Figure(
        "Metaworld's scripted experts, mean success of 50 tasks x 50 starts ([task by task](worlds.md#metaworld))",
        "-",
        "metaworld_experts",
        experts_success,
    ),
    Figure("Steps of a Metaworld task in a second of CPU time", "-", "metaworld_experts", world_speed),
    Figure(
        "DAgger against cloning at the same number of labels: tasks on which it is better (Holm, p < 0.05)",
        ">= 10 of 12, nowhere worse by more than 3 points",
        "dagger_family",
        dagger_better,
    ),
    Figure(
        "DAgger after its rounds: tasks with 95 % of the expert's own success or more",
        ">= 10 of 12",
        "dagger_family",
        dagger_expert,
    ),
    Figure(
        "Safe, Thrifty and HG (simulated person) against DAgger that asks at every step, on four tasks: lower 95 % "
        "bound of the difference at least -5 points, with at most 30 % of its labels",
        "12 of 12",
        "dagger_family",
        gates_as_good,
    ),
    Figure(
        "LazyDAgger against SafeDAgger, four tasks: context switches, and success",
        ">= 60 % fewer, lower bound >= -5 points",
        "dagger_family",
        lazy_beside_safe,
    ),
    Figure(
        "ThriftyDAgger, its rounds of few episodes: takeovers for each step that the policy drives",
        "budget +- 20 %",
        "dagger_family",
        thrifty_budget("intervention_rate"),
    ),
    Figure(
        "The same, the policy of the last round helped on 100 starts of each seed, with twice the budget",
        "budget +- 20 %",
        "dagger_family",
        thrifty_budget("interventions_at_the_end", at_the_end=True),
    ),
    Figure(
        "ThriftyDAgger, the same policy and budget: success with help",
        ">= the expert's own - 1 point",
        "dagger_family",
        thrifty_help,
    ),
    Figure(
        "Door, 25 human demonstrations and 200,000 steps: mean success of the training seeds x 100 starts",
        "mean >= 95 %, no seed below 90 %",
        "dapg",
        dapg_success("door", 0.95, 0.90),
    ),
    Figure("The same, cloning and fine-tuning: wall clock of each seed", "<= 180 s", "dapg", dapg_minutes("door", 180)),
    Figure("Door, 25 human demonstrations and 100,000 steps, TD3", "90 %, an aim", "dapg", dapg_half("door")),
    Figure(
        "Hammer, 25 imperfect demonstrations and 200,000 steps",
        "mean >= 88 %, no seed below 80 %",
        "dapg",
        dapg_success("hammer", 0.88, 0.80),
    ),
    Figure(
        "Relocate, 25 imperfect demonstrations and 200,000 steps, TD3",
        "mean >= 92 %, no seed below 85 %",
        "dapg",
        dapg_success("relocate", 0.92, 0.85),
    ),
    Figure(
        "PickPlace, 25 imperfect scripted demonstrations and 200,000 steps",
        ">= 98 %",
        "dapg",
        dapg_success("pick_place", 0.98, 0.0),
    ),
    *(
        Figure(
            f"{task.capitalize()}: steps until DAPG as published reaches 90 %",
            f"<= {most:,}",
            "dapg",
            dapg_published(task, most),
        )
        for task, most in (("door", 1_700_000), ("hammer", 2_200_000), ("relocate", 2_100_000))
    ),
    Figure(
        "Adversarial commands that got past gate and guard, judged by the robot's own monitor",
        "0 of 10,000,000",
        "safety_limits",
        safety_commands,
    ),
    Figure(
        "Numbers that are not finite or absurd, every stage x channel: on the wire, and until the stop",
        "0, one period",
        "safety_limits",
        safety_not_finite,
    ),
    Figure("Jumps at starts, takeovers and seams of chunks", "0", "safety_limits", safety_jumps),
    Figure(
        "Hand of three links outside of its workspace, driven anywhere, measured at quarters of a period: the worst",
        "<= 5 mm",
        "safety_limits",
        safety_workspace,
    ),
    Figure(
        "Robot at rest after the last command, when the policy's process is killed, stopped or hangs: the worst",
        "<= 140 ms",
        "safety_timing",
        safety_silence,
    ),
    Figure(
        "Stop button to stop command, both cores busy (API, signal, key)",
        "p99 <= 50 ms, max <= 150 ms",
        "safety_timing",
        safety_button,
    ),
    Figure("50 Hz: deadlines missed, nothing else of ours running", "<= 0.1 %", "safety_timing", safety_ticks),
    Figure(
        "50 Hz beside 4 busy processes: oldest observation that was acted upon",
        "<= 200 ms",
        "safety_timing",
        safety_loaded_ticks,
    ),
    Figure(
        "Fault scripts x 50 seeds that hung over 5 s, ended in neither recovered nor stopped, or lost an episode",
        "0",
        "safety_timing",
        safety_faults,
    ),
    Figure(
        "What gate, env and recording add to a step, 1 kHz of simulated time",
        "p99 <= 200 us",
        "safety_timing",
        safety_added,
    ),
    *(
        Figure(
            f"PickPlace policy ({policy}) deployed on the simulated robot at the real rate: success of 100 starts",
            "within the simulator's interval",
            "deploy_success",
            deployed(policy),
        )
        for policy in ("bc seed 0", "bc seed 1", "bc seed 2", "dagger", "dapg")
    ),
    Figure(
        "BC seed 0 on a worse robot: measurements 30 ms old, commands 20 ms late, noise of 1 mrad and 1 mm",
        "-",
        "deploy_success",
        deployed_worse,
    ),
    Figure("One DAgger run on PickPlace: 5 rounds, 100 starts", "<= 180 s", "dagger_speed", dagger_run),
    Figure("The same work beside `imitation` 1.0.1's DAgger", "> 1 time", "dagger_speed", dagger_beside_imitation),
    Figure("`understudy demo` on 2 cores", "< 5 min", "demo_time", minutes("demo_seconds", 5)),
    Figure("`make test` on 2 cores", "< 10 min", "demo_time", minutes("test_seconds", 10)),
    Figure("Set-up with a warm package cache", "< 3 min", "demo_time", minutes("setup_seconds", 3)),
)


def page(folder: Path = RESULTS) -> str:
    """The whole page, from the results in `folder`."""
    contents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    hosts = _hosts(contents)
    lines = [HEAD, "## Figures", "", "| figure | target | measured | | interval or range | result | host |"]
    lines.append("|---|---|---|---|---|---|---|")
    for figure in FIGURES:
        reading = _read(figure, contents.get(figure.result))
        verdict = {True: "met", False: "**missed**", None: ""}[reading.met]
        measured = reading.text != UNMEASURED
        host = hosts.get(_host_text(contents[figure.result]), "") if measured else ""
        row = (figure.title, figure.target, reading.text, verdict, reading.spread, f"`{figure.result}`", host)
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", "## Commands and seeds", "", "| result | command | seeds | load at the start |", "|---|---|---|---|"]
    for name in dict.fromkeys(figure.result for figure in FIGURES):
        content = contents.get(name)
        command = f"`{content['command']}`" if content else UNMEASURED
        seeds, load = (_seeds(content), _load(content)) if content else ("", "")
        lines.append(f"| `{name}` | {command} | {seeds} | {load} |")
    for name, title in (("door_bc", "Door, seed by seed"), ("pick_place_bc", "PickPlace, seed by seed")):
        if name in contents:
            lines += ["", f"## {title}", "", *_seed_table(contents[name])]
    if "door_recipe_study" in contents:
        study = contents["door_recipe_study"]
        lines += ["", "## Door, one ingredient of the recipe changed at a time", "", *_study_table(study)]
    if contents.get("dapg", {}).get("summary"):
        lines += ["", "## Reinforcement learning from demonstrations, task by task", "", *_dapg_table(contents["dapg"])]
    if contents.get("dagger_family", {}).get("summary"):
        lines += ["", "## DAgger against cloning, task by task", "", *_dagger_table(contents["dagger_family"])]
        lines += ["", "## Gates, task by task", "", *_gates_table(contents["dagger_family"])]
    if contents.get("export_latency", {}).get("summary"):
        lines += ["", "## One action, by each way to run a policy", "", *_backend_table(contents["export_latency"])]
    lines += ["", "## Hosts", "", *(f"- **{letter}**: {text}" for text, letter in hosts.items())]
    if not hosts:
        lines.append(UNMEASURED)
    return "\n".join(lines) + "\n"


def worlds_page(text: str, folder: Path = RESULTS) -> str:
    """The page about worlds with the table of Metaworld's experts, from the results in `folder`, in its place."""
    path = folder / "metaworld_experts.json"
    if not path.exists():
        return text
    before, rest = text.split(TABLE_BEGINS)
    _, after = rest.split(TABLE_ENDS)
    lines = _experts_table(json.loads(path.read_text()))
    return "\n".join([before + TABLE_BEGINS, *lines, TABLE_ENDS + after])


def _experts_table(content: dict[str, Any]) -> list[str]:
    lines = ["| task | success | 95 % interval | steps to success | steps/s |", "|---|---|---|---|---|"]
    for task, cell in content["cells"].items():
        steps = f"{cell['steps_to_success']:.0f}" if cell["steps_to_success"] else "-"
        rate = f"{cell['success_rate']:.2f}"
        row = (f"`{task}`", rate, interval(cell["interval"]), steps, f"{cell['steps_per_s']:,}")
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _read(figure: Figure, content: dict[str, Any] | None) -> Reading:
    if content is None:
        return Reading(UNMEASURED)
    try:
        return figure.read(content)
    except (KeyError, ValueError):  # a summary is written when all of its cells are there
        return Reading(UNMEASURED)


def _seed_table(content: dict[str, Any]) -> list[str]:
    lines = ["| training seed | success | 95 % interval | on more than 25 steps | training |", "|---|---|---|---|---|"]
    for name, cell in content["cells"].items():
        sustained = percent(cell["sustained_rate"]) if "sustained_rate" in cell else "-"
        seconds = f"{cell['training_seconds']:.0f} s"
        row = (
            name.removeprefix("seed "),
            percent(cell["success_rate"]),
            interval(cell["interval"]),
            sustained,
            seconds,
        )
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _study_table(content: dict[str, Any]) -> list[str]:
    """Each variant's success over all its seeds and starts, on tuning starts."""
    starts = content["starts"]
    lines = [
        f"`{content['command']}`: training seeds {_listed(content['seeds'])}, {starts} tuning starts each from "
        f"{content['first_start']}. Chosen and shown on starts that no other figure uses.",
        "",
        "| recipe | success | 95 % interval | seed by seed | on more than 25 steps |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(key.rsplit(", seed", 1)[0] for key in content["cells"]):
        rows = cells(content, f"{name}, seed")
        rates = [row["success_rate"] for row in rows]
        wins = round(sum(rates) * starts)
        sustained = sum(row["sustained_rate"] for row in rows) / len(rows)
        between = interval(wilson_interval(wins, starts * len(rows)))
        each = ", ".join(percent(rate) for rate in rates)
        lines.append(f"| {name} | {percent(sum(rates) / len(rates))} | {between} | {each} | {percent(sustained)} |")
    return lines


def _dagger_table(content: dict[str, Any]) -> list[str]:
    """DAgger beside cloning at the same number of labels, for the tasks of which enough seeds are there."""
    lines = [
        f"`{content['command']}`: training seeds from 0 on, {content['starts']} starts each from "
        f"{content['first_start']}, at most {content['max_steps']} steps. DAgger begins with *demonstrations*, and in "
        f"{content['rounds']} rounds makes *attempts*, at a share of whose steps the expert acts and so labels. "
        "Cloning has as many *labels*, all of whole demonstrations. The interval of the difference is a bootstrap over "
        "seeds and starts; p is corrected by Holm over twelve tasks.",
        "",
        "| task | seeds | demonstrations | attempts | labels | DAgger | cloning | difference, 95 % interval | p | "
        "expert | cloning on tuning starts |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, row in summary(content)["against_bc"].items():
        lines.append(
            f"| {task} | {row['seeds']} | {row['demonstrations']} | {row['attempts']:.0f} | {row['labels']:,.0f} | "
            f"{percent(row['dagger'])} | {percent(row['bc'])} | "
            f"{100 * row['difference']:+.1f} {interval(row['interval'])} | {row['p_holm']:.3f} | "
            f"{percent(row['expert'])} | {percent(row['bc_on_tuning_starts'])} |"
        )
    return lines


def _gates_table(content: dict[str, Any]) -> list[str]:
    """Each gate beside DAgger that asks at every step, for the tasks of which all seeds are there."""
    lines = [
        f"{content['rounds_of_gates']} rounds, with ensembles of {content['members_beside_gates']} networks (which see "
        "no differences, and have more demonstrations than above), beside "
        "DAgger that asks at every step and has such an ensemble too. Labels are a share of those it asked for; the "
        "lower bound is that of a 95 % interval of the difference, a bootstrap over seeds and starts. Takeovers are "
        "counted for each step that the policy drove, and success with help in the episodes of all rounds.",
        "",
        "| task | gate | seeds | success | difference | lower bound | labels | switches | takeovers | "
        "success with help |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, gates in summary(content)["gates"].items():
        for name, row in gates.items():
            lines.append(
                f"| {task} | {name} | {row['seeds']} | {percent(row['success'])} | {100 * row['difference']:+.1f} | "
                f"{100 * row['lower_bound']:+.1f} | {percent(row['share_of_daggers_labels'])} | "
                f"{row['context_switches']:,} | {percent(row['intervention_rate'])} | "
                f"{percent(row['success_with_help'])} |"
            )
    return lines


_DAPG_COLUMNS = {
    "alone": "RL alone, 1,000,000 steps",
    "clone": "BC alone (default of `train bc`; PickPlace: no noise)",
    "naive": "one network of that recipe, then RL that tunes all of it, 200,000",
    "ours": "a residual with a deviation chosen for the task, 200,000 steps: TD3's for relocate, NPG's elsewhere",
    "npg": "NPG's, where that is TD3's",
}


def _dapg_table(content: dict[str, Any]) -> list[str]:
    """Success of each column and task: mean, lowest and highest seed, and then that on more than 25 steps."""
    found = summary(content)
    lines = [
        "Mean success in %, then the lowest and the highest seed, then success on more than 25 steps.",
        "",
        "| task | " + " | ".join(_DAPG_COLUMNS.values()) + " |",
        "|---|" + "---|" * len(_DAPG_COLUMNS),
    ]
    for task in ("door", "hammer", "relocate", "pick_place"):
        entries = []
        for column in _DAPG_COLUMNS:
            cell = found.get(f"{column} {task}")
            if cell is None:
                asked = task == "relocate" if column == "npg" else task != "pick_place" or column in ("clone", "ours")
                entries.append(UNMEASURED if asked else "")
                continue
            low, high = 100 * cell["lowest_seed"], 100 * cell["highest_seed"]
            entries.append(
                f"{100 * cell['mean_success']:.1f} ({low:.0f} to {high:.0f}); {100 * cell['mean_sustained']:.1f}"
            )
        lines.append(f"| {task} | " + " | ".join(entries) + " |")
    return lines + _dapg_curves(content)


def _dapg_curves(content: dict[str, Any]) -> list[str]:
    """Success of the batches and of the mean action after every 200,000 steps, of the long runs."""
    curves = {
        name: {round(step / 200_000): (sampled, mean) for step, sampled, mean, *_ in cell["curve"] if _is_shown(step)}
        for name, cell in content["cells"].items()
        if name.startswith(("long ", "published "))
    }
    if not curves:
        return []
    columns = range(1, 1 + max(max(points) for points in curves.values()))
    lines = [
        "",
        "Over more steps (*long*: NPG's residual): success of the sampled policy in %, and behind a "
        "stroke that of its mean on the evaluation starts where it was measured, after so many thousand steps. A "
        "published run ends where either reaches 90 %.",
        "",
        "| run | " + " | ".join(f"{200 * column}" for column in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, points in curves.items():
        entries = [_both(*points[column]) if column in points else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return lines


def _is_shown(step: int) -> bool:
    """Whether a batch ends at a multiple of 200,000 steps, or right behind it."""
    return step % 200_000 < 4_000


def _both(sampled: float, mean: float | None) -> str:
    return f"{100 * sampled:.0f}" if mean is None else f"{100 * sampled:.0f} / {100 * mean:.0f}"


def _backend_table(content: dict[str, Any]) -> list[str]:
    """p50 and p99 of one action, batch 1, of a single network and of the default ensemble."""
    found = summary(content)
    lines = [
        f"`{content['command']}`: batch 1, one thread, the backends in turns of one run, medians of "
        f"{' and '.join(map(str, content['runs'].values()))} runs of {content['calls']:,} calls each; onnxruntime "
        f"{content['onnxruntime']}. *Bare* is `session.run` on the same file; *bare network* is the layers alone, "
        "without scaling and limits. CPU time leaves out what other programs did in between.",
        "",
        "| | 39 -> 3 x 256 -> 28: p50 | p99 | p99, CPU time | default policy: p50 | p99 | p99, CPU time |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in found["one"]:
        both = [found[policy][name] for policy in ("one", "default")]
        times = " | ".join(
            f"{cell['p50_us']:.0f} us | {cell['p99_us']:,.0f} us | {cell['cpu_p99_us']:.0f} us" for cell in both
        )
        lines.append(f"| {name} | {times} |")
    return lines


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def _seeds(content: dict[str, Any]) -> str:
    words = []
    if content.get("seeds"):
        words.append("training " + _listed(content["seeds"]))
    if "seed" in content:
        words.append(f"data {content['seed']}")
    if "first_start" in content:
        words.append(f"starts from {content['first_start']}")
    if "--seed" in content["command"]:
        words.append("in the command")
    return "; ".join(words)


def _load(content: dict[str, Any]) -> str:
    """Processes that wanted a core in the minute before; benchmarks whose ratios alternate do not keep it."""
    load = content["host"].get("load")
    return f"{load[0]:.1f}" if load else ""


def _host_text(content: dict[str, Any]) -> str:
    host = {key: value for key, value in content["host"].items() if key != "load"}
    return ", ".join(f"{value}" if key == "cpu" else f"{key} {value}" for key, value in host.items())


def _hosts(contents: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A letter for each machine and set of versions, in the order of the page."""
    hosts: dict[str, str] = {}
    for figure in FIGURES:
        if figure.result in contents and _read(figure, contents[figure.result]).text != UNMEASURED:
            hosts.setdefault(_host_text(contents[figure.result]), chr(ord("A") + len(hosts)))
    return hosts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is stale")
    check = parser.parse_args().check
    stale = False
    for path, wanted in ((PAGE, page()), (WORLDS, worlds_page(WORLDS.read_text()))):
        if path.exists() and path.read_text() == wanted:
            continue
        stale = True
        if check:
            print(f"{path.name} is stale; run python benchmarks/quote.py", file=sys.stderr)
        else:
            path.write_text(wanted)
            print(f"wrote {path}")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
