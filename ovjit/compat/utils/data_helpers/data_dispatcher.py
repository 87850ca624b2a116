"""Inputs as a caller passes them, made to Tensors: what OpenVINO's Python layer does before an inference.

Packages around OpenVINO call these functions; ovjit's own way is `api.run.inputs`. Values that are shared
become Tensors, which the caller then sets. Of values that are copied, arrays are written into the tensors of
the request at once, and only the others come back as Tensors.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np

from ovjit.api.model.node import ConstOutput
from ovjit.api.run.inputs import is_plain
from ovjit.api.run.remote import RemoteTensor
from ovjit.api.run.results import OVDict
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.compat.utils.data_helpers.wrappers import _InferRequestWrapper

#: A dict, list, tuple or the results of another inference: one value for each input.
ContainerTypes = dict | list | tuple | OVDict
#: The value of an input of one element.
ScalarTypes = np.number | int | float
#: What names an input.
ValidKeys = str | int | ConstOutput

_SCALARS = (np.number, np.bool_, int, float, str, bytes)


def is_list_simple_type(input_list: list[Any]) -> bool:
    """Whether a list holds only numbers, or lists of them."""
    return is_plain(input_list)


def to_c_style(value: Any, is_shared: bool = False) -> Any:
    """An array in C order: a copy unless it is already; what is no array, as it is."""
    if not isinstance(value, np.ndarray):
        return _as_array(value, is_shared) if hasattr(value, "__array__") else value
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


def _as_array(value: Any, is_shared: bool) -> Any:
    """The array of an object that offers one: its own if it may be shared."""
    array = np.asarray(value) if is_shared else np.array(value)
    return to_c_style(array)


def get_request_tensor(request: _InferRequestWrapper, key: ValidKeys | None = None) -> Tensor:
    """The tensor of a request by index, name or port; without a key that of its only input."""
    if key is None:
        return request.get_input_tensor()
    if isinstance(key, int):
        return request.get_input_tensor(key)
    if isinstance(key, (str, ConstOutput)):
        return request.get_tensor(key)
    raise _wrong_key(key)


def set_request_tensor(request: _InferRequestWrapper, tensor: Tensor, key: ValidKeys | None = None) -> None:
    """Give a request a tensor, named as for `get_request_tensor`."""
    if key is None:
        request.set_input_tensor(tensor)
    elif isinstance(key, int):
        request.set_input_tensor(key, tensor)
    elif isinstance(key, (str, ConstOutput)):
        request.set_tensor(key, tensor)
    else:
        raise _wrong_key(key)


def _wrong_key(key: Any) -> TypeError:
    return TypeError(f"Unsupported key type: {type(key)} for Tensor under key: {key}")


def _wrong_value(value: Any, key: Any) -> TypeError:
    return TypeError(f"Incompatible inputs of type: {type(value)} under {key} key!")


def value_to_tensor(
    value: Any, request: Any = None, is_shared: bool = False, key: ValidKeys | None = None
) -> Tensor:
    """A Tensor of one value, of the type of the input that it is for; an array's memory is shared where type
    and layout allow. TypeError for a value of another kind."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, list):
        return Tensor(value)
    if isinstance(value, np.ndarray):
        return _array_to_tensor(value, get_request_tensor(request, key), is_shared)
    if isinstance(value, _SCALARS):
        dtype = get_request_tensor(request, key).element_type.to_dtype()
        array = np.array(value) if isinstance(value, (str, bytes)) else np.array(value, dtype=dtype)
        return Tensor(array, shared_memory=False)
    raise _wrong_value(value, key)


def _array_to_tensor(value: np.ndarray, current: Tensor, is_shared: bool) -> Tensor:
    element_type = current.element_type
    dtype = element_type.to_dtype()
    if value.ndim == 0:
        # a scalar takes the shape of an input of one element, and one element where the length is open
        shape = tuple(current.shape)
        if value.dtype == dtype and not shape:
            return Tensor(value, shared_memory=is_shared)
        target = (1,) if current.size == 0 else shape
        return Tensor(value.astype(dtype).reshape(target), shared_memory=False)
    if element_type == Type.string:
        return Tensor(value, shared_memory=False)
    if element_type == Type.bf16:  # NumPy has no such type: an array holds the bits
        tensor = Tensor(element_type, value.shape)
        tensor.data[:] = value.view(dtype)
        return tensor
    if value.dtype != dtype:
        value, is_shared = value.astype(dtype), False
    return Tensor(value, shared_memory=is_shared and value.flags.c_contiguous and value.flags.writeable)


