"""Extensions of front ends: converters of single operations, and observers of conversions.

ovjit reads all formats itself. A converter is used where the reader of its format asks for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.api.arguments import explain_calls
from ovjit.api.model.custom import UNREADABLE, ConversionExtensionBase, Extension
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output, make_node
from ovjit.api.tensors.types import TYPES, Type
from ovjit.compat.frontend.failures import GeneralFailure
from ovjit.errors import ConverterError, ModelError, OvjitError, no_such_constructor, unless_of_signal
from ovjit.graph.op import find_op


@explain_calls
class ConversionExtension(ConversionExtensionBase):
    """`converter(context)` returns the outputs, by position or by name, of an operator of type `op_type`.

    `ConversionExtension(op_type, [domain,] converter)`.
    """

    passes_none = True

    def __init__(self, op_type: str, *arguments: Any):
        *domain, converter = arguments or (None,)
        if len(domain) > 1 or not callable(converter) or not all(isinstance(v, str) for v in domain):
            why = "ConversionExtension takes an operator's type, its domain and a function"
            raise no_such_constructor(why)
        super().__init__(op_type, *domain)
        self.converter: Callable[[NodeContext], Any] = converter

    def convert(self, node: Any) -> list[Output]:
        try:
            result = self.converter(
                NodeContext(node.op_type, node.inputs, node.attributes, getattr(node, "texts", None))
            )
        except unless_of_signal(Exception) as error:
            raise ConverterError(
                f"Model wasn't fully converted. Conversion is failed for: {self.op_type}: its converter "
                f"raised {type(error).__name__}: {error}"
            ) from error
        outputs = [o for port in result.values() for o in port] if isinstance(result, Mapping) else result
        if not isinstance(outputs, (list, tuple)) or not all(isinstance(o, Output) for o in outputs):
            raise ConverterError(
                f"the converter of {self.op_type} must return a list of Outputs, such as "
                f"node.outputs(); it returned {result!r}"
            )
        return list(outputs)


_ConversionExtension = ConversionExtension


@explain_calls
class OpExtension(ConversionExtensionBase):
    """An operator of another framework that maps to an OpenVINO operation, with renamed or fixed attributes.

    `OpExtension([ov_type_name,] fw_type_name, [domain,] [in_names_vec, out_names_vec,] attr_names_map={},
    attr_values_map={})`; the lists of names set the numbers of inputs and outputs.
    """

    def __init__(self, *args: Any, **named: Any):
        texts = [arg for arg in args if isinstance(arg, str)]
        lists = [arg for arg in args if isinstance(arg, (list, tuple))]
        maps = [arg for arg in args if isinstance(arg, Mapping)]
        if len(texts) + len(lists) + len(maps) != len(args) or not 0 <= len(texts) <= 3 or len(maps) > 2:
            raise no_such_constructor("OpExtension takes type names, names of inputs and outputs, and maps")
        domain = texts.pop() if len(texts) == 3 else ""
        keywords = {"ov_type_name", "fw_type_name", "in_names_vec", "out_names_vec"}
        keywords |= {"attr_names_map", "attr_values_map"}
        if set(named) - keywords:
            raise no_such_constructor(f"OpExtension has no argument {min(set(named) - keywords)!r}")
        framework: Any = named.get("fw_type_name", texts[-1] if texts else None)
        super().__init__(framework, domain)
        self.ov_type: str = named.get("ov_type_name", texts[0] if texts else framework)
        self.names: Mapping[str, str] = named.get("attr_names_map", maps[0] if maps else {})
        self.values: Mapping[str, Any] = named.get("attr_values_map", maps[1] if len(maps) > 1 else {})

    def convert(self, node: Any) -> list[Output]:
        try:
            return self._make_outputs(node)
        except OvjitError as error:
            raise ConverterError(
                f"Model wasn't fully converted. Conversion is failed for: {self.op_type}: {error}"
            ) from error

    def _make_outputs(self, node: Any) -> list[Output]:
        named = re.fullmatch(r"(?:opset(\d+)(?:\.|::))?(\w+)", self.ov_type)
        if named is None:
            raise ModelError(
                f"{self.ov_type!r} is not the name of an operation; give a name such as opset8.Relu"
            )
        kind = named[2]
        record = find_op(kind, int(named[1]) if named[1] else None)
        attrs = {name: value for name, value in self.values.items() if name in record.attributes}
        for name in record.attributes:
            framework_name = self.names.get(name, name)
            if name not in attrs and framework_name in node.attributes:
                attrs[name] = node.attributes[framework_name]
        return make_node(kind, [v for v in node.inputs if v is not None], attrs, opset=record.opset).outputs()


class NodeContext:
    """The inputs and attributes of an operation, as its converter receives them."""

    def __init__(
        self,
        op_type: str,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        texts: Mapping[int, str] | None = None,
    ):
        self._type, self._inputs, self._attributes = op_type, list(inputs), dict(attributes)
        self._texts = dict(texts or {})  # of inputs that are texts and not numbers

    def get_op_type(self, name: str = "") -> str:
        """The operation's type."""
        return self._type

    def get_input(self, index: int | str, port: int = 0) -> Any:
        """An input, by index."""
        if isinstance(index, str):
            raise TypeError("inputs of this node are selected by index")
        if index < 0:
            raise IndexError(f"input index {index} is out of range for {self._type}")
        return self._inputs[index]

    def get_input_size(self, name: str = "") -> int:
        """The number of inputs."""
        return len(self._inputs)

    def has_attribute(self, name: str) -> bool:
        """Whether the operation has the attribute."""
        return name in self._attributes

    def get_attribute(self, name: str, default_value: Any = None, dtype: Any = None) -> Any:
        """An attribute, or the default. GeneralFailure if there is neither, or if it has an unknown type."""
        value = self._attributes.get(name)
        if name in self._attributes and value is not UNREADABLE:
            return _cast(value, dtype)
        if default_value is None or value is UNREADABLE:
            why = "has an unknown type" if value is UNREADABLE else "does not exist"
            raise GeneralFailure(
                f"Attribute {name} can't be converted to defined types: that of {self._type} {why}"
            )
        return default_value

    def get_values_from_const_input(self, idx: int, default_value: Any = None, dtype: Any = None) -> Any:
        """The value of a constant input as a number, a list or a text, of type `dtype`, or the default."""
        node: Any = self._inputs[idx].get_node() if idx < len(self._inputs) else None
        text = self._texts.get(idx)
        if text is None and not hasattr(node, "get_data"):
            return default_value
        return _cast(node.get_data().tolist() if text is None else text, dtype)


