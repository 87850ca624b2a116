"""GPTQ's layers made to run on any CPU, so that they can be traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.readers.torch.pytorch import torch

#: The kinds of GPTQ's layers that have one format of weights.
supported_quant_types = ["triton", "exllama", "exllamav2", "cuda-old", "hf_kernel", "torch_fused"]
#: The attribute that keeps a layer's own forward.
_FORWARD = "_openvino_patch_orig_forward"
_BITS = 4


def patch_model(model: Any) -> None:
    """Make 4-bit layers compute by PyTorch's operators, in f32. `unpatch_model` reverts it, except for the
    f32.

    Raises ValueError for layers of other kinds and bits.
    """
    is_symmetric = _is_symmetric(model)
    for name, module in model.named_modules():
        if hasattr(module, _FORWARD):
            continue
        if getattr(module, "is_quantized", None) is not None:
            module.is_quantized = False
        module.float()
        if hasattr(module, "QUANT_TYPE"):
            check(name, module)
            setattr(module, _FORWARD, module.forward)
            module.forward = _forward(module, is_symmetric)


def unpatch_model(model: Any) -> None:
    """Restore the layers' own forwards."""
    for module in model.modules():
        if hasattr(module, _FORWARD):
            module.forward = getattr(module, _FORWARD)
            delattr(module, _FORWARD)


def check(name: str, module: Any) -> None:
    """Raise ValueError for a layer of another kind, or with other bits."""
    if module.QUANT_TYPE not in supported_quant_types:
        raise ValueError(
            f"Unsupported QUANT_TYPE == {module.QUANT_TYPE} is discovered in module {name}; "
            f"supported types are {supported_quant_types}"
        )
    if module.bits != _BITS:
        raise ValueError(
            f"Unsupported bits == {module.bits} is discovered in module {name}; only 4 is supported"
        )


def _is_symmetric(model: Any) -> bool:
    config = getattr(model, "config", None)
    if config is None:
        config = getattr(getattr(model, "model", None), "config", None)
    return bool(getattr(getattr(config, "quantization_config", None), "sym", False))


def _forward(module: Any, is_symmetric: bool) -> Callable[..., Any]:
    """A forward from the layer's codes, zero points and scales. Hooks of accelerate are called too."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            args, kwargs = hook.pre_forward(module, *args, **kwargs)
        result = args[0] @ _weights(module, is_symmetric).to(args[0].dtype)
        if module.bias is not None:
            result = result + module.bias
        return result if hook is None else hook.post_forward(module, result)

    return forward


def _weights(module: Any, is_symmetric: bool) -> Any:
    """The weight matrix [in, out]. In the first of two formats, stored zero points are one too small."""
    shifts = torch.arange(0, 32, _BITS, dtype=torch.int32, device=module.qweight.device)
    most = (1 << _BITS) - 1
    columns = module.qweight.shape[1]
    codes = (module.qweight.unsqueeze(1) >> shifts.view(1, -1, 1) & most).reshape(-1, columns)
    groups = getattr(module, "g_idx", None)
    if groups is None or not groups.numel():
        count = module.scales.shape[0]
        groups = torch.arange(count, device=codes.device).repeat_interleave(codes.shape[0] // count)
    zeros: Any = 1 << _BITS - 1
    if not is_symmetric:
        first = getattr(module, "qzero_format", lambda: 1)() == 1
        points = (module.qzeros.unsqueeze(2) >> shifts & most).reshape(-1, columns) + int(first)
        zeros = points[groups.long()]
    return (codes - zeros) * module.scales[groups.long()]


__all__ = ["patch_model", "supported_quant_types", "unpatch_model"]
