"""Operators that make, move, select and convert elements."""

from __future__ import annotations

from ovjit.build.builder import MOST_ELEMENTS
from ovjit.readers.numerics.cumulative import running_in_order
from ovjit.readers.onnx.rule_language import *

# -- constants -----------------------------------------------------------------------------------------------


@onnx_op("Constant")
def constant(n: OnnxNode) -> Any:
    value_names = list(n.attributes)
    if len(value_names) != 1:
        raise ModelError(f"a Constant has one value; {len(value_names)} are given")
    name, value = value_names[0], n.attributes[value_names[0]]
    if name == "value":
        return n.reader.constant(value, scope=n.scope)
    if name == "sparse_value":
        return n.reader.sparse_constant(value)
    if name in ("value_string", "value_strings"):
        return n.const(np.array(value, dtype=object), "string")
    dtype = "f32" if name in ("value_float", "value_floats") else "i64"
    return n.const(np.asarray(value, np.float32 if dtype == "f32" else np.int64), dtype)


@onnx_op("ConstantOfShape")
def constant_of_shape(n: OnnxNode) -> Any:
    value = n.attr("value")
    fill = n.const(np.float32(0)) if value is None else n.reader.constant(value)
    if n.size(n.static_shape(fill)) != 1:
        raise ModelError("the value should have one element")
    return n.broadcast(n.scalar(fill), n.convert(n[0], "i64"))


@onnx_op("MemcpyFromHost")
@onnx_op("MemcpyToHost")
@onnx_op("Identity")
def identity(n: OnnxNode) -> Any:
    value = n.inputs[0]
    if isinstance(value, TensorList):
        return [TensorList(value, value.element_type)]
    if isinstance(value, (LoopSequence, OpenOptional)):
        return [value]
    return value if value is EMPTY else n.same(n[0])


def _diagonal_offsets(n: OnnxNode, x: Output) -> Output:
    """column - row of every element of the last two dimensions, as i64 [rows, columns]"""
    shape = n.shape(x)
    ends = None if shape is None else shape[-2:]
    if is_static(ends) and ends[0] * ends[1] <= MOST_ELEMENTS:
        return n.const(np.arange(ends[1])[None, :] - np.arange(ends[0])[:, None])
    sizes = n.shape_of(x)
    last = [n("Gather", sizes, i, 0) for i in (-2, -1)]
    rows, columns = (n.upto(end) for end in last)
    return n("Subtract", columns, n.unsqueeze(rows, [1]))


@onnx_op("EyeLike")
def eye_like(n: OnnxNode) -> Any:
    kind = n.data_type("dtype") if n.attr("dtype") is not None else n.dtype(n[0])
    return n.convert(n("Equal", _diagonal_offsets(n, n[0]), n.attr("k")), kind)


@onnx_op("Trilu")
def trilu(n: OnnxNode) -> Any:
    x = n[0]
    k = n.const(0) if not n.has(1) else n.scalar(n[1])
    keep = n("GreaterEqual" if n.attr("upper") else "LessEqual", _diagonal_offsets(n, x), k)
    return n("Select", keep, x, n.blank(x))


# -- types ---------------------------------------------------------------------------------------------------


def cast(n: OnnxNode, x: Output, kind: str) -> Output:
    """`x` as another element type: to boolean is "not 0"; numbers beyond an 8-bit float's largest become
    that."""
    if "string" in (kind, n.dtype(x)) and kind != n.dtype(x):
        from ovjit.readers.onnx.text import cast_text

        x = cast_text(n, x, kind)
        if n.dtype(x) == kind:
            return x
    return to_float8(n, x, kind) if kind in LARGEST else n("Convert", x, destination_type=kind)


#: The largest values of the small floating-point types.
LARGEST = {"f8e4m3": 448.0, "f8e5m2": 57344.0, "f4e2m1": 6.0, "f8e8m0": 2.0**127}
#: The numbers from which on a value rounds to more than the largest, and what it is then.
_BEYOND = {"f8e4m3": (464.0, np.nan), "f8e5m2": (61440.0, np.inf)}


