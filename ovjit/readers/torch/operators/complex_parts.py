"""Operators that treat the real and the imaginary part of complex tensors alike: those that move elements,
and linear ones. Their rules for reals read each part."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import Rule, changed_later
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


def _by_parts(elements: Sequence[str], rule: Rule) -> Rule:
    """The rule of reals, of each part where one of the arguments `elements` is complex."""
    signature = inspect.signature(rule)

    def of_parts(n: Call, *positional: Any, **named: Any) -> Any:
        arguments = signature.bind(n, *positional, **named).arguments
        if not any(map(_is_complex, (arguments.get(name) for name in elements))):
            return rule(n, *positional, **named)
        result = [rule(**_arguments_of_part(n, arguments, elements, index)) for index in (0, 1)]
        return _join_parts(n, *result)

    of_parts.__signature__ = signature  # type: ignore[attr-defined]
    return of_parts


def _is_complex(value: Any) -> bool:
    if isinstance(value, (list, tuple)) and not isinstance(value, Complex):
        return any(map(_is_complex, value))
    return isinstance(value, (Complex, complex))


def _arguments_of_part(
    n: Call, arguments: Mapping[str, Any], elements: Sequence[str], index: int
) -> dict[str, Any]:
    """The arguments of a rule for the real part, 0, or the imaginary one, 1."""
    parts = {name: _part(n, value, index) for name, value in arguments.items() if name in elements}
    kind = arguments.get("dtype")
    if kind is not None and name_of(kind) in PARTS:
        parts["dtype"] = torch_types()[PARTS[name_of(kind)]]
    return {**arguments, **parts}


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
    for _name in _names.split():
        changed_later(f"aten::{_name}", partial(_by_parts, _arguments.split()))
