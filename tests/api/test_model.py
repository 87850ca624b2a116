"""Nodes, ports and Model, beside the real OpenVINO wherever it has an answer."""

from __future__ import annotations

import copy
import gc
import threading
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import openvino
import pytest

import ovjit
from ovjit.api.model.boundary import Constant
from ovjit.errors import ModelError
from ovjit.graph.graph import verify
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op
from ovjit.graph.shapes import Interval
from tests.support.evaluated import outcome

BOTH = [ovjit, openvino]


def two_inputs(ov: Any) -> types.SimpleNamespace:
    """sum = relu(a) + b; outputs sum and the relu."""
    o8 = ov.opset8
    a = o8.parameter([2, -1], np.float32, name="a")
    b = o8.parameter([2, -1], np.float32)
    relu = o8.relu(a)
    total = o8.add(relu, b, name="sum")
    model = ov.Model([total, relu], [a, b], "mm")
    return types.SimpleNamespace(ov=ov, a=a, b=b, relu=relu, sum=total, m=model)


READ_ONLY = """
a | relu | sum | a.output(0) | relu.input(0) | relu.inputs() | relu.outputs() | sum.input_values()
relu.name | relu.friendly_name | a.friendly_name | a.name | b.get_name() | sum.get_type_name()
sum.input(5) | sum.output(5) | sum.output(-1) | sum.input_value(5) | sum.get_element_type()
sum.get_output_shape(0) | sum.shape | sum.get_output_partial_shape(0) | sum.get_output_element_type(0)
sum.get_output_element_type(3) | sum.get_input_size() | sum.get_output_size() | sum.get_attributes()
a.get_attributes() | a.partial_shape | sum.type_info.name | sum.type_info.version_id | dict(sum.rt_info)
a.output(0).get_target_inputs() | a.output(0).names | relu.output(0).node | a.output(0).index
a.output(0).get_tensor() | a.output(0) == a.output(0) | hash(a.output(0)) == hash(a.output(0)) | a == a
a == relu | a != relu | copy.copy(a.output(0)) | copy.deepcopy(a.output(0)) | a + 1 | a + 1.0 | 1 + a
a + b | a - b | a * b | a / b | a + np.ones((2, 1), np.float32) | a ** 2 | -a | a > 1 | a[0]
a.output(0) + b | len(a) | a + [1.0] | b + a.output(0) | a.layout | a.element_type | ov.Node() | ov.Output()
ov.Input() | ov.ConstOutput() | ov.RTMap() | sum.input(0).get_source_output() | sum.input(0).get_index()
sum.input(0).get_node() | sum.input(0).get_partial_shape() | sum.input(0).replace_source_output(a)
sum.set_argument(0, 5) | m | str(m) | m.inputs | m.outputs | m.input() | m.input(0) | m.input('a')
m.input(9) | m.input(-1) | m.input('zz') | m.input(1.5) | m.input(True) | m.input(np.int64(0)) | m.output()
m.output(0) | m.output('zz') | m.output(9) | m.parameters | m.results | m.friendly_name | m.name
m.get_name() | m.is_dynamic() | m.dynamic | m.result | m.clone() | copy.copy(m) | copy.deepcopy(m)
m.get_output_size() | m.get_output_op(0) | m.get_output_op(7) | m.get_output_shape(0)
m.get_output_partial_shape(0) | m.get_output_element_type(0) | m.input(1).any_name | m.output(1).any_name
m.outputs[0].node | m.outputs[0].index | m.inputs[0].node | m.get_parameter_index(b)
m.get_parameter_index(ov.opset8.parameter([1])) | m.get_result_index(sum)
m.get_result_index(sum.output(0)) | m.get_result_index(a) | m.sinks | m.variables | m.rt_info
m.get_rt_info('x') | m.has_rt_info('x') | m.get_rt_info(5) | m == m | m == m.clone() | bool(m)
m.clone().friendly_name | m.add_outputs('zz') | m.add_outputs(('sum', 3)) | m.add_outputs(5)
m.reshape([1, 2]) | m.reshape({0: [3, 4]}) | m.reshape({9: [1]}) | m.reshape({'zz': [1]})
m.reshape({-1: [1]}) | m.reshape({1.5: [1]}) | m.reshape({a: [7, 2]}) | m.reshape({0: 5}) | m.reshape(5)
m.reshape({0: [1.5]}) | m.reshape({0: [[1, 2, 3]]}) | m.reshape({0: np.array([2, 2])})
m.replace_parameter(9, ov.opset8.parameter([2, 2])) | a.set_layout(ov.Layout('NCHW')) | ov.Model()
ov.Model(5) | ov.Model([], []) | ov.Model([sum, relu.output(0)], [a, b]) | ov.Model(sum, [b])
ov.Model(sum.output(0), [a, b]) | ov.Model([sum], a) | ov.Model([sum], [sum]) | ov.Model([sum], [a, b], 5)
ov.Model(sum, [a, b, ov.opset8.parameter([1], name='unused')]) | ov.Model((sum,), (a, b))
ov.Model([a], [a]) | ov.Model(results=[sum], parameters=[a, b]) | ov.Model(sum, [a, b], name='kw')
ov.Model(m)
""".replace("\n", "|").split("|")  # fmt: skip


