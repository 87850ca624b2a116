"""The quantization pass: graphs that say how they are quantized are computed in integers.

In: the graph as it was read. FakeQuantize gives the range of a tensor and its number of steps. Weights are
integers with a scale for each output channel, or behind a FakeQuantize of their own. Out: the same graph, in
which

    Convolution(FakeQuantize(x), w)  ->  q = Quantize(x): u8;  Convolution(q, w: i8): i32;  * scale, in f32

and operations that only move or compare elements work on `q`. Every quantized tensor is
`(q - zero) * scale`, written as ordinary operations. A reader of the real tensor computes them in its own
loop. Without a reader they are removed. Sums of integers are exact. So results differ from those of the
original graph only by the rounding of scales: a step of the quantization now and then.

Weights whose zero point leaves no room in 8 signed bits are shifted by an offset. A product with ones gives
the sums of data that the offset multiplies. A zero point known only at run time is subtracted likewise.

Ranges that differ by channel are supported if no sum goes over several of them (depthwise convolutions).
Operations without an exact form are not changed: other ranges that differ by channel, more than 256 levels,
fractional zero points, weights that do not fit 8 bits. A CPU without 8-bit dot products changes none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ovjit.codegen.cpu.formats import find_format
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static
from ovjit.graph.windows import resolve_pads
from ovjit.rewrite.compression import INTEGERS, plain_constant, stored_integers
from ovjit.rewrite.pattern import op, value
from ovjit.rewrite.rules import Uses, rule, rules_of, run_rules, unchanged
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: How far from a whole number a zero point may be, in steps.
NEARLY = 1e-2
#: Operations that may read integers in the place of reals: those that give elements on as they are.
MOVES = (
    "Reshape Squeeze Unsqueeze Transpose Split VariadicSplit Slice StridedSlice ShuffleChannels DepthToSpace "
    "SpaceToDepth"
)
#: What takes its inputs' elements as they are, for one reader.
_JOINED = op["MaxPool Concat"](...).once
#: Types that bytes are computed in where a graph spells sums of integers out.
WIDE = ("f32", "f64", "i32")


class Quantized(NamedTuple):
    """A tensor as (integers - zero) * scale; `zero` and `scale` are numbers or have an element for each index
    of one axis, and as many dimensions as the tensor. Where `given` is not None, it is a byte that only a run
    knows, and is subtracted too."""

    integers: Value
    scale: np.ndarray
    zero: np.ndarray
    given: Value | None = None

    @property
    def uniform(self) -> bool:
        """True where all elements have one scale and one zero point."""
        return self.scale.size == self.zero.size == 1

    def alike(self, other: Quantized) -> bool:
        """True where equal integers stand for equal reals."""
        if self.given is not other.given:
            return False
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


class Weights(NamedTuple):
    """Weights as (integers + offset) * scale; `scale` and `offset` have an element for each output channel.
    Without an offset, that is None."""

    integers: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None = None


def quantize_graph(graph: Graph, context: Context) -> Graph:
    """FakeQuantize, products -> Quantize, products of integers"""
    if not any(map(_quantizes, graph.nodes)) or find_format("u8", "i8", context.target) is None:
        return graph
    return run_rules(graph, rules_of(_Quantizer()))


def _quantizes(node: Node) -> bool:
    """True for what bytes are made reals by, and for what says that reals are steps."""
    if node.op.name == "Convert":
        return node.output.dtype in WIDE and node.inputs[0].dtype in ("u8", "i8")
    return node.op.name == "FakeQuantize"


class _Quantizer:
    """Rules that remember which reals are known as integers."""

    def __init__(self) -> None:
        self.known: dict[Value, Quantized] = {}
        self.padded: dict[tuple, Value] = {}  # integers with a border, made once for all readers

    def _is(self, b: Builder, node: Node, found: Quantized | None) -> Value | None:
        """The node as it is, known as that."""
        if found is None or node.output.dtype not in WIDE:
            return None
        out = unchanged(b, node)
        self.known[out] = found
        return out

    def _integers(self, x: Value) -> Quantized | None:
        """What f32 is known as, where that is known when compiling."""
        found = self.known.get(x) if x.dtype == "f32" else None
        return None if found is None or found.given is not None else found

    @rule(op.Convert(value("q").where(lambda q: q.dtype in ("u8", "i8"))))
    def bytes_as_reals(self, b: Builder, w: Writer, node: Node, q: Value) -> Value | None:
        """Convert(q): known as q, or as q + 128 - 128"""
        if q.constant is not None or q.shape is None or node.output.dtype not in WIDE:
            return None
        if q.dtype == "u8":
            return self._is(b, node, Quantized(q, np.ones(()), np.zeros((), np.int64)))
        return self._is(b, node, Quantized(_unsigned(w, q), np.ones(()), np.array(128)))

    @rule(value("x") * value("factor"))
    def scaled(self, b: Builder, node: Node, x: Value, factor: Value) -> Value | None:
        """(q - z) * s * factor: known with both factors"""
        before, each = self.known.get(x), self._number(node, x, factor)
        if before is None or each is None or not np.all((each > 0) & np.isfinite(each)):
            return None
        return self._is(b, node, before._replace(scale=_plain(before.scale * each)))

    @rule(value("x") - value("zero"))
    def shifted(self, b: Builder, node: Node, x: Value, zero: Value) -> Value | None:
        """(q - z) * s - zero: known as (q - z - zero / s) * s, if that is a whole number"""
        before, each = self.known.get(x), self._number(node, x, zero)
        if before is None or each is None:
            return None
        steps = each / before.scale
        whole = np.rint(steps)
        if not np.all(steps == whole):  # NaN and infinity too
            return None
        return self._is(b, node, before._replace(zero=_plain(before.zero + whole.astype(np.int64))))

    def _number(self, node: Node, x: Value, number: Value) -> np.ndarray | None:
        """A constant that is an operand beside `x`, if it is one number or has one axis."""
        known = plain_constant(number)
        return None if known is None or x.shape != node.output.shape else _of_an_axis(known, len(x.shape))

    @rule(value("x") - op.Convert(value("byte")).where(lambda zero: plain_constant(zero) is None))
    def less_a_byte(self, b: Builder, node: Node, x: Value, byte: Value) -> Value | None:
        """q - Convert(a zero point that is computed), as DynamicQuantizeLinear has it"""
        before = self.known.get(x)
        if before is None or before.given is not None or x.shape != node.output.shape:
            return None
        alone = byte.shape is not None and all(d == 1 for d in byte.shape)
        if byte.dtype != "u8" or not alone or before.zero.any() or before.scale.size > 1 or before.scale != 1:
            return None
        return self._is(b, node, before._replace(given=byte))

    @rule(op.FakeQuantize(value("x"), ...))
    def fake_quantize(self, b: Builder, node: Node, x: Value, readers: Uses) -> Value | None:
        """FakeQuantize(x) -> (Quantize(x) - zero) * scale"""
        inputs, levels = node.inputs, node.attrs["levels"]
        if x.constant is not None or x.dtype != "f32" or x.shape is None or not 2 <= levels <= 256:
            return None
        limits = [None if v.constant is None else _of_an_axis(v.constant, len(x.shape)) for v in inputs[1:]]
        if any(a is None for a in limits):
            return None
        low, high, out_low, out_high = (a for a in limits if a is not None)
        found = _whole_steps(low, high, out_low, out_high, levels)
        if found is None:
            return None
        (scale, whole), step = map(_plain, found), _plain((high - low) / (levels - 1))
        shift = _plain(-low / step)
        if np.any((whole < 0) | (whole > levels - 1)):
            return None
        made = Quantized(x, scale, whole.astype(np.int64))
        if not (made.uniform or _by_channel(node, readers)):
            return None
        same = np.array_equal(low, out_low) and np.array_equal(high, out_high)
        if made.uniform and same and _meets_a_residual(node, x, readers):
            return Writer(b, node)("Clamp", x, min=float(low), max=float(high))
        before = self.known.get(x)
        if before is not None and before.alike(made) and np.array_equal(step, scale) and levels == 256:
            return x  # already in these steps
        attrs = {"low": 0, "high": levels - 1, "element_type": "u8"}

        def quantize(x: Value, name: str) -> Value:
            known = self.known.get(x)
            if known is not None and known.alike(made) and np.array_equal(step, scale) and levels == 256:
                return known.integers
            numbers, origins = [1 / step, shift], node.origins
            if x.node.op.role == "parameter":  # is exact, and f32 would round once more so far from 0
                even = 2 * np.rint(shift / 2)
                near = [_rounded(b, n) for n in (numbers[0], shift - even)]
                x = b.add("MultiplyAdd", [x, *near], name=f"{name}/near", origins=origins).output
                x = b.add("Round", [x], {"mode": "half_to_even"}, origins=origins).output
                numbers = [np.ones(()), even]
            given = [x, *(_rounded(b, n) for n in numbers)]
            return b.add("Quantize", given, attrs, name=name, origins=origins).output

        integers = self._before(b, node, x, quantize, readers) if made.uniform else None
        if integers is None:
            integers = quantize(x, f"{node.name}/Quantize")
        return self._real(b, node, made._replace(integers=integers))

    def _before(
        self, b: Builder, node: Node, x: Value, quantize: Callable[[Value, str], Value], readers: Uses
    ) -> Value | None:
        """Quantize(Concat(a, b)) -> Concat(Quantize(a), Quantize(b))     and MaxPool: if a quantized
        operation only joins or compares elements and has no other reader, its parts are written as bytes"""
        maker = x.node
        if x in self.known or not _JOINED.matches(x, readers):
            return None
        if any(map(readers.times, maker.outputs[1:])):
            return None
        taken = 1 if maker.op.name == "MaxPool" else len(maker.inputs)
        parts = maker.inputs[:taken]
        if any(v.constant is not None or v.shape is None for v in parts):
            return None
        bytes_ = [quantize(v, f"{node.name}/Quantize{i}") for i, v in enumerate(parts)]
        given = [*bytes_, *maker.inputs[taken:]]
        name = f"{maker.name}/u8"
        return b.add(maker.op, given, maker.attrs, name=name, origins=maker.origins).outputs[0]

    def _real(self, b: Builder, node: Node, quantized: Quantized) -> Value:
        """(q - zero) * scale as nodes; who reads them reads the real tensor."""
        wide = Writer(b, node)("Convert", quantized.integers, destination_type="f32")
        real = self._shifted(b, node, wide, quantized)
        self.known[real] = quantized
        return real

    def _shifted(self, b: Builder, node: Node, steps: Value, quantized: Quantized) -> Value:
        """(steps - zero) * scale, in f32"""
        if quantized.zero.any():
            steps = Writer(b, node)("Subtract", steps, quantized.zero.astype(np.float32))
        scale = _rounded(b, quantized.scale)
        return b.add("Multiply", [steps, scale], name=node.name, origins=node.origins).output

    @rule(op[f"MaxPool {MOVES}"](value("x"), ...))
    def moved(self, b: Builder, node: Node, x: Value, readers: Uses) -> Replacement:
        """Reshape((q - z) * s) -> (Reshape(q) - z) * s"""
        if node.op.name == "MaxPool" and any(map(readers.times, node.outputs[1:])):
            return None  # the places of the largest elements
        return self._moved(b, node, node.inputs)

    @rule(op.Interpolate(value("x"), ..., mode=lambda mode: mode.lower() == "nearest"))
    def resized(self, b: Builder, node: Node) -> Replacement:
        """Interpolate((q - z) * s) -> (Interpolate(q) - z) * s     where it picks elements"""
        bordered = any(node.attrs["pads_begin"]) or any(node.attrs["pads_end"])
        return None if bordered else self._moved(b, node, node.inputs)

    def _moved(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        quantized = self._integers(inputs[0])
        if quantized is None or not quantized.uniform:
            return None
        made = Writer(b, node).outputs(node.op, quantized.integers, *inputs[1:], **node.attrs)
        return [self._real(b, node, quantized._replace(integers=v)) if v.dtype == "u8" else v for v in made]

    @rule(op.Pad(value("x"), ...))
    def pad(self, b: Builder, node: Node, x: Value) -> Replacement:
        """Pad((q - z) * s, value)  ->  (Pad(q, value / s + z) - z) * s     where that is a byte"""
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
            return self._moved(b, node, (*inputs[:3], b.constant(np.array(step, np.uint8))))
        return self._moved(b, node, inputs[:3])

    @rule(op["AvgPool ReduceMean"](value("x"), ...))
    def mean(self, b: Builder, node: Node, x: Value) -> Value | None:
        """AvgPool((q - z) * s)  ->  (AvgPool(q) - z) * s     in f32, of bytes; and ReduceMean"""
        data, inputs, out, attrs = self._integers(x), node.inputs, node.output, node.attrs
        if data is None or not data.uniform:
            return None
        shape = data.integers.shape
        if not is_static(shape) or 0 in shape or len(shape) > 4:
            return None
        if node.op.name == "AvgPool":
            pads = (*attrs["pads_begin"], *attrs["pads_end"], attrs["auto_pad"].startswith("same"))
            if data.zero.any() and any(pads) and not attrs["exclude_pad"]:
                return None  # a border is zeros, and they are counted
        elif inputs[1].constant is None:
            return None
        types = [TensorType("f32", out.shape)]
        given = [data.integers, *inputs[1:]]
        name = f"{node.name}/u8"
        mean = b.add(node.op, given, node.attrs, name=name, origins=node.origins, types=types, lowered=True)
        return self._shifted(b, node, mean.output, data)

    @rule(op.Concat(...))
    def concat(self, b: Builder, node: Node) -> Value | None:
        """Concat((q - z) * s, (r - z) * s) -> (Concat(q, r) - z) * s"""
        first, parts = self._integers(node.inputs[0]), [self.known.get(v) for v in node.inputs]
        if first is None or not first.uniform or not all(p is not None and p.alike(first) for p in parts):
            return None
        integers = [p.integers for p in parts if p is not None]
        made = Writer(b, node)(node.op, *integers, **node.attrs)
        return self._real(b, node, first._replace(integers=made))

    @rule(op["Convolution GroupConvolution MatMul"](value("x"), ...))
    def product(self, b: Builder, node: Node, x: Value) -> Value | None:
        """Convolution((q - z) * s, (w + o) * t)
        ->  (Convolution(q, w) + o * Convolution(q, 1) - z * sum of (w + o)) * (s * t)"""
        data, out = self.known.get(x), node.output
        weights = None if data is None else quantized_weights(node)
        if data is None or weights is None or out.shape is None:
            return None
        if out.dtype not in WIDE or _wants_planes(node):
            return None
        over = tuple(a for a in range(weights.integers.ndim) if a not in _output_axes(node))
        whole = weights.integers.astype(np.int64)
        if weights.offset is not None:
            whole = whole + weights.offset
        if 255 * int(np.abs(whole).sum(axis=over).max()) >= 2**31:
            return None  # sums might not fit
        each = _by_group(node, data)
        pads = _pads(node)
        if each is None or pads is None:
            return None
        data_scale, data_zero = each
        q, attrs, origins, name = data.integers, dict(node.attrs), node.origins, node.name
        if (data.zero.any() or data.given is not None) and any(map(any, pads)):
            if data.zero.size > 1 or not 0 <= data.zero <= 255:
                return None  # no byte stands for 0
            key = (q, int(data.zero), data.given, *map(tuple, pads))
            if key not in self.padded:
                self.padded[key] = _padded(b, node, data, pads)
            q = self.padded[key]
            attrs |= {
                "pads_begin": (0,) * len(pads[0]),
                "pads_end": (0,) * len(pads[0]),
                "auto_pad": "explicit",
            }

        def product(w: np.ndarray, shape: tuple, name: str) -> Value:
            types = [TensorType("i32", shape)]
            made = [q, b.constant(w)]
            return b.add(node.op, made, attrs, name=name, origins=origins, types=types, lowered=True).output

        acc, w = product(weights.integers, out.shape, f"{name}/i32"), Writer(b, node)
        rank = len(out.shape)
        axis = rank - 1 if node.op.name == "MatMul" else 1
        shape = tuple(-1 if a == axis else 1 for a in range(rank))
        sums = whole.sum(axis=over, dtype=np.int64).reshape(-1)
        more: Value | None = None  # what is added to the sums of products
        if data_zero.any():
            more = b.constant((-data_zero * sums).astype(np.int32).reshape(shape))
        if data.given is not None:
            wide = w("Convert", data.given, destination_type="i32")
            flat = w("Reshape", wide, [1] * rank, special_zero=False)
            more = w("Multiply", flat, (-sums).astype(np.int32).reshape(shape))
        if weights.offset is not None:
            counting, form = _ones(node, weights.integers, out.shape)
            if counting is None:
                return None
            total = product(counting, form, f"{name}/ones")
            part = w("Multiply", total, weights.offset.reshape(-1).astype(np.int32).reshape(shape))
            more = part if more is None else w("Add", part, more)
        if more is not None:
            acc = b.add("Add", [acc, more], name=f"{name}/zero", origins=origins).output
        scale = weights.scale * data_scale
        plain = bool(np.all(scale == 1))
        real = acc
        if out.dtype != "i32":
            convert = {"destination_type": out.dtype}
            label = name if plain else f"{name}/{out.dtype}"
            real = b.add("Convert", [acc], convert, name=label, origins=origins).output
        if plain:
            return real
        if out.dtype == "i32":
            return None
        scales = _rounded(b, scale.reshape(() if scale.size == 1 else shape), out.dtype)
        return b.add("Multiply", [real, scales], name=name, origins=origins).output


def _by_channel(node: Node, readers: Uses) -> bool:
    """True if a tensor whose channels have different scales has a reader of integers."""
    return any(user is not None and user.op.name == "GroupConvolution" for user, _ in readers.of(node.output))


def _wants_planes(node: Node) -> bool:
    """Whether a convolution of volumes must be taken apart into planes, which open and empty shapes
    prevent: only f32 is computed as it is."""
    data, filters = node.inputs[0].shape, node.inputs[1].shape
    plain = node.op.name in ("Convolution", "GroupConvolution")
    if not plain or data is None or filters is None or len(data) != 5:
        return False
    whole = node.op.name == "Convolution" and (node.attrs["dilations"] or (1,))[-1] == 1
    return not whole and (not is_static(data) or 0 in (*data, *filters, *(node.output.shape or ())))


def _of_an_axis(number: np.ndarray, rank: int) -> np.ndarray | None:
    """A constant as f64, if it is one number or has one axis; then it has `rank` dimensions."""
    if number.size == 1:
        return number.reshape(()).astype(np.float64)
    if number.ndim > rank or sum(d != 1 for d in number.shape) != 1:
        return None
    return _plain(number.reshape((1,) * (rank - number.ndim) + number.shape).astype(np.float64))


def _plain(each: np.ndarray) -> np.ndarray:
    """One number where all elements are that number."""
    return each.reshape(-1)[0].reshape(()) if each.size and np.all(each == each.reshape(-1)[0]) else each


def _rounded(b: Builder, numbers: np.ndarray, dtype: str = "f32") -> Value:
    """A constant that remembers the f64 it was rounded from, as more may be multiplied with it."""
    return b.constant(Converted(np.asarray(numbers), [numpy_dtype(dtype)]))


def _meets_a_residual(node: Node, x: Value, readers: Uses) -> bool:
    """True for FakeQuantize(a convolution of bytes + bias) that one Add reads, with a tensor of its
    shape. No bytes are stored between the two: rounding would lose bits for nothing, and OpenVINO does
    not round there either. The range is kept."""
    users = readers.of(node.output)
    user, at = users[0] if len(users) == 1 else (None, 0)
    if user is None or user.op.name != "Add":
        return False
    other = user.inputs[1 - at]
    return other.constant is None and other.shape == node.output.shape and _sums_of_windows(x)


def _sums_of_windows(x: Value) -> bool:
    """True for what a convolution of bytes has summed up, with scale and bias."""
    maker = x.node
    while maker.op.name == "Identity" or (
        maker.op.name in ("Add", "Multiply") and plain_constant(maker.inputs[1]) is not None
    ):
        maker = maker.inputs[0].node
    sums = maker.inputs[0].node if maker.op.name == "Convert" else maker
    if sums.op.name == "Add" and sums.output.dtype == "i32":  # what zero points come to
        sums = sums.inputs[0].node
    return sums.op.name in ("Convolution", "GroupConvolution") and sums.output.dtype == "i32"


def _by_group(node: Node, data: Quantized) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, zero point) of what each output channel of a product is the sum of: one number or one for each;
    None where a sum has different ones."""
    if data.uniform:
        return data.scale, data.zero
    if node.op.name != "GroupConvolution":
        return None
    groups, outs, channels = node.inputs[1].shape[:3]
    found = []
    for each in (data.scale, data.zero):
        if each.size > 1:
            if each.ndim < 2 or not each.shape[1] == each.size == groups * channels:
                return None
            grouped = each.reshape(groups, channels)
            if np.any(grouped != grouped[:, :1]):
                return None
            each = np.repeat(grouped[:, 0], outs)
        found.append(each)
    return found[0], found[1]


