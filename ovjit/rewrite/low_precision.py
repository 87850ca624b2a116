"""The precision pass: decides which f32 values are stored as bf16 or f16, and are multiplied in this type.

In: a graph that has been expanded and cleaned. Out: the same graph with other element types. Each operation
belongs to one of five kinds (`part_of`):

| part    | which                                | inputs                   | output                       |
|---------|--------------------------------------|--------------------------|------------------------------|
| compute | convolutions, products, attention    | its factors: low         | low if a reader takes it     |
| fuse    | elementwise                          | as they come             | as an input, if taken        |
| carry   | moves and pooling of elements        | all of the output's type | as the input                 |
| read    | reductions                            | as they come             | f32                          |
| keep    | others: normalizations, softmax, exp, rounding, comparisons | f32      | f32                  |

Arithmetic and accumulators are f32; bf16 or f16 is the storage type of tensors. Inputs and outputs of a model
keep their types. A tensor that is concatenated to an input has the input's type. An example is a cache of
keys that the caller passes, which attention reads in place. A cache in a variable is an input of the lower
type, see `model_variables.keep_low`. A constant that an operation of the kind keep multiplies, such as
recurrent weights, has the lower type if the record names it (`Op.factor`). Integers do not change. An
elementwise kernel accepts inputs of mixed types, so no conversion is needed there.

The pass is not written as rules: a value's type depends on all its readers, and on theirs. All types are
chosen before any node is rewritten. `read_halves` concerns a single node, and is a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.codegen.cpu.formats import float_types
from ovjit.errors import OvjitError
from ovjit.graph.byte_rows import ByteRows
from ovjit.graph.converted import Converted, is_worth, remember_conversion
from ovjit.graph.dtypes import cast, numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_node, rebuild
from ovjit.graph.op import TensorType
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.pattern import op, operation
from ovjit.rewrite.rules import rule

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: Operations on angles. Angles stay f32: a large one, such as a position, would have a large absolute error.
PERIODIC = op["Sin Cos Tan"](...)
_SCALES = op.Multiply(...)
#: Operations that move elements of a single tensor.
MOVES = op["Broadcast Reshape Squeeze Transpose Unsqueeze"](...)


def part_of(node: Node) -> str:
    """The kind of a node: compute, fuse, carry, read or keep."""
    op = node.op
    if op.multiplied:
        return "compute"
    part: str = op.part(node.attrs) if callable(op.part) else op.part
    if part or op.scalar is not None:
        return part or "fuse"
    return "carry" if op.lower is not None and {"f32", "boolean"} <= set(op.types) else "keep"


def lower_precision(graph: Graph, context: Context) -> Graph:
    """Convolution(x: f32, w) -> Convolution(Convert(x, bf16), w: bf16): bf16     and dependent types"""
    low = context.options.precision
    computed = {n for n in graph.nodes if low != "f32" and _computes(n)}
    if low in float_types(context.target):
        computed = {n for n in computed if low in (n.op.native_types(context.target) or (low,))}
    if not computed:
        return graph
    computed -= _angles(graph)
    if low == "f16":
        computed = {n for n in computed if not any(map(_is_beyond_f16, n.inputs[: n.op.multiplied]))}
    caches = _find_inputs_and_caches(graph, context.options.caches)
    lowered = _choose(graph, computed, caches, low)
    if low not in float_types(context.target):
        lowered -= _in_epilogues(graph)
    casts: Casts = {}

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if converts(node) and node.output in lowered and inputs[0].dtype == low:
            return [inputs[0]]  # its source is stored in the lower type already
        if not any(v.dtype == "f32" for v in node.inputs) or node.op.role == "result":
            return None
        part = part_of(node)
        types = [stored_type(v.type, low) if v in lowered else v.type for v in node.outputs]
        if converts(node) and types[0].dtype == inputs[0].dtype:
            return [inputs[0]]
        if part == "fuse":
            if node.outputs[0].dtype != "f32" and all(v.dtype != low for v in inputs):
                return None
            return b.instead(node, inputs, types=types, lowered=True)
        if part == "read" and inputs[0].dtype == low:
            return b.instead(node, inputs, types=types, lowered=True)
        dtype = low if node in computed or node.outputs[0] in lowered else "f32"
        converted_count = _converted_inputs(node, caches)
        arguments = [
            _cast(b, new, dtype, casts) if old.dtype == "f32" and i < converted_count else new
            for i, (old, new) in enumerate(zip(node.inputs, inputs, strict=True))
        ]
        if dtype == "f32":
            at = _low_factor(node, low, context)
            if at is not None:
                arguments[at] = _cast(b, arguments[at], low, casts)
            return copy_node(b, node, arguments).outputs
        return b.instead(node, arguments, types=types, lowered=True)

    return rebuild(graph, visit, lambda b, outputs: _restore_types(b, graph.outputs, outputs))


def _low_factor(node: Node, low: str, context: Context) -> int | None:
    """The index of the constant that the operation multiplies in the type `low`, None if it does not."""
    if node.op.factor is None or low not in (node.op.native_types(context.target) or ()):
        return None
    at: int = node.op.factor(node.attrs)
    return at if node.inputs[at].stored_array is not None else None


def _converted_inputs(node: Node, caches: set[Value]) -> int:
    """The number of first inputs that are converted to the node's compute type."""
    if part_of(node) != "compute":
        return node.op.carried or len(node.inputs)
    factors = node.op.multiplied
    in_place = factors > 2 and caches.issuperset(node.inputs[1:factors])  # attention reads a cache in place
    return 1 if in_place else factors


