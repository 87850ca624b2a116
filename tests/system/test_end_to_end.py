"""One thin path through the whole system: the embedded network beside the real OpenVINO, its kernels cached,
nothing done at import, and an operation that was not there before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
import ovjit.tools.demo
from ovjit.codegen import compiling, trace
from ovjit.data import digits
from ovjit.graph import op as registry
from ovjit_ops.elementwise.arithmetic import REALS, unary
from tests.support.run import printed, python


def compile_digits(threads: int) -> ov.CompiledModel:
    return ov.Core().compile_model(digits()[0], "CPU", {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True})


def test_digits_equal_openvino_at_one_and_two_threads() -> None:
    xml, images, _ = digits()
    real = openvino.Core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = real(images)[0]
    one, two = (np.array(compile_digits(threads)(images)[0]) for threads in (1, 2))
    np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(one, two, err_msg="bits at 1 and 2 threads")
    assert one.shape == (len(images), 10)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_step_of_digits_is_native(threads: int) -> None:
    _, images, _ = digits()
    request = compile_digits(threads).create_infer_request()
    request.infer(images[:5])
    rows = request.get_profiling_info()
    assert {"Convolution", "GroupConvolution", "MaxPool", "MatMul", "Softmax"} <= {r.node_type for r in rows}
    assert not [f"{r.node_name} ({r.node_type})" for r in rows if r.exec_type == "ref_numpy"]


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    program = """
import hashlib, json
import ovjit
from ovjit.codegen import compiling
from ovjit.data import digits

xml, images, _ = digits()
core = ovjit.Core()
answer = core.compile_model(core.read_model(xml), "CPU")(images)[0]
print(json.dumps({**compiling.counts, "answer": hashlib.sha256(answer.tobytes()).hexdigest()}))
"""
    cache = str(tmp_path / "cache")
    first, second = (json.loads(printed("-c", program, folder=tmp_path, OVJIT_CACHE=cache)) for _ in range(2))
    assert first["compiled"] + first["shipped"] > 5 and first["cached"] == 0
    assert second["compiled"] == 0
    assert second["cached"] == first["compiled"] and second["shipped"] == first["shipped"]
    assert second["answer"] == first["answer"]


def test_another_input_shape_compiles_nothing() -> None:
    """Neither another batch of the digits, nor another height and width of an open model."""
    _, images, _ = digits()
    compiled = compile_digits(1)
    x = ov.opset8.parameter(ov.PartialShape([1, 3, -1, -1]), np.float32)
    filters = np.random.default_rng(3).standard_normal((5, 3, 3, 3)).astype(np.float32)
    y = ov.opset8.relu(ov.opset8.convolution(x, ov.opset8.constant(filters), [2, 2], [1, 1], [1, 1], [1, 1]))
    pooled = ov.opset8.max_pool(y, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2])
    model = ov.Model([pooled.output(0)], [x])
    open_model = ov.Core().compile_model(model, "CPU")

    whole = compiled(images)[0]
    sizes = [(16, 16), (9, 33), (40, 7)]
    pictures = [np.random.default_rng(h).random((1, 3, h, w), dtype=np.float32) for h, w in sizes]
    results = [open_model(pictures[0])[0]]
    before = dict(compiling.counts)
    for batch in (1, 2, 17):
        np.testing.assert_array_equal(compiled(images[:batch])[0], whole[:batch], err_msg=f"batch {batch}")
    results += [open_model(picture)[0] for picture in pictures[1:]]
    assert compiling.counts == before
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_allclose(result, model_by_numpy(picture, filters), rtol=0, atol=1e-4)


def model_by_numpy(picture: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """relu(convolution with stride 2 and padding 1), then 2x2 max pooling with stride 1."""
    padded = np.pad(picture, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    y = np.maximum(np.einsum("nchwij,ocij->nohw", windows, filters), 0)
    return np.lib.stride_tricks.sliding_window_view(y, (2, 2), axis=(2, 3)).max(axis=(-2, -1))


def test_import_does_nothing(tmp_path: Path) -> None:
    """No heavy import, no socket, no file written, no word said."""
    program = """
import sys

events = []

def watch(event, args):
    if event.startswith("socket.") or event in ("os.mkdir", "os.remove", "os.rename", "subprocess.Popen"):
        events.append((event, args))
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append((event, args))

