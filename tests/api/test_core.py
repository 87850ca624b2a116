"""Core: devices, reading, compiling, versions, beside the real OpenVINO."""

from __future__ import annotations

import io
import threading

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.data import digits
from tests.support import api_cases as cases
from tests.support.compiled import product_format
from tests.support.run import printed, python
from tests.support.threads import start_and_join

X = np.arange(8, dtype=np.float32)


def model(ov):
    a = ov.opset8.parameter([8], dtype=np.float32, name="a")
    return ov.Model([ov.opset8.relu(a)], [a], "one")


@pytest.mark.parametrize(
    "device",
    ["CPU", "AUTO", "AUTO:CPU", "MULTI:CPU", "HETERO:CPU", "BATCH:CPU", "MULTI", "AUTO:-CPU", "AUTO:GPU",
     "GPU", "GPU.0", "NPU", "cpu", "CPU.0", "FOO", "", "HETERO:FOO", "CPU:AUTO"],
)  # fmt: skip
def test_devices(device):
    if device in ("FOO", "HETERO:FOO", "GPU", "NPU", "AUTO:GPU"):
        with pytest.raises(RuntimeError, match="CPU") as error:
            ovjit.Core().compile_model(model(ovjit), device)
        assert device.rpartition(":")[2] in str(error.value)
        assert "\n" not in str(error.value)

    def run(ov):
        compiled = ov.Core().compile_model(model(ov), device, None if device == "BATCH:CPU" else cases.EXACT)
        return compiled(X), compiled.get_property("EXECUTION_DEVICES")

    cases.check_alike(run, device)


@pytest.mark.parametrize("head", ["AUTO", "MULTI", "HETERO", "BATCH"])
def test_numbers_of_requests_in_lists_of_devices(head):
    parts = ["CPU(4)", "CPU(0)", "CPU(-1)", "CPU(a)", "CPU()", "CPU(4)x", "CPU(4)(5)", "CPU(04)", "CPU,CPU",
             "CPU(4),CPU", "CPU,(4)", "GPU(4)"]  # fmt: skip

    def run(ov, name, config):
        compiled = ov.Core().compile_model(model(ov), name, config)
        return compiled(X), compiled.get_property("MULTI_DEVICE_PRIORITIES")

    for part in parts:
        cases.check_alike(lambda ov, part=part: run(ov, f"{head}:{part}", {}), (head, part))
    for part in ("CPU(4)", "CPU(0)", "CPU(a)"):
        config = {"MULTI_DEVICE_PRIORITIES": part}
        cases.check_alike(lambda ov, config=config: run(ov, head, config), (head, config))
    for part in ("CPU(", "CPU(4", "CPU(4.5)", "CPU(4a)"):  # OpenVINO takes the digits at the start
        with pytest.raises(ovjit.api.run.core.DeviceError):
            ovjit.Core().compile_model(model(ovjit), f"{head}:{part}")


def test_default_devices():
    for ov in (ovjit, openvino):
        for compiled in (
            ov.compile_model(model(ov)),
            ov.Core().compile_model(model(ov)),
            ov.compile_model(model(ov), "AUTO", {}),
        ):
            assert compiled.get_property("EXECUTION_DEVICES") == ["CPU"]
            assert "MODEL_PRIORITY" in compiled.get_property("SUPPORTED_PROPERTIES")  # it is AUTO's


def test_what_a_core_says_of_itself():
    for call in (
        lambda c: repr(c), lambda c: c.available_devices, lambda c: c.get_available_devices(),
        lambda c: list(c.get_versions("CPU")), lambda c: list(c.get_versions("AUTO")),
        lambda c: c.get_versions("GPU"),
        lambda c: c.get_versions("FOO"), lambda c: c.get_property("CPU", "AVAILABLE_DEVICES"),
        lambda c: c.get_property("CPU", "FULL_DEVICE_NAME"), lambda c: c.get_property("AUTO",
        "FULL_DEVICE_NAME"),
        lambda c: c.create_context("CPU", {}), lambda c: c.create_context("GPU", {}),
        lambda c: c.get_default_context("GPU"), lambda c: c.get_default_context("CPU"),
        lambda c: c.unload_plugin("ZZ"), lambda c: c.add_extension("nofile"), lambda c: c.add_extension(5),
        lambda c: c.query_model(5, "CPU"), lambda c: c.read_model("x.xml", "x.bin", 3),
    ):  # fmt: skip
        kind, theirs = cases.outcome(lambda call=call: call(openvino.Core()))
        if isinstance(theirs, AttributeError):
            continue  # an accident of OpenVINO's wrapper
        cases.check_alike(lambda ov, call=call: call(ov.Core()), theirs)
    version = ovjit.Core().get_versions("CPU")["CPU"]
    assert version.build_number == ovjit.get_version()
    assert f"{version.major}.{version.minor}.{version.patch}" == ovjit.__version__
    assert "ovjit" in version.description
    with pytest.raises(TypeError):
        ovjit.Core().query_model(5, "CPU")


