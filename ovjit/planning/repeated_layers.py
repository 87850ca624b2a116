"""Equal layers: the planned steps of one layer are copied for the following layers.

The layers of a network often differ only in their weights. `find_layers` finds sequences of equal lowerings
before a program's first trace. `Repeats` uses them while a trace is made:

- The first layers are planned, and so is the last one, whose values have other readers.
- The steps, buffers and views that planning of one layer added are copied for each next layer, with that
  layer's own buffers and weights. The planner's state must be the same before both layers.
- A layer that is not provably equal is planned.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.kernel import Kernel
from ovjit.forks import made_once
from ovjit.graph.converted import Unmade
from ovjit.graph.graph import Node, Value
from ovjit.graph.traced import identity
from ovjit.planning.concrete_types import MOST_COMPARED, surely_same_types
from ovjit.planning.fuse import Group
from ovjit.planning.plan_steps import Step
from ovjit.planning.views import CONSTANTS, FIRST_IO, PLAN_DATA, Buffer, Layout, Ptr, View
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.planning.lower import Lowering
    from ovjit.planning.plan import Planner

#: Layers that are always planned: the first two, of which the second may be the template, and the last.
PLANNED = 3
#: Minimum number of lowerings that are saved. Planning fewer takes less time than comparing them.
WORTH = 16


#: Name of a group's steps, and friendly names of the model's nodes that the group computes.
Name = tuple[str, tuple[str, ...]]


class Lowered(NamedTuple):
    """The input of planning: lowerings in order, outputs, layouts, and the number of readers of each value.
    `packed`: offsets of the constants that each lowering has placed."""

    lowerings: Sequence[Lowering]
    packed: Sequence[Sequence[int]]
    outputs: Collection[Value]
    layouts: Mapping[Value, Layout]
    readers: Mapping[Value, int]


def find_layers(program: Lowered) -> Layers | None:
    """The repeated layers that save most planning. None if they save fewer than WORTH lowerings."""
    numbers: dict[tuple, int] = {}
    lowerings = program.lowerings
    marks = np.array([numbers.setdefault(_mark(low), len(numbers)) for low in lowerings], np.int64)
    best = (WORTH, 0, 0, 0)
    for period in range(1, len(marks) // (PLANNED + 1) + 1):
        differ = np.flatnonzero(marks[period:] != marks[:-period])
        bounds = np.concatenate(([-1], differ, [len(marks) - period]))
        longest = int(np.diff(bounds).argmax())
        first, end = int(bounds[longest]) + 1, int(bounds[longest + 1])
        saved = ((end - first) // period + 1 - PLANNED) * period
        if saved > best[0]:
            best = saved, period, first, end
    _, period, first, end = best
    return _find_longest_run(program, period, first, end) if period else None


def _mark(lowering: Lowering) -> tuple:
    """A cheap key that is equal for corresponding lowerings of equal layers."""
    out = lowering.out
    return type(lowering), tuple([n.op.name for n in lowering.group.nodes]), out.dtype, len(out.shape or ())


def _find_longest_run(program: Lowered, period: int, first: int, end: int) -> Layers | None:
    """The longest run of equal layers, where lowerings `first` to `end` - 1 are each compared with the
    lowering `period` later."""
    lowerings = program.lowerings
    made_by = {v: i for i, low in enumerate(lowerings) for n in low.group.nodes for v in n.outputs}
    best, pairs = None, Layers(program, made_by, first, period)
    for i in range(first, end):
        if pairs.add(i) and i + 1 < end:
            continue
        complete = i + 1 == end and pairs.good
        pairs.count = (i + complete - pairs.first) // period + 1
        if pairs.count > max(PLANNED, best.count if best else 0) and pairs.common.isdisjoint(pairs.follows):
            best = pairs
        pairs = Layers(program, made_by, i + 1, period)
    return best


class Layers:
    """A run of `count` equal layers. Layer k has the `period` lowerings from index `first + k * period` on.
    `add` extends the run by comparing a lowering with the one a period later."""

    def __init__(self, program: Lowered, made_by: Mapping[Value, int], first: int, period: int):
        self.first = first
        self.period = period
        self.count = 0
        self.good = True
        #: Value of a layer -> the corresponding value of the next layer: outputs of nodes, results of the
        #: previous layer, the layer's own inputs and weights.
        self.follows: dict[Value, Value] = {}
        #: Offset of a layer's constant -> offset of the corresponding constant of the next layer.
        self.constant_offsets: dict[int, int] = {}
        #: Node of a layer -> the corresponding node of the previous layer.
        self.twins: dict[Node, Node] = {}
        #: Name and origins of a layer's group -> those of the next layer's group.
        self.names: dict[Name, Name] = {}
        self.common: set[Value] = set()  # values, not constants, that all layers read
        self._program = program
        self._made_by = made_by
        self._compared: set[tuple[Group, Group]] = set()
        self._arrays: set[tuple[int, int]] = set()  # ids of pairs of arrays that were found alike
        self._moved: set[tuple[int, int]] = set()  # offsets of the compared lowerings' constants, in pairs

    def add(self, i: int) -> bool:
        """Compare lowering `i` with the one a period later. Returns whether they are equal."""
        one, other = self._program.lowerings[i], self._program.lowerings[i + self.period]
        placed, others = self._program.packed[i], self._program.packed[i + self.period]
        self._moved = set(zip(placed, others, strict=False))
        self.good = (
            len(placed) == len(others)
            and all(self.constant_offsets.setdefault(a, b) == b for a, b in self._moved)
            and self._groups(one.group, other.group)
            and self._same(one, other)
        )
        return self.good

    def _groups(self, one: Group, other: Group) -> bool:
        if (one, other) in self._compared:  # a lowering's attributes refer to its group again
            return True
        nodes, others = one.nodes, other.nodes
        self.names[one.name, one.origins] = other.name, other.origins
        good = (
            (one.uniform, one.used, len(nodes), one.anchor is None)
            == (other.uniform, other.used, len(others), other.anchor is None)
            and all(map(self._nodes, nodes, others))
        )  # fmt: skip
        if good:
            self._compared.add((one, other))
        return good

    def _nodes(self, one: Node, other: Node) -> bool:
        if self.twins.get(other) is one:
            return True
        if one.op is not other.op or one.lowered != other.lowered or one.op.runs_body:
            return False
        if len(one.inputs) != len(other.inputs) or not self._same(one.attrs, other.attrs):
            return False
        if not all(map(self._read, one.inputs, other.inputs)):
            return False
        self.twins[other] = one
        return len(one.outputs) == len(other.outputs) and all(map(self._pair, one.outputs, other.outputs))

    def _pair(self, one: Value, other: Value) -> bool:
        return self._alike(one, other) and self.follows.setdefault(one, other) is other

    def _alike(self, one: Value, other: Value) -> bool:
        """Whether two values have the same type, layout and number of readers, and both or none are
        outputs."""
        program = self._program
        return (
            _same_types(one, other)
            and (one in program.outputs) == (other in program.outputs)
            and program.layouts.get(one) == program.layouts.get(other)
            and program.readers.get(one) == program.readers.get(other)
        )

    def _read(self, one: Value, other: Value) -> bool:
        """Whether `one` may be the input of a layer that corresponds to input `other` of the next layer."""
        kinds = one.node.op.name, other.node.op.name
        if one is other:
            if "Constant" not in kinds:
                self.common.add(one)
            return self._made_by.get(one, -1) < self.first
        if kinds == ("Constant", "Constant"):
            return self._constants(one, other)
        follows = self.follows.get(one)
        if follows is not None or "Constant" in kinds:
            return follows is other
        if kinds == ("Parameter", "Parameter"):
            return self._pair(one, other)
        # the first layer reads a value from before all layers, the second one a result of the first
        first = self._made_by.get(one, -1) < self.first <= self._made_by.get(other, -1)
        return first and self._made_by[other] < self.first + self.period and self._crossing(one, other)

    def _crossing(self, one: Value, other: Value) -> bool:
        return _same_types(one, other) and self.follows.setdefault(one, other) is other

    def _constants(self, one: Value, other: Value) -> bool:
        a, b = one.stored_array, other.stored_array
        assert a is not None and b is not None
        if not _same_types(one, other) or one.dtype != other.dtype or not self._arrays_alike(a, b):
            return False
        return self.follows.setdefault(one, other) is other

    def _arrays_alike(self, a: Any, b: Any) -> bool:
        """Whether two constants are equal, or both are weights, whose elements no plan depends on."""
        if a is b or (id(a), id(b)) in self._arrays:
            return True
        if type(a) is not type(b) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not _is_weights(a) and (a.size > MOST_COMPARED or a.tobytes() != b.tobytes()):
            return False
        self._arrays.add((id(a), id(b)))
        return True

    def _same(self, a: Any, b: Any) -> bool:
        """Whether two lowerings plan the same steps if an attribute is `a` in one and `b` in the other."""
        if a is b:
            return True
        kind = type(a)
        if kind is not type(b):
            return False
        if kind is int:
            return a == b or (a, b) in self._moved
        compare = _COMPARED.get(kind)
        if compare is None:
            compare = _COMPARED[kind] = _comparison(kind)
        return compare(self, a, b)

    def _equal(self, a: Any, b: Any) -> bool:
        return bool(a == b)

    def _differ(self, a: Any, b: Any) -> bool:
        return False

    def _each(self, a: Collection[Any], b: Collection[Any]) -> bool:
        if len(a) != len(b):
            return False
        for x, y in zip(a, b, strict=True):  # all() of a generator takes longer
            if x is not y and not self._same(x, y):
                return False
        return True

    def _bodies(self, a: Body, b: Body) -> bool:
        return a.text() == b.text()

    def _dicts(self, a: dict, b: dict) -> bool:
        return list(a) == list(b) and self._each(a.values(), b.values())

    def _pointers(self, a: Ptr, b: Ptr) -> bool:
        at = a.buffer.offset + a.offset, b.buffer.offset + b.offset
        return a.buffer.base == b.buffer.base == CONSTANTS and (at[0] == at[1] or at in self._moved)

    def _partials(self, a: functools.partial, b: functools.partial) -> bool:
        return a.func is b.func and self._each(a.args, b.args) and self._dicts(a.keywords, b.keywords)

    def _objects(self, a: Any, b: Any) -> bool:
        mine, its = vars(a), vars(b)
        if mine.keys() != its.keys():
            if not (mine.keys() ^ its.keys()) <= _DERIVED:
                return False
            mine = {k: v for k, v in mine.items() if k in its}
        for name, value in mine.items():
            other = its[name]
            if value is not other and not self._same(value, other):
                return False
        return True


#: Cached properties: one of two equal objects may have them and the other not.
_DERIVED = frozenset({"kernels"})
#: Type -> the method that compares two distinct objects of this type.
_COMPARED: dict[type, Callable[[Layers, Any, Any], bool]] = dict.fromkeys(
    (str, float, bool, bytes, Kernel, Layout, range, frozenset, set), Layers._equal
)
_COMPARED[Value] = Layers._read
_COMPARED[Node] = Layers._nodes
_COMPARED[Group] = Layers._groups
_COMPARED[Body] = Layers._bodies
_COMPARED[Ptr] = Layers._pointers
_COMPARED[dict] = Layers._dicts


def _comparison(kind: type) -> Callable[[Layers, Any, Any], bool]:
    """The method that compares two objects of a type that is not in `_COMPARED`."""
    if issubclass(kind, (tuple, list)):
        return Layers._each
    if issubclass(kind, (np.ndarray, Unmade)):
        return Layers._arrays_alike
    if issubclass(kind, functools.partial):
        return Layers._partials
    ours = kind.__module__.partition(".")[0] in ("ovjit", "ovjit_ops")
    return Layers._objects if ours and kind.__dictoffset__ else Layers._differ


def _same_types(one: Value, other: Value) -> bool:
    a, b = one.type, other.type
    if a is b:
        return True
    if (a.dtype, a.shape) != (b.dtype, b.shape) or (a.value is None) != (b.value is None):
        return False
    if a.value is None or b.value is None or one.node.op.role == "constant":
        return a.partial is None and b.partial is None
    return bool(a.value.dtype == b.value.dtype and a.value.tobytes() == b.value.tobytes())


def _is_weights(array: np.ndarray | Unmade) -> bool:
    """Whether an array has more than MOST_COMPARED reals: plans depend on the elements of smaller ones
    only."""
    return isinstance(array, Unmade) or (array.dtype.kind == "f" and array.size > MOST_COMPARED)


class _Before(NamedTuple):
    """The state before a layer is planned: facts about the values that it reads, and the planner's counts."""

    facts: list[Any]
    steps: int
    buffers: int
    copies: int
    shared: int
    data: int


