"""The ports of nodes: `Output`, `Input`, `ConstOutput`, and what is known of the tensor behind one.

Ports are handles: they compare by node and index. Every edit of an existing graph happens under `GRAPH_LOCK`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Set
from typing import TYPE_CHECKING, Any

from ovjit import locks
from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect
from ovjit.api.model.rt_info import FixedRTMap, RTMap
from ovjit.api.tensors.convert import partial_shape_of, shape_of, type_of
from ovjit.errors import ModelError
from ovjit.graph import shapes
from ovjit.graph.op import TensorType

if TYPE_CHECKING:
    from ovjit.api.tensors.shapes import PartialShape
    from ovjit.api.tensors.types import Type
    from ovjit.api.tensors.vectors import Shape

#: Held while an existing graph is edited, copied or captured for compilation. One for all graphs, because
#: models may share nodes. Held over a fork as well, so that a child never gets a half-edited graph.
GRAPH_LOCK = locks.rlock("graph")


class DescriptorTensor:
    """The facts of a tensor in a graph: type, shape, names. Those that Results have given it stay when
    others are set."""

    __slots__ = ("_bounds", "_names", "_of_results", "_rt_info", "_symbols", "_type")

    def __init__(self, type: TensorType):
        self._bounds: dict[str, Any] | None = None
        self._symbols: list[Any] = []
        self._type = type
        self._names: set[str] = set()
        self._of_results: set[str] = set()
        self._rt_info: RTMap | None = None

    def get_names(self) -> set[str]:
        return set(self._names)

    def set_names(self, names: Set[str]) -> None:
        """Replace the names. Raises TypeError for anything but strings."""
        checked = _checked_names(names)
        with GRAPH_LOCK:
            self._names = checked | self._of_results

    def add_names(self, names: Set[str]) -> None:
        checked = _checked_names(names)
        with GRAPH_LOCK:
            self._names = self._names | checked

    def get_any_name(self) -> str:
        """One of the names, always the same. Raises RuntimeError if there is none."""
        if not self._names:
            raise ModelError("Attempt to get a name for a Tensor without names; select it by its index")
        return min(self._names)

    def get_element_type(self) -> Type:
        return type_of(self._type.dtype)

    def get_partial_shape(self) -> PartialShape:
        return partial_shape_of(self._type.shape)

    def get_shape(self) -> Shape:
        """The shape. Raises RuntimeError if it is dynamic."""
        return shape_of(self._type.shape)

    def get_rt_info(self) -> RTMap:
        if self._rt_info is None:
            self._rt_info = RTMap()
        return self._rt_info

    def get_lower_value(self) -> Any:
        """The smallest values, as noted by `set_lower_value`. RuntimeError if there are none."""
        return self._read_bound("lower")

    def get_upper_value(self) -> Any:
        """The largest values, as noted by `set_upper_value`. RuntimeError if there are none."""
        return self._read_bound("upper")

    def set_lower_value(self, lower_bound: Any) -> None:
        """Note a Tensor of the smallest values."""
        self._bounds = {**(self._bounds or {}), "lower": lower_bound}

    def set_upper_value(self, upper_bound: Any) -> None:
        """Note a Tensor of the largest values."""
        self._bounds = {**(self._bounds or {}), "upper": upper_bound}

    def _read_bound(self, which: str) -> Any:
        if self._bounds is None or which not in self._bounds:
            raise ModelError(f"Tensor was not initialized: no {which} values are recorded")
        return self._bounds[which]

    def get_value_symbol(self) -> list[Any]:
        """The Symbols of the values, as noted by `set_value_symbol`."""
        return list(self._symbols)

    def set_value_symbol(self, value_symbol: Iterable[Any]) -> None:
        """Note a Symbol for each value."""
        self._symbols = list(value_symbol)

    @property
    def size(self) -> int:
        """Bytes of the tensor. Raises RuntimeError if its shape is dynamic."""
        count = 1
        for d in self.get_shape():
            count *= d
        return -(-count * self.get_element_type().bitwidth // 8)

    names = accessor(get_names, set_names)
    any_name = accessor(get_any_name)
    element_type = accessor(get_element_type)
    partial_shape = accessor(get_partial_shape)
    shape = accessor(get_shape)
    rt_info = accessor(get_rt_info)

    def __repr__(self) -> str:
        return f"<DescriptorTensor: {_tensor_text(self)}>"


class ResultTensor(DescriptorTensor):
    """The tensor of a Result: that of the value which it takes, but for names. A Result that is given names
    has these alone, and the value has them besides its own; one without shows the value's."""

    __slots__ = ("_own_names", "_source")

    def __init__(self, source: DescriptorTensor, own_names: Iterable[str] = ()):
        self._source = source
        self._own_names = set(own_names)

    @property
    def _names(self) -> set[str]:
        return self._own_names or self._source._names

    @_names.setter
    def _names(self, names: set[str]) -> None:
        self.name(names)

    def set_names(self, names: Set[str]) -> None:
        checked = _checked_names(names)
        with GRAPH_LOCK:
            self.name(checked)

    def add_names(self, names: Set[str]) -> None:
        checked = _checked_names(names)
        with GRAPH_LOCK:
            self.name(self._own_names | checked)

    names = accessor(DescriptorTensor.get_names, set_names)

    def of(self, source: DescriptorTensor) -> ResultTensor:
        """The tensor of a Result with the same names whose source is `source`. Entries of rt_info, such as a
        layout, are copied to `source` unless it has its own under these keys."""
        if self._source._rt_info and source is not self._source:
            notes = source.get_rt_info()._items
            notes.update({**self._source._rt_info._items, **notes})
        return ResultTensor(source, self._own_names)

    def keep(self) -> None:
        """Fix the names of the tensor: later changes of the value's names do not change them."""
        self._own_names = set(self._source._names)

    def name(self, names: set[str]) -> None:
        """Let these be the names of the Result, which the value has as well."""
        source, old = self._source, self._own_names
        source._of_results = (source._of_results - old) | names
        source._names = (source._names - old) | names
        self._own_names = names


