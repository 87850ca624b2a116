"""Open dimensions that turn out to be 1 or 5: what was fused, aligned or left empty must not trust that
dimensions with the same bounds are the same number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.codegen.loading import addresses
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, broadcast_dims, dim
from ovjit.graph.symbolic import statically_known_equal
from ovjit.planning.copies import halo_kernels
from ovjit.planning.lower import MultiVersioned
from ovjit.planning.plan import Constants, Planner
from ovjit.planning.symbols import Symbols
from ovjit.planning.touches import Trace
from ovjit.planning.views import Layout
from tests.support.compiled import fuse, here, program_of, run_passes
from tests.support.run import run_job

SEED = 20261128
CONV: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}


def parameter(b: Builder, shape: Sequence[Any]) -> Value:
    return b.add("Parameter", (), {"shape": tuple(shape), "element_type": "f32"}).output


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _conv(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    return b.add("Convolution", [x, b.constant(random(rng, 16, 16, 3, 3))], CONV).output


def _depthwise(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    return b.add("GroupConvolution", [x, b.constant(random(rng, 16, 1, 1, 3, 3))], CONV).output


def _transposed(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    return b.add("ConvolutionBackpropData", [x, b.constant(random(rng, 16, 16, 3, 3))], CONV).output


def _matmul(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    return b.add("MatMul", [x, b.constant(random(rng, 8, 16))]).output


def _product(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    turned = b.add("Transpose", [x, b.constant(np.array([0, 1, 3, 2]))]).output
    return b.add("MatMul", [x, turned]).output


ANCHORS: dict[str, Callable[[Builder, Value, np.random.Generator], Value]] = {
    "conv": _conv, "depthwise": _depthwise, "transposed": _transposed, "matmul": _matmul, "product": _product
}  # fmt: skip


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("side", [0, 1])
def test_an_epilogue_may_broadcast_what_it_follows(anchor: str, side: int) -> None:
    """Two inputs with batches of their own: 1 and 5 broadcast, and equal ones do not."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x, other = parameter(b, (ANY, 16, 8, 8)), parameter(b, (ANY, 16, 8, ANY))
    y = ANCHORS[anchor](b, x, rng)
    added = b.add("Add", [y, other] if side else [other, y]).output
    graph = b.finish([b.add("Relu", [added]).output])
    job = compile_graph(graph, {}).new_job()
    columns = y.shape[3]
    for first, second, wide in [(1, 5, True), (5, 1, True), (3, 3, True), (1, 1, False), (1, 5, False)]:
        arrays = [random(rng, first, 16, 8, 8), random(rng, second, 16, 8, columns if wide else 1)]
        run_job(job, arrays)
        want = evaluate(graph, arrays)[0]
        assert job.outputs[0].shape == want.shape
        where = f"{first} {second} {wide} seed {SEED}"
        np.testing.assert_allclose(job.outputs[0], want, atol=1e-3, rtol=1e-3, err_msg=where)


def test_channels_that_turn_out_to_be_one_element() -> None:
    """A vector of the operand's channels would be read behind the operand."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x, other, row = parameter(b, (ANY, 16)), parameter(b, (ANY, ANY)), parameter(b, (ANY,))
    y = b.add("MatMul", [x, b.constant(random(rng, 16, 48))]).output
    graph = b.finish([b.add("Multiply", [b.add("Add", [y, other]).output, row]).output])
    job = compile_graph(graph, {}).new_job()
    for m, shape, columns in [(7, (7, 48), 48), (7, (7, 1), 1), (7, (1, 1), 48), (7, (1, 48), 1)]:
        arrays = [random(rng, m, 16), random(rng, *shape), random(rng, columns)]
        run_job(job, arrays)
        np.testing.assert_allclose(
            job.outputs[0], evaluate(graph, arrays)[0], atol=1e-4, rtol=1e-4, err_msg=f"{shape} {columns}"
        )


def test_residual_networks_of_open_batch_and_size_stay_fused() -> None:
    """Both branches descend from one input: their dimensions are known to be equal, one kernel is enough."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = parameter(b, (ANY, 16, ANY, ANY))
    main = b.add("Relu", [_conv(b, x, rng)]).output
    main = b.add(
        "Convolution", [main, b.constant(random(rng, 16, 16, 3, 3))], {**CONV, "strides": (2, 2)}
    ).output
    short = b.add(
        "Convolution", [x, b.constant(random(rng, 16, 16, 1, 1))],
        {"strides": (2, 2), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)},
    ).output  # fmt: skip
    graph = b.finish([b.add("Relu", [b.add("Add", [main, short]).output]).output])
    groups = fuse(run_passes(graph))
    assert [g.uniform for g in groups] == [True] * 3
    assert [len(g.body) for g in groups if g.anchor] == [1, 0, 2]
    assert not any(isinstance(low, MultiVersioned) for low in program_of(graph).lowerings)


