"""Weights stored as integers with half-precision scales: worked out in f32, however the chain is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from ovjit.errors import ModelError
from ovjit.graph.graph import Builder
from tests.support.compiled import run_passes

SEED = 20261211


def _model(ov: Any, op: Any, half: str, zero: bool, reshape: bool) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(SEED)
    whole = rng.integers(-100, 100, (16, 32)).astype(np.int8)
    scale = (rng.random((16, 1)) * 0.01 + 0.001).astype(np.float16)
    zeros = rng.integers(-20, 20, (16, 1)).astype(np.int8)
    rows = op.parameter([3], np.int64)
    w = op.convert(op.constant(whole), half)
    if zero:
        w = op.subtract(w, op.convert(op.constant(zeros), half))
    w = op.multiply(w, op.convert(op.constant(scale), half) if half == "bf16" else op.constant(scale))
    if reshape:
        w = op.reshape(w, op.constant(np.array([32, 16])), False)
    y = op.gather(op.convert(w, "f32"), rows, op.constant(np.array(0)))
    wide = scale.astype(np.float32)
    if half == "bf16":
        wide = (wide.view(np.uint32) + 0x7FFF + ((wide.view(np.uint32) >> 16) & 1) & 0xFFFF0000).view(
            np.float32
        )
    want = (whole.astype(np.float32) - (zeros.astype(np.float32) if zero else 0)) * wide
    return ov.Model([y], [rows], "m"), want.reshape(32, 16) if reshape else want


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("reshape", [False, True])
def test_half_scales_are_multiplied_in_f32(zero: bool, reshape: bool) -> None:
    model, want = _model(ovjit, op, "f16", zero, reshape)
    rows = np.array([1, 5, 15])
    np.testing.assert_array_equal(ovjit.compile_model(model, "CPU")([rows])[0], want[rows])


@pytest.mark.parametrize("zero", [False, True])
def test_as_the_real_package(zero: bool) -> None:
    ov: Any = pytest.importorskip("openvino")
    from openvino import opset13 as real

    rows = np.array([1, 5, 15])
    theirs = ov.compile_model(_model(ov, real, "f16", zero, False)[0], "CPU")([rows])[0]
    ours = ovjit.compile_model(_model(ovjit, op, "f16", zero, False)[0], "CPU")([rows])[0]
    np.testing.assert_array_equal(ours, theirs)


def _stored(ov: Any, op: Any, kind: str) -> Any:
    """A table of which rows are taken and that a row is multiplied with: codes of levels of f16 or f8, or
    numbers of 4 bits whose scales are products of two."""
    rng = np.random.default_rng([SEED, len(kind)])
    rows, depth = 64, 48
    if kind == "scaled scales":
        packed = ov.Tensor(ov.Type.f4e2m1, [rows, 3, 16])
        packed.data.reshape(-1)[...] = rng.integers(0, 256, rows * depth // 2)
        numbers = op.constant(packed)
        small = op.convert(op.constant(rng.integers(8, 16, (rows, 3, 1)) / 8, ov.Type.f8e4m3), "f32")
        scale = op.convert(op.multiply(small, op.constant(np.full((1, 1, 1), 0.0123, np.float32))), "f16")
        w = op.multiply(op.convert(numbers, "f16"), scale)
    else:
        count = 200 if kind == "200 levels of f32" else 16
        levels = np.sort(rng.standard_normal(count)).astype(np.float32)
        levels = np.float32(rng.integers(-16, 17, count) / 16) if kind == "levels of f8e4m3" else levels
        codes = rng.integers(0, count, (rows, 3, 16)).astype(np.uint8)
        table = op.constant(levels, ov.Type.f8e4m3) if kind == "levels of f8e4m3" else op.constant(levels)
        w = op.gather(op.convert(table, "f16"), op.constant(codes), op.constant(np.array(0)))
        w = op.multiply(w, op.constant((rng.random((rows, 3, 1)) + 0.1).astype(np.float16)))
    w = op.convert(op.reshape(w, op.constant(np.array([rows, depth])), False), "f32")
    taken, x = op.parameter([5], np.int64), op.parameter([2, depth], np.float32)
    outs = [op.gather(w, taken, op.constant(np.array(0))), op.matmul(x, w, False, True)]
    return ov.Model(outs, [taken, x], "m")


KINDS = ["scaled scales", "levels of f8e4m3", "16 levels of f32", "200 levels of f32"]


@pytest.mark.parametrize("kind", KINDS)
def test_levels_and_scales_of_scales_as_the_real_package(kind: str) -> None:
    ov: Any = pytest.importorskip("openvino")
    from openvino import opset13 as real

    given = [np.array([1, 5, 15, 0, 63]), np.random.default_rng(SEED).standard_normal((2, 48), np.float32)]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    theirs = ov.compile_model(_stored(ov, real, kind), "CPU", exact)(given)
    ours = ovjit.compile_model(_stored(ovjit, op, kind), "CPU", exact)(given)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=2e-6 * np.abs(theirs[1]).max())


@pytest.mark.parametrize("half", ["f16", "bf16"])
def test_inputs_of_halves_are_no_stored_weights(half: str) -> None:
    x = op.parameter([3], getattr(ovjit.Type, half))
    y = op.multiply(op.convert(x, "f32"), op.convert(op.multiply(x, x), "f32"))
    given = ovjit.Tensor(getattr(ovjit.Type, half), [3])
    given.data.view(np.uint16)[...] = 0x4000  # 2
    np.testing.assert_array_equal(ovjit.compile_model(ovjit.Model([y], [x]), "CPU")([given])[0], [8, 8, 8])


def test_what_is_computed_in_halves_stays_so() -> None:
    """Only a product that begins at integers is a stored weight: a product of f16 is one of f16."""
    b = Builder()
    one, other = (b.constant(np.array([v], np.float16)) for v in (0.1, 0.3))
    product = b.add("Multiply", [one, other]).output
    x = b.add("Parameter", (), {"shape": (1,), "element_type": "f32"}).output
    wide = b.add("Convert", [product], {"destination_type": "f32"}).output
    graph = run_passes(b.finish([b.add("Add", [x, wide]).output]))
    values = [n.attrs["value"] for n in graph.nodes if n.op.name == "Constant"]
    assert [v.item() for v in values] == [float(np.float16(0.1) * np.float16(0.3))]


def test_nodes_are_renamed_by_their_builder_alone_and_before_they_are_in_a_graph() -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (3,), "element_type": "f32"}).output
    node = b.add("Relu", [x])
    b.rename(node, "other")
    assert node.name == "other"
    with pytest.raises(ModelError, match="renamed"):
        Builder().rename(node, "third")
    b.finish([node.output])
    with pytest.raises(ModelError, match="renamed"):
        b.rename(node, "third")
