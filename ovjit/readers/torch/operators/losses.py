"""Losses whose targets are classes, and gradients that PyTorch does not decompose."""

from __future__ import annotations

from ovjit.readers.numerics.convolutions import apply_filters
from ovjit.readers.torch.operators.nn import spread
from ovjit.readers.torch.rule_language import *

#: What PyTorch's numbers of reductions stand for.
NONE, MEAN, SUM = range(3)


@aten("nll_loss", "nll_loss_nd", "nll_loss2d", "nll_loss_forward", "nll_loss2d_forward")
def nll_loss(
    n: Call, x: Output, target: Output, weight: Any = None, reduction: int = MEAN, ignore_index: int = -100
) -> Any:
    """-weight[target] x[target], with classes along dimension 1; targets equal to `ignore_index` do not
    count."""
    axis = 0 if n.rank(x) == 1 else 1
    index = n.convert(target, "i64")
    is_counted = n("NotEqual", index, n.const(ignore_index, "i64"))
    safe = n("Select", is_counted, index, n.const(0))
    losses = n("GatherElements", x, n.unsqueeze(safe, [axis]), axis=axis)
    losses = n("Negative", n.squeeze(losses, [axis]))
    zero = n.like(x, 0)
    weights = n.like(x, 1) if weight is None else n("Gather", weight, safe, n.const(0))
    weights = n("Select", is_counted, weights, zero)
    out = n("Select", is_counted, n("Multiply", losses, weights), zero)  # what is ignored may be infinite
    total = _sum(n, weights)
    if reduction != NONE:
        out = _sum(n, out)
    if reduction == MEAN:
        out = n("Divide", out, total)
    return [out, total] if n.op.endswith("forward") else out


def _sum(n: Call, x: Output) -> Output:
    return n("ReduceSum", x, list(range(n.rank(x))), keep_dims=False) if n.rank(x) else x


@aten("cross_entropy_loss")
def cross_entropy(
    n: Call, x: Output, target: Output, weight: Any = None, reduction: int = MEAN, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Output:  # fmt: skip
    """-log softmax(x) of the classes that targets name, or times targets that are probabilities."""
    axis = 0 if n.rank(x) == 1 else 1
    logs = n.also("log_softmax", x, axis)
    scale = None if weight is None else n.along(weight, axis, n.rank(x))
    if n.is_real(target):
        return _by_probabilities(n, logs, target, scale, axis, reduction, label_smoothing)
    plain = n.also("nll_loss", logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return plain
    is_counted = n("NotEqual", target, n.const(ignore_index, n.dtype(target)))
    spread = n("Negative", logs if scale is None else n("Multiply", logs, scale))
    spread = n("ReduceSum", spread, [axis], keep_dims=False)
    spread = n("Select", is_counted, spread, n.like(spread, 0))
    if reduction != NONE:
        spread = _sum(n, spread)
    if reduction == MEAN:
        safe = n("Select", is_counted, target, n.like(target, 0))
        one = n.like(x, 1) if weight is None else n("Gather", weight, safe, n.const(0))
        spread = n("Divide", spread, _sum(n, n("Select", is_counted, one, n.like(x, 0))))
    share = n("Divide", n.like(x, label_smoothing), n.to_type(n.tensor(n.size(x, axis)), n.dtype(x)))
    return n("Add", n("Multiply", plain, n.like(x, 1 - label_smoothing)), n("Multiply", spread, share))


def _by_probabilities(
    n: Call, logs: Output, target: Output, scale: Any, axis: int, reduction: int, smoothing: float
) -> Output:
    if smoothing:
        share = n("Divide", n.like(logs, smoothing), n.to_type(n.tensor(n.size(logs, axis)), n.dtype(logs)))
        target = n("Add", n("Multiply", target, n.like(target, 1 - smoothing)), share)
    terms = n("Multiply", logs, target)
    terms = terms if scale is None else n("Multiply", terms, scale)
    out = n("Negative", n("ReduceSum", terms, [axis], keep_dims=False))
    if reduction == NONE:
        return out
    out = _sum(n, out)
    if reduction == SUM or axis == 0:
        return out
    count = n.product([d for i, d in enumerate(n.sizes(logs)) if i != axis])
    return n("Divide", out, n.to_type(n.tensor(count), n.dtype(logs)))


@aten("convolution_backward")
def convolution_backward(
    n: Call, out: Output, input: Output, weight: Output, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, output_mask: Any,
) -> list[Any]:  # fmt: skip
    """Gradients of the input, the weights and the bias, by the gradient `out` of the result.

    Those of the input are the other kind of convolution. `output_mask` names the gradients that are wanted.
    """
    rank = n.rank(weight)
    strides, pads = spread(stride, rank - 2), spread(padding, rank - 2)
    attributes = {"strides": strides, "dilations": spread(dilation, rank - 2), "pads_begin": pads,
                  "pads_end": pads}  # fmt: skip
    result: list[Any] = [None, None, None]
    if output_mask[0]:  # of a transposed one, what a stride left unread is after the end
        more = {} if transposed else {"output_padding": [step - 1 for step in strides]}
        back = apply_filters(n, out, weight, groups, not transposed, **attributes, **more)
        result[0] = _cut(n, back, n.sizes(input)[2:])
    if output_mask[1]:
        input_like, filter_like = (out, input) if transposed else (input, out)
        result[1] = _of_weights(n, input_like, filter_like, groups, n.sizes(weight)[2:], attributes)
    if output_mask[2]:
        result[2] = n("ReduceSum", out, [i for i in range(rank) if i != 1], keep_dims=False)
    return result


def _of_weights(
    n: Call, x: Output, filter_like: Output, groups: int, sizes: list[Any], attributes: Any
) -> Output:
    """sum over n, i of filter_like[n, k, i] * x[n, c, stride * i + dilation * u - pad] as [k, c / groups, u].

    It is the convolution of x with the filters `filter_like`: samples are the channels, stride and dilation
    are exchanged.
    """
    swapped_attributes = attributes | {"strides": attributes["dilations"], "dilations": attributes["strides"]}
    spatial_axes = list(range(2, n.rank(x)))
    if groups == 1:
        first, filters = (n("Transpose", value, [1, 0, *spatial_axes]) for value in (x, filter_like))
        out = n("Convolution", first, filters, **swapped_attributes)
    else:
        after = [axis + 1 for axis in spatial_axes]
        parted, filters = (
            n.to_shape(v, [n.size(v, 0), groups, _part(n.size(v, 1), groups), *n.sizes(v)[2:]])
            for v in (x, filter_like)
        )
        first = n("Transpose", parted, [2, 1, 0, *after])
        first = n.to_shape(
            first, [n.size(first, 0), n.compute("Multiply", groups, n.size(x, 0)), *n.sizes(x)[2:]]
        )
        out = n("GroupConvolution", first, n("Transpose", filters, [1, 2, 0, *after]), **swapped_attributes)
    return _cut(n, n("Transpose", out, [1, 0, *spatial_axes]), sizes)


def _part(size: Any, groups: int) -> Any:
    return size // groups if isinstance(size, int) else -1


def _cut(n: Call, value: Output, sizes: list[Any]) -> Output:
    """The first `sizes` elements along the spatial axes."""
    for axis, size in enumerate(sizes, 2):
        if not isinstance(size, int) or n.size(value, axis) != size:
            value = n.cut(value, axis, 0, size)
    return value
