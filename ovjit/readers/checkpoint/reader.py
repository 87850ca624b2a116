"""A folder of transformers (config.json and safetensors) -> a decoder with state, as of a GGUF file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.build import Model
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.checkpoint.files import read_json, read_tensors
from ovjit.readers.checkpoint.settings import metadata_of, override
from ovjit.readers.gguf.blocks import REALS
from ovjit.readers.gguf.header import GgufFile, Stored
from ovjit.readers.gguf.reader import decoder
from ovjit.readers.gguf.settings import Settings
from ovjit.readers.gguf.weights import Weights

_LAYER = re.compile(r"(?:transformer\.)?(?:model\.)?(?:layers|h)\.(\d+)\.(.+)\.(weight|bias)")
_EXPERT = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)")
#: What says nothing that the configuration does not say.
_SPARE = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias)")
_ENDS = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "wte": "token_embd",
    "wpe": "position_embd", "ln_f": "output_norm",
}  # fmt: skip
_PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
#: Gemma has norms before and after each part.
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
_EXPERTS = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def rename_tensors(tensors: Mapping[str, Stored], arch: str, tied: bool) -> dict[str, Stored]:
    """The tensors by GGUF's names. UnsupportedError with the names of those that have no place."""
    result: dict[str, Stored] = {}
    experts: dict[str, dict[int, Stored]] = {}
    unknown = []
    for name, tensor in tensors.items():
        if _SPARE.fullmatch(name) or (tied and name == "lm_head.weight"):
            continue
        match = _LAYER.fullmatch(name)
        if match is None:
            end, _, what = name.removeprefix("transformer.").removeprefix("model.").rpartition(".")
            target = f"{_ENDS[end]}.{what}" if end in _ENDS else ""
        else:
            layer, part, what = match.groups()
            expert = _EXPERT.fullmatch(part)
            if expert is not None and expert[2] in _EXPERTS:
                table = f"blk.{layer}.ffn_{_EXPERTS[expert[2]]}_exps.weight"
                experts.setdefault(table, {})[int(expert[1])] = tensor
                continue
            part_name = _GEMMA.get(part) if arch.startswith("gemma") else None
            part_name = part_name or _PARTS.get(part)
            target = f"blk.{layer}.{part_name}.{what}" if part_name else ""
        if not target or target in result:
            unknown.append(name)
        else:
            result[target] = _as_gguf(target, tensor, arch)
    if unknown:
        raise UnsupportedError(
            f"the architecture {arch!r} does not use these tensors: {', '.join(map(repr, unknown[:10]))}"
        )
    return result | {name: _table(name, parts) for name, parts in experts.items()}


def real(tensor: Stored) -> np.ndarray:
    """The values of a tensor in the type that they are stored in."""
    return tensor.data.view(numpy_dtype(REALS[tensor.kind])).reshape(tensor.shape)


def _as_gguf(name: str, tensor: Stored, arch: str) -> Stored:
    if arch == "gpt2" and len(tensor.shape) == 2 and name.startswith("blk."):  # stored by columns
        transposed = np.ascontiguousarray(real(tensor).T)
        return Stored(tensor.kind, transposed.shape, transposed)
    if arch.startswith("gemma") and name.endswith("norm.weight"):  # how far it is from 1
        return Stored("F32", tensor.shape, real(tensor).astype(np.float32) + 1)
    if name.endswith("ffn_gate_inp_shexp.weight"):
        return tensor._replace(shape=(tensor.shape[-1],))
    return tensor


def _table(name: str, parts: Mapping[int, Stored]) -> Stored:
    """Stack the matrices of all experts to one table."""
    kinds = {(part.kind, part.shape) for part in parts.values()}
    if sorted(parts) != list(range(len(parts))) or len(kinds) != 1:
        raise ModelError(f"the experts of {name!r} are incomplete, or differ in type or shape")
    kind, shape = kinds.pop()
    table = np.stack([real(parts[i]) for i in range(len(parts))])
    return Stored(kind, (len(parts), *shape), table)


class _Weights(Weights):
    """Tensors of safetensors files: reals, whose small ones need no package to be read."""

    def array(self, name: str, *shape: int) -> np.ndarray:
        return real(self.check_shape(name, shape)).astype(np.float32).reshape(shape)


def read_checkpoint(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Model:
    """The decoder of a folder that transformers has written: `input_ids`, `attention_mask`, `position_ids`
    and `beam_idx` in, `logits` out, keys and values in variables.

    `overrides`: entries in place of config.json's. Weights stay as they are stored (f32, f16, bf16).
    ModelError that names the folder and what is wrong; UnsupportedError, one too, names a kind of model, an
    option or tensors that are not read.
    """
    folder = Path(path)
    try:
        config = override(read_json(folder / "config.json"), overrides or {})
        metadata = metadata_of(config)
        settings = Settings(metadata.metadata)
        kind = settings.kind
        if metadata.act != kind.act:
            raise UnsupportedError(f"the activation of {config['model_type']} should be {kind.act}")
        settings.kind = kind._replace(paired=False)
        tied = bool(config.get("tie_word_embeddings", settings.arch in ("gpt2", "gemma2", "gemma3")))
        tensors = rename_tensors(read_tensors(folder), settings.arch, tied)
        extra = {name: Stored("F32", table.shape, table) for name, table in metadata.tensors.items()}
        return decoder(_Weights(GgufFile(metadata.metadata, tensors | extra), settings))
    except UnsupportedError as error:
        raise UnsupportedError(_name_file(folder, error)) from error
    except OvjitError as error:
        raise ModelError(_name_file(folder, error)) from error


def _name_file(folder: Path, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(str(folder)) else f"{folder}: {text}"
