"""Loops of Python's over an open dimension, recorded as loops.

A trace has the iterations of its example: `for t in range(x.shape[1])` gives wrong numbers at another length.
Recurrent layers are written so. `found_loops` notes the functions in which such a loop runs, over a range or
over the parts of a tensor, and warns of what else is the example's. `record_loops` lets them run with a body
that is traced once, as a `prim::Loop`: names that the body assigns, and tensors of which it writes parts, are
carried from one iteration to the next. A list that the body appends to is a stack of what it gets. Whether
that is right is found by running what was recorded.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.found_loops import Found
from ovjit.readers.torch.recording.loop_code import Loops, apply_changes
from ovjit.readers.torch.recording.loop_items import (
    Enumerated,
    Items,
    Range,
    Reversed,
    Unbound,
    Zipped,
    largest,
    length,
    listed,
    product,
    smallest,
    total,
)
from ovjit.readers.torch.recording.loop_lists import Added, Stack, concat_lists
from ovjit.readers.torch.recording.patches import patch, suspend_tracing
from ovjit.readers.torch.recording.size_values import is_of_sizes
from ovjit.readers.torch.recording.traced_nodes import insert_node, is_open, kind_of, lift, traced_as

#: After a loop, what was a name's value within an iteration alone.
LOST = object()


@contextlib.contextmanager
def record_loops(loops: Found) -> Iterator[int]:
    """Functions run with their loops over open dimensions recorded as loops. Gives the number of loops."""
    import torch

    stack, cat = torch.stack, torch.cat
    used = (Recorded, Range, Items, Unbound, Reversed, Zipped, Enumerated, length, total, product,
            largest, smallest, listed, is_open)  # fmt: skip
    names = types.SimpleNamespace(LOST=LOST, **{each.__name__: each for each in used})
    lists = (torch, "stack", _stacking(stack, stack)), (torch, "cat", _stacking(cat, _concat_rows))
    with apply_changes(loops.lines, Loops, names) as count, patch(*lists):
        yield count


def _stacking(plain: Any, of_stack: Any) -> Any:
    def call(tensors: Any, dim: int = 0, **more: Any) -> Any:
        if not isinstance(tensors, Stack):
            return plain(tensors, dim, **more)
        rows = tensors.tensor
        if of_stack is plain:
            return rows.movedim(0, dim).contiguous()
        return of_stack(rows, dim)

    return call


def _concat_rows(rows: Any, dim: int) -> Any:
    axis = dim % (rows.dim() - 1)
    return rows.movedim(0, axis).flatten(axis, axis + 1)


class Recorded:
    """One loop while its body is traced: `state` has the values of the names that it carries.

    Where one is a number of Python's, as `total = 0` is, the body is tried first: what it makes of the number
    tells the kind of tensor that is carried.
    """

    def __init__(self, walk: Any, names: Sequence[str], variables: Mapping[str, Any]):
        self._walk = walk
        self.variables = {k: variables[k] for k in names if k in variables}
        self._numbers = [k for k, v in self.variables.items() if type(v) in (int, float)]
        self.is_trial = bool(self._numbers)
        if self.is_trial:
            self.item = walk.item(0)
            self.state: dict[str, Any] = {k: _trial_copy(v) for k, v in self.variables.items()}

    def end_trial(self, variables: Mapping[str, Any]) -> None:
        """Turn the numbers that a trial of the body has changed into tensors of the types they get."""
        import torch

        self.is_trial = False
        for key in self._numbers:
            number, result = self.variables[key], variables[key]
            if isinstance(result, torch.Tensor):
                self.variables[key] = torch.full_like(result, number)
            elif type(result) in (int, float):
                kind = torch.float64 if float in (type(result), type(number)) else torch.int64
                self.variables[key] = torch.full((), number, dtype=kind)

    def begin(self) -> None:
        """The body is recorded from here on."""
        import torch

        walk = self._walk
        trips = walk.count()
        self.graph = torch._C._get_tracing_state().graph()
        # lists of a loop around this one have their items added there
        lists = ((k, v) for k, v in self.variables.items() if isinstance(v, list))
        self.lists = {k: v for k, v in lists if not isinstance(v, Added)}
        with suspend_tracing():
            self._trips = trips.item()
        self.before = {k: v for k, v in self.variables.items() if isinstance(v, torch.Tensor)}
        integer, truth, tensors = torch._C.IntType.get(), torch._C.BoolType.get(), torch._C.TensorType.get()
        # modules are not recorded as such in a loop: their calls are part of the body
        self._modules, torch.jit._trace._trace_module_map = torch.jit._trace._trace_module_map, None
        count = insert_node("aten::Int", [torch._C._get_value_trace(trips)], integer)
        going = insert_node("prim::Constant", [], truth)
        going.node().i_("value", 1)
        starts = [torch._C._get_value_trace(v) for v in self.before.values()]
        empty = torch._C.ListType(tensors)
        self._grown = {key: insert_node("prim::ListConstruct", [], empty) for key in self.lists}
        self.node = self.graph.insertNode(self.graph.create("prim::Loop", [count, going, *starts], 0))
        self.block = self.node.addBlock()
        self._outside = self.graph.insertPoint()
        self.graph.setInsertPoint(self.block)
        at = self.block.addInputToBlock()
        at.setType(integer)
        self._going = going
        self.state = dict(self.variables)
        self.state |= {k: Added(self._grown[k], self.block) for k in self.lists}
        for key, value in self.before.items():
            inner = self.block.addInputToBlock()
            inner.inferTypeFrom(value)
            self.state[key] = traced_as(value, inner)
        with suspend_tracing():
            zero = torch.zeros((), dtype=torch.int64)
        self.item = walk.item(traced_as(zero, insert_node("prim::NumToTensor", [at], tensors)))

    def end(self, variables: Mapping[str, Any], exit_flag: Any = None) -> None:
        """End the body, which has left `variables`; set `state` to the values after the loop. `exit_flag`: a
        bool that ends the loop after an iteration, or None."""
        import torch

        tensors = torch._C.TensorType.get()
        unchanged = self.variables.keys() - self.lists.keys() - self.before.keys()
        if any(variables[key] is not self.variables[key] for key in unchanged):
            raise UnsupportedError("the loop changes a value that is not a tensor")
        after = {}
        for key, old in self.before.items():
            new = after[key] = variables[key]
            if not isinstance(new, torch.Tensor) or kind_of(new) != kind_of(old):
                raise UnsupportedError(f"the loop changes the kind of {key}")
        items = {}
        for key in self.lists:
            if not isinstance(variables[key], Added) or not variables[key]:
                raise UnsupportedError(f"an iteration should add a tensor to {key}")
            items[key] = variables[key][0]
        self.block.registerOutput(self._is_going(exit_flag))
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
            axis = insert_node("prim::Constant", [], torch._C.IntType.get())
            axis.node().i_("value", 0)
            result = insert_node("aten::stack", [self._grown[key], axis], tensors)
            more = Stack(traced_as(item, result, variables[key].rows(self._trips)))
            if variables[key].in_front:
                more.reverse()
            both = (more, self.lists[key]) if variables[key].in_front else (self.lists[key], more)
            self.state[key] = self.lists[key] = Stack(concat_lists(*both))

    def _is_going(self, exit_flag: Any) -> Any:
        """Whether another iteration follows."""
        import torch

        if exit_flag is None or exit_flag is False:
            return self._going
        if not is_of_sizes(exit_flag):
            raise UnsupportedError("a loop is left by what is not computed from sizes")
        truth = torch._C.BoolType.get()
        return insert_node("aten::Bool", [torch._C._get_value_trace(~exit_flag)], truth)


def _trial_copy(value: Any) -> Any:
    """Return a copy of a tensor or a list, which the trial of a loop body may modify."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, Added):
        return []
    if isinstance(value, Stack):
        return Stack(value.tensor)
    return list(value) if isinstance(value, list) else value
