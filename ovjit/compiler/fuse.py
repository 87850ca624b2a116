"""Fusion: the graph's nodes in groups, each of which becomes one kernel.

A group is an anchor (a tile, a pooling, a reduction, a view ...) followed by elementwise nodes, or nodes of
that kind alone. What is between the first and the last node of a group is needed by nobody else and has the
same shape; a group stands where its last node stood, so all its operands are there before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.codegen.trace import Recorder, Tracer, fma, is_common, number, trace, where
from ovjit.compiler.symbols import Symbols
from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES
from ovjit.graph.graph import Graph, Node, Value
from ovjit.graph.shapes import Interval

#: Nodes of one elementwise group: beyond it a kernel's registers spill and its compilation drags on.
LONGEST_BODY = 24
#: Instructions of one body, as traced: an activation has 15 to 40, and LLVM takes more than linear time.
MOST_INSTRUCTIONS = 160
#: Operands of one elementwise group.
MOST_OPERANDS = 10


class Group:
    """`anchor` (or None) and the elementwise `body` after it, in order. One output value."""

    __slots__ = ("anchor", "body", "instructions", "sure", "used")

    def __init__(self, anchor: Node | None, body: Sequence[Node] = ()):
        self.anchor = anchor
        self.body = list(body)
        self.instructions = sum(map(instructions, self.body))
        #: Whether all its values surely have one shape. An anchor's kernel walks one only.
        self.sure = True
        self.used: frozenset[int] = frozenset()  # indices of the last node's outputs that anybody reads

    def extend(self, nodes: Sequence[Node]) -> None:
        """Append to the body."""
        self.body += nodes
        self.instructions += sum(map(instructions, nodes))

    def insert(self, nodes: Sequence[Node], value: Value) -> None:
        """Put `nodes`, which make `value`, before the first of the body that reads it."""
        at = next(i for i, n in enumerate(self.body) if value in n.inputs)
        self.body[at:at] = nodes
        self.instructions += sum(map(instructions, nodes))

    @property
    def nodes(self) -> list[Node]:
        return ([self.anchor] if self.anchor is not None else []) + self.body

    @property
    def node(self) -> Node:
        """The anchor, where there is one: the node that is lowered."""
        return self.body[0] if self.anchor is None else self.anchor

    @property
    def last(self) -> Node:
        return self.body[-1] if self.body or self.anchor is None else self.anchor

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.last.outputs

    @property
    def operands(self) -> list[Value]:
        """Values that the body reads from outside of the group, once each, in order.

        Constants that are printed into the kernel are not among them, see `is_literal`.
        """
        return self._read(self.body)

    @property
    def inputs(self) -> set[Value]:
        """All values that it reads from outside."""
        return {v for _, _, v in self._uses(self.nodes)}

    def _read(self, nodes: Sequence[Node]) -> list[Value]:
        return list(dict.fromkeys(v for n, i, v in self._uses(nodes) if not is_literal(n, i)))

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

    def part(self, which: int) -> Group:
        """The anchor alone (0) or the body alone (1)."""
        group = Group(None, self.body) if which else Group(self.anchor)
        group.used = self.used if which or not self.body else frozenset((0,))
        return group

    def make_body(self, skip: int = 0, near: bool = False) -> Body | None:
        """The traced body without its first `skip` nodes: input 0 is the anchor's result (or that of the last
        skipped node), then the operands. None when no node is left. `near`: i32 can hold what is rounded."""
        nodes = self.body[skip:]
        if not nodes:
            return None
        first = [self.nodes[skip].outputs[0]] if self.anchor is not None else []
        return trace_nodes(nodes, first + self.operands_after(skip), near)

    def operands_after(self, skip: int) -> list[Value]:
        """The operands that nodes after the first `skip` of the body read."""
        return self._read(self.body[skip:])


def trace_nodes(nodes: Sequence[Node], inputs: Sequence[Value], near: bool = False) -> Body:
    """The bodies of elementwise nodes, one after the other: code from `inputs` to the last node's value."""
    recorder = Recorder()
    recorder.near = near
    values: dict[Value, Tracer] = {v: recorder.input(f"x{i}", v.dtype) for i, v in enumerate(inputs)}
    for node in nodes:
        assert node.op.scalar is not None
        attrs = {k: v for k, v in node.attrs.items() if k != "auto_broadcast"}
        arguments = [
            number(recorder, one_number(v), v.dtype) if is_literal(node, i) else values[v]
            for i, v in enumerate(node.inputs)
        ]
        recorder.rough = node.output.dtype == "bf16"
        scalar = quotient if by_multiplying(node) else node.op.scalar
        values[node.output] = trace(scalar, arguments, attrs)
    last = nodes[-1].output
    return Body([v.dtype for v in inputs], [last.dtype], recorder.lines, [values[last].name])


def by_multiplying(node: Node) -> bool:
    """True for a division by a number that `quotient` makes faster: AVX-512 divides 16 times as slowly as it
    multiplies, narrower vectors a few times."""
    if node.op.name != "Divide" or node.output.dtype != "f32" or not is_number(node.inputs[1]):
        return False
    return host_isa().name == "avx512" and 1 <= abs(one_number(node.inputs[1])) <= 2.0**64


