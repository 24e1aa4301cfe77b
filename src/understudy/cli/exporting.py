"""The command that makes one file of a policy, for a computer without torch."""

from __future__ import annotations

from pathlib import Path

import understudy as us
from understudy.cli.arguments import Source, existing, require_outputs
from understudy.cli.console import say


def export(policy: Source, out: Path, data: Path | None = None, draws: int = 1000, mean: bool = False) -> None:
    """Write a policy to one ONNX file that runs without torch, and say how exactly it repeats the policy.

    Every command that takes a policy takes the file, too. Nothing is written where the two differ by more than 1e-5 of
    the range of an action.

    Args:
        policy: a policy folder or a run.
        out: the new file, called .onnx.
        data: recorded episodes on which the two are compared as well.
        draws: random observations on which they are compared.
        mean: of a policy that acts by sampling, export its mean.
    """
    require_outputs(out)
    recorded = us.Dataset.open(existing(data)) if data else None
    loaded = us.load(existing(policy))
    if mean:
        loaded.acts = "mean"
    say(str(us.export(loaded, out, recorded, draws=draws)))
