"""Operators that treat the real and the imaginary part of complex tensors alike: those that move elements,
and linear ones. Their rules for reals read each part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.operators.complex import extend_to_complex
from ovjit.readers.torch.registry import Rule
from ovjit.readers.torch.values import PARTS, Complex, Number, name_of, torch_types

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
    """The rule of reals, of each part of the arguments `elements`."""
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
    return n.like(value, 0) if isinstance(value, Output) and n.rank(value) == 0 else _zeros(n, value)


def _zeros(n: Call, value: Any) -> Any:
    return 0.0 if isinstance(value, (int, float, Number)) else n("Multiply", value, n.like(value, 0))


def _join_parts(n: Call, real: Any, imaginary: Any) -> Any:
    if isinstance(real, list):
        return [_join_parts(n, a, b) for a, b in zip(real, imaginary, strict=True)]
    return n.complex_of(n.real(real), n.real(imaginary))


for _names, _arguments in _ELEMENTS.items():
    extend_to_complex(_names, partial(_by_parts, _arguments.split()), among=_arguments)
