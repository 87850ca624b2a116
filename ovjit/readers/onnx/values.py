"""Values of ONNX that are no tensors: sequences, and optionals.

A sequence of dynamic length is the rows of one tensor, so that its tensors must have one shape:
`LoopSequence`. An optional that may be empty has a tensor in any case, and says whether it counts:
`OpenOptional`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ovjit.build import Output, tensor_type
from ovjit.build.builder import Builder
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import is_static


class TensorList(list):
    """A sequence whose tensors are known while the model is read; no node represents it.

    `element_type` is that of an empty one, where the model says it.
    """

    def __init__(self, items: Iterable[Any] = (), element_type: str | None = None):
        super().__init__(items)
        self.element_type = element_type


class LoopSequence:
    """A sequence to which a loop adds a tensor in each iteration: the rows of one tensor, [iterations, ...].

    `first` are its initial tensors. Tensors that may have different lengths and that the model joins along an
    axis are in `joined` in that form, by that axis.
    """

    def __init__(self, first: TensorList, rows: Output, joined: Mapping[int, Output] | None = None) -> None:
        self.first = first
        self.rows = rows
        self.joined = joined or {}


class _Empty:
    """Marks an empty optional."""

    def __repr__(self) -> str:
        return "an empty optional"


EMPTY = _Empty()


class OpenOptional:
    """An optional that has `value` if `is_there`, a boolean [1]; otherwise `value` is a placeholder."""

    def __init__(self, value: Any, is_there: Output) -> None:
        self.value = value
        self.is_there = is_there


#: Makes a value of ONNX of the tensors that an If or a Loop returns, in their order.
Rebuild = Callable[[Iterator[Output]], Any]


def is_sequence(value: Any) -> bool:
    return isinstance(value, (TensorList, LoopSequence))


def stack_rows(n: Builder, value: TensorList | LoopSequence) -> Output:
    """All tensors of a sequence as rows of one: [tensors, ...]. They must have one shape."""
    first = value.first if isinstance(value, LoopSequence) else value
    ranks = {n.rank(v) for v in first}
    if isinstance(value, LoopSequence):
        ranks.add(n.rank(value.rows) - 1)
    if len(ranks) > 1:
        raise UnsupportedError("a sequence of open length needs tensors of one rank")
    parts = [n.unsqueeze(v, [0]) for v in first]
    return n.concat([*parts, value.rows] if isinstance(value, LoopSequence) else parts, 0)


def of_rows(rows: Output) -> LoopSequence:
    return LoopSequence(TensorList([], tensor_type(rows).dtype), rows)


def fit_rows(n: Builder, rows: Output, row: Output) -> Output:
    """Rows with the shape of `row`: an empty tensor of rows may have unknown dimensions."""
    if n.rank(rows) != n.rank(row) + 1:
        raise UnsupportedError("a sequence of open length needs tensors of one rank")
    shape = n.shape(row) or ()
    if (n.shape(rows) or ())[1:] == shape and is_static(shape):
        return rows
    return n.reshape(rows, n.concat([n.dim_of(rows, 0), n.shape_of(row)], 0))


def no_rows(n: Builder, shape: Any, kind: str) -> Output:
    """An empty tensor of rows of this shape and type, for a sequence without tensors."""
    empty = np.zeros([0, *(d if isinstance(d, int) else 0 for d in shape)])
    return n.const(empty.astype(object) if kind == "string" else empty, kind)


def row_shape(n: Builder, value: Any) -> Any:
    """The shape of a sequence's tensors; None without any."""
    if isinstance(value, LoopSequence):
        shape = n.shape(value.rows)
        return None if shape is None else shape[1:]
    return n.shape(value[0]) if value else None


def element_type(n: Builder, value: Any) -> str | None:
    """The element type of a sequence, None if the model does not declare it."""
    if isinstance(value, LoopSequence):
        return n.dtype(value.rows)
    return n.dtype(value[0]) if value else value.element_type


def unify_branch_values(n: Builder, a: Any, b: Any) -> tuple[list[Output], list[Output], Rebuild]:
    """(tensors of `a`, tensors of `b`, function that makes a value from an If's outputs), for two values that
    the branches of an If return."""
    if isinstance(a, Output) and isinstance(b, Output):
        return [a], [b], next
    if a is EMPTY and b is EMPTY:
        return [], [], lambda outputs: EMPTY
    if any(v is EMPTY or isinstance(v, OpenOptional) for v in (a, b)):
        return _joined_optionals(n, a, b)
    if not (is_sequence(a) and is_sequence(b)):
        raise UnsupportedError(
            f"the branches return different kinds of values: {_describe(a)} and {_describe(b)}"
        )
    if isinstance(a, TensorList) and isinstance(b, TensorList) and len(a) == len(b):
        kind = a.element_type or b.element_type
        return list(a), list(b), lambda outputs: TensorList([next(outputs) for _ in a], kind)
    rows = [_rows_beside(n, v, other) for v, other in ((a, b), (b, a))]
    if len({n.rank(v) for v in rows}) > 1:
        raise UnsupportedError("branches that return sequences of other lengths need tensors of one rank")
    return [rows[0]], [rows[1]], lambda outputs: of_rows(next(outputs))


def _rows_beside(n: Builder, value: Any, other: Any) -> Output:
    if isinstance(value, LoopSequence) or value:
        return stack_rows(n, value)
    return no_rows(n, row_shape(n, other) or (), element_type(n, other) or "f32")


def _joined_optionals(n: Builder, a: Any, b: Any) -> tuple[list[Output], list[Output], Rebuild]:
    there = [v.is_there if isinstance(v, OpenOptional) else n.const(v is not EMPTY) for v in (a, b)]
    a, b = (v.value if isinstance(v, OpenOptional) else v for v in (a, b))
    a, b = _blank(n, b) if a is EMPTY else a, _blank(n, a) if b is EMPTY else b
    remaining, right, rebuild = unify_branch_values(n, a, b)

    def optional(outputs: Iterator[Output]) -> OpenOptional:
        is_there = next(outputs)
        return OpenOptional(rebuild(outputs), is_there)

    return [there[0], *remaining], [there[1], *right], optional


def _blank(n: Builder, like: Any) -> Any:
    """Empty value like `like`: an empty sequence, or a tensor with 0 for its dynamic dimensions."""
    if is_sequence(like):
        return TensorList([], element_type(n, like))
    shape = [d if isinstance(d, int) else 0 for d in n.shape(like) or ()]
    return n.broadcast(n.blank(like), np.array(shape, np.int64))


def _describe(value: Any) -> str:
    if value is EMPTY or isinstance(value, OpenOptional):
        return "an optional"
    return "a sequence" if is_sequence(value) else "a tensor"
