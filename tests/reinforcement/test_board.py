import sys
from types import SimpleNamespace

import pytest

from understudy.reinforcement.board import Board
from understudy.reinforcement.finetune import FinetuneLog
from understudy.reinforcement.judging import Verdict


@pytest.fixture
def written(monkeypatch):
    """What a stand-in for TensorBoard's writer was told, in order."""
    told = []

    class Writer:
        def __init__(self, folder):
            told.append(("folder", folder))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def flush(self):
            told.append("flush")

        def close(self):
            told.append("close")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    return told


def log(step, numbers, verdict=None):
    return FinetuneLog(0, step, 100, numbers, 0.0, None, verdict)


def test_it_copies_each_number_of_a_batch_and_none_that_is_not_there(written, tmp_path):
    board = Board(tmp_path / "events")
    board.show(log(40, {"success": 0.5, "value": None, "mean_return": -2.0}))
    board.show(log(80, {"success": 0.75}))
    board.show(log(80, {"success": 0.75}, Verdict("last", "mean", 2, (), 0)))
    board.close()
    assert written == [
        ("folder", str(tmp_path / "events")),
        ("success", 0.5, 40),
        ("mean_return", -2.0, 40),
        "flush",
        ("success", 0.75, 80),
        "flush",
        "close",
    ]


def test_a_run_that_told_nothing_leaves_no_folder(written, tmp_path):
    Board(tmp_path / "events").close()
    assert written == []
