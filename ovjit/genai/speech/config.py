"""SpeechGenerationConfig: how a text is spoken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ovjit.genai.config import FIELDS, GenerationConfig, demand
from ovjit.genai.fields import REAL, SIZE, Kind, Optional, Text


class _Folder(Kind):
    """The path of a folder."""

    def assign(self, value: Any) -> Path:
        if not isinstance(value, (str, bytes, os.PathLike)):
            raise TypeError(f"expected a path, not {type(value).__name__}")
        return Path(os.fsdecode(value))


_SPEECH: dict[str, tuple[Any, Kind]] = {
    "language": ("en-us", Text()), "max_phoneme_length": (510, SIZE), "maxlenratio": (20.0, REAL),
    "minlenratio": (0.0, REAL), "phonemize_fallback_model_dir": (None, Optional(_Folder())),
    "speed": (1.0, REAL), "threshold": (0.5, REAL),
}  # fmt: skip


class SpeechGenerationConfig(GenerationConfig):
    """Settings of Text2SpeechPipeline: from keywords, or the path of a generation_config.json. The lengths
    are ratios to the number of a text's tokens. `speed`, `language` and phonemes are for models other than
    SpeechT5."""

    _fields = {**FIELDS, **_SPEECH}

    def _select(self, content: dict[str, Any]) -> dict[str, Any]:
        values = {name: content[name] for name in _SPEECH if content.get(name) is not None}
        return super()._select(content) | values

    def validate(self) -> None:
        """RuntimeError if fields are out of range."""
        demand(self.speed > 0, f"speed must be positive, not {self.speed:g}")
        demand(self.minlenratio >= 0, f"minlenratio must be non-negative, not {self.minlenratio:g}")
        demand(
            self.maxlenratio > self.minlenratio,
            f"maxlenratio ({self.maxlenratio:g}) must be greater than minlenratio ({self.minlenratio:g})",
        )
        demand(0 <= self.threshold <= 1, f"threshold must be in the range [0; 1], and is {self.threshold:g}")
        demand(self.max_phoneme_length > 0, "max_phoneme_length must be positive")
