"""Text2ImagePipeline, Image2ImagePipeline and InpaintingPipeline."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import UnsupportedError
from ovjit.genai.fields import unpack_config
from ovjit.genai.images.autoencoder import AutoencoderKL
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.denoisers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from ovjit.genai.images.diffusion import Diffusion, Task
from ovjit.genai.images.flow import Flux, FluxFill, StableDiffusion3
from ovjit.genai.images.flux2 import Flux2
from ovjit.genai.images.metrics import ImageGenerationPerfMetrics
from ovjit.genai.images.networks import PATH, add_devices, choose_overload
from ovjit.genai.images.pixels import check_picture
from ovjit.genai.images.qwen_image import QwenImage
from ovjit.genai.images.schedulers import Scheduler
from ovjit.genai.images.stable_diffusion import StableDiffusion, StableDiffusionXL
from ovjit.genai.images.text_encoders import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel
from ovjit.genai.images.z_image import ZImage
from ovjit.genai.json_files import read_json
from ovjit.genai.turns import Turn

#: The class in model_index.json -> the pipeline's kind.
_KINDS = {
    "StableDiffusionPipeline": StableDiffusion, "LatentConsistencyModelPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL, "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}  # fmt: skip


class DiffusionPipeline:
    """A pipeline of pictures or of videos, whose networks are compiled at once or later."""

    _task: ClassVar[Task]
    #: The class in model_index.json -> the pipeline's kind.
    _kinds: ClassVar[dict[str, type[Diffusion]]]
    #: The classes of pipelines that it can be made of.
    _sources: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *arguments: Any, **kwargs: Any):
        start = time.perf_counter()
        name = type(self).__name__
        overloads = [
            *[{"pipe": DiffusionPipeline}][: len(self._sources)],
            *add_devices({"models_path": PATH}),
        ]
        values, properties = choose_overload(name, overloads, arguments, kwargs)
        pipe = values.get("pipe")
        if pipe is None:
            folder = Path(os.fsdecode(values["models_path"]))
            index = read_json(folder / "model_index.json")
            kind = self._kinds.get(index.get("_class_name", ""))
            if kind is None:
                raise UnsupportedError(
                    f"Unsupported pipeline {index.get('_class_name')!r} for {name}: it should be one of "
                    f"{list(self._kinds)}"
                )
            self._impl: Any = kind.load(self._task, folder, index, values.get("device"), properties)
        elif type(pipe).__name__ not in self._sources:
            raise TypeError(f"{name} cannot be made of a {type(pipe).__name__}")
        else:
            self._impl = pipe._impl.copy_for(self._task)
        self._turn = Turn()
        self._add_load_time(start)

    def _add_load_time(self, start: float) -> None:
        self._impl.load_time += (time.perf_counter() - start) * 1000

    def compile(
        self, device: str | None = None, denoise_device: str | None = None, vae_device: str | None = None,
        text_encode_device: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """compile(device, **properties), or compile(text_encode_device, denoise_device, vae_device,
        **properties)."""
        start = time.perf_counter()
        devices = [text_encode_device or device, denoise_device, vae_device]
        if devices[1:] == [None, None] and text_encode_device is None:
            devices = [device] * 3
        if not all(isinstance(each, str) for each in devices):
            raise TypeError("compile takes a device, or text_encode_device, denoise_device and vae_device")
        self._impl.compile([str(each) for each in devices], unpack_config(kwargs))
        self._add_load_time(start)

    def _generate(self, prompt: Any, image: Any, mask: Any, keywords: dict[str, Any]) -> Tensor:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt should be a str, not {type(prompt).__name__}")
        with self._turn.take():
            return self._impl.generate(prompt, image, mask, keywords)


class _ImagePipeline(DiffusionPipeline):
    """The methods that all pipelines of pictures have."""

    _kinds: ClassVar[dict[str, type[Diffusion]]] = {
        **_KINDS, "Flux2KleinPipeline": Flux2, "ZImagePipeline": ZImage,
        "QwenImagePipeline": QwenImage,
    }  # fmt: skip

    @classmethod
    def _make(cls, kind: type[Diffusion], scheduler: Scheduler, parts: dict[str, Any]) -> Any:
        """The pipeline of copies of these parts. TypeError for one of another class."""
        kinds = {**kind._networks, "vae": AutoencoderKL}
        for name, part in parts.items():
            if not isinstance(part, kinds[name]):
                raise TypeError(f"{name} should be a {kinds[name].__name__}, not {type(part).__name__}")
        pipeline = cls.__new__(cls)
        copies = {name: kinds[name](part) for name, part in parts.items()}
        pipeline._impl, pipeline._turn = kind(cls._task, scheduler, **copies), Turn()
        return pipeline

    @classmethod
    def stable_diffusion(
        cls, scheduler: Scheduler, clip_text_model: CLIPTextModel, unet: UNet2DConditionModel,
        vae: AutoencoderKL,
    ) -> Any:  # fmt: skip
        """The pipeline of these parts."""
        parts = {"text_encoder": clip_text_model, "unet": unet, "vae": vae}
        return cls._make(StableDiffusion, scheduler, parts)

    latent_consistency_model = stable_diffusion

    @classmethod
    def stable_diffusion_xl(
        cls, scheduler: Scheduler, clip_text_model: CLIPTextModel,
        clip_text_model_with_projection: CLIPTextModelWithProjection, unet: UNet2DConditionModel,
        vae: AutoencoderKL,
    ) -> Any:  # fmt: skip
        """The pipeline of these parts."""
        encoders = {"text_encoder": clip_text_model, "text_encoder_2": clip_text_model_with_projection}
        return cls._make(StableDiffusionXL, scheduler, {**encoders, "unet": unet, "vae": vae})

    @classmethod
    def stable_diffusion_3(cls, scheduler: Scheduler, *parts: Any, **named: Any) -> Any:
        """stable_diffusion_3(scheduler, clip_text_model_1, clip_text_model_2, t5_encoder_model, transformer,
        vae), or without t5_encoder_model."""
        clips = {f"clip_text_model_{i}": CLIPTextModelWithProjection for i in (1, 2)}
        others = {"transformer": SD3Transformer2DModel, "vae": AutoencoderKL}
        overloads = [{**clips, "t5_encoder_model": T5EncoderModel, **others}, {**clips, **others}]
        values, _ = choose_overload("stable_diffusion_3", overloads, parts, named)
        names = {"clip_text_model_1": "text_encoder", "clip_text_model_2": "text_encoder_2",
                 "t5_encoder_model": "text_encoder_3"}  # fmt: skip
        return cls._make(StableDiffusion3, scheduler, {names.get(n, n): part for n, part in values.items()})

    @classmethod
    def flux(
        cls, scheduler: Scheduler, clip_text_model: CLIPTextModel, t5_encoder_model: T5EncoderModel,
        transformer: FluxTransformer2DModel, vae: AutoencoderKL,
    ) -> Any:  # fmt: skip
        """The pipeline of these parts."""
        return cls._make_flux(Flux, scheduler, clip_text_model, t5_encoder_model, transformer, vae)

    @classmethod
    def _make_flux(cls, kind: type[Flux], scheduler: Scheduler, *parts: Any) -> Any:
        names = ("text_encoder", "text_encoder_2", "transformer", "vae")
        return cls._make(kind, scheduler, dict(zip(names, parts, strict=True)))

    def get_generation_config(self) -> ImageGenerationConfig:
        return copy.copy(self._impl.config)

    def set_generation_config(self, config: ImageGenerationConfig) -> None:
        if not isinstance(config, ImageGenerationConfig):
            raise TypeError(f"config should be an ImageGenerationConfig, not {type(config).__name__}")
        config.validate()
        self._impl.config = copy.copy(config)

    def set_scheduler(self, scheduler: Scheduler) -> None:
        self._impl.set_scheduler(scheduler)

    def reshape(self, num_images_per_prompt: int, height: int, width: int, guidance_scale: float) -> None:
        """Fix all sizes before `compile`; they become those of the configuration."""
        start = time.perf_counter()
        self._impl.reshape(num_images_per_prompt, height, width, guidance_scale)
        config = self._impl.config
        config.num_images_per_prompt, config.guidance_scale = num_images_per_prompt, guidance_scale
        config.height, config.width = height, width
        config.validate()
        self._add_load_time(start)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents to pictures."""
        return self._impl.decode(latent)

    def export_model(self, export_path: Any) -> None:
        """Write the compiled networks for the constructor's property `blob_path`."""
        self._impl.export_model(Path(os.fsdecode(export_path)))

    def get_performance_metrics(self) -> ImageGenerationPerfMetrics:
        """The durations of the last `generate`."""
        self._impl.metrics._load_time = self._impl.load_time
        return copy.copy(self._impl.metrics)


