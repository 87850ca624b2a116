"""Fusion: the graph's nodes in groups, each of which becomes one kernel.

A group is an anchor (a tile, a pooling, a reduction, a view ...) followed by elementwise nodes, or
elementwise nodes alone. Values between a group's first and last node have no other reader and the same shape.
A group takes its last node's position, so all its operands precede it. An anchor that reads its elements one
by one, such as a sum or a softmax, also takes the elementwise nodes before it as a prologue. Groups of
elementwise nodes that one loop can compute are joined, and the loop writes the output of each.
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

#: Nodes of one elementwise group: beyond it a kernel's registers spill and its compilation drags on.
LONGEST_BODY = 24
#: Instructions of one body, as traced: an activation has 15 to 40, and LLVM takes more than linear time.
MOST_INSTRUCTIONS = 160
#: Operands of one elementwise group.
MOST_OPERANDS = 10
#: Outputs of groups that are joined, and tensors that their loop reads and writes.
MOST_OUTPUTS = 4
MOST_STREAMS = 12
#: Groups of fewer elements are not joined: their own kernels may be there already.
FEWEST = 512
#: How many groups may be between two that are joined: what waits for the later one takes memory.
FARTHEST = 16
#: Instructions that may wait for one another before that takes longer than they do otherwise.
DEEPEST = 24
#: What reading or writing a vector costs, in instructions.
STREAM = 4
#: Smallest number of elements in rows of joined groups, and in a cache line. Outputs whose lines are written
#: in two interleaved parts take up to two thirds longer than one after the other.
SHORTEST_ROW, LINE = 48, 16


class Group:
    """`anchor` (or None), the elementwise `front` that makes its first input and the `body` after it, each in
    order. Outputs: those of the last node, and without an anchor whatever else of the body is read elsewhere,
    `more`. `context`: what they are compiled for, for lowerings to ask."""

    __slots__ = ("anchor", "body", "context", "front", "instructions", "more", "sure", "used")

    def __init__(
        self, context: Context, anchor: Node | None, body: Sequence[Node] = (), front: Sequence[Node] = ()
    ):
        self.context = context
        self.anchor = anchor
        self.body = list(body)
        self.front = tuple(front)
        self.instructions = self.count(self.body)
        self.more: tuple[Value, ...] = ()
        #: Whether all its values surely have one shape. An anchor's kernel walks one only.
        self.sure = True
        self.used: frozenset[int] = frozenset()  # indices of the last node's outputs that anybody reads

    def extend(self, nodes: Sequence[Node]) -> None:
        """Append to the body."""
        self.body += nodes
        self.instructions += self.count(nodes)

    def count(self, nodes: Sequence[Node]) -> int:
        """The instructions of the bodies of nodes."""
        return sum(instructions(node, self.context.target) for node in nodes)

    def insert(self, nodes: Sequence[Node], value: Value) -> None:
        """Put `nodes`, which make `value`, before the first of the body that reads it."""
        at = next(i for i, n in enumerate(self.body) if value in n.inputs)
        self.body[at:at] = nodes
        self.instructions += self.count(nodes)

    @property
    def nodes(self) -> list[Node]:
        return [*self.front, *([self.anchor] if self.anchor is not None else []), *self.body]

    @property
    def node(self) -> Node:
        """The anchor, where there is one: the node that is lowered."""
        return self.body[0] if self.anchor is None else self.anchor

    @property
    def last(self) -> Node:
        return self.body[-1] if self.body or self.anchor is None else self.anchor

    @property
    def outputs(self) -> tuple[Value, ...]:
        return (*self.last.outputs, *self.more)

    @property
    def operands(self) -> list[Value]:
        """Values that the body reads from outside of the group, in order: numbers as often as they are read,
        others once. So a kernel does not depend on which numbers are one constant of the model.

        Constants that are printed into the kernel are not among them, see `is_literal`.
        """
        return self._read(self.body)

    @property
    def sources(self) -> list[Value]:
        """What the anchor's elements are made of: what the front reads, or its first input."""
        return self._read(self.front) if self.front else list(self.node.inputs[:1])

    @property
    def inputs(self) -> set[Value]:
        """All values that it reads from outside."""
        return {v for _, _, v in self._uses(self.nodes)}

    def _read(self, nodes: Sequence[Node]) -> list[Value]:
        read: list[Value] = []
        known: set[Value] = set()
        for node, i, value in self._uses(nodes):
            if not is_literal(node, i) and value not in known:
                read.append(value)
                if not is_number(value):
                    known.add(value)
        return read

    def _uses(self, nodes: Sequence[Node]) -> Iterator[tuple[Node, int, Value]]:
        """(node, which input, value) of what these nodes read from outside of the group."""
        inside = {v for n in self.nodes for v in n.outputs}
        return ((n, i, v) for n in nodes for i, v in enumerate(n.inputs) if v not in inside)

    @property
    def tensors(self) -> list[Value]:
        """The operands but for single numbers, which a kernel keeps in registers."""
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
        """Two groups that do the same: the body is on its own, or the front where all values surely have one
        shape, or there is no body."""
        if self.body and not (self.front and self.sure):
            parts: Any = (self.anchor, (), self.front), (None, self.body)
        else:
            parts = (None, self.front), (self.anchor, self.body)
        first, last = (Group(self.context, *part) for part in parts)
        first.used, last.used = frozenset((0,)), self.used
        return first, last

    def make_body(self, skip: int = 0, near: bool = False) -> Body | None:
        """The traced body without its first `skip` nodes: input 0 is the anchor's result (or that of the last
        skipped node), then the operands. None when no node is left. `near`: i32 can hold what is rounded."""
        nodes = self.body[skip:]
        if not nodes:
            return None
        first = [self.nodes[len(self.front) + skip].outputs[0]] if self.anchor is not None else []
        inputs = first + self.operands_after(skip)
        return trace_nodes(self.context.target, nodes, inputs, near, self.more)

    def make_front(self) -> Body | None:
        """The traced front, whose inputs are `sources`; None where there is none."""
        return trace_nodes(self.context.target, self.front, self.sources) if self.front else None

    def operands_after(self, skip: int) -> list[Value]:
        """The operands that nodes after the first `skip` of the body read."""
        return self._read(self.body[skip:])


