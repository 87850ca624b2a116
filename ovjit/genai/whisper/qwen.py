"""Qwen3-ASR: a language model that reads the states of a sound at the tokens `<|audio_pad|>` of a fixed
prompt, and writes "language English<asr_text>" and the text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer
from ovjit.genai.config import demand
from ovjit.genai.whisper.config import ASRGenerationConfig
from ovjit.genai.whisper.language import SpeechReader
from ovjit.genai.whisper.mel import FeatureExtractor
from ovjit.generation.tokenizer import read_settings

_TEXT, _PAD = "<asr_text>", "<|audio_pad|>"
#: Seconds of a part of the sound at most, before and after its end where a quiet sample is sought, of the
#: frame that is quiet, and of a part at least.
_LONGEST, _AROUND, _QUIET, _SHORTEST = 1200, 5, 0.1, 0.5


def split_sound(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """Parts of a sound, cut at quiet samples. A short one is padded with zeros."""
    longest, around = _LONGEST * rate, _AROUND * rate
    width, shortest = max(4, round(_QUIET * rate)), round(_SHORTEST * rate)
    while len(samples) > longest:
        window = np.abs(samples[longest - around : longest + around])
        cut = longest
        if len(window) > width:
            sums = np.concatenate([[0.0], np.cumsum(window, dtype=np.float64)])
            first = int((sums[width:] - sums[:-width]).argmin())
            cut = longest - around + first + int(window[first : first + width].argmin())
        yield samples[:cut]
        samples = samples[cut:]
    yield np.pad(samples, (0, max(0, shortest - len(samples))))


def split_answer(text: str) -> tuple[str, str]:
    """(language, transcript) of the model's text: the language is "" for a sound without speech."""
    before, tag, transcript = text.partition(_TEXT)
    if not tag:
        return "", text
    _, _, language = before.partition("language ")
    is_none = "language None" in before or "language none" in before
    return "" if is_none else language, transcript


class QwenSpeech(SpeechReader):
    """ASRPipeline of a Qwen3-ASR folder."""

    _family = "Qwen3-ASR"

    def _prepare(self, folder: Path) -> None:
        vocabulary = self._tokenizer.get_vocab()
        demand(_TEXT.encode() in vocabulary, f"Qwen3-ASR tokenizer must contain '{_TEXT}' token")
        self._text_token = vocabulary[_TEXT.encode()]
        self._extractor = FeatureExtractor(folder)
        audio = read_settings(folder / "config.json").get("thinker_config", {}).get("audio_config", {})
        self._frames = 2 * audio.get("n_window", 100)

    def _extract(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        for part in split_sound(samples, self._extractor.rate):
            yield self._extractor.extract(part, pads=False).data

    def _first_token(self, config: ASRGenerationConfig) -> int | None:
        return None if config.language else self._text_token

    def _split(self, answer: str, config: ASRGenerationConfig) -> tuple[str, str]:
        return (config.language, answer) if config.language else split_answer(answer)

    def _score(self, answer: Answer) -> float:
        return 0.0

    def _encode(self, features: np.ndarray) -> np.ndarray:
        """The states [1, tokens, width] of a spectrogram [mels, frames], which is encoded in chunks."""
        size = self._frames
        mels, frames = features.shape
        demand(frames, "Qwen3-ASR encoder input features must contain at least one frame.")
        count = -(-frames // size)
        padded = np.zeros((mels, count * size), np.float32)
        padded[:, :frames] = features
        states = self._encoder.encode(np.ascontiguousarray(padded.reshape(mels, count, size).swapaxes(0, 1)))
        # three convolutions of stride 2 halve the frames, rounded up
        last = -(-(frames % size) // 8) if frames % size else states.shape[1]
        if last > states.shape[1]:
            raise OvjitError(f"config.json: n_window {size // 2} is not that of the encoder")
        return states.reshape(1, -1, states.shape[2])[:, : (count - 1) * states.shape[1] + last]

    def _write_prompt(self, states: int, config: ASRGenerationConfig) -> list[int]:
        text = (
            f"<|im_start|>system\n{config.context or ''}<|im_end|>\n<|im_start|>user\n<|audio_start|>"
            f"{_PAD * states}<|audio_end|><|im_end|>\n<|im_start|>assistant\n"
        )
        return self._list_tokens(
            text + (f"language {config.language}{_TEXT}" if config.language else ""), True
        )
