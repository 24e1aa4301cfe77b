import pytest

from understudy import durable
from understudy.trainer import torch_threads


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is saved is tested here, and not whether a power cut undoes it."""
    monkeypatch.setattr(durable, "_os_fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def one_thread():
    """As every run does: networks as small as these take ten times as long with two."""
    with torch_threads(1):
        yield
