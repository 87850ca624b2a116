"""Programs of the picture pipelines of openvino_genai whose results are compared, and the small folders that they read.

    python -m tests.support.genai_images tests/genai/images.npz

runs them on the real packages. A result is an array, or the text "error: " with the name of the error's class.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT

#: Differences are those of rounding.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
TOKENIZER = ROOT / "tests" / "genai" / "data"
WIDTH, LATENTS, SIZE, LENGTH = 8, 4, 8, 12
BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "pndm": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False},
    "pndm v": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "pndm linspace": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "timestep_spacing": "linspace", "beta_schedule": "linear"},
    "ddim": {"_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1, "set_alpha_to_one": False},
    "ddim v": {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "ddim sample": {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "sample", "timestep_spacing": "linspace"},
    "euler": {"_class_name": "EulerDiscreteScheduler", "steps_offset": 1},
    "euler v": {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    "euler sample": {"_class_name": "EulerDiscreteScheduler", "prediction_type": "sample", "timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"},
    "euler log": {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"},
    "ancestral": {"_class_name": "EulerAncestralDiscreteScheduler", "steps_offset": 1},
    "ancestral v": {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "v_prediction", "timestep_spacing": "linspace"},
    "lcm": {"_class_name": "LCMScheduler", "original_inference_steps": 50, "clip_sample": False},
    "lcm clipped": {"_class_name": "LCMScheduler", "original_inference_steps": 40, "clip_sample": True, "clip_sample_range": 0.6, "beta_schedule": "linear"},
}  # fmt: skip


class Ops:
    """Operations of a package, with weights from one generator."""

    def __init__(self, package: Any, seed: int):
        self.package, self.ops = package, package.opset13
        self.rng = np.random.default_rng(seed)

    def weights(self, *shape: int, scale: float = 1.0) -> Any:
        return self.ops.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def parameter(self, name: str, shape: list[int], dtype: Any = np.float32) -> Any:
        node = self.ops.parameter(shape, dtype, name=name)
        node.output(0).set_names({name})
        return node

    def convolve(self, node: Any, inputs: int, outputs: int, stride: int = 1) -> Any:
        filters = self.weights(outputs, inputs, 3, 3, scale=(9 * inputs) ** -0.5)
        return self.ops.convolution(node, filters, [stride, stride], [1, 1], [1, 1], [1, 1])

    def multiply(self, node: Any, inputs: int, outputs: int, name: str) -> Any:
        """A linear layer with the name that exporters give it."""
        weights = np.ascontiguousarray(np.array(self.weights(inputs, outputs).data).T)
        layer = self.ops.matmul(node, self.ops.constant(weights), False, True)
        layer.set_friendly_name(f"__module.{name}/aten::linear/MatMul")
        return layer

    def spread(self, vectors: Any) -> Any:
        """Vectors [n, channels] as [n, channels, 1, 1]."""
        return self.ops.unsqueeze(vectors, self.ops.constant(np.array([2, 3])))

    def save(self, outputs: dict[str, Any], inputs: list[Any], folder: Path) -> None:
        results = []
        for name, node in outputs.items():
            node.output(0).set_names({name})
            results.append(self.ops.result(node))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.package.Model(results, inputs)
        self.package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)


def write_encoder(package: Any, folder: Path, seed: int, projection: bool = False) -> None:
    """A text encoder with two hidden states, and a pooled vector."""
    net = Ops(package, seed)
    ops, ids = net.ops, net.parameter("input_ids", [-1, -1], np.int64)
    words = ops.gather(net.weights(300, WIDTH), ids, ops.constant(0))
    first = ops.tanh(ops.add(words, net.weights(1, LENGTH, WIDTH)))
    layer = net.multiply(first, WIDTH, WIDTH, "text_model.encoder.layers.0.mlp.fc1")
    second = ops.tanh(layer)
    last = ops.multiply(second, ops.constant(np.float32(0.5)))
    pooled = ops.reduce_mean(second, ops.constant(1))
    hidden = {"hidden_states.0": words, "hidden_states.1": first, "hidden_states.2": second}
    named = (
        {"text_embeds": pooled, "last_hidden_state": last}
        if projection
        else {"last_hidden_state": last, "pooler_output": pooled}
    )
    net.save({**named, **hidden}, [ids], folder)
    (folder / "config.json").write_text(
        json.dumps({"max_position_embeddings": LENGTH, "num_hidden_layers": 2})
    )


def write_unet(
    package: Any, folder: Path, channels: int = LATENTS, condition: int = 0, xl: bool = False
) -> None:
    """A network of two convolutions, moved by the time, the text, and the other conditions."""
    net = Ops(package, 3 + channels + condition + xl)
    ops, width = net.ops, WIDTH * (2 if xl else 1)
    sample = net.parameter("sample", [-1, channels, -1, -1])
    time = net.parameter("timestep", [-1], np.int64)
    text = net.parameter("encoder_hidden_states", [-1, -1, width])
    inputs = [sample, time, text]
    steps = ops.multiply(
        ops.unsqueeze(ops.convert(time, np.float32), ops.constant(1)), net.weights(1, WIDTH, scale=0.01)
    )
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = net.multiply(ops.reduce_mean(text, ops.constant(1)), width, WIDTH, name)
    moved = ops.add(ops.sin(steps), layer)
    conditions = (
        {"timestep_cond": condition} if condition else {"text_embeds": WIDTH, "time_ids": 6} if xl else {}
    )
    for name, size in conditions.items():
        inputs.append(net.parameter(name, [-1, size]))
        scale = 0.02 if name == "time_ids" else 1.0
        moved = ops.add(moved, ops.matmul(inputs[-1], net.weights(size, WIDTH, scale=scale), False, False))
    features = ops.tanh(ops.add(net.convolve(sample, channels, WIDTH), net.spread(moved)))
    net.save({"out_sample": net.convolve(features, WIDTH, LATENTS)}, inputs, folder)
    config: dict[str, Any] = {
        "in_channels": channels,
        "sample_size": SIZE,
        "time_cond_proj_dim": condition or None,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_autoencoder(package: Any, folder: Path) -> None:
    """An encoder and a decoder between pixels and latents of half their size."""
    net = Ops(package, 17)
    ops = net.ops
    image = net.parameter("sample", [-1, 3, -1, -1])
    moments = net.convolve(image, 3, 2 * LATENTS, stride=2)
    net.save({"latent_parameters": moments}, [image], folder / "vae_encoder")
    latent = net.parameter("latent_sample", [-1, LATENTS, -1, -1])
    features = ops.multiply(net.convolve(latent, LATENTS, 12), ops.constant(np.float32(0.15)))
    pixels = ops.depth_to_space(ops.tanh(features), "blocks_first", 2)
    net.save({"sample": pixels}, [latent], folder / "vae_decoder")
    config = {
        "block_out_channels": [4, 8],
        "latent_channels": LATENTS,
        "scaling_factor": 0.18215,
        "shift_factor": 0.1,
    }
    for name in ("vae_encoder", "vae_decoder"):
        (folder / name / "config.json").write_text(json.dumps(config))


def write_folder(package: Any, folder: Path, kind: str) -> Path:
    """A pipeline's folder: "sd", "lcm", "inpaint" (an UNet that takes the mask), or "xl"."""
    names = {"sd": "StableDiffusionPipeline", "lcm": "LatentConsistencyModelPipeline",
             "inpaint": "StableDiffusionInpaintPipeline", "xl": "StableDiffusionXLPipeline"}  # fmt: skip
    index: dict[str, Any] = {"_class_name": names[kind], "text_encoder": ["transformers", "CLIPTextModel"],
                             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}  # fmt: skip
    write_encoder(package, folder / "text_encoder", 5)
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    if kind == "xl":
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "force_zeros_for_empty_prompt": True,
        }
        write_encoder(package, folder / "text_encoder_2", 6, projection=True)
        shutil.copytree(TOKENIZER, folder / "tokenizer_2")
    channels = 2 * LATENTS + 1 if kind == "inpaint" else LATENTS
    write_unet(package, folder / "unet", channels, 6 if kind == "lcm" else 0, kind == "xl")
    write_autoencoder(package, folder)
    (folder / "model_index.json").write_text(json.dumps(index))
    scheduler = {"sd": "pndm", "lcm": "lcm", "inpaint": "ddim", "xl": "euler"}[kind]
    write_scheduler(folder / "scheduler" / "scheduler_config.json", scheduler)
    return folder


