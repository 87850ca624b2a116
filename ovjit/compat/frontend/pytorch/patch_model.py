"""What exporters do to a module with weights of 16 or 8 bits, so that it can be traced on any CPU."""

from __future__ import annotations

from typing import Any

#: Where a module keeps its weights of 16 bits meanwhile.
_KEPT = "_weights_of_16_bits"


def __make_16bit_traceable(model: Any, orig_forward_name: str = "", patch_condition: Any = None) -> None:
    """Parameters and buffers of f16, bf16 and f8 as f32, in their places; `unpatch_model` undoes it."""
    kept = [(x, x.data) for x in (*model.parameters(), *model.buffers()) if _is_half(x)]
    for tensor, halves in kept:
        tensor.data = halves.float()
    model.__dict__.setdefault(_KEPT, []).extend(kept)


def unpatch_model(model: Any, orig_forward_name: str = "") -> None:
    """Put weights of 16 and 8 bits back."""
    for tensor, halves in model.__dict__.pop(_KEPT, ()):
        tensor.data = halves


def _is_half(tensor: Any) -> bool:
    return tensor.is_floating_point() and tensor.element_size() <= 2
