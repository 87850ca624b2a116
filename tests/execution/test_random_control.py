"""Random graphs with branches, loops, iterators, shapes that depend on data, and variables.

The compiled graph, the same without passes and fusion, and the interpreter agree; threads change no bit.
"""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.rewrite.model_variables import lift
from tests.support.run import run
from tests.support.sweeps import some

SEED = 20261120
WIDTHS = (1, 3, 7, 16, 17)


class Maker:
    """Grows a graph of f32 tensors [rows, columns]; `shapes` has None where the rows depend on data."""

    def __init__(self, rng: np.random.Generator, depth: int = 0):
        self.rng = rng
        self.depth = depth
        self.b = Builder()
        self.values: list[Value] = []
        self.shapes: list[tuple[int | None, int]] = []

    def parameter(self, shape: tuple[int | None, int]) -> Value:
        dims = tuple(ANY if d is None else d for d in shape)
        value = self.b.add("Parameter", (), {"shape": dims, "element_type": "f32"}).output
        self.keep(value, shape)
        return value

    def keep(self, value: Value, shape: tuple[int | None, int]) -> None:
        self.values.append(value)
        self.shapes.append(shape)

    def pick(self) -> int:
        n = len(self.values)
        return n - 1 - int(min(self.rng.geometric(0.5) - 1, n - 1))

    def add(self, op: str, *inputs: object, **attrs: object) -> Value:
        values = [v if isinstance(v, Value) else self.b.constant(v) for v in inputs]
        return self.b.add(op, values, attrs).output

    def numbers(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) / max(1, shape[0]) ** 0.5).astype(np.float32)

    # --- plain operations

    def unary(self, i: int) -> None:
        self.keep(
            self.add(str(self.rng.choice(["Relu", "Tanh", "Sigmoid", "Abs"])), self.values[i]), self.shapes[i]
        )

    def scale(self, i: int) -> None:
        op = str(self.rng.choice(["Add", "Multiply", "Maximum"]))
        self.keep(self.add(op, self.values[i], self.numbers(1, self.shapes[i][1])), self.shapes[i])

    def combine(self, i: int) -> None:
        rows = self.shapes[i][0]
        same = [j for j, s in enumerate(self.shapes) if s == self.shapes[i] and (rows is not None or j == i)]
        j = int(self.rng.choice(same))
        self.keep(
            self.add(str(self.rng.choice(["Add", "Subtract"])), self.values[i], self.values[j]),
            self.shapes[i],
        )

    def product(self, i: int) -> None:
        rows, n = self.shapes[i]
        m = int(self.rng.choice(WIDTHS))
        y = self.add("MatMul", self.values[i], self.numbers(n, m), transpose_a=False, transpose_b=False)
        self.keep(y, (rows, m))

    def turn(self, i: int) -> None:
        rows, n = self.shapes[i]
        if rows is not None:
            self.keep(self.add("Transpose", self.values[i], np.array([1, 0])), (n, rows))

    def join(self, i: int) -> None:
        rows, n = self.shapes[i]
        y = self.add("Concat", self.values[i], self.values[i], axis=0)
        self.keep(self.add("Tanh", y), (None if rows is None else 2 * rows, n))

    def total(self, i: int) -> None:
        y = self.add("ReduceSum", self.values[i], np.array([0]), keep_dims=True)
        self.keep(self.add("Tanh", y), (1, self.shapes[i][1]))

    def positives(self, i: int) -> None:
        """The rows whose first number is positive: as many as the data says."""
        rows, n = self.shapes[i]
        first = self.add("Gather", self.values[i], np.array(0), np.array(1))
        found = self.add("NonZero", self.add("Greater", first, np.float32(0)), output_type="i64")
        index = self.add("Reshape", found, np.array([-1]), special_zero=False)
        self.keep(self.add("Gather", self.values[i], index, np.array(0)), (None, n))

    # --- bodies

    def above(self, value: Value, limit: float) -> Value:
        """Whether the sum of magnitudes is above a limit: one boolean."""
        total = self.add("ReduceSum", self.add("Abs", value), np.array([0, 1]), keep_dims=False)
        return self.add("Greater", total, np.float32(limit))

    def inner(self, *shapes: tuple[int | None, int]) -> Maker:
        maker = Maker(self.rng, self.depth + 1)
        for shape in shapes:
            maker.parameter(shape)
        return maker

    def choose(self, i: int) -> None:
        shape = self.shapes[i]
        bodies = []
        for _ in range(2):
            maker = self.inner(shape)
            maker.grow(int(self.rng.integers(1, 4)))
            bodies.append((maker.b.finish([maker.values[-1]]), maker.shapes[-1]))
        (then, one), (other, two) = bodies
        if one[1] != two[1]:
            return
        rows = [Port(INVARIANT, 1, 0)]
        attrs = {
            "then_body": then, "else_body": other, "then_inputs": rows, "else_inputs": rows,
            "then_outputs": [Port(LAST, 0, 0)], "else_outputs": [Port(LAST, 0, 0)],
        }  # fmt: skip
        condition = self.above(self.values[i], float(self.rng.uniform(0, 20)))
        y = self.b.add("If", [condition, self.values[i]], attrs).output
        self.keep(y, one if one == two else (None, one[1]))

    def repeat(self, i: int) -> None:
        """A loop: a sum that goes round, parts of a sliced input, an end that may depend on data."""
        shape = self.shapes[i]
        if shape[0] is None:
            return
        axis = int(self.rng.integers(2))
        part = (1, shape[1]) if axis == 0 else (shape[0], 1)
        maker = self.inner(part, shape)
        count = maker.b.add("Parameter", (), {"shape": (), "element_type": "i64"}).output
        y = maker.add("Add", maker.values[0], maker.values[1])
        y = maker.add("Add", y, maker.add("Convert", count, destination_type="f32"))
        maker.keep(maker.add("Tanh", y), shape)
        grows = self.rng.random() < 0.2
        if not grows and self.rng.random() < 0.5:
            maker.grow(2)
        carried = next(
            (v for v, s in zip(maker.values[::-1], maker.shapes[::-1], strict=True) if s == shape), y
        )
        extra = maker.values[-1]
        extra_shape = maker.shapes[-1]
        if extra_shape[0] is None:
            extra, extra_shape = carried, shape
        going = maker.b.constant(np.array(True))
        early = self.rng.random() < 0.4
        if early:
            going = maker.add("LogicalNot", maker.above(carried, float(self.rng.uniform(1, 15))))
        body = maker.b.finish([going, carried, extra], maker.b.inputs)
        slices = {"start": 0, "stride": 1, "part_size": 1, "end": -1, "axis": axis}
        # the second parameter goes round, the third counts
        inputs = [Port(SLICED, 2, 0, **slices), Port(MERGED, 3, 1, 1)]
        outputs = [Port(LAST, 0, 1), Port(CONCAT, 1, 2, axis=0)]
        by_data = self.rng.random() < 0.4
        trips: object = np.array(shape[axis], np.int64)
        if by_data:
            positive = self.add("Convert", self.above(self.values[i], 3.0), destination_type="i64")
            trips = self.add("Add", positive, np.array(min(1, shape[axis] - 1), np.int64))
        attrs = {
            "body": body, "input_ports": inputs, "output_ports": outputs, "iteration_parameter": 2,
            "condition_result": 0,
        }  # fmt: skip
        start = self.add("Multiply", self.values[i], np.float32(0.5))
        first = trips if isinstance(trips, Value) else self.b.constant(trips)
        node = self.b.add("Loop", [first, self.b.constant(np.array(True)), self.values[i], start], attrs)
        self.keep(node.outputs[0], shape)
        known = not (early or by_data)
        self.keep(node.outputs[1], (extra_shape[0] * shape[axis] if known else None, extra_shape[1]))

    def longer(self, i: int) -> None:
        """A loop whose value gets longer in every iteration."""
        rows, n = self.shapes[i]
        maker = self.inner((None, n))
        more = maker.add("Concat", maker.values[0], maker.add("Tanh", maker.values[0]), axis=0)
        body = maker.b.finish([maker.b.constant(np.array(True)), more], maker.b.inputs)
        attrs = {"body": body, "input_ports": [Port(MERGED, 2, 0, 1)], "output_ports": [Port(LAST, 0, 1)],
                 "condition_result": 0}  # fmt: skip
        count = self.b.constant(np.array(int(self.rng.integers(0, 4)), np.int64))
        node = self.b.add("Loop", [count, self.b.constant(np.array(True)), self.values[i]], attrs)
        self.keep(node.output, (None, n))

    def iterate(self, i: int) -> None:
        """An iterator backwards over columns, in parts of one."""
        rows, n = self.shapes[i]
        if rows is None:
            return
        maker = self.inner((rows, 1), (rows, 1))
        maker.keep(maker.add("Tanh", maker.add("Add", *maker.values[:2])), (rows, 1))
        body = maker.b.finish([maker.values[-1]])
        slices = {"start": -1, "stride": -1, "part_size": 1, "end": 0, "axis": 1}
        outputs = [Port(CONCAT, 0, 0, **slices)]
        attrs = {
            "body": body, "input_ports": [Port(SLICED, 0, 0, **slices), Port(MERGED, 1, 1, 0)],
            "output_ports": outputs,
        }  # fmt: skip
        begin = self.b.constant(self.numbers(rows, 1))
        self.keep(self.b.add("TensorIterator", [self.values[i], begin], attrs).output, (rows, n))

    def grow(self, steps: int) -> None:
        plain = [self.unary, self.scale, self.combine, self.product, self.turn, self.total, self.join]
        nested = [self.choose, self.repeat, self.iterate, self.longer, self.positives]
        kinds = plain + (nested * 2 if self.depth == 0 else nested if self.depth == 1 else [])
        for _ in range(steps):
            kinds[int(self.rng.integers(len(kinds)))](self.pick())


