"""The requantization pass: merges the operations between integer sums and the next Quantize to a
multiply-add.

    Quantize(Relu(Convert(acc) * s + b), f, z)               ->  Quantize(Convert(acc), s * f, b * f + z)
    Quantize(Convert(acc) * s + b + (Convert(q) - o) * t, f, z)
                                ->  Quantize(Convert(q), t * f, MultiplyAdd(Convert(acc), s * f, ...))
    Convert(acc) * s + b                                     ->  MultiplyAdd(Convert(acc), s, b)

ONNX's QuantizeLinear, Convert(Clamp(Round(x / s) + z)), becomes Quantize(x, 1 / s, z) if `x` derives from
integer sums: OpenVINO and ONNX Runtime multiply by 1 / s there, too. In: a graph that has been expanded and
cleaned. Scales and offsets are multiplied in f64 and rounded once, so that sums become the right steps
(`fit_steps`). A Relu or Clamp within Quantize's own range is removed. Values that do not derive from integers
are unchanged.

A sum may have any number of terms. `linear` collects them backwards through values with a single reader. For
a MultiplyAdd that this pass has made, the sum in f64 is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Graph, Node, Replacement, Value
from ovjit.records import NamedTuple
from ovjit.rewrite.compression import plain_constant
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.pattern import anything, op, operation, value
from ovjit.rewrite.quantization_steps import fit_steps
from ovjit.rewrite.rules import Uses, rule, rules_of, run_rules
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: Maximum distance, in steps, of a Relu's or Clamp's bound from Quantize's. Values between both round to it.
WITHIN = 0.25
#: Maximum tensors that are added in one epilogue.
MOST_TERMS = 3
#: The default of names that a pattern's alternative does not bind.
NONE = np.zeros(())


class Linear(NamedTuple):
    """offset + the sum of value * factor over `terms`. Factors and offset: f64 arrays that broadcast."""

    terms: tuple[tuple[Value, np.ndarray], ...]
    offset: np.ndarray

    def times(self, factor: np.ndarray) -> Linear:
        return Linear(tuple((v, f * factor) for v, f in self.terms), self.offset * factor)

    def plus(self, offset: np.ndarray) -> Linear:
        return self._replace(offset=self.offset + offset)


class Steps(NamedTuple):
    """round(x * factor + zero), with `attrs` of the Quantize. `of_bytes`: it is also merged if `x` derives
    from converted bytes only, without sums."""

    x: Value
    factor: np.ndarray
    zero: np.ndarray
    attrs: Mapping[str, Any]
    of_bytes: bool


def requantize_graph(graph: Graph, context: Context) -> Graph:
    """Scales, offsets and activations between sums of integers and Quantize -> its factor and offset"""
    if not any(map(_converts_sums, graph.nodes)):
        return graph
    return run_rules(graph, rules_of(_Requantizer()))


def _is_integer(value: Value) -> bool:
    return value.dtype == "i32"


def _is_byte(value: Value) -> bool:
    return value.dtype in ("u8", "i8")


_SUMS = operation(lambda record: record.multiplied > 0)(...).where(_is_integer)
#: Sums of an integer product, converted to f32. Zero points may have been added before.
CONVERTED_SUMS = op.Convert(_SUMS | op.Add(_SUMS, anything).where(_is_integer), destination_type="f32")
CONVERTED_BYTES = op.Convert(value("byte").where(_is_byte), destination_type="f32")
_BYTES_MADE = op.Convert(op["Quantize Convert"](...).where(_is_byte), destination_type="f32")

_X, _CUTS = value("x"), op["Relu Clamp"](...).once
#: An elementwise step of a sum, with a constant operand.
_STEP = (
    op.Multiply(_X, anything.let(times=plain_constant))
    | op.Add(_X, anything.let(plus=plain_constant))
    | op.Subtract(_X, anything.let(minus=plain_constant))
)
_SUM = op.Add(value("left"), value("right"))

_ROUNDED = op.Round(op.Divide(_X, anything.let(scale=plain_constant)).once, mode="half_to_even").once
_TOTAL = _ROUNDED | op.Add(_ROUNDED, anything.let(zero=plain_constant)).once
_CLAMPED = op.Clamp(_TOTAL).named("clamped").once
_TWICE = op.Convert(op.Convert(_CLAMPED).once).once


def _converts_sums(node: Node) -> bool:
    return CONVERTED_SUMS.matches(node.output)


def _converts_bytes(node: Node) -> bool:
    return CONVERTED_BYTES.matches(node.output)


def _order(node: Node) -> int:
    """0 for converted sums, 1 for values that their producer's epilogue quantizes, 2 for other values."""
    if _converts_sums(node):
        return 0
    return 1 if _BYTES_MADE.matches(node.output) else 2


