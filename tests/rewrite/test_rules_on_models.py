"""Rules run on Models as on Graphs: the same operations, values, names and runtime information."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.merge_equal_nodes import merge_equal_nodes
from ovjit.api.model.model_rules import ModelValue, apply_rules
from ovjit.errors import ModelError
from ovjit.graph.interp import evaluate
from ovjit.rewrite.canonical import add_negative, multiply_by_reciprocal
from ovjit.rewrite.merging import merge_equal
from ovjit.rewrite.pattern import op, value
from ovjit.rewrite.rules import rewrite, rule, run_rules
from ovjit.rewrite.simplify import DROP_NOOPS
from ovjit.rewrite.weight_scales import (
    CONVOLUTIONS,
    expand_batch_norm,
    join_factors,
    join_scales,
    join_sums,
    scale_inputs,
    scale_outputs,
)
from ovjit_ops.normalization.recognize import NORMALIZED, ROOT_MEAN_SQUARE, SCALED

ops = ov.opset13
RNG = np.random.default_rng(70)
#: Operation -> weights for 4 channels, of 2 groups where it has groups.
WEIGHTS = {
    "Convolution": (4, 4, 3, 3),
    "GroupConvolution": (2, 2, 2, 3, 3),
    "ConvolutionBackpropData": (4, 4, 3, 3),
    "GroupConvolutionBackpropData": (2, 2, 2, 3, 3),
}
BUILDERS = {
    "Convolution": ops.convolution,
    "GroupConvolution": ops.group_convolution,
    "ConvolutionBackpropData": ops.convolution_backprop_data,
    "GroupConvolutionBackpropData": ops.group_convolution_backprop_data,
}


def const(*shape: int) -> Any:
    return ops.constant(RNG.standard_normal(shape).astype(np.float32) + 2)


def conv(x: Any, name: str) -> Any:
    if name.endswith("BackpropData"):
        return BUILDERS[name](x, const(*WEIGHTS[name]), strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1])
    return BUILDERS[name](x, const(*WEIGHTS[name]), [1, 1], [1, 1], [1, 1], [1, 1])


def root(x: Any, axis: int) -> Any:
    mean = ops.reduce_mean(ops.multiply(x, x), ops.constant([axis]), True)
    return ops.sqrt(ops.add(mean, ops.constant(np.float32(1e-5))))


def batch_norm(x: Any) -> Any:
    return ops.batch_norm_inference(x, const(4), const(4), const(4), const(4), 1e-3)


#: Rules, and the expression of an input [2, 4, 5, 6] that they are applied to.
CASES: dict[str, tuple[list[Any], Callable[[Any], Any]]] = {
    "no-ops": (DROP_NOOPS, lambda x: ops.relu(
        ops.reshape(ops.transpose(x, [0, 1, 2, 3]), [2, 4, 5, 6], False))),
    "batch norm": ([expand_batch_norm], batch_norm),
    "difference": ([add_negative], lambda x: ops.subtract(x, const(6))),
    "quotient": ([multiply_by_reciprocal], lambda x: ops.divide(x, const(6))),
    "sums": ([join_sums], lambda x: ops.add(ops.add(x, const(6)), const(4, 1, 1))),
    "factors": ([join_factors], lambda x: ops.multiply(ops.multiply(x, const(6)), const(1))),
    "scales": ([join_scales], lambda x: ops.multiply(ops.divide(x, const(6)), const(1))),
    "RMS": ([ROOT_MEAN_SQUARE], lambda x: ops.divide(x, root(x, 3))),
    "MVN": ([NORMALIZED], lambda x: (lambda c: ops.divide(c, root(c, 3)))(
        ops.subtract(x, ops.reduce_mean(x, ops.constant([3]), True)))),
    "scaled MVN": ([SCALED], lambda x: (lambda m, s: ops.add(ops.multiply(x, s), ops.subtract(
        const(6), ops.multiply(m, s))))(*(lambda m: (m, ops.divide(const(6), root(ops.subtract(x, m), 3))))(
            ops.reduce_mean(x, ops.constant([3]), True)))),
    **{f"{name}, outputs": ([scale_outputs], lambda x, name=name: ops.multiply(conv(x, name), const(4, 1, 1)))
       for name in CONVOLUTIONS},
    **{f"{name}, outputs with a bias": ([scale_outputs], lambda x, name=name: ops.multiply(
        ops.add(conv(x, name), const(4, 1, 1)), const(4, 1, 1))) for name in CONVOLUTIONS},
    **{f"{name}, inputs": ([scale_inputs], lambda x, name=name: conv(ops.multiply(x, const(4, 1, 1)), name))
       for name in CONVOLUTIONS},
}  # fmt: skip


def made(build: Callable[[Any], Any]) -> ov.Model:
    x = ops.parameter([2, 4, 5, 6], np.float32, name="x")
    node = build(x)
    node.set_friendly_name("end")
    return ov.Model([ops.tanh(node)], [x])


def counts(names: Any) -> Counter[str]:
    return Counter(name for name in names if name not in ("Constant", "Parameter", "Result"))


@pytest.mark.parametrize("case", CASES)
def test_a_rule_on_a_model_and_on_its_graph(case: str) -> None:
    rules, build = CASES[case]
    model = made(build)
    before = model._graph()
    graph = run_rules(before, rules)
    assert graph is not before
    assert apply_rules(rules, model)
    after = model._graph()
    assert counts(n.op.name for n in after.nodes) == counts(n.op.name for n in graph.nodes)
    x = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
    expected, on_graph, on_model = (evaluate(g, [x])[0] for g in (before, graph, after))
    assert np.array_equal(on_graph, on_model)
    np.testing.assert_allclose(on_model, expected, rtol=1e-5, atol=1e-5)
    end = model.get_results()[0].input_value(0).get_node().input_value(0).get_node()
    assert end.get_friendly_name() == "end"


def test_runtime_information_of_replaced_nodes_goes_over() -> None:
    model = made(lambda x: ops.multiply(conv(x, "Convolution"), const(4, 1, 1)))
    product = next(node for node in model.get_ops() if node.get_type_name() == "Multiply")
    product.get_rt_info()["note"] = "product"
    product.input_value(0).get_node().get_rt_info()["other"] = "convolution"
    assert apply_rules([scale_outputs], model)
    (new,) = (node for node in model.get_ops() if node.get_type_name() == "Convolution")
    assert new.get_rt_info()["note"].value == "product"
    assert new.get_rt_info()["other"].value == "convolution"


def test_results_keep_their_names() -> None:
    """Of two results that would become one node, each keeps its name. A single one names the node."""
    x = ops.parameter([2], np.float32, name="x")
    relu = ops.relu(x, name="relu")
    same = ops.convert(relu, "f32", name="same")
    both = ov.Model([relu, same], [x])
    assert not apply_rules(DROP_NOOPS, both)
    one = ov.Model([same], [x])
    assert apply_rules(DROP_NOOPS, one)
    assert [node.get_friendly_name() for node in one.get_ops()][-1] == "same"
    of_input = ov.Model([ops.convert(x, "f32", name="same")], [x])
    assert not apply_rules(DROP_NOOPS, of_input)


def test_a_replaced_node_reads_nothing() -> None:
    """`once` counts readers that the model still has: the convolution of the first rule's result has one."""
    model = made(lambda x: (lambda c: ops.multiply(ops.multiply(c, const(4, 1, 1)), const(4, 1, 1)))(
        conv(x, "Convolution")))  # fmt: skip
    assert apply_rules([scale_outputs], model)
    assert not apply_rules([scale_outputs], model)
    assert counts(node.get_type_name() for node in model.get_ops()) == {"Convolution": 1, "Tanh": 1}


