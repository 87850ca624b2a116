"""The kernels of attention: rows of a head by tiles, and a few rows by dot products.

Both take q, k and v of one element type, f32 or bf16; scores, softmax and sums are f32 in either. The text of
a kernel says nothing of shapes.

In f32 q is copied and scaled once, and a tile adds the mask. In bf16 q is read where it lies, and a tile
scales its sum and adds the mask, so that nothing is rounded but exp(s - m'), which is stored in bf16 over the
scores that it is of.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from ovjit.codegen.approx import exp_below_zero, tanh_f32
from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.function import inline, kernel
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.memory import SIZE
from ovjit.codegen.trace import Recorder
from ovjit.codegen.transpose import make_turn, turn
from ovjit.codegen.words import (
    VL,
    Ptr,
    applied,
    blend,
    cast,
    chunk,
    const,
    f32,
    fma,
    hadd,
    hmax,
    inf,
    load,
    loadm,
    maximum,
    placed,
    registers,
    scratch,
    select,
    share,
    splat,
    spread,
    static_range,
    storem,
)  # fmt: skip
from ovjit.compiler.plan import element_size
from ovjit.graph.byte_rows import HEAD
from ovjit.tiles.driver import ROWS
from ovjit.tiles.formats import F32, WORD, Format
from ovjit.tiles.micro import TABLE, make_tile
from ovjit.tiles.pack import tile_width

#: Batch dimensions of the kernels; more are merged where strides allow, else there is a copy.
DIMS = 3
#: Bytes of one tile's table: inputs, outputs, what is added.
TABLE_BYTES = 3 * TABLE * 8


def _body(function: Callable, constant: str = "k") -> tuple[list[str], list[tuple[str, str]], str]:
    """function(x0) as lines of kernel source, its constants, and the name of its result. Names of constants
    begin with `constant`."""
    recorder = Recorder()
    made = function(recorder.input("x0", "f32"))
    body = Body(["f32"], ["f32"], recorder.lines, [made.name])
    lines, constants = body.source("")
    result = body.result_names(constants)[0]
    named = [re.sub(r"\bk(?=\d)", constant, text) for text in (*lines, result)]
    values = [(name.replace("k", constant), text) for name, text in constants.values()]
    return named[:-1], values, named[-1]


def _traced(function: Callable) -> Body:
    recorder = Recorder()
    made = function(recorder.input("x0", "f32"))
    return Body(["f32"], ["f32"], recorder.lines, [made.name])


#: exp(x) for x <= 0, and tanh(x).
EXP, TANH = _traced(exp_below_zero), _traced(tanh_f32)


def _adding() -> Epilogue:
    """acc + what lies at the pixel's address."""
    recorder = Recorder()
    total = recorder.input("x0", "f32") + recorder.input("x1", "f32")
    return Epilogue(Body(["f32", "f32"], ["f32"], recorder.lines, [total.name]), ["pixel"])


def _scaling() -> Epilogue:
    """acc * a number + what lies at the pixel's address."""
    recorder = Recorder()
    total = recorder.input("x0", "f32") * recorder.input("x1", "f32") + recorder.input("x2", "f32")
    return Epilogue(Body(["f32"] * 3, ["f32"], recorder.lines, [total.name]), ["number", "pixel"])


def _capped_lines() -> tuple[list[str], list[str]]:
    """(what comes before rows, what makes cap * tanh(x0) of x0) as lines of kernel source."""
    lines, constants, result = _body(tanh_f32, "c")
    before = [*(f"{name} = {text}" for name, text in constants), "most = splat_f32(cap)"]
    return before, [*lines, f"x0 = mul({result}, most)"]


def _frame(names: Sequence[str], more: Sequence[str]) -> Frame:
    """Pointers with a stride for each batch dimension, then integers. `unseen`: what a row is that has no sum
    of weights."""
    frame = Frame().pointers(*names, "scale", "unseen")
    frame.integers(*(f"{name}_{d}" for name in names for d in range(DIMS)))
    return frame.integers(*(f"d{d}" for d in range(DIMS)), *more)


def _head(names: Sequence[str]) -> list[str]:
    """Source that finds the rows of a chunk: `first`, `count`, and the addresses of its head."""
    out = ["    part = chunk % parts", "    rest = chunk // parts"]
    for d in range(DIMS - 1, 0, -1):
        out += [f"    i{d} = rest % d{d}", f"    rest = rest // d{d}"]
    out += ["    i0 = rest", "    first = part * block", "    count = imin(block, rows - first)"]
    return out + [f"    {n} += " + " + ".join(f"i{d} * {n}_{d}" for d in range(DIMS)) for n in names]


