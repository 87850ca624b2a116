"""Garbage collections that are put off: for as long as was asked, and by nobody who has switched them off."""

import gc
import weakref

import pytest

from ovjit import garbage
from ovjit.garbage import short_collections


@pytest.fixture(autouse=True)
def _nothing_frozen(monkeypatch):
    """Tests run with what was imported frozen (`conftest.py`), and such a process is left as it is."""
    monkeypatch.setattr(garbage._State, "ask_at", 0.0)
    gc.unfreeze()
    yield
    gc.freeze()


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.parametrize("cycles", [False, True])
def test_no_collection_comes_meanwhile(cycles: bool) -> None:
    assert gc.isenabled()
    with short_collections(cycles=cycles, lasting=not cycles):
        assert not gc.isenabled()
        left = weakref.ref(Node())
        assert left() is not None
    assert gc.isenabled() and gc.get_freeze_count() == 0
    assert left() is None or not cycles


def test_a_block_within_a_block() -> None:
    """Collections are few in the outer one, none in the inner ones, whose cycles go when these end."""
    before = gc.get_threshold()
    with short_collections():
        assert gc.isenabled() and gc.get_threshold()[0] > before[0]
        with short_collections(lasting=True):
            with short_collections(cycles=True):
                left = weakref.ref(Node())
            assert not gc.isenabled() and left() is not None
        assert gc.isenabled() and left() is None
        with short_collections(cycles=True):
            left = weakref.ref(Node())
            assert not gc.isenabled()
        assert gc.isenabled() and left() is None
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


@pytest.mark.parametrize("lasting", [False, True])
def test_what_lasts_is_old_at_once(lasting: bool) -> None:
    """And no collection of the young looks at it; of what may be garbage they are to find it."""
    with short_collections(lasting=lasting):
        made = Node()
    old = any(one is made for one in gc.get_objects(generation=2))
    assert old == lasting
    with short_collections():
        with short_collections(lasting=True):
            made = Node()
    assert not any(one is made for one in gc.get_objects(generation=2))


def test_thresholds_that_are_set_meanwhile_stay() -> None:
    before = gc.get_threshold()
    try:
        with short_collections():
            gc.set_threshold(900, 5, 5)
        assert gc.get_threshold() == (900, 5, 5)
    finally:
        gc.set_threshold(*before)


def test_an_error_ends_it() -> None:
    with pytest.raises(KeyError), short_collections(cycles=True):
        raise KeyError
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_who_switched_them_off_has_them_off() -> None:
    gc.disable()
    try:
        with short_collections(cycles=True):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_frozen_objects_are_counted_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that freezes its objects, as servers do, has many, and each is looked at to count them."""
    asked = []
    counted = gc.get_freeze_count

    def count() -> int:
        asked.append(counted())
        return asked[-1]

    gc.freeze()
    monkeypatch.setattr(gc, "get_freeze_count", count)
    for _ in range(50):
        with short_collections(lasting=True):
            assert gc.isenabled()
    assert len(asked) == 1 and asked[0] > garbage._FROZEN_AT_START
    gc.unfreeze()
    monkeypatch.setattr(garbage._State, "ask_at", 0.0)  # some time later
    for _ in range(2):
        with short_collections(lasting=True):
            assert not gc.isenabled()
    assert len(asked) == 3 and asked[1:] == [0, 0]
