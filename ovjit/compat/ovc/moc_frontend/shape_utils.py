"""Shapes in the forms that `convert_model` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.tensors.shapes import Dimension, PartialShape, Shape


def is_shape_type(value: Any) -> bool:
    """Whether a value is a shape: one of its classes, or a list of what dimensions are made of."""
    if isinstance(value, (PartialShape, Shape)) or _is_of_framework(value):
        return True
    kinds = (int, np.integer, Dimension)
    return isinstance(value, (list, tuple)) and all(isinstance(d, kinds) for d in value)


def to_partial_shape(shape: Any) -> PartialShape:
    """A PartialShape of a value for which `is_shape_type` holds, or of its text. TypeError for others."""
    if _is_of_framework(shape):
        shape = _dims_of(shape)
    if isinstance(shape, (list, tuple)):
        return PartialShape([int(dim) if isinstance(dim, np.integer) else dim for dim in shape])
    return PartialShape(shape)


def _is_of_framework(value: Any) -> bool:
    """Whether a value is a shape of TensorFlow's, or a tensor of TensorFlow's or Paddle's with sizes."""
    package = type(value).__module__.partition(".")[0]
    if package == "tensorflow":
        return hasattr(value, "numpy") or type(value).__name__ == "TensorShape"
    return package == "paddle" and hasattr(value, "numpy")


def _dims_of(value: Any) -> Any:
    """The sizes of a framework's shape object, -1 for dynamic ones; None for a dynamic rank."""
    if hasattr(value, "numpy"):
        return [int(dim) for dim in value.numpy().reshape(-1)]
    if value.rank is None:
        return PartialShape.dynamic()
    return [-1 if dim is None else int(dim) for dim in value.as_list()]


def get_static_shape(shape: Any, dynamic_value: int | None = None) -> tuple[int | None, ...]:
    """Replace dynamic dimensions by their lower bounds above 0, else upper bounds, else `dynamic_value`."""
    sizes: list[int | None] = []
    for dim in _dimensions(shape):
        if dim.is_static or dim.get_min_length() > 0:
            sizes.append(dim.get_min_length())
        else:
            sizes.append(dim.get_max_length() if dim.get_max_length() > 0 else dynamic_value)
    return tuple(sizes)


def get_dynamic_dims(shape: Any) -> list[int]:
    """The indices of dimensions without bounds."""
    dims = enumerate(_dimensions(shape))
    return [i for i, dim in dims if dim.get_min_length() == 0 and dim.get_max_length() == -1]


def _dimensions(shape: Sequence[Any]) -> list[Any]:
    return [dim if isinstance(dim, Dimension) else Dimension(int(dim)) for dim in shape]