def _vectors(indent: str, stop: str, whole: Sequence[str], rest: Sequence[str]) -> list[str]:
    """A loop of whole vectors j, then the rest under a mask."""
    return [
        f"{indent}j = 0", f"{indent}while j + VL <= {stop}:", *(f"{indent}    {x}" for x in whole),
        f"{indent}    j += VL", f"{indent}if j < {stop}:", *(f"{indent}    {x}" for x in rest),
    ]  # fmt: skip


@functools.lru_cache(32)
def attention_kernel(
    causal: bool, sink: bool, isa: Isa, form: Format = F32, out: str = "f32", capped: bool = False
) -> Kernel:
    """Rows of a head by tiles. k and v are panels of the format's words, `out` the element type of y;
    `capped`: scores are cap tanh(...), bent and masked where they lie."""
    rows, width, lanes, elem = ROWS[isa.name], tile_width(isa), isa.lanes, form.a
    whole = form is F32
    names = ["q", "k", "v", "y", "mask", *(["sink"] if sink else [])]
    more = (
        "parts block rows columns depth wide q_r y_r mask_r mask_c k_p v_p columns_per q_at q_row o_at o_row"
    )
    more += " s_at s_row m_at l_at" + (" sink_r" if sink else "")
    frame = _frame(names, more.split()).pointers("zeros", *([] if whole else ["ones"]))
    frame.pointers(*(["cap"] if capped else []))
    lines, constants, result = _body(exp_below_zero)
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue(), *_head(names)]
    src += [f"    {name} = {text}" for name, text in constants]
    src += ["    zero = const_f32(0.0)", "    one = const_f32(1.0)", "    lowest = const_f32(-float_inf)"]
    src += ["    otherwise = splat_f32(unseen)"]
    before, bend = _capped_lines() if capped else ([], [])
    src += [f"    {x}" for x in before]
    src += ["    factor = splat_f32(scale)"] if whole else []
    src += ["    r = 0", "    while r < count:"]
    if whole:
        src += ["        p = q + (first + r) * q_r", "        t = scratch + q_at + r * q_row"]
        src += ["        j = 0", "        while j < depth:"]
        src += [
            "            storem_f32(t + j * 4, mul(loadm_f32(p + j * 4, depth - j), factor), depth - j)",
            "            j += VL",
        ]
    src += [
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
    source = "scratch + q_at + m * q_row" if whole else "q + (first + m) * q_r"
    src += _tables(rows, source, "scratch + s_at + m * s_row",
                   "zeros" if capped else "mask + (first + m) * mask_r + at * mask_c")  # fmt: skip
    src += [f"        c = at // {width}", f"        while c * {width} < at + n:"]
    src += _tile_calls(
        rows, lanes, "k + c * k_p", _words("depth", form), f"c * {width} - at", f"at + n - c * {width}",
        f"columns - c * {width}", "" if whole else ", scale",
    )  # fmt: skip
    src += ["            c += 1"]
    # softmax
    src += [
        "        r = 0",
        "        while r < count:",
        "            t = scratch + s_at + r * s_row",
        "            live = n",
    ]
    src += ["            live = imin(n, first + r + 1 - at)"] if causal else []
    if capped:
        src += ["            p = mask + (first + r) * mask_r + at * mask_c"]
        src += _vectors(
            "            ", "live",
            ["x0 = load_f32(t + j * 4)", *bend, "store_f32(t + j * 4, add(x0, load_f32(p + j * 4)))"],
            ["x0 = loadm_f32(t + j * 4, live - j)", *bend,
             "storem_f32(t + j * 4, add(x0, loadm_f32(p + j * 4, live - j)), live - j)"],
        )  # fmt: skip
    src += ["            top = lowest"]
    src += _vectors(
        "            ", "live", ["x0 = load_f32(t + j * 4)", "top = select(gt(x0, top), x0, top)"],
        ["top = blend_f32(live - j, max_(top, loadm_f32(t + j * 4, live - j)), top)"],
    )  # fmt: skip
    src += ["            old = splat_f32(scratch + m_at + r * 4)"]
    src += ["            top = max_(old, spread_f32(hmax_f32(top)))"]
    src += ["            storem_f32(scratch + m_at + r * 4, top, 1)"]
    src += ["            top = select(eq(top, lowest), zero, top)", "            total = zero"]
    each, size = [*lines], element_size(elem)
    src += _vectors(
        "            ", "live",
        ["x0 = sub(load_f32(t + j * 4), top)", *each, f"store_{elem}(t + j * {size}, {result})",
         f"total = add(total, {result})"],
        ["x0 = sub(loadm_f32(t + j * 4, live - j), top)", *each,
         f"storem_{elem}(t + j * {size}, {result}, live - j)",
         f"total = blend_f32(live - j, add(total, {result}), total)"],
    )  # fmt: skip
    if causal or not whole:  # what is masked, and what fills the last word
        stop = "n" if whole else f"({_words('n', form)}) * {form.group}"
        src += ["            j = imax(live, 0)", f"            stop = {stop}", "            while j < stop:"]
        src += [f"                storem_{elem}(t + j * {size}, zero, stop - j)", "                j += VL"]
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
    behind = "at" if whole else f"at // {form.group}"
    src += _tile_calls(
        rows, lanes, f"v + c * v_p + {behind} * step", _words("n", form), f"c * {width}",
        f"wide - c * {width}", f"wide - c * {width}", "" if whole else ", ones",
    )  # fmt: skip
    src += ["            c += 1", "        at += columns_per"]
    src += [
        "    r = 0",
        "    while r < count:",
        "        total = splat_f32(scratch + l_at + r * 4)",
        "        seen = gt(total, zero)",
        "        scaled = div(one, total)",
    ]
    src += ["        t = scratch + o_at + r * o_row", "        p = y + (first + r) * y_r", "        j = 0"]
    src += ["        while j < wide:"]
    stored = "select(seen, mul(loadm_f32(t + j * 4, wide - j), scaled), otherwise)"
    src += [f"            storem_{out}(p + j * {element_size(out)}, {stored}, wide - j)"]
    src += ["            j += VL", "        r += 1", "    return 0", ""]
    epilogue = _adding() if whole else _scaling()

    def intrinsics(target: Isa) -> dict[str, Any]:
        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue, form)
            for r in ROWS[target.name]
            for v in (target.tile_vectors, 1)
        }

    kind = f"{form.name}{'' if out == elem else f'_{out}'}"
    name = f"attention_{kind}_{isa.name}{_said(causal, sink, capped)}"
    return Kernel(name, "\n".join(src), frame, intrinsics, f"{form.name} {epilogue.text()}", form.name)


