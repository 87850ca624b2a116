"""Loops of Python's over an open dimension, recorded as loops.

A trace has the iterations of its example: `for t in range(x.shape[1])` gives wrong numbers at another length.
Recurrent layers are written so. `found` notes the functions in which such a loop runs, over a range or over
the parts of a tensor, and warns of what else is the example's. `recorded` lets them run with a body that is
traced once, as a `prim::Loop`: names that the body assigns, and tensors of which it writes parts, are carried
from one iteration to the next. A list that the body appends to is a stack of what it gets. Whether that is
right is found by running what was recorded.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import operator
import os
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.callees import calls_operator
from ovjit.readers.torch.recording.instructions import calls, takes_item, takes_part
from ovjit.readers.torch.recording.loop_code import Loops, changed, functions_of
from ovjit.readers.torch.recording.patches import outside, patched, untraced
from ovjit.readers.torch.recording.size_values import is_of_sizes
from ovjit.readers.torch.scripts.shared_memory import nodes_of

#: After a loop, what was a name's value within an iteration alone.
LOST = object()


class Found:
    """Functions with loops over open dimensions, and the lines of these loops."""

    def __init__(self) -> None:
        self.lines: dict[Any, set[int]] = {}  # by function
        self._functions: dict[Any, list[Any]] = {}  # by code
        self._unequal: dict[Any, int] = {}  # the last line that `leave` was told of, by code

    def add(self, frame: Any) -> None:
        """Note the line that a frame is at."""
        if frame.f_lineno < self._unequal.get(frame.f_code, 0):
            return
        if frame.f_code not in self._functions:
            self._functions[frame.f_code] = functions_of(frame)
        for function in self._functions[frame.f_code]:
            self.lines.setdefault(function, set()).add(frame.f_lineno)

    def leave(self, frame: Any) -> None:
        """Leave out what stands before the line of a frame, as it gives items of unequal shapes."""
        last = self._unequal[frame.f_code] = max(frame.f_lineno, self._unequal.get(frame.f_code, 0))
        for function in self._functions.get(frame.f_code, ()):
            kept = {line for line in self.lines.pop(function, ()) if line >= last}
            if kept:
                self.lines[function] = kept


class Conditions(Found):
    """Functions in which layers with weights order two sizes; `every`: those with any condition on sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.every = Found()
        #: Whether a list or a dict has been asked for an item by a size.
        self.are_looked_up = False

    def look_up(self, frame: Any) -> None:
        """Note that a frame asks for an item by a size: whether it is this one is a condition."""
        self.every.add(frame)
        self.are_looked_up = True


def warn_of_index(frame: Any) -> None:
    """Warn of a line that makes an open dimension a number of Python's, such as how often a loop runs."""
    import torch

    frame = outside(frame)
    file, line = frame.f_code.co_filename, frame.f_lineno
    said = "A dynamic dimension used as a Python number might make the trace incorrect for other lengths"
    text = linecache.getline(file, line).strip()
    warnings.warn(f"{said}: {text} ({file}:{line})", torch.jit.TracerWarning, stacklevel=3)


@contextlib.contextmanager
def exporting() -> Iterator[set[str]]:
    """Warn of lines for which torch.export takes an open dimension to have the example's length. Gives the
    files that ask for numbers, or compare them in Python's functions."""
    import torch

    own, asking = os.path.dirname(torch.__file__) + os.sep, set[str]()

    def asked(theirs: Any) -> Any:
        def number(self: Any) -> Any:
            frame = sys._getframe(1)
            file = frame.f_code.co_filename
            if self.node.maybe_as_int() is None and not file.startswith(own):
                compares = isinstance(self, torch.SymBool)
                if not compares and not takes_part(outside(frame)):
                    warn_of_index(frame)
                if not compares or calls(frame):
                    asking.add(file)
            return theirs(self)

        return number

    rows = ((torch.SymInt, "__index__"), (torch.SymInt, "__int__"), (torch.SymFloat, "__int__"),
            (torch.SymFloat, "__float__"), (torch.SymBool, "__bool__"))  # fmt: skip
    with patched(*((kind, name, asked(getattr(kind, name))) for kind, name in rows if name in vars(kind))):
        yield asking


