"""Stable Diffusion XL: two text encoders, and the picture's sizes as an input."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.diffusion import StableDiffusion, Task
from ovjit.genai.images.metrics import measure_part
from ovjit.genai.images.text_encoders import CLIPTextModel, CLIPTextModelWithProjection
from ovjit.genai.images.unet import UNet2DConditionModel


class StableDiffusionXL(StableDiffusion):
    """Two text encoders, an UNet and an autoencoder for a task."""

    title = "Stable Diffusion XL"
    _networks: ClassVar[dict[str, Any]] = {
        "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
    }  # fmt: skip
    #: True if the states of a missing negative prompt are zeros, not those of an empty text.
    force_zeros = True

    @classmethod
    def load(cls, task: Any, folder: Any, index: Any, device: Any, properties: Any) -> StableDiffusion:
        pipeline = super().load(task, folder, index, device, properties)
        assert isinstance(pipeline, StableDiffusionXL)
        pipeline.force_zeros = bool(index.get("force_zeros_for_empty_prompt", True))
        return pipeline

    def copy_for(self, task: Task) -> StableDiffusion:
        pipeline = super().copy_for(task)
        assert isinstance(pipeline, StableDiffusionXL)
        pipeline.force_zeros = self.force_zeros
        return pipeline

    def _default_config(self) -> ImageGenerationConfig:
        config = super()._default_config()
        config.num_inference_steps = 50
        config.guidance_scale = 7.5 if self.task is Task.INPAINTING else 5.0
        config.strength = {Task.TEXT: 1.0, Task.IMAGE: 0.3, Task.INPAINTING: 0.9999}[self.task]
        return config

    def _unused_prompts(self) -> list[str]:
        return ["prompt_3", "negative_prompt_3"]

    def _encode_prompt(self, prompt: str, config: ImageGenerationConfig) -> None:
        rows = self._count_rows(config.guidance_scale)
        negative = config.negative_prompt or ""
        second = prompt if config.prompt_2 is None else config.prompt_2
        second_negative = negative if config.negative_prompt_2 is None else config.negative_prompt_2
        is_zero = rows > 1 and config.negative_prompt is None and self.force_zeros
        has_negative = rows > 1 and not is_zero
        states = []
        texts = {"text_encoder_2": (prompt, negative), "text_encoder": (second, second_negative)}
        pooled = np.zeros(0, np.float32)
        for name, pair in texts.items():
            encoder = self.networks[name]
            with measure_part(self.metrics._encoders, name):
                output = encoder.infer(*pair, has_negative)
            if name == "text_encoder_2":
                pooled = output.data
            # the last hidden state but one
            states.append(encoder.get_output_tensor(encoder.get_config().num_hidden_layers + 1).data)
        hidden = np.concatenate(states[::-1], -1)
        if is_zero:
            hidden, pooled = (np.concatenate((np.zeros_like(each), each)) for each in (hidden, pooled))
        sizes = np.array(
            [[config.width, config.height, 0, 0, config.width, config.height]] * rows, np.float32
        )
        self._set_states(config, encoder_hidden_states=hidden, text_embeds=pooled, time_ids=sizes)
