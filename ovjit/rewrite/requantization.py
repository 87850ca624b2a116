"""The requantization pass: what is between sums of integers and the next integers is one multiply-add.

    Quantize(Relu(Convert(acc) * s + b), f, z)               ->  Quantize(Convert(acc), s * f, b * f + z)
    Quantize(Convert(acc) * s + b + (Convert(q) - o) * t, f, z)
                                ->  Quantize(Convert(q), t * f, MultiplyAdd(Convert(acc), s * f, ...))
    Convert(acc) * s + b                                     ->  MultiplyAdd(Convert(acc), s, b)

ONNX's QuantizeLinear, Convert(Clamp(Round(x / s) + z)), is such a Quantize(x, 1 / s, z) where sums of
integers are in `x`: OpenVINO multiplies there, too, and so does ONNX Runtime. In: a graph that has been
expanded and cleaned. Scales and offsets are multiplied in f64 and rounded once, so that sums become the right
steps (`settled`). A Relu or Clamp that only cuts off what Quantize cuts off anyway is gone. What is not made
of integers stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.rewrite.compression import plain_constant
from ovjit.rewrite.settled import settled

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: How far, in steps, an activation may be from where Quantize cuts off: what is between is rounded to that.
WITHIN = 0.25
#: Tensors that are added in one epilogue.
MOST_TERMS = 3


class Linear(NamedTuple):
    """The sum of value * factor over `terms`, and an offset: f64 arrays to broadcast."""

    terms: tuple[tuple[Value, np.ndarray], ...]
    offset: np.ndarray

    def times(self, factor: np.ndarray) -> Linear:
        return Linear(tuple((v, f * factor) for v, f in self.terms), self.offset * factor)

    def plus(self, offset: np.ndarray) -> Linear:
        return self._replace(offset=self.offset + offset)


class Steps(NamedTuple):
    """round(x * factor + zero), and the attributes of the Quantize that says so."""

    x: Value
    factor: np.ndarray
    zero: np.ndarray
    attrs: dict[str, Any]


def requantize_graph(graph: Graph, context: Context) -> Graph:
    """Scales, offsets and activations between sums of integers and Quantize -> its factor and offset"""
    if not any(map(_converts_sums, graph.nodes)):
        return graph
    return rebuild(graph, _Requantizer(graph).visit)


def _converts_sums(node: Node) -> bool:
    """True for Convert of what a product of integers has summed up."""
    if node.op.name != "Convert" or node.output.dtype != "f32" or node.inputs[0].dtype != "i32":
        return False
    maker = node.inputs[0].node
    if maker.op.name == "Add":  # what zero points come to
        maker = maker.inputs[0].node
    return maker.op.multiplied > 0 and maker.output.dtype == "i32"


def _converts_bytes(node: Node) -> bool:
    return node.op.name == "Convert" and node.output.dtype == "f32" and node.inputs[0].dtype in ("u8", "i8")


def _order(node: Node) -> int:
    """0 for sums, 1 for what is quantized in the epilogue that made it, 2 for all else."""
    if _converts_sums(node):
        return 0
    return 1 if _converts_bytes(node) and node.inputs[0].node.op.name in ("Quantize", "Convert") else 2


class _Requantizer:
    """The visitor. It looks at the graph as it was: new nodes read the new names of old values."""

    def __init__(self, graph: Graph) -> None:
        self.uses = graph.uses()
        self.new: dict[Value, Value] = {}

    def visit(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        self.new.update(zip(node.inputs, inputs, strict=True))
        if node.op.name == "Quantize" or node.output.dtype in ("u8", "i8"):
            return self._quantize(b, node)
        if node.op.name == "Add" and node.output.dtype == "f32":
            return self._add(b, node)
        return None

    def _quantize(self, b: Builder, node: Node) -> Replacement:
        steps = self._steps(node)
        if steps is None:
            return None
        x, factor, zero, attrs = steps
        while self._cuts_as(x, steps):
            x = x.node.inputs[0]
        linear = self._linear(x, MOST_TERMS)
        # bytes alone are divided where the graph says so: many of them lie halfway between two steps
        bytes_too = node.op.name == "Quantize"
        if not any((bytes_too and _converts_bytes(v.node)) or self._of_sums(v) for v, _ in linear.terms):
            return None
        made = linear.times(factor).plus(zero)
        if len(made.terms) == 1 and made.terms[0][0].node.op.name == "Convert":
            ((sums, factor),) = made.terms
            factor, zero = settled(factor, made.offset, attrs["low"], attrs["high"])
            made = Linear(((sums, factor),), zero)
        first, scale, offset = self._summed(b, node, made)
        inputs = [first, scale, offset]
        return b.add("Quantize", inputs, attrs, name=node.name, origins=node.origins).outputs

    def _steps(self, node: Node) -> Steps | None:
        """How a Quantize, or what says the same, rounds."""
        if node.op.name == "Quantize":
            factor, zero = map(plain_constant, node.inputs[1:])
            if factor is None or zero is None or not np.all(factor > 0):
                return None
            return Steps(node.inputs[0], factor, zero, node.attrs)
        if node.op.name != "Convert":
            return None
        clamped, more = node.inputs[0], np.zeros(())
        if clamped.dtype == "i32":  # an i8 becomes a u8
            wide, more = self._less(clamped)
            clamped = self._under(self._under(wide, "Convert"), "Convert") or clamped
        total = self._under(clamped, "Clamp")
        if total is None or more.size != 1:
            return None
        rounded, zero = self._less(total)
        divided = self._under(rounded, "Round")
        x = self._under(divided, "Divide")
        if divided is None or x is None or x.dtype != "f32" or x.shape != node.output.shape:
            return None
        scale = plain_constant(divided.node.inputs[1])
        low, high = (clamped.node.attrs[name] + float(more) for name in ("min", "max"))
        info = np.iinfo(numpy_dtype(node.output.dtype))
        held = info.min <= low <= high <= info.max and low == int(low) and high == int(high)
        even = rounded.node.attrs["mode"] == "half_to_even" and np.all(zero == np.rint(zero))
        if scale is None or not (held and even and np.all(scale > 0)):
            return None
        attrs = {"low": int(low), "high": int(high), "element_type": node.output.dtype}
        return Steps(x, 1 / scale, zero + more, attrs)

    def _of_sums(self, x: Value, most: int = 8) -> bool:
        """True where sums of integers have become `x` by at most so many elementwise operations."""
        node = x.node
        if x.dtype != "f32" or most == 0 or node.op.scalar is None:
            return False
        return _converts_sums(node) or any(self._of_sums(v, most - 1) for v in node.inputs)

    def _less(self, x: Value) -> tuple[Value, np.ndarray]:
        """`x` without the constant that is added to it, and that."""
        number = plain_constant(x.node.inputs[1]) if self._under(x, "Add") is not None else None
        return (x, np.zeros(())) if number is None else (x.node.inputs[0], number)

    def _under(self, x: Value | None, name: str) -> Value | None:
        """What `x` is made of, if by the operation `name` and if one reads it; else None."""
        if x is None or x.node.op.name != name or len(self.uses[x]) != 1:
            return None
        return x.node.inputs[0]

    def _add(self, b: Builder, node: Node) -> Replacement:
        """Convert(acc) * s + b"""
        linear = self._linear(node.output, 1, True)
        if len(linear.terms) != 1 or not _converts_sums(linear.terms[0][0].node):
            return None
        first, scale, offset = self._summed(b, node, linear)
        made = b.add("MultiplyAdd", [first, scale, offset], name=node.name, origins=node.origins)
        return made.outputs

    def _summed(self, b: Builder, node: Node, linear: Linear) -> tuple[Value, Value, Value]:
        """(a tensor, its factor, what is to be added)"""
        # first what makes an epilogue, whose kernel then reads the others
        terms = sorted(linear.terms, key=lambda term: _order(term[0].node))
        total = b.constant(linear.offset.astype(np.float32))
        for i, (value, factor) in enumerate(terms):
            part, scale = self._fresh(b, value), b.constant(factor.astype(np.float32))
            if i < len(terms) - 1:
                parts = [part, scale, total]
                total = b.add("MultiplyAdd", parts, name=f"{node.name}/sum{i}", origins=node.origins).output
        return part, scale, total

    def _fresh(self, b: Builder, value: Value) -> Value:
        """The new name of a value; bytes are converted once for each reader, in its own loop."""
        maker = value.node
        if not _converts_bytes(maker):
            return self.new[value]
        integers = [self.new[maker.inputs[0]]]
        return b.add("Convert", integers, maker.attrs, name=maker.name, origins=maker.origins).output

    def _linear(self, x: Value, most: int, shared: bool = False) -> Linear:
        """`x` as a sum of at most so many tensors, as far back as values on the way have no other reader (`x`
        itself if not `shared`), or unchanged if it is a conversion of bytes."""
        whole = Linear(((x, np.ones(())),), np.zeros(()))
        node = x.node
        if node.op.name not in ("Multiply", "Add", "Subtract") or x.dtype != "f32" or x.shape is None:
            return whole
        left, right = node.inputs
        if plain_constant(left) is not None and node.op.name != "Subtract":
            left, right = right, left
        number = plain_constant(right)
        if number is None:
            if node.op.name != "Add" or most < 2 or left.shape != x.shape or right.shape != x.shape:
                return whole
            if not self._alone(x, whole):
                return whole
            one = self._linear(left, most - 1)
            other = self._linear(right, most - len(one.terms))
            return Linear(one.terms + other.terms, one.offset + other.offset)
        if left.shape != x.shape or number.size > 1 and sum(d != 1 for d in number.shape) > 1:
            return whole
        inner = self._linear(left, most)
        number = number.astype(np.float64)
        if node.op.name == "Multiply":
            found = inner.times(number)
        else:
            found = inner.plus(number if node.op.name == "Add" else -number)
        return found if shared or self._alone(x, found) else whole

    def _alone(self, x: Value, found: Linear) -> bool:
        """True where `x` need not be there: one reads it, or it is easily made again."""
        if len(self.uses[x]) == 1:
            return True
        return len(found.terms) == 1 and _converts_bytes(found.terms[0][0].node)

    def _cuts_as(self, x: Value, steps: Steps) -> bool:
        """True where `x` is an activation that only cuts off what is cut off behind it."""
        maker, (_, factor, zero, attrs) = x.node, steps
        if maker.op.name == "Relu":
            low, high = 0.0, np.inf
        elif maker.op.name == "Clamp":
            low, high = float(maker.attrs["min"]), float(maker.attrs["max"])
        else:
            return False
        if x.dtype != "f32" or len(self.uses[x]) != 1:
            return False
        return bool(
            np.all(low * factor + zero <= attrs["low"] + WITHIN)
            and np.all(high * factor + zero >= attrs["high"] - WITHIN)
        )
