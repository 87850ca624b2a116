"""Programs of Text2VideoPipeline whose results are compared, and the small folders of LTX-Video that they read.

    python -m tests.support.genai_videos tests/genai/videos.npz

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
from tests.support.genai_flows import STATES, linear, write_t5
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
    value_of,
    write_results,
)

#: The scheduler of LTX-Video, and one with other fields.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "ltx": {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "shift_terminal": 0.1, "time_shift_type": "exponential"},
    "plain": {"shift": 2.0},
}  # fmt: skip
#: Pixels of a latent in each direction, and its frames.
FACTOR = 4


def write_transformer(package: Any, folder: Path, has_rows: bool) -> None:
    """A transformer's inputs and outputs; with `has_rows` each token has its time."""
    net = Ops(package, 41)
    ops = net.ops
    sample, text = (
        net.parameter(name, [-1, -1, width])
        for name, width in (("hidden_states", LATENTS), ("encoder_hidden_states", STATES))
    )
    mask = net.parameter("encoder_attention_mask", [-1, -1], np.int64)
    time = net.parameter("timestep", [-1, -1] if has_rows else [-1])
    sizes = [net.parameter(name, [], np.int64) for name in ("num_frames", "height", "width")]
    scale = net.parameter("rope_interpolation_scale", [3])
    last = ops.unsqueeze(time, ops.constant([2] if has_rows else [1, 2]))
    steps = ops.matmul(
        ops.sin(ops.multiply(last, ops.constant(np.float32(0.01)))), net.weights(1, WIDTH), False, False
    )
    kept = ops.multiply(text, ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(2)))
    read = linear(
        net, "transformer_blocks.0.attn2.to_k", ops.reduce_mean(kept, ops.constant(1), True), STATES, WIDTH
    )
    shape = ops.concat([ops.unsqueeze(size, ops.constant(0)) for size in sizes], 0)
    places = ops.multiply(
        ops.multiply(ops.convert(shape, np.float32), scale),
        ops.constant(np.array([3, 0.05, 0.05], np.float32)),
    )
    moved = ops.add(ops.add(steps, read), ops.matmul(places, net.weights(3, WIDTH, scale=0.3), False, False))
    order = ops.cum_sum(
        ops.multiply(ops.slice(sample, [0], [1], [1], [2]), ops.constant(np.float32(0.1))), ops.constant(1)
    )
    features = ops.add(
        ops.add(linear(net, "transformer_blocks.0.attn1.to_q", sample, LATENTS, WIDTH), moved), order
    )
    output = linear(net, "proj_out", ops.tanh(features), WIDTH, LATENTS)
    net.save({"out_sample": output}, [sample, text, mask, *sizes[::-1], time, scale], folder)
    (folder / "config.json").write_text(
        json.dumps({"in_channels": LATENTS, "patch_size": 1, "patch_size_t": 1})
    )


def write_decoder(package: Any, folder: Path, **config: Any) -> None:
    """A decoder of FACTOR * frames - FACTOR + 1 frames, whose pixels in a latent differ."""
    net = Ops(package, 43)
    ops = net.ops
    latent = net.parameter("latent_sample", [-1, LATENTS, -1, -1, -1])
    colours = ops.convolution(
        latent, net.weights(3, LATENTS, 1, 1, 1, scale=0.3), [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1]
    )
    apart = ops.unsqueeze(colours, ops.constant([3, 5, 7]))
    pixels = ops.multiply(apart, net.weights(1, 1, 1, FACTOR, 1, FACTOR, 1, FACTOR))
    sizes = ops.multiply(ops.shape_of(colours), ops.constant(np.array([1, 1, FACTOR, FACTOR, FACTOR])))
    video = ops.slice(ops.reshape(ops.tanh(pixels), sizes, False), [FACTOR - 1], [2**31], [1], [2])
    net.save({"sample": video}, [latent], folder)
    fields = {"block_out_channels": [4, 8, 8], "latent_channels": LATENTS, "patch_size": 1, "patch_size_t": 1,
              "spatio_temporal_scaling": [True, True, False], **config}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields))


