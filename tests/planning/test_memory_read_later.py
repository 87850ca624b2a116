"""No result is written over memory that is still read: by the value itself, by its views, as an output, by a
state, by a body. Models of a shared value, a view of it, rows normalized in place, and another reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.host import host_target
from ovjit.compiler.program import Program
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.bodies import INVARIANT, LAST, Port
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.planning.plan import Planner
from ovjit.planning.views import ARENA
from tests.support.compiled import program_of
from tests.support.run import run

SEED = 20261127
SHAPE = (16, 3, 7)


def _ints(b: Builder, *values: int) -> Value:
    return b.constant(np.array(values, np.int64))


def _reshaped(b: Builder, x: Value, *shape: int) -> Value:
    return b.add("Reshape", [x, _ints(b, *shape)], {"special_zero": True}).output


def _loop(b: Builder, x: Value) -> Value:
    inner = Builder()
    y = inner.add("Parameter", (), {"shape": x.shape, "element_type": "f32"}).output
    body = inner.finish([inner.constant(np.array(True)), inner.add("Relu", [y]).output])
    attrs = {"body": body, "input_ports": [Port(INVARIANT, 2, 0)], "output_ports": [Port(LAST, 0, 1)],
             "condition_result": 0}  # fmt: skip
    return b.add("Loop", [b.constant(np.array(3)), b.constant(np.array(True)), x], attrs).output


#: Normalizations that are computed in place: of rows along the last axis.
KINDS: dict[str, Callable[[Builder, Value], Value]] = {
    "Softmax": lambda b, x: b.add("Softmax", [x], {"axis": -1}).output,
    "LogSoftmax": lambda b, x: b.add("LogSoftmax", [x], {"axis": -1}).output,
    "MVN": lambda b, x: (
        b.add(
            "MVN", [x, _ints(b, -1)], {"normalize_variance": True, "eps": 1e-5, "eps_mode": "INSIDE_SQRT"}
        ).output
    ),
    "RMS": lambda b, x: b.add("RMS", [x, b.constant(np.ones(1, np.float32))], {"epsilon": 1e-5}).output,
}
#: Views of the shared value [n, 3, 7].
VIEWS: dict[str, Callable[[Builder, Value], Value]] = {
    "flat": lambda b, y: _reshaped(b, y, -1),
    "rows": lambda b, y: _reshaped(b, y, 0, -1),
    "twice": lambda b, y: _reshaped(b, _reshaped(b, y, -1), -1, 21),
    "unsqueezed": lambda b, y: b.add("Unsqueeze", [y, _ints(b, 1)]).output,
    "permuted": lambda b, y: _reshaped(b, b.add("Transpose", [y, _ints(b, 0, 2, 1)]).output, 0, -1),
}
#: What else reads the shared value, or a view of it.
READERS: dict[str, Callable[[Builder, Value], Value]] = {
    "sum": lambda b, y: b.add("ReduceSum", [y, _ints(b, 1)], {"keep_dims": False}).output,
    "view": lambda b, y: (
        b.add(
            "ReduceMax", [b.add("Transpose", [y, _ints(b, 2, 0, 1)]).output, _ints(b, 1)], {"keep_dims": True}
        ).output
    ),
    "slice": lambda b, y: b.add("Slice", [y, _ints(b, 1), _ints(b, 3), _ints(b, 1), _ints(b, 1)]).output,
    "output": lambda b, y: y,
    "permuted": lambda b, y: b.add("Transpose", [y, _ints(b, 2, 1, 0)]).output,
    "reshaped": lambda b, y: _reshaped(b, y, 0, 7, 3),
    "concatenation": lambda b, y: b.add("Concat", [y, b.add("Relu", [y]).output], {"axis": 2}).output,
    "padded": lambda b, y: (
        b.add("Pad", [y, _ints(b, 0, 1, 0), _ints(b, 0, 1, 0)], {"pad_mode": "edge"}).output
    ),
    "loop": _loop,
    "normalized": lambda b, y: b.add("Softmax", [_reshaped(b, y, -1, 7)], {"axis": 1}).output,
}


def _graph(kind: str, view: str, reader: str, rows: Any, first: bool, producer: str = "Tanh") -> Graph:
    """`first`: the other reader is built, and planned, before the normalization."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (rows, *SHAPE[1:]), "element_type": "f32"}).output
    y = b.add(producer, [x], {"axis": -1} if producer == "Softmax" else {}).output
    makers = [lambda: KINDS[kind](b, VIEWS[view](b, y)), lambda: READERS[reader](b, y)]
    return b.finish([make() for make in (reversed(makers) if first else makers)])


