"""The section on an expert's time: what each round of a DAgger run cost, and what it bought."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from understudy.evaluate import wilson_interval
from understudy.report.charts import HelpPoint, help_chart
from understudy.report.contents import Report
from understudy.report.markup import Markup, element, table
from understudy.report.sections import section
from understudy.report.words import NONE, between, counted, is_number, percent

_COUNTS = (
    *("episodes", "steps", "labels", "expert_steps", "interventions", "context_switches", "successes"),
    *("attended", "judged"),
)


def expert_time(report: Report) -> Markup | None:
    """Success with help and alone against the time that the expert was asked or drove; None without a ledger.

    A ledger has no seconds where the rate is unknown; the time is then told in steps.
    """
    # As in `interactive/ledger.py: total_of`, for runs that did not count these two yet.
    whole = ({"attended": row.get("labels"), "judged": row.get("episodes"), **row} for row in report.metrics)
    rows = [row for row in whole if is_number(*(row.get(key) for key in ("expert_seconds", "step", *_COUNTS)))]
    if not rows:
        return None
    timed = any(row["expert_seconds"] for row in rows)
    key, unit, in_words = ("expert_seconds", "s", _duration) if timed else ("attended", "steps", _steps)
    spent = list(accumulate(row[key] for row in rows))
    help_points = [_point(row, so_far) for row, so_far in zip(rows, spent, strict=True)]
    head = ["Round", "Expert's time", "Labels", "Driven by the expert", "Takeovers", "With help", "Alone"]
    lines = [
        (
            "demonstrations" if row["step"] == 0 else f"{row['step']:,}",
            in_words(row[key]),
            f"{row['labels']:,}",
            f"{row['expert_steps']:,} of {counted(row['steps'], 'step')}",
            f"{row['interventions']:,}",
            f"{row['successes']} of {row['judged']}" if row["judged"] else NONE,
            _alone(point),
        )
        for row, point in zip(rows, help_points, strict=True)
    ]
    words = (
        f"The expert was asked or drove for {in_words(spent[-1])} in all, the demonstrations included. "
        "With help: episodes of the round, in which the expert may drive. Alone: the round's policy on starts that "
        "serve for watching the progress, not for the result above; in parentheses its 95% interval."
    )
    return section(
        "expert",
        "What the expert's time bought",
        element("p", words),
        element("figure", help_chart(help_points, unit)),
        table("The ledger, round by round", head, lines, class_="figures"),
    )


def _point(row: Mapping[str, Any], spent: float) -> HelpPoint:
    with_help = row["successes"] / row["judged"] if row["step"] and row["judged"] else None
    if not is_number(row.get("success_alone"), row.get("starts_alone")):
        return HelpPoint(spent, with_help, None, None)
    alone, starts = min(max(float(row["success_alone"]), 0.0), 1.0), max(1, int(row["starts_alone"]))
    return HelpPoint(spent, with_help, alone, wilson_interval(round(alone * starts), starts))


def _alone(point: HelpPoint) -> str:
    if point.alone is None or point.interval is None:
        return NONE
    return f"{percent(point.alone)} ({between(point.interval)})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _steps(count: float) -> str:
    return counted(round(count), "step")
