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
CLASSES = {"klein": "Flux2KleinPipeline", "distilled": "Flux2KleinPipeline", "z": "ZImagePipeline",
           "qwen": "QwenImagePipeline", "qwen guided": "QwenImagePipeline"}  # fmt: skip
#: The parts of a pipeline by name.
PARTS = {
    "Flux2KleinPipeline": {"text_encoder": "Qwen3ForCausalLM", "transformer": "Flux2Transformer2DModel", "vae": "AutoencoderKL"},
    "ZImagePipeline": {"text_encoder": "Qwen3Model", "transformer": "ZImageTransformer2DModel", "vae": "AutoencoderKL"},
    "QwenImagePipeline": {"text_encoder": "Qwen2_5_VLForConditionalGeneration", "transformer": "QwenImageTransformer2DModel",
                          "vae": "AutoencoderKLQwenImage"},
}  # fmt: skip
#: Settings of schedulers.
SCHEDULES: dict[str, dict[str, Any]] = {
    "z": {"shift": 3.0}, "qwen guided": {"shift": 2.0},
    "qwen": {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192,
             "shift_terminal": 0.02, "time_shift_type": "exponential"},
}  # fmt: skip
#: Keywords that replace those of `SHORT`.
LONG = {"max_sequence_length": 150}


def write_language_model(package: Any, folder: Path, is_masked: bool) -> None:
    """A text encoder with hidden states of some layers, which depend on the mask; 0 for other tokens if it
    `is_masked`."""
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
    if is_masked:
        states = [ops.multiply(state, shown) for state in states]
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


def write_z_image(package: Any, folder: Path) -> None:
    """The inputs and outputs of the transformer of Z-Image."""
    net = Ops(package, 73)
    ops, width = net.ops, WIDTH * len(CONFIGURED)

    def real(values: Any, scale: float = 1.0) -> Any:
        return ops.multiply(ops.convert(values, np.float32), ops.constant(np.float32(scale)))

    sample, time = net.parameter("hidden_states", [-1, LATENTS, -1, -1]), net.parameter("timestep", [-1])
    text, mask = (
        net.parameter(f"encoder_{n}", [-1, -1, *s])
        for n, s in (("hidden_states", [width]), ("attention_mask", []))
    )
    texts, places = (net.parameter(name, [-1, -1, 3], np.int32) for name in ("txt_ids", "img_ids"))
    read = ops.matmul(
        ops.concat([text, real(texts, 0.1)], 2), net.weights(width + 3, LATENTS, scale=0.3), False, False
    )
    seen = ops.unsqueeze(real(ops.equal(mask, ops.constant(np.float32(0)))), ops.constant(2))
    shown = ops.matmul(real(places, 0.1), net.weights(3, LATENTS, scale=0.3), False, False)
    moved = ops.add(
        ops.reduce_sum(ops.multiply(ops.tanh(read), seen), ops.constant(1)),
        ops.reduce_mean(ops.tanh(shown), ops.constant(1)),
    )
    moved = ops.add(moved, ops.multiply(ops.unsqueeze(time, ops.constant(1)), net.weights(1, LATENTS)))
    noise = ops.tanh(ops.add(sample, ops.unsqueeze(moved, ops.constant(np.array([2, 3])))))
    net.save({"out": noise}, [sample, time, text, mask, texts, places], folder)
    config = {"in_channels": LATENTS, "out_channels": LATENTS, "sample_size": 8}
    (folder / "config.json").write_text(json.dumps(config))


def write_qwen_encoder(package: Any, folder: Path) -> None:
    """A text encoder whose states depend on the mask."""
    net = Ops(package, 71)
    ops = net.ops
    ids, mask = (net.parameter(name, [-1, -1], np.int64) for name in ("input_ids", "attention_mask"))
    shown = ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(2))
    words = ops.gather(net.weights(300, WIDTH), ids, ops.constant(0))
    total = ops.reduce_sum(ops.multiply(words, shown), ops.constant([1]), True)
    mean = ops.divide(total, ops.reduce_sum(shown, ops.constant([1]), True))
    net.save({"hidden_states": ops.tanh(ops.add(words, mean))}, [ids, mask], folder)
    (folder / "config.json").write_text(json.dumps({"hidden_size": WIDTH}))


