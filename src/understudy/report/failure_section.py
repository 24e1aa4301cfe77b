"""The section that helps to answer: why does my policy fail?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.report.charts import start_chart
from understudy.report.contents import Report
from understudy.report.failures import Axis, Cell, FailureMap, Leaving, map_failures
from understudy.report.markup import Markup, element, join, table
from understudy.report.sections import section
from understudy.report.words import NONE, at_step, between, chance, counted, percent

_TINT = 42


def failures(report: Report) -> Markup | None:
    """Failures by where they started and by where they left the training range."""
    found = map_failures(report.main, report.spec) if report.main else None
    if found is None:
        return None
    if found.success.all():
        said = f"None of the {counted(len(found.success), 'start')} ended in failure, so there is nothing to explain."
        return section("failures", "Why does it fail?", element("p", said))
    rate = report.spec.control_hz if report.spec else 0.0
    chart = start_chart(found)
    return section(
        "failures",
        "Why does it fail?",
        element("p", _where(found)),
        element("p", _leaving(found, rate)),
        element("div", element("p", element("b", "What to try")), _advice(found, report.config), class_="hint"),
        element(
            "div",
            element("figure", chart, element("figcaption", _caption(found))),
            _grid(found),
            class_="pair",
        )
        if chart
        else None,
        _causes(found, rate),
    )


def _where(found: FailureMap) -> str:
    if not found.axes:
        return "All episodes start alike in what is observed, so the start does not tell failures from successes."
    best = found.axes[0]
    looked = f"{counted(found.searched, 'start channel')} that vary" if found.searched > 1 else "the one that varies"
    if best.p_value is None:
        return "No start ended in success, so failures cannot be told from successes by where they start."
    if not found.clear:
        return (
            f"The start does not visibly tell failures from successes. Success differs most along {best.name}, but a "
            f"difference as large appears often by chance ({chance(best.p_value)}, permutation test, corrected for "
            f"having compared {looked}). Do not read much into the cells below."
        )
    said = " ".join(
        f"Along {axis.name}, success goes from {_share(found, axis, worst)} to {_share(found, axis, best_bin)}."
        for axis, (worst, best_bin) in ((axis, _extremes(found, axis)) for axis in found.clear)
    )
    p_values = " and ".join(chance(axis.p_value) for axis in found.clear if axis.p_value is not None)
    return (
        f"Where an episode starts matters. {said} Chance would hardly show this ({p_values}, permutation test, "
        f"corrected for having compared {looked})."
    )


def _extremes(found: FailureMap, axis: Axis) -> tuple[int, int]:
    rates = [found.success[axis.bins == index].mean() for index in range(len(axis.edges) + 1)]
    return rates.index(min(rates)), rates.index(max(rates))


def _share(found: FailureMap, axis: Axis, index: int) -> str:
    return f"{percent(float(found.success[axis.bins == index].mean()))} ({axis.label(index)})"


def _leaving(found: FailureMap, control_hz: float) -> str:
    failed, succeeded = found.failures, found.successes
    if not failed.left and not succeeded.left:
        return "No episode is known to have left the range of the training data."
    said = f"{failed.left} of the {counted(failed.trials, 'failure')} left the range of the training data"
    if failed.left:
        said += f", half of these by {at_step(failed.median_step, control_hz)}"
        if failed.channel:
            said += f" and most often through {failed.channel} ({failed.by_channel})"
        if failed.at_start:
            said += f"; {failed.at_start} began outside of it"
    said += ". "
    if succeeded.trials:
        said += f"Of the {counted(succeeded.trials, 'success', 'successes')}, {succeeded.left} did. "
        if failed.left and not _explains(found):
            said += "Successes leave it about as often, so this alone does not explain the failures. "
    return said + "Range means each channel by itself, with a tenth of its width allowed on either side."


def _explains(found: FailureMap) -> bool:
    """Whether failures left the training range clearly more often than successes."""
    failed, succeeded = found.failures, found.successes
    return failed.left / failed.trials > 1.25 * (succeeded.left / succeeded.trials if succeeded.trials else 0)


def _advice(found: FailureMap, config: Mapping[str, Any]) -> Markup:
    if config.get("command") == "finetune" and "data" not in config:
        tips = ["Practise for more steps, or with demonstrations (--demos)."]
    else:
        tips = _tips(found) or [
            "Watch the videos of failures: neither the start nor the training range tells them apart."
        ]
    return element("ul", (element("li", tip) for tip in tips))


def _tips(found: FailureMap) -> list[str]:
    failed = found.failures
    tips = []
    if found.clear:
        worst = " and ".join(f"{axis.name} {axis.label(_extremes(found, axis)[0])}" for axis in found.clear)
        tips.append(f"Record more demonstrations that start with {worst}.")
    if failed.at_start * 2 > failed.trials:
        tips.append("Most failures start outside of what was demonstrated: demonstrate from such starts.")
    elif (failed.left - failed.at_start) * 2 > failed.trials and _explains(found):
        tips.append(
            "Most failures drift to states that no demonstration shows: let the expert correct the policy there "
            "(DAgger), or train with more observation noise."
        )
    elif failed.left * 2 < failed.trials:
        tips.append(
            "Most failures stay within the range of the training data, so it is the action that is wrong there: watch "
            "the videos for timing and precision, and look at the held-out loss."
        )
    return tips


def _caption(found: FailureMap) -> str:
    said = "Each mark is a start: a circle where the episode succeeded, a cross where it failed. "
    return said + "Dotted lines are the edges of the cells, which hold equal shares of the starts on each axis."


def _grid(found: FailureMap) -> Markup:
    first, second = found.axes[0], found.axes[1] if len(found.axes) > 1 else None
    cells = {cell.place: cell for cell in found.cells}
    columns = range(len(first.edges) + 1)
    # The largest values on top, as in the chart.
    rows = list(range(len(second.edges), -1, -1)) if second else [None]
    body = [
        element(
            "tr",
            element("th", second.label(row), scope="row") if second and row is not None else None,
            (
                _grid_cell(cells.get((column,) if row is None else (column, row)), tinted=bool(found.clear))
                for column in columns
            ),
        )
        for row in rows
    ]
    corner = element("th", f"{second.name} ↓", scope="col") if second else None
    caption = f"Success by {' and '.join(axis.name for axis in found.axes)}"
    head = element("tr", corner, (element("th", first.label(column), scope="col") for column in columns))
    return element(
        "figure",
        element(
            "div",
            element(
                "table",
                element("caption", caption, class_="unseen"),
                element("thead", head),
                element("tbody", body),
                class_="grid",
            ),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=caption,
        ),
        element(
            "figcaption",
            f"Success by {first.name} (columns){f' and {second.name} (rows)' if second else ''}, "
            "with successes of starts and the 95% interval.",
        ),
    )


def _grid_cell(cell: Cell | None, *, tinted: bool) -> Markup:
    if cell is None:
        return element("td", element("span", "no start"))
    share = cell.successes / cell.starts
    return element(
        "td",
        element("b", percent(share)),
        element("span", f"{cell.successes} of {cell.starts}"),
        element("span", between(cell.interval)),
        class_="tinted" if tinted else None,
        style=f"--failing: {_TINT * (1 - share):.0f}%" if tinted else None,
    )


def _causes(found: FailureMap, control_hz: float) -> Markup:
    """Cells by how many of their starts fail, and how those failures left the training range."""
    failing = [cell for cell in found.cells if cell.failures.trials]
    failing.sort(key=lambda cell: (-cell.failures.trials / cell.starts, cell.place))
    rows = [
        (_place(found, cell), f"{cell.failures.trials} of {cell.starts}", *_left(cell.failures, control_hz))
        for cell in failing
    ]
    if len(rows) > 1:
        rows.append(
            ("All failures", f"{found.failures.trials} of {len(found.success)}", *_left(found.failures, control_hz))
        )
    title = "How the failures leave the training range"
    head = ["Start", "Failures", "Left the range", "First step outside (median)", "Most often through"]
    return join(element("h3", title), table(title, head, rows, class_="figures causes"))


def _place(found: FailureMap, cell: Cell) -> str:
    said = ", ".join(f"{axis.name} {axis.label(index)}" for axis, index in zip(found.axes, cell.place, strict=True))
    return said or "all"


def _left(failures: Leaving, control_hz: float) -> tuple[str, str, str]:
    channel = f"{failures.channel} ({failures.by_channel})" if failures.channel else NONE
    return f"{failures.left} of {failures.trials}", at_step(failures.median_step, control_hz), channel
