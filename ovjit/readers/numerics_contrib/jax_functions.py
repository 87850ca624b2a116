"""JAX's singular values and eigenvalues."""

from __future__ import annotations

from ovjit.readers.jax.rule_language import *
from ovjit.readers.numerics import factorization
from ovjit.readers.numerics_contrib import jacobi


def _stack_f64(n: JaxNode) -> Output:
    """The matrices in f64, stacked. UnsupportedError where only some of their values are asked for."""
    if n.params.get("subset_by_index") is not None:
        raise UnsupportedError("a part of the values is not supported")
    return n.convert(factorization.stack_matrices(n, n[0]), "f64")


@primitive("svd")
def svd(n: JaxNode) -> Any:
    u, s, v = jacobi.singular(n, _stack_f64(n), bool(n.params["full_matrices"]))
    result = [(s, 1), (u, 2), (n.transpose(v, [0, 2, 1]), 2)]
    result = result if n.params["compute_uv"] else result[:1]
    return [n.convert(factorization.unstack(n, x, n[0], core_rank), n.dtype(n[0])) for x, core_rank in result]


@primitive("eigh")
def eigh(n: JaxNode) -> Any:
    """Eigenvectors and eigenvalues of symmetric matrices, read from one triangle."""
    x, size = _stack_f64(n), n.static_shape(n[0])[-1]
    lower = np.tril(np.ones((size, size), bool))
    transposed = n.transpose(x, [0, 2, 1])
    x = n("Select", n.const(lower if n.params["lower"] else lower.T), x, transposed)
    values, vectors = jacobi.symmetric(n, x)
    result = [(vectors, 2), (values, 1)]
    return [n.convert(factorization.unstack(n, x, n[0], core_rank), n.dtype(n[0])) for x, core_rank in result]
