"""Elementwise groups with several outputs: which are joined, which are not, and that their one loop says what
their nodes said, beside OpenVINO and NumPy's f64."""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset13 as ov
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import Interval
from tests.support.compiled import fuse, run_passes
from tests.support.graph_nets import SEED, Net
from tests.support.oracle import our_answers, real_answers
from tests.support.sweeps import some


def joined(graph):
    """The operations of each group that is elementwise, sorted, with the number of its outputs."""
    groups = [g for g in fuse(run_passes(graph)) if g.anchor is None]
    return sorted((sorted(n.op.name for n in g.body), len(g.outputs)) for g in groups)


def check(graph, arrays=None, exact=False):
    """The compiled graph's answers beside the interpreter's, with one thread and with two."""
    if arrays is None:
        rng = np.random.default_rng(SEED)
        arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    for threads in (1, 2):
        job = compile_graph(graph, {"threads": threads}).new_job()
        for i, array in enumerate(arrays):
            job.set_input(i, array)
        for _ in range(2):
            job.run()
        for got, want in zip(job.outputs, evaluate(graph, arrays), strict=True):
            limit = 0 if exact else 2e-5
            np.testing.assert_allclose(got, want, rtol=limit, atol=limit, err_msg=f"seed {SEED}")
    return job


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """Each plan is proved free of races."""
    monkeypatch.setenv("OVJIT_CHECK", "1")


def test_what_is_stored_goes_on_in_registers():
    net = Net((5, 333), (5, 333))
    t = net.Add(*net.inputs)
    graph = net.b.finish([t, net.Relu(t), net.Softmax(t, axis=1)])
    assert joined(graph) == [(["Add", "Relu"], 2)]
    check(graph)


def test_two_products_by_the_same_tables_are_one_kernel():
    """A rotation written out, as of positions: two parts by cosines and sines"""
    net = Net((4, 7, 64), (4, 7, 64))
    a, b = net.inputs
    c, s = (net.b.constant(f(np.arange(7 * 64, dtype=np.float32)).reshape(7, 64)) for f in (np.cos, np.sin))
    turned = [net.Subtract(net.Multiply(a, c), net.Multiply(b, s)),
              net.Add(net.Multiply(a, s), net.Multiply(b, c))]  # fmt: skip
    graph = net.b.finish([net.CumSum(turned[0], net.b.constant(np.int64(1))), turned[1]])
    assert joined(graph) == [(["Add", "Multiply", "Multiply", "Multiply", "Multiply", "Subtract"], 2)]
    check(graph)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "u8", "i64", "boolean"])
def test_outputs_of_other_types_are_written_in_the_same_loop(dtype):
    """17 rows of 93: whole vectors, two at a time where they are narrow, and parts of some"""
    net = Net((17, 93))
    (x,) = net.inputs
    scaled = net.Multiply(net.Abs(x), 40.0)
    low = net.Greater(x, 0.5) if dtype == "boolean" else net.Convert(scaled, destination_type=dtype)
    graph = net.b.finish([low, net.Relu(x), net.Subtract(x, 1.0)])
    assert [outputs for _, outputs in joined(graph)] == [3]
    check(graph)


def test_what_is_rounded_is_read_as_it_is_stored():
    net = Net((19, 63))
    (x,) = net.inputs
    low = net.Convert(x, destination_type="bf16")
    graph = net.b.finish([low, net.Subtract(x, net.Convert(low, destination_type="f32")), net.Abs(x)])
    assert sorted(n for _, n in joined(graph)) == [1, 2]
    check(graph, exact=True)


def test_another_way_round_through_a_kernel_keeps_groups_apart():
    """t - mean(t), which t is needed for; relu(t) is joined with one of them, exp(mean) with none"""
    net = Net((5, 300), (5, 300))
    t = net.Add(*net.inputs)
    mean = net.ReduceMean(t, net.b.constant(np.array([1])), keep_dims=True)
    y = net.Subtract(t, mean)
    graph = net.b.finish([t, y, net.Relu(t), net.Exp(mean)])
    assert joined(graph) == [(["Add", "Relu"], 2), (["Exp"], 1), (["Subtract"], 1)]
    check(graph)


