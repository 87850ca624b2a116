"""Which nodes become one kernel, and that the kernel says what they said."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.compiler.options import Context
from ovjit.engine import compile_graph
from ovjit.graph import interp
from ovjit.planning import fuse as fusing
from tests.support.compiled import fuse, program_of, run_passes
from tests.support.graph_nets import SEED, Net
from tests.support.run import run_job
from tests.support.sweeps import some


def groups_of(graph):
    return [[n.op.name for n in g.nodes] for g in fuse(run_passes(graph))]


def check(graph):
    """The compiled graph's answers beside the interpreter's."""
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    job = compile_graph(graph, {}).new_job()
    run_job(job, arrays)
    for got, want in zip(job.outputs, interp.evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=f"seed {SEED}")


def test_two_sides_of_a_sum_are_one_kernel():
    net = Net((5, 33), (5, 33), (5, 33))
    a, b, c = net.inputs
    graph = net.b.finish([net.Add(net.Relu(a), net.Multiply(b, c))])
    assert groups_of(graph) == [["Relu", "Multiply", "Add"]]
    check(graph)


def test_gelu_as_exporters_write_it_is_one_kernel():
    net = Net((7, 65))
    (x,) = net.inputs
    half = net.Multiply(x, 0.5)
    graph = net.b.finish([net.Multiply(half, net.Add(net.Erf(net.Divide(x, 1.4142135)), 1.0))])
    assert len(groups_of(graph)) == 1
    check(graph)


@pytest.mark.parametrize("beta, inputs", [(1.0, 1), (1.5, 2)])
def test_swish_of_a_factor_of_1_is_swish(beta, inputs):
    """As files have it, which always name the factor; another one stays."""
    net = Net((5, 33))
    (x,) = net.inputs
    graph = net.b.finish([net.Swish(x, np.float32(beta))])
    (node,) = (n for n in run_passes(graph).nodes if n.op.name == "Swish")
    assert len(node.inputs) == inputs
    check(graph)


def test_a_value_read_twice_is_read_from_registers():
    """conv -> t * sigmoid(t)"""
    net = Net((1, 3, 8, 9))
    (x,) = net.inputs
    t = net.Convolution(x, net.weights(17, 3, 3, 3), pads_begin=(1, 1), pads_end=(1, 1))
    graph = net.b.finish([net.Multiply(t, net.Sigmoid(t))])
    assert groups_of(graph) == [["Convolution", "Sigmoid", "Multiply"]]
    check(graph)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_sums_that_are_read_without_their_bias_too_do_not_start_with_it(size, depthwise):
    """conv -> t - relu(t + bias)"""
    net = Net((1, 16, 8, 9))
    (x,) = net.inputs
    if depthwise:
        t = net.GroupConvolution(x, net.weights(16, 1, 1, size, size))
    else:
        t = net.Convolution(x, net.weights(17, 16, size, size))
    graph = net.b.finish([net.Subtract(t, net.Relu(net.Add(t, net.weights(1, t.shape[1], 1, 1))))])
    assert len(groups_of(graph)) == 1
    check(graph)


def test_what_makes_a_residual_is_computed_in_the_epilogue():
    net = Net((4, 16), (4, 20))
    x, skip = net.inputs
    t = net.MatMul(x, net.weights(16, 20))
    graph = net.b.finish([net.Relu(net.Add(t, net.Multiply(net.Subtract(skip, 3.0), 0.1)))])
    assert groups_of(graph) == [["MatMul", "Add", "Multiply", "Add", "Relu"]]
    check(graph)


def test_the_later_of_two_products_takes_their_sum():
    net = Net((4, 16))
    (x,) = net.inputs
    one, two = net.MatMul(x, net.weights(16, 20)), net.MatMul(x, net.weights(16, 20))
    graph = net.b.finish([net.Relu(net.Add(two, one))])
    assert groups_of(graph) == [["MatMul"], ["MatMul", "Add", "Relu"]]
    check(graph)


def test_what_is_given_out_or_read_elsewhere_ends_a_group():
    net = Net((4, 16))
    (x,) = net.inputs
    t = net.Relu(net.MatMul(x, net.weights(16, 16)))
    graph = net.b.finish([t, net.Exp(t)])
    assert groups_of(graph) == [["MatMul", "Relu"], ["Exp"]]
    check(graph)


def test_a_way_round_through_another_kernel_is_no_part_of_a_group():
    """exp(t) + cumsum(t): the sum needs the cumulative one, which needs t"""
    net = Net((4, 16))
    (x,) = net.inputs
    t = net.Relu(x)
    graph = net.b.finish([net.Add(net.Exp(t), net.CumSum(t, net.b.constant(np.int64(1))))])
    assert ["CumSum"] in groups_of(graph) and ["Relu"] in groups_of(graph)
    check(graph)


def test_rounding_to_a_half_is_not_skipped():
    net = Net((9, 33))
    (x,) = net.inputs
    low = net.Convert(net.Multiply(x, 1.1), destination_type="bf16")
    graph = net.b.finish([net.Add(net.Convert(low, destination_type="f32"), 0.0)])
    check(graph)


@pytest.mark.parametrize("seed", some(range(10), 3))
def test_random_elementwise_graphs(seed):
    """Diamonds, fans and chains over a few inputs: as the interpreter has them, and every node once."""
    rng = np.random.default_rng([SEED, seed])
    net = Net(*[(3, 17)] * 3)
    values = list(net.inputs)
    for _ in range(int(rng.integers(3, 25))):
        a, b = (values[i] for i in rng.integers(max(0, len(values) - 6), len(values), 2))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            values.append(net.Softmax(a, axis=1))
        elif kind == 1:
            values.append(net.MatMul(a, net.weights(17, 17)))
        elif kind == 2:
            values.append(net.Tanh(a))
        else:
            values.append((net.Add, net.Multiply, net.Maximum)[kind - 3](net.Tanh(a), b))
    outputs = list(dict.fromkeys([values[-1], values[int(rng.integers(3, len(values)))]]))
    graph = net.b.finish(outputs)
    groups = program_of(graph).lowerings
    names = [n.name for low in groups for n in low.group.nodes]
    assert len(names) == len(set(names)), f"seed {seed}"
    check(graph)


def picture(elementwise):
    """Bytes [N,H,W,C], through `elementwise` of (net, value), turned to [N,C,H,W], then a Relu."""
    net = Net()
    b = net.b
    x = b.add("Parameter", (), {"shape": (2, 5, 7, 3), "element_type": "u8"}, name="p").output
    y = elementwise(net, b.add("Convert", [x], {"destination_type": "f32"}).output)
    turned = b.add("Transpose", [y, b.constant(np.array([0, 3, 1, 2]))]).output
    return b.finish([net.Relu(turned)], [x])


MEAN, SCALE = np.array([1, 100, 200], np.float32), np.array([0.5, 2, 3], np.float32)
ROWS = np.arange(35, dtype=np.float32).reshape(5, 7, 1)


@pytest.mark.parametrize(
    "elementwise",
    [
        lambda net, y: net.Multiply(net.Subtract(y, net.b.constant(MEAN)), net.b.constant(SCALE)),
        lambda net, y: net.Add(net.b.constant(ROWS), net.Divide(y, 255)),
        lambda net, y: net.Clamp(y, min=3.0, max=90.0),
    ],
    ids=["mean and scale", "a picture of means", "clamp"],
)
def test_bytes_are_turned_before_they_become_floats(elementwise):
    graph = picture(elementwise)
    kernels = [group for group in groups_of(graph) if group != ["Transpose"]]
    assert len(kernels) == 1 and kernels[0][0] == "Convert" and kernels[0][-1] == "Relu"
    x = np.random.default_rng(SEED).integers(0, 256, (2, 5, 7, 3), np.uint8)
    job = compile_graph(graph, {}).new_job()
    run_job(job, [x])
    np.testing.assert_allclose(job.outputs[0], interp.evaluate(graph, [x])[0], rtol=1e-6)


def test_what_others_read_is_not_turned_twice():
    net = Net()
    b = net.b
    x = b.add("Parameter", (), {"shape": (4, 6), "element_type": "u8"}, name="p").output
    y = net.Sin(b.add("Convert", [x], {"destination_type": "f32"}).output)
    turned = b.add("Transpose", [y, b.constant(np.array([1, 0]))]).output
    graph = run_passes(b.finish([turned, y], [x]))
    assert [node.op.name for node in graph.nodes].count("Sin") == 1


def after_passes(net, *outputs):
    graph = net.b.finish(list(outputs))
    check(graph)
    return [n.op.name for n in run_passes(graph).nodes if n.op.name not in ("Parameter", "Constant")]


@pytest.mark.parametrize(
    "first, second", [("Multiply", "Divide"), ("Divide", "Multiply"), ("Divide", "Divide")]
)
def test_scales_that_follow_one_another_are_one_product(first, second):
    net = Net((3, 5, 17))
    (x,) = net.inputs
    rows = np.linspace(0.3, 7, 5, dtype=np.float32).reshape(5, 1)
    scaled = getattr(net, second)(getattr(net, first)(x, rows), 6.0)
    assert after_passes(net, scaled) == ["Multiply"]


@pytest.mark.parametrize("first, second", [(0.0, 3.0), (1e-30, 1e-30), (np.inf, 2.0), (1e30, 1e30)])
def test_scales_whose_product_is_no_normal_number_are_left(first, second):
    """x / 0 * 3 is an infinity or NaN, x * (3 / 0) another one"""
    net = Net((3, 5))
    graph = net.b.finish([net.Multiply(net.Multiply(net.inputs[0], first), second)])
    assert [n.op.name for n in run_passes(graph).nodes].count("Multiply") == 2


def test_scales_that_are_read_between_or_make_a_table_are_left():
    net = Net((4, 5))
    (x,) = net.inputs
    row, column = np.full((1, 5), 0.7, np.float32), np.full((4, 1), 1.7, np.float32)
    assert after_passes(net, net.Divide(net.Multiply(x, row), column)) == ["Multiply", "Divide"]
    half = net.Divide(x, 3.0)
    assert after_passes(net, net.Multiply(half, 0.7), net.Exp(half)) == ["Divide", "Multiply", "Exp"]


def test_offsets_behind_a_convolution_are_one_and_those_that_round_are_left():
    net = Net((1, 3, 8, 9))
    (x,) = net.inputs
    shift = np.linspace(-1, 1, 17, dtype=np.float32).reshape(1, 17, 1, 1)
    sum = net.Convolution(x, net.weights(17, 3, 3, 3), pads_begin=(1, 1), pads_end=(1, 1))
    assert after_passes(net, net.Add(0.25, net.Add(sum, shift))) == ["Convolution", "Add"]
    rounding = float(3 << 22)
    graph = net.b.finish([net.Add(net.Add(sum, rounding), -rounding)])
    assert [n.op.name for n in run_passes(graph).nodes].count("Add") == 2


def test_quotients_by_numbers_are_right_to_the_last_bit():
    """AVX-512 makes them by multiplying; zeros keep their sign, infinities and NaN stay what they are"""
    rng = np.random.default_rng(SEED)
    ones = rng.integers(0, 1 << 23, 1 << 16, dtype=np.uint32) | np.uint32(127 << 23)
    any = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 41, -147], np.float32)
    x = np.concatenate([ones.view(np.float32), any.view(np.float32), special])
    divisors = [1.0000001, 1.4142135, 3, 6, -7.3, 41, 49, 1.9999999, 1e10, 2.0**64]
    net = Net(x.shape)
    divided = [net.Divide(net.inputs[0], d) for d in divisors]
    job = compile_graph(net.b.finish(divided), {}).new_job()
    run_job(job, [x])
    for d, got in zip(divisors, job.outputs, strict=True):
        with np.errstate(all="ignore"):
            want = x / np.float32(d)
        exact = ~(np.abs(x) < 2.0**-100) | (x == 0)
        same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
        assert same[exact].all(), (SEED, d, x[exact & ~same][:5], got[exact & ~same][:5])
        np.testing.assert_allclose(got, want, rtol=3e-7, atol=3e-45, err_msg=f"seed {SEED}, / {d}")


@pytest.mark.parametrize("divisor, lanes", [(1.5, 16), (6.0, 16), (0.7, 16), (2.0**70, 16), (1.5, 8)])
def test_only_numbers_of_a_middling_size_are_divided_by_in_products(divisor, lanes):
    from ovjit.codegen.cpu.targets import TARGETS

    target = next(isa for isa in TARGETS.values() if isa.lanes == lanes)
    net = Net((3, 7))
    graph = net.b.finish([net.Divide(net.inputs[0], divisor)])
    (group,) = fusing.fuse(graph, Context(target))
    multiplied = "fma" in group.make_body().text()
    assert multiplied == (lanes == 16 and 1 <= divisor <= 2.0**64)
