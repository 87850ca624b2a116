"""Determinants, for which OpenVINO has no operation."""

from __future__ import annotations

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.build import Builder


def determinant(n: Builder, x: Output) -> Output:
    """By elimination for matrices of up to 16 rows: the largest element of a column goes to the diagonal.

    The step for column k, with rows permuted by a one-hot product: R = M[p] - outer(M[:, k], M[p]) / M[p, k].
    """
    size = next((d for d in (n.shape(x) or ())[-2:] if isinstance(d, int)), None)
    if size is None:
        raise UnsupportedError("the size of the matrices is not known when the model is read")
    if size > 16:
        raise UnsupportedError(f"determinants of {size} rows; 16 are the most")
    if size == 0:
        raise ModelError("takes square matrices")
    sign: Output | None = None
    rest, product = x, None
    for k in range(size, 0, -1):
        # the row whose first element is largest
        column = n("Gather", rest, [0], -1)
        best = n.all(
            "TopK", n("Abs", column), 1, axis=-2, mode="max", sort="none", index_element_type="i64", opset=3
        )[1]
        flat = n.squeeze(best, [-1])
        hot = n("OneHot", flat, k, n.like(x, 1), n.like(x, 0), axis=-1)
        pivot_row = n("MatMul", hot, rest)
        pivot = n("Gather", pivot_row, [0], -1)
        product = pivot if product is None else n("Multiply", product, pivot)
        # moving row p up over the others changes the sign p times
        odd = n("FloorMod", n.unsqueeze(flat, [-1]), 2)
        turn = n("Subtract", n.like(x, 1), n("Multiply", n.convert(odd, n.dtype(x)), n.like(x, 2)))
        sign = turn if sign is None else n("Multiply", sign, turn)
        if k == 1:
            break
        zero = n("Equal", pivot, n.like(x, 0))
        safe = n("Select", zero, n.like(x, 1), pivot)
        factors = n("Divide", column, safe)
        rest = n("Subtract", rest, n("MatMul", factors, pivot_row))
        keep = n.slice(rest, -1, 1)
        # the rows but the pivot's, in their order: shifted by one from it on
        rows = n.const(np.arange(k - 1).reshape((1,) * (n.rank(x) - 2) + (k - 1,)))
        after = n.convert(n("GreaterEqual", rows, flat), "i64")
        chosen = n("OneHot", n("Add", rows, after), k, n.like(x, 1), n.like(x, 0), axis=-1)
        rest = n("MatMul", chosen, keep)
    assert product is not None and sign is not None
    return n.squeeze(n("Multiply", product, sign), [-2, -1])
