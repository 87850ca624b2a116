"""Native attention: tiles for q k^T and p v, with the softmax between them in blocks of columns.

The whole matrix of scores is never in memory. A chunk takes some rows of one head, and for block after block
of columns

    s = q k^T + mask               by tiles, from keys packed as panels
    m' = max(m, row maxima of s)   p = exp(s - m')     l' = l exp(m - m') + row sums of p
    o' = o exp(m - m') + p v       by tiles, from values packed as panels

in its scratch memory; then out = o / l. One kind of tile does both products: what it adds at the end is the
mask, or o. Heads are reached by strides, so that heads that share keys read the same panels. A few rows
(as in generating text) are not worth packing for: they go by dot products, from keys and values as they lie.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.isa import Isa, host_isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.trace import Recorder, exp
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering, place_constants
from ovjit.compiler.plan import ALIGNMENT, Constants, Planner, ceil_div, split
from ovjit.compiler.views import Layout, Ptr, View, merge_dims, plain, product
from ovjit.graph.graph import Value
from ovjit.graph.shapes import bounds
from ovjit.tiles.driver import ROWS
from ovjit.tiles.formats import F32, WORD
from ovjit.tiles.micro import TABLE, make_tile
from ovjit.tiles.pack import panel_sizes, tile_width
from ovjit_ops.matmul.cpu_products import pack_kernel

#: Batch dimensions of the kernels; more are merged where strides allow, else there is a copy.
_DIMS = 3
#: Columns of a block: scores of some rows and the block's keys stay in a core's caches.
COLUMNS = 256
#: Tiles of a chunk's rows.
TILES = 2
#: With fewer rows than this, dot products are used.
FEW_ROWS = 6
#: Bytes of one tile's table: inputs, outputs, what is added.
_TABLE = 3 * TABLE * 8


def _exp_body() -> tuple[list[str], list[tuple[str, str]], str]:
    """exp(x0) as lines of kernel source, its constants, and the name of its result."""
    recorder = Recorder()
    made = exp(recorder.input("x0", "f32"))
    body = Body(["f32"], ["f32"], recorder.lines, [made.name])
    lines, constants = body.source("")
    return lines, list(constants.values()), body.result_names(constants)[0]


def _adding() -> Epilogue:
    """acc + what lies at the pixel's address."""
    recorder = Recorder()
    total = recorder.input("x0", "f32") + recorder.input("x1", "f32")
    return Epilogue(Body(["f32", "f32"], ["f32"], recorder.lines, [total.name]), ["pixel"])


def _frame(names: Sequence[str], more: Sequence[str]) -> Frame:
    """Pointers with a stride for each batch dimension, then integers."""
    frame = Frame().pointers(*names, "scale")
    frame.integers(*(f"{name}_{d}" for name in names for d in range(_DIMS)))
    return frame.integers(*(f"d{d}" for d in range(_DIMS)), *more)


def _head(names: Sequence[str]) -> list[str]:
    """Source that finds the rows of a chunk: `first`, `count`, and the addresses of its head."""
    out = ["    part = chunk % parts", "    rest = chunk // parts"]
    for d in range(_DIMS - 1, 0, -1):
        out += [f"    i{d} = rest % d{d}", f"    rest = rest // d{d}"]
    out += ["    i0 = rest", "    first = part * block", "    count = imin(block, rows - first)"]
    return out + [f"    {n} += " + " + ".join(f"i{d} * {n}_{d}" for d in range(_DIMS)) for n in names]


def _vectors(indent: str, stop: str, whole: Sequence[str], rest: Sequence[str]) -> list[str]:
    """A loop of whole vectors j, then the rest under a mask."""
    return [
        f"{indent}j = 0", f"{indent}while j + VL <= {stop}:", *(f"{indent}    {x}" for x in whole),
        f"{indent}    j += VL", f"{indent}if j < {stop}:", *(f"{indent}    {x}" for x in rest),
    ]  # fmt: skip


