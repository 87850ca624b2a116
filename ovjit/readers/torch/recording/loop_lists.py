"""Lists that recorded loops fill: in an iteration, and after the loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.found_loops import warn_of_index
from ovjit.readers.torch.recording.patches import suspend_tracing
from ovjit.readers.torch.recording.traced_nodes import insert_node, kind_of


class Stack(list):
    """A list that a loop has lengthened: `tensor` has its items along a first dimension.

    What asks for their number otherwise than by `length`, or goes through them in a function that did not
    change, gets as many as the example has.
    """

    def __init__(self, tensor: Any):
        super().__init__()
        self.tensor = tensor

    def __len__(self) -> int:
        warn_of_index(sys._getframe(1))
        with suspend_tracing():
            return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tensor.unbind())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.tensor.unbind()[::-1])

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return self.tensor[at]
        if at.step is None or at.step > 0:
            return Stack(self.tensor[at])
        if (at.start, at.stop) != (None, None):
            raise UnsupportedError("a slice backwards of a list that a recorded loop fills needs all items")
        return Stack(self.tensor.flip(0)[:: -at.step])

    def __add__(self, more: Any) -> Any:
        return Stack(concat_lists(self, more))

    def __radd__(self, first: Any) -> Any:
        return Stack(concat_lists(first, self))

    def append(self, item: Any) -> None:
        self.tensor = concat_lists(self, [item])

    def insert(self, at: Any, item: Any) -> None:
        if at != 0:
            raise UnsupportedError("a list that a recorded loop fills gets items at its ends alone")
        self.tensor = concat_lists([item], self)

    def extend(self, more: Any) -> None:
        self.tensor = concat_lists(self, more)

    def __iadd__(self, more: Any) -> Any:
        self.extend(more)
        return self

    def reverse(self) -> None:
        self.tensor = self.tensor.flip(0)


def tensor_of_list(data: Any, dtype: Any = None) -> Any:
    """`torch.tensor(given)`, of a list that a loop has lengthened; None of anything else."""
    import torch

    if not isinstance(data, Stack):
        return None
    kind = data.tensor.dtype
    if kind != torch.bool:
        kind = torch.get_default_dtype() if kind.is_floating_point else torch.int64
    return data.tensor.to(dtype or kind, copy=True)


def concat_lists(*lists: Any) -> Any:
    """The items of lists, one list after the other, along a first dimension."""
    import torch

    tensors = [v.tensor if isinstance(v, Stack) else torch.stack(list(v)) for v in lists if _has_items(v)]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _has_items(items: Any) -> bool:
    return isinstance(items, Stack) or bool(items)


class Added(list):
    """Items that an iteration adds to a list, and the end that they are added to.

    Each item is recorded at the current position of the trace, which may be in a branch or in a nested loop.
    """

    def __init__(self, grown: Any, block: Any):
        super().__init__()
        self._grown, self._block = grown, block
        self.in_front = self.is_regular = False

    def append(self, item: Any) -> None:
        self._add(item, False)

    def insert(self, at: Any, item: Any) -> None:
        if at != 0:
            raise UnsupportedError("an iteration should add its item at an end of a list")
        self._add(item, True)

    def extend(self, more: Any) -> None:
        for item in more:
            self.append(item)

    def _add(self, item: Any, in_front: bool) -> None:
        import torch

        if not isinstance(item, torch.Tensor) or (self and kind_of(item) != kind_of(self[0])):
            raise UnsupportedError("an iteration should add tensors of one shape to a list")
        if self and (in_front or self.in_front):
            raise UnsupportedError("an iteration should add one item in front of a list")
        self.in_front = in_front
        value, kind = torch._C._get_value_trace(item), torch._C.ListType(torch._C.TensorType.get())
        node = insert_node("aten::append", [self._grown, value], kind).node()
        self.is_regular = (self.is_regular or not self) and node.owningBlock() == self._block
        super().append(item)

    def rows(self, trips: int) -> int:
        """Return the example's number of items after `trips` iterations, an estimate unless `is_regular`."""
        return trips * len(self) if self.is_regular else max(1, trips)

    def __add__(self, more: Any) -> Any:
        self.extend(more)
        return self

    __iadd__ = __add__

    def __radd__(self, first: Any) -> Any:
        for item in reversed(first):
            self.insert(0, item)
        return self
