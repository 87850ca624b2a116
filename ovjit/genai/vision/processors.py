"""Settings of the processors of pictures and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovjit.genai.json_files import read_json


def read_processor(folder: Path, kind: str = "image") -> dict[str, Any]:
    """The settings of the processor of `kind` (image, video): those of `processor_config.json` if it has
    both, else those of `preprocessor_config.json` or `video_preprocessor_config.json`. {} without a file."""
    joint = folder / "processor_config.json"
    if joint.is_file():
        settings = read_json(joint)
        if "image_processor" in settings and "video_processor" in settings:
            processor: dict[str, Any] = settings[f"{kind}_processor"]
            return processor
    file = folder / "video_preprocessor_config.json"
    if kind != "video" or not file.is_file():
        file = folder / "preprocessor_config.json"
    return read_json(file) if file.is_file() else {}
