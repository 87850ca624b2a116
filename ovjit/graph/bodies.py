"""Graphs inside nodes: the bodies of If, Loop and TensorIterator.

A body is a `Graph` among the attributes of its node. It has no access to the outer graph: all inputs are
parameters. `Port`s connect inputs of the node to parameters, and results of the body to outputs of the node.
They are plain tuples, so that all storages of attributes support them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ovjit.errors import ModelError, OvjitError, check
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Value, copy_into, infer_outputs
from ovjit.graph.interp import evaluate_node
from ovjit.graph.op import REFUSED, TensorType
from ovjit.graph.shapes import ANY, Dim, Shape, is_static, text
from ovjit.graph.traced import as_found, is_traced, is_traced_number, may_leave_reals, pin_array
from ovjit.records import NamedTuple

#: Maximum nesting depth of bodies.
DEEPEST = 64
#: Maximum elements of values that type inference evaluates.
SMALL = 4096
#: Maximum nodes that one type inference visits. Beyond it, types of loops' carried values get coarser.
BUDGET = 50_000

INVARIANT, MERGED, SLICED = "invariant", "merged", "sliced"
LAST, CONCAT = "last", "concat"


class Port(NamedTuple):
    """One connection between a node and its body.

    `outer` is an input or output of the node, `inner` a parameter or result of the body, by index.

    - invariant: the parameter is the input in every iteration;
    - merged: it is the input in the first iteration, then the previous iteration's result `back`;
    - sliced: in iteration i it is the i-th part of the input along `axis`, see `slice_bounds`;
    - last: the output is the result of iteration `iteration`, -1 for the last one;
    - concat: it is the results of all iterations, concatenated along `axis`, in reverse order for a negative
      stride.
    """

    kind: str
    outer: int
    inner: int
    back: int = -1
    start: int = 0
    stride: int = 1
    part_size: int = 1
    end: int = -1
    axis: int = 0
    iteration: int = -1


def ports(rows: Iterable[Sequence[Any]]) -> tuple[Port, ...]:
    """Convert stored rows to `Port`s. Raises ModelError for invalid rows."""
    try:
        result = tuple(Port(*row) for row in rows)
    except TypeError as error:
        raise ModelError(f"the description of a body's ports is not valid: {error}") from error
    for kind, *numbers in result:
        if not isinstance(kind, str) or not all(isinstance(n, (int, np.integer)) for n in numbers):
            raise ModelError(f"the description of a body's port is not valid: {[kind, *numbers]!r}"[:200])
    return result


def bodies_of(attrs: Mapping[str, Any]) -> Iterator[Graph]:
    """The graphs among a node's attributes."""
    return (value for value in attrs.values() if isinstance(value, Graph))


def check_body(body: Any, what: str) -> None:
    check(isinstance(body, Graph), f"{what} is missing; set it first")


def check_inputs(
    body: Graph, inputs: Sequence[Port], input_count: int, others: Iterable[int] = (), what: str = "the body"
) -> None:
    """Raise ModelError unless each parameter of `body` is fed exactly once: by one of the node's
    `input_count` inputs, or as one of the indices `others`."""
    fed: dict[int, str] = {}
    for index in others:
        check(
            0 <= index < len(body.inputs),
            f"{what} has no parameter with index {index}: it has {len(body.inputs)} parameters",
        )
        fed[index] = "by the node itself"
    for port in inputs:
        check(
            0 <= port.outer < input_count,
            f"a port of {what} takes input {port.outer}, but the operation has {input_count} inputs",
        )
        check(
            0 <= port.inner < len(body.inputs),
            f"a port feeds parameter {port.inner} of {what}, which has {len(body.inputs)} parameters",
        )
        name = body.inputs[port.inner].node.name
        check(port.inner not in fed, f"parameter {name!r} of {what} is fed twice")
        fed[port.inner] = "by a port"
    missing = [v.node.name for i, v in enumerate(body.inputs) if i not in fed]
    check(not missing, f"the parameter {(missing[0] if missing else '')!r} of {what} has no input")


def check_result(body: Graph, index: int, what: str = "the body") -> None:
    check(
        0 <= index < len(body.outputs),
        f"a port takes result {index} of {what}, which has {len(body.outputs)} results",
    )


def check_outputs(outputs: Sequence[Port]) -> None:
    """Raise ModelError unless the ports' outputs are 0, 1, ..., each exactly once."""
    check(
        sorted(port.outer for port in outputs) == list(range(len(outputs))),
        f"the ports produce the outputs {[port.outer for port in outputs]}; expected are 0 to "
        f"{len(outputs) - 1}",
    )


# --- types


class _Session(threading.local):
    """The cache and counters of one type inference, nested bodies included."""

    depth = 0
    looked_at = 0
    memo: dict[Any, Any]


_session = _Session()


