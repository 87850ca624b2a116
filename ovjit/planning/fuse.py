"""Fusion: partitions the graph's nodes into groups. Each group becomes one kernel.

A group is an anchor (a matrix product, a pooling, a reduction, a view ...) followed by elementwise nodes, or
elementwise nodes alone. Values between a group's first and last node have the same shape and no reader
outside of the group. A group takes its last node's position, so all its operands precede it. An anchor that
reads its first input element by element, such as a sum or a softmax, also takes the elementwise producers of
that input as its prologue. Elementwise groups that one loop can compute are joined. The loop then writes the
output of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.codegen.trace import Recorder, Tracer, fma, is_common, number, trace, where
from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.shapes import LONG_GUESS, Interval
from ovjit.planning.symbols import Symbols

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: Maximum nodes of an elementwise group. Longer bodies spill registers and compile slowly.
LONGEST_BODY = 24
#: Maximum traced instructions of a body. An activation has 15 to 40. LLVM's time grows more than linearly.
MOST_INSTRUCTIONS = 160
#: Maximum operands of an elementwise group.
MOST_OPERANDS = 10
#: Maximum outputs of a joined group, and maximum tensors that its loop reads and writes.
MOST_OUTPUTS = 4
MOST_STREAMS = 12
#: Groups with fewer elements are not joined: their separate kernels may be compiled already.
FEWEST = 512
#: Maximum distance of two joined groups in the order. Values that wait for the later group occupy memory.
FARTHEST = 16
#: Longest dependency chain, in instructions, that does not limit the loop's throughput.
DEEPEST = 24
#: Cost of loading or storing a vector, in instructions.
STREAM = 4
#: Fewest elements in a row of a joined group, and elements of f32 in a cache line. Two outputs whose cache
#: lines are written in interleaved parts take up to two thirds longer than outputs written one by one.
SHORTEST_ROW, LINE = 48, 16


class Group:
    """Nodes that one kernel computes: the `prologue`, the `anchor` (or None) and the epilogue `body`.

    `prologue` has the elementwise producers of the anchor's first input, in order. `body` has the elementwise
    nodes after the anchor. Outputs are those of the last node. A group without an anchor also outputs
    `extras`: values of the body that nodes outside of the group read. `context` has the target and the
    options."""

    __slots__ = ("anchor", "body", "context", "extras", "instructions", "prologue", "uniform", "used")

    def __init__(
        self, context: Context, anchor: Node | None, body: Sequence[Node] = (), prologue: Sequence[Node] = ()
    ):
        self.context = context
        self.anchor = anchor
        self.body = list(body)
        self.prologue = tuple(prologue)
        self.instructions = self.count(self.body)
        self.extras: tuple[Value, ...] = ()
        #: Whether all values are known to have the same shape. An anchor's kernel iterates over one shape.
        self.uniform = True
        self.used: frozenset[int] = frozenset()  # indices of the last node's outputs that have readers

    def extend(self, nodes: Sequence[Node]) -> None:
        """Append to the body."""
        self.body += nodes
        self.instructions += self.count(nodes)

    def count(self, nodes: Sequence[Node]) -> int:
        """The sum of the traced instructions of the nodes' scalar bodies."""
        return sum(instructions(node, self.context.target) for node in nodes)

    def insert(self, nodes: Sequence[Node], value: Value) -> None:
        """Insert `nodes`, which compute `value`, before the first body node that reads `value`."""
        at = next(i for i, n in enumerate(self.body) if value in n.inputs)
        self.body[at:at] = nodes
        self.instructions += self.count(nodes)

    @property
    def nodes(self) -> list[Node]:
        return [*self.prologue, *([self.anchor] if self.anchor is not None else []), *self.body]

    @property
    def node(self) -> Node:
        """The node that is lowered: the anchor, or the first body node without one."""
        return self.body[0] if self.anchor is None else self.anchor

    @property
    def last(self) -> Node:
        return self.body[-1] if self.body or self.anchor is None else self.anchor

    @property
    def outputs(self) -> tuple[Value, ...]:
        return (*self.last.outputs, *self.extras)

    @property
    def operands(self) -> list[Value]:
        """Values that the body reads from outside of the group, in order.

        A tensor is listed once. A constant of one element is listed once per use. So the kernel is the same
        whether a model shares such a constant between nodes or repeats it. Constants that are printed into
        the kernel (`is_literal`) are excluded.
        """
        return self._read(self.body)

    @property
    def sources(self) -> list[Value]:
        """The inputs of the prologue; without a prologue, the anchor's first input."""
        return self._read(self.prologue) if self.prologue else list(self.node.inputs[:1])

    @property
    def inputs(self) -> set[Value]:
        """All values that the group reads from outside."""
        return {v for _, _, v in self._uses(self.nodes)}

    def _read(self, nodes: Sequence[Node]) -> list[Value]:
        read: list[Value] = []
        listed: set[Value] = set()
        for node, i, value in self._uses(nodes):
            if not is_literal(node, i) and value not in listed:
                read.append(value)
                if not is_number(value):
                    listed.add(value)
        return read

    def _uses(self, nodes: Sequence[Node]) -> Iterator[tuple[Node, int, Value]]:
        """(node, input index, value) for each input of these nodes that is computed outside of the group."""
        inside = {v for n in self.nodes for v in n.outputs}
        return ((n, i, v) for n in nodes for i, v in enumerate(n.inputs) if v not in inside)

    @property
    def tensors(self) -> list[Value]:
        """The operands without constants of one element, which a kernel keeps in registers."""
        return [v for v in self.operands if not is_number(v)]

    @property
    def name(self) -> str:
        return self.last.name

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o for n in self.nodes for o in n.origins))

    def __repr__(self) -> str:
        return "+".join(n.op.name for n in self.nodes) + f" %{self.name}"

    def parts(self) -> tuple[Group, Group]:
        """Two groups that compute the same values. The epilogue is split off. The prologue is split off
        instead if there is no epilogue, or if there is a prologue and `uniform` holds."""
        if self.body and not (self.prologue and self.uniform):
            parts: Any = (self.anchor, (), self.prologue), (None, self.body)
        else:
            parts = (None, self.prologue), (self.anchor, self.body)
        first, last = (Group(self.context, *part) for part in parts)
        first.used, last.used = frozenset((0,)), self.used
        return first, last

    def make_body(self, skip: int = 0, near: bool = False) -> Body | None:
        """Trace the body without its first `skip` nodes. Returns None if no node remains.

        Input 0 is the result of the anchor, or of the last skipped node; the operands follow. `near` promises
        that rounded values fit into i32."""
        nodes = self.body[skip:]
        if not nodes:
            return None
        first = [self.nodes[len(self.prologue) + skip].outputs[0]] if self.anchor is not None else []
        inputs = first + self.operands_after(skip)
        return trace_nodes(self.context.target, nodes, inputs, near, self.extras)

    def make_prologue(self) -> Body | None:
        """The traced prologue, whose inputs are `sources`. None without a prologue."""
        return trace_nodes(self.context.target, self.prologue, self.sources) if self.prologue else None

    def operands_after(self, skip: int) -> list[Value]:
        """The operands of the body without its first `skip` nodes."""
        return self._read(self.body[skip:])


