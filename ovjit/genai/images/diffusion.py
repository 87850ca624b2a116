"""The loop that takes noise from latents, and what all families of pictures share."""

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
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.figures import measure
from ovjit.genai.images.autoencoder import AutoencoderKL, check_divisible
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.generators import draw_noise
from ovjit.genai.images.metrics import ImageGenerationPerfMetrics, measure_part
from ovjit.genai.images.pixels import binarize, normalize, resize, shrink
from ovjit.genai.images.schedulers import Scheduler


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
        #: The mask [1, 1, height, width] of what is made anew, or None.
        self.mask: np.ndarray | None = None
        #: More channels for an inpainting model [rows, channels, height, width], or None.
        self.condition: np.ndarray | None = None


class Diffusion:
    """The networks of a family for a task."""

    title = ""
    #: The folder and the class of each network, with its name in model_index.json. The denoiser is the last.
    _networks: ClassVar[dict[str, Any]] = {}
    #: Other names of classes in model_index.json -> those of ours.
    _aliases: ClassVar[dict[str, str]] = {}
    #: Networks that a folder may lack.
    _optional: ClassVar[tuple[str, ...]] = ()
    #: The list of the denoiser's durations in the raw metrics.
    _durations = "unet_inference_durations"
    #: The class of the autoencoder, and that of the figures of a call.
    _autoencoder: ClassVar[Any] = AutoencoderKL
    _metrics: ClassVar[Any] = ImageGenerationPerfMetrics
    #: False if adapters change the denoiser alone.
    _adapts_text = True
    #: False if a negative size is that of the model, whatever the first picture has.
    _follows_picture = True
    #: The axis of latents that a condition extends.
    _condition_axis = 1
    #: True if the denoiser runs once for each prompt, not once with rows for all.
    _runs_apart = False
    #: True if the noise is drawn before that of the first picture's latents.
    _draws_noise_first = False
    #: The guidance scale above which each picture is denoised with and without the prompt.
    _guided_above = 1.0
    #: The fields of prompts that the family does not take.
    _unused_prompts: Sequence[str] = ()
    #: Fields of the default configuration that are not those of the base: a value, or one for each task.
    _settings: ClassVar[dict[str, Any]] = {}
    #: Attributes that `_read_folder` sets.
    _from_folder: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: Task, scheduler: Scheduler, vae: Any, **networks: Any):
        self.task, self.vae, self.load_time = task, vae, 0.0
        self.set_scheduler(scheduler)
        self.networks, self.denoiser = networks, networks[list(self._networks)[-1]]
        self.metrics = self._metrics()
        self.config = self._default_config()

    @classmethod
    def load(
        cls, task: Task, folder: Path, index: Mapping[str, Any], device: str | None, properties: Any
    ) -> Diffusion:
        """The pipeline of a folder. RuntimeError if it has networks of other classes."""
        scheduler = Scheduler.from_config(folder / "scheduler" / "scheduler_config.json")
        paths = [folder / "vae_encoder", folder / "vae_decoder"][task is Task.TEXT :]
        named: dict[str, Any] = {"device": device} if device is not None else {}
        networks = {}
        blobs = properties.pop("blob_path", None)
        for name, kind in {**cls._networks, "vae": cls._autoencoder}.items():
            class_name = (index.get(name) or [None, None])[1]
            class_name = cls._aliases.get(class_name, class_name)
            if class_name is None and name in cls._optional:
                continue
            if class_name != kind.__name__:
                raise OvjitError(f"Unsupported {class_name!r} as {name}: it should be {kind.__name__}")
            options = cls._select_properties(name, properties)
            if blobs is not None:
                options["blob_path"] = Path(os.fsdecode(blobs)) / ("" if name == "vae" else name)
            networks[name] = kind(*(paths if name == "vae" else [folder / name]), **named, **options)
        pipeline = cls(task, scheduler, **networks)
        pipeline._read_folder(folder, index)
        pipeline.config.adapters = properties.get("adapters")
        return pipeline

    def _read_folder(self, folder: Path, index: Mapping[str, Any]) -> None:
        """Set the attributes that files of a folder decide. `index`: its model_index.json."""

    @classmethod
    def _select_properties(cls, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The properties of a network: `adapters` for those that are adapted."""
        is_adapted = name == list(cls._networks)[-1] or (cls._adapts_text and name in cls._networks)
        return {key: value for key, value in properties.items() if is_adapted or key != "adapters"}

    def copy_for(self, task: Task) -> Diffusion:
        """The same networks for another task. RuntimeError if the denoiser is one of inpainting."""
        if self._takes_mask():
            raise OvjitError(f"Cannot create {task.value!r} from a pipeline with an inpainting model")
        networks = {name: type(network)(network) for name, network in self.networks.items()}
        copied = type(self)(task, copy.copy(self.scheduler), type(self.vae)(self.vae), **networks)
        for name in self._from_folder:
            setattr(copied, name, getattr(self, name))
        return copied

    def set_scheduler(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"scheduler should be a Scheduler, not {type(scheduler).__name__}")
        self.scheduler = scheduler

    # -- what families differ in

    def _takes_mask(self) -> bool:
        """True for a denoiser that takes the mask and the masked picture's latents."""
        return False

    def _default_size(self) -> int:
        return int(self.denoiser.get_config().sample_size * self.vae.get_vae_scale_factor())

    def _size_factor(self) -> int:
        """The number that the sizes of pictures are multiples of."""
        return self.vae.get_vae_scale_factor()

    def _default_config(self) -> ImageGenerationConfig:
        config = ImageGenerationConfig()
        config.height = config.width = self._default_size()
        for kind in reversed(type(self).__mro__):
            for name, value in vars(kind).get("_settings", {}).items():
                setattr(config, name, value[self.task] if isinstance(value, dict) else value)
        return config

    def _merge_config(self, keywords: dict[str, Any]) -> ImageGenerationConfig:
        """The configuration of a call with these keywords."""
        config = copy.copy(self.config)
        config.update_generation_config(**keywords)
        return config

    def _count_results(self, config: ImageGenerationConfig) -> int:
        """The pictures of a call."""
        return int(config.num_images_per_prompt)

    def _count_rows(self, guidance_scale: float) -> int:
        """2 if each picture is denoised with and without the prompt, else 1."""
        return 1 + (guidance_scale > self._guided_above)

    def _count_tokens(self) -> int:
        """The tokens of a prompt that the denoiser reads."""
        return int(self.config.max_sequence_length)

    def _denoiser_height(self, height: int) -> int:
        """The height of all pictures that the denoiser reads at once, one below the other."""
        return height

    def _reshape_encoders(self, rows: int) -> None:
        for network in self.networks.values():
            if network is not self.denoiser:
                network.reshape(rows)

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        """Encode the prompts, and set the states as the denoiser's inputs."""
        raise NotImplementedError

    def _choose_times(self, config: ImageGenerationConfig) -> None:
        self.scheduler.set_timesteps(config.num_inference_steps, config.strength)

    def _time_of(self, index: int) -> np.ndarray:
        """The time [1] of a step, as the denoiser takes it."""
        return self.scheduler.times[index : index + 1]

    def _begins_with_noise(self, config: ImageGenerationConfig) -> bool:
        """True if nothing of the first picture is in the first latents."""
        return self.task is Task.TEXT or (self.task is Task.INPAINTING and config.strength == 1)

    def _build_condition(self, mask: np.ndarray, masked_image: np.ndarray) -> np.ndarray:
        """The channels of an inpainting model, from a mask [1, 1, height, width] of pixels and latents."""
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Tensor:
        """Pictures of latents without noise."""
        return self.vae.decode(latent)

    # -- settings

    def reshape(self, count: int, height: int, width: int, guidance_scale: float) -> None:
        """Fix the number of pictures, their pixels, and the rows that the guidance needs."""
        check_divisible(height, width, self._size_factor())
        rows = self._count_rows(guidance_scale)
        self._reshape_encoders(rows)
        count_at_once = count if self._runs_apart else count * rows
        self.denoiser.reshape(count_at_once, self._denoiser_height(height), width, self._count_tokens())
        self.vae.reshape(count, height, width)

    def compile(self, devices: Sequence[str], properties: Mapping[str, Any]) -> None:
        """Compile for the devices of the text encoders, of the denoiser, and of the autoencoder."""
        text_device, denoise_device, vae_device = devices
        for name, network in self.networks.items():
            device = denoise_device if network is self.denoiser else text_device
            network.compile(device, **self._select_properties(name, properties))
        self.vae.compile(vae_device, **self._select_properties("vae", properties))
        if "adapters" in properties:
            self.config.adapters = properties["adapters"]

    def export_model(self, folder: Path) -> None:
        for name, network in self.networks.items():
            network.export_model(folder / name)
        self.vae.export_model(folder)

    def _check_config(self, config: ImageGenerationConfig) -> None:
        """RuntimeError for sizes, strengths and prompts that the model does not take."""
        check_divisible(config.height, config.width, self._size_factor())
        for name in self._unused_prompts:
            if getattr(config, name) is not None:
                raise OvjitError(f"{name} is not used by {self.title}: leave it out")
        if self.task is Task.TEXT and config.strength != 1:
            raise OvjitError("'Strength' generation parameter must be 1.0f for Text 2 image pipeline")
        if not 0 <= config.strength <= 1:
            raise OvjitError("'Strength' generation parameter must be within [0, 1] range")

    def _choose_sizes(self, config: ImageGenerationConfig, image: np.ndarray | None) -> None:
        """Fill in negative sizes: those of the first picture, or of the model."""
        for name, axis in (("height", 1), ("width", 2)):
            if getattr(config, name) < 0:
                size = self._default_size()
                if self._follows_picture and self.task is Task.IMAGE and image is not None:
                    size = image.shape[axis] - image.shape[axis] % self._size_factor()
                setattr(config, name, size)

    def _set_adapters(self, config: AdapterConfig | None) -> None:
        for network in self.networks.values() if self._adapts_text else [self.denoiser]:
            network.set_adapters(config)

    # -- generation

    def generate(
        self, prompt: str, image: np.ndarray | None, mask: np.ndarray | None, keywords: dict[str, Any]
    ) -> Tensor:
        """Pictures u8 [n, height, width, 3]; an empty Tensor if the callback stops."""
        self.metrics = metrics = self._metrics()
        metrics._load_time = self.load_time
        callback = keywords.pop("callback", None)
        if callback is not None and not callable(callback):
            raise OvjitError(f"callback should be a function, not {type(callback).__name__}")
        config = self._merge_config(keywords)
        self._choose_sizes(config, image)
        self._check_config(config)
        start = time.perf_counter()
        self._set_adapters(config.adapters)
        self._choose_times(config)
        self._encode_prompt(prompt, config)
        latents = self._prepare(config, image, mask)
        denoised = self._denoise(config, latents, callback)
        pictures = Tensor(np.zeros((), np.uint8))
        if denoised is not None:
            with measure_part(metrics._vae, "decoder"):
                pictures = self.decode(Tensor(denoised))
        metrics._generate_duration = (time.perf_counter() - start) * 1000
        return pictures

    def _list_prompts(self, prompt: str, config: ImageGenerationConfig, count: int) -> list[tuple[str, str]]:
        """(prompt, negative prompt) of each text encoder; one that is missing is the first."""
        negative = config.negative_prompt or ""
        pairs = [(prompt, negative)]
        for i in range(2, count + 1):
            other, without = getattr(config, f"prompt_{i}"), getattr(config, f"negative_prompt_{i}")
            pairs.append((prompt if other is None else other, negative if without is None else without))
        return pairs

    def _set_states(self, config: ImageGenerationConfig, **states: np.ndarray) -> None:
        """Set the states [rows, ...] as the denoiser's inputs, each row for all pictures."""
        for name, values in states.items():
            repeated = np.repeat(values, self._count_results(config), 0)
            self.denoiser.set_hidden_states(name, Tensor(np.ascontiguousarray(repeated)))

    def _prepare(
        self, config: ImageGenerationConfig, image: np.ndarray | None, mask: np.ndarray | None
    ) -> Latents:
        """The latents that the loop begins with."""
        factor, count = self.vae.get_vae_scale_factor(), config.num_images_per_prompt
        sizes = (config.height // factor, config.width // factor)
        shape = (count, self.vae.get_config().latent_channels, *sizes)
        is_noise = self._begins_with_noise(config)
        pixels = None if image is None else normalize(resize(image, config.height, config.width))
        encoded = None
        noise = draw_noise(config.generator, shape) if self._draws_noise_first else None
        if pixels is not None and not (is_noise and self._takes_mask()):
            encoded = self._encode_picture(pixels, config)
        noise = draw_noise(config.generator, shape) if noise is None else noise
        if is_noise or encoded is None:
            values = noise * np.float32(self.scheduler.init_noise_sigma)
        else:
            values = self.scheduler.add_noise(np.repeat(encoded, count, 0), noise, 0)
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
        if self._takes_mask():
            encoded = self._encode_picture(np.where(full < 0.5, pixels, np.float32(0)), config)
            count = config.num_images_per_prompt * self._count_rows(config.guidance_scale)
            latents.condition = np.repeat(self._build_condition(full, encoded), count, 0)
        elif config.num_images_per_prompt != 1:
            raise OvjitError(
                "inpainting without an inpainting model makes one picture: set num_images_per_prompt=1"
            )
        else:
            latents.mask = shrink(full, *latents.values.shape[2:])

    def _denoise(self, config: ImageGenerationConfig, latents: Latents, callback: Any) -> np.ndarray | None:
        """Run all steps. Returns the latents without noise, or None if the callback has stopped."""
        times, raw = self.scheduler.times, self.metrics.raw_metrics
        denoised = latents.values
        for index in range(len(times)):
            with measure(raw.iteration_durations):
                noise = self._predict_noise(config, latents, index)
                latents.values, picture = self.scheduler.step(noise, latents.values, index, config.generator)
                if latents.mask is not None:
                    latents.values = self._blend(latents, index)
                denoised = latents.values if picture is None else picture
                if callback is not None and callback(index, len(times), Tensor(denoised)):
                    return None
        return denoised

    def _predict_noise(self, config: ImageGenerationConfig, latents: Latents, index: int) -> np.ndarray:
        noise = self._run_denoiser(latents, self._count_rows(config.guidance_scale), index)
        if len(noise) == len(latents.values):
            return noise
        return self._guide(config, *np.split(noise, 2))

    def _guide(self, config: ImageGenerationConfig, without: np.ndarray, guided: np.ndarray) -> np.ndarray:
        """The noise of a call, of those without the prompt and with it."""
        return without + np.float32(config.guidance_scale) * (guided - without)

    def _run_denoiser(self, latents: Latents, rows: int, index: int) -> np.ndarray:
        """The denoiser's output for each row of each picture."""
        sample = self.scheduler.scale_model_input(np.concatenate([latents.values] * rows), index)
        if latents.condition is not None:
            sample = np.concatenate((sample, latents.condition), self._condition_axis)
        time, sample = Tensor(np.ascontiguousarray(self._time_of(index))), np.ascontiguousarray(sample)
        with measure(getattr(self.metrics.raw_metrics, self._durations)):
            output: np.ndarray = self.denoiser.infer(Tensor(sample), time).data
        return output

    def _blend(self, latents: Latents, index: int) -> np.ndarray:
        """The first picture, as noisy as the latents, where the mask is 0."""
        assert latents.image is not None and latents.mask is not None
        image = latents.image
        if index < len(self.scheduler.times) - 1:
            image = self.scheduler.add_noise(image, latents.noise, index + 1)
        return (1 - latents.mask) * image + latents.mask * latents.values
