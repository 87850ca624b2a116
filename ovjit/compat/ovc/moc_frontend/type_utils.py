"""Element types in the forms that `convert_model` takes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ovjit.api.tensors.types import Type


def is_type(val: Any) -> bool:
    """Whether a value is an element type: OpenVINO's, NumPy's, Python's or a framework's."""
    if isinstance(val, (type, Type, np.dtype)):
        return True
    return _is_torch(val) or _is_tensorflow(val) or _is_paddle(val)


def _is_torch(val: Any) -> bool:
    return isinstance(val, getattr(sys.modules.get("torch"), "dtype", ()))


def _is_tensorflow(val: Any) -> bool:
    return isinstance(val, getattr(sys.modules.get("tensorflow"), "DType", ()))


def _is_paddle(val: Any) -> bool:
    paddle = sys.modules.get("paddle")
    return paddle is not None and isinstance(val, type(getattr(paddle, "float32", None)))


def to_ov_type(val: Any) -> Type:
    """The Type of a value for which `is_type` holds. TypeError for others."""
    if isinstance(val, Type):
        return val
    if _is_torch(val) or _is_paddle(val):
        name = str(val).partition(".")[2]
        return Type.bf16 if name == "bfloat16" else Type(np.dtype(name))
    if _is_tensorflow(val):
        name = str(val.name)
        return {"bfloat16": Type.bf16, "string": Type.string}.get(name) or Type(np.dtype(name))
    return Type(str) if val is str else Type(np.dtype(val))
