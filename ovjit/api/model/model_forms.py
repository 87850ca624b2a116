"""The many forms of a Model's arguments, sorted out; and copies of its nodes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from ovjit.api.arguments import ONLY, public_name
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.custom import Op
from ovjit.api.model.node import DescriptorTensor, Node, Output
from ovjit.api.model.node_ports import ResultTensor
from ovjit.api.model.rt_info import RTMap
from ovjit.api.model.variables import Variable
from ovjit.api.tensors.convert import dims_with_symbols
from ovjit.api.tensors.shapes import PartialShape
from ovjit.errors import ModelError, check, checked_index, no_such_constructor, no_such_form
from ovjit.graph.shapes import Dim
from ovjit.records import NamedTuple


class Form(NamedTuple):
    """A form of the constructor: the class of its results and, where it has some, of its
    sinks. A `single` result is a Node, of which all outputs are results."""

    results: type
    sinks: type | None = None
    variables: bool = False
    single: bool = False

    def names(self) -> tuple[str, ...]:
        """The names of its arguments, in their order."""
        optional = [("sinks", self.sinks is not None), ("parameters", True), ("variables", self.variables)]
        present = (name for name, has in optional if has)
        return ("result" if self.single else "results", *present, "name")

    def kinds(self) -> dict[str, type]:
        """The class of what each of its sequences holds."""
        return {
            "results": self.results,
            "sinks": self.sinks or Node,
            "parameters": Parameter,
            "variables": Variable,
        }


#: The first form that fits the arguments is taken. An empty sequence fits whatever is to be in it.
FORMS = (
    Form(Result, Node),
    Form(Result),
    Form(Node),
    Form(Output, single=True),
    Form(Output),
    Form(Output, Node),
    Form(Output, Output),
    Form(Output, Output, variables=True),
    Form(Result, Output),
    Form(Result, Output, variables=True),
    Form(Result, Node, variables=True),
    Form(Output, Node, variables=True),
    Form(Result, variables=True),
    Form(Output, variables=True),
)


class ModelArguments(NamedTuple):
    """The constructor's arguments. `variables` is None where they are those that the nodes have."""

    results: list[Any]
    sinks: list[Node]
    parameters: list[Parameter]
    variables: list[Any] | None
    name: str


def model_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelArguments:
    """Sort out the constructor's forms. TypeError if none fits, RuntimeError for a None in a sequence, and
    for a sink that is none."""
    keywords = {name: elements(value) for name, value in kwargs.items()}
    lists = [elements(value) for value in args]
    for form in FORMS:
        arguments = _bind_form(form, lists, keywords)
        if arguments is not None:
            return arguments
    raise no_such_constructor(
        "Model takes results, [sinks,] parameters, [variables,] and a name. Results are a Node, or a "
        "sequence of only Nodes or only Outputs; beside sinks or variables, of only Results or only Outputs. "
        "Sinks are a sequence of Nodes or of Outputs, parameters of Parameters, variables of Variables"
    )


def _bind_form(form: Form, args: list[Any], kwargs: dict[str, Any]) -> ModelArguments | None:
    """The arguments in this form of Model's constructor. None if they do not fit it."""
    names = form.names()
    arguments = dict(zip(names, args, strict=False))
    if len(args) > len(names) or set(kwargs) - set(names) or set(arguments) & set(kwargs):
        return None
    arguments.update(kwargs)
    name = arguments.pop("name", "")
    if not isinstance(name, str) or len(arguments) != len(names) - 1:
        return None
    if form.single:
        node = arguments.pop("result")
        if not isinstance(node, Node):
            return None
        arguments["results"] = list(node.outputs())
    for key, kind in form.kinds().items():
        if not _holds(arguments.setdefault(key, []), kind):
            return None
    for key in ("results", "parameters", "variables"):
        check(
            not any(item is None for item in arguments[key]), f"Model is incorrect! One of its {key} is None"
        )
    sinks = [checked_sink(sink) for sink in arguments["sinks"]]
    variables = arguments["variables"] if form.variables else None
    return ModelArguments(arguments["results"], sinks, arguments["parameters"], variables, name)


def elements(items: Any) -> Any:
    """The elements of a sequence or a set as a list; other objects, and text, as they are."""
    if isinstance(items, (str, bytes)) or not isinstance(items, (Sequence, Set, np.ndarray)):
        return items
    return list(items)


