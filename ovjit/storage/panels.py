"""Weights that a blob holds once: in the order of the tile kernel, from which the graph's order is restored.

    [[G, depth, O], [width, last width], dimensions, order]

For each of G groups come full panels of `width` outputs, [depth, width] each, and if O is no multiple of it
one more of `last width`, padded with zeros. The array is what
`reshape(dimensions).transpose(order).reshape(G, depth, O)` rearranges, see `ovjit.planning.plan.Panels`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.storage.container import BlobError

_MOST_DIMS = 8


def panel_bytes(row: Any, itemsize: int, count: int) -> int:
    """The size of the panels. Raises BlobError unless all numbers fit each other and `count` elements."""
    matrix, widths, dims, order = row
    numbers = [*matrix, *widths, *dims, *order]
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise BlobError("the blob is not valid: panels of weights with numbers out of range")
    groups, depth, outs = matrix
    width, last_width = widths
    if (
        width < 1
        or not outs % width <= last_width <= width
        or len(dims) > _MOST_DIMS
        or sorted(order) != list(range(len(dims)))
        or math.prod(dims) != count
        or groups * depth * outs != count
    ):
        raise BlobError("the blob is not valid: panels of weights do not match their shape")
    return groups * depth * (outs // width * width + last_width) * itemsize


def unpack(raw: np.ndarray, row: Any) -> np.ndarray:
    """The array, flat and in the graph's order; `raw`: the panels' elements, checked by `panel_bytes`."""
    (groups, depth, outs), (width, last_width), dims, order = row
    full, last = outs // width, outs % width
    out = np.empty((groups, depth, outs), raw.dtype)
    body = depth * full * width
    for g, panels in enumerate(raw.reshape(groups, body + depth * last_width)):
        out[g, :, : full * width] = (
            panels[:body].reshape(full, depth, width).transpose(1, 0, 2).reshape(depth, full * width)
        )
        if last:
            out[g, :, full * width :] = panels[body:].reshape(depth, last_width)[:, :last]
    there = out.reshape([dims[a] for a in order])
    return np.ascontiguousarray(there.transpose(np.argsort(order))).reshape(-1)
