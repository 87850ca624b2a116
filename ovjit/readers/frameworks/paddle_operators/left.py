"""Operators that stay operators of Paddle's in the ONNX model: ovjit has rules for them.

In the program that the exporter gets, outputs are in place of their operands, and inputs in place of their
results. Their nodes replace these outputs and inputs in the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import onnx
import paddle  # type: ignore[import-not-found]

from .parts import parts_of

#: The domain of the operators that stay.
DOMAIN = "paddle"
#: The names of inputs that are in place of results.
_STANDING = "ovjit_result_"


class Left(NamedTuple):
    """An operator that the exporter must not see, as a node that is added later: its attributes, operands and
    the names of its results, "" for unused ones.

    Two attributes more say how many tensors each operand and each result has.
    """

    kind: str
    attributes: dict[str, Any]
    operands: list[Any]
    results: list[str]


def _has_lengths_or_is_plain(op: Any) -> bool:
    """True for recurrent layers that the exporter gets wrong: with lengths of sequences, or without gates."""
    return op.operand_source(op.num_operands() - 2).initialized() or op.attrs()["mode"].startswith("RNN")


def _has_integers(op: Any) -> bool:
    """True for quotients of integers, which the exporter computes in f32."""
    return "int" in str(op.operand_source(0).dtype)


def _has_open_filters(op: Any) -> bool:
    """True if a size of filters, offsets or the result is dynamic, which the exporter does not support."""
    return min(op.operand_source(1).shape + op.operand_source(2).shape + op.result(0).shape) < 1


def _matches_all(op: Any) -> bool:
    return True


#: Operator -> where it stays.
LEFT: dict[str, Callable[[Any], bool]] = {
    "rnn": _has_lengths_or_is_plain, "floor_divide": _has_integers, "deformable_conv": _has_open_filters,
    **dict.fromkeys("matrix_nms generate_proposals nms unique".split(), _matches_all),
    **dict.fromkeys("digamma lgamma erfinv i0 det inverse".split(), _matches_all),
}  # fmt: skip
#: Those that are refused in branches and loops; others are the exporter's there.
ONLY_LEFT = {"rnn", "matrix_nms", "generate_proposals"}


def leave_operator(op: Any, row_index: int) -> tuple[Left, list[Any]]:
    """(the `Left` of an operator, placeholders for its results: values, and lists of them)."""
    groups = [_tensors(value) for value in op.operands_source()]
    names: list[str] = []

    def stand_in_of(value: Any) -> Any:
        used = not value.use_empty()
        names.append(f"{_STANDING}{row_index}_{len(names)}" if used else "")
        return paddle.static.data(names[-1], list(value.shape), value.dtype) if used else value

    out: list[Any] = []
    counts = []
    for result in op.results():
        first = len(names)
        one = result.is_dense_tensor_type()
        out.append(stand_in_of(result) if one else [stand_in_of(part) for part in _take_apart(result)])
        counts.append(len(names) - first)
    attributes = {key: _to_attribute(value) for key, value in op.attrs().items()}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    attributes |= {"operands": [len(group) for group in groups], "results": counts}
    operands = [paddle.assign(value) for group in groups for value in group]
    return Left(op.name().removeprefix("pd_op."), attributes, operands, names), out


def _tensors(value: Any) -> list[Any]:
    """The tensors of an operand. States of random numbers, which are u8, are dropped, as the exporter has no
    such constants."""
    if not value.initialized() or value.is_dense_tensor_type() and value.dtype == paddle.uint8:
        return []
    return [value] if value.is_dense_tensor_type() else parts_of(value)


def _take_apart(result: Any) -> list[Any]:
    """The tensors of a result that is a list, from the operators that unpack it."""
    for user in result.all_used_ops():
        if user.name() == "builtin.split":
            return list(user.results())
    results_by_index = {user.attrs()["index"]: user.result(0) for user in result.all_used_ops()}
    return [
        results_by_index.get(i, next(iter(results_by_index.values())))
        for i in range(max(results_by_index, default=-1) + 1)
    ]


def _to_attribute(value: Any) -> Any:
    """The value of an attribute in ONNX, with types as their names; None if ONNX has no such attribute."""
    if isinstance(value, paddle.dtype):
        return str(value).rpartition(".")[2]
    listed = isinstance(value, (list, tuple))
    values, kinds = (value, (int, float)) if listed else ([value], (bool, int, float, str))
    return value if values and all(type(each) in kinds for each in values) else None


def put_back(path: str, rows: list[Left], outputs: int) -> None:
    """Insert nodes for the `Left` operators into an exported file. `outputs`: the number of the program's own
    outputs; those after them are the operands."""
    model = onnx.load(path)
    graph = model.graph
    names = [port.name for port in graph.output[outputs:]]
    del graph.output[outputs:]
    inputs = [port for port in graph.input if not port.name.startswith(_STANDING)]
    del graph.input[:]
    graph.input.extend(inputs)
    for index, port in enumerate(graph.output):
        if port.name.startswith(_STANDING):  # Paddle may declare other sizes than it computes
            output_name = f"fetch_name_{index}"
            graph.node.append(onnx.helper.make_node("Identity", [port.name], [output_name]))
            port.name = output_name
            port.type.tensor_type.ClearField("shape")
    for row in rows:
        operands, names = names[: len(row.operands)], names[len(row.operands) :]
        node = onnx.helper.make_node(row.kind, operands, row.results, domain=DOMAIN, **row.attributes)
        result = [i for i, each in enumerate(graph.node) if not {*operands}.isdisjoint(each.output)]
        graph.node.insert(max(result, default=-1) + 1, node)
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)