def write_qwen_image(package: Any, folder: Path, guided: bool) -> None:
    """The inputs and outputs of the transformer of Qwen-Image."""
    net = Ops(package, 73)
    ops = net.ops
    sample, time = net.parameter("hidden_states", [-1, -1, PACKED]), net.parameter("timestep", [-1])
    text = net.parameter("encoder_hidden_states", [-1, -1, WIDTH])
    mask = net.parameter("encoder_hidden_states_mask", [-1, -1], np.int64)
    sizes = [net.parameter(name, [], np.int64) for name in ("height", "width")]
    inputs = [sample, time, text, mask, *sizes]
    read = ops.tanh(ops.matmul(text, net.weights(WIDTH, PACKED, scale=0.3), False, False))
    seen = ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(2))
    moved = ops.add(
        ops.reduce_sum(ops.multiply(read, seen), ops.constant(1)),
        ops.multiply(ops.unsqueeze(time, ops.constant(1)), net.weights(1, PACKED)),
    )
    for size, share in zip(sizes, (0.02, 0.01), strict=True):
        moved = ops.add(moved, ops.multiply(ops.convert(size, np.float32), ops.constant(np.float32(share))))
    if guided:
        inputs.append(net.parameter("guidance", [-1]))
        scale = net.weights(1, PACKED, scale=0.1)
        moved = ops.add(moved, ops.multiply(ops.unsqueeze(inputs[-1], ops.constant(1)), scale))
    shown = ops.tanh(ops.add(sample, ops.unsqueeze(moved, ops.constant(1))))
    net.save({"out": ops.matmul(shown, net.weights(PACKED, PACKED, scale=0.4), False, False)}, inputs, folder)
    config = {"in_channels": PACKED, "guidance_embeds": guided, "sample_size": 8}
    (folder / "config.json").write_text(json.dumps(config))


def write_video_autoencoder(package: Any, folder: Path) -> None:
    """An autoencoder of videos, whose latents have 4 x 4 pixels."""
    net = Ops(package, 81)
    ops = net.ops

    def shape(*sizes: int) -> Any:
        return ops.constant(np.array(sizes))

    latents = net.parameter("latent_sample", [-1, LATENTS, -1, -1, -1])
    last = ops.transpose(latents, shape(0, 2, 3, 4, 1))
    values = ops.tanh(ops.matmul(last, net.weights(LATENTS, 48, scale=0.4), False, False))
    count, height, width = (
        ops.gather(ops.shape_of(values), shape(axis), ops.constant(0)) for axis in (0, 2, 3)
    )
    blocks = ops.reshape(values, ops.concat([count, height, width, shape(3, 4, 4)], 0), False)
    sides = [ops.multiply(side, shape(4)) for side in (height, width)]
    pixels = ops.reshape(
        ops.transpose(blocks, shape(0, 3, 1, 4, 2, 5)), ops.concat([count, shape(3, 1), *sides], 0), False
    )
    net.save({"sample": pixels}, [latents], folder / "vae_decoder")
    net = Ops(package, 82)
    picture = net.parameter("sample", [-1, 3, 1, -1, -1])
    weights, steps = net.weights(2 * LATENTS, 3, 1, 4, 4, scale=0.2), [1, 4, 4]
    encoded = net.ops.convolution(picture, weights, steps, [0, 0, 0], [0, 0, 0], [1, 1, 1])
    net.save({"latent_parameters": encoded}, [picture], folder / "vae_encoder")
    config = {"z_dim": LATENTS, "input_channels": 3, "temperal_downsample": [False, True],
              "latents_mean_data": [0.1, -0.2, 0.3, 0.0], "latents_std_data": [1.5, 0.5, 2.0, 0.8]}  # fmt: skip
    for name in ("vae_decoder", "vae_encoder"):
        (folder / name / "config.json").write_text(json.dumps(config))


