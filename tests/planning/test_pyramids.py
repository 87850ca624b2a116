"""Feature pyramids of open shapes: what a nearest resize repeats is read before it is, or made late."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from tests.support.run import run
from tests.support.sweeps import some
from tests.support.traced_pairs import check

SEED = 20261121


class Net:
    def __init__(self, rng: np.random.Generator):
        self.rng, self.b = rng, Builder()

    def input(self, channels: int) -> Value:
        shape = (ANY, channels, ANY, ANY)
        return self.b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output

    def add(self, name: str, *inputs: Value, **attrs: Any) -> Value:
        return self.b.add(name, list(inputs), attrs).outputs[0]

    def ints(self, *values: int) -> Value:
        return self.b.constant(np.array(values, np.int64))

    def conv(self, x: Value, to: int, kernel: int = 1, stride: int = 1) -> Value:
        pads = (kernel // 2, kernel // 2)
        weights = self.rng.standard_normal((to, x.shape[1], kernel, kernel)) / x.shape[1]
        return self.add(
            "Convolution", x, self.b.constant(weights.astype(np.float32)),
            strides=(stride, stride), pads_begin=pads, pads_end=pads, dilations=(1, 1),
        )  # fmt: skip

    def up(self, x: Value, times: int, axes: tuple[int, ...] = (2, 3)) -> Value:
        scales = self.b.constant(np.full(len(axes), times, np.float32))
        return self.add(
            "Interpolate", x, scales, self.ints(*axes), mode="nearest", shape_calculation_mode="scales",
            nearest_mode="floor", coordinate_transformation_mode="asymmetric",
        )  # fmt: skip

    def gate(self, x: Value) -> Value:
        mean = self.add("ReduceMean", x, self.ints(2, 3), keep_dims=True)
        return self.add("Multiply", x, self.add("Sigmoid", mean))


def _pyramid(rng: np.random.Generator) -> Graph:
    """Sums and concatenations of what lies at several sizes, in a random order and with random readers."""
    net = Net(rng)
    channels = int(rng.choice([3, 8, 12]))
    x = net.input(4)
    fine = net.conv(x, channels, 3)
    half = net.conv(fine, channels, 3, 2)
    quarter = net.conv(half, channels, 1, 2)
    if rng.random() < 0.5:
        half = net.add("Relu", half)
    outputs = []
    up_half, up_quarter = net.up(half, 2), net.up(quarter, 4)
    sums = [net.add("Add", net.gate(fine), up_half)]
    if rng.random() < 0.5:  # two of them, of equal or other counts, in one loop
        other = net.up(net.add("Sigmoid", half), 2) if rng.random() < 0.5 else up_quarter
        sums.append(net.add("Relu", net.add("Add", net.add("Multiply", fine, up_half), other)))
    if rng.random() < 0.5:  # along one axis only
        sums.append(net.add("Add", net.up(net.up(half, 2, (2,)), 2, (3,)), fine))
    if rng.random() < 0.5:  # the elements that are repeated are read, and might be written over, meanwhile
        outputs.append(net.add("Relu", net.add("Add", half, net.up(quarter, 2))))
    parts = [up_quarter, *sums, net.up(half, 2)] if rng.random() < 0.7 else [*sums, up_half]
    outputs.append(net.conv(net.add("Concat", *parts, axis=1), 8, 3))
    if rng.random() < 0.3:
        outputs.append(up_half)
    return net.b.finish(outputs)


@pytest.mark.parametrize("seed", some(range(5), 2))
def test_random_pyramids(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng((SEED, seed))
    graph = _pyramid(rng)
    shapes = [(1, 8, 12), (2, 8, 4), (1, 4, 4), (3, 4, 12), (1, 20, 16), (1, 10, 8)]
    sets = [[rng.standard_normal((n, 4, h, w)).astype(np.float32)] for n, h, w in shapes]
    executable = check(graph, sets, f"seed {seed}")
    for (x,) in sets[:-1]:  # the last size is no multiple: an error for both
        for got, want in zip(run(executable, [x]), evaluate(graph, [x]), strict=True):
            message = f"seed {seed}, {x.shape}"
            np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4, err_msg=message)


def test_sums_read_what_is_repeated_where_it_is() -> None:
    net = Net(np.random.default_rng(SEED))
    fine = net.conv(net.input(4), 16)
    up = net.up(net.conv(fine, 16, 3, 2), 2)
    graph = net.b.finish([net.conv(net.add("Add", net.gate(fine), up), 8, 3)])
    program = compile_graph(graph, {}).program
    steps = program.plan(((1, 4, 32, 32),)).steps
    assert not any(up.node.name in step.name for step in steps)
    again = program.plan(((2, 4, 64, 48),))
    assert program.traces.total == 1 and again.output_shapes == [(2, 8, 64, 48)]


def test_parts_of_concatenations_that_are_repeated_are_made_when_the_whole_is() -> None:
    """Until then there is no memory for the whole."""
    net = Net(np.random.default_rng(SEED))
    fine = net.conv(net.input(4), 16)
    up = net.up(net.conv(fine, 16, 3, 8), 8)
    for _ in range(3):
        fine = net.conv(fine, 16)
    graph = net.b.finish([net.conv(net.add("Concat", up, fine, axis=1), 8, 1)])
    plan = compile_graph(graph, {}).program.plan(((1, 4, 256, 256),))
    names = [step.name for step in plan.steps]
    assert names.index(up.node.name) > names.index(fine.node.name)
    row = 16 * 256 * 256 * 4
    assert plan.arena_size < 3.6 * row * 1.25  # the concatenation and one part, with room to grow


def test_a_repeated_row_that_turns_out_to_be_broadcast() -> None:
    """The other operand has the larger extent: nothing is read before it is repeated."""
    net = Net(np.random.default_rng(SEED))
    a, b = net.input(3), net.input(3)
    graph = net.b.finish([net.add("Relu", net.add("Add", a, net.up(b, 2, (3,))))])
    rng = np.random.default_rng(SEED)
    shapes = [((1, 3, 4, 6), (1, 3, 4, 3)), ((2, 3, 4, 6), (1, 3, 1, 3)), ((1, 3, 1, 1), (2, 3, 4, 3)),
              ((1, 3, 5, 2), (1, 3, 5, 1))]  # fmt: skip
    executable = compile_graph(graph, {})
    for pair in shapes:
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in pair]
        np.testing.assert_array_equal(run(executable, arrays)[0], evaluate(graph, arrays)[0], str(pair))
