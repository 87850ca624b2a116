"""Every operation's samples with all memory ending at, or beginning behind, an inaccessible page.

In child processes: a touch of such a page ends the process, and the last line says which case it was. Some
hundred of the cases by default, all of them behind the marker `long`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.guard_pages import BEFORE, BEHIND
from tests.support.run import LONGEST, PATIENCE, python

#: Of all cases so many, with pages on either side; fewer on an emulated CPU.
SOME = {BEHIND: 0.0005 / PATIENCE, BEFORE: 0.0005 / PATIENCE}
SEED = 20261209


def _samples(side: str, fraction: float, *names: str) -> None:
    _all_right(python("-m", "tests.fuzz.guarded_ops", side, fraction, SEED, *names, seconds=LONGEST))


def _all_right(done: subprocess.CompletedProcess[str]) -> None:
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if line.startswith("WRONG")]
    last = [line for line in lines if line.startswith("case")][-1:]
    assert not wrong, "\n".join(wrong[:20])
    assert done.returncode == 0, f"the process died ({done.returncode}) in {last}: {done.stderr[-2000:]}"
    assert lines[-1].startswith("ran ") and lines[-1] != "ran 0"


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.timeout(900)
def test_some_of_all_samples(side: str) -> None:
    _samples(side, SOME[side])


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("side", [BEHIND, BEFORE])
def test_caches_of_paged_attention(side: str, step: int) -> None:
    _all_right(python("-m", "tests.fuzz.guarded_caches", side, step))


@pytest.mark.long
@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.timeout(0)
def test_all_samples(side: str) -> None:
    _samples(side, 1)


_TOUCH = """
import ctypes, sys
import numpy as np
from tests.support import guard_pages
side, what = sys.argv[1:]
guard_pages.install(side)
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
b = Builder()
x = b.add("Parameter", (), {"shape": (5,), "element_type": "f32"}).output
c = b.constant(np.arange(5, dtype=np.float32) + 0.3)
y = b.add("Softmax", [b.add("Add", [x, c]).output], {"axis": 0}).output
executable = compile_graph(b.finish([y]), {"threads": 1})
job = executable.new_job()
array = guard_pages.guarded(np.ones(5, np.float32), side)
job.set_input(0, array)
job.run()
plan = executable.table(((5,),)).plan
if what == "input":
    first, size = array.ctypes.data, array.nbytes
else:
    memory = plan.memory
    (offset, size), = [(o, n) for o, n in guard_pages.CONSTANTS if n == 20]
    first = memory.ctypes.data + offset
last, away = (first + size - 1, 1) if side == "behind" else (first, -1)
ctypes.string_at(last, 1)
print("alive", flush=True)
ctypes.string_at(last + away, 1)
print("alive", flush=True)
"""


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.parametrize("what", ["input", "constant"])
def test_a_byte_too_far_ends_the_process(side: str, what: str, tmp_path: Path) -> None:
    """The last byte may be touched, the one behind it may not; so for inputs and for constants."""
    program = tmp_path / "touch.py"
    program.write_text(_TOUCH)
    done = python(program, side, what)
    assert done.stdout.split() == ["alive"] and done.returncode < 0, (side, what, done.stdout, done.stderr)


_KERNEL = """
import sys
import numpy as np
from tests.support import guard_pages
guard_pages.install(sys.argv[1])
from ovjit.planning import copies
from ovjit.planning.views import View
wrong = int(sys.argv[2])
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.planning.plan import Planner
Planner._within = lambda self, view: 0  # the check that would tell

b = Builder()
x = b.add("Parameter", (), {"shape": (64,), "element_type": "f32"}).output
y = b.add("Softmax", [b.add("Softmax", [x], {"axis": 0}).output], {"axis": 0}).output
plan = Planner.output
def output(self, value, layout=None, over=()):
    view = plan(self, value, layout, over)
    out = View(view.buffer, view.shape, view.strides, view.itemsize, view.offset + wrong)
    self.views[value] = out
    return out
Planner.output = output
executable = compile_graph(b.finish([y]), {"threads": 1})
job = executable.new_job()
job.set_input(0, guard_pages.guarded(np.ones(64, np.float32), sys.argv[1]))
job.set_output(0, guard_pages.empty((64,), np.float32, sys.argv[1]))
print("running", flush=True)
job.run()
print("alive", flush=True)
"""


@pytest.mark.parametrize(("side", "wrong"), [(BEHIND, 4), (BEFORE, -4)])
def test_a_kernel_that_writes_too_far_ends_the_process(side: str, wrong: int, tmp_path: Path) -> None:
    """Tensors of the arena and outputs, by four bytes."""
    program = tmp_path / "kernel.py"
    program.write_text(_KERNEL)
    for by, alive in ((0, True), (wrong, False)):
        done = python(program, side, by)
        assert "running" in done.stdout, done.stderr
        assert ("alive" in done.stdout) == alive, (side, by, done.stderr)


def test_arrays_between_pages_are_arrays() -> None:
    from tests.support.guard_pages import guarded

    for side in (BEHIND, BEFORE):
        for array in (np.arange(7, dtype=np.float32), np.zeros((0, 3)), np.array(5), np.ones((2, 3), bool)):
            assert np.array_equal(guarded(array, side), array) and guarded(array, side).shape == array.shape
