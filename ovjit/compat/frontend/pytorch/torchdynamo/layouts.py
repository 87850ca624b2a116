"""Strides that eager mode gives where the graph tells others.

PyTorch's rules for the shapes of a graph know the strides of most operators. Some kernels keep the order of
their input's memory where these rules tell an order of their own: `group_norm`, `roll`, `channel_shuffle`.
So an operator of a tensor that does not lie in order is run once by PyTorch, on zeros, and its strides are
passed on to what follows in the graph.
"""

from __future__ import annotations

import operator
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.views import base_of_view, is_view
from ovjit.readers.torch.tracing.strides import BY_STRIDES, hint
from ovjit.records import NamedTuple

#: Where a node keeps the strides of its tensor in eager mode, if the graph tells others.
STRIDES = "strides_of_eager_mode"


class _Kind(NamedTuple):
    """A tensor of the graph at the sizes of the example."""

    dtype: Any
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def zeros(self) -> Any:
        """A tensor like that."""
        import torch

        last = sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        return torch.zeros(last + 1, dtype=self.dtype).as_strided(self.sizes, self.strides)

    def empty(self) -> Any:
        """A tensor like that, as far as the mode of fake tensors needs one."""
        import torch

        return torch.empty_strided(self.sizes, self.strides, dtype=self.dtype)


def note_strides(module: Any) -> None:
    """Store at the nodes of a graph the strides of their tensors in eager mode, see `STRIDES`.

    Nothing is stored where the graph itself reads such a tensor's memory by strides.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    with unset_fake_temporarily(), torch.no_grad(), torch._C._DisableAutocast():
        layouts = _Layouts(FakeTensorMode())
        for node in nodes:
            layouts.visit(node)
    by_strides = (n for n in nodes if getattr(getattr(n.target, "_schema", None), "name", "") in BY_STRIDES)
    if any(not layouts.changed.keys().isdisjoint(n.all_input_nodes) for n in by_strides):
        return
    for node, kind in layouts.changed.items():
        if isinstance(kind, _Kind) and node not in layouts.graph_strided:
            node.meta[STRIDES] = kind.strides


class _Layouts:
    """Types, sizes and strides of a graph's tensors in eager mode, found node by node.

    `changed` has the nodes that differ from the graph. `graph_strided` are those whose views need the
    graph's strides. A `view` that the strides of eager mode refuse was a `reshape`, and becomes one again.
    """

    def __init__(self, fake: Any):
        self.fake = fake
        self.changed: dict[Any, Any] = {}
        self.graph_strided: set[Any] = set()
        self._probed: dict[str, Any] = {}

    def visit(self, node: Any) -> None:
        """Follow one operator, whose inputs are known."""
        import torch

        traced = _kinds(node.meta.get("val"))
        if traced is None or not (isinstance(node.target, torch._ops.OpOverload) or _is_item(node)):
            return
        arguments = torch.fx.map_arg((node.args, node.kwargs), self._value_of)
        kind = traced
        if not self.changed.keys().isdisjoint(node.all_input_nodes):
            kind = self._propagate(node, arguments) or traced
        if _has_own_strides(node, arguments):
            kind = self._run(node, arguments) or kind
        if kind != traced and _sizes(kind) == _sizes(traced):
            self.changed[node] = kind

    def _value_of(self, node: Any) -> Any:
        """The value of a node: a `_Kind`, several of them, or a number."""
        value = self.changed.get(node)
        if value is None:
            value = _kinds(node.meta.get("val"))
        return hint(node) if value is None else value

    def _propagate(self, node: Any, arguments: Any) -> Any:
        """Infer the result by PyTorch's rules from eager mode's strides; None where a view refuses these."""
        import torch

        try:
            with self.fake:
                return _infer(node.target, arguments, _Kind.empty)
        except Exception:  # PyTorch's rules raise errors of any kind
            if is_view(node):
                self.graph_strided.add(base_of_view(node))
            if node.target is torch.ops.aten.view.default:  # PyTorch may run it
                node.target = torch.ops.aten.reshape.default
            return None

    def _run(self, node: Any, arguments: Any) -> Any:
        """Find the result by running the operator on zeros; None where it does not take these."""
        key = f"{node.target}{arguments}"
        if key not in self._probed:
            try:
                self._probed[key] = _infer(node.target, arguments, _Kind.zeros)
            except Exception:  # operators raise errors of any kind
                self._probed[key] = None
        return self._probed[key]


def _infer(target: Any, arguments: Any, evaluate: Any) -> Any:
    if target is operator.getitem:
        return target(*arguments[0])
    from torch.utils import _pytree as tree

    def argument_of(value: Any) -> Any:
        return evaluate(value) if _is_kind(value) else hint(value)

    args, kwargs = tree.tree_map(argument_of, arguments, is_leaf=_is_kind)
    return _kinds(target(*args, **kwargs))


def _is_kind(value: Any) -> bool:
    return isinstance(value, _Kind)


def _kinds(value: Any) -> Any:
    """The `_Kind` of a tensor, a tuple for several tensors, None for anything else."""
    import torch

    if isinstance(value, (list, tuple)):
        return tuple(map(_kinds, value)) or None
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    numbers = [tuple(map(hint, part)) for part in (value.shape, value.stride())]
    return (
        _Kind(value.dtype, *numbers) if all(isinstance(n, int) for n in (*numbers[0], *numbers[1])) else None
    )


def _sizes(kind: Any) -> Any:
    return kind.sizes if isinstance(kind, _Kind) else kind and tuple(map(_sizes, kind))


def _is_item(node: Any) -> bool:
    return node.target is operator.getitem


def _has_own_strides(node: Any, arguments: Any) -> bool:
    """Whether an operator's strides are asked of itself. Those of views and of operators by elements are
    known, and one that draws numbers would draw."""
    import torch
    from torch.utils import _pytree as tree

    excluded_tags = {torch.Tag.pointwise, torch.Tag.nondeterministic_seeded, torch.Tag.inplace_view}
    if _is_item(node) or is_view(node) or not excluded_tags.isdisjoint(node.target.tags):
        return False
    leaves = tree.tree_leaves(arguments, is_leaf=_is_kind)
    return not node.target._schema.is_mutable and any(map(_is_out_of_order, leaves))


def _is_out_of_order(kind: Any) -> bool:
    """Whether a tensor of three or more dimensions lies in another order than that of its dimensions."""
    if not isinstance(kind, _Kind) or len(kind.sizes) < 3 or 0 in kind.sizes:
        return False
    steps = [step for n, step in zip(kind.sizes, kind.strides, strict=True) if n > 1]
    return steps != sorted(steps, reverse=True)
