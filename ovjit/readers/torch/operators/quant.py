"""Quantization."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten
from ovjit.readers.torch.values import element_type, name_of

#: Integers that f32 tells from each other.
MOST_LEVELS = 1 << 24


def fake_quantized(n: Call, x: Output, scale: Output, zero: Output, low: int, high: int) -> Output:
    """(clamp(round(x / scale) + zero) - zero) * scale, as FakeQuantize between the ends of the range, if that
    counts so many levels"""
    if high - low > MOST_LEVELS:
        low_end, high_end = (n("Subtract", n.like(x, v), zero) for v in (low, high))
        rounded = n("Round", n("Divide", x, scale), mode="half_to_even")
        return n("Multiply", n("Maximum", n("Minimum", rounded, high_end), low_end), scale)
    ends = [n("Multiply", n("Subtract", n.like(x, v), zero), scale) for v in (low, high)]
    constant = n.value(scale)
    if constant is None or (constant < 0).any():  # a negative scale exchanges them
        ends = [n("Minimum", *ends), n("Maximum", *ends)]
    return n("FakeQuantize", x, *ends, *ends, levels=high - low + 1)


@aten("fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine.tensor_qparams",
      "fake_quantize_per_tensor_affine_cachemask",
      "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")  # fmt: skip
def fake_per_tensor(n: Call, x: Output, scale: Any, zero_point: Any, quant_min: int, quant_max: int,
                    fake_quant_enabled: Any = None) -> Any:  # fmt: skip
    kind = n.dtype(x)
    s, z = (n.tensor(v, kind) for v in (scale, zero_point))
    if n.rank(s):
        s, z = n.reshape(s, []), n.reshape(z, [])
    out = fake_quantized(n, x, s, z, quant_min, quant_max)
    if "cachemask" not in n.op:
        return out
    within = _within(n, x, s, z, (quant_min, quant_max)) if n.is_used(1) else n.alike(x, True, "boolean")
    if fake_quant_enabled is None or n.known_number(fake_quant_enabled) == 1:
        return [out, within]
    enabled = n.scalar(n.to_type(n.tensor(fake_quant_enabled), "boolean"))
    return [n("Select", enabled, out, x), n("LogicalOr", within, n("LogicalNot", enabled))]


def _within(n: Call, x: Output, scale: Output, zero: Output, ends: tuple[int, int]) -> Output:
    """Return a boolean mask of the elements whose quantized values lie within `ends` (not clamped)."""
    quantized = n("Round", n("Add", n("Divide", x, scale), zero), mode="half_to_even")
    above, below = (
        n("GreaterEqual", quantized, n.like(x, ends[0])),
        n("LessEqual", quantized, n.like(x, ends[1])),
    )
    return n("LogicalAnd", above, below)


@aten("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask")
def fake_per_channel(
    n: Call, x: Output, scale: Output, zero_point: Output, axis: int, quant_min: int, quant_max: int
) -> Any:
    along = n.axis(axis, n.rank(x))
    s, z = (n.convert(n.along(v, along, n.rank(x)), n.dtype(x)) for v in (scale, zero_point))
    out = fake_quantized(n, x, s, z, quant_min, quant_max)
    if "cachemask" not in n.op:
        return out
    return [out, _within(n, x, s, z, (quant_min, quant_max)) if n.is_used(1) else None]


@aten("quantized_decomposed::quantize_per_tensor", "quantized_decomposed::quantize_per_channel",
      "torchao::quantize_affine_no_dtype_cast_none")  # fmt: skip
def quantize(
    n: Call, x: Output, scale: Any = None, scales: Any = None, zero_point: Any = 0, zero_points: Any = None,
    axis: Any = None, quant_min: int = -128, quant_max: int = 127, dtype: Any = None,
) -> Output:  # fmt: skip
    """clamp(round(x * (1 / scale)) + zero), the reciprocal in the scale's own type: as PyTorch rounds"""
    any_scale = scale if scales is None else scales
    inverse = _inverse(n, any_scale, n.dtype(x))
    s, z = _parameters(n, x, inverse, None, zero_point, zero_points, axis)
    quantized = n("Add", n("Round", n("Multiply", x, s), mode="half_to_even"), z)
    bounded = n("Maximum", n("Minimum", quantized, n.like(x, quant_max)), n.like(x, quant_min))
    return n.convert(bounded, element_type(dtype))


@aten("quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_channel")
def dequantize(
    n: Call, x: Output, scale: Any = None, scales: Any = None, zero_point: Any = 0, zero_points: Any = None,
    axis: Any = None, out_dtype: Any = None,
) -> Output:  # fmt: skip
    kind = "f32" if out_dtype is None else element_type(out_dtype)
    real = n.convert(x, kind)
    s, z = _parameters(n, real, scale, scales, zero_point, zero_points, axis)
    return n("Multiply", n("Subtract", real, z), s)


@aten("quantized_decomposed::choose_qparams", "quantized_decomposed::choose_qparams_symmetric")
def choose_qparams(
    n: Call, x: Output, quant_min: int, quant_max: int, eps: float, dtype: Any
) -> list[Output]:
    """The scale in f64 and the zero point in i64, [1] each, for the smallest and the largest number."""
    axes = n.all_axes(x, None)
    low = n("Minimum", n("ReduceMin", x, axes, keep_dims=False), n.like(x, 0.0))
    high = n("Maximum", n("ReduceMax", x, axes, keep_dims=False), n.like(x, 0.0))
    symmetric = n.op.endswith("symmetric")
    if symmetric:
        high = n("Maximum", high, n("Negative", low))
    span = high if symmetric else n("Subtract", high, low)
    steps = (quant_max - quant_min) / (2 if symmetric else 1)
    scale = n("Maximum", n("Divide", span, n.like(x, steps)), n.like(x, eps))
    if symmetric:
        zero = n.const([128 if name_of(dtype) == "uint8" else 0], "i64")
    else:
        rounded_low = n("Round", n("Divide", low, scale), mode="half_to_even")
        bounded = n("Clamp", n("Subtract", n.like(x, quant_min), rounded_low), min=quant_min, max=quant_max)
        zero = n.reshape(n.convert(bounded, "i64"), [1])
    return [n.reshape(n.convert(scale, "f64"), [1]), zero]


def _inverse(n: Call, scale: Any, kind: str) -> Output:
    """1 / scale as `kind`. A number of Python's is one of f64."""
    constant = n.known_number(scale) if not isinstance(scale, Output) else None
    if constant is not None:
        return n.const(1.0 / float(constant), kind)
    scale = n.tensor(scale)
    return n.convert(n("Divide", n.like(scale, 1.0), scale), kind)


def _parameters(
    n: Call, x: Output, scale: Any, scales: Any, zero_point: Any, zero_points: Any, axis: Any
) -> tuple[Output, Output]:
    s, z = scale if scales is None else scales, zero_point if zero_points is None else zero_points
    out = []
    for value in (s, z):
        result = n.tensor(value, n.dtype(x))
        if axis is not None and n.rank(result):
            result = n.along(result, n.axis(axis, n.rank(x)), n.rank(x))
        out.append(result)
    return out[0], out[1]
