"""JSON files of models."""

from __future__ import annotations

import json
import os
from typing import Any

from ovjit.errors import OvjitError


def read_json(path: Any) -> dict[str, Any]:
    """The object in a file. RuntimeError if there is none."""
    name = os.fsdecode(path)
    try:
        with open(name, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise OvjitError(f"Failed to open '{name}'") from error
    except ValueError as error:
        raise OvjitError(f"{name} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise OvjitError(f"{name} should have an object, not {type(content).__name__}")
    return content
