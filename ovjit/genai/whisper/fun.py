"""Fun-ASR: a language model that reads the states of a sound within a prompt in Chinese, and writes the text.

Its features are those of Kaldi: the logarithms of mel bands, seven frames of which are one."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from ovjit.genai.config import demand
from ovjit.genai.whisper.config import ASRGenerationConfig
from ovjit.genai.whisper.language import SpeechReader

#: Samples of a frame and between frames, those of a transform, bands, and samples in a second.
_FRAME, _SHIFT, _SIZE, _BANDS, _RATE = 400, 160, 512, 80, 16000
#: Frames that are joined, and the frames between two such groups.
_JOINED, _STRIDE = 7, 6
_LOWEST, _EMPHASIS, _VOLUME = 20.0, np.float32(0.97), np.float32(1 << 15)


def _to_mel(hertz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(hertz / 700)


@functools.cache
def build_bands() -> np.ndarray:
    """Triangular filters f32 [frequencies, bands] of the height 1 on the mel scale. The last frequency has
    the weight 0."""
    low, high = _to_mel(np.array([_LOWEST, _RATE / 2]))
    edges = np.linspace(low, high, _BANDS + 2)
    mels = _to_mel(np.arange(_SIZE // 2) * (_RATE / _SIZE))[:, None]
    widths = np.diff(edges)
    triangles = np.minimum((mels - edges[:-2]) / widths[:-1], (edges[2:] - mels) / widths[1:])
    return np.pad(np.maximum(triangles, 0), ((0, 1), (0, 0))).astype(np.float32)


def extract_bands(samples: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """The features f32 [1, groups, values] of samples: a sound shorter than a frame is one."""
    size = min(_FRAME, len(samples))
    frames = np.lib.stride_tricks.sliding_window_view(samples * _VOLUME, size)[::_SHIFT]
    frames = frames - frames.mean(1, dtype=np.float64, keepdims=True).astype(np.float32)
    angles = 2 * np.pi * np.arange(size) / (size - 1)
    window = (0.54 - 0.46 * np.cos(angles)).astype(np.float32)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    spectrum = np.fft.rfft((frames - _EMPHASIS * before) * window, _SIZE)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    values = np.log(np.maximum(power @ bands, np.finfo(np.float32).eps))
    groups = np.arange(-(-len(values) // _STRIDE))[:, None] * _STRIDE + np.arange(_JOINED) - _JOINED // 2
    return values[np.clip(groups, 0, len(values) - 1)].reshape(1, len(groups), -1)


class FunSpeech(SpeechReader):
    """ASRPipeline of a Fun-ASR folder."""

    _family = "Fun-ASR"

    def _extract(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        demand(len(samples) >= 2, "Fun-ASR input audio must contain at least 2 samples")
        yield extract_bands(samples, build_bands())

    def _encode(self, features: np.ndarray) -> np.ndarray:
        return self._encoder.encode(features)

    def _write_prompt(self, states: int, config: ASRGenerationConfig) -> list[int]:
        into = "" if config.language is None else f"\u6210{config.language}"
        # "transcribe the speech (into a language):" in Chinese
        task = f"\u8bed\u97f3\u8f6c\u5199{into}\uff1a"
        before = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{task}"
        after = "<|im_end|>\n<|im_start|>assistant\n"
        return [*self._list_tokens(before, False), *[0] * states, *self._list_tokens(after, False)]
