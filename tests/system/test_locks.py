"""The order of locks: declared once, checked when OVJIT_CHECK is on, and without cost when it is off."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from ovjit import locks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checked(monkeypatch):
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(locks, "over_forks", {})


def test_a_lock_out_of_order_is_an_error_with_both_names(checked) -> None:
    graph, compiler = locks.rlock("graph"), locks.rlock("compiler")
    with graph, compiler, graph:
        pass
    with compiler, pytest.raises(locks.LockOrder, match="'graph'.*'compiler'"):
        graph.acquire()
    assert not graph._is_owned() and not compiler._is_owned()
    with graph:  # nothing is left of it
        pass


def test_equal_locks_nest_only_where_objects_own_one_another(checked) -> None:
    with locks.rlock("model"), locks.rlock("model"):
        pass
    with locks.lock("queue"), pytest.raises(locks.LockOrder, match="'queue'"):
        locks.lock("queue").acquire()


def test_each_thread_has_its_own(checked) -> None:
    graph, compiler = locks.rlock("graph"), locks.rlock("compiler")
    failed = []

    def other() -> None:
        try:
            with graph:
                pass
        except BaseException as error:
            failed.append(error)

    with compiler:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert not failed


def test_no_import_where_forks_wait(checked, tmp_path, monkeypatch) -> None:
    (tmp_path / "imported_under_a_lock.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with locks.rlock("compiler"):
        with pytest.raises(locks.LockOrder, match="'imported_under_a_lock'.*'compiler'"):
            import imported_under_a_lock
        import sys as there  # an imported module needs no lock

        assert there is sys
    with locks.rlock("graph"):
        import imported_under_a_lock  # noqa: F401


def test_forks_take_them_in_the_declared_order(checked) -> None:
    made = {name: locks.rlock(name) for name in ("loader", "graph", "compiler", "blocks")}
    assert locks.in_order() == [made["graph"], made["compiler"], made["loader"]]


def test_without_the_check_they_are_pythons_own(monkeypatch) -> None:
    monkeypatch.delenv("OVJIT_CHECK", raising=False)
    monkeypatch.setattr(locks, "over_forks", {})
    assert type(locks.lock("queue")) is type(threading.Lock())
    assert type(locks.rlock("graph")) is type(threading.RLock())


def test_all_locks_are_declared() -> None:
    """Nothing in ovjit makes a lock of its own."""
    pattern = re.compile(r"\b(threading|_thread)\.(R?Lock|Condition|\w*Semaphore|allocate_lock)\(")
    makers = [
        str(path.relative_to(ROOT))
        for package in ("ovjit", "ovjit_ops")
        for path in sorted((ROOT / package).rglob("*.py"))
        if pattern.search(path.read_text())
    ]
    assert makers == ["ovjit/locks.py"]
