"""Integer sums that are narrowed to bytes without a conversion to f32, where constants prove equal results.

    byte = saturate(round(sum * factor + zero))     convert, multiply-add, clamp, round, clamp and narrow

An integer sum whose initial value is the bits of `FIRST`, 1.5 * 2**23, has the bits of the f32 FIRST + sum.
So no conversion is needed:

    byte = saturate(round((FIRST + start + sum) * factor + offset))

`start` and `offset` are numbers per channel for which all possible sums give the same byte as above. The
offset alone is far too coarse, since it is added to a large number. The product of `start` and the factor
supplies the fraction; `start` is chosen among millions of integers. The rounded number fits an i32. Narrowing
instructions saturate it, so no clamp is needed.

A multiply-add that itself rounds to integers, as with an addend of 1.5 * 2**23, gives other bytes. Rounding
to f32 first would round twice, and each layer has sums in some channel for which this differs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.records import NamedTuple
from ovjit.tiles.sizes import FARTHEST_SUM, FINEST, FIRST

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

#: The bits of FIRST as an f32.
FIRST_BITS = int(np.float32(FIRST).view(np.int32))
#: Maximum products of a sum. The epilogue of longer sums takes a negligible part of the time.
MOST_DEPTH = 256
#: Maximum magnitude of numbers before rounding to an i32.
FARTHEST_ROUNDED = 1 << 30
#: Bits of a factor in the native code's fixed-point units, and the largest zero. Products fit 64 bits.
MOST_BITS, FARTHEST = 38, 1 << 61
#: int64s of the native code's memory: thresholds, and three for each step of Euclid's algorithm.
WORK_SPACE = 255 + 3 * 64


class Rounding(NamedTuple):
    """Per channel: the initial value of sums (i32), and the other two operands of the multiply-add (f32)."""

    first: np.ndarray
    factor: np.ndarray
    offset: np.ndarray


def rounded_body(dtype: str) -> Body:
    """The body of such an epilogue, of a sum, a factor and an offset."""
    lines = [
        ("a", "bits", ("x0",), "f32"), ("b", "fma", ("a", "x1", "x2"), "f32"),
        ("c", "round_int", ("b",), "i32"), ("d", "saturate", ("c",), dtype),
    ]  # fmt: skip
    return Body(["i32", "f32", "f32"], [dtype], lines, ["d"])


#: Operation -> a bound of |result| from bounds of its |inputs|; for Quantize, of what it rounds.
_MAGNITUDE: dict[str, Callable[..., float]] = {
    "Convert": lambda x: x, "Relu": lambda x: x, "Add": lambda x, y: x + y, "Multiply": lambda x, y: x * y,
    "MultiplyAdd": lambda x, factor, offset: x * factor + offset,
    "Quantize": lambda x, factor, zero: x * factor + zero,
}  # fmt: skip


def rounds_near(nodes: Sequence[Node], sums: Value, most: float) -> bool:
    """True if the last node is a Quantize with its type's full range, and its rounded numbers fit an i32. The
    preceding nodes compute its input from `sums`. `most`: a bound of |sums|."""
    last = nodes[-1]
    if last.op.name != "Quantize" or not holds_all(last):
        return False
    bounds = {sums: most}

    def bound(value: Value) -> float:
        if value in bounds:
            return bounds[value]
        if value.constant is not None:
            return float(np.abs(value.constant.astype(np.float64)).max(initial=0))
        return 256.0 if value.dtype in ("u8", "i8") else math.inf

    for node in nodes:
        rule = _MAGNITUDE.get(node.op.name) if node is last or node.output.dtype == "f32" else None
        bounds[node.output] = math.inf if rule is None else rule(*map(bound, node.inputs))
    return bounds[last.output] < FARTHEST_ROUNDED


def holds_all(node: Node) -> bool:
    """True for a Quantize whose limits are those of its type."""
    info = np.iinfo(numpy_dtype(node.attrs["element_type"]))
    return (node.attrs["low"], node.attrs["high"]) == (info.min, info.max)


def one_rounding(
    reach: np.ndarray, bias: np.ndarray, factor: np.ndarray, zero: np.ndarray, least: int
) -> Rounding | None:
    """The constants for sums that begin with `bias` and are within `reach`, [2, channels]: lower and upper
    bound. `factor` and `zero` are f32; `least`: the smallest byte. None if a channel has no such
    constants."""
    low, high = reach
    if np.any(low < -FARTHEST_SUM) or np.any(high >= FARTHEST_SUM):
        return None
    if not np.all((factor > 0) & (np.maximum(-low, high) * factor + np.abs(zero) < FARTHEST_ROUNDED)):
        return None
    mantissa, exponent = np.frexp(factor)
    # what is added to FIRST + start + sum, times the factor, is a multiple of 2**ulp
    ulp = np.maximum(exponent, np.frexp(np.abs(zero))[1] - 23).astype(np.int64)
    fine = np.maximum(24 - exponent, -FINEST).astype(np.int64)  # numbers below are in units of 2**-fine
    if np.any(fine > 46) or np.any(ulp + fine < 1) or np.any(ulp + fine > MOST_BITS):
        return None
    scale = np.ldexp(mantissa.astype(np.float64), exponent + fine)
    added = np.ldexp(zero.astype(np.float64), fine)
    if np.any(np.abs(added) >= FARTHEST):
        return None
    of_channels = np.stack([scale, np.floor(added), np.ceil(added), low, high, fine, ulp], 1).astype(np.int64)
    starts_and_offsets = np.zeros((len(factor), 2), np.int64)
    memory = np.zeros(WORK_SPACE, np.int64)
    memory[:255] = np.ldexp(borders(least), -FINEST)
    sizes = np.array((len(factor), least))
    addresses = (a.ctypes.data for a in (of_channels, starts_and_offsets, sizes, memory))
    if _choose_starts()(*addresses) < len(factor):
        return None
    starts, offsets = starts_and_offsets.T
    if np.any(np.abs(offsets) > 1 << 24):
        return None
    offset = np.ldexp(offsets.astype(np.float64), ulp).astype(np.float32)
    return Rounding((bias + starts + FIRST_BITS).astype(np.int32), factor, offset)


def borders(least: int) -> np.ndarray:
    """The 255 thresholds between the bytes `least`, `least` + 1, ... Numbers are rounded to f32 first, and
    then to bytes. Native code rounds a number at a threshold to the even byte."""
    number = np.arange(1, 256) + least
    half = (number - 0.5).astype(np.float32)
    # an f32 of exactly n + 1/2 is rounded to the even byte
    nearby = np.nextafter(half, np.where(number % 2 == 0, -np.inf, np.inf).astype(np.float32))
    return np.asarray((half.astype(np.float64) + nearby) / 2)


@functools.cache
def kernel() -> Kernel:
    """The kernel that chooses the numbers."""
    from ovjit.codegen.routines import routines

    steps = "ovjit.tiles.rounding_steps"
    return routines("choose_starts", ("choose_starts",), steps, key="choose starts")


@functools.cache
def _choose_starts() -> Callable[[int, int, int, int], int]:
    from ovjit.tiles import weave

    return weave.native(kernel())


def reach_of(matrix: np.ndarray) -> np.ndarray:
    """The smallest and largest possible sums, [2, G * O], of data of 0 to 255 times the weights [G, runs...,
    depth, O]. Weights of deep sums are not inspected: the widest possible range is returned."""
    groups, *deep, outs = matrix.shape
    if math.prod(deep) > MOST_DEPTH:
        return np.full((2, groups * outs), 255 * 128 * math.prod(deep)) * [[-1], [1]]
    along = tuple(range(1, matrix.ndim - 1))
    ends = (side.sum(along, dtype=np.int64) for side in (np.minimum(matrix, 0), np.maximum(matrix, 0)))
    return np.stack([255 * end.reshape(-1) for end in ends])
