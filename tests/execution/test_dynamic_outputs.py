"""Models whose shapes depend on data: values, shapes and later native steps against the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.graph.dtypes import numpy_dtype

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
#: Distinct numbers of a row.
LINE = np.linspace(0, 1, 12, dtype=np.float32)


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


def filled(ov: Any) -> Any:
    """Numbers, rows and columns that are repeated as often as an input says, and what is computed of them."""
    ops = ov.opset13
    counts = ops.parameter([2], np.int64, name="counts")
    x = ops.parameter([4, 1], np.float32, name="x")
    first, last = (ops.gather(counts, np.array([i]), np.int64(0)) for i in (0, 1))
    shape = ops.concat([first, np.array([4]), last], 0)
    rows = ops.broadcast(ops.relu(x), shape)
    added = ops.add(ops.multiply(rows, np.float32(2)), ops.reduce_max(x, np.array([0, 1]), False))
    ones = ops.broadcast(np.int32(7), shape)
    joined = ops.concat([ops.convert(ones, "f32"), ops.broadcast(x, shape, "BIDIRECTIONAL")], 1)
    results = [added, ones, joined, ops.broadcast(np.array([True]), shape), ops.tile(ops.exp(x), counts)]
    return ov.Model(results, [counts, x], "filled")


def identities(ov: Any, made: str = "f32") -> Any:
    """Identity matrices, sizes, diagonals and batch of which are inputs."""
    ops = ov.opset13
    sizes = [ops.parameter([], np.int64, name=name) for name in ("rows", "columns", "diagonal")]
    batch = ops.parameter([1], np.int64, name="batch")
    one = ov.opset9.eye(*sizes, made, batch)
    other = ops.convert(ov.opset9.eye(sizes[1], sizes[0], sizes[2], made), "f32")
    return ov.Model([one, ops.add(other, np.float32(1))], [*sizes, batch], "identities")


def chosen(ov: Any) -> Any:
    """As many of the best elements, and positions in as many classes, as inputs say; what is computed of
    them, and a pattern of those numbers."""
    ops = ov.opset13
    many = ops.parameter([], np.int64, name="many")
    x = ops.parameter([-1, 12], np.float32, name="x")
    best = ops.topk(ops.add(x, LINE), many, 1, "max", "value")
    classes = ops.add(many, np.int64(2))
    hot = ops.one_hot(best.output(1), classes, np.float32(3), np.float32(-1), 1)
    pattern = ops.concat([np.array([-1]), ops.unsqueeze(many, np.array(0))], 0)
    rows = ops.reshape(ops.exp(ops.negative(x)), pattern, False)
    return ov.Model([ops.relu(best.output(0)), hot, ops.add(rows, np.float32(1))], [many, x], "chosen")


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


def sliced(ov: Any, dtype: Any = np.int64) -> Any:
    """Bounds that are computed, between native parts; the result is sliced by them once more."""
    ops = ov.opset8
    x = ops.parameter([-1, 6], np.float32, name="x")
    bounds = [ops.parameter([2], dtype, name=name) for name in ("start", "stop", "step")]
    twice = [ops.multiply(b, ops.constant(np.array([1, 1], dtype))) for b in bounds]
    axes = ops.constant(np.array([-1, 0], dtype))
    part = ops.slice(ops.relu(x), *twice, axes)
    summed = ops.add(ops.multiply(part, ops.constant(np.float32(0.5))), ops.constant(np.float32(1)))
    again = ops.slice(ops.exp(summed), *twice, axes)
    return ov.Model([summed, again, ops.shape_of(again)], [x, *bounds], "sliced")


def strided(ov: Any) -> Any:
    """Masks, a dimension that is picked by data among them."""
    ops = ov.opset8
    x = ops.parameter([-1, 6, 4], np.float32, name="x")
    bounds = [ops.parameter([3], np.int64, name=name) for name in ("begin", "end")]
    steps = ops.parameter([3], np.int64, name="steps")
    part = ops.strided_slice(ops.relu(x), *bounds, steps, [0, 0, 1], [1, 0, 0], [], [0, 1, 0], [])
    return ov.Model([ops.exp(part)], [x, *bounds, steps], "strided")


def experts(ov: Any) -> Any:
    """Rows sorted by expert: as many for each one as data say, multiplied by its matrix and put together."""
    ops, many = ov.opset8, 3
    rng = np.random.default_rng(8)
    x = ops.parameter([-1, 8], np.float32, name="x")
    which = ops.topk(ops.matmul(x, ops.constant(data(rng, 8, many)), False, False), 1, 1, "max", "none")
    chosen = ops.squeeze(which.output(1), ops.constant(np.array([1])))
    order = ops.topk(chosen, ops.gather(ops.shape_of(x, "i32"), 0, 0), 0, "min", "index").output(1)
    rows = ops.gather(x, order, ops.constant(0))
    zero = ops.constant(np.array([0], np.int64))
    ends = [zero]
    for k in range(many):
        found = ops.convert(ops.equal(chosen, ops.constant(np.int32(k))), "i64")
        ends.append(ops.add(ends[-1], ops.reduce_sum(found, ops.constant(np.array([0])), True)))
    one = ops.constant(np.array([1]))

    def by_expert(rows: Any, width: int) -> Any:
        parts = [ops.slice(rows, a, b, one, zero) for a, b in zip(ends, ends[1:], strict=False)]
        weights = [ops.constant(data(rng, 8 if width == 16 else 16, width)) for _ in parts]
        pairs = zip(parts, weights, strict=True)
        return ops.concat([ops.matmul(part, weight, False, False) for part, weight in pairs], 0)

    return ov.Model([by_expert(ops.relu(by_expert(rows, 16)), 8)], [x], "experts")


#: Bounds on both sides of both ends, and beyond what any number of elements is.
FAR = [-(2**31), 2**31 - 1]


def bounds(rng: np.random.Generator, many: int, far: Any = (*FAR, -(2**63), 2**63 - 1)) -> np.ndarray:
    return np.where(rng.random(many) < 0.8, rng.integers(-9, 10, many), rng.choice(far, many))


def steps(rng: np.random.Generator, many: int) -> np.ndarray:
    return rng.choice([1, 1, 2, -1, -3], many)


def strided_inputs(rng: np.random.Generator) -> list[np.ndarray]:
    begin, end = bounds(rng, 3), bounds(rng, 3)
    begin[1] = rng.integers(-6, 6)
    end[1], step = begin[1] + 1, steps(rng, 3)
    step[1] = 1
    return [data(rng, rng.integers(1, 9), 6, 4), begin, end, step]


def data(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


PATTERNS = np.array([[3, 4], [12, 1], [-1, 6]])
CASES: dict[str, tuple[Any, Any]] = {
    "positions": (positions, lambda rng: [data(rng, 3, 5)]),
    "open": (lambda ov: positions(ov, (-1, -1)), lambda rng: [data(rng, *rng.integers(1, 9, 2))]),
    "counted": (counted, lambda rng: [np.array(rng.integers(0, 40)), data(rng, 3, 1)]),
    "filled": (filled, lambda rng: [rng.integers(1, 9, 2), data(rng, 4, 1)]),
    "identities": (
        identities,
        lambda rng: [*rng.integers(1, 9, 2), rng.integers(-4, 5), rng.integers(1, 4, 1)],
    ),
    "chosen": (chosen, lambda rng: [np.array(rng.choice([1, 2, 4, 12])), data(rng, rng.integers(1, 5), 12)]),
    "reshaped": (reshaped, lambda rng: [data(rng, 2, 6), PATTERNS[rng.integers(3)]]),
    "chained": (chained, lambda rng: [data(rng, 4, 4)]),
    "sliced": (
        sliced,
        lambda rng: [data(rng, rng.integers(1, 9), 6), bounds(rng, 2), bounds(rng, 2), steps(rng, 2)],
    ),
    "sliced by i32": (
        lambda ov: sliced(ov, np.int32),
        lambda rng: [
            data(rng, rng.integers(1, 9), 6),
            *(a.astype(np.int32) for a in (bounds(rng, 2, FAR), bounds(rng, 2, FAR), steps(rng, 2))),
        ],
    ),
    "strided": (strided, strided_inputs),
    "experts": (experts, lambda rng: [data(rng, rng.integers(1, 9), 8)]),
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
    assert not [kind for kind, how in kinds.items() if how == "ref_numpy"]
    assert kinds["PaddedNonZero"].startswith("nonzero_")
    assert all(info.status.name == "EXECUTED" for info in request.profiling_info)


def test_slices_by_computed_bounds_run_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one graph break where the bounds are known, for all slices by them, and no host step. Traces
    serve the plans behind it, each of which is proved."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    compiled = ovjit.compile_model(experts(ovjit), "CPU", {"PERF_COUNT": True})
    reference = openvino.Core().compile_model(experts(openvino), "CPU", EXACT)
    request = compiled.create_infer_request()
    for seed in range(12):
        given = [data(np.random.default_rng(seed), 8 + seed % 3, 8)]
        made, want = request.infer(given)[0], reference(given)[0]
        np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-5, err_msg=f"seed {seed}")
    rows = request.get_profiling_info()
    assert not [row.node_name for row in rows if row.exec_type == "ref_numpy"]
    first = compiled._executable._chain.first
    (following,) = first._following.values()
    assert first.cut.extents and following.cut is None
    assert not following.part.program.traces.refused


def test_bounds_are_not_told_to_what_is_planned_anew_for_each() -> None:
    """A part with a step of the host has no traces: then the slice is made before, and there are as many
    plans as there are shapes."""
    ops = ovjit.opset8
    x = ops.parameter([-1, 3], np.float32, name="x")
    at = ops.parameter([1], np.int64, name="at")
    one = ops.constant(np.array([1], np.int64))
    row = ops.slice(x, at, ops.add(at, one), one, ops.constant(np.array([0])))
    half = ops.multiply(row, np.float32(0.5))
    low = ops.convert(ops.reshape(ops.convert(half, "f8e4m3"), np.array([1, 3]), False), "f32")
    compiled = ovjit.compile_model(ovjit.Model([low], [x, at], "one"), "CPU")
    array = np.arange(60, dtype=np.float32).reshape(20, 3) // 8
    request = compiled.create_infer_request()
    for k in range(20):
        np.testing.assert_array_equal(request.infer([array, np.array([k])])[0], array[k : k + 1] / 2)
    rest = compiled._executable._chain.first
    (told,) = rest._following.values()
    assert told.part.program.traces.refused
    (passed,) = rest._silent._following.values()
    assert len(told.part._tables) == len(passed.part._tables) == 1


def test_a_step_of_zero_is_an_error_and_the_request_lives_on() -> None:
    request = ovjit.compile_model(sliced(ovjit), "CPU").create_infer_request()
    x = np.ones((3, 6), np.float32)
    ones = np.ones(2, np.int64)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"Slice.*zero"):
            request.infer([x, ones, ones * 3, ones * 0])
        assert request.infer([x, ones, ones * 3, ones])[0].shape == (2, 2)


def test_numbers_beyond_64_bits_are_planned_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step backwards by the lowest number reaches one element."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    ops = ovjit.opset13
    x, start, axes = ops.parameter([-1, -1], np.float32), *(ops.parameter([2], np.int64) for _ in range(2))
    stop, step = np.array([1, -(1 << 62)]), np.array([2, np.iinfo(np.int64).min])
    model = ovjit.Model([ops.slice(x, start, stop, step, axes)], [x, start, axes], "backwards")
    request = ovjit.compile_model(model, "CPU").create_infer_request()
    array = np.arange(32, dtype=np.float32).reshape(4, 8)
    for first, want in (([3, 1], array[1:2, 3:1]), ([0, 2], array[2:3, :1])):
        given = [array, np.array(first), np.array([1, -2])]
        np.testing.assert_array_equal(request.infer(given)[0], want, err_msg=str(first))


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


def test_the_last_part_writes_to_the_arrays_of_the_request() -> None:
    """Also to a tensor that the user has set, and after a change of shape: results are not copied there."""
    request = ovjit.compile_model(counted(ovjit), "CPU").create_infer_request()
    x, job = np.array([[5], [6], [7]], np.float32), request._job
    for n in (4, 4, 9, 9, 9):
        np.testing.assert_array_equal(request.infer([np.array(n), x])[0], np.maximum(x - np.arange(n), 0))
    (last,) = (part for part in job.parts.values() if len(part.outputs) == 2)
    assert all(mine is its for mine, its in zip(last.outputs, job.outputs, strict=True))
    tensor = ovjit.Tensor(np.zeros((3, 9), np.float32))
    request.set_output_tensor(0, tensor)
    shown = request.get_output_tensor(1).data
    request.infer([np.array(9), -x])
    np.testing.assert_array_equal(tensor.data, np.zeros((3, 9)))
    request.infer([np.array(9), x + 1])
    np.testing.assert_array_equal(tensor.data, np.maximum(x + 1 - np.arange(9), 0))
    np.testing.assert_array_equal(shown, np.arange(9))
    request.infer([np.array(5), x])
    np.testing.assert_array_equal(tensor.data, np.maximum(x - np.arange(5), 0))


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


@pytest.mark.parametrize("count", [0, 2])
def test_inputs_without_elements_go_by_the_host(count: int):
    ops = ovjit.opset13
    a, x = ops.parameter([count], np.int64), ops.parameter([3], np.float32)
    found = ops.reshape(ops.non_zero(x), ops.constant(np.array([-1])), False)
    compiled = ovjit.compile_model(ovjit.Model([ops.concat([a, found], 0)], [a, x], "none"), "CPU")
    given = np.arange(count) + 7
    got = compiled([given, np.array([1, 0, 2], np.float32)])[0]
    np.testing.assert_array_equal(got, [*given, 0, 2])


@pytest.mark.parametrize("made", ("i32", "i64", "f32", "f64"))
def test_ranges_of_computed_integers_run_in_kernels(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upwards, downwards and empty; traces serve what is behind the cut, and each plan is proved."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    limits, kind = [ovjit.opset13.parameter([], np.int64) for _ in range(3)], numpy_dtype(made).type
    above = ovjit.opset13.add(ovjit.opset13.range(*limits, made), kind(1))
    compiled = ovjit.compile_model(ovjit.Model([above], limits), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    every = (0, 5, 1), (5, 0, -1), (5, 0, 1), (0, 0, 1), (3, 40, 7), (10, -11, -3), (0, 3000, 1), (9, 8, -9)
    for given in every:
        found = request.infer([np.int64(v) for v in given])[0]
        np.testing.assert_array_equal(found, np.arange(*given).astype(kind) + 1, err_msg=f"{given}")
        assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}, given
    with pytest.raises(RuntimeError, match="zero"):
        request.infer([np.int64(v) for v in (0, 5, 0)])


def test_fills_of_computed_shape_run_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones, too; traces serve what is behind the cut, and each plan is proved."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    x = np.array([[1], [-2], [3], [0]], np.float32)
    request = ovjit.compile_model(filled(ovjit), "CPU", {"PERF_COUNT": True}).create_infer_request()
    for first, last in [(3, 5), (1, 1), (0, 4), (7, 0), (200, 33), (2, 1000)]:
        added, ones, joined, true, tiled = request.infer([np.array([first, last]), x]).to_tuple()
        rows = np.broadcast_to(x, (first, 4, last))
        np.testing.assert_array_equal(added, np.maximum(rows, 0) * 2 + 3)
        np.testing.assert_array_equal(ones, np.full(rows.shape, 7, np.int32))
        np.testing.assert_array_equal(joined, np.concatenate([np.full(rows.shape, 7, np.float32), rows], 1))
        assert true.shape == rows.shape and true.dtype == bool and true.all()
        np.testing.assert_allclose(tiled, np.tile(np.exp(x), (first, last)), rtol=1e-6)
        assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}
    with pytest.raises(RuntimeError, match=r"Broadcast.*negative"):
        request.infer([np.array([2, -1]), x])


def test_what_numbers_choose_runs_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces serve what is behind the cut, and each plan is proved; errors name the node."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    request = ovjit.compile_model(chosen(ovjit), "CPU", {"PERF_COUNT": True}).create_infer_request()
    rng = np.random.default_rng(7)
    for many in (3, 3, 1, 12, 6, 4):
        x = data(rng, many, 12)
        best, hot, rows = request.infer([np.array(many), x]).to_tuple()
        order = np.argsort(-(x + LINE), 1)[:, :many]
        np.testing.assert_array_equal(best, np.maximum(np.take_along_axis(x + LINE, order, 1), 0))
        at = order[:, None] == np.arange(many + 2)[:, None]
        np.testing.assert_array_equal(hot, np.where(at, 3, -1))
        np.testing.assert_allclose(rows, np.exp(-x).reshape(-1, many) + 1, rtol=1e-6)
        assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}
    for many, error in ((13, r"TopK.*13"), (-3, r"TopK.*-3"), (5, r"Reshape.*divide")):
        with pytest.raises(RuntimeError, match=error):
            request.infer([np.array(many), np.ones((1, 12), np.float32)])


@pytest.mark.parametrize("made", ("f32", "f16", "bf16", "f64", "i64", "u8", "boolean"))
def test_identities_of_computed_size_run_in_kernels(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diagonals on both sides and outside; traces serve what is behind the cut, and each plan is proved."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    request = ovjit.compile_model(identities(ovjit, made), "CPU", {"PERF_COUNT": True}).create_infer_request()
    cases = [
        (3, 5, 1, 2),
        (5, 3, -2, 1),
        (1, 1, 0, 3),
        (4, 4, 9, 1),
        (4, 4, -4, 1),
        (0, 3, 0, 2),
        (70, 9, -64, 2),
    ]
    for rows, columns, above, batch in cases:
        one, other = request.infer([rows, columns, above, np.array([batch])]).to_tuple()
        want = np.broadcast_to(np.eye(rows, columns, above), (batch, rows, columns))
        want = want.astype(numpy_dtype(made))
        np.testing.assert_array_equal(one.view(want.dtype), want, err_msg=f"{rows, columns, above}")
        np.testing.assert_array_equal(other, np.eye(columns, rows, above) + 1)
        assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}
    with pytest.raises(RuntimeError, match=r"Eye.*negative"):
        request.infer([-1, 3, 0, np.array([1])])
