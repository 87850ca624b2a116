"""`Tensor`: typed memory with a shape, its own or lent by a NumPy array.

Every inference makes and reads tensors, so a Tensor is a few slots around one ndarray:

  _array    the elements: `_shape` in NumPy's terms, or the packed bytes of a type below 8 bits, or, for
            strings, an object array of UTF-8 `bytes`; keeps the memory alive
  _type     the Type (Type.bf16 holds bits in float16, as `Type.to_dtype` says)
  _shape    tuple of ints, in elements
  _address  of the first element, valid as long as the tensor lives and keeps its shape; 0 for strings
  _memory   the array with all of the memory, for later calls of `set_shape`
  _kind     its owner: OWN (can be replaced by more), LENT (an array's), WINDOW (another tensor's)

Own memory starts at a multiple of 64 bytes. Lent memory has any address, and may be read-only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, takes
from ovjit.api.tensors.memory import (
    STRING,
    address_of,
    as_container,
    check_lendable,
    check_native,
    decode_array,
    encode_strings,
    new_array,
    shape_error,
)
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import TYPE_OF_DTYPE, Type, type_of_dtype
from ovjit.api.tensors.vectors import Coordinate, Shape, Strides, shape_of, static_dims
from ovjit.errors import no_such_constructor

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN: Final = 0
LENT: Final = 1
WINDOW: Final = 2

_UNSET: Any = type("_Unset", (), {"__repr__": lambda self: "<unset>"})()
_ndarray = np.ndarray


class Tensor:
    """Typed memory with a shape.

    - `Tensor(array)`: a copy; `Tensor(array, shared_memory=True)`: the array's memory (C order, else
      RuntimeError; writeable, else ValueError).
    - `Tensor(list)`: what NumPy makes of it.
    - `Tensor(array, shape, type)`: the array's memory seen as another type and shape, packed data included.
    - `Tensor(type, shape)`: new memory, its contents undefined (strings: empty).
    - `Tensor(port)`: new memory for a port, of shape [0] if the port is dynamic.
    - `Tensor(port, array)`: the array's memory seen as the port's type and shape.
    - `Tensor(tensor, begin, end)`: a window on another tensor; writes go through.
    - `Tensor(image)`: a copy of a Pillow image.

    TypeError for other arguments; RuntimeError for types that tensors don't have and for missing memory.
    """

    __slots__ = ("__weakref__", "_address", "_array", "_kind", "_memory", "_shape", "_type")

    _array: NDArray[Any]
    _memory: NDArray[Any]
    _type: Type
    _shape: tuple[int, ...]
    _kind: int
    _address: int

    @overload
    def __init__(self, array: NDArray[Any], shared_memory: bool = False) -> None: ...
    @overload
    def __init__(self, array: NDArray[Any], shape: Shape | Sequence[int], type: Type = ...) -> None: ...
    @overload
    def __init__(self, list: list[Any]) -> None: ...
    @overload
    def __init__(self, type: Any, shape: Shape | Sequence[int]) -> None: ...
    @overload
    def __init__(self, port: Any, array: NDArray[Any] = ...) -> None: ...
    @overload
    def __init__(
        self, other: Tensor, begin: Coordinate | Sequence[int], end: Coordinate | Sequence[int]
    ) -> None: ...
    @overload
    def __init__(self, image: Any) -> None: ...

    # positional-only names keep the fast path fast; the overloads' names arrive in `named`
    def __init__(  # type: ignore[misc]
        self,
        first: Any = _UNSET,
        second: Any = _UNSET,
        third: Any = _UNSET,
        /,
        *,
        shared_memory: Any = _UNSET,
        **named: Any,
    ) -> None:
        if first.__class__ is _ndarray and second is _UNSET and not named:
            if shared_memory is True:
                # the path of every shared input: as few calls as can be
                type_ = TYPE_OF_DTYPE.get(first.dtype)
                if type_ is not None and first.flags.carray:
                    # a view, so that a new `shape` of the caller's array doesn't reach the tensor
                    self._array = self._memory = first.view()
                    self._type = type_
                    self._shape = first.shape
                    self._kind = LENT
                    self._address = address_of(first)
                    return
            elif shared_memory is _UNSET or shared_memory is False:
                self._from_array(first, False)
                return
        positional = [value for value in (first, second, third) if value is not _UNSET]
        if shared_memory is not _UNSET:
            named["shared_memory"] = shared_memory
        self._construct(positional, named)

    def _construct(self, positional: list[Any], named: dict[str, Any]) -> None:
        arguments = _named_arguments(positional, named)
        first: Any = next(iter(arguments.values()), None)
        match tuple(arguments):
            case ("array",) | ("array", "shared_memory"):
                self._from_array(np.asarray(first), arguments.get("shared_memory", False))
            case ("array", "shape") | ("array", "shape", "type"):
                type_ = arguments.get("type", Type.dynamic)
                expect(type_, Type, "the element type must be an ovjit.Type")
                self._from_memory(np.asarray(first), static_dims(arguments["shape"]), type_)
            case ("list",):
                self._from_array(np.array(first), False)
            case ("type", "shape"):
                dims = static_dims(arguments["shape"])
                self._allocate(first if isinstance(first, Type) else Type(first), dims)
            case ("port",) | ("port", "array"):
                self._from_port(first, arguments.get("array"))
            case ("other", "begin", "end"):
                self._from_window(first, static_dims(arguments["begin"]), static_dims(arguments["end"]))
            case ("image",):
                self._from_array(np.array(first), False)
            case _:
                if len(positional) + len(named) != 1:
                    raise no_such_constructor(f"no form of Tensor takes {_kinds(positional, named)}")
                raise TypeError(
                    "Input argument must be a PIL.Image.Image/numpy.array/list[int, float, str] object, or "
                    f"another form of Tensor's documentation, not {_kinds(positional, named)}"
                )

    def _set(self, array: NDArray[Any], shape: tuple[int, ...], type_: Type, kind: int) -> None:
        self._array = self._memory = array
        self._type = type_
        self._shape = shape
        self._kind = kind
        self._address = 0 if type_ is STRING else address_of(array)

    def _allocate(self, type_: Type, shape: tuple[int, ...]) -> None:
        self._set(new_array(type_, shape), shape, type_, OWN)

    def _from_array(self, array: NDArray[Any], shared: bool) -> None:
        if shared:
            type_ = check_lendable(array)
            check_native(array)
            if not array.flags.writeable:
                raise ValueError("array is not writeable")
            self._set(as_container(array, type_), array.shape, type_, LENT)
            return
        type_ = type_of_dtype(array.dtype)
        if type_ is STRING:
            self._set(encode_strings(array), array.shape, type_, OWN)
            return
        self._allocate(type_, array.shape)
        np.copyto(self._array, as_container(array, type_))

    def _from_memory(self, array: NDArray[Any], shape: tuple[int, ...], type_: Type) -> None:
        own_type = check_lendable(array)
        if type_ is Type.dynamic:
            check_native(array)
            type_ = own_type
        if type_ is STRING:
            raise RuntimeError("strings cannot share the memory of an array: use Tensor(array)")
        size = type_._bytes(math.prod(shape))
        if size > array.nbytes or any(dim >= 2**63 for dim in shape):
            raise shape_error(f"the array's {array.nbytes} bytes are too few", type_, shape)
        extent = shape if type_._itemsize else (size,)
        view = np.ndarray(extent, type_._dtype, array.reshape(-1).view(np.uint8))
        self._set(view, shape, type_, LENT)

    def _from_port(self, port: Any, array: NDArray[Any] | None) -> None:
        partial: PartialShape = port.get_partial_shape()
        shape = (0,) if partial.is_dynamic else tuple(partial.to_shape())
        if array is None:
            self._allocate(port.get_element_type(), shape)
            return
        array = np.asarray(array)
        type_: Type = port.get_element_type()
        own_type, count = check_lendable(array), math.prod(shape)
        if own_type is not type_:
            text = (
                "Type of the array and the port are different. Data is going to be casted. "
                f"The memory of {own_type._name} is read as {type_._name}."
            )
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        if count > array.size:
            raise shape_error(
                f"Shape of the port exceeds shape of the array. It has {array.size} elements", type_, shape
            )
        if count < array.size and partial.is_static:
            text = "Shape of the port is smaller than shape of the array. Passed data will be cropped."
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        self._from_memory(array, shape, type_)

    def _from_window(self, other: Tensor, begin: tuple[int, ...], end: tuple[int, ...]) -> None:
        shape = other._shape
        if not len(begin) == len(end) == len(shape):
            raise RuntimeError(f"a region of {other!r} needs {len(shape)} coordinates, not {begin} to {end}")
        if not all(low <= high <= dim for low, high, dim in zip(begin, end, shape, strict=True)):
            raise RuntimeError(f"the region from {begin} to {end} is outside of {other!r}")
        if not other._type._itemsize:
            raise RuntimeError(
                f"Could not get strides for types with bitwidths less then 8 bit: no region of {other!r}"
            )
        view = other._array[_slices(begin, end)]
        self._set(view, view.shape, other._type, WINDOW)

    @property
    def data(self) -> NDArray[Any]:
        """The elements as an array on the tensor's memory, which it keeps alive.

        Types below 8 bits give a flat array of packed bytes; strings an `S` copy, with a RuntimeWarning.
        """
        if self._type is STRING:
            warnings.warn(
                "Data of string type will be copied! Please use dedicated properties `str_data` and "
                "`bytes_data` to avoid confusion while accessing Tensor's contents.",
                RuntimeWarning,
                stacklevel=2,
            )
            return self.bytes_data
        return self._array.view()

    def _strings(self) -> NDArray[Any]:
        if self._type is not STRING:
            raise RuntimeError(f"Tensor's type must be a string! The type is {self._type._name}.")
        return self._array

    @property
    def bytes_data(self) -> NDArray[Any]:
        """A copy of the strings as a NumPy array of bytes (`S`); RuntimeError for other types."""
        return self._strings().astype("S")

    @bytes_data.setter
    def bytes_data(self, values: Any) -> None:
        self._fill(values)

    @property
    def str_data(self) -> NDArray[Any]:
        """A copy of the strings as a NumPy array of str (`U`); invalid bytes are replaced.

        RuntimeError for other types. Set it from an array or list of str or bytes, as many as there are.
        """
        return decode_array(self._strings())

    @str_data.setter
    def str_data(self, values: Any) -> None:
        self._fill(values)

    def _fill(self, values: Any) -> None:
        if not isinstance(values, (list, _ndarray)):
            raise RuntimeError(f"Invalid data to fill String Tensor! Its type is {type(values).__name__}")
        array = np.asarray(values)
        if array.dtype.kind not in "US":
            raise RuntimeError(
                f"Unknown string kind passed to fill the Tensor's data! Its dtype is {array.dtype}"
            )
        if array.size != math.prod(self._shape):
            raise RuntimeError("Passed array must have the same size (number of elements) as the Tensor!")
        np.copyto(self._strings(), encode_strings(array).reshape(self._shape))

    def get_element_type(self) -> Type:
        """The Type of the elements."""
        return self._type

    def get_shape(self) -> Shape:
        """The shape, in elements."""
        return shape_of(self._shape)

    def get_size(self) -> int:
        """The number of elements."""
        return math.prod(self._shape)

    def get_byte_size(self) -> int:
        """Bytes of all elements; 32 for each string."""
        return self._type._bytes(math.prod(self._shape))

    def get_strides(self) -> Strides:
        """Bytes between neighbours along each axis. RuntimeError for types below 8 bits, which have none."""
        step = self._type._itemsize
        if not step:
            raise RuntimeError(
                "Could not get strides for types with bitwidths less then 8 bit. "
                f"Tensor type: {self._type._name}"
            )
        if self._kind == WINDOW:
            # measured in elements first: NumPy keeps a reference where OpenVINO counts a string's 32 bytes
            return Strides([stride // self._array.itemsize * step for stride in self._array.strides])
        strides: list[int] = []
        for dim in reversed(self._shape):
            strides.append(step if dim or strides else 0)  # as OpenVINO counts a last axis without elements
            step *= dim
        return Strides(strides[::-1])

    def is_continuous(self) -> bool:
        """True when the elements lie in C order without gaps."""
        return bool(self._array.flags.c_contiguous)

    @takes
    def set_shape(self, shape: Any) -> None:
        """Give the tensor another shape. The elements that remain in memory order keep their values.

        Own memory grows when it must, and its contents are then undefined; lent memory and windows raise
        RuntimeError. A window keeps its rank, and no dimension exceeds the window's first.
        """
        dims = static_dims(shape)
        before = self._array, self._memory, self._shape, self._kind, self._address
        try:
            self._reshape(dims)
        except BaseException:  # of a signal's handler, too: shape and memory fit each other
            self._array, self._memory, self._shape, self._kind, self._address = before
            raise

    def _reshape(self, dims: tuple[int, ...]) -> None:
        memory = self._memory
        if self._kind == WINDOW:
            limits = memory.shape
            if len(dims) != len(limits) or any(dim > limit for dim, limit in zip(dims, limits, strict=True)):
                raise shape_error(f"a region of {list(limits)} cannot be set to the shape", self._type, dims)
            self._array = memory[_slices((0,) * len(dims), dims)]
            self._shape = dims
            return
        type_ = self._type
        count = math.prod(dims)
        extent = dims if type_._itemsize else (type_._bytes(count),)
        needed = math.prod(extent)
        if needed > memory.size:
            if self._kind == LENT:
                raise shape_error("The check of a new size failed: shared memory cannot grow", type_, dims)
            self._allocate(type_, dims)
            return
        try:
            self._array = memory.reshape(-1)[:needed].reshape(extent)
        except ValueError as error:
            raise shape_error("Could not set new shape", type_, dims) from error
        self._shape = dims

    shape = accessor(get_shape, set_shape)
    element_type = accessor(get_element_type)
    size = accessor(get_size)
    byte_size = accessor(get_byte_size)
    strides = accessor(get_strides)

    def copy_to(self, target_tensor: Tensor) -> None:
        """Copy to a tensor of the same element type (else RuntimeError), which takes this one's shape."""
        expect(target_tensor, Tensor, "copy_to takes a Tensor")
        if target_tensor._type is not self._type:
            src, dst = self._type._name, target_tensor._type._name
            raise RuntimeError(f"Tensor element types are not equal. (src: {src} != dst: {dst})")
        if target_tensor._shape != self._shape:
            target_tensor.set_shape(self._shape)
        np.copyto(target_tensor._array, self._array)

    def copy_from(self, source_tensor: Any = None, *, source: Any = None) -> None:
        """Copy from a Tensor, array or list of the same element type (else RuntimeError); takes its shape."""
        source = source_tensor if source is None else source
        if not isinstance(source, Tensor):
            expect(source, (list, _ndarray), "copy_from takes a Tensor, array or list")
            array = np.asarray(source)
            own_type = type_of_dtype(array.dtype)
            array = encode_strings(array) if own_type is STRING else as_container(array, own_type)
            source = lend_array(array, own_type)
        source.copy_to(self)

    def __copy__(self) -> Tensor:
        """A second handle on the same memory and shape, which follows every later change of either."""
        handle: _Handle = object.__new__(_Handle)
        handle._origin = self
        return handle

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        result = Tensor.__new__(Tensor)
        result._allocate(self._type, self._shape)
        np.copyto(result._array, self._array)
        return result

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'Tensor' object: pickle its `data`")

    def __repr__(self) -> str:
        return f"<Tensor: shape[{','.join(map(str, self._shape))}] type: {self._type._name}>"


