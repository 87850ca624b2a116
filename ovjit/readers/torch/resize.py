"""Images in other sizes, and sampled at places that are given."""

from __future__ import annotations

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
    if n.rank(x) != 4:
        raise UnsupportedError("grid_sampler of volumes")
    return n("GridSample", x, grid, mode=("bilinear", "nearest", "bicubic")[interpolation_mode],
             padding_mode=("zeros", "border", "reflection")[padding_mode],
             align_corners=bool(align_corners))  # fmt: skip


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
