"""Operators of Paddle's that paddle2onnx writes wrongly or refuses, by others of Paddle's.

The process that converts models imports this file by its name. It imports nothing of ovjit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle  # type: ignore[import-not-found]

functional = paddle.nn.functional
#: What gives the value of an operator's first result, by other operators; None leaves the operator as it is.
Rule = Callable[[Any], Any]


def _leaky_relu(op: Any) -> Any:
    """The exporter reads the slope, which has 64 bits, as a number of 32."""
    x = op.operand_source(0)
    return functional.prelu(x, paddle.full([1], op.attrs()["negative_slope"], x.dtype))


def _group_norm(op: Any) -> Any:
    """The exporter reads epsilon, which has 64 bits, as a number of 32. It takes all channels to be first."""
    x, *others = op.operands_source()
    attrs = op.attrs()
    last = attrs["data_format"][-1] == "C"
    order = [0, len(x.shape) - 1, *range(1, len(x.shape) - 1)]
    y = paddle.transpose(x, order) if last else x
    shape = paddle.shape(y) if -1 in y.shape else y.shape
    y = paddle.reshape(y, [0, attrs["groups"], -1])
    y = y - paddle.mean(y, axis=[-1], keepdim=True)
    square = paddle.mean(y * y, axis=[-1], keepdim=True)
    y = paddle.reshape(y * paddle.rsqrt(square + attrs["epsilon"]), shape)
    own = [
        None if not v.initialized() else paddle.reshape(v, [1, -1, *[1] * (len(x.shape) - 2)]) for v in others
    ]
    for value, apply in zip(own, (paddle.multiply, paddle.add), strict=False):
        y = y if value is None else apply(y, value)
    return paddle.transpose(y, [0, *range(2, len(x.shape)), 1]) if last else y


def _batch_norm(op: Any) -> Any:
    """The exporter takes channels to be the second dimension. It reads statistics that several operators use
    from the first of these, which writes them when a model learns."""
    attrs = op.attrs()
    x, *given = op.operands_source()
    mean, variance = (_before_learning(value, i) for i, value in enumerate(given[:2], 1))
    last = attrs["data_format"][-1] == "C" and len(x.shape) > 2
    if not last and mean.has_one_use() and mean is given[0]:
        return None
    if not (attrs["is_test"] or attrs["use_global_stats"]):
        return None
    shape = [-1] if last or len(x.shape) < 3 else [1, -1, *[1] * (len(x.shape) - 2)]
    middle, spread, weight, bias = (
        paddle.reshape(value, shape) if value.initialized() else None
        for value in (mean, variance, *given[2:])
    )
    scale = paddle.rsqrt(spread + attrs["epsilon"])
    made = (x - middle) * (scale if weight is None else scale * weight)
    return [made if bias is None else made + bias, mean, variance]


def _before_learning(value: Any, place: int) -> Any:
    """What statistics are that other normalizations write, which do not learn."""
    made = value.get_defining_op()
    while made.name() in ("pd_op.batch_norm", "pd_op.batch_norm_"):
        value = made.operand_source(place)
        made = value.get_defining_op()
    return value


def _norm(op: Any) -> Any:
    """The exporter does not know norms of all elements, and computes infinite powers."""
    x, attrs = op.operand_source(0), op.attrs()
    order, axis = attrs["porder"], attrs["axis"]
    if not attrs["asvector"] and not math.isinf(order):
        return None
    flat = attrs["asvector"]
    made = _norm_along(paddle.reshape(x, [-1]) if flat else x, order, 0 if flat else axis)
    if flat and attrs["keepdim"]:
        return paddle.reshape(made, [1] * len(x.shape))
    return made if attrs["keepdim"] else paddle.squeeze(made, axis=[0 if flat else axis])


def _norm_along(x: Any, order: float, axis: int) -> Any:
    sizes = paddle.abs(x)
    if math.isinf(order):
        return (paddle.max if order > 0 else paddle.min)(sizes, axis=[axis], keepdim=True)
    if order == 0:
        return paddle.sum(paddle.cast(sizes > 0, x.dtype), axis=[axis], keepdim=True)
    total = paddle.sum(sizes * sizes if order == 2 else paddle.pow(sizes, order), axis=[axis], keepdim=True)
    return paddle.sqrt(total) if order == 2 else paddle.pow(total, 1 / order)


def _of_one_axis(function: Callable[..., Any], x: Any) -> Any:
    """A number, by way of a tensor of one element: the exporter gives no other reduction no dimensions."""
    return paddle.squeeze(function(x, axis=[0], keepdim=True), axis=[0])


def _of_all(function: Callable[..., Any]) -> Rule:
    """The exporter refuses reductions of all elements, or gives them a dimension."""

    def rule(op: Any) -> Any:
        if op.result(0).shape or not op.operand_source(0).shape:
            return None
        return _of_one_axis(function, paddle.reshape(op.operand_source(0), [-1]))

    return rule


def _adaptive(op: Any) -> Any:
    """The exporter takes windows of adaptive pooling to be of one size, and steps to be equal."""
    attrs, x, wanted = op.attrs(), op.operand_source(0), op.result(0).shape
    if not attrs["adaptive"] or attrs.get("data_format", "NCHW")[-1] == "C" or len(wanted) < 3:
        return None
    if any(not result.use_empty() for result in op.results()[1:]):
        return None
    average = attrs.get("pooling_type") == "avg"
    sizes = list(zip(x.shape[2:], wanted[2:], strict=True))
    if min(wanted[2:]) < 1 or all(size > 0 and size % count == 0 for size, count in sizes):
        return None
    reduce = paddle.mean if average else paddle.max
    for axis, count in enumerate(wanted[2:], 2):
        x = _in_windows(x, reduce, axis, _sizes(x)[axis], count)
    return x


def _in_windows(x: Any, reduce: Callable[..., Any], axis: int, size: Any, count: int) -> Any:
    """Window i of `count` has the elements from i size / count to (i + 1) size / count, rounded outwards."""
    if count == 1:
        return reduce(x, axis=[axis], keepdim=True)
    ends = [(i * size // count, ((i + 1) * size + count - 1) // count) for i in range(count)]
    parts = [paddle.slice(x, [axis], [first], [end]) for first, end in ends]
    return paddle.concat([reduce(part, axis=[axis], keepdim=True) for part in parts], axis=axis)


def _transposed(op: Any) -> Any:
    """The exporter ignores the size that a transposed convolution is to have, and has its own "SAME"."""
    attrs, wanted = op.attrs(), op.result(0).shape
    x, weight = op.operand_source(0), op.operand_source(1)
    algorithm, dims = attrs["padding_algorithm"], len(wanted) - 2
    if algorithm == "VALID" or attrs["output_padding"]:
        return None
    if attrs["data_format"][-1] == "C" or dims != 2 or min([*x.shape[2:], *weight.shape, *wanted[2:]]) < 1:
        if algorithm == "SAME":
            raise NotImplementedError("transposed convolutions with the padding 'SAME' need known sizes")
        return None
    pads = _same_pads(op) if algorithm == "SAME" else attrs["paddings"]
    pads = pads if len(pads) == 2 * dims else [pad for pad in pads for _ in range(2)]
    more = []
    for i in range(dims):
        covered = attrs["dilations"][i] * (weight.shape[2 + i] - 1) + 1
        made = (x.shape[2 + i] - 1) * attrs["strides"][i] - pads[2 * i] - pads[2 * i + 1] + covered
        more.append(wanted[2 + i] - made)
    if algorithm == "EXPLICIT" and (not any(more) or min(more) < 0):
        return None
    return functional.conv2d_transpose(
        x, weight, stride=attrs["strides"], padding=pads, output_padding=more, groups=attrs["groups"],
        dilation=attrs["dilations"] if algorithm == "EXPLICIT" else 1,
    )  # fmt: skip


def _same_pads(op: Any) -> list[int]:
    """What Paddle pads by "SAME": it takes the sizes of the input for those of a convolution's input."""
    pads = []
    for size, step, window in zip(
        op.operand_source(0).shape[2:], op.attrs()["strides"], op.operand_source(1).shape[2:], strict=True
    ):
        total = max((-(-size // step) - 1) * step + window - size, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _sizes(x: Any) -> list[Any]:
    """The sizes of a tensor: numbers where they are known, else tensors without dimensions."""
    if all(size >= 0 for size in x.shape):
        return list(x.shape)
    shape = paddle.shape(x)
    return [size if size >= 0 else shape[axis] for axis, size in enumerate(x.shape)]


def _counted(size: Any) -> Any:
    """The numbers below a size, in 64 bits."""
    return paddle.arange(0, size, 1, dtype="int64")


def _constant(value: Any) -> list[Any] | None:
    """What an operand states, where it is a constant."""
    made = value.get_defining_op()
    if made.name() not in ("pd_op.full", "pd_op.full_int_array"):
        return None
    stated = made.attrs()["value"]
    return list(stated) if isinstance(stated, (list, tuple)) else [stated]


def _parts_of(value: Any) -> list[Any]:
    """The tensors of a list that a program puts together."""
    return list(value.get_defining_op().operands_source())


def _channels_first(op: Any) -> Any:
    """The exporter refuses images whose channels are last."""
    attrs, x = op.attrs(), op.operand_source(0)
    layout = attrs.get("data_format", "NCHW")
    if layout[-1] != "C" or len(x.shape) < 3:
        return None
    rank = len(x.shape)
    first = paddle.transpose(x, [0, rank - 1, *range(1, rank - 1)])
    made = _LAYOUTS[op.name().removeprefix("pd_op.")](op, first, attrs, rank - 2)
    return None if made is None else paddle.transpose(made, [0, *range(2, rank), 1])


def _convolved(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
    padding = attrs["paddings"] if attrs["padding_algorithm"] == "EXPLICIT" else attrs["padding_algorithm"]
    convolve = {2: functional.conv2d, 3: functional.conv3d}[dims]
    return convolve(
        x, op.operand_source(1), stride=attrs["strides"], padding=padding, dilation=attrs["dilations"],
        groups=attrs["groups"],
    )  # fmt: skip


def _pooled(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
    window = _constant(op.operand_source(1))
    if window is None or (attrs["adaptive"] and any(size != 1 for size in window)):
        return None
    average = attrs["pooling_type"] == "avg"
    if attrs["adaptive"] or attrs["global_pooling"]:
        return (paddle.mean if average else paddle.max)(x, axis=[*range(2, dims + 2)], keepdim=True)
    padding = attrs["paddings"] if attrs["padding_algorithm"] == "EXPLICIT" else attrs["padding_algorithm"]
    pool = getattr(functional, f"{'avg' if average else 'max'}_pool{dims}d")
    more = {"exclusive": attrs["exclusive"]} if average else {}
    return pool(x, window, attrs["strides"], padding, ceil_mode=attrs["ceil_mode"], **more)


def _resized(op: Any, x: Any, attrs: dict[str, Any], dims: int) -> Any:
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


def _interpolated(op: Any) -> Any:
    attrs, x = op.attrs(), op.operand_source(0)
    if attrs["data_format"][-1] == "C":
        return _channels_first(op)
    return _resized(op, x, attrs, len(x.shape) - 2) if attrs["scale"] else None


_LAYOUTS: dict[str, Callable[..., Any]] = {
    "conv2d": _convolved, "depthwise_conv2d": _convolved, "conv3d": _convolved, "pool2d": _pooled,
    "pool3d": _pooled, "bilinear_interp": _resized, "nearest_interp": _resized, "bicubic_interp": _resized,
    "trilinear_interp": _resized, "linear_interp": _resized,
}  # fmt: skip


def _pool(op: Any) -> Any:
    return _channels_first(op) if op.attrs()["data_format"][-1] == "C" else _adaptive(op)


def _layer_norm(op: Any) -> Any:
    """The exporter refuses open sizes where more than the last dimension is normalized."""
    x, weight, bias = op.operands_source()
    axis, epsilon = op.attrs()["begin_norm_axis"], op.attrs()["epsilon"]
    if axis >= len(x.shape) - 1 or min(x.shape[axis:]) >= 0:
        return None
    axes = [*range(axis, len(x.shape))]
    y = x - paddle.mean(x, axis=axes, keepdim=True)
    y = y * paddle.rsqrt(paddle.mean(y * y, axis=axes, keepdim=True) + epsilon)
    own = _sizes(x)[axis:]
    for value, apply in ((weight, paddle.multiply), (bias, paddle.add)):
        y = apply(y, paddle.reshape(value, own)) if value.initialized() else y
    return y


def _instance_norm(op: Any) -> Any:
    """The exporter refuses an open number of channels."""
    x, weight, bias = op.operands_source()
    if x.shape[1] >= 0:
        return None
    axes = [*range(2, len(x.shape))]
    y = x - paddle.mean(x, axis=axes, keepdim=True)
    y = y * paddle.rsqrt(paddle.mean(y * y, axis=axes, keepdim=True) + op.attrs()["epsilon"])
    for value, apply in ((weight, paddle.multiply), (bias, paddle.add)):
        if value.initialized():
            y = apply(y, paddle.reshape(value, [1, -1, *[1] * len(axes)]))
    return y


def _flip(op: Any) -> Any:
    """The exporter refuses open sizes."""
    x = op.operand_source(0)
    axes = op.attrs()["axis"]
    if all(x.shape[axis] >= 0 for axis in axes):
        return None
    for axis in axes:
        size = _sizes(x)[axis]
        x = paddle.gather(x, size - 1 - _counted(size), axis=axis % len(x.shape))
    return x


def _deformed(op: Any) -> Any:
    """The exporter needs a mask."""
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


def _recurrent(op: Any) -> None:
    """The exporter ignores lengths of sequences."""
    if op.operand_source(op.num_operands() - 2).initialized():
        raise NotImplementedError("recurrent layers with lengths of sequences (pd_op.rnn)")


def _corners(boxes: Any, more: float, axis: int) -> tuple[Any, Any, Any, Any]:
    """Centres and sizes of boxes of corners. Sizes are greater by `more`."""
    left, top, right, bottom = (paddle.slice(boxes, [-1], [i], [i + 1]) for i in range(4))
    width, height = right - left + more, bottom - top + more
    made = (left + width / 2, top + height / 2, width, height)
    return made if len(boxes.shape) > 2 else tuple(paddle.unsqueeze(part, axis) for part in made)


def _box_coder(op: Any) -> Any:
    boxes, variances, targets = op.operands_source()
    attrs = op.attrs()
    more = 0.0 if attrs["box_normalized"] else 1.0
    encode, axis = "encode" in attrs["code_type"], attrs["axis"]
    x, y, width, height = _corners(boxes, more, 0 if encode else axis)
    if variances.initialized():
        places = variances if len(variances.shape) < 2 else paddle.unsqueeze(variances, 0 if encode else axis)
        scales = [paddle.slice(places, [-1], [i], [i + 1]) for i in range(4)]
    else:
        scales = list(attrs["variance"] or [1.0] * 4)
    if encode:
        left, top, wide, high = _corners(targets, more, 1)
        made = [(left - x) / width, (top - y) / height, paddle.log(wide / width), paddle.log(high / height)]
        return paddle.concat([part / scale for part, scale in zip(made, scales, strict=True)], axis=-1)
    parts = [paddle.slice(targets, [2], [i], [i + 1]) * scales[i] for i in range(4)]
    x, y = parts[0] * width + x, parts[1] * height + y
    width, height = paddle.exp(parts[2]) * width / 2, paddle.exp(parts[3]) * height / 2
    return paddle.concat([x - width, y - height, x + width - more, y + height - more], axis=-1)


def _prior_box(op: Any) -> Any:
    """Boxes around the middle of each pixel, of sizes that do not depend on values."""
    attrs, (x, image) = op.attrs(), op.operands_source()
    (rows, columns), (height, width) = x.shape[2:], image.shape[2:]
    if min(rows, columns, height, width) < 1:
        return None
    ratios = [1.0]
    for ratio in attrs["aspect_ratios"]:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if attrs["flip"] else [ratio]
    sizes = []
    for i, least in enumerate(attrs["min_sizes"]):
        own = [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in ratios]
        between = [(math.sqrt(least * most),) * 2 for most in attrs["max_sizes"][i : i + 1]]
        sizes += [own[0], *between, *own[1:]] if attrs["min_max_aspect_ratios_order"] else [*own, *between]
    steps = attrs["step_w"] or width / columns, attrs["step_h"] or height / rows
    centers = np.meshgrid(
        *((np.arange(n) + attrs["offset"]) * s for n, s in zip((columns, rows), steps, strict=True))
    )
    middle = np.stack(centers, -1)[:, :, None]
    half = np.array(sizes) / 2
    boxes = np.concatenate([middle - half, middle + half], -1) / ([width, height] * 2)
    boxes = np.clip(boxes, 0, 1) if attrs["clip"] else boxes
    made = boxes.astype(np.float32), np.broadcast_to(np.float32(attrs["variances"]), boxes.shape).copy()
    return [paddle.assign(value) for value in made]


def _split(op: Any) -> Any:
    """The exporter refuses to divide an open size, and sections that are not all stated."""
    x = op.operand_source(0)
    axis = (_constant(op.operand_source(op.num_operands() - 1)) or [None])[0]
    if axis is None or x.shape[int(axis)] >= 0:
        return None
    axis = int(axis) % len(x.shape)
    size = paddle.shape(x)[axis]
    if "num" in op.attrs():
        count = op.attrs()["num"]
        sections = [size // count] * count
    else:
        stated = _constant(op.operand_source(1))
        if stated is None:
            return None
        rest = size - sum(part for part in stated if part >= 0)
        sections = [part if part >= 0 else rest for part in stated]
    parts, first = [], 0
    for section in sections:
        parts.append(paddle.slice(x, [axis], [first], [first + section]))
        first = first + section
    return [parts]


def _repeat(op: Any) -> Any:
    """The exporter repeats open dimensions wrongly."""
    x, axis, count = (
        op.operand_source(0),
        op.attrs()["axis"] % len(op.operand_source(0).shape),
        op.attrs()["repeats"],
    )
    if min(x.shape) >= 0:
        return None
    shape = _sizes(x)
    shape[axis] = shape[axis] * count
    return paddle.reshape(paddle.concat([paddle.unsqueeze(x, axis + 1)] * count, axis=axis + 1), shape)


def _broadcast(op: Any) -> Any:
    values = _parts_of(op.operand_source(0))
    if values[0].dtype == paddle.bool:
        return None
    nothing = paddle.zeros_like(values[0])
    for value in values[1:]:
        nothing = nothing + paddle.zeros_like(value)
    return [[value + nothing for value in values]]


def _kron(op: Any) -> Any:
    x, y = op.operands_source()
    rank = max(len(x.shape), len(y.shape))
    x, y = (paddle.unsqueeze(v, [*range(rank - len(v.shape))]) if len(v.shape) < rank else v for v in (x, y))
    shape = [a * b for a, b in zip(_sizes(x), _sizes(y), strict=True)]
    x = paddle.unsqueeze(x, [*range(1, 2 * rank, 2)])
    return paddle.reshape(x * paddle.unsqueeze(y, [*range(0, 2 * rank, 2)]), shape)


def _cross(op: Any) -> Any:
    x, y = op.operands_source()
    axis = op.attrs()["axis"]
    if axis == 9:  # it is not stated
        axis = next((i for i, size in enumerate(x.shape) if size == 3), None)
        if axis is None:
            return None
    turned = [[paddle.roll(v, by, axis) for by in (-1, -2)] for v in (x, y)]
    return turned[0][0] * turned[1][1] - turned[0][1] * turned[1][0]


def _on_diagonal(rows: Any, columns: Any, offset: int) -> Any:
    """Where a matrix of these sizes has its diagonal."""
    return paddle.unsqueeze(_counted(rows), 1) + offset == paddle.unsqueeze(_counted(columns), 0)


def _trace(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axes = [attrs["axis1"] % len(x.shape), attrs["axis2"] % len(x.shape)]
    x = paddle.transpose(x, [*(i for i in range(len(x.shape)) if i not in axes), *axes])
    rows, columns = _sizes(x)[-2:]
    inside = paddle.cast(_on_diagonal(rows, columns, attrs["offset"]), x.dtype)
    made = paddle.sum(paddle.sum(x * inside, axis=[-1]), axis=[-1], keepdim=True)
    return paddle.squeeze(made, axis=[-1])


def _diag_embed(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    rank = len(x.shape) + 1
    axes = [attrs["dim1"] % rank, attrs["dim2"] % rank]
    made = _as_diagonal(x, attrs["offset"], 0)
    order = [i for i in range(rank) if i not in axes] + axes
    return paddle.transpose(made, [order.index(i) for i in range(rank)])


def _diag(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    if len(x.shape) == 1:
        return _as_diagonal(x, attrs["offset"], attrs["padding_value"])
    offset, (rows, columns) = attrs["offset"], x.shape
    if min(x.shape) < 0:
        return None
    first = np.arange(max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)))
    places = np.stack([first - min(offset, 0), first + max(offset, 0)], -1)
    return paddle.gather_nd(x, paddle.assign(places.astype(np.int64)))


def _as_diagonal(x: Any, offset: int, fill: float) -> Any:
    """Matrices that have the last dimension on their diagonal."""
    size = _sizes(x)[-1] + abs(offset)
    more = paddle.zeros([*_sizes(x)[:-1], abs(offset)], x.dtype) if offset else None
    padded = x if more is None else paddle.concat([more, x] if offset > 0 else [x, more], axis=-1)
    row = paddle.unsqueeze(padded, -2)
    return paddle.where(_on_diagonal(size, size, offset), row, paddle.full([1], fill, x.dtype))


def _scanned(x: Any, axis: int, first: float, join: Callable[..., Any]) -> Any:
    """What `join` makes of the elements up to each one, by steps of 1, 2, 4, ...; None for open sizes."""
    size, step = x.shape[axis], 1
    if size < 0:
        return None
    while step < size:
        shape = [step if i == axis % len(x.shape) else n for i, n in enumerate(_sizes(x))]
        before = paddle.concat(
            [paddle.full(shape, first, x.dtype), paddle.slice(x, [axis], [0], [size - step])], axis=axis
        )
        x, step = join(x, before), step * 2
    return x


def _cumprod(op: Any) -> Any:
    attrs = op.attrs()
    if attrs["exclusive"] or attrs["reverse"]:
        return None
    return _scanned(op.operand_source(0), attrs["dim"], 1, paddle.multiply)


def _log_of_sum(x: Any, y: Any) -> Any:
    return paddle.maximum(x, y) + paddle.log1p(paddle.exp(-paddle.abs(x - y)))


def _logcumsumexp(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    if attrs["exclusive"] or attrs["reverse"]:
        return None
    x = paddle.reshape(x, [-1]) if attrs["flatten"] else x
    return _scanned(x, 0 if attrs["flatten"] else attrs["axis"], -1e30, _log_of_sum)


def _extreme(join: Callable[..., Any], first: float) -> Rule:
    def rule(op: Any) -> Any:
        if not op.result(1).use_empty() or "float" not in str(op.operand_source(0).dtype):
            return None
        return _scanned(op.operand_source(0), op.attrs()["axis"], first, join)

    return rule


def _searchsorted(op: Any) -> Any:
    ordered, values = op.operands_source()
    attrs = op.attrs()
    compare = paddle.less_equal if attrs["right"] else paddle.less_than
    values = paddle.unsqueeze(values, -1)
    ordered = paddle.unsqueeze(ordered, -2) if len(ordered.shape) > 1 else ordered
    before = paddle.cast(compare(ordered, values), "int32" if attrs["out_int32"] else "int64")
    return paddle.sum(before, axis=[-1])


def _kthvalue(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axis, place = attrs["axis"] % len(x.shape), attrs["k"] - 1
    found = paddle.topk(x, attrs["k"], axis=axis, largest=False)
    parts = [paddle.slice(part, [axis], [place], [place + 1]) for part in found]
    return parts if attrs["keepdim"] else [paddle.squeeze(part, axis=[axis]) for part in parts]


def _multiplex(op: Any) -> Any:
    made, *values = _parts_of(op.operand_source(0))
    index = paddle.reshape(op.operand_source(1), [-1, *[1] * (len(made.shape) - 1)])
    for place, value in enumerate(values, 1):
        made = paddle.where(index == place, value, made)
    return made


def _unshuffled(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    last, by = attrs["data_format"][-1] == "C", attrs["downscale_factor"]
    x = paddle.transpose(x, [0, 3, 1, 2]) if last else x
    n, c, h, w = _sizes(x)
    x = paddle.reshape(x, [n, c, h // by, by, w // by, by])
    x = paddle.reshape(paddle.transpose(x, [0, 1, 3, 5, 2, 4]), [n, c * by * by, h // by, w // by])
    return paddle.transpose(x, [0, 2, 3, 1]) if last else x


def _shuffled(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axis = len(x.shape) - 1 if attrs["data_format"][-1] == "C" else 1
    sizes, groups = _sizes(x), attrs["groups"]
    parts = [*sizes[:axis], groups, sizes[axis] // groups, *sizes[axis + 1 :]]
    order = [*range(axis), axis + 1, axis, *range(axis + 2, len(parts))]
    return paddle.reshape(paddle.transpose(paddle.reshape(x, parts), order), sizes)


def _maxout(op: Any) -> Any:
    x, groups = op.operand_source(0), op.attrs()["groups"]
    axis, sizes = op.attrs()["axis"] % len(x.shape), _sizes(x)
    parts = [*sizes[:axis], sizes[axis] // groups, groups, *sizes[axis + 1 :]]
    return paddle.max(paddle.reshape(x, parts), axis=[axis + 1])


def _sequence_mask(op: Any) -> Any:
    x, size = op.operands_source()
    size = _constant(size) if size.initialized() else [-1]
    if size is None:
        return None
    count = int(size[0]) if size[0] >= 0 else _of_one_axis(paddle.max, paddle.reshape(x, [-1]))
    return paddle.cast(
        _counted(count) < paddle.unsqueeze(paddle.cast(x, "int64"), -1), op.attrs()["out_dtype"]
    )


def _shard_index(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    size = (attrs["index_num"] + attrs["nshards"] - 1) // attrs["nshards"]
    inside = x // size == attrs["shard_id"]
    return paddle.where(inside, x % size, paddle.full([1], attrs["ignore_value"], x.dtype))


def _affine_grid(op: Any) -> Any:
    theta, size, aligned = op.operand_source(0), _constant(op.operand_source(1)), op.attrs()["align_corners"]
    if size is None or len(size) not in (4, 5):
        return None
    steps = [(2 * np.arange(n) + 1) / n - 1 if not aligned else np.linspace(-1, 1, n) for n in size[2:]]
    grid = [*reversed(np.meshgrid(*steps, indexing="ij"))]
    points = np.stack([*grid, np.ones_like(grid[0])], -1).reshape(1, -1, len(grid) + 1).astype(np.float32)
    made = paddle.matmul(paddle.cast(paddle.assign(points), theta.dtype), paddle.transpose(theta, [0, 2, 1]))
    return paddle.reshape(made, [-1, *size[2:], len(grid)])


def _index_add(op: Any) -> Any:
    x, index, value = op.operands_source()
    axis = op.attrs()["axis"] % len(x.shape)
    order = [axis, *(i for i in range(len(x.shape)) if i != axis)]
    back = [order.index(i) for i in range(len(order))]
    made = paddle.scatter_nd_add(
        paddle.transpose(x, order), paddle.unsqueeze(index, 1), paddle.transpose(value, order)
    )
    return paddle.transpose(made, back)


def _lp_pool(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    window, order = _window(op), attrs["norm_type"]
    if attrs["ceil_mode"] or attrs["adaptive"] or window is None or attrs["padding_algorithm"] != "EXPLICIT":
        return None
    if attrs["data_format"][-1] == "C" or math.isinf(order):
        return None
    powers = x * x if order == 2 else paddle.pow(x, order)
    means = functional.avg_pool2d(powers, window, attrs["strides"], attrs["paddings"], exclusive=False)
    return paddle.pow(means * float(np.prod(window)), 1 / order)


def _window(op: Any) -> list[Any] | None:
    return op.attrs().get("kernel_size") or _constant(op.operand_source(1))


def _crop(op: Any) -> Any:
    x, shape, offsets = op.operand_source(0), _constant(op.operand_source(1)), _constant(op.operand_source(2))
    if shape is None or offsets is None:
        return None
    ends = [first + size if size >= 0 else 2**31 - 1 for first, size in zip(offsets, shape, strict=True)]
    return paddle.slice(x, [*range(len(shape))], offsets, ends)


def _matrix_power(op: Any) -> Any:
    x, count = op.operand_source(0), op.attrs()["n"]
    if count < 1:
        return None
    made = x
    for _ in range(count - 1):
        made = paddle.matmul(made, x)
    return made


def _bilinear(op: Any) -> Any:
    x, y, weight, bias = op.operands_source()
    made = paddle.matmul(paddle.unsqueeze(x, [1, 2]), paddle.unsqueeze(weight, 0))
    made = paddle.sum(paddle.squeeze(made, axis=[2]) * paddle.unsqueeze(y, 1), axis=[-1])
    return made + bias if bias.initialized() else made


def _label_smooth(op: Any) -> Any:
    x, prior = op.operands_source()
    epsilon = op.attrs()["epsilon"]
    if prior.initialized():
        return x * (1 - epsilon) + prior * epsilon
    return None if x.shape[-1] < 0 else x * (1 - epsilon) + epsilon / x.shape[-1]


def _huber(op: Any) -> Any:
    x, label = op.operands_source()
    delta = op.attrs()["delta"]
    off = paddle.abs(label - x)
    return paddle.where(off <= delta, off * off * 0.5, (off - delta / 2) * delta)


def _divergence(op: Any) -> Any:
    x, target = op.operands_source()
    attrs = op.attrs()
    if attrs["reduction"] != "none":
        return None
    if attrs["log_target"]:
        return paddle.exp(target) * (target - x)
    inside = target > 0
    ones = paddle.ones_like(target)
    return paddle.where(inside, target * (paddle.log(paddle.where(inside, target, ones)) - x), ones * 0)


def _cross_entropy_of_logits(op: Any) -> Any:
    x, target, weight = op.operands_source()
    attrs = op.attrs()
    if attrs["normalize"]:
        return None
    rest = paddle.log1p(paddle.exp(-paddle.abs(x)))
    if weight.initialized():
        made = (1 - target) * x + (1 + (weight - 1) * target) * (rest + functional.relu(-x))
    else:
        made = functional.relu(x) - x * target + rest
    return paddle.where(target == attrs["ignore_index"], paddle.zeros_like(made), made)


def _same_everywhere(x: Any, y: Any, equal: Any) -> Any:
    if x.shape != y.shape or min([*x.shape, 0]) < 0:
        return None
    return _of_one_axis(paddle.all, paddle.reshape(equal, [-1])) if len(x.shape) else equal


def _near(op: Any) -> Any:
    x, y, *limits = op.operands_source()
    relative, absolute = (_constant(limit) for limit in limits)
    if relative is None or absolute is None or op.attrs()["equal_nan"]:
        return None
    near = paddle.abs(x - y) <= paddle.abs(y) * float(relative[0]) + float(absolute[0])
    return paddle.logical_or(near, x == y)


def _allclose(op: Any) -> Any:
    near = _near(op)
    return None if near is None else _same_everywhere(op.operand_source(0), op.operand_source(1), near)


def _gelu(op: Any) -> Any:
    """The exporter ignores that it is to be approximated."""
    x = op.operand_source(0)
    if not op.attrs()["approximate"]:
        return None
    return x * 0.5 * (paddle.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1)


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction along axes, or to a number."""

    def reduce(x: Any, axis: list[int], keepdim: bool, **_: Any) -> Any:
        if axis or keepdim:
            return function(x, axis=axis or [*range(len(x.shape))], keepdim=keepdim)
        return _of_one_axis(function, paddle.reshape(x, [-1]))

    return reduce


def _other_than_nan(join: Callable[..., Any]) -> Rule:
    def rule(op: Any) -> Any:
        x, y = op.operands_source()
        if "float" not in str(x.dtype):
            return join(x, y)
        return paddle.where(paddle.isnan(x), y, paddle.where(paddle.isnan(y), x, join(x, y)))

    return rule


def _distance(op: Any) -> Any:
    """The exporter gives it a dimension."""
    x, y = op.operands_source()
    return _of_one_axis(
        lambda flat, axis, keepdim: _norm_along(flat, op.attrs()["p"], axis[0]), paddle.reshape(x - y, [-1])
    )


def _of_numbers(function: Callable[..., Any]) -> Rule:
    """A rule for an operator of a function of its tensors and attributes."""
    return lambda op: function(*op.operands_source(), **op.attrs())


def _asinh(x: Any, **_: Any) -> Any:
    size = paddle.abs(x)
    return paddle.sign(x) * paddle.log1p(size + size * size / (1 + paddle.sqrt(size * size + 1)))


def _expm1(x: Any) -> Any:
    half = paddle.tanh(paddle.minimum(x, paddle.ones_like(x)) / 2)
    return paddle.where(x < 1, half * 2 / (1 - half), paddle.exp(x) - 1)


def _is_negative(x: Any) -> Any:
    return paddle.logical_or(x < 0, 1 / x < 0)  # the reciprocal tells -0.0


def _logit(x: Any, eps: float, **_: Any) -> Any:
    x = paddle.clip(x, eps, 1 - eps) if eps > 0 else x
    return paddle.log(x / (1 - x))


def _chosen(condition: Any, one: Any, other: float) -> Any:
    return paddle.where(condition, one, paddle.full([1], other, one.dtype))


#: Operators that the exporter does not know.
FORMULAS: dict[str, Callable[..., Any]] = {
    "addmm": lambda c, x, y, alpha, beta, **_: paddle.matmul(x, y) * alpha + c * beta,
    "amax": _along(paddle.max),
    "amin": _along(paddle.min),
    "angle": lambda x, **_: paddle.where(x < 0, paddle.full_like(x, math.pi), x * 0),
    "acosh": lambda x, **_: paddle.log(x + paddle.sqrt(x * x - 1)),
    "asinh": _asinh,
    "atanh": lambda x, **_: paddle.log1p(x * 2 / (1 - x)) / 2,
    "bitwise_left_shift": lambda x, y, **_: x * paddle.cast(2.0 ** paddle.cast(y, "float32"), x.dtype),
    "bitwise_right_shift": lambda x, y, **_: x // paddle.cast(2.0 ** paddle.cast(y, "float32"), x.dtype),
    "celu": lambda x, alpha, **_: functional.relu(x) - functional.relu(-_expm1(x / alpha) * alpha),
    "copysign": lambda x, y, **_: paddle.abs(x) * paddle.where(_is_negative(y), y * 0 - 1, y * 0 + 1),
    "expm1": lambda x, **_: _expm1(x),
    "heaviside": lambda x, y, **_: paddle.where(x == 0, y, paddle.cast(x > 0, y.dtype)),
    "increment_": lambda x, value, **_: x + value,
    "lerp": lambda x, y, weight, **_: x + weight * (y - x),
    "logit": _logit,
    "masked_fill": lambda x, mask, value, **_: paddle.where(mask, value, x),
    "rrelu": lambda x, lower, upper, **_: paddle.where(x >= 0, x, x * ((lower + upper) / 2)),
    "stanh": lambda x, scale_a, scale_b, **_: paddle.tanh(x * scale_a) * scale_b,
    "trunc": lambda x, **_: paddle.sign(x) * paddle.floor(paddle.abs(x)),
}

RULES: dict[str, Rule] = {
    **{name: _of_numbers(function) for name, function in FORMULAS.items()},
    "leaky_relu": _leaky_relu, "leaky_relu_": _leaky_relu, "group_norm": _group_norm,
    "batch_norm": _batch_norm, "batch_norm_": _batch_norm, "p_norm": _norm, "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
    "all": _of_all(paddle.all), "any": _of_all(paddle.any), "mean": _of_all(paddle.mean),
    "sum": _of_all(paddle.sum), "logsumexp": _of_all(paddle.logsumexp), "gelu": _gelu, "isclose": _near,
    "max": _of_all(paddle.max), "min": _of_all(paddle.min),
    "prod": _of_all(lambda x, axis, keepdim: paddle.prod(x, axis[0], keepdim)),
    "pool2d": _pool, "pool3d": _pool, "max_pool2d_with_index": _adaptive,
    "max_pool3d_with_index": _adaptive, "lp_pool2d": _lp_pool, "conv2d_transpose": _transposed,
    "conv2d": _channels_first, "depthwise_conv2d": _channels_first, "conv3d": _channels_first,
    "bilinear_interp": _interpolated, "nearest_interp": _interpolated, "bicubic_interp": _interpolated,
    "trilinear_interp": _interpolated, "linear_interp": _interpolated,
    "flip": _flip, "split": _split, "split_with_num": _split, "repeat_interleave": _repeat,
    "broadcast_tensors": _broadcast, "kron": _kron, "cross": _cross, "trace": _trace, "diag": _diag,
    "diag_embed": _diag_embed, "cumprod": _cumprod, "logcumsumexp": _logcumsumexp,
    "cummax": _extreme(paddle.maximum, -math.inf), "cummin": _extreme(paddle.minimum, math.inf),
    "searchsorted": _searchsorted, "kthvalue": _kthvalue, "multiplex": _multiplex,
    "pixel_unshuffle": _unshuffled, "channel_shuffle": _shuffled, "maxout": _maxout,
    "sequence_mask": _sequence_mask, "shard_index": _shard_index, "affine_grid": _affine_grid,
    "index_add": _index_add, "index_add_": _index_add, "crop": _crop, "matrix_power": _matrix_power,
    "bilinear": _bilinear, "label_smooth": _label_smooth, "huber_loss": _huber, "kldiv_loss": _divergence,
    "sigmoid_cross_entropy_with_logits": _cross_entropy_of_logits,
    "equal_all": lambda op: _same_everywhere(
        op.operand_source(0), op.operand_source(1), paddle.equal(*op.operands_source())
    ),
    "allclose": _allclose, "fmax": _other_than_nan(paddle.maximum), "fmin": _other_than_nan(paddle.minimum),
    "masked_select": lambda op: paddle.gather_nd(op.operand_source(0), paddle.nonzero(op.operand_source(1))),
    "dist": _distance, "deformable_conv": _deformed, "rnn": _recurrent, "box_coder": _box_coder,
    "prior_box": _prior_box,
}  # fmt: skip
