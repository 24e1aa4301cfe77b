"""JSON from a file that anyone may have written: no NaN, no double keys, no huge numbers, no bottomless nesting."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from understudy.errors import DataError

_LONGEST_NUMBER = 40


def loads(data: bytes, *, what: str, largest: int, infinite: bool = False) -> Any:
    """The value that `data` says.

    Args:
        data: UTF-8 text.
        what: named in errors.
        largest: bytes accepted.
        infinite: whether it may hold what Python's own writer makes of infinite numbers.

    Raises:
        DataError: not JSON, too long, too deep, or with something that plain JSON does not have.
    """
    if len(data) > largest:
        raise DataError(f"{what} has {len(data)} bytes; at most {largest} are read")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=float if infinite else _no_constant,
            parse_int=_short_int,
            parse_float=_short_float,
        )
    except RecursionError:
        raise DataError(f"{what} is nested too deeply to be read") from None
    except ValueError as error:
        raise DataError(f"{what} is not plain JSON: {error}") from None


def dumps(value: Any) -> str:
    """The one canonical text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _short_int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number with {len(text)} digits")
    return int(text)


def _short_float(text: str) -> float:
    value = float(text)
    if len(text) > _LONGEST_NUMBER or value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:_LONGEST_NUMBER]} is out of range")
    return value
