"""The quantization pass: graphs that say how they are quantized are computed in integers.

In: the model's graph. FakeQuantize gives the range of a tensor and its number of levels. Weights are integers
with a scale for each output channel, or have a FakeQuantize of their own. Out: the same graph, in which

    Convolution(FakeQuantize(x), w)  ->  q = Quantize(x): u8;  Convolution(q, w: i8): i32;  * scale, in f32

and operations that only move or compare elements work on `q`. Each quantized tensor is
`(q - zero) * scale`, written as ordinary operations. A reader of the real tensor computes them in its own
loop. Without a reader they are removed. Sums of integers are exact. So results differ from the original
graph's only by the rounding of scales: occasionally by one quantization step.

Weights whose zero point does not fit 8 signed bits are shifted by an offset. A product with ones gives the
sums of data that the offset multiplies. A zero point known only at run time is subtracted in the same way.

Ranges per channel are supported if no sum mixes channels (depthwise convolutions). A zero point with a
fraction gives products an offset in f32; without an integer there is no byte for the zeros around an image.
Operations without an exact form are unchanged: other ranges per channel, more than 256 levels, weights that
do not fit 8 bits. On a target without 8-bit dot products nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovjit.codegen.cpu.formats import find_format
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static
from ovjit.records import NamedTuple
from ovjit.rewrite.compression import plain_constant
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.integer_weights import PRODUCTS, quantized_weights, range_steps
from ovjit.rewrite.pattern import anything, constant, op, value
from ovjit.rewrite.residuals import BY_NUMBER, CUT, MOVES, find_unrounded
from ovjit.rewrite.rules import Uses, copy_unchanged, original, rule, rules_of, run_rules
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: Operations with a single reader whose outputs are elements of their inputs.
_JOINED = op["MaxPool Concat"](...).once
_WINDOWS = op["Convolution GroupConvolution"](...)
_OF_WINDOWS = _WINDOWS.where(lambda x: x.dtype == "i32")
#: Sums of a convolution of bytes, to which zero points may have been added.
_WINDOW_SUMS = _OF_WINDOWS | op.Add(_OF_WINDOWS, anything).where(lambda x: x.dtype == "i32")
_WINDOW_SUMS |= op.Convert(_WINDOW_SUMS)
_GROUPED = op.GroupConvolution(...)
#: Gives the range of a tensor and its number of levels.
_RANGE = op.FakeQuantize(...)
#: Types to which a graph converts bytes before it sums them.
WIDE = ("f32", "f64", "i32")


class Quantized(NamedTuple):
    """A tensor as (integers - zero) * scale. `zero` and `scale` are scalars, or have the tensor's rank and an
    element for each index of one axis. A scalar `zero` may have a fraction. `runtime_zero`: a zero point that
    is known at run time only, a byte, which is subtracted as well; or None."""

    integers: Value
    scale: np.ndarray
    zero: np.ndarray
    runtime_zero: Value | None = None

    @property
    def uniform(self) -> bool:
        """True if all elements have the same scale and zero point."""
        return self.scale.size == self.zero.size == 1

    def alike(self, other: Quantized) -> bool:
        """True if equal integers represent equal reals in both tensors."""
        if self.runtime_zero is not other.runtime_zero:
            return False
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


def quantize_graph(graph: Graph, context: Context) -> Graph:
    """FakeQuantize, products -> Quantize, products of integers"""
    if not any(map(_quantizes, graph.nodes)) or find_format("u8", "i8", context.target) is None:
        return graph
    return run_rules(graph, rules_of(_Quantizer(find_unrounded(graph))))


def _quantizes(node: Node) -> bool:
    """True for conversions of bytes to reals, and for FakeQuantize."""
    return converts(node, of=("u8", "i8"), to=WIDE) or _RANGE.fits(node.op)


class _Quantizer:
    """The rules, and the real tensors of which the quantized form is known (`quantized`). `unrounded`: see
    `ovjit.rewrite.residuals`."""

    def __init__(self, unrounded: frozenset[Node]) -> None:
        self.unrounded = unrounded
        self.quantized: dict[Value, Quantized] = {}
        self.padded: dict[tuple, Value] = {}  # integers with a border, made once for all readers

    def _is(self, b: Builder, node: Node, quantized: Quantized | None) -> Value | None:
        """The node unchanged, with `quantized` recorded as its quantized form."""
        if quantized is None or node.output.dtype not in WIDE:
            return None
        out = copy_unchanged(b, node)
        self.quantized[out] = quantized
        return out

    def _integers(self, x: Value) -> Quantized | None:
        """The quantized form of an f32 tensor. None if it is unknown, or has a run-time zero point."""
        quantized = self.quantized.get(x) if x.dtype == "f32" else None
        return None if quantized is None or quantized.runtime_zero is not None else quantized

    @rule(op.Convert(value("q").where(lambda q: q.dtype in ("u8", "i8"))))
    def bytes_as_reals(self, b: Builder, w: Writer, node: Node, q: Value) -> Value | None:
        """Convert(q): known as q for u8, as (q + 128) - 128 for i8"""
        if q.constant is not None or q.shape is None or node.output.dtype not in WIDE:
            return None
        if q.dtype == "u8":
            return self._is(b, node, Quantized(q, np.ones(()), np.zeros((), np.int64)))
        return self._is(b, node, Quantized(_to_unsigned(w, q), np.ones(()), np.array(128)))

    @rule(value("x") * value("factor"))
    def multiply_scale(self, b: Builder, node: Node, x: Value, factor: Value) -> Value | None:
        """(q - z) * s * factor: known with both factors"""
        before = self.quantized.get(x)
        each = None if before is None else self._number(node, x, factor)
        if before is None or each is None or not np.all((each > 0) & np.isfinite(each)):
            return None
        return self._is(b, node, before._replace(scale=_to_scalar(before.scale * each)))

    @rule(value("x") - value("zero"))
    def subtract_zero(self, b: Builder, node: Node, x: Value, zero: Value) -> Value | None:
        """(q - z) * s - zero: known as (q - z - zero / s) * s, if that is a whole number"""
        before = self.quantized.get(x)
        each = None if before is None else self._number(node, x, zero)
        if before is None or each is None:
            return None
        steps = each / before.scale
        rounded = np.rint(steps)
        if not np.all(steps == rounded):  # NaN and infinity too
            return None
        return self._is(b, node, before._replace(zero=_to_scalar(before.zero + rounded)))

    def _number(self, node: Node, x: Value, number: Value) -> np.ndarray | None:
        """A constant operand, if it is a scalar or varies along a single axis."""
        array = plain_constant(number)
        return None if array is None or x.shape != node.output.shape else _of_an_axis(array, len(x.shape))

    @rule(value("x") - op.Convert(value("byte")).where(lambda zero: plain_constant(zero) is None))
    def less_a_byte(self, b: Builder, node: Node, x: Value, byte: Value) -> Value | None:
        """q - Convert(zero point computed at run time), as from DynamicQuantizeLinear"""
        before = self.quantized.get(x)
        if before is None or before.runtime_zero is not None or x.shape != node.output.shape:
            return None
        alone = byte.shape is not None and all(d == 1 for d in byte.shape)
        if byte.dtype != "u8" or not alone or before.zero.any() or before.scale.size > 1 or before.scale != 1:
            return None
        return self._is(b, node, before._replace(runtime_zero=byte))

    @rule(op.FakeQuantize(value("x"), ...))
    def fake_quantize(self, b: Builder, node: Node, x: Value, readers: Uses) -> Value | None:
        """FakeQuantize(x) -> (Quantize(x) - zero) * scale"""
        levels, limits = node.attrs["levels"], self._limits(node, x)
        steps = None if limits is None else range_steps(*limits, levels)
        if limits is None or steps is None:
            return None
        low, high, out_low, out_high = limits
        (scale, zero), step = map(_to_scalar, steps), _to_scalar((high - low) / (levels - 1))
        shift, result = _to_scalar(-low / step), Quantized(x, scale, zero)
        if np.any((zero < 0) | (zero > levels - 1)) or not _helps(node, result, readers):
            return None
        same = np.array_equal(low, out_low) and np.array_equal(high, out_high)
        if result.uniform and same and self._is_unrounded(node, x):
            return Writer(b, node)("Clamp", x, min=float(low), max=float(high))
        before = self.quantized.get(x)
        if before is not None and before.alike(result) and np.array_equal(step, scale) and levels == 256:
            return x  # already quantized with these steps
        attrs = {"low": 0, "high": levels - 1, "element_type": "u8"}

        def quantize(x: Value, name: str) -> Value:
            form = self.quantized.get(x)
            if form is not None and form.alike(result) and np.array_equal(step, scale) and levels == 256:
                return form.integers
            numbers, origins = [1 / step, shift], node.origins
            if x.node.op.role == "parameter":  # an exact input: avoid a second rounding far from 0
                even = 2 * np.rint(shift / 2)
                near = [_constant(b, n) for n in (numbers[0], shift - even)]
                x = b.add("MultiplyAdd", [x, *near], name=f"{name}/near", origins=origins).output
                x = b.add("Round", [x], {"mode": "half_to_even"}, origins=origins).output
                numbers = [np.ones(()), even]
            args = [x, *(_constant(b, n) for n in numbers)]
            return b.add("Quantize", args, attrs, name=name, origins=origins).output

        integers = self._before(b, node, x, quantize, readers) if result.uniform else None
        if integers is None:
            integers = quantize(x, f"{node.name}/Quantize")
        return self._real(b, node, result._replace(integers=integers))

    def _limits(self, node: Node, x: Value) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """The limits of a FakeQuantize of `x`. None unless they are known and its steps are bytes of f32."""
        if (
            x.constant is not None
            or x.dtype != "f32"
            or x.shape is None
            or not 2 <= node.attrs["levels"] <= 256
        ):
            return None
        constants = [v.constant for v in node.inputs[1:]]
        limits = [None if a is None else _of_an_axis(a, len(x.shape)) for a in constants]
        low, high, out_low, out_high = limits
        if low is None or high is None or out_low is None or out_high is None:
            return None
        return low, high, out_low, out_high

    def _is_unrounded(self, node: Node, x: Value) -> bool:
        """Whether a FakeQuantize of `x` gives its range only."""
        return original(node) in self.unrounded and _is_sum_of_windows(x)

    def _before(
        self, b: Builder, node: Node, x: Value, quantize: Callable[[Value, str], Value], readers: Uses
    ) -> Value | None:
        """Quantize(Concat(a, b)) -> Concat(Quantize(a), Quantize(b))     and MaxPool: if the operation only
        selects elements of its inputs and has no other reader, its inputs are quantized instead"""
        maker = x.node
        if x in self.quantized or not _JOINED.matches(x, readers):
            return None
        if any(map(readers.times, maker.outputs[1:])):
            return None
        if any(v.constant is not None or v.shape is None for v in maker.inputs):
            return None
        bytes_ = [quantize(v, f"{node.name}/Quantize{i}") for i, v in enumerate(maker.inputs)]
        name = f"{maker.name}/u8"
        return b.add(maker.op, bytes_, maker.attrs, name=name, origins=maker.origins).outputs[0]

    def _real(self, b: Builder, node: Node, quantized: Quantized) -> Value:
        """(q - zero) * scale as nodes: the real tensor."""
        widened = Writer(b, node)("Convert", quantized.integers, destination_type="f32")
        real = self._to_real(b, node, widened, quantized)
        self.quantized[real] = quantized
        return real

    def _to_real(self, b: Builder, node: Node, steps: Value, quantized: Quantized) -> Value:
        """(steps - zero) * scale, in f32"""
        if quantized.zero.any():
            steps = Writer(b, node)("Subtract", steps, quantized.zero.astype(np.float32))
        scale = _constant(b, quantized.scale)
        return b.add("Multiply", [steps, scale], name=node.name, origins=node.origins).output

    @rule(op[MOVES](...))
    def move(self, b: Builder, node: Node) -> Replacement:
        """Reshape((q - z) * s) -> (Reshape(q) - z) * s"""
        return self._move(b, node, node.inputs)

    @rule(op.MaxPool(...))
    def largest(self, b: Builder, node: Node, readers: Uses) -> Replacement:
        """MaxPool((q - z) * s) -> (MaxPool(q) - z) * s     if the indices of the maxima are not read"""
        return None if any(map(readers.times, node.outputs[1:])) else self._move(b, node, node.inputs)

    @rule(op.Interpolate(value("x"), ..., mode=lambda mode: mode.lower() == "nearest"))
    def resize(self, b: Builder, node: Node) -> Replacement:
        """Interpolate((q - z) * s) -> (Interpolate(q) - z) * s     if it picks elements"""
        bordered = any(node.attrs["pads_begin"]) or any(node.attrs["pads_end"])
        return None if bordered else self._move(b, node, node.inputs)

    def _move(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        quantized = self._integers(inputs[0])
        if quantized is None or not quantized.uniform:
            return None
        result = Writer(b, node).outputs(node.op, quantized.integers, *inputs[1:], **node.attrs)
        return [self._real(b, node, quantized._replace(integers=v)) if v.dtype == "u8" else v for v in result]

    @rule(op.Pad(value("x"), ...))
    def pad(self, b: Builder, node: Node, x: Value) -> Replacement:
        """Pad((q - z) * s, value)  ->  (Pad(q, value / s + z) - z) * s     if the new value is a byte"""
        data, inputs = self._integers(x), node.inputs
        if data is None:
            return None
        if node.attrs["pad_mode"].lower() == "constant" and data.uniform:
            border = inputs[3].constant if len(inputs) > 3 else np.zeros(1)
            if border is None or border.size != 1:
                return None
            step = float(border.reshape(-1)[0] / data.scale + data.zero)
            if not (0 <= step <= 255 and step == np.rint(step)):
                return None
            return self._move(b, node, (*inputs[:3], b.constant(np.array(step, np.uint8))))
        return self._move(b, node, inputs[:3])

    @rule(op.ReduceMean(value("x"), constant("axes")))
    def mean(self, b: Builder, node: Node, x: Value) -> Value | None:
        """ReduceMean((q - z) * s) -> (ReduceMean(q) - z) * s     in f32, of bytes"""
        return self._mean(b, node, self._integers(x))

    @rule(op.AvgPool(value("x")))
    def average(self, b: Builder, node: Node, x: Value) -> Value | None:
        """AvgPool((q - z) * s) -> (AvgPool(q) - z) * s     in f32, of bytes"""
        data, attrs = self._integers(x), node.attrs
        pads = (*attrs["pads_begin"], *attrs["pads_end"], attrs["auto_pad"].startswith("same"))
        if data is not None and data.zero.any() and any(pads) and not attrs["exclude_pad"]:
            return None  # the border's zeros are real zeros, and count in the average
        return self._mean(b, node, data)

    def _mean(self, b: Builder, node: Node, data: Quantized | None) -> Value | None:
        if data is None or not data.uniform:
            return None
        shape = data.integers.shape
        if not is_static(shape) or 0 in shape or len(shape) > 4:
            return None
        types = [TensorType("f32", node.output.shape)]
        args = [data.integers, *node.inputs[1:]]
        name = f"{node.name}/u8"
        mean = b.add(node.op, args, node.attrs, name=name, origins=node.origins, types=types, lowered=True)
        return self._to_real(b, node, mean.output, data)

    @rule(op.Concat(...))
    def concat(self, b: Builder, node: Node) -> Value | None:
        """Concat((q - z) * s, (r - z) * s) -> (Concat(q, r) - z) * s"""
        first, parts = self._integers(node.inputs[0]), [self.quantized.get(v) for v in node.inputs]
        if first is None or not first.uniform or not all(p is not None and p.alike(first) for p in parts):
            return None
        integers = [p.integers for p in parts if p is not None]
        result = Writer(b, node)(node.op, *integers, **node.attrs)
        return self._real(b, node, first._replace(integers=result))

    @rule(op["Convolution GroupConvolution MatMul"](value("x"), ...))
    def product(self, b: Builder, node: Node, x: Value) -> Value | None:
        """Convolution((q - z) * s, (w + o) * t)
        ->  (Convolution(q, w) + o * Convolution(q, 1) - z * sum of (w + o)) * (s * t)"""
        data, out, kind = self.quantized.get(x), node.output, PRODUCTS[node.op.name]
        weights = None if data is None else quantized_weights(node)
        if data is None or weights is None or out.shape is None:
            return None
        if out.dtype not in WIDE or kind.wants_planes(node):
            return None
        sums = weights.sums(node)
        each, pads = kind.by_group(node, data), kind.pads(node)
        if sums is None or each is None or pads is None:
            return None
        q, attrs = data.integers, dict(node.attrs)
        if (data.zero.any() or data.runtime_zero is not None) and any(map(any, pads)):
            if data.zero.size > 1 or not 0 <= data.zero <= 255 or data.zero != np.rint(data.zero):
                return None  # no byte represents 0
            key = (q, int(data.zero), data.runtime_zero, *map(tuple, pads))
            if key not in self.padded:
                self.padded[key] = _pad(b, node, data, pads)
            q, none = self.padded[key], (0,) * len(pads[0])
            attrs |= {"pads_begin": none, "pads_end": none, "auto_pad": "explicit"}

        def product(w: np.ndarray, shape: tuple, name: str) -> Value:
            types, result = [TensorType("i32", shape)], [q, b.constant(w)]
            return b.add(
                node.op, result, attrs, name=name, origins=node.origins, types=types, lowered=True
            ).output

        acc, scale = product(weights.integers, out.shape, f"{node.name}/i32"), weights.scale * each[0]
        zero = np.rint(each[1])
        more = self._beside_products(b, node, data, zero, sums)
        if weights.offset is not None:
            counting, form = kind.ones(node, weights.integers, out.shape)
            if counting is None:
                return None
            w, total = Writer(b, node), product(counting, form, f"{node.name}/ones")
            part = w("Multiply", total, _by_outputs(node, weights.offset))
            more = part if more is None else w("Add", part, more)
        if more is not None:
            acc = b.add("Add", [acc, more], name=f"{node.name}/zero", origins=node.origins).output
        return _scaled_sums(b, node, acc, scale, (zero - each[1]) * sums.reshape(-1))

    def _beside_products(
        self, b: Builder, node: Node, data: Quantized, zero: np.ndarray, sums: np.ndarray
    ) -> Value | None:
        """The correction of the sums for zero points of the data. None if these are 0."""
        more: Value | None = None
        if zero.any():
            more = b.constant(_by_outputs(node, -zero * sums))
        if data.runtime_zero is not None:
            w = Writer(b, node)
            widened = w("Convert", data.runtime_zero, destination_type="i32")
            flat = w("Reshape", widened, [1] * len(node.output.shape), special_zero=False)
            more = w("Multiply", flat, _by_outputs(node, -sums))
        return more


def _by_outputs(node: Node, numbers: np.ndarray) -> np.ndarray:
    """One i32 per output channel of a product, with the product's rank."""
    return numbers.reshape(-1).astype(np.int32).reshape(_outputs_alone(node))


