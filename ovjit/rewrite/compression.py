"""Keeps compressed weights packed: products with them become CompressedMatMul.

In: a graph whose products may have right-hand sides such as

    [Convert] [Reshape] Multiply([Subtract(] Convert(integers), zero)], scale)

The elements are integers or floats of 8 or 4 bits, with scales by row, by column or by groups along the
depth. Other forms are Convert(x: f16), and a codebook: Gather(numbers, integers) instead of
Convert(integers), with or without a scale. Out: CompressedMatMul instead of these products. Small weights are
left to constant folding, which costs little memory and no run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import (
    GROUP_STEP,
    SUPER,
    distinct,
    how_stored,
    quantizes_blocks,
    quantizes_levels,
    quantizes_rows,
    unit_format,
)
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.converted import Arranged, Codes, Converted, Factored, InBlocks, Unmade, Unpacked, is_worth
from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES, ROUNDED, cast, from_numpy, numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import is_static
from ovjit.graph.stored_floats import FLOAT_BITS, bits_of, codebook, integer_levels, levels_of
from ovjit.records import NamedTuple
from ovjit.rewrite.conversions import converts, skip_convert
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

#: Minimum elements of weights that stay packed.
SMALLEST = 1 << 16
#: The same if rows are quantized: products of bytes are faster than those of f32 with weights of this size.
SMALLEST_OF_BYTES = 1 << 13
#: The same for f16, which is unpacked in each call. With fewer elements, f32 stays in the caches and is
#: faster.
SMALLEST_F16 = 1 << 20
#: Elements of f16 along the depth that form a group.
F16_GROUP = 1024
INTEGERS = frozenset("i8 u8 i4 u4 u2".split())
#: Maximum matrices of a stack that become separate products.
STACKED = 256
#: The outputs of each matrix in a table are a multiple of this, so that panels do not span matrices.
WIDEST = 32
_STORED = INTEGERS | set(FLOAT_BITS) - {"f16"}
#: Scales or zeros, in f64, or of a file's blocks.
Factor = np.ndarray | InBlocks


class Stored(NamedTuple):
    """Compressed weights. `integers` [K, N]: bytes (0 to 15 if `bits` is 4), or the bits of floats. `scale`
    and `zero`: [groups, N]. `group`: elements along K. `dtype`: the storage type. `shifted`: a zero is
    subtracted. `in_blocks`: they are those of a file's blocks."""

    integers: Arranged
    scale: np.ndarray | Converted | Factored
    zero: np.ndarray | Factored | None
    bits: int
    group: int
    dtype: str
    shifted: bool
    in_blocks: bool = False

    @property
    def kind(self) -> str:
        """The type of floats; "" for integers."""
        return self.dtype if bits_of(self.dtype) else ""

    def product(self, w: Writer, x: Value, *indices: Value, **attrs: Any) -> Value:
        """The node `x` @ weights."""
        zeros = () if self.zero is None else (w.b.constant(self.zero),)
        attrs |= {"bits": self.bits, "group": self.group, "kind": self.kind}
        parts = w.b.constant(self.integers), w.b.constant(self.scale)
        return w("CompressedMatMul", x, *parts, *zeros, *indices, **attrs)

    @property
    def is_plain(self) -> bool:
        """Whether groups have one scale each, and no minima."""
        return not isinstance(self.scale, Factored) and not isinstance(self.zero, Factored)

    def suits_gpu(self) -> bool:
        """Whether GPUs have a product with these weights: integers of 8 or 4 bits, whose groups are units
        of eight along the depth, or 2, 4, 8 ... units. Others become 16 bits at compilation."""
        depth, units = self.integers.shape[0], self.group // 8
        grouped = self.group >= depth or (self.group % 8 == 0 and units & (units - 1) == 0)
        return not self.kind and self.bits in (4, 8) and depth % 8 == 0 and grouped

    def _adds(self) -> bool:
        """Whether weights have no zeros, a common integer zero, or minima that are added."""
        if self.zero is None or isinstance(self.zero, Factored):
            return True
        zeros = distinct(self.zero)
        return bool(zeros.size and (zeros == np.clip(np.rint(zeros.flat[0]), 0, 127)).all())

    @property
    def _is_nested(self) -> bool:
        """Whether scales, and minima if there are some, are integers times a common factor."""
        both = [f for f in (self.scale, self.zero) if isinstance(f, Factored)]
        return isinstance(self.scale, Factored) and all(f.is_nested for f in both)

    def _dynamic_in_blocks(self, size: int, target: Target) -> int:
        """`dynamic` for weights in a file's blocks. Groups of weights may be smaller than `size`; rows then
        have these. llama.cpp rounds rows on every CPU, so these are also rounded on CPUs without dot products
        of bytes. There, rows have groups of SUPER if the weights' scales are multiplied as integers."""
        depth, least = self.integers.shape[0], min(size, self.group)
        even = least > 0 and least % GROUP_STEP == 0 == self.group % least and depth % self.group == 0
        if not (even and quantizes_blocks(target, self.bits) and self._adds()):
            return 0
        by_pairs = size >= self.group and depth % SUPER == 0 and not quantizes_rows(target)
        return SUPER if by_pairs and self._is_nested else least

    def _dynamic_of_levels(self, size: int, precision: str, target: Target) -> int:
        """`dynamic` for codes of a file's blocks whose levels are bytes; 0 for other floats."""
        depth, least = self.integers.shape[0], min(size, self.group)
        fits = least > 0 and least % GROUP_STEP == 0 == self.group % least and depth % self.group == 0
        fits = self.in_blocks and fits and integer_levels(self.dtype) is not None
        return least if fits and quantizes_levels(target) and not _on_unit(precision, depth, target) else 0

    def dynamic(self, size: int, precision: str, target: Target) -> int:
        """The group size with which rows of x are quantized before the product, or 0 for no quantization.

        As in OpenVINO it is `size` if groups of rows lie within groups of weights, and signed integers have
        no zero. It is 0 if a matrix unit multiplies the rows as bf16. Weights in a file's blocks, which
        OpenVINO does not have, may have other groups."""
        depth = self.integers.shape[0]
        if self.kind:
            return self._dynamic_of_levels(size, precision, target)
        if self.in_blocks and not (self.bits in (4, 8) and self.is_plain and quantizes_rows(target)):
            return self._dynamic_in_blocks(size, target)
        if _on_unit(precision, depth, target):
            return 0
        within = self.group >= depth or self.group % size == 0 == depth % size if size > 0 else False
        plain = self.dtype in ("u8", "u4") or (self.dtype in INTEGERS and not self.shifted)
        if not (within and size % GROUP_STEP == 0 and plain and quantizes_rows(target)):
            return 0
        assert not isinstance(self.zero, Factored)  # that is in blocks
        try:
            how_stored(self.integers, self.scale, self.zero, self.bits, target)
        except ValueError:
            return 0
        return size


