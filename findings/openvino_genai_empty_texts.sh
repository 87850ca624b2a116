#!/bin/sh
# openvino_genai: a batch of empty texts is one text.
#
# Versions: openvino 2026.4.1, openvino-genai and openvino-tokenizers 2026.4.1.0, transformers 5.5.4, tokenizers 0.22.2,
# numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Tokenizer.encode of n texts gives input_ids and attention_mask of n rows. If all of the texts are empty, they have one row. One text with a character
# among them, and all rows are there. With a tokenizer that begins a text with a token, as Llama's and Gemma's, rows with this
# token are lost. The model that convert_tokenizer makes does the same; transformers gives n rows. So LLMPipeline.generate(["", ""])
# returns one result with the SDPA back end, and two with the paged back end, which encodes the prompts one by one; results are matched with prompts by
# their numbers, so this is an answer less without an error. No report was found.
#
# Output seen (the shape of input_ids; results of generate):
#   without a first token
#     ['', '']       transformers [2, 0]   encode [1, 0]
#     ['', '', '']   transformers [3, 0]   encode [1, 0]
#     ['', 'a']      transformers [2, 1]   encode [2, 1]
#     ['a', '']      transformers [2, 1]   encode [2, 1]
#   with a first token
#     ['', '']       transformers [2, 1]   encode [1, 1]   SDPA 1   paged 2
#     ['', '', '']   transformers [3, 1]   encode [1, 1]   SDPA 1   paged 3
#     ['', 'a']      transformers [2, 2]   encode [2, 2]   SDPA 2   paged 2
#     ['a', '']      transformers [2, 2]   encode [2, 2]   SDPA 2   paged 2
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q openvino==2026.4.1 openvino-genai==2026.4.1.0 openvino-tokenizers==2026.4.1.0 \
    transformers==5.5.4 tokenizers==0.22.2 numpy==2.4.6
mkdir "$folder/model"
"$folder/env/bin/python" - "$folder/model" <<'PYTHON'
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
WORDS, SIZE, HEADS = 258, 16, 2


def weight(*shape):
    return op.constant((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))


def product(x, outputs, inputs):
    return op.matmul(x, weight(outputs, inputs), False, True)


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
        part = op.reshape(product(x, SIZE, SIZE), op.constant([0, 0, HEADS, SIZE // HEADS]), True)
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


def write_folder(begin):
    """A folder whose tokenizer begins each text with a token, or does not; the tokenizer itself."""
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=258, special_tokens=["<end>", "<begin>"], initial_alphabet=alphabet)
    fast.train_from_iterator(["a b c"], trainer)
    if begin:
        fast.post_processor = tokenizers.processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[("<begin>", 1)]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<end>", pad_token="<end>", bos_token="<begin>")
    pair = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(pair, ("openvino_tokenizer", "openvino_detokenizer")):
        ov.save_model(model, folder / f"{name}.xml")
    ov.save_model(decoder(), folder / "openvino_model.xml", compress_to_fp16=False)
    (folder / "config.json").write_text("{}")
    return tokenizer


def generate(texts, backend):
    pipeline = genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND=backend, INFERENCE_PRECISION_HINT="f32")
    return len(pipeline.generate(texts, max_new_tokens=2, ignore_eos=True).texts)


for begin in (False, True):
    tokenizer = write_folder(begin)
    print("with a first token" if begin else "without a first token")
    encoder = genai.Tokenizer(folder)
    model = ov.compile_model(folder / "openvino_tokenizer.xml", "CPU")
    for texts in (["", ""], ["", "", ""], ["", "a"], ["a", ""]):
        longest = max(map(len, texts)) + begin
        expected = [len(row) for row in tokenizer(texts, padding=True)["input_ids"]]
        assert expected == [longest] * len(texts), expected
        rows = len(texts) if any(texts) else 1
        encoded = encoder.encode(texts)
        assert tuple(encoded.attention_mask.shape) == tuple(encoded.input_ids.shape)
        assert tuple(model(texts)["input_ids"].shape) == tuple(encoded.input_ids.shape)
        assert tuple(encoded.input_ids.shape) == (rows, longest), "openvino_genai has changed"
        line = f"  {texts!s:14} transformers [{len(texts)}, {longest}]   encode {list(encoded.input_ids.shape)}"
        if begin:
            counts = [generate(texts, backend) for backend in ("SDPA", "PA")]
            assert counts == [rows, len(texts)], counts
            line += f"   SDPA {counts[0]}   paged {counts[1]}"
        print(line)
PYTHON
