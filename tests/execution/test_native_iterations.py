"""Loops with data-dependent shapes: native iterations beside iterations by Python, and beside ONNX
Runtime."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.execution.iterations import Iterations
from tests.support.sweeps import some

KINDS = {np.dtype("f4"): TensorProto.FLOAT, np.dtype("i8"): TensorProto.INT64}


class Body:
    """Nodes of a loop's body, over `table` [rows, 4], `numbers` [n] and `starts`, `ends` [iterations]."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.states: list[tuple[str, str]] = []  # (what it is, what it becomes)

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        names = []
        for x in inputs:
            if not isinstance(x, str):
                x = np.asarray(x)
                name = f"c{len(self.constants)}"
                self.constants[name] = x
                x = name
            names.append(x)
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], **attributes))
        return out

    def at_trip(self, values: str) -> str:
        return self("Unsqueeze", self("Gather", values, "i", axis=0), [0])

    def bound(self) -> tuple[str, str]:
        """Two places that differ between iterations."""
        kind = self.rng.integers(4)
        if kind == 0:
            return self.at_trip("starts"), self.at_trip("ends")
        if kind == 1:  # the rows before this iteration's
            one = self("Unsqueeze", "i", [0])
            return self("Sub", one, [2]), self("Add", one, [1])
        if kind == 2:  # from the end on
            return self("Neg", self.at_trip("ends")), self("Cast", [2**31 - 1], to=TensorProto.INT64)
        number = self.at_trip("numbers")
        return self("Mod", number, [7]), self("Mod", self("Mul", number, [3]), [17])

    def rows(self, depth: int = 2) -> str:
        """Some rows of four."""
        kind = self.rng.integers(7) if depth else 0
        if kind == 0:
            return self("Slice", "table", *self.bound(), [0])
        if kind == 1:
            return self("Gather", "table", self("Slice", "numbers", *self.bound(), [0]), axis=0)
        if kind == 2:
            return self("Concat", self.rows(depth - 1), self.rows(depth - 1), axis=0)
        if kind == 3:
            weights = self.rng.standard_normal((4, 4)).astype(np.float32) / 2
            return self("Tanh", self("MatMul", self.rows(depth - 1), weights))
        if kind == 5:  # those that data choose, of which there may be none
            totals = self("ReduceSum", self.rows(depth - 1), [1], keepdims=0)
            found = self("NonZero", self("Greater", totals, np.float32(0.5)))
            return self("Gather", "table", self("Reshape", found, [-1]), axis=0)
        if kind == 6:  # every second row before the last one
            last = self("Gather", "ends", "i", axis=0)
            return self("Gather", "table", self("Range", np.int64(0), last, np.int64(2)), axis=0)
        rows = self.rows(depth - 1)
        return self("Slice", rows, *self.bound(), [0])