def _on_unit(precision: str, depth: int, target: Target) -> bool:
    """Whether a matrix unit multiplies rows of this type and depth by weights that chunks unpack. Prompts
    then take half the time of rows that are quantized to bytes."""
    form = unit_format(precision, target)
    return form is not None and form.words(depth) % form.step == 0


@rule(op.MatMul(value("x"), value("weights")))
def compress(w: Writer, node: Node, x: Value) -> Value | None:
    """MatMul(x, (Convert(integers) - zero) * scale) -> CompressedMatMul(x, integers, scale, zero)"""
    if node.output.dtype != "f32" or x.constant is not None or 0 in (node.inputs[1].shape or ()):
        return None
    if w.b.context.target.is_gpu:
        return _compress(w, node)
    return _gather_product(w, node) or _stack_products(w, node) or _compress(w, node)


def _compress(w: Writer, node: Node) -> Value | None:
    """MatMul(x, stored [K, N])  ->  CompressedMatMul"""
    target, options = w.b.context
    stored = stored_weights(node.inputs[1], bool(node.attrs["transpose_b"]), options.precision)
    if stored is None or node.inputs[0].shape is None:
        return None
    transposed = node.attrs["transpose_a"]
    if target.is_gpu and (transposed or not stored.suits_gpu()):
        return None
    dynamic = 0 if transposed else stored.dynamic(options.dynamic, options.precision, target)
    of_bytes = dynamic and not stored.in_blocks
    least = SMALLEST_F16 if stored.kind == "f16" else SMALLEST_OF_BYTES if of_bytes else SMALLEST
    if stored.integers.size < least:
        return None
    return stored.product(w, node.inputs[0], transpose_a=transposed, dynamic=dynamic)