def trace_nodes(
    target: Target,
    nodes: Sequence[Node],
    inputs: Sequence[Value],
    near: bool = False,
    more: Sequence[Value] = (),
) -> Body:
    """Trace elementwise nodes into one body, which computes the last node's value and `more` from `inputs`.
    `near`: see `Group.make_body`."""
    recorder = Recorder()
    recorder.near = near
    values: dict[Value, Tracer] = {}
    numbers: dict[Value, list[Tracer]] = {}
    for i, v in enumerate(inputs):
        values[v] = recorder.input(f"x{i}", v.dtype)
        if is_number(v):
            numbers.setdefault(v, []).append(values[v])

    def read(node: Node, i: int, v: Value) -> Tracer:
        if is_literal(node, i):
            return number(recorder, element_of(v), v.dtype)
        return numbers[v].pop(0) if len(numbers.get(v, ())) > 1 else values[v]

    for node in nodes:
        assert node.op.scalar is not None
        attrs = {k: v for k, v in node.attrs.items() if k != "auto_broadcast"}
        arguments = [read(node, i, v) for i, v in enumerate(node.inputs)]
        recorder.approximate = node.output.dtype == "bf16"
        scalar = quotient if is_fast_quotient(node, target) else node.op.scalar
        values[node.output] = trace(scalar, arguments, attrs)
    result = (nodes[-1].output, *more)
    return Body(
        [v.dtype for v in inputs], [v.dtype for v in result], recorder.lines, [values[v].name for v in result]
    )


