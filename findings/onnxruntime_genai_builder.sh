#!/bin/sh
# onnxruntime-genai's model builder: Llama models lose their linear and yarn scaling, Phi and Nemotron their epsilon, and more.
#
# Versions: onnxruntime-genai 0.18.0, onnxruntime 1.32.0, onnx 1.23.2, onnx-ir 1.1.0, torch 2.14.1, transformers 5.24.0, tokenizers 0.23.3,
# numpy 2.4.6, Python 3.11, Linux x86-64.
#
# The builder writes each architecture's ONNX file anew from config.json and the weights. What it does not know it refuses ("RoPE style is not
# currently supported"). The following it writes without a word; the files are those of other configurations, as is checked below.
# - Linear and yarn scaling came into `Model.make_rope_init` of builders/base.py (pull request 2142, for a Llama model). LlamaModel has
#   a make_rope_init of its own for llama3 scaling, which does not call it: Llama models with any other scaling get none.
# - The epsilon of all normalizations is rms_norm_eps, or 1e-6 if the configuration has no such name. Phi's is named layer_norm_eps and
#   Nemotron's norm_eps, both 1e-5 by default.
# - OLMo has layer normalizations without weights; the file has root-mean-square normalizations with weights of 1, so no mean is subtracted.
# - Phi's qk_layernorm is not read, and its weights are left out.
# - The head is found by its width: has_lm_head takes every Linear with as many outputs as there are tokens. If the keys have that width
#   (64 here; 256 for a model of bytes), the first layer's keys are met first, and the logits are computed behind the first attention.
# Apart from the pull request, no report of these was found.
#
# Output seen (largest difference of a log-probability to transformers):
#   Llama                        differs by 0.000
#   Llama, llama3 scaling        differs by 0.000
#   Llama, linear scaling        differs by 11.836
#   Llama, yarn scaling          differs by 10.520
#   Llama, eps 1e-5              differs by 0.000
#   Phi, eps 1e-6                differs by 0.000
#   Phi, eps 1e-5                differs by 2.368
#   Nemotron, eps 1e-5           differs by 6.204
#   OLMo                         differs by 5.069
#   Phi, qk_layernorm            differs by 6.679
#   Llama, 64 tokens             differs by 11.073
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 torch==2.14.1 transformers==5.24.0 \
    tokenizers==0.23.3 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import contextlib
import io
import os
import warnings

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")
import numpy as np
import onnxruntime_genai
import torch
from onnxruntime_genai.models.builder import create_model, parse_extra_options
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ids = np.arange(3, 25, dtype=np.int32) * 7 % 61 + 3
sizes = dict(hidden_size=128, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
sizes.update(max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def make(kind, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**sizes, "vocab_size": 72, **options})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()


def probabilities(logits):
    return torch.log_softmax(torch.as_tensor(logits).double(), -1)


def in_transformers(model):
    with torch.no_grad():
        return probabilities(model(torch.tensor(ids[None]).long()).logits[0])


def in_onnxruntime(model, name):
    """Writes the model with the builder and runs it."""
    model.save_pretrained(name)
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(model.config.vocab_size)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t2", pad_token="t0").save_pretrained(name)
    where = "", name, name + "/onnx", "fp32", "cpu", name + "/cache"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        create_model(*where, **parse_extra_options(*where, []))
    model = onnxruntime_genai.Model(name + "/onnx")
    generator = onnxruntime_genai.Generator(model, onnxruntime_genai.GeneratorParams(model))
    generator.append_tokens(ids)
    return probabilities(np.array(generator.get_output("logits"))[0])


def check(title, model, right, alike=None):
    """Compares log-probabilities; `alike` is a model of transformers that has what the builder writes."""
    wanted, found = in_transformers(model), in_onnxruntime(model, title.replace(" ", "_"))
    error = (wanted - found).abs().max().item()
    print(f"{title:28} differs by {error:.3f}".replace("-0.000", "0.000"))
    assert (error < 0.005) == right and (right or error > 0.1), "the behaviour has changed"
    if alike is not None:
        alike.load_state_dict(model.state_dict(), strict=False)
        assert (in_transformers(alike) - found).abs().max() < 0.005, "the behaviour has changed"


def rotary(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


scaled = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
large = dict(initializer_range=0.2)  # so that positions matter
check("Llama", make("llama", **large), True)
check("Llama, llama3 scaling", make("llama", **large, **rotary("llama3", **scaled)), True)
check("Llama, linear scaling", make("llama", **large, **rotary("linear", factor=4.0)), False, make("llama", **large))
yarn = rotary("yarn", factor=4.0, original_max_position_embeddings=16)
check("Llama, yarn scaling", make("llama", **large, **yarn), False, make("llama", **large))


def quiet(kind, **options):
    """A model of small embeddings, so that epsilon matters."""
    model = make(kind, **large, **options)
    model.get_input_embeddings().weight.data.mul_(0.02)
    return model


check("Llama, eps 1e-5", quiet("llama", rms_norm_eps=1e-5), True)
check("Phi, eps 1e-6", quiet("phi", layer_norm_eps=1e-6), True)
check("Phi, eps 1e-5", quiet("phi", layer_norm_eps=1e-5), False, make("phi", layer_norm_eps=1e-6))
check("Nemotron, eps 1e-5", quiet("nemotron", norm_eps=1e-5), False, make("nemotron", norm_eps=1e-6))
check("OLMo", make("olmo", **large), False)
check("Phi, qk_layernorm", make("phi", qk_layernorm=True, **large), False, make("phi"))
check("Llama, 64 tokens", make("llama", vocab_size=64, **large), False)
PYTHON
