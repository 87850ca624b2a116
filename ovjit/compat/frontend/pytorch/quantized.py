"""Modules with packed weights of GPTQ, AWQ, BitNet and compressed-tensors, made ready for `convert_model`.

`convert_model` finds packed layers itself, whether they can run here or not. So only GPTQ's are changed:
their own kernels may refuse a CPU when the module is called.
"""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.pytorch.gptq import patch_model, unpatch_model

_PATCHED = "_openvino_gptq_patched"
_METHODS = ("gptq", "awq", "bitnet", "compressed-tensors")


def detect_quantized_model(model: Any) -> str | None:
    """The quantization method by the configuration of the module, or of one that it wraps; or None."""
    while model is not None:
        config = getattr(getattr(model, "config", None), "quantization_config", None)
        if config:
            return config.quant_method
        model = getattr(model, "model", None)
    return None


def patch_quantized(model: Any) -> None:
    """Make a quantized module traceable; `unpatch_quantized` undoes it. Raises RuntimeError for an unknown
    method."""
    method = detect_quantized_model(model)
    if method not in _METHODS:
        raise RuntimeError(f"Unknown quantization type: {method}.")
    if method == "gptq":
        setattr(model, _PATCHED, True)
        patch_model(model)


def unpatch_quantized(model: Any) -> None:
    """Undo `patch_quantized`."""
    if getattr(model, _PATCHED, False):
        unpatch_model(model)
        delattr(model, _PATCHED)


def patch_quantized_for_export(model: Any) -> None:
    """Prepare a quantized module for `torch.export`, by the same patches as for `torch.jit.trace`."""
    patch_quantized(model)


def unpatch_quantized_for_export(model: Any) -> None:
    """Undo `patch_quantized_for_export`."""
    unpatch_quantized(model)


__all__ = [
    "detect_quantized_model",
    "patch_quantized",
    "patch_quantized_for_export",
    "unpatch_quantized",
    "unpatch_quantized_for_export",
]
