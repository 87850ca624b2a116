"""Interpolate in its three versions: resizes data along some of its axes.

    Interpolate-1   data, sizes                        axes and an older set of modes are attributes
    Interpolate-4   data, sizes, scales[, axes]        `shape_calculation_mode` selects one of the two
    Interpolate-11  data, sizes or scales[, axes]      and Pillow's filters

The data is first padded with zeros (`pads_begin`, `pads_end`). Each axis is then resampled by its table
(`ovjit_ops.image.resampling`), the last axis first. Sums are f32 (f64 for f64). Integers are rounded at the
end; by Pillow's filters after each axis, as in OpenVINO's CPU device and Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.op import Bool, Float, Ints, TensorType, Word, find_op, op
from ovjit.graph.shapes import ANY, Dim, normalize_axis
from ovjit.graph.symbolic import sym_int
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.images import resized_images
from ovjit_ops.common.values import length, partial_sizes, real, round_to_type, shape_value
from ovjit_ops.elementwise.arithmetic import NUMBERS
from ovjit_ops.image import resampling
from ovjit_ops.image.resampling import axis_table, find_resizes, scale_extent, sizes_or_scales


def padding(pads: Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """`pads` with one entry per dimension; missing ones are 0. Raises ModelError for invalid pads."""
    check(len(pads) <= rank, f"{name} {list(pads)} has more than {rank} entries, one per dimension")
    check(all(p >= 0 for p in pads), f"{name} {list(pads)} should not be negative")
    return (*pads, *(0,) * (rank - len(pads)))


def _scales(x: TensorType) -> list[float] | None:
    check(x.dtype in ("f32", "f16", "bf16", "f64", "dynamic"), f"scales should be f32, not {x.dtype}")
    check(x.rank in (None, 0, 1), f"scales should be a list, not {x}")
    if x.value is None:
        return None
    values = [float(v) for v in np.asarray(x.value, np.float64).reshape(-1)]
    check(all(0 < v < np.inf for v in values), f"scales {values} should be positive")
    return values


def _infer(
    data: TensorType,
    sizes: TensorType | None,
    scales: TensorType | None,
    axes: TensorType | Sequence[int] | None,
    pads: tuple[Sequence[int], Sequence[int]],
) -> TensorType:
    check_type(data, NUMBERS)
    target_sizes = None if sizes is None else shape_value(sizes, "sizes")
    open_sizes = None if sizes is None else partial_sizes(sizes)
    factors = None if scales is None else _scales(scales)
    axis_list = shape_value(axes, "axes") if isinstance(axes, TensorType) else axes
    if data.shape is None:
        return TensorType(data.dtype, None)
    rank = len(data.shape)
    begin, end = (padding(p, rank, n) for p, n in zip(pads, ("pads_begin", "pads_end"), strict=True))
    shape: list[Dim] = [d + (b + e) for d, b, e in zip(data.shape, begin, end, strict=True)]
    if axes is None:
        axis_list = range(rank)
    if axis_list is None:
        return TensorType(data.dtype, (ANY,) * rank)
    dims = [normalize_axis(int(a), rank, "axes") for a in axis_list]
    check(len(set(dims)) == len(dims), f"axes {list(axis_list)} contain a dimension twice")
    which = sizes if scales is None else scales
    assert which is not None
    count = length(which)
    what = "sizes" if scales is None else "scales"
    check(
        count in (None, len(dims)),
        f"{what} should have {len(dims)} entries, one per axis, not {count}",
    )
    for i, axis in enumerate(dims):
        if target_sizes is not None:
            check(target_sizes[i] >= 0, f"sizes {target_sizes.tolist()} should not be negative")
            shape[axis] = sym_int(target_sizes[i])
        elif factors is not None:
            shape[axis] = scale_extent(shape[axis], factors[i])
        else:
            shape[axis] = ANY if open_sizes is None else open_sizes[i]
    return TensorType(data.dtype, shape)


def interpolate(
    data: np.ndarray,
    sizes: np.ndarray | None,
    scales: np.ndarray | None,
    axes: np.ndarray | Sequence[int] | None,
    attrs: dict[str, Any],
) -> np.ndarray:
    """The operation in NumPy. Exactly one of `sizes` and `scales` is given."""
    begin, end = (padding(attrs[n], data.ndim, n) for n in ("pads_begin", "pads_end"))
    if any(begin) or any(end):
        data = np.pad(data, list(zip(begin, end, strict=True)))
    changed = find_resizes(data.shape, sizes, scales, axes, attrs)
    tables = {axis: axis_table(one, attrs) for axis, one in changed.items()}
    if attrs["mode"] == "nearest" or not tables:
        for axis, table in tables.items():
            data = np.take(data, table.start, axis)
        return data
    x = real(data)
    for axis, table in sorted(tables.items(), reverse=True):
        x = resampling.resample(x, axis, table)
        if attrs["mode"].endswith("pillow"):
            x = real(round_to_type(x, data.dtype))
    return round_to_type(x, data.dtype)


def _version_1(rank: int, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of Interpolate-4 for those of an Interpolate-1.

    Raises ModelError for pads of axes that are not resized: type inference ignores them. A model may have
    them, as in OpenVINO, but it cannot be computed.
    """
    resized = {int(a) % max(rank, 1) for a in attrs["axes"]}
    for name in ("pads_begin", "pads_end"):
        fine = all(i in resized for i, pad in enumerate(attrs[name]) if pad)
        check(fine, f"{name} {list(attrs[name])} pads dimensions that are not in axes {attrs['axes']}")
    mode = attrs["mode"]
    align = "align_corners" if attrs["align_corners"] else "asymmetric"
    if mode == "linear" and rank == 4:
        mode = "linear_onnx"
    elif mode == "linear" and not attrs["align_corners"]:
        align = "half_pixel"
    return {
        "mode": mode,
        "shape_calculation_mode": "sizes",
        "coordinate_transformation_mode": align,
        "nearest_mode": "simple",
        "antialias": attrs["antialias"],
        "pads_begin": attrs["pads_begin"],
        "pads_end": attrs["pads_end"],
        "cube_coeff": -0.75,
    }