def update_tensor(inputs: Any, request: Any, key: ValidKeys | None = None) -> None:
    """Write an array into the tensor of a request, which takes its shape."""
    if not isinstance(inputs, np.ndarray):
        if not hasattr(inputs, "__array__"):
            raise _wrong_value(inputs, key)
        inputs = _as_array(inputs, is_shared=False)
    tensor = get_request_tensor(request, key)
    if inputs.ndim == 0 and tensor.size <= 1:
        inputs = inputs.reshape((1,) if tensor.size == 0 else tuple(tensor.shape))
    if tensor.element_type == Type.string:
        if tuple(tensor.shape) != inputs.shape:
            tensor.shape = inputs.shape
        tensor.bytes_data = inputs
        return
    if inputs.ndim == 0:
        dtype = tensor.element_type.to_dtype()
        set_request_tensor(request, Tensor(inputs.astype(dtype), shared_memory=False), key)
        return
    if tuple(tensor.shape) != inputs.shape:
        tensor.shape = inputs.shape
    tensor.data[:] = inputs


def update_inputs(inputs: dict[Any, Any], request: Any) -> dict[Any, Any]:
    """Write the arrays and scalars of a dict into the tensors of a request; the rest as Tensors."""
    tensors = {}
    for key, value in inputs.items():
        if not isinstance(key, (int, str, ConstOutput)):
            raise TypeError(f"Incompatible key type for input: {key}")
        if isinstance(value, np.ndarray):
            update_tensor(value, request, key)
        elif isinstance(value, (np.number, np.bool_, int, float)):
            update_tensor(np.array(value), request, key)
        elif isinstance(value, (Tensor, list, str, bytes)):
            tensors[key] = value_to_tensor(value, request=request, is_shared=False, key=key)
        else:
            raise _wrong_value(value, key)
    return tensors


def normalize_arrays(inputs: Any, is_shared: bool = False) -> Any:
    """Arrays, alone or in a container, in C order; a container as a dict. TypeError for other values."""
    if isinstance(inputs, OVDict):
        inputs = inputs.to_tuple()
    if isinstance(inputs, (list, tuple)):
        inputs = dict(enumerate(inputs))
    if isinstance(inputs, dict):
        return {key: to_c_style(value, is_shared) for key, value in inputs.items()}
    if isinstance(inputs, np.ndarray) or hasattr(inputs, "__array__"):
        return to_c_style(inputs, is_shared)
    raise TypeError(f"Incompatible inputs of type: {type(inputs)}")


def _is_one_list(inputs: Any, request: Any) -> bool:
    """Whether a list is the value of the only input rather than a list of inputs."""
    return isinstance(inputs, list) and request._is_single_input() and is_list_simple_type(inputs)


def create_shared(inputs: Any, request: Any) -> Any:
    """Tensors that share the memory of the values where they can: a dict for a container, else one Tensor."""
    if _is_one_list(inputs, request):
        return {0: Tensor(inputs)}
    if isinstance(inputs, (dict, list, tuple, OVDict)):
        values = normalize_arrays(inputs, is_shared=True)
        return {key: value_to_tensor(value, request, True, key) for key, value in values.items()}
    if isinstance(inputs, (Tensor, *_SCALARS)):
        return value_to_tensor(inputs, request=request, is_shared=True)
    return value_to_tensor(normalize_arrays(inputs, is_shared=True), request=request, is_shared=True)


def create_copied(inputs: Any, request: Any) -> Any:
    """Arrays are written into the tensors of the request; what else there is, as Tensors in a dict or, for a
    single Tensor or scalar, alone."""
    if _is_one_list(inputs, request):
        return {0: Tensor(inputs)}
    if isinstance(inputs, (dict, list, tuple, OVDict)):
        return update_inputs(normalize_arrays(inputs, is_shared=False), request)
    if isinstance(inputs, (Tensor, *_SCALARS)):
        return value_to_tensor(inputs, request=request, is_shared=False)
    update_tensor(normalize_arrays(inputs, is_shared=False), request)
    return {}


def _data_dispatch(request: Any, inputs: Any = None, is_shared: bool = False) -> Any:
    """The Tensors to set for `inputs`: `create_shared` or `create_copied`, {} without inputs."""
    if inputs is None:
        return {}
    return create_shared(inputs, request) if is_shared else create_copied(inputs, request)


__all__ = [
    "ConstOutput", "ContainerTypes", "OVDict", "RemoteTensor", "ScalarTypes", "Tensor", "Type", "ValidKeys",
    "create_copied", "create_shared", "get_request_tensor", "is_list_simple_type", "normalize_arrays",
    "set_request_tensor", "singledispatch", "to_c_style", "update_inputs", "update_tensor", "value_to_tensor",
]  # fmt: skip
