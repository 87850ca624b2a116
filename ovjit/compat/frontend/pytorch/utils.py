"""PyTorch's types and values as OpenVINO's."""

from __future__ import annotations

from typing import Any

import numpy as np

import ovjit
from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Output
from ovjit.api.tensors.types import TYPES, Type
from ovjit.compat.frontend.pytorch.py_pytorch_frontend import _Type
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.values import ELEMENT_NAMES, PARTS, array_of

#: Names of classes of tensors -> the types of their elements.
_CLASSES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Int": "int32",
    "Long": "int64", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexHalf": "complex32", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip


def _type_of(name: str) -> Any:
    if name in PARTS:
        return _Type.Complex(ovjit.OVAny(TYPES[PARTS[name]]))
    return TYPES[ELEMENT_NAMES[name]]


#: The names that PyTorch and Python have for types -> types of elements.
pt_to_ov_type_map: dict[str, Any] = {
    "float": Type.f32,
    "int": Type.i64,
    "bool": Type.boolean,
    **{f"torch.{name}": _type_of(name) for name in (*ELEMENT_NAMES, *PARTS)},
    **{f"torch.{kind}Tensor": _type_of(name) for kind, name in _CLASSES.items()},
}


def constant_of_tensor(tensor: Any) -> Output:
    """A tensor as a Constant in its own memory; a complex one has its parts in a last dimension."""
    data, kind = array_of(tensor)
    return Constant._of(data, kind).output(0)


def constant_of(value: Any) -> Output | None:
    """A number, a tensor, or a list or tuple of numbers as a Constant; None for anything else."""
    if isinstance(value, torch.Tensor):
        return constant_of_tensor(value)
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    if isinstance(first, bool):
        return Constant._of(np.array(value, np.bool_), "boolean").output(0)
    if isinstance(first, int) or (isinstance(value, (list, tuple)) and not value):
        return Constant._of(np.array(value, np.int64), "i64").output(0)
    return Constant._of(np.array(value, np.float32), "f32").output(0) if isinstance(first, float) else None


__all__ = ["constant_of", "constant_of_tensor", "pt_to_ov_type_map"]
