"""The DAgger family on twelve tasks: what the expert's labels buy, against cloning at the same number of labels.

Each task has its own number of demonstrations to begin with, of episodes a round, of rounds and its own head, chosen on
other starts (from 540000) so that cloning with all labels stays below 80 % (hammer, PickPlace and assembly do not, in
the mean of eight seeds). Several were chosen after the first seeds had been seen (docs/methods/dagger.md says when).
Cloning has the same network, the same recipe and as many labels. On two of the tasks, by those other starts too, DAgger
is SafeDAgger that asks at a few safe steps besides ("safe-asking"); there plain DAgger stands beside it.

The other gates stand beside "dagger-all", DAgger that asks at every step, all with ensembles of three such networks.
They have their defaults, but for ThriftyDAgger's budget, LazyDAgger's settling on one task, and what the simulated
human of HG-DAgger tolerates and how slow the human sees the world, which were chosen on the same other starts with
training seed 5, LazyDAgger's after its default had been measured (23 % fewer switches). How many episodes the human
watches was not tried: it follows from the labels of those trials, for a share below 30 %. That the policy of
ThriftyDAgger's last round is helped with twice the budget, until ten steps after success, was chosen with training
seeds 5 and 6, after help with the same budget for all 200 steps had been measured; so was how fast the gate grows
impatient within an attempt.

Since several budgets followed the first seeds, `FRESH` seeds were added when nothing was chosen any more, on all twelve
tasks; what they say alone stands beside what all say. SafeDAgger and LazyDAgger got them, too, on PickPlace (`CLOSE`),
where the interval of five was too wide to tell. (Seeds 5 to 7 tuned, and the demonstrations of seed 10 would
begin where the evaluation does.)

"relative", measured after all that and chosen with training seeds 5 to 7 alone, is DAgger on Metaworld's tasks with
networks that see how far things are apart and not the step before, and an expert who drives where it is asked.

Cells run in two processes, and a stopped run continues.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import DATA, Results

import understudy as us
from understudy.interactive.ledger import Entry, entry_of, total_of
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE

SEEDS, STARTS, FIRST_START, MAX_STEPS, ROUNDS = (0, 1, 2, 3, 4), 100, 10_000, 200, 4
FRESH = (11, 12, 13)  # beside cloning only
CLOSE = {("PickPlace", gate): FRESH for gate in ("safe", "lazy")}  # five seeds could not tell them apart
ALL = range(16)
FEWEST_SEEDS = 3  # that a figure tells of
FEWEST_TOLD = 2  # that the table of what is not finished tells of
BESIDE_BC = ("dagger", "safe-asking", "relative")  # the gates of the comparison with cloning
EVALUATED = range(FIRST_START, FIRST_START + STARTS)
PROCESSES = 2
HELP = 2  # times the budget of the rounds has the gate that watches the policy of the last one
MEMBERS = 3  # of the ensembles that the gates are compared with
DRAWS, ALPHA = 10_000, 0.05


class SafeAsking(NamedTuple):
    """SafeDAgger's episodes of each round, the share of the safe steps at which it asks, and its rounds."""

    episodes: int
    ask: float
    rounds: int = ROUNDS


class Relative(NamedTuple):
    """DAgger with networks that see how far `things` are apart and not the step before.

    The expert drives a tenth of the steps, and they are those that it labels: one who is asked anyway may as well act.
    """

    demonstrations: int
    episodes: int
    things: tuple[str, ...] = ("hand", "object", "goal")
    ignore: tuple[str, ...] = ("previous",)
    rounds: int = 8
    ask: float = 0.0
    beta: float = 0.1


@dataclass(frozen=True)
class Task:
    """A world, its expert, the demonstrations to begin with, the episodes of each round, and how they are labelled.

    The expert drives a share `beta` of the steps, and the policy is labelled at a share `ask` of its own, in episodes
    no longer than the expert's: what comes after is mostly a policy that is stuck. `safe` is there where SafeDAgger did
    better on other starts than that. Cloning has whole demonstrations, as many as give at least the labels; with `cut`,
    for a budget below two of them, the last one ends where the labels do. `relative` is there where positions are
    channels, with a budget of its own.
    """

    world: str
    expert: str
    demonstrations: int
    episodes: int
    ask: float = 0.15
    longest: int = MAX_STEPS
    head: str = "absolute"
    beta: float = 0.0
    rounds: int = ROUNDS
    safe: SafeAsking | None = None
    cut: bool = False
    things: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    relative: Relative | None = None

    @property
    def gate(self) -> str:
        """That of the comparison with cloning."""
        return "dagger" if self.safe is None else "safe-asking"

    @property
    def shape(self) -> us.FeedForwardConfig:
        return replace(DAGGER_SHAPE, head=self.head, relative=self.things, ignore=self.ignore)

    def recipe(self, seed: int) -> us.TrainConfig:
        return replace(DAGGER_RECIPE, seed=seed)


