"""Reads the numeric arrays out of a pickle without unpickling it.

Python's own unpickler calls whatever the file names. This one is a small stack machine that knows the few operations
of which a list of dicts of arrays is made, calls nothing, and refuses the first global that is not on its list by
name.
"""

from __future__ import annotations

import math
import pickletools
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError

LARGEST_PICKLE = 512 * 2**20
_MOST_OPERATIONS = 200_000
_DTYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"})
_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_LITERALS = frozenset(
    [
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# What a file may name, and the word used for it below. Nothing of it is ever imported or called.
_GLOBALS = {
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.numeric _frombuffer": "frombuffer",
    "numpy._core.numeric _frombuffer": "frombuffer",
    "_codecs encode": "encode",
}


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(slots=True)
class _Type:
    """A dtype under construction."""

    code: str
    order: str = "|"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


@dataclass(slots=True)
class _Array:
    """An array under construction."""

    array: NDArray[Any] | None = None


def read_pickle(data: bytes) -> Any:
    """The lists, dicts, texts, numbers and numeric arrays that a pickle describes.

    Args:
        data: a pickle of protocol 2 to 5.

    Raises:
        DataError: it names something else than numeric numpy arrays, or is damaged, or its arrays are too large
            together, one that appears several times counted as often.
    """
    if len(data) > LARGEST_PICKLE:
        raise DataError(f"the pickle has {len(data)} bytes; at most {LARGEST_PICKLE} are read")
    try:
        return _Finisher().plain(_Machine().run(data))
    except DataError:
        raise
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(f"the pickle is damaged, or is no list of dicts of numeric arrays ({error})") from None


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPERATIONS:
                raise DataError(f"the pickle has more than {_MOST_OPERATIONS} operations; it is not read")
            if operation.name == "STOP":
                (value,) = self._stack
                return value
            self._step(operation.name, argument)
        raise ValueError("it has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = tuple(self._pop() for _ in range(size))[::-1]
            stack.append(items)
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE":
            items = tuple(self._popped())
            stack.append(items)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("APPEND", "APPENDS"):
            items_ = [self._pop()] if name == "APPEND" else self._popped()
            _expect(stack[-1], list).extend(items_)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._popped()
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                _expect(stack[-1], dict)[_text(key)] = value
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._global(name, argument))
        elif name == "REDUCE":
            arguments, called = self._pop(), self._pop()
            stack.append(_reduce(_expect(called, _Global).name, _expect(arguments, tuple)))
        elif name == "BUILD":
            state = self._pop()
            _build(stack[-1], _expect(state, tuple))
        else:
            raise DataError(f"the pickle uses {name}; only lists and dicts of numeric arrays are read")

    def _global(self, name: str, argument: Any) -> _Global:
        if name == "STACK_GLOBAL":
            second, first = self._pop(), self._pop()
            argument = f"{first} {second}"
        if argument not in _GLOBALS:
            raise DataError(
                f"the pickle names {str(argument)[:80]!r}; loading it would run code, and only numeric numpy arrays "
                "are read"
            )
        return _Global(_GLOBALS[argument])

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise ValueError("it takes more from its stack than there is")
        return self._stack.pop()

    def _popped(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items


def _reduce(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "reconstruct":
        if _expect(arguments[0], _Global).name != "ndarray":
            raise ValueError("it makes an array of an unknown class")
        return _Array()
    if name == "dtype":
        code = _text(arguments[0])
        if code not in _DTYPES:
            raise DataError(f"the pickle holds an array of {code[:20]!r}; only bool, integer and float are read")
        return _Type(code)
    if name == "frombuffer":
        content, kind, shape, order = arguments
        return _Array(_array(_bytes(content), _expect(kind, _Type), shape, order == "F"))
    if name == "encode" and arguments[1] in ("latin1", "latin-1"):
        return _text(arguments[0]).encode("latin1")
    raise ValueError(f"it calls {name} in an unknown way")


def _build(value: Any, state: tuple[Any, ...]) -> None:
    if isinstance(value, _Type):
        order = _text(state[1])
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("it has a dtype with fields")
        value.order = order
    elif isinstance(value, _Array):
        _, shape, kind, fortran, content = state
        value.array = _array(_bytes(content), _expect(kind, _Type), shape, bool(fortran))
    else:
        raise ValueError("it sets the state of something that is no array")


def _array(content: bytes, kind: _Type, shape: Any, fortran: bool) -> NDArray[Any]:
    dtype = kind.numpy()
    sizes = tuple(_expect(size, int) for size in _expect(shape, tuple))
    if len(sizes) > 8 or any(size < 0 for size in sizes) or math.prod(sizes) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {str(sizes)[:80]} has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(sizes, order="F" if fortran else "C")


class _Finisher:
    """Makes plain values of what the machine built, with at most as many bytes of arrays as a pickle has."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._bytes = 0

    def plain(self, value: Any) -> Any:
        """The value with its arrays finished; a container that appears twice (in itself, say) is refused."""
        if isinstance(value, _Array):
            return self._array(value)
        if isinstance(value, (list, dict)):
            if id(value) in self._seen or len(self._seen) > _MOST_OPERATIONS:
                raise ValueError("a container appears twice")
            self._seen.add(id(value))
            if isinstance(value, list):
                return [self.plain(item) for item in value]
            return {key: self.plain(item) for key, item in value.items()}
        if isinstance(value, (str, bytes, bytearray, int, float, bool)) or value is None:
            return value
        raise ValueError(f"it holds a {type(value).__name__}")

    def _array(self, value: _Array) -> NDArray[Any]:
        if value.array is None:
            raise ValueError("an array has no content")
        self._bytes += value.array.nbytes
        if self._bytes > LARGEST_PICKLE:
            raise DataError(
                f"the arrays of the pickle, each counted wherever it appears, have more than {LARGEST_PICKLE} bytes; "
                "no more are read"
            )
        return value.array


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} is due")
    return value


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):  # protocol 2 keeps bytes as latin1 text
        return value.encode("latin1")
    if isinstance(value, bytearray):
        return bytes(value)
    return bytes(_expect(value, bytes))


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(_expect(value, str))
