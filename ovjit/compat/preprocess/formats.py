"""Enumerations of colour formats, padding and resizing, and the tensors of an image in each format."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import _Choice
from ovjit.api.tensors.layout import Layout
from ovjit.compat.preprocess.layouts import axes_of
from ovjit.errors import ModelError
from ovjit.graph.shapes import Dim
from ovjit.records import NamedTuple


class ColorFormat(_Choice):
    """Colour formats, with the arrangement of pixels in one or more tensors."""

    (
        UNDEFINED, NV12_SINGLE_PLANE, NV12_TWO_PLANES, I420_SINGLE_PLANE,
        I420_THREE_PLANES, RGB, BGR, GRAY, RGBX, BGRX,
    ) = range(10)  # fmt: skip


class PaddingMode(_Choice):
    """The values that padding adds around an image."""

    CONSTANT, REFLECT, SYMMETRIC = 0, 2, 3


class ResizeAlgorithm(_Choice):
    """Methods of interpolation for resizing."""

    RESIZE_LINEAR, RESIZE_CUBIC, RESIZE_NEAREST, RESIZE_BILINEAR_PILLOW, RESIZE_BICUBIC_PILLOW = range(5)


#: Of an image [n, h, w, c], one plane's shape.
Plane = Callable[[Dim, Dim, Dim, Dim], tuple[Dim, ...]]


class Format(NamedTuple):
    """`planes`: the shape of each tensor in the axis order n, h, w, c; `channels`: the length of the axis C,
    for a format that is any layout's; 0 leaves the shape alone; `layout`: a tensor's of which none is set."""

    label: str
    planes: tuple[Plane, ...] = ()
    channels: int = 0
    layout: str = "NHWC"


_WHOLE: Plane = lambda n, h, w, c: (n, h * 3 // 2, w, 1)  # noqa: E731
_LUMA: Plane = lambda n, h, w, c: (n, h, w, 1)  # noqa: E731
_QUARTER: Plane = lambda n, h, w, c: (n, h // 2, w // 2, 1)  # noqa: E731

FORMATS = {
    ColorFormat.UNDEFINED: Format("Unknown", layout=""),
    ColorFormat.NV12_SINGLE_PLANE: Format("NV12 (single plane)", (_WHOLE,)),
    ColorFormat.NV12_TWO_PLANES: Format(
        "NV12 (multi-plane)", (_LUMA, lambda n, h, w, c: (n, h // 2, w // 2, 2))
    ),
    ColorFormat.I420_SINGLE_PLANE: Format("I420 (single plane)", (_WHOLE,)),
    ColorFormat.I420_THREE_PLANES: Format("I420 (multi-plane)", (_LUMA, _QUARTER, _QUARTER)),
    ColorFormat.RGB: Format("RGB", channels=3),
    ColorFormat.BGR: Format("BGR", channels=3),
    ColorFormat.GRAY: Format("GRAY"),
    ColorFormat.RGBX: Format("RGBX", channels=4),
    ColorFormat.BGRX: Format("BGRX", channels=4),
}


def plane_count(color: ColorFormat) -> int:
    """The number of tensors (planes) of an image of this format."""
    return max(len(FORMATS[color].planes), 1)


def plane_shapes(
    color: ColorFormat, shape: tuple[Dim, ...] | None, layout: Layout
) -> list[tuple[Dim, ...] | None]:
    """The shapes of the tensors of an image whose pixels have `shape`. RuntimeError for YUV of another rank
    than 4, whose axes are n, h, w and c."""
    form = FORMATS[color]
    if shape is None:
        return [None] * plane_count(color)
    if form.planes:
        if len(shape) != 4:
            raise ModelError(f"an image in {form.label} has four dimensions, N H W C, not {shape}")
        n, h, w, c = shape
        return [plane(n, h, w, c) for plane in form.planes]
    if form.channels:
        if not layout.has_name("C"):
            raise ModelError(f"C dimension index is not defined: layout {layout.to_string()} of {form.label}")
        names = axes_of(layout, len(shape))
        return [tuple(form.channels if name == "C" else d for name, d in zip(names, shape, strict=True))]
    return [shape]
