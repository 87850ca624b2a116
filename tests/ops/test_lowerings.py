"""Native lowerings where the samples of single operations do not reach.

Views read by kernels, indices that data brings, ties and NaN, open dimensions; nothing falls back to NumPy.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ovjit as ov
import ovjit_ops
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import target_of
from ovjit.compiler import compile as compile_program
from ovjit.compiler.options import Options
from ovjit.engine import compile_graph
from ovjit.errors import InferenceError, OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op, TensorType
from ovjit.graph.shapes import ANY
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner
from ovjit.rewrite.rules import run_rules
from ovjit_ops.convolution import convolution, cpu_depthwise
from ovjit_ops.convolution.convolution import convolve, convolve_transposed, of_taps_that_meet_data
from ovjit_ops.convolution.cpu_convolution import TiledConvolution
from ovjit_ops.image.cpu_columns import window_counts
from tests.support.compiled import program_of
from tests.support.graph_nets import add, parameter
from tests.support.op_samples import SEED, graph_of, native_ops
from tests.support.run import run
from tests.support.samples import samples_of
from tests.support.sweeps import in_turn, some


def native(graph: Graph, *arrays: np.ndarray) -> list[np.ndarray]:
    """The graph's outputs; it may not have a host step."""
    executable = compile_graph(graph, {"threads": 1})
    assert not executable.table(tuple(a.shape for a in arrays)).host, f"host steps in\n{graph}"
    return run(executable, arrays)


SHAPE = (2, 4, 6, 6)
OPEN = {"begin_mask": (0, 0), "end_mask": (0, 0)}

#: Views of a [2, 4, 6, 6] tensor that have its shape again.
VIEWS: dict[str, Callable[[Builder, Value], Value]] = {
    "reversed channels": lambda b, x: add(b, "Slice", x, [3], [-9], [-1], [1]),
    "reversed rows": lambda b, x: add(b, "Slice", x, [-1, 5], [-9, -9], [-1, -1], [3, 2]),
    "one row": lambda b, x: add(
        b, "Broadcast", add(b, "StridedSlice", x, [0, 1], [0, 2], [1, 1], begin_mask=(1, 0), end_mask=(1, 0)),
        list(SHAPE), mode="numpy",
    ),
    "one column": lambda b, x: add(b, "Broadcast", add(b, "Gather", x, [2], 3), list(SHAPE), mode="numpy"),
    "one image": lambda b, x: add(
        b, "Broadcast", add(b, "StridedSlice", x, [1], [2], [1], begin_mask=(0,), end_mask=(0,)), list(SHAPE),
        mode="numpy",
    ),
    "picked": lambda b, x: add(b, "Gather", x, [2, 0, 3, 3], 1, batch_dims=0),
    "even": lambda b, x: add(b, "Gather", add(b, "Concat", x, x, axis=2), [10, 8, 6, 4, 2, 0], 2),
}  # fmt: skip

