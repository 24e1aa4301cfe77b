"""From the words of a command line to a command, and what is wrong with them in one sentence."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Collection
from contextlib import redirect_stderr
from typing import Any

from tyro.extras import SubcommandApp

from understudy.errors import ConfigError

_KINDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "a word", "PATH": "a path", "{None}": "None"}
# What tyro says of a value, and what is said instead.
_NO_NUMBER = re.compile(
    r"^Error parsing (--\S+): (?:invalid literal for int|could not convert string to (float)).*: '(.*)'$"
)
_NO_LIST = re.compile(r"^Error parsing (--\S+): Could not find valid parse for arguments: \[(.*)\]$")
_NEITHER = re.compile(
    r"^Error parsing (--\S+): no type matching (\S+) could be instantiated from \['(.*?)'\]\. Got errors: .*$"
)
_NO_VALUE = re.compile(r"^Missing value for argument '(--\S+)'\..*$")
_MISPLACED = re.compile(r"^Unrecognized or misplaced options: (.*) Arguments are applied to .*$")
_WHERE = re.compile(r" \(applied to [^)]*\)")


def parsed(app: SubcommandApp, words: list[str], commands: Collection[str], about: str) -> Callable[[], Any]:
    """The command that the words ask for, ready to run.

    Raises:
        ConfigError: there is no such command or option, or a value is none that it takes.
    """
    if any(not word or (word.startswith("--") and word.endswith("=")) for word in words):
        raise ConfigError("a value is empty (''); is a variable of the shell not set?")
    if words[:1] == ["train"]:
        if not {"-h", "--help"} & {*words}:
            raise ConfigError("`train` needs its method: understudy train bc --data DATA --out RUN")
        words = ["train bc", "--help"]
    box = io.StringIO()  # tyro prints a box, of which one sentence matters
    try:
        with redirect_stderr(box):
            command: Callable[[], Any] = app.cli(prog="understudy", args=words, description=about)
    except SystemExit as end:
        if not end.code:
            raise
        help_of = " ".join(["understudy", *(word for word in words[:1] if word in commands), "--help"])
        if words and words[0] not in commands and not words[0].startswith("-"):
            close = difflib.get_close_matches(words[0], commands, n=2, cutoff=0.5) or list(commands)
            known = ", ".join(close).replace("train bc", "train")
            raise ConfigError(f"no command is called {words[0]!r}; close to it: {known}; see `{help_of}`") from None
        raise ConfigError(f"{_plain(_sentence(box.getvalue()))}; see `{help_of}`") from None
    return command


def _sentence(box: str) -> str:
    """What a box of tyro's says between its first two rules, without the help of each option."""
    between = re.split(r"^(?:[╭╰+-].*|[│| ] *)[─-]{4,}[╮╯+│| -]*$", box, flags=re.MULTILINE)[1]
    lines = (line[2:].rstrip("│ ") for line in between.splitlines())  # after the side of the box
    return " ".join(line.strip() for line in lines if line and not line.startswith(" " * 8))


def _plain(sentence: str) -> str:
    """The same without the words of Python's own errors: what came, and what is accepted."""
    if found := _NO_NUMBER.match(sentence):
        option, real, came = found.groups()
        return f"{option} is {came!r}; accepted: {_KINDS['FLOAT' if real else 'INT']}"
    if found := _NEITHER.match(sentence):
        option, kinds, came = found.groups()
        return f"{option} is {came!r}; accepted: {' or '.join(_KINDS.get(kind, kind) for kind in kinds.split('|'))}"
    if found := _NO_LIST.match(sentence):
        option, came = found.groups()
        shown = came.replace("'", "").replace(", ", " ")
        return f"{option} is {shown!r}; accepted: whole numbers, as in {option} 64 64"
    if found := _NO_VALUE.match(sentence):
        return f"{found[1]} needs a value"
    if found := _MISPLACED.match(sentence):
        return f"Unrecognized options: {', '.join(_WHERE.sub(',', found[1]).rstrip(',').split(', '))}"
    return sentence
