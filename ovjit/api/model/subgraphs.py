"""Nodes with bodies: `if_op`, `loop` and `tensor_iterator`, as `ovjit.op` and the opsets have them.

A body is a Model that belongs to its node. It may be edited; what it is when the node's types are inferred
or the model around it is compiled counts. A node that is not put together yet (a body or an input is missing)
has the types that its results have inside the bodies.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from ovjit.api.arguments import expect, explain_calls
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.descriptions import InputDescription, OutputDescription, description_of, port_of
from ovjit.api.model.model import Model
from ovjit.api.model.node import GRAPH_LOCK, Node, Output
from ovjit.errors import ModelError, no_such_form
from ovjit.graph.bodies import CONCAT, DEEPEST, INVARIANT, LAST, MERGED, SLICED, Port, convert_parameters
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import ANY


class SubGraphNode(Node):
    """The base class of the three: bodies, and for each of them the ports to it."""

    __slots__ = ("_input_ports", "_models", "_output_ports")
    _models: list[Model | None]
    _input_ports: list[list[Port]]
    _output_ports: list[list[Port]]
    _has_bodies: ClassVar[bool] = True
    #: What is raised for a result that is not the body's.
    _no_result: ClassVar[type[Exception]] = IndexError

    def _begin(self, record: Op, sources: Sequence[Output], bodies: int) -> None:
        self._setup(record, sources, {}, None)
        self._models = [None] * bodies
        self._input_ports = [[] for _ in range(bodies)]
        self._output_ports = [[] for _ in range(bodies)]
        for source in sources:
            source._node._remember_user(self)

    @classmethod
    def _of_parts(
        cls, record: Op, sources: Sequence[Output], models: Sequence[Model | None],
        inputs: Sequence[Iterable[Port]], outputs: Sequence[Iterable[Port]], name: str | None,
        special: tuple[int, int] = (-1, -1),
    ) -> Any:  # fmt: skip
        """A whole node, as files have it. Raises ModelError when its parts do not fit."""
        node = cls.__new__(cls)
        node._begin(record, sources, len(models))
        node._friendly_name = name or ""
        node._models = list(models)
        node._input_ports = [list(rows) for rows in inputs]
        node._output_ports = [list(rows) for rows in outputs]
        node._set_special(special)
        node._set_types(node._infer())
        return node

    # -- what the graph gets ---------------------------------------------------------------------------------

    def _graph_attrs(self) -> dict[str, Any]:
        """The attributes of the operation's record, the bodies as graphs."""
        raise NotImplementedError

    def _set_special(self, ports: tuple[int, int]) -> None:
        """The indices of a Loop's iteration counter (a parameter) and of its condition (a result)."""

    def _body_graph(self, index: int) -> Graph:
        model = self._models[index]
        if model is None:
            raise ModelError(
                f"node {self.get_friendly_name()!r} ({self._op.name}) has no body yet; "
                "call set_function or set_body first"
            )
        with inside_body():
            return model._graph()

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        if not self._is_complete():
            return self._provisional()
        return super()._infer(inputs)

    def _is_complete(self) -> bool:
        """Whether every body is there and all its parameters are fed."""
        for i, model in enumerate(self._models):
            fed = {port.inner for port in self._input_ports[i]} | self._own_parameters()
            if model is None or len(fed) < len(model._parameters):
                return False
        return len({len(rows) for rows in self._output_ports}) == 1

    def _own_parameters(self) -> set[int]:
        """The parameters that the node itself feeds."""
        return set()

    def _provisional(self) -> tuple[TensorType, ...]:
        result: dict[int, TensorType] = {}
        for model, rows in zip(self._models, self._output_ports, strict=True):
            for port in rows:
                if model is not None and port.outer not in result and 0 <= port.inner < len(model._results):
                    inner = model._results[port.inner]._tensors[0]._type
                    shape = inner.shape
                    if port.kind == CONCAT and shape and -len(shape) <= port.axis < len(shape):
                        axis = port.axis % len(shape)
                        shape = (*shape[:axis], ANY, *shape[axis + 1 :])
                    result[port.outer] = TensorType(inner.dtype, shape)
        return tuple(result.get(i, TensorType("dynamic", None)) for i in range(max(result, default=-1) + 1))

    def _settle_bodies(self) -> None:
        """Give the bodies' parameters the shapes that they get, as OpenVINO does."""
        if not self._is_complete():
            return
        input_types = [source._tensor._type for source in self._inputs]
        with inside_body():
            for model, types in zip(self._models, self._feeds(input_types), strict=True):
                assert model is not None
                for parameter, new in zip(model._parameters, types, strict=True):
                    if new is not None and new.shape != parameter._attrs["shape"]:
                        parameter._attrs = {**parameter._attrs, "shape": new.shape}
                with suppress(ModelError):  # of a branch that these shapes do not fit, and that is not taken
                    model.validate_nodes_and_infer_types()

    def _feeds(self, input_types: Sequence[TensorType]) -> list[list[TensorType | None]]:
        """The types of each body's parameters, None for those that the node itself supplies."""
        out = []
        for model, rows in zip(self._models, self._input_ports, strict=True):
            assert model is not None
            source = {port.inner: input_types[port.outer] for port in rows}
            out.append([source.get(i) for i in range(len(model._parameters))])
        return out

    def _refresh(self) -> None:
        self._set_types(self._infer())

    def _copied_from(self, other: Node) -> None:
        assert isinstance(other, SubGraphNode)
        with inside_body():
            self._models = [None if model is None else model.clone() for model in other._models]
        self._input_ports = [list(rows) for rows in other._input_ports]
        self._output_ports = [list(rows) for rows in other._output_ports]

    # -- putting together ------------------------------------------------------------------------------------

    def _add_input(self, value: Any) -> int:
        """The index of the new input that takes `value`."""
        source = _output(value, "an input")
        self._inputs.append(source)
        source._node._remember_user(self)
        return len(self._inputs) - 1

    def _parameter(self, body: int, parameter: Any) -> int:
        model = self._body(body)
        expect(parameter, Parameter)
        index = model.get_parameter_index(parameter)
        if index < 0:
            raise IndexError(
                f"{parameter!r} is not a parameter of the body of {self.get_friendly_name()!r} "
                f"({self._op.name})"
            )
        return index

    def _result(self, body: int, value: Any) -> int:
        model = self._body(body)
        index = model.get_result_index(value if isinstance(value, Result) else _output(value, "a result"))
        if index < 0:
            raise self._no_result(
                f"{value!r} is not a result of the body of {self.get_friendly_name()!r} ({self._op.name})"
            )
        return index

    def _body(self, index: int) -> Model:
        model = self._models[index] if 0 <= index < len(self._models) else None
        if model is None:
            raise TypeError(f"node {self.get_friendly_name()!r} ({self._op.name}) has no body {index} yet")
        return model

    def _set_body(self, index: int, body: Any) -> None:
        expect(body, Model, "a body is a Model")
        with GRAPH_LOCK:
            self._models[self._index(index)] = body

    def _describe(self, ports: list[list[Port]], index: int, rows: Any, kind: type) -> None:
        """Replace the ports of a body. TypeError unless `rows` are descriptions of this kind."""
        described = _ports_of(rows, kind)
        with GRAPH_LOCK:
            ports[self._index(index)] = described

    def _append_outputs(self, ports: Sequence[Port]) -> Output:
        """The new output that has one of these ports in each body. Without it if the types do not fit."""
        for rows, port in zip(self._output_ports, ports, strict=True):
            rows.append(port)
        try:
            self._refresh()
        except BaseException:
            for rows in self._output_ports:
                rows.pop()
            raise
        return self.output(ports[0].outer)

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self._models):
            raise IndexError(
                f"body index {index} is out of range: {self._op.name} has {len(self._models)} bodies"
            )
        return index


