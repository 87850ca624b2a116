"""Convolutions, pooling, normalisation, and other parts of layers."""

from __future__ import annotations

from ovjit.graph.shapes import compatible_shapes, text
from ovjit.readers.numerics.convolutions import apply_filters
from ovjit.readers.onnx.rule_language import *

_AUTO_PADS = {"NOTSET": "explicit", "": "explicit", "VALID": "valid", "SAME_UPPER": "same_upper",
              "SAME_LOWER": "same_lower"}  # fmt: skip

#: The largest number of places that a window has, moves or is spread by.
_FARTHEST = (1 << 31) - 1


class Window:
    """The attributes of a sliding window: kernel, strides, dilations, pads, for `dims` spatial dimensions."""

    def __init__(self, n: OnnxNode, kernel: Sequence[int] | None, dims: int):
        attribute = n.attr("kernel_shape")
        self.kernel = list(attribute if attribute is not None else kernel or ())
        if not self.kernel and dims:
            raise ModelError("the attribute kernel_shape is missing")
        if len(self.kernel) != dims:
            raise ModelError(f"kernel_shape should have {dims} dimensions, not {len(self.kernel)}")
        self.strides = self._ints(n, "strides")
        self.dilations = self._ints(n, "dilations")
        self.auto_pad = _AUTO_PADS[n.attr("auto_pad", "NOTSET")]
        pads = n.attr("pads")
        if pads is None or self.auto_pad != "explicit":
            pads = [0] * (2 * dims)
        if len(pads) != 2 * dims:
            raise ModelError(f"pads should have {2 * dims} numbers, not {len(pads)}")
        self.begin, self.end = list(pads[:dims]), list(pads[dims:])
        if any(v < 1 for v in (*self.kernel, *self.strides, *self.dilations)):
            raise ModelError("kernel_shape, strides and dilations should be positive")
        if any(v > _FARTHEST for v in (*self.kernel, *self.strides, *self.dilations)):
            raise ModelError(f"kernel_shape, strides and dilations should not exceed {_FARTHEST}")

    def _ints(self, n: OnnxNode, name: str) -> list[int]:
        values = n.attr(name)
        if not values:
            return [1] * len(self.kernel)
        if len(values) != len(self.kernel):
            raise ModelError(f"{name} should have {len(self.kernel)} numbers, not {len(values)}")
        return list(values)

    def extent(self, i: int) -> int:
        """Number of elements that the window spans along a dimension, with dilation."""
        return (self.kernel[i] - 1) * self.dilations[i] + 1

    def attributes(self, *more: str) -> dict[str, Any]:
        """Attributes of windows, and `more`: "kernel", "dilations"."""
        names = ("strides", "auto_pad", *more)
        return {"pads_begin": self.begin, "pads_end": self.end} | {
            name: getattr(self, name) for name in names
        }


def spatial_rank(n: OnnxNode, x: Output, least: int = 1) -> int:
    rank = n.rank(x) - 2
    if rank < least:
        raise ModelError(f"the input should have at least {least + 2} dimensions, not {rank + 2}")
    return rank


def _kernel(n: OnnxNode, w: Output) -> list[int]:
    """The sizes of filters; dynamic ones are allowed, as nothing else depends on them."""
    return [d if isinstance(d, int) else 1 for d in (n.shape(w) or ())[2:]]


def convolve(n: OnnxNode, x: Output, w: Output, bias: Output | None) -> Output:
    rank = n.rank(w, "the rank of the filters")
    window = Window(n, _kernel(n, w), rank - 2)
    group = n.attr("group", 1)
    if group < 1:
        raise ModelError(f"group should be positive, not {group}")
    out = apply_filters(n, x, w, group, **window.attributes("dilations"))
    return out if bias is None else n("Add", n.without_biases(out), n.per_channel(bias, rank))


