"""Pooling as the data lies: planes of an input, and the adjacent channels that a convolution writes."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.graph_nets import add, parameter
from tests.support.op_samples import SEED
from tests.support.run import run

LIMITS = {"f32": 1e-5, "f64": 1e-12, "f16": 2e-3, "u8": 0}


def window(rng: np.random.Generator, rank: int, average: bool) -> dict:
    kernel = tuple(int(v) for v in rng.integers(1, 4, rank))
    attrs = {
        "kernel": kernel,
        "strides": tuple(int(v) for v in rng.integers(1, 4, rank)),
        "dilations": tuple(int(v) for v in rng.integers(1, 3, rank)),
        "pads_begin": tuple(int(rng.integers(0, k)) for k in kernel),
        "pads_end": tuple(int(rng.integers(0, k)) for k in kernel),
        "rounding_type": str(rng.choice(["floor", "ceil", "ceil_torch"])),
    }
    return attrs | ({"exclude_pad": bool(rng.integers(2))} if average else {})


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize("turned", [False, True])
def test_random_windows(kind: str, turned: bool) -> None:
    rng = np.random.default_rng(SEED)
    for round in range(9):
        rank = 1 + round % 3
        dtype = "f32" if turned else str(rng.choice(list(LIMITS)[: 3 if kind == "AvgPool" else 4]))
        space = rng.integers(7, 40 if rank < 3 else 12, rank).tolist()
        data = random_array(rng, (int(rng.integers(1, 3)), int(rng.choice([1, 5, 19])), *space), dtype)
        attrs = window(rng, rank, kind == "AvgPool")
        where = f"seed {SEED} round {round}: {dtype} {data.shape} {attrs}"
        b = Builder()
        x = parameter(b, data)
        if turned:
            c = data.shape[1]
            same = np.eye(c, dtype=np.float32).reshape(c, c, *[1] * rank)
            none, ones = (0,) * rank, (1,) * rank
            x = add(b, "Convolution", x, same, strides=ones, pads_begin=none, pads_end=none, dilations=ones)
        graph = b.finish([add(b, kind, x, **attrs)])
        executable = compile_graph(graph, {"threads": 1})
        plan = executable.table((data.shape,))
        assert not plan.host, where
        names = {k.name for k in executable.program.kernels if "_pool_" in k.name}
        assert names and all(("_planes" in name) != turned for name in names), f"{where}: {names}"
        (got,), (want,) = run(executable, [data]), evaluate(graph, [data])
        limit = LIMITS[dtype]
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), rtol=limit, atol=limit, err_msg=where
        )


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize("auto_pad", ["same_upper", "same_lower"])
def test_a_rest_that_is_rounded_up_is_a_window(kind: str, auto_pad: str) -> None:
    """As where nothing is padded: the window behind the last whole stride sees nothing."""
    data = np.random.default_rng(SEED).standard_normal((2, 9, 8, 11)).astype(np.float32)
    attrs = {"kernel": (1, 2), "strides": (3, 4), "rounding_type": "ceil", "auto_pad": auto_pad}
    attrs |= {"pads_begin": (0, 0), "pads_end": (0, 0)} | ({} if kind == "MaxPool" else {"exclude_pad": True})
    b = Builder()
    graph = b.finish([add(b, kind, parameter(b, data), **attrs)])
    (got,), (want,) = run(compile_graph(graph, {"threads": 1}), [data]), evaluate(graph, [data])
    rows = data[:, :, ::3]
    last = -np.inf if kind == "MaxPool" else 0
    pair = np.maximum if kind == "MaxPool" else lambda x, y: (x + y) / 2
    # 11 columns by 4: windows of two at 0, 4 and 8, and one more, as 11 - 2 is no multiple of 4
    part = np.stack([pair(rows[..., c], rows[..., c + 1]) for c in (0, 4, 8)], -1)
    full = np.full((2, 9, 4, 4), last, np.float32)
    full[:, :, :3, :3] = part
    np.testing.assert_allclose(want, full, rtol=1e-6)
    np.testing.assert_allclose(got, full, rtol=1e-6)


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 31, 64])
def test_planes_keep_nan_and_infinities(columns: int) -> None:
    """A window that has a NaN is NaN, one of padding and minus infinity is minus infinity."""
    rng = np.random.default_rng(SEED)
    data = rng.standard_normal((2, 3, 9, columns)).astype(np.float32)
    data[rng.random(data.shape) < 0.05] = np.nan
    data[rng.random(data.shape) < 0.1] = np.inf
    data[rng.random(data.shape) < 0.4] = -np.inf
    for stride in (1, 2, 3):
        b = Builder()
        x = parameter(b, data)
        attrs = {"kernel": (3, 3), "strides": (stride,) * 2, "pads_begin": (1, 1), "pads_end": (1, 1)}
        graph = b.finish([add(b, "MaxPool", x, **attrs), add(b, "AvgPool", x, exclude_pad=True, **attrs)])
        with np.errstate(invalid="ignore"):
            wanted = evaluate(graph, [data])
        for got, want in zip(run(compile_graph(graph, {"threads": 1}), [data]), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"stride {stride}")


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
def test_adaptive_maxima_natively(dtype: str) -> None:
    """At lengths that are open, more windows than elements and fewer; the first of equals, and NaN."""
    rng = np.random.default_rng(SEED)
    for sizes in ((3,), (4, 7), (9, 1)):
        b = Builder()
        shape = (2, 19, *rng.integers(4, 12, len(sizes)).tolist())
        data = np.round(random_array(rng, shape, dtype))
        data[rng.random(shape) < 0.02] = np.nan
        x = parameter(b, data, (ANY,) * data.ndim)
        node = b.add("AdaptiveMaxPool", (x, b.constant(np.array(sizes))), {"index_element_type": "i32"})
        graph = b.finish(node.outputs)
        executable = compile_graph(graph, {"threads": 2})
        where = f"seed {SEED}: {shape} to {sizes}"
        assert not executable.table((shape,)).host, where
        for got, want in zip(run(executable, [data]), evaluate(graph, [data]), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=where)
        with pytest.raises(OvjitError):
            run(executable, [data[..., :0]])
