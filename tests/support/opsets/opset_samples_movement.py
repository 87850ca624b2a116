"""Random nodes of OpenVINO's opsets that cut, gather, scatter and reshape."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset1 as o1
import openvino.opset6 as o6
import openvino.opset8 as o8
import openvino.opset12 as o12
import openvino.opset13 as o13
import openvino.opset15 as o15

from tests.support.onnx.samples import F, Rng, dims, flip, pick, spread, values
from tests.support.opsets.opset_samples import Inputs


def slicing(rng: Rng, i: Inputs) -> Any:
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    x = i(values(rng, shape, pick(rng, F, np.int32, np.int64)), False)
    op = pick(rng, "strided", "strided", "slice", "split", "variadic", "roll", "reverse", "tile", "pad")
    if op == "strided":
        count = int(rng.integers(1, rank + 2))
        masks = [[int(flip(rng, p)) for _ in range(count)] for p in (0.3, 0.3, 0.15, 0.15, 0.0)]
        if flip(rng, 0.3):
            masks[4][int(rng.integers(count))] = 1
        used = sum(1 for a, e in zip(masks[2], masks[4], strict=True) if not a and not e)
        if used > rank:
            count = rank
            masks = [[int(flip(rng, 0.3)) for _ in range(count)] for _ in range(2)] + [
                [0] * count for _ in range(3)
            ]
        begin = rng.integers(-3, 4, count)
        end = rng.integers(-3, 5, count)
        step = np.array([pick(rng, 1, 1, 1, 2, -1, -2) for _ in range(count)])
        return o13.strided_slice(x, i(begin), i(end), i(step), *masks)
    axis = int(rng.integers(-rank, rank))
    if op == "slice":
        axes = rng.permutation(rank)[: int(rng.integers(1, rank + 1))]
        step = np.array([pick(rng, 1, 1, 2, -1, -3) for _ in axes])
        return o13.slice(
            x, i(rng.integers(-6, 6, len(axes))), i(rng.integers(-6, 6, len(axes))), i(step), i(axes)
        )
    if op == "split":
        return o13.split(
            x,
            i.const(axis, np.int64),
            pick(rng, *[d for d in range(1, shape[axis] + 1) if shape[axis] % d == 0]),
        )
    if op == "variadic":
        cut = int(rng.integers(0, shape[axis] + 1))
        return o13.variadic_split(x, i.const(axis, np.int64), i.const([cut, -1], np.int64))
    if op == "roll":
        axes = rng.integers(-rank, rank, 2)
        return openvino.opset13.roll(x, i(rng.integers(-6, 7, 2)), i(axes))
    if op == "reverse":
        axes = rng.permutation(rank)[: int(rng.integers(0, rank + 1))]
        return o13.reverse(x, i.const(axes, np.int64), "index")
    if op == "tile":
        return o13.tile(x, i(rng.integers(1, 3, int(rng.integers(1, rank + 2)))))
    mode = pick(rng, "constant", "edge", "reflect", "symmetric")
    low = [int(rng.integers(-1, 3)) if mode == "constant" else int(rng.integers(0, max(d, 1))) for d in shape]
    high = [int(rng.integers(0, 3)) if mode == "constant" else int(rng.integers(0, max(d, 1))) for d in shape]
    return o12.pad(x, i(np.array(low)), i(np.array(high)), mode)


def gathering(rng: Rng, i: Inputs) -> Any:
    shape = dims(rng, 2, zeros=False)
    rank = len(shape)
    axis = int(rng.integers(-rank, rank))
    x = i(values(rng, shape, pick(rng, F, np.int32, np.int64)), False)
    kind = pick(rng, np.int32, np.int64)
    op = pick(
        rng,
        "gather",
        "nd",
        "elements",
        "sc_el",
        "sc_nd",
        "sc",
        "onehot",
        "bucketize",
        "search",
        "cumsum",
        "topk",
        "topk",
        "segments",
        "bag",
        "packed",
        "slicescatter",
        "revseq",
    )
    if op == "gather":
        batch = int(rng.integers(0, (axis % rank) + 1))
        ids = rng.integers(-shape[axis], shape[axis], (*shape[:batch], *dims(rng, 0, 3, zeros=False)))
        return o8.gather(x, i(ids.astype(kind)), i.const(axis, np.int64), batch)
    if op == "nd":
        batch = int(rng.integers(0, rank))
        last = int(rng.integers(1, rank - batch + 1))
        ids = np.stack([rng.integers(0, shape[batch + j], (*shape[:batch], 3)) for j in range(last)], -1)
        return o8.gather_nd(x, i(ids.astype(kind)), batch)
    if op == "elements":
        other = [d if j != axis % rank else int(rng.integers(1, 5)) for j, d in enumerate(shape)]
        return o6.gather_elements(x, i(rng.integers(-shape[axis], shape[axis], other).astype(kind)), axis)
    dtype: Any = pick(rng, F, np.int32)
    x = i(values(rng, shape, dtype), False)
    if op == "sc_el":
        other = [int(rng.integers(1, d + 1)) for d in shape]
        reduction = pick(rng, "none", "sum", "prod", "min", "max", "mean")
        ids = rng.integers(-shape[axis], shape[axis], other)
        if reduction == "none":
            ids = np.broadcast_to(
                np.arange(other[axis]).reshape([-1 if j == axis % rank else 1 for j in range(rank)]), other
            )
        return o12.scatter_elements_update(
            x,
            i(ids.astype(kind)),
            i(values(rng, other, dtype)),
            i.const(axis, kind),
            reduction,
            flip(rng) if reduction != "none" else True,
        )
    if op == "sc_nd":
        last = int(rng.integers(1, rank + 1))
        reduction = pick(rng, "none", "sum", "sub", "prod", "min", "max")
        places = rng.permutation(int(np.prod(shape[:last])))[:3]
        ids = np.stack(np.unravel_index(places, shape[:last]), -1)
        return o15.scatter_nd_update(
            x, i(ids.astype(kind)), i(values(rng, (len(places), *shape[last:]), dtype)), reduction
        )
    if op == "sc":
        count = int(rng.integers(1, shape[axis] + 1))
        ids = rng.permutation(shape[axis])[:count]
        new = list(shape)
        new[axis] = count
        return o13.scatter_update(x, i(ids.astype(kind)), i(values(rng, new, dtype)), i.const(axis, kind))
    if op == "onehot":
        return o1.one_hot(
            i(rng.integers(-1, 6, shape).astype(kind)),
            i.const(4, np.int64),
            i.const(pick(rng, 1.0, 5.0), F),
            i.const(0, F),
            int(rng.integers(-rank - 1, rank + 1)),
        )
    if op == "bucketize":
        edges = np.sort(values(rng, (int(rng.integers(0, 6)),)))
        return o13.bucketize(i.real(*shape), i(edges, False), pick(rng, "i32", "i64"), flip(rng))
    if op == "search":
        rows = np.sort(np.round(values(rng, shape)), -1)
        return o15.search_sorted(i(rows, False), i(np.round(values(rng, (*shape[:-1], 3))), False), flip(rng))
    if op == "cumsum":
        return o13.cum_sum(i.real(*shape), i(np.array(axis, np.int64)), flip(rng), flip(rng))
    if op == "topk":
        k = int(rng.integers(1, shape[axis] + 1))
        data = np.round(values(rng, shape, dtype)).astype(dtype)
        return openvino.opset11.topk(
            i(data, False),
            i(np.array(k, np.int64)),
            axis,
            pick(rng, "max", "min"),
            pick(rng, "value", "index"),
            pick(rng, "i32", "i64"),
            True,
        )
    table = i.real(6, *shape[1:])
    if op == "segments":
        ids, seg = rng.integers(0, 6, 7), np.sort(rng.integers(0, 4, 7))
        return o13.embedding_segments_sum(
            table,
            i(ids.astype(kind)),
            i(seg.astype(kind)),
            i.const(5, kind),
            i.const(1, kind),
            i(values(rng, (7,))),
        )
    if op == "bag":
        return o15.embedding_bag_offsets(
            table,
            i(rng.integers(0, 6, 7).astype(kind)),
            i(np.array([0, 2, 2, 5], kind)),
            i.const(1, kind),
            None,
            pick(rng, "sum", "mean"),
        )
    if op == "packed":
        return o15.embedding_bag_packed(
            table, i(rng.integers(0, 6, (3, 2)).astype(kind)), i(values(rng, (3, 2))), "sum"
        )
    if op == "slicescatter":
        step = pick(rng, 1, 2)
        begin = int(rng.integers(0, shape[axis]))
        count = len(range(begin, shape[axis], step))
        new = list(shape)
        new[axis] = count
        return o15.slice_scatter(
            x,
            i(values(rng, new, dtype)),
            i(np.array([begin])),
            i(np.array([1000])),
            i(np.array([step])),
            i.const([axis], np.int64),
        )
    batch, seq = (0, 1)
    lengths = rng.integers(1, shape[seq] + 1, shape[batch])
    return o13.reverse_sequence(x, i(lengths.astype(np.int32)), batch, seq)


def shaping(rng: Rng, i: Inputs) -> Any:
    op = pick(
        rng,
        "broadcast",
        "bidirectional",
        "explicit",
        "reshape",
        "squeeze",
        "unsqueeze",
        "d2s",
        "s2d",
        "s2b",
        "b2s",
        "shuffle",
        "select",
        "eye",
        "range",
        "transpose",
        "concat",
        "col2im",
        "patches",
        "reorg",
    )
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    if op == "broadcast":
        return o13.broadcast(i.real(*spread(rng, shape)), i(np.array(shape)), broadcast_spec="NUMPY")
    if op == "bidirectional":
        return o13.broadcast(
            i.real(*shape), i(np.array(spread(rng, shape), np.int64)), broadcast_spec="BIDIRECTIONAL"
        )
    if op == "explicit":
        axes = np.sort(rng.permutation(rank)[: int(rng.integers(1, rank + 1))])
        return o13.broadcast(
            i.real(*(shape[a] for a in axes)), i(np.array(shape)), i.const(axes, np.int64), "EXPLICIT"
        )
    if op == "reshape":
        flat = list(shape)
        if rank > 1:
            flat[0:2] = [flat[0] * flat[1]]
        special = flip(rng)
        if special and flip(rng):
            flat = [0, -1]
        return o13.reshape(i.real(*shape), i(np.array(flat)), special)
    if op == "squeeze":
        shape = tuple(1 if flip(rng) else d for d in shape)
        ones = [j for j, d in enumerate(shape) if d == 1]
        if flip(rng):
            return o13.squeeze(i.real(*shape), i.const(ones, np.int64) if ones else None)
        return o15.squeeze(i.real(*shape), i.const(list(range(rank)), np.int64), True)
    if op == "unsqueeze":
        axes = rng.permutation(rank + 2)[:2] - (rank + 2 if flip(rng) else 0)
        return o13.unsqueeze(i.real(*shape), i.const(axes, np.int64))
    b = pick(rng, 1, 2)
    how = pick(rng, "blocks_first", "depth_first")
    n = pick(rng, 1, 2, 3)
    if op == "d2s":
        return o13.depth_to_space(i.real(2, 3 * b**n, *([2] * n)), how, b)
    if op == "s2d":
        return o13.space_to_depth(i.real(2, 3, *([2 * b] * n)), how, b)
    if op == "s2b":
        pads = np.array([0, 0, 1, 0])
        return o13.space_to_batch(
            i.real(2, 1, 3, 4),
            i.const([1, 1, 2, 2], np.int64),
            i.const(pads, np.int64),
            i.const([0, 0, 0, 0], np.int64),
        )
    if op == "b2s":
        return o13.batch_to_space(
            i.real(8, 1, 2, 3),
            i.const([1, 1, 2, 2], np.int64),
            i.const([0, 0, 0, 1], np.int64),
            i.const([0, 0, 1, 0], np.int64),
        )
    if op == "shuffle":
        return o13.shuffle_channels(i.real(2, 6, 3), pick(rng, 1, -2), pick(rng, 1, 2, 3))
    if op == "select":
        return o13.select(
            i(values(rng, spread(rng, shape), np.bool_), False),
            i.real(*shape),
            i.real(*spread(rng, shape)),
            "numpy",
        )
    if op == "eye":
        return openvino.opset9.eye(
            i(np.array(int(rng.integers(1, 5)))),
            i(np.array(int(rng.integers(1, 5)))),
            i(np.array(int(rng.integers(-3, 4)))),
            "f32",
            i.const([2], np.int64) if flip(rng) else None,
        )
    if op == "range":
        dtype: Any = pick(rng, F, np.int32, np.int64)
        numbers = pick(rng, (0, 7, 2), (5, -4, -2), (3, 3, 1))
        return o13.range(*(i(np.array(v, dtype)) for v in numbers), pick(rng, "i64", "f32", "i32"))
    if op == "transpose":
        return o13.transpose(i.real(*shape), i(rng.permutation(rank)))
    if op == "concat":
        axis = int(rng.integers(-rank, rank))
        other = list(shape)
        other[axis] = 2
        return o13.concat([i.real(*shape), i.real(*other)], axis)
    if op == "col2im":
        return o15.col2im(i.real(1, 2 * 4, 9), i(np.array([4, 4])), i(np.array([2, 2])))
    if op == "patches":
        return openvino.opset3.extract_image_patches(
            i.real(1, 2, 7, 8), [2, 3], [2, 1], [1, 2], pick(rng, "VALID", "SAME_UPPER", "SAME_LOWER")
        )
    return o13.reorg_yolo(i.real(1, 4, 4, 6), [2])


FAMILIES = {f.__name__: f for f in (slicing, gathering, shaping)}
