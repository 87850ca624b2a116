"""Operators of TensorFlow that its exporter does not know, and leaves in the ONNX model under their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.readers import matrices, special
from ovjit.readers.bits import recast
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.rows import Rule


def known_operators(framework: str) -> Mapping[str, Rule]:
    """The rules for operators of a framework, by their names."""
    return _TENSORFLOW if framework == "tf" else {}


def _wide(function: Callable[[Any, Output], Output]) -> Rule:
    """A function that is computed in f64."""
    return lambda n: n.convert(function(n, n.convert(n[0], "f64")), n.dtype(n[0]))


def _unless_zero(function: Callable[[OnnxNode], Output]) -> Rule:
    """0 where the first operand is, whatever the second one."""

    def rule(n: OnnxNode) -> Output:
        made = function(n)
        return n("Select", n("Equal", n[0], n.like(n[0], 0)), n.like(made, 0), made)

    return rule


def _log1p(n: OnnxNode, x: Output) -> Output:
    return n("Log", n("Add", x, n.like(x, 1)))


def _truncate_mod(n: OnnxNode) -> Output:
    return n("Mod", n[0], n[1])


def _normal_quantile(n: OnnxNode, x: Output) -> Output:
    """sqrt(2) erfinv(2 x - 1)"""
    twice = n("Subtract", n("Multiply", x, n.like(x, 2)), n.like(x, 1))
    return n("Multiply", special.erf_inverse(n, twice), n.like(x, 2**0.5))


def _euclidean_norm(n: OnnxNode) -> Output:
    axes = [int(a) for a in n.known(1, "the axes").reshape(-1)]
    return n("ReduceL2", n[0], axes, keep_dims=bool(n.attr("keep_dims", 0)))


def _l2_loss(n: OnnxNode) -> Output:
    square = n("Multiply", n[0], n[0])
    total = n("ReduceSum", square, list(range(n.rank(n[0]))), keep_dims=False)
    return n("Multiply", total, n.like(total, 0.5))


def _linspace(n: OnnxNode) -> Output:
    """`count` numbers from a start to an end, both included."""
    start, end, count = n[0], n[1], int(n.known(2, "the number of steps").reshape(()))
    steps = n.like(start, np.arange(count) / max(count - 1, 1))
    return n("Add", start, n("Multiply", n("Subtract", end, start), steps))


def _bucketize(n: OnnxNode) -> Output:
    """How many boundaries are not above each number."""
    bounds = n.const(np.array(n.required("boundaries"), np.float32))
    x = n.convert(n[0], "f32")
    return n("Bucketize", x, bounds, output_type="i32", with_right_bound=False)


_TENSORFLOW: dict[str, Rule] = {
    "Erfc": _wide(special.erfc),
    "Lgamma": _wide(special.log_gamma),
    "Digamma": _wide(special.digamma),
    "Erfinv": _wide(special.erf_inverse),
    "Ndtri": _wide(_normal_quantile),
    "BesselI0": _wide(lambda n, x: special.bessel_i(n, x, 0, False)),
    "BesselI1": _wide(lambda n, x: special.bessel_i(n, x, 1, False)),
    "BesselI0e": _wide(lambda n, x: special.bessel_i(n, x, 0, True)),
    "BesselI1e": _wide(lambda n, x: special.bessel_i(n, x, 1, True)),
    "Expm1": lambda n: n("Subtract", n("Exp", n[0]), n.like(n[0], 1)),
    "Log1p": lambda n: _log1p(n, n[0]),
    "Xlogy": _unless_zero(lambda n: n("Multiply", n[0], n("Log", n[1]))),
    "Xlog1py": _unless_zero(lambda n: n("Multiply", n[0], _log1p(n, n[1]))),
    "Xdivy": _unless_zero(lambda n: n("Divide", n[0], n[1])),
    "MulNoNan": lambda n: n(
        "Select", n("Equal", n[1], n.like(n[1], 0)), n.like(n[0], 0), n("Multiply", n[0], n[1])
    ),
    "Inv": lambda n: n("Divide", n.like(n[0], 1), n[0]),
    "TruncateMod": _truncate_mod,
    "Mod": _truncate_mod,
    "EuclideanNorm": _euclidean_norm,
    "L2Loss": _l2_loss,
    "LinSpace": _linspace,
    "Cholesky": lambda n: matrices.lower_factor(n, n[0]),
    "MatrixInverse": lambda n: matrices.inverse(n, n[0], n.attr("adjoint", 0)),
    "MatrixSolve": lambda n: n("MatMul", matrices.inverse(n, n[0], n.attr("adjoint", 0)), n[1]),
    "MatrixTriangularSolve": lambda n: n(
        "MatMul",
        matrices.inverse_of_triangle(n, n[0], n.attr("lower", 1), transposed=n.attr("adjoint", 0)),
        n[1],
    ),
    "Bucketize": _bucketize,
    "Cross": lambda n: matrices.cross(n, n[0], n[1], n.rank(n[0]) - 1),
    "Bitcast": lambda n: recast(n, n[0], n.data_type("type")),
    "Rank": lambda n: n.const(n.rank(n[0]), "i32"),
    "Snapshot": lambda n: n.same(n[0]),
    "PreventGradient": lambda n: n.same(n[0]),
    "LowerBound": lambda n: n("SearchSorted", n[0], n[1], right_mode=False, output_type="i32"),
    "UpperBound": lambda n: n("SearchSorted", n[0], n[1], right_mode=True, output_type="i32"),
}
