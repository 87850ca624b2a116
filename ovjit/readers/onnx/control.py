"""If, Loop and Scan. What a body takes from the graph around it becomes an input of the body."""

from __future__ import annotations

from collections import Counter
from typing import cast

from ovjit.build import Model, Parameter, make_model, make_parameter, tensor_type
from ovjit.build.bodies import if_of, iterator_of, kinds_of, loop_of, over_slices, read_until_stable, slices
from ovjit.graph.op import TensorType
from ovjit.readers.onnx import tensors as tensor_types
from ovjit.readers.onnx.attributes import reads
from ovjit.readers.onnx.repeats import repeat_appended
from ovjit.readers.onnx.rule_language import *

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope

#: Loops over sequences are unrolled, up to this many iterations.
MAX_TRIPS = 1024


class _DynamicLength(UnsupportedError):
    """A loop over sequences cannot be unrolled, as the number of its iterations is not known."""


@onnx_op("If")
def if_(n: OnnxNode) -> Any:
    """If. A constant condition selects its branch while the model is read."""
    condition = n[0]
    constant = n.value(condition)
    if constant is not None:
        if constant.size != 1:
            raise ModelError(f"the condition should have one element; its shape is {list(constant.shape)}")
        branch = n.require("then_branch" if bool(constant.reshape(())) else "else_branch")
        values, inner = n.reader.subgraph(branch, n.scope, {}, captures=False)
        names = [info.name for info in branch.output]
        # a value from around the branch is given another name only after a node of its own
        return [
            n.same(v) if isinstance(v, Output) and name not in inner.values else v
            for name, v in zip(names, values, strict=True)
        ]
    branches = [n.require(f"{which}_branch") for which in ("then", "else")]
    read = [n.reader.subgraph(branch, n.scope, {}, captures=True) for branch in branches]
    if len(read[0][0]) != len(read[1][0]):
        raise ModelError(f"the branches return {len(read[0][0])} and {len(read[1][0])} values")
    joined = [unify_branch_values(n, a, b) for a, b in zip(read[0][0], read[1][0], strict=True)]
    results = ([v for a, _, _ in joined for v in a], [v for _, b, _ in joined for v in b])
    models = [
        _body(values, inner, branch.name)
        for values, (_, inner), branch in zip(results, read, branches, strict=True)
    ]
    captures = [[source for _, source in inner.captured] for _, inner in read]
    if not models[0].get_results():  # branches return optionals that are empty, or sequences of nothing
        return [rebuild(iter(())) for _, _, rebuild in joined]
    outputs = iter(if_of(condition, captures, models, n.reader.name(n.base, "If")))
    return [rebuild(outputs) for _, _, rebuild in joined]


def _body(results: Sequence[Output], inner: Any, name: str, parameters: Sequence[Parameter] = ()) -> Model:
    """The Model of a body; captured values are its last parameters."""
    return make_model(results, [*parameters, *(p for p, _ in inner.captured)], name)


def _parameter(name: str, kind: TensorType) -> Parameter:
    return make_parameter(kind.dtype, kind.shape, name, {name})


def _settle(names: Sequence[str], kinds: list[TensorType], read: Any) -> tuple[Any, ...]:
    """(parameters, values, scope) of a body whose first results are carried. It is read until their types are
    those of the parameters.

    `read(parameters)` reads the body; the first `len(kinds)` of its values go round.
    """

    def once(kinds: list[TensorType]) -> tuple[Any, Any]:
        parameters = [_parameter(name, kind) for name, kind in zip(names, kinds, strict=True)]
        values, inner = read(parameters)
        for name, value in zip(names, values, strict=False):
            if not isinstance(value, Output):
                raise UnsupportedError(
                    f"the loop-carried value {name[:80]!r} is {value!r}, which is not supported"
                )
        return values[: len(kinds)], (parameters, values, inner)

    return read_until_stable(kinds, once)