POOL = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "kernel": (3, 3)}
#: What may read a view.
READERS: dict[str, Callable[[Builder, Value], Value]] = {
    "nothing": lambda b, x: x,
    "Add": lambda b, x: add(b, "Add", x, np.float32(1)),
    "Multiply": lambda b, x: add(b, "Multiply", x, add(b, "Transpose", x, [0, 1, 3, 2])),
    "ReduceSum": lambda b, x: add(b, "ReduceSum", x, [1]),
    "ReduceMax": lambda b, x: add(b, "ReduceMax", x, [2, 3]),
    "ReduceMean": lambda b, x: add(b, "ReduceMean", x, [3], keep_dims=True),
    "Softmax": lambda b, x: add(b, "Softmax", x, axis=1),
    "MatMul": lambda b, x: add(b, "MatMul", x, np.linspace(-1, 1, 30, dtype=np.float32).reshape(6, 5)),
    "Convolution": lambda b, x: add(
        b, "Convolution", x, np.linspace(-1, 1, 108, dtype=np.float32).reshape(3, 4, 3, 3), strides=(1, 1),
        pads_begin=(1, 1), pads_end=(1, 1), dilations=(1, 1),
    ),
    "MaxPool": lambda b, x: add(b, "MaxPool", x, **POOL),
    "AvgPool": lambda b, x: add(b, "AvgPool", x, exclude_pad=True, **POOL),
    "Concat": lambda b, x: add(b, "Concat", x, x, axis=1),
    "Reshape": lambda b, x: add(b, "Reshape", x, [4, -1], special_zero=False),
    "Pad": lambda b, x: add(b, "Pad", x, [0, 1, 2, 3], [0, 2, 1, 0], pad_mode="reflect"),
    "Gather": lambda b, x: add(b, "Gather", x, [5, -1, 0, 2], 3, batch_dims=0),
    "CumSum": lambda b, x: add(b, "CumSum", x, 2, exclusive=True, reverse=True),
    "LRN": lambda b, x: add(b, "LRN", x, [1], alpha=1.0, beta=0.6, bias=1.0, size=3),
    "MVN of rows": lambda b, x: add(b, "MVN", x, [-1], eps=1e-3),
    "MVN of images": lambda b, x: add(b, "MVN", x, [1, 2, 3], eps=1e-3, eps_mode="outside_sqrt"),
    "MVN of space": lambda b, x: add(b, "MVN", x, [2, 3], eps=1e-3),
    "DepthToSpace": lambda b, x: add(b, "DepthToSpace", x, block_size=2, mode="blocks_first"),
    "Tile": lambda b, x: add(b, "Tile", x, [1, 2, 1, 2]),
    "Roll": lambda b, x: add(b, "Roll", x, [1, -2], [2, 3]),
    "TopK": lambda b, x: add(b, "TopK", x, 2, axis=3, mode="max", sort="value"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_views_are_read_right(reader: str) -> None:
    """Every view, of an input and of a convolution's channels-last result, under every reader."""
    b = Builder()
    data = np.random.default_rng(SEED).uniform(-2, 2, SHAPE).astype(np.float32)
    x = parameter(b, data)
    filters = np.random.default_rng(SEED).uniform(-1, 1, (4, 4, 1, 1)).astype(np.float32)
    window = {"strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
    conv = add(b, "Convolution", x, filters, **window)
    outputs = [READERS[reader](b, view(b, v)) for view in VIEWS.values() for v in (x, conv)]
    graph = b.finish(outputs)
    expected = evaluate(graph, [data])
    names = [f"{reader} of {name} of {v}" for name in VIEWS for v in ("input", "convolution")]
    for name, got, want in zip(names, native(graph, data), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=name)


TORN: dict[str, Callable[[Builder, Value], Value]] = {
    "MVN": lambda b, x: add(b, "MVN", x, [2, 3, 4], eps=1e-3),
    "CumSum": lambda b, x: add(b, "CumSum", x, 0),
    "LRN": lambda b, x: add(b, "LRN", x, [0], alpha=1.0, beta=0.5, bias=1.0, size=3),
    "Softmax": lambda b, x: add(b, "Softmax", x, axis=0),
    "ReduceSum": lambda b, x: add(b, "ReduceSum", add(b, "Unsqueeze", x, [5]), [5]),
    "TopK": lambda b, x: add(b, "TopK", x, 3, axis=0, mode="min", sort="value"),
    "Gather": lambda b, x: add(b, "Gather", x, [2, 0, 1], 1, batch_dims=0),
    "Pad": lambda b, x: add(b, "Pad", x, [0, 0, 1, 0, 0], [0, 0, -1, 0, 0], pad_mode="reflect"),
}


@pytest.mark.parametrize("name", TORN)
def test_results_that_are_torn_apart(name: str) -> None:
    """A slice in every dimension is read, and the result is part of a concatenation: nothing merges."""
    b = Builder()
    data = np.random.default_rng(SEED).uniform(-2, 2, (4, 4, 4, 4, 4)).astype(np.float32)
    x = parameter(b, data)
    part = add(b, "Slice", x, [0] * 5, [3] * 5, [1] * 5, list(range(5)))
    alone = whole = TORN[name](b, part)
    for axis in (4, 3, 2, 1, 0):
        whole = add(b, "Concat", whole, add(b, "Relu", whole), axis=axis)
    graph = b.finish([whole, alone])
    for got, want in zip(native(graph, data), evaluate(graph, [data]), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=name)


INDEXED: dict[str, Callable[[Builder, Value, Value], Value]] = {
    "GatherElements": lambda b, x, i: add(
        b, "GatherElements", x, add(b, "Broadcast", add(b, "Unsqueeze", i, [1]), [3, 5], mode="numpy"), axis=0
    ),
    "GatherND": lambda b, x, i: add(b, "GatherND", x, add(b, "Unsqueeze", i, [1])),
    "ScatterUpdate": lambda b, x, i: add(b, "ScatterUpdate", x, i, np.ones((3, 5), np.float32), 0),
    "ScatterNDUpdate": lambda b, x, i: add(
        b, "ScatterNDUpdate", x, add(b, "Unsqueeze", i, [1]), np.ones((3, 5), np.float32)
    ),
    "ScatterElementsUpdate": lambda b, x, i: add(
        b, "ScatterElementsUpdate", x, add(b, "Unsqueeze", i, [1]), np.ones((3, 1), np.float32), 0
    ),
}


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("index", (np.int64, np.int32), ids=("i64", "i32"))
def test_indices_out_of_range_are_refused(name: str, index: Any) -> None:
    """Nothing outside of the data is touched, and the next inference is right."""
    b = Builder()
    data = np.arange(20, dtype=np.float32).reshape(4, 5)
    x, i = parameter(b, data), parameter(b, np.zeros(3, index))
    graph = b.finish([INDEXED[name](b, x, i)])
    executable = compile_graph(graph, {"threads": 1})
    assert not executable.table((data.shape, (3,))).host
    for wrong in (4, -5, np.iinfo(index).max, np.iinfo(index).min):
        with pytest.raises(InferenceError, match="out of range"):
            run(executable, [data, np.array([0, wrong, 1], index)])
        good = [data, np.array([3, -4, 1], index)]
        np.testing.assert_array_equal(run(executable, good)[0], evaluate(graph, good)[0])


@pytest.mark.parametrize("axis", (0, 1))
def test_gather_gives_zeros_for_indices_out_of_range(axis: int) -> None:
    b = Builder()
    data = np.arange(1, 18 * 5 + 1, dtype=np.float32).reshape(5, 18)
    indices = np.array([[0, -1, 99], [-19, 4, -(2**62)]])
    x, i = parameter(b, data), parameter(b, indices)
    graph = b.finish([add(b, "Gather", x, i, axis, batch_dims=0)])
    (got,) = native(graph, data, indices)
    np.testing.assert_array_equal(got, evaluate(graph, [data, indices])[0])
    assert (got == 0).any()


@pytest.mark.parametrize("reduction", in_turn(("none", "sum", "prod", "min", "max", "mean"), 2))
@pytest.mark.parametrize("dtype", ("f32", "i32"))
def test_places_that_several_updates_name(reduction: str, dtype: str) -> None:
    """The last update wins, or all are joined; also where one index broadcasts."""
    b = Builder()
    rng = np.random.default_rng(SEED)
    limit = 2 if dtype == "f32" else 20
    data = rng.uniform(-limit, limit, (3, 40)).astype(dtypes.numpy_dtype(dtype))
    updates = rng.uniform(-limit, limit, (3, 64)).astype(dtypes.numpy_dtype(dtype))
    indices = rng.integers(-40, 40, (3, 64))
    one = np.array([[7]])
    x, u, i, j = (parameter(b, a) for a in (data, updates, indices, one))
    same = add(b, "Broadcast", j, [3, 64], mode="numpy")
    graph = b.finish([
        add(b, "ScatterElementsUpdate", x, k, u, 1, reduction=reduction, use_init_val=first)
        for k in (i, same) for first in (True, False)
    ])  # fmt: skip
    arrays = [data, updates, indices, one]
    for got, want in zip(native(graph, *arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("dtype", in_turn(("f32", "f64", "f16", "bf16", "i8", "u64"), 2))
@pytest.mark.parametrize("mode", ("max", "min"))
def test_topk_orders_as_the_reference(dtype: str, mode: str) -> None:
    """Ties, zeros of both signs, infinities and NaN: values and positions."""
    rng = np.random.default_rng(SEED)
    data = rng.integers(0, 9, (4, 50)).astype(np.float64)
    if dtype[0] not in "iu":
        data -= 4
        data[:, :12:2] = [np.nan, np.inf, -np.inf, -0.0, 0.0, np.nan]
    data = data.astype(dtypes.numpy_dtype(dtype))
    if dtype == "u64":
        data[:, 3] = np.uint64(2**64 - 1)
    b = Builder()
    x = parameter(b, data)
    outputs: list[Value] = []
    for sort in ("value", "index"):
        for k in (0, 1, 7, 50):
            attrs = {"axis": 1, "mode": mode, "sort": sort, "index_element_type": "i64"}
            outputs += b.add("TopK", [x, b.constant(np.array(k))], attrs).outputs
    graph = b.finish(outputs)
    for got, want in zip(native(graph, data), evaluate(graph, [data]), strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))


def top(data: np.ndarray, axis: int, k: int) -> Graph:
    b = Builder()
    attrs = {"axis": axis, "mode": "max", "sort": "value", "index_element_type": "i32"}
    return b.finish(b.add("TopK", [parameter(b, data), b.constant(np.array(k))], attrs).outputs)


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize(("shape", "axis"), [((60, 9, 5), 0), ((3, 45, 4, 3, 2), 1), ((47, 1), 0)], ids=str)
def test_topk_goes_along_all_dimensions_that_lie_together(shape, axis, k, monkeypatch) -> None:
    """Those behind the axis are one: vectors have neighbours from all of them."""
    seen, share_step = [], Planner.share_step

    def noted(self: Planner, kernel: Any, values: Any, *rest: Any, **more: Any) -> None:
        seen.append(values.get("size_lanes", 1))
        share_step(self, kernel, values, *rest, **more)

    monkeypatch.setattr(Planner, "share_step", noted)
    data = np.random.default_rng(SEED).integers(0, 9, shape).astype(np.float32)
    graph = top(data, axis, k)
    for got, want in zip(native(graph, data), evaluate(graph, [data]), strict=True):
        np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}")
    assert set(seen) == {int(np.prod(shape[axis + 1 :]))}


def test_means_of_short_rows_read_no_numbers_that_nobody_wrote() -> None:
    """A product with denormals takes a hundred cycles, and integers that something else has left in working
    memory are such: means took ten times as long as the largest elements do."""
    rng = np.random.default_rng(SEED)
    data, other = (rng.standard_normal(s).astype(np.float32) for s in ((2, 256, 7, 7), (1, 9000)))
    spoil = compile_graph(top(other, 1, 4000), {"threads": 1})
    times = {}
    for name, more in (("MaxPool", {}), ("AvgPool", {"exclude_pad": True})):
        b = Builder()
        y = add(b, name, parameter(b, data), kernel=(3, 3), **SAME, **more)
        job = compile_graph(b.finish([y]), {"threads": 1}).new_job()
        job.set_input(0, data)
        run(spoil, [other])
        spent = []
        for _ in range(20):
            before = time.process_time_ns()
            job.run()
            spent.append(time.process_time_ns() - before)
        times[name] = min(spent)
    assert times["AvgPool"] < 4 * times["MaxPool"], times


SAME = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
HALF: dict[str, Callable[[Builder, Value, Any], Value]] = {
    "Convolution": lambda b, x, t: add(
        b, "Convolution", x, np.linspace(-1, 1, 108).reshape(3, 4, 3, 3).astype(t), dilations=(1, 1), **SAME
    ),
    "GroupConvolution": lambda b, x, t: add(
        b, "GroupConvolution", x, np.linspace(-1, 1, 36).reshape(4, 1, 1, 3, 3).astype(t), dilations=(1, 1),
        **SAME,
    ),
    "MatMul": lambda b, x, t: add(b, "MatMul", x, np.linspace(-1, 1, 30).reshape(6, 5).astype(t)),
    "MaxPool": lambda b, x, t: add(b, "MaxPool", x, kernel=(3, 3), **SAME),
    "AvgPool": lambda b, x, t: add(b, "AvgPool", x, kernel=(3, 3), exclude_pad=True, **SAME),
    "Softmax": lambda b, x, t: add(b, "Softmax", x, axis=1),
    "LRN": lambda b, x, t: add(b, "LRN", x, [1], alpha=1.0, beta=0.75, bias=1.0, size=3),
    "MVN": lambda b, x, t: add(b, "MVN", x, [2, 3], eps=1e-3, normalize_variance=True),
}  # fmt: skip


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", (np.float16, ml_dtypes.bfloat16), ids=("f16", "bf16"))
def test_halves_run_natively(name: str, dtype: Any) -> None:
    """Within a unit of the half type of the reference, which accumulates in f32 too."""
    data = np.random.default_rng(SEED).uniform(-2, 2, SHAPE).astype(dtype)
    b = Builder()
    graph = b.finish([HALF[name](b, parameter(b, data), dtype)])
    (got,) = native(graph, data)
    want = evaluate(graph, [data])[0].astype(np.float64)
    assert got.dtype == dtype
    unit = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=unit, atol=unit / 16)


def test_open_dimensions() -> None:
    """One compilation, several shapes: what depends on the extents follows them."""
    b = Builder()
    x = parameter(b, np.empty((1, 4, 6, 6), np.float32), (ANY, 4, ANY, ANY))
    lengths = add(b, "ShapeOf", x, output_type="i64")
    height = add(b, "Gather", lengths, [2], 0)
    outputs = [
        add(b, "Slice", x, [-1], [-99], [-2], [2]),
        add(b, "Slice", x, [1], height, [1], [2]),
        add(b, "Pad", x, [0, 0, 1, 2], [0, 0, 2, 1], pad_mode="symmetric"),
        add(b, "Pad", x, [0, 0, -1, 2], [0, 0, 2, -1], np.float32(3), pad_mode="constant"),
        add(b, "Tile", x, [2, 1, 1, 3]),
        add(b, "Roll", x, [1, 2], [0, 3]),
        add(b, "DepthToSpace", x, block_size=2, mode="depth_first"),
        add(b, "Gather", x, [-1, 0], 3, batch_dims=0),
        add(b, "CumSum", x, 3),
        add(b, "LRN", x, [1], alpha=1.0, beta=0.75, bias=1.0, size=5),
        add(b, "AdaptiveAvgPool", x, [1, 1]),
        add(b, "GroupNormalization", x, *np.ones((2, 4), np.float32), num_groups=2, epsilon=1e-3),
        add(b, "BatchNormInference", x, *(np.full(4, v, np.float32) for v in (2, 1, 3, 4)), epsilon=1e-3),
    ]
    graph = b.finish(outputs)
    executable = compile_graph(graph, {"threads": 1})
    for shape in ((1, 4, 6, 6), (2, 4, 3, 17), (1, 4, 33, 2), (0, 4, 5, 5)):
        data = np.random.default_rng(SEED).uniform(-2, 2, shape).astype(np.float32)
        got = run(executable, [data])
        for i, (a, want) in enumerate(zip(got, evaluate(graph, [data]), strict=True)):
            np.testing.assert_allclose(a, want, rtol=1e-4, atol=1e-4, err_msg=f"output {i} of {shape}")


def test_shared_rows_give_the_same_bits() -> None:
    """Large enough for several chunks: two threads, one thread and the reference agree."""
    b = Builder()
    rng = np.random.default_rng(SEED)
    data = rng.uniform(-2, 2, (96, 64, 80)).astype(np.float32)
    indices = rng.permutation(64)
    x, i = parameter(b, data), parameter(b, indices)
    graph = b.finish([
        add(b, "Gather", x, i, 1, batch_dims=0),
        add(b, "Gather", x, i, 2, batch_dims=0),
        add(b, "ScatterUpdate", x, i, add(b, "Relu", x), 1),
        add(b, "TopK", x, 5, axis=1, mode="max", sort="value"),
        add(b, "CumSum", x, 1),
        add(b, "LRN", x, [2], alpha=1.0, beta=0.75, bias=1.0, size=5),
        add(b, "Pad", x, [1, 0, 2], [0, 1, 3], pad_mode="edge"),
    ])  # fmt: skip
    arrays = [data, indices]
    one, two = (run(compile_graph(graph, {"threads": n}), arrays) for n in (1, 2))
    for a, c, want in zip(one, two, evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_allclose(a, want, rtol=1e-5, atol=1e-5)


def test_lrn_of_planes() -> None:
    """Planes longer and shorter than a block: columns adjacent, apart, or of a last dimension of 1."""
    rng = np.random.default_rng(SEED)
    cases = ((2, 7, 5, 120), 1, 5), ((3, 2, 9), 1, 5), ((4, 300), 0, 3), ((2, 3, 5, 4), 2, 7)
    for shape, axis, size in cases:
        data = rng.uniform(-2, 2, shape).astype(np.float32)
        b = Builder()
        x = parameter(b, data)
        rank, last = len(shape), len(shape) - 1
        thin = add(b, "Slice", x, [0], [1], [1], [last])
        spaced = add(b, "Slice", x, [0], [99], [2], [last])
        alone = add(b, "Unsqueeze", spaced, [rank])
        settings: dict[str, Any] = {"alpha": 1.0, "beta": 0.75, "bias": 1.0, "size": size}
        graph = b.finish([add(b, "LRN", v, [axis], **settings) for v in (x, thin, spaced, alone)])
        for name, got, want in zip(
            ("x", "thin", "spaced", "alone"), native(graph, data), evaluate(graph, [data]), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=2e-5, err_msg=f"{name} of {shape} along {axis}")


#: What has a lowering that does not cover all of its samples, and why.
PARTLY = {
    "AdaptiveMaxPool": "three spatial dimensions",
    "Softmax": "a single number",
    "LogSoftmax": "a single number",
    "Einsum": "diagonals",
    "DetectionOutput": "the decoding of boxes, and decrease_label_id",
    "GroupedMatMul": "offsets",
    "NonMaxSuppression": "the cutting off of what is not chosen",
    "RecurrentSteps": "computed weights",
}


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("record", in_turn(native_ops(), 2, 1), ids=lambda r: f"{r.name}-{r.opset}")
def test_samples_have_no_host_steps(record: Op, step: int) -> None:
    """But for those in PARTLY; every third sample of every second operation by default."""
    types = record.types
    dtype = "f32" if "f32" in types else types[0]
    found = []
    for inputs, attrs in list(samples_of(record, np.random.default_rng(SEED), dtype))[::step]:
        graph, _ = graph_of(record, inputs, attrs, dtype)
        if any(a.size == 0 for a in inputs):
            continue  # reductions over nothing
        steps = program_of(graph).plan([v.shape for v in graph.inputs]).steps
        if any(s.host for s in steps):
            found.append(f"{record!r} {[a.shape for a in inputs]} {attrs}")
    assert not found or record.name in PARTLY, found


@pytest.mark.parametrize("name", ["GatherElements", "Gather", "ScatterElementsUpdate", "sum", "GatherND"])
@pytest.mark.parametrize("open_shape", [False, True])
def test_runs_of_single_elements(name: str, open_shape: bool) -> None:
    """Where every element has an index, many are taken at a time: 5,003 of them in a row, and few of many
    rows, from both ends. One index out of range, wherever it is, is an error, or 0 where the operation says
    so."""
    rng = np.random.default_rng(SEED)
    for extent, many in (((9000,), (5003,)), ((40, 300), (40, 7)), ((3, 2, 90), (3, 2, 33))):
        data = rng.standard_normal(extent).astype(np.float32)
        axis = len(extent) - 1
        index = rng.integers(-extent[-1], extent[-1], many if name != "Gather" else many[-1:])
        if name == "GatherND":
            index = np.stack([rng.integers(-e, e, many) for e in extent], -1)
        update = rng.standard_normal(many).astype(np.float32)
        b = Builder()
        arrays = [data, index] + ([update] if name in ("ScatterElementsUpdate", "sum") else [])
        x, i, *u = (parameter(b, a, (ANY,) * a.ndim if open_shape else None) for a in arrays)
        if u:
            how = {"reduction": "sum"} if name == "sum" else {}
            y = add(b, "ScatterElementsUpdate", x, i, *u, axis, **how)
        elif name == "Gather":
            y = add(b, "Gather", x, i, axis)
        else:
            y = add(b, name, x, i, **({"axis": axis} if name == "GatherElements" else {}))
        graph = b.finish([y])
        executable = compile_graph(graph, {})
        got = run(executable, arrays)[0]
        want = evaluate(graph, arrays)[0]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=f"seed {SEED}")
        for at in (0, -1):
            wrong = index.copy()
            wrong.reshape(-1)[at] = 10 * max(extent)
            if name == "Gather":
                rows = run(executable, [data, wrong])[0]
                np.testing.assert_array_equal(rows, evaluate(graph, [data, wrong])[0])
            else:
                with pytest.raises(InferenceError):
                    run(executable, [data, wrong, *arrays[2:]])


@pytest.mark.parametrize("open_shape", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8"])
def test_windows_are_added_up(open_shape: bool, dtype: str) -> None:
    """Col2Im of windows that overlap, leave gaps, or lie outside of the picture; of turned data, of none."""
    rng = np.random.default_rng(SEED)
    for lead, size, kernel, attrs in (
        ((2, 3), (17, 19), (3, 2), {"strides": (1, 1), "pads_begin": (1, 3), "pads_end": (2, 0)}),
        ((1, 2), (20, 33), (2, 17), {"strides": (3, 4)}),
        ((2, 1), (9, 8), (2, 3), {"strides": (2, 1), "dilations": (3, 2), "pads_end": (0, 40)}),
        ((0, 2), (5, 5), (2, 2), {}),
    ):
        full = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), **attrs}
        counts = window_counts(size, kernel, full)
        shape = (lead[0], lead[1] * kernel[0] * kernel[1], counts[0] * counts[1])
        data = (rng.standard_normal(shape) * 9).astype(dtypes.numpy_dtype(dtype))
        for turned in (False, True):
            given = data.transpose(0, 2, 1).copy() if turned else data
            b = Builder()
            x = parameter(b, given, (ANY,) * 3 if open_shape else None)
            y = add(b, "Transpose", x, [0, 2, 1]) if turned else x
            graph = b.finish([add(b, "Col2Im", y, np.array(size), np.array(kernel), **full)])
            got = native(graph, given)[0]
            want = evaluate(graph, [given])[0]
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4, err_msg=f"{shape} seed {SEED}")
            if open_shape:
                with pytest.raises(OvjitError):
                    native(graph, np.concatenate([given, given], 1 + (not turned)))


