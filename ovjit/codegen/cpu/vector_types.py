"""Element types, the type of vectors, and helpers that emit LLVM, for kernels and tiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.memory import SIZE as SIZE
from ovjit.forks import made_once

FLOATS = {"f32": ir.FloatType(), "f64": ir.DoubleType()}
INTS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64, "u8": 8, "u16": 16, "u32": 32, "u64": 64}
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
REGISTER_TYPE = {"f16": "f32", "bf16": "f32"}


Made = TypeVar("Made")


class _BFloat(ir.Type):
    """LLVM's bfloat, for which llvmlite has no class."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


@functools.cache
def bf16_vector(lanes: int) -> ir.VectorType:
    """The type of operands and results of bf16 instructions. Elsewhere a bf16 is an i16."""
    return ir.VectorType(_BFloat(), lanes)


def scalar_ir(elem: str) -> ir.Type:
    """The LLVM type of a lane in a register."""
    elem = REGISTER_TYPE.get(elem, elem)
    return FLOATS.get(elem) or (_I1 if elem == "boolean" else ir.IntType(INTS[elem]))


class Vec(types.Type):
    """`lanes` values of element type `elem` in one LLVM vector."""

    def __init__(self, elem: str, lanes: int):
        super().__init__(f"Vec({elem}x{lanes})")
        self.elem = elem
        self.lanes = lanes

    @made_once
    def ir(self) -> ir.VectorType:
        return ir.VectorType(scalar_ir(self.elem), self.lanes)

    @property
    def is_float(self) -> bool:
        return self.elem in FLOATS

    @property
    def is_signed(self) -> bool:
        return self.elem[0] == "i"


_vec = functools.cache(Vec)


def vec(elem: str, lanes: int) -> Vec:
    return _vec(REGISTER_TYPE.get(elem, elem), lanes)


def once(builder: ir.IRBuilder, key: tuple, make: Callable[[], Made]) -> Made:
    """The value that `make` emits, or emitted before in this block for this key (operation and operands).

    LLVM would merge equal values. But half of the instructions of intrinsics repeat, and emitting them once
    saves printing and parsing them.
    """
    emitted = builder.block.__dict__.setdefault("emitted_once", {})
    if key not in emitted:
        block, value = builder.block, make()
        if builder.block is not block:
            return value
        emitted[key] = value
    return emitted[key]


def iota_mask(builder: ir.IRBuilder, n: ir.Value, lanes: int) -> ir.Value:
    """<lanes x i1>: lane < n."""
    return once(builder, ("iota_mask", n, lanes), lambda: _iota_mask(builder, n, lanes))


def _iota_mask(builder: ir.IRBuilder, n: ir.Value, lanes: int) -> ir.Value:
    if n.type == _I64:  # a row may have more than 2**31 elements
        n = builder.trunc(builder.select(builder.icmp_signed("<", n, _I64(lanes)), n, _I64(lanes)), _I32)
    return builder.icmp_signed("<", lane_indices(*range(lanes)), broadcast(builder, n, lanes))


@functools.lru_cache(1024)
def lane_indices(*numbers: int) -> ir.Constant:
    """<n x i32> of these numbers, cached, as llvmlite creates an object for each."""
    return ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    vt = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vt, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, ir.Constant(vt, ir.Undefined), lane_indices(*[0] * lanes))


def pointer(builder: ir.IRBuilder, address: ir.Value, to: ir.Type) -> ir.Value:
    return once(builder, ("pointer", address, to), lambda: builder.inttoptr(address, to.as_pointer()))


def call_intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, args: list) -> ir.Value:
    module = builder.module
    fnty = ir.FunctionType(result, [a.type for a in args])
    fn = module.globals.get(name) or ir.Function(module, fnty, name)
    return builder.call(fn, args)


def suffix(t: ir.Type) -> str:
    """LLVM's overload suffix: v16f32, i64 ..."""
    if isinstance(t, ir.VectorType):
        return f"v{t.count}{suffix(t.element)}"
    return {"float": "f32", "double": "f64", "half": "f16"}.get(str(t)) or str(t)