@contextlib.contextmanager
def found(
    noted: Found | None, listed: Found | None = None, conditions: Conditions | None = None
) -> Iterator[None]:
    """Note which lines make an open dimension a number of Python's, or iterate over one, and warn of these:
    a trace has as many iterations as the example. `listed` are the lines that make a list of a tensor.

    Those are left out that fill a list with tensors of unequal shapes, such as detections of each class: what
    a recorded loop appends is stacked.
    """
    import torch

    def index(self: Any) -> int:
        frame = sys._getframe(1)
        if calls_operator(frame):
            pass
        elif not takes_part(outside(frame)) and is_open(self):
            warn_of_index(frame)
            if noted is not None:
                noted.add(frame)
        elif takes_item(outside(frame)) and is_of_sizes(self):
            warn_of_index(frame)
            if conditions is not None:
                conditions.look_up(frame)
        return int(torch._C.TensorBase.__index__(self))

    def noting(theirs: Any, noted: Found | None) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            if noted is not None and is_traced(given[0] if given else named.get("input")):
                noted.add(sys._getframe(1))
            return theirs(*given, **named)

        return called

    def joined(tensors: Any, *rest: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        if noted is not None and isinstance(tensors, list) and _is_unequal(tensors):
            if any(value is tensors for value in frame.f_locals.values()):  # no display such as [a, b]
                noted.leave(frame)
        return cat(tensors, *rest, **named)

    tensor, cat = torch.Tensor, torch.cat
    rows = [(tensor, "__iter__"), (tensor, "__len__"), (tensor, "unbind"), (torch, "unbind")]
    noted_rows = [(owner, name, noting(getattr(owner, name), noted)) for owner, name in rows]
    noted_rows += [] if listed is None else [(tensor, "tolist", noting(tensor.tolist, listed))]
    with patched((tensor, "__index__", index), (torch, "cat", joined), *noted_rows):
        yield


def _is_unequal(tensors: Sequence[Any]) -> bool:
    with untraced():
        return len({tuple(t.shape) for t in tensors if hasattr(t, "shape")}) > 1


@contextlib.contextmanager
def recorded(noted: Found) -> Iterator[int]:
    """Functions run with their loops over open dimensions recorded as loops. Gives the number of loops."""
    import torch

    stack, cat = torch.stack, torch.cat
    used = (Recorded, Range, Items, Unbound, Reversed, Zipped, Enumerated, length, total, product,
            largest, smallest, listed, is_open)  # fmt: skip
    names = types.SimpleNamespace(LOST=LOST, **{each.__name__: each for each in used})
    lists = (torch, "stack", _stacking(stack, stack)), (torch, "cat", _stacking(cat, _joined))
    with changed(noted.lines, Loops, names) as count, patched(*lists):
        yield count


def _stacking(plain: Any, of_stack: Any) -> Any:
    def called(tensors: Any, dim: int = 0, **rest: Any) -> Any:
        if not isinstance(tensors, _Stack):
            return plain(tensors, dim, **rest)
        whole = tensors.whole
        if of_stack is plain:
            return whole.movedim(0, dim).contiguous()
        return of_stack(whole, dim)

    return called


def _joined(whole: Any, dim: int) -> Any:
    axis = dim % (whole.dim() - 1)
    return whole.movedim(0, axis).flatten(axis, axis + 1)


class _Stack(list):
    """A list that a loop has lengthened: `whole` has its items along a first dimension.

    What asks for their number otherwise than by `length`, or goes through them in a function that did not
    change, gets as many as the example has.
    """

    def __init__(self, whole: Any):
        super().__init__()
        self.whole = whole

    def __len__(self) -> int:
        warn_of_index(sys._getframe(1))
        with untraced():
            return self.whole.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.whole.unbind())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.whole.unbind()[::-1])

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return self.whole[at]
        if at.step is None or at.step > 0:
            return _Stack(self.whole[at])
        if (at.start, at.stop) != (None, None):
            raise UnsupportedError("a slice backwards of a list that a recorded loop fills needs all items")
        return _Stack(self.whole.flip(0)[:: -at.step])

    def __add__(self, more: Any) -> Any:
        return _Stack(_after(self, more))

    def __radd__(self, first: Any) -> Any:
        return _Stack(_after(first, self))

    def append(self, item: Any) -> None:
        self.whole = _after(self, [item])

    def insert(self, at: Any, item: Any) -> None:
        if at != 0:
            raise UnsupportedError("a list that a recorded loop fills gets items at its ends alone")
        self.whole = _after([item], self)

    def extend(self, more: Any) -> None:
        self.whole = _after(self, more)

    def __iadd__(self, more: Any) -> Any:
        self.extend(more)
        return self

    def reverse(self) -> None:
        self.whole = self.whole.flip(0)


