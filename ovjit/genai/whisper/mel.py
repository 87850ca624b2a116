"""Log-mel spectrograms: frames of a Hann window, their power by FFT, triangular filters on Slaney's mel
scale, and the logarithm, as Whisper's feature extractor has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.generation.tokenizer import read_settings

#: Frames that are transformed at once.
_BLOCK = 3000
#: The highest frequency of the filters, in hertz.
_HIGHEST = 8000.0
#: Below this frequency the mel scale is linear, above it is logarithmic.
_BREAK_HERTZ, _BREAK_MEL, _HERTZ_PER_MEL = 1000.0, 15.0, 200.0 / 3
_LOG_STEP = np.log(6.4) / 27


class Features:
    """A spectrogram [mels, frames]. `active`: the frames of the sound itself, without padding."""

    def __init__(self, data: np.ndarray, active: int):
        self.data, self.active = data, active

    def window(self, start: int, length: int) -> np.ndarray:
        """`length` frames from `start` on [1, mels, length], with zeros after the last one."""
        part = self.data[:, start : start + length]
        return np.pad(part, ((0, 0), (0, length - part.shape[1])))[None]


class FeatureExtractor:
    """Features by the settings of a folder's preprocessor_config.json, Whisper's own without the file, or by
    those that are given."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None):
        settings = read_settings(folder / "preprocessor_config.json") if settings is None else settings
        self.mels: int = settings.get("feature_size", 80)
        self.rate: int = settings.get("sampling_rate", 16000)
        self.hop: int = settings.get("hop_length", 160)
        self.size: int = settings.get("n_fft", 400)
        self.seconds: int = settings.get("chunk_length", 30)
        self.samples: int = settings.get("n_samples", 480000)
        self.frames: int = settings.get("nb_max_frames", 3000)
        if self.rate // 2 < _HIGHEST:
            raise OvjitError(
                f"preprocessor_config.json: sampling_rate should be at least {2 * _HIGHEST:.0f}, "
                f"not {self.rate}"
            )
        angles = np.float32(2 * np.pi) * np.arange(self.size, dtype=np.float32) / np.float32(self.size)
        self._window = (0.5 * (1 - np.cos(angles))).astype(np.float32)
        self._filters = build_filters(1 + self.size // 2, self.mels, self.rate)

    def extract(self, samples: np.ndarray, pads: bool = True) -> Features:
        """Features of sound [samples] in f32. A short sound is padded with zeros to `samples`, if `pads`.
        OvjitError if it is not longer than half of a frame."""
        half = self.size // 2
        if len(samples) <= half:
            raise OvjitError(
                f"raw_speech too short for reflect padding: size={len(samples)}, required > {half}"
            )
        count = max(len(samples), self.samples if pads else 0) // self.hop
        active = min((len(samples) + half) // self.hop + 1, count)
        padded = np.zeros((active - 1) * self.hop + self.size, np.float32)
        sound = np.concatenate([samples[half:0:-1], samples])
        padded[: len(sound)] = sound[: len(padded)]
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.size)[:: self.hop]
        data = np.full((self.mels, count), -10.0, np.float32)
        for start in range(0, active, _BLOCK):
            spectrum = np.fft.rfft(frames[start : start + _BLOCK] * self._window)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
            values = self._filters @ power.T
            data[:, start : start + len(power)] = np.log10(np.maximum(values, np.float32(1e-10)))
        np.maximum(data, data.max() - np.float32(8), out=data)
        return Features((data + np.float32(4)) / np.float32(4), len(samples) // self.hop)


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    rising = _BREAK_HERTZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL))
    return np.where(mels < _BREAK_MEL, _HERTZ_PER_MEL * mels, rising)


def build_filters(bins: int, mels: int, rate: int) -> np.ndarray:
    """Triangular filters [mels, bins] in f32, each of the area 1."""
    highest = _BREAK_MEL + np.log(_HIGHEST / _BREAK_HERTZ) / _LOG_STEP
    edges = _to_hertz(np.linspace(0, highest, mels + 2))
    frequencies = np.linspace(0, rate // 2, bins)
    distances = edges[:, None] - frequencies
    widths = np.diff(edges)[:, None]
    triangles = np.minimum(-distances[:-2] / widths[:-1], distances[2:] / widths[1:])
    areas = 2 / (edges[2:] - edges[:-2])[:, None]
    return (np.maximum(triangles, 0) * areas).astype(np.float32)
