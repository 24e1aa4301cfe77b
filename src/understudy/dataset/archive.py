"""`.npz` archives of plain numbers, read without trusting them.

numpy's own reader would do for files that we wrote. A folder from elsewhere may hold an archive that declares
terabytes, names `../x`, or carries pickled objects; here every size is checked before a byte is allocated, and only
what `np.savez` writes is understood.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import CorruptEpisode, DataError

LARGEST_EPISODE = 64 * 2**20  # bytes; 40 minutes at 50 Hz of a hand with 39 + 28 channels
MOST_NUMBERS = 16 * 2**20  # all arrays together; small integers grow to float32 in memory
_MOST_ENTRIES = 64
_MOST_AXES = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NPY_HEADER = re.compile(
    r"\{'descr': '([<>|=][biuf][0-9]{1,2})', 'fortran_order': (True|False), 'shape': \(([0-9L, ]{0,80})\), ?\} *\n?"
)
_DTYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8


def read_bytes(path: Path, largest: int = LARGEST_EPISODE, *, cut: bool = False) -> bytes:
    """The content of a plain file; links, pipes and folders are refused, and so is too much of it.

    Args:
        path: the file.
        largest: bytes accepted.
        cut: give the first `largest` bytes of a larger file instead of refusing it.

    Raises:
        CorruptEpisode: it is missing, no plain file, or larger than `largest` bytes.
    """
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CorruptEpisode(f"{path.name} cannot be read ({error.strerror}); links are not followed") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptEpisode(f"{path.name} is no plain file; remove it from the dataset folder")
        if status.st_size > largest and not cut:
            raise CorruptEpisode(f"{path.name} has {status.st_size} bytes; at most {largest} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(largest if cut else largest + 1)
    except OSError as error:
        raise CorruptEpisode(f"{path.name} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An uncompressed archive that `np.load` reads; the same arrays give the same bytes.

    Raises:
        DataError: a name that is no plain word, an array that is not of numbers, or more than a reader takes.
    """
    for count, most, what in (
        (len(arrays), _MOST_ENTRIES, "arrays"),
        (sum(array.size for array in arrays.values()), MOST_NUMBERS, "numbers"),
        (max((array.ndim for array in arrays.values()), default=0), _MOST_AXES, "axes in an array"),
    ):
        if count > most:
            raise DataError(f"the episode has {count} {what}; at most {most} are saved in one episode")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if not _NAME.fullmatch(name):
                raise DataError(f"{name!r} cannot name an array; use letters, digits and _ (at most 64)")
            if array.dtype.str[1:] not in _DTYPES:
                raise DataError(f"{name} holds {array.dtype}; only bool, integer and float arrays are saved")
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), version=(1, 0), allow_pickle=False)
            # A ZipInfo made by hand carries the date 1980-01-01 instead of now.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    data = buffer.getvalue()
    if len(data) > LARGEST_EPISODE:
        raise DataError(f"the episode has {len(data)} bytes; at most {LARGEST_EPISODE} are saved in one episode")
    return data


def unpack(data: bytes, *, what: str) -> dict[str, NDArray[Any]]:
    """The arrays of an archive.

    Args:
        data: the whole archive.
        what: named in errors.

    Raises:
        CorruptEpisode: not an archive as `np.savez` writes it, or of something else than plain numbers.
    """
    try:
        return _unpack(data)
    except (struct.error, zlib.error, ValueError, UnicodeError, OverflowError) as error:
        raise CorruptEpisode(f"{what} is no archive of plain numeric arrays: {error}") from None


def _unpack(data: bytes) -> dict[str, NDArray[Any]]:
    if len(data) < _END.size:
        raise ValueError("it is too short")
    magic, _, _, _, count, size, offset, comment = _END.unpack_from(data, len(data) - _END.size)
    if magic != b"PK\5\6" or comment or not 0 < count <= _MOST_ENTRIES:
        raise ValueError(f"its end record is missing, or it has not 1 to {_MOST_ENTRIES} entries")
    if offset + size > len(data) - _END.size:
        raise ValueError("its table of contents lies outside the file")
    arrays: dict[str, NDArray[Any]] = {}
    left, numbers = LARGEST_EPISODE, 0
    for _ in range(count):
        entry = _CENTRAL.unpack_from(data, offset)
        if entry[0] != b"PK\1\2":
            raise ValueError("its table of contents is damaged")
        flags, method, crc, packed, plain, name_size, extra_size, comment_size = entry[3], entry[4], *entry[7:13]
        start = offset + _CENTRAL.size
        name = data[start : start + name_size].decode("ascii")
        offset = start + name_size + extra_size + comment_size
        stem = name.removesuffix(".npy")
        if stem == name or not _NAME.fullmatch(stem) or stem in arrays:
            raise ValueError(f"an entry is called {name[:80]!r} (or twice so)")
        left -= plain
        if flags & ~0x0808 or left < 0 or packed == 0xFFFFFFFF:
            raise ValueError(f"{name} is encrypted, or declares {plain} bytes")
        arrays[stem] = _array(_member(data, entry[-1], name_size, packed, plain, method), name, crc)
        numbers += arrays[stem].size
        if numbers > MOST_NUMBERS:
            raise ValueError(f"it holds more than {MOST_NUMBERS} numbers")
    return arrays


def _member(data: bytes, offset: int, name_size: int, packed: int, plain: int, method: int) -> bytes:
    local = _LOCAL.unpack_from(data, offset)
    start = offset + _LOCAL.size + local[-2] + local[-1]
    if local[0] != b"PK\3\4" or local[-2] != name_size or start + packed > len(data):
        raise ValueError("an entry lies outside the file")
    raw = data[start : start + packed]
    if method == _STORED:
        content = raw
    elif method == _DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, plain + 1)
    else:
        raise ValueError(f"compression method {method} is not read")
    if len(content) != plain:
        raise ValueError("an entry has another size than declared")
    return content


def _array(content: bytes, name: str, crc: int) -> NDArray[Any]:
    if zlib.crc32(content) != crc:
        raise ValueError(f"{name} fails its checksum")
    if content[:6] != b"\x93NUMPY" or len(content) < 12 or content[6] not in (1, 2):
        raise ValueError(f"{name} is no .npy array of version 1 or 2")
    size, start = (
        (struct.unpack_from("<H", content, 8)[0], 10)
        if content[6] == 1
        else (
            struct.unpack_from("<L", content, 8)[0],
            12,
        )
    )
    if size > 1024:
        raise ValueError(f"{name} has a header of {size} bytes")
    header = _NPY_HEADER.fullmatch(content[start : start + size].decode("latin1"))
    if not header or header[1][1:] not in _DTYPES:
        raise ValueError(f"{name} is not an array of bool, integer or float (pickled objects are never loaded)")
    dtype = np.dtype(header[1])
    shape = tuple(int(number.strip(" L")) for number in header[3].split(",") if number.strip())
    if len(shape) > _MOST_AXES or math.prod(shape) * dtype.itemsize != len(content) - start - size:
        raise ValueError(f"{name} declares the shape {shape} and holds something else")
    array = np.frombuffer(content, dtype, offset=start + size)
    return array.reshape(shape, order="F" if header[2] == "True" else "C")
