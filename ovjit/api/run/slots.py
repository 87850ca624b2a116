"""The places of a request where arrays enter and leave: the array that a job reads or writes, and its owner.

A job works on arrays of the element types' own dtypes (`numpy_dtype`), here called native. A Tensor shows
some types in another way (`Type.to_dtype`). bf16 and 8-bit floats are bits in another dtype, in the same
memory. Types below 8 bits are packed bytes, which must be converted at every inference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.api.tensors.memory import NOWHERE
from ovjit.api.tensors.packing import pack_low_first
from ovjit.api.tensors.tensor import Tensor, lend_array, new_tensor
from ovjit.api.tensors.types import TYPES
from ovjit.errors import InferenceError
from ovjit.graph import dtypes, shapes
from ovjit.graph.ports import PortInfo

Array = np.ndarray

#: How native and container arrays of an element type relate. RAW: the packed bytes are what is
#: read and written.
SAME, BITS, PACKED, STRING, RAW = range(5)


def relation(dtype: str) -> int:
    """SAME memory and dtype, the same BITS under another dtype, PACKED bytes, or STRING objects."""
    row = dtypes.ELEMENT_TYPES[dtype]
    if row.kind == "s":
        return STRING
    if row.is_packed:
        return PACKED
    return SAME if TYPES[dtype].to_dtype() == row.numpy else BITS


def native_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype of a job's arrays; uint8 (packed bytes) for types that NumPy has nothing for."""
    return dtypes.ELEMENT_TYPES[dtype].numpy or np.dtype(np.uint8)


