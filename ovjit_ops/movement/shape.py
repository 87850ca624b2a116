"""Reshape, Transpose, Concat, Squeeze, Unsqueeze and ShapeOf."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ovjit.errors import ModelError, check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, Index, Int, TensorType, op
from ovjit.graph.shapes import (
    ANY,
    Dim,
    Interval,
    Shape,
    bounds,
    compatible,
    dim,
    is_static,
    merge,
    normalize_axis,
    text,
)
from ovjit.graph.symbolic import hull, sym_int
from ovjit.graph.traced import is_traced_number, whole_numbers
from ovjit_ops.common.images import all_images, images_of, moved_images
from ovjit_ops.common.values import given_rank, length, partial_dims, shape_value, with_value
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS, cases

MOVABLE = [*NUMBERS, "boolean"]


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _at_least(total: Dim, per: int) -> Dim:
    """The bounds of the integer quotient whole / per."""
    lo, hi = bounds(total)
    lo = -(-lo // per)
    return dim(lo, None if hi is None else max(lo, hi // per))


def _copied_dims(shape: tuple[Dim, ...] | None, pattern: Sequence[int], special_zero: bool) -> list[Dim]:
    """The pattern, with zeros replaced by dimensions of `shape` if `special_zero`."""
    low = next((i for i, p in enumerate(pattern) if p < -1), None)
    if low is not None:
        raise ModelError(f"Output pattern dim[{low}] has invalid bounds: {pattern[low]},{pattern[low]}")
    check(list(pattern).count(-1) <= 1, f"More than one dimension has size of -1: {list(pattern)}")
    out: list[Dim] = []
    for i, p in enumerate(pattern):
        copies = p == 0 and special_zero
        check(
            not copies or shape is None or i < len(shape),
            f"'0' dimension is out of range: the pattern {list(pattern)} copies dimension {i}",
        )
        out.append((ANY if shape is None else shape[i]) if copies else sym_int(p))
    return out


def _what_is_left(before: Sequence[Dim], after: int, shape: tuple[Dim, ...], pattern: Sequence[int]) -> Dim:
    """The dimension for -1: the product of the input's dimensions `before`, divided by `after`."""
    if not is_static(before):
        return _at_least(math.prod(before), after or 1)
    total = math.prod(before)
    check(
        after == 0 and total == 0 or after and total % after == 0,
        f"Non-'-1' output dimensions do not evenly divide the input dimensions: {text(shape)} has "
        f"{total} elements, the pattern is {list(pattern)}",
    )
    return total // after if after else 0


def reshape_dims(
    shape: tuple[Dim, ...] | None, pattern: Sequence[int], special_zero: bool
) -> tuple[Dim, ...]:
    """The output shape for `pattern`: -1 is the remaining extent, 0 (if `special_zero`) copies the dimension.

    Raises ModelError if the numbers of elements differ.
    """
    out = _copied_dims(shape, pattern, special_zero)
    if shape is None:
        return tuple(ANY if d == -1 else d for d in out)
    # copied dimensions are on both sides and cancel, also dynamic ones and zeros; so do zeros at the same
    # place
    copied = [i for i, p in enumerate(pattern) if p == 0 and (special_zero or shape[i : i + 1] == (0,))]
    before = [d for i, d in enumerate(shape) if i not in copied]
    product_after = math.prod(p for i, p in enumerate(pattern) if i not in copied and p != -1)
    if -1 in pattern:
        out[list(pattern).index(-1)] = _what_is_left(before, product_after, shape, pattern)
    elif is_static(shape) and is_static(out):
        total, requested = math.prod(shape), math.prod(out)
        check(
            total == requested,
            f"Requested output shape [{','.join(map(str, pattern))}] is incompatible with input shape "
            f"{text(shape)}: it has {total} elements, the pattern {requested}",
        )
    elif is_static(before):
        check(
            0 in (shape[i] for i in copied) or math.prod(before) == product_after,
            f"{text(shape)} cannot be reshaped to the pattern {list(pattern)}",
        )
    return tuple(out)


