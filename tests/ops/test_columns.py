"""Products with one computed column are sums of rows."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.shapes import ANY
from tests.support.graph_nets import parameter
from tests.support.op_samples import SEED
from tests.support.run import run

CASES = [
    ((50, 70), (70, 1), False), ((3, 7, 128), (3, 128, 1), False), ((3, 7, 128), (1, 128, 1), False),
    ((2, 5, 100), (100, 1), False), ((20, 100), (1, 100), True), ((2, 4, 30, 64), (2, 4, 1, 64), True),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "transposed"), CASES)
@pytest.mark.parametrize("is_static", [True, False])
def test_columns(left: tuple[int, ...], right: tuple[int, ...], transposed: bool, is_static: bool) -> None:
    rng = np.random.default_rng(SEED)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in (left, right))
    b = Builder()
    shape = left if is_static else (ANY,) * (len(left) - 1) + left[-1:]
    attrs = {"transpose_b": transposed}
    product = b.add("MatMul", (parameter(b, x, shape), parameter(b, y)), attrs)
    executable = compile_graph(b.finish(product.outputs), {"threads": 1})
    names = [s.kernel.name for s in executable.table((left, right)).plan.steps if s.kernel is not None]
    assert any("reducesum" in name for name in names), names
    assert not any("matmul" in name for name in names), names
    column = y.swapaxes(-1, -2) if transposed else y
    want = x.astype(np.float64) @ column.astype(np.float64)
    np.testing.assert_allclose(run(executable, [x, y])[0], want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def test_constants_and_short_columns_stay_products() -> None:
    rng = np.random.default_rng(SEED)
    for depth, constant in ((70, True), (9, False)):
        x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((50, depth), (depth, 1)))
        b = Builder()
        product = b.add("MatMul", (parameter(b, x), b.constant(y) if constant else parameter(b, y)))
        executable = compile_graph(b.finish(product.outputs), {"threads": 1})
        given = [x] if constant else [x, y]
        steps = executable.table(tuple(v.shape for v in given)).plan.steps
        assert any("matmul" in s.kernel.name for s in steps if s.kernel is not None), (depth, constant)
        np.testing.assert_allclose(run(executable, given)[0], x @ y, rtol=1e-5, atol=1e-5)
