"""Rewrites that make the graph smaller: they drop no-ops, and fold batch normalisation and scales into
weights."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES, flush_subnormals, numpy_dtype
from ovjit.graph.graph import Builder, Node, Replacement, Value
from ovjit.graph.shapes import is_static
from ovjit.rewrite.pattern import Pattern, constant, op, operation, values
from ovjit.rewrite.rules import Uses, rewrite, rule
from ovjit.rewrite.writer import Writer

x, y = values("x y")
WEIGHTED = op["Convolution GroupConvolution"](x, y, ...).named("conv")


def _keeps_order(x, order) -> bool:
    axes = order.constant.reshape(-1).tolist()
    return x.shape is not None and axes != [] and axes == [*range(len(axes))]


#: Nodes that return an input unchanged. These rules are also applied to models that users edit.
DROP_NOOPS = [
    rewrite(op.Identity(x), x),
    rewrite(op.Convert(x), x, lambda node, x: x.dtype == node.output.dtype != "dynamic"),
    rewrite(op.Transpose(x, constant("order")), x, _keeps_order),
    rewrite(
        op["Reshape Squeeze Unsqueeze Broadcast Tile"](x, ...),
        x,
        lambda node, x: is_static(x.shape) and x.shape == node.output.shape,
    ),
]
#: Further such nodes, for the compiler's graphs only.
DROP_MORE = [
    rewrite(op["Floor Ceiling Round"](x), x, lambda x: ELEMENT_TYPES[x.dtype].kind in "iu"),
    rewrite(op.Swish(x, constant("y")), op.Swish(x), lambda y: np.all(y.constant == 1.0)),
]


@rule(operation(lambda record: record.align is not None)(...))
def align_operands(w: Writer, node: Node) -> Replacement:
    """PRelu(x: [N,C,H,W], slope: [C]) -> PRelu(x, Reshape(slope, [C,1,1]))     broadcasts as NumPy does"""
    inputs, align = node.inputs, node.op.align
    if align is None or not all(is_static(v.shape) for v in inputs[1:]) or inputs[0].shape is None:
        return None
    shapes = align(*(v.shape for v in inputs))
    if shapes is None or tuple(shapes[1]) == tuple(inputs[1].shape):
        return None
    return w.b.instead(node, [inputs[0], w("Reshape", inputs[1], [*shapes[1]], special_zero=False)])


@rule(operation(lambda record: "auto_broadcast" in record.attributes)(x, y, auto_broadcast="pdpd"))
def append_dimensions(w: Writer, node: Node, x: Value, y: Value) -> Replacement:
    """Add(x: [N,C,H], y: [N], pdpd) -> Add(x, Unsqueeze(y, [1,2]))     broadcasts as NumPy does"""
    missing = np.arange(len(y.shape), len(x.shape))
    if missing.size:
        y = w("Unsqueeze", y, missing)
    return w.b.instead(node, [x, y], {**node.attrs, "auto_broadcast": "numpy"})


@rule(op.Transpose(x, constant("order")))
def transpose_the_narrow(b: Builder, node: Node, x: Value, order: Value, readers: Uses) -> Replacement:
    """Transpose(f(Convert(x: u8 to f32), c)) -> f(Convert(Transpose(x)), Transpose(c))     of elementwise f:
    fewer bytes are transposed, and what follows fuses"""
    axes = tuple(int(axis) % max(order.constant.size, 1) for axis in order.constant)  # type: ignore
    steps: list[tuple[Node, int]] = []
    best, smallest = 0, _item_size(x)
    while x.node.op.scalar is not None and readers.single(x):
        varying = [i for i, v in enumerate(x.node.inputs) if v.stored is None]
        if len(varying) != 1 or not _broadcasts_to(x.node, varying[0], len(axes)):
            break
        steps.append((x.node, varying[0]))
        x = x.node.inputs[varying[0]]
        if _item_size(x) < smallest:
            best, smallest = len(steps), _item_size(x)
    if not best:
        return None
    first, index = steps[best - 1]
    value = b.add(node.op, [first.inputs[index], order], node.attrs).output
    for step, index in reversed(steps[:best]):
        arguments = [value if i == index else _transpose(b, v, axes) for i, v in enumerate(step.inputs)]
        value = b.instead(step, arguments)[0]
    return [value]


def _item_size(value: Value) -> int:
    return 1 << 30 if value.dtype == "string" else numpy_dtype(value.dtype).itemsize


def _broadcasts_to(node: Node, index: int, rank: int) -> bool:
    """Whether an elementwise result has the rank of input `index`, by NumPy's broadcasting."""
    shape = node.inputs[index].shape
    others = [v.shape for i, v in enumerate(node.inputs) if i != index]
    numpy_like = node.attrs.get("auto_broadcast", "numpy") == "numpy"
    return numpy_like and shape is not None and len(shape) == rank and all(len(s) <= rank for s in others)


