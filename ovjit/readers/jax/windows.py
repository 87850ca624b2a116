"""Reductions over windows: pooling along any axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ovjit.api.model.node import Output
from ovjit.readers.build import value_range
from ovjit.readers.jax.reader import JaxNode
from ovjit.readers.jax.registry import primitive
from ovjit.readers.jax.shapes import by_elements, dilated

#: A window that is reduced by a function has so many elements at most.
_MOST = 256


@primitive("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def reduce_window(n: JaxNode) -> Any:
    p = n.params
    dilated_sum = n.op_type == "reduce_window_sum" and any(int(d) != 1 for d in p["window_dilation"])
    whole_sum = n.op_type == "reduce_window_sum" and not n.is_real(n[0])
    count = sum(
        int(size) != 1 or int(step) != 1 or tuple(pad) != (0, 0)
        for size, step, pad in zip(p["window_dimensions"], p["window_strides"], p["padding"], strict=True)
    )
    if dilated_sum or whole_sum or count > 3 or any(int(d) != 1 for d in p["base_dilation"]):
        op, start = _JOINS[n.op_type](n.dtype(n[0]))
        return _by_places(n, [n[0]], [n.like(n[0], start)], lambda a, b: [n(op, a[0], b[0])])[0]
    sizes, strides = [int(v) for v in p["window_dimensions"]], [int(v) for v in p["window_strides"]]
    pads, steps = [(int(a), int(b)) for a, b in p["padding"]], [int(v) for v in p["window_dilation"]]
    shape = n.dims(n[0])
    over = [a for a in range(len(shape)) if sizes[a] != 1 or strides[a] != 1 or pads[a] != (0, 0)]
    if not over:
        return n[0]
    others = [a for a in range(len(shape)) if a not in over]
    order = [*others, *over]
    x = n.transpose(n[0], order)
    x = n.shaped(x, [math.prod(shape[a] for a in others), 1, *(shape[a] for a in over)])
    rest: dict[str, Any] = {
        "strides": [strides[a] for a in over], "kernel": [sizes[a] for a in over],
        "pads_begin": [pads[a][0] for a in over], "pads_end": [pads[a][1] for a in over],
        "rounding_type": "floor", "auto_pad": "explicit", "dilations": [steps[a] for a in over],
    }  # fmt: skip
    if n.op_type == "reduce_window_sum":
        del rest["dilations"]
        made = n("AvgPool", x, exclude_pad=False, opset=14, **rest)
        made = n("Multiply", made, n.like(made, math.prod(rest["kernel"])))
    else:
        least = n.op_type == "reduce_window_min"
        made = n("MaxPool", n("Negative", x) if least else x, opset=14, **rest)
        made = n("Negative", made) if least else made
    out = n.out_dims()
    made = n.shaped(made, [out[a] for a in order])
    return n.transpose(made, [order.index(a) for a in range(len(order))])


#: How two elements are joined, and what a reduction begins with.
_JOINS: dict[str, Callable[[str], tuple[str, Any]]] = {
    "reduce_window_sum": lambda kind: ("Add", 0),
    "reduce_window_max": lambda kind: ("Maximum", value_range(kind)[0]),
    "reduce_window_min": lambda kind: ("Minimum", value_range(kind)[1]),
}


@primitive("reduce_window")
def reduce_window_by_function(n: JaxNode) -> Any:
    count, body = len(n) // 2, n.body()
    return _by_places(n, n.inputs[:count], n.inputs[count:], lambda a, b: by_elements(n, body, [*a, *b]))


def _by_places(
    n: JaxNode, values: Sequence[Output], starts: Sequence[Output], join: Callable[..., list[Output]]
) -> list[Output]:
    """By a function of two elements: the first elements of all windows, joined with the second ones, and so
    on."""
    p = n.params
    sizes, shape = [int(v) for v in p["window_dimensions"]], n.out_dims()
    n.limited(math.prod(sizes), "elements of a window", _MOST)
    low, high = ([int(row[i]) for row in p["padding"]] for i in range(2))
    padded = []
    for x, start in zip(values, starts, strict=True):
        for axis, step in enumerate(p["base_dilation"]):
            x = dilated(n, x, axis, int(step) - 1, start)
        padded.append(n("Pad", x, low, high, start, pad_mode="constant"))
    made = [n.spread(v, shape) for v in starts]
    for place in itertools.product(*map(range, sizes)):
        begin = [k * int(d) for k, d in zip(place, p["window_dilation"], strict=True)]
        steps = [int(s) for s in p["window_strides"]]
        end = [b + (d - 1) * s + 1 for b, d, s in zip(begin, shape, steps, strict=True)]
        parts = [n("Slice", x, begin, n.lengths(end), steps, list(range(len(shape)))) for x in padded]
        made = join(made, parts)
    return made