@explain_calls
class _Repeated(SubGraphNode):
    """The base class of loops, which have one body."""

    __slots__ = ()

    def _find_retyped_inputs(self) -> dict[int, str]:
        """The inputs whose initial value has another element type than their next values, as index -> the
        latter.

        OpenVINO's plugin allows them. The initial value is converted to the type of the body's result, and
        each iteration converts that to the parameter's type. Between floats and integers it would reinterpret
        the bits: that is an error here.
        """
        model = self._models[0]
        assert model is not None
        out = {}
        for port in self._input_ports[0]:
            if port.kind != MERGED or not 0 <= port.back < len(model._results):
                continue
            begins = self._inputs[port.outer]._tensor._type.dtype
            again = model._results[port.back]._tensors[0]._type.dtype
            a, b = (ELEMENT_TYPES.get(name) for name in (begins, again))
            kinds = {a.kind, b.kind} if a and b else {"?"}
            if begins != again and (kinds == {"f"} or kinds <= {"i", "u"}):
                out[port.outer] = again
        return out

    def _start_types(self, input_types: Sequence[TensorType]) -> list[TensorType]:
        """The types of the inputs as the operation's record gets them."""
        rounds = self._find_retyped_inputs()
        return [TensorType(rounds[i], t.shape) if i in rounds else t for i, t in enumerate(input_types)]

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        if self._is_complete():
            inputs = self._start_types([s._tensor._type for s in self._inputs] if inputs is None else inputs)
            self._ends(inputs).feeds(inputs)  # a Model's body takes its inputs, though it may not run
        return super()._infer(inputs)

    def _graph_inputs(self, builder: Builder, inputs: Sequence[Value]) -> list[Value]:
        rounds = self._find_retyped_inputs()
        return [
            builder.add("Convert", [value], {"destination_type": rounds[i]}).output if i in rounds else value
            for i, value in enumerate(inputs)
        ]

    def _graph_attrs(self) -> dict[str, Any]:
        body, rounds = self._body_graph(0), self._find_retyped_inputs()
        if rounds:
            ports = (port for port in self._input_ports[0] if port.outer in rounds)
            body = convert_parameters(body, {port.inner: rounds[port.outer] for port in ports})
        return {
            "body": body,
            "input_ports": tuple(self._input_ports[0]),
            "output_ports": tuple(self._output_ports[0]),
        }

    def _feeds(self, input_types: Sequence[TensorType]) -> list[list[TensorType | None]]:
        return [list(self._ends(input_types).feeds(self._start_types(input_types))[0])]

    def _ends(self, input_types: Sequence[TensorType]) -> Any:
        """The ports with the body as it is now, see `ovjit_ops.control.ends`."""
        from ovjit_ops.control.ends import ports_of

        return ports_of(self._graph_attrs(), len(input_types))

    def get_function(self) -> Model:
        """The body. Raises TypeError while there is none."""
        return self._body(0)

    def set_function(self, func: Model) -> None:
        """Set the body."""
        self._set_body(0, func)

    def set_sliced_input(
        self, parameter: Parameter, value: Output, start: int, stride: int, part_size: int, end: int,
        axis: int,
    ) -> None:  # fmt: skip
        """A new input with another part for every iteration: `part_size` elements along `axis`, from `start`
        on, `stride` further each time. -1 is the end of the axis. A negative stride begins there."""
        self._feed(
            SLICED, parameter, value, start=start, stride=stride, part_size=part_size, end=end, axis=axis
        )

    def set_merged_input(
        self, body_parameter: Parameter, initial_value: Output, successive_value: Output
    ) -> None:
        """A new input for the first iteration. Later ones get the previous result `successive_value`."""
        self._feed(MERGED, body_parameter, initial_value, back=self._result(0, successive_value))

    def set_invariant_input(self, body_parameter: Parameter, value: Output) -> None:
        """A new input that is the same in every iteration."""
        self._feed(INVARIANT, body_parameter, value)

    def _feed(self, kind: str, parameter: Parameter, value: Output, **more: int) -> None:
        with GRAPH_LOCK:
            index = self._parameter(0, parameter)
            self._input_ports[0].append(Port(kind, self._add_input(value), index, **more))
            if self._output_ports[0]:
                self._refresh()

    def get_iter_value(self, body_value: Output, iteration: int = -1) -> Output:
        """A new output: a result of the body in one iteration, -1 for the last."""
        return self._make(LAST, body_value, iteration=iteration)

    def get_concatenated_slices(
        self, value: Output, start: int, stride: int, part_size: int, end: int, axis: int
    ) -> Output:
        """A new output: a result of the body, concatenated over all iterations along `axis`, in reverse order
        for a negative stride."""
        return self._make(CONCAT, value, start=start, stride=stride, part_size=part_size, end=end, axis=axis)

    def _make(self, kind: str, value: Output, **more: int) -> Output:
        with GRAPH_LOCK:
            number = len(self._output_ports[0])
            return self._append_outputs([Port(kind, number, self._result(0, value), **more)])

    def get_input_descriptions(self) -> list[Any]:
        return [description_of(port) for port in self._input_ports[0]]

    def get_output_descriptions(self) -> list[Any]:
        return [description_of(port) for port in self._output_ports[0]]

    def set_input_descriptions(self, inputs: list[Any]) -> None:
        self._describe(self._input_ports, 0, inputs, InputDescription)

    def set_output_descriptions(self, outputs: list[Any]) -> None:
        self._describe(self._output_ports, 0, outputs, OutputDescription)

    def get_num_iterations(self) -> int:
        """The number of iterations, -1 if unknown."""
        if not self._is_complete():
            return -1
        with GRAPH_LOCK:
            iterations = self._iterations([source._tensor._type for source in self._inputs])
        return -1 if iterations is None else iterations

    def _iterations(self, types: list[TensorType]) -> int | None:
        raise NotImplementedError


