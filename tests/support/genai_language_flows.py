"""Programs of pictures whose prompts are read by language models, whose results are compared, and their folders.

    python -m tests.support.genai_language_flows tests/genai/language_flows.npz

runs them on the real packages.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_flows import describe, write_flow_scheduler
from tests.support.genai_images import (
    EXACT,
    LATENTS,
    PROMPT,
    TOKENIZER,
    WIDTH,
    Ops,
    Program,
    array_of,
    image_package,
    picture,
    value_of,
    write_autoencoder,
    write_results,
)

PACKED = 4 * LATENTS
#: The layers whose states the encoder has: Flux 2 reads all, whatever the configuration says.
LAYERS, CONFIGURED = (9, 18, 27), [9, 27]
CLASSES = {"klein": "Flux2KleinPipeline", "distilled": "Flux2KleinPipeline"}


def write_language_model(package: Any, folder: Path) -> None:
    """A text encoder with hidden states of some layers, which depend on the mask."""
    net = Ops(package, 71)
    ops, (ids, mask) = (
        net.ops,
        [net.parameter(name, [-1, -1], np.int64) for name in ("input_ids", "attention_mask")],
    )
    shown = ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(2))
    words = ops.gather(net.weights(300, WIDTH), ids, ops.constant(0))
    mean = ops.divide(
        ops.reduce_sum(ops.multiply(words, shown), ops.constant([1]), True),
        ops.reduce_sum(shown, ops.constant([1]), True),
    )
    states = [ops.tanh(ops.add(words, mean))]
    for _ in range(2):
        states.append(ops.tanh(ops.matmul(states[-1], net.weights(WIDTH, WIDTH), False, False)))
    outputs = {f"hidden_states.{i}": state for i, state in zip(LAYERS, states, strict=True)}
    outputs["last_hidden_state"] = ops.multiply(states[-1], ops.constant(np.float32(0.5)))
    net.save(outputs, [ids, mask], folder)
    config = {"hidden_size": WIDTH, "num_hidden_layers": 2, "hidden_states_layers": CONFIGURED}
    (folder / "config.json").write_text(json.dumps(config))


def write_flux2(package: Any, folder: Path, guided: bool) -> None:
    """The inputs and outputs of the transformer of Flux 2."""
    net = Ops(package, 73)
    ops, width = net.ops, WIDTH * len(LAYERS)
    sample, time = net.parameter("hidden_states", [-1, -1, PACKED]), net.parameter("timestep", [-1])
    text = net.parameter("encoder_hidden_states", [-1, -1, width])
    places, texts = net.parameter("img_ids", [-1, -1, 4]), net.parameter("txt_ids", [-1, -1, 4])
    inputs = [sample, text, time, places, texts]
    read = ops.matmul(ops.concat([text, texts], 2), net.weights(width + 4, WIDTH, scale=0.3), False, False)
    moved = ops.add(
        ops.reduce_mean(ops.tanh(read), ops.constant(1)),
        ops.multiply(ops.unsqueeze(time, ops.constant(1)), net.weights(1, WIDTH)),
    )
    if guided:
        inputs.append(net.parameter("guidance", [-1]))
        moved = ops.add(
            moved, ops.multiply(ops.unsqueeze(inputs[-1], ops.constant(1)), net.weights(1, WIDTH, scale=0.1))
        )
    shown = ops.matmul(
        ops.concat([sample, places], 2), net.weights(PACKED + 4, WIDTH, scale=0.2), False, False
    )
    # all tokens, those of a given picture too
    shown = ops.tanh(ops.add(shown, ops.reduce_mean(shown, ops.constant([1]), True)))
    features = ops.tanh(ops.add(shown, ops.unsqueeze(moved, ops.constant(1))))
    net.save(
        {"out": ops.matmul(features, net.weights(WIDTH, PACKED, scale=0.4), False, False)}, inputs, folder
    )
    config = {"in_channels": PACKED, "default_sample_size": 8, "guidance_embeds": guided}
    (folder / "config.json").write_text(json.dumps(config))


def write_language_folder(package: Any, folder: Path, kind: str) -> Path:
    write_language_model(package, folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    write_flux2(package, folder / "transformer", kind == "distilled")
    write_autoencoder(package, folder)
    path = folder / "vae_decoder" / "config.json"
    rng = np.random.default_rng(5)
    norm = {
        "bn_running_mean_data": rng.normal(size=PACKED).round(3).tolist(),
        "bn_running_var_data": rng.uniform(0.5, 2, PACKED).round(3).tolist(),
        "batch_norm_eps": 0.01,
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), **norm, "latent_channels": LATENTS}))
    classes = {"text_encoder": "Qwen3ForCausalLM", "transformer": "Flux2Transformer2DModel",
               "vae": "AutoencoderKLFlux2" if kind == "klein" else "AutoencoderKL"}  # fmt: skip
    index = {name: ["library", class_name] for name, class_name in classes.items()}
    more = {"_class_name": CLASSES[kind], "is_distilled": kind == "distilled"}
    (folder / "model_index.json").write_text(json.dumps({**index, **more}))
    write_flow_scheduler(folder / "scheduler" / "scheduler_config.json", "exponential")
    return folder


SHORT = {"num_inference_steps": 4, "max_sequence_length": 40, "height": 24, "width": 16}
TEXT_CASES: tuple[dict[str, Any], ...] = (
    {}, {"num_inference_steps": 1}, {"num_images_per_prompt": 2, "rng_seed": 7}, {"guidance_scale": 1.0}, {"guidance_scale": 0.5}, {"prompt_2": "numbers"}, {"prompt_3": "numbers"},
    {"negative_prompt": "other"}, {"negative_prompt_2": "a"}, {"max_sequence_length": 600}, {"max_sequence_length": 5}, {"max_sequence_length": 90}, {"height": 18},
    {"strength": 0.5}, {"strength": 1.5},
)  # fmt: skip
IMAGE_CASES: tuple[dict[str, Any], ...] = (
    {}, {"strength": 0.3}, {"strength": 1.5}, {"num_images_per_prompt": 2}, {"guidance_scale": 1.0},
)  # fmt: skip


def pictures(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    image = picture(ov, 21, 18)
    for kind in CLASSES:
        for name, others in (("Text2ImagePipeline", ()), ("Image2ImagePipeline", (image,))):
            pipe = getattr(genai, name)(folder / kind, "CPU", **EXACT)
            yield f"{kind} {name} config", lambda p=pipe: describe(p.get_generation_config())
            for case in IMAGE_CASES if others else TEXT_CASES:
                yield (
                    f"{kind} {name} {case}",
                    lambda p=pipe, o=others, c=case: array_of(p.generate(PROMPT, *o, **{**SHORT, **c})),
                )
        yield (
            f"{kind} size of the picture",
            lambda k=kind: array_of(
                genai.Image2ImagePipeline(folder / k, "CPU", **EXACT).generate(
                    PROMPT, image, num_inference_steps=2
                )
            ),
        )
        yield f"{kind} inpainting", lambda k=kind: genai.InpaintingPipeline(folder / k, "CPU")


def settings(genai: Any, folder: Path) -> Iterator[Program]:
    text = genai.Text2ImagePipeline

    def reshape(kind: str, scale: float) -> Any:
        pipe = text(folder / kind)
        config = pipe.get_generation_config()
        config.max_sequence_length, config.num_inference_steps = 40, 3
        pipe.set_generation_config(config)
        pipe.reshape(2, 16, 24, scale)
        pipe.compile("CPU", **EXACT)
        return array_of(pipe.generate(PROMPT))

    def decode(kind: str) -> Any:
        pipe = text(folder / kind, "CPU", **EXACT)
        pipe.generate(PROMPT, **SHORT)
        latents = np.random.default_rng(3).standard_normal((2, 24, PACKED)).astype(np.float32)
        return array_of(pipe.decode(image_package(genai).Tensor(latents)))

    def count(kind: str) -> Any:
        pipe = text(folder / kind, "CPU", **EXACT)
        pipe.generate(PROMPT, **SHORT)
        raw = pipe.get_performance_metrics().raw_metrics
        return [len(raw.transformer_inference_durations), len(raw.iteration_durations)]

    for kind in CLASSES:
        yield f"reshape {kind}", lambda k=kind: reshape(k, 4.0)
        yield f"reshape without guidance {kind}", lambda k=kind: reshape(k, 1.0)
        yield f"decode {kind}", lambda k=kind: decode(k)
        yield f"metrics {kind}", lambda k=kind: count(k)
        yield (
            f"encoder {kind}",
            lambda k=kind: array_of(
                genai.Qwen3TextEncoder(folder / k / "text_encoder", "CPU", **EXACT).infer(
                    "hello", "the", True, 30
                )
            ),
        )


GROUPS: dict[str, Callable[[Any, Path], Iterator[Program]]] = {"pictures": pictures, "settings": settings}


def write_language_folders(package: Any, folder: Path) -> Path:
    for kind in CLASSES:
        write_language_folder(package, folder / kind, kind)
    return folder


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        folder = write_language_folders(openvino, Path(name))
        programs = [program for group in GROUPS.values() for program in group(openvino_genai, folder)]
        write_results(sys.argv[1], {title: value_of(run) for title, run in programs})
