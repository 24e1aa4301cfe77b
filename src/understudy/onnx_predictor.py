"""Running an exported policy with onnxruntime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import MissingDependency
from understudy.onnx_file import ACTIONS, MEMBERS, OBSERVATIONS, read_onnx
from understudy.policy_file import PolicyFile

_ERRORS_ONLY = 3
_ACTIONS, _MEMBERS = [ACTIONS], [MEMBERS]


class OnnxPredictor:
    """An exported policy. It has what `FeedForwardPredictor` has, and answers the same up to rounding.

    It runs in one thread that does not spin: a network this small is slower with two, and a spinning thread takes a
    core from whatever else a robot's computer does.

    Args:
        file: what the policy is.
        model: the ONNX file, as `to_onnx` makes it.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, file: PolicyFile, model: bytes) -> None:
        self.spec, self.history, self.horizon = file.spec, file.history, file.horizon
        self.statistics = file.statistics
        self._made_of = file, model
        self._run = _session(model).run

    @classmethod
    def open(cls, path: Path | str) -> OnnxPredictor:
        """The exported policy at `path`.

        Raises:
            PolicyError: the file is damaged, or Understudy did not export it.
            MissingDependency: onnxruntime is not installed.
        """
        file, _, model = read_onnx(path)
        return cls(file, model)

    def predict(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next actions (H, A) in physical units for the last observations (history, D), newest last."""
        chunk: NDArray[np.float32] = self._run(_ACTIONS, {OBSERVATIONS: np.asarray(observations, np.float32)})[0]
        return chunk

    def predictions(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every member's chunk, (members, H, A), for the last observations (history, D); one network is one member.

        Their mean, cut to the action limits, is what `predict` answers.
        """
        values: NDArray[np.float32] = self._run(_MEMBERS, {OBSERVATIONS: np.asarray(observations, np.float32)})[0]
        return values.reshape(len(values), self.horizon, -1)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session does not pickle; another process makes its own from the same bytes.
        return type(self), self._made_of


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "an .onnx policy runs in onnxruntime, which is not installed: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    for name in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        options.add_session_config_entry(name, "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