@pytest.mark.parametrize("expression", [e.strip() for e in READ_ONLY if e.strip()])
def test_answers_as_openvino(expression: str) -> None:
    ours, theirs = ({**vars(two_inputs(ov)), "copy": copy, "np": np} for ov in BOTH)
    assert outcome(expression, ours) == outcome(expression, theirs)


def test_results_that_hang_on_a_port_are_its_outputs() -> None:
    """A Result that takes a port is what `add_outputs` gives, whether a model has it or no model does."""
    said = []
    for ov in BOTH:
        g, row = two_inputs(ov), []
        removed = g.m.results[1]
        g.m.remove_result(removed)
        row.append(g.m.add_outputs(g.relu.output(0))[0].node is removed)
        row.append(len(g.m.results))
        del removed  # drops the last reference
        added = g.m.add_outputs(g.relu.output(0))
        row += [added[0].node in g.m.results, len(g.m.results)]
        tanh = ov.opset8.tanh(g.a)
        other = ov.Model([tanh], [g.a], "other")
        row.append(g.m.add_outputs(tanh.output(0))[0].node is other.results[0])
        row.append(len(g.m.results))
        said.append(row)
    assert said[0] == said[1]


def test_nodes_are_shown_by_their_classes(tmp_path: Path) -> None:
    said = []
    for ov in BOTH:
        row = []
        for opset, more in ((ov.opset3, ()), (ov.opset13, (np.float32, [1, 2]))):
            x = ov.opset8.parameter([1, 2], np.float32, name="x")
            value = opset.read_value(ov.opset8.constant(np.zeros((1, 2), np.float32)), "v", *more)
            total = ov.opset8.add(x, value)
            model = ov.Model([ov.opset8.result(total)], [opset.assign(total, "v")], [x], "m")
            ov.save_model(model, tmp_path / "m.xml")
            for made in (model, model.clone(), ov.Core().read_model(tmp_path / "m.xml")):
                nodes = [n for n in made.get_ops() if n.get_type_name() in ("ReadValue", "Assign")]
                row.append(sorted((type(n).__name__, repr(n).split(":")[0]) for n in nodes))
        said.append(row)
    assert said[0] == said[1]


CHANGES = [
    "m.reshape({0: [3, 4], 1: [3, 4]})",
    "m.reshape({'a': ov.PartialShape([5, 6]), m.input(1): [5, 6]})",
    "m.reshape({0: '?,3', 1: '[?,3]'})",
    "m.reshape({0: [-1, (2, 8)], 1: [ov.Dimension(0, 4), '2..8']})",
    "m.reshape({0: (1, 2), 1: (1, 2)})",
    "m.reshape({0: [3, 4], 1: [5, 6]})",
    "m.add_outputs('a')",
    "m.add_outputs(['a', ('sum', 0)])",
    "m.add_outputs(relu.output(0))",
    "m.inputs[0].set_names({'x'})",
    "m.output(0).set_names({'o1'})",
    "m.output(0).set_names(['o1'])",
    "m.output(0).tensor.add_names({'o1': 1})",
    "m.input(None)",
    "(m.input(0) <= m.output(0), m.input(0) >= m.output(0), m.input(0) <= m.input(0))",
    "m.input(0) < sum.input(0)",
    "setattr(a, 'friendly_name', 'renamed')",
    "m.set_friendly_name('renamed')",
    "m.replace_parameter(0, ov.opset8.parameter([2, 2]))",
    "m.add_parameters([ov.opset8.parameter([1], name='extra')])",
    "m.remove_parameter(m.parameters[0])",
    "m.remove_result(m.results[0])",
    "a.set_partial_shape(ov.PartialShape([9, 9]))",
    "(a.set_partial_shape(ov.PartialShape([2, 9])), m.validate_nodes_and_infer_types())",
    "sum.input(0).replace_source_output(a.output(0))",
    "sum.set_arguments([b, a])",
    "m.set_rt_info('v', ['p', 'q'])",
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_as_openvino(change: str) -> None:
    after = "(m, sum, relu, a, sum.input_values(), m.has_rt_info(['p', 'q']))"
    told = []
    for ov in BOTH:
        names = vars(two_inputs(ov))
        told.append([outcome(change, names), outcome(after, names)])
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "call",
    ["m.validate_nodes_and_infer_types()", "m.clone()", "ov.save_model(m, path)", "ov.compile_model(m)"],
)
def test_a_parameter_that_is_removed_and_needed(call: str, tmp_path: Path) -> None:
    """optimum-intel relies on it: it takes the inputs of the encoder's cache out of a decoder."""
    for ov in BOTH:
        m = two_inputs(ov).m
        m.remove_parameter(m.parameters[0])
        with pytest.raises(RuntimeError, match="Model references undeclared parameters: "):
            eval(call, {"m": m, "ov": ov, "path": tmp_path / "m.xml"})