@onnx_op("Loop")
def loop(n: OnnxNode) -> Any:
    graph = n.require("body")
    names = [info.name for info in graph.input]
    carried = n.inputs[2:]
    if len(names) != 2 + len(carried):
        raise ModelError(f"the body has {len(names)} inputs, but {len(carried)} loop-carried values")
    if any(not isinstance(v, Output) for v in carried):
        try:
            return _written_out(n, graph, names, carried)
        except UnsupportedError as error:
            if added := _find_inserts(graph, names, carried):
                return _collect(n, graph, added)
            if not isinstance(error, _DynamicLength):
                raise
            try:
                return _by_rows(n, graph, names, carried)
            except UnsupportedError as other:
                raise UnsupportedError(f"{error}, or tensors of one shape: {other}") from other
    return _add_loop(n, graph, names, carried)


def _by_rows(n: OnnxNode, graph: Any, names: Sequence[str], carried: Sequence[Any]) -> list[Any]:
    """A loop over sequences of dynamic length: each is carried as one tensor, with items as rows."""
    sequences = [i for i, value in enumerate(carried) if not isinstance(value, Output)]
    if not all(is_sequence(carried[i]) for i in sequences):
        raise UnsupportedError("a loop-carried optional is not supported")
    starts = list(carried)
    unknown = [i for i in sequences if not row_shape(n, carried[i])]
    tried = _try_body(n, graph, names, carried) if unknown else []
    for i in sequences:
        value, like = carried[i], tried[i] if i in unknown else carried[i]
        shape, kind = row_shape(n, like), element_type(n, like) or element_type(n, value)
        if shape is None or kind is None:
            shape, kind = _type_of(graph.input[2 + i], kind)
        empty = isinstance(value, TensorList) and not value
        starts[i] = no_rows(n, shape, kind) if empty else stack_rows(n, value)
    outputs = _add_loop(n, graph, names, starts, sequences)
    return [of_rows(v) if i in sequences else v for i, v in enumerate(outputs)]


def _try_body(n: OnnxNode, graph: Any, names: Sequence[str], carried: Sequence[Any]) -> list[Any]:
    """State after one iteration; the first state if the body cannot be read with empty sequences."""
    kinds = {names[2 + i]: tensor_type(v) for i, v in enumerate(carried) if isinstance(v, Output)}
    arguments: dict[str, Any] = {name: _parameter(name, kind).output(0) for name, kind in kinds.items()}
    arguments |= {names[2 + i]: v for i, v in enumerate(carried) if not isinstance(v, Output)}
    scalars = zip(names, ("i64", "boolean"), strict=False)
    arguments |= {name: _parameter(name, TensorType(kind, ())).output(0) for name, kind in scalars}
    try:
        return n.reader.subgraph(graph, n.scope, arguments, captures=True)[0][1 : 1 + len(carried)]
    except (ModelError, UnsupportedError):
        return list(carried)


def _type_of(info: Any, kind: str | None) -> tuple[Any, str]:
    """(shape, element type) of the tensors of a sequence, from the declaration of the body's input."""
    inner = info.type.sequence_type.elem_type.tensor_type
    if not inner.HasField("shape"):
        raise UnsupportedError("the shape of a sequence's tensors is unknown")
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in inner.shape.dim]
    return shape, kind or tensor_types.element_type(inner.elem_type)


