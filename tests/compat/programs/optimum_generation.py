"""optimum-intel's decoders by every way of generation: a small random network is exported with state, without
state and without a cache. Prints a line of JSON: case -> tokens.

    python optimum_generation.py FOLDER [case ...]
"""

import warnings

import torch
import transformers
from cases import print_results
from optimum.intel import openvino as intel

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
SEED = 20261125
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
MARKS = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64, "max_position_embeddings": 128},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip
WAYS = {"state": {}, "no state": {"stateful": False}, "no cache": {"use_cache": False}}
LENGTH = {"max_new_tokens": 8, "min_new_tokens": 8}
#: Name -> what is asked of `generate`. Those with "several" get two prompts, one of them padded.
ASKED = {
    "greedy several": {"do_sample": False},
    "beams several": {"do_sample": False, "num_beams": 3},
    "best beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5, "early_stopping": True},
    "samples several": {"do_sample": True, "top_k": 10, "temperature": 0.7},
    "likely samples several": {"do_sample": True, "top_p": 0.9, "num_return_sequences": 2},
    "sampled beams several": {"do_sample": True, "num_beams": 2},
    "again": {"do_sample": False},
}
CASES = {f"{kind}, {way}": (kind, more) for kind in SIZES for way, more in WAYS.items()}


def prompts(several):
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(3, 90, (2 if several else 1, 9), generator=generator)
    mask = torch.ones_like(ids)
    if several:
        ids[0, :3] = mask[0, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def run(name, folder):
    kind, more = CASES[name]
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(kind, **SIZES[kind], **MARKS)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in module.parameters():  # random weights of the usual size choose the same token always
            if weights.ndim > 1:
                weights.mul_(4)
    plain, kept = folder / name / "torch", folder / name / "ir"
    module.save_pretrained(plain)
    options = {"ov_config": EXACT, **more}
    intel.OVModelForCausalLM.from_pretrained(plain, export=True, **options).save_pretrained(kept)
    model = intel.OVModelForCausalLM.from_pretrained(kept, **options)
    made = {}
    for asked, how in ASKED.items():
        torch.manual_seed(SEED)
        made[asked] = model.generate(**prompts("several" in asked), **LENGTH, **how).tolist()
    return made


print_results(CASES, run)