def _outputs_alone(node: Node) -> tuple[int, ...]:
    rank = len(node.output.shape)
    axis = PRODUCTS[node.op.name].channel_axis(rank)
    return tuple(-1 if a == axis else 1 for a in range(rank))


def _scaled_sums(b: Builder, node: Node, acc: Value, scale: np.ndarray, more: np.ndarray) -> Value | None:
    """(acc + more) * scale in the type of the product, under its name. `more`: for each output channel, 0 or
    fractions."""
    out, origins, plain, shifted = node.output, node.origins, bool(np.all(scale == 1)), bool(more.any())
    if out.dtype == "i32":
        return acc if plain and not shifted else None
    steps: list[tuple[str, np.ndarray | None]] = [("Convert", None)]
    if not plain:
        steps.append(("Multiply", scale.reshape(() if scale.size == 1 else _outputs_alone(node))))
    if shifted:
        steps.append(("Add", (more * scale.reshape(-1)).reshape(_outputs_alone(node))))
    real = acc
    for at, (name, number) in enumerate(steps, 1):
        label = node.name if at == len(steps) else f"{node.name}/{out.dtype if number is None else name}"
        arguments = [real] if number is None else [real, _constant(b, number, out.dtype)]
        attrs = {"destination_type": out.dtype} if number is None else {}
        real = b.add(name, arguments, attrs, name=label, origins=origins).output
    return real


