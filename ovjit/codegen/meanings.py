"""The semantics of intrinsics in NumPy: vectors are arrays of lanes. `words.py` names these functions.

Intrinsics with an element type or an address get the machine as their first argument: the number of lanes,
and the accessible memory (`ovjit.execution.numpy_words`). The element type follows.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from ovjit.codegen.memory import SIZE
from ovjit.codegen.tracer import WIDENED
from ovjit.errors import InferenceError
from ovjit.graph.dtypes import numpy_dtype, truncate_to


class OutOfBounds(InferenceError):
    """A kernel accesses memory that it was not given."""


class Memory(Protocol):
    def at(self, address: int, size: int, align: int = 1) -> np.ndarray: ...


class Machine(Protocol):
    """The interpreter's machine: the lanes of a vector, and the accessible memory."""

    lanes: int
    memory: Memory


class F32(float):
    """A scalar f32. Operations with another F32 give F32, with other numbers f64."""

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
    """The NumPy type of a lane of a vector."""
    return numpy_dtype(WIDENED.get(dtype, dtype))


def from_memory(data: np.ndarray, dtype: str) -> np.ndarray:
    """Lanes of a vector from bytes."""
    if dtype == "boolean":
        return data != 0
    if dtype == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(numpy_dtype(dtype)).astype(register_type(dtype))