@explain_calls
class loop(_Repeated):
    """Loop: `loop()`, or `loop(trip_count, execution_condition)` of two Nodes or Outputs."""

    __slots__ = ("_special",)
    _special: tuple[int, int]

    def __init__(self, *args: Any, **kwargs: Any):
        inputs = _arguments(args, kwargs, ("trip_count", "execution_condition"), "loop")
        self._begin(find_op("Loop"), inputs, 1)
        self._special = (-1, -1)

    def get_special_body_ports(self) -> list[int]:
        """[the parameter that counts iterations, the result that is the condition], by index, -1 for none."""
        return list(self._special)

    def set_special_body_ports(self, special_body_ports: list[int]) -> None:
        if not isinstance(special_body_ports, (list, tuple)) or len(special_body_ports) != 2:
            raise no_such_form(
                "special body ports are two indices: the parameter that receives the iteration number, "
                "and the result that holds the condition"
            )
        self._set_special((int(special_body_ports[0]), int(special_body_ports[1])))

    def _set_special(self, ports: tuple[int, int]) -> None:
        self._special = ports

    def _own_parameters(self) -> set[int]:
        return {self._counter()} - {-1}

    def _counter(self) -> int:
        """The parameter that counts iterations. If none is named, an unfed and unread one may count. Such
        bodies are common, and OpenVINO accepts them."""
        model = self._models[0]
        if self._special[0] != -1 or model is None:
            return self._special[0]
        fed = {port.inner for port in self._input_ports[0]}
        for i, parameter in enumerate(model._parameters):
            if i not in fed and not parameter._users and parameter._attrs["element_type"] in ("i32", "i64"):
                return i
        return -1

    def _graph_attrs(self) -> dict[str, Any]:
        again = self._special[1]
        return {
            **super()._graph_attrs(), "iteration_parameter": self._counter(), "condition_result": again,
        }  # fmt: skip

    def _iterations(self, types: list[TensorType]) -> int | None:
        from ovjit_ops.control.ends import loop_iterations

        return loop_iterations(self._start_types(types), self._ends(types))

    def _copied_from(self, other: Node) -> None:
        super()._copied_from(other)
        self._special = other._special  # type: ignore[attr-defined]


