"""Run-time errors of eager mode: indices out of range, integer division by 0, and failed assertions.

Compiled gathers and divisions return zeros there. So a graph has further outputs, which are true if such an
error has occurred. Kernels of GatherElements and of scatters check themselves that indices are not too large.
They count negative ones from the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from ovjit.errors import InferenceError
from ovjit.execution.job import KERNEL_ERRORS
from ovjit.readers.torch.pytorch import torch
from ovjit.records import NamedTuple


class Indexed(NamedTuple):
    """An operator with indices: the positions of the indexed tensor and of the indices among its arguments.

    `axis` is "first", "given" by the second argument, or None where all elements are counted. Indices are at
    least `low` and less than `high`: "size", "-size" or a number, None where that is not examined.
    """

    tensor: int
    axis: str | None
    indices: int
    low: str | int | None
    high: str | None


#: Operators by their names.
INDEXED = {
    "aten::embedding": Indexed(0, "first", 1, 0, "size"),
    "aten::_embedding_bag": Indexed(0, "first", 1, 0, "size"),
    "aten::_embedding_bag_forward_only": Indexed(0, "first", 1, 0, "size"),
    "aten::index_select": Indexed(0, "given", 2, 0, "size"),
    "aten::take": Indexed(0, None, 1, "-size", "size"),
    "aten::put": Indexed(0, None, 1, "-size", "size"),
    "aten::index_fill": Indexed(0, "given", 2, "-size", "size"),
    **dict.fromkeys(
        "aten::gather aten::scatter aten::scatter_add aten::scatter_reduce aten::index_add aten::index_copy "
        "aten::index_reduce".split(), Indexed(0, "given", 2, 0, None),
    ),
}  # fmt: skip
#: Operators that take a list of indices, one for each dimension.
INDEXED_BY_LISTS = frozenset(("aten::index", "aten::index_put"))
#: Losses that take classes, of which one is ignored.
OF_CLASSES = frozenset(("aten::nll_loss_forward", "aten::nll_loss2d_forward"))
#: Operators of integers that divide by their second argument.
DIVIDING = frozenset(("aten::div", "aten::floor_divide", "aten::remainder", "aten::fmod"))


class OutOfRange(IndexError, RuntimeError):
    """An index out of range. Eager mode raises one or the other class, depending on the operator."""


#: Errors by what has occurred. An assertion has its own text.
_ERRORS: dict[str, Callable[[], Exception]] = {
    "index": lambda: OutOfRange("an index is out of range in a graph that torch.compile has compiled"),
    "division": lambda: RuntimeError("ZeroDivisionError: an integer is divided by 0"),
    "power": lambda: RuntimeError("Integers to negative integer powers are not allowed."),
    "source": lambda: RuntimeError("masked_scatter: the source has fewer elements than the mask has ones"),
}


def as_in_eager_mode(error: InferenceError) -> Exception:
    """A kernel's error about an index out of range, as an exception of eager mode's classes."""
    return OutOfRange(str(error)) if str(error).endswith(KERNEL_ERRORS[1]) else error


def with_checks(module: Any, compiled: Callable[[Any], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Compile the graph by `compiled`, so that calls raise the errors of eager mode."""
    checked, kinds = _with_flags(module)
    if not kinds:
        return compiled(module)
    inner = compiled(checked)

    def run(arguments: Any) -> Any:
        result = inner(arguments)
        for kind, flag in zip(kinds, result[-len(kinds) :], strict=True):
            if flag:
                raise _error(kind)
        return result[: -len(kinds)]

    return run


def _error(kind: str) -> Exception:
    return _ERRORS[kind]() if kind in _ERRORS else RuntimeError(kind)


def _with_flags(module: Any) -> tuple[Any, list[str]]:
    """(the graph with a further output for each kind of error, these kinds)."""
    import copy

    graph = copy.deepcopy(module.graph)
    flags_by_kind: dict[str, list[Any]] = {}
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        with graph.inserting_before(node):
            for kind, flag in _flags(_Builder(graph), node):
                flags_by_kind.setdefault(kind, []).append(flag)
    if not flags_by_kind:
        return module, []
    output = graph.output_node()
    with graph.inserting_before(output):
        flags = [_Builder(graph).any_of(each) for each in flags_by_kind.values()]
    output.args = ((*output.args[0], *flags),)
    return torch.fx.GraphModule(module, graph), list(flags_by_kind)


