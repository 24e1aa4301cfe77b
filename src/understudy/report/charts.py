"""Charts as inline SVG that takes its colours from the page, so that they follow its light and dark scheme."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.evaluate import Evaluation
from understudy.report.failures import Axis, FailureMap
from understudy.report.markup import Markup, element, escape, printable
from understudy.report.words import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib cannot draw in a page's own colours; it draws in these, which no data can have, and they are replaced.
_COLORS = {
    "#010203": "var(--ink)",
    "#020304": "var(--muted)",
    "#030405": "var(--line)",
    "#040506": "var(--blue)",
    "#050607": "var(--orange)",
    "#060708": "var(--card)",
}
_INK, _MUTED, _LINE, BLUE, ORANGE, _CARD = _COLORS
# Charts are drawn as narrow as a phone shows them and grow from there, so their text never becomes too small to read.
_WIDTH = 400
_POINTS_PER_INCH = 72
_LOG_FROM = 8.0


@dataclass(frozen=True, slots=True)
class StudyPoint:
    """A policy of the study of distribution shift.

    Args:
        demonstrations: it was trained on.
        observation_noise: it was trained with, in deviations of each channel; 0 for none.
        evaluation: of it.
    """

    demonstrations: int
    observation_noise: float
    evaluation: Evaluation

    @property
    def has_noise(self) -> bool:
        """Whether there was any noise."""
        return self.observation_noise > 0


@dataclass(frozen=True, slots=True)
class HelpPoint:
    """A round of a DAgger run.

    Args:
        spent: of the expert's time up to and with this round, in seconds or, where the rate is unknown, in steps.
        with_help: share of the round's episodes that succeeded; None for the demonstrations.
        alone: success of the round's policy; None where nobody measured it.
        interval: of `alone`, 95 %.
    """

    spent: float
    with_help: float | None
    alone: float | None
    interval: tuple[float, float] | None


def interval_bar(evaluation: Evaluation) -> Markup:
    """A bar of the success rate with its 95 % interval; it fills the width it is given and needs no text."""
    low, high = (100 * value for value in evaluation.interval)
    rate = 100 * evaluation.success_rate
    shapes = (
        element("rect", class_="track", x="0", y="3", width="100", height="10"),
        element("rect", class_="fill", x="0", y="3", width=f"{rate:.3f}", height="10"),
        element("rect", class_="whisker", x=f"{low:.3f}", y="7", width=f"{high - low:.3f}", height="2"),
        # The ends are lines of a width that does not stretch with the bar.
        element("path", class_="ends", d=f"M{low:.3f} 4v8M{high:.3f} 4v8", vector_effect="non-scaling-stroke"),
    )
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">{"".join(shapes)}</svg>'
    )


def study_chart(points: Sequence[StudyPoint]) -> Markup:
    """Success against the number of demonstrations, with and without observation noise, with 95 % intervals."""
    counts = sorted({point.demonstrations for point in points})
    series = [(True, "with observation noise", BLUE, "o", "-"), (False, "without", ORANGE, "s", "--")]

    def draw(axes: Axes) -> None:
        for index, (has_noise, label, color, marker, line) in enumerate(series):
            chosen = sorted((p for p in points if p.has_noise == has_noise), key=lambda point: point.demonstrations)
            if not chosen:
                continue
            # Side by side, so that intervals of the same number of demonstrations do not cover each other.
            x = [counts.index(point.demonstrations) + 0.08 * (2 * index - 1) for point in chosen]
            rates = np.array([100 * point.evaluation.success_rate for point in chosen])
            low, high = 100 * np.array([point.evaluation.interval for point in chosen]).T
            spread = np.maximum([rates - low, high - rates], 0)
            axes.errorbar(
                x, rates, spread, color=color, fmt=marker, linestyle=line, label=label, capsize=4, markersize=7
            )
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set_xlim(-0.4, len(counts) - 0.6)
        axes.set_xlabel("demonstrations")
        axes.set_ylabel("success")
        _percent(axes)
        axes.grid(axis="y")
        _legend(axes)

    said = "; ".join(
        f"{point.demonstrations} demonstrations {'with' if point.has_noise else 'without'} observation noise: "
        f"{point.evaluation.success_rate:.0%}"
        for point in points
    )
    return _svg("study", f"Success against the number of demonstrations. {said}", draw, height=260)


def help_chart(points: Sequence[HelpPoint], unit: str) -> Markup:
    """Success alone, with its 95 % interval, and with help against the expert's time in that unit."""
    alone = [
        (point.spent, point.alone, point.interval) for point in points if point.interval and point.alone is not None
    ]
    helped = [(point.spent, 100 * point.with_help) for point in points if point.with_help is not None]

    def draw(axes: Axes) -> None:
        if alone:
            rates = np.array([100 * rate for _, rate, _ in alone])
            low, high = 100 * np.array([interval for *_, interval in alone]).T
            axes.errorbar(
                [spent for spent, *_ in alone],
                rates,
                np.maximum([rates - low, high - rates], 0),
                color=BLUE,
                fmt="o-",
                label="alone",
                capsize=4,
                markersize=7,
            )
        if helped:
            axes.plot(*zip(*helped, strict=True), color=ORANGE, marker="s", linestyle="--", label="with help")
        axes.set_xlim(0, 1.04 * max(point.spent for point in points) or 1)
        axes.set_xlabel(f"expert's time in all ({unit})")
        axes.set_ylabel("success")
        _percent(axes)
        axes.grid(axis="y")
        _legend(axes)

    said = "; ".join(f"after {spent:.0f} {unit}: {rate:.0%}" for spent, rate, _ in alone)
    return _svg("help", f"Success of the policy alone against the expert's time. {said}", draw, height=260)