def is_fast_quotient(node: Node, target: Target) -> bool:
    """True for an f32 division by a constant of one element that `quotient` computes faster. On AVX-512 a
    division takes 16 times as long as a multiplication, on narrower vectors only a few times as long."""
    if node.op.name != "Divide" or node.output.dtype != "f32" or not is_number(node.inputs[1]):
        return False
    return target.name == "avx512" and 1 <= abs(element_of(node.inputs[1])) <= 2.0**64


def quotient(x: Any, y: Any, **attrs: Any) -> Any:
    """x / y, correctly rounded in f32, for a uniform y with |y| >= 1.

    The result is the product with the reciprocal, plus the share of its remainder (P. Markstein, IBM J. Res.
    Dev. 34, 1990). If the remainder is zero (zeros of either sign) or not a number (infinities), the result
    is the product. If x is below 2**-100, the last bit may be off."""
    reciprocal = 1 / y
    product = x * reciprocal
    remainder = fma(-y, product, x)
    return where((remainder < 0) | (remainder > 0), fma(remainder, reciprocal, product), product)


def is_number(value: Value) -> bool:
    """True for constants of one element."""
    array = value.stored_array
    return array is not None and array.size == 1 and value.dtype != "string"


def element_of(value: Value) -> Any:
    """The element of a constant that `is_number`."""
    assert value.constant is not None
    return value.constant.reshape(()).item()


def is_literal(node: Node, i: int) -> bool:
    """True if input i of an elementwise node is a constant that is printed into the kernel's source.

    Printed are booleans, integer divisors, and common numbers such as 0 and 1, for which LLVM generates
    other code. All other constants of one element are operands, so that a kernel serves any of them."""
    value = node.inputs[i]
    if not is_number(value):
        return False
    if value.dtype == "boolean":
        return True
    if node.op.any_number:
        return False
    if ELEMENT_TYPES[value.dtype].kind != "f":
        return (node.op.divides and i == 1) or is_common(float(element_of(value)))
    return is_common(float(element_of(value)))


def fuse(graph: Graph, context: Context, alone: bool = False) -> list[Group]:
    """The groups in execution order. Constants and Parameters are in no group.

    With `alone`, every node is a group of its own.
    """
    return _Fusion(graph, context).run(alone)