def _of_source(slot: str) -> Any:
    """A ResultTensor's slot that is its source's."""
    return property(
        lambda self: getattr(self._source, slot), lambda self, value: setattr(self._source, slot, value)
    )


for _slot in ("_bounds", "_rt_info", "_symbols", "_type"):
    setattr(ResultTensor, _slot, _of_source(_slot))


class _End:
    """The base class of a node's inputs and outputs. Programs may give them attributes."""

    __slots__ = ("__dict__", "_index", "_node")
    _node: Any  # the Node, whose module imports this one
    _index: int
    #: What gives one.
    _made_by = "Node.output, Model.outputs"

    def __init__(self, *args: Any, **kwargs: Any):
        name = type(self).__name__
        raise TypeError(f"ovjit.{name}: No constructor defined! See {self._made_by}")

    @classmethod
    def _of(cls, node: Any, index: int) -> Any:
        port = cls.__new__(cls)
        port._node = node
        port._index = index
        return port

    @property
    def _tensor(self) -> DescriptorTensor:
        raise NotImplementedError

    def get_node(self) -> Any:
        """The Node that it belongs to."""
        return self._node

    def get_index(self) -> int:
        return self._index

    def get_tensor(self) -> DescriptorTensor:
        return self._tensor

    def get_element_type(self) -> Type:
        return self._tensor.get_element_type()

    def get_partial_shape(self) -> PartialShape:
        return self._tensor.get_partial_shape()

    def get_shape(self) -> Shape:
        """The shape. Raises RuntimeError if it is dynamic."""
        return self._tensor.get_shape()

    def __hash__(self) -> int:
        return hash((id(self._node), self._index))


