"""Adapters, prompt lookup and figures of pipelines that take pictures: `programs` runs them on the real package or on ovjit.

    python -m tests.support.genai_vision_options tests/genai/vision_options.json

runs them on the real packages.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_adapters import write_safetensors
from tests.support.genai_families import EXACT, scheduler, write_folder
from tests.support.genai_images import Program, picture
from tests.support.genai_vision import WIDTH

LAYER = "model.layers.0.self_attn."
FIGURES = (
    "chat_template_durations", "detokenization_durations", "generate_durations", "m_batch_sizes", "m_durations",
    "m_new_token_times", "tokenization_durations",
)  # fmt: skip


def write_named_folder(package: Any, folder: Path) -> Path:
    """A folder of InternVL whose layers have the names that optimum-intel gives them."""
    write_folder(package, folder, "internvl_chat")
    file = folder / "openvino_language_model.xml"
    model = package.Core().read_model(
        file.rename(folder / "before.xml"), file.with_suffix(".bin").rename(folder / "before.bin")
    )
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    for node, name in zip(products[:3], "qkv", strict=True):
        node.set_friendly_name(f"__module.{LAYER}{name}_proj/aten::linear/MatMul")
    package.save_model(model, file, compress_to_fp16=False)
    return folder


def write_adapter(path: Path) -> Path:
    rng, tensors = np.random.default_rng(7), {}
    for name in "qkv":
        for part, shape in (("A", (4, WIDTH)), ("B", (WIDTH, 4))):
            array = rng.standard_normal(shape).astype(np.float32)
            tensors[f"base_model.model.{LAYER}{name}_proj.lora_{part}.weight"] = "F32", array
    path.write_bytes(write_safetensors(tensors))
    return path


def figures_of(results: Any) -> list[Any]:
    metrics = results.perf_metrics
    lengths = [len(getattr(metrics.raw_metrics, name)) for name in FIGURES]
    return [metrics.get_num_input_tokens(), metrics.get_num_generated_tokens(), *lengths]


def programs(genai: Any, ov: Any, folder: Path) -> Iterator[Program]:
    image = picture(ov, 40, 33, seed=3)
    adapter = genai.Adapter(write_adapter(folder / "adapter.safetensors"))
    short = {"max_new_tokens": 8, "ignore_eos": True}
    alphas = (
        None,
        genai.AdapterConfig(),
        genai.AdapterConfig(adapter, 2.0),
        genai.AdapterConfig(adapter, 0.5),
    )

    def config(**fields: Any) -> Any:
        return genai.GenerationConfig(**{**short, **fields})

    # without common prefixes, of which the real package keeps those of other adapters
    for name, options in (
        ("single", {"ATTENTION_BACKEND": "SDPA"}),
        ("scheduled", {"scheduler_config": scheduler(genai)}),
    ):
        pipe = genai.VLMPipeline(
            folder, "CPU", adapters=genai.AdapterConfig(adapter, 0.5), **EXACT, **options
        )
        for i, each in enumerate(alphas):
            own = config() if each is None else config(adapters=each)
            yield (
                f"adapters {name} {i}",
                lambda p=pipe, c=own: p.generate("hello", images=[image], generation_config=c).texts,
            )
    batch = genai.ContinuousBatchingPipeline(
        folder, scheduler(genai), "CPU", {**EXACT, "adapters": genai.AdapterConfig(adapter, 0.5)}
    )
    for i, each in enumerate(alphas):
        own = config() if each is None else config(adapters=each)
        yield f"adapters batch {i}", lambda c=own: batch.generate(["hello"], [[image]], [c])[0].texts

    lookup = genai.VLMPipeline(folder, "CPU", prompt_lookup=True, **EXACT)
    found = {"num_assistant_tokens": 3, "max_ngram_size": 2}
    for prompt in ("1 2 1 2 is it is it", "hello hello hello"):
        for fields in ({}, {"repetition_penalty": 1.3}, {"max_new_tokens": 1}, {"stop_strings": {"n"}}):
            yield (
                f"lookup {prompt} {fields}",
                lambda p=prompt, f=fields: (
                    lookup.generate(p, images=[image], generation_config=config(**{**found, **f})).texts
                ),
            )
    yield "lookup without its fields", lambda: lookup.generate("1 2", images=[image], **short)
    yield "lookup text", lambda: lookup.generate("1 2 1 2", generation_config=config(**found)).texts

    def stream() -> list[str]:
        pieces: list[str] = []
        lookup.generate(
            "is it is it",
            images=[image],
            generation_config=config(**found),
            streamer=lambda piece: pieces.append(piece),
        )
        return ["".join(pieces)]

    yield "lookup streamed", stream
    several = genai.ContinuousBatchingPipeline(
        folder, scheduler(genai), "CPU", {**EXACT, "prompt_lookup": True}
    )
    yield (
        "lookup batch",
        lambda: [
            r.texts
            for r in several.generate(["1 2 1 2", "so so"], [[image], [image, image]], [config(**found)] * 2)
        ],
    )

    pipe = genai.VLMPipeline(folder, "CPU", **EXACT)
    history = genai.ChatHistory([{"role": "user", "content": "hello"}])
    yield "figures", lambda: figures_of(pipe.generate("hello", images=[image], **short))
    yield "history", lambda: pipe.generate(history=history, images=[image], **short).texts
    yield (
        "fields",
        lambda: [
            type(pipe.generate("a", max_new_tokens=1).perf_metrics).__name__,
            pipe.generate("a", max_new_tokens=1).full_token_ids,
        ],
    )


if __name__ == "__main__":
    import openvino
    import openvino_genai

    from tests.support.genai_cases import value_of

    with tempfile.TemporaryDirectory() as temporary:
        path = write_named_folder(openvino, Path(temporary) / "folder")
        expected = {name: value_of(run) for name, run in programs(openvino_genai, openvino, path)}
    Path(sys.argv[1]).write_text(json.dumps(expected, indent=0))
