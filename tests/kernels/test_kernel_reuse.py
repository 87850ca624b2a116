"""Kernels serve any constant: compile times do not grow with the numbers of a model, nor with its depth."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.codegen.trace import is_common
from ovjit.engine import compile_graph
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.planning.fuse import MOST_INSTRUCTIONS, instructions
from tests.support.compiled import fuse, here, program_of
from tests.support.run import run_job

SEED = 20261130
CONV = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}


def _layers(anchor: str, rng: np.random.Generator) -> Graph:
    """Six equal layers, each with numbers of its own."""
    b = Builder()
    shape = (2, 16) if anchor in ("matmul", "none") else (1, 16, 24, 24)
    y: Value = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    for _ in range(6):
        if anchor == "conv":
            y = b.add("Convolution", [y, b.constant(_random(rng, 16, 16, 1, 1))], {**CONV, **NONE}).output
        elif anchor == "winograd":
            y = b.add("Convolution", [y, b.constant(_random(rng, 16, 16, 3, 3))], CONV).output
        elif anchor == "depthwise":
            y = b.add("GroupConvolution", [y, b.constant(_random(rng, 16, 1, 1, 3, 3))], CONV).output
        elif anchor == "transposed":
            y = b.add("ConvolutionBackpropData", [y, b.constant(_random(rng, 16, 16, 3, 3))], CONV).output
        elif anchor == "matmul":
            y = b.add("MatMul", [y, b.constant(_random(rng, 16, 16))]).output
        elif anchor == "product":
            y = b.add("MatMul", [y, y], {"transpose_b": True}).output
        y = b.add("Relu", [y]).output if anchor == "none" else y
        low, scale = (b.constant(np.float32(rng.uniform(0.2, 0.9))) for _ in range(2))
        y = b.add("Multiply", [b.add("Maximum", [low, y]).output, scale]).output
        y = b.add("Clamp", [y], {"min": -float(rng.uniform(3, 4)), "max": float(rng.uniform(3, 4))}).output
        y = b.add("Softmax", [y], {"axis": 1}).output  # so that layers stay apart
    return b.finish([y])


NONE = {"pads_begin": (0, 0), "pads_end": (0, 0)}


def _random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "anchor", ["conv", "winograd", "depthwise", "transposed", "matmul", "product", "none"]
)
def test_layers_with_numbers_of_their_own_share_kernels(anchor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if anchor == "winograd":
        monkeypatch.setenv("OVJIT_WINOGRAD", "2")
    graphs = [_layers(anchor, np.random.default_rng([SEED, i])) for i in range(2)]
    kernels = [{k.symbol() for k in program_of(graph).kernels} for graph in graphs]
    assert kernels[0] == kernels[1], "another model with other numbers"
    graph = graphs[0]
    names = [k.name for k in program_of(graph).kernels if "maximum" in k.name]
    # a softmax takes them behind it, the first one in front of it, too, where its input lies so that it can
    assert len(names) == (3 if anchor == "none" else 1), names
    x = _random(np.random.default_rng(SEED), *graph.inputs[0].shape)
    job = compile_graph(graph, {}).new_job()
    run_job(job, [x])
    np.testing.assert_allclose(job.outputs[0], evaluate(graph, [x])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "f64", "i32", "i64", "u8"])
def test_numbers_as_operands_and_as_text_are_equal(dtype: str) -> None:
    """Printed or read, a number is the same, in every element type and however it lies."""
    rng = np.random.default_rng(SEED)
    kind = dtypes.numpy_dtype(dtype)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, 5, ANY), "element_type": dtype}).output
    numbers = [np.array(v).astype(kind) for v in (3, 77, 1, 100)]
    real = dtypes.ELEMENT_TYPES[dtype].is_real
    if real:
        numbers = [np.array(v).astype(kind) for v in (0.1, 1.7, 2, -0.3)]
    y = b.add("Multiply", [x, b.constant(numbers[0], dtype)]).output
    y = b.add("Add", [b.constant(numbers[1].reshape(1, 1, 1), dtype), y]).output
    y = b.add("Divide", [y, b.constant(numbers[1], dtype)]).output
    turned = b.add("Transpose", [y, b.constant(np.array([2, 0, 1]))]).output
    y = b.add("Subtract", [turned, b.constant(numbers[3], dtype)]).output
    graph = b.finish([y])
    job = compile_graph(graph, {}).new_job()
    for shape in [(3, 5, 17), (1, 5, 1), (2, 5, 16), (0, 5, 3)]:
        array = rng.integers(0, 9, shape).astype(kind)
        run_job(job, [array])
        want = evaluate(graph, [array])[0]
        if real:
            eps = float(np.finfo(np.float32).eps if dtype == "f32" else 1e-15 if dtype == "f64" else 2**-7)
            np.testing.assert_allclose(
                job.outputs[0].astype(np.float64), want.astype(np.float64), rtol=8 * eps, atol=8 * eps
            )
        else:
            np.testing.assert_array_equal(job.outputs[0], want)


#: Ways to write what is one kernel for any number, and for numbers that many models share.
SPELLINGS = {
    "product": [("Multiply", "xn", 0.3), ("Multiply", "nx", 0.5), ("Multiply", "xn", 2), ("Divide", "xn", 8)],
    "sum": [("Add", "xn", 0.3), ("Add", "nx", 1), ("Subtract", "xn", 3), ("Subtract", "xn", 0.0)],
    "difference": [("Subtract", "nx", 0.3), ("Subtract", "nx", 1)],
    "least": [("Minimum", "xn", 0.3), ("Minimum", "xn", 2)],
    "slope": [("PRelu", "xn", 0.3), ("PRelu", "xn", 0.25)],
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_one_kernel_does_what_is_written_in_several_ways(kind: str) -> None:
    """And its bits are NumPy's."""
    x = np.concatenate(
        [_random(np.random.default_rng(SEED), 70), np.array([0.0, -0.0, 1e-39, np.inf], np.float32)]
    )
    references = {
        "Multiply": np.multiply, "Divide": np.divide, "Add": np.add, "Subtract": np.subtract,
        "Minimum": np.minimum, "PRelu": lambda x, n: np.where(x < 0, x * n, x),
    }  # fmt: skip
    found = set()
    for name, order, number in SPELLINGS[kind]:
        b = Builder()
        given = {"n": np.float32(number), "x": x}
        values = {
            "n": b.constant(given["n"]),
            "x": b.add("Parameter", (), {"shape": x.shape, "element_type": "f32"}).output,
        }
        graph = b.finish([b.add(name, [values[each] for each in order]).output])
        found.add(frozenset(k.symbol() for k in program_of(graph).kernels))
        job = compile_graph(graph, {}).new_job()
        run_job(job, [x])
        want = references[name](*(given[each] for each in order)).astype(np.float32)
        np.testing.assert_array_equal(job.outputs[0].view(np.int32), want.view(np.int32))
    assert len(found) == 1


