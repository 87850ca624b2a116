"""ShuffleChannels, DepthToSpace, SpaceToDepth, SpaceToBatch, BatchToSpace, Roll, Reverse, ReverseSequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError, check
from ovjit.graph.op import Int, Positive, TensorType, Word, op
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, is_static, merge, normalize_axis, text
from ovjit_ops.common.checks import check_rank
from ovjit_ops.common.dims import divide_dim
from ovjit_ops.common.images import images_of
from ovjit_ops.common.slices import axes_to_reverse
from ovjit_ops.common.values import INTEGERS, length, shape_value
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases
from ovjit_ops.movement import cpu_blocks
from ovjit_ops.movement.shape import MOVABLE
from ovjit_ops.movement.sink_shuffle import recognize_shuffle, sink_shuffle


@op(
    "ShuffleChannels", opset=1, types=MOVABLE,
    lower=".sink_shuffle:Shuffled", images=images_of(0, along="axis"),
    rules=[recognize_shuffle, sink_shuffle], rules_for=["ShuffleChannels", "Transpose"],
)  # fmt: skip
class ShuffleChannels:
    """The dimension `axis`, reshaped to [group, rest] and transposed."""

    def infer(data, *, axis: Int = 1, group: Positive = 1):
        if data.shape is not None:
            extent = data.shape[normalize_axis(axis, len(data.shape))]
            check(
                isinstance(extent, Interval) or extent % group == 0,
                "The channel dimension size has to be a multiple of the groups parameter value. "
                f"{extent} channels are not divisible by {group} groups",
            )
        return TensorType(data.dtype, data.shape)

    def ref(data, *, axis=1, group=1):
        axis = normalize_axis(axis, data.ndim)
        if not data.size:  # NumPy cannot count the groups of an empty tensor
            return data.copy()
        split = data.reshape(*data.shape[:axis], group, data.shape[axis] // group, *data.shape[axis + 1 :])
        return split.swapaxes(axis, axis + 1).reshape(data.shape)

    samples = cases(
        ((1, 16, 4, 5), {"axis": 1, "group": 4}),
        ((2, 6, 3, 3), {"axis": 1, "group": 2}),
        ((2, 3, 8, 5), {"axis": -2, "group": 2}),
        ((1, 5, 2, 2), {"axis": 1, "group": 5}),
    )


#: Shared by DepthToSpace and SpaceToDepth.
_BLOCKS: dict[str, Any] = {"types": MOVABLE, "words": {"mode": "blocks_first depth_first"}}


_BY_MODES = [{"block_size": 2, "mode": mode} for mode in ("blocks_first", "depth_first")]


@op(
    "DepthToSpace", opset=1, lower=".cpu_blocks:lower_depth_to_space",
    images=images_of(0), **_BLOCKS,
)  # fmt: skip
class DepthToSpace:
    """Rearranges blocks of channels to squares of `block_size` x `block_size` pixels."""

    def infer(data, *, block_size: Positive = 1, mode: Word):
        check(data.rank is None or data.rank >= 3, f"the data {data} should have at least 3 dimensions")
        if data.shape is None:
            return TensorType(data.dtype, None)
        n, c, *spatial = data.shape
        channels = divide_dim(c, block_size ** len(spatial), "the number of channels")
        return TensorType(data.dtype, (n, channels, *(d * block_size for d in spatial)))

    def ref(data, **attrs):
        n, c, *spatial = data.shape
        parts, order = cpu_blocks.depth_to_space(attrs, data.shape)
        size = attrs["block_size"]
        shape = (n, c // size ** len(spatial), *(d * size for d in spatial))
        return data.reshape(parts).transpose(order).reshape(shape)

    samples = cases(((1, 8, 3, 4),), ((2, 4, 2, 2),), ((1, 8, 2, 3, 2),), each=_BY_MODES)


@op("SpaceToDepth", opset=1, lower=".cpu_blocks:lower_space_to_depth", images=images_of(0), **_BLOCKS)
class SpaceToDepth:
    """Rearranges squares of `block_size` x `block_size` pixels to blocks of channels."""

    def infer(data, *, block_size: Positive = 1, mode: Word):
        check(data.rank is None or data.rank >= 3, f"the data {data} should have at least 3 dimensions")
        if data.shape is None:
            return TensorType(data.dtype, None)
        n, c, *spatial = data.shape
        extents = [divide_dim(d, block_size, "the extent") for d in spatial]
        return TensorType(data.dtype, (n, c * block_size ** len(spatial), *extents))

    def ref(data, **attrs):
        n, c, *spatial = data.shape
        parts, order = cpu_blocks.space_to_depth(attrs, data.shape)
        size = attrs["block_size"]
        shape = (n, c * size ** len(spatial), *(d // size for d in spatial))
        return data.reshape(parts).transpose(order).reshape(shape)

    samples = cases(((1, 2, 4, 6),), ((2, 3, 2, 2),), ((1, 2, 2, 4, 2),), each=_BY_MODES)


def _infer_blocks(
    data: TensorType, block_shape: TensorType, first: TensorType, last: TensorType, to_batch: bool
):
    blocks, begin, end = (
        shape_value(x, what) for x, what in ((block_shape, "block_shape"), (first, "begin"), (last, "end"))
    )
    rank = data.rank
    fits = rank is None or (rank >= 1 and all(length(x) in (None, rank) for x in (block_shape, first, last)))
    check(fits, f"the lists should have {rank} entries, one per dimension")
    for each in (begin, end):
        if each is not None and len(each):
            check(min(each) >= 0, "padding and crops should not be negative")
            check(each[0] == 0, "the batch dimension cannot be padded or cropped")
    if rank is None or blocks is None or begin is None or end is None:
        return TensorType(data.dtype, None if rank is None else (ANY,) * rank)
    check(
        min(blocks) >= 1 and blocks[0] == 1,
        f"block_shape {blocks.tolist()} should be positive, and 1 for the batch",
    )
    total = math.prod(int(b) for b in blocks)
    out: list[Dim] = []
    for d, b, low, high in zip(
        data.shape[1:], blocks[1:].tolist(), begin[1:].tolist(), end[1:].tolist(), strict=True
    ):
        if to_batch:
            out.append(divide_dim(d + (low + high), b, "the padded extent"))
        else:
            check(bounds(d)[1] is None or bounds(d)[1] * b >= low + high, "the crops exceed the dimension")
            out.append(d * b - (low + high))
    batch = data.shape[0] * total if to_batch else divide_dim(data.shape[0], total, "the batch")
    return TensorType(data.dtype, (batch, *out))


@op(
    "SpaceToBatch", opset=2, types=MOVABLE, lower=".cpu_blocks:lower_space_to_batch",
    expand=cpu_blocks.expand_space_to_batch,
)  # fmt: skip
class SpaceToBatch:
    """Takes every `block_shape`-th element of the padded data; each offset becomes a sample of the batch."""

    def infer(data, block_shape, pads_begin, pads_end):
        return _infer_blocks(data, block_shape, pads_begin, pads_end, True)

    def ref(data, block_shape, pads_begin, pads_end):
        blocks = [int(b) for b in block_shape[1:]]
        x = np.pad(data, list(zip(pads_begin.tolist(), pads_end.tolist(), strict=True)))
        parts, order = cpu_blocks.space_to_batch(x.shape, blocks)
        return x.reshape(parts).transpose(order).reshape(x.shape[0] * math.prod(blocks), *parts[1::2])

    samples = cases(
        ((2, 3, 4, 6), [1, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0]),
        ((1, 2, 5, 5), [1, 1, 2, 2], [0, 0, 1, 0], [0, 0, 0, 1]),
    )


@op("BatchToSpace", opset=2, types=MOVABLE, lower=".cpu_blocks:FromBatch")
class BatchToSpace:
    """The inverse of SpaceToBatch: interleaves samples into space, then crops."""

    def infer(data, block_shape, crops_begin, crops_end):
        return _infer_blocks(data, block_shape, crops_begin, crops_end, False)

    def ref(data, block_shape, crops_begin, crops_end):
        blocks = [int(b) for b in block_shape[1:]]
        k, n = len(blocks), data.shape[0] // math.prod(blocks)
        order = [k] + [a for i in range(k) for a in (k + 1 + i, i)]
        y = data.reshape(*blocks, n, *data.shape[1:]).transpose(order)
        y = y.reshape(n, *(d * b for d, b in zip(data.shape[1:], blocks, strict=True)))
        cut = (slice(int(b), d - int(e)) for d, b, e in zip(y.shape, crops_begin, crops_end, strict=True))
        return np.ascontiguousarray(y[tuple(cut)])

    samples = cases(
        ((12, 3, 2, 2), [1, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0]),
        ((4, 2, 3, 3), [1, 1, 2, 2], [0, 0, 1, 0], [0, 0, 0, 2]),
    )


@op("Roll", opset=7, types=MOVABLE, lower=".cpu_blocks:Rolled")
class Roll:
    """Shifts the elements cyclically by `shift` along `axes`."""

    def infer(data, shift, axes):
        shape_value(shift, "shift")
        axis_list = shape_value(axes, "axes")
        if axis_list is not None and data.rank is not None:
            for a in axis_list:
                normalize_axis(int(a), data.rank)
        fits = shift.rank in (None, 0) or None in (length(shift), length(axes))
        check(
            fits or (axes.rank == 1 and length(shift) == length(axes)),
            f"If shift is a 1D vector, axes must be a 1D tensor of the same size. {shift} and {axes}",
        )
        return TensorType(data.dtype, data.shape)

    def ref(data, shift, axes):
        shifts, axis_list = (np.asarray(v).reshape(-1) for v in (shift, axes))
        shifts, axis_list = np.broadcast_arrays(shifts, axis_list)
        for s, a in zip(shifts.tolist(), axis_list.tolist(), strict=True):
            axis = normalize_axis(a, data.ndim)
            data = np.roll(data, s % max(1, data.shape[axis]), axis) if data.ndim else data
        return data

    samples = cases(
        ((17,), [3], [0]),
        ((3, 16), [-2, 5], [0, 1]),
        ((2, 3, 5), [4], [-1]),
        ((3, 4), [1, 2], [1, 1]),
        ((), [1], [-1]),
    )


@op("Reverse", opset=1, types=MOVABLE, lower=".cpu_slices:lower_reverse")
class Reverse:
    """Reverses axes of the data, given by index or by a mask."""

    words = {"mode": "index mask"}

    def infer(data, reversed_axes, *, mode: Word):
        kinds = ("boolean",) if mode == "mask" else INTEGERS
        check(
            reversed_axes.dtype in (*kinds, "dynamic"),
            f"the axes of mode {mode} have the wrong type: {reversed_axes}",
        )
        check_rank(reversed_axes, 1, "the axes")
        if data.shape is not None and reversed_axes.value is not None:
            axes = axes_to_reverse(reversed_axes.value, len(data.shape), mode)
            check(data.shape or not axes, "a scalar has no axes to reverse")
        return TensorType(data.dtype, data.shape)

    def ref(data, axes, *, mode):
        return np.flip(data, axes_to_reverse(axes, data.ndim, mode)).copy(order="C")


#: Maximum length of GatherND's index tuples here.
MOST_PLACES = 6


@op("ReverseSequence", opset=1, types=MOVABLE)
class ReverseSequence:
    """Reverses the first `seq_lengths` elements of each sample along `seq_axis`."""

    def infer(data, seq_lengths, *, batch_axis: Int = 0, seq_axis: Int = 1):
        kind = seq_lengths.dtype
        check(kind in (*NUMBERS, "dynamic"), f"seq_lengths should be numbers, not {kind}")
        check_rank(seq_lengths, 1, "seq_lengths")
        says = "Data input rank should be equal or greater than 2. Got: "
        check(data.rank is None or data.rank >= 2, f"{says}{text(data.shape)}")
        if data.shape is not None:
            batch, seq = normalize_axis(batch_axis, data.rank), normalize_axis(seq_axis, data.rank)
            shape = list(data.shape)
            if seq_lengths.shape is not None:
                samples = merge(shape[batch], seq_lengths.shape[0])
                if samples is None:
                    raise ModelError("seq_lengths needs one length per sample")
                shape[batch] = samples
            if seq_lengths.value is not None and is_static(data.shape):
                _check_lengths(seq_lengths.value, data.shape, seq)
            return TensorType(data.dtype, shape)
        return TensorType(data.dtype, None)

    def ref(data, seq_lengths, *, batch_axis=0, seq_axis=1):
        batch, seq = normalize_axis(batch_axis, data.ndim), normalize_axis(seq_axis, data.ndim)
        _check_lengths(seq_lengths, data.shape, seq)
        index = np.arange(data.shape[seq])
        lengths = seq_lengths.reshape(-1).astype(np.int64)[:, None]
        source = np.where(index < lengths, lengths - 1 - index, index)
        shape = [1] * data.ndim
        shape[batch], shape[seq] = data.shape[batch], data.shape[seq]
        source = source if batch < seq else source.T
        return np.take_along_axis(data, source.reshape(shape), seq)

    def expand(w, node, inputs):
        """ReverseSequence(x, n) -> GatherND(x, indices) with the time index t < n ? n - 1 - t : t, or
        GatherElements along time if the later of both axes is the last dimension

        A length below 0 or above the extent yields an index that both reject, unless the data are empty.
        """
        data, lengths = inputs
        if data.shape is None or 0 in data.shape or lengths.shape is None:
            return None
        rank, extents = len(data.shape), w.shape(data)
        batch, seq = (normalize_axis(node.attrs[f"{k}_axis"], rank) for k in ("batch", "seq"))
        long = w("Convert", lengths, destination_type="i64")
        lead = rank if rank > MOST_PLACES or max(batch, seq) == rank - 1 else max(batch, seq) + 1
        dims = [extents[a] if a == batch else 1 for a in range(lead)]  # Reshape fails for other lengths
        per_sample = w("Reshape", long, dims, special_zero=False)
        along = [[-1 if i == a else 1 for i in range(lead)] for a in range(lead)]
        grid = [w("Reshape", w.numbers(extents[a]), along[a], special_zero=False) for a in range(lead)]
        time = grid[seq]
        mirrored = w("Subtract", w("Subtract", per_sample, time), 1)
        source = w("Select", w("Greater", per_sample, time), mirrored, time)
        checked = w("Select", w("Less", per_sample, 0), np.array(-(1 << 40)), source)
        if lead == rank:
            indices = w("Broadcast", checked, extents, mode="numpy")
            return [w("GatherElements", data, indices, axis=seq)]
        grid[seq], shape = checked, (*extents[:lead], 1)
        coordinates = [w("Broadcast", w("Unsqueeze", x, [lead]), shape, mode="numpy") for x in grid]
        return [w("GatherND", data, w("Concat", *coordinates, axis=lead), batch_dims=0)]

    samples = cases(
        ((3, 7), [1, 7, 4], {"batch_axis": 0, "seq_axis": 1}),
        ((5, 2, 3), [5, 3], {"batch_axis": 1, "seq_axis": 0}),
        ((2, 3, 17), [9, 16], {"batch_axis": 0, "seq_axis": 2}),
        ((2, 2, 4, 9), [3, 4], {"batch_axis": 1, "seq_axis": 2}),
    )


def _check_lengths(lengths: np.ndarray, shape: Sequence[int], seq: int) -> None:
    """Raise ModelError for lengths out of range, unless the data are empty."""
    ok = 0 in shape or (lengths.min() >= 0 and lengths.max() <= shape[seq])
    check(ok, f"seq_lengths should be from 0 to {shape[seq]}")