def _metaworld(
    name: str,
    demonstrations: int,
    episodes: int,
    longest: int,
    *,
    ask: float = 0.1,
    rounds: int = ROUNDS,
    safe: SafeAsking | None = None,
    relative: Relative,
) -> Task:
    """The scripts decide by thresholds, so a mixture is better than one answer."""
    world = f"understudy/MetaWorld-{name}-v3"
    return Task(
        world,
        "scripted",
        demonstrations,
        episodes,
        ask,
        longest,
        "mixture",
        rounds=rounds,
        safe=safe,
        relative=relative,
    )


TASKS = {
    "PickPlace": Task("understudy/PickPlace-v0", "scripted", 12, 3, beta=0.5, safe=SafeAsking(5, 0.1, 6)),
    "relocate": Task("understudy/AdroitRelocate-v0", "adroit_experts/relocate.npz", 5, 3),
    "hammer": Task(
        "understudy/AdroitHammer-v0", "adroit_experts/hammer.npz", 1, 1, ask=0.1, longest=60, rounds=8, cut=True
    ),
    "fetch-pick-and-place": Task("FetchPickAndPlace-v4", "fetch_experts/FetchPickAndPlace.npz", 60, 30, ask=0.4),
    "peg-insert-side": _metaworld("peg-insert-side", 12, 12, 125, rounds=8, relative=Relative(12, 12)),
    "assembly": _metaworld("assembly", 2, 5, 105, safe=SafeAsking(3, 0.05), relative=Relative(2, 2)),
    "pick-place": _metaworld("pick-place", 5, 8, 65, ask=0.15, relative=Relative(3, 3)),
    "stick-pull": _metaworld(
        "stick-pull", 4, 8, 130, relative=Relative(3, 3, ("hand", "object", "second_object", "goal"))
    ),
    "shelf-place": _metaworld("shelf-place", 5, 5, 105, rounds=8, relative=Relative(4, 4)),
    "box-close": _metaworld("box-close", 8, 10, 125, rounds=8, relative=Relative(6, 6)),
    "basketball": _metaworld("basketball", 6, 5, 115, ask=0.15, rounds=8, relative=Relative(7, 8)),
    "bin-picking": _metaworld("bin-picking", 8, 8, 140, relative=Relative(7, 5)),
}
GATES = ("safe", "lazy", "hg", "thrifty")


class Gated(NamedTuple):
    """A task of the gates.

    Args:
        episodes: of each round.
        budget: of ThriftyDAgger, takeovers for each step that the policy drives.
        tolerance: of the simulated human of HG-DAgger, in half-ranges.
        watched: episodes of each round that the human watches: fewer, where the human gives more labels in each.
        slow_motion: how many times slower the human sees the world; 80 or 100 steps a second are then 20 or 25.
        thrifty: episodes of each round of ThriftyDAgger, where they are fewer to ask for fewer labels.
        settle: of LazyDAgger, steps in a row at which policy and expert must agree before the policy drives again.
    """

    episodes: int
    budget: float
    tolerance: float
    watched: int
    slow_motion: float = 1.0
    thrifty: int | None = None
    settle: int = 1


GATED = {
    "PickPlace": Gated(6, 0.03, 0.2, 6),
    "relocate": Gated(3, 0.02, 0.1, 2, 4.0),
    "peg-insert-side": Gated(12, 0.015, 0.2, 10, 4.0, settle=5),
    "assembly": Gated(5, 0.02, 0.2, 4, 4.0, 4),
}


def task_of(name: str, gate: str) -> Task:
    """The task as that gate plays it."""
    task = TASKS[name]
    return replace(task, **task.relative._asdict()) if gate == "relative" and task.relative is not None else task


def _gate(task: str, name: str) -> us.Gate:
    """The gate of that name, with what was chosen for the task."""
    spec = task_of(task, name)
    match name:
        case "dagger" | "relative":
            return us.DAggerGate("constant", beta=spec.beta, ask=spec.ask)
        case "safe-asking" if spec.safe is not None:
            return us.SafeGate(ask=spec.safe.ask)
        case "dagger-all":
            return us.DAggerGate("indicator")
        case "thrifty":
            return us.ThriftyGate(budget=GATED[task].budget)
        case "lazy":
            return us.LazyGate(settle=GATED[task].settle)
    return us.gate_for(name)


