"""Models behind servers: the protocol's tensors, requests through a queue, REST, Triton's repository; and
MLServer and Ray Serve themselves where they are installed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.data import DIGITS_XML, digits
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.integrations import triton
from ovjit.integrations.protocol import (
    InvalidRequest,
    array_of,
    check_inputs,
    datatype_of,
    ports,
    raw_bytes,
    read_body,
    read_request,
    response,
    response_body,
    to_list,
)
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import ServedModel, find_model
from tests.support import ROOT

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
_, IMAGES, LABELS = digits()


def parameter(name, shape, dtype=np.float32):
    made = ov.opset13.parameter(shape, dtype, name=name)
    made.output(0).set_names({name})
    return made


def named(node, *names):
    node.output(0).set_names(set(names))
    return node


@pytest.fixture
def fallible(tmp_path):
    """A model whose inference fails for some inputs: Reshape to a length that is given."""
    data, length = parameter("data", [4]), parameter("length", [1], np.int64)
    reshaped = named(ov.opset13.reshape(ov.opset13.relu(data), length, False), "out")
    ov.save_model(ov.Model(reshaped, [data, length]), tmp_path / "fallible.xml", compress_to_fp16=False)
    return tmp_path / "fallible.xml"


# --- tensors


NUMBERS = ["BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))]
NUMBERS += ["FP16", "FP32", "FP64"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_come_back_as_they_were_sent(kind) -> None:
    dtype = {"BOOL": "?", "FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(kind) or kind.lower()
    rng = np.random.default_rng(3)
    x = (100 * rng.random((2, 3, 4))).astype(dtype) if kind != "BOOL" else rng.random((2, 3, 4)) < 0.5
    if kind.startswith(("INT", "UINT")):
        x[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    for data in (x.tolist(), to_list(x), x.tobytes(), json.loads(json.dumps(x.tolist()))):
        found = array_of("x", kind, [2, 3, 4], data)
        assert found.dtype == x.dtype and np.array_equal(found, x)
    assert datatype_of(x.dtype) == kind


def test_null_is_nan_and_nan_is_null() -> None:
    found = array_of("x", "FP32", [3], [1, None, 2.5])
    assert np.array_equal(found, np.array([1, np.nan, 2.5], np.float32), equal_nan=True)
    made = response("m", None, None, {"y": np.array([1, np.nan, -np.inf], np.float32)})
    assert made["outputs"][0]["data"] == [1, None, None]
    assert "Infinity" not in json.dumps(made)


def test_strings() -> None:
    found = array_of("s", "BYTES", [2, 2], [["a", "\u00e9"], [b"\xff\0", ""]])
    assert found.dtype == object and found.tolist() == [[b"a", "\u00e9".encode()], [b"\xff\0", b""]]
    assert to_list(found) == ["a", "\u00e9", b"\xff\0", ""]
    with pytest.raises(InvalidRequest, match="UTF-8"):
        response("m", None, None, {"s": found})


@pytest.mark.parametrize(
    "kind, shape, data, words",
    [
        ("FP31", [1], [1], "the datatype 'FP31' is unknown"),
        ("FP32", [2], [1], "has 2 elements, the data have 1"),
        ("FP32", [-1], [1], "non-negative integers"),
        ("FP32", [1.0], [1], "non-negative integers"),
        ("FP32", [True], [1], "non-negative integers"),
        ("FP32", [2**62, 2**62], [1], "elements"),
        ("FP32", [2], [[1], [2, 3]], "not valid FP32"),
        ("FP32", [1], ["one"], "not valid FP32"),
        ("FP32", [1], [{}], "not valid FP32"),
        ("FP32", [1], b"abc", "not valid FP32"),
        ("INT8", [1], [128], "-128 to 127"),
        ("UINT8", [1], [-1], "0 to 255"),
        ("INT64", [1], [1 << 70], "not valid INT64"),
        ("INT32", [1], [1.5], "are of type float64"),
        ("INT32", [1], [None], "are of type object"),
        ("BOOL", [1], [2], "are of type int64"),
        ("BYTES", [1], [1], "a string is expected, not int"),
    ],
)
def test_tensors_that_make_no_sense(kind, shape, data, words) -> None:
    with pytest.raises(InvalidRequest, match=words):
        array_of("x", kind, shape, data)


def test_ports_tell_names_types_and_open_dimensions() -> None:
    x = parameter("x", ov.PartialShape("?,2..5,3"))
    halves = parameter("halves", [2], ov.Type.bf16)
    total = named(ov.opset13.convert(ov.opset13.reduce_sum(halves, [0], True), "f64"), "total", "a total")
    model = ov.compile_model(ov.Model([named(ov.opset13.abs(x), "y"), total], [x, halves]), "CPU", F32)
    found = ports(model.inputs, "input")
    assert [p.metadata() for p in found] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, -1, 3]},
        {"name": "halves", "datatype": "FP32", "shape": [2]},
    ]
    assert ports(model.outputs, "output")[1].metadata()["name"] == "a total"
    good = {"halves": np.ones(2, np.float32), "x": np.ones((7, 5, 3), np.float32)}
    arrays = check_inputs(good, found)
    assert [a.dtype.name for a in arrays] == ["float32", "float16"]
    for change, words in (
        ({"x": np.ones((1, 6, 3), np.float32)}, r"shape \[1, 6, 3\], the model expects \[\?,2..5,3\]"),
        ({"x": np.ones((1, 2), np.float32)}, "shape"),
        ({"x": np.ones((1, 2, 3))}, "has the datatype FP64, the model expects FP32"),
        ({"z": np.ones(1)}, "no input 'z'; its inputs are 'x', 'halves'"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            check_inputs({**good, **change}, found)
    with pytest.raises(InvalidRequest, match="'halves' is missing"):
        check_inputs({"x": good["x"]}, found)
    four = ov.opset13.parameter([2], ov.Type.u4, name="four")
    with pytest.raises(UnsupportedError, match="u4"):
        ports(ov.Model(ov.opset13.convert(four, "f32"), [four]).inputs, "input")


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"inputs": {}}, {"inputs": [1]}, {"inputs": [{"name": "x"}]},
     {"inputs": [{"name": 1, "datatype": "FP32", "shape": [1], "data": [1]}]},
     {"inputs": [{"name": "x", "datatype": "FP32", "shape": 1, "data": [1]}]},
     {"inputs": 2 * [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]},
     {"inputs": [], "outputs": [1]}, {"inputs": [], "outputs": 3}],
)  # fmt: skip
def test_requests_that_make_no_sense(content) -> None:
    with pytest.raises(InvalidRequest):
        read_request(content)


# --- models


def raw_request(arrays: dict[str, np.ndarray], **more) -> tuple[bytes, int]:
    """A body with tensors as raw bytes behind its JSON, and the length of that."""
    raw = {name: raw_bytes(x) for name, x in arrays.items()}
    head = json.dumps({"inputs": [
        {"name": name, "datatype": datatype_of(x.dtype), "shape": list(x.shape),
         "parameters": {"binary_data_size": len(raw[name])}}
        for name, x in arrays.items()
    ], **more}).encode()  # fmt: skip
    return head + b"".join(raw.values()), len(head)


def test_raw_tensors_come_back_as_they_were_sent() -> None:
    """All types in one body, so that most lie where their type would not be aligned."""
    rng = np.random.default_rng(11)
    sent = {"odd": rng.random(3) < 0.5}
    for kind in NUMBERS[1:]:
        dtype = {"FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(kind) or kind.lower()
        sent[kind] = (100 * rng.random((2, 3))).astype(dtype)
    sent["strings"] = array_of("s", "BYTES", [3], ["a", "\u00e9t\u00e9", b"\xff\0"])
    body, length = raw_request(sent)
    found = read_body(body, str(length)).arrays
    assert list(found) == list(sent)
    for name, x in sent.items():
        assert found[name].dtype == x.dtype and found[name].flags.aligned, name
        assert np.array_equal(found[name], x), name
    # and out again, of which one as JSON
    asked = read_request({
        "inputs": [], "parameters": {"binary_data_output": True},
        "outputs": [{"name": name} for name in sent if name != "FP32"]
        + [{"name": "FP32", "parameters": {"binary_data": False}}],
    })  # fmt: skip
    body, length = response_body("m", None, asked, sent)
    about = json.loads(body[:length])["outputs"]
    for tensor in about:
        tensor["parameters"] = tensor.get("parameters", {})
    assert "data" in about[list(sent).index("FP32")] and sum("data" in tensor for tensor in about) == 1
    again = read_request({"inputs": about}, body[length:]).arrays
    assert all(np.array_equal(again[name], x) for name, x in sent.items())


def test_raw_truths_are_0_and_1() -> None:
    assert array_of("b", "BOOL", [4], b"\0\1\2\xff").view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda body, n: (body, "many"), "Inference-Header-Content-Length is 'many'"),
        (lambda body, n: (body, str(len(body) + 1)), "should be the length of the JSON"),
        (lambda body, n: (body, "-1"), "should be the length of the JSON"),
        (lambda body, n: (body, str(n - 1)), "not valid JSON"),
        (lambda body, n: (body[:-1], str(n)), "binary_data_size is 8, but 7 bytes remain"),
        (lambda body, n: (body + b"x", str(n)), "1 bytes that follow the JSON belong to no input"),
        (lambda body, n: (body[:n], None), "binary_data_size is 8, but 0 bytes remain"),
        (lambda body, n: (body.replace(b"[2]", b"[3]"), str(n)), "has 3 elements, the data have 2"),
        (lambda body, n: (body.replace(b"FP32", b"FP64"), str(n)), "has 2 elements, the data have 1"),
        (lambda body, n: (body.replace(b"FP32", b"BYTES"), str(n + 1)), "end within a string"),
        (lambda body, n: (b"[" * 100000, None), "not valid JSON"),
    ],
)
def test_raw_requests_that_make_no_sense(change, words) -> None:
    body, length = raw_request({"x": np.float32([1, 2])})
    assert read_body(body, str(length)).arrays["x"].tolist() == [1, 2]
    with pytest.raises(InvalidRequest, match=words):
        read_body(*change(body, length))


def test_models_are_found_in_folders(tmp_path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no .blob, .xml or .onnx file"):
        find_model(tmp_path)
    for name in ("1/a.onnx", "2/a.onnx", "2/a.xml", "2/a.bin", "10/a.onnx", "10/a.blob"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_model(tmp_path) == tmp_path / "10/a.blob"
    assert find_model(tmp_path, "2") == tmp_path / "2/a.xml"
    assert find_model(tmp_path / "1") == tmp_path / "1/a.onnx"
    (tmp_path / "1/b.xml").touch()
    with pytest.raises(ModelError, match=r"a\.onnx, b\.xml"):
        find_model(tmp_path / "1")
    (tmp_path / "1/model.xml").touch()
    assert find_model(tmp_path / "1") == tmp_path / "1/model.xml"


def test_ir_onnx_and_blob(serve, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    blob = ov.compile_model(DIGITS_XML, "CPU", F32)
    (tmp_path / "digits.blob").write_bytes(blob.export_model().getvalue())
    wanted = blob(IMAGES[:5])[0]
    for place in (DIGITS_XML, tmp_path):
        served = serve(place, F32)
        assert np.array_equal(served({"images": IMAGES[:5]})["probabilities"], wanted)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), tmp_path / "abs.onnx")
    served = serve(tmp_path / "abs.onnx")
    assert served({"x": np.float32([[-1, 2]])})["y"].tolist() == [[1, 2]]


@pytest.mark.parametrize("engine", [ov, openvino], ids=["ovjit", "openvino"])
def test_no_answer_is_lost_or_mixed_up(serve, engine) -> None:
    """Four threads, more requests at once than jobs; each answer belongs to its own images."""
    served = serve(DIGITS_XML, {**F32, "INFERENCE_NUM_THREADS": 1}, jobs=3, ov=engine)
    expected = np.concatenate([served({"images": IMAGES[i : i + 1]})["probabilities"] for i in range(200)])

    def client(seed) -> int:
        chosen = np.random.default_rng(seed).integers(0, 200, 300)
        futures = [served.submit({"images": IMAGES[i : i + 1]}) for i in chosen]
        answers = [f.result(60).outputs["probabilities"] for f in futures]
        return sum(np.array_equal(a[0], expected[i]) for a, i in zip(answers, chosen, strict=True))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(client, range(4))) == [300] * 4


def test_failures_reach_those_who_asked(serve, fallible) -> None:
    """A tenth of the inferences fails in between: each future has its own answer or its own error."""
    served = serve(fallible, F32, jobs=2)
    rng = np.random.default_rng(5)
    bad = rng.random(600) < 0.1
    futures = []
    for i, wrong in enumerate(bad):
        data = np.full(4, i, np.float32)
        futures.append(served.submit({"data": data, "length": np.array([3 if wrong else 4])}))
    for i, (wrong, future) in enumerate(zip(bad, futures, strict=True)):
        if wrong:
            with pytest.raises(OvjitError, match="pattern"):
                future.result(60)
        else:
            assert future.result(60).outputs["out"].tolist() == [i] * 4
    # nothing follows that would bring it to light
    last = served.submit({"data": data, "length": np.array([5])})
    with pytest.raises(OvjitError, match="pattern"):
        last.result(60)
    assert served({"data": data, "length": np.array([4])})["out"].shape == (4,)


def test_event_loops_are_not_held_up(serve) -> None:
    served = serve(DIGITS_XML, F32, jobs=1)

    async def many() -> list:
        return await asyncio.gather(*(served.infer({"images": IMAGES[i : i + 1]}) for i in range(50)))

    answers = asyncio.run(many())
    assert [a.outputs["probabilities"].argmax() for a in answers] == (
        served({"images": IMAGES[:50]})["probabilities"].argmax(1).tolist()
    )
    assert all(a.waited >= 0 and a.ran > 0 for a in answers)


def test_who_does_not_wait_any_more_harms_nobody(serve) -> None:
    """Of 60 requests half are cancelled while they are in line or run, and then the loop goes."""
    served = serve(DIGITS_XML, F32, jobs=2)
    expected = served({"images": IMAGES[:60]})["probabilities"]

    async def some() -> list:
        tasks = [asyncio.ensure_future(served.infer({"images": IMAGES[i : i + 1]})) for i in range(60)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(some())
    assert all(isinstance(answer, asyncio.CancelledError) for answer in found[::2])
    for answer, y in zip(found[1::2], expected[1::2], strict=True):
        np.testing.assert_allclose(answer.outputs["probabilities"][0], y, rtol=1e-4, atol=1e-6)

    async def leave() -> None:
        tasks = [asyncio.ensure_future(served.infer({"images": IMAGES})) for _ in range(20)]
        await asyncio.sleep(0)
        assert not all(task.done() for task in tasks)

    asyncio.run(leave())
    y = served.submit({"images": IMAGES[:60]}).result(60).outputs["probabilities"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_close_finishes_what_runs() -> None:
    served = ServedModel(DIGITS_XML, F32, jobs=2)
    futures = [served.submit({"images": IMAGES[:20]}) for _ in range(40)]
    served.close()
    assert all(f.done() and f.exception() is None for f in futures)
    assert not any(thread.is_alive() for thread in served._threads)
    with pytest.raises(OvjitError, match="unloaded"):
        served.submit({"images": IMAGES[:1]})


def test_batches_open_the_first_dimension(serve, tmp_path) -> None:
    x = parameter("x", [1, 4])
    ov.save_model(ov.Model(named(ov.opset13.relu(x), "y"), [x]), tmp_path / "one.xml")
    served = serve(tmp_path / "one.xml", F32, batches=True)
    assert served.inputs[0].shape == (-1, 4)
    assert served({"x": np.ones((3, 4), np.float32)})["y"].shape == (3, 4)
    blob = ov.compile_model(tmp_path / "one.xml", "CPU").export_model().getvalue()
    (tmp_path / "one.blob").write_bytes(blob)
    with pytest.raises(
        ModelError, match="batching needs a dynamic first dimension, but input 'x' of one.blob"
    ):
        ServedModel(tmp_path / "one.blob", batches=True)
    x = parameter("x", [-1, -1])
    ov.save_model(ov.Model(named(ov.opset13.relu(x), "y"), [x]), tmp_path / "wide.xml")
    with pytest.raises(ModelError, match="differ only in the first dimension"):
        ServedModel(tmp_path / "wide.xml", batches=True)


@pytest.mark.parametrize("engine", [ov, openvino], ids=["ovjit", "openvino"])
def test_bf16_is_fp32_for_clients(serve, tmp_path, engine) -> None:
    x = parameter("x", [-1], ov.Type.bf16)
    ov.save_model(ov.Model(named(ov.opset13.add(x, x), "y"), [x]), tmp_path / "b.xml")
    served = serve(tmp_path / "b.xml", F32, ov=engine)
    out = served({"x": np.float32([1.5, -3, 1.00001])})["y"]
    assert out.dtype == np.float32 and out.tolist() == [3, -6, 2]


def test_strings_go_through_models(serve, tmp_path) -> None:
    s = parameter("s", [-1], ov.Type.string)
    unpacked = ov.opset15.string_tensor_unpack(s)
    packed = ov.opset15.string_tensor_pack(*unpacked.outputs())
    ov.save_model(ov.Model(named(packed, "t"), [s]), tmp_path / "s.xml")
    served = serve(tmp_path / "s.xml")
    assert served.inputs[0].datatype == "BYTES"
    out = served({"s": array_of("s", "BYTES", [3], ["a", "\u00e9t\u00e9", ""])})["t"]
    assert to_list(out) == ["a", "\u00e9t\u00e9", ""]


# --- the protocol's REST


def ask(model: RestModel, method: str, path: str, content=b"") -> tuple[int, dict]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return asyncio.run(model.answer(method, path, body))


def request_of(x: np.ndarray, **more) -> dict:
    tensor = {"name": "images", "datatype": datatype_of(x.dtype), "shape": list(x.shape)}
    return {"inputs": [{**tensor, "data": x.ravel().tolist()}], **more}


def test_rest(serve) -> None:
    model = RestModel(serve(DIGITS_XML, F32), "digits", "3")
    assert ask(model, "GET", "/v2/health/ready") == (200, {})
    assert ask(model, "GET", "/v2")[1]["name"] == "ovjit"
    assert ask(model, "GET", "/v2/models/digits/ready")[1] == {"name": "digits", "ready": True}
    assert ask(model, "GET", "/v2/models/digits/versions/3")[1] == {
        "name": "digits", "versions": ["3"], "platform": "ovjit",
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    }  # fmt: skip
    status, found = ask(model, "POST", "/prefix/v2/models/digits/infer", request_of(IMAGES[:4], id="a"))
    assert (status, found["id"], found["model_version"]) == (200, "a", "3")
    (tensor,) = found["outputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("probabilities", "FP32", [4, 10])
    assert np.reshape(tensor["data"], (4, 10)).argmax(1).tolist() == LABELS[:4].tolist()


def test_rest_says_what_is_wrong(serve) -> None:
    model = RestModel(serve(DIGITS_XML, F32), "digits", None)
    infer = "/v2/models/digits/infer"
    for method, path, content, status, words in (
        ("GET", "/v2/models/other", b"", 404, "/v2/models/digits"),
        ("GET", "/metrics", b"", 404, "/v2/models/digits"),
        ("GET", "/v2/models/digits/versions/2", b"", 404, "no version '2'"),
        ("GET", infer, b"", 404, "does not support the method GET"),
        ("POST", infer, b"{", 400, "not valid JSON"),
        ("POST", infer, b"\xff", 400, "not valid JSON"),
        ("POST", infer, request_of(IMAGES[:1].astype(np.float64)), 400, "the model expects FP32"),
        ("POST", infer, request_of(IMAGES[:1, :, :7]), 400, "[1, 1, 7, 8]"),
        ("POST", infer, request_of(IMAGES[:1], outputs=[{"name": "x"}]), 400, "no output 'x'"),
    ):
        found, answer = ask(model, method, path, content)
        assert found == status and words in answer["error"], (method, path, answer)


def test_rest_with_raw_tensors(serve) -> None:
    """In both directions, each by itself; and what is wrong is JSON."""
    seen = []
    model = RestModel(serve(DIGITS_XML, F32), "digits", "3", seen.append)
    raw_out = {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    for raw_in in (True, False):
        for more in ({}, raw_out, {"parameters": {"binary_data_output": True}}):
            if raw_in:
                body, length = raw_request({"images": IMAGES[:4]}, id="a", **more)
                headers = {"inference-header-content-length": str(length)}
            else:
                body, headers = json.dumps(request_of(IMAGES[:4], id="a", **more)).encode(), {}
            reply = asyncio.run(model.reply("POST", "/v2/models/digits/infer", body, headers))
            assert reply.status == 200, reply
            end = int(reply.headers.get("Inference-Header-Content-Length", len(reply.body)))
            found = json.loads(reply.body[:end])
            assert (found["id"], found["model_version"]) == ("a", "3")
            assert ("data" in found["outputs"][0]) == (not more)
            (array,) = read_request({"inputs": found["outputs"]}, reply.body[end:]).arrays.values()
            assert array.shape == (4, 10) and array.argmax(1).tolist() == LABELS[:4].tolist()
    assert len(seen) == 6 and all(answer.ran > 0 for answer in seen)
    body, length = raw_request({"images": IMAGES[:1].astype(np.float64)})
    headers = {"Inference-Header-Content-Length": str(length)}
    reply = asyncio.run(model.reply("POST", "/v2/models/digits/infer", body, headers))
    assert (
        reply.status == 400
        and "has the datatype FP64, the model expects FP32" in json.loads(reply.body)["error"]
    )
    reply = asyncio.run(model.reply("GET", "/v2/models/other"))
    assert reply.status == 404 and "digits" in json.loads(reply.body)["error"]


# --- Triton's Python backend


def test_a_triton_repository(tmp_path, capsys) -> None:
    assert triton.main([str(DIGITS_XML), str(tmp_path), "--name", "digits"]) == 0
    folder = tmp_path / "digits"
    assert capsys.readouterr().out.strip() == str(folder)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files == ["1/model.bin", "1/model.py", "1/model.xml", "config.pbtxt"]
    text = (folder / "config.pbtxt").read_text()
    assert '{ name: "images" data_type: TYPE_FP32 dims: [-1, 1, 8, 8] }' in text
    names: dict = {}
    exec((folder / "1/model.py").read_text(), names)
    model = names["TritonPythonModel"]()
    parameters = {"jobs": {"string_value": "2"}, "config": {"string_value": json.dumps(F32)}}
    model.initialize({
        "model_repository": str(folder), "model_version": "1", "model_name": "digits",
        "model_config": json.dumps({"parameters": parameters}),
    })  # fmt: skip
    assert model._served.jobs == 2
    asked = [({"images": IMAGES[i : i + 1]}, ["probabilities"]) for i in range(20)]
    asked[7] = ({"images": IMAGES[:1].astype(np.float64)}, [])
    found = triton.answers(model._served, asked)
    assert isinstance(found[7], InvalidRequest)
    right = [f["probabilities"].argmax() == LABELS[i] for i, f in enumerate(found) if i != 7]
    assert all(right)
    model.finalize()
    assert triton.main(["nowhere.xml", str(tmp_path)]) == 2


def test_the_triton_configuration_is_one(tmp_path) -> None:
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    triton.write_repository(DIGITS_XML, tmp_path, "digits")
    read = text_format.Parse((tmp_path / "digits/config.pbtxt").read_text(), config.ModelConfig())
    assert read.backend == "python" and list(read.input[0].dims) == [-1, 1, 8, 8]


def scalar_model(folder: Path) -> Path:
    """Scalars of two types, and a tensor without elements."""
    o = ov.opset15
    x, empty = o.parameter([], np.float32, name="x"), o.parameter([0, 3], np.float32, name="none")
    which = o.parameter([], np.int64, name="which")
    results = [o.multiply(x, np.float32(2)), o.add(which, np.int64(1)), o.relu(empty)]
    for node, name in zip(results, ("double", "next", "nothing"), strict=True):
        node.output(0).set_names({name})
    for node in (x, empty, which):
        node.output(0).set_names({node.get_friendly_name()})
    path = folder / "scalars.xml"
    ov.save_model(ov.Model(results, [x, empty, which]), path)
    return path


def test_scalars_in_a_triton_repository(tmp_path) -> None:
    """Triton refuses `dims: []`, and an empty reshape of models without batches (seen with 2.51)."""
    path = scalar_model(tmp_path)
    folder = triton.write_repository(path, tmp_path / "repository", "scalars")
    text = (folder / "config.pbtxt").read_text()
    for line in (
        'name: "x" data_type: TYPE_FP32 dims: [1]', 'name: "none" data_type: TYPE_FP32 dims: [-1, 3]',
        'name: "which" data_type: TYPE_INT64 dims: [1]', 'name: "double" data_type: TYPE_FP32 dims: [1]',
        'name: "next" data_type: TYPE_INT64 dims: [1]', 'name: "nothing" data_type: TYPE_FP32 dims: [-1, 3]',
    ):  # fmt: skip
        assert line in text
    assert "reshape" not in text and "max_batch_size: 0" in text
    served = ServedModel(path)
    try:
        none = np.zeros((0, 3), np.float32)
        for shape in ((1,), ()):
            x, which = np.full(shape, 3, np.float32), np.full(shape, 4, np.int64)
            (found,) = triton.answers(served, [({"x": x, "none": none, "which": which}, [])])
            assert isinstance(found, dict), found
            assert {name: (a.shape, a.tolist()) for name, a in found.items()} == {
                "double": ((1,), [6.0]), "next": ((1,), [5]), "nothing": ((0, 3), []),
            }  # fmt: skip
        (found,) = triton.answers(
            served, [({"x": np.zeros(2, np.float32), "none": none, "which": which}, [])]
        )
        assert isinstance(found, InvalidRequest)
    finally:
        served.close()


# --- the servers themselves


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in made:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in made]


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory):
    """MLServer with the digits, alone and in batches: its addresses (REST, gRPC, metrics)."""
    if importlib.util.find_spec("mlserver") is None:  # protobuf has it or tritonclient
        pytest.skip("needs ovjit[mlserver]")
    folder = tmp_path_factory.mktemp("models")
    rest, grpc, metrics = free_ports(3)
    settings = {
        "host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics,
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, more in (("digits", {}), ("batched", {"max_batch_size": 8, "max_batch_time": 0.01})):
        (folder / name).mkdir()
        for file in (DIGITS_XML, DIGITS_XML.with_suffix(".bin")):
            shutil.copy(file, folder / name)
        (folder / name / "model-settings.json").write_text(json.dumps({
            "name": name, "implementation": "ovjit.integrations.mlserver.OvjitRuntime", **more,
            "parameters": {"uri": "./", "version": "v1", "extra": {"config": F32, "jobs": 2}},
        }))  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "from mlserver.cli import main; main()"
    command = [sys.executable, "-c", code, "start", "."]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{rest}/v2/health/ready", timeout=5)
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield tuple(f"127.0.0.1:{port}" for port in (rest, grpc, metrics))
    finally:
        server.terminate()
        server.wait(30)


def post(address: str, model: str, content: dict) -> dict:
    url = f"http://{address}/v2/models/{model}/infer"
    asked = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked, timeout=60))


def test_mlserver_rest(mlserver) -> None:
    about = json.load(urllib.request.urlopen(f"http://{mlserver[0]}/v2/models/digits", timeout=60))
    assert about["platform"] == "ovjit" and about["versions"] == ["v1"]
    assert about["inputs"][0]["shape"] == [-1, 1, 8, 8]

    def one(i: int) -> tuple[str, int]:
        answer = post(mlserver[0], "batched" if i % 2 else "digits", request_of(IMAGES[i : i + 1], id=str(i)))
        assert answer["model_version"] == "v1"
        return answer["id"], int(np.argmax(answer["outputs"][0]["data"]))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(200)))
    assert [identity for identity, _ in found] == [str(i) for i in range(200)]
    expected = ov.compile_model(DIGITS_XML, "CPU", F32)(IMAGES[:200])[0].argmax(1)
    assert [label for _, label in found] == expected.tolist()
    text = urllib.request.urlopen(f"http://{mlserver[2]}/metrics", timeout=60).read().decode()
    assert 'ovjit_inference_seconds_count{model="digits",version="v1"}' in text


def test_mlserver_with_raw_tensors(mlserver) -> None:
    """Below /binary there is what MLServer's own route cannot read."""
    address = f"http://{mlserver[0]}/binary/v2/models/digits"
    about = json.load(urllib.request.urlopen(f"{address}/versions/v1", timeout=60))
    assert about["name"] == "digits" and about["versions"] == ["v1"]
    more = {"parameters": {"binary_data_output": True}}

    def one(i: int) -> tuple[str, int]:
        body, length = raw_request({"images": IMAGES[i : i + 1]}, id=str(i), **more)
        headers = {"Inference-Header-Content-Length": str(length)}
        path = f"{address}/versions/v1/infer" if i % 2 else f"{address}/infer"
        answer = urllib.request.urlopen(urllib.request.Request(path, body, headers), timeout=60)
        end = int(answer.headers["Inference-Header-Content-Length"])
        content = answer.read()
        found = json.loads(content[:end])
        return found["id"], int(np.frombuffer(content[end:], np.float32).argmax())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(80))) == [(str(i), LABELS[i]) for i in range(80)]
    with pytest.raises(urllib.error.HTTPError) as caught:
        body, length = raw_request({"images": IMAGES[:1, :, :7]})
        headers = {"Inference-Header-Content-Length": str(length)}
        urllib.request.urlopen(urllib.request.Request(f"{address}/infer", body, headers), timeout=60)
    assert caught.value.code == 400 and "[1, 1, 7, 8]" in json.load(caught.value)["error"]


