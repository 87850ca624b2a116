"""Graphs under construction, for tests of the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Value

SEED = 20261120


class Net:
    """A graph under construction: `net.Add(a, b)` adds a node; numbers are constants of f32."""

    def __init__(self, *shapes):
        self.b = Builder()
        self.inputs = [
            self.b.add("Parameter", (), {"shape": s, "element_type": "f32"}, name=f"p{i}").output
            for i, s in enumerate(shapes)
        ]

    def __getattr__(self, op):
        def add(*inputs, **attrs):
            values = [v if hasattr(v, "node") else self.b.constant(_array(v)) for v in inputs]
            return self.b.add(op, values, attrs).output

        return add

    def weights(self, *shape):
        return self.b.constant(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))


def _array(value):
    """Reals as f32; arrays of integers as they are."""
    array = np.asarray(value)
    whole = isinstance(value, (np.ndarray, np.generic)) and array.dtype.kind in "iub"
    return array if whole else array.astype(np.float32)


def parameter(b: Builder, array: np.ndarray, shape: Sequence[Any] | None = None) -> Value:
    attrs = {"shape": array.shape if shape is None else shape, "element_type": dtypes.from_numpy(array.dtype)}
    return b.add("Parameter", (), attrs).output


def add(b: Builder, op: str, *inputs: Any, **attrs: Any) -> Value:
    values = [v if isinstance(v, Value) else b.constant(np.asarray(v)) for v in inputs]
    return b.add(op, values, attrs).outputs[0]