#: The selection of matrices from a table along its first axis.
_GATHERED = op.Gather(...)
_TAKEN = op.Gather(value("table"), value("indices"), constant("axis"), batch_dims=lambda n: not n)


def _gather_product(w: Writer, node: Node) -> Value | None:
    """The gathered (MoE) product of rows x [M, K] with matrices `indices` [M] of a table [E, N, K]:

    MatMul(x [M, 1, K], Gather(table, indices), transpose_b)   -> Unsqueeze(CompressedMatMul(...))
    MatMul(Gather(table, indices), x [M, K, 1])                -> Unsqueeze(CompressedMatMul(...))
    """
    transposed = bool(node.attrs["transpose_a"]), bool(node.attrs["transpose_b"])
    for side, one in ((1, -2), (0, -1)):
        x, gathered = node.inputs[1 - side], _TAKEN.first(node.inputs[side])
        if transposed != (False, bool(side)) or gathered is None:
            continue
        table, indices = gathered["table"], gathered["indices"]
        first = int(gathered["axis"].constant.reshape(-1)[0]) in (0, -3)
        if len(table.shape) != 3 or not first or len(indices.shape or ()) != 1 or len(x.shape or ()) != 3:
            continue
        kinds, outs, depth = table.shape
        if x.shape[one] != 1 or outs % WIDEST or _GATHERED.matches(table):
            continue
        stored = _table(table, (kinds * outs, depth))
        if stored is None or stored.integers.size < SMALLEST:
            continue
        zero = np.zeros(stored.scale.shape, np.float32) if stored.zero is None else stored.zero
        indices = indices if indices.dtype == "i64" else w("Convert", indices, destination_type="i64")
        result = stored._replace(zero=zero).product(w, w("Squeeze", x, [one]), indices, kinds=kinds)
        return w("Unsqueeze", result, [one])
    return None


def _stack_products(w: Writer, node: Node) -> Value | None:
    """MatMul(x [E, M, K], stored [E, K, N])  ->  Concat of E CompressedMatMul, such as experts. Their rows
    are not quantized, as in OpenVINO."""
    x, weights = node.inputs
    stack, transposed = before_transposes(weights, bool(node.attrs["transpose_b"]))
    matrices = stack.shape
    if not is_static(matrices) or len(matrices) != 3 or x.shape is None or len(x.shape) != 3:
        return None
    kinds, integers = matrices[0], next(scaled_integers(stack), None)
    fits = x.shape[0] in (1, kinds) and 1 < kinds <= STACKED and np.prod(matrices) >= SMALLEST
    if integers is None or not fits or integers[0].shape[:1] != (kinds,) or node.attrs["transpose_a"]:
        return None
    array, dtype, zero, scale = np.asarray(integers[0]), *integers[1:]
    parts = []
    for e in range(kinds):
        factors = [None if v is None else np.asarray(v) for v in (zero, scale)]
        of = [None if v is None else v[e % len(v)] if v.ndim == array.ndim else v for v in factors]
        stored = _arrange(array[e], dtype, of[0], of[1], matrices[1:], transposed)  # type: ignore[arg-type]
        if stored is None:
            return None
        parts.append(stored)
    one = x.shape[0] == 1
    rows = [x] * kinds if one else w.outputs("Split", x, np.array(0), num_splits=kinds)
    return w("Concat", *(part.product(w, x) for part, x in zip(parts, rows, strict=True)), axis=0)


