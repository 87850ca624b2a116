"""Products and inverses of matrices that several readers need."""

from __future__ import annotations

from ovjit.readers.numerics.factorization import cholesky, stack_matrices, unstack
from ovjit.readers.rule_language import *


def inverse(n: Builder, x: Output, transposed: bool = False) -> Output:
    """The inverse of each matrix, or its transpose."""
    result = n("Inverse", x, adjoint=False)
    return n.swap_rows_and_columns(result) if transposed else result


def inverse_of_triangle(
    n: Builder, x: Output, lower: bool, unit: bool = False, transposed: bool = False
) -> Output:
    """The inverse of the lower or the upper triangle of matrices; `unit`: with ones on the diagonal."""
    size = n.last_dim(x)
    mask = np.tri(size, k=-1 if unit else 0, dtype=bool)
    part = n("Select", n.const(mask if lower else mask.T), x, n.like(x, 0))
    return inverse(n, n("Add", part, n.like(x, np.eye(size))) if unit else part, transposed)


def lower_factor(n: Builder, x: Output) -> Output:
    """L of A = L L^T, by the lower triangle of A."""
    return unstack(n, cholesky(n, stack_matrices(n, x))[0], x, 2)


def cross(n: Builder, a: Output, b: Output, axis: int) -> Output:
    """a[1] b[2] - a[2] b[1], and so on round, along an axis of 3."""

    def product(first: list[int], second: list[int]) -> Output:
        return n("Multiply", n("Gather", a, first, axis), n("Gather", b, second, axis))

    after, before = [1, 2, 0], [2, 0, 1]
    return n("Subtract", product(after, before), product(before, after))