def test_query_model():
    mine = ovjit.Core().query_model(model(ovjit), "CPU")
    assert set(mine.values()) == {"CPU"}
    assert "a" in mine
    assert len(mine) == len(openvino.Core().query_model(model(openvino), "CPU"))
    with pytest.raises(RuntimeError):
        ovjit.Core().query_model(model(ovjit), "GPU")


@pytest.mark.parametrize(
    "source",
    ["nofile.xml", b"garbage", "nofile.onnx", b"", 5, None, "<xml>", "/", 1.5, b"<net></net>"],
    ids=repr,
)
def test_what_cannot_be_read(source):
    cases.check_alike(lambda ov: ov.Core().read_model(source), source)
    with pytest.raises((RuntimeError, TypeError)) as error:
        ovjit.Core().read_model(io.BytesIO(source) if isinstance(source, bytes) else source)
    if isinstance(source, str):
        assert source in str(error.value)


def test_reading_from_paths_and_memory(tmp_path):
    xml, images, _ = digits()
    weights = xml.with_suffix(".bin").read_bytes()
    place = tmp_path / "Modell für 数字"
    place.mkdir()
    (place / "a b.xml").write_bytes(xml.read_bytes())
    (place / "a b.bin").write_bytes(weights)
    core = ovjit.Core()
    expected = core.compile_model(xml)(images[:3])[0]
    content = xml.read_bytes()
    for args in (
        (place / "a b.xml",), (str(place / "a b.xml"),), (content, weights), (io.BytesIO(content),
        io.BytesIO(weights)),
        (memoryview(content), memoryview(weights)), (xml, place / "a b.bin"), (str(xml),
        str(place / "a b.bin")),
        (content, ovjit.Tensor(np.frombuffer(weights, np.uint8))),
    ):  # fmt: skip
        np.testing.assert_array_equal(
            core.compile_model(core.read_model(*args), "CPU")(images[:3])[0], expected
        )
    np.testing.assert_array_equal(ovjit.compile_model(place / "a b.xml")(images[:3])[0], expected)
    np.testing.assert_array_equal(core.compile_model(content, weights=weights)(images[:3])[0], expected)
    np.testing.assert_array_equal(ovjit.read_model(xml).inputs[0].names == {""}, False)


def test_the_digits_are_those_of_openvino():
    xml, images, labels = digits()
    expected = openvino.Core().compile_model(xml, "CPU", cases.EXACT)(images)[0]
    for config in ({}, {"INFERENCE_NUM_THREADS": 1}, {"PERFORMANCE_HINT": "THROUGHPUT"}):
        result = ovjit.Core().compile_model(xml, "CPU", config)(images)[0]
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert (result.argmax(axis=1) == labels).mean() >= 0.97


