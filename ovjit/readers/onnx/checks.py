"""Checks of an ONNX file before rules see its nodes: names, cycles, signatures, known operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ovjit.disk.notice import warn_once
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.graph import walk
from ovjit.readers.files import list_missing
from ovjit.readers.onnx.attributes import kind_name, reads
from ovjit.readers.onnx.labels import first, label, operator_name
from ovjit.readers.onnx.registry import DEFAULT_DOMAINS, Schema, converter_key, find_rule, find_schema
from ovjit.readers.onnx.scope import opsets_of
from ovjit.readers.onnx.standard import newest_opset


class SchemaError(ModelError):
    """A node has not the inputs, outputs and attributes that its operator's schema has."""


def check_text(text: Any, what: str) -> None:
    """Raise ModelError for bytes that are no UTF-8: protobuf gives such fields as bytes."""
    if not isinstance(text, str):
        raise ModelError(f"{what}, {text[:40]!r}, is not valid UTF-8")


def once(infos: Sequence[Any]) -> Sequence[Any]:
    """A graph's inputs. Raises ModelError where two have one name."""
    names: set[str] = set()
    for info in infos:
        if info.name in names:
            raise ModelError(f"two inputs have the name {info.name[:200]!r}")
        names.add(info.name)
    return infos


def last_initializers(tensors: Iterable[Any]) -> dict[str, Any]:
    """Initializers by name. Of several with one name the last counts, as in ONNX Runtime and OpenVINO. Raises
    ModelError where they differ in type or shape."""
    by_name: dict[str, Any] = {}
    for tensor in tensors:
        check_text(tensor.name, "the name of an initializer")
        before = by_name.get(tensor.name)
        if before is not None:
            if (before.data_type, list(before.dims)) != (tensor.data_type, list(tensor.dims)):
                raise ModelError(
                    f"the name {tensor.name[:200]!r} is defined twice, by initializers of different types or "
                    "shapes"
                )
            warn_twice(tensor.name, "the last initializer")
        by_name[tensor.name] = tensor
    return by_name


def constant_names(nodes: Iterable[Any]) -> set[str]:
    """The outputs of Constant nodes. They count before initializers and inputs of their names, as in ONNX
    Runtime."""
    return {name for node in nodes if _is_constant(node) for name in node.output}


def last_constants(nodes: Sequence[Any]) -> Sequence[Any]:
    """The nodes, without Constants whose output is defined again later."""
    names = [name for node in nodes if _is_constant(node) for name in node.output[:1]]
    if len(set(names)) == len(names):
        return nodes
    constants_left = Counter(names)
    remaining = []
    for node in nodes:
        if _is_constant(node) and node.output:
            constants_left[node.output[0]] -= 1
            if constants_left[node.output[0]]:
                warn_twice(node.output[0], "the last Constant node")
                continue
        remaining.append(node)
    return remaining


def _is_constant(node: Any) -> bool:
    return node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS


def warn_twice(name: str, counts: str) -> None:
    warn_once("defined twice", f"the name {name[:200]!r} is defined twice; {counts} counts")


def functions_of(proto: Any) -> dict[tuple[str, str, str], Any]:
    functions: dict[tuple[str, str, str], Any] = {}
    for function in proto.functions:
        domain = "" if function.domain in DEFAULT_DOMAINS else function.domain
        key = (domain, function.name, function.overload)
        if key in functions:
            raise ModelError(f"the function {function.name[:200]!r} is defined twice")
        functions[key] = function
    return functions


def in_order(nodes: Sequence[Any]) -> Sequence[Any]:
    """The nodes, producers first: as they stand if that is so, else sorted. Raises ModelError for a cycle."""
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    result: set[str] = set()
    for node in nodes:
        if any(name in producers and name not in result for name in reads(node)):
            break
        result.update(node.output)
    else:
        return nodes

    def sources(i: int) -> list[int]:
        return [producers[name] for name in reads(nodes[i]) if name in producers]

    try:
        return [nodes[i] for i in walk(range(len(nodes)), sources)]
    except ModelError as error:
        index = next((w for w in str(error).split() if w.isdecimal()), "")
        where = label(nodes[int(index)]) if index else "a node"
        raise ModelError(f"the graph has a cycle through {where}") from error


def check_schema(schema: Schema, proto: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> None:
    """Raises SchemaError for a node (`proto`) that does not fit the schema."""
    if len(inputs) > schema.max_inputs or len(proto.input) < schema.min_inputs:  # "": left out
        expected = _range(schema.min_inputs, schema.max_inputs)
        raise SchemaError(f"the node has {len(inputs)} inputs; expected {expected}")
    outputs = len(proto.output)
    if not schema.min_outputs <= outputs <= schema.max_outputs:
        raise SchemaError(
            f"the node has {outputs} outputs; expected {_range(schema.min_outputs, schema.max_outputs)}"
        )
    for name, attribute in attributes.items():
        row = schema.attributes.get(name)
        if row is None:
            names = ", ".join(schema.attributes) or "none"
            raise SchemaError(
                f"the attribute {name[:80]!r} is not part of version {schema.since} of the operator ({names})"
            )
        if attribute.type != row[0]:
            raise SchemaError(
                f"the attribute {name!r} has the type {kind_name(attribute.type)}; "
                f"expected {kind_name(row[0])}"
            )
    for name, (_, required, _default) in schema.attributes.items():
        if required and name not in attributes:
            raise SchemaError(f"the attribute {name!r} is missing")


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}" if high < 1 << 30 else f"{low} or more"


def check_operators(
    graph: Any, opsets: Mapping[str, int], functions: Mapping[tuple[str, str, str], Any],
    converters: Collection[str],
) -> UnsupportedError | None:  # fmt: skip
    """Raise UnsupportedError that lists all operators without a rule. It is returned if all of them are in
    branches, which may not be read."""
    newest = newest_opset()
    missing: dict[str, list[str]] = {}
    is_certain = False
    visited: set[tuple[str, str, str]] = set()
    waiting: list[tuple[Any, Mapping[str, int], bool]] = [(graph, opsets, True)]
    while waiting:
        part, imports, is_read = waiting.pop()
        for node in part.node:
            check_text(node.op_type, "the type of a node")
            check_text(node.domain, "the domain of a node")
            check_text(node.name, "the name of a node")
            for name in node.output:
                check_text(name, "the name of a tensor")
            for attribute in node.attribute:
                if attribute.type == 5:
                    waiting.append((attribute.g, imports, is_read and node.op_type != "If"))
                elif attribute.type == 10:
                    waiting.extend((g, imports, is_read) for g in attribute.graphs)
            domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
            key = (domain, node.op_type, node.overload)
            if key in functions:
                if key not in visited:
                    visited.add(key)
                    function = functions[key]
                    waiting.append((function, opsets_of(function.opset_import) or imports, is_read))
                continue
            version = imports.get(domain, 1 if domain else newest)
            if converter_key(domain, node.op_type) in converters:
                continue
            if find_rule(domain, node.op_type, version) is not None:
                continue
            schema = find_schema(domain, node.op_type, version)
            if schema is None or not schema.function:
                label = operator_name(node, version)
                missing.setdefault(label, []).append(node.name or first(node.output))
                is_certain |= is_read
    if not missing:
        return None
    error = UnsupportedError(
        "Model wasn't fully converted. No conversion rule found for operations: "
        f"{', '.join(sorted(missing))}. The nodes are: {list_missing(missing)}"
    )
    if is_certain:
        raise error
    return error
