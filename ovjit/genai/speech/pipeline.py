"""Text2SpeechPipeline: speech of texts by SpeechT5."""

from __future__ import annotations

import copy
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.vectors import Shape
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.config import read_config
from ovjit.genai.fields import unpack_config
from ovjit.genai.figures import measure, now_us
from ovjit.genai.json_files import read_json
from ovjit.genai.speech.config import SpeechGenerationConfig
from ovjit.genai.speech.results import Text2SpeechDecodedResults
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn

_SAMPLE_RATE = 16000
#: The size of a speaker's vector.
_SPEAKER_SIZE = 512
_ARCHITECTURE = "SpeechT5ForTextToSpeech"


def _read_default_speaker() -> np.ndarray:
    """The speaker of a call without one [1, 512]: vector 7306 of the validation set of the data set
    Matthijs/cmu-arctic-xvectors, as in openvino_genai."""
    data = (files("ovjit.data") / "speaker.bin").read_bytes()
    return np.frombuffer(data, "<f4").reshape(1, _SPEAKER_SIZE)


class Text2SpeechPipeline:
    """Speech of texts: Text2SpeechPipeline(folder, device, **properties), the folder of a SpeechT5 model as
    optimum-intel exports it."""

    def __init__(self, models_path: Any, device: str, **kwargs: Any):
        if not isinstance(models_path, (str, bytes, os.PathLike)) or not isinstance(device, str):
            raise TypeError("__init__(): Text2SpeechPipeline takes the path of a folder and a device")
        start_us, folder = now_us(), Path(os.fsdecode(models_path))
        settings = read_json(folder / "config.json")
        if (settings.get("architectures") or [None])[0] != _ARCHITECTURE:
            raise UnsupportedError(
                f"Unsupported text to speech generation pipeline {settings.get('architectures')} in "
                f"{folder}: ovjit supports {_ARCHITECTURE}"
            )
        self._turn = Turn()
        self._config = read_config(SpeechGenerationConfig, folder)
        self._config.validate()
        self._tokenizer = Tokenizer(folder)
        self._reduction = int(settings.get("reduction_factor", 2))
        self._bins = int(settings.get("num_mel_bins", 80))
        names = ("encoder_model", "decoder_model", "postnet", "vocoder")
        self._encoder, self._decoder, self._postnet, self._vocoder = (
            _create_request(folder / f"openvino_{name}.xml", device, unpack_config(kwargs)) for name in names
        )
        self._load_time = (now_us() - start_us) / 1000

    def get_generation_config(self) -> SpeechGenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: SpeechGenerationConfig) -> None:
        """Use this configuration by default."""
        if not isinstance(config, SpeechGenerationConfig):
            raise TypeError(f"config should be a SpeechGenerationConfig, not {type(config).__name__}")
        self._config = copy.copy(config)

    def get_speaker_embedding_shape(self) -> Shape:
        return Shape([1, _SPEAKER_SIZE])

    def generate(self, text: Any = None, speaker_embedding: Tensor | None = None, *, texts: Any = None,
                 **kwargs: Any) -> Text2SpeechDecodedResults:  # fmt: skip
        """The speech of a text, or of a list of texts, by the speaker of a vector f32 [1, 512]. Keywords are
        fields of SpeechGenerationConfig."""
        text = text if texts is None else texts
        prompts = [text] if isinstance(text, str) else text
        if not isinstance(prompts, (list, tuple)) or not all(isinstance(each, str) for each in prompts):
            raise TypeError("generate(): incompatible function arguments: a str or a list of str is needed")
        if speaker_embedding is not None and not isinstance(speaker_embedding, Tensor):
            raise TypeError(f"speaker_embedding should be a Tensor, not {type(speaker_embedding).__name__}")
        config = copy.copy(self._config)
        config.update_generation_config(**kwargs)
        config.validate()
        speaker = _read_default_speaker() if speaker_embedding is None else speaker_embedding.data
        results = Text2SpeechDecodedResults()
        results.output_sample_rate, metrics = _SAMPLE_RATE, results.perf_metrics
        metrics._load_time, raw = self._load_time, metrics.raw_metrics
        with self._turn.take(), measure(raw.generate_durations):
            for prompt in prompts:
                with measure(raw.tokenization_durations):
                    tokens = self._tokenizer.encode(prompt).input_ids.data
                results.speeches.append(Tensor(self._speak(tokens, speaker, config)))
        metrics.num_generated_samples = sum(speech.get_size() for speech in results.speeches)
        metrics.evaluate()
        return results

    def _speak(self, tokens: np.ndarray, speaker: np.ndarray, config: SpeechGenerationConfig) -> np.ndarray:
        """The samples of one text."""
        self._encoder.infer({"input_ids": tokens})
        states, mask = (
            np.array(self._encoder.get_tensor(name).data)
            for name in ("last_hidden_state", "encoder_attention_mask")
        )
        length, factor = np.float32(states.shape[1]), np.float32(self._reduction)
        least, most = (
            int(length * np.float32(ratio) / factor) for ratio in (config.minlenratio, config.maxlenratio)
        )
        feeds = {
            "speaker_embeddings": speaker, "encoder_hidden_states": states, "encoder_attention_mask": mask,
            "inputs_embeds": np.zeros((1, 1, self._bins), np.float32), "beam_idx": np.zeros(1, np.int32),
        }  # fmt: skip
        spectra: list[np.ndarray] = []
        self._decoder.reset_state()
        while True:
            self._decoder.infer(feeds)
            spectra.append(np.array(self._decoder.get_tensor("spectrum").data))
            if len(spectra) >= least:
                probability = float(self._decoder.get_tensor("prob").data.sum())
                if probability >= config.threshold or len(spectra) >= most:
                    break
            feeds["inputs_embeds"] = np.array(self._decoder.get_tensor("output_sequence_out").data)
        self._postnet.infer({"raw_spectrogram": np.stack(spectra)})
        self._vocoder.infer({"spectrogram": self._postnet.get_tensor("postnet_spectrogram").data})
        return np.array(self._vocoder.get_tensor("waveform").data)


def _create_request(path: Path, device: str, properties: dict[str, Any]) -> Any:
    """The request of a network's compiled model. RuntimeError if the file is missing."""
    from ovjit.api.run.core import Core

    if not path.is_file():
        raise OvjitError(f"{str(path)!r} is missing: export the model with optimum-cli")
    return Core().compile_model(str(path), device, properties).create_infer_request()
