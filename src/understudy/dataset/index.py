"""`episodes.jsonl`: what happened to a dataset, one checksummed line after the other.

Each line ends with a checksum over itself and the checksum of the line before, the first one over the spec. So a
flipped bit, a line that is missing, moved or taken from elsewhere is noticed, and a last line that was torn by a crash
is told from one that was damaged later: nobody was told that it is saved.

    {"op":"add", "id":7, "length":200, ...}     an episode file is there
    {"op":"drop", "ids":[3]}                    these are left out from now on
    {"op":"merged", "group":12}                 the adds of this group count from now on
    {"op":"undo"}                               the last add, drop or merge does not count
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from understudy.dataset import strict_json
from understudy.episode import FAILURE, SUCCESS, UNKNOWN
from understudy.errors import CorruptEpisode, DataError
from understudy.spec import Spec

FORMAT, VERSION = "understudy-dataset", 1
MANIFEST, INDEX = "dataset.json", "episodes.jsonl"
LARGEST_MANIFEST = 8 * 2**20
LARGEST_INDEX = 256 * 2**20
_LARGEST_LINE = 64 * 2**20
_ROOM, _DIGITS = 1024, 19  # bytes of a line that adds an episode, and more; digits of an id
_CHECK = re.compile(rb',"~check":"([0-9a-f]{32})"\}')
_CHECK_SIZE = len(b',"~check":""}') + 32
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of one episode.

    Args:
        id: number of the episode; it never changes and is never used again.
        length: T, its steps.
        success: SUCCESS, FAILURE or UNKNOWN.
        partial: whether its recording was interrupted.
        sha256: checksum of the file, verified whenever it is read.
        file: path of the file inside the dataset folder.
        seed: seed of its start; -1 where unknown.
        content: checksum of all arrays but the measured times.
    """

    id: int
    length: int
    success: int
    partial: bool
    sha256: str
    file: str
    seed: int
    content: str


@dataclass(frozen=True, slots=True)
class _Operation:
    """One add, drop or merge that may be undone."""

    kind: str
    ids: tuple[int, ...]