class tensor_iterator(_Repeated):
    """TensorIterator, with one iteration for each part of its sliced inputs."""

    __slots__ = ()

    def __init__(self) -> None:
        self._begin(find_op("TensorIterator"), (), 1)

    def get_body(self) -> Model:
        """The body. Raises TypeError while there is none."""
        return self._body(0)

    def set_body(self, body: Model) -> None:
        self._set_body(0, body)

    def _iterations(self, types: list[TensorType]) -> int | None:
        ends = self._ends(types)
        return ends.slice_iterations([t.shape for t in types]) if ends.of(SLICED) else 1


@explain_calls
class if_op(SubGraphNode):
    """If: `if_op()`, or `if_op(execution_condition)` of a Node or Output."""

    __slots__ = ()
    _no_result = ModelError

    def __init__(self, *args: Any, **kwargs: Any):
        inputs = _arguments(args, kwargs, ("execution_condition",), "if_op")
        self._begin(find_op("If"), inputs, 2)

    def _graph_attrs(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for i, branch in enumerate(("then", "else")):
            attrs[f"{branch}_body"] = self._body_graph(i)
            attrs[f"{branch}_inputs"] = tuple(self._input_ports[i])
            attrs[f"{branch}_outputs"] = tuple(self._output_ports[i])
        return attrs

    def get_then_body(self) -> Model:
        return self._body(0)

    def get_else_body(self) -> Model:
        return self._body(1)

    def get_function(self, index: int) -> Model:
        """The body that runs where the condition is true (0) or false (1)."""
        return self._body(index)

    def set_then_body(self, body: Model) -> None:
        self._set_body(0, body)

    def set_else_body(self, body: Model) -> None:
        self._set_body(1, body)

    def set_function(self, index: int, func: Model) -> None:
        self._set_body(index, func)

    def set_input(
        self, value: Output, then_parameter: Parameter | None, else_parameter: Parameter | None
    ) -> None:
        """A new input, and what it feeds in each branch (None: nothing)."""
        with GRAPH_LOCK:
            parameters = (then_parameter, else_parameter)
            fed = [None if p is None else self._parameter(i, p) for i, p in enumerate(parameters)]
            outer = self._add_input(value)
            for i, index in enumerate(fed):
                if index is not None:
                    self._input_ports[i].append(Port(INVARIANT, outer, index))
            if self._output_ports[0]:
                self._refresh()

    def set_output(self, then_result: Result, else_result: Result) -> Output:
        """A new output: the one result or the other."""
        for result in (then_result, else_result):
            expect(result, Result)
        with GRAPH_LOCK:
            out = [self._result(i, r) for i, r in enumerate((then_result, else_result))]
            number = len(self._output_ports[0])
            return self._append_outputs([Port(LAST, number, index) for index in out])

    def get_input_descriptions(self, index: int) -> list[Any]:
        return [description_of(port) for port in self._input_ports[self._index(index)]]

    def get_output_descriptions(self, index: int) -> list[Any]:
        return [description_of(port) for port in self._output_ports[self._index(index)]]

    def set_input_descriptions(self, index: int, inputs: list[Any]) -> None:
        self._describe(self._input_ports, index, inputs, InputDescription)

    def set_output_descriptions(self, index: int, outputs: list[Any]) -> None:
        self._describe(self._output_ports, index, outputs, OutputDescription)


#: The class of nodes of an operation with bodies, by the operation's name.
CLASSES = {"If": if_op, "Loop": loop, "TensorIterator": tensor_iterator}


class _Depth(threading.local):
    bodies = 0


_depth = _Depth()


@contextmanager
def inside_body() -> Iterator[None]:
    """Context manager for the construction of a body. Raises ModelError for bodies that are nested too deep,
    such as those that contain themselves."""
    if _depth.bodies >= DEEPEST:
        raise ModelError(f"bodies are nested more than {DEEPEST} levels deep")
    _depth.bodies += 1
    try:
        yield
    finally:
        _depth.bodies -= 1


def _arguments(args: tuple, kwargs: dict[str, Any], names: tuple[str, ...], what: str) -> list[Output]:
    if len(args) > len(names) or set(kwargs) - set(names):
        raise no_such_form(f"{what} takes {' and '.join(names)}")
    arguments = {**dict(zip(names, args, strict=False)), **kwargs}
    if not arguments:
        return []
    if len(arguments) < len(names):
        raise no_such_form(f"{what} takes {' and '.join(names)}, or nothing")
    return [_output(arguments[name], name) for name in names]


def _output(value: Any, what: str) -> Output:
    if isinstance(value, Node):
        return value.output(0)
    return expect(value, Output, f"{what} is an Output")


def _ports_of(rows: Any, kind: type) -> list[Port]:
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, kind) for row in rows):
        raise no_such_form(f"expected a list of descriptions, each an {kind.__name__}")
    return [port_of(row) for row in rows]
