"""Removes variables from a graph: ReadValue becomes a hidden input, Assign a hidden output.

These passes are not rules: they change the graph's inputs and outputs, and split off the computation of
initial values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.compiler.options import Cache
from ovjit.errors import ModelError
from ovjit.graph import shapes
from ovjit.graph.byte_rows import ByteRows
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Value, copy_into, makers
from ovjit.graph.op import TensorType
from ovjit.records import NamedTuple
from ovjit.rewrite.low_precision import carries, convert_down, convert_up, part_of, stored_type
from ovjit.rewrite.pattern import anything, constant, op, values


class Variable(NamedTuple):
    """A state. `assigned`: whether an Assign writes it. `order`: index of the model's input that reorders its
    rows when they are read (beam search), or -1. `stored`: the element type, or name of `ByteRows`, in which
    it is stored between runs, see `keep_low`. `role`: "k" for a cache of keys, "v" for values."""

    name: str
    dtype: str
    shape: Any
    assigned: bool
    order: int
    stored: str
    role: str = ""

    @property
    def storage(self) -> TensorType:
        """The type of the stored value."""
        declared = TensorType(self.dtype, self.shape)
        return declared if self.stored == self.dtype else stored_type(declared, self.stored)

    @property
    def rows(self) -> ByteRows | None:
        """The form of rows of bytes in which it is stored; None for element types."""
        return ByteRows.of(self.stored) if self.stored != self.dtype else None


class Start(NamedTuple):
    """The computation of a variable's initial value: output `output` of `graph`. `inputs`: indices of the
    inputs of `main` that the graph takes."""

    graph: Graph
    inputs: tuple[int, ...]
    output: int


class Lifted(NamedTuple):
    """A graph without state operations.

    The inputs of `main` are the graph's, then one for each variable, whose rows are in the order of their
    reads. Its outputs are the graph's, then one for each assigned variable. `inits` has each variable's value
    after a reset: an array, its computation, or None for zeros. Those computed from the graph's inputs alone
    are outputs of one graph.
    """

    main: Graph
    variables: tuple[Variable, ...]
    inits: tuple[np.ndarray | Start | None, ...]


def lift(graph: Graph) -> Lifted:
    """Turn variables into inputs and outputs. A variable that is never read has the type of its assignment.
    Raises ModelError if a variable is assigned twice, or a value that does not fit its type."""
    reads: dict[str, list[Node]] = {}
    assigns: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op.role == "read":
            reads.setdefault(node.attrs["variable_id"], []).append(node)
        elif node.op.role == "assign":
            name = node.attrs["variable_id"]
            if name in assigns:
                both = f"{assigns[name].name!r} and {node.name!r}"
                raise ModelError(f"the variable {name!r} is assigned twice, by {both}")
            assigns[name] = node
    firsts = {name: nodes[0].output for name, nodes in reads.items()}
    for name, node in assigns.items():
        _check_assigned(node, firsts.setdefault(name, node.inputs[0]))
    uses = graph.uses()
    ordered = {name: _order(graph, nodes, uses) for name, nodes in reads.items() if name in assigns}
    variables = tuple(
        Variable(name, value.dtype, value.shape, name in assigns, ordered.get(name, -1), value.dtype)
        for name, value in firsts.items()
    )
    new_values = [assigns[v.name].inputs[0] for v in variables if v.assigned]
    main = _without_state(graph, variables, (*graph.public_outputs, *new_values))
    starts = ([source for node in reads.get(v.name, ()) for source in node.inputs] for v in variables)
    sources = [row[0] if row else None for row in starts]
    return Lifted(main, variables, _starts(graph, variables, sources))


def _starts(
    graph: Graph, variables: tuple[Variable, ...], sources: list[Value | None]
) -> tuple[np.ndarray | Start | None, ...]:
    """The initial value of each variable. `sources`: the input of its ReadValue, or None."""
    inits: list[np.ndarray | Start | None] = [None if s is None else s.constant for s in sources]
    alike: list[int] = []  # variables whose initial value depends on the graph's inputs only
    for k, source in enumerate(sources):
        if source is not None and inits[k] is None:
            if any(node.op.role == "read" for node in _find_producers(graph, (source,))):
                inits[k] = _start(graph, variables, (source,))
            else:
                alike.append(k)
    if alike:
        together = _start(graph, variables, tuple(s for k in alike if (s := sources[k]) is not None))
        for output, k in enumerate(alike):
            inits[k] = together._replace(output=output)
    return tuple(inits)


def _start(graph: Graph, variables: tuple[Variable, ...], sources: tuple[Value, ...]) -> Start:
    """The computation of `sources`, as the `Start` of the first of them."""
    nodes = _find_producers(graph, sources)
    read = {node.attrs.get("variable_id") for node in nodes if node.op.role == "read"}
    public = [i for i, value in enumerate(graph.inputs) if value.node in nodes]
    hidden = [len(graph.inputs) + k for k, variable in enumerate(variables) if variable.name in read]
    result = _without_state(graph, variables, sources, nodes)
    return Start(result, (*public, *hidden), 0)


def _find_producers(graph: Graph, values: Iterable[Value]) -> set[Node]:
    """The nodes that compute these values, back to the ReadValues."""
    return makers(values, graph.nodes, lambda node: node.op.role == "read")


def keep_low(lifted: Lifted, caches: tuple[Cache, Cache], computed: str, floats: Collection[str]) -> Lifted:
    """Store caches of keys and of values in the types that `caches` requests, or in the type that their
    readers multiply: `computed`, if it is one of `floats`, the types that the target multiplies.

    The hidden inputs and outputs of `main` get these types, with conversions next to them. The precision pass
    removes the conversions, or `store_caches` if the model computes in another type.

    A cache is an f32 variable whose next value is its value, moved and concatenated. Its only readers take
    its shape or multiply it: attention, and matrix products if the model computes in another type.
    """
    main, count = lifted.main, len(lifted.variables)
    assigned = [k for k, v in enumerate(lifted.variables) if v.assigned]
    first = len(main.outputs) - len(assigned)
    output_of = {k: first + i for i, k in enumerate(assigned)}
    uses = main.uses()
    chosen: dict[int, tuple[str, str]] = {}  # variable -> (stored type, role)
    hidden = dict(enumerate(main.inputs[len(main.inputs) - count :]))
    for k, value in hidden.items():
        if k in output_of and value.dtype == "f32":
            following = main.outputs[output_of[k]]
            readers = _readers(main, value, output_of[k], uses)
            role = "k" if "k" in readers.values() else "v"
            names = caches[role == "v"].names(computed, floats)
            low = _stored_in(value, following, readers, caches[role == "v"], names, computed, uses)
            if low:
                chosen[k] = low, role
    if not chosen:
        return lifted
    builder = Builder()
    new: dict[Value, Value] = {}
    kept_as: dict[Value, Value] = {}
    lows = {hidden[k]: low for k, (low, _) in chosen.items() if low != "f32"}
    for node in main.nodes:
        low = lows.get(node.output, "") if node.op.role == "parameter" else ""
        if low:
            kind = stored_type(node.output.type, low)
            attrs = {**node.attrs, "element_type": kind.dtype, "shape": kind.shape}
            parameter = builder.add("Parameter", (), attrs, name=node.name, origins=node.origins).output
            kept_as[node.output] = parameter
            new[node.output] = convert_up(builder, parameter, low, node.name)
        else:
            copy_into(new, builder, node)
    outputs = [new[v] for v in main.outputs]
    for k, (low, _) in chosen.items():
        if low != "f32":
            at = output_of[k]
            outputs[at] = convert_down(builder, outputs[at], low, main.outputs[at].node.name)
    result = builder.finish(outputs, [kept_as.get(v) or new[v] for v in main.inputs])
    variables = tuple(
        v._replace(stored=chosen[k][0], role=chosen[k][1]) if k in chosen else v
        for k, v in enumerate(lifted.variables)
    )
    return lifted._replace(main=result, variables=variables)


#: Operations that read keys and values, before and after attention is recognized.
_ATTENTION = op["MatMul ScaledDotProductAttention SoftmaxAttention GuardedAttention"](...)
_FUSED, _SCALED = op.GuardedAttention(...), op.ScaledDotProductAttention(...)
_CONCAT, _SOFTMAX = op.Concat(...), op.Softmax(...)
_TRANSPOSE = op.Transpose(anything, constant("order"))
#: Rows of a variable, gathered by beam indices.
_GATHERED = op.Gather(*values("rows beams"), constant("axis"), batch_dims=lambda n: not n)


def _stored_in(
    value: Value, following: Value, readers: dict[Node, str], cache: Cache, names: Sequence[str],
    computed: str, uses: Any,
) -> str:  # fmt: skip
    """The stored type of the hidden input `value`, whose next value is `following`: the first of `names` that
    fits, or "" for its own type."""
    of_attention = all(_ATTENTION.fits(node.op) for node in readers)
    for low in names if readers else ():
        rows = ByteRows.of(low)
        if not of_attention and low != computed:
            continue
        if rows is None:
            if low not in ("f32", "f16", "bf16"):
                name, types = next(iter(readers)).name, "f32, f16, bf16, u8, u4"
                raise ModelError(f"node {name!r} supports key/value cache precision {types} but gets {low}")
            return low
        if not cache.explicit and not _fused(value, following, uses):
            continue
        last = value.shape[-1] if value.shape else None
        if isinstance(last, int) and rows.group and last % rows.group:
            what = "key" if "k" in readers.values() else "value"
            raise ModelError(f"{what} state {last} cannot be divided by group size {rows.group}")
        if _keeps_rows(value, following, low, uses):
            return low
    return ""


def _fused(value: Value, following: Value, uses: Any) -> bool:
    """Whether OpenVINO fuses attention and the cache `value` into one node. It does if the cache is
    concatenated, and read directly or through the same Transpose as the queries."""
    joined = following.node
    if not _CONCAT.fits(joined.op) or joined.inputs[0] is not value or len(following.shape or ()) != 4:
        return False
    axis = int(joined.attrs["axis"]) % 4
    for user, _ in uses[following]:
        if user is None or user.op.role == "shape":
            continue
        order, readers = [0, 1, 2, 3], [user]
        if _TRANSPOSE.fits(user.op):
            order, readers = _turning(user), [reader for reader, _ in uses[user.output]]
        if order[2:3] != [axis] or not all(
            node is not None
            and _FUSED.fits(node.op)
            and (node is user or _turning(node.inputs[0].node) == order)
            for node in readers
        ):
            return False
    return True


def _turning(node: Node) -> list[int]:
    """The constant order of a Transpose; [] for other nodes."""
    moved = _TRANSPOSE.first(node.output)
    return [] if moved is None else [int(axis) for axis in moved["order"].constant]


def _readers(main: Graph, value: Value, output: int, uses: Any) -> dict[Node, str]:
    """node -> "k" or "v", for the nodes that multiply the hidden input `value` as keys or as values. Empty
    unless `value` is a cache as `keep_low` defines it. `output`: index of its next value."""
    followed, stack, multiplied = {value}, [value], {}
    while stack:
        at = stack.pop()
        for user, index in uses[at]:
            if user is None:
                if index != output:
                    return {}
            elif index < user.op.multiplied:
                multiplied[user] = _role(user, index)
            elif user.op.role == "shape":
                continue
            elif _CONCAT.fits(user.op) or (part_of(user) == "carry" and index == 0):
                fresh = [v for v in user.outputs if v not in followed]
                followed.update(fresh)
                stack += fresh
            else:
                return {}
    return multiplied if main.outputs[output] in followed else {}


def _role(node: Node, index: int) -> str:
    """ "k" or "v": the role of input `index` of attention, or of one of attention's two products. Values are
    multiplied with the result of a softmax."""
    if node.op.multiplied > 2:
        return "v" if index == 2 else "k"
    result = node.inputs[1 - index].node
    while result.inputs and not _SOFTMAX.fits(result.op) and part_of(result) in ("carry", "fuse"):
        result = result.inputs[0].node
    return "v" if _SOFTMAX.fits(result.op) else "k"


def _keeps_rows(value: Value, following: Value, low: str, uses: Any) -> bool:
    """Whether rows of the hidden input `value` can be stored as the rows of bytes `low`, and all nodes up to
    its next value, `following`, move whole rows."""
    rows = ByteRows.of(low)
    if rows is None or not rows.has(value.shape):
        return False
    row_values, waiting = {value}, [value]
    while waiting:
        for node, _ in uses[waiting.pop()]:
            if node is not None and carries(node, node.inputs, low) and node.output not in row_values:
                row_values.add(node.output)
                waiting.append(node.output)
    return following in row_values


def _order(graph: Graph, reads: list[Node], uses: Any) -> int:
    """The index of the model's input with beam indices, if a variable is only read through a Gather by them,
    else -1. The variable's owner can then reorder rows in place, and usually no row moves."""
    value = reads[0].output
    if len(reads) != 1 or value in graph.outputs or len(uses[value]) != 1:
        return -1
    node = uses[value][0][0]
    bindings = None if node is None else _GATHERED.first(node.output)
    if bindings is None or bindings["rows"] is not value:
        return -1
    indices = bindings["beams"]
    fits = (
        indices in graph.inputs
        and indices.shape is not None
        and len(indices.shape) == 1
        and value.shape is not None
        and int(bindings["axis"].constant.reshape(-1)[0]) in (0, -len(value.shape))
    )
    return graph.inputs.index(indices) if fits else -1