def test_bytes_of_any_zero_point_share_kernels() -> None:
    found = set()
    for zero in (-0.0, 128, 7):
        b = Builder()
        x = b.add("Parameter", (), {"shape": (3, 40), "element_type": "f32"}).output
        numbers = [b.constant(np.float32(n)) for n in (20.5, zero)]
        attrs = {"low": 0, "high": 255, "element_type": "u8"}
        graph = b.finish([b.add("Quantize", [x, *numbers], attrs).output])
        found.add(frozenset(k.symbol() for k in program_of(graph).kernels))
    assert len(found) == 1


@pytest.mark.parametrize("mode", ["", "s", "v"])
def test_ranks_share_kernels(mode: str) -> None:
    def kernels(*shape: int) -> set[str]:
        b = Builder()
        x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        other = {"": (), "s": (*shape[:-1], 1), "v": (1,) * (len(shape) - 1) + shape[-1:]}[mode]
        y = b.add("Parameter", (), {"shape": other, "element_type": "f32"}).output if mode else x
        graph = b.finish([b.add("Relu", [b.add("Add", [x, y]).output]).output])
        return {k.symbol() for k in program_of(graph).kernels if k.name.startswith("add")}

    assert kernels(7, 40) == kernels(3, 7, 40) == kernels(2, 3, 7, 40) != kernels(2, 2, 3, 7, 40)


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5, 6])
def test_rows_of_every_rank_and_share(rank: int) -> None:
    """Chunks begin anywhere in the nest, and each dimension is walked to its end."""
    rng = np.random.default_rng([SEED, rank])
    shape = tuple(int(n) for n in rng.integers(2, 6, rank - 1)) + (70,)
    b = Builder()
    inputs = [shape, tuple(1 if i % 2 else n for i, n in enumerate(shape)), (*shape[:-1], 1)]
    x, y, z = (b.add("Parameter", (), {"shape": s, "element_type": "f32"}).output for s in inputs)
    graph = b.finish([b.add("Add", [b.add("Multiply", [x, y]).output, z]).output])
    given = [_random(rng, *s) for s in inputs]
    job = compile_graph(graph, {}).new_job()
    run_job(job, given)
    (wanted,) = evaluate(graph, given)
    np.testing.assert_allclose(job.outputs[0], wanted, rtol=2e-6, atol=1e-6)


def test_numbers_that_are_one_constant_are_operands_of_their_own() -> None:
    def kernels(shared: bool) -> set[str]:
        b = Builder()
        x = b.add("Parameter", (), {"shape": (4, 70), "element_type": "f32"}).output
        one = b.constant(np.float32(0.37))
        other = one if shared else b.constant(np.float32(0.41))
        y = b.add("Multiply", [b.add("Add", [x, one]).output, other]).output
        return {k.symbol() for k in program_of(b.finish([b.add("Relu", [y]).output])).kernels}

    assert kernels(True) == kernels(False)


def test_common_numbers_are_text() -> None:
    assert all(map(is_common, [0.0, -0.0, 1.0, -1.0, 2.0, 6.0, 0.5, 0.25, -128.0, 255.0, 65536.0]))
    assert all(map(is_common, [float("inf"), float("nan")]))
    assert not any(map(is_common, [0.1, 1.5, 9.0, 100.0, 1 / 6, 3.14159]))


def test_long_chains_are_cut_by_instructions() -> None:
    b = Builder()
    y = b.add("Parameter", (), {"shape": (4,), "element_type": "f32"}).output
    for _ in range(60):
        y = b.add("Tanh", [y]).output
    groups = fuse(b.finish([y]))
    assert all(g.instructions <= MOST_INSTRUCTIONS for g in groups)
    assert len({len(g.body) for g in groups[:-1]}) == 1, "equal cuts: one kernel"
    assert sum(len(g.body) for g in groups) == 60
    assert instructions(groups[0].body[0], here().target) * len(groups[0].body) == groups[0].instructions


def test_one_heavy_node_is_a_group_all_the_same() -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (4,), "element_type": "f32"}).output
    y = b.add("Gelu", [b.add("MatMul", [x, b.constant(np.eye(4, dtype=np.float32))]).output]).output
    (group,) = fuse(b.finish([y]))
    assert [n.op.name for n in group.nodes] == ["MatMul", "Gelu"]