@op(
    "Reshape",
    opset=1,
    types=MOVABLE,
    lower=".cpu_views:Reshaped",
    images=images_of(0),
    dims_input=1,
    bounds=(1,),
)
class Reshape:
    """The same elements, in row-major order, in another shape."""

    def infer(data, pattern, *, special_zero: Bool = False):
        integral = "PartialShape pattern must be an integral number."
        values = shape_value(pattern, "the pattern", integral, "Pattern shape must have rank 1")
        if values is None:
            rank = given_rank(pattern)
            dims = partial_dims(pattern)
            if dims is not None:
                return TensorType(data.dtype, _reshaped_to(data.shape, dims, special_zero))
            return TensorType(data.dtype, None if rank is None else (ANY,) * rank)
        shape = reshape_dims(data.shape, whole_numbers(values), special_zero)
        out = TensorType(data.dtype, shape)
        return with_value(out, lambda x: x.reshape(shape), data, partially=True) if is_static(shape) else out

    def ref(data, pattern, *, special_zero=False):
        return data.reshape(reshape_dims(data.shape, pattern.reshape(-1).tolist(), special_zero))

    samples = cases(
        ((2, 3, 4), [4, -1], {"special_zero": False}),
        ((2, 3, 4), [0, -1], {"special_zero": True}),
        ((6,), [2, 1, 3], {"special_zero": False}),
        ((1,), [], {"special_zero": False}),
        ((), [1, 1], {"special_zero": False}),
        ((0, 3), [3, 0], {"special_zero": False}),
        ((2, 3, 4), [0, 0, 2, 2], {"special_zero": True}),
        ((0, 3), [0, 3, -1], {"special_zero": True}),
    )