def body_types(body: Graph, inputs: Sequence[TensorType]) -> list[TensorType]:
    """The types of the body's outputs for these types of its parameters, with known values.

    Raises ModelError, with the name of the node that does not accept its inputs.
    """
    session = _session
    if session.depth == 0:
        session.memo, session.looked_at = {}, 0
    if session.depth >= DEEPEST:
        raise ModelError(f"bodies are nested more than {DEEPEST} levels deep")
    key = body, tuple(map(_key, inputs))
    cached = session.memo.get(key)
    if cached is not None:
        return cached
    session.depth += 1
    session.looked_at += len(body.nodes)
    try:
        types: dict[Value, TensorType] = dict(zip(body.inputs, inputs, strict=True))
        for value, actual in types.items():
            check(
                value.dtype in (actual.dtype, "dynamic") or actual.dtype == "dynamic",
                f"the parameter {value.node.name!r} of the body has the type {value.dtype}, its input "
                f"has {actual.dtype}",
            )
        for node in body.nodes:
            if node.op.role == "constant":
                types[node.output] = node.output.type
            elif node.op.role != "parameter":
                new = infer_values(node, [types[v] for v in node.inputs])
                types.update(zip(node.outputs, new, strict=True))
        result = session.memo[key] = [types[v] for v in body.outputs]
        return result
    finally:
        session.depth -= 1
        if session.depth == 0:
            session.memo = {}


def _key(type: TensorType) -> Any:
    value = None if type.value is None or type.value.dtype.hasobject else type.value.tobytes()
    partial = None if type.partial is None else tuple(type.partial.reshape(-1))
    return type.dtype, type.shape, value, partial


def retype(body: Graph, types: Sequence[TensorType], outputs: Sequence[Value] | None = None) -> Graph:
    """The body with parameters of these types, and with other `outputs` of its values."""
    builder = Builder()
    new: dict[Value, Value] = {}
    for value, type in zip(body.inputs, types, strict=True):
        attrs = {"shape": type.shape, "element_type": type.dtype}
        result = builder.add("Parameter", (), attrs, name=value.node.name, origins=value.node.origins)
        new[value] = result.output
    for node in body.nodes:
        if node.op.role != "parameter":
            copy_into(new, builder, node)
    return builder.finish(new[v] for v in (body.outputs if outputs is None else outputs))


def convert_parameters(body: Graph, dtype_by_index: Mapping[int, str]) -> Graph:
    """The body with other element types for some parameters (index -> type), followed by conversions to the
    original types."""
    builder = Builder()
    parameters: dict[int, Value] = {}
    new: dict[Value, Value] = {}
    for node in body.nodes:
        index = body.inputs.index(node.output) if node.op.role == "parameter" else -1
        if index in dtype_by_index:
            attrs = {"shape": node.output.shape, "element_type": dtype_by_index[index]}
            result = builder.add("Parameter", (), attrs, name=node.name, origins=node.origins)
            to_own = {"destination_type": node.output.dtype}
            parameters[index] = result.output
            new[node.output] = builder.add("Convert", [result.output], to_own, origins=node.origins).output
            continue
        copy_into(new, builder, node)
    inputs = (parameters.get(i, new[v]) for i, v in enumerate(body.inputs))
    return builder.finish((new[v] for v in body.outputs), inputs)


def over_budget() -> bool:
    """True if the current inference has exceeded BUDGET, and should finish with coarser types."""
    return _session.depth > 0 and _session.looked_at > BUDGET


def infer_values(node: Node, inputs: Sequence[TensorType]) -> list[TensorType]:
    """The types of a node's outputs for these input types, with values if all inputs are known.

    Raises ModelError, with the node's name.
    """
    try:
        if any(is_traced(t.value) for t in inputs):
            return traced_values(node, inputs)
        outputs = infer_outputs(node, inputs)
        if all(o.value is not None for o in outputs) or not _computable(node, inputs, outputs):
            return list(outputs)
        values = evaluate_node(node, [t.value for t in inputs])  # type: ignore[misc]
    except OvjitError as error:
        raise ModelError(f"node {node.name!r} ({node.op.name}): {error}") from error
    return [TensorType(t.dtype, v.shape, v) for t, v in zip(outputs, values, strict=True)]


