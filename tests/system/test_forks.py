"""Forks amid compilations and imports, in processes that import ovjit first and nothing else.

A process that imports `logging` or Numba before has handlers in another order. Each program ends by itself
when it hangs.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.support.run import python

ROOT = Path(__file__).resolve().parents[2]

#: What the programs begin with. A child that hangs is ended by its alarm: it has no thread of the watchdog.
BEGIN = """
import ovjit, sys
assert not {"logging", "threading", "numpy", "numba"} & set(sys.modules), "ovjit comes first"
import faulthandler, os, signal, threading, time
faulthandler.dump_traceback_later(150, exit=True)

def small(op, n):
    a = ovjit.opset8.parameter([n], name="a")
    return ovjit.compile_model(ovjit.Model([getattr(ovjit.opset8, op)(a)], [a]), "CPU")

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "in the child"
"""

FEW_AND_MANY = [1, pytest.param(10, marks=pytest.mark.long)]


#: What CPython says where another thread imports concurrent.futures.thread between a fork's first and last
#: handlers: its own handler then lets go of a lock that was not taken, and stays free.
_UNTAKEN = re.compile(
    r"Exception ignored in: <built-in method release of _thread\.lock .*\nTraceback .*\n"
    r"  File .*\n(    .*\n)*RuntimeError: release unlocked lock\n"
)


def quietly(tmp_path, program, times=1, **environment):
    for i in range(times):
        environment["OVJIT_CACHE"] = str(tmp_path / str(i))
        done = python("-c", BEGIN + textwrap.dedent(program), seconds=300, **environment)
        assert (done.returncode, _UNTAKEN.sub("", done.stderr)) == (0, ""), done.stdout


@pytest.mark.parametrize("times", FEW_AND_MANY)
def test_while_a_thread_compiles(tmp_path, times) -> None:
    """Who compiles asks for loggers, as Numba does; their lock is held by the thread that forks."""
    program = """
    ops = ["sin", "cos", "tan", "exp", "sinh", "cosh", "erf", "atan"]
    def compile_all():
        for n, op in enumerate(ops):
            small(op, 16 + n)
    thread = threading.Thread(target=compile_all)
    thread.start()
    forks = 0
    def child():
        import gc
        assert gc.isenabled() and gc.get_threshold() == usual and gc.get_freeze_count() == 0
    import gc
    usual = gc.get_threshold()
    while thread.is_alive():
        time.sleep(0.02)
        in_child(child)
        forks += 1
    assert forks > 2
    in_child(lambda: small("asinh", 99))
    """
    quietly(tmp_path, program, times, OVJIT_SHIPPED="0")


@pytest.mark.parametrize("times", FEW_AND_MANY)
def test_threads_fork_while_ovjit_and_numba_are_imported(tmp_path, times) -> None:
    program = """
    over = threading.Event()
    failed = []
    def fork():
        try:
            while not over.is_set():
                in_child(lambda: None)
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=fork) for _ in range(4)]
    for thread in threads:
        thread.start()
    small("tanh", 8)
    over.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    in_child(lambda: small("sin", 9))
    """
    quietly(tmp_path, program, times, OVJIT_SHIPPED="0")


def test_a_child_imports_what_its_parent_was_importing(tmp_path) -> None:
    """The importing thread is gone: a later import makes the module anew."""
    (tmp_path / "slow.py").write_text("import time\nbegan = True\ntime.sleep(1)\nwhole = True\n")
    program = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    def child():
        import slow
        assert slow.whole
    thread = threading.Thread(target=lambda: __import__("slow"))
    thread.start()
    while not hasattr(sys.modules.get("slow"), "began"):
        time.sleep(0.001)
    in_child(child)
    thread.join()
    """
    quietly(tmp_path, program)


def test_a_fork_that_meets_the_import_of_logging(tmp_path) -> None:
    """Whether logging was told that the fork begins or not, it finds its lock as it wants to let go of it."""
    program = """
    over = threading.Event()
    def fork():
        while not over.is_set():
            in_child(lambda: None)
            time.sleep(0)
    threads = [threading.Thread(target=fork) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        import logging, concurrent.futures.thread
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    for lock in (logging._lock, concurrent.futures.thread._global_shutdown_lock):
        assert not (lock._is_owned() if hasattr(lock, "_is_owned") else lock.locked())
        assert lock.acquire(timeout=5), "held for ever"
        lock.release()
    """
    quietly(tmp_path, program, 3)


@pytest.mark.parametrize(
    "ops, jit", [(("sin", "cos", "erf"), ""), pytest.param(("cos",), "numba", marks=pytest.mark.long)]
)
def test_forks_under_the_check_of_the_order_of_locks(tmp_path, ops, jit) -> None:
    """By Numba's pipeline, too, which takes seconds for each operation, behind the marker `long`."""
    program = """
    thread = threading.Thread(target=lambda: [small(op, 8) for op in OPS])
    thread.start()
    while thread.is_alive():
        in_child(lambda: None)
        time.sleep(0.05)
    def child():
        import numpy as np
        assert np.allclose(small("sin", 3)(np.zeros(3, np.float32))[0], 0)
    in_child(child)
    """
    quietly(tmp_path, program.replace("OPS", repr(ops)), OVJIT_SHIPPED="0", OVJIT_CHECK="1", OVJIT_JIT=jit)
