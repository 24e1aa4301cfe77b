import warnings

import pytest

from understudy import durable
from understudy.dataset import DatasetWarning


@pytest.fixture
def no_fsync(monkeypatch):
    """For tests of what is saved, not of when: fsync costs 5 ms a call on a laptop's disk."""
    monkeypatch.setattr(durable, "_os_fsync", lambda descriptor: None)


@pytest.fixture
def quiet():
    """For tests that open what a crash left, again and again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        yield