def person(script: us.Expert, spec: us.Spec, task: Gated) -> us.Expert:
    """The simulated human of HG-DAgger, who knows what the script knows."""
    habits = us.sim.HumanConfig(tolerance=task.tolerance, recovered=task.tolerance / 2)
    return us.sim.SimulatedHuman(script, spec, habits.in_slow_motion(task.slow_motion))


def expert_of(task: Task) -> str:
    return str(DATA / task.expert) if task.expert.endswith(".npz") else task.expert


def seeded(
    env: Any, expert: us.Expert, folder: Path, count: int, labels: int, seed: int, *, cut: bool = False
) -> us.Dataset:
    """At least `count` demonstrations, and as many as give at least `labels` labels, or with `cut` just so many."""
    dataset = us.Dataset.create(folder, env)
    agent, start = us.Demonstrator(expert), 1000 * seed
    while len(dataset) < count or dataset.steps < labels:
        longest = min(MAX_STEPS, labels - dataset.steps) if cut else MAX_STEPS
        next(us.record(env, agent, dataset, seeds=[start + len(dataset)], max_steps=longest))
    return dataset


def bits(world: str, policy: Any, starts: range = EVALUATED) -> str:
    """Success of each start as a row of 0 and 1."""
    result = us.evaluate(world, policy, episodes=len(starts), seed=starts.start, max_steps=MAX_STEPS)
    return "".join("1" if trial.success else "0" for trial in result.trials)


def expert_alone(task: Task) -> str:
    env = us.make_env(task.world)
    agent = us.Demonstrator(us.sim.expert_for(env, expert_of(task)))
    won = [us.rollout(env, agent, seed=seed, max_steps=MAX_STEPS).success == 1 for seed in EVALUATED]
    env.close()
    return "".join("1" if one else "0" for one in won)


def helped(
    env: Any, expert: us.Expert, gate: us.Gate, policy: us.Policy, dataset: us.Dataset, starts: range
) -> dict[str, Any]:
    """What comes of a finished policy that the gate watches and the expert helps, as ThriftyDAgger is meant to run.

    Episodes end ten steps after success, as those of the rounds: nobody helps a robot that is done.
    """
    gate.fit(dataset, policy)
    agent = us.GatedAgent(policy.for_execution(), expert, gate, round=ROUNDS + 1)
    episodes = []
    for seed in starts:
        episodes.append(us.rollout(env, agent, seed=seed, max_steps=MAX_STEPS, after_success=10))
        gate.adapt(episodes[-1])
    return entry_of(episodes, dataset.spec.control_hz).to_json()


def interactive(
    name: str, gate: str, seed: int, *, starts: range = EVALUATED, progress_starts: int = 20
) -> dict[str, Any]:
    """One run of `dagger`: of one network, with BC at the same number of labels beside it; or of an ensemble."""
    task = task_of(name, gate)
    beside_bc = gate in BESIDE_BC
    rounds, episodes = (task.rounds, task.episodes) if beside_bc else (ROUNDS, GATED[name].episodes)
    if gate == "safe-asking" and task.safe is not None:
        rounds, episodes = task.safe.rounds, task.safe.episodes
    if gate == "hg":
        episodes = GATED[name].watched
    if gate == "thrifty":
        episodes = GATED[name].thrifty or episodes
    env = us.make_env(task.world)
    script = us.sim.expert_for(env, expert_of(task))
    expert = person(script, us.spec_of(env), GATED[name]) if gate == "hg" else script
    recipe = task.recipe(seed)
    config = us.DAggerConfig(rounds=rounds, episodes=episodes, max_steps=task.longest, progress_starts=progress_starts)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        demos = seeded(env, script, folder / "demos", task.demonstrations, 0, seed)
        shape: us.Policy = us.FeedForward.for_data(demos, task.shape, seed=seed)
        if not beside_bc:
            shape = us.Ensemble.of(shape, MEMBERS, seed=seed)
        ledger: list[Entry] = []
        progress = []
        for one in us.dagger(env, expert, _gate(name, gate), shape, demos, config, recipe, run=folder / "run"):
            ledger.append(one.entry)
            progress.append(one.evaluation.success_rate if one.evaluation else None)
            policy = one.policy
        result: dict[str, Any] = {
            "success": bits(task.world, policy, starts),
            "ledger": [entry.to_json() for entry in ledger],
            "progress": progress,
            "labels": sum(entry.labels for entry in ledger),
        }
        if gate == "thrifty":
            watches = us.ThriftyGate(budget=HELP * GATED[name].budget)
            result["helped"] = helped(env, expert, watches, policy, one.dataset, starts)
        if beside_bc:
            many = seeded(env, script, folder / "many", 0, result["labels"], seed, cut=task.cut)
            clone = us.train(us.FeedForward.for_data(many, task.shape, seed=seed), many, recipe)
            result["bc"] = {
                "success": bits(task.world, clone, starts),
                "labels": many.steps,
                "demonstrations": len(many),
                "on_tuning_starts": us.evaluate(
                    task.world, clone, episodes=50, seed=500_000, max_steps=MAX_STEPS
                ).success_rate,
            }
    env.close()
    return result