@op(
    "Interpolate",
    opset=1,
    types=NUMBERS,
    words={"mode": "nearest linear cubic"},
    images=resized_images("axes"),
)
class Interpolate1:
    """Data resized to `sizes` along `axes`, a set: sizes are those of the axes in ascending order."""

    def infer(
        data,
        sizes,
        *,
        axes: Ints,
        mode: Word,
        align_corners: Bool = True,
        antialias: Bool = False,
        pads_begin: Ints = (),
        pads_end: Ints = (),
    ):
        if data.shape is not None:  # pads do not change the shape: padded axes are resized
            padding(pads_begin, len(data.shape), "pads_begin")
            padding(pads_end, len(data.shape), "pads_end")
        return _infer(data, sizes, None, sorted(set(axes)), ((), ()))

    def ref(data, sizes, **attrs):
        return interpolate(data, sizes, None, sorted(set(attrs["axes"])), _version_1(data.ndim, attrs))

    def expand(w, node, inputs):
        """Interpolate-1(x, sizes) -> Interpolate-11(x, sizes, axes)"""
        data, sizes = inputs
        if data.shape is None:
            return None
        axes = w.b.constant(np.array(sorted(set(node.attrs["axes"])), np.int64))
        attrs = _version_1(len(data.shape), node.attrs)
        return w.b.instead(node, [data, sizes, axes], attrs, find_op("Interpolate", 11))


def _part(attrs):
    """The mode nearest moves elements without arithmetic."""
    return "carry" if attrs["mode"] == "nearest" else "keep"


@op(
    "Interpolate",
    opset=4,
    types=NUMBERS,
    lower=".cpu_resize:lower_interpolate",
    images=resized_images(3),
    part=_part,
    carried=1,
)
class Interpolate4:
    """Data resized along `axes` to sizes, or by scales."""

    words = {
        "mode": resampling.MODES[:4], "shape_calculation_mode": "sizes scales",
        "coordinate_transformation_mode": resampling.COORDINATES, "nearest_mode": resampling.NEAREST,
    }  # fmt: skip

    def infer(
        data,
        sizes,
        scales,
        axes=None,
        *,
        mode: Word,
        shape_calculation_mode: Word,
        pads_begin: Ints = (),
        pads_end: Ints = (),
        coordinate_transformation_mode: Word = "half_pixel",
        nearest_mode: Word = "round_prefer_floor",
        antialias: Bool = False,
        cube_coeff: Float = -0.75,
    ):
        by_sizes, by_scales = sizes_or_scales(locals(), sizes, scales)
        return _infer(data, by_sizes, by_scales, axes, (pads_begin, pads_end))

    def show(attrs, inputs):
        rank = inputs[0].rank
        return {} if rank is None else {n: padding(attrs[n], rank, n) for n in ("pads_begin", "pads_end")}

    def ref(data, sizes, scales, axes=None, **attrs):
        by_sizes, by_scales = sizes_or_scales(attrs, sizes, scales)
        return interpolate(data, by_sizes, by_scales, axes, attrs)

    def expand(w, node, inputs):
        """Interpolate(x, pads) -> Interpolate(Pad(x))"""
        data = inputs[0]
        begin, end = node.attrs["pads_begin"], node.attrs["pads_end"]
        if data.shape is None or not (any(begin) or any(end)):
            return None
        rank = len(data.shape)
        before, after = padding(begin, rank, "pads_begin"), padding(end, rank, "pads_end")
        padded = w("Pad", data, before, after, pad_mode="constant")
        return w.b.instead(node, [padded, *inputs[1:]], {**node.attrs, "pads_begin": (), "pads_end": ()})


@op(
    "Interpolate", opset=11, like=Interpolate4,
    images=resized_images(2),
)  # fmt: skip
class Interpolate11:
    """Interpolate-4 with one input for sizes or scales, and Pillow's filters."""

    words = {**Interpolate4.words, "mode": resampling.MODES}

    def infer(data, scales_or_sizes, axes=None, **attrs):
        by_sizes, by_scales = sizes_or_scales(attrs, scales_or_sizes, scales_or_sizes)
        return _infer(data, by_sizes, by_scales, axes, (attrs["pads_begin"], attrs["pads_end"]))

    def ref(data, scales_or_sizes, axes=None, **attrs):
        by_sizes, by_scales = sizes_or_scales(attrs, scales_or_sizes, scales_or_sizes)
        return interpolate(data, by_sizes, by_scales, axes, attrs)