def loss_chart(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training and held-out loss against steps; None where the rows hold none. Log scale where it spans enough."""
    lines = [
        (label, color, style, [(row["step"], row[key]) for row in rows if is_number(row.get(key), row.get("step"))])
        for key, label, color, style in (
            ("loss", "training", BLUE, "-"),
            ("held_out_loss", "held-out episodes", ORANGE, "--"),
        )
    ]
    values = [value for *_, line in lines for _, value in line]
    if not values:
        return None
    log = min(values) > 0 and max(values) / min(values) >= _LOG_FROM

    def draw(axes: Axes) -> None:
        for label, color, style, line in lines:
            if line:
                axes.plot(*zip(*line, strict=True), color=color, linestyle=style, label=label)
                axes.plot(*line[-1], "o", color=color, markersize=5)
        if log:
            axes.set_yscale("log")
            _plain_log_ticks(axes)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss (log scale)" if log else "loss")
        axes.set_xlim(left=0)
        _steps(axes)
        axes.grid(axis="y")
        _legend(axes)

    said = "; ".join(
        f"{label}: {line[0][1]:.3g} at first, {line[-1][1]:.3g} at last" for label, *_, line in lines if line
    )
    return _svg("loss", f"Loss during training. {said}", draw, height=250)


def rate_chart(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Learning rate against steps; None where the rows hold none."""
    line = [(row["step"], row["lr"]) for row in rows if is_number(row.get("lr"), row.get("step"))]
    if not line:
        return None

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*line, strict=True), color=_MUTED)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("training step")
        axes.set_ylabel("learning rate")
        _steps(axes)
        axes.grid(axis="y")

    return _svg(
        "rate", f"Learning rate during training, at most {max(value for _, value in line):.3g}", draw, height=250
    )


def start_chart(found: FailureMap) -> Markup | None:
    """Where episodes started on the map's axes, by success, with the edges of its cells; None without an axis."""
    if not found.axes:
        return None
    first = found.axes[0]
    second = found.axes[1] if len(found.axes) > 1 else None

    def draw(axes: Axes) -> None:
        # One axis alone: the starts are spread over the height in their order, which separates those that coincide.
        heights = second.values if second else np.arange(len(first.values), dtype=float)
        for mask, label, color, marker, size in (
            (found.success, "success", BLUE, "o", 38),
            (~found.success, "failure", ORANGE, "X", 62),
        ):
            if mask.any():
                axes.scatter(
                    first.values[mask],
                    heights[mask],
                    s=size,
                    color=color,
                    marker=marker,
                    edgecolors=_CARD,
                    linewidths=0.6,
                    label=f"{label} ({int(mask.sum())})",
                )
        for edge in first.edges:
            axes.axvline(edge, color=_MUTED, linestyle=(0, (2, 3)), linewidth=1, zorder=0)
        for edge in second.edges if second else ():
            axes.axhline(edge, color=_MUTED, linestyle=(0, (2, 3)), linewidth=1, zorder=0)
        axes.set_xlabel(_axis_label(first))
        axes.locator_params(axis="x", nbins=6)
        if second:
            axes.set_ylabel(_axis_label(second))
            axes.locator_params(axis="y", nbins=6)
        else:
            axes.set_ylabel("starts, in their order")
            axes.set_yticks([])
        _legend(axes)

    where = " and ".join(axis.name for axis in found.axes)
    return _svg("starts", f"Starts of the episodes by {where}, marked by success and failure", draw, height=345)


