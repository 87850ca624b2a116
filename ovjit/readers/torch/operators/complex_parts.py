"""Operators that treat the real and the imaginary part of complex tensors alike: those that move elements,
and linear ones. Their rules for reals read each part. Products, variances and matrices combine both parts.
"""

from __future__ import annotations

from ovjit.readers.torch.operators.complex import angle, bilinear, extend_to_complex, pair_of, polar
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import PARTS, torch_types

#: The arguments that hold elements, by the operators. Other arguments are the same for both parts.
_ELEMENTS = {
    "split split_with_sizes chunk tensor_split masked_select tril triu diagonal diag diag_embed trace unfold "
    "as_strided narrow movedim": "x",
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d _pad_circular": "x value",
    "index_put _unsafe_index_put": "x values",
    "masked_fill fill": "x value",
    "slice_scatter select_scatter diagonal_scatter as_strided_scatter": "x src",
    "scatter scatter_add": "x src value",
    "index_add index_copy index_fill": "x source value",
    "masked_scatter": "x source",
    "full full_like new_full": "x fill_value",
    "scalar_tensor cumsum": "x",
}


def _by_parts(elements: Sequence[str], n: Call, rule: Rule, x: Any, **named: Any) -> Any:
    """Apply the rule of reals to each part of the arguments `elements`."""
    parts = []
    for index in (0, 1):
        chosen = {k: _part(n, v, index) if k in elements else v for k, v in {"x": x, **named}.items()}
        if (kind := named.get("dtype")) is not None and name_of(kind) in PARTS:
            chosen["dtype"] = torch_types()[PARTS[name_of(kind)]]
        parts.append(rule(n, **chosen))
    return _join_parts(n, *parts)


def _part(n: Call, value: Any, index: int) -> Any:
    """A part of a tensor or number. Real ones have an imaginary part of 0; a list is a size."""
    if isinstance(value, Complex):
        return n.part(value, index)
    if isinstance(value, complex):
        return value.imag if index else value.real
    if value is None or not index or isinstance(value, (list, tuple)):
        return value
    return 0.0 if isinstance(value, (int, float, Number)) else n.zeros(value)


def _join_parts(n: Call, real: Any, imaginary: Any) -> Any:
    if isinstance(real, list):
        return [_join_parts(n, a, b) for a, b in zip(real, imaginary, strict=True)]
    return n.complex_of(n.real(real), n.real(imaginary))


for _names, _arguments in _ELEMENTS.items():
    extend_to_complex(_names, partial(_by_parts, _arguments.split()), among=_arguments)


def _product(n: Call, rule: Rule, x: Complex, dtype: Any = None, **named: Any) -> Complex:
    """The product of elements: magnitudes are multiplied and angles added, in f64."""
    x_f64 = Complex(n.convert(x.pair, "f64"))
    turns = n.also("cumsum" if "cum" in n.op else "sum", angle(n, x_f64), **named)
    result = polar(n, rule(n, n.also("abs", x_f64), **named), turns)
    return Complex(n.convert(result.pair, n.dtype(x.pair)))


def _variance(n: Call, rule: Rule, x: Complex, **named: Any) -> Any:
    """Variance, or standard deviation, of complex numbers: var(x) = var(real x) + var(imaginary x)."""
    both = [n.also("var_mean", n.part(x, i), **named) for i in (0, 1)]
    result = n("Add", both[0][0], both[1][0])
    result = n("Sqrt", result) if "std" in n.op else result
    return [result, n.complex_of(both[0][1], both[1][1])] if n.op.endswith("mean") else result


def _chain(n: Call, rule: Rule, x: Any) -> Any:
    out = x[0]
    for value in x[1:]:
        out = n.also("complex_matmul", out, value)
    return out


def _mesh(n: Call, rule: Rule, x: Any, **named: Any) -> list[Complex]:
    parts = ([n.part(pair_of(n, v), i) for v in x] for i in (0, 1))
    both = [rule(n, values, **named) for values in parts]
    return [n.complex_of(a, b) for a, b in zip(*both, strict=True)]


def _inverse(n: Call, x: Complex) -> Complex:
    """(A + Bi)^-1 = C + Di, where [[A, -B], [B, A]]^-1 = [[C, -D], [D, C]]"""
    a, b = n.part(x, 0), n.part(x, 1)
    rows = n("Concat", a, b, axis=-2), n("Concat", n("Negative", b), a, axis=-2)
    inverse = n("Inverse", n("Concat", *rows, axis=-1), adjoint=False)
    rank, count = n.rank(a), n.size(a, -1)
    columns = n.cut(inverse, rank - 1, 0, count)
    return n.complex_of(
        n.cut(columns, rank - 2, 0, count), n.cut(columns, rank - 2, count, n.compute("Multiply", count, 2))
    )


def _invert(n: Call, rule: Rule, x: Complex) -> Any:
    result = _inverse(n, x)
    return [result, None] if n.op.endswith("_ex") else result


def _solve(n: Call, rule: Rule, x: Any, B: Any, left: bool = True) -> Any:
    """A^-1 B; a vector of right-hand sides is a column."""
    x, b = pair_of(n, x), pair_of(n, B)
    rank, rows = n.rank(b.pair) - 1, n.rank(x.pair) - 1
    vector = rank == 1 or (rank == rows - 1 and (n.shape(b.pair) or ())[:-1] == (n.shape(x.pair) or ())[:-2])
    b = n.also("unsqueeze", b, -1) if vector else b
    result: Any = n.also("complex_matmul", *((_inverse(n, x), b) if left else (b, _inverse(n, x))))
    result = n.also("squeeze", result, -1) if vector else result
    if n.op == "aten::linalg_solve":
        return result
    return [result, None] if n.op == "aten::linalg_solve_ex" else [result, None, None, None]


_RULES: dict[str, Callable[..., Any]] = {
    "prod cumprod": _product, "var std var_mean std_mean": _variance, "meshgrid": _mesh,
    "kron": lambda n, rule, x, other: bilinear(n, partial(rule, n), x, other),
    "linalg_multi_dot chain_matmul": _chain, "inverse linalg_inv linalg_inv_ex": _invert,
    "linalg_solve linalg_solve_ex _linalg_solve_ex": _solve,
}  # fmt: skip
for _names, _rule in _RULES.items():
    extend_to_complex(_names, _rule)
