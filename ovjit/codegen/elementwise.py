"""Elementwise kernels: a traced body in a loop nest over strided operands.

The innermost dimension is vectorised. Each operand has a mode along it, which the planner checks: "v"
(contiguous), "s" (one element for the whole row) or "n" (one element for all rows, without strides). If a
shape at run time has another mode, `general` is set, and the same body gathers its lanes, which supports all
strides. Chunks are ranges of rows.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.kernel_language import *
from ovjit.codegen.memory import SIZE as SIZE
from ovjit.records import NamedTuple

#: Element types that native kernels support.
NATIVE_TYPES = frozenset(SIZE)
#: Minimum dimensions of an elementwise kernel's rows: most tensors have four dimensions or fewer.
FEWEST_DIMENSIONS = 3


#: Types of elements that are copied as bytes. Their bits do not change in registers.
SHORT = ("u8", "i8", "u16", "i16")


class Operand(NamedTuple):
    dtype: str
    mode: str

    @property
    def one(self) -> bool:
        return self.mode == "n"


def dimensions_of_rows(rank: int) -> int:
    """The dimensions of rows in a kernel for tensors of `rank`. Neighbouring ranks share a kernel. Its unused
    dimensions have an extent of 1, and cost nothing per row."""
    return (max(rank, FEWEST_DIMENSIONS + 1) + 1) // 2 * 2 - 1


#: Addresses with byte strides along the outer dimensions, then the innermost; then the outer extents.
_INPUTS: Any = Each("inputs", unless="one", along="dims")
_OUTPUTS: Any = Each("outputs", along="dims")
_EXTENTS: Any = Each("outer", pointers=False)


@inline
def apply_body(v, p, q, x, y, i, n, way, *, inputs, outputs, inner, body):
    """Compute a vector of each output from element i of the rows on. v already has the inputs of mode "s",
    unless `way` is "strided"."""
    results = registers()
    for k, operand in enumerate(inputs):
        if way == "strided" and not operand.one:
            v[k] = strided[operand.dtype](p[k] + i * x[k, inner], x[k, inner], n - i)
        elif way == "part" and operand.mode == "v":
            v[k] = loadm[operand.dtype](p[k] + i * SIZE[operand.dtype], n - i)
        elif way == "whole" and operand.mode == "v":
            v[k] = load[operand.dtype](p[k] + i * SIZE[operand.dtype])
    results = applied(body, *v)
    for k, dtype in enumerate(outputs):
        if way == "strided":
            strided_store[dtype](q[k] + i * y[k, inner], y[k, inner], results[k], n - i)
        elif way == "part":
            storem[dtype](q[k] + i * SIZE[dtype], results[k], n - i)
        else:
            store[dtype](q[k] + i * SIZE[dtype], results[k])


@inline
def apply_twice(v, p, q, i, *, inputs, outputs, body):
    """Compute two vectors of each output, and store those of an output together: alternating between the
    cache lines of several outputs takes up to 50 % longer."""
    results, w = registers()
    for j in (0, 1):
        for k, operand in enumerate(inputs):
            if operand.mode == "v":
                v[k] = load[operand.dtype](p[k] + (i + j * VL) * SIZE[operand.dtype])
        results = applied(body, *v)
        for k, _ in enumerate(outputs):
            w[k, j] = results[k]
    for k, dtype in enumerate(outputs):
        for j in (0, 1):
            store[dtype](q[k] + (i + j * VL) * SIZE[dtype], w[k, j])


@inline
def move_bytes(p, q, n, T):
    """Copy a row of n elements of 1 or 2 bytes as bytes. The last vector is moved up to the row's end and
    copies bytes again: to store some of its bytes would take as long as several whole vectors."""
    count = n * SIZE[T]
    i = 0
    if count < VL:
        storem[T](q, loadm[T](p, n), n)
    elif count >= 4 * VL:
        while i + 4 * VL < count:
            store[i32](q + i, load[i32](p + i))
            i += 4 * VL
        store[i32](q + count - 4 * VL, load[i32](p + count - 4 * VL))
    else:
        while i + VL < count:
            store[u8](q + i, load[u8](p + i))
            i += VL
        store[u8](q + count - VL, load[u8](p + count - VL))


#: Elements of a row, number of rows, rows per chunk.
ROW_SHARE = Raw("n rows per_chunk")


@inline
def move(p, q, x, y, a, by, *, inputs, outputs):
    """Advance the addresses of a row by `by` indices along dimension `a`."""
    for k, operand in enumerate(inputs):
        if not operand.one:
            p[k] += by * x[k, a]
    for k, _ in enumerate(outputs):
        q[k] += by * y[k, a]


@inline
def find_row(at, row, d, outer):
    """`at`: the row's index along each outer dimension; d: their extents."""
    for a in outer:
        at[a] = 0
    if row > 0:
        at[0] = row
        for k in outer[:0:-1]:
            at[k] = urem(at[0], d[k])
            at[0] = udiv(at[0], d[k])


