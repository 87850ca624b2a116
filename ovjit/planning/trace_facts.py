"""The record of a traced planning: the arithmetic to replay, and where its results go in the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ovjit.errors import OvjitError
from ovjit.graph.traced import GUARDS, LESS, Tape, Traced, as_found_number, is_traced_number
from ovjit.planning.constants import ALIGNMENT, aligned_bytes
from ovjit.planning.growing import GrowingAxis, Room
from ovjit.planning.plan_steps import Step
from ovjit.planning.views import ARENA, Buffer, Ptr

if TYPE_CHECKING:
    from ovjit.planning.plan import Planner

#: Attributes of a trace besides its steps and constants: int64 arrays, lists of integers or of tuples,
#: integers.
_ARRAYS = (
    "_words", "starts", "chunks", "sizes", "grows", "outputs", "values", "rows", "patches", "chunk_patches"
)  # fmt: skip
_LISTS = ("ranks", "pointers", "buffers", "data_patches", "output_ranks", "fits")
_NUMBERS = ("leaves", "scratch", "work")


Facts = TypeVar("Facts", bound="TraceFacts")


class TraceFacts:
    """The arrays and numbers of one traced plan. A blob stores them."""

    #: The input shapes that it was made for. None for one of a blob.
    made_for: tuple[tuple[int, ...], ...] | None = None

    def __init__(
        self, planner: Planner, tape: Tape, shapes: Sequence[tuple[int, ...]], room: Room | None = None
    ):
        self.made_for = tuple(map(tuple, shapes))
        self.ranks = tuple(map(len, shapes))
        self.growing_axes = None if room is None else room.growing_axes
        self.steps = planner.steps
        self._collect(planner, tape)
        #: Guards that a growing axis fits its capacity: (index of the row, the value that is the length).
        self.fits: list[tuple[int, int]] = []
        if room is not None:
            new, capacity = self._new, tape.leaves - 1
            lengths: list[Any] = [planner.shape(planner.outputs[p.output])[p.axis] for p in room.growing_axes]
            nodes = {new.get(n.node) for n in lengths if is_traced_number(n)}
            for i, (what, _, lhs, rhs) in enumerate(self.rows.tolist()):
                if what == LESS and lhs in nodes and rhs == capacity:
                    self.fits.append((i, lhs))
        del self._new

    def facts(self) -> dict[str, Any] | None:
        """The content, without `steps`, in storable form. None if there are bodies, which are not stored."""
        if any(step.control is not None for step in self.steps):
            return None
        facts: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        facts |= {name: np.array(getattr(self, name), np.int64) for name in _LISTS}
        facts |= {name: int(getattr(self, name)) for name in _NUMBERS}
        facts["places"] = None if self.growing_axes is None else np.array(self.growing_axes, np.int64)
        facts["figures"] = np.array([(*key, node) for key, node in self.figures.items()], np.int64)
        facts["data"] = self.data
        return facts

    @classmethod
    def of_facts(cls: type[Facts], facts: Mapping[str, Any], steps: list[Step]) -> Facts:
        """The trace with this content, which must be authenticated: native code uses its addresses
        unchecked."""
        self = cls.__new__(cls)
        axes = facts["places"]
        self.growing_axes = None if axes is None else tuple(GrowingAxis(*axis) for axis in axes.tolist())
        self.steps = steps
        self.data = aligned_bytes(facts["data"].size)
        self.data[:] = facts["data"]
        for name in _ARRAYS:
            setattr(self, name, np.array(facts[name], np.int64))
        for name in _LISTS:
            setattr(self, name, facts[name].tolist())
        for name in _NUMBERS:
            setattr(self, name, facts[name])
        self.ranks = tuple(self.ranks)
        self.figures = {(i, k): node for i, k, node in facts["figures"].tolist()}
        return self

    def _collect(self, planner: Planner, tape: Tape) -> None:
        """Convert the planner's steps, buffers and traced numbers to arrays."""
        nodes: list[int] = []  # tape values that the plan contains

        def require(number: Any) -> int:
            node = number.node if type(number) is Traced else tape.constant(int(number))
            nodes.append(node)
            return node

        used = planner.used_buffers()
        words, patches, starts = self._collect_words(planner, used, require)
        self._words = np.array(words or [0], np.int64)
        #: Byte offset of each step's arguments.
        self.starts = np.array(starts, np.int64)
        chunks = [(i, require(s.chunks)) for i, s in enumerate(planner.steps) if is_traced_number(s.chunks)]
        self.chunks = np.array(
            [0 if is_traced_number(s.chunks) else s.chunks for s in planner.steps], np.int64
        )
        self.buffers = [(b.first, b.last) for b in used]
        sizes = [require(b.size) for b in used]
        self.grows = np.array([is_traced_number(b.size) for b in used], np.int64)
        scratch = require(-(-(planner.scratch + 4096) // ALIGNMENT) * ALIGNMENT)
        plain_steps = [s for s in planner.steps if s.control is None]  # bodies have their own plans
        work = require(_total(number for step in plain_steps for number in (step.flops, step.bytes)))
        self.data = planner.data.materialize()
        data = [(at, itemsize, require(number)) for at, itemsize, number in planner.data.traced]
        outputs = [require(d) for v in planner.outputs for d in planner.shape(v)]
        self.output_ranks = [len(planner.shape(v)) for v in planner.outputs]
        figures = [(i, k, require(n)) for i, s in enumerate(planner.steps)
                   for k, n in enumerate((s.flops, s.bytes)) if is_traced_number(n)]  # fmt: skip
        self._renumber(tape, nodes)
        new = self._new
        self.patches = patches_of((at, new[node]) for at, node in patches)
        self.chunk_patches = patches_of((at, new[node]) for at, node in chunks)
        self.sizes = np.array([new[node] for node in sizes], np.int64)
        self.scratch, self.work = new[scratch], new[work]
        self.data_patches = [(at, itemsize, new[node]) for at, itemsize, node in data]
        self.outputs = np.array([new[node] for node in outputs], np.int64)
        self.figures = {(i, k): new[node] for i, k, node in figures}
        for step in planner.steps:  # drop the references to the tape
            step.args = ()
            step.chunks, step.flops, step.bytes = map(as_found_number, (step.chunks, step.flops, step.bytes))

    def _collect_words(
        self, planner: Planner, used: Sequence[Buffer], require: Callable[[Any], int]
    ) -> tuple[list[int], list[tuple[int, int]], list[int]]:
        """(arguments of all steps, patches as (index, tape value to add), byte offset of each step's
        arguments). `require` marks a number as needed and returns its tape value."""
        words: list[int] = []
        patches: list[tuple[int, int]] = []
        self.pointers: list[tuple[int, int]] = []  # (word, buffer of the arena)
        number_of = {buffer: i for i, buffer in enumerate(used)}
        starts: list[int] = []
        for step in planner.steps:
            starts.append(len(words) * 8)
            args: Sequence[Any] = step.args or (0,)
            for arg in args:
                kind = type(arg)
                if kind is int:
                    words.append(arg)
                    continue
                if kind is Ptr:
                    words.append(arg.buffer.base)
                    if arg.buffer.base == ARENA:
                        self.pointers.append((len(words), number_of[arg.buffer]))
                    arg = arg.offset + (0 if arg.buffer.base == ARENA else arg.buffer.offset)
                if type(arg) is Traced:
                    patches.append((len(words), require(arg)))
                    words.append(0)
                else:
                    words.append(int(arg))
        return words, patches, starts

    def _renumber(self, tape: Tape, nodes: Sequence[int]) -> None:
        """Keep the rows that guards and wanted values need. Renumber values: leaves, constants, row
        results."""
        needed = set(nodes)
        live_rows = []
        for row in reversed(tape.rows):
            if row[0] in GUARDS or row[1] in needed:
                live_rows.append(row)
                needed.update(row[2:])
        live_rows.reverse()
        order = list(range(tape.leaves))
        order += [constant for constant in tape.constants.values() if constant in needed]
        order += [row[1] for row in live_rows if row[0] not in GUARDS]
        self._new = new = {node: i for i, node in enumerate(order)}
        self.values = np.zeros(len(order), np.int64)
        for number, constant in tape.constants.items():
            if constant in needed:
                if not -(1 << 63) <= number < 1 << 63:
                    raise OvjitError("a number of a trace does not fit 64 bits")  # planned without one
                self.values[new[constant]] = number
        self.leaves = tape.leaves
        rows = [(what, 0 if what in GUARDS else new[to], new[a], new[b]) for what, to, a, b in live_rows]
        self.rows = np.array(rows, np.int64).reshape(len(rows), 4)


def patches_of(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """[2, n] int64s: indices in an array, and the values that are added there."""
    return np.ascontiguousarray(np.array(list(pairs), np.int64).reshape(-1, 2).T)


def _total(numbers: Iterable[Any]) -> Any:
    """The sum of flops and bytes. A traced number that equal layers share is multiplied by its count, so that
    few rows are recorded."""
    plain, times = 0, Counter[int]()
    traced_ones: dict[int, Traced] = {}
    for number in numbers:
        if type(number) is Traced:
            times[number.node] += 1
            traced_ones[number.node] = number
        else:
            plain += int(number)
    return plain + sum(traced_ones[node] * count for node, count in times.items())
