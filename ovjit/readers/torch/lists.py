"""Lists, tuples, dicts and texts in scripts."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.numbers import computed
from ovjit.readers.torch.registry import aten, aten_rows
from ovjit.readers.torch.values import Complex


@aten("__getitem__.t", "__getitem__")
def getitem(n: Call, x: Any, idx: Any = None, key: Any = None) -> Any:
    if isinstance(x, dict):
        return x[key]
    return x[n.known_int(idx, "the index of a list")]


@aten("eq.str", "ne.str", "eq.int_list", "ne.int_list", "eq.float_list", "ne.float_list")
def equal(n: Call, x: Any, b: Any = None, other: Any = None) -> Any:
    """Texts, and lists of numbers."""
    other = other if b is None else b
    if isinstance(x, str) or len(x) != len(other):
        same: Any = x == other
    else:
        pairs = [computed(n, "eq", *pair) for pair in zip(x, other, strict=True)]
        same = reduce(lambda c, d: computed(n, "and_", c, d), pairs, True)
    return same if "eq" in n.op else computed(n, "not_", same)


@aten("format")
def text(n: Call, x: str) -> str:
    """What an exception says: its parts are not known."""
    return x


@aten("__is__")
def same_object(n: Call, x: Any, obj: Any = None) -> bool:
    return (x is None) == (obj is None) if x is None or obj is None else x is obj


@aten("slice.t")
def part(n: Call, x: Any, start: Any = None, end: Any = None, step: Any = 1) -> list[Any]:
    return list(x)[slice(n.known_number(start), n.known_number(end), n.known_number(step))]


@aten("prim::dtype")
def type_of(n: Call, x: Any) -> int:
    from ovjit.readers.torch.values import number_of

    if isinstance(x, Complex):
        raise UnsupportedError("the type of a complex tensor is not asked for")
    return number_of(n.dtype(x))


#: Operators that are one expression.
aten_rows({
    "dict": lambda n, x=None: dict(x or ()),
    "keys": lambda n, x: list(x),
    "values": lambda n, x: list(x.values()),
    "items": lambda n, x: [list(item) for item in x.items()],
    "list copy.t": lambda n, x: list(x),
    "append": lambda n, x, el: [*x, el],
    "add.t": lambda n, x, b: [*x, *b],
    "mul.left_t": lambda n, x, r: list(x) * n.known_int(r, "the number of copies of a list"),
    "__isnot__": lambda n, x, obj=None: not same_object(n, x, obj),
    "__contains__": lambda n, x, item=None, key=None: (item if key is None else key) in x,
    "prim::unchecked_cast prim::unchecked_unwrap_optional _unwrap_optional": lambda n, x: x,
    "prim::device prim::layout": lambda n, x: None,
})  # fmt: skip
