"""Norms and normalizations."""

from __future__ import annotations

from .parts import *


def _group_norm(op: Any) -> Any:
    """Group normalization as a formula: the exporter reads the f64 epsilon as f32, and assumes that channels
    come first."""
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
    parameters = [
        None if not v.initialized() else paddle.reshape(v, [1, -1, *[1] * (len(x.shape) - 2)]) for v in others
    ]
    for value, apply in zip(parameters, (paddle.multiply, paddle.add), strict=False):
        y = y if value is None else apply(y, value)
    return paddle.transpose(y, [0, *range(2, len(x.shape)), 1]) if last else y


def _batch_norm(op: Any) -> Any:
    """Batch normalization as a formula: the exporter assumes that channels are the second dimension. It reads
    shared statistics from the first operator with them, which updates them in training."""
    attrs = op.attrs()
    x, *parameters = op.operands_source()
    mean, variance = (_before_learning(value, i) for i, value in enumerate(parameters[:2], 1))
    last = attrs["data_format"][-1] == "C" and len(x.shape) > 2
    if not last and mean.has_one_use() and mean is parameters[0]:
        return None
    if not (attrs["is_test"] or attrs["use_global_stats"]):
        return None
    shape = [-1] if last or len(x.shape) < 3 else [1, -1, *[1] * (len(x.shape) - 2)]
    middle, spread, weight, bias = (
        paddle.reshape(value, shape) if value.initialized() else None
        for value in (mean, variance, *parameters[2:])
    )
    scale = paddle.rsqrt(spread + attrs["epsilon"])
    result = (x - middle) * (scale if weight is None else scale * weight)
    return [result if bias is None else result + bias, mean, variance]


def _before_learning(value: Any, input_index: int) -> Any:
    """The statistics before other normalizations update them; at inference these do not."""
    result = value.get_defining_op()
    while result.name() in ("pd_op.batch_norm", "pd_op.batch_norm_"):
        value = result.operand_source(input_index)
        result = value.get_defining_op()
    return value


def _norm(op: Any) -> Any:
    """A norm with a finite power, or without axes: the exporter supports neither norms of all elements nor
    infinite powers."""
    x, attrs = op.operand_source(0), op.attrs()
    order, axis = attrs["porder"], attrs["axis"]
    if not attrs["asvector"] and not math.isinf(order):
        return None
    flat = attrs["asvector"]
    result = _norm_along(paddle.reshape(x, [-1]) if flat else x, order, 0 if flat else axis)
    if flat and attrs["keepdim"]:
        return paddle.reshape(result, [1] * len(x.shape))
    return result if attrs["keepdim"] else paddle.squeeze(result, axis=[0 if flat else axis])


def _norm_along(x: Any, order: float, axis: int) -> Any:
    sizes = paddle.abs(x)
    if math.isinf(order):
        return (paddle.max if order > 0 else paddle.min)(sizes, axis=[axis], keepdim=True)
    if order == 0:
        return paddle.sum(paddle.cast(sizes > 0, x.dtype), axis=[axis], keepdim=True)
    total = paddle.sum(sizes * sizes if order == 2 else paddle.pow(sizes, order), axis=[axis], keepdim=True)
    return paddle.sqrt(total) if order == 2 else paddle.pow(total, 1 / order)


def _layer_norm(op: Any) -> Any:
    """Layer normalization as a formula: the exporter refuses dynamic sizes if several dimensions are
    normalized."""
    x, weight, bias = op.operands_source()
    axis, epsilon = op.attrs()["begin_norm_axis"], op.attrs()["epsilon"]
    if axis >= len(x.shape) - 1 or min(x.shape[axis:]) >= 0:
        return None
    axes = [*range(axis, len(x.shape))]
    y = x - paddle.mean(x, axis=axes, keepdim=True)
    y = y * paddle.rsqrt(paddle.mean(y * y, axis=axes, keepdim=True) + epsilon)
    sizes = sizes_of(x)[axis:]
    for value, apply in ((weight, paddle.multiply), (bias, paddle.add)):
        y = apply(y, paddle.reshape(value, sizes)) if value.initialized() else y
    return y


def _instance_norm(op: Any) -> Any:
    """Instance normalization as a formula: the exporter refuses a dynamic number of channels."""
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


RULES: dict[str, Rule] = {
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "batch_norm_": _batch_norm,
    "p_norm": _norm,
    "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
}
