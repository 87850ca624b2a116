"""Nodes and Models from their parts, for readers, and the facts that readers ask for.

`builder` has short calls for the nodes of a rule, `bodies` makes loops and branches, `rules` rewrites Models,
`tensors` has types and stored elements. Readers import nothing of `ovjit.api`: its classes are here, too.
Nothing here checks what a user may do wrong: types are inferred, names are believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.model import check_model as check_model
from ovjit.api.model.node import GRAPH_LOCK as GRAPH_LOCK
from ovjit.api.model.node import DescriptorTensor, Node, Output
from ovjit.api.model.rt_info import RTMap
from ovjit.api.tensors.convert import type_of
from ovjit.graph.bodies import Port
from ovjit.graph.converted import Unmade
from ovjit.graph.graph import Graph
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import Dim

if TYPE_CHECKING:
    from ovjit.api.model.custom import Op as CustomOp
    from ovjit.api.model.subgraphs import SubGraphNode, loop

AnyOutput = TypeVar("AnyOutput", bound=Output)

# -- making ------------------------------------------------------------------------------------------------


def make_node(
    op: Op | str, sources: Sequence[Output], attributes: Mapping[str, Any], name: str | None = None,
    opset: int | None = None,
) -> Any:  # fmt: skip
    """A node of an operation, by its record, or by its name as opset number `opset` has it.

    Raises ModelError that names the node if inputs or attributes do not fit.
    """
    record = find_op(op, opset) if isinstance(op, str) else op
    return Node._new(record, sources, record.check_attributes(attributes), name)


def make_parameter(
    dtype: str, shape: tuple[Dim, ...] | None, name: str | None = None, names: Iterable[str] = ()
) -> Parameter:
    """An input, with a friendly name and the `names` of its tensor."""
    parameter = Parameter._of(dtype, shape, name)
    parameter._tensors[0]._names = set(names)
    return parameter


def make_constant(
    value: np.ndarray | Unmade, dtype: str, shape: tuple[int, ...] | None = None, name: str | None = None
) -> Output:
    """A constant on the memory of `value`. `shape` is given for packed bytes."""
    return Output._of(Constant._of(value, dtype, shape, name), 0)


def make_result(value: Output, name: str | None = None) -> Result:
    return Result._of(value, name)


def make_model(
    results: Iterable[Output | Result], parameters: Sequence[Parameter], name: str = "",
    sinks: Sequence[Node] = (), notes: Mapping[str, Any] | None = None,
) -> Model:  # fmt: skip
    """A model whose tensors have no names but those they have. `notes`: its runtime information."""
    ends = [end if isinstance(end, Result) else Result._of(end) for end in results]
    model = Model._from_parts(ends, parameters, sinks, name)
    model._rt = dict(notes or {})
    return model


def wrap_port(kind: type[AnyOutput], value: Output, **facts: Any) -> AnyOutput:
    """Another object for the same output of a node, of the class `kind` and with the attributes `facts`."""
    port: AnyOutput = kind._of(value._node, value._index)
    for name, fact in facts.items():
        setattr(port, name, fact)
    return port


def make_subgraph(
    kind: Any, record: Op, sources: Sequence[Output], models: Sequence[Model],
    inputs: Sequence[Sequence[Port]], outputs: Sequence[Sequence[Port]], name: str | None,
    special: tuple[int, int] = (-1, -1),
) -> Any:  # fmt: skip
    """A node with bodies. `inputs` and `outputs`: port maps of each body. `special`: index of the body's
    parameter with the iteration number, and of its result with the condition, or -1."""
    return kind._of_parts(record, sources, models, inputs, outputs, name, special)


def set_ends(
    model: Model, results: Sequence[Result] | None = None, sinks: Sequence[Node] | None = None
) -> None:
    """Set the results and sinks of a model that is read in parts."""
    if results is not None:
        model._results[:] = results
    if sinks is not None:
        model._sinks[:] = sinks


def set_predecessor(node: Node, predecessor: Node | None) -> None:
    """Order a node, such as an Assign, after one that it does not read, such as its ReadValue."""
    node._after = () if predecessor is None else (predecessor,)


def read_later(model: Model, complete: Callable[[Any, bool], None] | None) -> None:
    """Register `complete(model, is needed now)`, which is called when types are inferred; None: nothing
    remains to be read."""
    model._complete = complete


def note_further_files(model: Model) -> None:
    """Record that a model's data are in further files besides the one that was read."""
    model._of_one_file = False


