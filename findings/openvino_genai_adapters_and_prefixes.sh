#!/bin/sh
# openvino_genai: after a change of the LoRA adapter, a prompt's keys and values are those of the adapter before.
#
# Versions: openvino 2026.4.1, openvino-genai and openvino-tokenizers 2026.4.1.0, transformers 5.5.4, tokenizers 0.22.2,
# numpy 2.4.6, Python 3.11, Linux x86-64.
#
# LLMPipeline takes other adapters with each `generate`. Its default engine keeps the blocks of finished prompts and uses
# them for prompts that begin alike. Blocks are found by their tokens alone, not by the adapters with which they were
# computed. So an answer depends on which adapter was used before, without an error or a warning: only the tokens after
# the common part see the new one. A server that serves several adapters with one system prompt mixes them in each answer.
# `enable_prefix_caching=False` in a SchedulerConfig gives the right answer.
#
# Output seen, a random decoder of one layer, two adapters of its values, a prompt of 64 tokens:
#   first adapter:                            [15, 228, 15, 15, 15, 15, 15, 15]
#   second adapter, new pipeline:             [40, 40, 201, 181, 201, 181, 191, 40]
#   second adapter, after the first:          [15, 228, 22, 213, 15, 228, 22, 213]
#   the same without prefix caching:          [40, 40, 201, 181, 201, 181, 191, 40]
#   second adapter, after the first, default: [15, 228, 22, 213, 15, 228, 22, 213]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q openvino==2026.4.1 openvino-genai==2026.4.1.0 openvino-tokenizers==2026.4.1.0 \
    transformers==5.5.4 tokenizers==0.22.2 numpy==2.4.6
mkdir "$folder/model"
"$folder/env/bin/python" - "$folder/model" <<'PYTHON'
import json
import pathlib
import sys

import numpy as np
import openvino as ov
import openvino_genai as genai
import tokenizers
import transformers
from openvino import opset13 as op
from openvino_tokenizers import convert_tokenizer

folder = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(7)
WORDS, SIZE, HEADS = 257, 16, 2


def weight(*shape):
    return op.constant((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))


def product(x, name, outputs, inputs):
    node = op.matmul(x, weight(outputs, inputs), False, True)
    node.set_friendly_name(f"__module.model.layers.0.{name}/ov_ext::linear/MatMul")
    return node


def parameter(shape, name):
    node = op.parameter(shape, np.int32 if name == "beam_idx" else np.int64, name=name)
    node.output(0).set_names({name})
    return node


def decoder():
    """One layer of attention with its keys and values in variables, as exporters write it."""
    ids, mask, places = (parameter([-1, -1], n) for n in ("input_ids", "attention_mask", "position_ids"))
    rows = parameter([-1], "beam_idx")
    x = op.gather(weight(WORDS, SIZE), ids, op.constant(0))
    batch = op.gather(op.shape_of(ids), op.constant([0]), op.constant(0))
    empty = op.concat([batch, op.constant(np.array([HEADS, 0, SIZE // HEADS], np.int64))], 0)
    parts, sinks = [], []
    for name in ("q_proj", "k_proj", "v_proj"):
        part = op.reshape(product(x, f"self_attn.{name}", SIZE, SIZE), op.constant([0, 0, HEADS, SIZE // HEADS]), True)
        part = op.transpose(part, op.constant([0, 2, 1, 3]))
        if name != "q_proj":
            variable = f"past_key_values.0.{'key' if name[0] == 'k' else 'value'}"
            past = op.read_value(
                op.broadcast(op.constant(np.float32(0)), empty), variable, np.float32,
                ov.PartialShape([-1, HEADS, -1, SIZE // HEADS]),
            )
            part = op.concat([op.gather(past, rows, op.constant(0)), part], 2)
            sinks.append(op.assign(part, variable))
        parts.append(part)
    count = op.gather(op.shape_of(mask), op.constant(1), op.constant(0))
    columns = op.range(op.constant(np.int64(0)), count, op.constant(np.int64(1)), "i64")
    here = op.unsqueeze(op.unsqueeze(places, op.constant(1)), op.constant(3))
    seen = op.less_equal(op.unsqueeze(columns, op.constant([0, 1, 2])), here)
    bias = op.select(seen, op.constant(np.float32(0)), op.constant(np.float32(-1e9)))
    out = op.scaled_dot_product_attention(*parts, bias)
    out = op.reshape(op.transpose(out, op.constant([0, 2, 1, 3])), op.constant([0, 0, SIZE]), True)
    logits = op.matmul(op.add(x, out), weight(WORDS, SIZE), False, True)
    logits.output(0).set_names({"logits"})
    return ov.Model([op.result(logits)], sinks, [ids, mask, places, rows])


def write_adapter(path):
    """Low-rank changes of the layer that computes values: other texts depend on them from the first token."""
    arrays = {
        f"base_model.model.model.layers.0.self_attn.v_proj.lora_{part}.weight": rng.standard_normal(shape).astype(np.float32) * 2
        for part, shape in (("A", (4, SIZE)), ("B", (SIZE, 4)))
    }
    header, body = {}, b""
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(body), len(body) + array.nbytes]}
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def write_folder():
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=257, special_tokens=["<end>"], initial_alphabet=alphabet)
    fast.train_from_iterator(["a b c"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<end>", pad_token="<end>")
    pair = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(pair, ("openvino_tokenizer", "openvino_detokenizer")):
        ov.save_model(model, folder / f"{name}.xml")
    ov.save_model(decoder(), folder / "openvino_model.xml", compress_to_fp16=False)
    (folder / "config.json").write_text("{}")


write_folder()
paths = [folder / "a.safetensors", folder / "b.safetensors"]
for path in paths:
    write_adapter(path)
first, second = map(genai.Adapter, paths)
prompt = ov.Tensor(rng.integers(1, WORDS, (1, 64)))


def answers(*used, keeps_prefixes=True):
    """The tokens of one prompt with these adapters in turn, by one pipeline."""
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = 1024, keeps_prefixes
    pipeline = genai.LLMPipeline(
        folder, "CPU", adapters=genai.AdapterConfig([first, second]), scheduler_config=scheduler,
        INFERENCE_PRECISION_HINT="f32", KV_CACHE_PRECISION="f32",
    )
    return [
        pipeline.generate(prompt, max_new_tokens=8, ignore_eos=True, adapters=genai.AdapterConfig(adapter)).tokens[0]
        for adapter in used
    ]


(alone,) = answers(second)
after = answers(first, second)
print("first adapter:                          ", after[0])
print("second adapter, new pipeline:           ", alone)
print("second adapter, after the first:        ", after[1])
without = answers(first, second, keeps_prefixes=False)[1]
print("the same without prefix caching:        ", without)
assert after[0] != alone and after[1] not in (alone, after[0]) and without == alone
default = genai.LLMPipeline(folder, "CPU", adapters=genai.AdapterConfig([first, second]), INFERENCE_PRECISION_HINT="f32")
texts = [
    default.generate(prompt, max_new_tokens=8, ignore_eos=True, adapters=genai.AdapterConfig(adapter)).tokens[0]
    for adapter in (first, second)
]
print("second adapter, after the first, default:", texts[1])
assert texts[1] != alone
PYTHON
