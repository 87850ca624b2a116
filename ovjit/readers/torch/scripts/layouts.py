"""Memory layouts of tensors, which decide whether a reshape is a view or a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from ovjit.build import Output
from ovjit.graph.shapes import is_static
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.operators.numbers import compute
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.values import Number
from ovjit.records import NamedTuple


class Layout(NamedTuple):
    """The strides of a tensor, each as a list of factors. None: row-major."""

    strides: tuple[tuple[Any, ...], ...] | None = None

    @property
    def is_known(self) -> bool:
        """Whether no stride depends on a dynamic dimension."""
        return self.strides is None or not any(isinstance(f, Number) for s in self.strides for f in s)


IN_ORDER = Layout()
#: PyTorch's numbers of the memory formats in which tensors in order stay so: contiguous, and preserve.
_PLAIN_FORMATS = (None, 0, 1)


def layout_of_tensor(tensor: Any) -> Layout | None:
    """The layout of a PyTorch tensor, None without strides."""
    if tensor.layout is not torch.strided:
        return None
    return IN_ORDER if tensor.is_contiguous() else Layout(tuple((step,) for step in tensor.stride()))


def has_plain_format(how: Mapping[str, Any]) -> bool:
    """Whether an operator's arguments require no memory format but the contiguous one."""
    return how.get("memory_format") in _PLAIN_FORMATS


class Merging(NamedTuple):
    """The condition that dimensions of these sizes and strides merge to one. `last`: the stride that the last
    one must have, None for any."""

    sizes: Sequence[Any]
    strides: Sequence[Sequence[Any]]
    last: int | None = None

    def decide_statically(self, call: Call) -> bool | None:
        """The result of `decide` if it is known at conversion; None if it depends on dynamic dimensions."""
        if self._is_plain(call):
            return True
        numbers = [*self.sizes, *(f for s in self.strides for f in s)]
        return None if None in map(call.known_number, numbers) else bool(self.decide(call))

    def decide(self, call: Call) -> Any:
        """Whether the dimensions merge: a bool, or a Number that the model computes."""
        strides = [reduce(lambda a, b: compute(call, "mul", a, b), s, 1) for s in self.strides]
        truth: Any = True
        expected: Any = -1 if self.last is None else self.last
        for size, stride in zip(self.sizes[::-1], strides[::-1], strict=True):
            is_one = compute(call, "eq", size, 1)
            fits = compute(
                call, "or_", compute(call, "eq", expected, -1), compute(call, "eq", stride, expected)
            )
            truth = compute(call, "and_", truth, compute(call, "or_", is_one, fits))
            expected = compute(call, "sym_ite", is_one, expected, compute(call, "mul", size, stride))
        return truth

    def _is_plain(self, call: Call) -> bool:
        """Whether each stride is surely the product of the next size and stride."""
        expected = None if self.last is None else _factors(call, (self.last,))
        for size, stride in zip(self.sizes[::-1], self.strides[::-1], strict=True):
            if call.known_number(size) == 1:
                continue
            factors = _factors(call, stride)
            if factors is None or (expected is not None and factors != expected):
                return False
            expected = _factors(call, (size, *stride))
            if expected is None:
                return False
        return True


def _factors(call: Call, numbers: Sequence[Any]) -> tuple[int, list[Any]] | None:
    """A product as (static factor, names of the dimensions in it); None if one has no name."""
    constant, keys = 1, []
    for number in numbers:
        value = call.known_number(number)
        if value is not None:
            constant *= value
        elif isinstance(number, Number) and number.key is not None:
            keys.append(number.key)
        else:
            return None
    return constant, sorted(keys, key=repr)


def strides_of(call: Call, value: Output, layout: Layout) -> list[tuple[Any, ...]]:
    sizes = call.sizes(value)
    return (
        [tuple(sizes[i + 1 :]) for i in range(len(sizes))] if layout.strides is None else list(layout.strides)
    )


