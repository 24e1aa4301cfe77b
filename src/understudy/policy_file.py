"""A policy on disk: `policy.json` says what it is, `weights.safetensors` holds its arrays. Reading runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from understudy.durable import write_folder
from understudy.errors import DataError, PolicyError
from understudy.spec import Spec
from understudy.statistics import ChannelStatistics

FORMAT, VERSION = "understudy-policy", 1
ACTS = ("mean", "sampled")
_MAXIMUM_JSON_BYTES = 16 * 2**20
_MAXIMUM_WEIGHT_BYTES = 8 * 2**30
_PARTS = "a policy is policy.json and weights.safetensors"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """Everything of a policy but its weights.

    Args:
        kind: `feedforward` or `ensemble`.
        architecture: what its class needs to build the network, as plain JSON.
        spec: channels, units and rate it was trained for.
        history: observations it looks at.
        horizon: H, actions it predicts.
        statistics: of the observations and of the target actions it was trained on.
        data_fingerprint: of the dataset it was trained on; empty where unknown.
        notes: how it was made, for people; nothing reads it.
        acts: what is executed, the `mean` of its distribution or an action `sampled` from it.
    """

    kind: str
    architecture: Mapping[str, Any]
    spec: Spec
    history: int
    horizon: int
    statistics: tuple[ChannelStatistics, ChannelStatistics]
    data_fingerprint: str = ""
    notes: str = ""
    acts: str = "mean"


def write_policy(folder: Path | str, file: PolicyFile, arrays: Mapping[str, NDArray[np.float32]]) -> Path:
    """Writes a policy folder, whole or not at all.

    Raises:
        PolicyError: the folder exists and is not empty; a policy is never overwritten.
        StorageError: the disk is full or failed.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PolicyError(f"{folder} exists and is not empty; save to a new folder")
    weights = weights_of(arrays)
    write_folder(folder, {"policy.json": description_of(file, weights), "weights.safetensors": weights})
    return folder


def weights_of(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The content of `weights.safetensors`; equal arrays give equal bytes."""
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def description_of(file: PolicyFile, weights: bytes) -> bytes:
    """The content of `policy.json` for a policy with these weights."""
    observations, actions = file.statistics
    document = {
        "format": FORMAT,
        "version": VERSION,
        "kind": file.kind,
        "architecture": dict(file.architecture),
        "spec": file.spec.to_json(),
        "history": file.history,
        "horizon": file.horizon,
        "statistics": {"observations": observations.to_json(), "actions": actions.to_json()},
        "data_fingerprint": file.data_fingerprint,
        "notes": file.notes,
        # Only where it says something: releases before it cannot sample, and read everything else.
        **({"acts": file.acts} if file.acts != "mean" else {}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return json.dumps(document, indent=1, allow_nan=False).encode()


def weights_fingerprint(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Sha256 over the weights of a policy, by name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def policy_folder(path: Path | str) -> Path:
    """The policy folder meant by `path`: itself, or the `policy` of a run.

    Raises:
        PolicyError: neither holds a policy; an unfinished run is named as such.
    """
    path = Path(path)
    for folder in (path, path / "policy"):
        if (folder / "policy.json").exists():
            return folder
    if (path / "config.json").exists():
        raise PolicyError(f"the run {path} has no policy yet; finish it with --resume")
    raise PolicyError(f"{path} is neither a policy (policy.json, weights.safetensors) nor a run that has one")


def read_policy(path: Path | str) -> tuple[PolicyFile, dict[str, NDArray[np.float32]]]:
    """What a policy folder holds, checked: the description and its arrays by name.

    Raises:
        PolicyError: a file is missing, malformed, damaged, or of a later format.
    """
    folder = policy_folder(path)
    described, stored = folder / "policy.json", folder / "weights.safetensors"
    text = read_plain(described, _MAXIMUM_JSON_BYTES, _PARTS)
    weights = read_plain(stored, _MAXIMUM_WEIGHT_BYTES, _PARTS)
    document = _document(text, str(described))
    if hashlib.sha256(weights).hexdigest() != document.get("weights_sha256"):
        raise PolicyError(f"{stored} is not the file that policy.json describes; copy it anew")
    try:
        arrays = safetensors.load(weights)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise PolicyError(f"{stored} is no safetensors file: {error}") from error
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise PolicyError(f"{folder}: array {name} must hold finite float32 numbers; got {array.dtype}")
    return _parse(document, str(described)), arrays


def parse_description(text: bytes, *, what: str) -> PolicyFile:
    """What the content of a `policy.json` says, checked; `what` names it in errors.

    Raises:
        PolicyError: the text is malformed, or of a later format.
    """
    return _parse(_document(text, what), what)


def require_array(arrays: Mapping[str, NDArray[np.float32]], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array called `name`.

    Raises:
        PolicyError: it is missing or has another shape.
    """
    if name not in arrays:
        raise PolicyError(f"the policy's weights lack {name}")
    if arrays[name].shape != shape:
        raise PolicyError(f"the policy's {name} has shape {arrays[name].shape}; its architecture says {shape}")
    return arrays[name]


def _document(text: bytes, path: str) -> dict[str, Any]:
    if len(text) > _MAXIMUM_JSON_BYTES:
        raise PolicyError(f"{path} is larger than the {_MAXIMUM_JSON_BYTES} bytes that it may have")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PolicyError(f"{path} does not describe a policy (format {FORMAT!r})")
    if document.get("version") != VERSION:
        raise PolicyError(
            f"{path} has format version {document.get('version')!r}; this Understudy reads {VERSION}; update it"
        )
    return document


def _parse(document: dict[str, Any], path: str) -> PolicyFile:
    def text(name: str) -> str:
        if not isinstance(document.get(name), str):
            raise PolicyError(f"{path}: {name} must be text")
        return str(document[name])

    def count(name: str) -> int:
        value = document.get(name)
        if type(value) is not int or not 1 <= value <= 10_000:
            raise PolicyError(f"{path}: {name} must be a whole number from 1 to 10000")
        return value

    try:
        spec = Spec.from_json(document.get("spec"))
        statistics = document.get("statistics")
        if not isinstance(statistics, dict):
            raise DataError("statistics must be an object")
        both = (
            ChannelStatistics.from_json(statistics.get("observations"), len(spec.observations)),
            ChannelStatistics.from_json(statistics.get("actions"), len(spec.actions)),
        )
    except DataError as error:
        raise PolicyError(f"{path}: {error}") from error
    acts = document.get("acts", "mean")
    if acts not in ACTS:
        raise PolicyError(f"{path}: acts must be {' or '.join(ACTS)}")
    architecture = document.get("architecture")
    if not isinstance(architecture, dict):
        raise PolicyError(f"{path}: architecture must be an object")
    return PolicyFile(
        kind=text("kind"),
        architecture=architecture,
        spec=spec,
        history=count("history"),
        horizon=count("horizon"),
        statistics=both,
        data_fingerprint=text("data_fingerprint"),
        notes=text("notes"),
        acts=acts,
    )


def read_plain(path: Path, limit: int, advice: str) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        PolicyError: it is missing, no plain file (a link, a pipe), or too large.
    """
    if path.is_symlink() or not path.is_file():
        raise PolicyError(f"{path} is missing or no plain file; {advice}")
    if path.stat().st_size > limit:
        raise PolicyError(f"{path} is larger than the {limit} bytes that a policy may have")
    return path.read_bytes()