def quotient(x: Any, y: Any, **attrs: Any) -> Any:
    """x / y of f32 to the last bit, by the reciprocal of a number of 1 or more that is the same all along:
    the product, and what it leaves of x, whose share is added (P. Markstein, IBM J. Res. Dev. 34, 1990).
    What leaves nothing, as zeros of either sign, or no number, as infinities, is the product. Where x is
    below 2**-100 the last bit may be off."""
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


#: Operations whose kernels are made for an integer that they divide by.
_DIVIDING = frozenset(("Divide", "Mod", "FloorMod"))


def is_literal(node: Node, i: int) -> bool:
    """True when input i of an elementwise node is a number that is printed into the kernel: one that many
    models share, or an integer divisor. All others are operands, so that a kernel serves any number."""
    value = node.inputs[i]
    if not is_number(value):
        return False
    if value.dtype == "boolean":
        return True
    if ELEMENT_TYPES[value.dtype].kind != "f":
        return (node.op.name in _DIVIDING and i == 1) or is_common(float(one_number(value)))
    return is_common(float(one_number(value)))


def fuse(graph: Graph, alone: bool = False) -> list[Group]:
    """Groups in the order in which they run. Constants and Parameters are not in any group.

    With `alone`, every node is a group of its own: nothing is fused.
    """
    return _Fusion(graph).run(alone)


class _Fusion:
    """Grows groups: forwards as long as one value alone leaves them, then by what makes their operands.

    a = relu(x); y = a + b * c                      -> relu, mul, add
    t = conv(x); y = t * sigmoid(t)                 -> conv, sigmoid, mul
    t = conv(x); y = relu(t + (q - 3) * 0.1)        -> conv, sub, mul, add, relu
    """

    def __init__(self, graph: Graph):
        self.nodes = [n for n in graph.nodes if n.op.name not in ("Parameter", "Constant")]
        self.order = {n: i for i, n in enumerate(graph.nodes)}
        self.uses = graph.uses()
        self.symbols = Symbols(graph)
        self.group_of: dict[Node, Group] = {}

    def run(self, alone: bool) -> list[Group]:
        anchors = [n for n in self.nodes if not is_elementwise(n)]
        for node in reversed(anchors):  # the latest takes a sum of two, whose other side is there by then
            group = self.group_of[node] = Group(node)
            if not alone and takes_epilogue(node):
                self.grow(group)
        for node in self.nodes:
            if node not in self.group_of:
                group = self.group_of[node] = Group(None, [node])
                if not alone:
                    self.grow(group)
        groups = sorted(set(self.group_of.values()), key=lambda g: self.order[g.last])
        if not alone:
            for group in groups:
                self.absorb(group)
            groups = [g for g in groups if self.group_of[g.last] is g]
        for group in groups:
            group.used = frozenset(v.index for v in group.outputs if self.uses[v])
        return groups

    def readers(self, value: Value) -> set[Node | None]:
        """The nodes that read `value`; None among them where the model gives it out."""
        return {node for node, _ in self.uses[value]}

    def grow(self, group: Group) -> None:
        """Add the elementwise nodes behind `group`, up to the last one through which all of them go.

        Nodes are taken in order. Where only one reader of all that was taken is left, whatever was between
        the group and it is read by nobody else, and cannot lead to an operand of it by another way.
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
        if group.body and group.instructions + sum(map(instructions, more)) > MOST_INSTRUCTIONS:
            return False
        return (
            group.anchor is not None
            or len(group.tensors) + sum(len(n.inputs) for n in more) <= MOST_OPERANDS + 1
        )

    def absorb(self, group: Group) -> None:
        """Take in what makes an operand of the body element by element and for nobody else."""
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
            if group.anchor is not None and (
                len(maker.tensors) > 1 or not self.symbols.same(value, group.last.output)
            ):
                continue
            group.insert(maker.body, value)
            for member in maker.body:
                self.group_of[member] = group


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


#: (operation, types, attributes) -> instructions of its body
_instructions: dict[tuple, int] = {}


def instructions(node: Node) -> int:
    """How many instructions the body of an elementwise node has."""
    key = (node.op.name, node.op.opset, tuple(v.dtype for v in node.inputs), repr(node.attrs))
    known = _instructions.get(key)
    if known is None:
        read = [v for i, v in enumerate(node.inputs) if not is_literal(node, i)]
        known = _instructions[key] = len(trace_nodes([node], list(dict.fromkeys(read))).lines)
    return known


def is_undecided(node: Node) -> bool:
    """True when only the shapes of an inference tell how the operands of an elementwise node broadcast."""
    return node.op.align is not None and node.op.align(*(v.shape for v in node.inputs)) is None


def takes_epilogue(node: Node) -> bool:
    return node.op.epilogue and node.output.dtype in ("f32", "bf16", "i32")


def same_shape(a: Value, b: Value) -> bool:
    """True when the shapes are equal as far as they are known; see `Group.sure`."""
    return a.shape is not None and a.shape == b.shape


def may_be_same_shape(a: Value, b: Value) -> bool:
    """True when the shapes are equal where they are known, whatever the bounds of open dimensions. That is
    enough without an anchor: a loop over the last value's shape is right for all that broadcast to it."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(
        x == y or (isinstance(x, Interval) and isinstance(y, Interval))
        for x, y in zip(a.shape, b.shape, strict=True)
    )
