"""One operator of a PyTorch graph as the rules see it: builders of nodes, with PyTorch's rules for types.

A rule is given tensors as `Output`s or `Complex`, numbers that are known as Python's, other numbers as
`Number`s, and lists of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ovjit.build import Constant, Output, make_constant
from ovjit.errors import UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import bounds, is_static
from ovjit.readers.torch.dimensions import Dimensions, TorchDraft
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule
from ovjit.readers.torch.values import Complex, Number, element_type, is_complex, torch_types
from ovjit.records import NamedTuple

#: The end of a slice that goes to the end.
LAST = (1 << 63) - 1
#: The largest number of f8e4m3.
MOST_OF_F8 = 448.0
#: What integers become where a function of reals is asked of them.
DEFAULT_REAL = "f32"


class OutputUses(NamedTuple):
    """Uses of an operator's outputs in its graph. A field is None if it is unknown."""

    #: How many outputs of a list the graph takes.
    listed: int | None = None
    #: The indices of the outputs that are read.
    used: frozenset[int] | None = None
    #: The rank of the only output.
    rank: int | None = None
    #: Whether `listed` is the number of an example, and nothing checks that it is right.
    is_examples: bool = False
    #: Whether that example is one of zeros, which nobody has given.
    is_assumed: bool = False
    #: The indices of the items that are read of a list of unknown length. Below 0 they count from its end.
    items: frozenset[int] | None = None
    #: Whether the length of such a list is read.
    is_counted: bool = False

    def number(self) -> int | None:
        """Return the number of outputs of a dynamic list. Raises UnsupportedError for an assumed example."""
        if self.is_assumed:
            raise UnsupportedError("the number of parts depends on a dimension: give an example")
        return self.listed


UNKNOWN_USES = OutputUses()