def _add_loop(
    n: OnnxNode, graph: Any, names: Sequence[str], carried: Sequence[Output], sequences: Sequence[int] = ()
) -> list[Output]:
    """A Loop of the state `carried`. Those whose numbers are in `sequences` are tensors of rows, which the
    body reads as sequences."""
    trips = n.convert(n[0], "i64") if n.has(0) else n.const(-1)
    go_on = n[1] if n.has(1) else n.const(True)
    trips, go_on = (v if n.shape(v) in ((), (1,)) else n.scalar(v) for v in (trips, go_on))
    scalar = [TensorType("i64", ()), TensorType("boolean", ())]
    for i in (0, 1):  # some say [1]
        info = graph.input[i].type
        if info.HasField("tensor_type") and len(info.tensor_type.shape.dim) == 1:
            scalar[i] = TensorType(scalar[i].dtype, (1,))
    counter = _parameter(names[0], scalar[0])
    again = _parameter(names[1], scalar[1])
    kinds = kinds_of(carried)

    def read(parameters: list[Parameter]) -> tuple[list[Any], Any]:
        outputs = [p.output(0) for p in (counter, again, *parameters)]
        inputs_given: dict[str, Any] = dict(zip(names, outputs, strict=True))
        inputs_given |= {names[2 + i]: of_rows(outputs[2 + i]) for i in sequences}
        values, inner = n.reader.subgraph(graph, n.scope, inputs_given, captures=True)
        for i in sequences:
            value = values[1 + i]
            if not is_sequence(value):
                raise UnsupportedError(f"the loop-carried sequence {names[2 + i][:80]!r} becomes no sequence")
            is_empty = isinstance(value, TensorList) and not value
            shape = row_shape(n, of_rows(outputs[2 + i])) or ()
            values[1 + i] = no_rows(n, shape, n.dtype(outputs[2 + i])) if is_empty else stack_rows(n, value)
        if len(values) < 1 + len(carried):
            raise ModelError(f"the body has {len(values)} outputs, fewer than loop-carried values")
        return [*values[1 : 1 + len(carried)], values[0], *values[1 + len(carried) :]], inner

    parameters, values, inner = _settle(names[2:], kinds, read)
    count = len(carried)
    results = [*values[: count + 1], *(n.unsqueeze(_tensor(v), [0]) for v in values[count + 1 :])]
    loop_inputs = [trips, go_on, *carried]
    return _loop(n, results, inner, [counter, again, *parameters], loop_inputs, graph.name)


def loop_while(
    n: OnnxNode, once: Callable[[dict[str, Output], Output, Scope], tuple[dict[str, Output], Output]],
    trips: Output, go_on: Output, state: dict[str, Output], collected: Sequence[str] = (),
) -> dict[str, Output]:  # fmt: skip
    """Build a Loop for an operator: `once(state, iteration number, scope)` returns the next state and the
    condition. It reads outer values through the scope (`Scope.capture`).

    Changing dimensions of a state are open. Further results of `once` under names in `collected` are returned
    as [iterations, ...].
    """
    names = list(state)

    def read(kinds: list[TensorType]) -> tuple[Sequence[Output], Any]:
        scope = n.reader.inner_scope(n.scope, captures=True)
        trip = _parameter("trip", TensorType("i64", ()))
        again = _parameter("go", TensorType("boolean", ()))
        parameters = [_parameter(name, kind) for name, kind in zip(names, kinds, strict=True)]
        inputs_given = {name: p.output(0) for name, p in zip(names, parameters, strict=True)}
        result, more = once(inputs_given, trip.output(0), scope)
        return [result[name] for name in names], (scope, [trip, again, *parameters], result, more)

    kinds = kinds_of(state.values())
    scope, parameters, result, more = read_until_stable(kinds, read)
    rows = [n.unsqueeze(result[name], [0]) for name in collected]
    results = [*(result[name] for name in names), more, *rows]
    outputs = _loop(n, results, scope, parameters, [trips, go_on, *state.values()], n.base)
    del outputs[len(names) + len(collected) :]
    return dict(zip((*names, *collected), outputs, strict=True))


def _loop(
    n: OnnxNode, results: Sequence[Output], inner: Scope, parameters: Sequence[Parameter],
    sources: Sequence[Output], name: str,
) -> list[Output]:  # fmt: skip
    """The Loop of a body with the parameters (iteration number, condition, state) and the results (state,
    condition, collected values). `sources` are (number of iterations, condition, state)."""
    model = _body(results, inner, name, parameters)
    captured = [source for _, source in inner.captured]
    trips, go_on, *state = sources
    return loop_of(model, trips, go_on, state, captured, n.reader.name(n.base, "Loop"), leading=2)


