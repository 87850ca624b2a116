"""Base of the readers of FX graphs and of scripts: converts operators by their names and arguments."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any

from ovjit import build
from ovjit.build import Model, Output, Parameter
from ovjit.build.rules import apply_rules, fold, merge_equal_nodes
from ovjit.errors import ConverterError, ModelError, OvjitError, UnsupportedError, unless_of_signal
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim, is_static
from ovjit.graph.symbolic import named, without_symbols
from ovjit.readers.quantized_weights import compress_quantized
from ovjit.readers.torch.call import UNKNOWN_USES, Call, OutputUses
from ovjit.readers.torch.dimensions import Shared, TorchDraft
from ovjit.readers.torch.fusions.activations import ACTIVATIONS
from ovjit.readers.torch.fusions.attention import ATTENTION
from ovjit.readers.torch.fusions.constants import join_constants, keep_packed
from ovjit.readers.torch.fusions.transposes import MOVEMENTS
from ovjit.readers.torch.operators.quantized import keep_on_grid
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule
from ovjit.readers.torch.values import Complex, Number, Stacked, constant_of, element_type, is_complex
from ovjit.rewrite.weight_scales import BATCH_NORMS


class Refused(UnsupportedError):
    """An operator that is not read: `operator` is its name, `node` that of its node in an FX graph."""

    node: str | None = None

    def __init__(self, operator: str, text: str):
        super().__init__(text)
        self.operator = operator


class TorchReader(TorchDraft):
    """Reads one graph of PyTorch's operators. `converters` come before the table, by "aten::add"."""

    def __init__(self, converters: Mapping[str, Callable[..., Any]] | None = None):
        super().__init__()
        self.converters = dict(converters or {})
        self.parameters: list[Any] = []
        self.parts: Collection[Any] = ()  # inputs that are parts of tuples, lists and dicts
        self.input_types: Sequence[TensorType] = ()  # types of inputs that are read without an example
        self._variables: dict[str, Any] = {}  # tensors by the names of a script's values
        self._tensors: list[Any] = []  # what the constants' memory belongs to

    def parameter(self, name: str, dtype: Any, shape: Sequence[int | None]) -> Any:
        """An input of the model: dynamic where a dimension is None; complex ones as pairs."""
        # dynamic dimensions are known by name while the graph is read
        dims = named([ANY if d is None else int(d) for d in shape], "input", len(self.parameters))
        pairs = is_complex(dtype)
        node = build.make_parameter(element_type(dtype), (*dims, 2) if pairs else dims, name, {name})
        self.parameters.append(node)
        value = node.output(0)
        return Complex(value) if pairs else value

    def constant(self, tensor: Any, name: str | None) -> Any:
        """A tensor's constant, shared by all uses of the tensor."""
        constant = self.shared.constants.get(id(tensor))
        if constant is None:
            constant = self.shared.constants[id(tensor)] = constant_of(tensor, name)
            self._tensors.append(tensor)
            if name:
                value = constant.pair if isinstance(constant, Complex) else constant
                build.set_names(value, {name})
        return constant

    @contextlib.contextmanager
    def in_body(self, shared: Shared) -> Iterator[None]:
        """Context: new nodes belong to a body, with a cache of shared nodes other than the outer graph's."""
        outer, self.shared = self.shared, shared
        try:
            yield
        finally:
            self.shared = outer

    def run(self, graph: Any, values: Sequence[Any]) -> Any:
        """Evaluate a graph for its inputs and return its outputs."""
        raise NotImplementedError

    def stand_in(self, inside: Any, value: Any) -> Any:
        """Return the body's value for an outer tensor."""
        return inside.copy(value)

    def call(
        self, name: str, overload: str, arguments: Mapping[str, Any], base: str,
        where: Callable[[], str] = str, uses: OutputUses = UNKNOWN_USES,
    ) -> Any:  # fmt: skip
        """Return the results of an operator for arguments by name. Raises Refused if it cannot be converted.

        `where` returns the location of the call in the module. It is called for errors only.
        """
        result = Call(self, name, base, overload, uses)
        converter = self.converter(name, overload)
        row = find_rule(name, overload) if converter is None else None
        if converter is None and row is None:
            raise Refused(name, f"No conversion rule found for operations: {name}{where()}")
        try:
            if converter is not None:
                return converter(result, arguments)
            assert row is not None
            return keep_on_grid(result, arguments, row(result, arguments))
        except (Refused, ConverterError):
            raise
        except unless_of_signal(Exception) as error:
            message = f"No conversion rule found for operations: {name}{where()}{_why(error, arguments)}"
            raise Refused(name, message) from error

    def converter(self, name: str, overload: str) -> Callable[..., Any] | None:
        """Return the user's converter for an operator, or None if the table's rule applies."""
        return self.converters.get(name)

    def result(self, value: Any, names: Iterable[str] = ()) -> Any:
        """The Result of a value; numbers become tensors."""
        if isinstance(value, Complex):
            value = value.pair
        if isinstance(value, Number):
            value = value.value
        if isinstance(value, Stacked):
            raise UnsupportedError(
                "the module returns a list whose length depends on data, which is not supported"
            )
        if not isinstance(value, Output):
            value = Call(self, "prim::Constant", "").tensor(value)
        names, tensor = set(names), value.tensor
        node = build.make_result(value)
        for name in names & self._variables.keys():
            other = self._variables.pop(name)
            build.set_names(other, build.names_of(other) - {name})
            if other is not tensor:
                self._add_numbered_name(other, name)
        for name in [name for name in build.names_of(tensor) if self._variables.get(name) is tensor]:
            # an output has the names that it is given alone
            build.set_names(tensor, build.names_of(tensor) - {name})
            del self._variables[name]
        if names:
            build.add_names(tensor, names)
        return node

    def name_variable(self, value: Any, name: str) -> None:
        """Name an unnamed tensor after its variable in a script's graph, as OpenVINO does."""
        if isinstance(value, Output) and not build.names_of(value):
            inputs = (build.names_of(parameter.output(0)) for parameter in self.parameters)
            if name in self._variables or any(name in names for names in inputs):
                self._add_numbered_name(value.tensor, name)
            else:
                build.set_names(value, {name})
                self._variables[name] = value.tensor

    def _add_numbered_name(self, tensor: Any, shared_name: str) -> None:
        """Give a tensor the name `shared_name/N`, since another has `shared_name`."""
        name = f"{shared_name}/{len(self._variables)}"
        build.add_names(tensor, {name})
        self._variables[name] = tensor

    def unknown_parameter(self, name: str, kind: str = "dynamic", rank: int | None = None) -> Output:
        """An input of unknown shape, at most of known rank."""
        if len(self.parameters) < len(self.input_types):
            known_type = self.input_types[len(self.parameters)]
            kind = kind if known_type.dtype == "dynamic" else known_type.dtype
            rank = rank if known_type.shape is None else len(known_type.shape)
        shape = None if rank is None else named([ANY] * rank, "input", len(self.parameters))
        node = build.make_parameter(kind, shape, name, {name})
        self.parameters.append(node)
        return node.output(0)

    def finish(self, values: Any, names: Sequence[str | None] | None) -> Model:
        """The model of the module's results: tensors in lists, or by name in a dict; None is left out."""
        leaves = [(key, leaf) for key, leaf in leaves_of(values) if leaf is not None]
        if names is not None:
            leaves = [(self._own_name(key, leaf), leaf) for key, (_, leaf) in zip(names, leaves, strict=True)]
        results = [self.result(value, [] if name is None else [name]) for name, value in leaves]
        return self.model(results, "Model0")

    def _own_name(self, name: str | None, value: Any) -> str | None:
        """The name of an output. One that an input has gets a number, as in OpenVINO, unless the output is
        that input."""
        tensors = [node.output(0).tensor for node in self.parameters]
        inputs = {key: tensor for tensor in tensors for key in build.names_of(tensor)}
        tensor = value.tensor if isinstance(value, Output) else None
        if name is None or inputs.get(name, tensor) is tensor:
            return name
        return next(other for i in count(1) if (other := f"{name}_{i}") not in inputs)

    def is_unfolded(self, node: Any) -> bool:
        """Whether a foldable node must stay, as in OpenVINO's models."""
        return False

    def model(self, results: Sequence[Any], name: str) -> Model:
        if not results:
            raise OvjitError("the module returns no tensors")
        result = build.make_model(list(results), list(self.parameters), name)
        _number_names(result, self.name_counts)
        fold(result, keep_compressed=True, keep=self.is_unfolded)
        compress_quantized(result)
        keep_packed(result)
        merge_equal_nodes(result)
        for rules in (*MOVEMENTS, *BATCH_NORMS, *ACTIVATIONS, *ATTENTION):
            apply_rules(rules, result)
        _forget_unread(result)
        _shapes_of_inputs(result, self.parts)
        join_constants(result)
        _forget_unread(result)
        return result


