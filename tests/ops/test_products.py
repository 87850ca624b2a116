"""Matrix products and transposed convolutions with epilogues, batches and views, against float64."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest

import ovjit
from ovjit.codegen.cpu import host
from ovjit.codegen.cpu.formats import BF16, F32, U8I8
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.loading import addresses
from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.tiles.pack import panel_sizes
from ovjit_ops.matmul.cpu_products import pack_kernel
from tests.support.run import run_job
from tests.support.sweeps import in_turn

SEED = 20261122


def check_products(b: Builder, outputs, inputs, threads: int = 1):
    graph = b.finish(outputs)
    job = compile_graph(graph, {"threads": threads}).new_job()
    run_job(job, inputs)
    assert all(row.exec_type != "ref_numpy" for row in job.profile()), "a step ran on the host"
    wide = evaluate(graph, inputs)
    for got, expected in zip(job.outputs, wide, strict=True):
        assert got.shape == expected.shape
        scale = max(1.0, np.abs(expected).max()) if expected.size else 1
        np.testing.assert_allclose(got, expected, atol=2e-5 * scale, err_msg=f"seed {SEED}")
    return job.outputs


def parameter(b: Builder, shape):
    return b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output


CASES = [
    ((7, 33), (33, 17), (17,)), ((2, 3, 5, 8), (2, 3, 8, 40), (2, 3, 5, 40)),
    ((2, 3, 5, 8), (3, 8, 40), (1, 40)), ((4, 1, 5, 8), (1, 6, 8, 16), (4, 6, 5, 1)),
    ((5, 16), (16,), (5,)), ((16,), (3, 16, 7), (3, 7)), ((9,), (9,), ()),
    ((1, 64), (64, 1000), (1000,)), ((3, 0), (0, 4), (4,)), ((2, 2, 2, 3, 4), (2, 2, 2, 4, 5), (5,)),
    ((20, 33), (33, 17), (17,)), ((2, 3, 15, 8), (2, 3, 8, 40), (2, 3, 15, 40)),
    ((4, 1, 13, 8), (1, 6, 8, 16), (4, 6, 13, 1)),
]  # fmt: skip


@pytest.mark.parametrize(
    "case, flags",
    in_turn(list(itertools.product(CASES, [(False, False), (True, False), (False, True)])), 2),
    ids=str,
)
def test_product_with_epilogue(case, flags) -> None:
    """relu(a @ b + c) with every operand computed; by default every second case."""
    a, b_shape, c = case
    ta, tb = flags
    a = (*a[:-2], a[-1], a[-2]) if ta and len(a) > 1 else a
    b_shape = (*b_shape[:-2], b_shape[-1], b_shape[-2]) if tb and len(b_shape) > 1 else b_shape
    rng = np.random.default_rng(SEED)
    b = Builder()
    values = [parameter(b, s) for s in (a, b_shape, c)]
    product = b.add("MatMul", values[:2], {"transpose_a": ta, "transpose_b": tb}).output
    out = b.add("Relu", [b.add("Add", [product, values[2]]).output]).output
    inputs = [rng.standard_normal(s).astype(np.float32) for s in (a, b_shape, c)]
    one = check_products(b, [out], inputs)
    two = check_products(b, [out], inputs, 2)
    np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("form", [F32, BF16, U8I8], ids=["f32", "bf16", "u8i8"])
@pytest.mark.parametrize("steps", [(1, 40), (40, 1), (80, 2)], ids=["rows", "columns", "neither"])
@pytest.mark.parametrize("depth", in_turn([1, 2, 11, 12], 2))
@pytest.mark.parametrize("n", [1, 16, 17, 33])
def test_panels_of_computed_matrices(form, steps, depth, n) -> None:
    """Whatever lies adjacent; what is missing to the last word of a depth, and what fills a panel, is 0."""
    isa, kernel, size = host_target(), pack_kernel(host_target(), form), 4 // form.group
    sizes = panel_sizes(form.words(depth), n, isa)
    x = np.random.default_rng(SEED).integers(1, 1 << 8 * size, 40 * 80 + 80).astype(f"u{size}")
    y = np.full(sizes.group // 4 + 64, 7, np.uint32)
    panels = -(-n // sizes.width)
    named = {
        "x_k": steps[0] * size, "x_n": steps[1] * size if n > 1 else size, "size_k": depth, "size_n": n,
        "panel": sizes.panel, "blocks": panels, "item_count": panels, "per_chunk": panels,
    } | dict.fromkeys(("d0", "d1", "d2", "d3"), 1)  # fmt: skip
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(addresses([kernel])[kernel])
    bases = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    words = [0, 0, 1, 0, *(named.get(name, 0) for name, _ in kernel.frame.fields[2:])]
    call(bases.ctypes.data, np.array(words, np.int64).ctypes.data, 0, 0)
    matrix = np.zeros((form.words(depth) * form.group, n), x.dtype)
    matrix[:depth] = x[np.arange(depth)[:, None] * steps[0] + np.arange(n) * steps[1]]
    want = np.ascontiguousarray(matrix.reshape(-1, form.group, n).transpose(0, 2, 1)).view(np.uint32)[..., 0]
    at = 0
    for first in range(0, n, sizes.width):
        width = sizes.width if n - first > isa.lanes else isa.lanes
        panel = np.pad(want[:, first : first + width], ((0, 0), (0, max(0, width - (n - first)))))
        np.testing.assert_array_equal(y[at : at + panel.size].reshape(panel.shape), panel, f"seed {SEED}")
        at += panel.size
    assert at == sizes.group // 4 and (y[at:] == 7).all()


@pytest.mark.parametrize("dtype", in_turn(["i8", "i32", "i64", "u8", "f64"], 2))
@pytest.mark.parametrize("rows", [2, ANY], ids=["static", "open"])
def test_product_of_integers_before_floats(dtype, rows) -> None:
    """Sums by a stored matrix are scaled as floats, by a factor for each row and each column, as quantized
    layers do: with a step of its own behind the product."""
    rng = np.random.default_rng(SEED)
    low = 0 if dtype == "u8" else -2
    b = Builder()
    x = b.add("Parameter", (), {"shape": (rows, 8), "element_type": dtype}).output
    scale = parameter(b, (rows, 1))
    stored = rng.integers(low, 3, (8, 16)).astype(numpy_dtype(dtype))
    product = b.add("MatMul", [x, b.constant(stored, dtype)]).output
    wide = b.add("Convert", [product], {"destination_type": "f32"}).output
    by = b.add("Multiply", [scale, b.constant(np.full(16, 0.5, np.float32))]).output
    out = b.add("Divide", [wide, by]).output
    inputs = [rng.integers(low, 3, (2, 8)).astype(stored.dtype), np.array([[2], [3]], np.float32)]
    (got,) = check_products(b, [out], inputs)
    want = inputs[0].astype(np.float64) @ stored.astype(np.float64) / (inputs[1] * 0.5)
    np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("dtype", in_turn(["i8", "u8", "i32", "i64", "u16", "f64"], 2))
def test_products_in_their_own_type(dtype) -> None:
    """Blocks of rows that share columns, few rows, short columns, columns in parts and a broadcast batch,
    turned or not: integers wrap around as NumPy's, f64 is f64."""
    rng = np.random.default_rng(SEED)
    b, arrays, outputs, wanted = Builder(), [], [], []
    for left, right in (
        ((1, 7), (7, 9)), ((5, 30), (30, 33)), ((130, 70), (70, 50)), ((3, 2, 31, 20), (2, 20, 45)),
        ((2, 1, 3, 1, 5, 9), (1, 4, 1, 2, 9, 18)), ((2, 16, 30), (30, 33)), ((64, 800), (800, 9)),
        ((200, 420), (420, 20)),
    ):  # fmt: skip
        one, other = ((rng.standard_normal(s) * 99).astype(numpy_dtype(dtype)) for s in (left, right))
        for turned in (False, True):
            held = np.ascontiguousarray(other.swapaxes(-1, -2)) if turned else other
            ports = []
            for array in (one, held):
                arrays.append(array)
                attrs = {"shape": array.shape, "element_type": dtype}
                ports.append(b.add("Parameter", (), attrs).output)
            outputs.append(b.add("MatMul", ports, {"transpose_b": turned}).output)
            wanted.append(one @ other)
    graph = b.finish(outputs)
    for threads in (1, 2):
        job = compile_graph(graph, {"threads": threads}).new_job()
        run_job(job, arrays)
        assert all(row.exec_type != "ref_numpy" for row in job.profile()), "a step ran on the host"
        for got, want in zip(job.outputs, wanted, strict=True):
            message = f"{dtype} {want.shape} on {threads} threads, seed {SEED}"
            if dtype == "f64":
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-9, err_msg=message)
            else:
                np.testing.assert_array_equal(got, want, err_msg=message)


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.parametrize("open_shape", [False, True])
def test_products_of_integers_are_exact_whatever_their_size(open_shape, dtype) -> None:
    """Small elements are multiplied as floats, where no sum can pass 2^24: neither a sum at that bound nor
    one behind it is rounded, and what wraps around still does."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    attrs = {"shape": (ANY, ANY, ANY) if open_shape else (2, 60, 64), "element_type": dtype}
    right = {"shape": (ANY, ANY) if open_shape else (64, 40), "element_type": dtype}
    ports = [b.add("Parameter", (), a).output for a in (attrs, right)]
    job = compile_graph(b.finish([b.add("MatMul", ports, {}).output]), {"threads": 2}).new_job()
    kind = numpy_dtype(dtype).type
    lowest = np.iinfo(kind).min
    bounds = ((9, 9), (512, -511), (512, 512), (513, 513), (513, -513), (lowest, 1), (1, lowest))
    for most, other in bounds:
        for alone in (False, True):  # the largest is the last element, or nearly all are
            if alone:
                arrays = [rng.integers(-2, 3, shape).astype(kind) for shape in ((2, 60, 64), (64, 40))]
                arrays[0][-1, -1, -1], arrays[1][-1, -1] = most, other
            else:
                arrays = [np.full((2, 60, 64), most, kind), np.full((64, 40), other, kind)]
                arrays[0][0, 0, 0], arrays[1][0] = 512, 512
            run_job(job, arrays)
            message = f"{dtype} {most} {other} seed {SEED}"
            np.testing.assert_array_equal(job.outputs[0], arrays[0] @ arrays[1], err_msg=message)
    assert any(row.exec_type.startswith(f"magnitude_{dtype}") for row in job.profile())


@pytest.mark.parametrize("open_shape", [False, True])
def test_few_rows_and_lists_meet_matrices_where_they_lie(open_shape) -> None:
    """More columns than a block has, an odd depth, batches that broadcast along every other dimension, and
    matrices that are transposed or parts of others; NaN and infinities stay in their column."""
    rng = np.random.default_rng(SEED)
    for left, right, axes in (
        ((3, 1030), (1030, 601), None), ((3, 2, 12, 20), (1, 2, 20, 33), None), ((300, 37), (37,), None),
        ((2, 1, 3, 1, 1, 9), (1, 4, 1, 2, 9, 18), None), ((9,), (9,), None), ((1, 40), (700, 40), (1, 0)),
        ((40, 19), (40,), None), ((2, 1, 3, 1, 5, 9), (9,), None), ((1, 6, 4), (7, 5, 4), (1, 2, 0)),
    ):  # fmt: skip
        turned = left == (40, 19)
        shapes = [tuple(ANY for _ in s) if open_shape else s for s in (left, right)]
        b = Builder()
        x, w = (parameter(b, s) for s in shapes)
        if axes:
            w = b.add("Transpose", [w, b.constant(np.array(axes))]).output
        y = b.add("MatMul", [x, w], {"transpose_a": turned}).output
        y = b.add("Add", [y, b.constant(np.float32(2))]).output
        if y.shape:
            residual = b.add("Multiply", [y, b.constant(np.float32(-0.25))]).output
            y = b.add("Relu", [b.add("Add", [residual, y]).output]).output
        arrays = [rng.standard_normal(s, np.float32) for s in (left, right)]
        for special in (0.0, np.nan, np.inf):
            arrays[1].flat[arrays[1].size // 2] = special
            graph = b.finish([y])
            job = compile_graph(graph, {"threads": 2}).new_job()
            run_job(job, arrays)
            few = any(row.exec_type.startswith("matmul_few_") for row in job.profile())
            assert few == (right != (1, 4, 1, 2, 9, 18)), (left, right)  # tiles have those of four walks
            with np.errstate(invalid="ignore"):
                one, other = (a.astype(np.float64) for a in arrays)
                other = other.transpose(axes) if axes else other
                want = (one.T if turned else one) @ other + 2
                want = np.maximum(want * -0.25 + want, 0) if want.ndim else want
            message = f"{left} {right} {special} seed {SEED}"
            np.testing.assert_allclose(job.outputs[0], want, rtol=2e-5, atol=2e-4, err_msg=message)


def test_a_list_meets_a_matrix_whose_output_has_gaps() -> None:
    """The products of two lists side by side in one tensor, the matrix a part of another, turned."""
    rng = np.random.default_rng(SEED)
    b, parts = Builder(), []
    x = parameter(b, (2, 30, 3, 40))
    part = b.add("Transpose", [x, b.constant(np.array([2, 0, 3, 1]))]).output  # [3, 2, 40, 30]
    lists = [parameter(b, (30,)), parameter(b, (30,))]
    for v in lists:
        y = b.add("MatMul", [part, v]).output
        parts.append(b.add("Unsqueeze", [y, b.constant(np.array([3]))]).output)
    out = b.add("Concat", parts, {"axis": 3}).output
    check_products(b, [out], [rng.standard_normal(s, np.float32) for s in ((2, 30, 3, 40), (30,), (30,))], 2)


def test_attention() -> None:
    """softmax(q k') v on heads that are views of one tensor [batch, tokens, 3, heads, width]."""
    rng = np.random.default_rng(SEED)
    n, t, h, w = 2, 19, 3, 16
    b = Builder()
    x = parameter(b, (n, t, 3, h, w))
    parts = b.add("Split", [x, b.constant(np.array(2, np.int64))], {"num_splits": 3}).outputs
    heads = []
    for part in parts:
        flat = b.add("Squeeze", [part, b.constant(np.array([2], np.int64))]).output
        heads.append(b.add("Transpose", [flat, b.constant(np.array([0, 2, 1, 3], np.int64))]).output)
    scores = b.add("MatMul", heads[:2], {"transpose_b": True}).output
    scores = b.add("Multiply", [scores, b.constant(np.float32(w**-0.5))]).output
    weights = b.add("Softmax", [scores], {"axis": -1}).output
    out = b.add("MatMul", [weights, heads[2]]).output
    out = b.add("Transpose", [out, b.constant(np.array([0, 2, 1, 3], np.int64))]).output
    check_products(b, [out], [rng.standard_normal((n, t, 3, h, w)).astype(np.float32)], 2)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_transposed_convolution_with_epilogue(stride: int, dilation: int) -> None:
    """relu(deconvolution + bias + residual)"""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = parameter(b, (2, 5, 6, 7))
    w = b.constant(rng.standard_normal((5, 18, 3, 2)).astype(np.float32))
    attrs = {
        "strides": (stride, stride + 1),
        "dilations": (dilation, 1),
        "pads_begin": (1, 0),
        "pads_end": (0, 1),
    }
    y = b.add("ConvolutionBackpropData", [x, w], attrs).output
    shape = y.shape
    y = b.add("Add", [y, b.constant(rng.standard_normal((1, 18, 1, 1)).astype(np.float32))]).output
    y = b.add("Add", [y, parameter(b, shape)]).output
    out = b.add("Relu", [y]).output
    check_products(b, [out], [rng.standard_normal(s).astype(np.float32) for s in ((2, 5, 6, 7), shape)])


VOLUMES = [  # kernel, strides, dilations, groups
    ((2, 2, 2), (2, 2, 2), (1, 1, 1), 1), ((3, 3, 3), (2, 1, 2), (1, 1, 1), 1),
    ((4, 4, 4), (2, 2, 2), (1, 1, 1), 1), ((3, 4, 4), (1, 2, 2), (2, 1, 2), 1),
    ((3, 3, 1), (1, 2, 1), (1, 1, 3), 3), ((1, 3, 3), (1, 2, 3), (1, 2, 2), 3),
    ((2, 3, 1), (4, 2, 3), (1, 1, 1), 1),
]  # fmt: skip


@pytest.mark.parametrize("kernel, strides, dilations, groups", VOLUMES, ids=str)
@pytest.mark.parametrize("opened", [False, True])
def test_transposed_convolution_of_volumes(kernel, strides, dilations, groups, opened) -> None:
    """relu(deconvolution + bias + residual) of volumes, with several taps in one to three dimensions."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    shape = (2, 6, 3, 4, 5)
    x = parameter(b, (ANY, 6, ANY, ANY, 5) if opened else shape)
    filters = (6, 18, *kernel) if groups == 1 else (groups, 6 // groups, 18 // groups, *kernel)
    w = b.constant(rng.standard_normal(filters).astype(np.float32))
    attrs = {"strides": strides, "dilations": dilations, "pads_begin": (1, 0, 0), "pads_end": (0, 1, 0)}
    attrs["output_padding"] = (0, 0, 1)
    name = "ConvolutionBackpropData" if groups == 1 else "GroupConvolutionBackpropData"
    y = b.add(name, [x, w], attrs).output
    sizes = zip(shape[2:], strides, kernel, dilations, (-1, -1, 1), strict=True)
    out = (2, 18, *((n - 1) * s + (k - 1) * d + 1 + more for n, s, k, d, more in sizes))
    y = b.add("Add", [y, b.constant(rng.standard_normal((1, 18, 1, 1, 1)).astype(np.float32))]).output
    y = b.add("Add", [y, parameter(b, out)]).output
    inputs = [rng.standard_normal(s).astype(np.float32) for s in (shape, out)]
    check_products(b, [b.add("Relu", [y]).output], inputs)


COMPUTED = [  # data, filters (grouped: one dimension more), strides, dilations, pads
    ((2, 5, 9), (7, 5, 3), (2,), (1,), (1, 1)),
    ((2, 6, 11), (3, 5, 2, 3), (1,), (2,), (0, 3)),
    ((2, 3, 8, 9), (18, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 5, 7, 8), (33, 5, 1, 1), (1, 2), (1, 1), (0, 0)),
    ((1, 8, 9, 9), (2, 5, 4, 3, 2), (2, 1), (1, 2), (2, 1)),
    ((1, 12, 8, 8), (12, 1, 1, 3, 3), (1, 1), (1, 1), (0, 0)),
    ((2, 3, 4, 5, 6), (5, 3, 2, 3, 2), (1, 2, 1), (1, 1, 1), (1, 0)),
    ((1, 4, 4, 5, 6), (2, 3, 2, 2, 2, 3), (1, 1, 1), (1, 1, 2), (1, 1)),
]


@pytest.mark.parametrize("data, filters, strides, dilations, pads", in_turn(list(COMPUTED), 2), ids=str)
@pytest.mark.parametrize("dtype", ["f32", "f16", "f64", "i32"])
@pytest.mark.parametrize("opened", ["", "data", "filters"])
def test_convolution_by_computed_filters(data, filters, strides, dilations, pads, dtype, opened) -> None:
    """relu(convolution + bias + residual), with all of it computed."""
    rng = np.random.default_rng(SEED)
    grouped = len(filters) > len(data)
    rank = len(strides)
    attrs = {"strides": strides, "dilations": dilations, "pads_begin": (pads[0],) * rank,
             "pads_end": (pads[1],) * rank}  # fmt: skip
    kernel = filters[-rank:]
    outs = filters[0] * filters[1] if grouped else filters[0]
    spatial = (
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(data[2:], kernel, strides, dilations, strict=True)
    )
    shapes = (data, filters, (1, outs, *(1,) * rank), (data[0], outs, *spatial))
    b = Builder()
    many = {"data": 0, "filters": 1}.get(opened)
    given = [(ANY,) * len(s) if i == many else s for i, s in enumerate(shapes)]
    x, w, bias, more = (b.add("Parameter", (), {"shape": s, "element_type": dtype}).output for s in given)
    y = b.add("GroupConvolution" if grouped else "Convolution", [x, w], attrs).output
    y = b.add("Relu", [b.add("Add", [b.add("Add", [y, bias]).output, more]).output]).output
    arrays = [rng.uniform(-3, 3, s).astype(numpy_dtype(dtype)) for s in shapes]
    graph = b.finish([y])
    job = compile_graph(graph, {"threads": 2}).new_job()
    run_job(job, arrays)
    assert all(row.exec_type != "ref_numpy" for row in job.profile()), "a step ran on the host"
    want = evaluate(graph, arrays)[0].astype(np.float64)
    scale = max(1.0, np.abs(want).max())
    limit = {"f16": 2e-3, "f64": 1e-12, "i32": 0}.get(dtype, 2e-6) * scale
    got = job.outputs[0].astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=limit, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_lists_of_bytes_of_any_length(dtype: str) -> None:
    rng = np.random.default_rng(SEED)
    b = Builder()
    x, y = (b.add("Parameter", (), {"shape": (ANY,), "element_type": dtype}).output for _ in range(2))
    graph = b.finish([b.add("MatMul", (x, y), {"transpose_a": False, "transpose_b": False}).output])
    job = compile_graph(graph, {"threads": 1}).new_job()
    for length in (5, 0, 300):
        given = [rng.integers(0, 120, length).astype(numpy_dtype(dtype)) for _ in range(2)]
        run_job(job, given)
        want = np.dot(*(list_.astype(np.int64) for list_ in given)).astype(numpy_dtype(dtype))
        np.testing.assert_array_equal(job.outputs[0], want, err_msg=f"seed {SEED}: {length} elements")


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u16"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_constant_matrix_is_packed_once(dtype, turned) -> None:
    """Few and many rows meet the same panels, floats where those hold the elements; of matrices, too."""
    rng = np.random.default_rng(SEED)
    kind = numpy_dtype(dtype)
    real = kind.kind == "f"
    limits = [1] if real else [9, 2**24 - 1, 2**24, np.iinfo(kind).max]
    for limit in [n for n in limits if real or n <= np.iinfo(kind).max]:
        for shape in ((19, 33), (2, 1, 7, 5)):
            right = rng.integers(-9 if kind.kind == "i" else 0, 9, shape).astype(kind)
            right.flat[-1] = limit
            if kind.kind == "i":
                right.flat[0] = -limit
            b = Builder()
            x = b.add("Parameter", (), {"shape": (ANY, ANY, shape[-2]), "element_type": dtype}).output
            given = right.swapaxes(-1, -2).copy() if turned else right
            attrs = {"transpose_a": False, "transpose_b": turned}
            graph = b.finish([b.add("MatMul", (x, b.constant(given)), attrs).output])
            job = compile_graph(graph, {"threads": 2}).new_job()
            for rows in (1, 4, 5, 30, 0):
                for most in (9, 2**15):
                    left = rng.integers(-most if kind.kind == "i" else 0, most, (3, rows, shape[-2]))
                    left = left.astype(kind)
                    run_job(job, [left])
                    message = f"{dtype} {limit} {shape} {rows} {most} seed {SEED}"
                    with np.errstate(over="ignore"):
                        np.testing.assert_allclose(job.outputs[0], left @ right, rtol=1e-14, err_msg=message)
                    kinds = [row.exec_type for row in job.profile()]
                    assert [k.startswith("panel_product") for k in kinds].count(True) == (rows > 4), message
                    assert not any(k.startswith("put_together") for k in kinds), message


@pytest.mark.skipif("avx512bf16" not in host_target().extras, reason="no AVX512-BF16")
def test_widened_products_have_the_bits_of_dot_products(monkeypatch) -> None:
    """Rows for each height of tiles, sums in blocks, odd depths, and windows of images."""
    rng, op = np.random.default_rng(SEED), ovjit.opset13
    monkeypatch.setattr(host, "_host", host._host.__wrapped__)
    models = []
    for rows, depth, outs in ((31, 65, 40), (5, 9000, 48), (8, 33, 17)):
        x = op.parameter([rows, depth], np.float32)
        weights = rng.standard_normal((depth, outs)).astype(np.float32)
        models.append(ovjit.Model([op.relu(op.matmul(x, weights, False, False))], [x], "product"))
    for channels, kernel, stride in ((3, 7, 2), (17, 3, 2), (32, 1, 1)):
        x = op.parameter([1, channels, 19, 19], np.float32)
        weights = rng.standard_normal((33, channels, kernel, kernel)).astype(np.float32)
        pads = [kernel // 2] * 2
        y = op.convolution(x, weights, [stride] * 2, pads, pads, [1, 1])
        models.append(ovjit.Model([y], [x], "image"))
    for model in models:
        given = rng.standard_normal(list(model.input(0).shape)).astype(np.float32)
        results = []
        for slow in (False, True):
            monkeypatch.setattr(host, "_has_slow_dots", lambda slow=slow: slow)
            assert host_target().slow_dots == slow
            compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
            results.append(compiled([given])[0])
        np.testing.assert_array_equal(*results, err_msg=f"seed {SEED}")
        assert np.abs(results[0]).max() > 1


@pytest.mark.parametrize("turned", [False, True], ids=["column", "row"])
def test_transposed_matrices_times_few_columns(turned) -> None:
    """The columns are the rows of a product with the matrices, in place if they are few, also for a broadcast
    batch. What is transposed first is the smaller side."""
    rng = np.random.default_rng(SEED)
    for left, right, fused, few in (
        ((40, 129), (40, 1), False, True), ((3, 1, 33, 50), (2, 33, 1), False, True),
        ((40, 129), (40, 1), True, False), ((1, 20), (1, 1), False, True), ((9, 530), (9, 2), False, True),
        ((3, 1, 33, 50), (2, 33, 7), False, True), ((5000, 13), (5000, 12), False, True),
        ((2, 9, 14), (2, 9, 14), False, False),
    ):  # fmt: skip
        other = (*right[:-2], right[-1], right[-2]) if turned else right
        b = Builder()
        values = [parameter(b, shape) for shape in (left, other)]
        out = b.add("MatMul", values, {"transpose_a": True, "transpose_b": turned}).output
        out = b.add("Relu", [out]).output if fused else out
        graph = b.finish([out])
        plan = compile_graph(graph, {"threads": 1}).table((left, other)).plan
        assert any("few" in s.kernel.name for s in plan.steps) == few, left
        inputs = [rng.standard_normal(shape).astype(np.float32) for shape in (left, other)]
        check_products(b, [out], inputs, 2)


@pytest.mark.parametrize("turned", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize("columns", [13, 20, 70])
def test_the_smaller_side_of_a_product_is_transposed(columns, turned) -> None:
    rng = np.random.default_rng((SEED, columns))
    for left, right in (((130, 257), (130, columns)), ((2, 1, 75, 99), (3, 75, columns))):
        other = (*right[:-2], right[-1], right[-2]) if turned else right
        b = Builder()
        values = [parameter(b, shape) for shape in (left, other)]
        out = b.add("MatMul", values, {"transpose_a": True, "transpose_b": turned}).output
        plan = compile_graph(b.finish([out]), {"threads": 1}).table((left, other)).plan
        swapped = columns * (left[-2] + 2 * left[-1]) < left[-1] * left[-2]
        moved = {s.bytes for s in plan.steps if s.kernel.name.startswith("transpose_i32")}
        assert (2 * 4 * int(np.prod(left)) in moved) != swapped, (left, columns, moved)
        check_products(
            b, [out], [rng.standard_normal(shape).astype(np.float32) for shape in (left, other)], 2
        )


def test_large_batches_of_computed_matrices_are_packed_in_parts() -> None:
    """Parts of a batch fit the second-level cache: bits are those of each product alone."""
    rng = np.random.default_rng(SEED)
    shapes = (5, 20, 300), (5, 300, 500)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    b = Builder()
    out = b.add("MatMul", [parameter(b, shape) for shape in shapes]).output
    graph = b.finish([out])
    steps = compile_graph(graph, {"threads": 1}).table(shapes).plan.steps
    assert sum(s.kernel.name.startswith("matmul") for s in steps) > 1
    (got,) = check_products(b, [out], inputs, 2)
    for i in range(5):
        c = Builder()
        alone = c.add("MatMul", [parameter(c, shape[1:]) for shape in shapes]).output
        (want,) = check_products(c, [alone], [x[i] for x in inputs])
        np.testing.assert_array_equal(got[i], want)