def loop_over(
    n: OnnxNode, once: Callable[[Output, dict[str, Output]], tuple[Output, Output]], state: Output,
    pieces: dict[str, Output], fixed: dict[str, Output] | None = None,
) -> tuple[Output, Output]:  # fmt: skip
    """Build a Loop for an operator over the first dimension of `pieces`: `once(state, one iteration's pieces
    and `fixed` values)` returns the next state and the values to collect. Returns the last state, and the
    collected values [iterations, ...]."""
    fixed = fixed or {}

    def step(states: list[Output], rows: list[Output], others: list[Output]) -> tuple[Output, Output]:
        return once(states[0], dict(zip((*pieces, *fixed), (*rows, *others), strict=True)))

    name = n.reader.name(n.base, "TensorIterator")
    last, rows = over_slices(n, step, [state], [*pieces.values()], [*fixed.values()], name)
    return last, rows


def _tensor(value: Any) -> Output:
    if not isinstance(value, Output):
        raise UnsupportedError(f"a scan output is {value!r}, which is not supported")
    return value


def _find_inserts(graph: Any, names: Sequence[str], carried: Sequence[Any]) -> dict[int, Any]:
    """The carried sequences to which the body only appends, by number, with the node that appends; empty if
    the body does anything else with a sequence."""
    out: dict[int, Any] = {}
    used = Counter(name for node in graph.node for name in reads(node))
    used.update(info.name for info in graph.output)
    for i, value in enumerate(carried):
        if isinstance(value, Output):
            continue
        ends = graph.output[1 + i].name
        nodes = [node for node in graph.node if ends in node.output]
        fits = nodes and nodes[0].op_type == "SequenceInsert" and isinstance(value, TensorList)
        if not fits or list(nodes[0].input)[::2] not in ([names[2 + i]], [names[2 + i], ""]):
            return {}
        if used[names[2 + i]] != 1 or used[ends] != 1:
            return {}
        out[i] = nodes[0]
    return out


def _collect(n: OnnxNode, graph: Any, added: dict[int, Any]) -> list[Any]:
    """A Loop that appends to sequences, as a Loop with collected outputs instead.

    Where the model joins such tensors along an axis of dynamic length, they may be of different lengths. Then
    the loop is read once more, and puts each of them after a tensor that goes round.
    """
    inputs, attributes = list(n.inputs), n.attributes
    growing: dict[int, int] = {}  # the number of a sequence -> the axis along which its tensors are joined
    joined: dict[int, dict[int, Output]] = {}

    def read() -> tuple[dict[int, Output], list[Output]]:
        """(the final value of each sequence; the other outputs)"""
        n.attributes = attributes | {"body": _without_sequences(graph, added, growing)}
        n.inputs = [inputs[0], inputs[1] if len(inputs) > 1 else None]
        for i, value in enumerate(inputs[2:]):
            if i in growing:
                n.inputs.append(n.const(np.zeros(_empty_shape(n, rows[i], growing[i])), n.dtype(rows[i])))
            elif i not in added:
                n.inputs.append(value)
        values = loop(n)
        states = [i for i in range(len(inputs) - 2) if i in growing or i not in added]
        last = [i for i in added if i not in growing]
        result = dict(zip(states, values, strict=False))
        result |= dict(zip(last, values[len(values) - len(last) :], strict=True))
        others = [result.pop(i) for i in states if i not in added]
        return result, [*others, *values[len(states) : len(values) - len(last)]]

    rows, others = read()
    for i in added:
        axis = _joined_along(n, n.output_names[i], n.rank(rows[i]) - 1)
        sizes = (n.shape(rows[i]) or ())[1:]
        if axis is None:
            continue
        picked = repeat_appended(n, inputs, graph, added[i], axis)
        if picked is not None:
            joined[i] = {axis: picked}
        elif [k for k, size in enumerate(sizes) if isinstance(size, Interval)] == [axis]:
            growing[i] = axis
    result, others = read() if growing else (rows, others)
    joined |= {i: {axis: result[i]} for i, axis in growing.items()}
    remaining = iter(others)
    states = [
        LoopSequence(cast(TensorList, first), rows[i] if i in joined else result[i], joined.get(i))
        if i in added else next(remaining)
        for i, first in enumerate(inputs[2:])
    ]  # fmt: skip
    return [*states, *remaining]


