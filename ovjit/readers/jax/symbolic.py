"""Symbolic dimensions, as `jax.export.symbolic_shape` makes them, as numbers of the model.

Dimensions are JAX's own objects: rules compute with them as with numbers. Where an operation of the model
needs one, it is computed from the shapes of inputs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.errors import UnsupportedError

#: Operators and functions in the text of a dimension, and the operations that compute them.
_OPERATORS = {ast.Add: "Add", ast.Sub: "Subtract", ast.Mult: "Multiply", ast.Pow: "Power"}
_FUNCTIONS = {"floordiv": "Divide", "mod": "FloorMod", "max": "Maximum", "min": "Minimum"}


def is_number(dim: Any) -> bool:
    """Whether a dimension is static."""
    return isinstance(dim, (int, np.integer))


class Sizes:
    """Values of the symbolic dimensions that the inputs of a jaxpr have, as tensors of one element.

    An inlined jaxpr also sees the dimensions around it (`outer`).
    """

    def __init__(self, inputs: Sequence[tuple[Sequence[Any], Output]], outer: Sizes | None = None):
        self._dimensions = dict(_find_dimensions(inputs))
        self._outer = outer
        self._values: dict[str, Output] = {}

    def tensor(self, n: Builder, dims: Sequence[Any]) -> Any:
        """Dimensions as one tensor; an array if all are numbers."""
        if all(map(is_number, dims)):
            return np.array([int(d) for d in dims], np.int64)
        return n.concat([self.value(n, dim) for dim in dims], 0)

    def value(self, n: Builder, dim: Any) -> Output:
        """A dimension as an i64 tensor of one element. Raises UnsupportedError if it follows from no input's
        shape."""
        if is_number(dim):
            return n.const(np.array([int(dim)], np.int64))
        text = str(dim)
        if text not in self._values:
            self._values[text] = self._compute(n, ast.parse(text.replace("^", "**"), mode="eval").body)
        return self._values[text]

    def _compute(self, n: Builder, part: ast.expr) -> Output:
        if isinstance(part, ast.Constant) and isinstance(part.value, int):
            return n.const(np.array([part.value], np.int64))
        if isinstance(part, ast.Name):
            return self._variable(n, part.id)
        if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
            return n("Negative", self._compute(n, part.operand))
        if isinstance(part, ast.BinOp) and type(part.op) in _OPERATORS:
            pair = [self._compute(n, each) for each in (part.left, part.right)]
            return n(_OPERATORS[type(part.op)], *pair)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in _FUNCTIONS:
            name, pair = _FUNCTIONS[part.func.id], [self._compute(n, each) for each in part.args]
            return n(name, *pair, **({"m_pythondiv": True} if name == "Divide" else {}))
        raise UnsupportedError(f"the symbolic dimension {ast.unparse(part)} is not supported")

    def _variable(self, n: Builder, name: str) -> Output:
        source = self._dimensions.get(name)
        if source is not None:
            value, axis, factor, term = source
            size = n.dim_of(value, axis)
            if term:
                size = n("Subtract", size, n.const(term))
            return n("Divide", size, n.const(factor)) if factor != 1 else size
        if self._outer is None:
            raise UnsupportedError(f"no input has a dimension that tells the symbolic dimension {name}")
        return self._outer.value(n, name)


#: A dimension that tells the one variable of it, such as "b", "2*b" and "3*b + 1".
_LINEAR = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*)(?: ([+-]) (\d+))?")


def _find_dimensions(
    inputs: Sequence[tuple[Sequence[Any], Output]],
) -> Iterator[tuple[str, tuple[Output, int, int, int]]]:
    """Yield (name of a symbolic dimension, (input, axis, factor, term) to compute it from). Axes that equal a
    dimension come last, the first of these at the end."""
    rows = []
    for shape, value in reversed(inputs):
        rows += [(axis, str(d), value) for axis, d in reversed([*enumerate(shape)]) if not is_number(d)]
    for axis, text, value in sorted(rows, key=lambda row: row[1].isidentifier()):
        if match := _LINEAR.fullmatch(text):
            factor, name, sign, term = match.groups()
            yield name, (value, axis, int(factor or 1), int(f"{sign or ''}{term or 0}"))


def is_undecided(error: Exception) -> bool:
    """Whether JAX cannot tell how two symbolic dimensions compare."""
    return any(kind.__name__ == "InconclusiveDimensionOperation" for kind in type(error).__mro__)


def number_or_dim(value: Any) -> Any:
    """A parameter that is a number, as Python's; symbolic dimensions are left as they are."""
    return int(value) if is_number(value) else value


def plain_dims(values: Sequence[Any]) -> list[Any]:
    return [number_or_dim(v) for v in values]
