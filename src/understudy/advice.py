"""Which method should I use? Advice from a dataset and a few answers, with its reasons."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from understudy.dataset import Diagnosis
from understudy.network_shape import positions

_LONG_STEPS = 100
_FEW, _MANY = 20, 50
_BEFORE = "previous"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a person can say about a task; None where unknown.

    Args:
        expert: somebody or something can be asked for the right action while the policy tries.
        reward: the world pays a reward that says how well the task goes.
        robot: it runs on a real robot, so no simulator can be reset a thousand times.
    """

    expert: bool | None = None
    reward: bool | None = None
    robot: bool | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation.

    Args:
        method: `bc`, `dagger` or `dapg`.
        gate: of DAgger; None for other methods.
        demonstrations: how many to have, or to begin with where an expert answers: smallest and largest.
        reasons: one sentence each.
        commands: what to type next.
    """

    method: str
    gate: str | None
    demonstrations: tuple[int, int]
    reasons: tuple[str, ...]
    commands: tuple[str, ...]

    def lines(self) -> list[str]:
        """The advice for people."""
        name = {
            "bc": "Behavioral Cloning",
            "dagger": f"DAgger with the gate {self.gate}",
            "dapg": "reinforcement learning from the demonstrations (DAPG, or the residual that needs fewer steps)",
        }[self.method]
        least, most = self.demonstrations
        source = (
            "to begin with (docs/benchmarks.md says what came of so few)"
            if self.gate == "dagger"
            else "are usual (received opinion; docs/choose.md says what was measured)"
        )
        return [
            f"recommended: {name}",
            *(f"- {reason}" for reason in self.reasons),
            f"demonstrations: {least} to {most} {source}",
            *self.commands,
        ]


def advise(diagnosis: Diagnosis, situation: Situation, env: str | None = None, *, scripted: bool = False) -> Advice:
    """What to do with the demonstrations at hand.

    The rules are those of docs/choose.md: an expert who can be asked is worth more than anything else on a long task;
    without one, a reward and a simulator are; with neither, cloning is what remains.

    Args:
        diagnosis: of the demonstrations.
        situation: what else is known.
        env: the world as the commands shall name it; as the dataset does where not given.
        scripted: the world comes with a script, which the commands then name as the expert.
    """
    data, world = shlex.quote(diagnosis.path), shlex.quote(env or diagnosis.env_id or "ID")
    expert = "scripted" if scripted and not situation.robot else "EXPERT"
    if not diagnosis.taught:
        why = f"in none of the {diagnosis.episodes} episodes did an expert drive or answer: record demonstrations first"
        where = "--robot NAME" if situation.robot else f"--env {world}"
        return Advice("bc", None, (50, 200), (why,), (f"understudy record {where} --expert {expert} --out DATA",))
    gate, why = _gate(situation, judged=diagnosis.successes + diagnosis.failures > 0)
    reasons = list(_facts(diagnosis, few_will_do=gate == "dagger"))
    if gate:
        expert = f"human:{expert}" if gate == "hg" else expert
        reasons += [
            "an expert can be asked on the states that the policy itself visits, which demonstrations lack",
            why,
        ]
        if situation.robot:
            reasons.append(
                "`understudy dagger` collects in worlds, where human: simulates the person; on the robot itself a "
                "person's device is an expert of your own, in Python (docs/methods/hg_dagger.md)"
            )
        sparsely = " --gate-arg beta=0.05 --gate-arg ask=0 --rounds 8" if gate == "dagger" else ""
        command = (
            f"understudy dagger --env {world} --data {data} --expert {expert} --gate {gate}{sparsely} --out runs/{gate}"
        )
        if expert.endswith("EXPERT"):
            reasons.append("EXPERT is scripted where the world has a script, a policy folder, or an .npz of weights")
        return Advice("dagger", gate, (1, 10) if sparsely else (20, 50), tuple(reasons), (command,))
    named = "" if diagnosis.env_id or not env else f" --env {world}"  # for names, units and limits
    clone = f"understudy train bc --data {data}{named} --out runs/bc"
    measure = f"understudy evaluate runs/bc --env {world}"
    if situation.reward and not situation.robot:
        reasons += [
            f"{_whom_to_ask(situation)}, but a reward can be tried for: reinforcement learning from the demonstrations "
            "goes beyond them",
            "it clones them first; the clone alone is in the run's clone/, to see what the reward has added",
            "where a world has a reward for getting nearer, ask for it: that of PickPlace is --env-arg reward=shaped",
            "the preset leaves the demonstrations out of the gradient (--lam0 0); --lam0 0.1 is DAPG's term",
            "the exploration that the clone bears differs from task to task: try --deviation-factor 0.03 to 0.06; and "
            "where the clone is good already, --update-arg step_size=0.01 --update-arg last_step_size=0.003",
            "where much is left to wish for after that, --preset residual-td3 gets more out of the same steps, in "
            "several times the time",
        ]
        command = f"understudy finetune --env {world} --demos {data} --out runs/dapg"
        return Advice("dapg", None, (20, 50), tuple(reasons), (command,))
    reasons.append(_why_only_cloning(situation))
    return Advice("bc", None, (50, 200), tuple(reasons), (clone, measure))


def _facts(diagnosis: Diagnosis, *, few_will_do: bool) -> list[str]:
    _, median, _ = diagnosis.lengths
    facts = []
    if diagnosis.errors:
        facts.append(
            f"first mend the data: {len(diagnosis.errors)} defects would spoil training ({diagnosis.errors[0].id}); "
            f"`understudy inspect {shlex.quote(diagnosis.path)}` names them"
        )
    if untaught := diagnosis.episodes - diagnosis.taught:
        facts.append(
            f"in {untaught} of the {diagnosis.episodes} episodes no expert drove or answered: they teach nothing"
        )
    elif diagnosis.failures:
        facts.append(
            f"{diagnosis.failures} of the {diagnosis.episodes} episodes failed; a clone learns from those as well"
        )
    if median >= _LONG_STEPS:
        facts.append(f"the task is long ({median:g} steps), so small errors of a clone add up to states nobody showed")
    else:
        facts.append(f"the task is short ({median:g} steps), which favours cloning")
    if diagnosis.taught < _FEW and not few_will_do:
        facts.append(f"{diagnosis.taught} demonstrations are few for any method: record some more first")
    elif diagnosis.taught >= _MANY:
        facts.append(f"{diagnosis.taught} demonstrations are enough to see what cloning alone can do")
    before = [_BEFORE] if any(channel.name.startswith(f"{_BEFORE}.") for channel in diagnosis.channels) else []
    if things := _things_apart(diagnosis):
        facts.append(
            f"places are known, of {', '.join(things)}, but not how far they are apart: where millimetres decide, try "
            f"--relative {shlex.join(things)}; and where the target is one of them, leave out where they are with "
            f"--ignore {shlex.join(before + things)} (docs/methods/bc.md)"
        )
    if before:
        facts.append(
            "channels repeat the step before, and so say what the expert just did, which misleads a clone: try "
            f"--ignore {_BEFORE}"
        )
    return facts


def _things_apart(diagnosis: Diagnosis) -> list[str]:
    """Things whose positions move or differ, where no channel says how far they are from each other."""
    seen = [channel for channel in diagnosis.channels if channel.kind == "observation"]
    if any("_from_" in channel.name for channel in seen):
        return []
    places = positions(channel.name for channel in seen if channel.unit == "m" and channel.high > channel.low)
    things = [thing for thing, axes in places.items() if len(axes) > 1 and not thing.startswith(f"{_BEFORE}.")]
    return things if len(things) > 1 else []


def _gate(situation: Situation, *, judged: bool) -> tuple[str | None, str]:
    """The gate for the expert, and why; None where nobody can be asked, or that is unknown."""
    if not situation.expert:
        return None, ""
    if situation.robot:
        return "hg", "on a robot the person takes over when it matters: hg leaves the decision and the safety to them"
    if situation.robot is None and not judged:
        return "safe", "no episode says whether it succeeded, which thrifty learns from: safe needs no verdicts"
    if situation.robot is None:
        return "thrifty", "unknown whether a person must be there: thrifty asks as seldom as a budget says"
    return "dagger", (
        "in simulation the expert can act at a few steps of many attempts, which are then the labels: on half of the "
        "tasks measured that was far better than as many labels of whole demonstrations"
    )


def _whom_to_ask(situation: Situation) -> str:
    if situation.expert is None:
        return "unknown whether an expert can be asked (--expert yes|no)"
    return "nobody can be asked"


def _why_only_cloning(situation: Situation) -> str:
    if situation.expert is None:
        return (
            "unknown whether an expert can be asked (--expert yes|no): cloning needs nobody, and it is the first round "
            "of DAgger anyway"
        )
    if situation.reward:
        return (
            "a reward alone does not help on a robot that cannot try a hundred thousand steps: collect more and clone"
        )
    if situation.reward is None:
        return "nobody can be asked, and unknown whether a reward is paid (--reward yes|no): cloning needs neither"
    return "nobody can be asked and nothing pays a reward: the demonstrations are all there is, so clone them"