def tensor_of_list(given: Any, dtype: Any = None) -> Any:
    """`torch.tensor(given)`, of a list that a loop has lengthened; None of anything else."""
    import torch

    if not isinstance(given, _Stack):
        return None
    kind = given.whole.dtype
    if kind != torch.bool:
        kind = torch.get_default_dtype() if kind.is_floating_point else torch.int64
    return given.whole.to(dtype or kind, copy=True)


def _after(*lists: Any) -> Any:
    """The items of lists, one list after the other, along a first dimension."""
    import torch

    wholes = [v.whole if isinstance(v, _Stack) else torch.stack(list(v)) for v in lists if _has_items(v)]
    return wholes[0] if len(wholes) == 1 else torch.cat(wholes)


def _has_items(given: Any) -> bool:
    return isinstance(given, _Stack) or bool(given)


class Added(list):
    """What an iteration adds to a list, and at which end. Each item is added where the trace is, which may be
    in a branch or in a loop within the loop."""

    def __init__(self, grown: Any, block: Any):
        super().__init__()
        self._grown, self._block = grown, block
        self.in_front = self.is_regular = False

    def append(self, item: Any) -> None:
        self._add(item, False)

    def insert(self, at: Any, item: Any) -> None:
        if at != 0:
            raise UnsupportedError("an iteration should add its item at an end of a list")
        self._add(item, True)

    def extend(self, more: Any) -> None:
        for item in more:
            self.append(item)

    def _add(self, item: Any, in_front: bool) -> None:
        import torch

        if not isinstance(item, torch.Tensor) or (self and _kind(item) != _kind(self[0])):
            raise UnsupportedError("an iteration should add tensors of one shape to a list")
        if self and (in_front or self.in_front):
            raise UnsupportedError("an iteration should add one item in front of a list")
        self.in_front = in_front
        value, kind = torch._C._get_value_trace(item), torch._C.ListType(torch._C.TensorType.get())
        node = made_node("aten::append", [self._grown, value], kind).node()
        self.is_regular = (self.is_regular or not self) and node.owningBlock() == self._block
        super().append(item)

    def rows(self, trips: int) -> int:
        """How many items the example has after so many iterations, at least as far as that is known."""
        return trips * len(self) if self.is_regular else max(1, trips)

    def __add__(self, more: Any) -> Any:
        self.extend(more)
        return self

    __iadd__ = __add__

    def __radd__(self, first: Any) -> Any:
        for item in reversed(first):
            self.insert(0, item)
        return self


def is_traced(given: Any) -> bool:
    import torch

    return isinstance(given, torch.Tensor) and torch._C._get_tracing_state() is not None


def is_open(number: Any) -> bool:
    """Whether this is a traced number that inputs tell. Weights and their sizes tell none."""
    import torch

    if not is_traced(number):
        return False
    seen, queue = set(), [torch._C._get_value_trace(number)]
    while queue:
        value = queue.pop()
        if value.node().kind() == "prim::Param":
            return True
        if value.unique() not in seen:
            seen.add(value.unique())
            queue += value.node().inputs()
            for use in value.uses() if value.node().kind() == "prim::ListConstruct" else ():
                if use.user.kind() == "aten::append":  # a list is as long as loops make it
                    queue += use.user.owningBlock().owningNode().inputs()
    return False


