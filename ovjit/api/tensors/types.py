"""`Type`: the public face of the element types in `ovjit.graph.dtypes`.

Every element type is one object (`Type.f32 is Type("float32")`), so types compare by identity.
What a tensor of a type looks like as an array is decided here: `Type.to_dtype()` is the dtype of
`Tensor.data`, which for bf16 and the 8-bit floats is a container of bits and for types below
8 bits an array of packed bytes.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect
from ovjit.graph.dtypes import ELEMENT_TYPES, SMALL, ElementType, from_numpy

#: What `repr` says: the name in C++, but for two.
_SHOWN = {name: row.cpp for name, row in ELEMENT_TYPES.items()} | {"f32": "float32", "f64": "double64"}

#: The dtype of `Tensor.data`, where NumPy has no dtype of its own for the values.
_CONTAINERS = {"bf16": "float16", "string": "S"} | {n: "uint8" for n in SMALL if ELEMENT_TYPES[n].bits == 8}

_QUANTIZED = SMALL | {"i32", "i4", "i8", "u8"}

#: Types whose elements cross byte borders: this many elements fill this many bytes, and no fewer.
_GROUPS = {"u3": (8, 3), "u6": (4, 3)}

#: A string element counts as this many bytes in sizes and strides, as in OpenVINO.
STRING_BYTES = 32


class Type:
    """An element type. `Type(x)` takes whatever `numpy.dtype` takes: dtypes, scalar classes, their names.

    Raises TypeError for what NumPy can't read, and RuntimeError for a dtype that no tensor can have.
    """

    __slots__ = ("_dtype", "_itemsize", "_name", "_row")

    _name: str  #: the name used inside ovjit: "f32", "i64", "boolean"
    _dtype: np.dtype[Any] | None  #: the dtype of `Tensor.data`; None for `dynamic`
    _itemsize: int  #: bytes per element; 0 where elements share bytes
    _row: ElementType

    dynamic: ClassVar[Type]
    undefined: ClassVar[Type]  # the name that `dynamic` had in earlier releases
    boolean: ClassVar[Type]
    bf16: ClassVar[Type]
    f16: ClassVar[Type]
    f32: ClassVar[Type]
    f64: ClassVar[Type]
    i4: ClassVar[Type]
    i8: ClassVar[Type]
    i16: ClassVar[Type]
    i32: ClassVar[Type]
    i64: ClassVar[Type]
    u1: ClassVar[Type]
    u2: ClassVar[Type]
    u3: ClassVar[Type]
    u4: ClassVar[Type]
    u6: ClassVar[Type]
    u8: ClassVar[Type]
    u16: ClassVar[Type]
    u32: ClassVar[Type]
    u64: ClassVar[Type]
    nf4: ClassVar[Type]
    f8e4m3: ClassVar[Type]
    f8e5m2: ClassVar[Type]
    f8e8m0: ClassVar[Type]
    f4e2m1: ClassVar[Type]
    string: ClassVar[Type]

    def __new__(cls, dtype: Any) -> Type:
        return type_of_dtype(np.dtype(dtype))

    def __repr__(self) -> str:
        return f"<Type: '{_SHOWN[self._name]}'>"

    def __copy__(self) -> Type:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Type:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type_named, (self._name,)

    def to_dtype(self) -> np.dtype[Any]:
        """The dtype of `Tensor.data`. Raises IndexError for `dynamic`, which has none."""
        if self._dtype is None:
            raise IndexError(f"element type {self._name} has no NumPy dtype")
        return self._dtype

    def to_string(self) -> str:
        return self._name

    def get_type_name(self) -> str:
        return self._name

    def get_size(self) -> int:
        """Bytes of one element, rounded up."""
        return (self.get_bitwidth() + 7) // 8

    def get_bitwidth(self) -> int:
        return 8 * STRING_BYTES if self._name == "string" else self._row.bits

    def is_static(self) -> bool:
        return self._name != "dynamic"

    def is_dynamic(self) -> bool:
        return self._name == "dynamic"

    def is_real(self) -> bool:
        return self._row.is_real and not self._row.is_coded  # codes count as integral in OpenVINO

    def is_integral(self) -> bool:
        return not self.is_real()

    def is_integral_number(self) -> bool:
        return self.is_integral() and self._name != "boolean"

    def is_signed(self) -> bool:
        return self._row.kind in "fib" and not self._row.is_coded

    def is_quantized(self) -> bool:
        return self._name in _QUANTIZED

    def compatible(self, other: Type) -> bool:
        """True when the two are equal or one of them is dynamic."""
        return self.merge(other) is not None

    def merge(self, other: Type) -> Type | None:
        """The more definite of two types, or None when they exclude each other."""
        expect(other, Type, "an ovjit.Type is expected")
        if self is other or other is Type.dynamic:
            return self
        return other if self is Type.dynamic else None

    type_name = accessor(get_type_name)
    size = accessor(get_size)
    bitwidth = accessor(get_bitwidth)
    real = accessor(is_real)
    integral = accessor(is_integral)
    integral_number = accessor(is_integral_number)
    signed = accessor(is_signed)
    quantized = accessor(is_quantized)

    def _bytes(self, count: int) -> int:
        """Bytes that `count` elements take in memory."""
        if self._itemsize:
            return count * self._itemsize
        elements, size = _GROUPS.get(self._name, (8, self._row.bits))
        if self._name in _GROUPS:
            return -(-count // elements) * size
        return (count * self._row.bits + 7) // 8


def _make(row: ElementType) -> Type:
    self = object.__new__(Type)
    self._name = row.name
    self._row = row
    if row.name in _CONTAINERS:
        self._dtype = np.dtype(_CONTAINERS[row.name])
    elif 0 < row.bits < 8:
        self._dtype = np.dtype("int8" if row.kind == "i" else "uint8")
    else:
        self._dtype = row.numpy
    self._itemsize = STRING_BYTES if row.name == "string" else row.bits // 8
    return self


#: name -> Type
TYPES: dict[str, Type] = {name: _make(row) for name, row in ELEMENT_TYPES.items()}
for _type in TYPES.values():
    setattr(Type, _type._name, _type)
Type.undefined = Type.dynamic

#: Native dtypes whose values are those of a type: what `Tensor(array)` finds without further thought.
TYPE_OF_DTYPE: dict[np.dtype[Any], Type] = {
    np.dtype(name): Type.__dict__[short]
    for name, short in {
        "bool": "boolean",
        "float16": "f16",
        "float32": "f32",
        "float64": "f64",
        **{f"{word}{bits}": f"{word[0]}{bits}" for word in ("int", "uint") for bits in (8, 16, 32, 64)},
    }.items()
}
# long and long long are different dtypes of the same size: found by kind and size, not by identity
_BY_KIND = {(dtype.kind, dtype.itemsize): element_type for dtype, element_type in TYPE_OF_DTYPE.items()}


def type_of_dtype(dtype: np.dtype[Any]) -> Type:
    """The Type of an array's dtype, in any byte order. Raises RuntimeError if no tensor can hold it."""
    if dtype.kind in "US":
        return Type.string
    element_type = _BY_KIND.get((dtype.kind, dtype.itemsize))
    if element_type is None and dtype.kind != "O":
        with contextlib.suppress(TypeError):  # one of ml_dtypes
            element_type = TYPES[from_numpy(dtype)]
    if element_type is None or not element_type._itemsize:
        raise RuntimeError(f"Unsupported data type: {dtype}")
    return element_type


def type_named(name: str) -> Type:
    """The Type with one of ovjit's own names ("f32"). Raises KeyError for any other."""
    return TYPES[name]