@dataclass(slots=True)
class Index:
    """The state that the lines of an index add up to.

    Args:
        check: checksum of the last line.
        known: every row ever added, by id.
        stack: what counts, oldest first.
        edits: number of lines that are no adds.
        size: bytes of the index that are whole lines.
        group: the merge that has begun and has not ended, or None.
        pending: ids added by that merge.
        present: ids that count.
        last_alone: the last id that was added by itself, not by a merge; -1 where there is none.
    """

    check: str
    known: dict[int, Row] = field(default_factory=dict)
    stack: list[_Operation] = field(default_factory=list)
    edits: int = 0
    size: int = 0
    group: int | None = None
    pending: list[int] = field(default_factory=list)
    present: set[int] = field(default_factory=set)
    last_alone: int = -1
    _live: tuple[Row, ...] | None = None

    @classmethod
    def empty(cls, spec: Spec) -> Index:
        """The index of a dataset without episodes."""
        return cls(hashlib.sha256(_text(spec)).hexdigest()[:32])

    @classmethod
    def read(cls, data: bytes, spec: Spec) -> tuple[Index, bool]:
        """The state after all whole lines of `data`, and whether a torn line follows them.

        Raises:
            CorruptEpisode: a line before the last is damaged, missing or out of order.
        """
        index, start, number = cls.empty(spec), 0, 1
        while (end := data.find(b"\n", start)) >= 0:
            line, where = data[start:end], f"line {number} of {INDEX}"
            if len(line) > index._longest_line():
                raise CorruptEpisode(
                    f"{where} has {len(line)} bytes, more than any line there needs; restore the file from a copy"
                )
            body = index._verified(line)
            if body is None:
                if end + 1 == len(data):
                    return index, True
                raise CorruptEpisode(
                    f"{where} is damaged, missing or out of order; restore the file from a copy (the episode files "
                    "themselves open as a bare folder: episodes/)"
                )
            index._take(body, line, where)
            start, number = end + 1, number + 1
        return index, start < len(data)

    @property
    def next_id(self) -> int:
        """The id of the next episode."""
        return len(self.known)  # ids have no gaps

    def live(self) -> tuple[Row, ...]:
        """The rows that count, in the order in which they were added."""
        if self._live is not None:
            return self._live
        self._live = tuple(self.known[number] for number in sorted(self.present))
        return self._live

    def line(self, body: dict[str, Any]) -> bytes:
        """The line that would follow for `body`, newline included."""
        text = strict_json.dumps(body).encode()
        return text[:-1] + b',"~check":"' + _checksum(self.check, text).encode() + b'"}\n'

    def require(self, body: dict[str, Any]) -> bytes:
        """The line that would follow for `body`, newline included, which need not be on the disk.

        Raises:
            DataError: no reader would take it there.
        """
        line = self.line(body)
        if self.size + len(line) > LARGEST_INDEX:
            raise DataError(f"{INDEX} would grow over {LARGEST_INDEX} bytes, and no more are read; begin a new dataset")
        self._meaning(body, "the new line")
        return line

    def accept(self, line: bytes) -> None:
        """Takes over a line that `line` made and that is now durable."""
        body = self._verified(line[:-1])
        assert body is not None, "the line was made for another state"
        self._take(body, line[:-1], "the new line")

    def _longest_line(self) -> int:
        """Bytes of the longest line that may come next: it drops every episode, or adds one."""
        return min(_LARGEST_LINE, _ROOM + (_DIGITS + 1) * len(self.known))

    def _take(self, body: dict[str, Any], line: bytes, where: str) -> None:
        self._apply(body, where)
        self.check = line[-34:-2].decode()
        self.size += len(line) + 1

    def _verified(self, line: bytes) -> dict[str, Any] | None:
        match = _CHECK.fullmatch(line, max(0, len(line) - _CHECK_SIZE))
        if not match or len(line) > self._longest_line():
            return None
        text = line[:-_CHECK_SIZE] + b"}"
        if _checksum(self.check, text) != match[1].decode():
            return None
        body = strict_json.loads(text, what="a line of episodes.jsonl", largest=_LARGEST_LINE)
        return body if isinstance(body, dict) else None

    def _apply(self, body: dict[str, Any], where: str) -> None:
        meaning = self._meaning(body, where)
        self._live = None
        if isinstance(meaning, Row):
            self._add(meaning, body.get("group"))
            return
        self.edits += 1
        if body["op"] == "undo":
            self.stack.pop()
        else:
            self.stack.append(meaning)
        if (meaning.kind == "drop") == (body["op"] == "undo"):
            self.present.update(meaning.ids)
        else:
            self.present.difference_update(meaning.ids)
        if body["op"] == "merged":
            self.group, self.pending = None, []

    def _meaning(self, body: dict[str, Any], where: str) -> Row | _Operation:
        """The episode that a line adds, or the operation that it does or takes back; nothing is changed.

        Raises:
            CorruptEpisode: it means nothing there.
        """
        kind, group = body.get("op"), body.get("group")
        if kind == "add":
            row = _row(body, where)
            if row.id != self.next_id:
                raise CorruptEpisode(f"{where} adds episode {row.id} where {self.next_id} was due")
            if group is not None and not (_is_count(group) and group in (self.group, row.id)):
                raise CorruptEpisode(f"{where} belongs to a merge that never began")
            return row
        if kind == "drop":
            return self._dropped(body.get("ids"), where)
        if kind == "merged" and self.group is not None and group == self.group:
            return _Operation("merge", tuple(self.pending))
        if kind == "undo" and self.stack:
            return self.stack[-1]
        raise CorruptEpisode(f"{where} says {str(kind)[:40]!r}, which means nothing there")

    def _dropped(self, ids: Any, where: str) -> _Operation:
        if not isinstance(ids, list) or not all(_is_count(number) and number in self.known for number in ids):
            raise CorruptEpisode(f"{where} drops episodes that were never added")
        if len(set(ids)) != len(ids) or not self.present.issuperset(ids):
            raise CorruptEpisode(f"{where} drops an episode twice, or one that does not count")
        return _Operation("drop", tuple(ids))

    def _add(self, row: Row, group: int | None) -> None:
        self.known[row.id] = row
        if group is None:
            self.group, self.pending, self.last_alone = None, [], row.id
            self.stack.append(_Operation("add", (row.id,)))
            self.present.add(row.id)
            return
        # A merge is named after its first episode; one that never ended stays without effect.
        if group != self.group:
            self.group, self.pending = group, []
        self.pending.append(row.id)