class _Fusion:
    """Grows groups forwards while they have one output, then absorbs the producers of their operands.

    a = relu(x); y = a + b * c                      -> relu, mul, add
    t = conv(x); y = t * sigmoid(t)                 -> conv, sigmoid, mul
    t = conv(x); y = relu(t + (q - 3) * 0.1)        -> conv, sub, mul, add, relu
    """

    def __init__(self, graph: Graph, context: Context):
        self.context = context
        self.nodes = [n for n in graph.nodes if n.op.role not in ("parameter", "constant")]
        self.order = {n: i for i, n in enumerate(graph.nodes)}
        self.uses = graph.uses_of_elements()
        self.symbols = Symbols(graph)
        self.group_of: dict[Node, Group] = {}
        self.joinable: dict[Group, frozenset[Value] | None] = {}

    def run(self, alone: bool) -> list[Group]:
        anchors = [n for n in self.nodes if not is_elementwise(n)]
        for node in reversed(anchors):  # a sum of two anchors joins the later: the other operand precedes it
            group = self.group_of[node] = Group(self.context, node)
            if not alone and takes_epilogue(node):
                self.extend_epilogue(group)
        for node in self.nodes:
            if node not in self.group_of:
                group = self.group_of[node] = Group(self.context, None, [node])
                if not alone:
                    self.extend_epilogue(group)
        groups = sorted(set(self.group_of.values()), key=lambda g: self.order[g.last])
        if not alone:
            for group in groups:
                self.inline_operands(group)
            for group in groups:
                self.take_prologue(group)
            groups = self.merge_siblings([g for g in groups if self.group_of[g.last] is g])
        for group in groups:
            group.used = frozenset(v.index for v in group.outputs if self.uses[v])
        return groups if alone else self.drop_unread(groups)

    def drop_unread(self, groups: Sequence[Group]) -> list[Group]:
        """Drop groups whose elements no kernel reads: their readers need only the shapes."""
        out: list[Group] = []
        needed: set[Node | None] = {None}
        for group in reversed(groups):
            if any(not needed.isdisjoint(self.readers(v)) for v in group.outputs):
                needed.update(group.nodes)
                out.append(group)
        return out[::-1]

    def readers(self, value: Value) -> set[Node | None]:
        """The nodes that read `value`, and None if `value` is an output of the model."""
        return {node for node, _ in self.uses[value]}

    def extend_epilogue(self, group: Group) -> None:
        """Append the elementwise nodes after `group`, up to their last common post-dominator.

        Nodes are taken in order. When the taken nodes have a single remaining reader, no value between the
        group and this reader has another one. So no path outside of the group leads to the reader's operands.
        """
        if len(group.outputs) != 1 or _ends(group.last) or is_undecided(group.last):
            return
        readers = self.readers(group.last.output)
        pending: list[Node] = []
        while readers and None not in readers:
            node = min((n for n in readers if n is not None), key=self.order.__getitem__)
            converges = len(readers) == 1
            if not self.can_append(group, pending, node) or (_ends(node) and not converges):
                return
            readers.remove(node)
            readers |= self.readers(node.output)
            pending.append(node)
            if converges:
                for member in pending:
                    group.uniform = group.uniform and self.symbols.same(group.last.output, member.output)
                    self.group_of[member] = group
                group.extend(pending)
                pending = []
                if _ends(node):
                    return

    def can_append(self, group: Group, pending: Sequence[Node], node: Node) -> bool:
        """True if `node` may be computed in the loop of `group`, to which `pending` are about to be added."""
        if node in self.group_of or not is_elementwise(node) or is_undecided(node):
            return False
        same = same_shape if group.anchor is not None else may_be_same_shape
        if not same(group.last.output, node.output):
            return False
        return self.is_within_limits(group, [*pending, node])

    def is_within_limits(self, group: Group, more: Sequence[Node]) -> bool:
        """True if `group` stays below the limits of nodes, instructions and operands with `more` nodes."""
        if len(group.body) + len(more) > LONGEST_BODY:
            return False
        if group.body and group.instructions + group.count(more) > MOST_INSTRUCTIONS:
            return False
        return (
            group.anchor is not None
            or len(group.tensors) + sum(len(n.inputs) for n in more) <= MOST_OPERANDS + 1
        )

    def inline_operands(self, group: Group) -> None:
        """Absorb elementwise producers of the body's operands, if only the body reads them."""
        if not group.body or (group.anchor is not None and not takes_epilogue(group.anchor)):
            return
        if any(map(is_undecided, group.body)):
            return
        for value in list(group.operands):
            maker = self.group_of.get(value.node)
            if maker is None or maker is group or maker.anchor is not None or _ends(value.node):
                continue
            inside = set(group.body)
            if not all(reader in inside for reader in self.readers(value)):
                continue
            if not same_shape(value, group.last.output) or any(map(is_undecided, maker.body)):
                continue
            if not self.is_within_limits(group, maker.body):
                continue
            if group.anchor is not None:
                rows = group.anchor.op.prologue  # a row kernel's epilogue reads the anchor's inputs again
                more = set(maker.tensors).difference(self.list_row_inputs(group.anchor) if rows else ())
                same = self.symbols.same(value, group.last.output)
                if len(more) > 1 or not (same or rows):
                    continue
                group.uniform = group.uniform and same
            group.insert(maker.body, value)
            for member in maker.body:
                self.group_of[member] = group

    def list_row_inputs(self, anchor: Node) -> list[Value]:
        """The anchor's first input, and what a prologue reads to compute it."""
        value = anchor.inputs[0]
        maker = self.group_of.get(value.node)
        alone = maker is not None and maker.anchor is None and self.readers(value) == {anchor}
        return [value, *(maker.tensors if maker is not None and alone else ())]

    def take_prologue(self, group: Group) -> None:
        """Absorb the elementwise group that computes the anchor's first input, if it has no other reader."""
        anchor = group.anchor
        if anchor is None or not anchor.op.prologue:
            return
        value = anchor.inputs[0]
        maker = self.group_of.get(value.node)
        if maker is None or maker.anchor is not None or maker.last is not value.node or _ends(value.node):
            return
        if self.readers(value) == {anchor} and value not in anchor.inputs[1:]:
            if len(maker.outputs) == 1 and not any(map(is_undecided, maker.body)):
                group.prologue = tuple(maker.body)
                self.group_of.update(dict.fromkeys(maker.body, group))

    def merge_siblings(self, groups: Sequence[Group]) -> list[Group]:
        """Join groups that read the same tensors. Returns all groups in a valid order.

        t = a + b; y = relu(t); z = conv(t)             -> add, relu: y and t
        y = a * c - b * s; z = a * s + b * c            -> mul, mul, sub, mul, mul, add: z and y
        """
        out: list[Group] = []
        for group in groups:
            out.append(group)
            while self._merge_last(out):
                pass
        return out

    def _merge_last(self, groups: list[Group]) -> bool:
        """Join the last group with the preceding group that shares most tensors with it; ties go to the
        nearest. Groups that depend on the earlier one are moved after the joined group. True if the joined
        group is the last one in `groups`."""
        last = groups[-1]
        read = self._joinable_tensors(last) or frozenset()
        first = max(len(groups) - 1 - FARTHEST, 0)
        shares = []
        for at, group in enumerate(groups[first:-1] if read else (), first):
            tensors = self._joinable_tensors(group)
            if tensors is not None and (shared := read.intersection(tensors.union(group.outputs))):
                shares.append((len(shared), at))
        for _, at in sorted(shares, reverse=True):
            both = self._merge_pair(groups[at], last)
            if both is None:
                continue
            between, waiting = groups[at + 1 : -1], {groups[at]}
            for group in between:
                if self._producers(group) & waiting:
                    waiting.add(group)
            if self._producers(last) & (waiting - {groups[at]}):
                continue
            groups[at:] = [g for g in between if g not in waiting]
            groups += [both, *(g for g in between if g in waiting)]
            for member in both.body:
                self.group_of[member] = both
            return groups[-1] is both
        return False

    def _producers(self, group: Group) -> set[Group | None]:
        """The groups that produce the inputs of `group`."""
        return {self.group_of.get(value.node) for value in group.inputs}

    def _merge_pair(self, one: Group, other: Group) -> Group | None:
        """One group that computes both. None if their shapes may differ, a limit is exceeded, or one loop may
        take longer than two: its rows are not whole cache lines, or its dependency chain is too long."""
        if not self.symbols.same(one.last.output, other.last.output):
            return None
        read = other.inputs
        if any(_ends(n) and n.output in read for n in one.body):
            return None
        merged = sorted([*one.body, *other.body], key=self.order.__getitem__)
        both = Group(self.context, None, merged)
        inside = set(both.body)
        live_outs = {v for v in (*one.outputs, *other.outputs) if not self.readers(v) <= inside}
        both.extras = tuple(n.output for n in both.body[:-1] if n.output in live_outs)
        both.uniform = one.uniform and other.uniform
        if len(both.body) > LONGEST_BODY or both.instructions > MOST_INSTRUCTIONS:
            return None
        if len(both.outputs) > MOST_OUTPUTS or len(both.tensors) + len(both.outputs) > MOST_STREAMS:
            return None
        return both if _cost(both) <= _cost(one) + _cost(other) and _has_whole_lines(both) else None

    def _joinable_tensors(self, group: Group) -> frozenset[Value] | None:
        """The tensors that an elementwise group reads at the index that it writes. None for a group that is
        not joined: it has an anchor, operands of undecided shape, or fewer than FEWEST elements.

        Tiles with two outputs were tried for pre-activation blocks (t = conv(x) + a, read by relu and by the
        next sum). Their stores waited for memory, where a separate loop's stores stream. On AVX-512, f32
        blocks took 0.97 to 1.0 of the time if the images exceed the cache. They took 1.02 to 1.06 if the
        images fit, if sums are short, or with GELU. With bytes as one output they took 0.94 to 1.03, and on
        AVX2 up to 1.1.
        """
        if group not in self.joinable:
            out, tensors = group.last.output, None
            joins = group.anchor is None and not any(map(is_undecided, group.body))
            if joins and prod(d if isinstance(d, int) else LONG_GUESS for d in out.shape) >= FEWEST:
                same = (v for v in group.tensors if same_shape(v, out) and self.symbols.same(v, out))
                tensors = frozenset(same)
            self.joinable[group] = tensors
        return self.joinable[group]


