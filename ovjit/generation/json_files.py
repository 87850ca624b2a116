"""JSON files of models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ovjit.errors import OvjitError


def read_json(path: Any, role: str = "") -> dict[str, Any]:
    """The object in a file. RuntimeError if there is none, which says its `role`."""
    name = os.fsdecode(path)
    try:
        with open(name, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise OvjitError(f"Failed to open '{name}'{role}") from error
    except ValueError as error:
        raise OvjitError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise OvjitError(f"{name} should hold a JSON object")
    return content


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a file; {} without a file. RuntimeError for other content."""
    return read_json(path) if path.is_file() else {}