@inline
def next_row(at, p, q, x, y, d, *, inputs, outputs, outer, inner):
    """Advance to the next row: increment the last outer dimension; at its end reset it and increment the one
    before."""
    for k in outer[::-1]:
        if k + 1 < inner:
            move(p, q, x, y, k + 1, -at[k + 1])
            at[k + 1] = 0
        at[k] += 1
        move(p, q, x, y, k, 1)
        if k == 0 or at[k] < d[k]:
            break


@kernel(of=ROW_SHARE)
def elementwise(
    general, of, x=_INPUTS, y=_OUTPUTS, d=_EXTENTS, *, inputs, outputs, outer, dims, inner, body, twice,
    moved,
):  # fmt: skip
    at, p, q, v = registers()
    for k, operand in enumerate(inputs):
        if operand.one:
            v[k] = splat[operand.dtype](x[k])
    row = chunk * of.per_chunk
    stop = min(row + of.per_chunk, of.rows)
    find_row(at, row, d, outer)
    for k, operand in enumerate(inputs):
        if not operand.one:
            p[k] = x[k]
    for k, _ in enumerate(outputs):
        q[k] = y[k]
    for a in outer:
        move(p, q, x, y, a, at[a])
    while row < stop:
        i = 0
        if general == 0:
            if moved:
                move_bytes(p[0], q[0], of.n, outputs[0])
            else:
                for k, operand in enumerate(inputs):
                    if operand.mode == "s":
                        v[k] = splat[operand.dtype](p[k])
                if twice:
                    while i + 2 * VL <= of.n:
                        apply_twice(v, p, q, i)
                        i += 2 * VL
                while i + VL <= of.n:
                    apply_body(v, p, q, x, y, i, of.n, "whole")
                    i += VL
                if i < of.n:
                    apply_body(v, p, q, x, y, i, of.n, "part")
        else:
            while i < of.n:
                apply_body(v, p, q, x, y, i, of.n, "strided")
                i += VL
        next_row(at, p, q, x, y, d)
        row += 1


@functools.lru_cache(2048)
def _make_kernel(body: Body, modes: str, outer: int, aligned: bool) -> Kernel:
    inputs = tuple(map(Operand, body.inputs, modes))
    dims = tuple(range(outer + 1))
    return elementwise.kernel(
        "", inputs=inputs, outputs=tuple(body.outputs), outer=dims[:-1], dims=dims, inner=outer, body=body,
        twice=len(body.outputs) > 1, moved=not aligned and _is_copy(body, modes),
    )  # fmt: skip


def _is_copy(body: Body, modes: str) -> bool:
    """Whether the body only copies bytes or 16-bit words. Their vectors have as few elements as those of 32
    bits."""
    return modes == "v" and not body.lines and body.inputs == body.outputs and body.outputs[0] in SHORT


def elementwise_kernel(name: str, body: Body, modes: str, outer: int, aligned: bool = False) -> Kernel:
    """The kernel of `body`. `modes`: one letter per input. `outer`: the number of dimensions outside the
    innermost. `aligned`: for a target that loads elements from multiples of their size alone."""
    text = _make_kernel(body, modes, outer, aligned)
    return Kernel(name, text.source, text.frame)
