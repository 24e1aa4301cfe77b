"""The page of a report: one file that opens offline and loads nothing from anywhere."""

from __future__ import annotations

from pathlib import Path

from understudy.durable import write_file
from understudy.report import sections
from understudy.report.contents import Report
from understudy.report.expert_section import expert_time
from understudy.report.failure_section import failures
from understudy.report.markup import Markup, element, join
from understudy.report.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_SECTIONS = (
    ("result", "Result", sections.headline),
    ("results", "Success", sections.results),
    ("failures", "Why does it fail?", failures),
    ("study", "Distribution shift", sections.study),
    ("expert", "What the expert's time bought", expert_time),
    ("videos", "Videos", sections.videos),
    ("training", "Training", sections.training),
    ("data", "The data", sections.health),
    ("repeat", "How to repeat it", sections.repeat),
)


def write_report(path: Path | str, report: Report) -> Path:
    """Writes a report as one HTML file, whole or not at all. The same report gives the same bytes.

    Args:
        path: of the file; what was there before is replaced.
        report: its material.

    Returns:
        The path.

    Raises:
        StorageError: the disk is full or failed.
    """
    path = Path(path)
    write_file(path, render(report).encode())
    return path


def render(report: Report) -> Markup:
    """The page of a report."""
    parts = [(name, title, build(report)) for name, title, build in _SECTIONS]
    present = [(name, title, part) for name, title, part in parts if part]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", report.title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element(
            "div",
            element(
                "header",
                element("p", "Understudy report", class_="eyebrow"),
                element("h1", report.title),
                element("p", report.date, class_="muted") if report.date else None,
                _contents([(name, title) for name, title, _ in present if name != "result"]),
            ),
            element("main", (part for *_, part in present)),
            element(
                "footer",
                element("p", "Written by Understudy. This page is complete: it loads nothing from anywhere."),
            ),
            class_="page",
        ),
    )
    return join(Markup("<!doctype html>\n"), element("html", head, body, lang="en"), Markup("\n"))


def _contents(titles: list[tuple[str, str]]) -> Markup | None:
    if len(titles) < 2:
        return None
    links = (element("li", element("a", title, href=f"#{name}")) for name, title in titles)
    return element("nav", element("ul", links), aria_label="Sections")