def _unsigned(w: Writer, x: Value) -> Value:
    """i8 -> u8, 128 more: what the dot product of bytes takes."""
    return w("Convert", w("Add", w("Convert", x, destination_type="i32"), 128), destination_type="u8")


def _output_axes(node: Node) -> tuple[int, ...]:
    """The axes of the weights that are output channels."""
    if node.op.name == "MatMul":
        rank = len(node.inputs[1].shape)
        return (rank - 2 if node.attrs["transpose_b"] else rank - 1,)
    return (0, 1) if node.op.name == "GroupConvolution" else (0,)


def _pads(node: Node) -> tuple[Sequence[int], Sequence[int]] | None:
    """The padding (begin, end) of a product; None where it hangs on a shape that is not known."""
    if node.op.name == "MatMul":
        return (), ()
    extents, kernel = node.inputs[0].shape[2:], node.inputs[1].shape[-len(node.inputs[0].shape) + 2 :]
    rank, attrs = len(extents), node.attrs
    ones, zeros = (1,) * rank, (0,) * rank
    if attrs["auto_pad"] in ("same_upper", "same_lower") and not is_static(extents):
        return None
    return resolve_pads(
        attrs["auto_pad"], extents, kernel, attrs["strides"] or ones, attrs["dilations"] or ones,
        attrs["pads_begin"] or zeros, attrs["pads_end"] or zeros,
    )  # fmt: skip


