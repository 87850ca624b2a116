"""Inputs as a caller passes them, made to Tensors: what OpenVINO's Python layer does before an inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.run.inputs import assign_inputs
from ovjit.api.run.request import InferRequest
from ovjit.api.tensors.tensor import Tensor


def is_list_simple_type(input_list: list[Any]) -> bool:
    """Whether a list holds only numbers, or lists of them."""
    return all(
        is_list_simple_type(item)
        if isinstance(item, list)
        else isinstance(item, (bool, int, float, str, bytes))
        for item in input_list
    )


def to_c_style(value: Any, is_shared: bool = False) -> Any:
    """An array in C order: a copy unless it is already; what is no array, as it is."""
    if not isinstance(value, np.ndarray):
        return np.array(value) if hasattr(value, "__array__") else value
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


def _data_dispatch(request: InferRequest, inputs: Any = None, is_shared: bool = False) -> Any:
    """Set a request's inputs; the Tensors that it has then, by index. Errors as `InferRequest.infer`."""
    if inputs is None:
        return {}
    assign_inputs(request, inputs, is_shared)
    request._note_slots()
    return dict(enumerate(request.input_tensors))


__all__ = ["Tensor", "is_list_simple_type", "to_c_style"]