def _transpose(b: Builder, value: Value, order: tuple[int, ...]) -> Value:
    array = value.constant
    assert array is not None
    if array.size == 1:
        return value
    array_of_rank = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    return b.constant(np.ascontiguousarray(array_of_rank.transpose(order)), value.dtype)


@rule(op.BatchNormInference(...))
def expand_batch_norm(w: Writer, node: Node) -> Replacement:
    """BatchNormInference(x; gamma, beta, mean, var) -> x * scale + shift     with constant statistics"""
    named = dict(zip(node.op.input_names, node.inputs, strict=True))
    x = named.pop("data")
    if any(v.constant is None for v in named.values()) or x.shape is None:
        return None
    if len({x.shape[1], *(v.shape[0] for v in named.values())}) != 1:
        return None  # the operation's own expansion supports a dynamic number of channels
    c = {k: v.constant.astype(np.float64) for k, v in named.items()}  # type: ignore[union-attr]
    with np.errstate(all="ignore"):  # a variance and an epsilon of 0
        scale = c["gamma"] / np.sqrt(c["variance"] + node.attrs["epsilon"])
        shift = c["beta"] - c["mean"] * scale
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    dtype = next(iter(named.values())).constant.dtype  # type: ignore[union-attr]
    scaled = w("Multiply", x, scale.astype(dtype).reshape(shape))
    return [w("Add", scaled, shift.astype(dtype).reshape(shape))]


@rule(WEIGHTED.once * constant("factor"))
def scale_into_weights(b: Builder, conv: Value, factor: Value) -> Replacement:
    """Convolution(x, w) * per-channel c -> Convolution(x, w * c)"""
    return _scale_filters(b, conv.node, factor.constant)


@rule((WEIGHTED.once + constant("offset")).named("sum").once * constant("factor"))
def scale_into_weights_and_offset(
    b: Builder, node: Node, conv: Value, offset: Value, sum: Value, factor: Value
) -> Replacement:
    """(Convolution(x, w) + offset) * per-channel c -> Convolution(x, w * c) + offset * c"""
    scaled = _scale_filters(b, conv.node, factor.constant)
    if scaled is None:
        return None
    origins = (*sum.node.origins, *node.origins)
    both = b.constant(offset.constant * factor.constant)  # type: ignore[operator]
    return b.add("Add", [*scaled, both], name=node.name, origins=origins).outputs


#: Offsets from this size on may be a rounding trick (x + c - c), which a joined offset would undo.
_ROUNDING = 2.0**16


@rule((WEIGHTED + constant("first")).named("sum").once + constant("last"))
def join_offsets(b: Builder, node: Node, conv: Value, sum: Value, first: Value, last: Value) -> Replacement:
    """Convolution(x, w) + c + d -> Convolution(x, w) + (c + d)     with constants"""
    c, d = first.constant, last.constant
    if conv.dtype != "f32" or max(np.abs(c).max(initial=0), np.abs(d).max(initial=0)) >= _ROUNDING:  # type: ignore
        return None
    origins = (*sum.node.origins, *node.origins)
    return b.add("Add", [conv, b.constant(c + d)], name=node.name, origins=origins).outputs  # type: ignore


def _scaled_by(x: Pattern, factor: str) -> Pattern:
    numpy_like = {"auto_broadcast": "numpy"}
    return op.Multiply(x, constant(factor), **numpy_like) | op.Divide(x, constant(factor), **numpy_like)


