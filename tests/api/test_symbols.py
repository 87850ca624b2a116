"""Symbols of dimensions, which inference carries from inputs to what has the same dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as theirs

import ovjit
from ovjit import opset13 as ours


def _marked(ov: Any, dims: list[Any], marks: list[Any]) -> Any:
    made = []
    for d, mark in zip(dims, marks, strict=True):
        dimension = ov.Dimension(*d) if isinstance(d, tuple) else ov.Dimension(d)
        dimension.set_symbol(mark)
        made.append(dimension)
    return ov.PartialShape(made)


def _marks(shape: Any, marks: list[Any]) -> list[int | None]:
    """Which of `marks` each dimension carries."""
    found = [d.get_symbol() for d in shape]
    return [None if s is None else next(i for i, mark in enumerate(marks) if mark == s) for s in found]


#: Functions of the operations and an input [?, 2..8, 5] with a symbol for each dimension.
CASES = {
    "relu": lambda o, x: o.relu(x),
    "transpose": lambda o, x: o.transpose(x, np.array([1, 0, 2])),
    "sum of itself": lambda o, x: o.add(x, x),
    "number added": lambda o, x: o.add(x, np.float32(1)),
    "concatenated": lambda o, x: o.concat([x, x], 0),
    "reduced": lambda o, x: o.reduce_sum(x, np.array([0]), True),
    "product": lambda o, x: o.matmul(x, o.constant(np.zeros((5, 7), np.float32)), False, False),
    "gathered": lambda o, x: o.gather(x, np.array([0, 1]), np.array(1)),
    "unsqueezed": lambda o, x: o.unsqueeze(x, np.array(0)),
    "sliced": lambda o, x: o.strided_slice(x, np.array([0]), np.array([-1]), np.array([1]), [1], [0]),
}


@pytest.mark.parametrize("name", CASES)
def test_inference_carries_symbols_as_openvino_does(name: str) -> None:
    said = []
    for ov, opset in ((openvino, theirs), (ovjit, ours)):
        marks = [ov.Symbol() for _ in range(3)]
        x = opset.parameter(_marked(ov, [-1, (2, 8), 5], marks), np.float32)
        assert _marks(x.get_output_partial_shape(0), marks) == [0, 1, 2]
        made = CASES[name](opset, x)
        said.append((str(made.get_output_partial_shape(0)), _marks(made.get_output_partial_shape(0), marks)))
    assert said[0] == said[1]


def test_symbols_go_through_shapes_that_are_computed() -> None:
    mark = ovjit.Symbol()
    x = ours.parameter(_marked(ovjit, [-1, 5], [mark, None]), np.float32)
    wide = ours.broadcast(np.float32(1), ours.shape_of(x))
    assert _marks(wide.get_output_partial_shape(0), [mark]) == [0, None]
    longer = ours.add(ours.gather(ours.shape_of(x), np.array([0]), np.array(0)), np.array([1], np.int64))
    assert _marks(ours.broadcast(np.float32(1), longer).get_output_partial_shape(0), [mark]) == [None]


def test_symbols_follow_shapes_that_are_set() -> None:
    for ov, opset in ((openvino, theirs), (ovjit, ours)):
        first, second = ov.Symbol(), ov.Symbol()
        x = opset.parameter(_marked(ov, [-1, 3], [first, None]), np.float32)
        model = ov.Model([opset.relu(x)], [x])
        assert _marks(model.output(0).partial_shape, [first]) == [0, None]
        model.reshape(_marked(ov, [-1, 4], [second, None]))
        assert _marks(model.output(0).partial_shape, [second]) == [0, None]
        assert _marks(x.get_partial_shape(), [second]) == [0, None]
        model.reshape([2, 4])
        assert _marks(model.output(0).partial_shape, []) == [None, None]


def test_compiled_models_do_not_rely_on_symbols() -> None:
    """What is said to be equal may differ: the sum of [3] and [1] is [3]."""
    mark = ovjit.Symbol()
    x, y = (ours.parameter(_marked(ovjit, [-1], [mark]), np.float32) for _ in range(2))
    total = ours.relu(ours.add(ours.exp(x), ours.exp(y)))
    model = ovjit.Model([total], [x, y])
    assert [v.shape[0].base for v in model._graph().inputs] == [None, None]
    compiled = ovjit.compile_model(model, "CPU")
    for n, m in ((3, 3), (3, 1), (1, 4)):
        a, b = np.arange(n, dtype=np.float32), np.arange(m, dtype=np.float32)
        np.testing.assert_allclose(compiled([a, b])[0], np.exp(a) + np.exp(b), rtol=1e-6)
