"""Softmax, LogSoftmax and normalizations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.op import Bool, DType, Float, Int, Positive, Single, TensorType, Word, op
from ovjit.graph.shapes import Interval, broadcast, compatible, merge, normalize_axes, normalize_axis, text
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.images import images_of
from ovjit_ops.common.values import in_f32, shape_value, widen_floats
from ovjit_ops.elementwise.arithmetic import REALS, cases, same_type
from ovjit_ops.normalization import expand_norm
from ovjit_ops.normalization.recognize import NORMALIZED, ROOT_MEAN_SQUARE, SCALED, group_mvn

if TYPE_CHECKING:
    from ovjit.graph.graph import Node, Value
    from ovjit.rewrite.writer import Writer


def _along(data: TensorType, axis: int) -> TensorType:
    if data.rank is not None:
        normalize_axis(axis, data.rank)
    return same_type(data, REALS)


_AXES: list[tuple[Any, ...]] = [
    *(((3, n), {"axis": 1}) for n in (1, 7, 8, 15, 16, 17, 33, 1000)),
    ((17,), {"axis": 0}),
    ((5, 17), {"axis": 0}),
    ((2, 5, 3, 7), {"axis": 1}),
    ((2, 5, 3, 7), {"axis": 3}),
    ((0, 3), {"axis": 1}),
]


@op(
    "Softmax", opset=1, types=REALS, ulp=16,
    lower=".cpu_softmax:lower_softmax", native=FULL, epilogue=True, prologue=True,
    images=images_of(0, along="axis"),
    in_real=1,
)  # fmt: skip
class Softmax1:
    """exp(x - max(x)) / sum(exp(x - max(x))) along `axis`, which is not negative"""

    def infer(data, *, axis: Int = 1):
        check(axis >= 0, f"axis {axis} should not be negative before opset8")
        return _along(data, axis)

    @in_f32
    def ref(x, *, axis=1):
        """Rows with only -inf, and rows with +inf or NaN, give NaN as in NumPy."""
        if x.size == 0:
            return x
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)

    samples = cases(*_AXES)


@op("Softmax", opset=8, like=Softmax1)
class Softmax8:
    """exp(x - max(x)) / sum(exp(x - max(x))) along `axis`"""

    def infer(data, *, axis: Int = 1):
        return _along(data, axis)

    samples = cases(*_AXES, ((2, 5, 3, 7), {"axis": -2}), ((3, 16), {"axis": -1}), ((), {"axis": -1}))


@op("LogSoftmax", opset=5, like=Softmax8)
class LogSoftmax:
    """x - max(x) - log(sum(exp(x - max(x)))) along `axis`"""

    @in_f32
    def ref(x, *, axis=1):
        if x.size == 0:
            return x
        shifted = x - np.max(x, axis=axis, keepdims=True)
        return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _channels(data: TensorType, *others: TensorType) -> TensorType:
    """The type of the data, with the channels that the per-channel lists `others` imply. Raises ModelError if
    they do not match."""
    channels: Any = None
    if data.shape is not None:
        check(
            len(data.shape) >= 2,
            f"Input argument must have rank of at least 2 (input argument shape: {text(data.shape)}).",
        )
        channels = data.shape[1]
    for x in others:
        check_same_type(x, data, "an input", "Input element types do not match.")
        check(
            x.rank in (None, 1),
            f"Shapes for gamma/beta/mean/variance do not match. {x} should be a list, one entry per channel",
        )
        for other in others:
            check(
                None in (x.shape, other.shape) or compatible(x.shape[0], other.shape[0]),
                "Shapes for gamma/beta/mean/variance do not match.",
            )
        if x.shape is not None and channels is not None:
            check(
                compatible(x.shape[0], channels),
                f"Input channel dimension ({channels}) does not match shape for gamma/beta/mean/variance "
                f"({text(x.shape)}).",
            )
            channels = merge(channels, x.shape[0])
    if data.shape is None or channels is data.shape[1]:
        return data
    return TensorType(data.dtype, (data.shape[0], channels, *data.shape[2:]))


def _batch_norm(x, gamma, beta, mean, variance, *, epsilon):
    gamma, beta, mean, variance = (
        v.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 2)) for v in (gamma, beta, mean, variance)
    )
    return (x - mean) / np.sqrt(variance + x.dtype.type(epsilon)) * gamma + beta


def _infer_batch_norm(data: TensorType, others: tuple[TensorType, ...], epsilon: float) -> TensorType:
    check(epsilon >= 0, f"Attribute 'epsilon' must be non negative value. Got: {epsilon:g}")
    return same_type(_channels(data, *others), REALS)


@op(
    "BatchNormInference", opset=1, types=REALS, native=FULL, expand=expand_norm.expand_batch_norm,
    images=images_of(2),
)  # fmt: skip
class BatchNormInference1:
    """(data - mean) / sqrt(variance + epsilon) * gamma + beta, per channel."""

    def infer(gamma, beta, data, mean, variance, *, epsilon: Float):
        return _infer_batch_norm(data, (gamma, beta, mean, variance), epsilon)

    def ref(gamma, beta, data, mean, variance, *, epsilon):
        return in_f32(_batch_norm)(data, gamma, beta, mean, variance, epsilon=epsilon)


@op("BatchNormInference", opset=5, like=BatchNormInference1, images=images_of(0))
class BatchNormInference5:
    """(data - mean) / sqrt(variance + epsilon) * gamma + beta, per channel."""

    def infer(data, gamma, beta, mean, variance, *, epsilon: Float):
        return _infer_batch_norm(data, (gamma, beta, mean, variance), epsilon)

    ref = in_f32(_batch_norm)


def _axes_of(x: TensorType, axes: TensorType) -> None:
    values = shape_value(axes, "axes")
    if values is not None and x.rank is not None:
        normalize_axes((int(a) for a in values), x.rank)


def _expand_lrn(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    from ovjit_ops.normalization.cpu_lrn import expand_lrn

    return expand_lrn(w, node, inputs)


@op(
    "LRN", opset=1, types=REALS, ulp=16, lower=".cpu_lrn:LocalResponse.of",
    images=images_of(0, along=1),
    expand=_expand_lrn, native=FULL,
    in_real=1,
)  # fmt: skip
class LRN:
    """data / (bias + alpha / size^n * sum of squares in a window of `size` along the n axes)^beta"""

    def infer(data, axes, *, alpha: Float = 1.0, beta: Float = 0.5, bias: Float = 1.0, size: Positive = 5):
        _axes_of(data, axes)
        return same_type(data, REALS)

    @in_f32
    def ref(x, axes, *, alpha, beta, bias, size):
        half = (size - 1) // 2
        squares = x * x
        normal = normalize_axes((int(a) for a in axes.reshape(-1)), x.ndim)
        for axis in normal:
            total = np.zeros_like(squares)
            n = x.shape[axis]
            reach = max(min(half, n - 1), 0)  # the window ends at the border
            for shift in range(-reach, reach + 1):
                here = [slice(None)] * x.ndim
                there = [slice(None)] * x.ndim
                here[axis] = slice(max(0, -shift), max(0, min(n, n - shift)))
                there[axis] = slice(max(0, shift), max(0, min(n, n + shift)))
                total[tuple(here)] += squares[tuple(there)]
            squares = total
        one = x.dtype.type
        return x / (one(bias) + one(alpha / size ** len(normal)) * squares) ** one(beta)

    samples = cases(
        ((1, 17, 5, 7), [1], {"size": 5}),
        ((2, 16, 8, 8), [1], {"size": 3}),
        ((1, 3, 9), [1], {"size": 5}),
        ((1, 5, 7, 8), [2, 3], {"size": 3}),
        ((1, 8, 3, 3), [1], {"size": 4}),
        ((1, 2, 3, 3), [1], {"size": 9}),
        each=[{"alpha": 0.5, "beta": 0.75, "bias": 2.0}],
    )


def standardize(x: np.ndarray, axes: tuple[int, ...], variance: bool, eps: float, inside: bool) -> np.ndarray:
    """(x - mean) over `axes`, divided by the standard deviation if `variance`. `inside`: eps is inside the
    root."""
    x = x - np.mean(x, axis=axes, keepdims=True)
    if not variance:
        return x
    spread = np.mean(x * x, axis=axes, keepdims=True)
    eps = x.dtype.type(eps)
    return x / (np.sqrt(spread + eps) if inside else np.sqrt(spread) + eps)


def in_groups(x: np.ndarray, groups: int, eps: float) -> np.ndarray:
    flat = x.reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)
    return standardize(flat, (2,), True, eps, True).reshape(x.shape)


@op(
    "MVN", opset=2, types=REALS, ulp=64, lower=".cpu_mvn:lower_mvn",
    expand=expand_norm.expand_mvn2, native=FULL, epilogue=True, prologue=True, in_real=1,
)  # fmt: skip
class MVN2:
    """Normalizes the mean and, optionally, the variance of each sample, over all channels or per channel."""

    def show(attrs, inputs):
        return {"reduction_axes": tuple(range(1 if attrs["across_channels"] else 2, inputs[0].rank or 0))}

    def infer(data, *, across_channels: Bool = False, normalize_variance: Bool = False, eps: Float = 1e-9):
        check(eps >= 0, f"eps {eps} should not be negative")
        return same_type(data, REALS)

    @in_f32
    def ref(x, *, across_channels=False, normalize_variance=False, eps=1e-9):
        axes = tuple(range(1 if across_channels else 2, x.ndim))
        return standardize(x, axes, normalize_variance, eps, True)

    samples = cases(
        ((2, 3, 5, 7),),
        ((1, 17, 4, 4),),
        ((1, 2, 33),),
        each=[
            {"across_channels": across, "normalize_variance": variance, "eps": 1e-5}
            for across in (False, True)
            for variance in (False, True)
        ],
    )


@op("MVN", opset=6, like=MVN2, expand=expand_norm.expand_mvn6, images=images_of(0, along=1))
class MVN6:
    """Normalizes the mean and, optionally, the variance over `axes`; `eps` is added inside or outside the
    root."""

    show = None
    words = {"eps_mode": "op::MVNEpsMode: inside_sqrt outside_sqrt"}

    def infer(data, axes, *, eps: Single, normalize_variance: Bool = True, eps_mode: Word = "inside_sqrt"):
        check(eps >= 0, f"eps {eps} should not be negative")
        _axes_of(data, axes)
        return same_type(data, REALS)

    @in_f32
    def ref(x, axes, *, eps, normalize_variance=True, eps_mode="inside_sqrt"):
        normal = normalize_axes((int(a) for a in axes.reshape(-1)), x.ndim)
        return standardize(x, normal, normalize_variance, eps, eps_mode.lower() == "inside_sqrt")

    samples = cases(
        ((2, 3, 5, 7), [2, 3]),
        ((2, 17, 5), [-1]),
        ((1, 16, 8, 8), [1, 2, 3]),
        ((4, 33), [1]),
        each=[
            {"eps": eps, "normalize_variance": variance, "eps_mode": mode}
            for mode in ("inside_sqrt", "outside_sqrt")
            for variance, eps in ((False, 1e-5), (True, 1e-5), (True, 0.0))
        ],
    )


@op(
    "NormalizeL2", opset=1, types=REALS, ulp=32, native=FULL, expand=expand_norm.expand_normalize_l2,
    images=images_of(0, along=1),
    in_real=1,
)  # fmt: skip
class NormalizeL2:
    """data / sqrt(sum of squares over `axes` + eps), or their maximum instead of the sum (eps_mode max)."""

    words = {"eps_mode": "add max"}

    def infer(data, axes, *, eps: Single, eps_mode: Word = "add"):
        check(eps >= 0, f"eps {eps} should not be negative")
        _axes_of(data, axes)
        return same_type(data, REALS)

    @in_f32
    def ref(x, axes, *, eps, eps_mode="add"):
        normal = normalize_axes((int(a) for a in axes.reshape(-1)), x.ndim)
        total = np.sum(x * x, axis=normal, keepdims=True)
        eps = x.dtype.type(eps)
        return x / np.sqrt(total + eps if eps_mode == "add" else np.maximum(total, eps))

    samples = cases(
        ((2, 17, 5, 7), [1]),
        ((2, 3, 5, 7), [1, 2, 3]),
        ((3, 33), [1]),
        ((2, 3, 16), [-1]),
        each=[{"eps": 0.1, "eps_mode": mode} for mode in ("add", "max")],
    )


@op(
    "GRN", opset=1, types=REALS, ulp=32, native=FULL, expand=expand_norm.expand_grn,
    in_real=1,
)  # fmt: skip
class GRN:
    """data / sqrt(sum of squares over channels + bias)"""

    def infer(data, *, bias: Single):
        check(data.rank is None or 2 <= data.rank <= 4, f"the data {data} should have 2 to 4 dimensions")
        return same_type(data, REALS)

    @in_f32
    def ref(x, *, bias):
        return x / np.sqrt(np.sum(x * x, axis=1, keepdims=True) + x.dtype.type(bias))

    samples = cases(((2, 3, 5, 7),), ((1, 17, 4, 4),), ((2, 33),), each=[{"bias": 0.1}])


@op(
    "GroupNormalization", opset=12, types=REALS, ulp=64, native=FULL, expand=expand_norm.expand_group_norm,
    images=images_of(0),
    in_real=3,
)  # fmt: skip
class GroupNormalization:
    """Normalizes each of `num_groups` groups of channels, then scales and shifts per channel."""

    def infer(data, scale, bias, *, num_groups: Int, epsilon: Float):
        says = "The number of groups needs to be a positive integer value"
        check(num_groups >= 1, f"{says}, not {num_groups}")
        check(epsilon >= 0, f"epsilon {epsilon} should not be negative")
        check(data.rank is None or data.rank >= 2, "The input tensor is required to be at least 2D")
        for x, what in ((scale, "scale"), (bias, "bias")):
            check(x.rank in (None, 1), f"The {what} input is required to be 1D")
            fits = None in (data.shape, x.shape) or compatible(x.shape[0], data.shape[1])
            says = f"The {what} input shape needs to match the channel dimension in the data input"
            check(fits, f"{says}: {x} and {data}")
        _channels(data, scale, bias)
        if data.shape is not None and not isinstance(data.shape[1], Interval):
            check(
                data.shape[1] % num_groups == 0,
                "The number of channels is required to be evenly divisible by the number of groups: "
                f"{data.shape[1]} and {num_groups}",
            )
        return same_type(data, REALS)

    @in_f32
    def ref(x, scale, bias, *, num_groups, epsilon):
        shape = (-1,) + (1,) * (x.ndim - 2)
        normal = in_groups(x, num_groups, epsilon)
        return normal * scale.reshape(shape) + bias.reshape(shape)

    samples = cases(
        ((2, 4, 5, 7), (4,), (4,), {"num_groups": 2}),
        ((1, 16, 4, 4), (16,), (16,), {"num_groups": 4}),
        ((1, 6, 33), (6,), (6,), {"num_groups": 1}),
        ((2, 8, 3, 3), (8,), (8,), {"num_groups": 8}),
        each=[{"epsilon": 1e-4}, {"epsilon": 0.0}],
    )


@op(
    "GroupMVN", opset=1, types=REALS, ulp=64, internal=True, native=FULL, lower=".cpu_mvn:lower_group_mvn",
    epilogue=True, prologue=True, in_real=1, rules=[group_mvn], rules_for=["MVN", "ReduceMean"],
)  # fmt: skip
class GroupMVN:
    """Normalizes each of `groups` groups of channels."""

    def infer(data, *, groups: Int, eps: Float):
        channels = data.shape[1] if data.shape is not None else 0
        fits = isinstance(channels, Interval) or channels % groups == 0
        check(fits, f"the channels of {data} should be evenly divisible by the number of groups, {groups}")
        return same_type(data, REALS)

    @in_f32
    def ref(x, *, groups, eps):
        return in_groups(x, groups, eps)

    samples = cases(
        *(((*shape,), {"groups": n}) for shape, n in (
            ((2, 4, 5, 7), 2), ((1, 16, 4, 4), 4), ((1, 6, 33), 1), ((2, 8, 3, 3), 8), ((3, 12), 4),
        )),
        each=[{"eps": 1e-4}],
    )  # fmt: skip


@op("RMS", opset=1, types=REALS, ulp=32, plugin=True, native=FULL, expand=expand_norm.expand_rms)
class RMS:
    """x / sqrt(mean of x^2 along the last axis + epsilon) * gamma"""

    def infer(data, gamma, *, epsilon: Float, output_type: DType = "dynamic"):
        check_type(data, REALS)
        check_same_type(gamma, data, "gamma")
        check(data.rank is None or data.rank > 0, "the data should have at least one dimension")
        out = data.dtype if output_type == "dynamic" else output_type
        return TensorType(out, broadcast(data.shape, gamma.shape))

    def ref(data, gamma, *, epsilon, output_type="dynamic"):
        x = widen_floats(data)
        out = x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(epsilon)) * widen_floats(gamma)
        return out.astype(data.dtype if output_type == "dynamic" else numpy_dtype(output_type))


@op(
    "RootMeanSquare", opset=1, types=REALS, ulp=32, internal=True, native=FULL, lower=".cpu_mvn:lower_rms",
    epilogue=True, prologue=True, rules=[NORMALIZED, ROOT_MEAN_SQUARE, SCALED],
    rules_for=["ReduceMean"],
)  # fmt: skip
class RootMeanSquare:
    """x / sqrt(mean of x^2 along the last axis + epsilon)"""

    def infer(data, *, epsilon: Float):
        check(data.rank is None or data.rank > 0, "the data should have at least one dimension")
        return same_type(data, REALS)

    @in_f32
    def ref(x, *, epsilon):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(epsilon))

    samples = cases(
        ((7,),), ((3, 17),), ((2, 5, 64),), ((1, 1000),), ((2, 3, 4, 33),), each=[{"epsilon": 1e-5}]
    )