@rule(_scaled_by(_scaled_by(x, "one").named("inner").once, "other"))
def join_scales(b: Builder, node: Node, x: Value, inner: Value, one: Value, other: Value) -> Replacement:
    """x / c * d -> x * (d / c)     with constants; x * c / d, x * c * d and x / c / d, too"""
    if not node.output.dtype == one.dtype == other.dtype == "f32":
        return None
    first, second = _factor(inner.node, one), _factor(node, other)
    if np.broadcast(first, second).size > max(first.size, second.size):
        return None  # the joined factor would be a matrix instead of a row and a column
    with np.errstate(all="ignore"):
        joined = (first * second).astype(np.float32)
    parts = (first, second, joined)
    least, most = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    if not all(((np.abs(part) >= least) & (np.abs(part) <= most)).all() for part in parts):
        return None  # a factor of 0 or infinity changes results: NaN, or other infinities
    origins = (*inner.node.origins, *node.origins)
    return b.add("Multiply", [x, b.constant(joined)], name=node.name, origins=origins).outputs


def _factor(node: Node, number: Value) -> np.ndarray:
    """The factor of a product with a constant, or of a quotient by one, in f64."""
    constant = number.constant.astype(np.float64)  # type: ignore[union-attr]
    with np.errstate(all="ignore"):
        return constant if node.op.name == "Multiply" else 1 / constant


def _scale_filters(b: Builder, conv: Node, factor: np.ndarray | None) -> Replacement:
    """The convolution with its filters multiplied by one factor per output channel."""
    weights = conv.inputs[1].constant
    if weights is None or factor is None or weights.dtype != np.float32 or conv.output.shape is None:
        return None
    rank = len(conv.output.shape)
    shape = (1,) * (rank - factor.ndim) + factor.shape
    if len(shape) != rank or any(d != 1 for a, d in enumerate(shape) if a != 1):
        return None
    grouped = conv.op.name == "GroupConvolution"
    outs = weights.shape[0] * weights.shape[1] if grouped else weights.shape[0]
    if shape[1] not in (1, outs):
        return None
    each = np.broadcast_to(factor.reshape(-1), (outs,)).astype(np.float64)
    lead = weights.shape[:2] if grouped else weights.shape[:1]
    # in f64, rounded once, in NumPy's buffers: products of all filters in f64 take twice as long
    scaled = np.empty_like(weights, order="C")
    each = each.reshape(*lead, *(1,) * (weights.ndim - len(lead)))
    np.multiply(weights, each, out=scaled, dtype=np.float64, casting="same_kind")
    return b.instead(conv, [conv.inputs[0], b.constant(scaled)])


@rule(op.MatMul(...))
def flush_factors(b: Builder, node: Node) -> Replacement:
    """MatMul(c, x) -> MatMul(c with zeros for subnormal numbers, x)     and MatMul(x, c) for a vector c. All
    other constant factors are packed, which flushes them."""
    inputs = list(node.inputs)
    for i, value in enumerate(node.inputs):
        if (i == 0 or value.type.rank in (0, 1)) and value.constant is not None:
            flushed = value.constant.copy()
            inputs[i] = b.constant(flushed) if flush_subnormals(flushed) else value
    return None if inputs == [*node.inputs] else b.instead(node, inputs)


@rule(op.FakeQuantize(...))
def widen_near_limits(w: Writer, node: Node) -> Replacement:
    """FakeQuantize(x, low, high) -> FakeQuantize(x * k, low * k, high * k), k a power of 2, where a step is
    so small that 1 / step is no f32: calibration gives such limits to tensors of zeros. No product is
    rounded, and what overflows was outside of the limits."""
    x, low, high = node.inputs[:3]
    if x.dtype != "f32" or low.constant is None or high.constant is None:
        return None
    limits = [np.asarray(limit.constant, np.float64) for limit in (low, high)]
    size, most = np.abs(limits[1] - limits[0]), np.finfo(np.float32).max
    near = (size > 0) & (size * most < node.attrs["levels"] - 1)
    if not near.any():
        return None
    factor = np.where(near, 2.0**100, 1.0)
    ends = [np.asarray(limit * factor, np.float32) for limit in limits]
    scaled = w("Multiply", x, np.asarray(factor, np.float32))
    return [w("FakeQuantize", scaled, *ends, *node.inputs[3:], **node.attrs)]
