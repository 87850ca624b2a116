"""Values that type inference knows, such as shapes that the model computes.

A chain like ShapeOf -> Gather -> Concat -> Reshape is evaluated by `infer`, so that the Reshape's output
shape is known. This is limited to `LIMIT` elements. The constant folder evaluates larger values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.errors import ModelError, check
from ovjit.graph.dtypes import from_numpy, numpy_dtype, real_for
from ovjit.graph.graph import Node, Replacement
from ovjit.graph.op import ObservedType, TensorType
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, dim, is_static, text
from ovjit.graph.symbolic import sym_int
from ovjit.graph.traced import is_traced, is_traced_number
from ovjit.rewrite.pattern import operation
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

#: NumPy's limit of dimensions.
MOST_DIMS = 64

#: Maximum elements of a value that inference computes.
LIMIT = 1024

INTEGERS = frozenset("i8 i16 i32 i64 u8 u16 u32 u64".split())
INDEX_TYPES = frozenset(("i32", "i64"))


def shape_value(x: TensorType, what: str, integral: str = "", flat: str = "") -> np.ndarray | None:
    """The value of an integer input as a flat i64 array; None if it is unknown.

    Raises ModelError if its type is not integral or its rank is above 1. `integral` and `flat`: OpenVINO's
    messages for these errors, in which `{type}`, `{shape}` and `{rank}` are the input's.
    """
    if x.dtype not in INTEGERS and x.dtype != "dynamic":
        raise ModelError(f"{_format_sentence(integral, x)}{what} should be integers, not {x.dtype}")
    if x.shape is not None and len(x.shape) > 1:
        raise ModelError(f"{_format_sentence(flat, x)}{what} should be a scalar or a list, not {x}")
    if x.value is None:
        return np.empty(0, np.int64) if length(x) == 0 else None  # an empty list is always known
    value = np.asarray(x.value).reshape(-1)
    return value if is_traced(value) else value.astype(np.int64)


def shape_scalar(x: TensorType, what: str, integral: str = "", one: str = "") -> int | None:
    """The value of an integer input of one element; None if it is unknown. `integral` and `one`: OpenVINO's
    messages for other inputs, see `shape_value`."""
    value = shape_value(x, what, integral, one)
    check_one(x, what, one)
    return None if value is None else sym_int(value[0])


def check_one(x: TensorType, what: str, one: str = "") -> None:
    """Raise ModelError unless x has one element or its size is unknown. Kernels read one element
    unchecked."""
    if length(x) not in (None, 1):
        raise ModelError(f"{_format_sentence(one, x)}{what} should be one number, not {x}")


def check_scalar(x: TensorType, says: str) -> None:
    """Raise ModelError with the message `says` (see `shape_value`), unless x is a scalar or of unknown
    rank."""
    if x.rank not in (None, 0):
        raise ModelError(f"{_format_sentence(says, x)}It is {x}")


def _format_sentence(sentence: str, x: TensorType) -> str:
    return sentence.format(type=x.dtype, shape=text(x.shape), rank=x.rank) + " " if sentence else ""


def length(x: TensorType) -> int | None:
    """The number of elements of a list input; None if it is unknown."""
    if not is_static(x.shape):
        return None
    return math.prod(x.shape)


def given_rank(x: TensorType) -> int | None:
    """The rank that a list input with an entry per dimension implies; None if it is unknown."""
    rank = length(x)
    check(rank is None or rank <= MOST_DIMS, f"a tensor has at most {MOST_DIMS} dimensions, not {rank}")
    return rank


def with_value(
    out: TensorType,
    ref: Callable[..., Any],
    *inputs: TensorType,
    partially: Callable[..., Any] | bool = False,
    **attrs: Any,
) -> TensorType:
    """`out` with its value filled in when all inputs' values are known numbers and everything is small.

    `partially`: what is done where open dimensions are among the numbers. True when `ref` only moves
    elements; else a function of one element of each input, see `ovjit.graph.symbolic`.
    """
    if any(type(x) is ObservedType for x in inputs):
        return out
    if not is_static(out.shape) or any(is_traced(x.value) for x in inputs):
        return out  # `ovjit.graph.bodies` evaluates traced values
    if any(map(is_traced_number, out.shape)) or math.prod(out.shape) > LIMIT:
        return out
    if partially and any(x.partial is not None for x in inputs):
        if partially is not True:
            if any(x.dtype not in INTEGERS and x.dtype != "boolean" for x in inputs):
                return out
            ref, attrs = np.frompyfunc(partially, len(inputs), 1), {}
        return with_partial(out, ref, *inputs, **attrs)
    if any(x.value is None or x.value.size > LIMIT or x.value.dtype.kind not in "iubf" for x in inputs):
        return out
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(ref(*(x.value for x in inputs), **attrs))
    except (ValueError, IndexError, ArithmeticError, ModelError):
        return out  # the error is raised when the node runs
    return TensorType(out.dtype, out.shape, value) if value.shape == out.shape else out


def with_partial(out: TensorType, ref: Callable[..., Any], *inputs: TensorType, **attrs: Any) -> TensorType:
    """`out` with the partial value that `ref` computes from arrays of ints and Intervals. If all results are
    ints, they become its value."""
    values = [x.value if x.partial is None else x.partial for x in inputs]
    if any(v is None or v.size > LIMIT or v.dtype.kind not in "iubO" for v in values):
        return out
    try:
        result = np.asarray(ref(*values, **attrs))
        if result.shape != out.shape:
            return out
        numbers = result.reshape(-1).tolist()
        if all(isinstance(v, (int, np.integer)) for v in numbers):
            value = np.array(numbers, numpy_dtype(out.dtype)).reshape(out.shape)
            return TensorType(out.dtype, out.shape, value)
    except (ValueError, IndexError, ArithmeticError, TypeError, AttributeError, ModelError):
        return out
    if not all(isinstance(v, (int, np.integer, Interval)) for v in numbers):
        return out
    return TensorType(out.dtype, out.shape, None, result)


def partial_dims(x: TensorType) -> list[Dim] | None:
    """The dimensions of a partially known list as ints and Intervals; None if it is fully known or
    unknown."""
    if x.partial is None or x.value is not None:
        return None
    return [int(v) if isinstance(v, (int, np.integer)) else v for v in x.partial.reshape(-1)]


def partial_sizes(x: TensorType) -> list[Dim] | None:
    """`partial_dims` of sizes, with lower bounds raised to 0. Raises ModelError if a size must be
    negative."""
    dims = partial_dims(x)
    if dims is None:
        return None
    check(all(hi is None or hi >= 0 for _, hi in map(bounds, dims)), f"sizes {dims} should not be negative")
    return [dim(max(d.lo, 0), d.hi) if isinstance(d, Interval) and d.lo < 0 else d for d in dims]


def extent_of(x: TensorType, what: str, integral: str = "", negative: str = "") -> Dim:
    """The extent that an integer input of one element gives: a number, or its bounds. Raises ModelError if it
    is negative, with the message `negative` ({number}). `integral`: see `shape_value`."""
    n = shape_scalar(x, what, integral)
    if n is None:
        (size,) = partial_sizes(x) or (ANY,)
        return size
    check(n >= 0, (negative or what + " {number} should not be negative").format(number=n))
    return n


def extents_of(x: TensorType, what: str, integral: str = "") -> list[Dim] | None:
    """The extents that an integer list gives: numbers, or their bounds; None if even their number is unknown.
    Raises ModelError if one is negative. `integral`: see `shape_value`."""
    sizes = shape_value(x, what, integral)
    if sizes is None:
        rank = given_rank(x)
        return partial_sizes(x) or (None if rank is None else [ANY] * rank)
    check(sizes.size == 0 or min(sizes) >= 0, f"{what} {sizes.tolist()} should not be negative")
    return [sym_int(n) for n in sizes]


def widen_floats(x: np.ndarray) -> np.ndarray:
    """Convert f16, bf16 and f8 arrays to f32, in which they accumulate. Other arrays are unchanged."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 and x.dtype.kind not in "iub" else x


