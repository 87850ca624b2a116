"""Numbers of convolutions that are sizes: PyTorch takes the example's, and does not tell."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.asked_numbers import warn_of_number
from ovjit.readers.torch.tracing.patches import patch, suspend_tracing
from ovjit.readers.torch.tracing.size_values import torch_value
from ovjit.readers.torch.tracing.traced_nodes import insert_node

#: The numbers of convolutions, and of transposed ones, from the fourth argument on.
_OF_CONVOLUTIONS = {
    "": ("stride", "padding", "dilation", "groups"),
    "_transpose": ("stride", "padding", "output_padding", "groups", "dilation"),
}


def sizes_in_convolutions() -> contextlib.AbstractContextManager[None]:
    """Context manager: sizes that are the number of groups of a convolution (one per sample in modulated
    convolutions) or its padding stay traced. PyTorch records the example's. Other numbers are the example's,
    with a warning."""
    import torch

    def is_size(value: Any) -> bool:
        return (
            isinstance(value, torch.Tensor) or isinstance(value, (tuple, list)) and any(map(is_size, value))
        )

    def number(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [number(v) for v in value]
        return int(value) if isinstance(value, torch.Tensor) else value

    def wrap(original: Any, names: tuple[str, ...]) -> Any:
        traced = ("groups",) if "output_padding" in names else ("groups", "padding")

        def function(*args: Any, **named: Any) -> Any:
            named |= dict(zip(names, args[3:], strict=False))
            sizes = {name: named[name] for name in names if is_size(named.get(name))}
            if not torch.jit.is_tracing() or not sizes:
                return original(*args[:3], **named)
            with suspend_tracing():
                named |= {name: number(value) for name, value in sizes.items()}
            out = original(*args[:3], **named)
            if sizes.keys() - set(traced):
                warn_of_number("convolution")
            sizes = {name: value for name, value in sizes.items() if name in traced}
            if sizes:
                _set_numbers(torch_value(out).node(), sizes)
            return out

        return function

    return patch(*(
        (owner, f"conv{kind}{n}d", wrap(getattr(owner, f"conv{kind}{n}d"), names))
        for owner in (torch, torch.nn.functional) for kind, names in _OF_CONVOLUTIONS.items()
        for n in (1, 2, 3)
    ))  # fmt: skip


def _set_numbers(node: Any, sizes: Mapping[str, Any]) -> None:
    """Replace numbers in a traced convolution, which the node is or follows, by traced ones."""
    while "convolution" not in node.kind():
        node = node.inputsAt(0).node()
    graph = torch._C._get_tracing_state().graph()
    names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]

    def number(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return insert_node("aten::Int", [torch_value(value)], torch._C.IntType.get())
        return graph.insertConstant(value)

    outside = graph.insertPoint()
    graph.setInsertPoint(node)
    for name, value in sizes.items():
        if name == "groups":
            item = number(value)
        else:
            items = [number(v) for v in (value if isinstance(value, (tuple, list)) else [value])]
            item = insert_node("prim::ListConstruct", items, torch._C.ListType.ofInts())
        node.replaceInput(names.index(name), item)
    graph.setInsertPoint(outside)
