"""PyTorch's quantized tensors and layers: floats that lie on a grid, as in OpenVINO's models; and fake
quantization.

A quantized tensor is read as its numbers in f32, which a FakeQuantize has put on the grid. Operators that
move elements keep the grid. Those that average or add elements put them on it again, as PyTorch rounds there.
"""

from __future__ import annotations

from ovjit.build import wrap_port
from ovjit.readers.torch.rule_language import *

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
    """1 / scale in the type `kind`. A Python number is an f64."""
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


#: The ends of the integers by PyTorch's type.
ENDS = {"quint8": (0, 255), "qint8": (-128, 127), "qint32": (-(1 << 31), (1 << 31) - 1)}
#: Operators whose results are not on the grid of their input before they are rounded.
ROUNDED = ("avg_pool", "mean", "upsample_bi", "upsample_li", "upsample_tri", "elu", "leaky_relu", "::cat",
           "::concat", "::stack")  # fmt: skip
#: Operators whose results have a grid of their own: from 0 to 1.
TO_ONE = ("aten::hardsigmoid", "aten::sigmoid")


class Grid(NamedTuple):
    """A quantization: (q - zero) * scale for integers q from low to high."""

    scale: float
    zero: int
    low: int
    high: int


class OnGrid(Output):
    """A quantized tensor. Its Output is the dequantized tensor, which `dequantize` returns."""

    __slots__ = ("grid",)
    #: None for one with a grid for each channel, of which nothing but the reals is read.
    grid: Grid | None


def _on_grid(x: Output, grid: Grid | None) -> OnGrid:
    return wrap_port(OnGrid, x, grid=grid)


def _round_to_grid(n: Call, x: Output, grid: Grid) -> OnGrid:
    """x rounded to the grid."""
    out = fake_quantized(n, x, n.like(x, grid.scale), n.like(x, grid.zero), grid.low, grid.high)
    return _on_grid(out, grid)


def keep_on_grid(n: Call, arguments: Mapping[str, Any], result: Any) -> Any:
    """Round the result of an operator to the quantization of its first argument."""
    first = next(iter(arguments.values()), None)
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not isinstance(first, OnGrid) or n.op.startswith("quantized::") or n.op == "aten::dequantize":
        return result
    grid = first.grid
    if grid is None:
        raise UnsupportedError("the operator is not supported for a tensor quantized per channel")
    if isinstance(result, Output) and n.op in TO_ONE:
        return _round_to_grid(n, result, Grid(1 / (grid.high - grid.low + 1), grid.low, grid.low, grid.high))
    if isinstance(result, Output) and any(name in n.op for name in ROUNDED):
        return _round_to_grid(n, result, grid)
    return _keep_grid(n, result, grid)


def _keep_grid(n: Call, result: Any, grid: Grid) -> Any:
    if isinstance(result, list):
        return [_keep_grid(n, value, grid) for value in result]
    return _on_grid(result, grid) if isinstance(result, Output) and n.dtype(result) == "f32" else result


def _ends(n: Call, x: Any, scale: Any, zero: Any) -> Grid:
    """The quantization of a result, with the integer type of the first operand."""
    low, high = (x.grid.low, x.grid.high) if isinstance(x, OnGrid) and x.grid else ENDS["quint8"]
    return Grid(float(n.known_number(scale)), n.known_int(zero, "the zero point"), low, high)


@aten("quantize_per_tensor")
def quantize_per_tensor(n: Call, x: Output, scale: Any, zero_point: Any, dtype: Any) -> Output:
    kind = name_of(dtype)
    scale = n.known_number(scale)
    if kind not in ENDS or scale is None:
        raise UnsupportedError(f"tensors quantized to {kind}, or by a non-constant scale, are not supported")
    return _round_to_grid(n, x, Grid(float(scale), n.known_int(zero_point, "the zero point"), *ENDS[kind]))


@aten("quantize_per_channel")
def quantize_per_channel(n: Call, x: Output, scales: Any, zero_points: Any, axis: int, dtype: Any) -> Output:
    kind = name_of(dtype)
    if kind not in ENDS:
        raise UnsupportedError(f"tensors quantized to {kind} are not supported")
    result = n.also("fake_quantize_per_channel_affine", x, scales, zero_points, axis, *ENDS[kind])
    return _on_grid(result, None)


@aten("dequantize")
def leave_grid(n: Call, x: Output) -> Output:
    """The dequantized tensor, no longer an OnGrid."""
    if not isinstance(x, OnGrid):
        raise UnsupportedError("dequantize needs a quantized tensor")
    return wrap_port(Output, x)


