"""Matrix products in the elements' own type: f64, and integers that wrap around.

    y[m, n] = sum over k of a[m, k] b[k, n]

A block of `ROWS` rows and two vectors of columns is in registers; a's elements come from any place, b's
columns are adjacent. There is no packing: what is slow about such products is their type.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering, place_constants
from ovjit.compiler.plan import Constants, Planner, ceil_div, split
from ovjit.compiler.views import Layout, View, merge_dims, plain, product
from ovjit.graph.graph import Value

TYPES = frozenset("f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
_DIMS = 3
#: Rows in registers for each instruction set: twice as many accumulators, each of two registers for 8 bytes.
ROWS = {"avx512": 4, "avx2": 2, "generic": 2}


@functools.cache
def plain_kernel(dtype: str, rows: int) -> Kernel:
    """A chunk is a range of (matrix, block of rows, block of columns)."""
    size = SIZE[dtype]
    frame = Frame().pointers("a", "b", "y").integers("m", "n", "k", "a_m", "a_k", "b_k", "y_m")
    frame.integers("row_blocks", "column_blocks", "items", "per_chunk")
    for d in range(_DIMS):
        frame.integers(f"d{d}", f"a_{d}", f"b_{d}", f"y_{d}")
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [
        f"    zero = const_{dtype}(0)",
        "    item = chunk * per_chunk",
        "    stop = imin(item + per_chunk, items)",
    ]
    src += [
        "    while item < stop:",
        "        j = (item % column_blocks) * 2 * VL",
        "        rest = item // column_blocks",
    ]
    src += [f"        i = (rest % row_blocks) * {rows}", "        rest = rest // row_blocks"]
    src += [
        "        i2 = rest % d2",
        "        rest = rest // d2",
        "        i1 = rest % d1",
        "        i0 = rest // d1",
    ]
    for name in "aby":
        src += [f"        p{name} = {name} + i0 * {name}_0 + i1 * {name}_1 + i2 * {name}_2"]
    src += [f"        pb += j * {size}", f"        py += i * y_m + j * {size}"]
    # rows that are not there repeat the last one, and are not stored
    src += [f"        x{r} = pa + imin(i + {r}, m - 1) * a_m" for r in range(rows)]
    src += [f"        c{r}{v} = zero" for r in range(rows) for v in (0, 1)]
    src += ["        left = n - j", "        h = 0"]

    def step(loads: list[str], vectors: tuple[int, ...], indent: str) -> list[str]:
        out = [f"{indent}{line}" for line in loads]
        for r in range(rows):
            out += [f"{indent}e = splat_{dtype}(x{r} + h * a_k)"]
            for v in vectors:
                total = f"fma(e, w{v}, c{r}{v})" if dtype == "f64" else f"add(c{r}{v}, mul(e, w{v}))"
                out += [f"{indent}c{r}{v} = {total}"]
        return [*out, f"{indent}pb += b_k", f"{indent}h += 1"]

    src += ["        if left >= 2 * VL:", "            while h < k:"]
    src += step([f"w0 = load_{dtype}(pb)", f"w1 = load_{dtype}(pb + VL * {size})"], (0, 1), " " * 16)
    src += ["        else:", "            while h < k:"]
    masked = [f"w0 = loadm_{dtype}(pb, left)", f"w1 = loadm_{dtype}(pb + VL * {size}, left - VL)"]
    src += step(masked, (0, 1), " " * 16)
    for r in range(rows):
        src += [f"        if i + {r} < m:", f"            storem_{dtype}(py, c{r}0, left)"]
        src += [f"            storem_{dtype}(py + VL * {size}, c{r}1, left - VL)", "        py += y_m"]
    src += ["        item += 1", "    return 0", ""]
    return Kernel(f"plain_product_{dtype}_{rows}", "\n".join(src), frame)


class PlainProduct(Lowering):
    """MatMul of f64 or integers with any number of batch dimensions."""

    def __init__(self, group: Group):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        self.out = self.node.output
        self.rows = ROWS[host_isa().name]
        self.kernel = plain_kernel(self.out.dtype, self.rows)
        self.kernels = (self.kernel,)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        ra, rb = (len(v.shape) for v in self.node.inputs)
        size = SIZE[self.out.dtype]
        a = planner.view(self.node.inputs[0])
        if ra == 1:
            a = View(a.buffer, (1, a.shape[0]), (0, a.strides[0]), size, a.offset)
        elif self.node.attrs["transpose_a"]:
            a = a.permute((*range(ra - 2), ra - 1, ra - 2))
        b = self._right(planner, self.node.inputs[1], rb)
        y = planner.allocate(planner.shape(self.out), size)
        if not y.count:
            planner.alias_or_copy(self.out, y)
            return
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        batch = y.shape[: len(y.shape) - (ra > 1) - (rb > 1)]
        a, b = a.expand((*batch, m, k)), b.expand((*batch, k, n))
        whole = y.reshape((*batch, m, n))
        assert whole is not None  # it has no gaps
        extents, rows = merge_dims(list(batch), [v.strides[: len(batch)] for v in (a, b, whole)])
        missing = _DIMS - len(extents)
        if missing < 0:  # operands without gaps merge to three dimensions at most, but for odd broadcasts
            inputs = [planner.contiguous(v) for v in self.node.inputs]
            planner.host_step(self.node, inputs, [y])
            planner.alias_or_copy(self.out, y)
            return
        extents = [1] * missing + extents
        row_blocks, column_blocks = ceil_div(m, self.rows), ceil_div(n, 2 * host_isa().lanes)
        items = product(extents) * row_blocks * column_blocks
        per_chunk = split(items, k * self.rows * 2 * host_isa().lanes)
        values: dict[str, Any] = {
            "a": a.ptr, "b": b.ptr, "y": whole.ptr, "m": m, "n": n, "k": k, "a_m": a.strides[-2],
            "a_k": a.strides[-1], "b_k": b.strides[-2], "y_m": n * size, "row_blocks": row_blocks,
            "column_blocks": column_blocks, "items": items, "per_chunk": per_chunk,
        }  # fmt: skip
        for d in range(_DIMS):
            values[f"d{d}"] = extents[d]
            for name, row in zip("aby", rows, strict=True):
                values[f"{name}_{d}"] = 0 if d < missing else row[d - missing]
        planner.step(
            self.kernel, values, ceil_div(items, per_chunk), [a, b], [y], 2.0 * product(batch) * m * n * k
        )
        planner.alias_or_copy(self.out, y)

    def _right(self, planner: Planner, value: Value, rank: int) -> View:
        """The right-hand side as [..., k, n] with adjacent columns."""
        view = planner.view(value)
        if rank == 1:
            return View(
                view.buffer, (view.shape[0], 1), (view.strides[0], view.itemsize), view.itemsize, view.offset
            )
        turned = self.node.attrs["transpose_b"]
        columns = rank - 2 if turned else rank - 1
        if view.shape[columns] > 1 and view.strides[columns] != view.itemsize:
            order = (*range(rank - 2), rank - 1, rank - 2)
            view = planner.copy(value, Layout(order) if turned else plain(rank))
        return view.permute((*range(rank - 2), rank - 1, rank - 2)) if turned else view


def lower_plain(group: Group) -> Lowering | None:
    """Native for f64 and integers."""
    assert group.anchor is not None
    a, b = group.anchor.inputs
    return PlainProduct(group) if a.dtype in TYPES and a.dtype == b.dtype and a.shape and b.shape else None
