"""Parts of an ATen graph -> Models, and the values of their placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.errors import OvjitError
from ovjit.graph.shapes import is_static
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.fusions.transposes import is_for_products
from ovjit.readers.torch.programs.fx import FxReader
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.strides import hint
from ovjit.readers.torch.values import Complex, Number
from ovjit.records import NamedTuple


class Part(NamedTuple):
    """A Model, and the arguments and results of its calls.

    `takes` are the places of the arguments that are its inputs: tensors, and after them those of `numbers`.
    `gives` has a pair for each output: the kind of value ("tensor", "complex" or "number") and the place of
    the Model's output; else ("value", the value). `laid` has, for an output that PyTorch lays otherwise than
    in order, how a view of the Model's output is the wanted tensor: the axes to permute and the lengths to
    expand, -1 for those to keep.
    """

    model: Model
    takes: list[int]
    numbers: list[int]
    gives: list[tuple[str, Any]]
    laid: dict[int, tuple[list[int], list[int]]]


class _Reader(FxReader):
    """A reader that does not copy transposed weights of products: they share PyTorch's memory."""

    def is_unfolded(self, node: Any) -> bool:
        return is_for_products(node) or super().is_unfolded(node)


def part_of(module: Any, constants: Mapping[int, Any]) -> Part:
    """Convert a graph module to a Model. `constants`: tensors for some placeholders, by index.

    A dynamic dimension is read from a tensor that has it, if there is one: then no number is an input.
    """
    reader = _Reader()
    placeholders = module.graph.find_nodes(op="placeholder")
    values: list[Any] = [None] * len(placeholders)
    takes: list[int] = []
    numbers: list[int] = []
    dim_sources: dict[Any, tuple[Any, int]] = {}
    for i, node in enumerate(placeholders):
        meta = node.meta.get("val")
        if i in constants:
            values[i] = reader.constant(constants[i], node.name)
        elif isinstance(meta, torch.Tensor):
            shape = [None if isinstance(d, torch.SymInt) else d for d in meta.shape]
            values[i] = reader.parameter(node.name, meta.dtype, shape)
            takes.append(i)
            for axis, dim in enumerate(meta.shape):
                if isinstance(dim, torch.SymInt):
                    dim_sources.setdefault(dim.node.expr, (values[i], axis))
    for i, node in enumerate(placeholders):
        if values[i] is None and node.users:  # a number that nobody reads may be a length of nested tensors
            values[i] = _number(reader, node, node.meta.get("val"), dim_sources, numbers, i)
    result = reader.run(module, values)
    results: list[Any] = []
    gives: list[tuple[str, Any]] = []
    laid: dict[int, tuple[list[int], list[int]]] = {}
    nodes = module.graph.output_node().args[0]
    if not isinstance(nodes, (list, tuple)):  # a Complex is a tuple, too
        result, nodes = [result], [nodes]
    for value, node in zip(result, nodes, strict=True):
        if isinstance(value, (Output, Complex)) and (layout := _layout(node)) is not None:
            value, laid[len(results)] = _parts_to_memory_order(reader, value, *layout)
        if isinstance(value, Complex):
            gives.append(("complex", len(results)))
        elif isinstance(value, Number):
            gives.append(("number", len(results)))
        elif value is None or isinstance(value, (int, float, bool, str)):
            gives.append(("value", value))
            continue
        else:
            gives.append(("tensor", len(results)))
        results.append(reader.result(value))
    if not results:
        raise OvjitError("the subgraph returns no tensors")
    return Part(reader.model(results, "Model0"), takes, numbers, gives, laid)


def _layout(node: Any) -> tuple[list[int], list[int]] | None:
    """(axes of a tensor, largest stride first; lengths of broadcast axes, -1 for others). None if the tensor
    is row-major, or its strides are unknown."""
    value = getattr(node, "meta", {}).get("val")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    hints = [[hint(n) for n in part] for part in (value.shape, value.stride())]
    if not all(isinstance(n, int) for part in hints for n in part) or 0 in hints[0]:
        return None
    sizes, strides = hints
    lengths = [n if s == 0 and n > 1 and isinstance(length, int) else -1
               for n, s, length in zip(sizes, strides, value.shape, strict=True)]  # fmt: skip
    moving = iter(sorted((i for i, n in enumerate(sizes) if n > 1), key=lambda i: -strides[i]))
    order = [next(moving) if n > 1 else i for i, n in enumerate(sizes)]
    return None if order == list(range(len(order))) and max(lengths, default=-1) < 0 else (order, lengths)


def _parts_to_memory_order(
    reader: FxReader, value: Output | Complex, order: list[int], lengths: list[int]
) -> tuple[Output | Complex, tuple[list[int], list[int]]]:
    """`_in_order` for complex tensors too: their parts stay the last dimension."""
    if not isinstance(value, Complex):
        return _to_memory_order(reader, value, order, lengths)
    pair, back = _to_memory_order(reader, value.pair, [*order, len(order)], [*lengths, -1])
    return Complex(pair), back


def _to_memory_order(
    reader: FxReader, value: Output, order: list[int], lengths: list[int]
) -> tuple[Output, tuple[list[int], list[int]]]:
    """(a row-major tensor with the memory that PyTorch's strides give `value`, how to restore its shape)."""
    call = Call(reader, "strides", "strides")
    for axis, length in enumerate(lengths):
        if length > 0:
            value = call.cut(value, axis, 0, 1)
    if order == list(range(len(order))):
        return value, (order, lengths)
    back = sorted(range(len(order)), key=order.__getitem__)
    return call("Transpose", value, order), (back, lengths)


def _number(
    reader: FxReader, node: Any, meta: Any, dim_sources: Mapping[Any, Any], numbers: list[int], i: int
) -> Any:
    if isinstance(meta, torch.SymInt):
        dim_source = dim_sources.get(meta.node.expr)
        if dim_source is not None:
            value, axis = dim_source
            value = value.pair if isinstance(value, Complex) else value
            return Call(reader, "size", f"{node.name}/size").size(value, axis)
        if meta.node.expr.is_number:
            return int(meta.node.expr)
    kinds = {int: torch.int64, float: torch.float64, bool: torch.bool}
    symbols = {torch.SymInt: torch.int64, torch.SymFloat: torch.float64, torch.SymBool: torch.bool}
    dtype = {**kinds, **symbols}.get(type(meta))
    if dtype is None:
        return meta
    numbers.append(i)
    return Number(reader.parameter(node.name, dtype, []))


def static_outputs(model: Model) -> list[tuple[int, ...] | None]:
    """The shape of each output, None for one that has dynamic dimensions."""
    shapes: Sequence[Any] = [port._tensor._type.shape for port in model.outputs]
    return [tuple(shape) if is_static(shape) else None for shape in shapes]
