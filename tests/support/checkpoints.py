"""Small random models as folders of transformers: config.json and safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: Names of a layer's parts in GGUF files and in transformers.
LLAMA = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_qkv": "self_attn.qkv_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate", "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj", "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}  # fmt: skip
GEMMA = {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
GPT2 = {
    "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


def halves(size: int) -> np.ndarray:
    """The order in which rows of one head have the two parts of a pair half a head apart."""
    return np.arange(size).reshape(-1, 2).T.reshape(-1)


def named(arch: str, made: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Tensors of a GGUF file by transformers' names, turned, shifted and split as transformers has them."""
    ends = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts, base = LLAMA | (GEMMA if arch.startswith("gemma") else {}), "model.layers"
    if arch == "phi3":
        parts = parts | {"ffn_up": "mlp.gate_up_proj"}
    if arch == "gpt2":
        ends = {"token_embd": "transformer.wte", "position_embd": "transformer.wpe",
                "output_norm": "transformer.ln_f", "output": "lm_head"}  # fmt: skip
        parts, base = GPT2, "transformer.h"
    found: dict[str, np.ndarray] = {}
    for name, array in made.items():
        if not name.startswith("blk."):
            whole, what = name.rsplit(".", 1)
            shift = -1 if "norm" in name and arch.startswith("gemma") else 0
            found[f"{ends[whole]}.{what}"] = array + np.float32(shift)
            continue
        _, layer, part, what = name.split(".")
        if part.endswith("_exps"):
            kind = part.split("_")[1]
            for e, one in enumerate(array):
                found[f"{base}.{layer}.mlp.experts.{e}.{kind}_proj.weight"] = one
            continue
        if arch == "llama" and part in ("attn_q", "attn_k"):
            array = array.reshape(-1, size, array.shape[-1])[:, halves(size)].reshape(array.shape)
        if arch == "gpt2" and array.ndim == 2:
            array = array.T
        if part == "ffn_gate_inp_shexp":
            array = array.reshape(1, -1)
        shift = -1 if arch.startswith("gemma") and part.endswith("norm") else 0
        found[f"{base}.{layer}.{parts[part]}.{what}"] = array + np.float32(shift) if shift else array
    return found


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], kind: str = "F32") -> None:
    """One file; BF16 keeps the upper 16 bits of f32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        real = np.ascontiguousarray(array, np.float32)
        data = (real.view(np.uint32) >> 16).astype("<u2") if kind == "BF16" else real.astype(KINDS[kind])
        at = [len(body), len(body) + data.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": at}
        body += data.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def write_folder(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], kind: str = "F32"
) -> Path:
    """The folder, with its tensors in two files and an index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    table = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part}, kind)
        table |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def config_of(arch: str, s: Any) -> dict[str, Any]:
    """config.json of the sizes of `tests.readers.gguf_decoders`."""
    kind = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gemma3": "gemma3_text"}.get(arch, arch)
    if arch == "gpt2":
        return {
            "model_type": kind, "n_embd": s.wide, "n_layer": s.layers, "n_head": s.heads, "n_positions": 64,
            "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "vocab_size": s.words,
            "tie_word_embeddings": s.tied,
        }  # fmt: skip
    made = {
        "model_type": kind, "hidden_size": s.wide, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "num_key_value_heads": s.shared, "head_dim": s.size,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6 if arch == "gemma3" else 10000.0, "vocab_size": s.words,
        "max_position_embeddings": 128, "tie_word_embeddings": s.tied,
        "hidden_act": "gelu_pytorch_tanh" if arch.startswith("gemma") else "silu",
    }  # fmt: skip
    if s.experts:
        made |= {"num_experts": s.experts, "num_experts_per_tok": s.chosen}
        made["norm_topk_prob"] = arch == "qwen3moe"
    if s.window:
        made |= {"sliding_window": s.window, "use_sliding_window": True, "max_window_layers": 0}
    if arch.startswith("gemma"):
        made["query_pre_attn_scalar"] = s.size
    return made | s.extra.get("config", {})
