"""AutoencoderKL: pictures to latents, and back."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.layout import Layout
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.compat import opset13 as ops
from ovjit.compat.preprocess import PrePostProcessor
from ovjit.errors import OvjitError
from ovjit.genai.fields import unpack_config
from ovjit.genai.images.generators import draw_noise
from ovjit.genai.images.networks import PATH, Change, Network, NetworkConfig, add_devices, choose_overload


class AutoencoderKL:
    """An autoencoder: AutoencoderKL(vae_decoder_path), AutoencoderKL(vae_encoder_path, vae_decoder_path), the
    same of texts and weights with a config, all with a device and its properties, blobs with a config and a
    device, or AutoencoderKL(another)."""

    class Config(NetworkConfig):
        """config.json of an autoencoder."""

        _defaults = {"in_channels": 3, "latent_channels": 4, "out_channels": 3, "scaling_factor": 1.0,
                     "shift_factor": 0.0, "block_out_channels": [64]}  # fmt: skip

    #: The layouts of the decoder's output and of pixels.
    _layouts = ("NCHW", "NHWC")
    #: True if pixels are rounded, not cut.
    _rounds = False
    _config: Config
    _decoder: Network
    _encoder: Network | None

    def __init__(self, *arguments: Any, **kwargs: Any):
        if len(arguments) == 2 and isinstance(arguments[1], str) and not os.path.isdir(arguments[1]):
            kwargs, arguments = {"device": arguments[1], **kwargs}, arguments[:1]
        end = {"vae_decoder_config": self.Config}
        texts = {"vae_decoder_model": str, "vae_decoder_weights": Tensor, **end}
        blobs = {"vae_decoder_blob_tensor": Tensor, **end, "device": str}
        overloads = [
            {"model": AutoencoderKL},
            *add_devices(
                {"vae_encoder_path": PATH, "vae_decoder_path": PATH}, {"vae_decoder_path": PATH}, texts,
                {"vae_encoder_model": str, "vae_encoder_weights": Tensor, **texts},
            ),
            blobs,
            {"vae_encoder_blob_tensor": Tensor, **blobs},
        ]  # fmt: skip
        values, properties = choose_overload(type(self).__name__, overloads, arguments, kwargs)
        if isinstance(values.get("model"), AutoencoderKL):
            vars(self).update(vars(values["model"]))
            self._decoder, self._encoder = copy.copy(self._decoder), copy.copy(self._encoder)
            return
        folder: Any = values.get("vae_decoder_path")
        self._config = values.get("vae_decoder_config") or self.Config(
            Path(os.fsdecode(folder)) / "config.json"
        )
        self._decoder = _load_part("decoder", values, properties, self._add_pixels)
        self._encoder = None
        path = properties.get("blob_path")
        has_encoder = path is None or (Path(os.fsdecode(path)) / "vae_encoder").is_dir()
        if has_encoder and any(name.startswith("vae_encoder") for name in values):
            self._encoder = _load_part("encoder", values, properties)

    def _add_pixels(self, model: Any) -> Any:
        """Change the decoder to take scaled latents and return pixels u8 [n, height, width, channels]."""
        processor = PrePostProcessor(model)
        if self._config.scaling_factor != 1:
            processor.input().preprocess().scale(self._config.scaling_factor)
        if self._config.shift_factor != 0:
            processor.input().preprocess().mean(-self._config.shift_factor)

        def to_pixels(port: Any) -> Any:
            half, most = (ops.constant(np.array([value], np.float32)) for value in (0.5, 255))
            pixels = ops.multiply(ops.clamp(ops.add(ops.multiply(port, half), half), 0.0, 1.0), most)
            return (ops.round(pixels, "half_to_even") if self._rounds else pixels).output(0)

        processor.output().postprocess().custom(to_pixels)
        processor.output().postprocess().convert_element_type(Type.u8)
        processor.output().model().set_layout(Layout(self._layouts[0]))
        processor.output().tensor().set_layout(Layout(self._layouts[1]))
        return processor.build()

    def get_config(self) -> Config:
        return self._config

    def get_vae_scale_factor(self) -> int:
        """The pixels of a latent's element in each direction."""
        return compute_scale_factor(self._config)

    def reshape(self, batch_size: int, height: int, width: int) -> AutoencoderKL:
        """Fix the number of pictures and their pixels."""
        factor, decoder = self.get_vae_scale_factor(), self._decoder.check_model()
        check_divisible(height, width, factor)
        if self._encoder is not None:
            model = self._encoder.check_model()
            # pipelines encode one picture for all: any number
            fix_shape(model, -1, height, width)
        fix_shape(decoder, batch_size, height // factor, width // factor)
        return self

    def compile(self, device: str, **kwargs: Any) -> None:
        for network in (self._encoder, self._decoder):
            if network is not None:
                network.compile(device, unpack_config(kwargs))

    def decode(self, latent: Tensor) -> Tensor:
        """Latents f32 [n, channels, height, width] to pixels u8 [n, height, width, 3]."""
        return Tensor(self._decoder.run([latent.data])[0])

    def encode(self, image: Tensor, generator: Any = None) -> Tensor:
        """A picture f32 [1, 3, height, width] in [-1, 1] to a latent: one that the generator draws from the
        encoder's distribution, or its mean."""
        if self._encoder is None:
            raise OvjitError(
                "AutoencoderKL is created without 'VAE encoder' capability: pass the encoder's folder"
            )
        latent = self._encoder.run([image.data])[0]
        name = self._encoder.check_request().get_compiled_model().output(0).get_any_name()
        if name == "latent_parameters":
            if len(latent) != 1:
                raise OvjitError(f"one picture can be encoded at a time, not {len(latent)}")
            latent, logarithm = np.split(latent, 2, 1)
            if generator is not None:
                deviation = np.exp(0.5 * np.clip(logarithm, -30, 20))
                latent = latent + deviation * draw_noise(generator, latent.shape)
        elif name != "latent_sample":
            raise OvjitError(f"Unexpected output name for AutoencoderKL encoder {name!r}")
        return Tensor(
            (latent - np.float32(self._config.shift_factor)) * np.float32(self._config.scaling_factor)
        )

    def export_model(self, export_path: Any) -> None:
        """Write the compiled networks for `blob_path` of the constructor."""
        self._decoder.export(Path(os.fsdecode(export_path)) / "vae_decoder")
        if self._encoder is not None:
            self._encoder.export(Path(os.fsdecode(export_path)) / "vae_encoder")


def compute_scale_factor(config: NetworkConfig) -> int:
    """The pixels of a latent's element in each direction."""
    return int(2 ** (len(config.block_out_channels) - 1))


def fix_shape(model: Any, count: int, height: int, width: int) -> None:
    """Reshape the input of an autoencoder's network; a third axis is that of one frame."""
    shape = model.input(0).get_partial_shape()
    frames = [1] * (len(shape) - 4)
    model.reshape({model.input(0): [count, shape[1], *frames, height, width]})


def check_divisible(height: int, width: int, factor: int) -> None:
    """RuntimeError for pixels that are no multiples of `factor`. Negative ones are not chosen yet."""
    if (height > 0 and height % factor) or (width > 0 and width % factor):
        raise OvjitError(f"Both 'width' and 'height' must be divisible by {factor}, not {width} and {height}")


def _load_part(
    part: str, values: Mapping[str, Any], properties: Mapping[str, Any], change: Change | None = None
) -> Network:
    """The encoder or decoder from the arguments of a constructor."""
    names = {"path": "root_dir", "model": "model", "weights": "weights", "blob_tensor": "blob_tensor"}
    arguments = {name: values.get(f"vae_{part}_{key}") for key, name in names.items()}
    options = dict(properties)
    if options.get("blob_path") is not None:
        options["blob_path"] = Path(os.fsdecode(options["blob_path"])) / f"vae_{part}"
    return Network.load(f"the VAE {part}", {**arguments, "device": values.get("device")}, options, change)
