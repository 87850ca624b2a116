"""Branches by sizes with their bodies recorded on both sides, as an If of a script has them.

`if x.shape[2] > 8: x = pool(x)` is the example's choice in a trace. Here both bodies run for the example,
each in a block of a `prim::If`. What they assign are its outputs. Whether that is right for the example is
found by running what was recorded. A body that fails for the example ends the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.patches import suspend_tracing
from ovjit.readers.torch.recording.recorded_loops import LOST
from ovjit.readers.torch.recording.size_values import torch_value
from ovjit.readers.torch.recording.traced_nodes import insert_node, lift, traced_as


class Branches:
    """One branch while its two bodies are traced: `state` has the values of `names` that each body begins
    with, and after `end` those behind the branch."""

    def __init__(self, truth: Any, names: Sequence[str], variables: Mapping[str, Any]):
        import torch

        truth = truth if truth.dtype == torch.bool else truth != 0
        with suspend_tracing():
            self._branch_index = 0 if truth.item() else 1
        self._names = names
        self.state = {name: variables.get(name, LOST) for name in names}
        self._ends: list[dict[str, Any]] = []
        self._values: list[dict[int, Any]] = []
        self._outer = [(tensor, torch_value(tensor)) for tensor in _tensors(variables)]
        self.graph = torch._C._get_tracing_state().graph()
        condition = insert_node("aten::Bool", [torch_value(truth)], torch._C.BoolType.get())
        self.node = self.graph.insertNode(self.graph.create("prim::If", [condition], 0))
        self._blocks = [self.node.addBlock(), self.node.addBlock()]
        self._outside = self.graph.insertPoint()
        # modules are not recorded as such in a body, as in that of a loop
        self._modules, torch.jit._trace._trace_module_map = torch.jit._trace._trace_module_map, None
        self.graph.setInsertPoint(self._blocks[0])

    def other(self, variables: Mapping[str, Any]) -> None:
        """End the first body, which has left `variables`, and begin the second one."""
        self._leave(variables)
        self.graph.setInsertPoint(self._blocks[1])

    def end(self, variables: Mapping[str, Any]) -> None:
        """End the second body, which has left `variables`, and set `state` to the values after the branch."""
        import torch
        from torch.utils import _pytree as tree

        self._leave(variables)
        self.state, joined = {}, []
        for name in self._names:
            values = [end[name] for end in self._ends]
            if any(value is LOST for value in values):
                self.state[name] = LOST  # one body alone assigns it
                continue
            (leaves, shape), (others, other_shape) = map(tree.tree_flatten, values)
            if shape != other_shape:
                raise UnsupportedError(f"two bodies of a branch give {name} other forms")
            joined.append((name, [self._both(*pair) for pair in zip(leaves, others, strict=True)], shape))
        for block in self._blocks:
            lift(self.node, block)
        self.graph.setInsertPoint(self._outside)
        torch.jit._trace._trace_module_map = self._modules
        for name, result, shape in joined:
            self.state[name] = tree.tree_unflatten([self._output(pair) for pair in result], shape)

    def _leave(self, variables: Mapping[str, Any]) -> None:
        """Note what a body has left. The tensors from before it stand for the same values as there: operators
        such as `contiguous` may give the tensor itself, which then stands for their output in the body."""
        import torch

        end = {name: variables.get(name, LOST) for name in self._names}
        self._ends.append(end)
        self._values.append({id(tensor): torch_value(tensor) for tensor in _tensors(end)})
        for tensor, value in self._outer:
            torch._C._set_value_trace(tensor, value)

    def _both(self, one: Any, other: Any) -> Any:
        """A value that both bodies give, or a pair of tensors that become outputs of their blocks."""
        import torch

        if one is other or (type(one) is type(other) and isinstance(one, (str, bool)) and one == other):
            return (one,)
        numbers = int, float, torch.Tensor
        if not isinstance(one, numbers) or not isinstance(other, numbers):
            raise UnsupportedError("two bodies of a branch give what is neither a tensor nor a number")
        if not isinstance(one, torch.Tensor) and type(one) is type(other) and one == other:
            return (one,)
        pair: list[Any] = []
        for block, value in zip(self._blocks, (one, other), strict=True):
            self.graph.setInsertPoint(block)
            kind = {bool: torch.bool, int: torch.int64, float: torch.float64}.get(type(value))
            number = int(value) if isinstance(value, bool) else value  # PyTorch fills with no truths
            pair.append(value if kind is None else torch.full((), number, dtype=kind))
        if len({(value.dtype, value.dim()) for value in pair}) > 1:
            raise UnsupportedError(
                "two bodies of a branch give tensors of other types or numbers of dimensions"
            )
        for block, value, values in zip(self._blocks, pair, self._values, strict=True):
            result = values[id(value)] if id(value) in values else torch_value(value)
            block.registerOutput(self._beside(result))
        return pair

    def _beside(self, value: Any) -> Any:
        """A value that a body gives. One from before the branch is read beside it, as PyTorch follows values
        out of modules to there alone, and not to the outputs of a block."""
        before = {each.debugName() for _, each in self._outer}
        if value.debugName() not in before or value.node().kind() in ("prim::Param", "prim::Constant"):
            return value
        result = self.graph.create("prim::data", [value], 1)
        result.insertBefore(self.node)
        return result.output().setTypeAs(value)

    def _output(self, pair: Any) -> Any:
        if isinstance(pair, tuple):
            return pair[0]
        value = pair[self._branch_index]
        output = self.node.addOutput()
        output.inferTypeFrom(value)
        return traced_as(value, output)


def _tensors(variables: Mapping[str, Any]) -> list[Any]:
    """Tensors among values, and in their lists and dicts."""
    import torch
    from torch.utils import _pytree as tree

    return [leaf for leaf in tree.tree_leaves(list(variables.values())) if isinstance(leaf, torch.Tensor)]