def _helps(node: Node, data: Quantized, readers: Uses) -> bool:
    """False if no reader of a FakeQuantize can take integers. For scales per channel it is a convolution of
    groups; for a zero point with a fraction not a convolution with zeros around its images."""
    users = [user for user, _ in readers.of(node.output)]
    if not np.array_equal(data.zero, np.rint(data.zero)):
        bordered = [u is not None and _WINDOWS.fits(u.op) and any(map(any, _pads(u))) for u in users]
        return data.uniform and not all(bordered)
    return data.uniform or any(user is not None and _GROUPED.fits(user.op) for user in users)


def _pads(product: Node) -> tuple[Sequence[int], Sequence[int]]:
    return PRODUCTS[product.op.name].pads(product) or ((), ())


def _of_an_axis(number: np.ndarray, rank: int) -> np.ndarray | None:
    """A constant as f64, if it is one number or has one axis; then it has `rank` dimensions."""
    if number.size == 1:
        return number.reshape(()).astype(np.float64)
    if number.ndim > rank or sum(d != 1 for d in number.shape) != 1:
        return None
    return _to_scalar(number.reshape((1,) * (rank - number.ndim) + number.shape).astype(np.float64))


def _to_scalar(each: np.ndarray) -> np.ndarray:
    """One number where all elements are that number."""
    return each.reshape(-1)[0].reshape(()) if each.size and np.all(each == each.reshape(-1)[0]) else each


