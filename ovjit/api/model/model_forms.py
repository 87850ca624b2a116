"""The many forms of a Model's arguments, sorted out; and copies of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.api.arguments import expect, public_name
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.custom import Op
from ovjit.api.model.node import DescriptorTensor, Node, Output
from ovjit.api.model.node_ports import ResultTensor
from ovjit.api.model.rt_info import RTMap
from ovjit.api.tensors.convert import dims_with_symbols
from ovjit.api.tensors.shapes import PartialShape
from ovjit.errors import checked_index, no_such_constructor, no_such_form
from ovjit.graph.shapes import Dim


def model_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], list[Node], list[Parameter], list[Any], str]:
    """Sort out the constructor's forms: (results, sinks, parameters, variables, name)."""
    known = {"results", "result", "sinks", "parameters", "variables", "name"}
    if set(kwargs) - known:
        raise no_such_constructor(f"Model has no argument {min(set(kwargs) - known)!r}")
    given = list(args)
    name = kwargs.get("name", "")
    if "name" not in kwargs and given and isinstance(given[-1], str):
        name = given.pop()
    results = kwargs.get("results", kwargs.get("result"))
    if results is None and given:
        results = given.pop(0)
    sinks, parameters, variables, more = _lists([_sequence(item) for item in given], kwargs)
    if more or not isinstance(name, str):
        raise no_such_constructor("Model takes results, [sinks,] parameters, [variables,] and a name")
    if not all(isinstance(p, Parameter) for p in parameters):
        raise no_such_constructor("Model's parameters are a sequence of Parameter nodes")
    if not all(isinstance(s, (Node, Output)) for s in sinks):
        raise no_such_constructor("Model's sinks are a sequence of Nodes or of Outputs")
    sinks = [s._node if isinstance(s, Output) else s for s in sinks]
    return _results(results), sinks, parameters, variables, name


def _lists(
    lists: list[list[Any]], kwargs: dict[str, Any]
) -> tuple[list[Any], list[Any], list[Any], list[list[Any]]]:
    """(sinks, parameters, variables, further lists) of [sinks,] parameters [, variables], told apart by what
    they hold."""
    sinks, parameters, variables = (
        _sequence(kwargs.get(key, ())) for key in ("sinks", "parameters", "variables")
    )
    if "parameters" in kwargs:
        if lists:
            sinks, lists = lists[0], lists[1:]
    elif not lists:
        raise no_such_constructor("Model takes results, parameters and a name")
    elif _begin_with_sinks(lists):
        sinks, parameters, lists = lists[0], lists[1], lists[2:]
    else:
        parameters, lists = lists[0], lists[1:]
    if lists:
        variables, lists = lists[0], lists[1:]
    return sinks, parameters, variables, lists


def _begin_with_sinks(lists: list[list[Any]]) -> bool:
    """Whether the second list holds the parameters."""
    if len(lists) < 2:
        return False
    first, second = (all(isinstance(p, Parameter) for p in items) for items in lists[:2])
    if not second or (first and lists[0] and not lists[1]):
        return False
    if lists[0] and first:
        raise no_such_constructor("Model's sinks cannot be Parameters")
    return True


def _results(given: Any) -> list[Any]:
    """The results as a list of Nodes, or of Outputs."""
    if isinstance(given, Node):
        given = [given] if isinstance(given, Result) else given.outputs()
    results = _sequence(given)
    if not any(all(isinstance(r, kind) for r in results) for kind in (Node, Output)):
        raise no_such_constructor("Model's results are a Node, or a sequence of only Nodes or only Outputs")
    return results


def _sequence(items: Any) -> list[Any]:
    return list(expect(items, (list, tuple), "Model takes sequences of nodes", no_such_constructor))


def result_of(source: Node | Output) -> Result:
    """A Result of a node or port: itself where it is one already, as what `Model.outputs` lists."""
    node = source if isinstance(source, Node) else source.get_node()
    if isinstance(node, Result):
        return node
    return made_result(source.output(0) if isinstance(source, Node) else source)


def made_result(source: Output) -> Result:
    """A new Result, which has the names that the value has now. One of a Parameter shows the Parameter's."""
    result = Result._of(source)
    if not isinstance(source.get_node(), Parameter):
        result._tensors[0].keep()
    return result


def name_tensor(node: Node) -> None:
    tensor = node._tensors[0]
    if not tensor._names:
        tensor._names = {node.get_friendly_name()}


#: The key of a port where none is given. None is no key.
ONLY: Any = object()


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
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise no_such_form(f"a path to runtime information is a str or a list of str, not {path!r}")
    return keys


def copy_node(
    node: Node, copies: dict[Node, Node], tensors: dict[DescriptorTensor, DescriptorTensor]
) -> Node:
    inputs = [Output._of(copies[source._node], source._index) for source in node._inputs]
    if isinstance(node, Op):
        copy: Node = node._copied(inputs)
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
