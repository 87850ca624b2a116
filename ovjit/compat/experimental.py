"""OpenVINO's experimental functions: bounds of non-constant values, and tensor types set by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.arguments import expect
from ovjit.api.model.node import GRAPH_LOCK, DescriptorTensor, Output
from ovjit.api.model.value_bounds import value_bounds
from ovjit.api.tensors.convert import dims_of, element_name, partial_shape_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.errors import ModelError
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Interval

_OPEN = np.iinfo(np.int64).max


def evaluate_both_bounds(output: Output) -> tuple[Tensor, Tensor]:
    """The smallest and largest values that an output can have, as far as known at compile time.

    RuntimeError where nothing is known of it.
    """
    bounds = value_bounds(_output(output))
    if bounds is None:
        raise ModelError(f"Tensor was not initialized: the value bounds of {output!r} are unknown")
    lower, upper = bounds
    return Tensor(np.ascontiguousarray(lower)), Tensor(np.ascontiguousarray(upper))


def evaluate_as_partial_shape(output: Output, partial_shape: PartialShape) -> bool:
    """Store the values of an integer vector as a shape in `partial_shape`. False if they are unknown."""
    expect(partial_shape, PartialShape, "a PartialShape is expected", TypeError)
    bounds = value_bounds(_output(output))
    if bounds is None or bounds[0].ndim > 1:
        return False
    dims = [
        int(low) if low == high else Interval(max(int(low), 0), None if high >= _OPEN else int(high))
        for low, high in zip(np.atleast_1d(bounds[0]), np.atleast_1d(bounds[1]), strict=True)
    ]
    partial_shape._items = partial_shape_of(dims)._items
    return True


def set_element_type(tensor: DescriptorTensor, element_type: Type) -> None:
    """Change the element type of a tensor descriptor; the next validation infers it again."""
    set_tensor_type(tensor, element_type, tensor.get_partial_shape())


def set_tensor_type(tensor: DescriptorTensor, element_type: Type, partial_shape: PartialShape) -> None:
    """Change the element type and shape of a tensor descriptor; the next validation infers them again."""
    if not isinstance(tensor, DescriptorTensor) or not isinstance(element_type, Type):
        raise TypeError("a DescriptorTensor and a Type are expected")
    with GRAPH_LOCK:
        tensor._type = TensorType(element_name(element_type), dims_of(partial_shape))


def _output(output: Any) -> Output:
    if not isinstance(output, Output):
        raise TypeError(f"an Output is expected, not {type(output).__name__}")
    return output


__all__ = ["evaluate_as_partial_shape", "evaluate_both_bounds", "set_element_type", "set_tensor_type"]