#: Bits of the mantissa, and the exponents of the smallest normal number and of the largest.
_GRIDS = {"f8e4m3": (3, -6, 8), "f8e5m2": (2, -14, 15), "f4e2m1": (1, 0, 2)}


def _on_grid(n: OnnxNode, x: Output, kind: str) -> Output:
    """f32 or f64 values rounded to the nearest values of a small type, ties to even. OpenVINO's conversion
    rounds to f16 first, where others become ties."""
    bits, low, high = _GRIDS[kind]
    exponents = np.arange(low, high + 1)
    size = n.convert(n("Abs", x), "f32")
    exponent_index = n("Bucketize", size, np.exp2(exponents[1:]).astype(np.float32), output_type="i32",
              with_right_bound=False)  # fmt: skip
    step = n("Gather", n.const(np.exp2(exponents - bits), n.dtype(x)), exponent_index, 0, opset=8)
    return n("Multiply", n("Round", n("Divide", x, step), mode="half_to_even"), step)


def to_float8(n: OnnxNode, x: Output, kind: str) -> Output:
    """`x` in a small floating-point type. Saturating, as by default, what is larger becomes the largest
    value;
    otherwise NaN or infinity."""
    if kind == n.dtype(x):
        return n("Identity", x)
    if kind == "f8e8m0":
        return _to_powers(n, n.convert(x, "f32"))
    if n.dtype(x) not in ("f32", "f16", "bf16", "f64"):
        x = n.convert(x, "f32")
    if kind == "f4e2m1":  # saturates by itself, and what is no number would be the largest
        x = n("Select", n("IsNaN", x, opset=10), n.like(x, -0.0), x)
    elif n.attr("saturate", 1):
        x = n("Clamp", x, min=-LARGEST[kind], max=LARGEST[kind])
    elif kind in _BEYOND:
        bound, beyond = _BEYOND[kind]
        x_f32 = n.convert(x, "f32")
        size = n("Abs", x_f32)
        over = n("Greater" if kind == "f8e4m3" else "GreaterEqual", size, n.like(x_f32, bound))
        x = n("Select", over, n("Multiply", n("Sign", x_f32), n.like(x_f32, beyond)), x_f32)
    if n.dtype(x) in ("f32", "f64"):
        x = _on_grid(n, x, kind)
    return n("Convert", x, destination_type=kind)


def _to_powers(n: OnnxNode, x: Output) -> Output:
    """Sizes of f32 numbers as powers of two, f8e8m0. OpenVINO rounds ties otherwise, and negative numbers;
    so powers are looked up, and converted as they are. What is not finite becomes NaN."""
    how = n.attr("round_mode", "up")
    least, most = -126, 127  # of what is not subnormal
    powers = np.exp2(np.arange(least - 1, most + 1)).astype(np.float32)
    if how == "up":
        bounds = np.concatenate([np.zeros(1, np.float32), powers[1:]])
    elif how == "down":
        bounds = powers[1:]
    else:
        bounds = powers * np.float32(1.5)
        bounds[0] = np.nextafter(powers[0], np.float32(1))  # among subnormals a tie goes down
    if n.attr("saturate", 1):
        bounds = bounds[: len(powers) - 1]
    table = np.append(powers, np.float32(np.nan))
    size = n("Abs", x)
    index = n("Bucketize", size, bounds, output_type="i32", with_right_bound=how == "up")
    finite = n("Less", size, n.const(np.float32(np.inf)))
    index = n("Select", finite, index, n.const(len(powers), "i32"))
    return n.convert(n("Gather", table, index, 0, opset=8), "f8e8m0")


# -- shapes --------------------------------------------------------------------------------------------------


