"""Random programs of the pipelines of pictures, sounds and retrieval, for `tests.fuzz.fuzz_genai`."""

# the cases are a table, and calls run at once
# ruff: noqa: B023, E501
from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_families import FAMILIES, clip
from tests.support.genai_images import picture

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
TEXTS = (
    "hello",
    "is it so?",
    "other words and 1 2 3",
    "",
    "the weather is not there",
    "naïve 你好",
    "numbers: numbers",
    "a\nb",
)
#: What one picture of the family may be.
SIZES: tuple[tuple[int, int], ...] = (
    (40, 33),
    (20, 64),
    (9, 90),
    (3, 5),
    (28, 28),
    (64, 20),
    (50, 50),
    (31, 17),
)
VIDEOS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "llava_next_video", "gemma4", "muse_glimmer")
#: The real package exchanges rows and columns, resizes in another type, or takes one picture.
VISION = [
    kind
    for kind in FAMILIES
    if kind not in ("phi3_v", "phi4mm", "deepseek_ocr2", "qwen3_omni", "llava-qwen2")
]
WHISPER: dict[str, tuple[Any, ...]] = {
    "language": ("en", "<|zh|>", "es", "fr", "xx"), "task": ("transcribe", "translate", "x"), "return_timestamps": (True, False),
    "initial_prompt": ("hello", ""), "hotwords": ("world there",), "num_beams": (2, 3), "do_sample": (True,), "rng_seed": (1, 5),
    "top_k": (5, 20), "temperature": (0.5, 1.5), "repetition_penalty": (1.4,), "max_initial_timestamp_index": (0, 3, 50),
    "min_new_tokens": (2, 8), "begin_suppress_tokens": ([], [5, 9], list(range(60))), "stop_token_ids": ({12, 31, 40}, set(range(0, 300, 9))),
    "presence_penalty": (1.0,), "frequency_penalty": (0.7,), "length_penalty": (0.5, 2.0), "no_repeat_ngram_size": (2,),
    "ignore_eos": (True,), "top_p": (0.5, 0.9), "min_p": (0.1,), "num_return_sequences": (2,), "logprobs": (1,),
}  # fmt: skip


def draw(rng: random.Random, options: dict[str, tuple[Any, ...]], share: float) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in options.items() if rng.random() < share}


def draw_size(rng: random.Random, most: int = len(SIZES)) -> tuple[int, int]:
    return rng.choice(SIZES[:most])


def draw_question(program: Any, kind: str, seen: int) -> tuple[str, list[Any], list[Any], dict[str, Any]]:
    """A text, pictures, videos and keywords for a model of this kind that has `seen` so many pictures."""
    rng, ov, native = program.rng, program.ov, FAMILIES[kind][1]
    images = [
        picture(ov, *draw_size(rng), seed=rng.randrange(9)) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))
    ]
    videos = []
    if kind in VIDEOS and rng.random() < 0.3 and not images:
        videos = [
            clip(ov, rng.choice((1, 2, 5, 6)), *draw_size(rng, 3), seed=rng.randrange(5))
            for _ in range(rng.choice((1, 1, 2)))
        ]
    text = rng.choice(TEXTS)
    if images and rng.random() < 0.4:
        tags = (
            [f"<ov_genai_image_{seen + i}>" for i in range(len(images))]
            if rng.random() < 0.6
            else [native] * len(images)
        )
        text = "".join(f"{rng.choice(TEXTS)} {tag} " for tag in tags) + text
    options: dict[str, Any] = {"max_new_tokens": rng.choice((1, 4, 8)), "logprobs": 1, **draw(rng, {
        "ignore_eos": (True,), "apply_chat_template": (False,), "repetition_penalty": (1.4,), "stop_strings": ({"e"}, {"a", "o"}),
        "num_beams": (2, 3), "do_sample": (True,), "rng_seed": (4,), "temperature": (0.6, 1.5), "echo": (True,)}, 0.15)}  # fmt: skip
    if options.get("num_beams") and options.get("do_sample"):
        del options["num_beams"]
    return text, images, videos, options


