"""Programs of LLMPipeline with an EAGLE-3 draft, whose results are compared, and the small models that they read.

    python -m tests.support.genai_eagle tests/genai/eagle.json

runs them on the real packages. The models have the names of nodes that optimum-intel's exports have. All but a few words are
unlikely, so some proposals are accepted. openvino_genai fails with repetition_penalty, and accepts nothing after that; with logprobs
its scores are not those without a draft.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import transformers as nets
from tests.support import ROOT

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
SIZES = nets.Sizes(layers=10, wide=32, heads=4, shared=2, inner=48, words=300)
#: Words that texts consist of.
LIKELY = (73, 81, 90, 264, 270)
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {}, "three": {"num_assistant_tokens": 3}, "one": {"num_assistant_tokens": 1}, "threshold": {"assistant_confidence_threshold": 0.3},
    "stop": {"stop_strings": {"so"}}, "two tokens": {"max_new_tokens": 2}, "one token": {"max_new_tokens": 1},
}  # fmt: skip


def bias(words: np.ndarray) -> np.ndarray:
    """What is added to logits: `words` are the numbers of the words."""
    return np.where(np.isin(words, LIKELY), 0, -30).astype(np.float32)


def write_model(package: Any, folder: Path) -> None:
    net = nets.Net(package, "eagle")
    model = nets.llama(net, SIZES)
    sums = [node for node in model.get_ordered_ops() if node.get_type_name() == "Add"
            and node.input_value(1).get_node().get_type_name() == "MatMul"]  # fmt: skip
    for i, node in enumerate(sums):
        node.set_friendly_name(f"__module.model.layers.{i // 2}/aten::add/Add_{i % 2}")
    (table,) = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"
                and [*node.shape] == [SIZES.words, SIZES.wide] and node.output(0).get_target_inputs().pop().get_node().get_type_name() == "Gather"]  # fmt: skip
    table.set_friendly_name("self.model.embed_tokens.weight")
    result = model.get_results()[0]
    logits = package.opset13.add(
        result.input_value(0), package.opset13.constant(bias(np.arange(SIZES.words)))
    )
    names = result.output(0).get_names()
    result.input_value(0).set_names(set())
    logits.output(0).set_names(names)
    result.input(0).replace_source_output(logits.output(0))
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)


def write_draft(package: Any, folder: Path) -> None:
    net = nets.Net(package, "eagle draft")
    wide, size, ops = SIZES.wide, SIZES.size, net.ops
    decoder = nets.Decoder(net, SIZES._replace(shared=SIZES.heads))
    decoder.words.set_friendly_name("self.model.embed_tokens.weight")
    states = ops.parameter([-1, -1, -1], np.float32, name="hidden_states")
    states.output(0).set_names({"hidden_states"})
    hidden = net.linear(states, 3 * wide, wide, False)
    places = ops.unsqueeze(ops.unsqueeze(ops.convert(decoder.places, "f32"), net.ints(-1)), net.ints(1))
    mask = decoder.mask()
    y = ops.concat([net.rms_norm(decoder.x, wide), net.rms_norm(hidden, wide)], -1)
    q, k, v = (net.heads(net.linear(y, 2 * wide, wide, False), SIZES.heads, size) for _ in range(3))
    k = decoder.cached(ops.add(k, ops.sin(places)), "past_key_values.0.key")
    v = decoder.cached(v, "past_key_values.0.value")
    z = net.merge(ops.scaled_dot_product_attention(ops.add(q, ops.cos(places)), k, v, mask), wide)
    x = ops.add(hidden, net.linear(z, wide, wide, False, 0.5))
    y = net.rms_norm(x, wide)
    inner = ops.multiply(
        ops.swish(net.linear(y, wide, SIZES.inner, False)), net.linear(y, wide, SIZES.inner, False)
    )
    x = ops.add(x, net.linear(inner, SIZES.inner, wide, False, 0.5))
    x.set_friendly_name("__module.model.midlayer/aten::add/Add_1")
    words = np.unique([*LIKELY, *range(100, 260, 2)])
    logits = ops.add(net.linear(net.rms_norm(x, wide), wide, len(words), False), net.const(bias(words)))
    logits.output(0).set_names({"logits"})
    offsets = ops.constant(words - np.arange(len(words)))
    offsets.set_friendly_name("self.model.d2t")
    offsets.output(0).set_names({"d2t"})
    inputs = [decoder.ids, states, decoder.given, decoder.places, decoder.beams]
    model = package.Model([ops.result(logits), ops.result(offsets)], decoder.sinks, inputs, "draft")
    model.set_rt_info("True", ["eagle3_mode"])
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)


def write_folders(package: Any, folder: Path) -> tuple[Path, Path]:
    """The folders of a model and of its draft."""
    for name, write in (("model", write_model), ("draft", write_draft)):
        shutil.copytree(ROOT / "tests" / "genai" / "data", folder / name)
        write(package, folder / name)
    config = {"model_type": "llama", "num_hidden_layers": SIZES.layers}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder / "model", folder / "draft"


def collect(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    """Program -> (text, score, accepted tokens, steps of the model), or the class of the error."""
    model, draft = write_folders(package, folder)
    config = {"max_new_tokens": 40, "ignore_eos": True, "apply_chat_template": False}
    found: dict[str, Any] = {}
    for name, settings in (
        ("plain", {}),
        ("eagle", {"draft_model": genai.draft_model(draft, "CPU", **EXACT)}),
    ):
        pipeline = genai.LLMPipeline(model, "CPU", **settings, **EXACT)
        for prompt in ("hello world", "the weather is not there", "is it so"):
            for title, options in OPTIONS.items():
                if name == "plain" and title == "threshold":
                    continue  # the real package does not return
                try:
                    results = pipeline.generate([prompt], **{**config, **options})
                except RuntimeError:
                    found[f"{name} {prompt} {title}"] = "error"
                    continue
                metrics = results.extended_perf_metrics
                counts = None
                if metrics is not None:
                    counts = [
                        metrics.get_num_accepted_tokens(),
                        len(metrics.main_model_metrics.raw_metrics.m_durations),
                    ]
                found[f"{name} {prompt} {title}"] = [results.texts[0], round(results.scores[0], 2), counts]
    return found


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as path:
        results = collect(openvino, openvino_genai, Path(path))
    Path(sys.argv[1]).write_text(json.dumps(results, indent=0) + "\n")
