"""Numbers of a PyTorch graph that are known when it is read, or computed by it: dimensions and their sums."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output, set_tensor_type, tensor_type
from ovjit.build.builder import Builder, Draft
from ovjit.errors import UnsupportedError
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Interval
from ovjit.graph.symbolic import named, statically_known_equal
from ovjit.readers.torch.values import Number
from ovjit.records import NamedTuple

#: Operations whose results have as many elements as their data say: often none.
COUNTING = ("NonZero", "Unique")
#: A dimension of which nothing is known.
_ANY = Interval(0, None)


class Padded(NamedTuple):
    """A padded batch of packed sequences: `rows` [samples, steps, ...] and the `lengths` of the samples."""

    rows: Output
    lengths: Output


class Shared:
    """Caches that the nodes of one graph or body share."""

    def __init__(self) -> None:
        #: A tensor and its axis by the name of a dimension.
        self.sources: dict[tuple | None, tuple[Output, int]] = {}
        #: Tensors of dimensions and numbers, by their names and values.
        self.lists: dict[tuple, Output] = {}
        #: Dimensions of a tensor by its node, its index there and the axes.
        self.gathered: dict[tuple, Output] = {}
        #: What is made once for all its uses, by what it is of.
        self.single: dict[tuple[Any, ...], Output] = {}
        #: Constants by the tensors of PyTorch's that they are.
        self.constants: dict[int, Any] = {}


class TorchDraft(Draft):
    """A model that is being read from PyTorch, with the relations between its dynamic dimensions.

    Equal dimensions have one name. The nodes that compute them are shared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared = Shared()
        self._count = 0
        #: What packed sequences are of, by the node and the index of their data.
        self.padded: dict[tuple[Any, int], Padded] = {}
        #: The first names of dimensions that may well be 0: those of COUNTING operations, and those of
        #: inputs that are 0 in the example.
        self.often_none: set[tuple] = set()

    def is_often_none(self, dim: Any) -> bool:
        """Whether a dimension counts the elements that a mask selects, or is 0 in the example."""
        key = getattr(dim, "key", None)
        name = key[0] if key else None
        return isinstance(name, tuple) and (name in self.often_none or name[:2] in self.often_none)

    def name_dimensions(self, outputs: Sequence[Output]) -> None:
        """Give each unnamed dynamic dimension a symbol."""
        for value in outputs:
            kind = tensor_type(value)
            if kind.shape is None or all(not isinstance(d, Interval) or d.key for d in kind.shape):
                continue
            self._count += 1
            if self._may_be_none(value):
                self.often_none.add(("made", self._count))
            dims = named(kind.shape, "made", self._count)
            set_tensor_type(value, TensorType(kind.dtype, dims, kind.value, kind.partial))

    def _may_be_none(self, value: Output) -> bool:
        """Whether new dimensions of a tensor count selected elements, or derive from such dimensions."""
        node = value.node
        if node.get_type_name() in COUNTING:
            return True
        shapes = (tensor_type(source).shape or () for source in node.input_values())
        return any(self.is_often_none(d) for shape in shapes for d in shape)

    def place_of(self, number: Number) -> tuple[Output, int] | None:
        """(tensor, axis) of the dimension that a number is."""
        return None if number.key is None else self.shared.sources.get(number.key)

    def number_of(self, call: Dimensions, dim: Interval) -> Number | None:
        """The Number of a dynamic dimension; None if no known tensor has it."""
        number = Number(lambda: call.const(0, "i64"), dim)
        source = self.place_of(number)
        return None if source is None else call.size(*source)

    def shape_of(self, call: Builder, value: Output) -> Output:
        """The ShapeOf of a tensor, shared by all uses."""
        return self.once(("shape",), value, lambda: call("ShapeOf", value, output_type="i64"))

    def once(self, what: tuple[Any, ...], value: Output, make: Callable[[], Output]) -> Output:
        """Return `make()` for a tensor. The result is cached by `what` and the tensor, once per body."""
        key = (*what, value.node, value.index)
        result = self.shared.single.get(key)
        if result is None:
            result = self.shared.single[key] = make()
        return result