def test_symbols_follow_arithmetic() -> None:
    d, other = Interval(1, None, ("d",)), Interval(1, None, ("e",))
    assert statically_known_equal((d + 2 - 3) // 2 + 1, (d + 2 - 1) // 2)
    assert statically_known_equal(d * 4 // 1, 2 + d * 4 - 2)
    assert statically_known_equal(d + other, other + d)
    assert not statically_known_equal(d, other)
    assert not statically_known_equal(d, d + 1)
    assert not statically_known_equal(d // 2, d // 3)
    assert not statically_known_equal(Interval(0, None), Interval(0, None))


def _sums(graph: Graph) -> tuple[Value, Value]:
    return graph.nodes[-2].output, graph.nodes[-1].output


def test_dimensions_of_two_inputs_are_not_the_same() -> None:
    b = Builder()
    x, y = parameter(b, (ANY, 4)), parameter(b, (ANY, 4))
    r = b.add("Relu", [x]).output
    s = b.add("Add", [r, y]).output
    symbols = Symbols(b.finish([s]))
    assert symbols.same(x, r)
    assert not symbols.same(x, y)
    assert not symbols.same(r, s)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("open_axes", [(0, 1, 2, 3), (1,), (0, 3)], ids=str)
def test_prelu_with_open_dimensions(constant: bool, open_axes: tuple[int, ...]) -> None:
    """The slope runs along dimension 1 where it is as long, else along the last one: the shapes tell."""
    rng = np.random.default_rng(SEED)
    slope = random(rng, 5)
    b = Builder()
    x = parameter(b, [ANY if i in open_axes else (2, 5, 3, 5)[i] for i in range(4)])
    factor = b.constant(slope) if constant else parameter(b, (ANY,))
    graph = b.finish([b.add("Relu", [b.add("PRelu", [b.add("Negative", [x]).output, factor]).output]).output])
    job = compile_graph(graph, {}).new_job()
    shapes = [(2, 5, 3, 5), (2, 5, 3, 7), (2, 7, 3, 5), (1, 5, 4, 5)]
    ran = 0
    for shape in shapes:
        if any(shape[i] != (2, 5, 3, 5)[i] for i in range(4) if i not in open_axes):
            continue
        ran += 1
        arrays = [random(rng, *shape)] + ([] if constant else [slope])
        run_job(job, arrays)
        np.testing.assert_array_equal(job.outputs[0], evaluate(graph, arrays)[0], err_msg=f"{shape}")
    assert ran


def test_the_padding_of_nothing_is_zero() -> None:
    """A spatial extent of 0 with padding: what the window reads is cleared all the same."""
    b = Builder()
    x = parameter(b, (1, 4, ANY, 8))
    eye = b.constant(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1))
    y = b.add("Convolution", [x, eye], {**CONV, "pads_begin": (1, 0), "pads_end": (1, 1)}).output
    job = compile_graph(b.finish([y]), {}).new_job()
    for rows in (6, 0):
        run_job(job, [np.full((1, 4, rows, 8), 42424242.0, np.float32)])
    assert job.outputs[0].shape == (1, 4, 2, 9)
    assert not job.outputs[0].any()


HALOS = [
    ((5, 7), (0, 1), ((1, 2), (3, 1))),
    ((2, 3, 5, 4), (0, 2, 3, 1), ((0, 0), (0, 0), (1, 1), (1, 1))),
    ((2, 3, 5, 4), (0, 2, 3, 1), ((0, 0), (0, 1), (2, 0), (0, 3))),
    ((3, 50, 4, 6), (0, 2, 3, 1), ((0, 0), (0, 0), (0, 2), (0, 0))),
    ((1, 2, 4, 300, 5), (0, 2, 3, 4, 1), ((0, 0), (1, 0), (1, 1), (1, 2), (0, 1))),
    ((2, 3, 2, 2, 2, 2), (0, 1, 2, 3, 4, 5), ((1, 0), (0, 1), (0, 2), (1, 1), (0, 1), (0, 0))),
    ((2, 3, 0, 4), (0, 2, 3, 1), ((0, 0), (0, 0), (1, 1), (1, 1))),
    ((2, 3, 4, 0), (0, 2, 3, 1), ((0, 0), (0, 0), (1, 1), (1, 1))),
]


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("shape, order, halo", HALOS)
def test_halos_of_any_element_size_are_cleared_to_the_byte(itemsize, shape, order, halo) -> None:
    planner = Planner({}, [], [], {}, Constants(), target=here().target)
    planner.trace = Trace()
    parts = dict.fromkeys(("origins", "nodes", "body", "inputs", "outputs"), ())
    planner.begin(type("Group", (), {"name": "g", "anchor": None, **parts})())
    view = planner.allocate(shape, itemsize, Layout(order, halo))
    plan = planner.finish()  # proves that chunks do not meet
    if any(halo[order[-1]]) or len(shape) > 5:
        assert len(plan.steps) > 1
    elif 0 in shape:  # what comes next may read it: no step that others go on beside
        assert plan.steps and not any(step.goes_on for step in plan.steps)
    else:
        assert len(plan.steps) == 1, "one step for all dimensions"
    arena = np.full(plan.arena_size + 256, 0xAB, np.uint8)
    bases = np.array([arena.ctypes.data, 0, 0], np.int64)
    import ctypes

    kernels = list({step.kernel for step in plan.steps})
    assert set(kernels) <= set(halo_kernels(itemsize))
    found = addresses(kernels)
    for step, words in zip(plan.steps, plan.words, strict=True):
        call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(found[step.kernel])
        block = np.array(words, np.int64)
        for chunk in range(step.chunks):
            call(bases.ctypes.data, block.ctypes.data, chunk, 0)
    size = view.buffer.size
    inside = np.lib.stride_tricks.as_strided(
        arena[view.offset :], (*view.shape, itemsize), (*view.strides, 1), writeable=False
    )
    assert (inside == 0xAB).all(), "the inside is left alone"
    assert int(arena[:size].sum()) == int(inside.sum()), "the halo is zero"
    assert (arena[size:] == 0xAB).all(), "nothing behind the buffer is touched"


def test_every_broadcast_of_two_dimensions() -> None:
    """What an open dimension can be beside another, counted out; 0 beside 1 is 0."""
    ends = [(low, high) for low in range(4) for high in (None, 1, 2, 4) if high is None or high > low]
    many = [0, 1, 2, 5, *(dim(*each) for each in ends)]

    def members(d: Dim) -> set[int]:
        low, high = bounds(d)
        return set(range(low, (9 if high is None else high) + 1))

    for a, b in itertools.product(many, many):
        wanted = {y if x == 1 else x for x in members(a) for y in members(b) if x == y or 1 in (x, y)}
        found = broadcast_dims(a, b)
        if not wanted:
            assert found is None, f"{a} and {b}"
            continue
        assert found is not None and wanted <= members(found), f"{a} and {b}: {found}"
        assert min(wanted) == bounds(found)[0], f"{a} and {b}: {found}"


@pytest.mark.parametrize("shape", [(0, 3, 8, 4), (2, 0, 8, 4), (0, 0, 8, 4), (2, 3, 8, 4)])
@pytest.mark.parametrize("pattern", [(0, 1, -1), (0, -1)])
def test_heads_of_no_rows_are_joined_as_there(shape, pattern):
    """Of an empty batch, too, heads beside one another are as wide as of any other: an axis, or -1."""
    openvino = pytest.importorskip("openvino")

    def answer(package):
        op = package.opset13
        x = op.parameter([-1, -1, 8, 4], np.float32)
        sizes = op.shape_of(x)
        axes = [op.constant(np.array([a])) for a in pattern]
        parts = [op.gather(sizes, a, op.constant(0)) if a.data[0] >= 0 else a for a in axes]
        model = package.Model([op.reshape(x, op.concat(parts, 0), False)], [x], "m")
        return package.compile_model(model, "CPU")(np.ones(shape, np.float32))[0].shape

    assert answer(ovjit) == answer(openvino)