def test_taps_that_meet_no_data_are_left_out() -> None:
    """A window over less than itself, one spread wider than the image, one that only padding follows: the
    same answers as of the whole window, and fewer taps where they decide nothing else."""
    rng = np.random.default_rng(SEED)
    for size, kernel, attrs, fewer in (
        ((1, 4, 5), (3, 3, 3), {"pads_begin": (1, 1, 1), "pads_end": (1, 1, 1)}, (1, 3, 3)),
        ((7, 7), (3, 3), {"pads_begin": (12, 12), "pads_end": (12, 12), "dilations": (12, 12)}, (1, 1)),
        ((9, 9), (3, 3), {"pads_begin": (6, 6), "pads_end": (6, 6), "dilations": (6, 6)}, (3, 3)),
        ((2, 1), (5, 3), {"strides": (3, 2), "auto_pad": "same_upper"}, (2, 1)),
        ((3,), (2,), {"pads_end": (7,), "dilations": (9,)}, (2,)),  # its length says how many places
        ((5,), (3,), {"pads_begin": (5,), "dilations": (2,), "strides": (7,)}, None),
    ):
        full = {"pads_begin": (0,) * len(size), "pads_end": (0,) * len(size), "auto_pad": "explicit"}
        full |= {"strides": (1,) * len(size), "dilations": (1,) * len(size), **attrs}
        b = Builder()
        data = rng.standard_normal((2, 3, *size)).astype(np.float32)
        given, weights = parameter(b, data), rng.standard_normal((4, 3, *kernel)).astype(np.float32)
        graph = b.finish([add(b, "Convolution", given, weights, **full)])
        want = evaluate(graph, [data])[0]
        told = f"{size} {kernel} {attrs} seed {SEED}"
        np.testing.assert_allclose(native(graph, data)[0], want, rtol=1e-5, atol=1e-5, err_msg=told)
        left = run_rules(graph, [of_taps_that_meet_data])
        np.testing.assert_allclose(evaluate(left, [data])[0], want, rtol=1e-6, atol=1e-6, err_msg=told)
        if fewer is not None:
            filters = next(n for n in left.nodes if n.op.name == "Convolution").inputs[1]
            assert filters.shape == (4, 3, *fewer), told


