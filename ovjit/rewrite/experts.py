"""Mixtures of experts that are computed for all rows are computed for those that chose them.

    ReduceSum over experts(made(x tiled [E, T, H]) * Transpose(ScatterElementsUpdate(0, places, weights)))

Each of T rows has a weight for K of E experts, and 0 for the others. What is made comes from products with
matrices of a table [E, ...] and from elementwise operations. It is made for T * K rows of one expert each
instead:

    ReduceSum over K(made(x repeated [T * K, 1, H]) * weights),  where tables are Gather(table, places)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.graph.graph import Node, Value
from ovjit.records import NamedTuple
from ovjit.rewrite.compression import WIDEST, _before_transposes, scaled_integers
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

#: Constant inputs of these are looked through, so many deep, to see whether a value is one.
DEEP = 8
_SPLITS = frozenset(("Slice", "Split", "VariadicSplit"))
_MOVES = frozenset(("Reshape", "Unsqueeze", "Squeeze"))
_WEIGHED = op.Multiply(value("made"), value("share"))


class _Router(NamedTuple):
    """Which experts [T, K] rows take, and their weights [T, K]; how many experts there are."""

    indices: Value
    weights: Value
    experts: int


class _Refused(Exception):
    """What is made cannot be made by rows."""


@rule(op.ReduceSum(_WEIGHED, constant("axis"), keep_dims=lambda kept: not kept))
def choose_experts(w: Writer, node: Node, made: Value, share: Value, axis: Value) -> Value | None:
    """The experts of each row alone."""
    router = _router(share)
    if router is None:
        made, share = share, made
        router = _router(share)
    if router is None or axis.constant is None or np.ravel(axis.constant).tolist() != [0]:
        return None
    reshaped = made.node if made.node.op.name == "Reshape" else None
    whole = made if reshaped is None else reshaped.inputs[0]
    if node.output.dtype != "f32" or not _fits(whole, made, share, router):
        return None
    try:
        rows = _Rows(w, router).made(whole)
    except _Refused:
        return None
    weights = w("Reshape", router.weights, [-1, 1, 1], special_zero=False)
    kept, wide = router.indices.shape[1], whole.shape[2]
    parts = w("Reshape", w("Multiply", rows, weights), [-1, kept, wide], special_zero=False)
    out = w("ReduceSum", parts, [1], keep_dims=False)
    if reshaped is None:
        return out
    shape = w("Slice", reshaped.inputs[1], [1], [len(made.shape)], [1])
    return w("Reshape", out, shape, **reshaped.attrs)


def _fits(whole: Value, made: Value, share: Value, router: _Router) -> bool:
    """Whether what is made is [E, T, H], perhaps with T in several dimensions, and the weights have the same,
    and 1."""
    if any(v.shape is None for v in (whole, made, share)):
        return False
    same = len(whole.shape) == 3 and len(made.shape) == len(share.shape) and share.shape[-1] == 1
    pairs = zip(made.shape[1:-1], share.shape[1:-1], strict=True) if same else ()
    return (
        same and whole.shape[0] == made.shape[0] == share.shape[0] == router.experts
        and isinstance(whole.shape[2], int) and made.shape[-1] == whole.shape[2]
        and all((a == 1) == (b == 1) for a, b in pairs)
    )  # fmt: skip


def _router(share: Value) -> _Router | None:
    """The chosen experts and their weights that [E, T, 1] is made of."""
    while share.node.op.name in _MOVES:
        share = share.node.inputs[0]
    if share.node.op.name != "Transpose" or share.shape is None or len(share.shape) != 2:
        return None
    scattered, order = share.node.inputs
    if order.constant is None or np.ravel(order.constant).tolist() != [1, 0]:
        return None
    node = scattered.node
    if node.op.name != "ScatterElementsUpdate" or node.attrs.get("reduction", "none") != "none":
        return None
    data, indices, weights, axis = node.inputs
    experts = scattered.shape[1] if scattered.shape is not None and len(scattered.shape) == 2 else None
    chosen = _behind(indices, "Convert")
    distinct = chosen.node.op.name == "TopK" and chosen.node.attrs["axis"] in (1, -1)
    shapes = [v.shape for v in (indices, weights) if v.shape is not None and len(v.shape) == 2]
    if not isinstance(experts, int) or not distinct or len(shapes) != 2 or not _is_zero(data):
        return None
    kept = shapes[0][1]
    if not isinstance(kept, int) or shapes[1][1] != kept or axis.constant is None:
        return None
    return _Router(indices, weights, experts) if int(np.ravel(axis.constant)[0]) in (1, -1) else None


def _behind(source: Value, *names: str) -> Value:
    while source.node is not None and source.node.op.name in names:
        source = source.node.inputs[0]
    return source


def _is_zero(source: Value) -> bool:
    found = _behind(source, "Broadcast", "Convert", "Reshape", "Tile").constant
    return found is not None and not np.any(found)


def _is_fixed(source: Value, deep: int = DEEP) -> bool:
    """Whether constants alone make this."""
    if source.constant is not None:
        return True
    inputs = source.node.inputs
    return bool(deep and inputs) and all(_is_fixed(v, deep - 1) for v in inputs)


class _Rows:
    """What experts make, [E, T, N], as [T * K, 1, N]: a row for each expert that a row chose."""

    def __init__(self, w: Writer, router: _Router):
        self.w, self.router = w, router
        self.known: dict[int, Any] = {}
        flat = w("Reshape", router.indices, [-1], special_zero=False)
        self.names = flat if flat.dtype == "i64" else w("Convert", flat, destination_type="i64")

    def made(self, source: Value) -> Value:
        """The rows that stand for `source`."""
        found = self.known.get(id(source))
        if found is None:
            found = self.known[id(source)] = self._repeated(source) or self._made_by(source)
        return found

    def _repeated(self, source: Value) -> Value | None:
        """Of a value that all experts have alike: its row for each expert that it chose."""
        tiled = _behind(source, "Reshape")
        shape = source.shape
        if shape is None or len(shape) != 3 or not isinstance(shape[2], int):
            return None
        if tiled.node.op.name == "Tile":
            rows, counts = tiled.node.inputs
            wanted = [self.router.experts] + [1] * (len(rows.shape or ()) - 1)
            if counts.constant is None or np.ravel(counts.constant).tolist() != wanted:
                return None
            if rows.shape[-1] != shape[2] or (len(rows.shape) == 3 and rows.shape[0] != 1):
                return None
        elif shape[0] == 1 and not _is_fixed(source):
            rows = source
        else:
            return None
        if len(rows.shape) not in (2, 3):
            return None
        w, (count, kept) = self.w, self.w.shape(self.router.indices)
        each = w("Reshape", rows, [-1, 1, shape[2]], special_zero=False)
        each = w("Broadcast", each, [count, kept, shape[2]], mode="numpy")
        return w("Reshape", each, [-1, 1, shape[2]], special_zero=False)

    def _made_by(self, source: Value) -> Value:
        node = source.node
        if node.op.name == "MatMul":
            return self._product(node)
        if node.op.name in _SPLITS and self._along_last(node):
            first = self.made(node.inputs[0])
            outs = self.w.outputs(node.op, first, *node.inputs[1:], **node.attrs)
            return outs[list(node.outputs).index(source)]
        if node.op.scalar is None or not node.inputs or len(node.outputs) != 1:
            raise _Refused
        return self.w(node.op, *(self._operand(v) for v in node.inputs), **node.attrs)

    def _operand(self, source: Value) -> Value:
        if not _is_fixed(source):
            return self.made(source)
        shape = source.shape
        if shape is not None and len(shape) == 3 and shape[0] == self.router.experts > 1:
            if shape[1] != 1:
                raise _Refused
            return self._taken(source)
        if shape is None or len(shape) > 3 or any(d != 1 for d in shape[:-1]):
            raise _Refused
        return source

    def _taken(self, table: Value) -> Value:
        return self.w("Gather", table, self.names, np.array(0), batch_dims=0)

    def _product(self, node: Node) -> Value:
        """Rows times the matrices of their experts."""
        x, weights = node.inputs
        if node.attrs["transpose_a"] or not _is_fixed(weights) or weights.shape is None:
            raise _Refused
        table, turned = _before_transposes(weights, bool(node.attrs["transpose_b"]))
        if len(table.shape) != 3 or table.shape[0] != self.router.experts:
            raise _Refused
        packed = next(scaled_integers(table), None) is not None
        if packed and (not turned or table.shape[1] % WIDEST):  # matrices of a table are packed so
            raise _Refused
        return self.w("MatMul", self.made(x), self._taken(table), transpose_a=False, transpose_b=turned)

    def _along_last(self, node: Node) -> bool:
        """Whether a part of each row is taken."""
        rank, index = 3, 4 if node.op.name == "Slice" else 1
        if len(node.inputs) <= index or not all(_is_fixed(v) for v in node.inputs[1:]):
            return False
        axis = node.inputs[index].constant
        return axis is not None and [int(a) % rank for a in np.ravel(axis)] == [rank - 1]