def _said(causal: bool, sink: bool, capped: bool) -> str:
    return f"{'_causal' if causal else ''}{'_sink' if sink else ''}{'_capped' if capped else ''}"


def _words(elements: str, form: Format) -> str:
    """Source for the words that so many elements take."""
    return elements if form.group == 1 else f"({elements} + {form.group - 1}) // {form.group}"


def _tables(rows: Sequence[int], source: str, target: str, added: str) -> list[str]:
    """Addresses for the tiles of all rows of the chunk; a tile that has too few repeats the last one."""
    out = [
        "        r = 0",
        "        while r < count:",
        f"            table = scratch + r // {rows[0]} * {TABLE_BYTES}",
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
    rows: Sequence[int], lanes: int, weights: str, depth: str, channel: str, valid: str, stored: str,
    shared: str,
) -> list[str]:  # fmt: skip
    """One panel over the tiles of the chunk; `stored` tells how wide the panel is in memory, `shared` what
    the epilogue is given for all rows."""
    out = [
        "            r = 0",
        "            while r < count:",
        f"                table = scratch + r // {rows[0]} * {TABLE_BYTES}",
    ]
    out += ["                left = count - r"]
    for condition, vectors in ((f"if {stored} > {lanes}:", 2), ("else:", 1)):
        out += [f"                {condition}"]
        for n, size in enumerate(rows):
            last = n == len(rows) - 1
            test = "else:" if last else f"{'if' if n == 0 else 'elif'} left > {rows[n + 1]}:"
            arguments = f"zeros, 1, 0, 1, 0, {depth}, {channel}, {valid}, {weights}, 0{shared}"
            out += [f"                    {test}"]
            out += [f"                        tile_{size}_{vectors}(table, {weights}, {arguments})"]
    return [*out, f"                r += {rows[0]}"]


@kernel
def turn_panels(
    x: Ptr, y: Ptr, x_g, x_n, y_g, y_panel, words, n, panels, inner, x_o, items, per_chunk, *, width, lanes
):
    """[G, n, words], words adjacent -> panels of the n rows as columns, as `pack_panels` numbers them; what
    fills the last panel up is not written."""
    for item in share(items, per_chunk):
        matrix = item // panels
        panel = item % panels
        left = n - panel * width
        source = x + matrix // inner * x_o + matrix % inner * x_g + panel * width * x_n
        target = y + matrix * y_g + panel * y_panel
        step = width * WORD
        if left <= lanes:
            step = lanes * WORD
        for v in range(0, min(left, width), VL):
            for k in range(0, words, VL):
                turn(
                    source + v * x_n + k * WORD, x_n, left - v, target + k * step + v * WORD, step, words - k
                )  # fmt: skip


