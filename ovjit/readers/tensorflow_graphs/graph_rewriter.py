"""A graph of TensorFlow, made anew with operators that its exporter knows.

Operators are made again one by one, in order. Values that the exporter has no type for take another form:
- a complex tensor is two real ones (`Pair`)
- a list of tensors, or a TensorArray, is one tensor with a first dimension, or `Unset` before its first write
- both sides of a Switch are computed, and Merge chooses; a side that is never taken is `DEAD`
Functions that are called, and bodies of loops and conditions, are made again in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import tensorflow as tf

from ovjit.errors import UnsupportedError
from ovjit.readers.tensorflow_graphs.frames import Frame, Frames, Path

#: A value of a graph: a tensor, or one of the forms below.
Value = Any
Rule = Callable[["Rebuilder", Any, list[Value]], list[Value]]
#: Values before an iteration of a loop -> what its condition or its body makes of them.
Transition = Callable[[Sequence[Value]], list[Value]]

RULES: dict[str, Rule] = {}
#: Operators that take the parts of complex numbers alike.
PART_BY_PART: set[str] = set()
#: Which output of which switches a value needs: the graph and name of what they ask -> the output's number.
Side = dict[tuple[int, str], int]

#: A loop is read at most this often, until the forms and shapes of its values stay.
MOST_READINGS = 4
#: Nesting of functions.
MOST_NESTING = 40


class Pair(NamedTuple):
    """A complex tensor as its real and imaginary parts."""

    real: Any
    imag: Any


class Unset(NamedTuple):
    """A list whose elements have no shape yet."""

    size: Any
    dtype: Any
    grows: bool = False


class _Dead:
    """A value of a branch that is never taken."""


DEAD = _Dead()


def rule(*names: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return add


def rebuilt(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[Any, list[str]]:
    """The GraphDef, and the names of its outputs. UnsupportedError for graphs without such a form."""
    source, result = tf.Graph(), tf.Graph()
    with source.as_default():
        tf.graph_util.import_graph_def(graph, name="")
    with result.as_default():
        builder = Rebuilder()
        values_by_name = builder.run(source, {})
        names = []
        for name in outputs:
            value = values_by_name[name]
            if not isinstance(value, tf.Tensor):
                kind = {Pair: "complex", Unset: "a list that is empty"}.get(type(value), "never computed")
                raise UnsupportedError(f"the output {name} is {kind}, which is not supported here")
            # an own operator, so that no two outputs are one tensor
            names.append(tf.identity(value, name=f"{name.replace(':', '_')}_rebuilt").name)
    again = result.as_graph_def()
    for nodes in (again.node, *(function.node_def for function in again.library.function)):
        for node in nodes:  # the exporter's optimiser takes loops apart, of which the exporter can do less
            node.attr.pop("_lower_using_switch_merge", None)
    return again, names


class Rebuilder:
    """Copies a graph's operators into the default graph, with rules for those that the exporter lacks."""

    def __init__(self) -> None:
        self.depth = 0
        #: Names in bodies are their own ones: the exporter puts bodies into the graphs around them.
        self.names = count()
        #: What switches ask, by the graph and the name of the tensor.
        self.predicates: dict[tuple[int, str], Value] = {}

    def run(self, source: Any, values: dict[str, Value]) -> dict[str, Value]:
        """Copy a graph. Returns the values of all its tensors by name. `values`: those that exist already."""
        self._in_order(Frames(source), (), values, {})
        return values

    def _in_order(
        self, frames: Frames, path: Path, values: dict[str, Value], sides: dict[str, Side],
        targets: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """Compute the values of a graph's operators, or of those of a loop, in order."""
        for op in frames.units(path, values, targets):
            if isinstance(op, Frame):
                self._run_loop(frames, op, values, sides)
            elif not op.outputs or any(out.name not in values for out in op.outputs):
                self._once(op, values, sides)

    def _once(self, op: Any, values: dict[str, Value], sides: dict[str, Side]) -> None:
        inputs = [values[tensor.name] for tensor in op.inputs]
        befores = [
            *(tensor.name for tensor in op.inputs),
            *(f"^{before.name}" for before in op.control_inputs),
        ]
        side: Side = {}
        for before in befores:
            side |= sides.get(before, {})
        # what waits for an operator is of its side, too, and is not computed where it is not
        itself = f"^{op.name}"
        own_sides = dict.fromkeys((itself, *(out.name for out in op.outputs)), side)
        if op.type == "Merge":
            result, side = self._merge(op, inputs, [sides.get(t.name, {}) for t in op.inputs])
            own_sides = dict.fromkeys(own_sides, side)
        elif op.type in ("Switch", "RefSwitch", "_SwitchN"):
            result = self._switch(op, inputs)
            key = (id(op.graph), _source_of(op.inputs[1]).name)
            self.predicates[key] = inputs[1]
            own_sides |= {out.name: {**side, key: index} for index, out in enumerate(op.outputs)}
        elif any(values.get(before) is DEAD for before in befores):
            result = [DEAD] * len(op.outputs)
            values[itself] = DEAD
        else:
            result = self.operator(op, inputs)
        sides |= own_sides
        values.update(zip((out.name for out in op.outputs), result, strict=True))

    def operator(self, op: Any, inputs: list[Value]) -> list[Value]:
        rule = RULES.get(op.type)
        if rule is not None:
            result = rule(self, op, inputs)
            if result is not NotImplemented:
                return result
        if any(isinstance(v, Pair) for v in inputs):
            return self.both(op, inputs)
        if not all(isinstance(v, tf.Tensor) for v in inputs):
            raise UnsupportedError(f"the operator {op.type} of a list of tensors is not supported")
        return self.same(op, inputs)

    def same(self, op: Any, inputs: Sequence[Any], attributes: dict[str, Any] | None = None) -> list[Any]:
        """A copy of the operator with other operands."""
        graph = tf.compat.v1.get_default_graph()
        attrs = {k: v for k, v in (attributes or op.node_def.attr).items() if not k.startswith("_")}
        result = graph.create_op(op.type, list(inputs), None, name=op.name, attrs=attrs)
        if not attributes:
            for old, new in zip(op.outputs, result.outputs, strict=True):
                if new.shape.rank is None:
                    new.set_shape(old.shape)
        return list(result.outputs)

    def both(self, op: Any, inputs: list[Value]) -> list[Value]:
        """Apply an operator to the real and the imaginary parts separately."""
        if op.type not in PART_BY_PART:
            raise UnsupportedError(f"Complex numbers are not supported here: an operand of {op.type}")
        attributes = {name: _real_types(value) for name, value in op.node_def.attr.items()}
        parts = []
        for part in (0, 1):
            operands = [v[part] if isinstance(v, Pair) else v for v in inputs]
            parts.append(self.same(op, operands, attributes))
        return [
            Pair(*two) if out.dtype.is_complex else two[0]
            for out, *two in zip(op.outputs, *parts, strict=True)
        ]

    def _own_names(self) -> Any:
        return tf.name_scope(f"body_{next(self.names)}")

    # -- functions, conditions and loops ---------------------------------------------------------------------

    def function(self, op: Any, name: str) -> Any:
        from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

        graph = op.graph
        with graph.as_default():
            definition = graph._get_function(name).cached_definition
            return function_def_to_graph(definition, include_library_functions=True)

    def call(self, function: Any, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a function that is inlined."""
        if self.depth > MOST_NESTING:
            raise UnsupportedError(f"functions are nested more than {MOST_NESTING} deep")
        self.depth += 1
        try:
            names = [tensor.name for tensor in function.inputs]
            values = self.run(function, dict(zip(names, inputs, strict=True)))
            return [values[tensor.name] for tensor in function.outputs]
        finally:
            self.depth -= 1

    def choice(self, truth: Any, first: Callable[[], list[Value]], second: Callable[[], list[Value]]) -> Any:
        """The results of a cond: of the first function if `truth`, else of the second."""
        static_value = tf.get_static_value(truth)
        if static_value is not None:
            return first() if static_value.reshape(-1)[0] else second()
        forms: list[list[Value]] = []

        def flat(make: Callable[[], list[Value]]) -> Callable[[], list[Any]]:
            def branch() -> list[Any]:
                with self._own_names():
                    values = make()
                    forms.append(values)
                    return [tf.identity(part) for value in values for part in _parts(value)]

            return branch

        truth = tf.reshape(truth, [])
        with self._own_names():
            result = tf.cond(tf.cast(truth, tf.bool), flat(first), flat(second))
        return _group_parts(result if isinstance(result, (list, tuple)) else [result], forms[0])

    def _run_loop(
        self, frames: Frames, frame: Frame, values: dict[str, Value], sides: dict[str, Side]
    ) -> None:
        """Rebuild a loop of TensorFlow 1 (single operators), and store its results."""
        outer = {**values, **{op.outputs[0].name: values[op.inputs[0].name] for op in frame.constants}}
        starts = [values[variable.start.name] for variable in frame.variables]
        merges = [variable.merge for variable in frame.variables]
        index_by_merge = {merge.name: index for index, merge in enumerate(merges)}
        switches = [
            op for merge in merges for op in merge.outputs[0].consumers()
            if op.type in ("Switch", "RefSwitch") and op.inputs[1].op is frame.condition
        ]  # fmt: skip

        def part(targets: Sequence[Any], more: dict[str, Value]) -> Transition:
            def transition(state: Sequence[Value]) -> list[Value]:
                state_values = {**outer, **more}
                for op in (*merges, *switches):
                    merge = op if op.type.endswith("Merge") else op.inputs[0].op
                    state_values.update(
                        dict.fromkeys((out.name for out in op.outputs), state[index_by_merge[merge.name]])
                    )
                self._in_order(frames, frame.path, state_values, dict(sides), targets)
                return [state_values[tensor.name] for tensor in targets]

            return transition

        if any(value is DEAD for value in starts):
            values.update((op.outputs[0].name, DEAD) for op in frame.exits)
            return
        truth = {frame.condition.outputs[0].name: tf.constant(True)}
        body = part([variable.following for variable in frame.variables], truth)
        ends = self.loop(part([frame.condition.inputs[0]], {}), body, starts)
        side: Side = {}
        for variable in frame.variables:
            side |= sides.get(variable.start.name, {})
        for op in frame.exits:
            source = op.inputs[0].op.inputs[0].op
            at = index_by_merge.get(source.name)
            values[op.outputs[0].name] = outer[source.outputs[0].name] if at is None else ends[at]
            sides[op.outputs[0].name] = side

    def loop(self, cond: Transition, body: Transition, values: list[Value]) -> list[Value]:
        """A while loop whose values may be lists; their forms are known once its body has been traced."""
        wider = [part.shape for value in values for part in _parts(value)]
        for _ in range(MOST_READINGS):
            shapes = wider
            values, wider = self._trace_body_once(body, values, shapes)
            if wider == shapes:
                break

        def goes_on(*parts: Any) -> Any:
            with self._own_names():
                return tf.reshape(cond(_group_parts(parts, values))[0], [])

        def step(*parts: Any) -> list[Any]:
            with self._own_names():
                return [part for value in body(_group_parts(parts, values)) for part in _parts(value)]

        with self._own_names():
            result = tf.while_loop(
                goes_on, step, [part for value in values for part in _parts(value)], shape_invariants=wider
            )
        return _group_parts(result, values)

    def _trace_body_once(
        self, body: Transition, values: list[Value], shapes: Sequence[Any]
    ) -> tuple[list[Value], list[Any]]:
        """Traces a loop's body once. Returns initial values, with zeros for unset ones, and merged shapes."""
        from tensorflow.python.framework.func_graph import FuncGraph

        with FuncGraph("trial").as_default():
            parts = [part for value in values for part in _parts(value)]
            inner = [
                tf.compat.v1.placeholder(part.dtype, shape) for part, shape in zip(parts, shapes, strict=True)
            ]
            result = body(_group_parts(inner, values))
        starts = []
        for value, end in zip(values, result, strict=True):
            if isinstance(value, Unset) and isinstance(end, tf.Tensor):
                dims = [0 if d is None else d for d in end.shape[1:].as_list()]
                value = tf.fill([value.size, *dims], tf.zeros([], value.dtype))
            starts.append(value)
        news = [part.shape for end in result for part in _parts(end)]
        olds = [part.shape for value in starts for part in _parts(value)]
        return starts, [_merge_shapes(old, new) for old, new in zip(olds, news, strict=True)]

    # -- branches of single operators ------------------------------------------------------------------------

    def _switch(self, op: Any, inputs: list[Value]) -> list[Value]:
        static_index = None if inputs[1] is DEAD else tf.get_static_value(inputs[1])
        if static_index is None:
            return [inputs[0]] * len(op.outputs)
        chosen = min(int(static_index.reshape(-1)[0]), len(op.outputs) - 1)
        return [inputs[0] if index == chosen else DEAD for index in range(len(op.outputs))]

    def _merge(self, op: Any, inputs: list[Value], sides: list[Side]) -> tuple[list[Value], Side]:
        live_indices = [i for i, value in enumerate(inputs) if value is not DEAD]
        if not live_indices:
            return [DEAD] * len(op.outputs), {}
        if len(live_indices) == 1:
            return [inputs[live_indices[0]], tf.constant(live_indices[0], tf.int32)], sides[live_indices[0]]
        keys = [
            key
            for key in sides[live_indices[0]]
            if len({sides[i].get(key, -1) for i in live_indices}) == len(live_indices)
        ]
        if not keys or any(key not in sides[i] for i in live_indices for key in keys[:1]):
            raise UnsupportedError("the operator Merge has operands that no Switch tells apart")
        key = keys[0]
        predicate = self.predicates[key]
        order = sorted(live_indices, key=lambda i: sides[i][key])

        def choose(candidates: list[int]) -> list[Value]:
            first = [inputs[candidates[0]], tf.constant(candidates[0], tf.int32)]
            if len(candidates) == 1:
                return first
            number = tf.cast(tf.reshape(predicate, []), tf.int32)
            values: list[Value] = self.choice(
                tf.equal(number, sides[candidates[0]][key]), lambda: first, lambda: choose(candidates[1:])
            )
            return values

        return choose(order), {k: v for k, v in sides[live_indices[0]].items() if k != key}


def _source_of(tensor: Any) -> Any:
    """The source of a tensor, through Identity operators."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _real_types(attribute: Any) -> Any:
    """An attribute with complex types replaced by the types of their parts."""
    from tensorflow.core.framework import attr_value_pb2

    result = attr_value_pb2.AttrValue()
    result.CopyFrom(attribute)
    if attribute.HasField("type"):
        result.type = _PARTS.get(attribute.type, attribute.type)
    elif attribute.HasField("list"):
        result.list.type[:] = [_PARTS.get(kind, kind) for kind in attribute.list.type]
    return result


_PARTS = {
    tf.complex64.as_datatype_enum: tf.float32.as_datatype_enum,
    tf.complex128.as_datatype_enum: tf.float64.as_datatype_enum,
}


def _parts(value: Value) -> list[Any]:
    """The tensors of which a value consists."""
    if isinstance(value, Pair):
        return [value.real, value.imag]
    if isinstance(value, tf.Tensor):
        return [value]
    if isinstance(value, Unset):
        return [tf.convert_to_tensor(value.size)]
    return []


def _like(value: Value, parts: Sequence[Any]) -> Value:
    """A value of the same form as `value`, of other tensors."""
    if isinstance(value, Pair):
        return Pair(*parts)
    if isinstance(value, Unset):
        return Unset(parts[0], value.dtype, value.grows)
    return parts[0] if isinstance(value, tf.Tensor) else value


def _group_parts(parts: Sequence[Any], like: Sequence[Value]) -> list[Value]:
    remaining, result = list(parts), []
    for value in like:
        count = len(_parts(value))
        result.append(_like(value, remaining[:count]))
        del remaining[:count]
    return result


def _merge_shapes(a: Any, b: Any) -> Any:
    """The merged shape of two: a dimension that differs is None."""
    if a.rank is None or a.rank != b.rank:
        return tf.TensorShape(None)
    return tf.TensorShape([x if x == y else None for x, y in zip(a.as_list(), b.as_list(), strict=True)])


@rule("Identity", "StopGradient", "Snapshot", "PreventGradient", "CheckNumerics", "CheckNumericsV2")
def _identity(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    plain = op.type == "Identity" and op.outputs[0].dtype != tf.variant
    return builder.same(op, inputs) if plain and isinstance(inputs[0], tf.Tensor) else inputs[:1]


@rule("IdentityN")
def _identities(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    return inputs


@rule("NoOp", "Assert", "TensorArrayCloseV3")
def _nothing(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    return []


@rule("PartitionedCall", "StatefulPartitionedCall")
def _call(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    return builder.call(builder.function(op, op.get_attr("f").name), inputs)


@rule("While", "StatelessWhile")
def _while(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    functions = [builder.function(op, op.get_attr(name).name) for name in ("cond", "body")]
    cond, body = (partial(builder.call, function) for function in functions)
    return builder.loop(cond, body, inputs)


@rule("If", "StatelessIf")
def _if(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    functions = [builder.function(op, op.get_attr(f"{name}_branch").name) for name in ("then", "else")]
    first, second = (lambda f=f: builder.call(f, inputs[1:]) for f in functions)
    result: list[Value] = builder.choice(inputs[0], first, second)
    return result


@rule("Case", "StatelessCase")
def _case(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    """Case: one of several functions by an index; an index out of range selects the last one."""
    functions = [builder.function(op, branch.name) for branch in op.get_attr("branches")]

    def call_branch(index: int) -> list[Value]:
        if index == len(functions) - 1:
            return builder.call(functions[index], inputs[1:])
        result: list[Value] = builder.choice(
            tf.equal(tf.reshape(inputs[0], []), index),
            lambda: builder.call(functions[index], inputs[1:]),
            lambda: call_branch(index + 1),
        )
        return result

    return call_branch(0)
