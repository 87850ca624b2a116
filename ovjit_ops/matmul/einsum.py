"""Einsum: products of tensors, summed over the dimensions that are not in the result."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.graph import Value
from ovjit.graph.op import Str, TensorType, op
from ovjit.graph.shapes import ANY, Dim, broadcast_dims
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.values import widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases

#: The assumed extent of dynamic dimensions when the order of products is chosen.
UNKNOWN = 64
_EQUATION = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


class Open(Exception):
    """A merged dimension is 0; Einsum is then not expanded."""


_COUNT = "Equation must contain a number of subscripts equal to a number of Einsum inputs."


def parse(equation: str, ranks: Sequence[int | None]) -> tuple[list[list[str]], list[str]] | None:
    """(labels of each operand, labels of the result); None if an ellipsis has an unknown rank.

    A label is a letter, or "...0", "...1" for a dimension of the ellipsis, counted from its end. Raises
    ModelError for an invalid equation, or one that does not fit the ranks.
    """
    text = equation.replace(" ", "")
    operand_text, arrow, right = text.partition("->")
    parts = operand_text.split(",")
    check(
        len(parts) == len(ranks),
        f"{_COUNT} {equation!r} has {len(parts)} input subscripts, but {len(ranks)} inputs are given",
    )
    for part in (*parts, right):
        says = f"{'Output' if part is right else 'Input'} subscript of Einsum equation must consist of "
        says += "either only alphabetic letters or alphabetic letters with one ellipsis."
        check(_EQUATION.fullmatch(part), f"{says} {part[:40]!r} in {equation!r} is not valid")
    pairs = zip(parts, ranks, strict=True)
    ranks = [len(part) if rank is None and "..." not in part else rank for part, rank in pairs]
    if None in ranks:
        return None
    operands, widest = [], 0
    for part, rank in zip(parts, ranks, strict=True):
        letters = part.replace("...", "")
        extra = int(rank or 0) - len(letters)
        check(
            extra == 0 or (extra > 0 and "..." in part),
            "Input rank must be greater or equal to a number of labels in the corresponding input "
            f"subscript. {part!r} does not match rank {rank}",
        )
        widest = max(widest, extra)
        before, _, after = part.partition("...")
        operands.append([*before, *(f"...{i}" for i in reversed(range(extra))), *after])
    dots = [f"...{i}" for i in reversed(range(widest))]
    if not arrow:
        once = sorted(c for c in set(operand_text) - {",", "."} if operand_text.count(c) == 1)
        return operands, [*dots, *once]
    check(
        len(set(right.replace("...", ""))) == len(right.replace("...", "")),
        f"the output subscript {right!r} repeats a label",
    )
    says = "Label in output subscript of Einsum equation must enter at least one input subscript."
    check(set(right) <= set(operand_text) | {"."}, f"{says} {right!r} has other labels")
    check("..." in right or not dots, f"the output subscript of {equation!r} lacks the ellipsis")
    before, _, after = right.partition("...")
    return operands, [*before, *(dots if "..." in right else []), *after]


def label_sizes(operands: Sequence[Sequence[str]], shapes: Sequence[Sequence[Dim]]) -> dict[str, Dim]:
    """label -> dimension. Raises ModelError if dimensions of a label cannot be broadcast."""
    sizes: dict[str, Dim] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        for label, d in zip(labels, shape, strict=True):
            both = broadcast_dims(sizes.get(label, d), d)
            check(
                both is not None,
                "Different input dimensions indicated by the same labels for Einsum must be "
                f"broadcastable. The dimensions of {label!r} are {sizes.get(label)} and {d}",
            )
            sizes[label] = both if both is not None else d
    return sizes


def _numpy_form(operands: Sequence[Sequence[str]], out: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """The arguments of np.einsum, with integer labels."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(x for labels in operands for x in labels))}
    form: list[Any] = []
    for array, labels in zip(arrays, operands, strict=True):
        form += [array, [numbers[x] for x in labels]]
    return [*form, [numbers[x] for x in out]]


