"""From the words of a command line to a command, and what is wrong with them in one sentence."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Collection
from contextlib import redirect_stderr
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo
from tyro.extras import SubcommandApp

from understudy.errors import ConfigError

_NAMES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
_NOTHING = "None"
# What tyro says of a value, and what is said instead.
_NO_NUMBER = re.compile(
    r"^Error parsing (--\S+): (?:invalid literal for int|could not convert string to (float)).*: '(.*)'$"
)
_NO_LIST = re.compile(r"^Error parsing (--\S+): Could not find valid parse for arguments: \[(.*)\]$")
_NO_VALUE = re.compile(r"^Missing value for argument '(--\S+)'\..*$")
_MISPLACED = re.compile(r"^Unrecognized or misplaced options: (.*) Arguments are applied to .*$")
_WHERE = re.compile(r" \(applied to [^)]*\)")


_RULES = ConstructorRegistry()


@_RULES.primitive_rule
def _optional(option: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """An option that may be left out takes what it takes where it is given; the word None leaves it out, too."""
    kinds = [kind for kind in get_args(option.type) if kind is not NoneType]
    if option.type_origin not in (Union, UnionType) or len(kinds) != 1:
        return None
    kind = kinds[0]
    if kind == tuple[int, ...]:
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[INT [INT ...]]",
            instance_from_str=lambda words: None if words == [_NOTHING] else tuple(map(int, words)),
            is_instance=lambda value: value is None or isinstance(value, tuple),
            str_from_instance=lambda value: [_NOTHING] if value is None else list(map(str, value)),
        )
    if kind not in _NAMES:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=_NAMES[kind],
        instance_from_str=lambda words: None if words == [_NOTHING] else kind(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [_NOTHING if value is None else str(value)],
    )


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
            command: Callable[[], Any] = app.cli(prog="understudy", args=words, description=about, registry=_RULES)
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
        return f"{option} is {came!r}; accepted: {'a number' if real else 'a whole number'}"
    if found := _NO_LIST.match(sentence):
        option, came = found.groups()
        shown = came.replace("'", "").replace(", ", " ")
        return f"{option} is {shown!r}; accepted: whole numbers, as in {option} 64 64"
    if found := _NO_VALUE.match(sentence):
        return f"{found[1]} needs a value"
    if found := _MISPLACED.match(sentence):
        return f"Unrecognized options: {', '.join(_WHERE.sub(',', found[1]).rstrip(',').split(', '))}"
    return sentence