@functools.lru_cache(16)
def attention_kernel(causal: bool, sink: bool, isa: Isa) -> Kernel:
    """Rows of a head by tiles. k and v are panels; everything about shapes is in the arguments."""
    rows, width, lanes = ROWS[isa.name], tile_width(isa), isa.lanes
    names = ["q", "k", "v", "y", "mask", *(["sink"] if sink else [])]
    more = (
        "parts block rows columns depth wide q_r y_r mask_r mask_c k_p v_p columns_per q_at q_row o_at o_row"
    )
    more += " s_at s_row m_at l_at" + (" sink_r" if sink else "")
    frame = _frame(names, more.split()).pointers("zeros")
    lines, constants, result = _exp_body()
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue(), *_head(names)]
    src += [f"    {name} = {text}" for name, text in constants]
    src += ["    zero = const_f32(0.0)", "    one = const_f32(1.0)", "    lowest = const_f32(-float_inf)"]
    src += ["    factor = splat_f32(scale)", "    r = 0", "    while r < count:"]
    src += ["        p = q + (first + r) * q_r", "        t = scratch + q_at + r * q_row", "        j = 0"]
    src += ["        while j < depth:"]
    src += ["            storem_f32(t + j * 4, mul(loadm_f32(p + j * 4, depth - j), factor), depth - j)"]
    src += [
        "            j += VL",
        "        t = scratch + o_at + r * o_row",
        "        j = 0",
        "        while j < wide:",
    ]
    src += ["            storem_f32(t + j * 4, zero, wide - j)", "            j += VL"]
    if sink:
        src += ["        start = splat_f32(sink + (first + r) * sink_r)"]
        src += [
            "        storem_f32(scratch + m_at + r * 4, start, 1)",
            "        storem_f32(scratch + l_at + r * 4, one, 1)",
        ]
    else:
        src += ["        storem_f32(scratch + m_at + r * 4, lowest, 1)"]
        src += ["        storem_f32(scratch + l_at + r * 4, zero, 1)"]
    src += ["        r += 1", "    end = columns"]
    src += ["    end = imin(columns, first + count)"] if causal else []
    src += ["    at = 0", "    while at < end:", "        n = imin(columns_per, end - at)"]
    # scores
    src += _tables(rows, "scratch + q_at + m * q_row", "scratch + s_at + m * s_row",
                   "mask + (first + m) * mask_r + at * mask_c")  # fmt: skip
    src += [f"        c = at // {width}", f"        while c * {width} < at + n:"]
    src += _tile_calls(rows, lanes, "k + c * k_p", "depth", f"c * {width} - at", f"at + n - c * {width}",
                       f"columns - c * {width}")  # fmt: skip
    src += ["            c += 1"]
    # softmax
    src += [
        "        r = 0",
        "        while r < count:",
        "            t = scratch + s_at + r * s_row",
        "            live = n",
    ]
    src += ["            live = imin(n, first + r + 1 - at)"] if causal else []
    src += ["            top = lowest"]
    src += _vectors(
        "            ", "live", ["top = max_(top, load_f32(t + j * 4))"],
        ["top = blend_f32(live - j, max_(top, loadm_f32(t + j * 4, live - j)), top)"],
    )  # fmt: skip
    src += ["            old = splat_f32(scratch + m_at + r * 4)"]
    src += ["            top = max_(old, spread_f32(hmax_f32(top)))"]
    src += ["            storem_f32(scratch + m_at + r * 4, top, 1)"]
    src += ["            top = select(eq(top, lowest), zero, top)", "            total = zero"]
    each = [*lines]
    src += _vectors(
        "            ", "live",
        ["x0 = sub(load_f32(t + j * 4), top)", *each, f"store_f32(t + j * 4, {result})",
         f"total = add(total, {result})"],
        ["x0 = sub(loadm_f32(t + j * 4, live - j), top)", *each, f"storem_f32(t + j * 4, {result}, live - j)",
         f"total = blend_f32(live - j, add(total, {result}), total)"],
    )  # fmt: skip
    if causal:
        src += ["            j = imax(live, 0)", "            while j < n:"]
        src += ["                storem_f32(t + j * 4, zero, n - j)", "                j += VL"]
    src += [
        "            x0 = sub(old, top)",
        *(f"            {x}" for x in lines),
        f"            shrink = {result}",
    ]
    src += ["            total = fma(splat_f32(scratch + l_at + r * 4), shrink, spread_f32(hadd_f32(total)))"]
    src += ["            storem_f32(scratch + l_at + r * 4, total, 1)", "            if at > 0:"]
    src += [
        "                t = scratch + o_at + r * o_row",
        "                j = 0",
        "                while j < wide:",
    ]
    src += [
        "                    storem_f32(t + j * 4, mul(loadm_f32(t + j * 4, wide - j), shrink), wide - j)"
    ]
    src += ["                    j += VL", "            r += 1"]
    # p v
    src += _tables(
        rows, "scratch + s_at + m * s_row", "scratch + o_at + m * o_row", "scratch + o_at + m * o_row"
    )
    src += ["        c = 0", f"        while c * {width} < wide:", f"            step = {width * 4}"]
    src += [f"            if wide - c * {width} <= {lanes}:", f"                step = {lanes * 4}"]
    src += _tile_calls(rows, lanes, "v + c * v_p + at * step", "n", f"c * {width}", f"wide - c * {width}",
                       f"wide - c * {width}")  # fmt: skip
    src += ["            c += 1", "        at += columns_per"]
    src += [
        "    r = 0",
        "    while r < count:",
        "        scaled = div(one, splat_f32(scratch + l_at + r * 4))",
    ]
    src += ["        t = scratch + o_at + r * o_row", "        p = y + (first + r) * y_r", "        j = 0"]
    src += ["        while j < wide:"]
    src += ["            storem_f32(p + j * 4, mul(loadm_f32(t + j * 4, wide - j), scaled), wide - j)"]
    src += ["            j += VL", "        r += 1", "    return 0", ""]

    def intrinsics(target: Isa) -> dict[str, Any]:
        epilogue = _adding()
        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue)
            for r in ROWS[target.name]
            for v in (target.tile_vectors, 1)
        }

    name = f"attention_f32_{isa.name}{'_causal' if causal else ''}{'_sink' if sink else ''}"
    return Kernel(name, "\n".join(src), frame, intrinsics, _adding().text())