@onnx_op("Shape")
def shape(n: OnnxNode) -> Any:
    out = n("ShapeOf", n[0], output_type="i64")
    start, end = n.attr("start", 0), n.attr("end")
    if start or end is not None:
        out = n.slice(out, 0, start, end)
    return out


@onnx_op("Reshape")
def reshape(n: OnnxNode) -> Any:
    pattern = n[1] if n.has(1) else n.const(np.array(n.require("shape"), np.int64))
    return n("Reshape", n[0], pattern, special_zero=not n.attr("allowzero", 0))


@onnx_op("Flatten")
def flatten(n: OnnxNode) -> Any:
    """[product of the dimensions before `axis`, product of those from it on]"""
    x, axis = n[0], n.attr("axis")
    dims = n.shape(x)
    rank = n.rank(x)
    if not -rank <= axis <= rank:
        raise ModelError(f"the axis {axis} is out of range for rank {rank}")
    axis = axis + rank if axis < 0 else axis
    out = _reshape_to_two(n, x, axis, dims)
    n.reader.memo.setdefault("flattened", {})[out.node] = axis
    return out


def _reshape_to_two(n: OnnxNode, x: Output, axis: int, dims: Any) -> Output:
    assert dims is not None
    before, after = n.size(dims[:axis]), n.size(dims[axis:])
    if before is not None and after is not None:
        return n.reshape(x, [before, after])
    if before is not None and before:
        return n.reshape(x, [before, -1])
    if after is not None and after:
        return n.reshape(x, [-1, after])
    shape = n.shape_of(x)
    count = n("ReduceProd", n.slice(shape, 0, 0, axis), [0], keep_dims=True)
    inner_size = n("ReduceProd", n.slice(shape, 0, axis), [0], keep_dims=True)
    return n.reshape(x, n("Concat", count, inner_size, axis=0))


def _axes_input(n: OnnxNode) -> Output | None:
    """Axes as an input, or as the attribute of older versions."""
    if n.has(1):
        return n[1]
    axes = n.attr("axes")
    return None if axes is None else n.const(np.array(axes, np.int64))


@onnx_op("Squeeze")
def squeeze(n: OnnxNode) -> Any:
    axes = _axes_input(n)
    return n("Squeeze", n[0], opset=1) if axes is None else n("Squeeze", n[0], axes, opset=1)


@onnx_op("Unsqueeze")
def unsqueeze(n: OnnxNode) -> Any:
    axes = _axes_input(n)
    if axes is None:
        raise ModelError("the axes are missing")
    return n("Unsqueeze", n[0], axes)


@onnx_op("Transpose")
def transpose(n: OnnxNode) -> Any:
    perm = n.attr("perm")
    if perm is None:
        perm = list(range(n.rank(n[0])))[::-1]
    if not perm:
        return n.same(n[0])
    return n("Transpose", n[0], list(perm))


@onnx_op("Split")
def split(n: OnnxNode) -> Any:
    x, count = n[0], len(n.output_names)
    axis = n.attr("axis", 0)
    lengths = n[1] if n.has(1) else n.attr("split")
    if lengths is not None:
        value = n.value(lengths) if isinstance(lengths, Output) else np.array(lengths, np.int64)
        if value is not None and value.size != count:
            raise ModelError(f"{value.size} lengths are given for {count} outputs")
        if isinstance(lengths, Output):
            known_count = is_static(n.shape(lengths))
            return n.all("VariadicSplit", x, axis, lengths if known_count else n.reshape(lengths, [count]))
        return n.split(x, axis, [int(v) for v in lengths])
    if n.attr("num_outputs") not in (None, count):
        raise ModelError(f"num_outputs is {n.attr('num_outputs')}, but the node has {count} outputs")
    dims = n.shape(x)
    size = None if dims is None else dims[n.axis(axis, len(dims))]
    if n.version < 18 or dims is None or (isinstance(size, int) and size % count == 0):
        return n.all("Split", x, axis, num_splits=count)
    length = n.dim_of(x, axis)
    each = n("Divide", n("Add", length, count - 1), count)  # the last parts may be shorter
    lengths = n("Subtract", length, n("Multiply", each, np.arange(count)))
    value = n.value(lengths := n("Minimum", n("Maximum", lengths, 0), each))
    return n.all("VariadicSplit", x, axis, lengths if value is None else n.const(value))


