"""HTML from small pieces: text is escaped unless it is Markup, so data cannot become part of the page's code."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# Not allowed in HTML or XML, or (bidirectional controls) able to make a line read as something else than it is.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"meta", "br", "hr"})
# What would break a line in two, move within it, or begin it again.
_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


class Markup(str):
    """HTML that is safe to be put into a page as it is."""


Child = str | Iterable["Child"] | None


def printable(value: object) -> str:
    """The text of a value, with characters that no page can show replaced."""
    return _UNPRINTABLE.sub("\ufffd", str(value))


def one_line(value: object) -> str:
    """The text of a value for one line: no name out of a file may look like a line of its own."""
    return _BREAKS.sub("\ufffd", str(value))


def escape(value: object) -> Markup:
    """A value as text of a page."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(value)))


def join(*children: Child) -> Markup:
    """Children one after the other: Markup as it is, other text escaped, None left out, sequences opened."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def element(tag: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """One element. `class_` gives the attribute `class`, `aria_label` gives `aria-label`; None leaves one out."""
    given = ""
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            given += f" {key}"
        elif value is not None and value is not False:
            given += f' {key}="{escape(value)}"'
    return Markup(f"<{tag}{given}>" if tag in _VOID else f"<{tag}{given}>{join(*children)}</{tag}>")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Child]], *, class_: str = "") -> Markup:
    """A table that scrolls by itself on a narrow screen. The first entry of each row is its header.

    Args:
        caption: what the table shows; read by screen readers.
        head: titles of the columns.
        rows: one entry for each column.
        class_: of the table.
    """
    body = [
        element("tr", element("th", first, scope="row"), (element("td", entry) for entry in rest))
        for first, *rest in rows
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", caption, class_="unseen"),
            element("thead", element("tr", (element("th", title, scope="col") for title in head))),
            element("tbody", body),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )
