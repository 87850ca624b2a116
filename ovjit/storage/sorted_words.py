"""Weights of 8 bits whose words are sorted in constant memory (`ovjit.tiles.narrow.Listed`).

A blob has the weights as the graph has them. An import sorts their words again by `word_offsets` and `steps`,
which are constants too. So the masks of turned words, a fourth of the bytes of a ResNet-50, are not stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ovjit.planning.constants import Recipe
from ovjit.storage.panels import panels_of

_WORD = 4


def find_sorted(lowerings: Iterable[Any]) -> Iterator[tuple[np.ndarray, int, Recipe]]:
    """Yield weights i8 [G, runs..., depth, O] whose words are sorted, their offset in constant memory, and
    their recipe."""
    for lowering in lowerings:
        weights: Any = getattr(lowering, "weights", None)
        if getattr(weights, "lists", None) is not None:
            source, sizes, target = lowering.matrix(), weights.sizes, lowering.target
            how = {"kind": "i8", "width": sizes.width, "last": sizes.last, "group": _WORD}
            if panels_of(how, source) is not None:
                lists = {"lanes": target.lanes, "panel": sizes.panel, "lists": list(weights.lists)}
                yield source, weights.at, Recipe(fill_sorted, {"panels": how, **lists})


def fill_sorted(
    memory: np.ndarray, source: np.ndarray, constants: np.ndarray, panels: Any, lanes: int, panel: int,
    lists: Any,
) -> None:  # fmt: skip
    """Write `Listed.memory`, panels of `panel` bytes, from weights of `find_sorted`. `panels`: how they are
    packed before. `lists`: offsets of the lists in the constants, and the number of runs."""
    from ovjit.tiles import narrow  # exports of other models do not need it
    from ovjit.tiles.pack import PanelSizes, fill_panels
    from ovjit.tiles.sizes import RUN_BITS, WAYS

    (words_at, steps_at, runs), (groups, *_, outs) = lists, source.shape
    width, last, full = panels["width"], panels["last"], outs // panels["width"]
    words, size = source.size // (groups * outs * _WORD), lanes * _WORD
    packed = np.empty((groups, words * (full * width + last) * _WORD), np.int8)
    fill_panels(packed, source, **panels)
    sizes, zeros = PanelSizes(width, last, words * width * _WORD, 0), np.zeros(size, np.int8)
    vectors = list(narrow.list_vectors(packed, sizes, full, size, zeros.ctypes.data))
    order, steps = (
        constants[at:][: len(vectors) * count * 8].view(np.int64).reshape(-1, count)
        for at, count in ((words_at, words), (steps_at, len(WAYS)))
    )
    order = (order >> RUN_BITS) * (words // runs) + ((order & (1 << RUN_BITS) - 1) >> 2)
    bias = np.broadcast_to(np.zeros(lanes, np.int32), (len(vectors), lanes))  # it is a constant of the blob
    ordered = narrow.Order((packed, zeros), sizes, vectors, np.concatenate((order, steps), 1))
    ordered.write(memory.ctypes.data, panel, bias)
