"""Variables out of the graph: ReadValue becomes a hidden input, Assign a hidden output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ovjit.compiler.passes.precision import carries, narrowed, part_of, stored_type, widened
from ovjit.errors import ModelError
from ovjit.graph import byte_rows, shapes
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Value, copy_into
from ovjit.graph.op import TensorType


class Variable(NamedTuple):
    """A state. `assigned`: whether an Assign writes it. `order`: which of the model's inputs says in which
    order its rows are read (the beams of a search); -1: as they are. `stored`: the element type that it is
    kept in between runs, see `keep_low`."""

    name: str
    dtype: str
    shape: Any
    assigned: bool
    order: int
    stored: str

    @property
    def kept(self) -> TensorType:
        """The type of what is kept between runs."""
        own = TensorType(self.dtype, self.shape)
        return own if self.stored == self.dtype else stored_type(own, self.stored)


class Start(NamedTuple):
    """What computes the value that a variable begins with: an output of `graph`, the inputs of which are
    those of `main` with the numbers `inputs`."""

    graph: Graph
    inputs: tuple[int, ...]
    output: int


class Lifted(NamedTuple):
    """A graph without state operations. The inputs of `main` are the graph's, then one for each variable, its
    rows in the order that they are read; its outputs the graph's, then one for each that is assigned.

    `inits` has for each variable what it is after a reset: an array, what computes it, or None for zeros. All
    that are computed of the graph's inputs alone are outputs of one graph.
    """

    main: Graph
    variables: tuple[Variable, ...]
    inits: tuple[np.ndarray | Start | None, ...]


def lift(graph: Graph) -> Lifted:
    """Make inputs and outputs of the variables. One that is never read is of the type that it is assigned.
    Raises ModelError for one that is assigned twice, or what it cannot hold."""
    reads: dict[str, list[Node]] = {}
    assigns: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op.name == "ReadValue":
            reads.setdefault(node.attrs["variable_id"], []).append(node)
        elif node.op.name == "Assign":
            name = node.attrs["variable_id"]
            if name in assigns:
                both = f"{assigns[name].name!r} and {node.name!r}"
                raise ModelError(f"the variable {name!r} is assigned twice, by {both}")
            assigns[name] = node
    held = {name: nodes[0].output for name, nodes in reads.items()}
    for name, node in assigns.items():
        _check_assigned(node, held.setdefault(name, node.inputs[0]))
    uses = graph.uses()
    ordered = {name: _order(graph, nodes, uses) for name, nodes in reads.items() if name in assigns}
    variables = tuple(
        Variable(name, value.dtype, value.shape, name in assigns, ordered.get(name, -1), value.dtype)
        for name, value in held.items()
    )
    new_values = [assigns[v.name].inputs[0] for v in variables if v.assigned]
    main = _without_state(graph, variables, (*graph.public_outputs, *new_values))
    starts = ([source for node in reads.get(v.name, ()) for source in node.inputs] for v in variables)
    sources = [row[0] if row else None for row in starts]
    return Lifted(main, variables, _starts(graph, variables, sources))


def _starts(
    graph: Graph, variables: tuple[Variable, ...], sources: list[Value | None]
) -> tuple[np.ndarray | Start | None, ...]:
    """What each variable begins with, of the values that its ReadValue reads."""
    inits: list[np.ndarray | Start | None] = [None if s is None else s.constant for s in sources]
    alike: list[int] = []  # variables that begin with what is computed of inputs alone
    for k, source in enumerate(sources):
        if source is not None and inits[k] is None:
            if any(node.op.name == "ReadValue" for node in _needed((source,))):
                inits[k] = _start(graph, variables, (source,))
            else:
                alike.append(k)
    if alike:
        together = _start(graph, variables, tuple(s for k in alike if (s := sources[k]) is not None))
        for output, k in enumerate(alike):
            inits[k] = together._replace(output=output)
    return tuple(inits)


def _start(graph: Graph, variables: tuple[Variable, ...], sources: tuple[Value, ...]) -> Start:
    """What computes these values."""
    nodes = _needed(sources)
    read = {node.attrs.get("variable_id") for node in nodes if node.op.name == "ReadValue"}
    public = [i for i, value in enumerate(graph.inputs) if value.node in nodes]
    hidden = [len(graph.inputs) + k for k, variable in enumerate(variables) if variable.name in read]
    made = _without_state(graph, variables, sources, nodes)
    return Start(made, (*public, *hidden), 0)


def _needed(values: Iterable[Value]) -> set[Node]:
    """The nodes that compute these values, as far as the variables that they read."""
    found: set[Node] = set()
    waiting = [v.node for v in values]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node.op.name != "ReadValue":
                waiting += [v.node for v in node.inputs]
    return found


def keep_low(lifted: Lifted, low: str, computed: str) -> Lifted:
    """Caches in the element type `low` that those who read them multiply: the hidden ends of `main` have it,
    with conversions beside them, which the precision pass takes out, or `store_caches` where the model
    computes in another type.

    A cache is a variable of f32 whose next value is its value, moved and joined, of which nothing is read but
    its shape and what is multiplied: of attention and matrices, where the model computes in another type,
    `computed`. In u8 are all caches or none: its rows have to stay what they are from run to run.
    """
    main, count = lifted.main, len(lifted.variables)
    if low == "f32":
        return lifted
    assigned = [k for k, v in enumerate(lifted.variables) if v.assigned]
    first = len(main.outputs) - len(assigned)
    output_of = {k: first + i for i, k in enumerate(assigned)}
    uses = main.uses()
    readers = None if low == computed else ATTENTION
    chosen: dict[int, Value] = {}  # variable -> its hidden input
    for k, value in enumerate(main.inputs[len(main.inputs) - count :]):
        if k in output_of and value.dtype == "f32":
            if _is_cache(main, value, output_of[k], uses, readers):
                chosen[k] = value
    if low == "u8" and not all(_keeps_rows(main, v, main.outputs[output_of[k]]) for k, v in chosen.items()):
        return lifted
    if not chosen:
        return lifted
    builder = Builder()
    new: dict[Value, Value] = {}
    hidden: dict[Value, Value] = {}
    parameters = set(chosen.values())
    for node in main.nodes:
        if node.op.name == "Parameter" and node.output in parameters:
            kind = stored_type(node.output.type, low)
            attrs = {**node.attrs, "element_type": low, "shape": kind.shape}
            kept = builder.add("Parameter", (), attrs, name=node.name, origins=node.origins).output
            hidden[node.output] = kept
            new[node.output] = widened(builder, kept, node.name)
        else:
            copy_into(new, builder, node)
    outputs = [new[v] for v in main.outputs]
    for k in chosen:
        at = output_of[k]
        outputs[at] = narrowed(builder, outputs[at], low, main.outputs[at].node.name)
    made = builder.finish(outputs, [hidden.get(v) or new[v] for v in main.inputs])
    variables = tuple(
        v._replace(stored=low) if k in chosen else v for k, v in enumerate(lifted.variables)
    )
    return lifted._replace(main=made, variables=variables)


#: What reads keys and values, before attention is recognized in products and after.
ATTENTION = frozenset(("MatMul", "ScaledDotProductAttention", "GuardedAttention"))


def _is_cache(
    main: Graph, value: Value, output: int, uses: Any, readers: frozenset[str] | None = None
) -> bool:
    """Whether the hidden input `value` is what `keep_low` calls a cache, output `output` its next value.
    `readers`: which operations may multiply it, None: all that multiply."""
    found, stack, multiplied = {value}, [value], False
    while stack:
        at = stack.pop()
        for user, index in uses[at]:
            if user is None:
                if index != output:
                    return False
            elif index < user.op.multiplied and (readers is None or user.op.name in readers):
                multiplied = True
            elif user.op.name == "ShapeOf":
                continue
            elif user.op.name == "Concat" or (part_of(user.op) == "carry" and index == 0):
                fresh = [v for v in user.outputs if v not in found]
                found.update(fresh)
                stack += fresh
            else:
                return False
    return multiplied and main.outputs[output] in found


def _keeps_rows(main: Graph, value: Value, following: Value) -> bool:
    """Whether the rows of the hidden input `value` are rows of its next value, `following`, wherever they are
    moved."""
    if not byte_rows.has_rows(value.shape):
        return False
    found = {value}
    for node in main.nodes:
        if found.intersection(node.inputs) and carries(node, node.inputs, "u8"):
            found.update(node.outputs)
    return following in found


def _order(graph: Graph, reads: list[Node], uses: Any) -> int:
    """The input of the model by which rows are gathered, where a variable is read through that Gather alone:
    decoders write it for the beams of a search. Whoever keeps the value can do it, and mostly there is
    nothing to do. Else -1."""
    value = reads[0].output
    if len(reads) != 1 or value in graph.outputs or len(uses[value]) != 1:
        return -1
    node = uses[value][0][0]
    if node is None or node.op.name != "Gather" or node.inputs[0] is not value:
        return -1
    _, indices, axis = node.inputs
    fits = (
        indices in graph.inputs
        and indices.shape is not None
        and len(indices.shape) == 1
        and axis.constant is not None
        and value.shape is not None
        and int(axis.constant.reshape(-1)[0]) in (0, -len(value.shape))
        and not node.attrs.get("batch_dims")
    )
    return graph.inputs.index(indices) if fits else -1


def _check_assigned(node: Node, read: Value) -> None:
    new = node.inputs[0]
    if read.dtype != new.dtype:
        raise ModelError(f"node {node.name!r} assigns {new.dtype} to a variable of {read.dtype}")
    if read.shape is None or new.shape is None:
        return
    if len(read.shape) != len(new.shape) or any(
        shapes.merge(a, b) is None for a, b in zip(read.shape, new.shape, strict=True)
    ):
        raise ModelError(
            f"node {node.name!r} assigns the shape {shapes.text(new.shape)} to a variable of "
            f"{shapes.text(read.shape)}"
        )


def _cached_attention(b: Builder, node: Node, inputs: list[Value]) -> Value:
    """Attention over keys and values in the order of beams: as OpenVINO computes it there, a row of which all
    is masked is the mean of the values where the mask is boolean, else 0. Elsewhere it is NaN, which the next
    layer would carry from the padding of a batch to all of its tokens."""
    if len(inputs) > 3 and inputs[3].dtype == "boolean" and not node.attrs["causal"]:
        dtype = numpy_dtype(inputs[0].dtype)
        numbers = (0, np.finfo(dtype if dtype.kind == "f" else np.float32).min)
        seen, hidden = (b.constant(np.array(x).astype(dtype), inputs[0].dtype) for x in numbers)
        name = f"{node.name}/mask"
        inputs[3] = b.add("Select", [inputs[3], seen, hidden], {}, name=name, origins=node.origins).output
    return b.instead(node, inputs, op="GuardedAttention")[0]


def _without_state(
    graph: Graph, variables: tuple[Variable, ...], outputs: tuple[Value, ...], nodes: set[Node] | None = None
) -> Graph:
    """The part of `graph` that `outputs` need, the variables being inputs after the graph's own: all of them,
    or those among `nodes`, which are what the outputs need."""
    builder = Builder()
    cached: set[Value] = set()  # what is read of keys and values in the order of beams
    new: dict[Value, Value] = {}
    hidden: dict[str, Value] = {}
    shape_of = {v.name: (v.dtype, v.shape) for v in variables}
    uses = graph.uses()
    read = {n.attrs["variable_id"]: n for n in reversed(graph.nodes) if n.op.name == "ReadValue"}
    passed = set()  # what orders the rows of a variable
    for variable in variables:
        if variable.order >= 0:
            gather = uses[read[variable.name].output][0][0]
            assert gather is not None
            passed.add(gather)
            shape_of[variable.name] = variable.dtype, gather.output.shape
    for node in graph.nodes:
        if nodes is not None and node not in nodes:
            continue
        name = node.attrs.get("variable_id", "")
        if name and name not in hidden and (node.op.name == "ReadValue" or name not in read):
            dtype, shape = shape_of[name]
            attrs = {"shape": shape, "element_type": dtype}
            hidden[name] = builder.add("Parameter", (), attrs, name=node.name, origins=node.origins).output
        if node.op.name == "Assign":
            new[node.output] = new[node.inputs[0]]
        elif node.op.name == "ReadValue":
            new[node.output] = hidden[name]
        elif node in passed:
            new[node.output] = new[node.inputs[0]]
            cached.add(node.output)
        elif node.op.name == "ScaledDotProductAttention" and cached.issuperset(node.inputs[1:3]):
            new[node.output] = _cached_attention(builder, node, [new[v] for v in node.inputs])
        else:
            copy_into(new, builder, node)
            if (node.op.name == "Concat" or part_of(node.op) == "carry") and cached.intersection(node.inputs):
                cached.update(node.outputs)
    inputs = [new[v] for v in graph.inputs if v in new]
    inputs += [hidden[v.name] for v in variables if v.name in hidden]
    return builder.finish((new[v] for v in outputs), inputs)
