"""Loops: unrolled where the number of iterations is known, else Loop."""

from __future__ import annotations

from ovjit.build.bodies import body_of, kinds_of, loop_of, parameters
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Dim
from ovjit.readers.torch.branches import *
from ovjit.readers.torch.containers import assign, copy_containers, replace, stack_items
from ovjit.readers.torch.graph import TorchReader
from ovjit.readers.torch.operators.numbers import compute
from ovjit.readers.torch.scripts.block_reader import BlockReader
from ovjit.readers.torch.scripts.shared_memory import nodes_of
from ovjit.readers.torch.values import Uninitialized

#: A loop that is unrolled has at most this many iterations.
MOST_ITERATIONS = 2000
#: From this number of iterations on, a script means that its condition alone ends a loop.
ENDLESS = (1 << 31) - 1
#: Operators that give numbers from 0 on, and those that do where their operands are such numbers.
_LENGTHS = frozenset(("aten::size", "aten::sym_size", "aten::len", "aten::numel", "aten::dim",
                      "aten::__range_length"))  # fmt: skip
_OF_COUNTS = frozenset(("aten::Int", "aten::IntImplicit", "aten::ScalarImplicit", "prim::NumToTensor",
                        "aten::floordiv", "aten::floor_divide", "aten::mul", "aten::add"))  # fmt: skip


def unroll(reader: BlockReader, node: Any) -> list[Any] | None:
    """Unroll a loop and return its final carried values; None if the trip count is unknown or too large."""
    call = Call(reader, "prim::Loop", "")
    most, going, *carried = (reader.env[v.debugName()] for v in node.inputs())
    most, going = call.known_number(most), call.known_number(going)
    body, i = next(node.blocks()), 0
    # attributes are kept: what is written to them is read again
    nodes = (node for node in nodes_of(body) if node.kind() != "prim::GetAttr")
    iteration_names = [value.debugName() for node in nodes for value in node.outputs()]
    while most is not None and going and i < most:
        if i >= MOST_ITERATIONS:
            return None
        for value, now in zip(body.inputs(), [i, *carried], strict=True):
            reader.env[value.debugName()] = now
        for name in iteration_names:  # values of the iteration before are read no more
            reader.env.pop(name, None)
        reader.read_block(body)
        more, *carried = (reader.env[v.debugName()] for v in body.outputs())
        going = call.known_number(more)
        i += 1
    return None if most is None or going is None else carried


def read_loop(reader: BlockReader, node: Any) -> list[Any]:
    """Convert a loop of a script to a Loop and return its final carried values."""
    call = Call(reader, "prim::Loop", node.scopeName())
    most, going, *carried = (reader.env[v.debugName()] for v in node.inputs())
    block = next(node.blocks())
    names = [value.debugName() for value in block.inputs()]
    extended = [i for i, value in enumerate(carried) if isinstance(value, list) and is_extended(block, 1 + i)]
    for i in extended[::-1]:  # what is only added to them is an output of the loop
        reader.env[names.pop(1 + i)] = carried.pop(i)
    trip_count = call.known_number(most)
    trips = call.const(-1, "i64") if (trip_count or 0) >= ENDLESS else _limit(call, node, most)
    written: list[str] = []  # from around the loop
    grown: list[tuple[str, bool]] = []
    last: list[Any] = []  # of the last reading of the body: its inputs, and what it gives

    def iterate(values: list[Any]) -> tuple[Inside, list[Any]]:
        starts = copy_containers(values[1:])
        inputs = dict(zip([*names, *written], values, strict=True))
        state = [*carried, *(reader.env[name] for name in written)]
        marks = [
            (outer, reader.begin_iteration(outer, value))
            for i, (outer, value) in enumerate(zip(state, values[1:], strict=True))
            if i < len(carried) or not isinstance(outer, (Output, Complex))
        ]
        inside, result = read_body(reader, call, block, inputs, written, {1 + i for i in extended})
        last[:] = inside, marks, result[1:]
        if inside.written:
            raise Writes(inside.written)
        grown[:] = [(name, name in inside.numbers) for name in inside.grown]
        outer = [*carried, *(reader.env[name] for name in written)]
        if any(_fit(reader, call, carried, *each) for each in zip(outer, starts, result[1:], strict=True)):
            raise Writes([])
        return inside, result

    while True:
        try:
            state = [*carried, *(reader.env[name] for name in written)]
            result = build_loop(reader, call, trips, going, state, iterate)
            break
        except Writes as writes:
            written += writes.names
    _write_back(reader, node, carried, written, result, last, extended)
    for (name, of_numbers), value in zip(grown, result[len(carried) + len(written) :], strict=True):
        _append_rows(reader, call, name, Stacked(value.rows, of_numbers))
        reader.note_outputs([reader.env[name]], [[last[0].added[name]]])
    result = result[: len(carried)]
    for i in extended:
        result.insert(i, reader.env[list(block.inputs())[1 + i].debugName()])
    return result