class Text2ImagePipeline(_ImagePipeline):
    """Pictures from texts: Text2ImagePipeline(folder), Text2ImagePipeline(folder, device, **properties), or
    of an Image2ImagePipeline or InpaintingPipeline."""

    _task = Task.TEXT
    _sources = ("Image2ImagePipeline", "InpaintingPipeline")

    def generate(self, prompt: str, **kwargs: Any) -> Tensor:
        """Pictures u8 [n, height, width, 3]. Keywords are fields of ImageGenerationConfig, and
        `callback(step, steps, latent)`, which stops by True."""
        return self._generate(prompt, None, None, kwargs)


class Image2ImagePipeline(_ImagePipeline):
    """Pictures from texts and a picture: Image2ImagePipeline(folder), Image2ImagePipeline(folder, device,
    **properties), or of an InpaintingPipeline."""

    _task = Task.IMAGE
    _sources = ("InpaintingPipeline",)

    def generate(self, prompt: str, image: Tensor, **kwargs: Any) -> Tensor:
        """Pictures u8 [n, height, width, 3] from one u8 [1, height, width, 3]. Keywords are those of
        Text2ImagePipeline."""
        return self._generate(prompt, check_picture(image, "image", (3,)), None, kwargs)


class InpaintingPipeline(_ImagePipeline):
    """Pictures from texts, a picture and a mask of what is made anew: InpaintingPipeline(folder),
    InpaintingPipeline(folder, device, **properties), or of an Image2ImagePipeline."""

    _task = Task.INPAINTING
    _sources = ("Image2ImagePipeline",)
    _kinds = {
        **_KINDS, "StableDiffusionInpaintPipeline": StableDiffusion,
        "StableDiffusionXLInpaintPipeline": StableDiffusionXL, "FluxFillPipeline": FluxFill,
        "StableDiffusion3InpaintPipeline": StableDiffusion3, "FluxInpaintPipeline": Flux,
    }  # fmt: skip

    @classmethod
    def flux_fill(
        cls, scheduler: Scheduler, clip_text_model: CLIPTextModel, t5_encoder_model: T5EncoderModel,
        transformer: FluxTransformer2DModel, vae: AutoencoderKL,
    ) -> Any:  # fmt: skip
        """The pipeline of these parts, whose transformer takes the masked picture."""
        return cls._make_flux(FluxFill, scheduler, clip_text_model, t5_encoder_model, transformer, vae)

    def generate(self, prompt: str, image: Tensor, mask_image: Tensor, **kwargs: Any) -> Tensor:
        """Pictures u8 [n, height, width, 3] from one u8 [1, height, width, 3], new where the mask [1, height,
        width, 3 or 1] is bright. Keywords are those of Text2ImagePipeline."""
        checked = check_picture(image, "image", (3,))
        return self._generate(prompt, checked, check_picture(mask_image, "mask_image", (3, 1)), kwargs)
