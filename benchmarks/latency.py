"""One action from one observation, batch 1, without torch in the process: p50 and p99, idle and with busy cores."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Results
from threadpoolctl import threadpool_limits

CALLS = 20_000


def save_policies(folder: Path) -> None:
    """Random weights cost what trained ones cost; run in a child, since it needs torch."""
    from understudy import save

    for name in ("one", "default"):
        save(new_policy(name), folder / name)


def new_policy(name: str) -> Any:
    """`one` network 39 -> 3 x 256 -> 28, or the `default` ensemble for as many channels."""
    from understudy import Ensemble, FeedForward, FeedForwardConfig, Spec
    from understudy.policies.ensemble import MEMBERS
    from understudy.statistics import ChannelStatistics

    rng = np.random.default_rng(0)
    spec = Spec.unnamed(39, 28)
    one = FeedForward(spec, FeedForwardConfig(hidden=(256, 256, 256))).initialized(0)
    policy = one if name == "one" else Ensemble.of(FeedForward(spec), MEMBERS)
    policy.fit_scaling(*[ChannelStatistics.of([rng.normal(size=(100, size)).astype(np.float32)]) for size in (39, 28)])
    return policy


def measure(folder: Path) -> dict[str, float]:
    from understudy.execution import PolicyAgent
    from understudy.loading import load_predictor

    assert "torch" not in sys.modules
    agent = PolicyAgent(load_predictor(folder))
    agent.reset(0)
    observations = np.random.default_rng(1).normal(size=(CALLS, 39)).astype(np.float32)
    times = np.empty(CALLS)
    with threadpool_limits(1, "blas"):
        for index in range(CALLS):
            began = time.perf_counter()
            agent.act(observations[index])
            times[index] = time.perf_counter() - began
    p50, p99 = np.percentile(times[1000:], [50, 99]) * 1e6
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}


def main() -> None:
    import tempfile

    results = Results("latency", calls=CALLS, seeds=[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--save", name], check=True)
        summary = {}
        for policy in ("one", "default"):
            summary[f"{policy}_idle"] = results.cell(f"{policy}, idle", lambda p=policy: measure(folder / p))
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
            try:
                summary[f"{policy}_both_cores_busy"] = results.cell(
                    f"{policy}, both cores busy", lambda p=policy: measure(folder / p)
                )
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
    results.write(**summary)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--save"]:
        save_policies(Path(sys.argv[2]))
    else:
        main()