@onnx_op("Slice")
def slice_attributes(n: OnnxNode) -> Any:
    starts, ends = list(n.require("starts")), list(n.require("ends"))
    axes = n.attr("axes")
    axes = list(range(len(starts))) if axes is None else list(axes)
    if not len(starts) == len(ends) == len(axes):
        raise ModelError("starts, ends and axes should have the same length")
    return n("Slice", n[0], starts, ends, [1] * len(starts), axes)


@onnx_op("DynamicSlice")
@onnx_op("Slice", 10)
def slice_(n: OnnxNode) -> Any:
    starts, ends = n.convert(n[1], "i64"), n.convert(n[2], "i64")
    steps = n.convert(n[4], "i64") if n.has(4) else None
    if steps is None:
        lengths = [n[i] for i in (1, 2, 3) if n.has(i)]
        which = next((v for v in lengths if is_static(n.shape(v))), starts)
        length = n.shape(which)
        steps = n.const(np.ones(length, np.int64)) if is_static(length) else n.broadcast(1, n.shape_of(which))
    axes = [n.convert(n[3], "i64")] if n.has(3) else []
    return n("Slice", n[0], starts, ends, steps, *axes)


# -- padding -------------------------------------------------------------------------------------------------


@onnx_op("Pad")
def pad(n: OnnxNode) -> Any:
    x, mode = n[0], n.attr("mode", "constant")
    axes, computed_axes = _padded_axes(n, n.rank(x))
    pads = _known_pads(n)
    if pads is None or computed_axes is not None:
        begin, end = _computed_pads(n, n.rank(x), axes, computed_axes)
        far = False
    else:
        first, last = _pads_by_axis(pads, n.rank(x), axes)
        begin, end = n.const(np.array(first, np.int64)), n.const(np.array(last, np.int64))
        far = mode == "reflect" and _far(n, x, first, last)
    if mode == "wrap" or far:
        return _pad_by_index(n, x, begin, end, mode)
    if mode != "constant":
        return n("Pad", x, begin, end, pad_mode=mode, opset=12)
    fill = n.optional(2) if n.version >= 11 else n.like(x, n.attr("value", 0.0))
    fill = n.blank(x) if fill is None else n.scalar(fill)
    return n("Pad", x, begin, end, fill, pad_mode="constant", opset=12)


def _padded_axes(n: OnnxNode, rank: int) -> tuple[list[int], Output | None]:
    """The padded axes, all by default; and those that are computed, if they are."""
    every = list(range(rank))
    if n.version < 18 or not n.has(3):
        return every, None
    axes = n.value(n[3])
    if axes is None:
        return every, n.convert(n("FloorMod", n[3], n.like(n[3], rank)), "i64")
    return n.axes(axes.reshape(-1).tolist(), rank), None


def _known_pads(n: OnnxNode) -> list[int] | None:
    """The pads before each padded axis, then those after; None if they are computed."""
    if n.version < 11:
        return list(n.attr("pads") or n.attr("paddings") or ())
    value = n.value(n[1])
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _pads_by_axis(pads: Sequence[int], rank: int, axes: Sequence[int]) -> tuple[list[int], list[int]]:
    """(pads before, pads after) of each of `rank` axes; ModelError for a wrong number of pads."""
    if len(pads) != 2 * len(axes):
        raise ModelError(f"expected {2 * len(axes)} pads, not {len(pads)}")
    first, last = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        first[axis], last[axis] = pads[i], pads[len(axes) + i]
    return first, last