def trace_nodes(
    target: Target,
    nodes: Sequence[Node],
    inputs: Sequence[Value],
    near: bool = False,
    more: Sequence[Value] = (),
) -> Body:
    """The bodies of elementwise nodes, one after the other: code from `inputs` to the last node's value, and
    to those of them that are wanted besides."""
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
            return number(recorder, one_number(v), v.dtype)
        return numbers[v].pop(0) if len(numbers.get(v, ())) > 1 else values[v]

    for node in nodes:
        assert node.op.scalar is not None
        attrs = {k: v for k, v in node.attrs.items() if k != "auto_broadcast"}
        arguments = [read(node, i, v) for i, v in enumerate(node.inputs)]
        recorder.rough = node.output.dtype == "bf16"
        scalar = quotient if by_multiplying(node, target) else node.op.scalar
        values[node.output] = trace(scalar, arguments, attrs)
    made = (nodes[-1].output, *more)
    return Body(
        [v.dtype for v in inputs], [v.dtype for v in made], recorder.lines, [values[v].name for v in made]
    )


def by_multiplying(node: Node, target: Target) -> bool:
    """True for a division by a number that `quotient` makes faster: AVX-512 divides 16 times as slowly as it
    multiplies, narrower vectors a few times."""
    if node.op.name != "Divide" or node.output.dtype != "f32" or not is_number(node.inputs[1]):
        return False
    return target.name == "avx512" and 1 <= abs(one_number(node.inputs[1])) <= 2.0**64


def quotient(x: Any, y: Any, **attrs: Any) -> Any:
    """x / y of f32 to the last bit, for a uniform y of 1 or more.

    The result is the product with the reciprocal, plus the share of its remainder (P. Markstein, IBM J. Res.
    Dev. 34, 1990). If the remainder is zero (zeros of either sign) or not a number (infinities), the result
    is the product. If x is below 2**-100, the last bit may be off."""
    reciprocal = 1 / y
    product = x * reciprocal
    left = fma(-y, product, x)
    return where((left < 0) | (left > 0), fma(left, reciprocal, product), product)


def is_number(value: Value) -> bool:
    """True for constants of one element."""
    array = value.stored
    return array is not None and array.size == 1 and value.dtype != "string"


