import contextlib
import json
import os
import pickle
import random
import resource
import time

import numpy as np
import pytest

from tests.hostile_files import Watch, rows
from tests.policies.test_policies import POLICIES, feedforward
from understudy.checkpoint import load
from understudy.errors import PolicyError, UnderstudyError
from understudy.loading import load_predictor
from understudy.onnx_file import checksum, read_onnx, to_onnx
from understudy.onnx_messages import contents
from understudy.policy_file import description_of, weights_of

onnx = pytest.importorskip("onnx")


def exported(policy):
    return to_onnx(policy.to_file(), policy.arrays())


@pytest.mark.parametrize("name", POLICIES)
def test_an_exported_policy_is_an_onnx_file_like_any_other(name):
    data = exported(POLICIES[name]())
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == data, "field by field what the onnx package writes"
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("name", POLICIES)
def test_the_reference_implementation_of_onnx_says_what_the_policy_says(name):
    from onnx.reference import ReferenceEvaluator

    policy = POLICIES[name]()
    run = ReferenceEvaluator(onnx.load_from_string(exported(policy))).run
    drawn = np.random.default_rng(0)
    for _ in range(10):
        observations = drawn.normal(2, 3, (policy.history, 3)).astype(np.float32)
        actions, members = run(None, {"observations": observations})
        np.testing.assert_allclose(actions, policy.predict(observations), atol=2e-5)
        wanted = policy.for_execution().predictions(observations)
        np.testing.assert_allclose(members.reshape(wanted.shape), wanted, atol=2e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_an_exported_policy_holds_the_whole_policy_bit_by_bit(tmp_path, name):
    policy = POLICIES[name]()
    policy.notes = "made by a test"
    (tmp_path / "policy.onnx").write_bytes(exported(policy))
    loaded = load(tmp_path / "policy.onnx")
    assert weights_of(loaded.arrays()) == weights_of(policy.arrays())
    assert loaded.to_file().spec == policy.spec
    assert loaded.notes == "made by a test"
    (tmp_path / "again.onnx").write_bytes(exported(loaded))
    assert exported(load(tmp_path / "again.onnx")) == exported(loaded)


def test_equal_policies_give_equal_bytes():
    assert exported(feedforward()) == exported(feedforward())
    assert exported(feedforward()) != exported(feedforward(activation="tanh"))


# --- files that were made to do harm
HOSTILE = {}


def hostile(name):
    def keep(change):
        HOSTILE[name] = change
        return change

    return keep


def bytes_of(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def model_of(change):
    """Changes the graph by means of the onnx package, as someone would who knows the format."""

    def tamper(path):
        model = onnx.load_from_string(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return tamper


def resigned(change):
    """Changes policy.json or the arrays and gives them a fitting checksum."""

    def tamper(path):
        model = onnx.load_from_string(path.read_bytes())
        document = json.loads(model.metadata_props[0].value)
        change(document, model)
        describe(model, json.dumps(document, indent=1))
        path.write_bytes(model.SerializeToString())

    return tamper


def describe(model, text):
    """Puts a policy.json with a fitting checksum into the metadata."""
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    weights = {name: array for name, array in arrays.items() if name in feedforward().arrays()}
    model.metadata_props[0].value = text
    model.metadata_props[1].value = checksum(text.encode(), weights).decode()


def array_of(model, name):
    return next(one for one in model.graph.initializer if one.name == name)


def metadata_of(change):
    return model_of(lambda model: describe(model, change(model.metadata_props[0].value)))


def as_link(path):
    path.rename(path.with_name("secret"))
    path.symlink_to(path.with_name("secret"))


HOSTILE["an .onnx that is missing"] = lambda path: path.unlink()
HOSTILE["an .onnx that is a link"] = as_link
HOSTILE["a pipe in the place of an .onnx"] = lambda path: (path.unlink(), os.mkfifo(path))
HOSTILE["a folder in the place of an .onnx"] = lambda path: (path.unlink(), path.mkdir())
HOSTILE["a sparse .onnx of a terabyte"] = lambda path: os.truncate(path, 2**40)
HOSTILE["an .onnx that is empty"] = bytes_of(lambda data: b"")
HOSTILE["an .onnx that was cut"] = bytes_of(lambda data: data[: len(data) // 2])
HOSTILE["an .onnx with a bit of its weights flipped"] = bytes_of(
    lambda data: data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]
)
HOSTILE["an .onnx with something behind its end"] = bytes_of(lambda data: data + b"\x1a\x00")
HOSTILE["a pickle in the place of an .onnx"] = bytes_of(lambda data: pickle.dumps(print))
HOSTILE["an .onnx with a field of exabytes"] = bytes_of(lambda data: b"\x3a" + b"\xff" * 8 + b"\x7f" + data)
HOSTILE["an .onnx with a number that never ends"] = bytes_of(lambda data: b"\x08" + b"\xff" * 1_000_000)
HOSTILE["an .onnx of ten million fields"] = bytes_of(lambda data: b"\x08\x00" * 10_000_000)
HOSTILE["an .onnx with groups, which nobody writes"] = bytes_of(lambda data: b"\x0b" * 1000 + data)


@hostile("an .onnx with an operator of another domain")
@model_of
def _(model):
    model.graph.node.append(onnx.helper.make_node("Run", ["observations"], ["x"], domain="os.system"))
    model.opset_import.append(onnx.helper.make_opsetid("os.system", 1))


@hostile("an .onnx with a loop that never ends")
@model_of
def _(model):
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", [], ["x"], body=body))


@hostile("an .onnx with a constant of terabytes")
@model_of
def _(model):
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**40]), "shape"))
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["shape"], ["x"]))


