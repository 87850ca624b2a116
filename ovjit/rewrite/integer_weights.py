"""Products that may be computed in integers, and the integer form of their weights.

`PRODUCTS` gives, by operation, the axes of output channels, the padding, and weights of ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import is_static
from ovjit.graph.windows import resolve_window
from ovjit.records import NamedTuple
from ovjit.rewrite.compression import INTEGERS, plain_constant, stored_integers
from ovjit.rewrite.weight_scales import axes_of

#: Maximum distance of a zero point from an integer, in steps.
NEARLY = 1e-2
#: Above it 1 / step is an f32.
SMALLEST_STEP = 2 / float(np.finfo(np.float32).max)
#: (integers, scale): reals are integers * scale.
Steps = tuple[np.ndarray, np.ndarray]


class Matrices:
    """MatMul with a matrix. Its columns are the output channels."""

    def has_weights(self, value: Value) -> bool:
        return value.shape is not None and len(value.shape) == 2

    def channel_axis(self, rank: int) -> int:
        """The output's axis of channels."""
        return rank - 1

    def output_axes(self, node: Node) -> tuple[int, ...]:
        """The weights' axes of output channels."""
        rank = len(node.inputs[1].shape)
        return (rank - 2 if node.attrs["transpose_b"] else rank - 1,)

    def wants_planes(self, node: Node) -> bool:
        """Whether a 3D convolution would have to be split into planes but cannot be, because of dynamic or
        empty shapes. Only f32 has a 3D kernel."""
        return False

    def by_group(self, node: Node, data: Any) -> Steps | None:
        """(scale, zero point) of the data that each output channel sums: scalars, or one per channel. None if
        a sum mixes several."""
        return (data.scale, data.zero) if data.uniform else None

    def pads(self, node: Node) -> tuple[Sequence[int], Sequence[int]] | None:
        """The padding (begin, end). None if it depends on an unknown shape."""
        return (), ()

    def ones(self, node: Node, weights: np.ndarray, out: tuple) -> tuple[np.ndarray | None, tuple]:
        """(weights of 1 that sum the data of each output, the output shape of that product). Weights are None
        if a group has several outputs."""
        (output_axis,) = self.output_axes(node)
        axis = self.channel_axis(len(out))
        ones = np.ones([1 if a == output_axis else d for a, d in enumerate(weights.shape)], np.int8)
        return ones, tuple(1 if a == axis else d for a, d in enumerate(out))


class Windows(Matrices):
    """Convolution."""

    def has_weights(self, value: Value) -> bool:
        return value.shape is not None

    def channel_axis(self, rank: int) -> int:
        return 1

    def output_axes(self, node: Node) -> tuple[int, ...]:
        return axes_of(node).outputs

    def wants_planes(self, node: Node) -> bool:
        data, filters = node.inputs[0].shape, node.inputs[1].shape
        if data is None or filters is None or len(data) != 5 or self.takes_volumes(node):
            return False
        return not is_static(data) or 0 in (*data, *filters, *(node.output.shape or ()))

    def takes_volumes(self, node: Node) -> bool:
        return bool((node.attrs["dilations"] or (1,))[-1] == 1)

    def pads(self, node: Node) -> tuple[Sequence[int], Sequence[int]] | None:
        extents, kernel = node.inputs[0].shape[2:], node.inputs[1].shape[-len(node.inputs[0].shape) + 2 :]
        if node.attrs["auto_pad"] in ("same_upper", "same_lower") and not is_static(extents):
            return None
        return resolve_window(node.attrs, extents, kernel)[2:]


