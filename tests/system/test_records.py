"""Classes of `ovjit.records.NamedTuple`, beside those of typing's."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from typing import Any

import pytest

from ovjit.records import NamedTuple


class Ours(NamedTuple):
    """A place."""

    x: int
    #: Where nothing is said.
    name: str | None = None
    more: tuple[int, ...] = ()

    def doubled(self) -> int:
        return 2 * self.x

    @property
    def size(self) -> int:
        return len(self.more)

    @classmethod
    def of(cls, text: str) -> Ours:
        return cls(len(text), text)


class Theirs(typing.NamedTuple):
    """A place."""

    x: int
    name: str | None = None
    more: tuple[int, ...] = ()


class Ordered(NamedTuple):
    low: int
    high: int

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return self.high < other[1]

    def __repr__(self) -> str:
        return f"{self.low}..{self.high}"


def test_what_a_class_says_of_itself() -> None:
    for name in ("_fields", "_field_defaults", "__doc__", "__module__", "__match_args__", "__slots__"):
        assert getattr(Ours, name) == getattr(Theirs, name), name
    assert inspect.signature(Ours).parameters.keys() == inspect.signature(Theirs).parameters.keys()
    assert Ours.__annotations__ == {"x": "int", "name": "str | None", "more": "tuple[int, ...]"}
    assert Ours.__mro__[-2:] == (tuple, object) and (Ours.__name__, Ours.__qualname__) == ("Ours", "Ours")


def test_objects_are_those_of_typing() -> None:
    one, other = Ours(3, more=(1, 2)), Theirs(3, more=(1, 2))
    assert one == other == (3, None, (1, 2)) and hash(one) == hash(other)
    assert repr(one) == repr(other).replace("Theirs", "Ours")
    assert one._replace(x=5)._asdict() == other._replace(x=5)._asdict()
    assert (one.doubled(), one.size, Ours.of("abc").name) == (6, 2, "abc")
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert type(pickle.loads(pickle.dumps(one))) is Ours
    with pytest.raises(AttributeError):
        one.x = 4  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Ours()  # type: ignore[call-arg]


def test_methods_of_tuples_are_replaced() -> None:
    assert sorted([Ordered(1, 3), Ordered(2, 2)]) == [(2, 2), (1, 3)]
    assert repr(Ordered(1, 3)) == "1..3"


def test_fields_without_a_default_come_first() -> None:
    with pytest.raises(TypeError, match="after one with a default"):

        class Wrong(NamedTuple):
            first: int = 0
            second: int  # type: ignore[misc]