def to_memory(lanes: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes from lanes of a vector."""
    if dtype == "bf16":
        import ml_dtypes  # compilations import this module, but do not call this

        lanes = lanes.astype(np.float32).astype(ml_dtypes.bfloat16)
    return np.ascontiguousarray(lanes.astype(numpy_dtype(dtype), copy=False)).view(np.uint8)


def number(value: Any, dtype: str) -> Any:
    """A number converted to this type; integers wrap around."""
    kind = register_type(dtype)
    if kind.kind in "iu":
        wrapped = int(value) & ((1 << (8 * kind.itemsize)) - 1)
        return np.array(wrapped, np.dtype(f"u{kind.itemsize}")).view(kind)
    return kind.type(value)


def convert(x: np.ndarray, dtype: str) -> np.ndarray:
    """Conversion as in C; floats to integers are truncated and saturate, and NaN becomes 0."""
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


def divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integers are truncated; x / 0 is 0."""
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


def _dot(x_type: type, w_type: type, acc: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """acc + the products of the numbers of these types in each lane."""
    products = x.view(x_type).astype(np.int32) * w.view(w_type)
    return acc + products.reshape(acc.size, -1).sum(axis=1, dtype=np.int32)


dot_bytes = functools.partial(_dot, np.uint8, np.int8)
dot_signed = functools.partial(_dot, np.int8, np.int8)
dot_halves = functools.partial(_dot, np.int16, np.int16)


def dot_pairs(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    products = x.view(np.uint8).astype(np.int32) * w.view(np.int8)
    return _to_i16(products.reshape(-1, 2).sum(axis=1), x.dtype)


def add_pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _to_i16(x.view(np.int16).astype(np.int32) + y.view(np.int16), x.dtype)


def _to_i16(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if sums.min() < -(2**15) or sums.max() >= 2**15:
        raise OutOfBounds(f"the sums {sums.tolist()} do not fit 16 bits")
    return sums.astype(np.int16).view(dtype)


def sum_pairs(acc: np.ndarray, x: np.ndarray) -> np.ndarray:
    return acc + x.view(np.int16).reshape(-1, 2).sum(axis=1, dtype=np.int32)


def shift_halves(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    return (x.view(np.int16) >> by.view(np.int16)).view(x.dtype)


def look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    indices = codes.view(np.uint8).reshape(-1, 16)
    if indices.max() > 15:
        raise OutOfBounds(f"the byte indices {indices.tolist()} are out of range for 16 bytes")
    elements = np.take_along_axis(table.view(np.uint8).reshape(-1, 16), indices.astype(np.int64), axis=1)
    return elements.reshape(-1).view(codes.dtype)


def zip_items(dtype: str, last: bool, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interleave the first or last 8 bytes of each 16 bytes of two vectors, by items of `dtype`."""
    pairs = np.stack([v.view(dtype).reshape(x.nbytes // 16, 2, -1)[:, int(last)] for v in (x, y)], axis=-1)
    return pairs.reshape(-1).view(x.dtype)


def fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Rounded once: products of f32 are exact in f64."""
    return (x.astype(np.float64) * y + z).astype(x.dtype) if x.dtype.kind == "f" else x * y + z


def exact_fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Rounded once: products of f64 are exact as fractions."""
    plain = fma(x, y, z)
    if x.dtype == np.float64:
        for i in np.flatnonzero(np.isfinite(plain)):
            plain[i] = float(Fraction(x[i]) * Fraction(y[i]) + Fraction(z[i]))
    return plain


def turned_pairs(v: np.ndarray) -> np.ndarray:
    """-v1, v0, -v3, v2, ..."""
    return np.stack([-v[1::2], v[::2]], -1).reshape(-1)


def fold_halves(n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The halves of each 2 `n` lanes added: those of x, then those of y."""
    sums = [v.reshape(-1, 2, n).sum(axis=1, dtype=v.dtype) for v in (x, y)]
    return np.stack(sums, axis=1).reshape(-1)


folds = {n: functools.partial(fold_halves, n) for n in (1, 2, 4, 8)}
zip_bytes_low, zip_bytes_high = (functools.partial(zip_items, "u1", last) for last in (False, True))
zip_halves_low, zip_halves_high = (functools.partial(zip_items, "u2", last) for last in (False, True))


_LIBM = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
         "atanh": "arctanh", "pow": "power", "atan2": "arctan2"}  # fmt: skip


def libm(name: str, *xs: np.ndarray) -> np.ndarray:
    """The C library's function `name`, lane by lane."""
    function = getattr(np, _LIBM.get(name, name), None)
    if function is None:
        function = np.vectorize(getattr(math, name), otypes=[np.float64])
    return function(*xs).astype(xs[0].dtype)


def seldom(name: str, mask: np.ndarray, x: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """`libm` in the lanes of a mask, the last argument in others."""
    *others, y = more
    return np.where(mask, libm(name, np.where(mask, x, 0).astype(x.dtype), *others), y) if mask.any() else y


def udiv(x: int, y: int) -> int:
    if x < 0 or y <= 0:
        raise InferenceError(f"a kernel divides {x} by {y}")
    return x // y


def to_int(x: float) -> int:
    """Truncated, saturated to int64; NaN gives 0."""
    if math.isnan(x):
        return 0
    lowest, highest = -(1 << 63), (1 << 63) - 1
    if math.isinf(x):
        return highest if x > 0 else lowest
    return max(lowest, min(int(x), highest))


def urem(x: int, y: int) -> int:
    return x - udiv(x, y) * y


# --- memory


def _count(m: Machine, n: int) -> int:
    return min(max(n, 0), m.lanes)


def _scalar(value: Any, dtype: str) -> Any:
    value = value.item()
    return F32(value) if register_type(dtype) == np.float32 else value


def ld(m: Machine, p: int, i: int) -> int:
    return int(m.memory.at(p + i * 8, 8).view(np.int64)[0])


def load_scalar(m: Machine, dtype: str, p: int) -> Any:
    return _scalar(from_memory(m.memory.at(p, SIZE[dtype]), dtype)[0], dtype)


def store_scalar(m: Machine, dtype: str, p: int, x: Any) -> None:
    m.memory.at(p, SIZE[dtype])[:] = to_memory(np.full(1, number(x, dtype)), dtype)


def prefetch(m: Machine, p: int) -> None:
    """No effect; any address is allowed."""


def load(m: Machine, dtype: str, p: int) -> np.ndarray:
    return from_memory(m.memory.at(p, m.lanes * SIZE[dtype]), dtype)


def loadm(m: Machine, dtype: str, p: int, n: int) -> np.ndarray:
    count = _count(m, n)
    out = np.zeros(m.lanes, register_type(dtype))
    if count:
        out[:count] = from_memory(m.memory.at(p, count * SIZE[dtype]), dtype)
    return out


def store(m: Machine, dtype: str, p: int, v: np.ndarray) -> None:
    m.memory.at(p, m.lanes * SIZE[dtype])[:] = to_memory(v, dtype)


def storem(m: Machine, dtype: str, p: int, v: np.ndarray, n: int) -> None:
    count = _count(m, n)
    if count:
        m.memory.at(p, count * SIZE[dtype])[:] = to_memory(v[:count], dtype)


def splat(m: Machine, dtype: str, p: int) -> np.ndarray:
    return np.repeat(from_memory(m.memory.at(p, SIZE[dtype]), dtype), m.lanes)


def gather(m: Machine, dtype: str, p: int, stride: int, n: int) -> np.ndarray:
    out = np.zeros(m.lanes, register_type(dtype))
    for i in range(_count(m, n)):
        out[i] = from_memory(m.memory.at(p + i * stride, SIZE[dtype]), dtype)[0]
    return out


def scatter(m: Machine, dtype: str, p: int, stride: int, v: np.ndarray, n: int) -> None:
    for i in range(_count(m, n)):
        m.memory.at(p + i * stride, SIZE[dtype])[:] = to_memory(v[i : i + 1], dtype)


def evens(m: Machine, dtype: str, p: int) -> np.ndarray:
    return from_memory(m.memory.at(p, 2 * m.lanes * SIZE[dtype]), dtype)[::2]


def thirds(m: Machine, dtype: str, p: int) -> np.ndarray:
    return from_memory(m.memory.at(p, 3 * m.lanes * SIZE[dtype]), dtype)[::3]


def take(m: Machine, dtype: str, p: int, index: np.ndarray) -> np.ndarray:
    size = SIZE[dtype]
    return from_memory(np.concatenate([m.memory.at(p + i * size, size) for i in index.tolist()]), dtype)


# --- lanes


def permute(m: Machine, dtype: str, v: np.ndarray, index: np.ndarray) -> np.ndarray:
    return v[index % m.lanes]


def lane(m: Machine, dtype: str, v: np.ndarray, i: int) -> Any:
    if not 0 <= i < m.lanes:
        raise OutOfBounds(f"lane index {i} is out of range for {m.lanes} lanes")
    return _scalar(v[i], dtype)


def spread(m: Machine, dtype: str, x: Any) -> np.ndarray:
    return np.full(m.lanes, number(x, dtype))


def blend(m: Machine, dtype: str, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(np.arange(m.lanes) < n, x, y)


def across(combine: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """Combine the lanes pairwise, beginning with the half vectors, as the LLVM code does."""

    def reduce_lanes(m: Machine, dtype: str, v: np.ndarray) -> Any:
        while len(v) > 1:
            v = combine(v[: len(v) // 2], v[len(v) // 2 :])
        return _scalar(v[0], dtype)

    return reduce_lanes


# --- conversions


def cast(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return convert(v, dtype)


def trunc_int(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return v.astype(register_type(dtype))


def trunc_or_min(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return truncate_to(v, register_type(dtype))


def round_int(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    clamped = np.where(v > 0, np.minimum(v, 255), 0) if dtype == "u8" else v
    return np.rint(clamped).astype(register_type(dtype))


def saturate(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    """Saturating conversion of integers to a narrower type."""
    info = np.iinfo(register_type(dtype))
    return np.clip(v, info.min, info.max).astype(info.dtype)


def bits(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return v.view(register_type(dtype))


def halves_low(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return v.view(np.float16)[: v.size].astype(register_type(dtype))


def halves_high(m: Machine, dtype: str, v: np.ndarray) -> np.ndarray:
    return v.view(np.float16)[v.size :].astype(register_type(dtype))
