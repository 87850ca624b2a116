"""Strides of tensors: they are products of sizes, and are recorded as such.

`tensor.stride()` gives numbers of Python's, so that a trace holds those of its example. At other sizes
`as_strided` would read other places by them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ovjit.readers.torch.patches import patched, untraced


def in_memory(sizes: Sequence[int], strides: Sequence[int]) -> list[int] | None:
    """The dimensions of a tensor in the order of its memory, None where it has gaps or overlaps."""
    order = sorted(range(len(sizes)), key=lambda i: (-strides[i], sizes[i] != 1, i))
    step = 1
    for i in reversed(order):
        if sizes[i] != 1 and strides[i] != step:
            return None
        step *= sizes[i]
    return order


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """`stride()` of a tensor without gaps gives traced numbers."""
    import torch

    def stride(self: Any, dim: int | None = None) -> Any:
        plain, order = torch._C.TensorBase.stride, None
        if torch._C._get_tracing_state() is not None:
            with untraced():
                order = in_memory(self.shape, plain(self))
        if order is None:
            return plain(self) if dim is None else plain(self, dim)
        sizes, made, step = self.size(), {}, 1
        for i in reversed(order):
            made[i] = step
            step = sizes[i] * step
        strides = tuple(made[i] for i in range(len(made)))
        return strides if dim is None else strides[dim]

    with patched((torch.Tensor, "stride", stride)):
        yield