@onnx_op("ConvTranspose")
def conv_transpose(n: OnnxNode) -> Any:
    x, w, bias = n[0], n[1], n.optional(2)
    dims = n.rank(w, "the rank of the filters") - 2
    window = Window(n, _kernel(n, w), dims)
    extra = list(n.attr("output_padding") or [0] * dims)
    output_shape = n.attr("output_shape")
    cut = output_shape is not None and not is_static((n.shape(x) or (ANY,) * (dims + 2))[2:])
    upper = window.auto_pad == "same_upper"
    if cut:  # the whole, from which what is wanted is taken
        window.auto_pad, window.begin, window.end = "explicit", [0] * dims, [0] * dims
    elif output_shape is not None or window.auto_pad.startswith("same"):
        if n.attr("kernel_shape") is None:
            n.static_shape(w, "the shape of the filters")
        for i in range(dims):
            total = window.extent(i) + extra[i] - window.strides[i]
            if output_shape is not None:  # else every pixel of the input stands for `stride` pixels
                size = int((n.shape(x) or ())[2 + i])  # type: ignore[arg-type]
                total += window.strides[i] * size - list(output_shape)[-dims:][i]
            extra[i] += max(-total, 0)
            total = max(total, 0)
            less, more = total // 2, total - total // 2
            window.begin[i], window.end[i] = (less, more) if upper else (more, less)
        window.auto_pad = "explicit"
    how = window.attributes("dilations")
    out = apply_filters(n, x, w, n.attr("group", 1), transposed=True, **how, output_padding=extra)
    if cut:
        out = _middle(n, out, list(output_shape)[-dims:], upper)
    return out if bias is None else n("Add", out, n.per_channel(bias, dims + 2))


def _middle(n: OnnxNode, x: Output, sizes: Sequence[int], upper: bool) -> Output:
    """Crops or pads images of dynamic sizes to `sizes`. Excess pixels are removed from both sides, an odd one
    at the end if `upper`. Missing pixels are 0, at the end."""
    dims, goal = len(sizes), np.array(sizes, np.int64)
    image_sizes = n.slice(n.shape_of(x), 0, 2)
    more = n("Maximum", n("Subtract", image_sizes, goal), 0)
    begin = n("Divide", more, 2)
    if not upper:
        begin = n("Subtract", more, begin)
    x = n("Slice", x, begin, n("Add", begin, goal), [1] * dims, list(range(2, dims + 2)))
    pad_end = n("Concat", [0, 0], n("Maximum", n("Subtract", goal, image_sizes), 0), axis=0)
    x = n("Pad", x, [0] * (dims + 2), pad_end, n.like(x, 0), pad_mode="constant", opset=12)
    return n("Reshape", x, [0, 0, *sizes], special_zero=True)


@onnx_op("DeformConv", 19)
def deform_conv(n: OnnxNode) -> Any:
    x, w, offset, bias, mask = n[0], n[1], n[2], n.optional(3), n.optional(4)
    window = Window(n, n.static_shape(w, "the shape of the filters")[2:], n.rank(w) - 2)
    inputs = [x, offset, w] if mask is None else [x, offset, w, mask]
    how = window.attributes("dilations") | n.attrs("group", deformable_group="offset_group")
    out = n("DeformableConvolution", *inputs, **how, bilinear_interpolation_pad=True)
    return out if bias is None else n("Add", out, n.per_channel(bias, n.rank(w)))


# -- pooling -------------------------------------------------------------------------------------------------


def _through_f32(n: OnnxNode, x: Output, pool: Any) -> list[Output]:
    """Pooling of small integers in f32, which holds them exactly."""
    kind = n.dtype(x)
    if ELEMENT_TYPES[kind].is_real:
        return pool(x)
    outputs = pool(n.convert(x, "f32"))
    return [n.convert(outputs[0], kind), *outputs[1:]]


@onnx_op("MaxPool")
def max_pool(n: OnnxNode) -> Any:
    x = n[0]
    dims = spatial_rank(n, x)
    window = Window(n, None, dims)
    rounding = "ceil_torch" if n.attr("ceil_mode") else "floor"

    def pool(value: Output) -> list[Output]:
        how = {**window.attributes("kernel", "dilations"), "index_element_type": "i64", "axis": 0}
        opset = 14 if rounding == "ceil_torch" else 8
        return n.all("MaxPool", value, **how, rounding_type=rounding, opset=opset)

    values, indices = _through_f32(n, x, pool)
    if not n.is_output_used(1):  # `storage_order` is about indices
        return [values]
    if n.attr("storage_order"):
        indices = _column_major(n, indices, [n.dim_of(x, 2 + i) for i in range(dims)])
    return [values, indices]


