"""What eager mode refuses when it runs: indices out of range, and integers divided by 0.

Compiled gathers read zeros there, and quotients are zeros. So a graph has further outputs, which tell whether
that has occurred. Kernels of GatherElements and of scatters check their indices themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ovjit.errors import InferenceError
from ovjit.execution.job import KERNEL_ERRORS

#: Operators that read by indices: the places of tensor, dimension and index, and whether indices may be
#: negative. Without a dimension they count all elements (None) or are those of dimension 0 (0).
READING: dict[str, tuple[int, str | None, int, bool]] = {
    "aten::embedding": (0, "first", 1, False),
    "aten::index_select": (0, "given", 2, False),
    "aten::take": (0, None, 1, True),
}
#: Operators of integers that divide by their second argument.
DIVIDING = frozenset(("aten::div", "aten::floor_divide", "aten::remainder", "aten::fmod"))


class OutOfRange(IndexError, RuntimeError):
    """Eager mode raises one or the other, by the operator."""


_ERRORS: dict[str, Callable[[], Exception]] = {
    "index": lambda: OutOfRange("an index is out of range in a graph that torch.compile has compiled"),
    "division": lambda: RuntimeError("ZeroDivisionError: an integer is divided by 0"),
}


def as_in_eager_mode(error: InferenceError) -> Exception:
    """The error of a kernel that has found an index out of range, with the classes of eager mode's."""
    return OutOfRange(str(error)) if str(error).endswith(KERNEL_ERRORS[1]) else error


def with_checks(module: Any, compiled: Callable[[Any], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """The graph by `compiled`, and an error where eager mode would raise it."""
    checked, kinds = _with_flags(module)
    if not kinds:
        return compiled(module)
    inner = compiled(checked)

    def run(arguments: Any) -> Any:
        made = inner(arguments)
        for kind, flag in zip(kinds, made[-len(kinds) :], strict=True):
            if flag:
                raise _ERRORS[kind]()
        return made[: -len(kinds)]

    return run


def _with_flags(module: Any) -> tuple[Any, list[str]]:
    """The graph with a further output for each kind of error that it may have; and these kinds."""
    import copy

    import torch

    graph = copy.deepcopy(module.graph)
    found: dict[str, list[Any]] = {}
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        with graph.inserting_before(node):
            for kind, flag in _flags(_Builder(graph), node):
                found.setdefault(kind, []).append(flag)
    if not found:
        return module, []
    output = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        flags = [_Builder(graph).joined(each) for each in found.values()]
    output.args = ((*output.args[0], *flags),)
    return torch.fx.GraphModule(module, graph), list(found)


class _Builder:
    """Adds nodes to a graph, with what their values are like."""

    def __init__(self, graph: Any):
        import torch

        self.graph, self.aten = graph, torch.ops.aten

    def __call__(self, target: Any, *arguments: Any) -> Any:
        import torch

        node = self.graph.call_function(target, arguments)
        node.meta["val"] = target(*torch.fx.map_arg(arguments, lambda n: n.meta["val"]))
        return node

    def joined(self, flags: list[Any]) -> Any:
        first, *others = flags
        for flag in others:
            first = self(self.aten.logical_or.default, first, flag)
        return first

    def outside(self, index: Any, size: Any, negative: bool) -> Any:
        """Whether any index is beyond the size."""
        low = 0 if not negative else -size if isinstance(size, int) else self(operator.mul, size, -1)
        below = self(self.aten.lt.Scalar, index, low)
        above = self(self.aten.ge.Scalar, index, size)
        return self(self.aten.any.default, self.joined([below, above]))

    def size(self, tensor: Any, axis: int | None) -> Any:
        """The length of an axis, or the number of elements: a number or a node."""
        shape = tensor.meta["val"].shape
        if axis is not None:
            length = shape[axis] if len(shape) else 1
            return length if isinstance(length, int) else self(self.aten.sym_size.int, tensor, axis)
        size: Any = 1
        for i in range(len(shape)):
            length = self.size(tensor, i)
            both = isinstance(size, int) and isinstance(length, int)
            size = size * length if both else self(operator.mul, size, length)
        return size


def _flags(builder: _Builder, node: Any) -> list[tuple[str, Any]]:
    """What a node may do wrong, and nodes that tell whether it has."""
    name = node.target._schema.name
    if name in READING:
        at, axis, indices, negative = READING[name]
        tensor, index = node.args[at], node.args[indices]
        place = {"first": 0, "given": node.args[1], None: None}[axis]
        return [("index", builder.outside(index, builder.size(tensor, place), negative))]
    if name == "aten::index":
        tensor, places = node.args[0], node.args[1]
        return [
            ("index", builder.outside(index, builder.size(tensor, axis), True))
            for axis, index in enumerate(places)
            if index is not None and _is_integral(index)
        ]
    if name in DIVIDING and len(node.args) > 1 and _is_integral(node) and _is_integral(node.args[1]):
        zero = builder(builder.aten.eq.Scalar, node.args[1], 0)
        return [("division", builder(builder.aten.any.default, zero))]
    return []


def _is_integral(node: Any) -> bool:
    """Whether a node is a tensor of integers. Masks are not."""
    import torch

    value = getattr(node, "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.dtype not in (torch.bool, torch.uint8) and not (
        value.is_floating_point() or value.is_complex()
    )  # fmt: skip
