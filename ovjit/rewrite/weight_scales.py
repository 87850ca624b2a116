"""Rules that fold BatchNorm and constant scales into the weights of convolutions. They run on Graphs and on
Models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Replacement, Value
from ovjit.graph.op import WeightAxes
from ovjit.graph.shapes import is_static
from ovjit.rewrite.pattern import Pattern, constant, op, value
from ovjit.rewrite.rules import Rule, rule
from ovjit.rewrite.writer import Writer

#: Operations with `Op.weight_axes`.
CONVOLUTIONS = "Convolution GroupConvolution ConvolutionBackpropData GroupConvolutionBackpropData".split()
_CONVOLUTION = op[" ".join(CONVOLUTIONS)]
x = value("x")


def axes_of(node: Node) -> WeightAxes:
    """The axes of a convolution's weights."""
    axes = node.op.weight_axes
    assert axes is not None
    return axes


def f32_constant(key: str) -> Pattern:
    return constant(key).where(lambda value: value.dtype == "f32")


def _integer_weights(key: str) -> Pattern:
    """Integers, without a zero point, times scales. A Reshape may separate the channels of groups."""
    integers = op.Convert(constant(""))
    scaled = op.Multiply(integers | op.Subtract(integers, constant("")), f32_constant("")).once
    return (scaled | op.Reshape(scaled, constant("")).once).named(key)


#: A convolution that nothing else reads, and its sum with a constant.
CONVOLUTION = _CONVOLUTION(x, f32_constant("weights") | _integer_weights("weights"), ...).once.named("conv")
_SUM = (CONVOLUTION + constant("offset")).named("sum").once
_BIASED = op.Add(CONVOLUTION | op.MatMul(...).named("product"), f32_constant("bias")).once


@rule(op.BatchNormInference(...))
def expand_batch_norm(w: Writer, node: Node) -> Replacement:
    """BatchNormInference(x; gamma, beta, mean, var) -> x * scale + shift     with constant statistics"""
    named = dict(zip(node.op.input_names, node.inputs, strict=True))
    x = named.pop("data")
    arrays = {key: v.constant for key, v in named.items()}
    if any(array is None for array in arrays.values()) or x.shape is None:
        return None
    c = {key: np.asarray(array, np.float64) for key, array in arrays.items()}
    counts, channels = {array.size for array in c.values()}, x.shape[1]
    is_known = isinstance(channels, int)
    if len(counts.union([channels] if is_known else [])) > 1:
        return None
    if not is_known:
        w.b.replace(node, node.inputs)  # checks the number of channels when it is known
    with np.errstate(all="ignore"):  # a variance and an epsilon of 0
        scale = c["gamma"] / np.sqrt(c["variance"] + node.attrs["epsilon"])
        shift = c["beta"] - c["mean"] * scale
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    kind = numpy_dtype(node.inputs[1].dtype)
    scaled = w("Multiply", x, scale.astype(kind).reshape(shape))
    return [w("Add", scaled, shift.astype(kind).reshape(shape))]


@rule(op.BatchNormInference(_BIASED, value("gamma"), value("beta"), constant("mean"), value("variance")))
def subtract_bias_from_mean(
    w: Writer, node: Node, bias: Value, gamma: Value, beta: Value, mean: Value, variance: Value,
    conv: Value | None = None, product: Value | None = None,
) -> Replacement:  # fmt: skip
    """BatchNormInference(x + bias; mean) -> BatchNormInference(x; mean - bias)     where x is a product"""
    data = conv or product
    assert data is not None and bias.constant is not None and mean.constant is not None
    biases = by_channel(bias.constant, len(data.shape or ()), mean.constant.size)
    if biases is None:
        return None
    means = w.b.constant((np.asarray(mean.constant, np.float64) - biases).astype(np.float32))
    return w.b.instead(node, [data, gamma, beta, means, variance])


@rule((CONVOLUTION | _SUM) * constant("factor"))
def scale_outputs(
    w: Writer, node: Node, conv: Value, x: Value, weights: Value, factor: Value,
    offset: Value | None = None, sum: Value | None = None,
) -> Replacement:  # fmt: skip
    """Convolution(x, w) * c -> Convolution(x, w * c)     one c, or one per output channel

    (Convolution(x, w) + offset) * c -> Convolution(x, w * c) + offset * c
    """
    axes = axes_of(conv.node).outputs
    scaled = _scale_weights(w, conv.node, x, weights, factor, conv.shape, axes)
    if scaled is None or offset is None or sum is None:
        return scaled
    origins = (*sum.node.origins, *node.origins)
    both = w.b.constant(offset.constant * factor.constant)  # type: ignore[operator]
    return w.b.add("Add", [*scaled, both], name=node.name, origins=origins).outputs


#: BatchNorm becomes a factor and a term for each channel, the factor in a convolution's weights. OpenVINO's
#: `convert_model` does so, too.
BATCH_NORMS = [[subtract_bias_from_mean], [expand_batch_norm], [scale_outputs]]


@rule(_CONVOLUTION(op.Multiply(x, constant("factor"), auto_broadcast="numpy").once, value("weights"), ...))
def scale_inputs(w: Writer, node: Node, x: Value, factor: Value, weights: Value) -> Replacement:
    """Convolution(x * c, w) -> Convolution(x, w * c)     one c, or one per input channel"""
    channels = (x.shape or (0, 0))[1]
    if factor.constant is None or (factor.constant.size > 1 and channels != _channel_count(node, weights)):
        return None
    return _scale_weights(w, node, x, weights, factor, x.shape, axes_of(node).inputs)


