"""Products with weights of 8 or 4 bits on GPUs.

    y[m, n] = epilogue(sum over k of x[m, k] (codes[n, k] - zero[n, g]) scale[n, g])        g = k // group

`compressed_rows` is for few rows: it reads the codes alone, at the bandwidth of the memory. A lane has
units of eight elements along the depth, whose codes are one or two words of 32 bits. For more rows,
`unpack_weights` stores the weights in 16 bits, as `tensor_product` or `block_product` read them.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import LINE, QUADS, STRIP
from ovjit_ops.matmul.gpu_products import load_operands

#: Elements of a unit, rows and columns of an item of `compressed_rows`, and vectors of units that are read
#: together.
UNIT, ROWS, COLUMNS, DEEP = 8, 4, 2, 4
#: The bits of the f32 2**23, whose last bits are those of an integer that is added, and that number.
_MAGIC, _MAGIC_NUMBER = 0x4B000000, 8388608.0


@inline
def decode(d, low, high, *, width):
    """Set d[i] to the codes of a unit as f32."""
    for i in static_range(UNIT):
        word = low if width == 4 or i < 4 else high
        code = (word >> const[i32](i * width % 32)) & const[i32]((1 << width) - 1)
        d[i] = bits[f32](code | const[i32](_MAGIC)) - const[f32](_MAGIC_NUMBER)


@inline
def load_codes(w, q, unit, count, *, width, slot):
    """Load the words of `count` units, one in each lane, from number `unit` on."""
    if width == 4:
        w[slot, 0] = loadm[i32](q + unit * 4, count)
        w[slot, 1] = w[slot, 0]
    else:
        w[slot, 0] = gather[i32](q + unit * 8, 8, count)
        w[slot, 1] = gather[i32](q + unit * 8 + 4, 8, count)


@kernel(
    over="m/rows n/columns", x="m k", q="n u", scale="n g", zero="n g", y="m n", p="m n", q2="m n", r="m n",
)  # fmt: skip
def compressed_rows(
    x: Tensor, q: Tensor, scale: Tensor, zero: Tensor, y: Tensor, p: Tensor, q2: Tensor, r: Tensor, units,
    shift,
    *, T, out, width, rows, columns, body, first, second, third,
):  # fmt: skip
    """T, out: element types of x and y. `units`: of a row; 2**`shift` of them are a group. p, q2, r:
    operands of the epilogue, of the types `first`, `second` and `third` ("": none)."""
    c, w, o, at, d, v, e, s = registers()
    lane = lane_numbers[i32]()
    for row, column, px, pq, ps, pz, py, pp, p2, pr in items(x, q, scale, zero, y, p, q2, r):
        for i, j in np.ndindex(rows, columns):
            c[i, j] = const[f32](0)
        for j in static_range(columns):  # columns and rows that are not there repeat the last one
            there = min(j, y.size.n - 1 - column)
            at["q", j] = q.at(pq, n=there)
            at["s", j] = scale.at(ps, n=there)
            at["z", j] = zero.at(pz, n=there)
        for h in range(0, units, DEEP * VL):
            for n in static_range(DEEP):
                for j in static_range(columns):
                    load_codes(w, at["q", j], h + n * VL, units - h - n * VL, slot=n * columns + j)
            for n in static_range(DEEP):
                unit = lane + spread[i32](h + n * VL)
                is_there = unit < spread[i32](units)
                group = minimum(unit, spread[i32](units - 1)) >> spread[i32](shift)
                for j in static_range(columns):
                    s["s", j] = take[f32](at["s", j], group)
                    s["z", j] = take[f32](at["z", j], group)
                for i in static_range(rows):
                    e[i] = load_eight[T](
                        x.at(px, m=min(i, y.size.m - 1 - row)),
                        cast[i64](unit) * const[i64](UNIT * SIZE[T]),
                        is_there,
                    )
                    total = const[f32](0)
                    for k in static_range(UNIT):
                        v[i, k] = part_of_eight[T](e[i], k)
                        total = total + v[i, k]
                    s["x", i] = total
                for j in static_range(columns):
                    decode(d, w[n * columns + j, 0], w[n * columns + j, 1])
                    for i in static_range(rows):
                        total = s["x", i] * -s["z", j]
                        for k in static_range(UNIT):
                            total = fma(v[i, k], d[k], total)
                        c[i, j] = fma(total, s["s", j], c[i, j])
        count = min(y.size.n - column, columns)
        for i in static_range(rows):
            if row + i < y.size.m:
                total = const[f32](0)
                for j in static_range(columns):
                    total = select(lane == const[i32](j), spread[f32](hadd[f32](c[i, j])), total)
                load_operands(
                    o,
                    p.at(pp, m=i),
                    q2.at(p2, m=i),
                    r.at(pr, m=i),
                    p.stride.n,
                    q2.stride.n,
                    r.stride.n,
                    count,
                )
                if body:
                    total = applied(body, total, *o)
                spaced(y.at(py, m=i), y.stride.n, total, count, out)


@kernel(over="n filled/VL", q="n u", scale="n g", zero="n g", y="")
def unpack_weights(
    q: Tensor, scale: Tensor, zero: Tensor, y: Tensor, units, shift, step, filled, *, T, width, image
):  # fmt: skip
    """The weights in 16 bits. `units`: of a row; those up to `filled` are zeros. `step`: bytes of a row of
    y; with `image`, of a strip of 32 columns in the order of `block_product`."""
    w, d = registers()
    lane = lane_numbers[i32]()
    for column, first, pq, ps, pz in items(q, scale, zero):
        unit = lane + spread[i32](first)
        load_codes(w, pq, first, units - first, slot=0)
        group = minimum(unit, spread[i32](units - 1)) >> spread[i32](shift)
        scales = take[f32](ps, group)
        zeros = take[f32](pz, group)
        decode(d, w[0, 0], w[0, 1])
        is_there = unit < spread[i32](units)
        for i in static_range(UNIT):
            d[i] = select(is_there, (d[i] - zeros) * scales, const[f32](0))
        offset = cast[i64](unit) * const[i64](UNIT * SIZE[T]) + spread[i64](column * step)
        if image:
            position = (column // 2 % 4) * 8 + (column // 8 % 4) * 2 + column % 2
            part = (unit & const[i32](7)) ^ spread[i32](position % 8)
            offset = cast[i64](unit >> const[i32](3)) * const[i64](STRIP) + cast[i64](part << const[i32](4))
            offset = offset + spread[i64](column // QUADS * step + position * LINE)
        store_eight[T](y, offset, join_eight[T](*(d[i] for i in range(8))), unit < spread[i32](filled))
