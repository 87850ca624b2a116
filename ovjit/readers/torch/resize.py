"""Images in other sizes, and sampled at places that are given."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ovjit.api.model.node import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten
from ovjit.readers.torch.values import Number

_MODES = {
    "nearest": "nearest",
    "linear": "linear_onnx",
    "bilinear": "linear_onnx",
    "trilinear": "linear_onnx",
    "bicubic": "cubic",
}


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
    given = {1: (scales,), 2: (scales_h, scales_w), 3: (scales_d, scales_h, scales_w)}[dims]
    factors = scale_factors if scale_factors is not None else given
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
        return _pillow(n, x, mode, output_size, factors, align_corners)
    return sized(n, x, output_size, factors, dims, attrs)


def sized(
    n: Call, x: Output, output_size: Any, factors: Sequence[float] | None, dims: int, attrs: dict[str, Any]
) -> Output:
    """By factors where PyTorch goes by them: the places are then computed with them."""
    axes = list(range(2, 2 + dims))
    kind, wide = n.dtype(x), n.wide(x) if n.is_real(x) else n.convert(x, "f32")
    if factors is None:
        target = n.ints(list(output_size))
        out = n("Interpolate", wide, target, axes, shape_calculation_mode="sizes", **attrs)
    else:
        out = n(
            "Interpolate", wide, n.const(list(factors), "f32"), axes, shape_calculation_mode="scales", **attrs
        )
        for axis, size in zip(axes, output_size or (), strict=False):  # factors tell the places alone then
            out = n.cut(out, axis, 0, size) if isinstance(size, int) else out
    return (
        n("Convert", n("Round", out), destination_type=kind) if kind in ("u8", "i8") else n.convert(out, kind)
    )


def _pillow(
    n: Call, x: Output, mode: str, output_size: Any, factors: Sequence[float] | None, align_corners: bool
) -> Output:
    if align_corners:
        raise UnsupportedError("align_corners with antialias=True")
    attrs = {"mode": f"{mode}_pillow", "antialias": True, "cube_coeff": -0.5}
    return sized(n, x, output_size, factors, 2, attrs)


@aten("grid_sampler", "grid_sampler_2d", "_grid_sampler_2d_cpu_fallback")
def grid_sampler(
    n: Call, x: Output, grid: Output, interpolation_mode: int = 0, padding_mode: int = 0,
    align_corners: bool = False,
) -> Output:  # fmt: skip
    if n.rank(x) == 5:
        return _in_volume(n, x, grid, interpolation_mode, padding_mode, bool(align_corners))
    return n("GridSample", x, grid, mode=("bilinear", "nearest", "bicubic")[interpolation_mode],
             padding_mode=("zeros", "border", "reflection")[padding_mode],
             align_corners=bool(align_corners))  # fmt: skip


@aten("grid_sampler_3d")
def grid_sampler_3d(
    n: Call, x: Output, grid: Output, interpolation_mode: int = 0, padding_mode: int = 0,
    align_corners: bool = False,
) -> Output:  # fmt: skip
    return _in_volume(n, x, grid, interpolation_mode, padding_mode, bool(align_corners))


def _in_volume(n: Call, x: Output, grid: Output, mode: int, padding: int, align_corners: bool) -> Output:
    """Elements of [batch, channels, depth, height, width] at places [batch, ..., 3], x first: the nearest
    one, or the mean of 8 corners by their distances."""
    kind = n.dtype(x)
    sizes = [n.size(x, 4 - i) for i in range(3)]
    places = [
        _unnormalized(n, n("Gather", grid, n.const(i), 4), sizes[i], padding, align_corners) for i in range(3)
    ]
    wide = n.transpose(x, [0, 2, 3, 4, 1])
    if mode == 1:
        return n.transpose(_corner(n, wide, [n("Round", p) for p in places], sizes, padding), [0, 4, 1, 2, 3])
    lower = [n("Floor", p) for p in places]
    parts = [n("Subtract", p, low) for p, low in zip(places, lower, strict=True)]
    out = None
    for corner in itertools.product((0, 1), repeat=3):
        at = [n("Add", low, n.like(low, step)) for low, step in zip(lower, corner, strict=True)]
        rest = [n("Subtract", n.like(p, 1), p) for p in parts]
        shares = [p if step else q for p, q, step in zip(parts, rest, corner, strict=True)]
        share = n("Multiply", n("Multiply", shares[0], shares[1]), shares[2])
        made = n("Multiply", _corner(n, wide, at, sizes, padding), n.unsqueeze(n.convert(share, kind), [4]))
        out = made if out is None else n("Add", out, made)
    assert out is not None
    return n.transpose(out, [0, 4, 1, 2, 3])


def _unnormalized(n: Call, place: Output, size: Any, padding: int, align_corners: bool) -> Output:
    """A place from -1 to 1 as one among `size` elements, inside for the paddings border and reflection."""
    count = n.to_type(n.tensor(size), n.dtype(place))
    one, half = n.like(place, 1), n.like(place, 0.5)
    moved = n("Add", place, one)
    last = n("Subtract", count, one)
    if align_corners:
        at = n("Multiply", n("Multiply", moved, half), last)
    else:
        at = n("Subtract", n("Multiply", n("Multiply", moved, count), half), half)
    if padding == 2:  # there and back between the outer elements, or their outer edges
        low = n.like(place, 0.0 if align_corners else -0.5)
        span = n("Maximum", last, n.like(place, 1e-30)) if align_corners else count
        turned = n("FloorMod", n("Abs", n("Subtract", at, low)), n("Multiply", span, n.like(place, 2)))
        at = n("Add", n("Minimum", turned, n("Subtract", n("Multiply", span, n.like(place, 2)), turned)), low)
    if padding:
        at = n("Minimum", n("Maximum", at, n.like(place, 0)), last)
    return at


def _corner(n: Call, wide: Output, at: list[Output], sizes: list[Any], padding: int) -> Output:
    """Elements of [batch, depth, height, width, channels] at whole places; outside there are zeros."""
    inside, index = None, []
    for place, size in zip(at, sizes, strict=True):
        last = n("Subtract", n.to_type(n.tensor(size), n.dtype(place)), n.like(place, 1))
        within = n("Minimum", n("Maximum", place, n.like(place, 0)), last)
        hit = n("Equal", within, place)
        inside = hit if inside is None else n("LogicalAnd", inside, hit)
        index.append(n.unsqueeze(n.convert(within, "i64"), [4]))
    found = n("GatherND", wide, n("Concat", *index[::-1], axis=4), batch_dims=1)
    if padding:
        return found
    assert inside is not None
    return n("Select", n.unsqueeze(inside, [4]), found, n.like(found, 0))


@aten("affine_grid_generator")
def affine_grid(n: Call, x: Output, size: Any, align_corners: bool = False) -> Output:
    """[x, y, 1] theta^T for the centers of pixels"""
    dims = len(size) - 2
    axes = []
    for i in range(dims):
        length = size[2 + i]
        count = n.tensor(Number(n.index(length)), n.dtype(x))
        places = n.convert(n.arange(length), n.dtype(x))
        if align_corners:
            last = n("Maximum", n("Subtract", count, n.like(x, 1)), n.like(x, 1))
            made = n("Subtract", n("Divide", n("Multiply", places, n.like(x, 2)), last), n.like(x, 1))
            alone = n("Equal", count, n.like(x, 1))
            made = n("Select", alone, n.like(x, 0), made)
        else:
            made = n(
                "Subtract",
                n("Divide", n("Add", n("Multiply", places, n.like(x, 2)), n.like(x, 1)), count),
                n.like(x, 1),
            )
        axes.append(n.reshape(made, [1] * i + [-1] + [1] * (dims - 1 - i)))
    spatial = list(size[2:])
    parts = [n.unsqueeze(n.expand(v, spatial), [dims]) for v in axes[::-1]]
    ones = n.filled(1, [*spatial, 1], n.dtype(x))
    base = n.to_shape(n("Concat", *parts, ones, axis=dims), [-1, dims + 1])
    out = n("MatMul", base, x, transpose_a=False, transpose_b=True)
    return n.to_shape(out, [size[0], *spatial, dims])