@pytest.mark.parametrize("model", ["digits", "batched"])
def test_mlserver_says_what_is_wrong(mlserver, model) -> None:
    """With the protocol's status; and who asked at the same time for something sensible gets it."""

    def one(i: int) -> str:
        try:
            x = IMAGES[i : i + 1]
            return str(np.argmax(post(mlserver[0], model, request_of(
                (x, x.astype(np.float64), x[:, :, :7], x)[i % 4]
            ))["outputs"][0]["data"]))  # fmt: skip
        except urllib.error.HTTPError as error:
            assert error.code == 400
            return json.load(error)["error"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(80)))
    for i, text in enumerate(found):
        if i % 4 == 1:
            assert "has the datatype FP64, the model expects FP32" in text
        elif i % 4 == 2:
            assert "[1, 1, 7, 8]" in text
        else:
            assert text == str(LABELS[i]), i


def test_mlserver_grpc(mlserver) -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc]")
    client = grpc.InferenceServerClient(mlserver[1])
    assert client.get_model_metadata("digits").outputs[0].name == "probabilities"

    def infer(x: np.ndarray) -> np.ndarray:
        given = grpc.InferInput("images", x.shape, datatype_of(x.dtype))
        given.set_data_from_numpy(x)
        return client.infer("digits", [given]).as_numpy("probabilities")

    assert infer(IMAGES[:20]).argmax(1).tolist() == LABELS[:20].tolist()
    with pytest.raises(Exception, match="INVALID_ARGUMENT.*has the datatype FP64, the model expects FP32"):
        infer(IMAGES[:1].astype(np.float64))