def write_index(folder: Path, kind: str) -> None:
    """model_index.json, and the scheduler's settings."""
    parts = PARTS[CLASSES[kind]]
    other = {"klein": "AutoencoderKLFlux2", "qwen guided": "AutoencoderKL"}.get(kind, parts["vae"])
    index = {name: ["library", class_name] for name, class_name in {**parts, "vae": other}.items()}
    more = {"_class_name": CLASSES[kind], "is_distilled": kind == "distilled"}
    (folder / "model_index.json").write_text(json.dumps({**index, **more}))
    if kind in SCHEDULES:
        (folder / "scheduler").mkdir()
        settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", **SCHEDULES[kind]}
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    else:
        write_flow_scheduler(folder / "scheduler" / "scheduler_config.json", "exponential")


def write_language_folder(package: Any, folder: Path, kind: str) -> Path:
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    if CLASSES[kind] == "QwenImagePipeline":
        write_qwen_encoder(package, folder / "text_encoder")
        write_qwen_image(package, folder / "transformer", kind == "qwen guided")
        write_video_autoencoder(package, folder)
    else:
        write_language_model(package, folder / "text_encoder", kind == "z")
        write_autoencoder(package, folder)
    if kind == "z":
        write_z_image(package, folder / "transformer")
    elif CLASSES[kind] == "Flux2KleinPipeline":
        write_flux2(package, folder / "transformer", kind == "distilled")
        add_norm(folder)
    write_index(folder, kind)
    return folder


def add_norm(folder: Path) -> None:
    """The numbers that latents of Flux 2 are normalized with."""
    path = folder / "vae_decoder" / "config.json"
    rng = np.random.default_rng(5)
    norm = {
        "bn_running_mean_data": rng.normal(size=PACKED).round(3).tolist(),
        "bn_running_var_data": rng.uniform(0.5, 2, PACKED).round(3).tolist(),
        "batch_norm_eps": 0.01,
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), **norm, "latent_channels": LATENTS}))


SHORT = {"num_inference_steps": 4, "max_sequence_length": 40, "height": 24, "width": 16}
TEXT_CASES: tuple[dict[str, Any], ...] = (
    {}, {"num_inference_steps": 1}, {"num_images_per_prompt": 2, "rng_seed": 7}, {"guidance_scale": 1.0}, {"guidance_scale": 0.5}, {"prompt_2": "numbers"}, {"prompt_3": "numbers"},
    {"negative_prompt": "other"}, {"negative_prompt_2": "a"}, {"max_sequence_length": 600}, {"max_sequence_length": 5}, {"max_sequence_length": 90}, {"height": 18},
    {"strength": 0.5}, {"strength": 1.5},
)  # fmt: skip
#: Cases of Z-Image and Qwen-Image.
MORE_CASES: tuple[dict[str, Any], ...] = (
    {"guidance_scale": 0.0}, {"num_inference_steps": 9}, {"max_sequence_length": 1025}, {"negative_prompt": "the", "guidance_scale": 0.5},
    {"negative_prompt": ""}, {"negative_prompt": "a", "num_images_per_prompt": 2}, {"prompt_2": "a"}, {"negative_prompt_3": "a"},
)  # fmt: skip
IMAGE_CASES: tuple[dict[str, Any], ...] = (
    {}, {"strength": 0.3}, {"strength": 1.5}, {"num_images_per_prompt": 2}, {"guidance_scale": 1.0},
)  # fmt: skip


