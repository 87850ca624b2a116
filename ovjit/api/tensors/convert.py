"""Between the public value classes and what the inside of ovjit uses for them.

Inside, an element type is its name and a shape a tuple of ints and Intervals, None for unknown rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ovjit.api.tensors.shapes import PartialShape, _partial
from ovjit.api.tensors.types import TYPES, Type
from ovjit.api.tensors.vectors import Shape
from ovjit.api.tensors.vectors import shape_of as _shape
from ovjit.errors import ModelError, no_such_form
from ovjit.graph import dtypes
from ovjit.graph.shapes import Dim, is_static, text
from ovjit.graph.symbolic import symbol_of, with_symbol, without_symbols

#: How a Parameter's repr writes its element type.
CPP_NAMES = {name: row.cpp for name, row in dtypes.ELEMENT_TYPES.items()}


def type_of(name: str) -> Type:
    return TYPES[name]


def element_name(value: Any) -> str:
    """The name of the element type that a Type, a NumPy dtype, a scalar class or a name stands for.

    A bare `int` or `float` has 32 bits, as in OpenVINO. Raises TypeError for anything else.
    """
    if isinstance(value, Type):
        return value._name
    if value is int or value is float:
        return "i32" if value is int else "f32"
    if isinstance(value, str) and value.lower() in dtypes.ELEMENT_TYPES:
        return value.lower()
    if isinstance(value, (np.generic, np.ndarray, ModuleType)):  # NumPy takes the type of what they hold
        raise no_such_form(f"an element type is expected, not {value!r}")
    try:
        return dtypes.from_numpy(np.dtype(value))
    except TypeError as error:
        raise no_such_form(f"an element type is expected, not {value!r}") from error


def partial_shape_of(shape: Sequence[Dim] | None) -> PartialShape:
    """A shape as the API has it: of the expressions of dimensions, it has Symbols."""
    return _partial(None if shape is None else tuple(with_symbol(d, symbol_of(d)) for d in shape))


def shape_of(shape: Sequence[Dim] | None) -> Shape:
    """Raises ModelError (a RuntimeError) if the shape is dynamic."""
    if not is_static(shape):
        shown = text(None if shape is None else tuple(shape))
        raise ModelError(f"to_shape was called on a dynamic shape. It is {shown}: use partial_shape")
    assert shape is not None
    return _shape(d for d in shape if isinstance(d, int))


def dims_of(shape: Any) -> tuple[Dim, ...] | None:
    """The inside form of a PartialShape, or of anything that makes one, without Symbols.

    Raises TypeError or RuntimeError as `PartialShape` does.
    """
    return without_symbols(dims_with_symbols(shape))


def dims_with_symbols(shape: Any) -> tuple[Dim, ...] | None:
    """As `dims_of`, with Symbols."""
    return (shape if isinstance(shape, PartialShape) else PartialShape(shape))._items
