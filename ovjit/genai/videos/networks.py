"""The networks of LTX-Video: its transformer, and the autoencoder of its latents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.images.autoencoder import AutoencoderKL
from ovjit.genai.images.denoisers import Denoiser
from ovjit.genai.images.networks import PATH, NetworkConfig, add_devices, choose_overload

#: The number that heights and widths of videos are multiples of.
_MULTIPLE = 32


class AutoencoderConfig(NetworkConfig):
    """config.json of an autoencoder of videos."""

    _defaults = {"in_channels": 3, "latent_channels": 128, "out_channels": 3, "scaling_factor": 1.0,
                 "shift_factor": 0.0,
                 "block_out_channels": [128, 256, 512, 512], "patch_size": 4, "patch_size_t": 1,
                 "spatio_temporal_scaling": [True, True, True, False], "latents_mean_data": [],
                 "latents_std_data": [], "timestep_conditioning": False}  # fmt: skip
    _constants = frozenset(("shift_factor",))


def count_pixels(config: AutoencoderConfig) -> tuple[int, int]:
    """(pixels per latent along height and width, frames per latent)."""
    factor = 2 ** sum(map(bool, config.spatio_temporal_scaling))
    return config.patch_size * factor, config.patch_size_t * factor


def count_latents(config: AutoencoderConfig, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, height and width of the latents of a video."""
    space, time = count_pixels(config)
    return (frames - 1) // time + 1, height // space, width // space


def check_sizes(height: int, width: int) -> None:
    """RuntimeError for sizes of videos that LTX-Video does not have."""
    for name, size in (("height", height), ("width", width)):
        if size <= 0 or size % _MULTIPLE:
            raise OvjitError(f"{name} should be positive and divisible by {_MULTIPLE}, not {size}")


def _find_prefix(config: Any) -> str:
    """The first component of the names of an adapter's tensors, such as `diffusion_model`."""
    adapters = config.get_adapters() if isinstance(config, AdapterConfig) else []
    names = sorted(adapters[0].convert("transformer").layers) if adapters else []
    return names[0].partition(".")[0] if names else "transformer"


class LTXVideoTransformer3DModel(Denoiser):
    """The denoiser of LTX-Video, whose latents are tokens [n, tokens, channels]:
    LTXVideoTransformer3DModel(folder), LTXVideoTransformer3DModel(folder, device, **properties), or
    LTXVideoTransformer3DModel(another)."""

    class Config(NetworkConfig):
        """config.json of the transformer."""

        _defaults = {"in_channels": 128, "patch_size": 1, "patch_size_t": 1}

    _title = "the LTX-Video transformer"

    def __init__(self, *arguments: Any, **kwargs: Any):
        overloads = [{"model": LTXVideoTransformer3DModel}, *add_devices({"root_dir": PATH})]
        values, properties = choose_overload(type(self).__name__, overloads, arguments, kwargs)
        model = values.get("model")
        if model is not None:
            self._copy_from(model)
            self._states = dict(self._states)
            return
        path = Path(os.fsdecode(values["root_dir"]))
        self._states, self._config = {}, self.Config(path / "config.json")
        if (self._config.patch_size, self._config.patch_size_t) != (1, 1):
            raise UnsupportedError(
                "ovjit and openvino_genai support LTX-Video with patches of one latent only"
            )
        self._autoencoder = AutoencoderConfig(path.parent / "vae_decoder" / "config.json")
        self.adapter_prefix = _find_prefix(properties.get("adapters"))
        self._load(values, properties)

    def compile(  # type: ignore[override]
        self, device: str, **kwargs: Any
    ) -> LTXVideoTransformer3DModel:
        self.adapter_prefix = _find_prefix(kwargs.get("adapters"))
        super().compile(device, **kwargs)
        return self

    def reshape(  # type: ignore[override]
        self, batch_size: int, num_frames: int, height: int, width: int, tokenizer_model_max_length: int
    ) -> LTXVideoTransformer3DModel:
        """Fix the number of latents, the pixels of videos, and the number of a prompt's tokens."""
        model, text = self._network.check_model(), {0: batch_size, 1: tokenizer_model_max_length}
        latents = {0: batch_size, 1: self.count_tokens(num_frames, height, width)}
        has_rows = len(model.input("timestep").get_partial_shape()) == 2
        sizes = {"hidden_states": latents, "timestep": latents if has_rows else {0: 1},
                 "encoder_hidden_states": text, "encoder_attention_mask": text}  # fmt: skip
        self._fix_sizes(sizes)
        return self

    def count_tokens(self, frames: int, height: int, width: int) -> int:
        """The tokens of a video of so many frames and pixels."""
        return int(np.prod(count_latents(self._autoencoder, frames, height, width)))

    def count_fixed_rows(self) -> int:
        """The rows of latents of a reshaped network; 0 for any number."""
        shape = self._network.check_request().get_compiled_model().input("hidden_states").get_partial_shape()
        return 0 if shape.is_dynamic else int(shape[0].get_length())

    def shape_time(self, time: np.ndarray, tokens: int) -> np.ndarray:
        """A time [1] as the network takes it: alone, or [rows, tokens] for each token."""
        port = self._network.check_request().get_compiled_model().input("timestep")
        rows = len(self._states["encoder_hidden_states"])
        return time if len(port.get_partial_shape()) == 1 else np.full((rows, tokens), time[0], np.float32)


class AutoencoderKLLTXVideo(AutoencoderKL):
    """The decoder of LTX-Video's latents f32 [n, channels, frames, height, width], to pixels u8 [n, frames,
    height, width, 3]: AutoencoderKLLTXVideo(vae_decoder_path), or AutoencoderKLLTXVideo(vae_encoder_path,
    vae_decoder_path), both with a device and its properties. The encoder is not used.
    `get_vae_scale_factor` is 2 to the number of blocks but one, not the pixels of a latent."""

    Config: Any = AutoencoderConfig
    _config: Any
    _layouts, _rounds = ("NCDHW", "NDHWC"), True

    def __init__(self, *arguments: Any, **kwargs: Any):
        if len(arguments) == 2 and isinstance(arguments[1], str) and not os.path.isdir(arguments[1]):
            kwargs, arguments = {"device": arguments[1], **kwargs}, arguments[:1]
        both = {"vae_encoder_path": PATH, "vae_decoder_path": PATH}
        overloads = add_devices(both, {"vae_decoder_path": PATH})
        values, properties = choose_overload(type(self).__name__, overloads, arguments, kwargs)
        encoder = values.pop("vae_encoder_path", None)
        if encoder is not None and not (Path(os.fsdecode(encoder)) / "openvino_model.xml").is_file():
            raise OvjitError(f"the VAE encoder's folder {os.fsdecode(encoder)!r} has no openvino_model.xml")
        super().__init__(
            **values, **{name: value for name, value in properties.items() if name != "adapters"}
        )

    def reshape(  # type: ignore[override]
        self, batch_size: int, num_frames: int, height: int, width: int
    ) -> AutoencoderKLLTXVideo:
        """Fix the number of videos, their frames and their pixels."""
        check_sizes(height, width)
        model = self._decoder.check_model()
        channels = model.input(0).get_partial_shape()[1]
        sizes = count_latents(self._config, num_frames, height, width)
        model.reshape({model.input(0): [batch_size, channels, *sizes]})
        return self

    def compile(self, device: str, **kwargs: Any) -> AutoencoderKLLTXVideo:  # type: ignore[override]
        super().compile(device, **kwargs)
        return self
