"""Images in other sizes, and sampled at places that are given."""

from __future__ import annotations

from ovjit.readers.numerics.interpolation import elements_around, inside, nearness, sample, weighted_sums
from ovjit.readers.torch.rule_language import *

_MODES = {"nearest": "nearest", "linear": "linear_onnx", "bilinear": "linear_onnx",
          "trilinear": "linear_onnx", "bicubic": "cubic"}  # fmt: skip


@aten("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
      "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact1d",
      "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_upsample_bilinear2d_aa",
      "_upsample_bicubic2d_aa")  # fmt: skip
def upsample(
    n: Call, x: Output, output_size: Any = None, align_corners: bool = False, scale_factors: Any = None,
    scales: Any = None, scales_h: Any = None, scales_w: Any = None, scales_d: Any = None,
) -> Output:  # fmt: skip
    name = n.op.removeprefix("aten::")
    dims = int(next(c for c in name if c.isdigit()))
    mode = next(m for m in ("bicubic", "trilinear", "bilinear", "linear", "nearest") if m in name)
    factors_by_axis = {1: (scales,), 2: (scales_h, scales_w), 3: (scales_d, scales_h, scales_w)}[dims]
    factors = scale_factors if scale_factors is not None else factors_by_axis
    factors = None if factors is None or any(f is None for f in factors) else [float(f) for f in factors]
    if output_size is not None and not output_size:
        output_size = None
    attrs: dict[str, Any] = {"mode": _MODES[mode], "nearest_mode": "floor"}
    attrs["coordinate_transformation_mode"] = "align_corners" if align_corners else "half_pixel"
    if mode == "nearest":
        attrs["coordinate_transformation_mode"] = "half_pixel" if "exact" in name else "asymmetric"
        attrs["nearest_mode"] = "round_prefer_ceil" if "exact" in name else "floor"
    elif mode == "bicubic":
        attrs["coordinate_transformation_mode"] = "align_corners" if align_corners else "pytorch_half_pixel"
        attrs["cube_coeff"] = -0.75
        if not align_corners:
            attrs["coordinate_transformation_mode"] = "half_pixel"
    if name.endswith("_aa"):
        return _resize_antialiased(n, x, mode, output_size, factors, align_corners)
    return resize(n, x, output_size, factors, dims, attrs)


def resize(
    n: Call, x: Output, output_size: Any, factors: Sequence[float] | None, dims: int, attrs: dict[str, Any]
) -> Output:
    """Resize by scale factors if PyTorch uses them, as they determine the coordinates, else by sizes."""
    axes = list(range(2, 2 + dims))
    if factors is not None and attrs["mode"] == "nearest" and not all(map(_goes_by_division, factors)):
        exact = attrs["coordinate_transformation_mode"] == "half_pixel"
        for axis, factor in zip(axes, factors, strict=True):
            x = n("Gather", x, _nearest(n, n.size(x, axis), factor, exact), axis)
        return x
    kind, upcast = n.dtype(x), n.upcast(x) if n.is_real(x) else n.convert(x, "f32")
    if kind != "u8" or attrs["mode"] == "nearest":
        return n.convert(_interpolate(n, upcast, output_size, factors, axes, attrs), kind)
    for i in reversed(range(dims)):
        sizes = output_size and [output_size[k] if k == i else n.size(upcast, axes[k]) for k in range(dims)]
        axis_factors = factors and [factors[k] if k == i else 1.0 for k in range(dims)]
        upcast = _round_bytes(n, _interpolate(n, upcast, sizes, axis_factors, axes, attrs))
    return n.convert(upcast, kind)


def _interpolate(
    n: Call, x: Output, output_size: Any, factors: Sequence[float] | None, axes: list[int],
    attrs: dict[str, Any],
) -> Output:  # fmt: skip
    if factors is None:
        target = n.ints(list(output_size))
        return n("Interpolate", x, target, axes, shape_calculation_mode="sizes", **attrs)
    chosen = [_round_factor(f) for f in factors]
    scales = n.const([f for f, _ in chosen], "f32")
    out = n("Interpolate", x, scales, axes, shape_calculation_mode="scales", **attrs)
    for i, axis in enumerate(axes):
        if output_size is not None and isinstance(output_size[i], int):
            out = n.cut(out, axis, 0, output_size[i])  # factors tell the places alone then
        elif not chosen[i][1]:
            length = n.convert(_length(n, n.size(x, axis), factors[i]), "i64")
            out = n.cut(out, axis, 0, Number(length))
    return out


def _round_bytes(n: Call, out: Output) -> Output:
    """Round means of bytes half up and clamp them to 0 .. 255, as PyTorch does after each axis."""
    rounded = n("Floor", n("Add", out, n.like(out, 0.5)))
    return n("Clamp", rounded, min=0.0, max=255.0)


#: PyTorch computes lengths in f64, Interpolate in f32. Both are the same up to here, or lengths are cut.
_LENGTHS = np.arange(1, 4097)


def _length(n: Call, size: Any, factor: float) -> Output:
    """The length of `size` elements after resizing: a whole number in f64."""
    return n("Floor", n("Multiply", n.convert(n.index(size), "f64"), n.const(factor, "f64")))


def _round_factor(factor: float) -> tuple[float, bool]:
    """Round a factor to f32 so that no length becomes shorter. Also returns whether none becomes longer."""
    exact_lengths = np.floor(_LENGTHS * factor)
    rounded = np.float32(factor)
    for near in (rounded, np.nextafter(rounded, np.float32(np.inf))):
        result = np.floor(_LENGTHS.astype(np.float32) * near)
        if (result >= exact_lengths).all():
            break
    return float(near), bool((result <= exact_lengths).all())