#: (value, element type) -> the converted value, shared by all readers.
Casts = dict[tuple[Value, str], Value]


def _cast(b: Builder, value: Value, dtype: str, casts: Casts) -> Value:
    """`value` as `dtype`, converted once for all readers."""
    if value.dtype == dtype:
        return value
    converted = casts.get((value, dtype))
    if converted is None:
        stored, node = value.stored_array, value.node
        if isinstance(stored, np.ndarray | Converted):
            converted = b.constant(_cast_constant(stored, dtype), dtype, name=node.name)
        else:
            attrs, name = {"destination_type": dtype}, f"{node.name}/{dtype}"
            converted = b.add("Convert", [value], attrs, name=name, origins=node.origins).output
        casts[value, dtype] = converted
    return converted


def _restore_types(b: Builder, before: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The outputs, converted back to their original types."""
    return [
        new if new.dtype == old.dtype else b.add("Convert", [new], {"destination_type": old.dtype}).output
        for old, new in zip(before, outputs, strict=True)
    ]


def _cast_constant(array: np.ndarray | Converted, dtype: str) -> np.ndarray | Converted:
    """A constant in another type. A large array that stays in memory anyway is converted lazily."""
    if isinstance(array, Converted) or is_worth(array):
        return Converted(array, [numpy_dtype(dtype)])
    return remember_conversion(cast(array, numpy_dtype(dtype)), array)


def _computes(node: Node) -> bool:
    """True for products of f32 tensors. If the target does not multiply the lower type, the operands are
    rounded, and upcast again by a later pass."""
    factors = node.inputs[: node.op.multiplied]
    return (
        part_of(node) == "compute"
        and node.output.dtype == "f32"
        and node.output.shape is not None
        and node.inputs[0].dtype == "f32"
        and all(v.dtype in ("f32", "i8", "u8") and v.shape is not None for v in factors)
    )


def _angles(graph: Graph) -> set[Node]:
    """Products whose results are only used as angles, possibly after data movement and scaling."""
    uses = graph.uses()
    angles: set[Node] = set()
    for node in reversed(graph.nodes):
        readers = [user for value in node.outputs for user, _ in uses[value]]
        if readers and all(u is not None and (PERIODIC.fits(u.op) or u in angles) for u in readers):
            if part_of(node) in ("compute", "carry") or _SCALES.fits(node.op):
                angles.add(node)
    return {node for node in angles if part_of(node) == "compute"}


def _find_inputs_and_caches(graph: Graph, stored: Sequence[str]) -> set[Value]:
    """f32 inputs, caches that are widened from the types `stored`, and values that move or concatenate
    these."""
    inputs: set[Value] = set()
    for node in graph.nodes:
        moved = part_of(node) == "carry" and any(v in inputs for v in node.inputs)
        if node.op.role == "parameter" or moved or any(_widens_input(node, t) for t in stored):
            inputs.update(v for v in node.outputs if v.dtype == "f32")
    return inputs


def _choose(graph: Graph, computed: set[Node], inputs: set[Value], low: str) -> set[Value]:
    """The values to store in `low`: computed in it or widened from it, and with a reader that accepts it."""
    candidates: set[Value] = set()
    for node in graph.nodes:
        if node in computed or _widens(node, low):
            candidates.add(node.output)
        elif part_of(node) in ("fuse", "carry") and any(v in candidates for v in node.inputs):
            if part_of(node) == "carry" and any(v in inputs for v in node.inputs):
                continue
            if _exceeds_range(node, low):
                continue
            candidates.update(v for v in node.outputs if v.dtype == "f32" and v.shape is not None)
    uses = graph.uses()
    lowered: set[Value] = set()
    for node in reversed(graph.nodes):
        for value in node.outputs:
            if value in candidates and any(_takes(user, lowered, low) for user, _ in uses[value]):
                lowered.add(value)
        if part_of(node) == "carry" and not all(v in lowered for v in node.outputs if v.dtype == "f32"):
            lowered.difference_update(node.outputs)  # they are stored as one
    return lowered


#: The smallest number that f16 rounds to infinity, and elements of constants that are compared at a time.
_BEYOND_F16, _COMPARED = 65520.0, 1 << 22


def _is_beyond_f16(value: Value) -> bool:
    """True for an f32 constant with a finite element that f16 rounds to infinity."""
    stored = value.stored_array
    if value.dtype != "f32" or not isinstance(stored, np.ndarray | Converted):
        return False
    source = stored.source if isinstance(stored, Converted) else stored
    if source.dtype == np.float16 or source.dtype.itemsize == 1:
        return False
    elements = source.reshape(-1)
    for at in range(0, elements.size, _COMPARED):
        part = elements[at : at + _COMPARED]
        part = stored.convert(part) if isinstance(stored, Converted) else part
        size = np.maximum(np.fmax.reduce(part), -np.fmin.reduce(part))
        if size >= _BEYOND_F16 and (np.isfinite(part) & (np.abs(part) >= _BEYOND_F16)).any():
            return True
    return False


def _exceeds_range(node: Node, low: str) -> bool:
    """True if a constant of one element is infinite or zero in the type `low` only, or one of several
    elements is infinite in f16 only: x / (y + 1e-15) would be 0 / 0 in f16."""
    if low == "f16" and any(map(_is_beyond_f16, node.inputs)):
        return True
    constants = (v.stored_array for v in node.inputs if v.dtype == "f32")
    numbers = [c.reshape(-1) for c in constants if isinstance(c, np.ndarray) and c.size == 1]
    rounded = [cast(number, numpy_dtype(low)).astype(np.float32) for number in numbers]
    return any(
        np.isfinite(number) != np.isfinite(half) or (number == 0) != (half == 0)
        for number, half in zip(numbers, rounded, strict=True)
    )


def _in_epilogues(graph: Graph) -> set[Value]:
    """Values whose only reader is an elementwise operation. Native kernels of the lower type keep them in f32
    registers, so an emulation must not round them."""
    uses = graph.uses()
    return {
        value
        for node in graph.nodes
        if part_of(node) in ("compute", "fuse")
        for value in node.outputs
        if len(uses[value]) == 1 and (user := uses[value][0][0]) is not None and part_of(user) == "fuse"
    }


def _widens(node: Node, low: str) -> bool:
    """Whether the node converts `low` to f32."""
    return converts(node, of=(low,), to=("f32",))


def _widens_input(node: Node, low: str) -> bool:
    """Whether the node converts a model input, stored as `low`, to f32."""
    rows = ByteRows.of(low)
    widens = _widens(node, low) if rows is None else _has_rows(node, "DequantizeRows", rows)
    return widens and node.inputs[0].node.op.role == "parameter"


def _has_rows(node: Node, name: str, rows: ByteRows) -> bool:
    """Whether the node is the operation `name` (DequantizeRows or QuantizeRows) for these rows."""
    return node.op.name == name and rows == (node.attrs["bits"], node.attrs["group"])


def stored_type(of: TensorType, low: str) -> TensorType:
    """The type of an f32 tensor stored as `low`, the name of an element type or of `ByteRows`."""
    rows = ByteRows.of(low)
    return TensorType(low, of.shape) if rows is None else rows.in_bytes(of)


def convert_down(b: Builder, value: Value, low: str, name: str = "") -> Value:
    """The f32 `value` converted to `low`."""
    rows, name = ByteRows.of(low), f"{name or value.node.name}/{low}"
    if rows is not None:
        return b.add("QuantizeRows", [value], rows._asdict(), name=name).output
    return b.add("Convert", [value], {"destination_type": low}, name=name).output


def convert_up(b: Builder, value: Value, low: str, name: str, fresh: Sequence[Value] = ()) -> Value:
    """`value`, stored as `low`, converted to f32. `fresh`: the rows just appended to it, not yet rounded."""
    rows = ByteRows.of(low)
    if rows is not None:
        return b.add("DequantizeRows", [value, *fresh], rows._asdict(), name=f"{name}/f32").output
    return b.add("Convert", [value], {"destination_type": "f32"}, name=f"{name}/f32").output


#: Operations that may move or concatenate whole rows; `carries` checks the resulting types.
_JOINED, _GATHERED = op.Concat(...), op.Gather(...)
_OF_ROWS = op["Concat Gather Squeeze Transpose Unsqueeze"](...)
_ROWS = op.DequantizeRows(...)


def carries(node: Node, inputs: Sequence[Value], low: str) -> bool:
    """Whether the node commutes with the conversion of its f32 `inputs` to `low`."""
    if part_of(node) != "carry" or len(node.outputs) != 1 or node.output.dtype != "f32":
        return False
    rows = ByteRows.of(low)
    if rows is None:
        return True
    floats = [v for v in inputs if v.dtype == "f32"]
    if not _OF_ROWS.fits(node.op) or not all(rows.has(v.shape) for v in (*floats, node.output)):
        return False
    types = [stored_type(v.type, low) if v.dtype == "f32" else v.type for v in inputs]
    try:
        (result,) = node.op.infer_types(types, node.attrs)
    except OvjitError:
        return False
    return result.shape == stored_type(node.output.type, low).shape


def _takes(user: Node | None, lowered: set[Value], low: str) -> bool:
    """True if a reader accepts the lower type: it multiplies in it, converts to it, or has a `low` output."""
    if user is None:
        return False
    computes = converts(user, to=(low,)) or part_of(user) == "compute"
    return computes or any(v in lowered for v in user.outputs)


def store_caches(graph: Graph, low: str) -> Graph:
    """Concat(Convert(x: low, f32), new) -> Concat(x, Convert(new, low))     if attention reads the result and
    the graph returns it as `low`

    Attention's node takes rows of bytes as f32. Its lowering reads the bytes, or the new rows before they are
    quantized.
    """
    rows = ByteRows.of(low)
    handed_on = _handed_on(graph, low)
    if not handed_on:
        return graph
    stored: dict[Value, Value] = {}  # f32 value of the new graph -> the same value in the lower type

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if not inputs:
            return None
        if _narrows(node, low) and inputs[0] in stored:
            return [stored[inputs[0]]]
        if rows is None and node.op.multiplied > 2 and any(v in stored for v in inputs[1:3]):
            arguments = [inputs[0], *(stored.get(v, v) for v in inputs[1:3]), *inputs[3:]]
            return b.instead(node, arguments, types=[v.type for v in node.outputs], lowered=True)
        if node.output not in handed_on:
            return None
        if _widens_input(node, low):
            stored[node.output] = inputs[0]
            return None
        arguments = [_convert_to_low(b, v, stored, low) for v in inputs]
        types = [stored_type(v.type, low) for v in node.outputs]
        (result,) = b.instead(node, arguments, types=types, lowered=True)
        real = convert_up(b, result, low, node.name, () if rows is None else _fresh(b, node, inputs, stored))
        stored[real] = result
        return [real]

    return rebuild(graph, visit)


@rule(operation(lambda record: record.multiplied >= 3)(...))
def read_halves(b: Builder, node: Node) -> Replacement:
    """Attention(q, [Transpose] Convert(k: f16, f32), v) -> Attention(q, [Transpose] k, v)     in place"""
    inputs = node.inputs
    factors = [_as_half(b, v) or v for v in inputs[1:3]]
    if factors == [*inputs[1:3]]:
        return None
    types = [v.type for v in node.outputs]
    return b.instead(node, [inputs[0], *factors, *inputs[3:]], types=types, lowered=True)


def _as_half(b: Builder, value: Value) -> Value | None:
    """The f16 source of a value that is widened from f16 and possibly moved. None for other values."""
    node = value.node
    if _widens(node, "f16"):
        return node.inputs[0]
    if not MOVES.fits(node.op) or (half := _as_half(b, node.inputs[0])) is None:
        return None
    return b.add(node.op, [half, *node.inputs[1:]], node.attrs, name=f"{node.name}/f16").output


def _fresh(b: Builder, node: Node, inputs: Sequence[Value], stored: dict[Value, Value]) -> tuple[Value, ...]:
    """The one new input that this node, or one before it, appends to a cache; () if there is not exactly
    one."""
    if _JOINED.fits(node.op):
        joined = [v for v in inputs if v not in stored]
        return tuple(joined) if len(joined) == 1 and len(inputs) == 2 else ()
    before = inputs[0].node
    if _GATHERED.fits(node.op) or not _ROWS.fits(before.op) or len(before.inputs) < 2:
        return ()
    return (b.add(node.op, [before.inputs[1], *inputs[1:]], node.attrs, name=f"{node.name}/fresh").output,)


def _convert_to_low(b: Builder, value: Value, stored: dict[Value, Value], low: str) -> Value:
    """`value` in the lower type. Values that are not f32 are returned unchanged."""
    if value.dtype != "f32" or value in stored:
        return stored.get(value, value)
    return convert_down(b, value, low)


def _narrows(node: Node, low: str) -> bool:
    """Whether the node converts its input to `low`."""
    rows = ByteRows.of(low)
    if rows is not None:
        return _has_rows(node, "QuantizeRows", rows)
    return converts(node, to=(low,))


def _handed_on(graph: Graph, low: str) -> set[Value]:
    """f32 values that derive by moves and concatenations from inputs of the lower type, if the graph also
    returns such a value in the lower type."""
    ends = [value.node for value in graph.outputs if _narrows(value.node, low)]
    of: dict[Value, set[Value]] = {}  # value -> the inputs that are in it
    for node in graph.nodes if ends else ():
        if _widens_input(node, low):
            of[node.output] = {node.inputs[0]}
        elif carries(node, node.inputs, low):
            inputs = set().union(*(of.get(v, ()) for v in node.inputs))
            if inputs:
                of[node.output] = inputs
    again: set[Value] = set()
    for node in ends:
        again |= of.get(node.inputs[0], set())
    return {value for value, inputs in of.items() if inputs <= again}
