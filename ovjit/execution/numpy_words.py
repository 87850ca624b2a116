"""What the words of kernels mean, in NumPy: vectors are arrays of lanes, addresses are looked up and checked.

`Words(lanes, memory)` has, name by name, what `ovjit.codegen.cpu.vector` has in LLVM. `program(source)` is a
kernel's text as a Python function over them. `Memory` knows the pieces that may be touched; whatever lies
outside of all of them is an `OutOfBounds`.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.template import turned_pairs
from ovjit.codegen.tracer import WIDENED
from ovjit.errors import InferenceError
from ovjit.graph.dtypes import numpy_dtype


class OutOfBounds(InferenceError):
    """A kernel would touch memory that it has not been given."""


class Memory:
    """Pieces of this process's memory, (address, bytes, name) each."""

    def __init__(self, pieces: Sequence[tuple[int, int, str]]):
        self.pieces = [
            (address, address + size, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)))
            for address, size, _ in pieces
            if size
        ]
        self.names = [f"{name} ({size} bytes)" for _, size, name in pieces if size]

    def at(self, address: int, size: int, align: int = 1) -> np.ndarray:
        """The bytes from `address` on. OutOfBounds where they are not in one piece, or not aligned."""
        if address % align:
            raise OutOfBounds(f"{size} bytes at an address that is no multiple of {align}")
        for start, stop, piece in self.pieces:
            if start <= address and address + size <= stop:
                return piece[address - start : address - start + size]
        raise OutOfBounds(f"{size} bytes {self._where(address)}")

    def _where(self, address: int) -> str:
        def away(i: int) -> int:
            start, stop, _ = self.pieces[i]
            return max(start - address, address - stop, 0)

        if not self.pieces:
            return "where there is no memory"
        nearest = min(range(len(self.pieces)), key=away)
        return f"from byte {address - self.pieces[nearest][0]} on of {self.names[nearest]}"


class F32(float):
    """A single number of 32 bits: with its like it stays one, with others it is one of 64."""

    def __new__(cls, value: float) -> F32:
        return float.__new__(cls, np.float32(value))

    def _meet(self, other: Any, f: Callable[[float, float], float]) -> float:
        result = f(float(self), float(other))
        return F32(result) if isinstance(other, F32) else result

    def __add__(self, other: Any) -> float:
        return self._meet(other, operator.add)

    def __sub__(self, other: Any) -> float:
        return self._meet(other, operator.sub)

    def __mul__(self, other: Any) -> float:
        return self._meet(other, operator.mul)

    def __neg__(self) -> float:
        return F32(-float(self))


def register_type(dtype: str) -> np.dtype:
    """The NumPy type of one lane of a vector."""
    return numpy_dtype(WIDENED.get(dtype, dtype))