class GroupedWindows(Windows):
    """GroupConvolution."""

    def takes_volumes(self, node: Node) -> bool:
        return False

    def by_group(self, node: Node, data: Any) -> Steps | None:
        if data.uniform:
            return data.scale, data.zero
        groups, outs, channels = node.inputs[1].shape[:3]
        steps = []
        for each in (data.scale, data.zero):
            if each.size > 1:
                if each.ndim < 2 or not each.shape[1] == each.size == groups * channels:
                    return None
                grouped = each.reshape(groups, channels)
                if np.any(grouped != grouped[:, :1]):
                    return None
                each = np.repeat(grouped[:, 0], outs)
            steps.append(each)
        return steps[0], steps[1]

    def ones(self, node: Node, weights: np.ndarray, out: tuple) -> tuple[np.ndarray | None, tuple]:
        return (np.ones_like(weights), out) if weights.shape[1] == 1 else (None, out)


#: Operation -> its kind of product.
PRODUCTS: Mapping[str, Matrices] = {
    "MatMul": Matrices(),
    "Convolution": Windows(),
    "GroupConvolution": GroupedWindows(),
}


class Weights(NamedTuple):
    """Weights as (integers + offset) * scale. `scale` and `offset` have an element for each output channel.
    `offset` may be None."""

    integers: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None = None

    def sums(self, node: Node) -> np.ndarray | None:
        """The sum of (integers + offset) for each output channel. None if a sum of products with bytes may
        exceed an i32."""
        output_axes = PRODUCTS[node.op.name].output_axes(node)
        over = tuple(a for a in range(self.integers.ndim) if a not in output_axes)
        offset = np.zeros((), np.int64) if self.offset is None else self.offset
        count = math.prod(self.integers.shape[a] for a in over)
        if 255 * count * (128 + int(np.abs(offset).max())) >= 2**31:  # some weights may be smaller
            shifted = self.integers.astype(np.int64) + offset
            if 255 * int(np.abs(shifted).sum(axis=over).max()) >= 2**31:
                return None
        sums = self.integers.sum(axis=over, dtype=np.int64, keepdims=True) + count * offset
        return sums.reshape(-1)


def quantized_weights(node: Node) -> Weights | None:
    """The weights of a product as 8-bit integers with a scale for each output channel. None if they do not
    have this form. They may be reshaped or transposed.

        [Multiply(] [Subtract(] Convert(integers) [, zero)] [, scale)]    as they are stored
        FakeQuantize(reals, limits of each channel)                       as they are in memory
    """
    value, kind = node.inputs[1], PRODUCTS[node.op.name]
    weights = _steps(value) if kind.has_weights(value) else None
    if weights is None or not weights[0].size:
        return None
    steps, scale = weights
    output_axes = kind.output_axes(node)
    over = tuple(a for a in range(steps.ndim) if a not in output_axes)
    first = tuple(slice(None) if a in output_axes else slice(1) for a in range(steps.ndim))
    if scale.size > 1:
        each = scale.reshape((1,) * (steps.ndim - scale.ndim) + scale.shape)
        if np.any(each != each[first]):
            return None  # differs within a channel
        channels = [d if a in output_axes else 1 for a, d in enumerate(steps.shape)]
        scale = np.broadcast_to(each[first], channels)
    ends = (steps.min(axis=over, keepdims=True), steps.max(axis=over, keepdims=True))
    low, high = (end.astype(np.float64) for end in ends)
    if np.any(high - low > 255):
        return None
    scale = scale.reshape(-1).astype(np.float64)
    if low.min() >= -128 and high.max() <= 127:
        return Weights(steps.astype(np.int8, copy=False), scale)
    offset = low + 128
    return Weights((steps - offset).astype(np.int8), scale, offset.astype(np.int64))


def _steps(value: Value) -> Steps | None:
    """(integers, scale) of `value`. Integers are float64, or i8 if they are stored as i8."""
    maker = value.node
    if (read := _BY_MAKER.get(maker.op.name)) is not None:
        return read(maker) if is_static(value.shape) else None
    integers = _integers_of(value)
    return None if integers is None else (integers, np.ones(()))