def fits_rows(table: Value) -> bool:
    """Whether a gathered product can multiply the matrices of this table [E, N, K] in their stored form."""
    kinds, outs, depth = table.shape
    return not outs % WIDEST and _table(table, (kinds * outs, depth)) is not None


def _table(table: Value, flat: tuple[int, int]) -> Stored | None:
    """A table of matrices of integers as one matrix of all their rows; None for other tables."""
    for array, dtype, zero, scale in scaled_integers(table):
        if isinstance(array, InBlocks) or isinstance(scale, InBlocks):
            array, zero, scale = (_rows_of(v, flat[0]) for v in (array, zero, scale))
            return _in_blocks(array, zero, scale, dtype, flat)
        assert not isinstance(zero, InBlocks)
        each = (*array.shape[:-1], 1)  # of a row, or of its groups
        shapes = [v.shape for v in (zero, scale) if v is not None]
        fits = all(s[-1:] in ((), (1,)) and len(s) <= len(each) for s in shapes)
        if (dtype in INTEGERS or bits_of(dtype)) and array.ndim in (3, 4) and fits:
            one = (flat[0], *array.shape[2:-1], 1)
            zeros = None if zero is None else np.broadcast_to(zero, each).reshape(one)
            scales = np.broadcast_to(scale, each).reshape(one)
            rows = _as_shape(array, (flat[0], *array.shape[2:]))
            return _arrange(rows, dtype, zeros, scales, flat, True)
    return None


def stored_weights(value: Value, transposed: bool, precision: str) -> Stored | None:
    """The stored form of a product's right-hand side. The depth is its second last axis, or its last one if
    `transposed`. None if the weights are not compressed."""
    value, transposed = before_transposes(value, transposed)
    if value.shape is None or len(value.shape) != 2 or not all(isinstance(d, int) for d in value.shape):
        return None
    final = tuple(value.shape)
    if 0 in final:
        return None  # a product of depth 0 is 0
    node = value.node
    if converts(node, of=("f16",)):
        return _store_f16(node.inputs[0].constant, transposed, precision)
    integers = next(scaled_integers(value), None)
    if integers is None:
        return None
    array, dtype, zero, scale = integers
    if isinstance(array, InBlocks) or isinstance(scale, InBlocks):
        return _in_blocks(array, zero, scale, dtype, final) if transposed else None
    assert not isinstance(zero, InBlocks)
    return _arrange(array, dtype, zero, scale, final, transposed)


def before_transposes(value: Value, transposed: bool) -> tuple[Value, bool]:
    """The source of Transposes of the last two axes, and whether it is transposed, compared with
    `transposed`."""
    while (moved := _TRANSPOSE.first(value)) is not None and len(value.shape or ()) in (2, 3):
        order, rank = moved["order"].constant, len(value.shape)
        swapped = [*range(rank - 2), rank - 1, rank - 2]
        if ([int(axis) % rank for axis in order] or [*range(rank)][::-1]) != swapped:
            break
        value, transposed = moved["x"], not transposed
    return value, transposed


def scaled_integers(
    value: Value, rounded: bool = False
) -> Iterator[tuple[np.ndarray | Unmade, str, Factor | None, Factor]]:
    """(integers, their type, zero, scale) of [Convert] [Reshape] Multiply(`stored_integers`, scale), for each
    factor that may be the scale."""
    while (step := _RESHAPED_REALS.first(value)) is not None and step["x"].node.op.role != "constant":
        value = step["x"]
    book = _read_codebook(value)
    if book is not None:
        yield *book, np.ones(())
    for product in _SCALED.every(value):
        scale = _factor(product["factor"])
        integers = None if scale is None else stored_integers(product["real"], rounded)
        if scale is not None and integers is not None:
            yield *integers, scale


