"""The few messages of the ONNX format that an exported policy is made of, as bytes, and what is read back of them.

ONNX files are protocol buffers; the numbers below are those of the fields in onnx.proto (IR version 8). Equal contents
give equal bytes, so that a reader can build a file anew and compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.errors import PolicyError

IR_VERSION, OPERATOR_SET = 8, 17
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_OF_ATTRIBUTE = {int: (3, 2), list: (8, 7)}  # field of the value, and AttributeProto.AttributeType
_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_MOST_FIELDS = 200_000
_LARGEST_DIMENSION = 2**31


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | list[int]) -> bytes:
    """A NodeProto of the standard operators."""
    fields = [_text(1, name) for name in inputs] + [_text(2, name) for name in outputs] + [_text(4, kind)]
    for name, value in attributes.items():
        place, type_ = _OF_ATTRIBUTE[type(value)]
        numbers = value if isinstance(value, list) else [value]
        fields.append(_bytes(5, _text(1, name) + b"".join(_int(place, number) for number in numbers) + _int(20, type_)))
    return b"".join(fields)


def tensor(name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    """A TensorProto with its numbers in it, float32 or int64."""
    kind = _INT64 if array.dtype == np.int64 else _FLOAT
    shape = b"".join(_int(1, size) for size in array.shape)
    return shape + _int(2, kind) + _text(8, name) + _bytes(9, array.astype(array.dtype.newbyteorder("<")).tobytes())


def value(name: str, shape: Iterable[int]) -> bytes:
    """A ValueInfoProto: a float32 input or output of fixed shape."""
    dimensions = b"".join(_bytes(1, _int(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, _FLOAT) + _bytes(2, dimensions)))


def model(
    *,
    name: str,
    nodes: Iterable[bytes],
    tensors: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    metadata: Mapping[str, bytes],
) -> bytes:
    """A ModelProto: the whole file."""
    graph = b"".join(
        (
            *(_bytes(1, one) for one in nodes),
            _text(2, name),
            *(_bytes(5, one) for one in tensors),
            *(_bytes(11, one) for one in inputs),
            *(_bytes(12, one) for one in outputs),
        )
    )
    properties = (_bytes(14, _text(1, key) + _bytes(2, text)) for key, text in metadata.items())
    return b"".join(
        (_int(1, IR_VERSION), _text(2, name), _bytes(7, graph), _bytes(8, _int(2, OPERATOR_SET)), *properties)
    )


def contents(data: bytes, *, what: str) -> tuple[dict[str, bytes], dict[str, NDArray[np.float32]]]:
    """The metadata of a file and its float32 tensors by name; the rest of it is not looked at.

    Every declared length is checked against what is there before anything is taken.

    Raises:
        PolicyError: the bytes are no such file.
    """
    metadata: dict[str, bytes] = {}
    tensors: dict[str, NDArray[np.float32]] = {}
    reader = _Reader(what)
    for place, part in reader.fields(memoryview(data)):
        if place == 14:
            pair = dict(reader.fields(reader.as_bytes(part)))
            key = bytes(reader.as_bytes(pair.get(1))).decode("utf-8", "replace")
            if key in metadata:
                raise PolicyError(f"{what} has {key[:40]!r} twice among its metadata")
            metadata[key] = bytes(reader.as_bytes(pair.get(2)))
        elif place == 7:
            for inner, item in reader.fields(reader.as_bytes(part)):
                if inner == 5:
                    reader.take_tensor(reader.as_bytes(item), tensors)
    return metadata, tensors


class _Reader:
    """Reads the fields of messages, and never more of them than a file may have."""

    def __init__(self, what: str) -> None:
        self._what, self._left = what, _MOST_FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and content of each field of a message."""
        at = 0
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise PolicyError(f"{self._what} has more than {_MOST_FIELDS} fields, as no exported policy has")
            key, at = self._varint(data, at)
            wire = key & 7
            if wire == _NUMBER:
                number, at = self._varint(data, at)
                yield key >> 3, number
                continue
            if wire == _BYTES:
                length, at = self._varint(data, at)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                length = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise self._malformed()
            if length > len(data) - at:
                raise self._malformed()
            yield key >> 3, data[at : at + length]
            at += length

    def as_bytes(self, part: int | memoryview | None) -> memoryview:
        """A field that holds bytes."""
        if not isinstance(part, memoryview):
            raise self._malformed()
        return part

    def take_tensor(self, data: memoryview, tensors: dict[str, NDArray[np.float32]]) -> None:
        """Adds a float32 tensor whose numbers are in it; leaves out tensors of other kinds."""
        shape: list[int] = []
        kind, name, raw = 0, "", memoryview(b"")
        for place, part in self.fields(data):
            if place == 1:
                if not isinstance(part, int) or part > _LARGEST_DIMENSION:
                    raise PolicyError(f"{self._what} has an array of impossible size")
                shape.append(part)
            elif place == 2 and isinstance(part, int):
                kind = part
            elif place == 8:
                name = bytes(self.as_bytes(part)).decode("utf-8", "replace")
            elif place == 9:
                raw = self.as_bytes(part)
        if kind != _FLOAT:
            return
        if name in tensors or len(raw) != 4 * math.prod(shape):
            raise PolicyError(f"{self._what} has the array {name[:80]!r} twice, or not in the size that it declares")
        tensors[name] = np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)

    def _varint(self, data: memoryview, at: int) -> tuple[int, int]:
        number = 0
        for index in range(10):
            if at + index >= len(data):
                break
            byte = data[at + index]
            number |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return number, at + index + 1
        raise self._malformed()

    def _malformed(self) -> PolicyError:
        return PolicyError(f"{self._what} is no ONNX file, or a damaged one; export the policy anew")


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the eighth bit where more follow."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _int(place: int, number: int) -> bytes:
    return _varint(place << 3 | _NUMBER) + _varint(number)


def _bytes(place: int, content: bytes) -> bytes:
    return _varint(place << 3 | _BYTES) + _varint(len(content)) + content


def _text(place: int, text: str) -> bytes:
    return _bytes(place, text.encode())
