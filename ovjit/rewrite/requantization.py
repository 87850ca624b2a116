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

Sums have any number of terms, which are followed back through values with one reader and written anew
together. A pattern names a fixed number of values, so only steps on the way are patterns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, rebuild
from ovjit.rewrite.compression import plain_constant
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.pattern import anything, op, operation, value
from ovjit.rewrite.rules import Uses
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
    if not any(CONVERTED_SUMS.fits(node.op) and _converts_sums(node) for node in graph.nodes):
        return graph
    return rebuild(graph, _Requantizer(graph).visit)


def _is_integer(value: Value) -> bool:
    return value.dtype == "i32"


def _is_byte(value: Value) -> bool:
    return value.dtype in ("u8", "i8")


_SUMS = operation(lambda record: record.multiplied > 0)(...).where(_is_integer)
#: What a product of integers has summed up, in f32; zero points may have been added.
CONVERTED_SUMS = op.Convert(_SUMS | op.Add(_SUMS, anything).where(_is_integer), destination_type="f32")
_BYTE = value("byte").where(_is_byte)
CONVERTED_BYTES = op.Convert(_BYTE, destination_type="f32")
_BYTES_MADE = op.Convert(op["Quantize Convert"](...).where(_is_byte), destination_type="f32")

_ROUNDED = op.Round(op.Divide(value("x"), anything.let(scale=plain_constant)).once, mode="half_to_even").once
_TOTAL = _ROUNDED | op.Add(_ROUNDED, anything.let(zero=plain_constant)).once
_CLAMPED = op.Clamp(_TOTAL).named("clamped").once
_TWICE = op.Convert(op.Convert(_CLAMPED).once).once
_CUTS = op["Relu Clamp"](...).once
#: ONNX's QuantizeLinear; an i8 becomes a u8 by what is added more.
_STEPS = op.Convert(_CLAMPED | _TWICE | op.Add(_TWICE, anything.let(more=plain_constant)).once)


def _converts_sums(node: Node) -> bool:
    return CONVERTED_SUMS.matches(node.output)


def _converts_bytes(node: Node) -> bool:
    return CONVERTED_BYTES.matches(node.output)


def _order(node: Node) -> int:
    """0 for sums, 1 for what is quantized in the epilogue that made it, 2 for all else."""
    if _converts_sums(node):
        return 0
    return 1 if _BYTES_MADE.matches(node.output) else 2


class _Requantizer:
    """The visitor. It looks at the graph as it was: new nodes read the new names of old values."""

    def __init__(self, graph: Graph) -> None:
        self.readers = Uses(graph)
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
        if len(made.terms) == 1 and converts(made.terms[0][0].node):
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
        found = _STEPS.first(node.output, self.readers)
        if found is None:
            return None
        x, scale, zero = found["x"], found["scale"], found.get("zero", np.zeros(()))
        more, clamped = found.get("more", np.zeros(())), found["clamped"].node
        if more.size != 1 or x.dtype != "f32" or x.shape != node.output.shape:
            return None
        low, high = (clamped.attrs[name] + float(more) for name in ("min", "max"))
        info = np.iinfo(numpy_dtype(node.output.dtype))
        held = info.min <= low <= high <= info.max and low == int(low) and high == int(high)
        if not (held and np.all(zero == np.rint(zero)) and np.all(scale > 0)):
            return None
        attrs = {"low": int(low), "high": int(high), "element_type": node.output.dtype}
        return Steps(x, 1 / scale, zero + more, attrs)

    def _of_sums(self, x: Value, most: int = 8) -> bool:
        """True where sums of integers have become `x` by at most so many elementwise operations."""
        node = x.node
        if x.dtype != "f32" or most == 0 or node.op.scalar is None:
            return False
        return _converts_sums(node) or any(self._of_sums(v, most - 1) for v in node.inputs)

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
        for i, (term, factor) in enumerate(terms):
            part, scale = self._fresh(b, term), b.constant(factor.astype(np.float32))
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
        if self.readers.single(x):
            return True
        return len(found.terms) == 1 and _converts_bytes(found.terms[0][0].node)

    def _cuts_as(self, x: Value, steps: Steps) -> bool:
        """True where `x` is an activation that only cuts off what is cut off behind it."""
        _, factor, zero, attrs = steps
        if x.dtype != "f32" or not _CUTS.matches(x, self.readers):
            return False
        low, high = (float(x.node.attrs.get(key, none)) for key, none in (("min", 0.0), ("max", np.inf)))
        return bool(
            np.all(low * factor + zero <= attrs["low"] + WITHIN)
            and np.all(high * factor + zero >= attrs["high"] - WITHIN)
        )