def pictures(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    for kind, class_name in CLASSES.items():
        is_flux, common = class_name == "Flux2KleinPipeline", {**SHORT, **(LONG if "qwen" in kind else {})}
        image = picture(ov, 22 if kind == "z" else 21, 18)
        for name, others in (("Text2ImagePipeline", ()), ("Image2ImagePipeline", (image,))):
            pipe = getattr(genai, name)(folder / kind, "CPU", **EXACT)
            yield f"{kind} {name} config", lambda p=pipe: describe(p.get_generation_config())
            cases = (*(IMAGE_CASES if others else TEXT_CASES), *(() if is_flux else MORE_CASES))
            for case in cases:
                if not (others and "qwen" in kind and "num_images_per_prompt" in case):
                    yield (
                        f"{kind} {name} {case}",
                        lambda p=pipe, o=others, c=case, s=common: array_of(
                            p.generate(PROMPT, *o, **{**s, **c})
                        ),
                    )
        yield (
            f"{kind} size of the picture",
            lambda k=kind, i=image: array_of(
                genai.Image2ImagePipeline(folder / k, "CPU", **EXACT).generate(
                    PROMPT, i, num_inference_steps=2
                )
            ),
        )
        yield f"{kind} inpainting", lambda k=kind: genai.InpaintingPipeline(folder / k, "CPU")


def settings(genai: Any, folder: Path) -> Iterator[Program]:
    text = genai.Text2ImagePipeline

    def common(kind: str) -> dict[str, Any]:
        return {**SHORT, **(LONG if "qwen" in kind else {})}

    def reshape(kind: str, scale: float) -> Any:
        pipe = text(folder / kind)
        config = pipe.get_generation_config()
        config.max_sequence_length, config.num_inference_steps = common(kind)["max_sequence_length"], 3
        pipe.set_generation_config(config)
        pipe.reshape(2, 16, 24, scale)
        pipe.compile("CPU", **EXACT)
        return array_of(pipe.generate(PROMPT))

    def decode(kind: str) -> Any:
        pipe = text(folder / kind, "CPU", **EXACT)
        pipe.generate(PROMPT, **common(kind))
        shape = {"z": (2, LATENTS, 6, 4), "qwen": (2, 6, PACKED)}.get(kind.partition(" ")[0], (2, 24, PACKED))
        latents = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
        return array_of(pipe.decode(image_package(genai).Tensor(latents)))

    def count(kind: str) -> Any:
        pipe = text(folder / kind, "CPU", **EXACT)
        negative = {} if CLASSES[kind] == "Flux2KleinPipeline" else {"negative_prompt": "a"}
        pipe.generate(PROMPT, **common(kind), **negative)
        raw = pipe.get_performance_metrics().raw_metrics
        return [len(raw.transformer_inference_durations), len(raw.iteration_durations)]

    def encode(kind: str) -> Any:
        name = "Qwen2_5_VLForConditionalGeneration" if "qwen" in kind else "Qwen3TextEncoder"
        encoder = getattr(genai, name)(folder / kind / "text_encoder", "CPU", **EXACT)
        states = array_of(encoder.infer("hello", "the", True, 150 if "qwen" in kind else 30))
        if "qwen" not in kind:
            return states
        mask = array_of(encoder.get_encoder_attention_mask())
        return np.concatenate([states, mask[..., None]], 2)

    def read_config(kind: str) -> Any:
        config = getattr(genai, PARTS[CLASSES[kind]]["transformer"]).Config
        (folder / "empty.json").write_text("{}")
        names = ("in_channels", "out_channels", "sample_size", "default_sample_size", "guidance_embeds")
        paths = (folder / kind / "transformer" / "config.json", folder / "empty.json")
        return [[getattr(config(path), name, -1) for name in names] for path in paths]

    for kind in CLASSES:
        yield f"reshape {kind}", lambda k=kind: reshape(k, 4.0)
        yield f"reshape without guidance {kind}", lambda k=kind: reshape(k, 0.0 if k == "z" else 1.0)
        yield f"decode {kind}", lambda k=kind: decode(k)
        yield f"metrics {kind}", lambda k=kind: count(k)
        yield f"encoder {kind}", lambda k=kind: encode(k)
        if CLASSES[kind] != "Flux2KleinPipeline":
            yield f"config {kind}", lambda k=kind: read_config(k)
    yield (
        "no mask before a prompt",
        lambda: genai.Qwen2_5_VLForConditionalGeneration(
            folder / "qwen" / "text_encoder", "CPU"
        ).get_encoder_attention_mask(),
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