def make(seed: int) -> tuple[Graph, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    maker = Maker(rng)
    inputs = []
    for _ in range(2):
        shape = int(rng.integers(1, 5)), int(rng.choice(WIDTHS))
        maker.parameter(shape)
        inputs.append(rng.standard_normal(shape).astype(np.float32))
    maker.grow(int(rng.integers(3, 10)))
    others = [v for v in maker.values[:-1] if v.node.op.name != "Parameter" and rng.random() < 0.3]
    return maker.b.finish([maker.values[-1], *others]), inputs


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = make(seed)
    where = f"seed {seed}\n{graph}"
    wanted = evaluate(graph, inputs)
    one, two = (run(graph, inputs, times=2, threads=n) for n in (1, 2))
    monkeypatch.setenv("OVJIT_SKIP", "fold,align,batch_norm,ops,weights,clean,fuse")
    plain = run(graph, inputs, times=2, threads=1)
    monkeypatch.delenv("OVJIT_SKIP")
    for k, (want, a, b, c) in enumerate(zip(wanted, one, two, plain, strict=True)):
        assert a.shape == b.shape == c.shape == want.shape, f"output {k}: {where}"
        np.testing.assert_array_equal(a, b, err_msg=f"output {k} at 2 threads: {where}")
        for got in (a, c):
            assert np.abs(got - want).max(initial=0) <= 2e-4, f"output {k}: {where}"


@pytest.mark.parametrize("batch", some(range(4), 1))
def test_random_control_flow(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        check(SEED + 100 * batch + i, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_much_random_control_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(600):
        check(SEED + 10_000 + i, monkeypatch)


@pytest.mark.parametrize("seed", some(range(6), 2))
def test_random_control_flow_with_variables(seed: int) -> None:
    """Sums that a graph with loops keeps from one inference to the next."""
    rng = np.random.default_rng(SEED + seed)
    maker = Maker(rng)
    shape = 3, int(rng.choice(WIDTHS))
    x = maker.parameter(shape)
    attrs = {"variable_id": "v", "variable_type": "f32", "variable_shape": shape}
    read = maker.b.add("ReadValue", [maker.add("Multiply", x, np.float32(0.5))], attrs).output
    maker.keep(maker.add("Tanh", maker.add("Add", x, read)), shape)
    maker.grow(5)
    kept = next(v for v, s in zip(maker.values[::-1], maker.shapes[::-1], strict=True) if s == shape)
    kept = maker.add("Tanh", maker.add("Add", kept, read))
    assign = maker.b.add("Assign", [kept], {"variable_id": "v"}).output
    graph = maker.b.finish([maker.values[-1], assign])
    lifted = lift(graph)
    job = compile_graph(graph, {"threads": 1}).new_job()
    state = None
    for step in range(4):
        data = rng.standard_normal(shape).astype(np.float32)
        state = data * np.float32(0.5) if state is None else state
        want, state = evaluate(lifted.main, [data, state])
        job.set_input(0, data)
        job.run()
        assert job.outputs[0].shape == want.shape, f"seed {seed} step {step}\n{graph}"
        assert np.abs(job.outputs[0] - want).max(initial=0) <= 2e-4, f"seed {seed} step {step}\n{graph}"