def _steps_of_reshape(maker: Node) -> Steps | None:
    shape = maker.output.shape
    stepped = _steps(maker.inputs[0])
    if stepped is None:
        return None
    steps, scale = stepped
    if scale.size > 1:
        scale = np.broadcast_to(scale, steps.shape).reshape(shape)
    return steps.reshape(shape), scale


def _steps_of_transpose(maker: Node) -> Steps | None:
    stepped, order = _steps(maker.inputs[0]), maker.inputs[1].constant
    if stepped is None or order is None:
        return None
    steps, scale = stepped
    axes = [int(a) for a in order] or None
    if scale.size > 1:
        scale = np.broadcast_to(scale, steps.shape).transpose(axes)
    return steps.transpose(axes), scale


def _spread(quantized: Steps | None, maker: Node) -> Steps | None:
    """Broadcast integers to the node's shape, if scales or limits enlarge it."""
    if quantized is None or quantized[0].shape == maker.output.shape:
        return quantized
    return np.ascontiguousarray(np.broadcast_to(quantized[0], maker.output.shape)), quantized[1]


def _from_fake_quantize(maker: Node) -> Steps | None:
    x, low, high, out_low, out_high = map(plain_constant, maker.inputs)
    levels = maker.attrs["levels"]
    if x is None or low is None or high is None or out_low is None or out_high is None or levels > 256:
        return None
    quantized = integer_range_steps(low, high, out_low, out_high, levels)
    if quantized is None:
        return None
    # FakeQuantize itself counts the steps: ties between two of them are rounded as in its own type
    dtype = np.dtype(np.float64 if maker.output.dtype == "f64" else np.float32)
    ends = np.zeros((), dtype), np.full((), levels - 1, dtype)
    (counts,) = maker.op.evaluate([*(a.astype(dtype) for a in (x, low, high)), *ends], maker.attrs)
    scale, zero = quantized
    return _spread((np.rint(counts).astype(np.float64) - zero, scale), maker)


def integer_range_steps(
    low: np.ndarray, high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """`range_steps`, or None as well if the zero point is not an integer."""
    steps = range_steps(low, high, out_low, out_high, levels)
    return None if steps is None or np.any(steps[1] != np.rint(steps[1])) else steps


def range_steps(
    low: np.ndarray, high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, zero point) of a FakeQuantize's output. Zero points that are nearly integers are rounded. None
    if a range is endless, or if a step has no inverse in f32."""
    least = (levels - 1) * SMALLEST_STEP
    spans = high - low, out_high - out_low
    if not all(np.all((span > least) & (span < np.inf)) for span in spans):
        return None
    scale = (out_high - out_low) / (levels - 1)
    zero = -out_low / scale
    rounded = np.rint(zero)
    return scale, np.where(np.abs(zero - rounded) > NEARLY, zero, rounded)


def _from_integers(maker: Node) -> Steps | None:
    for real, factor in (maker.inputs, maker.inputs[::-1]):
        integers, scale = _integers_of(real), plain_constant(factor)
        if integers is not None and scale is not None:
            return _spread((integers, scale), maker)
    return None


def _integers_of(value: Value) -> np.ndarray | None:
    """The numbers of Convert(integers) or Subtract(Convert(integers), zero). None unless they are
    integers."""
    stored = stored_integers(value)
    if stored is None:
        return None
    dtype, zero = stored[1:]
    if dtype not in INTEGERS:
        return None
    integers = np.asarray(stored[0])
    if zero is None:  # i8 is returned uncopied: it may be in the model's file
        return integers if dtype == "i8" else integers.astype(np.float64)
    return integers.astype(np.float64) - zero if np.all(zero == np.rint(zero)) else None


#: Operation between a constant and a product -> function that computes its (integers, scale).
_BY_MAKER: dict[str, Callable[[Node], Steps | None]] = {
    "Reshape": _steps_of_reshape,
    "Transpose": _steps_of_transpose,
    "FakeQuantize": _from_fake_quantize,
    "Multiply": _from_integers,
}