class Dimensions(Builder):
    """Numbers and lists of them: Python's where they are known, else tensors or `Number`s."""

    reader: TorchDraft
    op: str
    base: str

    def ints(self, values: Any) -> list[int] | Output:
        """Dimensions or other integers: Python ints if all are static, else one tensor."""
        if isinstance(values, (int, Number, Output)):
            values = [values]
        numbers = [self.known_number(value) for value in values]
        if all(value is not None for value in numbers):
            return [int(value) for value in numbers if value is not None]
        named = zip(values, numbers, strict=True)
        keys = tuple(v.key if k is None and isinstance(v, Number) else k for v, k in named)
        if None in keys:
            return self._join(values)
        result = self.reader.shared.lists.get(keys)
        if result is None:
            result = self.reader.shared.lists[keys] = self._join(values)
        return result

    def _join(self, values: Sequence[Any]) -> Output:
        """Numbers as one tensor. Adjacent dimensions of one tensor become one Gather of its shape."""
        parts: list[Any] = []
        for value in values:
            source = self.reader.place_of(value) if isinstance(value, Number) else None
            if source is not None and parts and isinstance(parts[-1], tuple) and parts[-1][0] is source[0]:
                parts[-1] = (source[0], *parts[-1][1:], source[1])
            else:
                parts.append(self.one(value) if source is None else source)
        return self.concat([self._dims_at(*p) if isinstance(p, tuple) else p for p in parts], 0)

    def target_shape(self, dims: Sequence[Any]) -> list[int] | Output:
        """The shape of a new tensor. Static dimensions stay static beside dynamic ones such as a rounded
        quotient."""
        result = self.ints(list(dims))
        if isinstance(result, Output) and tensor_type(result).partial is None:
            kind = tensor_type(result)
            partial = np.empty(len(dims), object)
            partial[:] = [_ANY if n is None else int(n) for n in map(self.known_number, dims)]
            set_tensor_type(result, TensorType(kind.dtype, kind.shape, kind.value, partial))
        return result

    def _dims_at(self, value: Output, *axes: int) -> Output:
        """Dimensions of a tensor, i64 [number of axes]."""
        key = (value.node, value.index, *axes)
        result = self.reader.shared.gathered.get(key)
        if result is None:
            shape = self.reader.shape_of(self, value)
            all_of_them = list(axes) == list(range(self.rank(value)))
            result = shape if all_of_them else self("Gather", shape, list(axes), 0)
            self.reader.shared.gathered[key] = result
        return result

    def known_ints(self, values: Any, what: str) -> list[int]:
        """Numbers as Python ints. Raises UnsupportedError if one is dynamic."""
        dims = self.ints(values)
        if isinstance(dims, Output):
            raise UnsupportedError(f"{what} should be known when the model is read")
        return dims

    def known_int(self, value: Any, what: str) -> int:
        return self.known_ints([value], what)[0]

    def known_number(self, value: Any) -> Any:
        """A number as Python's; None if it is dynamic."""
        if isinstance(value, Number):
            if value.key is not None:
                return None
            value = value.value
        if isinstance(value, Output):
            array = self.value(value)
            if array is None or array.size != 1:
                return None
            return array.reshape(()).item()
        return value

    def one(self, value: Any) -> Output:
        """A number as an i64 tensor [1]."""
        if isinstance(value, Number) and (source := self.reader.place_of(value)) is not None:
            return self._dims_at(*source)
        if not isinstance(value, (Number, Output)):
            return self.const([int(value)], "i64")
        value = self.convert(value.value if isinstance(value, Number) else value, "i64")
        shape = self.shape(value)
        if shape == (1,):
            return value
        return self.unsqueeze(value, [0]) if shape == () else self.reshape(value, [1])

    def index(self, value: Any) -> Output:
        """A number as an i64 scalar."""
        number = self.known_number(value)
        if number is not None:
            return self.const(int(number), "i64")
        if isinstance(value, Number) and self.reader.place_of(value) is None:
            value = value.value
        if isinstance(value, Output) and self.shape(value) == ():
            return self.convert(value, "i64")
        return self.scalar(self.one(value))

    def size(self, value: Output, axis: int) -> Any:
        """The size of an axis: an int if static, else a Number that the graph computes."""
        shape = self.shape(value)
        if shape is not None and not isinstance(shape[axis], Interval):
            return shape[axis]
        dim = None if shape is None else shape[axis]
        result = Number(lambda: self._dimension(*(self.reader.place_of(result) or (value, axis))), dim)
        self.reader.shared.sources.setdefault(result.key, (value, axis))
        return result

    def _dimension(self, value: Output, axis: int) -> Output:
        """A dimension as a tensor without dimensions."""
        shape = self.reader.shape_of(self, value)
        return self.reader.once(("dimension", axis), value, lambda: self("Gather", shape, axis, 0))

    def same_size(self, a: Output, b: Output, axis: int) -> bool:
        """Whether two tensors certainly have equal sizes along an axis."""
        first, second = ((self.shape(v) or ())[axis] for v in (a, b))
        return statically_known_equal(first, second)

    def sizes(self, value: Output) -> list[int | Number]:
        return [self.size(value, axis) for axis in range(self.rank(value))]

    def count(self, value: Output, axes: Sequence[int] | None = None) -> int | Number:
        """The number of elements, or of those along some axes."""
        axes = range(self.rank(value)) if axes is None else axes
        total = self.product([self.size(value, axis) for axis in axes])
        if not isinstance(total, Number) or len(axes) == 1:
            return total
        return Number(
            lambda: self("ReduceProd", self._dims_at(value, *axes), [0], keep_dims=False), total.dim
        )

    def product(self, values: Sequence[int | Number]) -> int | Number:
        constant = math.prod(v for v in values if not isinstance(v, Number))
        out: int | Number = constant
        for value in values:
            if isinstance(value, Number):
                is_one = out == 1 and not isinstance(out, Number)
                out = value if is_one else self.compute("Multiply", out, value)
        return out

    def compute(self, op: str, a: Any, b: Any) -> int | Number:
        """Integer arithmetic on dimensions: Add, Subtract, Multiply, FloorMod, Maximum, Minimum."""
        numbers = [self.known_number(v) for v in (a, b)]
        if None not in numbers:
            return int(_ARITHMETIC[op](*numbers))
        return Number(lambda: self(op, *(self.index(v) for v in (a, b))), _dim_of(op, a, b))


def _dim_of(op: str, a: Any, b: Any) -> Any:
    """The dynamic dimension that a sum, difference or product equals, None if unknown."""
    function = {"Add": operator.add, "Subtract": operator.sub, "Multiply": operator.mul}.get(op)
    parts = [v.dim if isinstance(v, Number) else v if isinstance(v, int) else None for v in (a, b)]
    if function is None or None in parts or not isinstance(parts[0], Interval) and op == "Subtract":
        return None
    return function(*parts)


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b, "Subtract": lambda a, b: a - b, "Multiply": lambda a, b: a * b,
    "FloorMod": lambda a, b: a % b, "Divide": lambda a, b: a // b, "Maximum": max, "Minimum": min,
}  # fmt: skip