def _has_whole_lines(group: Group) -> bool:
    """True if the loop over the group's tensors is one row, or has rows of whole cache lines. For images both
    channels-first and channels-last orders must satisfy it. A row spans the innermost dimensions in which
    the same tensors are broadcast."""
    shape, tensors = group.last.output.shape, group.tensors
    rank = len(shape)
    for order in (range(rank), (0, *range(2, rank), 1)) if rank > 3 else (range(rank),):
        row, common = 1, None
        for axis in (axis for axis in reversed(order) if shape[axis] != 1):
            one = [axis < rank - len(v.shape) or v.shape[axis - rank] == 1 for v in tensors]
            if common is not None and one != common:
                if row < SHORTEST_ROW or row % LINE:
                    return False
                break
            common, extent = one, shape[axis]
            row = row * extent if isinstance(extent, int) else 0
    return True


def _ends(node: Node) -> bool:
    """True if the group ends at `node`: registers hold f32, and only the store rounds to f16 or bf16."""
    return node.op.name == "Convert" and node.output.dtype in HALVES


def is_elementwise(node: Node) -> bool:
    """True if a fused kernel can compute `node`: it has a scalar body, known ranks and native types."""
    return (
        node.op.scalar is not None
        and len(node.outputs) == 1
        and all(v.shape is not None for v in (*node.inputs, *node.outputs))
        and all(v.dtype in NATIVE_TYPES for v in (*node.inputs, *node.outputs))
    )


