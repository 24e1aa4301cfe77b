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


def test_a_list_that_is_left_early_leaves_nothing_to_the_next_one():
    with Pool(Fault(), 2) as pool:
        left = pool.map(range(100))
        assert next(left) == 0
        left.close()
        assert list(pool.map([9, 8, 7, 6])) == [81, 64, 49, 36]


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


class Beats(Fault):
    """Each job lives for a second and says so ten times."""

    def __call__(self, job, beat):
        for _ in range(10):
            time.sleep(0.1)
            beat()
        return job


def test_a_command_that_was_stopped_and_goes_on_blames_no_worker():
    """Ctrl-Z and fg: everything stands still for longer than the patience with a worker."""
    with Pool(Beats(), 2, patience_s=1.0) as pool:
        results = pool.map(range(6))
        pids = pool.pids
        next(results)
        script = (
            "import os, signal, sys, time\n"
            "pids = [int(word) for word in sys.argv[1:]]\n"
            "time.sleep(0.3); [os.kill(pid, signal.SIGSTOP) for pid in pids]\n"
            "time.sleep(2.5); [os.kill(pid, signal.SIGCONT) for pid in pids]\n"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(os.getpid()), *map(str, pids)]):
            assert list(results) == [1, 2, 3, 4, 5]


# ---- workers that are replaced ----


class Once(Fault):
    """Breaks at the job `at` as long as there is no mark, which it leaves."""

    def __init__(self, kind, mark, at=2):
        super().__init__(kind, at)
        self.mark = mark

    def __call__(self, job, beat):
        if job == self.at and os.path.exists(self.mark):
            return job * job
        if job == self.at:
            open(self.mark, "w").close()
        return super().__call__(job, beat)


@pytest.mark.parametrize("kind", ["kill", "exit", "stop", "stop in the middle of a message"])
def test_a_broken_worker_is_replaced_and_nothing_is_lost(kind, tmp_path):
    told = []
    with Pool(Once(kind, str(tmp_path / "mark")), 2, patience_s=1.0, on_broken=told.append) as pool:
        before = pool.pids
        assert list(pool.map(range(8))) == [job * job for job in range(8)]
        assert len(told) == 1
        assert "died" in str(told[0]) or "hung" in str(told[0])
        assert str(told[0]).startswith("worker ")
        after = pool.pids
        assert len(set(before) & set(after)) == 1
        assert list(pool.map([9])) == [81]
        gone = set(before) - set(after)
    assert not any(map(is_running, [*gone, *after]))


def test_a_job_that_breaks_every_worker_is_named_in_the_end():
    told = []
    with (
        Pool(Fault("kill"), 2, on_broken=told.append) as pool,
        pytest.raises(WorkerError, match=r"\(pid \d+, 2\) died with exit code -9"),
    ):
        list(pool.map(range(6)))
    assert len(told) == 2, "the third one is raised"


def until_all_are_built(pool):
    """One worker may do all jobs while the other still builds, and one that dies then is not replaced."""
    until_s = time.monotonic() + 60
    while not all(worker.built for worker in pool._workers) and time.monotonic() < until_s:
        list(pool.map(range(4)))


def test_a_worker_that_dies_while_nobody_listens_is_replaced():
    told = []
    with Pool(Fault(), 2, on_broken=told.append) as pool:
        until_all_are_built(pool)
        until_s = time.monotonic() + 60
        os.kill(pool.pids[0], signal.SIGKILL)
        while not told and time.monotonic() < until_s:  # one worker may do all jobs before the other's death is known
            assert list(pool.map(range(6))) == [0, 1, 4, 9, 16, 25]
        assert list(pool.map(range(6))) == [0, 1, 4, 9, 16, 25]
    assert len(told) == 1


def test_an_error_of_the_job_itself_replaces_nobody():
    told = []
    with Pool(Fault("raise"), 2, on_broken=told.append) as pool, pytest.raises(WorkerError, match="ZeroDivisionError"):
        list(pool.map(range(6)))
    assert not told


def test_a_worker_that_cannot_build_is_not_replaced():
    told = []
    with (
        Pool(Fault("exit", at="build"), 2, on_broken=told.append) as pool,
        pytest.raises(WorkerError, match=r"building its world.* exit code 3; .* under `if __name__ == \"__main__\":`"),
    ):
        list(pool.map(range(3)))
    assert not told


class Multiplies(Fault):
    """Answers its job times what it was told last, with a thousand numbers that it was told beside it."""

    def hear(self, news):
        self.factor, self.many = news

    def __call__(self, job, beat):
        return super().__call__(job, beat) * 0 + job * self.factor * len(self.many)


def test_every_worker_hears_the_news_before_the_jobs_that_follow(tmp_path):
    """Also one that takes another's place, and whatever the size of the news."""
    with Pool(Multiplies(), 2, on_broken=lambda error: None) as pool:
        for factor in (1, 2, 3):
            pool.tell((factor, [factor] * 100_000))
            if factor == 3:
                until_all_are_built(pool)
                os.kill(pool.pids[1], signal.SIGKILL)
            assert list(pool.map(range(5))) == [job * factor * 100_000 for job in range(5)]


class Closes(Fault):
    """Leaves a file where it was closed."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def close(self):
        (self.folder / str(os.getpid())).touch()


def test_every_world_is_closed_at_an_orderly_end(tmp_path):
    with Pool(Closes(tmp_path), 2) as pool:
        list(pool.map(range(4)))
        until_all_are_built(pool)
        pids = pool.pids
    assert {path.name for path in tmp_path.iterdir()} == {str(pid) for pid in pids}


class Heavy:
    """Takes longer to arrive than a worker may be silent."""

    def __setstate__(self, state):
        time.sleep(2.0)


def test_news_that_take_long_to_arrive_are_no_silence():
    heavy = Heavy()
    heavy.weight = 1  # without a state, nothing would be set
    with Pool(Fault(), 2, patience_s=1.0) as pool:
        until_all_are_built(pool)
        pool.tell(heavy)
        assert list(pool.map(range(4))) == [0, 1, 4, 9]


class Forks(Fault):
    """Has a child that keeps the pipe open, and is killed at its seventh job."""

    def __call__(self, job, beat):
        if job == 7:
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(job, beat)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see what a process ignores")
def test_ctrl_c_is_kept_from_a_worker_before_it_has_imported_anything():
    def signals(pid):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        masks = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line[:4] in ("SigB", "SigI")}
        return {name: bool(masks[name] & 1 << signal.SIGINT - 1) for name in ("SigBlk", "SigIgn")}

    before = signals(os.getpid())
    with Pool(Fault(), 1) as pool:
        young = signals(pool.pids[0])
        assert young["SigBlk"] or young["SigIgn"]
        until_all_are_built(pool)
        assert signals(pool.pids[0]) == {"SigBlk": False, "SigIgn": True}
    assert signals(os.getpid()) == before


def test_a_death_is_found_though_a_child_holds_the_pipe_open():
    with Pool(Forks(), 1) as pool:
        until_all_are_built(pool)
        began_s = time.monotonic()
        with pytest.raises(WorkerError, match="died with exit code -9"):
            list(pool.map(range(6, 9)))
        assert time.monotonic() - began_s < 4
