"""Operators that move elements, and pick them: shapes, slices, pads, parts, indices."""

from __future__ import annotations

from ovjit.readers.numerics.slices import replace_at
from ovjit.readers.tflite.elementwise import typed
from ovjit.readers.tflite.layouts import first_order
from ovjit.readers.tflite.reduce import move_axes
from ovjit.readers.tflite.rule_language import *

#: What stands for "to the end".
LAST = (1 << 31) - 1


@tflite_op("RESHAPE")
def reshape(n: LiteNode) -> Any:
    """Reshape by an option, else an input, else the result's shape in the file."""
    pair = [2] if n.is_complex(0) else []
    new_shape = n.options("NewShape")
    if new_shape is not None:
        return n.reshape(n[0], new_shape + pair)
    if n.has(1):
        return n.reshape(n[0], n.concat([n[1], n.const(np.array(pair, np.int32))], 0) if pair else n[1])
    if not is_static(n.out().shape):
        raise ModelError(
            "Unexpected Reshape operation configuration. No new_shape attribute and no second input"
        )
    return n.reshape(n[0], np.array([*n.out().shape, *pair], np.int64))


@tflite_op("SQUEEZE")
def squeeze(n: LiteNode) -> Any:
    axes = n.options("SqueezeDims")
    if n.is_complex(0):
        axes = _before_parts(axes or [i for i, d in enumerate((n.shape(n[0]) or ())[:-1]) if d == 1])
    return n("Squeeze", n[0], axes, opset=1) if axes else n("Squeeze", n[0], opset=1)


@tflite_op("EXPAND_DIMS")
def expand_dims(n: LiteNode) -> Any:
    axes = n.const(_before_parts(n.known_ints(1, "the axis"))) if n.is_complex(0) else n[1]
    return n("Unsqueeze", n[0], axes)


def _before_parts(axes: list[int]) -> list[int]:
    """Axes of a complex tensor in its form with the parts along a further last axis."""
    return [axis - (axis < 0) for axis in axes]


@tflite_op("TRANSPOSE")
def transpose(n: LiteNode) -> Any:
    """Transposes a tensor; one to channels first returns the tensor's channels-first form, if it has one."""
    order, first = n.value(n[1]), n.reader.layouts.find(n[0])
    if first is not None and order is not None and order.reshape(-1).tolist() == first_order(n.rank(n[0])):
        return first
    return n("Transpose", n[0], n[1])


def _pads(n: LiteNode) -> tuple[Output, Output, np.ndarray | None]:
    """(pads before, pads after, [dimensions, 2] of both if they are constant, else None)."""
    constant = n.value(n[1])
    if constant is not None:
        if constant.ndim != 2 or constant.shape[1] != 2:
            raise ModelError(f"the pads have the shape {list(constant.shape)}; expected [dimensions, 2]")
        return n.const(constant[:, 0].astype(np.int64)), n.const(constant[:, 1].astype(np.int64)), constant
    columns = [n("Gather", n[1], i, 1) for i in range(2)]
    return columns[0], columns[1], None


@tflite_op("PAD", "PADV2", "MIRROR_PAD")
def pad(n: LiteNode) -> Any:
    x = n[0]
    before, after, constant = _pads(n)
    mode = "constant"
    if n.op_type == "MIRROR_PAD":
        mode = ("reflect", "symmetric")[n.option("Mode")]
    fill = [n[2]] if n.op_type == "PADV2" else [n.like(x, 0)]
    first = n.reader.layouts.find(x)
    if first is None or constant is None:
        return n("Pad", x, before, after, *fill, pad_mode=mode, opset=1)
    channels_first = constant[first_order(len(constant))].astype(np.int64)
    ends = [n.const(np.ascontiguousarray(column)) for column in channels_first.T]
    return n.last(n("Pad", first, *ends, *fill, pad_mode=mode, opset=1))


@tflite_op("SLICE")
def slice_(n: LiteNode) -> Any:
    """`size` elements from `begin` on; -1 takes the remainder."""
    x, begin, size = n[0], n[1], n[2]
    axes = list(range(n.rank(x)))
    stop = n("Select", n("Less", size, n.like(size, 0)), n.like(size, LAST), n("Add", begin, size))
    return n("Slice", x, n.fold(begin), n.fold(stop), n.like(begin, [1] * len(axes)), n.like(begin, axes))


@tflite_op("STRIDED_SLICE")
def strided_slice(n: LiteNode) -> Any:
    """StridedSlice: entries of begin, end and strides as in Python, with a bit of each mask for each
    entry."""
    count = n.count_of_axes(n[1], "the number of slices")

    def mask(name: str) -> list[int]:
        bits = n.option(name, 0)
        return [bits >> i & 1 for i in range(count)] if bits else [0] * count

    ends = n("Add", n[1], n[2]) if n.option("Offset", False) else n[2]
    return n(
        "StridedSlice", n[0], n[1], ends, n[3], begin_mask=mask("BeginMask"), end_mask=mask("EndMask"),
        new_axis_mask=mask("NewAxisMask"), shrink_axis_mask=mask("ShrinkAxisMask"),
        ellipsis_mask=mask("EllipsisMask"),
    )  # fmt: skip


@tflite_op("PACK")
def pack(n: LiteNode) -> Any:
    axis = n.option("Axis", 0)
    return n("Concat", *(n("Unsqueeze", v, n.const(axis)) for v in n.inputs), axis=axis)


@tflite_op("UNPACK")
def unpack(n: LiteNode) -> Any:
    axis, count = n.option("Axis", 0), n.option("Num")
    parts = n.all("Split", n[0], n.const(axis), num_splits=count)
    return [n("Squeeze", part, n.const(axis), opset=1) for part in parts]


