"""`ovjit.records.NamedTuple` makes what `typing.NamedTuple` makes."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

from ovjit.records import NamedTuple


class Ours(NamedTuple):
    """Two fields and a default."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        return 2 * self.first

    def __str__(self) -> str:
        return super().__repr__() + "!"


class Theirs(typing.NamedTuple):
    first: int
    second: str = "b"
    third: tuple[int, ...] = ()


class Empty(NamedTuple):
    pass


def test_construction() -> None:
    assert Ours(1) == Theirs(1) == (1, "b", ())
    assert Ours(third=(3,), first=2) == Theirs(third=(3,), first=2)
    assert Empty() == () and repr(Empty()) == "Empty()"
    assert str(inspect.signature(Ours)) == "(first, second='b', third=())"
    for given, named in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"first": 2}), ((1,), {"fourth": 2})):
        with pytest.raises(TypeError) as ours:
            Ours(*given, **named)  # type: ignore[call-overload]
        with pytest.raises(TypeError) as theirs:
            Theirs(*given, **named)  # type: ignore[call-overload]
        assert str(ours.value).split("() ")[-1] == str(theirs.value).split("() ")[-1]


def test_fields_and_methods() -> None:
    one = Ours(4)
    assert (one.first, one.second, one.third, one.doubled) == (4, "b", (), 8)
    assert Ours._fields == Theirs._fields and Ours._field_defaults == Theirs._field_defaults
    assert Ours.__match_args__ == Ours._fields
    assert Ours.__doc__ == "Two fields and a default." and Ours.__module__ == __name__
    assert repr(one) == "Ours(first=4, second='b', third=())" and str(one) == repr(one) + "!"
    assert one._asdict() == Theirs(4)._asdict()
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        one.first = 5  # type: ignore[misc]


def test_copies() -> None:
    one = Ours(4, "x", (1,))
    changed = one._replace(first=5)
    assert changed == (5, "x", (1,)) and type(changed) is Ours
    with pytest.raises(ValueError, match=r"Got unexpected field names: \['none'\]"):
        one._replace(none=1)  # type: ignore[call-arg]
    for made in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), Ours._make(iter(one))):
        assert made == one and type(made) is Ours


def test_a_default_in_front() -> None:
    with pytest.raises(TypeError, match="default"):

        class Wrong(NamedTuple):
            first: int = 1
            second: int  # type: ignore[misc]


def test_bases_have_names() -> None:
    """Tools that describe classes ask for them."""
    (base,) = Ours.__dict__["__orig_bases__"]
    assert (base.__qualname__, base.__name__) == ("NamedTuple", "NamedTuple")
