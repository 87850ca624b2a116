"""Values that are several tensors: complex numbers (two parts) and keys of random numbers (u32 words).

Each tensor has the shape that JAX gives the value. At inputs and outputs of the model they are one tensor,
with a last dimension of as many elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.graph.dtypes import from_numpy
from ovjit.records import NamedTuple


class Parts(NamedTuple):
    """One value that is several tensors of one type and shape."""

    parts: tuple[Output, ...]


#: Primitives that do the same with each part.
BY_PART = (
    "add", "add_any", "add_n", "broadcast_in_dim", "concatenate", "copy", "copy_p", "cumsum",
    "device_put", "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "layout_constraint",
    "name", "neg", "optimization_barrier", "pad", "pbroadcast", "pvary", "random_clone", "reduce_sum",
    "reduce_window_sum", "reshape", "reshard", "rev", "scatter", "scatter-add", "scatter_add", "select_n",
    "sharding_constraint", "slice", "split", "squeeze", "stack", "stop_gradient", "sub", "tile",
    "transpose",
)  # fmt: skip
#: Primitives whose bodies take each part as an operand of its own.
BY_OPERAND = ("cond", "scan", "while")


def part_type(aval: Any) -> tuple[str, int] | None:
    """The element type and the number of the parts of an abstract value; None for one that is one tensor."""
    dtype = aval.dtype
    key = getattr(dtype, "_impl", None)
    if key is not None:
        return "u32", math.prod(key.key_shape)
    if getattr(dtype, "kind", "") == "c":
        return from_numpy(np.dtype(f"f{dtype.itemsize // 2}")), 2
    return None


def widths(variables: Iterable[Any]) -> list[int]:
    """Number of tensors that represent each variable."""
    return [1 if part is None else part[1] for part in (part_type(var.aval) for var in variables)]


def flat(values: Iterable[Any]) -> list[Output]:
    """The tensors of values, in their order."""
    return [v for value in values for v in (value.parts if isinstance(value, Parts) else (value,))]


def group_by_variable(values: Sequence[Output], variables: Sequence[Any]) -> list[Any]:
    """Tensors as the values of variables: the inverse of `flat`."""
    out: list[Any] = []
    at = 0
    for var in variables:
        kind = part_type(var.aval)
        if kind is None:
            out.append(values[at])
            at += 1
        else:
            out.append(Parts(tuple(values[at : at + kind[1]])))
            at += kind[1]
    return out


def join_parts(n: Builder, value: Parts) -> Output:
    """The parts as elements of a last dimension."""
    rank = n.rank(value.parts[0])
    return n.concat([n.unsqueeze(part, [rank]) for part in value.parts], rank)


def separate_parts(n: Builder, value: Output) -> Parts:
    """The elements of the last dimension as parts."""
    last = n.rank(value) - 1
    pieces = n.split(value, last, [1] * n.last_dim(value))
    return Parts(tuple(n.squeeze(piece, [last]) for piece in pieces))


def constant(n: Builder, array: Any, aval: Any) -> Parts:
    """A constant of complex numbers, or of keys."""
    kind = part_type(aval)
    assert kind is not None
    if kind[0] == "u32":
        import jax

        words = np.asarray(jax.random.key_data(array)).reshape(*aval.shape, kind[1])
        return Parts(tuple(n.const(np.array(words[..., i]), "u32") for i in range(kind[1])))
    numbers = np.asarray(array, aval.dtype)
    return Parts((n.const(numbers.real, kind[0]), n.const(numbers.imag, kind[0])))
