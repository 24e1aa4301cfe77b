"""Policies to disk and back, and the full state of a training job for an exact resume. Never a pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from understudy.durable import write_file
from understudy.errors import PolicyError
from understudy.onnx_file import is_onnx, read_onnx
from understudy.policies import Policy, policy_from_file
from understudy.policy_file import read_policy, require_array, write_policy


def save(policy: Policy, folder: Path | str) -> Path:
    """Saves a trained policy to a new folder, whole or not at all; returns the folder.

    Raises:
        PolicyError: the policy was never trained, or the folder is not empty.
        StorageError: the disk is full or failed.
    """
    return write_policy(folder, policy.to_file(), policy.arrays())


def load(path: Path | str) -> Policy:
    """The policy in a policy folder, a run or an exported `.onnx`, on the CPU. Needs no data and runs no code from it.

    Raises:
        PolicyError: the folder holds no policy, or one that is damaged or of an unknown kind.
    """
    file, arrays = read_onnx(path)[:2] if is_onnx(path) else read_policy(path)
    # On the meta device a network has shapes and no memory, so a file that lies about its size costs nothing.
    with torch.device("meta"):
        policy = policy_from_file(file)
    state = policy.state_dict()
    for name in arrays:
        if name not in state:
            raise PolicyError(f"the policy's weights hold {name}, which its architecture does not have")
    policy.load_state_dict(
        {name: torch.from_numpy(require_array(arrays, name, tuple(value.shape))) for name, value in state.items()},
        assign=True,
    )
    policy.fit_scaling(*file.statistics)
    policy.data_fingerprint, policy.notes, policy.acts = file.data_fingerprint, file.notes, file.acts
    return policy.eval()


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Where a training job stands. Tensors by name, and the few numbers beside them.

    Randomness is no part of it: every draw of a step is a function of the seed and the number of the step.
    """

    step: int
    best_step: int
    best_loss: float
    tensors: dict[str, Tensor]


def save_state(path: Path, state: TrainingState) -> None:
    """Replaces the state at `path`, in one step: after a crash the old one or the new one is there."""
    numbers = {"step": state.step, "best_step": state.best_step, "best_loss": state.best_loss.hex()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
    write_file(path, to_bytes(tensors, {"state": json.dumps(numbers)}))


def load_state(path: Path) -> TrainingState:
    """The state saved at `path`.

    Raises:
        PolicyError: it is not there or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TrainingState(numbers["step"], numbers["best_step"], float.fromhex(numbers["best_loss"]), tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{path} is no training state: {error}; start the run anew") from error