def _channel_count(conv: Node, weights: Value) -> int | None:
    """The number of input channels; None if it is dynamic."""
    if not is_static(weights.shape):
        return None
    return math.prod(weights.shape[axis] for axis in axes_of(conv).inputs)


def _scale_weights(
    w: Writer, conv: Node, x: Value, weights: Value, factor: Value, scaled: Any, axes: tuple[int, ...]
) -> Replacement:
    """The convolution of `x` with its weights times the factor of a tensor of the shape `scaled`: one number,
    or one per channel. `axes`: the axes of channels of the weights. None for other factors."""
    array, shape = factor.constant, weights.shape
    if array is None or scaled is None or not is_static(shape) or factor.dtype != weights.dtype:
        return None
    if weights.dtype not in ("f32", "f16", "f64") or not is_moderate(array).all():
        return None
    channel_shape = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    each = by_channel(array, len(scaled), math.prod(channel_shape))
    if each is None:
        return None
    each = np.broadcast_to(each, math.prod(channel_shape)).reshape(channel_shape)
    if weights.constant is None:
        product = w("Multiply", weights, each if array.size > 1 else array.reshape(()))
    else:
        # in f64, rounded once, in NumPy's buffers: products of all weights in f64 take twice as long
        result = np.empty_like(weights.constant, order="C")
        np.multiply(weights.constant, each, out=result, dtype=np.float64, casting="same_kind")
        product = w.b.constant(result, weights.dtype)
    return w.b.instead(conv, [x, product, *conv.inputs[2:]])


def by_channel(array: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """A factor of a tensor of this rank as [1], or as [channels] if it is along axis 1; None for others."""
    if array.size == 1 and array.ndim <= rank:
        return array.reshape(-1)
    shape = [1] * (rank - array.ndim) + list(array.shape)
    return array.reshape(-1) if shape == [1, channels, *[1] * (rank - 2)] else None


#: Factors are multiplied if they are 0 or between these, so that no product leaves the range of f32.
SMALLEST, LARGEST = 2.0**-60, 2.0**60


def is_moderate(factors: np.ndarray) -> np.ndarray:
    sizes = np.abs(np.asarray(factors, np.float64))
    return (sizes == 0) | ((sizes >= SMALLEST) & (sizes <= LARGEST))


#: Larger offsets that cancel are no offsets: they round x on purpose (x + c - c).
_ROUNDING = 1024
#: Two constants may become one that is larger than both up to this number of elements.
_MOST_JOINED = 4096


@rule((x + f32_constant("first")).named("inner").once + f32_constant("second"))
def join_sums(w: Writer, node: Node, x: Value, inner: Value, first: Value, second: Value) -> Replacement:
    """x + c + d -> x + (c + d)     with constants"""
    c, d = np.broadcast_arrays(first.constant, second.constant)  # type: ignore[arg-type]
    total, largest = c + d, np.maximum(np.abs(c), np.abs(d))
    fits = ((np.abs(total) >= largest / 2) | (largest < _ROUNDING)).all()
    return _join(w, node, "Add", x, total, inner) if fits else None


#: `join_sums` after convolutions, whose kernels have one addend.
join_offsets = Rule(
    (op["Convolution GroupConvolution"](...).named("x") + f32_constant("first")).named("inner").once
    + f32_constant("second"),
    join_sums.after,
)


def _scaled_by(x: Pattern, factor: str) -> Pattern:
    scale = f32_constant(factor)
    return op.Multiply(x, scale, auto_broadcast="numpy") | op.Divide(x, scale, auto_broadcast="numpy")


@rule(op.Multiply(op.Multiply(x, f32_constant("first")).named("inner").once, f32_constant("second")))
def join_factors(w: Writer, node: Node, x: Value, inner: Value, first: Value, second: Value) -> Replacement:
    """x * c * d -> x * (c * d)     with constants; so with quotients"""
    c, d = _factor(inner.node, first), _factor(node, second)
    if not (is_moderate(c).all() and is_moderate(d).all()):
        return None
    return _join(w, node, "Multiply", x, c * d, inner)


def _is_exact(first: Value, second: Value) -> bool:
    """True if no factor is 0, which changes infinities, and the joined factor is no matrix instead of a row
    and a column."""
    c, d = first.constant, second.constant
    assert c is not None and d is not None
    return np.broadcast(c, d).size <= max(c.size, d.size) and bool(c.all() and d.all())


#: `join_factors` for quotients, too.
join_scales = Rule(
    _scaled_by(_scaled_by(x, "first").named("inner").once, "second"), join_factors.after, _is_exact
)


def _factor(node: Node, number: Value) -> np.ndarray:
    """The factor of a product with a constant, or of a quotient by one, in f64."""
    constant = np.asarray(number.constant, np.float64)
    with np.errstate(all="ignore"):
        return constant if node.op.name == "Multiply" else 1 / constant


def _join(w: Writer, node: Node, operation: str, x: Value, joined: np.ndarray, inner: Value) -> Replacement:
    """The operation of `x` and one f32 constant instead of `inner` and `node`. None if the constant is large,
    and larger than both."""
    sizes = [v.constant.size for each in (inner.node, node) for v in each.inputs if v.constant is not None]
    if joined.size > max(*sizes, _MOST_JOINED):
        return None
    inputs = [x, w.b.constant(joined.astype(np.float32))]
    origins = (*inner.node.origins, *node.origins)
    return w.b.add(operation, inputs, name=node.name, origins=origins).outputs