# -- facts -------------------------------------------------------------------------------------------------


def tensor_type(value: Output) -> TensorType:
    return value._tensor._type


def set_tensor_type(value: Output, tensor_type: TensorType) -> None:
    value._tensor._type = tensor_type


def tensors_of(node: Node) -> Sequence[DescriptorTensor]:
    """The tensors of a node's outputs."""
    return node._tensors


def names_of(value: Output | DescriptorTensor) -> set[str]:
    """The names of a tensor; not to be changed."""
    return _facts(value)._names


def set_names(value: Output | DescriptorTensor, names: Iterable[str]) -> None:
    """Set all names of a tensor, including those of its Results."""
    _facts(value)._names = set(names)


def name_output(value: Output, friendly_name: str, tensor_name: str) -> None:
    """Set the name of an output's node, and the only name of its tensor."""
    value._node._friendly_name = friendly_name
    value._tensor._names = {tensor_name}


def add_names(value: Output | DescriptorTensor, names: Iterable[str]) -> None:
    set_names(value, {*names_of(value), *names})


def _facts(part: Any) -> Any:
    """The object with the attributes of a node, or of an Output its tensor."""
    return part._tensor if isinstance(part, Output) else part


def name_of(node: Node) -> str:
    """The friendly name that was set for a node; "" without one."""
    return node._friendly_name


def record_of(node: Node) -> Op:
    return node._op


def attributes_of(node: Node) -> Mapping[str, Any]:
    """The attributes by the names in the operation's record."""
    return node._attrs


def set_attributes(node: Node, **attributes: Any) -> None:
    """Set attributes by the names in the operation's record; types are inferred at the next validation."""
    node._attrs = {**node._attrs, **attributes}


def ordered_attributes_of(node: Node) -> dict[str, Any]:
    """The attributes in the order in which OpenVINO visits them."""
    return node._ordered_attrs()


def notes_of(part: Node | Output) -> dict[str, Any]:
    """The runtime information of a node or of a tensor; not to be changed."""
    notes = _facts(part)._rt_info
    return {} if notes is None else notes._items


def set_notes(part: Node | Output | DescriptorTensor, notes: Mapping[str, Any]) -> None:
    _facts(part)._rt_info = RTMap(dict(notes))


def users_of(node: Node) -> list[Node]:
    """The existing nodes that read an output of this one, in a model or not."""
    return node._users


def forget_user(node: Node, user: Node) -> None:
    """Remove a node from the users of another one; it keeps its source."""
    node._forget_user(user)


def node_in_files(node: Node) -> Node:
    """The node that represents this one in files and graphs; usually itself."""
    return node._stands_for()


def own_attributes_of(node: CustomOp) -> dict[str, Any]:
    """The attributes of an operation in Python, as files have them."""
    return node._file_attributes()


def own_bodies_of(node: CustomOp) -> Mapping[str, Model]:
    """The Models among the attributes of an operation in Python, by their tags in files."""
    return node._file_bodies()


def bodies_of(node: SubGraphNode) -> Sequence[Model | None]:
    return node._models


def port_maps_of(node: SubGraphNode) -> tuple[Sequence[Sequence[Port]], Sequence[Sequence[Port]]]:
    """(input ports, output ports) of each body."""
    return node._input_ports, node._output_ports


def special_ports_of(node: loop) -> tuple[int, int]:
    """The ports of a Loop's body: (parameter that counts, result that says whether to go on), or -1."""
    return node._special


def model_notes(model: Model) -> Mapping[str, Any]:
    """The runtime information of a model."""
    return model._rt


def walk_model(model: Model, ends: Sequence[Node] | None = None) -> list[Node]:
    """All nodes that a model's ends need, producers first; with `ends`, in their order."""
    return model._walk() if ends is None else model._walk_from(ends)


def read_whole(model: Model) -> None:
    """Read parts of the model that wait for types, and check that all parameters are declared. Raises
    ModelError."""
    model._read_rest(needed=True)
    model._checked_walk()


def graph_of(model: Model) -> Graph:
    """The immutable graph of a model's current state. Raises RuntimeError if the model is not valid."""
    return model._graph()


def stored_size(dtype: str, count: int) -> int:
    """The bytes of `count` elements."""
    return type_of(dtype)._bytes(count)