def success_chart(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Success of the batches of a fine-tuning against the steps of the world; None where the rows hold none."""
    line = [(row["step"], 100 * row["success"]) for row in rows if is_number(row.get("success"), row.get("step"))]
    return _batch_chart("success", line, BLUE, share=True)


def return_chart(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Mean return of the batches of a fine-tuning against the steps of the world; None where the rows hold none."""
    line = [(row["step"], row["mean_return"]) for row in rows if is_number(row.get("mean_return"), row.get("step"))]
    return _batch_chart("mean return", line, ORANGE, share=False)


def _batch_chart(what: str, line: Sequence[tuple[float, float]], color: str, *, share: bool) -> Markup | None:
    """What the sampled policy achieved in each batch; None where there is none."""
    if not line:
        return None

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*line, strict=True), color=color)
        axes.plot(*line[-1], "o", color=color, markersize=5)
        axes.set_xlim(left=0)
        axes.set_xlabel("steps of the world")
        axes.set_ylabel(f"{what} while training")
        if share:
            _percent(axes)
        _steps(axes)
        axes.grid(axis="y")

    unit = "%" if share else ""
    said = f"{line[0][1]:.4g}{unit} in the first batch, {line[-1][1]:.4g}{unit} in the last one"
    name = what.replace(" ", "-")
    return _svg(name, f"{what.capitalize()} of the sampled policy while it was fine-tuned. {said}", draw, height=250)


def _svg(name: str, description: str, draw: Callable[[Axes], None], *, height: int) -> Markup:
    """A chart of one pair of axes, as SVG.

    Args:
        name: unique in the page; every id of the SVG starts with it.
        description: for those who cannot see it.
        draw: draws on the axes.
        height: in points, at a width of 400.
    """
    from matplotlib.figure import Figure

    with _style(name):
        figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set_text(printable(text.get_text()))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name, description)


@contextmanager
def _style(name: str) -> Iterator[None]:
    import matplotlib.style

    own = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 12,
        "axes.labelsize": 12,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "axes.edgecolor": _LINE,
        "grid.color": _LINE,
        "grid.linewidth": 1,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "axes.labelpad": 6,
        "lines.linewidth": 2,
    }
    # "default" first: what a user put into a matplotlibrc must not change the report.
    with matplotlib.style.context(["default", own]), warnings.catch_warnings():
        # The browser has its own fonts; that Matplotlib's lacks a letter of a name changes nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _for_page(svg: str, name: str, description: str) -> Markup:
    """The SVG element alone, responsive, in the page's colours and font, with ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for color, variable in _COLORS.items():
        svg = svg.replace(color, variable)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box, "Matplotlib writes a viewBox"
    opening = (
        f'<svg class="chart" {view_box.group()} xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{escape(description)}</title>'
    )
    return Markup(opening + svg[svg.index(">") + 1 :])


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, borderaxespad=0.3, handletextpad=0.5
        )


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 103)
    axes.set_yticks(range(0, 101, 25), [f"{value}%" for value in range(0, 101, 25)])


def _steps(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.locator_params(axis="x", nbins=5, integer=True)


def _plain_log_ticks(axes: Axes) -> None:
    """Ticks like 0.02 where a log axis would write powers as formulas."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    low, high = axes.get_ylim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = math.log10(high / low) > 2.5
    ticks = [digit * 10.0**power for power in powers for digit in ((1,) if wide else (1, 2, 5))]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def _axis_label(axis: Axis) -> str:
    name = axis.name if len(axis.name) <= 32 else f"{axis.name[:31]}…"
    return f"{name} ({axis.unit})" if axis.unit not in ("", "1") else name
