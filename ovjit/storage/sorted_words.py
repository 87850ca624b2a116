"""Weights of 8 bits that a blob holds once, with the words of each vector sorted (`ovjit.tiles.narrow`).

    [matrix, widths, dimensions, order, [lanes, bytes of a panel, runs, offset of positions, offset of steps]]

The first four parts are those of `panels`, for words of four elements. All panels have the vectors of a full
one, of `lanes` outputs each. `positions` [vectors, words], i64, are the words of a vector as they are sorted:
the run in the upper half, the bytes before the word in its run in the lower half. `steps` [vectors, 4], i64,
are the steps of each way. A step has one or two words of a vector. Turned words are |w|, and masks follow
them, with the bit 128 where w >= 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ovjit.storage.panels import panels_of
from ovjit.tiles.sizes import RUN_BITS, WAYS

_WORD = 4
_SIGN = 128


def find_sorted(lowerings: Iterable[Any]) -> Iterator[tuple[np.ndarray, int, list[Any]]]:
    """Yield weights [G, runs..., depth, O] whose words are sorted and can be restored, their offset in
    constant memory, and their row, with offsets there."""
    for lowering in lowerings:
        weights: Any = getattr(lowering, "weights", None)
        if getattr(weights, "lists", None) is None:
            continue
        source, sizes, (*tables, runs) = lowering.matrix(), weights.sizes, weights.lists
        row = panels_of({"kind": "i8", "width": sizes.width, "last": sizes.last, "group": _WORD}, source)
        if row is not None:
            yield source, weights.at, [*row, [lowering.target.lanes, sizes.panel, runs, *tables]]


def restore_order(section: np.ndarray, offset: int, row: Any) -> np.ndarray:
    """The panels as `panels.unpack` reads them, i8. `section`: its bytes; `offset`: of the sorted words.
    Words that tables of another writer leave out are 0. May raise any exception for such tables."""
    (groups, depth, outs), (width, last_width, _), _, _, (lanes, panel, runs, *tables) = row
    words, full, panels, each = depth // _WORD, outs // width, -(-outs // width), width // lanes
    positions, steps = (
        section[at:][: groups * panels * each * columns * 8].view("<i8").reshape(-1, columns)
        for at, columns in zip(tables, (words, len(WAYS)), strict=True)
    )
    order = (positions >> RUN_BITS) * (words // runs) + (positions & (1 << RUN_BITS) - 1) // _WORD
    out = np.zeros((groups, panels, words, width, _WORD), np.int8)
    at = 0
    for n, (group, number, vector) in enumerate(itertools.product(range(groups), range(panels), range(each))):
        at = at if vector else offset + n // each * panel
        vectors = []
        for way, count in zip(WAYS, steps[n].tolist(), strict=True):
            size = count * way.parts * lanes * _WORD
            stored = section[at : at + size].reshape(count, 1 + way.moves_signs, way.span, lanes, _WORD)
            at += size
            values = stored[:, 0].view(np.int8)
            if way.moves_signs:
                values = np.where(stored[:, 1] & _SIGN, values, -values)  # -128 is its own negative
            vectors.append(values.reshape(-1, lanes, _WORD))
        out[group, number, order[n], vector * lanes : (vector + 1) * lanes] = np.concatenate(vectors)
    ends = out[:, :full], out[:, full:, :, :last_width]
    return np.concatenate([end.reshape(groups, -1) for end in ends], 1).reshape(-1)
