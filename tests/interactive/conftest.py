import pytest

from understudy import durable
from understudy.interactive import risk


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is saved is tested here, and not whether a power cut undoes it."""
    monkeypatch.setattr(durable, "_os_fsync", lambda descriptor: None)


@pytest.fixture
def short_lessons(monkeypatch):
    """Classifiers of tasks as small as these learn in a tenth of the usual steps."""
    monkeypatch.setattr(risk, "_STEPS", 200)
