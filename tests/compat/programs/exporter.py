"""transformers' own exporter to OpenVINO (`transformers.exporters`): small random networks, the parts of
generation with their states, saved exports, 16 bits, NNCF. Prints a line of JSON: case -> the ports of the
models, and how far results are from PyTorch's.

    python exporter.py FOLDER [case ...]
"""

import copy
import warnings

import numpy as np
import torch
import transformers as hf
from cases import print_results
from transformers.exporters import ExportedModel, OpenVINOConfig, OpenVINOExporter
from transformers.exporters.utils import decompose_for_generation, get_leaf_tensors, openvino_feed

warnings.simplefilter("ignore")
hf.logging.set_verbosity_error()
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 64, "max_position_embeddings": 128}  # fmt: skip
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**SIZES, **MARKS, "num_key_value_heads": 2}
LLAMA = (hf.LlamaForCausalLM, lambda: hf.LlamaConfig(**TEXT))
ENCODERS = {
    "bert": (hf.BertModel, lambda: hf.BertConfig(**SIZES)),
    "fnet": (hf.FNetModel, lambda: hf.FNetConfig(**SIZES)),  # complex numbers
}
DECODERS = {
    "llama": LLAMA,
    "qwen3_moe": (
        hf.Qwen3MoeForCausalLM,
        lambda: hf.Qwen3MoeConfig(
            **TEXT, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        ),
    ),
    "lfm2": (
        hf.Lfm2ForCausalLM,
        lambda: hf.Lfm2Config(**TEXT, layer_types=["conv", "full_attention"]),
    ),
}  # fmt: skip


def network(kind, config):
    torch.manual_seed(0)
    return kind(config()).eval()


def tokens(count, rows=2):
    ids = torch.randint(3, 60, (rows, count), generator=torch.Generator().manual_seed(count))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def ports(model):
    """Names, types and shapes of a model's ports and variables, and the types of its weights."""
    ends = [
        [sorted(p.get_names()), p.get_element_type().get_type_name(), str(p.get_partial_shape())]
        for p in (*model.inputs, *model.outputs)
    ]
    kept = [
        (info.variable_id, str(info.data_shape)) for info in (v.get_info() for v in model.get_variables())
    ]
    return {"ends": ends, "variables": sorted(kept)}


def apart(got, want):
    shared = [name for name in want if name in got]
    assert shared and all(got[name].shape == want[name].shape for name in shared)
    pairs = [(got[name].double(), want[name].double()) for name in shared if want[name].numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs)


def run_exported(exported, module, inputs):
    """Distance to PyTorch at another batch and length than the example's."""
    exported.to("cpu", config=EXACT)
    with torch.no_grad():
        want = get_leaf_tensors(module(**inputs))
    return {**ports(exported.program), "apart": apart(get_leaf_tensors(exported(**inputs)), want)}


def encode(kind, config, **more):
    module = network(kind, config)
    exported = OpenVINOExporter().export(module, tokens(12), OpenVINOConfig(dynamic=True, **more))
    return run_exported(exported, module, tokens(9, 3))


def save(folder):
    module = network(*ENCODERS["bert"])
    OpenVINOExporter().export(module, tokens(12), OpenVINOConfig(dynamic=True)).save_pretrained(
        folder / "saved"
    )
    return run_exported(ExportedModel.from_pretrained(folder / "saved"), module, tokens(9, 3))


def halve(folder):
    """In bf16: the weights stay so, and the model says what it is computed in."""
    module = network(*LLAMA).to(torch.bfloat16)
    module.config.use_cache = False
    exported = OpenVINOExporter().export(module, tokens(12), OpenVINOConfig(dynamic=True))
    compiled = exported.to("cpu").runners["model"].compiled_model
    told = {name: str(compiled.get_property(name)) for name in ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION")}
    return {**told, **run_exported(exported, network(*LLAMA).to(torch.bfloat16).float(), tokens(9, 3))}


def compress(folder):
    from transformers.exporters import NNCFOpenVINOQuantizer, NNCFWeightCompressionConfig

    module = network(*LLAMA)
    module.config.use_cache = False
    quantizer = NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig())
    exported = OpenVINOExporter().export(
        module, tokens(12), OpenVINOConfig(dynamic=True, quantizer=quantizer)
    )
    return run_exported(exported, network(*LLAMA), tokens(9, 3))


def decode(kind, config):
    """The parts of generation. Where a part has states, they are set to the example's caches."""
    module, found = network(kind, config), {}
    parts = decompose_for_generation(copy.deepcopy(module), tokens(6), multi_token_decode=True)
    exported = OpenVINOExporter().export_for_generation(
        module, tokens(6), OpenVINOConfig(dynamic=True), multi_token_decode=True
    )
    exported.to("cpu", config=EXACT)
    for name, (part, inputs) in parts.items():
        with torch.no_grad():
            want = get_leaf_tensors(part(**copy.deepcopy(inputs)))
        runner, caches = exported.runners[name], get_leaf_tensors(inputs)
        for state in runner.request.query_state():
            cache = caches[state.name.removeprefix("input.").partition("output.")[0]].numpy()
            state.state = type(state.state)(np.ascontiguousarray(cache.astype(state.state.data.dtype)))
        results = runner.request.infer(openvino_feed(runner.compiled_model, inputs))
        got = {
            each.removeprefix("output."): torch.from_numpy(np.array(results[port]))
            for port in runner.compiled_model.outputs
            for each in port.get_names()
        }
        found[name] = {**ports(exported.components[name].program), "apart": apart(got, want)}
    return found


CASES = {
    **{name: lambda folder, it=it: encode(*it) for name, it in ENCODERS.items()},
    **{f"{name} in parts": lambda folder, it=it: decode(*it) for name, it in DECODERS.items()},
    "saved": save,
    "bf16": halve,
    "int8 weights": compress,
}
print_results(CASES, lambda name, folder: CASES[name](folder))