def _write_back(
    reader: BlockReader, node: Any, carried: Sequence[Any], written: Sequence[str], result: list[Any],
    last: Sequence[Any], extended: Sequence[int],
) -> None:  # fmt: skip
    """Update outer values after a loop. `result`: final values of `carried`, then of `written` names. `last`:
    the reader of the last reading of the body. `extended`: indices of carried lists to skip."""
    count, (inside, marks, after) = len(carried), last
    used = [bool(v.uses()) for i, v in enumerate(next(node.blocks()).inputs()) if i and i - 1 not in extended]
    ends = [v for i, v in enumerate(after) if i < count or not isinstance(v, (Output, Complex))]
    ended = reader.end_iterations(node, inside, marks, ends, [*used, *([True] * (len(ends) - count))])
    for i in ended:
        reader.replace(node, marks[i][0], result[i])
    for name, value in zip(written, result[count:], strict=False):
        assign(reader, node, name, value)
    moved = [i for i in range(count) if i not in ended]
    starts = [marks[i][0] for i in moved]
    reader.note_outputs([result[i] for i in moved], [[after[i] for i in moved], starts])
    for value, value_after in zip(result[count:], after[count:], strict=False):
        if not isinstance(value, (Output, Complex)):
            reader.note_outputs([value], [[value_after]])


def _fit(reader: BlockReader, call: Call, carried: list[Any], outer: Any, start: Any, after: Any) -> bool:
    """Convert a loop's initial value to the type that an iteration returns, inside and outside of the loop.
    False if nothing changes."""
    if isinstance(outer, Uninitialized) and not isinstance(after, Uninitialized):
        new: Any = blank(call, after)
    elif isinstance(outer, list) and isinstance(after, Stacked):
        new = stack_items(call, outer, after)
    elif isinstance(outer, list) and isinstance(after, list) and len(after) != len(start):
        new = stack_items(call, outer, (after or start)[-1])
    else:
        return False
    carried[:] = [new if value is outer else value for value in carried]
    replace(reader, outer, new)
    return True


def _append_rows(reader: BlockReader, call: Call, name: str, more: Stacked) -> None:
    """Append the rows that a loop has stacked to the list `name`."""
    old = reader.env[name]
    if old:
        first = stack_items(call, old, more) if isinstance(old, list) else old
        more = Stacked(call.concat(call.same_kind([first.rows, more.rows]), 0), more.numbers)
    replace(reader, old, more)


def read_while(
    reader: TorchReader, call: Call, condition: Any, body: Any, carried: Sequence[Any], others: Sequence[Any]
) -> list[Any]:
    """Convert torch.while_loop, given as graph modules, to a Loop and return its final carried values."""

    def iterate(values: list[Any]) -> tuple[Inside, list[Any]]:
        inside = Inside(call)
        constant = [inside.value(v) for v in others]
        after = inner_graph(reader, body, [*values[1:], *constant])
        return inside, [*inner_graph(reader, condition, [*after, *constant]), *after]

    going = reader.run(condition, [*carried, *others])
    going = going[0] if isinstance(going, list) else going
    return build_loop(reader, call, call.const(-1, "i64"), going, carried, iterate)


def read_scan(
    reader: TorchReader, call: Call, body: Any, carried: Sequence[Any], rows: Sequence[Any],
    others: Sequence[Any],
) -> list[Any]:  # fmt: skip
    """Convert torch.scan to a Loop; return the final state, then the outputs stacked along a new first axis.

    The graph module `body` takes the state, one row of each of `rows`, and `others`. A map has no state.
    """
    count = len(carried)
    row_results: list[Any] = []

    def iterate(values: list[Any]) -> tuple[Inside, list[Any]]:
        inside = Inside(call)
        at = call.tensor(values[0])
        parts = [map_tensors(inside.value(v), lambda t: call("Gather", t, at, 0)) for v in rows]
        result = inner_graph(reader, body, [*values[1:], *parts, *(inside.value(v) for v in others)])
        row_results[:] = result[count:]
        leaves = [v.pair if isinstance(v, Complex) else call.tensor(v) for v in row_results]
        inside.grown = {str(i): call.unsqueeze(leaf, [0]) for i, leaf in enumerate(leaves)}
        return inside, [True, *result[:count]]

    length = call.size(rows[0].pair if isinstance(rows[0], Complex) else rows[0], 0)
    result = build_loop(reader, call, call.index(length), True, carried, iterate)
    results = zip(row_results, result[count:], strict=True)
    return [*result[:count], *(Complex(v.rows) if isinstance(k, Complex) else v.rows for k, v in results)]


