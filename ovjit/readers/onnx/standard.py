"""Messages and schemas of the package onnx, without importing all of it (60 to 90 ms of CPU time).

Its messages are in one module, which is executed alone. protobuf has one class for each message, so the
package finds the same classes when it is imported. The schemas of operators come with ovjit
(`ovjit/data/onnx_schemas.txt`, written by `python -m ovjit.tools.ship --texts`). The package is asked about
versions that are newer than this file.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ovjit.records import NamedTuple
from ovjit.source_files import package_data

FILE = "onnx_schemas.txt"
_MESSAGES = "onnx_ml_pb2"


class Schema(NamedTuple):
    """Schema of an operator in one version of the standard."""

    since: int
    attributes: dict[str, tuple[int, bool, Any]]  # name -> (AttributeType, required, default AttributeProto)
    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    function: bool  # it has a body of other operators


@functools.cache
def messages() -> Any:
    """The module with onnx.ModelProto, TensorProto and the others."""
    if "onnx" not in sys.modules:
        package_spec = importlib.util.find_spec("onnx")
        for folder in (package_spec.submodule_search_locations or ()) if package_spec is not None else ():
            path = os.path.join(folder, f"{_MESSAGES}.py")
            if os.path.isfile(path):
                spec: Any = importlib.util.spec_from_file_location(f"ovjit_{_MESSAGES}", path)
                namespace = _of_descriptor(spec)
                if namespace is not None:
                    return namespace
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    import onnx

    return onnx


def _of_descriptor(spec: Any) -> Any:
    """The messages of a generated module, made of the serialized descriptor in its bytecode. None if protobuf
    is not the native implementation, or another version than this function knows.

    The module itself imports protobuf's implementation in Python, which the native one does not use: half of
    the CPU time that protobuf takes here."""
    try:
        implementation: Any = importlib.import_module("google.protobuf.internal.api_implementation")
        message: Any = importlib.import_module("google.protobuf.message").Message
        if implementation.Type() != "upb":
            return None
        native = implementation._c_module
        constants = spec.loader.get_code(spec.name).co_consts
        (serialized,) = (c for c in constants if isinstance(c, bytes) and b"ModelProto" in c)
        declared = native.default_pool.AddSerializedFile(serialized).message_types_by_name

        def class_of(descriptor: Any, outer: str) -> Any:
            name = f"{outer}{descriptor.name}"
            nested = descriptor.nested_types_by_name
            members = {key: class_of(inner, f"{name}.") for key, inner in nested.items()}
            members |= {"DESCRIPTOR": descriptor, "__module__": f"onnx.{_MESSAGES}", "__qualname__": name}
            return native.MessageMeta(descriptor.name, (message,), members)

        return SimpleNamespace(**{name: class_of(descriptor, "") for name, descriptor in declared.items()})
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


@functools.cache
def newest_opset(version: int = 0) -> int:
    """The newest version of the default domain that is known; the package is asked where `version` is newer
    than what came with ovjit."""
    table = _table()
    if table is not None and version <= table.newest[""]:
        return table.newest[""]
    from onnx.defs import onnx_opset_version

    return int(onnx_opset_version())


@functools.cache
def find_schema(domain: str, name: str, version: int) -> Schema | None:
    """The standard's row of an operator of a domain ("" is the default), None if it has none."""
    table = _table()
    if table is not None and version <= table.newest.get(domain, 0):
        rows = [row for row in table.rows(domain, name) if row[0] <= version]
        return _schema_of(rows[-1]) if rows else None
    if table is not None and domain not in table.newest and "onnx" not in sys.modules:
        return None  # what declares operators of other domains has imported the package
    from onnx import defs

    try:
        return _schema_of(_row(defs.get_schema(name, version, domain)))
    except defs.SchemaError:
        return None


class _Table:
    """The index file of schemas: the newest version of each domain in its first line, then a line per
    operator, parsed when a model has the operator."""

    def __init__(self, content: bytes):
        self._content = content
        #: domain -> its newest version.
        self.newest: dict[str, int] = json.loads(content[: content.index(b"\n")])

    def rows(self, domain: str, name: str) -> list[list[Any]]:
        """Rows of the operator's versions, the oldest first, for `_schema_of`; [] if it is unknown."""
        begin = f"\n{domain} {name}\t".encode(errors="replace")
        at = self._content.find(begin)
        if at < 0 or not name.isidentifier():  # which has no end of a line
            return []
        at += len(begin)
        rows: list[list[Any]] = json.loads(self._content[at : self._content.index(b"\n", at)])
        return rows


@functools.cache
def _table() -> _Table | None:
    try:
        return _Table(package_data(FILE))
    except (OSError, ImportError, ValueError):  # a program that leaves data out
        return None


def _row(schema: Any) -> list[Any]:
    """The row of an OpSchema of the package that `_schema_of` reads."""
    attributes = {}
    for key, attribute in schema.attributes.items():
        default = attribute.default_value
        kind = int(getattr(attribute.type, "value", attribute.type))
        default_hex = default.SerializeToString().hex() if default.type else None
        attributes[key] = [kind, attribute.required, default_hex]
    return [
        schema.since_version, attributes, schema.min_input, schema.max_input, schema.min_output,
        schema.max_output, schema.has_function or schema.has_context_dependent_function,
    ]  # fmt: skip


def _schema_of(row: list[Any]) -> Schema:
    since, attributes, min_inputs, max_inputs, min_outputs, max_outputs, function = row
    parsed = {}
    for name, (kind, required, code) in attributes.items():
        default = None if code is None else messages().AttributeProto.FromString(bytes.fromhex(code))
        parsed[name] = kind, required, default
    return Schema(since, parsed, min_inputs, max_inputs, min_outputs, max_outputs, function)


def shipped_content(schemas: Iterable[Any], newest: dict[str, int]) -> bytes:
    """The file, of all of the package's schemas and the newest version of each domain."""
    operators: dict[str, list[Any]] = {}
    for schema in sorted(schemas, key=lambda s: (s.domain, s.name, s.since_version)):
        operators.setdefault(f"{schema.domain} {schema.name}", []).append(_row(schema))
    lines = [_text(newest), *(f"{operator}\t{_text(rows)}" for operator, rows in operators.items())]
    return "".join(f"{line}\n" for line in lines).encode()


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
