"""OrtValue, OrtDevice and what describes memory: tensors of the CPU's memory, by NumPy and DLPack."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import arguments_error
from ovjit.onnxruntime.choices import OrtAllocatorType, OrtDeviceMemoryType, OrtMemType
from ovjit.onnxruntime.dlpack import BFLOAT16, export_capsule, import_capsule, view_memory
from ovjit.onnxruntime.element_types import STRING, TYPES, number_of, tensor_text
from ovjit.onnxruntime.failures import STATE, refuse_pickle
from ovjit.onnxruntime.sparse import SparseData, SparseTensor

_NO_STRINGS = "Creation of OrtValues is currently only supported from non-string numpy arrays"
_NO_DEVICE = (
    "Can't allocate memory on the device using this package of OnnxRuntime. Please use the appropriate "
    "package of OnnxRuntime for your hardware to use this feature."
)


class OrtDeviceVendorId(enum.IntEnum):
    """PCI vendors of devices."""

    NONE = 0x0000
    AMD = 0x1002
    NVIDIA = 0x10DE
    ARM = 0x13B5
    MICROSOFT = 0x1414
    HUAWEI = 0x19E5
    QUALCOMM = 0x5143
    INTEL = 0x8086


#: Device's name -> (ONNX Runtime's number of its type, its vendor).
_DEVICES = {
    "cpu": (0, OrtDeviceVendorId.NONE),
    "cuda": (1, OrtDeviceVendorId.NVIDIA),
    "gpu": (1, OrtDeviceVendorId.NONE),
    "webgpu": (1, OrtDeviceVendorId.NONE),
    "npu": (3, OrtDeviceVendorId.NONE),
    "cann": (3, OrtDeviceVendorId.HUAWEI),
    "dml": (1, OrtDeviceVendorId.MICROSOFT),
}
#: What native devices answer for a name's type.
_NATIVE = {"cpu": 0, "cuda": 1, "cann": 3, "fpga": 2, "gpu": 1, "npu": 3, "dml": 4, "webgpu": 1}


class NativeDevice:
    """The record of a device: type, kind of memory, vendor and index."""

    def __init__(self, device_type: int, memory: int, *vendor_and_index: int) -> None:
        self._type, self._memory = device_type, memory
        self._vendor, self._index = vendor_and_index if len(vendor_and_index) == 2 else (0, *vendor_and_index)

    def device_type(self) -> int:
        return self._type

    def device_id(self) -> int:
        return self._index

    def mem_type(self) -> int:
        return self._memory

    def vendor_id(self) -> int:
        return self._vendor

    @staticmethod
    def default_memory() -> int:
        return 0


for _name, _number in _NATIVE.items():
    setattr(NativeDevice, _name, staticmethod(lambda number=_number: number))
NativeDevice.__name__ = NativeDevice.__qualname__ = "OrtDevice"


class OrtDevice:
    """A device, by name and index."""

    def __init__(self, c_ort_device: Any) -> None:
        if not isinstance(c_ort_device, NativeDevice):
            raise ValueError(f"`Provided object` needs to be of type `{STATE}.OrtDevice`")
        self._ort_device = c_ort_device

    def _get_c_device(self) -> NativeDevice:
        return self._ort_device

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> OrtDevice:
        """The device of a name: cpu, cuda, gpu, npu, dml, cann, webgpu. Exception for another name."""
        if ort_device_name not in _DEVICES:
            raise Exception(f"Unsupported device type: {ort_device_name}")
        number, vendor = _DEVICES[ort_device_name]
        return OrtDevice(NativeDevice(number, 0, int(vendor if vendor_id < 0 else vendor_id), device_id))

    def device_id(self) -> int:
        return self._ort_device.device_id()

    def device_type(self) -> int:
        return self._ort_device.device_type()

    def device_vendor_id(self) -> int:
        return self._ort_device.vendor_id()

    def device_mem_type(self) -> int:
        return self._ort_device.mem_type()


class OrtMemoryInfo:
    """The description of an allocator's memory."""

    def __init__(self, name: str, allocator_type: Any, device_id: int, mem_type: Any) -> None:
        self.name, self.device_id = name, device_id
        self.allocator_type, self.mem_type = allocator_type, mem_type
        self.device_mem_type, self.device_vendor_id = OrtDeviceMemoryType.DEFAULT, 0


def cpu_memory_info() -> OrtMemoryInfo:
    """The memory of all inputs and outputs."""
    return OrtMemoryInfo("Cpu", OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, OrtMemType.DEFAULT)


class OrtArenaCfg:
    """Sizes of an arena. They are kept, and change nothing."""

    max_mem = 0
    arena_extend_strategy = initial_chunk_size_bytes = max_dead_bytes_per_chunk = -1
    initial_growth_chunk_size_bytes = max_power_of_two_extend_bytes = -1

    def __init__(self, *values: Any) -> None:
        names = ("max_mem", "arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk")
        is_named = len(values) == 1 and isinstance(values[0], Mapping)
        options = values[0] if is_named else dict(zip(names, values, strict=False))
        for name in (*names, "initial_growth_chunk_size_bytes", "max_power_of_two_extend_bytes"):
            if name in options:
                setattr(self, name, int(options[name]))


