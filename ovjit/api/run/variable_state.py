"""`VariableState`, by which a request's states are seen and set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ovjit.api.arguments import expect
from ovjit.api.run.inputs import native_of
from ovjit.api.run.request_guard import exclusive
from ovjit.api.run.slots import BITS, PACKED, pack, relation
from ovjit.api.tensors.tensor import Tensor, lend_array
from ovjit.api.tensors.types import TYPES
from ovjit.errors import InferenceError
from ovjit.graph import dtypes

if TYPE_CHECKING:
    from ovjit.api.run.request_guard import RequestGuard
    from ovjit.execution.states import States


class VariableState:
    """One variable of a request. It belongs to the request: another one has its own."""

    __slots__ = ("_flag", "_index", "_request", "_states")

    def __init__(self, request: RequestGuard, states: States, index: int, flag: int | None = None):
        """`flag`: the index of the variable that tells whether this one is unset, see `rewrite.hoist`."""
        self._flag = flag
        self._request = request
        self._states = states
        self._index = index

    @property
    def name(self) -> str:
        return self._states.variables[self._index].name

    @property
    @exclusive
    def state(self) -> Tensor:
        """The value as it is now, zeros after a reset. Writing to the tensor's data changes it, until an
        inference gives the variable its next value."""
        dtype = self._states.variables[self._index].dtype
        value = self._states.show(self._index)
        way = relation(dtype)
        if way == PACKED:
            return lend_array(pack(value, dtype), TYPES[dtype], value.shape)
        return lend_array(value.view(TYPES[dtype].to_dtype()) if way == BITS else value, TYPES[dtype])

    @state.setter
    @exclusive
    def state(self, tensor: Tensor) -> None:
        """TypeError unless it is a Tensor, RuntimeError for one that does not fit."""
        expect(tensor, Tensor, "a state is set from a Tensor")
        variable = self._states.variables[self._index]
        value, expected = native_of(tensor), dtypes.numpy_dtype(variable.dtype)
        if value.dtype != expected:
            if tensor.element_type._name in ("f64", "string") or variable.dtype == "string":
                raise InferenceError(
                    f"the variable {variable.name!r} has the element type {variable.dtype}, the given "
                    f"tensor has {tensor.element_type._name}"
                )
            with np.errstate(all="ignore"):
                value = value.astype(expected)
        self._states.set(self._index, value)
        if self._flag is not None:
            self._states.set(self._flag, np.array(False))

    @exclusive
    def reset(self) -> None:
        """Back to the initial value, which the next inference works out."""
        self._states.reset(self._index)
        if self._flag is not None:
            self._states.reset(self._flag)

    @property
    @exclusive
    def _shape(self) -> tuple[int, ...]:
        """The shape in which the value is kept; () after a reset."""
        return self._states.shape(self._index)

    @property
    def _open(self) -> list[int]:
        """The axes whose lengths the model leaves open."""
        shape = self._states.variables[self._index].shape
        return [axis for axis, size in enumerate(shape or ()) if not isinstance(size, int)]

    @exclusive
    def _cut(self, axis: int, length: int) -> None:
        """Truncate the value to the first `length` elements along `axis`."""
        self._states.cut(self._index, axis, length)

    @exclusive
    def _read_stored(self) -> np.ndarray | None:
        """The value in its stored type, until the next run. None after a reset, and for one on a card."""
        self._states.settle()
        value, memory = self._states.cells[self._index]
        return value if memory is None or isinstance(memory, np.ndarray) else None

    @exclusive
    def _restore(self, value: np.ndarray) -> None:
        """Make an array of its own, in the type of `_read_stored`, the value."""
        self._states.settle()
        self._states._set_cell(self._index, (value, None))
        if self._flag is not None:
            self._states.set(self._flag, np.array(False))

    def __repr__(self) -> str:
        return "<VariableState>"
