"""Reductions: one row for each, with the axes as an attribute or, in newer versions, as an input."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *

#: reduce(value): with the axes and keep_dims of the node.
Reduce = Callable[[str, Output], Output]


def _reduction(name: str, body: Callable[[OnnxNode, Output, Reduce], Output]) -> None:
    def rule(n: OnnxNode) -> Any:
        x = n[0]
        keep = bool(n.attr("keepdims", 1))
        axes: Any = n[1] if n.has(1) else n.attr("axes")
        if isinstance(axes, Output):
            length = n.shape(axes)
            if length is not None and is_static(length) and 0 in length:
                axes = None
            else:
                axes = _known_later(n, x, axes)
        elif axes is not None:
            axes = list(axes) or None
        if axes is None and n.attr("noop_with_empty_axes", 0):
            # each element is reduced alone: what the reduction does beside adding up is still done
            shape = n("ShapeOf", x, output_type="i64")
            alone = n.unsqueeze(x, [0])
            result = body(n, alone, lambda op, v: n(op, v, [0], keep_dims=True))
            return n("Reshape", result, shape, special_zero=False)
        if axes is None:
            axes = list(range(n.rank(x)))
            if not axes:  # a scalar
                alone = n.unsqueeze(x, [0])
                return body(n, alone, lambda op, v: n(op, v, [0], keep_dims=False))
        return body(n, x, lambda op, v: n(op, v, axes, keep_dims=keep))

    onnx_op(name)(rule)


def _known_later(n: OnnxNode, x: Output, axes: Output) -> Output:
    """The axes of a reduction that are computed at run time; all axes if there are none then."""
    length = n.shape(axes)
    if (length is not None and is_static(length)) or n.attr("noop_with_empty_axes", 0):
        return axes
    rank = n.rank(x)
    missing = n.convert(n("Equal", n.dim_of(axes, 0), 0), "i64")
    every = n("Slice", list(range(rank)), [0], n("Multiply", missing, rank), [1], [0], opset=8)
    return n.concat([n.convert(axes, "i64"), every], 0)


def _log_sum(n: OnnxNode, x: Output, reduce: Reduce) -> Output:
    kind = n.dtype(x)
    x_real = x if ELEMENT_TYPES[kind].is_real else n.convert(x, "f64")
    return n.convert(n("Log", reduce("ReduceSum", x_real)), kind)


def _log_sum_exp(n: OnnxNode, x: Output, reduce: Reduce) -> Output:
    """m + log(sum(exp(x - m))), m = max(x) where it is finite, so that nothing overflows"""
    kind = n.dtype(x)
    upcast = n.upcast(x) if ELEMENT_TYPES[kind].is_real else n.convert(x, "f64")
    top = n("ReduceMax", upcast, _axes_of(n, x), keep_dims=True) if _nonempty(n, x) else None
    if top is None:
        return n.convert(n("Log", reduce("ReduceSum", n("Exp", upcast))), kind)
    top = n("Select", n("IsFinite", top), top, n.like(upcast, 0))
    total = n("Log", reduce("ReduceSum", n("Exp", n("Subtract", upcast, top))))
    return n.convert(n("Add", total, reduce("ReduceMax", top)), kind)


def _axes_of(n: OnnxNode, x: Output) -> Any:
    if n.has(1) and 0 not in (n.shape(n[1]) or (1,)):
        return _known_later(n, x, n[1])
    axes = n.attr("axes")
    if axes:
        return list(axes)
    if n.attr("noop_with_empty_axes", 0) or n.rank(n[0]) == 0:
        return [0]
    return list(range(n.rank(x)))


def _nonempty(n: OnnxNode, x: Output) -> bool:
    shape = n.shape(x)
    return shape is not None and 0 not in shape


def _extreme(op: str, logical: str) -> Callable[[OnnxNode, Output, Reduce], Output]:
    def body(n: OnnxNode, x: Output, reduce: Reduce) -> Output:
        if n.dtype(x) == "boolean":
            return reduce(logical, x)
        if n.is_real(x) and 0 in (n.shape(x) or ()):
            # of no elements: OpenVINO's is the largest finite number
            nothing = -np.inf if op == "ReduceMax" else np.inf
            return n("Add", reduce("ReduceSum", x), n.like(x, nothing))
        return reduce(op, x)

    return body


def _same(op: str) -> Callable[[OnnxNode, Output, Reduce], Output]:
    return lambda n, x, reduce: reduce(op, x)


for _name in ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2"):
    _reduction(_name, _same(_name))
_reduction("ReduceSumSquare", lambda n, x, reduce: reduce("ReduceSum", n("Multiply", x, x)))
_reduction("ReduceLogSum", _log_sum)
_reduction("ReduceLogSumExp", _log_sum_exp)
_reduction("ReduceMax", _extreme("ReduceMax", "ReduceLogicalOr"))
_reduction("ReduceMin", _extreme("ReduceMin", "ReduceLogicalAnd"))