def write_video_folder(package: Any, folder: Path, kind: str) -> Path:
    """A pipeline's folder: "ltx", or "other" with each token's time, a plain schedule and other latents."""
    is_other = kind == "other"
    write_t5(package, folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    write_transformer(package, folder / "transformer", is_other)
    rng = np.random.default_rng(3)
    means, deviations = rng.standard_normal(LATENTS), rng.random(LATENTS) + 0.5
    other = {
        "scaling_factor": 0.5,
        "latents_mean_data": means.tolist(),
        "latents_std_data": deviations.tolist(),
    }
    write_decoder(package, folder / "vae_decoder", **(other if is_other else {}))
    index = {"_class_name": "LTXPipeline", "text_encoder": ["transformers", "T5EncoderModel"],
             "transformer": ["diffusers", "LTXVideoTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLLTXVideo"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler").mkdir()
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        **SCHEDULERS["plain" if is_other else "ltx"],
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


#: Keywords of `generate`.
SHORT = {"num_inference_steps": 3, "max_sequence_length": 16, "height": 32, "width": 64, "num_frames": 9}
CASES: tuple[dict[str, Any], ...] = (
    {}, {"guidance_scale": 1.0}, {"guidance_scale": 3.0, "negative_prompt": "numbers"}, {"guidance_rescale": 0.7}, {"guidance_rescale": -1.0},
    {"num_inference_steps": 2}, {"num_inference_steps": 9}, {"num_frames": 1}, {"num_frames": 8}, {"frame_rate": 10}, {"height": 64, "width": "32"},
    {"max_sequence_length": 5}, {"max_sequence_length": 600}, {"height": 48}, {"width": 0}, {"num_inference_steps": 0},
    {"frame_rate": None}, {"no_such_name": 3}, {"guidance_scale": 0.5, "negative_prompt": "x"},
)  # fmt: skip


def pixels_of(result: Any) -> np.ndarray:
    """The sizes of a video, and some of its pixels, as u8."""
    video = array_of(result.video)
    return (
        np.concatenate((np.array(video.shape, np.uint8), video[..., 1::5, ::3, :].reshape(-1)))
        if video.ndim
        else video
    )


def videos(genai: Any, folder: Path) -> Iterator[Program]:
    def run(kind: str, keywords: dict[str, Any]) -> Any:
        # in the real package a T5 encoder takes one shape only
        pipe = genai.Text2VideoPipeline(folder / kind, "CPU", **EXACT)
        return pixels_of(pipe.generate(PROMPT, **{**SHORT, **keywords}))

    for kind in ("ltx", "other"):
        for case in CASES:
            yield f"{kind} {case}", lambda k=kind, c=case: run(k, c)

    def predict() -> Any:
        config = genai.TaylorSeerCacheConfig()
        config.cache_interval, config.disable_cache_before_step = 2, 2
        return run("ltx", {"num_inference_steps": 9, "taylorseer_config": config})

    yield "generator", lambda: run("ltx", {"generator": genai.CppStdGenerator(7)})
    yield "predicted steps", predict
    yield (
        "configuration as a keyword",
        lambda: run("ltx", {"generation_config": genai.VideoGenerationConfig()}),
    )


def settings(genai: Any, folder: Path) -> Iterator[Program]:
    def describe(config: Any) -> list[float]:
        names = ("height", "width", "num_frames", "frame_rate", "guidance_scale", "guidance_rescale",
                 "num_inference_steps", "max_sequence_length", "num_videos_per_prompt")  # fmt: skip
        return [*(float(getattr(config, name)) for name in names), float(config.generator is None)]

    def change(**fields: Any) -> Any:
        pipe, config = genai.Text2VideoPipeline(folder / "ltx", "CPU", **EXACT), genai.VideoGenerationConfig()
        for name, value in fields.items():
            setattr(config, name, value)
        pipe.set_generation_config(config)
        return describe(pipe.get_generation_config())

    def reshape(scale: float, **keywords: Any) -> Any:
        pipe = genai.Text2VideoPipeline(folder / "other")
        config = pipe.get_generation_config()
        config.max_sequence_length, config.num_inference_steps = 16, 3
        pipe.set_generation_config(config)
        pipe.reshape(1, 9, 32, 64, scale)
        pipe.compile("CPU", **EXACT)
        result = pixels_of(pipe.generate(PROMPT, **keywords))
        fields = describe(pipe.get_generation_config())
        return np.concatenate((result, np.array(fields).astype(np.uint16).view(np.uint8)))

    def run_callback() -> Any:
        latents: list[Any] = []
        pipe = genai.Text2VideoPipeline(folder / "ltx")
        pipe.compile("CPU", "CPU", "CPU", **EXACT)
        pipe.generate(
            PROMPT, **SHORT, callback=lambda step, steps, latent: bool(latents.append(array_of(latent)))
        )
        return np.stack(latents)

    yield "defaults", lambda: describe(genai.Text2VideoPipeline(folder / "ltx").get_generation_config())
    yield "changed", lambda: change(height=32, guidance_scale=0.5, negative_prompt="x", num_inference_steps=7)
    yield "callback", run_callback
    yield "reshape without guidance", lambda: reshape(1.0)
    yield "reshape with guidance", lambda: reshape(3.0)
    yield "guidance after a reshape without", lambda: reshape(1.0, guidance_scale=3.0)
    yield "no guidance after a reshape with", lambda: reshape(3.0, guidance_scale=1.0)
    yield "two videos after a reshape for one", lambda: reshape(1.0, num_videos_per_prompt=2)
    yield "another size after a reshape", lambda: reshape(3.0, height=64)
    yield (
        "not compiled",
        lambda: array_of(genai.Text2VideoPipeline(folder / "ltx").generate(PROMPT, **SHORT).video),
    )
    yield "compiled twice", lambda: genai.Text2VideoPipeline(folder / "ltx", "CPU").compile("CPU")
    yield (
        "reshaped when compiled",
        lambda: genai.Text2VideoPipeline(folder / "ltx", "CPU").reshape(1, 9, 32, 32, 3.0),
    )
    yield (
        "reshaped to a bad size",
        lambda: genai.Text2VideoPipeline(folder / "ltx").reshape(1, 9, 48, 32, 3.0),
    )
    yield "no folder", lambda: genai.Text2VideoPipeline(folder / "none")
    yield "wrong prompt", lambda: genai.Text2VideoPipeline(folder / "ltx", "CPU").generate(3)


def parts(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)

    def transform(*sizes: int) -> Any:
        network = genai.LTXVideoTransformer3DModel(folder / "ltx" / "transformer")
        if sizes:
            network.reshape(1, *sizes, 16)
        network.compile("CPU", **EXACT)
        rng = np.random.default_rng(1)
        inputs = {"encoder_hidden_states": rng.standard_normal((1, 16, STATES)).astype(np.float32), "encoder_attention_mask": np.ones((1, 16), np.int64),
                  "num_frames": np.array(3), "height": np.array(8), "width": np.array(8), "rope_interpolation_scale": np.array([0.3, 4, 4], np.float32)}  # fmt: skip
        for name, values in inputs.items():
            network.set_hidden_states(name, ov.Tensor(values))
        sample = rng.standard_normal((1, 192, LATENTS)).astype(np.float32)
        copied = genai.LTXVideoTransformer3DModel(network)
        return array_of(copied.infer(ov.Tensor(sample), ov.Tensor(np.array([500], np.float32))))

    def decode(*paths: str, **device: Any) -> Any:
        network = genai.AutoencoderKLLTXVideo(*(folder / "other" / path for path in paths), **device)
        if not device:
            network.reshape(1, 9, 32, 32).compile("CPU", **EXACT)
        values = np.linspace(-1, 1, 192 * LATENTS, dtype=np.float32).reshape(1, LATENTS, 3, 8, 8)
        return array_of(network.decode(ov.Tensor(values)))

    def describe() -> list[float]:
        network = genai.AutoencoderKLLTXVideo(folder / "other" / "vae_decoder")
        config = network.get_config()
        first = [
            config.in_channels,
            config.latent_channels,
            config.out_channels,
            config.patch_size,
            config.patch_size_t,
        ]
        return [*first, config.scaling_factor, *config.block_out_channels, network.get_vae_scale_factor()]

    yield "transformer", transform
    yield "reshaped transformer", lambda: transform(9, 32, 32)
    yield "transformer of another size", lambda: transform(9, 32, 64)
    yield "decoder", lambda: decode("vae_decoder")
    yield "decoder with a device", lambda: decode("vae_decoder", device="CPU", **EXACT)
    yield "decoder of an export without an encoder", lambda: decode("vae_encoder", "vae_decoder")
    yield "configuration of a decoder", describe


def write_adapter(path: Path, prefix: str) -> Path:
    rng, layers = (
        np.random.default_rng(9),
        {"transformer_blocks.0.attn1.to_q": LATENTS, "transformer_blocks.0.attn2.to_k": STATES},
    )
    tensors = {}
    for layer, inputs in layers.items():
        for end, shape in ((".lora_A.weight", (2, inputs)), (".lora_B.weight", (WIDTH, 2))):
            tensors[f"{prefix}.{layer}{end}"] = ("F32", rng.standard_normal(shape).astype(np.float32))
    path.write_bytes(write_safetensors(tensors))
    return path


def adapters(genai: Any, folder: Path) -> Iterator[Program]:
    def run(prefix: str, *scales: float) -> Any:
        adapter = genai.Adapter(write_adapter(folder / f"{prefix}.safetensors", prefix))
        pipe = genai.Text2VideoPipeline(folder / "ltx", "CPU", adapters=genai.AdapterConfig(adapter), **EXACT)
        calls = [
            {},
            *({"adapters": genai.AdapterConfig(adapter, scale)} for scale in scales),
            {"adapters": genai.AdapterConfig()},
        ]
        return np.concatenate([pixels_of(pipe.generate(PROMPT, **SHORT, **call)) for call in calls])

    for prefix in ("transformer", "diffusion_model"):
        yield f"adapter {prefix}", lambda p=prefix: run(p, 0.5)


GROUPS: dict[str, Callable[[Any, Path], Iterator[Program]]] = {
    "videos": videos, "settings": settings, "parts": parts, "adapters": adapters,
}  # fmt: skip


def write_video_folders(package: Any, folder: Path) -> Path:
    for kind in ("ltx", "other"):
        write_video_folder(package, folder / kind, kind)
    return folder


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        folder = write_video_folders(openvino, Path(name))
        programs = [program for group in GROUPS.values() for program in group(openvino_genai, folder)]
        write_results(sys.argv[1], {title: value_of(run) for title, run in programs})
