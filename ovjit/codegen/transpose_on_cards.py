"""Copies on cards that transpose the dimension of adjacent elements with another one.

    y[i0, i1, i2, a, b] = x[i0, i1, i2, b, a]      a adjacent in x, b adjacent in y

A warp loads a square of 32 x 32 elements row by row, and stores it column by column, so that both accesses
have adjacent lanes. The square is in the warp's shared memory, where a row has a word more than 32. So the
elements of a column are in different banks, as are those of a row.
"""

from __future__ import annotations

import functools

from ovjit.codegen.kernel_language import *
from ovjit.codegen.memory import SIZE
from ovjit.codegen.transpose import ELEMENTS

#: Rows and columns of a square: the lanes of a warp.
SIDE = 32


@kernel(over="i0 i1 i2 a/side b/side", x="i0 i1 i2 b a:1", y="i0 i1 i2 a b:1")
def transpose_squares(x: Tensor, y: Tensor, *, elem, word, side):
    """Items are squares. `word`: the type of elements in shared memory. A square that is whole has all its
    loads on their way at a time."""
    v = registers()
    shared = shared_memory(side * (side + 1) * SIZE[word])
    along = lane_numbers[i32]() * const[i32](SIZE[word])
    across = lane_numbers[i32]() * const[i32]((side + 1) * SIZE[word])
    for _, _, _, a, b, p, q in items(x, y):
        columns = y.size.a - a
        rows = y.size.b - b
        if min(columns, rows) >= side:
            for k in static_range(side):
                v[k] = cast[word](load[elem](x.at(p, b=k)))
            for k in static_range(side):
                share_elements[word](shared + k * (side + 1) * SIZE[word], along, v[k])
            warp_barrier()
            for k in static_range(side):
                store[elem](y.at(q, a=k), cast[elem](read_elements[word](shared + k * SIZE[word], across)))
        else:
            for k in range(side):
                part = loadm[elem](x.at(p, b=min(k, rows - 1)), columns)
                share_elements[word](shared + k * (side + 1) * SIZE[word], along, cast[word](part))
            warp_barrier()
            for k in range(min(side, columns)):
                part = cast[elem](read_elements[word](shared + k * SIZE[word], across))
                storem[elem](y.at(q, a=k), part, rows)
        warp_barrier()


@functools.cache
def transpose_squares_kernel(size: int) -> Kernel:
    """The transposing kernel for elements of `size` bytes."""
    elem = ELEMENTS[size]
    word = "i64" if size == 8 else "i32"
    return transpose_squares.kernel(f"transpose_{elem}", elem=elem, word=word, side=SIDE)
