"""Stable Diffusion and latent consistency models: the loop that takes noise from latents."""

from __future__ import annotations

import copy
import enum
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.figures import measure
from ovjit.genai.images.autoencoder import AutoencoderKL, check_divisible
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.generators import draw_noise
from ovjit.genai.images.metrics import ImageGenerationPerfMetrics, measure_part
from ovjit.genai.images.pixels import binarize, normalize, resize, shrink
from ovjit.genai.images.schedulers import Scheduler
from ovjit.genai.images.text_encoders import CLIPTextModel
from ovjit.genai.images.unet import UNet2DConditionModel


class Task(enum.Enum):
    """The kinds of pipelines, by their first input; the names of their classes."""

    TEXT = "Text2ImagePipeline"
    IMAGE = "Image2ImagePipeline"
    INPAINTING = "InpaintingPipeline"


class Latents:
    """The pictures of one call: the noisy ones, and what inpainting blends them with."""

    def __init__(self, values: np.ndarray, noise: np.ndarray, image: np.ndarray | None):
        #: f32 [n, channels, height, width].
        self.values, self.noise = values, noise
        #: The first picture's latent [1, channels, height, width], or None.
        self.image = image
        #: The mask [n, 1, height, width] and the latent of what it leaves, or None.
        self.mask: np.ndarray | None = None
        self.masked_image: np.ndarray | None = None


def embed_guidance(scale: float, size: int) -> np.ndarray:
    """The guidance scale as sines and cosines f32 [1, size], as latent consistency models take it."""
    half = size // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000.0) / (half - 1)))
    angles = rates * np.float32(scale * 1000)
    embedding = np.zeros((1, size), np.float32)
    embedding[0, :half], embedding[0, half : 2 * half] = np.sin(angles), np.cos(angles)
    return embedding


