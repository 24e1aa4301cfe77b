import json
import os

import numpy as np
import pytest

from tests.hostile_files import Watch, rows
from tests.policies.test_policies import POLICIES, feedforward
from understudy.checkpoint import load, save
from understudy.errors import PolicyError
from understudy.loading import load_predictor

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_survives_the_disk_bit_by_bit(tmp_path, name):
    policy = POLICIES[name]()
    policy.notes = "made by a test"
    loaded = load(save(policy, tmp_path / "policy"))
    before, after = policy.arrays(), loaded.arrays()
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    assert (loaded.spec, loaded.history, loaded.horizon) == (policy.spec, policy.history, policy.horizon)
    assert loaded.notes == policy.notes
    observations = np.random.default_rng(0).normal(2, 3, (policy.history, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(observations), policy.predict(observations))
    np.testing.assert_allclose(
        load_predictor(tmp_path / "policy").predict(observations), policy.predict(observations), atol=2e-5
    )


def test_a_policy_is_never_overwritten(tmp_path):
    save(feedforward(), tmp_path / "policy")
    with pytest.raises(PolicyError, match="not empty"):
        save(feedforward(), tmp_path / "policy")


def test_a_folder_without_a_policy_says_what_it_is(tmp_path):
    with pytest.raises(PolicyError, match="neither a policy"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PolicyError, match="--resume"):
        load(tmp_path)


def _edit(change):
    def tamper(folder):
        document = json.loads((folder / "policy.json").read_text())
        change(document)
        (folder / "policy.json").write_text(json.dumps(document))

    return tamper


def _weights(change):
    def tamper(folder):
        path = folder / "weights.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return tamper


def _resigned(change):
    """Tampers with the weights and signs them again, as someone who knows the format would."""

    def tamper(folder):
        import hashlib

        _weights(change)(folder)
        digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        _edit(lambda document: document.update(weights_sha256=digest))(folder)

    return tamper


def _pickle(_):
    import pickle

    return pickle.dumps(print)


def _link(name, target):
    def tamper(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return tamper


def _nested(folder):
    (folder / "policy.json").write_text("[" * 100_000)


def _nan(data):
    changed = bytearray(data)
    changed[-4:] = np.float32(np.nan).tobytes()
    return bytes(changed)


def _layer(document, **change):
    document["architecture"].update(change)


HOSTILE = {
    "a policy.json that is missing": lambda folder: (folder / "policy.json").unlink(),
    "a policy.json that is no JSON": lambda folder: (folder / "policy.json").write_text("{"),
    "a policy.json nested a hundred thousand deep": _nested,
    "a policy.json of another format": _edit(lambda document: document.update(format="other")),
    "a policy.json of a later version": _edit(lambda document: document.update(version=99)),
    "a policy.json of an unknown kind": _edit(lambda document: document.update(kind="os.system")),
    "a policy.json whose kind names a module": _edit(lambda document: document.update(kind="subprocess:Popen")),
    "a policy.json with a callback in its architecture": _edit(lambda document: _layer(document, callback="os.system")),
    "a policy.json with code as its activation": _edit(
        lambda document: _layer(document, activation="__import__('os')")
    ),
    "a policy.json with layers of terabytes": _edit(lambda document: _layer(document, hidden=[65_536, 65_536, 65_536])),
    "a policy.json with a hundred thousand layers": _edit(lambda document: _layer(document, hidden=[1] * 100_000)),
    "a policy.json with a horizon of a trillion": _edit(lambda document: document.update(horizon=10**12)),
    "a policy.json with NaN in its statistics": _edit(
        lambda document: document["statistics"]["observations"].update(mean=[float("nan")] * 3)
    ),
    "a policy.json with statistics of too few channels": _edit(
        lambda document: document["statistics"]["actions"].update(mean=[0.0])
    ),
    "a policy.json with statistics of four hundred digits": _edit(
        lambda document: document["statistics"]["actions"].update(mean=[10**400, 0])
    ),
    "a policy.json with a rate of four hundred digits": _edit(
        lambda document: document["spec"].update(control_hz=10**400)
    ),
    "an ensemble of none": _edit(lambda document: document.update(kind="ensemble", architecture={"members": 0})),
    "an ensemble of ensembles": _edit(
        lambda document: document.update(
            kind="ensemble", architecture={"members": 1000, "member": {"kind": "ensemble", "architecture": {}}}
        )
    ),
    "an ensemble of millions": _edit(
        lambda document: document.update(
            kind="ensemble",
            architecture={"members": 10**7, "member": {"kind": "feedforward", "architecture": {"hidden": [1]}}},
        )
    ),
    "a policy.json without a spec": _edit(lambda document: document.pop("spec")),
    "a policy.json that is a link outside": _link("policy.json", "/etc/hostname"),
    "a pipe in the place of policy.json": lambda folder: (
        (folder / "policy.json").unlink(),
        os.mkfifo(folder / "policy.json"),
    ),
    "weights that are missing": lambda folder: (folder / "weights.safetensors").unlink(),
    "weights that are empty": _weights(lambda data: b""),
    "weights that were cut": _weights(lambda data: data[:-10]),
    "weights with a bit flipped": _weights(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "a pickle in the place of the weights": _resigned(_pickle),
    "weights that declare a header of exabytes": _resigned(lambda data: (2**63 - 1).to_bytes(8, "little") + data[8:]),
    "weights whose header is no JSON": _resigned(lambda data: data[:8] + b"!" * (len(data) - 8)),
    "weights with NaN": _resigned(_nan),
    "weights that are a link outside": _link("weights.safetensors", "/dev/zero"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("reader", [load, load_predictor])
def test_a_hostile_policy_is_refused_and_runs_nothing(tmp_path, name, reader):
    """Promise X1: the rows of docs/hostile_files.md, under an audit hook that sees every import, process and file."""
    folder = save(feedforward(), tmp_path / "policy")
    HOSTILE[name](folder)
    seen = Watch(tmp_path)
    with seen, pytest.raises(PolicyError) as error:
        reader(folder)
    assert seen.trespasses == []
    assert "\n" not in str(error.value)


def test_the_policies_of_the_page_on_hostile_files_are_these():
    assert rows("Policies").keys() == HOSTILE.keys()


def test_the_audit_hook_sees_what_it_should(tmp_path):
    watch = Watch(tmp_path)
    with watch, open("/etc/hostname"):
        pass
    assert [event for event, _ in watch.trespasses] == ["open"]


@pytest.mark.parametrize("name", sorted(os.listdir(GOLDEN)) if os.path.isdir(GOLDEN) else [])
def test_policies_of_every_released_format_load_for_ever(name):
    """Promise R4: the golden files were written by the release they are named after and are never written again."""
    folder = os.path.join(GOLDEN, name)
    with np.load(os.path.join(folder, "expected.npz"), allow_pickle=False) as expected:
        for observations, actions in zip(expected["observations"], expected["actions"], strict=True):
            for policy in (load(folder), load_predictor(folder)):
                np.testing.assert_allclose(policy.predict(observations), actions, atol=2e-5)


def test_there_are_golden_files():
    assert "feedforward-1" in os.listdir(GOLDEN)
    assert "ensemble-1" in os.listdir(GOLDEN)
