"""The steps before and after a model: what each adds to the graph, and how it is shown.

A step takes the outputs that hold the image (several for a format of several planes) and the `Context`, which
it brings up to date, and gives back new outputs. Nothing of the model is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.boundary import constant_node
from ovjit.api.model.node import Output, make_node
from ovjit.api.tensors.layout import Layout
from ovjit.compat.preprocess.formats import FORMATS, ColorFormat, PaddingMode, ResizeAlgorithm
from ovjit.compat.preprocess.layouts import check_order, find_change, of_other_sizes, permuted_layout
from ovjit.compat.preprocess.tidy import mark
from ovjit.errors import ModelError, no_such_form
from ovjit.graph import dtypes
from ovjit.graph.shapes import Dim, Interval
from ovjit.records import NamedTuple

YUV = {
    ColorFormat.NV12_SINGLE_PLANE: "NV12", ColorFormat.NV12_TWO_PLANES: "NV12",
    ColorFormat.I420_SINGLE_PLANE: "I420", ColorFormat.I420_THREE_PLANES: "I420",
}  # fmt: skip
_X = {ColorFormat.RGBX: ColorFormat.RGB, ColorFormat.BGRX: ColorFormat.BGR}
_RGB = (ColorFormat.RGB, ColorFormat.BGR)
#: Luminance of red, green and blue.
_LUMA = (0.299, 0.587, 0.114)
_MODES = {
    ResizeAlgorithm.RESIZE_LINEAR: "linear", ResizeAlgorithm.RESIZE_CUBIC: "cubic",
    ResizeAlgorithm.RESIZE_NEAREST: "nearest", ResizeAlgorithm.RESIZE_BILINEAR_PILLOW: "bilinear_pillow",
    ResizeAlgorithm.RESIZE_BICUBIC_PILLOW: "bicubic_pillow",
}  # fmt: skip
_PADS = {
    PaddingMode.REFLECT: "reflected from tensor",
    PaddingMode.SYMMETRIC: "symmetrically added from tensor",
}
_TO_RGB = "Suggesting to convert current image to RGB/BGR color format using"


class Context:
    """The state of a tensor between two steps, and its final type and layout."""

    def __init__(
        self, layout: Layout, color: ColorFormat, wanted_type: str, wanted_layout: Layout, shape: Any,
        is_output: bool = False,
    ):  # fmt: skip
        self.is_output = is_output  # whose layout may not get further axes
        self.layout, self.color = layout, color
        self.wanted_type = wanted_type  # "": any
        self.wanted_layout = wanted_layout
        self.model_shape: tuple[Dim, ...] | None = shape


class Step(NamedTuple):
    """`order` is the permutation of a layout that is converted by numbers, `layout` the one that is named."""

    label: str
    apply: Callable[[list[Output], Context], list[Output]]
    order: tuple[int, ...] | None = None
    layout: Layout | None = None


def constant(value: Any, dtype: str = "i64") -> Output:
    return constant_node(np.asarray(value), dtype).output(0)


def make(op: str, *inputs: Output, opset: int = 13, **attrs: Any) -> Output:
    return make_node(op, inputs, attrs, opset=opset).output(0)


def one(nodes: list[Output], message: str) -> Output:
    """The only tensor. RuntimeError with `message` if the image has several."""
    if len(nodes) != 1:
        raise ModelError(message)
    return nodes[0]


def _step_of_one(label: str, why: str, apply: Callable[[Output, Context], Output], **more: Any) -> Step:
    """A step on a single tensor. RuntimeError with the reason `why` for an image of several planes."""
    return Step(label, lambda nodes, context: [apply(one(nodes, why), context)], **more)


def known_dims(node: Output) -> tuple[Dim, ...]:
    shape = node._tensor._type.shape
    if shape is None:
        raise ModelError(f"the rank of {node!r} is dynamic: set the tensor's shape")
    return shape


def axis_of(layout: Layout, name: str, what: str, node: Output) -> int:
    """The index of the axis `name` of a layout; it may be negative if the rank is dynamic. RuntimeError if
    there is none."""
    if not layout.has_name(name):
        raise ModelError(f"Layout {layout.to_string()} doesn't have `{what}` dimension")
    index, shape = layout.get_index_by_name(name), node._tensor._type.shape
    return index + len(shape) if index < 0 and shape is not None else index


def _numbers(values: Sequence[Any]) -> str:
    return ",".join(f"{v:g}" for v in values)


# -- types and values ---------------------------------------------------------------------------------------


def convert_type(dtype: str) -> Step:
    """Convert the element type; "dynamic": to the model's before the model, to the user tensor's after it."""

    def apply(nodes: list[Output], context: Context) -> list[Output]:
        target = context.wanted_type if dtype == "dynamic" else dtype
        if target in ("", "dynamic"):
            raise ModelError(
                "Can't convert to dynamic/unknown element type, consider using of "
                "InputTensorInfo::set_element_type"
            )
        if any(n._tensor._type.dtype == "dynamic" for n in nodes):
            raise ModelError("Can't insert 'convert_element_type' for dynamic source tensor type.")
        return [
            n if n._tensor._type.dtype == target else make("Convert", n, destination_type=target)
            for n in nodes
        ]

    return Step(f"convert type ({dtype})", apply)


def arithmetic(name: str, values: Sequence[float]) -> Step:
    """Subtract the values for `mean`, divide by them for `scale`; one for all or one for each channel."""

    def apply(node: Output, context: Context) -> Output:
        dtype = _real_type(node, name.capitalize(), "scaling")
        array = _channelwise(values, node, context.layout)
        return mark(make("Subtract" if name == "mean" else "Divide", node, constant(array, dtype)))

    why = f"Can't apply {name} preprocessing for multi-plane input. {_TO_RGB} 'convert_color'"
    return _step_of_one(f"{name} ({_numbers(values)})" if len(values) else f"{name} ", why, apply)


def _real_type(node: Output, what: str, doing: str) -> str:
    """The node's element type. ModelError if it is no floating-point type."""
    dtype = node._tensor._type.dtype
    if not (dtype in dtypes.ELEMENT_TYPES and dtypes.ELEMENT_TYPES[dtype].is_real):
        raise ModelError(
            f"{what} preprocessing can be applied to 'float' inputs. Consider using of "
            f"'convert_element_type' before {doing}. Current type is: {dtype}"
        )
    return dtype