def _tables(rows: Sequence[int], source: str, target: str, added: str) -> list[str]:
    """Addresses for the tiles of all rows of the chunk; a tile that has too few repeats the last one."""
    out = [
        "        r = 0",
        "        while r < count:",
        f"            table = scratch + r // {rows[0]} * {_TABLE}",
    ]
    out += [
        "            i = 0",
        f"            while i < {rows[0]}:",
        "                m = imin(r + i, count - 1)",
    ]
    for row, address in enumerate((source, target, added)):
        out += [f"                st_i64(table + {row * TABLE * 8} + i * 8, {address})"]
    return [*out, "                i += 1", f"            r += {rows[0]}"]


def _tile_calls(
    rows: Sequence[int], lanes: int, weights: str, depth: str, channel: str, valid: str, stored: str
) -> list[str]:
    """One panel over the tiles of the chunk; `stored` tells how wide the panel is in memory."""
    out = [
        "            r = 0",
        "            while r < count:",
        f"                table = scratch + r // {rows[0]} * {_TABLE}",
    ]
    out += ["                left = count - r"]
    for condition, vectors in ((f"if {stored} > {lanes}:", 2), ("else:", 1)):
        out += [f"                {condition}"]
        for n, size in enumerate(rows):
            last = n == len(rows) - 1
            test = "else:" if last else f"{'if' if n == 0 else 'elif'} left > {rows[n + 1]}:"
            arguments = f"zeros, 1, 0, 1, 0, {depth}, {channel}, {valid}, {weights}, 0"
            out += [f"                    {test}"]
            out += [f"                        tile_{size}_{vectors}(table, {weights}, {arguments})"]
    return [*out, f"                r += {rows[0]}"]