def _goes_by_division(factor: float) -> bool:
    """Whether division by the factor, as Interpolate computes coordinates, selects the same nearest elements
    as multiplication by its reciprocal in f32, and lengths agree."""
    near, inverse = np.float32(factor), np.float32(1 / factor)
    positions = [_LENGTHS.astype(np.float32) - np.float32(v) for v in (1, 0.5)]
    return _round_factor(factor) == (float(near), True) and all(
        np.array_equal(np.floor(p * inverse), np.floor(p / near)) for p in positions
    )


def _nearest(n: Call, size: Any, factor: float, exact: bool) -> Output:
    """Indices of the nearest elements (`exact`), or of the next lower ones, i64."""
    count = n.convert(n.index(size), "f32")
    length = n.convert(_length(n, size, factor), "f32")
    positions = n("Range", n.const(0.0, "f32"), length, n.const(1.0, "f32"), output_type="f32")
    if exact:
        positions = n("Add", positions, n.const(0.5, "f32"))
    nearest = n("Floor", n("Multiply", positions, n.const(1 / factor, "f32")))
    return n.convert(n("Minimum", nearest, n("Subtract", count, n.const(1.0, "f32"))), "i64")


def _resize_antialiased(
    n: Call, x: Output, mode: str, output_size: Any, factors: Sequence[float] | None, align_corners: bool
) -> Output:
    """Resize with antialiasing. Interpolate derives its steps from the quotients of the lengths. For other
    steps, rows and columns are computed as weighted sums."""
    if factors is None and not align_corners:
        attrs = {"mode": f"{mode}_pillow", "antialias": True, "cube_coeff": -0.5}
        return resize(n, x, output_size, None, 2, attrs)
    kind, upcast = n.dtype(x), n.upcast(x) if n.is_real(x) else n.convert(x, "f32")
    weights, one = [], n.const(1.0, "f64")
    for i in range(2):
        size = n.size(x, 2 + i)
        count = n.convert(n.index(size), "f64")
        if output_size is not None:
            length = n.convert(n.index(output_size[i]), "f64")
        else:
            assert factors is not None
            length = _length(n, size, factors[i])
        if align_corners:
            gaps = n("Subtract", length, one)
            step = n("Divide", n("Subtract", count, one), n("Maximum", gaps, one))
            step = n("Multiply", step, n("Minimum", gaps, one))
        else:
            assert factors is not None
            step = n.const(1 / factors[i], "f64")
        weights.append(_smooth(n, mode, step, count, length))
    for axis in (3, 2):
        upcast = weighted_sums(n, upcast, axis, *weights[axis - 2])
        if kind == "u8":
            upcast = _round_bytes(n, upcast)
    return n.convert(upcast, kind)


def _smooth(n: Call, mode: str, step: Output, count: Output, length: Output) -> tuple[Output, Output]:
    """(indices i64, weights f64) of the elements around `length` positions that are `step` apart: a triangle,
    or Keys' cubic with -0.5, as wide as the step. Weights of a row sum to 1; those outside of `count`
    elements are 0."""
    half, one = n.const(0.5, "f64"), n.const(1.0, "f64")
    numbers = n("Range", n.const(0.0, "f64"), length, one, output_type="f64")
    positions = n("Subtract", n("Multiply", n("Add", numbers, half), step), half)
    support = n("Maximum", step, one)
    reach = n("Ceiling", n("Multiply", support, n.like(support, 2 if mode == "bicubic" else 1)))
    columns = elements_around(n, positions, reach)
    index, is_inside = inside(n, columns, count)
    gap = n("Abs", n("Divide", n("Subtract", columns, n.unsqueeze(positions, [1])), support))
    result = nearness(n, gap, -0.5 if mode == "bicubic" else None)
    result = n("Select", is_inside, result, n.like(result, 0))
    return index, n("Divide", result, n("ReduceSum", result, [1], keep_dims=True))


@aten("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "_grid_sampler_2d_cpu_fallback")
def grid_sampler(
    n: Call, x: Output, grid: Output, interpolation_mode: int = 0, padding_mode: int = 0,
    align_corners: bool = False,
) -> Output:  # fmt: skip
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    if n.rank(x) == 5:
        return sample(n, x, grid, mode == "nearest", padding, bool(align_corners))
    return n("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=bool(align_corners))


@aten("affine_grid_generator")
def affine_grid(n: Call, x: Output, size: Any, align_corners: bool = False) -> Output:
    """[x, y, 1] theta^T for the centers of pixels"""
    dims = len(size) - 2
    axes = []
    for i in range(dims):
        length = size[2 + i]
        count = n.tensor(Number(n.index(length)), n.dtype(x))
        indices = n.convert(n.arange(length), n.dtype(x))
        if align_corners:
            last = n("Maximum", n("Subtract", count, n.like(x, 1)), n.like(x, 1))
            result = n("Subtract", n("Divide", n("Multiply", indices, n.like(x, 2)), last), n.like(x, 1))
            alone = n("Equal", count, n.like(x, 1))
            result = n("Select", alone, n.like(x, 0), result)
        else:
            centers = n("Add", n("Multiply", indices, n.like(x, 2)), n.like(x, 1))
            result = n("Subtract", n("Divide", centers, count), n.like(x, 1))
        axes.append(n.reshape(result, [1] * i + [-1] + [1] * (dims - 1 - i)))
    spatial = list(size[2:])
    parts = [n.unsqueeze(n.expand(v, spatial), [dims]) for v in axes[::-1]]
    ones = n.fill(1, [*spatial, 1], n.dtype(x))
    base = n.to_shape(n("Concat", *parts, ones, axis=dims), [-1, dims + 1])
    out = n("MatMul", base, x, transpose_a=False, transpose_b=True)
    return n.to_shape(out, [size[0], *spatial, dims])