def _channelwise(values: Sequence[float], node: Output, layout: Layout) -> np.ndarray:
    array = np.array(values, np.float64)
    if len(values) == 1:
        return array
    axis = axis_of(layout, "C", "channels", node)
    shape = known_dims(node)
    if axis >= len(shape):
        raise ModelError(f"axis {axis}, of the channels, is beyond the rank of shape {list(shape)}")
    if isinstance(shape[axis], int) and shape[axis] != len(values):
        raise ModelError(
            f"Number of channels and mean/values size mismatch: Channels = {shape[axis]}, mean/scale = "
            f"{len(values)}, shape = {node.get_partial_shape()}, layout = {layout.to_string()}"
        )
    return array.reshape([len(values) if i == axis else 1 for i in range(len(shape))])


# -- geometry -----------------------------------------------------------------------------------------------


def resize(algorithm: ResizeAlgorithm, size: tuple[int, int] | None) -> Step:
    """Resize to `size` (height, width), or to the model's."""

    def apply(node: Output, context: Context) -> Output:
        layout = context.layout
        if not (layout.has_name("H") and layout.has_name("W")):
            raise ModelError(
                "Can't add resize for layout without W/H specified. Use 'set_layout' API to define layout "
                "of image data, like `NCHW`"
            )
        target = size or (_model_size(context, "H", "height"), _model_size(context, "W", "width"))
        axes = [axis_of(layout, "H", "height", node), axis_of(layout, "W", "width", node)]
        return make(
            "Interpolate", node, constant(target), constant(axes), opset=11, mode=_MODES[algorithm],
            shape_calculation_mode="sizes", coordinate_transformation_mode="half_pixel",
            nearest_mode="round_prefer_floor",
        )  # fmt: skip

    label = "resize to model width/height" if size is None else f"resize to ({size[0]}, {size[1]})"
    why = f"Can't resize multi-plane input. {_TO_RGB} 'PreProcessSteps::convert_color'"
    return _step_of_one(label, why, apply)


def _model_size(context: Context, axis: str, what: str) -> int:
    layout, shape = context.wanted_layout, context.model_shape
    if not layout.has_name(axis):
        raise ModelError(f"Layout {layout.to_string()} doesn't have `{what}` dimension")
    length = None if shape is None else shape[layout.get_index_by_name(axis)]
    if length is None or isinstance(length, Interval):
        raise ModelError(f"Dynamic resize: Model {what} dimension shall be static")
    return length


