"""Elementwise kernels: a traced body in a loop nest over strided operands.

The innermost dimension runs in vectors. Every operand has a mode there, "v" (contiguous), "s" (one element
for the whole row) or "n" (one element for all, without strides), which the planner confirms; when a shape at
run time says otherwise, `general` is set and the same body runs on lanes from anywhere, right for every
stride. Chunks are ranges of rows.
"""

from __future__ import annotations

import functools

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.memory import SIZE as SIZE

#: Element types that native kernels know.
NATIVE_TYPES = frozenset(SIZE)


def elementwise_kernel(name: str, body: Body, modes: str, outer: int) -> Kernel:
    """The kernel of `body`; `modes` has one letter an input; `outer` dimensions enclose the innermost one."""
    return _elementwise(name, body.text(), body, modes, outer)


def elementwise_frame(modes: str, outputs: int, outer: int) -> Frame:
    """x0.. and y0.. with byte strides `x0_s0`.. (outer dimensions, then the innermost), extents, rows."""
    frame = Frame()
    names = [f"x{i}" for i in range(len(modes))] + [f"y{i}" for i in range(outputs)]
    for name, mode in zip(names, modes + "v" * outputs, strict=True):
        frame.pointers(f"{name}p")
        if mode != "n":
            frame.integers(*(f"{name}_s{d}" for d in range(outer + 1)))
    return frame.integers("general", "n", "rows", "per_chunk", *(f"d{d}" for d in range(outer)))


@functools.lru_cache(2048)
def _cached_frame(modes: str, outputs: int, outer: int) -> Frame:
    return elementwise_frame(modes, outputs, outer)


def _elementwise(name: str, text: str, body: Body, modes: str, outer: int) -> Kernel:
    frame = _cached_frame(modes, len(body.outputs), outer)
    lines, constants = body.source("")
    results = body.result_names(constants)
    rows = [(f"x{i}", dtype, mode) for i, (dtype, mode) in enumerate(zip(body.inputs, modes, strict=True))]
    numbers, ins = ([row for row in rows if (row[2] == "n") == one] for one in (True, False))
    outs = [(f"y{i}", dtype) for i, dtype in enumerate(body.outputs)]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    src += [f"    # {line}" for line in text.splitlines()[:1]]
    src += [frame.prologue()]
    src += [f"    {k} = {expression}" for k, expression in constants.values()]
    src += [f"    {x} = splat_{dtype}({x}p)" for x, dtype, _ in numbers]
    src += ["    row = chunk * per_chunk", "    stop = imin(row + per_chunk, rows)"]
    if outer:
        src += ["    rest = row"]
        for d in range(outer - 1, 0, -1):
            src += [f"    i{d} = urem(rest, d{d})", f"    rest = udiv(rest, d{d})"]
        src += ["    i0 = rest"]
    src += ["    while row < stop:"]
    for operand in [o[0] for o in ins] + [o[0] for o in outs]:
        terms = "".join(f" + i{d} * {operand}_s{d}" for d in range(outer))
        src += [f"        {operand}r = {operand}p{terms}"]
    lane = f"_s{outer}"
    vl = "VL"
    # whole vectors, then the rest of the row under a mask
    src += ["        i = 0", "        if general == 0:"]
    for x, dtype, mode in ins:
        if mode == "s":
            src += [f"            {x} = splat_{dtype}({x}r)"]

    def run(load: str, store: str, indent: str) -> list[str]:
        out = []
        for x, dtype, mode in ins:
            if mode == "v" or load == "strided":
                at = f"{x}r + i * {x}{lane}" if load == "strided" else f"{x}r + i * {SIZE[dtype]}"
                extra = {"load": "", "loadm": ", n - i", "strided": f", {x}{lane}, n - i"}[load]
                out += [f"{indent}{x} = {load}_{dtype}({at}{extra})"]
        out += [indent + line for line in lines]
        for (y, dtype), result in zip(outs, results, strict=True):
            at = f"{y}r + i * {y}{lane}" if store == "strided_store" else f"{y}r + i * {SIZE[dtype]}"
            arguments = {
                "store": result,
                "storem": f"{result}, n - i",
                "strided_store": f"{y}{lane}, {result}, n - i",
            }[store]
            out += [f"{indent}{store}_{dtype}({at}, {arguments})"]
        return out

    src += [
        f"            while i + {vl} <= n:",
        *run("load", "store", " " * 16),
        f"                i += {vl}",
    ]
    src += ["            if i < n:", *run("loadm", "storem", " " * 16)]
    src += [
        "        else:",
        "            while i < n:",
        *run("strided", "strided_store", " " * 16),
        f"                i += {vl}",
    ]
    if outer:
        indent = "        "
        for d in range(outer - 1, 0, -1):
            src += [f"{indent}i{d} += 1", f"{indent}if i{d} == d{d}:", f"{indent}    i{d} = 0"]
            indent += "    "
        src += [f"{indent}i0 += 1"]
    src += ["        row += 1", "    return 0", ""]
    source = "\n".join(src)
    return Kernel(name, source, frame)
