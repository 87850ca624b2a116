#!/bin/sh
# openvino_genai: with prompt lookup, the score of an answer leaves out the tokens that were looked up.
#
# Versions: openvino 2026.4.1, openvino-genai and openvino-tokenizers 2026.4.1.0, transformers 5.5.4, tokenizers 0.22.2,
# numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A result's score is the sum of the log-probabilities of its tokens, if `logprobs` is set. Prompt lookup proposes tokens from the
# prompt and keeps those that the model agrees with, so the answer is the same as without. Its score is not: the log-probabilities
# of the tokens that were kept are missing from the sum, here nearly half of it. So an answer with more repetitions looks more
# likely. A draft model instead of the lookup gives the right score. The log-probabilities that `read` of
# ContinuousBatchingPipeline gives for each token are right with the lookup, too: only the sum is not.
#
# Output seen, a random decoder of one layer, a prompt that repeats six tokens, 24 tokens of answer, the same in all cases:
#   plain                               -115.380
#   a draft model                       -115.380
#   prompt lookup                        -67.926
#   prompt lookup, sum of its tokens    -115.380
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
WORDS, SIZE, HEADS = 257, 16, 2


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
prompt = ov.Tensor(np.array([[5, 6, 7, 8, 9, 10] * 6]))
PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def configuration(**options):
    return genai.GenerationConfig(max_new_tokens=24, ignore_eos=True, logprobs=1, **options)


def answer(config, **more):
    """The tokens of the answer and its score."""
    result = genai.LLMPipeline(folder, "CPU", **PROPERTIES, **more).generate(prompt, config)
    return result.tokens[0], result.scores[0]


def answer_in_steps(config):
    """The tokens of the answer and the sum of the log-probabilities that come with them."""
    pipeline = genai.ContinuousBatchingPipeline(
        folder, genai.SchedulerConfig(), "CPU", {**PROPERTIES, "prompt_lookup": True}
    )
    handle = pipeline.add_request(0, prompt, config)
    tokens, logarithms = [], []
    while pipeline.has_non_finished_requests():
        pipeline.step()
        while handle.can_read():
            for output in handle.read().values():
                tokens += output.generated_ids
                logarithms += output.generated_log_probs
    assert len(tokens) == len(logarithms)
    return tokens, sum(logarithms)


looking_up = configuration(num_assistant_tokens=4, max_ngram_size=2)
answers = {
    "plain": answer(configuration()),
    "a draft model": answer(
        configuration(num_assistant_tokens=4), draft_model=genai.draft_model(folder, "CPU", **PROPERTIES)
    ),
    "prompt lookup": answer(looking_up, prompt_lookup=True),
    "prompt lookup, sum of its tokens": answer_in_steps(looking_up),
}
tokens, score = answers["plain"]
for name, (each, its_score) in answers.items():
    print(f"{name:34} {its_score:9.3f}")
    assert each == tokens, name
    if name == "prompt lookup":
        assert its_score > 0.9 * score, "the score is right now"
    else:
        assert abs(its_score - score) < 0.01, name
PYTHON