def one_number(value: Value) -> Any:
    """The element of a constant that `is_number`."""
    assert value.constant is not None
    return value.constant.reshape(()).item()


def is_literal(node: Node, i: int) -> bool:
    """True when input i of an elementwise node is a number that is printed into the kernel: one that many
    models share and of which LLVM makes other code, or an integer divisor. All others are operands, so that
    a kernel serves any number."""
    value = node.inputs[i]
    if not is_number(value):
        return False
    if value.dtype == "boolean":
        return True
    if node.op.any_number:
        return False
    if ELEMENT_TYPES[value.dtype].kind != "f":
        return (node.op.divides and i == 1) or is_common(float(one_number(value)))
    return is_common(float(one_number(value)))


def fuse(graph: Graph, context: Context, alone: bool = False) -> list[Group]:
    """Groups in the order in which they run. Constants and Parameters are not in any group.

    With `alone`, every node is a group of its own: nothing is fused.
    """
    return _Fusion(graph, context).run(alone)


class _Fusion:
    """Grows groups: forwards while they have one output, then by the producers of their operands.

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
        self.walked: dict[Group, frozenset[Value] | None] = {}

    def run(self, alone: bool) -> list[Group]:
        anchors = [n for n in self.nodes if not is_elementwise(n)]
        for node in reversed(anchors):  # the latest takes a sum of two, whose other side is there by then
            group = self.group_of[node] = Group(self.context, node)
            if not alone and takes_epilogue(node):
                self.grow(group)
        for node in self.nodes:
            if node not in self.group_of:
                group = self.group_of[node] = Group(self.context, None, [node])
                if not alone:
                    self.grow(group)
        groups = sorted(set(self.group_of.values()), key=lambda g: self.order[g.last])
        if not alone:
            for group in groups:
                self.absorb(group)
            for group in groups:
                self.lead(group)
            groups = self.joined([g for g in groups if self.group_of[g.last] is g])
        for group in groups:
            group.used = frozenset(v.index for v in group.outputs if self.uses[v])
        return groups if alone else self.wanted(groups)

    def wanted(self, groups: Sequence[Group]) -> list[Group]:
        """The groups without those whose only readers ask for shapes."""
        out: list[Group] = []
        kept: set[Node | None] = {None}
        for group in reversed(groups):
            if any(not kept.isdisjoint(self.readers(v)) for v in group.outputs):
                kept.update(group.nodes)
                out.append(group)
        return out[::-1]

    def readers(self, value: Value) -> set[Node | None]:
        """The nodes that read `value`; None among them where the model gives it out."""
        return {node for node, _ in self.uses[value]}

    def grow(self, group: Group) -> None:
        """Add the elementwise nodes behind `group`, up to the last one through which all their values go.

        Nodes are taken in order. If only one reader of the taken nodes is left, the values between the group
        and it have no other reader. So none can lead to its operands on another path.
        """
        if len(group.outputs) != 1 or _ends(group.last) or is_undecided(group.last):
            return
        readers = self.readers(group.last.output)
        taken: list[Node] = []
        while readers and None not in readers:
            node = min((n for n in readers if n is not None), key=self.order.__getitem__)
            joined = len(readers) == 1
            if not self.fits(group, taken, node) or (_ends(node) and not joined):
                return
            readers.remove(node)
            readers |= self.readers(node.output)
            taken.append(node)
            if joined:
                for member in taken:
                    group.sure = group.sure and self.symbols.same(group.last.output, member.output)
                    self.group_of[member] = group
                group.extend(taken)
                taken = []
                if _ends(node):
                    return

    def fits(self, group: Group, taken: Sequence[Node], node: Node) -> bool:
        """True when `node` may be computed in the loop of `group` and of the nodes `taken` for it already."""
        if node in self.group_of or not is_elementwise(node) or is_undecided(node):
            return False
        same = same_shape if group.anchor is not None else may_be_same_shape
        if not same(group.last.output, node.output):
            return False
        return self.small(group, [*taken, node])

    def small(self, group: Group, more: Sequence[Node]) -> bool:
        """True when `group` may have as many nodes more."""
        if len(group.body) + len(more) > LONGEST_BODY:
            return False
        if group.body and group.instructions + group.count(more) > MOST_INSTRUCTIONS:
            return False
        return (
            group.anchor is not None
            or len(group.tensors) + sum(len(n.inputs) for n in more) <= MOST_OPERANDS + 1
        )

    def absorb(self, group: Group) -> None:
        """Take in elementwise producers of the body's operands that have no other reader."""
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
            if not self.small(group, maker.body):
                continue
            if group.anchor is not None:
                rows = group.anchor.op.prologue  # what walks rows reads the anchor's tensors once more
                more = set(maker.tensors).difference(group.sources if rows else ())
                same = self.symbols.same(value, group.last.output)
                if len(more) > 1 or not (same or rows):
                    continue
                group.sure = group.sure and same
            group.insert(maker.body, value)
            for member in maker.body:
                self.group_of[member] = group

    def lead(self, group: Group) -> None:
        """Take in the elementwise group that makes the anchor's elements, and nothing else."""
        anchor = group.anchor
        if anchor is None or not anchor.op.prologue:
            return
        value = anchor.inputs[0]
        maker = self.group_of.get(value.node)
        if maker is None or maker.anchor is not None or maker.last is not value.node or _ends(value.node):
            return
        if self.readers(value) == {anchor} and value not in anchor.inputs[1:]:
            if len(maker.outputs) == 1 and not any(map(is_undecided, maker.body)):
                group.front = tuple(maker.body)
                self.group_of.update(dict.fromkeys(maker.body, group))

    def joined(self, groups: Sequence[Group]) -> list[Group]:
        """The groups in a valid order. Groups that walk the same tensors are joined.

        t = a + b; y = relu(t); z = conv(t)             -> add, relu: y and t
        y = a * c - b * s; z = a * s + b * c            -> mul, mul, sub, mul, mul, add: z and y
        """
        out: list[Group] = []
        for group in groups:
            out.append(group)
            while self._join_last(out):
                pass
        return out

    def _join_last(self, groups: list[Group]) -> bool:
        """Join the last group with the one before it that shares most tensors with it, of several the next;
        whether that is the last group now. What reads the earlier one's values then waits for both."""
        last = groups[-1]
        read = self._walked(last) or frozenset()
        first = max(len(groups) - 1 - FARTHEST, 0)
        shares = []
        for at, group in enumerate(groups[first:-1] if read else (), first):
            walked = self._walked(group)
            if walked is not None and (shared := read.intersection(walked.union(group.outputs))):
                shares.append((len(shared), at))
        for _, at in sorted(shares, reverse=True):
            both = self._both(groups[at], last)
            if both is None:
                continue
            between, waiting = groups[at + 1 : -1], {groups[at]}
            for group in between:
                if self._makers(group) & waiting:
                    waiting.add(group)
            if self._makers(last) & (waiting - {groups[at]}):
                continue
            groups[at:] = [g for g in between if g not in waiting]
            groups += [both, *(g for g in between if g in waiting)]
            for member in both.body:
                self.group_of[member] = both
            return groups[-1] is both
        return False

    def _makers(self, group: Group) -> set[Group | None]:
        """The groups that make what a group reads."""
        return {self.group_of.get(value.node) for value in group.inputs}

    def _both(self, one: Group, other: Group) -> Group | None:
        """A group with the work of both. None if their values may have different shapes, or if one loop may
        take longer than two: its rows are not whole lines, or one function's end waits for another's."""
        if not self.symbols.same(one.last.output, other.last.output):
            return None
        read = other.inputs
        if any(_ends(n) and n.output in read for n in one.body):
            return None
        merged = sorted([*one.body, *other.body], key=self.order.__getitem__)
        both = Group(self.context, None, merged)
        inside = set(both.body)
        given = {v for v in (*one.outputs, *other.outputs) if not self.readers(v) <= inside}
        both.more = tuple(n.output for n in both.body[:-1] if n.output in given)
        both.sure = one.sure and other.sure
        if len(both.body) > LONGEST_BODY or both.instructions > MOST_INSTRUCTIONS:
            return None
        if len(both.outputs) > MOST_OUTPUTS or len(both.tensors) + len(both.outputs) > MOST_STREAMS:
            return None
        return both if _cost(both) <= _cost(one) + _cost(other) and _in_lines(both) else None

    def _walked(self, group: Group) -> frozenset[Value] | None:
        """The tensors that an elementwise group reads element by element as it writes. None for a group that
        is not joined: one with an anchor, or with too few elements to be worth a kernel.

        Tiles with two outputs were tried for blocks with an activation in front (t = conv(x) + a, read by
        relu and by the next sum). They waited for memory to write both, where a loop's stores stream. With
        AVX-512, blocks of f32 took 0.97 to 1.0 of the time if images leave the cache. They took 1.02 to 1.06
        if images stay there, if sums are short, or with GELU. With bytes as one output they took 0.94 to
        1.03, and on AVX2 up to 1.1.
        """
        if group not in self.walked:
            out, found = group.last.output, None
            joins = group.anchor is None and not any(map(is_undecided, group.body))
            if joins and prod(d if isinstance(d, int) else LONG_GUESS for d in out.shape) >= FEWEST:
                same = (v for v in group.tensors if same_shape(v, out) and self.symbols.same(v, out))
                found = frozenset(same)
            self.walked[group] = found
        return self.walked[group]


