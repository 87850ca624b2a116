"""Convolutions: plain, grouped, and their transposes ("backprop data").

    Convolution                    data [N, C, *in]  filters [O, C, *k]            -> [N, O, *out]
    GroupConvolution               data [N, G*C, *in]  filters [G, O, C, *k]       -> [N, G*O, *out]
    ConvolutionBackpropData        data [N, C, *in]  filters [C, O, *k]            -> [N, O, *out]
    GroupConvolutionBackpropData   data [N, G*C, *in]  filters [G, C, O, *k]       -> [N, G*O, *out]

They have one to three spatial dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen.cpu.formats import float_types
from ovjit.errors import ModelError, check
from ovjit.graph import windows
from ovjit.graph.dtypes import all_finite, numpy_dtype
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.op import Ints, TensorType, WeightAxes, Word, find_op, op
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, compatible, is_static, text
from ovjit.rewrite.pattern import constant, operation, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer, not_negative
from ovjit_ops.common.images import images_of
from ovjit_ops.common.values import extents_of, given_rank, length, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Context


def spatial_rank(data: TensorType, filters: TensorType, extra: int) -> int | None:
    """The number of spatial dimensions; None if both ranks are unknown. `extra`: the number of dimensions of
    the filters that are not spatial.

    Raises ModelError if the element types or ranks do not match.
    """
    check(
        data.dtype == filters.dtype or "dynamic" in (data.dtype, filters.dtype),
        "Element types for data batch and filters do not match (data batch element type: "
        f"{data.dtype}, filters element type: {filters.dtype}).",
    )
    check(data.dtype in (*NUMBERS, "dynamic"), f"Element types must be numeric. Got: {data.dtype}")
    ranks = {r - e for r, e in ((data.rank, 2), (filters.rank, extra)) if r is not None}
    check(
        len(ranks) <= 1,
        f"Data batch and filters rank do not match (data batch shape: {text(data.shape)}, filters shape: "
        f"{text(filters.shape)}).",
    )
    if not ranks:
        return None
    rank = ranks.pop()
    check(1 <= rank <= 3, f"Expected a 3D, 4D or 5D tensor for the input. Got: {text(data.shape)}")
    return rank


def _channels_agree(channels: Dim, expected: Dim, groups: Dim = 1) -> None:
    if isinstance(expected, Interval) or isinstance(groups, Interval):
        return
    check(groups > 0, "the number of groups should be positive")
    fits = compatible(channels, expected * groups)
    says = "Input channels dimension of data batch is incompatible with filter groups or input channels."
    says = f"{says} {groups} groups of {expected}: " if groups != 1 else ""
    check(
        fits,
        f"{says}Data batch channel count ({channels}) does not match filter input channel count "
        f"({expected * groups}).",
    )


def _infer(data: TensorType, filters: TensorType, grouped: bool, attrs: dict[str, Any]) -> TensorType:
    extra = 3 if grouped else 2
    rank = spatial_rank(data, filters, extra)
    dtype = filters.dtype if data.dtype == "dynamic" else data.dtype
    if rank is None:
        return TensorType(dtype, None)
    window = windows.window_attributes(rank, attrs)
    n, c, *extents = data.shape or (ANY,) * (rank + 2)
    weights = filters.shape or (ANY,) * (rank + extra)
    _channels_agree(c, weights[extra - 1], weights[0] if grouped else 1)
    outputs = weights[0] * weights[1] if grouped else weights[0]
    _positive_kernel(weights[extra:])
    spatial = windows.output_extents(extents=extents, kernel=weights[extra:], **window)
    return TensorType(dtype, (n, outputs, *spatial))


def shown_window(attrs: dict[str, Any], inputs: Sequence[TensorType]) -> dict[str, Any]:
    """The window attributes as OpenVINO reports them. Empty lists get one default per spatial dimension, and
    `auto_pad` is resolved to padding."""
    data, filters = inputs[:2]
    if data.rank is None:
        return {}
    ones, zeros = (1,) * (data.rank - 2), (0,) * (data.rank - 2)
    usual = {"strides": ones, "dilations": ones}
    usual |= dict.fromkeys(("pads_begin", "pads_end", "output_padding"), zeros)
    filled = {name: usual[name] for name, value in attrs.items() if name in usual and not value}
    if data.shape is None or filters.shape is None:
        return filled
    extents = data.shape[2:]
    complete, kernel = {**attrs, **filled}, filters.shape[len(filters.shape) - len(extents) :]
    if "output_padding" in attrs:
        return filled | _shown_cut(complete, extents, kernel, inputs)
    return filled | windows.shown_pads(complete, extents, kernel)


def _shown_cut(
    attrs: dict[str, Any], extents: Sequence[Dim], kernel: Sequence[Dim], inputs: Sequence[TensorType]
) -> dict[str, Any]:
    """The reported padding of a transposed convolution; 0 along dimensions that are unknown."""
    kind = attrs["auto_pad"]
    if kind == "explicit":
        return {}
    sizes = inputs[2].value if len(inputs) > 2 and kind != "valid" else None
    begin, end = [], []
    for i, (extent, size) in enumerate(zip(extents, kernel, strict=True)):
        cut = 0
        if sizes is not None and isinstance(extent, int) and isinstance(size, int):
            full = (extent - 1) * attrs["strides"][i] + (size - 1) * attrs["dilations"][i] + 1
            cut = max(0, full - int(sizes.reshape(-1)[i]) + attrs["output_padding"][i])
        begin.append(cut - cut // 2 if kind == "same_upper" else cut // 2)
        end.append(cut - begin[-1])
    return {"pads_begin": tuple(begin), "pads_end": tuple(end)}


def _positive_kernel(kernel: Sequence[Dim]) -> None:
    check(
        all(isinstance(k, Interval) or k > 0 for k in kernel), f"the kernel {list(kernel)} should be positive"
    )


def convolve(x: np.ndarray, w: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """The sum over taps of w[G, O, C, tap] @ x[N, G, C, windows]; f16 and bf16 accumulate in f32."""
    dtype = x.dtype
    x, w = widen_floats(x), widen_floats(w)
    groups, outs, ins, *kernel = w.shape
    window = windows.window_attributes(len(kernel), attrs)
    strides, dilations = window["strides"], window["dilations"]
    extents = windows.output_extents(extents=x.shape[2:], kernel=kernel, **window)
    assert is_static(extents)
    begin, _ = windows.resolve_pads(extents=x.shape[2:], kernel=kernel, **window)
    padded = windows.pad_spatial(x, 0, begin, extents, kernel, strides, dilations)
    pixels = math.prod(extents)
    out = np.zeros((x.shape[0], groups, outs, pixels), dtype=x.dtype)
    for tap, slices in windows.taps(kernel, extents, strides, dilations):
        part = padded[(...,) + slices].reshape(x.shape[0], groups, ins, pixels)
        out += w[(...,) + tap] @ part
    return out.reshape(x.shape[0], groups * outs, *extents).astype(dtype)


_WINDOWS = operation("Convolution GroupConvolution")(...)


@rule(_WINDOWS)
def _remove_dilation(b: Builder, node: Node) -> Sequence[Value] | None:
    """Convolution -> the same with dilation 1 along axes with one tap. An unused dilation may exceed 64
    bits."""
    dilations, filters = node.attrs["dilations"], node.inputs[1].shape
    if node.lowered or filters is None:
        return None
    kernel = filters[len(filters) - len(dilations) :]
    needed = tuple(1 if k == 1 else d for k, d in zip(kernel, dilations, strict=True))
    if needed == tuple(dilations):
        return None
    return b.instead(node, node.inputs, {**node.attrs, "dilations": needed})


@rule(_WINDOWS)
def of_taps_that_meet_data(b: Builder, node: Node) -> Sequence[Value] | None:
    """Convolution -> the same without outer taps that read only padding; the padding is reduced accordingly

    Windows that are larger than the image, by their size or dilation, have many such taps.
    """
    inputs = node.inputs
    if node.lowered or inputs[1].stored_array is None:
        return None
    data, shape = inputs[0].shape, inputs[1].shape
    if not is_static(shape) or data is None or not is_static(data[2:]):
        return None
    extra = 3 if node.op.name == "GroupConvolution" else 2
    extents, outs = data[2:], node.output.shape[2:]
    if not is_static(outs) or 0 in (*extents, *outs, *shape):
        return None
    window = windows.window_attributes(len(extents), node.attrs)
    begins, _ = windows.resolve_pads(extents=extents, kernel=shape[extra:], **window)
    slices, begin, end = [], [], []
    sizes = (extents, outs, shape[extra:], window["strides"], window["dilations"], begins)
    for extent, out, kernel, stride, dilation, pad in zip(*sizes, strict=True):
        before, last = windows.taps_that_meet(extent, out, kernel, stride, dilation, pad)
        reach = (out - 1) * stride
        # The window must not become so short that a further output would fit.
        last = min(kernel - 1, max(last, -(-(extent + pad - reach - stride) // dilation)))
        slices.append(slice(before, last + 1))
        begin.append(pad - before * dilation)
        end.append(max(0, reach + last * dilation + 1 - extent - pad))
    if all(s == slice(0, k) for s, k in zip(slices, shape[extra:], strict=True)):
        return None
    filters = inputs[1].constant
    if filters is None or not all_finite(filters):  # infinity times padding is NaN
        return None
    fewer = filters[(slice(None),) * extra + tuple(slices)]
    window |= {"pads_begin": tuple(begin), "pads_end": tuple(end), "auto_pad": "explicit"}
    arguments = [inputs[0], b.constant(np.ascontiguousarray(fewer))]
    return b.instead(node, arguments, {**node.attrs, **window})


def _same_along_axes(
    rank: int, strides: int = 1, dilations: int = 1, pads: tuple[int, int] = (0, 0), **more: Any
) -> dict:
    """The attributes of a sample whose windows are the same along all axes."""
    return {
        "strides": (strides,) * rank,
        "dilations": (dilations,) * rank,
        "pads_begin": (pads[0],) * rank,
        "pads_end": (pads[1],) * rank,
        **more,
    }


_CASES = [
    ((1, 3, 9), (5, 3, 3), _same_along_axes(1, pads=(1, 1))),
    ((2, 7, 8, 9), (17, 7, 1, 1), _same_along_axes(2)),
    ((1, 16, 7, 7), (33, 16, 3, 3), _same_along_axes(2, pads=(1, 1))),
    ((1, 15, 15, 16), (8, 15, 3, 5), _same_along_axes(2, 2, pads=(0, 2))),
    ((2, 3, 17, 16), (16, 3, 7, 7), _same_along_axes(2, 2, pads=(3, 3))),
    ((1, 4, 11, 13), (6, 4, 3, 2), _same_along_axes(2, 1, 2, pads=(2, 1))),
    ((1, 4, 11, 13), (6, 4, 3, 2), _same_along_axes(2, 3, auto_pad="same_upper")),
    ((1, 4, 11, 13), (6, 4, 4, 2), _same_along_axes(2, 2, auto_pad="same_lower")),
    ((1, 4, 11, 13), (6, 4, 4, 2), _same_along_axes(2, 2, pads=(1, 1), auto_pad="valid")),
    ((1, 4, 5, 6, 7), (3, 4, 3, 2, 3), _same_along_axes(3, 1, pads=(1, 0))),
    ((0, 3, 5, 5), (2, 3, 3, 3), _same_along_axes(2)),
    ((2, 17, 5, 7, 6), (33, 17, 3, 3, 3), _same_along_axes(3, 2, pads=(1, 1))),
    ((1, 3, 6, 6, 9), (5, 3, 2, 3, 2), _same_along_axes(3, 1, 2, pads=(1, 2))),
]
_GROUP_CASES = [
    ((1, 16, 8, 9), (16, 1, 1, 3, 3), _same_along_axes(2, pads=(1, 1))),
    ((2, 17, 9, 7), (17, 1, 1, 3, 3), _same_along_axes(2, 2, pads=(1, 1))),
    ((1, 33, 9, 9), (33, 1, 1, 5, 5), _same_along_axes(2, 1, pads=(2, 2))),
    ((1, 6, 7, 8), (3, 4, 2, 3, 3), _same_along_axes(2, 1, 2, pads=(2, 2))),
    ((1, 8, 7, 8), (2, 16, 4, 1, 1), _same_along_axes(2)),
    ((1, 4, 9), (4, 2, 1, 3), _same_along_axes(1, auto_pad="same_upper")),
    ((1, 4, 5, 6, 7), (2, 3, 2, 3, 3, 3), _same_along_axes(3, pads=(1, 1))),
    ((2, 16, 5, 6, 7), (16, 1, 1, 3, 3, 3), _same_along_axes(3, 2, pads=(1, 1))),
]
_TRANSPOSED_CASES = [
    ((1, 3, 5, 6), (3, 4, 3, 3), _same_along_axes(2, 2, pads=(1, 1), output_padding=(1, 1))),
    ((1, 3, 5, 6), (3, 17, 2, 2), _same_along_axes(2, 2)),
    ((2, 3, 5, 6), (3, 4, 3, 4), _same_along_axes(2, 1, 2, pads=(1, 0))),
    ((1, 2, 5, 6), (2, 4, 3, 3), [10, 12], _same_along_axes(2, 2, auto_pad="same_upper")),
    ((1, 2, 5, 6), (2, 4, 3, 3), [10, 12], _same_along_axes(2, 2, auto_pad="same_lower")),
    ((1, 2, 7), (2, 3, 4), _same_along_axes(1, 3, pads=(1, 1))),
    ((1, 2, 3, 4, 3), (2, 3, 3, 2, 3), _same_along_axes(3, 2, pads=(1, 1))),
    ((1, 2, 3, 4, 3), (2, 3, 3, 3, 3), _same_along_axes(3, 2, pads=(1, 1))),
]


@op(
    "Convolution", opset=1, types=NUMBERS, epilogue=True, native=float_types, multiplied=2,
    rules=[_remove_dilation, of_taps_that_meet_data], rules_for=["Convolution", "GroupConvolution"],
    images=images_of(0), words={"auto_pad": windows.AUTO_PADS}, weight_axes=WeightAxes((1,), (0,)),
)  # fmt: skip
class Convolution:
    """out[n, o, p] = sum over c, taps i of data[n, c, stride * p + dilation * i - pad] * filters[o, c, i]"""

    def infer(
        data,
        filters,
        *,
        strides: Ints = (),
        pads_begin: Ints = (),
        pads_end: Ints = (),
        dilations: Ints = (),
        auto_pad: Word = "explicit",
    ):
        return _infer(data, filters, False, locals())

    show = shown_window

    def ref(data, filters, **attrs):
        return convolve(data, filters[None], attrs)

    def lower(group):
        from ovjit_ops.convolution.cpu_choice import lower_convolution

        return lower_convolution(group)

    def expand(w, node, inputs):
        """Convolution in three dimensions -> the sum of 2-D convolutions of slices, one per plane of the
        window. Convolution with few outputs -> the sum of the columns of one with more outputs.
        GroupConvolution with one input and several outputs per group -> a depthwise one of repeated channels.
        With several inputs and one output -> a depthwise one, and the sum of each group's channels.

        The first is for 3-D convolutions that the tile does not support: groups, and dilation along the last
        dimension. On tensor cores of GPUs it is one 2-D convolution of all slices, which are its channels.
        The second is for outputs that leave vector lanes empty, if those of several columns fit.
        """
        from ovjit_ops.convolution.cpu_depthwise import is_depthwise

        data, filters = inputs
        context = w.b.context
        if _leaves_lanes(node, context):
            return [_sum_of_columns(w, node, *inputs)]
        if _repeats_channels(node, context.target) and not is_depthwise(node, context.target):
            groups, outs, _, *kernel = filters.shape
            data = w("Gather", data, np.repeat(np.arange(groups), outs), np.array(1), batch_dims=0)
            filters = w("Reshape", filters, (groups * outs, 1, 1, *kernel), special_zero=False)
            return [w("GroupConvolution", data, filters, **node.attrs)]
        if _sums_channels(node, context.target):
            groups, _, channels, *kernel = filters.shape
            filters = w("Reshape", filters, (groups * channels, 1, 1, *kernel), special_zero=False)
            products = w("GroupConvolution", data, filters, **node.attrs)
            batch, _, *extents = node.output.shape
            products = w("Reshape", products, (batch, groups, channels, *extents), special_zero=False)
            return [w("ReduceSum", products, np.array([2]), keep_dims=False)]
        grouped = node.op.name == "GroupConvolution"
        if not is_static(data.shape) or not is_static(filters.shape) or len(data.shape) != 5:
            return None
        window, shape = windows.window_attributes(3, node.attrs), node.output.shape
        types = None
        if node.lowered and data.dtype == "u8":  # sums of bytes are i32
            types = [TensorType("i32", (data.shape[0] * shape[2], shape[1], *shape[3:]))]
        elif data.dtype not in ("f32", "f16", "bf16"):
            return None  # other types are computed directly, in any rank
        stacks = _has_tensor_cores(context) and not grouped and not node.lowered
        adjacent = window["dilations"][2] == 1 and not stacks
        direct = is_depthwise(node, context.target) if grouped else adjacent
        if direct or 0 in (*data.shape, *shape, *filters.shape):
            return None
        return [_sum_of_planes(w, node, inputs, window, types, stacks)]

    samples = cases(*_CASES, domain=(-2, 2))


def _sum_of_planes(
    w: Writer, node: Node, inputs: Sequence[Value], window: Any, types: list[TensorType] | None, stacks: bool
) -> Value:
    """A 3-D convolution as a sum of 2-D ones, one for each plane of the window. `types`: those of their
    results, if they are not the inferred ones. `stacks`: one 2-D convolution instead, whose channels are
    those of all planes."""
    data, filters = inputs
    extra = 3 if node.op.name == "GroupConvolution" else 2
    kernel, shape = filters.shape[extra:], node.output.shape
    begin, _ = windows.resolve_pads(extents=data.shape[2:], kernel=kernel, **window)
    n, c, depth, height, width = data.shape
    stride, spread = window["strides"][0], window["dilations"][0]
    reach = (shape[2] - 1) * stride + (kernel[0] - 1) * spread + 1
    x = w("Transpose", data, (0, 2, 1, 3, 4))
    missing = max(0, reach - depth - begin[0])
    if begin[0] or missing:
        x = w("Pad", x, (0, begin[0], 0, 0, 0), (0, missing, 0, 0, 0), pad_mode="constant")
    parts, planes = [], []
    for k in range(kernel[0]):
        first = k * spread
        part = w("Slice", x, (first,), (first + (shape[2] - 1) * stride + 1,), (stride,), (1,))
        parts.append(w("Reshape", part, (n * shape[2], c, height, width), special_zero=False))
        planes.append(w("Squeeze", w.part(filters, k, k + 1, extra), (extra,)))
    if stacks and len(parts) > 1:
        parts, planes = ([w("Concat", *values, axis=1)] for values in (parts, planes))
    flat = {k: window[k][1:] for k in ("strides", "dilations", "pads_begin", "pads_end")}
    attrs = {"auto_pad": window["auto_pad"], **flat}
    options: Any = {"types": types, "lowered": types is not None, "origins": node.origins}
    total: Value | None = None
    for k, pair in enumerate(zip(parts, planes, strict=True)):
        term = w.b.add(node.op, pair, attrs, name=f"{node.name}/{k}", **options).output
        total = term if total is None else w("Add", term, total)
    assert total is not None
    split = w("Reshape", total, (n, shape[2], shape[1], *shape[3:]), special_zero=False)
    return w("Transpose", split, (0, 2, 1, 3, 4))


def _has_tensor_cores(context: Context) -> bool:
    """Whether convolutions are products on tensor cores: of 16 bits, on GPUs."""
    return context.target.is_gpu and context.options.precision != "f32"


#: Products of a column from which on two thirds of the vectors are few enough to pay for adding the columns.
_DEEP = 24
#: Sums of an image, as f32, that the second-level cache keeps.
_CACHED_SUMS = 1 << 20


def _leaves_lanes(node: Node, context: Context) -> bool:
    """Whether an f32 convolution has so few outputs that computing all columns of its window as outputs takes
    fewer vectors. The sums must be long enough to pay for adding the columns."""
    data, filters = node.inputs
    if node.op.name != "Convolution" or node.lowered or data.dtype != "f32" or filters.stored_array is None:
        return False
    if context.options.precision != "f32":  # bf16 would round the partial sums
        return False
    if data.shape is None or filters.shape is None:
        return False
    outs, channels, *kernel = filters.shape
    sizes, lanes = (outs, channels, *kernel), context.target.lanes
    if not is_static(sizes) or 0 in (*sizes, data.shape[-1], node.output.shape[-1]):
        return False
    if outs >= lanes or (node.attrs["strides"] or (1,))[-1] != 1:
        return False
    if node.attrs["auto_pad"].startswith("same") and not is_static(data.shape[2:]):
        return False
    deep, vectors, across = channels * math.prod(kernel[:-1]), -(-outs * kernel[-1] // lanes), kernel[-1]
    pixels = math.prod(node.output.shape[2:]) if is_static(node.output.shape) else 0
    if pixels * outs * across > _CACHED_SUMS and deep * (across - vectors) < 3 * outs * across:
        return False  # the sums go through memory, which takes longer than the empty lanes
    if deep >= _DEEP:
        return 3 * vectors <= 2 * across
    return deep >= lanes // 2 and 2 * vectors <= across


def _repeats_channels(node: Node, target: Target) -> bool:
    """Whether an f32 convolution has several outputs for each group of one channel, but few. A tile computes
    one group at a time, so most of its vectors would be empty."""
    filters = node.inputs[1]
    if not _has_real_groups(node):
        return False
    (groups, outs, channels), lanes = filters.shape[:3], target.lanes
    # with a stride, the copy of repeated channels for lanes / 4 outputs takes longer than the empty lanes
    narrow = 1 < outs < lanes // 4 + (set(node.attrs["strides"]) <= {1})
    return channels == 1 and narrow and 2 * -(-groups * outs // lanes) <= groups


def _sums_channels(node: Node, target: Target) -> bool:
    """Whether an f32 convolution of static shape has a single output for each group of few channels."""
    if target.is_gpu or not _has_real_groups(node) or not is_static(node.output.shape):
        return False
    groups, outs, channels = node.inputs[1].shape[:3]
    return groups > 1 == outs and 1 < channels <= target.lanes // 2


def _has_real_groups(node: Node) -> bool:
    """Whether a convolution of f32 has groups of constant filters."""
    data, filters = node.inputs
    if node.op.name != "GroupConvolution" or node.lowered or data.dtype != "f32":
        return False
    return filters.stored_array is not None and is_static(filters.shape)


def _sum_of_columns(w: Any, node: Node, data: Value, filters: Value) -> Value:
    """out[n, o, p, x] = sum over j of sums[n, j * outs + o, p, x + j * dilation]"""
    outs, channels, *kernel = filters.shape
    rank, last = len(kernel), len(kernel) + 1
    window = windows.window_attributes(rank, node.attrs)
    if window["auto_pad"].startswith("same"):
        begin, end = windows.resolve_pads(extents=data.shape[2:], kernel=kernel, **window)
        window |= {"pads_begin": begin, "pads_end": end, "auto_pad": "explicit"}
    stacked = w("Transpose", filters, (last, *range(last)))
    shape = (kernel[-1] * outs, channels, *kernel[:-1], 1)
    stacked = w("Reshape", stacked, shape, special_zero=False)
    sums = w("Convolution", data, stacked, **window)
    reach, total = (kernel[-1] - 1) * window["dilations"][-1], None
    for j in range(kernel[-1]):
        first = j * window["dilations"][-1]
        stop = first - reach or np.iinfo(np.int64).max
        part = w("Slice", sums, (j * outs, first), ((j + 1) * outs, stop), (1, 1), (1, last))
        total = part if total is None else w("Add", total, part)
    assert total is not None
    return total


@op("GroupConvolution", opset=1, like=Convolution, rules=[], rules_for=[])
class GroupConvolution:
    """Convolution of each group of channels with its own filters."""

    weight_axes = WeightAxes((0, 2), (0, 1))

    def infer(data, filters, **attrs):
        return _infer(data, filters, True, attrs)

    def ref(data, filters, **attrs):
        return convolve(data, filters, attrs)

    samples = cases(*_GROUP_CASES, domain=(-2, 2))


def _infer_transposed(
    data: TensorType,
    filters: TensorType,
    output_shape: TensorType | None,
    grouped: bool,
    attrs: dict[str, Any],
) -> TensorType:
    extra = 3 if grouped else 2
    rank = spatial_rank(data, filters, extra)
    dtype = filters.dtype if data.dtype == "dynamic" else data.dtype
    if rank is None and output_shape is not None and isinstance(given_rank(output_shape), int):
        rank = given_rank(output_shape)
    if rank is None:
        return TensorType(dtype, None)
    window = windows.window_attributes(rank, attrs)
    more = windows.full_attribute(attrs["output_padding"], rank, "output_padding", 0, 0)
    n, c, *extents = data.shape or (ANY,) * (rank + 2)
    weights = filters.shape or (ANY,) * (rank + extra)
    kernel = weights[extra:]
    _channels_agree(c, weights[extra - 2], weights[0] if grouped else 1)
    _positive_kernel(kernel)
    outputs = weights[0] * weights[2] if grouped else weights[1]
    spatial: list[Dim] = []
    if output_shape is not None:
        says = "Element type for output shape should be of integer type (output_shape element type: {type})."
        sizes = extents_of(output_shape, "output_shape", says)
        check(
            length(output_shape) in (None, rank),
            f"Output shape should be defined for all and only spatial dimensions. There are {rank}",
        )
        spatial = [ANY] * rank if sizes is None else sizes
    else:
        explicit = window["auto_pad"] == "explicit"
        for i in range(rank):
            cut = window["pads_begin"][i] + window["pads_end"][i] if explicit else 0
            full = (
                (extents[i] - 1) * window["strides"][i]
                + (kernel[i] - 1) * window["dilations"][i]
                + 1
                + more[i]
            )
            check(
                isinstance(full, Interval) or full >= cut,
                f"the padding leaves no element of spatial dimension {i}",
            )
            spatial.append(full - cut)
    return TensorType(dtype, (n, outputs, *spatial))


def convolve_transposed(
    x: np.ndarray, w: np.ndarray, output_shape: np.ndarray | None, attrs: dict[str, Any]
) -> np.ndarray:
    """Each input pixel adds w[G, C, O, taps] to the output, which is then cropped to its size."""
    dtype = x.dtype
    x, w = widen_floats(x), widen_floats(w)
    groups, ins, outs, *kernel = w.shape
    if x.shape[1] != groups * ins:
        raise ModelError(f"the data has {x.shape[1]} channels, but the filters need {groups * ins}")
    extents = x.shape[2:]
    window = windows.window_attributes(len(kernel), attrs)
    strides, dilations = window["strides"], window["dilations"]
    requested = None if output_shape is None else [int(v) for v in output_shape.reshape(-1)]
    begin, sizes = windows.transposed_pads(extents, kernel, requested, attrs)
    full = [
        max((e - 1) * s + (k - 1) * d + 1, b + o)
        for e, k, s, d, b, o in zip(extents, kernel, strides, dilations, begin, sizes, strict=True)
    ]
    out = np.zeros((x.shape[0], groups * outs, *full), dtype=x.dtype)
    flat = x.reshape(x.shape[0], groups, ins, math.prod(extents))
    if flat.size:
        for tap, slices in windows.taps(kernel, extents, strides, dilations):
            part = np.swapaxes(w[(...,) + tap], 1, 2) @ flat
            out[(...,) + slices] += part.reshape(x.shape[0], groups * outs, *extents)
    cut = tuple(slice(b, b + o) for b, o in zip(begin, sizes, strict=True))
    return np.ascontiguousarray(out[(...,) + cut]).astype(dtype)


@rule(operation("ConvolutionBackpropData GroupConvolutionBackpropData")(...))
def _transposed_by_ones(b: Builder, node: Node) -> Sequence[Value] | None:
    """ConvolutionBackpropData(x, filters, strides=1) -> Convolution(x, flipped filters)

    The padding is (kernel - 1) * dilation, minus the cropped part. The result can use the lowerings for few
    outputs, few channels, or Winograd.
    """
    inputs, filters = node.inputs, node.inputs[1].constant
    if node.lowered or inputs[0].shape is None:
        return None
    if filters is None:
        return None
    extra = 3 if node.op.name.startswith("Group") else 2
    kernel, extents, outs = filters.shape[extra:], inputs[0].shape[2:], node.output.shape[2:]
    window = windows.window_attributes(len(kernel), node.attrs)
    if set(window["strides"]) != {1} or not filters.size or not all_finite(filters):
        return None  # infinity times padding is NaN
    reach = [(k - 1) * d for k, d in zip(kernel, window["dilations"], strict=True)]
    if 0 in outs:
        return None  # a convolution has at least one window
    if is_static((*extents, *outs)):
        requested = outs if len(inputs) > 2 else None
        cut, _ = windows.transposed_pads(extents, kernel, requested, node.attrs)
        more = [o - x for o, x in zip(outs, extents, strict=True)]
    elif len(inputs) == 2 and window["auto_pad"] == "explicit":
        cut, output_padding = window["pads_begin"], node.attrs["output_padding"] or (0,) * len(kernel)
        ends = zip(reach, cut, window["pads_end"], output_padding, strict=True)
        more = [r - first - last + p for r, first, last, p in ends]
        if min(more) < 0:
            return None  # of small images nothing may be left
    else:
        return None
    begin = [r - c for r, c in zip(reach, cut, strict=True)]
    end = [m + r - x for m, r, x in zip(more, reach, begin, strict=True)]
    if min(*begin, *end) < 0:
        return None
    flipped = np.flip(filters.swapaxes(extra - 2, extra - 1), tuple(range(extra, filters.ndim)))
    attrs = {**window, "pads_begin": tuple(begin), "pads_end": tuple(end), "auto_pad": "explicit"}
    arguments = [inputs[0], b.constant(np.ascontiguousarray(flipped), inputs[1].dtype)]
    return b.instead(node, arguments, attrs, op="GroupConvolution" if extra == 3 else "Convolution")


#: Maximum taps of the phases of a transposed convolution, those of zeros included, as a ratio to the taps.
_MOST_ZEROS = 2.5


@rule(operation("ConvolutionBackpropData GroupConvolutionBackpropData")(value("x"), constant("filters"), ...))
def _transposed_by_phases(w: Writer, node: Node, x: Value, filters: Value) -> Value | None:
    """ConvolutionBackpropData(x, filters) -> Convolution(x, filters of all phases), its pixels interleaved

    Output (i + t) s + r of a stride s reads input i by the tap t s + r: those of a phase r are a convolution
    of stride 1. The phases are outputs of one, on tensor cores; taps after the filter's end are zeros.
    """
    array: Any = filters.constant
    grouped = node.op.name.startswith("Group")
    array = array if grouped else array[None]
    groups, channels, outs, *kernel = array.shape
    rank, extents, sizes = len(kernel), (x.shape or ())[2:], node.output.shape[2:]
    window = windows.window_attributes(rank, node.attrs)
    if not _has_tensor_cores(w.b.context) or node.lowered or x.shape is None or not array.size:
        return None
    if not is_static((*extents, *sizes)) or 0 in (*extents, *sizes) or set(window["dilations"]) != {1}:
        return None
    strides = window["strides"]
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    all_taps = [t * s for t, s in zip(taps, strides, strict=True)]
    if (grouped and channels == 1) or set(strides) == {1} or not all_finite(array):
        return None  # infinity times zero is NaN
    if math.prod(all_taps) > _MOST_ZEROS * math.prod(kernel):
        return None
    cut, _ = windows.transposed_pads(extents, kernel, sizes if len(node.inputs) > 2 else None, node.attrs)
    padded = np.pad(array, [(0, 0)] * 3 + [(0, t - k) for t, k in zip(all_taps, kernel, strict=True)])
    pairs = (n for pair in zip(taps, strides, strict=True) for n in pair)
    split = padded.reshape(groups, channels, outs, *pairs)
    at_taps, at_phases = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    flipped = np.flip(split, tuple(at_taps)).transpose(0, *at_phases, 2, 1, *at_taps)
    stacked = flipped.reshape(groups, math.prod(strides) * outs, channels, *taps)
    weights = w.b.constant(np.ascontiguousarray(stacked if grouped else stacked[0]), filters.dtype)
    ends = [t - 1 for t in taps]
    attrs = {"strides": (1,) * rank, "pads_begin": ends, "pads_end": ends, "dilations": (1,) * rank}
    y = w("GroupConvolution" if grouped else "Convolution", x, weights, auto_pad="explicit", **attrs)
    full = [e + t - 1 for e, t in zip(extents, taps, strict=True)]
    y = w("Reshape", y, (-1, groups, *strides, outs, *full), special_zero=False)
    axes = (axis for i in range(rank) for axis in (3 + rank + i, 2 + i))
    y = w("Transpose", y, (0, 1, 2 + rank, *axes))
    lengths = [q * s for q, s in zip(full, strides, strict=True)]
    y = w("Reshape", y, (-1, groups * outs, *lengths), special_zero=False)
    after = [c + o - q for c, o, q in zip(cut, sizes, lengths, strict=True)]
    zero = np.zeros((), numpy_dtype(x.dtype))
    return w("Pad", y, (0, 0, *(-c for c in cut)), (0, 0, *after), zero, pad_mode="constant")


@rule(operation("ConvolutionBackpropData")(value("x"), constant("filters"), ...))
def _transposed_of_points(w: Writer, node: Node, x: Value, filters: Value) -> Value | None:
    """ConvolutionBackpropData(x [N, C, 1, ...], filters) -> Reshape(MatMul(x, filters as [C, O * taps]))

    An input of one pixel contributes one tap to each output. Image generators start with such a layer.
    """
    if node.lowered or x.shape is None:
        return None
    array: Any = filters.constant
    channels, kernel = array.shape[0], array.shape[2:]
    extents, outs = x.shape[2:], node.output.shape[2:]
    window = windows.window_attributes(len(kernel), node.attrs)
    if set(extents) != {1} or not is_static(outs) or set(window["dilations"]) != {1} or not array.size:
        return None
    requested = outs if len(node.inputs) > 2 else None
    cut, sizes = windows.transposed_pads(extents, kernel, requested, node.attrs)
    if any(first + size > k for first, size, k in zip(cut, sizes, kernel, strict=True)) or 0 in sizes:
        return None
    cropped = array[(slice(None),) * 2 + tuple(slice(c, c + o) for c, o in zip(cut, sizes, strict=True))]
    matrix = w.b.constant(np.ascontiguousarray(cropped.reshape(channels, -1)), filters.dtype)
    product = w("MatMul", w("Reshape", x, (0, channels), special_zero=True), matrix)
    return w("Reshape", product, (0, *cropped.shape[1:]), special_zero=True)


def _as_columns(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """ConvolutionBackpropData(x, f) -> Col2Im(MatMul(f transposed, x)), cropped

    For computed filters and types without tiles. Volumes take two steps of Col2Im: over rows and columns,
    then over slices.
    """
    from ovjit_ops.convolution.cpu_transposed import has_tiles

    x, filters = inputs[:2]
    lead = 3 if node.op.name.startswith("Group") else 2
    requested = inputs[2].type.value if len(inputs) > 2 else None
    if x.shape is None or not is_static(filters.shape) or 0 in filters.shape:
        return None
    if has_tiles(node, w.b.context.target):
        return None
    if (len(inputs) > 2 and requested is None) or 0 in x.shape or 0 in node.output.shape:
        return None
    *groups, channels, outs = filters.shape[:lead]
    kernel, rank, group = filters.shape[lead:], len(filters.shape) - lead, math.prod(groups)
    window = windows.window_attributes(rank, node.attrs)
    extra = windows.full_attribute(node.attrs["output_padding"], rank, "output_padding", 0, 0)
    count, _, *extents = w.shape(x)
    zero = np.zeros((), numpy_dtype(x.dtype))
    missing = [0] * rank
    if any(bounds(d)[0] < 1 for d in x.shape[2:]):  # Col2Im takes at least one position
        missing = [not_negative(1 - e) for e in extents]
        x = w("Pad", x, [0] * (rank + 2), [0, 0, *missing], zero, pad_mode="constant")
        extents = [e + m for e, m in zip(extents, missing, strict=True)]
    full, before, after = [], [0, 0], [0, 0]
    for i in range(rank):
        size = (extents[i] - 1) * window["strides"][i] + (kernel[i] - 1) * window["dilations"][i] + 1
        explicit = window["auto_pad"] == "explicit"
        begin, end = (window["pads_begin"][i], window["pads_end"][i]) if explicit else (0, 0)
        more = missing[i] * window["strides"][i]
        after.append(extra[i] - end - more)
        if requested is not None:
            goal = int(requested.reshape(-1)[i])
            if window["auto_pad"].startswith("same"):
                total = not_negative(size - more - goal + extra[i])
                begin = total - total // 2 if window["auto_pad"] == "same_upper" else total // 2
            after[-1] = begin + goal - size
        full.append(size)
        before.append(0 - begin)
    taps, positions, total_outs = math.prod(kernel), math.prod(extents), group * outs
    weights = w("Transpose", _reshape(w, filters, group, channels, outs * taps), (0, 2, 1))
    right = _reshape(w, x, count, group, channels, positions)
    columns = w("MatMul", weights, right, transpose_a=False, transpose_b=False)
    out = _summed_columns(w, columns, count, total_outs, extents, full, kernel, window)
    return [w("Pad", _reshape(w, out, count, total_outs, *full), before, after, zero, pad_mode="constant")]


def _reshape(w: Writer, value: Value, *dims: Any) -> Value:
    return w("Reshape", value, dims, special_zero=False)


def _summed_columns(
    w: Writer, columns: Value, count: Any, outs: int, extents: Sequence[Any], full: Sequence[Any],
    kernel: Sequence[int], window: dict[str, Any],
) -> Value:  # fmt: skip
    """Sum columns [batch, made * taps, places] where windows overlap. `outs`: the output channels of all
    groups. `full`: the extents of the sums."""
    taps, rank = math.prod(kernel), len(kernel)

    def add_windows(value: Value, first: int, last: int) -> Value:
        """[batch, channels x taps, places] -> [batch, channels, *the dimensions from `first` to `last`]"""
        along = slice(first, last)
        ones = (1,) * (2 - (last - first))
        return w(
            "Col2Im", value, (*ones, *full[along]), (*ones, *kernel[along]), pads_begin=(0, 0),
            strides=(*ones, *window["strides"][along]), dilations=(*ones, *window["dilations"][along]),
            pads_end=(0, 0),
        )  # fmt: skip

    if rank < 3:
        return add_windows(_reshape(w, columns, count, outs * taps, math.prod(extents)), 0, rank)
    depth, plane = extents[0], full[1] * full[2]
    parts = _reshape(w, columns, count, outs * taps, depth, extents[1] * extents[2])
    parts = w("Transpose", parts, (0, 2, 1, 3))
    parts = add_windows(_reshape(w, parts, count * depth, outs * taps, extents[1] * extents[2]), 1, 3)
    parts = w("Transpose", _reshape(w, parts, count, depth, outs, kernel[0], plane), (0, 2, 4, 3, 1))
    parts = add_windows(_reshape(w, parts, count, outs * plane * kernel[0], depth), 0, 1)
    return w("Transpose", _reshape(w, parts, count, outs, plane, full[0]), (0, 1, 3, 2))


@op(
    "ConvolutionBackpropData", opset=1, like=Convolution, expand=_as_columns,
    rules=[_transposed_of_points, _transposed_by_ones, _transposed_by_phases],
    weight_axes=WeightAxes((0,), (1,)),
    rules_for=["ConvolutionBackpropData", "GroupConvolutionBackpropData"],
)  # fmt: skip
class ConvolutionBackpropData:
    """The transpose of Convolution: its gradient with respect to the data. Also called deconvolution."""

    def infer(data, filters, output_shape=None, *, output_padding: Ints = (), **attrs):
        attrs["output_padding"] = output_padding
        return _infer_transposed(data, filters, output_shape, False, attrs)

    def ref(data, filters, output_shape=None, **attrs):
        return convolve_transposed(data, filters[None], output_shape, attrs)

    def lower(group):
        from ovjit_ops.convolution.cpu_transposed import lower_transposed

        return lower_transposed(group)

    samples = cases(*_TRANSPOSED_CASES, domain=(-2, 2))


@op("GroupConvolutionBackpropData", opset=1, like=ConvolutionBackpropData, rules=[], rules_for=[])
class GroupConvolutionBackpropData:
    """The transpose of GroupConvolution."""

    weight_axes = WeightAxes((0, 1), (0, 2))

    def expand(w, node, inputs):
        """GroupConvolutionBackpropData in three dimensions -> a ConvolutionBackpropData for each group

        For windows with more than one tap per phase in all dimensions. The tile loops over two of them and
        needs adjacent elements along the third, which those of one group are not. Without tiles: columns.
        """
        from ovjit_ops.convolution.cpu_transposed import has_tiles, is_depthwise, tap_sets

        target = w.b.context.target
        if not has_tiles(node, target):
            return _as_columns(w, node, inputs)

        filters = inputs[1].shape
        if not is_static(filters) or len(filters) != 6 or filters[0] < 2 or 0 in filters:
            return None
        if is_depthwise(node, target):
            return None
        ones = (1, 1, 1)
        window = (filters[3:], node.attrs["strides"] or ones, node.attrs["dilations"] or ones)
        if not all(any(len(taps) > 1 for taps in tap_sets(*row)) for row in zip(*window, strict=True)):
            return None
        groups, channels = filters[:2]
        record, parts = find_op("ConvolutionBackpropData"), []
        for g in range(groups):
            part = w.part(inputs[0], g * channels, (g + 1) * channels, 1)
            mine = w("Squeeze", w.part(inputs[1], g, g + 1, 0), (0,))
            options = {"name": f"{node.name}/{g}", "origins": node.origins}
            parts.append(w.b.add(record, [part, mine, *inputs[2:]], node.attrs, **options).output)
        return [w("Concat", *parts, axis=1)]

    def infer(data, filters, output_shape=None, **attrs):
        return _infer_transposed(data, filters, output_shape, True, attrs)

    def ref(data, filters, output_shape=None, **attrs):
        return convolve_transposed(data, filters, output_shape, attrs)

    samples = cases(
        *(((n, 2 * c, *x), (2, *filters), *more) for (n, c, *x), filters, *more in _TRANSPOSED_CASES),
        domain=(-2, 2),
    )
