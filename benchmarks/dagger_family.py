"""The DAgger family on twelve tasks: what the expert's labels buy, against cloning at the same number of labels.

Each task begins with a few demonstrations, one to ten. Then the policy acts, and at a few of its steps, drawn by
chance, the expert acts instead: these steps are the labels. So a few hundred labels come from a hundred attempts, where
cloning spends them on a few whole demonstrations. Networks see how far things are apart and, where all that matters
is among these things, not where they are, nor the step before. Cloning has the same network, the same recipe and
as many labels. Demonstrations, episodes and shares were chosen with one or two of the training seeds 5 to 7 on other
starts (from 540000), so that cloning with all labels stays below 80 % (assembly and shelf-place do not, in the mean of
the seeds that count). Nothing of it was chosen by the evaluation. Demonstrations in which the expert failed are
kept, on both sides.

The other gates stand beside "dagger-all", DAgger that asks at every step, all with ensembles of three networks; those
see no differences, since they were measured before. They have their defaults, but for ThriftyDAgger's budget,
LazyDAgger's settling on one task, and what the simulated human of HG-DAgger tolerates and how slow the human sees the
world, which were chosen on the same other starts with training seed 5, LazyDAgger's after its default had been measured
(23 % fewer switches). How many episodes the human watches was not tried: it follows from the labels of those trials,
for a share below 30 %. That the policy of ThriftyDAgger's last round is helped with twice the budget, until ten steps
after success, was chosen with training seeds 5 and 6, after help with the same budget for all 200 steps had been
measured; so was how fast the gate grows impatient within an attempt. SafeDAgger and LazyDAgger have more seeds on
PickPlace (`CLOSE`), where the interval of five was too wide to tell.

Cells run in two processes, and a stopped run continues.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import DATA, Results

import understudy as us
from understudy.interactive.ledger import Entry, entry_of, total_of
from understudy.recipe import DAGGER_RECIPE, DAGGER_SHAPE

SEEDS, STARTS, FIRST_START, MAX_STEPS, ROUNDS, GATE_ROUNDS = (0, 1, 2, 3, 4), 100, 10_000, 200, 8, 4
MORE = (11, 12, 13)  # seeds 5 to 7 tuned, and the demonstrations of seed 10 would begin where the evaluation does
CLOSE = {("PickPlace", gate): MORE for gate in ("safe", "lazy")}  # five seeds could not tell them apart
ALL = range(16)
FEWEST_SEEDS = 3  # that a figure tells of
EVALUATED = range(FIRST_START, FIRST_START + STARTS)
PROCESSES = 2
HELP = 2  # times the budget of the rounds has the gate that watches the policy of the last one
MEMBERS = 3  # of the ensembles that the gates are compared with
DRAWS, ALPHA = 10_000, 0.05


@dataclass(frozen=True)
class Task:
    """A world, its expert, the demonstrations to begin with, the episodes of each round, and the network.

    The expert drives a share `beta` of the steps, and these are the labels, in episodes no longer than the expert's:
    what comes after is mostly a policy that is stuck. Cloning has whole demonstrations, as many as give at least the
    labels; with `cut`, for a budget below two of them, the last one ends where the labels do.
    """

    world: str
    expert: str
    demonstrations: int
    episodes: int
    longest: int
    shape: us.FeedForwardConfig
    beta: float = 0.05
    steps: int = DAGGER_RECIPE.steps
    cut: bool = False

    def recipe(self, seed: int) -> us.TrainConfig:
        return replace(DAGGER_RECIPE, steps=self.steps, seed=seed)


def _sees(*things: str, ignore: tuple[str, ...] = ()) -> us.FeedForwardConfig:
    """A network that sees how far things are apart."""
    return replace(DAGGER_SHAPE, relative=things, ignore=ignore)


def _metaworld(name: str, demonstrations: int, episodes: int, longest: int, *more: str) -> Task:
    """The scripts decide by thresholds, so a mixture is better than one answer; `more` things may matter.

    All that decides is among these things, so where they are in the room is left out.
    """
    things = ("hand", "object", *more, "goal")
    shape = replace(_sees(*things, ignore=("previous", *things)), head="mixture")
    return Task(f"understudy/MetaWorld-{name}-v3", "scripted", demonstrations, episodes, longest, shape)


_PICK_PLACE = replace(_sees("grasp_point", "cube"), hidden=(256, 256))
_HAMMER = _sees("palm", "hammer", "nail")
_FETCH = _sees(
    "observation",
    "achieved_goal",
    "desired_goal",
    ignore=("achieved_goal", "desired_goal", *(f"observation[{place}]" for place in range(6))),  # of gripper and cube
)
_RELOCATE, _FETCHER = "adroit_experts/relocate.npz", "fetch_experts/FetchPickAndPlace.npz"
TASKS = {
    "PickPlace": Task("understudy/PickPlace-v0", "scripted", 3, 12, 130, _PICK_PLACE, 0.1, 16_000),
    "relocate": Task("understudy/AdroitRelocate-v0", _RELOCATE, 2, 5, 150, DAGGER_SHAPE, 0.1),
    "hammer": Task("understudy/AdroitHammer-v0", "adroit_experts/hammer.npz", 1, 1, 60, _HAMMER, cut=True),
    "fetch-pick-and-place": Task("FetchPickAndPlace-v4", _FETCHER, 10, 30, MAX_STEPS, _FETCH, 0.1),
    "peg-insert-side": _metaworld("peg-insert-side", 2, 16, 125),
    "assembly": _metaworld("assembly", 1, 2, 105),
    "pick-place": _metaworld("pick-place", 1, 12, 65),
    "stick-pull": _metaworld("stick-pull", 1, 4, 130, "second_object"),
    "shelf-place": _metaworld("shelf-place", 1, 6, 105),
    "box-close": _metaworld("box-close", 4, 8, 125),
    "basketball": _metaworld("basketball", 2, 12, 115),
    "bin-picking": _metaworld("bin-picking", 2, 8, 140),
}
GATES = ("safe", "lazy", "hg", "thrifty")


class Gated(NamedTuple):
    """A task of the gates.

    Args:
        demonstrations: to begin with.
        episodes: of each round, of at most `longest` steps.
        budget: of ThriftyDAgger, takeovers for each step that the policy drives.
        tolerance: of the simulated human of HG-DAgger, in half-ranges.
        watched: episodes of each round that the human watches: fewer, where the human gives more labels in each.
        slow_motion: how many times slower the human sees the world; 80 or 100 steps a second are then 20 or 25.
        thrifty: episodes of each round of ThriftyDAgger, where they are fewer to ask for fewer labels.
        settle: of LazyDAgger, steps in a row at which policy and expert must agree before the policy drives again.
    """

    demonstrations: int
    episodes: int
    longest: int
    budget: float
    tolerance: float
    watched: int
    slow_motion: float = 1.0
    thrifty: int | None = None
    settle: int = 1


GATED = {
    "PickPlace": Gated(12, 6, MAX_STEPS, 0.03, 0.2, 6),
    "relocate": Gated(5, 3, MAX_STEPS, 0.02, 0.1, 2, 4.0),
    "peg-insert-side": Gated(12, 12, 125, 0.015, 0.2, 10, 4.0, settle=5),
    "assembly": Gated(2, 5, 105, 0.02, 0.2, 4, 4.0, 4),
}


def _gate(task: str, name: str) -> us.Gate:
    """The gate of that name, with what was chosen for the task."""
    match name:
        case "dagger":
            return us.DAggerGate("constant", beta=TASKS[task].beta, ask=0.0)
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
    agent = us.GatedAgent(policy.for_execution(), expert, gate, round=GATE_ROUNDS + 1)
    episodes = []
    for seed in starts:
        episodes.append(us.rollout(env, agent, seed=seed, max_steps=MAX_STEPS, after_success=10))
        gate.adapt(episodes[-1])
    return entry_of(episodes, dataset.spec.control_hz).to_json()


def interactive(
    name: str, gate: str, seed: int, *, starts: range = EVALUATED, progress_starts: int = 20
) -> dict[str, Any]:
    """One run of `dagger`: of one network, with BC at the same number of labels beside it; or of an ensemble."""
    task = TASKS[name]
    alone = gate == "dagger"
    rounds, plan = (ROUNDS, task) if alone else (GATE_ROUNDS, GATED[name])
    episodes = plan.episodes
    if gate == "hg":
        episodes = GATED[name].watched
    if gate == "thrifty":
        episodes = GATED[name].thrifty or episodes
    env = us.make_env(task.world)
    script = us.sim.expert_for(env, expert_of(task))
    expert = person(script, us.spec_of(env), GATED[name]) if gate == "hg" else script
    shape, recipe = task.shape, task.recipe(seed)
    if not alone:
        shape, recipe = replace(DAGGER_SHAPE, head=shape.head), replace(DAGGER_RECIPE, seed=seed)
    config = us.DAggerConfig(rounds=rounds, episodes=episodes, max_steps=plan.longest, progress_starts=progress_starts)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        demos = seeded(env, script, folder / "demos", plan.demonstrations, 0, seed)
        network: us.Policy = us.FeedForward.for_data(demos, shape, seed=seed)
        if not alone:
            network = us.Ensemble.of(network, MEMBERS, seed=seed)
        ledger: list[Entry] = []
        progress = []
        for one in us.dagger(env, expert, _gate(name, gate), network, demos, config, recipe, run=folder / "run"):
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
        if alone:
            many = seeded(env, script, folder / "many", 0, result["labels"], seed, cut=task.cut)
            clone = us.train(us.FeedForward.for_data(many, shape, seed=seed), many, recipe)
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
    names += [f"{name}, dagger, seed {seed}" for seed in SEEDS for name in TASKS]
    names += [f"{task}, {gate}, seed {seed}" for task in GATED for gate in ("dagger-all", *GATES) for seed in SEEDS]
    names += [f"{task}, {gate}, seed {seed}" for (task, gate), seeds in CLOSE.items() for seed in seeds]
    return names


def runs_of(cells: dict[str, Any], task: str, gate: str, *, beside: str = "") -> list[Any]:
    """The cells of a gate in the order of their seeds: of those that `beside` has, too. None where they are too few."""
    found = []
    for seed in ALL:
        names = [f"{task}, {one}, seed {seed}" for one in (gate, beside or gate)]
        if all(name in cells for name in names):
            found.append(cells[names[0]])
    return found if len(found) >= FEWEST_SEEDS else []


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


def against_bc(cells: dict[str, Any]) -> dict[str, Any]:
    """DAgger beside cloning at the same number of labels, on the tasks whose cells are there."""
    found: dict[str, Any] = {}
    p_values = {}
    for task in TASKS:
        runs, expert = runs_of(cells, task, "dagger"), cells.get(f"{task}, expert")
        if not runs or expert is None:
            continue
        ours, bc = table(runs), table([run["bc"] for run in runs])
        means = bootstrap(ours - bc)
        # Of draws none may fall on one side; p is then below what they can tell.
        p_values[task] = max(2 * min((means <= 0).mean(), (means >= 0).mean()), 1 / DRAWS)
        own = np.mean([int(bit) for bit in expert])
        found[task] = {
            "seeds": len(runs),
            "demonstrations": TASKS[task].demonstrations,
            "attempts": np.mean([sum(row["episodes"] for row in run["ledger"][1:]) for run in runs]),
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


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """The figures that the page quotes, of the tasks whose cells are there."""
    rows = against_bc(cells)
    return {
        "against_bc": rows,
        "tasks": len(rows),
        "better_than_bc": len([row for row in rows.values() if row["difference"] > 0 and row["p_holm"] < ALPHA]),
        "worse_by_more_than_3_points": len([row for row in rows.values() if row["difference"] < -0.03]),
        "at_95_percent_of_expert": len([row for row in rows.values() if row["share_of_expert"] >= 0.95]),
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
        rounds_of_gates=GATE_ROUNDS,
        seeds=SEEDS,
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