def _padded(b: Builder, node: Node, data: Quantized, pads: tuple[Sequence[int], Sequence[int]]) -> Value:
    """The integers with their zero point around them: a halo holds 0."""
    w, (begin, end) = Writer(b, node), ([0, 0, *p] for p in pads)
    given = None if data.given is None else w("Reshape", data.given, [], special_zero=False)
    return w("Pad", data.integers, begin, end, given or data.zero.astype(np.uint8), pad_mode="constant")


def _ones(node: Node, weights: np.ndarray, out: tuple) -> tuple[np.ndarray | None, tuple]:
    """Weights of 1 that sum up what each output is made of, and the shape of that; None where groups have
    several outputs."""
    if node.op.name == "GroupConvolution":
        return (np.ones_like(weights), out) if weights.shape[1] == 1 else (None, out)
    axis = len(out) - 1 if node.op.name == "MatMul" else 1
    (kept,) = _output_axes(node)
    ones = np.ones([1 if a == kept else d for a, d in enumerate(weights.shape)], np.int8)
    return ones, tuple(1 if a == axis else d for a, d in enumerate(out))


def quantized_weights(node: Node) -> Weights | None:
    """The weights of a product as 8-bit integers with a scale for each output channel, None where they are
    not. They may be reshaped or transposed.

        [Multiply(] [Subtract(] Convert(integers) [, zero)] [, scale)]    as they are stored
        FakeQuantize(reals, limits of each channel)                       as they are in memory
    """
    value = node.inputs[1]
    if value.shape is None or (node.op.name == "MatMul" and len(value.shape) != 2):
        return None
    found = _steps(value)
    if found is None or not found[0].size:
        return None
    steps, scale = found
    kept = _output_axes(node)
    over = tuple(a for a in range(steps.ndim) if a not in kept)
    first = tuple(slice(None) if a in kept else slice(1) for a in range(steps.ndim))
    if scale.size > 1:
        full = np.broadcast_to(scale, steps.shape)
        scale = full[first]
        if np.any(full != scale):
            return None  # differs within a channel
    ends = (steps.min(axis=over, keepdims=True), steps.max(axis=over, keepdims=True))
    low, high = (end.astype(np.float64) for end in ends)
    if np.any(high - low > 255):
        return None
    scale = scale.reshape(-1).astype(np.float64)
    if low.min() >= -128 and high.max() <= 127:
        return Weights(steps.astype(np.int8, copy=False), scale)
    offset = low + 128
    return Weights((steps - offset).astype(np.int8), scale, offset.astype(np.int64))