sys.dont_write_bytecode = True
sys.addaudithook(watch)
import ovjit
import ovjit.opset8
heavy = {name.partition(".")[0] for name in sys.modules} & {"numba", "llvmlite", "onnx", "openvino", "socket"}
assert not heavy, heavy
assert not events, events
core = ovjit.Core()
assert core.available_devices == ["CPU"]
assert not events, events
"""
    done = python("-c", program, folder=tmp_path, OVJIT_CACHE=str(tmp_path / "cache"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_compiling_and_inferring_say_nothing(tmp_path: Path) -> None:
    """No socket, no output, and no file outside of the cache and the folder of the key."""
    program = """
import os, sys

home = os.environ["HOME"]
written, sockets = [], []

def watch(event, args):
    if event.startswith("socket."):
        sockets.append((event, args))
    if event == "open" and isinstance(args[0], str) and args[0] != os.devnull:
        if (args[2] & (os.O_WRONLY | os.O_RDWR)) and not os.path.abspath(args[0]).startswith(home + os.sep):
            written.append(args)

sys.dont_write_bytecode = True
sys.addaudithook(watch)
import numpy, ovjit
a = ovjit.opset8.parameter([8])
compiled = ovjit.compile_model(ovjit.Model(ovjit.opset8.absolute(a), [a]))
assert compiled(-numpy.ones(8, numpy.float32))[0].tolist() == [1] * 8
assert not sockets, sockets
assert not written, written
"""
    home = tmp_path / "home"
    home.mkdir(0o700)
    folders = {"XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    done = python("-c", program, folder=tmp_path, HOME=str(home), OVJIT_CACHE="", **folders)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovjit.tools.demo, "CALLS", 40)
    assert ovjit.tools.demo.main() == 0
    said = capsys.readouterr().out
    for words in ("359 of 360 held-out digits", "sync   compiled(x)", "AsyncInferQueue", "executed layers"):
        assert words in said
    assert "ref_numpy" not in said


# --- an operation that is not there


@pytest.fixture
def softcap() -> Iterator[Any]:
    """y = 30 tanh(x / 30), registered in one row as `ovjit_ops` registers its own."""
    with pytest.raises(RuntimeError, match="SoftCap"):
        registry.find_op("SoftCap")
    record = unary(
        "SoftCap", lambda x: 30 * np.tanh(x / 30), lambda x: trace.tanh(x * (1 / 30)) * 30.0, types=REALS
    )
    yield record
    registry.unregister(record)


def test_a_new_operation_fuses_with_its_neighbours(softcap: Any) -> None:
    """Between elementwise neighbours, and behind a convolution: one native kernel each time."""
    rng = np.random.default_rng(11)
    x = ov.opset8.parameter([2, 3, 6, 5], np.float32, name="x")
    y = ov.opset8.soft_cap(ov.opset8.multiply(x, ov.opset8.constant(np.float32(9))))
    model = ov.Model(ov.opset8.add(ov.opset8.relu(y), x), [x])
    data = rng.standard_normal((2, 3, 6, 5)).astype(np.float32) * 10
    (row,), result = profile_of(model, data)
    assert row.exec_type == "multiply_softcap_relu_add_f32"
    np.testing.assert_allclose(result, np.maximum(30 * np.tanh(data * 0.3), 0) + data, rtol=1e-5, atol=1e-5)

    filters = rng.standard_normal((4, 3, 1, 1)).astype(np.float32) * 10
    convolved = ov.opset8.convolution(x, ov.opset8.constant(filters), [1, 1], [0, 0], [0, 0], [1, 1])
    rows, result = profile_of(ov.Model(ov.opset8.soft_cap(convolved), [x]), data)
    (tile,) = (r.exec_type for r in rows if r.node_type != "Reorder")  # what is not a change of layout
    assert tile.startswith("conv_f32_") and tile.endswith("_softcap")
    wanted = 30 * np.tanh(np.einsum("nchw,oc->nohw", data, filters[:, :, 0, 0]) / 30)
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-4)


def test_a_new_operation_is_gone_again(softcap: Any) -> None:
    assert "soft_cap" in dir(ov.opset8)
    registry.unregister(softcap)
    assert "soft_cap" not in dir(ov.opset8)
    registry.register(softcap)  # for the fixture
    with pytest.raises(ValueError, match="registered already"):
        registry.register(softcap)


def profile_of(model: ov.Model, data: np.ndarray) -> tuple[list[ov.ProfilingInfo], np.ndarray]:
    request = ov.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    result = request.infer([data])[0]
    return request.get_profiling_info(), result