def _computed_pads(
    n: OnnxNode, rank: int, axes: Sequence[int], computed: Output | None
) -> tuple[Output, Output]:
    """`_pads_by_axis` of pads, or axes, that are computed."""
    pads = n.convert(n[1], "i64")
    if computed is None and axes == list(range(rank)):
        return n.slice(pads, 0, 0, rank), n.slice(pads, 0, rank)
    which = n.const(np.array(axes, np.int64)) if computed is None else computed
    none = np.zeros(rank, np.int64)
    first, last = (
        n("ScatterElementsUpdate", none, which, part, 0, opset=3)
        for part in n.all("Split", pads, 0, num_splits=2)
    )
    return first, last


def _far(n: OnnxNode, x: Output, begin: Sequence[int], end: Sequence[int]) -> bool:
    """Whether a reflection pads more than the input has, so that it repeats."""
    shape = n.shape(x) or ()
    return any(
        isinstance(d, int) and max(b, e) > max(d - 1, 0) for d, b, e in zip(shape, begin, end, strict=True)
    )


def _pad_by_index(n: OnnxNode, x: Output, begin: Output, end: Output, mode: str) -> Output:
    """Pad by a Gather along each axis: periodically ("wrap"), or mirrored repeatedly ("reflect")."""
    for axis, extent in enumerate(n.shape(x) or ()):
        before, after = (n("Gather", pads, axis, 0, opset=8) for pads in (begin, end))
        widths = [n.value(v) for v in (before, after)]
        if all(v is not None and v == 0 for v in widths):
            continue
        if extent == 0:
            raise UnsupportedError(f"the mode {mode!r} along an empty dimension is not supported")
        if isinstance(extent, int) and all(v is not None for v in widths):
            n.check_count(extent + sum(map(int, widths)), "elements with padding")  # type: ignore[arg-type]
        size = n.scalar(n.dim_of(x, axis))
        indices = n("Range", n("Negative", before), n("Add", size, after), 1, output_type="i64", opset=4)
        if mode == "wrap":
            indices = n("FloorMod", indices, size)
        else:
            period = n("Maximum", n("Subtract", n("Multiply", size, 2), 2), 1)
            indices = n("FloorMod", indices, period)
            indices = n("Select", n("Less", indices, size), indices, n("Subtract", period, indices))
        x = n("Gather", x, n.fold(indices), axis, opset=8)
    return x


@onnx_op("CenterCropPad", 18)
def center_crop_pad(n: OnnxNode) -> Any:
    """Crops or pads axes at both ends to the given sizes; an odd element is cropped or added at the end."""
    x = n[0]
    rank = n.rank(x)
    axes = n.axes(n.attr("axes") or range(rank), rank)
    goal = n.convert(n[1], "i64")
    gap = n("Subtract", goal, n("Gather", n.shape_of(x), axes, 0, opset=8))
    more, less = (n("Divide", n("Maximum", v, 0), 2) for v in (gap, n("Negative", gap)))
    begin = n("Subtract", more, less)
    none = np.zeros(rank, np.int64)
    sides = begin, n("Subtract", gap, begin)
    pads = [n("ScatterElementsUpdate", none, axes, side, 0, opset=3) for side in sides]
    return n("Pad", x, *pads, n.blank(x), pad_mode="constant", opset=12)


# -- selecting -----------------------------------------------------------------------------------------------