def test_reshape_that_fails_changes_nothing() -> None:
    g = two_inputs(ovjit)
    before = repr(g.m)
    with pytest.raises(RuntimeError, match="sum"):
        g.m.reshape({0: [3, 4], 1: [5, 6]})
    assert repr(g.m) == before
    assert g.a.partial_shape == ovjit.PartialShape([2, -1])
    g.m.validate_nodes_and_infer_types()
    assert repr(g.m) == before


def test_validation_that_fails_changes_nothing() -> None:
    """OpenVINO leaves the nodes before the failing one changed."""
    g = two_inputs(ovjit)
    before = repr(g.m)
    g.a.set_partial_shape(ovjit.PartialShape([9, 9]))
    with pytest.raises(RuntimeError, match="'sum'"):
        g.m.validate_nodes_and_infer_types()
    assert repr(g.m) == before
    g.a.set_partial_shape(ovjit.PartialShape([2, 9]))
    g.m.validate_nodes_and_infer_types()
    assert g.m.output(0).shape == [2, 9]
    g.b.set_element_type(ovjit.Type.f16)
    with pytest.raises(RuntimeError, match="element type"):
        g.m.validate_nodes_and_infer_types()


def test_names_of_ports_and_models() -> None:
    for ov in BOTH:
        g = two_inputs(ov)
        old = g.m.output(0).any_name
        g.m.output(0).add_names({"o2"})
        assert g.m.output("o2") == g.m.output(old)
        assert g.m.output(0).names == {old, "o2"}
        g.m.friendly_name = "renamed"
        assert g.m.friendly_name == "renamed"


def test_released_model_is_closed() -> None:
    with two_inputs(ovjit).m as model:
        assert len(model.inputs) == 2
    with pytest.raises(AttributeError, match="no longer accessible"):
        model.inputs  # noqa: B018


def test_graph_capture_keeps_names_order_and_values() -> None:
    g = two_inputs(ovjit)
    unused = ovjit.opset8.parameter([1], name="unused")
    model = ovjit.Model([g.sum, g.relu], [g.b, unused, g.a])
    graph = model._graph()
    verify(graph)
    assert [v.node.name for v in graph.inputs] == [g.b.friendly_name, "unused", "a"]
    assert [v.node.name for v in graph.outputs] == ["sum", g.relu.friendly_name]
    assert graph.inputs[2].shape == (2, Interval(0, None))
    x = np.array([[1, -2, 3], [4, -5, 6]], np.float32)
    total, relu = evaluate(graph, [x, np.zeros(1, np.float32), -x])
    np.testing.assert_array_equal(relu, np.maximum(-x, 0))
    np.testing.assert_array_equal(total, np.maximum(-x, 0) + x)


def test_capture_infers_anew_after_an_edit() -> None:
    g = two_inputs(ovjit)
    g.a.set_partial_shape(ovjit.PartialShape([2, 7]))
    g.b.set_partial_shape(ovjit.PartialShape([2, 1]))
    assert g.m._graph().outputs[0].shape == (2, 7)
    g.b.set_partial_shape(ovjit.PartialShape([3, 7]))
    with pytest.raises(RuntimeError, match="'sum'"):
        g.m._graph()


