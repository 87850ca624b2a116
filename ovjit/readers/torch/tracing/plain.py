"""The plain trace of a module: numbers and branches are the example's, and PyTorch warns of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing import strides
from ovjit.readers.torch.tracing.asked_numbers import allow_hashed_sizes, rounding
from ovjit.readers.torch.tracing.index_warnings import index_warnings
from ovjit.readers.torch.tracing.patches import allow_divmod, compile_scripts_unpatched, forward_only, patch
from ovjit.readers.torch.tracing.state import trace_module
from ovjit.readers.torch.tracing.trace import Prepared, quietly
from ovjit.records import NamedTuple


class Recorded(NamedTuple):
    """A script or program of a module, with PyTorch's warnings."""

    script: Any
    warned: list[Any]


def trace_plainly(ready: Prepared, records: list[Any]) -> Any:
    """The plain trace of a module. PyTorch's warnings are added to `records`."""
    from torch._functorch import vmap

    others = patch(
        (vmap, "_vmap_increment_nesting", _not_traced),
        (vmap, "_vmap_decrement_nesting", lambda: None),
        # attention is not fused where tensors have functions of their own: a mode that follows is none
        (torch.overrides, "has_torch_function", _of_other_classes),
    )
    with compile_scripts_unpatched(), quietly(records, ready.fused), torch.no_grad(), others, allow_divmod():
        with rounding(), allow_hashed_sizes(), strides.trace_strides(), index_warnings(), forward_only():
            return trace_module(ready.module, ready.leaves, ready.names)


BY_VMAP = UnsupportedError("torch.vmap is not supported by tracing")


def _of_other_classes(values: Sequence[Any]) -> bool:
    """Whether some values are tensors of subclasses with `__torch_function__`."""
    plain = torch.Tensor, torch.nn.Parameter
    return any(hasattr(type(v), "__torch_function__") and type(v) not in plain for v in values)


def _not_traced(*_: Any) -> Any:
    """Raise an error at the start of torch.vmap: its traces have the sizes of the example."""
    raise BY_VMAP