def _holds(items: Any, kind: type) -> bool:
    """Whether it is a list of objects of a class. None stands for any Node or Variable, as in OpenVINO."""
    allowed = (kind,) if kind is Output else (kind, type(None))
    return isinstance(items, list) and all(isinstance(item, allowed) for item in items)


def checked_sink(sink: Any) -> Node:
    """A sink's node. RuntimeError for a node that has no effect but its outputs."""
    node: Node | None = sink._node if isinstance(sink, Output) else sink
    if node is None or not (node._op.role == "assign" or node._has_bodies):
        named = "None" if node is None else node.get_friendly_name()
        raise ModelError(f"Node {named} is not instance of Sink: Assign is one, and what has bodies")
    return node


def result_of(source: Node | Output) -> Result:
    """A Result of a node or port: itself where it is one already, as what `Model.outputs` lists."""
    node = source if isinstance(source, Node) else source.get_node()
    if isinstance(node, Result):
        return node
    return make_result(source.output(0) if isinstance(source, Node) else source)


def make_result(source: Output) -> Result:
    """A new Result, which has the names that the value has now. One of a Parameter shows the Parameter's."""
    result = Result._of(source)
    if not isinstance(source.get_node(), Parameter):
        result._tensors[0].keep()
    return result


def name_tensor(node: Node) -> None:
    tensor = node._tensors[0]
    if not tensor._names:
        tensor._names = {node.get_friendly_name()}


def port_key(key: Any, named: dict[str, Any]) -> Any:
    if not named:
        return key
    if key is not ONLY or set(named) - {"index", "tensor_name"} or len(named) != 1:
        raise no_such_form("a port is selected by an index or by a tensor_name")
    return next(iter(named.values()))


def port_index(index: Any, count: int, what: str) -> int:
    def beyond(number: int) -> Exception:
        return IndexError(f"{what} index {number} is out of range: the model has {count} {what}s")

    return checked_index(index, count, what, beyond, "an int or a str")


def index_of(item: Any, items: Sequence[Any]) -> int:
    """The index of an object, -1 if it is none of them."""
    return next((i for i, other in enumerate(items) if other is item), -1)


def shape_dims(shape: Any) -> tuple[Dim, ...] | None:
    if not isinstance(shape, (PartialShape, list, tuple, str)):
        raise TypeError(
            f"Incorrect value type <class '{public_name(type(shape))}'> to reshape a model, "
            "expected values as openvino.PartialShape, str, list or tuple."
        )
    return dims_with_symbols(shape)


def rt_path(path: str | list[str]) -> list[str]:
    keys = [path] if isinstance(path, str) else path
    if not isinstance(keys, list) or not keys:
        raise no_such_form(f"a path to runtime information is a str or a list of str, not {path!r}")
    check(all(isinstance(key, str) for key in keys), f"Unable to cast a part of the path {path!r} to a str")
    return keys


def copy_node(
    node: Node, copies: dict[Node, Node], tensors: dict[DescriptorTensor, DescriptorTensor]
) -> Node:
    inputs = [Output._of(copies[source._node], source._index) for source in node._inputs]
    if isinstance(node, Op):
        copy: Node = node._copy_with(inputs)
        copy._friendly_name = node.get_friendly_name()
        copy._tensors = []
    else:
        copy = type(node).__new__(type(node))
        copy._setup(node._op, inputs, node._attrs, node.get_friendly_name())
        copy._copied_from(node)
    if node._rt_info is not None:
        copy._rt_info = RTMap(copy_map(node._rt_info._items))
    for tensor in node._tensors:
        if isinstance(tensor, ResultTensor):
            tensors[tensor] = tensor.of(inputs[0]._tensor)
        elif tensor not in tensors:
            new = tensors[tensor] = DescriptorTensor(tensor._type)
            new._names, new._of_results = set(tensor._names), tensor._of_results
            if tensor._rt_info is not None:
                new._rt_info = RTMap(copy_map(tensor._rt_info._items))
        copy._tensors.append(tensors[tensor])
    for source in inputs:
        source._node._remember_user(copy)
    return copy


def copy_map(items: dict[str, Any]) -> dict[str, Any]:
    return {key: copy_map(value) if isinstance(value, dict) else value for key, value in items.items()}
