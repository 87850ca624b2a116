"""Tensors of an adapter, by the layer that they adapt.

In: a safetensors file as PEFT, diffusers or kohya write it, or a GGUF file as llama.cpp writes it. Out: for
each layer A [rank, inputs] and B [outputs, rank] in f32; 1 x 1 convolutions have two more dimensions in the
file. Scales (`alpha`) of files are not used, as in openvino_genai: a program chooses its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.readers.registry import name_missing_room
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.readers.gguf.header import Stored

#: Names of matrices, which follow the name of their layer: PEFT's, kohya's, diffusers', and those of Flux.
_NAMES = {
    "a": re.compile(r"(?:(.*)[_.]lora[_.](?:A|down)\.weight)|(?:(.*lora[12])\.down\.weight)", re.DOTALL),
    "b": re.compile(r"(?:(.*)[_.]lora[_.](?:B|up)\.weight)|(?:(.*lora[12])\.up\.weight)", re.DOTALL),
    "alpha": re.compile(r"(.*)\.alpha", re.DOTALL),
}
#: Weights that an adapter replaces.
_WEIGHTS = re.compile(r".*\.(?:lm_head|embed_tokens)\.weight", re.DOTALL)

#: Names of matrices in GGUF files, and PEFT's names of their layers.
_GGUF = re.compile(r"(?:blk\.(?P<block>\d+)\.)?(?P<layer>\w+)\.weight\.lora_(?P<part>[ab])", re.ASCII)
GGUF_LAYERS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "output": "lm_head",
}  # fmt: skip


def join_block(block: str | None, layer: str) -> str:
    """PEFT's name of a layer of a block, or of one beside all blocks."""
    return layer if block is None else f"model.layers.{block}.{layer}"


class LowRank(NamedTuple):
    """A [rank, inputs] and B [outputs, rank] of a layer, in f32."""

    a: np.ndarray
    b: np.ndarray


class AdapterTensors(NamedTuple):
    """Pairs of matrices by layer, and weights that replace those of the model, by name. `paired`: layers of
    queries and keys whose rows of B are in llama.cpp's order, with rotated pairs side by side."""

    layers: Mapping[str, LowRank]
    weights: Mapping[str, np.ndarray]
    paired: Collection[str] = ()


def read_adapter(path: Path) -> AdapterTensors:
    """The tensors of a file. RuntimeError if it is missing, not a safetensors file, or lacks a matrix."""
    if not path.exists():
        raise OvjitError(f"LoRA adapter path does not exist: {path}")
    if path.suffix == ".gguf":
        return _read_gguf(path)
    if path.suffix != ".safetensors":
        raise OvjitError(f"Expected .safetensors file, got: {path}")
    with name_missing_room("Adapters of safetensors"):
        from ovjit.readers.checkpoint.files import read_tensor_file
    return _group(_read(lambda: read_tensor_file(path)))


def _read_gguf(path: Path) -> AdapterTensors:
    """The tensors of a GGUF file: layers get the names that PEFT writes. RuntimeError for a file that is no
    adapter, and for layers without a name there, such as those of experts."""
    with name_missing_room("Adapters of GGUF files"):
        from ovjit.readers.gguf.blocks import values_of
        from ovjit.readers.gguf.header import open_gguf
        from ovjit.readers.gguf.settings import KINDS
    file = open_gguf(str(path))
    kind = file.metadata.get("adapter.type")
    if kind != "lora":
        raise OvjitError(f"{path} is no LoRA adapter: its adapter.type is {kind!r}")
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in file.tensors.items():
        match = _GGUF.fullmatch(name)
        layer = GGUF_LAYERS.get(match["layer"]) if match else None
        if match is None or layer is None:
            raise UnsupportedError(f"the tensor {name!r} of {path} is no matrix of a known layer")
        full = join_block(match["block"], layer)
        values = values_of(tensor.kind, tensor.data, tensor.shape).reshape(tensor.shape)
        parts.setdefault(f"base_model.model.{full}", {})[match["part"]] = values
    paired: Collection[str] = ()
    architecture = KINDS.get(str(file.metadata.get("general.architecture")))
    if architecture is not None and architecture.paired:
        paired = {name for name in parts if name.endswith(("q_proj", "k_proj"))}
    return AdapterTensors({layer: _pair(layer, parts[layer]) for layer in sorted(parts)}, {}, paired)


def parse_adapter(data: np.ndarray) -> AdapterTensors:
    """The tensors of the bytes of a file."""
    with name_missing_room("Adapters of safetensors"):
        from ovjit.readers.checkpoint.files import parse_tensors
    tensors = _group(_read(lambda: parse_tensors(data, "the safetensors in memory")))
    return AdapterTensors(tensors.layers, {})


def _read(read: Callable[[], dict[str, Stored]]) -> dict[str, Stored]:
    try:
        return read()
    except ModelError as error:
        raise ModelError(
            f"{error}. Cannot parse safetensor as a Safetensors file format. Safetensors file format is "
            "supported only"
        ) from None


def _group(tensors: Mapping[str, Stored]) -> AdapterTensors:
    parts: dict[str, dict[str, np.ndarray]] = {}
    weights = {name: _to_f32(tensors[name]) for name in sorted(tensors) if _WEIGHTS.fullmatch(name)}
    for name in tensors.keys() - weights.keys():
        for part, pattern in _NAMES.items():
            match = pattern.fullmatch(name)
            if match is not None:
                layer = next(group for group in match.groups() if group is not None)
                parts.setdefault(layer, {})[part] = _to_f32(tensors[name])
                break
    return AdapterTensors({layer: _pair(layer, parts[layer]) for layer in sorted(parts)}, weights)


def _pair(layer: str, parts: Mapping[str, np.ndarray]) -> LowRank:
    if "a" not in parts or "b" not in parts:
        raise OvjitError(f"Either A, B or both matrices are missing in LoRA tensors for layer: {layer}")
    for name, value in parts.items():
        if name != "alpha" and (value.ndim < 2 or max(value.shape[2:], default=1) > 1):
            raise OvjitError(
                f"the tensor {name.upper()} of the layer {layer} has the shape {list(value.shape)}: LoRA "
                "adapter with not pointwise Convolutional kernel is not supported."
            )
    a, b = (parts[name].reshape(parts[name].shape[0], parts[name].shape[1]) for name in ("a", "b"))
    if a.shape[0] != b.shape[1]:
        raise OvjitError(
            f"A and B of the layer {layer} have the shapes {list(a.shape)} and {list(b.shape)}: [rank, "
            "inputs] and [outputs, rank] are expected"
        )
    return LowRank(a, b)


def _to_f32(tensor: Stored) -> np.ndarray:
    if tensor.kind == "BF16":
        bits = tensor.data.view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(tensor.shape)
    dtype = np.float16 if tensor.kind == "F16" else np.float32
    return tensor.data.view(dtype).astype(np.float32).reshape(tensor.shape)
