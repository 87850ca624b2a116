"""Element types, NumPy types and Python numbers, and how one becomes the other."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ovjit.api.exceptions import OVTypeError
from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Node, Output
from ovjit.api.tensors.types import TYPES, Type
from ovjit.api.tensors.vectors import Shape

log = logging.getLogger(__name__)

TensorShape = list[int]
NumericData = int | float | np.ndarray
NumericType = type | np.dtype
ScalarData = int | float
NodeInput = Node | int | float | np.ndarray

_NUMPY: list[tuple[str, Any]] = [
    ("boolean", bool), ("boolean", np.bool_), ("f16", np.float16), ("f32", np.float32), ("f64", np.float64),
    ("i8", np.int8), ("i16", np.int16), ("i32", np.int32), ("i64", np.int64), ("u8", np.uint8),
    ("u16", np.uint16), ("u32", np.uint32), ("u64", np.uint64), ("string", str), ("string", np.str_),
    ("string", bytes), ("string", np.bytes_),
]  # fmt: skip
openvino_to_numpy_types_str_map = list(_NUMPY)
#: bf16 has no NumPy type of its own: its bits are u16. Only from Type to NumPy, as u16 itself stands before
#: it.
openvino_to_numpy_types_map = [(TYPES[name], kind) for name, kind in (*_NUMPY, ("bf16", np.uint16))]
_PYTHON = {int: "i32", float: "f32"}


def get_element_type(data_type: NumericType) -> Type:
    """The Type of a NumPy or Python type; int is i32 and float f32. OVTypeError for others."""
    return TYPES[get_element_type_str(data_type)]


def get_element_type_str(data_type: NumericType) -> str:
    """The name of the Type of a NumPy or Python type; int is i32 and float f32. OVTypeError for others."""
    if isinstance(data_type, type) and data_type in _PYTHON:
        name = _PYTHON[data_type]
        log.warning("%s does not state a width: %s is used", data_type.__name__, name)
        return name
    for name, kind in _NUMPY:
        if kind == data_type:
            return name
    raise OVTypeError("Unidentified data type %s", data_type)


def get_numpy_ctype(openvino_type: Type) -> type:
    """The NumPy or Python type of an element type. OVTypeError if NumPy has none."""
    for element_type, kind in openvino_to_numpy_types_map:
        if element_type == openvino_type:
            return kind
    raise OVTypeError("Unidentified data type %s", openvino_type)


def get_dtype(openvino_type: Type) -> np.dtype:
    """The NumPy dtype of an element type. OVTypeError if NumPy has none."""
    return np.dtype(get_numpy_ctype(openvino_type))


def get_ndarray(data: NumericData) -> np.ndarray:
    """The data as an array: itself if it is one."""
    return data if isinstance(data, np.ndarray) else np.array(data)


def get_shape(data: NumericData) -> TensorShape:
    """The shape of an array, the length of a list, [] for a number."""
    if isinstance(data, np.ndarray):
        return data.shape  # type: ignore[return-value]
    return [len(data)] if isinstance(data, list) else []


def make_constant_node(
    value: NumericData, dtype: NumericType | Type | None = None, *, name: str | None = None
) -> Constant:
    """A Constant of `value`, converted to `dtype` if given. OVTypeError if it has no element type."""
    array = get_ndarray(value)
    kind = array.dtype if dtype is None else dtype
    element_type = kind if isinstance(kind, Type) else get_element_type(kind)
    node = Constant(element_type, Shape(list(array.shape)), array.reshape(-1).tolist())
    if name:
        node.friendly_name = f"{name}/{node.friendly_name}"
    return node


def as_node(input_value: Any, name: str | None = None) -> Node | Output:
    """A Node or Output as it is, anything else as a Constant."""
    return (
        input_value if isinstance(input_value, (Node, Output)) else make_constant_node(input_value, name=name)
    )


def as_nodes(*input_values: Any, name: str | None = None) -> list[Node | Output]:
    """`as_node` of each."""
    return [as_node(value, name=name) for value in input_values]
