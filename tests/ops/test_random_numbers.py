"""RandomUniform and Multinomial as kernels: for the same seeds the numbers of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import find_op
from tests.support.in_python import check as check_in_python
from tests.support.run import run

SEED = 20261122
FAR = (1 << 63) - 1


def drawn(kind: str, count: int, low: float, high: float, **attrs: object) -> tuple[Graph, list[np.ndarray]]:
    b = Builder()
    ends = [np.array(v, numpy_dtype(kind)) for v in (low, high)]
    values = [b.add("Parameter", (), {"shape": (), "element_type": kind}).output for _ in ends]
    node = b.add("RandomUniform", [b.constant(np.array([count])), *values], {"output_type": kind, **attrs})
    return b.finish(node.outputs), ends


def answer(graph: Graph, arrays: list[np.ndarray]) -> np.ndarray:
    executable = compile_graph(graph, {"threads": 2})
    assert executable.program.host_nodes() == []
    return run(executable, arrays, native=True)[0]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("alignment", ["tensorflow", "pytorch"])
def test_uniform_numbers_are_those_of_the_reference(
    alignment: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, for counts beside those of a block and of the twister's state. Each range has one of the
    counts by default, in turn."""
    rng = np.random.default_rng(SEED)
    ranges = {
        "f32": [(-3, 1e5)], "f64": [(-3, 1e5)], "f16": [(-3, 1000)], "bf16": [(0.1, 77)],
        "i32": [(-7, 100), (-(1 << 31), (1 << 31) - 1)],
        "i64": [(-7, 100), (0, 1 << 31), (3, 1 << 40), (-5, FAR - 9), (-FAR, FAR), (-FAR - 1, -5), (-FAR, 4)],
    }  # fmt: skip
    turn = 0
    for kind, ends in ranges.items():
        for low, high in ends:
            turn += 1
            for count in (129, 257, 1300)[turn % every :: every]:
                seeds = [int(s) for s in rng.integers(1, 1 << 62, 2)]
                attrs = {"global_seed": seeds[0], "op_seed": seeds[1], "alignment": alignment}
                graph, arrays = drawn(kind, count, low, high, **attrs)
                checked = find_op("RandomUniform").check_attributes({"output_type": kind, **attrs})
                where = f"{kind} {low} {high} {count} {attrs}"
                want = find_op("RandomUniform").evaluate([np.array([count]), *arrays], checked)[0]
                got = answer(graph, arrays)
                assert got.tobytes() == want.tobytes(), where
                if count == 129 and (kind != "i64" or high in (1 << 40, FAR)):
                    check_in_python(monkeypatch, graph, arrays, where)


def test_classes_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(SEED)
    op = find_op("Multinomial")
    for kind in ("f32", "f64", "f16", "bf16"):
        for case in range(40):
            batch, classes = (int(n) for n in rng.integers(1, (4, 40)))
            replace, logs = bool(case & 1), bool(case & 2)
            count = int(rng.integers(1, 60 if replace else classes + 1))
            probs = rng.uniform(-4 if logs else 0, 2, (batch, classes)).astype(numpy_dtype(kind))
            if not logs:
                probs[rng.random(probs.shape) < 0.3] = 0  # without a sum, too
            attrs = op.check_attributes(
                {"convert_type": "i32" if case & 4 else "i64", "with_replacement": replace, "log_probs": logs}
                | {"global_seed": case + 1, "op_seed": SEED}
            )
            b = Builder()
            x = b.add("Parameter", (), {"shape": probs.shape, "element_type": kind}).output
            graph = b.finish(b.add(op, [x, b.constant(np.array(count))], attrs).outputs)
            with np.errstate(all="ignore"):
                want = op.evaluate([probs, np.array(count)], attrs)[0]
            where = f"{kind} case {case} seed {SEED}"
            np.testing.assert_array_equal(answer(graph, [probs]), want, err_msg=where)
