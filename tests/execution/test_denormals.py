"""CPU_DENORMALS_OPTIMIZATION: computing threads flush denormal numbers, and no thread does so afterwards."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

import ovjit
from ovjit import opset13 as o
from ovjit.codegen.cpu import machine

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
FLUSH = {**F32, "CPU_DENORMALS_OPTIMIZATION": True}
TINY = np.float32(1e-40)


def keeps_denormals() -> bool:
    """Whether this thread computes with them."""
    return bool((np.full(1, TINY) * np.float32(1))[0] > 0)


def model(ov, rows: int = 4):
    """Reads them, and makes them of others."""
    x = ov.opset13.parameter([rows, 4], np.float32, name="x")
    half = ov.opset13.multiply(x, ov.opset13.constant(np.float32(0.5)))
    return ov.Model([half, ov.opset13.sqrt(x)], [x], "m")


def looped(trips: int, data_decides: bool):
    """y * 0.5 for each iteration; with changing shapes, iterations are not steps of the plan around them."""
    y, x = o.parameter([-1] if data_decides else [64], np.float32), o.parameter([64], np.float32, name="x")
    count = o.parameter([], np.int32, name="n")
    half = o.multiply(y, o.constant(np.float32(0.5)))
    if data_decides:
        half = o.concat([half, half], 0)
    body = ovjit.Model([half, o.constant(np.array(True))], [y], "body")
    loop = o.loop(count, o.constant(np.array(True)))
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(y, x.output(0), half.output(0))
    return ovjit.Model([loop.get_iter_value(half.output(0), -1)], [x, count], "m")


INPUT = np.array([1e-40, 2e-38, 1e-39, 3], np.float32)
#: What is left of the input, of half of it, and of its square root.
HALF = [0, 0, 0, 1.5]
ROOT = [0, float(np.sqrt(INPUT[1])), 0, float(np.sqrt(np.float32(3)))]


@pytest.mark.parametrize("package", [openvino, ovjit])
def test_as_in_openvino(package):
    """Where OpenVINO flushes them: on Arm it takes the property and keeps them."""
    if package is openvino and not machine.is_x86():
        compiled = package.Core().compile_model(model(package), "CPU", FLUSH)
        assert (compiled(np.tile(INPUT, (4, 1)))[0] > 0).all()
        return
    for how in ("infer", "start_async"):
        request = package.Core().compile_model(model(package), "CPU", FLUSH).create_infer_request()
        getattr(request, how)(np.tile(INPUT, (4, 1)))
        if how == "start_async":
            request.wait()
        assert request.get_output_tensor(0).data[1].tolist() == HALF
        np.testing.assert_allclose(request.get_output_tensor(1).data[3], ROOT, 1e-6)
    package.Core().compile_model(model(package), "CPU", F32)  # where OpenVINO gives the thread back its own
    unset = {**FLUSH, "CPU_DENORMALS_OPTIMIZATION": False}
    compiled = package.Core().compile_model(model(package), "CPU", unset)
    assert keeps_denormals()
    assert (compiled(np.tile(INPUT, (4, 1)))[0] > 0).all()


def test_threads_have_back_what_they_had():
    """All computing threads: callers, helpers, workers of streams and of queues; those of another model go
    on."""
    rows = 1 << 12
    data = np.tile(INPUT, (rows, 1))
    core = ovjit.Core()
    plain, flushing = (
        core.compile_model(model(ovjit, rows), "CPU", {**c, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2})
        for c in (F32, FLUSH)
    )
    for _ in range(20):
        assert flushing(data)[0].tolist() == [HALF] * rows
        assert keeps_denormals()
        assert (plain(data)[0] > 0).all()
    seen = []
    queue = ovjit.AsyncInferQueue(core.compile_model(model(ovjit), "CPU", {**FLUSH, "NUM_STREAMS": 2}), 2)
    queue.set_callback(lambda request, _: seen.append((request.results[0][0].tolist(), keeps_denormals())))
    for _ in range(8):
        queue.start_async(data[:4])
    queue.wait_all()
    assert seen == [(HALF, True)] * 8


def test_blobs_keep_the_property():
    blob = ovjit.Core().compile_model(model(ovjit), "CPU", FLUSH).export_model()
    data = np.tile(INPUT, (4, 1))
    core = ovjit.Core()
    assert core.import_model(blob, "CPU")(data)[0][2].tolist() == HALF
    other = core.import_model(blob, "CPU", {"CPU_DENORMALS_OPTIMIZATION": False})
    assert (other(data)[0] > 0).all() and keeps_denormals()


@pytest.mark.parametrize("data_decides", [False, True])
def test_in_bodies_of_loops(data_decides):
    made = looped(3, data_decides)
    data = np.full(64, 2e-38, np.float32)
    for config, some in ((F32, True), (FLUSH, False)):
        compiled = ovjit.Core().compile_model(made, "CPU", config)
        for trips in (1, 3, 6):
            assert (compiled([data, np.int32(trips)])[0] > 0).all() == some, (config, trips)
        assert keeps_denormals()


def test_what_fails_in_the_midst_gives_it_back():
    x, i = o.parameter([4], np.float32, name="x"), o.parameter([2], np.int64, name="i")
    made = ovjit.Model([o.gather_elements(o.relu(x), i, 0)], [x, i], "m")
    request = ovjit.Core().compile_model(made, "CPU", FLUSH).create_infer_request()
    with pytest.raises(RuntimeError):
        request.infer([np.ones(4, np.float32), np.array([0, 99])])
    assert keeps_denormals()