def real(x: np.ndarray) -> np.ndarray:
    """`x` in the type of its weighted sums."""
    return x.astype(numpy_dtype(real_for(from_numpy(x.dtype)))) if x.dtype.kind in "iu" else widen_floats(x)


def round_to_type(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert sums to `dtype`; integers are rounded and saturate."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        x = np.clip(np.rint(x), float(limits.min), float(limits.max))
    return x.astype(dtype)


@rule(operation("FakeQuantize PRelu")(...))
def operands_as_first(w: Writer, node: Node) -> Replacement:
    """f(x: T, y: U) -> f(x, Convert(y) to T)     for the operations that take operands of another type"""
    kind = node.inputs[0].dtype
    if all(v.dtype == kind for v in node.inputs):
        return None
    same = [v if v.dtype == kind else w("Convert", v, destination_type=kind) for v in node.inputs]
    return w.b.instead(node, same)


def in_f32(ref: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `ref` so that 16-bit floats are computed in f32 and rounded once, at the end. It may return a
    tuple."""

    def wrapper(*xs: np.ndarray, **attrs: Any) -> Any:
        dtype = np.asarray(xs[0]).dtype
        arrays = [widen_floats(np.asarray(x)) for x in xs]
        out = ref(*arrays, **attrs)
        if out is arrays[0]:
            return np.asarray(xs[0])  # with the bits of its NaN
        if arrays[0].dtype == dtype:
            return out
        results = out if type(out) is tuple else (out,)
        rounded = [x.astype(dtype) if x.dtype.kind == "f" else x for x in results]
        return tuple(rounded) if type(out) is tuple else rounded[0]

    return wrapper
