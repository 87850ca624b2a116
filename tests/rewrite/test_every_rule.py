"""Each rule of the pipeline is applied to a graph that is made for it: none is dead.

Rules for models alone are in tests/compat/test_preprocess_tidy.py.

A graph may be for several rules. Its nodes have names like those that rules give new nodes: a node that is
made anew for its name alone has the readers that it had.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import ovjit as ov
import ovjit.rewrite
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler import pass_pipeline
from ovjit.compiler.options import Context, Options
from ovjit.compiler.pass_pipeline import op_rules
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph, Value
from ovjit.rewrite.rules import Rule, applied
from tests.support.compiled import run_passes
from tests.support.graph_nets import Net, parameter

F32 = np.float32
ops = ov.opset13


def rules_in(thing: Any) -> Iterator[Rule]:
    """The rules that a module, a list or a class of them has."""
    if isinstance(thing, Rule):
        yield thing
    elif isinstance(thing, list | tuple):
        for each in thing:
            yield from rules_in(each)
    elif isinstance(thing, type) and thing.__module__.startswith(ovjit.rewrite.__name__):
        for each in vars(thing).values():
            yield from rules_in(each if isinstance(each, Rule) else ())


#: Rules that no pass has.
FOR_MODELS = {"multiply_by_reciprocal", "scale_inputs", "subtract_bias_from_mean"}


def all_rules() -> dict[str, Rule]:
    names = [m.name for m in pkgutil.iter_modules(ovjit.rewrite.__path__, "ovjit.rewrite.")]
    modules = map(importlib.import_module, names)
    found = [rule for module in modules for thing in vars(module).values() for rule in rules_in(thing)]
    return {repr(rule): rule for rule in (*found, *op_rules())}


class Typed(Net):
    """A net with parameters of other types, too."""

    def given(self, kind: Any, *shape: int) -> Value:
        return parameter(self.b, np.zeros(shape, kind))

    def shaped(self, x: Value, *sizes: int) -> Value:
        return self.Reshape(x, np.array(sizes), special_zero=False)

    def real(self, x: Value) -> Value:
        return self.Convert(x, destination_type="f32")

    def conv(self, x: Value, filters: Any = None, name: str = "Convolution", **more: Any) -> Value:
        filters = self.weights(4, 4, 1, 1) if filters is None else filters
        attrs = {"strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
        return getattr(self, name)(x, filters, **{**attrs, **more})


def image(net: Typed) -> Value:
    return net.given(F32, 1, 4, 6, 6)


def channels(*numbers: float) -> np.ndarray:
    return np.array(numbers, F32).reshape(1, -1, 1, 1)


FOUR = channels(1, 2, 3, 4)


def no_ops(net: Typed) -> list[Value]:
    x, whole = net.given(F32, 2, 3), net.given(np.int32, 2, 3)
    return [
        net.Identity(net.Sqrt(x)), net.real(x), net.Transpose(net.Exp(x), np.array([0, 1])),
        net.shaped(net.Abs(x), 2, 3), net.Floor(net.Negative(whole)), net.Swish(x, 1.0),
        net.Add(x, net.Sqrt(np.ones(3, F32))),
    ]  # fmt: skip


def broadcasts(net: Typed) -> list[Value]:
    x = image(net)
    sums = net.Add(net.given(F32, 2, 3, 4), net.given(F32, 2, 3), auto_broadcast="pdpd")
    wide = net.Convert(net.given(F32, 1, 4, 1, 1), destination_type="f64")
    whole = net.given(np.int64, 3)
    return [net.PRelu(x, np.ones(4, F32)), sums, net.PRelu(x, wide), net.LessEqual(whole, whole)]


def transposes(net: Typed) -> list[Value]:
    return [net.Transpose(net.Sqrt(net.real(net.given(np.uint8, 1, 6, 6, 4))), np.array([0, 3, 1, 2]))]


def scales(net: Typed) -> list[Value]:
    x = image(net)
    norm = net.BatchNormInference(net.Relu(x), *(np.ones(4, F32) for _ in range(4)), epsilon=1e-5)
    return [
        net.Multiply(net.conv(x), FOUR), net.Multiply(net.Add(net.conv(x), FOUR), FOUR),
        net.Add(net.Add(net.conv(x), FOUR), FOUR), net.Multiply(net.Divide(net.Relu(x), FOUR), FOUR), norm,
        net.MatMul(np.full((3, 5), 1e-42, F32), net.given(F32, 5, 7)),
    ]  # fmt: skip


def spellings(net: Typed) -> list[Value]:
    x, whole = net.given(F32, 2, 3), net.given(np.int64, 3)
    return [
        net.Divide(net.Sin(x), F32(8)), net.Subtract(whole, np.int64(3)), net.Add(F32(0.3), net.Cos(x)),
    ]  # fmt: skip


def windows(net: Typed) -> list[Value]:
    x, point = image(net), net.given(F32, 1, 4, 1, 1)
    return [
        net.conv(x, dilations=(2, 2)),
        net.conv(x, net.weights(4, 4, 15, 15), pads_begin=(7, 7), pads_end=(7, 7)),
        net.conv(x, net.weights(4, 4, 3, 3), "ConvolutionBackpropData"),
        net.conv(point, net.weights(4, 4, 3, 3), "ConvolutionBackpropData"),
        net.conv(x, net.weights(4, 4, 2, 2), "ConvolutionBackpropData", strides=(2, 2)),
    ]


def norms(net: Typed) -> list[Value]:
    x = net.given(F32, 2, 8, 16)
    last = np.array([-1])

    def mean(x: Value) -> Value:
        return net.ReduceMean(x, last, keep_dims=True)

    def root(x: Value) -> Value:
        return net.Sqrt(net.Add(x, 1e-5))

    centred = net.Subtract(x, mean(x))
    scale = net.Divide(np.arange(1, 17, dtype=F32), root(mean(net.Multiply(centred, centred))))
    attrs = {"normalize_variance": True, "eps": 1e-5, "eps_mode": "INSIDE_SQRT"}
    groups = net.MVN(net.shaped(net.Relu(x), 2, 4, 32), np.array([2]), **attrs)
    return [
        net.Divide(x, root(mean(net.Multiply(x, x)))),
        net.Divide(centred, root(mean(net.Multiply(centred, centred)))),
        net.Add(net.Multiply(x, scale), net.Subtract(np.ones(16), net.Multiply(mean(x), scale))),
        net.shaped(groups, 2, 8, 16),
    ]


def attention(net: Typed) -> list[Value]:
    q, k, v = (net.given(F32, 2, 4, 8, 16) for _ in range(3))
    scores = net.Multiply(net.MatMul(q, k, transpose_b=True), 0.25)
    half = [net.real(net.given(np.float16, 2, 4, 8, 16)) for _ in range(2)]
    zeros = (0.0, 0.25)
    return [
        net.MatMul(net.Softmax(scores, axis=-1), v),
        net.ScaledDotProductAttention(q, *half, *zeros, causal=False),
    ]


def rotations(net: Typed) -> list[Value]:
    x = net.given(F32, 2, 8, 16)

    def part(first: int, stop: int, step: int = 1) -> Value:
        return net.Slice(x, *(np.array([n]) for n in (first, stop, step, -1)))

    def beside(x: Value) -> Value:
        return net.Unsqueeze(x, np.array([-1]))

    pairs = net.Concat(beside(net.Negative(part(1, 16, 2))), beside(part(0, 16, 2)), axis=-1)
    return [
        net.Concat(net.Negative(part(8, 16)), part(0, 8), axis=-1),
        net.shaped(pairs, 2, 8, 16),
    ]


def shuffles(net: Typed) -> list[Value]:
    apart = net.Transpose(net.shaped(image(net), 1, 2, 2, 6, 6), np.array([0, 2, 1, 3, 4]))
    return [net.conv(net.Relu(net.shaped(apart, 1, 4, 6, 6)))]


def weights(net: Typed) -> list[Value]:
    rng = np.random.default_rng(7)
    scale = net.b.constant(np.full((512, 1), 0.5, np.float16))
    small = [rng.integers(0, 255, (512, 256)).astype(np.uint8) for _ in range(2)]
    wide = [net.Multiply(net.Convert(each, destination_type="f16"), scale) for each in small]
    table = np.ones((3, 16, 8), F32)
    chosen = net.Gather(table, net.given(np.int64, 2), np.array(0))
    return [
        net.MatMul(net.given(F32, 5, 256), net.real(wide[0]), transpose_b=True),
        net.Gather(net.real(wide[1]), net.given(np.int64, 5), np.array(0)),
        net.MatMul(net.given(F32, 2, 5, 16), chosen),
    ]


def experts(net: Typed) -> list[Value]:
    """Two of three experts, computed for all rows."""
    x = net.given(F32, 5, 8)
    best = net.b.add("TopK", [net.MatMul(x, net.weights(8, 3)), net.b.constant(np.array(2))],
                     {"axis": 1, "mode": "max", "sort": "value", "index_element_type": "i64"})  # fmt: skip
    share = net.ScatterElementsUpdate(np.zeros((5, 3), F32), best.outputs[1], best.outputs[0], np.array(1))
    tiled = net.shaped(net.Tile(x, np.array([3, 1])), 3, 5, 8)
    made = net.Relu(net.MatMul(tiled, net.weights(3, 4, 8), transpose_b=True))
    share = net.Unsqueeze(net.Transpose(share, np.array([1, 0])), np.array(2))
    return [net.ReduceSum(net.Multiply(made, share), np.array(0), keep_dims=False)]


def stepped(net: Typed, x: Value, low: float = -1.28, high: float = 1.27) -> Value:
    return net.FakeQuantize(x, low, high, low, high, levels=256)


UNPADDED = {"pads_begin": (0, 0), "pads_end": (0, 0)}


def quantized(net: Typed) -> list[Value]:
    x = stepped(net, image(net))
    bytes_ = [net.given(np.uint8, 1, 4, 6, 6) for _ in range(2)]
    real = [net.Multiply(net.Subtract(net.real(b), 3.0), 0.5) for b in bytes_]
    resized = net.Interpolate(x, np.array([1, 4, 12, 12]), mode="nearest", shape_calculation_mode="sizes")
    filters = stepped(net, net.weights(4, 4, 1, 1))
    zero = net.real(net.given(np.uint8))
    dynamic = net.Subtract(net.real(net.given(np.uint8, 5, 64)), zero)
    ends = np.array([0, 0, 1, 1])
    return [
        net.conv(x, filters), net.conv(net.Concat(*real, axis=1), stepped(net, net.weights(4, 8, 1, 1))),
        net.conv(net.MaxPool(x, strides=(1, 1), kernel=(2, 2), **UNPADDED), filters),
        net.conv(resized, filters), net.conv(net.Pad(x, ends, ends, 0.0, pad_mode="constant"), filters),
        net.conv(net.ReduceMean(x, np.array([2, 3]), keep_dims=True), filters),
        net.conv(net.shaped(x, 1, 4, 36, 1), filters),
        net.conv(net.AvgPool(x, strides=(1, 1), kernel=(2, 2), exclude_pad=True, **UNPADDED), filters),
        net.MatMul(dynamic, net.real(np.ones((64, 8), np.int8))),
    ]  # fmt: skip


def of_near_limits(net: Typed) -> list[Value]:
    """The range that calibration gives to zeros."""
    limits = [np.array(v, F32) for v in (-1e-38, 1e-38, -1, 1)]
    return [net.FakeQuantize(image(net), *limits, levels=65536)]


def requantized(net: Typed) -> list[Value]:
    x, filters = stepped(net, image(net)), stepped(net, net.weights(4, 4, 1, 1))
    sums = [net.Add(net.conv(x, filters), net.weights(1, 4, 1, 1)) for _ in range(3)]
    rounded = net.Round(net.Divide(sums[1], 0.05), mode="half_to_even")
    clamped = net.Clamp(net.Add(rounded, 3.0), min=0.0, max=255.0)
    written_out = net.Convert(clamped, destination_type="u8")
    return [net.conv(stepped(net, net.Relu(sums[0])), filters), written_out, sums[2]]


def promoted(net: Typed) -> list[Value]:
    halves = net.given(numpy_dtype("bf16"), 1, 4, 6, 6)
    return [
        net.AdaptiveAvgPool(halves, np.array([2, 2])), net.LogSoftmax(net.given(np.int8, 2, 8), axis=1),
    ]  # fmt: skip


def known_branch() -> Graph:
    """If(True): the one branch."""
    x, a, b = (ops.parameter([2, 3], F32) for _ in range(3))
    results = [ops.result(ops.exp(a)), ops.result(ops.relu(b))]
    node = ops.if_op(ops.constant(np.array(True)).output(0))
    node.set_then_body(ov.Model(results[:1], [a]))
    node.set_else_body(ov.Model(results[1:], [b]))
    node.set_input(x.output(0), a, b)
    return ov.Model([node.set_output(*results)], [x])._graph()


def bags() -> Graph:
    """A Loop whose iterations sum up rows of a table."""
    table, rows, starts, ends = (
        [ops.parameter(shape, kind) for _ in range(2)]
        for shape, kind in (([9, 4], F32), ([20], np.int64), ([3], np.int64), ([3], np.int64))
    )
    zero, one, i = ops.constant(np.array([0])), ops.constant(np.array([1])), ops.parameter([], np.int64)

    def of_trip(numbers: Any) -> Any:
        return ops.unsqueeze(ops.gather(numbers, i, ops.constant(np.array(0))), zero)

    part = ops.slice(rows[1], of_trip(starts[1]), of_trip(ends[1]), one)
    total = ops.reduce_sum(ops.gather(table[1], part, ops.constant(np.array(0))), zero, True)
    again = ops.constant(np.array(True))
    node = ops.loop(ops.constant(np.array(3)).output(0), ops.constant(np.array(True)).output(0))
    inner = [each[1] for each in (table, rows, starts, ends)]
    node.set_function(ov.Model([again, total], [i, *inner]))
    node.set_special_body_ports([0, 0])
    for outside, inside in (table, rows, starts, ends):
        node.set_invariant_input(inside, outside.output(0))
    sums = node.get_concatenated_slices(total.output(0), 0, 1, 1, -1, 0)
    return ov.Model([sums], [each[0] for each in (table, rows, starts, ends)])._graph()


def resized(net: Typed) -> list[Value]:
    rows = np.array([[0, 1], [2, 3], [4, 5]])
    halves = net.Multiply(net.Gather(image(net), rows, np.array(2)), np.full((3, 2, 1), 0.5, F32))
    return [net.ReduceSum(halves, np.array([3]), keep_dims=False)]


NETS: list[Callable[[Typed], list[Value]]] = [
    spellings,
    no_ops, broadcasts, transposes, scales, windows, norms, attention, rotations, shuffles, weights, experts,
    quantized, of_near_limits, requantized, promoted, resized,
]  # fmt: skip


def graph_of(make: Callable[[Typed], list[Value]]) -> Graph:
    net = Typed()
    return net.b.finish([net.Result(value) for value in make(net)])


def fired(graph: Graph) -> set[str]:
    """The rules that are applied to this graph, in f32 and in bf16, and for a card."""
    before = applied.copy()
    run_passes(graph)
    run_passes(graph, precision="bf16")
    pass_pipeline.run_passes(graph, Context(TARGETS["cuda"], Options(precision="f16")))
    return {repr(rule) for rule, count in applied.items() if count > before[rule]}


def doubled() -> Graph:
    """A Loop that doubles a constant four times."""
    i, x = ops.parameter([], np.int64), ops.parameter([2], F32)
    twice = ops.add(x, x)
    node = ops.loop(ops.constant(np.array(4)).output(0), ops.constant(np.array(True)).output(0))
    node.set_function(ov.Model([ops.constant(np.array(True)), twice], [i, x]))
    node.set_special_body_ports([0, 0])
    node.set_merged_input(x, ops.constant(np.ones(2, F32)).output(0), twice.output(0))
    data = ops.parameter([2], F32)
    return ov.Model([ops.add(data, node.get_iter_value(twice.output(0), -1))], [data])._graph()


def test_each_rule_is_applied_to_some_graph() -> None:
    graphs = [*map(graph_of, NETS), known_branch(), bags(), doubled()]
    assert not set(all_rules()).difference(FOR_MODELS, *map(fired, graphs))