@hostile("an .onnx whose weights lie in a file outside")
@model_of
def _(model):
    array = array_of(model, "layers.0.weight")
    array.ClearField("raw_data")
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="../../../../etc/hostname")


@hostile("an .onnx with a constant that lies in a file outside")
@model_of
def _(model):
    array = array_of(model, "constant.center")
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="/etc/hostname")


@hostile("an .onnx with an array of exabytes")
@model_of
def _(model):
    del array_of(model, "layers.0.weight").dims[:]
    array_of(model, "layers.0.weight").dims.extend([2**31, 2**31])


@hostile("an .onnx with an array of negative size")
@model_of
def _(model):
    array_of(model, "layers.0.weight").dims[0] = -16


@hostile("an .onnx with an array whose size multiplies to zero")
@model_of
def _(model):
    array = array_of(model, "layers.0.weight")
    array.ClearField("raw_data")
    array.dims.append(0)


@hostile("an .onnx with an array twice")
@model_of
def _(model):
    model.graph.initializer.append(array_of(model, "layers.0.weight"))


@hostile("an .onnx with an array of text")
@model_of
def _(model):
    array = array_of(model, "layers.0.weight")
    array.data_type, array.string_data[:] = onnx.TensorProto.STRING, [b"x"]


@hostile("an .onnx with functions of its own")
@model_of
def _(model):
    function = onnx.helper.make_function("", "Relu", ["x"], ["y"], [], [onnx.helper.make_opsetid("", 17)])
    model.functions.append(function)


@hostile("an .onnx whose inputs are not scaled as policy.json says")
@model_of
def _(model):
    array_of(model, "constant.center").raw_data = np.full(3, 100, np.float32).tobytes()


@hostile("an .onnx whose actions are not limited as policy.json says")
@model_of
def _(model):
    array_of(model, "constant.action_high").raw_data = np.full(2, 1e9, np.float32).tobytes()


@hostile("an .onnx with a detour around the limits")
@model_of
def _(model):
    model.graph.node[-1].input[0], model.graph.node[-1].input[1] = "members", "members"


@hostile("an .onnx without policy.json")
@model_of
def _(model):
    del model.metadata_props[:]


@hostile("an .onnx with policy.json twice")
@model_of
def _(model):
    model.metadata_props.append(model.metadata_props[0])


@hostile("an .onnx with a graph of a later version")
@model_of
def _(model):
    model.metadata_props[2].value = "99"


HOSTILE["an .onnx whose policy.json was changed"] = model_of(
    lambda model: setattr(model.metadata_props[0], "value", model.metadata_props[0].value + " ")
)
HOSTILE["an .onnx whose policy.json is no JSON"] = metadata_of(lambda text: text[:-5])
HOSTILE["an .onnx whose policy.json is nested a hundred thousand deep"] = metadata_of(lambda text: "[" * 100_000)
HOSTILE["an .onnx with another policy's policy.json"] = metadata_of(
    lambda text: description_of(feedforward(horizon=2).to_file(), b"").decode()
)
HOSTILE["an .onnx whose policy.json names a module"] = resigned(
    lambda document, model: document.update(kind="subprocess:Popen")
)
HOSTILE["an .onnx whose policy.json has layers of terabytes"] = resigned(
    lambda document, model: document["architecture"].update(hidden=[65_536, 65_536])
)
HOSTILE["an .onnx whose policy.json has a horizon of a trillion"] = resigned(
    lambda document, model: document.update(horizon=10**12)
)
HOSTILE["an .onnx whose policy.json has other limits than its graph"] = resigned(
    lambda document, model: document["spec"]["actions"][0].update(high=1e9)
)
HOSTILE["an .onnx whose policy.json tells of other sensors"] = resigned(
    lambda document, model: document["statistics"]["observations"].update(mean=[9.0, 9.0, 9.0])
)
HOSTILE["an .onnx with NaN among its weights"] = resigned(
    lambda document, model: setattr(
        array_of(model, "layers.0.bias"), "raw_data", np.full(16, np.nan, np.float32).tobytes()
    )
)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("reader", [load, load_predictor])
def test_a_hostile_onnx_file_is_refused_and_runs_nothing(tmp_path, name, reader):
    path = tmp_path / "policy.onnx"
    path.write_bytes(exported(feedforward()))
    HOSTILE[name](path)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    watch = Watch(tmp_path)
    with watch, pytest.raises(PolicyError) as error:
        reader(path)
    assert watch.trespasses == []
    assert "\n" not in str(error.value)
    assert time.process_time() - began < 2.0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 512


def test_the_exported_policies_of_the_page_on_hostile_files_are_these():
    assert rows("Exported policies").keys() == HOSTILE.keys()


def test_no_single_byte_of_an_exported_policy_can_be_changed(tmp_path):
    data, path = exported(feedforward()), tmp_path / "policy.onnx"
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(PolicyError):
            read_onnx(path)


def test_twenty_thousand_mutated_onnx_files_give_named_errors():
    data, draw, slowest = exported(feedforward()), random.Random(0), 0.0
    for _ in range(20_000):
        bad = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        if draw.random() < 0.1:
            bad = bad[: draw.randrange(len(bad))]
        began = time.perf_counter()
        with contextlib.suppress(UnderstudyError):
            contents(bytes(bad), what="it")
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 2.0
