"""Matrix products and convolutions."""

from __future__ import annotations

import math
from typing import Any

from ovjit.api.model.node import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import JaxNode, element_type
from ovjit.readers.jax.registry import primitive
from ovjit.readers.jax.shapes import dilated


@primitive("dot_general")
def dot_general(n: JaxNode) -> Any:
    """Sums of products over pairs of dimensions: [batch..., left..., right...]."""
    (left_sum, right_sum), (left_batch, right_batch) = n.params["dimension_numbers"]
    a, b = (
        _ordered(n, n[0], left_batch, left_sum),
        _ordered(n, n[1], right_batch, right_sum),
    )
    wanted = n.params.get("preferred_element_type")
    if wanted is not None and not n.is_real(a):
        a, b = (n.convert(v, element_type(wanted)) for v in (a, b))
    made = n("MatMul", a, b, transpose_a=False, transpose_b=True)
    made = n.shaped(made, n.out_dims())
    return n.convert(made, n.out().dtype)


def _ordered(n: JaxNode, x: Output, batch: Any, summed: Any) -> Output:
    """A tensor as [batch, free, summed]; [free, summed] where there is no batch."""
    shape = n.dims(x)
    batch, summed = [int(d) for d in batch], [int(d) for d in summed]
    free = [d for d in range(len(shape)) if d not in batch and d not in summed]
    x = n.transpose(x, [*batch, *free, *summed])
    sizes = [math.prod(shape[d] for d in group) for group in (batch, free, summed)]
    return n.shaped(x, sizes if batch else sizes[1:])


@primitive("conv_general_dilated")
def conv_general_dilated(n: JaxNode) -> Any:
    if n.params["batch_group_count"] != 1:
        raise UnsupportedError("groups of batches are not supported")
    numbers = n.params["dimension_numbers"]
    x, w = n.transpose(n[0], list(numbers.lhs_spec)), n.transpose(n[1], list(numbers.rhs_spec))
    for axis, step in enumerate(n.params["lhs_dilation"]):
        if step > 1:
            x = dilated(n, x, 2 + axis, int(step) - 1, n.like(x, 0))
    pads = [(int(a), int(b)) for a, b in n.params["padding"]]
    if any(min(row) < 0 for row in pads):
        cut = [(0, 0), (0, 0), *((min(a, 0), min(b, 0)) for a, b in pads)]
        x = n("Pad", x, [a for a, _ in cut], [b for _, b in cut], n.like(x, 0), pad_mode="constant")
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
    rest: dict[str, Any] = {
        "strides": [int(s) for s in n.params["window_strides"]],
        "dilations": [int(d) for d in n.params["rhs_dilation"]], "pads_begin": [a for a, _ in pads],
        "pads_end": [b for _, b in pads], "auto_pad": "explicit",
    }  # fmt: skip
    groups = int(n.params["feature_group_count"])
    if groups == 1:
        made = n("Convolution", x, w, **rest)
    else:
        shape = n.dims(w)
        made = n("GroupConvolution", x, n.reshape(w, [groups, shape[0] // groups, *shape[1:]]), **rest)
    back = list(numbers.out_spec)
    made = n.transpose(made, [back.index(i) for i in range(len(back))])
    return n.convert(made, n.out().dtype)
