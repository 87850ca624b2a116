"""Small helpers below `convert_model`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ovjit.compat.ovc.error import Error


def check_values_equal(val1: Any, val2: Any) -> Any:
    """Whether two values are equal; element by element for arrays."""
    if val1 is None or val2 is None:
        return val1 is val2
    if isinstance(val1, (list, tuple)) and isinstance(val2, (list, tuple)) and len(val1) != len(val2):
        return False
    return val1 == val2


def mo_array(value: Any, dtype: Any = None) -> np.ndarray:
    """An array; numbers with a point are f32 unless `dtype` says otherwise."""
    array = np.array(value, dtype=dtype)
    return array.astype(np.float32) if dtype is None and array.dtype == np.float64 else array


def bool_cast(x: Any) -> Any:
    """The boolean that a text or an object stands for; "unknown_boolean_cast" for other texts."""
    if isinstance(x, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(x.lower(), "unknown_boolean_cast")
    return bool(x)


def validate_batch_in_shape(shape: Any, layer_name: str) -> None:
    """Error where the first dimension of a shape is given, so that no batch can be put there."""
    if len(shape) == 0 or shape[0] not in (-1, 0, 1):
        raise Error("the input {} of shape {} has no batch dimension that can be set", layer_name, shape)


def get_ir_version() -> int:
    """The version of the IR that is written."""
    return 11


def get_mo_root_dir() -> str:
    """The folder of the tools."""
    return os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def import_openvino_tokenizers() -> bool:
    """Whether OpenVINO's tokenizers could be imported: False, as they are a native library."""
    return False


def refer_to_faq_msg(question_num: int) -> str:
    """The end of a message that refers to a question in the documentation."""
    return f"\n See the documentation of model conversion, question #{question_num}."
