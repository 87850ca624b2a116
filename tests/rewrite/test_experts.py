"""Mixtures of experts, as exporters write them for all rows, are computed for the rows that chose them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.rewrite.rules import applied

SEED = 20261124
EXPERTS, WIDE, INNER, KEPT = 6, 64, 192, 2
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
ops = ov.opset13
END = np.array([np.iinfo(np.int64).max])


def const(value: Any, kind: Any = np.int64) -> Any:
    return ops.constant(np.array(value, kind))


class Block:
    """One block: weights of all experts, as a model has them and in f64."""

    def __init__(self, stored: str, kept: int = KEPT):
        self.rng, self.stored, self.kept = np.random.default_rng(SEED), stored, kept
        self.x = ops.parameter(ov.PartialShape([-1, -1, WIDE]), np.float32)
        self.rows = ops.reshape(self.x, const([-1, WIDE]), False)
        self.gate = self.rng.standard_normal((EXPERTS, WIDE)).astype(np.float32)

    def table(self, outs: int, depth: int) -> tuple[Any, np.ndarray]:
        """A table [E, outs, depth]."""
        if self.stored == "f32":
            array = (self.rng.standard_normal((EXPERTS, outs, depth)) / depth**0.5).astype(np.float32)
            return ops.constant(array), array.astype(np.float64)
        if self.stored == "levels":
            levels = np.sort(self.rng.standard_normal(16)).astype(np.float32)
            places = self.rng.integers(0, 16, (EXPERTS, outs, depth)).astype(np.uint8)
            found = ops.gather(ops.constant(levels), ops.constant(places), const(0))
            return ops.multiply(found, const(0.1, np.float32)), levels[places] * 0.1
        groups = depth // 32 if self.stored == "u4" else 1
        whole = self.rng.integers(0, 16, (EXPERTS, outs, groups, depth // groups)).astype(np.uint8)
        scale = (self.rng.uniform(0.5, 1, (EXPERTS, outs, groups, 1)) / 4 / depth**0.5).astype(np.float32)
        kind = ov.Type.u4 if self.stored == "u4" else ov.Type.u8
        numbers = ops.convert(ops.constant(whole, kind), "f32")
        found = ops.multiply(ops.subtract(numbers, const(8, np.float32)), ops.constant(scale))
        true = ((whole - 8.0) * scale.astype(np.float64)).reshape(EXPERTS, outs, depth)
        return ops.reshape(found, const([EXPERTS, outs, depth]), False), true

    def offsets(self, size: int) -> tuple[Any, np.ndarray]:
        array = self.rng.standard_normal((EXPERTS, 1, size)).astype(np.float32)
        return ops.constant(array), array.astype(np.float64)

    def chosen(self) -> tuple[Any, Any]:
        """TopK's places, and the weights."""
        logits = ops.matmul(self.rows, ops.constant(self.gate), False, True)
        best = ops.topk(logits, const(self.kept), 1, "max", "value", "i64")
        return best.output(1), ops.softmax(best.output(0), 1)

    def share(self, start: float = 0) -> Any:
        places, weights = self.chosen()
        count = ops.gather(ops.shape_of(self.rows, "i64"), const([0]), const(0))
        none = ops.broadcast(const(start, np.float32), ops.concat([count, const([EXPERTS])], 0))
        return ops.transpose(ops.scatter_elements_update(none, places, weights, const(1)), const([1, 0]))

    def tiled(self) -> Any:
        wide = ops.tile(self.rows, const([EXPERTS, 1]))
        return ops.reshape(wide, const([EXPERTS, -1, WIDE]), False)

    def routed(self, data: np.ndarray) -> np.ndarray:
        """The weights [T, E] in f64."""
        logits = data.reshape(-1, WIDE).astype(np.float64) @ self.gate.T
        least = np.sort(logits, 1)[:, -self.kept, None]
        share = np.where(logits >= least, np.exp(logits - logits.max(1, keepdims=True)), 0)
        return share / share.sum(1, keepdims=True)

    def model(self, made: Any, share: Any, split: bool) -> ov.Model:
        """`split`: rows in two dimensions, as the input has them."""
        if split:
            dims = ops.gather(ops.shape_of(self.x, "i64"), const([0]), const(0))
            made = ops.reshape(made, ops.concat([const([EXPERTS]), dims, const([-1, WIDE])], 0), False)
            share = ops.reshape(share, ops.concat([const([EXPERTS]), dims, const([-1])], 0), False)
        product = ops.multiply(made, ops.unsqueeze(share, const(-1)))
        return ov.Model([ops.reduce_sum(product, const(0), False)], [self.x])


