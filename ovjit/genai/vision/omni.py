"""Qwen3-Omni's language model: texts from texts, pictures, videos and sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.genai.config import GenerationConfig, demand
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Prompt, Visual
from ovjit.genai.vision.qwen import Qwen3VL
from ovjit.genai.vision.tags import Media
from ovjit.genai.whisper.mel import FeatureExtractor

_AUDIO = "audio_encoder"
_START, _PAD, _END = "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"


class Sound(Visual):
    """The features of a prompt's sounds."""


def halve(frames: np.ndarray) -> np.ndarray:
    """The numbers of frames that three convolutions of stride 2 leave."""
    return (frames + 7) // 8


class Qwen3Omni(Qwen3VL):
    """Qwen3-Omni. One network encodes pictures, another one sounds, if there is one."""

    networks: ClassVar[tuple[str, ...]] = ("vision_embeddings_pos",)
    _last_network = "vision_embeddings"
    _filter = ("half_pixel", -0.5, "bicubic_pillow")

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        thinker = read_json(folder / "config.json").get("thinker_config") or {}
        audio, self._audio_token = thinker.get("audio_config") or {}, int(thinker.get("audio_token_id", -1))
        self._window, self._step = int(audio.get("n_window", 50)), int(audio.get("n_window_infer", 200))
        if _AUDIO in requests:
            is_valid = 0 < 2 * self._window <= self._step
            demand(is_valid, "config.json: n_window_infer should be at least 2 * n_window")
            mels = int(audio.get("num_mel_bins", 128))
            self._extractor = FeatureExtractor(folder, {"feature_size": mels})

    @classmethod
    def list_networks(cls, folder: Path) -> tuple[str, ...]:
        file = folder / f"openvino_{_AUDIO}_model.xml"
        return (*cls.networks, _AUDIO) if file.is_file() else cls.networks

    def _read_vision(self, settings: dict[str, Any]) -> dict[str, Any]:
        # the pace of frames is that of the top, if it has one
        return {**(settings.get("thinker_config", {}).get("vision_config") or {}), "tokens_per_second": 2,
                **(settings.get("vision_config") or {})}  # fmt: skip

    def _encode_patches(self, patches: np.ndarray, rows: int, columns: int) -> Any:
        feeds = self._feed(patches, rows, columns)
        feeds["pos_embeds"] = self._embed_positions(rows, columns)
        return self._requests[self._last_network].infer(feeds)

    def encode_sounds(self, sounds: Sequence[np.ndarray]) -> list[Visual]:
        """The features of samples f32 at 16 kHz: one list for all. Empty sounds are left out."""
        if _AUDIO not in self._requests:
            return super().encode_sounds(sounds)
        features = [self._encode_sound(sound) for sound in sounds if sound.size]
        return [Sound(np.concatenate(features))] if features else []

    def _encode_sound(self, samples: np.ndarray) -> np.ndarray:
        """The features [tokens, size] of a sound: chunks of its frames that overlap by half."""
        frames = self._extractor.extract(samples, pads=False).data
        step, size = self._step, 2 * self._step
        count = frames.shape[1]
        demand(count, "Audio input too short to produce mel spectrogram frames")
        starts = np.arange(0, count, step)
        padded = np.pad(frames, ((0, 0), (0, size)))
        chunks = np.stack([padded[:, start : start + size] for start in starts])
        lengths = halve(np.minimum(size, count - starts))
        most = int(halve(np.array(size)))
        mask = np.arange(most) < lengths[:, None]
        window = most * (step // (2 * self._window))
        parts = [min(window, length - i) for length in lengths.tolist() for i in range(0, length, window)]
        feeds = {
            "padded_feature": chunks, "padded_mask_after_cnn": mask,
            "aftercnn_lens": lengths.astype(np.int64), "cu_seqlens": np.cumsum([0, *parts], dtype=np.int32),
        }  # fmt: skip
        return self.run(_AUDIO, feeds)[mask]

    def insert_tags(self, prompt: str, bases: tuple[int, int], media: Media) -> tuple[str, list[Any]]:
        text, visuals = super().insert_tags(prompt, bases, media)
        if media.sounds and _START not in text:
            text = _START + _PAD * len(media.sounds[0].features) + _END + text
        return text, [*media.sounds, *visuals]

    def tokenize(self, text: str, special: bool, visuals: Sequence[Any]) -> np.ndarray:
        return super().tokenize(text, special, _split(visuals)[1])

    def prune(
        self, ids: np.ndarray, embeds: np.ndarray, visuals: list[Any], config: GenerationConfig
    ) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        sounds, shown = _split(visuals)
        ids, embeds, shown = super().prune(ids, embeds, shown, config)
        return ids, embeds, [*sounds, *shown]

    def merge(self, ids: np.ndarray, embeds: np.ndarray, visuals: Sequence[Any]) -> Prompt:
        sounds, shown = _split(visuals)
        if sounds:
            features, slots = np.concatenate([s.features for s in sounds]), ids[0] == self._audio_token
            count, size = slots.sum(), len(features)
            demand(count == size, f"the prompt has {count} tokens {_PAD} for {size} of its sounds")
            embeds = embeds.copy()
            embeds[0, slots] = features
        prompt = super().merge(ids, embeds, shown)
        prompt.shift[:] = prompt.positions[:3].max() + 1 - ids.shape[1]
        return prompt

    def positions(self, ids: np.ndarray, visuals: Sequence[Any]) -> np.ndarray:
        """i64 [4, 1, tokens]: the last axis numbers the tokens of a picture."""
        axes = super().positions(ids, visuals)
        slots, numbers = self.find_slots(ids), np.arange(ids.shape[1])
        begins = np.maximum.accumulate(np.where(slots & ~np.roll(slots, 1), numbers, 0))
        last = np.where(slots, axes[0, 0, begins] + numbers - begins, axes[0, 0])
        return np.concatenate([axes, last[None, None]])


def _split(visuals: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(the sounds, the others) of a prompt."""
    sounds = [visual for visual in visuals if isinstance(visual, Sound)]
    return sounds, [visual for visual in visuals if not isinstance(visual, Sound)]
