"""The names of a graph that is being read, and the nodes whose turn it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output, Parameter, make_constant, make_parameter, names_of, tensor_type
from ovjit.disk.notice import warn_once
from ovjit.errors import ModelError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.labels import label
from ovjit.readers.onnx.registry import DEFAULT_DOMAINS
from ovjit.readers.onnx.standard import messages, newest_opset
from ovjit.readers.onnx.values import LoopSequence, OpenOptional, TensorList


class Scope:
    """The names of one graph and their values: Outputs, TensorLists, or EMPTY.

    A body's scope finds other names in the graph around it (`outer`). If it `captures`, these become
    Parameters of the body, which `captured` lists with their sources; constants are repeated. `bindings` are
    the attributes of the function that is being inlined, `call` the (function, outer call) chain that led to
    it.
    """

    def __init__(
        self, opsets: Mapping[str, int], outer: Scope | None = None, captures: bool = False,
        bindings: Mapping[str, Any] | None = None, call: Any = None,
    ):  # fmt: skip
        self.values: dict[str, Any] = {}
        self.nodes: Sequence[Any] = ()  # those that are read into it
        self.opsets = opsets
        self.outer = outer
        self.captures = captures
        self.captured: list[tuple[Parameter, Output]] = []
        #: Constants whose type stands in for another, here and around -> that TensorProto.DataType.
        self.stand_ins: dict[Any, int] = {} if outer is None else outer.stand_ins
        self.bindings = bindings if bindings is not None else {}
        self.call = call
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.prefix: str = outer.prefix if outer is not None else ""
        #: How often a node's name has been given in this graph.
        self.labels: dict[str, int] = {} if outer is None or captures else outer.labels

    def find(self, name: str) -> Any:
        """The value of a name, None where there is none."""
        if name in self.values:
            return self.values[name]
        value = None if self.outer is None else self.outer.find(name)
        if value is None or not self.captures:
            return value
        value = self._capture_all(value)
        self.values[name] = value
        return value

    def _capture_all(self, value: Any) -> Any:
        """A value of any kind from outside of the body, as values inside of the body."""
        if isinstance(value, TensorList):
            return TensorList([self.capture(v) for v in value], value.element_type)
        if isinstance(value, LoopSequence):
            first = TensorList([self.capture(v) for v in value.first], value.first.element_type)
            return LoopSequence(first, self.capture(value.rows))
        if isinstance(value, OpenOptional):
            return OpenOptional(self._capture_all(value.value), self.capture(value.is_there))
        return self.capture(value) if isinstance(value, Output) else value

    def capture(self, source: Output) -> Output:
        """An outer Output as an input of the body."""
        kind = tensor_type(source)
        if kind.value is not None:
            shape = None if ELEMENT_TYPES[kind.dtype].numpy is not None else kind.shape
            name = source.node.get_friendly_name()
            value = make_constant(np.asarray(kind.value), kind.dtype, shape, name)
            if source.node in self.stand_ins:
                self.stand_ins[value.node] = self.stand_ins[source.node]
            return value
        for parameter, other in self.captured:
            if other == source:
                return parameter.output(0)
        names = sorted(names_of(source))[:1]
        parameter = make_parameter(kind.dtype, kind.shape, "".join(names), names)
        self.captured.append((parameter, source))
        return parameter.output(0)


class Frame:
    """Nodes that are being read. At their end, the outputs of a function call get their values."""

    __slots__ = ("function", "node", "nodes", "outer", "scope")

    def __init__(self, nodes: Iterator[Any], scope: Scope, node: Any = None, function: Any = None,
                 outer: Scope | None = None):  # fmt: skip
        self.nodes = nodes
        self.scope = scope
        self.node = node
        self.function = function
        self.outer = outer


class _Missing:
    """Marks an input of a function that the caller omits."""

    def __repr__(self) -> str:
        return "a missing input"


MISSING = _Missing()


def refuse_stand_in(value: Any, scope: Scope) -> None:
    if isinstance(value, Output) and value.node in scope.stand_ins:
        tensors.element_type(scope.stand_ins[value.node])  # says that there is no such type


def opsets_of(imports: Iterable[Any]) -> dict[str, int]:
    """Domain -> version. A version of ai.onnx that is newer than the known ones is read as the newest of
    those, as OpenVINO does: most operators do not change."""
    opsets = {"" if row.domain in DEFAULT_DOMAINS else row.domain: int(row.version) for row in imports}
    version = opsets.get("", 1)
    if version < 1:
        raise ModelError(f"the model needs opset {version} of ai.onnx; the first opset is 1")
    newest = newest_opset(version)
    if version > newest:
        warn_once(
            f"opset {version}",
            f"the model needs opset {version} of ai.onnx; it is read as opset {newest}, the newest that the "
            "installed package onnx has. Update onnx if an operator differs",
        )
        opsets[""] = newest
    return opsets


def version_of(domain: str, scope: Scope) -> int:
    version = scope.opsets.get(domain)
    if version is not None:
        return version
    if domain:
        return 1
    if scope.call is None and not scope.opsets:
        raise ModelError("the model imports no opset of ai.onnx, so its operators are undefined")
    return newest_opset()


def attributes_of(proto: Any, scope: Scope) -> dict[str, Any]:
    """name -> AttributeProto, references of a function's attributes resolved."""
    out: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.name in out:
            raise ModelError(f"{label(proto)}: the attribute {attribute.name[:80]!r} is given twice")
        if attribute.ref_attr_name:
            bound = scope.bindings.get(attribute.ref_attr_name)
            if bound is not None:
                out[attribute.name] = bound
        else:
            out[attribute.name] = attribute
    return out


def type_bytes(value: Any) -> bytes:
    """The serialised TypeProto of a value; an empty one for an absent input."""
    out = messages().TypeProto()
    if isinstance(value, TensorList):
        inner = out.sequence_type.elem_type
        first = next((v for v in value if isinstance(v, Output)), None)
        name = tensor_type(first).dtype if first is not None else value.element_type
        if name:
            inner.tensor_type.elem_type = tensors.NUMBERS[name]
    elif isinstance(value, Output):
        kind = tensor_type(value)
        out.tensor_type.elem_type = tensors.NUMBERS[kind.dtype]
        if kind.shape is not None:
            out.tensor_type.shape.SetInParent()
            for d in kind.shape:
                dim = out.tensor_type.shape.dim.add()
                if isinstance(d, int):
                    dim.dim_value = d
    return out.SerializeToString()