def _steps(value: Value) -> tuple[np.ndarray, np.ndarray] | None:
    """Whole numbers and the scale that makes `value` of them, as float64; i8 as it is stored."""
    maker = value.node
    if maker.op.name in ("Reshape", "Transpose"):
        found = _steps(maker.inputs[0])
        if found is None or not is_static(value.shape):
            return None
        steps, scale = found
        if scale.size > 1:
            scale = np.broadcast_to(scale, steps.shape)
        if maker.op.name == "Reshape":
            return steps.reshape(value.shape), scale.reshape(value.shape) if scale.size > 1 else scale
        order = maker.inputs[1].constant
        if order is None:
            return None
        axes = [int(a) for a in order] or None
        return steps.transpose(axes), scale.transpose(axes) if scale.size > 1 else scale
    if maker.op.name in ("FakeQuantize", "Multiply"):
        found = _from_fake_quantize(maker) if maker.op.name == "FakeQuantize" else _from_integers(maker)
        if found is None or not is_static(value.shape):
            return None
        steps, scale = found
        if steps.shape != value.shape:  # scales or limits make more of them
            steps = np.ascontiguousarray(np.broadcast_to(steps, value.shape))
        return steps, scale
    whole = _whole(value)
    return None if whole is None else (whole, np.ones(()))