def test_ray_serve() -> None:
    ray = pytest.importorskip("ray", reason="needs ovjit[ray]")
    serve = pytest.importorskip("ray.serve", reason="needs ovjit[ray]")
    deployed = importlib.import_module("ovjit.integrations.ray")
    (port,) = free_ports(1)
    ray.init(
        num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )  # fmt: skip
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        made = serve.deployment(deployed.ModelDeployment).bind(str(DIGITS_XML), "digits", "1", F32, 2)
        handle = serve.run(made)
        out = handle.infer.remote({"images": IMAGES[:20]}).result()
        assert out["probabilities"].argmax(1).tolist() == LABELS[:20].tolist()
        answer = post(f"127.0.0.1:{port}", "digits", request_of(IMAGES[:3], id="x"))
        assert answer["id"] == "x" and answer["outputs"][0]["shape"] == [3, 10]
        body, length = raw_request({"images": IMAGES[:3]}, parameters={"binary_data_output": True})
        headers = {"Inference-Header-Content-Length": str(length)}
        url = f"http://127.0.0.1:{port}/v2/models/digits/infer"
        raw = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60)
        content = raw.read()[int(raw.headers["Inference-Header-Content-Length"]) :]
        assert np.frombuffer(content, np.float32).reshape(3, 10).argmax(1).tolist() == LABELS[:3].tolist()
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(f"127.0.0.1:{port}", "digits", request_of(IMAGES[:1, :, :7]))
        assert caught.value.code == 400 and "[1, 1, 7, 8]" in json.load(caught.value)["error"]
        with pytest.raises(Exception, match="the model takes FP32"):
            handle.infer.remote({"images": IMAGES[:1].astype(np.float64)}).result()
    finally:
        serve.shutdown()
        ray.shutdown()