def from_memory(data: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes as lanes of a vector."""
    if dtype == "boolean":
        return data != 0
    if dtype == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(numpy_dtype(dtype)).astype(register_type(dtype))


def to_memory(lanes: np.ndarray, dtype: str) -> np.ndarray:
    """Lanes of a vector as bytes."""
    if dtype == "bf16":
        lanes = lanes.astype(np.float32).astype(ml_dtypes.bfloat16)
    return np.ascontiguousarray(lanes.astype(numpy_dtype(dtype), copy=False)).view(np.uint8)


def _number(value: Any, dtype: str) -> Any:
    """A number as one of this type: integers are cut."""
    kind = register_type(dtype)
    if kind.kind in "iu":
        whole = int(value) & ((1 << (8 * kind.itemsize)) - 1)
        return np.array(whole, np.dtype(f"u{kind.itemsize}")).view(kind)
    return kind.type(value)


def _convert(x: np.ndarray, dtype: str) -> np.ndarray:
    """C's conversion; a real becomes the nearest integer there is, NaN becomes 0."""
    to = register_type(dtype)
    if x.dtype.kind != "f" or to.kind == "f":
        return x.astype(to)
    info = np.iinfo(to)
    out = np.empty(x.shape, to)
    for i, value in enumerate(x.tolist()):
        out[i] = (
            0 if math.isnan(value) else info.max if value >= info.max else int(max(value, float(info.min)))
        )
    return out


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integers are cut off; by zero 0."""
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, 1, y).astype(y.dtype)
    if x.dtype.kind == "i":
        lowest = np.iinfo(x.dtype).min
        quotient = np.array(
            [
                lowest if (a, b) == (lowest, -1) else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
                for a, b in zip(x.tolist(), safe.tolist(), strict=True)
            ],
            x.dtype,
        )
    else:
        quotient = x // safe
    return np.where(y == 0, 0, quotient).astype(x.dtype)


def _dot_bytes(acc: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    fours = x.view(np.uint8).astype(np.int32) * w.view(np.int8)
    return acc + fours.reshape(-1, 4).sum(axis=1, dtype=np.int32)


def _dot_signed(acc: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    fours = x.view(np.int8).astype(np.int32) * w.view(np.int8)
    return acc + fours.reshape(-1, 4).sum(axis=1, dtype=np.int32)


def _dot_pairs(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    products = x.view(np.uint8).astype(np.int32) * w.view(np.int8)
    return _halves(products.reshape(-1, 2).sum(axis=1), x.dtype)


def _add_pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _halves(x.view(np.int16).astype(np.int32) + y.view(np.int16), x.dtype)


def _halves(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if sums.min() < -(2**15) or sums.max() >= 2**15:
        raise OutOfBounds(f"sums {sums.tolist()} of 16 bits")
    return sums.astype(np.int16).view(dtype)


def _sum_pairs(acc: np.ndarray, x: np.ndarray) -> np.ndarray:
    return acc + x.view(np.int16).reshape(-1, 2).sum(axis=1, dtype=np.int32)


def _shift_halves(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    return (x.view(np.int16) >> by.view(np.int16)).view(x.dtype)


def _look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    places = codes.view(np.uint8).reshape(-1, 16)
    if places.max() > 15:
        raise OutOfBounds(f"bytes {places.tolist()} of 16")
    found = np.take_along_axis(table.view(np.uint8).reshape(-1, 16), places.astype(np.int64), axis=1)
    return found.reshape(-1).view(codes.dtype)


def _zip(dtype: str, last: bool, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each 16 bytes of two vectors the first or last 8 in turns."""
    pairs = np.stack([v.view(dtype).reshape(x.nbytes // 16, 2, -1)[:, int(last)] for v in (x, y)], axis=-1)
    return pairs.reshape(-1).view(x.dtype)


def _fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Rounded once: exact products of f32 fit f64."""
    return (x.astype(np.float64) * y + z).astype(x.dtype) if x.dtype.kind == "f" else x * y + z


_SAME: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide, "neg": np.negative,
    "max_": np.maximum, "min_": np.minimum, "abs_": np.abs, "fma": _fma,
    "dot_bytes": _dot_bytes, "dot_signed": _dot_signed, "sqrt": np.sqrt, "floor": np.floor,
    "rcp": np.reciprocal,
    "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "and_": np.bitwise_and, "or_": np.bitwise_or,
    "xor": np.bitwise_xor, "not_": np.invert, "shl": np.left_shift, "shr": np.right_shift,
    "select": np.where, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "look_up": _look_up,
    "dot_pairs": _dot_pairs, "add_pairs": _add_pairs, "sum_pairs": _sum_pairs,
    "shr_halves": _shift_halves, "turned_pairs": turned_pairs,
    "zip_bytes_low": functools.partial(_zip, "u1", False),
    "zip_bytes_high": functools.partial(_zip, "u1", True),
    "zip_halves_low": functools.partial(_zip, "u2", False),
    "zip_halves_high": functools.partial(_zip, "u2", True),
}  # fmt: skip
_ACROSS = {
    "hadd": np.add, "hmul": np.multiply, "hmax": np.maximum, "hmin": np.minimum, "hand": np.bitwise_and,
    "hor": np.bitwise_or,
}  # fmt: skip
_LIBM = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
         "atanh": "arctanh", "pow": "power", "atan2": "arctan2"}  # fmt: skip


def _libm(name: str, *xs: np.ndarray) -> np.ndarray:
    """The C library's function of that name, lane by lane."""
    function = getattr(np, _LIBM.get(name, name), None)
    if function is None:
        function = np.vectorize(getattr(math, name), otypes=[np.float64])
    return function(*xs).astype(xs[0].dtype)


def _seldom(name: str, mask: np.ndarray, x: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """`_libm` in the lanes of a mask, elsewhere the last argument."""
    *others, y = more
    return np.where(mask, _libm(name, np.where(mask, x, 0).astype(x.dtype), *others), y) if mask.any() else y


def _udiv(x: int, y: int) -> int:
    if x < 0 or y <= 0:
        raise InferenceError(f"a kernel divides {x} by {y}")
    return x // y


def _whole(x: float) -> int:
    """Cut off; what int64 does not hold is its nearest."""
    if math.isnan(x):
        return 0
    lowest, highest = -(1 << 63), (1 << 63) - 1
    if math.isinf(x):
        return highest if x > 0 else lowest
    return max(lowest, min(int(x), highest))


class Words(dict):
    """The names that a kernel's text may use, made as they are asked for."""

    def __init__(self, lanes: int, memory: Memory):
        super().__init__(VL=lanes, float_nan=math.nan, float_inf=math.inf, njit=lambda **_: lambda f: f)
        self |= {"imin": min, "imax": max, "whole": _whole, "ld": self._ld}
        self |= dict.fromkeys(("prefetch", "prefetch_l2"), lambda p: None)
        self |= {"now": time.monotonic_ns, "udiv": _udiv, "urem": lambda x, y: x - _udiv(x, y) * y}
        self |= {"__divided__": _divided, "__floored__": _floored, "__rest__": _rest}
        self.lanes = lanes
        self.memory = memory
        self.iota = np.arange(lanes)

    def __missing__(self, name: str) -> Any:
        made = _SAME.get(name)
        if made is None:
            operation, _, dtype = name.rpartition("_")
            if operation.startswith("libm_"):
                made = functools.partial(_libm, operation[5:])
            elif operation.startswith("seldom_"):
                made = functools.partial(_seldom, operation[7:])
            elif operation in _ACROSS:
                made = functools.partial(self._across, _ACROSS[operation], dtype)
            elif dtype in SIZE and hasattr(self, f"_{operation}"):
                made = functools.partial(getattr(self, f"_{operation}"), dtype)
            else:
                raise KeyError(name)
        self[name] = made
        return made

    def body(self, body: Body, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """What an elementwise body makes of vectors."""
        lines, constants = body.source("    ")
        head = f"def body({', '.join(f'x{i}' for i in range(len(inputs)))}):"
        hoisted = [f"    {name} = {value}" for name, value in constants.values()]
        result = f"    return {body.result_names(constants)[0]}"
        exec(_code("\n".join([head, *hoisted, *lines, result])), self)  # what ovjit's own tracer has printed
        value: np.ndarray = self["body"](*inputs)
        return value

    # --- memory

    def _count(self, n: int) -> int:
        return min(max(n, 0), self.lanes)

    def _scalar(self, value: Any, dtype: str) -> Any:
        value = value.item()
        return F32(value) if register_type(dtype) == np.float32 else value

    def _ld(self, *where: Any) -> Any:
        """ld(p, i): number i of a table of int64s; `ld_T(p)` is made with the type first."""
        if isinstance(where[0], str):
            dtype, p = where
            return self._scalar(from_memory(self.memory.at(p, SIZE[dtype]), dtype)[0], dtype)
        return self.memory.at(where[0] + where[1] * 8, 8).view(np.int64)[0].item()

    def _st(self, dtype: str, p: int, x: Any) -> None:
        self.memory.at(p, SIZE[dtype])[:] = to_memory(np.full(1, _number(x, dtype)), dtype)

    def _load(self, dtype: str, p: int) -> np.ndarray:
        return from_memory(self.memory.at(p, self.lanes * SIZE[dtype]), dtype)

    def _loadm(self, dtype: str, p: int, n: int) -> np.ndarray:
        count = self._count(n)
        out = np.zeros(self.lanes, register_type(dtype))
        if count:
            out[:count] = from_memory(self.memory.at(p, count * SIZE[dtype]), dtype)
        return out

    def _store(self, dtype: str, p: int, v: np.ndarray) -> None:
        self.memory.at(p, self.lanes * SIZE[dtype])[:] = to_memory(v, dtype)

    def _storem(self, dtype: str, p: int, v: np.ndarray, n: int) -> None:
        count = self._count(n)
        if count:
            self.memory.at(p, count * SIZE[dtype])[:] = to_memory(v[:count], dtype)

    def _splat(self, dtype: str, p: int) -> np.ndarray:
        return np.repeat(from_memory(self.memory.at(p, SIZE[dtype]), dtype), self.lanes)

    def _gather(self, dtype: str, p: int, stride: int, n: int) -> np.ndarray:
        out = np.zeros(self.lanes, register_type(dtype))
        for i in range(self._count(n)):
            out[i] = from_memory(self.memory.at(p + i * stride, SIZE[dtype]), dtype)[0]
        return out

    def _scatter(self, dtype: str, p: int, stride: int, v: np.ndarray, n: int) -> None:
        for i in range(self._count(n)):
            self.memory.at(p + i * stride, SIZE[dtype])[:] = to_memory(v[i : i + 1], dtype)

    _strided, _strided_store = _gather, _scatter

    def _evens(self, dtype: str, p: int) -> np.ndarray:
        size = 2 * self.lanes * SIZE[dtype]
        return from_memory(self.memory.at(p, size), dtype)[::2]

    def _take(self, dtype: str, p: int, index: np.ndarray) -> np.ndarray:
        size = SIZE[dtype]
        rows = [self.memory.at(p + i * size, size) for i in index.tolist()]
        return from_memory(np.concatenate(rows), dtype)

    # --- lanes

    def _permute(self, dtype: str, v: np.ndarray, index: np.ndarray) -> np.ndarray:
        return v[index % self.lanes]

    def _lane(self, dtype: str, v: np.ndarray, i: int) -> Any:
        if not 0 <= i < self.lanes:
            raise OutOfBounds(f"lane {i} of {self.lanes}")
        return self._scalar(v[i], dtype)

    def _spread(self, dtype: str, x: Any) -> np.ndarray:
        return np.full(self.lanes, _number(x, dtype))

    _const = _spread

    def _blend(self, dtype: str, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(self.iota < n, x, y)

    def _cast(self, dtype: str, v: np.ndarray) -> np.ndarray:
        return _convert(v, dtype)

    def _trunc_int(self, dtype: str, v: np.ndarray) -> np.ndarray:
        return v.astype(register_type(dtype))

    def _round_int(self, dtype: str, v: np.ndarray) -> np.ndarray:
        held = np.where(v > 0, np.minimum(v, 255), 0) if dtype == "u8" else v
        return np.rint(held).astype(register_type(dtype))

    def _held(self, dtype: str, v: np.ndarray) -> np.ndarray:
        info = np.iinfo(register_type(dtype))
        return np.clip(v, info.min, info.max).astype(info.dtype)

    def _bits(self, dtype: str, v: np.ndarray) -> np.ndarray:
        return v.view(register_type(dtype))

    def _halves_low(self, dtype: str, v: np.ndarray) -> np.ndarray:
        return v.view(np.float16)[: v.size].astype(register_type(dtype))

    def _halves_high(self, dtype: str, v: np.ndarray) -> np.ndarray:
        return v.view(np.float16)[v.size :].astype(register_type(dtype))

    def _across(self, combine: Any, dtype: str, v: np.ndarray) -> Any:
        """Adds the two half vectors first, as LLVM does."""
        while len(v) > 1:
            v = combine(v[: len(v) // 2], v[len(v) // 2 :])
        return self._scalar(v[0], dtype)


# --- operators that Python has otherwise


def _divided(x: Any, y: Any) -> Any:
    if isinstance(x, np.ndarray):
        return _divide(x, y)
    with np.errstate(all="ignore"):
        result = float(np.float64(x) / np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


def _floored(x: Any, y: Any) -> Any:
    """A quotient by 0 is 0 for integers, and what IEEE 754 says for reals."""
    if isinstance(x, int) and isinstance(y, int):
        return x // y if y else 0
    with np.errstate(all="ignore"):
        result = float(np.float64(x) // np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


def _rest(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return x % y if y else 0
    with np.errstate(all="ignore"):
        result = float(np.float64(x) % np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


_OPERATORS = {ast.Div: "__divided__", ast.FloorDiv: "__floored__", ast.Mod: "__rest__"}


class _Operators(ast.NodeTransformer):
    """Divisions as calls."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name = _OPERATORS.get(type(node.op))
        if name is None:
            return node
        return ast.Call(ast.Name(name, ast.Load()), [node.left, node.right], [])

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        assert isinstance(node.target, ast.Name)
        plain = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        value = self.visit(plain)
        return ast.Assign([node.target], value)


@functools.lru_cache(256)
def _code(source: str) -> Any:
    tree = ast.fix_missing_locations(_Operators().visit(ast.parse(source)))
    return compile(tree, "<kernel>", "exec")


def program(source: str, words: Words) -> Callable[[int, int, int, int], int]:
    """The kernel's text as a function `(bases, args, chunk, scratch) -> error code` over `words`."""
    exec(_code(source), words)  # text printed by ovjit's own emitters
    kernel: Callable[[int, int, int, int], int] = words["kernel"]
    return kernel


__all__ = ["F32", "Memory", "OutOfBounds", "Words", "program"]
