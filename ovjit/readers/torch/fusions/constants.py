"""Numbers that follow one another, as one: OpenVINO's `convert_model` does so, too.

x + a + b            x + (a + b)                    conv(x; w) * a      conv(x; w * a)
x * a * b            x * (a * b)                    conv(x * a; w)      conv(x; w * a)
conv(pad(x); w)      conv(x; w), padded             x[1:][:, 2:]        x[1:, 2:]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, Users, applied, made_constant, made_node
from ovjit.readers.torch.fusions.batch_norms import (
    BIASED,
    CHANNELS,
    CONV,
    f32_constant,
    shape_of_weights,
    with_factors,
)
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule

#: Factors are multiplied if they are 0 or between these, so that no product leaves the range of f32.
SMALLEST, LARGEST = 2.0**-60, 2.0**60
#: Smaller numbers are not added to round.
ROUNDING = 1024
#: How many numbers two smaller constants may become.
MOST_MADE = 4096
#: Operation -> the dimensions of its weights that are input channels: groups first, where it has them.
INPUTS = {"Convolution": (1,), "GroupConvolution": (0, 2), "ConvolutionBackpropData": (0,),
          "GroupConvolutionBackpropData": (0, 1)}  # fmt: skip


_X, _WEIGHTS, _FIRST, _SECOND = value("x"), *map(f32_constant, ("weights", "first", "second"))
_CONVOLUTION = op["Convolution GroupConvolution"]


def join_constants(model: Model) -> None:
    """Apply the rules as long as one fits."""
    rules = [scale_outputs, scale_inputs, join_sums, join_factors, join_slices, pad_convolution]
    while list(applied(rules, model, Users(model))):
        pass


@rule(op.Add(op.Add(_X, _FIRST).once, _SECOND))
def join_sums(node: SeenNode, first: Seen, second: Seen, x: Seen) -> bool | None:
    """x + first + second -> x + (first + second). Large numbers that cancel stay: they round x on purpose."""
    a, b = _alike(first, second)
    total, most = a + b, np.maximum(np.abs(a), np.abs(b))
    return _join(node, x, _size(first, second), total, (np.abs(total) >= most / 2) | (most < ROUNDING))


@rule(op.Multiply(op.Multiply(_X, _FIRST).once, _SECOND))
def join_factors(node: SeenNode, first: Seen, second: Seen, x: Seen) -> bool | None:
    """x * first * second -> x * (first * second)"""
    a, b = _alike(first, second)
    return _join(node, x, _size(first, second), a * b, _is_plain(a) & _is_plain(b))


def _alike(first: Seen, second: Seen) -> tuple[np.ndarray, ...]:
    """Numbers in f64 and in one shape."""
    return np.broadcast_arrays(*(np.asarray(v.constant, np.float64) for v in (first, second)))


def _size(first: Seen, second: Seen) -> int:
    return max(np.asarray(value.constant).size for value in (first, second))


def _is_plain(factors: np.ndarray) -> np.ndarray:
    sizes = np.abs(factors)
    return (sizes == 0) | ((sizes >= SMALLEST) & (sizes <= LARGEST))


def _join(node: SeenNode, x: Seen, most: int, numbers: np.ndarray, fit: np.ndarray) -> bool | None:
    """Replace two constants of a node by one, unless that is large and larger than both. True if replaced."""
    if not fit.all() or numbers.size > max(most, MOST_MADE):
        return None
    name = node.of.get_friendly_name()
    joined = made_constant(numbers.astype(np.float32), "f32", f"{name}/Constant")
    node.output.port.replace(made_node(node.op.name, [x.port, joined], name))
    return True


@rule(op.Multiply(BIASED | CONV, f32_constant("factor")))
def scale_outputs(
    node: SeenNode, conv: Seen, weights: Seen, factor: Seen, data: Seen, bias: Seen | None = None
) -> bool | None:
    """conv(data; weights) * factor -> conv(data; weights * factor), and so with a bias"""
    shape, sizes = conv.shape, shape_of_weights(weights)
    channels = math.prod(sizes[i] for i in CHANNELS[conv.node.op.name])
    numbers = None if shape is None else _by_channel(factor, len(shape), channels)
    if numbers is None or not _is_plain(numbers).all():
        return None
    name = node.of.get_friendly_name()
    new_name = name if bias is None else None
    result = with_factors(conv.node, data.port, weights, numbers, CHANNELS, new_name)
    if bias is not None:
        term = _alike(bias, factor)
        scaled_bias = made_constant((term[0] * term[1]).astype(np.float32), "f32", f"{name}/Constant")
        result = made_node("Add", [result, scaled_bias], name)
    node.output.port.replace(result)
    return True


@rule(_CONVOLUTION(op.Multiply(_X, f32_constant("factor")).once, _WEIGHTS))
def scale_inputs(node: SeenNode, x: Seen, factor: Seen, weights: Seen) -> bool | None:
    """conv(x * factor; weights) -> conv(x; weights * factor). Behind a sum with numbers, factors stay."""
    shape, array, axes = x.shape, np.asarray(weights.constant), INPUTS[node.op.name]
    channels = int(np.prod([array.shape[i] for i in axes]))
    if shape is None or len(shape) < 2 or op.Add(value("y"), f32_constant("term")).matches(x):
        return None
    numbers = _by_channel(factor, len(shape), channels)
    if numbers is None or not _is_plain(numbers).all() or numbers.size > 1 and shape[1] != channels:
        return None
    node.output.port.replace(with_factors(node, x.port, weights, numbers, INPUTS))
    return True


def _by_channel(factor: Seen, rank: int, channels: int) -> np.ndarray | None:
    """A factor, or one for each channel, the dimension 1. None for others."""
    array = np.asarray(factor.constant, np.float64)
    if array.size == 1 and array.ndim <= rank:
        return array.reshape(-1)
    return array.reshape(-1) if _pad_shape(array.shape, rank) == [1, channels, *[1] * (rank - 2)] else None


def _pad_shape(shape: Sequence[int], rank: int) -> list[int]:
    return [1] * (rank - len(shape)) + list(shape)


_BOUNDS = [constant("")] * 4
_SLICED = op.Slice(_X, *_BOUNDS).once.named("first")


@rule(op.Slice(_SLICED, *_BOUNDS))
def join_slices(node: SeenNode, x: Seen, first: Seen) -> bool | None:
    """x[1:][:, 2:] -> x[1:, 2:]: slices of different axes"""
    joined = [
        np.concatenate([np.asarray(value.constant, np.int64).reshape(-1) for value in seens])
        for seens in zip(first.node.inputs[1:], node.inputs[1:], strict=True)
    ]
    if x.shape is None or len(set(joined[3] % len(x.shape))) < joined[3].size:
        return None
    name = node.of.get_friendly_name()
    inputs = [made_constant(numbers, "i64", f"{name}/Constant_{i}") for i, numbers in enumerate(joined)]
    node.output.port.replace(made_node("Slice", [x.port, *inputs], name))
    return True


_PADDED = op.Pad(_X, constant("before"), constant("after"), constant("fill"), pad_mode="constant").once


@rule(_CONVOLUTION(_PADDED, _WEIGHTS, auto_pad="explicit"))
def pad_convolution(
    node: SeenNode, x: Seen, before: Seen, after: Seen, fill: Seen, weights: Seen
) -> bool | None:
    """conv(pad(x)) -> conv(x) with more padding, where zeros are put around the picture"""
    low, high = (np.asarray(value.constant).reshape(-1).tolist() for value in (before, after))
    if np.any(fill.constant) or min(low + high) < 0 or any(low[:2] + high[:2]):
        return None
    old = node.of
    pads = {
        key: [a + b for a, b in zip(old._attrs[key], more[2:], strict=True)]
        for key, more in (("pads_begin", low), ("pads_end", high))
    }
    attributes = old._op.check_attributes({**old._attrs, **pads})
    result = Node._new(old._op, [x.port, *old._inputs[1:]], attributes, old.get_friendly_name())
    node.output.port.replace(Output._of(result, 0))
    return True