@functools.lru_cache(16)
def few_rows_kernel(causal: bool, sink: bool) -> Kernel:
    """Rows of a head one by one: dot products with every key, then the values summed by weight."""
    names = ["q", "k", "v", "y", "mask", *(["sink"] if sink else [])]
    more = "parts block rows columns depth wide q_r y_r mask_r mask_c k_s v_s" + (" sink_r" if sink else "")
    frame = _frame(names, more.split())
    lines, constants, result = _exp_body()
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue(), *_head(names)]
    src += [f"    {name} = {text}" for name, text in constants]
    src += [
        "    zero = const_f32(0.0)",
        "    lowest = const_f32(-float_inf)",
        "    factor = splat_f32(scale)",
    ]
    src += ["    r = 0", "    while r < count:", "        p = q + (first + r) * q_r", "        end = columns"]
    src += ["        end = imin(columns, first + r + 1)"] if causal else []
    src += [
        "        s = 0",
        "        while s < end:",
        "            total = zero",
        "            t = k + s * k_s",
    ]
    src += _vectors(
        "            ", "depth", ["total = fma(load_f32(p + j * 4), load_f32(t + j * 4), total)"],
        ["total = fma(loadm_f32(p + j * 4, depth - j), loadm_f32(t + j * 4, depth - j), total)"],
    )  # fmt: skip
    src += ["            storem_f32(scratch + s * 4, spread_f32(hadd_f32(total)), 1)", "            s += 1"]
    src += [
        "        t = mask + (first + r) * mask_r",
        "        top = lowest",
        "        j = 0",
        "        while j < end:",
    ]
    src += ["            x0 = mul(loadm_f32(scratch + j * 4, end - j), factor)", "            if mask_c > 0:"]
    src += ["                x0 = add(x0, loadm_f32(t + j * 4, end - j))"]
    src += [
        "            storem_f32(scratch + j * 4, x0, end - j)",
        "            top = blend_f32(end - j, max_(top, x0), top)",
    ]
    src += ["            j += VL", "        top = spread_f32(hmax_f32(top))"]
    src += (
        ["        old = splat_f32(sink + (first + r) * sink_r)", "        top = max_(top, old)"]
        if sink
        else []
    )
    src += ["        total = zero", "        j = 0", "        while j < end:"]
    src += [
        "            x0 = sub(loadm_f32(scratch + j * 4, end - j), top)",
        *(f"            {x}" for x in lines),
    ]
    src += [f"            storem_f32(scratch + j * 4, {result}, end - j)"]
    src += [f"            total = blend_f32(end - j, add(total, {result}), total)", "            j += VL"]
    src += ["        total = spread_f32(hadd_f32(total))"]
    if sink:
        src += [
            "        x0 = sub(old, top)",
            *(f"        {x}" for x in lines),
            f"        total = add(total, {result})",
        ]
    src += [
        "        scaled = div(const_f32(1.0), total)",
        "        p = y + (first + r) * y_r",
        "        j = 0",
    ]
    src += [
        "        while j < wide:",
        "            a0 = zero",
        "            a1 = zero",
        "            a2 = zero",
        "            a3 = zero",
    ]
    src += [
        "            s = 0",
        "            while s < end:",
        "                w = splat_f32(scratch + s * 4)",
    ]
    src += ["                t = v + s * v_s + j * 4"]
    src += [
        f"                a{i} = fma(w, loadm_f32(t + {i} * VL * 4, wide - j - {i} * VL), a{i})"
        for i in range(4)
    ]
    src += ["                s += 1"]
    src += [
        f"            storem_f32(p + (j + {i} * VL) * 4, mul(a{i}, scaled), wide - j - {i} * VL)"
        for i in range(4)
    ]
    src += ["            j += 4 * VL", "        r += 1", "    return 0", ""]
    name = f"attention_rows_f32{'_causal' if causal else ''}{'_sink' if sink else ''}"
    return Kernel(name, "\n".join(src), frame)