def test_random_windows_with_fewer_taps() -> None:
    rng = np.random.default_rng(SEED)
    trimmed = 0
    for case in range(300):
        size, kernel, strides, dilations, begin, end = (
            tuple(int(v) for v in rng.integers(low, high, 2))
            for low, high in ((1, 8), (1, 6), (1, 5), (1, 8), (0, 9), (0, 9))
        )
        sizes = zip(size, begin, end, kernel, dilations, strict=True)
        if any(n + p + q < (k - 1) * d + 1 for n, p, q, k, d in sizes):
            continue
        window = {"strides": strides, "dilations": dilations, "pads_begin": begin, "pads_end": end}
        b = Builder()
        data = rng.standard_normal((1, 2, *size))
        weights = rng.standard_normal((2, 2, *kernel))
        graph = b.finish([add(b, "Convolution", parameter(b, data), weights, auto_pad="explicit", **window)])
        left = run_rules(graph, [of_taps_that_meet_data])
        trimmed += next(n for n in left.nodes if n.op.name == "Convolution").inputs[1].shape != weights.shape
        told = f"case {case} {size} {kernel} {window} seed {SEED}"
        np.testing.assert_allclose(
            evaluate(left, [data])[0], evaluate(graph, [data])[0], rtol=1e-12, atol=1e-12, err_msg=told
        )
    assert trimmed > 20