def add_body(row: Row, group: int | None) -> dict[str, Any]:
    """The index entry that adds an episode, as part of a merge where `group` is given."""
    body: dict[str, Any] = {
        "op": "add",
        "id": row.id,
        "length": row.length,
        "success": row.success,
        "partial": row.partial,
        "sha256": row.sha256,
        "seed": row.seed,
        "content": row.content,
    }
    return body if group is None else {**body, "group": group}


def file_name(number: int) -> str:
    """The path of an episode inside the dataset folder; it is never read from the index."""
    return f"episodes/{number:06d}.npz"


def fingerprint(spec: Spec, rows: Iterable[Row]) -> str:
    """Sha256 over a spec and the content of episodes in their order."""
    digest = hashlib.sha256(_text(spec))
    for row in rows:
        digest.update(row.content.encode())
    return digest.hexdigest()


def _text(spec: Spec) -> bytes:
    """The one text of a spec: a limit given as 1 and one given as 1.0 are the same."""
    return strict_json.dumps(Spec.from_json(spec.to_json()).to_json()).encode()


def _checksum(before: str, text: bytes) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()[:32]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _row(body: dict[str, Any], where: str) -> Row:
    number, length, seed = body.get("id"), body.get("length"), body.get("seed")
    hashes = (body.get("sha256"), body.get("content"))
    if (
        not isinstance(number, int)
        or not isinstance(length, int)
        or not isinstance(seed, int)
        or not (_is_count(number) and _is_count(length) and length and -1 <= seed < 2**63)
        or body.get("success") not in (SUCCESS, FAILURE, UNKNOWN)
        or not isinstance(body.get("partial"), bool)
        or not all(isinstance(value, str) and _HEX.fullmatch(value) for value in hashes)
    ):
        raise CorruptEpisode(f"{where} does not describe an episode")
    return Row(
        number, length, int(body["success"]), body["partial"], body["sha256"], file_name(number), seed, body["content"]
    )


def manifest_bytes(spec: Spec, edits: int) -> bytes:
    """The content of `dataset.json`."""
    body = {"format": FORMAT, "version": VERSION, "edits": edits, "spec": spec.to_json()}
    body["check"] = hashlib.sha256(strict_json.dumps(body).encode()).hexdigest()
    return (strict_json.dumps(body) + "\n").encode()


def read_manifest(data: bytes) -> tuple[Spec, int]:
    """The spec and the number of edits that `dataset.json` states.

    Raises:
        DataError: it is no manifest, is damaged, or of a version that this release does not read.
    """
    body = strict_json.loads(data, what=MANIFEST, largest=LARGEST_MANIFEST)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise DataError(f"{MANIFEST} is no manifest of an Understudy dataset")
    if body.get("version") != VERSION:
        raise DataError(
            f"{MANIFEST} has format version {str(body.get('version'))[:20]}; this release reads {VERSION}: update "
            "understudy"
        )
    check = body.pop("check", None)
    if check != hashlib.sha256(strict_json.dumps(body).encode()).hexdigest():
        raise CorruptEpisode(f"{MANIFEST} is damaged (its checksum differs); restore it from a copy")
    spec = Spec.from_json(body.get("spec"))
    texts = [
        spec.env_id,
        *(text for channel in (*spec.observations, *spec.actions) for text in (channel.name, channel.unit)),
    ]
    if not all(text.isprintable() and len(text) <= 200 for text in texts):
        raise DataError(f"{MANIFEST} names a channel with control characters, or with more than 200")
    edits = body.get("edits")
    if not isinstance(edits, int) or not _is_count(edits):
        raise DataError(f"{MANIFEST} has no count of edits")
    return spec, edits