def model(seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    b = Body(rng)
    trips, count = int(rng.integers(0, 40)), 60
    collected = []
    for _ in range(int(rng.integers(1, 3))):
        kind = rng.integers(4)
        rows = b.rows()
        if kind == 0:
            collected.append(b("ReduceSum", rows, [0], keepdims=1))
        elif kind == 1:
            collected.append(rows)  # parts of many lengths
        elif kind == 2:
            collected.append(b("Cast", b("Shape", rows), to=TensorProto.FLOAT))
        else:
            collected.append(b("Relu", b("ReduceSum", rows, [0], keepdims=0)))
    states = {}
    for number in range(int(rng.integers(0, 3))):
        name = f"s{number}"
        kind = rng.integers(4)
        if kind == 0:  # of one shape
            states[name] = np.zeros(4, np.float32)
            after = b("Tanh", b("Add", name, b("ReduceSum", b.rows(), [0], keepdims=0)))
        elif kind == 1:  # grows
            states[name] = np.ones((1, 4), np.float32)
            after = b("Concat", name, b("ReduceSum", b.rows(1), [0], keepdims=1), axis=0)
        elif kind == 2:  # is another part of the table each time, and is read
            states[name] = np.ones((2, 4), np.float32)
            total = b("ReduceSum", name, [0], keepdims=1)
            after = b("Add", b.rows(1), total)
        else:  # moves on
            states[name] = np.ones((3, 4), np.float32)
            after = name if number == 0 else "s0"
            if after == "s0":
                states[name] = states["s0"]
        b.states.append((name, after))
    go_on = b("Less", "i", np.int64(rng.integers(0, 60))) if rng.random() < 0.5 else "go"
    b.nodes.append(helper.make_node("Identity", [go_on], ["go_on"]))
    for i, name in enumerate(collected):
        b.nodes.append(helper.make_node("Identity", [name], [f"y{i}"]))
    for name, after in b.states:
        b.nodes.append(helper.make_node("Identity", [after], [f"{name}_next"]))
    info = helper.make_tensor_value_info
    ins = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])]
    ins += [info(name, TensorProto.FLOAT, None) for name in states]
    outs = [info("go_on", TensorProto.BOOL, [])]
    outs += [info(f"{name}_next", TensorProto.FLOAT, None) for name in states]
    outs += [info(f"y{i}", TensorProto.FLOAT, None) for i in range(len(collected))]
    inner = [numpy_helper.from_array(value, name) for name, value in b.constants.items()]
    body = helper.make_graph(b.nodes, "body", ins, outs, initializer=inner)
    ends = [f"{name}_end" for name in states]
    every = [f"z{i}" for i in range(len(collected))]
    loop = helper.make_node("Loop", ["n", "yes", *(f"{s}_0" for s in states)], [*ends, *every], body=body)
    given = {
        "n": np.array(trips),
        "table": rng.standard_normal((count, 4)).astype(np.float32),
        "numbers": rng.integers(0, count, count),
        "starts": rng.integers(0, count // 2, max(trips, 1)),
    }
    given["ends"] = given["starts"] + rng.integers(0, 12, max(trips, 1))
    shapes = {"n": [], "table": ["rows", 4], "numbers": ["count"], "starts": ["trips"], "ends": ["trips"]}
    infos = [info(name, KINDS[value.dtype], shapes[name]) for name, value in given.items()]
    outer = [numpy_helper.from_array(np.array(True), "yes")]
    outer += [numpy_helper.from_array(value, f"{name}_0") for name, value in states.items()]
    results = [info(name, TensorProto.FLOAT, None) for name in (*ends, *every)]
    graph = helper.make_graph([loop], "g", infos, results, initializer=outer)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString(), given


def answers(request: Any, given: dict[str, np.ndarray]) -> list[np.ndarray] | str:
    try:
        request.infer({k: v for k, v in given.items() if k in names_of(request)})
    except RuntimeError as error:
        return str(error)
    return [np.array(request.get_output_tensor(i).data) for i in range(len(request.model_outputs))]


def names_of(request: Any) -> set[str]:
    return {name for port in request.model_inputs for name in port.get_names()}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of native iterations of each run from now on."""
    runs: list[int] = []
    run = Iterations.run

    def counting(self: Iterations, job: Any, arrays: Any, loop: Any) -> bool:
        before = loop.done
        good = run(self, job, arrays, loop)
        runs.append(loop.done - before)
        return good

    monkeypatch.setattr(Iterations, "run", counting)
    return runs


def compiled(data: bytes, threads: int = 1, **more: Any) -> Any:
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", **more}
    return ov.Core().compile_model(ov.Core().read_model(data), "CPU", config)


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """A loop as this seed makes it; the native iterations."""
    where = f"seed {seed}"
    data, given = model(seed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        right: Any = session.run(None, {k.name: given[k.name] for k in session.get_inputs()})
    except Exception:  # parts whose shapes do not fit together
        right = None
    with monkeypatch.context() as patch:
        patch.setattr("ovjit.execution.iterations.iterations_of", lambda *_: None)
        by_python = answers(compiled(data).create_infer_request(), given)
    with monkeypatch.context() as patch:
        runs = counted(patch)
        request = compiled(data).create_infer_request()
        for again in range(3):  # the first one makes traces
            natively = answers(request, given)
            if isinstance(by_python, str) or isinstance(natively, str):
                assert isinstance(natively, str) and isinstance(by_python, str), where
                mine, his = (text.split(": all the input")[0] for text in (natively, by_python))
                assert mine == his, where
                return sum(runs)
            for mine, his in zip(natively, by_python, strict=True):
                assert mine.shape == his.shape and mine.tobytes() == his.tobytes(), f"{where}, run {again}"
    if right is not None:
        for mine, his in zip(natively, right, strict=True):
            np.testing.assert_allclose(mine, his, rtol=1e-4, atol=1e-4, err_msg=where)
    return sum(runs)


@pytest.mark.parametrize("seed", some([0, 5, 7, 12, 18, 24], 3))
def test_as_by_python(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(seed, monkeypatch) > 20, seed


def windows(endless: bool = False) -> bytes:
    """A loop whose iteration i gives the sums of rows i ... i + i % 3 and of rows 0 ... i, and counts
    rows."""
    b = Body(np.random.default_rng(0))
    one = b("Unsqueeze", "i", [0])
    last = b("Add", one, b("Add", b("Mod", one, [3]), [1]))
    rows = b("Slice", "table", one, last, [0])
    total = b("ReduceSum", b("Slice", "table", [0], b("Add", one, [1]), [0]), [0], keepdims=0)
    count = b("Add", "s", b("Shape", rows))
    few = b("ReduceSum", rows, [0], keepdims=0)
    pairs = [("go", "go_on"), (few, "y0"), (total, "y1"), (count, "s_next")]
    b.nodes += [helper.make_node("Identity", [one], [two]) for one, two in pairs]
    info = helper.make_tensor_value_info
    ins = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])]
    ins.append(info("s", TensorProto.INT64, [2]))
    outs = [info("go_on", TensorProto.BOOL, []), info("s_next", TensorProto.INT64, [2])]
    outs += [info(f"y{i}", TensorProto.FLOAT, None) for i in range(2)][: 0 if endless else 2]
    inner = [numpy_helper.from_array(value, name) for name, value in b.constants.items()]
    body = helper.make_graph(b.nodes, "body", ins, outs, initializer=inner)
    names = ["end"] if endless else ["end", "z0", "z1"]
    loop = helper.make_node("Loop", ["" if endless else "n", "yes", "s_0"], names, body=body)
    infos = [info("n", TensorProto.INT64, []), info("table", TensorProto.FLOAT, ["rows", 4])][endless:]
    outer = [numpy_helper.from_array(np.array(True), "yes")]
    outer.append(numpy_helper.from_array(np.zeros(2, np.int64), "s_0"))
    results = [info("end", TensorProto.INT64, [2]), *(info(n, TensorProto.FLOAT, None) for n in names[1:])]
    graph = helper.make_graph([loop], "g", infos, results, initializer=outer)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


@pytest.mark.parametrize("threads", [1, 2])
def test_many_trips(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is collected outgrows its memory."""
    trips = 3000
    table = np.random.default_rng(1).standard_normal((trips + 5, 4)).astype(np.float32)
    runs = counted(monkeypatch)
    request = compiled(windows(), threads).create_infer_request()
    for _ in range(2):
        end, few, sums = answers(request, {"n": np.array(trips), "table": table})
        assert end.tolist() == [sum(1 + i % 3 for i in range(trips)), 4 * trips]
        wanted = [table[i : i + 1 + i % 3].sum(0) for i in range(trips)]
        np.testing.assert_allclose(few, wanted, atol=1e-6)
        np.testing.assert_allclose(sums, np.cumsum(table[:trips].astype("f8"), 0), atol=2e-4)
    assert sum(runs) > 2 * trips - 100


def test_the_state_after_no_trip_and_few() -> None:
    request = compiled(windows()).create_infer_request()
    table = np.ones((20, 4), np.float32)
    for trips in (3, 0, 1, 9, 0, 2):
        end, few, sums = answers(request, {"n": np.array(trips), "table": table})
        assert end.tolist() == [sum(1 + i % 3 for i in range(trips)), 4 * trips]
        assert few.tolist() == [[1.0 + i % 3] * 4 for i in range(trips)]
        assert sums.tolist() == [[1.0 + i] * 4 for i in range(trips)]


def test_an_endless_loop_is_cancelled() -> None:
    request = compiled(windows(endless=True)).create_infer_request()
    request.start_async({"table": np.ones((20, 4), np.float32)})
    time.sleep(0.3)
    request.cancel()
    with pytest.raises(RuntimeError, match="cancel"):
        request.wait()


def test_a_carried_value_that_gains_a_dimension() -> None:
    """The first iteration's plan is for other ranks than the second one's: no native loop may repeat it."""
    ops = ov.opset13
    value, scale = ops.parameter([7], np.float32), ops.parameter([1, 7], np.float32)
    x, y = ops.parameter([7], np.float32), ops.parameter([1, 7], np.float32)
    go_on, result = ops.result(ops.constant(np.array(True))), ops.result(ops.tanh(ops.multiply(x, y)))
    loop = ops.loop(ops.constant(np.int64(2)), ops.constant(np.array(True)))
    loop.set_function(ov.Model([go_on, result], [x, y]))
    loop.set_special_body_ports([-1, 0])
    loop.set_merged_input(x, value.output(0), result)
    loop.set_invariant_input(y, scale.output(0))
    compiled = ov.compile_model(ov.Model([loop.get_iter_value(result, -1)], [value, scale]), "CPU")
    rng = np.random.default_rng(9433)
    for _ in range(4):
        a, b = rng.random(7, np.float32), rng.random((1, 7), np.float32)
        np.testing.assert_allclose(compiled([a, b])[0], np.tanh(np.tanh(a * b) * b), rtol=1e-6)
