"""Transposed and three-dimensional convolutions as convolutions on tensor cores, beside float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit_ops.matmul.gpu_block_products import FEATURE
from tests.support.plan_memory import PlanMemory

SEED = 20261129
#: Operation, shapes of data and filters, attributes, and a requested size.
BACK, GROUPS, PLAIN = "ConvolutionBackpropData", "GroupConvolutionBackpropData", "Convolution"
CASES: list[Any] = [
    (BACK, (1, 16, 5, 6), (16, 9, 4, 4), {"strides": (2, 2), "pads_begin": (1, 1), "pads_end": (1, 1)}, None),
    (BACK, (2, 8, 4, 3), (8, 5, 3, 3), {"strides": (2, 2), "output_padding": (1, 1)}, None),
    (BACK, (1, 8, 3, 4), (8, 4, 2, 3), {"strides": (2, 3), "pads_begin": (0, 1), "pads_end": (1, 0)}, None),
    (BACK, (1, 8, 7), (8, 4, 5), {"strides": (3,), "pads_begin": (2,), "pads_end": (3,)}, None),
    (BACK, (1, 8, 4, 4), (8, 4, 4, 3), {"strides": (2, 1), "auto_pad": "same_upper"}, (8, 4)),
    (BACK, (1, 8, 3, 4, 3), (8, 4, 2, 2, 3), {"strides": (2, 2, 2)}, None),
    (GROUPS, (1, 16, 4, 4), (2, 8, 6, 4, 4), {"strides": (2, 2), "pads_begin": (1, 1)}, None),
    (PLAIN, (1, 8, 4, 5, 6), (10, 8, 3, 3, 3), {"pads_begin": (1, 1, 1), "pads_end": (1, 1, 1)}, None),
    (PLAIN, (2, 8, 5, 4, 3), (4, 8, 2, 1, 3), {"strides": (2, 1, 1), "dilations": (2, 1, 1)}, None),
    (PLAIN, (1, 8, 4, 3, 4), (4, 8, 1, 3, 3), {}, None),
    ("GroupConvolution", (1, 16, 3, 4, 4), (2, 4, 8, 2, 3, 3), {"pads_begin": (1, 1, 0)}, None),
]  # fmt: skip


def attributes(kind: str, given: dict[str, Any], rank: int) -> dict[str, Any]:
    ones, none = (1,) * rank, (0,) * rank
    usual = {"strides": ones, "pads_begin": none, "pads_end": none, "dilations": ones}
    return find_op(kind).check_attributes({**usual, **given})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def test_convolutions_are_products_on_tensor_cores(case: Any) -> None:
    kind, shape, filters, given, size = case
    rng, attrs = np.random.default_rng(SEED), attributes(kind, given, len(shape) - 2)
    x, w = (rng.standard_normal(s).astype(np.float16).astype(np.float32) for s in (shape, filters))
    b = Builder()
    data = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    sizes = [] if size is None else [np.array(size)]
    y = b.add(kind, [data, b.constant(w), *map(b.constant, sizes)], attrs).output
    graph = b.finish([b.add("Relu", [y]).output])
    plan = compile_graph(graph, TARGETS["cuda"], Options(precision="f16")).plan([shape])
    names = [step.kernel.name for step in plan.steps]
    assert sum(name.startswith(("tensor_convolution", "grouped_convolution")) for name in names) >= 1, names
    assert not any(name.startswith(("direct", "add_columns")) for name in names), names
    record, wide = find_op(kind), [x.astype(np.float64), w.astype(np.float64)]
    want = np.maximum(record.evaluate([*wide, *sizes], attrs)[0], 0)
    room = record.evaluate([*map(np.abs, wide), *sizes], attrs)[0] * 2.0**-10 + 1e-6
    assert np.all(np.abs(PlanMemory(plan, [x]).run_words()[0] - want) <= room), f"seed {SEED}"


def test_blocks_of_warps_take_them() -> None:
    b, hopper = Builder(), TARGETS["cuda"]._replace(extras=(FEATURE,))
    x = b.add("Parameter", (), {"shape": (1, 64, 4, 8, 8), "element_type": "f32"}).output
    y = b.add(PLAIN, [x, b.constant(np.ones((64, 64, 3, 3, 3), np.float32))], attributes(PLAIN, {}, 3)).output
    twice = attributes(BACK, {"strides": (2, 2, 2)}, 3)
    y = b.add(BACK, [y, b.constant(np.ones((64, 8, 2, 2, 2), np.float32))], twice).output
    plan = compile_graph(b.finish([y]), hopper, Options(precision="f16")).plan([(1, 64, 4, 8, 8)])
    assert sum(step.kernel.name.startswith("block_convolution") for step in plan.steps) == 2


def test_other_filters_are_products_of_columns() -> None:
    """Infinite numbers would make NaN of zeros, and most taps of a large stride would be zeros."""
    for value, strides in ((np.inf, (2, 2)), (1, (8, 8))):
        b = Builder()
        x = b.add("Parameter", (), {"shape": (1, 8, 3, 3), "element_type": "f32"}).output
        w = b.constant(np.full((8, 8, 3, 3), value, np.float32))
        y = b.add(BACK, [x, w], attributes(BACK, {"strides": strides}, 2)).output
        plan = compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision="f16")).plan([(1, 8, 3, 3)])
        assert any(step.kernel.name.startswith("add_columns") for step in plan.steps)
