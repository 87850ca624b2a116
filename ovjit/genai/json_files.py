"""JSON files of models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ovjit.errors import OvjitError
from ovjit.generation.tokenizer import read_settings


def read_json(path: Any, role: str = "") -> dict[str, Any]:
    """The object in a file. RuntimeError if there is none; `role` says what the file is."""
    file = Path(os.fsdecode(path))
    if not (file.is_file() and os.access(file, os.R_OK)):
        raise OvjitError(f"Failed to open '{file}'{role}")
    return read_settings(file)
