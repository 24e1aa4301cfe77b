"""X1: opening, reading, inspecting and importing data from anywhere runs no code and touches no file outside.

The ids of HOSTILE are the rows of docs/hostile_files.md.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import re
import resource
import struct
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dataset.arms import SPEC, human_episode

from tests.hostile_files import rows
from understudy.dataset import Dataset, diagnose, import_dataset
from understudy.dataset import index as lines
from understudy.dataset.archive import unpack
from understudy.dataset.index import Index
from understudy.errors import UnderstudyError

pytestmark = [pytest.mark.usefixtures("no_fsync"), pytest.mark.filterwarnings("ignore::UserWarning")]

HOSTILE = {}
EVENTS = []
WATCHING = [False]
FORBIDDEN = ("import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += (
    "pickle.find_class",
    "socket.connect",
    "ctypes.dlopen",
    "os.remove",
    "os.rename",
    "os.chmod",
    "shutil.rmtree",
)


def _reached(path, flags):
    """Where an open leads: a last link that is not followed leads nowhere."""
    if flags & os.O_NOFOLLOW:
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return os.path.realpath(path)


def audit(event, arguments):
    if WATCHING[0]:
        if event == "open" and not isinstance(arguments[0], int):  # a number is a file that is open already
            EVENTS.append((event, _reached(str(arguments[0]), arguments[2])))
        elif event != "open" and event.startswith(FORBIDDEN):
            EVENTS.append((event, str(arguments)[:200]))


sys.addaudithook(audit)  # it cannot be removed again; it looks only while WATCHING


def hostile(name):
    def register(function):
        HOSTILE[name] = function
        return function

    return register


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def made(path, count=2):
    rng = np.random.default_rng(0)
    with Dataset.create(path, SPEC) as dataset:
        for _ in range(count):
            dataset.append(human_episode(rng))
    return path


def bare(path, data):
    path.mkdir()
    (path / "a.npz").write_bytes(data)
    return path


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(header, body=b""):
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zipped(members, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def two_keys(header, body=b""):
    return zipped([("observations.npy", npy(header, body)), ("actions.npy", npy(header, body))])


def rewritten(path, change):
    """The index with one entry changed and every checksum made to fit."""
    index, written = Index.empty(SPEC), b""
    for line in (path / "episodes.jsonl").read_bytes().splitlines():
        body = {key: value for key, value in json.loads(line).items() if key != "~check"}
        line = index.line({**body, **change})
        index.check = line[-35:-3].decode()
        written += line
    (path / "episodes.jsonl").write_bytes(written)
    return path


def manifest(path, change):
    """The manifest with a change, and its checksum made to fit."""
    body = {**json.loads((path / "dataset.json").read_bytes()), **change}
    body.pop("check")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["check"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "dataset.json").write_text(json.dumps(body))
    return path


def raw_index(path, text):
    """An index of one line whose checksum fits."""
    index = Index.empty(SPEC)
    check = hashlib.sha256(index.check.encode() + text).hexdigest()[:32]
    (path / "episodes.jsonl").write_bytes(text[:-1] + b',"~check":"' + check.encode() + b'"}\n')
    return path


# --- code
@hostile("pickled objects in an .npz")
def _(path, canary):
    return bare(path / "d", archive(observations=np.array([[Canary(canary)]], object), actions=np.zeros((1, 1))))


@hostile("a pickle in the place of an .npz")
def _(path, canary):
    return bare(path / "d", pickle.dumps(Canary(canary)))


@hostile("a pickle of the DAPG kind that calls a function")
def _(path, canary):
    (path / "d.pickle").write_bytes(pickle.dumps([{"observations": Canary(canary)}]))
    return path / "d.pickle"


@hostile("an .npy header with code in it")
def _(path, canary):
    return bare(
        path / "d", two_keys(f"{{'descr': open({str(canary)!r},'w'), 'fortran_order': False, 'shape': (1,), }}\n")
    )


@hostile("an env id that names a module")
def _(path, canary):
    (path / "evil_module.py").write_text(f"open({str(canary)!r}, 'w')")
    spec = {**SPEC.to_json(), "env_id": "evil_module:World-v0"}
    folder = made(path / "d", 0)
    return manifest(folder, {"spec": spec})


# --- other files
@hostile("an index that names a file outside")
def _(path, canary):
    (path / "secret.npz").write_bytes(archive(observations=np.zeros((1, 1)), actions=np.zeros((1, 1))))
    return rewritten(made(path / "d", 1), {"file": "../../secret.npz"})


@hostile("an index with an id that is a path")
def _(path, canary):
    return rewritten(made(path / "d", 1), {"id": "../../secret"})


@hostile("an episode file that is a link to a file outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "episodes" / "000000.npz").rename(path / "secret.npz")
    (folder / "episodes" / "000000.npz").symlink_to(path / "secret.npz")
    return folder


@hostile("an episodes folder that is a link outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "episodes").rename(path / "secret")
    (folder / "episodes").symlink_to(path / "secret")
    return folder


@hostile("an index that is a link outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "episodes.jsonl").rename(path / "secret")
    (folder / "episodes.jsonl").symlink_to(path / "secret")
    return folder


@hostile("a manifest that is a link outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "dataset.json").rename(path / "secret")
    (folder / "dataset.json").symlink_to(path / "secret")
    return folder


@hostile("a bare folder with a link to a file outside")
def _(path, canary):
    (path / "secret.npz").write_bytes(archive(observations=np.zeros((1, 1)), actions=np.zeros((1, 1))))
    (path / "d").mkdir()
    (path / "d" / "a.npz").symlink_to(path / "secret.npz")
    return path / "d"


@hostile("archive entries with ../ in their names")
def _(path, canary):
    return bare(path / "d", zipped([("../observations.npy", npy("x")), ("/etc/actions.npy", npy("x"))]))


# --- size and time
@hostile("a zip bomb")
def _(path, canary):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 1), }\n"
    plain = npy(header) + bytes(200_000_000)
    return bare(path / "d", zipped([("observations.npy", plain)], compression=zipfile.ZIP_DEFLATED))


@hostile("a zip bomb that declares little")
def _(path, canary):
    data = bytearray(zipped([("observations.npy", bytes(100_000_000))], compression=zipfile.ZIP_DEFLATED))
    place = data.rfind(b"PK\1\2")
    data[place + 24 : place + 28] = struct.pack("<L", 1000)
    return bare(path / "d", bytes(data))


@hostile("a shape of terabytes")
def _(path, canary):
    return bare(path / "d", two_keys("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }\n"))


@hostile("a shape that multiplies to zero")
def _(path, canary):
    return bare(
        path / "d", two_keys("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999999999999, 0), }\n")
    )


@hostile("a negative shape")
def _(path, canary):
    return bare(path / "d", two_keys("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }\n", bytes(8)))


@hostile("small integers that grow in memory")
def _(path, canary):
    return bare(
        path / "d",
        zipped(
            [
                (
                    "observations.npy",
                    npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 60000), }\n", bytes(60_000_000)),
                ),
                ("actions.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1), }\n", bytes(1000))),
            ],
            compression=zipfile.ZIP_DEFLATED,
        ),
    )


@hostile("a sparse file of a terabyte")
def _(path, canary):
    folder = bare(path / "d", b"x")
    os.truncate(folder / "a.npz", 2**40)
    return folder


@hostile("sixty thousand archive entries")
def _(path, canary):
    return bare(path / "d", zipped([(f"a{index}.npy", b"") for index in range(60_000)]))


@hostile("an entry twice")
def _(path, canary):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bare(path / "d", zipped([("observations.npy", b"1"), ("observations.npy", b"2")]))


@hostile("entries that overlap, each as large as the file")
def _(path, canary):
    data = bytearray(zipped([(f"a{index:02d}.npy", bytes(1_000_000)) for index in range(60)]))
    first = struct.unpack_from("<L", data, len(data) - 6)[0]
    for match in re.finditer(b"PK\1\2", bytes(data)):
        struct.pack_into("<L", data, match.start() + 42, 0)
        struct.pack_into("<LL", data, match.start() + 20, first - 40, first - 40)
    return bare(path / "d", bytes(data))


@hostile("a pipe in the place of a file")
def _(path, canary):
    (path / "d").mkdir()
    os.mkfifo(path / "d" / "a.npz")
    return path / "d"


@hostile("a pipe in the place of an episode")
def _(path, canary):
    folder = made(path / "d")
    (folder / "episodes" / "000001.npz").unlink()
    os.mkfifo(folder / "episodes" / "000001.npz")
    return folder


@hostile("a pipe in the place of the index")
def _(path, canary):
    folder = made(path / "d")
    (folder / "episodes.jsonl").unlink()
    os.mkfifo(folder / "episodes.jsonl")
    return folder


@hostile("a folder in the place of a file")
def _(path, canary):
    (path / "d" / "a.npz").mkdir(parents=True)
    return path / "d"


@hostile("a folder in the place of the manifest")
def _(path, canary):
    folder = made(path / "d")
    (folder / "dataset.json").unlink()
    (folder / "dataset.json").mkdir()
    return folder


# --- numbers that are none
def of_dtype(array):
    return lambda path, canary: bare(path / "d", archive(observations=array, actions=np.zeros((2, 1))))


for dtype in ("complex128", "U4", "S4", "M8[s]", "m8[s]", "V8", "float128"):
    HOSTILE[f"an array of {dtype}"] = of_dtype(np.zeros((2, 1), dtype))
HOSTILE["a structured array"] = of_dtype(np.zeros((2, 1), [("a", "f4")]))
HOSTILE["a flag that is an array"] = lambda path, canary: bare(
    path / "d", archive(observations=np.zeros((2, 1)), actions=np.zeros((2, 1)), success=np.zeros(9, int))
)
HOSTILE["a success of 7"] = lambda path, canary: bare(
    path / "d", archive(observations=np.zeros((2, 1)), actions=np.zeros((2, 1)), success=np.array(7))
)
HOSTILE["no axes"] = of_dtype(np.zeros(()))
HOSTILE["nine axes"] = of_dtype(np.zeros((2, 1, 1, 1, 1, 1, 1, 1, 1)))


# --- JSON
def of_manifest(data):
    def write(path, canary):
        folder = made(path / "d")
        (folder / "dataset.json").write_bytes(data)
        return folder

    return write


HOSTILE["a manifest nested a million deep"] = of_manifest(b"[" * 1_000_000)
HOSTILE["a manifest of a hundred megabytes"] = of_manifest(b'{"a":"' + b"x" * 100_000_000 + b'"}')
HOSTILE["a manifest with NaN"] = of_manifest(b'{"format":"understudy-dataset","version":1,"edits":NaN}')
HOSTILE["a manifest with a key twice"] = of_manifest(b'{"format":"understudy-dataset","format":"x","version":1}')
HOSTILE["a manifest with a number of a million digits"] = of_manifest(b'{"version":' + b"9" * 1_000_000 + b"}")
HOSTILE["a manifest with 1e999"] = of_manifest(b'{"version":1e999}')
HOSTILE["a manifest that is a list"] = of_manifest(b"[]")
HOSTILE["a manifest that is no UTF-8"] = of_manifest(b'{"a":"\xff"}')


@hostile("a manifest whose spec is something else")
def _(path, canary):
    return manifest(made(path / "d"), {"spec": {"observations": 3}})


@hostile("a manifest with an escape sequence for the terminal")
def _(path, canary):
    return manifest(made(path / "d"), {"spec": {**SPEC.to_json(), "env_id": "\x1b]0;owned\x07"}})


@hostile("a manifest with a count that is text")
def _(path, canary):
    return manifest(made(path / "d"), {"edits": "1"})


@hostile("an index line nested a hundred thousand deep")
def _(path, canary):
    return raw_index(made(path / "d", 0), b'{"op":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@hostile("an index line with a key twice")
def _(path, canary):
    return raw_index(made(path / "d", 0), b'{"op":"undo","op":"add"}')


@hostile("an index line with an unknown operation")
def _(path, canary):
    return raw_index(made(path / "d", 0), b'{"op":"run"}')


@hostile("an index that drops what was never there")
def _(path, canary):
    return raw_index(made(path / "d", 0), b'{"ids":[5],"op":"drop"}')


@hostile("an index that undoes what was never done")
def _(path, canary):
    return raw_index(made(path / "d", 0), b'{"op":"undo"}')


def of_index(field, value):
    return lambda path, canary: rewritten(made(path / "d", 1), {field: value})


BAD_ROWS = {"length": -1, "success": 2, "sha256": "../x", "seed": 2**80, "partial": 1, "content": None}
for field, value in BAD_ROWS.items():
    HOSTILE[f"an index with a {field} of {value}"] = of_index(field, value)


@hostile("a lock file that is a link outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "writer.lock").unlink(missing_ok=True)
    (folder / "writer.lock").symlink_to(canary)
    return folder


@hostile("a journal that is a link outside")
def _(path, canary):
    folder = made(path / "d")
    (folder / "recording.journal").symlink_to("/etc/hostname")
    return folder


@hostile("a journal that is no journal")
def _(path, canary):
    folder = made(path / "d")
    (folder / "recording.journal").write_bytes(pickle.dumps(Canary(canary)))
    return folder


HARMLESS = {  # read without harm, and refused or mended when somebody writes
    "an env id that names a module",
    "an index that names a file outside",
    "a lock file that is a link outside",
    "a journal that is a link outside",
    "a journal that is no journal",
}


def use(target, out):
    """Everything that one can do with data from elsewhere."""
    dataset = Dataset.open(target) if target.is_dir() else import_dataset(target, out)
    for episode in dataset:
        episode.targets()
    return dataset


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_runs_nothing_and_reaches_nothing(tmp_path, name, monkeypatch):
    made(tmp_path / "warm")
    use(tmp_path / "warm", tmp_path / "w")  # what is imported on first use is imported now
    diagnose(tmp_path / "warm")
    monkeypatch.syspath_prepend(str(tmp_path))
    inside, canary = tmp_path / "case", tmp_path / "canary"
    inside.mkdir()
    target = HOSTILE[name](inside, canary)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    EVENTS.clear()
    start = time.process_time()
    WATCHING[0] = True
    try:
        message = None
        try:
            use(target, tmp_path / "out")
        except UnderstudyError as error:
            message = str(error)
        if target.is_dir():
            diagnosis = diagnose(target)
            assert (message is not None) == any(error.id != "few-episodes" for error in diagnosis.errors)
    finally:
        WATCHING[0] = False
    assert (message is not None) == (name not in HARMLESS)
    assert message is None or (message and "\n" not in message)
    assert time.process_time() - start < 4.0, "2 s for each of the two"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 512
    assert not canary.exists()
    assert "evil_module" not in sys.modules
    for event, argument in EVENTS:
        assert event == "open", (event, argument)
        assert argument.startswith((str(target), str(tmp_path / "out"), "/proc/")), argument


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_a_writer_of_a_hostile_folder_reaches_nothing_either(tmp_path, name):
    inside, canary = tmp_path / "case", tmp_path / "canary"
    inside.mkdir()
    target = HOSTILE[name](inside, canary)
    host = Path("/etc/hostname").read_bytes() if Path("/etc/hostname").exists() else None
    refused = pytest.raises(UnderstudyError) if "lock" in name else contextlib.nullcontext()
    with refused, Dataset.open(target) as dataset:
        dataset.append(human_episode(np.random.default_rng(5)))
        dataset.drop([dataset.rows[-1].id])
    assert not canary.exists()
    assert host is None or Path("/etc/hostname").read_bytes() == host


def test_twenty_thousand_mutated_archives_give_named_errors():
    data = archive(observations=np.arange(60.0).reshape(20, 3), actions=np.ones((20, 2), np.float32))
    draw, slowest = random.Random(0), 0.0
    structure = [*range(200), *range(len(data) - 300, len(data))]
    for _ in range(20_000):
        bad = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            bad[draw.choice(structure) % len(bad)] = draw.randrange(256)
        if draw.random() < 0.1:
            bad = bad[: draw.randrange(len(bad))]
        start = time.perf_counter()
        with contextlib.suppress(UnderstudyError):
            unpack(bytes(bad), what="it")
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 2.0


def test_mutated_indices_and_manifests_give_named_errors(tmp_path):
    folder = made(tmp_path / "a", 3)
    draw = random.Random(0)
    index, text = (folder / "episodes.jsonl").read_bytes(), (folder / "dataset.json").read_bytes()
    for _ in range(3_000):
        for data, read in ((index, lambda bad: Index.read(bad, SPEC)), (text, lines.read_manifest)):
            bad = bytearray(data)
            for _ in range(draw.randrange(1, 3)):
                bad[draw.randrange(len(bad))] = draw.randrange(256)
            try:
                read(bytes(bad))
            except UnderstudyError:
                continue


def test_the_table_of_the_docs_is_the_list_of_tests():
    assert rows("Datasets").keys() == HOSTILE.keys()