class _NotCopyable(Exception):
    """The layer must be planned."""


class Repeats:
    """Copies equal layers while a planner plans a program. `flags`: for each lowering, whether it is
    planned."""

    def __init__(
        self, planner: Planner, layers: Layers, lowerings: Sequence[Lowering], flags: Sequence[bool]
    ):
        self.planner = planner
        self.layers = layers
        self.lowerings = lowerings
        first, period, count = layers.first, layers.period, layers.count
        pattern = flags[first : first + period]
        lows = range(first, first + count * period, period)
        alike = all(flags[low : low + period] == pattern for low in lows)
        #: Number of groups of a layer that are planned, and the index of each layer's first planned group.
        self.size = sum(pattern)
        begin = sum(flags[:first])
        self.starts = [begin + k * self.size for k in range(count)] if alike and self.size else []
        self._layer_at = {start: k for k, start in enumerate(self.starts)}
        self._end = begin + count * self.size
        self._before: _Before | None = None

    def enter(self, index: int) -> int:
        """Called before group `index` is planned. Returns the index of the next group to plan, which is
        larger if layers have been repeated."""
        layer = self._layer_at.get(index)
        if layer is None or layer >= PLANNED or layer + 2 > len(self.starts):
            return index
        before, self._before = self._before, None
        try:
            if before is not None:
                template = _Template(self, layer - 1, before)
                while layer < len(self.starts) - 1:
                    template.repeat(layer)
                    layer += 1
        except _NotCopyable:
            pass
        if self.starts[layer] == index:
            self._before = self._take_snapshot(layer)
        return self.starts[layer]

    def _nodes(self, layer: int) -> list[Node]:
        low = self.layers.first + layer * self.layers.period
        return [n for one in self.lowerings[low : low + self.layers.period] for n in one.group.nodes]

    def outputs_of(self, layer: int) -> list[Value]:
        """The outputs of all nodes of a layer."""
        return [v for node in self._nodes(layer) for v in node.outputs]

    def read(self, layer: int) -> list[Value]:
        """The values that a layer reads from outside, without constants."""
        results = set(self.outputs_of(layer))
        read = dict.fromkeys(v for node in self._nodes(layer) for v in node.inputs)
        return [v for v in read if v not in results and v.node.op.role != "constant"]

    def _take_snapshot(self, layer: int) -> _Before | None:
        planner = self.planner
        try:
            facts = self.facts_of(layer, self.read(layer))
        except _NotCopyable:
            return None
        return _Before(
            facts, len(planner.steps), len(planner.buffers), len(planner._copies), len(planner._shared),
            planner.data.size,
        )  # fmt: skip

    def facts_of(self, layer: int, values: Iterable[Value]) -> list[Any]:
        """Facts about the values that a layer reads, on which its planning may depend."""
        planner = self.planner
        facts: list[Any] = []
        if planner.deferred or planner._unclear:
            raise _NotCopyable
        copied = {key[0] for key in planner._copies}
        for value in values:
            if planner.types[value].value is not None:
                facts.append(id(planner.types[value]))
                continue
            view = planner.views.get(value)
            if view is None or (value in copied and value in self.layers.follows):
                raise _NotCopyable
            buffer = view.buffer
            late = {self.last_reader(layer, v) for v in planner.views.in_buffer[buffer]}
            facts.append((
                view.identity, identity((view.offset, buffer.size)), self._kind(buffer),
                buffer in planner.pinned, sorted(late - {-1}), value in planner.placed,
                value in planner.offered,
            ))  # fmt: skip
        return facts

    def last_reader(self, layer: int, value: Value) -> int:
        """The last reader of a value as a group index relative to the layer's first group; -1 without one."""
        last = self.planner.last_use.get(value, -1)
        end = self._end if value in self.layers.follows else self.starts[-1]
        return self._end if last >= end else max(last - self.starts[layer], -1)

    def _kind(self, buffer: Buffer) -> int:
        """The base of a buffer, with one number for all inputs and one for all outputs."""
        outputs = self.planner.output_buffers[0].base
        return outputs if buffer.base >= outputs else min(buffer.base, FIRST_IO)


