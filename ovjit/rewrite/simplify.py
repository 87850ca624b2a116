"""Rules that drop no-ops, align operands with NumPy's broadcasting, and move transposes to narrow types."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES, flush_subnormals, numpy_dtype
from ovjit.graph.graph import Builder, Node, Replacement, Value
from ovjit.graph.shapes import Dim, bounds, is_static
from ovjit.rewrite.pattern import constant, op, operation, values
from ovjit.rewrite.rules import Uses, rewrite, rule
from ovjit.rewrite.writer import Writer

x, y = values("x y")


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


def _may_grow(a: Dim, b: Dim) -> bool:
    """Whether a dimension of 1 might be broadcast to one of `b`, as far as is known."""
    return not is_static((a, b)) and b != 1 and bounds(a)[0] <= 1


@rule(operation(lambda record: "auto_broadcast" in record.attributes)(x, y, auto_broadcast="pdpd"))
def append_dimensions(w: Writer, node: Node, x: Value, y: Value) -> Replacement:
    """Add(x: [N,C,H], y: [N], pdpd) -> Add(x, Unsqueeze(y, [1,2]))     broadcasts as NumPy does"""
    missing = np.arange(len(y.shape), len(x.shape))
    if missing.size:
        y = w("Unsqueeze", y, missing)
    if any(_may_grow(a, b) for a, b in zip(x.shape, y.shape, strict=True)):
        y = w("Broadcast", y, w("ShapeOf", x, output_type="i64"))  # refuses to have x broadcast to y
    return w.b.instead(node, [x, y], {**node.attrs, "auto_broadcast": "numpy"})


@rule(op.Transpose(x, constant("order")))
def transpose_the_narrow(b: Builder, node: Node, x: Value, order: Value, readers: Uses) -> Replacement:
    """Transpose(f(Convert(x: u8 to f32), c)) -> f(Convert(Transpose(x)), Transpose(c))     of elementwise f:
    fewer bytes are transposed, and what follows fuses"""
    axes = tuple(int(axis) % max(order.constant.size, 1) for axis in order.constant)  # type: ignore
    steps: list[tuple[Node, int]] = []
    best, smallest = 0, _item_size(x)
    while x.node.op.scalar is not None and readers.single(x):
        varying = [i for i, v in enumerate(x.node.inputs) if v.stored_array is None]
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
