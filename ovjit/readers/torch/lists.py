"""Lists, tuples, dicts and texts in scripts."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.numbers import computed
from ovjit.readers.torch.registry import aten
from ovjit.readers.torch.values import Complex


@aten("__getitem__.t", "__getitem__")
def getitem(n: Call, x: Any, idx: Any = None, key: Any = None) -> Any:
    if isinstance(x, dict):
        return x[key]
    return x[n.known_int(idx, "the index of a list")]


@aten("dict")
def table(n: Call, x: Any = None) -> dict[Any, Any]:
    return dict(x or ())


@aten("keys")
def keys(n: Call, x: dict[Any, Any]) -> list[Any]:
    return list(x)


@aten("values")
def values(n: Call, x: dict[Any, Any]) -> list[Any]:
    return list(x.values())


@aten("items")
def items(n: Call, x: dict[Any, Any]) -> list[Any]:
    return [list(item) for item in x.items()]


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


@aten("list", "copy.t")
def listed(n: Call, x: Any) -> list[Any]:
    return list(x)


@aten("append")
def append(n: Call, x: Any, el: Any) -> list[Any]:
    return [*x, el]


@aten("add.t")
def joined(n: Call, x: Any, b: Any) -> list[Any]:
    return [*x, *b]


@aten("mul.left_t")
def repeated(n: Call, x: Any, r: Any) -> list[Any]:
    return list(x) * n.known_int(r, "the number of copies of a list")


@aten("__is__")
def same_object(n: Call, x: Any, obj: Any = None) -> bool:
    return (x is None) == (obj is None) if x is None or obj is None else x is obj


@aten("__isnot__")
def other_object(n: Call, x: Any, obj: Any = None) -> bool:
    return not same_object(n, x, obj)


@aten("slice.t")
def part(n: Call, x: Any, start: Any = None, end: Any = None, step: Any = 1) -> list[Any]:
    return list(x)[slice(n.known_number(start), n.known_number(end), n.known_number(step))]


@aten("__contains__")
def contains(n: Call, x: Any, item: Any = None, key: Any = None) -> bool:
    return (item if key is None else key) in x


@aten("prim::unchecked_cast", "prim::unchecked_unwrap_optional", "_unwrap_optional")
def itself(n: Call, x: Any) -> Any:
    return x


@aten("prim::device", "prim::layout")
def where_it_lies(n: Call, x: Any) -> None:
    return None


@aten("prim::dtype")
def type_of(n: Call, x: Any) -> int:
    from ovjit.readers.torch.values import number_of

    if isinstance(x, Complex):
        raise UnsupportedError("the type of a complex tensor is not asked for")
    return number_of(n.dtype(x))