def _of_sums(x: Value, most: int = 8) -> bool:
    """True if `x` derives from integer sums by fewer than `most` elementwise operations."""
    node = x.node
    if x.dtype != "f32" or most == 0 or node.op.scalar is None:
        return False
    return _converts_sums(node) or any(_of_sums(v, most - 1) for v in node.inputs)


def _sum_terms(w: Writer, linear: Linear) -> tuple[Value, Value, Value]:
    """(a tensor, its factor, what is to be added)"""
    # the first term is a product, whose epilogue then reads the others
    terms = sorted(linear.terms, key=lambda term: _order(term[0].node))
    total = w.b.constant(linear.offset.astype(np.float32))
    for i, (term, factor) in enumerate(terms):
        part, scale = _fresh(w, term), w.b.constant(factor.astype(np.float32))
        if i < len(terms) - 1:
            total = w("MultiplyAdd", part, scale, total)
    return part, scale, total


def _fresh(w: Writer, x: Value) -> Value:
    """`x`; a conversion of bytes is copied, so that each reader converts them in its own loop."""
    maker = x.node
    return w(maker.op, *maker.inputs, **maker.attrs) if _converts_bytes(maker) else x


def _is_not_stored(x: Value, linear: Linear, readers: Uses) -> bool:
    """True if `x` need not be stored: it has one reader, or is a conversion of bytes."""
    return readers.single(x) or len(linear.terms) == 1 and _converts_bytes(linear.terms[0][0].node)


def _cuts_as(x: Value, steps: Steps, readers: Uses) -> bool:
    """True if `x` is a Relu or Clamp whose bounds are Quantize's, or wider, within WITHIN steps."""
    if x.dtype != "f32" or not _CUTS.matches(x, readers):
        return False
    low, high = (float(x.node.attrs.get(key, none)) for key, none in (("min", 0.0), ("max", np.inf)))
    low, high = (end * steps.factor + steps.zero for end in (low, high))
    return bool(np.all(low <= steps.attrs["low"] + WITHIN) and np.all(high >= steps.attrs["high"] - WITHIN))