@functools.total_ordering
class _Port(_End):
    """The base class of Output and ConstOutput: one output of a node."""

    __slots__ = ()

    @classmethod
    def _from_node(cls, node: Any) -> Any:
        """The only output of a node, or its first."""
        return cls._of(node, 0)

    @property
    def _tensor(self) -> DescriptorTensor:
        return self._node._tensors[self._index]

    def get_names(self) -> set[str]:
        return self._tensor.get_names()

    def get_any_name(self) -> str:
        """One of the names. Raises RuntimeError if there is none."""
        return self._tensor.get_any_name()

    def get_rt_info(self) -> RTMap:
        return self._tensor.get_rt_info()

    def get_target_inputs(self) -> set[Input]:
        """The inputs of nodes that take this output."""
        return set(target_inputs(self._node, self._index))

    node = accessor(_End.get_node)
    index = accessor(_End.get_index)
    tensor = accessor(_End.get_tensor)
    any_name = accessor(get_any_name)
    element_type = accessor(_End.get_element_type)
    partial_shape = accessor(_End.get_partial_shape)
    shape = accessor(_End.get_shape)
    rt_info = accessor(get_rt_info)
    target_inputs = accessor(get_target_inputs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Port):
            return NotImplemented
        return self._node is other._node and self._index == other._index

    __hash__ = _End.__hash__

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, _Port) or type(other) is not type(self):
            return NotImplemented
        return (self._node._id, self._index) < (other._node._id, other._index)

    def __copy__(self) -> Any:
        return self._of(self._node, self._index)

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError(f"Cannot deepcopy 'openvino.{type(self).__name__}' object.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {_tensor_text(self._tensor)}>"


class Output(_Port):
    """openvino.Output represents port/node output."""  # programs read these words

    __slots__ = ()

    def set_names(self, names: Set[str]) -> None:
        self._tensor.set_names(names)

    def add_names(self, names: Set[str]) -> None:
        self._tensor.add_names(names)

    def set_rt_info(self, value: Any, key: str) -> None:
        self.get_rt_info()._set(key, value)

    def remove_target_input(self, target_input: Input) -> None:
        """Leave a consumer out of `target_inputs`; the consumer keeps its source until it gets another.

        One that is no consumer of this output is left as it is.
        """
        expect(target_input, Input)
        if target_input.get_source_output() == self:
            with GRAPH_LOCK:
                self._node._forget_user(target_input._node)

    def replace(self, replacement: Output) -> None:
        """Connect all consumers to `replacement` instead, which also gets the names."""
        expect(replacement, Output)
        with GRAPH_LOCK:
            names = self._tensor._names
            for target in target_inputs(self._node, self._index):
                if target._node is not replacement._node:
                    target._node._connect(target._index, replacement)
            replacement._tensor._names = replacement._tensor._names | names

    names = accessor(_Port.get_names, set_names)


class ConstOutput(_Port):
    """openvino.ConstOutput represents port/node output."""  # programs read these words

    __slots__ = ()
    names = accessor(_Port.get_names)

    def get_rt_info(self) -> RTMap:
        return FixedRTMap(super().get_rt_info()._items)

    rt_info = accessor(get_rt_info)


class Input(_End):
    """openvino.Input wraps ov::Input<Node>"""

    __slots__ = ()
    _made_by = "Node.input"

    @property
    def _tensor(self) -> DescriptorTensor:
        return self.get_source_output()._tensor

    def get_source_output(self) -> Output:
        return self._node._inputs[self._index]

    def get_rt_info(self) -> RTMap:
        return self._node._input_rt_info(self._index)

    def set_rt_info(self, value: Any, key: str) -> None:
        self.get_rt_info()._set(key, value)

    def replace_source_output(self, new_source_output: Output) -> None:
        """Take `new_source_output` from now on. Types are inferred at the next validation."""
        expect(new_source_output, Output)
        with GRAPH_LOCK:
            self._node._connect(self._index, new_source_output)

    rt_info = accessor(get_rt_info)

    def __copy__(self, memo: object = None) -> Any:
        raise TypeError("cannot pickle 'openvino._pyopenvino.Input' object")

    __deepcopy__ = __copy__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Input):
            return NotImplemented
        return self._node is other._node and self._index == other._index

    __hash__ = _End.__hash__

    def __repr__(self) -> str:
        tensor = self.get_tensor()._type
        return f"<Input: shape{shape_text(tensor.shape)} type: {tensor.dtype}>"


def target_inputs(node: Any, index: int) -> list[Input]:
    """The inputs that take output `index` of `node`, oldest consumer first."""
    users = sorted(node._users or (), key=operator.attrgetter("_id"))
    return [
        Input._of(user, i)
        for user in users
        for i, source in enumerate(user._inputs)
        if source._node is node and source._index == index
    ]


def _checked_names(names: Set[str]) -> set[str]:
    expect(names, Set, "names are a set of str")
    checked = set(names)
    for name in checked:
        expect(name, str, "names are str")
    return checked


def _tensor_text(tensor: DescriptorTensor) -> str:
    names = ", ".join(sorted(tensor._names))
    return f"names[{names}] shape{shape_text(tensor._type.shape)} type: {tensor._type.dtype}"


def shape_text(shape: Any) -> str:
    """As OpenVINO prints it: `..8` for a range from 0, where the inner graph writes `0..8`."""
    if shape is None:
        return "[...]"
    bounds = [(d, *shapes.bounds(d)) for d in shape]
    return "[" + ",".join(f"..{high}" if low == 0 and high else str(d) for d, low, high in bounds) + "]"
