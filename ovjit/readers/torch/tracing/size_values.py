"""Numbers of a trace that are computed from sizes of tensors alone, and numbers of parts."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.instructions import calls

#: Operators by which numbers are computed from sizes, and what is no operator there.
_LEAVES = ("aten::size", "aten::sym_size", "aten::numel")
_STATIC = ("prim::Constant", "prim::GetAttr")
_COMPARING = ("aten::eq", "aten::ne", "aten::lt", "aten::le", "aten::gt", "aten::ge")
#: What makes numbers of sizes that are not below 0. What is subtracted may be, and constants may.
_NEVER_BELOW_ZERO = {*_LEAVES, "prim::NumToTensor", "aten::Int", "aten::mul"}


class Parts(tuple):
    """Slices of a tensor along a dynamic dimension. `number`: how many there are for other sizes."""

    number: Callable[[], Any]
    _warn: Callable[[], None]

    def __new__(cls, parts: Sequence[Any], number: Callable[[], Any], warn: Callable[[], None]) -> Parts:
        result = super().__new__(cls, parts)
        result.number, result._warn = number, warn
        return result

    def __len__(self) -> int:
        if _asks_length(sys._getframe(1)):
            self._warn()
        return super().__len__()


def _asks_length(frame: Any) -> bool:
    """Whether code calls `len`. Python also computes a length for `*parts` and `tuple(parts)`."""
    return calls(frame, unpacks=False) and "len" in frame.f_code.co_names


@functools.cache
def register_parts() -> None:
    """Register `Parts` so that PyTorch treats it as a tuple in a module's outputs."""
    from torch.utils import _pytree as tree

    tree.register_pytree_node(Parts, lambda parts: (list(parts), None), lambda parts, _: tuple(parts))


def torch_value(tensor: Any) -> Any:
    return torch._C._get_value_trace(tensor)


def is_of_sizes(tensor: Any) -> bool:
    """Whether a tensor of one element is computed from sizes only, at least one of them dynamic."""
    if not isinstance(tensor, torch.Tensor) or not torch.jit.is_tracing() or tensor.dim():
        return False
    has_sizes = False
    for value in sources_of(torch_value(tensor)):
        node = value.node()
        if node.kind() in _LEAVES:
            has_sizes = has_sizes or node.inputsAt(0).node().kind() not in _STATIC
        elif node.kind() == "prim::Param":
            return False
    return has_sizes


def reads_sizes(tensor: Any) -> bool:
    """Whether a traced tensor depends on sizes that are not constants of the example."""
    return any(value.node().kind() in _LEAVES for value in sources_of(torch_value(tensor)))


def sources_of(value: Any) -> Iterator[Any]:
    """Yield a traced number and all that it is computed from, each once, back to sizes of tensors."""
    visited, queue = set(), [value]
    while queue:
        value = queue.pop()
        if value.debugName() not in visited:
            visited.add(value.debugName())
            yield value
            node = value.node()
            if node.kind() not in ("prim::Param", "prim::Constant", *_LEAVES):
                queue += node.inputs()
            if node.kind() == "prim::If":
                queue += (list(block.outputs())[value.offset()] for block in node.blocks())
            if node.kind() == "prim::Loop":
                queue += (list(block.outputs())[value.offset() + 1] for block in node.blocks())


def is_fixed(value: Any) -> bool:
    """Whether a traced number is the same for all sizes, such as the result of a comparison of a size with -1
    in `sum(h == -1 for h in x.shape)`."""
    queue = [value]
    while queue:
        node = queue.pop().node()
        if node.kind() in _COMPARING and _is_below_zero(node.inputsAt(1)):
            sources = [each for each in sources_of(node.inputsAt(0)) if not _is_above_zero(each)]
            if {each.node().kind() for each in sources} <= _NEVER_BELOW_ZERO:
                continue
        if node.kind() in (*_LEAVES, "prim::Param", "prim::If", "prim::Loop"):
            return False
        queue += node.inputs()
    return True


def _is_below_zero(value: Any) -> bool:
    number = value.toIValue()
    return isinstance(number, (int, float)) and number < 0


def _is_above_zero(value: Any) -> bool:
    """Whether this is a nonnegative constant."""
    number = value.toIValue()
    return isinstance(number, (int, float)) and number >= 0


def is_same(a: Any, b: Any) -> bool:
    """Whether two traced numbers are the same expression of the same sizes."""
    pairs, visited = [(a, b)], set()
    while pairs:
        a, b = pairs.pop()
        key = a.debugName(), b.debugName()
        if key[0] == key[1] or key in visited:
            continue
        visited.add(key)
        one, other = a.node(), b.node()
        if one.kind() != other.kind() or a.offset() != b.offset() or one.kind() == "prim::Param":
            return False
        if one.kind() == "prim::Constant" and a.toIValue() != b.toIValue():
            return False
        sources = list(one.inputs()), list(other.inputs())
        if len(sources[0]) != len(sources[1]) or (not sources[0] and one.kind() != "prim::Constant"):
            return False
        pairs += zip(*sources, strict=True)
    return True
