"""The values of a job's variables: memory, stored types, and the reordering of rows by beams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.errors import InferenceError
from ovjit.execution.blocks import LARGE_STATE, new_array
from ovjit.graph import dtypes, shapes
from ovjit.graph.shapes import fits
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.rewrite.model_variables import Variable


#: A variable's value, and of a growing one the memory of which it is a prefix, else None. The value is None
#: from a reset until a run computes the initial value.
Cell = tuple[np.ndarray | None, np.ndarray | None]


class States:
    """The values of a job's variables.

    A signal's handler may raise an exception anywhere. So the values after a run, or after a reset, are
    stored by one store: all of them are those of before, or all are those of after.
    """

    def __init__(self, variables: Sequence[Variable], computed: Sequence[bool]):
        """`computed`: which variables have an initial value other than zeros."""
        self.variables = tuple(variables)
        self._computed = list(computed)
        self.cells: list[Cell] = []
        #: Whether the caller has a tensor on the value's memory, which must then not be overwritten. It is
        #: True before the caller gets it, and False after another value was stored.
        self.shown = [False] * len(self.variables)
        #: The capacity of growing variables, in elements.
        self.room = 0
        #: Current shapes, if all variables grow and the values are outdated: `settle` updates them.
        self.steady: list[tuple[int, ...]] | None = None
        self.reset_all()

    @property
    def values(self) -> list[np.ndarray | None]:
        """The value of each variable, see `Cell`."""
        return [cell[0] for cell in self.cells]

    @property
    def memory(self) -> list[np.ndarray | None]:
        """The memory of each growing variable, see `Cell`."""
        return [cell[1] for cell in self.cells]

    def settle(self) -> None:
        """Update the values to the shapes in `steady`."""
        if self.steady is None:
            return
        cells: list[Cell] = []
        for (_, memory), shape in zip(self.cells, self.steady, strict=True):
            assert memory is not None
            cells.append((beginning(memory, shape), memory))
        self.cells = cells
        self.steady = None  # last: the cells could be updated again

    def store(self, cells: list[Cell]) -> None:
        """Make these the values of all variables."""
        self.steady = None
        self.cells = cells
        self.shown = [False] * len(cells)

    def reset_all(self) -> None:
        """Reset every variable."""
        self.settle()
        self.store([self._reset(k) for k in range(len(self.variables))])

    def reset(self, k: int) -> None:
        self.settle()
        self._set_cell(k, self._reset(k))

    def _reset(self, k: int) -> Cell:
        return None if self._computed[k] else lowest(self.variables[k]), None

    def _set_cell(self, k: int, cell: Cell) -> None:
        self.cells[k] = cell
        self.shown[k] = False

    def show(self, k: int) -> np.ndarray:
        """The value as an array for the caller; zeros after a reset."""
        self.settle()
        value = self.cells[k][0]
        if value is None:
            return lowest(self.variables[k])
        dtype = dtypes.numpy_dtype(self.variables[k].dtype)
        if not value.flags.c_contiguous or value.dtype != dtype:
            # the memory has spare capacity or another type: replace it by an ordinary array
            value = np.array(as_given(value, self.variables[k]), order="C")
            self.cells[k] = value, None
        self.shown[k] = True
        return value

    def set(self, k: int, value: np.ndarray) -> None:
        """Store a copy of `value`, which has the variable's dtype. Raises InferenceError unless it fits."""
        variable = self.variables[k]
        if not fits(value.shape, variable.shape):
            raise InferenceError(
                f"Can not clone with new dims: the variable {variable.name!r} has the shape "
                f"{shapes.text(variable.shape)}, the given tensor has {shapes.text(value.shape)}"
            )
        self.settle()
        self._set_cell(k, (copy_row_major(as_stored(value, variable)), None))

    def shape(self, k: int) -> tuple[int, ...]:
        """The shape of the stored value; () after a reset."""
        self.settle()
        value = self.cells[k][0]
        return () if value is None else value.shape

    def cut(self, k: int, axis: int, length: int) -> None:
        """Keep the first `length` elements along `axis` of the stored value."""
        self.settle()
        value, memory = self.cells[k]
        assert value is not None
        part = beginning(value, [length if a == axis else d for a, d in enumerate(value.shape)])
        if memory is None or self.shown[k]:
            self._set_cell(k, (copy_row_major(part), None))
        else:
            self.cells[k] = part, memory


