"""Mixtures of experts: a dense computation of all experts becomes one of each row's chosen experts.

    ReduceSum over experts(made(x tiled [E, T, H]) * Transpose(ScatterElementsUpdate(0, places, weights)))

Each of T rows has a weight for K of E experts, and 0 for the others. `made` consists of products with
matrices of tables [E, ...] and of elementwise operations. Instead it is computed for T * K rows, each with
one expert:

    ReduceSum over K(made(x repeated [T * K, 1, H]) * weights),  where tables are Gather(table, places)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.graph.graph import Node, Value
from ovjit.records import NamedTuple
from ovjit.rewrite.compression import before_transposes, fits_rows, scaled_integers
from ovjit.rewrite.pattern import Pattern, constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

#: Maximum depth of the search that decides whether a value is a constant.
DEEP = 8
_MOVED = op["Reshape Unsqueeze Squeeze"](value("x"), ...)
_RESHAPED = op.Reshape(value("rows"), value("shape"))
_TILED = op.Tile(value("rows"), constant("counts"))
_CONVERTED = op.Convert(value("x"))
_SPREAD = op["Broadcast Convert Reshape Tile"](value("x"), ...)
_PRODUCT = op.MatMul(value("x"), value("weights"), transpose_a=lambda transposed: not transposed)
#: Parts of each row. Each output of a split is one.
_SLICE = op.Slice(value("x"), constant("start"), constant("stop"), constant("step"), constant("axis"))
_SPLIT = op["Split VariadicSplit"](value("x"), constant("axis"), ...)
_SCATTERED = op.ScatterElementsUpdate(
    value("data"), value("indices"), value("weights"), constant("along"),
    reduction=lambda how: how in ("none", None),
)  # fmt: skip
_SHARE = op.Transpose(_SCATTERED.named("scattered"), constant("order"))
_CHOSEN = op.TopK(..., axis=lambda axis: axis in (1, -1))


class _Router(NamedTuple):
    """The chosen experts of each row [T, K], their weights [T, K], and the number of experts."""

    indices: Value
    weights: Value
    experts: int


class _Refused(Exception):
    """The subgraph cannot be computed for chosen experts only."""


@rule(op.ReduceSum(op.Multiply(value("multiplied"), value("share")), constant("axis"), keep_dims=False))
def choose_experts(w: Writer, node: Node, multiplied: Value, share: Value, axis: Value) -> Value | None:
    """The sum over the chosen experts of each row. None if the experts do not have the form above."""
    router, first = _router(share), [int(a) for a in np.ravel(np.asarray(axis.constant))] == [0]
    if router is None or node.output.dtype != "f32" or not first:
        return None
    reshaped = _RESHAPED.first(multiplied)
    outputs = multiplied if reshaped is None else reshaped["rows"]
    if not _fits(outputs, multiplied, share, router):
        return None
    try:
        rows = _Rows(w, router).get(outputs)
    except _Refused:
        return None
    weights = w("Reshape", router.weights, [-1, 1, 1], special_zero=False)
    chosen, width = router.indices.shape[1], outputs.shape[2]
    parts = w("Reshape", w("Multiply", rows, weights), [-1, chosen, width], special_zero=False)
    out = w("ReduceSum", parts, [1], keep_dims=False)
    if reshaped is None:
        return out
    shape = w("Slice", reshaped["shape"], [1], [len(multiplied.shape)], [1])
    return w("Reshape", out, shape, **multiplied.node.attrs)


def _fits(outputs: Value, multiplied: Value, share: Value, router: _Router) -> bool:
    """True if `multiplied` has the shape [E, T, H], where T may be several dimensions, and `share`
    [E, T, 1]."""
    if any(v.shape is None for v in (outputs, multiplied, share)):
        return False
    same = len(outputs.shape) == 3 and len(multiplied.shape) == len(share.shape) and share.shape[-1] == 1
    pairs = zip(multiplied.shape[1:-1], share.shape[1:-1], strict=True) if same else ()
    return (
        same and outputs.shape[0] == multiplied.shape[0] == share.shape[0] == router.experts
        and isinstance(outputs.shape[2], int) and multiplied.shape[-1] == outputs.shape[2]
        and all((a == 1) == (b == 1) for a, b in pairs)
    )  # fmt: skip


def _router(share: Value) -> _Router | None:
    """The chosen experts and their weights from which the shares [E, T, 1] are computed."""
    bindings = _SHARE.first(_find_source(share, _MOVED))
    if bindings is None or np.ravel(bindings["order"].constant).tolist() != [1, 0]:
        return None
    indices, weights, shape = bindings["indices"], bindings["weights"], bindings["scattered"].shape
    if any(v is None or len(v) != 2 for v in (shape, indices.shape, weights.shape)):
        return None
    chosen, experts = indices.shape[1], shape[1]
    along = int(np.ravel(bindings["along"].constant)[0]) in (1, -1)
    distinct = _CHOSEN.matches(_find_source(indices, _CONVERTED).node.outputs[0])
    if not (isinstance(experts, int) and isinstance(chosen, int) and weights.shape[1] == chosen):
        return None
    start = _find_source(bindings["data"], _SPREAD).constant
    empty = start is not None and not np.any(start)
    return _Router(indices, weights, experts) if along and distinct and empty else None


def _find_source(source: Value, pattern: Pattern) -> Value:
    """The source of a chain of operations that match the pattern."""
    while (bindings := pattern.first(source)) is not None:
        source = bindings["x"]
    return source


def _is_fixed(source: Value, deep: int = DEEP) -> bool:
    """Whether the value depends on constants only."""
    if source.constant is not None:
        return True
    inputs = source.node.inputs
    return bool(deep and inputs) and all(_is_fixed(v, deep - 1) for v in inputs)


class _Rows:
    """Rewrites values of all experts [E, T, N] as [T * K, 1, N]: a row for each pair of a row and an expert
    that it chose."""

    def __init__(self, w: Writer, router: _Router):
        self.w, self.router = w, router
        self.rows: dict[int, Any] = {}
        flat = w("Reshape", router.indices, [-1], special_zero=False)
        self.names = flat if flat.dtype == "i64" else w("Convert", flat, destination_type="i64")

    def get(self, source: Value) -> Value:
        """The rows that replace `source`."""
        rows = self.rows.get(id(source))
        if rows is None:
            rows = self.rows[id(source)] = self._repeat_rows(source) or self._made_by(source)
        return rows

    def _repeat_rows(self, source: Value) -> Value | None:
        """The rows of a value that is the same for all experts: each row is repeated K times. None for
        others."""
        shape, tiled = source.shape, _TILED.first(_find_source(source, _MOVED))
        if shape is None or len(shape) != 3 or not isinstance(shape[2], int):
            return None
        if tiled is not None:
            rows = tiled["rows"]
            repeats = [self.router.experts] + [1] * (len(rows.shape or ()) - 1)
            if np.ravel(tiled["counts"].constant).tolist() != repeats:
                return None
            if rows.shape[-1] != shape[2] or (len(rows.shape) == 3 and rows.shape[0] != 1):
                return None
        elif shape[0] == 1 and not _is_fixed(source):
            rows = source
        else:
            return None
        if len(rows.shape) not in (2, 3):
            return None
        w, (count, chosen) = self.w, self.w.shape(self.router.indices)
        each = w("Reshape", rows, [-1, 1, shape[2]], special_zero=False)
        each = w("Broadcast", each, [count, chosen, shape[2]], mode="numpy")
        return w("Reshape", each, [-1, 1, shape[2]], special_zero=False)

    def _made_by(self, source: Value) -> Value:
        node = source.node
        product = _PRODUCT.first(source)
        if product is not None:
            return self._product(product["x"], product["weights"], bool(node.attrs["transpose_b"]))
        part = (_SLICE | _SPLIT).first(node.outputs[0])
        if part is not None:
            if len(source.shape or ()) != 3 or np.ravel(part["axis"].constant).tolist() not in ([2], [-1]):
                raise _Refused
            outs = self.w.outputs(node.op, self.get(part["x"]), *node.inputs[1:], **node.attrs)
            return outs[source.index]
        if node.op.scalar is None or not node.inputs or len(node.outputs) != 1:
            raise _Refused
        return self.w(node.op, *(self._operand(v) for v in node.inputs), **node.attrs)

    def _operand(self, source: Value) -> Value:
        if not _is_fixed(source):
            return self.get(source)
        shape = source.shape
        if shape is not None and len(shape) == 3 and shape[0] == self.router.experts > 1:
            if shape[1] != 1:
                raise _Refused
            return self._gather(source)
        if shape is None or len(shape) > 3 or any(d != 1 for d in shape[:-1]):
            raise _Refused
        return source

    def _gather(self, table: Value) -> Value:
        return self.w("Gather", table, self.names, np.array(0), batch_dims=0)

    def _product(self, x: Value, weights: Value, transposed: bool) -> Value:
        """The product of each row with the matrix of its expert."""
        if not _is_fixed(weights) or weights.shape is None:
            raise _Refused
        table, transposed = before_transposes(weights, transposed)
        if len(table.shape) != 3 or table.shape[0] != self.router.experts:
            raise _Refused
        if next(scaled_integers(table), None) is not None and not (transposed and fits_rows(table)):
            raise _Refused
        return self.w("MatMul", self.get(x), self._gather(table), transpose_a=False, transpose_b=transposed)