def _number_names(model: Model, counts: Mapping[str, int]) -> None:
    """Number equal names in the order of the model's nodes, as OpenVINO does, instead of the order of
    reading. `counts`: name -> nodes."""
    groups: dict[str, list[Any]] = {}
    for node in model.get_ordered_ops():
        name = re.sub(r"_\d+$", "", node.get_friendly_name())
        if counts.get(name, 0) > 1:
            groups.setdefault(name, []).append(node)
    for nodes in groups.values():
        names = sorted((node.get_friendly_name() for node in nodes), key=lambda text: (len(text), text))
        for node, text in zip(nodes, names, strict=True):
            node.set_friendly_name(text)


def _forget_unread(model: Model) -> None:
    """Disconnect nodes that no result needs, which Python may not have freed yet.

    Programs such as NNCF take what reads an output for nodes of the model.
    """
    nodes = set(model.get_ordered_ops())
    for node in nodes:
        for user in set(build.users_of(node)) - nodes:
            build.forget_user(node, user)


def _shapes_of_inputs(model: Model, parts: Collection[Any]) -> None:
    """Make dimensions of inputs dynamic, except the channels of an input of a convolution, as in OpenVINO,
    and except inputs that are `parts` of an argument, which have the lengths of what they are concatenated
    with."""
    for parameter in model.get_parameters():
        shape = build.attributes_of(parameter)["shape"]
        if shape is None:
            _as_convolved(parameter)
            continue
        dims = list(without_symbols(shape) or ())
        for target in parameter.output(0).get_target_inputs():
            if (convolved := _image_type(target)) is not None and not isinstance(dims[1], int):
                dims[1] = convolved[1][1]
        if parameter in parts:
            _as_joined(parameter, dims)
        build.set_attributes(parameter, shape=tuple(dims))
    model.validate_nodes_and_infer_types()