def measure(name: str) -> Any:
    """The cell called `name`: "TASK, expert" or "TASK, GATE, seed N"."""
    task, gate, *seed = name.split(", ")
    if gate == "expert":
        return expert_alone(TASKS[task])
    return interactive(task, gate, int(seed[0].removeprefix("seed ")))


def wanted() -> list[str]:
    """The names of all cells, the most telling first."""
    names = [f"{task}, expert" for task in TASKS]
    names += [f"{name}, {task.gate}, seed {seed}" for seed in (*SEEDS, *FRESH) for name, task in TASKS.items()]
    names += [f"{name}, dagger, seed {seed}" for name in TASKS for seed in (*SEEDS, *FRESH)]
    names += [f"{name}, relative, seed {seed}" for seed in SEEDS for name, task in TASKS.items() if task.relative]
    names += [f"{task}, {gate}, seed {seed}" for task in GATED for gate in ("dagger-all", *GATES) for seed in SEEDS]
    names += [f"{task}, {gate}, seed {seed}" for (task, gate), seeds in CLOSE.items() for seed in seeds]
    return list(dict.fromkeys(names))


def runs_of(
    cells: dict[str, Any],
    task: str,
    gate: str,
    *,
    beside: str = "",
    seeds: Iterable[int] = ALL,
    fewest: int = FEWEST_SEEDS,
) -> list[Any]:
    """The cells of a gate in the order of their seeds: of those that `beside` has, too. None where they are too few."""
    found = []
    for seed in seeds:
        names = [f"{task}, {one}, seed {seed}" for one in (gate, beside or gate)]
        if all(name in cells for name in names):
            found.append(cells[names[0]])
    return found if len(found) >= fewest else []


def table(runs: list[Any]) -> np.ndarray:
    """Success of runs as (seeds, starts)."""
    return np.array([[int(bit) for bit in run["success"]] for run in runs])


def bootstrap(difference: np.ndarray) -> np.ndarray:
    """Means of a (seeds, starts) table of paired differences, with seeds and starts drawn anew."""
    random = np.random.default_rng(0)
    seeds, starts = difference.shape
    rows = random.integers(0, seeds, (DRAWS, seeds))
    columns = random.integers(0, starts, (DRAWS, starts))
    return np.array([difference[row][:, column].mean() for row, column in zip(rows, columns, strict=True)])


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction: the k-th smallest of m is multiplied by m - k + 1, and they never fall."""
    corrected, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = largest
    return corrected


def against_bc(
    cells: dict[str, Any], gates: dict[str, str], seeds: Iterable[int] = ALL, fewest: int = FEWEST_SEEDS
) -> dict[str, Any]:
    """Each task's gate beside cloning at the same number of labels, of the tasks whose cells are there."""
    found: dict[str, Any] = {}
    p_values = {}
    for task, gate in gates.items():
        runs, expert = runs_of(cells, task, gate, seeds=seeds, fewest=fewest), cells.get(f"{task}, expert")
        if not runs or expert is None:
            continue
        ours, bc = table(runs), table([run["bc"] for run in runs])
        means = bootstrap(ours - bc)
        # Of draws none may fall on one side; p is then below what they can tell.
        p_values[task] = max(2 * min((means <= 0).mean(), (means >= 0).mean()), 1 / DRAWS)
        own = np.mean([int(bit) for bit in expert])
        found[task] = {
            "gate": gate,
            "rounds": len(runs[0]["ledger"]) - 1,
            "seeds": len(runs),
            "dagger": ours.mean(),
            "bc": bc.mean(),
            "difference": (ours - bc).mean(),
            "interval": np.quantile(means, [0.025, 0.975]).tolist(),
            "expert": own,
            "share_of_expert": ours.mean() / own,
            "labels": np.mean([run["labels"] for run in runs]),
            "bc_labels": np.mean([run["bc"]["labels"] for run in runs]),
            "bc_on_tuning_starts": np.mean([run["bc"]["on_tuning_starts"] for run in runs]),
        }
    for task, p in holm(p_values).items():
        found[task]["p_holm"] = p
    return found


