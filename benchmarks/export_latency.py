"""One action from one observation, batch 1, by each way to run a policy, in turns of one run: p50 and p99.

Each call is timed twice: by the clock on the wall, and by the CPU time of the thread, in which other programs that take
the core in between do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from common import Results
from latency import new_policy
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

RUNS = {"one": 5, "default": 3}
TURNS, CALLS, WARM = 60, 100, 10

Run = Callable[[NDArray[np.float32]], Any]


def backends(policy: Any) -> dict[str, Run]:
    """Every way to run a policy, each a function of observations (1, 39)."""
    from understudy.execution import PolicyAgent
    from understudy.onnx_file import to_onnx
    from understudy.onnx_predictor import OnnxPredictor

    model = to_onnx(policy.to_file(), policy.arrays())
    exported = OnnxPredictor(policy.to_file(), model)
    agent = PolicyAgent(exported)
    agent.reset(0)
    whole, network = session(model), session(network_alone(policy))
    names = ["actions"]
    return {
        "numpy": policy.for_execution().predict,
        "onnxruntime, our predictor": exported.predict,
        "onnxruntime, our agent": lambda observations: agent.act(observations[0]),
        "onnxruntime, bare": lambda observations: whole.run(names, {"observations": observations})[0],
        "onnxruntime, bare network": lambda observations: network.run(names, {"observations": observations})[0],
        "torch": policy.predict,
    }


def session(model: bytes) -> Any:
    """A session as anybody would open it: one thread that does not spin, everything else by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def network_alone(policy: Any) -> bytes:
    """The layers of the network or of an ensemble's members and their mean: no scaling and no limits."""
    from understudy.onnx_messages import model, node, tensor, value

    arrays, nodes = policy.arrays(), []
    prefixes = sorted({name[: name.index("layers.")] for name in arrays})
    depth = len([name for name in arrays if name.startswith(f"{prefixes[0]}layers.")]) // 2
    for index, prefix in enumerate(prefixes):
        row = "observations"
        for layer in range(depth):
            weights = [f"{prefix}layers.{layer}.{part}" for part in ("weight", "bias")]
            result = f"{index}.{layer}"
            nodes.append(node("Gemm", [row, *weights], [result], transB=1))
            row = f"{result}.relu"
            if layer < depth - 1:
                nodes.append(node("Relu", [result], [row]))
    last = [f"{index}.{depth - 1}" for index in range(len(prefixes))]
    if len(last) == 1:
        nodes.append(node("Identity", last, ["actions"]))
    else:
        nodes.append(node("Concat", last, ["members"], axis=0))
        nodes.append(node("ReduceMean", ["members"], ["actions"], axes=[0], keepdims=1))
    tensors = [tensor(name, array) for name, array in arrays.items()]
    inputs, outputs = [value("observations", (1, 39))], [value("actions", (1, 28))]
    return model(name="network", nodes=nodes, tensors=tensors, inputs=inputs, outputs=outputs, metadata={})


def measure(policy: Any) -> dict[str, dict[str, float]]:
    """p50 and p99 of each backend, in turns of 100 calls, so that all of them meet the same disturbances."""
    runs = backends(policy)
    observations = np.random.default_rng(1).normal(size=(CALLS, 1, 39)).astype(np.float32)
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            taken = np.empty((CALLS, 2))
            for index in range(CALLS):
                cpu, wall = time.thread_time(), time.perf_counter()
                run(observations[index])
                taken[index] = time.perf_counter() - wall, time.thread_time() - cpu
            times[name].append(taken[WARM:])
    result = {}
    for name, turns in times.items():
        (wall, cpu), (wall_p99, cpu_p99) = np.percentile(np.concatenate(turns), [50, 99], axis=0) * 1e6
        measured = {"p50_us": wall, "p99_us": wall_p99, "cpu_p50_us": cpu, "cpu_p99_us": cpu_p99}
        result[name] = {key: round(float(value), 1) for key, value in measured.items()}
    return result


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number over the runs."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def main() -> None:
    import torch

    calls = TURNS * (CALLS - WARM)
    results = Results(
        "export_latency", calls=calls, turns=TURNS, runs=RUNS, seeds=[0], onnxruntime=version("onnxruntime")
    )
    torch.set_num_threads(1)
    summary: dict[str, Any] = {}
    with threadpool_limits(1):
        for name, runs in RUNS.items():
            found = [
                results.cell(f"{name}, run {run}", lambda name=name: measure(new_policy(name))) for run in range(runs)
            ]
            summary[name] = {backend: medians([run[backend] for run in found]) for backend in found[0]}
            pairs = [(run["onnxruntime, our predictor"], run["onnxruntime, bare"]) for run in found]
            ratios = [{key: ours[key] / bare[key] for key in ours} for ours, bare in pairs]
            summary[f"{name}_over_bare"] = medians(ratios)
            summary[f"{name}_over_bare_p99_each"] = [round(ratio["p99_us"], 3) for ratio in ratios]
    results.write(**summary)


if __name__ == "__main__":
    main()
