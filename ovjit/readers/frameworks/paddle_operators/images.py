"""Convolutions, pooling and resizing."""

from __future__ import annotations

from .parts import *

functional = paddle.nn.functional


def _adaptive(op: Any) -> Any:
    """Adaptive pooling by explicit windows: the exporter assumes windows of one size, and equal steps."""
    attrs, x, result_shape = op.attrs(), op.operand_source(0), op.result(0).shape
    if not attrs["adaptive"] or attrs.get("data_format", "NCHW")[-1] == "C" or len(result_shape) < 3:
        return None
    if any(not result.use_empty() for result in op.results()[1:]):
        return None
    average = attrs.get("pooling_type") == "avg"
    sizes = list(zip(x.shape[2:], result_shape[2:], strict=True))
    if min(result_shape[2:]) < 1 or all(size > 0 and size % count == 0 for size, count in sizes):
        return None
    reduce = paddle.mean if average else paddle.max
    for axis, count in enumerate(result_shape[2:], 2):
        x = _in_windows(x, reduce, axis, sizes_of(x)[axis], count)
    return x


def _in_windows(x: Any, reduce: Callable[..., Any], axis: int, size: Any, count: int) -> Any:
    """Window i of `count` has the elements from i size / count to (i + 1) size / count, rounded outwards."""
    if count == 1:
        return reduce(x, axis=[axis], keepdim=True)
    ends = [(i * size // count, ((i + 1) * size + count - 1) // count) for i in range(count)]
    parts = [paddle.slice(x, [axis], [first], [end]) for first, end in ends]
    return paddle.concat([reduce(part, axis=[axis], keepdim=True) for part in parts], axis=axis)


def _transpose_convolution(op: Any) -> Any:
    """A transposed convolution with explicit padding: the exporter ignores `output_size`, and has another
    meaning of "SAME"."""
    attrs, result_shape = op.attrs(), op.result(0).shape
    x, weight = op.operand_source(0), op.operand_source(1)
    algorithm, dims = attrs["padding_algorithm"], len(result_shape) - 2
    if algorithm == "VALID" or attrs["output_padding"]:
        return None
    if (
        attrs["data_format"][-1] == "C"
        or dims != 2
        or min([*x.shape[2:], *weight.shape, *result_shape[2:]]) < 1
    ):
        if algorithm == "SAME":
            raise NotImplementedError("transposed convolutions with the padding 'SAME' need known sizes")
        return None
    pads = _same_pads(op) if algorithm == "SAME" else attrs["paddings"]
    pads = pads if len(pads) == 2 * dims else [pad for pad in pads for _ in range(2)]
    more = []
    for i in range(dims):
        covered = attrs["dilations"][i] * (weight.shape[2 + i] - 1) + 1
        result = (x.shape[2 + i] - 1) * attrs["strides"][i] - pads[2 * i] - pads[2 * i + 1] + covered
        more.append(result_shape[2 + i] - result)
    if algorithm == "EXPLICIT" and (not any(more) or min(more) < 0):
        return None
    return functional.conv2d_transpose(
        x, weight, stride=attrs["strides"], padding=pads, output_padding=more, groups=attrs["groups"],
        dilation=attrs["dilations"] if algorithm == "EXPLICIT" else 1,
    )  # fmt: skip


def _same_pads(op: Any) -> list[int]:
    """Padding of a transposed convolution with "SAME" in Paddle, [begin, end] of each spatial dimension.

    Paddle computes it as for a forward convolution of the input.
    """
    pads = []
    for size, step, window in zip(
        op.operand_source(0).shape[2:], op.attrs()["strides"], op.operand_source(1).shape[2:], strict=True
    ):
        total = max((-(-size // step) - 1) * step + window - size, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _channels_first(op: Any) -> Any:
    """Wrap an operator whose images have channels last, which the exporter refuses, in transposes."""
    attrs, x = op.attrs(), op.operand_source(0)
    layout = attrs.get("data_format", "NCHW")
    if layout[-1] != "C" or len(x.shape) < 3:
        return None
    rank = len(x.shape)
    first = paddle.transpose(x, [0, rank - 1, *range(1, rank - 1)])
    result = _LAYOUTS[op.name().removeprefix("pd_op.")](op, first, attrs, rank - 2)
    return None if result is None else paddle.transpose(result, [0, *range(2, rank), 1])


def _convolve(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
    padding = attrs["paddings"] if attrs["padding_algorithm"] == "EXPLICIT" else attrs["padding_algorithm"]
    convolve = {2: functional.conv2d, 3: functional.conv3d}[dims]
    return convolve(
        x, op.operand_source(1), stride=attrs["strides"], padding=padding, dilation=attrs["dilations"],
        groups=attrs["groups"],
    )  # fmt: skip


def _pool_of_dims(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
    window = constant_of(op.operand_source(1))
    if window is None or (attrs["adaptive"] and any(size != 1 for size in window)):
        return None
    average = attrs["pooling_type"] == "avg"
    if attrs["adaptive"] or attrs["global_pooling"]:
        return (paddle.mean if average else paddle.max)(x, axis=[*range(2, dims + 2)], keepdim=True)
    padding = attrs["paddings"] if attrs["padding_algorithm"] == "EXPLICIT" else attrs["padding_algorithm"]
    pool = getattr(functional, f"{'avg' if average else 'max'}_pool{dims}d")
    more = {"exclusive": attrs["exclusive"]} if average else {}
    return pool(x, window, attrs["strides"], padding, ceil_mode=attrs["ceil_mode"], **more)


def _resize(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
    sizes = [attrs[name] for name in ("out_d", "out_h", "out_w")][-dims:]
    if any(value.initialized() for value in op.operands_source()[1:]) or (
        min(sizes) < 1 and not attrs["scale"]
    ):
        return None
    mode, more = attrs["interp_method"], {}
    if mode != "nearest":
        more = {"align_corners": attrs["align_corners"], "align_mode": attrs["align_mode"]}
    layout = {1: "NCW", 2: "NCHW", 3: "NCDHW"}[dims]
    if not attrs["scale"]:
        return functional.interpolate(x, sizes, mode=mode, data_format=layout, **more)
    # the exporter reads factors, which have 64 bits, as numbers of 32: it takes them as tensors
    factors = paddle.assign(np.array(attrs["scale"], np.float32))
    return functional.interpolate(x, scale_factor=factors, mode=mode, data_format=layout, **more)


def _interpolate(op: Any) -> Any:
    attrs, x = op.attrs(), op.operand_source(0)
    if attrs["data_format"][-1] == "C":
        return _channels_first(op)
    return _resize(op, x, attrs, len(x.shape) - 2) if attrs["scale"] else None


_LAYOUTS: dict[str, Callable[..., Any]] = {
    "conv2d": _convolve, "depthwise_conv2d": _convolve, "conv3d": _convolve, "pool2d": _pool_of_dims,
    "pool3d": _pool_of_dims, "bilinear_interp": _resize, "nearest_interp": _resize, "bicubic_interp": _resize,
    "trilinear_interp": _resize, "linear_interp": _resize,
}  # fmt: skip


def _pool(op: Any) -> Any:
    return _channels_first(op) if op.attrs()["data_format"][-1] == "C" else _adaptive(op)


def _deform(op: Any) -> Any:
    """A deformable convolution with a mask of ones, as the exporter needs a mask."""
    x, offset, weight, mask = op.operands_source()
    attrs = op.attrs()
    count = attrs["deformable_groups"] * math.prod(weight.shape[2:])
    if mask.initialized() or count < 1:
        return None
    mask = paddle.ones_like(paddle.slice(offset, [1], [0], [count]))
    return paddle.vision.ops.deform_conv2d(
        x, offset, weight, None, attrs["strides"], attrs["paddings"], attrs["dilations"],
        attrs["deformable_groups"], attrs["groups"], mask,
    )  # fmt: skip


def _unshuffle(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    last, by = attrs["data_format"][-1] == "C", attrs["downscale_factor"]
    x = paddle.transpose(x, [0, 3, 1, 2]) if last else x
    n, c, h, w = sizes_of(x)
    x = paddle.reshape(x, [n, c, h // by, by, w // by, by])
    x = paddle.reshape(paddle.transpose(x, [0, 1, 3, 5, 2, 4]), [n, c * by * by, h // by, w // by])
    return paddle.transpose(x, [0, 2, 3, 1]) if last else x


def _shuffle(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axis = len(x.shape) - 1 if attrs["data_format"][-1] == "C" else 1
    sizes, groups = sizes_of(x), attrs["groups"]
    parts = [*sizes[:axis], groups, sizes[axis] // groups, *sizes[axis + 1 :]]
    order = [*range(axis), axis + 1, axis, *range(axis + 2, len(parts))]
    return paddle.reshape(paddle.transpose(paddle.reshape(x, parts), order), sizes)


def _affine_grid(op: Any) -> Any:
    theta, size, aligned = (
        op.operand_source(0),
        constant_of(op.operand_source(1)),
        op.attrs()["align_corners"],
    )
    if size is None or len(size) not in (4, 5):
        return None
    steps = [(2 * np.arange(n) + 1) / n - 1 if not aligned else np.linspace(-1, 1, n) for n in size[2:]]
    grid = [*reversed(np.meshgrid(*steps, indexing="ij"))]
    points = np.stack([*grid, np.ones_like(grid[0])], -1).reshape(1, -1, len(grid) + 1).astype(np.float32)
    result = paddle.matmul(
        paddle.cast(paddle.assign(points), theta.dtype), paddle.transpose(theta, [0, 2, 1])
    )
    return paddle.reshape(result, [-1, *size[2:], len(grid)])


def _shifted_in_time(op: Any) -> Any:
    """temporal_shift by slices and padding: the exporter refuses dynamic sizes."""
    x, attrs = op.operand_source(0), op.attrs()
    last = attrs["data_format"][-1] == "C"
    y = paddle.transpose(x, [0, 3, 1, 2]) if last else x
    if min(x.shape) >= 0:
        return None
    steps, (_, count, *image) = attrs["seg_num"], sizes_of(y)
    rows = paddle.reshape(y, [-1, steps, count, *image])
    first, second = (
        int(count * share)
        if isinstance(count, int)
        else paddle.cast(paddle.cast(count, "float32") * share, "int64")
        for share in (attrs["shift_ratio"], attrs["shift_ratio"] * 2)
    )
    past = paddle.slice(rows, [1, 2], [0, 0], [steps - 1, first])
    coming = paddle.slice(rows, [1, 2], [1, first], [steps, second])
    nothing = [paddle.zeros_like(paddle.slice(part, [1], [0], [1])) for part in (past, coming)]
    parts = [paddle.concat([nothing[0], past], axis=1), paddle.concat([coming, nothing[1]], axis=1)]
    result = paddle.concat([*parts, paddle.slice(rows, [2], [second], [count])], axis=2)
    result = paddle.reshape(result, sizes_of(y))
    return paddle.transpose(result, [0, 2, 3, 1]) if last else result


RULES: dict[str, Rule] = {
    "pool2d": _pool,
    "pool3d": _pool,
    "max_pool2d_with_index": _adaptive,
    "max_pool3d_with_index": _adaptive,
    "conv2d_transpose": _transpose_convolution,
    "conv2d": _channels_first,
    "depthwise_conv2d": _channels_first,
    "conv3d": _channels_first,
    "bilinear_interp": _interpolate,
    "nearest_interp": _interpolate,
    "bicubic_interp": _interpolate,
    "trilinear_interp": _interpolate,
    "linear_interp": _interpolate,
    "pixel_unshuffle": _unshuffle,
    "channel_shuffle": _shuffle,
    "affine_grid": _affine_grid,
    "deformable_conv": _deform,
    "temporal_shift": _shifted_in_time,
}
