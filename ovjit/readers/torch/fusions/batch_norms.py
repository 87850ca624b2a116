"""BatchNorm as a factor and a term for each channel, the factor in a convolution's weights: OpenVINO's
`convert_model` does so, too."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, made_constant, made_node
from ovjit.rewrite.pattern import Pattern, constant, op, value
from ovjit.rewrite.rules import rule

#: Operation -> the dimensions of its weights that are output channels: groups first, where it has them.
CHANNELS = {"Convolution": (0,), "GroupConvolution": (0, 1), "ConvolutionBackpropData": (1,),
             "GroupConvolutionBackpropData": (0, 2)}  # fmt: skip


def f32_constant(key: str) -> Pattern:
    return constant(key).where(lambda numbers: numbers.dtype == "f32")


def _integer_weights(key: str) -> Pattern:
    """Integers, without a zero point, times steps; the channels of groups are apart by a Reshape."""
    integers = op.Convert(constant(""))
    spread = op.Multiply(integers | op.Subtract(integers, constant("")), f32_constant("")).once
    return (spread | op.Reshape(spread, constant("")).once).named(key)


_WEIGHTS = f32_constant("weights") | _integer_weights("weights")
CONV = op[" ".join(CHANNELS)](value("data"), _WEIGHTS, ...).once.named("conv")
BIASED = op.Add(CONV, f32_constant("bias")).once
_PRODUCT = op.Add(op.MatMul(...).named("x"), f32_constant("bias")).once
_STATISTICS = map(f32_constant, ("gamma", "beta", "mean", "variance"))


@rule(op.BatchNormInference(BIASED | CONV | _PRODUCT | value("x"), *_STATISTICS))
def fold_batch_norm(
    node: SeenNode, gamma: Seen, beta: Seen, mean: Seen, variance: Seen, x: Seen | None = None,
    conv: Seen | None = None, weights: Seen | None = None, bias: Seen | None = None,
) -> bool | None:  # fmt: skip
    """BatchNormInference(x) -> x * scale + shift, in f32 with constant numbers.

    Behind a convolution that nothing else reads: conv(x; weights * scale) + shift. A bias is in the shift.
    """
    shape, name = node.inputs[0].shape, node.of.get_friendly_name()
    if shape is None or node.output.dtype != "f32":
        return None
    g, b, m, var = (np.asarray(statistic.constant, np.float64) for statistic in (gamma, beta, mean, variance))
    scale = g / np.sqrt(var + node.attrs["epsilon"])
    shift = b - m * scale
    if bias is not None:
        term = np.asarray(bias.constant, np.float64)
        if term.size != scale.size or conv is None and (term.ndim > 2 or len(shape) != 2):
            return None
        shift = shift + term.reshape(-1) * scale
    if conv is None or weights is None:
        assert x is not None
        factor = _numbers(scale, len(shape), f"{name}/scale")
        scaled = made_node("Multiply", [x.port, factor], f"{name}/Multiply")
    else:
        scaled = with_factors(conv.node, conv.node.of._inputs[0], weights, scale, CHANNELS)
    result = made_node("Add", [scaled, _numbers(shift, len(shape), f"{name}/shift")], name)
    node.output.port.replace(result)
    return True


def shape_of_weights(weights: Seen) -> tuple[int, ...]:
    assert weights.shape is not None
    return tuple(int(size) for size in weights.shape)


def with_factors(
    conv: SeenNode, x: Output, weights: Seen, factors: np.ndarray, channels: Mapping[str, tuple[int, ...]],
    name: str | None = None,
) -> Output:  # fmt: skip
    """A convolution of `x` whose weights are multiplied by a factor, or by one for each of their `channels`.
    Weights that are integers stay so. It has another name if one is given."""
    old, axes, shape = conv.of, channels[conv.op.name], shape_of_weights(weights)
    broadcast_shape = [size if i in axes else 1 for i, size in enumerate(shape)]
    spread = np.broadcast_to(factors, math.prod(broadcast_shape)).reshape(broadcast_shape)
    if weights.constant is None:
        name = f"{weights.port._node.get_friendly_name()}/scaled"
        factor = made_constant(spread.astype(np.float32), "f32", f"{name}/factor")
        other = made_node("Multiply", [weights.port, factor], name)
    else:
        scaled = (np.asarray(weights.constant) * spread).astype(np.float32)
        other = made_constant(scaled, "f32", weights.port._node.get_friendly_name())
    inputs = [x, other, *old._inputs[2:]]
    return Output._of(Node._new(old._op, inputs, old._attrs, name or old.get_friendly_name()), 0)


def _numbers(values: np.ndarray, rank: int, name: str) -> Output:
    """A number for each channel, the dimension 1."""
    array = values.astype(np.float32).reshape(1, -1, *[1] * (rank - 2))
    return made_constant(array, "f32", name)


BATCH_NORMS = [[fold_batch_norm]]
