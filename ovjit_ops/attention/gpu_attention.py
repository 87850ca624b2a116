"""Attention on GPUs: on tensor cores, or a row at a time by dot products (`cpu_attention_few`).

Tensor cores multiply f16 and bf16, of up to 160 elements a head in rows of a multiple of 16 bytes. Other
types, f32, and keys and values as bytes are computed as few rows on CPUs are.

Attention on tensor cores of GPUs: the scores of 16 queries, their softmax, and the sum of values, in
registers.

    s = scale q k^T + mask      m' = max(m, row maxima of s)      p = exp(s - m')
    l' = l exp(m - m') + row sums of p                            o' = o exp(m - m') + p v

A warp has 16 rows of q, whose fragments stay in registers, and takes `keys` keys at a time. The fragments of
scores are those of rows of the next product: rounded to 16 bits, they are multiplied with the values. Keys
and values are pieces of the warp's shared memory, as in `ovjit_ops.matmul.gpu_products`. While a block of
keys is multiplied, its values are on their way; while these are, the next keys.

Few rows are too few warps to read many keys: then items have a part of the keys each, and `combine_parts`
adds their results, with the rows' maxima m and sums of weights l:

    y = sum of o exp(m - M) l / sum of exp(m - M) l        M = the maximum of m

Lane 4 g + t has columns 2 t and 2 t + 1 of the rows g and g + 8: "low" and "high" in names are these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import MOST_SHARED
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Value
from ovjit.planning.copies import fill_kernel, plan_fill
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner, ceil_div, element_size
from ovjit.planning.views import Layout, View, product
from ovjit_ops.attention.cpu_attention import AttentionOfTensors, rows_of_groups
from ovjit_ops.attention.cpu_attention_few import RowNumbers
from ovjit_ops.attention.cpu_attention_kernels import EXP, TANH, AttentionMode, finite, without_weights
from ovjit_ops.matmul.gpu_epilogues import is_aligned
from ovjit_ops.matmul.gpu_products import GAP, LANES, PIECE, STEP, find_addresses, offset_of_sums


def shared_bytes(keys: int, depth_steps: int, value_steps: int) -> int:
    """Bytes of shared memory of a warp: keys and values, before them queries, and after them sums."""
    columns = -(-value_steps * PIECE // LANES) * LANES
    blocks = keys * (depth_steps + value_steps) * STEP
    return max(blocks, PIECE * depth_steps * STEP, PIECE * (columns * 4 + GAP))


@inline
def fetch_rows(p, stride, first, end, size, into, at, lines, steps):
    """Start the copies of `lines` rows of `size` bytes, from row `first` on, to pieces of 16 rows and a step.
    Rows from `end` on are zeros. It is a group of copies."""
    for i in static_range(lines // PIECE):
        line = spread[i64](first + i * PIECE) + cast[i64](at["line"])
        is_there = cast[i32](line < spread[i64](end))
        offsets = minimum(line, spread[i64](end - 1)) * spread[i64](stride) + cast[i64](at["half"])
        for j in static_range(steps):
            remaining = (spread[i32](size - j * STEP) - at["half"]) * is_there
            sizes = minimum(maximum(remaining, const[i32](0)), const[i32](16))
            copy_async(into + (i * steps + j) * PIECE * STEP, at["copy"], p + j * STEP, offsets, sizes)
    commit_copies()


@inline
def multiply_keys(c, f, keys_at, at, *, mode, keys, depth_steps):
    """Set c[i, h] to the products of the queries with eight keys."""
    for i in static_range(keys // PIECE):
        c[i, 0] = zero_sums[mode.T]()
        c[i, 1] = zero_sums[mode.T]()
        for j in static_range(depth_steps):
            f["k"] = read_tiles(keys_at + (i * depth_steps + j) * PIECE * STEP, at["column"])
            c[i, 0] = mma[mode.T](f[j], f["k"], 0, c[i, 0])
            c[i, 1] = mma[mode.T](f[j], f["k"], 1, c[i, 1])


@inline
def score(x, c, s, at, first, pm, mask_step, columns, factor, most, *, keys, mode):
    """Set s[i, h, e] to scaled and masked scores: -inf for keys that a row does not see. `x`: rows in the
    mask and limits of columns. `mask_step`: elements between rows of the mask."""
    for i, h, e in np.ndindex(keys // PIECE, 2, 4):
        column = at["pair"] + spread[i32](first + i * PIECE + h * 8 + e % 2)
        total = part_of_sums[f32](c[i, h], e) * factor
        if mode.capped:
            bent = applied(TANH, total)
            total = bent * most
        if mode.masked:
            there = x["row", e // 2] * spread[i32](mask_step) + minimum(column, spread[i32](columns - 1))
            total = total + take[f32](pm, there)
        s[i, h, e] = select(column < x["limit", e // 2], total, const[f32](-inf))


@inline
def across_columns(v, at, largest):
    """The maximum, or the sum, of the four lanes that have a row's columns."""
    other = permute[f32](v, at["next"])
    pair = maximum(v, other) if largest else v + other
    others = permute[f32](pair, at["second"])
    result = maximum(pair, others) if largest else pair + others
    return result