#: The values of one iteration, its number first -> whether there is another one, and what it gives.
Iterate = Callable[[list[Any]], tuple[Inside, list[Any]]]


def _limit(call: Call, node: Any, most: Any) -> Output:
    """Return the maximum number of iterations.

    A dynamic one is clamped to at least 0, as a Loop takes a negative number as no limit.
    """
    if call.known_number(most) is None and not _is_count(next(node.inputs())):
        most = compute(call, "sym_max", most, 0)
    return call.index(most)


def _is_count(value: Any) -> bool:
    """Whether a number of a script is certainly nonnegative: a length, or computed from lengths."""
    node = value.node()
    if node.kind() in _LENGTHS:
        return True
    if node.kind() == "prim::Constant":
        number = value.toIValue()
        return isinstance(number, (int, float)) and number >= 0
    return node.kind() in _OF_COUNTS and all(map(_is_count, node.inputs()))


def build_loop(
    reader: TorchReader, call: Call, trips: Output, going: Any, carried: Sequence[Any], iterate: Iterate
) -> list[Any]:
    """Build a Loop. Returns the last values of `carried`, and what it appended to each list.

    The body is read until its types fit: a dimension that an iteration changes is open in all of them.
    """
    starts: list[Output] = []
    form = [form_of(call, value, starts) for value in carried]
    kinds = kinds_of(starts)
    while True:
        nodes, inside, result, after = _iteration(call, iterate, form, kinds)
        if after != form:  # types that are unknown without an example are those after an iteration
            form = after
            starts = [call.to_type(v, call.dtype(m)) for v, m in zip(starts, result[:-1], strict=True)]
            kinds = kinds_of(starts)
            continue
        joined = [_join_types(kind, call.type(v)) for kind, v in zip(kinds, result[:-1], strict=True)]
        if list(map(_named, joined)) == list(map(_named, kinds)):
            break
        kinds = joined
    model = body_of(call, [*result, *inside.grown.values()], [*nodes, *inside.parameters])
    truth = call.scalar(call.tensor(going, "boolean"))
    outputs = loop_of(model, trips, truth, starts, inside.sources, reader.name(call.base, "Loop"))
    reader.name_dimensions(outputs)
    remaining = iter(outputs)
    return [*(built(part, remaining) for part in form), *map(Stacked, remaining)]


def _iteration(
    call: Call, iterate: Iterate, form: list[Any], kinds: list[TensorType]
) -> tuple[list[Any], Inside, list[Output], list[Any]]:
    """Read one iteration: (parameters for its number and the state, other values that it reads, next state,
    condition, form of that state)."""
    nodes, (first, *state) = parameters([TensorType("i64", ()), *kinds])
    remaining = iter(state)
    inside, (more, *values) = iterate([Number(first), *(built(part, remaining) for part in form)])
    result: list[Output] = []
    after = [form_of(call, value, result) for value in values]
    if not _is_same_form(form, after):
        raise UnsupportedError(
            f"a loop-carried value changes its kind: initially {form}, after an iteration {after}"
        )
    result.append(call.scalar(call.tensor(more, "boolean")))
    return nodes, inside, result, after


def _is_same_form(form: Any, after: Any) -> bool:
    """True if loop-carried values have the same form before and after an iteration. An unknown element type
    before it fits any."""
    if isinstance(form, dict) and isinstance(after, dict):
        return form["keys"] == after["keys"] and _is_same_form(form["values"], after["values"])
    if isinstance(form, list) and isinstance(after, list):
        return len(form) == len(after) and all(map(_is_same_form, form, after))
    if isinstance(form, tuple) and isinstance(after, tuple):
        return form[0] == after[0] and form[1] in ("dynamic", after[1])
    return form == after


def _join_types(a: TensorType, b: TensorType) -> TensorType:
    """The common type of two; dimensions that may differ are dynamic."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return TensorType(a.dtype, None)
    pairs = zip(a.shape, b.shape, strict=True)
    return TensorType(a.dtype, [x if _key(x) == _key(y) else ANY for x, y in pairs])


def _named(kind: TensorType) -> Any:
    return None if kind.shape is None else list(map(_key, kind.shape))


def _key(dim: Dim) -> Any:
    """Return a key that is equal for dimensions known to be equal; None for an interval without a symbol."""
    return dim.key if isinstance(dim, Interval) else dim