def _check_assigned(node: Node, read: Value) -> None:
    new = node.inputs[0]
    if read.dtype != new.dtype:
        raise ModelError(f"node {node.name!r} assigns {new.dtype} to a variable of type {read.dtype}")
    if read.shape is None or new.shape is None:
        return
    if len(read.shape) != len(new.shape) or any(
        shapes.merge(a, b) is None for a, b in zip(read.shape, new.shape, strict=True)
    ):
        raise ModelError(
            f"node {node.name!r} assigns the shape {shapes.text(new.shape)} to a variable of shape "
            f"{shapes.text(read.shape)}"
        )


def _cached_attention(b: Builder, node: Node, inputs: list[Value]) -> Value:
    """Attention over caches that are reordered by beams, with OpenVINO's results for fully masked rows: the
    mean of the values for a boolean mask, else 0."""
    if len(inputs) > 3 and inputs[3].dtype == "boolean" and not node.attrs["causal"]:
        dtype = numpy_dtype(inputs[0].dtype)
        numbers = (0, np.finfo(dtype if dtype.kind == "f" else np.float32).min)
        visible, hidden = (b.constant(np.array(x).astype(dtype), inputs[0].dtype) for x in numbers)
        name = f"{node.name}/mask"
        inputs[3] = b.add("Select", [inputs[3], visible, hidden], {}, name=name, origins=node.origins).output
    return b.instead(node, inputs, op="GuardedAttention")[0]