def _from_fake_quantize(maker: Node) -> tuple[np.ndarray, np.ndarray] | None:
    x, low, high, out_low, out_high = map(plain_constant, maker.inputs)
    levels = maker.attrs["levels"]
    if x is None or low is None or high is None or out_low is None or out_high is None or levels > 256:
        return None
    found = _whole_steps(low, high, out_low, out_high, levels)
    if found is None:
        return None
    # FakeQuantize itself counts the steps: ties between two of them are rounded as in its own type
    dtype = np.dtype(np.float64 if maker.output.dtype == "f64" else np.float32)
    ends = np.zeros((), dtype), np.full((), levels - 1, dtype)
    (counted,) = maker.op.evaluate([*(a.astype(dtype) for a in (x, low, high)), *ends], maker.attrs)
    scale, zero = found
    return np.rint(counted).astype(np.float64) - zero, scale


def _whole_steps(
    low: np.ndarray, high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and zero point of what a FakeQuantize gives; None where there are none."""
    if not (np.all(high > low) and np.all(out_high > out_low)):
        return None
    scale = (out_high - out_low) / (levels - 1)
    zero = -out_low / scale
    whole = np.rint(zero)
    return None if np.any(np.abs(zero - whole) > NEARLY) else (scale, whole)


def _from_integers(maker: Node) -> tuple[np.ndarray, np.ndarray] | None:
    for real, factor in (maker.inputs, maker.inputs[::-1]):
        whole, scale = _whole(real), plain_constant(factor)
        if whole is not None and scale is not None:
            return whole, scale
    return None


def _whole(value: Value) -> np.ndarray | None:
    """The numbers of Convert(integers) or Subtract(Convert(integers), zero), where they are whole."""
    found = stored_integers(value)
    if found is None:
        return None
    dtype, zero = found[1:]
    if dtype not in INTEGERS:
        return None
    integers = np.asarray(found[0])
    if zero is None:  # bytes stay in the model's file, of which packed weights are made again
        return integers if dtype == "i8" else integers.astype(np.float64)
    return integers.astype(np.float64) - zero if np.all(zero == np.rint(zero)) else None