class Call(Dimensions):
    """An operator that is being read. Calling it makes a node of the Model."""

    def __init__(
        self, reader: TorchDraft, name: str, base: str, overload: str = "", uses: OutputUses = UNKNOWN_USES
    ):
        self.reader = reader
        self.op = name
        self.base = base
        self.overload = overload
        self.uses = uses

    def named(self, name: str, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> list[Output]:
        if any(isinstance(value, Complex) for value in inputs):  # NumPy would make an object of it
            raise UnsupportedError("complex numbers are not supported here")
        result = super().named(name, op, *inputs, opset=opset, **attrs)
        self.reader.name_dimensions(result)
        return result

    def skip_name(self, op: str) -> None:
        """Count a node that OpenVINO creates and folds, so that the numbers in later names agree."""
        self.reader.name(self.base, op)

    def rename(self, output: Output, op: str) -> Output:
        """Rename the node of `output` as OpenVINO does for an operator that it maps to `op`."""
        output.get_node().set_friendly_name(self.reader.name(self.base, op))
        return output

    def shape_of(self, value: Output) -> Output:
        shape = self.shape(value)
        if is_static(shape):
            return self.const(np.array(shape, np.int64))
        return self.reader.shape_of(self, value)

    def also(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Return the result of another PyTorch operator by its own rule. "max.dim" names one overload."""
        full, _, overload = (name if "::" in name else f"aten::{name}").partition(".")
        row = find_rule(full, overload)
        if row is None:  # one of `numerics_contrib`, which may be missing
            raise UnsupportedError(f"it needs the rule of {full}, which this installation is without")
        return row.rule(Call(self.reader, full, self.base, overload), *arguments, **named)

    def is_used(self, index: int) -> bool:
        """Whether output `index` of several is read."""
        return self.uses.used is None or index in self.uses.used

    # -- types -----------------------------------------------------------------------------------------------

    def real(self, value: Any) -> Output:
        """The value as floats: integers become f32."""
        value = self.tensor(value)
        if self.dtype(value) == "dynamic" or self.is_real(value):
            return value
        return self.convert(value, DEFAULT_REAL)

    def cast(self, value: Any, dtype: Any) -> Any:
        """The value in a torch.dtype; unchanged if that is None."""
        if dtype is None:
            return value
        kind = element_type(dtype)
        if is_complex(dtype):
            if isinstance(value, Complex):
                return Complex(self.to_type(value.pair, kind))
            return self.complex_of(self.tensor(value, kind))
        if isinstance(value, Complex):
            value = self.part(value, 0)
        return self.to_type(self.tensor(value), kind)

    def to_type(self, value: Output, kind: str) -> Output:
        """The value in another element type, by PyTorch's rules: nonzero values are true. An unknown type is
        assumed to be the tensor's own."""
        if kind in (self.dtype(value), "dynamic"):
            return value
        if kind == "f8e4m3" and _saturates():
            value = self("Clamp", self.real(value), min=-MOST_OF_F8, max=MOST_OF_F8)
        return self.convert(value, kind)

    def tensor(self, value: Any, kind: str | None = None) -> Output:
        """A tensor or Python number as an Output, of the element type `kind` if given."""
        if isinstance(value, Number):
            value = value.value
        if isinstance(value, Complex):
            raise UnsupportedError("complex numbers are not supported here")
        if isinstance(value, Output):
            return value if kind is None else self.to_type(value, kind)
        if isinstance(value, complex):
            raise UnsupportedError("complex numbers are not supported here")
        if value is None or isinstance(value, str):
            raise UnsupportedError(f"{value!r} is not a tensor")
        if isinstance(value, bool) and kind is None:
            kind = "boolean"
        return self.const(value, kind)

    def same_kind(self, values: Sequence[Any]) -> list[Output]:
        """Tensors and numbers, converted to the type to which PyTorch promotes them.

        Where a tensor's type is not known, numbers take that type and tensors are left as they are.
        """
        open_type = next((v for v in values if isinstance(v, Output) and self.dtype(v) == "dynamic"), None)
        if open_type is not None:
            return [
                v if isinstance(v, Output) else self("ConvertLike", self.tensor(v), open_type) for v in values
            ]
        kind = self.common(values)
        return [self.tensor(value, kind) for value in values]

    def common(self, values: Sequence[Any]) -> str:
        """The element type to which PyTorch promotes the values: tensors with dimensions take precedence over
        scalars."""
        types = torch_types()
        names = {torch_type: name for name, torch_type in types.items()}
        levels: list[Any] = [None, None, None]
        for value in values:
            level, kind = self._weight(value, types)
            current = levels[level]
            levels[level] = kind if current is None else torch.promote_types(current, kind)
        result = levels[0]
        for other in levels[1:]:
            if other is not None and (result is None or _category(other) > _category(result)):
                result = other if result is None else torch.promote_types(result, other)
        return names[result]

    def _weight(self, value: Any, types: dict[str, Any]) -> tuple[int, Any]:
        """(level, PyTorch's type) of a value for `common`. The level is 0 for tensors with dimensions, 1 for
        those without, 2 for Python's numbers."""
        if isinstance(value, Number):
            kind = self.dtype(value.value)
            return 2, torch.float32 if ELEMENT_TYPES[kind].is_real else types[kind]
        if isinstance(value, Output):
            shape = self.shape(value)
            return (0 if shape is None or len(shape) else 1), types[self.dtype(value)]
        if isinstance(value, bool):
            return 2, torch.bool
        return 2, torch.int64 if isinstance(value, int) else torch.float32

    # -- complex numbers -------------------------------------------------------------------------------------

    def complex_of(self, real: Output, imaginary: Output | None = None) -> Complex:
        """A Complex of two tensors of one shape; the imaginary part is 0 if it is None."""
        if imaginary is None:
            imaginary = self.zeros(real)
        last = self.rank(real)
        return Complex(self("Concat", *(self.unsqueeze(v, [last]) for v in (real, imaginary)), axis=last))

    def unwrap(self, value: Any) -> tuple[Output, int, Callable[[Output], Any]]:
        """(the Output of a value, its rank in PyTorch, function that makes a value of the same kind of an
        Output). Complex tensors have a further last dimension."""
        if isinstance(value, Complex):
            return value.pair, self.rank(value.pair) - 1, Complex
        return value, self.rank(value), _identity

    def part(self, value: Complex, index: int) -> Output:
        """The real part (0) or the imaginary part (1) of a complex tensor."""
        return self("Gather", value.pair, index, -1)

    def may_be_one(self, dim: Any) -> bool:
        """True if a dimension may be 1."""
        low, high = bounds(dim)
        return low <= 1 and (high is None or high >= 1)

    def may_be_empty(self, value: Output, axes: Sequence[int]) -> bool:
        """Whether one of these dimensions may be 0, or is 0 in the example."""
        shape = self.shape(value) or ()
        return any(shape[a] == 0 or self.reader.is_often_none(shape[a]) for a in axes)

    def pick_axis(self, value: Output, axis: int) -> int:
        """A nonnegative axis. Scalars count as having one axis, as in PyTorch."""
        return self.axis(axis, max(self.rank(value), 1))

    def all_axes(self, value: Output, dims: Any) -> list[int]:
        """Nonnegative axes; all axes if `dims` is None or empty."""
        rank = self.rank(value)
        if dims is None or (isinstance(dims, (list, tuple)) and not dims):
            return list(range(rank))
        listed = dims if isinstance(dims, (list, tuple)) else [dims]
        return self.axes(list(listed), max(rank, 1))

    # -- shapes ----------------------------------------------------------------------------------------------

    def to_shape(self, value: Output, dims: Sequence[Any]) -> Output:
        """Reshape a tensor; a dimension of -1 is inferred.

        The pattern is constant where each dynamic dimension is the value's own one at its index, or the only
        one that is left: (?, ?, 8) -> (?, ?, 2, 4) is [0, 0, 2, 4].
        """
        pattern = self._pattern(value, list(dims))
        if pattern is not None:
            return self("Reshape", value, self.const(pattern, "i64"), special_zero=True)
        return self.reshape(value, self.ints(list(dims)))

    def _pattern(self, value: Output, dims: list[Any]) -> list[int] | None:
        """Dimensions as a pattern for Reshape, in which 0 copies one; None if one must be computed."""
        sizes = [v if isinstance(v, Number) and v.key is not None else self.known_number(v) for v in dims]
        shape = self.shape(value)
        if shape is None or None in sizes or not any(isinstance(v, Number) for v in sizes) or 0 in sizes:
            return None
        copied = [
            i for i, v in enumerate(sizes)
            if isinstance(v, Number) and i < len(shape) and getattr(shape[i], "key", None) == v.key
        ]  # fmt: skip
        pattern = [0 if i in copied else -1 if isinstance(v, Number) else int(v) for i, v in enumerate(sizes)]
        if pattern.count(-1) > 1:
            return None
        other_dims = [d for i, d in enumerate(shape) if i not in copied]
        product = math.prod(v for v in pattern if v > 0)
        if -1 in pattern and is_static(other_dims) and product and math.prod(other_dims) % product == 0:
            pattern[pattern.index(-1)] = math.prod(other_dims) // product
            if math.prod(other_dims) == 0:
                return None
        return pattern

    def group_filters(self, filters: Output, groups: Any) -> Output:
        """Reshape filters [groups * first, ...] to [groups, first, ...]; dimensions and `groups` may be
        dynamic."""
        if is_static(self.shape(filters)) and isinstance(groups, int):
            return super().group_filters(filters, groups)
        return self.to_shape(filters, [groups, -1, *self.sizes(filters)[1:]])

    def expand(self, value: Output, dims: Any) -> Output:
        """Broadcast a tensor to a shape."""
        target = dims if isinstance(dims, Output) else self.ints(list(dims))
        return self("Broadcast", value, target, mode="bidirectional")

    def fill(self, number: Any, dims: Sequence[Any], kind: str) -> Output:
        """A tensor of a shape, filled with `number`."""
        return self("Broadcast", self.tensor(number, kind), self.target_shape(dims), mode="numpy")

    def alike(self, value: Output, number: Any, kind: str | None = None) -> Output:
        """A tensor of the shape of `value`, filled with `number`."""
        return self("Broadcast", self.tensor(number, kind or self.dtype(value)), self.shape_of(value))

    def zeros(self, value: Output) -> Output:
        """Zeros of the shape of a tensor. Its product with 0 would be NaN at infinities and -0 below 0."""
        return self.like(value, 0) if self.rank(value) == 0 else self.alike(value, 0)

    def cut(self, value: Output, axis: int, start: Any, stop: Any, step: Any = 1) -> Output:
        """value[..., start:stop:step, ...] along one axis; bounds and the step may be Numbers."""
        if start == 0 and step == 1 and not isinstance(stop, Number) and stop >= LAST:
            return value
        return self("Slice", value, self.ints([start]), self.ints([stop]), self.ints([step]), [axis])

    def flat(self, value: Output) -> Output:
        return value if self.rank(value) == 1 else self.reshape(value, [-1])

    def arange(self, stop: Any, start: Any = 0, step: Any = 1, kind: str = "i64") -> Output:
        """A range of integers whose bounds may be dynamic Numbers."""
        return self("Range", *[self.index(v) for v in (start, stop, step)], output_type=kind)

    def bias(self, value: Output, bias: Any, rank: int | None = None) -> Output:
        """Add a bias per channel (dimension 1)."""
        if bias is None:
            return value
        return self("Add", value, self.per_channel(bias, rank or self.rank(value)))

    def reshape(self, value: Output, pattern: Any) -> Output:
        """Reshape by a pattern; a constant becomes a constant that shares its memory."""
        if not isinstance(value.node, Constant) or isinstance(pattern, Output):
            return super().reshape(value, pattern)
        array = value.node.value.reshape(np.asarray(pattern, np.int64))
        name = self.reader.name(self.base, "Reshape")
        return make_constant(array, self.dtype(value), None, name)

    def no(self, *options: Any, what: str) -> None:
        """Raise UnsupportedError if an option is given that is not supported."""
        if any(option not in (None, False, 0, "") for option in options):
            raise UnsupportedError(f"{what} is not supported")


def _identity(value: Output) -> Output:
    return value


@cache
def _saturates() -> bool:
    """Whether this PyTorch saturates numbers beyond the range of f8e4m3. Older ones and OpenVINO convert them
    to NaN."""
    return bool(torch.tensor(1e9).to(torch.float8_e4m3fn).float().isfinite())


def _category(kind: Any) -> int:
    return 0 if str(kind) == "torch.bool" else 2 if kind.is_floating_point else 1
