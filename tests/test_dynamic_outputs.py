"""Models whose shapes depend on data: values, shapes and later native steps against the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def positions(ov: Any, shape: Any = (3, 5)) -> Any:
    """Where the data is above 0, and a native part before and after."""
    ops = ov.opset8
    x = ops.parameter(list(shape), np.float32, name="x")
    doubled = ops.multiply(x, ops.constant(np.float32(2)))
    found = ops.non_zero(ops.greater(doubled, ops.constant(np.float32(0))))
    pairs = ops.transpose(found, ops.constant(np.array([1, 0])))
    halves = ops.multiply(ops.convert(pairs, "f32"), ops.constant(np.float32(0.5)))
    scaled = ops.add(halves, ops.constant(np.float32(1)))
    return ov.Model([found, scaled], [x], "positions")


def counted(ov: Any) -> Any:
    """A range of as many elements as an input says, and what broadcasts against it."""
    ops = ov.opset8
    n = ops.parameter([], np.int64, name="n")
    x = ops.parameter([3, 1], np.float32, name="x")
    counts = ov.opset1.range(ops.constant(np.int64(0)), n, ops.constant(np.int64(1)))
    line = ops.convert(counts, "f32")
    return ov.Model([ops.relu(ops.subtract(x, line)), line], [n, x], "counted")


def reshaped(ov: Any) -> Any:
    """A pattern that is an input: its values decide the shape, known only when they are."""
    ops = ov.opset8
    x = ops.parameter([2, 6], np.float32, name="x")
    pattern = ops.parameter([2], np.int64, name="pattern")
    y = ops.reshape(ops.exp(x), pattern, False)
    return ov.Model([ops.softmax(y, 1), ops.shape_of(y)], [x, pattern], "reshaped")


def chained(ov: Any) -> Any:
    """One unknown shape after the other: the positions of the positives, then of what is not 0 there."""
    ops = ov.opset8
    x = ops.parameter([4, 4], np.float32, name="x")
    first = ops.non_zero(ops.relu(x))
    second = ops.non_zero(ops.greater(first, ops.constant(np.int64(0))))
    flat = ops.reshape(second, ops.constant(np.array([-1])), False)
    return ov.Model([flat, ops.reduce_sum(flat, ops.constant(np.array([0])), True)], [x], "chained")


def data(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


PATTERNS = np.array([[3, 4], [12, 1], [-1, 6]])
CASES: dict[str, tuple[Any, Any]] = {
    "positions": (positions, lambda rng: [data(rng, 3, 5)]),
    "open": (lambda ov: positions(ov, (-1, -1)), lambda rng: [data(rng, *rng.integers(1, 9, 2))]),
    "counted": (counted, lambda rng: [np.array(rng.integers(0, 40)), data(rng, 3, 1)]),
    "reshaped": (reshaped, lambda rng: [data(rng, 2, 6), PATTERNS[rng.integers(3)]]),
    "chained": (chained, lambda rng: [data(rng, 4, 4)]),
}


@pytest.mark.parametrize("case", CASES)
def test_like_openvino(case):
    """Several inferences of one request, so that shapes change under way, and none found at all."""
    make, inputs = CASES[case]
    ours = ovjit.compile_model(make(ovjit), "CPU").create_infer_request()
    theirs = openvino.Core().compile_model(make(openvino), "CPU", EXACT).create_infer_request()
    for seed in range(6):
        given = inputs(np.random.default_rng(seed))
        if seed == 4:
            given = [np.zeros_like(a) if a.dtype == np.float32 else a for a in given]
        expected, results = theirs.infer(given), ours.infer(given)
        for i in range(len(expected)):
            assert results[i].shape == expected[i].shape, f"output {i}, seed {seed}"
            assert results[i].dtype == expected[i].dtype
            np.testing.assert_allclose(results[i], expected[i], rtol=1e-5, atol=1e-6, err_msg=f"seed {seed}")
            assert tuple(ours.get_output_tensor(i).shape) == expected[i].shape


@pytest.mark.parametrize("value", (0, 2))
def test_positions_in_a_scalar(value: int) -> None:
    answers = []
    for ov in (ovjit, openvino):
        x = ov.opset8.parameter([], np.float32)
        compiled = ov.Core().compile_model(ov.Model([ov.opset8.non_zero(x)], [x], "scalar"), "CPU", EXACT)
        answers.append(np.array(compiled([np.float32(value)])[0]))
    assert answers[0].shape == answers[1].shape == (1, int(value != 0))
    np.testing.assert_array_equal(*answers)


def test_what_need_not_run_on_the_host_does_not():
    request = ovjit.compile_model(positions(ovjit), "CPU", {"PERF_COUNT": True}).create_infer_request()
    request.infer([data(np.random.default_rng(1), 3, 5)])
    kinds = {info.node_type: info.exec_type for info in request.profiling_info}
    assert {kind for kind, how in kinds.items() if how == "ref_numpy"} == {"FirstColumns"}
    assert kinds["PaddedNonZero"].startswith("nonzero_")
    assert all(info.status.name == "EXECUTED" for info in request.profiling_info)


def test_asynchronous_and_in_a_queue():
    compiled = ovjit.compile_model(positions(ovjit), "CPU")
    rng = np.random.default_rng(5)
    arrays = [data(rng, 3, 5) for _ in range(40)]
    got: dict[int, np.ndarray] = {}
    queue = ovjit.AsyncInferQueue(compiled, 3)
    queue.set_callback(lambda request, i: got.__setitem__(i, request.get_output_tensor(0).data.copy()))
    for i, array in enumerate(arrays):
        queue.start_async([array], i)
    queue.wait_all()
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(got[i], np.stack(np.nonzero(array > 0)))
    request = compiled.create_infer_request()
    request.start_async([arrays[0]])
    request.wait()
    np.testing.assert_array_equal(request.results[0], np.stack(np.nonzero(arrays[0] > 0)))


def test_results_stay_when_the_request_goes_on():
    request = ovjit.compile_model(counted(ovjit), "CPU").create_infer_request()
    x = np.array([[5], [6], [7]], np.float32)
    first = request.infer([np.array(4), x])
    kept = first[0].copy()
    request.infer([np.array(4), -x])
    np.testing.assert_array_equal(first[0], kept)


def test_errors_name_the_node_and_the_request_lives_on():
    compiled = ovjit.compile_model(reshaped(ovjit), "CPU")
    x = np.ones((2, 6), np.float32)
    with pytest.raises(RuntimeError, match="Reshape"):
        compiled([x, np.array([5, 5])])
    assert compiled([x, np.array([4, 3])])[0].shape == (4, 3)


def test_many_in_a_row_are_all_compiled():
    """However many cuts there are, what is between them runs in kernels; only the cuts have a host step."""
    ops, many = ovjit.opset8, 20
    x = ops.parameter([64], np.float32, name="x")
    y: Any = x
    least = np.linspace(-3, 1, many, dtype=np.float32)
    for bound in least:
        found = ops.reshape(ops.non_zero(ops.greater(y, bound)), ops.constant(np.array([-1])), False)
        y = ops.add(ops.gather(y, found, ops.constant(0)), np.float32(0.25))
    compiled = ovjit.compile_model(ovjit.Model([y], [x], "long"), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    want = array = data(np.random.default_rng(3), 64)
    for bound in least:
        want = want[want > bound] + np.float32(0.25)
    np.testing.assert_array_equal(request.infer([array])[0], want)
    kinds = [row.exec_type for row in request.get_profiling_info()]
    assert kinds.count("add_f32") == many
    assert kinds.count("ref_numpy") <= many


def test_export_and_import():
    compiled = ovjit.compile_model(positions(ovjit, (-1, 4)), "CPU")
    again = ovjit.Core().import_model(compiled.export_model(), "CPU")
    array = data(np.random.default_rng(2), 5, 4)
    for a, b in zip(compiled([array]).to_tuple(), again([array]).to_tuple(), strict=True):
        np.testing.assert_array_equal(a, b)
