"""Selection of the nodes of a graph to compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.readers.torch.programs.fx import refusal
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.values import ELEMENT_NAMES, PARTS, name_of

#: Operators that refuse tensors without elements, by dimension or as a whole.
OF_SOMETHING = frozenset(
    f"aten::{name}"
    for name in "max min amax amin aminmax argmax argmin median nanmedian mode kthvalue".split()
)
#: Resizing of images. PyTorch's kernels for bytes round their weights and the rows between both passes.
ANTIALIASED = frozenset(("aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa"))


def why_unsupported(node: Any, options: Options, refused: Mapping[str, str]) -> str | None:
    """The reason why a node cannot be compiled; None if it can."""
    if node.op == "get_attr":
        return None
    if node.op != "call_function":
        return "it calls Python"
    if node.name in refused:
        return refused[node.name]
    reason = refusal(node.target)
    name = name_of_target(node.target)
    overload = getattr(node.target, "_overloadname", "")
    if reason is None and not options.disabled_ops.isdisjoint((name, f"{name}.{overload}")):
        reason = "it is one of disabled_ops"
    if reason is None and _always_draws(node.target):
        reason = "its numbers come from PyTorch's generator, as torch.manual_seed sets it"
    if reason is None and name in OF_SOMETHING and 0 in node.args[0].meta["val"].shape:
        reason = "PyTorch refuses tensors without elements"
    if reason is None and name in ANTIALIASED and _is_of_bytes(node.args[0]):
        reason = "PyTorch resizes bytes with rounded weights"
    return reason or _unfit_type(node)


def _is_of_bytes(node: Any) -> bool:
    return node.meta["val"].dtype is torch.uint8


def _always_draws(target: Any) -> bool:
    """Whether an operator always uses random numbers. For dropout and the like that depends on an argument,
    which their rules check."""
    return is_random(target) and not any(
        "dropout" in a.name or "train" in a.name for a in target._schema.arguments
    )


def name_of_target(target: Any) -> str:
    """An operator's name, "aten::add"."""
    schema = getattr(target, "_schema", None)
    return schema.name if schema is not None else getattr(target, "__name__", str(target))


def _unfit_type(node: Any) -> str | None:
    values = node.meta.get("val")
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if isinstance(value, torch.Tensor):
            name = name_of(value.dtype)
            if name not in ELEMENT_NAMES and name not in PARTS:
                return f"it returns tensors of the type {name}"
            if value.device.type not in ("cpu", "meta"):
                return f"it returns tensors on the device {value.device}"
    return None


def is_random(target: Any) -> bool:
    """Whether an operator may use random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
