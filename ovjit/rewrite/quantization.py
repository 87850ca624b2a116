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
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_node, rebuild
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static
from ovjit.graph.windows import resolve_pads
from ovjit.rewrite.compression import INTEGERS, plain_constant, stored_integers
from ovjit.rewrite.expand import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: How far from a whole number a zero point may be, in steps.
NEARLY = 1e-2
#: Operations that may read integers in the place of reals: those that give elements on as they are.
MOVES = frozenset(
    "Reshape Squeeze Unsqueeze Transpose Split VariadicSplit Slice StridedSlice ShuffleChannels DepthToSpace "
    "SpaceToDepth".split()
)
#: Types that bytes are computed in where a graph spells sums of integers out.
WIDE = ("f32", "f64", "i32")
#: Operations that give weighted means of elements: of integers they are reals.
MEANS = frozenset(("AvgPool", "ReduceMean"))


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
    return rebuild(graph, _Quantizer(graph).visit)


def _quantizes(node: Node) -> bool:
    """True for what bytes are made reals by, and for what says that reals are steps."""
    if node.op.name == "Convert":
        return node.output.dtype in WIDE and node.inputs[0].dtype in ("u8", "i8")
    return node.op.name == "FakeQuantize"


class _Quantizer:
    """The visitor that remembers which reals are known as integers."""

    def __init__(self, graph: Graph) -> None:
        self.uses = graph.uses()
        self.known: dict[Value, Quantized] = {}
        self.padded: dict[tuple, Value] = {}  # integers with a border, made once for all readers

    def visit(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        name = node.op.name
        if name == "FakeQuantize":
            return self._fake_quantize(b, node, inputs)
        if name in ("Convert", "Subtract", "Multiply"):
            return self._arithmetic(b, node, inputs)
        if not inputs or inputs[0] not in self.known:
            return None
        if name in ("Convolution", "GroupConvolution", "MatMul"):
            return self._product(b, node, self.known[inputs[0]])
        if inputs[0].dtype != "f32" or self.known[inputs[0]].given is not None:
            return None
        if name in MOVES or (name == "MaxPool" and not any(self.uses[v] for v in node.outputs[1:])):
            return self._moved(b, node, inputs)
        if name == "Interpolate" and node.attrs["mode"].lower() == "nearest":
            bordered = any(node.attrs["pads_begin"]) or any(node.attrs["pads_end"])
            return None if bordered else self._moved(b, node, inputs)
        if name == "Pad":
            return self._pad(b, node, inputs)
        if name in MEANS:
            return self._mean(b, node, inputs)
        if name == "Concat":
            return self._concat(b, node, inputs)
        return None

    def _arithmetic(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        """Convert(q), - zero, * scale: the node as it is, and what it is known as"""
        found = self._known_as(b, node, inputs)
        if found is None:
            return None
        out = copy_node(b, node, inputs).output
        self.known[out] = found
        return [out]

    def _known_as(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Quantized | None:
        x = inputs[0]
        if node.output.dtype not in WIDE:
            return None
        if node.op.name == "Convert":
            if x.constant is not None or x.shape is None:
                return None
            if x.dtype == "u8":
                return Quantized(x, np.ones(()), np.zeros((), np.int64))
            if x.dtype == "i8":
                return Quantized(_unsigned(b, node, x), np.ones(()), np.array(128))
            return None
        if node.op.name == "Multiply" and x not in self.known:
            x, inputs = inputs[1], inputs[::-1]
        before, number = self.known.get(x), plain_constant(inputs[1])
        if before is None or x.shape != node.output.shape:
            return None
        if number is None:
            return self._less_a_byte(node, before, inputs[1])
        value = _of_an_axis(number, len(x.shape))
        if value is None:
            return None
        if node.op.name == "Multiply":
            fits = np.all((value > 0) & np.isfinite(value))
            return before._replace(scale=_plain(before.scale * value)) if fits else None
        steps = value / before.scale
        whole = np.rint(steps)
        if not np.all(steps == whole):  # NaN and infinity too
            return None
        return before._replace(zero=_plain(before.zero + whole.astype(np.int64)))

    def _less_a_byte(self, node: Node, before: Quantized, zero: Value) -> Quantized | None:
        """q - Convert(a zero point that is computed), as DynamicQuantizeLinear has it"""
        maker = zero.node
        if node.op.name != "Subtract" or maker.op.name != "Convert" or before.given is not None:
            return None
        byte = maker.inputs[0]
        alone = byte.shape is not None and all(d == 1 for d in byte.shape)
        if byte.dtype != "u8" or not alone or before.zero.any() or before.scale.size > 1 or before.scale != 1:
            return None
        return before._replace(given=byte)

    def _fake_quantize(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        """FakeQuantize(x) -> (Quantize(x) - zero) * scale"""
        x, levels = inputs[0], node.attrs["levels"]
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
        if not (made.uniform or self._by_channel(node)):
            return None
        same = np.array_equal(low, out_low) and np.array_equal(high, out_high)
        if made.uniform and same and self._meets_a_residual(node, x):
            return Writer(b, node).outputs("Clamp", x, min=float(low), max=float(high))
        before = self.known.get(x)
        if before is not None and before.alike(made) and np.array_equal(step, scale) and levels == 256:
            return [x]  # already in these steps
        attrs = {"low": 0, "high": levels - 1, "element_type": "u8"}

        def quantize(x: Value, name: str) -> Value:
            known = self.known.get(x)
            if known is not None and known.alike(made) and np.array_equal(step, scale) and levels == 256:
                return known.integers
            numbers, origins = [1 / step, shift], node.origins
            if x.node.op.name == "Parameter":  # is exact, and f32 would round once more so far from 0
                even = 2 * np.rint(shift / 2)
                near = [_rounded(b, n) for n in (numbers[0], shift - even)]
                x = b.add("MultiplyAdd", [x, *near], name=f"{name}/near", origins=origins).output
                x = b.add("Round", [x], {"mode": "half_to_even"}, origins=origins).output
                numbers = [np.ones(()), even]
            given = [x, *(_rounded(b, n) for n in numbers)]
            return b.add("Quantize", given, attrs, name=name, origins=origins).output

        integers = self._before(b, node, x, quantize) if made.uniform else None
        if integers is None:
            integers = quantize(x, f"{node.name}/Quantize")
        return [self._real(b, node, made._replace(integers=integers))]

    def _meets_a_residual(self, node: Node, x: Value) -> bool:
        """True for FakeQuantize(a convolution of bytes + bias) that one Add reads, with a tensor of its
        shape. No bytes are stored between the two: rounding would lose bits for nothing, and OpenVINO does
        not round there either. The range is kept."""
        users = self.uses[node.output]
        user = users[0][0] if len(users) == 1 else None
        if user is None or user.op.name != "Add":
            return False
        other = next(v for v in user.inputs if v is not node.output)
        return other.constant is None and other.shape == node.output.shape and _sums_of_windows(x)

    def _before(
        self, b: Builder, node: Node, x: Value, quantize: Callable[[Value, str], Value]
    ) -> Value | None:
        """Quantize(Concat(a, b)) -> Concat(Quantize(a), Quantize(b))     and MaxPool: if a quantized
        operation only joins or compares elements and has no other reader, its parts are written as bytes"""
        maker = x.node
        if x in self.known or len(self.uses[node.inputs[0]]) != 1 or x.index:
            return None
        if maker.op.name == "MaxPool" and not any(self.uses[v] for v in node.inputs[0].node.outputs[1:]):
            taken = 1
        elif maker.op.name == "Concat":
            taken = len(maker.inputs)
        else:
            return None
        parts = maker.inputs[:taken]
        if any(v.constant is not None or v.shape is None for v in parts):
            return None
        bytes_ = [quantize(v, f"{node.name}/Quantize{i}") for i, v in enumerate(parts)]
        given = [*bytes_, *maker.inputs[taken:]]
        name = f"{maker.name}/u8"
        return b.add(maker.op, given, maker.attrs, name=name, origins=maker.origins).outputs[0]

    def _by_channel(self, node: Node) -> bool:
        """True if a tensor whose channels have different scales has a reader of integers."""
        readers = {user for user, _ in self.uses[node.output]}
        return any(user is not None and user.op.name == "GroupConvolution" for user in readers)

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

    def _moved(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        quantized = self.known[inputs[0]]
        if not quantized.uniform:
            return None
        made = Writer(b, node).outputs(node.op, quantized.integers, *inputs[1:], **node.attrs)
        return [
            self._real(b, node, quantized._replace(integers=v)) if v.dtype == "u8" else v for v in made
        ]

    def _pad(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        """Pad((q - z) * s, value)  ->  (Pad(q, value / s + z) - z) * s     where that is a byte"""
        data = self.known[inputs[0]]
        if node.attrs["pad_mode"].lower() == "constant" and data.uniform:
            value = inputs[3].constant if len(inputs) > 3 else np.zeros(1)
            if value is None or value.size != 1:
                return None
            step = float(value.reshape(-1)[0] / data.scale + data.zero)
            if not (0 <= step <= 255 and step == np.rint(step)):
                return None
            return self._moved(b, node, (*inputs[:3], b.constant(np.array(step, np.uint8))))
        return self._moved(b, node, inputs[:3])

    def _mean(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        """AvgPool((q - z) * s)  ->  (AvgPool(q) - z) * s     in f32, of bytes; and ReduceMean"""
        data, out, attrs = self.known[inputs[0]], node.output, node.attrs
        shape = data.integers.shape
        if not data.uniform or not is_static(shape) or 0 in shape or len(shape) > 4:
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
        return [self._shifted(b, node, mean.output, data)]

    def _concat(self, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        parts = [self.known.get(v) for v in inputs]
        first = parts[0]
        assert first is not None
        if not first.uniform or not all(p is not None and p.alike(first) for p in parts):
            return None
        integers = [p.integers for p in parts if p is not None]
        made = Writer(b, node)(node.op, *integers, **node.attrs)
        return [self._real(b, node, first._replace(integers=made))]

    def _product(self, b: Builder, node: Node, data: Quantized) -> Replacement:
        """Convolution((q - z) * s, (w + o) * t)
        ->  (Convolution(q, w) + o * Convolution(q, 1) - z * sum of (w + o)) * (s * t)"""
        weights = quantized_weights(node)
        out = node.output
        if weights is None or out.shape is None or out.dtype not in WIDE or _wants_planes(node):
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
            return [real]
        if out.dtype == "i32":
            return None
        scales = _rounded(b, scale.reshape(() if scale.size == 1 else shape), out.dtype)
        return b.add("Multiply", [real, scales], name=name, origins=origins).outputs


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


def _unsigned(b: Builder, node: Node, x: Value) -> Value:
    """i8 -> u8, 128 more: what the dot product of bytes takes."""
    w = Writer(b, node)
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