@op("Einsum", opset=7, types=NUMBERS, ulp=32)
class Einsum:
    """The sum of products for an equation such as "bij,bjk->bik"."""

    def infer(*xs, equation: Str):
        dtypes = {x.dtype for x in xs} - {"dynamic"}
        says = "Inputs to Einsum operation must have the same type."
        check(len(dtypes) <= 1, f"{says} They are {sorted(dtypes)}")
        dtype = min(dtypes, default="dynamic")
        check(dtype in (*NUMBERS, "dynamic"), f"supported types are {' '.join(NUMBERS)}, not {dtype}")
        check(xs, "at least one input is needed")
        parsed = parse(equation, [x.rank for x in xs])
        if parsed is None:
            return TensorType(dtype, None)
        operands, out = parsed
        shapes = [x.shape or (ANY,) * len(labels) for x, labels in zip(xs, operands, strict=True)]
        sizes = label_sizes(operands, shapes)
        return TensorType(dtype, tuple(sizes.get(label, ANY) for label in out))

    def ref(*xs, equation):
        parsed = parse(equation, [x.ndim for x in xs])
        assert parsed is not None
        out = np.einsum(*_numpy_form(*parsed, [widen_floats(x) for x in xs]), optimize="greedy")
        return np.asarray(out).astype(xs[0].dtype)

    def expand(w, node, inputs):
        """Einsum -> ReduceSum, Transpose, MatMul, Reshape: two operands at a time, the cheapest pair first"""
        parsed = parse(node.attrs["equation"], [v.type.rank for v in inputs])
        if parsed is None or any(v.shape is None for v in inputs):
            return None
        operands, out = parsed
        sizes = label_sizes(operands, [v.shape for v in inputs])
        try:
            terms = [_diagonal(w, x, labels) for x, labels in zip(inputs, operands, strict=True)]
            return [_contract(w, terms, out, sizes)]
        except Open:
            return None

    samples = cases(
        ((5,), (5,), {"equation": "i,i->"}),
        ((7, 8), (8, 9), {"equation": "ij,jk->ik"}),
        ((2, 15, 17), (2, 17, 33), {"equation": "bij,bjk->bik"}),
        ((3, 17), {"equation": "ij->ji"}),
        ((3, 17), {"equation": "ij->i"}),
        ((7,), (16,), {"equation": "i,j->ij"}),
        ((3, 5), (3, 5), {"equation": "ij,ij->ij"}),
        ((2, 3, 5, 8), (2, 3, 7, 8), {"equation": "bhqd,bhkd->bhqk"}),
        ((2, 3, 5, 7), (2, 7, 3, 8), {"equation": "bhqk,bkhd->bqhd"}),
        ((2, 3, 4, 5), (3, 5, 6), {"equation": "...ij,...jk->...ik"}),
        ((2, 3, 4, 5), {"equation": "a...b->b...a"}),
        ((3, 4), (4, 5), (5, 6), {"equation": "ab,bc,cd->ad"}),
        ((2, 3, 4), (2, 5), {"equation": "abc,ad->bcd"}),
        ((2, 3), (4, 5), {"equation": "ij,kl->ijkl"}),
        ((4, 4), {"equation": "ii->i"}),
        ((4, 3, 4, 2), {"equation": "iaib->bi"}),
        ((5, 2, 5, 5), (2, 3, 3), {"equation": "iaii,ajj->ij"}),
        ((3, 4), (4,), {"equation": "ab,b"}),
        ((2, 3, 4, 5), (4, 5), {"equation": "abcd,cd->ab"}),
        domain=(-2, 2),
    )


def _diagonal(w: Writer, x: Value, labels: list[str]) -> tuple[Value, list[str]]:
    """Take diagonals: [..., n, n], whose last two labels are equal, -> [..., n * n] -> every (n + 1)th
    element."""
    for label in sorted(set(labels)):
        while labels.count(label) > 1:
            *_, i, j = (axis for axis, here in enumerate(labels) if here == label)
            others = [axis for axis in range(len(labels)) if axis not in (i, j)]
            square = w("Transpose", x, (*others, i, j))
            *lead, _, n = w.shape(square)
            flat = w("Reshape", square, (*lead, n * n), special_zero=False)
            x = w("Slice", flat, (0,), (n * n,), (n + 1,), (-1,))
            labels = [*(labels[axis] for axis in others), label]
    return x, labels


def _contract(
    w: Writer, terms: list[tuple[Value, list[str]]], out: list[str], sizes: dict[str, Dim]
) -> Value:
    """The product of all terms, summed and transposed to the labels `out`."""
    while len(terms) > 1:
        first, second = _cheapest(terms, sizes)
        a, b = terms[first], terms[second]
        free = [t for i, t in enumerate(terms) if i not in (first, second)]
        needed = set(out) | {x for _, labels in free for x in labels}
        terms = [*free, _product(w, _sum_out(w, *a, needed | set(b[1])), _sum_out(w, *b, needed | set(a[1])),
                                 needed)]  # fmt: skip
    value, labels = _sum_out(w, *terms[0], set(out))
    return _transpose(w, value, labels, out)