def _constant(b: Builder, numbers: np.ndarray, dtype: str = "f32") -> Value:
    """A constant that remembers the f64 it was rounded from, as more may be multiplied with it."""
    return b.constant(Converted(np.asarray(numbers), [numpy_dtype(dtype)]))


def _is_sum_of_windows(x: Value) -> bool:
    """True for what a convolution of bytes has summed up, with scale, bias and Relu."""
    if (step := CUT.first(x)) is not None:
        x = step["x"]
    while (step := BY_NUMBER.first(x)) is not None:
        x = step["x"]
    return _WINDOW_SUMS.matches(x)


def _to_unsigned(w: Writer, x: Value) -> Value:
    """i8 -> u8, 128 more: what the dot product of bytes takes."""
    return w("Convert", w("Add", w("Convert", x, destination_type="i32"), 128), destination_type="u8")


def _pad(b: Builder, node: Node, data: Quantized, pads: tuple[Sequence[int], Sequence[int]]) -> Value:
    """The integers with their zero point around them: a halo holds 0."""
    w, (begin, end) = Writer(b, node), ([0, 0, *p] for p in pads)
    point = None if data.runtime_zero is None else w("Reshape", data.runtime_zero, [], special_zero=False)
    return w("Pad", data.integers, begin, end, point or data.zero.astype(np.uint8), pad_mode="constant")