def clamped(block: Block) -> tuple[Any, Any]:
    """Products with offsets, of whose elements every second one is a gate (gpt-oss)."""
    (both, two), (first, one), (down, three), (second, four) = (
        block.table(2 * INNER, WIDE), block.offsets(2 * INNER), block.table(WIDE, INNER), block.offsets(WIDE),
    )  # fmt: skip
    made = ops.add(ops.matmul(block.tiled(), both, False, True), first)
    gate, up = (ops.slice(made, const([i]), const(END), const([2]), const([2])) for i in (0, 1))
    gate = ops.swish(ops.minimum(gate, const(0.5, np.float32)), const(1.702, np.float32))
    up = ops.add(ops.clamp(up, -0.5, 0.5), const(1, np.float32))
    made = ops.add(ops.matmul(ops.multiply(up, gate), down, False, True), second)

    def true(x: np.ndarray) -> np.ndarray:
        whole = x @ two.swapaxes(1, 2) + one
        g = np.minimum(whole[..., ::2], 0.5)
        u = np.clip(whole[..., 1::2], -0.5, 0.5) + 1
        return (u * g / (1 + np.exp(-1.702 * g))) @ three.swapaxes(1, 2) + four

    return made, true


def gated(block: Block) -> tuple[Any, Any]:
    """Three products (Qwen, Mixtral)."""
    (gate, one), (up, two), (down, three) = (
        block.table(INNER, WIDE), block.table(INNER, WIDE), block.table(WIDE, INNER),
    )  # fmt: skip
    x = block.tiled()
    made = ops.multiply(ops.swish(ops.matmul(x, gate, False, True)), ops.matmul(x, up, False, True))

    def true(x: np.ndarray) -> np.ndarray:
        g = x @ one.swapaxes(1, 2)
        return (g / (1 + np.exp(-g)) * (x @ two.swapaxes(1, 2))) @ three.swapaxes(1, 2)

    return ops.matmul(made, down, False, True), true


FORMS = {"clamped": clamped, "gated": gated}


def chosen_so_far() -> int:
    """How often the rule was applied."""
    return sum(count for rule, count in applied.items() if "choose_experts" in repr(rule))


def check(compiled: Any, block: Block, true: Any, shape: tuple[int, int]) -> None:
    data = block.rng.standard_normal((*shape, WIDE)).astype(np.float32)
    want = (true(data.reshape(1, -1, WIDE).astype(np.float64)) * block.routed(data).T[..., None]).sum(0)
    got = compiled(data)[0]
    assert got.reshape(-1, WIDE).shape == want.shape
    assert np.abs(got.reshape(-1, WIDE) - want).max(initial=0) <= 2e-6 * np.abs(want).max(initial=1)


@pytest.mark.parametrize("split", [True, False], ids=["split", "rows"])
@pytest.mark.parametrize("stored", ["f32", "u8", "u4"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_the_experts_that_they_chose(form: str, stored: str, split: bool) -> None:
    """At any number of rows, the answers of all experts; none is computed for all rows."""
    block = Block(stored)
    made, true = FORMS[form](block)
    before = chosen_so_far()
    compiled = ov.Core().compile_model(block.model(made, block.share(), split), "CPU", F32)
    assert chosen_so_far() == before + 1
    anchors = [low.group.node.op.name for low in compiled._executable.program.lowerings]
    assert "ScatterElementsUpdate" not in anchors and "Tile" not in anchors
    wanted = "GatheredMatMul" if stored == "f32" else "CompressedMatMul"
    assert anchors.count(wanted) == (2 if form == "clamped" else 3)
    for shape in ((1, 1), (2, 5), (1, 40), (0, 3)):
        check(compiled, block, true, shape)


def test_tables_of_levels_are_read_by_row() -> None:
    """Codes of levels stay packed, and a row reads the matrices of its experts only."""
    block = Block("levels")
    made, true = gated(block)
    before = chosen_so_far()
    compiled = ov.Core().compile_model(block.model(made, block.share(), True), "CPU", F32)
    assert chosen_so_far() == before + 1
    check(compiled, block, true, (2, 5))


@pytest.mark.parametrize("change", ["start", "places", "sum", "along"])
def test_others_are_left_alone(change: str) -> None:
    """Experts that count without being chosen, places that may be equal, and what mixes experts."""
    block = Block("f32")
    made, _ = gated(block)
    share = block.share(0.25 if change == "start" else 0)
    if change == "places":
        places, weights = block.chosen()
        none = ops.broadcast(const(0, np.float32), ops.shape_of(ops.matmul(
            block.rows, ops.constant(block.gate), False, True), "i64"))  # fmt: skip
        same = ops.multiply(places, const(0))
        share = ops.scatter_elements_update(none, same, weights, const(1))
        share = ops.transpose(share, const([1, 0]))
    if change == "sum":
        made = ops.softmax(made, 0)
    if change == "along":
        made = ops.add(made, ops.transpose(ops.unsqueeze(block.share(), const(0)), const([1, 2, 0])))
    before = chosen_so_far()
    ov.Core().compile_model(block.model(made, share, False), "CPU", F32)
    assert chosen_so_far() == before