@onnx_op("GatherElements")
def gather_elements(n: OnnxNode) -> Any:
    """There may be fewer indices than data along the other dimensions, where OpenVINO's are equal. Open
    dimensions of equal bounds need not be equal: the data are cropped there too, which moves nothing where
    they are."""
    x, indices = n[0], n[1]
    data, index_shape = n.shape(x), n.shape(indices)
    if data is None:  # they are as many then, or the node says so when it runs
        return n("GatherElements", x, indices, axis=n.attr("axis"))
    axis = n.axis(n.attr("axis"), len(data))
    if index_shape is None or len(index_shape) == len(data):
        index_dims = index_shape or [None] * len(data)
        cut = [i for i, d in enumerate(data) if i != axis and not (isinstance(d, int) and d == index_dims[i])]
        if cut:
            stops = n.concat([n.dim_of(indices, i) for i in cut], 0)
            x = n("Slice", x, [0] * len(cut), stops, [1] * len(cut), cut)
    return n("GatherElements", x, indices, axis=axis)


_REDUCTIONS = {"none": "none", "add": "sum", "mul": "prod", "min": "min", "max": "max"}


def _reduction(n: OnnxNode) -> str:
    return _REDUCTIONS[n.attr("reduction", "none")]


@onnx_op("ScatterElements")
@onnx_op("Scatter")
def scatter_elements(n: OnnxNode) -> Any:
    reduction, operands = _reduction(n), (n[0], n[1], n[2], n.attr("axis"))
    if reduction == "none":
        return n("ScatterElementsUpdate", *operands, opset=3)
    return n("ScatterElementsUpdate", *operands, reduction=reduction, use_init_val=True, opset=12)


@onnx_op("ScatterND")
def scatter_nd(n: OnnxNode) -> Any:
    reduction = _reduction(n)
    if reduction == "none":
        return n("ScatterNDUpdate", n[0], n[1], n[2], opset=4)
    return n("ScatterNDUpdate", n[0], n[1], n[2], reduction=reduction, opset=15)


@onnx_op("TensorScatter", 24)
def tensor_scatter(n: OnnxNode) -> Any:
    """A cache whose rows from write_indices[batch] on, along `axis`, are replaced; "circular" continues at
    the start."""
    past, update, begin = n[0], n[1], n.optional(2)
    rank = n.rank(past)
    axis = n.axis(n.attr("axis"), rank)
    shape = n.static_shape(update, "the shape of the update")
    steps = n.const(np.arange(n.check_count(shape[axis], "rows")))
    batch = n.unsqueeze(begin, [1]) if begin is not None else n.const(np.zeros((1, 1), np.int64))
    rows = n("Add", batch, n.unsqueeze(steps, [0]))
    if n.attr("mode") == "circular":
        rows = n("FloorMod", rows, n.squeeze(n.dim_of(past, axis), [0]))
    indices = n.reshape(rows, [-1, *[1] * (axis - 1), shape[axis], *[1] * (rank - axis - 1)])
    indices = n.broadcast(indices, list(shape))
    return n("ScatterElementsUpdate", past, indices, update, axis, opset=3)


def _extent(n: OnnxNode, value: Any, axis: int) -> Any:
    """One dimension, possibly an Interval; None if the rank is unknown."""
    shape = n.shape(value)
    return None if shape is None else shape[axis]


@onnx_op("Compress")
def compress(n: OnnxNode) -> Any:
    """Select elements by a condition that may be shorter than the axis. If it is longer, its end is ignored,
    as in ONNX Runtime; the standard leaves that open. A Gather would give zeros for it."""
    x, condition, axis = n[0], n[1], n.attr("axis")
    if axis is None:
        x, axis = n.reshape(x, [-1]), 0
    length, count = (_extent(n, v, i) for v, i in ((x, axis), (condition, 0)))
    if not (isinstance(length, int) and isinstance(count, int) and count <= length):
        condition = n("Slice", condition, [0], n.dim_of(x, axis), [1], [0], opset=8)
    indices = n.squeeze(n("NonZero", condition, output_type="i64"), [0])
    return n("Gather", x, indices, axis, opset=8)


