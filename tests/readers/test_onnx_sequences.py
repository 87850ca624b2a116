"""Sequences and optionals that branches and loops return, and that models take and return: beside ONNX
Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node, graph, info = helper.make_node, helper.make_graph, helper.make_tensor_value_info
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def sequence(name: str) -> Any:
    return helper.make_tensor_sequence_value_info(name, F32, None)


def optional(name: str, of_sequence: bool = False) -> Any:
    kind = helper.make_tensor_type_proto(F32, None)
    kind = helper.make_sequence_type_proto(kind) if of_sequence else kind
    return helper.make_value_info(name, helper.make_optional_type_proto(kind))


def constant(name: str, value: Any) -> Any:
    return node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


def model(
    nodes: Sequence[Any], outputs: Sequence[Any], inputs: Sequence[Any] = (), is_open: bool = False
) -> bytes:
    x = info("x", F32, ["rows", 3] if is_open else [2, 3])
    made = helper.make_model(
        graph(list(nodes), "g", [x, *inputs], list(outputs)),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    return made.SerializeToString()


def branch(name: str, nodes: Sequence[Any], kind: Any = sequence) -> Any:
    return graph(list(nodes), name, [], [kind(name)])


def check(proto: bytes, given: dict[str, Any]) -> None:
    """Natively and by the references; sequences that are outputs have one output for each tensor."""
    lists = [value if isinstance(value, list) else [value] for value in by_onnxruntime(proto, given)]
    theirs = [value for each in lists for value in each]
    for native in (False, True):
        ours = by_ovjit(proto, given, native)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def pair(name: str, *items: str) -> list[Any]:
    return [node("Neg", ["x"], [f"{name} n"]), node("SequenceConstruct", [*items, f"{name} n"], [name])]


#: The two branches of an If that return sequences.
BRANCHES = {
    "of two and two": (pair("a", "x"), pair("b", "x")),
    "of two and one": (pair("a", "x"), pair("b")),
    "of none and two": ([node("SequenceEmpty", [], ["a"], dtype=F32)], pair("b", "x")),
    "from around": ([node("Identity", ["s"], ["a"])], [node("SequenceInsert", ["s", "x"], ["b"])]),
    "erased": ([node("SequenceErase", ["s"], ["a"])], [node("Identity", ["s"], ["b"])]),
}


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("which", BRANCHES)
def test_branches_return_sequences(which: str, is_open: bool) -> None:
    then, other = BRANCHES[which]
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]),
        node("If", ["c"], ["r"], then_branch=branch("a", then), else_branch=branch("b", other)),
        node("SequenceInsert", ["r", "x"], ["longer"]),
        node("ConcatFromSequence", ["longer"], ["y"], axis=0),
        node("SequenceLength", ["r"], ["count"]),
    ]
    proto = model(nodes, [info("y", F32, None), info("count", I64, None)], [info("c", BOOL, [])], is_open)
    for condition in (True, False):
        check(proto, {"x": X, "c": np.array(condition)})


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("of_sequence", [False, True])
def test_branches_return_optionals(of_sequence: bool, is_open: bool) -> None:
    def kind(name: str) -> Any:
        return optional(name, of_sequence)

    value = pair("v", "x") if of_sequence else [node("Neg", ["x"], ["v"])]
    empty = node("Optional", [], ["b"], type=kind("b").type.optional_type.elem_type)
    use = [node("OptionalGetElement", ["o"], ["got"])]
    last = ("ConcatFromSequence", {"axis": 0}) if of_sequence else ("Abs", {})
    use.append(node(last[0], ["got"], ["p"], **last[1]))
    nodes = [
        node("If", ["c"], ["o"], then_branch=branch("a", [*value, node("Optional", ["v"], ["a"])], kind),
             else_branch=branch("b", [empty], kind)),
        node("OptionalHasElement", ["o"], ["has"]),
        node("If", ["has"], ["y"], then_branch=graph(use, "t", [], [info("p", F32, None)]),
             else_branch=graph([node("Exp", ["x"], ["q"])], "e", [], [info("q", F32, None)])),
    ]  # fmt: skip
    proto = model(nodes, [info("y", F32, None), info("has", BOOL, None)], [info("c", BOOL, [])], is_open)
    for condition in (True, False):
        given = {"x": np.zeros_like(X) if not of_sequence else X, "c": np.array(condition)}
        check(proto, given)


ZERO = constant("zero", np.int64(0))
NUMBERED = [node("Cast", ["i"], ["f"], to=F32), node("Add", ["x", "f"], ["row"])]
#: What a loop's body makes "so" of the sequence "si" with.
BODIES: dict[str, list[Any]] = {
    "at the end": [*NUMBERED, node("SequenceInsert", ["si", "row"], ["so"])],
    "at the end, and Identity": [
        *NUMBERED, node("SequenceInsert", ["si", "row"], ["s"]), node("Identity", ["s"], ["so"])
    ],
    "Identity first": [
        *NUMBERED, node("Identity", ["si"], ["s"]), node("SequenceInsert", ["s", "row"], ["so"])
    ],
    "two": [
        *NUMBERED, node("SequenceInsert", ["si", "row"], ["s"]), node("SequenceInsert", ["s", "x"], ["so"])
    ],
    "in front": [*NUMBERED, ZERO, node("SequenceInsert", ["si", "row", "zero"], ["so"])],
    "where the counter is": [*NUMBERED, node("SequenceInsert", ["si", "row", "i"], ["so"])],
    "the same": [node("Identity", ["si"], ["so"])],
    "the first one replaced": [
        ZERO, node("SequenceAt", ["si", "zero"], ["e"]), node("Neg", ["e"], ["n"]),
        node("SequenceErase", ["si", "zero"], ["s"]), node("SequenceInsert", ["s", "n"], ["so"]),
    ],
    "in a branch": [
        *NUMBERED, constant("one", np.int64(1)), node("Equal", ["i", "one"], ["is"]),
        node("If", ["is"], ["so"], then_branch=branch("a", [node("SequenceInsert", ["si", "row"], ["a"])]),
             else_branch=branch("b", [node("Identity", ["si"], ["b"])])),
    ],
}  # fmt: skip


def loop(body: Sequence[Any], starts_empty: bool, outputs: Sequence[Any], result: str = "so") -> list[Any]:
    begin = node("SequenceEmpty", [], ["s0"], dtype=F32) if starts_empty else (
        node("SequenceConstruct", ["x", "x"], ["s0"])
    )  # fmt: skip
    inner = graph(
        [node("Identity", ["go"], ["more"]), *body], "body",
        [info("i", I64, []), info("go", BOOL, []), sequence("si")],
        [info("more", BOOL, []), sequence(result)],
    )  # fmt: skip
    return [begin, node("Loop", ["m", "", "s0"], ["r"], body=inner), *outputs]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("what", BODIES)
def test_loops_of_open_length_return_sequences(what: str, is_open: bool) -> None:
    needs_some = what in ("the same", "the first one replaced", "in a branch")
    ends = [
        node("ConcatFromSequence", ["r"], ["y"], axis=0),
        node("SequenceLength", ["r"], ["count"]),
    ]
    outputs = [info("y", F32, None), info("count", I64, None)]
    for starts_empty in (False,) if needs_some else (True, False):
        nodes = loop(BODIES[what], starts_empty, ends)
        proto = model(nodes, outputs, [info("m", I64, [])], is_open)
        for times in (3, 1) if starts_empty else (2, 0):
            check(proto, {"x": X, "m": np.array(times)})


def test_a_loop_returns_its_own_sequence() -> None:
    nodes = loop([], False, [node("ConcatFromSequence", ["r"], ["y"], axis=1)], "si")
    proto = model(nodes, [info("y", F32, None)], [info("m", I64, [])])
    check(proto, {"x": X, "m": np.array(2)})


@pytest.mark.parametrize("times, go", [(0, True), (3, False), (1, True), (3, True)])
def test_a_loop_over_a_sequence_collects_rows_of_any_number(times: int, go: bool) -> None:
    """Of no iterations, too: none, of the shapes and types that the body tells."""
    body = graph(
        [
            node("Identity", ["go"], ["more"]), node("SequenceInsert", ["si", "x"], ["so"]),
            node("Add", ["x", "x"], ["row"]), node("Identity", ["i"], ["number"]),
        ], "body", [info("i", I64, []), info("go", BOOL, []), sequence("si")],
        [info("more", BOOL, []), sequence("so"), info("row", F32, [2, 3]), info("number", I64, [])],
    )  # fmt: skip
    nodes = [
        node("SequenceConstruct", ["x"], ["s0"]), constant("m", times), constant("on", go),
        node("Loop", ["m", "on", "s0"], ["r", "rows", "numbers"], body=body),
        node("SequenceLength", ["r"], ["count"]),
    ]  # fmt: skip
    outputs = [info("count", I64, None), info("rows", F32, None), info("numbers", I64, None)]
    check(model(nodes, outputs), {"x": X})


def test_positions_that_are_computed() -> None:
    nodes = [
        node("Neg", ["x"], ["n"]), node("Exp", ["x"], ["e"]),
        node("SequenceConstruct", ["x", "n", "x"], ["s"]),
        node("SequenceInsert", ["s", "e", "k"], ["s1"]), node("SequenceErase", ["s1", "k"], ["s2"]),
        node("SequenceErase", ["s2", "k"], ["s3"]), node("SequenceAt", ["s1", "k"], ["at"]),
        node("ConcatFromSequence", ["s1"], ["y1"], axis=0),
        node("ConcatFromSequence", ["s3"], ["y3"], axis=0),
    ]  # fmt: skip
    proto = model(nodes, [info(name, F32, None) for name in ("y1", "y3", "at")], [info("k", I64, [])])
    for place in (0, 1, 2, -1):
        nodes_of = {"x": np.zeros_like(X) + 1, "k": np.array(place)}
        check(proto, nodes_of)


def test_a_map_over_a_sequence_of_open_length() -> None:
    square = node("Mul", ["item", "item"], ["made"])
    body = graph([square], "b", [info("item", F32, None)], [info("made", F32, None)])
    nodes = [
        node("SplitToSequence", ["x"], ["s"], axis=0), node("SequenceMap", ["s"], ["t"], body=body),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]  # fmt: skip
    check(model(nodes, [info("y", F32, None)], is_open=True), {"x": X})


def test_sequences_as_outputs_of_models() -> None:
    """One output for each tensor, with its number in its name; of open length one, its tensors as rows."""
    nodes = [node("SequenceConstruct", ["x", "n"], ["s"]), node("Neg", ["x"], ["n"])][::-1]
    proto = model(nodes, [sequence("s"), info("n", F32, None)])
    check(proto, {"x": X})
    names = [port.get_any_name() for port in ov.Core().read_model(proto).outputs]
    assert names[0] == "s_0" and len(names) == 3
    split = model([node("SplitToSequence", ["x"], ["s"], axis=0)], [sequence("s")], is_open=True)
    read = ov.Core().read_model(split)
    assert [port.get_any_name() for port in read.outputs] == ["s"]
    np.testing.assert_array_equal(ov.compile_model(read, "CPU")([X])[0], X[:, None])
    assert len(by_onnxruntime(split, {"x": X})[0]) == 2


def test_tensors_of_other_ranks_in_a_sequence_of_open_length_are_refused() -> None:
    then, other = pair("a"), [node("ReduceSum", ["x"], ["w"], keepdims=0)]
    other.append(node("SequenceConstruct", ["w", "w"], ["b"]))
    nodes = [
        node("If", ["c"], ["r"], then_branch=branch("a", then), else_branch=branch("b", other)),
        node("SequenceInsert", ["r", "x"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]  # fmt: skip
    proto = model(nodes, [info("y", F32, None)], [info("c", BOOL, [])])
    with pytest.raises(RuntimeError, match="need tensors of one rank"):
        ov.Core().read_model(proto)


ADDED = graph(
    [node("Add", ["element", "element"], ["twice"])],
    "b",
    [info("element", F32, None)],
    [info("twice", F32, None)],
)
#: What a model makes of the sequence "s" and the place "k" that are its inputs: its nodes and outputs.
OF_INPUTS = {
    "joined": ([node("ConcatFromSequence", ["s"], ["y"], axis=1)], [info("y", F32, None)]),
    "stacked": ([node("ConcatFromSequence", ["s"], ["y"], axis=-1, new_axis=1)], [info("y", F32, None)]),
    "itself and its length": (
        [node("Identity", ["s"], ["t"]), node("SequenceLength", ["s"], ["n"])],
        [sequence("t"), info("n", I64, [])],
    ),
    "an element": ([node("SequenceAt", ["s", "k"], ["y"])], [info("y", F32, None)]),
    "the last element": ([constant("e", -1), node("SequenceAt", ["s", "e"], ["y"])], [info("y", F32, None)]),
    "longer": (
        [node("SequenceAt", ["s", "k"], ["e"]), node("SequenceInsert", ["s", "e", "k"], ["t"])],
        [sequence("t")],
    ),
    "shorter": ([node("SequenceErase", ["s", "k"], ["t"])], [sequence("t")]),
    "mapped": ([node("SequenceMap", ["s"], ["t"], body=ADDED)], [sequence("t")]),
    "in a branch": (
        [
            constant("two", 2), node("SequenceLength", ["s"], ["n"]), node("Greater", ["n", "two"], ["c"]),
            node("If", ["c"], ["t"], then_branch=branch("a", [node("SequenceErase", ["s"], ["a"])]),
                 else_branch=branch("b", [node("SequenceMap", ["s"], ["b"], body=ADDED)])),
        ],
        [sequence("t")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", [[2, 3], ["rows", 3]])
@pytest.mark.parametrize("what", list(OF_INPUTS))
def test_sequences_as_inputs_of_models(what: str, shape: list[Any]) -> None:
    """One tensor whose rows are the sequence's tensors, of open length, and of a length that is set."""
    nodes, outputs = OF_INPUTS[what]
    inputs = [helper.make_tensor_sequence_value_info("s", F32, shape), info("k", I64, [])]
    made = helper.make_model(
        graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    proto = made.SerializeToString()
    for count in (2, 3, 5):
        tensors = [X + i for i in range(count)]
        theirs = by_onnxruntime(proto, {"s": tensors, "k": np.array(1)})
        given = {"s": np.stack(tensors), "k": np.array(1)}
        ours = [by_ovjit(proto, given, native) for native in (False, True)]
        fixed = ov.Core().read_model(proto)
        fixed.reshape({"s": [count, 2, 3]})
        compiled = ov.compile_model(fixed, "CPU")
        known = {name for port in compiled.inputs for name in port.get_names()}
        ours.append([*compiled({k: v for k, v in given.items() if k in known}).to_tuple()])
        for values in ours:
            assert len(values) == len(theirs)
            for a, b in zip(values, theirs, strict=True):
                assert np.shape(a) == np.shape(b)
                np.testing.assert_array_equal(a, np.array(b))


def test_sequences_as_inputs_need_the_rank_of_their_tensors() -> None:
    node_, outputs = node("SequenceLength", ["s"], ["n"]), [info("n", I64, [])]
    proto = model([node_], outputs, [sequence("s")])
    with pytest.raises(RuntimeError, match=r"the input 's': .* needs their rank: give their type a shape"):
        ov.Core().read_model(proto)
    nested = helper.make_sequence_type_proto(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(F32, [2]))
    )
    proto = model([node_], outputs, [helper.make_value_info("s", nested)])
    with pytest.raises(RuntimeError, match="the input 's': a tensor is expected, not sequence"):
        ov.Core().read_model(proto)