def _slices(begin: tuple[int, ...], end: tuple[int, ...]) -> tuple[Any, ...]:
    return (..., *map(slice, begin, end))  # the dots make it a view without any axes too


def _named_arguments(positional: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Tensor(...) under the names of the form that is meant; {} when there is none."""
    names = _name_arguments(positional)
    if any(name in named for name in names):
        return {}
    arguments = dict(zip(names, positional, strict=True)) | named
    order = "other begin end port array type shape shared_memory list image".split()
    if "array" in arguments and "shape" in arguments:
        order = ["array", "shape", "type"]
    if set(arguments) - set(order):
        return {}
    ordered = {name: arguments[name] for name in order if name in arguments}
    array = ordered.get("array", _UNSET)
    shared = ordered.get("shared_memory", False)
    good = (array is _UNSET or isinstance(array, _ndarray)) and isinstance(shared, (bool, np.bool_))
    return ordered if good else {}


def _name_arguments(positional: list[Any]) -> tuple[str, ...]:
    """The names of positional arguments of a Tensor, by the type of the first one."""
    if not positional:
        return ()
    first, count = positional[0], len(positional)
    if isinstance(first, Tensor):
        return ("other", "begin", "end")[:count]
    if isinstance(first, _ndarray):
        if count == 2 and isinstance(positional[1], (bool, np.bool_)):
            return ("array", "shared_memory")
        return ("array", "shape", "type")[:count]
    if hasattr(first, "get_partial_shape") and hasattr(first, "get_element_type"):
        return ("port", "array", "?")[:count]
    if count == 1 and isinstance(first, list):
        return ("list",)
    if count == 1 and type(first).__module__.partition(".")[0] == "PIL":
        return ("image",)
    return ("type", "shape", "?")[:count]


def _kinds(positional: list[Any], named: dict[str, Any]) -> str:
    shown = [type(value).__name__ for value in positional]
    return "(" + ", ".join(shown + [f"{name}: {type(value).__name__}" for name, value in named.items()]) + ")"


class _Handle(Tensor):
    """The result of `copy.copy` of a Tensor. It shares everything with its origin."""

    __slots__ = ("_origin",)
    _origin: Tensor


def _of_origin(name: str) -> property:
    def read(handle: Any) -> Any:
        return getattr(handle._origin, name)

    def write(handle: Any, value: Any) -> None:
        setattr(handle._origin, name, value)

    return property(read, write)


for _name in ("_address", "_array", "_kind", "_memory", "_shape", "_type"):
    setattr(_Handle, _name, _of_origin(_name))
_Handle.__name__ = _Handle.__qualname__ = "Tensor"


def lend_array(array: NDArray[Any], type_: Type, shape: tuple[int, ...] | None = None) -> Tensor:
    """A Tensor on an array that is known to be good: C order, native bytes, the dtype that `type_` shows.

    `shape` is needed only where the array holds packed bytes. Nothing is checked or copied.
    """
    tensor = Tensor.__new__(Tensor)
    tensor._set(array, array.shape if shape is None else shape, type_, LENT)
    return tensor


def new_tensor(type_: Type, shape: tuple[int, ...]) -> Tensor:
    """A Tensor with memory of its own, as `Tensor(type_, shape)`, without reading the arguments."""
    tensor = Tensor.__new__(Tensor)
    tensor._allocate(type_, shape)
    return tensor