def test_evaluate_as_openvino() -> None:
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    answers = []
    for ov in BOTH:
        g = two_inputs(ov)
        out = [ov.Tensor(ov.Type.f32, ov.Shape([2, 5])), ov.Tensor(ov.Type.f32, ov.Shape([2, 5]))]
        assert g.m.evaluate(out, [ov.Tensor(x), ov.Tensor(x + 1)]) is True
        answers.append([t.data.copy() for t in out])
    np.testing.assert_array_equal(answers[0], answers[1])
    with pytest.raises(RuntimeError, match="is not equal to number of parameters .2."):
        two_inputs(ovjit).m.evaluate([], [])


def test_evaluate_a_loop_of_several_types() -> None:
    """state = state * (bf16 of weights), twice: inputs of a body keep their types."""
    o = ovjit.opset13
    x = o.parameter([2], ovjit.Type.bf16)
    state, weights = o.parameter([2], ovjit.Type.bf16), o.parameter([2], np.float32)
    product = o.multiply(state, o.convert(weights, "bf16"))
    body = ovjit.Model([product, o.constant(np.array(True))], [state, weights], "body")
    loop = o.loop(o.constant(np.int64(2)), o.constant(np.array(True)))
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(state, x.output(0), product.output(0))
    loop.set_invariant_input(weights, o.constant(np.float32([3, 5])).output(0))
    loop.get_iter_value(product.output(0), -1)
    loop.validate_and_infer_types()
    out = [ovjit.Tensor(ovjit.Type.bf16, ovjit.Shape([2]))]
    values = np.array([1, 2], ml_dtypes.bfloat16)
    assert ovjit.Model([loop], [x]).evaluate(out, [ovjit.Tensor(values)])
    np.testing.assert_array_equal(out[0].data.view(values.dtype), np.array([9, 50], values.dtype))


def test_clone_is_independent_and_complete() -> None:
    g = two_inputs(ovjit)
    g.m.set_rt_info({"k": 1}, ["p", "q"])
    g.sum.set_rt_info("note", "key")
    twin = copy.deepcopy(g.m)
    g.m.reshape({0: [2, 2], 1: [2, 2]})
    g.m.set_rt_info(2, ["p", "r"])
    g.m.input(0).set_names({"other"})
    assert twin.input("a").partial_shape == ovjit.PartialShape([2, -1])
    assert not twin.has_rt_info(["p", "r"])
    twin_sum = twin.results[0].input_value(0).get_node()
    assert twin_sum is not g.sum
    assert twin_sum.rt_info["key"].value == "note"
    assert twin_sum.friendly_name == "sum"


def test_names_are_given_once() -> None:
    """Fact 14: friendly names become tensor names when the Model is made, and not later."""
    g = two_inputs(ovjit)
    g.a.friendly_name = "later"
    assert g.m.input(0).names == {"a"}
    named = ovjit.opset8.relu(g.a)
    named.output(0).set_names({"n"})
    assert ovjit.Model(named, [g.a]).output(0).names == {"n"}
    with pytest.raises(RuntimeError, match="without names"):
        ovjit.opset8.relu(g.a).output(0).any_name  # noqa: B018


def test_consumers_do_not_keep_nodes_alive() -> None:
    a = ovjit.opset8.parameter([1])
    b = ovjit.opset8.relu(a)
    assert [i.get_node() for i in a.output(0).target_inputs] == [b]
    del b
    gc.collect()
    assert a.output(0).target_inputs == set()


def test_output_replace_moves_consumers_and_names() -> None:
    g = two_inputs(ovjit)
    g.relu.output(0).replace(g.b.output(0))
    assert g.sum.input_value(0).get_node() is g.b
    moved = g.m.results[1].output(0).names  # the result's own, which what it takes has as well
    assert len(moved) == 1 and moved < g.b.output(0).names
    assert g.relu.output(0).target_inputs == set()