def _without_state(
    graph: Graph, variables: tuple[Variable, ...], outputs: tuple[Value, ...], nodes: set[Node] | None = None
) -> Graph:
    """The part of `graph` that computes `outputs`, with variables as inputs after the graph's own. `nodes`:
    the nodes that the outputs need, if only the inputs and variables among them are wanted."""
    builder = Builder()
    cached: set[Value] = set()  # caches that are reordered by beams
    new: dict[Value, Value] = {}
    hidden: dict[str, Value] = {}
    shape_of = {v.name: (v.dtype, v.shape) for v in variables}
    uses = graph.uses()
    read = {n.attrs["variable_id"]: n for n in reversed(graph.nodes) if n.op.role == "read"}
    passed = set()  # Gathers by beam indices
    for variable in variables:
        if variable.order >= 0:
            gather = uses[read[variable.name].output][0][0]
            assert gather is not None
            passed.add(gather)
            shape_of[variable.name] = variable.dtype, gather.output.shape
    for node in graph.nodes:
        if nodes is not None and node not in nodes:
            continue
        name = node.attrs.get("variable_id")
        if name is not None and name not in hidden and (node.op.role == "read" or name not in read):
            dtype, shape = shape_of[name]
            attrs = {"shape": shape, "element_type": dtype}
            hidden[name] = builder.add("Parameter", (), attrs, name=node.name, origins=node.origins).output
        if node.op.role == "assign":
            new[node.output] = new[node.inputs[0]]
        elif node.op.role == "read":
            new[node.output] = hidden[node.attrs["variable_id"]]
        elif node in passed:
            new[node.output] = new[node.inputs[0]]
            cached.add(node.output)
        elif _SCALED.fits(node.op) and cached.issuperset(node.inputs[1:3]):
            new[node.output] = _cached_attention(builder, node, [new[v] for v in node.inputs])
        else:
            copy_into(new, builder, node)
            if (_CONCAT.fits(node.op) or part_of(node) == "carry") and cached.intersection(node.inputs):
                cached.update(node.outputs)
    inputs = [new[v] for v in graph.inputs if v in new]
    inputs += [hidden[v.name] for v in variables if v.name in hidden]
    return builder.finish((new[v] for v in outputs), inputs)