class Range:
    """`range(...)`: what a loop is over has a number of items, and gives the item at a traced number."""

    def __init__(self, *bounds: Any):
        self.bounds = bounds
        self.start, self.stop, self.step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        self.is_open = any(map(is_open, bounds))

    def plain(self) -> Any:
        """The same for a loop of Python's."""
        return range(*self.bounds)

    def count(self) -> Any:
        import torch

        if not isinstance(self.step, int) or not self.step:
            raise UnsupportedError("a loop over a range needs a constant step")
        if isinstance(self.start, int) and (self.start, self.step) == (0, 1):
            return self.stop
        ends = (self.start, self.stop) if self.step > 0 else (self.stop, self.start)
        return torch.div(ends[1] - ends[0] + abs(self.step) - 1, abs(self.step), rounding_mode="floor")

    def item(self, at: Any) -> Any:
        at = at if self.step == 1 else at * self.step
        return at if isinstance(self.start, int) and self.start == 0 else self.start + at


class Items:
    """The parts of a tensor along its first dimension, or anything else that Python goes through."""

    def __init__(self, given: Any):
        import torch

        self.given = given
        self.rows = given.whole if isinstance(given, _Stack) else given
        is_rows = isinstance(self.rows, torch.Tensor) and self.rows.dim() > 0
        self.is_open = is_rows and is_open(self.rows.shape[0])

    def plain(self) -> Any:
        return self.given

    def count(self) -> Any:
        return self.rows.shape[0]

    def item(self, at: Any) -> Any:
        return self.rows[at]


class Unbound(Items):
    """`tensor.unbind(dim)`, or `torch.unbind(tensor, dim)`."""

    def __init__(self, owner: Any, *given: Any, **named: Any):
        import torch

        values = list(given) if owner is torch else [owner, *given]
        tensor = named["input"] if "input" in named else values.pop(0)
        dim = named.get("dim", values[0] if values else 0)
        if isinstance(tensor, torch.Tensor) and tensor.dim():
            super().__init__(tensor.movedim(dim, 0) if dim else tensor)
        else:  # something of the same name
            super().__init__(owner.unbind(*given, **named))


def listed(given: Any) -> Any:
    """`given.tolist()`, of a tensor whose length may be another one for others, with tensors as items."""
    import torch

    is_row = isinstance(given, torch.Tensor) and given.dim() == 1 and is_open(given.shape[0])
    return _Stack(given) if is_row else given.tolist()


def length(given: Any) -> Any:
    """`len(given)`, of a tensor or a list that a loop fills as it may be for others."""
    if isinstance(given, Items):
        return given.count() if given.is_open else len(given.plain())
    given = given.whole if isinstance(given, _Stack) else given
    return given.shape[0] if isinstance(given, sys.modules["torch"].Tensor) and given.dim() else len(given)


def total(given: Any, *start: Any) -> Any:
    """`sum(given)`, of a list that a loop fills as it may be for others."""
    if isinstance(given, Items):
        return sum(start, given.rows.sum(0)) if given.is_open else sum(given.plain(), *start)
    return sum(start, given.whole.sum(0)) if isinstance(given, _Stack) else sum(given, *start)


