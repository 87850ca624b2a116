"""Element types: Convert, ConvertLike, ConvertPromoteTypes, FakeConvert, FakeQuantize.

Floats become integers as in the CPU's instructions: truncated towards zero. NaN and numbers out of range
become the smallest integer of 32 bits, or of 64 bits for i64, u64 and u32. Narrower types keep its low bits.
Integers keep their low bits. All values but zero, NaN included, become True. Floats of 8 and 4 bits are in
`small_floats`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import ModelError, UnsupportedError, check
from ovjit.graph.dtypes import ELEMENT_TYPES, decode, from_numpy, numpy_dtype, truncate_to
from ovjit.graph.op import Bool, DType, Int, TensorType, Word, op
from ovjit.graph.shapes import bounds, broadcast, compatible_shapes
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.values import in_f32, operands_as_first, with_value
from ovjit_ops.elementwise.arithmetic import REALS, same_type, unary
from ovjit_ops.elementwise.small_floats import SMALL_FLOATS

CONVERTIBLE = [*"f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64 boolean".split()]
WIDE = frozenset(("i64", "u64", "u32"))


#: Integer types of traced numbers, which have no bounds.
TRACED = frozenset("i32 i64 u32 u64".split())


def convert(x: np.ndarray, to: str) -> np.ndarray:
    """`x` converted to element type `to`, by the rules of this module."""
    target = numpy_dtype(to)
    source = np.asarray(x)
    if source.dtype.hasobject and to in TRACED:
        return source
    if source.dtype != target:
        source = decode(source)
    if to == "boolean":
        return source != 0
    if target.kind in "iu" and source.dtype.kind not in "iub":
        floats = source.astype(np.float64)
        if to == "u64":
            high = (floats >= 2.0**63) & (floats < 2.0**64)
            low = truncate_to(np.where(high, floats - 2.0**63, floats), np.int64).astype(np.uint64)
            return np.where(high, low + np.uint64(2**63), low)
        return truncate_to(floats, np.int64 if to in WIDE else np.int32).astype(target)
    if to in SMALL_FLOATS:
        return source if source.dtype == target else SMALL_FLOATS[to](source)
    if ELEMENT_TYPES[to].bits < 8 and source.dtype.kind in "f":
        return truncate_to(source.astype(np.float64), np.int32).astype(np.int8).astype(target)
    return source.astype(target)


def convert_body(x: Any, to: str) -> Any:
    """`convert` for one element or tracer."""
    if not t.is_float(x) or ELEMENT_TYPES[to].kind not in "iu":
        return t.cast(x, to)
    bound = 2.0**63 if to in WIDE else 2.0**31
    if to == "u64":
        high = (x >= bound) & (x < 2 * bound)
        low = t.cast(
            t.cast(t.where((x >= -bound) & (x < bound), x, t.where(high, x - bound, -bound)), "i64"), "u64"
        )
        return t.where(high, low + 2**63, low)
    return t.cast(t.trunc_or_min(x, "i64" if to in WIDE else "i32"), to)


def _holds(dtype: str, numbers: np.ndarray) -> bool:
    """Whether element type `dtype` represents these partially known integers exactly."""
    ends = [abs(end) for x in numbers.reshape(-1).tolist() for end in bounds(x) if end is not None]
    return dtype in ("i32", "i64") or (dtype in ("f32", "f64") and max(ends, default=0) <= 2**24)


@op("Convert", opset=1, types=CONVERTIBLE)
class Convert:
    """Converts the data to another element type."""

    def infer(data, *, destination_type: DType):
        check(data.dtype != "string" and destination_type != "string", "strings cannot be converted")
        if data.partial is not None and _holds(destination_type, data.partial):
            return TensorType(destination_type, data.shape, None, data.partial)
        out = TensorType(destination_type, data.shape)
        if destination_type == "dynamic":  # nodes may have it, compiled graphs may not
            return out
        return with_value(out, convert, data, to=destination_type)

    def ref(data, *, destination_type):
        return convert(data, destination_type)

    def scalar(x, *, destination_type):
        return convert_body(x, destination_type)

    def expand(w, node, inputs):
        """Convert(Convert(x) to f8) to a float -> Saturated(x), without a tensor of 8-bit floats"""
        (x,) = inputs
        if x.dtype not in _HELD or node.output.dtype not in REALS or x.node.op.name != "Convert":
            return None
        if x.node.inputs[0].dtype not in REALS:
            return None
        x32 = w("Convert", x.node.inputs[0], destination_type="f32")
        rounded = w("Saturated", x32, destination_type=x.dtype)
        return [w("Convert", rounded, destination_type=node.output.dtype)]


@op("ConvertLike", opset=1, types=CONVERTIBLE)
class ConvertLike:
    """Converts the data to the element type of `like`."""

    def infer(data, like):
        out = TensorType(like.dtype, data.shape)
        return out if like.dtype == "dynamic" else with_value(out, lambda x: convert(x, like.dtype), data)

    def ref(data, like):
        return convert(data, from_numpy(like.dtype))

    def expand(w, node, inputs):
        """ConvertLike(x, like: T) -> Convert(x) to T"""
        attrs = {"destination_type": inputs[1].dtype}
        return w.b.add("Convert", inputs[:1], attrs, origins=node.origins).outputs


def _identity(x: Any) -> Any:
    return x


def _infer_identity(data: TensorType) -> TensorType:
    return with_value(same_type(data, CONVERTIBLE), _identity, data, partially=True)


unary(
    "Identity",
    _identity,
    _identity,
    opset=16,
    types=CONVERTIBLE,
    infer=_infer_identity,
)


def promote_types(a: TensorType, b: TensorType, unsafe: bool, scalars: bool, u64_target: str) -> str:
    """The common element type of two tensors; "dynamic" if it depends on an unknown rank. Raises ModelError
    if only an unsafe one exists and `unsafe` is not set."""
    x, y = a.dtype, b.dtype
    if "dynamic" in (x, y):
        return "dynamic"
    if x == y:
        return x
    rows = ELEMENT_TYPES[x], ELEMENT_TYPES[y]
    for row in rows:
        check(row.kind in "fiub", f"{row.name} cannot be promoted")
    common = _common(rows[0], rows[1], unsafe, u64_target)
    if scalars and None in (a.rank, b.rank):
        return _promoted_at_any_rank(a, b, unsafe, u64_target)
    if scalars and a.rank is not None and b.rank is not None and (a.rank == 0) != (b.rank == 0):
        # the scalar takes the tensor's type, unless its kind is higher: boolean, integer, float
        level = ["b", "i", "f"]
        kinds = ["i" if row.kind == "u" else row.kind for row in rows]
        scalar, tensor = (0, 1) if a.rank == 0 else (1, 0)
        if level.index(kinds[scalar]) <= level.index(kinds[tensor]):
            target = rows[tensor].name
        elif kinds[scalar] == "f":
            target = rows[scalar].name
        else:
            target = common if common else rows[scalar].name
        row, to = rows[scalar], rows[tensor]
        # an unsigned scalar may also take a signed type of at least half its width
        follows = {row.name, to.name} == {"bf16", "f16"} or (
            row.kind + to.kind == "ui" and row.bits <= 2 * to.bits
        )
        check(
            unsafe or target == common or follows,
            f"the scalar of {x}, {y} cannot be promoted as PyTorch does by safe rules; set promote_unsafe",
        )
        return target
    check(common is not None, f"{x} and {y} have no safe common type; set promote_unsafe")
    return str(common)


def _promoted_at_any_rank(a: TensorType, b: TensorType, unsafe: bool, u64_target: str) -> str:
    """The type that scalars and tensors of unknown rank have in common, else "dynamic". Raises ModelError if
    there is none for any rank."""
    ways = [[TensorType(x.dtype, s) for s in ((), (1,)) if x.rank in (None, len(s))] or [x] for x in (a, b)]
    types: set[str] = set()
    refused: list[ModelError] = []
    for x, y in itertools.product(*ways):
        try:
            types.add(promote_types(x, y, unsafe, True, u64_target))
        except ModelError as error:
            refused.append(error)
    if not types:
        raise refused[0]
    return types.pop() if len(types) == 1 and not refused else "dynamic"


def _common(a: Any, b: Any, unsafe: bool, u64_target: str) -> str | None:
    """The common type of two element types; None if only an unsafe one exists."""
    if a.kind == "b":
        return str(b.name)
    if b.kind == "b":
        return str(a.name)
    if a.kind == b.kind == "f":
        if {a.name, b.name} == {"bf16", "f16"}:
            return "f32" if unsafe else None
        wider = a if a.bits > b.bits else b
        return str(wider.name)
    if "f" in (a.kind, b.kind):
        real, integer = (a, b) if a.kind == "f" else (b, a)
        return str(real.name) if unsafe or real.bits > integer.bits else None
    if a.kind == b.kind:
        return str((a if a.bits > b.bits else b).name)
    unsigned, signed = (a, b) if a.kind == "u" else (b, a)
    if signed.bits > unsigned.bits:
        return str(signed.name)
    if unsigned.bits < 64:
        return f"i{max(signed.bits, unsigned.bits * 2)}" if unsafe else None
    return u64_target if unsafe else None


@op("ConvertPromoteTypes", opset=14, types=CONVERTIBLE)
class ConvertPromoteTypes:
    """Converts two tensors to their common element type."""

    def infer(
        left_node, right_node, *, promote_unsafe: Bool = False, pytorch_scalar_promotion: Bool = False,
        u64_integer_promotion_target: DType = "f32",
    ):  # fmt: skip
        to = promote_types(
            left_node, right_node, promote_unsafe, pytorch_scalar_promotion, u64_integer_promotion_target
        )
        return TensorType(to, left_node.shape), TensorType(to, right_node.shape)

    def ref(left, right, **attrs):
        a, b = (TensorType(from_numpy(x.dtype), x.shape) for x in (left, right))
        to = promote_types(a, b, *(attrs[k] for k in _PROMOTION))
        return convert(left, to), convert(right, to)

    def expand(w, node, inputs):
        """ConvertPromoteTypes(x, y) -> Convert(x), Convert(y)"""
        if node.output.dtype == "dynamic":
            what = " and ".join(str(x.type) for x in inputs)
            raise UnsupportedError(
                f"node {node.name!r} ({node.op.name}): the common element type of {what} depends on their "
                "ranks, of which one is unknown. Reshape that input to a known rank"
            )
        attrs = {"destination_type": node.output.dtype}
        return [w.b.add("Convert", [x], attrs, origins=node.origins).output for x in inputs]


_PROMOTION = ("promote_unsafe", "pytorch_scalar_promotion", "u64_integer_promotion_target")


def _nearest(x: Any, bits: int, least: int) -> Any:
    """`x`, finite or NaN, rounded to `bits` explicit mantissa bits, ties to even. Numbers below 2**least are
    rounded to the steps of 2**least, as subnormals."""
    real = t.dtype(x)
    int_type, sign, drop = ("i64", -(1 << 63), 52 - bits) if real == "f64" else ("i32", -(1 << 31), 23 - bits)
    pattern = t.bits(x, int_type)
    normal = t.bits((pattern + ((1 << drop - 1) - 1) + ((pattern >> drop) & 1)) & -(1 << drop), real)
    sum_of_steps = 1.5 * 2.0 ** (least + drop)  # adding it rounds to these steps
    small = t.bits(t.bits((x + sum_of_steps) - sum_of_steps, int_type) | (pattern & sign), real)
    return t.where(t.absolute(x) < 2.0**least, small, t.where(t.isnan(x), x, normal))


#: Type -> (largest number, explicit mantissa bits, exponent of the smallest normal number).
_HELD = {"f8e4m3": (448.0, 3, -6), "f8e5m2": (57344.0, 2, -14)}


@op("Saturated", opset=1, types=("f32",), internal=True, ulp=0)
class Saturated:
    """Data rounded to an 8-bit float type through f16, as in `small_floats`. NaN is kept."""

    words = {"destination_type": _HELD}

    def infer(data, *, destination_type: DType):
        return same_type(data, REALS)

    def ref(data, *, destination_type):
        with np.errstate(over="ignore", invalid="ignore"):
            return SMALL_FLOATS[destination_type](data).astype(data.dtype)

    def scalar(x, *, destination_type):
        high, bits, least = _HELD[destination_type]
        value = _nearest(_nearest(x, 10, -14), bits, least)
        # f8e4m3 has no infinity
        return t.where(t.absolute(value) > high, value * np.inf if high > 448 else np.nan, value)


@op("FakeConvert", opset=13, types=REALS, part="keep")
class FakeConvert:
    """Data as an 8-bit float type represents them: scaled, shifted, saturated, rounded (through f16), and
    back."""

    words = {"destination_type": _HELD}

    def infer(data, scale, shift=None, *, destination_type: DType = "f8e4m3"):
        check_type(data, REALS)
        for name, x in (("scale", scale), ("shift", shift)):
            check_same_type(x, data, name)
            if x is not None and None not in (data.shape, x.shape):
                fits = compatible_shapes(broadcast(data.shape, x.shape), data.shape)
                check(fits, f"{name} {x} cannot be broadcast to {data}")
        return TensorType(data.dtype, data.shape)

    def ref(data, scale, shift=None, *, destination_type="f8e4m3"):
        kind = numpy_dtype(destination_type)
        high = _HELD[destination_type][0]
        floats = [x.astype(np.float32) if x.dtype.itemsize < 4 else x for x in (data, scale)]
        offset = 0 if shift is None else shift.astype(floats[0].dtype)
        moved = floats[0] * floats[1] - offset
        value = np.clip(moved, -high, high).astype(np.float16).astype(kind).astype(floats[0].dtype)
        return ((value + offset) / floats[1]).astype(data.dtype)

    def scalar(x, scale, shift=0.0, *, destination_type):
        high, bits, least = _HELD[destination_type]
        moved = x * scale - shift
        inside = t.minimum(t.maximum(moved, -high), high)
        value = _nearest(_nearest(inside, 10, -14), bits, least)
        return (value + shift) / scale


@op(
    "FakeQuantize", opset=1, types=REALS, ulp=16, rules=[operands_as_first], rules_for=["FakeQuantize"],
    in_real=5, part="keep",
)  # fmt: skip
class FakeQuantize:
    """Clips the data to the input range, rounds to one of `levels`, and maps to the output range."""

    words = {"auto_broadcast": "numpy none"}

    def infer(
        data, input_low, input_high, output_low, output_high, *, levels: Int, auto_broadcast: Word = "numpy"
    ):
        check(levels >= 2, f"levels {levels} should be at least 2")
        check_type(data, REALS)
        limits = (input_low, input_high, output_low, output_high)
        for limit in limits:
            check(limit.dtype in (*CONVERTIBLE, "dynamic"), f"the limit {limit} should have a numeric type")
        return TensorType(data.dtype, broadcast(data.shape, *(x.shape for x in limits)))

    @in_f32
    def ref(x, *limits, levels, auto_broadcast="numpy"):
        steps = x.dtype.type(levels - 1)
        input_low, input_high, output_low, output_high = (limit.astype(x.dtype) for limit in limits)
        scaled = np.rint((x - input_low) / (input_high - input_low) * steps)
        inner = scaled / steps * (output_high - output_low) + output_low
        below = x <= np.minimum(input_low, input_high)
        above = x > np.maximum(input_low, input_high)
        return np.where(below, output_low, np.where(above, output_high, inner)).astype(x.dtype)

    def scalar(x, input_low, input_high, output_low, output_high, *, levels, auto_broadcast="numpy"):
        steps = float(levels - 1)
        # For steps that are powers of 2, only this rounds, with ties to even, as in OpenVINO's kernels. `ref`
        # follows OpenVINO's constant folding.
        scaled = t.round_even((x - input_low) * (steps / (input_high - input_low)))
        inner = scaled * ((output_high - output_low) / steps) + output_low
        below = x <= t.minimum(input_low, input_high)
        return t.where(below, output_low, t.where(x > t.maximum(input_low, input_high), output_high, inner))
