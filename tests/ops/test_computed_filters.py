"""Transposed convolutions by filters that are inputs, and of types without tiles: beside the reference."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run_job
from tests.support.sweeps import parts, some

SEED = 20261124


@pytest.mark.parametrize("cases", parts(range(24), 6), ids=len)
@pytest.mark.parametrize("kind", some(["f32", "i32", "u8", "f16", "f64", "i64"], 4))
def test_transposed_convolutions(kind: str, cases: range) -> None:
    """Small whole numbers, whose sums are exact; open and known shapes, and sizes that are asked for."""
    ran = 0
    for case in cases:
        rng = np.random.default_rng([SEED, case])
        grouped, opened = bool(case & 1), bool(case & 2)
        rank = case % 3 + 1
        groups = int(rng.integers(1, 4)) if grouped else 1
        n, c, o = (int(v) for v in rng.integers(1, (3, 4, 6)))
        kernel, strides = (tuple(rng.integers(1, 4, rank).tolist()) for _ in range(2))
        attrs = {
            "strides": strides, "dilations": tuple(rng.integers(1, 3, rank).tolist()),
            "pads_begin": tuple(rng.integers(0, 3, rank).tolist()),
            "pads_end": tuple(rng.integers(0, 3, rank).tolist()),
            "auto_pad": ("explicit", "same_upper", "same_lower", "valid")[int(rng.integers(0, 4))],
            "output_padding": tuple(int(rng.integers(0, s)) for s in strides),
        }  # fmt: skip
        record = find_op("GroupConvolutionBackpropData" if grouped else "ConvolutionBackpropData")
        extents = rng.integers(0 if opened and case % 5 == 0 else 1, 7, rank).tolist()
        low = 0 if kind[0] == "u" else -3
        data = rng.integers(low, 4, (n, groups * c, *extents)).astype(numpy_dtype(kind))
        lead = (groups,) if grouped else ()
        filters = rng.integers(low, 4, (*lead, c, o, *kernel)).astype(numpy_dtype(kind))
        sizes = [rng.integers(1, 12, rank)] if case % 4 == 0 else []
        where = f"{kind} case {case} seed {SEED}: {data.shape} {filters.shape} {attrs} {sizes} {opened}"
        b = Builder()
        shapes = [tuple(ANY if opened and a != 1 else d for a, d in enumerate(data.shape)), filters.shape]
        x, f = (b.add("Parameter", (), {"shape": s, "element_type": kind}).output for s in shapes)
        checked = record.check_attributes(attrs)
        try:
            want = record.evaluate([data, filters, *sizes], checked)[0]
        except OvjitError:  # the padding leaves nothing
            continue
        graph = b.finish(b.add(record, [x, f, *(b.constant(s) for s in sizes)], checked).outputs)
        job = compile_graph(graph, {"threads": 1}).new_job()
        run_job(job, (data, filters))
        assert not want.size or "ref_numpy" not in {row.exec_type for row in job.profile()}, where
        np.testing.assert_array_equal(job.outputs[0], want, err_msg=where)
        ran += 1
    assert ran > len(cases) // 2