def _targets(parameter: Parameter) -> Iterator[Any]:
    """Yield the consumers of an input, including those after unary elementwise operations."""
    outputs = [parameter.output(0)]
    for output in outputs:
        for target in output.get_target_inputs():
            if target.get_node().get_type_name() in _KEEPING:
                outputs.append(target.get_node().output(0))
            else:
                yield target


def _as_joined(parameter: Parameter, dims: list[Any]) -> None:
    """Set the dimensions of an input that is concatenated with tensors of these dimensions."""
    for target in _targets(parameter):
        node = target.get_node()
        if node.get_type_name() != "Concat":
            continue
        for source in node.input_values():
            for i, length in enumerate(without_symbols(build.tensor_type(source).shape) or ()):
                if isinstance(length, int) and i != build.attributes_of(node)["axis"] % len(dims):
                    dims[i] = length


def _as_convolved(parameter: Parameter) -> None:
    """Give an input of unknown type the type, rank and channels that a convolution needs, as OpenVINO
    does."""
    convolved = next(filter(None, map(_image_type, _targets(parameter))), None)
    if convolved is not None:
        build.set_attributes(parameter, element_type=convolved[0], shape=convolved[1])


def _image_type(target: Any) -> tuple[str, tuple[Dim, ...]] | None:
    """The type that a convolution with known weights needs of its input; None for other consumers."""
    node, axes = target.get_node(), build.record_of(target.get_node()).weight_axes
    if target.get_index() or axes is None:
        return None
    weights = build.tensor_type(node.input_value(1))
    if not is_static(weights.shape):
        return None
    channels = math.prod(weights.shape[axis] for axis in axes.inputs)
    spatial = len(weights.shape) - (3 if set(axes.inputs) & set(axes.outputs) else 2)
    return weights.dtype, (ANY, channels, *[ANY] * spatial)


def leaves_of(values: Any, key: str | None = None) -> list[tuple[str | None, Any]]:
    """The tensors and numbers of nested lists and dicts, with their keys in the outermost dict."""
    if isinstance(values, dict):
        return [leaf for name, value in values.items() for leaf in leaves_of(value, name)]
    if isinstance(values, (list, tuple)) and not isinstance(values, (Complex, Number)):
        return [(None, leaf) for value in values for _, leaf in leaves_of(value)]
    return [(key, values)]


@cache
def parsed_schema(text: str) -> Any:
    return torch._C.parse_schema(text)


#: Operations of one input whose result has its element type and shape.
_KEEPING = {
    "Relu", "Clamp", "Sigmoid", "Tanh", "Elu", "Gelu", "HSwish", "HSigmoid", "Swish", "Abs", "Negative",
}  # fmt: skip
#: What a rule that does not expect such values says of them.
_UNFIT = {
    Complex: "of complex tensors",
    Stacked: "of a list whose length depends on data",
    Number: "by numbers that are not known when the model is read",
}


def _why(error: Exception, arguments: Mapping[str, Any]) -> str:
    """Return the reason why a rule fails: its message, an unsupported kind of value, or invalid arguments."""
    if isinstance(error, (UnsupportedError, ModelError)):
        return f": {error}"
    if isinstance(error, (AttributeError, TypeError)):
        values = list(arguments.values())
        unfit = next((says for kind, says in _UNFIT.items() if _holds(values, kind)), None)
        if unfit is not None:
            return f" {unfit}"
    return f" with these arguments ({type(error).__name__}: {error}"[:500] + ")"


def _holds(value: Any, kind: type) -> bool:
    """Whether a value is of a type, or a list that contains one."""
    if isinstance(value, (list, tuple)) and not isinstance(value, kind):
        return any(_holds(part, kind) for part in value)
    return isinstance(value, kind)


def bound(schema: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names that the schema has for them, defaults included."""
    values: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(arguments):
            values[argument.name] = arguments[i]
        elif argument.name in named:
            values[argument.name] = named[argument.name]
        elif argument.has_default_value():
            values[argument.name] = argument.default_value
        else:
            values[argument.name] = None
    return values