@onnx_op("OneHot")
def one_hot(n: OnnxNode) -> Any:
    """Indices from -depth to depth - 1; others have no hot element."""
    indices = n.convert(n[0], "i64")
    depth = n.scalar(n.convert(n[1], "i64"))
    off, on = (n("Gather", n[2], i, 0, opset=8) for i in (0, 1))
    negative = n("Less", indices, 0)
    indices = n("Select", negative, n("Add", indices, depth), indices)
    # one of two negatives becomes another: those that are still below 0 stay outside
    return n("OneHot", indices, depth, on, off, axis=n.attr("axis"), opset=1)


@onnx_op("TopK")
def top_k(n: OnnxNode) -> Any:
    """Top k; among equal elements the lower index comes first."""
    k: Any = n.attr("k")
    if n.has(1):
        value = n.value(n[1])
        k = n.scalar(n[1]) if value is None else int(np.asarray(value).reshape(-1)[0])
    return n.top_k(n[0], k, n.attr("axis"), "max" if n.attr("largest", 1) else "min")


def _arg(mode: str):
    def rule(n: OnnxNode) -> Any:
        x = n[0]
        axis = n.axis(n.attr("axis"), n.rank(x))
        last = bool(n.attr("select_last_index", 0))
        if last:
            x = n.backwards(x, axis)
        out = n.extreme_index(x, axis, mode)
        if last:
            out = n("Subtract", n("Subtract", n.dim_of(x, axis), 1), out)
        return out if n.attr("keepdims") else n.squeeze(out, [axis])

    return rule


onnx_op("ArgMax")(_arg("max"))
onnx_op("ArgMin")(_arg("min"))


@onnx_op("Unique", 11)
def unique(n: OnnxNode) -> Any:
    axis = n.attr("axis")
    inputs = [n[0]] if axis is None else [n[0], n.const(np.array(axis, np.int64))]
    attrs: dict[str, Any] = {"index_element_type": "i64", "count_element_type": "i64"}
    return n.all("Unique", *inputs, sorted=bool(n.attr("sorted")), **attrs)


# -- sums along an axis, blocks ------------------------------------------------------------------------------


@onnx_op("CumSum")
def cum_sum(n: OnnxNode) -> Any:
    how = {name: bool(n.attr(name)) for name in ("exclusive", "reverse")}
    return n("CumSum", n[0], n.scalar(n[1]), **how)


def by_axis(n: OnnxNode, index: int, rank: int, function: Callable[[int], Output]) -> Output:
    """`function(axis)` for an axis that is an input; for a computed one, a selection among the results for
    all axes."""
    value = n.value(n[index])
    if value is not None:
        return function(n.axis(int(value.reshape(-1)[0]), rank))
    axis = n("FloorMod", n.convert(n.scalar(n[index]), "i64"), rank)
    out = function(0)
    for i in range(1, rank):
        out = n("Select", n("Equal", axis, i), function(i), out)
    return out


def _cum_prod(n: OnnxNode, axis: int) -> Output:
    how = (bool(n.attr(name)) for name in ("reverse", "exclusive"))
    return running_in_order(n, n[0], axis, partial(n, "Multiply"), 1, *how)


_BLOCKS = {"DCR": "blocks_first", "CRD": "depth_first"}


@onnx_op("DepthToSpace")
def depth_to_space(n: OnnxNode) -> Any:
    mode = _BLOCKS[n.attr("mode", "DCR")]
    return n("DepthToSpace", n[0], block_size=n.require("blocksize"), mode=mode)


@onnx_op("SpaceToDepth")
def space_to_depth(n: OnnxNode) -> Any:
    mode = _BLOCKS[n.attr("mode", "DCR")]
    return n("SpaceToDepth", n[0], block_size=n.require("blocksize"), mode=mode)


