"""Activations, formulas of elements, and products."""

from __future__ import annotations

from .parts import *

functional = paddle.nn.functional


def _leaky_relu(op: Any) -> Any:
    """LeakyRelu as a formula: the exporter reads its f64 slope as f32."""
    x = op.operand_source(0)
    return functional.prelu(x, paddle.full([1], op.attrs()["negative_slope"], x.dtype))


def _gelu(op: Any) -> Any:
    """Gelu as a formula: the exporter ignores `approximate`."""
    x = op.operand_source(0)
    if not op.attrs()["approximate"]:
        return None
    return x * 0.5 * (paddle.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1)


def _sequence_mask(op: Any) -> Any:
    x, size = op.operands_source()
    size = constant_of(size) if size.initialized() else [-1]
    if size is None:
        return None
    count = int(size[0]) if size[0] >= 0 else of_one_axis(paddle.max, paddle.reshape(x, [-1]))
    return paddle.cast(
        numbers_below(count) < paddle.unsqueeze(paddle.cast(x, "int64"), -1), op.attrs()["out_dtype"]
    )


def _of_numbers(function: Callable[..., Any]) -> Rule:
    """The rule for an operator from a function of its tensors and attributes."""
    return lambda op: function(*op.operands_source(), **op.attrs())


def _expm1(x: Any) -> Any:
    half = paddle.tanh(paddle.minimum(x, paddle.ones_like(x)) / 2)
    return paddle.where(x < 1, half * 2 / (1 - half), paddle.exp(x) - 1)


#: Operators that the exporter does not know.
FORMULAS: dict[str, Callable[..., Any]] = {
    "addmm": lambda c, x, y, alpha, beta, **_: paddle.matmul(x, y) * alpha + c * beta,
    "amax": along(paddle.max),
    "amin": along(paddle.min),
    "celu": lambda x, alpha, **_: functional.relu(x) - functional.relu(-_expm1(x / alpha) * alpha),
    "expm1": lambda x, **_: _expm1(x),
    "increment_": lambda x, value, **_: x + value,
    "masked_fill": lambda x, mask, value, **_: paddle.where(mask, value, x),
    "trunc": lambda x, **_: paddle.sign(x) * paddle.floor(paddle.abs(x)),
}


def _quotient(op: Any) -> Any:
    """The quotient of integers as f32, as Paddle computes it even where its program declares integers."""
    x, y = op.operands_source()
    if "int" not in str(x.dtype):
        return None
    return paddle.divide(paddle.cast(x, "float32"), paddle.cast(y, "float32"))


RULES: dict[str, Rule] = {
    **{name: _of_numbers(function) for name, function in FORMULAS.items()},
    "leaky_relu": _leaky_relu,
    "leaky_relu_": _leaky_relu,
    "gelu": _gelu,
    "sequence_mask": _sequence_mask,
    "divide": _quotient,
}