class _Template:
    """The steps, buffers and views that planning of layer `layer` has added. Raises _Cannot if a copy for the
    next layer could differ from what planning would add."""

    def __init__(self, repeats: Repeats, layer: int, before: _Before):
        self.repeats, self.planner, self.layer = repeats, repeats.planner, layer
        planner, layers = self.planner, repeats.layers
        self.values = repeats.outputs_of(layer)
        self.read = repeats.read(layer)
        carried = [v for v in self.read if v in layers.follows]
        now = repeats.facts_of(layer + 1, [layers.follows.get(v, v) for v in self.read])
        if now != before.facts or planner.data.size != before.data:
            raise _NotCopyable
        results = set(self.values)
        new = list(planner._copies)[before.copies :]
        if any(key[0] not in results and key[0] not in layers.follows for key in new):
            raise _NotCopyable
        if any(map(_has_value, list(planner._shared)[before.shared :])):
            raise _NotCopyable
        self.carried = [v for v in carried if planner.types[v].value is None]
        self.steps = planner.steps[before.steps :]
        if any(step.host is not None or step.control is not None for step in self.steps):
            raise _NotCopyable
        self.first_step = before.steps
        self.buffers = planner.buffers[before.buffers :]
        #: Buffers that all layers share.
        self.common = {planner.views[v].buffer for v in self.read
                       if v not in layers.follows and v in planner.views}  # fmt: skip
        self.common |= {view.buffer for key, view in planner._copies.items() if key[0] not in layers.follows}
        self.touched = [(b, b.first, b.last) for b in planner.buffers if b.last >= before.steps]
        self.pointers = [self._pointers(step.args) for step in self.steps]
        self.constants = {start: start for pairs in self.pointers for _, start, _ in pairs[1]}
        self.names = {(step.name, step.origins): (step.name, step.origins) for step in self.steps}
        self.now = [*self.values, *self.carried]
        views = planner.views
        self.views = [(i, views[v]) for i, v in enumerate(self.values) if v in views]

    def _pointers(self, args: Sequence[Any]) -> tuple[list[tuple[int, Ptr]], list[tuple[int, int, int]]]:
        """The pointer arguments that differ in the next layer: (argument index, pointer) for buffers, and
        (argument index, offset of the constant, offset inside of it) for constants."""
        buffers, constants = [], []
        starts = self._starts
        for i, arg in enumerate(args):
            if not isinstance(arg, Ptr) or arg.buffer.base == PLAN_DATA:
                continue
            if arg.buffer.base == CONSTANTS:
                at = arg.buffer.offset + arg.offset
                start = starts[bisect_right(starts, at) - 1] if starts else -1
                if not 0 <= at - start < max(self.planner.constants.sizes.get(start, 0), 1):
                    raise _NotCopyable
                constants.append((i, start, at - start))
            elif arg.buffer not in self.common:
                buffers.append((i, arg))
        return buffers, constants

    @made_once
    def _starts(self) -> list[int]:
        return sorted(self.repeats.layers.constant_offsets)

    def repeat(self, layer: int) -> None:
        """Add the template's steps, buffers and views for `layer`, the next one that is not planned. If it
        raises _Cannot, the planner is unchanged."""
        planner, layers, follows = self.planner, self.repeats.layers, self.repeats.layers.follows
        try:
            now = [follows[v] for v in self.now]
            constants = {start: layers.constant_offsets[at] for start, at in self.constants.items()}
            names = {name: layers.names[at] for name, at in self.names.items()}
        except KeyError:
            raise _NotCopyable from None
        moved = self._map_buffers(layer, now)
        shift = len(planner.steps) - self.first_step
        steps = []
        for step, (pointers, weights) in zip(self.steps, self.pointers, strict=True):
            args = list(step.args)
            for i, pointer in pointers:
                args[i] = Ptr(moved[pointer.buffer], pointer.offset)
            for i, start, inner in weights:
                args[i] = planner.constants.at(constants[start] + inner)
            name, origins = names[step.name, step.origins]
            steps.append(Step(
                step.kernel, args, step.chunks, name, step.type, origins, step.flops, step.bytes, why=step.why
            ))  # fmt: skip
        views = [(now[i], View(moved.get(view.buffer, view.buffer), view.shape, view.strides, view.itemsize,
                               view.offset, view.halo)) for i, view in self.views]  # fmt: skip
        self.now, self.constants, self.names = now, constants, names
        planner.steps += steps
        planner.buffers += [moved[buffer] for buffer in self.buffers]
        planner.pinned.update(new for old, new in moved.items() if old in planner.pinned)
        for value, view in views:
            planner.views[value] = view
        for buffer, first, last in self.touched:
            new = moved.get(buffer, buffer)
            if new.first < 0:
                new.first = first + shift
            new.last = last + shift

    def _map_buffers(self, layer: int, now: Sequence[Value]) -> dict[Buffer, Buffer]:
        """The template's buffers -> the buffers of `layer`. `now`: the layer's values."""
        planner, repeats = self.planner, self.repeats
        pairs: list[tuple[Buffer, Buffer]] = []
        template = [*self.values, *self.carried]
        for old, new in zip(template, now, strict=True):
            if not surely_same_types(planner.types[old], planner.types[new]):
                raise _NotCopyable
            if repeats.last_reader(self.layer, old) != repeats.last_reader(layer, new):
                raise _NotCopyable
        for old, new in zip(self.carried, now[len(self.values) :], strict=True):
            if new not in planner.views:
                raise _NotCopyable
            pairs.append((planner.views[old].buffer, planner.views[new].buffer))
        for old, new in zip(self.values, now, strict=False):
            pairs += self._pair_assigned(old, new)
        pairs += [(buffer, Buffer(buffer.size)) for buffer in self.buffers]
        moved: dict[Buffer, Buffer] = {}
        for one, other in pairs:
            if identity((one.size,)) != identity((other.size,)) or moved.setdefault(one, other) is not other:
                raise _NotCopyable
            if other in planner.pinned and one not in planner.pinned:
                raise _NotCopyable
        if not moved.keys() >= {p.buffer for pointers, _ in self.pointers for _, p in pointers}:
            raise _NotCopyable
        used = {b for b, _, _ in self.touched} | {view.buffer for _, view in self.views}
        if not used <= moved.keys() | self.common:
            raise _NotCopyable
        return moved

    def _pair_assigned(self, old: Value, new: Value) -> list[tuple[Buffer, Buffer]]:
        """Pairs of buffers in which value `old` of the template, and `new` of a layer, are placed already."""
        planner = self.planner
        pairs = []
        for assignments in (planner.placed, planner.offered, planner._reserved):
            one, other = assignments.get(old), assignments.get(new)
            if one is None and other is None:
                continue
            if one is None or other is None or _memory_facts(one) != _memory_facts(other):
                raise _NotCopyable
            pairs.append((one.buffer, other.buffer))
        i, k = planner._output_of.get(old), planner._output_of.get(new)
        if (i is None) != (k is None) or planner.reader_orders.get(old) != planner.reader_orders.get(new):
            raise _NotCopyable
        if i is not None and k is not None:
            pairs.append((planner.output_buffers[i], planner.output_buffers[k]))
        return pairs


def _memory_facts(view: View) -> tuple:
    return view.identity, identity((view.offset,))


def _has_value(key: Any) -> bool:
    """Whether a key of `Planner.shared` names a value."""
    return isinstance(key, Value) or (isinstance(key, tuple) and any(map(_has_value, key)))


__all__ = ["Layers", "Repeats", "find_layers"]
