"""Strides of tensors: they are products of sizes, and are recorded as such.

`tensor.stride()` gives numbers of Python's, so that a trace holds those of its example. At other sizes
`as_strided` would read other places by them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.patches import patch, suspend_tracing

#: Operators that find elements by strides.
BY_STRIDES = frozenset(f"aten::{name}" for name in ("as_strided", "as_strided_copy", "as_strided_scatter"))


def in_memory(sizes: Sequence[int], strides: Sequence[int]) -> list[int] | None:
    """The dimensions of a tensor by falling strides, None if it has gaps or overlaps."""
    order = sorted(range(len(sizes)), key=lambda i: (-strides[i], sizes[i] != 1, i))
    step = 1
    for i in reversed(order):
        if sizes[i] != 1 and strides[i] != step:
            return None
        step *= sizes[i]
    return order


def in_storage(node: Any) -> tuple[list[int] | None, int]:
    """Return the memory order of the dimensions of a `BY_STRIDES` node's tensor, and the offset of its start.

    The order is None if the tensor has gaps or the node reads outside of the tensor.
    """
    value = node.args[0].meta.get("val") if isinstance(node.args[0], torch.fx.Node) else node.args[0]
    schema = [argument.name for argument in node.target._schema.arguments]
    arguments = {**dict(zip(schema, node.args, strict=False)), **node.kwargs}
    symbolic = value.shape, value.stride(), arguments["size"], arguments["stride"]
    shape, steps, size, stride = ([hint(n) for n in numbers] for numbers in symbolic)
    begin = hint(value.storage_offset())
    start = begin if arguments.get("storage_offset") is None else hint(arguments["storage_offset"])
    if not all(isinstance(n, int) for n in (*shape, *steps, *size, *stride, begin, start)):
        return None, 0
    first = start - begin
    last = first + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    is_within = 0 in size or 0 <= first and last < math.prod(shape)
    return in_memory(shape, steps) if is_within else None, begin if start != begin else 0


def hint(number: Any) -> Any:
    """A number in an FX graph; the example's value for a symbolic one."""
    number = number.meta.get("val") if hasattr(number, "meta") else number
    return getattr(getattr(number, "node", None), "hint", number)


@contextlib.contextmanager
def trace_strides() -> Iterator[None]:
    """Context manager in which `stride()` of a tensor without gaps returns traced numbers."""

    def stride(self: Any, dim: int | None = None) -> Any:
        plain, order = torch._C.TensorBase.stride, None
        if torch.jit.is_tracing():
            with suspend_tracing():
                order = in_memory(self.shape, plain(self))
        if order is None:
            return plain(self) if dim is None else plain(self, dim)
        sizes, result, step = self.size(), {}, 1
        for i in reversed(order):
            result[i] = step
            step = sizes[i] * step
        strides = tuple(result[i] for i in range(len(result)))
        return strides if dim is None else strides[dim]

    with patch((torch.Tensor, "stride", stride)):
        yield