def test_long_functions_of_one_another_stay_apart_but_not_beside_one_another():
    net = Net((5, 300))
    (x,) = net.inputs
    t = net.Tanh(x)
    assert [n for _, n in joined(net.b.finish([t, net.Tanh(t)]))] == [1, 1]
    beside = Net((5, 300))
    (x,) = beside.inputs
    assert [n for _, n in joined(beside.b.finish([beside.Tanh(x), beside.Sigmoid(x)]))] == [2]


@pytest.mark.parametrize("row, outputs", [(64, [2]), (48, [2]), (32, [1, 1]), (100, [1, 1])])
def test_rows_of_whole_cache_lines_are_walked_together(row, outputs):
    net = Net((40, row))
    t = net.Subtract(net.inputs[0], net.weights(40, 1))
    graph = net.b.finish([t, net.Relu(t)])
    assert [n for _, n in joined(graph)] == outputs
    check(graph)


@pytest.mark.parametrize(
    "other", ["broadcast", "another tensor", "short rows", "more outputs than a loop has"]
)
def test_near_misses(other):
    net = Net((1, 1, 6, 200), (4, 8, 6, 200), (4, 8, 6, 200))
    small, x, y = net.inputs
    one = net.Relu(x)
    two = {
        "broadcast": lambda: [net.Add(small, y)],
        "another tensor": lambda: [net.Abs(y)],
        "short rows": lambda: [
            net.Multiply(x, net.weights(4, 8, 6, 1)),
            net.Multiply(x, net.weights(8, 1, 200)),
        ],
        "more outputs than a loop has": lambda: [net.Subtract(x, float(i)) for i in range(3, 7)],
    }[other]()
    summed = net.CumSum(net.Multiply(small, 3.0), net.b.constant(np.int64(3)))
    graph = net.b.finish([summed, one, *two])
    assert len(joined(graph)) > 1 + (other != "more outputs than a loop has")
    check(graph)


def test_a_turned_operand_does_not_tear_the_loop():
    """t + turned is joined with relu(t): one step with vectors, and a copy in front"""
    net = Net((70, 90), (90, 70))
    x, y = net.inputs
    turned = net.Transpose(y, net.b.constant(np.array([1, 0])))
    graph = net.b.finish([net.Relu(x), net.Add(x, turned)])
    assert [n for _, n in joined(graph)] == [2]
    job = check(graph)
    kinds = [step.type for step in job._table.plan.steps]
    assert len(kinds) == 2 and "Reorder" in kinds


def test_a_scale_of_each_channel_does_not_turn_an_input():
    """Squeeze and excitation of an input: the convolutions' results have another order, and one pixel"""
    net = Net((1, 64, 20, 20))
    (x,) = net.inputs
    scale = net.ReduceMean(x, net.b.constant(np.array([2, 3])), keep_dims=True)
    for outs, ins in ((16, 64), (64, 16)):
        scale = net.Convolution(net.Sigmoid(scale), net.weights(outs, ins, 1, 1))
    job = check(net.b.finish([net.Multiply(x, net.Sigmoid(scale))]))
    assert [step.type for step in job._table.plan.steps].count("Reorder") == 0


def test_outputs_that_lie_apart_are_copied_there():
    """One is a part of a concatenation along the last dimension, the other is whole"""
    net = Net((50, 40))
    (x,) = net.inputs
    column = net.Unsqueeze(net.Relu(x), net.b.constant(np.array([2])))
    pairs = net.Concat(column, column, axis=2)
    graph = net.b.finish([pairs, net.Abs(x)])
    assert [n for _, n in joined(graph)] == [2]
    check(graph)


def test_outputs_that_are_parts_of_one_concatenation_are_written_there():
    net = Net((1, 17, 300), (1, 17, 300))
    x, y = net.inputs
    graph = net.b.finish([net.Concat(net.Cos(net.Add(x, y)), net.Abs(x), axis=1)])
    assert [n for _, n in joined(graph)] == [2]
    job = check(graph)
    assert {step.type for step in job._table.plan.steps} == {"Add"}


def test_each_output_goes_over_another_operand_that_dies():
    net = Net((64, 512), (64, 512))
    a, b = (net.Softmax(x, axis=1) for x in net.inputs)
    out = [net.Add(a, b), net.Subtract(a, b)]
    graph = net.b.finish([net.MatMul(v, net.weights(512, 8)) for v in out])
    assert [n for _, n in joined(graph)] == [2]
    job = check(graph)
    assert job._table.plan.arena_size < 2.5 * 64 * 512 * 4