def run_vision(program: Any) -> None:
    rng, genai = program.rng, program.genai
    kind, backend = rng.choice(VISION), dict[str, Any]()
    if kind == "qwen3_vl":  # its paged attention does not run this small net
        backend = {"ATTENTION_BACKEND": "SDPA"}
    pipe = program.do(
        f"VLMPipeline {kind}",
        lambda: genai.VLMPipeline(program.folder / "vlm" / kind, "CPU", **EXACT, **backend),
    )
    history, is_chat, count, seen = None, False, 0, 0
    if rng.random() < 0.5 and not backend:
        history, is_chat = rng.choice(((genai.ChatHistory(), False), (None, True)))
        if is_chat:
            program.do("start_chat", lambda: pipe.start_chat(*rng.choice(((), ("be kind",)))))
    for _ in range(rng.randint(1, 4)):
        text, images, videos, options = draw_question(program, kind, seen)
        if backend or history is not None or is_chat:
            options.pop("echo", None)
            options.pop("apply_chat_template", None)
        prompt: Any = text
        if history is not None:
            history.append({"role": "user", "content": text})
            prompt = history
        chunks: list[str] = []
        shown: dict[str, Any] = {"images": images} if images else {}
        shown |= {"videos": videos} if videos else {}
        if rng.random() < 0.3 and "num_beams" not in options:
            shown["streamer"] = chunks.append
        sizes = [list(each.shape) for each in images + videos]
        result = program.do(
            f"generate {text!r} {sizes} {options} stream {'streamer' in shown}",
            lambda: pipe.generate(prompt, **shown, **options),
        )
        program.do("chunks", lambda: chunks)
        if result is None:
            return  # the real package keeps a message that failed
        seen, count = seen + len(images), count + 1
        if history is not None:
            history.append({"role": "assistant", "content": result.texts[0]})


def run_whisper(program: Any) -> None:
    from tests.support.whisper_cases import TEXT, UNREADABLE, record

    rng, genai = program.rng, program.genai
    name = rng.choice(("WhisperPipeline", "ASRPipeline"))
    pipe = program.do(name, lambda: getattr(genai, name)(program.folder / "whisper", "CPU", **EXACT))
    for _ in range(rng.randint(1, 4)):
        seconds = rng.choice((0.1, 1, 3.3, 5.5, 29.9, 30, 31, 47))
        options: dict[str, Any] = {"max_new_tokens": rng.choice((2, 9, 24)), **draw(rng, WHISPER, 0.12)}
        options["suppress_tokens"] = UNREADABLE if options.get("return_timestamps") else TEXT
        if seconds > 30:
            options["suppress_tokens"] = UNREADABLE
        if options.get("num_beams") and options.get("do_sample"):
            del options["num_beams"]
        chunks: list[str] = []
        shown = {"streamer": chunks.append} if rng.random() < 0.4 and "num_beams" not in options else {}
        line = f"generate {seconds} s { {n: v for n, v in options.items() if n != 'suppress_tokens'} } stream {bool(shown)}"
        program.do(line, lambda: pipe.generate(record(seconds, rng.randrange(4)), **shown, **options))
        program.do("chunks", lambda: chunks)


def run_retrieval(program: Any) -> None:
    rng, genai = program.rng, program.genai
    if rng.random() < 0.5:
        config = genai.TextEmbeddingPipeline.Config()
        values = draw(rng, {
            "pooling_type": tuple(genai.TextEmbeddingPipeline.PoolingType.__members__.values()), "normalize": (True, False),
            "query_instruction": ("find: ", ""), "embed_instruction": ("text: ",), "max_length": (4, 10, 100), "pad_to_max_length": (True, False),
            "padding_side": ("left", "right"), "batch_size": (1, 2, 3)}, 0.35)  # fmt: skip
        for name, value in values.items():
            setattr(config, name, value)
        pipe = program.do(
            f"embedding {values}",
            lambda: genai.TextEmbeddingPipeline(program.folder / "encoder", "CPU", config, **EXACT),
        )
        if pipe is None:
            return
        for _ in range(3):
            texts = [rng.choice(TEXTS) * rng.choice((1, 1, 3)) for _ in range(rng.choice((0, 1, 2, 3, 5)))]
            program.do(f"documents {texts}", lambda: pipe.embed_documents(texts))
            program.do(f"query {texts[:1]}", lambda: pipe.embed_query(texts[0] if texts else ""))
            program.do(
                "start", lambda: (pipe.start_embed_documents_async(texts), pipe.wait_embed_documents())[1]
            )
        return
    config = genai.TextRerankPipeline.Config()
    values = draw(
        rng,
        {
            "top_n": (1, 2, 9),
            "max_length": (4, 10, 100),
            "pad_to_max_length": (True, False),
            "padding_side": ("left", "right"),
        },
        0.4,
    )
    for name, value in values.items():
        setattr(config, name, value)
    kind = rng.choice(("labels1", "labels2", "labels3"))
    pipe = program.do(
        f"rerank {kind} {values}",
        lambda: genai.TextRerankPipeline(program.folder / kind, "CPU", config, **EXACT),
    )
    for _ in range(3):
        if pipe is None:
            return
        texts = [rng.choice(TEXTS) * rng.choice((1, 1, 3)) for _ in range(rng.choice((1, 2, 3, 5)))]
        query = rng.choice(TEXTS)
        program.do(f"rerank {query!r} {texts}", lambda: [list(each) for each in pipe.rerank(query, texts)])


