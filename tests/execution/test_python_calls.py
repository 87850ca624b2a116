"""Python calls the runner by built-in functions: arguments, errors, the GIL, Pythons without such calls."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from types import BuiltinFunctionType

import numpy as np
import pytest

from ovjit.execution import python_calls, runner
from tests.support.run import printed

LARGEST = 2**63 - 1


def recorder(arity: int, result: int) -> tuple[object, int, list[tuple[int, ...]]]:
    """A C function of four ints that notes the first `arity` of them: what keeps it alive, its address, and
    the notes."""
    seen: list[tuple[int, ...]] = []

    def note(*numbers: int) -> int:
        seen.append(numbers[:arity])
        return result

    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(note)
    return function, ctypes.cast(function, ctypes.c_void_p).value or 0, seen


@pytest.mark.parametrize("releases_gil", [False, True])
@pytest.mark.parametrize("arity", [1, 2, 3, 4])
def test_numbers_arrive_as_they_were_given(arity: int, releases_gil: bool) -> None:
    for result in (0, -1, LARGEST, -LARGEST - 1, 12345678901):
        alive, address, seen = recorder(arity, result)
        call = python_calls.caller("call", address, arity, releases_gil, runner.address_of("from_python"))
        assert isinstance(call, BuiltinFunctionType)
        for numbers in ((0, 1, 2, 3), (-1, -1, -1, -1), (LARGEST, -LARGEST - 1, 5, -7), (1, -1, 1, -1)):
            assert call(*numbers[:arity]) == result
            assert seen.pop() == numbers[:arity]
        for count in {0, 1, 2, 3, 4, 5} - {arity}:
            with pytest.raises(SystemError):
                call(*[1] * count)
        for place in range(arity):
            wrong: list[object] = [-1] * arity
            for value, error in (("1", TypeError), (None, TypeError), (2**63, OverflowError)):
                wrong[place] = value
                with pytest.raises(error):
                    call(*wrong)
        assert not seen, alive


def test_calls_leave_no_object_behind() -> None:
    alive, address, _ = recorder(2, 10**15)
    call = python_calls.caller("call", address, 2, True, runner.address_of("from_python"))
    assert call is not None
    number = 10**17
    before = sys.getrefcount(number)
    for _ in range(1000):
        assert call(number, number) == 10**15, alive
    assert sys.getrefcount(number) == before


def test_what_may_take_long_lets_other_threads_run() -> None:
    """A wait for a job that does not end: meanwhile another thread counts. So it does if one call in the
    middle of a wait has an exception to raise."""
    native = runner.native("runner", "runner_queues")
    assert isinstance(native.wait, BuiltinFunctionType) and isinstance(native.lead, BuiltinFunctionType)
    job, pool = np.zeros(runner.JOB_WORDS, np.int64), np.zeros(runner.POOL_WORDS, np.int64)
    job[runner.STATE] = runner.RUNNING
    counted, over = [0], threading.Event()

    def count() -> None:
        while not over.is_set():
            counted[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted[0]
        assert native.wait(job.ctypes.data, 300_000_000, pool.ctypes.data, 0) == 0
        assert counted[0] > before + 3
    finally:
        over.set()
        thread.join()


def test_other_pythons_call_by_ctypes() -> None:
    text = """
import sys
from types import SimpleNamespace
import numpy as np
import ovjit
from ovjit.execution import python_calls, runner
python_calls.sys = SimpleNamespace(implementation=SimpleNamespace(name="another"), byteorder=sys.byteorder)
x = ovjit.opset8.parameter([3], np.float32)
compiled = ovjit.compile_model(ovjit.Model([ovjit.opset8.relu(x)], [x]), "CPU")
values = np.array([-1, 0, 2], np.float32)
print(compiled(values)[0].tolist())
request = compiled.create_infer_request()
for _ in range(5):
    request.start_async(values)
    request.wait()
print(request.results[0].tolist(), type(runner.native().lead).__name__)
"""
    assert printed("-c", text).split("\n")[:2] == ["[0.0, 0.0, 2.0]", "[0.0, 0.0, 2.0] CFunctionType"]