def is_view(call: Call, name: str, base: Output, layout: Layout | None, result: Output) -> Any:
    """Whether an operator returns a view of a tensor: a bool, a `Merging` to decide it, or None if
    unknown."""
    if layout is None:
        return None
    if layout.strides is None:
        return True
    sizes, strides = call.sizes(base), strides_of(call, base, layout)
    if name in ("contiguous", "ravel"):
        condition = Merging(sizes, strides, 1)
    else:
        first, last = _count_shared_dims(call, sizes, call.sizes(result))
        inner, shape = sizes[first : len(sizes) - last], call.sizes(result)[first : call.rank(result) - last]
        if len(inner) < 2:
            return True
        condition = Merging(inner, strides[first : len(sizes) - last])
        if len(shape) > 1 and condition.decide_statically(call) is not True:
            return _by_torch(call, inner, condition.strides, shape)
    decision = condition.decide_statically(call)
    return condition if decision is None else decision


def _count_shared_dims(call: Call, sizes: list[Any], shape: list[Any]) -> tuple[int, int]:
    """The numbers of leading and of trailing dimensions that two shapes share."""

    def same(a: Any, b: Any) -> bool:
        factors = _factors(call, (a,))
        return factors is not None and factors == _factors(call, (b,))

    most = min(len(sizes), len(shape))
    first = next((i for i in range(most) if not same(sizes[i], shape[i])), most)
    most -= first
    last = next((i for i in range(most) if not same(sizes[-1 - i], shape[-1 - i])), most)
    return first, last


def _by_torch(call: Call, sizes: Any, strides: Any, shape: Any) -> bool | None:
    """Whether PyTorch can view a tensor of static sizes and strides in another shape."""
    steps = [[call.known_number(f) for f in s] for s in strides]
    constants = [call.known_number(v) for v in (*sizes, *shape)]
    if None in constants or any(None in s for s in steps):
        return None
    products = [reduce(lambda a, b: a * b, s, 1) for s in steps]
    tensor = torch.empty_strided(constants[: len(sizes)], products, device="meta")
    try:
        tensor.view(constants[len(sizes) :])
    except RuntimeError:
        return False
    return True


#: Operators that give views in which the order of dimensions is another one, and their arguments.
_TURNED = {
    "transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1"), "swapdims": ("dim0", "dim1"),
    "t": (), "numpy_T": (), "mT": (),
}  # fmt: skip


def layout_of_view(
    call: Call, name: str, base: Output, layout: Layout | None, how: Mapping[str, Any], result: Output
) -> Layout | None:
    """The layout of a view, None if unknown."""
    if layout is None or call.shape(base) is None or call.shape(result) is None:
        return None
    if name in ("view", "view_as", "reshape", "reshape_as", "flatten", "ravel", "unflatten", "contiguous"):
        return layout if layout.strides is None else None
    strides, rank = strides_of(call, base, layout), call.rank(base)
    if name in _TURNED:
        axes = [how[key] for key in _TURNED[name]] or ([-2, -1] if name == "mT" else [])
        return Layout(tuple(_swap_strides(call, strides, axes)))
    if name == "permute":
        return Layout(tuple(strides[call.axis(i, rank)] for i in how["dims"]))
    if name in ("select", "unbind"):
        axis = call.axis(how["dim"], rank)
        return _layout_of(call, result, [*strides[:axis], *strides[axis + 1 :]])
    if name in ("narrow", "split", "split_with_sizes", "chunk", "tensor_split"):
        return _layout_of(call, result, strides)
    if name == "slice":
        axis = call.axis(how["dim"], rank)
        strides[axis] = (*strides[axis], how["step"])
        return _layout_of(call, result, strides)
    if name == "unsqueeze":
        axis = call.axis(how["dim"], rank + 1)
        return _layout_of(call, result, [*strides[:axis], (), *strides[axis:]])
    if name == "squeeze" and is_static(call.shape(base)):
        remaining_strides = [s for s, n in zip(strides, call.sizes(base), strict=True) if n != 1]
        is_known = len(remaining_strides) == call.rank(result)
        return _layout_of(call, result, remaining_strides) if is_known else None
    return None


def _swap_strides(call: Call, strides: list[Any], axes: Sequence[int]) -> list[Any]:
    """The strides with two axes swapped, or all reversed if none are given."""
    if not axes:
        return strides[::-1]
    a, b = call.axes(list(axes), max(len(strides), 1))
    if strides:
        strides[a], strides[b] = strides[b], strides[a]
    return strides


def _layout_of(call: Call, value: Output, strides: list[Any]) -> Layout:
    """The layout with these strides, which may be those of a contiguous tensor."""
    is_plain = Merging(call.sizes(value), strides, 1).decide_statically(call) is True
    return IN_ORDER if is_plain else Layout(tuple(map(tuple, strides)))