def _column_major(n: OnnxNode, indices: Output, spatial: Sequence[Output]) -> Output:
    """Convert flat indices in row-major order to those in column-major order of the spatial dimensions."""
    planes = [n.const(1)]  # how far apart neighbours are: along the last dimension, the one before, ...
    for size in reversed(spatial):
        planes.append(n("Multiply", planes[-1], size))
    remainder = n("FloorMod", indices, planes.pop())
    out = n("Subtract", indices, remainder)
    weight = n.const(1)
    for size in spatial:
        step = planes.pop()
        coordinate = n("Divide", remainder, step)
        remainder = n("FloorMod", remainder, step)
        out = n("Add", out, n("Multiply", coordinate, weight))
        weight = n("Multiply", weight, size)
    return out


@onnx_op("AveragePool")
def average_pool(n: OnnxNode) -> Any:
    x = n[0]
    window = Window(n, None, spatial_rank(n, x))
    return average(n, x, window, not n.attr("count_include_pad", 0), bool(n.attr("ceil_mode")))


def average(n: OnnxNode, x: Output, window: Window, exclude_pad: bool, ceil: bool = False) -> Output:
    """Average pooling, in the oldest opset version that has the requested options."""
    spread = set(window.dilations) != {1}
    attrs = window.attributes("kernel", *(["dilations"] if spread else []))
    opset, rounding = 16 if spread else 14 if ceil else 1, "ceil_torch" if ceil else "floor"
    return n("AvgPool", x, **attrs, exclude_pad=exclude_pad, rounding_type=rounding, opset=opset)


def pad_to_ceiling(n: OnnxNode, x: Output, window: Window) -> Output:
    """Append zeros to `x` for the last window of `ceil_mode` that begins inside and ends outside of `x`."""
    more = []
    for i, stride in enumerate(window.strides):
        size = n.dim_of(x, 2 + i)
        reach = n("Add", size, window.begin[i] + window.end[i] - window.extent(i))
        beyond = n("FloorMod", n("Negative", reach), stride)
        begins = n("Add", reach, beyond)
        inside = n("Less", begins, n("Add", size, window.begin[i]))
        more.append(n("Select", inside, beyond, n.like(beyond, [0])))
    pad_end = n("Concat", [0, 0], *more, axis=0)
    constant_pads = n.value(pad_end)
    if constant_pads is not None:  # then the window's own padding says it
        window.end = [end + int(v) for end, v in zip(window.end, constant_pads[2:], strict=True)]
        return x
    zeros = np.zeros(2 + len(more), np.int64)
    return n("Pad", x, zeros, pad_end, n.like(x, 0), pad_mode="constant", opset=12)


@onnx_op("LpPool", 2)
def lp_pool(n: OnnxNode) -> Any:
    """(sum |x|^p)^(1/p): an average with the padding counted, times the number of elements"""
    x, p = n[0], n.attr("p", 2)
    window = Window(n, None, spatial_rank(n, x))
    if n.attr("ceil_mode", 0) and window.auto_pad == "explicit":
        x = pad_to_ceiling(n, x, window)
    powers = n("Power", n("Abs", x), n.like(x, p))
    mean = average(n, powers, window, exclude_pad=False)
    total = n("Multiply", mean, n.like(x, math.prod(window.kernel)))
    return n("Power", total, n.like(x, 1 / p))


def _spatial_axes(n: OnnxNode, x: Output) -> list[int]:
    return list(range(2, spatial_rank(n, x, 0) + 2))


@onnx_op("GlobalLpPool")
def global_lp_pool(n: OnnxNode) -> Any:
    x, p = n[0], n.attr("p", 2)
    powers = n("Power", n("Abs", x), n.like(x, p))
    total = n("ReduceSum", powers, _spatial_axes(n, x), keep_dims=True)
    return n("Power", total, n.like(x, 1 / p))