def _weight(n: Call, tensor: Any) -> Output:
    """A dequantized weight, (codes - zero points) * scales, whose codes stay packed."""
    if not tensor.is_quantized:
        return n.const(tensor.float().numpy())
    codes = n.convert(n.const(tensor.int_repr().numpy()), "f32")
    if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
        shape = [1] * tensor.dim()
        shape[tensor.q_per_channel_axis()] = -1
        scale = tensor.q_per_channel_scales().float().reshape(shape).numpy()
        zero = tensor.q_per_channel_zero_points().float().reshape(shape).numpy()
    else:
        scale, zero = (torch.tensor(float(v)).numpy() for v in (tensor.q_scale(), tensor.q_zero_point()))
    if zero.any():
        codes = n("Subtract", codes, n.const(zero))
    return n("Multiply", codes, n.const(scale))


def _bias(n: Call, bias: Any) -> Output | None:
    return None if bias is None else n.const(bias.detach().float().numpy())


@aten("quantized::conv1d", "quantized::conv2d", "quantized::conv3d", "quantized::conv1d_relu",
      "quantized::conv2d_relu", "quantized::conv3d_relu")  # fmt: skip
def convolution(n: Call, x: Output, packed_weight: Any, output_scale: Any, output_zero_point: Any) -> Output:
    weight, bias = packed_weight.unpack()
    dims = n.rank(x) - 2
    window = [list(v)[-dims:] for v in (packed_weight.stride(), packed_weight.padding(),
                                        packed_weight.dilation())]  # fmt: skip
    weight = weight.squeeze(2) if weight.dim() > dims + 2 else weight
    name = ("conv1d", "conv2d", "conv3d")[dims - 1]
    result = n.also(name, x, _weight(n, weight), _bias(n, bias), *window, packed_weight.groups())
    return _finish(n, x, result, output_scale, output_zero_point)


@aten("quantized::linear", "quantized::linear_relu")
def linear(n: Call, x: Output, W_prepack: Any, Y_scale_i: Any, Y_zero_point_i: Any) -> Output:
    weight, bias = W_prepack.unpack()
    result = n.also("linear", x, _weight(n, weight), _bias(n, bias))
    return _finish(n, x, result, Y_scale_i, Y_zero_point_i)


@aten("quantized::linear_dynamic", "quantized::linear_relu_dynamic", "quantized::linear_dynamic_fp16",
      "quantized::linear_relu_dynamic_fp16")  # fmt: skip
def linear_dynamic(n: Call, x: Output, W_prepack: Any) -> Output:
    """A linear layer with dynamic quantization, without the rounding of x to integers, as with other packed
    weights."""
    weight, bias = W_prepack.unpack()
    result = n.also("linear", x, _weight(n, weight), _bias(n, bias))
    return n("Relu", result) if "_relu" in n.op else result


@aten("quantized::embedding_byte")
def embedding(n: Call, weight: Any, indices: Output) -> Output:
    return n.also("embedding", _weight(n, weight.unpack()), indices)


def _finish(n: Call, x: Any, result: Output, scale: Any, zero: Any) -> Output:
    """A result quantized by its scale and zero point, after a ReLU if the operator's name has one."""
    return _round_to_grid(
        n, n("Relu", result) if n.op.endswith("_relu") else result, _ends(n, x, scale, zero)
    )


@aten("quantized::add", "quantized::add_relu", "quantized::mul", "quantized::mul_relu")
def arithmetic(n: Call, x: Output, qb: Output, scale: Any, zero_point: Any) -> Output:
    op = "Add" if "add" in n.op else "Multiply"
    return _finish(n, x, n(op, x, qb), scale, zero_point)


@aten("quantized::cat", "quantized::cat_relu")
def cat(n: Call, x: Any, dim: int, scale: Any = None, zero_point: Any = None) -> Output:
    """Concat, requantized to (scale, zero_point); by default to those of the first tensor."""
    if scale is None and isinstance(x[0], OnGrid) and x[0].grid:
        scale, zero_point = x[0].grid.scale, x[0].grid.zero
    return _finish(n, x[0], n("Concat", *x, axis=n.axis(dim, n.rank(x[0]))), scale, zero_point)


@aten("quantized::hardswish", "quantized::sigmoid", "quantized::leaky_relu")
def activation(
    n: Call, x: Output, output_scale: Any, output_zero_point: Any, negative_slope: Any = None
) -> Output:
    name = n.op.removeprefix("quantized::")
    result = n.also(name, x) if negative_slope is None else n.also(name, x, negative_slope)
    return _round_to_grid(n, result, _ends(n, x, output_scale, output_zero_point))


@aten("quantized::batch_norm1d", "quantized::batch_norm2d", "quantized::batch_norm3d")
def batch_norm(
    n: Call, x: Output, weight: Any, bias: Any, mean: Output, var: Output, eps: float, output_scale: Any,
    output_zero_point: Any,
) -> Output:  # fmt: skip
    result = n.also("batch_norm", x, weight, bias, mean, var, False, 0.1, eps)
    return _round_to_grid(n, result, _ends(n, x, output_scale, output_zero_point))