def make_callback(calls: list[Any]) -> Callable[[int, int, Any], bool]:
    """A callback of pictures that appends what it gets."""

    def call(step: int, steps: int, latent: Any) -> bool:
        calls.append([step, steps, list(latent.shape)])
        return False

    return call


def run_images(program: Any) -> None:
    rng, genai, ov = program.rng, program.genai, program.ov
    kind = rng.choice(("sd", "lcm", "inpaint", "xl"))
    name = (
        "InpaintingPipeline"
        if kind == "inpaint"
        else rng.choice(("Text2ImagePipeline", "Image2ImagePipeline", "InpaintingPipeline"))
    )
    pipe = program.do(f"{name} {kind}", lambda: getattr(genai, name)(program.folder / kind, "CPU", **EXACT))
    for _ in range(rng.randint(1, 3)):
        options: dict[str, Any] = {"num_inference_steps": rng.randint(1, 6), **draw(rng, {
            "guidance_scale": (1.0, 3.5, 0.0), "height": (8, 16, 24), "width": (8, 16, 32), "num_images_per_prompt": (2, 3), "rng_seed": (0, 7, 123456),
            "negative_prompt": ("is it", ""), "strength": (0.2, 0.5, 0.99, 1.0, 0.01), "max_sequence_length": (5, 77)}, 0.3)}  # fmt: skip
        inputs = []
        if name != "Text2ImagePipeline":
            inputs.append(
                picture(ov, rng.choice((16, 21, 33)), rng.choice((16, 18, 40)), seed=rng.randrange(4))
            )
        if name == "InpaintingPipeline":
            inputs.append(
                picture(
                    ov, rng.choice((16, 30)), rng.choice((16, 20)), rng.choice((1, 3)), seed=rng.randrange(4)
                )
            )
        calls: list[Any] = []
        shown = {"callback": make_callback(calls)} if rng.random() < 0.3 else {}
        text = rng.choice(TEXTS)
        program.do(
            f"generate {text!r} {options} {bool(shown)}",
            lambda: summarize(pipe.generate(text, *inputs, **shown, **options)),
        )
        program.do("calls", lambda: calls)


def summarize(tensor: Any) -> Any:
    """A picture's shape, and means of its parts."""
    values = np.array(tensor.data).astype(np.float64)
    return [list(values.shape), [int(each) for each in values.reshape(-1)[:: max(1, values.size // 40)]]]


def write_folders(package: Any, root: Path) -> None:
    from bench import transformers as nets
    from bench.whisper import write_folder as write_whisper
    from tests.support import genai_families, genai_folder, genai_images

    genai_folder.write_folder(root / "llama", package)
    shutil.copytree(root / "llama", root / "draft")
    model = nets.llama(
        nets.Net(package, "draft"), nets.Sizes(layers=1, wide=32, heads=2, shared=1, inner=48, words=300)
    )
    package.save_model(model, root / "draft" / "openvino_model.xml", compress_to_fp16=False)
    for kind in VISION:
        genai_families.write_folder(package, root / "vlm" / kind, kind)
    write_whisper(package, root / "whisper")
    genai_folder.write_encoder(package, root / "encoder", root / "llama")
    for labels in (1, 2, 3):
        genai_folder.write_encoder(package, root / f"labels{labels}", root / "llama", labels)
    for kind in ("sd", "lcm", "inpaint", "xl"):
        genai_images.write_folder(package, root / kind, kind)