def _in_lines(group: Group) -> bool:
    """True when a loop over the group's tensors takes all elements at once, or rows of whole cache lines, of
    images whichever way they lie. A row is the last dimensions along which each tensor has one element, or
    each has all."""
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
    """True where a group ends: registers hold f32, so that rounding to a half is what storing does."""
    return node.op.name == "Convert" and node.output.dtype in HALVES


def is_elementwise(node: Node) -> bool:
    """True when a fused kernel can do it: a scalar body and element types that vectors have."""
    return (
        node.op.scalar is not None
        and len(node.outputs) == 1
        and all(v.shape is not None for v in (*node.inputs, *node.outputs))
        and all(v.dtype in NATIVE_TYPES for v in (*node.inputs, *node.outputs))
    )


#: (target, operation, types, attributes) -> instructions of its body, and of the longest way through it
_instructions: dict[tuple, tuple[int, int]] = {}


def instructions(node: Node, target: Target) -> int:
    """How many instructions the body of an elementwise node has."""
    return _measures(node, target)[0]


def _measures(node: Node, target: Target) -> tuple[int, int]:
    """How many instructions an elementwise node's body has, and how many of them wait for one another."""
    types = tuple(v.dtype for v in node.inputs)
    key = (target.name, node.op.name, node.op.opset, types, repr(node.attrs))
    known = _instructions.get(key)
    if known is None:
        read = [v for i, v in enumerate(node.inputs) if not is_literal(node, i)]
        body = trace_nodes(target, [node], list(dict.fromkeys(read)))
        depth: dict[str, int] = {}
        for made, _, args, _ in body.lines:
            depth[made] = 1 + max((depth.get(a, 0) for a in args if isinstance(a, str)), default=0)
        known = _instructions[key] = len(body.lines), max(depth.values(), default=0)
    return known


