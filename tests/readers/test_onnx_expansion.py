"""Small files that stand for very many nodes: refused before they expand, and by the function's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import ovjit as ov
from ovjit.readers.onnx import reader
from tests.support.onnx.files import FLOAT, make, node


def info(name: str, kind: int = FLOAT, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def function(name: str, nodes: Sequence[Any]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, ["a"], ["c"], nodes, imports)


def model(functions: Sequence[onnx.FunctionProto]) -> onnx.ModelProto:
    proto = make([node(functions[0].name, "x", "y", "call", domain="my")], [("x", [2, 3])], ["y"])
    proto.opset_import.append(helper.make_opsetid("my", 1))
    proto.functions.extend(functions)
    return proto


def doubling(levels: int, last: Sequence[Any]) -> list[onnx.FunctionProto]:
    calls = [
        [node(f"F{i + 1}", *ends, domain="my") for ends in (("a", "b"), ("b", "c"))] for i in range(levels)
    ]
    return [*(function(f"F{i}", nodes) for i, nodes in enumerate(calls)), function(f"F{levels}", last)]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The types of the nodes that are read."""
    seen: list[str] = []
    one = reader.Reader._read_node

    def read_node(self, proto, scope):
        seen.append(proto.op_type)
        return one(self, proto, scope)

    monkeypatch.setattr(reader.Reader, "_read_node", read_node)
    return seen


def refused(proto: onnx.ModelProto) -> str:
    with pytest.raises(RuntimeError) as caught:
        ov.Core().read_model(proto)
    return str(caught.value)


# -- functions -----------------------------------------------------------------------------------------------


def test_doubling_functions_are_refused_unread(read) -> None:
    proto = model(doubling(30, [node("Relu", "a", "c")]))
    assert len(proto.SerializeToString()) < 2100
    # F30 is one node, F29 two calls and two of these: the first beyond the limit is F13, 3 * 2**17 - 2
    assert "the function 'F13' has more than 300000 nodes after inlining: 393214" in refused(proto)
    assert read == []


def test_the_graph_s_own_calls_are_counted(read) -> None:
    proto = model(doubling(16, [node("Relu", "a", "c")]))  # 3 * 2**16 - 2 nodes
    del proto.graph.node[:]
    proto.graph.node.extend([node("F0", "x", "t", domain="my"), node("F0", "t", "y", domain="my")])
    said = refused(proto)
    assert "the model has more than 300000 nodes after inlining its functions: 393214" in said
    assert "'F0'" in said
    assert read == []


def test_calls_in_bodies_are_counted(read) -> None:
    functions = []
    for i in range(30):
        branches = [
            helper.make_graph([node(f"F{i + 1}", "a", "o", domain="my")], f"g{i}{k}", [], [info("o")])
            for k in "ab"
        ]
        test = [node("ReduceSum", "a", "s", keepdims=0), node("Cast", "s", "b", to=9)]
        choice = node("If", "b", "c", then_branch=branches[0], else_branch=branches[1])
        functions.append(function(f"F{i}", [*test, choice]))
    functions.append(function("F30", [node("Relu", "a", "c")]))
    assert "the function 'F14' has more than" in refused(model(functions)) and read == []


def test_functions_that_nobody_calls_do_not_count() -> None:
    functions = doubling(30, [node("Relu", "a", "c")])
    proto = model([function("Used", [node("Relu", "a", "c")]), *functions])
    assert len(ov.Core().read_model(proto).get_ops()) == 3
    ring = [function(f"R{i}", [node(f"R{1 - i}", "a", "c", domain="my")]) for i in range(2)]
    assert (
        len(ov.Core().read_model(model([function("Used", [node("Relu", "a", "c")]), *ring])).get_ops()) == 3
    )


def test_rings_are_found_in_bodies_too(read) -> None:
    body = helper.make_graph([node("Other", "a", "o", domain="my")], "g", [], [info("o")])
    test = [node("ReduceSum", "a", "s", keepdims=0), node("Cast", "s", "b", to=9)]
    ring = function("Ring", [*test, node("If", "b", "c", then_branch=body, else_branch=body)])
    other = function("Other", [node("Ring", "a", "c", domain="my")])
    assert (
        "the functions call each other: Ring -> Other -> Ring" in refused(model([ring, other])) and read == []
    )


def test_a_chain_longer_than_the_stack() -> None:
    """Functions are counted without recursion; calls nest 1000 deep at most."""
    functions = [function(f"F{i}", [node(f"F{i + 1}", "a", "c", domain="my")]) for i in range(20_000)]
    functions.append(function("F20000", [node("Relu", "a", "c")]))
    assert "call each other" in refused(model(functions))


def test_what_is_below_the_limit_is_inlined() -> None:
    proto = model(doubling(6, [node("Neg", "a", "c")]))
    compiled = ov.compile_model(ov.Core().read_model(proto), "CPU")
    x = np.array([[-4, 0, 2], [1, -1, 8]], np.float32)
    np.testing.assert_array_equal(compiled(x)[0], x)  # an even number of signs