class _Builder:
    """Adds nodes to a graph, with their example values."""

    def __init__(self, graph: Any):
        self.graph, self.aten = graph, torch.ops.aten

    def __call__(self, target: Any, *arguments: Any) -> Any:
        node = self.graph.call_function(target, arguments)
        node.meta["val"] = target(*torch.fx.map_arg(arguments, lambda n: n.meta["val"]))
        return node

    def any_of(self, flags: list[Any]) -> Any:
        first, *others = flags
        for flag in others:
            first = self(self.aten.logical_or.default, first, flag)
        return first

    def any(self, flags: Any) -> Any:
        return self(self.aten.any.default, flags)

    def outside(
        self, index: Any, size: Any, low: str | int | None = "-size", high: str | None = "size"
    ) -> Any:
        """A mask of the indices below `low`, or at least `high`."""
        flags = []
        if low is not None:
            least = low
            if low == "-size":
                least = -size if isinstance(size, int) else self(operator.mul, size, -1)
            flags.append(self(self.aten.lt.Scalar, index, least))
        if high is not None:
            flags.append(self(self.aten.ge.Scalar, index, size))
        return self.any_of(flags)

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


def _flags(builder: _Builder, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield (kind, flag) for each possible error of a node; the flag is a node, true if it occurred."""
    name, arguments, aten = node.target._schema.name, node.args, builder.aten
    if name in INDEXED:
        of = INDEXED[name]
        axis = {"first": 0, "given": arguments[1], None: None}[of.axis]
        size = builder.size(arguments[of.tensor], axis) if of.high else 0
        yield "index", builder.any(builder.outside(arguments[of.indices], size, of.low, of.high))
    elif name in INDEXED_BY_LISTS:
        for axis, index in _find_integer_indices(arguments[1]):
            yield "index", builder.any(builder.outside(index, builder.size(arguments[0], axis)))
    elif name in OF_CLASSES:
        scores, classes, ignored = arguments[0], arguments[1], arguments[4]
        size = builder.size(scores, 1 if len(scores.meta["val"].shape) > 1 else 0)
        wrong = builder.outside(classes, size, 0)
        read = builder(aten.ne.Scalar, classes, ignored)
        yield "index", builder.any(builder(aten.logical_and.default, wrong, read))
    elif name in DIVIDING and len(arguments) > 1 and _is_of_integers(node):
        by = arguments[1]
        if isinstance(by, int):
            if by == 0:
                yield "division", builder.any(builder(aten.eq.Tensor, arguments[0], arguments[0]))
        elif _is_of_integers(by):
            yield "division", builder.any(builder(aten.eq.Scalar, by, 0))
    elif name == "aten::pow" and isinstance(arguments[1], int) and arguments[1] < 0 and _is_of_integers(node):
        yield "power", builder.any(builder(aten.eq.Tensor, arguments[0], arguments[0]))
    elif name == "aten::masked_scatter":
        count, length = builder(aten.sum.default, arguments[1]), builder.size(arguments[2], None)
        yield "source", builder(aten.gt.Scalar, count, length)
    elif name == "aten::_assert_async":
        text = (
            arguments[1] if len(arguments) > 1 else "Expected Tensor with single nonzero value, but got zero"
        )
        yield text, builder(aten.logical_not.default, arguments[0])


def _find_integer_indices(indices: Any) -> Iterator[tuple[int, Any]]:
    """Yield (dimension, index) for the integer tensors among `indices`. A mask counts for as many dimensions
    as it has."""
    axis = 0
    for index in indices:
        value = None if index is None else index.meta["val"]
        is_mask = value is not None and value.dtype in (torch.bool, torch.uint8)
        if value is not None and not is_mask:
            yield axis, index
        axis += value.dim() if value is not None and is_mask else 1


def _is_of_integers(node: Any) -> bool:
    """Whether a node is an integer tensor."""
    value = getattr(node, "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.dtype is not torch.bool and not (
        value.is_floating_point() or value.is_complex()
    )  # fmt: skip
