"""The sections of a report: each is a function of its material, and None where there is none."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from understudy.durable import is_regular
from understudy.evaluate import EVALUATION_SEED, Comparison, Evaluation, compare
from understudy.report.charts import (
    StudyPoint,
    interval_bar,
    loss_chart,
    rate_chart,
    return_chart,
    study_chart,
    success_chart,
)
from understudy.report.contents import Clip, Report, is_judged
from understudy.report.failures import LEVEL, Leaving
from understudy.report.markup import Child, Markup, element, join, table
from understudy.report.words import (
    between,
    chance,
    counted,
    is_number,
    number,
    percent,
    point_digits,
    points,
    success_of,
)

VIDEO_LIMIT_BYTES = 8 * 2**20
_VIDEOS_LIMIT_BYTES = 4 * VIDEO_LIMIT_BYTES
_LONGEST_VALUE = 400
_EPISODES_NAMED = 12


def section(name: str, title: str, *children: Child) -> Markup:
    """A section with a heading that links can reach."""
    return element(
        "section", element("h2", title, id=f"{name}-heading"), *children, id=name, aria_labelledby=f"{name}-heading"
    )


def headline(report: Report) -> Markup | None:
    """How good the policy is, in a number and in words."""
    evaluation = report.main
    if evaluation is None:
        return None
    trials = len(evaluation.trials)
    times = [trial.time_to_success_s for trial in evaluation.trials if trial.time_to_success_s is not None]
    facts = {
        "World": ", ".join([evaluation.world, *evaluation.options.get("env_arguments", ())]),
        "Starts": f"{trials:,} (seeds {evaluation.seed:,} to {evaluation.seed + trials - 1:,})",
        "Executed with": ", ".join(execution_of(evaluation)),
        "Trained on": report.data,
        "Median time to success": f"{statistics.median(times):.1f} s" if times else "",
    }
    listed = join(
        element("p", "Demonstrations start from these seeds, too: an honest figure needs other starts.", class_="hint")
        if evaluation.seed < EVALUATION_SEED
        else None,
        _facts([(name, value) for name, value in facts.items() if value]),
    )
    if not is_judged(evaluation):
        mean = statistics.fmean(trial.total_reward for trial in evaluation.trials)
        said = f"is the mean return over {counted(trials, 'start')}. This world does not say what counts as success."
        big = element("div", number(mean), class_="number")
        hero = element("div", big, element("p", said, class_="lead"), class_="hero")
        return element("section", hero, listed, id="result")
    shown = percent(evaluation.success_rate)
    words = (
        f"The policy succeeded from {success_of(evaluation)} starts. With 95% confidence its success rate on such "
        f"starts lies between {percent(evaluation.interval[0])} and {percent(evaluation.interval[1])}."
    )
    hero = element(
        "div",
        element("div", shown.removesuffix("%"), element("small", "%"), class_="number"),
        element("p", words, class_="lead"),
        element("div", interval_bar(evaluation), class_="wide"),
        class_="hero",
    )
    unseen = element("h2", "Result", class_="unseen", id="result-heading")
    return element("section", unseen, hero, listed, id="result", aria_labelledby="result-heading")


def execution_of(evaluation: Evaluation) -> list[str]:
    """The options of the execution that are not the default."""
    return [f"{key} {value}" for key, value in evaluation.options.items() if key != "env_arguments"]


def results(report: Report) -> Markup | None:
    """Success of several evaluations side by side, and paired comparisons."""
    several = len(report.judged) > 1
    if not several and not report.comparisons:
        return None
    return section(
        "results",
        "Success",
        success_table(report.judged) if several else None,
        element(
            "p",
            "Bars show the share of starts that ended in success, whiskers its 95% interval (Wilson).",
            class_="muted small",
        )
        if several
        else None,
        (_comparison(*one) for one in report.comparisons),
    )


def success_table(evaluations: Mapping[str, Evaluation]) -> Markup:
    """One bar for each evaluation."""
    rows = [
        (
            label,
            interval_bar(evaluation),
            element("b", percent(evaluation.success_rate)),
            success_of(evaluation),
            between(evaluation.interval),
        )
        for label, evaluation in evaluations.items()
    ]
    return table(
        "Success by evaluation", ["Evaluation", "0% to 100%", "Success", "Starts", "95% interval"], rows, class_="bars"
    )


def _comparison(first: str, second: str, comparison: Comparison) -> Markup:
    low, high = comparison.interval
    if comparison.p_value >= LEVEL:
        verdict = "Not told apart."
    else:
        verdict = f"Better: {second if comparison.difference > 0 else first}."
    digits = point_digits(comparison.difference)
    size = f"{abs(100 * comparison.difference):.{digits}f} percentage points"
    size = f"{size} {'above' if comparison.difference > 0 else 'below'}" if comparison.difference else "the same as"
    words = (
        f" On the same {counted(comparison.episodes, 'start')}, the success rate of {second} is {size} that of {first} "
        f"(95% interval of the difference {points(low, digits)} to {points(high, digits)}; "
        f"{chance(comparison.p_value)}, exact test of McNemar)."
    )
    counts = (comparison.both, comparison.only_first, comparison.only_second, comparison.neither)
    return join(
        element("h3", f"{second} against {first}"),
        element("p", element("b", verdict), words),
        table(
            f"Who succeeded: {second} against {first}",
            ["Succeeded", "both", f"only {first}", f"only {second}", "neither"],
            [("Starts", *(str(count) for count in counts))],
            class_="narrow",
        ),
    )


def study(report: Report) -> Markup | None:
    """What fewer demonstrations and noise on the observations do."""
    chosen = [point for point in report.study if is_judged(point.evaluation)]
    if not chosen:
        return None
    chosen.sort(key=lambda point: (point.demonstrations, point.observation_noise))
    rows = []
    for point in chosen:
        failed = Leaving.of([trial for trial in point.evaluation.trials if not trial.success])
        rows.append(
            (
                str(point.demonstrations),
                f"{point.observation_noise:g}" if point.has_noise else "none",
                element("b", percent(point.evaluation.success_rate)),
                between(point.evaluation.interval),
                f"{failed.left} of {failed.trials}" if failed.trials else "no failure",
            )
        )
    head = ["Demos", "Noise", "Success", "95% interval", "Failures that left the training range"]
    why = (
        "A cloned policy knows only the states its demonstrations visited. Each small error of its own leads a "
        "little way off, to states where nobody showed what to do, and there the errors grow: this is distribution "
        "shift. More demonstrations cover more states; noise on the observations during training teaches the same "
        "action around each demonstrated state, so small errors are put right before they grow."
    )
    return section(
        "study",
        "Distribution shift",
        element("p", why),
        element("p", _study_findings(chosen)),
        element(
            "div",
            element("figure", study_chart(chosen)),
            table("The study in numbers", head, rows, class_="figures"),
            class_="pair",
        ),
    )


def _study_findings(chosen: Sequence[StudyPoint]) -> Markup:
    found = []
    counts = sorted({point.demonstrations for point in chosen})
    for has_noise in (False, True):
        line = [point for point in chosen if point.has_noise == has_noise]
        if len(line) > 1:
            first, last = line[0], line[-1]
            found.append(
                f"{'With' if has_noise else 'Without'} noise, success goes from "
                f"{percent(first.evaluation.success_rate)} with {counted(first.demonstrations, 'demonstration')} to "
                f"{percent(last.evaluation.success_rate)} with {last.demonstrations}. "
            )
    for count in counts:
        plain, noisy = ([p for p in chosen if p.demonstrations == count and p.has_noise == noise] for noise in (0, 1))
        seeds = [[trial.seed for trial in point.evaluation.trials] for point in (*plain, *noisy)]
        if len(plain) == len(noisy) == 1 and seeds[0] == seeds[1]:
            comparison = compare(plain[0].evaluation, noisy[0].evaluation)
            verdict = (
                f"noise changes it by {points(comparison.difference)} points ({chance(comparison.p_value)})"
                if comparison.p_value < LEVEL
                else f"these starts show no difference between noise and none ({chance(comparison.p_value)})"
            )
            found.append(f"With {counted(count, 'demonstration')}, {verdict}. ")
    return join(found)


def training(report: Report) -> Markup | None:
    """How the loss went."""
    drawn = (draw(report.metrics) for draw in (loss_chart, rate_chart, success_chart, return_chart))
    charts = [chart for chart in drawn if chart]
    if not charts:
        return None
    return section(
        "training",
        "Training",
        element("p", _training_findings(report.metrics)),
        element("div", (element("figure", chart) for chart in charts), class_="pair"),
    )


def _training_findings(rows: Sequence[Mapping[str, Any]]) -> str:
    steps = max((row["step"] for row in rows if is_number(row.get("step"))), default=len(rows))
    said = f"{counted(steps, 'step')} of training. "
    speeds = [row["samples_per_s"] for row in rows if is_number(row.get("samples_per_s"))]
    if speeds:
        said += f"{number(statistics.median(speeds))} samples a second. "
    held_out = [
        (row["held_out_loss"], row.get("step")) for row in rows if is_number(row.get("held_out_loss"), row.get("step"))
    ]
    if held_out:
        best, step = min(held_out, key=lambda pair: pair[0])
        said += (
            f"The held-out loss was lowest at step {step:,} ({number(best)}) and ended at {number(held_out[-1][0])}. "
        )
    if any(is_number(row.get(key)) for row in rows for key in ("loss", "held_out_loss")):
        said += "A low loss does not promise success: it is measured where the expert went, not where the policy goes."
    return said


def videos(report: Report) -> Markup | None:
    """The policy at work."""
    if not report.clips:
        return None
    left, figures = _VIDEOS_LIMIT_BYTES, []
    for clip in report.clips:
        figure, used = _video(clip, min(left, VIDEO_LIMIT_BYTES))
        left -= used
        figures.append(figure)
    return section("videos", "Videos", element("div", figures, class_="clips"))


def _video(clip: Clip, limit: int) -> tuple[Markup, int]:
    title: list[Child] = [clip.title]
    if clip.success is not None:
        word, class_ = ("success", "good") if clip.success else ("failure", "bad")
        title += [" ", element("span", word, class_=f"pill {class_}")]
    size = clip.path.stat().st_size if is_regular(clip.path) else None
    if size is None or size > limit:
        why = (
            "is not there, or no plain file"
            if size is None
            else f"is too large to be part of this page ({size / 2**20:.1f} MB)"
        )
        note = element("p", f"{clip.path.name} {why}.", class_="muted small")
        return element("figure", note, element("figcaption", title)), 0
    content = base64.b64encode(clip.path.read_bytes()).decode()
    player = element(
        "video",
        controls=True,
        loop=True,
        muted=True,
        playsinline=True,
        preload="metadata",
        aria_label=f"Video: {clip.title}",
        src=Markup(f"data:video/mp4;base64,{content}"),
    )
    return element("figure", player, element("figcaption", title)), size


def health(report: Report) -> Markup | None:
    """What the dataset holds, and what is wrong with it."""
    if report.health is None:
        return None
    found = dict(report.health if isinstance(report.health, Mapping) else report.health.to_json())
    defects = [defect for defect in _listed(found.pop("defects", None)) if isinstance(defect, Mapping)]
    errors = sum(defect.get("severity") == "error" for defect in defects)
    if not defects:
        verdict = "Nothing was found that would make training go wrong."
    else:
        verdict = (
            f"{counted(errors, 'error')} and {counted(len(defects) - errors, 'warning')} were found. "
            "Errors make training go wrong; warnings are worth a look."
        )
    facts = [(key.replace("_", " "), _rounded(value)) for key, value in found.items() if _is_plain(value)]
    channels = _listed(found.get("channels"))
    return section(
        "data",
        "The data",
        element("p", verdict),
        element("ul", (_defect(defect) for defect in defects), class_="defects") if defects else None,
        _facts(facts) if facts else None,
        _channels(channels) if channels else None,
    )


def _channels(channels: Sequence[object]) -> Markup:
    rows = [
        (
            str(channel.get("name") or f"{channel.get('kind', 'channel')} {index}"),
            str(channel.get("kind", "")),
            str(channel.get("unit", "")),
            *(_rounded(channel.get(key)) for key in ("low", "high", "deviation")),
        )
        for index, channel in enumerate(channels)
        if isinstance(channel, Mapping)
    ]
    head = ["Channel", "Kind", "Unit", "Smallest", "Largest", "Deviation"]
    return element("details", element("summary", "Range of each channel"), table("Range of each channel", head, rows))


def _defect(defect: Mapping[str, Any]) -> Markup:
    is_error = defect.get("severity") == "error"
    episodes = _listed(defect.get("episodes"))
    places = [f"channel {defect['channel']}"] if defect.get("channel") else []
    if episodes:
        some = ", ".join(str(episode) for episode in episodes[:_EPISODES_NAMED])
        places.append(f"{counted(len(episodes), 'episode')}: {some}{', …' if len(episodes) > _EPISODES_NAMED else ''}")
    return element(
        "li",
        element("span", "error" if is_error else "warning", class_=f"pill {'worst' if is_error else 'bad'}"),
        " ",
        element("b", str(defect.get("id", ""))),
        element("p", str(defect.get("message", ""))),
        element("p", "; ".join(places), class_="muted small") if places else None,
    )


def repeat(report: Report) -> Markup | None:
    """All that is needed to get the same again."""
    tables = [
        join(element("h3", title), table(title, ["Setting", "Value"], rows, class_="settings"))
        for title, rows in (
            ("Seeds", [(key, shown(value)) for key, value in report.seeds.items()]),
            ("Versions", [(key, shown(value)) for key, value in report.versions.items()]),
            ("Recipe", list(_flat(report.config))),
        )
        if rows
    ]
    if not tables and not report.commands:
        return None
    commands = element("pre", element("code", "\n\n".join(report.commands))) if report.commands else None
    return section("repeat", "How to repeat it", commands, tables)


def shown(value: object) -> str:
    """A value of JSON in one line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _facts(facts: Iterable[tuple[str, str]]) -> Markup:
    return element(
        "dl", (element("div", element("dt", name), element("dd", value)) for name, value in facts), class_="facts"
    )


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _is_plain(value: object) -> bool:
    return value not in ("", None) and not isinstance(value, Mapping | list | tuple)


def _rounded(value: object) -> str:
    return number(value) if isinstance(value, float) else shown(value)


def _flat(value: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{before}{key}.")
        else:
            yield f"{before}{key}", shown(item)