def test_results_have_names_of_their_own(tmp_path: Path) -> None:
    def run(ov: Any) -> list[Any]:
        o, said = ov.opset13, []
        a = o.parameter([2], np.float32, name="a")
        a.output(0).tensor.set_names({"a"})
        relu = o.relu(a)
        first, second, through = o.result(relu), o.result(relu), o.result(a)
        ports = [n.output(0) for n in (a, relu, first, second, through)]

        def look() -> None:
            said.append([sorted(p.names) for p in ports])

        look()
        first.output(0).tensor.set_names({"first"})
        look()
        relu.output(0).tensor.set_names({"relu"})  # what results have given it stays
        look()
        first.output(0).tensor.add_names({"one"})
        second.output(0).tensor.set_names({"second"})
        through.output(0).tensor.set_names({"through"})
        look()
        a.output(0).tensor.set_names({"other"})
        first.output(0).tensor.add_names({"again"})
        look()
        second.input(0).replace_source_output(a.output(0))
        look()
        model = ov.Model([first, through], [a], "named")
        said.append([model.output(n).node is r for n, r in (("again", first), ("through", through))])
        said.append(model.output("relu").node.input_value(0).node is relu)
        said.append([p.index for p in model.add_outputs("relu")])
        path = tmp_path / f"{ov.__name__}.xml"
        ov.serialize(model, path)
        for made in (ov.Core().read_model(path), model.clone()):
            said.append([sorted(p.names) for p in made.outputs])
        final = ov.Model([o.result(relu)], [a], "one")
        final.output(0).tensor.set_names({"final"})
        compiled = ov.compile_model(final, "CPU")
        said.append([sorted(p.names) for p in compiled.outputs])
        builder = ov.preprocess.PrePostProcessor(final)
        builder.output().tensor().set_element_type(ov.Type.f16)
        converted = builder.build().get_results()[0]
        source = converted.input_value(0)
        said += [sorted(p.names) for p in (converted.output(0), source)]
        return said

    assert run(ovjit) == run(openvino)


@pytest.mark.thread_unsafe(reason="eight chains at once take minutes, as edits wait for one another")
def test_long_chains_do_not_recurse() -> None:
    a = node = ovjit.opset8.parameter([1], name="a")
    for _ in range(20_000):
        node = ovjit.opset8.relu(node)
    model = ovjit.Model(node, [a])
    del node
    assert len(model.get_ordered_ops()) == 20_002
    model.reshape([2])
    assert model.output(0).shape == [2]
    assert len(model.clone()._graph().nodes) == 20_001
    del model, a


def test_cycle_is_refused() -> None:
    a = ovjit.opset8.parameter([1])
    first = ovjit.opset8.relu(a)
    second = ovjit.opset8.relu(first)
    model = ovjit.Model(second, [a])
    first.set_argument(0, second.output(0))
    with pytest.raises(ModelError, match="cycle"):
        model.get_ordered_ops()


def test_capture_beside_reshape_is_consistent() -> None:
    """Two threads on one Model: each capture sees one of the shapes throughout."""
    g = two_inputs(ovjit)
    seen: set[tuple[int, ...]] = set()
    failures: list[BaseException] = []
    stop = threading.Event()

    def capture() -> None:
        try:
            while not stop.is_set():
                graph = g.m._graph()
                shapes = {v.shape for n in graph.nodes for v in n.outputs}
                assert len(shapes) == 1, shapes
                seen.update(shapes)
        except BaseException as error:
            failures.append(error)

    g.m.reshape({0: [2, 1], 1: [2, 1]})
    thread = threading.Thread(target=capture)
    thread.start()
    for n in range(30):
        g.m.reshape({0: [2, n], 1: [2, n]})
    stop.set()
    thread.join()
    assert not failures
    assert seen


CONSTANTS: list[tuple[Any, Any]] = [
    (2.5, None), (5, None), (True, None), ([1, 2, 3], None), ([[1.0, 2]], None), (np.float32(3), None),
    ([1, 2], np.float32), ([1, 2], "f16"), ([1.5, -2], "bf16"), ([-1, 2, 3], "i4"), ([1, 2, 3], "u4"),
    ([1, 0, 1], "u1"), ([1, 0, 3, 2, 1], "u2"), ([300], "u8"), (np.arange(6).reshape(2, 3)[:, ::-1], None),
    ([1.0, 0.5], "f8e4m3"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "dtype"), CONSTANTS, ids=str)
def test_constants_hold_the_same_bytes(value: Any, dtype: Any) -> None:
    made = []
    for ov in BOTH:
        kind = getattr(ov.Type, dtype) if isinstance(dtype, str) else dtype
        made.append(ov.opset13.constant(value, kind) if kind is not None else ov.opset13.constant(value))
    ours, theirs = made
    assert ours.get_element_type().to_string() == theirs.get_element_type().to_string()
    assert list(ours.shape) == list(theirs.shape)
    assert ours.data.dtype == theirs.data.dtype
    assert ours.data.tobytes() == theirs.data.tobytes()
    assert not ours.data.flags.writeable
    assert ours.get_value_strings() == theirs.get_value_strings()
    assert ours.get_byte_size() == theirs.get_byte_size()


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i8", "i64", "u16", "boolean"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 1)])
def test_constants_are_arrays_to_numpy(dtype: str, shape: tuple[int, ...]) -> None:
    made = []
    for ov in BOTH:
        kind = getattr(ov.Type, dtype)
        node = ov.op.Constant(ov.Tensor(np.full(shape, 3, kind.to_dtype())))
        assert node  # a node has a truth value, not a length
        assert not hasattr(node, "__len__")
        made.append([np.array(node), np.asarray(node, np.float64), np.array_equal(node, node)])
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_foreign_byte_order_keeps_the_values() -> None:
    """OpenVINO copies the stored bytes."""
    assert ovjit.opset13.constant(np.arange(3, dtype=">i4")).data.tolist() == [0, 1, 2]