class StableDiffusion:
    """A text encoder, an UNet and an autoencoder for a task."""

    title = "Stable Diffusion"
    #: The folder and the class of each network, with its name in model_index.json.
    _networks: ClassVar[dict[str, Any]] = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}

    def __init__(self, task: Task, scheduler: Scheduler, vae: AutoencoderKL, **networks: Any):
        self.task, self.vae, self.load_time = task, vae, 0.0
        self.set_scheduler(scheduler)
        self.text_encoder, self.unet = networks["text_encoder"], networks["unet"]
        self.networks = networks
        self.metrics = ImageGenerationPerfMetrics()
        self.config = self._default_config()

    @classmethod
    def load(
        cls, task: Task, folder: Path, index: Mapping[str, Any], device: str | None, properties: Any
    ) -> StableDiffusion:
        """The pipeline of a folder. RuntimeError if it has networks of other classes."""
        scheduler = Scheduler.from_config(folder / "scheduler" / "scheduler_config.json")
        paths = [folder / "vae_encoder", folder / "vae_decoder"][task is Task.TEXT :]
        named: dict[str, Any] = {"device": device} if device is not None else {}
        networks = {}
        blobs = properties.pop("blob_path", None)
        for name, kind in {**cls._networks, "vae": AutoencoderKL}.items():
            class_name = (index.get(name) or [None, None])[1]
            if class_name != kind.__name__:
                raise OvjitError(f"Unsupported {class_name!r} as {name}: it should be {kind.__name__}")
            options = dict(properties)
            if blobs is not None:
                options["blob_path"] = Path(os.fsdecode(blobs)) / ("" if name == "vae" else name)
            networks[name] = kind(*(paths if name == "vae" else [folder / name]), **named, **options)
        return cls(task, scheduler, **networks)

    def copy_for(self, task: Task) -> StableDiffusion:
        """The same networks for another task. RuntimeError if the UNet is one of inpainting."""
        if self._takes_mask():
            raise OvjitError(f"Cannot create {task.value!r} from a pipeline with an inpainting model")
        networks = {name: type(network)(network) for name, network in self.networks.items()}
        return type(self)(task, copy.copy(self.scheduler), AutoencoderKL(self.vae), **networks)

    def set_scheduler(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"scheduler should be a Scheduler, not {type(scheduler).__name__}")
        self.scheduler = scheduler

    # -- settings

    def _takes_mask(self) -> bool:
        """True for an UNet that takes latents, a mask, and the masked picture's latents."""
        return bool(self.unet.get_config().in_channels == 2 * self.vae.get_config().latent_channels + 1)

    def _is_lcm(self) -> bool:
        return bool(self.unet.get_config().time_cond_proj_dim >= 0)

    def _default_size(self) -> int:
        return int(self.unet.get_config().sample_size * self.vae.get_vae_scale_factor())

    def _default_config(self) -> ImageGenerationConfig:
        config = ImageGenerationConfig()
        if self.task is not Task.IMAGE:
            config.height = config.width = self._default_size()
        config.guidance_scale, config.num_inference_steps = (8.5, 4) if self._is_lcm() else (7.5, 50)
        config.strength = 0.8 if self.task is Task.IMAGE else 1.0
        return config

    def reshape(self, count: int, height: int, width: int, guidance_scale: float) -> None:
        """Fix the number of pictures, their pixels, and the rows that the guidance needs."""
        check_divisible(height, width, self.vae.get_vae_scale_factor())
        rows = self._count_rows(guidance_scale)
        for network in self.networks.values():
            if network is not self.unet:
                network.reshape(rows)
        length = self.text_encoder.get_config().max_position_embeddings
        self.unet.reshape(count * rows, height, width, length)
        self.vae.reshape(count, height, width)

    def compile(self, devices: Sequence[str], properties: Mapping[str, Any]) -> None:
        """Compile for the devices of the text encoders, of the UNet, and of the autoencoder."""
        text_device, denoise_device, vae_device = devices
        for network in self.networks.values():
            network.compile(denoise_device if network is self.unet else text_device, **properties)
        self.vae.compile(vae_device, **properties)

    def export_model(self, folder: Path) -> None:
        for name, network in self.networks.items():
            network.export_model(folder / name)
        self.vae.export_model(folder)

    def _check_config(self, config: ImageGenerationConfig) -> None:
        """RuntimeError for sizes, strengths and prompts that the model does not take."""
        check_divisible(config.height, config.width, self.vae.get_vae_scale_factor())
        title = "Latent Consistency Model" if self._is_lcm() else self.title
        for name in self._unused_prompts():
            if getattr(config, name) is not None:
                raise OvjitError(f"{name} is not used by {title}: leave it out")
        self._check_strength(config)

    def _unused_prompts(self) -> list[str]:
        others = ["prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3"]
        return [*others, "negative_prompt"] if self._is_lcm() else others

    def _check_strength(self, config: ImageGenerationConfig) -> None:
        if self.task is Task.TEXT and config.strength != 1:
            raise OvjitError("'Strength' generation parameter must be 1.0f for Text 2 image pipeline")
        if not 0 <= config.strength <= 1:
            raise OvjitError("'Strength' generation parameter must be within [0, 1] range")

    def _choose_sizes(self, config: ImageGenerationConfig, image: np.ndarray | None) -> None:
        """Fill in negative sizes: those of the first picture, or of the model."""
        for name, axis in (("height", 1), ("width", 2)):
            if getattr(config, name) < 0:
                size = self._default_size()
                if self.task is Task.IMAGE and image is not None:
                    size = image.shape[axis] - image.shape[axis] % self.vae.get_vae_scale_factor()
                setattr(config, name, size)

    # -- generation

    def generate(
        self, prompt: str, image: np.ndarray | None, mask: np.ndarray | None, keywords: dict[str, Any]
    ) -> Tensor:
        """Pictures u8 [n, height, width, 3]; an empty Tensor if the callback stops."""
        self.metrics = metrics = ImageGenerationPerfMetrics()
        metrics._load_time = self.load_time
        callback = keywords.pop("callback", None)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback should be a function, not {type(callback).__name__}")
        config = copy.copy(self.config)
        config.update_generation_config(**keywords)
        self._choose_sizes(config, image)
        self._check_config(config)
        start = time.perf_counter()
        self.scheduler.set_timesteps(config.num_inference_steps, config.strength)
        self._encode_prompt(prompt, config)
        latents = self._prepare(config, image, mask)
        denoised = self._denoise(config, latents, callback)
        pictures = Tensor(np.zeros((), np.uint8))
        if denoised is not None:
            with measure_part(metrics._vae, "decoder"):
                pictures = self.vae.decode(Tensor(denoised))
        metrics._generate_duration = (time.perf_counter() - start) * 1000
        return pictures

    def _count_rows(self, guidance_scale: float) -> int:
        """2 if each picture is denoised with and without the prompt, else 1."""
        return 1 + self.unet.do_classifier_free_guidance(guidance_scale)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        has_negative = self._count_rows(config.guidance_scale) > 1
        with measure_part(self.metrics._encoders, "text_encoder"):
            states = self.text_encoder.infer(prompt, config.negative_prompt or "", has_negative)
        self._set_states(config, encoder_hidden_states=states.data)

    def _set_states(self, config: ImageGenerationConfig, **states: np.ndarray) -> None:
        """Give the UNet the states [rows, ...], each row for all pictures."""
        if self._is_lcm():
            size = self.unet.get_config().time_cond_proj_dim
            states["timestep_cond"] = embed_guidance(config.guidance_scale - 1, size)
        for name, values in states.items():
            repeated = np.repeat(values, config.num_images_per_prompt, 0)
            self.unet.set_hidden_states(name, Tensor(np.ascontiguousarray(repeated)))

    def _prepare(
        self, config: ImageGenerationConfig, image: np.ndarray | None, mask: np.ndarray | None
    ) -> Latents:
        """The latents that the loop begins with."""
        factor, count = self.vae.get_vae_scale_factor(), config.num_images_per_prompt
        sizes = (config.height // factor, config.width // factor)
        shape = (count, self.vae.get_config().latent_channels, *sizes)
        is_noise = self.task is Task.TEXT or (self.task is Task.INPAINTING and config.strength == 1)
        pixels = None if image is None else normalize(resize(image, config.height, config.width))
        encoded = None
        if pixels is not None and not (is_noise and self._takes_mask()):
            encoded = self._encode_picture(pixels, config)
        noise = draw_noise(config.generator, shape)
        if is_noise or encoded is None:
            values = noise * np.float32(self.scheduler.init_noise_sigma)
        else:
            first = np.repeat(encoded, count, 0)
            values = self.scheduler.add_noise(first, noise, int(self.scheduler.times[0]))
        latents = Latents(values, noise, encoded)
        if mask is not None and pixels is not None:
            self._prepare_mask(config, latents, mask, pixels)
        return latents

    def _encode_picture(self, pixels: np.ndarray, config: ImageGenerationConfig) -> np.ndarray:
        with measure_part(self.metrics._vae, "encoder"):
            return np.array(self.vae.encode(Tensor(pixels), config.generator).data)

    def _prepare_mask(
        self, config: ImageGenerationConfig, latents: Latents, mask: np.ndarray, pixels: np.ndarray
    ) -> None:
        full = binarize(resize(mask, config.height, config.width))
        count = config.num_images_per_prompt * self._count_rows(config.guidance_scale)
        latents.mask = np.repeat(shrink(full, *latents.values.shape[2:]), count, 0)
        if self._takes_mask():
            masked = np.where(full < 0.5, pixels, np.float32(0))
            latents.masked_image = np.repeat(self._encode_picture(masked, config), count, 0)
        elif config.num_images_per_prompt != 1:
            raise OvjitError(
                "inpainting without an inpainting model makes one picture: set num_images_per_prompt=1"
            )

    def _denoise(self, config: ImageGenerationConfig, latents: Latents, callback: Any) -> np.ndarray | None:
        """Run all steps. Returns the latents without noise, or None if the callback has stopped."""
        times, raw = self.scheduler.times, self.metrics.raw_metrics
        denoised = latents.values
        for index in range(len(times)):
            with measure(raw.iteration_durations):
                noise = self._predict_noise(config, latents, index)
                latents.values, picture = self.scheduler.step(noise, latents.values, index, config.generator)
                if latents.mask is not None and latents.masked_image is None:
                    latents.values = self._blend(latents, index)
                denoised = latents.values if picture is None else picture
                if callback is not None and callback(index, len(times), Tensor(denoised)):
                    return None
        return denoised

    def _predict_noise(self, config: ImageGenerationConfig, latents: Latents, index: int) -> np.ndarray:
        rows = self._count_rows(config.guidance_scale)
        sample = self.scheduler.scale_model_input(np.concatenate([latents.values] * rows), index)
        if latents.mask is not None and latents.masked_image is not None:
            sample = np.concatenate((sample, latents.mask, latents.masked_image), 1)
        moment = Tensor(self.scheduler.times[index : index + 1].astype(np.int64))
        with measure(self.metrics.raw_metrics.unet_inference_durations):
            noise: np.ndarray = self.unet.infer(Tensor(np.ascontiguousarray(sample)), moment).data
        if rows == 1:
            return noise
        without, guided = np.split(noise, 2)
        return without + np.float32(config.guidance_scale) * (guided - without)

    def _blend(self, latents: Latents, index: int) -> np.ndarray:
        """The first picture, as noisy as the latents, where the mask is 0."""
        assert latents.image is not None and latents.mask is not None
        image, times = latents.image, self.scheduler.times
        if index < len(times) - 1:
            image = self.scheduler.add_noise(image, latents.noise, int(times[index + 1]))
        mask = latents.mask[:1]
        return (1 - mask) * image + mask * latents.values
