"""From what a caller may pass as inputs to arrays in a request's slots: the general path.

The fast path, for arrays that fit as they are, is `InferRequest._assign`. Everything else comes here: lists,
tuples, single values, Tensors, scalars, other dtypes, strides, byte orders, wrong types. All inputs are
checked before the first is set, so that a refused one leaves the request as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.node import ConstOutput
from ovjit.api.model.ports import port_index
from ovjit.api.run.remote import RemoteTensor
from ovjit.api.run.results import OVDict
from ovjit.api.run.slots import BITS, PACKED, SAME, STRING, InputSlot, as_port, native_dtype, relation, unpack
from ovjit.api.tensors.memory import encode_strings, encode_texts
from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import InferenceError, no_such_form
from ovjit.graph import shapes

if TYPE_CHECKING:
    from ovjit.api.run.request_tensors import RequestTensors

Array = np.ndarray

#: (slot, Tensor to bind | array, whether the array may be lent as it is)
Step = tuple[InputSlot, Any, bool]


def assign_inputs(request: RequestTensors, inputs: Any, share: bool) -> None:
    """Set the inputs of a request. Raises RuntimeError or TypeError as OpenVINO does, and then sets none."""
    steps = [_prepare_value(slot, value, share, key) for key, slot, value in _list_inputs(request, inputs)]
    job = request._job
    for slot, value, lend in steps:
        if isinstance(value, RemoteTensor):
            request._bind_remote(slot, value)
        elif isinstance(value, Tensor):
            slot.bind(job, value)
        elif lend:
            slot.lend(job, value)
        else:
            slot.copy(job, value)


def _list_inputs(request: RequestTensors, inputs: Any) -> list[tuple[Any, InputSlot, Any]]:
    """(key, slot, value) of every input given."""
    slots = request._inputs
    if isinstance(inputs, dict):
        return [(key, find_slot(request, key), value) for key, value in inputs.items()]
    if isinstance(inputs, OVDict):
        inputs = list(inputs.values())
    elif isinstance(inputs, list) and len(slots) == 1 and _is_one_value(inputs, slots[0]):
        inputs = [inputs]
    if isinstance(inputs, (list, tuple)):
        if len(inputs) > len(slots):
            raise InferenceError(
                f"{len(inputs)} inputs are given, but the model has {len(slots)}: {_names(request)}"
            )
        return [(i, slots[i], value) for i, value in enumerate(inputs)]
    if not _is_value(inputs):
        raise TypeError(f"Incompatible inputs of type: {type(inputs)}")
    if len(slots) != 1:
        raise InferenceError(
            f"a single value is given, but the model has {len(slots)} inputs: pass a list, or a dict "
            f"with the keys {_names(request)}"
        )
    return [(0, slots[0], inputs)]


def find_slot(request: RequestTensors, key: Any) -> InputSlot:
    """The slot of an input by index, name or port. RuntimeError for an input that the model lacks, TypeError
    for keys of another kind and for negative indices."""
    slot = request._tables.get(type(key), {}).get(key)
    if slot is not None:
        return slot
    slots = request._inputs
    if isinstance(key, int):
        if key < 0:
            raise no_such_form(f"input indices start at 0; {key} is given")
        if key >= len(slots):
            raise InferenceError(
                f"Input port for index {key} was not found! The model has only {len(slots)} inputs. "
                f"They are {_names(request)}"
            )
        return slots[key]
    if isinstance(key, str):
        for slot in slots:
            if key in slot.info.names:
                return slot
        raise InferenceError(
            f"Port for tensor name {key} was not found. Check the name: the model's inputs are "
            f"{_names(request)}{_near(request, key)}"
        )
    if isinstance(key, ConstOutput):
        i = port_index(request._compiled._input_ports, key)
        if i is None:
            raise InferenceError(f"{key!r} is not an input of this model; its inputs are {_names(request)}")
        return slots[i]
    raise TypeError(f"Incompatible key type for input: {key!r}; an input is selected by index, name or port")


def _names(request: RequestTensors) -> str:
    return ", ".join(repr(slot.info.label) for slot in request._inputs) or "none"


def _near(request: RequestTensors, key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, [n for slot in request._inputs for n in slot.info.names], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _is_one_value(values: list[Any], slot: InputSlot) -> bool:
    """Whether a list is the value of a single input, and not a list of inputs. OpenVINO takes lists of plain
    values for one, and lists of those; deeper ones are here if they have the input's rank."""
    if len(values) == 1 and type(values[0]) is np.ndarray:
        return False
    depth, part = 0, values
    while isinstance(part, list):
        depth, part = depth + 1, part[0] if part else None  # type: ignore[assignment]
    expected = slot.info.shape
    return (depth <= 2 or (expected is not None and depth == len(expected))) and is_plain(values)