def better(rows: dict[str, Any]) -> int:
    """How many of the tasks are better than cloning beyond doubt."""
    return len([row for row in rows.values() if row["difference"] > 0 and row["p_holm"] < ALPHA])


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """The figures that the page quotes, of the tasks whose cells are there."""
    gates = {name: task.gate for name, task in TASKS.items()}
    chosen, fresh = against_bc(cells, gates), against_bc(cells, gates, FRESH)
    plain = against_bc(cells, dict.fromkeys(TASKS, "dagger"))
    relative = {name: "relative" for name, task in TASKS.items() if task.relative}
    return {
        "against_bc": chosen,
        "plain_against_bc": plain,
        "relative_against_bc": against_bc(cells, relative, fewest=FEWEST_TOLD),
        "tasks": len(chosen),
        "better_than_bc": better(chosen),
        "fresh_against_bc": {
            task: {"seeds": row["seeds"], "difference": row["difference"]} for task, row in fresh.items()
        },
        "fresh_better_than_bc": better(fresh),
        "plain_better_than_bc": better(plain),
        "worse_by_more_than_3_points": len([row for row in chosen.values() if row["difference"] < -0.03]),
        "at_95_percent_of_expert": len([row for row in chosen.values() if row["share_of_expert"] >= 0.95]),
        "gates": {task: found for task in GATED if (found := gates_of(cells, task))},
    }


def gates_of(cells: dict[str, Any], task: str) -> dict[str, Any]:
    """Each gate beside DAgger that asks at every step: success, labels, switches, lower bound of the difference."""
    found: dict[str, Any] = {}
    for gate in GATES:
        runs, plain = runs_of(cells, task, gate, beside="dagger-all"), runs_of(cells, task, "dagger-all", beside=gate)
        if not runs:
            continue
        ours, dagger = table(runs), table(plain)
        total = total_of(_collected(runs))
        found[gate] = {
            "seeds": len(runs),
            "success": ours.mean(),
            "difference": (ours - dagger).mean(),
            "lower_bound": float(np.quantile(bootstrap(ours - dagger), 0.025)),
            "share_of_daggers_labels": total.labels / total_of(_collected(plain)).labels,
            "context_switches": total.context_switches,
            "intervention_rate": total.intervention_rate,
            "success_with_help": total.success_with_help,
        }
        if gate == "thrifty":
            at_the_end = total_of(run["helped"] for run in runs)
            found[gate]["helped_at_the_end"] = at_the_end.success_with_help
            found[gate]["interventions_at_the_end"] = at_the_end.intervention_rate
    if "safe" in found and "lazy" in found:
        safe = table(runs_of(cells, task, "safe", beside="lazy"))
        lazy = table(runs_of(cells, task, "lazy", beside="safe"))
        switches = found["safe"]["context_switches"]
        found["lazy"]["beside_safe"] = {
            "switches": found["lazy"]["context_switches"] / switches if switches else None,
            "difference": (lazy - safe).mean(),
            "lower_bound": float(np.quantile(bootstrap(lazy - safe), 0.025)),
        }
    return found


def _collected(runs: list[Any]) -> list[dict[str, Any]]:
    """The ledgers' rows of all rounds but the first, which clones."""
    return [row for run in runs for row in run["ledger"][1:]]


def main() -> None:
    results = Results(
        "dagger_family",
        choosable=True,
        tasks={name: asdict(task) for name, task in TASKS.items()},
        rounds=ROUNDS,
        seeds=SEEDS,
        fresh_seeds=FRESH,
        first_start=FIRST_START,
        starts=STARTS,
        max_steps=MAX_STEPS,
        shape=asdict(DAGGER_SHAPE),
        recipe=asdict(DAGGER_RECIPE),
        members_beside_gates=MEMBERS,
        times_the_budget_at_the_end=HELP,
        gated={name: gated._asdict() for name, gated in GATED.items()},
    )
    missing = [name for name in wanted() if results.asks_for(name)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        running = {pool.submit(measure, name): name for name in missing}
        for done in as_completed(running):
            results.cells[running[done]] = done.result()
            print(running[done], str(done.result())[:100], flush=True)
            results.write()
    results.write(**summary(results.cells))


if __name__ == "__main__":
    main()