def _check(graph: Graph, rng: np.random.Generator, where: str) -> None:
    arrays = [rng.standard_normal(SHAPE).astype(np.float32)]
    for k, (got, want) in enumerate(zip(run(graph, arrays), evaluate(graph, arrays), strict=True)):
        np.testing.assert_allclose(got, want, 1e-4, 1e-5, err_msg=f"{where}, output {k}, seed {SEED}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_value_is_not_overwritten(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    for i, view in enumerate(VIEWS):
        for k, reader in enumerate(READERS):
            for rows in (SHAPE[0], ANY):
                monkeypatch.setenv("OVJIT_CHECK", str((i + k) % 2))
                first, producer = bool((i + k) % 3 == 0), ("Tanh", "Softmax")[k % 2]
                where = f"{kind} of {view} beside {reader}, {rows} rows, {producer}, reader first: {first}"
                _check(_graph(kind, view, reader, rows, first, producer), rng, where)


@pytest.mark.long
@pytest.mark.parametrize("checked", ["0", "1"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_shared_value(kind: str, checked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", checked)
    rng = np.random.default_rng(SEED)
    for view in VIEWS:
        for reader in READERS:
            for rows in (SHAPE[0], ANY):
                for first in (False, True):
                    for producer in ("Tanh", "Softmax"):
                        where = f"{kind} of {view} beside {reader}, {rows} rows, {producer}, first: {first}"
                        _check(_graph(kind, view, reader, rows, first, producer), rng, where)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("checked", ["0", "1"])
def test_memory_that_is_read_later_is_refused_where_it_is_written(
    reader: str, checked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each value is offered the memory of each output that is a view of it, `Planner.output` declines."""
    monkeypatch.setenv("OVJIT_CHECK", checked)
    real = Planner.offer_output

    def offer(self: Planner, value: Value, source: Value, reshaped: bool = False) -> None:
        self.readers = dict.fromkeys(self.readers, 1)
        real(self, value, source, reshaped)

    monkeypatch.setattr(Planner, "offer_output", offer)
    rng = np.random.default_rng(SEED)
    for rows in (SHAPE[0], ANY):
        _check(_graph("Softmax", "flat", reader, rows, False), rng, f"beside {reader}, {rows} rows")


def _refused(graph: Graph, text: str) -> None:
    with pytest.raises(OvjitError, match=text):
        program_of(graph).plan([v.shape for v in graph.inputs])


@pytest.mark.parametrize("reader", ["sum", "slice", "output", "permuted", "reshaped"])
def test_the_check_sees_what_is_overwritten(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views without steps of their own, and outputs that only the caller reads, among the readers."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(Planner, "is_read_later", lambda self, buffer, value=None: False)
    real = Planner.offer_output

    def offer(self: Planner, value: Value, source: Value, reshaped: bool = False) -> None:
        self.readers = dict.fromkeys(self.readers, 1)
        real(self, value, source, reshaped)

    monkeypatch.setattr(Planner, "offer_output", offer)
    graph = _graph("Softmax", "flat", reader, SHAPE[0], False)
    if reader == "output":  # the shared value has memory of its own then
        assert program_of(graph).plan([SHAPE]).steps
    else:
        _refused(graph, "overwrites %(Tanh|Slice|Reshape|Transpose)")


def test_the_check_sees_an_output_that_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is complete in an output's memory, over which another step writes."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    real = Planner.output

    def output(self: Planner, value: Value, *args: Any, **how: Any) -> Any:
        if value.node.op.name == "Sigmoid":
            self.views[value] = self._output_view(self.outputs[0])
            return self.views[value]
        return real(self, value, *args, **how)

    monkeypatch.setattr(Planner, "output", output)
    b = Builder()
    x = b.add("Parameter", (), {"shape": SHAPE, "element_type": "f32"}).output
    s = b.add("Softmax", [x], {"axis": 1}).output
    other = b.add("Sigmoid", [x]).output
    _refused(b.finish([s, b.add("Softmax", [other], {"axis": 1}).output]), "which the caller still reads")


def test_all_decisions_to_overwrite_ask_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elementwise groups, epilogues and rows overwrite operands without later readers, and nothing else if
    the one place says that all is read."""
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": (1, 8, 9, 9), "element_type": "f32"}).output
    w = b.constant(rng.standard_normal((8, 8, 3, 3)).astype(np.float32))
    pads = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
    a = b.add("Convolution", [x, w], pads).output
    c = b.add("Convolution", [a, w], pads).output
    c = b.add("Add", [b.add("Convolution", [c, w], pads).output, c]).output
    d = b.add("Softmax", [c], {"axis": 3}).output
    e = b.add("Softmax", [b.add("Multiply", [d, d]).output], {"axis": 2}).output
    pool = {"kernel": (2, 2), "strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
    graph = b.finish([b.add("MaxPool", [e], {**pool, "dilations": (1, 1)}).outputs[0]])

    def overwriting(program: Program) -> int:
        made: list[Planner] = []
        finish = Planner.finish
        with monkeypatch.context() as patch:
            patch.setattr(Planner, "finish", lambda self, *args: (made.append(self), finish(self, *args))[1])
            program.plan([v.shape for v in graph.inputs])
        steps = made[0].trace.steps  # type: ignore[union-attr]
        in_arena = [[{v.buffer for v in views if v.buffer.base == ARENA} for views in s[:2]] for s in steps]
        return sum(bool(read & written) for read, written in in_arena)

    monkeypatch.setenv("OVJIT_CHECK", "1")
    assert overwriting(program_of(graph)) >= (2 if host_target().lanes >= 16 else 1)
    monkeypatch.setattr(Planner, "is_read_later", lambda self, buffer, value=None: True)
    assert overwriting(program_of(graph)) == 0
    arrays = [rng.standard_normal((1, 8, 9, 9)).astype(np.float32)]
    for got, want in zip(run(compile_graph(graph, {}), arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, 1e-3, 1e-4, err_msg=f"seed {SEED}")