def test_models_compiled_by_several_threads_at_once():
    xml, images, _ = digits()
    expected = ovjit.compile_model(xml)(images[:5])[0]
    results = []

    def work():
        results.append(ovjit.compile_model(xml)(images[:5])[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    start_and_join(threads)
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_wrong_arguments():
    for call in (
        lambda ov: ov.Core("nofile"), lambda ov: ov.Core().compile_model(model(ov), "CPU", {}, None),
        lambda ov: ov.Core().compile_model(5), lambda ov: ov.Core().import_model(5, "CPU"),
        lambda ov: ov.Core().import_model(None, "CPU"), lambda ov: ov.Core().compile_model(model(ov), 5),
    ):  # fmt: skip
        kind, theirs = cases.outcome(lambda call=call: call(openvino))
        assert kind == "raises"
        with pytest.raises((type(theirs), TypeError)):
            call(ovjit)


def test_importing_costs_nothing():
    program = """
import sys
import ovjit
heavy = {"numba", "llvmlite", "onnx", "openvino", "numpy"} & set(sys.modules)
assert not heavy, heavy
ovjit.Core, ovjit.CompiledModel, ovjit.InferRequest, ovjit.AsyncInferQueue, ovjit.properties.hint
heavy = {"numba", "llvmlite", "onnx", "openvino"} & set(sys.modules)
assert not heavy, heavy
core = ovjit.Core()
core.get_property("CPU", "FULL_DEVICE_NAME")
heavy = {"numba", "llvmlite", "onnx", "openvino"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", program)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


def test_the_runtime_model():
    xml, images, _ = digits()
    compiled = ovjit.Core().compile_model(xml, "CPU", {"PERF_COUNT": True})
    compiled(images[:8])
    runtime = compiled.get_runtime_model()
    assert [list(p.partial_shape) for p in runtime.inputs] == [list(p.partial_shape) for p in compiled.inputs]
    kinds = {}
    for node in runtime.get_ordered_ops():
        notes = {key: value.value for key, value in node.get_rt_info().items()}
        assert notes["originalLayersNames"]
        assert notes["runtimePrecision"] == node.output(0).element_type.to_string()
        kinds.setdefault(notes["layerType"], []).append(notes)
    assert {"Input", "Const", "Output", "Convolution"} <= set(kinds)
    assert all(notes["primitiveType"] for notes in kinds["Convolution"])
    assert any(notes["execTimeMcs"] != "not_executed" for notes in kinds["Convolution"])
    theirs = openvino.Core().compile_model(xml, "CPU").get_runtime_model()
    keys = set(next(iter(theirs.get_ordered_ops())).get_rt_info())
    assert keys - set(kinds["Input"][0]) <= {"outputLayouts"}


def test_the_runtime_model_of_states_and_of_bytes():
    """What a model with states runs is shown, not what it was made of; products say what they multiply."""
    op = ovjit.opset13
    x = op.parameter([2, 256], np.float32)
    before = op.read_value(op.constant(np.zeros((2, 256), np.float32)), "v", np.float32, [2, 256])
    limits = [op.constant(np.float32(v)) for v in (0, 2.55, 0, 2.55)]
    whole = op.convert(op.constant(np.ones((256, 32), np.int8)), "f32")
    weights = op.multiply(whole, op.constant(np.float32(0.1)))
    after = op.add(before, x)
    made = op.matmul(op.fake_quantize(after, *limits, 256), weights, False, False)
    model = ovjit.Model([op.result(made)], [op.assign(after, "v")], [x], "m")
    exact = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ovjit.Core().compile_model(model, "CPU", exact)
    compiled(np.ones((2, 256), np.float32))
    runtime = compiled.get_runtime_model()
    assert (len(runtime.inputs), len(runtime.outputs)) == (1, 1)
    notes = [{k: v.value for k, v in node.get_rt_info().items()} for node in runtime.get_ordered_ops()]
    shown = {row["layerType"]: row for row in notes}
    assert {"Input", "Output", "MemoryInput", "MemoryOutput", "MatMul"} <= set(shown)
    expected = "f32" if product_format("u8", "i8") is None else "u8"
    assert shown["MatMul"]["runtimePrecision"] == expected and shown["MatMul"]["primitiveType"]


def test_forked_children_infer():
    program = """
import multiprocessing, sys
import numpy as np
import ovjit as ov
from ovjit.data import digits
xml, images, labels = digits()
compiled = ov.compile_model(xml)
expected = compiled(images[:4])[0]

def child(results):
    request = compiled.create_infer_request()
    request.start_async(images[:4])
    request.wait()
    queue = ov.AsyncInferQueue(compiled, 2)
    seen = []
    queue.set_callback(lambda r, u: seen.append(r.results[0]))
    for _ in range(4):
        queue.start_async(images[:4])
    queue.wait_all()
    fine = all((x == expected).all() for x in (*seen, request.results[0], compiled(images[:4])[0]))
    results.put((fine, len(seen)))

context = multiprocessing.get_context("fork")
queue = ov.AsyncInferQueue(compiled, 2)
queue.start_async(images[:4])
queue.wait_all()
for _ in range(3):
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    assert results.get(timeout=300) == (True, 4)
    process.join(20)
    assert process.exitcode == 0
print("fine")
"""
    assert printed("-c", program) == "fine\n"
