"""A policy as one ONNX file: a fixed graph, the policy's own weights, and its `policy.json` as metadata.

The file says how to compute the action, in physical units on both sides: scaling, the cut of the inputs, the networks,
the mean of an ensemble, the action limits. Whatever runs ONNX can run it; Understudy's own reader believes none of it.
It takes `policy.json` and the weights, builds the file anew from them, and refuses the one that was read if a single
byte differs. So only graphs that this module wrote ever reach the runtime.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from understudy.errors import PolicyError
from understudy.inference import networks
from understudy.network_shape import (
    MIXTURE_COMPONENTS,
    FeedForwardConfig,
    input_size,
    last_layer_size,
    relative_pairs,
    seen_channels,
    skip_layers,
)
from understudy.onnx_messages import contents, model, node, tensor, value
from understudy.policy_file import PolicyFile, description_of, parse_description, read_plain, require_array, weights_of

SUFFIX = ".onnx"
OBSERVATIONS, ACTIONS, MEMBERS = "observations", "actions", "members"
_DESCRIPTION, _CHECK, _GRAPH = "policy.json", "sha256", "understudy_graph"
_GRAPH_VERSION = b"1"
_CONSTANT = "constant."
_LARGEST_FILE = 2**30
_ADVICE = "an exported policy is one file; make it with `understudy export`"


def to_onnx(file: PolicyFile, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The ONNX file of a policy; equal policies give equal bytes.

    Its input is `observations (history, D)`, newest last; its outputs are `actions (H, A)` within the action limits
    and `members (members, H * A)`, what each network of an ensemble says before the limits.

    Raises:
        PolicyError: the policy is of a kind that has no graph, its weights do not fit it, or it is too large.
    """
    data = _built(description_of(file, weights_of(arrays)), file, arrays)
    if len(data) > _LARGEST_FILE:
        raise PolicyError(
            f"the policy has {len(data)} bytes as ONNX; at most {_LARGEST_FILE} are read; train a smaller"
        )
    return data


def read_onnx(path: Path | str) -> tuple[PolicyFile, dict[str, NDArray[np.float32]], bytes]:
    """What an exported policy holds, checked: the description, its arrays by name, and the file to run.

    Raises:
        PolicyError: the file is missing, damaged, of a later format, or not what Understudy exports for the policy
            that it carries.
    """
    data = read_plain(Path(path), _LARGEST_FILE, _ADVICE)
    metadata, tensors = contents(data, what=str(path))
    if _DESCRIPTION not in metadata:
        raise PolicyError(f"{path} carries no policy.json, so Understudy did not export it; {_ADVICE}")
    if metadata.get(_GRAPH) != _GRAPH_VERSION:
        raise PolicyError(f"{path} has a graph of another version than {_GRAPH_VERSION.decode()}; update Understudy")
    text = metadata[_DESCRIPTION]
    arrays = {name: array for name, array in tensors.items() if not name.startswith(_CONSTANT)}
    if metadata.get(_CHECK) != checksum(text, arrays):
        raise PolicyError(f"{path} is damaged: its checksum is not that of its policy.json and weights; copy it anew")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise PolicyError(f"{path}: array {name[:80]!r} must hold finite numbers")
    file = parse_description(text, what=f"the policy.json in {path}")
    if _built(text, file, arrays) != data:
        raise PolicyError(f"{path} is not what Understudy exports for the policy that it carries; export it anew")
    return file, arrays, data


def is_onnx(path: Path | str) -> bool:
    """Whether a path means an exported policy: anything but a folder, called `.onnx`."""
    return Path(path).suffix == SUFFIX and not Path(path).is_dir()


def checksum(text: bytes, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """What an exported policy says of its own policy.json and weights, as hexadecimal text."""
    digest = hashlib.sha256(text)
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).astype("<f4", copy=False).data)
    return digest.hexdigest().encode()


