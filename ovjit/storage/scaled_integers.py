"""Weights that the compiler computes from integers of the graph, zero points, and factors:

    weights = f32((integers - zero points) * factors), in f32 or f16

A blob has the integers, and an import computes the weights again: a quarter of their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph, Value
from ovjit.records import NamedTuple
from ovjit.storage.graph_format import Arrays

#: Types of the arithmetic.
_REALS = ("f32", "f16")


class ScaledIntegers(NamedTuple):
    """Integers [outputs, ...], and zero points (or None) and factors that broadcast against them. The type of
    the factors is that of the arithmetic."""

    integers: np.ndarray
    zeros: np.ndarray | None
    factors: np.ndarray

    def weights(self, rows: slice = slice(None)) -> np.ndarray:
        """These rows of the weights, in f32."""
        kind = self.factors.dtype
        product = self.integers[rows].astype(kind)
        if self.zeros is not None:
            product -= _rows_of(self.zeros, rows).astype(kind)
        with np.errstate(all="ignore"):
            product *= _rows_of(self.factors, rows)
        return product.astype(np.float32, copy=False)

    def in_f32(self) -> ScaledIntegers:
        """The same with arithmetic in f32."""
        return self._replace(factors=self.factors.astype(np.float32))

    def equals(self, weights: np.ndarray) -> bool:
        """Whether an f32 array of the same shape has exactly these weights."""
        parts = (slice(0, 1), slice(None))  # the first row tells most of them apart
        return all(_same_bits(self.weights(rows), weights[rows]) for rows in parts)

    def store(self, arrays: Arrays) -> list[Any]:
        """Add zero points and factors to a section. Returns the offset, type and shape of each."""
        parts = [self.factors] if self.zeros is None else [self.factors, self.zeros]
        return [[arrays.store(part)[1], part.dtype.str, list(part.shape)] for part in parts]


def read_scaled(integers: np.ndarray, section: np.ndarray, parts: Sequence[Any]) -> np.ndarray:
    """The f32 weights of `integers`. `parts`: the offset in the section, type and shape of the factors and of
    the zero points, as `ScaledIntegers.store` returns them."""
    factors, *zeros = (np.ndarray(shape, kind, section, at) for at, kind, shape in parts)
    return ScaledIntegers(integers, zeros[0] if zeros else None, factors).weights()


def scaled_integers_in(graph: Graph) -> Iterator[ScaledIntegers]:
    """Yield the products of converted integer constants, with zero points or without, and factors."""
    for node in graph.nodes:
        if node.op.name != "Multiply":
            continue
        a, b = node.inputs
        product = _find_product(a, b) or _find_product(b, a)
        if product is not None:
            yield product


def _find_product(shifted: Value, factors: Value) -> ScaledIntegers | None:
    """The product of two values, if it is one of scaled integers."""
    kind, scale, zeros = factors.type.dtype, _constant_of(factors), None
    if scale is None or kind not in _REALS:
        return None
    if shifted.node.op.name == "Subtract":
        shifted, subtracted = shifted.node.inputs
        zeros = _constant_of(subtracted)
        if zeros is None:
            return None
    integers = _constant_of(shifted) if shifted.node.op.name == "Convert" else None
    if integers is None or integers.dtype not in (np.int8, np.uint8) or not integers.flags.c_contiguous:
        return None
    for part in (scale,) if zeros is None else (scale, zeros):
        # as many dimensions as the integers have, so that rows can be selected
        if part.ndim != integers.ndim or np.broadcast_shapes(part.shape, integers.shape) != integers.shape:
            return None
    return ScaledIntegers(integers, zeros, scale.astype(numpy_dtype(kind)))


def _constant_of(value: Value) -> np.ndarray | None:
    """The array of a constant, or of the one that it is converted from; None for others."""
    if value.node.op.name == "Convert":
        value = value.node.inputs[0]
    array = value.stored_array
    return array if isinstance(array, np.ndarray) else None


def _rows_of(array: np.ndarray, rows: slice) -> np.ndarray:
    return array if len(array) == 1 else array[rows]


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()
