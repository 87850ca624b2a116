"""Conversions of single operators and modules, as the reader of PyTorch's graphs takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.build.custom import UNREADABLE, ConversionExtensionBase, Op, ReaderExtension
from ovjit.build.tensors import TYPES, PartialShape, Type
from ovjit.readers.torch.values import ELEMENT_NAMES, Complex, name_of
from ovjit.records import NamedTuple


class _Operator(NamedTuple):
    """An operator as its extension receives it: type, inputs, attributes, and the inputs that are texts."""

    op_type: str
    inputs: list[Any]
    attributes: dict[str, Any]
    texts: dict[int, str]


def choose_extensions(items: Sequence[Any]) -> list[Any]:
    """Select the extensions for PyTorch's operators or modules, and those for any framework."""
    return [item for item in items if isinstance(item, (ReaderExtension, ConversionExtensionBase))]


def modules_of(extensions: Sequence[Any]) -> dict[Any, Any]:
    """Extensions of modules, by modules, classes or names of modules."""
    return {item.module: item for item in extensions if isinstance(item, ReaderExtension)}


def converters_of(extensions: Sequence[Any]) -> dict[str, Callable[..., Any]]:
    """Converters of operators, by the operators' names."""
    return {i.op_type: _converter(i) for i in extensions if isinstance(i, ConversionExtensionBase)}


def _converter(item: Any) -> Callable[..., Any]:
    def convert(call: Any, arguments: Mapping[str, Any]) -> Any:
        inputs = [_as_input(call, value) for value in arguments.values()]
        if item.passes_none:
            inputs = [PtFrameworkNode().output(0) if value is None else value for value in inputs]
        attributes = {name: _attribute(v) for name, v in arguments.items() if v is not None}
        texts = {i: value for i, value in enumerate(arguments.values()) if isinstance(value, str)}
        result = item.convert(_Operator(call.op, inputs, attributes, texts))
        return result[0] if len(result) == 1 else result

    return convert


class PtFrameworkNode(Op):
    """Stands for an argument that is None, as in OpenVINO: converters look at the type's name."""

    def __init__(self) -> None:
        super().__init__(self, [])

    def validate_and_infer_types(self) -> None:
        self.set_output_type(0, Type.dynamic, PartialShape.dynamic())


def _attribute(value: Any) -> Any:
    """An attribute as converters get it: a torch.dtype as a Type, None for a complex one."""
    kind = type(value)
    if kind.__name__ != "dtype" or kind.__module__ != "torch":
        return value
    element_name = ELEMENT_NAMES.get(name_of(value))
    return UNREADABLE if element_name is None else TYPES[element_name]


def _as_input(call: Any, value: Any) -> Any:
    """Return an argument as an Output: a tensor, a number, a list or a text; complex numbers as pairs of
    their parts. None stays None."""
    if value is None or isinstance(value, Output):
        return value
    if isinstance(value, Complex):
        return value.pair
    if isinstance(value, str):
        return call.const(np.frombuffer(value.encode(), np.uint8))
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, Output) for v in value):
            return [_as_input(call, v) for v in value]
        result = call.ints(list(value)) if all(not isinstance(v, float) for v in value) else list(value)
        return result if isinstance(result, Output) else call.const(np.asarray(result))
    return call.tensor(value)