def test_graphs_as_attributes_of_functions() -> None:
    """A function reads a graph that it is given twice, and the graph calls it with another one."""
    choice = node("If", "b", "c")
    for name in ("then_branch", "else_branch"):
        choice.attribute.add(name=name, ref_attr_name="g", type=onnx.AttributeProto.GRAPH)
    test = [node("ReduceSum", "a", "s", keepdims=0), node("Cast", "s", "b", to=9)]
    given = function("G", [*test, choice])
    given.attribute.append("g")
    graph = helper.make_graph([node("Relu", "a", "o")], "leaf", [], [info("o")])
    for depth in range(25):
        graph = helper.make_graph([node("G", "a", "o", domain="my", g=graph)], f"g{depth}", [], [info("o")])
    proto = model([given])
    proto.graph.node[0].attribute.append(helper.make_attribute("g", graph))
    assert len(proto.SerializeToString()) < 3000
    refused(proto)


# -- loops over sequences ------------------------------------------------------------------------------------


def nested_loops(depth: int, trips: int) -> onnx.ModelProto:
    """Loops within loops, the innermost of which adds a tensor to a sequence."""
    nodes, out = [node("SequenceInsert", "v1 x", "r0")], "r0"
    for d in range(1, depth + 1):
        before = f"v{d + 1}" if d < depth else "s"
        ends = [
            info(f"co{d}", TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info(out, FLOAT, None),
        ]
        begins = [info(f"i{d}", TensorProto.INT64, []), info(f"c{d}", TensorProto.BOOL, []),
                  helper.make_tensor_sequence_value_info(f"v{d}", FLOAT, None)]  # fmt: skip
        body = helper.make_graph([node("Identity", f"c{d}", f"co{d}"), *nodes], f"b{d}", begins, ends)
        nodes, out = [node("Loop", f"n t {before}", f"r{d}", body=body)], f"r{d}"
    all_nodes = [node("SequenceEmpty", "", "s"), *nodes, node("ConcatFromSequence", out, "y", axis=0)]
    given = {"n": np.array(trips), "t": np.array(True)}
    return make(all_nodes, [("x", [2])], ["y"], given)


@pytest.mark.parametrize("depth", [2, 3, 20])
def test_nested_loops_over_sequences_are_refused_in_the_first_iteration(depth: int, read) -> None:
    said = refused(nested_loops(depth, 1000))
    assert "of a loop over sequences has more than 300000 nodes after unrolling" in said and len(read) < 200


def test_loops_over_sequences_are_unrolled() -> None:
    compiled = ov.compile_model(ov.Core().read_model(nested_loops(2, 7)), "CPU")
    x = np.array([3, 4], np.float32)
    np.testing.assert_array_equal(compiled(x)[0], np.tile(x, 49))


def test_maps_within_maps_are_refused(read) -> None:
    inner = helper.make_graph([node("Relu", "e", "er")], "inner", [info("e")], [info("er")])
    nodes = [node("SplitToSequence", "g", "p", axis=0), node("SequenceMap", "p", "pz", body=inner),
             node("ConcatFromSequence", "pz", "o", axis=0), node("Identity", "h", "oo")]  # fmt: skip
    outer = helper.make_graph(nodes, "outer", [info("h"), info("g")], [info("oo")])
    around = [node("SplitToSequence", "x", "q", axis=0), node("SequenceMap", "q x", "z", body=outer)]
    joined = node("ConcatFromSequence", "z", "y", axis=0)
    proto = make([*around, joined], [("x", [2000])], ["y"], opset=18)
    assert re.search("the body 'inner' of a loop over sequences .* after unrolling", refused(proto))
    assert len(read) < 20


def test_long_sequences_that_are_stacked_again_and_again() -> None:
    """A position that is not known joins all tensors of a sequence; each time anew."""
    count = 30
    picks = [node("SequenceAt", "q k", f"a{i}") for i in range(count)]
    total = node("Sum", " ".join(f"a{i}" for i in range(count)), "y")
    proto = make([node("SplitToSequence", "x", "q", axis=0), *picks, total], [("x", [4096, 2])], ["y"])
    proto.graph.input.append(info("k", TensorProto.INT64, []))
    assert "nodes would be created from the" in refused(proto)


def test_bodies_that_are_read_again_and_again(read) -> None:
    """What goes round changes its shape, in every loop of a nest."""
    nodes, out, depth = [node("Concat", "v1 v1", "r0", axis=0)], "r0", 12
    for d in range(1, depth + 1):
        begins = [info(f"i{d}", TensorProto.INT64, []), info(f"c{d}", TensorProto.BOOL, []), info(f"v{d}")]
        ends = [info(f"co{d}", TensorProto.BOOL, []), info(out)]
        body = helper.make_graph([node("Identity", f"c{d}", f"co{d}"), *nodes], f"b{d}", begins, ends)
        before = f"v{d + 1}" if d < depth else "x"
        nodes, out = [node("Loop", f"n t {before}", f"r{d}", body=body)], f"r{d}"
    proto = make(
        [*nodes, node("Identity", out, "y")], [("x", [2])], ["y"], {"n": np.array(3), "t": np.array(True)}
    )
    assert ov.Core().read_model(proto).get_results()
    assert len(read) < 64 * 40  # nearly in proportion to the depth