def _empty_shape(n: OnnxNode, rows: Output, axis: int) -> list[Any]:
    """The shape of a row, with 0 elements along an axis."""
    return [0 if k == axis else size for k, size in enumerate((n.shape(rows) or ())[1:])]


def _joined_along(n: OnnxNode, name: str, rank: int) -> int | None:
    """The axis along which a node of this graph concatenates a sequence; None without such a node."""
    for node in n.scope.nodes:
        if node.op_type == "ConcatFromSequence" and name in node.input:
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            if not attributes.get("new_axis"):
                return n.axis(attributes.get("axis", 0), rank)
    return None


def _without_sequences(graph: Any, added: dict[int, Any], growing: dict[int, int]) -> Any:
    """A copy of a body that outputs the tensors instead of appending them to the sequences of these numbers.
    Sequences that are `growing` along axes are tensors of their names, to which it concatenates."""
    body = type(graph)()
    body.CopyFrom(graph)
    removed_inserts = {i: node for i, node in added.items() if i not in growing}
    result = {node.output[0] for node in removed_inserts.values()}
    nodes = [node for node in body.node if not (node.output and node.output[0] in result)]
    rows: list[tuple[str, list[Any]]] = [
        ("node", nodes),
        ("input", [info for i, info in enumerate(graph.input) if i - 2 not in removed_inserts]),
        ("output", [info for i, info in enumerate(graph.output) if i - 1 not in removed_inserts]),
    ]
    for node in nodes:
        for i, axis in growing.items():
            if added[i].output[0] in node.output:
                node.op_type = "Concat"
                del node.input[2:]
                node.attribute.add(name="axis", type=2, i=axis)
    for field, messages in rows:
        messages = [type(each).FromString(each.SerializeToString()) for each in messages]
        body.ClearField(field)
        getattr(body, field).extend(messages)
    for node in removed_inserts.values():
        body.output.add().name = node.input[1]
    return body


def _written_out(n: OnnxNode, graph: Any, names: Sequence[str], carried: Sequence[Any]) -> list[Any]:
    """A loop over sequences, unrolled: the number of iterations must be known."""
    trips = n.value(n.optional(0))
    go_on = n.value(n.optional(1))
    if trips is None or (n.has(1) and go_on is None):
        raise _DynamicLength(
            "a loop over sequences needs a number of iterations that is known when the model is read"
        )
    number = int(trips.reshape(())) if go_on is None or bool(go_on.reshape(())) else 0
    if number > MAX_TRIPS:
        raise UnsupportedError(f"a loop over sequences has {number} iterations; the maximum is {MAX_TRIPS}")
    with n.reader.expansion.count_unrolling(number, graph):
        return _iterations(n, graph, names, carried, number)


def _iterations(
    n: OnnxNode, graph: Any, names: Sequence[str], carried: Sequence[Any], number: int
) -> list[Any]:
    """The carried values after `number` iterations, or when the condition ends the loop, followed by the
    collected ones."""
    values = list(carried)
    collected: list[list[Output]] = []
    if not number and len(graph.output) > 1 + len(carried):  # the body tells the types of what it collects
        arguments = dict(zip(names, [n.const(0), n.const(True), *values], strict=True))
        result, _ = n.reader.subgraph(graph, n.scope, arguments, captures=False)
        rows = [_tensor(v) for v in result[1 + len(carried) :]]
        return [*values, *(no_rows(n, n.shape(v) or (), n.dtype(v)) for v in rows)]
    for i in range(number):
        arguments = dict(zip(names, [n.const(i), n.const(True), *values], strict=True))
        result, _ = n.reader.subgraph(graph, n.scope, arguments, captures=False)
        values = result[1 : 1 + len(carried)]
        rows = [n.unsqueeze(_tensor(v), [0]) for v in result[1 + len(carried) :]]
        collected = collected or [[] for _ in rows]
        for row, part in zip(collected, rows, strict=True):
            row.append(part)
        again = n.value(_tensor(result[0]))
        if again is None:
            raise _DynamicLength(
                "a loop over sequences needs a condition that is known when the model is read"
            )
        if not bool(again.reshape(())):
            break
    return [*values, *(n.concat(row, 0) for row in collected)]