def write_scheduler(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**BETAS, **SCHEDULERS[name]}))
    return path


def picture(ov: Any, height: int, width: int, channels: int = 3, seed: int = 1) -> Any:
    """A smooth random image [1, height, width, channels] in u8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (1, 3, 3, channels)).astype(np.float64)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    share = (np.arange(height)[:, None, None] * 2 / height) % 1
    smooth = coarse[:, rows][:, :, columns] * (1 - share) + coarse[:, rows + 1][:, :, columns] * share
    return ov.Tensor(np.ascontiguousarray(smooth.astype(np.uint8)))


def array_of(tensor: Any) -> np.ndarray:
    return np.array(tensor.data)


def value_of(run: Callable[[], Any]) -> np.ndarray:
    """The array of a program, or the class of its error."""
    try:
        value = run()
    except Exception as error:
        name = "RuntimeError" if isinstance(error, RuntimeError) else type(error).__name__
        return np.array(f"error: {name}")
    return np.array(value)


#: Keywords of Text2ImagePipeline.generate.
TEXT_CASES: tuple[dict[str, Any], ...] = (
    {}, {"rng_seed": 7}, {"num_inference_steps": 1}, {"num_inference_steps": 2}, {"num_inference_steps": 9}, {"guidance_scale": 1.0},
    {"guidance_scale": 3.5, "negative_prompt": "numbers"}, {"height": 24, "width": 8}, {"height": -1, "width": -1}, {"num_images_per_prompt": 3},
    {"num_images_per_prompt": 2, "guidance_scale": 0.5, "width": 24}, {"num_inference_steps": "3"}, {"num_inference_steps": 2.7}, {"no_such_name": 3},
    {"num_inference_steps": None}, {"guidance_scale": 1.0, "negative_prompt": "x"}, {"height": 15}, {"strength": 0.5}, {"prompt_2": "a"},
     {"negative_prompt_2": "a"}, {"negative_prompt_3": "a"}, {"prompt_3": "a"},
    {"num_images_per_prompt": "x"}, {"rng_seed": 2**33 + 5}, {"max_sequence_length": 9}, {"height": 8.5, "width": "16"}, {"taylorseer_config": None},
)  # fmt: skip
IMAGE_CASES: tuple[dict[str, Any], ...] = (
    {}, {"strength": 1.0}, {"strength": 0.25}, {"strength": 0.1}, {"strength": 1.5}, {"height": 8, "width": 24}, {"num_images_per_prompt": 2},
    {"guidance_scale": 1.0, "rng_seed": 3}, {"num_inference_steps": 7, "strength": 0.6},
)  # fmt: skip
PROMPT = "the weather is not there, hello world. other words"

Program = tuple[str, Callable[[], Any]]


def is_same(value: np.ndarray, expected: Any, tolerance: float) -> bool:
    """Pixels may differ by one level, where a fraction is near a half; other numbers by `tolerance`."""
    if value.dtype.kind == "U" or isinstance(expected, str):
        return str(value) == expected
    if value.shape != expected.shape:
        return False
    if value.dtype == np.uint8:
        return bool((np.abs(value.astype(int) - expected.astype(int)) <= 1).all())
    return bool(np.allclose(value, expected, rtol=tolerance, atol=tolerance))


def make_generator(genai: Any, name: str) -> Any:
    class Numbers(genai.Generator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def next(self) -> float:
            self.count += 1
            return float(np.sin(self.count * 1.7) * 1.5)

        def seed(self, new_seed: int) -> None:
            self.count = new_seed

    return {
        "cpp": lambda: genai.CppStdGenerator(9),
        "torch": lambda: genai.TorchGenerator(9),
        "python": Numbers,
    }[name]()


def generators(genai: Any) -> Iterator[Program]:
    shape = image_package(genai).Shape

    def draw(seed: int) -> Any:
        generator = genai.CppStdGenerator(seed)
        numbers = [np.array([generator.next() for _ in range(3)])]
        numbers.append(array_of(generator.randn_tensor(shape([2, 5]))).reshape(-1))
        generator.seed(2**32 + 3)
        return np.concatenate(
            [*numbers, [generator.next()], array_of(generator.randn_tensor(shape([40, 20]))).reshape(-1)]
        )

    for seed in (0, 42, 2**32 - 1):
        yield f"numbers {seed}", lambda seed=seed: draw(seed)
    yield "negative seed", lambda: genai.CppStdGenerator(-1)
    yield "large seed", lambda: genai.CppStdGenerator(2**32)
    yield "torch numbers", lambda: array_of(genai.TorchGenerator(5).randn_tensor(shape([3, 30])))


def texts(genai: Any, folder: Path) -> Iterator[Program]:
    for kind in ("sd", "lcm", "xl"):
        pipe = genai.Text2ImagePipeline(folder / kind, "CPU", **EXACT)
        for case in TEXT_CASES:
            options = {"num_inference_steps": 4, **case}
            yield f"text {kind} {case}", lambda p=pipe, o=options: array_of(p.generate(PROMPT, **o))
    pipe = genai.Text2ImagePipeline(folder / "xl", "CPU", **EXACT)
    pndm = genai.Text2ImagePipeline(folder / "sd", "CPU", **EXACT)
    # the real package ends the process with other schedulers
    for count in (0, 1001):
        yield f"text steps {count}", lambda n=count: array_of(pndm.generate(PROMPT, num_inference_steps=n))
    for options in (
        {"prompt_2": "numbers", "negative_prompt": "other"},
        {"prompt_2": ""},
        {"negative_prompt": "", "negative_prompt_2": "hello", "num_images_per_prompt": 2},
    ):
        yield (
            f"text xl {options}",
            lambda o=options: array_of(pipe.generate(PROMPT, num_inference_steps=3, **o)),
        )


def schedules(genai: Any, folder: Path) -> Iterator[Program]:
    pipe = genai.Text2ImagePipeline(folder / "sd", "CPU", **EXACT)
    image = genai.Image2ImagePipeline(folder / "sd", "CPU", **EXACT)

    def run(name: str, steps: int, strength: float, guidance: float) -> Any:
        path = write_scheduler(folder / "schedules" / f"{name}.json", name)
        used = pipe if strength == 1 else image
        used.set_scheduler(genai.Scheduler.from_config(path))
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "strength": strength}
        first = [] if strength == 1 else [picture(image_package(genai), 20, 16)]
        return array_of(used.generate(PROMPT, *first, **options))

    for name, case in itertools.product(
        SCHEDULERS, ((1, 1.0, 7.5), (5, 1.0, 2.0), (20, 1.0, 7.5), (6, 0.5, 7.5), (7, 0.9, 1.0))
    ):
        yield f"schedule {name} {case}", lambda n=name, c=case: run(n, *c)
    for config in ({"_class_name": "DDIMScheduler"}, {"_class_name": "PNDMScheduler"}, {"_class_name": "Other"}, {}, {"_class_name": "DDIMScheduler", "prediction_type": "x"},
                   {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"}):  # fmt: skip

        def refuse(config: dict[str, Any] = config) -> Any:
            path = folder / "config.json"
            path.write_text(json.dumps(config))
            pipe.set_scheduler(genai.Scheduler.from_config(path))
            return array_of(pipe.generate(PROMPT, num_inference_steps=2))

        yield f"scheduler {config}", refuse
    ddim, euler = genai.Scheduler.Type.DDIM, genai.Scheduler.Type.EULER_DISCRETE
    for kind in (ddim, euler):

        def change(kind: Any = kind) -> Any:
            pipe.set_scheduler(
                genai.Scheduler.from_config(write_scheduler(folder / "pndm.json", "ddim"), kind)
            )
            return array_of(pipe.generate(PROMPT, num_inference_steps=3))

        yield f"scheduler type {kind.name}", change


def image_package(genai: Any) -> Any:
    """The package of tensors that belongs to a package of pipelines."""
    import importlib

    return importlib.import_module("ovjit" if genai.__name__.startswith("ovjit") else "openvino")


def pictures(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    for kind in ("sd", "lcm", "xl"):
        pipe = genai.Image2ImagePipeline(folder / kind, "CPU", **EXACT)
        for case in IMAGE_CASES:
            options = {"num_inference_steps": 5, **case}
            yield (
                f"image {kind} {case}",
                lambda p=pipe, o=options: array_of(p.generate(PROMPT, picture(ov, 21, 18), **o)),
            )
    pipe = genai.Image2ImagePipeline(folder / "sd", "CPU", **EXACT)
    for name in ("cpp", "torch", "python"):
        yield (
            f"generator {name}",
            lambda n=name: array_of(
                pipe.generate(
                    "a", picture(ov, 16, 16), generator=make_generator(genai, n), num_inference_steps=4
                )
            ),
        )
    for kind, case in itertools.product(
        ("sd", "inpaint", "lcm", "xl"),
        (
            {},
            {"strength": 0.7},
            {"num_images_per_prompt": 2},
            {"height": 8, "width": 24, "guidance_scale": 1.0},
        ),
    ):
        if not case:
            pipe = genai.InpaintingPipeline(folder / kind, "CPU", **EXACT)
        options = {"num_inference_steps": 4, **case}
        masks = (picture(ov, 30, 20, 3, 5), picture(ov, 16, 16, 1, 6))
        for mask in masks:
            yield (
                f"inpainting {kind} {case} {mask.shape[3]}",
                lambda p=pipe, o=options, m=mask: array_of(p.generate(PROMPT, picture(ov, 21, 18), m, **o)),
            )


def build_parts(genai: Any, folder: Path, with_encoder: bool = True) -> list[Any]:
    scheduler = genai.Scheduler.from_config(folder / "scheduler" / "scheduler_config.json")
    paths = [folder / "vae_encoder", folder / "vae_decoder"]
    return [scheduler, genai.CLIPTextModel(folder / "text_encoder", "CPU", **EXACT), genai.UNet2DConditionModel(folder / "unet", "CPU", **EXACT),
            genai.AutoencoderKL(*(paths if with_encoder else paths[1:]), device="CPU", **EXACT)]  # fmt: skip


def parts(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    sd, lcm = folder / "sd", folder / "lcm"
    text, image, paint = genai.Text2ImagePipeline, genai.Image2ImagePipeline, genai.InpaintingPipeline

    def run(pipe: Any, *others: Any, **options: Any) -> Any:
        return array_of(pipe.generate(PROMPT, *others, num_inference_steps=3, **options))

    first, mask = picture(ov, 16, 16), picture(ov, 16, 16, 3, 5)
    yield "static text", lambda: run(text.stable_diffusion(*build_parts(genai, sd, False)))
    yield "static image", lambda: run(image.stable_diffusion(*build_parts(genai, sd)), first)
    yield (
        "static inpainting",
        lambda: run(paint.latent_consistency_model(*build_parts(genai, lcm)), first, mask),
    )
    yield "no encoder", lambda: run(image.stable_diffusion(*build_parts(genai, sd, False)), first)
    yield "text of image", lambda: run(text(image(sd, "CPU", **EXACT)))
    yield "image of inpainting", lambda: run(image(paint(sd, "CPU", **EXACT)), first)
    yield "text of inpainting", lambda: run(text(paint(folder / "xl", "CPU", **EXACT)))
    yield "image of inpainting model", lambda: run(image(paint(folder / "inpaint", "CPU", **EXACT)), first)
    yield "image of text", lambda: image(text(sd, "CPU", **EXACT))
    yield "text of inpainting folder", lambda: text(folder / "inpaint", "CPU")
    yield "missing folder", lambda: text(folder / "nowhere", "CPU")
    yield "not compiled", lambda: run(text(sd))
    yield "array as image", lambda: run(image(sd, "CPU"), np.zeros((1, 16, 16, 3), np.uint8))
    yield "number as prompt", lambda: text(sd, "CPU").generate(3)

    def reshape(count: int, height: int, width: int, scale: float, **options: Any) -> Any:
        pipe = text(sd)
        pipe.reshape(count, height, width, scale)
        pipe.compile("CPU", **EXACT)
        return run(pipe, **options)

    yield "reshape", lambda: reshape(2, 8, 24, 3.0)
    yield "reshape alone", lambda: reshape(1, 16, 16, 1.0)
    yield "reshape to odd", lambda: reshape(1, 15, 16, 1.0)
    yield "reshape, other count", lambda: reshape(2, 8, 24, 3.0, num_images_per_prompt=1)
    yield (
        "compile for three",
        lambda: [pipe := image(folder / "xl"), pipe.compile("CPU", "CPU", "CPU", **EXACT), run(pipe, first)][
            -1
        ],
    )
    yield "compile twice", lambda: text(sd, "CPU").compile("CPU")
    yield "reshape late", lambda: text(sd, "CPU").reshape(1, 8, 8, 1.0)

    def stop(last: int) -> Any:
        steps: list[Any] = []

        def callback(step: int, count: int, latent: Any) -> bool:
            steps.append([step, count, *latent.shape])
            return step == last

        pipe = text(lcm, "CPU", **EXACT)
        shape = list(pipe.generate(PROMPT, num_inference_steps=4, callback=callback).shape)
        return [len(shape), len(steps[:1]), *steps[0]]

    yield "callback", lambda: stop(9)
    yield "callback stops", lambda: stop(0)
    encoder = genai.CLIPTextModel(sd / "text_encoder", "CPU", **EXACT)
    yield "encoder", lambda: array_of(encoder.infer("hello world", "numbers", True))
    yield "encoder alone", lambda: array_of(encoder.infer("hello world", "numbers", False))
    yield (
        "encoder outputs",
        lambda: [encoder.infer("is it so?", "", False), array_of(encoder.get_output_tensor(2))][1],
    )
    yield (
        "encoder config",
        lambda: [encoder.get_config().max_position_embeddings, encoder.get_config().num_hidden_layers],
    )
    vae = genai.AutoencoderKL(sd / "vae_encoder", sd / "vae_decoder", "CPU", **EXACT)
    pixels = ov.Tensor(np.sin(np.arange(3 * 64, dtype=np.float32)).reshape(1, 3, 8, 8))
    yield "vae mean", lambda: array_of(vae.encode(pixels))
    yield "vae sample", lambda: array_of(vae.encode(pixels, genai.CppStdGenerator(3)))
    yield (
        "vae decode",
        lambda: array_of(
            vae.decode(ov.Tensor(np.cos(np.arange(4 * 16, dtype=np.float32)).reshape(1, 4, 4, 4)))
        ),
    )
    yield "vae factor", lambda: vae.get_vae_scale_factor()
    unet = genai.UNet2DConditionModel(sd / "unet", "CPU", **EXACT)
    yield "guidance", lambda: [unet.do_classifier_free_guidance(scale) for scale in (0.5, 1.0, 1.1)]
    yield "unknown state", lambda: unet.set_hidden_states("nowhere", pixels)
    yield "another", lambda: genai.UNet2DConditionModel(unet).get_config().sample_size

    def configure(**fields: Any) -> Any:
        pipe = text(sd, "CPU", **EXACT)
        config = pipe.get_generation_config()
        for name, value in fields.items():
            setattr(config, name, value)
        pipe.set_generation_config(config)
        return np.concatenate([run(pipe), run(pipe)])

    yield "config", lambda: configure(height=8, guidance_scale=2.0, rng_seed=5)
    yield "config generator", lambda: configure(generator=genai.CppStdGenerator(4))
    yield "config contradicts", lambda: configure(guidance_scale=1.0, negative_prompt="x")
    yield "config attribute", lambda: configure(no_such_name=1)
    yield "config type", lambda: configure(height="8")


GROUPS: dict[str, Callable[[Any, Path], Iterator[Program]]] = {
    "generators": lambda genai, folder: generators(genai), "texts": texts, "schedules": schedules, "pictures": pictures, "parts": parts,
}  # fmt: skip


def write_folders(package: Any, folder: Path) -> Path:
    for kind in ("sd", "lcm", "inpaint", "xl"):
        write_folder(package, folder / kind, kind)
    return folder


def write_results(path: str, results: dict[str, np.ndarray]) -> None:
    """Results in one archive: texts of errors, and arrays of u8 and of f32 one after another."""
    index, flat = {}, {"u1": [np.zeros(0)], "f4": [np.zeros(0)]}
    for name, value in results.items():
        kind = "u1" if value.dtype == np.uint8 else "f4"
        index[name] = str(value) if value.dtype.kind == "U" else [kind, *value.shape]
        if value.dtype.kind != "U":
            flat[kind].append(value.reshape(-1))
    np.savez_compressed(
        path,
        index=np.array(json.dumps(index)),
        **{kind: np.concatenate(arrays).astype(kind) for kind, arrays in flat.items()},
    )


def read_results(path: Path) -> dict[str, Any]:
    """The texts and arrays that `write_results` wrote."""
    archive = np.load(path)
    offsets, results = {"u1": 0, "f4": 0}, {}
    for name, item in json.loads(str(archive["index"])).items():
        results[name] = item
        if isinstance(item, list):
            kind, shape = item[0], item[1:]
            begin = offsets[kind]
            offsets[kind] += int(np.prod(shape))
            results[name] = archive[kind][begin : offsets[kind]].reshape(shape)
    return results


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        folder = write_folders(openvino, Path(name))
        programs = [program for group in GROUPS.values() for program in group(openvino_genai, folder)]
        write_results(sys.argv[1], {title: value_of(run) for title, run in programs})
