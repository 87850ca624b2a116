"""Ranges whose zero lies between two steps: products of bytes with an offset in f32, beside exact sums."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler import compile
from ovjit.compiler.options import Options
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.op import find_op

SEED = 20261126
STEP, LEVELS = 0.125, 256
#: The step that stands for 0, behind its whole number.
FRACTION = 0.375


def ranged(b: Builder, x: Value, zero: float) -> Value:
    low, high = -zero * STEP, (LEVELS - 1 - zero) * STEP
    limits = [b.constant(np.float32(v)) for v in (low, high, low, high)]
    return b.add("FakeQuantize", [x, *limits], {"levels": LEVELS}).output


def of_steps(rng: np.random.Generator, shape: tuple[int, ...], zero: float) -> np.ndarray:
    """Numbers that are steps, and far ones that are cut off."""
    steps = rng.integers(-40, LEVELS + 40, shape)
    return ((steps - zero) * STEP).astype(np.float32)


def product(shape: tuple[int, ...], kernel: tuple[int, ...], pads: int, zero: float, seed: int) -> tuple:
    """(graph, input, exact answer) of a MatMul or a Convolution with bias; weights are bytes with a scale."""
    rng = np.random.default_rng((SEED, seed))
    integers = rng.integers(-127, 128, kernel).astype(np.int8)
    scales = np.exp2(rng.integers(-9, -5, (kernel[0], *[1] * (len(kernel) - 1)))).astype(np.float32)
    bias = rng.integers(-9, 9, (1, kernel[0], *[1] * (len(kernel) - 2))).astype(np.float32)
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    wide = b.add("Convert", [b.constant(integers)], {"destination_type": "f32"}).output
    weights = b.add("Multiply", [wide, b.constant(scales)]).output
    data = ranged(b, x, zero)
    given = of_steps(rng, shape, zero)
    exact = (np.clip(np.rint(given / STEP + zero), 0, LEVELS - 1) - zero) * STEP
    real = integers * scales.astype(np.float64)
    if len(kernel) == 2:
        out = b.add("MatMul", [data, weights], {"transpose_a": False, "transpose_b": True}).output
        answer = exact @ real.T
        bias = bias.reshape(-1)
    else:
        attrs = {
            "strides": (1, 1), "dilations": (1, 1), "pads_begin": (pads, pads), "pads_end": (pads, pads),
            "auto_pad": "explicit",
        }  # fmt: skip
        out = b.add("Convolution", [data, weights], attrs).output
        (answer,) = find_op("Convolution").evaluate([exact.astype(np.float64), real], attrs)
    out = b.add("Add", [out, b.constant(bias)]).output
    return b.finish([out]), given, answer + bias


def kernels(graph: Graph, target: str = "avx2") -> set[str]:
    return {k.name for k in compile(graph, TARGETS[target], Options()).kernels}


def answer_of(graph: Graph, given: np.ndarray) -> np.ndarray:
    job = compile_graph(graph, {}).new_job()
    job.set_input(0, given)
    job.run()
    return np.array(job.outputs[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "shape, kernel, pads, of_bytes",
    [
        ((7, 40), (24, 40), 0, True),
        ((2, 5, 33), (16, 33), 0, True),
        ((1, 16, 9, 7), (24, 16, 1, 1), 0, True),
        ((2, 8, 9, 7), (20, 8, 3, 3), 0, True),
        ((1, 16, 9, 7), (24, 16, 3, 3), 1, False),  # no byte is the zero around the image
    ],
    ids=str,
)
def test_products(shape: tuple, kernel: tuple, pads: int, of_bytes: bool, seed: int) -> None:
    zero = (0.0, 59.0, 254.0)[seed] + FRACTION
    graph, given, answer = product(shape, kernel, pads, zero, seed)
    assert any("u8i8" in name for name in kernels(graph)) == of_bytes
    size = np.abs(answer).max()
    np.testing.assert_allclose(answer_of(graph, given), answer, rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("seed", range(2))
def test_a_range_behind_a_product(seed: int) -> None:
    """The second product reads bytes that the first one writes, and no real tensor is in between."""
    rng = np.random.default_rng((SEED, seed))
    zeros = 101 + FRACTION, 77 + FRACTION + 2.0**-13  # behind it no sum lies between two steps
    rows = [rng.integers(-127, 128, shape).astype(np.int8) for shape in ((32, 48), (8, 32))]
    given = of_steps(rng, (6, 48), zeros[0])
    b = Builder()
    out = b.add("Parameter", (), {"shape": given.shape, "element_type": "f32"}).output
    exact = given.astype(np.float64)
    for each, zero, scale in zip(rows, zeros, (2.0**-8, 1.0), strict=True):
        steps = exact / STEP + zero
        assert (steps % 1 != 0.5).all(), f"seed {seed}: a number lies between two steps"
        exact = (np.clip(np.rint(steps), 0, LEVELS - 1) - zero) * STEP @ (each * scale).T
        wide = b.add("Convert", [b.constant(each)], {"destination_type": "f32"}).output
        wide = b.add("Multiply", [wide, b.constant(np.float32(scale))]).output
        attrs = {"transpose_a": False, "transpose_b": True}
        out = b.add("MatMul", [ranged(b, out, zero), wide], attrs).output
    graph = b.finish([out])
    made = kernels(graph)
    assert any("u8i8" in name and "quantize" in name for name in made), made
    np.testing.assert_allclose(answer_of(graph, given), exact, rtol=0, atol=2e-6 * np.abs(exact).max())