def test_packed_constants_unpack_to_their_values() -> None:
    rng = np.random.default_rng(2)
    for dtype, low, high in (("i4", -8, 8), ("u4", 0, 16), ("u2", 0, 4)):
        for n in range(18):
            values = rng.integers(low, high, n)
            packed = ovjit.opset13.constant(values, getattr(ovjit.Type, dtype))
            again = Constant(ovjit.Tensor(np.array(packed.data), [n], getattr(ovjit.Type, dtype)))
            assert again.value.astype(int).tolist() == values.tolist(), (dtype, n)


def test_shared_constant_follows_its_array() -> None:
    array = np.ones(3, np.float32)
    shared = ovjit.opset13.constant(array, shared_memory=True)
    own = ovjit.opset13.constant(array)
    array[0] = 7
    assert shared.data[0] == 7
    assert own.data[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        shared.data[0] = 1


def test_constant_constructors() -> None:
    for ov in BOTH:
        assert ov.op.Constant(ov.Type.f32, ov.Shape([2, 2]), [1.0]).data.tolist() == [[1, 1], [1, 1]]
        assert ov.op.Constant(np.arange(3.0)).data.tolist() == [0, 1, 2]
        assert ov.op.Constant(ov.Tensor(np.arange(3.0))).data.tolist() == [0, 1, 2]
        with pytest.raises(TypeError):
            ov.op.Constant()
        with pytest.raises(RuntimeError):
            ov.op.Constant(ov.Type.f32, ov.Shape([3]), [1.0, 2.0])


def test_sizes_that_are_known_in_part() -> None:
    def run(ov: Any) -> list[str]:
        o, d = ov.opset13, ov.Dimension
        x = o.parameter(ov.PartialShape([d(), d(2, 5), d(0, 3), 7]), np.float32)
        sizes, token = o.shape_of(x), o.constant(np.ones([1, 1, 768], np.float32))

        def const(*numbers: int) -> Any:
            return o.constant(np.array(numbers, np.int64))

        def size(*places: int) -> Any:
            return o.gather(sizes, const(*places), o.constant(np.int64(0)))

        def hot(place: int, axis: int) -> Any:
            depth = o.squeeze(size(place), const(0))
            return o.one_hot(const(0, 1), depth, np.float32(1), np.float32(0), axis)

        made = [
            o.tile(token, o.concat([size(0), const(1, 1)], 0)),
            o.tile(token, o.concat([size(1), const(2), size(2)], 0)),
            o.tile(token, o.concat([const(0), size(0, 0)], 0)),
            o.tile(token, size(3, 1, 2, 0)),
            o.tile(x, size(1)),
            o.tile(x, sizes),
            *(hot(place, axis) for place in range(4) for axis in (0, -1)),
        ]
        return [str(node.output(0).partial_shape) for node in made]

    assert run(ovjit) == run(openvino)


STRINGS = {
    "text": np.array(["日本", "é", ""]),
    "bytes": np.array([b"a", b"bc"]),
    "no UTF-8": np.array([b"\xff\xfe", b"a"]),
    "rows": np.array([["x", "y"], ["zz", "w"]]),
}


@pytest.mark.parametrize("name", STRINGS)
def test_constants_of_strings_are_results(name: str, tmp_path: Path) -> None:
    """Directly, behind a Gather, from a blob and from a file."""
    texts = STRINGS[name]
    constant = ovjit.op.Constant(ovjit.Tensor(texts))
    want = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts.ravel().tolist()]
    o, index = ovjit.opset13, ovjit.opset13.parameter([1], np.int64)
    model = ovjit.Model([o.result(constant)], [], "strings")
    compiled = ovjit.compile_model(model, "CPU")
    found = [compiled({})[0], ovjit.Core().import_model(compiled.export_model(), "CPU")({})[0]]
    if name != "no UTF-8":
        ovjit.serialize(model, tmp_path / "s.xml", tmp_path / "s.bin")
        found.append(ovjit.compile_model(tmp_path / "s.xml", "CPU")({})[0])
    for array in found:
        assert array.shape == texts.shape and array.ravel().tolist() == want
    gathered = ovjit.Model([o.gather(constant, index, np.int64(0))], [index])
    first = ovjit.compile_model(gathered, "CPU")([np.array([0])])[0]
    assert first.ravel().tolist() == want[: first.size]