@tflite_op("CONCATENATION")
def concatenation(n: LiteNode) -> Any:
    """Concatenate tensors, in channels-first layout if one of them has it. A fused activation is ignored, as
    by TensorFlow Lite's own kernels."""
    values, axis = n.inputs, n.option("Axis")
    firsts = [n.reader.layouts.find(v) for v in values]
    ranks = {len(n.shape(v) or ()) for v in values}
    if any(f is not None for f in firsts) and len(ranks) == 1:
        rank = ranks.pop()
        first_axis = move_axes([n.axis(axis, rank)], rank)[0]
        return n.last(n("Concat", *(n.first(v) for v in values), axis=first_axis))
    return n("Concat", *values, axis=axis)


@tflite_op("REVERSE_V2")
def reverse(n: LiteNode) -> Any:
    """Reverse each of the axes."""
    x = n[0]
    for axis in n.axes(n.known_ints(1, "the axes"), n.rank(x)):
        x = n.backwards(x, axis)
    return x


@tflite_op("REVERSE_SEQUENCE")
def reverse_sequence(n: LiteNode) -> Any:
    batch, seq = n.axes([n.option("BatchDim", 0), n.option("SeqDim")], n.rank(n[0]))  # LiteRT wants two axes
    return n("ReverseSequence", n[0], n[1], batch_axis=batch, seq_axis=seq)


@tflite_op("MATRIX_DIAG")
def matrix_diag(n: LiteNode) -> Any:
    """Matrices with the last axis on their diagonals: x * (row == column)."""
    x = n[0]
    line = n.upto(n.dim_of(x, n.rank(x) - 1))
    eye = n("Equal", n("Unsqueeze", line, n.const([1])), n("Unsqueeze", line, n.const([0])))
    return n("Select", eye, n("Unsqueeze", x, n.const([-1])), n.like(x, 0))


@tflite_op("DENSIFY")
def densify(n: LiteNode) -> Any:
    """Sparse constants, which have been made dense while reading."""
    constant = n.file_constant(0)
    if constant is None:
        raise UnsupportedError("a sparse constant is not supported here")
    return constant


# -- picking elements by indices or by their size ------------------------------------------------------------


@tflite_op("SCATTER_ND")
def scatter_nd(n: LiteNode) -> Any:
    """Scatter with addition into zeros."""
    zeros = n.broadcast(n.like(n[1], 0), n[2])
    return n("ScatterNDUpdate", zeros, n[0], n[1], reduction="sum", opset=15)


@tflite_op("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(n: LiteNode) -> Any:
    """Inputs: a tensor, a part of it, and where that begins. A part that would go over the end is moved
    back."""
    x, update, starts = n[0], n[1], n.convert(n[2], "i64")
    shape, sizes = n.shape(x), n.shape(update)
    rows = []
    for axis in range(n.rank(x)):
        if shape and sizes and isinstance(shape[axis], int) and shape[axis] == sizes[axis]:
            continue
        size = n.dim_of(update, axis)
        start = n("Maximum", n.slice(starts, 0, axis, axis + 1), n.const([0]))
        start = n("Minimum", start, n("Subtract", n.dim_of(x, axis), size))
        rows.append((axis, n("Add", start, n.upto(size))))
    return replace_at(n, x, update, rows)


@tflite_op("SPARSE_TO_DENSE")
def sparse_to_dense(n: LiteNode) -> Any:
    """Inputs: places, the shape, values there, and the value elsewhere."""
    count = n.count_of_axes(n[1], "the number of dimensions")
    return n("ScatterNDUpdate", n.broadcast(n[3], n[1]), n.reshape(n[0], [-1, count]), n[2])


@tflite_op("UNIQUE")
def unique(n: LiteNode) -> Any:
    """Values in the order in which they come, and where each element's value is among them."""
    outputs = n.all("Unique", n[0], sorted=False, index_element_type=typed(n.option("IdxOutType", 2)))
    return [outputs[0], outputs[2]]


#: Operators that are one expression.
tflite_ops({
    "GATHER": lambda n: n("Gather", n[0], n[1], n.option("Axis", 0), batch_dims=n.option("BatchDims", 0)),
    "GATHER_ND": lambda n: n("GatherND", n[0], n[1], batch_dims=0),
    "EMBEDDING_LOOKUP": lambda n: n("Gather", n[1], n[0], 0),
    # indices that are not there, negative ones among them, have no hot element
    "ONE_HOT": lambda n: n("OneHot", n[0], n[1], n[2], n[3], axis=n.option("Axis")),
    "TOPK_V2": lambda n: n.top_k(n[0], n[1], -1, index=n.out(1).dtype),
    "SHAPE": lambda n: n("ShapeOf", n[0], output_type=typed(n.option("OutType", 2))),
    "TILE": lambda n: n("Tile", n[0], n[1]),
    "BROADCAST_TO": lambda n: n.broadcast(n[0], n[1]),
    "SPLIT": lambda n: n.all("Split", n[1], n[0], num_splits=n.option("NumSplits")),
    "RANGE": lambda n: n.fold(n("Range", *(n.scalar(n[i]) for i in range(3)), output_type=n.dtype(n[0]))),
    "SPLIT_V": lambda n: n.all("VariadicSplit", n[0], n.scalar(n[2]), n[1]),
    "RANK": lambda n: n.const(np.int32(n.rank(n[0]))),
    "FILL": lambda n: n.fold(n.broadcast(n[1], n[0])),
})  # fmt: skip
