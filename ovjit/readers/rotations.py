"""Singular values and eigenvalues of matrices, for which OpenVINO has no operations: by Jacobi's rotations.

The functions take matrices [count, rows, columns] of f64, see `factorization`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.api.model.node import Output
from ovjit.readers.build import Builder
from ovjit.readers.counted import counted
from ovjit.readers.factorization import NO_ROW, multiplied, reflected

#: Sweeps over all pairs of columns at most, the cosine between columns that counts as 0, and the product of
#: lengths, relative to the square of all columns' length, below which columns are 0 but for rounding.
SWEEPS, RIGHT, NOTHING = 30, 1e-12, 1e-18


def turned_columns(n: Builder, x: Output, size: int) -> tuple[Output, Output]:
    """A V with columns at right angles, and V, a product of rotations: by Jacobi's method, of A's columns.

    x is f64 [count, rows, size]. A step turns as many pairs as half of the columns. Then all columns but the
    first go on by one place in a ring, so that each meets each other one in a sweep.
    """
    even = max(size + size % 2, 2)
    if even > size:
        x = n("Pad", x, [0, 0, 0], [0, 0, even - size], n.like(x, 0), pad_mode="constant")
    half = even // 2
    ring = [*range(1, half), *range(even - 1, half - 1, -1)]  # the second half is read backwards
    after = dict(zip(ring, [ring[-1], *ring[:-1]], strict=True))
    order = [after.get(place, 0) for place in range(even)]
    head = n.slice(n.shape_of(x), 0, 0, 1)
    one = n("Broadcast", n.const(_eye(even), "f64"), n.concat([head, n.const([even, even])], 0))

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        both, worst = state
        rows = others[0]
        x = n("Slice", both, [0], n.unsqueeze(rows, [0]), [1], [1])
        cosine, sine, near = _angles(n, x, half)
        p, q = (n.slice(both, 2, i * half, (i + 1) * half) for i in range(2))
        first = n("Subtract", n("Multiply", cosine, p), n("Multiply", sine, q))
        second = n("Add", n("Multiply", sine, p), n("Multiply", cosine, q))
        both = n("Gather", n.concat([first, second], 2), n.const(order), 2)
        end = n("Equal", n("FloorMod", k, n.const(even - 1)), n.const(even - 2))
        worst = n("Maximum", worst, near)
        far = n("Greater", worst, n.like(worst, RIGHT))
        worst = n("Select", end, n.like(worst, 0), worst)
        return [both, worst, n("LogicalOr", n("LogicalNot", end), far)]

    rows = n.reshape(n.dim_of(x, 1), [])
    state = [n.concat([x, one], 1), n.const(0.0, "f64")]
    both = counted(n, SWEEPS * (even - 1), state, step, [rows], ends=True)[0]
    kept = n.slice(both, 2, 0, size)
    turned = n("Slice", kept, [0], n.unsqueeze(rows, [0]), [1], [1])
    return turned, n.slice(n("Slice", kept, n.unsqueeze(rows, [0]), [NO_ROW], [1], [1]), 1, 0, size)


def _eye(size: int) -> list[list[float]]:
    return [[float(i == j) for j in range(size)] for i in range(size)]


def _angles(n: Builder, x: Output, half: int) -> tuple[Output, Output, Output]:
    """The cosines and sines [count, 1, half] that bring each column of the first half and its partner in the
    second to right angles, and the largest cosine between two of them."""
    p, q = (n.slice(x, 2, i * half, (i + 1) * half) for i in range(2))
    a, b, c = (n("ReduceSum", n("Multiply", *pair), [1], keep_dims=True) for pair in ((p, p), (q, q), (p, q)))
    zero, one = n.like(a, 0), n.like(a, 1)
    none = n("Equal", c, zero)
    ratio = n("Divide", n("Subtract", b, a), n("Multiply", n("Select", none, one, c), n.like(c, 2)))
    root = n("Sqrt", n("Add", n("Multiply", ratio, ratio), one))
    sign = n("Select", n("Less", ratio, zero), n.like(a, -1), one)
    tangent = n("Divide", sign, n("Add", n("Abs", ratio), root))
    tangent = n("Select", none, zero, tangent)
    cosine = n("Divide", one, n("Sqrt", n("Add", n("Multiply", tangent, tangent), one)))
    size = n("Sqrt", n("Multiply", a, b))
    whole = n("ReduceSum", n("Add", a, b), [2], keep_dims=True)
    size = n("Maximum", size, n("Multiply", whole, n.like(whole, NOTHING)))
    near = n("Divide", n("Abs", c), n("Select", n("Equal", size, zero), one, size))
    near = n("ReduceMax", n.reshape(near, [-1]), [0], keep_dims=False)
    return cosine, n("Multiply", cosine, tangent), near


def _ordered(n: Builder, keys: Output, columns: Sequence[Output], size: int, largest: bool) -> list[Output]:
    """Keys [count, size] in order, and the columns of matrices in the same one."""
    mode = "max" if largest else "min"
    values, places = n.all("TopK", keys, size, axis=1, mode=mode, sort="value", index_element_type="i64")
    return [values, *(n("Gather", x, places, 2, batch_dims=1) for x in columns)]


def singular(n: Builder, x: Output, rows: int, columns: int, full: bool) -> tuple[Output, Output, Output]:
    """A = U diag(s) V^T, the largest s first: U, s and V of f64 [count, rows, columns]. `full`: U and V are
    square, else they have as many columns as there are singular values."""
    if rows < columns:
        v, s, u = singular(n, n.transpose(x, [0, 2, 1]), columns, rows, full)
        return u, s, v
    turned, v = turned_columns(n, x, columns)
    size = n("ReduceL2", turned, [1], keep_dims=False)
    _, turned, v = _ordered(n, size, [turned, v], columns, largest=True)
    packed, factors = reflected(n, turned)
    kept = rows if full else columns
    head = n.slice(n.shape_of(x), 0, 0, 1)
    eye = n.const([row[:kept] for row in _eye(rows)], "f64")
    start = n("Broadcast", eye, n.concat([head, n.const([rows, kept])], 0))
    u = multiplied(n, packed, factors, start, n.const(columns), False)
    ends = n("ReduceSum", n("Multiply", n.slice(packed, 1, 0, columns), n.const(_eye(columns), "f64")), [1],
             keep_dims=False)  # fmt: skip
    sign = n("Select", n("Less", ends, n.like(ends, 0)), n.like(ends, -1), n.like(ends, 1))
    wide = n.unsqueeze(sign, [1])
    if kept > columns:
        wide = n("Pad", wide, [0, 0, 0], [0, 0, kept - columns], n.like(wide, 1), pad_mode="constant")
    return n("Multiply", u, wide), n("Abs", ends), v


def symmetric(n: Builder, x: Output, size: int) -> tuple[Output, Output]:
    """Eigenvalues [count, size] of symmetric matrices of f64, the least first, and eigenvectors as columns.

    A + c 1, where c is as large as any of them, has the same vectors, and its columns times V are V's
    columns times its eigenvalues.
    """
    c = n("ReduceL2", x, [1, 2], keep_dims=True)
    moved = n("Add", x, n("Multiply", n.const(_eye(size), "f64"), c))
    turned, v = turned_columns(n, moved, size)
    values = n("ReduceSum", n("Multiply", turned, v), [1], keep_dims=False)
    values = n("Subtract", values, n.squeeze(c, [2]))
    found = _ordered(n, values, [v], size, largest=False)
    return found[0], found[1]