class _Requantizer:
    """The rules, and the f64 sums of the MultiplyAdds that they have made."""

    def __init__(self) -> None:
        self.linear_sums: dict[Value, Linear] = {}

    @rule(op.Quantize(_X, anything.let(factor=plain_constant), anything.let(zero=plain_constant)))
    def quantize_sums(
        self, w: Writer, node: Node, readers: Uses, x: Value, factor: np.ndarray, zero: np.ndarray
    ) -> Replacement:
        """Quantize(acc * s + b, f, z) -> Quantize(acc, s * f, b * f + z)"""
        if not np.all(factor > 0):
            return None
        return self.requantize(w, Steps(x, factor, zero, node.attrs, True), readers)

    # an i8 becomes a u8 by what is added more
    @rule(
        op.Convert(_CLAMPED | _TWICE | op.Add(_TWICE, anything.let(more=plain_constant)).once).where(_is_byte)
    )
    def quantize_written_out(
        self,
        w: Writer,
        node: Node,
        readers: Uses,
        x: Value,
        scale: np.ndarray,
        clamped: Value,
        zero: np.ndarray = NONE,
        more: np.ndarray = NONE,
    ) -> Replacement:
        """Convert(Clamp(Round((acc * s + b) / d) + z)) -> Quantize(acc, s / d, b / d + z)     as in ONNX"""
        if more.size != 1 or x.dtype != "f32" or x.shape != node.output.shape:
            return None
        low, high = (clamped.node.attrs[name] + float(more) for name in ("min", "max"))
        info = np.iinfo(numpy_dtype(node.output.dtype))
        in_range = info.min <= low <= high <= info.max and low == int(low) and high == int(high)
        if not (in_range and np.all(zero == np.rint(zero)) and np.all(scale > 0)):
            return None
        attrs = {"low": int(low), "high": int(high), "element_type": node.output.dtype}
        # of bytes alone the graph's division is kept: many quotients lie halfway between two steps
        return self.requantize(w, Steps(x, 1 / scale, zero + more, attrs, False), readers)

    @rule(op.Add(_X, anything.let(plus=plain_constant)).where(lambda x: x.dtype == "f32"))
    def scale_sums(self, w: Writer, node: Node, readers: Uses) -> Replacement:
        """Convert(acc) * s + b -> MultiplyAdd(Convert(acc), s, b)"""
        linear = self.linear(node.output, 1, readers, shared=True)
        if len(linear.terms) != 1 or not _converts_sums(linear.terms[0][0].node):
            return None
        (result,) = w.outputs("MultiplyAdd", *_sum_terms(w, linear))
        self.linear_sums[result] = linear
        return (result,)

    def requantize(self, w: Writer, steps: Steps, readers: Uses) -> Replacement:
        x, factor, zero, attrs, of_bytes = steps
        while _cuts_as(x, steps, readers):
            x = x.node.inputs[0]
        linear = self.linear(x, MOST_TERMS, readers)
        if not any((of_bytes and _converts_bytes(v.node)) or _of_sums(v) for v, _ in linear.terms):
            return None
        result = linear.times(factor).plus(zero)
        if len(result.terms) == 1 and converts(result.terms[0][0].node):
            ((sums, factor),) = result.terms
            factor, zero = fit_steps(factor, result.offset, attrs["low"], attrs["high"])
            result = Linear(((sums, factor),), zero)
        return w.outputs("Quantize", *_sum_terms(w, result), **attrs)

    def linear(self, x: Value, most: int, readers: Uses, shared: bool = False) -> Linear:
        """`x` as a sum of at most `most` tensors. Values are followed backwards while they have a single
        reader; `x` itself may have more if `shared`. A conversion of bytes is one term."""
        single = Linear(((x, np.ones(())),), np.zeros(()))
        if x.dtype != "f32" or x.shape is None:
            return single
        if (linear := self.linear_sums.get(x)) is not None:
            return linear if shared or _is_not_stored(x, linear, readers) else single
        step = _STEP.first(x)
        if step is not None:
            ((name, number),) = ((key, each) for key, each in step.items() if key != "x")
            if step["x"].shape != x.shape or number.size > 1 and sum(d != 1 for d in number.shape) > 1:
                return single
            inner = self.linear(step["x"], most, readers)
            linear = (
                inner.times(number) if name == "times" else inner.plus(number if name == "plus" else -number)
            )
            return linear if shared or _is_not_stored(x, linear, readers) else single
        pair = _SUM.first(x)
        if pair is None or most < 2 or any(v.shape != x.shape for v in pair.values()):
            return single
        if not _is_not_stored(x, single, readers):
            return single
        one = self.linear(pair["left"], most - 1, readers)
        other = self.linear(pair["right"], most - len(one.terms), readers)
        return Linear(one.terms + other.terms, one.offset + other.offset)
