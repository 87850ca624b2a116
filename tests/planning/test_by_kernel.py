"""Lowerings that follow from a kernel's declaration alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import Tensor
from ovjit.codegen.words import const, fma, items, splat, strided, strided_store
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Int, TensorType, op, unregister
from ovjit.planning.by_kernel import by_kernel
from tests.support.run import run


@kernel(over="... lanes/VL", x="... n", w="n", y="...")
def weigh(x: Tensor, w: Tensor, y: Tensor, power, *, T):
    for j, p, q in items(x, y):
        left = x.size.lanes - j
        total = const[T](0.0)
        for i in range(x.size.n):
            v = strided[T](x.at(p, n=i), x.stride.lanes, left)
            total = fma(v, splat[T](w.at(n=i)), total)
        for _ in range(1, power):
            total = total * total
        strided_store[T](q, y.stride.lanes, total, left)


@pytest.fixture(scope="module")
def weighed() -> Any:
    """(sum over the last axis of x[..., n] * w[n]) ** 2 ** (power - 1)"""

    @op("Weighed", types=("f32", "f64", "i32"), lower=by_kernel(weigh, ("f32", "f64")))
    class Weighed:
        def infer(x, w, *, power: Int = 1):
            return TensorType(x.dtype, x.shape[:-1])

        def ref(x, w, *, power=1):
            return ((x * w).sum(-1) ** 2 ** (power - 1)).astype(x.dtype)

    yield Weighed
    unregister(Weighed)


def graph_of(record: Any, shape: tuple[int, ...], dtype: str, power: int) -> Graph:
    b = Builder()
    x, w = (b.add("Parameter", (), {"shape": s, "element_type": dtype}).output for s in (shape, shape[-1:]))
    return b.finish([b.add(record, [x, w], {"power": power}).output])


@pytest.mark.parametrize("shape", [(3, 5), (2, 17, 4), (40, 1), (0, 3), (5, 2, 33, 7)])
def test_tensors_are_inputs_and_outputs_and_the_rest_attributes(weighed: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(20261124)
    for dtype, power in (("f32", 1), ("f64", 2)):
        x, w = (rng.standard_normal(s).astype(f"f{int(dtype[1:]) // 8}") for s in (shape, shape[-1:]))
        expected = ((x.astype(np.float64) * w).sum(-1)) ** 2 ** (power - 1)
        made = run(graph_of(weighed, shape, dtype, power), [x, w])[0]
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_other_types_are_left_to_the_reference(weighed: Any) -> None:
    for dtype, native in (("f32", True), ("i32", False)):
        executable = compile_graph(graph_of(weighed, (3, 4), dtype, 1), {})
        assert (not executable.program.host_nodes()) == native, dtype