def as_stored(value: np.ndarray, variable: Variable) -> np.ndarray:
    """`value` in the variable's stored type."""
    if value.dtype == dtypes.numpy_dtype(variable.storage.dtype):
        return value
    rows = variable.rows
    return dtypes.cast(value, dtypes.numpy_dtype(variable.stored)) if rows is None else rows.to_bytes(value)


def as_given(value: np.ndarray, variable: Variable) -> np.ndarray:
    """A stored `value` in the variable's own element type."""
    dtype = dtypes.numpy_dtype(variable.dtype)
    rows = variable.rows
    if value.dtype != dtype and rows is not None:
        return rows.to_floats(value)
    return value.astype(dtype, copy=False)


def lowest(variable: Variable) -> np.ndarray:
    """Zeros of the variable's shape, with dynamic dimensions of 0."""
    shape = [d if isinstance(d, int) else 0 for d in variable.shape or ()]
    return np.zeros(shape, dtypes.numpy_dtype(variable.dtype))


class Moves(NamedTuple):
    """An in-place reordering: row `source[i]` is moved to index `to[i]`. `at[i]`: the index of `source[i]` in
    `to`, or -1 if that row is not overwritten."""

    to: np.ndarray
    source: np.ndarray
    at: np.ndarray


def moves_of(order: np.ndarray, rows: int) -> Moves | None:
    """The row moves by which `rows` rows get into the order `order`. None unless `order` consists of `rows`
    valid indices."""
    if len(order) != rows or ((order < -rows) | (order >= rows)).any():
        return None
    sources = np.where(order < 0, order + rows, order).astype(np.int64)
    to = np.flatnonzero(sources != np.arange(rows))
    at = np.full(rows, -1, np.int64)
    at[to] = np.arange(to.size)
    return Moves(to, sources[to], at[sources[to]])


def move_rows(rows: np.ndarray, moves: Moves, before: np.ndarray) -> None:
    """Reorder rows in place. `before`: a copy of the rows `moves.to`."""
    for to, source, at in zip(*(m.tolist() for m in moves), strict=True):
        rows[to] = rows[source] if at < 0 else before[at]


def in_order(value: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows of `value` in `order`, as Gather returns them: zeros for indices that are out of range."""
    rows = len(value)
    indices = order.astype(np.int64)
    valid = (indices >= -rows) & (indices < rows)
    words = as_words(value)
    if valid.all():
        return words[indices].view(value.dtype)
    out = np.zeros((len(order), *value.shape[1:]), words.dtype)
    out[valid] = words[indices[valid]]
    return out.view(value.dtype)


def as_words(array: np.ndarray) -> np.ndarray:
    """bf16 (a user-defined NumPy type) as integers, which NumPy copies by rows; other types unchanged."""
    return array if array.dtype.isbuiltin != 2 else array.view(f"u{array.dtype.itemsize}")


#: Minimum spare capacity in elements. The spare capacity is also at least a quarter of the length.
SPARE = 32


def spacious(length: int) -> int:
    """The capacity for `length` elements, with spare ones."""
    return -(-(length + max(SPARE, length // 4)) // SPARE) * SPARE


def with_room(value: np.ndarray, axis: int, room: int) -> np.ndarray:
    """New memory with `room` elements along `axis`, of which `value` is the prefix."""
    shape = [*value.shape]
    shape[axis] = room
    memory = new_array(shape, value.dtype, LARGE_STATE)
    as_words(beginning(memory, value.shape))[...] = as_words(value)
    return memory


def beginning(memory: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The prefix of `memory` with this shape."""
    return memory[tuple(slice(0, n) for n in shape)]


def copy_row_major(array: np.ndarray) -> np.ndarray:
    return np.array(array, order="C")
