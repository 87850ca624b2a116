"""Reductions over windows: pooling along any axes."""

from __future__ import annotations

import math
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import JaxNode
from ovjit.readers.jax.registry import primitive


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
