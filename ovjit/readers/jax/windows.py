"""Reductions over windows: pooling along any axes."""

from __future__ import annotations

import itertools
import math
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import JaxNode
from ovjit.readers.jax.registry import primitive
from ovjit.readers.jax.shapes import by_elements

#: A window that is reduced by a function has so many elements at most.
_MOST = 256


@primitive("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def reduce_window(n: JaxNode) -> Any:
    p = n.params
    if any(int(d) != 1 for d in p["base_dilation"]):
        raise UnsupportedError("windows over dilated operands are not supported")
    sizes, strides = [int(v) for v in p["window_dimensions"]], [int(v) for v in p["window_strides"]]
    pads, steps = [(int(a), int(b)) for a, b in p["padding"]], [int(v) for v in p["window_dilation"]]
    shape = n.dims(n[0])
    over = [a for a in range(len(shape)) if sizes[a] != 1 or strides[a] != 1 or pads[a] != (0, 0)]
    if not over:
        return n[0]
    if len(over) > 3:
        raise UnsupportedError(f"windows over {len(over)} axes are not supported")
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
        if any(d != 1 for d in rest.pop("dilations")):
            raise UnsupportedError("sums over dilated windows are not supported")
        made = n("AvgPool", x, exclude_pad=False, opset=14, **rest)
        made = n("Multiply", made, n.like(made, math.prod(rest["kernel"])))
    else:
        least = n.op_type == "reduce_window_min"
        made = n("MaxPool", n("Negative", x) if least else x, opset=14, **rest)
        made = n("Negative", made) if least else made
    out = n.out_dims()
    made = n.shaped(made, [out[a] for a in order])
    return n.transpose(made, [order.index(a) for a in range(len(order))])


@primitive("reduce_window")
def reduce_window_by_function(n: JaxNode) -> Any:
    """By a function of two elements: the first elements of all windows, joined with the second ones, and so
    on."""
    p, count, body = n.params, len(n) // 2, n.body()
    if any(int(d) != 1 for d in p["base_dilation"]):
        raise UnsupportedError("windows over dilated operands are not supported")
    low, high = ([int(row[i]) for row in p["padding"]] for i in range(2))
    starts = n.inputs[count:]
    padded = [
        n("Pad", x, low, high, v, pad_mode="constant") for x, v in zip(n.inputs[:count], starts, strict=True)
    ]
    sizes, shape = [int(v) for v in p["window_dimensions"]], n.out_dims()
    n.limited(math.prod(sizes), "elements of a window", _MOST)
    made = [n.spread(v, shape) for v in starts]
    for place in itertools.product(*map(range, sizes)):
        begin = [k * int(d) for k, d in zip(place, p["window_dilation"], strict=True)]
        steps = [int(s) for s in p["window_strides"]]
        end = [b + (d - 1) * s + 1 for b, d, s in zip(begin, shape, steps, strict=True)]
        parts = [n("Slice", x, begin, end, steps, list(range(len(shape)))) for x in padded]
        made = by_elements(n, body, [*made, *parts])
    return made
