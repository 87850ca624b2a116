"""Plans as functions of their dimensions: traced once, then evaluated for other shapes in microseconds.

`Parametric` has the result of a traced planning (see `ovjit.graph.traced`): the arithmetic to replay, as
rows, and the destinations of its results. Destinations are the steps' arguments and chunk counts, constants
of the plan, and shapes. `at` returns the `Plan` for given shapes, or None if a guard fails.

Arena offsets are not traced. They are assigned for buffer sizes with spare capacity, and again if a size
exceeds its capacity.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen import routines
from ovjit.codegen.cpu.objects import function
from ovjit.codegen.kernel import Kernel
from ovjit.errors import OvjitError
from ovjit.forks import ForkLock, made_once
from ovjit.graph.traced import GUARDS, LARGEST, MISFIT, Tape
from ovjit.planning.arena import assign_offsets
from ovjit.planning.chunks import PARALLEL_WORK
from ovjit.planning.constants import ALIGNMENT, aligned_bytes
from ovjit.planning.growing import CapacityExceeded, Room
from ovjit.planning.plan_steps import STEP_CHUNKS, STEP_WORDS, Plan
from ovjit.planning.trace_facts import TraceFacts, patches_of
from ovjit.planning.views import Buffer

if TYPE_CHECKING:
    pass

#: Maximum traces of a program.
MOST_TRACES = 16
#: A program stops tracing after this many traces, if they were reused less often than made.
USELESS_TRACES = 8
#: Spare capacity of buffers with traced sizes: SPARE / 8 of the size, at least LEAST_SPARE bytes. So buffers
#: with a few bytes per token of a decoder are placed once.
SPARE, LEAST_SPARE = 2, 16384
#: A memory plan of which a smaller fraction is used is replaced.
LEAST_USED = 0.5
#: Maximum recipes (incremental updates) of a memory plan.
MOST_RECIPES = 4


@functools.cache
def evaluating_kernel() -> Kernel:
    return routines.routines("evaluate", ("evaluate",), "ovjit.planning.evaluation")


@functools.cache
def evaluate_address() -> int:
    return routines.load("evaluate", ("evaluate",), evaluating_kernel)["evaluate"]


@functools.cache
def evaluation() -> Callable[[int, int, int, int], int]:
    return function(evaluate_address(), 4, False)


class Recipe:
    """An incremental update: the rows that depend on certain leaves, and the parts of a plan that they
    change. `address`: its numbers in the form that `evaluate` reads."""

    __slots__ = ("_parts", "address")

    def __init__(self, *parts: Any):
        """`parts`: for each leaf 1 if it changes, else 0; the rows; buffer sizes as (value, capacity);
        patches as (offset from the first value, constant, value that is added to the constant), all int64."""
        arrays = [np.array(part, np.int64) for part in parts]
        numbers = np.array([(len(array), array.ctypes.data) for array in arrays], np.int64)
        self._parts = [*arrays, numbers]
        self.address = numbers.ctypes.data


class Memory:
    """A memory plan: buffer offsets, the capacity of each buffer, and the arguments with these offsets.
    `use`: its numbers in the form that `evaluate` reads, at `address`. `recipes`: updates for sets of leaves
    that have changed twice in a row. `last_free`: the last set of changed leaves without a recipe."""

    __slots__ = ("address", "arena_size", "offsets", "recipes", "room", "use", "last_free", "words")

    def __init__(
        self, room: np.ndarray, offsets: Sequence[int], arena_size: int, words: np.ndarray, use: np.ndarray
    ):
        self.room = room
        self.offsets = offsets
        self.arena_size = arena_size
        self.words = words
        self.use = use
        self.address = use.ctypes.data
        self.recipes: tuple[Recipe, ...] = ()
        self.last_free = b""

    def lay_out(self, buffers: Sequence[Buffer]) -> int:
        """Assign this plan's offsets to the buffers of another planning. Raises OvjitError unless they
        fit."""
        pairs = zip(buffers, self.room, strict=False)
        if len(buffers) != len(self.offsets) or any(buffer.size > room for buffer, room in pairs):
            raise OvjitError("internal error: a plan's buffers differ from those of its trace")
        for buffer, offset in zip(buffers, self.offsets, strict=True):
            buffer.offset = offset
        return self.arena_size


class Parametric(TraceFacts):
    """One traced plan. Thread-safe: each plan is a new object, and the tuple of memory plans is replaced."""

    _memories: tuple[Memory, ...] = ()
    #: The part that the tables of all its plans share, see `ovjit.execution.table`. None before the first.
    table: Any = None
    #: Whether the kernels of its steps are loaded.
    loaded = False

    # --- for given shapes

    def at(self, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> Plan | None:
        """The plan for these input shapes. None if a guard fails, or ranks or growing axes differ.

        Raises CapacityExceeded if a growing axis does not fit `room`.
        """
        axes = None if room is None else room.growing_axes
        if tuple(map(len, shapes)) != self.ranks or self.growing_axes != axes:
            return None
        evaluate, (rows, count, size) = evaluation(), self._sizes
        numbers = np.empty(size, np.int64)
        try:
            self._write_leaves(numbers, 0, shapes, room)
        except struct.error:  # more than 64 bits
            return None
        address = numbers.ctypes.data
        for memory in (*self._memories, self._nowhere):
            failed = evaluate(rows, count, address, memory.address)
            if failed >= 0:
                break
        else:
            memory = self._lay_out(numbers[self.sizes])
            failed = evaluate(rows, count, address, memory.address)
        if failed:
            for row, length in self.fits:
                if row == failed - 1:
                    raise CapacityExceeded(int(numbers[length]))
            return None
        plan = self._plan(shapes, numbers, memory)
        plan.address = address
        return plan

    def _write_leaves(
        self, numbers: np.ndarray, at: int, shapes: Sequence[tuple[int, ...]], room: Room | None
    ) -> None:
        last = () if room is None else (room.capacity,)
        self._packing.pack_into(numbers.data, 8 * at, *chain.from_iterable(shapes), *last)

    @made_once
    def _packing(self) -> struct.Struct:
        return struct.Struct(f"{self.leaves}q")

    def move(self, plan: Plan, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> bool:
        """Update `plan` in place for other shapes of the same ranks, such as those of the next token. This
        trace must have made `plan`, and nothing else may use it. False: `plan` must be dropped."""
        axes = None if room is None else room.growing_axes
        if axes is not self.growing_axes:
            if axes != self.growing_axes:
                return False
            self.growing_axes = axes
        numbers, memory, leaf_start = plan.numbers, plan.arena, self._parts[-1]
        try:
            self._write_leaves(numbers, leaf_start, shapes, room)
        except struct.error:
            return False
        evaluate, address = evaluation(), plan.address
        leaves = address + 8 * leaf_start
        failed = MISFIT
        for recipe in memory.recipes:
            failed = evaluate(recipe.address, -1, address, leaves)
            if failed != MISFIT:
                break
        else:
            free = (numbers[leaf_start:] != numbers[: self.leaves]).astype(np.int64)
            previous, memory.last_free = memory.last_free, free.tobytes()
            if previous != memory.last_free:
                return False
            recipe = self._recipe(free, memory)
            memory.recipes = (recipe, *memory.recipes[: MOST_RECIPES - 1])
            failed = evaluate(recipe.address, -1, address, leaves)
        if failed:
            return False
        parallel = plan.parallel
        self._tell(plan, shapes)
        return plan.parallel == parallel

    def check_moved(self, plan: Plan, room: Room | None) -> None:
        """Raise OvjitError unless an updated plan equals the one that `at` computes for its shapes."""
        numbers = np.empty(self._sizes[2], np.int64)
        self._write_leaves(numbers, 0, plan.input_shapes, room)
        rows, count, _ = self._sizes
        failed = evaluation()(rows, count, numbers.ctypes.data, plan.arena.address)
        end, chunks = self._parts[3], plan.rows[: len(plan.steps), STEP_CHUNKS]
        if failed or plan.numbers[:end].tobytes() != numbers[:end].tobytes() or (chunks != plan.chunks).any():
            raise OvjitError("internal error: a plan that was replayed for other shapes does not match them")

    def _recipe(self, free: np.ndarray, memory: Memory) -> Recipe:
        """The update for the leaves that are marked by 1 in `free`."""
        changed = [*map(bool, free.tolist()), *repeat(False, len(self.values) - self.leaves)]
        rows = []
        for row in self.rows.tolist():
            what, to, a, b = row
            if changed[a] or changed[b]:
                rows.append(row)
                if what not in GUARDS:
                    changed[to] = True
        room = memory.room.tolist()
        sizes = [(node, room[i]) for i, node in enumerate(self.sizes.tolist()) if changed[node]]
        results, chunks, words, table, _ = self._parts
        patches = [(results + i, 0, node) for i, node in enumerate(self._results[1].tolist())]
        for index, node in self.chunk_patches.T.tolist():
            patches += [(chunks + index, 0, node), (table + index * STEP_WORDS + STEP_CHUNKS, 0, node)]
        patches += [(words + i, int(memory.words[i]), node) for i, node in self.patches.T.tolist()]
        return Recipe(free, rows, sizes, [patch for patch in patches if changed[patch[2]]])

    @made_once
    def _sizes(self) -> tuple[int, int, int]:
        """(address of the rows, number of rows, number of int64s in a plan)."""
        return self.rows.ctypes.data, len(self.rows), self._parts[-1] + self.leaves

    @made_once
    def _parts(self) -> tuple[int, int, int, int, int]:
        """Offsets in a plan's array, in int64s, of results, chunks, arguments, the table's rows, and space
        for new leaves. The values come first."""
        chunks = len(self.values) + self._results.shape[1]
        words = chunks + len(self.chunks)
        rows = words + len(self._words)
        return len(self.values), chunks, words, rows, rows + STEP_WORDS * max(len(self.steps), 1)

    @made_once
    def _results(self) -> np.ndarray:
        """The patches of results: dimensions of the distinct output shapes, scratch size, and work."""
        return patches_of(enumerate((*chain.from_iterable(self._shapes[0]), self.scratch, self.work)))

    @made_once
    def _shapes(self) -> tuple[list[tuple[int, ...]], list[int]]:
        """(the distinct output shapes as lists of values, index of each output's shape). The states of a
        decoder share one shape."""
        index: dict[tuple[int, ...], int] = {}
        nodes = iter(self.outputs.tolist())
        which = [index.setdefault(tuple(islice(nodes, rank)), len(index)) for rank in self.output_ranks]
        return list(index), which

    @made_once
    def _none(self) -> np.ndarray:
        """Zeros: the constants to which results are added."""
        return np.zeros(self._results.shape[1], np.int64)

    @made_once
    def _nowhere(self) -> Memory:
        """A memory plan that no sizes fit."""
        room = np.zeros(len(self.sizes), np.int64)
        return Memory(room, (), 0, self._words, self._numbers_of(room, self._words, 8 * LARGEST))

    def _numbers_of(self, room: np.ndarray, words: np.ndarray, least: int) -> np.ndarray:
        """A memory plan in the form that `evaluate` reads: capacities of buffers, and the parts of plans. It
        serves sizes that fit `room`, and for which a new memory plan would need at least `least` bytes."""

        def at(array: np.ndarray) -> int:
            return array.ctypes.data

        use = [self.leaves, len(self.values), at(self.values)]
        use += [len(self.sizes), at(self.sizes), at(room), at(self.grows), least, SPARE, LEAST_SPARE]
        parts = (self._none, self._results), (self.chunks, self.chunk_patches), (words, self.patches)
        for start, patches in parts:
            use += [len(start), at(start), patches.shape[1], *map(at, patches)]
        return np.array(use, np.int64)

    def _lay_out(self, sizes: np.ndarray) -> Memory:
        """A new memory plan for these sizes, with spare capacity."""
        room = np.where(self.grows, sizes + np.maximum(sizes * SPARE // 8, LEAST_SPARE), sizes)
        buffers = []
        for (first, last), size in zip(self.buffers, room.tolist(), strict=True):
            buffer = Buffer(size)
            buffer.first, buffer.last = first, last
            buffers.append(buffer)
        arena = assign_offsets(list(buffers), ALIGNMENT)
        words = self._words.copy()
        for at, number in self.pointers:
            words[at] += buffers[number].offset
        use = self._numbers_of(room, words, math.ceil(LEAST_USED * int(room.sum())))
        memory = Memory(room, [b.offset for b in buffers], arena, words, use)
        self._memories = (memory, *self._memories[:3])
        return memory

    def _plan(self, shapes: Sequence[tuple[int, ...]], numbers: np.ndarray, memory: Memory) -> Plan:
        """The plan whose numbers `evaluate` has written to `numbers`: values, results, chunks, arguments."""
        _, chunks, words, rows, end = self._parts
        plan = Plan()
        plan.steps = self.steps
        plan.numbers = numbers
        plan.block = numbers[words:rows]
        plan.rows = numbers[rows:end].reshape(-1, STEP_WORDS)
        plan.trace = self
        plan.arena = memory
        plan.chunks = numbers[chunks:words]
        plan.data = self.data
        if self.data_patches:
            plan.data = aligned_bytes(self.data.size)
            plan.data[:] = self.data
        plan.arena_size = plan.scratch_offset = memory.arena_size
        if self.figures:
            plan.figures = lambda i, k: int(numbers[self.figures[i, k]]) if (i, k) in self.figures else None
        self._tell(plan, shapes)
        return plan

    def _tell(self, plan: Plan, shapes: Sequence[tuple[int, ...]]) -> None:
        """Copy evaluated numbers to the plan: output shapes, scratch size, work, and traced constants."""
        results, chunks, *_ = self._parts
        for at, itemsize, node in self.data_patches:
            plan.data[at : at + itemsize].view(f"i{itemsize}")[0] = plan.numbers[node]
        *dims, plan.scratch_size, work = plan.numbers[results:chunks].tolist()
        plan.parallel = work > PARALLEL_WORK
        plan.input_shapes = tuple(shapes)
        each, which = self._shapes
        numbers = iter(dims)
        result = [tuple(islice(numbers, len(nodes))) for nodes in each]
        plan.output_shapes = [result[i] for i in which]


def check_plan(plan: Plan, anew: Plan) -> None:
    """Raise OvjitError unless a trace's `plan` equals the plan `anew` of a planning without a trace."""
    assert plan.block is not None and plan.chunks is not None
    words = [word for block in anew.words for word in block or [0]] or [0]
    differ = {
        "arguments": plan.block.tolist() != words,
        "chunks": plan.chunks.tolist() != [step.chunks for step in anew.steps],
        "kernels": [s.kernel for s in plan.steps] != [s.kernel for s in anew.steps],
        "constants": plan.data.tobytes() != anew.data.tobytes(),
        "outputs": list(map(tuple, plan.output_shapes)) != list(map(tuple, anew.output_shapes)),
        "scratch memory": plan.scratch_size != anew.scratch_size,
        "threads": plan.parallel != anew.parallel,
    }
    wrong = [name for name, different in differ.items() if different]
    if wrong:
        raise OvjitError(f"internal error: a replayed plan differs from a new plan in {', '.join(wrong)}")


class Traces:
    """The traced plans of one program, most recently used first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = ForkLock("model")
        self._traces: tuple[Parametric, ...] = ()
        self.total = 0
        self.hits = 0
        #: Why planning could not be traced.
        self.refused = ""
        #: Shapes, tape and types of a planning that exceeded the capacity, for its repetition.
        self.outgrown: tuple[tuple[tuple[int, ...], ...], Tape, dict[Any, Any]] | None = None
        #: Called when a trace has been added and has made its first plan.
        self.added: Callable[[Traces], None] | None = None

    def __iter__(self) -> Iterator[Parametric]:
        return iter(self._traces)

    def find(self, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> Plan | None:
        """The plan for these shapes. None if no trace serves them."""
        for trace in self._traces:
            plan = trace.at(shapes, room)
            if plan is not None:
                self.hits += 1
                if self._traces[0] is not trace:
                    with self._lock.lock:
                        others = tuple(t for t in self._traces if t is not trace)
                        self._traces = (trace, *others)
                return plan
        return None

    @property
    def useful(self) -> bool:
        """False if tracing no longer pays: traces were reused less often than made (USELESS_TRACES)."""
        return not self.refused and (self.total < USELESS_TRACES or self.hits >= self.total)

    def add(self, trace: Parametric) -> None:
        with self._lock.lock:
            self.total += 1
            self._traces = (trace, *self._traces[: MOST_TRACES - 1])
