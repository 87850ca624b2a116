"""Convolutions and pooling, whose images have channels last, and matrix products."""

from __future__ import annotations

from ovjit.readers.tflite.rule_language import *

#: Padding by the schema's numbers.
PADDING = {0: "same_upper", 1: "valid"}


def padding(n: LiteNode) -> str:
    code = n.option("Padding")
    if code not in PADDING:
        raise UnsupportedError(f"the padding {code} is not supported")
    return PADDING[code]


def _positive(n: LiteNode, *names: str) -> list[int]:
    values = [n.option(name) for name in names]
    if min(values) < 1:
        raise ModelError(f"{', '.join(names)} are {values}; they should be positive")
    return values


def _strides(n: LiteNode, x: Output, *names: str) -> list[int]:
    """Strides over an image with channels first. One beyond the image is as good as its size: there is one
    position, and kernels are written out by their strides."""
    shape = n.shape(x) or ()
    return [
        min(stride, max(size, 1)) if isinstance(size, int) else stride
        for stride, size in zip(_positive(n, *names), shape[2:], strict=True)
    ]


def _windows(n: LiteNode, x: Output) -> list[int]:
    """Sizes of windows over an image with channels first. With padding to the same size, all windows of twice
    the image's size and more hold all of it, so larger ones are as good as that."""
    windows, shape = _positive(n, "FilterHeight", "FilterWidth"), n.shape(x) or ()
    if padding(n) == "valid":
        return windows
    return [
        min(window, 2 * max(size, 1)) if isinstance(size, int) else window
        for window, size in zip(windows, shape[2:], strict=True)
    ]


def _geometry(n: LiteNode, x: Output, axes: str) -> dict[str, Any]:
    """Strides, dilations and padding; `axes` are letters of the options' names."""
    strides = _strides(n, x, *(f"Stride{a}" for a in axes))
    return {
        "strides": strides, "dilations": _positive(n, *(f"Dilation{a}Factor" for a in axes)),
        "pads_begin": [0] * len(axes), "pads_end": [0] * len(axes), "auto_pad": padding(n),
    }  # fmt: skip


def _finish(n: LiteNode, value: Output, bias: int) -> Output:
    """Add the bias and the activation to a channels-first result."""
    out = n.last(value)
    if n.has(bias):
        out = n.each("Add", out, n[bias])
    return n.activate(out)