class Attention(Lowering):
    """Attention of f32 tensors; the mask, if there is one, is f32 and added."""

    def __init__(self, group: Group):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        self.out = self.node.output
        self.causal = bool(self.node.attrs["causal"])
        named = dict(zip(("q", "k", "v", "mask", "scale", "sink"), self.node.inputs, strict=False))
        self.named = named
        self.isa = host_isa()
        self.few = few_rows_kernel(self.causal, "sink" in named)
        self.many = attention_kernel(self.causal, "sink" in named, self.isa)
        self.packer = pack_kernel(self.isa, F32)
        low, high = bounds(named["q"].shape[-2])
        kernels = [self.few] if low < FEW_ROWS else []
        kernels += [self.many, self.packer] if high is None or high >= FEW_ROWS else []
        self.kernels = tuple(kernels)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)
        self.zeros = constants.place(np.zeros(COLUMNS, np.float32), "attention zeros").offset

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out, -1)
        if not y.count:
            return
        q = self._adjacent(planner, self.named["q"])
        rows, depth = q.shape[-2:]
        columns, wide = planner.shape(self.named["v"])[-2:]
        batch = y.shape[:-2]
        few = rows < FEW_ROWS
        k, v = (self._adjacent(planner, self.named[n]) for n in "kv")
        views = {"q": q, "y": y}
        values: dict[str, Any] = {
            "rows": rows, "columns": columns, "depth": depth, "wide": wide, "q_r": q.strides[-2],
            "y_r": y.strides[-2],
        }  # fmt: skip
        if few:
            views |= {"k": k, "v": v}
            values |= {"k_s": k.strides[-2], "v_s": v.strides[-2]}
        else:
            turned = planner.copy(self.named["k"], _columns_last(len(k.shape)))
            order = (*range(len(k.shape) - 2), len(k.shape) - 1, len(k.shape) - 2)
            views["k"], values["k_p"] = self._panels(planner, turned.permute(order))
            views["v"], values["v_p"] = self._panels(planner, v)
        reads = [view for name, view in views.items() if name != "y"]
        mask = self._mask(planner, (*batch, rows, columns))
        values |= {"mask_r": 0, "mask_c": 0}
        pointers: dict[str, Any] = {name: view.ptr for name, view in views.items()}
        strides = {
            name: list(view.expand((*batch, *view.shape[-2:])).strides[:-2]) for name, view in views.items()
        }
        pointers["mask"] = planner.constants.at(self.zeros)
        strides["mask"] = [0] * len(batch)
        if mask is not None:
            pointers["mask"], strides["mask"] = mask.ptr, list(mask.strides[:-2])
            values |= {"mask_r": mask.strides[-2], "mask_c": 4}
            reads.append(mask)
        if "sink" in self.named:
            sink = planner.view(self.named["sink"]).expand((*batch, rows, 1))
            pointers["sink"], strides["sink"] = sink.ptr, list(sink.strides[:-2])
            values["sink_r"] = sink.strides[-2]
            reads.append(sink)
        values["scale"], scale = self._scale(planner, depth)
        reads += scale
        extents = self._batch(planner, batch, strides)
        self._step(planner, values | pointers, extents, strides, few, reads, y)

    def _step(
        self, planner: Planner, values: dict[str, Any], extents: Sequence[int],
        strides: dict[str, list[int]], few: bool, reads: list[View], y: View,
    ) -> None:  # fmt: skip
        rows, columns, depth, wide = (values[n] for n in ("rows", "columns", "depth", "wide"))
        tall = ROWS[self.isa.name][0]
        block = 1 if few else min(TILES * tall, ceil_div(rows, tall) * tall)
        parts = ceil_div(rows, block)
        values |= {"parts": parts, "block": block}
        for d in range(_DIMS):
            values[f"d{d}"] = extents[d]
            values |= {f"{name}_{d}": each[d] for name, each in strides.items()}
        heads = product(extents)
        flops = 2.0 * heads * rows * columns * (depth + wide)
        if few:
            planner.need_scratch(ceil_div(columns * 4, ALIGNMENT) * ALIGNMENT + ALIGNMENT)
            planner.step(self.few, values, heads * parts, reads, [y], flops)
            return
        sizes = [("q", depth), ("s", COLUMNS), ("o", wide)]
        at = ceil_div(block, tall) * _TABLE
        values["columns_per"] = COLUMNS
        for name, n in sizes:
            row = ceil_div(n * 4, ALIGNMENT) * ALIGNMENT
            values |= {f"{name}_at": at, f"{name}_row": row}
            at += block * row
        for name in ("m", "l"):
            values[f"{name}_at"] = at
            at += ceil_div(block * 4, ALIGNMENT) * ALIGNMENT
        values["zeros"] = planner.constants.at(self.zeros)
        planner.need_scratch(at)
        planner.step(self.many, values, heads * parts, reads, [y], flops)

    def _scale(self, planner: Planner, depth: int) -> tuple[Ptr, list[View]]:
        if "scale" in self.named:
            view = planner.view(self.named["scale"])
            return view.ptr, [view]
        view = planner.data.view(np.full(1, 1 / math.sqrt(max(depth, 1)), np.float32), "f32")
        return view.ptr, []

    def _mask(self, planner: Planner, shape: tuple[int, ...]) -> View | None:
        """The mask broadcast to all scores, with adjacent columns; None where there is none."""
        if self.causal or "mask" not in self.named:
            return None
        view = planner.view(self.named["mask"])
        if not view.shape or (view.shape[-1] == 1 and shape[-1] != 1):
            lead = view.shape[:-1] if view.shape else ()
            whole = planner.allocate((*lead, shape[-1]), 4)
            planner.copy_step(view.expand((*lead, shape[-1])), whole)
            view = whole
        elif view.shape[-1] > 1 and view.strides[-1] != 4:
            view = planner.contiguous(self.named["mask"])
        return view.expand(shape)

    def _panels(self, planner: Planner, view: View) -> tuple[View, int]:
        """Matrices [..., depth, n] as panels: (a view with a stride for each matrix, bytes of a panel)."""
        depth, n = view.shape[-2:]
        batch = view.shape[:-2]
        sizes = panel_sizes(depth, n, self.isa)
        each = ceil_div(sizes.group, ALIGNMENT) * ALIGNMENT
        packed = planner.allocate((*batch, 1, max(each // WORD, 1)), WORD)
        panels = ceil_div(n, sizes.width)
        if not view.count:
            return packed, sizes.panel
        extents, (sources, targets) = merge_dims(batch, [v.strides[: len(batch)] for v in (view, packed)])
        groups, x_g, y_g = (extents.pop(), sources.pop(), targets.pop()) if extents else (1, 0, 0)
        for index in np.ndindex(*extents):
            source = sum(i * s for i, s in zip(index, sources, strict=True))
            target = sum(i * s for i, s in zip(index, targets, strict=True))
            items = groups * panels
            per_chunk = split(items, depth * sizes.width)
            planner.step(
                self.packer,
                {"x": view.ptr + source, "y": packed.ptr + target, "x_g": x_g, "x_k": view.strides[-2],
                 "x_n": view.strides[-1] if n > 1 else WORD, "y_g": y_g, "y_panel": sizes.panel, "k": depth,
                 "n": n, "panels": panels, "items": items, "per_chunk": per_chunk},
                ceil_div(items, per_chunk), [view], [packed],
            )  # fmt: skip
        return packed, sizes.panel

    def _batch(self, planner: Planner, batch: Sequence[int], strides: dict[str, list[int]]) -> list[int]:
        """Batch dimensions merged to `_DIMS`; changes `strides`. The lowering sees to it that they fit."""
        names = list(strides)
        extents, rows = merge_dims(list(batch), [strides[n] for n in names])
        missing = _DIMS - len(extents)
        for name, row in zip(names, rows, strict=True):
            strides[name] = [0] * missing + row
        return [1] * missing + extents

    def _adjacent(self, planner: Planner, value: Value) -> View:
        """A view whose last dimension is adjacent."""
        view = planner.view(value)
        fits = view.shape[-1] <= 1 or view.strides[-1] == 4
        return view if fits else planner.copy(value, plain(len(view.shape)))


def _columns_last(rank: int) -> Layout:
    """Matrices turned in memory: the last dimension but one is adjacent."""
    return Layout((*range(rank - 2), rank - 1, rank - 2))


def lower_attention(group: Group) -> Lowering | None:
    """Native for f32 with up to three batch dimensions."""
    assert group.anchor is not None
    inputs = group.anchor.inputs
    if any(v.dtype != "f32" or v.shape is None for v in inputs) or len(inputs[0].shape) > _DIMS + 2:
        return None
    return Attention(group)
