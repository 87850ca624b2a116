"""Native reductions: one kernel for each way the innermost dimension lies.

    "keep"    the contiguous dimension is kept: a vector of outputs, summed over all reduced positions
    "reduce"  the contiguous dimension is reduced: one output, lanes summed in a fixed order at the end

Outer kept and reduced dimensions (up to three of each, after merging) are walked by strides.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_dims, plain, product
from ovjit.graph.dtypes import ELEMENT_TYPES


class Reduction(NamedTuple):
    """combine: the vector operation; first: its neutral element; before, after: for element and result."""

    combine: str
    first: str
    before: str = "{}"
    after: str = "{}"


def reductions(name: str, dtype: str) -> Reduction | None:
    """How to reduce `dtype`, None where the reference does it."""
    kind = ELEMENT_TYPES[dtype].kind
    real = kind == "f"
    if kind == "b":
        logic = {"ReduceLogicalAnd": Reduction("and_", "True"), "ReduceLogicalOr": Reduction("or_", "False")}
        return logic.get(name)
    bits = SIZE[dtype] * 8
    low = "-float_inf" if real else str(-(1 << (bits - 1))) if kind == "i" else "0"
    high = "float_inf" if real else str((1 << (bits - 1)) - 1) if kind == "i" else str((1 << bits) - 1)
    table = {
        "ReduceSum": Reduction("add", "0"),
        "ReduceProd": Reduction("mul", "1"),
        "ReduceMax": Reduction("max_", low),
        "ReduceMin": Reduction("min_", high),
        "ReduceL1": Reduction("add", "0", "abs_({})"),
    }
    if real:
        table["ReduceMean"] = Reduction("add", "0", "{}", "div({}, count)")
        table["ReduceL2"] = Reduction("add", "0", "square({})", "sqrt({})")
    return table.get(name)


_DIMS = 3


@functools.cache
def reduce_kernel(name: str, inner: str, dtype: str, out: str) -> Kernel:
    """`dtype`, `out`: the element types of x and y; halves are added in f32."""
    how = reductions(name, dtype)
    assert how is not None
    size = SIZE[dtype]
    frame = Frame().pointers("x", "y").integers("n", "y_inner", "items", "per_chunk", "total")
    for d in range(_DIMS):
        frame.integers(f"o{d}", f"x_o{d}", f"y_o{d}", f"r{d}", f"x_r{d}")
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    if "count" in how.after:
        src += [f"    count = const_{dtype}(total)"]
    src += [f"    first = const_{dtype}({how.first})"]
    src += ["    item = chunk * per_chunk", "    stop = imin(item + per_chunk, items)"]
    # an item is one output row: a block of VL outputs ("keep") or a single output ("reduce")
    src += ["    blocks = (n + VL - 1) // VL"] if inner == "keep" else []
    src += ["    while item < stop:"]
    src += ["        rest = item"]
    if inner == "keep":
        src += ["        i = (rest % blocks) * VL", "        rest = rest // blocks"]
    src += ["        a2 = rest % o2", "        rest = rest // o2"]
    src += ["        a1 = rest % o1", "        a0 = rest // o1"]
    src += ["        source = x + a0 * x_o0 + a1 * x_o1 + a2 * x_o2"]
    src += ["        target = y + a0 * y_o0 + a1 * y_o1 + a2 * y_o2"]
    src += ["        acc = first"]
    loop = ["b0 = 0", "while b0 < r0:", "    b1 = 0", "    while b1 < r1:"]
    loop += ["        p = source + b0 * x_r0 + b1 * x_r1", "        b2 = 0"]
    in_blocks = how.combine == "add" and ELEMENT_TYPES[dtype].kind == "f"
    flush = _FLUSH if in_blocks else []
    if inner == "keep":
        add = [f"v = loadm_{dtype}(p + i * {size}, n - i)", *_before(how), f"acc = {how.combine}(acc, v)"]
        body = _runs("b2", "r2", "1", [*add, "p += x_r2"], flush)
    else:
        add = [f"v = load_{dtype}(p + i * {size})", *_before(how), f"acc = {how.combine}(acc, v)"]
        row = ["i = 0", *_runs("i", "n", "VL", add, flush), "if i < n:"]
        row += ["    " + line for line in [f"v = loadm_{dtype}(p + i * {size}, n - i)", *_before(how)]]
        # lanes behind the row keep their value
        row += [f"    acc = blend_{dtype}(n - i, {how.combine}(acc, v), acc)"]
        row += ["    " + line for line in (["added += 1", *flush] if in_blocks else [])]
        body = ["while b2 < r2:", *("    " + line for line in [*row, "p += x_r2", "b2 += 1"])]
    loop += [" " * 8 + line for line in body]
    loop += ["        b1 += 1", "    b0 += 1"]
    if in_blocks:
        src += ["        some = first", "        many = first", "        added = 0", "        sums = 0"]
    src += [" " * 8 + line for line in loop]
    if in_blocks:
        src += ["        if sums > 0:", "            acc = add(many, add(some, acc))"]
    if inner == "keep":
        src += [f"        acc = {how.after.format('acc')}"]
        src += [f"        if y_inner == {SIZE[out]}:"]
        src += [f"            storem_{out}(target + i * {SIZE[out]}, acc, n - i)"]
        src += ["        else:", f"            scatter_{out}(target + i * y_inner, y_inner, acc, n - i)"]
    else:
        src += [f"        whole = spread_{dtype}({_HORIZONTAL[how.combine]}_{dtype}(acc))"]
        src += [f"        storem_{out}(target, {how.after.format('whole')}, 1)"]
    src += ["        item += 1", "    return 0", ""]
    kind = dtype if out == dtype else f"{dtype}_{out}"
    return Kernel(f"{name.lower()}_{inner}_{kind}", "\n".join(src), frame)


#: So many numbers are added one after the other, and so many of these sums, and all of those: what a sum of
#: reals loses grows with the length of its chain.
BLOCK = 256


#: After `added` additions `acc` goes to `some`, and after as many of these `some` to `many`.
_FLUSH = [
    f"if added >= {BLOCK}:",
    "    some = add(some, acc)",
    "    acc = first",
    "    added = 0",
    "    sums += 1",
    f"    if sums % {BLOCK} == 0:",
    "        many = add(many, some)",
    "        some = first",
]


def _runs(at: str, end: str, step: str, body: list[str], flush: list[str]) -> list[str]:
    """`body` for `at` up to `end` by `step`, in runs of BLOCK with `flush` after each where there is one."""
    last = "" if step == "1" else f" + {step} - 1"
    if not flush:
        return [f"while {at}{last} < {end}:", *("    " + line for line in body), f"    {at} += {step}"]
    out = [f"while {at}{last} < {end}:", f"    until = imin({at} + {BLOCK} * {step}, {end})"]
    out += [f"    while {at}{last} < until:", *("        " + line for line in body)]
    out += [f"        {at} += {step}", "        added += 1"]
    return out + ["    " + line for line in flush]


_HORIZONTAL = {"add": "hadd", "mul": "hmul", "max_": "hmax", "min_": "hmin", "and_": "hand", "or_": "hor"}


def _before(how: Reduction) -> list[str]:
    if how.before == "{}":
        return []
    return ["v = mul(v, v)"] if how.before.startswith("square") else [f"v = {how.before.format('v')}"]


class Reduce(Lowering):
    """One reduction over axes that are known."""

    def __init__(self, group: Group):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        self.data, axes = self.node.inputs
        self.out = self.node.output
        assert axes.type.value is not None
        rank = len(self.data.shape)
        self.axes = sorted({int(a) % rank for a in axes.type.value.reshape(-1)}) if rank else []
        name, types = self.node.op.name, (self.data.dtype, self.out.dtype)
        self.by_kind = {inner: reduce_kernel(name, inner, *types) for inner in ("keep", "reduce")}
        self.kernels = tuple(self.by_kind.values())

    def plan(self, planner: Planner) -> None:
        out_shape = planner.shape(self.out)
        y = planner.output(self.out, plain(len(out_shape)))
        if self._plan(planner, planner.view(self.data), y):
            return
        # no dimension is contiguous, or there are too many: copied once, it may do
        if not planner.view(self.data).count or not self._plan(planner, planner.contiguous(self.data), y):
            planner.host_step(self.node, [planner.contiguous(v) for v in self.node.inputs], [y])

    def _plan(self, planner: Planner, x: View, y: View) -> bool:
        """False when `x` does not lie so that a kernel can walk it."""
        if not y.count:
            return True
        rank = len(x.shape)
        keep_axes = [a for a in range(rank) if a not in self.axes]
        # y with the reduced axes put back
        if self.node.attrs.get("keep_dims"):
            y_strides = list(y.strides)
        else:
            y_strides = [0] * rank
            for position, axis in enumerate(keep_axes):
                y_strides[axis] = y.strides[position]
        if x.count == 0:
            return False
        total = product([x.shape[a] for a in self.axes])
        order = sorted(range(rank), key=lambda a: (-abs(x.strides[a]), a))
        kept, (kx, ky) = merge_dims(
            [x.shape[a] for a in order if a not in self.axes],
            [[s[a] for a in order if a not in self.axes] for s in (x.strides, y_strides)],
        )
        red, (rx,) = merge_dims(
            [x.shape[a] for a in order if a in self.axes], [[x.strides[a] for a in order if a in self.axes]]
        )
        size = x.itemsize
        if kx and kx[-1] == size and (not rx or rx[-1] != size):
            inner, n, y_inner = "keep", kept.pop(), ky.pop()
            kx.pop()
        elif rx and rx[-1] == size:
            inner, n, y_inner = "reduce", red.pop(), 0
            rx.pop()
        elif not red and not kept:
            inner, n, y_inner = "reduce", 1, 0
        else:
            return False
        if len(kept) > _DIMS or len(red) > _DIMS:
            return False
        values: dict[str, Any] = {"x": x.ptr, "y": y.ptr, "n": n, "y_inner": y_inner, "total": total}
        kept, kx, ky = ([f] * (_DIMS - len(v)) + v for f, v in ((1, kept), (0, kx), (0, ky)))
        red, rx = ([f] * (_DIMS - len(v)) + v for f, v in ((1, red), (0, rx)))
        for d in range(_DIMS):
            values |= {f"o{d}": kept[d], f"x_o{d}": kx[d], f"y_o{d}": ky[d]}
            values |= {f"r{d}": red[d], f"x_r{d}": rx[d]}
        items = product(kept)
        work = product(red) * n
        if inner == "keep":
            items *= ceil_div(n, _lanes())
            work = product(red) * _lanes()
        per_chunk = split(items, work * 2)
        values |= {"items": items, "per_chunk": per_chunk}
        blocks, lanes = ceil_div(n, _lanes()), _lanes()
        if inner == "keep":  # an item is a vector of the innermost dimension; the last one may be short
            touches = Rows(
                (*kept, n), per_chunk, (), [Piece(y.ptr, (*ky, y_inner), (), (), y.itemsize)],
                lambda item: item // blocks * n + min(item % blocks * lanes, n),
            )  # fmt: skip
        else:
            touches = Rows(kept, per_chunk, (), [Piece(y.ptr, ky, (), (), y.itemsize)])
        kernel, chunks = self.by_kind[inner], ceil_div(items, per_chunk)
        planner.step(kernel, values, chunks, [x], [y], x.count, touches=touches)
        return True


def _lanes() -> int:
    from ovjit.codegen.cpu.isa import host_isa

    return host_isa().lanes


def lower_reduce(group: Group) -> Lowering | None:
    """Native where the axes are known and the element type has the vector operation."""
    anchor = group.anchor
    assert anchor is not None
    if anchor.inputs[1].type.value is None or reductions(anchor.op.name, anchor.inputs[0].dtype) is None:
        return None
    return Reduce(group)
