"""D5: corruption is noticed and never trained on: flips, cuts, swaps, missing files, edits of the index."""

import json
import random
import shutil

import numpy as np
import pytest
from dataset.arms import SPEC, human_episode

from understudy.dataset import Dataset, DatasetWarning
from understudy.dataset.index import Index
from understudy.episode import COLUMNS
from understudy.errors import CorruptEpisode, DataError

pytestmark = pytest.mark.usefixtures("no_fsync")


def made(path):
    rng = np.random.default_rng(0)
    with Dataset.create(path, SPEC) as dataset:
        for _ in range(4):
            dataset.append(human_episode(rng))
        dataset.drop([1])
        dataset.drop([2])
        dataset.undo()
    return dataset


def content(dataset):
    """Everything that training could see."""
    episodes = [
        [getattr(episode, name).tobytes() for name in COLUMNS]
        + [episode.success, episode.partial, episode.seed, episode.terminated, episode.truncated]
        for episode in dataset
    ]
    return dataset.spec, episodes, dataset.fingerprint, dataset.rows


def write(path, data):
    path.unlink(missing_ok=True)  # truncating a file in place makes ext4 wait for the disk
    path.write_bytes(data)


def damage(draw, path):
    """Damages one file, or swaps two; says what it did."""
    files = sorted((path / "episodes").iterdir())
    victim = draw.choice([path / "dataset.json", path / "episodes.jsonl", path / "episodes.jsonl", *files])
    kind = draw.choice(["flip", "flip", "flip", "cut", "cut", "swap", "remove", "double line", "lose line", "grow"])
    data = bytearray(victim.read_bytes())
    if kind == "flip":
        place = draw.randrange(len(data))
        data[place] ^= 1 << draw.randrange(8)
        write(victim, data)
        return f"{victim.name}: flip at {place}"
    if kind == "cut":
        size = draw.randrange(len(data))
        write(victim, data[:size])
        return f"{victim.name}: cut to {size}"
    if kind == "grow":
        write(victim, data + bytes(draw.randrange(256) for _ in range(8)))
        return f"{victim.name}: grown"
    if kind == "swap":
        one, two = draw.sample(files, 2)
        one.rename(path / "x")
        two.rename(one)
        (path / "x").rename(two)
        return f"{one.name} and {two.name} swapped"
    if kind == "remove":
        victim.unlink()
        return f"{victim.name}: removed"
    index = path / "episodes.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place : place + 1] = [lines[place]] * 2 if kind == "double line" else []
    write(index, b"".join(lines))
    return f"{kind} {place}"


def notice(path, expected):
    """Opens and reads a damaged dataset; gives whether the damage was noticed, or changed nothing."""
    with pytest.MonkeyPatch.context() as patch:
        warned = []
        patch.setattr("understudy.dataset.folder.warnings.warn", lambda message, kind, stacklevel: warned.append(kind))
        try:
            found = content(Dataset.open(path))
        except DataError:
            return True
        return DatasetWarning in warned or found == expected


def noticed(tmp_path, trials, seed=0):
    made(tmp_path / "good")
    expected = content(Dataset.open(tmp_path / "good"))
    files = {file.relative_to(tmp_path / "good"): file.read_bytes() for file in (tmp_path / "good").rglob("*.*")}
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    draw, path = random.Random(seed), tmp_path / "bad"
    silent = []
    for trial in range(trials):
        for name, data in files.items():
            if not (path / name).exists() or (path / name).read_bytes() != data:
                write(path / name, data)
        did = damage(draw, path)
        if not notice(path, expected):
            silent.append(f"trial {trial}: {did}")
    return silent


def test_a_thousand_damages_are_noticed(tmp_path):
    assert noticed(tmp_path, 1000) == []


@pytest.mark.full
def test_ten_thousand_damages_are_noticed(tmp_path):
    assert noticed(tmp_path, 10_000, seed=1) == []


def test_a_missing_episode_is_named_and_the_others_stay_readable(tmp_path):
    path = made(tmp_path / "a").path
    (path / "episodes" / "000002.npz").unlink()
    dataset = Dataset.open(path)
    assert [row.id for row in dataset.rows] == [0, 2, 3]
    with pytest.raises(CorruptEpisode, match=r"000002\.npz cannot be read"):
        dataset[1]
    assert len(dataset[2]) == dataset.rows[2].length
    with dataset:
        dataset.drop([2])
    assert len(list(Dataset.open(path))) == 2


def test_the_checksum_of_a_file_is_verified_at_each_read(tmp_path):
    dataset = made(tmp_path / "a")
    dataset[0]
    file = dataset.path / dataset.rows[0].file
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptEpisode, match=r"episode 0 .* is not what was saved"):
        dataset[0]


def test_an_index_that_was_rewritten_with_valid_checksums_does_not_deceive(tmp_path):
    """Somebody changes what the index says of an episode, and makes all its checksums fit again."""
    path = made(tmp_path / "a").path
    lines = [json.loads(line) for line in (path / "episodes.jsonl").read_bytes().splitlines()]
    for change in ({"success": 0}, {"length": 7}, {"seed": 1}, {"partial": True}):
        index, written = Index.empty(SPEC), b""
        for number, body in enumerate(lines):
            body = {key: value for key, value in body.items() if key != "~check"} | (change if number == 3 else {})
            line = index.line(body)
            index.accept(line)
            written += line
        (path / "episodes.jsonl").write_bytes(written)
        with pytest.raises(CorruptEpisode, match="index was changed"):
            list(Dataset.open(path).include_partial())


def test_a_torn_last_line_is_cut_by_the_next_writer(tmp_path):
    path = made(tmp_path / "a").path
    before = [row.id for row in Dataset.open(path).rows]
    with open(path / "episodes.jsonl", "ab") as file:
        file.write(b'{"op":"add","id":4,"leng')
    assert [row.id for row in Dataset.open(path).rows] == before
    with Dataset.open(path) as dataset:
        dataset.append(dataset[0])
    assert [row.id for row in Dataset.open(path).rows] == [*before, 4]


def test_an_episode_whose_index_line_was_torn_is_taken_up(tmp_path):
    path = made(tmp_path / "a").path
    with Dataset.open(path) as dataset:
        row = dataset.append(dataset[0])
    data = (path / "episodes.jsonl").read_bytes()
    (path / "episodes.jsonl").write_bytes(data[:-20])
    with pytest.warns(DatasetWarning, match="interrupted before it was acknowledged"):
        dataset = Dataset.open(path)
    with dataset, pytest.warns(DatasetWarning, match="was taken up"):
        dataset.writer().begin()
    assert dataset.rows[-1] == row


def test_a_create_that_was_killed_can_be_repeated_and_an_older_format_is_named(tmp_path):
    path = tmp_path / "a"
    Dataset.create(path, SPEC)
    (path / "dataset.json").unlink()
    with pytest.raises(DataError, match="lost its"):
        Dataset.open(path)
    Dataset.create(path, SPEC)
    text = (path / "dataset.json").read_text()
    (path / "dataset.json").write_text(text.replace('"version":1', '"version":2'))
    with pytest.raises(DataError, match="format version 2; this release reads 1"):
        Dataset.open(path)
