"""Writes a small folder for pipelines of texts: a random llama with state, its tokenizer's IRs, settings.

    python -m tests.support.genai_folder FOLDER

runs on the real openvino with openvino_tokenizers; `tests/genai/data` was written so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRAINED = "the weather is not there, hello world. other words and 1 2 3 numbers: is it so? naïve 你好\n"


def train_tokenizer() -> Any:
    """A byte-level tokenizer with <s> before each text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([TRAINED] * 4, trainer)
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return fast


def write_folder(folder: Path, package: Any) -> None:
    import transformers
    from openvino_tokenizers import convert_tokenizer

    from bench import transformers as nets

    folder.mkdir(parents=True, exist_ok=True)
    fast = train_tokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )
    pair = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(pair, ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        package.save_model(model, folder / f"{name}.xml")
    sizes = nets.Sizes(layers=2, wide=32, heads=2, shared=1, inner=48, words=fast.get_vocab_size())
    model = nets.llama(nets.Net(package, "llama"), sizes)
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    tokenizer.save_pretrained(folder)
    config = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


def write_encoder(package: Any, folder: Path, like: Path, labels: int = 0) -> Path:
    """A random encoder, or classifier of `labels`, with the tokenizer of the folder `like`. Each vector
    depends on its token, its position, and the mean of all tokens."""
    import shutil

    import numpy as np

    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("openvino_model.*"))
    ops, rng = package.opset13, np.random.default_rng(5)
    ids, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask"))
    for node in (ids, mask):
        node.output(0).set_names({node.get_friendly_name()})
    words = ops.constant(rng.standard_normal((300, 8)).astype(np.float32))
    tokens = ops.gather(words, ids, ops.constant(0))
    weights = ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(2))
    total = ops.reduce_sum(ops.multiply(tokens, weights), ops.constant(1), keep_dims=True)
    mean = ops.divide(total, ops.reduce_sum(weights, ops.constant(1), keep_dims=True))
    places = ops.multiply(ops.cum_sum(weights, ops.constant(1)), ops.constant(np.float32(0.1)))
    result = ops.tanh(ops.add(ops.add(tokens, mean), places))
    name = "last_hidden_state"
    if labels:
        matrix = ops.constant(rng.standard_normal((8, labels)).astype(np.float32))
        result, name = ops.matmul(ops.reduce_mean(result, ops.constant(1)), matrix, False, False), "logits"
    result.output(0).set_names({name})
    model = package.Model([ops.result(result)], [ids, mask])
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return folder


if __name__ == "__main__":
    import openvino

    write_folder(Path(sys.argv[1]), openvino)
