"""Helpers that the readers of formats share: short calls that make nodes, and constant folding.

A `Draft` names the nodes of one model that is being read and folds constants. A `Builder` makes nodes for one
operator of the format; its `reader` is such a draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from ovjit.api.model.node import Node, Output
from ovjit.api.tensors.memory import encode_strings
from ovjit.build import make_constant, make_node
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES, from_numpy, numpy_dtype
from ovjit.graph.graph import walk
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Dim, Interval, bounds, is_static

#: What is folded while reading: a constant may have at most this many bytes.
FOLD_BUDGET = 64 << 20
#: The largest constant that a rule makes, in elements.
MOST_ELEMENTS = 1 << 24
_INT_MAX = (1 << 63) - 1


class Unknown(UnsupportedError):
    """A rank or an element type that is not known yet."""


class Draft:
    """A model that is being read: counts names of nodes, and caches the values of constant outputs."""

    def __init__(self) -> None:
        self.name_counts: dict[str, int] = {}
        self._values: dict[tuple[Node, int], np.ndarray] = {}
        self._open: set[Node] = set()  # nodes whose values do not follow from constants

    def value_of(self, output: Output) -> np.ndarray | None:
        """The value of an output that is computed from constants, without large intermediate results; None
        for others."""
        value = output._tensor._type.value
        if value is not None or output._node in self._open:
            return value
        if (output._node, output._index) not in self._values:
            for node in walk([output._node], self._foldable_inputs):
                self._fold(node)
        return self._values.get((output._node, output._index))

    def _foldable_inputs(self, node: Node) -> list[Node]:
        if node in self._open or (node, 0) in self._values:
            return []
        return [s._node for s in node._inputs if s._tensor._type.value is None]

    def _fold(self, node: Node) -> None:
        if node in self._open or (node, 0) in self._values:
            return
        values = []
        for source in node._inputs:
            value = source._tensor._type.value
            values.append(self._values.get((source._node, source._index)) if value is None else value)
        if not node._op.may_fold or not node._inputs or any(v is None for v in values) or not _small(node):
            self._open.add(node)
            return
        results = node._op.evaluate(values, node._attrs)  # type: ignore[arg-type]
        for i, result in enumerate(results):
            self._values[node, i] = result

    def name(self, base: str, op: str) -> str:
        """A name for a further node of a rule: the main one has the operator's own name."""
        name = f"{base}/{op}" if base else op
        count = self.name_counts.get(name, 0)
        while (result := f"{name}_{count}" if count else name) in self.name_counts:
            count += 1
        self.name_counts[name] = count + 1
        return result


