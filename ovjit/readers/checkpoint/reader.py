"""A folder of transformers (config.json and safetensors) -> a decoder with state, as of a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.build import Model
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.readers.checkpoint.files import read_json, read_tensors
from ovjit.readers.checkpoint.names import real, rename_tensors
from ovjit.readers.checkpoint.settings import metadata_of, override
from ovjit.readers.gguf.header import GgufFile, Stored
from ovjit.readers.gguf.reader import decoder
from ovjit.readers.gguf.settings import Settings
from ovjit.readers.gguf.weights import Weights


class _Weights(Weights):
    """Tensors of safetensors files: reals, whose small ones need no package to be read."""

    def array(self, name: str, *shape: int) -> np.ndarray:
        return real(self.check_shape(name, shape)).astype(np.float32).reshape(shape)


def read_checkpoint(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Model:
    """The decoder of a folder that transformers has written: `input_ids`, `attention_mask`, `position_ids`
    and `beam_idx` in, `logits` out, keys and values in variables.

    `overrides`: entries in place of config.json's. Weights stay as they are stored (f32, f16, bf16).
    ModelError that names the folder and what is wrong; UnsupportedError, one too, names a kind of model, an
    option or tensors that are not read.
    """
    folder = Path(path)
    try:
        config = override(read_json(folder / "config.json"), overrides or {})
        metadata = metadata_of(config)
        settings = Settings(metadata.metadata)
        kind = settings.kind
        if metadata.act != kind.act:
            raise UnsupportedError(f"the activation of {config['model_type']} should be {kind.act}")
        settings.kind = kind._replace(paired=False)
        tied = bool(config.get("tie_word_embeddings", settings.arch in ("gpt2", "gemma2", "gemma3")))
        tensors = rename_tensors(read_tensors(folder), settings.arch, tied)
        extra = {name: Stored("F32", table.shape, table) for name, table in metadata.tensors.items()}
        return decoder(_Weights(GgufFile(metadata.metadata, tensors | extra), settings))
    except UnsupportedError as error:
        raise UnsupportedError(_name_file(folder, error)) from error
    except OvjitError as error:
        raise ModelError(_name_file(folder, error)) from error


def _name_file(folder: Path, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(str(folder)) else f"{folder}: {text}"