@inline
def weigh(x, s, at, *, keys):
    """Replace the scores s by weights, and update the rows' maxima x["m", r] and sums of weights x["l", r].
    Set x["shrink", r] to the factor of earlier sums. A lane's sums are those of its own columns."""
    for r in static_range(2):
        top = const[f32](-inf)
        for i, h, e in np.ndindex(keys // PIECE, 2, 2):
            top = maximum(top, s[i, h, 2 * r + e])
        block_top = across_columns(top, at, True)
        top = maximum(x["m", r], block_top)
        base = finite(top)
        less = x["m", r] - base
        x["shrink", r] = applied(EXP, less)
        x["m", r] = top
        total = x["l", r] * x["shrink", r]
        for i, h, e in np.ndindex(keys // PIECE, 2, 2):
            difference = s[i, h, 2 * r + e] - base
            s[i, h, 2 * r + e] = applied(EXP, difference)
            total = total + s[i, h, 2 * r + e]
        x["l", r] = total


@inline
def scale_rows(sums, low, high):
    """A fragment of sums with its rows multiplied by `low` and `high`."""
    return join_sums[f32](
        part_of_sums[f32](sums, 0) * low, part_of_sums[f32](sums, 1) * low,
        part_of_sums[f32](sums, 2) * high, part_of_sums[f32](sums, 3) * high,
    )  # fmt: skip


@inline
def add_values(o, s, x, f, values_at, at, *, mode, keys, value_steps):
    """o' = o shrink + weights values."""
    for i in static_range(keys // PIECE):
        f["p", i] = pack_sums[mode.T](
            join_sums[f32](s[i, 0, 0], s[i, 0, 1], s[i, 0, 2], s[i, 0, 3]),
            join_sums[f32](s[i, 1, 0], s[i, 1, 1], s[i, 1, 2], s[i, 1, 3]),
        )
    for j, h in np.ndindex(value_steps, 2):
        o[j, h] = scale_rows(o[j, h], x["shrink", 0], x["shrink", 1])
    for i, j in np.ndindex(keys // PIECE, value_steps):
        f["v"] = read_turned(values_at + (i * value_steps + j) * PIECE * STEP, at["row"])
        o[j, 0] = mma[mode.T](f["p", i], f["v"], 0, o[j, 0])
        o[j, 1] = mma[mode.T](f["p", i], f["v"], 1, o[j, 1])


@inline
def begin_rows(x, at, ps, sink_step, sinks):
    """Initialise the rows' maxima and sums of weights: those of a score without a value, if there is one."""
    for r in static_range(2):
        x["m", r] = const[f32](-inf)
        x["l", r] = const[f32](0)
        if sinks:
            x["m", r] = take[f32](ps, x["row", r] * spread[i32](sink_step))
            x["l", r] = select(at["pair"] == const[i32](0), const[f32](1), const[f32](0))


@inline
def share_results(o, x, at, shared, unseen, columns, value_steps):
    """Write o / the sum of weights to rows of `columns` f32 in shared memory, with zeros after them."""
    for r in static_range(2):
        total = across_columns(x["l", r], at, False)
        x["valid", r] = total > const[f32](0)
        x["factor", r] = const[f32](1) / total
        x["otherwise", r] = without_weights(total, unseen)
    offset = offset_of_sums(columns=columns)
    for j, h in np.ndindex(columns // PIECE, 2):
        result = zero_sums[f32]()
        if j < value_steps:
            scaled = scale_rows(o[j, h], x["factor", 0], x["factor", 1])
            result = join_sums[f32](
                select(x["valid", 0], part_of_sums[f32](scaled, 0), x["otherwise", 0]),
                select(x["valid", 0], part_of_sums[f32](scaled, 1), x["otherwise", 0]),
                select(x["valid", 1], part_of_sums[f32](scaled, 2), x["otherwise", 1]),
                select(x["valid", 1], part_of_sums[f32](scaled, 3), x["otherwise", 1]),
            )
        share_sums[f32](shared + (j * 2 + h) * 32, offset, result, 8 * (columns * 4 + GAP))


@inline
def find_lanes(at):
    """Set the lanes' addresses, the first of their two columns, and the lanes with the row's other ones."""
    find_addresses(at)
    lane = lane_numbers[i32]()
    at["pair"] = (lane & const[i32](3)) << const[i32](1)
    at["next"] = lane ^ const[i32](1)
    at["second"] = lane ^ const[i32](2)


@inline
def store_rows(p, step, low, high, count):
    """Store a number of each of the first `count` rows, `step` bytes apart."""
    lane = lane_numbers[i32]()
    source = (lane & const[i32](7)) << const[i32](2)
    by_row = select(lane < const[i32](8), permute[f32](low, source), permute[f32](high, source))
    store_spaced(p, step, by_row, count, f32)


@kernel(
    over="... s r/rows", q="... r d", k="... c key", v="... c value", y="... s r w", mask="... r c",
    sink="... r one", stat="... s r two", numbers=RowNumbers,
)  # fmt: skip
def tensor_attention(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, mask: Tensor, sink: Tensor, stat: Tensor, numbers, part, *,
    mode, rows, keys, depth_steps, value_steps, columns, size,
):  # fmt: skip
    """16 rows of a head. `T`, `out`: element types of q, k and v, and of y. Rows of q, k and v are
    multiples of 16 bytes, in `depth_steps` and `value_steps` steps of 32. `keys`: those of a block.
    `columns`: those of values, a multiple of 32. `size`: bytes of shared memory. `sinks`: each row has one
    more score, without a value. `capped`: scores are cap tanh(...). `split`: an item has `part` keys, a
    multiple of `keys`, and stores its rows' m and l to `stat`."""
    f, c, s, o, x, at = registers()
    shared = shared_memory(size)
    values_at = shared + keys * depth_steps * STEP
    find_lanes(at)
    factor = splat[f32](numbers.scale)
    most = factor
    if mode.capped:
        most = splat[f32](numbers.cap)
    for which, row, pq, pk, pv, py, pm, ps, pt in items(
        q, k, v, y, mask, sink if mode.sinks else mask, stat if mode.split else y
    ):
        last = y.size.r - 1 - row
        begin = 0
        end = k.size.c
        if mode.split:
            begin = which * part
            end = min(k.size.c, begin + part)
        if mode.causal:
            end = min(k.size.c, row + rows)
        for r in static_range(2):
            line = (lane_numbers[i32]() >> const[i32](2)) + const[i32](8 * r)
            x["row", r] = minimum(line, spread[i32](last))
            x["limit", r] = spread[i32](k.size.c)
            if mode.causal:
                x["limit", r] = minimum(x["limit", r], line + spread[i32](row + 1))
        fetch_rows(pq, q.stride.r, 0, last + 1, q.size.d * 2, shared, at, PIECE, depth_steps)
        await_copies(0)
        warp_barrier()
        for j in static_range(depth_steps):
            f[j] = read_tiles(shared + j * PIECE * STEP, at["row"])
        warp_barrier()
        begin_rows(x, at, ps, sink.stride.r // 4, mode.sinks)
        for j, h in np.ndindex(value_steps, 2):
            o[j, h] = zero_sums[mode.T]()
        fetch_rows(pk, k.stride.c, begin, end, q.size.d * 2, shared, at, keys, depth_steps)
        fetch_rows(pv, v.stride.c, begin, end, y.size.w * 2, values_at, at, keys, value_steps)
        for first in range(begin, end, keys):
            await_copies(1)
            warp_barrier()
            multiply_keys(c, f, shared, at)
            warp_barrier()
            fetch_rows(pk, k.stride.c, first + keys, end, q.size.d * 2, shared, at, keys, depth_steps)
            score(x, c, s, at, first, pm, mask.stride.r // 4, k.size.c, factor, most)
            weigh(x, s, at)
            await_copies(1)
            warp_barrier()
            add_values(o, s, x, f, values_at, at)
            warp_barrier()
            fetch_rows(pv, v.stride.c, first + keys, end, y.size.w * 2, values_at, at, keys, value_steps)
        await_copies(0)
        warp_barrier()
        share_results(o, x, at, shared, numbers.unseen, columns, value_steps)
        if mode.split:
            store_rows(pt, stat.stride.r, x["m", 0], x["m", 1], last + 1)
            low = across_columns(x["l", 0], at, False)
            high = across_columns(x["l", 1], at, False)
            store_rows(pt + stat.stride.two, stat.stride.r, low, high, last + 1)
        warp_barrier()
        for r in range(min(rows, last + 1)):
            for j in static_range(columns // LANES):
                total = read_shared[f32](shared + r * (columns * 4 + GAP) + j * LANES * 4)
                there = y.at(py, r=r, w=j * LANES)
                store_spaced(there, y.stride.w, total, y.size.w - j * LANES, mode.out)
        warp_barrier()


@kernel(over="... r w/VL", part="... s r w", stat="... s r two", y="... r w")
def combine_parts(part: Tensor, stat: Tensor, y: Tensor, unseen: Ptr, *, out):
    """The results of parts of the keys as one: see the top of this file."""
    for _row, column, pp, pt, py in items(part, stat, y):
        count = y.size.w - column
        top = const[f32](-inf)
        for i in range(stat.size.s):
            top = maximum(top, splat[f32](stat.at(pt, s=i)))
        base = finite(top)
        total = const[f32](0)
        result = const[f32](0)
        for i in range(stat.size.s):
            weights = splat[f32](stat.at(pt, s=i, two=1))
            less = splat[f32](stat.at(pt, s=i)) - base
            shrink = applied(EXP, less)
            weight = weights * shrink
            sums = gather[f32](part.at(pp, s=i), part.stride.w, count)
            result = result + select(weights > const[f32](0), sums * weight, const[f32](0))
            total = total + weight
        result = select(total > const[f32](0), result / total, without_weights(total, unseen))
        store_spaced(py, y.stride.w, result, count, out)


#: Maximum bytes of a row of q, k and v on tensor cores: their fragments and sums are in registers.
MOST_ROW = 320
#: Warps that a card has room for, maximum parts of the keys, and the number of keys from which on they are
#: parted.
WARPS_AT_ONCE, MOST_PARTS, LEAST_KEYS = 528, 32, 256
#: Maximum bytes of a row with which a warp takes 32 keys at a time, for the sake of registers.
WIDE_ROW = 160


class GpuAttention(AttentionOfTensors):
    """Attention of f16, bf16 or f32 tensors, with keys and values of these types, or rows of bytes."""

    def set_up(self) -> None:
        mode = self.name_inputs()
        self.row_kernel = self.make_few_kernel(mode)
        self.tensor_kernel = self._make_tensor_kernel(mode)
        kernel = self.row_kernel if self.tensor_kernel is None else self.tensor_kernel
        self.kernels = (kernel, fill_kernel(element_size(self.out.dtype)))
        #: The kernel for a part of the keys; None where rows see other keys each.
        self.part_kernel = None
        if self.tensor_kernel is not None and not self.causal and "sink" not in self.named:
            self.part_kernel = self._make_tensor_kernel(mode._replace(split=True))
            self.combine_kernel = combine_parts(out=self.out.dtype)
            assert self.part_kernel is not None
            self.kernels += (self.part_kernel, self.combine_kernel)

    def _make_tensor_kernel(self, mode: AttentionMode) -> Kernel | None:
        """The kernel for tensor cores; None if types or sizes do not fit it."""
        q, k, v = (self.named[n] for n in "qkv")
        sizes = q.shape[-1], v.shape[-1]
        if q.dtype not in HALVES or any(x.dtype != q.dtype for x in (k, v)) or self.out.dtype not in FLOATS:
            return None
        if any(not isinstance(n, int) or n % 8 or not 0 < 2 * n <= MOST_ROW for n in sizes):
            return None
        depth_steps, value_steps = (ceil_div(2 * n, STEP) for n in sizes)
        keys = 2 * PIECE if 2 * max(sizes) <= WIDE_ROW else PIECE
        size = shared_bytes(keys, depth_steps, value_steps)
        assert size <= MOST_SHARED
        mode = mode._replace(keys="", values="", masked="mask" in self.named and not self.causal)
        return tensor_attention.kernel(
            name_of("tensor_attention", {"": mode, "depth": sizes[0], "width": sizes[1]}),
            mode=mode._replace(out="f32") if mode.split else mode, rows=PIECE, keys=keys,
            depth_steps=depth_steps, value_steps=value_steps,
            columns=ceil_div(value_steps * PIECE, LANES) * LANES, size=size,
        )  # fmt: skip

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out, -1, any_order=True)
        if not y.count:
            return
        rows, depth = planner.shape(self.named["q"])[-2:]
        columns, value_size = planner.shape(self.named["v"])[-2:]
        if not columns:  # empty sums
            plan_fill(planner, y)
            return
        batch = y.shape[:-2]
        mask = self._mask(planner, (*batch, rows, columns))
        sink = planner.view(self.named["sink"]).expand((*batch, rows, 1)) if "sink" in self.named else None
        views = {n: self._rows(planner, self._as_it_lies(n)) for n in "qkv"}
        scale = self._scale(planner, depth)
        tensors = {n: view.expand((*batch, *view.shape[-2:])) for n, view in views.items()}
        tensors |= {"y": y, "mask": mask} | ({} if sink is None else {"sink": sink})
        numbers: dict[str, Any] = {"scale": scale.ptr, "unseen": planner.constants.at(self.unseen), "cap": 0}
        if self.cap is not None:
            numbers["cap"] = planner.constants.at(self.cap_at)
        work = columns * (depth + value_size)
        flops = 2.0 * product(batch) * rows * work
        if self.tensor_kernel is not None:
            tensors = rows_of_groups(tensors, self.causal)
            options = {"reads": [scale], "flops": flops, "rows": PIECE, "numbers": RowNumbers(**numbers)}
            parts = self._parts(tensors["y"].shape, columns)
            if parts > 1:
                self._plan_parts(planner, tensors, parts, columns, work, options)
                return
            tensors["y"] = with_parts(tensors["y"], 1)
            launch(planner, self.tensor_kernel, tensors, ("y",), work=work * PIECE, part=0, **options)
            return
        self.plan_few(planner, tensors, numbers, scale)

    def _parts(self, shape: Sequence[int], columns: int) -> int:
        """The number of parts of the keys: several if there are fewer rows than a card has warps."""
        if (
            self.part_kernel is None
            or not all(isinstance(d, int) for d in shape[:-1])
            or columns < LEAST_KEYS
        ):
            return 1
        items = product(shape[:-2]) * ceil_div(shape[-2], PIECE)
        return min(MOST_PARTS, ceil_div(WARPS_AT_ONCE, items)) if 2 * items <= WARPS_AT_ONCE else 1

    def _plan_parts(
        self, planner: Planner, tensors: dict[str, View], parts: int, columns: int, work: int, options: Any
    ) -> None:
        """Plan the results of parts of the keys, and their sum."""
        y, kernel = tensors["y"], self.part_kernel
        assert kernel is not None
        batch, (rows, width) = y.shape[:-2], y.shape[-2:]
        results = planner.allocate((*batch, parts, rows, width), 4)
        stat = planner.allocate((*batch, parts, rows, 2), 4)
        keys = 2 * PIECE if 2 * max(width, tensors["q"].shape[-1]) <= WIDE_ROW else PIECE
        part = ceil_div(ceil_div(columns, parts), keys) * keys
        launch(
            planner, kernel, {**tensors, "y": results, "stat": stat}, ("y", "stat"), work=work * PIECE,
            part=part,
            **options,
        )  # fmt: skip
        launch(
            planner, self.combine_kernel, {"part": results, "stat": stat, "y": y}, ("y",), work=parts * LANES,
            unseen=planner.constants.at(self.unseen),
        )  # fmt: skip

    def _rows(self, planner: Planner, value: Value) -> View:
        """The view of an operand whose rows have adjacent elements; on tensor cores, they begin at multiples
        of 16 bytes, too."""
        order = Layout(range(len(value.shape)))
        if self.tensor_kernel is None:
            return planner.with_layout(value, order)
        view = planner.view(value)
        return view if is_aligned(view) else planner.copy(value, order)


def with_parts(view: View, parts: int) -> View:
    """[..., r, w] as [..., parts, r, w], the same in all parts."""
    *batch, rows, width = view.shape
    strides = (*view.strides[:-2], 0, *view.strides[-2:])
    return View(view.buffer, (*batch, parts, rows, width), strides, view.itemsize, view.offset)
