"""Words of kernels with the alignment that a card needs: each element lies at a multiple of its size.

A CPU loads elements from any address. A card reports CUDA_ERROR_MISALIGNED_ADDRESS, and its context is lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.memory import SIZE
from tests.support.gpu_words import Words

#: Words without an element type -> the bytes of an element that they access.
_PLAIN = {"ld": 8}
#: Words whose first argument is an address, and second one the bytes between elements.
_STEPS = frozenset("gather strided scatter strided_store".split())
_ADDRESSES = _STEPS | frozenset("load loadm store storem evens thirds take splat ld st".split())


class Misaligned(Exception):
    """An element does not lie at a multiple of its size."""


class CardWords(Words):
    """Words that raise Misaligned where a card would fail."""

    def __missing__(self, name: str) -> Any:
        run = super().__missing__(name)
        word, _, elem = name.rpartition("_")
        size = _PLAIN.get(name) or (SIZE[elem] if elem in SIZE and word in _ADDRESSES else 1)
        if size == 1:
            return run
        is_stepped, is_masked = word in _STEPS, word in ("loadm", "storem")

        def checked(p: int, *arguments: Any) -> Any:
            count = self.lanes
            if is_stepped or is_masked:
                count = int(arguments[-1])
            away = p % size or (count > 1 and is_stepped and int(arguments[0]) % size)
            if count > 0 and away:
                raise Misaligned(f"{name}: {size} bytes are accessed at {np.int64(p):#x}")
            return run(p, *arguments)

        self[name] = checked
        return checked