def test_results_of_another_type_are_refused() -> None:
    x = value("x")

    @rule(op.Relu(x))
    def wrong(w: Any, x: ModelValue) -> Any:
        """Relu(x) -> Convert(x)"""
        return w("Convert", x, destination_type="f16")

    with pytest.raises(ModelError, match=r"node 'end': wrong produces f16\[2,4,5,6\], expected f32"):
        apply_rules([wrong], made(ops.relu))
    assert not apply_rules([rewrite(op.Exp(x), op.Abs(x))], made(ops.relu))


def test_equal_nodes_of_a_model_and_of_its_graph() -> None:
    large = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
    close = large.copy()
    close[1, 2, 3, 4] += 1

    def build(x: Any) -> Any:
        sums = [
            ops.reduce_sum(ops.add(x, ops.constant(array.copy())), ops.constant([axis]), True)
            for array, axis in ((large, 1), (large, 1), (close, 1), (large, 2))
        ]
        return ops.concat([ops.add(sums[0], sums[1]), ops.add(sums[2], sums[2])], 1)

    model = made(build)
    before = model._graph()
    x = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
    merge_equal_nodes(model)
    assert counts(node.get_type_name() for node in model.get_ops())["ReduceSum"] == 2
    for graph in (model._graph(), merge_equal(before)):
        assert np.array_equal(evaluate(graph, [x])[0], evaluate(before, [x])[0])