@pytest.mark.parametrize("open_shape", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_inverses(open_shape: bool, dtype: str) -> None:
    """Pivots that have to be looked for; matrices that have no inverse (NaN, as in OpenVINO), that are
    turned, that stand in many dimensions; and none."""
    rng = np.random.default_rng(SEED)
    for shape in ((1, 1), (4, 4), (33, 33), (2, 3, 2, 17, 17), (0, 3, 3), (70, 3, 3)):
        data = rng.standard_normal(shape).astype(dtypes.numpy_dtype(dtype))
        if shape == (4, 4):
            data[0, 0] = 0
            data = data[[2, 0, 3, 1]]
        if shape[0] == 70:
            data[3] = 0
            data[41:50, :, 2] = 0
            data[50:60, 1] = 0
            data[69, 2, 2] = np.nan
        for adjoint in (False, True):
            b = Builder()
            x = parameter(b, data, (ANY,) * data.ndim if open_shape else None)
            order = [*range(data.ndim - 2), data.ndim - 1, data.ndim - 2]
            graph = b.finish([add(b, "Inverse", add(b, "Transpose", x, order), adjoint=adjoint)])
            (got,) = native(graph, data)
            want = evaluate(graph, [data.astype(np.float64)] if dtype == "f64" else [data])[0]
            assert np.array_equal(np.isnan(got).all((-1, -2)), np.isnan(want).all((-1, -2))), f"seed {SEED}"
            scale = np.abs(np.nan_to_num(want)).max(initial=1)
            limit = 1e-6 if dtype == "f32" else 1e-12
            np.testing.assert_allclose(got, want, atol=limit * scale, err_msg=f"{shape} seed {SEED}")


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    ("depth", "kernel", "stride", "dilation", "pads"),
    [
        (2, 3, 1, 1, (1, 1)),
        (5, 3, 2, 1, (1, 1)),
        (4, 5, 1, 1, (2, 2)),
        (6, 3, 1, 2, (2, 2)),
        (3, 3, 1, 1, (3, 4)),
    ],
)
def test_convolutions_of_volumes_leave_out_taps_in_the_padding(
    depth: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], closed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Slices of the output at either end are steps of their own, with fewer taps and the same sums."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, depth, kernel])
    filters = rng.standard_normal((32, 5, kernel, 3, 3)).astype(np.float32)
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), (2, 5, depth, 8, 9) if closed else (ANY, 5, ANY, ANY, ANY))
    y = add(
        b, "Convolution", x, filters, strides=(stride, 1, 1), dilations=(dilation, 1, 1),
        pads_begin=(pads[0], 1, 1), pads_end=(pads[1], 1, 1), auto_pad="explicit",
    )  # fmt: skip
    executable = compile_graph(graph := b.finish([b.add("HSwish", [y]).output]), {"threads": 1})
    data = rng.standard_normal((2, 5, depth, 8, 9)).astype(np.float32)
    for given in (data, np.ascontiguousarray(data[:1, :, :, :5])) if not closed else (data,):
        (got,) = run(executable, [given])
        (expected,) = evaluate(graph, [given])
        np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-4, err_msg=f"seed {SEED}")
    (low,) = (low for low in executable.program.lowerings if isinstance(low, TiledConvolution))
    if (kernel, stride, dilation, pads) == (3, 1, 1, (1, 1)):
        assert low._slabs(0, (2, 8, 8), (2, 8, 8)) == [(0, 1, (1, 2)), (1, 1, (0, 1))]
        assert low._slabs(0, (5, 8, 8), (5, 8, 8)) == [(0, 1, (1, 2)), (1, 3, (0, 2)), (4, 1, (0, 1))]
        assert low._slabs(0, (2, 1, 1), (2, 1, 1)) == []  # a tile for each would be more


@pytest.mark.parametrize("types", ["f32", "u8"])
@pytest.mark.parametrize("seed", some(range(12), 5))
def test_images_leave_out_taps_in_the_padding(seed: int, types: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of the output are steps of their own, which multiply the taps that read data there."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, seed])
    rank = 1 + seed % 2
    kernel = [int(k) for k in rng.choice([1, 2, 3, 5], rank)]
    stride, dilation = rng.integers(1, 3, rank).tolist(), rng.integers(1, 9, rank).tolist()
    before, after = (
        [int(rng.integers(0, (k - 1) * d + 1)) for k, d in zip(kernel, dilation, strict=True)] for _ in "be"
    )
    extents = [
        int(rng.integers(max(1, (k - 1) * d + 1 - p - q), 16))
        if (k - 1) * d + 1 - p - q < 16 else (k - 1) * d + 1 - p - q
        for k, d, p, q in zip(kernel, dilation, before, after, strict=True)
    ]  # fmt: skip
    shape = (2, 16, *extents)
    data = (
        rng.integers(0, 255, shape).astype(np.uint8)
        if types == "u8"
        else rng.standard_normal(shape, np.float32)
    )
    filters = rng.standard_normal((32, 16, *kernel), np.float32)
    b = Builder()
    x = parameter(b, data, shape)
    real = add(b, "Convert", x, destination_type="f32") if types == "u8" else x
    y = add(
        b, "Convolution", real, filters, strides=stride, dilations=dilation, pads_begin=before,
        pads_end=after, auto_pad="explicit",
    )  # fmt: skip
    more = rng.standard_normal((1, 32, *(1 for _ in extents)), np.float32)
    graph = b.finish([b.add("HSwish", [add(b, "Add", y, more)]).output])
    (got,) = run(compile_graph(graph, {"threads": 2}), [data])
    (expected,) = evaluate(graph, [data])
    scale = np.abs(expected).max(initial=1)
    told = f"{kernel} {stride} {dilation} {before} {after} {extents} seed {seed}"
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, err_msg=told)


@pytest.mark.parametrize(
    ("extents", "dilation", "steps"), [((14, 14), 12, 5), ((33, 33), 24, 5), ((14, 14), 1, 1), ((30,), 20, 3)]
)
def test_regions_of_dilated_windows(extents: tuple[int, ...], dilation: int, steps: int) -> None:
    rng = np.random.default_rng(SEED)
    b, rank = Builder(), len(extents)
    data = rng.standard_normal((1, 64, *extents), np.float32)
    x = parameter(b, data, data.shape)
    filters = rng.standard_normal((64, 64, *(3,) * rank), np.float32) / 24
    d = (dilation,) * rank
    y = add(
        b, "Convolution", x, filters, strides=(1,) * rank, dilations=d, pads_begin=d, pads_end=d,
        auto_pad="explicit",
    )  # fmt: skip
    executable = compile_graph(graph := b.finish([y]), {"threads": 1, "EXECUTION_MODE_HINT": "ACCURACY"})
    products = [s for s in executable.table((data.shape,)).plan.steps if s.kernel.name.startswith("conv_")]
    assert len(products) == steps
    (got,) = run(executable, [data])
    np.testing.assert_allclose(got, evaluate(graph, [data])[0], atol=1e-4, err_msg=f"seed {SEED}")