#: (target, operation, types, attributes) -> (instructions of the body, length of its longest dependency
#: chain)
_instructions: dict[tuple, tuple[int, int]] = {}


def instructions(node: Node, target: Target) -> int:
    """The number of traced instructions of an elementwise node."""
    return _measures(node, target)[0]


def _measures(node: Node, target: Target) -> tuple[int, int]:
    """(traced instructions of an elementwise node, instructions on its longest dependency chain)."""
    types = tuple(v.dtype for v in node.inputs)
    key = (target.name, node.op.name, node.op.opset, types, repr(node.attrs))
    measures = _instructions.get(key)
    if measures is None:
        read = [v for i, v in enumerate(node.inputs) if not is_literal(node, i)]
        body = trace_nodes(target, [node], list(dict.fromkeys(read)))
        depth: dict[str, int] = {}
        for result, _, args, _ in body.lines:
            depth[result] = 1 + max((depth.get(a, 0) for a in args if isinstance(a, str)), default=0)
        measures = _instructions[key] = len(body.lines), max(depth.values(), default=0)
    return measures


def _cost(group: Group) -> float:
    """Estimated cost of one vector of results, in instructions. A dependency chain longer than DEEPEST raises
    it: the next vectors' instructions are then outside of the CPU's out-of-order window."""
    depth: dict[Value, int] = {}
    target = group.context.target
    for node in group.body:
        depth[node.output] = _measures(node, target)[1] + max(depth.get(v, 0) for v in node.inputs)
    waiting = max(depth.values()) / DEEPEST
    return group.instructions * max(waiting, 1.0) + STREAM * (len(group.tensors) + len(group.outputs))


def is_undecided(node: Node) -> bool:
    """True if the broadcast of an elementwise node's operands is known only with concrete shapes."""
    return node.op.align is not None and node.op.align(*(v.shape for v in node.inputs)) is None


def takes_epilogue(node: Node) -> bool:
    return node.op.epilogue and (node.op.prologue or node.output.dtype in ("f32", "bf16", "f16", "i32"))


def same_shape(a: Value, b: Value) -> bool:
    """True if the symbolic shapes are equal. Concrete shapes may still differ, see `Group.uniform`."""
    return a.shape is not None and a.shape == b.shape


def may_be_same_shape(a: Value, b: Value) -> bool:
    """True if the static dimensions are equal, whatever the bounds of dynamic ones. This suffices for a group
    without an anchor: its loop over the last value's shape is right for all operands that broadcast to it."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(
        x == y or (isinstance(x, Interval) and isinstance(y, Interval))
        for x, y in zip(a.shape, b.shape, strict=True)
    )
