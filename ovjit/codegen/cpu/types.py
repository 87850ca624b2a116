"""Types of the kernel language, and its intrinsics, which emit LLVM instructions.

They are not Numba's, so that lowering a kernel needs no tables of overloads, and creating an intrinsic is
cheap. `by_numba.py` converts them for Numba's ordinary pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovjit.records import NamedTuple


class Outside(Exception):
    """The source may be valid, but it is not in the kernel language.

    `context`: the part of the source, and its line.
    """

    context = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (super().__str__(), self.context)))


class Type:
    """The type of a variable. Each type is a single object."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Integer(Type):
    __slots__ = ("bitwidth", "signed")

    def __init__(self, bitwidth: int, signed: bool):
        super().__init__(f"{'' if signed else 'u'}int{bitwidth}")
        self.bitwidth = bitwidth
        self.signed = signed


class Float(Type):
    __slots__ = ("bitwidth",)

    def __init__(self, bitwidth: int):
        super().__init__(f"float{bitwidth}")
        self.bitwidth = bitwidth


void, boolean = Type("void"), Type("boolean")
float32, float64 = Float(32), Float(64)
int8, int16, int32, int64 = (Integer(bits, True) for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (Integer(bits, False) for bits in (8, 16, 32, 64))

#: name -> type of numbers.
NUMBERS: dict[str, Type] = {
    kind.name: kind
    for kind in (boolean, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64)
}


class Signature(NamedTuple):
    """The result type and argument types of an intrinsic."""

    return_type: Type
    args: tuple[Type, ...]


def signature(return_type: Type, *args: Type) -> Signature:
    return Signature(return_type, args)


class Intrinsic:
    """An intrinsic of kernels, with `arity` arguments.

    `resolve(*types)` returns its signature for arguments of these types and `emit(builder, *values)`, which
    returns its LLVM value. It returns None for types that it does not take. `parts`: the functions that it
    calls (`llvm_parts.py`). `in_python`: its implementation on `ovjit.execution.numpy_words.Words`.
    """

    parts: Mapping[str, str] = {}
    in_python: Any = None

    def __init__(
        self, name: str, arity: int, resolve: Callable[..., tuple[Signature, Callable[..., Any]] | None]
    ):
        self.name = name
        self.arity = arity
        self._resolve = resolve

    def __repr__(self) -> str:
        return f"<intrinsic {self.name}>"

    def resolve(self, *kinds: Type) -> tuple[Signature, Callable[..., Any]] | None:
        return self._resolve(*kinds) if len(kinds) == self.arity else None
