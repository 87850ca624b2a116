"""Garbage collections that are put off: for as long as was asked, and by nobody who has switched them off."""

import gc
import weakref

import pytest

from ovjit.garbage import short_collections


@pytest.fixture(autouse=True)
def _nothing_frozen():
    """Tests run with what was imported frozen (`conftest.py`), and such a process is left as it is."""
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