def _reshaped_to(shape: Shape | None, dims: Sequence[Dim], special_zero: bool) -> Shape:
    """The output shape for a pattern with dynamic dimensions."""
    out: list[Dim] = []
    for i, d in enumerate(dims):
        before = shape[i] if shape is not None and i < len(shape) else ANY
        if isinstance(d, Interval):
            # 0 may copy the dimension of the data, -1 may be the remaining extent
            out.append(ANY if d.lo < 0 else hull(d, before) if d.lo == 0 and special_zero else d)
        elif d >= 0:
            out.append(before if d == 0 and special_zero else d)
        else:
            out.append(ANY)
    open_axes = [i for i, d in enumerate(dims) if bounds(d)[0] < 0]
    if shape is not None and len(open_axes) == 1 and dims[open_axes[0]] == -1:
        fixed = out[: open_axes[0]] + out[open_axes[0] + 1 :]
        (low, high), (least, most) = bounds(math.prod(shape)), bounds(math.prod(fixed))
        # copied dimensions may be 0 on both sides
        low = 0 if most is None else -(-low // most) if most else 0
        out[open_axes[0]] = dim(low, None if high is None or not least else max(low, high // least))
    return tuple(out)


@op("Transpose", opset=1, types=MOVABLE, lower=".cpu_views:Transposed", images=moved_images)
class Transpose:
    """Permutes the dimensions: out[i...] = data[i permuted]. An empty order reverses them."""

    def infer(data, input_order):
        integral = "Input order must have an integral number element type."
        order = shape_value(input_order, "input_order", integral, "Input order must be a vector.")
        check(input_order.rank != 0, f"Input order must be a vector. The input order is {input_order}")
        count = length(input_order)
        check(
            count in (None, 0) or data.rank in (None, count),
            f"Input order must have shape [n], where n is the rank of arg. Input order has {count} "
            f"elements for {data}",
        )
        if order is None and data.rank == 0:
            check(count in (None, 0), f"a scalar has no dimensions to transpose: {input_order}")
        if data.shape is None or order is None:
            rank = data.rank if data.rank is not None else (given_rank(input_order) or None)
            return TensorType(data.dtype, None if rank is None else (ANY,) * rank)
        axes = permutation(order, len(data.shape), text(data.shape))
        out = TensorType(data.dtype, tuple(data.shape[a] for a in axes))
        return with_value(out, lambda x: x.transpose(axes), data, partially=True)

    def ref(data, input_order):
        return data.transpose(permutation(input_order, data.ndim)).copy(order="C")

    samples = cases(
        ((7, 8), [1, 0]),
        ((17, 33), []),
        ((2, 3, 4), [2, 0, 1]),
        ((1, 5, 7, 8), [0, 2, 3, 1]),
        ((1, 7, 8, 16), [0, 3, 1, 2]),
        ((0, 3), [1, 0]),
        ((5,), [0]),
        ((2, 3, 4, 5, 6), [4, 2, 0, 1, 3]),
    )


def permutation(order: np.ndarray, rank: int, shape: str = "") -> tuple[int, ...]:
    """`order` as a tuple; the reverse order if empty. Raises ModelError, naming `shape`, for other than a
    permutation."""
    axes = tuple(int(a) for a in np.asarray(order).reshape(-1)) or tuple(reversed(range(rank)))
    check(
        sorted(axes) == list(range(rank)),
        f"Permutation AxisVector{{{', '.join(map(str, axes))}}} is not valid for input shape "
        f"{shape or f'of rank {rank}'}",
    )
    return axes


@op(
    "Concat", opset=1, types=MOVABLE, lower=".cpu_views:Concatenated",
    images=all_images("axis"),
)  # fmt: skip
class Concat:
    """Concatenates the inputs along `axis`."""

    def infer(*args, axis: Int):
        check(args, "at least one input is needed")
        dtypes = {x.dtype for x in args} - {"dynamic"}
        check(len(dtypes) <= 1, f"Argument element types are inconsistent. {', '.join(sorted(dtypes))}")
        dtype = dtypes.pop() if dtypes else "dynamic"
        ranks = {x.rank for x in args} - {None}
        check(
            len(ranks) <= 1,
            "Argument shapes are inconsistent; they must have the same rank, and must have equal dimension "
            f"everywhere except on the concatenation axis (axis {axis}). {', '.join(map(repr, args))}",
        )
        if not ranks:
            return TensorType(dtype, None)
        rank = ranks.pop()
        check(rank, "Accessing out-of-range dimension: scalars cannot be concatenated")
        along = normalize_axis(axis, rank)
        out: list[Dim] = [ANY] * rank
        total: Dim = 0
        for x in args:
            total = total + (ANY if x.shape is None else x.shape[along])
            for i, d in enumerate(x.shape or ()):
                both = d if i == along else merge(out[i], d)
                if both is None:  # formatting the message takes as long as all of inference
                    check(
                        False,
                        "Argument shapes are inconsistent; they must have the same rank, and must have equal "
                        f"dimension everywhere except on the concatenation axis (axis {along}). "
                        f"{', '.join(map(repr, args))}",
                    )
                out[i] = both  # type: ignore[assignment]
        out[along] = total
        return with_value(TensorType(dtype, out), lambda *x: np.concatenate(x, along), *args, partially=True)

    def ref(*args, axis):
        return np.concatenate(args, axis)

    samples = cases(
        ((7,), (9,), {"axis": 0}),
        ((2, 3), (2, 16), (2, 1), {"axis": 1}),
        ((1, 5, 4, 4), (1, 17, 4, 4), {"axis": 1}),
        ((2, 3), (5, 3), {"axis": -2}),
        ((0, 3), (2, 3), {"axis": 0}),
        ((3, 4), {"axis": 0}),
    )


def _squeeze_shape(shape: tuple[Dim, ...], axes: Sequence[int] | None, skip: bool) -> tuple[Dim, ...] | None:
    """The shape without `axes` (None: without all dimensions of 1). None if that depends on dynamic
    dimensions."""
    if not axes:  # an empty list means the same as None
        return None if not is_static(shape) else tuple(d for d in shape if d != 1)
    normal = {normalize_axis(int(a), len(shape)) for a in axes}
    if not shape:
        return shape
    if skip:
        if any(isinstance(shape[a], Interval) and compatible(shape[a], 1) for a in normal):
            return None
        return tuple(d for i, d in enumerate(shape) if i not in normal or d != 1)
    # as in OpenVINO, dimensions that are known not to be 1 are kept
    return tuple(d for i, d in enumerate(shape) if i not in normal or not compatible(d, 1))


#: OpenVINO's message for axes of Squeeze and Unsqueeze of rank 2 or higher.
_NOT_HIGHER = "Second input (axes) should not be of rank higher than 1. Got: {rank}"


def _infer_squeeze(data: TensorType, axes: TensorType | None, skip: bool) -> TensorType:
    if axes is not None and axes.dtype in REALS:  # OpenVINO accepts them: Python's empty list is f64
        value = None if axes.value is None else np.asarray(axes.value).astype(np.int64)
        axes = TensorType("i64", axes.shape, value)
    values = None if axes is None else shape_value(axes, "axes", flat=_NOT_HIGHER)
    if data.shape is None or (axes is not None and values is None):
        return TensorType(data.dtype, None)
    shape = _squeeze_shape(data.shape, None if values is None else [int(v) for v in values], skip)
    out = TensorType(data.dtype, shape)
    return with_value(out, lambda x: x.reshape(out.shape), data, partially=True)


def _squeeze(
    data: np.ndarray, axes: np.ndarray | None = None, *, allow_axis_skip: bool = False
) -> np.ndarray:
    named = None if axes is None else axes.reshape(-1).astype(np.int64).tolist()
    shape = _squeeze_shape(data.shape, named, allow_axis_skip)
    assert is_static(shape)
    return data.reshape(shape)


@op("Squeeze", opset=1, types=MOVABLE, lower=".cpu_views:Reshaped", images=images_of(0))
class Squeeze1:
    """Removes the dimensions `axes`, which are 1. Without axes, removes all dimensions of 1."""

    def infer(data, axes=None):
        return _infer_squeeze(data, axes, False)

    ref = _squeeze
    samples = cases(
        ((1, 5, 1), [0]),
        ((1, 5, 1), [0, -1]),
        ((1, 5, 1, 7), [2]),
        ((1,), [0]),
        ((1, 0), [0]),
        ((), [0]),
        ((), [-1]),
        ((1, 5, 1),),
    )


@op("Squeeze", opset=15, like=Squeeze1)
class Squeeze15:
    """Squeeze-1 with `allow_axis_skip`: `axes` may have dimensions other than 1, which are kept. The rank is
    unknown while they are dynamic."""

    def infer(data, axes=None, *, allow_axis_skip: Bool = False):
        return _infer_squeeze(data, axes, allow_axis_skip)


def _unsqueeze_shape(shape: tuple[Dim, ...], axes: Sequence[int]) -> tuple[Dim, ...]:
    named = set(axes)  # duplicates, also as -1 and rank - 1, are one new dimension
    normal = {normalize_axis(a, len(shape) + len(named)) for a in named}
    rank = len(shape) + len(normal)
    check(max(normal) < rank, f"axes {sorted(named)} are out of range for a result of rank {rank}")
    extents = iter(shape)
    return tuple(1 if i in normal else next(extents) for i in range(rank))


@op("Unsqueeze", opset=1, types=MOVABLE, lower=".cpu_views:Reshaped", images=images_of(0))
class Unsqueeze:
    """Inserts dimensions of 1 at `axes` of the result."""

    def infer(data, axes):
        values = shape_value(axes, "axes", flat=_NOT_HIGHER)
        check(values is None or values.size, "'axes' input is mandatory")
        if data.shape is None or values is None:
            more = given_rank(axes)
            unknown = data.rank is None or more is None
            return TensorType(data.dtype, None if unknown else (ANY,) * (data.rank + more))
        shape = _unsqueeze_shape(data.shape, [int(v) for v in values])
        return with_value(TensorType(data.dtype, shape), lambda x: x.reshape(shape), data, partially=True)

    def ref(data, axes):
        return data.reshape(_unsqueeze_shape(data.shape, axes.reshape(-1).tolist()))

    samples = cases(((5,), [0]), ((5, 7), [1, -1]), ((2, 3), [0, 3]), ((0, 3), [1]), ((5,), [-1]))


def _shape_of(data: TensorType, output_type: str) -> TensorType:
    shape = (ANY,) if data.rank is None else (data.rank,)
    if is_static(data.shape) or data.shape is None:
        if data.shape is not None and any(map(is_traced_number, data.shape)):
            return TensorType(output_type, shape, _objects(data.shape))
        value = None if data.shape is None else np.array(data.shape, dtype=numpy_dtype(output_type))
        return TensorType(output_type, shape, value)
    return TensorType(output_type, shape, None, _objects(data.shape))


def _objects(dims: Sequence[Dim]) -> np.ndarray:
    out = np.empty(len(dims), object)
    out[:] = dims
    return out


_SHAPES = [((),), ((5,),), ((2, 3, 4),), ((0, 3),)]


@op("ShapeOf", opset=1, types=MOVABLE, role="shape")
class ShapeOf1:
    """The shape of the data, as i64."""

    def infer(data):
        return _shape_of(data, "i64")

    def ref(data, *, output_type="i64"):
        return np.array(data.shape, dtype=numpy_dtype(output_type))

    samples = cases(*_SHAPES)


@op("ShapeOf", opset=3, like=ShapeOf1)
class ShapeOf3:
    """The shape of the data, as i64 or i32."""

    def infer(data, *, output_type: Index = "i64"):
        return _shape_of(data, output_type)

    samples = cases(*_SHAPES, each=[{"output_type": "i64"}, {"output_type": "i32"}])