def crop(begin: Sequence[int], end: Sequence[int]) -> Step:
    """Crop every axis to `begin` up to, but not including, `end`; negative numbers count from the end."""

    def apply(node: Output, context: Context) -> Output:
        step = constant([1] * len(begin), "i32")
        axes = constant(list(range(len(begin))))
        return make("Slice", node, constant(begin, "i32"), constant(end, "i32"), step, axes)

    shown = (f"[ {', '.join(map(str, numbers))} ]" for numbers in (begin, end))
    why = f"Can't crop multi-plane input. {_TO_RGB} 'PreProcessSteps::convert_color'"
    return _step_of_one(f"Crop ({','.join(shown)})", why, apply)


def pad(begin: Sequence[int], end: Sequence[int], values: Sequence[float], mode: PaddingMode) -> Step:
    """Add the given numbers of elements before and after every axis; for floating-point elements."""

    def apply(node: Output, context: Context) -> Output:
        dtype = _real_type(node, "Pad", "padding")
        if len(values) != 1:
            raise ModelError(f"the pad value is one number; {len(values)} values are given")
        shape = node._tensor._type.shape or ()
        for axis, (length, before, after) in enumerate(zip(shape, begin, end, strict=False)):
            if isinstance(length, int) and length + before + after < 0:
                raise ModelError(
                    f"pad of {before} and {after} removes more than the {length} elements of axis "
                    f"{axis}: the result is not aligned with original parameter's shape"
                )
        value = constant(values[0], dtype)
        how = mode.name.lower()
        opset = 12 if min(*begin, *end, 0) < 0 else 1  # the version whose pads may be negative
        return make("Pad", node, constant(begin), constant(end), value, opset=opset, pad_mode=how)

    how = _PADS.get(mode, f"with ({_numbers(values)})")
    why = f"Can't pad multi-plane input. {_TO_RGB} 'PreProcessSteps::convert_color'"
    return _step_of_one(f"pad(begin ({_numbers(begin)}), end ({_numbers(end)}), {how})", why, apply)


# -- layouts and channels -----------------------------------------------------------------------------------


_ONE_LAYOUT = f"Can't convert layout for multi-plane input. {_TO_RGB} 'convert_color'"


def convert_layout(target: Layout) -> Step:
    """Transpose by the names of the axes; to the model's own layout if `target` is empty."""

    def apply(node: Output, context: Context) -> Output:
        new_layout = context.wanted_layout if target.empty else target
        if new_layout.empty:
            return node
        source, shape = context.layout, node._tensor._type.shape
        change = find_change(source, new_layout, None if shape is None else len(shape))
        context.layout = new_layout
        if change is None:
            return node
        if change.added:
            if context.is_output:
                raise of_other_sizes(source, new_layout)
            node = make("Unsqueeze", node, constant(list(range(change.added))))
        return make("Transpose", node, constant(change.order))

    return _step_of_one(f"convert layout {target.to_string()}", _ONE_LAYOUT, apply, layout=target)


def permute(order: Sequence[int]) -> Step:
    """Transpose by a permutation of the axes."""

    def apply(node: Output, context: Context) -> Output:
        check_order(order)
        moved = make("Transpose", node, constant(order, "u64"))
        context.layout = permuted_layout(context.layout, order)
        return moved

    label = f"convert layout ({','.join(map(str, order))})"
    return _step_of_one(label, _ONE_LAYOUT, apply, order=tuple(order))


def reverse_channels() -> Step:
    """Reverse the order of the channels (RGB to BGR)."""

    def apply(node: Output, context: Context) -> Output:
        return mark(_reverse_axis(node, axis_of(context.layout, "C", "channels", node)))

    why = "Internal error: can't reverse channels for multi-plane inputs"
    return _step_of_one("reverse channels", why, apply)


def _reverse_axis(node: Output, axis: int) -> Output:
    shape = node._tensor._type.shape
    length = None if shape is None else shape[axis]
    if isinstance(length, int):
        last = constant(length - 1)
    else:
        count = make("Gather", make("ShapeOf", node), constant(axis, "i32"), constant(0, "i32"), opset=8)
        last = make("Subtract", count, constant(1))
    indices = make("Range", last, constant(-1), constant(-1), opset=4, output_type="i32")
    return make("Gather", node, indices, constant([axis], "i32"), opset=8)


# -- colours ------------------------------------------------------------------------------------------------


