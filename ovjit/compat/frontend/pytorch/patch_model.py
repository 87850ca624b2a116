"""Patches of modules before they are traced: operators that replace modules, and weights of 16 or 8 bits
that can be traced on any CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.modules import extension_of, forward_of
from ovjit.readers.torch.values import STORED

#: The attribute that keeps the forward of a module whose weights are made traceable.
_FORWARD = "_openvino_module_extension_patch_orig_forward"
#: Where weights of 16 and 8 bits are kept meanwhile: those that f32 takes the place of, and those of a
#: forward that converts them.
_KEPT, _HALVES = "_weights_of_16_bits", "_openvino_orig_"


def has_been_patched(module: Any, name: str, orig_forward_name: str) -> bool:
    """Whether a module has its original forward as the attribute `orig_forward_name`."""
    return hasattr(module, orig_forward_name)


def module_patcher(
    module: Any, name: str, orig_forward_name: str, module_extensions: Mapping[Any, Any]
) -> None:
    """Replace a module by the operator of its extension, if it has one."""
    extension = extension_of(name, module, module_extensions)
    if extension is not None:
        _replace(module, orig_forward_name, forward_of(module, extension))


def patch_model(model: Any, module_extensions: Mapping[Any, Any] | None, orig_forward_name: str) -> None:
    """Replace modules by the operators of their extensions; `unpatch_model` reverts it."""
    for name, module in model.named_modules():
        if not has_been_patched(module, name, orig_forward_name):
            module_patcher(module, name, orig_forward_name, module_extensions or {})


def unpatch_model(model: Any, orig_forward_name: str = _FORWARD) -> None:
    """Restore modules' own forwards, and their 16- and 8-bit weights."""
    for module in model.modules():
        for name in [n for n in (*module._parameters, *vars(module)) if n.startswith(_HALVES)]:
            setattr(module, name.removeprefix(_HALVES), getattr(module, name))
            delattr(module, name)
        if hasattr(module, orig_forward_name):
            module.forward = getattr(module, orig_forward_name)
            delattr(module, orig_forward_name)
    for tensor, half_data in model.__dict__.pop(_KEPT, ()):
        tensor.data = half_data


def __make_16bit_traceable(
    model: Any, orig_forward_name: str = _FORWARD, patch_condition: Callable[[Any], bool] | None = None
) -> None:
    """Make a model with weights of f16, bf16 and f8 traceable. `unpatch_model` reverts it.

    Linear layers and embeddings keep their weights and convert them when they run. Other parameters and
    buffers become f32. Code that reads the dtype of such a layer's weight gets f32: a stand-in of zeros
    without memory replaces the weight. Where the code reads it elsewhere, the model has the weight.
    """
    originals = []
    forwards = _forwards()
    for name, module in model.named_modules():
        if has_been_patched(module, name, orig_forward_name):
            continue
        result = forwards.get(type(module))
        weight = getattr(module, "weight", None)
        if result is not None and weight is not None and _is_half(weight):
            if patch_condition is None or patch_condition(module):
                _set_aside(module)
                _replace(module, orig_forward_name, result(module))
                continue
        tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        originals += [(x, x.data) for x in tensors if _is_half(x)]
    for tensor, half_data in originals:
        tensor.data = half_data.float()
    model.__dict__.setdefault(_KEPT, []).extend(originals)


def _replace(module: Any, name: str, forward: Any) -> None:
    original = module.forward
    setattr(module, name, original)
    module.forward = wraps(original)(forward)


def _is_half(tensor: Any) -> bool:
    return tensor.is_floating_point() and tensor.element_size() <= 2


def _set_aside(module: Any) -> None:
    for name in ("weight", "bias"):
        tensor = getattr(module, name, None)
        if tensor is not None and _is_half(tensor):
            setattr(module, _HALVES + name, tensor)
            zeros = torch.zeros((), device=tensor.device).expand(tensor.shape)
            stand_in = torch.nn.Parameter(zeros, requires_grad=False)
            setattr(stand_in, STORED, tensor)
            setattr(module, name, stand_in)


@cache
def _weight_converter() -> Any:
    """The operator that converts a weight to f32. The reader of graphs keeps this conversion; others of
    constants are computed."""

    def convert_weight(x: Any) -> Any:
        return x.float()

    convert_weight.__annotations__ = {"x": torch.Tensor, "return": torch.Tensor}
    result = torch.library.custom_op("ovjit::stored", convert_weight, mutates_args=())
    result.register_fake(lambda x: x.new_empty(x.shape, dtype=torch.float32))
    return result


def _forwards() -> dict[type, Callable[[Any], Callable[..., Any]]]:
    """Classes of layers -> forwards that convert the weights to f32."""
    convert = _weight_converter()

    def real(module: Any, name: str) -> Any:
        tensor = getattr(module, _HALVES + name, getattr(module, name))
        if tensor is None:
            return None
        return convert(tensor) if _is_half(tensor) else tensor

    def linear(module: Any) -> Callable[..., Any]:
        return lambda input: torch.nn.functional.linear(
            input.float(), real(module, "weight"), real(module, "bias")
        )

    def embedding(module: Any) -> Callable[..., Any]:
        return lambda input: torch.nn.functional.embedding(input, real(module, "weight"), module.padding_idx)

    def conv1d(module: Any) -> Callable[..., Any]:
        return lambda x: torch.matmul(x.float(), real(module, "weight")) + real(module, "bias")

    forwards: dict[type, Any] = {torch.nn.Linear: linear, torch.nn.Embedding: embedding}
    package = sys.modules.get("transformers.pytorch_utils")  # it is there if a module is of its classes
    return forwards if package is None else {**forwards, package.Conv1D: conv1d}


__all__ = ["has_been_patched", "module_patcher", "patch_model", "unpatch_model"]
