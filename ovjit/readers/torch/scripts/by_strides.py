"""Operators of scripts that find elements by strides: their tensor is given as it lies in memory."""

from __future__ import annotations

import math
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.naming import label, where
from ovjit.readers.torch.scripts.block_reader import BlockReader
from ovjit.readers.torch.scripts.layouts import IN_ORDER
from ovjit.readers.torch.scripts.memory import Piece
from ovjit.readers.torch.scripts.views import View, as_own_tensor, begins_first
from ovjit.readers.torch.tracing.strides import in_memory


def as_in_memory(reader: BlockReader, node: Any, inputs: list[Any]) -> list[Any]:
    """The inputs of an operator that addresses elements by strides, with its tensor transposed to memory
    order. Raises Refused if that is unknown."""
    value, start = inputs[0], inputs[-1]
    if not isinstance(value, Output):
        raise Refused(node.kind(), f"{node.kind()} of a complex tensor{where(node)}")
    piece = reader.memory.piece(value)
    order, top = _order(reader, node, piece), piece.top
    is_whole = _is_whole(top)
    is_told = order is not None and (start is None or (is_whole and piece is top))
    if node.kind() in ("aten::as_strided_", "aten::as_strided_scatter"):
        is_plain = order is not None and order == sorted(order)
        if (is_plain or piece.layout == IN_ORDER) and (start is None or (is_whole and piece is top)):
            return inputs
    elif is_told and piece is top:
        return [_permute(reader, node, value, order), *inputs[1:]]
    elif is_whole and top.layout == IN_ORDER and isinstance(top.value, Output) and not _may_be_copy(piece):
        begin = _begin(reader, node, piece) if start is None else start
        if begin is not None:
            return [top.value, *inputs[1:-1], begin]
    elif is_told:
        return [_permute(reader, node, value, order), *inputs[1:]]
    raise Refused(node.kind(), f"{node.kind()} of a tensor whose strides are not known{where(node)}")


def _order(reader: BlockReader, node: Any, piece: Piece) -> list[int] | None:
    """The dimensions by falling strides, from the trace's sizes or from the layout. None if strides are
    unknown, or the tensor has gaps."""
    kind, call = node.inputsAt(0).type(), _call(reader, node, "permute")
    sizes, strides = kind.sizes(), kind.strides()
    if (
        (sizes is None or strides is None)
        and piece.layout is not None
        and call.shape(piece.value) is not None
    ):
        if piece.layout.strides is None:
            return list(range(call.rank(piece.value)))
        sizes = [call.known_number(n) for n in call.sizes(piece.value)]
        factors = [[call.known_number(n) for n in step] for step in piece.layout.strides]
        strides = None if any(None in step for step in factors) else [math.prod(step) for step in factors]
        sizes = None if None in sizes else sizes
    return None if sizes is None or strides is None else in_memory(sizes, strides)


def _permute(reader: BlockReader, node: Any, value: Output, order: Any) -> Output:
    if order == sorted(order):
        return value
    result = as_own_tensor(_call(reader, node, "permute").transpose(value, order))
    reader.memory.part(result, value, View("permute", {"self": value, "dims": order}))
    return result


def _call(reader: BlockReader, node: Any, operator: str) -> Call:
    return Call(reader, operator, label(node.scopeName(), node.kind()))


def _may_be_copy(piece: Piece) -> bool:
    """Whether a tensor is a view of another one under a condition only."""
    return any(part.view is not None and part.view.arguments.get("condition") for part in piece.above())


def _is_whole(piece: Piece) -> bool:
    """Whether a tensor begins where its memory does, and all others in that memory are known views of it."""
    is_alone = piece.base is None and all(other.top is piece for other in piece.family)
    return is_alone and (piece.outer is None or _is_whole(piece.outer))


def _begin(reader: BlockReader, node: Any, piece: Piece) -> Any:
    """The offset of a view's first element in the base tensor, None if unknown."""
    parts = [part.view for part in piece.above() if part.base is not None]
    if all(view is not None and begins_first(view) for view in parts):
        return 0
    call, base = _call(reader, node, "slice"), piece.top.value
    numbers = call.reshape(call.arange(call.index(call.count(base))), call.shape_of(base))
    for view in reversed(parts):
        result = None if view is None else view.again(reader, call, numbers, None)
        if result is None:
            return None
        numbers = result
    return call("Gather", call.flat(numbers), call.const(0), call.const(0))