def _cast(value: Any, kind: Any) -> Any:
    """Convert an attribute, or each item of a list, to `kind`: a Python type, or Type, for ONNX's number of
    an element type."""
    if kind is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_cast(item, kind) for item in value]
    if kind is Type:
        from ovjit.readers.onnx.tensors import element_type

        return TYPES[element_type(value)]
    return kind(value)


class WatchingExtension(Extension):
    """Base class of extensions that observe a conversion or change its result."""

    def _after_conversion(self, framework: str, model: Model) -> None:
        """Called after a model of `framework` has been converted."""


class DecoderTransformationExtension(WatchingExtension):
    """Runs a function of the model, or a pass, on each converted model."""

    def __init__(self, transformation: Any = None):
        self._transformation = transformation

    def _after_conversion(self, framework: str, model: Model) -> None:
        if callable(self._transformation):
            self._transformation(model)
        elif self._transformation is not None:
            self._transformation._run(model)


@explain_calls
class ProgressReporterExtension(WatchingExtension):
    """Reports the progress of a conversion by `callback(progress, total steps, completed steps)`."""

    def __init__(self, callback: Callable[[float, int, int], None] | None = None):
        if callback is not None and not callable(callback):
            raise no_such_constructor("ProgressReporterExtension takes a function")
        self._callback = callback

    def report_progress(self, progress: float, total_steps: int, completed_steps: int) -> None:
        """Call the callback. GeneralFailure if more steps are completed than there are."""
        if completed_steps > total_steps:
            raise GeneralFailure(f"{completed_steps} completed steps exceed the {total_steps} total steps")
        if self._callback is not None:
            self._callback(progress, total_steps, completed_steps)

    def _after_conversion(self, framework: str, model: Model) -> None:
        steps = len(model.get_ops())
        self.report_progress(1.0, steps, steps)


@explain_calls
class TelemetryExtension(WatchingExtension):
    """Passes events to functions: for each conversion, the number of operations of each type.
    ovjit itself sends nothing anywhere."""

    def __init__(
        self, event_category: str, send_event: Callable, send_error: Callable, send_stack_trace: Callable
    ):
        self._category = event_category
        self._functions = send_event, send_error, send_stack_trace

    def send_event(self, event_action: str, event_label: str, event_value: int = 1) -> None:
        """Pass an event of the category to `send_event`."""
        self._functions[0](self._category, event_action, event_label, event_value)

    def send_error(self, error_message: str) -> None:
        """Pass an error message to `send_error`."""
        self._functions[1](self._category, error_message)

    def send_stack_trace(self, error_message: str) -> None:
        """Pass a stack trace to `send_stack_trace`."""
        self._functions[2](self._category, error_message)

    def _after_conversion(self, framework: str, model: Model) -> None:
        counts = Counter(node.get_type_name() for node in model.get_ops())
        for kind in sorted(counts.keys() - {"Parameter", "Result"}):
            self.send_event("op_count", f"{framework}_{kind}", counts[kind])


class _IDecoder:
    """Root of decoders of other frameworks' graphs."""


__all__ = [
    "ConversionExtension", "ConversionExtensionBase", "DecoderTransformationExtension", "NodeContext",
    "OpExtension", "ProgressReporterExtension", "TelemetryExtension",
]  # fmt: skip