def _cheapest(terms: list[tuple[Value, list[str]]], sizes: dict[str, Dim]) -> tuple[int, int]:
    """The indices of the pair whose product takes the fewest multiplications."""
    pairs = [(i, j) for j in range(len(terms)) for i in range(j)]

    def cost(pair: tuple[int, int]) -> int:
        labels = set(terms[pair[0]][1]) | set(terms[pair[1]][1])
        return _count(sizes[x] for x in labels)

    return min(pairs, key=cost)


def _count(extents: Iterable[Dim]) -> int:
    """The product of dimensions, with `UNKNOWN` for dynamic ones."""
    out = 1
    for d in extents:
        out *= d if isinstance(d, int) else UNKNOWN
    return out


def _reshape(w: Writer, value: Value, count: int, groups: Sequence[Sequence[Any]]) -> Value:
    """Reshape `value`: keep the first `count` dimensions, followed by the product of each group of extents.
    Raises Open if one of these is 0."""
    target = [*w.shape(value)[:count], *map(math.prod, groups)]
    if 0 in target[count:]:
        raise Open
    return w("Reshape", value, target, special_zero=False)


def _sum_out(w: Writer, value: Value, labels: list[str], needed: set[str]) -> tuple[Value, list[str]]:
    """Sum over dimensions whose labels are not needed."""
    axes = [i for i, x in enumerate(labels) if x not in needed]
    if not axes:
        return value, labels
    return w("ReduceSum", value, axes, keep_dims=False), [x for x in labels if x in needed]


def _transpose(w: Writer, value: Value, labels: list[str], order: list[str]) -> Value:
    if labels == order:
        return value
    return w("Transpose", value, [labels.index(x) for x in order])


def _stretch(w: Writer, x: Value, xl: list[str], like: Value, yl: list[str], labels: Sequence[str]) -> Value:
    """Broadcast `x` to the extents of `like` at these labels, where its own are 1: MatMul does not broadcast
    the dimension that it sums over. The result is a view, or `x` itself if the extents are equal."""
    extents = dict(zip(yl, w.shape(like), strict=True))
    target = [extents[c] if c in labels else 1 for c in xl]
    return w("Broadcast", x, target, mode="bidirectional")


def _product(
    w: Writer, a: tuple[Value, list[str]], b: tuple[Value, list[str]], needed: set[str]
) -> tuple[Value, list[str]]:
    """A MatMul of [shared and kept, own of a, summed] and [shared and kept, summed, own of b].

    Without summed labels it is a Multiply.
    """
    (x, xl), (y, yl) = a, b
    extent = {label: d for v, labels in (b, a) for label, d in zip(labels, v.shape, strict=True)}
    other = dict(zip(yl, y.shape, strict=True))
    both = [label for label in xl if label in yl]
    summed = [label for label in both if label not in needed]
    batch = [label for label in both if label in needed]
    own_x, own_y = [c for c in xl if c not in yl], [c for c in yl if c not in xl]
    maybe_one = [c for c in summed if not (isinstance(extent[c], int) and isinstance(other[c], int))]
    if maybe_one:
        x, y = _stretch(w, x, xl, y, yl, maybe_one), _stretch(w, y, yl, x, xl, maybe_one)
    out = [*batch, *own_x, *own_y]
    if not summed or any(extent[c] != other[c] and 1 in (extent[c], other[c]) for c in summed):
        wide_x = w("Unsqueeze", _transpose(w, x, xl, [*batch, *own_x, *summed]),
                   [len(batch) + len(own_x) + i for i in range(len(own_y))]) if own_y else _transpose(
                       w, x, xl, [*batch, *own_x, *summed])  # fmt: skip
        y_order = _transpose(w, y, yl, [*batch, *own_y, *summed])
        wide_y = w("Unsqueeze", y_order, [len(batch) + i for i in range(len(own_x))]) if own_x else y_order
        value = w("Multiply", wide_x, wide_y)
        if summed:
            value = w("ReduceSum", value, [len(out) + i for i in range(len(summed))], keep_dims=False)
        return value, out

    def merge_axes(v: Value, labels: list[str], groups: Sequence[Sequence[str]]) -> Value:
        """[batch..., the product of each group]"""
        v = _transpose(w, v, labels, [c for g in (batch, *groups) for c in g])
        if all(len(g) == 1 for g in groups):
            return v
        extents = iter(w.shape(v)[len(batch) :])
        return _reshape(w, v, len(batch), [[next(extents) for _ in g] for g in groups])

    value = w("MatMul", merge_axes(x, xl, (own_x, summed)), merge_axes(y, yl, (summed, own_y)))
    if len(own_x) != 1 or len(own_y) != 1:
        extents = dict(zip((*yl, *xl), (*w.shape(y), *w.shape(x)), strict=True))
        value = _reshape(w, value, len(batch), [[extents[c]] for c in (*own_x, *own_y)])
    return value, out
