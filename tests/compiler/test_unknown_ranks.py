"""Tensors whose rank is unknown until an inference: passes leave what they cannot judge, and results are
those of the interpreter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op, all_ops
from ovjit.graph.shapes import ANY
from tests.support.compiled import run_passes
from tests.support.run import run
from tests.support.samples import has_samples, samples_of

SEED = 20261125
WINDOW: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}


def opened(record: Op, inputs: Sequence[np.ndarray], attrs: dict[str, Any], every: bool) -> Graph:
    """The operation alone: its first input, or every one, is a Parameter of unknown rank."""
    b = Builder()
    values = []
    for i, array in enumerate(inputs):
        element = dtypes.from_numpy(array.dtype)
        if every or i == 0:
            values.append(b.add("Parameter", (), {"shape": None, "element_type": element}).output)
        else:
            values.append(b.constant(array, element))
    return b.finish(b.add(record, values, attrs).outputs[:1])


def test_passes_take_samples_of_every_operation() -> None:
    """No pass takes a shape that is not there for one without dimensions."""
    taken, wrong = 0, []
    for record in (op for op in all_ops() if has_samples(op)):
        dtype = "f32" if "f32" in record.types else record.types[0]
        every_sample = samples_of(record, np.random.default_rng(SEED), dtype)
        for (inputs, attrs), every in itertools.product(itertools.islice(every_sample, 3), (False, True)):
            try:
                graph = opened(record, inputs, attrs, every)
            except OvjitError:
                continue  # this operation needs the rank
            taken += 1
            try:
                run_passes(graph)
            except (OvjitError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
                wrong.append(f"{record!r} {[a.shape for a in inputs]} {attrs} every={every}: {error!r}")
    assert not wrong, "\n".join(wrong)
    assert taken > 1000


def of_unknown_rank(b: Builder, array: np.ndarray) -> tuple[Value, list[np.ndarray]]:
    """A vector in a shape that is an input, and what to give for both."""
    flat = b.add("Parameter", (), {"shape": (array.size,), "element_type": "f32"}).output
    shape = b.add("Parameter", (), {"shape": (ANY,), "element_type": "i64"}).output
    made = b.add("Reshape", [flat, shape], {"special_zero": False}).output
    assert made.shape is None
    return made, [array.ravel(), np.array(array.shape, np.int64)]


@pytest.mark.parametrize("what", ["convolution of few outputs", "largest of all", "weighted sums"])
def test_what_passes_cannot_judge_is_computed(what: str) -> None:
    rng, b = np.random.default_rng(SEED), Builder()
    x, given = of_unknown_rank(b, rng.standard_normal((2, 8, 7, 9)).astype(np.float32))
    if what == "largest of all":
        node = b.add("AdaptiveMaxPool", [x, b.constant(np.array([1, 1]))])
    elif what == "weighted sums":
        starts, weights = np.array([0, 2, 5, 4], np.int32), rng.standard_normal((4, 3)).astype(np.float32)
        node = b.add("WeightedSums", [x, b.constant(starts), b.constant(weights)], {"axis": 3})
    else:
        filters = rng.standard_normal((2, 8, 3, 3)).astype(np.float32)
        node = b.add("Convolution", [x, b.constant(filters)], WINDOW)
    graph = b.finish(node.outputs)
    for got, want in zip(run(graph, given, times=2), evaluate(graph, given), strict=True):
        assert got.shape == want.shape and want.ndim == 4
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