def static_model() -> tuple[ovjit.Model, Any, Any]:
    """A model of static shapes, its parameter and its Concat along axis 0."""
    ops = ovjit.opset13
    x = ops.parameter([2, 3], np.float32)
    joined = ops.concat([ops.relu(x), ops.reshape(x, ops.constant(np.array([2, 3])), False)], axis=0)
    return ovjit.Model([joined], [x]), x, joined


def test_a_graph_takes_over_the_types_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    infer = Op.infer_types
    model, x, joined = static_model()
    with monkeypatch.context() as patch:
        patch.setattr(Op, "infer_types", lambda op, *given: asked.append(op.name) or infer(op, *given))
        verified = model._graph()
        assert asked == []
        joined.set_attribute("axis", 1)
        assert model._graph().outputs[0].shape == (2, 6) and asked == ["Concat"]
        x.set_partial_shape(ovjit.PartialShape([2, ovjit.Dimension(3, 4)]))
        assert model._graph().inputs[0].shape[1].hi == 4 and {"Parameter", "Relu"} < set(asked)
    verify(verified)
    assert verified.outputs[0].shape == (4, 3)


def test_a_graph_takes_over_the_types_of_what_files_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of compressed weights, too: nothing can change the bytes of a file that is mapped for reading."""
    ops = ovjit.opset13
    x = ops.parameter([2, 1200], np.float32)
    weights = ops.convert(ops.constant(np.ones((1200, 1000), np.uint8)), np.float32)
    ovjit.save_model(ovjit.Model([ops.matmul(x, weights, False, False)], [x]), tmp_path / "bytes.xml")
    models = [
        ovjit.Core().read_model(tmp_path / "bytes.xml", config={"ENABLE_MMAP": m}) for m in (True, False)
    ]
    infer, asked = Op.infer_types, list[str]()
    monkeypatch.setattr(Op, "infer_types", lambda op, *given: asked.append(op.name) or infer(op, *given))
    graphs = [model._graph() for model in models]
    assert asked == [] and all(graph.outputs[0].shape == (2, 1000) for graph in graphs)


@pytest.mark.parametrize("kind, first", [("u4", 15), ("i4", -1), ("nf4", 1.0)])
def test_a_constant_of_many_packed_elements_shares_its_tensor_s_memory(kind: str, first: float) -> None:
    data = np.zeros(1 << 14, np.uint8)
    shared, copied = (
        ovjit.op.Constant(ovjit.Tensor(data, ovjit.Shape([128, 256]), getattr(ovjit.Type, kind)), shared)
        for shared in (True, False)
    )
    data[0] = 0xFF
    assert shared.get_data()[:2].view(np.uint8).tolist() == [0xFF, 0]
    assert not copied.get_data().any()
    model = ovjit.Model([ovjit.opset13.convert(shared, "f32")], [], "m")
    values = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])[0]
    assert values.shape == (128, 256)
    assert values[0, :2].tolist() == [first, first]


def test_a_graph_sees_what_shared_memory_has_become() -> None:
    ops = ovjit.opset13
    x, shape = ops.parameter([6], np.float32), np.array([2, 3])
    model = ovjit.Model([ops.reshape(x, ops.constant(shape, shared_memory=True), False)], [x])
    assert model._graph().outputs[0].shape == (2, 3)
    shape[:] = [3, 2]
    assert model._graph().outputs[0].shape == (3, 2)


def test_users_that_are_gone_are_forgotten() -> None:
    x = ovjit.opset13.parameter([2], np.float32)
    kept = [ovjit.opset13.relu(x) for _ in range(20)]
    for _ in range(1000):
        ovjit.opset13.relu(x)
    assert {i.get_node().get_name() for i in x.output(0).get_target_inputs()} == {n.get_name() for n in kept}
    assert len(x._user_refs) < 100


_ADDED = {
    "a node": "m = ov.Model(n, [a])",
    "nodes": "m = ov.Model([n, n], [a])",
    "an output": "m = ov.Model([n.output(0)], [a])",
    "a parameter": "a.output(0).set_names({'x'}); m = ov.Model([a], [a]); n = a",
    "a constant": "n = o.constant(np.ones(2, 'f4')); n.output(0).set_names({'x'}); m = ov.Model([n], [])",
    "a result": "m = ov.Model([o.result(n)], [a])",
    "both": "m = ov.Model([n], [a]); m.add_results([o.result(n)])",
    "added": "m = ov.Model([o.abs(n)], [a]); m.add_outputs(n.output(0))",
    "added by name": "m = ov.Model([o.abs(n)], [a]); m.add_outputs('x')",
    "two models": "m, m2 = (ov.Model([n], [a]) for _ in 'ab'); m2.output(0).set_names({'other'})",
}
_RENAMED = {
    "set": "n.output(0).set_names({'s'})",
    "added": "n.output(0).add_names({'s'})",
    "none": "n.output(0).set_names(set())",
    "of the model": "m.outputs[-1].set_names({'s'})",
    "both": "m.outputs[-1].set_names({'o'}); n.output(0).set_names({'s'})",
    "in turn": "n.output(0).set_names({'s'}); m.outputs[-1].set_names({'o'})",
    "cloned": "n.output(0).set_names({'s'}); m = m.clone()",
}


@pytest.mark.parametrize("renamed", _RENAMED)
@pytest.mark.parametrize("added", _ADDED)
def test_a_result_that_a_model_makes_keeps_the_names_that_its_value_had(added: str, renamed: str) -> None:
    def run(ov: Any) -> Any:
        o = ov.opset13
        a = o.parameter([2], np.float32, name="a")
        n = o.relu(a)
        n.output(0).set_names({"x"})
        names = {"ov": ov, "o": o, "np": np, "a": a, "n": n}
        exec(f"{_ADDED[added]}; {_RENAMED[renamed]}", names)
        ports = [*names["m"].outputs, *names["m"].inputs, names["n"].output(0)]
        return [sorted(name for name in port.names if not name.startswith("Result_")) for port in ports]

    assert run(ovjit) == run(openvino)


@pytest.mark.parametrize(
    "edit",
    [
        "m.add_parameters([a])",
        "m.add_parameters([o.parameter([1]), b])",
        "p = o.parameter([1]); m.add_parameters([p, p])",
        "m.add_parameters([])",
        "m.add_parameters([o.parameter([1])])",
        "m.reshape({'zz': (2.0, 3)})",
        "m.reshape({'zz': None, 'a': [2, 3]})",
        "m.reshape({'zz': 'bad'})",
        "m.reshape({'zz': [2, 3], 'a': None})",
        "m.reshape({9: [2, 3]})",
        "m.reshape({9: None})",
        "m.reshape({None: [2.0]})",
        "m.reshape({n.output(0): [2.0]})",
        "m.reshape({-1: [2.0]})",
        "m.reshape([2.0])",
        "m.reshape({'a': [9]}, {'v': 3})",
        "m.reshape({'a': [9]}, {'v': [2.0]})",
        "m.reshape({'a': [4, 3], 'b': [4, 3]}, {'v': [2]})",
    ],
)
def test_edits_that_are_refused_are_those_of_openvino(edit: str) -> None:
    def run(ov: Any) -> Any:
        o = ov.opset13
        a, b = (o.parameter([2, 3], np.float32, name=name) for name in "ab")
        n = o.add(a, b)
        m = ov.Model([n], [a, b], "m")
        try:
            exec(edit, {"m": m, "o": o, "a": a, "b": b, "n": n})
        except Exception as error:
            return next(k for k in type(error).__mro__ if k.__module__ == "builtins"), len(m.inputs)
        return [str(port.partial_shape) for port in m.inputs]

    assert run(ovjit) == run(openvino)


@pytest.mark.parametrize("kind", [">f4", ">i8", ">u2", ">f2"])
def test_constants_of_arrays_of_the_other_byte_order_have_their_numbers(kind: str) -> None:
    array = np.array([1, 2, 300], kind)
    for constant in (ovjit.op.Constant(array), ovjit.opset13.constant(array)):
        np.testing.assert_array_equal(constant.data, [1, 2, 300])
        compiled = ovjit.compile_model(ovjit.Model([ovjit.opset13.result(constant)], []), "CPU")
        np.testing.assert_array_equal(compiled([])[0], [1, 2, 300])
    for share in (ovjit.op.Constant, ovjit.opset13.constant):
        with pytest.raises(RuntimeError, match="The byte order of .* is foreign"):
            share(array, shared_memory=True)
