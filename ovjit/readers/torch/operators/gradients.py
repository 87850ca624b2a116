"""Gradients that PyTorch does not decompose."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.readers.numerics.convolutions import apply_filters
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.operators.nn import spread
from ovjit.readers.torch.registry import aten


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
    attributes = {
        "strides": strides,
        "dilations": spread(dilation, rank - 2),
        "pads_begin": pads,
        "pads_end": pads,
    }
    result: list[Any] = [None, None, None]
    if output_mask[0]:  # of a transposed one, what a stride left unread is behind the end
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
    swapped_attributes = {
        **attributes,
        "strides": attributes["dilations"],
        "dilations": attributes["strides"],
    }
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
