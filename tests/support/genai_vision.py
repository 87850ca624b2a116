"""Programs of VLMPipeline whose results are compared, and the small LLaVA folder that they read.

    python -m tests.support.genai_vision tests/genai/vision.json

runs them on the real packages. `tests/genai/vision` has the tokenizer of `tests.support.genai_folder` with the token <image>.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT
from tests.support.genai_images import Ops, Program, image_package, picture

DATA = ROOT / "tests" / "genai" / "data"
WORDS, WIDTH, SIZE, PATCH = 304, 16, 28, 14
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def write_language_model(package: Any, folder: Path) -> None:
    """One layer of attention with a cache, from embeddings to logits."""
    net = Ops(package, 23)
    ops = net.ops
    embeds = net.parameter("inputs_embeds", [-1, -1, WIDTH])
    mask, places = (net.parameter(name, [-1, -1], np.int64) for name in ("attention_mask", "position_ids"))
    beams = net.parameter("beam_idx", [-1], np.int32)
    moved = ops.add(
        embeds,
        ops.sin(
            ops.multiply(
                ops.unsqueeze(ops.convert(places, np.float32), ops.constant(2)), net.weights(1, 1, WIDTH)
            )
        ),
    )
    assigns, heads = [], []
    shape = ops.constant(np.array([0, 0, 2, WIDTH // 2]))
    for name in ("query", "key", "value"):
        head = ops.transpose(
            ops.reshape(ops.matmul(moved, net.weights(WIDTH, WIDTH, scale=0.4), False, False), shape, True),
            ops.constant(np.array([0, 2, 1, 3])),
        )
        if name != "query":
            # the batch of the empty cache is that of the embeddings
            rows = ops.gather(ops.shape_of(embeds), ops.constant(np.array([0])), ops.constant(0))
            empty = ops.broadcast(
                ops.constant(np.float32(0)), ops.concat([rows, ops.constant(np.array([2, 0, WIDTH // 2]))], 0)
            )
            info = package.op.util.VariableInfo()
            info.data_shape, info.data_type, info.variable_id = (
                package.PartialShape([-1, 2, -1, WIDTH // 2]),
                package.Type.f32,
                f"past.{name}present.{name}",
            )
            variable = package.op.util.Variable(info)
            past = ops.gather(ops.read_value(empty, variable), beams, ops.constant(0))
            head = ops.concat([past, head], 2)
            assigns.append(ops.assign(head, variable))
        heads.append(head)
    # a causal mask: the key's position is not above the query's
    keys = ops.unsqueeze(
        ops.subtract(ops.cum_sum(mask, ops.constant(1)), ops.constant(np.int64(1))),
        ops.constant(np.array([1, 2])),
    )
    causal = ops.less_equal(keys, ops.unsqueeze(places, ops.constant(np.array([1, 3]))))
    bias = ops.select(causal, ops.constant(np.float32(0)), ops.constant(np.float32(-60000)))
    context = ops.scaled_dot_product_attention(*heads, bias)
    joined = ops.reshape(
        ops.transpose(context, ops.constant(np.array([0, 2, 1, 3]))),
        ops.constant(np.array([0, 0, WIDTH])),
        True,
    )
    hidden = ops.tanh(ops.add(moved, ops.matmul(joined, net.weights(WIDTH, WIDTH, scale=0.4), False, False)))
    logits = ops.matmul(hidden, net.weights(WIDTH, WORDS, scale=2.0), False, False)
    logits.output(0).set_names({"logits"})
    model = package.Model([ops.result(logits)], assigns, [embeds, mask, places, beams])
    package.save_model(model, folder / "openvino_language_model.xml", compress_to_fp16=False)


def write_folder(package: Any, folder: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "genai" / "vision", folder)
    for name in ("config.json", "generation_config.json"):
        shutil.copy(DATA / name, folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llava", "vision_config": {"patch_size": PATCH}})
    )
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": {"height": SIZE, "width": SIZE}, "size": {"shortest_edge": SIZE},
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }))  # fmt: skip
    write_language_model(package, folder)
    net = Ops(package, 29)
    ops = net.ops
    ids = net.parameter("input", [-1, -1], np.int64)
    saved = folder / "saved"
    net.save({"inputs_embeds": ops.gather(net.weights(WORDS, WIDTH), ids, ops.constant(0))}, [ids], saved)
    move(saved, folder, "openvino_text_embeddings_model")
    pixels = net.parameter("pixel_values", [-1, 3, -1, -1])
    patches = ops.convolution(
        pixels, net.weights(WIDTH, 3, PATCH, PATCH, scale=0.05), [PATCH, PATCH], [0, 0], [0, 0], [1, 1]
    )
    features = ops.transpose(
        ops.reshape(ops.tanh(patches), ops.constant(np.array([0, WIDTH, -1])), True),
        ops.constant(np.array([0, 2, 1])),
    )
    net.save({"last_hidden_state": features}, [pixels], saved)
    move(saved, folder, "openvino_vision_embeddings_model")
    saved.rmdir()
    return folder


def move(source: Path, folder: Path, name: str) -> None:
    for kind in ("xml", "bin"):
        (source / f"openvino_model.{kind}").rename(folder / f"{name}.{kind}")


def programs(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    pipe = genai.VLMPipeline(folder, "CPU", **EXACT)
    one, two = picture(ov, 40, 33, seed=3), picture(ov, 20, 64, seed=4)
    short = {"max_new_tokens": 10, "ignore_eos": True, "logprobs": 1}

    def run(prompt: Any, *arguments: Any, **options: Any) -> Any:
        results = pipe.generate(prompt, *arguments, **{**short, **options})
        return [results.texts, results.scores, [reason.name for reason in results.finish_reasons], results.perf_metrics.get_num_input_tokens(),
                results.perf_metrics.get_total_image_slice_count(), str(results)[:3]]  # fmt: skip

    yield "text", lambda: run("is it so?")
    yield "image", lambda: run("is it so?", image=one)
    yield "images", lambda: run("is it so?", images=[one, two])
    yield "images in turn", lambda: run("is it so?", images=[two, one])
    yield "list", lambda: run("is it so?", [one], genai.GenerationConfig(max_new_tokens=10, ignore_eos=True))
    yield (
        "config keyword",
        lambda: run(
            "is it so?",
            images=[one],
            generation_config=genai.GenerationConfig(max_new_tokens=4, ignore_eos=True),
        ),
    )
    yield "batch", lambda: run("is it so?", images=[ov.Tensor(np.concatenate([one.data, one.data[:, ::-1]]))])
    yield "three axes", lambda: run("is it so?", image=ov.Tensor(np.ascontiguousarray(two.data[0])))
    yield "same size", lambda: run("is it so?", image=picture(ov, 28, 28))
    yield "thin", lambda: run("is it so?", image=picture(ov, 9, 90))
    for prompt in ("a <ov_genai_image_1> b <ov_genai_image_0>", "<ov_genai_image_0><ov_genai_image_0> a", "a <ov_genai_image_1>", "a <image> b <image>",
                   "a <image> b", "a <ov_genai_image_2>", "<image> <ov_genai_image_0>", "", "<ov_genai_image_x>"):  # fmt: skip
        yield f"tags {prompt!r}", lambda p=prompt: run(p, images=[one, two])
    yield "no template", lambda: run("is it so?", images=[one], apply_chat_template=False)
    yield "empty", lambda: run("", apply_chat_template=False)
    for options in ({"repetition_penalty": 1.4}, {"presence_penalty": 1.5}, {"do_sample": True, "rng_seed": 5, "temperature": 1.5}, {"num_beams": 3, "num_return_sequences": 2},
                    {"do_sample": True, "num_return_sequences": 3}, {"logprobs": 1}, {"max_new_tokens": 0}, {"max_length": 3, "max_new_tokens": 5}):  # fmt: skip
        yield f"options {options}", lambda o=options: run("hello", images=[one], **o)

    def stream(answer: Any) -> Any:
        pieces: list[str] = []

        def take(piece: str) -> Any:
            pieces.append(piece)
            return answer

        pipe.generate("hello world", images=[one], streamer=take, **short)
        return pieces

    yield "stream", lambda: stream(None)

    def chat(system: str, *cancelled: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pipe.start_chat(system)
            turns = [
                ("is it so?", {"images": [one]}),
                ("other words", {}),
                ("and <ov_genai_image_1> here", {"images": [two]}),
                ("<ov_genai_image_0> old", {"images": [two]}),
            ]
            results = []
            for prompt, options in turns:
                try:
                    results.append(run(prompt, **options))
                except RuntimeError:
                    results.append("error")
            pipe.finish_chat()
        return results

    yield "chat", lambda: chat("")
    yield "chat with system", lambda: chat("numbers")

    def read(history: Any, **options: Any) -> Any:
        results = others.generate(history, **{**short, **options})
        return [results.texts, results.scores, results.perf_metrics.get_num_input_tokens()]

    def history() -> Any:
        messages = genai.ChatHistory()
        results = []
        for prompt, options in (
            ("is it so?", {"images": [one]}),
            ("other words", {}),
            ("a <ov_genai_image_1> b", {"images": [two]}),
        ):
            messages.append({"role": "user", "content": prompt})
            results.append(read(messages, **options))
            messages.append({"role": "assistant", "content": results[-1][0][0]})
        while len(messages) > 2:  # the first turn again, with another question
            messages.pop()
        messages.append({"role": "user", "content": "1 2 3"})
        results.append(read(messages, images=[two]))
        return [*results, len(messages), messages.get_messages()[0]["content"]]

    # a separate pipeline: the real one takes texts behind a ChatHistory for a chat
    others = genai.VLMPipeline(folder, "CPU", **EXACT)
    yield "history", history
    parts = [{"type": "text", "text": "look"}, {"type": "image"}, {"type": "text", "text": "so"}]
    yield "parts", lambda: read(genai.ChatHistory([{"role": "user", "content": parts}]), images=[one])
    yield "empty history", lambda: read(genai.ChatHistory())
    yield "number", lambda: run(3)
    yield "array", lambda: run("a", images=[np.zeros((1, 20, 20, 3), np.uint8)])
    yield "two axes", lambda: run("a", images=[ov.Tensor(np.zeros((20, 20), np.uint8))])
    yield "missing", lambda: genai.VLMPipeline(folder / "nowhere", "CPU")
    yield "unknown keyword", lambda: run("a", no_such_name=1)
    yield "none", lambda: run("a", max_new_tokens=None)


if __name__ == "__main__":
    import openvino
    import openvino_genai

    from tests.support.genai_cases import value_of

    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(openvino, Path(name) / "llava")
        results = {title: value_of(run) for title, run in programs(openvino_genai, folder)}
    Path(sys.argv[1]).write_text(json.dumps(results, indent=0))