def _store_f16(array: np.ndarray | None, transposed: bool, precision: str) -> Stored | None:
    """A matrix of f16, with scales of 1. None if products are in bf16, whose weights are as small."""
    if array is None or precision != "f32":
        return None
    depth, outs = array.shape[::-1] if transposed else array.shape
    bits = Arranged(
        array, (depth, outs), np.dtype(np.uint16),
        lambda of: np.ascontiguousarray(of.T if transposed else of).view(np.uint16), transposed, transposed,
    )  # fmt: skip
    scale = np.ones((-(-depth // F16_GROUP), outs), np.float32)
    return Stored(bits, scale, None, 16, F16_GROUP, "f16", False)


_RESHAPED = op["Reshape Unsqueeze Squeeze"](value("x"), ...)
_RESHAPED_REALS = op["Convert Reshape"](value("x"), ...)
_TRANSPOSE = op.Transpose(value("x"), constant("order"))
_SCALED = op.Multiply(value("real"), value("factor"))
_SHIFTED = op.Subtract(value("x"), value("zero"))
#: A codebook: numbers that indices select from a table.
_BOOK = op.Gather(value("table"), value("indices"), ..., batch_dims=lambda n: not n)
_REALS = HALVES | {"f32"}


def _factor(value: Value) -> Factor | None:
    """As `exact_constant`, but constants in blocks with two factors are returned unchanged."""
    stored = value.stored_array
    return stored if isinstance(stored, InBlocks) and stored.factors else exact_constant(value)


def plain_constant(value: Value) -> np.ndarray | None:
    """A constant, possibly converted or reshaped, as float64, before conversions rounded it."""
    array = exact_constant(value)
    return None if array is None else cast(array, np.dtype(np.float64))


def exact_constant(value: Value) -> np.ndarray | None:
    """As `plain_constant`, but floats of 16 and 32 bits keep their type, to avoid large copies."""
    if (reshaped := _RESHAPED.first(value)) is not None:
        inner = exact_constant(reshaped["x"])
        return None if inner is None or not is_static(value.shape) else inner.reshape(value.shape)
    value = skip_convert(value)
    if _RESHAPED.matches(value):
        return exact_constant(value)
    stored = value.stored_array
    if isinstance(stored, Converted) and (stored.source.dtype == np.float64 or stored.is_exact):
        return stored.source
    array = value.constant
    if array is None or ELEMENT_TYPES[value.dtype].numpy is None or value.dtype == "string":
        return None
    return array if value.dtype in _REALS else cast(array, np.dtype(np.float64))


def _transposed_constant(value: Value) -> np.ndarray | Unmade | None:
    """A constant, or a transposed one."""
    moved = _TRANSPOSE.first(value)
    if moved is None:
        return value.stored_array
    inner, order = moved["x"].constant, moved["order"].constant
    return None if inner is None else inner.transpose([int(a) for a in order] or None)


def stored_integers(
    value: Value, rounded: bool = False
) -> tuple[np.ndarray | Unmade, str, Factor | None] | None:
    """(integers, their type, zero) of Convert(integers) or Subtract(Convert(integers), zero). Floats of few
    bits and codebooks give their codes. None for other values, and for integers of more than 8 bits.

    `rounded`: levels that are converted to f16 or bf16 first are rounded to it. OpenVINO does that,
    except in products.
    """
    zero, book = None, _read_codebook(value)
    if book is not None:
        return book
    if (shifted := _SHIFTED.first(value)) is not None:
        value, zero = shifted["x"], _factor(shifted["zero"])
        if zero is None:
            return None
    node = value.node
    half = node.inputs[0].node if converts(node) else node
    if converts(half, of=ROUNDED):
        node = half
    if not converts(node, of=_STORED):
        return None
    array, dtype = _transposed_constant(node.inputs[0]), node.inputs[0].dtype
    if array is None or dtype in INTEGERS:
        return None if array is None else (array, dtype, zero)
    levels = levels_of(dtype)
    if zero is None and levels is not None and isinstance(array, Unpacked):  # codes stay where they are
        return Unpacked(array.source, array.shape, "u4"), _level_kind(dtype, levels, node, rounded), None
    array = np.asarray(array)
    if zero is not None or (FLOAT_BITS[dtype] == 8 and not np.isfinite(array.astype(np.float32)).all()):
        return None
    codes = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape)
    return (
        (codes, dtype, None)
        if levels is None
        else (codes & 15, _level_kind(dtype, levels, node, rounded), None)
    )


def _level_kind(dtype: str, levels: np.ndarray, node: Node, rounded: bool) -> str:
    """The kind of the 4-bit codes that `node` converts."""
    if not rounded:
        return dtype
    return codebook(levels.astype(numpy_dtype(node.output.dtype)).astype(np.float32), 4)


def _read_codebook(value: Value) -> tuple[np.ndarray | Unpacked, str, None] | None:
    """(codes, their kind, None) of Gather(a few numbers, constant integers)."""
    book = _BOOK.first(value)
    levels = None if book is None else _levels_in(book["table"])
    if book is None or levels is None:
        return None
    indices = skip_convert(book["indices"])
    if _are_nibbles(indices, levels):
        return indices.stored_array, codebook(levels, 4), None  # type: ignore[return-value]
    array = indices.constant if ELEMENT_TYPES[indices.dtype].kind in "iu" else None
    if array is None or array.size < SMALLEST:
        return None
    if indices.dtype == "u4":
        array = array.astype(np.uint8)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        return None
    bits = 4 if len(levels) <= 16 and high < 16 else 8
    return array.astype(np.uint8, copy=False), codebook(levels, bits), None


def _levels_in(table: Value) -> np.ndarray | None:
    """The levels of a codebook, f32; None for other tables. Padding of panels also selects a level, which is
    multiplied by 0: all must be finite."""
    fits = is_static(table.shape) and len(table.shape) == 1 and table.shape[0] <= 256
    levels = plain_constant(table) if fits and table.dtype in ("f32", "f16", "bf16") else None
    return None if levels is None or not np.isfinite(levels).all() else levels.astype(np.float32)


def _are_nibbles(indices: Value, levels: np.ndarray) -> bool:
    """True for many codes of 16 levels that stay where they are: two in a byte."""
    stored = indices.stored_array
    return (
        isinstance(stored, Unpacked) and indices.dtype == "u4" and stored.size >= SMALLEST
        and len(levels) == 16
    )  # fmt: skip


def _rows_of(value: Any, rows: int) -> Any:
    """The values [..., groups, elements] as [rows, groups, elements]. A single number, and None, are
    unchanged."""
    if value is None or value.size == 1:
        return value
    return _as_shape(value, (rows, *value.shape[-2:]))


def _as_shape(value: Any, shape: tuple[int, ...]) -> Any:
    """The same elements in another shape, where they are."""
    return (
        value.reshape(shape) if isinstance(value, InBlocks | Unpacked) else np.asarray(value).reshape(shape)
    )


def _in_blocks(
    array: Any, zero: Factor | None, scale: Factor, dtype: str, final: tuple[int, ...]
) -> Stored | None:
    """Rows of a file's blocks: array [N, groups, elements], scale and zero [N, groups, 1], or one zero."""
    outs, depth = final
    groups = array.shape[1] if array.ndim == 3 else 0
    if array.size != depth * outs or array.shape[0] != outs:
        return None

    def of_groups(values: Any) -> Any:
        """[groups, N]"""
        if isinstance(values, InBlocks) and values.shape == (outs, groups, 1):
            return Factored(values, (groups, outs))
        values = np.asarray(values)
        values = values.reshape(()) if values.size == 1 else values.reshape(outs, groups, 1)
        each = np.broadcast_to(values, (outs, groups, 1))[..., 0]
        return np.ascontiguousarray(each.T.astype(np.float32))

    def integers(source: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(source.reshape(-1, depth).T.astype(kind, copy=False))

    kind = np.dtype(np.int8 if dtype == "i8" else np.uint8)
    bits = array.bits if isinstance(array, InBlocks) else bits_of(dtype) or (4 if dtype == "u4" else 8)
    arranged = Arranged(array, (depth, outs), kind, integers, bits in (4, 8), True)
    zeros = None if zero is None else of_groups(zero)
    return Stored(arranged, of_groups(scale), zeros, bits, depth // groups, dtype, zero is not None, True)


def _fits_three_bits(array: np.ndarray | Unmade) -> bool:
    """True if 3 bits hold all elements. u2 and u3 are bytes in graphs."""
    if array.dtype != np.uint8:
        return True
    codes = np.asarray(array)
    first = codes.reshape(-1)[:4096]
    return bool(first.size and first.max() < 8 and codes.max() < 8)


def _arrange(
    array: np.ndarray | Unmade,
    dtype: str,
    zero: np.ndarray | None,
    scale: np.ndarray,
    final: tuple[int, ...],
    transposed: bool,
) -> Stored | None:
    """The weights as [K, N], with a scale and zero for each group along K and each column."""
    original, kind = zero, np.dtype(np.int8 if dtype == "i8" else np.uint8)
    if dtype in ("u8", "u2") and _fits_three_bits(array):
        dtype = "u2"
    bits = 4 if dtype in ("i4", "u4", "u2") else bits_of(dtype) or 8
    if dtype == "i4":
        zero = (0.0 if zero is None else zero) + np.full((), 8.0)
    depth, outs = final[::-1] if transposed else final
    if array.size != depth * outs or array.ndim not in (2, 3):
        return None
    along = _axis_of_groups(array, outs, transposed)
    each = _broadcast(scale, array.shape, along)
    zeros = None if zero is None else _broadcast(zero, array.shape, along)
    if along is None or each is None or (zeros is None and zero is not None):
        return None

    def integers(source: np.ndarray) -> np.ndarray:
        """[K, N]; for some rows of the source, the corresponding columns"""
        codes = source.astype(np.int8) + np.int8(8) if dtype == "i4" else source
        matrix = codes.reshape(-1, depth).T if transposed else codes.reshape(depth, outs)
        return np.ascontiguousarray(matrix.astype(kind, copy=False))

    def of_groups(values: np.ndarray) -> np.ndarray | Converted:
        """[groups, N] of values that are constant within a group."""
        return _of_groups(values[(slice(None),) * along + (0,)], outs, transposed)

    as_they_are = transposed and array.dtype == kind
    return Stored(
        Arranged(array, (depth, outs), kind, integers, as_they_are, transposed and array.shape[0] == outs),
        of_groups(each),
        None if zeros is None else np.asarray(of_groups(zeros)),
        bits,
        array.shape[along],
        dtype,
        original is not None,
        isinstance(array, Codes),
    )


def _axis_of_groups(array: np.ndarray | Unmade, outs: int, transposed: bool) -> int | None:
    """The axis along which elements share a scale; None if a reshape mixes columns or splits groups.

    A matrix may have a row for each group."""
    outs_of_array = array.shape[0] if transposed else array.shape[-1]
    if outs_of_array % outs if transposed and array.ndim == 2 else outs_of_array != outs:
        return None
    return array.ndim - 1 if transposed else 0 if array.ndim == 2 else 1


def _broadcast(values: np.ndarray, shape: tuple[int, ...], along: int | None) -> np.ndarray | None:
    """`values`, broadcast to `shape`; None if that fails, or if they differ within a group."""
    try:
        each = np.broadcast_to(values, shape)
    except ValueError:
        return None
    return None if along is None or (shape[along] > 1 and each.strides[along]) else each


def _of_groups(firsts: np.ndarray, outs: int, transposed: bool) -> np.ndarray | Converted:
    """The first number of each group, as f32 [groups, N]."""
    if not any(firsts.strides):  # one number for all
        one = firsts.reshape(-1)[:1].astype(np.float32)
        return np.broadcast_to(one, (firsts.size // outs, outs))
    matrix = firsts.reshape(outs, -1).T if transposed else firsts.reshape(-1, outs)
    if is_worth(matrix) and from_numpy(matrix.dtype) in HALVES:
        return Converted(matrix, [np.dtype(np.float32)])
    return matrix.astype(np.float32, "C")
