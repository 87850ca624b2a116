"""A recorded module beside the module itself, for other sizes than the example's.

What follows sizes through Python code takes two sizes for different ones. Where that is wrong for some sizes,
the module and what was recorded of it differ there, though not for the example.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from ovjit.readers.torch.recording.mask_selection import agrees
from ovjit.readers.torch.recording.state import called
from ovjit.readers.torch.recording.trace import Prepared, quietly

#: For how many other sizes a module is run, and how many are tried.
MOST_SIZES, MOST_TRIES = 6, 12


class OtherSizes:
    """Examples of other sizes with the module's outputs, as many as the first trace is compared with in
    `seconds`, at least one."""

    def __init__(self, ready: Prepared, seconds: float):
        self._ready = ready
        self._seconds = seconds
        self._known: list[tuple[list[Any], Any]] | None = None

    def wrong(self, script: Any) -> int:
        """For how many of the examples a trace gives something else than the module."""
        known = self._first() if self._known is None else self._known
        return sum(not self._is_right(script, *each) for each in known)

    def _is_right(self, script: Any, leaves: Sequence[Any], wanted: Any) -> bool:
        import torch

        try:
            with quietly(), torch.no_grad(), torch.jit.optimized_execution(False):
                return agrees(wanted, called(script, self._ready.module, leaves))
        except Exception:  # which the model would raise, too
            return False

    def _first(self) -> Iterator[tuple[list[Any], Any]]:
        """The examples, each found when it is asked for. It is compared before the next one is found."""
        self._known = []
        names = list(self._ready.module.names)
        begin = time.perf_counter()
        for leaves in islice(_resized(self._ready.leaves), MOST_TRIES):
            made = self._outputs(leaves)
            if made is not None:
                self._known.append((leaves, made))
                yield leaves, made
            if len(self._known) == MOST_SIZES or time.perf_counter() - begin > self._seconds:
                break
        self._ready.module.names[:] = names

    def _outputs(self, leaves: Sequence[Any]) -> Any:
        """What the module gives, None where it does not take these sizes."""
        import torch

        try:
            with quietly(), torch.no_grad():
                return called(self._ready.module, self._ready.module, leaves)
        except Exception:
            return None


def _resized(leaves: Sequence[Any]) -> Iterator[list[Any]]:
    """Tensors in which all dimensions of one length have another: one more or less, twice as many, or that of
    other dimensions."""
    lengths = sorted({d for leaf in leaves for d in leaf.shape if d > 1}, reverse=True)
    if lengths:
        yield _with_lengths(leaves, {d: d + 1 for d in lengths})
    for one, other in islice(combinations(lengths, 2), 2):
        yield _with_lengths(leaves, {one: other})
        yield _with_lengths(leaves, {one: other, other: one})
    for change in ({d: d + 1} for d in lengths):
        yield _with_lengths(leaves, change)
    for change in ({d: made} for d in lengths for made in (d * 2, d - 1)):
        yield _with_lengths(leaves, change)


def _with_lengths(leaves: Sequence[Any], change: Mapping[int, int]) -> list[Any]:
    """Tensors with other lengths; their items are repeated."""
    import torch

    made = []
    for leaf in leaves:
        for axis, length in enumerate(leaf.shape):
            if length in change:
                leaf = leaf.index_select(axis, torch.arange(change[length]) % length)
        made.append(leaf)
    return made
