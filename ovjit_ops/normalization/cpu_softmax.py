"""Native Softmax and LogSoftmax over a contiguous axis: maximum, exponentials with their sum, scale."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.trace import Recorder, exp, log
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import Layout, merge_dims, product
from ovjit.graph.graph import Value

_DIMS = 3


@functools.cache
def softmax_kernel(dtype: str, logarithm: bool) -> Kernel:
    """softmax(x) = exp(x - max) / sum; its logarithm is x - max - log(sum)."""
    frame = Frame().pointers("x", "y").integers("n", "rows", "per_chunk")
    for d in range(_DIMS):
        frame.integers(f"d{d}", f"x_{d}", f"y_{d}")
    size = SIZE[dtype]
    recorder = Recorder()
    result = exp(recorder.input("x0", dtype) - recorder.input("x1", dtype))
    body = Body([dtype, dtype], [dtype], recorder.lines, [result.name])
    recorder = Recorder()
    result = log(recorder.input("x0", dtype))
    log_body = Body([dtype], [dtype], recorder.lines, [result.name])
    lines, constants = body.source("")
    value = body.result_names(constants)[0]
    log_lines, log_constants = log_body.source("")
    log_value = log_body.result_names(log_constants)[0]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [f"    {k} = {e}" for k, e in constants.values()]
    src += ["    row = chunk * per_chunk", "    stop = imin(row + per_chunk, rows)", "    while row < stop:"]
    src += ["        rest = row // d2"]
    src += ["        offset_x = (row % d2) * x_2", "        offset_y = (row % d2) * y_2"]
    src += ["        p = x + offset_x + (rest % d1) * x_1 + (rest // d1) * x_0"]
    src += ["        q = y + offset_y + (rest % d1) * y_1 + (rest // d1) * y_0"]

    def each_vector(step: Callable[[str, str], list[str]]) -> list[str]:
        """The loop along the row: whole vectors, then the rest under a mask. `step(load, rest)`."""
        at = f"p + i * {size}"
        out = ["        i = 0", "        while i + VL <= n:"]
        out += [" " * 12 + line for line in step(f"load_{dtype}({at})", "")]
        out += ["            i += VL", "        if i < n:"]
        return out + [" " * 12 + line for line in step(f"loadm_{dtype}({at}, n - i)", "n - i")]

    def gather(into: str, combined: str, rest: str) -> str:
        return f"{into} = blend_{dtype}({rest}, {combined}, {into})" if rest else f"{into} = {combined}"

    def store(what: str, rest: str) -> str:
        return (
            f"storem_{dtype}(q + i * {size}, {what}, {rest})"
            if rest
            else f"store_{dtype}(q + i * {size}, {what})"
        )

    src += [f"        top = const_{dtype}(-float_inf)"]
    src += each_vector(lambda load, rest: [gather("top", f"max_(top, {load})", rest)])
    src += [f"        x1 = spread_{dtype}(hmax_{dtype}(top))", f"        total = const_{dtype}(0.0)"]
    src += each_vector(
        lambda load, rest: [
            f"x0 = {load}",
            *lines,
            *([] if logarithm else [store(value, rest)]),
            gather("total", f"add(total, {value})", rest),
        ]
    )
    if logarithm:
        names = {k: f"l{k}" for k, _ in log_constants.values()}
        src += [f"        {names[k]} = {e}" for k, e in log_constants.values()]
        src += [f"        x0 = spread_{dtype}(hadd_{dtype}(total))"]
        src += ["        " + _renamed(line, names) for line in log_lines]
        src += [f"        shift = add(x1, {_renamed(log_value, names)})"]
        src += each_vector(lambda load, rest: [store(f"sub({load}, shift)", rest)])
    else:
        src += [
            f"        scale = div(const_{dtype}(1.0), spread_{dtype}(hadd_{dtype}(total)))",
            "        p = q",
        ]
        src += each_vector(lambda load, rest: [store(f"mul({load}, scale)", rest)])
    src += ["        row += 1", "    return 0", ""]
    name = f"{'log_' if logarithm else ''}softmax_{dtype}"
    return Kernel(name, "\n".join(src), frame)


def _renamed(line: str, names: dict[str, str]) -> str:
    import re

    line = re.sub(r"\bt(\d+)\b", r"lt\1", line)
    return re.sub(r"\bk\d+\b", lambda m: names.get(m.group(), m.group()), line)


class Softmax(Lowering):
    """Rows are all other dimensions; the axis is made contiguous if it is not."""

    def __init__(self, group: Group, logarithm: bool):
        super().__init__(group)
        assert group.anchor is not None
        self.data: Value = group.anchor.inputs[0]
        self.out = group.anchor.output
        self.axis = int(group.anchor.attrs["axis"]) % max(len(self.data.shape), 1)
        self.kernel = softmax_kernel(self.out.dtype, logarithm)
        self.kernels = (self.kernel,)

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        rank = len(x.shape)
        order = [a for a in range(rank) if a != self.axis] + [self.axis]
        if x.shape[self.axis] > 1 and x.strides[self.axis] != x.itemsize:
            x = planner.copy(self.data, Layout(order))
        target = y = planner.channels_last_output(self.out, self.axis)
        rows = order[:-1]

        def merged() -> tuple[list[int], list[list[int]]]:
            return merge_dims([x.shape[a] for a in rows], [[v.strides[a] for a in rows] for v in (x, y)])

        extents, (xs, ys) = merged()
        if len(extents) > _DIMS:
            x = planner.copy(self.data, Layout(order))
            y = planner.allocate(y.shape, y.itemsize, Layout(order))
            extents, (xs, ys) = merged()
        extents, xs, ys = ([f] * (_DIMS - len(v)) + v for f, v in ((1, extents), (0, xs), (0, ys)))
        n, count = x.shape[self.axis], product(extents)
        if not y.count:
            return
        per_chunk = split(count, n * 20)
        values: dict[str, Any] = {"x": x.ptr, "y": y.ptr, "n": n, "rows": count, "per_chunk": per_chunk}
        for d in range(_DIMS):
            values |= {f"d{d}": extents[d], f"x_{d}": xs[d], f"y_{d}": ys[d]}
        row = [Piece(v.ptr, along, (n,), (v.itemsize,), v.itemsize) for v, along in ((x, xs), (y, ys))]
        touches = Rows(extents, per_chunk, row[:1], row[1:])
        chunks, flops = ceil_div(count, per_chunk), 20.0 * y.count
        planner.step(self.kernel, values, chunks, [x], [y], flops, touches=touches)
        if target is not y:
            planner.copy_step(y, target)


def lower_softmax(group: Group) -> Lowering | None:
    """Native for f32, f64 and the halves; rank 0 has no axis."""
    assert group.anchor is not None
    data = group.anchor.inputs[0]
    if data.dtype not in ("f32", "f64") or not data.shape:
        return None
    return Softmax(group, group.anchor.op.name == "LogSoftmax")