@functools.cache
def turned_panels_kernel(isa: Isa) -> Kernel:
    """Its kernel for panels of this width."""
    width = tile_width(isa)

    def intrinsics(target: Isa) -> dict[str, Any]:
        return {"turn": make_turn(target, "i32")}

    return turn_panels.kernel(f"turn_panels_{width}", intrinsics, "turn i32", width=width, lanes=isa.lanes)


@inline
def read(p, T):
    """A vector of keys or values in f32."""
    return cast[f32](load[T](p)) if T == "u8" else load[T](p)


@inline
def read_some(p, T, count):
    """The first lanes of one."""
    return cast[f32](loadm[T](p, count)) if T == "u8" else loadm[T](p, count)


@kernel
def attention_rows(
    q: Ptr, k: Ptr, v: Ptr, y: Ptr, mask: Ptr, sink: Ptr, scale: Ptr, unseen: Ptr, cap: Ptr, parts, block,
    rows, columns, depth, wide, q_r, y_r, mask_r, mask_c, k_s, v_s, sink_r, *, T, cached, out, causal, sinks,
    capped,
):  # fmt: skip
    """Rows of a head one by one: dot products with every key, then the values summed by weight. `T`,
    `cached`, `out`: element types of q, of k and v, and of y; `sinks`: each row has a score more, of nothing;
    `capped`: scores are cap tanh(...).

    `cached` u8: rows of bytes, of which sums are made as they are: q (scale byte + zero) adds up to
    scale (q byte) + zero (sum of q), and w (scale byte + zero) is (w scale) byte, with w zero once for a row.
    """
    acc = registers()
    head = chunk // parts
    first = chunk % parts * block
    q, k, v, y, mask = placed(head, q, k, v, y, mask)
    if sinks:
        sink = placed(head, sink)
    zero = const[f32](0.0)
    factor = splat[f32](scale)
    otherwise = splat[f32](unseen)
    if capped:
        most = splat[f32](cap)
    for row in range(first, min(first + block, rows)):
        p = q + row * q_r
        end = columns
        if causal:
            end = min(columns, row + 1)
        if cached == "u8":
            total = zero
            for j in range(0, depth, VL):
                total = total + loadm[T](p + j * SIZE[T], depth - j)
            whole = spread[f32](hadd[f32](total))
        for s in range(end):
            total = zero
            t = k + s * k_s
            if cached == "u8":
                t += HEAD
            j = 0
            while j + VL <= depth:
                total = fma(load[T](p + j * SIZE[T]), read(t + j * SIZE[cached], cached), total)
                j += VL
            if j < depth:
                rest = read_some(t + j * SIZE[cached], cached, depth - j)
                total = fma(loadm[T](p + j * SIZE[T], depth - j), rest, total)
            total = spread[f32](hadd[f32](total))
            if cached == "u8":
                total = total * splat[f32](t - HEAD)
                total = fma(whole, splat[f32](t - HEAD + 4), total)
            storem[f32](scratch + s * 4, total, 1)
        t = mask + row * mask_r
        top = const[f32](-inf)
        for j in range(0, end, VL):
            score = loadm[f32](scratch + j * 4, end - j) * factor
            if capped:
                bent = applied(TANH, score)
                score = bent * most
            if mask_c > 0:
                score = score + loadm[f32](t + j * 4, end - j)
            storem[f32](scratch + j * 4, score, end - j)
            top = blend[f32](end - j, maximum(top, score), top)
        top = spread[f32](hmax[f32](top))
        if sinks:
            old = splat[f32](sink + row * sink_r)
            top = maximum(top, old)
        total = zero
        for j in range(0, end, VL):
            score = loadm[f32](scratch + j * 4, end - j) - top
            weight = applied(EXP, score)
            storem[f32](scratch + j * 4, weight, end - j)
            total = blend[f32](end - j, total + weight, total)
        total = spread[f32](hadd[f32](total))
        if sinks:
            score = old - top
            weight = applied(EXP, score)
            total = total + weight
        seen = total > zero
        scaled = const[f32](1.0) / total
        p = y + row * y_r
        for j in range(0, wide, 4 * VL):
            for i in static_range(4):
                acc[i] = zero
            if cached == "u8":
                base = zero
            for s in range(end):
                w = splat[f32](scratch + s * 4)
                t = v + s * v_s
                if cached == "u8":
                    base = fma(w, splat[f32](t + 4), base)
                    w = w * splat[f32](t)
                    t += HEAD
                t += j * SIZE[cached]
                for i in static_range(4):
                    part = read_some(t + i * VL * SIZE[cached], cached, wide - j - i * VL)
                    acc[i] = fma(w, part, acc[i])
            for i in static_range(4):
                if cached == "u8":
                    acc[i] = acc[i] + base
                made = select(seen, acc[i] * scaled, otherwise)
                storem[out](p + (j + i * VL) * SIZE[out], made, wide - j - i * VL)