def test_all_taps_of_pixels_less_128_are_multiplied() -> None:
    """Initial sums have 128 times the weights of all taps there: `sdot`, without i8mm."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (1, 16, 14, 14), "element_type": "u8"}).output
    filters = b.constant(np.random.default_rng(SEED).integers(-127, 128, (32, 16, 3, 3)).astype(np.int8))
    attrs = {"strides": (1, 1), "dilations": (12, 12), "pads_begin": (12, 12), "pads_end": (12, 12)}
    node = b.add("Convolution", [x, filters], attrs, types=[TensorType("i32", (1, 32, 14, 14))])
    graph = b.finish([node.output])
    for extras, regions in ((("dotprod",), 1), (("dotprod", "i8mm"), 5)):
        program = compile_program(graph, target_of("neon", extras), Options())
        (low,) = (low for low in program.lowerings if isinstance(low, TiledConvolution))
        assert low.form.flips is (regions == 1)
        assert len(low._regions((14, 14), (14, 14))) == regions


@pytest.mark.parametrize(
    "sizes", some([(2, 2), (1, 8), (4, 4), (2, 4), (1, 2), (8, 8), (2, 8), (4, 8), (1, 4)], 4)
)
@pytest.mark.parametrize(
    ("groups", "kernel", "stride", "open_batch"),
    [(8, (3, 3), 1, False), (7, (3, 2), 2, True), (13, (5,), 1, True), (3, (2, 3, 1), 1, False)],
)
def test_groups_of_few_channels_share_vectors(
    sizes: tuple[int, int], groups: int, kernel: tuple[int, ...], stride: int, open_batch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As many outputs or more, with a bias, a residual and an activation. An infinity reaches the outputs of
    its own group alone."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    each, outs = sizes
    rng, rank, channels = np.random.default_rng([SEED, each, groups]), len(kernel), groups * each
    filters = (rng.standard_normal((groups, outs, each, *kernel)) / 4).astype(np.float32)
    data = rng.standard_normal((2, channels, *(6,) * (rank - 1), 15)).astype(np.float32)
    data[0, 2 * each - 1, ..., 3] = np.inf
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), (ANY, *data.shape[1:]) if open_batch else data.shape)
    y = add(
        b, "GroupConvolution", x, filters, strides=(stride,) * rank, dilations=(1,) * rank,
        pads_begin=(1,) * rank, pads_end=(0,) * rank, auto_pad="explicit",
    )  # fmt: skip
    y = add(b, "Add", y, rng.standard_normal((1, groups * outs, *(1,) * rank)).astype(np.float32))
    y = add(b, "Add", y, rng.standard_normal(y.shape[1:]).astype(np.float32))
    executable = compile_graph(graph := b.finish([add(b, "HSwish", y)]), {"threads": 1})
    with np.errstate(invalid="ignore"):
        (got,), (expected,) = run(executable, [data]), evaluate(graph, [data])
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-5, err_msg=f"seed {SEED}")
    assert np.isfinite(got[1]).all() and np.isfinite(got[0, 2 * outs :]).all()
    isa, name = host_target(), "grouped" if each == outs else "spread"
    # with the element type: `spread_i32` distributes pixels
    names = [kernel.name for low in executable.program.lowerings for kernel in low.kernels]
    assert any(n.startswith(f"{name}_f32_") for n in names) == (isa.name != "generic" and outs < isa.lanes)


@pytest.mark.parametrize(
    ("outs", "kernel", "dilation", "auto_pad"),
    [
        (3, (3, 3), 1, "explicit"),
        (1, (7,), 2, "explicit"),
        (2, (2, 3, 4), 1, "same_upper"),
        (4, (5, 4), 3, "valid"),
        (2, (1, 9), 1, "same_lower"),
    ],
)
@pytest.mark.parametrize("sizes", ["known", "open but the width", "open"])
def test_columns_of_few_outputs_share_a_vector(
    outs: int, kernel: tuple[int, ...], dilation: int, auto_pad: str, sizes: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One convolution computes the outputs of all taps of a line; the sums follow in another kernel."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    closed = sizes == "known"
    rng = np.random.default_rng([SEED, outs, *kernel])
    channels, rank = 17, len(kernel)
    filters = (rng.standard_normal((outs, channels, *kernel)) / 8).astype(np.float32)
    data = rng.standard_normal((2, channels, *(15,) * (rank - 1), 19)).astype(np.float32)
    b = Builder()
    width = ANY if sizes == "open" else 19
    shape = data.shape if closed else (ANY, channels, *(ANY,) * (rank - 1), width)
    x = parameter(b, np.zeros(1, np.float32), shape)
    y = add(
        b, "Convolution", x, filters, strides=(*(2,) * (rank - 1), 1), dilations=(dilation,) * rank,
        pads_begin=(1,) * rank, pads_end=(2,) * rank, auto_pad=auto_pad,
    )  # fmt: skip
    bias = rng.standard_normal((1, outs, *(1,) * rank)).astype(np.float32)
    executable = compile_graph(graph := b.finish([add(b, "Relu", add(b, "Add", y, bias))]), {"threads": 1})
    narrow = np.ascontiguousarray(data[..., :-4])
    for given in (data,) if closed else (data, narrow if sizes == "open" else data[:1]):
        (got,), (expected,) = run(executable, [given]), evaluate(graph, [given])
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=f"seed {SEED}")
    (low,) = (low for low in executable.program.lowerings if isinstance(low, TiledConvolution))
    known = closed or auto_pad not in ("same_upper", "same_lower")
    lanes = host_target().lanes
    vectors = -(-outs * kernel[-1] // lanes)
    is_deep = channels * math.prod(kernel[:-1]) >= convolution._DEEP
    fewer = outs < lanes and (3 * vectors <= 2 * kernel[-1] if is_deep else 2 * vectors <= kernel[-1])
    assert fewer or lanes < 16, "all of them with AVX-512"
    assert low.outs == (outs * kernel[-1] if known and fewer else outs)


@pytest.mark.skipif(host_target().lanes < 16, reason="8 outputs fill a vector")
@pytest.mark.parametrize(("side", "outs", "columns"), [(224, 8, 1), (28, 8, 5), (224, 2, 5)])
def test_columns_share_a_vector_if_their_sums_stay_in_the_cache(side: int, outs: int, columns: int) -> None:
    """Or if there are few: the sums of 5 times 8 outputs of a large image go through memory."""
    filters = np.ones((outs, 8, 5, 5), np.float32)
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), (1, 8, side, side))
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (2, 2), "pads_end": (2, 2)}
    executable = compile_graph(b.finish([add(b, "Convolution", x, filters, **attrs)]), {"threads": 1})
    (low,) = (low for low in executable.program.lowerings if isinstance(low, TiledConvolution))
    assert low.outs == outs * columns


@pytest.mark.parametrize(
    ("groups", "outs", "window", "stride", "lanes"),
    [
        (8, 2, (3, 3), 1, 8),
        (20, 3, (5, 2), 2, 16),
        (33, 4, (3,), 1, 16),
        (9, 2, (2, 3, 3), 1, 8),
        (20, 4, (3, 3), 2, 0),
        (2, 4, (3, 3), 1, 16),
        (8, 5, (3, 3), 1, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("opened", [False, True])
def test_few_outputs_of_each_channel_are_those_of_repeated_channels(
    groups, outs, window, stride, lanes, opened
) -> None:
    """Where vectors have `lanes` and more (0: never), or lanes are spread: a depthwise convolution with what
    follows; NaN stays in the outputs of its channel."""
    rng = np.random.default_rng([SEED, groups, outs])
    rank = len(window)
    filters = rng.standard_normal((groups, outs, 1, *window)).astype(np.float32)
    data = rng.standard_normal((2, groups, *(6, 9, 11)[-rank:])).astype(np.float32)
    data[:, 1] = np.nan
    b = Builder()
    x = parameter(b, data, (ANY, groups, *(ANY,) * rank) if opened else data.shape)
    attrs = {"strides": (stride,) * rank, "dilations": (1,) * rank, "auto_pad": "explicit"}
    attrs |= {"pads_begin": (1,) * rank, "pads_end": (0,) * rank}
    y = add(b, "GroupConvolution", x, filters, **attrs)
    bias = rng.standard_normal((1, groups * outs, *(1,) * rank)).astype(np.float32)
    executable = compile_graph(b.finish([add(b, "Relu", add(b, "Add", y, bias))]), {"threads": 1})
    (got,) = run(executable, [data])
    sums = convolve(data.astype(np.float64), filters.astype(np.float64), attrs)
    want = np.maximum(sums + bias, 0)
    np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-5, err_msg=f"seed {SEED}")
    assert np.isnan(got).any() and not np.isnan(got).all()
    tiled = any(k.name.startswith("conv_") for k in executable.program.kernels)
    isa = host_target()
    wide = isa.lanes >= lanes > 0 and 2 * -(-groups * outs // isa.lanes) <= groups
    wide |= outs in (2, 4, 8) and outs < isa.lanes and isa.name != "generic"
    direct = any(k.name.startswith("direct_") for k in executable.program.kernels)
    assert (tiled or direct) == (not wide)


@pytest.mark.parametrize(
    ("groups", "channels", "outs", "window", "stride"),
    [
        (8, 2, 1, (3, 3), 1),
        (5, 3, 1, (5,), 2),
        (6, 2, 1, (2, 3, 3), 1),
        (1, 2, 1, (3, 3), 1),
        (40, 2, 1, (1, 1), 1),
        (6, 8, 4, (3, 3), 1),
        (9, 8, 2, (3, 3), 2),
        (4, 8, 2, (5, 3), 1),
        (5, 4, 2, (7,), 1),
        (3, 4, 2, (2, 3, 3), 1),
        (6, 8, 4, (1, 1), 1),
    ],
)
def test_few_outputs_of_several_times_as_many_channels_share_vectors(
    groups: int,
    channels: int,
    outs: int,
    window: tuple[int, ...],
    stride: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what follows; NaN stays in the outputs of its group."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, rank = np.random.default_rng([SEED, groups, channels, outs]), len(window)
    filters = rng.standard_normal((groups, outs, channels, *window)).astype(np.float32)
    data = rng.standard_normal((2, groups * channels, *(6, 9, 11)[-rank:])).astype(np.float32)
    data[0, 1] = np.nan
    b = Builder()
    attrs = {"strides": (stride,) * rank, "dilations": (1,) * rank, "auto_pad": "explicit"}
    attrs |= {"pads_begin": (1,) * rank, "pads_end": (0,) * rank}
    y = add(b, "GroupConvolution", parameter(b, data), filters, **attrs)
    bias = rng.standard_normal((1, groups * outs, *(1,) * rank)).astype(np.float32)
    executable = compile_graph(b.finish([add(b, "Relu", add(b, "Add", y, bias))]), {"threads": 1})
    (got,) = run(executable, [data])
    want = np.maximum(convolve(data.astype(np.float64), filters.astype(np.float64), attrs) + bias, 0)
    np.testing.assert_allclose(got, want, atol=4e-5, rtol=1e-5, err_msg=f"seed {SEED}")
    assert np.isnan(got[0, :outs]).any() and np.isfinite(got[1]).all() and np.isfinite(got[0, outs:]).all()
    kind, target = "depthwise_" if outs == 1 else "folded_", host_target()
    by_channels = any(k.name.startswith(kind) for k in executable.program.kernels)
    folds = target.name != "generic" and outs < target.lanes and 1 < math.prod(window) <= 100 // channels
    assert by_channels == (groups > 1 and (channels <= target.lanes // 2 if outs == 1 else folds))


@pytest.mark.parametrize("channels", in_turn([4, 20, 24, 56], 2))
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
def test_depthwise_convolutions_over_blocks_of_rows_and_channels(
    channels: int, window: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several cache lines of channels, the last one not whole, in several blocks of rows of two pictures; and
    rows of every remainder of pixels. OVJIT_CHECK=1 proves that chunks write each byte once."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, channels, window])
    filters = rng.standard_normal((channels, 1, 1, window, window)).astype(np.float32)
    graphs = {}
    for dims in ((2, channels, 23, 70), (1, channels, 9, ANY)):
        b = Builder()
        x = parameter(b, np.zeros(1, np.float32), dims)
        y = add(
            b, "GroupConvolution", x, filters, strides=(stride, stride), dilations=(1, 1),
            pads_begin=(window // 2,) * 2, pads_end=(window // 2,) * 2, auto_pad="explicit",
        )  # fmt: skip
        graphs[dims] = b.finish([b.add("Add", [y, add(b, "HSigmoid", y)]).output])
    for dims, graph in graphs.items():
        executable = compile_graph(graph, {"threads": 1})
        for width in (70,) if dims[3] == 70 else (1, 2, 7, 13, 30, 150):
            data = rng.standard_normal((*dims[:3], width)).astype(np.float32)
            (got,) = run(executable, [data])
            (expected,) = evaluate(graph, [data])
            np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-4, err_msg=f"{dims} at {width}")


@pytest.mark.parametrize("stride, dilation, columns", [(1, 1, 4), (2, 1, 8), (3, 1, 12), (1 << 30, 1, 12)])
def test_long_strides_are_not_unrolled(stride, dilation, columns) -> None:
    """A kernel has code for the columns that taps read, not for those between them."""
    assert len(cpu_depthwise.Taps(1, 1, 3, stride, dilation).new_columns(4)) == columns


def test_depthwise_with_a_stride_beyond_its_window() -> None:
    rng = np.random.default_rng(SEED)
    x, w = rng.standard_normal((1, 19, 7, 2043)), rng.standard_normal((19, 1, 1, 3, 3))
    data = ov.opset8.parameter(x.shape, np.float32)
    filters = ov.opset8.constant(w.astype(np.float32))
    y = ov.opset8.group_convolution(data, filters, [4, 1000], [0, 0], [0, 0], [1, 1])
    model, hints = ov.Model([y], [data]), {"INFERENCE_PRECISION_HINT": "f32"}
    got = ov.compile_model(model, "CPU", hints)([np.float32(x)])[0]
    wanted = np.zeros(got.shape)
    for i, j in np.ndindex(*got.shape[2:]):
        window = x[0, :, 4 * i : 4 * i + 3, 1000 * j : 1000 * j + 3]
        wanted[0, :, i, j] = (window * w[:, 0, 0]).sum((1, 2))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "dilation", "channels"),
    in_turn([((9, 9), 2, 1, 33), ((11, 10), 1, 1, 32), ((3, 51), 1, 2, 16), ((71,), 1, 1, 20)], 2),
    ids=str,
)
def test_depthwise_filters_of_many_taps(window, stride, dilation, channels, monkeypatch) -> None:
    """Their rows, or parts of them, are gone through one by one; rows of every remainder of pixels."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, channels])
    filters = rng.standard_normal((channels, 1, 1, *window)).astype(np.float32)
    rank = len(window)
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), (2, channels, *(13,) * (rank - 1), ANY))
    pads = [dilation * (n // 2) for n in window]
    y = add(
        b, "GroupConvolution", x, filters, strides=(stride,) * rank, dilations=(dilation,) * rank,
        pads_begin=pads, pads_end=pads, auto_pad="explicit",
    )  # fmt: skip
    executable = compile_graph(graph := b.finish([b.add("Relu", [y]).output]), {"threads": 1})
    assert [k.name for k in executable.program.kernels if k.name.startswith("depthwise")]
    for width in (1, 2, 7, 15, 30, 46):
        data = rng.standard_normal((2, channels, *(13,) * (rank - 1), width)).astype(np.float32)
        (got,) = run(executable, [data])
        (expected,) = evaluate(graph, [data])
        limit = 1e-6 * np.abs(expected).max(initial=1) * len(filters[0].reshape(-1)) ** 0.5
        np.testing.assert_allclose(got, expected, atol=limit, err_msg=f"{width} of {window} seed {SEED}")


@pytest.mark.parametrize(
    ("window", "strides", "dilations", "groups", "each"),
    in_turn(
        [
            ((3, 3), (2, 2), (1, 1), 21, 1),
            ((4, 5), (2, 3), (1, 1), 64, 1),
            ((3, 2), (1, 1), (2, 1), 33, 1),
            ((10, 9), (1, 1), (1, 1), 18, 1),
            ((3,), (2,), (3,), 40, 1),
            ((2, 3, 2), (2, 1, 2), (1, 2, 1), 17, 1),
            ((4, 4), (2, 2), (1, 1), 9, 4),
            ((3, 4), (1, 2), (2, 1), 24, 2),
            ((5,), (3,), (1,), 5, 8),
        ],
        2,
    ),
    ids=str,
)
@pytest.mark.parametrize("opened", [False, True])
def test_transposed_convolutions_of_small_groups_are_depthwise_ones(
    window, strides, dilations, groups, each, opened, monkeypatch
) -> None:
    """A phase of the stride is a depthwise convolution of its own taps, with what follows; of images, rows
    and volumes, also without any vector of the output whole."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, groups, *window])
    rank, channels = len(window), groups * each
    filters = rng.standard_normal((groups, each, each, *window)).astype(np.float32)
    attrs = {"strides": strides, "dilations": dilations, "pads_begin": (1,) * rank, "pads_end": (0,) * rank}
    attrs |= {"output_padding": (*(0,) * (rank - 1), strides[-1] - 1), "auto_pad": "explicit"}
    b = Builder()
    x = parameter(b, np.zeros(1, np.float32), (ANY, channels, *(ANY if opened else 4,) * rank))
    y = add(b, "GroupConvolutionBackpropData", x, filters, **attrs)
    bias = rng.standard_normal((1, channels, *(1,) * rank)).astype(np.float32)
    y = add(b, "Add", y, bias)
    more = parameter(b, np.zeros(1, np.float32), (ANY, channels, *(ANY,) * rank))
    executable = compile_graph(graph := b.finish([add(b, "Relu", add(b, "Add", y, more))]), {"threads": 1})
    for extents in ((4,) * rank, (1, 13, 2)[:rank]) if opened else ((4,) * rank,):
        data = rng.standard_normal((2, channels, *extents)).astype(np.float32)
        wide = convolve_transposed(data.astype(float), filters.astype(float), None, attrs) + bias
        added = rng.standard_normal(wide.shape).astype(np.float32)
        (got,) = run(executable, [data, added])
        limit = 1e-6 * np.sqrt(filters[0, 0].size) * np.abs(wide).max()
        text = f"{extents} seed {SEED}\n{graph}"
        np.testing.assert_allclose(got, np.maximum(wide + added, 0), atol=limit, err_msg=text)
    if each == 1 or (host_target().name != "generic" and each < host_target().lanes):
        names = [k.name for k in executable.program.kernels]
        assert any(n.startswith(("depthwise", "grouped")) for n in names), names
        assert not any(n.startswith("conv_") for n in names), names


#: data, filters, attributes, sizes, what it becomes: None where it stays.
TURNED = [
    ((2, 5, 6, 7), (5, 7, 3, 2), {"pads_begin": (1, 0), "pads_end": (0, 1)}, None, "Convolution"),
    ((1, 4, 9), (4, 3, 5), {"dilations": (2,), "pads_begin": (3,), "output_padding": (2,)}, None,
     "Convolution"),
    ((2, 8, 5, 4), (4, 2, 3, 3, 3), {"pads_end": (2, 1)}, None, "GroupConvolution"),
    ((1, 3, 4, 3, 5), (3, 2, 2, 3, 3), {"pads_begin": (1, 2, 0)}, None, "Convolution"),
    ((1, 3, 5, 5), (3, 2, 4, 3), {"auto_pad": "same_upper"}, (5, 6), "Convolution"),
    ((1, 3, 5, 5), (3, 2, 4, 3), {"auto_pad": "same_lower"}, (6, 5), "Convolution"),
    ((1, 3, 5, 5), (3, 2, 2, 3), {"pads_begin": (2, 0)}, None, None),  # it cuts off what the data gave
    ((1, 3, 5, 5), (3, 2, 2, 3), {"strides": (1, 2)}, None, None),
    ((3, 9, 1, 1), (9, 5, 4, 3), {"strides": (2, 3), "pads_begin": (1, 0), "pads_end": (0, 1)}, None,
     "MatMul"),
    ((1, 9, 1), (9, 5, 4), {"strides": (2,), "output_padding": (0,)}, (3,), "MatMul"),
    ((1, 9, 1), (9, 5, 4), {"strides": (2,), "output_padding": (1,)}, None, None),  # a zero at the end
    ((1, 9, 1, 2), (9, 5, 4, 4), {"strides": (2, 2)}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "filters", "attrs", "sizes", "becomes"), TURNED, ids=str)
@pytest.mark.parametrize("opened", [False, True])
def test_transposed_convolutions_of_stride_one_are_convolutions(
    shape, filters, attrs, sizes, becomes, opened
) -> None:
    """And those of single pixels are products; with bias and activation behind them."""
    rng = np.random.default_rng([SEED, *shape, *filters])
    grouped, rank = len(filters) > len(shape), len(shape) - 2
    full = dict.fromkeys(("strides", "dilations"), (1,) * rank)
    full |= dict.fromkeys(("pads_begin", "pads_end", "output_padding"), (0,) * rank)
    full |= {"auto_pad": "explicit", **attrs}
    weights = rng.standard_normal(filters).astype(np.float32)
    data = rng.standard_normal(shape).astype(np.float32)
    given = () if sizes is None else (np.array(sizes, np.int64),)
    b = Builder()
    x = parameter(b, data, (ANY, *shape[1:]) if becomes == "MatMul" else (*shape[:2], *(ANY,) * rank)
                  if opened and sizes is None else shape)  # fmt: skip
    name = "GroupConvolutionBackpropData" if grouped else "ConvolutionBackpropData"
    y = add(b, name, x, weights, *given, **full)
    bias = rng.standard_normal((1, y.shape[1], *(1,) * rank)).astype(np.float32)
    executable = compile_graph(graph := b.finish([add(b, "Relu", add(b, "Add", y, bias))]), {"threads": 1})
    wide = weights if grouped else weights[None]
    sums = convolve_transposed(data.astype(float), wide.astype(float), *given or (None,), full)
    (got,) = run(executable, [data])
    where = f"seed {SEED}\n{graph}"
    np.testing.assert_allclose(got, np.maximum(sums + bias, 0), atol=2e-5, rtol=1e-5, err_msg=where)
    left = {n.op.name for low in executable.program.lowerings for n in low.group.nodes}
    assert (becomes or name) in left and (becomes is None or name not in left), left


def test_transposed_convolutions_by_infinite_filters_stay() -> None:
    """Padding is not multiplied in a transposed convolution: infinity times its zeros would be NaN."""
    weights = np.array([[[1.0, np.inf, 2.0]]], np.float32)
    b = Builder()
    x = parameter(b, np.ones((1, 1, 2), np.float32))
    attrs = {"strides": (1,), "dilations": (1,), "pads_begin": (0,), "pads_end": (0,)}
    y = add(b, "ConvolutionBackpropData", x, weights, **attrs)
    executable = compile_graph(b.finish([y]), {"threads": 1})
    left = {n.op.name for low in executable.program.lowerings for n in low.group.nodes}
    assert "ConvolutionBackpropData" in left


def test_what_is_set_up_is_set_up_as_its_base_is() -> None:
    for module in pkgutil.walk_packages(ovjit_ops.__path__, "ovjit_ops."):
        importlib.import_module(module.name)
    left, checked = [Lowering], 0
    while left:
        one = left.pop()
        left += one.__subclasses__()
        above = [base for base in one.__mro__[1:] if "set_up" in vars(base) and base is not Lowering]
        if "set_up" in vars(one) and above:
            assert "super().set_up()" in inspect.getsource(vars(one)["set_up"]), one
            checked += 1
    assert checked > 2


@pytest.mark.parametrize("index", in_turn([np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64], 2))
def test_vectors_of_indices(index: type) -> None:
    """Elements of 1 to 8 bytes by indices of each type, of rows turned or reversed, from the end where
    they are negative; one that is out of range gives 0."""
    rng = np.random.default_rng(SEED)
    for kind in (np.int8, np.float16, np.float32, np.float64):
        for turned in (False, True):
            data = rng.integers(0, 100, (100, 7) if turned else (7, 100)).astype(kind)
            chosen = rng.integers(-100 if np.iinfo(index).min else 0, 100, (3, 37))
            chosen[1, 20], chosen[2, 36] = 100, np.iinfo(index).max
            b = Builder()
            x, i = parameter(b, data, (ANY, ANY)), parameter(b, chosen.astype(index))
            row = add(b, "Transpose", x, [1, 0]) if turned else add(b, "Slice", x, [-1], [-1000], [-1], [1])
            graph = b.finish([add(b, "Gather", row, i, 1)])
            held = data.T if turned else data[:, ::-1]
            inside = (chosen >= -100) & (chosen < 100)
            want = np.where(inside, held[:, np.where(inside, chosen, 0)], 0)
            (got,) = native(graph, data, chosen.astype(index))
            np.testing.assert_array_equal(got, want, err_msg=f"{kind} {turned} seed {SEED}")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ranges_of_reals(kind: type) -> None:
    """From an open dimension: to the bit, as f64 and f32 and cut off to integers."""
    for start, step in ((0, 1), (0.5, 0.1), (7, -0.25), (2**25, 3), (-1e30, 3e28), (1.5, 2.5), (0.1, 2)):
        for to in ("f32", "f64", *(["i64"] if abs(step) >= 1 and abs(start) < 1e9 else [])):
            b = Builder()
            x = b.add("Parameter", (), {"shape": (ANY,), "element_type": "i8"}).output
            size = add(b, "Squeeze", add(b, "ShapeOf", x, output_type="i64"))
            length = add(b, "Convert", size, destination_type=dtypes.from_numpy(np.dtype(kind)))
            stop = add(b, "Add", add(b, "Multiply", length, kind(step)), kind(start))
            graph = b.finish([add(b, "Range", kind(start), stop, kind(step), output_type=to)])
            executable = compile_graph(graph, {"threads": 1})
            for many in (1, 1500, 70_001):
                data = np.zeros(many, np.int8)
                job = executable.new_job()
                job.set_input(0, data)
                job.run()
                (got,), (want,) = job.outputs, evaluate(graph, [data])
                assert all(row.exec_type != "ref_numpy" for row in job.profile()), (start, step, to)
                np.testing.assert_array_equal(got, want, err_msg=f"{many} from {start} by {step}, {to}")
