"""Labels of nodes, operators and call chains in messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ovjit.readers.onnx.registry import DEFAULT_DOMAINS


def label(proto: Any) -> str:
    name = (proto.name or first(proto.output))[:200]
    return f"While validating ONNX node '<Node({proto.op_type[:80]}): {name}>'"


def operator_name(proto: Any, version: int) -> str:
    """Label of an operator in messages: with its version in the default domain, else with its domain."""
    if proto.domain in DEFAULT_DOMAINS:
        return f"{proto.op_type[:80]}-{version}"
    return f"{proto.domain}.{proto.op_type[:80]}"


def call_path(key: Any, call: Any) -> str:
    names = [key[1]]
    while call is not None and len(names) < 12:
        names.append(call[0][1])
        if call[0] == key:
            break
        call = call[1]
    return " -> ".join(name[:80] for name in reversed(names))


def first(names: Iterable[str]) -> str:
    return next((name for name in names if name), "")


def resolve_references(proto: Any, attributes: Mapping[str, Any]) -> Any:
    """A copy of a function's node with references to the function's attributes replaced by their values."""
    if not any(attribute.ref_attr_name for attribute in proto.attribute):
        return proto
    out = type(proto)()
    out.CopyFrom(proto)
    del out.attribute[:]
    for name, attribute in attributes.items():
        copy = out.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name
    return out