@onnx_op("Col2Im", 18)
def col2im(n: OnnxNode) -> Any:
    if (n.value(n[1]) is None or n.value(n[2]) is None) and n.shape(n[1]) == (2,):
        two: dict[str, Any] = {name: list(n.attr(name) or [1, 1]) for name in ("strides", "dilations")}
        pads = list(n.attr("pads") or [0] * 4)
        return n("Col2Im", n[0], n[1], n[2], **two, pads_begin=pads[:2], pads_end=pads[2:])
    shape, block = n.known_ints(1, "image_shape"), n.known_ints(2, "block_shape")
    dims = len(shape)
    dilations, strides = (list(n.attr(name) or [1] * dims) for name in ("dilations", "strides"))
    pads = list(n.attr("pads") or [0] * (2 * dims))
    return _fold(n, n[0], shape, block, dilations, strides, pads)


def _fold(
    n: OnnxNode, x: Output, shape: Sequence[int], block: Sequence[int], dilations: Sequence[int],
    strides: Sequence[int], pads: Sequence[int],
) -> Output:  # fmt: skip
    """Col2Im: sum blocks into an image, by a transposed convolution with a filter that has a 1 for each
    position of a block."""
    dims = len(shape)
    block_counts = [
        (shape[i] + pads[i] + pads[dims + i] - (dilations[i] * (block[i] - 1) + 1)) // strides[i] + 1
        for i in range(dims)
    ]
    size = n.check_count(math.prod(block), "elements of a block", 4096)
    n.check_count(size * size, "elements of blocks")
    x_shape = n.shape(x) or (ANY, ANY)
    rows = x_shape[1] if len(x_shape) > 1 else ANY
    if not isinstance(rows, int) or rows % size:
        raise UnsupportedError("Col2Im needs a static number of channels that is divisible by the block size")
    batch = x_shape[0] if isinstance(x_shape[0], int) else -1
    images = n.reshape(x, [-1 if batch == -1 else batch * (rows // size), size, *block_counts])
    filters = np.zeros((size, 1, *block), np.float32)
    for i, offset in enumerate(np.ndindex(*block)):
        filters[(i, 0, *offset)] = 1
    reach = [
        (block_counts[i] - 1) * strides[i] + dilations[i] * (block[i] - 1) + 1 - pads[i] - pads[dims + i]
        for i in range(dims)
    ]
    sides: dict[str, Any] = {"pads_begin": list(pads[:dims]), "pads_end": list(pads[dims:])}
    beyond = [s - r for s, r in zip(shape, reach, strict=True)]
    out = n("ConvolutionBackpropData", images, n.like(x, filters), strides=list(strides), **sides,
            dilations=list(dilations), output_padding=beyond)  # fmt: skip
    return n.reshape(out, [batch, rows // size, *shape])


#: Operators that are one expression.
onnx_ops({
    "Cast": lambda n: cast(n, n[0], n.data_type("to")),
    "ReverseSequence": lambda n: n("ReverseSequence", n[0], n[1],
                                   **n.attrs("batch_axis", seq_axis="time_axis")),
    "CastLike-15": lambda n: cast(n, n[0], n.dtype(n[1])),
    "CumProd-26": lambda n: by_axis(n, 1, n.rank(n[0]), lambda axis: _cum_prod(n, axis)),
    "Range-11": lambda n: n("Range", *(n.scalar(n[i]) for i in range(3)), output_type=n.dtype(n[0]), opset=4),
    "Size": lambda n: n("ReduceProd", n("ShapeOf", n[0], output_type="i64"), [0], keep_dims=False),
    "Expand": lambda n: n("Broadcast", n[0], n[1], mode="bidirectional", opset=3),
    "Tile-6": lambda n: n("Tile", n[0], n[1]),
    "Concat": lambda n: n("Concat", *n.tensors(), axis=n.attr("axis", 1)),
    "Gather": lambda n: n("Gather", n[0], n[1], n.attr("axis"), opset=8),
    "GatherND": lambda n: n("GatherND", n[0], n[1], batch_dims=n.attr("batch_dims", 0), opset=8),
    "NonZero": lambda n: n("NonZero", n[0], output_type="i64"),
})  # fmt: skip
