"""Memory that ends at, or begins behind, an inaccessible page: one byte too far ends the process.

`install` puts everything that kernels see into such memory: constants, plan data and every tensor of the
arena, each between pages of its own. `run` does so with inputs and outputs. It is for child processes:
patches stay, and a touch is a crash. Unwritten memory holds 0xAB.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.engine import compile_graph
from ovjit.execution import blocks, table
from ovjit.execution import job as jobs
from ovjit.graph.graph import Graph
from ovjit.planning import parametric
from ovjit.planning import plan as planning

PAGE = mmap.PAGESIZE
#: Plans and memories that `install` keeps apart, the newest.
KEPT = 400
#: Where the inaccessible page is: behind the memory, or before it.
BEHIND, BEFORE = "behind", "before"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _forbid(address: int, size: int = PAGE) -> None:
    if _libc.mprotect(address, size, 0):
        raise OSError(ctypes.get_errno(), "mprotect")


def _mapped(size: int) -> np.ndarray:
    """Zeros in pages of their own; MemoryError, as for any other array, where there is no room."""
    try:
        return np.frombuffer(mmap.mmap(-1, max(size, PAGE)), np.uint8)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error


def region(size: int, guards: Sequence[int]) -> np.ndarray:
    """`size` bytes (whole pages), page-aligned, with the pages at the offsets `guards` inaccessible."""
    raw = _mapped(size)
    raw[:] = 0xAB
    for offset in guards:
        _forbid(raw.ctypes.data + offset)
    return raw


def memory(size: int, side: str) -> np.ndarray:
    """`size` bytes beside an inaccessible page."""
    inside = _pages(max(size, 1))
    whole = region(inside + 2 * PAGE, (0, PAGE + inside))
    start = PAGE + (inside - size if side == BEHIND else 0)
    return whole[start : start + size]


def guarded(array: np.ndarray, side: str) -> np.ndarray:
    """A copy of `array` beside an inaccessible page."""
    copy = empty(array.shape, array.dtype, side)
    copy[...] = array
    return copy


def empty(shape: Sequence[int], dtype: Any, side: str) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return memory(size, side).view(dtype).reshape(shape) if size else np.empty(shape, dtype)


class _Layout:
    """Offsets in one region for pieces that lie between inaccessible pages."""

    def __init__(self, side: str):
        self.side = side
        self.size = PAGE
        self.guards = [0]

    def place(self, size: int) -> int:
        inside = _pages(max(size, 1))
        start = self.size + (inside - size if self.side == BEHIND else 0)
        self.size += inside + PAGE
        self.guards.append(self.size - PAGE)
        return start


def install(side: str) -> None:
    """From now on this process plans and runs between inaccessible pages, on the thread that asks."""
    layouts: dict[int, _Layout] = {}
    protected: dict[int, tuple[Any, np.ndarray]] = {}
    arenas: dict[int, tuple[Any, _Layout]] = {}
    constants, tables, job = planning.Constants, table.Table, jobs.Job
    materialize, table_init, lead = constants.materialize, tables.__init__, job._lead
    finish = planning.Planner.finish

    def add_constant(self: Any, array: np.ndarray, key: Any = None) -> Any:
        layout = self.__dict__.setdefault("_layout", _Layout(side))
        if key is None:
            key = id(array)
            self._alive.append(array)
        offset = self._offset_by_key.get(key)
        if offset is None:
            offset = self._offset_by_key[key] = layout.place(array.nbytes)
            CONSTANTS.append((offset, array.nbytes))
            self.arrays.append((offset, array))
            self.sizes[offset] = array.nbytes
            self.size = layout.size
        self.placed_offsets.append(offset)
        return self.at(offset)

    def placed(self: Any, _memory: np.ndarray | None = None, in_background: bool = False) -> np.ndarray:
        out = planning.aligned_bytes(self.size)
        out[:] = 0  # what lies between the pieces, which plans are compared with
        materialize(self, out, in_background)
        if "_layout" in self.__dict__:
            layouts[id(out)] = self._layout
            protected[id(out)] = (out, out)  # an id is good while its object lives
        return out

    def protect(plain: np.ndarray) -> np.ndarray:
        layout = layouts.get(id(plain))
        if layout is None:
            return plain
        known = protected[id(plain)]
        if known[1] is plain:
            copy = _mapped(layout.size)
            copy[: plain.size] = plain
            for offset in layout.guards:
                _forbid(copy.ctypes.data + offset)
            known = protected[id(plain)] = (plain, copy)
            layouts[id(copy)] = _Done  # not again
        return known[1]

    def make_table(self: Any, plan: Any, addresses: Any) -> None:
        data = plan.data
        layout = layouts.get(id(data))
        table_init(self, plan, addresses)
        if layout is not None and layout is not _Done:
            self.data = protect(data)
            plan.data = data
        if layouts.get(id(plan.memory)) not in (None, _Done):
            plan.memory = protect(plan.memory)

    def assign_offsets(buffers: list[Any], alignment: int) -> int:
        layout = _Layout(side)
        for buffer in buffers:
            buffer.offset = layout.place(buffer.size)
        _latest.append(layout)
        return layout.size

    def finished(self: Any, lay_out: Any = None) -> Any:
        if lay_out is not None:  # of a plan that is proved and not run
            return finish(self, lay_out)
        _latest.clear()
        plan = finish(self)
        arenas[id(plan)] = (plan, _latest[-1])
        for known in (layouts, protected, arenas):  # what is not known any more lies without guards
            while len(known) > KEPT:
                del known[next(iter(known))]
        return plan

    def lead_guarded(self: Any) -> None:
        plan = self._table.plan
        known = arenas.get(id(plan))
        wanted = int(self.words[jobs.ARENA_SIZE])
        arena = blocks.Arena.__new__(blocks.Arena)
        size = _pages(wanted)
        # scratch ends at a page of its own
        guards = [*(known[1].guards if known else ()), size]
        arena.memory = region(size + PAGE, guards)
        arena.address, arena.size = arena.memory.ctypes.data, size
        blocks.free_arenas.clear()
        blocks.free_arenas.append(arena)
        try:
            lead(self)
        finally:
            blocks.free_arenas.clear()

    memories: dict[int, tuple[Any, _Layout]] = {}
    traced = parametric.Parametric
    lay_out, make_plan = traced._lay_out, traced._plan

    def laid_out(self: Any, sizes: np.ndarray) -> Any:
        _latest.clear()
        memory = lay_out(self, sizes)
        memories[id(memory)] = (memory, _latest[-1])
        return memory

    def planned(self: Any, shapes: Any, whole: np.ndarray, memory: Any) -> Any:
        plan = make_plan(self, shapes, whole, memory)
        arenas[id(plan)] = (plan, memories[id(memory)][1])
        if plan.data is not self.data and id(self.data) in layouts:  # numbers of these shapes are written in
            layouts[id(plan.data)] = layouts[id(self.data)]
            protected[id(plan.data)] = (plan.data, plan.data)
        return plan

    # every set of sizes has memory of its own, without room for larger ones
    parametric.SPARE, parametric.LEAST_USED = 0, 1.0
    parametric.assign_offsets = assign_offsets
    traced._lay_out = laid_out  # type: ignore[method-assign]
    traced._plan = planned  # type: ignore[method-assign]
    constants.add = add_constant  # type: ignore[method-assign]
    constants.materialize = placed  # type: ignore[method-assign]
    tables.__init__ = make_table  # type: ignore[method-assign]
    planning.assign_offsets = assign_offsets
    planning.Planner.finish = finished  # type: ignore[method-assign]
    job._lead = lead_guarded  # type: ignore[method-assign]


#: (offset, bytes) of what has been placed among constants, for the tests of this module.
CONSTANTS: list[tuple[int, int]] = []
_Done = _Layout(BEHIND)
_latest: list[_Layout] = []


def run_guarded(
    graph: Graph, shapes_of_inputs: Sequence[Sequence[np.ndarray]], side: str
) -> list[list[np.ndarray]]:
    """The outputs of `graph` for each set of inputs, all of them between inaccessible pages."""
    executable = compile_graph(graph, {"threads": 1})
    job = executable.new_job()
    return [run_job(executable, job, arrays, side) for arrays in shapes_of_inputs]


def run_job(executable: Any, job: Any, arrays: Sequence[np.ndarray], side: str) -> list[np.ndarray]:
    """The outputs of one run, inputs and outputs between inaccessible pages."""
    for i, array in enumerate(arrays):
        job.set_input(i, guarded(np.ascontiguousarray(array).reshape(array.shape), side))
    table = executable.table(tuple(a.shape for a in arrays))
    for i, shape in enumerate(table.plan.output_shapes[: len(job.outputs)]):
        known = shape is not None and all(isinstance(d, int) for d in shape)
        job.set_output(i, None)
        if known and table.composite is None and not job.outputs[i].dtype.hasobject:
            job.set_output(i, empty(shape, job.outputs[i].dtype, side))
    job.run()
    return [np.array(o) for o in job.outputs]
