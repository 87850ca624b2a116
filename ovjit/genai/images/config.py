"""ImageGenerationConfig: the settings of a picture's generation."""

from __future__ import annotations

from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.fields import REAL, SIZE, Copied, Instance, Integer, Optional, Settings, Text
from ovjit.genai.images.generators import CppStdGenerator, Generator
from ovjit.genai.images.taylor import TaylorSeerCacheConfig

_TEXT, _SIGNED = Optional(Text()), Integer(-(2**63))


class ImageGenerationConfig(Settings):
    """Settings of a picture's generation. Negative sizes are those of the model or of the first picture."""

    _fields = {
        "adapters": (None, Optional(Copied(AdapterConfig))),
        "generator": (None, Optional(Instance(Generator))),
        "guidance_scale": (7.5, REAL), "height": (-1, _SIGNED), "max_sequence_length": (-1, _SIGNED),
        "negative_prompt": (None, _TEXT), "negative_prompt_2": (None, _TEXT),
        "negative_prompt_3": (None, _TEXT), "num_images_per_prompt": (1, SIZE),
        "num_inference_steps": (50, SIZE), "prompt_2": (None, _TEXT), "prompt_3": (None, _TEXT),
        "rng_seed": (42, SIZE), "strength": (1.0, REAL),
        "taylorseer_config": (None, Optional(Copied(TaylorSeerCacheConfig))), "width": (-1, _SIGNED),
    }  # fmt: skip

    def update_generation_config(self, **kwargs: Any) -> None:
        """Set fields by keywords; unknown ones are ignored. Without a generator, one is created with
        `rng_seed`; the keyword `rng_seed` seeds an existing one."""
        self.update_fields(kwargs)
        if "generator" not in kwargs:
            if self.generator is None:
                self._values["generator"] = CppStdGenerator(self.rng_seed & 0xFFFFFFFF)
            if "rng_seed" in kwargs:
                self.generator.seed(self.rng_seed)
        self.validate()

    def validate(self) -> None:
        """RuntimeError for a negative prompt without guidance."""
        for name in ("negative_prompt", "negative_prompt_2", "negative_prompt_3"):
            if self.guidance_scale <= 1 and getattr(self, name) is not None:
                raise OvjitError(
                    f"{name} is ignored with guidance_scale {self.guidance_scale:g}: leave it out, or use a "
                    "guidance_scale above 1"
                )
