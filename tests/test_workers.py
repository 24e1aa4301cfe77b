import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_worlds import Fault

from understudy.errors import ConfigError, WorkerError
from understudy.workers import Pool

FAULTS = {
    "kill": r"\(pid \d+, 2\) died with exit code -9",
    "stop": r"\(pid \d+, 2\) hung: no sign of life for",
    "raise": r"\(pid \d+, 2\) raised ZeroDivisionError: the arm fell off",
    "exit": r"\(pid \d+, 2\) died with exit code 3",
}


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def inject(kind, **options):
    """Breaks a worker; gives the error, how long after the worker's last heartbeat it came, and who still runs."""
    with Pool(Fault(kind), 2, **options) as pool:
        pids = pool.pids
        with pytest.raises(WorkerError) as caught:
            list(pool.map(range(6)))
        silence_s = max(worker.silence_s() for worker in pool._workers)
    return caught.value, silence_s, [pid for pid in pids if is_running(pid)]


def test_results_come_in_the_order_of_the_jobs():
    with Pool(Fault(), 2) as pool:
        assert list(pool.map(range(7))) == [0, 1, 4, 9, 16, 25, 36]
        assert list(pool.map([9, 8])) == [81, 64], "workers take a second list"


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("_repetition", range(5))
def test_a_broken_worker_is_named_and_nothing_is_left_running(kind, _repetition):
    error, _, left = inject(kind, patience_s=1.0)
    with pytest.raises(WorkerError, match=rf"^worker [01] {FAULTS[kind]}"):
        raise error
    assert not left


def test_a_worker_stopped_in_the_middle_of_a_message_is_found():
    error, _, left = inject("stop in the middle of a message", patience_s=1.0)
    assert "hung" in str(error)
    assert not left


@pytest.mark.full
@pytest.mark.parametrize("repetition", range(500))
def test_a_broken_worker_is_found_within_5_s_of_its_last_heartbeat(repetition):
    kind = list(FAULTS)[repetition % len(FAULTS)]
    error, silence_s, left = inject(kind)
    with pytest.raises(WorkerError, match=FAULTS[kind]):
        raise error
    assert silence_s <= 5.0
    assert not left


def test_a_hung_worker_is_found_within_5_s_of_its_last_heartbeat():
    _, silence_s, _ = inject("stop")
    assert silence_s <= 5.0


@pytest.mark.parametrize(
    ("kind", "said"), [("raise", "raised ZeroDivisionError"), ("exit", "exit code 3"), ("stop", "hung")]
)
def test_a_worker_that_cannot_build_is_named(kind, said):
    with (
        Pool(Fault(kind, at="build"), 2, build_patience_s=2.0) as pool,
        pytest.raises(WorkerError, match=rf"^worker [01] \(pid \d+, building its world\) .*{said}"),
    ):
        list(pool.map(range(3)))


def test_the_traceback_of_a_worker_travels_with_its_error():
    error, _, _ = inject("raise")
    assert any("break_" in note for note in error.__notes__)


def test_what_cannot_be_pickled_is_refused_at_once():
    with pytest.raises(ConfigError, match="pickle"):
        Pool(Fault(kind=lambda: None), 2)


def test_a_list_that_is_left_early_leaves_nothing_running():
    with Pool(Fault(), 2) as pool:
        pids = pool.pids
        results = pool.map(range(100))
        assert next(results) == 0
        results.close()
    assert not any(map(is_running, pids))


def test_workers_end_when_their_parent_is_killed():
    script = (
        "import sys, time; from tiny_worlds import Fault; from understudy.workers import Pool\n"
        "if __name__ == '__main__':\n"
        "    pool = Pool(Fault(), 2); list(pool.map(range(4)))\n"
        "    print(*pool.pids, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    deadline_s = time.monotonic() + 5
    while any(map(is_running, pids)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def test_whoever_takes_the_results_may_take_their_time():
    """Workers that have nothing left to do while nobody listens are not hung."""
    with Pool(Fault(), 2, patience_s=0.5) as pool:
        taken = []
        for result in pool.map(list(range(12))):
            taken.append(result)
            if len(taken) in (1, 5):
                time.sleep(1.2)
    assert len(taken) == 12