@pytest.mark.parametrize("rows", [(1, 5), (5, 5), (5, 1)])
def test_open_dimensions_that_may_broadcast_are_not_joined_and_equal_ones_are(rows):
    b = Builder()
    shape = (Interval(0, None), 48)
    x, y = (b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output for _ in range(2))
    t = b.add("Add", [x, y]).output
    graph = b.finish([b.add("Relu", [x]).output, b.add("Abs", [x]).output, t, b.add("Exp", [t]).output])
    assert joined(graph) == [(["Abs", "Relu"], 2), (["Add", "Exp"], 2)]
    rng = np.random.default_rng(SEED)
    check(graph, [rng.standard_normal((r, 48)).astype(np.float32) for r in rows])


F64 = {
    "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "abs": np.abs, "negative": np.negative,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "cos": np.cos, "add": np.add, "multiply": np.multiply,
    "subtract": np.subtract, "maximum": np.maximum,
}  # fmt: skip
ONE, TWO = ("relu", "tanh", "abs", "negative", "sigmoid", "cos"), ("add", "multiply", "subtract", "maximum")


def random_model(rng):
    """A model of OpenVINO's of elementwise nodes, and others that read them and are read, any of which may be
    given out; inputs, and what they are in f64."""
    h, w = int(rng.choice([1, 3, 8])), int(rng.choice([5, 64, 130]))
    shape = (int(rng.choice([1, 2])), int(rng.choice([1, 4, 17])), h, w)
    inputs, values = [], []
    for _ in range(3):
        array = rng.uniform(-2, 2, shape).astype(np.float32)
        inputs.append(array)
        values.append((ov.parameter(shape, np.float32), array.astype(np.float64)))
    parameters = [node for node, _ in values]
    for _ in range(int(rng.integers(4, 22))):
        (a, x), (b, y) = (values[int(i)] for i in rng.integers(max(0, len(values) - 7), len(values), 2))
        kind = int(rng.integers(0, 12))
        if kind < 4:
            name = str(rng.choice(ONE))
            made = getattr(ov, name)(a), F64[name](x)
        elif kind < 9:
            name = str(rng.choice(TWO))
            if kind == 8:
                y = rng.uniform(-1, 1, [d if rng.random() < 0.5 else 1 for d in shape]).astype(np.float32)
                b = ov.constant(y)
            made = getattr(ov, name)(a, b), F64[name](x, y)
        elif kind == 9:
            mean = ov.reduce_mean(a, np.array([3]), keep_dims=True)
            made = ov.subtract(a, mean), x - x.mean(3, keepdims=True)
        elif kind == 10:
            turned = ov.transpose(ov.relu(ov.transpose(a, np.array([0, 2, 3, 1]))), np.array([0, 3, 1, 2]))
            made = turned, np.maximum(x, 0)
        else:
            part = ov.slice(ov.concat([a, b], 1), [1], [shape[1] + 1], [1], [1])
            made = part, np.concatenate([x, y], 1)[:, 1 : shape[1] + 1]
        if np.abs(made[1]).max() > 20:
            made = ov.tanh(made[0]), np.tanh(made[1])
        values.append(made)
    given = [v for v in values[3:-1] if rng.random() < 0.25] + values[-1:]
    return openvino.Model([node for node, _ in given], parameters), inputs, [want for _, want in given]


def beside(seed):
    model, inputs, wanted = random_model(np.random.default_rng([SEED, seed]))
    ours, _ = our_answers(model, inputs)
    for k, (mine, real, want) in enumerate(zip(ours, real_answers(model, inputs), wanted, strict=True)):
        assert mine.shape == real.shape == want.shape, f"seed {seed}, output {k}"
        np.testing.assert_allclose(mine, want, rtol=2e-4, atol=2e-4, err_msg=f"seed {seed}, output {k}")
        np.testing.assert_allclose(mine, real, rtol=2e-4, atol=2e-4, err_msg=f"seed {seed}, output {k}")


@pytest.mark.parametrize("batch", some(range(3), 1))
def test_random_elementwise_graphs_beside_openvino_and_f64(batch):
    for i in range(4):
        beside(4 * batch + i)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_elementwise_graphs_beside_openvino_and_f64():
    for seed in range(1000, 1400):
        beside(seed)
