"""Weights made integers of 8 and 4 bits: what is made, how near it is, and that it is computed as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.compat.passes.weight_compression import compress_weights

SEED = 20261123


def model_of(rng: np.random.Generator, dtype: Any = np.float32, transposed: bool = True) -> ov.Model:
    """Words, a product, and a last product with the words."""
    ids = ops.parameter(ov.PartialShape([-1]), np.int64, name="ids")
    words = ops.constant(rng.standard_normal((90, 256)).astype(dtype))
    middle = rng.standard_normal((320, 256) if transposed else (256, 320)).astype(dtype) / 16
    last = ops.constant((rng.standard_normal((90, 320)) / 16).astype(dtype))
    wide = [ops.convert(w, "f32") if dtype != np.float32 else w for w in (words, ops.constant(middle), last)]
    x = ops.gather(wide[0], ids, ops.constant(np.int64(0)))
    x = ops.matmul(x, wide[1], False, transposed)
    y = ops.matmul(ops.tanh(x), wide[2], False, True)
    return ov.Model([y], [ids], "words")


def stored(model: ov.Model) -> list[str]:
    nodes = [o for o in model.get_ops() if o.get_type_name() == "Constant" and len(o.get_output_shape(0)) > 1]
    kinds = (o.get_element_type().get_type_name() for o in nodes if np.prod(o.get_output_shape(0)) > 4096)
    return sorted(kinds)


def run(model: ov.Model, ids: np.ndarray) -> np.ndarray:
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return np.array(ov.Core().compile_model(model, "CPU", exact)([ids])[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("bits", "kinds"), [(8, ["u8", "u8", "u8"]), (4, ["i4", "u8", "u8"])])
def test_what_is_made(dtype: Any, bits: int, kinds: list[str]) -> None:
    real = run(model_of(np.random.default_rng(SEED), dtype), np.arange(40))
    model = model_of(np.random.default_rng(SEED), dtype)
    assert compress_weights(model, bits) == 3
    assert stored(model) == kinds
    error = abs(run(model, np.arange(40)) - real).max() / abs(real).max()
    assert (1e-5 if bits == 8 else 1e-3) < error < (0.02 if bits == 8 else 0.12), f"seed {SEED}: {error}"
    assert compress_weights(model, bits) == 0


@pytest.mark.parametrize(("bits", "kind"), [(8, "u8"), (4, "i4")])
def test_matrices_of_experts(bits: int, kind: str) -> None:
    """Each matrix of a table has scales of its own; behind it is a last product."""
    rng = np.random.default_rng(SEED)
    table = rng.standard_normal((3, 64, 128)).astype(np.float32) / 11
    table *= np.array([1, 10, 0.1], np.float32).reshape(3, 1, 1)
    last = ops.constant(np.broadcast_to(np.eye(64, dtype=np.float32), (3, 64, 64)).copy())

    def made() -> ov.Model:
        x = ops.parameter(ov.PartialShape([3, -1, 128]), np.float32)
        y = ops.matmul(x, ops.constant(table), False, True)
        return ov.Model([ops.matmul(y, last, False, False)], [x], "experts")

    rows = rng.standard_normal((3, 5, 128)).astype(np.float32)
    small = made()
    assert compress_weights(small, bits, 64) == 2
    assert kind in stored(small)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    got = np.array(ov.Core().compile_model(small, "CPU", exact)([rows])[0])
    expected = np.einsum("emk,enk->emn", rows.astype(np.float64), table)
    for one, other in zip(got, expected, strict=True):
        assert abs(one - other).max() < (0.02 if bits == 8 else 0.15) * abs(other).max(), f"seed {SEED}"


def test_columns_and_groups_that_do_not_divide() -> None:
    model = model_of(np.random.default_rng(SEED), transposed=False)
    assert compress_weights(model, 4) == 3
    assert stored(model) == ["u8", "u8", "u8"]
    model = model_of(np.random.default_rng(SEED))
    assert compress_weights(model, 4, group=96) == 3
    assert stored(model) == ["u8", "u8", "u8"]
    real = run(model_of(np.random.default_rng(SEED)), np.arange(9))
    assert abs(run(model, np.arange(9)) - real).max() < 0.02 * abs(real).max()


def test_each_weight_is_near() -> None:
    """No further than half a step, but for those at the one end that signed numbers do not reach."""
    rng = np.random.default_rng(SEED)
    weight = rng.standard_normal((64, 128)).astype(np.float32)
    weight[3] = 0
    weight[4] = 1e-30
    x = ops.parameter(ov.PartialShape([-1, 128]), np.float32)
    for bits in (8, 4):
        model = ov.Model([ops.matmul(x, ops.constant(weight), False, True)], [x], "one")
        if bits == 4:  # the last product keeps 8 bits
            y = ops.matmul(x, ops.constant(weight), False, True)
            y = ops.matmul(y, ops.constant(np.eye(64, dtype=np.float32)), False, False)
            model = ov.Model([y], [x], "two")
        compress_weights(model, bits, 64)
        got = run(model, np.eye(128, dtype=np.float32)).T
        span = weight.max(1) - weight.min(1) if bits == 8 else 2 * abs(weight).max(1)
        step = np.maximum(span, 1e-4) / (255 if bits == 8 else 16)
        assert (abs(got - weight).max(1) <= step * (0.51 if bits == 8 else 1.02)).all(), f"seed {SEED}"


@pytest.mark.parametrize(
    ("bits", "group", "words"), [(3, 128, "8 or 4 bits"), (4, 0, "multiple of 16"), (4, 20, "multiple of 16")]
)
def test_refusals(bits: int, group: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compress_weights(model_of(np.random.default_rng(SEED)), bits, group)
