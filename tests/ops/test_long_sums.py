"""Sums of reals lose little with their length: they are made in blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from ovjit.tiles.lowering import LONG_SUM
from tests.support import guard_pages
from tests.support.compiled import program_of
from tests.support.run import run, run_job
from tests.support.sweeps import in_turn, some

SEED = 20261202
#: Shapes and the axes that are summed.
SHAPES = {
    (1 << 18, 3): [0], (3, 1 << 18): [1], (400, 300, 7): [0, 1], (7, 90_001): [0, 1], (70_000, 2, 5): [0]
}  # fmt: skip


def _product(
    k: int, constant: bool, dynamic: bool, rng: np.random.Generator
) -> tuple[Graph, list[np.ndarray]]:
    a, b = rng.random((3, k), np.float32), rng.random((k, 17), np.float32)
    build = Builder()

    def parameter(array: np.ndarray):
        shape = (ANY,) * 2 if dynamic else array.shape
        return build.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output

    left = parameter(a)
    right = build.constant(b) if constant else parameter(b)
    y = build.add("Relu", [build.add("MatMul", [left, right]).output]).output
    return build.finish([y]), [a] if constant else [a, b]


@pytest.mark.parametrize("k", [LONG_SUM + 1, 8192, 100_003])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("dynamic", [False, True])
def test_products_of_great_depth(k: int, constant: bool, dynamic: bool) -> None:
    rng = np.random.default_rng(SEED)
    graph, arrays = _product(k, constant, dynamic, rng)
    b = graph.nodes[1].attrs["value"] if constant else arrays[1]
    want = arrays[0].astype(np.float64) @ b.astype(np.float64)
    (got,) = run(compile_graph(graph, {}), arrays)
    np.testing.assert_allclose(got, want, rtol=3e-6, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("turned", [False, True])
def test_products_of_few_rows_with_equal_numbers(turned: bool) -> None:
    a, b = (np.full((1, 100_003), x, np.float32) for x in (0.1, 0.3))
    build = Builder()
    left, right = (
        build.add("Parameter", (), {"shape": x.shape, "element_type": "f32"}).output
        for x in (a, b if turned else b.T)
    )
    graph = build.finish([build.add("MatMul", [left, right], {"transpose_b": turned}).output])
    (got,) = run(compile_graph(graph, {}), [a, b if turned else b.T.copy()])
    np.testing.assert_allclose(got, a.astype(np.float64) @ b.astype(np.float64).T, rtol=2e-5)


def test_short_products_have_no_second_kernel() -> None:
    rng = np.random.default_rng(SEED)
    for k, wanted in ((64, 0), (LONG_SUM, 0), (LONG_SUM + 1, 1)):
        for constant in (True, False):
            graph, _ = _product(k, constant, False, rng)
            kernels = [kernel.name for kernel in program_of(graph).kernels]
            assert sum("blocks" in name for name in kernels) == wanted, kernels
            assert sum(name.startswith("matmul_f32") for name in kernels) == 1, kernels


@pytest.mark.parametrize("name", ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reductions_of_many_equal_numbers(name: str, shape: tuple[int, ...]) -> None:
    """Equal numbers are the worst case: every addition rounds the same way."""
    axes = SHAPES[shape]
    array = np.full(shape, 0.1, np.float32)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY,) * len(shape), "element_type": "f32"}).output
    y = b.add(name, [x, b.constant(np.array(axes))], {"keep_dims": True}).output
    (got,) = run(compile_graph(b.finish([y]), {}), [array])
    wide = array.astype(np.float64)
    many = int(np.prod([shape[a] for a in axes]))
    total = {"ReduceMean": wide.flat[0], "ReduceL2": np.sqrt(wide.flat[0] ** 2 * many)}
    np.testing.assert_allclose(got, total.get(name, wide.flat[0] * many), rtol=2e-5)


REDUCED = {
    "ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceProd": np.prod,
    "ReduceL1": lambda a, axis: np.abs(a).sum(axis), "ReduceL2": lambda a, axis: np.sqrt((a * a).sum(axis)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f32", "i32", "f64"])
@pytest.mark.parametrize("name", in_turn(list(REDUCED), 2))
def test_rows_that_become_one_are_reduced_in_parts(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels last; numbers of rows that parts do not divide, and so few that there is one part; at open
    shapes too. The same bits."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    shapes = {(1, 67 * 61, 24): 8, (3, 4099, 7): 2, (1, 9, 20): 1, (9, 1031, 19): 1, (1, 19, 5000): 2}
    shapes[1, 8, 65_536] = 1  # rows too few for the results of parts to be read again
    for shape, parts in shapes.items():
        array = rng.integers(-9, 10, shape).astype(numpy_dtype(dtype))
        if name == "ReduceProd":
            array = rng.choice([-1, 1], shape).astype(array.dtype)
        want = REDUCED[name](array.astype(np.float64 if dtype != "i32" else np.int64), axis=1)
        want = np.trunc(want) if dtype == "i32" else want
        results = []
        for open_shape in (False, True):
            b = Builder()
            told = (ANY,) * 3 if open_shape else shape
            x = b.add("Parameter", (), {"shape": told, "element_type": dtype}).output
            y = b.add(name, [x, b.constant(np.array([1]))], {"keep_dims": False}).output
            executable = compile_graph(b.finish([y]), {})
            results += run(executable, [array])
            where = f"{name} of {dtype} {shape}, open: {open_shape}, seed {SEED}"
            np.testing.assert_allclose(results[-1], want, rtol=2e-6, atol=1e-6, err_msg=where)
            steps = executable.program.plan((shape,)).steps
            twice = open_shape or parts > 1
            assert len(steps) == 1 + twice, where
        assert results[0].tobytes() == results[1].tobytes(), f"{name} {shape}"


@pytest.mark.parametrize("dtype", some(["i8", "u64", "u16", "i32", "u8", "i16", "u32", "i64"], 2))
def test_means_and_roots_of_integers_are_exact(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are beyond the type; means are cut off towards 0, and roots too large are the largest number."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    kind = numpy_dtype(dtype)
    rng, limits = np.random.default_rng(SEED), np.iinfo(kind)
    high = limits.max if limits.bits < 64 else 1 << 20
    low = max(limits.min, -high)
    for shape, axis in (((5, 40), 1), ((40, 69), 0), ((3, 70_000), 1), ((2000, 9), 0), ((0, 4), 0)):
        array = rng.integers(low, high, shape, kind, endpoint=True)
        small = rng.integers(low // high, 4, shape).astype(kind)
        cases = [("Mean", array, False), ("Mean", -array if low else array, True)]
        for name, x, opened in [*cases, ("L2", small, False), ("L2", array, True)]:
            b = Builder()
            given = (ANY,) * 2 if opened else shape
            data = b.add("Parameter", (), {"shape": given, "element_type": dtype}).output
            twice = b.add("Maximum", [data, data]).output  # in front of it
            out = b.add(f"Reduce{name}", [twice, b.constant(np.array([axis]))], {"keep_dims": True}).output
            job = compile_graph(b.finish([out]), {"threads": 1}).new_job()
            run_job(job, [x])
            exact = x.astype(object)
            if name == "Mean":
                total, count = exact.sum(axis, keepdims=True), max(shape[axis], 1)
                want = [abs(int(t)) // count * (1 if t >= 0 else -1) for t in total.flat]
            else:
                want = [min(math.isqrt(int(t)), limits.max) for t in (exact * exact).sum(axis).flat]
            where = f"{name} of {dtype} {shape}, open: {opened}, seed {SEED}"
            assert [int(v) for v in job.outputs[0].flat] == want, where
            assert not any(row.exec_type.startswith("ref") for row in job.profile()), where


@pytest.mark.parametrize("name", ["Max", "Min", "Sum", "Mean", "Prod", "L1", "L2"])
def test_several_vectors_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reduced lies around what is kept, at widths around four vectors; none of it, too."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, record = np.random.default_rng(20261122), find_op(f"Reduce{name}")
    cases = ((5, 130), (0,)), ((2, 3, 4, 67), (0, 2)), ((3, 7, 64), (1,)), ((0, 65), (0,)), ((9, 500), 0)
    for shape, axes in cases:
        for opened in (False, True):
            x = rng.standard_normal(shape).astype(np.float32)
            if name in ("Max", "Min") and x.size:
                x.reshape(-1)[::11] = np.inf
            b = Builder()
            given = (ANY,) * len(shape) if opened else shape
            data = b.add("Parameter", (), {"shape": given, "element_type": "f32"}).output
            out = b.add(record, [data, b.constant(np.array(axes))], {"keep_dims": False}).output
            job = compile_graph(b.finish([out]), {"threads": 1}).new_job()
            run_job(job, [x])
            wide = x.astype(np.float64) if x.size else x  # of nothing it is a limit of the type
            (want,) = record.evaluate([wide, np.array(axes)], {"keep_dims": False})
            where = f"{shape} along {axes}, opened: {opened}"
            np.testing.assert_allclose(job.outputs[0], want, rtol=2e-5, atol=2e-5, err_msg=where)


#: How a reduction is computed in float64.
IN_NUMPY = {
    "ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max, "ReduceProd": np.prod,
    "ReduceL2": lambda x, *rest, **more: np.sqrt(np.square(x).sum(*rest, **more)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", some(["f32", "i32", "f16", "u8"], 2))
def test_reductions_of_short_rows_and_of_long_lines(dtype: str) -> None:
    """Rows shorter than a vector, lines of several vectors and less, in any order of the memory."""
    for case in range(24 if dtype == "f32" else 8):
        rng = np.random.default_rng([SEED, case])
        shape = [int(rng.choice([2, 3, 5, 7, 17, 40, 129])) for _ in range(int(rng.integers(2, 5)))]
        if math.prod(shape) > 60_000:
            continue
        axes = [-1] if case % 2 else sorted({int(a) for a in rng.integers(0, len(shape), 2)})
        order = rng.permutation(len(shape)).tolist() if case % 3 == 0 else list(range(len(shape)))
        data = rng.random(shape) * 0.5 + 0.75 if dtype[0] == "f" else rng.integers(0, 4, shape)
        data = data.astype(numpy_dtype(dtype))
        build = Builder()
        x = build.add("Parameter", (), {"shape": tuple(shape), "element_type": dtype}).output
        turned = build.add("Transpose", [x, build.constant(np.array(order))]).output
        name = list(IN_NUMPY)[case % len(IN_NUMPY)]
        if name == "ReduceL2" and dtype in ("i32", "u8"):
            name = "ReduceMax"
        outs = build.add(name, [turned, build.constant(np.array(axes))], {"keep_dims": False}).output
        compiled = compile_graph(build.finish([build.add("Abs", [outs]).output]), {})
        (got,) = run(compiled, [data])
        want = np.abs(IN_NUMPY[name](data.transpose(order).astype(np.float64), axis=tuple(axes)))
        if dtype in ("i32", "u8"):
            want = np.trunc(want) if dtype == "i32" else np.trunc(want) % 256
        tolerance = {"f32": 2e-6, "f16": 2e-3}.get(dtype, 0)
        np.testing.assert_allclose(
            got.astype(np.float64), want, rtol=tolerance, err_msg=f"{SEED} {case} {shape} {axes} {order}"
        )


@pytest.mark.parametrize("dtype", ["f32", "i32"])
@pytest.mark.parametrize("squared", [False, True])
def test_sums_of_pairs_read_nothing_behind_the_last(squared: bool, dtype: str) -> None:
    """Such as the power of complex numbers: pairs are read by whole vectors. Squares are summed in the same
    kernel. The input ends at an inaccessible page."""
    rng = np.random.default_rng(SEED)
    for count in (15, 16, 17, 31, 32, 33, 64, 65, 1000):
        data = rng.integers(-9, 9, (count, 2)).astype(numpy_dtype(dtype))
        build = Builder()
        x = build.add("Parameter", (), {"shape": data.shape, "element_type": dtype}).output
        y = build.add("Multiply", [x, x]).output if squared else x
        sums = build.add("ReduceSum", [y, build.constant(np.array([1]))], {"keep_dims": False}).output
        compiled = compile_graph(build.finish([sums]), {"threads": 1})
        kernels = {kernel.name for kernel in compiled.program.kernels}
        assert count < 16 or any("short" in name for name in kernels), kernels
        (got,) = guard_pages.run_job(compiled, compiled.new_job(), [data], guard_pages.BEHIND)
        np.testing.assert_array_equal(got, (data * data if squared else data).sum(1), err_msg=f"{count}")