def _built(text: bytes, file: PolicyFile, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    if file.acts == "sampled":
        raise PolicyError(
            "this policy acts by sampling, and an exported file answers with its mean; where that is good enough, "
            "export the mean (--mean; in Python, set policy.acts = 'mean')"
        )
    config, members = networks(file, arrays)
    graph = _Graph({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
    observed, acted = file.statistics
    # (history, D): scaled, cut to +- input_limit, differences beside it, and laid out in one row
    centred = graph.add("Sub", OBSERVATIONS, graph.constant("center", observed.mean))
    inverse = np.divide(seen_channels(config, file.spec), observed.scale, dtype=np.float32)
    scaled = graph.add("Mul", centred, graph.constant("inverse_scale", inverse))
    limit = np.array(config.input_limit, np.float32)
    lowest, highest = graph.constant("input_low", -limit), graph.constant("input_high", limit)
    row = graph.add("Clip", scaled, lowest, highest)
    pairs = relative_pairs(config, file.spec)
    if len(pairs):
        one, other = (
            graph.add("Gather", OBSERVATIONS, graph.constant(name, np.array(side, np.int64)), axis=1)
            for name, side in zip(("one", "other"), pairs.T, strict=True)
        )
        nearness = graph.constant("nearness", np.array(1 / config.near, np.float32))
        apart = graph.add("Asinh", graph.add("Mul", graph.add("Sub", one, other), nearness))
        half = graph.constant("half", np.array(0.5, np.float32))
        row = graph.add("Concat", row, graph.add("Mul", apart, half), axis=1)
    inputs = input_size(config, file.spec)
    if config.history > 1:
        row = graph.reshaped(row, "row", 1, inputs)
    # each network: (1, history * D) -> (1, H * A); all: (members, H * A), then back to physical units
    prefixes = [""] if file.kind == "feedforward" else [f"members.{index}." for index in range(len(members))]
    numbers = config.horizon * len(file.spec.actions)
    answers = [_network(graph, row, config, prefix, inputs, numbers) for prefix in prefixes]
    answer = answers[0] if len(answers) == 1 else graph.add("Concat", *answers, axis=0)
    if config.head == "mixture":
        answer = _likeliest(graph, answer, len(answers), numbers)
    answer = graph.add("Mul", answer, graph.constant("action_scale", np.tile(acted.scale, config.horizon)))
    graph.add("Add", answer, graph.constant("action_center", np.tile(acted.mean, config.horizon)), to=MEMBERS)
    # their mean within the limits: (H, A)
    mean = MEMBERS if len(answers) == 1 else graph.add("ReduceMean", MEMBERS, axes=[0], keepdims=1)
    if config.horizon > 1:
        mean = graph.reshaped(mean, "chunk", config.horizon, len(file.spec.actions))
    raised = graph.add("Max", mean, graph.constant("action_low", file.spec.action_low))
    graph.add("Min", raised, graph.constant("action_high", file.spec.action_high), to=ACTIONS)
    return model(
        name="understudy",
        nodes=graph.nodes,
        tensors=graph.tensors,
        inputs=[value(OBSERVATIONS, (config.history, len(file.spec.observations)))],
        outputs=[
            value(ACTIONS, (config.horizon, len(file.spec.actions))),
            value(MEMBERS, (len(answers), numbers)),
        ],
        metadata={_DESCRIPTION: text, _CHECK: checksum(text, arrays), _GRAPH: _GRAPH_VERSION},
    )


def _network(graph: _Graph, row: str, config: FeedForwardConfig, prefix: str, inputs: int, numbers: int) -> str:
    """One network, from a row of inputs to a row of H * A `numbers`."""
    outputs = last_layer_size(config, numbers)
    sizes = itertools.pairwise([inputs, *config.hidden, outputs])
    layers = [(f"layers.{layer}", before, after) for layer, (before, after) in enumerate(sizes)]
    answer = _layers(graph, row, prefix, layers, "Tanh" if config.activation == "tanh" else "Relu")
    if config.skip:
        past = _layers(graph, row, prefix, skip_layers(config, inputs, outputs), "Tanh")
        answer = graph.add("Add", answer, past)
    return answer


def _likeliest(graph: _Graph, rows: str, members: int, numbers: int) -> str:
    """Of each member's mixture the mean of the component of the largest weight: (members, H * A)."""
    components = MIXTURE_COMPONENTS
    weights = graph.columns(rows, "weights", 0, components)
    means = graph.columns(rows, "means", components, components * (1 + numbers))
    chosen = graph.reshaped(graph.add("Hardmax", weights, axis=1), "chosen", members, 1, components)  # one 1, else 0
    answer = graph.add("MatMul", chosen, graph.reshaped(means, "components", members, components, numbers))
    return graph.reshaped(answer, "answer", members, numbers)


def _layers(graph: _Graph, row: str, prefix: str, layers: Sequence[tuple[str, int, int]], activation: str) -> str:
    """Some layers one after the other, with an activation between them."""
    for layer, (name, before, after) in enumerate(layers):
        names = [f"{prefix}{name}.{part}" for part in ("weight", "bias")]
        require_array(graph.weights, names[0], (after, before))
        require_array(graph.weights, names[1], (after,))
        row = graph.add("Gemm", row, *names, transB=1)
        if layer < len(layers) - 1:
            row = graph.add(activation, row)
    return row


class _Graph:
    """Nodes and tensors in the order in which they were added."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self.nodes: list[bytes] = []
        self.tensors = [tensor(name, array) for name, array in weights.items()]

    def add(self, kind: str, *inputs: str, to: str = "", **attributes: int | list[int]) -> str:
        """Adds a node; returns the name of what it computes."""
        name = to or f"value.{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, [name], **attributes))
        return name

    def constant(self, name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Adds a tensor that follows from policy.json; returns its name."""
        self.tensors.append(tensor(f"{_CONSTANT}{name}", array))
        return f"{_CONSTANT}{name}"

    def reshaped(self, what: str, name: str, *shape: int) -> str:
        """Adds a node that lays `what` out in another shape."""
        return self.add("Reshape", what, self.constant(f"{name}_shape", np.array(shape, np.int64)))

    def columns(self, rows: str, name: str, first: int, end: int) -> str:
        """Adds a node that takes the columns `first` to `end` of some rows."""
        bounds = {"first": first, "end": end, "axis": 1}
        return self.add("Slice", rows, *(self.constant(f"{name}_{key}", np.array([n])) for key, n in bounds.items()))
