"""Weights that a blob holds once: in the order of kernels, from which the graph's order is restored.

Panels of a matrix, for tile kernels (`ovjit.tiles.pack.fill_panels`):

    [[G, depth, O], [width, last width, group], dimensions, order]

For each of G groups come full panels of `width` outputs, [depth / group, width, group] each, and if O is no
multiple of it one more of `last width`, padded with zeros. The array is what
`reshape(dimensions).transpose(order).reshape(G, depth, O)` rearranges, see `ovjit.planning.plan.Panels`.
Blobs before format 3 have no `group`; it is 1.

Bytes of compressed weights (`ovjit.tiles.pack.fill_woven`):

    [[rows, bytes], [width, size], [change, mask]]

Each row has words of `size` bytes. For each `width` rows come their first words, then their second ones, and
so on. Before, the bits of `mask` in each four bytes of a row are inverted. Afterwards, nibbles and bytes of
each 16 bytes are reordered by `change`, a constant of `ovjit.tiles.weave`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.planning.constants import Recipe
from ovjit.storage.container import BlobError

_MOST_DIMS = 8
#: Constants of `ovjit.tiles.weave`, which importers of blobs need not load.
_AS_THEY_ARE, _SPREAD, _BYTES, _PAIRS = 0, 1, 4, 5
_CHANGES = (_AS_THEY_ARE, _SPREAD, _BYTES, _PAIRS)
#: Maximum bytes that are restored at a time, so that they stay in the second-level cache.
_AT_ONCE = 1 << 19


def panel_bytes(row: Any, itemsize: int, count: int) -> int:
    """The size of the panels. Raises BlobError unless all numbers fit each other and `count` elements."""
    numbers = [n for part in row for n in part]
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers) or not count:
        raise BlobError("the blob is not valid: panels of weights with numbers out of range")
    if len(row) == 3:
        return _woven_bytes(row, itemsize, count)
    matrix, widths, dims, order = row
    groups, depth, outs = matrix
    width, last_width, group = _widths(widths)
    if (
        width < 1
        or group < 1
        or depth % group
        or not outs % width <= last_width <= width
        or len(dims) > _MOST_DIMS
        or sorted(order) != list(range(len(dims)))
        or math.prod(dims) != count
        or groups * depth * outs != count
    ):
        raise BlobError("the blob is not valid: panels of weights do not match their shape")
    return groups * depth * (outs // width * width + last_width) * itemsize


def _widths(widths: Any) -> Any:
    """(width of a panel, width of the last one, adjacent elements of depth) of a row of the table."""
    return widths if len(widths) == 3 else (*widths, 1)


def _woven_bytes(row: Any, itemsize: int, count: int) -> int:
    (outs, length), (width, size), (change, mask) = row
    if (
        itemsize != 1
        or outs * length != count
        or size not in (1, 2, 4)
        or width < 1
        or outs % width
        or length % size
        or change not in _CHANGES
        or mask >= 2**32
        or ((change or mask) and width * size % 16)
    ):
        raise BlobError("the blob is not valid: panels of compressed weights do not match their shape")
    return count


def unpack(raw: np.ndarray, row: Any) -> np.ndarray:
    """The array, flat and in the graph's order; `raw`: the panels' elements, checked by `panel_bytes`."""
    if len(row) == 3:
        return _unweave(raw.view(np.uint8), row).view(raw.dtype)
    (groups, depth, outs), widths, dims, order = row
    width, last_width, group = _widths(widths)
    full, last, words = outs // width, outs % width, depth // group
    out = np.empty((groups, words, group, outs), raw.dtype)
    body = depth * full * width
    for g, panels in enumerate(raw.reshape(groups, body + depth * last_width)):
        full_panels = out[g, ..., : full * width].reshape(words, group, full, width)
        full_panels[...] = panels[:body].reshape(full, words, width, group).transpose(1, 3, 0, 2)
        if last:
            tail = panels[body:].reshape(words, last_width, group)
            out[g, ..., full * width :] = tail[:, :last].transpose(0, 2, 1)
    there = out.reshape([dims[a] for a in order])
    return np.ascontiguousarray(there.transpose(np.argsort(order))).reshape(-1)


def _unweave(raw: np.ndarray, row: Any) -> np.ndarray:
    (outs, length), (width, size), (change, mask) = row
    out = np.empty((outs, length), np.uint8)
    some = max(1, _AT_ONCE // max(1, width * length)) * width
    for first in range(0, outs, some):
        panels = raw[first * length : (first + some) * length]
        if change:
            panels = _ungroup_nibbles(panels, change)
        if mask:
            panels = (panels.view("<u4") ^ np.uint32(mask)).view(np.uint8)
        words = panels.view(f"u{size}").reshape(-1, length // size, width).transpose(0, 2, 1)
        out[first : first + some].view(words.dtype).reshape(words.shape)[...] = words
    return out.reshape(-1)


def _ungroup_nibbles(panels: np.ndarray, change: int) -> np.ndarray:
    """Undo `spread_nibbles`, and before `turn_bytes` or `turn_pairs`, of `ovjit.codegen.cpu.weaving`."""
    if change != _SPREAD:
        each = 1 if change == _BYTES else 2
        panels = panels.reshape(-1, 4 // each, 4, each).transpose(0, 2, 1, 3).reshape(-1)
    words = panels.view("<u4")
    for mask, bits in ((0x00F000F0, 4), (0x0000FF00, 8)):  # order 0 4 1 5 2 6 3 7, 0 1 4 5 2 3 6 7, 0 1 ... 7
        moved = (words >> np.uint32(bits) ^ words) & np.uint32(mask)
        words = words ^ (moved ^ moved << np.uint32(bits))
    return words.view(np.uint8)


def inverse_of(recipe: Recipe, source: np.ndarray, nbytes: int) -> Any:
    """The row from which `unpack` restores `source` out of the `nbytes` that `recipe` packs it into, bit by
    bit except for subnormals. None if there is none."""
    if recipe.converting is not None or recipe.function.__name__ not in ("fill_panels", "fill_woven"):
        return None
    if recipe.function.__name__ == "fill_woven":
        how = recipe.arguments
        row = [list(source.shape), [how["width"], how["size"]], [how["change"], how["mask"]]]
        return row if source.flags.c_contiguous and how["change"] in _CHANGES else None
    row = panels_of(recipe.arguments, source)
    return row if row is not None and panel_bytes(row, source.itemsize, source.size) == nbytes else None


def panels_of(how: Any, source: np.ndarray) -> Any:
    """The row of the panels that `fill_panels` makes by the arguments `how`, if it adds no words."""
    axes = sorted(range(source.ndim), key=lambda axis: -source.strides[axis])
    plain = source.transpose(axes).flags.c_contiguous and numpy_dtype(how["kind"]) == source.dtype
    groups, *depths, outs = source.shape
    depth, group = math.prod(depths), how["group"]
    if not plain or not source.size or how.get("paired") or how.get("through") or depths[-1] % group:
        return None
    dims = [source.shape[axis] for axis in axes]
    widths = [how["width"], how["last"] if outs % how["width"] else 0, group]
    row = [[groups, depth, outs], widths, dims, np.argsort(axes).tolist()]
    return row if len(dims) <= _MOST_DIMS else None