@onnx_op("MaxUnpool")
def max_unpool(n: OnnxNode) -> Any:
    """Zeros with values at flat indices of the tensor before max pooling."""
    x, indices = n[0], n[1]
    window = Window(n, None, spatial_rank(n, x))
    sizes = [n.dim_of(x, 0), n.dim_of(x, 1)]
    for i, stride in enumerate(window.strides):
        border = window.kernel[i] - stride - window.begin[i] - window.end[i]
        sizes.append(n("Add", n("Multiply", n.dim_of(x, i + 2), stride), border))
    natural = n("Concat", *sizes, axis=0)
    constant_shape = n.value(natural)
    if constant_shape is not None:
        natural = n.const(constant_shape)
        count = n.const(np.array([constant_shape.prod()], np.int64))
    else:
        count = n("ReduceProd", natural, [0], keep_dims=True)
    flat = n("Broadcast", n.like(x, 0), count)
    out = n("ScatterElementsUpdate", flat, n.reshape(indices, [-1]), n.reshape(x, [-1]), 0, opset=3)
    out = n.reshape(out, natural)
    if not n.has(2):
        return out
    # what is larger than the indices are about has zeros after
    more = n("Subtract", n.convert(n[2], "i64"), natural)
    zeros = np.zeros(n.rank(x), np.int64)
    return n("Pad", out, zeros, more, n.like(x, 0), pad_mode="constant", opset=12)


# -- normalisation -------------------------------------------------------------------------------------------


@onnx_op("BatchNormalization")
def batch_normalization(n: OnnxNode) -> Any:
    x, scale, bias, mean, var = (n[i] for i in range(5))
    if n.attr("spatial", 1) == 0 and _are_per_element(n, x, parameters := [scale, bias, mean, var]):
        return _normalized_elements(n, x, parameters)
    training = n.version >= 14 and n.attr("training_mode")
    epsilon = n.attr("epsilon")
    kind, statistics = n.dtype(x), n.dtype(mean)
    if not training:
        if any(n.is_output_used(i) for i in range(1, 5)) and n.version < 14 and not n.attr("is_test", 0):
            raise UnsupportedError("BatchNormalization in training mode is not supported")
        scale, bias, mean, var = (n.convert(v, kind) for v in (scale, bias, mean, var))
        out = n("BatchNormInference", x, scale, bias, mean, var, epsilon=epsilon, opset=5)
        return [out, mean, var] if n.version >= 14 else [out]
    axes = [i for i in range(n.rank(x)) if i != 1]
    x_upcast = n.convert(x, statistics)
    now = n("ReduceMean", x_upcast, axes, keep_dims=False)
    centred = n("Subtract", x_upcast, n.per_channel(now, n.rank(x)))
    spread = n("ReduceMean", n("Multiply", centred, centred), axes, keep_dims=False)
    scale, bias = n.convert(scale, kind), n.convert(bias, kind)
    parameters_of_batch = x, scale, bias, n.convert(now, kind), n.convert(spread, kind)
    out = n("BatchNormInference", *parameters_of_batch, epsilon=epsilon, opset=5)
    old, new = n.like(mean, n.attr("momentum")), n.like(mean, 1 - n.attr("momentum"))
    running = [
        n("Add", n("Multiply", was, old), n("Multiply", is_, new))
        for was, is_ in ((mean, now), (var, spread))
    ]
    return [out, *running]


def _are_per_element(n: OnnxNode, x: Output, parameters: Sequence[Output]) -> bool:
    """True if all parameters have the shape of a row [C, ...]; those of rows [N, C], and of versions before
    7, may be [C]. Raises ModelError for others."""
    rank = n.rank(x)
    if (rank == 2 or n.version < 7) and all(n.rank(v, "a statistic's rank") == 1 for v in parameters):
        return False
    row = (n.shape(x) or ())[1:]
    for value in parameters:
        if not compatible_shapes(row, n.shape(value)):
            raise ModelError(
                "with spatial=0, scale, B, mean and var have a number for each element of a row, "
                f"{text(row)}, not {text(n.shape(value))}"
            )
    return True