@tflite_op("CONV_2D")
def conv_2d(n: LiteNode) -> Any:
    """A convolution. A filter with fewer channels than the image makes it a grouped one."""
    x = n.first(n[0])
    outs, height, width, ins = n.filter_shape(4)
    channels = n.shape(x)
    channel_count = channels[1] if channels and isinstance(channels[1], int) else ins
    geometry = _geometry(n, x, "HW")
    if channel_count == ins:
        return _finish(n, n("Convolution", x, n.weights(1, [0, 3, 1, 2], [outs, 1, 1, 1]), **geometry), 2)
    if not ins or channel_count % ins or outs % (channel_count // ins):
        raise ModelError(f"a filter of {outs}x{height}x{width}x{ins} does not match {channel_count} channels")
    groups = channel_count // ins
    after = [groups, outs // groups, ins, height, width]
    weights = n.weights(1, [0, 3, 1, 2], [groups, outs // groups, 1, 1, 1], after=after)
    return _finish(n, n("GroupConvolution", x, weights, **geometry), 2)


@tflite_op("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(n: LiteNode) -> Any:
    """The filter is [1, H, W, channels * multiplier]: each channel has `multiplier` results."""
    x = n.first(n[0])
    _, height, width, outs = n.filter_shape(4)
    channels = n.shape(x)
    channel_count = channels[1] if channels and isinstance(channels[1], int) else None
    if channel_count is None:
        multiplier = n.option("DepthMultiplier")
        channel_count = outs // multiplier if multiplier else 0
    if not channel_count or outs % channel_count:
        raise ModelError(f"a filter of {outs} channels does not match {channel_count} channels")
    each = outs // channel_count
    weights = n.weights(
        1, [2, 3, 0, 1], [channel_count, each, 1, 1, 1], before=[height, width, channel_count, each],
        after=[channel_count, each, 1, height, width],
    )  # fmt: skip
    return _finish(n, n("GroupConvolution", x, weights, **_geometry(n, x, "HW")), 2)


@tflite_op("CONV_3D")
def conv_3d(n: LiteNode) -> Any:
    """The filter is [D, H, W, inputs, outputs]."""
    outs = n.filter_shape(5)[4]
    weights = n.weights(1, [4, 3, 0, 1, 2], [outs, 1, 1, 1, 1])
    x = n.first(n[0])
    return _finish(n, n("Convolution", x, weights, **_geometry(n, x, "DHW")), 2)


@tflite_op("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE")
def transpose_conv(n: LiteNode) -> Any:
    """Inputs: the result's shape, the filter [outputs, H, W, inputs] or [D, H, W, outputs, inputs], the
    image."""
    order, axes = ([3, 0, 1, 2], "HW") if n.op_type == "TRANSPOSE_CONV" else ([4, 3, 0, 1, 2], "DHW")
    outs, zeros = n.filter_shape(len(order))[order[1]], [0] * len(axes)
    weights = n.weights(1, order, [1, outs, *(1 for _ in axes)])
    size = n.fold(n.slice(n[0], 0, 1, len(order) - 1))
    result = n(
        "ConvolutionBackpropData", n.first(n[2]), weights, size,
        strides=_positive(n, *(f"Stride{a}" for a in axes)), pads_begin=zeros, pads_end=zeros,
        dilations=[n.option(f"Dilation{a}Factor", 1) for a in axes], output_padding=zeros,
        auto_pad="same_lower" if padding(n) == "same_upper" else "valid",
    )  # fmt: skip
    return _finish(n, result, 3)


@tflite_op("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool_2d(n: LiteNode) -> Any:
    """Pooling. An average excludes the padding; L2 is the root of the mean of squares."""
    x = n.first(n[0])
    options: dict[str, Any] = {
        "strides": _strides(n, x, "StrideH", "StrideW"),
        "kernel": _windows(n, x),
        "pads_begin": [0, 0], "pads_end": [0, 0], "rounding_type": "floor", "auto_pad": padding(n),
    }  # fmt: skip
    if n.op_type == "MAX_POOL_2D":
        return n.activate(n.last(n("MaxPool", x, dilations=[1, 1], opset=14, **options)))
    is_l2 = n.op_type == "L2_POOL_2D"
    average = n("AvgPool", n("Multiply", x, x) if is_l2 else x, exclude_pad=True, opset=14, **options)
    return n.activate(n.last(n("Sqrt", average) if is_l2 else average))


# -- matrix products ----------------------------------------------------------------------------------------


@tflite_op("FULLY_CONNECTED")
def fully_connected(n: LiteNode) -> Any:
    """x @ weights.T + bias, of weights [outputs, inputs]. The result is [rows, outputs] unless the operator
    keeps the number of dimensions."""
    if n.option("WeightsFormat", 0):
        raise UnsupportedError(
            '"FullyConnectedOptions::weights_format != FullyConnectedOptionsWeightsFormat_DEFAULT" is not '
            "implemented for this FrontEnd class"
        )
    x, weights = n[0], n[1]
    if not n.option("KeepNumDims", False):
        x = _rows(n, x, n.static_shape(weights, "the weights' shape")[-1])
    result = n("MatMul", x, weights, transpose_a=False, transpose_b=True)
    if n.has(2):
        result = n("Add", result, n[2])
    return n.activate(result)


def _rows(n: LiteNode, x: Output, columns: int) -> Output:
    shape = n.shape(x)
    if shape is not None and len(shape) == 2 and shape[1] == columns:
        return x
    return n.reshape(x, [-1, columns])


@tflite_op("BATCH_MATMUL")
def batch_matmul(n: LiteNode) -> Any:
    adjoint = [bool(n.option(name, False)) for name in ("AdjX", "AdjY")]
    return n("MatMul", n[0], n[1], transpose_a=adjoint[0], transpose_b=adjoint[1])