def _computable(node: Node, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> bool:
    """True if all inputs are known and small, and the outputs are small."""
    if not inputs or not node.op.may_fold:
        return False
    if any(t.value is None or t.value.size > SMALL for t in inputs):
        return False
    return all(not is_static(t.shape) or _is_small(t.shape) for t in outputs)


def _is_small(shape: Sequence[int]) -> bool:
    return not any(map(is_traced_number, shape)) and math.prod(shape) <= SMALL


def traced_values(node: Node, inputs: Sequence[TensorType]) -> list[TensorType]:
    """`infer_values` for inputs with traced numbers. If the result cannot be traced, the numbers are
    specialised, or kernels compute the result."""
    try:
        outputs = infer_outputs(node, inputs)
    except (TypeError, AttributeError):
        return infer_values(node, [_pin_values(t) for t in inputs])
    if all(o.value is not None for o in outputs):
        return list(outputs)
    if any(t.value is None for t in inputs) or not node.op.may_fold:
        return list(outputs)
    if not all(is_static(t.shape) and _is_small(t.shape) for t in outputs):
        return list(outputs)
    reals = all(ELEMENT_TYPES[o.dtype].is_real for o in outputs)
    if reals and is_traced(inputs[0].value) and may_leave_reals(inputs[0].value):
        return list(outputs)  # the reference would convert the traced numbers, and so specialise the plan
    values = _evaluate_traced(node, inputs)
    if values is None:
        return infer_values(node, [_pin_values(t) for t in inputs])
    return [TensorType(t.dtype, v.shape, v) for t, v in zip(outputs, values, strict=True)]


def _pin_values(t: TensorType) -> TensorType:
    return TensorType(t.dtype, t.shape, pin_array(t.value, numpy_dtype(t.dtype))) if is_traced(t.value) else t


def _evaluate_traced(node: Node, inputs: Sequence[TensorType]) -> list[np.ndarray] | None:
    """The reference's result for traced numbers. None if its values differ from those for plain integers."""
    values: list[Any] = [t.value for t in inputs]
    plain = [as_found(t.value).astype(numpy_dtype(t.dtype)) for t in inputs]
    expected = node.op.evaluate(plain, node.attrs)
    ref = node.op.ref
    assert ref is not None
    try:
        result: Any = ref(
            *(v if is_traced(v) else p for v, p in zip(values, plain, strict=True)), **node.attrs
        )
    except (*REFUSED, TypeError, AttributeError):
        return None
    arrays = [np.asarray(x) for x in (result if isinstance(result, tuple) else (result,))]
    same = all(
        a.shape == e.shape and np.array_equal(as_found(a), e) for a, e in zip(arrays, expected, strict=True)
    )
    if not same:
        return None
    # arrays without traced numbers are returned as ordinary ones
    return [a if is_traced(a) else e for a, e in zip(arrays, expected, strict=True)]


def join(a: TensorType, b: TensorType) -> TensorType:
    """The common supertype: different dimensions become dynamic, and so do different ranks.

    Raises ModelError for different element types.
    """
    if a.dtype != b.dtype and "dynamic" not in (a.dtype, b.dtype):
        raise ModelError(f"an output has the type {a.dtype} in one branch and {b.dtype} in the other")
    dtype = b.dtype if a.dtype == "dynamic" else a.dtype
    return TensorType(dtype, join_shapes(a.shape, b.shape))


def join_shapes(a: Shape | None, b: Shape | None) -> Shape | None:
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else ANY for x, y in zip(a, b, strict=True))


# --- slices


def slice_bounds(port: Port, extent: int) -> tuple[int, int, int]:
    """(index of part 0, step between parts, number of parts) along an axis of this extent.

    `start` and `end` are half-open; -1 is the end of the axis. A negative stride begins at the end. `end` is
    inclusive if the parts fill the range only then, as OpenVINO counts iterations. Raises ModelError if parts
    do not fit.
    """
    first = port.start + (extent + 1 if port.start < 0 else 0)
    last = port.end + (extent + 1 if port.end < 0 else 0)
    low, high = (last, first) if port.stride < 0 else (first, last)
    step = abs(port.stride)
    check(
        step > 0 and 0 <= low <= high <= extent and port.part_size > 0,
        f"slices from {port.start} to {port.end} by {port.stride} do not fit an axis of {extent}",
    )
    if port.stride > 0 and port.part_size == step and high < extent and (high - low) % step == step - 1 > 0:
        high += 1
    length = high - low
    iterations = 0 if length < port.part_size else (length - port.part_size) // step + 1
    check(
        port.part_size != step or length % step == 0,
        f"an axis of length {extent} cannot be sliced from {port.start} to {port.end} into parts of "
        f"{port.part_size}",
    )
    return (high - port.part_size, -step, iterations) if port.stride < 0 else (low, step, iterations)


def axis_of(port: Port, shape: Sequence[Dim]) -> int:
    """The port's axis, counted from 0. Raises ModelError if it is out of range."""
    rank = len(shape)
    check(
        -rank <= port.axis < rank, f"the axis {port.axis} of a slice is out of range for {text(tuple(shape))}"
    )
    return port.axis % rank


# --- cancelling


class _Watch(threading.local):
    stop: Any = None


_watch = _Watch()


@contextmanager
def stopping(stop: Any) -> Iterator[None]:
    """Context: references of loops call `stop()` before each iteration. It may raise, to end the loop."""
    before, _watch.stop = _watch.stop, stop
    try:
        yield
    finally:
        _watch.stop = before


def checkpoint() -> None:
    if _watch.stop is not None:
        _watch.stop()
