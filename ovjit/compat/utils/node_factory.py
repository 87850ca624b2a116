"""Nodes by the name of their operation, for programs that read it from somewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ovjit.api.arguments import expect, explain_calls
from ovjit.api.exceptions import UserInputError
from ovjit.api.model.boundary import Parameter
from ovjit.api.model.custom import Extension, OpExtension, extension_records
from ovjit.api.model.node import Node, Output
from ovjit.api.model.subgraphs import CLASSES
from ovjit.api.surface import first_opset
from ovjit.errors import ModelError, no_such_constructor
from ovjit.graph.attributes import FILE_NAMES, REQUIRED
from ovjit.graph.op import Op, find_op
from ovjit.native_packages import is_tokenizers, refusals, refuse_native

#: Operations that openvino_tokenizers adds to every opset.
OF_ANY_OPSET = ("StringTensorPack", "StringTensorUnpack")

#: An attribute's name in files and in `get_attributes` -> its name in builders. Both are accepted.
_NAMES = {shown: name for name, shown in FILE_NAMES.items()}
DEFAULT_OPSET = "opset13"
_OPSETS = {f"opset{number}": number for number in range(1, 18)}


@explain_calls
class NodeFactory:
    """Makes nodes of one opset, and of operations that are added."""

    def __init__(self, opset_version: str = DEFAULT_OPSET) -> None:
        """`opset_version`: "opset1" to "opset17". RuntimeError for others."""
        expect(opset_version, str, "an opset is a str", no_such_constructor)
        if opset_version not in _OPSETS:
            raise ModelError(
                f"Unsupported opset version requested: {opset_version!r}. Supported versions are opset1 "
                "to opset17"
            )
        self._opset = _OPSETS[opset_version]
        self._added: dict[str, type] = {}
        self._tokenizers = False  # whether the library of openvino_tokenizers was added

    @property
    def factory(self) -> NodeFactory:
        """The factory itself."""
        return self

    def create(
        self,
        op_type_name: str,
        arguments: Sequence[Node | Output] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> Node:
        """A node of the operation `op_type_name`; attributes that are not given have their defaults, or are
        zero or empty; those that it does not have are left out. Without arguments: a node whose inputs and
        attributes are set later.

        RuntimeError for an operation that the opset does not have and for a Constant, UserInputError for
        attributes alone.
        """
        if arguments is None and attributes is not None:
            raise UserInputError(f'Error: cannot create "{op_type_name}" op without arguments.')
        sources = self._arguments_as_outputs(arguments or ())
        kind = self._added.get(op_type_name)
        if kind is not None:
            return kind(sources, **attributes) if attributes else kind(sources)
        record = self._record(op_type_name)
        if record.name == "Constant":
            raise ModelError("Currently NodeFactory doesn't support Constant node: use an opset's constant()")
        if arguments is None and record.name != "Parameter":
            return _create_unconnected(record)
        renamed = {_NAMES.get(key, key): value for key, value in (attributes or {}).items()}
        supported = {key: value for key, value in renamed.items() if key in record.attributes}
        attrs = record.check_attributes({**_unset(record), **supported})
        if record.name == "Parameter":
            return Parameter._of(attrs["element_type"], attrs["shape"])
        return Node._new(record, sources, attrs)

    @staticmethod
    def _arguments_as_outputs(arguments: Sequence[Node | Output]) -> list[Output]:
        """The outputs to connect: a Node stands for all of its outputs."""
        return [out for node in arguments for out in ([node] if isinstance(node, Output) else node.outputs())]

    def _record(self, name: str) -> Op:
        try:
            record = find_op(name, self._opset)
        except ModelError as error:
            why = f"{name}: {error}"
            if refusals:  # packages catch what `add_extension` raised
                why += (
                    f"; ovjit loads no native libraries, so the operations of {', '.join(refusals)} "
                    "are not available"
                )
            raise ModelError(f"Couldn't create operation: {why}") from error
        anywhere = self._tokenizers and name in OF_ANY_OPSET
        if min(record.opset, first_opset(record)) > self._opset and not anywhere:
            raise ModelError(f"Couldn't create operation: {name} is not part of opset{self._opset}")
        return record

    def __repr__(self) -> str:
        return "<NodeFactory>"

    def add_extension(self, extension: str | os.PathLike[str] | Extension | list[Extension]) -> None:
        """Add operations written in Python (`OpExtension`), or those of openvino_tokenizers by its library's
        path. RuntimeError for another path: no native library is loaded."""
        if isinstance(extension, (str, os.PathLike)):
            if not is_tokenizers(extension):
                raise refuse_native(extension)
            self._tokenizers = True
            return
        for item in extension if isinstance(extension, list) else [extension]:
            if not isinstance(item, Extension):
                raise TypeError(f"Unknown argument type: {type(extension)}")
            if isinstance(item, OpExtension):
                self._added.update((name, result) for (name, _), result in extension_records(item).items())


#: Values of attributes that are not given and have no default, by the kind of their values.
_ZEROS: dict[str, Any] = {
    "Int": 0, "Float": 0.0, "Single": 0.0, "Bool": False, "Ints": (), "Floats": (), "Strs": (), "Str": "",
    "Word": "", "DType": "dynamic", "OpenShape": (),
}  # fmt: skip
#: Attributes without a default that OpenVINO's nodes begin with another value than zero.
_INITIAL = {"exclude_pad": True}


def _create_unconnected(record: Op) -> Node:
    """A node without inputs and outputs. It gets them later, by `set_arguments` and `validate`. Attributes
    without a default are zero, empty, or their first choice, even if the record's limits exclude that."""
    kind = CLASSES.get(record.name)
    if kind is not None:
        return kind()  # it has bodies
    attrs = {}
    for attribute in record.attributes.values():
        value = attribute.default
        choices = attribute.choices()
        if attribute.type == "Word" and choices:
            value = choices.get(str(value).lower(), next(iter(choices.values()), ""))
        attrs[attribute.name] = _ZEROS.get(attribute.type) if value is REQUIRED else value
    node: Node = Node._make_unconnected(record, attrs)
    node._tensors.clear()
    return node


def _unset(record: Op) -> dict[str, Any]:
    needed = (a for a in record.attributes.values() if a.default is REQUIRED)
    return {a.name: _INITIAL.get(a.name, _ZEROS[a.type]) for a in needed if a.type in _ZEROS}


def _get_node_factory(opset_version: str | None = None) -> NodeFactory:
    """A factory of an opset; None: the usual one."""
    return NodeFactory(opset_version) if opset_version else NodeFactory()
