"""Video pictures as RGB or BGR: NV12 and I420, in one plane or in several.

    NV12   Y [N, H, W, 1], UV [N, H/2, W/2, 2]                    or both in one [N, 3H/2, W, 1]
    I420   Y [N, H, W, 1], U [N, H/2, W/2, 1], V of the same      or all in one [N, 3H/2, W, 1]
    ->     [N, H, W, 3]

Colours are computed in f32 with the constants of BT.601, and clamped to 0 ... 255. Integers are rounded. The
conversion from RGB or BGR to NV12 averages the colours of 2 x 2 pixels. OpenVINO declares it, but cannot run
it on the CPU. Its constants are those that the conversion to RGB inverts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, TensorType, op
from ovjit.graph.shapes import Dim, Interval, compatible
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import real, round_to_type
from ovjit_ops.elementwise.arithmetic import REALS

TYPES = ["u8", *REALS]
#: red, green, blue = WEIGHTS @ (y - 16, u - 128, v - 128)
WEIGHTS = ((1.164, 0.0, 1.596), (1.164, -0.391, -0.813), (1.164, 2.018, 0.0))

#: y, u, v = FORWARD @ (red, green, blue) + OFFSETS
FORWARD = ((0.257, 0.504, 0.098), (-0.148, -0.291, 0.439), (0.439, -0.368, -0.071))
OFFSETS = (16.0, 128.0, 128.0)


def _channels(x: TensorType, channels: int, what: str) -> tuple[Dim, ...]:
    check_type(x, TYPES)
    return unify(**{what: (x, f"NHW{channels}")}).shape("NHW")


def _even(d: Dim, what: str) -> None:
    check(isinstance(d, Interval) or d % 2 == 0, f"the {what} {d} should be even")


def _infer(planes: Sequence[TensorType], interleaved: bool) -> TensorType:
    first = planes[0]
    n, height, width = _channels(first, 1, "the picture" if len(planes) == 1 else "Y")
    _even(width, "width")
    if len(planes) == 1:
        check(
            isinstance(height, Interval) or height % 3 == 0,
            f"Image height shall be divisible by 3. The height is {height}",
        )
        height = height * 2 // 3
    _even(height, "height")
    for plane in planes[1:]:
        check(plane.dtype == first.dtype, f"the planes {first} and {plane} should have the same type")
        m, h, w = _channels(plane, 2 if interleaved else 1, "a plane of colours")
        for mine, halved, factor in ((n, m, 1), (height, h, 2), (width, w, 2)):
            check(compatible(mine, halved * factor), f"the planes {first} and {plane} do not match in size")
    return TensorType(first.dtype, (n, height, width, 3))


def _split(planes: Sequence[np.ndarray], interleaved: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y [N, H, W], U and V [N, H/2, W/2]."""
    if len(planes) > 1:
        y = planes[0][..., 0]
        return (
            (y, *np.moveaxis(planes[1], 3, 0)) if interleaved else (y, planes[1][..., 0], planes[2][..., 0])
        )
    n, rows, width, _ = planes[0].shape
    height = rows * 2 // 3
    y, chroma = planes[0][:, :height, :, 0], planes[0][:, height:, :, 0]
    if interleaved:
        return (y, *np.moveaxis(chroma.reshape(n, height // 2, width // 2, 2), 3, 0))
    return (y, *np.moveaxis(chroma.reshape(n, 2, height // 2, width // 2), 1, 0))


def _convert(planes: Sequence[np.ndarray], interleaved: bool, blue_first: bool) -> np.ndarray:
    dtype = planes[0].dtype
    y, u, v = map(real, _split(planes, interleaved))
    u, v = (c.repeat(2, 1).repeat(2, 2) - 128 for c in (u, v))
    y = y - 16
    rows = WEIGHTS[::-1] if blue_first else WEIGHTS
    out = np.stack([y * y.dtype.type(a) + u * y.dtype.type(b) + v * y.dtype.type(c) for a, b, c in rows], 3)
    return round_to_type(np.clip(out, 0, 255), dtype)


def _clamp(w: Writer, colour: Value, dtype: str) -> Value:
    """A colour, clamped to 0 ... 255, as `dtype`."""
    colour = w("Clamp", colour, min=0.0, max=255.0)
    if dtype == "u8":
        colour = w("Round", colour, mode="half_to_even")
    return colour if dtype in FULL else w("Convert", colour, destination_type=dtype)


def _expand(interleaved: bool, blue_first: bool):
    def expand(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        """Slices and Interpolate of the planes, then elementwise arithmetic"""
        first = inputs[0]
        if any(v.shape is None or 0 in v.shape for v in inputs):
            return None
        n, rows, width, _ = w.shape(first)
        height = rows if len(inputs) > 1 else rows * 2 // 3
        small = (n, height // 2, width // 2)
        if len(inputs) > 1:
            y, chroma = first, list(inputs[1:])
        else:
            y = w.part(first, 0, height, 1)
            flat = w.part(first, height, rows, 1)
            if interleaved:
                chroma = [w("Reshape", flat, (*small, 2), special_zero=False)]
            else:
                both = w("Reshape", flat, (n, 2, *small[1:], 1), special_zero=False)
                parts = [w.part(both, i, i + 1, 1) for i in (0, 1)]
                chroma = [w("Reshape", p, (*small, 1), special_zero=False) for p in parts]
        if interleaved:
            chroma = [w("Slice", chroma[0], (i,), (i + 1,), (1,), (3,)) for i in (0, 1)]
        upsampled = [
            w(
                "Interpolate", c, (height, width), (1, 2), mode="nearest", shape_calculation_mode="sizes",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            )
            for c in chroma
        ]  # fmt: skip
        if first.dtype not in FULL:
            y, *upsampled = (w("Convert", c, destination_type="f32") for c in (y, *upsampled))
        y = w("Subtract", y, 16.0)
        u, v = (w("Subtract", c, 128.0) for c in upsampled)
        colours = []
        for a, bu, cv in WEIGHTS[::-1] if blue_first else WEIGHTS:
            colour = w("Multiply", y, a)
            for plane, factor in ((u, bu), (v, cv)):
                if factor:
                    colour = w("Add", colour, w("Multiply", plane, factor))
            colours.append(_clamp(w, colour, first.dtype))
        return [w("Concat", *colours, axis=3)]

    return expand


def _infer_nv12(arg, arg_uv=None):
    return _infer([arg] if arg_uv is None else [arg, arg_uv], True)


def _infer_i420(arg, arg_u=None, arg_v=None):
    check((arg_u is None) == (arg_v is None), "one plane or three planes are needed")
    return _infer([arg] if arg_u is None else [arg, arg_u, arg_v], False)


def _from_planes(kind: str, colours: str, blue_first: bool) -> None:
    interleaved = kind == "NV12"

    @op(
        f"{kind}to{colours}", opset=8, types=TYPES, ulp=64,
        expand=_expand(interleaved, blue_first),
    )  # fmt: skip
    class Picture:
        __doc__ = f"A picture in {kind} as [N, H, W, 3]."

        infer = _infer_nv12 if interleaved else _infer_i420

        def ref(*planes):
            return _convert(planes, interleaved, blue_first)


def _forward(blue_first: bool) -> np.ndarray:
    """The matrix [3, 3] from a pixel of three colours to (y, u, v) without offsets."""
    weights = np.array(FORWARD, np.float32).T
    return np.ascontiguousarray(weights[::-1]) if blue_first else weights


def _average(w: Writer, picture: Value, extents: Sequence[Any]) -> Value:
    """[N, H, W, C] -> [N, H/2, W/2, C]: means of 2 x 2 pixels. Sums of slices take half the time of
    AvgPool."""
    four = [w("Slice", picture, at, extents, (2, 2), (1, 2)) for at in np.ndindex(2, 2)]
    pairs = w("Add", four[0], four[1]), w("Add", four[2], four[3])
    return w("Multiply", w("Add", *pairs), 0.25)


def _to_nv12(name: str, blue_first: bool) -> None:
    @op(name, opset=17, types=TYPES, ulp=64)
    class ToNv12:
        """A picture [N, H, W, 3] as NV12, in one plane or in two."""

        def infer(arg, *, single_plane: Bool = True):
            n, height, width = _channels(arg, 3, "the picture")
            _even(height, "height")
            _even(width, "width")
            if single_plane:
                return TensorType(arg.dtype, (n, height * 3 // 2, width, 1))
            small = TensorType(arg.dtype, (n, height // 2, width // 2, 2))
            return TensorType(arg.dtype, (n, height, width, 1)), small

        def ref(arg, *, single_plane=True):
            n, height, width, _ = arg.shape
            floats = real(arg)
            yuv = floats @ _forward(blue_first).astype(floats.dtype) + np.array(OFFSETS, floats.dtype)
            small = yuv[..., 1:].reshape(n, height // 2, 2, width // 2, 2, 2).mean((2, 4), dtype=floats.dtype)
            planes = [round_to_type(np.clip(plane, 0, 255), arg.dtype) for plane in (yuv[..., :1], small)]
            if not single_plane:
                return tuple(planes)
            return np.concatenate([planes[0], planes[1].reshape(n, height // 2, width, 1)], 1)

        def expand(w, node, inputs):
            """A product with the weights; means of colours by sums of slices"""
            picture = inputs[0]
            if picture.shape is None or 0 in picture.shape:
                return None
            n, height, width, _ = w.shape(picture)
            floats = picture if picture.dtype in FULL else w("Convert", picture, destination_type="f32")
            kind = numpy_dtype(floats.dtype)
            yuv = w("MatMul", floats, _forward(blue_first).astype(kind))
            yuv = w("Add", yuv, np.array(OFFSETS, kind))
            first = w.part(yuv, 0, 1, 3)
            small = _average(w, w.part(yuv, 1, 3, 3), (height, width))
            planes = [_clamp(w, plane, picture.dtype) for plane in (first, small)]
            if not node.attrs["single_plane"]:
                return planes
            lines = w("Reshape", planes[1], (n, height // 2, width, 1), special_zero=False)
            return [w("Concat", planes[0], lines, axis=1)]


for _name, _blue_first in (("RGB", False), ("BGR", True)):
    _from_planes("NV12", _name, _blue_first)
    _from_planes("I420", _name, _blue_first)
    _to_nv12(f"{_name}toNV12", _blue_first)
