"""Programs of Stable Diffusion 3 and Flux, and of adapters of pictures, whose results are compared, and the small
folders that they read.

    python -m tests.support.genai_flows tests/genai/flows.npz

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

from tests.support.genai_adapters import write_safetensors
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
    write_encoder,
    write_folder,
    write_results,
)

#: Width of the states of the T5 encoder, and sizes of a packed latent.
STATES, PACKED = 20, 4 * LATENTS
LINEAR = "__module.{}/aten::linear/MatMul"
SCHEDULERS: dict[str, dict[str, Any]] = {
    "shift 3": {"shift": 3.0}, "plain": {}, "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "exponential": {"use_dynamic_shifting": True, "time_shift_type": "exponential"}, "terminal": {"shift": 2.0, "shift_terminal": 0.1},
}  # fmt: skip
CLASSES = {"sd3": "StableDiffusion3Pipeline", "sd3 small": "StableDiffusion3Pipeline", "flux": "FluxPipeline",
           "schnell": "FluxPipeline", "fill": "FluxFillPipeline"}  # fmt: skip


def write_t5(package: Any, folder: Path) -> None:
    net = Ops(package, 23)
    ops, ids = net.ops, net.parameter("input_ids", [-1, -1], np.int64)
    words = ops.gather(net.weights(300, STATES), ids, ops.constant(0))
    last = ops.tanh(ops.matmul(words, net.weights(STATES, STATES, scale=0.3), False, False))
    net.save({"last_hidden_state": last}, [ids], folder)


def linear(net: Ops, name: str, node: Any, inputs: int, outputs: int) -> Any:
    """A layer with the name that diffusers gives it."""
    layer = net.ops.matmul(node, net.weights(outputs, inputs, scale=inputs**-0.5), False, True)
    layer.set_friendly_name(LINEAR.format(name))
    return layer


def write_transformer(package: Any, folder: Path, kind: str) -> None:
    """A transformer's inputs and outputs; its layers have some of the names of the real ones."""
    is_flux = not kind.startswith("sd3")
    net = Ops(package, 31 + is_flux)
    ops, width = net.ops, STATES if "small" not in kind else 2 * WIDTH
    channels = LATENTS if not is_flux else 2 * PACKED + 16 if kind == "fill" else PACKED
    shape = [-1, -1, channels] if is_flux else [-1, channels, -1, -1]
    sample, time = net.parameter("hidden_states", shape), net.parameter("timestep", [-1])
    text = net.parameter("encoder_hidden_states", [-1, -1, width])
    pooled_width = WIDTH if is_flux else 2 * WIDTH
    pooled = net.parameter("pooled_projections", [-1, pooled_width])
    inputs = [sample, text, pooled, time]
    steps = ops.multiply(
        ops.unsqueeze(time, ops.constant(1)), net.weights(1, WIDTH, scale=3.0 if is_flux else 0.01)
    )
    read = ops.reduce_mean(
        linear(net, "transformer_blocks.0.attn.add_q_proj", text, width, WIDTH), ops.constant(1)
    )
    moved = ops.add(
        ops.add(ops.sin(steps), read),
        linear(net, "time_text_embed.text_embedder.linear_1", pooled, pooled_width, WIDTH),
    )
    if kind in ("flux", "fill"):
        inputs.append(net.parameter("guidance", [-1]))
        moved = ops.add(
            moved, ops.multiply(ops.unsqueeze(inputs[-1], ops.constant(1)), net.weights(1, WIDTH, scale=0.1))
        )
    if is_flux:
        places, texts = net.parameter("img_ids", [-1, 3]), net.parameter("txt_ids", [-1, 3])
        inputs += [places, texts]
        shift = ops.add(
            ops.matmul(places, net.weights(3, WIDTH, scale=0.2), False, False),
            ops.reduce_mean(ops.matmul(texts, net.weights(3, WIDTH), False, False), ops.constant(0)),
        )
        features = ops.add(
            ops.add(linear(net, "transformer_blocks.0.attn.to_q", sample, channels, WIDTH), shift),
            ops.unsqueeze(moved, ops.constant(1)),
        )
        output = linear(net, "proj_out", ops.tanh(features), WIDTH, PACKED)
    else:
        features = ops.tanh(ops.add(net.convolve(sample, channels, WIDTH), net.spread(moved)))
        output = net.convolve(features, WIDTH, LATENTS)
    net.save({"out": output}, inputs, folder)
    config = {
        "in_channels": channels,
        "sample_size": 8,
        "patch_size": 2,
        "joint_attention_dim": width,
        "guidance_embeds": kind in ("flux", "fill"),
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_flow_folder(package: Any, folder: Path, kind: str) -> Path:
    """A pipeline's folder: "sd3", "sd3 small" (without the T5 encoder), "flux", "schnell", or "fill"."""
    is_flux = not kind.startswith("sd3")
    clip = "CLIPTextModel" if is_flux else "CLIPTextModelWithProjection"
    names = {"text_encoder": clip, "text_encoder_2": "T5EncoderModel" if is_flux else clip}
    if not is_flux:
        names["text_encoder_3"] = "T5EncoderModel" if kind == "sd3" else None
    for i, (name, class_name) in enumerate(names.items()):
        if class_name == "T5EncoderModel":
            write_t5(package, folder / name)
        elif class_name is not None:
            write_encoder(package, folder / name, 5 + i, projection=not is_flux)
        if class_name is not None:
            shutil.copytree(TOKENIZER, folder / name.replace("text_encoder", "tokenizer"))
    write_transformer(package, folder / "transformer", kind)
    write_autoencoder(package, folder)
    transformer = "FluxTransformer2DModel" if is_flux else "SD3Transformer2DModel"
    index = {
        name: ["library", class_name]
        for name, class_name in {**names, "transformer": transformer, "vae": "AutoencoderKL"}.items()
    }
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": CLASSES[kind]}))
    write_flow_scheduler(folder / "scheduler" / "scheduler_config.json", "linear" if is_flux else "shift 3")
    return folder


def write_flow_scheduler(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", **SCHEDULERS[name]}))
    return path


#: Keywords of `generate`.
SHORT = {"num_inference_steps": 4, "max_sequence_length": 16, "height": 24, "width": 16}
TEXT_CASES: tuple[dict[str, Any], ...] = (
    {}, {"num_inference_steps": 1}, {"num_inference_steps": 13}, {"num_inference_steps": 13, "taylorseer_config": None}, {"num_images_per_prompt": 2, "rng_seed": 7},
    {"guidance_scale": 1.0}, {"prompt_2": "numbers"}, {"prompt_3": "numbers"}, {"negative_prompt": "other"}, {"negative_prompt_2": "a", "negative_prompt_3": "is"},
    {"max_sequence_length": 600}, {"max_sequence_length": 5}, {"height": 15}, {"strength": 0.5},
)  # fmt: skip
IMAGE_CASES: tuple[dict[str, Any], ...] = (
    {},
    {"strength": 1.0},
    {"strength": 0.3},
    {"strength": 0.1},
    {"guidance_scale": 1.5, "num_inference_steps": 7},
)
INPAINTING_CASES: tuple[dict[str, Any], ...] = (
    {},
    {"strength": 1.0},
    {"strength": 0.4, "rng_seed": 3},
    {"num_images_per_prompt": 2},
)


def flows(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    image, masks = picture(ov, 21, 18), (picture(ov, 30, 20, 3, 5), picture(ov, 16, 16, 1, 6))
    tasks = {
        "text": genai.Text2ImagePipeline,
        "image": genai.Image2ImagePipeline,
        "inpainting": genai.InpaintingPipeline,
    }
    for kind in CLASSES:
        cases: dict[str, Any] = {"text": TEXT_CASES, "image": IMAGE_CASES, "inpainting": INPAINTING_CASES}
        for task in ("inpainting",) if kind == "fill" else tasks:
            pipe = tasks[task](folder / kind, "CPU", **EXACT)
            yield f"{kind} {task} config", lambda p=pipe: describe(p.get_generation_config())
            for case in cases[task]:
                if kind == "schnell" and case:
                    continue
                # in the real package a T5 encoder takes one shape only
                fresh = pipe if kind == "sd3 small" or ov.__name__ == "ovjit" else None
                extra = {"text": [()], "image": [(image,)], "inpainting": [(image, mask) for mask in masks]}[
                    task
                ]
                for others in extra[: 1 if case else 2]:
                    yield (
                        f"{kind} {task} {case} {len(others) and others[-1].shape[3]}",
                        lambda k=kind, t=task, p=fresh, c=case, o=others: array_of(
                            (p or tasks[t](folder / k, "CPU", **EXACT)).generate(PROMPT, *o, **{**SHORT, **c})
                        ),
                    )


def describe(config: Any) -> list[float]:
    fields = ("height", "width", "guidance_scale", "num_inference_steps", "max_sequence_length", "strength")
    return [*(float(getattr(config, name)) for name in fields), float(config.taylorseer_config is not None)]


def parts(genai: Any, folder: Path) -> Iterator[Program]:
    def build(kind: str) -> list[Any]:
        at = folder / kind
        encoders = ([genai.CLIPTextModel, genai.T5EncoderModel] if not kind.startswith("sd3") else
                    [genai.CLIPTextModelWithProjection] * 2 + [genai.T5EncoderModel] * (kind == "sd3"))  # fmt: skip
        loaded = [
            each(at / ("text_encoder" + (f"_{i + 1}" if i else "")), "CPU", **EXACT)
            for i, each in enumerate(encoders)
        ]
        transformer = genai.SD3Transformer2DModel if kind.startswith("sd3") else genai.FluxTransformer2DModel
        vae = genai.AutoencoderKL(at / "vae_decoder", "CPU", **EXACT)
        scheduler = genai.Scheduler.from_config(at / "scheduler" / "scheduler_config.json")
        return [scheduler, *loaded, transformer(at / "transformer", "CPU", **EXACT), vae]

    text = genai.Text2ImagePipeline
    for kind in ("sd3", "sd3 small"):
        yield (
            f"parts of {kind}",
            lambda k=kind: array_of(text.stable_diffusion_3(*build(k)).generate(PROMPT, **SHORT)),
        )
    yield "parts of flux", lambda: array_of(text.flux(*build("flux")).generate(PROMPT, **SHORT))
    yield "wrong parts", lambda: text.flux(*build("sd3")[:5])
    for name in SCHEDULERS:
        for kind in ("sd3", "flux"):

            def change(name: str = name, kind: str = kind) -> Any:
                pipe = text(folder / kind, "CPU", **EXACT)
                pipe.set_scheduler(
                    genai.Scheduler.from_config(write_flow_scheduler(folder / "scheduler.json", name))
                )
                return array_of(pipe.generate(PROMPT, **{**SHORT, "num_inference_steps": 6}))

            yield f"schedule {name} of {kind}", change

    def reshape(kind: str, scale: float) -> Any:
        pipe = text(folder / kind)
        config = pipe.get_generation_config()
        config.max_sequence_length, config.num_inference_steps = 16, 3
        pipe.set_generation_config(config)
        pipe.reshape(1, 16, 24, scale)
        pipe.compile("CPU", **EXACT)
        return array_of(pipe.generate(PROMPT))

    def run_callback(kind: str) -> Any:
        latents: list[Any] = []
        pipe = text(folder / kind, "CPU", **EXACT)
        pipe.generate(
            PROMPT,
            **SHORT,
            callback=lambda step, steps, latent: bool(latents.append(array_of(latent))),
        )
        return latents[-1]

    def predict(**fields: int) -> Any:
        config = genai.TaylorSeerCacheConfig()
        for name, value in fields.items():
            setattr(config, name, value)
        pipe = text(folder / "flux", "CPU", **EXACT)
        return array_of(
            pipe.generate(PROMPT, **{**SHORT, "num_inference_steps": 11}, taylorseer_config=config)
        )

    for kind in ("sd3", "flux"):
        yield f"reshape {kind}", lambda k=kind: reshape(k, 3.0)
        yield f"callback {kind}", lambda k=kind: run_callback(k)
    for fields in ({"cache_interval": 2, "disable_cache_before_step": 0}, {"cache_interval": 4, "disable_cache_before_step": 3, "disable_cache_after_step": 9},
                   {"cache_interval": 1}, {"disable_cache_before_step": 20}, {"disable_cache_after_step": -30}):  # fmt: skip
        yield f"predict {fields}", lambda f=fields: predict(**f)


#: A file's name -> layers with their inputs and outputs, and the ends of the names of A and B.
KOHYA, PEFT = (".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight")
ADAPTERS: dict[str, tuple[dict[str, tuple[int, int]], tuple[str, str]]] = {
    "sd": ({"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (WIDTH, WIDTH), "lora_te_text_model_encoder_layers_0_mlp_fc1": (WIDTH, WIDTH)}, KOHYA),
    "numbered": ({"lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k": (WIDTH, WIDTH)}, KOHYA),
    "diffusers": ({"mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k": (WIDTH, WIDTH)}, ("_lora.down.weight", "_lora.up.weight")),
    "xl": ({"lora_te1_text_model_encoder_layers_0_mlp_fc1": (WIDTH, WIDTH), "lora_te2_text_model_encoder_layers_0_mlp_fc1": (WIDTH, WIDTH)}, KOHYA),
    "sd3": ({"transformer.transformer_blocks.0.attn.add_q_proj": (STATES, WIDTH), "lora_te_text_model_encoder_layers_0_mlp_fc1": (WIDTH, WIDTH)}, PEFT),
    "flux": ({"transformer.transformer_blocks.0.attn.to_q": (PACKED, WIDTH), "transformer.proj_out": (WIDTH, PACKED)}, PEFT),
    "flux kohya": ({"lora_unet_double_blocks_0_txt_attn_qkv": (STATES, 3 * WIDTH), "lora_te1_text_model_encoder_layers_0_mlp_fc1": (WIDTH, WIDTH)}, KOHYA),
    "flux xlabs": ({"double_blocks.0.processor.qkv_lora2": (STATES, 3 * WIDTH)}, (".down.weight", ".up.weight")),
}  # fmt: skip


def write_adapter(path: Path, name: str, rank: int = 3) -> Path:
    layers, ends = ADAPTERS[name]
    tensors = {}
    for i, (layer, (inputs, outputs)) in enumerate(layers.items()):
        rng = np.random.default_rng([7, i, rank])
        for end, shape in zip(ends, ((rank, inputs), (outputs, rank)), strict=True):
            tensors[layer + end] = ("F32", (rng.standard_normal(shape) * 0.8).astype(np.float32))
    path.write_bytes(write_safetensors(tensors))
    return path


def adapters(genai: Any, folder: Path) -> Iterator[Program]:
    modes = genai.AdapterConfig.Mode

    def load(name: str, rank: int = 3) -> Any:
        return genai.Adapter(write_adapter(folder / f"{name} {rank}.safetensors", name, rank))

    def run(kind: str, first: Any, *others: Any) -> Any:
        pipe = genai.Text2ImagePipeline(folder / kind, "CPU", adapters=first, **EXACT)
        options = {**SHORT, "num_inference_steps": 3}
        return np.concatenate(
            [
                array_of(pipe.generate(PROMPT, **options, **({} if c is None else {"adapters": c})))
                for c in (None, *others)
            ]
        )

    config = genai.AdapterConfig
    kinds = {"numbered": "sd", "diffusers": "sd", "flux kohya": "flux", "flux xlabs": "flux"}
    for name in ADAPTERS:
        yield f"adapter {name}", lambda n=name: run(kinds.get(n, n), config(load(n)), config())
    yield (
        "adapters",
        lambda: (
            lambda a, b: run("sd", config([a, b]), config(b, 0.4), config([(a, 0.5), (b, 2.0)]), config())
        )(load("sd"), load("diffusers", 2)),
    )
    for mode in (modes.MODE_DYNAMIC, modes.MODE_STATIC_RANK, modes.MODE_STATIC, modes.MODE_FUSE):
        for kind in ("sd", "flux"):
            yield f"mode {mode.name} {kind}", lambda m=mode, k=kind: run(k, config(load(k), 0.7, m))

    def compile_with() -> Any:
        pipe = genai.Text2ImagePipeline(folder / "sd")
        pipe.compile("CPU", adapters=config(load("sd")), **EXACT)
        return array_of(pipe.generate(PROMPT, **SHORT))

    yield "compile with adapters", compile_with


GROUPS: dict[str, Callable[[Any, Path], Iterator[Program]]] = {
    "flows": flows,
    "parts": parts,
    "adapters": adapters,
}


def write_flow_folders(package: Any, folder: Path) -> Path:
    for kind in CLASSES:
        write_flow_folder(package, folder / kind, kind)
    for kind in ("sd", "xl"):
        write_folder(package, folder / kind, kind)
    return folder


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        folder = write_flow_folders(openvino, Path(name))
        programs = [program for group in GROUPS.values() for program in group(openvino_genai, folder)]
        write_results(sys.argv[1], {title: value_of(run) for title, run in programs})