@onnx_op("Scan", 9)
def scan(n: OnnxNode) -> Any:
    return _scan(n, n.tensors(), n.attr("scan_input_axes"), n.attr("scan_input_directions"),
                 n.attr("scan_output_axes"), n.attr("scan_output_directions"))  # fmt: skip


@onnx_op("Scan", 8)
def scan_8(n: OnnxNode) -> Any:
    """Version 8 runs for each item of a batch; batches of one are read."""
    if n.has(0):
        raise UnsupportedError("sequence_lens of Scan-8 is not supported")
    values = [n[i] for i in range(1, len(n))]
    if any((n.shape(v) or (None,))[0] != 1 for v in values):
        raise UnsupportedError("Scan-8 with a batch of more than 1 is not supported")
    outputs = _scan(n, [n.squeeze(v, [0]) for v in values], None, n.attr("directions"), None, None)
    return [n.unsqueeze(v, [0]) for v in outputs]


def _scan(
    n: OnnxNode, values: Sequence[Output], input_axes: Sequence[int] | None,
    input_directions: Sequence[int] | None, output_axes: Sequence[int] | None,
    output_directions: Sequence[int] | None,
) -> list[Output]:  # fmt: skip
    graph, count = n.require("body"), n.require("num_scan_inputs")
    names = [info.name for info in graph.input]
    states = len(values) - count
    if states < 0 or len(names) != len(values) or len(graph.output) < states or not 0 < count:
        raise ModelError(
            f"{len(values)} inputs do not match the body's {len(names)}, of which {count} are scanned"
        )
    axes = list(input_axes or [0] * count)
    backwards = list(input_directions or [0] * count)
    collected = len(graph.output) - states
    out_axes = list(output_axes or [0] * collected)
    out_backwards = list(output_directions or [0] * collected)
    if (len(axes), len(backwards), len(out_axes), len(out_backwards)) != (count, count, collected, collected):
        raise ModelError("every scanned input and output needs an axis and a direction")
    parts = []
    for i in range(count):
        value = values[states + i]
        axes[i] = n.axis(axes[i], n.rank(value))
        parts += [_parameter(names[states + i], kind) for kind in kinds_of([value], axes[i])]
    kinds = kinds_of(values[:states])

    def read(parameters: list[Parameter]) -> tuple[list[Any], Any]:
        inputs_given = {k: p.output(0) for k, p in zip(names, parameters, strict=False)}
        for i, part in enumerate(parts):
            inputs_given[names[states + i]] = n.squeeze(part.output(0), [axes[i]])
        return n.reader.subgraph(graph, n.scope, inputs_given, captures=True)

    parameters, result, inner = _settle(names[:states], kinds, read)
    results = list(result[:states])
    for i, value in enumerate(result[states:]):
        out_axes[i] = n.axis(out_axes[i], n.rank(_tensor(value)) + 1)
        results.append(n.unsqueeze(_tensor(value), [out_axes[i]]))
    model = _body(results, inner, graph.name, [*parameters, *parts])
    input_slices = [slices(axis, bool(back)) for axis, back in zip(axes, backwards, strict=True)]
    output_slices = [slices(axis, bool(back)) for axis, back in zip(out_axes, out_backwards, strict=True)]
    fixed = [source for _, source in inner.captured]
    name = n.reader.name(n.base, "TensorIterator")
    return iterator_of(model, values[:states], values[states:], fixed, name, input_slices, output_slices)
