#!/bin/sh
# CTranslate2's converter of transformers: what a configuration says beside sizes is lost for Gemma 2, Qwen 2, Llama, Falcon, BLOOM and GPT-2.
#
# Versions: ctranslate2 4.8.5, torch 2.14.1, transformers 5.24.0, tokenizers 0.23.3, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Each loader of converters/transformers.py reads the weights and what it knows of config.json. Some options are refused by name ("RoPE scaling
# type 'yarn' is not yet implemented"); those below are lost without a word. For each one it is checked that the converted model has
# the log-probabilities of another configuration: the one with the option at the value that the loader or the engine has built in.
# - Gemma 2: query_pre_attn_scalar (144 in the model of 27 billion weights, 128 is assumed), both caps, and the sliding window. The loader
#   of Gemma 4 in the same file writes the cap of the logits.
# - Llama with llama3 scaling: the converter asks for it by its name and writes both factors, not original_max_position_embeddings; the
#   engine has the number of Llama 3.1. Other numbers (16 here) leave all frequencies as they are.
# - Qwen 2: the sliding window; Falcon: rope_theta and the activation; Llama: the activation.
# - BLOOM: layer_norm_epsilon and apply_residual_connection_post_layernorm; GPT-2: scale_attn_weights.
# "Minimum" support of Gemma 2 is the title of its pull request (1772); what it leaves out is in no documentation, and no report of these was
# found.
#
# Output seen (largest difference of a log-probability to transformers):
#   Llama                            differs by 0.000
#   Llama, gelu                      differs by 1.570
#   Llama, llama3 scaling of 16      differs by 7.170
#   Qwen 2, sliding window           differs by 6.502
#   Gemma 2, without its novelties   differs by 0.000
#   Gemma 2, attention scale of 144  differs by 3.635
#   Gemma 2, scores capped at 2      differs by 4.241
#   Gemma 2, logits capped at 5      differs by 4.505
#   Gemma 2, sliding window          differs by 4.846
#   Falcon                           differs by 0.000
#   Falcon, theta 500                differs by 2.073
#   Falcon, relu                     differs by 0.800
#   BLOOM                            differs by 0.000
#   BLOOM, epsilon 0.1               differs by 1.155
#   BLOOM, residual behind the norm  differs by 5.650
#   GPT-2, scores not scaled         differs by 3.093
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ctranslate2==4.8.5 torch==2.14.1 transformers==5.24.0 tokenizers==0.23.3 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import os
import warnings

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")
import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ids = np.arange(3, 25) * 7 % 61 + 3
words = [f"t{i}" for i in range(72)]
sizes = dict(vocab_size=72, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
sizes.update(max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3)


def make(kind, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**sizes, **options})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()


def in_transformers(model):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor(ids[None])).logits[0].double(), -1)


def in_ctranslate2(model, name):
    model.save_pretrained(name)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="t1", eos_token="t2", unk_token="t0", pad_token="t0")
    tokenizer.save_pretrained(name)
    TransformersConverter(name).convert(name + "/converted")
    generator = ctranslate2.Generator(name + "/converted", compute_type="float32", intra_threads=1)
    scores = generator.forward_batch([[words[i] for i in ids]], return_log_probs=True)
    return torch.tensor(np.array(scores))[0].double()


def check(title, kind, options, converted=None):
    """Compares log-probabilities; `converted` are the options that CTranslate2 computes in their place."""
    model = make(kind, **options)
    wanted, found = in_transformers(model), in_ctranslate2(model, title.replace(" ", "_"))
    error = (wanted - found).abs().max().item()
    print(f"{title:32} differs by {error:.3f}")
    assert (error < 0.005) == (converted is None) and (converted is None or error > 0.05), "the behaviour has changed"
    if converted is not None:
        alike = make(kind, **{**options, **converted})
        alike.load_state_dict(model.state_dict())
        error = (in_transformers(alike) - found).abs().max().item()
        assert error < 0.005, f"the behaviour has changed: {error}"


def rotary(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


check("Llama", "llama", {})
check("Llama, gelu", "llama", {"hidden_act": "gelu"}, {"hidden_act": "silu"})
llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
scaled = rotary("llama3", **llama3, original_max_position_embeddings=16)
check("Llama, llama3 scaling of 16", "llama", scaled, rotary("default"))
window = dict(use_sliding_window=True, sliding_window=4, max_window_layers=0)
check("Qwen 2, sliding window", "qwen2", window, {"use_sliding_window": False})
gemma = dict(head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=None, final_logit_softcapping=None)
check("Gemma 2, without its novelties", "gemma2", gemma)
check("Gemma 2, attention scale of 144", "gemma2", {**gemma, "query_pre_attn_scalar": 144}, gemma)
check("Gemma 2, scores capped at 2", "gemma2", {**gemma, "attn_logit_softcapping": 2.0}, gemma)
check("Gemma 2, logits capped at 5", "gemma2", {**gemma, "final_logit_softcapping": 5.0}, gemma)
check("Gemma 2, sliding window", "gemma2", {**gemma, "sliding_window": 4}, {"sliding_window": 64})
check("Falcon", "falcon", {})
check("Falcon, theta 500", "falcon", rotary("default", rope_theta=500.0), rotary("default"))
check("Falcon, relu", "falcon", {"activation": "relu"}, {"activation": "gelu"})
bloom = dict(n_head=4, n_layer=2)
check("BLOOM", "bloom", bloom)
check("BLOOM, epsilon 0.1", "bloom", {**bloom, "layer_norm_epsilon": 0.1}, {"layer_norm_epsilon": 1e-5})
name = "apply_residual_connection_post_layernorm"
check("BLOOM, residual behind the norm", "bloom", {**bloom, name: True}, {name: False})
check("GPT-2, scores not scaled", "gpt2", {"scale_attn_weights": False}, {"scale_attn_weights": True})
PYTHON
