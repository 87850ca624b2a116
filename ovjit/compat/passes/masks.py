"""The visible tokens of a decoder's attention, found by computing its mask.

Exporters write masks in many ways, for few purposes. So a mask is evaluated for one new token behind a past
of some length. Its row gives the visible range and the values added to scores: a window, slopes (ALiBi), or
neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.node import Node, Output
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import REFUSED, TensorType
from ovjit.records import NamedTuple

#: Scores to which less than this is added have no weight.
HIDDEN = -1e4
#: The past that is tried; longer where the mask has a constant that may be a window.
PAST = 61
#: Windows are not looked for beyond.
FARTHEST = 1 << 21


class Mask(NamedTuple):
    """How many keys a query sees, itself among them, 0: all; what is added for each step towards it, a number
    for each head, or None."""

    window: int = 0
    slopes: np.ndarray | None = None


def read_mask(source: Output) -> Mask:
    """What this mask does. UnsupportedError for one that does none of these."""
    probe = _Probe(PAST)
    row = _row(probe, source)
    window, slopes = _seen(row, source), _slopes(row, source)
    candidates = sorted({abs(n) for n in probe.numbers if PAST < abs(n) < FARTHEST}) if not window else []
    for number in candidates:
        try:
            window = _seen(_row(_Probe(number + 3), source), source)
        except (MemoryError, UnsupportedError):
            continue  # a table that is not as long
        if window:
            break
    return Mask(window, slopes)


def _row(probe: _Probe, source: Output) -> np.ndarray:
    """What is added to the scores of the last query: [heads, keys], -inf where it sees none."""
    try:
        mask = probe.value(source)
    except (OvjitError, *REFUSED) as error:
        raise UnsupportedError(
            f"the mask of attention {source.get_node().get_friendly_name()!r} cannot be computed without the "
            f"model's inputs: {error}"
        ) from error
    if mask.dtype == bool:
        mask = np.where(mask, np.float32(0), -np.inf)
    if mask.ndim == 0 or mask.shape[-1] == 1:
        return np.zeros((1, probe.past + 1), np.float32)
    mask = mask.astype(np.float32).reshape((1,) * max(4 - mask.ndim, 0) + mask.shape)
    return np.where(mask[0, :, -1] < HIDDEN, -np.inf, mask[0, :, -1])


def _seen(row: np.ndarray, source: Output) -> int:
    """How many of the last keys are seen, 0 where all are."""
    visible = np.isfinite(row)
    count = int(visible[0].sum())
    if not count or not visible[:, -count:].all() or visible[:, :-count].any():
        name = source.get_node().get_friendly_name()
        raise UnsupportedError(
            f"the mask {name!r} is neither causal nor a sliding window: paged attention cannot do without it"
        )
    return 0 if count == row.shape[1] else count


def _slopes(row: np.ndarray, source: Output) -> np.ndarray | None:
    """What is added from one key to the next, where that is the same for all."""
    steps = np.diff(row[:, np.isfinite(row[0])], axis=1)
    if not steps.size or not steps.any():
        return None
    if np.abs(steps - steps[:, -1:]).max() > 1e-3 * np.abs(steps).max() + 1e-6:
        name = source.get_node().get_friendly_name()
        raise UnsupportedError(f"what the mask {name!r} adds to scores is no multiple of the distance")
    return steps.mean(1, dtype=np.float64).astype(np.float32)


class _Probe:
    """Values of a stateful decoder for one new token behind `past` others, all of them zeros."""

    def __init__(self, past: int):
        self.past = past
        #: Whole numbers that constants have.
        self.numbers: set[int] = set()
        self._values: dict[tuple[int, int], np.ndarray] = {}
        self._types: dict[tuple[int, int], TensorType] = {}
        self._keep: list[Node] = []

    def value(self, source: Output) -> np.ndarray:
        """What the output is."""
        for node in _in_order(source, self._values):
            self._compute(node)
        return self._values[id(source._node), source._index]

    def _compute(self, node: Node) -> None:
        if (id(node), 0) in self._values:
            return
        self._keep.append(node)
        kind, name = node._tensors[0]._type, node._op.name
        if name == "Parameter":
            found = [self._given(node, kind)]
        elif name == "ReadValue":
            shape = [1, *(d if isinstance(d, int) else self.past for d in kind.shape[1:])]
            found = [np.broadcast_to(np.zeros((), numpy_dtype(kind.dtype)), shape)]
        else:
            inputs = [self._values[id(x._node), x._index] for x in node._inputs]
            found = list(node._op.evaluate(inputs, node._graph_attrs()))
            if name == "Constant" and kind.dtype in ("i32", "i64", "f32") and found[0].size == 1:
                number = float(found[0].reshape(-1)[0])
                if number == int(number if np.isfinite(number) else 0.5):
                    self.numbers.add(int(number))
        for i, array in enumerate(found):
            self._values[id(node), i] = array

    def _given(self, node: Node, kind: TensorType) -> np.ndarray:
        """What an input is: one more token, seen by a mask of ones."""
        names, dtype = node._tensors[0]._names, numpy_dtype(kind.dtype)
        rank = len(kind.shape or ())
        if "attention_mask" in names:
            return np.ones((1, self.past + 1), dtype)
        if "position_ids" in names:
            return np.full((*[d if isinstance(d, int) else 1 for d in kind.shape[:-1]], 1), self.past, dtype)
        shape = [d if isinstance(d, int) else 1 for d in kind.shape or ()]
        return np.zeros(shape[:rank], dtype)


def _in_order(source: Output, known: dict[tuple[int, int], Any]) -> list[Node]:
    """The nodes that make an output, sources first; not what is known, nor what makes states."""
    order: list[Node] = []
    stack, done = [(source._node, False)], set()
    while stack:
        node, left = stack.pop()
        if left:
            order.append(node)
        elif id(node) not in done and (id(node), 0) not in known:
            done.add(id(node))
            stack.append((node, True))
            if node._op.role != "read":
                stack += [(x._node, False) for x in node._inputs]
    return order
