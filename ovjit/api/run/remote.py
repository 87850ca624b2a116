"""Tensors in a card's memory, and contexts that create them. VA-API's are classes that refuse, for programs
that name them.

A RemoteTensor can be an input or output of a request without a copy. Memory of other packages (PyTorch, CuPy)
comes by `RemoteContext.import_tensor`, and goes by `__dlpack__` and `__cuda_array_interface__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, explain_calls
from ovjit.api.tensors.memory import STRING
from ovjit.api.tensors.tensor import Tensor, lend_array
from ovjit.api.tensors.types import TYPES, Type
from ovjit.api.tensors.vectors import Shape, shape_of, static_dims
from ovjit.errors import OvjitError, UnsupportedError, no_such_constructor

#: Kinds of memory for a tensor, as SHARED_MEM_TYPE.
DEVICE_BUFFER, USER_BUFFER, HOST_BUFFER = "USM_DEVICE_BUFFER", "USM_USER_BUFFER", "USM_HOST_BUFFER"


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(
        f"{what} is not supported: it needs a device with its own memory, such as a GPU; "
        "available devices are CPU"
    )


@explain_calls
class RemoteContext:
    """The memory of a card, made by `Core.create_context` or `Core.get_default_context`."""

    _card: Any
    _name: str
    _stream: Any

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__}: No constructor defined! See Core.create_context")

    @classmethod
    def _make(cls, name: str, card: Any) -> RemoteContext:
        from ovjit.gpu.memory import Stream

        self = object.__new__(cls)
        self._name, self._card, self._stream = name, card, Stream(card)
        return self

    def get_device_name(self) -> str:
        """The name of the device, such as "GPU.0"."""
        return self._name

    def get_params(self) -> dict[str, Any]:
        """The kind of the context, and the driver's handles of it and of the stream for copies."""
        return {
            "CONTEXT_TYPE": "CUDA",
            "CUDA_CONTEXT": self._card.context,
            "CUDA_STREAM": self._stream.handle.value,
        }

    def create_tensor(self, type: Any, shape: Any, properties: Mapping[str, Any]) -> Any:
        """A tensor in the card's memory. `properties`: {} for new memory; {"SHARED_MEM_TYPE":
        "USM_USER_BUFFER", "MEM_HANDLE": address} for memory of the caller, who keeps it."""
        from ovjit.gpu.exchange import CUDA, check_card
        from ovjit.gpu.memory import DeviceMemory, DeviceTensor, row_strides

        type_, dims = type if isinstance(type, Type) else Type(type), static_dims(shape)
        if type_ is STRING or type_._dtype is None:
            raise UnsupportedError(f"[GPU] a remote tensor has no elements of type {type_._name}")
        expect(properties, Mapping, "properties of a tensor are a dict")
        unknown = set(properties) - {"SHARED_MEM_TYPE", "MEM_HANDLE"}
        kind, address = properties.get("SHARED_MEM_TYPE", DEVICE_BUFFER), properties.get("MEM_HANDLE")
        if (
            unknown
            or kind not in (DEVICE_BUFFER, USER_BUFFER)
            or (kind == USER_BUFFER) != (address is not None)
        ):
            raise UnsupportedError(
                f"[GPU] Unsupported properties of a remote tensor: {dict(properties)}; give none, "
                f'{{"SHARED_MEM_TYPE": "{DEVICE_BUFFER}"}}, or "{USER_BUFFER}" with a MEM_HANDLE'
            )
        size = type_._bytes(int(np.prod(dims, dtype=object)))
        extent, step = (dims, type_._itemsize) if type_._itemsize else ((size,), 1)
        owner = DeviceMemory(self._card, size) if address is None else None
        base = int(address) if owner is None else owner.address  # type: ignore[arg-type]
        if base % step:
            raise OvjitError(f"[GPU] MEM_HANDLE is not a multiple of the {step} bytes of an element")
        if owner is None and size:
            check_card(self._card, CUDA, self._card.device_of(base))
        memory = DeviceTensor(self._card, base, extent, row_strides(extent, step), step, owner)
        return RemoteTensor._make(self, type_, dims, memory)

    def create_host_tensor(self, type: Any, shape: Any) -> Tensor:
        """A Tensor in pinned host memory, which the card copies from and to directly."""
        from ovjit.gpu.memory import PinnedMemory

        type_, dims = type if isinstance(type, Type) else Type(type), static_dims(shape)
        if type_ is STRING or type_._dtype is None:
            raise UnsupportedError(f"[GPU] pinned memory has no elements of type {type_._name}")
        size = type_._bytes(int(np.prod(dims, dtype=object)))
        extent = dims if type_._itemsize else (size,)
        array = PinnedMemory(self._card, size).lend(size)
        return lend_array(array.view(type_._dtype).reshape(extent), type_, dims)

    def import_tensor(self, tensor: Any) -> RemoteTensor:
        """A RemoteTensor that shares the memory of a tensor of another package on this card: an object with
        `__dlpack__` or `__cuda_array_interface__`. The work that fills it is complete then."""
        from ovjit.gpu.exchange import import_tensor

        dtype, memory = import_tensor(self._card, tensor, self._stream.handle)
        return RemoteTensor._make(self, TYPES[dtype], memory.shape, memory)

    def __repr__(self) -> str:
        return f"<RemoteContext: {self._name}>"


