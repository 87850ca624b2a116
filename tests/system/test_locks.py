"""The order of locks: declared once, checked when OVJIT_CHECK is on, and without cost when it is off."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from ovjit import locks
from tests.support.threads import run_threads

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
    with locks.lock("pool"), pytest.raises(locks.LockOrder, match="'pool'"):
        locks.lock("pool").acquire()


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
    assert type(locks.lock("pool")) is type(threading.Lock())
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


def at_once(work, threads: int = 8) -> list:
    """What `work(i)` gives in threads that begin together and are switched often."""
    barrier, found = threading.Barrier(threads), []

    def run(i: int) -> None:
        barrier.wait()
        found.append(work(i))

    run_threads([threading.Thread(target=run, args=(i,)) for i in range(threads)])
    return found


def test_operations_registered_in_threads_are_all_known() -> None:
    """Rules are looked through again for each of them, and those who look meanwhile see whole tables."""
    from ovjit.graph import op as ops

    ops.load_ops()  # registers more
    some = [[ops.Op(f"InThreads{i}", k, infer=lambda x: x) for k in range(1, 20)] for i in range(8)]
    before = ops.generation

    def register(i: int) -> bool:
        for record in some[i]:
            ops.register(record)
            ops.find_op(record.name)
        return all(ops.is_registered(record) for record in some[i])

    try:
        assert at_once(register) == [True] * 8
        assert ops.generation == before + 8 * 19
    finally:
        for record in (record for row in some for record in row if ops.is_registered(record)):
            ops.unregister(record)


def test_counts_and_warnings_in_threads(monkeypatch) -> None:
    from ovjit import logs
    from ovjit.codegen import compiling
    from ovjit.disk import notice

    said: list = []
    monkeypatch.setattr(compiling, "counts", {"cached": 0})
    monkeypatch.setattr(notice, "_topics", {})
    monkeypatch.setattr(logs, "warning", lambda *words: said.append(words))
    at_once(lambda i: [(compiling.count("cached"), notice.warn_once("topic", "words")) for _ in range(500)])
    assert compiling.counts == {"cached": 4000} and len(said) == 1


def test_members_of_a_set_that_grows() -> None:
    import weakref

    from ovjit.forks import members

    class Member:
        pass

    kept: list = []
    found: weakref.WeakSet = weakref.WeakSet()

    def work(i: int) -> int:
        for _ in range(300):
            member = Member()
            kept.append(member)
            found.add(member)
            members(found)
        return len(members(found))

    assert max(at_once(work)) == 2400


def test_what_is_made_once_is_one_for_all_threads() -> None:
    import time

    from ovjit.forks import made_once

    class Maker:
        @made_once
        def value(self) -> object:
            time.sleep(0.01)
            return object()

    one = Maker()
    found = at_once(lambda i: [one.value, time.sleep(0.02), one.value])
    assert len({id(value) for first, _, last in found for value in (first, last)}) == 1


def test_sources_of_kernels_are_parsed_in_threads() -> None:
    """While collections let other threads run: Python 3.11 has one count of levels for all its parsers."""
    import gc

    from ovjit.codegen.source import definition

    def idle(*args: object) -> None:
        pass

    before = gc.get_threshold()
    gc.callbacks.append(idle)
    gc.set_threshold(50, 2, 2)
    try:
        found = at_once(lambda i: [definition(at_once).name for _ in range(60)])
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(idle)
    assert found == [["at_once"] * 60] * 8
