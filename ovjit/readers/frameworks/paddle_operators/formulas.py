"""Activations, formulas of elements, and products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle  # type: ignore[import-not-found]

from .parts import Rule, along, constant_of, numbers_below, of_one_axis, sizes_of

functional = paddle.nn.functional


def _leaky_relu(op: Any) -> Any:
    """The exporter reads the slope, which has 64 bits, as a number of 32."""
    x = op.operand_source(0)
    return functional.prelu(x, paddle.full([1], op.attrs()["negative_slope"], x.dtype))


def _gelu(op: Any) -> Any:
    """The exporter ignores that it is to be approximated."""
    x = op.operand_source(0)
    if not op.attrs()["approximate"]:
        return None
    return x * 0.5 * (paddle.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1)


def _maxout(op: Any) -> Any:
    x, groups = op.operand_source(0), op.attrs()["groups"]
    axis, sizes = op.attrs()["axis"] % len(x.shape), sizes_of(x)
    parts = [*sizes[:axis], sizes[axis] // groups, groups, *sizes[axis + 1 :]]
    return paddle.max(paddle.reshape(x, parts), axis=[axis + 1])


def _sequence_mask(op: Any) -> Any:
    x, size = op.operands_source()
    size = constant_of(size) if size.initialized() else [-1]
    if size is None:
        return None
    count = int(size[0]) if size[0] >= 0 else of_one_axis(paddle.max, paddle.reshape(x, [-1]))
    return paddle.cast(
        numbers_below(count) < paddle.unsqueeze(paddle.cast(x, "int64"), -1), op.attrs()["out_dtype"]
    )


def _shard_index(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    size = (attrs["index_num"] + attrs["nshards"] - 1) // attrs["nshards"]
    inside = x // size == attrs["shard_id"]
    return paddle.where(inside, x % size, paddle.full([1], attrs["ignore_value"], x.dtype))


def _matrix_power(op: Any) -> Any:
    x, count = op.operand_source(0), op.attrs()["n"]
    if count < 1:
        return None
    result = x
    for _ in range(count - 1):
        result = paddle.matmul(result, x)
    return result


def _bilinear(op: Any) -> Any:
    x, y, weight, bias = op.operands_source()
    result = paddle.matmul(paddle.unsqueeze(x, [1, 2]), paddle.unsqueeze(weight, 0))
    result = paddle.sum(paddle.squeeze(result, axis=[2]) * paddle.unsqueeze(y, 1), axis=[-1])
    return result + bias if bias.initialized() else result


def _other_than_nan(join: Callable[..., Any]) -> Rule:
    def rule(op: Any) -> Any:
        x, y = op.operands_source()
        if "float" not in str(x.dtype):
            return join(x, y)
        return paddle.where(paddle.isnan(x), y, paddle.where(paddle.isnan(y), x, join(x, y)))

    return rule


def _of_numbers(function: Callable[..., Any]) -> Rule:
    """A rule for an operator of a function of its tensors and attributes."""
    return lambda op: function(*op.operands_source(), **op.attrs())


def _asinh(x: Any, **_: Any) -> Any:
    size = paddle.abs(x)
    return paddle.sign(x) * paddle.log1p(size + size * size / (1 + paddle.sqrt(size * size + 1)))


def _expm1(x: Any) -> Any:
    half = paddle.tanh(paddle.minimum(x, paddle.ones_like(x)) / 2)
    return paddle.where(x < 1, half * 2 / (1 - half), paddle.exp(x) - 1)


def _is_negative(x: Any) -> Any:
    return paddle.logical_or(x < 0, 1 / x < 0)  # the reciprocal tells -0.0


def _logit(x: Any, eps: float, **_: Any) -> Any:
    x = paddle.clip(x, eps, 1 - eps) if eps > 0 else x
    return paddle.log(x / (1 - x))


#: Operators that the exporter does not know.
FORMULAS: dict[str, Callable[..., Any]] = {
    "addmm": lambda c, x, y, alpha, beta, **_: paddle.matmul(x, y) * alpha + c * beta,
    "amax": along(paddle.max),
    "amin": along(paddle.min),
    "angle": lambda x, **_: paddle.where(x < 0, paddle.full_like(x, math.pi), x * 0),
    "acosh": lambda x, **_: paddle.log(x + paddle.sqrt(x * x - 1)),
    "asinh": _asinh,
    "atanh": lambda x, **_: paddle.log1p(x * 2 / (1 - x)) / 2,
    "bitwise_left_shift": lambda x, y, **_: x * paddle.cast(2.0 ** paddle.cast(y, "float32"), x.dtype),
    "bitwise_right_shift": lambda x, y, **_: x // paddle.cast(2.0 ** paddle.cast(y, "float32"), x.dtype),
    "celu": lambda x, alpha, **_: functional.relu(x) - functional.relu(-_expm1(x / alpha) * alpha),
    "copysign": lambda x, y, **_: paddle.abs(x) * paddle.where(_is_negative(y), y * 0 - 1, y * 0 + 1),
    "expm1": lambda x, **_: _expm1(x),
    "heaviside": lambda x, y, **_: paddle.where(x == 0, y, paddle.cast(x > 0, y.dtype)),
    "increment_": lambda x, value, **_: x + value,
    "lerp": lambda x, y, weight, **_: x + weight * (y - x),
    "logit": _logit,
    "masked_fill": lambda x, mask, value, **_: paddle.where(mask, value, x),
    "rrelu": lambda x, lower, upper, **_: paddle.where(x >= 0, x, x * ((lower + upper) / 2)),
    "stanh": lambda x, scale_a, scale_b, **_: paddle.tanh(x * scale_a) * scale_b,
    "trunc": lambda x, **_: paddle.sign(x) * paddle.floor(paddle.abs(x)),
}


def _quotient(op: Any) -> Any:
    """Paddle's quotient of integers is an f32, also where its program declares an integer."""
    x, y = op.operands_source()
    if "int" not in str(x.dtype):
        return None
    return paddle.divide(paddle.cast(x, "float32"), paddle.cast(y, "float32"))


RULES: dict[str, Rule] = {
    **{name: _of_numbers(function) for name, function in FORMULAS.items()},
    "leaky_relu": _leaky_relu,
    "leaky_relu_": _leaky_relu,
    "gelu": _gelu,
    "maxout": _maxout,
    "sequence_mask": _sequence_mask,
    "shard_index": _shard_index,
    "matrix_power": _matrix_power,
    "bilinear": _bilinear,
    "fmax": _other_than_nan(paddle.maximum),
    "fmin": _other_than_nan(paddle.minimum),
    "divide": _quotient,
}