def unpack(packed: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Packed bytes, first element in the lowest bits as models read them, to one native element a byte."""
    row, data = dtypes.ELEMENT_TYPES[dtype], packed.view(np.uint8)
    return data if row.numpy is None else dtypes.unpack_low_first(data, row.bits, shape, row.numpy)


def pack(array: Array, dtype: str) -> Array:
    """The inverse of `unpack`: native elements to flat packed bytes."""
    row = dtypes.ELEMENT_TYPES[dtype]
    if row.numpy is None:
        return array.reshape(-1).view(np.uint8)
    return pack_low_first(array, row.bits).view(TYPES[dtype].to_dtype())


def lowest_shape(shape: tuple[shapes.Dim, ...]) -> tuple[int, ...]:
    """Initial shape of a tensor: dynamic dimensions are 0."""
    return tuple(d if isinstance(d, int) else 0 for d in shape)


def shape_hint(actual: tuple[int, ...], expected: tuple[shapes.Dim, ...]) -> str:
    """Suggests a fix for a wrong shape, as the end of an error message; empty without a suggestion."""
    if len(actual) == 4 and len(expected) == 4:
        for order, name in (((0, 3, 1, 2), "NHWC"), ((0, 2, 3, 1), "NCHW")):
            if shapes.fits(tuple(actual[i] for i in order), expected):
                return f"; the array looks like {name}: pass x.transpose{order}"
    if shapes.fits((1, *actual), expected):
        return "; add the batch axis: pass x[None]"
    if actual and actual[0] == 1 and shapes.fits(actual[1:], expected):
        return "; drop the first axis: pass x[0]"
    if shapes.is_static(expected) and math.prod(actual) == math.prod(expected):
        return f"; the number of elements matches: pass x.reshape({list(expected)})"
    if len(actual) == len(expected):
        return "; for other sizes call model.reshape(...) before compiling"
    return ""


def as_port(tensor: Any, info: PortInfo) -> Any:
    """A Tensor to bind: for a tensor without dimensions at a port of one element, one of the port's shape on
    the same memory; any other as it is."""
    shape = info.shape
    if (
        not isinstance(tensor, Tensor)
        or tensor._shape
        or not shape
        or not shapes.is_static(shape)
        or math.prod(shape) != 1
    ):
        return tensor
    packed = relation(info.dtype) == PACKED
    return lend_array(tensor._array if packed else tensor._array.reshape(shape), tensor._type, shape)


def _describe_resize(kind: str, tensor: Tensor, info: PortInfo, where: str) -> str:
    """Error message for a tensor that was reshaped after it was set, in OpenVINO's words."""
    assert info.shape is not None
    return (
        f"The {kind} tensor size is not equal to the model {kind} type: got "
        f"{shapes.text(tensor._shape)} expecting {shapes.text(info.shape)}. The tensor of {where} was "
        "reshaped after it was set"
    )


def _check_remote(job: Any, slot: Any, remote: Any) -> None:
    """Raises InferenceError unless the job can use memory of this tensor's device for the slot."""
    if getattr(job, "remote", None) is None:
        raise InferenceError(
            f"{slot.describe()} is given a tensor of {remote.get_device_name()}, but the model is "
            "compiled for the CPU: copy the tensor with copy_to, or compile the model for its device"
        )
    if slot.way not in (SAME, BITS):
        raise InferenceError(
            f"{slot.describe()} is of type {slot.info.dtype}, which remote tensors do not have: copy the "
            "tensor with copy_to"
        )


class InputSlot:
    """One input of a request.

    `shape` is what a shared array must have to be taken without more ado, `own_shape` what a copied one
    must have; with None every array takes the general path (`inputs.py`).
    """

    __slots__ = (
        "address", "batch", "current", "dtype", "index", "info", "native", "own_shape", "holder", "shape",
        "fitting", "target", "view", "way",
    )  # fmt: skip

    def __init__(self, index: int, info: PortInfo):
        self.index = index
        self.info = info
        self.way = relation(info.dtype)
        self.dtype = native_dtype(info.dtype)
        if info.written and self.way == PACKED:
            self.way, self.dtype = RAW, np.dtype(np.uint8)
        self.current: Array | None = None  # what the job reads, kept alive here
        #: `place_of(current)` when that was taken by the short way, and where it lay then
        self.holder: Any = NOWHERE
        self.address = 0
        self.native: Array | None = None  # native view of `target`, where copies go
        self.own_shape: tuple[int, ...] | None = None
        self.shape: tuple[int, ...] | None = None
        self.fitting: tuple[int, ...] | None = None  # the last one that fitted
        self.target: Tensor | None = None  # the tensor that is set, when it is not a lent array
        self.view: Array | None = None  # target._array when `native` was taken from it
        self.batch: list[Tensor] = []  # the user's tensors, whose elements `target` takes before every run
        if self.way in (SAME, BITS) and shapes.is_static(info.shape):
            self.shape = info.shape

    def describe(self) -> str:
        return f"input {self.info.label!r} (index {self.index})"

    def takes_shape(self, shape: tuple[int, ...]) -> bool:
        """True if a shared array of this shape, other than the last one's, is taken without more ado."""
        expected = self.info.shape
        return self.shape is not None and expected is not None and shapes.fits(shape, expected)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises InferenceError, one sentence with a hint, unless the port takes `shape`."""
        expected = self.info.shape
        assert expected is not None
        if shape != self.fitting and not shapes.fits(shape, expected):
            raise InferenceError(
                f"Can't set the input tensor with index: {self.index}, because the model input "
                f"(shape={shapes.text(expected)}) and the tensor "
                f"(shape=({'.'.join(map(str, shape))})) are incompatible. The input tensor size is "
                f"not equal to the model input type: got {shapes.text(shape)} expecting "
                f"{shapes.text(expected)}, {self.describe()} of type: {self.info.dtype}"
                f"{shape_hint(shape, expected)}"
            )
        self.fitting = shape

    def check_tensor(self, tensor: Any) -> None:
        """Raises InferenceError unless the tensor has the port's type and a fitting shape."""
        name = tensor._type._name
        if name != self.info.dtype:
            hint = ""
            if self.way == SAME and tensor._type._itemsize:
                hint = f"; a tensor is never converted: pass array.astype({self.dtype.name!r})"
            raise InferenceError(
                f"ParameterMismatch: Failed to set tensor for input with precision: {name}, since the "
                f"model input tensor precision is: {self.info.dtype}. {self.describe()} expects "
                f"{self.info}{hint}"
            )
        self.check_shape(tensor._shape)

    def lend(self, job: Any, array: Array) -> None:
        """Make the job read the caller's array until another one is set. It must fit."""
        self.target = self.native = self.own_shape = self.view = self.current = None
        self.batch = []
        self.holder = NOWHERE
        if self.way != STRING:
            self.shape = array.shape
        if array.base is not None and self.way != STRING:
            job.leave_results(array.base)
        job.set_input(self.index, array)
        self.current = array

    def bind(self, job: Any, tensor: Tensor, private: bool = False) -> None:
        """Make the job read `tensor`, into which later inputs are copied. `private`: there is no other
        reference to the tensor, so its shape changes only here."""
        self.shape = self.own_shape = None  # first: no array is copied to the previous tensor any more
        self.target = tensor
        self.batch = []
        self.refresh(job)
        if private and self.way == SAME:
            self.own_shape = tensor._shape
            self.shape = tensor._shape

    def bind_remote(self, job: Any, remote: Any) -> None:
        """Make the job read a RemoteTensor. Raises InferenceError unless it fits and is on the job's card."""
        _check_remote(job, self, remote)
        self.check_tensor(remote)
        job.set_remote_input(self.index, remote._memory)
        self.target = self.native = self.own_shape = self.shape = self.view = None
        self.batch = []
        self.holder = NOWHERE
        self.current = job.inputs[self.index]

    def bind_batch(self, job: Any, batch: Tensor, parts: list[Tensor]) -> None:
        """Make the job read `batch`, into which the user's `parts` are copied before every run."""
        self.bind(job, batch)
        self.batch = parts

    def refresh(self, job: Any) -> None:
        """Update to the bound tensor's current memory. Raises InferenceError if its shape no longer fits."""
        tensor = self.target
        assert tensor is not None
        if self.batch:
            self._gather(tensor._array.reshape(-1))
        array = tensor._array
        if array is self.view and self.way != PACKED:
            return
        if shapes.is_static(self.info.shape) and tensor._shape != self.info.shape:
            raise InferenceError(_describe_resize("input", tensor, self.info, self.describe()))
        self.check_shape(tensor._shape)
        if self.way == PACKED:
            array = unpack(np.ascontiguousarray(array), self.info.dtype, tensor._shape)
        elif self.way == RAW:
            array = self._raw(tensor)
        elif self.way == BITS:
            array = array.view(self.dtype)
        if self.info.written and not array.flags.c_contiguous:
            raise InferenceError(
                f"{self.describe()} is written in place: its tensor must be contiguous, and cannot be a "
                "region of another tensor"
            )
        self.native = array
        # A window on another tensor has gaps: the job reads a copy, taken anew at every inference.
        contiguous = array.flags.c_contiguous
        self.view = self.current = None  # until the job has it: Ctrl-C may come in between
        self.holder = NOWHERE
        current = array if contiguous else np.ascontiguousarray(array)
        job.leave(current)
        job.set_input(self.index, current)
        self.current = current
        self.view = tensor._array if contiguous else None

    def _raw(self, tensor: Tensor) -> Array:
        """The packed bytes of a tensor, the last dimension counting bytes."""
        *lead, last = tensor._shape
        return tensor._array.view(np.uint8).reshape(*lead, last * TYPES[self.info.dtype].bitwidth // 8)

    def _gather(self, batch: Array) -> None:
        size = batch.size // len(self.batch)
        for i, part in enumerate(self.batch):
            if part._array.size != size:
                raise InferenceError(
                    f"{self.describe()}: the shape of a tensor in its batch has changed since it was set"
                )
            batch[i * size : (i + 1) * size] = part._array.reshape(-1)

    def copy(self, job: Any, value: Array) -> None:
        """Copy a fitting array, of whatever dtype, to the tensor that is set; make one when there is none."""
        if self.target is None:
            self.bind(job, new_tensor(TYPES[self.info.dtype], value.shape), private=True)
        else:
            private = self.own_shape is not None
            if self.target._shape != value.shape:
                self.target.set_shape(value.shape)
            self.bind(job, self.target, private)
        assert self.native is not None and self.target is not None
        if self.way == PACKED:
            np.copyto(self.target._array, pack(value, self.info.dtype))
        else:
            self.native[...] = value
        if self.way == PACKED or self.view is None:
            self.refresh(job)

    def tensor(self, job: Any) -> Tensor:
        """The tensor that is set, on the memory that the job reads. InferenceError for a batch of them."""
        if self.batch:
            raise InferenceError(
                f"{self.describe()} has a batch of tensors: get_tensor shall not be used together with "
                "batched set_tensors/set_input_tensors"
            )
        if self.target is None:
            if self.current is None:
                self.clear(job)
            else:
                current = (
                    self.current.view(TYPES[self.info.dtype].to_dtype()) if self.way == BITS else self.current
                )
                return lend_array(current, TYPES[self.info.dtype])
        assert self.target is not None
        self.own_shape = self.shape = None  # from now on its shape may change without our knowing
        return self.target

    def clear(self, job: Any) -> None:
        """Set an input that was never set to zeros, with dynamic dimensions of 0."""
        assert self.info.shape is not None
        shape = lowest_shape(self.info.shape)
        tensor = new_tensor(TYPES[self.info.dtype], shape)
        if self.way != STRING:
            tensor._array.fill(0)
        self.view = self.current = self.own_shape = None  # until the job has it
        self.target = tensor
        self.native = tensor._array
        if self.way == BITS:
            self.native = tensor._array.view(self.dtype)
        elif self.way == PACKED:
            self.native = unpack(tensor._array, self.info.dtype, shape)
        elif self.way == RAW:
            self.native = self._raw(tensor)
        self.holder = NOWHERE
        job.set_input(self.index, self.native)
        self.current = self.native
        self.view = tensor._array
        if self.way == SAME:
            self.own_shape = self.shape = shape


class OutputSlot:
    """One output of a request: the tensor that was set for it or handed out, if any."""

    __slots__ = ("address", "aimed", "fixed", "index", "info", "shown", "target", "type", "user_owned", "way")

    def __init__(self, index: int, info: PortInfo):
        self.index = index
        self.info = info
        self.type = TYPES[info.dtype]
        self.way = relation(info.dtype)
        self.fixed = shapes.is_static(info.shape)
        self.target: Tensor | None = None
        self.user_owned = False  # the user's own tensor: results are written to its memory
        self.shown: Array | None = None  # the array that `target` shows, or that the job was told to write
        #: The array that `aim` has looked at, and whether an input lay in it; where its memory begins.
        self.aimed: tuple[Array | None, bool] = (None, False)
        self.address = 0

    def describe(self) -> str:
        return f"output {self.info.label!r} (index {self.index})"

    def as_data(self, array: Array) -> Array:
        """A native array as a Tensor's `data` shows it."""
        if self.way == BITS:
            return array.view(self.type.to_dtype())
        return pack(array, self.info.dtype) if self.way == PACKED else array

    def tensor(self, job: Any) -> Tensor:
        """The tensor of this output; the same one at every call, kept up to date by `finish`."""
        if self.target is None:
            array = job.outputs[self.index]
            self.target = lend_array(self.as_data(array), self.type, array.shape)
            self.shown = array
        return self.target

    def bind(self, job: Any, tensor: Tensor) -> None:
        """Make the job write results to the user's tensor. Raises InferenceError unless type and shape
        fit."""
        self._check_type(tensor)
        tensor = as_port(tensor, self.info)
        self._check_shape(tensor)
        self.target = None  # after an exception below, the output has no tensor
        self.shown, self.aimed = None, (None, False)
        self.user_owned = True
        self.target = tensor
        self.aim(job)

    def _check_type(self, tensor: Any) -> None:
        if tensor._type is not self.type:
            raise InferenceError(
                f"ParameterMismatch: Failed to set tensor for output with precision: {tensor._type._name}, "
                f"if model output tensor precision is: {self.info.dtype}. It is {self.describe()}"
            )

    def bind_remote(self, job: Any, remote: Any) -> None:
        """Make the job write results to a RemoteTensor. Raises InferenceError unless type and shape fit."""
        _check_remote(job, self, remote)
        self._check_type(remote)
        self._check_shape(remote)
        job.set_remote_output(self.index, remote._memory)
        self.target = self.shown = None
        self.aimed = None, False
        self.user_owned = True

    def _check_shape(self, tensor: Any) -> None:
        assert self.info.shape is not None
        if self.fixed and 0 in tensor._shape and tensor._shape != self.info.shape:
            raise InferenceError(
                f"Can't set the output tensor with index: {self.index}, because the model output size = "
                f"{math.prod(self.info.shape)} and the currernt tensor size = 0 are different. "
                f"It is {self.describe()}"
            )
        if not shapes.fits(tensor._shape, self.info.shape) and 0 not in tensor._shape:
            raise InferenceError(
                f"Can't set the output tensor with index: {self.index}, because the model output tensor "
                f"(shape={shapes.text(self.info.shape)}) and the current tensor "
                f"(shape=({'.'.join(map(str, tensor._shape))})) are incompatible. It is {self.describe()}"
            )

    def aim(self, job: Any) -> None:
        """Called before a run: make the job write directly to the user's memory if possible, that is, if no
        input is there. Raises InferenceError if the user's tensor has a shape that the output cannot have."""
        tensor = self.target
        if not self.user_owned or tensor is None:
            return
        array = tensor._array
        before, met = self.aimed
        if before is not array:
            self.address = array.ctypes.data
        meets = job.reads(self.address, array.nbytes)
        if before is array and met == meets:
            return
        if self.fixed and tensor._shape != self.info.shape:
            raise InferenceError(_describe_resize("output", tensor, self.info, self.describe()))
        direct = self.fixed and self.way in (SAME, BITS) and array.flags.carray and not meets
        self.aimed = None, False  # until the job has it: an exception may come in between
        self.shown = None
        job.set_output(self.index, array.view(native_dtype(self.info.dtype)) if direct else None)
        self.shown = array if direct else None
        self.aimed = array, meets

    def finish(self, job: Any) -> None:
        """Called after a run: make the result visible in the tensor."""
        tensor = self.target
        if tensor is None:
            return
        array = job.outputs[self.index]
        if not self.user_owned:
            if array is not self.shown or self.way == PACKED:
                fresh = lend_array(self.as_data(array), self.type, array.shape)
                tensor._set(fresh._array, array.shape, self.type, fresh._kind)
                self.shown = array
        elif self.shown is None:
            if tensor._shape != array.shape:
                tensor.set_shape(array.shape)
            np.copyto(tensor._array, self.as_data(array))