@explain_calls
class RemoteTensor:
    """A tensor in a card's memory. `RemoteTensor(tensor, begin, end)` is a region of another one."""

    _context: RemoteContext
    _type: Type
    _shape: tuple[int, ...]
    _memory: Any

    def __init__(self, remote_tensor: RemoteTensor, begin: Any, end: Any) -> None:
        other = expect(remote_tensor, RemoteTensor, "a region of a RemoteTensor is one", no_such_constructor)
        first, last, shape = static_dims(begin), static_dims(end), other._shape
        if not len(first) == len(last) == len(shape):
            raise OvjitError(f"a region of {other!r} needs {len(shape)} coordinates, not {first} to {last}")
        if not all(low <= high <= dim for low, high, dim in zip(first, last, shape, strict=True)):
            raise OvjitError(f"the region from {first} to {last} is outside of {other!r}")
        if not other._type._itemsize:
            raise UnsupportedError(f"a region of {other!r} has elements below 8 bits")
        memory = other._memory
        offset = sum(i * stride for i, stride in zip(first, memory.strides, strict=True))
        dims = tuple(high - low for low, high in zip(first, last, strict=True))
        self._context, self._type, self._shape = other._context, other._type, dims
        self._memory = memory._replace(address=memory.address + offset, shape=dims, owner=memory)

    @classmethod
    def _make(cls, context: RemoteContext, type_: Type, shape: tuple[int, ...], memory: Any) -> RemoteTensor:
        self = object.__new__(cls)
        self._context, self._type, self._shape, self._memory = context, type_, shape, memory
        return self

    def get_device_name(self) -> str:
        """The name of the device, such as "GPU.0"."""
        return self._context._name

    def get_params(self) -> dict[str, Any]:
        """The kind of the memory and its address on the card, with those of the context."""
        kind = DEVICE_BUFFER if self._memory.owner is not None else USER_BUFFER
        return {**self._context.get_params(), "SHARED_MEM_TYPE": kind, "MEM_HANDLE": self._memory.address}

    def get_shape(self) -> Shape:
        """The shape, in elements."""
        return shape_of(self._shape)

    def get_byte_size(self) -> int:
        """The number of bytes of all elements."""
        return self._type._bytes(int(np.prod(self._shape, dtype=object)))

    def copy_to(self, target_tensor: Any) -> None:
        """Copy to a Tensor, which takes this one's shape, or to a RemoteTensor of the same shape.
        RuntimeError for other element types."""
        from ovjit.gpu.memory import copy, download

        expect(target_tensor, (Tensor, RemoteTensor), "copy_to takes a Tensor or a RemoteTensor")
        self._check_type(self, target_tensor)
        stream = self._context._stream.handle
        if isinstance(target_tensor, RemoteTensor):
            _check_same(self, target_tensor)
            copy(self._memory, target_tensor._memory, stream)
            return
        if target_tensor._shape != self._shape:
            target_tensor.set_shape(self._shape)
        array = target_tensor._array
        contiguous = array if array.flags.carray else np.empty(array.shape, array.dtype)
        download(self._memory, contiguous, stream)
        if contiguous is not array:
            array[...] = contiguous

    def copy_from(self, source_tensor: Any) -> None:
        """Copy from a Tensor or RemoteTensor of the same shape and element type (else RuntimeError)."""
        from ovjit.gpu.memory import upload

        expect(source_tensor, (Tensor, RemoteTensor), "copy_from takes a Tensor or a RemoteTensor")
        if isinstance(source_tensor, RemoteTensor):
            source_tensor.copy_to(self)
            return
        self._check_type(source_tensor, self)
        _check_same(source_tensor, self)
        upload(self._memory, np.ascontiguousarray(source_tensor._array), self._context._stream.handle)

    @staticmethod
    def _check_type(source: Any, to: Any) -> None:
        if source._type is not to._type:
            src, dst = source._type._name, to._type._name
            raise OvjitError(f"Tensor element types are not equal. (src: {src} != dst: {dst})")

    # -- other packages

    def __dlpack_device__(self) -> tuple[int, int]:
        from ovjit.gpu.exchange import CUDA

        return CUDA, self._memory.card.facts.number

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        """A capsule that shares the memory. `options` of later versions of the protocol have no effect, but
        that a copy or another device is refused with BufferError."""
        from ovjit.gpu.exchange import export_capsule

        device = self.__dlpack_device__()
        if options.get("copy") or options.get("dl_device") not in (None, device):
            raise BufferError("a RemoteTensor is exported without a copy, on its own device")
        return export_capsule(self._memory, self._type._name, device)  # no work is pending: calls wait for it

    @property
    def __cuda_array_interface__(self) -> Any:
        from ovjit.gpu.exchange import array_interface

        typestr = np.dtype(self._type._dtype).str
        return array_interface(self._memory, self._type._name, typestr)

    def _no_data(self) -> NoReturn:
        raise UnsupportedError(
            "the data of a RemoteTensor cannot be accessed directly: copy it to a Tensor with copy_to"
        )

    data = accessor(_no_data)
    bytes_data = accessor(_no_data)
    str_data = accessor(_no_data)

    def __repr__(self) -> str:
        return f"<RemoteTensor: shape[{','.join(map(str, self._shape))}] type: {self._type._name}>"


def _check_same(source: Any, to: RemoteTensor) -> None:
    if source._shape != to._shape:
        raise OvjitError(
            f"Tensor shapes are not equal. (src: {list(source._shape)} != dst: {list(to._shape)})"
        )


@explain_calls
class VAContext(RemoteContext):
    """Memory shared with VA-API on a GPU."""

    def __init__(self, core: Any, display: Any, target_tile_id: int = -1) -> None:
        _refuse("VAContext")

    def create_tensor(self, type: Any, shape: Any, surface: Any, plane: int = 0) -> Any:
        """A tensor over a surface."""
        _refuse("create_tensor")

    def create_tensor_nv12(self, height: int, width: int, nv12_surface: int) -> Any:
        """The two tensors of an NV12 surface."""
        _refuse("create_tensor_nv12")


@explain_calls
class VASurfaceTensor(RemoteTensor):
    """A tensor over a VA-API surface."""

    def __init__(self) -> None:
        raise TypeError("VASurfaceTensor: No constructor defined! See VAContext.create_tensor")

    def _refuse_id(self) -> int:
        _refuse("VASurfaceTensor")

    surface_id = accessor(_refuse_id)
    plane_id = accessor(_refuse_id)