def is_plain(values: list[Any]) -> bool:
    """True for lists of plain values, and lists of such lists."""
    return all(
        isinstance(v, (str, bytes, int, float)) or (isinstance(v, list) and is_plain(v)) for v in values
    )


def _is_value(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor, RemoteTensor, int, float, str, bytes)) or hasattr(
        value, "__array__"
    )


def _prepare_value(slot: InputSlot, value: Any, share: bool, key: Any) -> Step:
    """Check one value and bring it to the slot's dtype where assignment alone would not."""
    if isinstance(value, (Tensor, RemoteTensor)):
        value = as_port(value, slot.info)
        slot.check_tensor(value)
        return slot, value, False
    if isinstance(value, list):
        return _prepare_list(slot, value)
    if not _is_value(value):
        raise TypeError(f"Incompatible inputs of type: {type(value)} under {key} key!")
    array = value if type(value) is np.ndarray else np.asarray(value)
    if slot.way == STRING:
        array = _strings(slot, array)
    elif array.dtype.kind in "USO" and slot.way == SAME:
        array = array.astype(slot.dtype)
    if array.ndim == 0:
        array = _fit_scalar(slot, array, isinstance(value, (int, float, str, bytes, np.number)))
    if slot.way in (BITS, PACKED) and array.dtype != slot.dtype:
        array = _bits(slot, array)
    slot.check_shape(array.shape)
    if slot.way == STRING:
        return slot, array, True
    if array.dtype == slot.dtype and array.dtype.isnative:
        if share and not array.flags.carray and slot.target is not None and slot.own_shape is None:
            return slot, array.copy(), True  # the tensor that the user set is not to be written
        return slot, array, share and array.flags.carray
    if share or array.dtype.kind not in "biuf":
        return slot, array.astype(slot.dtype, order="C"), share
    return slot, array, False


def _bits(slot: InputSlot, array: Array) -> Array:
    """An array that holds the bits of elements that NumPy does not know, as such elements."""
    if slot.way == PACKED:
        raise InferenceError(
            f"{slot.describe()} expects {slot.info}: pass packed bytes as Tensor(packed, shape, "
            f"Type.{slot.info.dtype}), not an array of {array.dtype}"
        )
    if array.dtype.itemsize != slot.dtype.itemsize or array.dtype.kind not in "fiu":
        raise InferenceError(
            f"{slot.describe()} expects {slot.info}, an array holds the bits of such values as "
            f"{slot.dtype.itemsize}-byte elements; {array.dtype} is given: pass x.astype(ml_dtypes."
            f"{slot.dtype.name})"
        )
    return array.view(slot.dtype)


def _fit_scalar(slot: InputSlot, array: Array, plain: bool) -> Array:
    """A scalar for a port of one element takes the port's shape; nothing else is broadcast. An array without
    dimensions is reshaped to the port's, which ValueError is about; a `plain` number or text is not."""
    expected = slot.info.shape
    assert expected is not None
    if shapes.is_static(expected):
        if all(d == 1 for d in expected):
            return array.reshape(expected)
        if not plain and 0 not in expected:
            lengths = ",".join(map(str, expected))
            raise ValueError(f"cannot reshape array of size 1 into shape ({lengths}) of {slot.describe()}")
    elif len(expected) == 1:
        return array.reshape(1)
    return array


def _strings(slot: InputSlot, array: Array) -> Array:
    if array.dtype.kind == "O":
        try:
            return encode_texts(array)
        except TypeError:
            pass  # not all are str
        if all(isinstance(text, (str, bytes)) for text in array.flat):  # of no texts, too
            return encode_strings(array)
        array = np.asarray(array.tolist())
    if array.dtype.kind not in "US":
        raise InferenceError(f"{slot.describe()} expects {slot.info}, an array of {array.dtype} is given")
    return encode_strings(array)


def _prepare_list(slot: InputSlot, value: list[Any]) -> Step:
    """A nested list: NumPy's reading of it, i64, f64, boolean or strings, must be the port's type."""
    tensor = Tensor(value)
    name = tensor._type._name
    if name != slot.info.dtype:
        raise InferenceError(
            f"ParameterMismatch: Failed to set tensor for input with precision: {name}, since the model "
            f"input tensor precision is: {slot.info.dtype}. {slot.describe()} expects {slot.info}, "
            f"a list gives {name}: "
            f"pass np.array(..., {slot.dtype.name!r})"
        )
    slot.check_shape(tensor._shape)
    return slot, native_of(tensor), True


def native_of(tensor: Tensor) -> Array:
    """A tensor's elements as a job sees them."""
    name = tensor._type._name
    if relation(name) == PACKED:
        return unpack(np.ascontiguousarray(tensor._array), name, tensor._shape)
    return tensor._array.view(native_dtype(name)) if relation(name) == BITS else tensor._array
