"""The same expression, evaluated with the real OpenVINO and with ovjit, must come to the same.

`same(expression)` compares type names, reprs, values and exception classes. An expression is Python source in
which `ov` is the package under test and `np`, `copy` are what they always are; statements may stand before
it, each ended by `;;`.
"""

from __future__ import annotations

import copy
import types
import warnings
from typing import Any

import numpy as np
import openvino

from ovjit.api.tensors import dimension, layout, packing, shapes, tensor, vectors
from ovjit.api.tensors import types as element_types

OVJIT = types.SimpleNamespace(
    helpers=packing,
    Dimension=dimension.Dimension,
    Symbol=dimension.Symbol,
    PartialShape=shapes.PartialShape,
    Layout=layout.Layout,
    Tensor=tensor.Tensor,
    Type=element_types.Type,
    **{name: getattr(vectors, name) for name in ("AxisSet", "AxisVector", "Coordinate", "CoordinateDiff")},
    **{name: getattr(vectors, name) for name in ("Shape", "Strides")},
)


def plain(value: Any) -> Any:
    """A value in a form that compares across the two packages."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(item) for item in value]
    return type(value).__name__, repr(value), str(value)


def outcome(package: Any, source: str, **extra: Any) -> Any:
    *statements, expression = source.split(";;")
    names = {"ov": package, "np": np, "copy": copy, **extra}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for statement in statements:
                exec(statement.strip(), names)
            result = plain(eval(expression.strip(), names))
        except Exception as error:
            return "raises", type(error).__name__
    return result, [warning.category.__name__ for warning in caught]


def same(source: str, **extra: Any) -> None:
    real, ours = outcome(openvino, source, **extra), outcome(OVJIT, source, **extra)
    assert ours == real, f"{source}\nOpenVINO: {real}\novjit:    {ours}"


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]
