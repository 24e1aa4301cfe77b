"""Reading a policy for execution from whatever holds it, without torch."""

from __future__ import annotations

from pathlib import Path

from understudy.inference import Predictor, predictor
from understudy.onnx_file import is_onnx
from understudy.onnx_predictor import OnnxPredictor
from understudy.policy_file import read_policy


def load_predictor(path: Path | str) -> Predictor:
    """The policy in a policy folder, a run or an exported `.onnx`, ready for execution.

    Raises:
        PolicyError: there is no policy, or one that is damaged or of an unknown kind.
        MissingDependency: an `.onnx` needs onnxruntime, which is not installed.
    """
    return OnnxPredictor.open(path) if is_onnx(path) else predictor(*read_policy(path))