def convert_color(target: ColorFormat) -> Step:
    """Convert the colour format. RuntimeError for a pair that has no conversion."""

    def apply(nodes: list[Output], context: Context) -> list[Output]:
        source = context.color
        if source == target:
            return nodes
        out = _convert_color(nodes, source, target, context.layout)
        if out is None:
            raise ModelError(
                f"Source color format '{FORMATS[source].label}' is not convertible to "
                f"'{FORMATS[target].label}'"
            )
        context.color = target
        return [out]

    return Step(f"convert color ({FORMATS[target].label})", apply)


def _convert_color(
    nodes: list[Output], source: ColorFormat, target: ColorFormat, layout: Layout
) -> Output | None:
    if source in YUV and target in _RGB:
        return make(f"{YUV[source]}to{target.name}", *nodes, opset=8)
    if source in YUV and target == ColorFormat.GRAY:
        return _luma_rows(nodes[0]) if len(nodes) == 1 else nodes[0]
    if source in _RGB and target in _RGB:
        return _reverse_axis(nodes[0], axis_of(layout, "C", "channels", nodes[0]))
    if source in _RGB and target == ColorFormat.GRAY:
        return _gray(nodes[0], _LUMA if source == ColorFormat.RGB else _LUMA[::-1], layout)
    if source in _X and target in _RGB:
        axis = axis_of(layout, "C", "channels", nodes[0])
        begin, end, step = (constant([number], "i32") for number in (0, -1, 1))
        plain = make("Slice", nodes[0], begin, end, step, constant([axis], "i32"))
        return plain if _X[source] == target else _reverse_axis(plain, axis)
    return None


def _luma_rows(node: Output) -> Output:
    """The rows of brightness, which are the first two thirds."""
    zero, one_, axis = constant([0], "i32"), constant([1], "i32"), constant([1], "i32")
    shape = node._tensor._type.shape
    height = None if shape is None else shape[1]
    if isinstance(height, int):
        end = constant([height * 2 // 3])
    else:
        rows = make("Gather", make("ShapeOf", node), constant([1], "i32"), constant(0, "i32"), opset=8)
        end = make("Divide", make("Multiply", rows, constant([2])), constant([3]))
    return make("Slice", node, zero, end, one_, axis)


def _gray(node: Output, weights: Sequence[float], layout: Layout) -> Output:
    """The weighted sum of the channels, by a convolution with one filter; integers are rounded to even."""
    rank = len(known_dims(node))
    dtype = node._tensor._type.dtype
    axis = axis_of(layout, "C", "channels", node)
    order = [*range(rank)]
    order.remove(axis)
    order.insert(1 if layout.has_name("N") else 0, axis)
    real = dtypes.ELEMENT_TYPES[dtype].is_real
    image = node if real else make("Convert", node, destination_type="f32")
    batched = layout.has_name("N")
    if order != [*range(rank)]:
        image = make("Transpose", image, constant(order))
    if not batched:
        image = make("Unsqueeze", image, constant([0]))
    spatial = rank - (2 if batched else 1)
    kernel = constant(np.array(weights, np.float64).reshape(1, 3, *[1] * spatial), "f32")
    none = [0] * spatial
    gray = make(
        "Convolution", image, kernel, opset=1, strides=[1] * spatial, dilations=[1] * spatial,
        pads_begin=none,
        pads_end=none,
    )  # fmt: skip
    if not batched:
        gray = make("Squeeze", gray, constant([0]), opset=1)
    if not real:
        gray = make("Convert", make("Round", gray, mode="half_to_even"), destination_type=dtype)
    if order != [*range(rank)]:
        gray = make("Transpose", gray, constant([order.index(i) for i in range(rank)]))
    return gray


def custom(function: Callable[[Output], Output]) -> Step:
    """Apply the user's function to the tensor."""

    def apply(node: Output, context: Context) -> Output:
        result = function(node)
        if result is None:
            raise no_such_form("a custom step returns an Output, not None")
        if not isinstance(result, Output):
            raise ModelError(
                f"Unable to cast Python instance of type {type(result)}: a custom step returns an Output, as "
                "node.output(0)"
            )
        return result

    why = f"Can't apply custom preprocessing step for multi-plane input. {_TO_RGB} 'convert_color'"
    return _step_of_one("custom", why, apply)


def show(nodes: list[Output], context: Context) -> str:
    """Describe the first tensor: its shape, layout, type and colour format."""
    node = nodes[0]
    parts = [str(node.get_partial_shape()), layout_text(context.layout), node._tensor._type.dtype]
    if context.color != ColorFormat.UNDEFINED:
        parts.append(FORMATS[context.color].label)
    return ", ".join(parts)


def layout_text(layout: Layout) -> str:
    return "<no layout>" if layout.empty else layout.to_string()
