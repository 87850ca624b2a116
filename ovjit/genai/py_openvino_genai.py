"""The name of openvino_genai's compiled module, from which some programs import classes."""

from __future__ import annotations

from typing import Any

from ovjit import genai


def __getattr__(name: str) -> Any:
    return getattr(genai, name)


def __dir__() -> list[str]:
    return list(genai.__all__)