def _refuse_other_devices(device_type: str, device_id: int, vendor_id: int) -> None:
    if OrtDevice.make(device_type, device_id, vendor_id).device_type():
        raise RuntimeError(_NO_DEVICE)


def storage_dtype(element_type: int) -> np.dtype[Any]:
    """The NumPy type of the memory of an element type's tensors. RuntimeError if there is none."""
    row = TYPES.get(element_type)
    if row is None:
        raise RuntimeError(f"tensor type {element_type} is not supported")
    if element_type == STRING:
        raise RuntimeError(_NO_STRINGS)
    return np.dtype(np.uint8 if row.storage == "packed" else row.storage)


def element_number(element_type: Any) -> int:
    """The element type of a NumPy type or of ONNX's number."""
    if isinstance(element_type, int):
        return element_type
    return number_of(np.dtype(element_type))


class OrtValue:
    """A tensor in the CPU's memory, a sparse one, or a sequence of results. `ortvalue_from_numpy` and
    `from_dlpack` share the memory of what they are given."""

    _array: Any
    _type: int
    _shape: list[int]
    _owner: Any

    def __init__(self, ortvalue: Any, numpy_obj: Any = None, session: Any = None) -> None:
        if not isinstance(ortvalue, OrtValue):
            raise ValueError(f"`Provided ortvalue` needs to be of type `{STATE}.OrtValue`")
        self._array, self._type, self._shape = ortvalue._array, ortvalue._type, ortvalue._shape
        self._owner = numpy_obj if numpy_obj is not None else ortvalue._owner

    @classmethod
    def _of(cls, array: Any, number: int, shape: Sequence[int] | None = None, owner: Any = None) -> OrtValue:
        """The value of an array (or list, for a sequence) whose elements are of the type `number`."""
        self = object.__new__(cls)
        self._array, self._type, self._owner = array, number, owner
        self._shape = list(getattr(array, "shape", ()) if shape is None else shape)
        return self

    @property
    def _ortvalue(self) -> OrtValue:
        return self

    def _get_c_value(self) -> OrtValue:
        return self

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: np.ndarray, /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """A value that shares a C-contiguous array's memory. RuntimeError for text and other devices."""
        if not isinstance(numpy_obj, np.ndarray) or number_of(numpy_obj.dtype) == STRING:
            raise RuntimeError(_NO_STRINGS)
        _refuse_other_devices(device_type, device_id, vendor_id)
        native = numpy_obj.astype(numpy_obj.dtype.newbyteorder("="), "C", copy=False)
        return cls._of(np.asarray(native), number_of(native.dtype))

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: np.ndarray, /, onnx_element_type: int) -> OrtValue:
        """A value whose elements, of another type of equal width, lie in an array."""
        dtype = storage_dtype(onnx_element_type)
        if dtype.itemsize != data.dtype.itemsize:
            raise RuntimeError(
                f"Items size in the incoming array: {data.dtype.itemsize} specified by onnxtype: "
                f"{dtype.itemsize}"
            )
        return cls._of(np.ascontiguousarray(data).view(dtype).reshape(data.shape), onnx_element_type)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0,
        vendor_id: int = -1, memory_info: OrtMemoryInfo | None = None,
    ) -> OrtValue:  # fmt: skip
        """A value of zeros; `element_type` is NumPy's or ONNX's number of a type."""
        if memory_info is not None and (device_type, device_id, vendor_id) != ("cpu", 0, -1):
            warnings.warn(
                "device_type, device_id, and vendor_id are ignored when memory_info is provided.",
                stacklevel=2,
            )
        elif memory_info is None:
            _refuse_other_devices(device_type, device_id, vendor_id)
        if not isinstance(shape, Sequence) or not all(hasattr(n, "__index__") for n in shape):
            parameters = [
                "arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]", "arg1: object",
                f"arg2: {STATE}.OrtDevice",
            ]  # fmt: skip
            name, why = "ortvalue_from_shape_and_type", "a shape is a sequence of ints"
            raise arguments_error(name, "function", parameters, [shape, element_type], {}, why)
        number = element_number(element_type)
        dtype = storage_dtype(number)
        if any(n < 0 for n in shape):
            raise RuntimeError("Tensor shape.Size() must be >= 0")
        if TYPES[number].storage == "packed":
            elements = int(np.prod(shape, dtype=np.int64))
            return cls._of(np.zeros((elements + 1) // 2, dtype), number, shape)
        return cls._of(np.zeros(tuple(shape), dtype), number)

    @classmethod
    def ort_value_from_sparse_tensor(cls, sparse_tensor: Any) -> OrtValue:
        """A value that shares a SparseTensor's memory. Sessions do not take it."""
        data = sparse_tensor._get_c_tensor()
        return cls._of(data, data.number)

    def as_sparse_tensor(self) -> SparseTensor:
        """The sparse tensor of this value. RuntimeError for another one."""
        if not self.is_sparse_tensor():
            raise RuntimeError("This OrtValue does not contain SparseTensor. Check data_type() value.")
        return SparseTensor(self._array)

    def data_ptr(self) -> int:
        """The address of the first element."""
        return int(self._tensor().ctypes.data)

    def _tensor(self) -> np.ndarray:
        if not isinstance(self._array, np.ndarray):
            raise RuntimeError("Only OrtValues that are Tensors are currently supported")
        return self._array

    def device_name(self) -> str:
        return "cpu"

    def shape(self) -> list[int]:
        return [int(n) for n in self._shape]

    def data_type(self) -> str:
        """The type as NodeArg shows it."""
        text = tensor_text(self._type)
        if self.is_sparse_tensor():
            return f"sparse_{text}"
        return text if self.is_tensor() else f"seq({text})"

    def element_type(self) -> int:
        """The type as ONNX's number."""
        return self._type

    def tensor_size_in_bytes(self) -> int:
        return int(self._tensor().nbytes)

    def has_value(self) -> bool:
        return True

    def is_tensor(self) -> bool:
        return isinstance(self._array, np.ndarray)

    def is_sparse_tensor(self) -> bool:
        return isinstance(self._array, SparseData)

    def is_tensor_sequence(self) -> bool:
        return not self.is_tensor() and not self.is_sparse_tensor()

    def numpy(self) -> np.ndarray:
        """The tensor as an array, which shares its memory. RuntimeError for types that NumPy lacks."""
        if not self.is_tensor():
            raise RuntimeError("Only OrtValues that are Tensors are convertible to Numpy objects")
        if TYPES[self._type].dtype is None:
            raise RuntimeError(f"No corresponding Numpy type for Tensor Type. {TYPES[self._type].word}")
        return self._tensor()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if copy is None:
            return array if dtype is None else np.asarray(array, dtype)
        return np.array(array, dtype, copy=copy)

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        """A capsule that shares the tensor's memory."""
        return export_capsule(self._tensor(), self._type == BFLOAT16)

    to_dlpack = __dlpack__

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """A value that shares the memory of a tensor with `__dlpack__`, or of a capsule."""
        array, is_bfloat16 = import_capsule(data)
        number = BFLOAT16 if is_bfloat16 else number_of(array.dtype)
        shared = view_memory(array.ctypes.data, array.dtype, array.shape)  # arrays of NumPy's are read-only
        return cls._of(shared, number, owner=array)

    def update_inplace(self, data: Any) -> None:
        """Copy the bytes of an array or another value into this one's memory."""
        if isinstance(data, OrtValue):
            data = data._tensor()
        if not isinstance(data, np.ndarray):
            raise TypeError("data must be a numpy.ndarray or an OrtValue.")
        target = self._tensor()
        if data.size != target.size:
            raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
        if data.dtype.itemsize != target.dtype.itemsize:
            raise RuntimeError(
                f"the array has elements of {data.dtype.itemsize} bytes, the OrtValue of "
                f"{target.dtype.itemsize}: convert the array to the OrtValue's type"
            )
        target.reshape(-1)[...] = np.ascontiguousarray(data).reshape(-1).view(target.dtype)

    def __getstate__(self) -> Any:
        refuse_pickle(self)


class OrtValueVector:
    """A list of values."""

    def __init__(self, values: Sequence[OrtValue] = ()) -> None:
        self._values = list(values)

    def push_back(self, value: OrtValue) -> None:
        self._values.append(value)

    def reserve(self, count: int) -> None:
        """Accept the number of values to come."""

    def shrink_to_fit(self) -> None:
        """Accept that no more values come."""

    def element_type_at(self, index: int) -> int:
        return self._values[index].element_type()

    def dlpack_at(self, index: int) -> Any:
        return self._values[index].__dlpack__()

    def to_dlpacks(self, convert: Any) -> list[Any]:
        """The capsules of all values, or what `convert` makes of them."""
        return [convert(v.__dlpack__()) if convert else v.__dlpack__() for v in self._values]

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> OrtValue:
        return self._values[index]

    def __iter__(self) -> Iterator[OrtValue]:
        return iter(self._values)


def copy_tensors(src: Sequence[OrtValue], dst: Sequence[OrtValue], stream: Any = None) -> None:
    """Copy each value's elements into another one."""
    if len(src) != len(dst):
        raise RuntimeError("Source and destination must have the same number of OrtValues")
    for source, target in zip(src, dst, strict=True):
        target.update_inplace(source)


for _class in (NativeDevice, OrtMemoryInfo, OrtArenaCfg, OrtValue, OrtValueVector):
    _class.__module__ = STATE
OrtDevice.__module__ = "onnxruntime.capi.onnxruntime_inference_collection"
