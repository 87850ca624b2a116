"""paged_attention_transformation of decoders that optimum-intel exports: a small random network of each
architecture, rewritten by OpenVINO and by ovjit. Prints a line of JSON: architecture -> what differs, and how
far logits of random mixtures of sequences are from those of decoding with state, of the largest.

    python paged_decoders.py FOLDER [architecture ...]
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import openvino
import openvino._offline_transformations as theirs
import torch
import transformers
from optimum.intel import openvino as intel

import ovjit
from ovjit.compat import _offline_transformations as ours
from tests.support.paged_models import Cache, alone, decoded, told

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
SEED = 20261123
F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
#: Tokens a layer with a window sees.
WINDOW = 12
LM = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
      "head_dim": 16, "intermediate_size": 96, "vocab_size": 99, "max_position_embeddings": 256,
      "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 99, "bos_token_id": 1,
       "eos_token_id": 2}  # fmt: skip
PLAIN = {k: v for k, v in LM.items() if k not in ("num_key_value_heads", "head_dim")}
#: Architecture -> sizes.
CASES = {
    "llama": LM, "mistral": {**LM, "sliding_window": WINDOW},
    "mixtral": {**LM, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2": LM, "qwen3": LM, "qwen3_moe": {**LM, **EXPERTS}, "gemma2": {**LM, "sliding_window": WINDOW},
    "gemma3_text": {**LM, "sliding_window": WINDOW, "sliding_window_pattern": 2},
    "phi3": {**LM, "sliding_window": None, "original_max_position_embeddings": 256}, "gpt2": GPT,
    "gpt_neox": {**PLAIN, "rotary_pct": 0.5},
    "opt": {**PLAIN, "ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "vocab_size": 99},
    "falcon": {**PLAIN, "alibi": False, "new_decoder_architecture": False},
    "olmo2": LM, "granite": LM,
    "gpt_oss": {**LM, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    "stablelm": LM, "gptj": {**GPT, "rotary_dim": 8},
    "gpt_neo": {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "window_size": WINDOW,
                "attention_types": [[["global", "local"], 1]], "vocab_size": 99,
                "max_position_embeddings": 256, "intermediate_size": 96, "bos_token_id": 1,
                "eos_token_id": 2},
}  # fmt: skip


def exported(kind, folder):
    """The path of an exported decoder with state."""
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(kind, **CASES[kind])
    net = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in net.parameters():  # so that attention is not even
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=2 / parameter.shape[-1] ** 0.5)
    net.save_pretrained(folder / "net")
    model = intel.OVModelForCausalLM.from_pretrained(folder / "net", export=True, compile=False)
    model.save_pretrained(folder / "exported")
    return folder / "exported" / "openvino_model.xml"


def outcome(kind, folder):
    path = exported(kind, folder)
    mine, real = ovjit.Core().read_model(path), openvino.Core().read_model(path)
    ours.paged_attention_transformation(mine)
    theirs.paged_attention_transformation(real)
    rng = np.random.default_rng(SEED)
    sequences = [rng.integers(3, 90, int(n)) for n in (5, 33, 50)]
    plain = ovjit.Core().compile_model(path, "CPU", F32)
    apart = {}
    for name, package, model in (("ours", ovjit, mine), ("real", openvino, real)):
        cache = Cache(package, package.Core().compile_model(model, "CPU", F32), np.random.default_rng(SEED))
        far = [0.0]
        for got, tokens in zip(decoded(cache, sequences, np.random.default_rng(3)), sequences, strict=True):
            want = alone(plain, tokens)
            far.append(float(np.abs(got - want).max() / np.abs(want).max()))
        apart[name] = max(far)
    one, other = told(mine), told(real)
    parts = ("inputs", "outputs", "layers", "sinks")
    differ = {
        part: [str(a)[:2000], str(b)[:2000]]
        for part, a, b in zip(parts, one, other, strict=True) if a != b
    }  # fmt: skip
    return {"apart": apart, "differ": differ}


def main():
    folder, found = Path(sys.argv[1]), {}
    for kind in sys.argv[2:] or CASES:
        (folder / kind).mkdir()
        try:
            found[kind] = outcome(kind, folder / kind)
        except Exception as error:
            found[kind] = {"error": f"{type(error).__name__}: {error}"[:500], "where": traceback.format_exc()}
    print()
    print(json.dumps(found))


main()