def largest(given: Any, *more: Any, **named: Any) -> Any:
    """`max(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(max, given, more, named)


def smallest(given: Any, *more: Any, **named: Any) -> Any:
    """`min(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(min, given, more, named)


def _extreme(theirs: Any, given: Any, more: Sequence[Any], named: Mapping[str, Any]) -> Any:
    if isinstance(given, _Stack) and given.whole.dim() == 1 and not more and not named:
        return getattr(given.whole, f"a{theirs.__name__}")(0)
    return theirs(given, *more, **named)


def product(given: Any) -> Any:
    """`given.numel()`, of a shape as it may be for others."""
    if not isinstance(given, sys.modules["torch"].Size):
        return given.numel()
    return functools.reduce(operator.mul, given, 1)


class Reversed:
    """`reversed(...)`"""

    def __init__(self, inner: Any):
        self.inner = inner
        self.is_open = inner.is_open

    def plain(self) -> Any:
        return reversed(self.inner.plain())

    def count(self) -> Any:
        return self.inner.count()

    def item(self, at: Any) -> Any:
        return self.inner.item(self.inner.count() - 1 - at)


class Zipped:
    """`zip(...)` of what has equal numbers of items."""

    def __init__(self, *inner: Any, strict: bool = False):
        self.inner, self.strict = inner, strict
        self.is_open = bool(inner) and all(v.is_open for v in inner)

    def plain(self) -> Any:
        return zip(*(v.plain() for v in self.inner), strict=self.strict)

    def count(self) -> Any:
        import torch

        return functools.reduce(torch.minimum, [v.count() for v in self.inner])

    def item(self, at: Any) -> Any:
        return tuple(v.item(at) for v in self.inner)


class Enumerated(Zipped):
    """`enumerate(...)`"""

    def __init__(self, inner: Any, start: Any = None):
        self.first = getattr(start, "given", start) or 0
        super().__init__(inner)

    def plain(self) -> Any:
        return enumerate(self.inner[0].plain(), self.first)

    def item(self, at: Any) -> Any:
        return at + self.first if self.first else at, self.inner[0].item(at)


class Recorded:
    """One loop while its body is traced: `state` has the values of the names that it carries.

    Where one is a number of Python's, as `total = 0` is, the body is tried first: what it makes of the number
    tells the kind of tensor that is carried.
    """

    def __init__(self, walk: Any, names: Sequence[str], given: Mapping[str, Any]):
        self._walk = walk
        self.given = {k: given[k] for k in names if k in given}
        self._numbers = [k for k, v in self.given.items() if type(v) in (int, float)]
        self.is_trial = bool(self._numbers)
        if self.is_trial:
            self.item = walk.item(0)
            self.state: dict[str, Any] = {k: _own(v) for k, v in self.given.items()}

    def tried(self, given: Mapping[str, Any]) -> None:
        """The body has been tried, and has left the names as `given`."""
        import torch

        self.is_trial = False
        for key in self._numbers:
            number, made = self.given[key], given[key]
            if isinstance(made, torch.Tensor):
                self.given[key] = torch.full_like(made, number)
            elif type(made) in (int, float):
                kind = torch.float64 if float in (type(made), type(number)) else torch.int64
                self.given[key] = torch.full((), number, dtype=kind)

    def begin(self) -> None:
        """The body is recorded from here on."""
        import torch

        walk = self._walk
        trips = walk.count()
        self.graph = torch._C._get_tracing_state().graph()
        # lists of a loop around this one have their items added there
        self.lists = {k: v for k, v in self.given.items() if isinstance(v, list) and not isinstance(v, Added)}
        with untraced():
            self._trips = trips.item()
        self.before = {k: v for k, v in self.given.items() if isinstance(v, torch.Tensor)}
        whole, truth, tensors = torch._C.IntType.get(), torch._C.BoolType.get(), torch._C.TensorType.get()
        # modules are not recorded as such in a loop: their calls are part of the body
        self._modules, torch.jit._trace._trace_module_map = torch.jit._trace._trace_module_map, None
        count = made_node("aten::Int", [torch._C._get_value_trace(trips)], whole)
        going = made_node("prim::Constant", [], truth)
        going.node().i_("value", 1)
        starts = [torch._C._get_value_trace(v) for v in self.before.values()]
        empty = torch._C.ListType(tensors)
        self._grown = {key: made_node("prim::ListConstruct", [], empty) for key in self.lists}
        self.node = self.graph.insertNode(self.graph.create("prim::Loop", [count, going, *starts], 0))
        self.block = self.node.addBlock()
        self._outside = self.graph.insertPoint()
        self.graph.setInsertPoint(self.block)
        at = self.block.addInputToBlock()
        at.setType(whole)
        self._going = going
        self.state = dict(self.given)
        self.state |= {k: Added(self._grown[k], self.block) for k in self.lists}
        for key, value in self.before.items():
            inner = self.block.addInputToBlock()
            inner.inferTypeFrom(value)
            self.state[key] = traced_as(value, inner)
        with untraced():
            zero = torch.zeros((), dtype=torch.int64)
        self.item = walk.item(traced_as(zero, made_node("prim::NumToTensor", [at], tensors)))

    def end(self, given: Mapping[str, Any], left: Any = None) -> None:
        """The body has been traced, and has left the names as `given`: `state` is that after the loop. `left`
        is a truth that ends the loop after an iteration."""
        import torch

        tensors = torch._C.TensorType.get()
        rest = self.given.keys() - self.lists.keys() - self.before.keys()
        if any(given[key] is not self.given[key] for key in rest):
            raise UnsupportedError("the loop changes a value that is not a tensor")
        after = {}
        for key, old in self.before.items():
            new = after[key] = given[key]
            if not isinstance(new, torch.Tensor) or _kind(new) != _kind(old):
                raise UnsupportedError(f"the loop changes the kind of {key}")
        items = {}
        for key in self.lists:
            if not isinstance(given[key], Added) or not given[key]:
                raise UnsupportedError(f"an iteration should add a tensor to {key}")
            items[key] = given[key][0]
        self.block.registerOutput(self._is_going(left))
        for value in after.values():
            self.block.registerOutput(torch._C._get_value_trace(value))
        lift(self.node, self.block)
        self.graph.setInsertPoint(self._outside)
        torch.jit._trace._trace_module_map = self._modules
        self.state = {}
        for key, value in after.items():
            output = self.node.addOutput()
            output.inferTypeFrom(value)
            self.state[key] = traced_as(value, output)
        for key, item in items.items():
            axis = made_node("prim::Constant", [], torch._C.IntType.get())
            axis.node().i_("value", 0)
            made = made_node("aten::stack", [self._grown[key], axis], tensors)
            more = _Stack(traced_as(item, made, given[key].rows(self._trips)))
            if given[key].in_front:
                more.reverse()
            both = (more, self.lists[key]) if given[key].in_front else (self.lists[key], more)
            self.state[key] = self.lists[key] = _Stack(_after(*both))

    def _is_going(self, left: Any) -> Any:
        """Whether another iteration follows."""
        import torch

        if left is None or left is False:
            return self._going
        if not is_of_sizes(left):
            raise UnsupportedError("a loop is left by what is not computed from sizes")
        truth = torch._C.BoolType.get()
        return made_node("aten::Bool", [torch._C._get_value_trace(~left)], truth)


def _own(value: Any) -> Any:
    """What the trial of a body may change: a copy of a tensor or of a list."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, Added):
        return []
    return (
        _Stack(value.whole)
        if isinstance(value, _Stack)
        else list(value)
        if isinstance(value, list)
        else value
    )


def made_node(kind: str, inputs: list[Any], type_of: Any) -> Any:
    """The output of a node that is put where the trace is."""
    import torch

    graph = torch._C._get_tracing_state().graph()
    node = graph.insertNode(graph.create(kind, inputs, 1))
    node.output().setType(type_of)
    return node.output()


def lift(owner: Any, block: Any) -> None:
    """Move constants out of a block of the node `owner`, as one is that of all uses in the trace. What the
    block reads of modules is read beside the node: PyTorch follows values out of modules to there alone."""
    import torch

    graph = torch._C._get_tracing_state().graph()
    nodes = list(nodes_of(block))
    for node in nodes:
        if node.kind() == "prim::Constant":
            node.moveBefore(owner)
    home, inside = owner.owningBlock(), {v.unique() for n in nodes for v in n.outputs()}
    copies: dict[int, Any] = {}
    for node in nodes:
        for i, value in enumerate(list(node.inputs())):
            key = value.unique()
            is_tensor = isinstance(value.type(), torch._C.TensorType)
            if key in inside or value.node().owningBlock() is home or not is_tensor:
                continue
            if value.node().kind() in ("prim::Param", "prim::TracedAttr"):
                continue
            if key not in copies:
                made = graph.create("prim::data", [value], 1)
                made.insertBefore(owner)
                copies[key] = made.output().setTypeAs(value)
            node.replaceInput(i, copies[key])


def _kind(tensor: Any) -> tuple[Any, ...]:
    with untraced():
        return tensor.dtype, tuple(tensor.shape)


def traced_as(tensor: Any, value: Any, rows: int | None = None) -> Any:
    """A tensor of the same numbers, or of so many rows of them, that stands for a value of the graph."""
    import torch

    with untraced():
        own = tensor.detach().clone()
        own = own if rows is None else own.expand(rows, *own.shape).clone()
    torch._C._set_value_trace(own, value)
    return own