def _normalized_elements(n: OnnxNode, x: Output, parameters: Sequence[Output]) -> list[Output]:
    """BatchNormalization with a mean and a variance per element of a row [C, ...]."""
    if any(n.is_output_used(i) for i in range(1, 5)) and not n.attr("is_test", 0):
        raise UnsupportedError("BatchNormalization in training mode is not supported")
    scale, bias, mean, var = (n.convert(v, n.dtype(x)) for v in parameters)
    root = n("Sqrt", n("Add", var, n.like(var, n.attr("epsilon"))))
    return [n("Add", n("Multiply", n("Subtract", x, mean), n("Divide", scale, root)), bias)]


@onnx_op("InstanceNormalization")
def instance_normalization(n: OnnxNode) -> Any:
    x = n[0]
    rank = spatial_rank(n, x) + 2
    out = n.standardize(x, range(2, rank), n.attr("epsilon"))
    return n("Add", n("Multiply", out, n.per_channel(n[1], rank)), n.per_channel(n[2], rank))


@onnx_op("GroupNormalization", 18)
def group_normalization_18(n: OnnxNode) -> Any:
    """Group normalization with a scale and a bias per group (opset 18)."""
    x, groups = n[0], n.require("num_groups")
    shape = n.shape_of(x)
    parts = n("Reshape", x, [0, groups, -1], special_zero=True)
    out = n.standardize(parts, [2], n.attr("epsilon"))
    out = n("Add", n("Multiply", out, n.per_channel(n[1], 3)), n.per_channel(n[2], 3))
    return n("Reshape", out, shape, special_zero=False)


def layer_norm(
    n: OnnxNode, x: Output, scale: Output | None, bias: Output | None, axis: int, epsilon: float
) -> list[Output]:
    """(normalised and scaled, mean, inverse standard deviation) over the dimensions from `axis` on.

    The last two have the type that `stash_type` names, f32 by default, also for f64.
    """
    rank = n.rank(x)
    axes = list(range(n.axis(axis, rank), rank))
    kind = n.dtype(x)
    out = n.standardize(x, axes, epsilon)
    if scale is not None:
        out = n("Multiply", out, n.convert(scale, kind))
    if bias is not None:
        out = n("Add", out, n.convert(bias, kind))
    if not any(n.is_output_used(i) for i in (1, 2)):
        return [out]
    upcast = n.upcast(x)
    mean = n("ReduceMean", upcast, axes, keep_dims=True)
    centred = n("Subtract", upcast, mean)
    squares = n("ReduceMean", n("Multiply", centred, centred), axes, keep_dims=True)
    both = mean, n("Divide", n.like(upcast, 1), n("Sqrt", n("Add", squares, n.like(upcast, epsilon))))
    return [out, *(n.convert(value, n.data_type("stash_type", 1)) for value in both)]


def rms_norm(n: OnnxNode, x: Output, scale: Output | None, axis: int, epsilon: float) -> Output:
    """x / sqrt(mean(x^2) + epsilon) * scale, computed in f32 for 16-bit floats"""
    kind, rank = n.dtype(x), n.rank(x)
    upcast = n.upcast(x)
    mean = n(
        "ReduceMean", n("Multiply", upcast, upcast), list(range(n.axis(axis, rank), rank)), keep_dims=True
    )
    out = n.convert(n("Divide", upcast, n("Sqrt", n("Add", mean, n.like(upcast, epsilon)))), kind)
    return out if scale is None else n("Multiply", out, n.convert(scale, kind))


@onnx_op("RMSNormalization", 23)
def rms_normalization(n: OnnxNode) -> Any:
    out = rms_norm(n, n[0], None, n.attr("axis"), n.attr("epsilon"))
    scale = n[1]
    if n.dtype(scale) != n.dtype(out):  # the result has the scale's type
        out = n.convert(out, n.dtype(scale))
    return n("Multiply", out, scale)


@onnx_op("LpNormalization")
def lp_normalization(n: OnnxNode) -> Any:
    x, p = n[0], n.attr("p")
    norm = n("ReduceL1" if p == 1 else "ReduceL2", x, [n.attr("axis")], keep_dims=True)
    zero = n("Equal", norm, n.like(norm, 0))
    return n("Divide", x, n("Select", zero, n.like(norm, 1), norm))