def _cost(group: Group) -> float:
    """About what one vector of a group's results costs, in instructions. Where many of them wait for one
    another, the next vectors' are too far behind them for the CPU to begin with those meanwhile."""
    depth: dict[Value, int] = {}
    target = group.context.target
    for node in group.body:
        depth[node.output] = _measures(node, target)[1] + max(depth.get(v, 0) for v in node.inputs)
    waiting = max(depth.values()) / DEEPEST
    return group.instructions * max(waiting, 1.0) + STREAM * (len(group.tensors) + len(group.outputs))


def is_undecided(node: Node) -> bool:
    """True when only the shapes of an inference tell how the operands of an elementwise node broadcast."""
    return node.op.align is not None and node.op.align(*(v.shape for v in node.inputs)) is None


def takes_epilogue(node: Node) -> bool:
    return node.op.epilogue and (node.op.prologue or node.output.dtype in ("f32", "bf16", "f16", "i32"))


def same_shape(a: Value, b: Value) -> bool:
    """True when the shapes are equal as far as they are known; see `Group.sure`."""
    return a.shape is not None and a.shape == b.shape


def may_be_same_shape(a: Value, b: Value) -> bool:
    """True if the shapes are equal where they are known, for any bounds of open dimensions. This suffices
    without an anchor: a loop over the last value's shape is right for all operands that broadcast to it."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(
        x == y or (isinstance(x, Interval) and isinstance(y, Interval))
        for x, y in zip(a.shape, b.shape, strict=True)
    )
