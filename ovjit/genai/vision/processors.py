"""Settings of the processors of pictures and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovjit.generation.tokenizer import read_settings


def read_processor(folder: Path, kind: str = "image") -> dict[str, Any]:
    """The settings of the processor of `kind` (image, video): those of `processor_config.json` if it has
    both, else those of `preprocessor_config.json` or `video_preprocessor_config.json`. {} without a file."""
    joint = read_settings(folder / "processor_config.json")
    if "image_processor" in joint and "video_processor" in joint:
        processor: dict[str, Any] = joint[f"{kind}_processor"]
        return processor
    file = folder / "video_preprocessor_config.json"
    if kind != "video" or not file.is_file():
        file = folder / "preprocessor_config.json"
    return read_settings(file)