# -- softmax and relatives -----------------------------------------------------------------------------------


def _rows(n: OnnxNode, function: Any) -> Output:
    """Apply `function` to the input with the dimensions from `axis` on merged, as up to opset 12."""
    x, rank = n[0], n.rank(n[0])
    axis = n.axis(n.attr("axis", 1), rank) if rank else 0
    if axis == rank - 1:
        return function(x, axis)
    trailing = list((n.shape(x) or ())[axis:])
    open_dims = sum(isinstance(d, Interval) for d in trailing)
    rows = function(n("Reshape", x, [0] * axis + [-1], special_zero=True), axis)
    if open_dims > 1 or 0 in trailing:
        return n("Reshape", rows, n.shape_of(x), special_zero=False)
    back = [0] * axis + [-1 if isinstance(d, Interval) else d for d in trailing]
    return n("Reshape", rows, back, special_zero=True)


def _hardmax(n: OnnxNode):
    def function(x: Output, axis: int) -> Output:
        depth = n.squeeze(n.dim_of(x, axis), [0])
        # the axis may be empty, of which there is no best
        count = n.fold(n("Minimum", depth, 1))
        best = n("ReduceMax", n.top_k(x, count, axis)[1], [axis], keep_dims=False)
        return n("OneHot", best, depth, n.like(x, 1), n.like(x, 0), axis=axis)

    return function


@onnx_op("Dropout")
def dropout(n: OnnxNode) -> Any:
    """Dropout: the identity and a mask of true, except in training."""
    if n.version >= 12 and n.has(2):
        training, ratio = n.value(n[2]), n.value(n.optional(1))
        if (training is None or training.any()) and (ratio is None or ratio.any() or not n.has(1)):
            from ovjit.readers.onnx.random import drop_out

            return drop_out(n, n[0], n[1] if n.has(1) else n.const(0.5), n[2])
    if not n.is_output_used(1):
        return [n[0]]
    kind = "boolean" if n.version >= 10 else n.dtype(n[0])
    return [n[0], n.broadcast(n.const(1, kind), n.shape_of(n[0]))]


#: Operators that are one expression.
onnx_ops({
    "Conv": lambda n: convolve(n, n[0], n[1], n.optional(2)),
    "LRN": lambda n: n("LRN", n[0], [1], **n.attrs("alpha", "beta", "bias"), size=n.require("size")),
    # in any opset: ONNX Runtime's optimiser writes it also before 17
    "LayerNormalization": lambda n:
        layer_norm(n, n[0], n.optional(1), n.optional(2), n.attr("axis", -1), n.attr("epsilon", 1e-5)),
    # with a scale and a bias per channel
    "GroupNormalization-21": lambda n:
        n("GroupNormalization", n[0], n[1], n[2], num_groups=n.require("num_groups"), **n.attrs("epsilon")),
    "MeanVarianceNormalization": lambda n:
        n("MVN", n[0], n.axes(n.attr("axes", [0, 2, 3]), n.rank(n[0])), eps=1e-9, normalize_variance=True,
          eps_mode="outside_sqrt", opset=6),
    "GlobalAveragePool": lambda n: n("ReduceMean", n[0], _spatial_axes(n, n[0]), keep_dims=True),
    "GlobalMaxPool": lambda n: n("ReduceMax", n[0], _spatial_axes(n, n[0]), keep_dims=True),
    "Softmax": lambda n: _rows(n, lambda x, axis: n("Softmax", x, axis=axis, opset=8)),
    "Softmax-13": lambda n: n("Softmax", n[0], axis=n.attr("axis"), opset=8),
    "LogSoftmax": lambda n: _rows(n, lambda x, axis: n("LogSoftmax", x, axis=axis)),
    "LogSoftmax-13": lambda n: n("LogSoftmax", n[0], axis=n.attr("axis")),
    "Hardmax": lambda n: _rows(n, _hardmax(n)),
    "Hardmax-13": lambda n: _hardmax(n)(n[0], n.axis(n.attr("axis"), n.rank(n[0]))),
})  # fmt: skip