class Builder:
    """Creates nodes of a Model: calling it creates one."""

    reader: Draft
    #: What names of nodes begin with.
    base: str

    # -- what is known of values -----------------------------------------------------------------------------

    def type(self, value: Output) -> TensorType:
        return value._tensor._type

    def dtype(self, value: Output) -> str:
        return value._tensor._type.dtype

    def shape(self, value: Output) -> tuple[Dim, ...] | None:
        return value._tensor._type.shape

    def rank(self, value: Output, what: str = "the input's rank") -> int:
        """The number of dimensions. Raises UnsupportedError where it is not known."""
        shape = value._tensor._type.shape
        if shape is None:
            raise Unknown(f"{what} is unknown")
        return len(shape)

    def static_shape(self, value: Output, what: str = "the input's shape") -> tuple[int, ...]:
        """The shape. Raises UnsupportedError where a dimension is dynamic."""
        shape = value._tensor._type.shape
        if not is_static(shape):
            raise UnsupportedError(f"{what} is not known when the model is read")
        return shape

    def last_dim(self, value: Output) -> int:
        """The last dimension. Raises UnsupportedError if it is dynamic."""
        shape = value._tensor._type.shape
        if not shape or not isinstance(shape[-1], int):
            raise UnsupportedError("the last dimension of an input is dynamic")
        return shape[-1]

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """The nonnegative axis of `axis`."""
        if not -rank <= axis < rank:
            raise ModelError(f"{what} {axis} is out of range for rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Iterable[int], rank: int) -> list[int]:
        """The nonnegative axes of `axes`, each once."""
        out = [self.axis(int(a), rank) for a in axes]
        if len(set(out)) != len(out):
            raise ModelError(f"the axes {out} contain a dimension twice")
        return out

    def is_real(self, value: Output) -> bool:
        return ELEMENT_TYPES[self.dtype(value)].is_real

    def value(self, value: Output | None) -> np.ndarray | None:
        """The value of a tensor that is computed from constants; None for others."""
        return None if value is None else self.reader.value_of(value)

    # -- nodes of the Model ----------------------------------------------------------------------------------

    def __call__(self, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> Output:
        """The first output of a new node. Inputs that are numbers, lists or arrays become constants: ints in
        i64, floats in f32. See `like` for another type."""
        return self.all(op, *inputs, opset=opset, **attrs)[0]

    def all(self, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> list[Output]:
        """All outputs of a new node."""
        return self.named(self.reader.name(self.base, op), op, *inputs, opset=opset, **attrs)

    def named(self, name: str, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> list[Output]:
        """All outputs of a new node of this name."""
        sources = [value if isinstance(value, Output) else self.const(value) for value in inputs]
        return make_node(op, sources, attrs, name, opset).outputs()

    def chain(self, op: str, values: Iterable[Output]) -> Output:
        """Combine values by a binary operation, from the first on."""
        return reduce(partial(self, op), values)

    def const(self, value: Any, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Output:
        """A constant. `dtype` is OpenVINO's name; without, ints are i64 and floats f32."""
        array = np.asarray(value)
        if array.dtype == object:
            array = encode_strings(array)
        elif dtype == "string" and array.dtype.kind not in "SU":
            raise ModelError(f"{array.tolist()!r:.40} is not a string, but the tensor has the type string")
        if dtype is None:
            if array.size == 0 and array.dtype == np.float64:
                array = array.astype(np.int64)
            elif not isinstance(value, np.ndarray) and array.dtype.kind == "f":
                array = array.astype(np.float32)
            dtype = from_numpy(array.dtype)
        elif array.dtype != numpy_dtype(dtype):
            target = numpy_dtype(dtype)
            if target.kind == "V" and array.dtype.kind not in "fV":
                array = array.astype(np.float32 if ELEMENT_TYPES[dtype].is_real else np.int32)
            with np.errstate(all="ignore"):
                array = array.astype(target)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array).reshape(array.shape)
        return make_constant(array, dtype, shape, self.reader.name(self.base, "Constant"))

    def fold(self, value: Output) -> Output:
        """Replace a value that is computed from constants by one constant."""
        constant = self.value(value)
        return value if constant is None else self.const(constant, self.dtype(value))

    def upcast(self, value: Output) -> Output:
        """Convert f16 and bf16 to f32, in which frameworks compute."""
        return self.convert(value, "f32") if self.dtype(value) in ("f16", "bf16") else value

    def like(self, other: Output, value: Any) -> Output:
        """A constant of the element type of another tensor."""
        return self.const(value, self.dtype(other))

    def blank(self, other: Output) -> Output:
        """Fill value of gaps and padding in the type of `other`: 0, or the empty text."""
        return self.like(other, b"" if self.dtype(other) == "string" else 0)

    def convert(self, value: Output, dtype: str) -> Output:
        """A value in another element type; itself if it has that type already."""
        if self.dtype(value) == dtype:
            return value
        return self("Convert", value, destination_type=dtype)

    def same(self, value: Output) -> Output:
        """The value as the output of a new node, in any element type. Identity of OpenVINO has no strings and
        no integers of fewer than 8 bits."""
        if self.dtype(value) in ("string", "i4", "u4", "u2"):
            return self.reshape(value, self.shape_of(value))
        return self("Identity", value)

    def reshape(self, value: Output, pattern: Any) -> Output:
        """Reshape a tensor. A 0 in the pattern is a dimension of 0, never a copied one."""
        return self("Reshape", value, pattern, special_zero=False)

    def scalar(self, value: Output) -> Output:
        """A tensor of one element as a scalar."""
        return value if self.shape(value) == () else self.reshape(value, np.zeros(0, np.int64))

    def along(self, value: Output, axis: int, rank: int) -> Output:
        """Reshape a vector to this rank, with dimensions of 1 except `axis`."""
        return self.reshape(value, [-1 if i == axis else 1 for i in range(rank)])

    def per_channel(self, value: Output, rank: int) -> Output:
        """Reshape a vector with a number per channel to [1, channels, 1, ...]."""
        return self.along(value, 1, rank)

    def transpose(self, value: Output, order: Sequence[int]) -> Output:
        if list(order) == list(range(len(order))):
            return value
        return self("Transpose", value, list(order))

    def swap_rows_and_columns(self, value: Output) -> Output:
        """Transpose the last two dimensions."""
        *others, rows, columns = range(self.rank(value))
        return self.transpose(value, [*others, columns, rows])

    def channels_first(self, value: Output) -> Output:
        """[batch, ..., channels] -> [batch, channels, ...]"""
        rank = self.rank(value)
        return self.transpose(value, [0, rank - 1, *range(1, rank - 1)])

    def channels_last(self, value: Output) -> Output:
        """[batch, channels, ...] -> [batch, ..., channels]"""
        return self.transpose(value, [0, *range(2, self.rank(value)), 1])

    def squeeze(self, value: Output, axes: Sequence[int]) -> Output:
        return self("Squeeze", value, list(axes), opset=1) if axes else value

    def unsqueeze(self, value: Output, axes: Sequence[int]) -> Output:
        return self("Unsqueeze", value, list(axes)) if axes else value

    def slice(self, value: Output, axis: int, start: int, stop: int | None = None, step: int = 1) -> Output:
        """value[..., start:stop:step, ...] along one axis."""
        if stop is None:
            stop = _INT_MAX if step > 0 else -_INT_MAX
        return self("Slice", value, [start], [stop], [step], [axis])

    def backwards(self, value: Output, axis: int) -> Output:
        """Reverse the elements along an axis."""
        return self.slice(value, axis, -1, None, -1)

    def concat(self, values: Sequence[Output], axis: int) -> Output:
        return values[0] if len(values) == 1 else self("Concat", *values, axis=axis)

    def split(self, value: Output, axis: int, lengths: Sequence[int]) -> list[Output]:
        return self.all("VariadicSplit", value, axis, list(lengths))

    def top_k(
        self, value: Output, count: Any, axis: int, mode: str = "max", index: str = "i64"
    ) -> list[Output]:
        """(the largest elements along an axis in order, with mode "min" the smallest; their indices). Among
        equal ones the lower index comes first."""
        how: dict[str, Any] = {"mode": mode, "sort": "value", "index_element_type": index, "stable": True}
        return self.all("TopK", value, count, axis=axis, **how, opset=11)

    def extreme_index(self, value: Output, axis: int, mode: str, index: str = "i64") -> Output:
        """The index of the largest, or with mode "min" the smallest, element along an axis, which stays with
        one element. Of equal ones the first; NaN comes before all others, as in NumPy."""
        if mode == "min" and self.is_real(value):  # TopK has NaN above all numbers
            value, mode = self("Negative", value), "max"
        return self.top_k(value, 1, axis, mode, index)[1]

    def standardize(self, value: Output, axes: Sequence[int], epsilon: float) -> Output:
        """(value - mean) / sqrt(variance + epsilon) over the axes."""
        how = {"normalize_variance": True, "eps_mode": "inside_sqrt"}
        return self("MVN", value, list(axes), eps=epsilon, **how, opset=6)

    def shape_of(self, value: Output) -> Output:
        """The shape as i64; a constant if it is static."""
        shape = self.shape(value)
        if is_static(shape):
            return self.const(np.array(shape, np.int64))
        return self("ShapeOf", value, output_type="i64")

    def dim_of(self, value: Output, axis: int) -> Output:
        """A dimension as an i64 tensor [1]."""
        shape = self.shape(value)
        if shape is not None and not isinstance(shape[axis], Interval):
            return self.const(np.array([shape[axis]], np.int64))
        return self("Gather", self.shape_of(value), [axis], 0)

    def upto(self, end: Output) -> Output:
        """0, 1, ..., end - 1 as i64, for a tensor of one element."""
        return self("Range", 0, self.scalar(end), 1, output_type="i64")

    def group_filters(self, filters: Output, groups: Any) -> Output:
        """Reshape filters [groups * first, ...] to [groups, first, ...]."""
        first, *tail = self.shape(filters) or ()
        if groups < 1 or (isinstance(first, int) and first % groups):
            raise ModelError(f"{first} filters are not divisible by {groups} groups")
        if is_static((first, *tail)):
            return self.reshape(filters, [groups, first // groups, *tail])
        each = self("Divide", self.dim_of(filters, 0), groups)
        others = [self.dim_of(filters, 1 + i) for i in range(len(tail))]
        return self.reshape(filters, self("Concat", [groups], each, *others, axis=0))

    def broadcast(self, value: Any, shape: Any) -> Output:
        """Broadcast a tensor, or a number, to a shape."""
        return self("Broadcast", value, shape, mode="numpy")

    def any_of(self, truth: Output) -> Output:
        """Whether any element is true; `truth` itself if it is a scalar."""
        axes = list(range(self.rank(truth)))
        return self("ReduceLogicalOr", truth, axes, keep_dims=False) if axes else truth

    def check_count(self, count: int, what: str, most: int = MOST_ELEMENTS) -> int:
        """Return a number of elements or nodes that is created while reading. Raises UnsupportedError beyond
        `most`."""
        if not 0 <= count <= most:
            raise UnsupportedError(f"{what}: {count} exceeds the maximum of {most}")
        return int(count)


def value_range(kind: str) -> tuple[float, float]:
    """The smallest and the largest number of an element type: infinities for floats."""
    row = ELEMENT_TYPES[kind]
    if row.is_real:
        return -np.inf, np.inf
    if row.kind == "i":
        return -(1 << (row.bits - 1)), (1 << (row.bits - 1)) - 1
    return 0, 1 if row.kind == "b" else (1 << row.bits) - 1


def _small(node: Node) -> bool:
    """Whether a node's results are small enough to be folded while reading."""
    total = 0
    for tensor in node._tensors:
        kind: TensorType = tensor._type
        if kind.shape is None or ELEMENT_TYPES[kind.dtype].numpy is None:
            return False
        size = max(ELEMENT_TYPES[kind.dtype].bits, 8) // 8
        for d in kind.shape:
            high = bounds(d)[1]
            if high is None:
                return False
            size *= high
        total += size
    return total <= FOLD_BUDGET


class NodeBuilder(Builder):
    """A Builder for one node of a file. Indexing gives its inputs."""

    def __getitem__(self, index: int) -> Output:
        raise NotImplementedError

    def static(self, index: int, what: str) -> np.ndarray:
        """The value of an input that must be computed from constants. Raises UnsupportedError otherwise."""
        value = self.value(self[index])
        if value is None:
            raise UnsupportedError(
                f"{what} should be constant: its value is not known when the model is read"
            )
        return value

    def known_ints(self, index: int, what: str) -> list[int]:
        return [int(v) for v in self.static(index, what).reshape(-1)]
