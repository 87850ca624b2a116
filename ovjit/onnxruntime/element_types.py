"""ONNX's element types: ONNX Runtime's names of tensors, and NumPy's types."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.records import NamedTuple


class ElementType(NamedTuple):
    """A row of the table: ONNX Runtime's word, the NumPy type that arrays of it have, or None, and the type
    of the memory of its elements ("" for packed ones)."""

    word: str
    dtype: np.dtype[Any] | None
    storage: str


def _row(word: str, dtype: Any, storage: str = "") -> ElementType:
    return ElementType(word, None if dtype is None else np.dtype(dtype), storage or np.dtype(dtype).str)


STRING, BOOL = 8, 9
#: TensorProto.DataType -> its row.
TYPES: dict[int, ElementType] = {
    1: _row("float", np.float32),
    2: _row("uint8", np.uint8),
    3: _row("int8", np.int8),
    4: _row("uint16", np.uint16),
    5: _row("int16", np.int16),
    6: _row("int32", np.int32),
    7: _row("int64", np.int64),
    STRING: _row("string", object),
    BOOL: _row("bool", np.bool_),
    10: _row("float16", np.float16),
    11: _row("double", np.float64),
    12: _row("uint32", np.uint32),
    13: _row("uint64", np.uint64),
    16: _row("bfloat16", None, "u2"),
    17: _row("float8e4m3fn", None, "u1"),
    18: _row("float8e4m3fnuz", None, "u1"),
    19: _row("float8e5m2", None, "u1"),
    20: _row("float8e5m2fnuz", None, "u1"),
    21: _row("uint4", None, "packed"),
    22: _row("int4", None, "packed"),
    23: _row("float4e2m1", None, "packed"),
    24: _row("float8e8m0", None, "u1"),
}
#: NumPy type -> TensorProto.DataType.
NUMBERS: dict[np.dtype[Any], int] = {row.dtype: n for n, row in TYPES.items() if row.dtype is not None}


def tensor_text(number: int) -> str:
    """The type of a tensor as NodeArg shows it: tensor(float)."""
    row = TYPES.get(number)
    return f"tensor({row.word})" if row is not None else "tensor(undefined)"


_NUMBER_OF_WORD = {row.word: number for number, row in TYPES.items()}


def number_of_text(text: str) -> int:
    """The element type of tensor(...), seq(tensor(...)) and optional(tensor(...)), 0 for others."""
    return _NUMBER_OF_WORD.get(text.rpartition("tensor(")[2].rstrip(")"), 0)


def number_of(dtype: np.dtype[Any]) -> int:
    """The element type of arrays of a NumPy type. RuntimeError if ONNX Runtime has none."""
    if dtype.kind in "SUO":
        return STRING
    number = NUMBERS.get(dtype if dtype.isnative else dtype.newbyteorder("="))
    if number is None:
        raise RuntimeError(f"Numpy_type {dtype.num} can't be converted to MLDataType.")
    return number
